"""What `k_nearest` takes, the other searches take: within a radius, and of the one nearest row."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastml.kernels import (
    PreparedRows,
    k_nearest,
    pairwise_argmin,
    pairwise_argmin_min,
    prepare,
    radius_counts,
    radius_neighbors,
)
from fastml.kernels.distances.arguments import DEFINITIONS, OF_NUMBERS, VARIANTS, result_dtype
from fastml.kernels.neighbors import _tree, _within, radius
from fastml.kernels.reference import loops, vectorized
from fastml.kernels.runtime.jit import jit_enabled

FLOATS = ("float32", "float64")
OWN_CODE = ("inner_product", "hamming", "jaccard")  # compiled by themselves


def of_metrics(metrics) -> list:
    return [pytest.param(m, marks=pytest.mark.slow) if m in OWN_CODE and jit_enabled() else m for m in metrics]


def rows_for(metric: str, rng, *shapes: tuple[int, int], dtype: str = "float32") -> list[np.ndarray]:
    """Draw rows with ties, some of zeros, and of floats some that are not finite."""
    if DEFINITIONS[metric].rows == "bits":
        found = [rng.integers(0, 256, shape, np.uint8) & rng.integers(0, 256, shape, np.uint8) for shape in shapes]
    else:
        low = 0 if dtype == "uint8" else -3
        found = [rng.integers(low, 4, shape).astype(dtype) for shape in shapes]
    for rows in found:
        rows[rng.random(len(rows)) < 0.1] = 0
        if rows.dtype.kind == "f" and len(rows) > 2:
            rows[1, 0], rows[2, -1] = np.nan, np.inf
    return found


def same(one, other) -> bool:
    return all(a.tobytes() == b.tobytes() and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def meant(n, m, *, exclude_self=False, offset=None, groups=None, within_groups=False, where=None) -> np.ndarray:
    allowed = np.ones((n, m), bool)
    if where is not None:
        allowed &= where
    if groups is not None:
        allowed &= np.equal.outer(*groups) == within_groups
    if exclude_self:
        allowed[np.arange(n), (offset or 0) + np.arange(n)] = False
    return allowed


def from_all(X, Y, radius, options, **choices):
    """Return what is within a radius among all rows in the order in which `k_nearest` finds them."""
    distances, order = k_nearest(X, Y, len(Y), algorithm="brute", **options)
    limits = np.broadcast_to(radius, len(X))[:, np.newaxis]
    wide = distances.astype(np.float64)
    kept = wide >= limits if options["metric"] == "inner_product" else wide <= limits
    kept &= np.take_along_axis(meant(len(X), len(Y), **choices), order, axis=1)
    return np.append(0, np.cumsum(kept.sum(axis=1))), order[kept], distances[kept]


def radii_of(X, Y, rng, options):
    """Return radii of every kind: those that are distances, the numbers beside them, and the ends of the range."""
    distances = k_nearest(X, Y, len(Y), algorithm="brute", **options)[0].astype(np.float64)
    some = np.abs(rng.choice(distances[np.isfinite(distances)], 4))
    each = rng.choice(some, len(X))
    found = [0, 0.5, 1, 2, np.inf, *some, *np.nextafter(some, 0), each]
    return [*found, *np.negative(some), -np.inf] if options["metric"] == "inner_product" else found


# ------------------------------------------------------------------------------------ metrics


@pytest.mark.parametrize("algorithm", ["brute", "tree"])
@pytest.mark.parametrize("metric", of_metrics(VARIANTS))
@pytest.mark.filterwarnings("ignore:(overflow|invalid)")
def test_within_a_radius_by_any_metric(rng, metric, algorithm):
    for dtype in (*FLOATS, "uint8") if DEFINITIONS[metric].rows != "bits" else ("uint8",):
        for n, m, d in ((7, 90, 3), (60, 333, 9), (1, 1100, 2)):
            if not jit_enabled() and m > 100:
                continue
            X, Y = rows_for(metric, rng, (n, d), (m, d), dtype=dtype)
            for r in radii_of(X, Y, rng, {"metric": metric}):
                options = {"metric": metric, "algorithm": algorithm}
                want = from_all(X, Y, r, {"metric": metric})
                assert same(radius_neighbors(X, Y, r, **options), want), (dtype, n, r)
                assert np.array_equal(radius_counts(X, Y, r, **options), np.diff(want[0]))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
@pytest.mark.filterwarnings("ignore:(overflow|invalid)")
def test_squares_beyond_the_range(rng, metric, dtype):
    """They are made again as in `k_nearest`, also those of directions that differ by next to nothing."""
    small, large = (1e-25, 1e25) if dtype == "float32" else (1e-200, 1e200)
    X, Y = (rng.standard_normal((n, 3)) * rng.choice([small, 1, large], (n, 1)) for n in (20, 40))
    Y[:9, 0], Y[:9, 1:] = 1, rng.standard_normal((9, 2)) * small
    X, Y = np.concatenate([X, Y[:5]]).astype(dtype), Y.astype(dtype)
    for r in radii_of(X, Y, rng, {"metric": metric}):
        want = from_all(X, Y, r, {"metric": metric})
        for algorithm in ("brute", "tree"):
            assert same(radius_neighbors(X, Y, r, metric=metric, algorithm=algorithm), want), r
        assert np.array_equal(radius_counts(X, Y, r, metric=metric), np.diff(want[0]))


@pytest.mark.parametrize("dtype", [*FLOATS, "uint8"])
@pytest.mark.parametrize("metric", OF_NUMBERS)
def test_weights_of_columns(rng, metric, dtype):
    X, Y = rows_for(metric, rng, (9, 4), (70, 4), dtype=dtype)
    options = {"metric": metric, "metric_params": {"w": [0.3, 2, 0, 1]}}
    for r in radii_of(X, Y, rng, options):
        want = from_all(X, Y, r, options)
        assert same(radius_neighbors(X, Y, r, **options), want)
        assert np.array_equal(radius_counts(X, Y, r, **options), np.diff(want[0]))
    distances, indices = k_nearest(X, Y, 1, **options)
    assert same(pairwise_argmin_min(X, Y, **options), (indices[:, 0], distances[:, 0]))


@pytest.mark.parametrize("metric", DEFINITIONS)
@pytest.mark.filterwarnings("ignore:(overflow|invalid|divide)")
def test_tiers_agree(rng, metric):
    """On whole numbers, whose distances are exact, but for cosines: no limit lies near these."""
    X, Y = rows_for(metric, rng, (6, 4), (30, 4), dtype="float64")
    groups = rng.integers(0, 3, 6), rng.integers(0, 3, 30)
    params = {"w": [1, 4, 0, 9]} if metric in OF_NUMBERS else None
    for choices in (
        {},
        {"exclude_self": True, "offset": 3},
        {"groups": groups, "where": np.arange(30) % 3 > 0},
        {"groups": groups, "within_groups": True, "metric_params": params},
    ):
        options = choices | {"metric": metric}
        want = vectorized.radius_neighbors(X, Y, 0.7, **options)
        found = loops.radius_neighbors(X, Y, 0.7, **options)
        assert np.array_equal(found[0], want[0])
        assert np.array_equal(found[1], want[1]) or metric == "cosine"
        np.testing.assert_allclose(found[2], want[2], rtol=1e-12, atol=1e-15)
        nearest = [tier.pairwise_argmin_min(X, Y, **options) for tier in (loops, vectorized)]
        np.testing.assert_allclose(nearest[0][1], nearest[1][1], rtol=1e-12, atol=1e-15)
        for tier in (loops, vectorized):
            assert np.array_equal(tier.radius_counts(X, Y, 0.7, **options), np.diff(want[0]))
            assert np.array_equal(tier.pairwise_argmin(X, Y, **options), tier.k_nearest(X, Y, 1, **options)[1][:, 0])
        if jit_enabled() and metric not in OWN_CODE:
            compiled = radius_neighbors(X, Y, 0.7, **options)
            assert np.array_equal(compiled[0], want[0])
            assert np.array_equal(compiled[1], want[1]) or metric == "cosine"
            np.testing.assert_allclose(compiled[2], want[2], rtol=1e-12, atol=1e-15)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_limits_are_the_largest_keys_within(data):
    metric = data.draw(st.sampled_from(["sqeuclidean", "hamming", "jaccard"]))
    dtype = np.dtype("int64") if metric in OWN_CODE else np.dtype(data.draw(st.sampled_from([*FLOATS, "uint8"])))
    d = data.draw(st.sampled_from([1, 3, 784]))
    ordinary, bounds = _within.panels.limits(_within.arguments.base(metric), dtype, d)
    radii = np.array(data.draw(st.lists(st.floats(0, 1e30), min_size=1, max_size=5)))
    if dtype.kind == "f":
        radii = np.clip(radii, float(ordinary[0]), np.nextafter(float(ordinary[1]), 0))
    for limit, r in zip(_within.limits(metric, dtype, d, radii), radii, strict=True):
        totals = np.array([limit, limit + 1]).astype(bounds.dtype).view(ordinary.dtype)
        own, above = _within.distances(metric, totals)
        assert own <= r
        assert above > r or above > (1 if metric == "jaccard" else 64 * d if metric == "hamming" else 255**2 * d)


# ------------------------------------------------------------------------------------ candidates


def draw_choices(data, rng, n, m):
    choices, first = {}, data.draw(st.integers(0, m - n))
    if data.draw(st.booleans()):
        choices |= {"exclude_self": True, "offset": first}
    if data.draw(st.booleans()):
        y_groups = rng.integers(-1, 3, m)
        x_groups = y_groups[first : first + n] if data.draw(st.booleans()) else rng.integers(-1, 4, n)
        choices |= {"groups": (x_groups, y_groups), "within_groups": data.draw(st.booleans())}
    if data.draw(st.booleans()):
        choices["where"] = rng.random(m) < data.draw(st.sampled_from([0.05, 0.2, 0.8, 1.0]))
    return choices, first


@given(st.data())
@settings(max_examples=80, deadline=None)
@pytest.mark.parametrize("one_by_one", [True, False])
def test_candidates_are_those_of_a_search_among_them(one_by_one, data):
    """Any of the arguments together, with ties and NaN, by any way, whether groups are searched one by one or not."""
    metric = data.draw(st.sampled_from([*OF_NUMBERS, "cosine"]))
    dtype = data.draw(st.sampled_from(FLOATS if metric == "cosine" else [*FLOATS, "uint8"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    m, d = data.draw(st.sampled_from([3, 20, 90])), data.draw(st.integers(1, 3))
    n = data.draw(st.integers(1, min(m, 12)))
    (Y,) = rows_for(metric, rng, (m, d), dtype=dtype)
    choices, first = draw_choices(data, rng, n, m)
    X = Y if n == m and data.draw(st.booleans()) else Y[first : first + n].copy()
    r = data.draw(st.sampled_from([0, 0.5, 1.5, 4, np.inf]))
    want = from_all(X, Y, r, {"metric": metric}, **choices)
    way = {"algorithm": data.draw(st.sampled_from(["auto", "brute", "tree"])), "metric": metric}
    n_threads = data.draw(st.integers(1, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(radius, "_SEARCH_SECONDS", 0 if one_by_one else np.inf)
        assert same(radius_neighbors(X, Y, r, n_threads=n_threads, **choices, **way), want)
        assert np.array_equal(radius_counts(X, Y, r, **choices, **way), np.diff(want[0]))
        if metric != "cosine":
            rows = prepare(Y, metric=metric, algorithm=data.draw(st.sampled_from(["auto", "brute", "tree"])))
            queries = X.astype(rows.rows.dtype)
            assert same(radius_neighbors(queries, rows, r, **choices, **way), want)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_nearest_candidate_is_that_of_k_nearest(data):
    metric = data.draw(st.sampled_from([*OF_NUMBERS, "cosine"]))
    dtype = data.draw(st.sampled_from(FLOATS if metric == "cosine" else [*FLOATS, "uint8"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    m, d = data.draw(st.sampled_from([3, 20, 90])), data.draw(st.integers(1, 3))
    n = data.draw(st.integers(1, min(m, 12)))
    (Y,) = rows_for(metric, rng, (m, d), dtype=dtype)
    choices, first = draw_choices(data, rng, n, m)
    if not meant(n, m, **{name: choices[name] for name in choices if "group" not in name}).any(axis=1).all():
        return
    X = Y[first : first + n].copy()
    way = {"algorithm": data.draw(st.sampled_from(["auto", "brute", "tree"])), "metric": metric, **choices}
    distances, indices = k_nearest(X, Y, 1, **way)
    want = indices[:, 0], distances[:, 0]
    assert same(pairwise_argmin_min(X, Y, **way), want)
    assert np.array_equal(pairwise_argmin(X, Y, **way), want[0])
    if metric != "cosine":
        assert same(pairwise_argmin_min(X, prepare(Y, metric=metric), **way), want)


@pytest.mark.parametrize("metric", of_metrics(VARIANTS))
def test_the_nearest_row_by_any_metric(rng, metric):
    for dtype in (*FLOATS, "uint8") if DEFINITIONS[metric].rows != "bits" else ("uint8",):
        for n, m, d in ((40, 333, 9), (3, 20, 2), (0, 4, 3)):
            X, Y = rows_for(metric, rng, (n, d), (m, d), dtype=dtype)
            distances, indices = k_nearest(X, Y, 1, metric=metric)
            assert same(pairwise_argmin_min(X, Y, metric=metric), (indices[:, 0], distances[:, 0]))


@pytest.mark.needs_jit
def test_groups_are_searched_one_by_one_where_that_saves_time(rng, monkeypatch):
    asked = []
    answer = radius._answer
    monkeypatch.setattr(radius, "_answer", lambda asks, *rest: asked.append(len(asks.y)) or answer(asks, *rest))
    for size, want in ((40, [40]), (8000, [2000] * 4)):
        X, groups = rng.random((size, 20)), np.arange(size) % 4
        asked.clear()
        radius_counts(X, None, 0.1, groups=(groups, groups), within_groups=True)
        assert asked == want


@pytest.mark.needs_jit
@pytest.mark.parametrize("how", ["cosine", "groups", "one group", "where", "outside groups"])
def test_memory_is_at_most_twice_the_result(rng, how):
    n = 1700
    X = rng.random((n, 2)).astype(np.float32)
    groups = (
        np.arange(n) * (2 if how == "groups" else 10) // n if how != "one group" else (np.arange(n) < 50).astype(int)
    )
    options = {
        "cosine": {"metric": "cosine"},
        "where": {"where": np.arange(n) % 10 > 0},
        "outside groups": {"groups": (groups, groups)},
    }.get(how, {"groups": (groups, groups), "within_groups": True})
    radius_neighbors(X[:5], X[:5], 2.0, metric=options.get("metric", "l2"))
    tracemalloc.start()
    try:
        found = radius_neighbors(X, X.copy(), 3.0, n_threads=1, **options)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size, spare = sum(part.nbytes for part in found), 20 * X.nbytes + (7 << 20)
    assert len(found[1]) > n * n // 10
    assert peak < 2 * size + spare, f"peak {peak / size:.2f} times the result"


@pytest.mark.needs_jit
@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
def test_bits_are_the_same_for_any_threads_and_batches(rng, metric):
    X, Y = rows_for(metric, rng, (1500, 3), (2000, 3))
    groups = rng.integers(0, 3, 1500), rng.integers(0, 3, 2000)
    options = {"metric": metric, "groups": groups}
    want = radius_neighbors(X, Y, 0.5, n_threads=1, **options)
    for threads in (2, 5):
        assert same(radius_neighbors(X, Y, 0.5, n_threads=threads, **options), want)
    some = slice(40, 300)
    indptr, indices, distances = radius_neighbors(X[some], Y, 0.5, metric=metric, groups=(groups[0][some], groups[1]))
    own = slice(want[0][some.start], want[0][some.stop])
    assert same((np.diff(indptr), indices, distances), (np.diff(want[0])[some], want[1][own], want[2][own]))


# ------------------------------------------------------------------------------------ prepared rows


@pytest.mark.needs_jit
def test_a_tree_is_kept_from_one_search_to_the_next(rng, monkeypatch):
    Y = rng.random((9000, 3))
    rows, want = PreparedRows(Y, "l2", "auto"), radius_neighbors(Y, Y, 0.02, algorithm="brute")
    assert np.array_equal(radius_counts(Y[:100], rows, 0.02), np.diff(want[0])[:100])
    assert rows._tree is None, "few queries do not repay it"
    assert same(radius_neighbors(Y, rows, 0.02), want)
    tree = rows._tree
    assert tree is not None
    monkeypatch.setattr(_tree, "build", None)
    assert same(radius_neighbors(Y, rows, 0.02), want)
    monkeypatch.setattr(radius, "_by_tree", lambda *_: pytest.fail("the tree is of no use"))
    radius_counts(Y[:3000], rows, 5.0)
    radius_counts(Y[:3], rows, 0.02, algorithm="brute")
    assert rows._tree is tree


def test_prepared_rows_of_another_dtype_or_metric(rng):
    Y = rng.random((200, 3), np.float32)
    rows, X = prepare(Y, algorithm="tree"), rng.random((7, 3))
    assert same(radius_neighbors(X, rows, 0.4), radius_neighbors(X, Y, 0.4))
    assert radius_neighbors(X, rows, 0.4)[2].dtype == np.float64
    weighted = {"metric_params": {"w": [1, 2, 3]}}
    assert same(radius_neighbors(X, rows, 0.4, **weighted), radius_neighbors(X, Y, 0.4, **weighted))
    for search in (radius_neighbors, radius_counts):
        with pytest.raises(ValueError, match="metric is 'l1'; Y was prepared for 'l2'"):
            search(X, rows, 0.4, metric="l1")
    with pytest.raises(ValueError, match="metric is 'cosine'; Y was prepared for 'l2'"):
        pairwise_argmin(X, rows, metric="cosine")


# ------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("tier", ["loops", "vectorized", "compiled"])
def test_what_does_not_fit_is_refused(ops):
    X, Y = np.ones((3, 2)), np.ones((6, 2))
    for name, rest in (("radius_neighbors", (1,)), ("radius_counts", (1,)), ("pairwise_argmin", ())):
        search = getattr(ops, name)
        for options, error, message in (
            ({"exclude_self": True}, ValueError, "exclude_self needs as many rows in Y as in X, or an offset; Y has 6"),
            ({"offset": 1}, ValueError, "offset is 1; it says which row of Y is query 0"),
            ({"offset": 4, "exclude_self": True}, ValueError, "offset is 4; the 3 rows of Y from there on"),
            ({"groups": np.arange(4)}, TypeError, "groups must be a pair"),
            ({"within_groups": True}, ValueError, "within_groups is True; it needs groups"),
            ({"where": np.ones(6)}, TypeError, "where has dtype float64; it must be bool"),
            ({"metric": "hamming"}, TypeError, "metric is 'hamming'; it needs rows of packed bits"),
            ({"metric": "l3"}, ValueError, "metric is 'l3'; it must be one of 'l1'"),
            ({"metric_params": {"w": [1.0]}}, ValueError, r"metric_params\['w'\] has shape \(1,\); X has 2 columns"),
            ({"metric_params": {"p": 3}}, ValueError, "metric_params has 'p'; 'w' may be in it for metric 'l2'"),
            ({"algorithm": "ball_tree"}, ValueError, "algorithm is 'ball_tree'; it must be one of 'auto'"),
        ):
            with pytest.raises(error, match=message):
                search(X, Y, *rest, **options)
    with pytest.raises(ValueError, match="radius is nan; it must be a number"):
        ops.radius_counts(X, Y, np.nan, metric="inner_product")
    with pytest.raises(ValueError, match="`where` leaves 0 rows of Y; a neighbor must be left"):
        ops.pairwise_argmin(X, Y, where=np.zeros(6, bool))
    assert ops.radius_counts(X, Y, 1, where=np.zeros(6, bool)).tolist() == [0] * 3


@pytest.mark.parametrize("tier", ["loops", "vectorized", "compiled"])
def test_no_rows_to_choose_from(ops):
    """The message names what came, and no number of neighbors that nobody gave."""
    none = np.empty((0, 2))
    for search in (ops.pairwise_argmin, ops.pairwise_argmin_min, lambda X, Y, **_: ops.k_nearest(X, Y, 1, **_)):
        with pytest.raises(ValueError, match=r"^Y has 0 rows; it must have at least 1$"):
            search(np.ones((3, 2)), none)
        with pytest.raises(ValueError, match=r"^Y has 0 rows; it must have at least 2, since with exclude_self each"):
            search(none, none, exclude_self=True)
        with pytest.raises(ValueError, match=r"^Y has 1 row; it must have at least 2"):
            search(np.ones((1, 2)), None, exclude_self=True)
    indptr, indices, distances = ops.radius_neighbors(none, None, 1, exclude_self=True)
    assert (indptr.tolist(), indices.size, distances.size) == ([0], 0, 0)


def test_result_dtypes(rng):
    for metric in ("sqeuclidean", "cosine"):
        X, _ = rows_for(metric, rng, (3, 2), (1, 2))
        empty = radius_neighbors(X, X, 0, metric=metric, where=np.zeros(3, bool))
        assert empty[2].dtype == result_dtype(metric, X.dtype, 2)
