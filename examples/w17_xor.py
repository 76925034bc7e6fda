"""W17: linear regression cannot learn XOR: every way ends at w = 0, b = ½.

Of the four points (0, 0), (0, 1), (1, 0), (1, 1) those with different coordinates have the target 1, the others 0. The
best plane in the sense of squares is flat, at half height: it says ½ everywhere. The normal equations say so at once,
and gradient descent from any start comes to the same place. With --full: more starts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from _common import arguments, verdict
from numpy.typing import NDArray

from fastml import kernels

POINTS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
TARGETS = np.array([0.0, 1.0, 1.0, 0.0])
KNOWN = "0.000000 0.000000 0.500000"


def by_equations() -> NDArray[np.float64]:
    """Return (w, b) from the normal equations."""
    design = np.column_stack([POINTS, np.ones(4)])
    return np.linalg.solve(design.T @ design, design.T @ TARGETS)


def by_descent(seed: int, steps: int = 500, step: float = 0.5) -> NDArray[np.float64]:
    """Return (w, b) after gradient descent from a normal random start."""
    start = np.random.default_rng(seed).normal(size=3)
    w, b = start[:2], start[2]
    for _ in range(steps):
        _, dw, db = kernels.linear_loss_gradient("squared_error", POINTS, TARGETS, w, b)
        w, b = w - step * dw, b - step * db
    return np.append(w, b)


def main(argv: Sequence[str] | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    options = arguments(__doc__, argv)
    starts = 200 if options.full else 10
    exact, reached = by_equations(), np.array([by_descent(seed) for seed in range(starts)])
    furthest = reached[np.abs(reached - exact).max(axis=1).argmax()]
    for way, found in (("normal equations", exact), (f"descent, worst of {starts} starts", furthest)):
        shown = " ".join(f"{value + 0.0:.6f}" for value in np.round(found, 6))
        print(f"{way:<30} w, b = {verdict(shown, KNOWN)}")
    loss = kernels.squared_error(POINTS @ exact[:2] + exact[2], TARGETS)
    print(f"half the mean square there: {verdict(f'{loss:.6f}', '0.125000')}, as for ½ without looking at the point")
    return exact, reached


if __name__ == "__main__":
    main()
