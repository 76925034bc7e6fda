"""LogisticRegression: scikit-learn's rules, scikit-learn's optimum, and our own promises."""

from __future__ import annotations

import os
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_expit, log_softmax
from sklearn import linear_model as theirs
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from fastml import LogisticRegression, datasets

# Array API objects need an environment variable that SciPy reads at its first import.
SKIPPED = {"check_array_api_input"}

# Fits as plain Python take minutes; what they stand on is tested without compilation in test_linear_solvers.
pytestmark = pytest.mark.needs_jit

needs_data = pytest.mark.skipif("FASTML_DATA" not in os.environ, reason="FASTML_DATA is not set")


def standardized(load):
    X, y = load(return_X_y=True)
    return (X - X.mean(axis=0)) / np.where(X.std(axis=0) > 0, X.std(axis=0), 1), y


DATA = {load.__name__: standardized(load) for load in (load_breast_cancer, load_iris, load_digits)}


def objective(model, X, y, C, sample_weight=None):
    """scikit-learn's objective, as its user guide writes it."""
    weight = np.ones(len(X)) if sample_weight is None else sample_weight
    scores = X @ model.coef_.T + model.intercept_
    if len(model.classes_) == 2:
        losses = -log_expit(np.where(y == model.classes_[1], scores[:, 0], -scores[:, 0]))
    else:
        losses = -log_softmax(scores, axis=1)[np.arange(len(X)), np.searchsorted(model.classes_, y)]
    return (weight @ losses + (model.coef_**2).sum() / (2 * C)) / weight.sum()


