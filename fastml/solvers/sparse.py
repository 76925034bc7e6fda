"""Minimizers of sums of losses with an L1 penalty: Newton steps on few columns at a time, to a stated duality gap.

A round makes the gradient of all columns and with it a bound on what is left to gain, takes the columns in that are to
get a coefficient, the worst offenders first, and takes a Newton step on these alone: the quadratic that stands for the
losses is minimized, with the penalty as it is, by coordinate descent and by solving for what is not 0. Where losses
over classes make that too large, they are taken a class at a time, the scores of the others fixed.

The bound is the dual objective. Derivatives of the losses by the scores are feasible dual variables once the sums over
rows meet the conditions of the penalty and of free intercepts; both is had by scaling, which keeps the variables in the
domain of the conjugates.

Sources: G.-X. Yuan, C.-H. Ho and C.-J. Lin, An improved GLMNET for L1-regularized logistic regression, JMLR 13 (2012);
M. Massias, A. Gramfort and J. Salmon, Celer: a fast solver for the Lasso with dual extrapolation, ICML 2018.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from ..kernels.runtime import parallel
from ..utils.lazy import lazy_module
from .blas import one_blas_thread
from .objective import Array, mean_and_spread
from .row_losses import Curvature, RowLosses

if TYPE_CHECKING:
    from ..kernels.linear import coordinates
    from ..kernels.linear import objective as kernel_objective
else:
    coordinates = lazy_module("fastml.kernels.linear.coordinates")
    kernel_objective = lazy_module("fastml.kernels.linear.objective")

__all__ = ["Penalty", "SparseSolution", "minimize_sparse"]

#: Columns that a round takes in at most, unless more have coefficients: then as many, up to one for each row in all.
_FEWEST = 64

#: Coordinates of all classes, and multiply-adds of their products, up to which classes are taken together.
_MOST_TOGETHER, _TOGETHER_PRODUCTS = 2048, 2e10

#: Share of its largest violation to which a quadratic is minimized, at the end and before; passes between two attempts
#: to solve for the coefficients other than 0 at once, and such attempts.
_PRECISION, _SWEEPS, _ATTEMPTS = (1e-4, 0.05), 20, 30

#: Coefficients that become 0 in one such attempt, at most, and what share of the way to the solution is enough.
_DROPS, _FAR = 20, 0.001

#: Rounds that bring nothing before rounding errors are taken for what is left; a smaller gap than this share of the
#: smallest is something.
_IDLE, _PROGRESS = 3, 0.9

#: What a step must bring of what it promises, and halvings of a step.
_DECREASE, _HALVINGS = 0.01, 30

#: Rows per slab of a product, at least, slabs, and rows that are multiplied at a time.
_SLAB_ROWS, _SLABS, _BLOCK_ROWS = 2048, 8, 512

#: Bytes of the products of all slabs.
_SLAB_BYTES = 1 << 28

#: Columns from which products are not made, in units of the rows.
_MOST_COLUMNS = 2

#: Multiply-adds of one compiled call.
_CALL_PRODUCTS = 1 << 26

#: Rows that are copied at a time; seconds of a product, roughly.
_COPY_ROWS, _PRODUCT_SECONDS = 256, 4e-11

#: Ridge that keeps curvatures above 0, as a share of each.
_RIDGE = 1e-12

#: Share of the objective that rounding errors may make.
_ROUNDING = 1e-13


class Penalty(NamedTuple):
    """``sum_j l1_j |w_j| + l2 / 2 sum_j w_j²``; the last entry is the intercept's."""

    l1: Array  # (D + 1,), above 0; the last does not count unless the intercept is penalized
    l2: float
    intercept: str  # "free", "penalized" or "none"

    def value(self, w: Array) -> float:
        """Return the penalty of coefficients (D + 1, or K times as many)."""
        some = w if self.intercept == "penalized" else w[..., :-1]
        l1 = self.l1[: some.shape[-1]]
        return float(np.sum(np.abs(some) @ l1) + 0.5 * self.l2 * np.sum(some**2))


