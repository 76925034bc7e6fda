"""The vector code of stacks of models: rows that are copied, the two products, sums in a fixed tree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastml.kernels.linear import _stacked
from fastml.kernels.linear._stacked import GROUP
from fastml.kernels.runtime import jit
from fastml.kernels.runtime.memory import aligned, padded
from fastml.kernels.simd.rows import copy_row, prefetch_item, prefetch_row

FLOATS = ("float32", "float64")
ROWS = 2 * GROUP

# Kernels around the intrinsics: these take literals, which only compiled code has.


@jit.inner
def copy(X, rows, block):  # type: ignore[no-untyped-def]
    for place in range(rows.size):
        prefetch_row(X, rows[place])
        prefetch_item(X[0], rows[place] % X.shape[1])
        copy_row(X, rows[place], block, place)


def scores_of_stack(transposed: bool) -> Callable[..., int]:
    @jit.inner
    def scores(block, n, stack, Z, X, ahead):  # type: ignore[no-untyped-def]
        return _stacked.stack_scores(block, n, stack, transposed, Z, X, ahead)

    return scores


def gradient_of_stack(transposed: bool) -> Callable[..., None]:
    @jit.inner
    def gradient(block, n, G, total):  # type: ignore[no-untyped-def]
        _stacked.add_gradient(block, n, G, transposed, total)

    return gradient


stack_scores = {transposed: scores_of_stack(transposed) for transposed in (True, False)}
add_gradient = {transposed: gradient_of_stack(transposed) for transposed in (True, False)}


def stack_of(rng: np.random.Generator, shape: tuple[int, ...], D: int, dtype: str) -> np.ndarray:
    stack = aligned((*shape, padded(D, np.dtype(dtype))), np.dtype(dtype))
    stack[..., :D] = rng.normal(size=(*shape, D))
    return stack


def test_arrays_begin_at_a_cache_line_and_hold_whole_vectors():
    for dtype in FLOATS:
        for shape in ((1, 16), (3, 5, 7), (0, 4), (2, 3)):
            array = aligned(shape, np.dtype(dtype))
            assert array.shape == shape
            assert array.dtype == dtype
            assert array.flags.c_contiguous
            assert array.size == 0 or array.ctypes.data % 64 == 0
            assert not array.any()
        for columns in range(1, 100):
            width = padded(columns, np.dtype(dtype))
            assert columns <= width < columns + 64
            assert width * np.dtype(dtype).itemsize % 64 == 0


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("D", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 90, 130])
def test_rows_are_copied_whole_and_nothing_else_is_written(rng, dtype, D):
    X = rng.normal(size=(50, D)).astype(dtype)
    rows = rng.integers(0, 50, ROWS)
    block = np.full((ROWS, padded(D + 1, np.dtype(dtype))), 7, dtype)
    copy(X, rows, block)
    np.testing.assert_array_equal(block[:, :D], X[rows])
    np.testing.assert_array_equal(block[:, D:], 7)


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scores", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 24])
def test_scores_are_products_and_every_row_is_asked_for_once(rng, same_bits, dtype, scores, transposed):
    for D in (1, 16, 40, 100):
        block, stack = stack_of(rng, (ROWS,), D, dtype), stack_of(rng, (scores,), D, dtype)
        X, ahead = rng.normal(size=(40, D)).astype(dtype), rng.integers(0, 40, ROWS)
        for n in (1, 3, 4, GROUP, GROUP + 1, ROWS):
            Z = np.full((scores, ROWS) if transposed else (ROWS, scores), np.nan, dtype)
            asked = stack_scores[transposed](block, n, stack, Z, X, ahead)
            assert 0 <= asked <= len(ahead)
            if jit.jit_enabled() and n == ROWS:
                assert asked == (len(ahead) if scores >= 8 else 0)
            exact = block.astype(np.longdouble) @ stack.T.astype(np.longdouble)
            Z = Z.T if transposed else Z
            size = np.abs(block) @ np.abs(stack).T + 1
            assert (np.abs(Z[:n] - exact[:n]) <= 8 * np.finfo(dtype).eps * size[:n]).all()
            whole = -(-n // GROUP) * GROUP
            assert np.isnan(Z[whole:]).all()


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_score_has_the_same_bits_in_every_tile(rng, same_bits, dtype):
    block, stack = stack_of(rng, (ROWS,), 75, dtype), stack_of(rng, (24,), 75, dtype)
    X, nothing = np.zeros((1, 75), dtype), np.zeros(0, np.intp)
    whole = np.zeros((24, ROWS), dtype)
    stack_scores[True](block, ROWS, stack, whole, X, nothing)
    for first, last in ((0, 1), (5, 6), (3, 5), (4, 7), (20, 24), (1, 24)):
        part = np.zeros((last - first, ROWS), dtype)
        stack_scores[True](block, ROWS, stack[first:last], part, X, nothing)
        same_bits(part, whole[first:last])
        part = np.zeros((ROWS, last - first), dtype)
        stack_scores[False](block, ROWS, stack[first:last], part, X, nothing)
        same_bits(np.ascontiguousarray(part.T), whole[first:last])


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scores", [1, 2, 3, 4, 5, 6, 7, 8, 11])
def test_gradients_are_added_for_the_rows_that_are_there(rng, dtype, scores, transposed):
    for D in (1, 16, 17, 40, 64, 100, 200):
        block, start = stack_of(rng, (ROWS,), D, dtype), stack_of(rng, (scores,), D, dtype)
        G = rng.normal(size=(ROWS, scores)).astype(dtype)
        for n in (0, 1, 3, GROUP, ROWS):
            spoiled, total = block.copy(), start.copy()
            spoiled[n:] = np.nan
            add_gradient[transposed](spoiled, n, np.ascontiguousarray(G.T) if transposed else G, total)
            assert_allclose(total, start + G[:n].T @ block[:n], rtol=0, atol=100 * np.finfo(dtype).eps)


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_gradient_has_the_same_bits_in_every_tile(rng, same_bits, dtype):
    block = stack_of(rng, (ROWS,), 200, dtype)
    G = rng.normal(size=(24, ROWS)).astype(dtype)
    whole = stack_of(rng, (24,), 200, dtype)
    start = whole.copy()
    add_gradient[True](block, 29, G, whole)
    for first, last in ((0, 1), (5, 6), (3, 5), (4, 7), (20, 24), (1, 24)):
        part = start[first:last].copy()
        add_gradient[True](block, 29, G[first:last].copy(), part)
        same_bits(part, whole[first:last])
        part = start[first:last].copy()
        add_gradient[False](block, 29, np.ascontiguousarray(G[first:last].T), part)
        same_bits(part, whole[first:last])


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_twins_do_the_same(rng, dtype):
    """They stand in for the intrinsics where nothing is compiled."""
    block, stack = stack_of(rng, (ROWS,), 40, dtype), stack_of(rng, (6,), 40, dtype)
    X, nothing = np.zeros((1, 40), dtype), np.zeros(0, np.intp)
    for transposed in (True, False):
        Z, twin = (np.zeros((6, ROWS) if transposed else (ROWS, 6), dtype) for _ in range(2))
        stack_scores[transposed](block, 20, stack, Z, X, nothing)
        for first, width in ((0, 4), (4, 2)):
            _stacked.score_strip.twin(width, transposed, block, 20, stack, first, twin, X, nothing)
        written = (slice(None), slice(20)) if transposed else (slice(20),)
        assert_allclose(twin[written], Z[written], rtol=1e-4, atol=1e-4)
        total, other = stack.copy(), stack.copy()
        add_gradient[transposed](block, 20, Z, total)
        for first, width in ((0, 4), (4, 2)):
            _stacked.gradient_strip.twin(width, transposed, block, 20, Z, first, other)
        assert_allclose(other, total, rtol=1e-3, atol=1e-3)
    one, two = np.zeros((1, 40), dtype), np.zeros((1, 40), dtype)
    copy(stack[:, :40].copy(), np.array([3]), one)
    copy_row.twin(stack[:, :40].copy(), 3, two, 0)
    np.testing.assert_array_equal(one, two)
