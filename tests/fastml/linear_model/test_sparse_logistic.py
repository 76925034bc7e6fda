"""LogisticRegression with an L1 penalty: scikit-learn's optima, conditions of the minimum, gaps that are true."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy.special import log_expit, log_softmax, logit
from sklearn import linear_model as theirs
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from fastml import LogisticRegression
from fastml.solvers import sparse

# Array API objects need an environment variable that SciPy reads at its first import.
SKIPPED = {"check_array_api_input"}

# Fits as plain Python take minutes; the kernels are tested without compilation in test_coordinates.
pytestmark = pytest.mark.needs_jit


def standardized(load):
    X, y = load(return_X_y=True)
    return (X - X.mean(axis=0)) / np.where(X.std(axis=0) > 0, X.std(axis=0), 1), y


DATA = {load.__name__: standardized(load) for load in (load_breast_cancer, load_iris, load_digits)}


def values(model, X, y, weight=None):
    """The objective, as the documentation writes it, and its gradient without the L1 penalty."""
    weight = np.ones(len(X)) if weight is None else weight
    scores, codes = X @ model.coef_.T + model.intercept_, np.searchsorted(model.classes_, y)
    if len(model.classes_) == 2:
        sign = 2.0 * codes - 1
        losses = -log_expit(sign * scores[:, 0])
        G = (-sign * np.exp(log_expit(-sign * scores[:, 0])))[:, np.newaxis]
    else:
        losses = -log_softmax(scores, axis=1)[np.arange(len(X)), codes]
        G = np.exp(log_softmax(scores, axis=1)) - np.eye(len(model.classes_))[codes]
    strength, ratio = 1 / (model.C * weight.sum()), model.l1_ratio
    G = G * (weight / weight.sum())[:, np.newaxis]
    penalty = ratio * np.abs(model.coef_).sum() + 0.5 * (1 - ratio) * (model.coef_**2).sum()
    value = weight @ losses / weight.sum() + strength * penalty
    return value, G.T @ X + strength * (1 - ratio) * model.coef_, G.sum(axis=0), strength * ratio


def violation(model, X, y, weight=None):
    """How far coefficients and intercepts are from the conditions of the minimum, in units of the L1 penalty."""
    _, G, intercepts, strength = values(model, X, y, weight)
    coef = model.coef_
    off = np.where(coef != 0, np.abs(G + strength * np.sign(coef)), np.maximum(np.abs(G) - strength, 0)).max()
    return max(off, np.abs(intercepts).max() * model.fit_intercept) / strength


def peer(X, y, *, C, l1_ratio, sample_weight=None, solver="saga", max_iter=1_000_000, **settings):
    """scikit-learn's model, converged."""
    penalty = "l1" if l1_ratio == 1 else "elasticnet"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the penalty's name is deprecated, the ratio is new
        model = theirs.LogisticRegression(
            penalty=penalty, C=C, l1_ratio=l1_ratio, solver=solver, max_iter=max_iter, tol=1e-12, random_state=0,
            **settings,
        )  # fmt: skip
        return model.fit(X, y, sample_weight)


def bits(model):
    return model.coef_.tobytes() + model.intercept_.tobytes()


def rows_of_classes(rng, n, columns, classes, used=5):
    """Rows of which few columns say something of the class."""
    X = rng.normal(size=(n, columns))
    scores = X[:, :used] @ rng.normal(size=(used, classes)) + rng.gumbel(size=(n, classes))
    return X, scores.argmax(axis=1)


# ------------------------------------------------------------------------------- scikit-learn's rules


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(l1_ratio=1),
        LogisticRegression(C=0.5, l1_ratio=0.5, tol=1e-7, class_weight="balanced", warm_start=True),
    ],
    ids=repr,
)
def test_scikit_learns_checks(model):
    results = check_estimator(model, on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] in ("failed", "xfail")] == []
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= SKIPPED


