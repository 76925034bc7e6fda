"""The report measures: cases, times, speed-ups, errors, and figures that are known."""

from __future__ import annotations

import copy
import io
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rich", reason="the report needs the extra bench")
pytest.importorskip("threadpoolctl", reason="the report needs the extra bench")
pytest.importorskip("matplotlib", reason="the report needs the extra plot")

from benches import __main__ as command_line
from benches.measuring import limits, timing
from benches.report import case, html, known_answers, plan, run, summary, terminal
from fastml import datasets
from fastml.cli import warmup
from fastml.kernels.catalogue import ENTRIES
from fastml.kernels.runtime import jit


def case_of(document: dict[str, Any], key: str) -> dict[str, Any]:
    return next(case for case in document["cases"] if case["entry"] == key)


# Measuring -------------------------------------------------------------------------------------


def test_times_and_speedups_are_those_of_the_tiers(document):
    tiers, speedups = case_of(document, "good[x]")["tiers"], case_of(document, "good[x]")["speedups"]
    expected = {"loops": 0.4, "vectorized": 0.008, "vectorized_all": 0.008, "compiled_1": 0.004, "compiled_all": 0.002}
    assert {name: tier["seconds"] for name, tier in tiers.items()} == pytest.approx(expected)
    assert {name: tier["best"] for name, tier in tiers.items()} == pytest.approx(expected)
    assert all(tiers[name]["readings"] >= timing.MIN_ROUNDS for name in expected)
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


def test_a_loop_on_a_part_is_scaled_and_says_so(document, made_up):
    loops = case_of(document, "good[x]")["tiers"]["loops"]
    assert loops["scaled"] is True
    assert loops["timed_size"] == {"n": 10}
    assert loops["seconds"] == pytest.approx(0.4)  # 4 ms for 10 of 1,000
    quick = made_up.run(made_up.Entry("quick", made_up.FAST | {"loops": 5}), seconds=2)
    loops = case_of(quick, "quick")["tiers"]["loops"]
    assert loops["scaled"] is False
    assert loops["timed_size"] == {"n": 1000}
    assert loops["seconds"] == pytest.approx(0.005)


def test_throughput_and_share_of_the_limit(document, made_up):
    good = case_of(document, "good[x]")
    tier = good["tiers"]["compiled_all"]
    assert tier["throughput"] == pytest.approx(1000 / tier["seconds"])
    assert tier["share_of_limit"] == pytest.approx(4000 / tier["seconds"] / 2e9)
    assert good["fits_in_cache"] is True
    tier = case_of(document, "slow_one")["tiers"]["compiled_1"]
    assert tier["share_of_limit"] == pytest.approx(1000 / tier["seconds"] / 1e9)
    assert made_up.limits.of("gemm", "float64", "all") == 1e9
    assert made_up.limits.of("gemm", "uint8", "all") == 2e9
    with pytest.raises(ValueError, match="limit must be"):
        made_up.limits.of("disk", "float32", "1")


def test_what_an_empty_cache_lacks_is_compiled_before(monkeypatch, made_up):
    asked = []

    def run(keys, jobs, *, dtypes, silent):
        asked.append((keys, jobs, dtypes))
        return [warmup.Outcome(key, 3.0, key == "exp", None) for key in keys]

    monkeypatch.setattr(warmup, "run", run)
    monkeypatch.setattr(jit, "cache_info", lambda: SimpleNamespace(writable=True))
    some = {key: ENTRIES[key] for key in ("exp", "sigmoid", "pairwise_l1")}
    chosen = plan.generated_cases({**some, "fake": made_up.fast("fake")}, full=False)
    assert case.compile_cases(chosen, 1) == {}
    found = case.compile_cases(chosen, 2)
    assert asked == [(["exp", "sigmoid", "pairwise_l1"], 2, ("float32",)), (["pairwise_l1"], 2, ("uint8",))]
    assert found == {("exp", "float32"): 3.0}


def test_what_another_process_compiled_is_in_the_first_call(monkeypatch, made_up):
    monkeypatch.setattr(run, "compile_cases", lambda chosen, n_threads: {("b", "float32"): 7.0})
    made = made_up.run(made_up.fast("a"), made_up.fast("b"))
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
def test_exit_code_is_not_zero_if_any_tier_is_wrong(tier, made_up):
    assert summary.exit_code(made_up.run(made_up.fast("fine"))) == 0
    assert summary.exit_code(made_up.run(made_up.fast("off", off={tier: 0.01}))) == 1
    assert summary.exit_code(made_up.run(made_up.fast("off", off={tier: math.nan}))) == 1
    assert summary.exit_code(made_up.run(made_up.fast("off", off={tier: ValueError("?")}))) == 1


