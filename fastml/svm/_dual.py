"""Support vector machines by coordinate descent on their duals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from ..kernels.runtime import parallel
from ..solvers.objective import Array, mean_and_spread
from ..utils.lazy import lazy_module
from ._problems import ROUNDING, Problems, Settings, Solution

if TYPE_CHECKING:
    from ..kernels.linear import dual
    from ..kernels.linear import objective as kernel_objective
    from ..kernels.linear import scores as linear_scores
else:
    dual = lazy_module("fastml.kernels.linear.dual")
    kernel_objective = lazy_module("fastml.kernels.linear.objective")
    linear_scores = lazy_module("fastml.kernels.linear.scores")

__all__ = ["crammer_singer", "descend", "solve_dual"]

#: Multiply-adds of one compiled call of coordinate descent.
_CALL_PRODUCTS = 1 << 26

#: Epochs before the gap is looked at for the first time, and seconds of one for each row and for each entry, roughly.
_FIRST_CHECK = 5
_ROW_SECONDS, _ENTRY_SECONDS = 5e-8, 5e-10

#: Rows whose scores are made at a time.
_LOSS_ROWS = 4096


def solve_dual(problems: Problems) -> Solution:
    """Solve the duals by coordinate descent."""
    return descend(problems, np.arange(problems.count), None)


def descend(problems: Problems, which: NDArray[np.intp], start: Solution | None) -> Solution:
    """Descend the duals of some problems side by side, from zeros or from a solution of all problems."""
    s, n = problems.settings, len(problems.X)
    center = np.zeros(problems.X.shape[1])
    if s.free_intercept:
        mean, spread = mean_and_spread(problems.X, problems.cost)
        if (np.abs(mean) > spread).any():
            # Rows far from 0 are much alike, and the descent would take small steps: it gets copies that are not.
            center, problems = mean, problems.with_rows(problems.X - mean)
    constant, norms = s.intercept_scaling, _squared_norms(problems.X)
    if s.free_intercept:
        # As long as the rows, but so long that a proximal step moves the intercept by 1 if all rows pull one way.
        total = float(np.add.reduce(problems.cost))
        constant = math.sqrt(max(float(np.add.reduce(norms)) / n, 1 / total))
    norms += constant**2
    seeds = check_random_state(s.random_state).randint(np.iinfo(np.int32).max, size=len(which))
    solvers = [
        _CoordinateDescent(problems, k, constant, norms, seed)
        for k, seed in zip(which.tolist(), seeds.tolist(), strict=True)
    ]
    if start is not None:
        for k, solver in zip(which.tolist(), solvers, strict=True):
            solver.start(start.dual_coef[k], float(start.intercept[k] + start.coef[k] @ center))
    # At least: how many epochs there will be is not known.
    seconds = len(solvers) * _FIRST_CHECK * n * (_ROW_SECONDS + problems.X.shape[1] * _ENTRY_SECONDS)
    parallel.run(lambda place: solvers[place].run(), len(solvers), parallel.resolve(s.n_threads, seconds=seconds))
    return Solution(
        np.array([solver.w for solver in solvers]),
        np.array([solver.b - float(solver.w @ center) for solver in solvers]),
        np.array([solver.dual for solver in solvers]),
        np.array([solver.objective for solver in solvers]),
        np.array([solver.gap for solver in solvers]),
        np.array([solver.goal for solver in solvers]),
        max(solver.epochs for solver in solvers),
    )


class _CoordinateDescent:
    """One problem's dual.

    A penalised intercept is the coefficient of one more column, of value `constant`. A free one comes from proximal
    steps: an intercept that is penalised for its distance from where it was is moved until it stays. This is the method
    of multipliers for the constraint that the dual variables times the signs sum to 0.
    """

    def __init__(self, problems: Problems, k: int, constant: float, norms: Array, seed: int) -> None:
        s = problems.settings
        self._problems, self._k, self._constant = problems, k, constant
        self._signs, costs = problems.signs(k), problems.costs(k)
        self._upper = np.where(costs > 0, np.inf, 0.0) if s.squared else costs
        self._ridge = np.divide(0.5, costs, out=np.zeros(len(costs)), where=costs > 0) if s.squared else 0 * costs
        self._norms = norms
        self._random = np.random.default_rng(seed)
        self._alpha, self._moving = np.zeros(len(costs)), np.zeros(problems.X.shape[1] + 1)
        self.epochs = 0
        self.w, self.b = np.zeros(problems.X.shape[1]), 0.0
        self.dual = np.zeros(len(costs))
        self.objective = self.gap = self.goal = math.inf

    def start(self, dual: Array, intercept: float) -> None:
        """Start from dual variables times signs, and from an intercept where that is free."""
        self._alpha[:] = np.clip(dual * self._signs, 0.0, self._upper)
        problems = self._problems
        rows = problems.losses("hinge", problems.X, 1)
        self._moving[:-1] = rows.combine((self._alpha * self._signs)[np.newaxis])[0, :-1]
        self._moving[-1] = intercept / self._constant if problems.settings.free_intercept else 0.0
        self._is_done()

    def run(self) -> Iterator[None]:
        """Descend until the gap is small; yield now and then, so that it can be stopped."""
        s, X = self._problems.settings, self._problems.X
        n, columns = X.shape
        step = max(1, _CALL_PRODUCTS // (2 * columns + 2))
        moving = self._moving
        active, extremes = np.ones(n, np.bool_), np.zeros(2)
        margins, check = (-math.inf, math.inf), _FIRST_CHECK
        while self.epochs < s.max_iter:
            order = self._random.permutation(np.flatnonzero(active))
            extremes[:] = 0.0
            for first in range(0, len(order), step):
                dual.hinge_epoch(
                    X, self._signs, order[first : first + step], self._norms, self._upper, self._ridge, self._constant,
                    margins, self._alpha, moving, active, extremes,
                )  # fmt: skip
                yield
            self.epochs += 1
            margins = (extremes[0] if extremes[0] < 0 else -math.inf, extremes[1] if extremes[1] > 0 else math.inf)
            if s.free_intercept:
                drift = self._constant * float(self._alpha @ self._signs)
                if extremes[1] - extremes[0] <= abs(drift) * self._constant:
                    moving[-1] += drift
            if self.epochs >= check or not active.any() or self.epochs == s.max_iter:
                if self._is_done():
                    return
                active[:], margins = True, (-math.inf, math.inf)
                check = self.epochs + max(_FIRST_CHECK, self.epochs // 3)
                yield

    def _is_done(self) -> bool:
        """Compute the gap, keep the solution if it is the best so far, and put rounding errors of `_moving` right."""
        moving, problems, which = self._moving, self._problems, np.array([self._k])
        s = problems.settings
        dual = (self._alpha * self._signs)[np.newaxis]
        rows = problems.losses("hinge", problems.X, 1)
        below, sums = problems.dual_objectives(rows, dual, which)
        w = sums[:, :-1]
        b = np.array([self._constant * (moving[-1] if s.free_intercept else self._constant * sums[0, -1])])
        primal = problems.primal_objectives(w, b, which, 1)
        gap = float(primal[0] - below[0])
        if gap < self.gap:
            self.w, self.b, self.dual = w[0], float(b[0]), dual[0]
            self.objective, self.gap = float(primal[0]), gap
        if not s.free_intercept:
            moving[:-1], moving[-1] = w[0], self._constant * sums[0, -1]
        if s.verbose:
            print(f"class {self._k}, epoch {self.epochs}: objective {primal[0]:.10g}, gap {gap:.1e}")
        self.goal = s.tol * max(self.objective, float(problems.smallest[self._k]))
        return self.gap <= self.goal


def _squared_norms(X: NDArray[Any]) -> Array:
    norms: Array = np.einsum("ij,ij->i", X, X, dtype=np.float64)
    return norms


def _multiclass_hinge(
    X: NDArray[Any], codes: NDArray[np.intp], cost: Array, W: Array, b: Array, n_threads: int | None
) -> float:
    """Return the weighted sum of Crammer and Singer's losses, some rows at a time."""
    total = 0.0
    for first in range(0, len(X), _LOSS_ROWS):
        here = slice(first, first + _LOSS_ROWS)
        slack = linear_scores.linear_scores(X[here], W, b, n_threads) + 1.0
        true = slack[np.arange(len(slack)), codes[here]][:, np.newaxis] - 1.0
        slack -= true
        np.put_along_axis(slack, codes[here, np.newaxis], 0.0, axis=1)
        total += float(np.add.reduce(cost[here] * slack.max(axis=1)))
    return total


