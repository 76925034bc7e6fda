"""Support vector machines by minimising their primal objectives, with smooth hinges."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..solvers.objective import Array, RowObjective, minimize, print_step, rotate_wide_rows
from ..solvers.quasi_newton import Minimizer
from ._dual import descend
from ._problems import Problems, Solution

__all__ = ["solve_primal"]

#: Relative gap down to which float32 passes are trusted.
_NARROW_GAP = 1e-6

#: Widths of the smooth hinge below this make dual variables of rounding errors.
_LEAST_WIDTH = 1e-7


def solve_primal(problems: Problems) -> Solution:
    """Solve the primal: the squared hinge as it is, the hinge through smooth ones of ever smaller width."""
    s, which = problems.settings, np.arange(problems.count)
    narrow, rotation = rotate_wide_rows(problems.X)
    objective = _Margins(problems, narrow)
    start = np.zeros((problems.count, narrow.shape[1] + 1))
    minimizer = Minimizer(objective, start, memory=0 if objective.exact else 15)
    report = print_step if s.verbose else None
    while True:
        minimize(objective, minimizer, s.max_iter, report)
        left = which[~objective.final & ~minimizer.stalled & (objective.parameter > _LEAST_WIDTH)]
        if minimizer.rounds < s.max_iter and left.size:
            objective.sharpen(left)
            minimizer.forget()
        elif objective.widen():
            left = which
        else:
            break
        minimizer.restart(left)
    w, b = minimizer.W[:, :-1], objective.intercepts(minimizer.W)
    if rotation is not None:
        w = w @ rotation.T
    dual = -objective.derivatives.astype(np.float64)
    below, _ = problems.dual_objectives(objective.rows, dual, which)
    primal = problems.primal_objectives(w, b, which, s.n_threads)
    goal = s.tol * np.maximum(primal, problems.smallest)
    solution = Solution(w, b, dual, primal, primal - below, goal, int(minimizer.n_iter.max()))
    rough = which[solution.gap > solution.goal]
    if minimizer.rounds >= s.max_iter or not rough.size:
        return solution
    # Rounding is not in the way of coordinate descent, which has not far to go from here.
    return solution.with_part(rough, descend(problems, rough, solution))


class _Margins(RowObjective):
    """Squared or smooth hinges of the problems' margins.

    Attributes
    ----------
    final : ndarray of bool, shape (problems,)
        Problems with a gap as small as asked.
    """

    def __init__(self, problems: Problems, X: NDArray[Any]) -> None:
        s = problems.settings
        self._problems, self._settings = problems, s
        super().__init__(
            "squared_hinge" if s.squared else "smooth_hinge",
            X,
            problems.labels,
            problems.cost,
            problems.positive,
            problems.negative,
            problems=problems.count,
            penalty=np.append(np.ones(X.shape[1]), problems.ridge),
            fit_intercept=s.intercept_scaling > 0,
            n_threads=s.n_threads,
        )
        self._costs = [problems.costs(k) for k in range(problems.count)]
        self.parameter[:] = 1.0
        self.final = np.zeros(problems.count, np.bool_)
        self._excess, self._goal = np.zeros(problems.count), np.zeros(problems.count)

    def curvatures(self, k: int) -> Array:
        """Return the second derivatives: where the loss is a parabola, that of the parabola."""
        derivatives, costs = np.abs(self.derivatives[k], dtype=np.float64), self._costs[k]
        if self._settings.squared:
            return np.where(derivatives > 0, 2 * costs, 0.0)
        bent = (derivatives > 0) & (derivatives < costs * (1 - 4 * np.finfo(self.dtype).eps))
        return np.where(bent, costs / self.parameter[k], 0.0)

    def converged(self, values: Array, G: Array, decrease: Array, which: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Say which problems have the gap that is asked for, or none that this width can take away."""
        tol = self._settings.tol if self.dtype == np.float64 else max(self._settings.tol, _NARROW_GAP)
        primal, excess = values.copy(), np.zeros(len(which))
        if not self._settings.squared:
            for row, k in enumerate(which.tolist()):
                derivatives, costs = np.abs(self.derivatives[k], dtype=np.float64), self._costs[k]
                share = np.divide(derivatives, costs, out=np.zeros_like(derivatives), where=costs > 0)
                primal[row] += self.parameter[k] * (derivatives * (1 - 0.5 * share)).sum()
                excess[row] = self.parameter[k] * (derivatives * np.maximum(0.0, 1 - share)).sum()
        goal = tol * np.maximum(primal, self._problems.smallest[which])
        gap = self._gaps(primal, excess, G, decrease <= goal, which)
        self._excess[which], self._goal[which] = excess, goal
        self.final[which] = (gap <= goal) & ~self.untouched(G, which)
        return self.final[which] | ((excess > 0.5 * goal) & (decrease <= 0.3 * excess))

    def _gaps(self, primal: Array, excess: Array, G: Array, near: NDArray[np.bool_], which: NDArray[np.intp]) -> Array:
        """Return duality gaps: those of free intercepts take a pass, which is made for problems that are near."""
        if not self._settings.free_intercept:
            penalty = self.penalty if self.fit_intercept else np.ones_like(self.penalty)
            gap: Array = 0.5 * np.einsum("ij,ij,j->i", G, G, 1 / penalty) + excess
            return gap
        gap = np.full(len(which), np.inf)
        if near.any():
            dual = -self.derivatives[which[near]].astype(np.float64)
            gap[near] = primal[near] - self._problems.dual_objectives(self.rows, dual, which[near])[0]
        return gap

    def sharpen(self, which: NDArray[np.intp]) -> None:
        """Take narrower widths for some problems: such that the gap they leave is a third of the goal, in steps."""
        with np.errstate(divide="ignore"):
            self.parameter[which] *= np.clip(0.3 * self._goal[which] / self._excess[which], 0.1, 0.5)
