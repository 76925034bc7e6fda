"""Bounds as for Arm: searches whose tiles have Arm's formulas, in other instructions."""

from __future__ import annotations

import os

import pytest

from checkout import ROOT, python_path, run_python

pytestmark = [pytest.mark.needs_jit, pytest.mark.targets]

#: Compares searches with and without bounds, and says how many queries had some, by metric.
SEARCHES = """
import sys
from arm import portable
from fastml.kernels.distances import _tile_metrics
from fastml.kernels.runtime import target
target._ask_compiler = lambda: target.Target("made up", 16, frozenset({"fma", "neon", *sys.argv[1:]}))
_tile_metrics.call = portable
import numpy as np
from fastml.kernels import k_nearest, pairwise_l2
from fastml.kernels.distances.arguments import METRICS
from fastml.kernels.neighbors import _bounds, _principal, _pruning

pruned, right = {}, _pruning.fill_heaps

def counted(metric, bounds, first, last, *rest):
    pruned[metric] = pruned.get(metric, 0) + last - first
    return right(metric, bounds, first, last, *rest)

def same(metric, X, Y):
    found = k_nearest(X, Y, 5, metric=metric)
    _bounds.is_worthwhile = _principal.is_worthwhile = lambda *_: False
    want = k_nearest(X, Y, 5, metric=metric)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(found, want))

_pruning.fill_heaps = counted
rng = np.random.default_rng(0)
assert all(_bounds.is_worthwhile(metric, np.dtype("f4"), 2000, 20_000, 784, 5) for metric in METRICS)
for metric in METRICS:
    for one_in in (1, 10):  # refused are no rows, and some
        _pruning._PAIRS_PER_SURVIVOR = one_in
        _bounds.is_worthwhile = lambda *_: True
        same(metric, *(rng.random((n, 300), np.float32) for n in (90, 1100)))
turn = rng.standard_normal((6, 300))
X, Y = ((20 * rng.standard_normal((n, 6)) @ turn + 120).clip(0, 255).astype(np.uint8) for n in (90, 1100))
_principal.is_worthwhile = _principal._is_flat = lambda *_: True
_principal._best_count = lambda points, *_: 15
same("l2", X, Y)
for columns in (7, 33_026):  # the second asks for int64
    X, Y = (rng.choice([0, 255], (n, columns)).astype(np.uint8) for n in (3, 9))
    X[0], Y[0] = 255, 0
    want = np.square(X.astype(np.int64)[:, None] - Y).sum(axis=2)
    assert (pairwise_l2(X, Y, squared=True) == want).all()
print(*pruned.values())
"""


@pytest.mark.parametrize("features", [(), ("dotprod",)], ids=["NEON", "dot products"])
def test_same_bits_with_and_without_bounds(tmp_path, features):
    path = os.pathsep.join([python_path(), str(ROOT / "tests" / "support")])
    told = run_python(SEARCHES, *features, NUMBA_CACHE_DIR=str(tmp_path), PYTHONPATH=path)
    assert told.split() == ["180", "270", "180"], "queries that had bounds, by metric"
