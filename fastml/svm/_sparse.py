"""Support vector machines with an L1 penalty."""

from __future__ import annotations

import numpy as np

from ..solvers.row_losses import SquaredHinge
from ..solvers.sparse import Penalty, minimize_sparse
from ._problems import Problems, Solution

__all__ = ["solve_sparse"]


def solve_sparse(problems: Problems) -> Solution:
    """Minimize ``‖w‖₁`` and the sums of squared hinges, of one problem after the other."""
    s, columns = problems.settings, problems.X.shape[1]
    l1, intercept = np.ones(columns + 1), "none"
    if s.free_intercept:
        intercept = "free"
    elif s.intercept_scaling > 0:
        l1[-1], intercept = 1 / s.intercept_scaling, "penalized"
    found = [
        minimize_sparse(
            problems.X,
            SquaredHinge(problems.signs(k), problems.costs(k)),
            Penalty(l1, 0.0, intercept),
            np.zeros((1, columns + 1)),
            tol=s.tol,
            smallest=float(problems.smallest[k]),
            max_iter=s.max_iter,
            n_threads=s.n_threads,
            verbose=f"class {k}, round" if s.verbose else "",
        )
        for k in range(problems.count)
    ]
    return Solution(
        np.array([each.w[0, :-1] for each in found]),
        np.array([each.w[0, -1] for each in found]),
        np.array([-each.dual[0] for each in found]),
        np.array([each.objective for each in found]),
        np.array([each.gap for each in found]),
        np.array([each.goal for each in found]),
        max(each.n_iter for each in found),
    )
