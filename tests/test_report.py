"""The report: orchestration on a made-up catalogue whose times and errors are known, then the real thing once."""

from __future__ import annotations

import copy
import dataclasses
import html.parser
import io
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rich", reason="the report needs the extra bench")
pytest.importorskip("threadpoolctl", reason="the report needs the extra bench")
pytest.importorskip("matplotlib", reason="the report needs the extra plot")

from benches import __main__ as command_line
from benches import (
    cases,
    formats,
    known_answers,
    limits,
    measure,
    render_html,
    render_terminal,
    report,
    results,
    scaling,
    tiles,
)
from fastml import datasets
from fastml.cli import warmup
from fastml.kernels.catalogue import ENTRIES
from fastml.kernels.runtime import _cache_files, jit

ROOT = Path(__file__).resolve().parent.parent


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
    specialisations = 1

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
                CLOCK.work(self.ms[name if n_threads is None else f"compiled_{n_threads}"] * 1e-3)
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


FAKE_LIMITS = limits.Limits(
    memory={"1": 1e9, "all": 2e9},
    gemm={"float32": {"1": 1e9, "all": 2e9}, "float64": {"1": 5e8, "all": 1e9}},
    cache_bytes=5000,
    array_bytes=2**28,
    gemm_size=100,
    n_threads=2,
)


