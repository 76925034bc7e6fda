"""Predictions of all models whose score is linear: each row's from that row alone."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import is_classifier

from fastml import LinearRegression, LinearSVC, LogisticRegression, Ridge, SGDClassifier, SGDRegressor

pytestmark = pytest.mark.needs_jit

MODELS = {
    "LinearRegression": LinearRegression(),
    "Ridge": Ridge(),
    "LogisticRegression": LogisticRegression(max_iter=2, tol=1.0),
    "LinearSVC": LinearSVC(tol=0.9, random_state=0),
    "LinearSVC, Crammer and Singer": LinearSVC(tol=0.9, multi_class="crammer_singer", random_state=0),
    "SGDClassifier": SGDClassifier(max_iter=1, tol=None, random_state=0),
    "SGDRegressor": SGDRegressor(max_iter=1, tol=None, random_state=0),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_a_row_is_scored_alone_as_among_others(name, targets, dtype, rng):
    model = MODELS[name]
    X = rng.normal(size=(400, 53)).astype(dtype)
    if is_classifier(model):
        y = (X[:, : targets + (targets == 1)] + rng.normal(size=(400, targets + (targets == 1)))).argmax(axis=1)
    elif targets == 1 or name == "SGDRegressor":
        y = X[:, 0] + 1
    else:
        y = X[:, :targets] + 1
    model.fit(X, y)
    scores = model.decision_function if is_classifier(model) else model.predict
    expected = scores(X)
    assert expected.dtype == dtype
    wanted = X @ model.coef_.T + model.intercept_
    assert expected == pytest.approx(wanted.reshape(expected.shape), rel=1e-4, abs=1e-4)
    for here in (slice(5, 6), slice(3, 380), slice(0, 400, 7)):
        assert scores(X[here]).tobytes() == expected[here].tobytes()
    assert scores(np.asfortranarray(X)).tobytes() == expected.tobytes()
    for n_jobs in (1, 2, -1):
        assert model.set_params(n_jobs=n_jobs) is model
        assert scores(X).tobytes() == expected.tobytes()
    model.set_params(n_jobs=None)