class SparseSolution(NamedTuple):
    """What `minimize_sparse` returns."""

    w: Array  # (K, D + 1), intercepts last
    dual: Array  # (K, n), feasible
    objective: float
    gap: float
    goal: float
    n_iter: int


def minimize_sparse(
    X: NDArray[Any],
    losses: RowLosses,
    penalty: Penalty,
    start: Array,
    *,
    tol: float,
    smallest: float,
    max_iter: int,
    n_threads: int | None,
    verbose: str = "",
) -> SparseSolution:
    """Minimize the sum of the losses and the penalty, from coefficients and intercepts (K, D + 1).

    Done is where the gap is at most `tol` times the objective, or times `smallest` where that is larger. `verbose` is
    what a line about a round begins with.
    """
    with one_blas_thread():
        descent = _Descent(X, losses, penalty, start, n_threads)
        best, least, idle = None, math.inf, 0
        for n_iter in range(max_iter + 1):
            objective, gap, dual = descent.certificate()
            goal = max(tol, _ROUNDING) * max(objective, smallest)
            if verbose:
                print(f"{verbose} {n_iter}: objective {objective:.10g}, gap {gap:.1e}, {descent.support} coefficients")
            better = best is None or gap < _PROGRESS * best.gap
            idle = 0 if better or objective < least - _ROUNDING * abs(least) else idle + 1
            least = min(least, objective)
            if best is None or gap < best.gap:
                best = SparseSolution(descent.uncentered(), dual, objective, gap, goal, n_iter)
            if gap <= goal or idle == _IDLE or n_iter == max_iter:
                return best._replace(n_iter=n_iter)
            descent.round()
    raise AssertionError


