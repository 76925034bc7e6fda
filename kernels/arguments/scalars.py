"""Checked numbers and switches."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .arrays import FLOAT64, INTP, Array, as_contiguous, real, refuse_masked

# From here on a float64 rounds to an infinite float32 (the largest finite one plus half a unit).
_FLOAT32_OVERFLOW = 2.0**128 - 2.0**103


def flag(value: object, name: str) -> bool:
    """Return a yes-or-no argument as a bool."""
    if value is True or value is False:
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    raise TypeError(f"{name} is {value!r} ({type(value).__name__}); it must be True or False")


def scalar(value: object, name: str, dtype: np.dtype[Any] = FLOAT64) -> Any:
    """Return a real number (or 0-d array) as a NumPy scalar of `dtype`; NaN and infinity pass."""
    if type(value) is float:
        number = value
    else:
        refuse_masked(value, name)
        if isinstance(value, np.ndarray):
            if value.ndim != 0:
                raise ValueError(f"{name} has shape {value.shape}; it must be a single number")
            value = value.item()
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name} is {value!r} ({type(value).__name__}); it must be a real number")
        try:
            number = float(value)
        except OverflowError:
            raise ValueError(f"{name} is an integer beyond the range of float64") from None
    if dtype is FLOAT64:
        return np.float64(number)
    if abs(number) >= _FLOAT32_OVERFLOW:
        number = math.copysign(math.inf, number)
    return dtype.type(number)


def checked_delta(delta: object, dtype: np.dtype[Any]) -> Any:
    """Return Huber's threshold as a scalar of `dtype`: finite and positive."""
    value = scalar(delta, "delta", dtype)
    if not 0 < value < math.inf:
        raise ValueError(f"delta is {delta!r}; it must be positive and finite as {dtype}")
    return value


def strength(value: object, name: str, dtype: np.dtype[Any]) -> Any:
    """Return the strength of a penalty as a scalar of `dtype`: finite, not negative."""
    settled = scalar(value, name, dtype)
    if not 0 <= settled < math.inf:
        raise ValueError(f"{name} is {value!r}; it must be finite as {dtype} and not negative")
    return settled


def checked_l2(l2: object, dtype: np.dtype[Any]) -> Any:
    """Return the strength of the squared penalty; see `strength`."""
    return strength(l2, "l2", dtype)


def count(value: object, name: str) -> int:
    """Return a positive integer as an int."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}); it must be a positive integer")
    if value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a positive integer")
    return int(value)


def row_numbers(order: ArrayLike, name: str, n: int) -> Array:
    """Return indices of rows as intp, each in 0..n - 1."""
    raw = real(order, name)
    if raw.ndim != 1:
        raise ValueError(f"{name} has shape {raw.shape}; it must be 1-D, one row number for each place")
    if raw.size == 0:
        return np.empty(0, INTP)
    if raw.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {raw.dtype}; row numbers must be integers")
    if np.minimum.reduce(raw) < 0 or np.maximum.reduce(raw) >= n:
        i = int(np.argmax((raw < 0) | (raw >= n)))
        raise ValueError(f"{name}[{i}] is {raw[i]}; row numbers must lie in 0..{n - 1}, X has {n} rows")
    return as_contiguous(raw, INTP)


def checked_momentum(momentum: object, dtype: np.dtype[Any]) -> Any:
    """Return a momentum between 0 and 1."""
    value = scalar(momentum, "momentum", dtype)
    if not 0 <= value <= 1:
        raise ValueError(f"momentum is {momentum!r}; it must lie between 0 and 1")
    return value


def checked_steps(steps: ArrayLike, batches: int, what: str, dtype: np.dtype[Any]) -> Array:
    """Return one step size for each batch, from one for all or from as many as there are batches."""
    raw = real(steps, "steps")
    if raw.ndim > 1 or (raw.ndim == 1 and len(raw) != batches):
        raise ValueError(f"steps has shape {raw.shape}; it must be a number or ({batches},): {what}")
    values = as_contiguous(raw, dtype)
    fine = (values >= 0) & (values < math.inf)
    if not np.logical_and.reduce(fine, axis=None):
        where = f"steps[{int(np.argmin(fine))}] is {raw[np.argmin(fine)]}" if raw.ndim else f"steps is {raw}"
        raise ValueError(f"{where}; step sizes must be finite as {dtype} and not negative")
    return np.full(batches, values) if raw.ndim == 0 else values


def listed(names: Iterable[str]) -> str:
    """Return names as a message lists them."""
    return ", ".join(repr(name) for name in names)
