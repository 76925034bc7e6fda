"""Linear regression by least squares, plain and with a ridge, in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from ..solvers.blas import one_blas_thread
from ..utils import parameters
from ..utils.lazy import lazy_module
from ..utils.sample_weight import checked_weight_with_sum
from ..utils.validation import CheckedScore, check_finite, unchanged_if_refused, validate_data
from ._orthogonal import Reduced, reduce_rows
from ._solutions import not_below_zero, solve

if TYPE_CHECKING:
    from ..kernels.linear import scores as linear_scores
else:
    linear_scores = lazy_module("fastml.kernels.linear.scores")

__all__ = ["LinearRegression", "Ridge"]

Array = NDArray[np.float64]


#: The names by which scikit-learn's `Ridge` is told how to solve.
_RIDGE_SOLVERS = ("auto", "svd", "cholesky", "lsqr", "sparse_cg", "sag", "saga", "lbfgs")


class _LeastSquares(CheckedScore, MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Rows, targets and predictions of models by linear scores."""

    fit_intercept: bool
    copy_X: bool
    tol: float
    positive: bool
    n_jobs: int | None
    coef_: NDArray[Any]
    intercept_: Any
    noise_variance_: Any

    def _reduced(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> tuple[Reduced, bool, Any]:
        """Check the data; return them in few rows, whether there was one target only, and the dtype of results."""
        intercept = parameters.flag(self.fit_intercept, "fit_intercept")
        parameters.flag(self.copy_X, "copy_X")
        parameters.number(self.tol, "tol")
        n_threads = parameters.threads(self.n_jobs)
        rows, targets = validate_data(
            self, X, y, dtype=[np.float64, np.float32], y_numeric=True, multi_output=True, ensure_all_finite=False
        )
        check_finite(rows, n_threads, estimator=self)
        weight = checked_weight_with_sum(sample_weight, len(rows))
        single = targets.ndim == 1
        columns = targets.reshape(len(rows), -1).astype(np.float64, copy=False)
        with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
            reduced = reduce_rows(rows, columns, weight, intercept, n_threads)
        if not (np.isfinite(reduced.R).all() and np.isfinite(reduced.targets).all()):
            raise ValueError("X or y has values too large: their squares cannot be summed in float64")
        return reduced, single, rows.dtype

    def _keep(self, coef: Array, reduced: Reduced, single: bool, dtype: Any) -> None:
        """Set the attributes from coefficients (D, T), those of the reduced problem."""
        residuals = reduced.R @ coef - reduced.targets
        variance = (np.einsum("ij,ij->j", residuals, residuals) + reduced.rest) / reduced.total
        intercept = reduced.y_mean - reduced.X_mean @ coef
        if single:
            self.coef_, self.intercept_ = coef[:, 0].astype(dtype), dtype.type(intercept[0])
            self.noise_variance_ = float(variance[0])
        else:
            self.coef_, self.intercept_ = np.ascontiguousarray(coef.T, dtype), intercept.astype(dtype)
            self.noise_variance_ = variance

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict targets.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.

        Returns
        -------
        ndarray of shape (n,) or (n, T)
            ``X @ coef_.T + intercept_``.
        """
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        coef = np.atleast_2d(self.coef_)
        predicted = linear_scores.linear_scores(rows, coef, self.intercept_, parameters.threads(self.n_jobs))
        return predicted[:, 0] if np.ndim(self.coef_) == 1 else predicted


class LinearRegression(_LeastSquares):
    """Linear regression by least squares, which is the maximum likelihood under normal noise.

    Minimises ``sum_i s_i (y_i - w . x_i - b)²`` with the weights s of the rows. Of several minima it takes the one
    with the smallest norm of w.

    Parameters
    ----------
    fit_intercept : bool, default=True
        Whether to fit intercepts; without, they are 0.
    copy_X : bool, default=True
        Of no effect: `X` is never written to.
    tol : float, default=1e-6
        Of no effect: the solution is exact.
    n_jobs : int or None, default=None
        Threads. Unlike in scikit-learn None means all that the process may use (see `fastml.kernels`); negative
        numbers count from there, -1 is all, -2 all but one. The result has the same bits for any number.
    positive : bool, default=False
        Whether coefficients must not be below 0 (intercepts may). Of several minima it is any that is taken.

    Attributes
    ----------
    coef_ : ndarray of shape (D,) or (T, D)
        Coefficients, of the dtype of `X`; one row per target where `y` has two dimensions.
    intercept_ : float or ndarray of shape (T,)
        Intercepts.
    noise_variance_ : float or ndarray of shape (T,), float64
        The weighted mean of squared residuals: the maximum likelihood estimate of the variance of the noise.
    rank_ : int
        Rank of `X`, centred where there is an intercept.
    singular_ : ndarray of shape (min(n, D),), float64
        Its singular values.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of shape (D,)
        Names of the columns, where `X` has names that are all strings.

    Notes
    -----
    Everything is computed in float64, from orthogonal factors and not from products of columns, so that digits are
    lost in proportion to the condition of `X` and not to its square. Blocks of rows are reduced to triangles side by
    side, and these to one, sixteen at a time (about 2 n D² operations); it has the singular values of `X`. The rank is
    counted after each column has been measured by its own rounding errors, those of float32 data and of sums:
    what is no larger counts as 0. So units do not matter for it, and a constant column has a coefficient of exactly 0.
    The norm that is smallest is that of the coefficients in the units of the columns. Coefficients that must not be
    below 0 come from the same triangle, by Lawson and Hanson's active sets, many columns at a time.

    Sources: J. Demmel, L. Grigori, M. Hoemmen and J. Langou, Communication-optimal parallel and sequential QR and LU
    factorizations, SIAM J. Sci. Comput. 34 (2012), A206-A239; C. L. Lawson and R. J. Hanson, Solving Least Squares
    Problems (1974), chapter 23.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml import LinearRegression
    >>> X = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 0.0], [3.0, 2.0]])
    >>> model = LinearRegression().fit(X, X @ [2.0, -1.0] + 3.0)
    >>> model.coef_.round(6), round(float(model.intercept_), 6)
    (array([ 2., -1.]), 3.0)
    """

    def __init__(
        self,
        *,
        fit_intercept: bool = True,
        copy_X: bool = True,
        tol: float = 1e-6,
        n_jobs: int | None = None,
        positive: bool = False,
    ) -> None:
        self.fit_intercept = fit_intercept
        self.copy_X = copy_X
        self.tol = tol
        self.n_jobs = n_jobs
        self.positive = positive

    @unchanged_if_refused
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit coefficients and intercepts.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite.
        y : array-like of shape (n,) or (n, T)
            Targets.
        sample_weight : array-like of shape (n,), optional
            Weights of the rows, not negative. A weight of 2 counts as the row twice.

        Returns
        -------
        self
        """
        positive = parameters.flag(self.positive, "positive")
        reduced, single, dtype = self._reduced(X, y, sample_weight)
        with one_blas_thread():
            solution = solve(reduced, reduced.noise(dtype))
            coef = not_below_zero(solution, reduced, reduced.noise(dtype)) if positive else solution.coef
            singular = np.linalg.svd(solution.R, compute_uv=False)
        self.rank_, self.singular_ = solution.rank, np.zeros(min(reduced.shape))
        self.singular_[: len(singular)] = singular
        self._keep(coef, reduced, single, dtype)
        return self


