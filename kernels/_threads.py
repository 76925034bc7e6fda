"""How many threads work, and how blocks of work are handed to them.

Kernels release the GIL and run over blocks on one pool of plain Python threads. Numba's own layers
are not used: one aborts the process on concurrent use, another dies after a fork, all share one
global thread count. Here the count is an argument of each call, and

* the calling thread always takes blocks itself, so a call finishes even if the pool is busy;
* a block never starts another round of blocks on the pool, it runs the inner ones by itself;
* an error in any thread, and Ctrl-C in the calling one, stops the hand-out, waits for the blocks
  under way (each at most about 0.1 s) and is raised in the caller.

Which thread works on which block is left to chance; kernels keep that invisible by writing each
block's result to its own place and combining in block order.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from pathlib import Path

__all__ = ["default", "resolve", "run", "run_ranges"]

#: The pool's size is a ceiling, not a cost: its threads start when they are first needed.
_POOL_THREADS = max(64, 2 * (os.cpu_count() or 1))

_ENVIRONMENT = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS")

_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()
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


def resolve(n_threads: int | None) -> int:
    """Return the number of threads that an argument `n_threads` asks for."""
    if n_threads is None:
        return default()[0]
    if isinstance(n_threads, bool) or not hasattr(n_threads, "__index__"):
        raise TypeError(f"n_threads must be None or a positive integer, got {n_threads!r}")
    wanted = n_threads.__index__()
    if wanted < 1:
        raise ValueError(f"n_threads must be None or a positive integer, got {wanted}")
    return wanted


def run(task: Callable[[int], Iterator[None] | None], n_blocks: int, n_threads: int) -> None:
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
    if workers <= 1 or getattr(_here, "is_worker", False):
        for block in range(n_blocks):
            for _ in task(block) or ():
                pass
        return

    blocks = count()  # next() on it is one step for the interpreter: no two threads get one block
    crew = _Crew()

    def work() -> None:
        _here.is_worker = True
        try:
            while not crew.stop.is_set() and (block := next(blocks)) < n_blocks:
                for _ in task(block) or ():
                    if crew.stop.is_set():
                        return
        except BaseException:
            crew.stop.set()
            raise
        finally:
            _here.is_worker = False

    try:
        _submit(lambda: crew.help(work), workers - 1)
        work()
    except BaseException:
        crew.stop.set()
        raise
    finally:
        crew.dismiss()
    if crew.errors:
        raise crew.errors[0]


class _Crew:
    """The pool's threads that help with one call.

    They are counted when they begin, not when they are asked: the pool may start one late, or one
    whose submission failed. Who comes after the call has ended goes away at once.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.errors: list[BaseException] = []
        self._changed = threading.Condition()
        self._at_work = 0
        self._dismissed = False

    def help(self, work: Callable[[], None]) -> None:
        with self._changed:
            if self._dismissed:
                return
            self._at_work += 1
        try:
            work()
        except BaseException as error:
            self.errors.append(error)
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()

    def dismiss(self) -> None:
        """Wait until nobody works: no thread may write into arrays that the caller has got back.

        Ctrl-C meanwhile stops the work sooner, and is raised when it has stopped.
        """
        interrupt: KeyboardInterrupt | None = None
        while True:
            try:
                with self._changed:
                    self._dismissed = True
                    while self._at_work:
                        self._changed.wait()
                break
            except KeyboardInterrupt as again:
                self.stop.set()
                interrupt = again
        if interrupt is not None:
            raise interrupt


def run_ranges(work: Callable[[int, int], None], n_blocks: int, n_threads: int, *, most: int) -> None:
    """Call ``work(first, last)`` for ranges that cover ``range(n_blocks)``, each of `most` blocks or fewer.

    There are a few more ranges than threads, so that a thread that is held up does not hold up the
    call.
    """
    step = max(1, min(-(-n_blocks // (4 * n_threads)), most))
    run(lambda task: work(task * step, min(n_blocks, (task + 1) * step)), -(-n_blocks // step), n_threads)


def _submit(work: Callable[[], None], n_helpers: int) -> None:
    """Ask the pool for helpers; fewer may come, for the caller works anyway."""
    global _pool
    # RuntimeError: the interpreter is shutting down, or the system starts no more threads.
    with contextlib.suppress(RuntimeError), _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_POOL_THREADS, thread_name_prefix="fastml")
        for _ in range(min(n_helpers, _POOL_THREADS)):
            _pool.submit(work)


def _forget_pool() -> None:
    """Start afresh in a forked child: the parent's threads do not exist there."""
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()
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
