"""The benchmarks of the gate: every catalogue entry at a quick size, and every model.

This file runs in the workers, under either revision, so it imports nothing of ``benches``. What is measured is defined
by the head: the worker of the base loads the head's catalogue too, and calls the base's kernels with its inputs.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

__all__ = [
    "MODELS",
    "OF_THREADS",
    "Benchmark",
    "Missing",
    "Prepared",
    "benchmarks",
    "expected_number",
    "load_catalogue",
    "of_entry",
    "quick_size",
]

#: The catalogue's default sizes are for a report; a gate makes do with as many rows less.
FEWER_ROWS = 8


#: What ends the name of a benchmark that runs on all threads.
OF_THREADS = " threads"
#: A model may get so many times as much wrong as it does: processors that sum in another order predict a row or two
#: otherwise.
SLACK = 1.25
ANOTHER = 1e-3


class Missing(Exception):
    """This revision does not have what the benchmark calls."""


@dataclass(frozen=True)
class Prepared:
    """What is timed, and what says how wrong its result is: at most 1 is right, NaN and more are wrong."""

    call: Callable[[], Any]
    error: Callable[[Any], float]


@dataclass(frozen=True)
class Benchmark:
    """One thing to time.

    Attributes
    ----------
    name : str
        Unique, and the same for ever: history and `accepted.toml` go by it.
    kernel : str
        The kernel or model that it belongs to.
    package : str
        Where that is public; what its home in there stands on decides whether the benchmark has to run.
    prepare : callable
        Makes the inputs.
    """

    name: str
    kernel: str
    package: str
    prepare: Callable[[], Prepared] = field(repr=False)


def load_catalogue(folder: Path) -> ModuleType:
    """Return the catalogue that lies in a folder of kernels, as ``fastml.kernels.catalogue``.

    It may be a file or a package. What it reads when it is loaded, such as tables of names, comes from that folder too;
    the kernels that it is about are those installed.
    """
    kernels = importlib.import_module("fastml.kernels")
    before, installed = dict(vars(kernels)), _taken_out(kernels)
    kernels.__path__ = [str(folder)]
    try:
        importlib.import_module(f"{kernels.__name__}.catalogue")
    finally:
        loaded = _taken_out(kernels)
        for name in vars(kernels).keys() - before.keys():
            delattr(kernels, name)
        vars(kernels).update(before)
        sys.modules.update(installed)
    sys.modules.update({name: module for name, module in loaded.items() if name.split(".")[2] == "catalogue"})
    kernels.catalogue = sys.modules[f"{kernels.__name__}.catalogue"]
    return kernels.catalogue


def _taken_out(package: ModuleType) -> dict[str, ModuleType]:
    """Take the modules of a package out of those that are loaded; return them by name."""
    return {name: sys.modules.pop(name) for name in [*sys.modules] if name.startswith(f"{package.__name__}.")}


def benchmarks(entries: dict[str, Any], n_threads: int) -> list[Benchmark]:
    """Return all benchmarks in a fixed order: `entries` of the catalogue, then the models that fastml has.

    Each entry runs with one thread for every dtype, with all threads for its first one (where there are several), and
    at its tiny size, where the call itself is what takes time.
    """
    found = []
    for entry in entries.values():
        first = next(iter(entry.dtypes))
        for dtype in entry.dtypes:
            found.append(of_entry(entry, dtype, quick_size(entry), 1, ""))
        if n_threads > 1:
            found.append(of_entry(entry, first, quick_size(entry), n_threads, OF_THREADS))
        found.append(of_entry(entry, first, entry.sizes["tiny"], 1, " tiny"))
    return found + [
        _of_model(name, model, step) for name, model in MODELS.items() if _has(name) for step in ("fit", "predict")
    ]


def expected_number(entries: dict[str, Any], models: int, n_threads: int) -> int:
    """Return how many benchmarks there must be, counted another way."""
    return sum(len(entry.dtypes) + 1 + (n_threads > 1) for entry in entries.values()) + 2 * models


def quick_size(entry: Any) -> tuple[int, ...]:
    """Return a size that takes about a millisecond: the default one with fewer rows."""
    rows, *rest = entry.sizes["default"]
    return (max(rows // FEWER_ROWS, min(rows, entry.loop_size[0])), *rest)


def of_entry(entry: Any, dtype: str, size: tuple[int, ...], n_threads: int, suffix: str) -> Benchmark:
    def prepare() -> Prepared:
        from fastml import kernels
        from fastml.kernels import catalogue

        if entry.function not in kernels.__all__:
            raise Missing(f"fastml.kernels has no {entry.function}")
        function = entry.tier("compiled")
        inputs = entry.make(size, dtype)

        def error(result: Any) -> float:
            return float(catalogue.check(entry, result, entry.reference(inputs), dtype))

        return Prepared(lambda: function(*inputs.args, **inputs.kwargs, n_threads=n_threads), error)

    name = f"{entry.key} {dtype}{suffix}"
    return Benchmark(name, entry.key, "fastml.kernels", prepare)


# -- models ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """An estimator of fastml, with a problem for it.

    `score` is what it reaches on its own rows; a fit is wrong if it misses more than `SLACK` times as much. Where no
    targets are predicted, it is the mean square of what `method` returns, which is wrong if it is another.
    """

    parameters: dict[str, Any]
    rows: tuple[int, int]
    classes: int | None  # None: regression
    score: float
    image: tuple[int, int, int] | None = None  # shape of a row that is an image: channels, height, width
    method: str = "predict"
    missing: float = 0.0  # share of values that are


#: By their names in fastml. A fit takes some milliseconds to some tens of them.
MODELS = {
    "ConvNetClassifier": Model(
        {"max_iter": 3, "tol": None, "batch_size": 20, "learning_rate_init": 0.01, "random_state": 0},
        (200, 64),
        3,
        0.915,
        (1, 8, 8),
    ),
    "KNNImputer": Model({"n_neighbors": 5}, (1_000, 16), None, 0.9149, method="transform", missing=0.1),
    "KNeighborsClassifier": Model({"n_neighbors": 5}, (1_000, 64), 5, 0.978),
    "KNeighborsRegressor": Model({"n_neighbors": 5}, (1_000, 16), None, 0.767),
    "KNeighborsTransformer": Model({"n_neighbors": 5}, (1_000, 16), None, 8.808, method="transform"),
    "LinearRegression": Model({}, (4_000, 32), None, 0.9923),
    "LinearSVC": Model({"C": 0.01, "max_iter": 200}, (2_000, 32), 2, 0.978),
    "LocalOutlierFactor": Model({"novelty": True}, (1_000, 16), None, 1.1314, method="score_samples"),
    "LogisticRegression": Model({"max_iter": 200}, (2_000, 32), 5, 0.938),
    "NearestCentroid": Model({}, (4_000, 32), 5, 0.934),
    "NearestNeighbors": Model({"n_neighbors": 5}, (1_000, 16), None, 8.218, method="kneighbors"),
    "RadiusNeighborsClassifier": Model({"radius": 10.0}, (1_000, 64), 5, 0.984),
    "RadiusNeighborsRegressor": Model({"radius": 3.5}, (1_000, 16), None, 0.813),
    "Ridge": Model({}, (4_000, 32), None, 0.9923),
    "SGDClassifier": Model({"loss": "log_loss", "max_iter": 3, "tol": None, "random_state": 0}, (4_000, 32), 5, 0.938),
    "SGDRegressor": Model(
        {"max_iter": 3, "tol": None, "learning_rate": "constant", "eta0": 0.1, "random_state": 0},
        (4_000, 32),
        None,
        0.9923,
    ),
    "MLPClassifier": Model(
        {"hidden_layer_sizes": (20,), "max_iter": 2, "learning_rate_init": 0.01, "random_state": 0},
        (4_000, 32),
        5,
        0.916,
    ),
    "MLPRegressor": Model(
        {"hidden_layer_sizes": (20,), "max_iter": 5, "learning_rate_init": 0.01, "random_state": 0},
        (4_000, 32),
        None,
        0.9836,
    ),
}


def _has(name: str) -> bool:
    import fastml

    return name in fastml.__all__


def problem(model: Model) -> tuple[Any, Any]:
    """Make rows that can be told apart, or targets that are nearly linear; float32, seeded."""
    n, columns = model.rows
    random = np.random.default_rng(0)
    X = random.standard_normal((n, columns))
    if model.missing:
        X[random.random(X.shape) < model.missing] = np.nan
        return X.astype(np.float32), np.zeros(n, np.float32)
    if model.classes is None:
        y = X @ random.standard_normal(columns) / math.sqrt(columns) + 0.1 * random.standard_normal(n)
        return X.astype(np.float32), y.astype(np.float32)
    labels = random.integers(model.classes, size=n)
    X += 0.5 * random.standard_normal((model.classes, columns))[labels]
    if model.image is not None:
        X = X.reshape(n, *model.image)
    return X.astype(np.float32), labels


def _of_model(name: str, model: Model, step: str) -> Benchmark:
    def prepare() -> Prepared:
        import warnings

        import fastml

        if name not in fastml.__all__:
            raise Missing(f"fastml has no {name}")
        warnings.simplefilter("ignore")  # a fit of few iterations says that it did not converge
        X, y = problem(model)
        make = getattr(fastml, name)

        def fit() -> Any:
            return make(**model.parameters, n_jobs=1).fit(X, y)

        if step == "fit":
            return Prepared(fit, lambda fitted: model_error(model, fitted, X, y))
        fitted = fit()
        method = getattr(fitted, model.method)
        return Prepared(lambda: method(X), lambda found: prediction_error(model, found, y))

    return Benchmark(f"{name}.{step}", name, "fastml", prepare)


def model_error(model: Model, fitted: Any, X: Any, y: Any) -> float:
    """Return how far a fit misses its score: at most 1 is right."""
    return prediction_error(model, getattr(fitted, model.method)(X), y)


def prediction_error(model: Model, found: Any, y: Any) -> float:
    """Return the share of wrong predictions (of unexplained variance) over what is allowed."""
    if model.method != "predict":
        return abs(mean_square(found) / model.score - 1) / ANOTHER
    if np.shape(found) != np.shape(y):
        return math.inf
    if model.classes is not None:
        wrong = float(np.mean(found != y))
    else:
        residual = np.asarray(found, np.float64) - y
        wrong = float(np.mean(residual**2) / np.var(np.asarray(y, np.float64)))
    return wrong / (SLACK * (1 - model.score))


def mean_square(found: Any) -> float:
    """Return the mean square of what is no prediction: distances without indices, the entries of a graph, columns."""
    numbers = found[0] if isinstance(found, tuple) else found.data if hasattr(found, "tocsr") else found
    return float(np.mean(np.square(numbers, dtype=np.float64)))
