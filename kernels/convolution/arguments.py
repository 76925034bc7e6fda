"""What convolutions, pools and batch normalization ask of their arguments."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..arguments.arrays import Array, as_contiguous, floating, real
from ..arguments.scalars import count, scalar
from ..arguments.targets import refuse_empty


class ConvolutionArguments(NamedTuple):
    """The settled arguments of a convolution; all arrays share one dtype."""

    X: Array  # (n, C, H, W)
    W: Array  # (channels, C, size, size)
    b: Array  # (channels,)
    stride: int
    padding: int


def convolution(
    X: ArrayLike, W: ArrayLike, b: ArrayLike | None, stride: object, padding: object
) -> ConvolutionArguments:
    """Settle the arguments of `conv2d`; without `b` intercepts are 0."""
    X = images(X)
    dtype = X.dtype
    weights = real(W, "W")
    if weights.ndim != 4 or weights.shape[2] != weights.shape[3] or 0 in weights.shape:
        raise ValueError(
            f"W has shape {weights.shape}; it must be (channels, channels of X, size, size), none of them 0"
        )
    if weights.shape[1] != X.shape[1]:
        raise ValueError(f"W has {weights.shape[1]} channels in, X has {X.shape[1]}; they must be equal")
    intercepts = np.zeros(len(weights), dtype) if b is None else real(b, "b")
    if intercepts.shape != (len(weights),):
        raise ValueError(f"b has shape {intercepts.shape}; W has {len(weights)} channels out, which need one each")
    size, step = weights.shape[2], count(stride, "stride")
    zeros = 0 if type(padding) is int and padding == 0 else count(padding, "padding")
    if zeros >= size:
        raise ValueError(f"padding is {zeros}; it must be below the size of a kernel, which is {size}")
    if min(X.shape[2:]) + 2 * zeros < size:
        raise ValueError(
            f"X has images of {X.shape[2]} x {X.shape[3]}, padding is {zeros}; kernels of {size} x {size} need more"
        )
    return ConvolutionArguments(X, as_contiguous(weights, dtype), as_contiguous(intercepts, dtype), step, zeros)


class PoolingArguments(NamedTuple):
    """The settled arguments of a pool."""

    X: Array  # (n, C, H, W)
    size: int
    stride: int


def pooling(X: ArrayLike, size: object, stride: object) -> PoolingArguments:
    """Settle the arguments of `max_pool2d` and `avg_pool2d`; without `stride` it is `size`."""
    X, width = images(X), count(size, "size")
    if width > 16:
        raise ValueError(f"size is {width}; it must be at most 16")
    if min(X.shape[2:]) < width:
        raise ValueError(f"X has images of {X.shape[2]} x {X.shape[3]}; windows of {width} x {width} need more")
    return PoolingArguments(X, width, width if stride is None else count(stride, "stride"))


class BatchNormArguments(NamedTuple):
    """The settled arguments of a batch normalisation; all share one dtype."""

    X: Array  # (n, C, H, W)
    gamma: Array  # (C,)
    beta: Array  # (C,)
    epsilon: float


def normalization(X: ArrayLike, gamma: ArrayLike, beta: ArrayLike | None, epsilon: object) -> BatchNormArguments:
    """Settle the arguments of `batch_norm`; without `beta` it is 0."""
    X = images(X)
    channels = X.shape[1:2]
    parts = [real(gamma, "gamma"), np.zeros(channels) if beta is None else real(beta, "beta")]
    for name, part in zip(("gamma", "beta"), parts, strict=True):
        if part.shape != channels:
            raise ValueError(f"{name} has shape {part.shape}; X has {channels[0]} channels, which need one each")
    refuse_empty(len(X), "X has no images")
    small = float(scalar(epsilon, "epsilon"))
    if not (small > 0 and math.isfinite(small)):
        raise ValueError(f"epsilon is {epsilon!r}; it must be positive and finite")
    return BatchNormArguments(X, as_contiguous(parts[0], X.dtype), as_contiguous(parts[1], X.dtype), small)


def images(X: ArrayLike) -> Array:
    """Settle images (n, channels, height, width)."""
    settled = floating(X, "X", 4)
    if 0 in settled.shape[1:]:
        raise ValueError(f"X has shape {settled.shape}; images must have at least one channel and one pixel")
    return settled


def output_gradient(dZ: ArrayLike, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Settle the gradient in what a layer made."""
    settled = real(dZ, "dZ")
    if settled.shape != shape:
        raise ValueError(f"dZ has shape {settled.shape}; what the layer makes of X has {shape}")
    return as_contiguous(settled, dtype)
