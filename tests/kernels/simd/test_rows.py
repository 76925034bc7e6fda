"""Rows in vector code against their NumPy twins."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numba.core.errors import TypingError

from fastml.kernels.runtime.jit import inner
from fastml.kernels.simd.rows import apart, copy, frozen, prefetch

pytestmark = pytest.mark.needs_jit


def test_prefetch_touches_nothing(rng):
    run = inner(lambda X, first, last: prefetch(X, first, last))
    X = rng.normal(size=(5, 33)).astype("f4")
    before = X.copy()
    for first, last in ((0, 5), (4, 4), (5, 5), (9, 5), (0, 0)):
        run(X, first, last)
    run(X[:0], 0, 0)
    assert X.tobytes() == before.tobytes()


@pytest.mark.parametrize("shape", [(0,), (1,), (33,), (3, 0), (3, 5), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "i4"])
def test_arrays_are_copied_as_the_twin_does(rng, shape, dtype):
    source = rng.integers(-100, 100, shape).astype(dtype)
    source.flags.writeable = False
    target, twins = np.zeros((2, *shape), dtype), np.zeros((2, *shape), dtype)
    inner(lambda source, target: copy(source, target[1]))(source, target)
    copy.twin(source, twins[1])
    assert target.tobytes() == twins.tobytes()


def test_a_tuple_is_copied_with_its_numbers_converted():
    target = np.zeros(6)
    inner(lambda n, x, target: copy((n, x, True, -1), target[1:5]))(3, np.float32(0.5), target)
    assert target.tolist() == [0, 3, 0.5, 1, -1, 0]


def test_what_would_not_be_a_plain_copy_is_refused():
    run = inner(lambda source, target: copy(source, target))
    x = np.zeros((4, 4))
    for source, target in ((x, x.astype("f4")), (x, x.T), (x.T, x.T), (x[0], x), (x[:, 0], x[0])):
        with pytest.raises(TypingError):
            run(source, target)


@pytest.mark.parametrize("begins", [True, False])
def test_what_begins_apart_is_not_inlined(begins):
    def fourth_power_apart(x):
        if begins:  # known while it is compiled
            apart()
        return x * x * x * x

    power = inner(fourth_power_apart)
    run = inner(lambda x: power(x))
    assert run(2.0) == 16
    defined = re.findall(r"^define .*fourth_power_apart.*", run.inspect_llvm(run.signatures[0]), flags=re.MULTILINE)
    assert any("lambda" not in line for line in defined) is begins
    assert apart.twin() is None


def test_frozen_arrays_are_the_same_memory_in_one_form():
    takes = inner(lambda x: x[0])
    run = inner(lambda x: takes(frozen(x)))
    x = np.arange(3.0)
    y = x.copy()
    y.flags.writeable = False
    assert (run(x), run(y)) == (0, 0)
    ((kind,),) = takes._callee.signatures  # as compiled code calls it
    assert not kind.mutable
    assert np.shares_memory(inner(lambda x: frozen(x))(x), x)
    assert frozen.twin(x) is x
