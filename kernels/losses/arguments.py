"""What losses ask of their arguments."""

from __future__ import annotations

import math
import numbers
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..arguments.arrays import Array, as_contiguous, floating, real
from ..arguments.scalars import listed, scalar
from ..arguments.targets import checked_classes, checked_target, ordinary, refuse_empty, weights

#: What can become of the losses of the rows.
REDUCTIONS = ("mean", "sum", "none")


def is_mean(reduction: object) -> bool:
    """Whether losses are divided by the sum of their weights; refuses what is no reduction."""
    if type(reduction) is str and reduction == "mean":
        return True
    if isinstance(reduction, str) and reduction in REDUCTIONS:
        return False
    error = ValueError if isinstance(reduction, str) else TypeError
    raise error(f"reduction is {reduction!r}; it must be one of {listed(REDUCTIONS)}")


def scores_and_target(
    z: ArrayLike, y: ArrayLike, target: str, name: str = "y", *, mean: bool = True
) -> tuple[Array, Array]:
    """Settle scores ``z`` (n,) and a target (n,) of the same dtype; for a mean over n >= 1 entries.

    `target` says what the values may be: "probability" in [0, 1] (bool counts as 0 and 1), "sign"
    -1 or +1, "from 0" not negative, "real" anything real (NaN and infinity pass). `name` is what the caller calls it.
    """
    z = floating(z, "z", 1)
    if mean:
        refuse_empty(z.shape[0], "z has 0 entries")
    return z, checked_target(y, target, name, z.shape[0], "z has {} entries", z.dtype)


def class_targets(Z: ArrayLike, y: ArrayLike, *, probabilities: bool = False, mean: bool = True) -> tuple[Array, Array]:
    """Settle scores ``Z`` (n, C) and class indices ``y`` (n,); for a mean over n >= 1 rows.

    Returns
    -------
    Z : ndarray of shape (n, C), float32 or float64
    y : ndarray
        Class indices (n,) as intp; or, where `probabilities` allows them and `y` is 2-D, target
        probabilities (n, C) of Z's dtype: finite, not negative, each row summing to 1 within 1e-3
        (they are used as they are, not normalised).
    """
    Z = floating(Z, "Z", 2)
    if mean:
        refuse_empty(Z.shape[0], "Z has 0 rows")
    return Z, checked_classes(y, Z.shape[0], "Z has {} rows", Z.shape[1], Z.dtype, probabilities)


class BinaryCrossEntropyArguments(NamedTuple):
    """The settled arguments of the binary cross-entropy; all of one dtype."""

    z: Array  # (n,)
    t: Array  # (n,), smoothed
    weight: Array | None  # (n,)
    total: float  # what the sum is divided by
    pos_weight: Any  # NumPy scalar, or None


def binary_cross_entropy(
    z: ArrayLike,
    t: ArrayLike,
    pos_weight: object,
    label_smoothing: object,
    sample_weight: ArrayLike | None,
    reduction: object,
) -> BinaryCrossEntropyArguments:
    """Settle the arguments of the binary cross-entropy."""
    mean = is_mean(reduction)
    z, t = scores_and_target(z, t, "probability", "t", mean=mean)
    t = smoothed(t, label_smoothing)
    if pos_weight is not None:
        pos_weight = checked_pos_weight(pos_weight, z.dtype)
    return BinaryCrossEntropyArguments(z, t, *weights(sample_weight, len(z), z.dtype, mean=mean), pos_weight)


class TargetOptions(NamedTuple):
    """What makes the targets of the softmax cross-entropy others than `y` says; arrays have the dtype of the scores."""

    class_weight: Array | None  # (C,), where they are not in the weights of the rows
    label_smoothing: Any  # NumPy scalar
    ignores: bool  # whether a row is ignored: its label is -1


