"""Neighbours without targets: the search by itself, and graphs of neighbours for other estimators."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ..utils import parameters
from ..utils.validation import unchanged_if_refused
from ._base import NeighborSearch
from ._radius import RadiusNeighborsMixin, checked_radius

__all__ = ["KNeighborsTransformer", "NearestNeighbors"]


class NearestNeighbors(RadiusNeighborsMixin, NeighborSearch):
    """The nearest rows of others.

    scikit-learn's parameters of the same names mean the same.

    Parameters
    ----------
    n_neighbors : int, default=5
        Neighbours that `kneighbors` finds where it is not told how many.
    radius : float, default=1.0
        Distance up to which `radius_neighbors` finds neighbours where it is not told how far.
    algorithm : {"auto", "brute", "kd_tree", "ball_tree"}, default="auto"
        How neighbours are looked for, as of `KNeighborsClassifier`; they are the same.
    leaf_size : int, default=30
        Accepted, since scikit-learn has it, and not used: results do not depend on how large the leaves of a tree are.
    metric : str, default="minkowski"
        "minkowski", or by name: "l1", "manhattan" or "cityblock"; "l2" or "euclidean"; "linf" or "chebyshev";
        "sqeuclidean"; "cosine"; of packed bits (uint8) "hamming" and "jaccard".
    p : {1, 2, inf}, default=2
        Power of the Minkowski metric; used for ``metric="minkowski"`` only.
    metric_params : dict or None, default=None
        ``{"w": weights}`` of the columns, see `fastml.kernels.k_nearest`.
    n_jobs : int or None, default=None
        Threads. Unlike in scikit-learn None means all that the process may use (see `fastml.kernels`); negative
        numbers count from there, -1 is all, -2 all but one.

    Attributes
    ----------
    effective_metric_ : str
        The metric in use: "manhattan", "euclidean", "chebyshev", "sqeuclidean", "cosine", "hamming" or "jaccard"; of
        weighted columns and ``metric="minkowski"`` this name.
    effective_metric_params_ : dict
        The weights of the columns, and what "minkowski" needs, where there are weights.
    n_samples_fit_, n_features_in_ : int
        Rows and columns of the training data.
    feature_names_in_ : ndarray of shape (D,)
        Names of the columns, where `X` has names that are all strings.

    Notes
    -----
    What is said of data and dtypes at `KNeighborsClassifier` holds here.

    Examples
    --------
    >>> from fastml import NearestNeighbors
    >>> model = NearestNeighbors(n_neighbors=2).fit([[0.0], [3.0], [1.0]])
    >>> model.kneighbors([[2.5]])
    (array([[0.5, 1.5]]), array([[1, 2]]))
    >>> model.kneighbors_graph().toarray()
    array([[0., 1., 1.],
           [1., 0., 1.],
           [1., 1., 0.]])
    """

    def __init__(
        self,
        *,
        n_neighbors: int = 5,
        radius: float = 1.0,
        algorithm: Literal["auto", "brute", "kd_tree", "ball_tree"] = "auto",
        leaf_size: int = 30,
        metric: str = "minkowski",
        p: float = 2,
        metric_params: dict[str, Any] | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.radius = radius
        self.algorithm = algorithm
        self.leaf_size = leaf_size
        self.metric = metric
        self.p = p
        self.metric_params = metric_params
        self.n_jobs = n_jobs

    @unchanged_if_refused
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Keep the training rows.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite.
        y : object, optional
            Ignored.

        Returns
        -------
        self
        """
        checked_radius(self.radius)
        self._fit_rows(X)
        return self


class KNeighborsTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, NeighborSearch):
    """The graph of the nearest neighbours, as a sparse matrix, for estimators that take one.

    It goes where scikit-learn's does: before `DBSCAN`, `TSNE`, `Isomap` and others with ``metric="precomputed"``, in a
    pipeline.

    Parameters
    ----------
    mode : {"distance", "connectivity"}, default="distance"
        What stands at (query, neighbour): the distance, or 1.0.
    n_neighbors : int, default=5
        Entries of a row. A training row is a neighbour of itself; so that it has as many others, distances are those of
        one neighbour more, as in scikit-learn.
    algorithm : {"auto", "brute", "kd_tree", "ball_tree"}, default="auto"
        How neighbours are looked for, as of `KNeighborsClassifier`; they are the same.
    leaf_size : int, default=30
        Accepted, since scikit-learn has it, and not used: results do not depend on how large the leaves of a tree are.
    metric : str, default="minkowski"
        "minkowski", or by name: "l1", "manhattan" or "cityblock"; "l2" or "euclidean"; "linf" or "chebyshev";
        "sqeuclidean"; "cosine"; of packed bits (uint8) "hamming" and "jaccard".
    p : {1, 2, inf}, default=2
        Power of the Minkowski metric; used for ``metric="minkowski"`` only.
    metric_params : dict or None, default=None
        ``{"w": weights}`` of the columns, see `fastml.kernels.k_nearest`.
    n_jobs : int or None, default=None
        Threads, as in `NearestNeighbors`.

    Attributes
    ----------
    effective_metric_ : str
        The metric in use: "manhattan", "euclidean", "chebyshev", "sqeuclidean", "cosine", "hamming" or "jaccard"; of
        weighted columns and ``metric="minkowski"`` this name.
    effective_metric_params_ : dict
        The weights of the columns, and what "minkowski" needs, where there are weights.
    n_samples_fit_, n_features_in_ : int
        Rows and columns of the training data.
    feature_names_in_ : ndarray of shape (D,)
        Names of the columns, where `X` has names that are all strings.

    Examples
    --------
    >>> from sklearn.cluster import DBSCAN
    >>> from sklearn.pipeline import make_pipeline
    >>> from fastml import KNeighborsTransformer
    >>> X = [[0.0], [0.5], [1.0], [9.0], [9.5], [30.0]]
    >>> KNeighborsTransformer(n_neighbors=1).fit_transform(X).toarray()[:2]
    array([[0. , 0.5, 0. , 0. , 0. , 0. ],
           [0.5, 0. , 0. , 0. , 0. , 0. ]])
    >>> model = make_pipeline(KNeighborsTransformer(n_neighbors=2), DBSCAN(0.6, min_samples=2, metric="precomputed"))
    >>> model.fit_predict(X)
    array([ 0,  0,  0,  1,  1, -1])
    """

    def __init__(
        self,
        *,
        mode: Literal["distance", "connectivity"] = "distance",
        n_neighbors: int = 5,
        algorithm: Literal["auto", "brute", "kd_tree", "ball_tree"] = "auto",
        leaf_size: int = 30,
        metric: str = "minkowski",
        p: float = 2,
        metric_params: dict[str, Any] | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.mode = mode
        self.n_neighbors = n_neighbors
        self.algorithm = algorithm
        self.leaf_size = leaf_size
        self.metric = metric
        self.p = p
        self.metric_params = metric_params
        self.n_jobs = n_jobs

    @unchanged_if_refused
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Keep the training rows.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite.
        y : object, optional
            Ignored.

        Returns
        -------
        self
        """
        parameters.one_of(self.mode, "mode", ("distance", "connectivity"))
        self._fit_rows(X)
        self._n_features_out = self.n_samples_fit_
        return self

    def transform(self, X: ArrayLike) -> csr_matrix:
        """Return the graph from rows to their nearest training rows.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Rows.

        Returns
        -------
        scipy.sparse.csr_matrix of shape (n, number of training rows)
            `n_neighbors` entries in a row, one more in the mode "distance"; from near to far. Floats,
            also of bytes.
        """
        check_is_fitted(self)
        k, n = parameters.positive_integer(self.n_neighbors, "n_neighbors"), self.n_samples_fit_
        if k >= n and self.mode == "distance":
            raise ValueError(
                f"n_neighbors is {k}; there are {n} training rows, and with mode='distance' it must be less, so that a "
                "training row has as many neighbours beside itself"
            )
        graph = self.kneighbors_graph(X, k + (self.mode == "distance"), self.mode)
        if graph.dtype.kind == "i":  # SciPy's `astype`, by which estimators get floats, puts rows in another order
            graph.data = graph.data.astype(np.float64)
        return graph

    def fit_transform(self, X: ArrayLike, y: object = None) -> csr_matrix:
        """Fit, and return the graph of the training rows, each of which is a neighbour of itself.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite.
        y : object, optional
            Ignored.

        Returns
        -------
        scipy.sparse.csr_matrix of shape (n, n)
            As of `transform`.
        """
        return self.fit(X).transform(X)
