"""Rows that are prepared: the same neighbors and bits, sooner."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fastml.kernels import PreparedRows, k_nearest, pairwise_argmin, pairwise_l2, prepare, radius_counts
from fastml.kernels.distances.arguments import METRICS
from fastml.kernels.neighbors import _bounds, _pruning, _tree, _tree_choice, prepared
from fastml.kernels.runtime import parallel
from fastml.kernels.runtime.jit import jit_enabled

DTYPES = ("float32", "float64", "uint8")


def same(one, other) -> bool:
    return all(a.tobytes() == b.tobytes() and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


@pytest.fixture
def rounded(monkeypatch):
    """Rows are rounded and kept whatever their number, and refused for pairs that are left as usual, or never."""
    monkeypatch.setattr(_bounds, "_FEWEST_KEPT", 1)
    monkeypatch.setattr(_bounds, "_FEWEST_COLUMNS", 2)
    monkeypatch.setattr(_bounds, "_FEWEST_APART", 0)
    monkeypatch.setattr(_bounds, "_ROWS_PER_NEIGHBOR", 1)
    monkeypatch.setattr(_bounds.tile_shapes, "multiplies_bytes", lambda: True)
    monkeypatch.setattr(parallel, "SMALL_SECONDS", 0)


@pytest.mark.parametrize("algorithm", ["auto", "brute", "tree"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_neighbors_are_those_of_the_rows(rng, metric, dtype, algorithm):
    for m, d in ((300, 3), (90, 40)):
        Y = rng.integers(0, 9, (m, d)).astype(dtype)
        rows = prepare(Y, metric=metric, algorithm=algorithm)
        groups = rng.integers(0, 3, m)
        for X, options in (
            (Y[:9] * 2, {}),
            (Y[3:9], {"exclude_self": True, "offset": 3}),
            (Y[3:9], {"groups": (groups[3:9], groups)}),
            (Y[3:9], {"groups": (groups[3:9], groups), "within_groups": True}),
            (Y[3:9], {"where": groups > 0}),
            (Y[3:9], {"where": np.arange(m) % 30 == 0}),
            (Y[:0], {}),
        ):
            want = k_nearest(X, Y, 3, metric=metric, algorithm="brute", **options)
            for way in ("auto", "brute", "tree"):
                assert same(k_nearest(X, rows, 3, metric=metric, algorithm=way, **options), want), (options, way)
        want = k_nearest(Y, None, 3, metric=metric, algorithm="brute", exclude_self=True)
        assert same(k_nearest(rows.rows, rows, 3, metric=metric, exclude_self=True), want)


def test_queries_of_another_dtype(rng):
    Y = rng.random((200, 3), np.float32)
    rows = prepare(Y, algorithm="tree")
    X = rng.random((7, 3))
    assert same(k_nearest(X, rows, 4), k_nearest(X, Y, 4))
    assert k_nearest(X, rows, 4)[0].dtype == np.float64


@pytest.mark.needs_jit  # NumPy adds in an order of its own
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("one_in", [1, 10, 10**9])
@pytest.mark.filterwarnings("ignore:(overflow|invalid)")
def test_rounded_rows_keep_every_bit(rng, rounded, monkeypatch, metric, dtype, one_in):
    """Of one query and of many, with Y whole and in parts, where pruning is refused at once, late, or never."""
    monkeypatch.setattr(_pruning, "_PAIRS_PER_SURVIVOR", one_in)
    for m, d in ((97, 9), (700, 70), (2500, 5)):
        for kind in ("normal", "values", "not finite", "huge"):
            Y = rng.standard_normal((m, d)).astype(dtype)
            if kind == "values":
                Y = rng.integers(0, 3, (m, d)).astype(dtype)
            elif kind == "not finite":
                Y[rng.random((m, d)) < 0.01] = np.nan
                Y[rng.random((m, d)) < 0.01] = np.inf
            elif kind == "huge":
                Y *= np.finfo(dtype).max / 9
            rows = prepare(Y, metric=metric, algorithm="brute")
            X = np.concatenate([Y[:40], rng.standard_normal((70, d)).astype(dtype)])
            groups = rng.integers(0, 3, len(X)), rng.integers(0, 3, m)
            for n in (1, 3, 110):
                for threads in (1, 2):
                    found = k_nearest(X[:n], rows, 7, metric=metric, n_threads=threads)
                    assert same(found, k_nearest(X[:n], Y, 7, metric=metric, algorithm="brute")), (m, kind, n, threads)
                options = {"metric": metric, "groups": (groups[0][:n], groups[1])}
                assert same(k_nearest(X[:n], rows, 5, **options), k_nearest(X[:n], Y, 5, **options))


def test_rounded_rows_are_used(rng, rounded, monkeypatch):
    """The bytes that were kept are read, not made again."""
    Y = rng.random((3000 if jit_enabled() else 97, 70), np.float32)
    rows = prepare(Y)
    assert "rounded rows" in repr(rows)
    seen = []
    fill = _pruning.fill_heaps

    def noted(metric, bounds, *rest):
        seen.append(bounds.packed.panels)
        return fill(metric, bounds, *rest)

    monkeypatch.setattr(_pruning, "fill_heaps", noted)
    k_nearest(Y[:2], rows, 2, n_threads=1)
    assert [panels is rows._bounds.packed.panels for panels in seen] == [True]


def test_rows_are_a_reference_and_read_only(rng):
    Y = rng.random((50, 3))
    rows = prepare(Y)
    assert np.shares_memory(rows.rows, Y)
    assert not rows.rows.flags.writeable
    assert Y.flags.writeable
    assert not np.shares_memory(prepare(Y[:, :2]).rows, Y)
    assert len(rows) == 50


def test_what_is_kept_is_told(rng, rounded):
    Y = rng.random((2000, 3), np.float32)
    plain, tree = prepare(Y, algorithm="brute"), prepare(Y, algorithm="tree")
    assert plain.nbytes >= Y.nbytes
    assert tree.nbytes > 2 * Y.nbytes
    assert repr(tree).startswith("PreparedRows(2000 × 3 float32, metric='l2', algorithm='tree': tree, 0.")
    assert "nothing else" in repr(prepare(Y.astype(np.uint8)))


def test_auto_makes_a_tree_where_it_pays(rng):
    assert prepare(rng.random((20_000 if jit_enabled() else 3000, 2), np.float32))._tree is not None
    assert prepare(rng.random((40, 2)))._tree is None, "fewer rows than it pays for"
    if jit_enabled():
        assert prepare(rng.standard_normal((5000, 30)))._tree is None


@pytest.mark.skipif(not jit_enabled(), reason="takes long as Python")
def test_a_tree_is_made_when_enough_has_been_asked(rng, monkeypatch):
    """Without `prepare` only when all queries together repay it, and once; a failed trial is not repeated."""
    Y = rng.random((100_000, 3), np.float32)
    rows = PreparedRows(Y, "l2", "auto")
    k_nearest(Y[:200], rows, 3)
    assert rows._tree is None
    for _ in range(3):
        k_nearest(Y[:200], rows, 3)
    tree = rows._tree
    assert tree is not None
    monkeypatch.setattr(_tree, "build", None)
    k_nearest(Y[:1000], rows, 3)
    assert rows._tree is tree
    monkeypatch.undo()
    built = []
    monkeypatch.setattr(_tree_choice, "tried", lambda *_: built.append(1))
    rows = PreparedRows(Y, "l2", "auto")
    for _ in range(3):
        k_nearest(Y[:1000], rows, 3)
    assert built == [1]


@pytest.mark.skipif(not jit_enabled(), reason="takes long as Python")
def test_queries_from_elsewhere_are_asked(rng, monkeypatch):
    rows = prepare(rng.random((20_000, 3), np.float32))
    monkeypatch.setattr(_tree_choice, "pays", lambda *_: False)
    monkeypatch.setattr(_tree, "search", None)
    k_nearest(rng.random((600, 3), np.float32), rows, 3)


def test_pickles_have_the_rows_alone(rng):
    Y = rng.random((3000, 3))
    rows = prepare(Y, metric="l1", algorithm="tree")
    data = pickle.dumps(rows)
    assert len(data) < Y.nbytes + 1000
    again = pickle.loads(data)
    assert (again.metric, again.algorithm) == ("l1", "tree")
    assert not again.rows.flags.writeable
    assert same(k_nearest(Y[:5], again, 4, metric="l1"), k_nearest(Y[:5], Y, 4, metric="l1"))


@pytest.mark.safety
def test_threads_may_search_at_once(rng, rounded):
    Y = rng.random((5000, 3), np.float32)
    want = k_nearest(Y[:900], Y, 3)
    for _ in range(5):
        rows = PreparedRows(Y, "l2", "auto")
        with ThreadPoolExecutor(4) as pool:
            assert all(same(found, want) for found in pool.map(k_nearest, [Y[:900]] * 8, [rows] * 8, [3] * 8))


def test_what_does_not_fit_is_refused(rng):
    rows = prepare(rng.random((5, 2)), metric="l1")
    with pytest.raises(ValueError, match="metric is 'l2'; Y was prepared for 'l1'"):
        k_nearest([[0.0, 1.0]], rows, 1)
    with pytest.raises(ValueError, match="Y has 2 columns, X has 1"):
        k_nearest([[0.0]], rows, 1, metric="l1")
    with pytest.raises(ValueError, match="algorithm is 'ball'"):
        prepare(rng.random((5, 2)), algorithm="ball")
    with pytest.raises(ValueError, match="Y has shape"):
        prepare(rng.random(5))
    assert prepared.PreparedRows is PreparedRows


def test_rows_are_rounded_when_few_queries_at_a_time_have_repaid_it(rng, rounded):
    rows = PreparedRows(rng.random((500, 9), np.float32), "l2", "brute")
    k_nearest(rows.rows[:300], rows, 1)
    assert rows._bounds is None, "many queries round what they look at"
    k_nearest(rows.rows[:1], rows, 1)
    assert rows._bounds is not None


@pytest.mark.parametrize(
    "call",
    [
        lambda X, rows: k_nearest(rows, X, 1),
        lambda X, rows: radius_counts(rows, X, 1.0),
        lambda X, rows: pairwise_argmin(rows, X),
        lambda X, rows: pairwise_l2(X, rows),
        lambda X, rows: prepare(rows),
    ],
    ids=["queries", "radius", "argmin", "pairwise", "again"],
)
def test_where_they_do_not_stand_it_is_said_what_does(rng, call):
    X = rng.random((9, 2))
    with pytest.raises(TypeError, match="for Y in searches only; elsewhere pass their attribute `rows`"):
        call(X, prepare(X))
    call(X, prepare(X).rows)
