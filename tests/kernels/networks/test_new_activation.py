"""The guide to a new activation, followed on a copy of the package: five files of code, and all else knows it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastml.kernels.networks.activations import activate, activate_backward
from fastml.kernels.networks.arguments import ACTIVATIONS
from guides import blocks_of, copy_with, page, report_on_copy, run_on_copy

PROGRAM = """
import numpy as np
from fastml import MLPClassifier, kernels
from fastml.kernels import catalogue
from fastml.kernels.reference import loops, vectorized

rng = np.random.default_rng(0)
X, units = rng.normal(size=(40, 5)), (5, 7, 6, 3)
y, p = rng.integers(0, 3, 40), rng.normal(size=111)
for batch_norm in (False, True):
    q = np.concatenate([p[:42], np.ones(21), p[42:90], np.ones(18), p[90:]]) if batch_norm else p
    found = [
        tier.network_loss_gradient(
            "softmax_cross_entropy", X, y, q, units, activation="softsign", l2=0.1, batch_norm=batch_norm
        )
        for tier in (kernels, loops, vectorized)
    ]
    for loss, gradient in found[1:]:
        assert abs(loss - found[0][0]) < 1e-12
        np.testing.assert_allclose(gradient, found[0][1], rtol=0, atol=1e-12)
entry = catalogue.ENTRIES["network_scores[softsign]"]
inputs = entry.make(entry.sizes["tiny"], "float32", entry.regimes[0], 0)
scores = kernels.network_scores(*inputs.args, **inputs.kwargs)
assert catalogue.check(entry, scores, entry.reference(inputs), "float32") <= 1
X = np.concatenate([rng.normal(size=(100, 2)) - 1.5, rng.normal(size=(100, 2)) + 1.5])
y = np.repeat(["left", "right"], 100)
model = MLPClassifier((8,), activation="softsign", batch_size=10, max_iter=50, tol=None, random_state=0).fit(X, y)
assert model.score(X, y) > 0.95
"""


@pytest.mark.slow
@pytest.mark.needs_jit
def test_a_new_activation_takes_five_files(tmp_path):
    guide = page("adding_an_activation.md")
    blocks = blocks_of(guide)
    assert "Five code files" in guide
    assert len({block.file for block in blocks}) == 5
    copy_with(blocks, tmp_path)
    run_on_copy(PROGRAM, tmp_path)
    assert "softsign" in report_on_copy(tmp_path, "network_scores*softsign* *")


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_formulas_are_those_of_the_table(rng, name, dtype):
    """One that has no branch of its own would be the identity."""
    z, d = rng.normal(size=(2, 50)).astype(dtype) * 3
    words = {"max": np.maximum, "exp": np.exp, "tanh": np.tanh}
    a, g = np.empty_like(z), np.empty_like(z)
    number, (formula, derivative) = list(ACTIVATIONS).index(name), ACTIVATIONS[name]
    activate(number, z, a)
    activate_backward(number, a, d, g)
    tolerance = 8 * np.finfo(dtype).eps
    assert_allclose(a, eval(formula, words, {"z": z.astype("float64")}), rtol=tolerance, atol=0)
    assert_allclose(g, d * eval(derivative, words, {"a": a.astype("float64")}), rtol=tolerance, atol=tolerance)
