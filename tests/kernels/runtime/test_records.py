"""Machine code as bytes: it comes back as it was, from any process, or it is refused and made anew."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tempfile
import threading

import numba
import numpy as np
import pytest

from cache_probe import environment
from fastml.kernels.runtime import machine_code

pytestmark = pytest.mark.needs_jit

# `apart` calls itself, so that it stays a function of its own in the code of both kernels.
SOURCE = """
import numpy as np
from fastml.kernels.runtime.jit import inner, kernel

@inner
def apart(n):
    return 1 if n < 2 else apart(n - 1) + apart(n - 2)

@kernel
def first(x):
    return apart(x) + 10

@kernel
def second(x):
    return apart(x) - 10

@kernel
def checked(x):
    if x.size < 2:
        raise ValueError("too short", 2)
    if x[0] < 0:
        raise IndexError
    return np.full(x.size, x[1], np.float32)

@kernel
def copied(x):
    return x.copy()
"""

INT = (numba.int64,)


def counts(kernel) -> tuple[int, int]:
    return sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values())


def record_of(kernel) -> bytes:
    (result,) = kernel.overloads.values()
    return machine_code.record(result)


# --------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("names", [("first", "second"), ("second", "first")])
def test_kernels_that_share_a_function_are_loaded_in_any_order(made_up, names):
    expected = {"first": 65, "second": 45}
    there = made_up(SOURCE)
    assert [getattr(there, name)(9) for name in expected] == list(expected.values())
    back = made_up(SOURCE)
    for name in names:
        assert getattr(back, name)(9) == expected[name]
        assert counts(getattr(back, name)) == (1, 0)
    assert back.first(0.5) == 11
    assert counts(back.first) == (1, 1)


def test_errors_are_raised_as_by_code_that_was_compiled(made_up):
    wrong = (np.ones(1), np.array([-1.0, 1.0]))

    def raised(kernel) -> list[tuple[type, tuple]]:
        found = []
        for x in wrong:
            with pytest.raises((ValueError, IndexError)) as error:
                kernel(x)
            found.append((error.type, error.value.args))
        return found

    there, back = made_up(SOURCE).checked, made_up(SOURCE).checked
    compiled = raised(there)
    assert compiled == raised(back) == [(ValueError, ("too short", 2)), (IndexError, ())]
    assert counts(back) == (1, 0)
    result = back(np.ones(2))
    assert result.dtype == np.float32
    assert result.tolist() == there(np.ones(2)).tolist() == [1, 1]


def test_what_is_no_plain_constant_is_not_kept(made_up):
    """What an array of structures needs of Python is its type, which JSON cannot have."""
    pair = np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])
    for _ in range(2):
        copied = made_up(SOURCE).copied
        assert copied(pair) == pair
        assert counts(copied) == (0, 1)
        with pytest.raises(machine_code.NoRecord, match="a constant"):
            record_of(copied)


def test_a_record_says_what_its_code_needs(made_up):
    checked = made_up(SOURCE).checked
    checked(np.ones(2))
    line, _, code = record_of(checked).partition(b"\n")
    head = json.loads(line)
    assert "NRT_MemInfo_alloc_aligned" in head["needs"]
    assert any(values == [{"dtype": "<f4"}] for values in head["constants"].values())
    assert head["entry"].encode() in code


# ----------------------------------------------------------------------------- names that are not unique


def test_kernels_of_one_name_in_two_modules(made_up):
    for hits in (0, 1):
        one, other = made_up(SOURCE, "one"), made_up(SOURCE.replace("+ 10", "+ 20"), "other")
        assert (one.first(9), other.first(9)) == (65, 75)
        assert counts(one.first) == counts(other.first) == (hits, 1 - hits)


RECORD = """
import sys
from types import ModuleType
from fastml.kernels.runtime import machine_code
made_up = sys.modules["made_up"] = ModuleType("made_up")
exec(compile(sys.argv[1], "made_up.py", "exec"), made_up.__dict__)
made_up.first._cache.disable()
made_up.first(1)
(result,) = made_up.first.overloads.values()
sys.stdout.buffer.write(machine_code.record(result))
"""


@pytest.mark.slow
def test_functions_that_got_one_name_in_two_processes(made_up):
    """Numba's names have numbers in them that count from one in each process."""
    records = []
    for addend in (1, 1000):
        source = SOURCE.replace("return 1 if", f"return {addend} if")
        arguments = [sys.executable, "-c", RECORD, source]
        environ = environment(None, PYTHONHASHSEED="0")
        records.append(
            subprocess.run(arguments, env=environ, cwd=tempfile.gettempdir(), capture_output=True, check=True).stdout
        )
    assert len({json.loads(record.partition(b"\n")[0])["entry"] for record in records}) == 1
    first = made_up(SOURCE).first
    loaded = [machine_code.load(record, first, INT).entry_point for record in records]
    assert [call(9) for call in loaded] == [65, 55010]
    assert [call(9) for call in reversed(loaded)] == [55010, 65]
    assert first(9) == 65


