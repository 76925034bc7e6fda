"""How pairwise distances are cut into tasks: all pairs once, no thread idle, nothing that grows with n_threads."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fastml.kernels import pairwise_l1
from fastml.kernels.distances import panels
from fastml.kernels.distances.pairwise import _tasks

SIZES = (1, 2, 95, 96, 97, 200, 1007, 1008, 1009, 2000, 5000)


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 8, 64])
@pytest.mark.parametrize("symmetric", [False, True])
def test_every_pair_is_in_one_task(threads, symmetric):
    for n, m, d in itertools.product(SIZES, SIZES, (1, 784, 100_000)):
        if symmetric and n != m:
            continue
        tasks = _tasks(n, m, d, symmetric, threads, 960)
        area = sum((last - first) * (y_last - y_first) for first, last, y_first, y_last in tasks)
        if symmetric:
            assert all(y_last > first for first, _, _, y_last in tasks)
            assert n * m / 2 <= area <= n * m
        else:
            assert area == n * m
            assert len(set(tasks)) == len(tasks)
            # Each thread has a task, unless rows and panels are too few.
            assert len(tasks) >= min(threads, max(1, n // 64))
        assert max(last - first for first, last, *_ in tasks) <= panels.TASK_ROWS


def test_more_threads_than_there_is_work():
    assert len(_tasks(1000, 1000, 784, False, 10**9, 960)) <= 1000 // 64 * 11 + 11


@pytest.mark.parametrize("n_threads", [None, 1, 2])
@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 5), (5, 0), (1100, 0), (0, 1100)])
def test_empty_sides(n, m, n_threads):
    X, Y = np.zeros((n, 3)), np.zeros((m, 3))
    assert pairwise_l1(X, Y, n_threads=n_threads).shape == (n, m)
    assert pairwise_l1(X, n_threads=n_threads).shape == (n, n)
