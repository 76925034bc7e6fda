"""Pairs that bounds dismiss: the neighbours and their distances keep every bit."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastml.kernels import k_nearest
from fastml.kernels.arguments.arrays import UINT8
from fastml.kernels.distances import tile_shapes
from fastml.kernels.distances.arguments import L2, METRIC_CODES, METRICS
from fastml.kernels.neighbors import _bounds, _pruning, nearest
from fastml.kernels.runtime.jit import jit_enabled

DTYPES = ("float32", "float64")


def same(one, other) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


@pytest.fixture
def bounds(monkeypatch):
    """``bounds(one_in)``: bounds whatever the sizes, refusing rows with more than one pair in so many left; 0: none."""

    def use(one_in: int) -> None:
        monkeypatch.setattr(_bounds, "is_worthwhile", lambda *_: one_in > 0)
        monkeypatch.setattr(_pruning, "_PAIRS_PER_SURVIVOR", one_in)
        monkeypatch.setattr(_bounds, "_FEWEST_APART", 0)

    return use


def uniform(rng, n, d, dtype):
    return rng.random((n, d)).astype(dtype)


def normal(rng, n, d, dtype):
    return rng.standard_normal((n, d)).astype(dtype)


def whole_numbers(rng, n, d, dtype):
    return rng.integers(0, 256, (n, d)).astype(dtype)


def few_values(rng, n, d, dtype):
    return rng.integers(0, 3, (n, d)).astype(dtype)


def constant(rng, n, d, dtype):
    return np.full((n, d), 3.7, dtype)


def copies(rng, n, d, dtype):
    return rng.random((4, d)).astype(dtype)[rng.integers(0, 4, n)]


def last_places(rng, n, d, dtype):
    """Copies of one row, one column of each moved by a unit in the last place."""
    rows = np.tile(np.random.default_rng(1).random(d).astype(dtype), (n, 1))
    column = rng.integers(0, d, n)
    rows[np.arange(n), column] = np.nextafter(rows[np.arange(n), column], dtype.type(rng.choice([0, 2])))
    return rows


def far_from_zero(rng, n, d, dtype):
    return (1e4 + 1e-3 * rng.standard_normal((n, d))).astype(dtype)


def heavy_tails(rng, n, d, dtype):
    return rng.standard_cauchy((n, d)).astype(dtype)


def one_wide_column(rng, n, d, dtype):
    return (np.where(np.arange(d) == d // 2, 1e6, 1) * rng.standard_normal((n, d))).astype(dtype)


def unlike_columns(rng, n, d, dtype):
    return (rng.standard_normal((n, d)) + 1000.0 * np.arange(d)).astype(dtype)


def unlike_rows(rng, n, d, dtype):
    return normal(rng, n, d, dtype) * (10.0 ** rng.integers(-6, 6, (n, 1))).astype(dtype)


def tiny(rng, n, d, dtype):
    return (np.finfo(dtype).tiny * rng.standard_normal((n, d)) * 8).astype(dtype)


def small(rng, n, d, dtype):
    return (rng.standard_normal((n, d)) * (1e-21 if dtype.itemsize == 4 else 1e-160)).astype(dtype)


def large(rng, n, d, dtype):
    return (rng.standard_normal((n, d)) * (1e18 if dtype.itemsize == 4 else 1e153)).astype(dtype)


def largest(rng, n, d, dtype):
    return rng.choice([-1, -0.5, 0.5, 1], (n, d)).astype(dtype) * np.finfo(dtype).max


def not_finite(rng, n, d, dtype):
    rows = normal(rng, n, d, dtype)
    rows[rng.random(n) < 0.1, 0] = np.nan
    rows[rng.random(n) < 0.1, d - 1] = np.inf
    rows[rng.random(n) < 0.1, d // 2] = -np.inf
    return rows


def one_nan_in_most(rng, n, d, dtype):
    rows = uniform(rng, n, d, dtype)
    rows[rng.random(n) < 0.9, d // 3] = np.nan
    return rows


KINDS = (
    uniform, normal, whole_numbers, few_values, constant, copies, last_places, far_from_zero, heavy_tails,
    one_wide_column, unlike_columns, unlike_rows, tiny, small, large, largest, not_finite, one_nan_in_most,
)  # fmt: skip

# Without compilation, sums are NumPy's, in any order: whole numbers have the same in every order.
KINDS = KINDS if jit_enabled() else (whole_numbers, few_values)

# Rows that fill no tile, several groups of rows, several blocks of Y, columns that fill no vector and no chunk.
SIZES = ((3, 40, 1), (5, 33, 17), (90, 1100, 70), (2, 700, 800))
SIZES = SIZES if jit_enabled() else ((3, 40, 3), (5, 33, 17))


@np.errstate(all="ignore")
def rows_of(kind, rng, n, m, d, dtype):
    Y = kind(rng, m, d, np.dtype(dtype))
    X = kind(rng, n, d, np.dtype(dtype))
    X[: n // 3] = Y[rng.integers(0, m, n // 3)]
    return X, Y


@np.errstate(all="ignore")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_same_bits_with_and_without_bounds(rng, bounds, metric, dtype, kind):
    for n, m, d in SIZES:
        X, Y = rows_of(kind, rng, n, m, d, dtype)
        for k in sorted({1, 5, m} if m < 600 else {3, 70}):
            bounds(0)
            want = k_nearest(X, Y, k, metric=metric)
            for one_in in (1, 10, 10**6):  # refused are no rows, some, and all that have anything left
                bounds(one_in)
                got = k_nearest(X, Y, k, metric=metric, n_threads=8 if one_in == 10 else 1)
                assert same(got, want), (n, m, d, k, one_in)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_same_bits_with_exclusions(rng, bounds, metric, dtype):
    n, d = (700, 90) if jit_enabled() else (40, 9)
    for kind in (uniform, few_values, not_finite) if jit_enabled() else KINDS:
        X = kind(rng, n, d, np.dtype(dtype))
        Y = X.copy()
        for k in (1, 7, n - 1):
            bounds(0)
            want = k_nearest(X, Y, k, metric=metric, exclude_self=True)
            for one_in, n_threads in ((1, 1), (10, 2), (1, 3)):
                bounds(one_in)
                got = k_nearest(X, Y, k, metric=metric, exclude_self=True, n_threads=n_threads)
                assert same(got, want), (kind.__name__, k, one_in, n_threads)
        groups = rng.integers(0, 4, n)
        rows = groups[: n // 2], Y, groups, 9 if jit_enabled() else 3
        bounds(0)
        want = nearest._nearest(metric, X[: n // 2], *rows, 1)
        bounds(1)
        assert same(nearest._nearest(metric, X[: n // 2], *rows, 1), want), kind.__name__


@pytest.mark.needs_jit
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_same_bits_for_any_rows(data):
    metric = data.draw(st.sampled_from(list(METRICS)))
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n, m, d = data.draw(st.tuples(st.integers(1, 100), st.integers(2, 600), st.integers(1, 200)))
    X, Y = rows_of(data.draw(st.sampled_from(KINDS)), rng, n, m, d, dtype)
    with np.errstate(all="ignore"):
        X *= dtype.type(data.draw(st.sampled_from([1, 3e-9, 1e-30, 7e5, 1e30])))
    k = data.draw(st.integers(1, m))
    with pytest.MonkeyPatch.context() as patch:
        found = []
        for one_in in (0, 1, 5):
            patch.setattr(_bounds, "is_worthwhile", lambda *_, on=one_in > 0: on)
            patch.setattr(_pruning, "_PAIRS_PER_SURVIVOR", one_in)
            patch.setattr(_bounds, "_FEWEST_APART", 0)
            found.append(k_nearest(X, Y, k, metric=metric))
    assert same(found[0], found[1])
    assert same(found[0], found[2])


@pytest.mark.needs_jit
@pytest.mark.parametrize("wrong", ["distance to the grid", "scale"])
@pytest.mark.parametrize("metric", METRICS)
def test_the_comparison_notices_a_wrong_bound(rng, bounds, monkeypatch, metric, wrong):
    """Planted: rows of X nearer to the grid than they are, and steps that are too short."""
    n, m, d = 100, 2000, 100
    X, Y = normal(rng, n, d, np.dtype("f4")), normal(rng, m, d, np.dtype("f4"))
    bounds(0)
    want = k_nearest(X, Y, 5, metric=metric)
    bounds(1)
    assert same(k_nearest(X, Y, 5, metric=metric), want)
    if wrong == "scale":
        right_precision = _pruning._precision

        def wrong_precision(*grid):
            precision = right_precision(*grid)
            return precision._replace(steps_per_unit=0.7 * precision.steps_per_unit)

        monkeypatch.setattr(_pruning, "_precision", wrong_precision)
    else:
        right, distance = _pruning._round_rows, want[0].mean()

        def nearer(code, rows, grid, side, rounded, radius):
            right(code, rows, grid, side, rounded, radius)
            radius -= 0.3 * distance * grid.scale

        monkeypatch.setattr(_pruning, "_round_rows", nearer)
    assert not same(k_nearest(X, Y, 5, metric=metric), want)


@np.errstate(all="ignore")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_distances_to_the_grid(rng, metric, dtype, kind):
    """Not below the true ones, and hardly above; in exact arithmetic, but for L2's root."""
    dtype = np.dtype(dtype)
    X = kind(rng, 12, 37, dtype)
    grid = _bounds.choose_grid(metric, X, X)
    if grid is None:
        assert kind in (tiny, largest, constant)
        return
    for kept in (np.dtype(np.uint8), tile_shapes.HALVED):
        for side in _pruning._sides(dtype, kept):
            rounded, radius = np.empty(X.shape, kept), np.empty(len(X))
            _pruning._round_rows(METRIC_CODES[metric], X, grid, side, rounded, radius)
            for row, places, bound in zip(X, rounded, radius, strict=True):
                if not np.isfinite(row).all():
                    assert bound == np.inf
                    continue
                steps = [int(side.unit) * (place + int(side.taken)) for place in places.tolist()]
                assert 0 <= min(steps) <= max(steps) <= 255
                cells = zip(row.tolist(), grid.origin.tolist(), steps, strict=True)
                beside = [abs((Fraction(x) - Fraction(o)) * Fraction(float(grid.scale)) - step) for x, o, step in cells]
                if metric == "l2":
                    assert sum(b * b for b in beside) <= Fraction(bound) ** 2
                else:
                    assert (sum if metric == "l1" else max)(beside) <= Fraction(bound)
                norm = {"l1": np.sum, "l2": np.linalg.norm, "linf": np.max}[metric](np.array(beside, np.float64))
                assert bound <= max(norm, 0.5 * (metric == "linf")) * 1.001 + 0.01


