"""Objectives on rows, as linear models give them to the minimizer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..utils.lazy import lazy_module
from .blas import one_blas_thread
from .hessians import Factor, Hessians, sample_rows
from .quasi_newton import Minimizer

if TYPE_CHECKING:
    from ..kernels.linear import objective as kernel_objective
else:
    kernel_objective = lazy_module("fastml.kernels.linear.objective")

__all__ = ["RowObjective", "can_rotate", "mean_and_spread", "minimize", "rotate_wide_rows"]

Array = NDArray[np.float64]

_FLOAT64 = np.dtype(np.float64)

#: Entries of float32 data up to which all is computed in float64: it costs nothing there.
_SMALL = 1 << 21

# Costs are counted in multiply-adds.

#: A pass over the rows: at least this many per entry, because it waits for memory; and the interpreter's share.
_PASS_PRODUCTS = 8
_STEP_PRODUCTS = 4e7

#: Exact Hessians are made for every step where they cost no more than this many passes, or than this in all.
_NEWTON_PASSES = 2
_NEWTON_PRODUCTS = 3e8

#: Rows of a sampled Hessian per column, at least; Hessians that cost more than this many passes are not made.
_ROWS_PER_COLUMN = 12
_MOST_PASSES = 200

#: Rows that columns are measured on, and how many times their spread they may be away from 0 without being centred.
_MEASURED_ROWS, _FAR = 1024, 1e3

#: Sizes of columns that differ by more than this factor are not mixed.
_MIXED = 1e8

#: Gradients below this share of what they are sums of are rounding errors.
_ROUNDING = 1e-12

#: A change to fewer columns may cost this much.
_ROTATION_PRODUCTS = 2e10

#: Where the expected decrease falls by this factor in a step, the Hessian is good enough.
_GOOD = 0.02


def can_rotate(X: NDArray[Any]) -> bool:
    """Say whether `rotate_wide_rows` turns these rows: where they are wide, and the price is small."""
    n, columns = X.shape
    if columns <= n or columns * n * n > _ROTATION_PRODUCTS:
        return False
    mean, spread = mean_and_spread(X, None)
    size = np.abs(mean) + spread
    return bool(size.max() <= _MIXED * size[size > 0].min(initial=np.inf))


def rotate_wide_rows(X: NDArray[Any]) -> tuple[NDArray[Any], Array | None]:
    """Turn wide rows into rows with as many columns as there are rows, by a rotation that is returned.

    The coefficients of a minimum lie in the space that the rows span: with ``X = Z @ Q.T`` those of `X` are
    ``Q @ v`` for coefficients v of Z, and have the same norm. None stands for no rotation. Columns of units that
    differ by far are left alone: the small ones would drown in the rounding errors of the large ones.
    """
    if not can_rotate(X):
        return X, None
    with one_blas_thread():
        Q, R = np.linalg.qr(X.T.astype(np.float64))
    return np.ascontiguousarray(R.T), Q


class RowObjective(ABC):
    """Penalised sums of losses over rows, as `Minimizer` takes them; models derive theirs from it.

    There are `problems` independent problems with `scores` scores each; one of the two numbers is 1. What stands
    for a score is called a class.

    Where columns are far from 0 for their spread and intercepts are free, what is minimised are coefficients of
    centred columns: the same, but for the intercept. The rows stay where they are, and the intercept is moved instead.

    Parameters
    ----------
    loss, X, target, weight, positive, negative, n_threads
        As `LossPass` takes them.
    problems, scores : int
        How the scores make problems.
    penalty : ndarray of shape (D + 1,)
        Half of this times the square of a coefficient is added, the intercept's last.
    fit_intercept : bool
        Whether there is an intercept; it stays 0 otherwise.

    Attributes
    ----------
    dtype : dtype
        What passes compute in; `widen` makes it float64.
    derivatives : ndarray of shape (classes, n)
        Derivatives of the weighted losses by the scores where a problem was evaluated last.
    spread : ndarray of shape (D,)
        Standard deviations of the columns, roughly.
    factors : dict
        The factorised Hessian of each class.
    """

    def __init__(
        self,
        loss: str,
        X: NDArray[Any],
        target: NDArray[Any],
        weight: Array | None,
        positive: Array,
        negative: Array,
        *,
        problems: int = 1,
        scores: int = 1,
        penalty: Array,
        fit_intercept: bool,
        n_threads: int | None,
    ) -> None:
        self.X = X
        mean, self.spread = mean_and_spread(X, weight)
        if not np.isfinite(self.spread).all():
            raise ValueError("X has values too large: their squares cannot be summed in float64")
        self._size = np.abs(mean) + self.spread
        # Of a column that does not vary nothing is known but how much it adds to the score.
        far = np.abs(mean) > _FAR * np.where(self.spread > _ROUNDING * np.abs(mean), self.spread, 1.0)
        self._center = mean if fit_intercept and penalty[-1] == 0 and far.any() else None
        self._rough = np.zeros(problems * scores)
        self._empty = np.zeros(problems, np.bool_)
        self.dtype = _FLOAT64 if X.size <= _SMALL or self._center is not None else X.dtype
        self.problems, self.scores = problems, scores
        self.fit_intercept = fit_intercept
        self.penalty = penalty
        self.parameter = np.zeros(problems)
        self.rows = kernel_objective.LossPass(loss, X, target, weight, positive, negative, n_threads)
        self.hessians = Hessians(X, penalty, fit_intercept, self.dtype, n_threads, self._center)
        self.factors: dict[int, Factor] = {}
        self.derivatives = np.empty((problems * scores, len(X)), self.dtype)

    # -- for Minimizer

    def evaluate(self, W: Array, which: NDArray[np.intp]) -> tuple[Array, Array]:
        """Return values and gradients."""
        V, classes = W.reshape(-1, self.X.shape[1] + 1), self._classes(which)
        values, G = self.rows(
            V[:, :-1],
            self.intercepts(V),
            which=classes,
            dtype=self.dtype,
            parameter=self.parameter,
            score_gradient=self.derivatives,
        )
        if not self.fit_intercept:
            G[:, -1] = 0.0
        if self._center is not None:
            G[:, :-1] -= G[:, -1:] * self._center
            pull = np.abs(self.derivatives[classes]).sum(axis=1)
            self._rough[classes] = pull * np.einsum("ij,j->i", np.abs(V[:, :-1]), np.abs(self._center))
        self._empty[which] = ~W.reshape(len(W), -1, V.shape[1])[:, :, :-1].any(axis=(1, 2))
        values = values + 0.5 * np.einsum("ij,j,ij->i", V, self.penalty, V)
        return values.reshape(len(W), -1).sum(axis=1), (G + self.penalty * V).reshape(W.shape)

    def rounded(self, W: Array) -> Array:
        """Return the points that the passes see."""
        return W if self.dtype == _FLOAT64 else W.astype(self.dtype).astype(_FLOAT64)

    def noise(self, values: Array) -> Array:
        """Return how far values may be wrong by rounding: some units in the last place, and what scores have lost."""
        eps = float(np.finfo(self.dtype).eps)
        noise: Array = (4 * eps if self.dtype == _FLOAT64 else eps) * (np.abs(values) + self._rough.max())
        return noise

    def precondition(self, G: Array, which: NDArray[np.intp]) -> Array:
        """Return the Hessians' inverses times `G`."""
        with one_blas_thread():
            return np.array([self.factors[problem].solve(g) for problem, g in zip(which.tolist(), G, strict=True)])

    @abstractmethod
    def converged(self, values: Array, G: Array, decrease: Array, which: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Say which problems are done."""

    # -- for models

    def intercepts(self, V: Array) -> Array:
        """Return the intercepts of the columns as they are, from coefficients and intercepts (m, D + 1) in use here."""
        return V[:, -1] if self._center is None else V[:, -1] - np.einsum("ij,j->i", V[:, :-1], self._center)

    def centered(self, V: Array) -> Array:
        """Return coefficients and intercepts (m, D + 1) in use here, from those of the columns as they are."""
        if self._center is not None:
            V = V.copy()
            V[:, -1] += np.einsum("ij,j->i", V[:, :-1], self._center)
        return V

    def untouched(self, G: Array, which: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Say which problems have no coefficients although the gradient has some for them.

        However little there is to gain, with a penalty that allows next to none, coefficients of 0 predict nothing.
        """
        some: NDArray[np.bool_] = self._empty[which]
        if some.any():
            pull = np.abs(self.derivatives).sum(axis=1).max()
            G = G.reshape(len(G), -1, len(self.penalty))[:, :, :-1]
            some = some & (np.abs(G) > _ROUNDING * pull * self._size).any(axis=(1, 2))
        return some

    @abstractmethod
    def curvatures(self, k: int) -> Array:
        """Return the second derivatives of the losses of a class by its scores, made of the first."""

    def widen(self) -> bool:
        """Go on in float64; say whether that is new."""
        if self.dtype == _FLOAT64:
            return False
        self.dtype = _FLOAT64
        self.derivatives = self.derivatives.astype(_FLOAT64)
        return True

    @property
    def pass_products(self) -> float:
        """What a pass costs."""
        return _STEP_PRODUCTS + float(self.X.size) * max(2 * len(self.derivatives), _PASS_PRODUCTS)

    @property
    def sample_size(self) -> int:
        """Rows of a Hessian: enough for a good one, and as many as cost one pass."""
        size = len(self.penalty)
        return int(max(_ROWS_PER_COLUMN * size, 2 * self.pass_products / (len(self.derivatives) * size**2)))

    def hessian_products(self, rows: int) -> float:
        """Return what the Hessians of all classes cost."""
        size = len(self.penalty)
        return len(self.derivatives) * (0.5 * min(rows, len(self.X)) * size**2 + size**3 / 6)

    @property
    def exact(self) -> bool:
        """Whether Hessians are exact and made for every step: Newton's method."""
        return self.hessian_products(len(self.X)) <= self._newton_products

    @property
    def _newton_products(self) -> float:
        return max(_NEWTON_PASSES * self.pass_products, _NEWTON_PRODUCTS)

    def renew(self, which: NDArray[np.intp]) -> None:
        """Make new Hessians: one per class, or one for all classes, or diagonals, as the cost allows."""
        classes = self._classes(which).tolist()
        size = len(self.X) if self.exact else self.sample_size
        passes = self.hessian_products(size) / self.pass_products
        if self.exact or passes <= _MOST_PASSES:
            for k in classes:
                self.factors[k] = self.hessians.of_class(*sample_rows(self.curvatures(k), size))
            return
        mean: Array = np.add.reduce([self.curvatures(k) for k in classes]) / len(classes)
        if passes <= _MOST_PASSES * len(classes):
            shared = self.hessians.of_class(*sample_rows(mean, size))
        else:
            shared = self.hessians.diagonal(*sample_rows(mean, max(1, _SMALL // self.X.shape[1])))
        self.factors.update(dict.fromkeys(classes, shared))

    def _classes(self, which: NDArray[np.intp]) -> NDArray[np.intp]:
        return np.arange(self.scores) if self.scores > 1 else which


def mean_and_spread(X: NDArray[Any], weight: Array | None) -> tuple[Array, Array]:
    """Return means and standard deviations of the columns, from some of the rows that count."""
    rows = np.arange(len(X)) if weight is None else np.flatnonzero(weight)
    rows = rows[:: -(-len(rows) // _MEASURED_ROWS)]
    some = X[rows].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # of values too large the second is not finite
        mean = some.mean(axis=0)
        some -= mean
        return mean, np.sqrt(np.einsum("ij,ij->j", some, some) / len(some))


class _Schedule:
    """Decides when a Hessian is made anew: often where that costs little, and while steps still go far."""

    def __init__(self, objective: RowObjective, first: int) -> None:
        self._always = objective.exact
        passes = objective.hessian_products(objective.sample_size) / objective.pass_products
        self._interval = max(1.0, min(20.0, math.sqrt(passes)))
        self._next = float(first)
        self._decrease = math.inf

    def due(self, step: int, decrease: float) -> bool:
        """Say whether to renew before this step, `decrease` being what the last one was expected to bring."""
        good = decrease < _GOOD * self._decrease
        self._decrease = decrease
        if not self._always and (step < self._next or good):
            return False
        self._next = step + self._interval
        self._interval *= 1.5
        return True


def minimize(
    objective: RowObjective,
    minimizer: Minimizer,
    max_iter: int,
    report: Callable[[Minimizer, float], None] | None = None,
) -> None:
    """Take steps until every problem is done, or stalled, or has had its `max_iter`."""
    schedule = _Schedule(objective, minimizer.rounds)
    decrease = math.inf
    while minimizer.active.size and minimizer.rounds < max_iter:
        if schedule.due(minimizer.rounds, decrease):
            objective.renew(minimizer.active)
            minimizer.revise()
        decrease = float(np.max(minimizer.step()))
        if report is not None:
            report(minimizer, decrease)


def print_step(minimizer: Minimizer, decrease: float) -> None:
    """Print a line about a step."""
    total, left = minimizer.values.sum(), len(minimizer.active)
    print(f"step {minimizer.rounds}: objective {total:.10g}, expected to fall by {decrease:.1e}, {left} problems left")
