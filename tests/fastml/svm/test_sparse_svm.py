"""LinearSVC with an L1 penalty: liblinear's optima and gaps that are true."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import svm as theirs
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from fastml import LinearSVC

# Array API objects need an environment variable that SciPy reads at its first import.
SKIPPED = {"check_array_api_input"}

# Fits as plain Python take minutes.
pytestmark = pytest.mark.needs_jit


def standardized(load):
    X, y = load(return_X_y=True)
    return (X - X.mean(axis=0)) / X.std(axis=0), y


DATA = {load.__name__: standardized(load) for load in (load_breast_cancer, load_iris)}


def signs(model, y):
    positive = model.classes_[1:] if len(model.classes_) == 2 else model.classes_
    return np.where(y == positive[:, np.newaxis], 1.0, -1.0)


def gaps(model, X, y, weight=1.0):
    """The objectives, as the documentation writes them, less those of the dual variables, which are feasible."""
    sign, costs = signs(model, y), model.C * np.broadcast_to(weight, len(X))
    slack = np.maximum(0, 1 - sign * (X @ model.coef_.T + model.intercept_).T)
    primal = np.abs(model.coef_).sum(axis=1) + (costs * slack**2).sum(axis=1)
    alpha, sums = model.dual_coef_ * sign, model.dual_coef_.sum(axis=1)
    assert alpha.min() >= 0
    assert np.abs(model.dual_coef_ @ X).max() <= 1 + 1e-12
    if model.fit_intercept and model.regularize_intercept:
        primal = primal + np.abs(model.intercept_) / model.intercept_scaling
        assert np.abs(sums).max() <= (1 + 1e-12) / model.intercept_scaling
    elif model.fit_intercept:
        assert np.abs(sums).max() <= 1e-12 * alpha.sum()
    assert model.objective_ == pytest.approx(primal, rel=1e-12)
    some = costs > 0
    return primal - alpha.sum(axis=1) + (alpha[:, some] ** 2 / (4 * costs[some])).sum(axis=1)


def bits(model):
    return model.coef_.tobytes() + model.intercept_.tobytes() + model.dual_coef_.tobytes()


@pytest.mark.slow
def test_scikit_learns_checks():
    results = check_estimator(LinearSVC("l1"), on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] in ("failed", "xfail")] == []
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= SKIPPED


@pytest.mark.parametrize("tol", [1e-3, 1e-9])
@pytest.mark.parametrize("intercept", ["none", "penalized", "free"])
@pytest.mark.parametrize("C", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("data", DATA)
def test_gaps_are_true(data, C, intercept, tol):
    X, y = DATA[data]
    model = LinearSVC(
        "l1", C=C, tol=tol, fit_intercept=intercept != "none", regularize_intercept=intercept != "free"
    ).fit(X, y)
    assert gaps(model, X, y) == pytest.approx(model.duality_gap_, abs=1e-13 * model.objective_.max())
    assert (model.duality_gap_ <= max(tol, 1e-13) * model.objective_).all()
    assert (model.duality_gap_ >= -1e-14 * model.objective_).all()


@pytest.mark.parametrize("scaling", [None, 1.0, 10.0])
@pytest.mark.parametrize("class_weight", [None, {1: 3.0}])
@pytest.mark.parametrize("data", DATA)
def test_coefficients_are_liblinears(data, class_weight, scaling, rng):
    X, y = DATA[data]
    weight = rng.integers(0, 3, len(X)).astype(float)
    settings = {"C": 0.05, "class_weight": class_weight, "fit_intercept": scaling is not None}
    if scaling is not None:
        settings["intercept_scaling"] = scaling
    expected = theirs.LinearSVC(penalty="l1", dual=False, tol=1e-8, max_iter=100_000, **settings).fit(X, y, weight)
    model = LinearSVC("l1", tol=1e-12, **settings).fit(X, y, weight)
    largest = np.abs(expected.coef_).max()
    assert model.coef_ == pytest.approx(expected.coef_, abs=1e-5 * largest)
    assert np.abs(model.intercept_ - expected.intercept_).max() <= 1e-5 * largest


def test_wide_data(rng):
    X = rng.normal(size=(50, 600))
    y = X[:, :5].sum(axis=1) > 0
    for C in (0.1, 1.0, 100.0):
        model = LinearSVC("l1", C=C, tol=1e-8).fit(X, y)
        assert (gaps(model, X, y) <= 1.01e-8 * model.objective_).all()
        assert 0 < np.count_nonzero(model.coef_) <= 50


def test_columns_that_say_nothing():
    X, y = DATA["load_breast_cancer"]
    plain = LinearSVC("l1", C=0.05, tol=1e-10).fit(X, y)
    model = LinearSVC("l1", C=0.05, tol=1e-10).fit(np.column_stack([X, np.zeros(len(X)), X]), y)
    assert not model.coef_[:, 30].any()
    assert model.coef_[:, :30] + model.coef_[:, 31:] == pytest.approx(plain.coef_, abs=1e-4)
    far = LinearSVC("l1", C=0.05, tol=1e-8, regularize_intercept=False).fit(X + 1e5, y)
    near = LinearSVC("l1", C=0.05, tol=1e-8, regularize_intercept=False).fit(X, y)
    assert far.coef_ == pytest.approx(near.coef_, abs=1e-4)


def test_a_strong_penalty_leaves_nothing():
    X, y = DATA["load_breast_cancer"]
    model = LinearSVC("l1", C=1e-5).fit(X, y)
    assert not model.coef_.any()
    assert not model.intercept_.any()


def test_float32_and_any_number_of_threads(rng):
    X = rng.normal(size=(6000, 40)).astype(np.float32)
    y = (X[:, :8].sum(axis=1) + rng.normal(size=6000) > 0).astype(int) + (X[:, 9] > 1)
    expected = LinearSVC("l1", C=0.01, tol=1e-8, n_jobs=1).fit(X, y)
    for n_jobs in (2, 3, None):
        assert bits(LinearSVC("l1", C=0.01, tol=1e-8, n_jobs=n_jobs).fit(X, y)) == bits(expected)
    wide = LinearSVC("l1", C=0.01, tol=1e-8).fit(X.astype(np.float64), y)
    assert expected.coef_.dtype == np.float32
    assert expected.coef_ == pytest.approx(wide.coef_.astype(np.float32), abs=1e-5)


def test_an_end_too_early_is_told(capsys):
    with pytest.warns(ConvergenceWarning, match=r"after 1 steps \(max_iter = 1\)"):
        LinearSVC("l1", C=10.0, tol=1e-10, max_iter=1, verbose=1).fit(*DATA["load_breast_cancer"])
    assert capsys.readouterr().out.startswith("class 0, round 0: objective ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"penalty": "elasticnet"}, "penalty is 'elasticnet'; it must be one of 'l2', 'l1'"),
        ({"penalty": None}, "penalty is None"),
        ({"penalty": "l1", "loss": "hinge"}, "loss is 'hinge'; with penalty='l1' it must be 'squared_hinge'"),
        ({"penalty": "l1", "dual": True}, "dual is True; with penalty='l1' it must be False or 'auto'"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LinearSVC(**settings).fit(*DATA["load_iris"])


def test_crammer_singer_has_one_penalty():
    X, y = DATA["load_iris"]
    settings = {"multi_class": "crammer_singer", "random_state": 0}
    expected = LinearSVC(**settings).fit(X, y)
    assert bits(LinearSVC("l1", **settings).fit(X, y)) == bits(expected)
