"""What the families of this tier share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Row = Sequence[float]

# Rounding a large float64 to float32 gives infinity, as it should: no need for NumPy to warn.
quiet = np.errstate(over="ignore", invalid="ignore", under="ignore")


def dot(x: Row, w: Row) -> float:
    total = 0.0
    for a, b in zip(x, w, strict=True):
        total += a * b
    return total
