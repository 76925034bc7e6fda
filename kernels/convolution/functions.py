"""Convolutions, pools and batch normalisation of images, and their gradients.

Images are arrays (n, channels, height, width). A convolution copies them to where channels lie last (`Grid`), has the
layer `Conv2D` of networks work there, and copies the result back; networks stay there from layer to layer. Pools and
batch normalisation are so little work that the copies would cost more: they work on images as they are (`_pooling`,
`_batch_norm`).

Sums. A pixel of a convolution is one sum in the dtype of X, in the order row of the kernel, column, channel. Gradients
in weights are sums over the pixels of an image, added up image by image. Means and variances of channels are sums over
up to 1,024 pixels in the dtype of X, added up in float64. What is summed in which order depends on the shapes alone:
same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from ..arguments.arrays import Array
from ..runtime.jit import readonly
from ..runtime.memory import aligned
from . import arguments
from ._batch_norm import normalize, normalize_backward
from ._grid_loops import fetch
from ._pooling import pool, pool_backward
from .buffers import Buffers, Grid
from .layers import Layer
from .product_layers import Conv2D
from .tasks import Task, run_stages, seconds_of, stages_of

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


def conv2d(
    X: ArrayLike,
    W: ArrayLike,
    b: ArrayLike | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    n_threads: int | None = None,
) -> Array:
    """Convolve images with kernels, as networks do: without turning the kernels round.

    ``z[o, y, x] = b[o] + sum of W[o, c, i, j] X[c, y * stride + i - padding, x * stride + j - padding]`` over c, i, j.

    Parameters
    ----------
    X : array-like of shape (n, C, H, W)
        Images. float16 and float32 are worked on as float32, all else as float64; W and b are cast to that.
    W : array-like of shape (channels, C, size, size)
        A kernel for each channel of the result.
    b : array-like of shape (channels,), optional
        Intercepts; None is 0.
    stride : int, default=1
        Pixels from one place of a kernel to the next.
    padding : int, default=0
        Zeros around the images, fewer than `size`.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    ndarray of shape (n, channels, (H + 2 * padding - size) // stride + 1, (W + 2 * padding - size) // stride + 1)

    Raises
    ------
    TypeError
        If an argument is not of real numbers.
    ValueError
        If shapes do not fit, or a value is not usable.

    Notes
    -----
    Cost: size² C multiply-adds for each value of the result. Work space: copies of images, weights and result.

    Examples
    --------
    >>> from fastml.kernels import conv2d
    >>> conv2d([[[[1.0, 2.0, 4.0]]]], [[[[3.0]]]], [1.0])
    array([[[[ 4.,  7., 13.]]]])
    """
    a = arguments.convolution(X, W, b, stride, padding)
    layer = Conv2D(a.X.shape[1:], len(a.W), a.W.shape[2], a.stride, a.padding)
    buffers = _buffers_of(layer, a.X, {"weight": a.W, "bias": a.b})
    n = len(a.X)
    _run([_fetch(a.X, buffers.input), *layer.forward(buffers, n)], layer, buffers, n, n_threads)
    return _channels_first(buffers.output, n)


def conv2d_gradient(
    dZ: ArrayLike,
    X: ArrayLike,
    W: ArrayLike,
    *,
    stride: int = 1,
    padding: int = 0,
    n_threads: int | None = None,
) -> tuple[Array, Array, Array]:
    """Compute the gradient of a loss in images, kernels and intercepts of `conv2d`, from that in its result.

    Parameters
    ----------
    dZ : array-like of the shape of what `conv2d` returns
        Derivatives of the loss in that; cast to the dtype that X is worked on in.
    X, W, stride, padding, n_threads
        As in `conv2d`.

    Returns
    -------
    dX : ndarray of shape (n, C, H, W)
    dW : ndarray of shape (channels, C, size, size)
    db : ndarray of shape (channels,)

    Raises
    ------
    TypeError
        If an argument is not of real numbers.
    ValueError
        If shapes do not fit, or a value is not usable.

    Notes
    -----
    Cost: twice that of `conv2d`, with a stride s that in X s² times. Work space: copies of all arguments and results.

    Source: Y. LeCun et al., "Backpropagation applied to handwritten zip code recognition" (1989).

    Examples
    --------
    >>> from fastml.kernels import conv2d_gradient
    >>> conv2d_gradient([[[[1.0, 0.0, 2.0]]]], [[[[1.0, 2.0, 4.0]]]], [[[[3.0]]]])
    (array([[[[3., 0., 6.]]]]), array([[[[9.]]]]), array([3.]))
    """
    a = arguments.convolution(X, W, None, stride, padding)
    layer = Conv2D(a.X.shape[1:], len(a.W), a.W.shape[2], a.stride, a.padding)
    n = len(a.X)
    grad = arguments.output_gradient(dZ, (n, *layer.shape), a.X.dtype)
    buffers = _buffers_of(layer, a.X, {"weight": a.W, "bias": a.b}, training=True)
    buffers.output_grad.pixels(n)[...] = grad.transpose(0, 2, 3, 1)
    way_back = [*layer.prepare(buffers), *layer.backward(buffers, n), *layer.gradient(buffers, n)]
    _run([_fetch(a.X, buffers.input), *way_back], layer, buffers, n, n_threads)
    dW, db = (np.ascontiguousarray(layer.unpack(name, buffers.gradient[name])) for name in ("weight", "bias"))
    assert buffers.input_grad is not None
    return _channels_first(buffers.input_grad, n), dW, db


def max_pool2d(X: ArrayLike, *, size: int = 2, stride: int | None = None, n_threads: int | None = None) -> Array:
    """Take the largest value of each window of an image, in each channel.

    Parameters
    ----------
    X : array-like of shape (n, C, H, W)
        Images. float16 and float32 are worked on as float32, all else as float64.
    size : int, default=2
        Height and width of a window, at most 16.
    stride : int, optional
        Pixels from one window to the next; None is `size`.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    ndarray of shape (n, C, (H - size) // stride + 1, (W - size) // stride + 1)
        NaN where a window has one.

    Raises
    ------
    TypeError
        If an argument is not of real numbers.
    ValueError
        If shapes do not fit, or a value is not usable.

    Examples
    --------
    >>> from fastml.kernels import max_pool2d
    >>> max_pool2d([[[[1.0, 2.0], [4.0, 3.0]]]])
    array([[[[4.]]]])
    """
    a = arguments.pooling(X, size, stride)
    return pool(a.X, a.size, a.stride, n_threads, average=False)


def max_pool2d_gradient(
    dZ: ArrayLike, X: ArrayLike, *, size: int = 2, stride: int | None = None, n_threads: int | None = None
) -> Array:
    """Compute the gradient of a loss in the images of `max_pool2d`, from that in its result.

    Parameters
    ----------
    dZ : array-like of the shape of what `max_pool2d` returns
        Derivatives of the loss in that; cast to the dtype that X is worked on in.
    X, size, stride, n_threads
        As in `max_pool2d`.

    Returns
    -------
    ndarray of shape (n, C, H, W)
        What a window has goes to its largest value, to the first of equals (line by line), or to the first NaN.

    Raises
    ------
    TypeError
        If an argument is not of real numbers.
    ValueError
        If shapes do not fit, or a value is not usable.

    Examples
    --------
    >>> from fastml.kernels import max_pool2d_gradient
    >>> max_pool2d_gradient([[[[5.0]]]], [[[[1.0, 2.0], [4.0, 4.0]]]])
    array([[[[0., 0.],
             [5., 0.]]]])
    """
    a = arguments.pooling(X, size, stride)
    return pool_backward(_grad_of_windows(dZ, a), a.X, a.size, a.stride, n_threads, average=False)


def avg_pool2d(X: ArrayLike, *, size: int = 2, stride: int | None = None, n_threads: int | None = None) -> Array:
    """Take the mean of each window of an image, in each channel.

    Parameters
    ----------
    X, size, stride, n_threads
        As in `max_pool2d`.

    Returns
    -------
    ndarray of shape (n, C, (H - size) // stride + 1, (W - size) // stride + 1)

    Raises
    ------
    TypeError
        If an argument is not of real numbers.
    ValueError
        If shapes do not fit, or a value is not usable.

    Examples
    --------
    >>> from fastml.kernels import avg_pool2d
    >>> avg_pool2d([[[[1.0, 2.0], [4.0, 3.0]]]])
    array([[[[2.5]]]])
    """
    a = arguments.pooling(X, size, stride)
    return pool(a.X, a.size, a.stride, n_threads, average=True)


def avg_pool2d_gradient(
    dZ: ArrayLike, X: ArrayLike, *, size: int = 2, stride: int | None = None, n_threads: int | None = None
) -> Array:
    """Compute the gradient of a loss in the images of `avg_pool2d`, from that in its result.

    Parameters
    ----------
    dZ : array-like of the shape of what `avg_pool2d` returns
        Derivatives of the loss in that; cast to the dtype that X is worked on in.
    X, size, stride, n_threads
        As in `avg_pool2d`; of the values in X nothing depends.

    Returns
    -------
    ndarray of shape (n, C, H, W)

    Raises
    ------
    TypeError
        If an argument is not of real numbers.
    ValueError
        If shapes do not fit, or a value is not usable.

    Examples
    --------
    >>> from fastml.kernels import avg_pool2d_gradient
    >>> avg_pool2d_gradient([[[[4.0]]]], [[[[1.0, 2.0], [4.0, 3.0]]]])
    array([[[[1., 1.],
             [1., 1.]]]])
    """
    a = arguments.pooling(X, size, stride)
    return pool_backward(_grad_of_windows(dZ, a), a.X, a.size, a.stride, n_threads, average=True)


def batch_norm(
    X: ArrayLike, gamma: ArrayLike, beta: ArrayLike, *, epsilon: float = 1e-5, n_threads: int | None = None
) -> Array:
    """Normalise each channel of a batch of images, then scale and shift it.

    ``(x - mean) / sqrt(variance + epsilon) * gamma + beta``, with mean and variance over all images and pixels.

    Parameters
    ----------
    X : array-like of shape (n, C, H, W)
        Images; rows of numbers are images of one pixel. float16 and float32 are worked on as float32, all else as
        float64; gamma and beta are cast to that.
    gamma, beta : array-like of shape (C,)
        Scale and shift of each channel.
    epsilon : float, default=1e-5
        Added to the variance, which is that of the batch itself (divided by its number of pixels).
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    ndarray of shape (n, C, H, W)

    Raises
    ------
    TypeError
        If an argument is not of real numbers.
    ValueError
        If shapes do not fit, n is 0, or a value is not usable.

    Notes
    -----
    The variance comes from deviations from the mean: it is right for pixels far from 0, too.

    Source: S. Ioffe and C. Szegedy, "Batch normalization" (2015).

    Examples
    --------
    >>> from fastml.kernels import batch_norm
    >>> batch_norm([[[[1.0, 3.0]]]], [2.0], [1.0], epsilon=1e-12).round(6)
    array([[[[-1.,  3.]]]])
    """
    a = arguments.normalization(X, gamma, beta, epsilon)
    return normalize(a.X, a.gamma, a.beta, a.epsilon, n_threads)


def batch_norm_gradient(
    dZ: ArrayLike,
    X: ArrayLike,
    gamma: ArrayLike,
    *,
    epsilon: float = 1e-5,
    n_threads: int | None = None,
) -> tuple[Array, Array, Array]:
    """Compute the gradient of a loss in images, gamma and beta of `batch_norm`, from that in its result.

    Parameters
    ----------
    dZ : array-like of shape (n, C, H, W)
        Derivatives of the loss in what `batch_norm` returns; cast to the dtype that X is worked on in.
    X, gamma, epsilon, n_threads
        As in `batch_norm`.

    Returns
    -------
    dX : ndarray of shape (n, C, H, W)
        Each image changes mean and variance, on which all depend: the gradient of a channel sums to 0.
    dgamma, dbeta : ndarray of shape (C,)

    Raises
    ------
    TypeError
        If an argument is not of real numbers.
    ValueError
        If shapes do not fit, n is 0, or a value is not usable.

    Examples
    --------
    >>> from fastml.kernels import batch_norm_gradient
    >>> dX, dgamma, dbeta = batch_norm_gradient([[[[1.0, 2.0]]]], [[[[1.0, 3.0]]]], [2.0], epsilon=1e-12)
    >>> dX.round(6) + 0.0, dgamma.round(6), dbeta
    (array([[[[0., 0.]]]]), array([1.]), array([3.]))
    """
    a = arguments.normalization(X, gamma, None, epsilon)
    grad = arguments.output_gradient(dZ, a.X.shape, a.X.dtype)
    return normalize_backward(grad, a.X, a.gamma, a.epsilon, n_threads)


def _grad_of_windows(dZ: ArrayLike, a: arguments.PoolingArguments) -> Array:
    """Settle the gradient in what a pool makes."""
    places = ((length - a.size) // a.stride + 1 for length in a.X.shape[2:])
    return arguments.output_gradient(dZ, (*a.X.shape[:2], *places), a.X.dtype)


# ------------------------------------------------------------------------------------ one layer by itself


def _buffers_of(layer: Layer, X: Array, parameters: dict[str, Array], *, training: bool = False) -> Buffers:
    """Return what one layer needs to work on X; in training that is the gradient in X, too."""
    size, dtype = max(1, len(X)), X.dtype
    values = Grid(size, layer.input_shape, dtype, border=layer.border)
    result = values if layer.in_place(training) else Grid(size, layer.shape, dtype)
    shapes = layer.stored_shapes(dtype, values.pitch)
    stored = {name: aligned(shape, dtype) for name, shape in shapes.items()}
    for name, part in stored.items():
        layer.pack(name, part, parameters[name])
    fixed = {name: readonly(part) for name, part in stored.items()}
    if not training:
        return Buffers(values, result, parameters=fixed)
    gradient = {name: aligned(shape, dtype) for name, shape in shapes.items()}
    grad = Grid(size, layer.input_shape, dtype)
    given = grad if layer.grad_in_place() else Grid(size, layer.shape, dtype, border=layer.grad_border())
    return Buffers(values, result, grad, given, fixed, gradient, training=True)


def _fetch(X: Array, grid: Grid) -> Task:
    """Copy images to a grid."""
    images, rows = readonly(X), readonly(np.arange(len(X)))
    nothing, one = (readonly(make(X.shape[1], X.dtype)) for make in (np.zeros, np.ones))
    return Task(lambda first, last: fetch(images, rows, first, last, nothing, one, grid.flat, grid.place))


def _run(tasks: Iterable[Task], layer: Layer, buffers: Buffers, n: int, n_threads: int | None) -> None:
    """Do the tasks of one layer."""
    ways, itemsize = (2 if buffers.training else 1), buffers.dtype.itemsize
    image, made = buffers.input.image, buffers.output.image
    seconds = seconds_of(n * ways * layer.n_products, n * ways * (image + made), itemsize)
    run_stages(stages_of(tasks), n, n_threads, image_bytes=max(image, made) * itemsize, seconds=seconds)


def _channels_first(grid: Grid, n: int) -> Array:
    """Return the first images of a grid as arrays (n, channels, height, width)."""
    return np.ascontiguousarray(grid.pixels(n).transpose(0, 3, 1, 2))
