"""How many threads work, and how blocks of work are handed to them.

Kernels release the GIL and run over blocks on one pool of plain Python threads. Numba's own layers
are not used: one aborts the process on concurrent use, another dies after a fork, all share one
global thread count. Here the count is an argument of each call, and

* the calling thread always takes blocks itself, so a call finishes even if no other thread is free,
  or can be started: where the system allows no more, and while the interpreter shuts down;
* a block never starts another round of blocks on the pool, it runs the inner ones by itself;
* an error in any thread, and whatever a signal handler raises in the calling one (Ctrl-C, a time
  limit), stops the hand-out, waits for the blocks under way (each at most about 0.1 s) and is
  raised in the caller;
* where gevent or eventlet put greenlets in the place of threads, the calling thread works alone.

Which thread works on which block is left to chance; kernels keep that invisible by writing each
block's result to its own place and combining in block order.

How many threads a call uses by default follows from what it would take one of them: a kernel says that in seconds, and
`resolve` weighs it against the cost of a helper. p threads take s / p + (p - 1) c, which is least at p = √(s / c). The
cost c is what it takes to wake a thread, and what calls with helpers have lost lately: how much longer they took than
the CPU time of all their threads, which one thread would have needed. Beside busy processes, or in a container whose
quota is used up, a helper may lose its CPU within the last block, or while it holds the GIL.
"""

from __future__ import annotations

import _thread
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from types import BuiltinFunctionType, TracebackType
from typing import TypeAlias

__all__ = ["SMALL_SECONDS", "default", "insist", "resolve", "run", "run_ranges"]

_Task: TypeAlias = Callable[[int], Iterator[None] | None]
_Inbox: TypeAlias = "SimpleQueue[Callable[[_Inbox], None]]"

#: The pool's size is a ceiling, not a cost: its threads start when they are first needed.
_POOL_THREADS = max(64, 2 * (os.cpu_count() or 1))

#: Seconds that a helper costs where nothing else wants the CPUs, and of a call that never has one.
_HELPER_SECONDS = 2.5e-5
SMALL_SECONDS = 4 * _HELPER_SECONDS

#: What a call has lost counts with this share in the mean, which halves within so many seconds.
_LOSS_SHARE, _LOSS_SECONDS = 1 / 8, 0.5

#: Seconds after a call in which no other is measured.
_UNMEASURED_SECONDS = 1e-3

#: CPU time of this thread; on Windows, where it ticks every 16 ms, the time that has passed: no call seems to lose.
_cpu_clock = time.perf_counter if os.name == "nt" else time.thread_time

#: Calls of what may be interrupted but must be done.
_PATIENCE = 20

_ENVIRONMENT = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS")

#: Where each idle thread of the pool waits for work, the one that was busy last at the end; None for one that has not
#: been started. Each change is one step for the interpreter: a lock could be held by a thread that a signal handler
#: interrupts, or that does not exist after a fork.
_pool: list[_Inbox | None] = [None] * _POOL_THREADS

_numbers = count()
_here = threading.local()


def default() -> tuple[int, str]:
    """Return the number of threads that ``n_threads=None`` means, and where it comes from.

    Returns
    -------
    n_threads : int
        The smallest of CPU affinity, cgroup quota, ``NUMBA_NUM_THREADS`` and ``OMP_NUM_THREADS``.
        The variables are what process pools set for their workers.
    source : str
        Which of them was the smallest.
    """
    limits = [(_affinity(), "CPU affinity"), (_cgroup_quota(), "cgroup CPU quota")]
    limits += [(_positive(os.environ.get(name, "")), name) for name in _ENVIRONMENT]
    return min(((limit, source) for limit, source in limits if limit), key=lambda pair: pair[0])


def resolve(n_threads: int | None, *, seconds: float = math.inf) -> int:
    """Return the number of threads that an argument `n_threads` asks for.

    Where it says nothing, as many as pay for work that takes one thread so many seconds, roughly.
    """
    if n_threads is None:
        if seconds < SMALL_SECONDS:
            return 1
        return max(1, int(min(default()[0], math.sqrt(seconds / _losses.helper_seconds()))))
    if isinstance(n_threads, bool) or not hasattr(n_threads, "__index__"):
        raise TypeError(f"n_threads must be None or a positive integer, got {n_threads!r}")
    wanted = n_threads.__index__()
    if wanted < 1:
        raise ValueError(f"n_threads must be None or a positive integer, got {wanted}")
    return wanted


