"""How many threads work, how blocks are handed out, and what an error does."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastml.kernels.runtime import parallel


@pytest.fixture(autouse=True)
def no_limits_from_outside(monkeypatch):
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def many_cpus(monkeypatch):
    """A machine of 16 CPUs without a quota."""
    monkeypatch.setattr(parallel, "_affinity", lambda: 16)
    monkeypatch.setattr(parallel, "_cgroup_quota", lambda: None)


# ------------------------------------------------------------------------------------ the count


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (16, "CPU affinity")),
        ({"NUMBA_NUM_THREADS": "3"}, (3, "NUMBA_NUM_THREADS")),
        ({"OMP_NUM_THREADS": "5"}, (5, "OMP_NUM_THREADS")),
        ({"NUMBA_NUM_THREADS": "7", "OMP_NUM_THREADS": "5"}, (5, "OMP_NUM_THREADS")),
        ({"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "5"}, (1, "NUMBA_NUM_THREADS")),
        ({"OMP_NUM_THREADS": "64"}, (16, "CPU affinity")),
        ({"OMP_NUM_THREADS": "4,2"}, (4, "OMP_NUM_THREADS")),
        ({"OMP_NUM_THREADS": " 4 "}, (4, "OMP_NUM_THREADS")),
        ({"OMP_NUM_THREADS": ""}, (16, "CPU affinity")),
        ({"OMP_NUM_THREADS": "0"}, (16, "CPU affinity")),
        ({"OMP_NUM_THREADS": "-2"}, (16, "CPU affinity")),
        ({"OMP_NUM_THREADS": "many"}, (16, "CPU affinity")),
        ({"OMP_NUM_THREADS": "2.5"}, (16, "CPU affinity")),
        ({"OMP_NUM_THREADS": "²"}, (16, "CPU affinity")),
    ],
)
def test_the_default_is_the_smallest_limit(monkeypatch, many_cpus, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert parallel.default() == expected
    assert parallel.resolve(None) == expected[0]


def test_a_quota_below_the_affinity_counts(monkeypatch, many_cpus):
    monkeypatch.setattr(parallel, "_cgroup_quota", lambda: 2)
    assert parallel.default() == (2, "cgroup CPU quota")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity here")
def test_the_affinity_of_the_process_counts(monkeypatch):
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert parallel.default()[0] == 1
    finally:
        os.sched_setaffinity(0, before)
    assert parallel._affinity() == len(before)


def test_systems_without_affinity_count_cpus(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert parallel._affinity() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert parallel._affinity() == 1


@pytest.mark.parametrize("n_threads", [1, 2, 1000, np.int64(3), np.uint8(4)])
def test_an_explicit_count_is_taken_as_it_is(n_threads):
    result = parallel.resolve(n_threads)
    assert result == n_threads
    assert type(result) is int


@pytest.mark.parametrize("n_threads", ["2", 2.0, True, np.float32(2), [2], 1j])
def test_a_count_of_another_type_raises(n_threads):
    with pytest.raises(TypeError, match=r"n_threads must be None or a positive integer, got"):
        parallel.resolve(n_threads)


@pytest.mark.parametrize("n_threads", [0, -1, np.int8(-8)])
def test_a_count_below_one_raises(n_threads):
    with pytest.raises(ValueError, match=rf"n_threads must be None or a positive integer, got {int(n_threads)}"):
        parallel.resolve(n_threads)


# ------------------------------------------------------------------- the count that work pays for


@pytest.fixture
def losses(monkeypatch, many_cpus):
    """A process whose calls have lost nothing yet, with a clock that stands still."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(parallel, "_losses", parallel._Losses())
    monkeypatch.setattr(parallel.time, "perf_counter", lambda: clock.now)
    return clock


