"""Principal columns: what they say of distances is never too much, and neighbours keep every bit."""

from __future__ import annotations

import itertools
import math
import warnings
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastml.kernels import k_nearest
from fastml.kernels.distances import panels, tile_shapes
from fastml.kernels.neighbors import _bounds, _principal, _pruning, _symmetric, nearest
from fastml.kernels.runtime.jit import jit_enabled

DTYPES = ("float32", "float64", "uint8")
FLOATS = DTYPES[:2]

pytestmark = pytest.mark.skipif(not tile_shapes.multiplies_bytes(), reason="no bounds without fast products of bytes")


def same(one, other) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def of_low_rank(rng, n, d):
    turn = np.random.default_rng(1).standard_normal((6, d))
    return rng.standard_normal((n, 6)) @ turn + 0.05 * rng.standard_normal((n, d))


def uniform(rng, n, d):
    return rng.random((n, d))


def few_rows(rng, n, d):
    return of_low_rank(np.random.default_rng(2), 5, d)[rng.integers(0, 5, n)]


def constant_columns(rng, n, d):
    rows = of_low_rank(rng, n, d)
    rows[:, ::3] = 7.3
    return rows


def far_from_zero(rng, n, d):
    return of_low_rank(rng, n, d) + 3e3


def one_far_row(rng, n, d):
    rows = of_low_rank(rng, n, d)
    rows[n // 2] *= 1e9
    return rows


def unlike_rows(rng, n, d):
    return of_low_rank(rng, n, d) * 10.0 ** rng.integers(-6, 6, (n, 1))


def heavy_tails(rng, n, d):
    return rng.standard_cauchy((n, d))


def constant(rng, n, d):
    return np.full((n, d), 3.7)


def not_finite(rng, n, d):
    rows = of_low_rank(rng, n, d)
    rows[rng.random(n) < 0.1, 0] = np.nan
    rows[rng.random(n) < 0.1, d - 1] = np.inf
    return rows


def whole_numbers(rng, n, d):
    return np.rint(of_low_rank(rng, n, d) * 20 + 120).clip(0, 255)


KINDS = (
    of_low_rank, uniform, few_rows, constant_columns, far_from_zero, one_far_row, unlike_rows, heavy_tails, constant,
    not_finite, whole_numbers,
)  # fmt: skip
SIZES = ((3, 40, 9), (100, 1100, 70), (2, 700, 300), (1, 1, 100))

# Without compilation, sums are NumPy's, in any order: whole numbers have the same in every order.
KINDS = KINDS if jit_enabled() else (whole_numbers,)
SIZES = SIZES if jit_enabled() else ((3, 40, 9), (5, 33, 17))

#: What takes squares out of the range of a dtype, or to its ends.
SCALES = {
    "float32": (1.0, 1e-30, 1e-22, 1e-18, 1e17, 1e19, 1e30),
    "float64": (1.0, 1e-300, 1e-156, 1e-30, 1e150, 1e160),
}


@np.errstate(all="ignore")
def rows_of(kind, rng, n, m, d, dtype, scale=1.0):
    Y, X = kind(rng, m, d) * scale, kind(rng, n, d) * scale
    X[: n // 3] = Y[rng.integers(0, m, n // 3)]
    if dtype == "uint8" and kind is not whole_numbers:
        X, Y = (np.nan_to_num(rows * 20 + 120).clip(0, 255) for rows in (X, Y))
    return X.astype(dtype), Y.astype(dtype)


@pytest.fixture
def columns(monkeypatch):
    """``columns(count)``: that many principal columns whatever the sizes and the data; 0: no bounds at all."""

    def use(count: int, one_in: int = 10) -> None:
        monkeypatch.setattr(_bounds, "is_worthwhile", lambda *_: False)
        monkeypatch.setattr(_principal, "is_worthwhile", lambda metric, *_: count > 0 and metric == "l2")
        monkeypatch.setattr(_principal, "_is_flat", lambda *_: True)
        monkeypatch.setattr(_principal, "_best_count", lambda points, *_: min(count, *points.shape))
        monkeypatch.setattr(_pruning, "_PAIRS_PER_SURVIVOR", one_in)

    return use


@np.errstate(all="ignore")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_with_and_without_columns(rng, columns, dtype, kind):
    for n, m, d in SIZES:
        X, Y = rows_of(kind, rng, n, m, d, dtype)
        for k in sorted({1, min(5, m), min(m, 70)}):
            columns(0)
            want = k_nearest(X, Y, k)
            for count, one_in, n_threads in ((7, 1, 1), (31, 10, 3), (15, 10**6, 1)):  # refused are none, some, and all
                columns(count, one_in)
                assert same(k_nearest(X, Y, k, n_threads=n_threads), want), (n, m, d, k, count)


@pytest.mark.needs_jit
@np.errstate(all="ignore")
@pytest.mark.parametrize("dtype", FLOATS)
def test_same_bits_in_any_scale(rng, columns, dtype):
    for kind, scale in itertools.product((of_low_rank, far_from_zero, one_far_row), SCALES[dtype]):
        X, Y = rows_of(kind, rng, 70, 600, 80, dtype, scale)
        columns(0)
        want = k_nearest(X, Y, 5)
        columns(15)
        assert same(k_nearest(X, Y, 5), want), (kind.__name__, scale)


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_with_exclusions(rng, columns, dtype):
    _, Y = rows_of(of_low_rank, rng, 3, 700, 90, dtype)
    groups = rng.integers(0, 4, 700)
    rows = groups[:200], Y, groups, 9
    for k in (1, 7, 300):
        columns(0)
        want = k_nearest(Y, Y.copy(), k, exclude_self=True), nearest._nearest("l2", Y[:200], *rows, 1)
        columns(15)
        assert same(k_nearest(Y, Y.copy(), k, exclude_self=True, n_threads=2), want[0]), k
        assert same(nearest._nearest("l2", Y[:200], *rows, 1), want[1])


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_among_themselves(rng, columns, monkeypatch, dtype):
    """They go by columns, where there are such, before each distance is made once; in parts where progress is told."""
    monkeypatch.setattr(_symmetric, "is_worthwhile", lambda *_: True)
    n = panels.TASK_ROWS + 200
    _, X = rows_of(of_low_rank, rng, 3, n, 90, dtype)
    groups = rng.integers(0, 4, n)
    ways = (
        partial(k_nearest, X, None, 5),
        partial(k_nearest, X, X, 3, exclude_self=True, metric="sqeuclidean"),
        partial(nearest.k_nearest_outside_group, X, groups, 7),
        partial(nearest.k_nearest_outside_group, X, groups, 7, progress=lambda rows: told.append(rows)),
    )
    told: list[int] = []
    columns(0)
    want = [way(n_threads=1) for way in ways]
    assert sum(told) == n
    told.clear()
    columns(15)
    monkeypatch.setattr(_symmetric, "fill_heaps", None)
    assert all(same(way(n_threads=1), found) for way, found in zip(ways, want, strict=True))
    assert told == [panels.TASK_ROWS, 200]


@pytest.mark.needs_jit
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_same_bits_for_any_rows(data):
    dtype = data.draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n, m, d = data.draw(st.tuples(st.integers(1, 100), st.integers(2, 600), st.integers(2, 200)))
    scale = data.draw(st.sampled_from(SCALES.get(dtype, (1.0,))))
    X, Y = rows_of(data.draw(st.sampled_from(KINDS)), rng, n, m, d, dtype, scale)
    k, count = data.draw(st.integers(1, m)), data.draw(st.integers(1, 40))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_bounds, "is_worthwhile", lambda *_: False)
        want = k_nearest(X, Y, k)
        patch.setattr(_principal, "is_worthwhile", lambda *_: True)
        patch.setattr(_principal, "_is_flat", lambda *_: True)
        patch.setattr(_principal, "_best_count", lambda points, *_: min(count, *points.shape))
        assert same(k_nearest(X, Y, k), want)


def anchors_of(rows, count, skewed=0.0):
    """Return anchors in directions of a sample; `skewed` moves the first of them."""
    dtype = np.dtype(np.float32) if rows.dtype.kind == "u" else rows.dtype
    center = rows.astype(np.float64).mean(axis=0)
    size = float(np.sqrt(np.square(rows - center).sum(axis=1).mean()))
    directions = _principal._directions(((rows - center) / size).astype(dtype))[:count]
    directions[0] += skewed * directions[1]
    return _principal._anchors(center, directions, size, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_features_are_where_they_should_be(rng, dtype):
    """Within the slack of where exact arithmetic puts them, and not far beyond what rounding did."""
    n, d, count = (40, 50, 9) if jit_enabled() else (12, 10, 3)
    for kind in (of_low_rank, far_from_zero, whole_numbers, few_rows):
        if dtype == "uint8" and kind is far_from_zero:
            continue
        rows, _ = rows_of(kind, rng, n, n, d, dtype)
        anchors = anchors_of(rows, count)
        if anchors is None:
            assert kind in (far_from_zero, few_rows)
            continue
        made, slack = _principal.features(anchors, rows, 1)
        exact = [[Fraction(value) for value in row] for row in anchors.rows.tolist()]
        apart = [[a - b for a, b in zip(row, exact[0], strict=True)] for row in exact[1:]]
        distance, skew = Fraction(anchors.distance), Fraction(anchors.skew)
        among = np.array(
            [[float(sum(a * b for a, b in zip(u, v, strict=True)) / distance**2) for v in apart] for u in apart]
        )
        assert np.linalg.norm(among - np.eye(count), 2) <= anchors.skew
        for row, found, bound in zip(rows.tolist(), made.tolist(), slack.tolist(), strict=True):
            place = [Fraction(a) - b for a, b in zip(row, exact[0], strict=True)]
            true = [sum(a * b for a, b in zip(place, direction, strict=True)) / distance for direction in apart]
            seen = sum(t * t for t in true)
            square = sum(p * p for p in place)
            # |A z|^2 lies within these, since the skew bounds the operator norm of Q Q' - I.
            left = [math.sqrt(max(0, square - seen / (1 - sign * skew))) for sign in (1, -1)]
            off = math.sqrt(sum((Fraction(f) - t) ** 2 for f, t in zip(found[:-1], true, strict=True)))
            off_left = max(abs(found[-1] - value) for value in left)
            assert math.hypot(off, off_left) <= bound * (1 + 1e-9)
            assert bound < 1e-2 * math.sqrt(square) + 1e-3 * anchors.distance


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("skewed", [0.0, 5e-4])
def test_features_bring_no_rows_farther_apart(rng, dtype, skewed):
    n, d, count = (40, 50, 9) if jit_enabled() else (12, 10, 3)
    for kind in (of_low_rank, uniform, heavy_tails, one_far_row):
        X, Y = rows_of(kind, rng, n, n, d, dtype)
        anchors = anchors_of(Y, count, skewed)
        if anchors is None:
            continue
        assert anchors.skew >= skewed
        (x, x_slack), (y, y_slack) = (_principal.features(anchors, rows, 1) for rows in (X, Y))
        for i, j in itertools.product(range(n), range(n)):
            true = math.sqrt(
                sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(X[i].tolist(), Y[j].tolist(), strict=True))
            )
            said = math.dist(x[i].tolist(), y[j].tolist()) - x_slack[i] - y_slack[j]
            assert said <= true * anchors.stretch * (1 + 1e-12), (kind.__name__, i, j)


@np.errstate(all="ignore")
@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_that_cannot_be_placed_have_no_bound(rng, dtype):
    rows = of_low_rank(rng, 40, 30).astype(dtype)
    anchors = anchors_of(rows, 3)
    assert anchors is not None
    rows[0, 3], rows[1, 4], rows[2, 5] = np.nan, np.inf, np.finfo(dtype).max
    slack = _principal.features(anchors, rows, 1).slack
    assert np.isinf(slack[:3]).all()
    assert np.isfinite(slack[3:]).all()


def test_a_row_that_is_too_far_from_one_anchor_alone_has_no_bound(rng):
    """Its distance from the center is finite, from an anchor on the other side it is not."""
    largest = math.sqrt(float(np.finfo(np.float32).max))
    rows = of_low_rank(rng, 40, 30)
    rows = (rows * (largest / 4 / np.sqrt(np.square(rows).sum(axis=1).mean()))).astype(np.float32)
    anchors = anchors_of(rows, 3)
    assert anchors is not None
    center, anchor = anchors.rows[:2].astype(np.float64)
    away = (center - anchor) / np.sqrt(np.square(center - anchor).sum())
    rows[0] = center + 0.9 * largest * away
    made, slack = _principal.features(anchors, rows, 1)
    assert np.isinf(made[0]).any()
    assert np.isinf(slack[0])


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_few_distinct_rows_are_no_warning(rng, dtype):
    few = (100 + 20 * of_low_rank(rng, 30, 256)).clip(0, 255).astype(dtype)
    X, Y = few[rng.integers(0, 30, 4100)], few[rng.integers(0, 30, 8200)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _principal.choose(X, Y, 1)


def test_directions_that_are_not_orthonormal_are_refused(rng):
    rows = of_low_rank(rng, 40, 30)
    assert anchors_of(rows, 5) is not None
    assert anchors_of(rows, 5, skewed=0.1) is None
    assert anchors_of((rows + 1e7).astype(np.float32), 5) is None  # anchors are rounded


@pytest.mark.needs_jit
@pytest.mark.parametrize("wrong", ["slack", "stretch"])
def test_the_comparison_notices_a_wrong_bound(rng, columns, monkeypatch, wrong):
    """Planted: rows nearer to their features than they are, and features that are drawn apart."""
    X, Y = rows_of(of_low_rank, rng, 100, 2000, 100, "float32")
    columns(0)
    want = k_nearest(X, Y, 5)
    columns(7)
    assert same(k_nearest(X, Y, 5), want)
    right = _principal.features

    def nearer(anchors, rows, n_threads):
        made, slack = right(anchors, rows, n_threads)
        if wrong == "slack":
            return _principal.Features(made, slack - 0.2 * want[0].mean())
        return _principal.Features(made * 1.5, slack)

    monkeypatch.setattr(_principal, "features", nearer)
    assert not same(k_nearest(X, Y, 5), want)


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", DTYPES)
def test_who_gets_columns(rng, dtype):
    """Rows of low rank do, and of their directions enough; rows whose columns have nothing in common do not."""
    X, Y = rows_of(of_low_rank, rng, 5000, 9000, 300, dtype)
    anchors = _principal.choose(X, Y, 5)
    assert anchors is not None
    assert 32 <= len(anchors.rows) <= 96
    assert anchors.rows.dtype == (np.float32 if dtype == "uint8" else dtype)
    again = _principal.choose(X, Y, 5)
    assert again is not None
    assert same(again[:1], anchors[:1])
    for kind in (uniform, heavy_tails, constant):
        assert _principal.choose(*rows_of(kind, rng, 5000, 9000, 300, dtype), 5) is None, kind.__name__


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_are_used_where_they_pay(rng, monkeypatch, dtype):
    X, Y = rows_of(of_low_rank, rng, 300, 5000, 300, dtype)
    monkeypatch.setattr(_principal, "_FEWEST_PAIRS", 1 << 62)
    want = k_nearest(X, Y, 5)
    monkeypatch.setattr(_principal, "_FEWEST_PAIRS", 1)
    monkeypatch.setattr(_principal, "_MOST_WORK", 10)
    made = []
    right = _principal.features
    monkeypatch.setattr(_principal, "features", lambda *given: made.append(given) or right(*given))
    for n_threads in (1, 2):
        assert same(k_nearest(X, Y, 5, n_threads=n_threads), want)
    assert len(made) == 4
    assert same(made[0][0][:1], made[2][0][:1])


def test_where_it_is_worthwhile_to_look():
    big = 2000, 60_000, 784, 5
    assert _principal.is_worthwhile("l2", *big)
    assert not _principal.is_worthwhile("l1", *big)
    assert not _principal.is_worthwhile("linf", *big)
    for n, m, d, k in (
        (100, 10**6, 784, 5),
        (10**5, 1000, 784, 5),
        (10**5, 10**5, 64, 5),
        (2000, 60_000, 784, 5000),
        (300, 5000, 784, 5),
    ):
        assert not _principal.is_worthwhile("l2", n, m, d, k)