@pytest.mark.parametrize(
    ("deprecated", "instead"),
    [
        ({"penalty": "l1", "l1_ratio": 1}, {"l1_ratio": 1}),
        ({"penalty": "l2"}, {}),
        ({"penalty": "elasticnet", "l1_ratio": 0.3}, {"l1_ratio": 0.3}),
        ({"penalty": "elasticnet", "l1_ratio": 0}, {}),
        ({"penalty": None}, {"C": np.inf}),
    ],
)
def test_the_deprecated_name_says_the_same(deprecated, instead):
    X, y = DATA["load_iris"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = LogisticRegression(**instead).fit(X, y)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = LogisticRegression(**deprecated).fit(X, y)
    assert bits(model) == bits(expected)
    assert [(each.category, each.filename) for each in told] == [(FutureWarning, __file__)]
    assert LogisticRegression(deprecated["penalty"]).penalty == deprecated["penalty"]


@pytest.mark.parametrize(
    ("settings", "message", "instead"),
    [
        ({"penalty": "l1"}, "penalty='l1' and l1_ratio=0.0 are inconsistent", {"l1_ratio": 1}),
        ({"penalty": "l2", "l1_ratio": 0.5}, "inconsistent", {}),
        ({"penalty": None, "C": 2.0}, "C is 2.0, which penalty=None leaves unused", {"C": np.inf}),
        ({"C": np.inf, "l1_ratio": 0.5}, "l1_ratio is 0.5", {"C": np.inf}),
        ({"l1_ratio": None}, "'l1_ratio=None' was deprecated", {}),
    ],
)
def test_settings_that_say_two_things_are_told(settings, message, instead):
    X, y = DATA["load_breast_cancer"]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = LogisticRegression(**settings, max_iter=5).fit(X, y)
        assert bits(model) == bits(LogisticRegression(**instead, max_iter=5).fit(X, y))
    assert any(message in str(each.message) for each in told)
    assert {each.filename for each in told} == {__file__}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"penalty": "l3"}, "penalty is 'l3'; it must be one of"),
        ({"penalty": 1}, "penalty is 1"),
        ({"l1_ratio": 1.5}, "l1_ratio is 1.5; it must be at least 0 and at most 1"),
        ({"l1_ratio": -0.1}, "l1_ratio is -0.1"),
        ({"l1_ratio": 1, "C": 0}, "C is 0; it must be above 0"),
        ({"intercept_scaling": 1e200}, r"intercept_scaling is 1e\+200; it must be at least 1e-150 and at most 1e\+150"),
        ({"l1_ratio": 1, "C": 1e-320}, "the penalty .* exceeds float64"),
    ],
)
def test_wrong_settings(settings, message):
    X, y = DATA["load_iris"]
    with pytest.raises(ValueError, match=message):
        LogisticRegression(**settings).fit(X, y)


@pytest.mark.filterwarnings("ignore:'penalty' was deprecated")
def test_an_elastic_net_needs_its_ratio():
    with pytest.raises(ValueError, match="l1_ratio is None; with penalty='elasticnet' it must be a number"):
        LogisticRegression("elasticnet", l1_ratio=None).fit(*DATA["load_iris"])


@pytest.mark.parametrize("scaling", [0.5, 4.0])
def test_intercepts_of_liblinear_are_penalized(scaling):
    X, y = DATA["load_breast_cancer"]
    settings = {"C": 0.05, "l1_ratio": 1, "solver": "liblinear", "intercept_scaling": scaling}
    model, free = LogisticRegression(**settings, tol=1e-6).fit(X, y), LogisticRegression(C=0.05, l1_ratio=1).fit(X, y)
    twin = peer(X, y, **settings)
    np.testing.assert_allclose(model.coef_, twin.coef_, atol=2e-4)
    np.testing.assert_allclose(model.intercept_, twin.intercept_, atol=2e-4)
    assert abs(model.intercept_ - free.intercept_) > 0.01
    with pytest.raises(ValueError, match=r"l1_ratio is 0\.5; with solver='liblinear' it must be 0 or 1"):
        LogisticRegression(l1_ratio=0.5, solver="liblinear").fit(X, y)


# ------------------------------------------------------------------------------------------ the minimum


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(("C", "l1_ratio"), [(0.02, 1), (1.0, 1), (1.0, 0.5), (10.0, 0.9)])
@pytest.mark.parametrize("data", DATA)
def test_conditions_and_gap(data, C, l1_ratio, fit_intercept):
    X, y = DATA[data]
    settings = {"C": C, "l1_ratio": l1_ratio, "fit_intercept": fit_intercept}
    model = LogisticRegression(**settings).fit(X, y)
    value = values(model, X, y)[0]
    assert model.objective_ == pytest.approx(value, rel=1e-12)
    assert -1e-15 <= model.duality_gap_ <= max(1e-8 * value, 1e-13)
    if data != "load_digits":
        closer = LogisticRegression(**settings, tol=1e-7, max_iter=1000).fit(X, y)
        assert violation(closer, X, y) <= 1e-4
        assert -1e-13 <= value - closer.objective_ <= model.duality_gap_ + 1e-13
    assert model.intercept_.any() == fit_intercept


