"""Linear regression by least squares, plain and with a ridge, in closed form."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from . import _estimators
from ._checks import unchanged_if_refused, validate_data
from ._curvature import one_blas_thread
from ._linear import settled_weight
from .kernels import _threads

__all__ = ["LinearRegression", "Ridge"]

Array = NDArray[np.float64]

#: Rows that are factorised together: at least this many, and this many per column.
_BLOCK_ROWS, _ROWS_PER_COLUMN = 2048, 4

#: Rows whose mean is taken off before anything is multiplied; the rest of the mean comes out exactly.
_SHIFT_ROWS = 1024


class _LeastSquares(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Rows, targets and predictions of models by linear scores."""

    fit_intercept: bool
    n_jobs: int | None
    coef_: NDArray[Any]
    intercept_: Any
    noise_variance_: Any

    def _reduced(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> tuple[_Reduced, bool, Any]:
        """Check the data; return them in few rows, whether there was one target only, and the dtype of results."""
        intercept = _estimators.flag(self.fit_intercept, "fit_intercept")
        n_threads = _estimators.threads(self.n_jobs)
        rows, targets = validate_data(
            self, X, y, dtype=[np.float64, np.float32], y_numeric=True, multi_output=True, ensure_all_finite=False
        )
        _estimators.check_finite(rows, n_threads, estimator=self)
        weight = settled_weight(sample_weight, rows)
        single = targets.ndim == 1
        columns = targets.reshape(len(rows), -1).astype(np.float64, copy=False)
        with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
            reduced = (_reduce_wide if rows.shape[1] > len(rows) else _reduce)(
                rows, columns, weight, intercept, n_threads
            )
        if not (np.isfinite(reduced.R).all() and np.isfinite(reduced.targets).all()):
            raise ValueError("X or y has values too large: their squares cannot be summed in float64")
        return reduced, single, rows.dtype

    def _keep(self, coef: Array, reduced: _Reduced, single: bool, dtype: Any) -> None:
        """Set the attributes from coefficients (D, T), those of the reduced problem."""
        residuals = reduced.R @ coef - reduced.targets
        variance = (np.einsum("ij,ij->j", residuals, residuals) + reduced.rest) / reduced.total
        if reduced.rotation is not None:
            coef = reduced.rotation @ coef
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
        predicted: NDArray[Any] = rows @ self.coef_.T + self.intercept_
        return predicted


class LinearRegression(_LeastSquares):
    """Linear regression by least squares, which is the maximum likelihood under normal noise.

    Minimises ``sum_i s_i (y_i - w . x_i - b)²`` with the weights s of the rows. Of several minima it takes the one
    with the smallest norm of w.

    Parameters
    ----------
    fit_intercept : bool, default=True
        Whether to fit intercepts; without, they are 0.
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
    side, and these together to one (about 2 n D² operations); it has the singular values of `X`. Those below
    the rounding errors count as 0. Columns of very different units are told from dependent ones: if they
    are independent when scaled to unit length, the rank is full.

    Source: J. Demmel, L. Grigori, M. Hoemmen and J. Langou, Communication-optimal parallel and sequential QR and LU
    factorizations, SIAM J. Sci. Comput. 34 (2012), A206-A239.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml import LinearRegression
    >>> X = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 0.0], [3.0, 2.0]])
    >>> model = LinearRegression().fit(X, X @ [2.0, -1.0] + 3.0)
    >>> model.coef_.round(6), round(float(model.intercept_), 6)
    (array([ 2., -1.]), 3.0)
    """

    def __init__(self, *, fit_intercept: bool = True, n_jobs: int | None = None) -> None:
        self.fit_intercept = fit_intercept
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
        reduced, single, dtype = self._reduced(X, y, sample_weight)
        with one_blas_thread():
            solution = _solve(reduced, dtype)
        self.rank_, self.singular_ = solution.rank, solution.singular
        self._keep(solution.coef, reduced, single, dtype)
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
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of shape (D,)
        Names of the columns, where `X` has names that are all strings.

    Notes
    -----
    As `LinearRegression`, with ``s / (s² + alpha)`` in place of ``1 / s`` for each singular value s. `alpha` of 0 gives
    the same model.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml import Ridge
    >>> X = np.array([[1.0], [2.0], [3.0]])
    >>> Ridge(alpha=14.0, fit_intercept=False).fit(X, [1.0, 2.0, 3.0]).coef_.round(6)
    array([0.5])
    """

    def __init__(self, alpha: Any = 1.0, *, fit_intercept: bool = True, n_jobs: int | None = None) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
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
        reduced, single, dtype = self._reduced(X, y, sample_weight)
        with one_blas_thread():
            self._keep(self._shrunk(reduced, dtype), reduced, single, dtype)
        return self

    def _shrunk(self, reduced: _Reduced, dtype: Any) -> Array:
        """Return the coefficients."""
        targets = reduced.targets.shape[1]
        strengths = np.ravel(self.alpha).tolist()
        if len(strengths) not in (1, targets):
            raise ValueError(f"alpha has {len(strengths)} values for {targets} targets; it must have one, or one each")
        alpha = np.array([_estimators.number(each, "alpha") for each in strengths]) * np.ones(targets)
        if not alpha.any():
            return _solve(reduced, dtype).coef
        # Scaled by the largest singular value, so that squares neither overflow nor vanish.
        U, singular, Vt = np.linalg.svd(reduced.R, full_matrices=False)
        largest = float(singular[0]) if singular.size and singular[0] > 0 else 1.0
        s = np.where(singular > reduced.negligible(dtype) * largest, singular / largest, 0.0)[:, np.newaxis]
        with np.errstate(over="ignore"):  # an infinite penalty leaves nothing
            penalised = s**2 + alpha / largest / largest
        shrinking = np.divide(s, penalised, out=np.zeros_like(penalised), where=s > 0)
        coef: Array = Vt.T @ (shrinking * (U.T @ reduced.targets)) / largest
        return coef


# ------------------------------------------------------------------------------------- computation


class _Reduced(NamedTuple):
    """A problem of least squares in as few rows as it has columns, with the same minima."""

    R: Array  # (k, k)
    targets: Array  # (k, T)
    rest: Array  # (T,): what is added to the sums of squared residuals, whatever the coefficients
    X_mean: Array  # (D,)
    y_mean: Array  # (T,)
    total: float  # sum of the weights
    rotation: Array | None  # coefficients are this times those of the reduced problem
    size: int  # the larger dimension of X

    def negligible(self, dtype: Any) -> float:
        """Return the share of the largest singular value below which one may be rounding: of float32 data, of sums."""
        return max(float(np.finfo(dtype).eps), self.size * float(np.finfo(np.float64).eps))


class _Solution(NamedTuple):
    coef: Array
    rank: int
    singular: Array


def _reduce(X: NDArray[Any], y: Array, weight: Array | None, intercept: bool, n_threads: int | None) -> _Reduced:
    """Reduce rows by QR, block by block; with an intercept a column of ones stands first and takes the means out."""
    (n, columns), targets = X.shape, y.shape[1]
    lead = int(intercept)
    size = lead + columns + targets
    X_shift, y_shift = np.zeros(columns), np.zeros(targets)
    if intercept:
        X_shift, y_shift = X[:_SHIFT_ROWS].mean(axis=0, dtype=np.float64), y[:_SHIFT_ROWS].mean(axis=0)
    per_block = max(_BLOCK_ROWS, _ROWS_PER_COLUMN * size)
    triangles: list[Array] = [np.empty((0, size))] * -(-n // per_block)

    def reduce(block: int) -> None:
        here = slice(block * per_block, min(n, (block + 1) * per_block))
        A = np.ones((here.stop - here.start, size))
        np.subtract(X[here], X_shift, out=A[:, lead : lead + columns])
        np.subtract(y[here], y_shift, out=A[:, lead + columns :])
        if weight is not None:
            A *= np.sqrt(weight[here])[:, np.newaxis]
        # NumPy's factorisation lets other threads run, SciPy's does not.
        triangle: Any = np.linalg.qr(A, mode="r")
        triangles[block] = triangle

    _threads.run(reduce, len(triangles), _threads.resolve(n_threads))
    stacked = np.concatenate(triangles)
    whole = np.zeros((size, size))
    triangle: Any = stacked if len(triangles) == 1 else np.linalg.qr(stacked, mode="r")
    whole[: len(triangle)] = triangle
    means = whole[0] / whole[0, 0] if intercept else np.zeros(size)
    inner, outer = slice(lead, lead + columns), slice(lead + columns, size)
    rest = whole[outer, outer]
    return _Reduced(
        R=whole[inner, inner],
        targets=whole[inner, outer],
        rest=np.einsum("ij,ij->j", rest, rest),
        X_mean=X_shift + means[inner],
        y_mean=y_shift + means[outer],
        total=float(n) if weight is None else float(np.add.reduce(weight)),
        rotation=None,
        size=n,
    )


def _reduce_wide(X: NDArray[Any], y: Array, weight: Array | None, intercept: bool, n_threads: int | None) -> _Reduced:
    """Reduce more columns than rows: the smallest minimum lies in the space of the rows."""
    n, columns = X.shape
    shares = np.full(n, 1 / n) if weight is None else weight / np.add.reduce(weight)
    X_mean, y_mean = np.zeros(columns), np.zeros(y.shape[1])
    A = X.astype(np.float64)
    if intercept:
        X_mean, y_mean = A.mean(axis=0), y.mean(axis=0)
        X_mean, y_mean = X_mean + shares @ (A - X_mean), y_mean + shares @ (y - y_mean)
        A, y = A - X_mean, y - y_mean
    if weight is not None:
        root = np.sqrt(weight)[:, np.newaxis]
        A, y = A * root, y * root
    Q, R = np.linalg.qr(A.T)
    return _Reduced(
        R=np.ascontiguousarray(R.T),
        targets=y,
        rest=np.zeros(y.shape[1]),
        X_mean=X_mean,
        y_mean=y_mean,
        total=float(n) if weight is None else float(np.add.reduce(weight)),
        rotation=Q,
        size=columns,
    )


def _solve(reduced: _Reduced, dtype: Any) -> _Solution:
    """Solve the reduced problem, without the directions that rounding alone may have made."""
    negligible = reduced.negligible(dtype)
    U, singular, Vt = np.linalg.svd(reduced.R, full_matrices=False)
    rank = int((singular > negligible * singular[0]).sum())
    if rank < len(singular) and reduced.rotation is None:
        scaled = _scaled_solution(reduced, negligible)
        if scaled is not None:
            return _Solution(scaled, len(singular), singular)
    coef = Vt[:rank].T @ ((U[:, :rank].T @ reduced.targets) / singular[:rank, np.newaxis])
    return _Solution(coef, rank, singular)


def _scaled_solution(reduced: _Reduced, negligible: float) -> Array | None:
    """Return the coefficients if the columns are independent once they have unit length."""
    lengths = np.array([math.hypot(*column) for column in reduced.R.T.tolist()])
    if not (lengths > 0).all():
        return None
    U, singular, Vt = np.linalg.svd(reduced.R / lengths)
    if not singular[-1] > negligible * singular[0]:
        return None
    coef: Array = Vt.T @ ((U.T @ reduced.targets) / singular[:, np.newaxis]) / lengths[:, np.newaxis]
    return coef
