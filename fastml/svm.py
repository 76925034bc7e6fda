"""Linear support vector machines to a stated duality gap."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from . import _estimators
from ._checks import unchanged_if_refused
from ._linear import (
    Array,
    LinearClassifier,
    RowObjective,
    measured,
    minimise,
    narrow_rows,
    narrows,
    print_step,
    weights_of_classes,
)
from ._quasi_newton import Minimizer
from .kernels.linear.dual import crammer_singer_epoch, hinge_epoch
from .kernels.linear.objective import Pass
from .kernels.runtime import parallel

__all__ = ["LinearSVC"]

#: Relative gap down to which float32 passes are trusted.
_NARROW_GAP = 1e-6

#: Widths of the smooth hinge below this make dual variables of rounding errors.
_LEAST_WIDTH = 1e-7

#: Share of the objective without coefficients that rounding errors may make.
_ROUNDING = 1e-14

#: Factors of losses beyond these are refused: their inverses, or the squares of their sums, would leave float64.
_LEAST_COST, _MOST_COST = 1e-305, 1e150

#: Multiply-adds of one compiled call of coordinate descent.
_CALL_PRODUCTS = 1 << 26

#: Rows per column up to which the dual of the hinge is solved, and entries of X up to which all are few.
_DUAL_SHARE, _FEW_ENTRIES = 1.5, 1 << 11

#: Rows whose scores are made at a time.
_LOSS_ROWS = 4096


class LinearSVC(LinearClassifier):
    """Linear support vector classification with a certificate: the fit ends at a stated duality gap.

    Minimises scikit-learn's objectives. One class against the rest, for each class or for the second of two,
    ``‖w‖² / 2 + C sum_i s_i loss(y_i (w . x_i + b))`` with y = ±1 and the hinge ``max(0, 1 - m)`` or its square; or,
    for all classes together (Crammer and Singer), ``sum_c ‖w_c‖² / 2 + C sum_i s_i max_c (w_c . x_i + [c != y_i] -
    w_yi . x_i)``.

    Parameters
    ----------
    loss : {"squared_hinge", "hinge"}, default="squared_hinge"
        The loss; Crammer and Singer's is always the second.
    dual : "auto" or bool, default="auto"
        Which form is solved: the primal by Newton or L-BFGS steps (the hinge through a sequence of smooth ones), or
        the dual by coordinate descent. Both end at the same gap. "auto" solves the primal, but the dual of the hinge
        for up to 1.5 rows per column (and more than 2048 entries), and that of its square for data much wider than
        there are rows; where this does not get there, the other form is tried. Crammer and Singer's form is always
        solved in the dual.
    tol : float, default=1e-4
        The duality gap, as a share of the objective, at which a problem is done.
    C : float, default=1.0
        Inverse strength of the penalty. Times the weights of rows and classes, and summed up, between 1e-305 and 1e150.
    multi_class : {"ovr", "crammer_singer"}, default="ovr"
        What more than two classes mean.
    fit_intercept : bool, default=True
        Whether to fit intercepts; without, they are 0.
    intercept_scaling : float, default=1.0
        The intercept is the coefficient of a column of this value. So ``(b / intercept_scaling)² / 2`` is added to the
        objective.
    regularize_intercept : bool, default=True
        Whether that is so. If not, intercepts are free; `intercept_scaling` does nothing, and `multi_class` must
        be "ovr" for more than two classes.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes. One against the rest, the weight of the one applies and the rest weighs 1, as in
        scikit-learn; with two classes, and in Crammer and Singer's form, each row has its class's weight.
    verbose : int, default=0
        Whether to print a line for each step.
    random_state : int, RandomState or None, default=None
        Seed of the order in which the dual's coordinates are taken. The primal needs none.
    max_iter : int, default=1000
        Most steps, or most passes over the coordinates.
    n_jobs : int or None, default=None
        Threads. Unlike in scikit-learn None means all that the process may use (see `fastml.kernels`); negative
        numbers count from there, -1 is all, -2 all but one. The result has the same bits for any number.

    Attributes
    ----------
    classes_ : ndarray of shape (C,)
        The labels, sorted.
    coef_ : ndarray of shape (1, D) or (C, D)
        Coefficients, of the dtype of `X`; one row for two classes, of which the second is the positive one.
    intercept_ : ndarray of shape (1,) or (C,)
        Intercepts.
    dual_coef_ : ndarray of shape (1, n) or (C, n), float64
        Feasible dual variables times the sign of the row. ``coef_`` is ``dual_coef_ @ X``, up to the gap.
    objective_ : ndarray of shape (problems,)
        The primal objective of each problem; Crammer and Singer's is one problem.
    duality_gap_ : ndarray of shape (problems,)
        How much larger that is than the dual objective of `dual_coef_`, and so how far from the minimum at most.
    n_iter_ : int
        Steps taken, or passes over the coordinates; the largest of all problems.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of shape (D,)
        Names of the columns, where `X` has names that are all strings.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` was reached before the gap.

    Notes
    -----
    The gap of the primal comes for free. With dual variables taken from the slopes of the losses it is half the
    squared norm of the gradient for the squared hinge; the smooth hinge of width e adds
    ``e sum_i C s_i t_i (1 - t_i)`` for slopes t, so that the width says how close to the hinge's minimum it leads.

    Source: C.-J. Hsieh, K.-W. Chang, C.-J. Lin, S. S. Keerthi and S. Sundararajan, A dual coordinate descent method
    for large-scale linear SVM, ICML 2008.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastml import LinearSVC
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LinearSVC(C=0.01, tol=1e-6).fit(X[:1500] / 16, y[:1500])
    >>> round(model.score(X[1500:] / 16, y[1500:]), 3)
    0.869
    >>> bool((model.duality_gap_ <= 1e-6 * model.objective_).all())
    True
    """

    def __init__(
        self,
        *,
        loss: Literal["squared_hinge", "hinge"] = "squared_hinge",
        dual: Literal["auto"] | bool = "auto",
        tol: float = 1e-4,
        C: float = 1.0,
        multi_class: Literal["ovr", "crammer_singer"] = "ovr",
        fit_intercept: bool = True,
        intercept_scaling: float = 1.0,
        regularize_intercept: bool = True,
        class_weight: Any = None,
        verbose: int = 0,
        random_state: Any = None,
        max_iter: int = 1000,
        n_jobs: int | None = None,
    ) -> None:
        self.loss = loss
        self.dual = dual
        self.tol = tol
        self.C = C
        self.multi_class = multi_class
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.regularize_intercept = regularize_intercept
        self.class_weight = class_weight
        self.verbose = verbose
        self.random_state = random_state
        self.max_iter = max_iter
        self.n_jobs = n_jobs

    @unchanged_if_refused
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit coefficients and intercepts.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite; float32 stays float32, all else becomes float64.
        y : array-like of shape (n,)
            Labels: numbers or strings, of two classes or more.
        sample_weight : array-like of shape (n,), optional
            Weights of the rows, not negative. A weight of 2 counts as the row twice.

        Returns
        -------
        self
        """
        settings = self._settings()
        rows, codes, weight = self._settled(X, y, sample_weight, settings.n_threads)
        factors = weights_of_classes(self.class_weight, self.classes_, codes, weight)
        cost = _costs(settings.C, weight, factors, codes)
        if self.multi_class == "crammer_singer":
            solution = _crammer_singer(rows, codes, cost * factors[codes], len(factors), settings)
        else:
            binary = len(factors) == 2
            # One problem for two classes: the second is the positive one, so it gets number 0.
            problems = _Problems(
                rows, 1 - codes if binary else codes, cost,
                factors[1:] if binary else factors, factors[:1] if binary else np.ones(len(factors)), settings,
            )  # fmt: skip
            solution = _solve(problems, _forms(rows, settings) if self.dual == "auto" else [self.dual])
        if (solution.gap > solution.goal).any():
            shares = solution.gap / np.maximum(solution.objective, np.finfo(np.float64).tiny)
            warnings.warn(
                f"LinearSVC stopped after {solution.n_iter} steps (max_iter = {settings.max_iter}) with duality gaps "
                f"of up to {shares.max():.1e} of the objective, where tol = {settings.tol:g} was asked for",
                ConvergenceWarning,
                stacklevel=3,  # past the decorator
            )
        self.coef_, self.intercept_ = solution.coef.astype(rows.dtype), solution.intercept.astype(rows.dtype)
        self.dual_coef_, self.objective_, self.duality_gap_ = solution.dual_coef, solution.objective, solution.gap
        self.n_iter_ = solution.n_iter
        return self

    def _settings(self) -> _Settings:
        """Check the parameters."""
        _estimators.one_of(self.loss, "loss", ("squared_hinge", "hinge"))
        _estimators.one_of(self.multi_class, "multi_class", ("ovr", "crammer_singer"))
        _estimators.one_of(self.dual, "dual", ("auto", True, False))
        fit_intercept = _estimators.flag(self.fit_intercept, "fit_intercept")
        regularized = _estimators.flag(self.regularize_intercept, "regularize_intercept")
        free = fit_intercept and not regularized
        if free and self.multi_class == "crammer_singer":
            raise ValueError("regularize_intercept=False needs multi_class='ovr', or fit_intercept=False")
        scaling = _estimators.number(self.intercept_scaling, "intercept_scaling", above=True)
        return _Settings(
            squared=self.loss == "squared_hinge",
            C=_estimators.number(self.C, "C", above=True),
            tol=_estimators.number(self.tol, "tol"),
            constant=scaling if fit_intercept else 0.0,
            free=free,
            max_iter=_estimators.positive_integer(self.max_iter, "max_iter"),
            verbose=bool(self.verbose),
            random_state=self.random_state,
            n_threads=_estimators.threads(self.n_jobs),
        )


def _costs(C: float, weight: Array | None, factors: Array, codes: NDArray[np.intp]) -> Array:
    """Return what the losses of the rows are multiplied by, but for the weights of their classes."""
    with np.errstate(over="ignore", under="ignore"):
        cost = np.full(len(codes), C) if weight is None else C * weight
        total = float(np.add.reduce(cost * np.maximum(factors[codes], 1.0)))
    if not _LEAST_COST <= float(cost.max()) <= total <= _MOST_COST:
        raise ValueError(
            f"C is {C}; times the weights of rows and classes, and summed up, it must lie between "
            f"{_LEAST_COST:.0e} and {_MOST_COST:.0e}"
        )
    return cost


def _forms(X: NDArray[Any], s: _Settings) -> list[bool]:
    """Return whether to solve the dual, and for data that may be too hard for that what to try next."""
    n, columns = X.shape
    if s.squared:
        return [True, False] if columns > n and not narrows(X) else [False]
    if n > _DUAL_SHARE * columns:
        return [False]
    # The smooth hinges lead to a kink slowly. Where that takes no time, they have no order of rows to depend on.
    return [False, True] if X.size <= _FEW_ENTRIES else [True, False]


class _Settings(NamedTuple):
    """The checked parameters."""

    squared: bool
    C: float
    tol: float
    constant: float  # value of the column that the intercept belongs to, 0 without intercept
    free: bool  # whether the intercept is not penalised
    max_iter: int
    verbose: bool
    random_state: Any
    n_threads: int | None


class _Solution(NamedTuple):
    """What a solver returns."""

    coef: Array
    intercept: Array
    dual_coef: Array
    objective: Array
    gap: Array
    goal: Array  # what the gap may be
    n_iter: int

    def with_part(self, which: NDArray[np.intp], other: _Solution) -> _Solution:
        """Take some problems from another solution, of these alone."""
        for whole, part in zip(self[:-1], other[:-1], strict=True):
            whole[which] = part
        return self._replace(n_iter=max(self.n_iter, other.n_iter))


class _Problems:
    """One class against the rest, for some classes: rows, who is who, and what a row's loss is multiplied by."""

    def __init__(
        self, X: NDArray[Any], labels: NDArray[np.intp], cost: Array, positive: Array, negative: Array, s: _Settings
    ) -> None:
        self.X, self.labels, self.cost = X, labels, cost
        self.positive, self.negative = positive, negative
        self.settings = s
        self.count = len(positive)
        #: Objectives below this are rounding errors of their terms.
        self.smallest = _ROUNDING * np.array([np.add.reduce(self.costs(k)) for k in range(self.count)])
        #: What is added to the objective for the square of half an intercept.
        self.ridge = 1 / s.constant**2 if s.constant > 0 and not s.free else 0.0

    def with_rows(self, X: NDArray[Any]) -> _Problems:
        """Return the same problems with other rows."""
        return _Problems(X, self.labels, self.cost, self.positive, self.negative, self.settings)

    def signs(self, k: int) -> Array:
        """Return +1 for the rows of a class and -1 for the rest."""
        return np.where(self.labels == k, 1.0, -1.0)

    def costs(self, k: int) -> Array:
        """Return what the losses of a problem's rows are multiplied by."""
        costs: Array = self.cost * np.where(self.labels == k, self.positive[k], self.negative[k])
        return costs

    def losses(self, loss: str, X: NDArray[Any], n_threads: int | None) -> Pass:
        """Return sums of losses over rows."""
        return Pass(loss, X, self.labels, self.cost, self.positive, self.negative, n_threads)

    def dual_objectives(self, rows: Pass, dual: Array, which: NDArray[np.intp]) -> tuple[Array, Array]:
        """Return the dual objectives of some problems, and the sums of `rows` by dual variables.

        `dual` (m, n) holds dual variables times signs. Where intercepts are free these must sum to 0: those of one
        sign are scaled down here until they do.
        """
        if self.settings.free:
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


def _solve(problems: _Problems, forms: list[bool]) -> _Solution:
    """Solve the first form, and the next ones for problems whose gap is larger than asked."""
    solution = (_solve_dual if forms[0] else _solve_primal)(problems)
    for in_the_dual in forms[1:]:
        if (solution.gap > solution.goal).any():
            other = (_solve_dual if in_the_dual else _solve_primal)(problems)
            better = np.flatnonzero(other.gap < solution.gap)
            part = _Solution._make([*(values[better] for values in other[:-1]), other.n_iter])
            solution = solution.with_part(better, part)
    return solution


# ----------------------------------------------------------------------------------------- primal


def _solve_primal(problems: _Problems) -> _Solution:
    """Solve the primal: the squared hinge as it is, the hinge through smooth ones of ever smaller width."""
    s, which = problems.settings, np.arange(problems.count)
    narrow, rotation = narrow_rows(problems.X)
    objective = _Margins(problems, narrow)
    start = np.zeros((problems.count, narrow.shape[1] + 1))
    minimizer = Minimizer(objective, start, memory=0 if objective.exact else 15)
    report = print_step if s.verbose else None
    while True:
        minimise(objective, minimizer, s.max_iter, report)
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
    dual = -objective.slopes.astype(np.float64)
    below, _ = problems.dual_objectives(objective.rows, dual, which)
    primal = problems.primal_objectives(w, b, which, s.n_threads)
    goal = s.tol * np.maximum(primal, problems.smallest)
    solution = _Solution(w, b, dual, primal, primal - below, goal, int(minimizer.n_iter.max()))
    rough = which[solution.gap > solution.goal]
    if minimizer.rounds >= s.max_iter or not rough.size:
        return solution
    # Rounding is not in the way of coordinate descent, which has not far to go from here.
    return solution.with_part(rough, _descend(problems, rough, solution))


class _Margins(RowObjective):
    """Squared or smooth hinges of the problems' margins.

    Attributes
    ----------
    final : ndarray of bool, shape (problems,)
        Problems with a gap as small as asked.
    """

    def __init__(self, problems: _Problems, X: NDArray[Any]) -> None:
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
            fit_intercept=s.constant > 0,
            n_threads=s.n_threads,
        )
        self._costs = [problems.costs(k) for k in range(problems.count)]
        self.parameter[:] = 1.0
        self.final = np.zeros(problems.count, np.bool_)
        self._excess, self._goal = np.zeros(problems.count), np.zeros(problems.count)

    def curvatures(self, k: int) -> Array:
        """Return the second derivatives: where the loss is a parabola, that of the parabola."""
        slopes, costs = np.abs(self.slopes[k], dtype=np.float64), self._costs[k]
        if self._settings.squared:
            return np.where(slopes > 0, 2 * costs, 0.0)
        bent = (slopes > 0) & (slopes < costs * (1 - 4 * np.finfo(self.dtype).eps))
        return np.where(bent, costs / self.parameter[k], 0.0)

    def converged(self, values: Array, G: Array, decrease: Array, which: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Say which problems have the gap that is asked for, or none that this width can take away."""
        tol = self._settings.tol if self.dtype == np.float64 else max(self._settings.tol, _NARROW_GAP)
        primal, excess = values.copy(), np.zeros(len(which))
        if not self._settings.squared:
            for row, k in enumerate(which.tolist()):
                slopes, costs = np.abs(self.slopes[k], dtype=np.float64), self._costs[k]
                share = np.divide(slopes, costs, out=np.zeros_like(slopes), where=costs > 0)
                primal[row] += self.parameter[k] * (slopes * (1 - 0.5 * share)).sum()
                excess[row] = self.parameter[k] * (slopes * np.maximum(0.0, 1 - share)).sum()
        goal = tol * np.maximum(primal, self._problems.smallest[which])
        gap = self._gaps(primal, excess, G, decrease <= goal, which)
        self._excess[which], self._goal[which] = excess, goal
        self.final[which] = (gap <= goal) & ~self.untouched(G, which)
        return self.final[which] | ((excess > 0.5 * goal) & (decrease <= 0.3 * excess))

    def _gaps(self, primal: Array, excess: Array, G: Array, near: NDArray[np.bool_], which: NDArray[np.intp]) -> Array:
        """Return duality gaps: those of free intercepts take a pass, which is made for problems that are near."""
        if not self._settings.free:
            penalty = self.penalty if self.fit_intercept else np.ones_like(self.penalty)
            gap: Array = 0.5 * np.einsum("ij,ij,j->i", G, G, 1 / penalty) + excess
            return gap
        gap = np.full(len(which), np.inf)
        if near.any():
            dual = -self.slopes[which[near]].astype(np.float64)
            gap[near] = primal[near] - self._problems.dual_objectives(self.rows, dual, which[near])[0]
        return gap

    def sharpen(self, which: NDArray[np.intp]) -> None:
        """Take narrower widths for some problems: such that the gap they leave is a third of the goal, in steps."""
        with np.errstate(divide="ignore"):
            self.parameter[which] *= np.clip(0.3 * self._goal[which] / self._excess[which], 0.1, 0.5)


# ------------------------------------------------------------------------------------------- dual


def _solve_dual(problems: _Problems) -> _Solution:
    """Solve the duals by coordinate descent."""
    return _descend(problems, np.arange(problems.count), None)


def _descend(problems: _Problems, which: NDArray[np.intp], start: _Solution | None) -> _Solution:
    """Descend the duals of some problems side by side, from zeros or from a solution of all problems."""
    s, n = problems.settings, len(problems.X)
    centre = np.zeros(problems.X.shape[1])
    if s.free:
        mean, spread = measured(problems.X, problems.cost)
        if (np.abs(mean) > spread).any():
            # Rows far from 0 are much alike, and the descent would take small steps: it gets copies that are not.
            centre, problems = mean, problems.with_rows(problems.X - mean)
    constant, norms = s.constant, _squared_norms(problems.X)
    if s.free:
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
            solver.start(start.dual_coef[k], float(start.intercept[k] + start.coef[k] @ centre))
    parallel.run(lambda place: solvers[place].run(), len(solvers), parallel.resolve(s.n_threads))
    return _Solution(
        np.array([solver.w for solver in solvers]),
        np.array([solver.b - float(solver.w @ centre) for solver in solvers]),
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

    def __init__(self, problems: _Problems, k: int, constant: float, norms: Array, seed: int) -> None:
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
        self._moving[-1] = intercept / self._constant if problems.settings.free else 0.0
        self._is_done()

    def run(self) -> Iterator[None]:
        """Descend until the gap is small; yield now and then, so that it can be stopped."""
        s, X = self._problems.settings, self._problems.X
        n, columns = X.shape
        step = max(1, _CALL_PRODUCTS // (2 * columns + 2))
        moving = self._moving
        active, extremes = np.ones(n, np.bool_), np.zeros(2)
        margins, check = (-math.inf, math.inf), 5
        while self.epochs < s.max_iter:
            order = self._random.permutation(np.flatnonzero(active))
            extremes[:] = 0.0
            for first in range(0, len(order), step):
                hinge_epoch(
                    X, self._signs, order[first : first + step], self._norms, self._upper, self._ridge, self._constant,
                    margins, self._alpha, moving, active, extremes,
                )  # fmt: skip
                yield
            self.epochs += 1
            margins = (extremes[0] if extremes[0] < 0 else -math.inf, extremes[1] if extremes[1] > 0 else math.inf)
            if s.free:
                drift = self._constant * float(self._alpha @ self._signs)
                if extremes[1] - extremes[0] <= abs(drift) * self._constant:
                    moving[-1] += drift
            if self.epochs >= check or not active.any() or self.epochs == s.max_iter:
                if self._is_done():
                    return
                active[:], margins = True, (-math.inf, math.inf)
                check = self.epochs + max(5, self.epochs // 3)
                yield

    def _is_done(self) -> bool:
        """Compute the gap, keep the solution if it is the best so far, and put rounding errors of `_moving` right."""
        moving, problems, which = self._moving, self._problems, np.array([self._k])
        s = problems.settings
        dual = (self._alpha * self._signs)[np.newaxis]
        rows = problems.losses("hinge", problems.X, 1)
        below, sums = problems.dual_objectives(rows, dual, which)
        w = sums[:, :-1]
        b = np.array([self._constant * (moving[-1] if s.free else self._constant * sums[0, -1])])
        primal = problems.primal_objectives(w, b, which, 1)
        gap = float(primal[0] - below[0])
        if gap < self.gap:
            self.w, self.b, self.dual = w[0], float(b[0]), dual[0]
            self.objective, self.gap = float(primal[0]), gap
        if not s.free:
            moving[:-1], moving[-1] = w[0], self._constant * sums[0, -1]
        if s.verbose:
            print(f"class {self._k}, epoch {self.epochs}: objective {primal[0]:.10g}, gap {gap:.1e}")
        self.goal = s.tol * max(self.objective, float(problems.smallest[self._k]))
        return self.gap <= self.goal


def _squared_norms(X: NDArray[Any]) -> Array:
    norms: Array = np.einsum("ij,ij->i", X, X, dtype=np.float64)
    return norms


def _multiclass_hinge(X: NDArray[Any], codes: NDArray[np.intp], cost: Array, W: Array, b: Array) -> float:
    """Return the weighted sum of Crammer and Singer's losses, some rows at a time."""
    total = 0.0
    for first in range(0, len(X), _LOSS_ROWS):
        here = slice(first, first + _LOSS_ROWS)
        slack = X[here] @ W.T + b + 1.0
        true = slack[np.arange(len(slack)), codes[here]][:, np.newaxis] - 1.0
        slack -= true
        np.put_along_axis(slack, codes[here, np.newaxis], 0.0, axis=1)
        total += float(np.add.reduce(cost[here] * slack.max(axis=1)))
    return total


def _crammer_singer(X: NDArray[Any], codes: NDArray[np.intp], cost: Array, n_classes: int, s: _Settings) -> _Solution:
    """Solve Crammer and Singer's dual by coordinate descent, a row's variables at a time."""
    n, columns = X.shape
    norms = _squared_norms(X) + s.constant**2
    random = np.random.default_rng(check_random_state(s.random_state).randint(np.iinfo(np.int32).max))
    alpha, W = np.zeros((n, n_classes)), np.zeros((n_classes, columns + 1))
    step = max(1, _CALL_PRODUCTS // (2 * n_classes * (columns + 1)))
    ones = np.ones(1)
    combined = Pass("hinge", X, codes, None, ones, ones, s.n_threads)
    best: _Solution | None = None
    check, epoch = 5, 0
    while epoch < s.max_iter:
        order = random.permutation(n)
        worst = 0.0
        for first in range(0, n, step):
            some = order[first : first + step]
            worst = max(worst, crammer_singer_epoch(X, codes, some, norms, cost, s.constant, alpha, W))
        epoch += 1
        if epoch < check and worst > 0 and epoch < s.max_iter:
            continue
        check = epoch + max(5, epoch // 3)
        sums = combined.combine(np.ascontiguousarray(alpha.T))
        W[:, :-1], W[:, -1] = sums[:, :-1], s.constant * sums[:, -1]
        half_norms = 0.5 * float(np.einsum("ij,ij->", W, W))
        objective = half_norms + _multiclass_hinge(X, codes, cost, W[:, :-1], s.constant * W[:, -1])
        goal = s.tol * max(objective, _ROUNDING * float(np.add.reduce(cost)))
        below = -half_norms - float(alpha.sum() - alpha[np.arange(n), codes].sum())
        if best is None or objective - below < best.gap[0]:
            best = _Solution(
                W[:, :-1].copy(), s.constant * W[:, -1], alpha.T.copy(), np.array([objective]),
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
