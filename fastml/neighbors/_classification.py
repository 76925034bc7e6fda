"""Classification by the votes of the nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin

from ..utils.sample_weight import weights_of_classes
from ..utils.validation import CheckedScore, unchanged_if_refused
from ._base import KNeighbors
from .voting import NeighborWeights, class_factors, most_votes, numbered_labels, vote_shares

__all__ = ["KNeighborsClassifier"]


class KNeighborsClassifier(CheckedScore, ClassifierMixin, KNeighbors):
    """Classification by a vote of the nearest neighbours.

    The label with most votes wins; of labels with equally many, the smallest. scikit-learn's parameters
    of the same names mean the same.

    Parameters
    ----------
    n_neighbors : int, default=5
        Neighbours that take part in a prediction.
    weights : {"uniform", "distance"}, callable or None, default="uniform"
        What a neighbour counts: all the same (None means that too); the inverse of its distance,
        where neighbours at distance 0, if there are any, are the only ones to count; or what a
        function makes of the distances, a float64 array (n, k), as an array of the same shape, not
        negative and not NaN. Where some of its weights are infinite, these alone count, all the same.
    algorithm : {"auto", "brute", "kd_tree", "ball_tree"}, default="auto"
        How neighbours are looked for; they are the same. "brute" makes no tree, "kd_tree" and "ball_tree" (there is one
        kind) make one at the first search, "auto" when the queries so far have shown that it repays.
    leaf_size : int, default=30
        Accepted, since scikit-learn has it, and not used: results do not depend on how large the leaves of a tree are.
    p : {1, 2, inf}, default=2
        Power of the Minkowski metric; used for ``metric="minkowski"`` only.
    metric : str, default="minkowski"
        "minkowski", or by name: "l1", "manhattan" or "cityblock"; "l2" or "euclidean"; "linf" or
        "chebyshev"; "sqeuclidean"; "cosine"; of packed bits (uint8) "hamming" and "jaccard".
    metric_params : dict or None, default=None
        ``{"w": weights}`` of the columns, see `fastml.kernels.k_nearest`.
    n_jobs : int or None, default=None
        Threads. Unlike in scikit-learn None means all that the process may use (see
        `fastml.kernels`); negative numbers count from there, -1 is all, -2 all but one.
    class_weight : dict, "balanced", list of these or None, default=None
        Factors of the votes for the labels: ``{label: factor}``, or "balanced", the inverse of their weights in the
        training rows; for several outputs also a list with one of them for each. Which neighbours vote does not depend
        on it. scikit-learn's models have no such parameter.

    Attributes
    ----------
    classes_ : ndarray of shape (C,), or a list of them for several outputs
        The labels, sorted.
    effective_metric_ : str
        The metric in use: "manhattan", "euclidean", "chebyshev", "sqeuclidean", "cosine", "hamming" or "jaccard"; of
        weighted columns and ``metric="minkowski"`` this name.
    effective_metric_params_ : dict
        The weights of the columns, and what "minkowski" needs, where there are weights.
    n_samples_fit_, n_features_in_ : int
        Rows and columns of the training data.
    feature_names_in_ : ndarray of shape (D,)
        Names of the columns, where `X` has names that are all strings.
    outputs_2d_ : bool
        Whether the targets had several columns.

    Notes
    -----
    uint8 data stay uint8: an eighth of the memory of float64, exact distances, and several times the
    speed. `fit` keeps a reference to `X` where its dtype and layout suit the kernels (C order; uint8,
    float32 or float64), a copy otherwise. Data and queries of different dtypes are brought to a common
    one at every call. Searches keep a tree, or for few queries of long rows a copy rounded to bytes, when all queries
    so far repay it; pickles do not have it.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastml import KNeighborsClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = KNeighborsClassifier(n_neighbors=3).fit(X[:1500], y[:1500])
    >>> round(model.score(X[1500:], y[1500:]), 3)
    0.96
    >>> model.predict(X[1500:1505])
    array([1, 7, 4, 6, 3])
    """

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
        class_weight: dict[Any, float] | Literal["balanced"] | list[Any] | None = None,
    ) -> None:
        super().__init__(
            n_neighbors,
            weights=weights,
            algorithm=algorithm,
            leaf_size=leaf_size,
            p=p,
            metric=metric,
            metric_params=metric_params,
            n_jobs=n_jobs,
        )
        self.class_weight = class_weight

    @unchanged_if_refused
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Keep the training rows and number their labels.

        Parameters
        ----------
        X : array-like of shape (n, D)
            Training rows, finite.
        y : array-like or sparse matrix of shape (n,) or (n, outputs)
            Labels: numbers or strings. A sparse matrix is made dense. One column (n, 1) is taken as (n,), with
            scikit-learn's warning.
        sample_weight : array-like of shape (n,) or float, optional
            Weights, finite and not negative: a row of weight w is w equal rows. It fills w of the `n_neighbors` places;
            neighbours are taken in their order until their weights reach that number, and the last counts with what is
            left. A row of weight 0 is not there, for `kneighbors` and `classes_` neither.

        Returns
        -------
        self
        """
        targets = self._fit(X, y, sample_weight, y_numeric=False)
        self.outputs_2d_ = targets.ndim == 2 and targets.shape[1] > 1
        self._labels, self._y = numbered_labels(targets, self._present)
        self.classes_ = self._labels if self.outputs_2d_ else self._labels[0]
        self._class_factors = self._checked_class_weight()
        return self

    def _checked_class_weight(self) -> list[NDArray[np.float64] | None]:
        """Return the factors of the votes for the classes of each output; None where all count the same."""
        if self.class_weight is None:
            return [None] * len(self._labels)
        given = self.class_weight if isinstance(self.class_weight, list) else [self.class_weight] * len(self._labels)
        if self.class_weight is given and not self.outputs_2d_:
            raise ValueError("class_weight is a list, which is for several outputs; y has one")
        if len(given) != len(self._labels):
            raise ValueError(f"class_weight has {len(given)} entries, y has {len(self._labels)} outputs")
        weight = None if self._row_weights is None else self._row_weights.weight
        return [
            None if one is None else class_factors(weights_of_classes(one, labels, codes, weight))
            for one, labels, codes in zip(given, self._labels, self._y, strict=True)
        ]

    def predict(self, X: ArrayLike | None) -> NDArray[Any]:
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n, D), or None
            The queries; None predicts each training row from the others.

        Returns
        -------
        ndarray of shape (n,) or (n, outputs)
            The label with most votes, the smallest on a tie.
        """
        weights, indices = self._weighted_neighbors(X)
        predicted = np.empty((len(indices), len(self._labels)), self._labels[0].dtype)
        for output, (labels, codes, factors) in enumerate(self._outputs()):
            predicted[:, output] = labels[most_votes(codes, indices, len(labels), weights, factors)]
        return predicted if self.outputs_2d_ else predicted[:, 0]

    def predict_proba(self, X: ArrayLike | None) -> NDArray[np.float64] | list[NDArray[np.float64]]:
        """Predict each label's share of the votes.

        Parameters
        ----------
        X : array-like of shape (n, D), or None
            The queries; None predicts each training row from the others.

        Returns
        -------
        ndarray of shape (n, C), or a list of them for several outputs
            Columns in the order of `classes_`; rows sum to 1.
        """
        weights, indices = self._weighted_neighbors(X)
        shares = [
            vote_shares(codes, indices, len(labels), weights, factors) for labels, codes, factors in self._outputs()
        ]
        return shares if self.outputs_2d_ else shares[0]

    def _outputs(self) -> Iterator[tuple[NDArray[Any], NDArray[np.intp], NDArray[np.float64] | None]]:
        """Yield the labels of each output, their numbers in the training rows, and the factors of their votes."""
        return zip(self._labels, self._y, self._class_factors, strict=True)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
