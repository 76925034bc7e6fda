"""LinearSVC: scikit-learn's rules and optima, duality gaps that are true, and known answers."""

from __future__ import annotations

import math
import os
import pickle
import warnings

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize
from sklearn import svm as theirs
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from fastml import LinearSVC, datasets
from fastml.kernels.runtime import parallel

# Fits as plain Python take minutes.
pytestmark = pytest.mark.needs_jit

# Array API objects need an environment variable that SciPy reads at its first import.
SKIPPED = {"check_array_api_input"}

needs_data = pytest.mark.skipif("FASTML_DATA" not in os.environ, reason="FASTML_DATA is not set")


def standardized(load):
    X, y = load(return_X_y=True)
    return (X - X.mean(axis=0)) / np.where(X.std(axis=0) > 0, X.std(axis=0), 1), y


DATA = {load.__name__: standardized(load) for load in (load_breast_cancer, load_iris, load_digits)}


def problems(model, y):
    """Signs of the rows in each one-against-the-rest problem."""
    positive = model.classes_[1:] if len(model.classes_) == 2 else model.classes_
    return np.where(y == positive[:, np.newaxis], 1.0, -1.0)


def primal(model, X, y, weight=1.0):
    """The objectives, as the documentation writes them."""
    slack = np.maximum(0, 1 - problems(model, y) * (X @ model.coef_.T + model.intercept_).T)
    losses = slack**2 if model.loss == "squared_hinge" else slack
    penalty = (model.coef_**2).sum(axis=1)
    if model.fit_intercept and model.regularize_intercept:
        penalty = penalty + (model.intercept_ / model.intercept_scaling) ** 2
    return 0.5 * penalty + model.C * (weight * losses).sum(axis=1)


def dual(model, X, y, weight=1.0):
    """The dual objectives of `dual_coef_`, after a look at whether it is feasible."""
    signs, costs = problems(model, y), model.C * np.broadcast_to(weight, len(X))
    alpha = model.dual_coef_ * signs
    assert alpha.min() >= 0
    value = alpha.sum(axis=1) - 0.5 * ((model.dual_coef_ @ X) ** 2).sum(axis=1)
    if model.loss == "squared_hinge":
        value -= (alpha**2 / (4 * costs)).sum(axis=1)
    else:
        assert (alpha <= costs * (1 + 1e-12)).all()
    sums = model.dual_coef_.sum(axis=1)
    if not model.fit_intercept:
        return value
    if model.regularize_intercept:
        return value - 0.5 * (model.intercept_scaling * sums) ** 2
    assert np.abs(sums).max() <= 1e-9 * alpha.sum(axis=1).max()
    return value


def crammer_singer(model, X, y):
    """Crammer and Singer's objective."""
    scores = X @ model.coef_.T + model.intercept_
    codes = np.searchsorted(model.classes_, y)
    slack = scores + 1 - scores[np.arange(len(X)), codes][:, np.newaxis]
    slack[np.arange(len(X)), codes] = 0
    return 0.5 * ((model.coef_**2).sum() + np.square(model.intercept_).sum()) + model.C * slack.max(axis=1).sum()