def test_slower_within_the_noise_is_told_from_slower(document):
    made = copy.deepcopy(document)
    case = case_of(made, "slow_one")
    case["tiers"]["compiled_1"]["best"] = 0.9 * case["tiers"]["vectorized"]["best"]
    assert [item["within_noise"] for item in summary.summarize(made)["slower"]] == [True, False]
    case["speedups"]["compiled_all_over_vectorized_all"] = 0.97
    assert [item["within_noise"] for item in summary.summarize(made)["slower"]] == [True, True]
    made["summary"] = summary.summarize(made)
    out = io.StringIO()
    terminal.render(made, terminal.console(out))
    assert "0.97 × as fast with all 2 threads, within the noise" in out.getvalue()


def test_threads_that_lose_are_named(document):
    made = copy.deepcopy(document)
    case = case_of(made, "slow_one")
    one, every = (case["tiers"][tier] for tier in ("compiled_1", "compiled_all"))
    every["best"] = 2 * one["best"]
    case["speedups"]["compiled_all_over_compiled_1"] = 0.98
    assert "slow_one float32 generated" not in summary.summarize(made)["threads_lose"]
    case["speedups"]["compiled_all_over_compiled_1"] = 0.5
    made["summary"] = summary.summarize(made)
    assert "slow_one float32 generated" in made["summary"]["threads_lose"]
    out = io.StringIO()
    terminal.render(made, terminal.console(out))
    phrase = "slow_one float32 generated: slower with all threads than with one"
    assert phrase in out.getvalue()
    assert phrase in html.page(made)
    every["best"] = one["best"] / 2
    assert "slow_one float32 generated" not in summary.summarize(made)["threads_lose"]


def test_exit_code_of_a_figure_that_differs(document):
    only = {**document, "cases": [], "known_answers": document["known_answers"][:1], "interrupted": False}
    assert summary.exit_code({**only, "summary": summary.summarize(only)}) == 0
    only["known_answers"] = document["known_answers"]
    assert summary.exit_code({**only, "summary": summary.summarize(only)}) == 1


def test_ctrl_c_keeps_what_was_measured(made_up):
    class Impatient(run.Progress):
        closed = False

        def at(self, what):
            if what.startswith("second"):
                raise KeyboardInterrupt

        def close(self):
            self.closed = True

    progress = Impatient()
    entries = made_up.catalogue(
        made_up.fast("first"),
        made_up.fast("second"),
        made_up.fast("third"),
    )
    made = run.run(plan.Options(n_threads=2, seconds=0.5), catalogue=entries, progress=progress)
    assert made["interrupted"] is True
    assert [case["entry"] for case in made["cases"]] == ["first"]
    assert made["planned"] == 3
    assert progress.closed
    assert summary.exit_code(made) == 130
    out = io.StringIO()
    terminal.render(made, terminal.console(out))
    assert "INTERRUPTED: 1 cases measured before Ctrl-C, of 3 planned" in out.getvalue()
    assert "Interrupted" in html.page(made)


def test_budget_bounds_the_time(made_up):
    def take(budget: float, *seconds: float) -> tuple[float, list[int]]:
        start = made_up.clock.now
        ways = {str(s): timing.Way(lambda s=s: made_up.clock.work(s)) for s in seconds}
        timings = timing.take_turns(ways, budget)
        assert [timing.seconds for timing in timings.values()] == pytest.approx(seconds)
        return made_up.clock.now - start, [timing.readings for timing in timings.values()]

    spent, readings = take(0.1, 0.001, 0.002)
    assert spent < 0.11
    assert readings == [timing.MAX_ROUNDS] * 2
    spent, readings = take(0.1, 0.01, 0.02)
    assert spent <= 0.1
    assert readings == [3, 3]
    assert take(0.1, 0.05)[1] == [3], "a little over the budget for the sake of a median"
    assert take(0.1, 1.0) == (pytest.approx(1.0), [1])


def test_short_calls_are_read_in_bunches(monkeypatch, made_up):
    calls = []
    way = timing.Way(lambda: (calls.append(1), made_up.clock.work(1e-6)))
    found = timing.take_turns({"short": way}, 0.001)["short"]
    assert way.repeat == 200
    assert found.seconds == pytest.approx(1e-6)
    assert len(calls) == 1 + 200 * found.readings


def test_blas_threads_of_vectorized_are_noticed_and_timed_apart(monkeypatch, made_up):
    assert not timing.uses_several_threads(lambda: made_up.clock.work(0.002), 2)
    monkeypatch.setattr(made_up.clock, "busy_threads", 2)
    assert timing.uses_several_threads(lambda: made_up.clock.work(0.002), 2)
    assert not timing.uses_several_threads(lambda: made_up.clock.work(0.002), 1)

    limits_seen: list[int] = []
    real = timing.blas_limit
    monkeypatch.setattr(timing, "blas_limit", lambda n: (limits_seen.append(n), real(n))[1])
    tiers = case_of(made_up.run(made_up.fast("fine")), "fine")["tiers"]
    assert tiers["vectorized_all"]["seconds"] == pytest.approx(0.008)
    assert tiers["vectorized_all"]["share_of_limit"] == pytest.approx(tiers["vectorized"]["share_of_limit"] / 2)
    assert set(limits_seen) == {1, 2}


