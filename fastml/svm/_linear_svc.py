"""Linear support vector machines to a stated duality gap."""

from __future__ import annotations

import warnings
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning

from ..linear_model.base import LinearClassifier
from ..solvers.objective import Array, can_rotate
from ..utils import parameters
from ..utils.sample_weight import weights_of_classes
from ..utils.validation import unchanged_if_refused
from ._dual import crammer_singer, solve_dual
from ._primal import solve_primal
from ._problems import Problems, Settings, Solution
from ._sparse import solve_sparse

__all__ = ["LinearSVC"]

#: Factors of losses beyond these are refused: their inverses, or the squares of their sums, would leave float64.
_LEAST_COST, _MOST_COST = 1e-305, 1e150

#: Rows per column up to which the dual of the hinge is solved, and entries of X up to which all are few.
_DUAL_SHARE, _FEW_ENTRIES = 1.5, 1 << 11


class LinearSVC(LinearClassifier):
    """Linear support vector classification with a certificate: the fit ends at a stated duality gap.

    Minimises scikit-learn's objectives. One class against the rest, for each class or for the second of two,
    ``‖w‖² / 2 + C sum_i s_i loss(y_i (w . x_i + b))`` with y = ±1 and the hinge ``max(0, 1 - m)`` or its square; or,
    for all classes together (Crammer and Singer), ``sum_c ‖w_c‖² / 2 + C sum_i s_i max_c (w_c . x_i + [c != y_i] -
    w_yi . x_i)``. With ``penalty="l1"`` the first has ``‖w‖₁`` in place of ``‖w‖² / 2``.

    Parameters
    ----------
    penalty : {"l2", "l1"}, default="l2"
        The penalty. With "l1" coefficients can be exactly 0; the loss must be the squared hinge, and `dual` not True.
        Crammer and Singer's form has the first only.
    loss : {"squared_hinge", "hinge"}, default="squared_hinge"
        The loss; Crammer and Singer's is always the second.
    dual : "auto" or bool, default="auto"
        Which form is solved: the primal by Newton or L-BFGS steps (the hinge through a sequence of smooth ones), or
        the dual by coordinate descent. Both end at the same gap. "auto" solves the primal, but the dual of the hinge
        for up to 1.5 rows per column (and more than 2048 entries), and that of its square for data much wider than
        there are rows; where this does not get there, the other form is tried. Crammer and Singer's form is always
        solved in the dual. With the L1 penalty the primal is, by Newton steps on the columns that have coefficients.
    tol : float, default=1e-4
        The duality gap, as a share of the objective, at which a problem is done.
    C : float, default=1.0
        Inverse strength of the penalty. Times the weights of rows and classes, and summed up, between 1e-305 and 1e150.
    multi_class : {"ovr", "crammer_singer"}, default="ovr"
        What more than two classes mean.
    fit_intercept : bool, default=True
        Whether to fit intercepts; without, they are 0.
    intercept_scaling : float, default=1
        The intercept is the coefficient of a column of this value. So ``(b / intercept_scaling)² / 2`` is added to the
        objective, and ``|b| / intercept_scaling`` with the L1 penalty.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes. One against the rest, the weight of the one applies and the rest weighs 1, as in
        scikit-learn; with two classes, and in Crammer and Singer's form, each row has its class's weight.
    verbose : int, default=0
        Whether to print a line for each step.
    random_state : int, RandomState or None, default=None
        Seed of the order in which the dual's coordinates are taken. The primal needs none.
    max_iter : int, default=1000
        Most steps, or most passes over the coordinates.
    regularize_intercept : bool, default=True
        Whether intercepts are in the objective. If not, they are free; `intercept_scaling` does nothing, and
        `multi_class` must be "ovr" for more than two classes.
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
        Feasible dual variables times the sign of the row. ``coef_`` is ``dual_coef_ @ X``, up to the gap; with the L1
        penalty no entry of that is outside [-1, 1], and it is close to the sign of a coefficient that is not 0.
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
        penalty: Literal["l2", "l1"] = "l2",
        loss: Literal["squared_hinge", "hinge"] = "squared_hinge",
        *,
        dual: Literal["auto"] | bool = "auto",
        tol: float = 1e-4,
        C: float = 1.0,
        multi_class: Literal["ovr", "crammer_singer"] = "ovr",
        fit_intercept: bool = True,
        intercept_scaling: float = 1,
        class_weight: Any = None,
        verbose: int = 0,
        random_state: Any = None,
        max_iter: int = 1000,
        regularize_intercept: bool = True,
        n_jobs: int | None = None,
    ) -> None:
        self.penalty = penalty
        self.loss = loss
        self.dual = dual
        self.tol = tol
        self.C = C
        self.multi_class = multi_class
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.verbose = verbose
        self.random_state = random_state
        self.max_iter = max_iter
        self.regularize_intercept = regularize_intercept
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
        rows, codes, weight = self._checked_data(X, y, sample_weight, settings.n_threads)
        factors = weights_of_classes(self.class_weight, self.classes_, codes, weight)
        cost = _costs(settings.C, weight, factors, codes)
        if self.multi_class == "crammer_singer":
            solution = crammer_singer(rows, codes, cost * factors[codes], len(factors), settings)
        else:
            binary = len(factors) == 2
            # One problem for two classes: the second is the positive one, so it gets number 0.
            problems = Problems(
                rows, 1 - codes if binary else codes, cost,
                factors[1:] if binary else factors, factors[:1] if binary else np.ones(len(factors)), settings,
            )  # fmt: skip
            if self.penalty == "l1":
                solution = solve_sparse(problems)
            else:
                solution = _solve(problems, _forms_to_try(rows, settings) if self.dual == "auto" else [self.dual])
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

    def _settings(self) -> Settings:
        """Check the parameters."""
        parameters.one_of(self.loss, "loss", ("squared_hinge", "hinge"))
        parameters.one_of(self.multi_class, "multi_class", ("ovr", "crammer_singer"))
        parameters.one_of(self.dual, "dual", ("auto", True, False))
        parameters.one_of(self.penalty, "penalty", ("l2", "l1"))
        if self.penalty == "l1" and self.multi_class == "ovr":
            if self.loss == "hinge":
                raise ValueError("loss is 'hinge'; with penalty='l1' it must be 'squared_hinge'")
            if self.dual is True:
                raise ValueError("dual is True; with penalty='l1' it must be False or 'auto'")
        fit_intercept = parameters.flag(self.fit_intercept, "fit_intercept")
        regularized = parameters.flag(self.regularize_intercept, "regularize_intercept")
        free = fit_intercept and not regularized
        if free and self.multi_class == "crammer_singer":
            raise ValueError("regularize_intercept=False needs multi_class='ovr', or fit_intercept=False")
        scaling = parameters.number(self.intercept_scaling, "intercept_scaling", least=1e-150, most=1e150)
        return Settings(
            squared=self.loss == "squared_hinge",
            C=parameters.number(self.C, "C", above=True),
            tol=parameters.number(self.tol, "tol"),
            intercept_scaling=scaling if fit_intercept else 0.0,
            free_intercept=free,
            max_iter=parameters.positive_integer(self.max_iter, "max_iter"),
            verbose=bool(self.verbose),
            random_state=self.random_state,
            n_threads=parameters.threads(self.n_jobs),
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


def _forms_to_try(X: NDArray[Any], s: Settings) -> list[bool]:
    """Return whether to solve the dual, and for data that may be too hard for that what to try next."""
    n, columns = X.shape
    if s.squared:
        return [True, False] if columns > n and not can_rotate(X) else [False]
    if n > _DUAL_SHARE * columns:
        return [False]
    # The smooth hinges lead to a kink slowly. Where that takes no time, they have no order of rows to depend on.
    return [False, True] if X.size <= _FEW_ENTRIES else [True, False]


def _solve(problems: Problems, forms: list[bool]) -> Solution:
    """Solve the first form, and the next ones for problems whose gap is larger than asked."""
    solution = (solve_dual if forms[0] else solve_primal)(problems)
    for in_the_dual in forms[1:]:
        if (solution.gap > solution.goal).any():
            other = (solve_dual if in_the_dual else solve_primal)(problems)
            better = np.flatnonzero(other.gap < solution.gap)
            part = Solution._make([*(values[better] for values in other[:-1]), other.n_iter])
            solution = solution.with_part(better, part)
    return solution
