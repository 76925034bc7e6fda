"""Kernels compiled for our own target: the same results, whoever calls, and nothing for users of Numba to notice."""

from __future__ import annotations

import json
import pickle

import numba
import pytest

from checkout import run_python
from fastml.kernels.runtime import jit

pytestmark = pytest.mark.needs_jit

SOURCE = """
import numba
import numpy as np
from fastml.kernels.runtime.jit import inner, kernel

@inner
def twice(x):
    return x + x

@inner
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

@kernel
def lower(x):
    return twice(x) + 1

@inner
def between(x):
    return lower(x) + twice(x)

@kernel
def upper(x):
    return between(x) + lower(x) + fibonacci(x)

@kernel
def in_python(x):
    with numba.objmode(y="int64"):
        y = int(x)
    return y
"""


# ------------------------------------------------------------------------------------- who calls whom


@pytest.mark.parametrize("first", ["twice", "lower", "between", "upper"])
def test_whoever_calls_first_all_give_the_same(made_up, first):
    """Each is compiled by itself for Python, and as a part of those that call it."""
    module = made_up(SOURCE)
    expected = {"twice": 14, "lower": 15, "between": 29, "upper": 57, "fibonacci": 13}
    for name in [first, *expected, first]:
        assert getattr(module, name)(7) == expected[name]
    assert module.lower(1.5) == 4, "other types are still welcome"


def test_a_part_of_others_is_compiled_for_python_once_python_calls(made_up):
    module = made_up(SOURCE)
    module.upper(7)
    assert [len(getattr(module, name).overloads) for name in ("twice", "lower", "between", "upper")] == [0, 0, 0, 1]
    module.lower(7)
    assert len(module.lower.overloads) == 1


@pytest.mark.filterwarnings("ignore:Code running in object mode")
def test_object_mode_is_refused(made_up):
    with pytest.raises(numba.core.errors.UnsupportedError, match="kernels cannot run Python"):
        made_up(SOURCE).in_python(1)


def test_a_kernel_goes_through_pickle(made_up):
    lower = made_up(SOURCE).lower
    assert pickle.loads(pickle.dumps(lower)) is lower
    elsewhere = type(lower)._rebuild(**{**lower._reduce_states(), "uuid": "of another process"})
    assert elsewhere is not lower
    assert elsewhere(7) == 15


INTERRUPTED = """
import os, signal
import numpy as np
from fastml import kernels
from fastml.kernels.runtime import compiler

bring_in = compiler._Context.load_additional_registries

def interrupted(context):
    compiler._Context.load_additional_registries = bring_in
    os.kill(os.getpid(), signal.SIGINT)
    bring_in(context)

compiler._Context.load_additional_registries = interrupted
try:
    kernels.softmax(np.ones((3, 4), np.float32))
except KeyboardInterrupt:
    print(float(kernels.softmax(np.ones((3, 4), np.float32)).sum()))
"""


def test_ctrl_c_before_the_first_kernel_is_compiled_costs_nothing(tmp_path):
    """Numba is just taking over what it knows of arrays, and would never come back to it."""
    assert run_python(INTERRUPTED, NUMBA_CACHE_DIR=str(tmp_path), FASTML_PACK="0") == "3.0\n"


# --------------------------------------------------------------------------------- users of Numba beside us

BESIDE = """
import hashlib, json, re, sys
import numba, numpy as np
from numba.core.registry import cpu_target

def shifted(x, y):
    z = np.zeros(x.size)
    z[1:] = x[:-1]
    z[: x.size // 2] = y
    return min(z[0], 1.5) + max(z[-1], z[1])

def results(compiled):
    x = np.arange(1.0, 9.0)
    try:
        compiled(x, x)
    except ValueError as error:
        return compiled(x, x[:4]), str(error)

def as_user():
    compiled = numba.njit(nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp"})(shifted)
    found = results(compiled)
    ((signature, overload),) = compiled.overloads.items()
    assert overload.library.codegen is cpu_target.target_context.codegen()
    names = r'"\\.[^"]+"|\\.(bytes|const)[.\\w]+|_Z\\w+|0x\\w+|\\.size.*'  # with numbers and addresses in them
    code = re.sub(names, "", compiled.inspect_asm(signature))
    return *found, hashlib.sha256(code.encode()).hexdigest()

def as_kernel():
    from fastml.kernels.runtime import jit
    return results(jit.kernel(shifted))

print(json.dumps([as_user() if who == "user" else as_kernel() for who in sys.argv[1:]]))
"""


