"""What tests of the benchmarks share: a made-up catalogue whose times and errors are known, and pages read as text."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastml import datasets


class Page(HTMLParser):
    """Checks that tags are closed in order, and keeps the text."""

    VOID = frozenset({"meta", "link", "br", "img", "use", "path", "rect", "line"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="session")
def text_of_page() -> Callable[[str], str]:
    """``text_of_page(page)``: the text of a page whose tags are closed in order."""
    return lambda page: Page(page).text


@pytest.fixture(scope="session")
def git() -> Callable[..., str]:
    """``git(folder, "commit", ...)``: what git prints, whatever the user's settings are."""

    def run(folder: Path, *arguments: str) -> str:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *names, *arguments], cwd=folder, env=environ, check=True, capture_output=True, text=True
        ).stdout.strip()

    return run


# A made-up catalogue ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    args: tuple
    kwargs: dict


class Clock:
    """Stands in for the module ``time``: it goes on only when somebody works or sleeps."""

    def __init__(self) -> None:
        self.now = self.cpu = 0.0
        self.busy_threads = 1

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.cpu

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def work(self, seconds: float) -> None:
        self.now += seconds
        self.cpu += seconds * self.busy_threads


CLOCK = Clock()


class FakeEntry:
    """An entry whose tiers take given milliseconds and are off by a given error."""

    axes = ("n",)
    unit = "elem"
    regimes = ("typical",)
    formula = "2 x < 3 & y"
    accumulator = "float32"
    specializations = 1

    def __init__(
        self,
        key: str,
        ms: dict[str, float],
        *,
        off: dict[str, Any] | None = None,
        limit: str = "memory",
        family: str = "made_up",
    ) -> None:
        self.key, self.function, self.family, self.limit = key, key.partition("[")[0], family, limit
        self.ms, self.off = ms, off or {}
        self.dtypes = {d: SimpleNamespace(accumulator=d, output=d) for d in ("float32", "float64")}
        self.sizes = {"tiny": (4,), "default": (1000,), "full": (2000,)}
        self.loop_size = (10,)
        self.tolerance = {d: SimpleNamespace(rtol=0.0, atol=1e-3, reason="made up") for d in self.dtypes}

    def make(self, size, dtype, regime="typical", seed=0):
        return Inputs((np.arange(size[0], dtype=dtype),), {})

    def work(self, size):
        return float(size[0])

    def bytes(self, size, dtype):
        return float(size[0] * np.dtype(dtype).itemsize)

    def flops(self, size):
        return float(size[0])

    def tier(self, name):
        def run(x, n_threads=None):
            if isinstance(self.off.get(name), BaseException):
                raise self.off[name]
            if name == "loops":
                # Per element, as a loop is; the others take what they take.
                CLOCK.work(self.ms[name] * 1e-3 * len(x) / 1000)
            else:
                CLOCK.work(self.ms[name if name == "vectorized" else f"compiled_{n_threads or 2}"] * 1e-3)
            return 2 * x + x.dtype.type(self.off.get(name, 0.0))

        return run

    def reference(self, inputs):
        return (2 * inputs.args[0].astype(np.float64),)


def check(entry, result, truth, dtype):
    error = float(np.max(np.abs(result - truth[0]))) / entry.tolerance[dtype].atol
    return math.nan if math.isnan(error) else error


FAST = {"loops": 400, "vectorized": 8, "compiled_1": 4, "compiled_2": 2}
SLOW = {"loops": 400, "vectorized": 4, "compiled_1": 8, "compiled_2": 6}


def catalogue(*entries: FakeEntry) -> Any:
    return SimpleNamespace(ENTRIES={entry.key: entry for entry in entries}, check=check)


def run_report(*entries: FakeEntry, seconds: float = 0.5, **options: Any) -> dict[str, Any]:
    """Run a report of made-up entries, without the studies."""
    from benches.report import plan, run

    asked = plan.Options(n_threads=2, seconds=seconds, **options)
    return run.run(asked, catalogue=catalogue(*entries), studies=())


def stand_in(patch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Let made-up time pass on a made-up machine; return what there is to work with."""
    pytest.importorskip("rich", reason="the report needs the extra bench")
    pytest.importorskip("threadpoolctl", reason="the report needs the extra bench")
    pytest.importorskip("matplotlib", reason="the report needs the extra plot")
    from benches.measuring import limits, timing
    from benches.report import run

    found = limits.Limits(
        memory={"1": 1e9, "all": 2e9},
        gemm={"float32": {"1": 1e9, "all": 2e9}, "float64": {"1": 5e8, "all": 1e9}},
        cache_bytes=5000,
        array_bytes=2**28,
        gemm_size=100,
        n_threads=2,
    )
    patch.setattr(run, "measure_limits", lambda n_threads: found)
    patch.setattr(run.targets, "state", lambda packages: None)
    patch.setattr(run, "time", CLOCK)
    patch.setattr(timing, "time", CLOCK)
    patch.setattr(CLOCK, "busy_threads", 1)
    patch.delenv(datasets.DATA_VARIABLE, raising=False)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        patch.delenv(name, raising=False)
    return SimpleNamespace(
        Entry=FakeEntry,
        Inputs=Inputs,
        FAST=FAST,
        fast=lambda key, **more: FakeEntry(key, FAST, **more),
        catalogue=catalogue,
        clock=CLOCK,
        limits=found,
        run=run_report,
    )


@pytest.fixture
def made_up() -> Iterator[SimpleNamespace]:
    """``made_up.run(made_up.Entry("name", made_up.FAST))``: a report of made-up kernels on a made-up machine."""
    with pytest.MonkeyPatch.context() as patch:
        yield stand_in(patch)


@pytest.fixture(scope="session")
def document() -> dict[str, Any]:
    """One faster, one slower and one wrong entry, a broken one, and answers that match and differ."""
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        from benches.report import known_answers, tiles
        from benches.report.summary import summarize

        made = run_report(
            FakeEntry("good[x]", FAST),
            FakeEntry("slow_one", SLOW, limit="gemm", family="other"),
            FakeEntry("wrong", FAST, off={"compiled": 0.01}),
            FakeEntry("broken", FAST, off={"vectorized": RuntimeError("no such <luck>")}),
        )
    for found in ("0.698", "0.699"):
        answer = known_answers.Answer("W9", "CIFAR-10", f"rate {found}", "uint8", "0.698", found, 0.5)
        made["known_answers"].append({**answer.__dict__, "verdict": answer.verdict})
    made["summary"] = summarize(made)
    made["target"] = {"name": "x86-64-v3", "libraries": [{"name": "numpy", "problem": None}]}
    made["tiles"] = {
        "cpu": "made up",
        "vector_bytes": 64,
        "clock": 3.5e9,
        "peaks": {"float32": {"adds": 5.6e10, "fused": 5.6e10, "differences_l2": 5.6e10}},
        "tiles": [tile(tiles.Tile, "l1", "float32", 0.5), tile(tiles.Tile, "linf", "uint8", None)],
    }
    made["scaling"] = [
        {"function": function, "axis": axis, "value": value, "threads": 2, "rate": 1e9 * value}
        for function in ("pairwise_l2", "k_nearest")
        for axis in ("threads", "n", "m", "d", "k")
        for value in (1, 2, 4)
    ]
    return made


def tile(make: Any, metric: str, dtype: str, share: float | None) -> dict[str, Any]:
    made = make(metric, dtype, 4, 6, 16, 2.8e10, 8.0, share, 60, 58, 384, "vsubps <zmm1>")
    return dataclasses.asdict(made)
