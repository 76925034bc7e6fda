"""The comparison with other libraries: it runs, it judges, and it cannot be talked into a wrong result."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benches import __main__ as command
from benches import peers, peers_neighbors
from benches.peers import Job, Peer, Prepared, rows_agree


def outcomes(ours, settings, judge=None, goals=None) -> list[peers.Outcome]:
    job = Job("job", "size", goals or {}, lambda _: Prepared(lambda: ours, [lambda: Peer("scipy", settings, judge)]))
    return peers.run(job, 1)


@pytest.mark.needs_jit
@pytest.mark.slow
def test_all_jobs_run_and_all_results_agree(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    assert command.main(["peers", "--quick", "--threads", "2", "--output", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "peers.json").read_text())
    page = (tmp_path / "peers.html").read_text(encoding="utf-8")
    assert all(version is None or version in page for version in document["versions"].values())
    assert all(outcome["job"] in page for outcome in document["outcomes"])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines()[1:])) <= 100
    for outcome in document["outcomes"]:
        assert outcome["job"] in shown
        assert outcome["problem"] in (None, "not installed")
        assert (outcome["ratio"] is None) == (outcome["problem"] is not None)
    scipy = [outcome for outcome in document["outcomes"] if outcome["package"] == "scipy"]
    assert all(outcome["ratio"] > 0 for outcome in scipy)
    assert len(scipy) == 10
    for errors in document["errors"].values():
        assert errors["fastml"] <= 1e-5


def test_libraries_are_loaded_after_they_were_told_to_let_threads_sleep():
    """BLAS reads its environment once: loaded before, its idle threads took half of our time."""
    code = "import sys, benches.__main__; sys.exit('numpy' in sys.modules)"
    root = Path(command.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


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


def test_a_missing_peer_is_named():
    def make() -> Peer:
        raise ImportError("No module named 'faiss'", name="faiss")

    [outcome] = peers.run(Job("job", "size", {"faiss-cpu": 2.0}, lambda _: Prepared(lambda: None, [make])), 1)
    assert (outcome.package, outcome.problem, outcome.goal) == ("faiss-cpu", "not installed", 2.0)
    assert "not installed" in "\n".join(peers.lines([outcome]))


def test_losses_are_shown_like_wins():
    shown = [
        "\n".join(peers.lines([peers.Outcome("job", "size", "scipy", "", 1.0, 2.0, ratio, 0.0, 1.0)]))
        for ratio in (0.5, 2.0)
    ]
    assert "short" in shown[0]
    assert "reached" in shown[1]


def test_neighbors_are_judged_up_to_ties():
    judge = rows_agree(1e-5)
    distances, indices = np.array([[1.0, 2.0, 2.0, 3.0]]), np.array([[4, 5, 6, 7]])
    assert judge((distances, indices), (distances, indices)) is None
    assert judge((distances, indices), (distances, indices[:, [0, 2, 1, 3]])) is None
    assert judge((distances, indices), (distances, np.array([[5, 4, 6, 7]])))
    assert judge((distances, indices), (distances[:, :2], indices[:, :2]))
    assert judge((distances, indices), (np.where(distances == 3, math.nan, distances), indices)) is not None


def test_errors_of_ours_are_small_near_and_far():
    for errors in peers_neighbors.errors().values():
        assert errors["fastml"] <= 1e-5


def test_extra_memory_is_told():
    assert peers_neighbors.extra_megabytes(100, 200, 30) in (None, pytest.approx(0, abs=64))
