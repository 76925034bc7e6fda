"""LinearRegression and Ridge with coefficients that are not below 0: SciPy's answers and conditions of the minimum."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls
from sklearn import linear_model as theirs
from sklearn.utils.estimator_checks import check_estimator

from fastml import LinearRegression, Ridge

# Array API objects need an environment variable that SciPy reads at its first import.
SKIPPED = {"check_array_api_input"}


def violation(model, X, y, alpha=0.0, weight=None):
    """How far one target's coefficients are from the conditions of the minimum, in units of columns and target."""
    assert (model.coef_ >= 0).all()
    weight = np.ones(len(X)) if weight is None else weight
    center = weight @ X / weight.sum() if model.fit_intercept else np.zeros(X.shape[1])
    residuals = y - X @ model.coef_ - model.intercept_
    if model.fit_intercept:
        assert abs(weight @ residuals) <= 1e-10 * (weight @ np.abs(y))
    falls = (X - center).T @ (weight * residuals) - alpha * model.coef_
    falls /= np.linalg.norm(X - center, axis=0) * np.linalg.norm(y) * weight.max()
    return np.where(model.coef_ > 0, np.abs(falls), falls).max()


@pytest.mark.parametrize("model", [LinearRegression(positive=True), Ridge(positive=True)], ids=repr)
def test_scikit_learns_checks(model):
    results = check_estimator(model, on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] in ("failed", "xfail")] == []
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= SKIPPED


@pytest.mark.parametrize("alpha", [0.0, 10.0])
@pytest.mark.parametrize(("n", "columns"), [(200, 30), (60, 60), (1, 1), (5000, 8)])
def test_coefficients_are_scipys(n, columns, alpha, rng):
    X, y = rng.normal(size=(n, columns)), rng.normal(size=n)
    expected, _ = nnls(np.vstack([X, np.sqrt(alpha) * np.eye(columns)]), np.append(y, np.zeros(columns)))
    model = Ridge(alpha, fit_intercept=False, positive=True).fit(X, y)
    assert model.coef_ == pytest.approx(expected, abs=1e-8)
    assert np.array_equal(model.coef_ > 0, expected > 0)
    if alpha == 0:
        plain = LinearRegression(fit_intercept=False, positive=True).fit(X, y)
        assert plain.coef_ == pytest.approx(expected, abs=1e-8)
        assert plain.noise_variance_ == pytest.approx(np.mean((y - X @ expected) ** 2), rel=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_coefficients_are_scikit_learns(fit_intercept, weighted, rng):
    X = rng.normal(size=(300, 12)) + 3
    Y = X @ rng.normal(size=(12, 3)) + rng.normal(size=(300, 3)) - 2
    weight = rng.integers(0, 3, 300).astype(float) if weighted else None
    settings = {"fit_intercept": fit_intercept, "positive": True}
    expected = theirs.LinearRegression(**settings).fit(X, Y, weight)
    model = LinearRegression(**settings).fit(X, Y, weight)
    assert model.coef_ == pytest.approx(expected.coef_, abs=1e-9)
    assert model.intercept_ == pytest.approx(expected.intercept_, abs=1e-8)
    expected = theirs.Ridge(5.0, tol=1e-12, max_iter=100_000, **settings).fit(X, Y[:, 0], weight)
    model = Ridge(5.0, **settings).fit(X, Y[:, 0], weight)
    assert model.coef_ == pytest.approx(expected.coef_, abs=1e-5)
    assert violation(model, X, Y[:, 0], 5.0, weight) <= 1e-12


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize(("n", "columns"), [(20, 100), (50, 51), (30, 300)])
def test_wide_data(n, columns, alpha, rng):
    X, y = rng.normal(size=(n, columns)) + 0.5, rng.normal(size=n)
    model = Ridge(alpha, positive=True).fit(X, y)
    assert violation(model, X, y, alpha) <= 1e-10
    assert 0 < np.count_nonzero(model.coef_)


def test_columns_that_repeat_and_columns_that_say_nothing(rng):
    X = rng.normal(size=(100, 8))
    y = X @ np.array([3.0, -1, 2, -2, 0.5, 1, -0.1, 0]) + rng.normal(size=100)
    plain = LinearRegression(positive=True).fit(X, y)
    wide = np.column_stack([X, X[:, ::-1], np.zeros(100), np.full(100, 0.1), -X])
    model = LinearRegression(positive=True).fit(np.column_stack([wide[:, :18]]), y)
    assert not model.coef_[16:].any()
    assert model.predict(wide[:, :18]) == pytest.approx(plain.predict(X), abs=1e-9)
    both = LinearRegression(positive=True).fit(wide, y)
    assert (both.coef_ >= 0).all()
    assert both.predict(wide) == pytest.approx(LinearRegression().fit(X, y).predict(X), abs=1e-9)


def test_units_do_not_matter(rng):
    X, y = rng.normal(size=(200, 6)), rng.normal(size=200)
    units = 10.0 ** np.arange(-12, 12, 4)
    expected = LinearRegression(positive=True).fit(X, y).coef_
    assert LinearRegression(positive=True).fit(X * units, y).coef_ * units == pytest.approx(expected, abs=1e-10)


def test_columns_that_a_ridge_allows_nothing_keep_none_out(rng):
    """By their lengths alone they would be the first to enter, which brings next to nothing, and that was the end."""
    X = rng.normal(size=(5, 4))
    y = X @ [1.0, 1.0, 1.0, -1.0] + 0.1 * rng.normal(size=5)
    X = np.hstack([X, 1e-11 * (y[:, np.newaxis] + 0.01 * rng.normal(size=(5, 6)))])
    expected, _ = nnls(np.vstack([X, np.sqrt(0.1) * np.eye(10)]), np.append(y, np.zeros(10)))
    model = Ridge(0.1, fit_intercept=False, positive=True).fit(X, y)
    assert model.coef_ == pytest.approx(expected, abs=1e-9)


def test_what_is_positive_by_itself_is_not_changed(rng):
    X = rng.normal(size=(100, 5)).astype(np.float32)
    y = X @ np.arange(1.0, 6.0) + 7
    for model in (LinearRegression(), Ridge(0.5)):
        plain = model.fit(X, y).coef_.tobytes()
        assert model.set_params(positive=True).fit(X, y).coef_.tobytes() == plain
    assert model.coef_.dtype == np.float32


def test_nothing_is_left_where_all_would_be_negative(rng):
    X = np.abs(rng.normal(size=(50, 3)))
    model = LinearRegression(fit_intercept=False, positive=True).fit(X, -X.sum(axis=1))
    assert not model.coef_.any()


def test_same_bits_for_any_number_of_threads(rng):
    X, y = rng.normal(size=(9000, 40)), rng.normal(size=9000)
    expected = LinearRegression(positive=True, n_jobs=1).fit(X, y).coef_
    assert (expected == 0).any()
    for n_jobs in (2, 3, None):
        assert LinearRegression(positive=True, n_jobs=n_jobs).fit(X, y).coef_.tobytes() == expected.tobytes()


@pytest.mark.parametrize("model", [LinearRegression(positive="yes"), Ridge(positive=1)])
def test_wrong_settings(model):
    with pytest.raises(TypeError, match=r"^positive is .*; it must be True or False"):
        model.fit(np.ones((3, 1)), np.ones(3))
