"""Convolutions, pools and batch normalisation of images, and their gradients.

Images are arrays (n, channels, height, width). Convolutions copy them to where channels lie last (`_grids`), work
there, and copy the result back; networks (`_sequence`) stay there from layer to layer. Pools and batch normalisation
are so little work that the copies would cost more: they work on images as they are (`_planes`).

Sums. A pixel of a convolution is one sum in the dtype of X, in the order row of the kernel, column, channel. Gradients
in weights are sums over the pixels of an image, added up image by image. Means and variances of channels are sums over
up to 1,024 pixels in the dtype of X, added up in float64. What is summed in which order depends on the shapes alone:
same bits for any number of threads.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from ..arguments.arrays import Array
from . import arguments
from ._batch_norm import normalized, normalized_slopes
from ._pooling import pooled, pooled_slopes
from .plan import differentiated, worked
from .product_layers import Convolution

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
    layer = Convolution(a.X.shape[1:], len(a.W), a.W.shape[2], a.stride, a.padding)
    return worked(layer, a.X, {"weight": a.W, "bias": a.b}, n_threads)


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
    layer = Convolution(a.X.shape[1:], len(a.W), a.W.shape[2], a.stride, a.padding)
    slopes = arguments.output_gradient(dZ, (len(a.X), *layer.shape), a.X.dtype)
    dX, gradient = differentiated(layer, slopes, a.X, {"weight": a.W, "bias": a.b}, n_threads)
    return dX, gradient["weight"], gradient["bias"]


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
    return pooled(a.X, a.size, a.stride, n_threads, average=False)


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
    return pooled_slopes(_slopes_of_windows(dZ, a), a.X, a.size, a.stride, n_threads, average=False)


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
    return pooled(a.X, a.size, a.stride, n_threads, average=True)


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
    return pooled_slopes(_slopes_of_windows(dZ, a), a.X, a.size, a.stride, n_threads, average=True)


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
    return normalized(a.X, a.gamma, a.beta, a.epsilon, n_threads)


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
        Each image changes mean and variance, on which all depend: the slopes of a channel sum to 0.
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
    slopes = arguments.output_gradient(dZ, a.X.shape, a.X.dtype)
    return normalized_slopes(slopes, a.X, a.gamma, a.epsilon, n_threads)


def _slopes_of_windows(dZ: ArrayLike, a: arguments.Pooling) -> Array:
    places = ((length - a.size) // a.stride + 1 for length in a.X.shape[2:])
    return arguments.output_gradient(dZ, (*a.X.shape[:2], *places), a.X.dtype)
