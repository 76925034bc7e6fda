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
import importlib
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import datasets as datasets
    from . import kernels as kernels
    from . import layers as layers
    from . import plot as plot
    from .convolutional import ConvNetClassifier as ConvNetClassifier
    from .gradient_checking import check_gradient as check_gradient
    from .least_squares import LinearRegression as LinearRegression
    from .least_squares import Ridge as Ridge
    from .logistic_regression import LogisticRegression as LogisticRegression
    from .model_selection import knn_cross_validation as knn_cross_validation
    from .neighbors import KNeighborsClassifier as KNeighborsClassifier
    from .neighbors import KNeighborsRegressor as KNeighborsRegressor
    from .neural_networks import MLPClassifier as MLPClassifier
    from .neural_networks import MLPRegressor as MLPRegressor
    from .sgd import DivergenceWarning as DivergenceWarning
    from .sgd import SGDClassifier as SGDClassifier
    from .sgd import SGDRegressor as SGDRegressor
    from .svm import LinearSVC as LinearSVC
    from .sweeping import sweep as sweep

__version__ = "0.1.0"

__all__ = [
    "ConvNetClassifier",
    "DivergenceWarning",
    "KNeighborsClassifier",
    "KNeighborsRegressor",
    "LinearRegression",
    "LinearSVC",
    "LogisticRegression",
    "MLPClassifier",
    "MLPRegressor",
    "Ridge",
    "SGDClassifier",
    "SGDRegressor",
    "__version__",
    "check_gradient",
    "datasets",
    "kernels",
    "knn_cross_validation",
    "layers",
    "plot",
    "sweep",
]

# Public submodules, and the module of every other public name, imported at first use (PEP 562).
# A test compares both with __all__.
_SUBMODULES = frozenset({"datasets", "kernels", "layers", "plot"})
_HOME = {
    "ConvNetClassifier": "convolutional",
    "DivergenceWarning": "sgd",
    "KNeighborsClassifier": "neighbors",
    "KNeighborsRegressor": "neighbors",
    "LinearRegression": "least_squares",
    "LinearSVC": "svm",
    "LogisticRegression": "logistic_regression",
    "MLPClassifier": "neural_networks",
    "MLPRegressor": "neural_networks",
    "Ridge": "least_squares",
    "SGDClassifier": "sgd",
    "SGDRegressor": "sgd",
    "check_gradient": "gradient_checking",
    "knn_cross_validation": "model_selection",
    "sweep": "sweeping",
}


# Threads that import different modules at the same time can wait for one another in a circle, which
# Python resolves by handing out half-made modules.
_importing = threading.RLock()


def __getattr__(name: str) -> Any:
    if name not in _SUBMODULES and name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _importing:
        module = importlib.import_module(f"{__name__}.{_HOME.get(name, name)}")
    if name in _SUBMODULES:
        return module
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
