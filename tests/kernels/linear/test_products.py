"""Products of a few rows with a few weights against their NumPy twins."""

from __future__ import annotations

import numpy as np
import pytest

from fastml.kernels.linear import _products as linear_products
from fastml.kernels.runtime.jit import inner
from fastml.kernels.runtime.target import Target
from fastml.kernels.runtime.target import target as the_target
from fastml.kernels.simd import llvm

pytestmark = pytest.mark.needs_jit

FLOATS = ("float32", "float64")

NARROW = Target("made up", 16, frozenset({"fma"}))


def dot_of(rows: int, classes: int):
    if (rows, classes) == (8, 2):
        return inner(lambda X, top, W, c, b, Z, row: linear_products.dot(8, 2, X, top, W, c, b, Z, row))
    if (rows, classes) == (8, 1):
        return inner(lambda X, top, W, c, b, Z, row: linear_products.dot(8, 1, X, top, W, c, b, Z, row))
    return inner(lambda X, top, W, c, b, Z, row: linear_products.dot(1, 1, X, top, W, c, b, Z, row))


def add_outer_of(rows: int, classes: int):
    if (rows, classes) == (8, 2):
        return inner(lambda X, top, at, G, row, c, dW: linear_products.add_outer(8, 2, X, top, at, G, row, c, dW))
    if (rows, classes) == (8, 1):
        return inner(lambda X, top, at, G, row, c, dW: linear_products.add_outer(8, 1, X, top, at, G, row, c, dW))
    return inner(lambda X, top, at, G, row, c, dW: linear_products.add_outer(1, 1, X, top, at, G, row, c, dW))


def add_strip_of(classes: int):
    if classes == 5:
        return inner(lambda X, top, n, at, G, row, c, dW: linear_products.add_strip(5, X, top, n, at, G, row, c, dW))
    if classes == 2:
        return inner(lambda X, top, n, at, G, row, c, dW: linear_products.add_strip(2, X, top, n, at, G, row, c, dW))
    return inner(lambda X, top, n, at, G, row, c, dW: linear_products.add_strip(1, X, top, n, at, G, row, c, dW))


COLUMNS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 70, 133)


@pytest.mark.parametrize("target", ["own", "Arm, 128 bits"])
@pytest.mark.parametrize("tile", [(8, 2), (8, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("dtype", FLOATS)
def test_products_agree_with_their_twins(rng, monkeypatch, dtype, tile, target):
    """Around the width of a vector, with NaN and infinity that belong to other rows and columns."""
    if target != "own":
        monkeypatch.setattr(llvm, "target", lambda: NARROW)
    rows, classes = tile
    dot, add_outer = dot_of(*tile), add_outer_of(*tile)
    for columns in COLUMNS:
        # Small whole numbers: sums are exact in any order.
        X, W = (rng.integers(-8, 9, (13, columns)).astype(dtype) for _ in range(2))
        X[[2, 3 + rows]], W[[1, 2 + classes]] = np.nan, np.inf
        b = rng.integers(-8, 9, 13).astype(dtype)
        got = rng.integers(-8, 9, (13, 9)).astype(dtype)
        want = got.copy()
        dot(X, 3, W, 2, b, got, 4)
        linear_products.dot.twin(rows, classes, X, 3, W, 2, b, want, 4)
        np.testing.assert_array_equal(got, want, err_msg=f"dot, {columns} columns")

        G = rng.integers(-8, 9, (13, 9)).astype(dtype)
        for at in {0, min(16, columns)} if columns >= 32 else {0}:
            got = rng.integers(-8, 9, (9, columns + 1)).astype(dtype)
            want = got.copy()
            add_outer(X, 3, at, G, 4, 2, got)
            linear_products.add_outer.twin(rows, classes, X, 3, at, G, 4, 2, want)
            np.testing.assert_array_equal(got, want, err_msg=f"add_outer, {columns} columns from {at} on")


@pytest.mark.parametrize("target", ["own", "Arm, 128 bits"])
@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize("dtype", FLOATS)
def test_strips_agree_with_their_twin(rng, monkeypatch, dtype, classes, target):
    if target != "own":
        monkeypatch.setattr(llvm, "target", lambda: NARROW)
    add_strip = add_strip_of(classes)
    X, G = (rng.integers(-8, 9, (40, columns)).astype(dtype) for columns in (300, 7))
    X[[2, 3 + 33]] = np.nan
    width_of = {
        1: inner(lambda X: linear_products.strip_width(1, X)),
        2: inner(lambda X: linear_products.strip_width(2, X)),
        5: inner(lambda X: linear_products.strip_width(5, X)),
    }
    width = width_of[classes](X)
    monkeypatch.setattr(linear_products, "strip_width", lambda classes, X: width)
    for n, at in ((16, 5), (1, 0), (7, 300 - width), (33, 8)):
        for total in FLOATS if dtype == "float32" else [dtype]:
            got = rng.integers(-8, 9, (9, 301)).astype(total)
            want = got.copy()
            add_strip(X, 3, n, at, G, 4, 2, got)
            linear_products.add_strip.twin(classes, X, 3, n, at, G, 4, 2, want)
            assert got.dtype == total
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", FLOATS)
def test_products_hand_on_nan_and_infinity(dtype):
    columns = 2 * the_target().vector_bytes // np.dtype(dtype).itemsize + 1
    for place in (0, columns // 2, columns - 2, columns - 1):
        for bad in (np.nan, np.inf):
            X, W = np.ones((8, columns), dtype), np.ones((1, columns), dtype)
            X[1, place] = bad
            Z = np.zeros((8, 1), dtype)
            dot_of(8, 1)(X, 0, W, 0, np.zeros(1, dtype), Z, 0)
            np.testing.assert_array_equal(Z[:, 0], [columns, bad, *[columns] * 6])