def test_a_bound_of_the_total_is_a_bound():
    """From the limit on, whole totals belong to pairs that are at least so many steps apart."""
    for code, steps in itertools.product(
        METRIC_CODES.values(), (0.0, 0.5, 1.0, 3.999999, 4.0, 1000.3, 46340.0, 1e9, 1e300, np.inf)
    ):
        limit = Fraction(int(_pruning._limit(code, np.float64(steps))))
        least = np.iinfo(np.int32).max
        if limit < least:
            reached = Fraction(steps) ** 2 if code == L2 else Fraction(steps)
            assert reached <= limit <= reached * (1 + Fraction(1, 10**8)) + 2


@pytest.mark.parametrize(("dtype", "eps"), [("float32", 2.0**-23), ("float64", 2.0**-52)])
def test_what_is_out_of_reach_has_a_larger_total(dtype, eps):
    """A total may be off by (D + 8) eps and by what underflows; even so, steps beyond the cutoff exceed it."""
    tiny, huge, scale = float(np.finfo(dtype).tiny), float(np.finfo(dtype).max) / 2, 3.7
    precision = _pruning.Precision(scale, eps, tiny, huge)
    for code, d, total in itertools.product(
        METRIC_CODES.values(), (64, 784, 33_025), (0.0, tiny, 1e-20, 1.0, 12345.6, 1e30)
    ):
        cutoff = float(_pruning._cutoff(code, total, float(d), precision))
        true = Fraction(cutoff) / Fraction(scale)
        true = true**2 if code == L2 else true
        least = true * (1 - Fraction(eps) * (d + 8)) - 8 * d * Fraction(tiny)
        assert least > Fraction(total) or total == 0
        assert cutoff < 1.01 * (np.sqrt(total) if code == L2 else total) * scale + 1e-12
        bound = _pruning._computed(code, 5.0, float(d), precision)
        apart = Fraction(5) / Fraction(scale)
        assert Fraction(float(bound)) >= (apart**2 if code == L2 else apart) * (1 + Fraction(eps) * (d + 7))
    assert _pruning._cutoff(L2, huge, 64.0, precision) == np.inf
    assert _pruning._cutoff(L2, np.inf, 64.0, precision) == np.inf
    assert _pruning._cutoff(L2, np.nan, 64.0, precision) == np.inf