class _Descent:
    """Coefficients on their way to the minimum, scores, and copies of the columns in use."""

    def __init__(
        self, X: NDArray[Any], losses: RowLosses, penalty: Penalty, start: Array, n_threads: int | None
    ) -> None:
        n, columns = X.shape
        self._X, self._losses, self._penalty, self._n_threads = X, losses, penalty, n_threads
        # With a free intercept columns are centered: what is left of those far from 0 has its digits.
        self._center = np.zeros(columns + 1)
        if penalty.intercept == "free":
            self._center[:-1] = mean_and_spread(X, losses.weight)[0]
        self._l1 = penalty.l1.copy()
        if penalty.intercept != "penalized":
            self._l1[-1] = math.inf
        self._w = start.copy()
        self._w[:, -1] += start @ self._center
        self._rows = kernel_objective.LossPass("", X, np.empty(0), None, np.ones(1), np.ones(1), n_threads)
        # The column of ones is always there: its coefficient is the intercept.
        self._slot = np.full(columns + 1, -1)
        self._slot[-1] = 0
        self._used, self._space = np.array([columns]), np.ones((1, n))
        self._take(np.flatnonzero(self._w.any(axis=0)))
        self._Z = self._scores()
        self._largest = 0.0

    @property
    def _selectable(self) -> int:
        """Number of the columns with a penalty: an intercept that has one is the last."""
        return len(self._center) - (self._penalty.intercept != "penalized")

    @property
    def support(self) -> int:
        """Number of coefficients other than 0."""
        return int(np.count_nonzero(self._w[:, :-1]))

    def uncentered(self) -> Array:
        """Return coefficients and the intercepts of the columns as they are, which sum to 0 for several classes."""
        w = self._w.copy()
        w[:, -1] -= self._w @ self._center
        if len(w) > 1:
            w[:, -1] -= w[:, -1].mean()
        return w

    def certificate(self) -> tuple[float, float, Array]:
        """Return objective, gap and feasible dual variables; keep the gradient for the next round."""
        self._Z = self._scores()
        losses, penalty, Z = self._losses, self._penalty, self._Z
        objective = losses.total(Z) + penalty.value(self._w)
        A = losses.derivatives(Z)
        factors = np.ones(Z.shape[1])
        if penalty.intercept == "free":
            factors = losses.balance(A)
        V = self._rows.combine(factors * A)
        if penalty.intercept == "free":
            V -= V[:, -1:] * self._center
            V[:, self._used] = (factors * A) @ self._copies.T  # without the rounding errors of columns far from 0
        self._gradient = V
        some = V[:, : self._selectable]
        size, l1 = np.abs(some), self._l1[: self._selectable]
        scale = 1 / max(1.0, float((size / l1).max(initial=0.0)))
        dual, below = factors * scale, -losses.conjugate(Z, A, factors * scale)
        if penalty.l2 > 0 and scale < 1:
            # Here the conditions are soft.
            excess = float(np.sum(np.maximum(size - l1, 0.0) ** 2)) / (2 * penalty.l2)
            other = -losses.conjugate(Z, A, factors) - excess
            if other > below:
                dual, below = factors, other
        return objective, objective - below, dual * A

    def round(self) -> None:
        """Take steps: for all classes together, or for one after the other."""
        sets = [self._working_set(c) for c in range(len(self._w))]
        self._take(np.unique(np.concatenate(sets)))
        size = sum(map(len, sets))
        if size <= _MOST_TOGETHER and self._X.shape[0] * size * size <= _TOGETHER_PRODUCTS:
            self._step(list(range(len(sets))), sets)
        else:
            for c in range(len(sets)):
                self._step([c], sets)
        if len(sets) > 1:
            self._shift()

    def _working_set(self, c: int) -> NDArray[np.intp]:
        """Return the columns with coefficients, and those that ought to get one, if these are not too many."""
        m = self._selectable
        present = self._w[c, :m] != 0
        violation = np.abs(self._gradient[c, :m]) - self._l1[:m]
        violation[present] = -math.inf
        missing = np.flatnonzero(violation > 0)
        count = int(np.count_nonzero(present))
        most = max(_FEWEST, min(count, self._X.shape[0] - count))
        if len(missing) > most:
            missing = missing[np.argpartition(-violation[missing], most - 1)[:most]]
        return np.sort(np.concatenate([np.flatnonzero(present), missing]))

    def _take(self, needed: NDArray[np.intp]) -> None:
        """See to it that there are copies of these columns."""
        new = needed[self._slot[needed] < 0]
        if not len(new):
            return
        if len(self._used) + len(new) > 2 * len(needed) + _FEWEST:
            self._slot[self._used[1:]] = -1
            self._used = self._used[:1]
            new = needed[self._slot[needed] < 0]
        used = len(self._used)
        self._slot[new] = np.arange(used, used + len(new))
        if used + len(new) > len(self._space):
            space = np.empty((2 * (used + len(new)), len(self._X)))
            space[:used] = self._copies
            self._space = space
        self._used = np.concatenate([self._used, new])
        own, center = self._copies[used:], self._center[new, np.newaxis]
        for first in range(0, len(self._X), _COPY_ROWS):
            here = slice(first, first + _COPY_ROWS)
            np.subtract(self._X[here].take(new, axis=1).T, center, out=own[:, here])

    @property
    def _copies(self) -> Array:
        """The columns in use, less their centers, as rows."""
        return self._space[: len(self._used)]

    def _scores(self) -> Array:
        """Return the scores of all rows."""
        scores: Array = self._w[:, self._used] @ self._copies
        return scores

    def _coordinates(self, classes: list[int], sets: list[NDArray[np.intp]]) -> tuple[NDArray[np.intp], ...]:
        """Return columns of coordinates, and where those of each class begin.

        Free intercepts come last in each class; of those of all classes one can be left as it is.
        """
        free = self._penalty.intercept == "free"
        parts = []
        for place, c in enumerate(classes):
            moving = free and (len(classes) == 1 or place < len(classes) - 1)
            parts.append(np.append(sets[c], self._used[:moving]))
        return np.concatenate(parts), np.cumsum([0, *map(len, parts)])

    def _step(self, classes: list[int], sets: list[NDArray[np.intp]]) -> None:
        """Take a Newton step for some classes, one or all, if that helps."""
        losses = self._losses
        columns, bounds = self._coordinates(classes, sets)
        if not len(columns):
            return
        place = np.repeat(np.arange(len(classes)), np.diff(bounds))
        slots, row = self._slot[columns], np.array(classes)[place]
        l1 = np.where(np.isfinite(self._l1[columns]), self._l1[columns], 0.0)
        l2 = np.where(columns < self._X.shape[1], self._penalty.l2, 0.0)
        Z, w = self._Z[classes], self._w[row, columns]
        rest = losses.rest(self._Z, classes[0]) if len(classes) == 1 else None

        def loss(Z: Array) -> float:
            return losses.value(Z[0], classes[0], rest) if len(classes) == 1 else losses.total(Z)

        def penalty(v: Array) -> float:
            return float(np.abs(v) @ l1 + 0.5 * (l2 @ v**2))

        if len(classes) == 1:
            a, h = losses.slopes(Z[0], classes[0], rest)
            A, curvature = a[np.newaxis], Curvature(h[np.newaxis], None)
        else:
            A, curvature = losses.derivatives(Z), losses.curvature(Z)
        gradient = (self._copies @ A.T)[slots, place] + l2 * w
        worst = float(np.where(w != 0, np.abs(gradient + np.sign(w) * l1), np.abs(gradient) - l1).max())
        self._largest = max(self._largest, worst)
        goal = worst * min(max(worst / self._largest, _PRECISION[0]), _PRECISION[1])
        if len(columns) > _MOST_COLUMNS * Z.shape[1] and len(classes) == 1:
            x = self._minimum_by_rows(slots, curvature.own[0], w, gradient, l1, l2, goal)
        else:
            x = self._minimum_by_products(slots, bounds, curvature, w, gradient, l1, l2, goal)
        change = x - w
        full = np.zeros((len(classes), len(self._used)))
        full[place, slots] = change
        direction = full @ self._copies
        before, base = loss(Z), penalty(w)
        # Where signs stay, gradient and penalty all but cancel, and their sum is all that says whether there is a gain.
        staying = np.where(w * x > 0, gradient + np.sign(w) * l1, gradient) * change
        promised = float(np.sum(np.where(w * x > 0, staying, staying + l1 * (np.abs(x) - np.abs(w)))))
        noise = 4 * float(np.finfo(np.float64).eps) * (abs(before) + base)
        if not (promised < 0 and math.isfinite(promised)):
            return
        t = 1.0
        for _ in range(_HALVINGS):
            new = x if t == 1 else w + t * change
            fall = loss(Z + t * direction) - before + (penalty(new) - base)
            if fall <= _DECREASE * t * promised + noise:
                self._w[row, columns] = new
                self._Z[classes] = Z + t * direction
                return
            t /= 2

    def _minimum_by_rows(
        self, slots: NDArray[np.intp], h: Array, w: Array, gradient: Array, l1: Array, l2: Array, goal: float
    ) -> Array:
        """Return the coefficients of one class that minimize the quadratic and the penalty, without products."""
        x, n, m = w.copy(), self._copies.shape[1], len(slots)
        Z = self._copies[slots]
        Z *= np.sqrt(h)
        curvature = np.einsum("ij,ij->i", Z, Z)
        ridge = l2 + _RIDGE * curvature + np.finfo(np.float64).tiny
        residual = np.zeros(n)
        sweeps = max(1, min(_SWEEPS, _CALL_PRODUCTS // (2 * m * n)))
        for _ in range(_ATTEMPTS):
            left = coordinates.descend_rows(Z, curvature + ridge, ridge, l1, x, w, gradient, residual, sweeps, goal)
            if left <= goal:
                break
        return x

    def _minimum_by_products(
        self,
        slots: NDArray[np.intp],
        bounds: NDArray[np.intp],
        curvature: Curvature,
        w: Array,
        gradient: Array,
        l1: Array,
        l2: Array,
        goal: float,
    ) -> Array:
        """Return the coefficients that minimize the quadratic and the penalty, by products of columns."""
        x, gradient, m = w.copy(), gradient.copy(), len(slots)
        H = self._products(slots, bounds, curvature)
        H.flat[:: m + 1] += l2 + _RIDGE * H.diagonal() + np.finfo(np.float64).tiny
        sweeps = max(1, min(_SWEEPS, _CALL_PRODUCTS // (m * m)))
        for _ in range(_ATTEMPTS):
            left = coordinates.descend_products(H, l1, x, gradient, sweeps, goal)
            if left <= goal:
                break
            _solve_for_support(H, l1, x, gradient)
        return x

    def _products(self, slots: NDArray[np.intp], bounds: NDArray[np.intp], curvature: Curvature) -> Array:
        """Return the matrix of the quadratic; slab by slab, so that threads do not matter."""
        n, m = self._copies.shape[1], len(slots)
        slabs = max(1, min(_SLABS, n // _SLAB_ROWS, _SLAB_BYTES // (8 * m * m)))
        per_slab = -(-n // slabs)
        parts = np.zeros((slabs, m, m))
        roots, blocks = np.sqrt(curvature.own), [slice(*pair) for pair in itertools.pairwise(bounds.tolist())]

        def work(slab: int) -> None:
            part, last = parts[slab], min(n, (slab + 1) * per_slab)
            for first in range(slab * per_slab, last, _BLOCK_ROWS):
                here = slice(first, min(last, first + _BLOCK_ROWS))
                columns = self._copies[slots, here]
                if curvature.shared is not None:
                    shared = columns * np.repeat(curvature.shared[:, here], np.diff(bounds), axis=0)
                    together = shared @ shared.T
                    for own in blocks:
                        together[own, own] = 0.0
                    part -= together
                for own, root in zip(blocks, roots, strict=True):
                    columns[own] *= root[here]
                    part[own, own] += columns[own] @ columns[own].T

        threads = parallel.resolve(self._n_threads, seconds=n * m * m * _PRODUCT_SECONDS)
        parallel.run(work, slabs, threads)
        products: Array = np.add.reduce(parts)
        return products

    def _shift(self) -> None:
        """Add to each column's coefficients what makes its penalty least: it changes no probability."""
        columns = np.flatnonzero(self._w[:, : self._selectable].any(axis=0))
        w, l1, l2 = np.sort(self._w[:, columns], axis=0), self._l1[columns], self._penalty.l2
        classes = len(w)
        # The derivative of the penalty by a shift grows from piece to piece between two coefficients.
        if l2 > 0:
            below = np.arange(classes + 1)[:, np.newaxis]
            inside = w.mean(axis=0) - l1 * (2 * below - classes) / (classes * l2)
            shift = np.minimum(np.vstack([w, np.full(len(columns), math.inf)]), inside).max(axis=0)
        else:
            shift = np.clip(0.0, w[(classes - 1) // 2], w[classes // 2])
        some = np.abs(shift) > np.finfo(np.float64).eps * np.abs(w).max(axis=0)
        self._w[:, columns[some]] -= shift[some]


def _solve_for_support(H: Array, l1: Array, x: Array, gradient: Array) -> None:
    """Move the coefficients other than 0 to the minimum of their quadratic; those that become 0 on the way stay there.

    A solution is not followed beyond the first coefficient that becomes 0. Where that is close, as where columns depend
    on one another, the others are solved for again.
    """
    for _ in range(_DROPS):
        some = np.flatnonzero((x != 0) | (l1 == 0))
        if not len(some):
            return
        try:
            factor = cho_factor(H[np.ix_(some, some)], lower=True, check_finite=False)
        except LinAlgError:
            return
        step = -cho_solve(factor, gradient[some] + l1[some] * np.sign(x[some]), check_finite=False)
        if not np.isfinite(step).all():
            return
        with np.errstate(divide="ignore", invalid="ignore"):
            until = np.where((x[some] * step < 0) & (l1[some] > 0), -x[some] / step, math.inf)
        t = min(1.0, float(until.min()))
        new = x[some] + t * step
        new[until <= t] = 0.0
        gradient += H[:, some] @ (new - x[some])
        x[some] = new
        if t >= _FAR:
            return
