"""Images: convolutions, pools and batch normalisation."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from ...arguments.arrays import Array
from ...convolution import arguments
from ._common import quiet

__all__ = [
    "avg_pool2d",
    "avg_pool2d_gradient",
    "batch_norm",
    "batch_norm_gradient",
    "conv2d",
    "conv2d_gradient",
    "max_pool2d",
    "max_pool2d_gradient",
]


def _windows(X: Array, size: int, stride: int) -> Array:
    """Return a view (n, C, places down, places to the right, size, size) of all windows."""
    return sliding_window_view(X, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]


def _padded(X: Array, zeros: int) -> Array:
    return np.pad(X, ((0, 0), (0, 0), (zeros, zeros), (zeros, zeros)))


@quiet
def conv2d(X: ArrayLike, W: ArrayLike, b: ArrayLike | None = None, *, stride: int = 1, padding: int = 0) -> Array:
    """Compute a convolution as one product of matrices, of which one is a copy of all windows; see `kernels.conv2d`."""
    a = arguments.convolution(X, W, b, stride, padding)
    windows = _windows(_padded(a.X, a.padding), a.W.shape[2], a.stride)
    z = np.tensordot(windows, a.W, axes=((1, 4, 5), (1, 2, 3)))
    z += a.b
    return np.ascontiguousarray(z.transpose(0, 3, 1, 2))


@quiet
def conv2d_gradient(
    dZ: ArrayLike, X: ArrayLike, W: ArrayLike, *, stride: int = 1, padding: int = 0
) -> tuple[Array, Array, Array]:
    """Gradient in X, W and b: a product of matrices for each place of the kernel; see `kernels.conv2d_gradient`."""
    a = arguments.convolution(X, W, None, stride, padding)
    size, step = a.W.shape[2], a.stride
    windows = _windows(_padded(a.X, a.padding), size, step)
    height, width = windows.shape[2:4]
    d = arguments.output_gradient(dZ, (len(a.X), len(a.W), height, width), a.X.dtype)
    dW = np.tensordot(d, windows, axes=((0, 2, 3), (0, 2, 3)))
    back = np.zeros((*a.X.shape[:2], a.X.shape[2] + 2 * a.padding, a.X.shape[3] + 2 * a.padding), a.X.dtype)
    for dy in range(size):
        for dx in range(size):
            part = np.tensordot(d, a.W[:, :, dy, dx], axes=(1, 0)).transpose(0, 3, 1, 2)
            back[:, :, dy : dy + step * height : step, dx : dx + step * width : step] += part
    inside = slice(a.padding, a.padding + a.X.shape[2]), slice(a.padding, a.padding + a.X.shape[3])
    return np.ascontiguousarray(back[:, :, *inside]), np.ascontiguousarray(dW), d.sum(axis=(0, 2, 3))


@quiet
def max_pool2d(X: ArrayLike, *, size: int = 2, stride: int | None = None) -> Array:
    """Largest value of each window, NaN where there is one; see `kernels.max_pool2d`."""
    a = arguments.pooling(X, size, stride)
    return np.ascontiguousarray(_windows(a.X, a.size, a.stride).max(axis=(4, 5)))


@quiet
def max_pool2d_gradient(dZ: ArrayLike, X: ArrayLike, *, size: int = 2, stride: int | None = None) -> Array:
    """Gradient in X: what a window gets goes to the first of its largest values; see `kernels.max_pool2d_gradient`."""
    a = arguments.pooling(X, size, stride)
    windows = _windows(a.X, a.size, a.stride)
    height, width = windows.shape[2:4]
    d = arguments.output_gradient(dZ, windows.shape[:4], a.X.dtype)
    first = windows.reshape(*windows.shape[:4], a.size**2).argmax(axis=4)  # of NaN too
    result = np.zeros_like(a.X)
    for place in range(a.size**2):
        dy, dx = divmod(place, a.size)
        part = result[:, :, dy : dy + a.stride * height : a.stride, dx : dx + a.stride * width : a.stride]
        part += np.where(first == place, d, 0)
    return result


@quiet
def avg_pool2d(X: ArrayLike, *, size: int = 2, stride: int | None = None) -> Array:
    """Compute the mean of each window; see `kernels.avg_pool2d`."""
    a = arguments.pooling(X, size, stride)
    return np.ascontiguousarray(_windows(a.X, a.size, a.stride).mean(axis=(4, 5)))


@quiet
def avg_pool2d_gradient(dZ: ArrayLike, X: ArrayLike, *, size: int = 2, stride: int | None = None) -> Array:
    """Gradient in X: what a window gets goes to all its pixels alike; see `kernels.avg_pool2d_gradient`."""
    a = arguments.pooling(X, size, stride)
    height, width = _windows(a.X, a.size, a.stride).shape[2:4]
    share = arguments.output_gradient(dZ, (*a.X.shape[:2], height, width), a.X.dtype) / a.X.dtype.type(a.size**2)
    result = np.zeros_like(a.X)
    for dy in range(a.size):
        for dx in range(a.size):
            result[:, :, dy : dy + a.stride * height : a.stride, dx : dx + a.stride * width : a.stride] += share
    return result


def _standard(X: Array, epsilon: float) -> tuple[Array, Array]:
    """Return each channel less its mean, times a factor, and that."""
    centered = X - X.mean(axis=(0, 2, 3), dtype=np.float64, keepdims=True).astype(X.dtype)
    variance = np.square(centered).mean(axis=(0, 2, 3), dtype=np.float64, keepdims=True)
    factor = (1 / np.sqrt(variance + epsilon)).astype(X.dtype)
    return centered * factor, factor


@quiet
def batch_norm(X: ArrayLike, gamma: ArrayLike, beta: ArrayLike, *, epsilon: float = 1e-5) -> Array:
    """Each channel less its mean, over √(variance + ε), times gamma plus beta; see `kernels.batch_norm`."""
    a = arguments.normalization(X, gamma, beta, epsilon)
    return _standard(a.X, a.epsilon)[0] * a.gamma[:, None, None] + a.beta[:, None, None]


@quiet
def batch_norm_gradient(
    dZ: ArrayLike, X: ArrayLike, gamma: ArrayLike, *, epsilon: float = 1e-5
) -> tuple[Array, Array, Array]:
    """Gradient in X, gamma and beta; see `kernels.batch_norm_gradient`."""
    a = arguments.normalization(X, gamma, None, epsilon)
    d, (standard, factor) = arguments.output_gradient(dZ, a.X.shape, a.X.dtype), _standard(a.X, a.epsilon)
    along = (d * standard).sum(axis=(0, 2, 3), dtype=np.float64).astype(a.X.dtype)
    total = d.sum(axis=(0, 2, 3), dtype=np.float64).astype(a.X.dtype)
    count = a.X.dtype.type(d.size // len(total))
    dX = (
        a.gamma[:, None, None]
        * factor
        * (d - (total / count)[:, None, None] - standard * (along / count)[:, None, None])
    )
    return dX, along, total
