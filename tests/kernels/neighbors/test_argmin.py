"""The one nearest row: the bits and ties of `k_nearest`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastml.kernels import k_nearest, pairwise_argmin, pairwise_argmin_min
from fastml.kernels.distances.arguments import METRICS
from fastml.kernels.neighbors import argmin
from fastml.kernels.runtime.jit import inner, jit_enabled
from fastml.kernels.simd import comparisons

DTYPES = ("float32", "float64", "uint8")


def agrees(X, Y, **options) -> bool:
    distances, indices = k_nearest(X, Y, 1, **options)
    found = pairwise_argmin_min(X, Y, **options)
    one = pairwise_argmin(X, Y, **options)
    return all(
        a.tobytes() == b.tobytes() and a.dtype == b.dtype and a.shape == b.shape
        for a, b in zip((*found, one), (indices[:, 0], distances[:, 0], indices[:, 0]), strict=True)
    )


@given(st.data())
@settings(max_examples=80, deadline=None)
@pytest.mark.filterwarnings("ignore:(overflow|invalid)")
def test_bits_and_ties(data):
    """Any sizes, with ties, NaN, infinity, and squares out of range."""
    dtype, metric = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(list(METRICS)))
    n, d = data.draw(st.integers(0, 200 if jit_enabled() else 9)), data.draw(st.integers(0, 20))
    m = data.draw(st.sampled_from([1, 2, 31, 32, 33, 96, 97, 700, 2100] if jit_enabled() else [1, 33, 97]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    kind = data.draw(st.sampled_from(["ties", "normal", "falling", "not finite", "tiny", "huge"]))
    X, Y = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    if kind == "falling":
        Y = np.sort(np.abs(Y), axis=0)[::-1]
    if kind == "ties" or dtype == "uint8":
        X, Y = rng.integers(0, 3, (n, d)), rng.integers(0, 3, (m, d))
    X, Y = X.astype(dtype), Y.astype(dtype)
    if dtype != "uint8":
        if kind == "not finite":
            Y[rng.random((m, d)) < 0.3] = rng.choice([np.nan, np.inf])
            X[rng.random((n, d)) < 0.1] = np.nan
        elif kind == "tiny":
            X, Y = X * np.finfo(dtype).tiny * 9, Y * np.finfo(dtype).tiny * 9
        elif kind == "huge":
            X, Y = X * (np.finfo(dtype).max / 9), Y * (np.finfo(dtype).max / 9)
    assert agrees(X, Y, metric=metric, n_threads=data.draw(st.integers(1, 3)))


@pytest.mark.skipif(not jit_enabled(), reason="takes long as Python")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("n", "m", "d"), [(3, 9000, 4), (2000, 9000, 2), (300, 9000, 1024), (2500, 1500, 9)])
def test_other_ways_to_search(rng, metric, n, m, d):
    """Few queries of many rows, a tree, bounds, and several tasks."""
    assert agrees(*(rng.random((rows, d), np.float32) for rows in (n, m)), metric=metric, n_threads=2)


def test_heaps_are_not_asked(rng, monkeypatch):
    X, Y = rng.random((300, 5), np.float32), rng.random((40, 5), np.float32)
    want = k_nearest(X, Y, 1)[1][:, 0]
    monkeypatch.setattr(argmin.nearest, "_nearest", None)
    assert np.array_equal(pairwise_argmin(X, Y, n_threads=2), want)


@inner
def _smallest(keys, size, mask, ceiling):
    return comparisons.smallest(keys, size, mask, ceiling)


@pytest.mark.parametrize("bits", [32, 64])
def test_the_smallest_of_a_row(rng, bits):
    """Of any length, whatever lies beyond it; with signs cleared, and a largest key."""
    largest = int(np.iinfo(f"int{bits}").max)
    for size in (1, 2, 31, 32, 33, 63, 64, 95, 96):
        keys = rng.integers(-largest - 1, largest, 96, dtype=f"int{bits}")
        keys[size:] = 0
        for ceiling in (largest, largest >> 9):
            want = int(np.minimum(keys[:size] & largest, ceiling).min())
            assert _smallest(keys, size, largest, ceiling) == want


def test_what_does_not_fit_is_refused(ops):
    for function in (ops.pairwise_argmin, ops.pairwise_argmin_min):
        with pytest.raises(ValueError, match="Y has 2 columns, X has 1"):
            function([[0.0]], [[1.0, 2.0]])
        with pytest.raises(ValueError, match="metric is 'l3'"):
            function([[0.0]], [[1.0]], metric="l3")
        with pytest.raises(ValueError, match="Y has 0 rows; it must have at least 1"):
            function([[0.0]], np.empty((0, 1)))
