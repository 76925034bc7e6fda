"""Missing values as means over the nearest rows that have them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.impute import MissingIndicator
from sklearn.utils.validation import check_is_fitted

from ..neighbors.voting import NeighborWeights, are_large, check_weights, in_range, mean_over_ranks, weights_of
from ..utils import parameters
from ..utils.lazy import lazy_module
from ..utils.validation import unchanged_if_refused, validate_data

if TYPE_CHECKING:
    from ..kernels.neighbors import donors
else:
    donors = lazy_module("fastml.kernels.neighbors.donors")

__all__ = ["KNNImputer"]

#: Neighbours that are looked for at once, which bounds what is needed beside the data: 32 MB of their distances.
_AT_ONCE = 1 << 22


class KNNImputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Missing values, each as the mean over the nearest training rows that have a value in its column.

    The distance of two rows is of the columns that both have, ``sqrt(D / c * sum of their c squares)`` of D columns:
    nan_euclidean. A row without a column in common is no neighbour; where none of those that have a value has one, the
    mean of the column is taken. scikit-learn's parameters of the same names mean the same.

    Parameters
    ----------
    missing_values : int, float or NaN, default=NaN
        What stands for a missing value.
    n_neighbors : int, default=5
        Rows whose mean is taken, or as many as there are.
    weights : {"uniform", "distance"}, callable or None, default="uniform"
        What a row counts in the mean: as of `fastml.KNeighborsRegressor`. A function gets NaN for rows that are not
        there, and what it returns for these does not matter.
    metric : {"nan_euclidean"}, default="nan_euclidean"
        The distance.
    copy : bool, default=True
        Whether `transform` returns an array of its own; with False it writes into `X` where it can.
    add_indicator : bool, default=False
        Whether to append columns that say which values were missing, for columns of which some were in `fit`.
    keep_empty_features : bool, default=False
        Whether to return columns that were missing throughout in `fit`, as 0; else they are left out.
    n_jobs : int or None, default=None
        Threads, which scikit-learn's has not: None means all that the process may use (see `fastml.kernels`); negative
        numbers count from there, -1 is all, -2 all but one.

    Attributes
    ----------
    indicator_ : sklearn.impute.MissingIndicator or None
        What appends the columns of `add_indicator`.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : ndarray of shape (D,)
        Names of the columns, where `X` has names that are all strings.

    Notes
    -----
    Of rows at equal distances the earlier are taken, so that a value depends on its row alone. Distances are made in
    float64 from differences; scikit-learn's come from products, which lose digits where rows lie close together, and so
    does what `weights` makes of them. float32 rows are kept in float64 and return as float32. Cost: D differences for
    each row with missing values and each training row. Work space: a copy of the training rows, and of a part of `X`.

    Source: O. Troyanskaya et al., Missing value estimation methods for DNA microarrays, Bioinformatics 17 (2001),
    520-525.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml import KNNImputer
    >>> X = [[1, 2, np.nan], [3, 4, 3], [np.nan, 6, 5], [8, 8, 7]]
    >>> KNNImputer(n_neighbors=2).fit_transform(X)
    array([[1. , 2. , 4. ],
           [3. , 4. , 3. ],
           [5.5, 6. , 5. ],
           [8. , 8. , 7. ]])
    """

    def __init__(
        self,
        *,
        missing_values: float = np.nan,
        n_neighbors: int = 5,
        weights: NeighborWeights = "uniform",
        metric: Literal["nan_euclidean"] = "nan_euclidean",
        copy: bool = True,
        add_indicator: bool = False,
        keep_empty_features: bool = False,
        n_jobs: int | None = None,
    ) -> None:
        self.missing_values = missing_values
        self.n_neighbors = n_neighbors
        self.weights = weights
        self.metric = metric
        self.copy = copy
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features
        self.n_jobs = n_jobs

    @unchanged_if_refused
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Keep the training rows.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite but for what is missing.
        y : object, optional
            Ignored.

        Returns
        -------
        self
        """
        mark: Any = self.missing_values
        if isinstance(mark, bool) or not isinstance(mark, numbers.Real):
            raise TypeError(f"missing_values is {mark!r} ({type(mark).__name__}); it must be a number or NaN")
        parameters.positive_integer(self.n_neighbors, "n_neighbors")
        check_weights(self.weights)
        parameters.one_of(self.metric, "metric", ("nan_euclidean",))
        for name in ("copy", "add_indicator", "keep_empty_features"):
            parameters.flag(getattr(self, name), name)
        parameters.threads(self.n_jobs)
        rows = self._checked(X, copy=False)
        missing = self._missing(rows)
        self.indicator_: MissingIndicator | None = None
        if self.add_indicator:
            self.indicator_ = MissingIndicator(missing_values=self.missing_values, error_on_new=False).fit(rows)
        known = np.where(missing, np.nan, rows).astype(np.float64, copy=False)
        self._donors = donors.pack(known)
        self._is_known = self._donors.counts > 0
        self._are_large = are_large(known)
        self._means = self._means_of(known)
        return self

    def _means_of(self, known: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean of what is known of each column, of those whose sum leaves the range by smaller values."""
        counts = np.maximum(self._donors.counts, 1)
        with np.errstate(over="ignore", invalid="ignore"):
            means: NDArray[np.float64] = np.nansum(known, axis=0) / counts
        if self._are_large:
            large, shift = ~np.isfinite(means), len(known).bit_length()
            means[large] = in_range(np.nansum(np.ldexp(known[:, large], -shift), axis=0) / counts[large], shift)
        return means

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Fill in what is missing.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows, finite but for what is missing.

        Returns
        -------
        ndarray of shape (n, columns)
            The rows without columns that were missing throughout in `fit`, unless `keep_empty_features`; with
            `add_indicator` its columns behind them.
        """
        check_is_fitted(self)
        k = parameters.positive_integer(self.n_neighbors, "n_neighbors")
        rows = self._checked(X, copy=self.copy, reset=False, force_writeable=True)
        missing = self._missing(rows)
        indicated = self.indicator_.transform(rows) if self.indicator_ is not None else None
        for some in _blocks(missing, k):
            known = np.where(missing[some], np.nan, rows[some]).astype(np.float64, copy=False)
            found = donors.nearest_donors(self._donors, known, k, n_threads=parameters.threads(self.n_jobs))
            rows[some.start + found.rows, found.columns] = self._values(found, some.start)
        if self.keep_empty_features:
            rows[:, ~self._is_known] = 0
        elif not self._is_known.all():
            rows = rows[:, self._is_known]
        return rows if indicated is None else np.hstack((rows, indicated))

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[Any]:
        """Return the names of the columns that `transform` returns.

        Parameters
        ----------
        input_features : array-like of str, optional
            Names of the columns of `X`, where `fit` has seen none; else those that it has seen.

        Returns
        -------
        ndarray of str objects
        """
        check_is_fitted(self)
        given: NDArray[Any] = super().get_feature_names_out(input_features)
        names = given if self.keep_empty_features else given[self._is_known]
        if self.indicator_ is None:
            return names
        return np.concatenate([names, self.indicator_.get_feature_names_out(given)])

    def _checked(self, X: ArrayLike, **settings: Any) -> NDArray[Any]:
        """Return rows of floats, in which NaN may stand for what is missing."""
        finite: Any = "allow-nan" if math.isnan(self.missing_values) else True
        dtypes = (np.float64, np.float32, np.float16)
        rows: NDArray[Any] = validate_data(self, X, dtype=dtypes, ensure_all_finite=finite, **settings)
        return rows

    def _missing(self, rows: NDArray[Any]) -> NDArray[np.bool_]:
        missing: NDArray[np.bool_] = np.isnan(rows) if math.isnan(self.missing_values) else rows == self.missing_values
        return missing

    def _values(self, found: donors.Found, first: int) -> NDArray[np.float64]:
        """Return the means over the donors; rows are counted from `first` on in errors."""
        values: NDArray[np.float64] = self._means[found.columns]
        some = found.indices[:, 0] >= 0
        distances, indices, columns = found.distances[some], found.indices[some], found.columns[some]
        lacking = indices < 0
        weights = weights_of(distances, self._weights_where(lacking), first + found.rows[some])
        if lacking.any():
            weights = np.where(lacking, 0.0, 1.0 if weights is None else weights)
            indices = np.where(lacking, indices[:, :1], indices)
        places = self._donors.places(indices, columns[:, np.newaxis])
        values[some] = mean_over_ranks(self._donors.panels.ravel(), places, weights, self._are_large)
        return values

    def _weights_where(self, lacking: NDArray[np.bool_]) -> NeighborWeights:
        """Return what says how much a neighbour counts, where some are not there."""
        own = self.weights
        if own is None or own == "uniform" or not lacking.any():
            return own
        weigh: Callable[[Any], Any] = own if callable(own) else _inverse

        def weigh_some(distances: NDArray[np.float64]) -> ArrayLike:
            found = weigh(distances)
            return found if np.shape(found) != lacking.shape else np.where(lacking, 0.0, found)

        return weigh_some

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        mark: Any = self.missing_values
        tags.input_tags.allow_nan = isinstance(mark, numbers.Real) and math.isnan(mark)
        tags.transformer_tags.preserves_dtype = ["float64", "float32", "float16"]
        return tags


def _inverse(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return 1 / distances


def _blocks(missing: NDArray[np.bool_], k: int) -> Iterator[slice]:
    """Yield ranges of rows that have not too many missing values for k neighbours of each."""
    step = max(1, _AT_ONCE // (k * max(1, missing.shape[1])))
    for first in range(0, len(missing), step):
        some = slice(first, min(len(missing), first + step))
        if missing[some].any():
            yield some
