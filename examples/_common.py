"""What the examples share: their arguments, their data and a stopwatch."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

from fastml.datasets import Dataset, load_cifar10, load_digits


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


def digits_or_cifar10(options: argparse.Namespace) -> Dataset:
    """scikit-learn's digits, or with --full CIFAR-10, of which the known figures are."""
    dataset = load_cifar10(options.data, batches=[1]) if options.full else load_digits()
    print(f"{dataset.name}: {dataset.note}")
    return dataset


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
