"""Exact machine-learning kernels, compiled with Numba, beside their loop and NumPy twins.

>>> import numpy as np
>>> from fastml import kernels
>>> kernels.pairwise_l1(np.zeros((1, 3)), np.ones((2, 3)))
array([[3., 3.]])

`fastml.kernels` holds the compiled functions, `fastml.kernels.reference` two readable forms of each;
on them stand models with scikit-learn's interface. `fastml.check_gradient` compares a gradient with
differences, `fastml.datasets` loads data to try things on, `fastml.plot` draws results. Nothing is
imported before it is used: ``import fastml`` costs next to nothing, NumPy is loaded with
`fastml.kernels`, Numba when the first kernel is touched, scikit-learn with the first model.

``python -m fastml info`` shows what the kernels run on, ``python -m fastml warmup`` compiles them.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - SciPy wants it, and nothing can once the main thread has ended
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import datasets as datasets
    from . import impute as impute
    from . import inspection as inspection
    from . import kernels as kernels
    from . import layers as layers
    from . import linear_model as linear_model
    from . import model_selection as model_selection
    from . import neighbors as neighbors
    from . import neural_network as neural_network
    from . import plot as plot
    from . import svm as svm
    from .impute import KNNImputer as KNNImputer
    from .inspection import check_gradient as check_gradient
    from .linear_model import LinearRegression as LinearRegression
    from .linear_model import LogisticRegression as LogisticRegression
    from .linear_model import Ridge as Ridge
    from .linear_model import SGDClassifier as SGDClassifier
    from .linear_model import SGDRegressor as SGDRegressor
    from .model_selection import knn_cross_validation as knn_cross_validation
    from .model_selection import sweep as sweep
    from .neighbors import KNeighborsClassifier as KNeighborsClassifier
    from .neighbors import KNeighborsRegressor as KNeighborsRegressor
    from .neighbors import KNeighborsTransformer as KNeighborsTransformer
    from .neighbors import LocalOutlierFactor as LocalOutlierFactor
    from .neighbors import NearestCentroid as NearestCentroid
    from .neighbors import NearestNeighbors as NearestNeighbors
    from .neighbors import RadiusNeighborsClassifier as RadiusNeighborsClassifier
    from .neighbors import RadiusNeighborsRegressor as RadiusNeighborsRegressor
    from .neural_network import ConvNetClassifier as ConvNetClassifier
    from .neural_network import MLPClassifier as MLPClassifier
    from .neural_network import MLPRegressor as MLPRegressor
    from .svm import LinearSVC as LinearSVC
    from .training.run import DivergenceWarning as DivergenceWarning

__version__ = "0.1.0"

__all__ = [
    "ConvNetClassifier",
    "DivergenceWarning",
    "KNNImputer",
    "KNeighborsClassifier",
    "KNeighborsRegressor",
    "KNeighborsTransformer",
    "LinearRegression",
    "LinearSVC",
    "LocalOutlierFactor",
    "LogisticRegression",
    "MLPClassifier",
    "MLPRegressor",
    "NearestCentroid",
    "NearestNeighbors",
    "RadiusNeighborsClassifier",
    "RadiusNeighborsRegressor",
    "Ridge",
    "SGDClassifier",
    "SGDRegressor",
    "__version__",
    "check_gradient",
    "datasets",
    "impute",
    "inspection",
    "kernels",
    "knn_cross_validation",
    "layers",
    "linear_model",
    "model_selection",
    "neighbors",
    "neural_network",
    "plot",
    "svm",
    "sweep",
]

# Public submodules, and the module of every other public name, imported at first use (PEP 562).
# A test compares both with __all__.
_SUBMODULES = frozenset(
    {
        "datasets", "impute", "inspection", "kernels", "layers", "linear_model", "model_selection", "neighbors",
        "neural_network", "plot", "svm",
    }
)  # fmt: skip
_HOME = {
    "ConvNetClassifier": "neural_network",
    "DivergenceWarning": "training.run",
    "KNNImputer": "impute",
    "KNeighborsClassifier": "neighbors",
    "KNeighborsRegressor": "neighbors",
    "KNeighborsTransformer": "neighbors",
    "LinearRegression": "linear_model",
    "LinearSVC": "svm",
    "LocalOutlierFactor": "neighbors",
    "LogisticRegression": "linear_model",
    "MLPClassifier": "neural_network",
    "MLPRegressor": "neural_network",
    "NearestCentroid": "neighbors",
    "NearestNeighbors": "neighbors",
    "RadiusNeighborsClassifier": "neighbors",
    "RadiusNeighborsRegressor": "neighbors",
    "Ridge": "linear_model",
    "SGDClassifier": "linear_model",
    "SGDRegressor": "linear_model",
    "check_gradient": "inspection",
    "knn_cross_validation": "model_selection",
    "sweep": "model_selection",
}


def __getattr__(name: str) -> Any:
    if name not in _SUBMODULES and name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .utils.lazy import imported

    module = imported(f"{__name__}.{_HOME.get(name, name)}")
    if name in _SUBMODULES:
        return module
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
