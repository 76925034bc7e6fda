"""Sums by cells: how rows are cut into ranges."""

from __future__ import annotations

import pytest

from fastml.kernels.training.cells import CELL, sums_of_cells


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("n", [1, 60_000, 463_715, 1_000_000])
def test_ranges_are_small_beside_the_share_of_a_thread(n, threads):
    """The thread that ends last may be a range late, and ranges have a power of two of cells."""
    ranges = []

    def add(first, last, stack):
        ranges.append((first, last))
        stack[:] = last - first

    assert sums_of_cells(add, n, (1, 2), seconds=1.0, call_rows=1 << 30, n_threads=threads).tolist() == [[n, n]]
    assert sorted(ranges)[0][0] == 0
    assert max(last - first for first, last in ranges) <= max(CELL, n / threads / 10)