class _Losses:
    """What calls with helpers have lost lately: a mean that fades."""

    def __init__(self) -> None:
        self._mean, self._at = 0.0, 0.0

    def helper_seconds(self) -> float:
        """Return what a helper costs."""
        return _HELPER_SECONDS + self._now(time.perf_counter())

    def is_due(self, now: float) -> bool:
        """Whether to measure a call: after a while without."""
        return now - self._at > _UNMEASURED_SECONDS

    def add(self, seconds: float) -> None:
        """Take in what a call has lost; calls at the same time may overwrite each other's."""
        now = time.perf_counter()
        mean = self._now(now)
        self._mean, self._at = mean + _LOSS_SHARE * (seconds - mean), now

    def _now(self, now: float) -> float:
        return self._mean * 0.5 ** ((now - self._at) / _LOSS_SECONDS)


_losses = _Losses()


def run(task: _Task, n_blocks: int, n_threads: int) -> None:
    """Call ``task(block)`` once for each block in ``range(n_blocks)``, from up to `n_threads` threads.

    Parameters
    ----------
    task : callable
        Takes a block's number; must release the GIL to gain anything. A task that lasts over about
        0.1 s is a generator that yields in between: there it can be stopped.
    n_blocks : int
        Number of blocks.
    n_threads : int
        Threads to use, the calling one included; see `resolve`.
    """
    workers = min(n_threads, n_blocks)
    if workers <= 1 or getattr(_here, "is_worker", False) or _threads_are_greenlets():
        for block in range(n_blocks):
            _do(task, block)
        return
    begin = time.perf_counter()
    crew = _Crew(task, n_blocks, _losses.is_due(begin))
    cpu_begin = crew.cpu_seconds()
    # More than once, for what a signal handler raises may come just before one of them begins to wait, or between its
    # waits, and more may come before the next one.
    with crew, crew, crew, crew:
        _here.is_worker = True
        submit(crew.help, workers - 1)
        crew.work()
    if crew.is_measured:
        worked = crew.cpu_seconds() - cpu_begin + sum(crew.helped)
        _losses.add(max(0.0, time.perf_counter() - begin - worked))
    if crew.errors:
        raise crew.errors[0]


def _do(task: _Task, block: int, crew: _Crew | None = None) -> None:
    """Do a block, to its end or until its crew stops."""
    steps = task(block)
    if not steps:
        return
    try:
        for _ in steps:
            if crew is not None and crew.stop:
                return
    finally:
        # Here and now: the traceback of an interrupt may keep a generator, and what it has to do in the end, for long.
        steps.close()  # type: ignore[attr-defined]