# ------------------------------------------------------------------------------- what cannot be loaded


def with_head(content: bytes, **changes: object) -> bytes:
    line, _, code = content.partition(b"\n")
    return json.dumps({**json.loads(line), **changes}).encode() + b"\n" + code


def with_code(content: bytes, change) -> bytes:
    line, _, code = content.partition(b"\n")
    return line + b"\n" + change(code)


UNLOADABLE = {
    "nothing": lambda content: b"",
    "no JSON": lambda content: b"{" + content,
    "other JSON": lambda content: with_code(b"[]\n" + content, lambda code: code),
    "a head without its fields": lambda content: b"{}" + content[content.index(b"\n") :],
    "a head alone": lambda content: with_code(content, lambda code: b""),
    "a function that is nowhere": lambda content: with_head(content, needs=["no_such_function_anywhere"]),
    "an entry that is not there": lambda content: with_head(content, entry="no_such_entry"),
    "a constant that is not there": lambda content: with_head(content, constants={"no_such_variable": []}),
    "garbage": lambda content: with_code(content, lambda code: np.random.default_rng(0).bytes(len(code))),
    "half the code": lambda content: with_code(content, lambda code: code[: len(code) // 2]),
    "the beginning of the code": lambda content: with_code(content, lambda code: code[:64]),
    "code in another format": lambda content: with_code(content, lambda code: struct.pack("<8I", 0xFEEDFACF, *[1] * 7)),
    "code for another kind of CPU": lambda content: with_code(content, lambda code: code[:12] + b"\0" * 8 + code[20:]),
}


@pytest.fixture
def record(made_up) -> bytes:
    kernel = made_up(SOURCE).first
    kernel(1)
    return record_of(kernel)


@pytest.mark.parametrize("what", UNLOADABLE)
def test_what_cannot_be_loaded_is_refused(made_up, record, what):
    """And does not end the process, as LLVM would."""
    first = made_up(SOURCE).first
    assert machine_code.load(record, first, INT).entry_point(9) == 65
    with pytest.raises((machine_code.NoRecord, ValueError, TypeError, KeyError)):
        machine_code.load(UNLOADABLE[what](record), first, INT)


def test_what_is_refused_is_compiled_and_mended(made_up, monkeypatch):
    there, record = made_up(SOURCE).first, machine_code.record
    with monkeypatch.context() as patch:
        patch.setattr(machine_code, "record", lambda result: with_head(record(result), needs=["no_such_function"]))
        assert there(9) == 65
    for expected in ((0, 1), (1, 0)):
        back = made_up(SOURCE).first
        assert back(9) == 65
        assert counts(back) == expected


# ------------------------------------------------------------------------------------------- threads


@pytest.mark.safety
def test_threads_compile_and_load_at_once(made_up):
    there = made_up(SOURCE)
    there.first(9)
    there.checked(np.ones(2))
    back = made_up(SOURCE)
    calls = [lambda: back.first(9), lambda: back.second(9), lambda: back.checked(np.ones(2)).sum()] * 2
    results: list[object] = [None] * len(calls)
    start = threading.Barrier(len(calls))

    def call(number: int) -> None:
        start.wait()
        results[number] = calls[number]()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [65, 45, 2] * 2
    assert [counts(kernel) for kernel in (back.first, back.second, back.checked)] == [(1, 0), (0, 1), (1, 0)]