def stand_in(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(report, "measure_limits", lambda n_threads: FAKE_LIMITS)
    patch.setattr(report, "time", CLOCK)
    patch.setattr(measure, "time", CLOCK)
    patch.delenv(datasets.DATA_VARIABLE, raising=False)


@pytest.fixture(autouse=True)
def _quick(request, monkeypatch):
    if "real_clock" in request.fixturenames:
        return
    stand_in(monkeypatch)
    monkeypatch.setattr(CLOCK, "busy_threads", 1)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def real_clock() -> None:
    """Ask for the real time, the real machine and the real environment."""


def run(*entries: FakeEntry, seconds: float = 0.5, **options: Any) -> dict[str, Any]:
    return report.run(
        report.Options(n_threads=2, seconds=seconds, **options), catalogue=catalogue(*entries), studies=()
    )


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """One faster, one slower and one wrong entry, a broken one, and answers that match and differ."""
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        made = run(
            FakeEntry("good[x]", FAST),
            FakeEntry("slow_one", SLOW, limit="gemm", family="other"),
            FakeEntry("wrong", FAST, off={"compiled": 0.01}),
            FakeEntry("broken", FAST, off={"vectorized": RuntimeError("no such <luck>")}),
        )
    for found in ("0.698", "0.699"):
        answer = known_answers.Answer("W9", "CIFAR-10", f"rate {found}", "uint8", "0.698", found, 0.5)
        made["known_answers"].append({**answer.__dict__, "verdict": answer.verdict})
    made["summary"] = report.summarise(made)
    made["tiles"] = {
        "cpu": "made up",
        "vector_bytes": 64,
        "clock": 3.5e9,
        "peaks": {"float32": {"adds": 5.6e10, "fused": 5.6e10, "differences_l2": 5.6e10}},
        "tiles": [tile("l1", "float32", 0.5), tile("linf", "uint8", None)],
    }
    made["scaling"] = [
        {"function": function, "axis": axis, "value": value, "threads": 2, "rate": 1e9 * value}
        for function in ("pairwise_l2", "k_nearest")
        for axis in ("threads", "n", "m", "d", "k")
        for value in (1, 2, 4)
    ]
    return made


def tile(metric: str, dtype: str, share: float | None) -> dict[str, Any]:
    made = tiles.Tile(metric, dtype, 4, 6, 16, 2.8e10, 8.0, share, 60, 58, 384, "vsubps <zmm1>")
    return dataclasses.asdict(made)


def case_of(document: dict[str, Any], key: str) -> dict[str, Any]:
    return next(case for case in document["cases"] if case["entry"] == key)


# Measuring -------------------------------------------------------------------------------------


def test_times_and_speedups_are_those_of_the_tiers(document):
    tiers, speedups = case_of(document, "good[x]")["tiers"], case_of(document, "good[x]")["speedups"]
    expected = {"loops": 0.4, "vectorized": 0.008, "vectorized_all": 0.008, "compiled_1": 0.004, "compiled_all": 0.002}
    assert {name: tier["seconds"] for name, tier in tiers.items()} == pytest.approx(expected)
    assert {name: tier["best"] for name, tier in tiers.items()} == pytest.approx(expected)
    assert all(tiers[name]["readings"] >= measure.MIN_ROUNDS for name in expected)
    assert speedups == pytest.approx(
        {
            "vectorized_over_loops": 50,
            "compiled_1_over_loops": 100,
            "compiled_all_over_loops": 200,
            "compiled_1_over_vectorized": 2,
            "compiled_all_over_vectorized_all": 4,
            "compiled_all_over_compiled_1": 2,
        }
    )


def test_a_loop_on_a_part_is_scaled_and_says_so(document):
    loops = case_of(document, "good[x]")["tiers"]["loops"]
    assert loops["scaled"] is True
    assert loops["timed_size"] == {"n": 10}
    assert loops["seconds"] == pytest.approx(0.4)  # 4 ms for 10 of 1,000
    quick = run(FakeEntry("quick", FAST | {"loops": 5}), seconds=2)
    loops = case_of(quick, "quick")["tiers"]["loops"]
    assert loops["scaled"] is False
    assert loops["timed_size"] == {"n": 1000}
    assert loops["seconds"] == pytest.approx(0.005)


def test_throughput_and_share_of_the_limit(document):
    good = case_of(document, "good[x]")
    tier = good["tiers"]["compiled_all"]
    assert tier["throughput"] == pytest.approx(1000 / tier["seconds"])
    assert tier["share_of_limit"] == pytest.approx(4000 / tier["seconds"] / 2e9)
    assert good["fits_in_cache"] is True
    tier = case_of(document, "slow_one")["tiers"]["compiled_1"]
    assert tier["share_of_limit"] == pytest.approx(1000 / tier["seconds"] / 1e9)
    assert FAKE_LIMITS.of("gemm", "float64", "all") == 1e9
    assert FAKE_LIMITS.of("gemm", "uint8", "all") == 2e9
    with pytest.raises(ValueError, match="limit must be"):
        FAKE_LIMITS.of("disk", "float32", "1")


def test_what_an_empty_cache_lacks_is_compiled_before(monkeypatch, tmp_path):
    asked = []

    def run(keys, jobs, *, dtypes, silent):
        asked.append((keys, jobs, dtypes))
        return [warmup.Outcome(key, 3.0, key == "exp", None) for key in keys]

    monkeypatch.setattr(warmup, "run", run)
    monkeypatch.setattr(jit, "cache_info", lambda: _cache_files.CacheInfo(str(tmp_path), True, ""))
    some = {key: ENTRIES[key] for key in ("exp", "sigmoid", "pairwise_l1")}
    chosen = cases.generated_cases({**some, "fake": FakeEntry("fake", FAST)}, full=False)
    assert report.compile_cases(chosen, 1) == {}
    found = report.compile_cases(chosen, 2)
    assert asked == [(["exp", "sigmoid", "pairwise_l1"], 2, ("float32",)), (["pairwise_l1"], 2, ("uint8",))]
    assert found == {("exp", "float32"): 3.0}


def test_what_another_process_compiled_is_in_the_first_call(monkeypatch):
    monkeypatch.setattr(report, "compile_cases", lambda chosen, n_threads: {("b", "float32"): 7.0})
    made = run(FakeEntry("a", FAST), FakeEntry("b", FAST))
    assert [(case["first_call"]["seconds"], case["first_call"]["source"]) for case in made["cases"]] == [
        (0, "ready"),
        (7, "compiled"),
    ]


def test_slower_wrong_and_broken_entries_are_in_the_summary(document):
    summary = document["summary"]
    assert [(item["name"], item["threads"]) for item in summary["slower"]] == [
        ("slow_one float32 generated", "1"),
        ("slow_one float32 generated", "all"),
    ]
    assert not any(item["within_noise"] for item in summary["slower"])
    assert summary["disagree"] == ["wrong float32 generated"]
    assert summary["failed"] == ["broken float32 generated"]
    assert case_of(document, "broken")["failure"] == "RuntimeError: no such <luck>"
    assert summary["differs"] == ["rate 0.699"]
    assert summary["matches"] == 1
    wrong = case_of(document, "wrong")["tiers"]
    assert wrong["compiled_1"]["error"] == pytest.approx(10, rel=0.1)
    assert wrong["vectorized"]["error"] == 0


@pytest.mark.parametrize("tier", ["loops", "vectorized", "compiled"])
def test_exit_code_is_not_zero_if_any_tier_is_wrong(tier):
    assert report.exit_code(run(FakeEntry("fine", FAST))) == 0
    assert report.exit_code(run(FakeEntry("off", FAST, off={tier: 0.01}))) == 1
    assert report.exit_code(run(FakeEntry("off", FAST, off={tier: math.nan}))) == 1
    assert report.exit_code(run(FakeEntry("off", FAST, off={tier: ValueError("?")}))) == 1


def test_slower_within_the_noise_is_told_from_slower(document):
    made = copy.deepcopy(document)
    case = case_of(made, "slow_one")
    case["tiers"]["compiled_1"]["best"] = 0.9 * case["tiers"]["vectorized"]["best"]
    assert [item["within_noise"] for item in report.summarise(made)["slower"]] == [True, False]
    case["speedups"]["compiled_all_over_vectorized_all"] = 0.97
    assert [item["within_noise"] for item in report.summarise(made)["slower"]] == [True, True]
    made["summary"] = report.summarise(made)
    assert "0.97 × as fast with all 2 threads, within the noise" in terminal_text(made)


def test_exit_code_of_a_figure_that_differs(document):
    only = {**document, "cases": [], "known_answers": document["known_answers"][:1], "interrupted": False}
    assert report.exit_code({**only, "summary": report.summarise(only)}) == 0
    only["known_answers"] = document["known_answers"]
    assert report.exit_code({**only, "summary": report.summarise(only)}) == 1


def test_ctrl_c_keeps_what_was_measured():
    class Impatient(report.Progress):
        closed = False

        def at(self, what):
            if what.startswith("second"):
                raise KeyboardInterrupt

        def close(self):
            self.closed = True

    progress = Impatient()
    entries = catalogue(FakeEntry("first", FAST), FakeEntry("second", FAST), FakeEntry("third", FAST))
    made = report.run(report.Options(n_threads=2, seconds=0.5), catalogue=entries, progress=progress)
    assert made["interrupted"] is True
    assert [case["entry"] for case in made["cases"]] == ["first"]
    assert made["planned"] == 3
    assert progress.closed
    assert report.exit_code(made) == 130
    out = io.StringIO()
    render_terminal.render(made, render_terminal.console(out))
    assert "INTERRUPTED: 1 cases measured before Ctrl-C, of 3 planned" in out.getvalue()
    assert "Interrupted" in render_html.page(made)


def test_budget_bounds_the_time():
    def take(budget: float, *seconds: float) -> tuple[float, list[int]]:
        start = CLOCK.now
        ways = {str(s): measure.Way(lambda s=s: CLOCK.work(s)) for s in seconds}
        timings = measure.take_turns(ways, budget)
        assert [timing.seconds for timing in timings.values()] == pytest.approx(seconds)
        return CLOCK.now - start, [timing.readings for timing in timings.values()]

    spent, readings = take(0.1, 0.001, 0.002)
    assert spent < 0.11
    assert readings == [measure.MAX_ROUNDS] * 2
    spent, readings = take(0.1, 0.01, 0.02)
    assert spent <= 0.1
    assert readings == [3, 3]
    assert take(0.1, 0.05)[1] == [3], "a little over the budget for the sake of a median"
    assert take(0.1, 1.0) == (pytest.approx(1.0), [1])


def test_short_calls_are_read_in_bunches(monkeypatch):
    calls = []
    way = measure.Way(lambda: (calls.append(1), CLOCK.work(1e-6)))
    timing = measure.take_turns({"short": way}, 0.001)["short"]
    assert way.repeat == 200
    assert timing.seconds == pytest.approx(1e-6)
    assert len(calls) == 1 + 200 * timing.readings


def test_blas_threads_of_vectorised_are_noticed_and_timed_apart(monkeypatch):
    assert not measure.uses_several_threads(lambda: CLOCK.work(0.002), 2)
    monkeypatch.setattr(CLOCK, "busy_threads", 2)
    assert measure.uses_several_threads(lambda: CLOCK.work(0.002), 2)
    assert not measure.uses_several_threads(lambda: CLOCK.work(0.002), 1)

    limits_seen: list[int] = []
    real = measure.blas_limit
    monkeypatch.setattr(measure, "blas_limit", lambda n: (limits_seen.append(n), real(n))[1])
    tiers = case_of(run(FakeEntry("fine", FAST)), "fine")["tiers"]
    assert tiers["vectorized_all"]["seconds"] == pytest.approx(0.008)
    assert tiers["vectorized_all"]["share_of_limit"] == pytest.approx(tiers["vectorized"]["share_of_limit"] / 2)
    assert set(limits_seen) == {1, 2}


def test_timing_of_readings():
    timing = measure.Timing.of([3.0, 1.0, 2.0, 10.0, 2.0])
    assert (timing.seconds, timing.best, timing.readings) == (2.0, 1.0, 5)
    assert timing.spread == pytest.approx(0.25)
    assert measure.Timing.of([1.0]).spread == 0


def test_blas_threads_are_held_and_given_back():
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def counts() -> list[int]:
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]

    measure.blas_limit(1)
    before = counts()
    if not before:
        pytest.skip("no BLAS that threadpoolctl knows")
    with measure.blas_limit(1):
        assert set(counts()) == {1}
    assert counts() == before


