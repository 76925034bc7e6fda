"""Rows, targets and models that linear models are trained on."""

from __future__ import annotations

import numpy as np
from numpy.testing import assert_allclose

from fastml.kernels.losses.table import OVER_CLASSES as MULTICLASS

FLOATS = ("float32", "float64")


def data(rng: np.random.Generator, loss: str, n: int, D: int, dtype: str, C: int = 3):
    """X, a target that the loss takes, and the shape (C,) of a row of scores."""
    X = rng.normal(size=(n, D)).astype(dtype)
    if loss in MULTICLASS:
        return X, rng.integers(0, C, n), C
    if loss == "binary_cross_entropy":
        return X, rng.integers(0, 2, n).astype(dtype), 1
    return X, rng.choice([-1.0, 1.0], n).astype(dtype), 1


def close(actual, expected, dtype):
    # Some steps with numbers around 1; no row is near a kink (the seed is fixed).
    assert_allclose(
        actual, expected, **({"rtol": 3e-5, "atol": 3e-5} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-11})
    )


def many(rng, loss, D, dtype, M, n=150, C=3):
    X, y, C = data(rng, loss, n, D, dtype, C)
    return X, y, rng.normal(size=(M, C, D)).astype(dtype), rng.normal(size=(M, C)).astype(dtype)
