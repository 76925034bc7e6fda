"""Published figures on CIFAR-10 and MNIST that the kernels must reproduce to the last printed digit.

CIFAR-10: the first 500 test images against the first 5,000 training images, raw values 0 to 255.
The Frobenius norms of the three distance matrices, and the error rates of nearest-neighbour votes
(majority, smallest label on a tie). MNIST: the number of errors of the nearest neighbour on all of
it, which takes 470 thousand million terms and so runs with ``--full`` only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastml.datasets import Dataset
from fastml.kernels.distances.arguments import METRICS

N_TEST, N_TRAIN = 500, 5000
NORMS = {"l2": "7906696.077", "l1": "366584605.652", "linf": "343910.321"}
ERROR_RATES = {
    ("l2", 1): "0.726",
    ("l2", 7): "0.726",
    ("l2", 10): "0.718",
    ("l1", 1): "0.710",
    ("l1", 7): "0.698",
    ("linf", 1): "0.848",
}
MNIST_ERRORS = "309"
#: Seconds for one 500 × 5,000 matrix, as published by others on their machines.
PUBLISHED_SECONDS = {"loops": (16.2, 38.3), "vectorized": (0.49, 0.36)}


@dataclass(frozen=True)
class Answer:
    """A figure that is known beforehand.

    Attributes
    ----------
    workload : str
        ``"W8"`` or ``"W9"``.
    data, what, dtype : str
        Which data, which figure, and the dtype of the arrays that the kernel got.
    expected, found : str
        Both printed with the digits of the published figure.
    seconds : float
        What the kernel took for it, all threads.
    """

    workload: str
    data: str
    what: str
    dtype: str
    expected: str
    found: str
    seconds: float

    @property
    def verdict(self) -> str:
        return "matches" if self.found == self.expected else "differs"


@dataclass(frozen=True)
class Question:
    """A computation that yields answers; several answers may share one."""

    name: str
    ask: Callable[[], list[Answer]]


def questions(dataset: Dataset, *, full: bool, n_threads: int | None = None) -> list[Question]:
    """Return what is known about `dataset`; empty where it lacks the rows that the figures are about."""
    kernels = _Kernels(n_threads)
    if dataset.name == "MNIST" and full and (len(dataset.X_train), len(dataset.X_test)) == (60000, 10000):
        return [Question("W9 errors l2 uint8 MNIST", lambda: [_mnist_errors(dataset, kernels)])]
    if dataset.name != "CIFAR-10" or len(dataset.X_train) < N_TRAIN or len(dataset.X_test) < N_TEST:
        return []
    if dataset.batches[0] != 1:  # the figures are about the first rows of the first batch
        return []
    found = []
    for metric in NORMS:
        for dtype in ("uint8", "float32", "float64"):
            found.append(Question(f"W8 norm {metric} {dtype} CIFAR-10", _bind(_norm, dataset, kernels, metric, dtype)))
    for metric in NORMS:
        for dtype in ("uint8", "float32"):
            name = f"W9 error rate {metric} {dtype} CIFAR-10"
            found.append(Question(name, _bind(_error_rates, dataset, kernels, metric, dtype)))
    return found


def majority_vote(labels: NDArray[np.intp], n_classes: int) -> NDArray[np.intp]:
    """Return the most frequent label of every row; the smallest of them on a tie."""
    votes = np.zeros((len(labels), n_classes), np.intp)
    np.add.at(votes, (np.arange(len(labels))[:, None], labels), 1)
    winners: NDArray[np.intp] = votes.argmax(axis=1)  # argmax takes the first of equals
    return winners


class _Kernels:
    """The compiled functions, loaded when first used, at a given number of threads."""

    def __init__(self, n_threads: int | None) -> None:
        self.n_threads = n_threads

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> tuple[float, Any]:
        """Return the seconds and the result of a call whose code is compiled already."""
        from fastml import kernels

        function = getattr(kernels, name)
        small = [a[:12] if isinstance(a, np.ndarray) else a for a in args]
        function(*small, **kwargs, n_threads=self.n_threads)
        start = time.perf_counter()
        result = function(*args, **kwargs, n_threads=self.n_threads)
        return time.perf_counter() - start, result


def _bind(function: Callable[..., list[Answer]], *args: Any) -> Callable[[], list[Answer]]:
    return lambda: function(*args)


def _images(dataset: Dataset, dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    return dataset.X_test[:N_TEST].astype(dtype), dataset.X_train[:N_TRAIN].astype(dtype)


def _norm(dataset: Dataset, kernels: _Kernels, metric: str, dtype: str) -> list[Answer]:
    X, Y = _images(dataset, dtype)
    if metric == "l2" and dtype == "uint8":
        # Exact integers up to the last step: the squared norm is the sum of the squared distances.
        seconds, squares = kernels("pairwise_l2", X, Y, squared=True)
        norm = math.sqrt(int(squares.sum(dtype=np.int64)))
    else:
        seconds, D = kernels(f"pairwise_{metric}", X, Y)
        norm = float(np.sqrt(np.square(D, dtype=np.float64).sum()))
    what = f"Frobenius norm of the {N_TEST} × {N_TRAIN:,} {METRICS[metric].title} distances"
    return [Answer("W8", dataset.name, what, dtype, NORMS[metric], f"{norm:.3f}", seconds)]


def _error_rates(dataset: Dataset, kernels: _Kernels, metric: str, dtype: str) -> list[Answer]:
    X, Y = _images(dataset, dtype)
    ks = [k for m, k in ERROR_RATES if m == metric]
    seconds, (_, indices) = kernels("k_nearest", X, Y, max(ks), metric=metric)
    answers = []
    for k in ks:
        predicted = majority_vote(dataset.y_train[indices[:, :k]], len(dataset.target_names))
        rate = float(np.mean(predicted != dataset.y_test[:N_TEST]))
        what = f"error rate of {k}-NN, {METRICS[metric].title}"
        answers.append(Answer("W9", dataset.name, what, dtype, ERROR_RATES[metric, k], f"{rate:.3f}", seconds))
    return answers


def _mnist_errors(dataset: Dataset, kernels: _Kernels) -> Answer:
    seconds, (_, indices) = kernels("k_nearest", dataset.X_test, dataset.X_train, 1, metric="l2")
    errors = int(np.sum(dataset.y_train[indices[:, 0]] != dataset.y_test))
    what = "errors of 1-NN, L2, on 10,000 test images"
    return Answer("W9", "MNIST", what, "uint8", MNIST_ERRORS, str(errors), seconds)
