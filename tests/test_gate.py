"""The regression gate: its statistics by simulation, its orchestration with made-up processes and a made-up clock."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import math
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benches import __main__ as command_line
from benches.gate import (
    CANNOT,
    FINE,
    SLOWER,
    WRONG,
    cases,
    command,
    decision,
    environments,
    rates,
    rounds,
    run,
    tables,
    worker,
)
from benches.gate.environments import GateError
from benches.gate.run import Accepted, Found, Outcome
from benches.gate.sources import Sources

ROOT = Path(__file__).resolve().parent.parent
RULE = decision.RULE


# Statistics --------------------------------------------------------------------------------------


def noise(random, pairs: int, benchmarks: int, spread: float = 0.04) -> np.ndarray:
    """Log ratios of identical sides: most pairs differ a little, now and then one differs much, in all benchmarks."""
    each = spread * random.standard_t(3, (pairs, benchmarks))
    disturbed = (random.random((pairs, 1)) < 0.05) * random.normal(0, 0.3, (pairs, 1))
    return each + disturbed


def test_identical_sides_give_no_false_alarm():
    values = noise(np.random.default_rng(1), 40, 200)
    rate = rates.false_alarms(values, gates=300)
    assert rate.times / rate.gates < 0.01


def test_a_planted_slowdown_is_found():
    values = noise(np.random.default_rng(2), 40, 60)
    each = [[column] for column in range(60)]
    rate = rates.power(values, each, 1.3, gates=300)
    assert rate.times / rate.gates > 0.95
    assert rates.power(values, each, 1.0, gates=300).times <= 3


def test_what_is_hard_to_find_is_named():
    values = noise(np.random.default_rng(6), 30, 6, 0.01)
    values[:, 4] *= 40
    values[:, 2] = 0
    assert [*rates.hard_to_find(values)] == [4]


def test_the_simulation_finds_a_rule_that_is_too_eager():
    eager = decision.Rule(screen=1.0, slower=1.0, floor=1.0, level=1.0, confirming_pairs=5)
    assert rates.false_alarms(noise(np.random.default_rng(3), 40, 200), eager, gates=50).times > 25


def test_much_that_is_slower_does_not_hide_itself():
    values = noise(np.random.default_rng(4), RULE.confirming_pairs, 500, 0.01) + math.log(1.5)
    assert decision.confirmed(values).mean() > 0.99


def test_small_differences_are_no_slowdowns():
    values = np.full((RULE.confirming_pairs, 1), math.log(1.07))
    assert not decision.suspected(values).any()
    assert not decision.confirmed(values).any()
    assert decision.confirmed(values + math.log(1.1)).all()


def test_one_pair_more_or_less_decides_by_the_sign_test():
    for above, is_slower in ((RULE.confirming_pairs, True), (RULE.confirming_pairs // 2 + 2, False)):
        values = np.full((RULE.confirming_pairs, 1), math.log(1.3))
        values[above:] = 0
        assert decision.confirmed(values).tolist() == [is_slower]


def test_a_benchmark_that_ran_in_no_pair_is_neither_suspected_nor_confirmed():
    values = np.full((5, 2), np.nan)
    values[:, 0] = 1
    assert decision.suspected(values).tolist() == [True, False]
    assert decision.confirmed(values[:, 1:]).tolist() == [False]


def test_log_ratio_is_positive_where_the_head_is_slower():
    assert decision.log_ratio(np.array([1.0, 1.0, 9.0]), np.array([2.0, 2.0, 2.0])) == pytest.approx(math.log(2))


def test_bounds_of_a_share():
    # Clopper and Pearson, by scipy.stats.binomtest(10, 100).proportion_ci().
    assert rates.bounds(10, 100) == pytest.approx((0.0490047, 0.1762226), abs=1e-6)
    assert rates.bounds(100, 100) == pytest.approx((0.9637833, 1), abs=1e-6)
    assert str(rates.Rate(0, 1000)) == "0.0 % (0.0 to 0.4)"


def test_intervals_hold_the_median():
    random = np.random.default_rng(5)
    held = 0
    for _ in range(400):
        low, high = decision.interval(random.normal(0.1, 0.05, 15))
        held += math.log(low) <= 0.1 <= math.log(high)
    assert held >= 375
    assert all(math.isnan(bound) for bound in decision.interval(np.array([np.nan])))


# Made-up sides -----------------------------------------------------------------------------------


class Machine:
    """A clock, and what calls take on each side."""

    def __init__(self, **factors: float) -> None:
        self.now = 0.0
        self.factors = factors  # benchmark -> head's time over base's
        self.luck = np.random.default_rng(0)
        self.started: list[str] = []
        self.read: list[tuple[str, str]] = []
        self.failing: dict[tuple[str, str], dict] = {}
        self.errors: dict[str, list[float]] = {}

    def clock(self) -> float:
        return self.now


class FakeSide:
    def __init__(self, name: str, machine: Machine) -> None:
        self.name = name
        self.machine = machine

    def start(self) -> FakeProcess:
        self.machine.started.append(self.name)
        return FakeProcess(self)


class FakeProcess:
    def __init__(self, side: FakeSide) -> None:
        self.side, self.machine = side, side.machine
        self.luck = math.exp(self.machine.luck.normal(0, 0.02))
        self.benchmark = ""
        self.answers: list[dict] = []

    def send(self, request: dict) -> None:
        self.answers.append(self.answer(**request))

    def receive(self) -> dict:
        return self.answers.pop(0)

    def close(self) -> None:
        pass

    def answer(self, do: str, benchmark: str = "", check: bool = False, repeat: int = 1) -> dict:
        machine, side = self.machine, self.side.name
        if do == "list":
            names = [*machine.factors]
            return {
                "benchmarks": [{"name": n, "kernel": n, "module": f"fastml.{n}"} for n in names],
                "expected": len(names),
            }
        if do == "prepare":
            self.benchmark = benchmark
            if (side, benchmark) in machine.failing:
                return machine.failing[side, benchmark]
            errors = machine.errors.get(benchmark, [0.1])
            error = None
            if check:
                error = errors.pop(0) if len(errors) > 1 and side == "head" else errors[0]
            return {"seconds": 1.0, "error": error}
        machine.read.append((side, self.benchmark))
        seconds = 5e-4 * self.luck * (machine.factors[self.benchmark] if side == "head" else 1)
        machine.now += repeat * seconds
        return {"seconds": seconds}


def compared(machine: Machine, accepted=(), deadline: float = 1e9, older: FakeSide | None = None) -> Outcome:
    base, head = FakeSide("base", machine), FakeSide("head", machine)
    outcome = run.plan(head, None, None, base=older)
    run.compare(base, head, outcome, accepted, deadline, clock=machine.clock)
    return outcome


def verdicts(outcome: Outcome) -> dict[str, str]:
    return {found.name: found.verdict for found in outcome.found}


def test_the_slower_is_found_and_nothing_else():
    outcome = compared(Machine(a=1.0, b=1.3, c=0.7, d=1.02))
    assert verdicts(outcome) == {"a": "same", "b": "slower", "c": "faster", "d": "same"}
    assert outcome.exit_code == SLOWER
    assert len(outcome.screening) == RULE.most_pairs
    assert len(outcome.confirming) == RULE.confirming_pairs
    assert all(set(pair) == {"b", "c"} for pair in outcome.confirming)
    slower = outcome.having("slower")[0]
    assert slower.low < 1.3 < slower.high
    assert slower.ratio == pytest.approx(1.3, rel=0.03)


def test_what_is_suspected_but_not_slower_again_is_no_alarm():
    machine = Machine(a=1.3, b=1.0, c=0.7)
    base, head = FakeSide("base", machine), FakeSide("head", machine)
    outcome = run.plan(head, None, None)
    say = lambda text: machine.factors.update(a=1.0, c=1.0) if text.startswith("again") else None  # noqa: E731
    run.compare(base, head, outcome, (), 1e9, clock=machine.clock, say=say)
    assert verdicts(outcome) == {"a": "not confirmed", "b": "same", "c": "not confirmed"}
    assert [float(found.note.split()[0]) for found in outcome.having("not confirmed")] == pytest.approx(
        [1.3, 0.7], rel=0.05
    )
    assert outcome.exit_code == FINE


@pytest.mark.parametrize(("name", "quads"), [("a", rounds.QUADS), ("a threads", rounds.QUADS_OF_THREADS)])
def test_every_pair_has_fresh_processes_and_sides_take_turns(name, quads):
    machine = Machine(**{name: 1.0})
    outcome = compared(machine)
    assert machine.started.count("base") == machine.started.count("head") - 1 == 1 + len(outcome.screening)
    sides = [side for side, _ in machine.read]
    per_pair = 4 + 4 * quads
    for number in range(len(outcome.screening)):
        first, second = ("base", "head") if number % 2 == 0 else ("head", "base")
        assert sides[per_pair * number + 4 : per_pair * (number + 1)] == [first, second, second, first] * quads
    assert outcome.screening[0][name].repeat == math.ceil(rounds.READING_S / 5e-4)


def test_screening_ends_when_the_time_is_over_but_not_before_enough_pairs():
    assert len(compared(Machine(a=1.0), deadline=0.0).screening) == RULE.least_pairs


def test_a_wrong_result_is_always_found():
    for error in (1.5, 1e300, math.nan, None):
        machine = Machine(a=1.0, b=1.0)
        machine.errors["b"] = [error]
        outcome = compared(machine)
        assert verdicts(outcome) == {"a": "same", "b": "wrong"}
        assert outcome.exit_code == WRONG


def test_a_result_that_is_wrong_only_when_loaded_from_the_cache_is_found():
    machine = Machine(a=1.0)
    machine.errors["a"] = [0.1, 2.0]
    assert verdicts(compared(machine)) == {"a": "wrong"}


def test_a_wrong_result_comes_before_slower():
    machine = Machine(a=1.5, b=1.0)
    machine.errors["b"] = [7.0]
    assert compared(machine).exit_code == WRONG


def test_a_head_that_fails_is_wrong_and_a_base_that_fails_is_not_comparable():
    machine = Machine(a=1.0, b=1.0, c=1.0)
    machine.failing = {
        ("head", "a"): {"failed": "ValueError: no"},
        ("base", "b"): {"failed": "TypeError: no argument n_threads"},
        ("base", "c"): {"missing": "no c"},
    }
    outcome = compared(machine)
    assert verdicts(outcome) == {"a": "failed", "b": "not comparable", "c": "new"}
    assert outcome.exit_code == WRONG
    del machine.failing["head", "a"]
    assert compared(machine).exit_code == FINE
    # Only another signature is a reason to leave a benchmark without a guard.
    machine.failing["base", "b"] = {"failed": "KeyError: b"}
    outcome = compared(machine)
    assert outcome.exit_code == CANNOT
    assert outcome.problems == ["the base fails at b: KeyError: b"]
    # Or that the base has no such benchmark: a variant, of a function that it has, came later.
    older = FakeSide("base", Machine(a=1.0, c=1.0))
    outcome = compared(machine, older=older)
    assert verdicts(outcome) == {"a": "same", "b": "new", "c": "new"}
    assert outcome.exit_code == FINE


def test_a_gate_that_could_compare_nothing_is_no_gate():
    machine = Machine(a=1.0)
    machine.failing["base", "a"] = {"failed": "TypeError: no argument n_threads"}
    outcome = compared(machine)
    assert outcome.problems == ["nothing could be compared"]
    assert outcome.exit_code == CANNOT


def test_a_benchmark_that_is_gone_is_noticed_and_may_be_accepted():
    machine, older = Machine(a=1.0), FakeSide("base", Machine(a=1.0, b=1.0))
    outcome = compared(machine, older=older)
    assert verdicts(outcome) == {"a": "same", "b": "gone"}
    assert outcome.exit_code == CANNOT
    assert "1 benchmarks are gone; if that is meant" in tables.text(outcome, DOCUMENT)
    assert "GONE" in tables.markdown(outcome, DOCUMENT)
    outcome = compared(machine, [Accepted("b", "nobody called it")], older=older)
    assert (verdicts(outcome)["b"], outcome.exit_code, outcome.stale) == ("accepted", FINE, [])
    # An entry for something slower does not cover it.
    assert compared(machine, [Accepted("b", "slower", 2.0)], older=older).exit_code == CANNOT


def test_a_base_that_cannot_say_what_it_has_is_remarked_upon(monkeypatch):
    older = FakeSide("base", Machine(a=1.0))
    monkeypatch.setattr(older, "start", lambda: (_ for _ in ()).throw(GateError("the worker died")))
    outcome = compared(Machine(a=1.0), older=older)
    assert outcome.exit_code == FINE
    assert "is not known: the worker died" in tables.text(outcome, DOCUMENT)


def test_a_failure_in_the_middle_is_could_not_run():
    machine = Machine(a=1.0)
    side = FakeSide("head", machine)
    machine.failing = {("head", "a"): {"failed": "MemoryError: "}}
    with pytest.raises(GateError, match="a: MemoryError"):
        rounds.measure_pair(FakeSide("base", machine), side, ["a"], 0)


def test_first_calls_are_shared_by_several_processes():
    machine = Machine(**{f"b{i}": 1.0 for i in range(40)})
    names = [*machine.factors]
    machine.errors["b7"] = [0.5]
    base, head = FakeSide("base", machine), FakeSide("head", machine)
    ticks = []
    answers = rounds.first_calls(
        [head, base], [names[:1], names[1:9], names[9:]], jobs=3, check=[head], tick=lambda: ticks.append(1)
    )
    assert [sorted(of) for of in answers] == [sorted(names)] * 2
    assert len(ticks) == 80
    assert answers[0]["b7"]["error"] == 0.5
    assert answers[1]["b7"]["error"] is None
    assert machine.started.count("head") <= 3


def test_a_first_call_that_ends_its_process_ends_all(monkeypatch):
    machine = Machine(a=1.0, b=1.0, c=1.0)
    asked = []

    def answer(self, benchmark="", **more):
        asked.append(benchmark)
        raise GateError(f"the worker died ({benchmark})")

    monkeypatch.setattr(FakeProcess, "answer", answer)
    with pytest.raises(GateError, match="died \\(a\\)"):
        rounds.first_calls([FakeSide("head", machine)], [["a"], ["b"], ["c"]], jobs=1)
    assert asked == ["a"]


def test_models_come_after_the_kernels_that_they_call():
    kernels = ["MLPClassifier", "LinearSVC", "exp", "k_nearest[l1]", "exp", "k_nearest[l2]"]
    groups = run._groups([Found(f"{kernel} {i}", kernel) for i, kernel in enumerate(kernels)])
    assert [len(group) for group in groups] == [2, 2, 1, 1]
    assert {name.split()[0] for group in groups[2:] for name in group} == {"MLPClassifier", "LinearSVC"}
    assert ["exp 2", "exp 4"] in groups


def test_much_that_looks_slower_is_run_again_until_something_is_certain(monkeypatch):
    monkeypatch.setattr(run, "AGAIN_AT_A_TIME", 2)
    factors = {"a": 1.3, "b": 1.6, "c": 1.5, "d": 1.4, "e": 1.0}
    outcome = compared(Machine(**factors))
    assert verdicts(outcome) == {"a": "not run again", "b": "slower", "c": "slower", "d": "not run again", "e": "same"}
    assert tables.text(outcome, DOCUMENT).count("not run again") == 2
    # What is accepted makes nothing certain.
    outcome = compared(Machine(**factors), [Accepted("?", "right first", 1.8)])
    assert verdicts(outcome) == dict.fromkeys("abcd", "accepted") | {"e": "same"}
    assert (outcome.exit_code, len(outcome.confirming)) == (FINE, 2 * RULE.confirming_pairs)


def test_the_number_of_benchmarks_is_asserted(monkeypatch):
    real = FakeProcess.answer

    def one_less(self, do, **more):
        answer = real(self, do, **more)
        return {**answer, "expected": answer["expected"] + 1} if do == "list" else answer

    monkeypatch.setattr(FakeProcess, "answer", one_less)
    with pytest.raises(GateError, match="3 different benchmarks were expected, the head lists 2"):
        compared(Machine(a=1.0, b=1.0))


def test_a_benchmark_that_ran_too_seldom_is_told():
    outcome = Outcome([Found("a", "a")], ["a"], expected=2, screening=[{}] * RULE.least_pairs)
    run._check_numbers(outcome, outcome.found, RULE)
    assert len(outcome.problems) == 2
    assert outcome.exit_code == CANNOT


def test_only_selects_and_a_pattern_without_a_match_is_refused():
    head = FakeSide("head", Machine(ab=1.0, cd=1.0))
    assert [found.name for found in run.plan(head, None, None, "a*").found] == ["ab"]
    with pytest.raises(GateError, match="matches none of 2"):
        run.plan(head, None, None, "x")


# Intended slowdowns ------------------------------------------------------------------------------


def test_an_accepted_slowdown_passes_up_to_its_factor():
    entry = Accepted("b*", "right first", 1.3)
    outcome = compared(Machine(a=1.0, b=1.3), [entry])
    assert verdicts(outcome) == {"a": "same", "b": "accepted"}
    assert outcome.exit_code == FINE
    assert not outcome.stale
    assert "right first" in outcome.having("accepted")[0].note
    outcome = compared(Machine(a=1.0, b=1.6), [entry])
    assert (outcome.exit_code, outcome.stale) == (SLOWER, [])


def test_entries_that_are_of_no_use_are_named():
    outcome = compared(Machine(a=1.0), [Accepted("a", "x", 1.2), Accepted("gone", "x", 1.2)])
    assert len(outcome.stale) == 2
    assert "gone" in outcome.stale[1]
    assert outcome.exit_code == FINE


def test_entries_for_what_was_not_asked_for_are_not_stale():
    machine = Machine(a=1.0, b=1.0)
    base, head = FakeSide("base", machine), FakeSide("head", machine)
    outcome = run.plan(head, None, None, only="a")
    run.compare(base, head, outcome, [Accepted("b", "x", 1.2), Accepted("c", "x", 1.2)], 1e9, clock=machine.clock)
    assert outcome.stale == ["'c' matches no benchmark"]


def test_the_file_of_intended_slowdowns_is_read(tmp_path):
    assert run.read_accepted(tmp_path / "none.toml") == []
    assert isinstance(run.read_accepted(ROOT / "benches" / "accepted.toml"), list)
    file = tmp_path / "accepted.toml"
    file.write_text('[[accepted]]\nbenchmark = "softmax float64*"\nfactor = 1.3\nreason = "right first"\n')
    [entry] = run.read_accepted(file)
    assert entry.covers("softmax float64 tiny")
    assert not entry.covers("log_softmax float64")
    # Brackets are a part of names.
    assert Accepted("k_nearest[l1] float32", "x", 2).covers("k_nearest[l1] float32")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[[accepted]]\nbenchmark = "a"\nfactor = 1.3\nreason = " "\n', "a reason, both texts"),
        ('[[accepted]]\nbenchmark = "a"\nfactor = 0.9\nreason = "b"\n', "above 1"),
        ('[[accepted]]\nbenchmark = "a"\nfactor = "2"\nreason = "b"\n', "above 1"),
        ('[[accepted]]\nbenchmark = "*"\nfactor = inf\nreason = "b"\n', "up to 10"),
        ('[[accepted]]\nbenchmark = 1\nreason = "b"\n', "both texts"),
        ('[[accepted]]\nbenchmark = "a"\nfactor = 1.9\n', "reason"),
        ('[[accepted]]\nbenchmark = "a"\nfactor = 1.9\nreason = "b"\nuntil = 1\n', "until"),
        ("[[acepted]]\n", "acepted"),
        ("[[\n", "accepted.toml"),
    ],
)
def test_a_wrong_entry_is_refused(tmp_path, text, problem):
    file = tmp_path / "accepted.toml"
    file.write_text(text)
    with pytest.raises(GateError, match=problem):
        run.read_accepted(file)


# Sources -----------------------------------------------------------------------------------------


def site(folder: Path, **files: str) -> Sources:
    texts = {"__init__": "", "kernels/__init__": "", "kernels/_jit": "", "kernels/_math": "from . import _jit", **files}
    for name, text in texts.items():
        file = folder / "fastml" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Sources(folder)


@pytest.mark.parametrize(
    "text",
    [
        "from ._math import exp",
        "from . import _math",
        "def f():\n    from fastml.kernels import _math",
        "import fastml.kernels._math",
    ],
)
def test_imports_inside_the_kernels_are_followed(tmp_path, text):
    sources = site(tmp_path, **{"kernels/logistic": text})
    assert sources.closure("fastml.kernels.logistic") == {
        "fastml.kernels.logistic",
        "fastml.kernels._math",
        "fastml.kernels._jit",
    }


@pytest.mark.parametrize(
    ("text", "has", "has_not"),
    [
        ("from . import kernels\nkernels.k_nearest(1)", "neighbors", "_other"),
        ("from fastml import kernels as k\nk.k_nearest(1)", "neighbors", "_other"),
        ("from .kernels import k_nearest", "neighbors", "_other"),
        ("import fastml\nfastml.kernels._math", "_math", None),
        ("from . import kernels\ngetattr(kernels, name)", "_other", None),
        ("from . import kernels\nkernels.nobody_defines_this", "_other", None),
    ],
)
def test_what_a_model_stands_on(tmp_path, text, has, has_not):
    kernels = {"kernels/neighbors": "from . import _math\ndef k_nearest(): ...", "kernels/_other": ""}
    closure = site(tmp_path, model=text, **kernels).closure("fastml.model")
    assert f"fastml.kernels.{has}" in closure
    assert f"fastml.kernels.{has_not}" not in closure
    assert "fastml.kernels" not in closure  # a table of names that every new name changes


def test_a_digest_changes_with_what_it_stands_on_and_with_nothing_else(tmp_path):
    files = {"kernels/logistic": "from ._math import exp", "kernels/other": ""}
    old = site(tmp_path / "old", **files)
    same = site(tmp_path / "same", **{**files, "kernels/other": "1", "kernels/__init__": "2"})
    deep = site(tmp_path / "deep", **{**files, "kernels/_jit": "1"})
    digests = [sources.digest("fastml.kernels.logistic") for sources in (old, same, deep)]
    assert digests[0] == digests[1] != digests[2]
    assert old.digest("fastml.kernels.gone") is None


def test_of_a_table_of_names_its_code_counts_and_the_rows_of_a_name(tmp_path):
    table = '"""Text."""\n_FAMILIES = {"a": ("f", "g", "k"), "b": ("h",)}\ndef __getattr__(name):\n    return 1\n'
    texts = {
        "first": table,
        "another name": table.replace('"h",', '"h", "i"').replace("Text", "More text"),
        "moved": table.replace('"f", ', "").replace('"h",', '"h", "f"'),
        "wrapped": table.replace("return 1", "return 2"),
    }
    f, g = (
        [
            site(tmp_path / text, **{"kernels/__init__": texts[text], "kernels/a": ""}).digest("fastml.kernels.a", name)
            for text in texts
        ]
        for name in "fg"
    )
    assert f[0] == f[1] != f[2] != f[3] != f[0]
    assert g[0] == g[1] == g[2] != g[3]


def test_unchanged_benchmarks_are_left_out(tmp_path):
    old = site(tmp_path / "old", a="", b="", c="")
    new = site(tmp_path / "new", a="1", b="", c="", d="")
    outcome = run.plan(FakeSide("head", Machine(a=1.0, b=1.0, c=1.0, d=1.0)), old, new)
    assert verdicts(outcome) == {"a": "same", "b": "left out", "c": "left out", "d": "same"}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The working tree as it would be installed."""
    folder = tmp_path_factory.mktemp("here")
    environments._install(ROOT, folder)
    return Sources(folder)


