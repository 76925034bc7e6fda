"""What a user is told who waits for the compiler: one line on stderr, once in a process.

The line comes while something compiles, when that has taken two seconds. Kernels that are compiled one after another
make one wait, and so do threads that wait for one another; what was compiled long before does not count. A timer says
it, for whoever compiles is busy; it ends with the compilation, so that no thread is left when the interpreter ends.

Nothing is said while somebody shows the progress of the work in another way, who calls `silent`, and nothing with
``FASTML_QUIET=1`` in the environment.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._cache_files import CacheInfo

__all__ = ["CompileNotice", "noticing", "silent"]

#: Nobody wants to read why they waited for less.
_DELAY_S = 2.0

#: How long the end of a compilation waits for the line to be written.
_PATIENCE_S = 1.0


class CompileNotice:
    """Tells once that something compiles; tests make their own.

    Parameters
    ----------
    delay_s : float
        How long to compile without a word. A pause of this length ends a wait.
    clock : callable
        Returns seconds.
    """

    def __init__(self, delay_s: float = _DELAY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._delay_s, self._clock = delay_s, clock
        self._was_told = False
        self._silences = 0
        self.forget_threads()

    def forget_threads(self) -> None:
        """Start afresh in a forked child, where the parent's other threads do not exist."""
        self._lock = threading.Lock()
        self._compiling: list[str] = []
        self._began = self._spent = 0.0
        self._ended = -self._delay_s
        self._timer: threading.Timer | None = None

    @contextlib.contextmanager
    def noticing(self, name: str, cache_info: Callable[[], CacheInfo]) -> Iterator[None]:
        """Compile something within this; `cache_info` says where it will be kept."""
        if self._was_told or self._silences or _is_quiet():
            yield
            return
        self._begin(name, cache_info)
        try:
            yield
        finally:
            self._end(name)

    @contextlib.contextmanager
    def silent(self, when: bool = True) -> Iterator[None]:
        """Say nothing within this, in any thread, if `when` is true."""
        with self._lock:
            self._silences += when
        try:
            yield
        finally:
            with self._lock:
                self._silences -= when

    def _begin(self, name: str, cache_info: Callable[[], CacheInfo]) -> None:
        with self._lock:
            self._compiling.append(name)
            if len(self._compiling) > 1:
                return
            self._began = self._clock()
            if self._began - self._ended >= self._delay_s:
                self._spent = 0.0
            timer = threading.Timer(max(0.0, self._delay_s - self._spent), self._tell, (cache_info,))
            timer.daemon = True
            with contextlib.suppress(RuntimeError):  # no threads here, or none any more: the interpreter ends
                timer.start()
                self._timer = timer

    def _end(self, name: str) -> None:
        with self._lock:
            if name in self._compiling:  # not if this was forked meanwhile
                self._compiling.remove(name)
            if self._compiling:
                return
            timer, self._timer = self._timer, None
            self._ended = self._clock()
            self._spent += self._ended - self._began
        if timer is not None:
            timer.cancel()
            # A thread that writes while the interpreter ends may crash it. But somebody's own stderr may have the main
            # thread write, which may wait for this one.
            timer.join(_PATIENCE_S)

    def _tell(self, cache_info: Callable[[], CacheInfo]) -> None:
        with self._lock:
            if self._was_told or self._silences or _is_quiet() or not self._compiling:
                return
            self._was_told = True
            name = self._compiling[0]  # others wait for the compiler's lock
        # There may be no stderr, or one that is closed, or somebody's own: whatever it does, the kernel must compile.
        with contextlib.suppress(Exception):
            line = _line(name, cache_info())
            sys.stderr.write(line)  # in one piece: other processes may write to the same terminal
            sys.stderr.flush()


def _is_quiet() -> bool:
    return os.environ.get("FASTML_QUIET", "0") not in ("", "0")


def _line(name: str, cache: CacheInfo) -> str:
    if cache.writable:
        kept = f"This happens once: the machine code is kept in {cache.path}"
        ahead = "`python -m fastml warmup` compiles everything ahead of time, a wheel with packs brings it along"
    else:
        kept = f"This happens in each process, as the machine code is not kept ({cache.reason})"
        ahead = "`python -m fastml info` says which folders were tried, a wheel with packs needs none"
    return f"fastml is compiling {name}. {kept}; {ahead}. FASTML_QUIET=1 hides this line.\n"


_process = CompileNotice()
noticing, silent = _process.noticing, _process.silent

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.forget_threads)
