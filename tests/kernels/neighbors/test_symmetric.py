"""Neighbours among the rows themselves: the same as when every row is compared with every other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fastml.kernels import k_nearest
from fastml.kernels.distances.arguments import METRICS
from fastml.kernels.neighbors import _symmetric
from fastml.kernels.neighbors.nearest import k_nearest_outside_group
from fastml.kernels.runtime.jit import jit_enabled


def same(one, other) -> bool:
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(one, other, strict=True))


@pytest.fixture
def symmetric(monkeypatch):
    """``symmetric(on)``: make every distance once for both rows, always or never."""
    return lambda on: monkeypatch.setattr(_symmetric, "is_worthwhile", lambda *_: on)


def rows_with_ties(rng, n: int, d: int, dtype: str) -> np.ndarray:
    X = rng.integers(0, 5, (n, d)).astype(dtype)  # few values: many distances are equal
    X[n // 2] = X[0]
    X[n // 3 : n // 3 + 5] = X[n - 1]
    if dtype != "uint8" and d:
        X[n // 4], X[n // 5, 0] = np.nan, np.inf
    return X


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("metric", METRICS)
def test_same_bits_as_all_against_all(rng, symmetric, metric, dtype):
    # Without compilation the few smallest; the others reach several panels and rows that fill no tile.
    for n, d in ((2, 3), (3, 1), (9, 0), (40, 9), (97, 9), (200, 17), (500, 3))[: None if jit_enabled() else 4]:
        X = rows_with_ties(rng, n, d, dtype) if n > 9 else rng.integers(0, 3, (n, d)).astype(dtype)
        for k, exclude_self in {(1, False), (1, True), (2, False), (n - 1, True), (n, False)}:
            symmetric(False)
            want = k_nearest(X, X, k, metric=metric, exclude_self=exclude_self)
            symmetric(True)
            for n_threads in (None, 1, 2, 3):
                got = k_nearest(X, X, k, metric=metric, exclude_self=exclude_self, n_threads=n_threads)
                assert same(got, want), (n, d, k, exclude_self, n_threads)


@pytest.mark.needs_jit
@pytest.mark.parametrize("metric", METRICS)
def test_groups(rng, symmetric, metric):
    X, groups = rows_with_ties(rng, 300, 4, "float32"), rng.integers(0, 4, 300)
    found = []
    for on in (False, True):
        symmetric(on)
        told: list[int] = []
        found.append(k_nearest_outside_group(X, groups, 20, metric=metric, n_threads=2, progress=told.append))
        assert sum(told) == len(X)
    assert same(*found)
    assert (groups[found[0][1]] != groups[:, np.newaxis]).all()


@pytest.mark.needs_jit
def test_blocks_of_more_than_a_thousand_rows(rng, symmetric):
    """Several blocks for a thread, several panels in a block, rows that are no multiple of anything."""
    X = rng.normal(size=(4501, 5))
    symmetric(False)
    want = k_nearest(X, X, 3)
    symmetric(True)
    for n_threads in (1, 2):
        assert same(k_nearest(X, X, 3, n_threads=n_threads), want)


def test_every_pair_of_blocks_meets_once():
    for n_blocks in (2, 4, 10, 16):
        rounds = list(_symmetric._round_robin(n_blocks))
        met = [pair for meetings in rounds for pair in meetings]
        assert sorted(met) == sorted(itertools.combinations_with_replacement(range(n_blocks), 2))
        for meetings in rounds[1:]:
            assert len({block for pair in meetings for block in pair}) == 2 * len(meetings), "two at one block"


def test_it_is_used_where_rows_are_many_and_long():
    assert _symmetric.is_worthwhile(np.empty((5000, 3072), np.uint8), 30, 2)
    assert not _symmetric.is_worthwhile(np.empty((100, 3072), np.uint8), 5, 2)
    assert not _symmetric.is_worthwhile(np.empty((5000, 2), np.float64), 5, 2)
    assert not _symmetric.is_worthwhile(np.empty((5000, 784), np.uint8), 500, 2)
    assert not _symmetric.is_worthwhile(np.empty((5000, 3072), np.uint8), 30, 64)  # blocks would be small
