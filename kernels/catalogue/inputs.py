"""Arrays to call kernels with: seeded, in every regime."""

from __future__ import annotations

import math

import numpy as np

from .entry import Size
from .truth import Array

# Where float32 and float64 exponentials overflow, underflow, or leave the normal numbers; where
# 1 + e^-z is rounded to 1; the sizes that tear naive formulas apart; and the neighbourhood of 0.
_LOGITS = np.concatenate(
    [
        [0.0, 1e-30, 1e-8, 0.5, 1.0, 16.6, 17.4, 36.9, 37.0, 1000.0, 1e4, 1e30],
        [87.3, 88.7, 89.0, 103.9, 104.0, 708.3, 709.7, 710.0, 745.1, 746.0],
    ]
)


def random_normal(rng: np.random.Generator, shape: Size, dtype: str) -> Array:
    """Draw standard normal numbers."""
    return rng.standard_normal(shape, np.float64 if dtype == "float64" else np.float32)


def random_uniform(rng: np.random.Generator, shape: Size, dtype: str) -> Array:
    """Draw numbers in [0, 1)."""
    return rng.random(shape, np.float64 if dtype == "float64" else np.float32)


def random_scores(rng: np.random.Generator, shape: Size, dtype: str, regime: str, largest: float = math.inf) -> Array:
    """Draw scores; extreme ones are of sizes up to `largest` at which formulas fail."""
    if regime == "extreme":
        values = _LOGITS[_LOGITS <= largest]
        return (rng.choice(values, shape) * rng.choice([-1.0, 1.0], shape)).astype(dtype)
    return 4 * random_normal(rng, shape, dtype)


def random_points(rng: np.random.Generator, n: int, m: int, d: int, dtype: str, regime: str) -> tuple[Array, Array]:
    """Draw the rows of X (n, d) and of Y (m, d); flat ones lie near a space of few dimensions."""
    if regime == "flat":
        axes = random_normal(rng, (8, d), "float64")
        X, Y = (random_normal(rng, (rows, 8), "float64") @ axes for rows in (n, m))
        return tuple(np.clip(np.rint(8 * side + 128), 0, 255).astype(dtype) for side in (X, Y))
    if dtype == "uint8":
        X, Y = (rng.integers(0, 256, (rows, d), np.uint8) for rows in (n, m))
        if regime == "extreme":
            X[::3], Y[::3], Y[1::3] = 255, 0, 255
        return X, Y
    X, Y = (random_normal(rng, (rows, d), dtype) for rows in (n, m))
    if regime == "extreme":
        # Close points far out: differences of 1e-3 at 1e4 leave nothing of |x|² + |y|² − 2 x·y.
        X *= 1e-3
        X += 1e4
        Y *= 1e-3
        Y += 1e4
        X[::5], Y[::5] = 0, 0
        Y[1::5] *= 1e8
        Y[2::5] = X[np.arange(len(Y[2::5])) % n]  # exact duplicates
    return X, Y


def random_weights(rng: np.random.Generator, n: int, dtype: str) -> Array:
    """Draw sample weights, some of them zero and not all."""
    w = rng.integers(0, 4, n).astype(dtype) * random_uniform(rng, (n,), dtype)
    w[rng.integers(n)] = 1  # so that they are not all zero
    return w


def random_targets(
    rng: np.random.Generator, kind: str, n: int, classes: int, dtype: str, scores: Array | None = None
) -> Array:
    """Draw targets of a kind; real ones may lie near `scores`."""
    if kind == "probability":
        t = random_uniform(rng, (n,), dtype)
        return np.where(rng.random(n) < 0.8, t < 0.5, t).astype(dtype)  # mostly hard labels
    if kind == "from 0":
        return rng.poisson(2.0, n).astype(dtype)
    if kind == "sign":
        return rng.choice([-1.0, 1.0], n).astype(dtype)
    if kind == "class":
        return rng.integers(0, classes, n)
    if kind == "probabilities":
        T = random_uniform(rng, (n, classes), dtype) + 1e-3
        T[::2] = np.eye(classes, dtype=dtype)[rng.integers(0, classes, len(T[::2]))]
        T /= T.sum(axis=1, keepdims=True)
        return T
    # Real: within the kink of Huber and beyond it, and now and then hit exactly.
    y = random_normal(rng, (n,), dtype)
    if scores is not None:
        y += np.where(rng.random(n) < 0.5, scores, 0).astype(dtype)
        y[::7] = scores[::7]
    return y
