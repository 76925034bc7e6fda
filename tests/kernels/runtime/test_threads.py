"""How many threads work, how blocks are handed out, and how a call ends: errors, Ctrl-C, fork, shutdown."""

from __future__ import annotations

import gc
import inspect
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from checkout import python_path
from fastml.kernels.runtime import parallel


def run_python(code: str, *, timeout: float = 120, **changes: str) -> dict:
    """Run `code` in a fresh process; return the JSON object on its last line."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": python_path(), **changes},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(autouse=True)
def no_limits_from_outside(monkeypatch):
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def many_cpus(monkeypatch):
    """A machine of 16 CPUs without a quota."""
    monkeypatch.setattr(parallel, "_affinity", lambda: 16)
    monkeypatch.setattr(parallel, "_cgroup_quota", lambda: None)


@pytest.fixture
def fresh_pool(monkeypatch):
    """A pool of which no thread has been started."""
    monkeypatch.setattr(parallel, "_pool", [None] * parallel._POOL_THREADS)


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


def test_as_many_threads_work_as_were_asked_for():
    together = threading.Barrier(4)
    parallel.run(lambda block: together.wait(timeout=30) and None, 4, 4)


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


# --------------------------------------------------------------------------- exceptions at any time


class TimeLimitError(Exception):
    """What a signal handler raises when the time is up."""


class Quick:
    """A task whose helper is at work for a moment; `at_work` says whether it still is."""

    def __init__(self) -> None:
        self.caller, self.at_work, self.began = threading.current_thread(), False, threading.Event()

    def __call__(self, block: int):
        if threading.current_thread() is self.caller:
            self.began.wait(10)
            yield
        else:
            self.at_work = True
            self.began.set()
            time.sleep(0.002)
            self.at_work = False


def test_no_helper_outlives_a_call_that_an_exception_ended_at_any_step_of_the_interpreter():
    """Raised by a trace function: at more places than those where Python looks for signals."""
    place, count, ended_by = 0, 1, 0

    def trace(frame, event, argument):
        nonlocal count
        if frame.f_code.co_filename != parallel.__file__:
            return None
        frame.f_trace_opcodes = True
        if event in ("opcode", "line"):
            count += 1
            if count == place:
                raise TimeLimitError
        return trace

    before = sys.gettrace()
    while place <= count:
        place, count = place + 1, 0
        task = Quick()
        parallel._pool.append(None)  # for the one that is lost if the exception comes before it has its work
        sys.settrace(trace)
        try:
            parallel.run(task, 2, 2)
        except TimeLimitError:
            ended_by += 1
        finally:
            sys.settrace(before)
        assert not task.at_work, f"place {place} of {count}"
        assert not getattr(parallel._here, "is_worker", False), f"place {place} of {count}"
    assert ended_by > 20
    parallel._forget_pool()
    test_as_many_threads_work_as_were_asked_for()


def test_no_helper_outlives_a_call_that_several_exceptions_ended_where_none_is_caught(monkeypatch):
    """Just before the caller looks whether anybody helps."""
    left = [3]

    class Helping(list):
        def __bool__(self) -> bool:
            if left[0]:
                left[0] -= 1
                raise TimeLimitError
            return len(self) > 0

    make = parallel._Crew.__init__

    def with_exceptions(self, *arguments: object) -> None:
        make(self, *arguments)
        self._helping = Helping()

    monkeypatch.setattr(parallel._Crew, "__init__", with_exceptions)
    task = Quick()
    with pytest.raises(TimeLimitError):
        parallel.run(task, 2, 2)
    assert not task.at_work
    assert left == [0]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
@pytest.mark.parametrize("raised", [TimeLimitError, SystemExit, KeyboardInterrupt])
def test_what_signal_handlers_raise_while_the_caller_waits_is_raised_when_nobody_works(monkeypatch, raised):
    caller, numbers = threading.current_thread(), itertools.count(1)
    started, written = threading.Event(), []

    def late(*_: object) -> None:
        raise raised(next(numbers))

    def task(block: int) -> None:
        if threading.current_thread() is caller:
            assert started.wait(30)
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)  # again and again
            return
        started.set()
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            time.sleep(0.01)
            written.append(time.monotonic())

    before = signal.signal(signal.SIGALRM, late)
    try:
        with pytest.raises(raised) as caught:
            parallel.run(task, 2, 2)
        ended = time.monotonic()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert caught.value.args == (1,)
    time.sleep(0.05)
    assert written
    assert max(written) <= ended
    assert next(numbers) > 3, "more than one came"


@pytest.mark.parametrize("n_threads", [1, 2])
def test_what_a_task_does_in_the_end_is_done_when_the_call_ends(n_threads):
    """Though the traceback still holds the generator, and the exception did not come in it."""
    ended: list[int] = []

    def task(block: int):
        try:
            yield
            yield
        finally:
            ended.append(block)

    def trace(frame, event, argument):
        if frame.f_code is not parallel._do.__code__:
            return None
        if (
            event == "line"
            and frame.f_locals.get("steps")
            and inspect.getgeneratorstate(frame.f_locals["steps"]) == (inspect.GEN_SUSPENDED)
        ):
            raise TimeLimitError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(TimeLimitError):  # which keeps the traceback
            parallel.run(task, 2, n_threads)
    finally:
        sys.settrace(before)
    assert ended


# ------------------------------------------------------------------------------ from many threads


def test_runs_from_many_threads_at_once():
    totals: dict[int, int] = {}

    def caller(number: int) -> None:
        counts = [0] * 8
        for _ in range(50):
            parallel.run(lambda block: counts.__setitem__(block, counts[block] + 1), 8, 4)
        totals[number] = sum(counts)

    callers = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(60)
    assert totals == dict.fromkeys(range(8), 400)


# -------------------------------------------------------------------------- fork, shutdown, Ctrl-C


@pytest.mark.safety
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_pool_is_made_anew_in_a_forked_child():
    code = """