def peer(X, y, *, tol=1e-10, sample_weight=None, **settings):
    """scikit-learn's model, converged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a line search that rounding ends
        model = theirs.LogisticRegression(tol=tol, max_iter=10_000, solver="newton-cg", **settings)
        return model.fit(X, y, sample_weight)


def distance(model, other):
    """The largest difference of coefficients and intercepts, in units of the largest coefficient."""
    found, expected = (np.column_stack([m.coef_, m.intercept_]) for m in (model, other))
    return np.abs(found - expected).max() / np.abs(expected[:, :-1]).max()


def bits(model):
    return model.coef_.tobytes() + model.intercept_.tobytes()


# ------------------------------------------------------------------------------- scikit-learn's rules


@pytest.mark.parametrize(
    "model",
    [LogisticRegression(), LogisticRegression(C=10, class_weight="balanced", warm_start=True, n_jobs=2)],
    ids=repr,
)
def test_scikit_learns_checks(model):
    results = check_estimator(model, on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] in ("failed", "xfail")] == []
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= SKIPPED
    assert len(results) > 40


def test_pipeline_grid_search_and_pickle():
    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    grid = {"logisticregression__C": [0.01, 1.0], "logisticregression__fit_intercept": [True, False]}
    found = GridSearchCV(pipeline, grid, cv=3).fit(X, y)
    converged = theirs.LogisticRegression(tol=1e-8, max_iter=1000)
    other = GridSearchCV(make_pipeline(StandardScaler(), converged), grid, cv=3).fit(X, y)
    assert np.array_equal(found.cv_results_["mean_test_score"], other.cv_results_["mean_test_score"])
    again = pickle.loads(pickle.dumps(found))
    assert np.array_equal(again.predict_proba(X), found.predict_proba(X))


def test_frames_and_labels_of_text():
    X, y = DATA["load_iris"]
    names = [f"column {i}" for i in range(X.shape[1])]
    text = np.array(["setosa", "versicolor", "virginica"])[y]
    model = LogisticRegression().fit(pd.DataFrame(X, columns=names), pd.Series(text))
    plain = LogisticRegression().fit(X, y)
    assert model.feature_names_in_.tolist() == names
    assert model.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert bits(model) == bits(plain)
    assert np.array_equal(model.predict(pd.DataFrame(X, columns=names)), model.classes_[plain.predict(X)])


# ----------------------------------------------------------------------------- scikit-learn's optimum


@pytest.mark.parametrize("C", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("data", DATA)
def test_coefficients_and_objective_are_scikit_learns(data, fit_intercept, C):
    X, y = DATA[data]
    expected = peer(X, y, C=C, fit_intercept=fit_intercept)
    best = objective(expected, X, y, C)
    model = LogisticRegression(C=C, fit_intercept=fit_intercept).fit(X, y)
    assert objective(model, X, y, C) <= best + 1e-8 * (1 + best)
    assert model.objective_ == pytest.approx(objective(model, X, y, C), rel=1e-12)
    precise = LogisticRegression(C=C, fit_intercept=fit_intercept, tol=1e-7).fit(X, y)
    assert distance(precise, expected) <= 1e-4
    if not fit_intercept:
        assert not precise.intercept_.any()


def test_columns_of_different_units():
    """The raw columns reach from 1e-3 to 1e3; what counts is the objective, not the gradient in some units."""
    X, y = load_breast_cancer(return_X_y=True)
    model = LogisticRegression(C=1.0, tol=1e-6).fit(X, y)
    scaled = LogisticRegression(C=1.0, tol=1e-6).fit(X * 1e3, y)
    assert model.n_iter_ < 30
    expected = peer(X, y, C=1.0, tol=1e-9)
    assert distance(model, expected) <= 1e-4
    assert scaled.objective_ < model.objective_  # a smaller penalty


@pytest.mark.parametrize("data", ["load_breast_cancer", "load_iris"])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0, 1: 0.5}])
def test_weights_are_scikit_learns(data, class_weight, rng):
    X, y = DATA[data]
    if isinstance(class_weight, dict):
        class_weight = class_weight | dict.fromkeys(set(y.tolist()) - {0, 1}, 1.0)
    weight = rng.integers(0, 4, len(X)).astype(np.float64)
    # Since version 1.7 scikit-learn counts rows by their weights for "balanced"; so the weight goes in by repetition.
    repeated = np.repeat(np.arange(len(X)), weight.astype(int))
    expected = peer(X[repeated], y[repeated], class_weight=class_weight)
    model = LogisticRegression(tol=1e-8, class_weight=class_weight).fit(X, y, weight)
    assert distance(model, expected) <= 1e-6


def test_scaled_weights_are_another_penalty():
    X, y = DATA["load_breast_cancer"]
    model = LogisticRegression(C=1.0, tol=1e-8).fit(X, y, np.full(len(X), 5.0))
    assert distance(model, LogisticRegression(C=5.0, tol=1e-8).fit(X, y)) <= 1e-7


def test_wide_data():
    """More columns than rows: solved in the space of the rows."""
    X, y = DATA["load_digits"]
    wide = X[:40].astype(np.float64)
    for classes in (2, 10):
        some = y[:40] % classes
        expected = peer(wide, some, C=0.1)
        model = LogisticRegression(C=0.1, tol=1e-7).fit(wide, some)
        assert distance(model, expected) <= 1e-5


def test_columns_that_repeat_and_columns_of_zeros():
    X, y = DATA["load_breast_cancer"]
    doubled = np.column_stack([X, X, np.zeros((len(X), 3))])
    model = LogisticRegression(C=1.0, tol=1e-8).fit(doubled, y)
    assert not model.coef_[0, -3:].any()
    half = LogisticRegression(C=2.0, tol=1e-8).fit(X, y)
    width = X.shape[1]
    assert np.allclose(model.coef_[0, :width] + model.coef_[0, width : 2 * width], half.coef_[0], rtol=0, atol=1e-5)


def test_multinomial_coefficients_sum_to_zero():
    X, y = DATA["load_iris"]
    model = LogisticRegression(C=1.0, tol=1e-8).fit(X, y)
    assert np.abs(model.coef_.sum(axis=0)).max() <= 1e-12
    assert abs(model.intercept_.sum()) <= 1e-12


def test_no_penalty(rng):
    X = rng.normal(size=(300, 4))
    y = rng.random(300) < 1 / (1 + np.exp(-X @ [1, -1, 0.5, 0]))
    model = LogisticRegression(C=np.inf, tol=1e-9).fit(X, y)
    p = model.predict_proba(X)[:, 1]
    assert np.abs(X.T @ (p - y)).max() <= 1e-9 * len(X)
    assert abs((p - y).sum()) <= 1e-9 * len(X)


def test_separable_data_without_penalty_end():
    X, y = np.array([[-1.0], [1.0]]), [0, 1]
    model = LogisticRegression(C=np.inf).fit(X, y)
    assert np.isfinite(model.coef_).all()
    assert model.score(X, y) == 1
    assert model.objective_ < 1e-4


# --------------------------------------------------------------------------- columns far from zero


def fitted_without_warnings(X, y, sample_weight=None, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return LogisticRegression(**settings).fit(X, y, sample_weight)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("away", [1e2, 1e4, 1e6, 1e8, 1e9])
@pytest.mark.parametrize("rows", [1500, 40])
@pytest.mark.parametrize("weighted", [False, True])
def test_an_offset_changes_the_intercept_only(classes, away, rows, weighted, rng):
    """Many rows, and fewer than columns."""
    centered = np.round(rng.normal(size=(rows, 60)) * 1024) / 1024 * 2.0 ** rng.integers(-2, 3, 60)
    y = (centered[:, :classes] + rng.gumbel(size=(rows, classes))).argmax(axis=1)
    offset = away * centered.std(axis=0) * rng.choice([-1.0, 0.0, 1.0], 60)
    weight = rng.integers(0, 3, rows) + (np.arange(rows) < 30) if weighted else None
    X = centered + offset
    model = fitted_without_warnings(X, y, weight, tol=1e-6)
    expected = peer(X - offset, y, sample_weight=weight)
    # What X itself has lost in the sum.
    lost = 1e-16 * away * 100
    assert model.coef_ == pytest.approx(expected.coef_, abs=(1e-4 + lost) * np.abs(expected.coef_).max())
    moved = model.intercept_ + (model.coef_ @ offset)
    assert moved == pytest.approx(expected.intercept_, abs=1e-3 + 1e3 * lost)
    assert np.mean(model.predict(X) == expected.predict(X - offset)) > 0.99


@pytest.mark.parametrize("C", [1.0, np.inf])
@pytest.mark.parametrize(
    ("offset", "spread", "step"),
    [(1.7e9, 86400.0, 1e-3), (1.7e9, 60.0, 1e-3), (1e8, 100.0, 1.0), (4e9, 5000.0, 1.0), (1e-3, 1e-9, 0.0)],
    ids=["a day", "a minute", "a carrier", "identifiers", "a small unit"],
)
def test_times_frequencies_and_identifiers(offset, spread, step, C, rng):
    x = rng.random(400) * spread
    x = (offset + x if step == 0 else offset + np.round(x / step) * step) - offset
    y = x / spread + 0.2 * rng.normal(size=400) > 0.5
    model = fitted_without_warnings((offset + x)[:, np.newaxis], y, C=C)
    standard = (x - x.mean()) / x.std()
    expected = LogisticRegression(C=C * x.std() ** 2, tol=1e-9).fit(standard[:, np.newaxis], y)
    assert model.coef_[0, 0] * x.std() == pytest.approx(expected.coef_[0, 0], rel=2e-3)
    assert model.n_iter_ < 10
    if C == np.inf or spread > 1:
        assert model.score((offset + x)[:, np.newaxis], y) == pytest.approx(
            expected.score(standard[:, np.newaxis], y), abs=0.01
        )


def test_six_identifiers():
    X = 1e8 + np.arange(6.0)[:, np.newaxis]
    y = [0, 0, 1, 0, 1, 1]
    model = fitted_without_warnings(X, y)
    assert model.coef_[0, 0] == pytest.approx(0.767, abs=1e-3)
    assert model.predict(X).tolist() == [0, 0, 0, 1, 1, 1]
    single = fitted_without_warnings((1e8 + 8 * np.arange(6.0)[:, np.newaxis]).astype(np.float32), y)
    wide = fitted_without_warnings(8 * np.arange(6.0)[:, np.newaxis], y)
    assert single.coef_[0, 0] == pytest.approx(wide.coef_[0, 0], rel=1e-3)


def test_large_float32_data_far_from_zero(rng):
    """Too far for passes in float32."""
    n, columns = 45_000, 50
    centered = (256 * rng.integers(-8, 8, size=(n, columns))).astype(np.float64)
    offset = np.where(np.arange(columns) % 2, 2.0**23, 0.0)
    X = (centered + offset).astype(np.float32)
    y = centered @ rng.normal(size=columns) / 3e3 + rng.logistic(size=n) > 0
    model = fitted_without_warnings(X, y, tol=1e-6)
    expected = LogisticRegression(tol=1e-9).fit(centered, y)
    assert model.coef_ == pytest.approx(expected.coef_, abs=1e-5 * np.abs(expected.coef_).max())


@pytest.mark.parametrize("classes", [2, 3])
def test_without_intercept_nothing_is_centered(classes, rng):
    """The minimum is another one than that of centred columns."""
    X = rng.normal(size=(300, 3)) + np.array([5e3, 0, 0])
    y = (X[:, 1:classes] @ np.eye(classes - 1, classes) * 2 + rng.gumbel(size=(300, classes))).argmax(axis=1)
    model = LogisticRegression(fit_intercept=False, tol=1e-8).fit(X, y)
    expected = peer(X / [5e3, 1, 1], y, fit_intercept=False, C=1.0)
    assert objective(model, X, y, 1.0) <= objective(expected_in(X, y, expected, [5e3, 1, 1]), X, y, 1.0) + 1e-9
    assert not model.intercept_.any()


def expected_in(X, y, model, units):
    """The model of columns that were divided by units, for those that were not."""
    twin = LogisticRegression()
    twin.classes_, twin.coef_, twin.intercept_ = model.classes_, model.coef_ / units, model.intercept_
    return twin


def test_a_warm_start_far_from_zero(rng):
    X = rng.normal(size=(500, 4)) + 1e6
    y = X[:, 0] - X[:, 1] + rng.logistic(size=500) > 0
    model = LogisticRegression(warm_start=True).fit(X, y)
    first = model.coef_.copy()
    model.fit(X, y)
    assert model.n_iter_[0] <= 1
    assert model.coef_ == pytest.approx(first, rel=1e-3)


def test_long_and_short_columns_of_wide_data(rng):
    """They are not turned into one another: nanoseconds would drown the dummies."""
    n = 150
    time, dummies = 8.64e13 * np.arange(n), (rng.random((n, 200)) < 0.1).astype(np.float64)
    y = dummies[:, :20].sum(axis=1) + rng.normal(size=n) > 2
    model = fitted_without_warnings(np.column_stack([1.7e18 + time, dummies]), y, tol=1e-6)
    # The penalty of the time's coefficient is next to none with these units too.
    expected = fitted_without_warnings(np.column_stack([(time - time.mean()) / 1e9, dummies]), y, tol=1e-6)
    assert model.coef_[0, 1:] == pytest.approx(expected.coef_[0, 1:], abs=1e-4)


# --------------------------------------------------------------- many classes, more columns than rows


@pytest.mark.slow
@pytest.mark.parametrize("C", [0.1, 1.0, 100.0])
@pytest.mark.parametrize(
    ("n", "columns", "classes"), [(300, 600, 10), (100, 300, 40), (250, 300, 20), (200, 250, 5), (150, 1200, 12)]
)
def test_many_classes_of_wide_data(n, columns, classes, C, rng):
    """The penalty bounds the distance from the minimum by the square of the gradient."""
    X, y = rng.normal(size=(n, columns)), rng.permutation(np.arange(n) % classes)
    model = fitted_without_warnings(X, y, C=C)
    precise = fitted_without_warnings(X, y, C=C, tol=1e-6, max_iter=1000)
    P = precise.predict_proba(X) - np.eye(classes)[y]
    gradient = P.T @ X / n + precise.coef_ / (C * n)
    assert 0.5 * C * n * (gradient**2).sum() <= 1e-6 * precise.objective_
    assert np.abs(P.mean(axis=0)).max() <= 1e-6
    assert model.objective_ == pytest.approx(precise.objective_, rel=1e-5)
    assert model.objective_ == pytest.approx(objective(model, X, y, C), rel=1e-9)


@pytest.mark.parametrize("classes", [10, 20])
def test_wide_data_without_penalty(classes, rng):
    X, y = rng.normal(size=(300, 2000)), rng.permutation(np.arange(300) % classes)
    model = fitted_without_warnings(X, y, C=np.inf)
    assert model.objective_ < 1e-6
    assert model.score(X, y) == 1


# ------------------------------------------------------------------------------ little to be gained


@pytest.mark.parametrize(("unit", "C"), [(1e-6, 1.0), (1e-12, 1.0), (1.0, 1e-8), (1.0, 1e-20), (1e-6, 1e-8)])
def test_however_little_coefficients_gain_there_are_some(unit, C):
    """Of a strong penalty: C times the gradient without coefficients."""
    for X, y in (DATA["load_breast_cancer"], DATA["load_iris"]):
        model = fitted_without_warnings(unit * X, y, C=C, tol=1e-4)
        known = np.eye(3)[y] if y.max() > 1 else np.column_stack([1 - y, y])
        gradient = (known - known.mean(axis=0)).T @ (unit * X)
        expected = C * (gradient if y.max() > 1 else gradient[1:])
        assert model.coef_ == pytest.approx(expected, abs=1e-4 * np.abs(expected).max())


def test_columns_that_say_nothing():
    y = np.arange(40) % 2
    for constant in (0.0, 21.3, 1e9):
        model = fitted_without_warnings(np.full((40, 2), constant), y)
        assert np.abs(model.coef_).max() * max(1, constant) < 1e-6


def test_weights_and_strengths_out_of_range_are_refused():
    X, y = DATA["load_iris"]
    with pytest.raises(ValueError, match="sample_weight has values too large"):
        LogisticRegression().fit(X, y, np.full(len(X), 1e307))
    with pytest.raises(ValueError, match="class_weight has values too large"):
        LogisticRegression(class_weight={0: 1e307}).fit(X, y)
    with pytest.raises(ValueError, match=r"C is 5e-324; .* sum to 150 the penalty"):
        LogisticRegression(C=5e-324).fit(X, y)
    with pytest.raises(ValueError, match="X has values too large"):
        LogisticRegression().fit(np.where(X == X.max(), 1.7e308, X), y)


@pytest.mark.parametrize("weight", [1e14, 1e20, 1e100, 1e300])
@pytest.mark.parametrize("tol", [1e-4, 1e-8, 1e-9])
def test_separable_classes_that_outweigh_the_penalty_are_fitted_as_far_as_rounding_lets(weight, tol):
    """No warning: where a step would change nothing that float64 shows, the minimum is reached."""
    X, y = DATA["load_iris"]
    model = LogisticRegression(tol=tol).fit(X, y, np.full(len(X), weight))
    assert model.objective_ == pytest.approx(0.0396618226378, rel=10 * tol)
    assert model.score(X, y) > 0.98


# ------------------------------------------------------------------------------------- large data


@pytest.mark.parametrize("classes", [2, 4])
def test_large_float32_data_are_solved_to_the_same_optimum(classes, rng):
    """Passes compute in float32 at first; the last ones see the rows in float64."""
    n, columns = 40_000, 60
    X = (rng.normal(size=(n, columns)) + rng.normal(size=n)[:, np.newaxis]).astype(np.float32)
    y = (X @ rng.normal(size=(columns, classes)) / 2 + rng.gumbel(size=(n, classes))).argmax(axis=1)
    model = LogisticRegression(tol=1e-6).fit(X, y)
    expected = LogisticRegression(tol=1e-9).fit(X.astype(np.float64), y)
    assert model.coef_.dtype == np.float32
    assert expected.coef_.dtype == np.float64
    assert distance(model, expected) <= 1e-5
    assert model.objective_ == pytest.approx(expected.objective_, rel=1e-10)
    assert model.n_iter_ <= 30


@pytest.mark.parametrize("classes", [2, 4])
def test_sampled_hessians(classes, rng):
    """So many columns that no exact Hessian is made."""
    n, columns = 4000, 260
    X = rng.normal(size=(n, columns))
    y = (X @ rng.normal(size=(columns, classes)) / 8 + rng.gumbel(size=(n, classes))).argmax(axis=1)
    model = LogisticRegression(C=0.5, tol=1e-7).fit(X, y)
    assert distance(model, peer(X, y, C=0.5)) <= 1e-5


@pytest.mark.parametrize("tol", [1e-8, 1e-9, 1e-10])
def test_sampled_hessians_go_on_below_what_values_show(tol, rng):
    """A decrease of ``tol ** 2`` is hidden in the objective's rounding; the coefficients still gain digits."""
    X = rng.normal(size=(6000, 64))
    y = (X @ rng.normal(size=(64, 10)) / 2 + rng.gumbel(size=(6000, 10))).argmax(axis=1)
    model, closest = (LogisticRegression(C=100.0, tol=each).fit(X, y) for each in (tol, 1e-12))
    assert distance(model, closest) <= tol


