"""Compilation policies at run time, and what is kept of a kernel: hits, misses, keys."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from collections import Counter, namedtuple
from pathlib import Path

import numba
import numpy as np
import pytest

from cache_probe import environment, files, is_right, probe
from fastml import kernels
from fastml.kernels import sigmoid
from fastml.kernels.runtime import jit

pytestmark = pytest.mark.needs_jit


# ------------------------------------------------------------------------------------ hits and misses


def test_the_second_process_compiles_nothing(filled):
    found = probe(filled)
    assert is_right(found)
    assert (found["hits"], found["misses"], found["signatures"]) == (1, 0, 1)
    assert found["writable"]
    assert Path(found["path"]).is_relative_to(filled)


def test_one_file_per_signature_and_nothing_else(filled):
    (file,) = files(filled)
    assert file.name.startswith("losses.elementwise.sigmoid_entries.")
    assert file.suffix == ".bin"


@pytest.mark.parametrize("hash_seed", ["0", "1", "2"])
def test_the_key_does_not_depend_on_the_order_of_sets(filled, hash_seed):
    assert probe(filled, PYTHONHASHSEED=hash_seed)["misses"] == 0


@pytest.mark.slow
def test_a_switch_that_changes_machine_code_changes_the_key(copy_of_filled):
    for name, value in (
        ("NUMBA_OPT", "1"),
        ("NUMBA_LOOP_VECTORIZE", "0"),
        ("NUMBA_SLP_VECTORIZE", "1"),
        ("NUMBA_BOUNDSCHECK", "1"),
        ("NUMBA_LLVM_REFPRUNE_PASS", "0"),
        ("NUMBA_CPU_NAME", "generic"),
        ("NUMBA_CPU_FEATURES", ""),
    ):
        found = probe(copy_of_filled, **{name: value})
        assert is_right(found), name
        assert (found["hits"], found["misses"]) == (0, 1), name
    assert probe(copy_of_filled)["misses"] == 0, "what was there must stay"


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "import os, numba; os.environ['NUMBA_BOUNDSCHECK'] = '1'",
        "sigmoid(np.array([0.5], 'f4')); import os; os.environ['NUMBA_BOUNDSCHECK'] = '1'",
        "sigmoid(np.array([0.5], 'f4')); import numba; numba.config.BOUNDSCHECK = 1",
    ],
)
def test_a_switch_that_the_program_changes_counts_too(tmp_path, change):
    """The compiler goes by what it is then, so that its code must not serve those who have not changed it."""
    cache = tmp_path / "cache"
    assert probe(cache, before=change)["misses"] > 0
    found = probe(cache)
    assert (found["hits"], found["misses"]) == (0, 1)


def test_messages_of_the_compiler_are_not_kept_for_others(tmp_path):
    """Code compiled with NUMBA_DEBUG_JIT prints whenever it runs."""
    call = "import numpy as np; from fastml.kernels import sigmoid; sigmoid(np.array([0.5]))"
    for switch, silent in (("1", False), (None, True)):
        done = subprocess.run(
            [sys.executable, "-c", call],
            env=environment(tmp_path, NUMBA_DEBUG_JIT=switch),
            capture_output=True,
            text=True,
            check=True,
        )
        assert (done.stdout == "") is silent


def test_options_types_and_cpu_are_in_the_key(monkeypatch):
    (compiled,) = (k for k in jit.KERNELS if k.py_func.__qualname__ == "sigmoid_entries")
    options = dict(compiled.targetoptions)

    def name_for(options, sig, cpu):
        other = numba.njit(**{name: value for name, value in options.items() if name != "nopython"})(compiled.py_func)
        monkeypatch.setattr(jit, "compiled_for", lambda: ("x86_64", cpu, ""))
        return jit._Pickles(other)._file(sig)

    plain = name_for(options, "(f4,)", "a")
    assert name_for(options, "(f4,)", "a") == plain
    others = {
        name_for({**options, "fastmath": {"contract"}}, "(f4,)", "a"),
        name_for({**options, "nogil": False}, "(f4,)", "a"),
        name_for(options, "(f8,)", "a"),
        name_for(options, "(f4,)", "b"),
    }
    assert len(others | {plain}) == 5


def test_kernels_do_not_share_a_file():
    stems = [compiled._cache._stem for compiled in jit.KERNELS]
    assert len(stems) == len(set(stems))


def functions_of(compiled, seen):
    """Add all compiled functions that one stands on, by way of closures and globals, to `seen`."""
    function = getattr(compiled, "py_func", None)
    if function is None or function in seen:
        return
    seen.add(function)
    for cell in function.__closure__ or ():
        functions_of(cell.cell_contents, seen)
    for name in function.__code__.co_names:
        functions_of(function.__globals__.get(name), seen)


def shared_names(compiled):
    seen = set()
    for one in compiled:
        functions_of(one, seen)
    names = Counter((function.__module__, function.__qualname__) for function in seen)
    return sorted(name for (_, name), count in names.items() if count > 1)


def test_no_two_functions_have_one_name_in_machine_code():
    """Of functions with one name, a process that loads both from the cache would run one for the other."""
    for module in pkgutil.walk_packages(kernels.__path__, "fastml.kernels."):
        importlib.import_module(module.name)
    assert len(jit.KERNELS) > 20
    assert shared_names(jit.KERNELS) == []


def test_functions_with_one_name_are_found_and_told_apart():
    def factory(term, wrap):
        def made(x):
            return term(x)

        return wrap(made)

    @jit.inner
    def sine(x):
        return np.sin(x)

    @jit.inner
    def cosine(x):
        return np.cos(x)

    assert len(shared_names([factory(sine, numba.njit), factory(cosine, numba.njit)])) == 1
    assert shared_names([factory(sine, jit.inner), factory(cosine, jit.inner)]) == []
    assert shared_names([factory(sine, jit.scalar), factory(cosine, jit.scalar)]) == []


def test_named_tuples_with_other_fields_have_code_of_their_own():
    """Numba calls their types by what is in them, but code that reads a field has its place."""
    first, second = (numba.typeof(namedtuple("Pair", fields)(1.0, 2.0)) for fields in ("a b", "b a"))
    assert str(first) == str(second), "nothing would need to be done"
    assert jit._spelled((first,)) != jit._spelled((second,))
    assert jit._spelled((numba.types.Tuple([first, numba.int64]),)) != jit._spelled(
        (numba.types.Tuple([second, numba.int64]),)
    )


# -------------------------------------------------------------------------------- one kernel's cache


def test_flush_removes_one_kernel_and_no_other(copy_of_filled):
    (file,) = files(copy_of_filled)
    other = file.with_name(f"losses.elementwise.exp_entries.{'0' * 32}.bin")
    other.write_bytes(b"of another kernel")
    flush = """
