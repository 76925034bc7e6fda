"""The comparison with other libraries: it runs, it judges, and it cannot be talked into a wrong result."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from benches import __main__ as command
from benches.measuring.repository import ROOT
from benches.peers import run, table
from benches.peers.jobs import goals, linear, losses, neighbors, networks, radius, searches, training
from benches.peers.jobs.job import OURS, PACKAGES, Job, Limit, NoData, NotReached, Outcome, Peer, Prepared
from benches.peers.jobs.neighbors import rows_agree
from benches.peers.page import page
from benches.report import tiles
from fastml import kernels


def anything(ours, theirs) -> None:
    """Judge nothing."""


def job(ours=lambda: None, makers=None, limit=None, key="job") -> Job:
    return Job(key, "size", lambda _: Prepared(ours, makers or {}, limit))


def outcomes(ours, settings, judge=anything) -> list[Outcome]:
    return run.run(job(lambda: ours, {"scipy": lambda: Peer(settings, judge)}), 1)


def fast() -> None:
    pass


def fails(*_):
    raise RuntimeError("out of\nmemory")


def shown(found) -> str:
    return "\n".join(table.lines(found))


#: All jobs, to see that they run and not how fast; NumPy is loaded after its threads were told to sleep.
ALL_JOBS = """
import sys
from benches import __main__ as command
from benches.measuring.command_line import let_idle_threads_sleep

let_idle_threads_sleep()
from benches.peers import run

