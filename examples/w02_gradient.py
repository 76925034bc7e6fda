"""W2: the gradient of logistic regression against its formula, and against differences of the cost.

dw = Xᵀ(p − t) / N and db = mean(p − t). A forward difference with step h is off by h/2 times the second derivative, so
the norm of all errors must not exceed h/2 times that of the diagonal of the Hessian; central differences agree to
1e-8. With --full: songs, and 100 rows of 90 synthetic features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from _common import arguments, tumours_or_songs
from numpy.typing import NDArray

from fastml import check_gradient, kernels

ROWS = 100
STEP = 1e-6


class Found(NamedTuple):
    """What the checks found; `forward` is to be at most `bound`, `central` at most 1e-8."""

    formula: float
    forward: float
    bound: float
    central: float


def formula(X: NDArray[Any], t: NDArray[Any], w: NDArray[Any], b: float) -> tuple[NDArray[Any], float]:
    """Return dw and db as the formula has them."""
    residual = kernels.sigmoid(X @ w + b) - t
    return X.T @ residual / len(X), float(residual.mean())


def check(X: NDArray[Any], t: NDArray[Any], seed: int = 0) -> Found:
    """Check the gradient at normal random weights."""
    rng = np.random.default_rng(seed)
    w, b = rng.normal(size=X.shape[1]), float(rng.normal())
    point: dict[str, Any] = {"X": X, "y": t, "W": w, "b": b}
    _, dw, db = kernels.linear_loss_gradient("binary_cross_entropy", X, t, w, b)
    by_formula = formula(X, t, w, b)
    forward = check_gradient("binary_cross_entropy", **point, method="forward", step=STEP)
    central = check_gradient("binary_cross_entropy", **point)
    print(f"\n{central}")
    p = kernels.sigmoid(X @ w + b)
    curvature = np.append((p * (1 - p)) @ X**2, (p * (1 - p)).sum()) / len(X)
    return Found(
        formula=max(np.abs(dw - by_formula[0]).max(), abs(db - by_formula[1])),
        forward=float(np.linalg.norm(forward.error)),
        bound=float(STEP / 2 * np.linalg.norm(curvature) * 1.05 + np.linalg.norm(forward.rounding)),
        central=central.max_error,
    )


def main(argv: Sequence[str] | None = None) -> list[Found]:
    options = arguments(__doc__, argv)
    task = tumours_or_songs(options)
    found = [check(task.X_train[:ROWS], task.t_train[:ROWS])]
    if options.full:
        rng = np.random.default_rng(1)
        found.append(check(rng.normal(size=(ROWS, 90)), rng.integers(0, 2, ROWS)))
    for one in found:
        within = "within" if one.forward <= one.bound else "DIFFERS, more than"
        print(f"\nlargest difference from the formula: {one.formula:.1e}")
        print(f"forward differences, h = {STEP:g}: norm of the errors {one.forward:.2e}, {within} {one.bound:.2e}")
        within = "within" if one.central <= 1e-8 else "DIFFERS, more than"
        print(f"central differences: largest error {one.central:.1e}, {within} 1e-8")
    return found


if __name__ == "__main__":
    main()