class Ridge(_LeastSquares):
    """Linear regression with an L2 penalty.

    Minimises ``sum_i s_i (y_i - w . x_i - b)² + alpha ‖w‖²`` with the weights s of the rows; intercepts are not
    penalised. That is also what normal noise of variance ``alpha / n`` in the columns comes to on average.

    Parameters
    ----------
    alpha : float or array-like of shape (T,), default=1.0
        Strength of the penalty, not negative; one for all targets, or one each.
    fit_intercept : bool, default=True
        Whether to fit intercepts; without, they are 0.
    copy_X : bool, default=True
        Of no effect: `X` is never written to.
    max_iter : int or None, default=None
        Of no effect: nothing is iterated.
    tol : float, default=1e-4
        Of no effect: the solution is exact.
    solver : str, default="auto"
        Any of scikit-learn's: they are ways to the same coefficients, for which there is one here.
    positive : bool, default=False
        Whether coefficients must not be below 0; intercepts may.
    random_state : int, RandomState or None, default=None
        Of no effect: nothing is random.
    n_jobs : int or None, default=None
        Threads. Unlike in scikit-learn None means all that the process may use (see `fastml.kernels`); negative
        numbers count from there, -1 is all, -2 all but one. The result has the same bits for any number.

    Attributes
    ----------
    coef_ : ndarray of shape (D,) or (T, D)
        Coefficients, of the dtype of `X`; one row per target where `y` has two dimensions.
    intercept_ : float or ndarray of shape (T,)
        Intercepts.
    noise_variance_ : float or ndarray of shape (T,), float64
        The weighted mean of squared residuals.
    n_iter_ : int
        1: nothing is iterated.
    solver_ : str
        How it was solved: "qr".
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of shape (D,)
        Names of the columns, where `X` has names that are all strings.

    Notes
    -----
    As `LinearRegression`, with ``sqrt(alpha)`` times the identity as further rows, and with the rounding errors of
    float64 only: a penalty keeps small what float32 may have made. `alpha` of 0 gives the same model.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml import Ridge
    >>> X = np.array([[1.0], [2.0], [3.0]])
    >>> Ridge(alpha=14.0, fit_intercept=False).fit(X, [1.0, 2.0, 3.0]).coef_.round(6)
    array([0.5])
    """

    def __init__(
        self,
        alpha: Any = 1.0,
        *,
        fit_intercept: bool = True,
        copy_X: bool = True,
        max_iter: int | None = None,
        tol: float = 1e-4,
        solver: str = "auto",
        positive: bool = False,
        random_state: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.copy_X = copy_X
        self.max_iter = max_iter
        self.tol = tol
        self.solver = solver
        self.positive = positive
        self.random_state = random_state
        self.n_jobs = n_jobs

    @unchanged_if_refused
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit coefficients and intercepts.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite.
        y : array-like of shape (n,) or (n, T)
            Targets.
        sample_weight : array-like of shape (n,), optional
            Weights of the rows, not negative. A weight of 2 counts as the row twice.

        Returns
        -------
        self
        """
        parameters.one_of(self.solver, "solver", _RIDGE_SOLVERS)
        if self.max_iter is not None:
            parameters.positive_integer(self.max_iter, "max_iter")
        reduced, single, dtype = self._reduced(X, y, sample_weight)
        with one_blas_thread():
            self._keep(self._shrunk(reduced, dtype), reduced, single, dtype)
        self.n_iter_, self.solver_ = 1, "qr"
        return self

    def _shrunk(self, reduced: Reduced, dtype: Any) -> Array:
        """Return the coefficients."""
        targets = reduced.targets.shape[1]
        strengths = np.ravel(self.alpha).tolist()
        if len(strengths) not in (1, targets):
            raise ValueError(f"alpha has {len(strengths)} values for {targets} targets; it must have one, or one each")
        alpha = np.array([parameters.number(each, "alpha") for each in strengths]) * np.ones(targets)
        positive = parameters.flag(self.positive, "positive")
        # Columns of float32 may be rounded, but with a penalty that cannot blow anything up.
        noise = reduced.noise(np.float64 if alpha.any() else dtype)
        solution = solve(reduced, noise, alpha if alpha.any() else None)
        return not_below_zero(solution, reduced, noise, alpha) if positive else solution.coef
