"""Logistic regression to the optimum of scikit-learn's objective, binary and multinomial."""

from __future__ import annotations

import math
import warnings
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning

from ..solvers.blas import one_blas_thread
from ..solvers.hessians import Factor
from ..solvers.objective import Array, RowObjective, minimize, print_step, rotate_wide_rows
from ..solvers.quasi_newton import Minimizer
from ..utils import parameters
from ..utils.sample_weight import weights_of_classes
from ..utils.validation import unchanged_if_refused
from ._sparse_logistic import chosen_penalty, fit_sparse
from .base import LinearClassifier

__all__ = ["LogisticRegression"]

#: Objectives below this are taken for this where the expected decrease is compared with them: for separable data
#: without penalty the objective falls for ever, and the decrease with it.
_SMALLEST_OBJECTIVE = 1e-6

#: Decreases of so many times what a value may be wrong by are not seen in the difference of two.
_HIDDEN = 4.0

#: Tolerance down to which float32 passes are trusted.
_NARROW_TOL = 1e-5

#: The names by which scikit-learn's `LogisticRegression` is told how to solve.
_SOLVERS = ("lbfgs", "liblinear", "newton-cg", "newton-cholesky", "sag", "saga")


class LogisticRegression(LinearClassifier):
    """Logistic regression, binary or multinomial, with an L2 penalty, an L1 penalty, both or none.

    Minimises scikit-learn's objective, ``sum_i s_i loss_i / sum_i s_i + penalty / (C sum_i s_i)`` with the weights
    s of the rows, over coefficients and intercepts; intercepts are not penalised. The penalty is ``l1_ratio ‖coef_‖₁ +
    (1 - l1_ratio) ‖coef_‖² / 2``. The loss is binary cross-entropy for two classes and softmax cross-entropy for more.

    Parameters
    ----------
    penalty : {"l1", "l2", "elasticnet"} or None, default="deprecated"
        Deprecated, as in scikit-learn, with its warning: `l1_ratio` of 1, 0 or in between says the same, and
        ``C=numpy.inf`` says None.
    C : float, default=1.0
        Inverse strength of the penalty; ``numpy.inf`` means none.
    l1_ratio : float, default=0.0
        Share of the L1 penalty, from 0 to 1. Where it is above 0 coefficients can be exactly 0.
    dual : bool, default=False
        Of no effect: a dual form has the same solution.
    tol : float, default=1e-4
        The fit ends where the largest entry of the gradient is at most `tol`, as in scikit-learn, and the
        objective is expected to fall by at most ``tol ** 2`` of itself. The second is what makes coefficients
        accurate to about `tol` whatever the units of the columns; entries of the gradient for columns with a standard
        deviation above 1 are divided by it. With an L1 penalty the fit ends where `duality_gap_` is at most
        ``tol ** 2`` of the objective (at least 1e-13 of it): a bound, where the other is an expectation.
    fit_intercept : bool, default=True
        Whether to fit intercepts; without, they are 0.
    intercept_scaling : float, default=1
        With ``solver="liblinear"`` the intercept is the coefficient of a column of this value: ``(b /
        intercept_scaling)²`` is added to the square of the norm, or ``|b| / intercept_scaling`` to the L1 norm.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, which multiply those of the rows. "balanced" makes all classes count the same.
    random_state : int, RandomState or None, default=None
        Of no effect: nothing here is random.
    solver : str, default="lbfgs"
        Any of scikit-learn's. "liblinear" means two classes and a penalised intercept; all others are ways to the same
        coefficients.
    max_iter : int, default=100
        Most steps.
    verbose : int, default=0
        Whether to print a line for each step.
    warm_start : bool, default=False
        Whether to start from the coefficients of the last fit.
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
    objective_ : float
        The objective at the end.
    duality_gap_ : float
        How far that is from the minimum at most; with an L1 penalty only.
    n_iter_ : ndarray of shape (1,), int32
        Steps taken.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of shape (D,)
        Names of the columns, where `X` has names that are all strings.

    Warns
    -----
    ConvergenceWarning
        If `max_iter` steps were not enough, or rounding kept the fit from getting as close as `tol` asks.

    Notes
    -----
    How it is solved the shape of the data decides. Steps are Newton's, with the exact Hessian, where that costs
    little. Otherwise they are those of L-BFGS on top of Hessians that are made now and then, of a sample of the
    rows and by class. Rows wider than there are many are rotated into fewer columns first. Columns far from 0 for their
    spread are centred, in the solver and not in memory, if there is an intercept. For large float32 data passes over
    the rows compute in float32, and the last ones in float64.

    With an L1 penalty steps are Newton's on the columns that have coefficients or are to get some, by coordinate
    descent, all classes together unless that is too large; all in float64, on copies of these columns. Among equal
    minima of several classes the one is taken whose intercepts sum to 0.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastml import LogisticRegression
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression(C=0.01).fit(X[:1500], y[:1500])
    >>> round(model.score(X[1500:], y[1500:]), 3)
    0.923
    """

    duality_gap_: float

    def __init__(
        self,
        penalty: str | None = "deprecated",
        *,
        C: float = 1.0,
        l1_ratio: float | None = 0.0,
        dual: bool = False,
        tol: float = 1e-4,
        fit_intercept: bool = True,
        intercept_scaling: float = 1,
        class_weight: Any = None,
        random_state: Any = None,
        solver: str = "lbfgs",
        max_iter: int = 100,
        verbose: int = 0,
        warm_start: bool = False,
        n_jobs: int | None = None,
    ) -> None:
        self.penalty = penalty
        self.C = C
        self.l1_ratio = l1_ratio
        self.dual = dual
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.random_state = random_state
        self.solver = solver
        self.max_iter = max_iter
        self.verbose = verbose
        self.warm_start = warm_start
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
        C, l1_ratio = chosen_penalty(self.penalty, self.l1_ratio, self.C)
        parameters.flag(self.dual, "dual")
        scaling = parameters.number(self.intercept_scaling, "intercept_scaling", least=1e-150, most=1e150)
        parameters.one_of(self.solver, "solver", _SOLVERS)
        tol = parameters.number(self.tol, "tol")
        max_iter = parameters.positive_integer(self.max_iter, "max_iter")
        fit_intercept = parameters.flag(self.fit_intercept, "fit_intercept")
        n_threads = parameters.threads(self.n_jobs)
        rows, codes, weight = self._checked_data(X, y, sample_weight, n_threads)
        n_classes = len(self.classes_)
        if self.solver == "liblinear" and n_classes > 2:
            raise ValueError(
                f"solver is 'liblinear', which is for two classes, and y has {n_classes}; any other solver fits all "
                "classes together, sklearn.multiclass.OneVsRestClassifier one against the rest"
            )
        liblinear = self.solver == "liblinear"
        if liblinear and 0 < l1_ratio < 1:
            raise ValueError(f"l1_ratio is {self.l1_ratio}; with solver='liblinear' it must be 0 or 1")
        factors = weights_of_classes(self.class_weight, self.classes_, codes, weight)
        if (factors != 1).any():
            with np.errstate(over="ignore"):
                weight = factors[codes] if weight is None else weight * factors[codes]
        if l1_ratio > 0:
            scaling = scaling if liblinear else math.inf
            self._fit_sparse(rows, codes, weight, C, l1_ratio, scaling, tol, fit_intercept, max_iter, n_threads)
            return self
        ridge = 1 / scaling**2 if liblinear else 0.0
        narrow, rotation = rotate_wide_rows(rows)
        objective = _Likelihood(narrow, codes, n_classes, weight, C, ridge, tol, fit_intercept, n_threads)
        start = objective.centered(self._start(objective, rows.shape[1], rotation))
        minimizer = Minimizer(objective, start.reshape(1, -1), memory=0 if objective.exact else 15)
        report = print_step if self.verbose else None
        minimize(objective, minimizer, max_iter, report)
        if objective.widen():
            objective.near = False
            minimizer.restart()
            minimize(objective, minimizer, max_iter, report)
        if minimizer.active.size or (minimizer.stalled.any() and not objective.near):
            reason = f"max_iter = {max_iter} steps" if minimizer.active.size else "rounding errors"
            warnings.warn(
                f"LogisticRegression was ended by {reason}, before it came as close to the minimum as tol = {tol:g} "
                f"asks (largest entry of the gradient: {objective.largest(minimizer.gradients).max():.1e})",
                ConvergenceWarning,
                stacklevel=3,  # past the decorator
            )
        if hasattr(self, "duality_gap_"):  # of an earlier fit, with another penalty
            del self.duality_gap_
        V = minimizer.W.reshape(objective.scores, -1)
        coef = V[:, :-1] if rotation is None else V[:, :-1] @ rotation.T
        self.coef_, self.intercept_ = coef.astype(rows.dtype), objective.intercepts(V).astype(rows.dtype)
        self.objective_ = float(minimizer.values[0])
        self.n_iter_ = minimizer.n_iter.astype(np.int32)
        return self

    def _fit_sparse(
        self,
        X: NDArray[Any],
        codes: NDArray[np.intp],
        weight: Array | None,
        C: float,
        l1_ratio: float,
        scaling: float,
        tol: float,
        fit_intercept: bool,
        max_iter: int,
        n_threads: int | None,
    ) -> None:
        """Fit with an L1 penalty, and set the attributes; intercepts are free where `scaling` is infinite."""
        n_classes = len(self.classes_)
        found = fit_sparse(
            X,
            codes,
            n_classes,
            weight,
            float(len(X)) if weight is None else _total(weight),
            C,
            l1_ratio,
            self._last_fit(1 if n_classes == 2 else n_classes, X.shape[1]),
            scaling=scaling,
            tol=tol,
            fit_intercept=fit_intercept,
            max_iter=max_iter,
            n_threads=n_threads,
            verbose=bool(self.verbose),
        )
        if found.gap > found.goal:
            warnings.warn(
                f"LogisticRegression stopped after {found.n_iter} steps (max_iter = {max_iter}) with a duality gap of "
                f"{found.gap:.1e}, where tol = {tol:g} asks for {found.goal:.1e}",
                ConvergenceWarning,
                stacklevel=4,  # past `fit` and its decorator
            )
        self.coef_, self.intercept_ = found.w[:, :-1].astype(X.dtype), found.w[:, -1].astype(X.dtype)
        self.objective_, self.duality_gap_ = found.objective, found.gap
        self.n_iter_ = np.array([found.n_iter], np.int32)

    def _last_fit(self, scores: int, columns: int) -> Array | None:
        """Return coefficients and intercepts of the last fit, where a fit is to start from them."""
        if not (self.warm_start and hasattr(self, "coef_")):
            return None
        if self.coef_.shape != (scores, columns):
            raise ValueError(
                f"coef_ of the last fit has shape {self.coef_.shape}; a warm start needs {scores, columns}"
            )
        intercept = self.intercept_ if self.fit_intercept else np.zeros(scores)
        return np.column_stack([self.coef_, intercept]).astype(np.float64)

    def _start(self, objective: _Likelihood, columns: int, rotation: Array | None) -> Array:
        """Return coefficients and intercepts to start from: no coefficients, and the logarithms of the shares."""
        start = self._last_fit(objective.scores, columns)
        if start is None:
            return objective.without_coefficients()
        if rotation is not None:
            start = np.column_stack([start[:, :-1] @ rotation, start[:, -1]])
        return start if objective.scores == 1 else start - start.mean(axis=0)

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Predict the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.

        Returns
        -------
        ndarray of shape (n, C)
            Columns in the order of `classes_`; rows sum to 1.
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.column_stack([expit(-scores), expit(scores)])
        probabilities: NDArray[Any] = softmax(scores, axis=1)
        return probabilities

    def predict_log_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Predict the logarithm of the probability of each class; it stays finite where the probability is 0.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.

        Returns
        -------
        ndarray of shape (n, C)
            Columns in the order of `classes_`.
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.column_stack([log_expit(-scores), log_expit(scores)])
        logarithms: NDArray[Any] = log_softmax(scores, axis=1)
        return logarithms


