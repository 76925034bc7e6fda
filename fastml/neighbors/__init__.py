"""Nearest-neighbour models: exact, on `fastml.kernels.k_nearest`, with scikit-learn's interface.

Two decisions hold for all that is here. Neighbours are ordered by (distance, row of the training
data), so that a tie in distance is always settled the same way. And what is summed over neighbours is
summed in that order, one after the other, so that a prediction depends on its row alone: the same bits
in any batch, for any number of threads, and in `fastml.knn_cross_validation`.
"""

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_names

if TYPE_CHECKING:
    from ._centroids import NearestCentroid as NearestCentroid
    from ._classification import KNeighborsClassifier as KNeighborsClassifier
    from ._outliers import LocalOutlierFactor as LocalOutlierFactor
    from ._radius_models import RadiusNeighborsClassifier as RadiusNeighborsClassifier
    from ._radius_models import RadiusNeighborsRegressor as RadiusNeighborsRegressor
    from ._radius_models import RadiusNeighborsTransformer as RadiusNeighborsTransformer
    from ._regression import KNeighborsRegressor as KNeighborsRegressor
    from ._unsupervised import KNeighborsTransformer as KNeighborsTransformer
    from ._unsupervised import NearestNeighbors as NearestNeighbors

__all__ = [
    "KNeighborsClassifier",
    "KNeighborsRegressor",
    "KNeighborsTransformer",
    "LocalOutlierFactor",
    "NearestCentroid",
    "NearestNeighbors",
    "RadiusNeighborsClassifier",
    "RadiusNeighborsRegressor",
    "RadiusNeighborsTransformer",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "KNeighborsClassifier": "_classification",
        "KNeighborsRegressor": "_regression",
        "KNeighborsTransformer": "_unsupervised",
        "LocalOutlierFactor": "_outliers",
        "NearestCentroid": "_centroids",
        "NearestNeighbors": "_unsupervised",
        "RadiusNeighborsClassifier": "_radius_models",
        "RadiusNeighborsRegressor": "_radius_models",
        "RadiusNeighborsTransformer": "_radius_models",
    },
)