def test_the_default_follows_the_work(losses):
    counts = [parallel.resolve(None, seconds=10**exponent) for exponent in range(-9, 3)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1, 16)
    assert parallel.resolve(None) == 16
    assert parallel.resolve(None, seconds=0.99 * parallel.SMALL_SECONDS) == 1
    assert parallel.resolve(None, seconds=1.01 * parallel.SMALL_SECONDS) == 2


@pytest.mark.parametrize("threads", [2, 3, 7, 15])
def test_the_default_takes_least_time(losses, threads):
    """Of work for p threads neither more nor fewer would be faster, if a helper costs what it is thought to."""
    seconds = parallel._HELPER_SECONDS * (threads + 0.3) ** 2
    taken = [seconds / count + (count - 1) * parallel._HELPER_SECONDS for count in range(1, 17)]
    assert parallel.resolve(None, seconds=seconds) == 1 + int(np.argmin(taken))


def test_who_says_how_many_gets_them(losses):
    assert parallel.resolve(5, seconds=0.0) == 5
    parallel._losses.add(10.0)
    assert parallel.resolve(5, seconds=1e-3) == 5


def test_losses_make_helpers_dear_for_a_while(losses):
    for _ in range(20):
        parallel._losses.add(0.01)
    assert parallel.resolve(None, seconds=0.01) == 1
    assert 1 < parallel.resolve(None, seconds=1.0) < 16
    losses.now += 10
    assert parallel.resolve(None, seconds=0.01) == 16


def test_calls_that_lose_nothing_make_up_for_one_that_did(losses):
    parallel._losses.add(0.01)
    assert parallel.resolve(None, seconds=1e-3) == 1
    for _ in range(40):
        parallel._losses.add(0.0)
    assert parallel.resolve(None, seconds=1e-3) > 1


def call_with_a_helper() -> None:
    """One block of the calling thread, and one that a helper has begun and ends while the caller waits."""
    begun, done = threading.Event(), threading.Event()

    def task(block: int) -> None:
        if threading.current_thread() is threading.main_thread():
            assert begun.wait(60)
            done.set()
        else:
            begun.set()
            assert done.wait(60)
            time.sleep(0.05)

    parallel.run(task, 2, 2)


@pytest.mark.parametrize(("worked", "is_loss"), [(0.0, True), (60.0, False)])
def test_what_a_call_waits_for_a_helper_that_does_not_run_is_lost(monkeypatch, fresh_pool, worked, is_loss):
    """A planted helper that sleeps, or seems to have worked meanwhile: that has saved more than it took."""
    monkeypatch.setattr(parallel, "_losses", parallel._Losses())
    readings = [0.0, worked]
    is_helper = threading.main_thread().ident.__ne__
    monkeypatch.setattr(parallel, "_cpu_clock", lambda: readings.pop(0) if is_helper(threading.get_ident()) else 0.0)
    call_with_a_helper()
    assert (parallel._losses.helper_seconds() > 2 * parallel._HELPER_SECONDS) == is_loss


def test_of_calls_one_after_the_other_few_are_measured(losses, fresh_pool, monkeypatch):
    asked: list[None] = []
    monkeypatch.setattr(parallel, "_cpu_clock", lambda: asked.append(None) or 0.0)
    counts = []
    for step in (0.0, 0.0, 1.0):
        losses.now += step
        parallel.run(lambda block: None, 2, 2)
        counts.append(len(asked))
    assert 2 <= counts[0] == counts[1] < counts[2]


def test_small_work_wakes_nobody(monkeypatch, many_cpus):
    monkeypatch.setattr(parallel, "submit", lambda work, n_helpers: pytest.fail("a helper was asked"))
    seen: list[tuple[int, int]] = []
    parallel.run_ranges(lambda first, last: seen.append((first, last)), 100, None, most=10, seconds=1e-6)
    assert seen == [(0, 100)]


# ------------------------------------------------------------------------------- cgroup quotas


