"""Rows with what belongs to them, as compiled functions take them."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..losses.table import LOSSES
from ..runtime.jit import readonly

__all__ = ["Rows", "rows_of"]

Array = NDArray[Any]


class Rows(NamedTuple):
    """Rows, their targets in one of three forms, and their weights; what a loss does not have is empty."""

    X: Array  # (n, D)
    y: Array  # (n,) values of the dtype of X
    indices: Array  # (n,) classes, intp
    P: Array  # (n, C) probabilities of classes
    weight: Array  # (n,)


def rows_of(loss: str, X: Array, y: Array, weight: Array | None) -> Rows:
    """Return settled rows, targets and weights in the form of the kernels."""
    dtype = X.dtype
    values, indices, P = _nothing(dtype)
    if y.ndim == 2:
        P = readonly(np.ascontiguousarray(y, dtype))
    elif LOSSES[loss].over_classes:
        indices = readonly(np.ascontiguousarray(y, np.intp))
    else:
        values = readonly(np.ascontiguousarray(y, dtype))
    w = _nothing(dtype)[0] if weight is None else readonly(np.ascontiguousarray(weight, dtype))
    return Rows(readonly(X), values, indices, P, w)


@cache
def _nothing(dtype: np.dtype[Any]) -> tuple[Array, Array, Array]:
    return readonly(np.empty(0, dtype)), readonly(np.empty(0, np.intp)), readonly(np.empty((0, 1), dtype))
