"""Which rows may be neighbors: the result is that of a search among them alone, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastml.kernels import k_nearest
from fastml.kernels.distances.arguments import METRICS
from fastml.kernels.neighbors import candidates
from fastml.kernels.neighbors.nearest import k_nearest_outside_group
from fastml.kernels.reference import loops, vectorized
from fastml.kernels.runtime.jit import jit_enabled

DTYPES = ("float32", "float64", "uint8")


def same(one, other) -> bool:
    return all(a.tobytes() == b.tobytes() and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def by_filtering(X, Y, k, allowed, **options):
    """Return the neighbors of each row of X among the rows of Y that `allowed` (n, m) says, by searches among these."""
    found = []
    for i in range(len(X)):
        rows = np.flatnonzero(allowed[i])
        width = min(k, len(rows))
        distances = k_nearest(X[i : i + 1], Y[: max(1, width)], max(1, width), algorithm="brute", **options)[0][0]
        indices = np.full(k, -1)
        distances = np.full(k, np.inf if distances.dtype.kind == "f" else np.iinfo(np.int32).max, distances.dtype)
        if width:
            own = k_nearest(X[i : i + 1], Y[rows], width, algorithm="brute", **options)
            distances[:width], indices[:width] = own[0][0], rows[own[1][0]]
        found.append((distances, indices))
    return tuple(np.stack(part) for part in zip(*found, strict=True))


def meant(n, m, *, exclude_self=False, offset=None, groups=None, within_groups=False, where=None):
    allowed = np.ones((n, m), bool)
    if where is not None:
        allowed &= where
    if groups is not None:
        allowed &= np.equal.outer(*groups) == within_groups
    if exclude_self:
        allowed[np.arange(n), (offset or 0) + np.arange(n)] = False
    return allowed


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_the_result_is_that_of_filtering(data):
    """Any of the arguments together, with ties, NaN, queries with few candidates, any way to search."""
    dtype, metric = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(list(METRICS)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    m, d = data.draw(st.sampled_from([3, 20, 90])), data.draw(st.integers(1, 3))
    n = data.draw(st.integers(1, min(m, 12)))
    Y = rng.integers(0, 4, (m, d)).astype(dtype)
    if dtype != "uint8" and data.draw(st.booleans()):
        Y[rng.integers(m)] = np.nan
    options = {}
    first = data.draw(st.integers(0, m - n))
    X = Y[first : first + n].copy()
    if data.draw(st.booleans()):
        options |= {"exclude_self": True, "offset": first}
    if data.draw(st.booleans()):
        y_groups = rng.integers(-1, 3, m)
        x_groups = y_groups[first : first + n] if data.draw(st.booleans()) else rng.integers(-1, 4, n)
        options |= {"groups": (x_groups, y_groups), "within_groups": data.draw(st.booleans())}
    most = m
    if data.draw(st.booleans()):
        options["where"] = rng.random(m) < data.draw(st.sampled_from([0.2, 0.8, 1.0]))
        most = int(options["where"].sum())
    most -= "exclude_self" in options
    if most < 1:
        return
    k = data.draw(st.integers(1, min(most, 9)))
    if n == m and data.draw(st.booleans()):
        X = Y
    way = data.draw(st.sampled_from(["auto", "brute", "tree"]))
    found = k_nearest(X, Y, k, metric=metric, algorithm=way, n_threads=data.draw(st.integers(1, 3)), **options)
    want = by_filtering(X, Y, k, meant(n, m, **options), metric=metric)
    assert same(found, want)
    for tier in (loops, vectorized):
        distances, indices = tier.k_nearest(X, Y, k, metric=metric, algorithm=way, **options)
        assert np.array_equal(indices, want[1])
        assert distances.dtype == want[0].dtype
        np.testing.assert_allclose(distances, want[0], rtol=1e-6)


@pytest.mark.skipif(not jit_enabled(), reason="takes long as Python")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("n", "m", "d", "k", "algorithm"),
    [
        (2100, 2100, 416, 2, "brute"),  # each pair once
        (70, 9000, 512, 3, "brute"),  # bounds
        (400, 400, 3, 300, "brute"),  # selection
        (3000, 3000, 2, 4, "tree"),
        (3, 9000, 4, 5, "brute"),  # Y in parts
    ],
)
def test_every_way_to_search(rng, metric, n, m, d, k, algorithm):
    Y = rng.integers(0, 50, (m, d)).astype(np.float32)
    X = Y if n == m else Y[5 : 5 + n]
    first = 0 if n == m else 5
    y_groups = rng.integers(0, 4, m)
    x_groups = y_groups[first : first + n]
    where = rng.random(m) < 0.9
    some = np.sort(rng.choice(n, min(n, 12), replace=False))
    for options in (
        {"groups": (x_groups, y_groups)},
        {"groups": (x_groups, y_groups), "within_groups": True},
        {"groups": (x_groups, y_groups), "within_groups": True, "exclude_self": True, "offset": first},
        {"groups": ((x_groups + 1) % 4, y_groups), "exclude_self": True, "offset": first},
        {"where": where},
        {"where": where, "exclude_self": True, "offset": first},
        {"where": where, "groups": (x_groups, y_groups)},
    ):
        found = k_nearest(X, Y, k, metric=metric, algorithm=algorithm, n_threads=2, **options)
        allowed = meant(n, m, **options)[some]
        assert same([part[some] for part in found], by_filtering(X[some], Y, k, allowed, metric=metric)), options


def test_a_query_without_candidates(rng):
    """Few rows of the own group: index -1 and infinity, after neighbors whose distance is not a number."""
    Y = np.array([[0.0], [np.nan], [2.0]])
    options = {"groups": ([1, 5], [1, 1, 2]), "within_groups": True}
    distances, indices = k_nearest([[0.5], [0.5]], Y, 3, **options)
    np.testing.assert_array_equal(indices, [[0, 1, -1], [-1, -1, -1]])
    np.testing.assert_array_equal(distances, [[0.5, np.nan, np.inf], [np.inf] * 3])
    bytes_ = Y[[0, 2, 2]].astype(np.uint8)
    distances, _ = k_nearest(bytes_[:1], bytes_, 3, metric="l1", groups=([1], [1, 1, 2]))
    np.testing.assert_array_equal(distances, [[2, 2**31 - 1, 2**31 - 1]])
    assert distances.dtype == np.int32


def test_batches_leave_out_their_own_rows(rng):
    Y = rng.integers(0, 3, (50, 2)).astype(np.float32)
    want = k_nearest(Y, None, 4, exclude_self=True)
    parts = [k_nearest(Y[first : first + 20], Y, 4, exclude_self=True, offset=first) for first in (0, 20, 30)]
    assert same([np.concatenate([parts[0][i], parts[1][i][:10], parts[2][i]]) for i in (0, 1)], want)


def test_outside_groups_is_what_cross_validation_asks(rng):
    X, groups = rng.random((60, 3)), rng.integers(0, 3, 60)
    assert same(k_nearest(X, None, 5, groups=(groups, groups)), k_nearest_outside_group(X, groups, 5))


def test_only_pairs_of_one_group_are_looked_at(monkeypatch, rng):
    seen = []

    def search(x, x_groups, y, y_groups, k, n_threads):
        seen.append(len(x) * len(y))
        return k_nearest(x, y, k)

    X, groups = rng.random((40, 2)), np.repeat(np.arange(8), 5)
    chosen = candidates.checked(2, 40, 40, groups=(groups, groups), within_groups=True)[1]
    candidates.find(chosen, "l2", X.dtype, X, X, 2, 1, search)
    assert seen == [25] * 8


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"groups": np.arange(4)}, TypeError, "groups must be a pair"),
        ({"groups": (np.arange(3), np.arange(4))}, ValueError, r"groups\[1\] has shape \(4,\); it must be \(6,\)"),
        ({"groups": (np.ones(3), np.arange(6))}, TypeError, r"groups\[0\] has dtype float64; groups must be integers"),
        ({"groups": (np.full(3, 2**63, np.uint64), np.arange(6))}, ValueError, "beyond the range of int64"),
        ({"within_groups": True}, ValueError, "within_groups is True; it needs groups"),
        ({"within_groups": 1}, TypeError, "within_groups is 1"),
        ({"where": np.ones(3, bool)}, ValueError, r"where has shape \(3,\); it must be \(6,\)"),
        ({"where": np.ones(6)}, TypeError, "where has dtype float64; it must be bool"),
        ({"where": np.arange(6) < 1}, ValueError, "k is 2; it must be at most 1: `where` leaves 1 rows of Y"),
        (
            {"where": np.arange(6) < 2, "exclude_self": True, "offset": 1},
            ValueError,
            "k is 2; it must be at most 1: `where` leaves 2 rows of Y, of which each query leaves out one",
        ),
        ({"offset": 1}, ValueError, "offset is 1; it says which row of Y is query 0"),
        ({"offset": True, "exclude_self": True}, TypeError, r"offset is True \(bool\); it must be an integer"),
        ({"offset": 4, "exclude_self": True}, ValueError, "offset is 4; the 3 rows of Y from there on"),
        ({"offset": -1, "exclude_self": True}, ValueError, "offset is -1"),
        ({"exclude_self": True}, ValueError, "exclude_self needs as many rows in Y as in X, or an offset"),
    ],
)
def test_what_does_not_fit_is_refused(ops, options, error, message):
    with pytest.raises(error, match=message):
        ops.k_nearest(np.ones((3, 2)), np.ones((6, 2)), 2, **options)
