"""Arrays that begin where a cache line does, and rows of whole vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CACHE_LINE", "aligned", "padded"]

#: Bytes that come from memory together, and the widest vector of any target.
CACHE_LINE = 64


def padded(columns: int, dtype: np.dtype[Any]) -> int:
    """Columns of a stack or block: up to whole vectors of the widest target, so that it does not depend on it."""
    whole = CACHE_LINE // dtype.itemsize
    return -(-columns // whole) * whole


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return zeros that begin at a cache line."""
    size = math.prod(shape)
    spare = CACHE_LINE // dtype.itemsize
    flat = np.zeros(size + spare, dtype)
    skip = -flat.ctypes.data % CACHE_LINE // dtype.itemsize
    return flat[skip : skip + size].reshape(shape)
