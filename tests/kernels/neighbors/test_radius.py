"""Rows within a radius: those whose distances, as the pairwise functions return them, are at most it, in order."""

from __future__ import annotations

import itertools
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastml import kernels
from fastml.kernels import k_nearest, radius_counts, radius_neighbors
from fastml.kernels.distances import panels, scales
from fastml.kernels.distances.arguments import METRICS
from fastml.kernels.neighbors import _tree, _within, radius
from fastml.kernels.reference import loops, vectorized
from fastml.kernels.runtime import parallel
from fastml.kernels.runtime.jit import jit_enabled

DTYPES = ("float32", "float64", "uint8")
FLOATS = DTYPES[:2]
PAIRWISE = {metric: getattr(kernels, f"pairwise_{metric}") for metric in METRICS}
WAYS = ("brute", "tree")


def rows(rng: np.random.Generator, n: int, d: int, dtype: str) -> np.ndarray:
    """Draw rows with many ties."""
    return rng.integers(0, 9, (n, d)).astype(dtype)


def parts(found) -> list[np.ndarray]:
    indptr, indices, _ = found
    return [indices[begin:end] for begin, end in itertools.pairwise(indptr)]


def check(X, Y, radius, metric, exclude_self=False, **options):
    """Compare with all distances, of which those to be found are told by NumPy, and with the order of `k_nearest`."""
    options |= {"metric": metric, "exclude_self": exclude_self}
    distances = PAIRWISE[metric](X, Y)
    inside = distances.astype(np.float64) <= np.broadcast_to(radius, len(X))[:, np.newaxis]
    if exclude_self:
        np.fill_diagonal(inside, False)
    indptr, indices, found = result = radius_neighbors(X, Y, radius, **options)
    assert [indptr.dtype, indices.dtype, found.dtype] == [np.intp, np.intp, distances.dtype]
    assert np.array_equal(np.diff(indptr), inside.sum(axis=1))
    assert indptr[0] == 0
    assert np.array_equal(radius_counts(X, Y, radius, **options), inside.sum(axis=1))
    if not indices.size:
        return
    _, order = k_nearest(X, Y, distances.shape[1], metric=metric, algorithm="brute")
    want = np.concatenate([own[inside[i, own]] for i, own in enumerate(order)])
    assert np.array_equal(indices, want)
    owners = np.repeat(np.arange(len(X)), np.diff(indptr))
    assert found.tobytes() == distances[owners, indices].tobytes(), "other bits"
    assert len(parts(result)) == len(X)


