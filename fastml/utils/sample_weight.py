"""Weights of rows and of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import _check_sample_weight

from .validation import check_values

__all__ = ["settled_weight", "weights_of_classes"]

Array = NDArray[np.float64]


def settled_weight(sample_weight: ArrayLike | None, rows: NDArray[Any]) -> Array | None:
    """Check the weights of rows: not negative, and not all zero."""
    if sample_weight is None:
        return None
    check_values(sample_weight, "sample_weight")
    weight: Array = _check_sample_weight(sample_weight, rows, dtype=np.float64)
    if not (weight >= 0).all():
        i = int(np.argmin(weight >= 0))
        raise ValueError(f"sample_weight[{i}] is {weight[i]}; weights must not be negative")
    if not weight.any():
        raise ValueError("sample_weight is zero everywhere; at least one weight must be positive")
    with np.errstate(over="ignore"):
        if not np.isfinite(np.add.reduce(weight)):
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
