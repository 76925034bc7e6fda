"""Rows of 16-bit floats, widened a part at a time: the neighbors and bits of the float32 that they are."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from fastml.kernels import k_nearest
from fastml.kernels.distances import narrow_rows
from fastml.kernels.distances.arguments import METRICS
from fastml.kernels.runtime.jit import jit_enabled

METRIC_NAMES = (*METRICS, "sqeuclidean", pytest.param("inner_product", marks=pytest.mark.slow))


@pytest.fixture
def parts(monkeypatch):
    """Parts of as many rows of eight columns as there are, with three at a time; which were searched is noted."""
    monkeypatch.setattr(narrow_rows, "_PART_BYTES", 4 * 8 * 30)
    monkeypatch.setattr(narrow_rows, "_ROWS_PER_NEIGHBOR", 3)
    seen = []
    merged = narrow_rows._merged
    monkeypatch.setattr(narrow_rows, "_merged", lambda *all_of_it: seen.append(1) or merged(*all_of_it))
    return seen


def same(one, other) -> bool:
    return all(a.tobytes() == b.tobytes() and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def check(X, Y, k, **options):
    wide = np.asarray(Y, np.float32) if isinstance(Y, np.ndarray) else Y.float().numpy()
    want = k_nearest(X, wide, k, **options)
    for n_threads in (1, 2, 5):
        assert same(k_nearest(X, Y, k, n_threads=n_threads, **options), want)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8"])
@pytest.mark.parametrize("metric", METRIC_NAMES)
@pytest.mark.filterwarnings("ignore:(overflow|invalid)")
def test_neighbors_are_those_of_wide_rows(rng, parts, metric, dtype):
    """With ties, among them equal rows, NaN, infinity, and L2 whose squares leave the range of float32."""
    for kind in ("ties", "normal", "not finite", "large"):
        Y = rng.standard_normal((200, 8)).astype(np.float16)
        if kind == "ties":
            Y = rng.integers(0, 3, (200, 8)).astype(np.float16)
        elif kind == "not finite":
            Y[rng.random(Y.shape) < 0.05] = rng.choice([np.nan, np.inf])
        X = np.concatenate([Y[:3], rng.integers(0, 3, (4, 8))]).astype(dtype)
        if kind == "large" and dtype in ("float32", "float64"):
            X *= np.finfo(dtype).max / 9
        for k in (1, 7, 10):
            check(X, Y, k, metric=metric)
        check(X, Y[::-1, ::-1], 4, metric=metric)
    assert parts


@pytest.mark.parametrize("package", ["ml_dtypes", pytest.param("torch", marks=pytest.mark.slow)])
def test_bfloat16(rng, parts, package):
    module = pytest.importorskip(package)
    values = rng.standard_normal((150, 8)).astype(np.float32)
    Y = values.astype(module.bfloat16) if package == "ml_dtypes" else module.from_numpy(values).bfloat16()
    check(values[:5], Y, 6)
    assert parts
    tiny = values * np.float32(1e-30)
    check(tiny[:5], tiny.astype(module.bfloat16) if package == "ml_dtypes" else module.from_numpy(tiny).bfloat16(), 6)


def test_where_all_rows_are_widened_at_once(rng, parts):
    Y = rng.standard_normal((200, 8)).astype(np.float16)
    X = Y[:5].copy()
    groups = rng.integers(0, 2, 5), rng.integers(0, 2, 200)
    for options in (
        {"metric": "cosine"},
        {"algorithm": "tree"},
        {"metric_params": {"w": np.arange(8)}},
        {"exclude_self": True, "offset": 0},
        {"groups": groups},
        {"where": np.arange(200) % 3 > 0},
    ):
        check(X, Y, 4, **options)
    check(X, Y, 11)
    check(Y[:20].copy(), Y, 4)
    check(Y[:9], Y[:9], 3)
    assert not parts
    for wrong, message in (((X[:, :7], Y, 4), "Y has 8 columns, X has 7"), ((X, Y, 201), "k is 201; it must lie")):
        with pytest.raises(ValueError, match=message):
            k_nearest(*wrong)


@pytest.mark.skipif(not jit_enabled(), reason="takes long as Python")
def test_no_copy_of_all_rows_is_made(rng):
    Y = rng.integers(0, 100, (600_000, 16)).astype(np.float16)
    X = Y[:3].astype(np.float32)
    k_nearest(X, Y[:100], 4)
    tracemalloc.start()
    try:
        found = k_nearest(X, Y, 4, n_threads=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.6 * Y.nbytes, "float32 takes twice as much as float16"
    assert np.array_equal(found[1][:, 0], k_nearest(X, Y, 1)[1][:, 0])
