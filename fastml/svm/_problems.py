"""What the solvers of support vector machines are given, and what they return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..solvers.objective import Array
from ..utils.lazy import lazy_module

if TYPE_CHECKING:
    from ..kernels.linear import objective
else:
    objective = lazy_module("fastml.kernels.linear.objective")

__all__ = ["ROUNDING", "Problems", "Settings", "Solution"]

#: Share of the objective without coefficients that rounding errors may make.
ROUNDING = 1e-14


class Settings(NamedTuple):
    """The checked parameters."""

    squared: bool
    C: float
    tol: float
    intercept_scaling: float  # value of the column that the intercept belongs to, 0 without intercept
    free_intercept: bool  # whether the intercept is not penalised
    max_iter: int
    verbose: bool
    random_state: Any
    n_threads: int | None


class Solution(NamedTuple):
    """What a solver returns."""

    coef: Array
    intercept: Array
    dual_coef: Array
    objective: Array
    gap: Array
    goal: Array  # what the gap may be
    n_iter: int

    def with_part(self, which: NDArray[np.intp], other: Solution) -> Solution:
        """Take some problems from another solution, of these alone."""
        for whole, part in zip(self[:-1], other[:-1], strict=True):
            whole[which] = part
        return self._replace(n_iter=max(self.n_iter, other.n_iter))


class Problems:
    """One class against the rest, for some classes: rows, who is who, and what a row's loss is multiplied by."""

    def __init__(
        self, X: NDArray[Any], labels: NDArray[np.intp], cost: Array, positive: Array, negative: Array, s: Settings
    ) -> None:
        self.X, self.labels, self.cost = X, labels, cost
        self.positive, self.negative = positive, negative
        self.settings = s
        self.count = len(positive)
        #: Objectives below this are rounding errors of their terms.
        self.smallest = ROUNDING * np.array([np.add.reduce(self.costs(k)) for k in range(self.count)])
        #: What is added to the objective for the square of half an intercept.
        self.ridge = 1 / s.intercept_scaling**2 if s.intercept_scaling > 0 and not s.free_intercept else 0.0

    def with_rows(self, X: NDArray[Any]) -> Problems:
        """Return the same problems with other rows."""
        return Problems(X, self.labels, self.cost, self.positive, self.negative, self.settings)

    def signs(self, k: int) -> Array:
        """Return +1 for the rows of a class and -1 for the rest."""
        return np.where(self.labels == k, 1.0, -1.0)

    def costs(self, k: int) -> Array:
        """Return what the losses of a problem's rows are multiplied by."""
        costs: Array = self.cost * np.where(self.labels == k, self.positive[k], self.negative[k])
        return costs

    def losses(self, loss: str, X: NDArray[Any], n_threads: int | None) -> objective.LossPass:
        """Return sums of losses over rows."""
        return objective.LossPass(loss, X, self.labels, self.cost, self.positive, self.negative, n_threads)

    def dual_objectives(self, rows: objective.LossPass, dual: Array, which: NDArray[np.intp]) -> tuple[Array, Array]:
        """Return the dual objectives of some problems, and the sums of `rows` by dual variables.

        `dual` (m, n) holds dual variables times signs. Where intercepts are free these must sum to 0: those of one
        sign are scaled down here until they do.
        """
        if self.settings.free_intercept:
            for a in dual:
                up, down = a[a > 0].sum(), -a[a < 0].sum()
                if up > down:
                    a[a > 0] *= down / up
                elif down > up:
                    a[a < 0] *= up / down
        sums = rows.combine(dual)
        values = np.abs(dual).sum(axis=1) - 0.5 * np.einsum("ij,ij->i", sums[:, :-1], sums[:, :-1])
        if self.ridge > 0:
            values -= 0.5 * sums[:, -1] ** 2 / self.ridge
        if self.settings.squared:
            for row, k in enumerate(which.tolist()):
                costs = self.costs(k)
                some = costs > 0
                values[row] -= 0.25 * (dual[row, some] ** 2 / costs[some]).sum()
        return values, sums

    def primal_objectives(self, w: Array, b: Array, which: NDArray[np.intp], n_threads: int | None) -> Array:
        """Return the objectives of some problems."""
        loss = "squared_hinge" if self.settings.squared else "hinge"
        rows = self.losses(loss, self.X, n_threads)
        values, _ = rows(w, b, which=which, dtype=np.dtype(np.float64), parameter=np.zeros(self.count))
        values += 0.5 * (np.einsum("ij,ij->i", w, w) + self.ridge * b**2)
        return values
