"""W20: a support vector machine with squared slack, from both sides of its duality.

    primal   min  ½‖w‖² + C/2 Σξ²             where y (w·x + b) ≥ 1 - ξ
    dual     min  ½ΣΣ αα yy x·x - Σα + ‖α‖²/(2C)  where α ≥ 0, Σαy = 0

The intercept is not penalised. `LinearSVC` solves either, with half of this C, since scikit-learn's objective has no ½
before the slack. Both forms must find the same w, and their values meet: ξ = α/C and w = Σαyx turn the one solution
into the other. Default: the tumours of scikit-learn's breast_cancer. With --full: songs, which are from after 2000?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from _common import BinaryTask, arguments, timed, tumours_or_songs
from numpy.typing import NDArray

from fastml import LinearSVC

C = 2.0
TOL = 1e-7


class Side(NamedTuple):
    """What one form found; all but `coef` relative, see `look`."""

    coef: NDArray[Any]
    primal: float
    gap: float
    constraint: float
    weights: float
    slack: float


def look(model: LinearSVC, X: NDArray[Any], y: NDArray[Any]) -> Side:
    """Compute both objectives by their formulas, and how well the conditions between them are met.

    The gap is a share of the objective; Σαy one of Σα; the difference of w from Σαyx one of the largest weight, and
    that of ξ from α/C one of the largest slack.
    """
    w, b = model.coef_[0], model.intercept_[0]
    alpha = y * model.dual_coef_[0]
    xi = np.maximum(0.0, 1 - y * (X @ w + b))
    combined = (alpha * y) @ X
    primal = 0.5 * w @ w + 0.5 * C * xi @ xi
    dual = 0.5 * combined @ combined - alpha.sum() + alpha @ alpha / (2 * C)
    assert alpha.min() >= 0
    return Side(
        w, float(primal), float((primal + dual) / primal), float(abs(alpha @ y) / alpha.sum()),
        float(np.abs(w - combined).max() / np.abs(w).max()), float(np.abs(xi - alpha / C).max() / xi.max()),
    )  # fmt: skip


def solve(task: BinaryTask, dual: bool, threads: int | None) -> tuple[float, LinearSVC]:
    model = LinearSVC(
        loss="squared_hinge", C=C / 2, dual=dual, tol=TOL, regularize_intercept=False, max_iter=100_000, random_state=0,
        n_jobs=threads,
    )  # fmt: skip
    return timed(model.fit, task.X_train, task.t_train)


def main(argv: Sequence[str] | None = None) -> tuple[Side, Side, float]:
    options = arguments(__doc__, argv)
    task = tumours_or_songs(options)
    y = np.where(task.t_train == 1, 1.0, -1.0)
    sides = []
    print(f"\n{'form':<8} {'objective':>16} {'gap':>9} {'Σαy':>9} {'w - Σαyx':>9} {'ξ - α/C':>9} {'steps':>6} {'s':>7}")
    for dual in (False, True):
        seconds, model = solve(task, dual, options.threads)
        side = look(model, task.X_train, y)
        print(
            f"{'dual' if dual else 'primal':<8} {side.primal:>16.9g} {side.gap:>9.1e} {side.constraint:>9.1e} "
            f"{side.weights:>9.1e} {side.slack:>9.1e} {model.n_iter_:>6} {seconds:>7.3f}"
        )
        sides.append(side)
        accuracy = model.score(task.X_test, task.t_test)
    print("(all but the objective relative)")
    primal, dual = sides
    difference = float(np.abs(primal.coef - dual.coef).max() / np.abs(primal.coef).max())
    print(f"w of the two forms: relative difference {difference:.1e}; test accuracy {accuracy:.4f}")
    return primal, dual, difference


if __name__ == "__main__":
    main()
