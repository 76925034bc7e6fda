"""Images: convolutions, pools and batch normalisation; truths and entries.

Convolutions have kernels of 3 × 3 and zeros around the images, pools windows of 2 × 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from .entry import FLOATS, REGIMES, Dtypes, Entry, Inputs, Size, itemsize, tolerances
from .inputs import random_normal
from .truth import Array, Truth, wide_dtype

_CONVOLUTION_SIZES: dict[str, Size] = {
    "tiny": (3, 5, 6, 7),
    "default": (16, 64, 128, 16),
    "full": (64, 128, 256, 16),
    "wide": (64, 3, 64, 32),
}
_IMAGE_SIZES: dict[str, Size] = {"tiny": (3, 5, 6), "default": (16, 64, 32), "full": (256, 64, 32)}
_TOLERANCE = tolerances(16, "sums over channels, pixels and images, relative to the sums of magnitudes")


def entries() -> Iterator[Entry]:
    """Yield the entries of this family."""
    yield from _convolutions()
    yield from _pools()
    yield from _batch_norms()


def _pixels(rng: np.random.Generator, shape: Size, dtype: str, regime: str) -> Array:
    """Return images; extreme ones have large pixels, equal ones side by side, and a channel of zeros."""
    X = random_normal(rng, shape, dtype)
    if regime == "extreme":
        X *= 100
        np.rint(X, out=X)
        X[:, :, 1::2] = X[:, :, : 2 * (shape[2] // 2) : 2]
        X[:, -1] = 0
    return X


def _images(
    function: str,
    formula: str,
    arguments: Callable[[np.random.Generator, Size, str, str], tuple[Array, ...]],
    truth: Callable[[Inputs], Truth],
    results: Callable[[Size], float],
    flops: Callable[[Size], float],
    *,
    sizes: dict[str, Size],
    accumulator: str | None = None,
) -> Entry:
    """Return an entry; `results` counts the numbers that come in and out."""
    products = len(sizes["tiny"]) == 4

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        kwargs = {"padding": 1} if products else {}
        return Inputs(arguments(np.random.default_rng(seed), size, dtype, regime), kwargs)

    return Entry(
        key=function,
        function=function,
        family="convolution",
        formula=formula,
        dtypes={dtype: Dtypes(accumulator or dtype, dtype) for dtype in FLOATS},
        sizes=sizes,
        axes=("n", "c", "o", "h") if products else ("n", "c", "h"),
        make=make,
        regimes=REGIMES,
        work=flops,
        unit="flop" if products else "elem",
        bytes=lambda size, dtype: results(size) * itemsize(dtype),
        flops=flops,
        limit="gemm" if products else "memory",
        tolerance=_TOLERANCE,
        loop_size=(1, 8, 8, 16) if products else (1, 8, 32),
        specializations=len(FLOATS),
        truth=truth,
    )


def _convolutions() -> Iterator[Entry]:
    def shapes(size: Size) -> tuple[Size, Size, Size]:
        n, c, o, h = size
        return (n, c, h, h + 1), (o, c, 3, 3), (n, o, h, h + 1)

    def forward(rng: np.random.Generator, size: Size, dtype: str, regime: str) -> tuple[Array, ...]:
        of_x, of_w, _ = shapes(size)
        return _pixels(rng, of_x, dtype, regime), random_normal(rng, of_w, dtype), random_normal(rng, of_w[:1], dtype)

    def backward(rng: np.random.Generator, size: Size, dtype: str, regime: str) -> tuple[Array, ...]:
        of_x, of_w, of_z = shapes(size)
        return random_normal(rng, of_z, dtype), _pixels(rng, of_x, dtype, regime), random_normal(rng, of_w, dtype)

    def numbers(size: Size) -> float:
        return sum(math.prod(shape) for shape in shapes(size)) + size[2]

    def flops(size: Size) -> float:
        _, of_w, of_z = shapes(size)
        return 2 * math.prod(of_w[1:]) * math.prod(of_z)

    yield _images(
        "conv2d", "z = b + Σ W[c, i, j] x[c, y + i, x + j]", forward, _conv2d_truth, numbers, flops,
        sizes=_CONVOLUTION_SIZES,
    )  # fmt: skip
    yield _images(
        "conv2d_gradient", "gradient of conv2d in X, W, b", backward, _conv2d_gradient_truth,
        lambda size: 2 * numbers(size) - math.prod(shapes(size)[2]) - size[2], lambda size: 2 * flops(size),
        sizes=_CONVOLUTION_SIZES, accumulator="float64",
    )  # fmt: skip


def _pools() -> Iterator[Entry]:
    def shapes(size: Size) -> tuple[Size, Size]:
        n, c, h = size
        return (n, c, 2 * h + 1, 2 * h), (n, c, h, h)

    def forward(rng: np.random.Generator, size: Size, dtype: str, regime: str) -> tuple[Array, ...]:
        return (_pixels(rng, shapes(size)[0], dtype, regime),)

    def backward(rng: np.random.Generator, size: Size, dtype: str, regime: str) -> tuple[Array, ...]:
        of_x, of_z = shapes(size)
        return random_normal(rng, of_z, dtype), _pixels(rng, of_x, dtype, regime)

    def entries(size: Size) -> float:
        return math.prod(shapes(size)[0])

    def pooled(size: Size) -> float:
        return math.prod(shapes(size)[1])

    for name, what in (("max", "largest"), ("avg", "mean")):
        average = name == "avg"
        yield _images(
            f"{name}_pool2d", f"z = {what} of 2 × 2 pixels", forward, _pool_truth(average),
            lambda size: entries(size) + pooled(size), entries, sizes=_IMAGE_SIZES,
        )  # fmt: skip
        yield _images(
            f"{name}_pool2d_gradient", f"gradient of {name}_pool2d in X", backward, _pool_gradient_truth(average),
            lambda size: 2 * entries(size) + pooled(size), entries, sizes=_IMAGE_SIZES,
        )  # fmt: skip


def _batch_norms() -> Iterator[Entry]:
    def forward(rng: np.random.Generator, size: Size, dtype: str, regime: str) -> tuple[Array, ...]:
        n, c, h = size
        X = _pixels(rng, (n, c, h, h), dtype, regime) + 3
        return X, random_normal(rng, (c,), dtype), random_normal(rng, (c,), dtype)

    def backward(rng: np.random.Generator, size: Size, dtype: str, regime: str) -> tuple[Array, ...]:
        X, gamma, _ = forward(rng, size, dtype, regime)
        return random_normal(rng, X.shape, dtype), X, gamma

    def entries(size: Size) -> float:
        n, c, h = size
        return n * c * h * h

    yield _images(
        "batch_norm", "z = γ(x − mean)/√(variance + ε) + β, by channel", forward, _batch_norm_truth,
        lambda size: 2 * entries(size) + 2 * size[1], lambda size: 8 * entries(size), sizes=_IMAGE_SIZES,
        accumulator="float64",
    )  # fmt: skip
    yield _images(
        "batch_norm_gradient", "gradient of batch_norm in X, γ, β", backward, _batch_norm_gradient_truth,
        lambda size: 3 * entries(size) + 3 * size[1], lambda size: 16 * entries(size), sizes=_IMAGE_SIZES,
        accumulator="float64",
    )  # fmt: skip


# -- truth -----------------------------------------------------------------------------------------


def _taps(X: Array) -> Iterator[tuple[int, int, Array]]:
    """Yield each place of a kernel of 3 x 3 with a view of what it meets in images that have zeros around."""
    height, width = X.shape[2] - 2, X.shape[3] - 2
    for dy in range(3):
        for dx in range(3):
            yield dy, dx, X[:, :, dy : dy + height, dx : dx + width]


def _bordered(X: Array) -> Array:
    return np.pad(X, ((0, 0), (0, 0), (1, 1), (1, 1)))


def _true_conv2d(X: Array, W: Array, b: Array) -> Array:
    shape = (len(X), *X.shape[2:], len(W))
    z = np.zeros(shape, X.dtype) + b
    for dy, dx, part in _taps(_bordered(X)):
        z += np.tensordot(part, W[:, :, dy, dx], axes=(1, 1))
    return z.transpose(0, 3, 1, 2)


def _conv2d_truth(inputs: Inputs) -> Truth:
    X, W, _ = inputs.args
    wide = wide_dtype(X.dtype, X[:, 0].size * W.size)
    parts = [part.astype(wide) for part in inputs.args]
    return Truth((_true_conv2d(*parts),), (X.dtype,), (_true_conv2d(*map(np.abs, parts)),))


def _true_conv2d_gradient(dZ: Array, X: Array, W: Array) -> tuple[Array, Array, Array]:
    dW, back = np.empty_like(W), np.zeros_like(_bordered(X))
    for dy, dx, part in _taps(_bordered(X)):
        dW[:, :, dy, dx] = np.tensordot(dZ, part, axes=((0, 2, 3), (0, 2, 3)))
    for dy, dx, part in _taps(back):
        part += np.tensordot(dZ, W[:, :, dy, dx], axes=(1, 0)).transpose(0, 3, 1, 2)
    return back[:, :, 1:-1, 1:-1], dW, dZ.sum(axis=(0, 2, 3))


def _conv2d_gradient_truth(inputs: Inputs) -> Truth:
    _, X, W = inputs.args
    wide = wide_dtype(X.dtype, X[:, 0].size * W.size)
    parts = [part.astype(wide) for part in inputs.args]
    scale = _true_conv2d_gradient(*map(np.abs, parts))
    return Truth(_true_conv2d_gradient(*parts), (X.dtype,) * 3, scale)


def _quarters(X: Array) -> Array:
    """Return the four pixels of each window of 2 x 2, line by line: (n, C, places down, to the right, 4)."""
    n, c, height, width = X.shape
    height, width = height // 2, width // 2
    blocks = X[:, :, : 2 * height, : 2 * width].reshape(n, c, height, 2, width, 2)
    return blocks.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, height, width, 4)


def _from_quarters(parts: Array, like: Array) -> Array:
    n, c, height, width, _ = parts.shape
    result = np.zeros(like.shape, parts.dtype)
    blocks = parts.reshape(n, c, height, width, 2, 2).transpose(0, 1, 2, 4, 3, 5)
    result[:, :, : 2 * height, : 2 * width] = blocks.reshape(n, c, 2 * height, 2 * width)
    return result


def _pool_truth(average: bool) -> Callable[[Inputs], Truth]:
    def truth(inputs: Inputs) -> Truth:
        (X,) = inputs.args
        parts = _quarters(X.astype(wide_dtype(X.dtype, X.size)))
        if average:
            return Truth((parts.mean(axis=4),), (X.dtype,), (np.abs(parts).mean(axis=4),))
        return Truth((parts.max(axis=4),), (X.dtype,))

    return truth


def _pool_gradient_truth(average: bool) -> Callable[[Inputs], Truth]:
    def truth(inputs: Inputs) -> Truth:
        dZ, X = inputs.args
        wide = wide_dtype(X.dtype, X.size)
        first = _quarters(X).argmax(axis=4)[..., None] == np.arange(4)
        shares = np.full(first.shape, 0.25) if average else first
        return Truth((_from_quarters(dZ.astype(wide)[..., None] * shares, X),), (X.dtype,))

    return truth


class _Standard(NamedTuple):
    """Values less their mean times a factor, how large they were before, and the factor; in float64 or wider."""

    values: Array
    reach: Array
    factor: Array


def _standard(X: Array, epsilon: float) -> _Standard:
    axes = (0, 2, 3)
    x = X.astype(wide_dtype(X.dtype, X.size))
    mean = x.mean(axis=axes, keepdims=True)
    factor = 1 / np.sqrt(np.square(x - mean).mean(axis=axes, keepdims=True) + epsilon)
    return _Standard((x - mean) * factor, (np.abs(x) + np.abs(mean)) * factor, factor)


def _batch_norm_truth(inputs: Inputs) -> Truth:
    X, gamma, beta = inputs.args
    x, factor, shift = _standard(X, 1e-5), gamma[:, None, None], beta[:, None, None]
    return Truth((x.values * factor + shift,), (X.dtype,), (x.reach * np.abs(factor) + np.abs(shift),))


def _batch_norm_gradient_truth(inputs: Inputs) -> Truth:
    dZ, X, gamma = inputs.args
    axes, x = (0, 2, 3), _standard(X, 1e-5)
    d = dZ.astype(x.values.dtype)
    factor, sizes = gamma[:, None, None] * x.factor, np.abs(d)
    mean, along = (part.mean(axis=axes, keepdims=True) for part in (d, d * x.values))
    of_mean, of_along = (part.mean(axis=axes, keepdims=True) for part in (sizes, sizes * x.reach))
    return Truth(
        (factor * (d - mean - x.values * along), (d * x.values).sum(axis=axes), d.sum(axis=axes)),
        (X.dtype,) * 3,
        (
            np.abs(factor) * (sizes + of_mean + x.reach * of_along),
            (sizes * x.reach).sum(axis=axes),
            sizes.sum(axis=axes),
        ),
    )