def test_timing_of_readings():
    found = timing.Timing.of([3.0, 1.0, 2.0, 10.0, 2.0])
    assert (found.seconds, found.best, found.readings) == (2.0, 1.0, 5)
    assert found.spread == pytest.approx(0.25)
    assert timing.Timing.of([1.0]).spread == 0


def test_blas_threads_are_held_and_given_back():
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def counts() -> list[int]:
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]

    timing.blas_limit(1)
    before = counts()
    if not before:
        pytest.skip("no BLAS that threadpoolctl knows")
    with timing.blas_limit(1):
        assert set(counts()) == {1}
    assert counts() == before


def test_the_better_of_two_measurements_of_a_limit_counts(made_up):
    other = replace(
        made_up.limits, memory={"1": 3e9, "all": 1e9}, gemm={d: {"1": 7e8, "all": 7e8} for d in made_up.limits.gemm}
    )
    found = limits.better(made_up.limits, other)
    assert found.memory == {"1": 3e9, "all": 2e9}
    assert found.gemm == {"float32": {"1": 1e9, "all": 2e9}, "float64": {"1": 7e8, "all": 1e9}}


def test_limits_are_measured():
    found = limits.measure_limits(2, readings=2, gemm_size=64, array_bytes=2**20)
    assert 0 < found.memory["1"] <= found.memory["all"]
    assert set(found.gemm) == {"float32", "float64"}
    assert all(0 < rates["1"] <= rates["all"] for rates in found.gemm.values())
    assert found.cache_bytes >= 2**17


# What is measured ------------------------------------------------------------------------------


@pytest.mark.needs_jit
def test_only_that_matches_nothing_is_an_error(capsys, tmp_path, made_up):
    arguments = ["report", "--only", "nothing-like-it", "--output", str(tmp_path / "out")]
    assert command_line.main(arguments, catalogue=made_up.catalogue(made_up.fast("first"))) == 2
    captured = capsys.readouterr()
    assert "'nothing-like-it' matches nothing" in captured.err
    assert "first float32 generated" in captured.err
    assert not (tmp_path / "out").exists()


@pytest.mark.needs_jit
def test_data_folder_without_data_is_an_error(capsys, tmp_path, made_up):
    arguments = ["report", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    assert command_line.main(arguments, catalogue=made_up.catalogue(made_up.fast("first"))) == 2
    assert "MNIST was not found" in capsys.readouterr().err


def test_modes_and_dtypes_choose_the_cases(made_up):
    entries = {"good": made_up.fast("good")}
    default = plan.generated_cases(entries, full=False)
    assert [(case.dtype, case.size, case.loop_size) for case in default] == [("float32", (1000,), (10,))]
    full = plan.generated_cases(entries, full=True)
    assert [(case.dtype, case.size) for case in full] == [("float32", (2000,)), ("float64", (2000,))]
    assert [case.dtype for case in plan.generated_cases(entries, full=False, dtypes=["float64"])] == ["float64"]
    entries["good"].sizes["wide"] = (7,)
    assert len(plan.generated_cases(entries, full=False)) == 1
    full = plan.generated_cases(entries, full=True, dtypes=["float32"])
    assert [(case.name, case.size) for case in full] == [
        ("good float32 generated", (2000,)),
        ("good float32 generated wide", (7,)),
    ]
    assert full[1].loop_size == (7,), "less work than the part"
    assert summary.group_title(full[1].data, "float32") == "Generated arrays, wide, float32"


def test_real_data_take_the_place_of_generated_points(made_up):
    class Points(made_up.Entry):
        axes = ("n", "m", "d")

        def __init__(self) -> None:
            super().__init__("points[l1]", made_up.FAST, family="distances")
            self.sizes = {"tiny": (2, 3, 4), "default": (20, 30, 40), "full": (20, 30, 40)}
            self.loop_size = (4, 50, 64)

        def make(self, size, dtype, regime="typical", seed=0):
            return made_up.Inputs(
                (np.zeros((size[0], size[2]), dtype), np.zeros((size[1], size[2]), dtype)), {"metric": "l1"}
            )

    digits = datasets.load_digits()
    (case,) = plan.real_cases({"points[l1]": Points(), "other": made_up.fast("other")}, digits, full=False)
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

    (answer,) = run.answers(known_answers.Question("W8 norm l1 uint8 CIFAR-10", ask))
    assert answer["verdict"] == "differs"
    assert "no kernel" in answer["found"]
