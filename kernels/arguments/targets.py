"""Checked targets and weights of rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .arrays import INTP, Array, as_contiguous, real

# Target probabilities often come from a softmax in float16 or from rounded tables; a sum further
# from 1 than this is a mistake and not rounding.
PROBABILITY_SUM_TOLERANCE = 1e-3

# Weights whose largest lies between these are used as they are.
_ORDINARY_WEIGHTS = (2.0**-30, 2.0**30)


def weights(
    sample_weight: ArrayLike | None, n: int, dtype: np.dtype[Any], *, mean: bool = True
) -> tuple[Array | None, float]:
    """Return the weights (n,) cast to `dtype`, or None, and as a float what a weighted sum is divided by.

    Weights are finite and not negative after the cast. For a mean the divisor is their sum (n for None), and at least
    one is positive. Where the largest is very small or large, all are multiplied by a power of two: a weighted mean
    stays the same, and neither its sums nor the reciprocal of their total can overflow. For a sum the divisor is 1,
    and weights stay as they are.
    """
    if sample_weight is None:
        return None, float(n) if mean else 1.0
    raw = real(sample_weight, "sample_weight")
    if raw.shape != (n,):
        raise ValueError(f"sample_weight has shape {raw.shape}; it must be ({n},), one weight for each row")
    w = as_contiguous(raw, dtype)  # a weight too large for the dtype turns up below as infinity
    largest = float(np.maximum.reduce(w, initial=0))
    if not (np.minimum.reduce(w, initial=0) >= 0 and largest < math.inf):
        i = int(np.argmin((w >= 0) & (w < math.inf)))
        raise ValueError(f"sample_weight[{i}] is {raw[i]}; weights must be finite as {dtype} and not negative")
    if not mean:
        return w, 1.0
    if largest == 0:
        raise ValueError("sample_weight is zero everywhere; at least one weight must be positive")
    w = ordinary(w, largest)
    return w, float(np.add.reduce(w, dtype=np.float64))


def ordinary(w: Array, largest: float) -> Array:
    """Return weights for a mean, multiplied by a power of two where the largest is very small or large."""
    if largest == 0 or _ORDINARY_WEIGHTS[0] <= largest <= _ORDINARY_WEIGHTS[1]:
        return w
    scaled: Array = np.ldexp(w, -math.frexp(largest)[1])
    return scaled


def checked_target(y: ArrayLike, target: str, name: str, n: int, rows: str, dtype: np.dtype[Any]) -> Array:
    """Return a target with one entry for each score: probabilities, signs, real numbers or those from 0 on."""
    raw = real(y, name)
    if raw.ndim != 1:
        raise ValueError(f"{name} has shape {raw.shape}; it must be 1-D with one entry for each score")
    if raw.shape[0] != n:
        raise ValueError(f"{name} has {raw.shape[0]} entries, {rows.format(n)}; they must be equal")
    values = as_contiguous(raw, dtype)
    if target == "probability":
        # NaN fails both comparisons, so it is refused as well.
        if not (np.minimum.reduce(values, initial=0) >= 0 and np.maximum.reduce(values, initial=0) <= 1):
            i = int(np.argmin((values >= 0) & (values <= 1)))
            raise ValueError(f"{name}[{i}] is {raw[i]}; probabilities in [0, 1] are needed")
    elif target == "from 0":
        if not np.minimum.reduce(values, initial=0) >= 0:
            i = int(np.argmin(values >= 0))
            raise ValueError(f"{name}[{i}] is {raw[i]}; numbers that are not negative are needed")
    elif target == "sign":
        right = np.abs(values) == 1
        if not np.logical_and.reduce(right):
            i = int(np.argmin(right))
            raise ValueError(f"{name}[{i}] is {raw[i]}; labels -1 and +1 are needed")
    return values


def checked_outputs(y: ArrayLike, target: str, n: int, outputs: int, dtype: np.dtype[Any]) -> Array:
    """Return targets (n, C) of losses that are summed over C scores; (n,) will do for one score."""
    raw = real(y, "y")
    if raw.ndim == 1 and outputs == 1:
        raw = raw.reshape(-1, 1)
    if raw.shape != (n, outputs):
        also = f" or ({n},)" if outputs == 1 else ""
        raise ValueError(f"y has shape {np.shape(y)}; it must be ({n}, {outputs}){also}: X has {n} rows")
    values = as_contiguous(raw, dtype)
    if target == "probability":
        right = (values >= 0) & (values <= 1)
        if not right.all():
            i, c = np.argwhere(~right)[0]
            raise ValueError(f"y[{i}, {c}] is {raw[i, c]}; probabilities in [0, 1] are needed")
    return values


def checked_classes(y: ArrayLike, n: int, rows: str, classes: int, dtype: np.dtype[Any], probabilities: bool) -> Array:
    """Return class indices, or target probabilities where these are taken."""
    raw = y if type(y) is np.ndarray and y.dtype.kind == "i" else _labels(y, classes, n, probabilities)
    if raw.ndim == 2 and probabilities:
        return _probabilities(raw, n, rows, classes, dtype)
    if raw.ndim != 1:
        form = f"1-D class indices or target probabilities ({n}, {classes})" if probabilities else "1-D class indices"
        raise ValueError(f"y has shape {raw.shape}; {form} are needed")
    if raw.shape[0] != n:
        raise ValueError(f"y has {raw.shape[0]} entries, {rows.format(n)}; they must be equal")
    # Compared before the cast: a uint64 beyond intp would wrap.
    if n > 0 and (np.minimum.reduce(raw) < 0 or np.maximum.reduce(raw) >= classes):
        i = int(np.argmax((raw < 0) | (raw >= classes)))
        raise ValueError(f"y[{i}] is {raw[i]}; class indices must lie in 0..{classes - 1}, there are {classes} classes")
    return as_contiguous(raw, INTP)


def _labels(y: ArrayLike, classes: int, n: int, probabilities: bool) -> Array:
    """Return labels of any integer width or bool (as 0 and 1), or something 2-D to be looked at."""
    try:
        raw = real(y, "y")
    except TypeError as error:
        raise TypeError(f"{error}; class indices must be integers") from None
    if raw.dtype.kind == "f" and not (raw.ndim == 2 and probabilities):
        hint = f", or give target probabilities of shape ({n}, {classes})" if probabilities else ""
        raise TypeError(f"y has dtype {raw.dtype}; class indices must be integers (y.astype(np.intp)){hint}")
    return raw


def _probabilities(raw: Array, n: int, rows: str, classes: int, dtype: np.dtype[Any]) -> Array:
    if raw.shape[0] != n:
        raise ValueError(f"y has {raw.shape[0]} rows, {rows.format(n)}; they must be equal")
    if raw.shape[1] != classes:
        raise ValueError(f"y has {raw.shape[1]} columns, there are {classes} classes; they must be equal")
    values = as_contiguous(raw, dtype)
    if not np.minimum.reduce(values, axis=None, initial=math.inf) >= 0:
        i, c = np.argwhere(~(values >= 0))[0]
        raise ValueError(f"y[{i}, {c}] is {raw[i, c]}; target probabilities must not be negative or NaN")
    sums = np.add.reduce(values, axis=1)
    right = np.abs(sums - 1) <= PROBABILITY_SUM_TOLERANCE
    if not np.logical_and.reduce(right):
        i = int(np.argmin(right))
        raise ValueError(
            f"y[{i}] sums to {sums[i]}; the target probabilities of a row must sum to 1 "
            f"within {PROBABILITY_SUM_TOLERANCE}"
        )
    return values


def refuse_empty(n: int, what: str) -> None:
    """Refuse to take a mean of nothing."""
    if n == 0:
        raise ValueError(f"{what}; a mean needs at least one")
