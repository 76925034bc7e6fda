"""Choose a model: cross-validation of nearest neighbours, and sweeps over settings."""

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_names

if TYPE_CHECKING:
    from ._knn_cross_validation import KNNCrossValidation as KNNCrossValidation
    from ._knn_cross_validation import knn_cross_validation as knn_cross_validation
    from ._sweep import SweepResult as SweepResult
    from ._sweep import sweep as sweep

__all__ = ["KNNCrossValidation", "SweepResult", "knn_cross_validation", "sweep"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "KNNCrossValidation": "_knn_cross_validation",
        "SweepResult": "_sweep",
        "knn_cross_validation": "_knn_cross_validation",
        "sweep": "_sweep",
    },
)