def test_real_kernels_stand_on_what_they_import(here):
    distances = here.closure("fastml.kernels.distances")
    assert {"fastml.kernels._jit", "fastml.kernels._simd", "fastml.kernels._validate"} <= distances
    assert not distances & {"fastml.kernels._descent", "fastml.kernels.logistic"}
    assert "fastml.kernels.training" in here.closure("fastml.sgd")
    assert "fastml.kernels.neighbors" in here.closure("fastml.neighbors")


def test_every_kernel_module_can_be_looked_at(here):
    for name in here.modules:
        if name not in ("fastml", "fastml.kernels"):
            assert name in here.closure(name)


# Environments ------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path):
    """A repository of two commits on main and one on a branch."""
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    folder = tmp_path / "repository"
    (folder / "fastml").mkdir(parents=True)
    (folder / "kernels").mkdir()
    (folder / "setup.cfg").write_text(
        "[options]\npackage_dir =\n    fastml = fastml\n    fastml.kernels = kernels\n"
        "packages =\n    fastml\n    fastml.kernels\n"
    )
    (folder / "fastml" / "__init__.py").write_text("VERSION = 1\n")
    (folder / "kernels" / "__init__.py").write_text("")
    commit(folder, "init", "-q", "-b", "main")
    for version in (1, 2):
        (folder / "fastml" / "__init__.py").write_text(f"VERSION = {version}\n")
        commit(folder, "add", "-A")
        commit(folder, "commit", "-qm", f"version {version}")
    return folder


