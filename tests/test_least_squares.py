"""LinearRegression and Ridge: scikit-learn's rules and answers, hard data, and known answers."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn import linear_model as theirs
from sklearn.datasets import load_diabetes
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import check_estimator

from fastml import LinearRegression, Ridge

MODELS = {LinearRegression: theirs.LinearRegression, Ridge: theirs.Ridge}

# Array API objects need an environment variable that SciPy reads at its first import.
SKIPPED = {"check_array_api_input"}


@pytest.fixture
def data(rng):
    """Rows, two targets, weights."""
    X = rng.normal(size=(200, 7)) * [1, 2, 3, 0.1, 10, 1, 1] + 5
    return X, X @ rng.normal(size=(7, 2)) + rng.normal(size=(200, 2)) + 3, rng.integers(0, 4, 200).astype(float)


def bits(model):
    return model.coef_.tobytes() + np.asarray(model.intercept_).tobytes()


# ------------------------------------------------------------------------------- scikit-learn's rules


@pytest.mark.parametrize("model", [LinearRegression(), LinearRegression(n_jobs=2), Ridge(), Ridge(0.1)], ids=repr)
def test_scikit_learns_checks(model):
    results = check_estimator(model, on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] in ("failed", "xfail")] == []
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= SKIPPED
    assert len(results) > 40


@pytest.mark.parametrize("ours", MODELS)
def test_names_and_defaults_are_scikit_learns(ours):
    expected = {"n_jobs": None, **MODELS[ours]().get_params()}
    params = ours().get_params()
    assert params == {name: expected[name] for name in params}
    assert set(expected) - set(params) <= {"copy_X", "tol", "positive", "max_iter", "solver", "random_state"}


def test_frames_searches_and_pickles(data):
    X, y, _ = data
    frame = pd.DataFrame(X, columns=[f"column {i}" for i in range(7)])
    search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0], "fit_intercept": [True, False]}, cv=3).fit(frame, y)
    peer = GridSearchCV(theirs.Ridge(), search.param_grid, cv=3).fit(frame, y)
    assert search.cv_results_["mean_test_score"] == pytest.approx(peer.cv_results_["mean_test_score"], rel=1e-9)
    assert search.best_estimator_.feature_names_in_.tolist() == frame.columns.tolist()
    again = pickle.loads(pickle.dumps(search))
    assert np.array_equal(again.predict(frame), search.predict(frame))


# ------------------------------------------------------------------------------ scikit-learn's answers


@pytest.mark.parametrize("ours", MODELS)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("targets", [None, 1, 2])
@pytest.mark.parametrize("rows", [200, 5])
def test_scikit_learns_coefficients(ours, fit_intercept, weighted, targets, rows, data):
    X, y, weight = (part[:rows] for part in data)
    weight = weight + 0.5 if weighted else None
    y = y[:, 0] if targets is None else y[:, :targets]
    model = ours(fit_intercept=fit_intercept).fit(X, y, weight)
    expected = MODELS[ours](fit_intercept=fit_intercept).fit(X, y, weight)
    # scikit-learn's shapes for two-dimensional targets vary with model, version and intercept; ours do not.
    assert model.coef_.shape == ((7,) if targets is None else (targets, 7))
    assert np.shape(model.intercept_) == (() if targets is None else (targets,))
    assert model.coef_ == pytest.approx(expected.coef_.reshape(model.coef_.shape), rel=1e-8, abs=1e-9)
    intercept = np.broadcast_to(expected.intercept_, np.shape(model.intercept_))
    assert model.intercept_ == pytest.approx(intercept, rel=1e-8, abs=1e-8)
    assert model.predict(X) == pytest.approx(expected.predict(X).reshape(y.shape), rel=1e-9)
    if ours is LinearRegression:
        assert model.rank_ == np.linalg.matrix_rank(X - X.mean(axis=0) if fit_intercept else X)
    if ours is LinearRegression and not weighted:
        assert model.singular_ == pytest.approx(expected.singular_, rel=1e-9, abs=1e-9)
    residuals = y - model.predict(X)
    mean = np.average(residuals**2, axis=0, weights=weight)
    assert np.shape(model.noise_variance_) == mean.shape
    assert model.noise_variance_ == pytest.approx(mean, rel=1e-9, abs=1e-20 * (y**2).max() + 1e-24)


def test_weights_are_repetitions(data):
    X, y, weight = data
    repeated = np.repeat(np.arange(200), weight.astype(int))
    for model in (LinearRegression(), Ridge(2.0)):
        model.fit(X, y, weight)
        expected = type(model)(**model.get_params()).fit(X[repeated], y[repeated])
        assert model.coef_ == pytest.approx(expected.coef_, rel=1e-9)
        assert model.noise_variance_ == pytest.approx(expected.noise_variance_, rel=1e-9)


def test_one_strength_per_target(data):
    X, y, _ = data
    together = Ridge([0.5, 50.0]).fit(X, y)
    for k, alpha in enumerate([0.5, 50.0]):
        assert together.coef_[k] == pytest.approx(Ridge(alpha).fit(X, y[:, k]).coef_, rel=1e-12)
    with pytest.raises(ValueError, match="alpha has 3 values for 2 targets"):
        Ridge([1, 2, 3]).fit(X, y)


def test_no_penalty_is_least_squares(data):
    X, y, _ = data
    doubled = np.column_stack([X, X])
    assert bits(Ridge(0.0).fit(doubled, y)) == bits(LinearRegression().fit(doubled, y))


# ------------------------------------------------------------------------------------------- hard data


@pytest.mark.parametrize("ours", MODELS)
@pytest.mark.parametrize("rows", [5000, 20])
def test_rank_deficient_data(ours, rows, rng):
    """Columns that depend on others, and a constant one: the smallest coefficients, and no digits lost."""
    base = rng.normal(size=(rows, 10))
    X = np.column_stack([base, base @ rng.normal(size=(10, 6)), np.full(rows, 7.0)])
    y = base @ rng.normal(size=10) + 0.1 * rng.normal(size=rows)
    model = ours().fit(X, y)
    expected = MODELS[ours]().fit(X, y)
    assert model.coef_ == pytest.approx(expected.coef_, rel=1e-8, abs=1e-10)
    assert model.coef_[-1] == pytest.approx(0, abs=1e-12)
    if ours is LinearRegression:
        assert model.rank_ == 10
        base_only = LinearRegression().fit(base, y)
        assert model.predict(X) == pytest.approx(base_only.predict(base), rel=1e-9, abs=1e-9)


def test_condition_enters_once_not_squared(rng):
    """The 12 x 12 Hilbert-like columns have a condition of 1e8: normal equations would lose all digits."""
    Q, _ = np.linalg.qr(rng.normal(size=(6000, 12)))
    V, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    X = (Q * np.geomspace(1, 1e-8, 12)) @ V.T
    truth = rng.normal(size=12)
    y = X @ truth
    found = LinearRegression(fit_intercept=False).fit(X, y)
    assert found.rank_ == 12
    assert found.coef_ == pytest.approx(truth, rel=1e-6, abs=1e-6)
    normal_equations = np.linalg.solve(X.T @ X, X.T @ y)
    assert np.abs(normal_equations - truth).max() > 1e3 * np.abs(found.coef_ - truth).max()


def test_means_far_from_zero(rng):
    X = rng.normal(size=(5000, 3)) + 1e7
    truth = np.array([1.0, -2.0, 0.5])
    model = LinearRegression().fit(X, (X - 1e7) @ truth - 1e7)
    assert model.coef_ == pytest.approx(truth, rel=1e-8)
    # Rows in the order of a trend: the mean of the first ones is not that of all.
    trend = np.arange(9000.0)[:, np.newaxis] * [1.0, 1e3] + rng.normal(size=(9000, 2))
    model = LinearRegression().fit(trend, trend @ [2.0, 3.0] + 4)
    assert model.coef_ == pytest.approx([2, 3], rel=1e-8)
    assert model.intercept_ == pytest.approx(4, abs=1e-4)


def test_units_that_differ_by_far(rng):
    """Independent columns stay so in any units."""
    X = rng.normal(size=(3000, 4))
    truth = np.array([1.0, -1.0, 2.0, 0.5])
    units = np.array([1e-12, 1.0, 1e6, 1e12])
    model = LinearRegression().fit(X * units, X @ truth + 1)
    assert model.rank_ == 4
    assert model.coef_ * units == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("ours", MODELS)
def test_values_too_large_are_refused(ours, data):
    X, y, _ = data
    with pytest.raises(ValueError, match="too large"):
        ours().fit(X / X.max() * 1.7e308, y)
    for scale in (1e-200, 1e200):
        expected = LinearRegression().fit(X, y).coef_ if ours is LinearRegression or scale > 1 else np.zeros((2, 7))
        assert ours().fit(X * scale, y).coef_ * scale == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("ours", MODELS)
def test_float32(ours, rng):
    X = rng.normal(size=(9000, 20)).astype(np.float32) + 3
    y = (X @ rng.normal(size=20) + rng.normal(size=9000)).astype(np.float32)
    model = ours().fit(X, y)
    wide = ours().fit(X.astype(np.float64), y.astype(np.float64))
    assert model.coef_.dtype == model.intercept_.dtype == np.float32
    assert np.array_equal(model.coef_, wide.coef_.astype(np.float32))
    doubled = LinearRegression().fit(np.column_stack([X, X + X]), y)
    assert doubled.rank_ == 20


@pytest.mark.parametrize("ours", MODELS)
def test_same_bits_for_any_number_of_threads(ours, rng):
    X, y = rng.normal(size=(20_000, 30)), rng.normal(size=20_000)
    expected = bits(ours(n_jobs=1).fit(X, y))
    for n_jobs in (2, 5, None):
        assert bits(ours(n_jobs=n_jobs).fit(X, y)) == expected


def test_one_row_and_one_column():
    assert LinearRegression().fit([[2.0]], [3.0]).predict([[2.0], [5.0]]).tolist() == [3.0, 3.0]
    assert LinearRegression(fit_intercept=False).fit([[2.0]], [3.0]).coef_.tolist() == [1.5]
    assert Ridge().fit([[0.0], [0.0]], [1.0, 3.0]).predict([[1.0]]) == pytest.approx(2)


# ---------------------------------------------------------------------------------------- known answers


def test_maximum_likelihood_of_normal_noise(rng):
    """w = (sum x x')^-1 sum x y, and the variance is the mean squared residual."""
    X = rng.normal(size=(50_000, 3))
    truth = np.array([0.5, -1.5, 2.0])
    y = X @ truth + 0.7 * rng.normal(size=50_000)
    model = LinearRegression(fit_intercept=False).fit(X, y)
    assert model.coef_ == pytest.approx(np.linalg.solve(X.T @ X, X.T @ y), rel=1e-10)
    assert model.noise_variance_ == pytest.approx(((y - X @ model.coef_) ** 2).mean(), rel=1e-12)
    assert model.noise_variance_ == pytest.approx(0.49, rel=0.03)


def test_noise_in_the_features_is_a_ridge(rng):
    """Expected squared error under noise of variance s² is the plain one plus s² ‖w‖²: Ridge with alpha = n s²."""
    X, y = load_diabetes(return_X_y=True)
    X = X / X.std(axis=0)
    y = (y - y.mean()) / y.std()
    n, deviation = len(X), 0.8
    copies = np.concatenate([X + deviation * rng.normal(size=X.shape) for _ in range(300)])
    noisy = LinearRegression(fit_intercept=False).fit(copies, np.tile(y, 300))
    ridge = Ridge(n * deviation**2, fit_intercept=False).fit(X, y)
    assert noisy.coef_ == pytest.approx(ridge.coef_, abs=0.01)
    plain = LinearRegression(fit_intercept=False).fit(X, y)
    assert np.abs(plain.coef_ - ridge.coef_).max() > 0.1
    assert Ridge(n * 1e-20, fit_intercept=False).fit(X, y).coef_ == pytest.approx(plain.coef_, rel=1e-9)
    assert np.abs(Ridge(n * 1e20, fit_intercept=False).fit(X, y).coef_).max() < 1e-18


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (Ridge(-1.0), ValueError, "alpha is -1.0; it must be at least 0"),
        (Ridge(np.inf), ValueError, "alpha is inf"),
        (Ridge("1"), TypeError, "alpha is '1'"),
        (Ridge(fit_intercept="yes"), TypeError, "fit_intercept is 'yes'"),
        (LinearRegression(n_jobs=0), ValueError, "n_jobs is 0"),
    ],
)
def test_wrong_settings(model, error, message, data):
    with pytest.raises(error, match=message):
        model.fit(data[0], data[1])


def test_wrong_data(data):
    X, y, weight = data
    with pytest.raises(ValueError, match=r"sample_weight\[3\] is -2"):
        LinearRegression().fit(X, y, np.where(np.arange(200) == 3, -2.0, weight))
    with pytest.raises(ValueError, match="NaN"):
        Ridge().fit(np.where(X == X.max(), np.nan, X), y)
    with pytest.raises(ValueError, match="NaN"):
        Ridge().fit(X, np.where(y == y.max(), np.nan, y))
