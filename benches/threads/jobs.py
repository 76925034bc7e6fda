"""What is timed: kernels of the catalogue at one size or at many, and models that are trained or asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fastml.kernels.catalogue import ENTRIES, Entry

__all__ = ["SIZES", "Job", "kernel_jobs", "model_jobs"]

#: Numbers that a kernel reads and writes.
SIZES = tuple(10**power for power in range(2, 8))


class Job(NamedTuple):
    """Something to do with a number of threads, None for what is the default; `make` does what is not timed."""

    name: str
    make: Callable[[], Callable[[int | None], object]]


def kernel_jobs(*, sizes: bool) -> Iterator[Job]:
    """Yield a job for each entry of the catalogue, or for each of its `SIZES`."""
    for entry in ENTRIES.values():
        if not sizes:
            yield _kernel_job(entry, entry.key, entry.sizes["default"])
            continue
        for exponent, numbers in enumerate(SIZES, 2):
            yield _kernel_job(entry, f"{entry.key} 10^{exponent}", size_of(entry, numbers))


def size_of(entry: Entry, numbers: int) -> tuple[int, ...]:
    """Return a size of an entry that has about so many numbers in and out: the first axis varies, or as few as go."""
    for name in ("default", "tiny"):
        _, *others = entry.sizes[name]
        one, two = (entry.bytes((n, *others), _dtype_of(entry)) / 4 for n in (1, 2))
        if numbers > one:
            break
    return max(1, round(1 + (numbers - one) / (two - one))), *others


def _dtype_of(entry: Entry) -> str:
    """Return float32, or of an entry that has no floats its first dtype."""
    return next(iter(entry.dtypes))


def _kernel_job(entry: Entry, name: str, size: tuple[int, ...]) -> Job:
    def make() -> Callable[[int | None], object]:
        inputs, kernel = entry.make(size, _dtype_of(entry)), entry.tier("compiled")
        return lambda n_threads: kernel(*inputs.args, **inputs.kwargs, n_threads=n_threads)

    return Job(name, make)


def model_jobs() -> Iterator[Job]:
    """Yield an epoch of each trainer, in small and large batches, and fits and predictions of the other models."""
    import fastml
    from fastml.layers import Conv2D, MaxPool2D, ReLU

    epoch: dict[str, Any] = {"max_iter": 1, "tol": None, "random_state": 0}
    network = {"hidden_layer_sizes": (40,), "solver": "sgd", **epoch}
    images = {"layers": [Conv2D(16), ReLU(), MaxPool2D()], "max_iter": 1, "random_state": 0}
    models: dict[str, tuple[Callable[..., Any], dict[str, Any], tuple[int, ...], int]] = {
        "SGDClassifier, batches of 10": (fastml.SGDClassifier, {"batch_size": 10, **epoch}, (20_000, 90), 2),
        "SGDClassifier, batches of 1000": (fastml.SGDClassifier, {"batch_size": 1000, **epoch}, (100_000, 90), 2),
        "SGDClassifier, ten classes": (fastml.SGDClassifier, {"batch_size": 100, **epoch}, (10_000, 784), 10),
        "SGDRegressor, batches of 100": (fastml.SGDRegressor, {"batch_size": 100, **epoch}, (100_000, 90), 0),
        "MLPClassifier, batches of 10": (fastml.MLPClassifier, {"batch_size": 10, **network}, (20_000, 784), 10),
        "MLPClassifier, batches of 128": (fastml.MLPClassifier, {"batch_size": 128, **network}, (20_000, 784), 10),
        "MLPRegressor, batches of 50": (fastml.MLPRegressor, {"batch_size": 50, **network}, (10_000, 90), 0),
        "ConvNetClassifier": (fastml.ConvNetClassifier, images, (256, 3, 16, 16), 10),
        "LogisticRegression": (fastml.LogisticRegression, {}, (50_000, 90), 2),
        "LinearSVC": (fastml.LinearSVC, {}, (5_000, 40), 2),
        "Ridge": (fastml.Ridge, {}, (50_000, 90), 0),
    }
    for name, model in models.items():
        yield _model_job(name, *model)


def _model_job(
    name: str, model: Callable[..., Any], parameters: dict[str, Any], shape: tuple[int, ...], classes: int
) -> Job:
    def make() -> Callable[[int | None], object]:
        rng = np.random.default_rng(0)
        X = rng.standard_normal(shape, dtype=np.float32)
        score = X.reshape(len(X), math.prod(shape[1:])) @ rng.standard_normal((math.prod(shape[1:]), max(1, classes)))
        y = score[:, 0] if classes == 0 else score.argmax(axis=1) if classes > 2 else (score[:, 0] > 0).astype(np.intp)
        return lambda n_threads: model(**parameters, n_jobs=n_threads).fit(X, y)

    return Job(name, make)