def peer(X, y, sample_weight=None, **settings):
    """liblinear, converged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = theirs.LinearSVC(tol=1e-10, max_iter=1_000_000, random_state=0, **settings)
        return model.fit(X, y, sample_weight)


def distance(model, other):
    """The largest difference of coefficients and intercepts, in units of the largest coefficient."""
    found, expected = (np.column_stack([m.coef_, np.broadcast_to(m.intercept_, len(m.coef_))]) for m in (model, other))
    return np.abs(found - expected).max() / np.abs(expected[:, :-1]).max()


def bits(model):
    return model.coef_.tobytes() + model.intercept_.tobytes()


# ------------------------------------------------------------------------------- scikit-learn's rules


PRECISE = {"tol": 1e-13, "max_iter": 100_000}


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        LinearSVC(),
        LinearSVC(loss="hinge", class_weight="balanced", n_jobs=2),
        LinearSVC(regularize_intercept=False),
        LinearSVC(dual=True, **PRECISE),
        LinearSVC(multi_class="crammer_singer", **PRECISE),
    ],
    ids=repr,
)
def test_scikit_learns_checks(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # some checks allow few iterations
        results = check_estimator(model, on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] in ("failed", "xfail")}
    if model.dual is True:
        # Compares coefficients to 1e-7; with a gap of 1e-15, all that float64 can tell, they may differ by 3e-8 each.
        failed.pop("check_sample_weight_equivalence_on_dense_data", None)
    assert failed == {}
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= SKIPPED
    assert len(results) > 40


def test_pickles_and_labels_of_text():
    X, y = DATA["load_iris"]
    names = np.array(["setosa", "versicolor", "virginica"])
    model = LinearSVC().fit(X, names[y])
    plain = pickle.loads(pickle.dumps(LinearSVC().fit(X, y)))
    assert bits(model) == bits(plain)
    assert np.array_equal(model.predict(X), names[plain.predict(X)])
    assert model.decision_function(X).shape == (150, 3)
    assert LinearSVC().fit(X, y == 1).decision_function(X).shape == (150,)


# ----------------------------------------------------------------------- duality gaps and optima


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])
@pytest.mark.parametrize("in_the_dual", [True, False])
@pytest.mark.parametrize("intercept", ["none", "regularised", "free"])
@pytest.mark.parametrize("tol", [1e-2, 1e-6])
def test_gaps_are_true(data, loss, in_the_dual, intercept, tol):
    X, y = DATA[data]
    X, y = X[:500:2], y[:500:2]
    model = LinearSVC(
        loss=loss, dual=in_the_dual, tol=tol, C=0.05, max_iter=20_000,
        fit_intercept=intercept != "none", regularize_intercept=intercept != "free",
    ).fit(X, y)  # fmt: skip
    above, below = primal(model, X, y), dual(model, X, y)
    assert model.objective_ == pytest.approx(above, rel=1e-10)
    assert above - below == pytest.approx(model.duality_gap_, abs=1e-9 * above.max())
    assert (model.duality_gap_ >= -1e-12 * above).all()
    assert (model.duality_gap_ <= tol * above).all()
    if intercept == "none":
        assert not model.intercept_.any()


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_coefficients_are_liblinears(data, loss, fit_intercept):
    X, y = DATA[data]
    X, y = X[:600], y[:600]
    expected = peer(X, y, C=0.02, loss=loss, fit_intercept=fit_intercept)
    for in_the_dual in (False, True):
        model = LinearSVC(
            C=0.02, loss=loss, fit_intercept=fit_intercept, dual=in_the_dual, tol=1e-11, max_iter=100_000
        ).fit(X, y)
        assert distance(model, expected) <= 1e-4
        assert primal(model, X, y) == pytest.approx(primal(expected_as(model, expected), X, y), rel=1e-8)


def expected_as(model, other):
    """A model with our settings and other coefficients."""
    twin = LinearSVC(**model.get_params())
    twin.classes_, twin.coef_, twin.intercept_ = model.classes_, other.coef_, other.intercept_
    return twin


@pytest.mark.parametrize("in_the_dual", [True, False])
@pytest.mark.parametrize("scaling", [0.5, 10.0])
def test_scaled_intercepts_are_liblinears(in_the_dual, scaling):
    X, y = DATA["load_breast_cancer"]
    settings = {"C": 0.02, "intercept_scaling": scaling, "dual": in_the_dual}
    model = LinearSVC(tol=1e-12, max_iter=100_000, **settings).fit(X + 1, y)
    assert distance(model, peer(X + 1, y, **settings)) <= 1e-4


@pytest.mark.parametrize("in_the_dual", [True, False])
def test_free_intercepts_are_those_of_kernel_machines(in_the_dual):
    """libsvm does not penalise the intercept."""
    X, y = DATA["load_breast_cancer"]
    expected = theirs.SVC(kernel="linear", C=0.05, tol=1e-10).fit(X + 2, y)
    model = LinearSVC(loss="hinge", C=0.05, dual=in_the_dual, regularize_intercept=False, tol=1e-10, max_iter=100_000)
    assert distance(model.fit(X + 2, y), expected) <= 1e-4


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
@pytest.mark.parametrize("in_the_dual", [False, True])
def test_free_intercepts_are_found_whatever_the_units(loss, in_the_dual, rng):
    X = rng.normal(size=(200, 5))
    y = X[:, 0] + rng.normal(size=200) > 0.1
    for unit in (0.0, 1e-3, 1.0):
        for C in (1e-8, 1e-5, 1e-2):
            model = LinearSVC(loss=loss, dual=in_the_dual, C=C, regularize_intercept=False, max_iter=300)
            model.fit(unit * X, y)
            assert model.duality_gap_[0] <= 1e-4 * model.objective_[0]
            if C * 200 * unit**2 < 1e-5:  # no coefficients to speak of: a majority, or a mean
                best = math.copysign(1, y.mean() - 0.5) if loss == "hinge" else 2 * y.mean() - 1
                assert model.intercept_[0] == pytest.approx(best, abs=0.02)


@pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])
@pytest.mark.parametrize("dual", ["auto", True, False])
@pytest.mark.parametrize("away", [1e2, 1e4, 1e6, 1e8])
@pytest.mark.parametrize("classes", [2, 3])
def test_free_intercepts_of_columns_far_from_zero(loss, dual, away, classes, rng):
    """An offset changes nothing but the intercept."""
    centered = np.round(rng.normal(size=(300, 3)) * 1024) / 1024
    y = (centered[:, :classes] + rng.gumbel(size=(300, classes)) / 2).argmax(axis=1)
    settings = {"loss": loss, "dual": dual, "C": 0.1, "regularize_intercept": False, "tol": 1e-5, "max_iter": 5000}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LinearSVC(**settings).fit(centered + away, y)
    expected = LinearSVC(**settings | {"dual": False, "tol": 1e-7}).fit(centered, y)
    assert model.objective_ == pytest.approx(expected.objective_, rel=2e-5)
    assert (model.duality_gap_ <= 1e-5 * model.objective_).all()
    assert distance_of_directions(model, expected) <= 0.02
    assert np.mean(model.predict(centered + away) == expected.predict(centered)) > 0.98


def distance_of_directions(model, other):
    """The largest difference of coefficients, in units of the largest."""
    return np.abs(model.coef_ - other.coef_).max() / np.abs(other.coef_).max()


@pytest.mark.parametrize(
    ("n", "columns", "classes"), [(40, 100, 2), (100, 500, 3), (150, 900, 10), (300, 300, 2), (90, 70, 2)]
)
@pytest.mark.parametrize("intercept", ["none", "regularised", "free"])
def test_the_hinge_of_few_rows(n, columns, classes, intercept, rng):
    """Solved in the dual: passes, not a thousand steps, and with a true gap."""
    X, y = rng.normal(size=(n, columns)), rng.permutation(np.arange(n) % classes)
    settings = {"fit_intercept": intercept != "none", "regularize_intercept": intercept != "free"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LinearSVC(loss="hinge", random_state=0, **settings).fit(X, y)
        same = LinearSVC(loss="hinge", random_state=0, dual=True, **settings).fit(X, y)
    assert bits(model) == bits(same)
    above, below = primal(model, X, y), dual(model, X, y)
    assert (above - below <= 1e-4 * above).all()
    assert model.duality_gap_ == pytest.approx(above - below, abs=1e-9 * above.max())


def test_where_the_dual_does_not_get_there_the_primal_does(rng):
    """Rows that are all alike but for a little make it slow, unless the intercept is free."""
    X = rng.normal(size=(100, 300)) + 30
    y = X[:, :5].sum(axis=1) > 150
    with pytest.warns(ConvergenceWarning):
        LinearSVC(loss="hinge", dual=True).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LinearSVC(loss="hinge").fit(X, y)
    assert (model.duality_gap_ <= 1e-4 * model.objective_).all()
    assert primal(model, X, y) == pytest.approx(model.objective_, rel=1e-9)


@pytest.mark.parametrize("form", [
    {}, {"dual": True}, {"loss": "hinge"}, {"loss": "hinge", "dual": True}, {"multi_class": "crammer_singer"},
])  # fmt: skip
@pytest.mark.parametrize("C", [1e-300, 1e-16, 1e-8])
def test_however_little_coefficients_gain_there_are_some(form, C):
    """No slack is gone: the coefficients are the sum of all rows, times their signs and costs."""
    X, y = DATA["load_breast_cancer"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # Crammer and Singer's bound of 1e-300
        model = LinearSVC(C=C, **form).fit(X, y)
    expected = C * (2 * y - 1) @ X
    assert model.coef_[0] / np.abs(model.coef_).max() == pytest.approx(
        expected / np.abs(expected).max(), abs=0.02 if "multi_class" in form else 1e-4
    )
    assert model.score(X, y) > 0.9


@pytest.mark.parametrize("C", [5e-324, 1e-310, 1e200, 1.7e308])
@pytest.mark.parametrize("multi_class", ["ovr", "crammer_singer"])
def test_costs_out_of_range_are_refused(C, multi_class):
    X, y = DATA["load_iris"]
    with pytest.raises(ValueError, match=r"^C is [\d.e+-]+; times the weights"):
        LinearSVC(C=C, multi_class=multi_class).fit(X, y)
    with pytest.raises(ValueError, match="sample_weight has values too large"):
        LinearSVC(multi_class=multi_class).fit(X, y, np.full(len(X), 1e307))
    with pytest.raises(ValueError, match=r"C is 1\.0; times the weights"):
        LinearSVC(multi_class=multi_class, class_weight={0: 1e200}).fit(X, y)
    # What counts is the product.
    settings = {"multi_class": multi_class, "random_state": 0}
    model = LinearSVC(C=1e-202, **settings).fit(X, y, np.full(len(X), 1e200))
    assert model.coef_ == pytest.approx(LinearSVC(C=1e-2, **settings).fit(X, y).coef_, rel=1e-3, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_crammer_singer(data, fit_intercept):
    X, y = DATA[data]
    X, y = X[:300:2], y[:300:2]
    settings = {"C": 0.05, "multi_class": "crammer_singer", "fit_intercept": fit_intercept}
    model = LinearSVC(tol=1e-9, max_iter=100_000, **settings).fit(X, y)
    expected = peer(X, y, **settings)
    assert distance(model, expected) <= 1e-3
    assert model.duality_gap_ <= 1e-9 * model.objective_
    if len(model.classes_) > 2:
        assert model.objective_[0] == pytest.approx(crammer_singer(model, X, y), rel=1e-12)
        assert model.objective_[0] <= crammer_singer(expected_as(model, expected), X, y) * (1 + 1e-9)
        assert model.dual_coef_.sum(axis=0) == pytest.approx(np.zeros(len(X)), abs=1e-12)
        assert model.coef_ == pytest.approx(model.dual_coef_ @ X, abs=1e-10)


def test_crammer_singer_separates_without_loss(rng):
    """On separable data a minimiser has loss 0 for C large enough, and no errors."""
    centers = np.array([[0, 10], [10, 0], [-10, -10]])
    y = rng.integers(0, 3, 90)
    X = centers[y] + rng.uniform(-1, 1, (90, 2))
    model = LinearSVC(multi_class="crammer_singer", C=100.0, tol=1e-9, max_iter=100_000, fit_intercept=False).fit(X, y)
    assert model.score(X, y) == 1
    assert crammer_singer(model, X, y) == pytest.approx(0.5 * (model.coef_**2).sum(), rel=1e-6)


# ---------------------------------------------------------------------------------------- known answers


@pytest.mark.parametrize("in_the_dual", [True, False])
def test_squared_slack(in_the_dual, rng):
    """½‖w‖² + C/2 sum ξ² with a free intercept, solved in its dual by SciPy: w = sum α y x, and ξ = α / C."""
    C, X = 3.0, rng.normal(size=(40, 3))
    y = np.where(X @ [1, -1, 0.5] + 0.3 * rng.normal(size=40) > 0.2, 1, -1)
    K = (X @ X.T) * np.outer(y, y) + np.eye(40) / C
    solved = minimize(
        lambda a: (0.5 * a @ K @ a - a.sum(), K @ a - 1), np.full(40, 0.1), jac=True, method="trust-constr",
        hess=lambda a: K, bounds=[(0, np.inf)] * 40, constraints=LinearConstraint(y, 0, 0),
        options={"gtol": 1e-10, "xtol": 1e-14, "maxiter": 3000},
    )  # fmt: skip
    w = (solved.x * y) @ X
    # scikit-learn's C of the squared hinge is half of this one.
    model = LinearSVC(C=C / 2, dual=in_the_dual, regularize_intercept=False, tol=1e-10, max_iter=100_000).fit(X, y)
    assert model.coef_[0] == pytest.approx(w, abs=1e-5)
    assert model.duality_gap_[0] <= 1e-6 * model.objective_[0]
    assert model.objective_[0] == pytest.approx(-solved.fun, rel=1e-6)
    slack = np.maximum(0, 1 - y * model.decision_function(X))
    assert slack == pytest.approx(model.dual_coef_[0] * y / C, abs=1e-3)


def test_two_points():
    """The margin lies halfway between them."""
    X, y = np.array([[0.0, 0.0], [2.0, 0.0]]), [-1, 1]
    for loss in ("hinge", "squared_hinge"):
        model = LinearSVC(C=1e5, loss=loss, regularize_intercept=False, tol=1e-9, max_iter=100_000).fit(X, y)
        assert model.coef_[0] == pytest.approx([1, 0], abs=1e-4)
        assert model.intercept_[0] == pytest.approx(-1, abs=1e-4)


# ------------------------------------------------------------------------------------ weights and shapes


@pytest.mark.parametrize(
    "form", [{"dual": False}, {"dual": True}, {"loss": "hinge"}, {"multi_class": "crammer_singer"}]
)
def test_weights_are_repetitions(form, rng):
    X, y = DATA["load_iris"]
    weight = rng.integers(0, 4, len(X)).astype(np.float64)
    repeated = np.repeat(np.arange(len(X)), weight.astype(int))
    settings = {"C": 0.1, "tol": 1e-11, "max_iter": 100_000, **form}
    model = LinearSVC(**settings).fit(X, y, weight)
    expected = LinearSVC(**settings).fit(X[repeated], y[repeated])
    assert distance(model, expected) <= 1e-4
    assert model.objective_ == pytest.approx(expected.objective_, rel=1e-9)


@pytest.mark.parametrize("data", ["load_breast_cancer", "load_iris"])
@pytest.mark.parametrize("multi_class", ["ovr", "crammer_singer"])
def test_weights_of_classes_are_liblinears(data, multi_class):
    X, y = DATA[data]
    settings = {"C": 0.1, "class_weight": {0: 3.0, 1: 0.2}, "multi_class": multi_class}
    model = LinearSVC(tol=1e-10, max_iter=100_000, **settings).fit(X, y)
    assert distance(model, peer(X, y, **settings)) <= 1e-3


def test_wide_data(rng):
    X = rng.normal(size=(60, 500))
    y = np.where(X[:, 0] + X[:, 1] > 0, 1, 0)
    for loss in ("squared_hinge", "hinge"):
        found = [LinearSVC(C=0.01, loss=loss, dual=dual, **PRECISE).fit(X, y) for dual in ("auto", True, False)]
        assert distance(found[1], found[2]) <= 1e-5
        assert distance(found[0], found[1]) <= 1e-5


def test_float32_and_its_gap(rng):
    X = rng.normal(size=(40_000, 60)).astype(np.float32)
    y = (X @ rng.normal(size=60) + rng.normal(size=40_000) > 0).astype(int)
    model = LinearSVC(C=1e-3, tol=1e-8).fit(X, y)
    wide = LinearSVC(C=1e-3, tol=1e-8).fit(X.astype(np.float64), y)
    assert model.coef_.dtype == np.float32
    assert wide.coef_.dtype == np.float64
    assert distance(model, wide) <= 1e-4
    assert (model.duality_gap_ <= 1e-8 * model.objective_).all()
    assert model.objective_ == pytest.approx(wide.objective_, rel=1e-7)


@pytest.mark.parametrize("dual", [True, False])
@pytest.mark.parametrize("loss", ["squared_hinge", "hinge"])
def test_same_bits_for_any_number_of_threads(dual, loss):
    X, y = DATA["load_digits"]
    settings = {"C": 0.01, "dual": dual, "loss": loss, "random_state": 0}
    expected = bits(LinearSVC(n_jobs=1, **settings).fit(X, y))
    for n_jobs in (2, 3, None):
        assert bits(LinearSVC(n_jobs=n_jobs, **settings).fit(X, y)) == expected


def test_few_rows_do_not_ask_for_all_threads(monkeypatch):
    """What a descent costs is said before it begins: at least the epochs until the gap is looked at."""
    asked, resolve = [], parallel.resolve

    def seconds_asked(n_threads, *, seconds=math.inf):
        asked.append(seconds)
        return resolve(n_threads, seconds=seconds)

    monkeypatch.setattr(parallel, "resolve", seconds_asked)
    X, y = DATA["load_iris"]
    LinearSVC(dual=True, random_state=0).fit(X[::15], y[::15])
    assert max(asked) < parallel.SMALL_SECONDS
    X, y = DATA["load_digits"]
    LinearSVC(dual=True, C=1e-3, random_state=0).fit(X, y)
    assert 50 * parallel.SMALL_SECONDS < max(asked) < math.inf


@needs_data
@pytest.mark.slow
def test_mnist_digits():
    mnist = datasets.load_mnist()
    X, X_test = (part.reshape(len(part), -1).astype(np.float32) / 255 for part in (mnist.X_train, mnist.X_test))
    model = LinearSVC(C=0.01).fit(X, mnist.y_train)
    assert (model.duality_gap_ <= 1e-4 * model.objective_).all()
    assert 0.91 < model.score(X_test, mnist.y_test) < 0.93


# --------------------------------------------------------------------------------- our own promises


@pytest.mark.parametrize("form", [{"dual": False}, {"dual": True}, {"multi_class": "crammer_singer"}])
def test_an_end_too_early_is_told(form):
    X, y = DATA["load_digits"]
    with pytest.warns(ConvergenceWarning, match=r"max_iter = 2\) with duality gaps.*tol = 1e-12 was asked for"):
        model = LinearSVC(tol=1e-12, max_iter=2, **form).fit(X, y)
    assert model.n_iter_ == 2
    assert (model.duality_gap_ > 1e-12 * model.objective_).any()
    with pytest.warns(ConvergenceWarning, match="tol = 0 was asked for") as caught:
        LinearSVC(tol=0, max_iter=2, **form).fit(X, y)
    assert [each.category for each in caught] == [ConvergenceWarning]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LinearSVC(C=0.01, max_iter=20_000, **form).fit(X, y)


@pytest.mark.parametrize("form", [{"dual": False}, {"dual": True}, {"multi_class": "crammer_singer"}])
def test_verbose(form, capsys):
    X, y = DATA["load_iris"]
    LinearSVC(C=0.1, verbose=1, **form).fit(X, y)
    assert "objective" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"C": 0}, ValueError, "C is 0; it must be above 0"),
        ({"C": np.inf}, ValueError, "C is inf"),
        ({"C": "1"}, TypeError, "C is '1'"),
        ({"tol": -1}, ValueError, "tol is -1"),
        ({"loss": "log"}, ValueError, "loss is 'log'; it must be one of 'squared_hinge', 'hinge'"),
        ({"dual": 1}, ValueError, "dual is 1; it must be one of 'auto', True, False"),
        ({"multi_class": "ovo"}, ValueError, "multi_class is 'ovo'"),
        ({"fit_intercept": 0}, TypeError, "fit_intercept is 0"),
        ({"regularize_intercept": None}, TypeError, "regularize_intercept is None"),
        ({"intercept_scaling": 0}, ValueError, "intercept_scaling is 0"),
        ({"intercept_scaling": 1e-200}, ValueError, "intercept_scaling is 1e-200; it must be at least 1e-150 and at"),
        ({"max_iter": 0}, ValueError, "max_iter is 0"),
        ({"multi_class": "crammer_singer", "regularize_intercept": False}, ValueError, "needs multi_class='ovr'"),
    ],
)
def test_wrong_settings(settings, error, message):
    X, y = DATA["load_iris"]
    with pytest.raises(error, match=message):
        LinearSVC(**settings).fit(X, y)