@pytest.mark.parametrize("algorithm", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_pairs_are_those_of_all_distances(rng, metric, dtype, algorithm):
    for n, m, d in ((5, 70, 3), (90, 333, 9), (1, 1100, 2), (33, 33, 1), (3, 0, 2), (0, 4, 2), (3, 5, 0)):
        if not jit_enabled() and m > 100:
            continue
        X, Y = rows(rng, n, d, dtype), rows(rng, m, d, dtype)
        for r in (0, 1, 2.5, 4, np.inf, rng.random(n) * 20):
            check(X, Y, r, metric, algorithm=algorithm)
            if n == m:
                check(X, X, r, metric, exclude_self=True, algorithm=algorithm)
                check(X, Y, r, metric, exclude_self=True, algorithm=algorithm)


@pytest.mark.parametrize("tier", ["loops", "vectorized"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_tiers_agree(rng, ops, metric, dtype):
    X, Y = rows(rng, 9, 4, dtype), rows(rng, 40, 4, dtype)
    for r in (0, 3, np.inf, np.arange(9)):
        for options in ({}, {"exclude_self": True}):
            other = Y[:9] if options else Y
            want = radius_neighbors(X, other, r, metric=metric, **options)
            got = ops.radius_neighbors(X, other, r, metric=metric, **options)
            for one, two in zip(got, want, strict=True):
                assert one.dtype == two.dtype
                np.testing.assert_array_max_ulp(one, two, 1) if one.dtype.kind == "f" else np.array_equal(one, two)
            assert np.array_equal(got[1], want[1])
            assert np.array_equal(ops.radius_counts(X, other, r, metric=metric, **options), np.diff(want[0]))


@pytest.mark.parametrize("algorithm", WAYS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("metric", METRICS)
def test_a_radius_that_is_a_distance_is_within_and_the_number_before_it_is_not(rng, metric, dtype, algorithm):
    X, Y = (rng.standard_normal((n, 7)).astype(dtype) for n in (20, 60))
    distances = PAIRWISE[metric](X, Y)
    nearest = np.sort(distances, axis=1)[:, 4]
    for r, count in ((nearest, 5), (np.nextafter(nearest.astype(np.float64), 0), 4)):
        assert (radius_counts(X, Y, r, metric=metric, algorithm=algorithm) == count).all()
        check(X, Y, r, metric, algorithm=algorithm)


def test_a_radius_is_compared_as_a_number():
    X, Y = np.float32([[0]]), np.float32([[0.1]])  # which is larger than 0.1
    for tier in (kernels, loops, vectorized):
        assert tier.radius_counts(X, Y, 0.1).tolist() == [0]
        assert tier.radius_counts(X, Y, np.float32(0.1)).tolist() == [1]


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_limits_are_the_largest_keys_within(data):
    metric, dtype = data.draw(st.sampled_from(list(METRICS))), np.dtype(data.draw(st.sampled_from(DTYPES)))
    d = data.draw(st.sampled_from([1, 3, 784, 40_000]))
    ordinary, bounds = panels.limits(metric, dtype, d)
    least, most = (float(np.sqrt(bound)) for bound in ordinary)
    radii = np.array(data.draw(st.lists(st.floats(0, 1e300), min_size=1, max_size=5)))
    if METRICS[metric].root and dtype.kind == "f":
        radii = np.clip(radii, least, np.nextafter(most, 0))  # others are looked at below
    limits = _within.limits(metric, dtype, d, radii)
    for limit, r in zip(limits, radii, strict=True):
        totals = np.array([limit, limit + 1], bounds.dtype).view(ordinary.dtype)
        own, above = _within.distances(metric, totals)
        assert own <= r
        assert above > r or limit == (bounds[1] if dtype.kind == "f" else d * METRICS[metric].largest_byte_step)


@pytest.mark.parametrize("algorithm", WAYS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.filterwarnings("ignore:invalid value")
def test_squares_beyond_the_range_of_the_dtype(rng, dtype, algorithm):
    small, large = (1e-25, 1e25) if dtype == "float32" else (1e-200, 1e200)
    border = scales.ordinary(np.dtype(dtype), 3)
    for sizes in ((0, small, 1, large), tuple(np.sqrt(border))):
        X, Y = (rng.standard_normal((n, 3)) * rng.choice(sizes, (n, 1)) for n in (30, 30))
        X, Y = X.astype(dtype), Y.astype(dtype)
        Y[:5], X[7, 0], Y[8, -1] = X[:5], np.inf, np.nan
        distances = kernels.pairwise_l2(X, Y)
        finite = distances[np.isfinite(distances)].astype(np.float64)
        radii = [0, small, 1, large, np.inf, *np.sqrt(border), *rng.choice(finite, 8)]
        for r in (*radii, *np.nextafter(radii, 0), *np.nextafter(radii, np.inf)):
            check(X, Y, abs(r), "l2", algorithm=algorithm)
            check(X, X, abs(r), "l2", exclude_self=True, algorithm=algorithm)


@pytest.mark.parametrize("algorithm", WAYS)
@pytest.mark.parametrize("metric", METRICS)
def test_nan_is_within_no_radius_and_infinity_within_infinity(metric, algorithm):
    X = np.array([[0.0], [np.nan], [np.inf]])
    found = radius_neighbors(X, X, np.inf, metric=metric, algorithm=algorithm)
    assert [part.tolist() for part in parts(found)] == [[0, 2], [], [0]]
    assert found[2].tolist() == [0, np.inf, np.inf]
    assert radius_counts(X, X, 1e300, metric=metric, algorithm=algorithm).tolist() == [1, 0, 0]


@pytest.mark.needs_jit
@pytest.mark.parametrize("algorithm", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_are_the_same_for_any_threads_and_batches(rng, dtype, algorithm):
    X, Y = rows(rng, 2100, 3, dtype), rows(rng, 3000, 3, dtype)
    want = radius_neighbors(X, Y, 2, algorithm=algorithm, n_threads=1)
    for threads in (2, 3, 8):
        got = radius_neighbors(X, Y, 2, algorithm=algorithm, n_threads=threads)
        assert all(one.tobytes() == two.tobytes() for one, two in zip(got, want, strict=True))
    for some in (slice(5, 6), slice(40, 300)):
        indptr, indices, distances = radius_neighbors(X[some], Y, 2, algorithm=algorithm)
        own = slice(want[0][some.start], want[0][some.stop])
        assert np.array_equal(np.diff(indptr), np.diff(want[0])[some])
        assert indices.tobytes() == want[1][own].tobytes()
        assert distances.tobytes() == want[2][own].tobytes()


@pytest.mark.slow
@pytest.mark.needs_jit
@pytest.mark.parametrize("algorithm", WAYS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("room", [1, 64, 1 << 16])
def test_any_room_for_entries(rng, monkeypatch, dtype, algorithm, room):
    """Queries with more pairs than are put aside at once, than are sorted by counting, and than one block has."""
    monkeypatch.setattr(radius, "_ROOM", room)
    X, Y = rng.standard_normal((300, 2)).astype(dtype), rng.standard_normal((5000, 2)).astype(dtype)
    for r in (0.02, 0.4, 9.0):
        check(X, Y, r, "l2", algorithm=algorithm)
        check(X[:2], Y, r, "l2", algorithm=algorithm, n_threads=3)


def test_sorting(rng):
    for size in (0, 1, 2, 63, 64, 65, 127, 128, 129, 256, 257, 1000):
        keys, places = rng.integers(0, 1 + size // 3, size).astype(np.int32), rng.permutation(size).astype(np.int32)
        order = np.lexsort((places, keys))
        indices, found = np.empty(size, np.intp), np.empty(size, np.int32)
        entries = _within.Entries(places.copy(), keys.copy())
        counts, begins, turns = (np.array([value]) for value in (size, 0, 0))
        turns.setflags(write=False)
        _within.place(turns, 0, 1, counts, begins, entries, indices, found)
        assert np.array_equal(found, keys[order])
        assert np.array_equal(indices, places[order])


@pytest.mark.needs_jit
def test_small_calls_stay_in_their_thread(rng, monkeypatch):
    monkeypatch.setattr(parallel, "submit", lambda *arguments: pytest.fail("a thread of the pool is asked for help"))
    X, Y = rng.random((5, 3)), rng.random((70, 3))
    assert radius_neighbors(X, Y, 1.0)[0][-1] == radius_counts(X, Y, 1.0).sum()


@pytest.mark.needs_jit
def test_auto_makes_a_tree_where_it_pays(rng, monkeypatch):
    made = []
    build = _tree.build
    monkeypatch.setattr(_tree, "build", lambda y, threads: made.append(len(y)) or build(y, threads))
    X = rng.random((6000, 3))
    radius_counts(X, X, 0.01)
    assert made.pop() == 6000
    monkeypatch.setattr(radius, "_by_tree", lambda *arguments: pytest.fail("the tree is of no use"))
    radius_counts(X, X, 1.0)  # nearly all rows
    made.clear()
    radius_counts(X[:100], X, 0.01)
    radius_counts(X, X, 0.01, algorithm="brute")
    assert not made


@pytest.mark.needs_jit
@pytest.mark.parametrize("algorithm", WAYS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [20, 3000])
def test_memory_is_at_most_twice_the_result(rng, dtype, algorithm, n):
    X, Y = rng.random((n, 2)).astype(dtype), rng.random((3_000_000 // n, 2)).astype(dtype)
    radius_neighbors(X[:5], Y[:5], 1.0, algorithm=algorithm)
    tracemalloc.start()
    try:
        found = radius_neighbors(X, Y, 2.0, algorithm=algorithm, n_threads=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size, spare = sum(part.nbytes for part in found), 3 * Y.nbytes + (6 << 20)
    assert len(found[1]) == n * len(Y)
    assert peak < 2 * size + spare, f"peak {peak / size:.2f} times the result"


@pytest.mark.parametrize("name", ["radius_neighbors", "radius_counts"])
@pytest.mark.parametrize("tier", ["loops", "vectorized", "compiled"])
def test_what_is_refused(ops, name):
    function, X = getattr(ops, name), np.zeros((3, 2))
    for value, kind, words in (
        (-1, ValueError, "radius is -1.0; it must be at least 0"),
        (np.nan, ValueError, "radius is nan"),
        ([1, -2, 3], ValueError, r"radius\[1\] is -2.0"),
        ([1, 2], ValueError, r"radius has shape \(2,\); it must be a number or \(3,\)"),
        ("1", TypeError, "radius is '1'"),
        (None, TypeError, "radius is None"),
        (True, TypeError, "radius is True"),
        ([1j, 0, 0], TypeError, "radius has dtype complex128"),
    ):
        with pytest.raises(kind, match=words):
            function(X, X, value)
    with pytest.raises(ValueError, match="exclude_self needs as many rows"):
        function(X, X[:2], 1, exclude_self=True)
    with pytest.raises(TypeError, match="exclude_self is 1"):
        function(X, X, 1, exclude_self=1)
    with pytest.raises(ValueError, match=re.escape("metric is 'l3'")):
        function(X, X, 1, metric="l3")
    with pytest.raises(ValueError, match="algorithm is 'ball_tree'"):
        function(X, X, 1, algorithm="ball_tree")