def test_the_better_of_two_measurements_of_a_limit_counts():
    other = replace(
        FAKE_LIMITS, memory={"1": 3e9, "all": 1e9}, gemm={d: {"1": 7e8, "all": 7e8} for d in FAKE_LIMITS.gemm}
    )
    found = limits.better(FAKE_LIMITS, other)
    assert found.memory == {"1": 3e9, "all": 2e9}
    assert found.gemm == {"float32": {"1": 1e9, "all": 2e9}, "float64": {"1": 7e8, "all": 1e9}}


def test_limits_are_measured(real_clock):
    found = limits.measure_limits(2, readings=2, gemm_size=64, array_bytes=2**20)
    assert 0 < found.memory["1"] <= found.memory["all"]
    assert set(found.gemm) == {"float32", "float64"}
    assert all(0 < rates["1"] <= rates["all"] for rates in found.gemm.values())
    assert found.cache_bytes >= 2**17


# What is measured ------------------------------------------------------------------------------


@pytest.mark.needs_jit
def test_only_that_matches_nothing_is_an_error(capsys, tmp_path):
    arguments = ["report", "--only", "nothing-like-it", "--output", str(tmp_path / "out")]
    assert command_line.main(arguments, catalogue=catalogue(FakeEntry("first", FAST))) == 2
    captured = capsys.readouterr()
    assert "'nothing-like-it' matches nothing" in captured.err
    assert "first float32 generated" in captured.err
    assert not (tmp_path / "out").exists()


