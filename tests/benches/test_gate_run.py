"""A run of the gate with made-up processes and a made-up clock; what it prints and writes; then the whole once."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
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
    command,
    comparing,
    decision,
    environments,
    rates,
    rounds,
    run,
    tables,
)
from benches.gate.environments import GateError
from benches.gate.outcome import Accepted, Found, Outcome
from benches.measuring.repository import ROOT, WORKTREE

RULE = decision.RULE


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
                "benchmarks": [{"name": n, "kernel": n, "package": f"fastml.{n}"} for n in names],
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
    outcome = comparing.plan(head, None, None, base=older)
    comparing.compare(base, head, outcome, accepted, deadline, clock=machine.clock)
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
    outcome = comparing.plan(head, None, None)
    say = lambda text: machine.factors.update(a=1.0, c=1.0) if text.startswith("again") else None  # noqa: E731
    comparing.compare(base, head, outcome, (), 1e9, clock=machine.clock, say=say)
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
    groups = comparing.groups_of_one_code([Found(f"{kernel} {i}", kernel) for i, kernel in enumerate(kernels)])
    assert [len(group) for group in groups] == [2, 2, 1, 1]
    assert {name.split()[0] for group in groups[2:] for name in group} == {"MLPClassifier", "LinearSVC"}
    assert ["exp 2", "exp 4"] in groups


def test_much_that_looks_slower_is_run_again_until_something_is_certain(monkeypatch):
    monkeypatch.setattr(comparing, "AGAIN_AT_A_TIME", 2)
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
    comparing.check_numbers(outcome, outcome.found, RULE)
    assert len(outcome.problems) == 2
    assert outcome.exit_code == CANNOT


def test_only_selects_and_a_pattern_without_a_match_is_refused():
    head = FakeSide("head", Machine(ab=1.0, cd=1.0))
    assert [found.name for found in comparing.plan(head, None, None, "a*").found] == ["ab"]
    with pytest.raises(GateError, match="matches none of 2"):
        comparing.plan(head, None, None, "x")


def test_unchanged_benchmarks_are_left_out():
    old, new = (
        SimpleNamespace(digest=lambda package, name, digests=digests: digests.get(name))
        for digests in ({"a": "1", "b": "1", "c": "1"}, {"a": "2", "b": "1", "c": "1", "d": "1"})
    )
    outcome = comparing.plan(FakeSide("head", Machine(a=1.0, b=1.0, c=1.0, d=1.0)), old, new)
    assert verdicts(outcome) == {"a": "same", "b": "left out", "c": "left out", "d": "same"}


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
    outcome = comparing.plan(head, None, None, only="a")
    comparing.compare(base, head, outcome, [Accepted("b", "x", 1.2), Accepted("c", "x", 1.2)], 1e9, clock=machine.clock)
    assert outcome.stale == ["'c' matches no benchmark"]


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
            "rounds": rounds.compact(pair),
        }
        rates.write(document, folder / f"{number:03d}.json")


def test_recorded_pairs_come_back_as_they_were(tmp_path):
    machine = Machine(a=1.2)
    pair = rounds.measure_pair(FakeSide("base", machine), FakeSide("head", machine), ["a"], 1)
    [(name, reading)] = rounds.expand(json.loads(json.dumps(rounds.compact(pair)))).items()
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
    document = {**DOCUMENT, "screening": [rounds.compact(pair) for pair in outcome.screening]}
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
def test_the_whole_on_a_planted_wrong_result_and_slowdown(tmp_path, git):
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
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "right")
    options = run.Options("HEAD", WORKTREE, folder, tmp_path / "cache", 0.01, folder / "no", only="exp float32 t?ny")
    document, outcome = run.run(options, lambda text: None)
    assert outcome.exit_code == FINE
    assert verdicts(outcome) == {"exp float32 tiny": "left out"}
    right = 'return _elementwise(_exp_entries, x, "x", n_threads)'
    [source] = [file for file in (folder / "kernels").rglob("*.py") if right in file.read_text(encoding="utf-8")]
    text = source.read_text(encoding="utf-8")
    source.write_text(text.replace(right, f"{right} * np.float32(1.0001)"))
    document, outcome = run.run(options, lambda text: None)
    assert verdicts(outcome) == {"exp float32 tiny": "wrong"}
    assert document["exit_code"] == WRONG
    # And one that computes four times, with as few pairs as can say anything.
    source.write_text(text.replace(right, f"return [{right.removeprefix('return ')} for _ in range(4)][-1]"))
    rule = dataclasses.replace(RULE, least_pairs=3, most_pairs=3, confirming_pairs=9)
    sides = run.installed(
        environments.build("base", "HEAD", folder, tmp_path / "base", tmp_path / "cache"),
        environments.build("head", WORKTREE, folder, tmp_path / "head", tmp_path / "cache"),
    )
    outcome = comparing.plan(sides[1], None, None, options.only)
    comparing.compare(*sides, outcome, (), 1e9, rule=rule)
    assert verdicts(outcome) == {"exp float32 tiny": "slower"}
    assert outcome.exit_code == SLOWER