@pytest.fixture
def quota(monkeypatch, tmp_path):
    """``quota(files)``: the quota that is read from these files instead of the system's."""

    class Inside(type(Path())):
        def read_text(self, *arguments, **keywords):
            return Path(tmp_path, str(self).lstrip("/")).read_text(*arguments, **keywords)

    monkeypatch.setattr(parallel, "Path", Inside)

    def read(files: dict[str, str]) -> int | None:
        for name, content in files.items():
            file = tmp_path / name.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return parallel._cgroup_quota.__wrapped__()

    return read


OWN, FS = "/proc/self/cgroup", "/sys/fs/cgroup"

V1_OWN = "4:memory:/box\n3:cpu,cpuacct:/box\n1:name=systemd:/\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, None, id="no cgroups"),
        pytest.param({OWN: "0::/\n"}, None, id="v2, no limit file"),
        pytest.param({OWN: "0::/\n", f"{FS}/cpu.max": "max 100000\n"}, None, id="v2, max"),
        pytest.param({OWN: "0::/\n", f"{FS}/cpu.max": "200000 100000\n"}, 2, id="v2"),
        pytest.param({OWN: "0::/\n", f"{FS}/cpu.max": "250000 100000\n"}, 3, id="v2, rounded up"),
        pytest.param({OWN: "0::/\n", f"{FS}/cpu.max": "5000 100000\n"}, 1, id="v2, part of a CPU"),
        pytest.param({OWN: "0::/a/b\n", f"{FS}/a/b/cpu.max": "400000 100000\n"}, 4, id="v2, own group"),
        pytest.param(
            {OWN: "0::/a/b\n", f"{FS}/a/b/cpu.max": "400000 100000\n", f"{FS}/a/cpu.max": "100000 50000\n"},
            2,
            id="v2, the parent's is smaller",
        ),
        pytest.param(
            {OWN: "0::/a/b\n", f"{FS}/a/b/cpu.max": "100000 100000\n", f"{FS}/a/cpu.max": "800000 100000\n"},
            1,
            id="v2, the parent's is larger",
        ),
        pytest.param({OWN: "0::/\n", f"{FS}/cpu.max": "nonsense\n"}, None, id="v2, unreadable"),
        pytest.param({OWN: "0::/\n", f"{FS}/cpu.max": ""}, None, id="v2, empty"),
        pytest.param({OWN: "0::/\n", f"{FS}/cpu.max": "100000 0\n"}, None, id="v2, period of zero"),
        pytest.param({OWN: "no colons\n"}, None, id="malformed list of groups"),
        pytest.param(
            {OWN: V1_OWN, f"{FS}/cpu/box/cpu.cfs_quota_us": "300000", f"{FS}/cpu/box/cpu.cfs_period_us": "100000"},
            3,
            id="v1",
        ),
        pytest.param(
            {OWN: V1_OWN, f"{FS}/cpu/cpu.cfs_quota_us": "150000", f"{FS}/cpu/cpu.cfs_period_us": "100000"},
            2,
            id="v1 in a container",
        ),
        pytest.param(
            {OWN: V1_OWN, f"{FS}/cpu/cpu.cfs_quota_us": "-1", f"{FS}/cpu/cpu.cfs_period_us": "100000"},
            None,
            id="v1 without a limit",
        ),
        pytest.param({OWN: "2:memory:/\n"}, None, id="v1 without the cpu controller"),
    ],
)
def test_cgroup_quota(quota, files, expected):
    assert quota(files) == expected


# -------------------------------------------------------------------------------- handing out


@pytest.mark.parametrize("n_threads", [1, 2, 3, 8, parallel._POOL_THREADS + 1, 1000])
@pytest.mark.parametrize("n_blocks", [0, 1, 2, 7, 500])
def test_each_block_is_done_exactly_once(n_blocks, n_threads):
    done = [0] * n_blocks
    lock = threading.Lock()

    def task(block: int) -> None:
        with lock:
            done[block] += 1

    parallel.run(task, n_blocks, n_threads)
    assert done == [1] * n_blocks


