"""What losses ask of their arguments."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ..arguments.arrays import Array, floating
from ..arguments.targets import checked_classes, checked_target, refuse_empty


def scores_and_target(z: ArrayLike, y: ArrayLike, target: str, name: str = "y") -> tuple[Array, Array]:
    """Settle scores ``z`` (n,) and a target (n,) of the same dtype for a mean over n >= 1 entries.

    `target` says what the values may be: "probability" in [0, 1] (bool counts as 0 and 1), "sign"
    -1 or +1, "real" anything real (NaN and infinity pass). `name` is what the caller calls it.
    """
    z = floating(z, "z", 1)
    refuse_empty(z.shape[0], "z has 0 entries")
    return z, checked_target(y, target, name, z.shape[0], "z has {} entries", z.dtype)


def class_targets(Z: ArrayLike, y: ArrayLike, *, probabilities: bool = False) -> tuple[Array, Array]:
    """Settle scores ``Z`` (n, C) and class indices ``y`` (n,) for a mean over n >= 1 rows.

    Returns
    -------
    Z : ndarray of shape (n, C), float32 or float64
    y : ndarray
        Class indices (n,) as intp; or, where `probabilities` allows them and `y` is 2-D, target
        probabilities (n, C) of Z's dtype: finite, not negative, each row summing to 1 within 1e-3
        (they are used as they are, not normalised).
    """
    Z = floating(Z, "Z", 2)
    refuse_empty(Z.shape[0], "Z has 0 rows")
    return Z, checked_classes(y, Z.shape[0], "Z has {} rows", Z.shape[1], Z.dtype, probabilities)
