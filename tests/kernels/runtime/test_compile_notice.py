"""The line for whoever waits for the compiler: said once and in time, and never in anybody's way."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from cache_probe import environment
from fastml.kernels.runtime import compile_notice
from fastml.kernels.runtime._cache_files import CacheInfo
from fastml.kernels.runtime.compile_notice import CompileNotice

#: Real timers that are not to end wait for so long: no test lasts it.
LONG = 3600.0


def kept() -> CacheInfo:
    return CacheInfo("/the/cache", True, "writable")


class Clock:
    """Goes on only when it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Stderr(io.StringIO):
    """Says when something has been written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def flush(self) -> None:
        self.written.set()


@pytest.fixture
def stderr(monkeypatch) -> Stderr:
    stream = Stderr()
    put(monkeypatch, stream)
    return stream


def put(monkeypatch, stream: object) -> None:
    """Put a stream in the place of stderr: for the module alone, as pytest puts its own there for each phase."""
    monkeypatch.setattr(compile_notice, "sys", SimpleNamespace(stderr=stream))
    monkeypatch.delenv("FASTML_QUIET", raising=False)


def compile_until(stderr: Stderr, notice: CompileNotice, name: str = "k", cache=kept) -> str:
    """Compile until something is said, and return it."""
    with notice.noticing(name, cache):
        assert stderr.written.wait(20)
    return stderr.getvalue()


def is_waiting(notice: CompileNotice) -> bool:
    """Whether a timer is running that would say something now or later."""
    with notice.noticing("k", kept):
        return notice._timer is not None


# ------------------------------------------------------------------------------------ what is said


def test_one_line_says_what_where_and_how_to_avoid_it(stderr):
    line = compile_until(stderr, CompileNotice(0), "networks.training.train")
    assert line.count("\n") == 1
    assert line.endswith("\n")
    for part in ("networks.training.train", "/the/cache", "python -m fastml warmup", "FASTML_QUIET=1"):
        assert part in line


def test_where_nothing_is_kept_the_reason_is_said(stderr):
    line = compile_until(stderr, CompileNotice(0), cache=lambda: CacheInfo(None, False, "no cache: no home"))
    assert line.count("\n") == 1
    assert "no cache: no home" in line
    assert "fastml info" in line
    assert "warmup" not in line, "it would be in vain"


def test_it_is_said_once(stderr):
    notice = CompileNotice(0)
    before = compile_until(stderr, notice)
    assert not is_waiting(notice)
    assert stderr.getvalue() == before


def test_the_process_has_two_seconds_of_silence():
    assert compile_notice._process._delay_s == 2.0


def test_of_several_threads_the_one_that_came_first_is_named(stderr):
    """It has the compiler's lock."""
    notice = CompileNotice(LONG)
    with notice.noticing("first", kept), notice.noticing("second", kept):
        notice._tell(kept)
    assert "first" in stderr.getvalue()
    assert "second" not in stderr.getvalue()


# ------------------------------------------------------------------------------------ when it is said


def test_a_short_compilation_is_silent_and_leaves_no_thread(stderr):
    threads = threading.active_count()
    notice = CompileNotice(LONG)
    assert is_waiting(notice)
    assert threading.active_count() == threads
    assert stderr.getvalue() == ""


def test_kernels_one_after_another_make_one_wait(stderr):
    clock = Clock()
    notice = CompileNotice(LONG, clock)
    for _ in range(2):
        with notice.noticing("k", kept):
            clock.now += LONG / 2
        clock.now += LONG / 2
    assert stderr.getvalue() == ""
    compile_until(stderr, notice)


def test_what_was_compiled_long_before_does_not_count(stderr):
    clock = Clock()
    notice = CompileNotice(LONG, clock)
    with notice.noticing("k", kept):
        clock.now += LONG
    clock.now += LONG
    with notice.noticing("k", kept):
        assert notice._timer.interval == LONG


def test_threads_that_compile_side_by_side_make_one_wait(stderr):
    clock = Clock()
    notice = CompileNotice(2 * LONG, clock)
    with notice.noticing("first", kept), ThreadPoolExecutor(1) as pool:

        def other() -> None:
            with notice.noticing("second", kept):
                clock.now += LONG

        pool.submit(other).result()
    with notice.noticing("third", kept):
        assert notice._timer.interval == LONG


def test_an_error_of_the_compiler_ends_the_wait(stderr):
    threads = threading.active_count()
    notice = CompileNotice(LONG)
    with pytest.raises(KeyError), notice.noticing("k", kept):
        raise KeyError
    assert threading.active_count() == threads
    assert notice._compiling == []


# ------------------------------------------------------------------------------------ when it is not


