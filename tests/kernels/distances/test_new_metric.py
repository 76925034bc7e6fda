"""A metric is added to a copy of the package as docs/adding_a_metric.md says, and works everywhere at once."""

from __future__ import annotations

import pytest

from guides import blocks_of, copy_with, page, report_on_copy, run_on_copy

pytestmark = [pytest.mark.needs_jit, pytest.mark.slow]

TRY = """
import numpy as np
from fastml import KNeighborsClassifier, kernels, knn_cross_validation
from fastml.kernels import catalogue
from fastml.kernels.reference import loops, vectorized

rng = np.random.default_rng(0)
for dtype in ("float32", "uint8"):
    for n, m, d in ((1, 1, 0), (5, 7, 3), (13, 131, 70), (90, 300, 33)):
        X, Y = (rng.integers(0, 3, (rows, d)).astype(dtype) for rows in (n, m))
        found, nearest = kernels.pairwise_mismatches(X, Y), kernels.k_nearest(X, Y, min(m, 4), metric="mismatches")
        assert found.dtype == ("int32" if dtype == "uint8" else dtype)
        for tier in (loops, vectorized):
            assert np.array_equal(found, tier.pairwise_mismatches(X, Y)), (tier.__name__, dtype, d)
            for got, want in zip(nearest, tier.k_nearest(X, Y, min(m, 4), metric="mismatches"), strict=True):
                assert np.array_equal(got, want), (tier.__name__, dtype, d)
        assert np.array_equal(found, (X[:, None] != Y).sum(axis=2))

keys = [key for key in catalogue.ENTRIES if "mismatches" in key]
functions = ("k_nearest", "pairwise_argmin", "pairwise_argmin_min", "radius_counts", "radius_neighbors")
assert sorted(keys) == sorted(["pairwise_mismatches", *(f"{name}[mismatches]" for name in functions)])
for key in keys:
    entry = catalogue.ENTRIES[key]
    for dtype in ("float32", "uint8"):
        inputs = entry.make(entry.sizes["tiny"], dtype)
        for tier in ("compiled", "vectorized", "loops"):
            result = entry.tier(tier)(*inputs.args, **inputs.kwargs)
            assert catalogue.check(entry, result, entry.reference(inputs), dtype) <= 1, (key, dtype, tier)

X, y = rng.integers(0, 3, (80, 9)).astype("f4"), rng.integers(0, 3, 80)
model = KNeighborsClassifier(3, metric="mismatches").fit(X[:60], y[:60])
assert model.effective_metric_ == "mismatches"
distances, indices = model.kneighbors(X[60:])
want = loops.k_nearest(X[60:], X[:60], 3, metric="mismatches")
assert np.array_equal(indices, want[1]) and np.array_equal(distances, want[0])
votes = [np.bincount(y[row]).argmax() for row in want[1]]
assert np.array_equal(model.predict(X[60:]), votes)
result = knn_cross_validation(X, y, n_neighbors=[1, 3], metrics=["l1", "mismatches"], cv=4, random_state=0)
assert result.scores.shape[0] == 2
"""


def test_a_metric_added_as_the_page_says_works_in_all_tiers_and_models(tmp_path):
    guide = page("adding_a_metric.md")
    blocks = blocks_of(guide)
    assert "seven code files" in guide
    assert len({block.file for block in blocks}) == 7
    copy_with(blocks, tmp_path)
    run_on_copy(TRY, tmp_path)
    new_tiles = "tiles.METRICS = ['mismatches']"  # the others are measured in tests/benches
    report = report_on_copy(tmp_path, "*mismatches* float32 *", "distance tiles", first=new_tiles)
    assert "pairwise_mismatches" in report
    assert "mismatches, uint8" in report
