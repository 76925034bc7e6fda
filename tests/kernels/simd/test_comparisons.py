"""Comparisons of keys against their NumPy twins."""

from __future__ import annotations

import numpy as np
import pytest

from fastml.kernels.runtime.jit import inner
from fastml.kernels.simd import comparisons

pytestmark = pytest.mark.needs_jit


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_below_agrees_with_its_twin(rng, dtype):
    @inner
    def run(keys, at, threshold, mask, ceiling):
        return comparisons.below(keys, at, threshold, mask, ceiling)

    info = np.iinfo(dtype)
    interesting = np.array([info.min, info.min + 1, -1, 0, 1, 2, 5, info.max - 1, info.max])
    for _ in range(200):
        keys = rng.choice(interesting, 3 * comparisons.KEYS_AT_ONCE).astype(dtype)
        some = rng.random(keys.size) < 0.5
        keys[some] = rng.integers(info.min, info.max, int(some.sum()), dtype=dtype)
        at = int(rng.integers(0, 2 * comparisons.KEYS_AT_ONCE))
        threshold, ceiling = (int(value) for value in rng.choice(interesting[interesting >= 0], 2))
        mask = int(rng.choice([info.max, -1]))
        arguments = keys, at, threshold, mask, ceiling
        assert run(*arguments) == comparisons.below.twin(*arguments), arguments


def test_below_orders_the_bits_of_floats_as_neighbors_are_ordered():
    """Zero of either sign, then numbers, then infinity, then every NaN alike."""

    @inner
    def run(keys, at, threshold, mask, ceiling):
        return comparisons.below(keys, at, threshold, mask, ceiling)

    values = np.full(comparisons.KEYS_AT_ONCE, np.inf, np.float32)
    values[:5] = [-0.0, 0.0, 1.0, np.nan, -np.nan]
    keys = values.view(np.int32)
    mask, nan = np.iinfo(np.int32).max, int(np.float32(np.nan).view(np.int32))

    def places(threshold: float) -> list[int]:
        bits = run(keys, 0, int(np.float32(threshold).view(np.int32)), mask, nan)
        return [place for place in range(comparisons.KEYS_AT_ONCE) if bits >> place & 1]

    assert places(0.5) == [0, 1]
    assert places(np.inf) == [0, 1, 2]
    assert places(np.nan) == [place for place in range(comparisons.KEYS_AT_ONCE) if place not in (3, 4)]


def test_lowest_bit_agrees_with_its_twin(rng):
    @inner
    def run(bits):
        return comparisons.lowest_bit(bits)

    single = [1 << place for place in range(63)]
    more = [int(value) for value in rng.integers(1, 2**63 - 1, 500)]
    for bits in [*single, -(2**63), -1, -2, *more]:
        assert run(bits) == comparisons.lowest_bit.twin(bits), bits
    assert [run(bits) for bits in single] == list(range(63))
