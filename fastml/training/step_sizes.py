"""Step sizes that parameters give."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .batches import Rates

__all__ = ["scheduled_sizes"]


def scheduled_sizes(rate: Any, first: float, power: float) -> Rates:
    """Return the function for "constant", "invscaling", a function of t or a list of sizes."""
    if callable(rate):
        return lambda done, count: _sizes([rate(done + t) for t in range(1, count + 1)], "learning_rate(t)")
    if not isinstance(rate, str):
        sizes = _sizes(rate, "learning_rate")
        return lambda done, count: sizes[np.minimum(np.arange(done, done + count), len(sizes) - 1)]
    if rate == "constant":
        return lambda done, count: np.full(count, float(first))
    return lambda done, count: first / np.arange(done + 1.0, done + count + 1) ** power


def _sizes(values: Any, name: str) -> NDArray[np.float64]:
    try:
        sizes = np.asarray(values, np.float64)
    except (TypeError, ValueError):  # no numbers
        sizes = np.empty(0)
    if sizes.ndim != 1 or not sizes.size or not (np.isfinite(sizes).all() and (sizes >= 0).all()):
        raise ValueError(f"{name} must give step sizes: finite numbers of at least 0, in one dimension; got {values!r}")
    return sizes
