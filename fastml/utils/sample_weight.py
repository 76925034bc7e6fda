"""Weights of rows and of classes."""

from __future__ import annotations

from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.class_weight import compute_class_weight

from ..kernels.arguments import arrays
from .validation import numbers_of

__all__ = ["checked_weight", "checked_weight_with_sum", "weights_of_classes"]

Array = NDArray[np.float64]


def checked_weight(
    sample_weight: ArrayLike | None, n: int, *, name: str = "sample_weight", all_zero_ok: bool = False
) -> Array | None:
    """Return the weight of each of n rows, for which one number may stand; None where there are none.

    Weights are finite and not negative, and at least one is positive, unless `all_zero_ok`. `name` is what the caller
    calls them.

    >>> checked_weight(2, 3)
    array([2., 2., 2.])
    >>> checked_weight([1, -1, 1], 3, name="sample_weight_val")
    Traceback (most recent call last):
        ...
    ValueError: sample_weight_val[1] is -1; weights must be finite and not negative
    """
    if sample_weight is None:
        return None
    given = numbers_of(sample_weight, name)
    is_number = isinstance(given, Number) or getattr(given, "ndim", None) == 0
    raw = arrays.real(np.full(n, given) if is_number else given, name)
    if raw.shape != (n,):
        raise ValueError(f"{name} has shape {raw.shape}; it must be ({n},), one weight for each row")
    weight = raw.astype(np.float64, copy=False)
    right = (weight >= 0) & (weight < np.inf)
    if not right.all():
        i = int(right.argmin())
        raise ValueError(f"{name}[{i}] is {raw[i]}; weights must be finite and not negative")
    if not (all_zero_ok or weight.any()):
        raise ValueError(f"{name} is zero everywhere; at least one weight must be positive")
    return weight


def checked_weight_with_sum(sample_weight: ArrayLike | None, n: int) -> Array | None:
    """Return `checked_weight`, of which float64 must hold the sum."""
    weight = checked_weight(sample_weight, n)
    with np.errstate(over="ignore"):
        if weight is not None and not np.isfinite(np.add.reduce(weight)):
            raise ValueError("sample_weight has values too large: they cannot be summed in float64")
    return weight


def weights_of_classes(
    class_weight: Any, classes: NDArray[Any], codes: NDArray[np.intp], weight: Array | None
) -> Array:
    """Return the weight of each class; "balanced" counts rows by their weights, as scikit-learn does since 1.7."""
    if isinstance(class_weight, str) and class_weight == "balanced":
        counts = np.bincount(codes, weights=weight, minlength=len(classes))
        with np.errstate(divide="ignore"):
            return np.where(counts > 0, counts.sum() / (len(classes) * counts), 0.0)
    try:
        factors: Array = compute_class_weight(class_weight, classes=classes, y=classes)
    except (TypeError, ValueError) as error:
        raise type(error)(f"class_weight is {class_weight!r}: {error}") from error
    if not ((factors >= 0) & np.isfinite(factors)).all():
        raise ValueError(f"class_weight is {class_weight!r}; weights must be finite and not negative")
    return factors.astype(np.float64)
