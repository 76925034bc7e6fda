"""Rows in vector code against their NumPy twins."""

from __future__ import annotations

import pytest

from fastml.kernels.runtime.jit import inner
from fastml.kernels.simd.rows import prefetch

pytestmark = pytest.mark.needs_jit


def test_prefetch_touches_nothing(rng):
    run = inner(lambda X, first, last: prefetch(X, first, last))
    X = rng.normal(size=(5, 33)).astype("f4")
    before = X.copy()
    for first, last in ((0, 5), (4, 4), (5, 5), (9, 5), (0, 0)):
        run(X, first, last)
    run(X[:0], 0, 0)
    assert X.tobytes() == before.tobytes()
