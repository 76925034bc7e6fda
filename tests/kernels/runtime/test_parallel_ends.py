"""How a call on threads ends: exceptions at any time, many callers, Ctrl-C, fork, shutdown."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import signal
import sys
import threading
import time

import pytest

from checkout import run_python
from fastml.kernels.runtime import parallel


def found_by(code: str, timeout: float = 120, **changes: str) -> dict:
    """Run `code` in a fresh process; return the JSON object on its last line."""
    return json.loads(run_python(code, timeout=timeout, **changes).splitlines()[-1])


@pytest.fixture(autouse=True)
def no_limits_from_outside(monkeypatch):
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


def four_work_at_once() -> None:
    together = threading.Barrier(4)
    parallel.run(lambda block: together.wait(timeout=30) and None, 4, 4)


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
    four_work_at_once()


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
from fastml.kernels.runtime import parallel

def names():
    found, together = set(), threading.Barrier(3)
    def task(block):
        found.add(threading.current_thread().name)
        together.wait(30)
    parallel.run(task, 3, 3)
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
    parallel.run(task, 64, 2)
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
    found = found_by(code)
    assert found == dict.fromkeys(found, 3)


@pytest.mark.safety
def test_work_while_the_interpreter_shuts_down():
    code = """
import atexit, json, threading
from fastml.kernels.runtime import parallel

def last_words():
    done = []
    parallel.run(done.append, 20, 4)
    print(json.dumps({"blocks": sorted(done)}))

atexit.register(last_words)
if BEFORE:
    parallel.run(lambda _: None, 8, 4)
"""
    for before in (False, True):
        assert found_by(f"BEFORE = {before}\n{code}")["blocks"] == list(range(20))


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
    assert found_by(f"WHEN = {when!r}\n{code}") == {"right": True}


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
    assert found_by(f"LIBRARY = {library!r}\n{code}") == {"right": 17, "of": 17}


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
    found = found_by(f"CALL, THREADS, SIGNALS = {call!r}, {n_threads}, {signals}\n{INTERRUPTED}")
    assert found["interrupted"]
    assert found["seconds"] < 2  # the whole call takes several times that
    assert found["cpu afterwards"] < 0.05, "a thread went on"
    assert found["later"] == [
        [[0.0, 9.0], [0.0, 9.0], [0.0, 9.0], [0.0, 9.0]],
        [[0, 1], [1, 0], [2, 1], [3, 2]],
    ]
