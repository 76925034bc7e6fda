"""Neighbours in great numbers: the k smallest of blocks of keys are those that heaps find."""

from __future__ import annotations

import time

import numpy as np
import pytest

from fastml.kernels import k_nearest
from fastml.kernels.distances.arguments import METRICS
from fastml.kernels.neighbors import _selection
from fastml.kernels.neighbors.nearest import k_nearest_outside_group

DTYPES = ("float32", "float64", "uint8")


def same(one, other) -> bool:
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(one, other, strict=True))


@pytest.fixture
def selection(monkeypatch):
    """``selection(on)``: select from blocks of 50 rows, or of two for a neighbour, always or never."""
    monkeypatch.setattr(_selection, "_PART_ROWS", 50)
    monkeypatch.setattr(_selection, "_PART_ROWS_PER_NEIGHBOR", 2)
    return lambda on: monkeypatch.setattr(_selection, "is_worthwhile", lambda *_: on)


def rows_with_ties(rng, n: int, d: int, dtype: str) -> np.ndarray:
    X = rng.integers(0, 5, (n, d)).astype(dtype)
    if dtype != "uint8":
        X[n // 4], X[n // 5, 0], X[n // 3] = np.nan, np.inf, 1e-30
    return X


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_same_bits_as_heaps(rng, selection, metric, dtype):
    X, Y = rows_with_ties(rng, 30, 4, dtype), rows_with_ties(rng, 170, 4, dtype)
    for k in (1, 20, 49, 50, 51, 169, 170):
        selection(False)
        want = k_nearest(X, Y, k, metric=metric)
        selection(True)
        for n_threads in (None, 1, 2, 3):
            assert same(k_nearest(X, Y, k, metric=metric, n_threads=n_threads), want), (k, n_threads)


@pytest.mark.parametrize("dtype", DTYPES)
def test_groups_are_left_out(rng, selection, dtype):
    X, groups = rows_with_ties(rng, 130, 3, dtype), rng.integers(0, 4, 130)
    groups[:100] = 0  # rows of this group have 30 candidates at most
    for k in (5, 60):
        found = []
        for on in (False, True):
            selection(on)
            found.append(k_nearest_outside_group(X, groups, k, n_threads=2))
            found[-1] += tuple(k_nearest(X, X, k, exclude_self=True))
        valid = found[0][1] < 130
        assert same([found[0][1], found[0][0][valid], *found[0][2:]], [found[1][1], found[1][0][valid], *found[1][2:]])
        assert not valid.all() or k == 5


def test_it_is_used_for_many_neighbors_of_many_pairs():
    assert _selection.is_worthwhile(200, 20_000, 5_000)
    assert not _selection.is_worthwhile(200, 20_000, 100)
    assert not _selection.is_worthwhile(1, 100, 100)
    assert not _selection.is_worthwhile(10_000, 63, 63)


@pytest.mark.needs_jit
def test_time_for_all_neighbors_is_that_of_a_sort(rng):
    """With heaps it took ten times as long as making the distances and sorting them."""
    X, Y = rng.normal(size=(20, 4)).astype("f4"), rng.normal(size=(20_000, 4)).astype("f4")
    D = ((X[:, np.newaxis] - Y) ** 2).sum(axis=2)

    def seconds(work) -> float:
        taken = []
        for _ in range(5):
            begin = time.process_time()
            work()
            taken.append(time.process_time() - begin)
        return min(taken)

    assert seconds(lambda: k_nearest(X, Y, 20_000, n_threads=1)) < seconds(lambda: np.argsort(D, kind="stable", axis=1))
