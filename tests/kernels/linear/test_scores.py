"""Linear scores: what NumPy's product has, and a row's bits from that row alone."""

from __future__ import annotations

import numpy as np
import pytest

from fastml.kernels.linear import scores as linear
from fastml.kernels.linear.scores import linear_scores
from fastml.kernels.runtime import parallel

FLOATS = ("float32", "float64")

LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "every other row": lambda X: np.repeat(X, 2, axis=0)[::2],
    "every other column": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "backwards": lambda X: X[::-1].copy()[::-1],
}


@pytest.mark.parametrize("classes", [1, 2, 3, 10])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_are_those_of_the_product(layout, dtype, classes, rng):
    """Around the width of a vector and of a tile, with rows that are not finite among the others."""
    for n, columns in ((0, 3), (1, 1), (3, 2), (9, 7), (33, 16), (50, 17), (70, 31), (300, 33), (13, 90)):
        # Small whole numbers: sums are exact in any order.
        X, W = rng.integers(-8, 9, (n, columns)).astype(dtype), rng.integers(-8, 9, (classes, columns)).astype(dtype)
        X[2::11], X[5::11] = np.nan, np.inf
        b = rng.integers(-8, 9, classes).astype(dtype)
        X, W, b = LAYOUTS[layout](X), LAYOUTS[layout](W), LAYOUTS[layout](b[:, np.newaxis])[:, 0]
        for array in (X, W, b):
            array.flags.writeable = False
        with np.errstate(invalid="ignore"):
            expected = X @ W.T + b
        found = linear_scores(X, W, b)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected, err_msg=f"{n} rows of {columns} columns")


@pytest.mark.parametrize(("stored", "weights"), [("f4", "f8"), ("f8", "f4"), ("f4", "i8"), ("f4", "f4")])
def test_dtypes_are_those_of_the_product(stored, weights, rng):
    X, W = rng.integers(-8, 9, (600, 5)).astype(stored), rng.integers(-8, 9, (2, 5)).astype(weights)
    expected = X @ W.T + 1
    for rows in (X, np.asfortranarray(X)):
        found = linear_scores(rows, W, 1)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(1, 4), (3, 4), (3, 6), (5,), (3, 5, 1)])
def test_coefficients_of_other_columns_are_refused(shape):
    """They would be read beyond their end: a model's coefficients may have been set by anyone."""
    for rows in (np.ones((300, 5)), np.ones((300, 5), order="F")):
        with pytest.raises(ValueError, match=r"coefficients have shape .* must have \(C, 5\)"):
            linear_scores(rows, np.ones(shape), 0.0)


@pytest.mark.needs_jit
@pytest.mark.parametrize("classes", [1, 2, 3, 10])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("columns", [1, 3, 8, 13, 90, 131])
def test_the_bits_of_a_row_depend_on_that_row_alone(columns, dtype, classes, monkeypatch, rng):
    monkeypatch.setattr(linear, "_BLOCK", 32)
    monkeypatch.setattr(parallel, "SMALL_SECONDS", 0.0)
    X, W, b = (rng.normal(size=shape).astype(dtype) for shape in ((1100, columns), (classes, columns), classes))
    expected = linear_scores(X, W, b, 1)
    assert expected == pytest.approx(X.astype("f8") @ W.T.astype("f8") + b, rel=1e-4, abs=1e-4)
    for layout in LAYOUTS.values():
        for n_threads in (1, 3):
            assert linear_scores(layout(X), W, b, n_threads).tobytes() == expected.tobytes()
        for here in (slice(0, 1), slice(1, 10), slice(7, 1099), slice(3, 60, 5)):
            assert linear_scores(layout(X)[here], W, b).tobytes() == expected[here].tobytes()
    # Nor does a score depend on those of other classes.
    assert linear_scores(X, W[-1:], b[-1:]).tobytes() == expected[:, -1:].tobytes()


@pytest.mark.needs_jit
def test_columns_in_several_runs(rng):
    X, W = rng.normal(size=(2 * linear._RUN + 700, 37)), rng.normal(size=(1, 37))
    assert linear_scores(np.asfortranarray(X), W, 0.5, 1).tobytes() == linear_scores(X, W, 0.5).tobytes()