class _Crew:
    """Those who work on one call: the calling thread, within a ``with`` block, and threads of the pool that help it.

    Helpers are counted when they begin, not when they are asked: the pool may start one late. Who comes when the call
    has ended finds that it stopped, or no more blocks.
    """

    def __init__(self, task: _Task, n_blocks: int, is_measured: bool) -> None:
        self.stop = False
        self.is_measured = is_measured
        self.errors: list[BaseException] = []
        self._task, self._n_blocks = task, n_blocks
        self._blocks = count()  # next() on it is one step for the interpreter: no two threads get one block
        self._helping: list[None] = []  # an item for each helper at work
        self._left: SimpleQueue[None] = SimpleQueue()
        self.helped: list[float] = []  # seconds of each helper

    def work(self) -> None:
        while not self.stop and (block := next(self._blocks)) < self._n_blocks:
            _do(self._task, block, self)

    def cpu_seconds(self) -> float:
        """Return the CPU time of this thread, which takes a microsecond to ask for, if the call is measured."""
        return _cpu_clock() if self.is_measured else 0.0

    def help(self, inbox: _Inbox) -> None:
        self._helping.append(None)
        try:
            begin = self.cpu_seconds()
            self.work()
            self.helped.append(self.cpu_seconds() - begin)
        except BaseException as error:
            self.stop = True
            self.errors.append(error)
        finally:
            _pool.append(inbox)  # before the call ends: the next one finds this thread idle
            self._helping.pop()
            self._left.put(None)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until nobody works: no thread may write into arrays that the caller has got back.

        What a signal handler raises meanwhile stops the work sooner, and the first of it is raised when it has stopped.
        """
        self.stop = self.stop or kind is not None
        interrupt: BaseException | None = None
        while self._helping:
            try:
                self._left.get()
            except BaseException as raised:
                self.stop = True
                interrupt = raised if interrupt is None else interrupt
        _here.is_worker = False
        if interrupt is not None:
            raise interrupt


def run_ranges(
    work: Callable[[int, int], None],
    n_blocks: int,
    n_threads: int | None,
    *,
    most: int,
    seconds: float = math.inf,
) -> None:
    """Call ``work(first, last)`` for ranges that cover ``range(n_blocks)``, each of `most` blocks or fewer.

    There are a few more ranges than threads, so that a thread that is held up does not hold up the
    call. For `seconds` see `resolve`; small work is one range.
    """
    if n_threads is None and seconds < SMALL_SECONDS:
        work(0, n_blocks)
        return
    n_threads = resolve(n_threads, seconds=seconds)
    step = max(1, min(-(-n_blocks // (4 * n_threads)), most))
    run(lambda task: work(task * step, min(n_blocks, (task + 1) * step)), -(-n_blocks // step), n_threads)


def insist(work: Callable[[], object]) -> None:
    """Call `work`, which can go on where it was, until no signal handler interrupts it; raise what the first one did.

    An error of its own is raised in the end too.
    """
    interrupt: BaseException | None = None
    for _ in range(_PATIENCE):
        try:
            work()
            break
        except BaseException as raised:
            interrupt = raised if interrupt is None else interrupt
    if interrupt is not None:
        raise interrupt


def submit(work: Callable[[_Inbox], None], n_helpers: int) -> None:
    """Ask the pool for helpers, which put their inboxes back; fewer may come, for the caller works anyway."""
    for _ in range(n_helpers):
        try:
            inbox = _pool.pop()
        except IndexError:  # all are busy
            return
        if inbox is not None:
            inbox.put(work)
            continue
        inbox = SimpleQueue()
        inbox.put(work)
        try:
            threading.Thread(target=_serve, args=(inbox,), name=f"fastml_{next(_numbers)}", daemon=True).start()
        except RuntimeError:  # the system starts no more threads, or the interpreter is shutting down
            _pool.insert(0, None)
            return


def _serve(inbox: _Inbox) -> None:
    """Help whoever asks, as a thread of the pool."""
    _here.is_worker = True
    while True:
        inbox.get()(inbox)


def _threads_are_greenlets() -> bool:
    """Whether gevent or eventlet have replaced threads and locks: those of one thread wait in vain for another's."""
    return not isinstance(_thread.allocate_lock, BuiltinFunctionType)


def _forget_pool() -> None:
    """Start afresh in a forked child: the parent's threads do not exist there."""
    _pool[:] = [None] * _POOL_THREADS
    _here.is_worker = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _positive(text: str) -> int | None:
    """Read the first number of a variable such as ``"4"`` or ``"4,2"`` (nested OpenMP levels)."""
    first = text.split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


@cache
def _cgroup_quota() -> int | None:
    """Whole CPUs that the container may use, rounded up; None without a quota."""
    try:
        own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    except (OSError, ValueError):
        return None
    quotas = [_quota_v2(own[""])] if "" in own else []
    quotas += [_quota_v1(path) for names, path in own.items() if "cpu" in names.split(",")]
    return min((quota for quota in quotas if quota), default=None)


def _quota_v2(path: str) -> int | None:
    """Smallest quota on the way from the process's own group up to the root."""
    smallest = None
    for folder in (Path(path), *Path(path).parents):
        try:
            quota, period = Path(f"/sys/fs/cgroup{folder}/cpu.max").read_text().split()
            cpus = math.ceil(int(quota) / int(period))
        except (OSError, ValueError, ArithmeticError):  # no such file, the word "max", a period of 0
            continue
        smallest = min(cpus, smallest or cpus)
    return smallest


def _quota_v1(path: str) -> int | None:
    for folder in (f"/sys/fs/cgroup/cpu{path}", "/sys/fs/cgroup/cpu"):
        try:
            quota = int(Path(folder, "cpu.cfs_quota_us").read_text())
            period = int(Path(folder, "cpu.cfs_period_us").read_text())
        except (OSError, ValueError):
            continue
        return math.ceil(quota / period) if quota > 0 and period > 0 else None
    return None
