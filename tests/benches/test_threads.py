"""Default threads beside one thread: what is timed, at which sizes, and what counts as slower."""

from __future__ import annotations

import pytest

from benches import __main__ as command
from benches.threads import jobs, measure
from fastml.kernels.catalogue import ENTRIES


@pytest.mark.parametrize("key", ["exp", "pairwise_l2", "train_network[softmax_cross_entropy]", "max_pool2d"])
def test_kernels_have_the_sizes_that_are_asked(key):
    entry = ENTRIES[key]
    sizes = [jobs.size_of(entry, numbers) for numbers in jobs.SIZES]
    found = [entry.bytes(size, "float32") / 4 for size in sizes]
    assert found == sorted(found)
    assert found[2:] == pytest.approx(jobs.SIZES[2:], rel=0.5)


def test_every_kernel_and_every_trainer_is_timed():
    names = {job.name.partition(",")[0] for job in (*jobs.kernel_jobs(sizes=False), *jobs.model_jobs())}
    assert names > set(ENTRIES) | {"SGDClassifier", "SGDRegressor", "MLPClassifier", "ConvNetClassifier"}
    assert len(list(jobs.kernel_jobs(sizes=True))) == 6 * len(ENTRIES)


@pytest.fixture
def planted(monkeypatch):
    """Two jobs, of which one takes longer by default, by a clock that only they move."""
    clock = [0.0]
    monkeypatch.setattr("benches.measuring.timing.time.perf_counter", lambda: clock[0])

    def job(name: str, default: float) -> jobs.Job:
        def call(n_threads: int | None) -> None:
            clock[0] += 0.01 if n_threads == 1 else default

        return jobs.Job(name, lambda: call)

    return [job("gains", 0.006), job("loses", 0.02)]


def test_the_ratio_is_that_of_default_to_one(planted):
    gains, loses = measure.measure(planted, 0, 1.03, 0.5)
    assert (gains.name, gains.ratio) == ("gains", pytest.approx(0.6))
    assert (loses.name, loses.ratio) == ("loses", pytest.approx(2))


def test_the_command_names_what_is_slower(planted, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "kernel_jobs", lambda *, sizes: planted)
    monkeypatch.setattr(jobs, "model_jobs", lambda: [])
    assert command.main(["threads"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert [line.endswith("slower") for line in out[1:3]] == [False, True]
    assert out[3].startswith("1 of 2 slower by more than 3%")
    assert command.main(["threads", "--only", "gains"]) == 0
    assert command.main(["threads", "--only", "nothing"]) == 2


def test_processes_compute_beside_it_and_end_with_it(monkeypatch):
    started = []
    popen = measure.subprocess.Popen
    monkeypatch.setattr(
        measure.subprocess, "Popen", lambda *arguments: started.append(popen(*arguments)) or started[-1]
    )
    with measure.beside(2):
        assert [process.poll() for process in started] == [None, None]
    assert all(process.returncode is not None for process in started)