@pytest.mark.parametrize("l1_ratio", [1, 0.5])
@pytest.mark.parametrize("classes", [2, 3])
def test_coefficients_are_scikit_learns(classes, l1_ratio):
    X, y = DATA["load_iris"]
    X, y = X[y < classes] if classes == 3 else X[50:], y[y < classes] if classes == 3 else y[50:]
    weight = 1.0 + np.arange(len(X)) % 3
    settings = {"C": 0.2, "l1_ratio": l1_ratio, "class_weight": {1: 2.0}}
    expected = peer(X, y, sample_weight=weight, **settings)
    model = LogisticRegression(**settings, tol=1e-7).fit(X, y, weight)
    assert model.coef_ == pytest.approx(expected.coef_, abs=2e-6)
    assert np.array_equal(model.coef_ == 0, np.abs(expected.coef_) < 1e-9)
    shift = model.intercept_ - expected.intercept_
    assert shift - shift.mean() * (classes > 2) == pytest.approx(np.zeros(len(shift)), abs=2e-6)


@pytest.mark.parametrize("C", [0.1, 10.0])
def test_coefficients_are_liblinears(C):
    """Without intercepts: liblinear penalizes them."""
    X, y = DATA["load_breast_cancer"]
    expected = peer(X, y, C=C, l1_ratio=1, fit_intercept=False, solver="liblinear")
    model = LogisticRegression(C=C, l1_ratio=1, fit_intercept=False, tol=1e-7).fit(X, y)
    assert model.coef_ == pytest.approx(expected.coef_, abs=1e-5 * np.abs(expected.coef_).max())
    assert model.objective_ <= values(model.set_params(l1_ratio=1), X, y)[0] * (1 + 1e-12)


@pytest.mark.parametrize(("n", "columns", "classes", "C", "l1_ratio"), [
    (60, 400, 2, 0.3, 1), (60, 400, 2, 10.0, 1), (40, 300, 2, 1.0, 0.02), (60, 200, 4, 0.3, 1), (30, 200, 3, 1.0, 0.05),
])  # fmt: skip
def test_wide_data(n, columns, classes, C, l1_ratio, rng):
    X, y = rows_of_classes(rng, n, columns, classes)
    model = LogisticRegression(C=C, l1_ratio=l1_ratio, tol=1e-5, max_iter=1000).fit(X, y)
    assert model.duality_gap_ <= 1e-10 * max(model.objective_, 1e-6)
    assert violation(model, X, y) <= 1e-2
    if l1_ratio == 1:
        assert np.count_nonzero(model.coef_) < n * (classes - 1) + classes


def test_many_rows_are_more_than_one_slab(rng):
    X, y = rows_of_classes(rng, 9000, 90, 2, used=60)
    model = LogisticRegression(C=0.5, l1_ratio=1, tol=1e-6).fit(X, y)
    assert violation(model, X, y) <= 1e-3
    assert model.n_iter_[0] < 20


def test_weights_are_repetitions(rng):
    X, y = DATA["load_iris"]
    weight = rng.integers(0, 3, len(X))
    settings = {"C": 0.3, "l1_ratio": 0.8, "tol": 1e-7}
    model = LogisticRegression(**settings).fit(X, y, weight)
    repeated = LogisticRegression(**settings).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    assert model.coef_ == pytest.approx(repeated.coef_, abs=1e-6)
    far = np.where(weight[:, np.newaxis] > 0, X, 1e3)
    assert LogisticRegression(**settings).fit(far, y, weight).coef_ == pytest.approx(model.coef_, abs=1e-6)


# ------------------------------------------------------------------------------------ data that are hard


@pytest.mark.parametrize("gone", [0, 2, 3])
def test_a_class_without_weight_is_as_if_it_were_not_there(gone, rng):
    """No derivatives of the others balance those of its intercept, which falls for ever."""
    y = np.arange(120) % 4
    X = rng.normal(size=(120, 5)) + np.eye(4, 5)[y]
    kept = y != gone
    model = LogisticRegression(l1_ratio=1).fit(X, y, kept.astype(float))
    expected = LogisticRegression(l1_ratio=1, tol=1e-6).fit(X[kept], y[kept])
    assert not model.coef_[gone].any()
    assert np.delete(model.coef_, gone, axis=0) == pytest.approx(expected.coef_, abs=1e-6)
    assert 0 <= model.objective_ - expected.objective_ <= model.duality_gap_ + 1e-12


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("l1_ratio", [1, 0.5])
def test_a_strong_penalty_leaves_intercepts(classes, l1_ratio):
    X, y = DATA["load_iris"]
    y = np.minimum(y, classes - 1)
    model = LogisticRegression(C=1e-3, l1_ratio=l1_ratio).fit(X, y)
    assert not model.coef_.any()
    shares = np.bincount(y) / len(y)
    expected = [logit(shares[1])] if classes == 2 else np.log(shares) - np.log(shares).mean()
    assert model.intercept_ == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("classes", [2, 3])
