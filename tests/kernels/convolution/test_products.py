"""Products whose factor is packed."""

from __future__ import annotations

import numpy as np
import pytest

from fastml.kernels.convolution._products import ProductTable, convolve


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
