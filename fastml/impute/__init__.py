"""Missing values, filled in from the rows that are nearest in what is known."""

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_names

if TYPE_CHECKING:
    from ._knn import KNNImputer as KNNImputer

__all__ = ["KNNImputer"]

__getattr__, __dir__ = lazy_names(__name__, {"KNNImputer": "_knn"})
