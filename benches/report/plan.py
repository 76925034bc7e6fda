"""What a report measures: cases, questions whose answers are known, and studies, as its options select them.

A case is one entry of the catalogue, one dtype and one source of data: generated arrays, or a real data set. Its loop
tier has a part of its own, because a plain Python loop over the whole would take minutes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastml.datasets import Dataset
from fastml.kernels.catalogue import select

from .known_answers import Question, questions

__all__ = ["GENERATED", "Case", "NothingSelected", "Options", "Plan", "generated_cases", "make_plan", "real_cases"]

GENERATED = "generated"
#: Families whose entries take two point sets, and therefore run on images as they are.
_POINT_FAMILIES = ("distances", "neighbors")
#: Query rows and training rows taken of each data set: by default, and with --full.
_ROWS = {
    "digits": ((360, 1437), (360, 1437)),
    "MNIST": ((100, 5000), (1000, 10000)),
    "CIFAR-10": ((50, 2500), (500, 5000)),
}
_DEFAULT_ROWS = ((50, 2500), (500, 5000))
_K = 5


@dataclass(frozen=True)
class Case:
    """One line of the report.

    Attributes
    ----------
    entry : Entry
        The catalogue's entry.
    dtype : str
        Input dtype.
    data : str
        ``"generated"``, for a special size with its name behind, or a data set's name.
    size, loop_size : tuple of int
        The whole, and the part for the loop tier; meaning as in ``entry.axes``.
    inputs, loop_inputs : callable
        Make the arguments, only when they are needed.
    """

    entry: Any
    dtype: str
    data: str
    size: tuple[int, ...]
    loop_size: tuple[int, ...]
    inputs: Callable[[], Any]
    loop_inputs: Callable[[], Any]

    @property
    def name(self) -> str:
        """What ``--only`` is compared with, such as ``k_nearest[l1] float32 MNIST``."""
        return f"{self.entry.key} {self.dtype} {self.data}"


def generated_cases(entries: Mapping[str, Any], *, full: bool, dtypes: Iterable[str] | None = None) -> list[Case]:
    """Return a case per entry and dtype on arrays that the catalogue makes.

    By default the default size, in float32, and in uint8 where an entry takes it; with `full` the
    full size and whatever special sizes an entry has, in every dtype of the entry.
    """
    wanted = None if dtypes is None else set(dtypes)
    if wanted is None and not full:
        wanted = {"float32", "uint8"}
    cases = []
    for entry in entries.values():
        special = [name for name in entry.sizes if name not in ("tiny", "default", "full")] if full else []
        for name in ("full" if full else "default", *special):
            size = tuple(entry.sizes[name])
            loop_size = tuple(entry.loop_size)
            # Where the whole is no more work than the part, the loop runs on the whole.
            if entry.work(size) <= entry.work(loop_size):
                loop_size = size
            data = f"{GENERATED} {name}" if name in special else GENERATED
            cases += [
                Case(entry, dtype, data, size, loop_size, _maker(entry, size, dtype), _maker(entry, loop_size, dtype))
                for dtype in entry.dtypes
                if wanted is None or dtype in wanted
            ]
    # Grouped as they are shown.
    order = ["float32", "float64", "uint8"]
    return sorted(cases, key=lambda case: (case.data, order.index(case.dtype) if case.dtype in order else 3))


def real_cases(
    entries: Mapping[str, Any], dataset: Dataset, *, full: bool, dtypes: Iterable[str] | None = None
) -> list[Case]:
    """Return cases for distances and neighbours between test and training images of `dataset`."""
    wanted = set(dtypes) if dtypes is not None else {"float32", "uint8"} if full else {"float32"}
    n, m = _ROWS.get(dataset.name, _DEFAULT_ROWS)[full]
    n, m, d = min(n, len(dataset.X_test)), min(m, len(dataset.X_train)), dataset.X_train.shape[1]
    cases = []
    for entry in entries.values():
        if entry.family not in _POINT_FAMILIES:
            continue
        # About as many terms as the catalogue's own part, in a nearly square piece.
        pairs = max(1, math.prod(entry.loop_size[:3]) // d)
        loop_n = max(1, min(n, math.isqrt(pairs // 2)))
        loop_m = max(_K, min(m, pairs // loop_n))
        for dtype in entry.dtypes:
            if dtype not in wanted:
                continue
            cases.append(
                Case(
                    entry,
                    dtype,
                    dataset.name,
                    _point_size(entry, n, m, d),
                    _point_size(entry, loop_n, loop_m, d),
                    _image_maker(entry, dataset, dtype, n, m),
                    _image_maker(entry, dataset, dtype, loop_n, loop_m),
                )
            )
    return sorted(cases, key=lambda case: case.dtype)


def _maker(entry: Any, size: tuple[int, ...], dtype: str) -> Callable[[], Any]:
    return lambda: entry.make(size, dtype)


def _point_size(entry: Any, n: int, m: int, d: int) -> tuple[int, ...]:
    known = {"n": n, "m": m, "d": d, "k": _K}
    return tuple(known[axis] for axis in entry.axes)


def _image_maker(entry: Any, dataset: Dataset, dtype: str, n: int, m: int) -> Callable[[], Any]:
    def make() -> Any:
        # The variant's own arguments (metric, squared ...) come from the catalogue, the points do not.
        pattern = entry.make(tuple(entry.sizes["tiny"]), dtype)
        X = np.ascontiguousarray(dataset.X_test[:n].astype(dtype))
        Y = np.ascontiguousarray(dataset.X_train[:m].astype(dtype))
        rest = (_K, *pattern.args[3:]) if "k" in entry.axes else pattern.args[2:]
        return type(pattern)((X, Y, *rest), dict(pattern.kwargs))

    return make


class NothingSelected(ValueError):
    """The pattern of ``--only`` matches no case."""


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    full: bool = False
    only: str | None = None
    data: Path | None = None
    n_threads: int | None = None
    dtypes: tuple[str, ...] | None = None
    seconds: float | None = None


@dataclass
class Plan:
    """Cases and questions in the order in which they run."""

    cases: list[Case]
    questions: list[Question]
    studies: list[str]
    data: list[dict[str, Any]]


def make_plan(options: Options, catalogue: Any, n_threads: int, studies: Iterable[str] = ()) -> Plan:
    """Collect the cases, the questions whose answers are known, and the studies that `options` select.

    Raises
    ------
    NothingSelected
        If ``--only`` matches nothing.
    FileNotFoundError
        If ``--data`` names a folder that holds none of the data sets.
    """
    known = {dtype for entry in catalogue.ENTRIES.values() for dtype in entry.dtypes}
    if unknown := set(options.dtypes or ()) - known:
        raise NothingSelected(
            f"no kernel takes {', '.join(sorted(unknown))}; the dtypes are {', '.join(sorted(known))}"
        )
    cases = generated_cases(catalogue.ENTRIES, full=options.full, dtypes=options.dtypes)
    asked: list[Question] = []
    described: list[dict[str, Any]] = []
    for dataset in _datasets(options.data):
        cases += real_cases(catalogue.ENTRIES, dataset, full=options.full, dtypes=options.dtypes)
        asked += questions(dataset, full=options.full, n_threads=n_threads)
        described.append(
            {
                "name": dataset.name,
                "note": dataset.note,
                "train": list(dataset.X_train.shape),
                "test": list(dataset.X_test.shape),
            }
        )
    names = [case.name for case in cases] + [question.name for question in asked] + list(studies)
    chosen = set(select(names, options.only))
    if not chosen:
        known = "\n  ".join(sorted({case.name for case in cases} | set(studies)))
        raise NothingSelected(f"--only {options.only!r} matches nothing; there are\n  {known}")
    return Plan(
        [case for case in cases if case.name in chosen],
        [question for question in asked if question.name in chosen],
        [study for study in studies if study in chosen],
        described,
    )


def _datasets(folder: Path | None) -> Iterator[Any]:
    """Yield the embedded digits, then what the data folder holds."""
    from fastml import datasets

    yield datasets.load_digits()
    explicit = folder is not None
    if folder is None:
        variable = os.environ.get(datasets.DATA_VARIABLE)
        if not variable:
            return
        folder = Path(variable)
    found = 0
    missing = []
    for load in (datasets.load_mnist, datasets.load_cifar10):
        try:
            dataset = load(folder)
        except FileNotFoundError as error:
            # The folder need not hold both; any other trouble with a file is told.
            missing.append(str(error))
            continue
        found += 1
        yield dataset
    if explicit and not found:
        raise FileNotFoundError("\n".join(missing))