def cross_entropy(
    Z: ArrayLike,
    y: ArrayLike,
    class_weight: ArrayLike | None,
    label_smoothing: object,
    ignore_index: object,
    sample_weight: ArrayLike | None,
    reduction: object,
) -> tuple[Array, Array, Array | None, float, TargetOptions | None]:
    """Settle the arguments of the softmax cross-entropy.

    Returns
    -------
    Z, y
        As `class_targets` has them.
    weight : ndarray of shape (n,), optional
        Of the rows; of their classes too, where nothing is taken from a row's one class.
    divisor : float
        What the sum is divided by.
    options : TargetOptions, optional
        None where targets are what `y` says, in all rows.
    """
    mean = is_mean(reduction)
    ignored = None
    if ignore_index is not None:
        y, ignored = _without_ignored(y, ignore_index)
    Z, y = class_targets(Z, y, probabilities=True, mean=mean)
    dtype = Z.dtype
    weight, divisor = weights(sample_weight, len(Z), dtype, mean=mean)
    smooth = type(label_smoothing) is not float or label_smoothing != 0
    if class_weight is None and ignored is None and not smooth:
        return Z, y, weight, divisor, None
    smoothing = checked_smoothing(label_smoothing, dtype)
    of_classes = None if class_weight is None else _class_weights(class_weight, Z.shape[1], dtype)
    if y.ndim == 1 and not (of_classes is None and ignored is None):
        if mean and of_classes is not None:
            of_classes = ordinary(of_classes, float(of_classes.max(initial=0)))
        shares = np.ones(len(y), dtype) if of_classes is None else of_classes[y]
        if weight is not None:
            shares *= weight
        if ignored is not None:
            shares[ignored] = 0
            y = np.where(ignored, -1, y)
        if mean:
            if smoothing == 0:
                shares = ordinary(shares, float(shares.max()))
            divisor = float(np.add.reduce(shares, dtype=np.float64))
            if divisor == 0:
                raise ValueError("no row counts: all are ignored, or have weight 0, or a class of weight 0")
        if smoothing == 0:
            weight, of_classes = shares, None
    plain = of_classes is None and ignored is None and smoothing == 0
    return Z, y, weight, divisor, None if plain else TargetOptions(of_classes, smoothing, ignored is not None)


def smoothed(t: Array, label_smoothing: object) -> Array:
    """Return probabilities of which a share is spread over both classes alike."""
    smoothing = checked_smoothing(label_smoothing, t.dtype)
    return (1 - smoothing) * t + smoothing / 2 if smoothing > 0 else t


def checked_smoothing(label_smoothing: object, dtype: np.dtype[Any]) -> Any:
    """Return how much of each target is spread over all classes, as a scalar of `dtype`."""
    value = scalar(label_smoothing, "label_smoothing", dtype)
    if not 0 <= value <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing!r}; it must lie between 0 and 1")
    return value


def checked_pos_weight(pos_weight: object, dtype: np.dtype[Any]) -> Any:
    """Return by what the loss of class 1 is multiplied, as a scalar of `dtype`."""
    value = scalar(pos_weight, "pos_weight", dtype)
    if not 0 <= value < math.inf:
        raise ValueError(f"pos_weight is {pos_weight!r}; it must be finite as {dtype} and not negative")
    return value


def _class_weights(class_weight: ArrayLike, classes: int, dtype: np.dtype[Any]) -> Array:
    raw = real(class_weight, "class_weight")
    if raw.shape != (classes,):
        raise ValueError(f"class_weight has shape {raw.shape}; it must be ({classes},), one weight for each class")
    values = as_contiguous(raw, dtype)
    right = (values >= 0) & (values < math.inf)
    if not right.all():
        c = int(np.argmin(right))
        raise ValueError(f"class_weight[{c}] is {raw[c]}; weights must be finite as {dtype} and not negative")
    return values


def _without_ignored(y: ArrayLike, ignore_index: object) -> tuple[ArrayLike, Array | None]:
    """Return labels with 0 in place of the one that is ignored, and where that was; None where nowhere."""
    if isinstance(ignore_index, (bool, np.bool_)) or not isinstance(ignore_index, numbers.Integral):
        raise TypeError(f"ignore_index is {ignore_index!r} ({type(ignore_index).__name__}); it must be an integer")
    labels = real(y, "y")
    if labels.ndim != 1:
        raise ValueError(f"y has shape {labels.shape}; ignore_index is for class indices, 1-D")
    ignored = labels == int(ignore_index)
    if not ignored.any():
        return y, None
    return np.where(ignored, labels.dtype.type(0), labels), ignored
