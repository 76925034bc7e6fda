"""Nearest donors of missing values: against all pairs in NumPy, by the promised order, the same bits in any cut."""

from __future__ import annotations

import numpy as np
import pytest

from fastml.kernels.neighbors import donors


def rows_with_gaps(rng, n, d, share, whole=False):
    X = rng.integers(0, 4, (n, d)).astype(float) if whole else rng.normal(size=(n, d))
    X[rng.random((n, d)) < share] = np.nan
    return X


def expected(X, Y, k):
    """Return rows, columns, distances and indices of all missing values, by all pairs."""
    squares = (X[:, None] - Y) ** 2
    common = (~np.isnan(squares)).sum(axis=2)
    totals = np.zeros(common.shape)
    for column in range(X.shape[1]):  # in this order
        totals += np.nan_to_num(squares[:, :, column])
    with np.errstate(invalid="ignore"):
        means = totals / common
    counts = (~np.isnan(Y)).sum(axis=0)
    k = min(k, max(1, counts.max()))
    rows, columns = np.nonzero(np.isnan(X) & (counts > 0))
    distances, indices = np.full((len(rows), k), np.nan), np.full((len(rows), k), -1)
    for place, (row, column) in enumerate(zip(rows, columns, strict=True)):
        able = np.flatnonzero(~np.isnan(Y[:, column]) & (common[row] > 0))
        best = able[np.lexsort((able, means[row, able]))][:k]
        indices[place, : len(best)] = best
        distances[place, : len(best)] = np.sqrt(means[row, best] * X.shape[1])
    return rows, columns, distances, indices


@pytest.mark.parametrize("whole", [False, True], ids=["normal", "ties"])
@pytest.mark.parametrize(
    ("n", "m", "d", "share", "k"),
    [(9, 70, 4, 0.4, 5), (40, 63, 1, 0.3, 2), (20, 64, 3, 0.9, 7), (5, 130, 9, 0.1, 128), (30, 3, 6, 0.5, 5)],
)
def test_donors_are_those_of_all_pairs(rng, n, m, d, share, k, whole):
    X, Y = rows_with_gaps(rng, n, d, share, whole), rows_with_gaps(rng, m, d, share, whole)
    found = donors.nearest_donors(donors.pack(Y), X, k, n_threads=1)
    rows, columns, distances, indices = expected(X, Y, k)
    assert np.array_equal(found.rows, rows)
    assert np.array_equal(found.columns, columns)
    assert np.array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-14)


@pytest.mark.needs_jit
def test_the_same_bits_in_any_cut_and_for_any_threads(rng, monkeypatch, same_bits):
    X, Y = rows_with_gaps(rng, 150, 5, 0.3, whole=True), rows_with_gaps(rng, 1000, 5, 0.3, whole=True)
    packed = donors.pack(Y)
    whole = donors.nearest_donors(packed, X, 4, n_threads=1)
    one = donors.nearest_donors(packed, X[37:38], 4)
    mine = whole.rows == 37
    same_bits(one.distances, whole.distances[mine])
    assert np.array_equal(one.indices, whole.indices[mine])
    monkeypatch.setattr(donors, "_CALL_COLUMNS", 4096)  # some panels at a time
    for n_threads in (1, 3):
        again = donors.nearest_donors(packed, X, 4, n_threads=n_threads)
        for a, b in zip(again, whole, strict=True):
            same_bits(a, b)


def test_equal_ratios_are_ties():
    """Mean squares of 2 over two and over three columns, and of 4 over one: of equals the earlier row is nearer."""
    nan = np.nan
    Y = np.array([[1.0, 1.0, 2.0, 5.0], [nan, 2.0, 0.0, 6.0], [2.0, nan, nan, 7.0], [nan, 2.0, nan, 8.0]])
    found = donors.nearest_donors(donors.pack(Y), np.array([[0.0, 0.0, 0.0, nan]]), 4)
    assert found.indices.tolist() == [[0, 1, 2, 3]]
    assert found.distances.tolist() == [[np.sqrt(8.0), np.sqrt(8.0), 4.0, 4.0]]


def test_what_is_too_large_to_square_comes_last_and_is_there():
    Y = np.array([[1e300, 1.0], [1.0, 2.0], [np.nan, 3.0]])
    found = donors.nearest_donors(donors.pack(Y), np.array([[0.0, np.nan]]), 3)
    assert found.indices.tolist() == [[1, 0, -1]]
    assert np.array_equal(found.distances, [[np.sqrt(2.0), np.inf, np.nan]], equal_nan=True)


@pytest.mark.parametrize("shape", [(0, 3), (4, 3)])
def test_nothing_is_missing(shape):
    found = donors.nearest_donors(donors.pack(np.zeros((5, 3))), np.zeros(shape), 2)
    assert found.distances.shape == (0, 2)


def test_nobody_has_the_column():
    Y = np.array([[1.0, np.nan], [2.0, np.nan]])
    assert len(donors.nearest_donors(donors.pack(Y), np.array([[1.0, np.nan]]), 2).rows) == 0


def test_inputs_may_be_read_only_and_strided(rng, same_bits):
    X = rows_with_gaps(rng, 30, 4, 0.3)
    found = donors.nearest_donors(donors.pack(X), X, 3)
    wide = np.repeat(X, 2, axis=1)
    wide.setflags(write=False)
    again = donors.nearest_donors(donors.pack(wide[:, ::2]), wide[:, ::2], 3)
    for a, b in zip(again, found, strict=True):
        same_bits(a, b)


def test_places_are_where_values_are(rng):
    Y = rng.normal(size=(150, 3))
    packed = donors.pack(Y)
    rows, columns = rng.integers(0, 150, 20), rng.integers(0, 3, 20)
    assert np.array_equal(packed.panels.ravel()[packed.places(rows, columns)], Y[rows, columns])