@pytest.mark.parametrize("n_threads", [1, 4])
def test_generator_tasks_run_to_their_end(n_threads):
    steps: list[tuple[int, int]] = []

    def task(block: int):
        for step in range(3):
            steps.append((block, step))
            yield

    parallel.run(task, 10, n_threads)
    assert sorted(steps) == [(block, step) for block in range(10) for step in range(3)]


@pytest.mark.parametrize("n_blocks", [0, 1, 5, 64, 1000])
@pytest.mark.parametrize("n_threads", [1, 3, 8])
@pytest.mark.parametrize("most", [1, 4, 10**9])
def test_ranges_cover_all_blocks_without_overlap(n_blocks, n_threads, most):
    ranges: list[tuple[int, int]] = []
    parallel.run_ranges(lambda first, last: ranges.append((first, last)), n_blocks, n_threads, most=most)
    ranges.sort()
    assert [block for first, last in ranges for block in range(first, last)] == list(range(n_blocks))
    assert all(0 < last - first <= most for first, last in ranges)
    if most == 10**9 and n_blocks >= 64 and n_threads > 1:
        assert len(ranges) > n_threads, "a thread that is held up would hold up the call"


def four_work_at_once() -> None:
    together = threading.Barrier(4)
    parallel.run(lambda block: together.wait(timeout=30) and None, 4, 4)


def test_as_many_threads_work_as_were_asked_for():
    four_work_at_once()


def test_one_thread_means_the_callers():
    names: set[str] = set()
    parallel.run(lambda block: names.add(threading.current_thread().name), 5, 1)
    assert names == {threading.current_thread().name}


def test_the_caller_works_too_when_the_pool_is_busy():
    release, busy = threading.Event(), threading.Semaphore(0)

    def hold(_: int) -> None:
        busy.release()
        release.wait(30)

    holders = [threading.Thread(target=parallel.run, args=(hold, 64, 64)) for _ in range(2)]
    for holder in holders:
        holder.start()
    try:
        for _ in range(parallel._POOL_THREADS):
            assert busy.acquire(timeout=30)
        done: list[int] = []
        parallel.run(done.append, 10, 4)
        assert sorted(done) == list(range(10))
    finally:
        release.set()
        for holder in holders:
            holder.join()


@pytest.mark.parametrize("inner_threads", [1, 2, 64])
def test_runs_inside_runs_do_not_wait_for_each_other(inner_threads):
    done: list[tuple[int, int]] = []

    def outer(block: int) -> None:
        here = threading.current_thread()

        def inner(number: int) -> None:
            assert threading.current_thread() is here, "tasks of the pool never submit to the pool"
            done.append((block, number))

        parallel.run(inner, 5, inner_threads)

    parallel.run(outer, 200, 8)
    assert sorted(done) == [(block, number) for block in range(200) for number in range(5)]
    # The mark "this thread is a worker" is taken off again.
    names: set[str] = set()
    together = threading.Barrier(2)
    parallel.run(lambda _: names.add(threading.current_thread().name) or (together.wait(30) and None), 2, 2)
    assert len(names) == 2


# -------------------------------------------------------------------------------------- errors


class OddError(Exception):
    """An error that nothing else raises."""


@pytest.mark.parametrize("as_generator", [False, True])
@pytest.mark.parametrize("n_threads", [1, 4])
def test_an_error_in_any_block_surfaces_and_stops_the_rest(n_threads, as_generator):
    done: list[int] = []

    def plain(block: int) -> None:
        if block == 5:
            raise OddError(block)
        time.sleep(0.001)
        done.append(block)

    def generator(block: int):
        plain(block)
        yield

    with pytest.raises(OddError):
        parallel.run(generator if as_generator else plain, 1000, n_threads)
    finished = len(done)
    assert finished < 100, "the others must stop soon"
    time.sleep(0.02)
    assert len(done) == finished, "nothing may go on behind the caller's back"
    parallel.run(done.append, 10, n_threads)
    assert len(done) == finished + 10, "later runs work"