@pytest.mark.parametrize("data", ["load_breast_cancer", "load_digits"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_for_any_number_of_threads(data, dtype):
    X, y = DATA[data]
    X = np.tile(X, (8, 1)).astype(dtype)
    y = np.tile(y, 8)
    expected = bits(LogisticRegression(n_jobs=1).fit(X, y))
    for n_jobs in (2, 3, None):
        assert bits(LogisticRegression(n_jobs=n_jobs).fit(X, y)) == expected


@needs_data
@pytest.mark.slow
def test_mnist():
    mnist = datasets.load_mnist()
    X, X_test = (part.reshape(len(part), -1).astype(np.float32) / 255 for part in (mnist.X_train, mnist.X_test))
    model = LogisticRegression(C=1.0).fit(X, mnist.y_train)
    assert 0.923 < model.score(X_test, mnist.y_test) < 0.93
    G = model.predict_proba(X).astype(np.float64)
    G[np.arange(len(X)), mnist.y_train] -= 1
    gradient = (G.T @ X + model.coef_) / len(X)
    assert np.abs(gradient).max() <= 1e-4


# --------------------------------------------------------------------------------- our own promises


def test_warm_start():
    X, y = DATA["load_digits"]
    model = LogisticRegression(C=0.1, warm_start=True).fit(X, y)
    cold = model.n_iter_[0]
    model.fit(X, y)
    assert model.n_iter_[0] <= 1 < cold
    model.set_params(C=0.2).fit(X, y)
    assert distance(model, LogisticRegression(C=0.2).fit(X, y)) <= 1e-3
    with pytest.raises(ValueError, match="a warm start needs"):
        model.fit(X, y % 3)


def test_an_end_too_early_is_told():
    X, y = DATA["load_digits"]
    with pytest.warns(ConvergenceWarning, match=r"max_iter = 2 steps.*tol = 0\.0001"):
        model = LogisticRegression(max_iter=2).fit(X, y)
    assert model.n_iter_.tolist() == [2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LogisticRegression().fit(X, y)


def test_verbose(capsys):
    X, y = DATA["load_iris"]
    model = LogisticRegression(verbose=1).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= model.n_iter_[0]
    assert lines[0].startswith("step 1: objective ")


def test_probabilities():
    X, y = DATA["load_iris"]
    for labels in (y, y == 1):
        model = LogisticRegression().fit(X, labels)
        p = model.predict_proba(X)
        assert np.allclose(p.sum(axis=1), 1, rtol=0, atol=1e-15)
        assert np.array_equal(model.classes_[p.argmax(axis=1)], model.predict(X))
        assert np.allclose(np.log(p), model.predict_log_proba(X), rtol=1e-9, atol=1e-12)
        far = model.predict_log_proba(1e6 * X)
        assert np.isfinite(far).all()
        assert far.min() < -1e5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"C": 0}, "C is 0; it must be above 0"),
        ({"C": -1}, "C is -1"),
        ({"C": np.nan}, "C is nan"),
        ({"tol": -1e-3}, "tol is -0.001"),
        ({"tol": np.inf}, "tol is inf"),
        ({"max_iter": 0}, "max_iter is 0; it must be a positive integer"),
        ({"n_jobs": 0}, "n_jobs is 0"),
        ({"class_weight": {0: -1.0}}, "class_weight is .* not negative"),
        ({"class_weight": "even"}, "class_weight"),
    ],
)
def test_wrong_settings(settings, message):
    X, y = DATA["load_iris"]
    with pytest.raises(ValueError, match=message):
        LogisticRegression(**settings).fit(X, y)