def commit(folder: Path, *arguments: str) -> str:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    names = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *names, *arguments], cwd=folder, env=environ, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_an_environment_runs_its_own_revision(repository, tmp_path):
    (repository / "fastml" / "__init__.py").write_text("VERSION = 3\n")
    (repository / "kernels" / "new.py").write_text("")  # not committed, and not ignored
    found = []
    for name, revision in (("old", "HEAD~1"), ("new", "HEAD"), ("work", environments.WORKTREE)):
        made = environments.build(name, revision, repository, tmp_path / name, tmp_path / "cache" / name)
        code = "import fastml, numpy; print(fastml.VERSION, fastml.__file__)"
        shown = subprocess.run(
            [str(made.python), "-I", "-B", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
        ).stdout.split(maxsplit=1)
        assert made.site.resolve() in Path(shown[1].strip()).resolve().parents
        found.append((shown[0], (made.site / "fastml" / "kernels" / "new.py").exists()))
        assert len(made.commit) == 40
        assert made.changed == (name == "work")
    assert found == [("1", False), ("2", False), ("3", True)]


def test_the_worker_refuses_a_fastml_from_elsewhere(repository, tmp_path):
    made = environments.build("head", "HEAD", repository, tmp_path / "head", tmp_path / "cache")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    side = rounds.InstalledSide(dataclasses.replace(made, site=elsewhere), tmp_path / "catalogue.py", 1)
    process = side.start()
    try:
        with pytest.raises(GateError, match=r"the worker of the head died \(list\): .*which is not in"):
            rounds.ask(process, do="list")
    finally:
        process.close()


def test_a_revision_that_is_not_there_is_could_not_run(repository, tmp_path):
    with pytest.raises(GateError, match="rev-parse"):
        environments.build("base", "nothing", repository, tmp_path / "x", tmp_path / "cache")
    commit(repository, "rm", "-qr", "kernels")
    commit(repository, "commit", "-qm", "no kernels")
    with pytest.raises(GateError, match="has no kernels"):
        environments.build("base", "HEAD", repository, tmp_path / "y", tmp_path / "cache")


def test_the_base_when_none_is_named(repository):
    first, second = (commit(repository, "rev-parse", name) for name in ("HEAD~1", "HEAD"))
    commit(repository, "checkout", "-qb", "work")
    commit(repository, "commit", "-qm", "work", "--allow-empty")
    head = commit(repository, "rev-parse", "HEAD")
    assert environments.default_base(repository, head, []) == (second, "where the head left main")
    # A history file counts more, the newest most; one of a commit that is not here does not count.
    assert environments.default_base(repository, head, ["0" * 40, first])[0] == first
    assert environments.default_base(repository, head, [first, second])[0] == second
    commit(repository, "branch", "-qm", "main", "trunk")
    assert environments.default_base(repository, head, []) is None


def test_a_copy_without_a_past_has_no_base(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environments.default_base(tmp_path, environments.WORKTREE, []) is None


# The worker --------------------------------------------------------------------------------------


def made_worker(error=0.5, fail=None) -> worker.Worker:
    def prepare():
        if fail:
            raise fail
        return cases.Prepared(lambda: 1, lambda result: error)

    return worker.Worker([cases.Benchmark("a float32", "a", "fastml.kernels.a", prepare)], cases.Missing, 1)


def test_the_worker_answers_one_line_per_request():
    requests = [
        {"do": "list"},
        {"do": "prepare", "benchmark": "a float32", "check": True},
        {"do": "time", "repeat": 3},
        {"do": "quit"},
        {"do": "list"},
    ]
    answers = io.StringIO()
    worker.serve(made_worker(), io.StringIO("".join(json.dumps(request) + "\n" for request in requests)), answers)
    listed, prepared, timed = map(json.loads, answers.getvalue().splitlines())
    assert listed == {
        "benchmarks": [{"name": "a float32", "kernel": "a", "module": "fastml.kernels.a"}],
        "expected": 1,
    }
    assert prepared["error"] == 0.5
    assert timed["seconds"] >= 0


def test_the_worker_tells_failures_apart():
    request = {"do": "prepare", "benchmark": "a float32", "check": True}
    assert made_worker(fail=cases.Missing("no a")).answer(request) == {"missing": "no a"}
    assert made_worker(fail=ValueError("no")).answer(request) == {"failed": "ValueError: no"}
    assert made_worker().answer({**request, "benchmark": "b"}) == {"missing": "there is no b"}
    for wrong in (math.nan, math.inf):
        answer = made_worker(error=wrong).answer(request)
        assert json.loads(json.dumps(answer, allow_nan=False))["error"] == 1e300


# Benchmarks --------------------------------------------------------------------------------------


def all_benchmarks(n_threads: int) -> list[cases.Benchmark]:
    from fastml.kernels import catalogue

    return cases.benchmarks(catalogue.ENTRIES, n_threads)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_all_entries_and_models_are_there_under_names_of_their_own(n_threads):
    import fastml
    from fastml.kernels import catalogue

    found = all_benchmarks(n_threads)
    names = [benchmark.name for benchmark in found]
    assert len(set(names)) == len(names)
    models = sum(name in fastml.__all__ for name in cases.MODELS)
    assert len(names) == cases.expected_number(catalogue.ENTRIES, models, n_threads)
    for entry in catalogue.ENTRIES.values():
        assert {f"{entry.key} {dtype}" for dtype in entry.dtypes} <= set(names)
    assert all(cases.kernel_of(benchmark.name) == benchmark.kernel for benchmark in found)


def test_every_estimator_has_a_benchmark():
    import fastml

    estimators = {
        name
        for name in fastml.__all__
        if inspect.isclass(getattr(fastml, name)) and hasattr(getattr(fastml, name), "fit")
    }
    assert estimators <= cases.MODELS.keys()


def test_every_module_of_a_benchmark_has_sources(here):
    for benchmark in all_benchmarks(2):
        assert here.digest(benchmark.module) is not None, benchmark.name


def test_quick_sizes_lie_between_the_loop_and_the_default():
    from fastml.kernels import catalogue

    for entry in catalogue.ENTRIES.values():
        size = cases.quick_size(entry)
        assert len(size) == len(entry.axes)
        assert size[1:] == entry.sizes["default"][1:]
        assert 1 <= size[0] <= entry.sizes["default"][0]


def test_what_a_revision_lacks_is_missing_and_not_a_failure():
    def tier(name):
        raise AttributeError("module 'fastml.kernels' has no attribute 'new'")

    entry = SimpleNamespace(key="new", family="f", function="new", tier=tier)
    with pytest.raises(cases.Missing, match="has no new"):
        cases._of_entry(entry, "float32", (1,), 1, "").prepare()
    # What is there and cannot be imported is broken, not missing.
    entry.function = "exp"
    with pytest.raises(AttributeError):
        cases._of_entry(entry, "float32", (1,), 1, "").prepare()


@pytest.mark.needs_jit
@pytest.mark.parametrize("name", ["LogisticRegression", "Ridge"])
def test_a_wrong_model_is_found(name):
    import fastml

    model = cases.MODELS[name]
    X, y = cases.problem(model)
    assert X.dtype == np.float32
    assert cases.prediction_error(model, y, y) == 0
    assert cases.prediction_error(model, y[:-1], y) == math.inf
    assert cases.prediction_error(model, np.zeros_like(y), y) > 1
    # A few wrong ones more than there are now.
    found = getattr(fastml, name)(**model.parameters, n_jobs=1).fit(X, y).predict(X)
    assert cases.prediction_error(model, found, y) <= 1
    found[::10] = 0
    assert cases.prediction_error(model, found, y) > 1
    with np.errstate(invalid="ignore"):
        nan = cases.prediction_error(model, np.full(len(y), np.nan), y)
    assert not nan <= 1


@pytest.mark.needs_jit
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(cases.MODELS))
def test_models_reach_their_floors(name):
    found = {benchmark.name: benchmark for benchmark in all_benchmarks(1)}
    if f"{name}.fit" not in found:
        pytest.skip(f"fastml has no {name}")
    import warnings

    with warnings.catch_warnings():
        for step in ("fit", "predict"):
            prepared = found[f"{name}.{step}"].prepare()
            assert prepared.error(prepared.call()) <= 1


# Tables, raw rounds, rates -----------------------------------------------------------------------


DOCUMENT = {
    "base": {"commit": "a" * 40, "revision": "a", "why": "as named"},
    "head": {"commit": "b" * 40, "revision": "worktree", "changed": True},
    "threads": 2,
    "machine": {"cpu": {"model": "Some CPU"}},
}


def test_tables_say_what_a_reader_must_know():
    machine = Machine(a=1.0, b=1.3, c=0.7, d=1.4, e=1.0, f=1.0)
    machine.errors["e"] = [3.0]
    machine.failing["base", "f"] = {"missing": "no f"}
    outcome = compared(machine, [Accepted("d", "right first", 1.5), Accepted("gone", "x", 2.0)])
    for table in (tables.text(outcome, DOCUMENT), tables.markdown(outcome, DOCUMENT)):
        assert "WRONG RESULTS" in table
        for part in (
            "slower: 1.",
            "faster",
            "right first",
            "3 times the bound",
            "'gone'",
            "1 new",
            "above 1 the head is",
        ):
            assert part in table, part
    rows = [line for line in tables.markdown(outcome, DOCUMENT).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {7}


def test_tables_of_nothing():
    outcome = Outcome([Found("a", "a", "left out")], 1)
    assert "same sources" in tables.text(outcome, DOCUMENT)
    assert "same sources" in tables.markdown(outcome, DOCUMENT)


def synthetic_pairs(folder: Path, pairs: int, **factors: float) -> None:
    machine = Machine(**factors)
    for number in range(1, pairs + 1):
        pair = rounds.measure_pair(FakeSide("base", machine), FakeSide("head", machine), list(factors), number)
        document = {
            "schema": rates.SCHEMA,
            "commit": "c" * 40,
            "machine": {"cpu": "Some CPU"},
            "rounds": run.compact(pair),
        }
        rates._write(document, folder / f"{number:03d}.json")


def test_recorded_pairs_come_back_as_they_were(tmp_path):
    machine = Machine(a=1.2)
    pair = rounds.measure_pair(FakeSide("base", machine), FakeSide("head", machine), ["a"], 1)
    [(name, reading)] = rates.expand(json.loads(json.dumps(run.compact(pair)))).items()
    assert name == "a"
    assert reading.repeat == pair["a"].repeat
    assert reading.head == pytest.approx(pair["a"].head, rel=1e-3)
    synthetic_pairs(tmp_path, 3, **{"a float32": 1.0, "a float64": 1.2, "M.fit": 1.0})
    names, kernels, values, documents = rates.read(tmp_path)
    assert dict(zip(names, kernels, strict=True)) == {"a float32": "a", "a float64": "a", "M.fit": "M"}
    assert values.shape == (3, 3)
    assert len(documents) == 3
    assert np.exp(np.median(values[:, names.index("a float64")])) == pytest.approx(1.2, rel=0.05)


def test_rates_are_laid_out(tmp_path, capsys):
    synthetic_pairs(tmp_path, 20, **{"a float32": 1.0, "b float32": 1.0})
    assert command_line.main(["gate-rates", "--rounds", str(tmp_path), "--gates", "40"]) == 0
    shown = capsys.readouterr().out
    assert "20 identical pairs of 2 benchmarks of 2 kernels" in shown
    assert "false alarms of the whole gate         0.0 %" in shown
    assert "too few" not in shown
    assert f"1.3  times slower, one kernel     {rates.Rate(40, 40)}" in shown
    (tmp_path / "001.json").unlink()
    assert "19 pairs are too few" in rates.table(tmp_path, gates=1)


def test_the_recorded_pairs_of_the_repository_keep_what_the_guide_promises():
    folder = ROOT / "benches" / "gate_rounds"
    if not any(folder.glob("*.json")):
        pytest.skip("no pairs are recorded yet")
    names, kernels, values, _ = rates.read(folder)
    assert len(values) >= rates.LEAST_PAIRS
    of_kernels = [[i for i, kernel in enumerate(kernels) if kernel == one] for one in dict.fromkeys(kernels)]
    assert rates.false_alarms(values, gates=200).times <= 2
    assert rates.power(values, of_kernels, 1.3, gates=200).times >= 190
    assert len(names) > 100


def test_recording_goes_on_from_what_is_there(tmp_path, monkeypatch):
    machine = Machine(a=1.0)
    sides = FakeSide("base", machine), FakeSide("head", machine)
    for side in sides:
        side.n_threads = 2
    built = SimpleNamespace(commit="d" * 40)
    monkeypatch.setattr(environments, "build", lambda *arguments: built)
    monkeypatch.setattr(rates, "installed", lambda base, head: sides)
    for pairs in (1, 2):
        rates.record(ROOT, "HEAD", tmp_path / "rounds", tmp_path / "cache", pairs, None, lambda text: None)
    assert sorted(file.name for file in (tmp_path / "rounds").iterdir()) == ["001.json", "002.json", "003.json"]
    assert rates.read(tmp_path / "rounds")[2].shape == (3, 1)


# The command -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["gate", "--minutes", "0"], ["gate", "--no-such"], ["gate-rates", "--gates", "0"]]
)
def test_wrong_arguments_are_could_not_run(arguments, capsys):
    assert command_line.main(arguments) == CANNOT


def test_other_problems_are_could_not_run_too(tmp_path, monkeypatch, capsys):
    assert command_line.main(["gate-rates", "--rounds", str(tmp_path)]) == CANNOT
    assert "gate-record" in capsys.readouterr().err
    summary = tmp_path / "summary.md"
    assert command_line.main(["gate", "--base", "no-such-revision", "--markdown", str(summary)]) == CANNOT
    assert "COULD NOT RUN" in summary.read_text()

    def broken(*arguments):
        raise RuntimeError("a bug")

    monkeypatch.setattr(run, "run", broken)
    assert command_line.main(["gate", "--base", "HEAD"]) == CANNOT
    assert "a bug" in capsys.readouterr().err


def test_no_base_is_success(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(environments, "default_base", lambda *arguments: None)
    summary = tmp_path / "summary.md"
    assert command_line.main(["gate", "--markdown", str(summary)]) == FINE
    assert capsys.readouterr().out.strip() == tables.NO_BASE
    assert tables.NO_BASE in summary.read_text()


def test_the_command_writes_raw_rounds_and_returns_the_exit_code(tmp_path, monkeypatch, capsys):
    outcome = compared(Machine(a=1.0, b=1.4))
    document = {**DOCUMENT, "screening": [run.compact(pair) for pair in outcome.screening]}
    monkeypatch.setattr(run, "run", lambda options, say: (document, outcome))
    summary = tmp_path / "summary.md"
    arguments = ["gate", "--base", "HEAD", "--output", str(tmp_path / "out"), "--markdown", str(summary)]
    assert command_line.main(arguments) == SLOWER
    assert "SLOWER" in capsys.readouterr().out
    assert "| b |" in summary.read_text()
    written = json.loads((tmp_path / "out" / "gate.json").read_text())
    assert len(written["screening"]) == len(outcome.screening)
    assert len(written["screening"][0]["a"][1]) == 2 * rounds.QUADS


def test_ci_runs_the_gate():
    parts = re.search(r"^all=\((.+)\)$", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)[1].split()
    assert parts.index("wheel") < parts.index("gate") < parts.index("test")
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    job = workflow.partition("\n  gate:\n")[2].partition("\n\n")[0]
    assert '--cache "$NUMBA_CACHE_DIR"' in (ROOT / ".ci" / "run").read_text()  # what the other parts compiled is used
    for part in ("pull_request", "fetch-depth: 0", "-m benches gate --base", "GITHUB_STEP_SUMMARY"):
        assert part in job


def test_exit_codes_are_distinct():
    assert len({FINE, SLOWER, WRONG, CANNOT}) == 4
    assert set(command.COMMANDS) == {"gate", "gate-record", "gate-rates"}


@pytest.mark.needs_jit
@pytest.mark.slow
def test_the_whole_on_a_planted_wrong_result_and_slowdown(tmp_path):
    """The files as they are against copies whose exponential is wrong, or slower: environments, processes, all."""
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("fastml", "kernels"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.nb?"), symlinks=True
        )
    if (folder / "fastml" / "kernels").is_symlink():
        (folder / "fastml" / "kernels").unlink()
    shutil.copy(ROOT / "setup.cfg", folder)
    commit(folder, "init", "-q", "-b", "main")
    commit(folder, "add", "-A")
    commit(folder, "commit", "-qm", "right")
    options = run.Options(
        "HEAD", environments.WORKTREE, folder, tmp_path / "cache", 0.01, folder / "no", only="exp float32 t?ny"
    )
    document, outcome = run.run(options, lambda text: None)
    assert outcome.exit_code == FINE
    assert verdicts(outcome) == {"exp float32 tiny": "left out"}
    source = folder / "kernels" / "logistic.py"
    text = source.read_text()
    right = 'return _elementwise(_exp_entries, x, "x", n_threads)'
    assert right in text
    source.write_text(text.replace(right, f"{right} * np.float32(1.0001)"))
    document, outcome = run.run(options, lambda text: None)
    assert verdicts(outcome) == {"exp float32 tiny": "wrong"}
    assert document["exit_code"] == WRONG
    # And one that computes four times, with as few pairs as can say anything.
    source.write_text(text.replace(right, f"return [{right.removeprefix('return ')} for _ in range(4)][-1]"))
    rule = dataclasses.replace(RULE, least_pairs=3, most_pairs=3, confirming_pairs=9)
    sides = run.installed(
        environments.build("base", "HEAD", folder, tmp_path / "base", tmp_path / "cache"),
        environments.build("head", environments.WORKTREE, folder, tmp_path / "head", tmp_path / "cache"),
    )
    outcome = run.plan(sides[1], None, None, options.only)
    run.compare(*sides, outcome, (), 1e9, rule=rule)
    assert verdicts(outcome) == {"exp float32 tiny": "slower"}
    assert outcome.exit_code == SLOWER