def crammer_singer(X: NDArray[Any], codes: NDArray[np.intp], cost: Array, n_classes: int, s: Settings) -> Solution:
    """Solve Crammer and Singer's dual by coordinate descent, a row's variables at a time."""
    n, columns = X.shape
    norms = _squared_norms(X) + s.intercept_scaling**2
    random = np.random.default_rng(check_random_state(s.random_state).randint(np.iinfo(np.int32).max))
    alpha, W = np.zeros((n, n_classes)), np.zeros((n_classes, columns + 1))
    step = max(1, _CALL_PRODUCTS // (2 * n_classes * (columns + 1)))
    ones = np.ones(1)
    combined = kernel_objective.LossPass("hinge", X, codes, None, ones, ones, s.n_threads)
    best: Solution | None = None
    check, epoch = _FIRST_CHECK, 0
    while epoch < s.max_iter:
        order = random.permutation(n)
        worst = 0.0
        for first in range(0, n, step):
            some = order[first : first + step]
            worst = max(worst, dual.crammer_singer_epoch(X, codes, some, norms, cost, s.intercept_scaling, alpha, W))
        epoch += 1
        if epoch < check and worst > 0 and epoch < s.max_iter:
            continue
        check = epoch + max(_FIRST_CHECK, epoch // 3)
        sums = combined.combine(np.ascontiguousarray(alpha.T))
        W[:, :-1], W[:, -1] = sums[:, :-1], s.intercept_scaling * sums[:, -1]
        half_norms = 0.5 * float(np.einsum("ij,ij->", W, W))
        b = s.intercept_scaling * W[:, -1]
        objective = half_norms + _multiclass_hinge(X, codes, cost, W[:, :-1], b, s.n_threads)
        goal = s.tol * max(objective, ROUNDING * float(np.add.reduce(cost)))
        below = -half_norms - float(alpha.sum() - alpha[np.arange(n), codes].sum())
        if best is None or objective - below < best.gap[0]:
            best = Solution(
                W[:, :-1].copy(), b, alpha.T.copy(), np.array([objective]),
                np.array([objective - below]), np.array([goal]), epoch,
            )  # fmt: skip
        if s.verbose:
            print(f"epoch {epoch}: objective {objective:.10g}, gap {objective - below:.1e}")
        if best.gap[0] <= best.goal[0]:
            break
    assert best is not None
    if n_classes > 2:
        return best._replace(n_iter=epoch)
    # Of two classes the second is scored against the first.
    return best._replace(
        coef=best.coef[1:] - best.coef[:1],
        intercept=best.intercept[1:] - best.intercept[:1],
        dual_coef=best.dual_coef[1:] - best.dual_coef[:1],
        n_iter=epoch,
    )
