"""A new loss takes the files that docs/adding_a_loss.md names, and no other."""

from __future__ import annotations

import pytest

from guides import blocks_of, copy_with, page, report_on_copy, run_on_copy

pytestmark = [pytest.mark.slow, pytest.mark.needs_jit]

#: The three tiers agree, as far as the catalogue says; linear models have the loss; so has the estimator.
USE = """
import numpy as np
from fastml import SGDRegressor, kernels
from fastml.kernels import catalogue

ours = [entry for key, entry in catalogue.ENTRIES.items() if "log_cosh" in key]
assert [entry.key for entry in ours] == [
    "log_cosh", "log_cosh_gradient", "linear_loss_gradient[log_cosh]", "train_linear[log_cosh]",
    "linear_evaluation[log_cosh]",
]
for entry in ours:
    # What trains is one code for all losses, and takes seconds to compile: in the estimator's dtype only.
    for dtype in ("float64",) if entry.family == "training" else entry.dtypes:
        for regime in entry.regimes:
            inputs = entry.make(entry.sizes["tiny"], dtype, regime)
            truth = entry.reference(inputs)
            for tier in ("loops", "vectorized", "compiled"):
                result = entry.tier(tier)(*inputs.args, **inputs.kwargs)
                assert catalogue.check(entry, result, truth, dtype) <= 1, (entry.key, dtype, regime, tier)

rng = np.random.default_rng(0)
X = rng.normal(size=(500, 3))
y = X @ [1.0, -2.0, 0.5] + 3
y[::50] += 1000
model = SGDRegressor("log_cosh", learning_rate="constant", eta0=0.1, batch_size=50, alpha=0, random_state=0)
model.fit(X, y, X_val=X[:100], y_val=y[:100])
assert np.abs(model.coef_ - [1.0, -2.0, 0.5]).max() < 0.1, model.coef_
predicted = model.predict(X[:100])
assert abs(model.history_["validation_loss"][-1] - kernels.log_cosh(predicted, y[:100])) < 1e-6
assert SGDRegressor("log_cosh", learning_rate="optimal", random_state=0).fit(X, y).n_iter_ > 0
try:
    SGDRegressor("cosh").fit(X, y)
except ValueError as error:
    assert "log_cosh" in str(error), error
else:
    raise AssertionError("there is no loss of that name")
"""


def test_a_new_loss_is_known_everywhere(tmp_path):
    guide = page("adding_a_loss.md")
    blocks = blocks_of(guide)
    assert "Six code files" in guide
    assert len({block.file for block in blocks}) == 6
    copy_with(blocks, tmp_path)
    run_on_copy(USE, tmp_path)
    assert "log_cosh_gradient" in report_on_copy(tmp_path, "log_cosh_gradient *")