def test_columns_that_say_nothing(classes):
    X, y = DATA["load_iris"]
    y = np.minimum(y, classes - 1)
    model = LogisticRegression(C=10.0, l1_ratio=1, tol=1e-6).fit(np.column_stack([X, np.zeros(150), X]), y)
    plain = LogisticRegression(C=10.0, l1_ratio=1, tol=1e-6).fit(X, y)
    assert not model.coef_[:, 4].any()
    assert model.objective_ == pytest.approx(plain.objective_, rel=1e-10)
    assert model.coef_[:, :4] + model.coef_[:, 5:] == pytest.approx(plain.coef_, abs=1e-4)
    constant = LogisticRegression(C=10.0, l1_ratio=1, tol=1e-6).fit(np.column_stack([X, np.full(150, 7.5)]), y)
    assert not constant.coef_[:, 4].any()
    assert constant.coef_[:, :4] == pytest.approx(plain.coef_, abs=1e-5)
    far = LogisticRegression(C=10.0, l1_ratio=1, tol=1e-6).fit(X + 1e6, y)
    assert far.coef_ == pytest.approx(plain.coef_, abs=1e-3)


@pytest.mark.parametrize("C", [1.0, 1e4])
def test_separable_classes(C):
    X, y = DATA["load_iris"]
    X, y = X[:100], y[:100]
    model = LogisticRegression(C=C, l1_ratio=1, tol=1e-6).fit(X, y)
    assert violation(model, X, y) <= 1e-3
    assert model.score(X, y) == 1
    hardly = LogisticRegression(C=1e12, l1_ratio=1, max_iter=5)
    with pytest.warns(ConvergenceWarning, match=r"after 5 steps \(max_iter = 5\) with a duality gap"):
        hardly.fit(X, y)
    assert np.isfinite(hardly.coef_).all()


def test_columns_of_different_units_and_columns_far_from_zero_without_intercept():
    X, y = DATA["load_iris"]
    for model, rows in (
        (LogisticRegression(l1_ratio=1), X * [1e6, 1, 1e-6, 1e3]),
        (LogisticRegression(l1_ratio=1, fit_intercept=False), X + 1000),
    ):
        assert model.fit(rows, y).duality_gap_ <= 1e-8 * model.objective_


@pytest.mark.parametrize("l1_ratio", [1, 0.5])
def test_classes_one_after_the_other_lead_to_the_same(l1_ratio, monkeypatch):
    X, y = DATA["load_iris"]
    together = LogisticRegression(C=0.1, l1_ratio=l1_ratio, tol=1e-5).fit(X, y)
    monkeypatch.setattr(sparse, "_MOST_TOGETHER", 0)
    model = LogisticRegression(C=0.1, l1_ratio=l1_ratio, tol=1e-5).fit(X, y)
    assert model.n_iter_[0] > together.n_iter_[0]
    assert model.coef_ == pytest.approx(together.coef_, abs=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_float32_and_any_number_of_threads(classes, rng):
    X, y = rows_of_classes(rng, 6000, 40, classes)
    X = X.astype(np.float32)
    settings = {"C": 0.05, "l1_ratio": 0.9, "tol": 1e-6}
    expected = LogisticRegression(**settings, n_jobs=1).fit(X, y)
    for n_jobs in (2, 3, None):
        assert bits(LogisticRegression(**settings, n_jobs=n_jobs).fit(X, y)) == bits(expected)
    wide = LogisticRegression(**settings).fit(X.astype(np.float64), y)
    assert expected.coef_.dtype == expected.intercept_.dtype == np.float32
    assert expected.coef_ == pytest.approx(wide.coef_.astype(np.float32), abs=1e-6)
    assert expected.duality_gap_ <= 1e-12 * expected.objective_


# ------------------------------------------------------------------------------------ our own promises


@pytest.mark.parametrize("data", ["load_breast_cancer", "load_iris"])
def test_warm_start(data):
    X, y = DATA[data]
    model = LogisticRegression(C=0.5, l1_ratio=1, warm_start=True).fit(X, y)
    cold = model.n_iter_[0]
    model.fit(X, y)
    assert model.n_iter_[0] == 0 < cold
    model.set_params(C=1.0, tol=1e-7).fit(X, y)
    assert model.coef_ == pytest.approx(LogisticRegression(C=1.0, l1_ratio=1, tol=1e-7).fit(X, y).coef_, abs=1e-5)
    model.set_params(l1_ratio=0.0).fit(X, y)
    assert not hasattr(model, "duality_gap_")
    model.set_params(l1_ratio=1.0).fit(X, y)
    assert math.isfinite(model.duality_gap_)
    with pytest.raises(ValueError, match="a warm start needs"):
        model.fit(X[:, 1:], y)


def test_verbose(capsys):
    model = LogisticRegression(l1_ratio=1, verbose=1).fit(*DATA["load_iris"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_[0] + 1
    assert lines[0].startswith("round 0: objective ")
