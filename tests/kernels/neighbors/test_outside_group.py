"""Nearest rows outside a group: the same as by a search over the rows that are left."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastml.kernels import k_nearest
from fastml.kernels.distances import arguments
from fastml.kernels.neighbors.nearest import _nearest, k_nearest_outside_group
from fastml.kernels.reference import vectorized

METRICS = tuple(arguments.METRICS)


@pytest.mark.parametrize("n_threads", [1, 2])
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_search_outside_the_group(n_threads, data):
    """With groups the search is the one among the other groups' rows, also with ties, NaN, and few queries."""
    n, m, d = data.draw(st.integers(1, 9)), data.draw(st.sampled_from([7, 40, 300])), data.draw(st.integers(0, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    metric = data.draw(st.sampled_from(METRICS))
    X, Y = rng.integers(0, 4, (n, d)).astype(float), rng.integers(0, 4, (m, d)).astype(float)
    if d and data.draw(st.booleans()):
        Y[rng.integers(m)] = np.nan
    x_groups, y_groups = rng.integers(0, 4, n), rng.integers(0, 3, m)
    smallest = min(int((y_groups != group).sum()) for group in x_groups)
    if smallest == 0:
        return
    k = data.draw(st.integers(1, min(smallest, 20)))
    distances, indices = _nearest(metric, X, x_groups, Y, y_groups, k, n_threads)
    for i in range(n):
        rows = np.flatnonzero(y_groups != x_groups[i])
        expected = vectorized.k_nearest(X[[i]], Y[rows], k, metric=metric)
        assert np.array_equal(indices[i], rows[expected[1][0]])
        np.testing.assert_allclose(distances[i], expected[0][0], rtol=1e-15)


def test_search_outside_the_group_with_y_cut_into_parts(rng):
    Y = rng.integers(0, 3, (6000, 2)).astype(np.uint8)
    groups = rng.integers(0, 3, 6000)
    for n_threads in (1, 4):
        _, indices = _nearest("l2", Y[:5], groups[:5], Y, groups, 40, n_threads)
        for i in range(5):
            rows = np.flatnonzero(groups != groups[i])
            assert np.array_equal(indices[i], rows[k_nearest(Y[[i]], Y[rows], 40)[1][0]])


def test_a_group_for_each_row_is_exclude_self(rng):
    X = rng.integers(0, 4, (400, 2)).astype(np.float32)
    own = np.arange(400)
    for found, expected in zip(
        k_nearest_outside_group(X, own, 7, metric="l1"),
        k_nearest(X, X, 7, metric="l1", exclude_self=True),
        strict=True,
    ):
        assert np.array_equal(found, expected)
