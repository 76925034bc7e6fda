"""Losses by the formulas of a text book, in float64."""

from __future__ import annotations

import numpy as np
import scipy.special

BINARY = ("binary_cross_entropy", "hinge", "squared_hinge")

REGRESSION = ("squared_error", "absolute_error", "huber")

MULTICLASS = ("softmax_cross_entropy", "multiclass_hinge")

COUNTS = ("poisson",)

LOSSES = BINARY + REGRESSION + COUNTS + MULTICLASS


def losses_of(loss: str, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The loss of each row in float64, by the formula of a text book."""
    z = np.asarray(z, np.float64)
    y = np.asarray(y)
    if y.dtype.kind == "f":
        y = y.astype(np.float64)
    rows = np.arange(len(z))
    match loss:
        case "binary_cross_entropy":
            return y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z)
        case "hinge":
            return np.maximum(0, 1 - y * z)
        case "squared_hinge":
            return np.maximum(0, 1 - y * z) ** 2
        case "squared_error":
            return (z - y) ** 2 / 2
        case "absolute_error":
            return np.abs(z - y)
        case "huber":
            return scipy.special.huber(1.35, z - y)
        case "poisson":
            return np.exp(z) - y * z
        case "softmax_cross_entropy":
            logp = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
            return -logp[rows, y] if y.ndim == 1 else -(y * logp).sum(axis=1)
        case "multiclass_hinge":
            margin = 1.0 + z - z[rows, y][:, None]
            margin[rows, y] = 0.0
            return margin.max(axis=1)
    raise AssertionError(loss)