@pytest.mark.parametrize("settings", [{"C": "1"}, {"tol": None}, {"max_iter": 1.5}, {"fit_intercept": 1}])
def test_settings_of_wrong_types(settings):
    X, y = DATA["load_iris"]
    with pytest.raises(TypeError, match=f"^{next(iter(settings))} is "):
        LogisticRegression(**settings).fit(X, y)


def test_wrong_weights_and_labels():
    X, y = DATA["load_iris"]
    with pytest.raises(ValueError, match=r"sample_weight\[2\] is -1"):
        LogisticRegression().fit(X, y, np.where(np.arange(len(X)) == 2, -1.0, 1.0))
    with pytest.raises(ValueError, match="zero"):
        LogisticRegression().fit(X, y, np.zeros(len(X)))
    with pytest.raises(ValueError, match="only one class, 7"):
        LogisticRegression().fit(X, np.full(len(X), 7))
    with pytest.raises(ValueError, match="infinity"):
        LogisticRegression().fit(np.where(X == X.max(), np.inf, X), y)


def test_rows_of_no_weight_do_not_count():
    X, y = DATA["load_iris"]
    weight = (np.arange(len(X)) % 3 > 0).astype(np.float64)
    far = np.where(weight[:, np.newaxis] > 0, X, 1e3)
    model = LogisticRegression(tol=1e-9).fit(far, y, weight)
    expected = LogisticRegression(tol=1e-9).fit(X[weight > 0], y[weight > 0])
    assert distance(model, expected) <= 1e-7


@pytest.mark.parametrize("scale", [1e-150, 1e-6, 1e6])
def test_features_of_any_size(scale):
    X, y = DATA["load_breast_cancer"]
    model = LogisticRegression(C=1 / max(scale, 1e-100) ** 2, tol=1e-7).fit(X * scale, y)
    expected = LogisticRegression(C=min(1.0, (scale * 1e100) ** 2), tol=1e-7).fit(X, y)
    assert np.isfinite(model.coef_).all()
    assert model.coef_ * scale == pytest.approx(expected.coef_, rel=1e-5, abs=1e-7)
