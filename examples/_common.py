"""What the examples share: their arguments, their data and a stopwatch."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from sklearn.datasets import load_breast_cancer

from fastml.datasets import (
    Dataset,
    load_cifar10,
    load_digits,
    load_mnist,
    load_year_prediction_msd,
    load_year_prediction_small,
)


def arguments(
    description: str, argv: Sequence[str] | None = None, more: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """Read the command line; `more` adds what one example alone understands."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="the real size, on data from the data folder")
    parser.add_argument("--data", metavar="FOLDER", help="the data folder (default: what FASTML_DATA names)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads to use (default: all)")
    if more is not None:
        more(parser)
    return parser.parse_args(argv)


def digits_or_cifar10(options: argparse.Namespace, batches: Sequence[int] | None = (1,)) -> Dataset:
    """scikit-learn's digits, or with --full CIFAR-10, of which the known figures are; None: all that is there."""
    dataset = load_cifar10(options.data, batches=batches) if options.full else load_digits()
    print(f"{dataset.name}: {dataset.note}")
    return dataset


def digits_or_mnist(options: argparse.Namespace) -> Dataset:
    """scikit-learn's digits, or with --full MNIST."""
    dataset = load_mnist(options.data) if options.full else load_digits()
    print(f"{dataset.name}: {dataset.note}")
    return dataset


@dataclass(frozen=True)
class BinaryTask:
    """Standardised rows and labels 0 and 1, in three parts."""

    name: str
    X_train: NDArray[Any] = field(repr=False)
    t_train: NDArray[np.intp] = field(repr=False)
    X_val: NDArray[Any] = field(repr=False)
    t_val: NDArray[np.intp] = field(repr=False)
    X_test: NDArray[Any] = field(repr=False)
    t_test: NDArray[np.intp] = field(repr=False)


def tumours_or_songs(options: argparse.Namespace, dtype: DTypeLike = np.float64, seed: int = 0) -> BinaryTask:
    """scikit-learn's breast_cancer, or with --full songs: which are from after 2000?

    The songs are YearPredictionMSD where its file is there, else its small relative. Mean and standard
    deviation (ddof = 1) are those of all training rows; after that 50,000 shuffled training rows become the
    validation set, of the smaller sets a fifth.
    """
    if options.full:
        try:
            songs = load_year_prediction_msd(options.data, dtype=dtype)
        except FileNotFoundError:
            songs = load_year_prediction_small(options.data, dtype=dtype)
        name, note = songs.name, songs.note
        X, X_test = songs.X_train, songs.X_test
        t, t_test = (songs.y_train > 2000).astype(np.intp), (songs.y_test > 2000).astype(np.intp)
    else:
        rows, labels = load_breast_cancer(return_X_y=True)
        name, note = "breast_cancer", "455 training and 114 test tumours, from scikit-learn"
        X, X_test = rows[:455].astype(dtype), rows[455:].astype(dtype)
        t, t_test = labels[:455].astype(np.intp), labels[455:].astype(np.intp)
    print(f"{name}: {note}")
    mean, std = X.mean(axis=0, dtype=np.float64), X.std(axis=0, ddof=1, dtype=np.float64)
    X, X_test = (((part - mean) / std).astype(dtype) for part in (X, X_test))
    order = np.random.default_rng(seed).permutation(len(X))
    n_val = 50_000 if len(X) > 250_000 else len(X) // 5
    val, train = order[:n_val], order[n_val:]
    return BinaryTask(name, X[train], t[train], X[val], t[val], X_test, t_test)


def songs_or_synthetic(options: argparse.Namespace, seed: int = 0) -> BinaryTask:
    """`tumours_or_songs`, or with --synthetic generated rows of the shape of YearPredictionMSD."""
    if not options.synthetic:
        return tumours_or_songs(options)
    print("synthetic: 463,715 training and 51,630 test rows of 90 normal features, labels from a logistic model")
    rng = np.random.default_rng(seed)
    w = rng.normal(size=90) / np.sqrt(90)

    def part(n: int) -> tuple[NDArray[Any], NDArray[np.intp]]:
        X = rng.normal(size=(n, 90))
        return X, (X @ w + 0.3 + rng.logistic(size=n) > 0).astype(np.intp)

    return BinaryTask("synthetic", *part(413_715), *part(50_000), *part(51_630))


def two_digits(options: argparse.Namespace, constant: bool = True) -> tuple[BinaryTask, tuple[int, ...]]:
    """Images of the digits 2 (label 0) and 3 (label 1) with pixels from 0 to 1, and their shape.

    The last sixth of the training images is the validation set. A constant 1 stands before the pixels, so that the
    first weight is an intercept that is penalised with the others.
    """
    dataset = digits_or_mnist(options)
    brightest = np.float64(255 if options.full else 16)

    def part(pixels: NDArray[Any], digits: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        chosen = (digits == 2) | (digits == 3)
        X = pixels[chosen] / brightest
        return np.column_stack([np.ones(len(X)), X]) if constant else X, digits[chosen] - 2

    X, t = part(dataset.X_train, dataset.y_train)
    n = len(X) * 5 // 6
    return BinaryTask(
        f"2 and 3 of {dataset.name}", X[:n], t[:n], X[n:], t[n:], *part(dataset.X_test, dataset.y_test)
    ), dataset.image_shape


def timed(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[float, Any]:
    """Return the seconds of one call, and its result."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return time.perf_counter() - start, result


def verdict(found: str, expected: str | None) -> str:
    """Say how a figure stands to the known one, if there is one."""
    if expected is None:
        return found
    return f"{found} (as known)" if found == expected else f"{found} (DIFFERS: {expected} is known)"