from fastml.kernels.losses import elementwise
elementwise._sigmoid_entries._cache.flush()
"""
    probe(copy_of_filled, after=flush)
    assert files(copy_of_filled) == [other]


def test_a_cache_switched_off_for_one_kernel(copy_of_filled):
    off = """
from fastml.kernels.losses import elementwise
elementwise._sigmoid_entries._cache.disable()
"""
    found = probe(copy_of_filled, before=off)
    assert is_right(found)
    assert (found["hits"], found["misses"]) == (0, 1)
    on = off + "elementwise._sigmoid_entries._cache.enable()\n"
    assert probe(copy_of_filled, before=on)["hits"] == 1


# -------------------------------------------------------------------------------- policies at work


def test_stats_count_signatures_hits_and_misses():
    sigmoid(np.zeros(2))
    counts = jit.stats()["losses.elementwise.sigmoid_entries"]
    # Tests of the repository compile kernels anew, which are then loaded more than once.
    assert counts["hits"] + counts["misses"] >= counts["signatures"] >= 1
    sigmoid(np.zeros(3))
    assert jit.stats()["losses.elementwise.sigmoid_entries"] == counts
    assert len(jit.stats()) == len(jit.KERNELS), "two kernels of one name"


def test_readonly_is_a_view_and_leaves_its_argument_writable():
    array = np.arange(3.0)
    view = jit.readonly(array)
    assert not view.flags.writeable
    assert array.flags.writeable
    assert np.shares_memory(view, array)
    assert jit.readonly(view) is view


def total(x):
    s = np.float32(0)
    for i in range(x.size):
        s += x[i]
    return s


def test_kernels_keep_nan_and_infinity_and_may_reorder():
    compiled = jit.inner(total)
    assert np.isnan(compiled(np.array([1, np.nan], "f4")))
    assert compiled(np.array([1, np.inf], "f4")) == np.inf
    # 2^24 + 1 + 1 + ... stays at 2^24 if float32 sums are taken in order, and only then.
    many = np.ones(4096, "f4")
    many[0] = 2**24
    assert compiled(many) > 2**24


def test_scalar_helpers_keep_their_order():
    @jit.scalar
    def rounding_error(a, b):
        s = a + b
        return b - (s - a)

    assert rounding_error(1.0, 2.0**-60) == 2.0**-60
    assert numba.njit(fastmath=True)(rounding_error.py_func)(1.0, 2.0**-60) == 0, "the test above could not fail"


def test_divisions_by_zero_give_what_numpy_gives():
    compiled = jit.kernel(lambda x, y: x / y)
    jit.KERNELS.pop()
    assert compiled(1.0, 0.0) == np.inf
    assert np.isnan(compiled(0.0, 0.0))


def test_kernels_release_the_interpreter_lock():
    for compiled in jit.KERNELS:
        assert compiled.targetoptions["nogil"] is True


def test_without_compilation_kernels_are_plain_python():
    code = """
import numpy as np, types
from fastml.kernels import exp
from fastml.kernels.losses import elementwise
from fastml.kernels.runtime import jit
from fastml.kernels.simd import comparisons, functions
assert not jit.jit_enabled()
assert jit.stats() == {}
assert isinstance(elementwise._exp_entries, types.FunctionType)
assert isinstance(functions.exp, types.FunctionType)
assert comparisons.lowest_bit is comparisons._lowest_bit_twin
info = jit.cache_info()
assert (info.path, info.writable) == (None, False) and "NUMBA_DISABLE_JIT" in info.reason
assert abs(exp([1.0])[0] - np.e) < 1e-15
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(None, NUMBA_DISABLE_JIT="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