@pytest.mark.parametrize("named", ["lower", "twice"])
def test_code_of_users_cannot_call_ours_and_is_told(made_up, named):
    function = getattr(made_up(SOURCE), named)

    @numba.njit
    def user(x):
        return function(x)

    with pytest.raises(numba.core.errors.NumbaError, match=f"{named} of fastml is called from Python"):
        user(1)
    assert function(1) in (2, 3)


@pytest.mark.slow
def test_users_of_numba_are_served_as_without_us(tmp_path):
    """What both call, Numba compiles for both: an order in which one is served with the other's code would be seen."""

    def beside(*order: str) -> list[list[object]]:
        return json.loads(run_python(BESIDE, *order, NUMBA_CACHE_DIR=str(tmp_path / order[0])))

    alone, kernel = beside("user", "kernel")
    first, after = beside("kernel", "user")
    assert alone == after
    assert alone[:2] == kernel == first
    assert "cannot assign slice" in alone[1]


# ------------------------------------------------------------------------------ Numba's own way beside ours

#: Entries of the catalogue, of every family.
CHEAP = ("exp", "hinge", "hinge_gradient")
DEAR = (
    *("pairwise_l2", "softmax_cross_entropy_gradient", "train_linear[binary_cross_entropy]"),
    *("network_scores[relu]", "max_pool2d_gradient"),
)

DIGESTS = """
import hashlib
import numpy as np
from fastml.kernels.catalogue import ENTRIES, outputs

def digest(key):
    entry, found = ENTRIES[key], hashlib.sha256()
    inputs = entry.make(entry.sizes["tiny"], "float32")
    for output in outputs(entry.tier("compiled")(*inputs.args, **inputs.kwargs)):
        found.update(np.ascontiguousarray(output).tobytes())
    return found.hexdigest()
"""

UNKNOWN = f"""
import json, sys
import numba
numba.__version__ = "0.99.0"
{DIGESTS}
from fastml.kernels.runtime import jit
digests = [digest(key) for key in sys.argv[1:]]
counts = jit.stats().values()
print(json.dumps([digests, sum(c["hits"] for c in counts), sum(c["misses"] for c in counts), jit._IS_TRIED]))
"""


def in_numbas_way(cache, keys) -> tuple[list[str], int, int]:
    digests, hits, misses, tried = json.loads(run_python(UNKNOWN, *keys, NUMBA_CACHE_DIR=str(cache)))
    assert not tried
    return digests, hits, misses


def in_our_way(keys) -> list[str]:
    namespace: dict = {}
    exec(DIGESTS, namespace)
    assert jit._IS_TRIED
    return [namespace["digest"](key) for key in keys]


def test_a_numba_that_is_not_known_gives_the_same_and_keeps_it(tmp_path):
    first, hits, misses = in_numbas_way(tmp_path, CHEAP)
    assert hits == 0 < misses
    assert in_numbas_way(tmp_path, CHEAP) == (first, misses, 0)
    assert first == in_our_way(CHEAP)


@pytest.mark.slow
def test_all_families_have_the_same_bits_in_numbas_way(tmp_path):
    digests, _, _ = in_numbas_way(tmp_path, DEAR)
    assert dict(zip(DEAR, digests, strict=True)) == dict(zip(DEAR, in_our_way(DEAR), strict=True))
