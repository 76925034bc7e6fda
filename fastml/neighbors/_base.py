"""The search for neighbours, which all models share."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix, issparse
from sklearn.base import BaseEstimator, MultiOutputMixin
from sklearn.utils.validation import check_is_fitted

from .. import kernels
from ..kernels.distances import arguments as distances_arguments
from ..utils import parameters
from ..utils.sample_weight import checked_weight_with_sum
from ..utils.validation import validate_data
from .row_weights import RowWeights
from .voting import NeighborWeights, check_weights, checked_metric, effective_metric, weights_of

if TYPE_CHECKING:
    from ..kernels import PreparedRows

__all__ = ["KNeighbors", "KeptRows", "NeighborSearch"]

#: What scikit-learn's names of searches mean here: there is one kind of tree.
_ALGORITHMS: dict[str, distances_arguments.Algorithm] = {
    "auto": "auto",
    "brute": "brute",
    "kd_tree": "tree",
    "ball_tree": "tree",
}

#: scikit-learn's words come first, for its users' filters.
_P_IS_TWICE = (
    "Parameter p is found in metric_params. The corresponding parameter from __init__ is ignored. "
    "Pass the parameter p alone, or p=None."
)


class _Kept:
    """What searches make of the training rows, as far as all queries so far repay it; `fit` makes nothing.

    A pickle of a model does not have it.
    """

    def __init__(self, metric: distances_arguments.Metric, algorithm: distances_arguments.Algorithm) -> None:
        self.metric, self.algorithm = metric, algorithm
        self._prepared: PreparedRows | None = None

    def prepared(self, rows: NDArray[Any]) -> PreparedRows:
        """Return the rows as searches take them."""
        if self._prepared is None:
            self._prepared = kernels.PreparedRows(rows, self.metric, self.algorithm)
        return self._prepared

    def __reduce__(self) -> tuple[Any, ...]:
        return _Kept, (self.metric, self.algorithm)


class KeptRows(BaseEstimator):
    """The training rows, and how they are searched: by number of neighbours, or within a radius."""

    algorithm: Literal["auto", "brute", "kd_tree", "ball_tree"]
    leaf_size: int
    p: float
    metric: str
    n_jobs: int | None
    metric_params: dict[str, Any] | None
    #: What `metric_params` was in `fit`, None if it said nothing.
    _metric_params: dict[str, Any] | None
    #: Which training rows are there, None for all, and how many: those of weight 0 are not.
    _present: NDArray[np.bool_] | None = None
    _n_present: int

    def _fit_rows(self, X: ArrayLike, y: Any = "no_validation", **settings: Any) -> Any:
        """Check the parameters of a search, keep the rows, and return the targets if there are some."""
        parameters.threads(self.n_jobs)
        parameters.one_of(self.algorithm, "algorithm", _ALGORITHMS)
        parameters.positive_integer(self.leaf_size, "leaf_size")
        p, params = self.p, self.metric_params
        if isinstance(self.metric, str) and self.metric == "minkowski" and isinstance(params, dict) and "p" in params:
            p, params = params["p"], {name: value for name, value in params.items() if name != "p"}
            if self.p is not None:
                warnings.warn(_P_IS_TWICE, SyntaxWarning, stacklevel=4)
        short = checked_metric(self.metric, p)
        checked = validate_data(self, X, y, **settings)
        rows, targets = checked if isinstance(checked, tuple) else (checked, None)
        # The dtype that the kernels work in, settled now and not at every call: uint8 stays uint8.
        self._fit_X, _, kind = distances_arguments.pair(rows)
        factors = distances_arguments.column_factors(short, params, kind, self._fit_X.shape[1])
        self._metric_params = None
        if params is not None and factors is not None:
            self._metric_params = {"w": np.array(params["w"], np.float64)}
        self.effective_metric_ = effective_metric(short)
        self.effective_metric_params_ = {name: w.copy() for name, w in (self._metric_params or {}).items()}
        if self._metric_params is not None and self.metric == "minkowski":  # as scikit-learn names it with weights
            self.effective_metric_, self.effective_metric_params_["p"] = "minkowski", p
        self._kept = _Kept(short, _ALGORITHMS[self.algorithm])
        self.n_samples_fit_ = self._n_present = len(self._fit_X)
        return targets

    def _sides(self, X: ArrayLike | None) -> tuple[NDArray[Any], NDArray[Any] | PreparedRows]:
        """Return queries, the training rows where X is None, and the rows that are searched for them."""
        check_is_fitted(self)
        queries = self._fit_X if X is None else validate_data(self, X, reset=False)
        if self._metric_params is not None or self._kept.metric not in distances_arguments.OF_NUMBERS:
            return queries, self._fit_X
        rows = self._kept.prepared(self._fit_X)
        return rows.rows if X is None else queries, rows


class NeighborSearch(KeptRows):
    """The search for the nearest, of models that have a number of them."""

    n_neighbors: int

    def _fit_rows(self, X: ArrayLike, y: Any = "no_validation", **settings: Any) -> Any:
        """Check all parameters, keep the rows, and return the targets if there are some."""
        parameters.positive_integer(self.n_neighbors, "n_neighbors")
        return super()._fit_rows(X, y, **settings)

    def kneighbors(
        self, X: ArrayLike | None = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> tuple[NDArray[Any], NDArray[np.intp]] | NDArray[np.intp]:
        """Find the nearest training rows.

        Parameters
        ----------
        X : array-like of shape (n, D), optional
            The queries; None means the training rows, each without itself.
        n_neighbors : int, optional
            How many; None means the parameter of that name.
        return_distance : bool, default=True
            Whether to return the distances as well.

        Returns
        -------
        distances : ndarray of shape (n, k)
            Ascending; dtype as in `fastml.kernels.k_nearest` (exact int32 for uint8 data and L1 or
            L-infinity). Only with `return_distance`.
        indices : ndarray of shape (n, k), intp
            Rows of the training data; the smaller first where distances are equal.
        """
        distances, indices = self._search(X, n_neighbors)
        return (distances, indices) if return_distance else indices

    def _search(self, X: ArrayLike | None, n_neighbors: int | None = None) -> tuple[NDArray[Any], NDArray[np.intp]]:
        queries, rows = self._sides(X)
        k = parameters.positive_integer(self.n_neighbors if n_neighbors is None else n_neighbors, "n_neighbors")
        if k > self._n_present - (X is None):
            left_out = ", of which each query leaves out one (itself)" if X is None else ""
            counted = "training rows" if self._present is None else "training rows of weight above 0"
            raise ValueError(f"n_neighbors is {k}; there are {self._n_present} {counted}{left_out}")
        return self._nearest(queries, rows, k, exclude_self=X is None)

    def _nearest(
        self,
        queries: NDArray[Any],
        rows: NDArray[Any] | PreparedRows,
        k: int,
        exclude_self: bool = False,
        groups: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.intp]]:
        return kernels.k_nearest(
            queries,
            rows,
            k,
            metric=self._kept.metric,
            metric_params=self._metric_params,
            algorithm=self._kept.algorithm,
            exclude_self=exclude_self,
            groups=groups,
            where=self._present,
            n_threads=parameters.threads(self.n_jobs),
        )

    def kneighbors_graph(
        self,
        X: ArrayLike | None = None,
        n_neighbors: int | None = None,
        mode: Literal["connectivity", "distance"] = "connectivity",
    ) -> csr_matrix:
        """Return the neighbours as a sparse matrix.

        Parameters
        ----------
        X, n_neighbors
            As in `kneighbors`.
        mode : {"connectivity", "distance"}, default="connectivity"
            What stands at (query, neighbour): 1.0, or the distance.

        Returns
        -------
        scipy.sparse.csr_matrix of shape (n, number of training rows)
            With k entries in a row, from near to far.
        """
        if mode not in ("connectivity", "distance"):
            raise ValueError(f"mode is {mode!r}; it must be 'connectivity' or 'distance'")
        distances, indices = self._search(X, n_neighbors)
        n, k = indices.shape
        values = distances.ravel() if mode == "distance" else np.ones(n * k)
        return csr_matrix((values, indices.ravel(), np.arange(0, n * k + 1, k)), (n, self.n_samples_fit_))


class KNeighbors(MultiOutputMixin, NeighborSearch):
    """What classifier and regressor share."""

    #: Weights of the training rows, None where all are 1.
    _row_weights: RowWeights | None = None

    def __init__(
        self,
        n_neighbors: int = 5,
        *,
        weights: NeighborWeights = "uniform",
        algorithm: Literal["auto", "brute", "kd_tree", "ball_tree"] = "auto",
        leaf_size: int = 30,
        p: float = 2,
        metric: str = "minkowski",
        metric_params: dict[str, Any] | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.weights = weights
        self.algorithm = algorithm
        self.leaf_size = leaf_size
        self.p = p
        self.metric = metric
        self.metric_params = metric_params
        self.n_jobs = n_jobs

    def _fit(self, X: ArrayLike, y: Any, sample_weight: ArrayLike | None, *, y_numeric: bool) -> NDArray[Any]:
        """Check all parameters, keep rows and weights, and return the targets as a dense array."""
        check_weights(self.weights)
        y = y.toarray() if issparse(y) else y
        targets: NDArray[Any] = self._fit_rows(X, y, multi_output=True, y_numeric=y_numeric)
        self._row_weights = self._present = None
        weight = None if sample_weight is None else checked_weight_with_sum(sample_weight, len(targets))
        if weight is not None and (weight != 1).any():
            self._row_weights = RowWeights(weight.copy())  # the caller may change them
            self._present, self._n_present = self._row_weights.present, self._row_weights.n_present
        return targets

    def _weighted_neighbors(self, X: ArrayLike | None) -> tuple[NDArray[np.float64] | None, NDArray[np.intp]]:
        """Return what each neighbour counts, and the neighbours; None where all count the same."""
        weighed = self._row_weights
        if weighed is None:
            distances, indices = self._search(X)
            return weights_of(distances, self.weights), indices
        queries, rows = self._sides(X)
        k = parameters.positive_integer(self.n_neighbors, "n_neighbors")
        own = 0.0 if X is not None else weighed.weight.max()
        if weighed.total - own < k:
            left_out = f", without the heaviest {weighed.total - own:g}" if X is None else ""
            raise ValueError(
                f"n_neighbors is {k}; the training rows weigh {weighed.total:g}{left_out}; "
                "a row of weight w counts as w rows"
            )

        def find(some: NDArray[np.intp], count: int) -> tuple[NDArray[Any], NDArray[np.intp]]:
            if len(some) == len(queries):
                return self._nearest(queries, rows, count, exclude_self=X is None)
            groups = None if X is not None else (some, np.arange(len(queries)))
            return self._nearest(queries[some], rows, count, groups=groups)

        most = weighed.n_present - (X is None)
        places = weighed.places(*weighed.nearest(find, np.arange(len(queries)), k, most), k)
        return places.weights(self.weights), places.indices
