"""Blocks of rows against their NumPy twins, and what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest

from fastml.kernels.runtime.jit import inner
from fastml.kernels.simd.row_blocks import SLACK, minus_numbers, row_maxima, row_sums, times_numbers

#: One vector, less, more, several at once; for float32 and float64, AVX2 and less.
COLUMNS = [1, 2, 3, 4, 5, 7, 8, 9, 10, 15, 16, 17, 31, 32, 33, 64, 65, 100]
ROWS = [1, 2, 7, 8, 9, 20]


@inner
def reduced(X, largest, total):
    row_maxima(X, largest)
    row_sums(X, total)


@inner
def changed(X, numbers, less, times):
    minus_numbers(X, numbers, less)
    times_numbers(X, numbers, times)


def within(array: np.ndarray, beyond: float) -> tuple[np.ndarray, np.ndarray]:
    """Put a copy of `array` into memory that holds `beyond` before and after it; return that memory and the copy."""
    memory = np.full(array.size + 128, beyond, array.dtype)
    part = memory[64 : 64 + array.size].reshape(array.shape)
    part[...] = array
    return memory, part


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_rows_are_reduced_as_numpy_does_and_nothing_beyond_them_counts(rng, dtype):
    for rows in ROWS:
        for columns in COLUMNS:
            _, X = within(rng.normal(size=(rows, columns)).astype(dtype), np.inf)
            largest, total = np.empty((2, rows + SLACK), dtype)
            reduced(X, largest, total)
            np.testing.assert_array_equal(largest[:rows], X.max(axis=1))
            # What any order of additions keeps to.
            bound = columns * np.finfo(dtype).eps * np.abs(X).sum(axis=1)
            assert (np.abs(total[:rows] - X.sum(axis=1)) <= bound).all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_rows_are_changed_as_numpy_does_and_nothing_beyond_them_is_written(rng, dtype):
    for rows in ROWS:
        for columns in COLUMNS:
            X, numbers = rng.normal(size=(rows, columns)).astype(dtype), rng.normal(size=rows).astype(dtype)
            (all_less, less), (all_times, times) = within(X, 7), within(X, 7)
            changed(X, numbers, less, times)
            np.testing.assert_array_equal(less, X - numbers[:, None])
            np.testing.assert_array_equal(times, X * numbers[:, None])
            for memory in (all_less, all_times):
                assert (memory[:64] == 7).all()
                assert (memory[-64:] == 7).all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_sum_depends_on_its_row_alone(rng, dtype, same_bits):
    for columns in COLUMNS:
        row = rng.normal(size=columns).astype(dtype)
        X = rng.normal(size=(21, columns)).astype(dtype)
        alone, total, _ = np.empty((3, 21 + SLACK), dtype)
        reduced(row[None], _, alone)
        for place in (0, 7, 20):
            X[place] = row
            reduced(X, _, total)
            same_bits(total[place], alone[0], f"{columns} columns, row {place}")


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)], ids=str)
def test_empty_blocks(shape):
    X, numbers = np.ones(shape), np.ones(shape[0])
    largest, total = np.empty((2, shape[0] + SLACK))
    reduced(X, largest, total)
    assert (largest[: shape[0]] == -np.inf).all()
    assert (total[: shape[0]] == 0).all()
    changed(X, numbers, np.empty(shape), np.empty(shape))


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_twins_agree(rng, dtype):
    X, numbers = rng.normal(size=(9, 11)).astype(dtype), rng.normal(size=9).astype(dtype)
    ours, twins = np.zeros((2, 2, 9 + SLACK), dtype)
    reduced(X, *ours)
    row_maxima.twin(X, twins[0])
    row_sums.twin(X, twins[1])
    np.testing.assert_allclose(ours[:, :9], twins[:, :9], rtol=1e-5)
    ours, twins = np.zeros((2, 2, 9, 11), dtype)
    changed(X, numbers, *ours)
    minus_numbers.twin(X, numbers, twins[0])
    times_numbers.twin(X, numbers, twins[1])
    np.testing.assert_array_equal(ours, twins)