@pytest.mark.needs_jit
def test_data_folder_without_data_is_an_error(capsys, tmp_path):
    arguments = ["report", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    assert command_line.main(arguments, catalogue=catalogue(FakeEntry("first", FAST))) == 2
    assert "MNIST was not found" in capsys.readouterr().err


def test_modes_and_dtypes_choose_the_cases():
    entries = {"good": FakeEntry("good", FAST)}
    default = cases.generated_cases(entries, full=False)
    assert [(case.dtype, case.size, case.loop_size) for case in default] == [("float32", (1000,), (10,))]
    full = cases.generated_cases(entries, full=True)
    assert [(case.dtype, case.size) for case in full] == [("float32", (2000,)), ("float64", (2000,))]
    assert [case.dtype for case in cases.generated_cases(entries, full=False, dtypes=["float64"])] == ["float64"]
    entries["good"].sizes["wide"] = (7,)
    assert len(cases.generated_cases(entries, full=False)) == 1
    full = cases.generated_cases(entries, full=True, dtypes=["float32"])
    assert [(case.name, case.size) for case in full] == [
        ("good float32 generated", (2000,)),
        ("good float32 generated wide", (7,)),
    ]
    assert full[1].loop_size == (7,), "less work than the part"
    assert report.group_title(full[1].data, "float32") == "Generated arrays, wide, float32"


class Points(FakeEntry):
    axes = ("n", "m", "d")

    def __init__(self) -> None:
        super().__init__("points[l1]", FAST, family="distances")
        self.sizes = {"tiny": (2, 3, 4), "default": (20, 30, 40), "full": (20, 30, 40)}
        self.loop_size = (4, 50, 64)

    def make(self, size, dtype, regime="typical", seed=0):
        return Inputs((np.zeros((size[0], size[2]), dtype), np.zeros((size[1], size[2]), dtype)), {"metric": "l1"})


def test_real_data_take_the_place_of_generated_points():
    digits = datasets.load_digits()
    (case,) = cases.real_cases({"points[l1]": Points(), "other": FakeEntry("other", FAST)}, digits, full=False)
    assert case.name == "points[l1] float32 digits"
    assert case.size == (360, 1437, 64)
    made = case.inputs()
    np.testing.assert_array_equal(made.args[0], digits.X_test)
    np.testing.assert_array_equal(made.args[1], digits.X_train)
    assert made.args[0].dtype == np.float32
    assert made.kwargs == {"metric": "l1"}
    n, m, d = case.loop_size
    part = case.loop_inputs()
    assert (part.args[0].shape, part.args[1].shape) == ((n, d), (m, d))
    assert n * m * d <= 2 * 4 * 50 * 64


def test_majority_vote_takes_the_smallest_label_on_a_tie():
    labels = np.array([[3, 1, 3], [2, 1, 0], [5, 4, 4], [9, 0, 9]])
    assert known_answers.majority_vote(labels, 10).tolist() == [3, 0, 4, 9]
    assert known_answers.majority_vote(np.array([[7, 2, 7, 2]]), 10).tolist() == [2]


def test_questions_need_the_rows_that_the_figures_are_about():
    X, y = np.zeros((5000, 2), np.uint8), np.zeros(5000, np.intp)
    cifar = datasets.Dataset("CIFAR-10", X, y, X[:500], y[:500], ("a",), (2,), "", (1,))
    names = [question.name for question in known_answers.questions(cifar, full=False)]
    assert sum(name.startswith("W8") for name in names) == 9
    assert sum(name.startswith("W9") for name in names) == 6
    other = datasets.Dataset("CIFAR-10", X, y, X[:500], y[:500], ("a",), (2,), "", (2, 1))
    assert known_answers.questions(other, full=False) == []
    short = datasets.Dataset("CIFAR-10", X[:4999], y[:4999], X[:500], y[:500], ("a",), (2,), "", (1,))
    assert known_answers.questions(short, full=False) == []
    assert known_answers.questions(datasets.load_digits(), full=True) == []


def test_a_question_that_fails_counts_as_a_figure_that_differs():
    def ask():
        raise RuntimeError("no kernel")

    (answer,) = report._answers(known_answers.Question("W8 norm l1 uint8 CIFAR-10", ask))
    assert answer["verdict"] == "differs"
    assert "no kernel" in answer["found"]


# What is shown ---------------------------------------------------------------------------------


def terminal_text(document, monkeypatch=None) -> str:
    out = io.StringIO()
    render_terminal.render(document, render_terminal.console(out))
    return out.getvalue()


def test_terminal_fits_100_columns_without_colour(document):
    long = copy.deepcopy(document)
    keys = ["linear_loss_gradient[binary_cross_entropy]", "softmax_cross_entropy_gradient[probabilities]"]
    for case, key in zip(long["cases"], keys * 2, strict=True):
        case["entry"] = key
        if case["tiers"]:
            case["tiers"]["loops"]["seconds"] = 1234.5
            case["speedups"]["compiled_1_over_loops"] = 1234567.0
    for made in (document, long):
        text = terminal_text(made)
        assert "\x1b" not in text
        assert max(map(len, text.splitlines())) <= 100
        assert "…" not in text, "a cell was cut"
    assert "linear_loss_gradient" in text
    assert "[binary_cross_entropy]" in text


def test_terminal_says_what_is_slower_wrong_and_scaled(document):
    text = terminal_text(document)
    head = text[: text.index("Generated arrays")]
    assert "JIT is SLOWER than vectorised in 1 of 3 cases" in head
    assert "slow_one float32 generated" in head
    assert "DISAGREES with the reference beyond its bound: wrong float32" in head
    assert "FAILED: broken float32 generated: RuntimeError: no such <luck>" in head
    assert "DIFFERS from the published figure: rate 0.699" in head
    row = next(line for line in text.splitlines() if line.startswith("slow_one"))
    assert row.count("SLOWER") == 2
    assert re.search(r"\d+ ms\*", row)
    assert "higher is" in text
    assert "matches" in text
    assert "DIFFERS" in text


def test_nothing_slower_is_said_too():
    assert "JIT is slower than vectorised in none of 1 cases" in terminal_text(run(FakeEntry("fine", FAST)))


@pytest.mark.parametrize(("load", "said"), [(None, False), (0.1, False), (1.7, True)])
def test_a_busy_machine_is_mentioned(load, said, document):
    made = {**document, "load_average": load}
    assert ("load average 1.7" in terminal_text(made)) is said
    assert ("load average 1.7" in render_html.page(made)) is said


def test_output_without_the_signs_does_not_raise(document):
    raw = io.BytesIO()
    render_terminal.render(document, render_terminal.console(io.TextIOWrapper(raw, encoding="ascii")))


class Outline(html.parser.HTMLParser):
    """Collects what a page refers to, and whether its tags close."""

    void = frozenset({"meta", "br", "hr", "img", "link", "input", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in self.void:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.references.append(value)
            if name == "id":
                self.ids.add(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_self_contained_and_well_formed(document):
    text = render_html.page(document)
    outline = Outline()
    outline.feed(text)
    assert outline.open == []
    assert all(reference.startswith("#") for reference in outline.references)
    assert {reference[1:] for reference in outline.references} <= outline.ids
    assert not {"script", "link", "iframe", "img", "object"} & set(outline.tags)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert outline.tags.count("svg") == 7
    assert "no such &lt;luck&gt;" in text
    assert "2 x &lt; 3 &amp; y" in text


def test_page_shows_slower_and_wrong_as_plainly_as_faster(document):
    text = render_html.page(document)
    assert "JIT is slower than vectorised in 1 of 3 cases" in text
    assert text.index("JIT is slower") < text.index("<svg")
    assert re.search(r'<td class="slower">0\.\d+ slower</td>', text)
    assert "SLOWER" in text, "the plots say it in words too"
    assert re.search(r'class="slower"[^>]*>(9|10)\.\d+ wrong', text)
    assert "WRONG" in text
    assert '<td class="slower">differs</td>' in text
    assert text.count("higher is better") > 5


def test_studies_are_shown(document):
    text = render_html.page(document)
    assert "vsubps &lt;zmm1&gt;" in text
    assert "50 %" in text
    assert 'id="scaling"' in text
    assert "L∞, uint8" in terminal_text(document)
    without = {**document, "tiles": None, "scaling": None}
    assert "adders" not in render_html.page(without) + terminal_text(without)


@pytest.mark.needs_jit
@pytest.mark.slow
def test_tiles_against_the_adders():
    """A tile cannot be faster than the adders; its loop is the one that accumulates."""
    for _ in range(5):  # the clock is measured apart from the tiles: another process between them spoils a share
        study = tiles.measure()
        if all((tile["share_of_peak"] or 0) < 1.2 for tile in study["tiles"]):
            break
    assert 1e8 < study["clock"] < 1e10
    assert {(tile["metric"], tile["dtype"]) for tile in study["tiles"]} == {
        (metric, dtype) for metric in ("l1", "l2", "linf") for dtype in ("float32", "float64", "uint8")
    }
    for tile in study["tiles"]:
        assert tile["vector_instructions"] > tile["rows"] * tile["vectors"]
        assert tile["elements"] % (tile["rows"] * tile["vectors"] * tile["lanes"]) == 0
        assert tile["share_of_peak"] is None or 0 < tile["share_of_peak"] < 1.2


def test_the_hottest_loop_is_found():
    assembly = """
.LBB0_1:
\tvmovups (%rax), %zmm0
\tjne .LBB0_1
.LBB0_2:
\txorl %eax, %eax
.LBB0_3: # the inner one
\tvsubps %zmm0, %zmm1, %zmm2
\tvfmadd231ps %zmm2, %zmm2, %zmm3
\tcmpq %rax, %rbx
\tjne .LBB0_3
\tjne .LBB0_2
"""
    assert [line.split()[0] for line in tiles.hottest_loop(assembly)] == ["vsubps", "vfmadd231ps", "cmpq", "jne"]


@pytest.mark.needs_jit
def test_scaling_varies_one_axis_at_a_time(monkeypatch):
    monkeypatch.setattr(scaling, "BASE", {"n": 5, "m": 20, "d": 3, "k": 2})
    monkeypatch.setattr(scaling, "AXES", {"n": (1, 9), "m": (7,), "d": (1, 40), "k": (1, 20)})
    points = scaling.measure(2)
    found = {(point["function"], point["axis"], point["value"], point["threads"]) for point in points}
    assert len(found) == len(points)
    assert ("k_nearest", "k", 20, 2) in found
    assert ("pairwise_l2", "threads", 1, 1) in found
    assert not any(function == "pairwise_l2" and axis == "k" for function, axis, *_ in found)
    assert all(point["rate"] > 0 for point in points)


def test_page_of_a_run_that_measured_nothing():
    empty = run(FakeEntry("broken", FAST, off={"compiled": RuntimeError("?")}))
    assert "<svg" not in render_html.page(empty)
    assert "FAILED" in terminal_text(empty)


# What is written -------------------------------------------------------------------------------


FREE_KEYS = {
    "machine.packages",
    "limits.gemm",
    "cases[].size",
    "cases[].tiers",
    "cases[].tiers.*.timed_size",
    "published_seconds",
    "tiles.peaks",
}


def keys_of(value: Any, path: str = "") -> set[str]:
    """All paths of a document; members of maps with free keys are written as *."""
    if isinstance(value, dict):
        free = path in FREE_KEYS
        found = set()
        for key, member in value.items():
            inner = f"{path}.{'*' if free else key}" if path else key
            found |= {inner} | keys_of(member, inner)
        return found
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return set().union(*(keys_of(member, f"{path}[]") for member in value))
    return set()


def documented_keys() -> set[str]:
    text = (ROOT / "docs" / "report_schema.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE))


def test_every_key_of_the_document_is_documented_and_the_other_way_round(document):
    assert keys_of(document) == documented_keys()
    planted = {**document, "surprise": 1}
    assert keys_of(planted) != documented_keys()


def test_document_survives_the_disk(document, tmp_path):
    path = tmp_path / "deep" / "results.json"
    results.write_document(document, path)
    assert results.read_document(path) == json.loads(json.dumps(document))
    assert list(path.parent.iterdir()) == [path]
    path.write_text('{"schema": 0}')
    with pytest.raises(ValueError, match="schema 0"):
        results.read_document(path)


def test_errors_that_are_no_numbers_fit_into_json(tmp_path):
    made = run(FakeEntry("off", FAST, off={"compiled": math.nan}))
    results.write_document(made, tmp_path / "results.json")
    assert case_of(made, "off")["agrees"] is False
    assert "NaN WRONG" in terminal_text(made)


@pytest.mark.needs_jit
@pytest.mark.slow
def test_command_writes_both_files_and_prints_tables(capsys, tmp_path):
    """With the real studies of distances."""
    arguments = ["report", "--seconds", "0.5", "--threads", "2", "--output", str(tmp_path)]
    assert command_line.main(arguments, catalogue=catalogue(FakeEntry("first", FAST))) == 0
    captured = capsys.readouterr()
    assert "first" in captured.out
    assert "wrote" in captured.err
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "results.json"}


@pytest.mark.needs_jit
def test_command_after_ctrl_c_writes_what_there_is(capsys, tmp_path):
    entries = catalogue(FakeEntry("first", FAST), FakeEntry("second", FAST, off={"loops": KeyboardInterrupt()}))
    arguments = ["report", "--seconds", "0.5", "--threads", "2", "--output", str(tmp_path)]
    assert command_line.main(arguments, catalogue=entries) == 130
    assert "interrupted: wrote the 1 results measured so far" in capsys.readouterr().err
    assert results.read_document(tmp_path / "results.json")["interrupted"] is True
    assert "Interrupted" in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.mark.needs_jit
def test_json_goes_to_stdout_and_nothing_else(capsys, tmp_path, monkeypatch):
    for study in tuple(report.STUDIES):  # which take seconds
        monkeypatch.delitem(report.STUDIES, study)
    arguments = ["report", "--json", "--seconds", "0.5", "--threads", "2", "--output", str(tmp_path)]
    code = command_line.main(arguments, catalogue=catalogue(FakeEntry("first", FAST, off={"vectorized": 1.0})))
    assert code == 1
    assert json.loads(capsys.readouterr().out) == results.read_document(tmp_path / "results.json")


def test_without_the_compiler_there_is_no_report(tmp_path):
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    arguments = [sys.executable, "-m", "benches", "report", "--output", str(tmp_path / "out")]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "NUMBA_DISABLE_JIT" in done.stderr


# Numbers in print ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1,234 s"),
        (1.0, "1.00 s"),
        (0.99996, "1.00 s"),
        (0.0123, "12.3 ms"),
        (4.56e-6, "4.56 µs"),
        (7e-9, "7.00 ns"),
    ],
)
def test_seconds(value, text):
    assert formats.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.71e10, "27.1 Gelem/s"), (1.5e12, "1.50 Telem/s"), (12.0, "12.0 elem/s"), (999.9e6, "1.00 Gelem/s")],
)
def test_rate(value, text):
    assert formats.rate(value, "elem") == text


