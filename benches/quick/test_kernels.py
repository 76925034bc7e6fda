"""pytest-benchmark suite: ``make bench-quick`` shows loop, vectorised and JIT side by side.

One group per kernel and dtype. All tiers of a group run on the same arrays, those small enough for
the plain loop, so a row of the table compares like with like; the report is the place for large
ones. Every result is compared with the reference before it is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fastml.kernels import catalogue
from fastml.kernels.runtime import parallel

from ..measuring.timing import blas_limit

pytest.importorskip("pytest_benchmark", reason="the suite needs the extra bench")

_THREADS = parallel.default()[0]
#: Name in the table -> tier of the catalogue and arguments of its own.
_WAYS: dict[str, tuple[str, dict[str, int]]] = {
    "loop": ("loops", {}),
    "vectorised": ("vectorized", {}),
    "JIT-1": ("compiled", {"n_threads": 1}),
    **({f"JIT-{_THREADS}": ("compiled", {"n_threads": _THREADS})} if _THREADS > 1 else {}),
}


def _cases() -> list[Any]:
    return [
        pytest.param(entry, dtype, way, id=f"{entry.key}-{dtype}-{way}")
        for entry in catalogue.ENTRIES.values()
        for dtype in entry.dtypes
        for way in _WAYS
    ]


@pytest.mark.parametrize(("entry", "dtype", "way"), _cases())
def test_kernel(benchmark: Any, entry: Any, dtype: str, way: str) -> None:
    tier, more = _WAYS[way]
    function: Callable[..., Any] = entry.tier(tier)
    inputs = entry.make(entry.loop_size, dtype)
    arguments = {**inputs.kwargs, **more}
    benchmark.group = f"{entry.key} {dtype}"
    benchmark.name = way
    with blas_limit(_THREADS if more.get("n_threads", 1) > 1 else 1):
        # The first call compiles; it is outside the clock and its result is checked.
        result = function(*inputs.args, **arguments)
        assert catalogue.check(entry, result, entry.reference(inputs), dtype) <= 1
        benchmark.pedantic(function, inputs.args, arguments, rounds=5, iterations=1, warmup_rounds=1)
