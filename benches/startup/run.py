"""The order of the processes: those that are compared take turns, and of each kind the median counts."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ..measuring.repository import ROOT, source_of
from .jobs import JOBS, Job, write_digits
from .processes import Interpreter, Reading, Unexpected

__all__ = ["CATALOGUE", "Row", "Startup", "measure"]

CATALOGUE = "warmup"

#: A compilation takes so long that its noise is small.
_MOST_COLD = 3


@dataclass(frozen=True)
class Row:
    """Medians of one estimator.

    Attributes
    ----------
    name : str
        The estimator.
    twin, twin_and_numba, imported : Reading
        Processes that only import: scikit-learn's twin; that and Numba; fastml's estimator.
    pack : Reading or None
        The first fit with a pack and an empty cache; None where no pack is used.
    empty, warm : Reading
        The first fit without packs, with an empty cache and with one that has all that is needed.
    """

    name: str
    twin: Reading
    twin_and_numba: Reading
    imported: Reading
    pack: Reading | None
    empty: Reading
    warm: Reading


@dataclass(frozen=True)
class Startup:
    """What was measured, and on what."""

    info: dict[str, Any]
    source: dict[str, Any]
    date: str
    load_average: float | None
    pack: str | None
    rows: list[Row] = field(default_factory=list)
    #: Seconds of ``warmup``, with an empty cache and with a warm one.
    catalogue: tuple[float, float] | None = None


def measure(names: Sequence[str], python: Interpreter, processes: int, say: Callable[[str], None]) -> Startup:
    """Measure what is named; `say` is told what is done."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    info, pack = python.info(), python.used_pack()
    say(f"{info['path']} on {info['cpu']['model']}; {f'the pack {pack}' if pack else 'no pack'} is used")
    rows, catalogue = [], None
    with tempfile.TemporaryDirectory() as folder:
        data = write_digits(Path(folder))
        for job in JOBS:
            if job.name in names:
                say(f"{job.name} ...")
                try:
                    rows.append(_measure_job(job, python, processes, data, pack))
                except Unexpected as error:
                    raise type(error)(f"{job.name}: {error}") from None
    if CATALOGUE in names:
        say(f"{CATALOGUE} ...")
        with tempfile.TemporaryDirectory() as cache:
            catalogue = (
                python.warm_up(Path(cache), compiles=True).wall,
                python.warm_up(Path(cache), compiles=False).wall,
            )
    date = datetime.now().astimezone().isoformat(timespec="minutes")
    is_here = Path(info["path"]).is_relative_to(ROOT)
    return Startup(info, source_of(ROOT) if is_here else {"commit": None}, date, load, pack, rows, catalogue)


def _measure_job(job: Job, python: Interpreter, processes: int, data: str, pack: str | None) -> Row:
    script = job.fit(data)
    with tempfile.TemporaryDirectory() as folder:
        caches = [Path(folder, str(number)) for number in range(min(processes, _MOST_COLD))]
        empty = [python.fit(script, cache=cache, pack=False, compiles=True) for cache in caches]
        ways: dict[str, Callable[[], Reading]] = {
            "twin": lambda: python.run(job.import_twin),
            "twin_and_numba": lambda: python.run(f"{job.import_twin}\nimport numba"),
            "imported": lambda: python.run(job.import_fastml),
            "warm": lambda: python.fit(script, cache=caches[-1], pack=False, compiles=False),
        }
        if pack is not None:
            ways["pack"] = lambda: python.fit(script, cache=Path(folder, "none"), pack=True, compiles=False)
        readings: dict[str, list[Reading]] = {name: [] for name in ways}
        for _ in range(processes):
            for name, way in ways.items():
                readings[name].append(way())
    medians = {name: _median(of) for name, of in {**readings, "empty": empty}.items()}
    return Row(job.name, pack=medians.pop("pack", None), **medians)


def _median(readings: list[Reading]) -> Reading:
    return Reading(statistics.median(r.cpu for r in readings), statistics.median(r.wall for r in readings))