@pytest.mark.parametrize(("value", "quiet"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_switch(stderr, monkeypatch, value, quiet):
    monkeypatch.setenv("FASTML_QUIET", value)
    assert is_waiting(CompileNotice(LONG)) is not quiet


def test_silence_and_its_end(stderr):
    notice = CompileNotice(LONG)
    with notice.silent():
        with notice.silent():
            assert not is_waiting(notice)
        assert not is_waiting(notice), "the outer one goes on"
    assert is_waiting(notice)
    with notice.silent(when=False):
        assert is_waiting(notice)


def test_what_is_compiled_in_silence_does_not_count(stderr):
    clock = Clock()
    notice = CompileNotice(LONG, clock)
    with notice.silent(), notice.noticing("k", kept):
        clock.now += LONG / 2
    with notice.noticing("k", kept):
        assert notice._timer.interval == LONG


def test_a_bar_that_another_thread_opens_meanwhile(stderr):
    notice = CompileNotice(LONG)
    with notice.noticing("k", kept), notice.silent():
        notice._tell(kept)
    assert stderr.getvalue() == ""
    with notice.noticing("k", kept):
        notice._tell(kept)
    assert stderr.getvalue() != "", "it may still be said later"


class Broken(Stderr):
    def write(self, text: str) -> int:
        self.written.set()
        raise RuntimeError("somebody's own stream")


@pytest.mark.parametrize("kind", ["none", "closed", "broken"])
def test_a_stderr_that_takes_nothing_is_no_error(monkeypatch, kind):
    stream = {"none": None, "closed": io.StringIO(), "broken": Broken()}[kind]
    if kind == "closed":
        stream.close()
    put(monkeypatch, stream)
    asked = threading.Event()

    def cache() -> CacheInfo:
        asked.set()
        return kept()

    # A thread that raises is an error of the test.
    with CompileNotice(0).noticing("k", cache):
        assert asked.wait(20)


def test_a_stderr_that_waits_for_whoever_compiles_does_not_stop_it(stderr, monkeypatch):
    """As that of a program with windows, whose main thread does all that shows, and may want to compile."""
    compiled = threading.Event()
    monkeypatch.setattr(stderr, "flush", lambda: stderr.written.set() or compiled.wait(20))
    monkeypatch.setattr(compile_notice, "_PATIENCE_S", 0.01)
    compile_until(stderr, CompileNotice(0.0))
    compiled.set()
    assert "fastml is compiling" in stderr.getvalue()


def test_a_switch_that_is_set_while_something_compiles(stderr, monkeypatch):
    notice = CompileNotice(0.0)
    monkeypatch.setattr(notice, "_tell", lambda cache, tell=notice._tell: (quiet.wait(20), tell(cache), told.set()))
    quiet, told = threading.Event(), threading.Event()
    with notice.noticing("k", kept):
        monkeypatch.setenv("FASTML_QUIET", "1")
        quiet.set()
        assert told.wait(20)
    assert stderr.getvalue() == ""


def test_a_cache_that_cannot_be_asked_is_no_error(stderr):
    asked = threading.Event()

    def cache() -> CacheInfo:
        asked.set()
        raise OSError

    with CompileNotice(0).noticing("k", cache):
        assert asked.wait(20)
    assert stderr.getvalue() == ""


def test_where_no_thread_can_start_nothing_is_said(stderr, monkeypatch):
    def start(self) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Timer, "start", start)
    with CompileNotice(0).noticing("k", kept):
        pass
    assert stderr.getvalue() == ""


# ------------------------------------------------------------------------------------ ends of processes

WITHIN = """
import atexit, os, sys, threading, time
from fastml.kernels.runtime._cache_files import CacheInfo
from fastml.kernels.runtime.compile_notice import CompileNotice, noticing, _process
def kept():
    return CacheInfo("/the/cache", True, "writable")
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", WITHIN + script]
    env = environment(None, FASTML_QUIET=None)
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_the_module_needs_no_numba():
    done = run("print('numba' in sys.modules)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


@pytest.mark.safety
def test_an_interpreter_that_ends_while_something_is_said():
    done = run("""
for _ in range(200):
    with CompileNotice(0).noticing("k", kept):
        pass
def late():
    with CompileNotice(0).noticing("late", kept):
        time.sleep(0.05)
atexit.register(late)
""")
    assert done.returncode == 0
    assert all(line.startswith("fastml is compiling") for line in done.stderr.splitlines()), done.stderr


@pytest.mark.safety
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_waits_for_itself_alone():
    done = run("""
_process._delay_s = 3600
entered, leave = threading.Event(), threading.Event()
def other():
    with noticing("of the parent", kept):
        entered.set()
        leave.wait()
thread = threading.Thread(target=other)
thread.start()
entered.wait()
child = os.fork()
if child == 0:
    _process._delay_s = 0
    with noticing("of the child", kept):
        deadline = time.monotonic() + 60
        while not _process._was_told and time.monotonic() < deadline:
            time.sleep(0.01)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
leave.set()
thread.join()
""")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "of the child" in done.stderr
