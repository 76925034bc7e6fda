"""Networks of fully connected layers, and of layers on images."""

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_names

if TYPE_CHECKING:
    from ._convolutional import ConvNetClassifier as ConvNetClassifier
    from ._multilayer_perceptron import MLPClassifier as MLPClassifier
    from ._multilayer_perceptron import MLPRegressor as MLPRegressor

__all__ = ["ConvNetClassifier", "MLPClassifier", "MLPRegressor"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ConvNetClassifier": "_convolutional",
        "MLPClassifier": "_multilayer_perceptron",
        "MLPRegressor": "_multilayer_perceptron",
    },
)
