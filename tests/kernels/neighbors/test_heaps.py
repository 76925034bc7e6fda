"""Heaps do not suffer from rows that come in some order: the same neighbours, in about the same time."""

from __future__ import annotations

import time

import numpy as np
import pytest

from fastml.kernels import k_nearest
from fastml.kernels.distances import panels
from fastml.kernels.runtime.jit import jit_enabled


def orders(rng, n: int) -> dict[str, np.ndarray]:
    near_middle = np.argsort(np.abs(np.arange(n) - n // 2), kind="stable")
    return {
        "ascending": np.arange(n),
        "descending": np.arange(n)[::-1],
        "to the middle": near_middle,
        "from the middle": near_middle[::-1],
        "rotated": np.roll(np.arange(n), n // 3),
    }


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_neighbors_do_not_depend_on_the_order_of_rows(rng, dtype):
    """Ties too go to the smaller index, whichever row is looked at first."""
    n = 3000 if jit_enabled() else 300
    Y = np.sort(rng.integers(0, 200, (n, 1))).repeat(2, axis=1)[np.argsort(rng.random(n))]
    for order in orders(rng, n).values():
        rows = np.sort(Y, axis=0)[order].astype(dtype)
        X = rows[:: n // 7]
        gaps = np.abs(X[:, :1].astype(float) - rows[:, 0].astype(float))
        for k in (1, 5, 40):
            for n_threads in (1, 3):
                found = k_nearest(X, rows, k, n_threads=n_threads)[1]
                assert (found == np.argsort(gaps, axis=1, kind="stable")[:, :k]).all()
                assert (k_nearest(X[:1], rows, k, n_threads=n_threads)[1] == found[:1]).all()


def test_scattered_visits_every_item_once():
    for count in (*range(1, 70), 1000):
        items = list(panels.scattered(range(count)))
        assert sorted(items) == list(range(count))
        assert items[:2] == [0, count - 1][:count]
        nearer = np.minimum.accumulate(np.abs(np.array(items) - count // 2))
        assert len(np.unique(nearer)) <= 5 + count**0.5, "too many items are nearer than all before"
    assert list(panels.scattered([])) == []


def seconds(work) -> float:
    taken = []
    for _ in range(7):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return min(taken)


@pytest.mark.needs_jit
@pytest.mark.parametrize("k", [5, 50])
@pytest.mark.parametrize("queries", [1, 100])
def test_rows_in_order_take_about_as_long_as_others(rng, queries, k):
    """In order of time, with queries after the last: it took thirty times as long."""
    times = np.arange(40_000, dtype=np.float32)[:, np.newaxis]
    X = times[-1] + 1 + np.arange(queries, dtype=np.float32)[:, np.newaxis]
    mixed = times[rng.permutation(len(times))]
    shuffled = seconds(lambda: k_nearest(X, mixed, k, n_threads=1))
    for order in orders(rng, len(times)).values():
        rows = times[order]
        assert seconds(lambda rows=rows: k_nearest(X, rows, k, n_threads=1)) < 4 * shuffled + 2e-4


@pytest.mark.needs_jit
def test_rows_in_order_among_themselves_and_with_bounds(rng):
    steps = np.arange(4000)[:, np.newaxis] / 200
    X = (steps + 0.1 * rng.normal(size=(4000, 250))).astype(np.float32)
    mixed = X[rng.permutation(4000)]
    times = [
        seconds(lambda rows=rows: k_nearest(rows, rows, 10, exclude_self=True, n_threads=1)) for rows in (X, mixed)
    ]
    assert times[0] < 1.8 * times[1]
    Y = (np.arange(20_000)[:, np.newaxis] / 200 + rng.normal(size=(20_000, 256))).astype(np.float32)
    queries, mixed = (100 + rng.normal(size=(500, 256))).astype(np.float32), Y[rng.permutation(20_000)]
    times = [seconds(lambda rows=rows: k_nearest(queries, rows, 10, metric="l1", n_threads=1)) for rows in (Y, mixed)]
    assert times[0] < 3 * times[1]
