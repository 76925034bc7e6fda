"""Products whose factor is packed, and their tiles."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fastml.kernels.convolution._products import ProductTable, _tile_shape, convolve, weight_gradient
from fastml.kernels.runtime.jit import readonly


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_product_has_the_same_bits_whether_its_factor_is_packed_or_not(rng, dtype, same_bits):
    """It is for many rows: of the images together, and not of one alone."""
    for columns in (16, 48, 64, 112):
        left, right = rng.normal(size=600).astype(dtype), rng.normal(size=15 * columns + 2).astype(dtype)
        added = rng.normal(size=columns + 3).astype(dtype)
        table = ProductTable(
            groups=2, rows=7, outer=3, inner=5, left_group=20, left_step=4, left_outer=50, right_outer=5 * columns,
            right_inner=columns, result_group=7 * columns, result_row=columns, added=3, left=5, right=2, left_image=9,
            result_image=14 * columns,
        )  # fmt: skip
        together, alone = np.zeros((2, 20 * 14 * columns), dtype)
        numbers = table.as_array()
        convolve(left, right, added, together, numbers, 0, 20, 0, columns)
        for i in range(20):
            convolve(left, right, added, alone, numbers, i, i + 1, 0, columns)
        same_bits(together, alone, f"{columns} columns")
        assert together.all()


@pytest.mark.parametrize("along", [True, False])
def test_a_tile_fits_the_registers(along):
    """Sums, vectors of the right factor, and a number of the left one: with 16 registers none of them is spilled."""
    for sums, registers in ((8, 16), (16, 32)):
        vectors, rows = _tile_shape(SimpleNamespace(tile_sums=sums), along)
        assert 3 * registers // 4 <= vectors * rows <= registers - vectors - 1


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_row_has_the_same_bits_in_any_tile(rng, dtype, same_bits):
    """Tiles of all heights and widths: a row beside others, and alone."""
    columns, terms = 80, 11
    left, right = rng.normal(size=(14, terms)).astype(dtype), rng.normal(size=(terms, columns)).astype(dtype)
    numbers, across = readonly(left.reshape(-1)), readonly(left.T.flatten())
    vectors, zeros = readonly(right.reshape(-1)), readonly(np.zeros(columns, dtype))
    for rows in range(1, 15):
        for width in (16, 32, 48, 80):
            table = ProductTable(groups=1, rows=rows, outer=1, inner=terms, right_inner=columns, result_row=columns)
            made, one = np.zeros((2, rows, columns), dtype)
            whole = table._replace(left_step=terms).as_array()
            convolve(numbers, vectors, zeros, made.reshape(-1), whole, 0, 1, 0, width)
            for row in range(rows):
                alone = table._replace(rows=1, left=row * terms, result=row * columns).as_array()
                convolve(numbers, vectors, zeros, one.reshape(-1), alone, 0, 1, 0, width)
            same_bits(made, one, f"{rows} rows, {width} columns")
            np.testing.assert_allclose(made[:, :width], left[:rows] @ right[:, :width], rtol=1e-4, atol=1e-4)
            turned = table._replace(left_step=14, added_row=columns).as_array()
            gradient = np.ones((rows, columns), dtype)
            weight_gradient(across, vectors, gradient.reshape(-1), turned, 1, 0, width)
            same_bits(gradient[:, :width], made[:, :width], f"the gradient of {rows} rows, {width} columns")