def _warn(message: str, category: type[Warning] = UserWarning) -> None:
    warnings.warn(message, category, stacklevel=5)  # past two methods and the decorator


def _total(weight: Array) -> float:
    """Return the sum of weights that have been multiplied by those of classes."""
    with np.errstate(over="ignore"):
        total = float(np.add.reduce(weight))
    if not math.isfinite(total):
        raise ValueError("class_weight has values too large: times sample_weight they cannot be summed in float64")
    return total


class _Likelihood(RowObjective):
    """The penalised mean of cross-entropies.

    Attributes
    ----------
    near : bool
        Whether some point has had a gradient as small as `tol` asks, and a step from it was expected to bring no more
        than `tol` asks for, or than rounding hides. With exact Hessians that step is the last: it squares the error,
        and where classes are separable without penalty Hessians are made of rounding from there on, and promise more
        again. Other steps shrink the error by some factor: coefficients go on to gain digits.
    """

    def __init__(
        self,
        X: NDArray[Any],
        codes: NDArray[np.intp],
        n_classes: int,
        weight: Array | None,
        C: float,
        intercept_ridge: float,
        tol: float,
        fit_intercept: bool,
        n_threads: int | None,
    ) -> None:
        binary = n_classes == 2
        total = float(len(X)) if weight is None else _total(weight)
        penalty = 1 / (C * total) if C * total > 0 else math.inf
        if penalty == math.inf:
            raise ValueError(f"C is {C}; with weights that sum to {total:g} the penalty 1 / (C * sum) exceeds float64")
        self._codes, self._tol = codes, tol
        self._shares = np.full(len(X), 1 / total) if weight is None else weight / total
        one = np.ones(1)
        super().__init__(
            "binary_cross_entropy" if binary else "softmax_cross_entropy",
            X,
            codes.astype(X.dtype) if binary else codes,
            self._shares,
            one,
            one,
            scores=1 if binary else n_classes,
            penalty=penalty * np.append(np.ones(X.shape[1]), intercept_ridge),
            fit_intercept=fit_intercept,
            n_threads=n_threads,
        )
        self._joint: Factor | None = None
        self._units = np.append(np.fmax(self.spread, 1.0), 1.0)
        self.near = False

    def without_coefficients(self) -> Array:
        """Return the best intercepts without coefficients, and coefficients of 0."""
        start = np.zeros((self.scores, len(self.penalty)))
        if self.fit_intercept:
            shares = np.bincount(self._codes, weights=self._shares, minlength=2)
            logarithms = np.log(np.maximum(shares, 1 / (2 * len(self.X))))
            start[:, -1] = logarithms[1] - logarithms[0] if self.scores == 1 else logarithms - logarithms.mean()
        return start

    def converged(self, values: Array, G: Array, decrease: Array, which: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Compare the gradient and the expected decrease with what `tol` asks, float32 with what it can give."""
        tol = self._tol if self.dtype == np.float64 else max(self._tol, _NARROW_TOL)
        asked = tol**2 * np.maximum(values, _SMALLEST_OBJECTIVE)
        flat = self.largest(G) <= tol
        done: NDArray[np.bool_] = flat & ((decrease <= asked) | (self.near and self.exact))
        self.near |= bool((flat & (decrease <= np.maximum(asked, _HIDDEN * self.noise(values)))).all())
        return done & ~self.untouched(G, which)

    def largest(self, G: Array) -> Array:
        """Return the largest entries of gradients, each in proportion to its column's spread where that is above 1."""
        largest: Array = np.abs(G.reshape(len(G), -1, len(self._units)) / self._units).max(axis=(1, 2))
        return largest

    def curvatures(self, k: int) -> Array:
        """Return weight times p (1 - p), of which the slope has one factor."""
        derivatives = np.abs(self.derivatives[k], dtype=np.float64)
        with np.errstate(invalid="ignore"):  # rows of weight 0
            return np.where(derivatives > 0, derivatives * np.maximum(0.0, 1 - derivatives / self._shares), 0.0)

    @property
    def exact(self) -> bool:
        """Whether exact Hessians are cheap; those of several classes are made of all pairs of classes."""
        return super().exact if self.scores == 1 else self._joint_products() <= self._newton_products

    def _joint_products(self) -> float:
        size = self.scores * len(self.penalty)
        return 0.25 * len(self.X) * size**2 + size**3 / 6

    def renew(self, which: NDArray[np.intp]) -> None:
        """Make new Hessians: for few classes and columns that of all coefficients, otherwise by class."""
        if self.scores == 1 or not self.exact:
            super().renew(which)
            return
        with np.errstate(invalid="ignore"):  # rows of weight 0
            P = np.where(self._shares > 0, self.derivatives / self._shares, 0.0)
        P[self._codes, np.arange(len(self.X))] += 1
        self._joint = self.hessians.of_classes(np.clip(P, 0.0, 1.0), self._shares)

    def precondition(self, G: Array, which: NDArray[np.intp]) -> Array:
        """Return the Hessian's inverse times `G`.

        Adding the same to the coefficients of all classes changes no probability. So there is nothing to gain in
        these directions, of which the Hessians of single classes know nothing: they are taken out before and after.
        """
        if self.scores == 1:
            return super().precondition(G, which)
        V = G.reshape(self.scores, -1)
        V = V - V.mean(axis=0)
        with one_blas_thread():
            if self._joint is not None:
                V = self._joint.solve(V.ravel()).reshape(V.shape)
            else:
                V = np.array([self.factors[k].solve(v) for k, v in enumerate(V)])
        V -= V.mean(axis=0)
        return V.reshape(G.shape)