@pytest.mark.parametrize(("value", "text"), [(0.834, "0.83"), (1.0, "1.00"), (12.34, "12.3"), (1234.4, "1,234")])
def test_times(value, text):
    assert formats.times(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (0.5, "0.50"), (0.0001, "1e-04"), (1e308, "NaN"), (None, "-")])
def test_error(value, text):
    assert formats.error(value) == text


# The real catalogue ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.needs_jit
def test_report_on_real_kernels(real_clock, tmp_path):
    arguments = ["report", "--only", "pairwise_l*float32 *", "--seconds", "2", "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benches", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = results.read_document(tmp_path / "results.json")
    assert {"pairwise_l1", "pairwise_l2", "pairwise_linf"} <= {case["entry"] for case in made["cases"]}
    assert all(case["entry"].startswith("pairwise_l") and case["dtype"] == "float32" for case in made["cases"])
    assert {case["data"] for case in made["cases"]} >= {"generated", "digits"}
    assert all(case["agrees"] for case in made["cases"])
    assert keys_of(made) <= documented_keys()
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.slow
@pytest.mark.needs_jit
def test_published_figures_come_out(real_clock):
    folder = os.environ.get(datasets.DATA_VARIABLE)
    if not folder:
        pytest.skip(f"{datasets.DATA_VARIABLE} is not set: no real data at hand")
    cifar = datasets.load_cifar10(folder, batches=(1,))
    answers = [answer for question in known_answers.questions(cifar, full=False) for answer in question.ask()]
    assert len(answers) == 9 + 2 * len(known_answers.ERROR_RATES)
    assert [answer for answer in answers if answer.verdict != "matches"] == []