run.ROUNDS, run._PAUSE_S, run._READING_S = 2, 0.0, 0.0
sys.exit(command.main(["peers", "--quick", "--threads", "2", "--output", sys.argv[1]]))
"""


@pytest.mark.needs_jit
@pytest.mark.slow
def test_all_jobs_run_and_all_results_agree(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALL_JOBS, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "peers.json").read_text())
    text = (tmp_path / "peers.html").read_text(encoding="utf-8")
    assert all(version is None or version in text for version in document["versions"].values())
    assert all(outcome["job"] in text for outcome in document["outcomes"])
    table = done.stdout
    assert max(map(len, table.splitlines()[1:])) <= 100
    for outcome in document["outcomes"]:
        assert outcome["job"] in table
        assert outcome["status"] in ("timed", "missing")
        no_data = outcome["package"] == OURS and "FASTML_DATA" in (outcome["problem"] or "")
        assert no_data or outcome["problem"] in (None, "not installed")
        assert (outcome["ratio"] is None) == (outcome["problem"] is not None)
    scipy = [outcome for outcome in document["outcomes"] if outcome["package"] == "scipy"]
    assert all(outcome["ratio"] > 0 for outcome in scipy)
    assert len(scipy) == 15
    limits = [outcome for outcome in document["outcomes"] if outcome["limit"]]
    assert len(limits) == 8
    assert all(outcome["package"] in ("numpy", OURS) and outcome["ratio"] > 0 for outcome in limits)
    for errors in document["errors"].values():
        assert errors["fastml"] <= 1e-5


def test_libraries_are_loaded_after_they_were_told_to_let_threads_sleep():
    """BLAS reads its environment once: loaded before, its idle threads took half of our time."""
    code = "import sys, benches.__main__; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_wrong_result_gets_no_time():
    right = np.array([[1.0, 2.0]])
    [outcome] = outcomes(right, {"wrong": lambda: right + 1e-3}, rows_agree(1e-5))
    assert outcome.ratio is None
    assert "differ" in outcome.problem
    [outcome] = outcomes(right, {"wrong": lambda: right + 1e-3, "right": lambda: right}, rows_agree(1e-5))
    assert outcome.setting == "right"
    assert outcome.problem is None
    assert outcome.ratio > 0


def test_the_fastest_setting_counts():
    def slow() -> None:
        np.linalg.svd(np.eye(150))

    [outcome] = outcomes(None, {"slow": slow, "fast": lambda: None})
    assert outcome.setting == "fast"


def test_a_missing_peer_is_named(monkeypatch):
    monkeypatch.setitem(PACKAGES, "faiss-cpu", "a_module_that_is_nowhere")
    monkeypatch.setattr(goals, "GOALS", (goals.Goal("job, size", goals.OTHERS, 2.0, 2.0),))
    [outcome] = run.run(job(makers={"faiss-cpu": fails}), 1)
    assert (outcome.status, outcome.problem, outcome.goal) == ("missing", "not installed", 2.0)
    assert "not installed" in shown([outcome])


def test_a_peer_that_cannot_be_imported_is_named_with_the_reason(monkeypatch, tmp_path):
    (tmp_path / "a_module_without_its_library.py").write_text(
        "raise OSError('libgomp.so.1: cannot open shared object')"
    )
    (tmp_path / "a_module_without_another.py").write_text("import a_module_that_is_nowhere")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PACKAGES, "torch", "a_module_without_its_library")
    monkeypatch.setitem(PACKAGES, "faiss-cpu", "a_module_without_another")

    def part() -> Peer:
        raise ImportError("libstdc++.so.6: too old")

    makers = {"torch": fails, "faiss-cpu": fails, "scipy": part, "numpy": lambda: Peer({"": fast}, anything)}
    found = run.run(job(makers=makers), 1)
    assert [outcome.status for outcome in found] == ["missing", "missing", "missing", "timed"]
    for outcome, why in zip(found, ("libgomp.so.1", "a_module_that_is_nowhere", "libstdc++.so.6"), strict=False):
        assert why in outcome.problem
        assert why in shown([outcome])
    assert not any(map(table.is_error, map(asdict, found)))


@pytest.mark.parametrize("where", ["made", "called", "judged", "timed"])
def test_a_peer_that_fails_is_named_and_the_others_go_on(where):
    seen = []

    def call() -> None:
        if where == "called" or (where == "timed" and len(seen) > 1):  # ours runs again in the rounds only
            fails()

    def make() -> Peer:
        return fails() if where == "made" else Peer({"broken": call}, fails if where == "judged" else anything)

    found = run.run(job(lambda: seen.append(1), {"numpy": make, "scipy": lambda: Peer({"": fast}, anything)}), 1)
    assert [outcome.status for outcome in found] == ["failed", "timed"]
    assert found[0].ratio is None
    assert found[1].ratio > 0
    assert "RuntimeError: out of memory" in shown(found)
    assert not any(map(table.is_error, map(asdict, found)))


def test_a_setting_that_fails_does_not_count():
    [outcome] = outcomes(None, {"broken": fails, "works": fast})
    assert (outcome.setting, outcome.status, outcome.problem) == ("works", "timed", None)


def test_a_job_without_its_data_is_missing_and_no_error():
    def prepare(n_threads: int) -> Prepared:
        raise NoData("no data folder: set FASTML_DATA")

    [outcome] = run.run(Job("job", "size", prepare), 1)
    assert (outcome.package, outcome.status) == (OURS, "missing")
    assert "no data folder" in shown([outcome])
    assert not table.is_error(asdict(outcome))


def test_our_own_failure_is_an_error_and_the_other_jobs_go_on():
    [outcome] = run.run(job(fails, {"scipy": lambda: Peer({"": fast}, anything)}), 1)
    assert (outcome.package, outcome.status) == (OURS, "failed")
    assert table.is_error(asdict(outcome))


def test_ctrl_c_ends_the_run():
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outcomes(None, {"interrupted": interrupt})


def short(*_):
    raise NotReached("it ends at 9.0e-03, the goal is 1e-04")


@pytest.mark.parametrize(("call", "judge"), [(short, anything), (fast, short)])
def test_a_peer_that_stops_before_the_goal_has_no_time_and_is_no_error(call, judge):
    [outcome] = outcomes(None, {"primal": call}, judge)
    assert (outcome.status, outcome.ratio) == ("not reached", None)
    assert "does not reach the goal: primal: it ends at 9.0e-03" in shown([outcome])
    assert not table.is_error(asdict(outcome))
    assert "0 comparisons" in table.summary([asdict(outcome)])
    assert "1 without a time, as the peer does not reach the goal" in table.summary([asdict(outcome)])


def test_a_wrong_result_beside_one_that_stops_early_is_an_error():
    right = np.array([[1.0]])
    [outcome] = outcomes(right, {"short": short, "wrong": lambda: right + 1}, rows_agree(1e-5))
    assert outcome.status == "wrong"
    assert table.is_error(asdict(outcome))
    assert "WRONG" in shown([outcome])


def test_a_solver_gets_the_loosest_tolerance_that_reaches_the_goal():
    goal = linear.Goal(lambda model: model, 1e-4)
    solvers = [
        linear.Solver("exact", lambda tol: tol),
        linear.Solver("early", lambda tol: max(tol, 9e-3)),
        linear.Solver("broken", fails),
    ]
    settings = linear.peer_of(solvers, goal).settings
    assert list(settings) == ["exact, tol 1e-04", "early", "broken"]
    assert settings["exact, tol 1e-04"]() == 1e-4
    with pytest.raises(NotReached, match=r"ends at 9\.0e-03, the goal is 1e-04"):
        settings["early"]()
    with pytest.raises(RuntimeError, match="memory"):
        settings["broken"]()
    assert goal.judge(1e-5, 1e-5) is None
    assert goal.judge(1e-3, 1e-5) is not None  # ours
    with pytest.raises(NotReached):
        goal.judge(1e-5, 1e-3)


# Limits ------------------------------------------------------------------------------------------


def test_a_limit_is_shown_apart_and_not_counted(monkeypatch):
    monkeypatch.setattr(goals, "GOALS", (goals.Goal("job, size", goals.LIMIT, 0.9, 0.9),))
    peer = {"scipy": lambda: Peer({"cdist": fast}, anything)}
    found = run.run(job(fast, peer, Limit("numpy", "the product alone", fast)), 1)
    limit, timed = found
    assert (limit.limit, timed.limit) == (True, False)
    assert limit.ratio > 0
    assert (limit.goal, timed.goal) == (0.9, None)
    assert "the product alone (numpy); the ratio is our share of it" in shown(found)
    assert table.summary([asdict(limit)]).startswith("0 comparisons")
    assert table.summary([asdict(each) for each in found]).startswith("1 comparisons")
    [failed] = run.run(job(limit=Limit("numpy", "the product alone", fails)), 1)
    assert failed.status == "failed"


def test_our_own_other_way_is_not_counted_as_another_library():
    found = run.run(job(makers={OURS: lambda: Peer({"one by one": fast}, anything)}), 1)
    assert found[0].ratio > 0
    assert table.summary(list(map(asdict, found))).startswith("0 comparisons")


# The command -------------------------------------------------------------------------------------


@pytest.fixture
def run_jobs(monkeypatch, tmp_path):
    """Run the command with jobs of ours; return its exit code."""

    def run_these(*jobs: Job) -> int:
        for family in (radius, searches, losses, linear, training, networks):
            monkeypatch.setattr(family, "jobs", lambda **_: [])
        monkeypatch.setattr(neighbors, "jobs", lambda **_: list(jobs))
        monkeypatch.setattr(os, "environ", os.environ.copy())
        return command.main(["peers", "--only", "*", "--threads", "1", "--output", str(tmp_path)])

    return run_these


def beside_scipy(key: str, call, judge=anything) -> Job:
    return job(makers={"scipy": lambda: Peer({"": call}, judge)}, key=key)


@pytest.mark.parametrize(
    ("call", "judge", "code"),
    [(fast, anything, 0), (fails, anything, 0), (short, anything, 0), (fast, lambda *_: "it differs", 1)],
)
def test_only_a_result_that_differs_is_an_error_of_the_run(run_jobs, call, judge, code, capsys):
    assert run_jobs(beside_scipy("first", call, judge), beside_scipy("second", fast)) == code
    assert "second, size" in capsys.readouterr().out


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_run_loses_one_job_at_most(run_jobs, end, tmp_path):
    def stop() -> None:
        raise end

    written = [beside_scipy("first", fast), beside_scipy("second", fast), beside_scipy("third", stop)]
    if end is KeyboardInterrupt:
        assert run_jobs(*written) == 130
        assert "second" in (tmp_path / "peers.html").read_text(encoding="utf-8")
    else:
        with pytest.raises(SystemExit):
            run_jobs(*written)
    document = json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))
    assert [outcome["job"] for outcome in document["outcomes"]] == ["first", "second"]
    assert [path.name for path in tmp_path.glob(".*")] == []


# The page ----------------------------------------------------------------------------------------


def page_of(found, **figures) -> str:
    machine = {"cpu": {"model": "Some"}, "platform": "Linux", "python": "3.13"}
    return page({**run.document(found, 2, machine), **figures})


def test_the_page_shows_limits_apart():
    peer = Outcome("job", "size", "scipy", "cdist", 2.0, 1.0, 2.0, 0.0)
    limit = Outcome("job", "size", "numpy", "the product alone", 0.75, 1.0, 0.75, 0.0, limit=True)
    both, alone, without = page_of([limit, peer]), page_of([limit]), page_of([peer])
    assert "1 comparisons: we are faster in 1, slower in 0" in both
    assert "75 %" in both
    assert "<h2>Limits</h2>" in both
    assert 'class="n slower"' not in both
    assert both.count("the product alone") == 1
    assert "<h2>Limits</h2>" not in without
    assert ("<svg" in both, "<svg" in alone) == (True, False)  # bars are of libraries


def test_the_page_says_why_there_is_no_time(monkeypatch):
    early, broken = (Outcome("job", "size", package) for package in ("scipy", "torch"))
    early.refuse("not reached", "it ends at 9e-3")
    broken.refuse("missing", "cannot be imported: OSError: <libgomp>")
    monkeypatch.setattr(run, "versions", lambda: {"scipy": "1", "torch": "2", "faiss-cpu": None})
    text = page_of([early, broken])
    assert "does not reach the goal: it ends at 9e-3" in text
    assert "Not installed here, so not compared: faiss-cpu." in text
    assert "Installed, but not compared: torch (cannot be imported: OSError: &lt;libgomp&gt;)" in text


def test_the_page_has_all_figures_of_the_document():
    figures = {
        "errors": {"far": {"fastml": 1.25e-7, "torch": 0.5, "faiss-cpu": None}},
        "nanoseconds_per_row": {"10000": 12.34},
        "extra_megabytes": 21.5,
        "extra_megabytes_of": [100, 2000, 30],
    }
    text = page_of([], **figures)
    for part in ("1.2e-07", "5.0e-01", "10,000", "12.3", "21.5 MiB", "100 × 2,000 × 30", "faiss-cpu"):
        assert part in text
    lines = "\n".join(table.figures(figures))
    for part in ("1.2e-07", "10,000 rows 12.3 ns", "21.5 MiB", "100 × 2,000 × 30", "faiss-cpu -"):
        assert part in lines
    assert "MiB" not in page_of([], **{**figures, "extra_megabytes": None})
    assert "MiB" not in page_of([])


def test_the_page_shows_wins_losses_and_what_is_missing(text_of_page):
    def outcome(package, ratio, problem=None):
        numbers = {"seconds": None, "ours_seconds": None, "ratio": None, "spread": None}
        if ratio:
            numbers = {"seconds": ratio, "ours_seconds": 1.0, "ratio": ratio, "spread": 0.1}
        return {
            "job": "k_nearest <l1>", "size": "n=1", "package": package, "setting": "brute", "goal": None,
            "problem": problem, "status": "missing" if problem else "timed", "limit": False, **numbers,
        }  # fmt: skip

    document = {
        "machine": {"cpu": {"model": "Some"}, "platform": "Linux", "python": "3.13"},
        "threads": 2,
        "rounds": 5,
        "versions": {"scipy": "1.17.0", "torch": None},
        "outcomes": [outcome("scipy", 4.0), outcome("faiss-cpu", 0.5), outcome("torch", None, "not installed")],
    }
    text = page(document)
    shown = text_of_page(text)
    assert "2 comparisons: we are faster in 1, slower in 1" in shown
    assert "Not installed here, so not compared: torch" in shown
    for part in ("k_nearest <l1>", "0.50", "4.00", "2 threads", "scipy 1.17.0", "brute"):
        assert part in shown
    assert text.count('class="n slower"') == 1
    assert text.count("<svg") == 1
    nothing = {**document, "outcomes": [outcome("torch", None, "not installed")]}
    assert "<svg" not in page(nothing)


# Jobs --------------------------------------------------------------------------------------------


def test_each_goal_is_that_of_a_job_and_the_first_that_fits_counts(monkeypatch):
    families = (neighbors, radius, searches, losses, linear, training, networks)
    names = [each.name for family in families for each in family.jobs(quick=False)]
    assert len(set(names)) == len(names)
    packages = [*PACKAGES, OURS, goals.LIMIT]
    reached = set()
    for goal in goals.GOALS:
        monkeypatch.setattr(goals, "GOALS", (goal,))
        if any(goals.of(name, package) is not None for name in names for package in packages):
            reached.add(goal)
    monkeypatch.undo()
    assert reached == set(goals.GOALS)
    first, later = (goals.Goal("job*", "scipy", ratio, 2 * ratio) for ratio in (3.0, 5.0))
    monkeypatch.setattr(goals, "GOALS", (first, later))
    for width, ratio in ((32, 3.0), (64, 6.0)):
        monkeypatch.setattr(goals, "target", lambda width=width: SimpleNamespace(vector_bytes=width))
        assert goals.of("job, size", "scipy") == ratio
    assert goals.of("job, size", "numpy") is goals.of("other, size", "scipy") is None


def test_goals_beside_all_others_are_neither_the_limits_nor_our_own_ways(monkeypatch):
    monkeypatch.setattr(goals, "GOALS", (goals.Goal("*", goals.OTHERS, 2.0, 2.0),))
    assert goals.of("job, size", "jax") == 2.0
    assert goals.of("job, size", goals.LIMIT) is goals.of("job, size", OURS) is None


@pytest.mark.parametrize("metric", ["l1", "linf"])
def test_the_arithmetic_of_a_metric_takes_time_with_what_it_does(metric):
    few, many = (tiles.arithmetic(metric, differences, 1) for differences in (10**6, 10**9))
    times = []
    for call in (few, many):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    assert times[1] > 5 * times[0]


def test_what_pytorch_compiles_is_tried_elsewhere_first(monkeypatch, capfd):
    """Some versions end the process."""
    networks.torch_compiles.cache_clear()
    monkeypatch.setattr(networks, "COMPILED_STEPS", "import os; os.abort()")
    assert not networks.torch_compiles()
    assert "torch.compile does not work here (exit code" in capfd.readouterr().err
    networks.torch_compiles.cache_clear()
    monkeypatch.setattr(networks, "COMPILED_STEPS", "")
    assert networks.torch_compiles()
    networks.torch_compiles.cache_clear()


@pytest.mark.parametrize("metric", ["l1", "l2", "linf"])
def test_jax_finds_the_same_neighbors(metric):
    pytest.importorskip("jax")
    rng = np.random.default_rng(0)
    X, Y = rng.random((300, 40), dtype=np.float32), rng.random((500, 40), dtype=np.float32)
    expected = kernels.k_nearest(X, Y, 3, metric=metric)
    peer = neighbors.neighbor_peer("jax", metric, X, Y, 3, 1)
    assert len(peer.settings) == (2 if metric == "l2" else 1)
    for setting, call in peer.settings.items():
        assert peer.judge(expected, call()) is None, setting


@pytest.mark.parametrize("name", ["pykdtree", "pynanoflann", "napf"])
def test_other_trees_find_the_same_neighbors(name):
    pytest.importorskip(name)
    rng = np.random.default_rng(0)
    X, Y = rng.random((40, 2), dtype=np.float32), rng.random((90, 2), dtype=np.float32)
    peer = neighbors.neighbor_peer(name, "l2", X, Y, 3, 1)
    [call] = peer.settings.values()
    assert peer.judge(kernels.k_nearest(X, Y, 3), call()) is None


@pytest.mark.parametrize("name", ["scipy", "scikit-learn", "pynanoflann", "napf"])
def test_peers_find_the_same_rows_within_a_radius(name):
    if run.why_missing(name):
        pytest.skip(f"{name} is not installed")
    jobs = radius.jobs(quick=True)
    assert len(jobs) == 3
    tried = 0
    for job in jobs:
        prepared = job.prepare(1)
        indptr, indices, distances = prepared.ours()
        assert 10 < len(indices) / (len(indptr) - 1) < 40
        if name not in prepared.peers:
            continue
        peer = prepared.peers[name]()
        for setting, call in peer.settings.items():
            found = call()
            assert peer.judge((indptr, indices, distances), found) is None, setting
            fewer = np.append(indptr[:-1], len(indices) - 5), indices[:-5], distances[:-5]
            assert "pairs differ" in peer.judge(fewer, found)
            tried += 1
    assert tried >= (3 if name == "scikit-learn" else 1)


@pytest.mark.parametrize("name", ["scipy", "scikit-learn", "scikit-learn-intelex", "torch", "faiss-cpu", "jax"])
def test_trees_and_differences_are_tried_where_columns_are_few(name):
    if run.why_missing(name):
        pytest.skip(f"{name} is not installed")
    rng = np.random.default_rng(0)
    X, Y = rng.random((40, 2), dtype=np.float32), rng.random((90, 2), dtype=np.float32)
    squares = ((X.astype(np.float64)[:, np.newaxis] - Y) ** 2).sum(axis=2)
    indices = np.argsort(squares, axis=1)[:, :3]
    expected = np.sqrt(np.take_along_axis(squares, indices, axis=1)), indices
    peer = neighbors.neighbor_peer(name, "l2", X, Y, 3, 1)
    exact = [setting for setting in peer.settings if "tree" in setting.lower() or "differences" in setting]
    assert exact
    for setting in exact:
        assert peer.judge(expected, peer.settings[setting]()) is None, setting
    if name != "scipy":
        wide = neighbors.neighbor_peer(name, "l2", np.repeat(X, 20, axis=1), np.repeat(Y, 20, axis=1), 3, 1)
        assert not set(exact) & set(wide.settings)


def test_losses_are_shown_like_wins():
    loss, win = (Outcome("job", "size", "scipy", "", 1.0, 2.0, ratio, 0.0, 1.0) for ratio in (0.5, 2.0))
    assert "short" in shown([loss])
    assert "reached" in shown([win])
    assert "2 comparisons: we are faster in 1, slower in 1" in table.summary([asdict(loss), asdict(win)])


def test_neighbors_are_judged_up_to_ties():
    judge = rows_agree(1e-5)
    distances, indices = np.array([[1.0, 2.0, 2.0, 3.0]]), np.array([[4, 5, 6, 7]])
    assert judge((distances, indices), (distances, indices)) is None
    assert judge((distances, indices), (distances, indices[:, [0, 2, 1, 3]])) is None
    assert judge((distances, indices), (distances, np.array([[5, 4, 6, 7]])))
    assert judge((distances, indices), (distances[:, :2], indices[:, :2]))
    assert judge((distances, indices), (np.where(distances == 3, math.nan, distances), indices)) is not None


def test_errors_of_ours_are_small_near_and_far():
    for errors in neighbors.errors().values():
        assert errors["fastml"] <= 1e-5


def test_extra_memory_is_told():
    assert neighbors.extra_megabytes(100, 200, 30) in (None, pytest.approx(0, abs=64))