def test_where_pruning_is_worthwhile():
    big = 2000, 20_000, 784, 5
    fast = tile_shapes.multiplies_bytes()
    for metric in METRICS:
        assert not _bounds.is_worthwhile(metric, UINT8, *big)
        for dtype in ("f4", "f8"):
            assert _bounds.is_worthwhile(metric, np.dtype(dtype), *big) == fast
        for n, m, d, k in ((20, 10**6, 784, 5), (2000, 20_000, 8, 5), (2000, 20_000, 784, 5000), (100, 100, 784, 1)):
            assert not _bounds.is_worthwhile(metric, np.dtype("f4"), n, m, d, k)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_bounds_that_tell_nothing_apart_are_not_made(rng, metric, dtype):
    """Of heavy tails a grid that holds them knows nothing of the rest, however near or far rows are."""
    dtype, size = np.dtype(dtype), (40, 700)
    for scale in (1, 1e-18, 1e15):
        for kind in (uniform, normal, whole_numbers, copies, unlike_columns):
            X, Y = (kind(rng, n, 200, dtype) * dtype.type(scale) for n in size)
            assert _bounds.choose(metric, X, Y, 5, 40, 1) is None  # too few
            grid = _bounds.choose_grid(metric, X, Y)
            assert grid is not None
            assert _bounds._tells_apart(metric, grid, X, Y), kind.__name__
        X, Y = (heavy_tails(rng, n, 200, dtype) ** 3 * dtype.type(scale) for n in size)
        grid = _bounds.choose_grid(metric, X, Y)
        assert grid is None or not _bounds._tells_apart(metric, grid, X, Y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_who_gets_bounds(rng, monkeypatch, metric, dtype):
    monkeypatch.setattr(_bounds, "is_worthwhile", lambda *_: True)
    dtype = np.dtype(dtype)
    for kind in (uniform, heavy_tails):
        X, Y = (kind(rng, n, 200, dtype) ** (1 if kind is uniform else 3) for n in (40, 700))
        assert (_bounds.choose(metric, X, Y, 5, 40, 1) is not None) == (kind is uniform)


@pytest.mark.parametrize("metric", METRICS)
def test_whole_numbers_are_on_the_grid(rng, metric):
    """Bytes in floats, as pixels often come: rounding takes nothing from them."""
    X = whole_numbers(rng, 50, 40, np.dtype("f4"))
    X[0, :2] = 0, 255
    grid = _bounds.choose_grid(metric, X, X)
    assert grid is not None
    assert grid.scale == 1
    assert not grid.origin.any()


def test_flags_in_runs():
    for flags in itertools.product((False, True), repeat=5):
        runs = _pruning._runs(np.array(flags))
        assert [place for first, last in runs for place in range(first, last)] == np.flatnonzero(flags).tolist()
        assert all(later[0] > sooner[1] for sooner, later in itertools.pairwise(runs))