@pytest.mark.parametrize("where", ["caller", "helper"])
def test_an_error_surfaces_from_the_caller_and_from_a_helper(where):
    caller = threading.current_thread()
    together = threading.Barrier(2)

    def task(block: int) -> None:
        together.wait(30)
        if (threading.current_thread() is caller) == (where == "caller"):
            raise OddError(where)

    with pytest.raises(OddError, match=where):
        parallel.run(task, 2, 2)


def test_an_error_in_every_thread_surfaces_once():
    together = threading.Barrier(4)

    def task(block: int) -> None:
        together.wait(30)
        raise OddError(block)

    with pytest.raises(OddError):
        parallel.run(task, 4, 4)


def test_a_task_under_way_is_waited_for():
    """The caller gets its arrays back when nobody writes into them any more."""
    started, written = threading.Event(), []
    caller = threading.current_thread()

    def task(block: int) -> None:
        if threading.current_thread() is caller:
            assert started.wait(30)
            raise OddError
        started.set()
        time.sleep(0.1)
        written.append(block)

    with pytest.raises(OddError):
        parallel.run(task, 2, 2)
    assert len(written) == 1


def test_a_long_task_stops_where_it_yields():
    started = threading.Event()
    caller = threading.current_thread()
    steps = []

    def task(block: int):
        if threading.current_thread() is caller:
            assert started.wait(30)
            raise OddError
        for step in range(1000):
            steps.append(step)
            started.set()
            time.sleep(0.001)
            yield

    with pytest.raises(OddError):
        parallel.run(task, 2, 2)
    assert 0 < len(steps) < 500


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), KeyboardInterrupt()])
def test_helpers_that_were_handed_work_are_waited_for_whatever_happens_next(monkeypatch, fresh_pool, error):
    """The second thread cannot start, or Ctrl-C comes when it should; the first helper is at work by then."""
    started, finished = threading.Event(), threading.Event()
    caller = threading.current_thread()
    start = threading.Thread.start
    began: list[threading.Thread] = []

    def only_one(thread: threading.Thread) -> None:
        if began:
            assert started.wait(30)
            raise error
        began.append(thread)
        start(thread)

    def task(block: int) -> None:
        if threading.current_thread() is not caller:
            started.set()
            time.sleep(0.2)
            finished.set()

    monkeypatch.setattr(threading.Thread, "start", only_one)
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            parallel.run(task, 3, 3)
    else:
        parallel.run(task, 3, 3)
    assert finished.is_set(), "run() returned while a helper was at work"


def test_where_no_thread_can_be_started_nothing_is_kept_and_later_calls_try_again(monkeypatch, fresh_pool):
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    class Result(list):
        """A list that can be referred to weakly."""

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        kept = []
        for _ in range(3 * parallel._POOL_THREADS):
            result = Result()
            parallel.run(result.append, 10, 4)
            assert sorted(result) == list(range(10))
            kept.append(weakref.ref(result))
        del result
        gc.collect()
        assert not any(reference() is not None for reference in kept)
    together = threading.Barrier(3)
    parallel.run(lambda _: together.wait(30) and None, 3, 3)


def test_a_pool_that_could_start_one_thread_only_goes_on_with_it(monkeypatch, fresh_pool):
    start = threading.Thread.start
    began: list[threading.Thread] = []

    def only_one(thread: threading.Thread) -> None:
        if began:
            raise RuntimeError("can't start new thread")
        began.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", only_one)
    for _ in range(5):
        together, workers = threading.Barrier(2), set()
        parallel.run(lambda _, t=together, w=workers: w.add(threading.current_thread()) or (t.wait(30) and None), 2, 4)
        assert workers == {threading.current_thread(), *began}


def test_calls_one_after_another_use_the_same_threads(fresh_pool):
    together = threading.Barrier(2)
    for _ in range(300):
        parallel.run(lambda _: together.wait(30) and None, 2, 2)
    assert sum(inbox is not None for inbox in parallel._pool) == 1
