"""L2 distances whose squares leave the range of their dtype: right, in the right order, with the bits of their pair."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from fastml import KNeighborsClassifier, KNeighborsRegressor, knn_cross_validation
from fastml.kernels import k_nearest, pairwise_l2
from fastml.kernels.distances import extremes, scales
from fastml.kernels.neighbors import _bounds, _extremes, _pruning, _symmetric, nearest
from fastml.kernels.neighbors.nearest import k_nearest_outside_group
from fastml.kernels.runtime.jit import jit_enabled

FLOATS = ("float32", "float64")
#: Decimal exponents of data whose squares are too small, at either border, ordinary, and too large.
EXPONENTS = {"float32": (-44, -38, -30, -20, -19, 0, 18, 19, 25, 37), "float64": (-322, -250, -154, 0, 153, 200, 307)}
SIZES = {"float32": (1e-25, 1e25), "float64": (1e-200, 1e200)}


def scaled(values: np.ndarray, exponent: int, dtype: str) -> np.ndarray:
    """``values * 10**exponent``, also where the power alone is out of range."""
    return np.nan_to_num((values * 10.0 ** (exponent / 2) * 10.0 ** (exponent / 2)).astype(dtype))


def mixtures(rng, n: int, d: int, dtype: str) -> dict[str, np.ndarray]:
    small, large = SIZES[dtype]
    normal = rng.normal(size=(n, d))
    some = normal.copy()
    some[::5] *= small
    some[1::5] *= large
    made = {
        "large": normal * large,
        "small": normal * small,
        "rows": normal * rng.choice([small, 0, 1, large], (n, 1)),
        "columns": normal * rng.choice([small, 1, large], (1, d)),
        "values": rng.integers(-2, 3, (n, d)) * rng.choice([small, 1, large], (n, d)),
        "a few rows": some,
        "lower border": normal * math.sqrt(scales.ordinary(np.dtype(dtype), d)[0]) / d**0.5,
        "upper border": normal * math.sqrt(np.finfo(dtype).max) / d**0.5,
    }
    made = {kind: rows.astype(dtype) for kind, rows in made.items()}
    for rows in made.values():
        rows[n // 2] = rows[0]
        rows[n // 3 : n // 3 + 3] = rows[1]
    return made


def exact_squares(X: np.ndarray, Y: np.ndarray) -> list[list[Fraction]]:
    rows, others = ([[Fraction(value) for value in row] for row in side.tolist()] for side in (X, Y))
    return [[sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for y in others] for x in rows]


def root(square: Fraction) -> float:
    """The root of an exact number, rounded to float64; infinite beyond it."""
    power = (square.numerator.bit_length() - square.denominator.bit_length()) // 2
    try:
        return math.ldexp(math.sqrt(square / Fraction(4) ** power), power)
    except OverflowError:
        return math.inf


def assert_right(ops, X: np.ndarray, Y: np.ndarray, ks=(1, 4)) -> None:
    """Distances right to rounding; neighbours in the order of the exact squares, but for those that rounding merges."""
    kind = np.finfo(X.dtype)
    tolerance = (X.shape[1] + 8) * float(kind.eps)
    exact = exact_squares(X, Y)
    truth = np.array([[root(square) for square in row] for row in exact])
    D = ops.pairwise_l2(X, Y).astype(np.float64)
    beyond = truth > float(kind.max) * (1 - tolerance)
    assert (D[beyond] >= float(kind.max) * (1 - 2 * tolerance)).all()
    np.testing.assert_allclose(D[~beyond], truth[~beyond], rtol=tolerance, atol=1.01 * float(kind.smallest_subnormal))
    for k in (*ks, len(Y)):
        distances, indices = ops.k_nearest(X, Y, k)
        np.testing.assert_array_equal(distances, np.take_along_axis(D, indices, axis=1))
        assert not (distances[:, 1:] < distances[:, :-1]).any()
        for found, squares in zip(indices.tolist(), exact, strict=True):
            wanted = sorted(range(len(Y)), key=lambda j, squares=squares: (squares[j], j))
            for one, other in zip(found, wanted[:k], strict=True):
                gap = abs(squares[one] - squares[other])
                assert one == other or gap <= Fraction(4 * tolerance) * max(squares[one], squares[other])


@pytest.mark.parametrize("D", [1, 17])
@pytest.mark.parametrize("dtype", FLOATS)
def test_distances_and_neighbors_at_every_scale(ops, rng, dtype, D):
    for exponent in EXPONENTS[dtype]:
        X, Y = (scaled(rng.normal(size=(rows, D)), exponent, dtype) for rows in (4, 15))
        Y[3] = Y[9] = X[0]
        assert_right(ops, X, Y)


@pytest.mark.parametrize("dtype", FLOATS)
def test_magnitudes_of_all_sizes_in_a_row_and_across_rows(ops, rng, dtype):
    for kind, rows in mixtures(rng, 18, 5, dtype).items():
        assert_right(ops, rows[:5], rows[3:]), kind


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_largest_and_the_smallest_numbers(ops, dtype):
    """Differences overflow, distances do, and everything between two subnormal numbers is subnormal."""
    kind = np.finfo(dtype)
    edges = np.array(
        [kind.max, -kind.max, kind.max / 2, 0, kind.smallest_subnormal, 3 * kind.smallest_subnormal, kind.tiny]
    )
    X = np.array([edges, np.roll(edges, 1), edges[::-1], np.zeros(7), np.full(7, kind.max)], dtype)
    assert_right(ops, X, np.concatenate([X / 3, X[::-1]]))
    far = np.array([[kind.max], [kind.max / 4], [-kind.max / 2]], dtype)  # two of the distances are beyond the range
    assert ops.k_nearest(np.array([[-kind.max]], dtype), far, 3)[1].tolist() == [[2, 1, 0]]


@pytest.mark.parametrize("dtype", FLOATS)
def test_squares_are_rounded_where_they_are_small_and_infinite_where_they_are_large(ops, dtype):
    small, large = SIZES[dtype]
    step = 2.0 ** (-70 if dtype == "float32" else -530)  # its square is subnormal
    X = np.array([[0.0], [step], [large], [small]], dtype)
    squares = ops.pairwise_l2(X, squared=True)
    assert squares[0, 1] == step * step > 0
    assert squares[0, 3] == 0
    assert np.isinf(squares[2, [0, 1, 3]]).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_infinity_and_nan_among_large_numbers(ops, rng, dtype):
    Y = (rng.normal(size=(20, 3)) * SIZES[dtype][1]).astype(dtype)
    Y[4, 1], Y[7, 0], Y[9] = np.inf, np.nan, Y[2]
    distances, indices = ops.k_nearest(Y[:5], Y, 20)
    assert indices[0, 0] == 0
    assert np.isfinite(distances[:4, :18]).all()
    assert np.isinf(distances[:4, 18]).all()
    assert (indices[:4, 18:] == [4, 7]).all()
    assert (indices[4] == [*[j for j in range(20) if j not in (4, 7)], 4, 7]).all()  # inf from all, NaN from itself
    np.testing.assert_array_equal(ops.pairwise_l2(Y)[4], np.where(np.isin(np.arange(20), [4, 7]), np.nan, np.inf))


# --------------------------------------------------------------------------------------- the same bits by every way


def same(one, other) -> bool:
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_pair_has_its_bits_alone_in_any_batch_and_for_any_number_of_threads(rng, dtype):
    n, d = (160, 70) if jit_enabled() else (20, 7)
    for kind, Y in mixtures(rng, n, d, dtype).items():
        D = pairwise_l2(Y, Y.copy())
        np.testing.assert_array_equal(pairwise_l2(Y), D, err_msg=kind)
        for n_threads in (1, 2, 3):
            np.testing.assert_array_equal(pairwise_l2(Y, n_threads=n_threads), D, err_msg=kind)
        for i in (0, n // 2, n - 1):
            np.testing.assert_array_equal(pairwise_l2(Y[i : i + 1], Y)[0], D[i], err_msg=kind)
        distances, indices = k_nearest(Y, Y, n)
        np.testing.assert_array_equal(distances, np.take_along_axis(D, indices, axis=1), err_msg=kind)


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_search_finds_the_same(rng, monkeypatch, dtype):
    """With and without bounds, among the rows themselves, in parts of Y, in batches and outside groups."""
    m, d = 500, 70
    for Y in mixtures(rng, m, d, dtype).values():
        X, groups = Y[:90], rng.integers(0, 4, m)
        every = k_nearest(Y, Y, m)
        others = every[1] != np.arange(m)[:, np.newaxis]
        outside = groups[every[1]] != groups[:, np.newaxis]
        for k in (1, 20):
            wanted = [part[:, :k] for part in every]
            for one_in in (0, 2, 10**9):
                monkeypatch.setattr(_bounds, "is_worthwhile", lambda *_, one_in=one_in: one_in > 0)
                monkeypatch.setattr(_pruning, "_PAIRS_PER_SURVIVOR", one_in)
                monkeypatch.setattr(_bounds, "_FEWEST_APART", 0)
                for n_threads in (None, 1, 3):
                    assert same(k_nearest(X, Y, k, n_threads=n_threads), [part[:90] for part in wanted])
            monkeypatch.setattr(_bounds, "is_worthwhile", lambda *_: False)
            monkeypatch.setattr(nearest, "_PART_ROWS", 96)
            assert same(k_nearest(X[7:9], Y, k, n_threads=3), [part[7:9] for part in wanted])
            for symmetric in (False, True):
                monkeypatch.setattr(_symmetric, "is_worthwhile", lambda *_, symmetric=symmetric: symmetric)
                found = k_nearest(Y, None, k, exclude_self=True, n_threads=2)
                assert same(found, [part[others].reshape(m, m - 1)[:, :k] for part in every])
                found = k_nearest_outside_group(Y, groups, k, n_threads=2)
                assert same(
                    found,
                    [np.stack([row[mask][:k] for row, mask in zip(part, outside, strict=True)]) for part in every],
                )


@pytest.mark.parametrize("dtype", FLOATS)
def test_totals_at_the_border_of_two_kinds_are_selected_by_kind(rng, monkeypatch, dtype):
    """The kind is that of the total as tiles make it, though the total made again may lie on the other side."""
    searched = []
    select = _extremes._select

    def watched(*args):
        searched.append(args[5].size)
        select(*args)

    monkeypatch.setattr(_extremes, "_select", watched)
    d = 40
    least, most = scales.ordinary(np.dtype(dtype), d)
    for total in (least, most):
        noise = 1 + 4 * np.finfo(dtype).eps * rng.normal(size=(300, d))
        Y = (rng.choice([-1, 1], (300, d)) * math.sqrt(total / d) * noise).astype(dtype)
        X = np.zeros((3, d), dtype)
        D = pairwise_l2(X, Y)
        every = k_nearest(X, Y, 300)
        np.testing.assert_array_equal(np.take_along_axis(D, every[1], axis=1), every[0])
        assert (np.diff(every[0], axis=1) >= 0).all()
        for k in range(1, 300, 13):
            assert same(k_nearest(X, Y, k), [part[:, :k] for part in every])
    # Of float64 rows the totals are made again in the same order of columns, and so come in the same order.
    assert (sum(searched) > 0) == (dtype == "float32")


def test_fewer_candidates_than_neighbors_leave_places_without_a_valid_index():
    X = np.float32([[0], [1e25], [3e25], [1e-25]])
    distances, indices = k_nearest_outside_group(X, np.array([0, 0, 0, 1]), 3)
    assert indices[3].tolist() == [0, 1, 2]
    assert indices[:3, 0].tolist() == [3, 3, 3]
    assert (indices[:3, 1:] >= len(X)).all()
    np.testing.assert_allclose(distances[:3, 0], [1e-25, 1e25, 3e25], rtol=1e-6)


# ------------------------------------------------------------------------------------- ordinary data are left alone


@pytest.fixture
def nothing_again(monkeypatch):
    def never(*_):
        raise AssertionError("totals were made again")

    for module in (extremes, _extremes):
        monkeypatch.setattr(module, "totals_again", never)
    monkeypatch.setattr(scales, "rescaled", never)


@pytest.mark.parametrize("dtype", FLOATS)
def test_equal_rows_are_not_made_again(rng, nothing_again, dtype):
    """Duplicates, self-joins and whole numbers in few dimensions are ordinary data."""
    X = rng.integers(0, 3, (90, 2)).astype(dtype)
    for n_threads in (None, 2):
        assert (k_nearest(X, X, 5, n_threads=n_threads)[0] == 0).all()
        k_nearest(X, X.copy(), 40, n_threads=n_threads)
        pairwise_l2(X, n_threads=n_threads)
        pairwise_l2(X, X.copy(), squared=True, n_threads=n_threads)
    small = (10.0 ** rng.uniform(-14, 0, (90, 3))).astype(dtype)  # numbers whose differences might be too small
    pairwise_l2(small, small.copy())
    k_nearest(small, small.copy(), 1)


# ------------------------------------------------------------------------------------------------------------- models


@pytest.mark.parametrize("dtype", FLOATS)
def test_models_are_right_at_every_scale(rng, dtype):
    X = rng.integers(-8, 9, (60, 3)).astype(dtype)
    labels, values = (X.sum(axis=1) > 0).astype(int), X[:, 0].astype(float)
    queries = rng.integers(-8, 9, (25, 3)).astype(dtype)
    power = 2.0 ** (90 if dtype == "float32" else 700)
    found = []
    for scale in np.array([1, power, 1 / power], dtype):
        classifier = KNeighborsClassifier(4, weights="distance").fit(X * scale, labels)
        regressor = KNeighborsRegressor(4, weights="distance").fit(X * scale, values)
        folds = knn_cross_validation(X * scale, labels, n_neighbors=[1, 6], weights="distance", random_state=0)
        of_values = knn_cross_validation(
            X * scale, values + 0.5, n_neighbors=[3], metrics="l2", weights="distance", random_state=0
        )
        found.append(
            [
                classifier.kneighbors(queries * scale)[1],
                classifier.predict_proba(queries * scale).round(5),
                regressor.predict(queries * scale).round(4),
                folds.scores,
                of_values.scores.round(5),
            ]
        )
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_allclose(two, one, rtol=1e-4)
