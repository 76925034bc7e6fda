"""The tree: the same neighbors and the same bits as by looking at all pairs, with few distances made."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastml.kernels import k_nearest
from fastml.kernels.distances import panels, tiles
from fastml.kernels.distances.arguments import METRIC_CODES, METRICS
from fastml.kernels.neighbors import _heaps, _tree, _tree_choice
from fastml.kernels.neighbors.nearest import k_nearest_outside_group
from fastml.kernels.reference import loops, vectorized
from fastml.kernels.runtime.jit import inner, jit_enabled

DTYPES = ("float32", "float64")
NOTHING = np.empty(0, np.intp)


def same(one, other) -> bool:
    return all(a.tobytes() == b.tobytes() and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def both(X, Y, k, **options):
    """Return the neighbors by the tree, and by brute force."""
    return (k_nearest(X, Y, k, algorithm=algorithm, **options) for algorithm in ("tree", "brute"))


def uniform(rng, n, d):
    return rng.random((n, d))


def normal(rng, n, d):
    return rng.standard_normal((n, d))


def blobs(rng, n, d):
    return 9 * np.random.default_rng(1).standard_normal((7, d))[rng.integers(0, 7, n)] + rng.standard_normal((n, d))


def few_values(rng, n, d):
    return rng.integers(0, 3, (n, d))


def constant(rng, n, d):
    return np.full((n, d), 3.7)


def copies(rng, n, d):
    return np.random.default_rng(1).random((4, d))[rng.integers(0, 4, n)]


def line(rng, n, d):
    return np.arange(n)[:, np.newaxis] * np.ones(d)


def one_wide_column(rng, n, d):
    return np.where(np.arange(d) == d // 2, 1e6, 1) * rng.standard_normal((n, d))


def far_from_zero(rng, n, d):
    return 1e6 + rng.standard_normal((n, d))


def heavy_tails(rng, n, d):
    return rng.standard_cauchy((n, d)) ** 3


def not_finite(rng, n, d):
    rows = rng.standard_normal((n, d))
    rows[rng.random((n, d)) < 0.02] = np.nan
    rows[rng.random((n, d)) < 0.02] = np.inf
    rows[rng.random((n, d)) < 0.02] = -np.inf
    return rows


def tiny(rng, n, d):
    """Rows whose squared distances are too small for their dtype, or just large enough."""
    return rng.standard_normal((n, d)) * 10.0 ** rng.integers(-26, -17, (n, 1))


def huge(rng, n, d):
    return rng.standard_normal((n, d)) * 10.0 ** rng.integers(15, 37, (n, 1))


KINDS = (
    *(uniform, normal, blobs, few_values, constant, copies, line, one_wide_column, far_from_zero, heavy_tails),
    *(not_finite, tiny, huge),
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:overflow")
def test_bits_and_indices_are_those_of_brute_force(rng, kind, metric, dtype):
    for d in (1, 2, 3, 5, 8, 17, 64):
        for n, m, k in ((40, 33, 33), (70, 700, 5), (3, 64, 1), (50, 1100, 40)):
            if not jit_enabled() and m > 100:
                continue
            X, Y = (kind(rng, rows, d).astype(dtype) for rows in (n, m))
            X[::7] = Y[: len(X[::7])]
            by_tree, by_brute_force = both(X, Y, k, metric=metric)
            assert same(by_tree, by_brute_force), (d, n, m, k)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_sizes(data):
    """Sizes about those of leaves and nodes, every number of columns, any threads."""
    d = data.draw(st.integers(1, 64))
    m = data.draw(st.sampled_from([1, 2, 31, 32, 33, 63, 64, 65, 1023, 1024, 1025, 1056, 2100]))
    n, k = data.draw(st.integers(0, 40)), data.draw(st.integers(1, min(m, 30)))
    metric, dtype = data.draw(st.sampled_from(list(METRICS))), data.draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    if not jit_enabled():
        m, k = min(m, 65), min(k, 1)
    kind = data.draw(st.sampled_from([uniform, few_values, blobs]))
    X, Y = kind(rng, n, d).astype(dtype), kind(rng, m, d).astype(dtype)
    by_tree, by_brute_force = both(X, Y, k, metric=metric, n_threads=data.draw(st.integers(1, 3)))
    assert same(by_tree, by_brute_force)


@pytest.mark.skipif(not jit_enabled(), reason="takes long as Python")
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_parts_are_halved_one_by_one(rng, dtype):
    """More rows than one call turns into leaves, of values in order, in all kinds of columns, with threads."""
    m = 3 * _tree._SUBTREE + 45
    for rows in (rng.random((m, 2)), np.sort(rng.random((m, 1)), axis=0)[::-1], np.arange(m)[:, np.newaxis] % 31):
        Y = rows.astype(dtype)
        expected = k_nearest(Y[::500], Y, 6, algorithm="brute")
        for n_threads in (1, 2, 3):
            assert same(k_nearest(Y[::500], Y, 6, algorithm="tree", n_threads=n_threads), expected)


def test_rows_of_which_none_is_finite(rng):
    Y = np.full((1100, 2), np.nan)
    X = rng.random((70, 2))
    assert same(*both(X[: 70 if jit_enabled() else 3], Y, 9))


@pytest.mark.skipif(not jit_enabled(), reason="takes long as Python")
def test_the_tree_does_not_depend_on_threads(rng):
    Y = rng.random((70_000, 3))
    one, two = (_tree.build(Y, threads) for threads in (1, 3))
    assert same(one, two)
    assert np.array_equal(np.sort(one.places[one.places >= 0]), np.arange(len(Y)))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_without_itself_and_outside_groups(rng, metric, dtype):
    for rows in (rng.random((300, 3)), rng.integers(0, 3, (300, 2))):
        X = rows.astype(dtype)[: 300 if jit_enabled() else 60]
        assert same(*both(X, X, 5, metric=metric, exclude_self=True))
        assert same(*both(X, None, 5, metric=metric, exclude_self=True))
        groups = rng.integers(0, 4, len(X))
        groups[:40] = 7  # many rows that lie anywhere
        told = []
        found = [
            k_nearest_outside_group(X, groups, 6, metric=metric, algorithm=algorithm, progress=told.append)
            for algorithm in ("tree", "brute")
        ]
        assert same(*found)
        assert sum(told) == 2 * len(X)
        # Fewer rows outside than neighbors asked for: the last places are empty.
        groups[:] = 0
        groups[3] = 1
        found = [k_nearest_outside_group(X, groups, 2, metric=metric, algorithm=way) for way in ("tree", "brute")]
        assert np.array_equal(found[0][1], found[1][1])
        assert (found[0][1][4:, 1] == np.iinfo(np.intp).max).all()


def test_it_agrees_with_the_reference(rng):
    X, Y = rng.random((9, 3)), np.concatenate([rng.random((60, 3)), [[np.nan, 0, 0], [np.inf, 0, 0]]])
    found = k_nearest(X, Y, 62, algorithm="tree", metric="l1")
    for tier in (loops, vectorized):
        distances, indices = tier.k_nearest(X, Y, 62, algorithm="tree", metric="l1")
        assert np.array_equal(found[1], indices)
        np.testing.assert_allclose(found[0], distances, rtol=1e-14)


def test_layouts(rng, tmp_path):
    Y = rng.random((200, 4)).astype(np.float32)
    X = Y[::9].copy()
    expected = k_nearest(X, Y, 5, algorithm="brute")
    mapped = np.memmap(tmp_path / "rows", np.float32, "w+", shape=Y.shape)
    mapped[:] = Y
    frozen = Y.copy()
    frozen.flags.writeable = False
    wide = np.repeat(np.repeat(Y, 2, axis=0), 2, axis=1)
    for rows in (mapped, frozen, np.asfortranarray(Y), wide[::2, ::2], Y.astype(">f4"), Y.tolist()):
        ours = np.asarray(rows, np.float32) if isinstance(rows, list) else rows
        assert same(k_nearest(X, ours, 5, algorithm="tree"), expected)


def test_bytes_and_no_columns_are_searched_by_brute_force(rng):
    X = rng.integers(0, 9, (30, 3)).astype(np.uint8)
    assert same(*both(X, X, 4))
    assert same(*both(np.empty((5, 0)), np.empty((7, 0)), 3))
    assert same(*both(np.empty((0, 2)), np.ones((7, 2)), 3))


def test_names(rng):
    X = rng.random((4, 2))
    with pytest.raises(ValueError, match="algorithm is 'kd_tree'; it must be one of"):
        k_nearest(X, X, 1, algorithm="kd_tree")
    with pytest.raises(TypeError, match="algorithm is a NoneType"):
        k_nearest(X, X, 1, algorithm=None)


def made(Y, k, metric="l2", X=None):
    """Return how many distances a query makes in the mean."""
    X = Y if X is None else X
    return _tree.search(metric, _tree.build(Y, 2), X, NOTHING, NOTHING, k, X is Y, 2)[2] / len(X)


@pytest.mark.skipif(not jit_enabled(), reason="takes long as Python")
@pytest.mark.parametrize("metric", METRICS)
def test_few_distances_are_made(rng, metric):
    Y = rng.random((1_000_000, 3), np.float32)
    assert made(Y, 5, metric, rng.random((3000, 3), np.float32)) < 200


@pytest.mark.skipif(not jit_enabled(), reason="takes long as Python")
@pytest.mark.parametrize("kind", [constant, few_values, copies, line])
def test_equal_rows_and_rows_in_order_are_no_slow_path(rng, kind):
    Y = kind(rng, 100_000, 3).astype(np.float32)
    assert made(Y, 5) < 1500


@pytest.mark.skipif(not jit_enabled(), reason="takes long as Python")
def test_the_choice(rng, monkeypatch):
    """A tree is chosen in few columns, and of rows with structure; not of small problems, nor where all are near."""

    def chosen(Y, k=5, n=20_000):
        return _tree_choice.choose("auto", "l2", Y[:n], NOTHING, Y, NOTHING, k, 2) is not None

    few = rng.random((20_000, 3), np.float32)
    assert chosen(few)
    assert not chosen(few, n=500)
    assert not chosen(few, k=5000)
    many = rng.random((200_000, 2), np.float32)
    assert chosen(many, n=1000)
    monkeypatch.setattr(_tree, "build", None)
    assert not chosen(many, n=300), "sooner looked at than put in a tree"
    monkeypatch.undo()
    assert not chosen(rng.standard_normal((20_000, 24), np.float32))
    centers = 9 * rng.standard_normal((100, 24))
    assert chosen((centers[rng.integers(0, 100, 20_000)] + rng.standard_normal((20_000, 24))).astype(np.float32))


@inner
def _bounds(metric, X, boxes, chunk, totals):
    for i in range(len(X)):
        for begin in range(0, X.shape[1], chunk):
            tiles.bounds_of_boxes(metric, X, i, boxes, 0, begin, min(X.shape[1], begin + chunk), totals[i], 0)


@inner
def _totals(metric, X, points, chunk, totals):
    for i in range(len(X)):
        for begin in range(0, X.shape[1], chunk):
            tiles.totals_of_leaf(metric, X, i, points, 0, begin, min(X.shape[1], begin + chunk), totals[i], 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.filterwarnings("ignore:(overflow|invalid)")
def test_bounds_are_at_most_all_totals_in_the_box(rng, metric, dtype):
    """Also where sums round, overflow or underflow, and in chunks; totals have the bits of tiles."""
    for scale in (1, 1e-30, 1e30, 3e38):
        for d in (1, 7, 64, 300):
            Y = rng.uniform(-scale, scale, (32, d)).astype(dtype)
            X = np.concatenate([rng.uniform(-scale, scale, (20, d)).astype(dtype), Y[:9]])
            boxes = np.stack([np.minimum(Y, Y[::-1]), np.maximum(Y, Y[::-1])], axis=1).transpose(2, 1, 0)
            boxes, points = np.ascontiguousarray(boxes)[np.newaxis], np.ascontiguousarray(Y.T)[np.newaxis]
            bounds, totals = np.empty((len(X), 32), dtype), np.empty((len(X), 32), dtype)
            usual = panels.plan(metric, X.dtype, *X.shape).chunk_steps
            chunk = -(-d // max(1, (d + usual // 2) // usual))
            _bounds(METRIC_CODES[metric], X, boxes, chunk, bounds)
            _totals(METRIC_CODES[metric], X, points, chunk, totals)
            assert (bounds <= totals).all()
            assert (bounds <= totals[:, ::-1]).all()
            assert bounds.any() or scale == 1e-30
            expected = panels.totals(metric, X, Y)
            if jit_enabled():
                assert np.array_equal(totals, expected)
            else:  # NumPy adds in an order of its own
                np.testing.assert_allclose(totals, expected, rtol=1e-4)


@inner
def _offer(pairs, found, places, candidates, mask, ceiling):
    return _heaps.offer(pairs, found, places, 0, candidates, mask, ceiling)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("room", [8, 24])
def test_lists(rng, bits, room):
    """Pairs go in order into a list, of one vector and of more, with equal keys, eight of them at a time."""
    pairs = np.full((bits // 32, room), _heaps._NONE)
    largest = np.iinfo(f"int{bits}").max
    seen = []
    for start in range(0, 3200, 32):
        found = rng.integers(0, 50, 32).astype(f"int{bits}")
        places = start + rng.permutation(32)
        candidates = int(rng.integers(0, 1 << 32))
        seen += [(int(found[lane]), int(places[lane])) for lane in range(32) if candidates >> lane & 1]
        while candidates:
            left = _offer(pairs, found, places, candidates, largest, largest)
            assert candidates.bit_count() - left.bit_count() == min(8, candidates.bit_count())
            candidates = left
        expected = sorted(seen)[:room]
        if bits == 32:
            held = [(int(pair) >> 32, int(pair) & 0xFFFFFFFF) for pair in pairs[0] if pair != _heaps._NONE]
        else:
            held = [(int(key), int(place)) for key, place in pairs.T if key != _heaps._NONE]
        assert held == expected