import json, os, threading, warnings
warnings.simplefilter("ignore")
from fastml.kernels import _threads

def names():
    found, together = set(), threading.Barrier(3)
    def task(block):
        found.add(threading.current_thread().name)
        together.wait(30)
    _threads.run(task, 3, 3)
    return len(found)

def child(work):
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(write, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(read) as stream:
        return json.loads(stream.read() or "null")

def child_in_a_task():
    results = []
    caller = threading.current_thread()
    def task(block):
        if threading.current_thread() is caller:
            results.append(child(names))
    _threads.run(task, 64, 2)
    return results

found = {
    "child first": child(names),
    "parent": names(),
    "child after": child(names),
    "grandchild": child(lambda: child(names)),
    "parent again": names(),
    "in a task": child_in_a_task()[0],
}
print(json.dumps(found))
"""
    found = run_python(code)
    assert found == dict.fromkeys(found, 3)


@pytest.mark.safety
def test_work_while_the_interpreter_shuts_down():
    code = """
import atexit, json, threading
from fastml.kernels import _threads

def last_words():
    done = []
    _threads.run(done.append, 20, 4)
    print(json.dumps({"blocks": sorted(done)}))

atexit.register(last_words)
if BEFORE:
    _threads.run(lambda _: None, 8, 4)
"""
    for before in (False, True):
        assert run_python(f"BEFORE = {before}\n{code}")["blocks"] == list(range(20))


@pytest.mark.safety
@pytest.mark.needs_jit
@pytest.mark.parametrize("when", ["thread", "atexit"])
def test_first_use_after_the_main_thread_has_ended(when):
    code = """
import atexit, json, threading, time
import numpy as np
import fastml

def first_use():
    if WHEN == "thread":
        threading.main_thread().join()
    X = np.arange(4000.0).reshape(2000, 2)
    distances = fastml.kernels.pairwise_l1(X, n_threads=2)
    print(json.dumps({"right": bool((distances == abs(X[:, None] - X).sum(axis=2)).all())}))

if WHEN == "atexit":
    atexit.register(first_use)
else:
    threading.Thread(target=first_use).start()
"""
    assert run_python(f"WHEN = {when!r}\n{code}") == {"right": True}


@pytest.mark.safety
@pytest.mark.needs_jit
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_greenlets_in_the_place_of_threads(library):
    """In the library's own native threads: greenlets of one wait in vain for locks that another holds."""
    pytest.importorskip(library)
    code = """
import json, sys
if LIBRARY == "gevent":
    from gevent import monkey
    monkey.patch_all()
    import gevent
    from gevent.threadpool import ThreadPool
else:
    import eventlet
    from eventlet import tpool
    eventlet.monkey_patch()
import numpy as np
from fastml import kernels

X = np.random.default_rng(0).random((1500, 64))
expected = kernels.pairwise_l1(X, n_threads=1)

def right(_=None):
    return bool((kernels.pairwise_l1(X, n_threads=2) == expected).all())

results = [right()]
if LIBRARY == "gevent":
    pool = ThreadPool(4)
    jobs = [pool.spawn(right) for _ in range(12)] + [gevent.spawn(right) for _ in range(4)]
    gevent.joinall(jobs, timeout=60)
    results += [job.value for job in jobs]
else:
    pool = eventlet.GreenPool()
    results += [*pool.imap(lambda _: tpool.execute(right), range(12)), *pool.imap(right, range(4))]
print(json.dumps({"right": results.count(True), "of": len(results)}))
"""
    assert run_python(f"LIBRARY = {library!r}\n{code}") == {"right": 17, "of": 17}


INTERRUPTED = """
import json, os, signal, threading, time
import numpy as np
from fastml import kernels

small = np.arange(12, dtype="f4").reshape(4, 3)
kernels.k_nearest(small, small, 2, metric="l1")
kernels.pairwise_l1(small)
n, m, D = 3000, 12000, 8192
# Untouched zeros take no memory, and as long as any other numbers.
X, Y = np.zeros((n, D), "f4"), np.zeros((m, D), "f4")
out = np.empty((n, m), "f4") if CALL == "pairwise_l1" else None
call = {
    "k_nearest": lambda: kernels.k_nearest(X, Y, 5, metric="l1", n_threads=THREADS),
    "pairwise_l1": lambda: kernels.pairwise_l1(X, Y, out=out, n_threads=THREADS),
}[CALL]

sent = []
def interrupt():
    for _ in range(SIGNALS):
        sent.append(time.process_time())  # of this process: others may keep it waiting
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

timer = threading.Timer(0.4, interrupt)
timer.start()
found = {"interrupted": False, "further": 0}
try:
    call()
    while len(sent) < SIGNALS:
        time.sleep(0.01)
except KeyboardInterrupt:
    found["interrupted"] = True
found["seconds"] = time.process_time() - sent[0] if sent else None
while True:
    try:
        timer.join()
        break
    except KeyboardInterrupt:
        pass
before = time.process_time()
time.sleep(0.3)
found["cpu afterwards"] = time.process_time() - before
distances, indices = kernels.k_nearest(small, small, 2, metric="l1", n_threads=2)
found["later"] = [distances.tolist(), indices.tolist()]
print(json.dumps(found))
"""


@pytest.mark.safety
@pytest.mark.slow
@pytest.mark.needs_jit
@pytest.mark.skipif(os.name == "nt", reason="os.kill ends the process on Windows")
@pytest.mark.parametrize(
    ("call", "n_threads", "signals"),
    [("k_nearest", 2, 1), ("k_nearest", 1, 1), ("pairwise_l1", 2, 1), ("k_nearest", 2, 3)],
)
def test_ctrl_c_in_the_middle_of_a_long_call(call, n_threads, signals):
    found = run_python(f"CALL, THREADS, SIGNALS = {call!r}, {n_threads}, {signals}\n{INTERRUPTED}")
    assert found["interrupted"]
    assert found["seconds"] < 2  # the whole call takes several times that
    assert found["cpu afterwards"] < 0.05, "a thread went on"
    assert found["later"] == [
        [[0.0, 9.0], [0.0, 9.0], [0.0, 9.0], [0.0, 9.0]],
        [[0, 1], [1, 0], [2, 1], [3, 2]],
    ]
