"""SGDClassifier and SGDRegressor: steps as NumPy takes them, scikit-learn's rules, and our own promises."""

from __future__ import annotations

import math
import pickle
import signal
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn import linear_model as theirs
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.estimator_checks import check_estimator

from fastml import DivergenceWarning, MLPClassifier, MLPRegressor, SGDClassifier, SGDRegressor
from fastml.kernels.reference import vectorized
from fastml.linear_model import _optimal_steps
from fastml.utils.validation import check_finite, encode_labels

MODELS = {SGDClassifier: theirs.SGDClassifier, SGDRegressor: theirs.SGDRegressor}
CONSTANT = {"learning_rate": "constant", "tol": None}

try:
    import sklearn.callback as sklearn_callback
except ImportError:
    sklearn_callback = None


@pytest.fixture
def classes(rng):
    """Rows and labels of three classes."""
    X, y = rng.normal(size=(60, 5)), np.arange(60) % 3
    X[:, 0] += y
    return X, np.array(["c", "a", "b"])[y]


@pytest.fixture
def numbers(rng):
    """Rows and numbers."""
    X = rng.normal(size=(60, 5))
    return X, X @ rng.normal(size=5) + 0.1 * rng.normal(size=60) + 2


# ------------------------------------------------------------------------------------- steps by NumPy

BY_NUMPY = {
    "hinge": (SGDClassifier("hinge"), "hinge"),
    "squared_hinge": (SGDClassifier("squared_hinge"), "squared_hinge"),
    "log_loss": (SGDClassifier("log_loss"), "binary_cross_entropy"),
    "multinomial": (SGDClassifier("log_loss"), "softmax_cross_entropy"),
    "crammer_singer": (SGDClassifier("hinge", multi_class="crammer_singer"), "multiclass_hinge"),
    "hinge ovr": (SGDClassifier("hinge"), "hinge"),
    "squared_hinge ovr": (SGDClassifier("squared_hinge"), "squared_hinge"),
    "log_loss ovr": (SGDClassifier("log_loss", multi_class="ovr"), "binary_cross_entropy"),
    "squared_error": (SGDRegressor("squared_error"), "squared_error"),
    "absolute_error": (SGDRegressor("absolute_error"), "absolute_error"),
    "huber": (SGDRegressor("huber", epsilon=0.5), "huber"),
}


def steps_by_numpy(loss, X, T, weight, *, size, rates, l2, l1, momentum, nesterov, average_from, delta, intercept=True):
    """Train (C, D) weights on batches in order; T has a column for each column of scores, or is class indices."""
    C = T.shape[1] if T.ndim == 2 else T.max() + 1
    W, b = np.zeros((C, X.shape[1])), np.zeros(C)
    vW, vb, mean, losses = 0 * W, 0 * b, None, []
    more = {"delta": delta} if loss == "huber" else {}
    gradient = getattr(vectorized, f"{loss}_gradient")
    for t, rate in enumerate(rates, 1):
        first = ((t - 1) * size) % (-(-len(X) // size) * size)
        x, w, target = (a[first : first + size] for a in (X, weight, T))
        Z = x @ W.T + b
        if T.ndim == 1:
            value, G = gradient(Z, target, sample_weight=w)
            G, values = G * w.sum() / len(w), [value * w.sum() / len(w)]
        else:
            parts = [gradient(z, t_, sample_weight=w, **more) for z, t_ in zip(Z.T, target.T, strict=True)]
            G = np.stack([g for _, g in parts], axis=1) * w.sum() / len(w)
            values = [value * w.sum() / len(w) for value, _ in parts]
        losses.append(np.mean(values))
        dW, db = G.T @ x + l2 * W, G.sum(axis=0) * intercept
        vW, vb = momentum * vW - rate * dW, momentum * vb - rate * db
        W = W + (momentum * vW - rate * dW if nesterov else vW)
        b = b + (momentum * vb - rate * db if nesterov else vb)
        W = np.sign(W) * np.maximum(np.abs(W) - rate * l1, 0)
        if average_from and t >= average_from:
            k = t - average_from + 1
            mean = (W, b) if mean is None else tuple(m + (new - m) / k for m, new in zip(mean, (W, b), strict=True))
    return (*((W, b) if mean is None else mean), losses)


def targets_by_numpy(name, y):
    """The targets of the labels or numbers y, as `steps_by_numpy` takes them."""
    if name in ("squared_error", "absolute_error", "huber"):
        return y[:, np.newaxis]
    codes = np.unique(y, return_inverse=True)[1]
    if name in ("multinomial", "crammer_singer"):
        return codes
    hot = (codes[:, np.newaxis] == np.arange(3)) if name.endswith("ovr") else codes[:, np.newaxis] == 1
    return hot.astype(float) if name.startswith("log_loss") else 2.0 * hot - 1


@pytest.mark.parametrize("name", BY_NUMPY)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"penalty": None, "fit_intercept": False},
        {"penalty": "elasticnet", "alpha": 0.3, "l1_ratio": 0.4, "momentum": 0.8},
        {"penalty": "l1", "alpha": 0.1, "momentum": 0.9, "nesterovs_momentum": True},
        {"alpha": 0.5, "average": 5, "momentum": 0.5},
    ],
    ids=lambda s: "-".join(map(str, s.values())) or "plain",
)
def test_steps_are_those_of_numpy(name, settings, classes, numbers, rng):
    model, loss = BY_NUMPY[name]
    X, y = classes if isinstance(model, SGDClassifier) else numbers
    if name in ("hinge", "squared_hinge", "log_loss"):
        X, y = X[y != "b"], y[y != "b"]
    rates = np.linspace(0.3, 0.1, 14)
    weight = rng.uniform(0.5, 2, len(X))
    model = clone(model).set_params(
        tol=None, sampling="sequential", batch_size=9, learning_rate=rates, max_steps=14, **settings
    )
    model.fit(X, y, sample_weight=weight)

    strength, share = model.alpha * (model.penalty is not None), {"l2": 0, "l1": 1}.get(model.penalty, model.l1_ratio)
    W, b, losses = steps_by_numpy(
        loss, X, targets_by_numpy(name, y), weight / weight.mean(), size=9, rates=rates, l2=strength * (1 - share),
        l1=strength * share, momentum=model.momentum, nesterov=model.nesterovs_momentum, average_from=model.average,
        delta=getattr(model, "epsilon", None), intercept=model.fit_intercept,
    )  # fmt: skip
    np.testing.assert_allclose(np.atleast_2d(model.coef_), W, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.intercept_, b, rtol=1e-9, atol=1e-12)
    batches = [weight[first : first + 9] / weight.mean() for first in range(0, len(X), 9)]  # the last one is shorter
    steps = len(batches)
    sums = np.array([loss * len(batches[step % steps]) for step, loss in enumerate(losses)])
    totals = np.array([batches[step % steps].sum() for step in range(14)])
    cuts = [slice(first, first + steps) for first in range(0, 14, steps)]
    expected = [sums[cut].sum() / totals[cut].sum() for cut in cuts]
    np.testing.assert_allclose(model.history_["train_loss"], expected, rtol=1e-9)
    assert model.t_ == 15


@pytest.mark.parametrize("average", [False, 4])
@pytest.mark.parametrize("schedule", [("constant", 0), ("invscaling", 0.25), ("optimal", 0)])
@pytest.mark.parametrize("loss", ["hinge", "log_loss", "squared_hinge", "squared_error", "huber"])
@pytest.mark.filterwarnings("ignore::fastml.DivergenceWarning")  # such steps are large for the squared losses
def test_batches_of_one_row_are_scikit_learns_steps(loss, schedule, average, classes, numbers, monkeypatch):
    ours, (X, y) = (SGDClassifier, classes) if loss in SGDClassifier._losses else (SGDRegressor, numbers)
    if ours is SGDClassifier:
        X, y = X[y != "b"], y[y != "b"]
    X = X / 20
    monkeypatch.setattr(_optimal_steps, "_stable", lambda task, batches: math.inf)
    settings = {
        "loss": loss, "alpha": 0.5, "max_iter": 3, "tol": None, "learning_rate": schedule[0], "eta0": 0.2,
        "power_t": schedule[1], "average": average,
    }  # fmt: skip
    peer = MODELS[ours](shuffle=False, **settings).fit(X, y)
    model = ours(sampling="sequential", batch_size=1, **settings).fit(X, y)
    np.testing.assert_allclose(model.coef_, peer.coef_, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(model.intercept_, peer.intercept_, rtol=1e-7, atol=1e-10)
    assert model.n_iter_ == peer.n_iter_
    assert model.t_ == peer.t_


def test_first_steps_of_optimal_do_not_overshoot(rng):
    """scikit-learn begins with steps of 10, which is too much for features above 1."""
    for size in (1.0, 1e3, 1e-3):
        X = rng.normal(size=(400, 8)) * size
        y = X @ rng.normal(size=8) > 0
        for loss in ("hinge", "log_loss", "squared_hinge"):
            model = SGDClassifier(loss, max_iter=5, tol=None, random_state=0).fit(X, y)
            losses = model.history_["train_loss"]
            assert losses.max() < 1.01 * losses[0]
            assert size < 1 or model.score(X, y) > 0.9


# ------------------------------------------------------------------------------- scikit-learn's rules


@pytest.mark.needs_jit
@pytest.mark.filterwarnings("ignore")  # for tiny data there are many: max_iter, diverging steps
@pytest.mark.parametrize(
    "model", [SGDClassifier(), SGDClassifier("log_loss"), SGDRegressor(), SGDRegressor("absolute_error")], ids=repr
)
def test_scikit_learns_checks(model):
    results = check_estimator(model, on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] in ("failed", "xfail")] == []
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= {"check_array_api_input"}
    assert len(results) > 40


class WeightsForgotten(SGDRegressor):
    def fit(self, X, y, *, sample_weight=None):
        return super().fit(X, y)


@pytest.mark.needs_jit
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_find_a_wrong_model():
    results = check_estimator(WeightsForgotten(), on_fail=None, on_skip=None)
    failed = {r["check_name"] for r in results if r["status"] == "failed"}
    assert "check_sample_weight_equivalence_on_dense_data" in failed


@pytest.mark.parametrize("ours", MODELS)
def test_names_and_defaults_are_scikit_learns(ours):
    expected = MODELS[ours]().get_params()
    if expected.get("eta0") == 0:  # scikit-learn before 1.8
        expected["eta0"] = 0.01
    params = ours().get_params()
    common = set(expected) & set(params)
    assert {name: params[name] for name in common} == {name: expected[name] for name in common}
    assert set(expected) - set(params) == {"shuffle"} | ({"epsilon"} if ours is SGDClassifier else set())


def test_pipeline_grid_search_clone_and_pickle(classes):
    X, y = classes
    model = SGDClassifier("log_loss", random_state=0, callbacks=[print_nothing])
    pipeline = make_pipeline(StandardScaler(), model)
    search = GridSearchCV(pipeline, {"sgdclassifier__alpha": [1e-3, 0.1]}, cv=3).fit(X, y)
    assert search.score(X, y) > 0.5
    found = search.best_estimator_[-1]
    copy = clone(found)
    assert copy.get_params() == found.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(X)
    again = pickle.loads(pickle.dumps(search))
    assert np.array_equal(again.predict_proba(X), search.predict_proba(X))


def print_nothing(state):
    assert state.step > 0


def test_data_frames(classes):
    X, y = classes
    frame = pd.DataFrame(X, columns=list("vwxyz"))
    model = SGDClassifier(random_state=0).fit(frame, pd.Series(y), X_val=frame, y_val=pd.Series(y))
    assert model.feature_names_in_.tolist() == list("vwxyz")
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("zyxwv")])
    with pytest.raises(ValueError, match="feature names"):
        model.fit(frame, y, X_val=frame[list("zyxwv")], y_val=y)
    assert np.array_equal(model.predict(frame), SGDClassifier(random_state=0).fit(X, y).predict(X))
    table = pd.DataFrame(model.history_)
    assert table.columns.tolist() == list(model.history_)
    assert len(table) == model.n_iter_


@pytest.mark.parametrize("model", [SGDClassifier(), SGDRegressor()], ids=repr)
def test_what_cannot_be_trained_on_is_refused(model):
    X, y = np.eye(4), np.array([0, 1, 0, 1])
    with pytest.raises(TypeError, match="Sparse data"):
        model.fit(csr_array(X), y)
    for bad in (np.nan, np.inf):
        broken = X.copy()
        broken[2, 1] = bad
        with pytest.raises(ValueError, match="Input X contains"):
            model.fit(broken, y)
        with pytest.raises(ValueError, match="Input X contains"):
            model.fit(X, y, X_val=broken, y_val=y)


# --------------------------------------------------------------------------- predictions and classes


@pytest.mark.parametrize("multi_class", ["auto", "ovr"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_probabilities(classes, multi_class, n_classes):
    X, y = classes
    if n_classes == 2:
        X, y = X[y != "b"], y[y != "b"]
    model = SGDClassifier("log_loss", multi_class=multi_class, random_state=0, **CONSTANT, eta0=0.5, max_iter=30)
    model.fit(X, y)
    p = model.predict_proba(X)
    assert p.shape == (len(X), n_classes)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_allclose(np.log(p), model.predict_log_proba(X), rtol=1e-9)
    assert np.array_equal(model.classes_[p.argmax(axis=1)], model.predict(X))
    scores = model.decision_function(X)
    assert scores.shape == ((len(X),) if n_classes == 2 else (len(X), n_classes))
    if n_classes == 2:
        np.testing.assert_allclose(p[:, 1], 1 / (1 + np.exp(-scores)), rtol=1e-12)
    elif multi_class == "ovr":
        single = 1 / (1 + np.exp(-scores))
        np.testing.assert_allclose(p, single / single.sum(axis=1, keepdims=True), rtol=1e-12)
    else:
        np.testing.assert_allclose(
            log_loss(y, p), vectorized.softmax_cross_entropy(scores, np.unique(y, return_inverse=True)[1])
        )
    assert model.score(X, y) == np.mean(model.predict(X) == y)


def test_probabilities_of_impossible_scores():
    model = SGDClassifier("log_loss", multi_class="ovr", max_iter=1, tol=None).fit(np.eye(3), [0, 1, 2])
    model.coef_, model.intercept_ = np.zeros((3, 3)), np.array([-800.0, -800.0, -900.0])
    np.testing.assert_allclose(model.predict_proba(np.eye(3)[:1]), [[0.5, 0.5, 0]], atol=1e-40)


def test_probabilities_are_for_log_loss():
    model = SGDClassifier("hinge")
    assert not hasattr(model, "predict_proba")
    assert hasattr(model.set_params(loss="log_loss"), "predict_proba")
    assert not hasattr(SGDRegressor(), "decision_function")


@pytest.mark.parametrize("labels", [[7, 3], [True, False], ["x", "y"], [0.5, -1.0][:0] or [2.0, 1.0], [10**12, 5]])
def test_labels_of_any_kind(labels):
    X = np.array([[1.0], [1.2], [-1.0], [-1.1]])
    y = np.array([labels[0], labels[0], labels[1], labels[1]])
    model = SGDClassifier(random_state=0).fit(X, y)
    assert model.classes_.tolist() == sorted(labels)
    assert model.classes_.dtype == y.dtype
    assert np.array_equal(model.predict(X), y)
    assert model.coef_.shape == (1, 1)


def test_a_score_of_zero_speaks_for_the_second_class():
    X, y = np.array([[1.0], [-1.0]]), np.array(["a", "b"])
    model = SGDClassifier("log_loss", max_iter=1, tol=None, **{"learning_rate": [0.0]}).fit(X, y)
    assert model.predict([[3.0]]) == ["b"]
    assert model.predict_proba([[3.0]]).tolist() == [[0.5, 0.5]]
    three = SGDClassifier(max_iter=1, tol=None, learning_rate=[0.0]).fit(np.eye(3), [5, 4, 6])
    assert three.predict(np.eye(3)).tolist() == [4, 4, 4]  # the first of equals


def test_one_class_and_unknown_classes_are_named(classes):
    X, y = classes
    with pytest.raises(ValueError, match="one class only, 'a'"):
        SGDClassifier().fit(X, ["a"] * len(X))
    with pytest.raises(ValueError, match="y has the class 'd', which is not among the classes"):
        SGDClassifier().fit(X, y, X_val=X[:2], y_val=["a", "d"])
    with pytest.raises(ValueError, match="Unknown label type"):
        SGDClassifier().fit(X, X[:, 0])


# ---------------------------------------------------------------------------------- order and weights


def test_the_seed_decides_everything(numbers, same_bits):
    X, y = numbers
    for settings in ({"init": "normal"}, {"sampling": "replacement"}, {"early_stopping": True}, {}):
        model = SGDRegressor(batch_size=7, max_iter=4, tol=None, **settings)
        first, second, other = (clone(model).set_params(random_state=seed).fit(X, y) for seed in (1, 1, 2))
        same_bits(first.coef_, second.coef_)
        assert not np.array_equal(first.coef_, other.coef_)
    state = np.random.RandomState(0)
    one, two = (clone(model).set_params(random_state=state).fit(X, y) for _ in range(2))
    assert not np.array_equal(one.coef_, two.coef_)


def test_random_initial_weights_do_not_change_the_order(numbers):
    """So that starts can be compared on the same batches."""
    X, y = numbers
    seen = {}
    for init in ("zeros", "normal"):
        model = SGDRegressor(init=init, batch_size=7, max_iter=2, random_state=3, **CONSTANT, eta0=1e-300)
        seen[init] = model.fit(X, y)
    # With such steps the weights stay, and the losses of the batches tell which rows they had.
    again = SGDRegressor(batch_size=7, max_iter=2, random_state=3, **CONSTANT, eta0=1e-300, evaluate_every=1)
    again.fit(X, y, coef_init=seen["normal"].coef_, intercept_init=seen["normal"].intercept_)
    first = SGDRegressor(
        init="normal", batch_size=7, max_iter=2, random_state=3, **CONSTANT, eta0=1e-300, evaluate_every=1
    )
    assert np.array_equal(first.fit(X, y).history_["train_loss"], again.history_["train_loss"])


@pytest.mark.needs_jit
def test_same_bits_for_any_number_of_threads(rng, same_bits):
    X, y = rng.normal(size=(5000, 40)).astype(np.float32), rng.integers(0, 3, 5000)
    for settings in ({"batch_size": 100}, {"batch_size": 3000, "early_stopping": True}, {"loss": "hinge"}):
        model = SGDClassifier(**({"loss": "log_loss"} | settings), max_iter=3, tol=None, random_state=0)
        expected = model.set_params(n_jobs=1).fit(X, y)
        for n_jobs in (2, 3, -1, None):
            found = clone(model).set_params(n_jobs=n_jobs).fit(X, y)
            same_bits(found.coef_, expected.coef_)
            same_bits(found.intercept_, expected.intercept_)
            same_bits(found.history_["train_loss"], expected.history_["train_loss"])
            same_bits(found.history_["validation_loss"], expected.history_["validation_loss"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_data_are_neither_converted_nor_copied(dtype, classes):
    X, y = classes
    X = X.astype(dtype)
    X.setflags(write=False)
    model = SGDClassifier("log_loss", random_state=0).fit(X, y)
    assert model.coef_.dtype == model.intercept_.dtype == dtype
    assert model.predict_proba(X).dtype == dtype
    assert SGDClassifier().fit(X.astype(int), y).coef_.dtype == np.float64


def test_initial_weights(numbers):
    X, y = numbers
    still = {"learning_rate": [0.0], "max_iter": 1, "tol": None, "random_state": 0}
    assert not SGDRegressor(**still).fit(X, y).coef_.any()
    normal = SGDRegressor(init="normal", **still).fit(X, y)
    assert normal.coef_.all()
    assert normal.intercept_.all()
    small = SGDRegressor(init="normal", init_scale=1e-4, **still).fit(X, y)
    np.testing.assert_allclose(small.coef_, normal.coef_ * 1e-4)
    assert SGDRegressor(init="normal", fit_intercept=False, **still).fit(X, y).intercept_ == [0]
    given = SGDRegressor(init="normal", **still).fit(X, y, coef_init=np.arange(5), intercept_init=3)
    assert given.coef_.tolist() == [0, 1, 2, 3, 4]
    assert given.intercept_.tolist() == [3]
    fixed = SGDRegressor(fit_intercept=False, max_iter=3, tol=None).fit(X, y, intercept_init=[0.1])
    assert fixed.intercept_.tolist() == [0.1]
    assert fixed.coef_.any()
    for bad, error in ((np.full(5, np.nan), ValueError), (np.full(5, np.inf), ValueError), ("ones", TypeError)):
        with pytest.raises(error, match="coef_init has"):
            SGDRegressor().fit(X, y, coef_init=bad)
    with pytest.raises(ValueError, match=r"coef_init has shape \(4,\); it must be \(1, 5\)"):
        SGDRegressor().fit(X, y, coef_init=np.zeros(4))
    large = SGDClassifier(init="normal", **still).fit(np.zeros((3, 4000)), [0, 1, 2])
    assert abs(large.coef_.std() - 1) < 0.03


@pytest.mark.parametrize("model", [SGDClassifier(), SGDClassifier("log_loss"), SGDRegressor()], ids=repr)
def test_weights_count_rows(model, classes, rng):
    X, y = classes
    y = y if isinstance(model, SGDClassifier) else np.unique(y, return_inverse=True)[1]
    counts = rng.integers(0, 4, len(X))
    model = model.set_params(max_iter=50, tol=None)
    weighted = clone(model).fit(X, y, sample_weight=counts)
    repeated = clone(model).fit(X.repeat(counts, axis=0), y.repeat(counts))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-6, atol=1e-9)
    scaled = clone(model).fit(X, y, sample_weight=1000 * counts)
    np.testing.assert_allclose(scaled.coef_, weighted.coef_, rtol=1e-9)


def test_class_weights(classes):
    X, y = classes
    X, y = X[:45], y[:45]
    X, y = np.r_[X, X[y == "a"]], np.r_[y, y[y == "a"]]
    model = SGDClassifier("log_loss", max_iter=20, tol=None, random_state=0)
    counts = {c: np.sum(y == c) for c in "abc"}
    balanced = clone(model).set_params(class_weight="balanced").fit(X, y)
    by_hand = clone(model).set_params(class_weight={c: 1 / n for c, n in counts.items()}).fit(X, y)
    by_rows = clone(model).fit(X, y, sample_weight=[1 / counts[c] for c in y])
    for other in (by_hand, by_rows):
        np.testing.assert_allclose(other.coef_, balanced.coef_, rtol=1e-9)
    with_rows = clone(model).set_params(class_weight="balanced").fit(X, y, sample_weight=np.where(y == "a", 5, 1))
    np.testing.assert_allclose(with_rows.coef_, balanced.coef_, rtol=1e-9)
    with pytest.raises(ValueError, match="all training rows have weight 0"):
        clone(model).set_params(class_weight={"a": 0, "b": 0, "c": 0}).fit(X, y)


def test_wrong_weights_are_named(numbers):
    X, y = numbers
    for bad in (np.zeros(60), np.full(60, -1.0), np.ones(59), np.full(60, np.nan)):
        with pytest.raises(ValueError, match="sample_weight"):
            SGDRegressor().fit(X, y, sample_weight=bad)
        with pytest.raises(ValueError, match="sample_weight_val"):
            SGDRegressor().fit(X, y, X_val=X, y_val=y, sample_weight_val=bad)
    with pytest.raises(ValueError, match="sample_weight_val goes with X_val and y_val"):
        SGDRegressor().fit(X, y, sample_weight_val=np.ones(60))


def test_evaluations_of_rows_without_weight(numbers):
    X, y = numbers
    weight = (np.arange(60) < 20).astype(float)
    each = {"batch_size": 1, "max_iter": 1, "tol": None, "sampling": "sequential", "evaluate_every": 1}
    history = SGDRegressor(**each, train_metrics="batch").fit(X, y, sample_weight=weight).history_
    assert np.isfinite(history["train_loss"]).tolist() == weight.astype(bool).tolist()
    some = SGDRegressor(max_iter=1, tol=None, train_metrics=20, random_state=0).fit(X, y, sample_weight=weight)
    assert some.history_["train_score"][0] == pytest.approx(some.score(X[:20], y[:20]))
    with pytest.raises(ValueError, match=r"^validation_fraction=0\.1 of 1 rows whose weight is not 0 cannot be set"):
        SGDRegressor(early_stopping=True, random_state=0).fit(X, y, sample_weight=np.arange(60.0) == 30)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["plain", "weights", "classes"])
@pytest.mark.parametrize("n", [201, 404, 442])
def test_the_running_loss_is_that_of_the_rows(n, kind, dtype, rng):
    """Of weights that do not move it is the loss of all rows, however they are cut into batches."""
    X, labels = rng.normal(size=(n, 4)).astype(dtype), rng.integers(0, 3, n)
    X[-1] *= 30  # the row that a batch of its own would count 200 times
    weight = rng.uniform(size=n) * (rng.uniform(size=n) < 0.7) if kind == "weights" else None
    still = {"init": "normal", "max_iter": 3, "tol": None, "learning_rate": "constant", "eta0": 1e-16}
    still |= {"random_state": 0, "sampling": "sequential"}
    models = [
        (SGDClassifier("log_loss"), labels), (SGDClassifier("hinge"), labels), (SGDClassifier("log_loss"), labels > 0),
        (SGDClassifier(multi_class="crammer_singer"), labels), (SGDRegressor(), X[:, 0] - 1),
        (SGDRegressor("huber"), X[:, 0]),
    ]  # fmt: skip
    for model, y in models:
        if kind == "classes" and isinstance(model, SGDClassifier):
            model.set_params(class_weight={y[0]: 7.0})
        whole = clone(model).set_params(batch_size=n, **still).fit(X, y, sample_weight=weight)
        expected = whole.history_["train_loss"]
        close = {"rtol": 1e-5 if dtype == "float32" else 1e-9}
        for settings in ({}, {"sampling": "permutation"}, {"batch_size": 7}):
            found = clone(model).set_params(**still | settings).fit(X, y, sample_weight=weight)
            np.testing.assert_allclose(found.history_["train_loss"], expected, **close)
        parts = clone(model).set_params(**still, batch_size=40, evaluations_per_epoch=3).fit(X, y, sample_weight=weight)
        counts = (np.ones(n) if weight is None else weight) * (np.where(y == y[0], 7, 1) if kind == "classes"
                  and isinstance(model, SGDClassifier) else 1)  # fmt: skip
        cuts = np.r_[0, np.minimum(40 * parts.history_["step"][:3], n)]
        shares = np.add.reduceat(counts, cuts[:-1]) / counts.sum()
        np.testing.assert_allclose(parts.history_["train_loss"].reshape(3, 3) @ shares, expected, **close)
        if isinstance(model, SGDRegressor) and model.loss == "squared_error":
            residuals = X @ whole.coef_ + whole.intercept_ - y
            np.testing.assert_allclose(expected, np.average(0.5 * residuals**2, weights=weight), **close)


@pytest.mark.parametrize("sampling", ["replacement", "permutation"])
@pytest.mark.parametrize("drop_last", [False, True])
def test_the_running_loss_of_rows_that_are_drawn(sampling, drop_last, rng):
    weight = rng.uniform(size=205) * (np.arange(205) % 3 > 0)
    model = SGDRegressor(
        sampling=sampling, drop_last=drop_last, max_iter=2, learning_rate=[0.0], tol=None, batch_size=51
    )
    history = model.fit(rng.normal(size=(205, 2)), np.full(205, 3.0), sample_weight=weight).history_
    np.testing.assert_allclose(history["train_loss"], 4.5, rtol=1e-12)  # all rows have the same loss


@pytest.mark.parametrize(
    "settings", [{}, {"evaluations_per_epoch": 2}, {"evaluate_every": 1}, {"train_metrics": "batch"}]
)
def test_a_last_batch_of_one_row_does_not_end_the_training(settings, rng):
    X = rng.normal(size=(201, 3))
    y = X @ [2.0, -1.0, 0.5] + 1
    model = SGDRegressor(random_state=0, **settings).fit(X, y)
    assert model.score(X, y) > 0.8
    model = SGDClassifier("log_loss", learning_rate="constant", eta0=0.02, random_state=0, **settings).fit(X, y > 1)
    assert model.score(X, y > 1) > 0.9
    assert model.n_iter_ > 50


@pytest.mark.parametrize("settings", [{}, {"evaluations_per_epoch": 2}, {"evaluate_every": 1}])
def test_a_last_row_that_is_far_off_is_no_divergence(settings, rng):
    X = rng.normal(size=(201, 3))
    y = X[:, 0]
    y[-1] = 25
    still = {"sampling": "sequential", "learning_rate": "constant", "eta0": 1e-4, "max_iter": 4, "tol": None}
    SGDRegressor(**still, **settings).fit(X, y)  # without a warning
    weight = np.r_[np.zeros(200), 1.0]
    SGDRegressor(**still, **settings).fit(X, y, sample_weight=weight)  # the first batch has a loss of 0
    SGDRegressor(**still, **settings).fit(np.vstack([X, X]), np.r_[y, y], sample_weight=np.r_[weight, weight])


# --------------------------------------------------------------------------- evaluation and stopping


def test_the_history_is_what_score_and_log_loss_say(classes, rng):
    X, y = classes
    X_val, y_val, w_val = X[40:], y[40:], rng.uniform(size=20)
    model = SGDClassifier("log_loss", max_iter=3, tol=None, batch_size=7, random_state=0, train_metrics="full")
    weight = rng.uniform(size=40)
    model.fit(X[:40], y[:40], X_val=X_val, y_val=y_val, sample_weight=weight, sample_weight_val=w_val)
    history = model.history_
    assert history["step"].tolist() == [6, 12, 18]
    assert history["epoch"].tolist() == [1, 2, 3]
    for part, data in (("train", (X[:40], y[:40], weight)), ("validation", (X_val, y_val, w_val))):
        rows, labels, w = data
        assert history[f"{part}_score"][-1] == pytest.approx(model.score(rows, labels, w))
        expected = log_loss(labels, model.predict_proba(rows), sample_weight=w)
        assert history[f"{part}_loss"][-1] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["hinge ovr", "crammer_singer", "squared_hinge ovr", "squared_error", "huber"])
def test_the_history_of_other_losses(name, classes, numbers):
    model, loss = BY_NUMPY[name]
    X, y = classes if isinstance(model, SGDClassifier) else numbers
    model = clone(model).set_params(max_iter=3, tol=None, random_state=0).fit(X, y, X_val=X, y_val=y)
    T, Z = targets_by_numpy(name, y), X @ np.atleast_2d(model.coef_).T + model.intercept_
    value = getattr(vectorized, loss)
    more = {"delta": model.epsilon} if loss == "huber" else {}
    expected = value(Z, T) if T.ndim == 1 else np.mean([value(z, t, **more) for z, t in zip(Z.T, T.T, strict=True)])
    assert model.history_["validation_loss"][-1] == pytest.approx(expected)
    assert model.history_["validation_score"][-1] == pytest.approx(model.score(X, y))


def test_evaluations_often_and_seldom(numbers):
    X, y = numbers
    model = SGDRegressor(batch_size=10, max_iter=3, tol=None, random_state=0)
    steps = {
        6: {}, 18: {"evaluate_every": 1}, 4: {"evaluate_every": 5}, 9: {"evaluations_per_epoch": 3},
    }  # fmt: skip
    expected = {6: [6, 12, 18], 18: list(range(1, 19)), 4: [5, 10, 15, 18], 9: [2, 4, 6, 8, 10, 12, 14, 16, 18]}
    coefs = []
    for key, settings in steps.items():
        found = clone(model).set_params(**settings).fit(X, y)
        assert found.history_["step"].tolist() == expected[key]
        coefs.append(found.coef_)
    for coef in coefs:  # to look changes nothing
        assert np.array_equal(coef, coefs[0])


def test_training_figures(classes):
    X, y = classes
    model = SGDClassifier("log_loss", batch_size=10, max_iter=2, tol=None, random_state=0, evaluate_every=3)
    shown = {
        how: clone(model).set_params(train_metrics=how).fit(X, y).history_ for how in ("running", "batch", "full", 25)
    }
    assert np.isnan(shown["running"]["train_score"]).all()
    for how, size in (("batch", 10), ("full", 60), (25, 25)):
        counts = shown[how]["train_score"] * size
        np.testing.assert_allclose(counts, counts.round(), atol=1e-9)  # that many rows
    assert len({tuple(history["train_loss"]) for history in shown.values()}) == 4
    same = SGDClassifier("log_loss", max_iter=2, tol=None, train_metrics=10**6).fit(X, y).history_
    full = SGDClassifier("log_loss", max_iter=2, tol=None, train_metrics="full").fit(X, y).history_
    np.testing.assert_allclose(same["train_loss"], full["train_loss"])


def test_early_stopping_keeps_the_best_weights(rng):
    X, y = rng.normal(size=(80, 30)), rng.integers(0, 2, 80)
    X_val, y_val = rng.normal(size=(50, 30)), rng.integers(0, 2, 50)
    model = SGDClassifier("log_loss", batch_size=8, max_iter=40, tol=None, early_stopping=True, random_state=0)
    for keep, pick in ((True, 0), ("first", 0), ("last", -1)):
        found = clone(model).set_params(keep_best=keep).fit(X, y, X_val=X_val, y_val=y_val)
        scores = found.history_["validation_score"]
        best = np.flatnonzero(scores == scores.max())
        assert found.best_step_ == found.history_["step"][best[pick]]
        assert found.score(X_val, y_val) == scores.max()
        assert found.n_iter_ == 40
    assert len(best) > 1
    last = clone(model).set_params(keep_best=False).fit(X, y, X_val=X_val, y_val=y_val)
    assert last.best_step_ is None
    assert last.score(X_val, y_val) == last.history_["validation_score"][-1] < scores.max()
    by_loss = clone(model).set_params(scoring="loss", tol=1e-4).fit(X, y, X_val=X_val, y_val=y_val)
    losses = by_loss.history_["validation_loss"]
    assert by_loss.best_step_ == by_loss.history_["step"][losses.argmin()]
    assert len(losses) == losses.argmin() + 1 + 5
    only_looked_at = clone(model).set_params(early_stopping=False).fit(X, y, X_val=X_val, y_val=y_val)
    assert np.array_equal(only_looked_at.coef_, last.coef_)


def test_a_part_is_set_aside(classes):
    X, y = classes
    settings = {"early_stopping": True, "max_iter": 3, "tol": None, "train_metrics": "full", "random_state": 0}
    model = SGDClassifier(validation_fraction=0.2, batch_size=10**6, **settings).fit(X, y)
    counts = model.history_["validation_score"] * 12
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
    counts = model.history_["train_score"] * 48
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
    # Rows that are set aside are not trained on: with NaN for a loss where they are, training would tell.
    one_aside = SGDRegressor(validation_fraction=0.5, evaluate_every=1, batch_size=1, **settings)
    one_aside.fit(np.eye(6), np.arange(6.0))
    assert (one_aside.coef_ != 0).sum() <= 3
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping"):
        one_aside.partial_fit(np.eye(6), np.arange(6.0))


def test_any_scorer_decides(classes):
    X, y = classes
    X, y = X[y != "b"], y[y != "b"]
    settings = {"early_stopping": True, "max_iter": 6, "tol": None, "random_state": 0, "train_metrics": "full"}
    model = SGDClassifier("log_loss", scoring="roc_auc", batch_size=5, **settings)
    model.fit(pd.DataFrame(X, columns=list("vwxyz")), y, X_val=X_named(X), y_val=y, sample_weight_val=np.arange(40.0))
    expected = roc_auc_score(y, model.decision_function(X_named(X)), sample_weight=np.arange(40.0))
    assert model.history_["validation_score"].max() == pytest.approx(expected)
    assert model.history_["train_score"][-1] <= 1
    own = SGDClassifier(scoring=lambda estimator, rows, labels: float(len(rows)), **settings).fit(
        X, y, X_val=X, y_val=y
    )
    assert own.history_["validation_score"].tolist() == [40.0] * 6
    with pytest.raises(ValueError, match="scoring"):
        SGDClassifier(scoring="nonsense", **settings).fit(X, y)


def X_named(X):
    return pd.DataFrame(X, columns=list("vwxyz"))


def test_stopping_and_the_warning_when_it_does_not(numbers):
    X, y = numbers
    model = SGDRegressor(**CONSTANT | {"tol": 1e-3}, eta0=0.1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = clone(model).fit(X, y)
        assert 5 < found.n_iter_ < 1000
        assert clone(model).set_params(max_iter=2, tol=None).fit(X, y).n_iter_ == 2
    losses = found.history_["train_loss"]
    assert losses[-6:].min() > losses[-6] - 1e-3
    with pytest.warns(ConvergenceWarning, match="max_iter=2 epochs"):
        clone(model).set_params(max_iter=2).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="max_steps=5 steps"):
        few = clone(model).set_params(max_steps=5, batch_size=20).fit(X, y)
    assert (few.t_, few.n_iter_) == (6, 2)


# ----------------------------------------------------------------------------- going on, and step sizes


def test_step_sizes_from_a_function_or_an_array(numbers, same_bits):
    X, y = numbers
    model = SGDRegressor(batch_size=20, max_iter=2, tol=None, random_state=0)
    asked = []

    def rate(t):
        asked.append(t)
        return 0.3 / t

    by_name = clone(model).set_params(learning_rate="invscaling", eta0=0.3, power_t=1).fit(X, y)
    by_function = clone(model).set_params(learning_rate=rate).fit(X, y)
    by_array = clone(model).set_params(learning_rate=[0.3 / t for t in range(1, 7)]).fit(X, y)
    same_bits(by_function.coef_, by_name.coef_)
    same_bits(by_array.coef_, by_name.coef_)
    assert asked == [1, 2, 3, 4, 5, 6]
    last_stays = clone(model).set_params(learning_rate=np.array([0.3])).fit(X, y)
    same_bits(last_stays.coef_, clone(model).set_params(learning_rate="constant", eta0=0.3).fit(X, y).coef_)
    for wrong in ([0.1, -1.0], [[0.1]], [], [np.nan], lambda t: -1.0):
        with pytest.raises(ValueError, match="learning_rate"):
            clone(model).set_params(learning_rate=wrong).fit(X, y)


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}, {"average": True}, {"average": 4, "momentum": 0.5}])
def test_partial_fit_goes_on(numbers, classes, settings, same_bits):
    common = {"batch_size": 7, "sampling": "sequential", "tol": None, **settings}
    X, y = numbers
    whole = SGDRegressor(max_iter=3, **common).fit(X, y)
    parts = SGDRegressor(**common)
    for _ in range(3):
        parts.partial_fit(X, y)
    same_bits(parts.coef_, whole.coef_)
    assert parts.t_ == whole.t_ == 28
    assert parts.n_iter_ == 1
    for name in ("step", "epoch", "train_loss"):
        same_bits(parts.history_[name], whole.history_[name])
    again = pickle.loads(pickle.dumps(parts)).partial_fit(X, y)
    same_bits(again.coef_, clone(whole).set_params(max_iter=4).fit(X, y).coef_)

    X, y = classes
    whole = SGDClassifier("log_loss", max_iter=2, **common).fit(X, y)
    parts = SGDClassifier("log_loss", **common).partial_fit(X, y, classes=["a", "b", "c"]).partial_fit(X, y)
    same_bits(parts.coef_, whole.coef_)


def test_partial_fit_of_classes(classes):
    X, y = classes
    with pytest.raises(ValueError, match="first call of partial_fit needs all classes"):
        SGDClassifier().partial_fit(X, y)
    model = SGDClassifier().partial_fit(X[y == "a"], y[y == "a"], classes=["b", "a", "c"])
    assert model.classes_.tolist() == ["a", "b", "c"]
    model.partial_fit(X[y == "b"], y[y == "b"])
    with pytest.raises(ValueError, match="the first call of partial_fit had"):
        model.partial_fit(X, y, classes=["a", "b"])
    with pytest.raises(ValueError, match="y has the class 'd'"):
        model.partial_fit(X[:1], ["d"])
    with pytest.raises(ValueError, match="class_weight='balanced' needs all rows"):
        SGDClassifier(class_weight="balanced").partial_fit(X, y, classes=["a", "b", "c"])
    SGDClassifier(class_weight={"a": 2}).partial_fit(X, y, classes=["a", "b", "c"])


def test_partial_fit_shuffles_anew(numbers):
    X, y = numbers
    model = SGDRegressor(batch_size=1, random_state=0, **CONSTANT, eta0=1e-300)
    model.partial_fit(X, y, sample_weight=np.arange(60.0))
    # Of a weight as it is, not scaled: the mean of w l.
    assert model.history_["train_loss"][0] == pytest.approx(np.mean(np.arange(60) * 0.5 * y**2))
    orders = []
    for _ in range(2):
        seen = []
        SGDRegressor.partial_fit(model.set_params(evaluate_every=1), X, y)
        seen = model.history_["train_loss"][-60:]
        orders.append(tuple(seen))
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == pytest.approx(sorted(orders[1]))


def test_partial_fit_goes_on_with_other_settings(numbers):
    X, y = numbers
    model = SGDRegressor(**CONSTANT, momentum=0.9, random_state=0).partial_fit(X, y)
    first = clone(model).partial_fit(X, y).partial_fit(X, y)
    second = clone(first).partial_fit(X, y).partial_fit(X, y).partial_fit(X, y)
    for _ in range(2):  # nothing has been averaged so far: the average begins now
        model.set_params(average=True).partial_fit(X, y)
    np.testing.assert_allclose(model.coef_, (first.coef_ + second.coef_) / 2, rtol=1e-12)
    model.set_params(average=False, learning_rate=[0.0], momentum=0.0).partial_fit(X, y)
    np.testing.assert_allclose(model.coef_, second.coef_, rtol=1e-12)


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("columns", [1, 7, 20])
def test_partial_fit_goes_on_in_another_dtype(columns, average, rng):
    X = rng.normal(size=(40, columns))
    model = SGDRegressor(**CONSTANT, momentum=0.5, average=average, random_state=0)
    expected = clone(model).partial_fit(X, X[:, 0]).partial_fit(X, X[:, 0])
    for dtypes in ((np.float32, np.float64), (np.float64, np.float32)):
        mixed = clone(model)
        for dtype in dtypes:
            mixed.partial_fit(X.astype(dtype), X[:, 0])
        assert mixed.coef_.dtype == dtypes[-1]
        np.testing.assert_allclose(mixed.coef_, expected.coef_, rtol=1e-4, atol=1e-6)


def test_partial_fit_takes_weights_as_they_are(numbers):
    X, y = numbers
    model = SGDRegressor(**CONSTANT, eta0=1.0, alpha=0, batch_size=60)
    for weight in (1e-12, 1e-3):
        small = clone(model).partial_fit(X, y, sample_weight=np.full(60, weight))
        np.testing.assert_allclose(small.coef_, weight * clone(model).partial_fit(X, y).coef_, rtol=1e-9)


def test_partial_fit_after_early_stopping_goes_on_from_the_best_weights(numbers):
    X, y = numbers
    still = {"momentum": 0.9, "average": 3, "random_state": 0, "tol": None}
    model = SGDRegressor(early_stopping=True, max_iter=5, **still).fit(X, y, X_val=X, y_val=y)
    best = model.coef_.copy()
    model.set_params(early_stopping=False, learning_rate=[0.0]).partial_fit(X, y)
    np.testing.assert_allclose(model.coef_, best)


def test_warm_start(numbers, same_bits):
    X, y = numbers
    model = SGDRegressor(warm_start=True, max_iter=2, tol=None, random_state=0).fit(X, y)
    first = model.coef_.copy()
    model.fit(X, y)
    again = SGDRegressor(max_iter=2, tol=None, random_state=0)
    again.fit(X, y, coef_init=first, intercept_init=again.fit(X, y).intercept_)
    same_bits(model.coef_, again.coef_)
    assert model.t_ == again.t_
    assert len(model.history_["step"]) == 2
    cold = SGDRegressor(max_iter=2, tol=None, random_state=0).fit(X, y)
    same_bits(cold.fit(X, y).coef_, first)
    with pytest.raises(ValueError, match="X has 3 features, but SGDRegressor is expecting 5"):
        model.fit(X[:, :3], y)
    same_bits(model.predict(X), X @ model.coef_ + model.intercept_)


# ------------------------------------------------------------------------ when something goes wrong


def test_a_diverging_run_says_so(numbers):
    X, y = numbers
    model = SGDRegressor(**CONSTANT, eta0=1e6, max_iter=200, evaluate_every=3, batch_size=20, random_state=0)
    with pytest.warns(DivergenceWarning, match=r"loss (inf|nan) at step (\d+); the weights after step \d+ are kept"):
        model.fit(X, y)
    assert np.isfinite(model.coef_).all()
    assert model.coef_.any()
    step = model.history_["step"][-1]
    assert model.t_ == step + 1
    assert not math.isfinite(model.history_["train_loss"][-1])
    assert np.isfinite(model.history_["train_loss"][:-1]).all()
    assert issubclass(DivergenceWarning, RuntimeWarning)
    at_once = SGDRegressor(**CONSTANT, eta0=1e300, max_iter=3, batch_size=20, random_state=0)
    with pytest.warns(DivergenceWarning, match="the initial weights are kept"):
        at_once.fit(X, y)
    assert not at_once.coef_.any()
    best = SGDRegressor(**CONSTANT, eta0=1e6, max_iter=200, early_stopping=True, random_state=0)
    with pytest.warns(DivergenceWarning, match=r"the best weights so far, of step \d+, are kept"):
        best.fit(X, y)


def test_a_run_that_gets_worse_and_worse_says_so(numbers):
    X, y = numbers
    with pytest.warns(DivergenceWarning, match=r"training diverges: the training loss was .* at first, and is"):
        SGDRegressor(**CONSTANT, eta0=10, max_iter=5, random_state=0).fit(X, y)


@pytest.mark.filterwarnings("error")
def test_good_initial_weights_may_be_given_up_for_the_penalty(numbers):
    X, _ = numbers
    model = SGDClassifier("log_loss", **CONSTANT, eta0=0.1, alpha=1, max_iter=50, random_state=0)
    history = model.fit(X, X[:, 0] > 0, coef_init=[100.0, 0, 0, 0, 0]).history_
    assert history["train_loss"][-1] > 2 * history["train_loss"][0]


def test_warnings_point_at_the_caller(numbers):
    X, y = numbers
    diverging = SGDRegressor(**CONSTANT, eta0=1e300, max_iter=3, random_state=0, batch_size=20)
    late = SGDRegressor(max_iter=1)
    calls = (lambda: diverging.fit(X, y), lambda: diverging.partial_fit(X, y), lambda: late.fit(X, y))
    for call in calls:
        with pytest.warns((DivergenceWarning, ConvergenceWarning)) as caught:
            call()
        ours = [each for each in caught if issubclass(each.category, (DivergenceWarning, ConvergenceWarning))]
        assert [each.filename for each in ours] == [__file__]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("eta0", [1e-5, 1.0, 1e2])
@pytest.mark.parametrize("size", [1.0, 1e6])
@pytest.mark.filterwarnings("ignore::fastml.DivergenceWarning")
def test_nothing_becomes_nan(dtype, eta0, size, rng):
    X = (rng.normal(size=(200, 6)) * size).astype(dtype)
    y = rng.integers(0, 3, 200)
    settings = {"init": "normal", "max_iter": 20, "batch_size": 20, "eta0": eta0, "random_state": 0, **CONSTANT}
    for model in (SGDClassifier("log_loss"), SGDClassifier("hinge"), SGDClassifier("squared_hinge"), SGDRegressor()):
        for labels in (y, y % 2):
            model.set_params(**settings).fit(X, labels)
            assert np.isfinite(model.coef_).all()
            assert not np.isnan(model.predict(X)).any()


@pytest.mark.safety
@pytest.mark.needs_jit
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads")
def test_ctrl_c_returns_a_fitted_model(rng):
    X, y = rng.normal(size=(20000, 20)), rng.integers(0, 2, 20000)
    model = SGDClassifier("log_loss", batch_size=10, max_iter=10**6, tol=None, random_state=0)
    clone(model).set_params(max_iter=1).fit(X, y)  # compiles
    main = threading.get_ident()
    clock = threading.Timer(1.0, lambda: signal.pthread_kill(main, signal.SIGINT))
    clock.start()
    with pytest.warns(UserWarning, match=r"interrupted after step \d+"):
        model.fit(X, y)
    assert model.coef_.any()
    assert model.t_ > 1
    assert len(model.history_["step"]) in (model.n_iter_, model.n_iter_ - 1)
    assert model.score(X, y) > 0.45


# ------------------------------------------------------------------------------- callbacks, progress


def test_callbacks(classes):
    X, y = classes
    states, copies = [], []

    def look(state):
        states.append(state)
        copies.append(state.fitted_estimator)
        return state.step >= 4

    model = SGDClassifier("log_loss", batch_size=30, callbacks=look, random_state=0).fit(X, y, X_val=X, y_val=y)
    assert [state.step for state in states] == [2, 4]
    assert model.n_iter_ == 2
    for name in ("epoch", "seconds", "train_loss", "validation_loss", "validation_score"):
        assert [getattr(state, name) for state in states] == model.history_[name].tolist()
    assert [copy.score(X, y) for copy in copies] == model.history_["validation_score"].tolist()
    assert np.array_equal(copies[1].predict(X), model.predict(X))
    assert not np.array_equal(copies[0].coef_, model.coef_)
    several = SGDClassifier(callbacks=[lambda s: True, lambda s: states.append("second")]).fit(X, y)
    assert several.n_iter_ == 1
    assert states[-1] == "second"


@pytest.mark.skipif(sklearn_callback is None, reason="scikit-learn has no callbacks")
@pytest.mark.parametrize("model", [SGDClassifier("log_loss"), SGDRegressor()], ids=repr)
def test_scikit_learns_callbacks(model, numbers):
    X, y = numbers
    y = (y > y.mean()).astype(int)

    class Recorder:
        def __init__(self):
            self.calls = []

        def setup(self, estimator, context):
            self.calls.append("setup")

        def teardown(self, estimator, context):
            self.calls.append("teardown")

        def on_fit_task_begin(self, estimator, context, *, X=None, y=None):
            self.calls.append(f"begin {context.task_name}")

        def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
            self.calls.append(f"end {context.task_name}")
            assert fitted_estimator.score(X, y) <= 1
            assert metadata["sample_weight"].tolist() == [2.0] * 60
            return context.task_name == "epoch" and context.task_id == 2

    recorder = Recorder()
    model = clone(model).set_params(random_state=0, batch_size=10).set_callbacks(recorder)
    model.fit(X, y, sample_weight=np.full(60, 2))
    epochs = ["begin epoch", "end epoch"] * 3
    assert recorder.calls == ["setup", "begin fit", *epochs, "end fit", "teardown"]
    assert model.n_iter_ == 3

    scoring = "accuracy" if isinstance(model, SGDClassifier) else "r2"
    monitor = sklearn_callback.ScoringMonitor(scoring=scoring)
    pickle.loads(pickle.dumps(model.set_params(max_iter=4, tol=None).set_callbacks(monitor).fit(X, y)))
    scores = [row[scoring] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(scores) == 4
    assert scores[-1] == model.score(X, y)


@pytest.mark.skipif(sklearn_callback is None, reason="scikit-learn has no callbacks")
def test_callbacks_of_a_search(numbers):
    X, y = numbers
    monitor = sklearn_callback.ScoringMonitor(scoring="r2")
    search = GridSearchCV(SGDRegressor(max_iter=3, tol=None), {"alpha": [0.1, 0.2]}, cv=2)
    model = SGDRegressor(max_iter=3, tol=None).set_callbacks(monitor)
    search.set_params(estimator=model).fit(X, y)
    assert len(monitor.get_logs(select="all")) >= 1


def test_a_progress_bar_with_losses(numbers, capsys):
    X, y = numbers
    SGDRegressor(max_iter=3, tol=None, verbose=1).fit(X, y, X_val=X, y_val=y)
    shown = capsys.readouterr().err
    assert "SGDRegressor: 100%" in shown
    assert "3/3" in shown
    for text in ("epoch=3", "loss=", "val. loss=", "val. score="):
        assert text in shown
    SGDRegressor(max_iter=3, tol=None).fit(X, y)
    assert capsys.readouterr().err == ""


def test_the_bar_changes_nothing(rng, same_bits, capsys):
    X, y = rng.normal(size=(50000, 2)), rng.normal(size=50000)
    settings = {"max_iter": 1, "tol": None, "batch_size": 5000, "random_state": 0, "evaluate_every": 7}
    quiet, shown = (SGDRegressor(verbose=verbose, **settings).fit(X, y) for verbose in (0, 1))
    same_bits(quiet.coef_, shown.coef_)
    same_bits(quiet.history_["train_loss"], shown.history_["train_loss"])


# -------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"loss": "log"}, ValueError, "loss is 'log'; it must be one of 'hinge', 'log_loss', 'squared_hinge'"),
        ({"multi_class": "ovo"}, ValueError, "multi_class is 'ovo'"),
        ({"multi_class": "multinomial"}, ValueError, "multi_class='multinomial' goes with loss='log_loss'"),
        ({"loss": "log_loss", "multi_class": "crammer_singer"}, ValueError, "goes with loss='hinge'"),
        ({"penalty": "l3"}, ValueError, "penalty is 'l3'; it must be one of 'l2', 'l1', 'elasticnet', None"),
        ({"alpha": -1}, ValueError, "alpha is -1; it must be at least 0"),
        ({"alpha": "auto"}, TypeError, r"alpha is 'auto' \(str\)"),
        ({"alpha": 0}, ValueError, "learning_rate is 'optimal'.*alpha is 0"),
        (
            {"penalty": "elasticnet", "l1_ratio": 1.5},
            ValueError,
            "l1_ratio is 1.5; it must be at least 0 and at most 1",
        ),
        ({"fit_intercept": "no"}, TypeError, "fit_intercept is 'no'"),
        ({"max_iter": 0}, ValueError, "max_iter is 0"),
        ({"max_steps": 2.5}, TypeError, "max_steps is 2.5"),
        ({"tol": -1e-3}, ValueError, "tol is -0.001"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"batch_size": "full"}, TypeError, "batch_size is 'full'"),
        ({"batch_size": np.array([10, 20])}, TypeError, r"batch_size is array\(\[10, 20\]\)"),
        ({"sampling": "random"}, ValueError, "sampling is 'random'"),
        ({"drop_last": 1}, TypeError, "drop_last is 1"),
        ({"learning_rate": "adaptive"}, ValueError, "learning_rate is 'adaptive'"),
        ({"eta0": 0}, ValueError, "eta0 is 0; it must be above 0"),
        ({"eta0": np.inf}, ValueError, "eta0 is inf"),
        ({"power_t": np.nan}, ValueError, "power_t is nan"),
        ({"momentum": 1.1}, ValueError, "momentum is 1.1"),
        ({"nesterovs_momentum": None}, TypeError, "nesterovs_momentum is None"),
        ({"average": -3}, ValueError, "average is -3"),
        ({"init": "ones"}, ValueError, "init is 'ones'"),
        ({"init_scale": -1}, ValueError, "init_scale is -1"),
        ({"early_stopping": 1}, TypeError, "early_stopping is 1"),
        ({"validation_fraction": 0}, ValueError, "validation_fraction is 0"),
        ({"n_iter_no_change": 0}, ValueError, "n_iter_no_change is 0"),
        ({"keep_best": "best"}, ValueError, "keep_best is 'best'"),
        ({"evaluate_every": 0}, ValueError, "evaluate_every is 0"),
        ({"evaluations_per_epoch": 0}, ValueError, "evaluations_per_epoch is 0"),
        ({"train_metrics": "all"}, ValueError, "train_metrics is 'all'"),
        ({"train_metrics": 0}, ValueError, "train_metrics is 0"),
        ({"class_weight": "even"}, ValueError, "class_weight is 'even'"),
        ({"class_weight": {"a": -1}}, ValueError, r"class_weight is \{'a': -1\}"),
        ({"class_weight": {"a": np.nan}}, ValueError, r"class_weight is \{'a': nan\}"),
        ({"callbacks": 5}, TypeError, r"callbacks is 5 \(int\)"),
        ({"callbacks": [print, "print"]}, TypeError, "callbacks is .* a sequence of callables, or None"),
        ({"learning_rate": {1: 0.1}}, ValueError, r"learning_rate must give step sizes.*\{1: 0.1\}"),
        ({"warm_start": 1}, TypeError, "warm_start is 1"),
        ({"n_jobs": 0}, ValueError, "n_jobs is 0"),
    ],
)
def test_wrong_parameters_are_named(classes, params, error, message):
    X, y = classes
    with pytest.raises(error, match=message):
        SGDClassifier(**params).fit(X, y)


def test_other_wrong_arguments_are_named(numbers):
    X, y = numbers
    with pytest.raises(ValueError, match="epsilon is 0; it must be above 0"):
        SGDRegressor(epsilon=0).fit(X, y)
    with pytest.raises(ValueError, match="X_val and y_val go together"):
        SGDRegressor().fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="X_val, y_val: X has 4 features"):
        SGDRegressor().fit(X, y, X_val=X[:, :4], y_val=y)
    with pytest.raises(ValueError, match="X_val, y_val: Input X contains NaN"):
        SGDRegressor().fit(X, y, X_val=np.where(X > 1, np.nan, X), y_val=y)
    with pytest.raises(ValueError, match="X_val, y_val: y has the class 3"):
        SGDClassifier().fit(X, y > 0, X_val=X, y_val=np.full(60, 3))


# --------------------------------------------------------------------------- what the estimators share


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.parametrize("kind", ["int8", "int16", "int64", "uint8", "uint64", "bool", "float", "str", "object"])
def test_labels_are_encoded_as_by_unique(kind, rng):
    for y in (rng.integers(0, 5, 100), rng.integers(0, 2, 3), np.array([1, 0, 1]), rng.integers(0, 100, 30)):
        labels = y.astype(kind) if kind != "object" else np.array([f"{v}" for v in y], object)
        if kind == "int8":
            labels = (y - 60).astype(kind)
            labels[:2] = -128, 127
        found, codes = encode_labels(labels)
        expected, expected_codes = np.unique(labels, return_inverse=True)
        assert found.dtype == labels.dtype
        assert codes.dtype == np.intp
        assert np.array_equal(found, expected)
        assert np.array_equal(codes, expected_codes)
    far = np.array([-(2**62), 2**62, 0], np.int64)
    assert encode_labels(far)[1].tolist() == [0, 2, 1]


def test_finite_is_looked_for_everywhere(rng):
    X = rng.normal(size=(20000, 3)).astype(np.float32)
    check_finite(X, None)
    check_finite(np.full((9000, 3), 3e38, np.float32), 2)  # of which the sum overflows
    for row in (0, 4095, 4096, 19999):
        for value, message in ((np.nan, "NaN"), (-np.inf, "infinity")):
            broken = X.copy()
            broken[row, 2] = value
            for n_threads in (1, 2):
                with pytest.raises(ValueError, match=message):
                    check_finite(broken, n_threads, estimator=SGDRegressor())


# ---------------------------------------------------------------------------------- known answers


@pytest.mark.needs_jit
def test_logistic_regression_reaches_the_optimum_of_its_objective():
    X, y = load_breast_cancer(return_X_y=True)
    X = scale(X)
    alpha = 0.01
    model = SGDClassifier("log_loss", alpha=alpha, batch_size=len(X), max_iter=3000, momentum=0.9, **CONSTANT, eta0=0.1)
    model.fit(X, y)
    exact = theirs.LogisticRegression(C=1 / (alpha * len(X)), tol=1e-10, max_iter=10000).fit(X, y)
    np.testing.assert_allclose(model.coef_, exact.coef_, rtol=1e-4, atol=1e-6)


@pytest.mark.needs_jit
def test_digits_are_learnt():
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32) / 16
    for loss in ("log_loss", "hinge", "squared_hinge"):
        model = SGDClassifier(loss, random_state=0).fit(X[:1400], y[:1400])
        assert model.score(X[1400:], y[1400:]) > 0.85


# ------------------------------------------------------------------------- scores that are undefined


@pytest.mark.parametrize("model", [SGDRegressor, MLPRegressor], ids=lambda model: model.__name__)
@pytest.mark.parametrize("scoring", [None, "r2"])
def test_early_stopping_where_r2_is_undefined(model, scoring, rng):
    """The validation loss decides: on one row, and on rows with the same target."""
    X = rng.normal(size=(12, 2))
    y = X @ [1.0, 2.0] + 3
    settings = {"early_stopping": True, "max_iter": 300, "random_state": 0, "scoring": scoring, "tol": 1e-6}
    settings |= {"learning_rate": "constant"} | (
        {"eta0": 0.1} if model is SGDRegressor else {"learning_rate_init": 0.05}
    )
    sets = {
        "one row": {"X_val": X[:1], "y_val": y[:1]},
        "same target": {"X_val": X[:4], "y_val": np.full(4, 0.1)},
        "rows with": {"X_val": X[:3], "y_val": y[:3], "sample_weight_val": [0, 1, 0]},
    }
    if model is MLPRegressor:
        sets["rows with "] = {"X_val": X[:3], "y_val": np.full((3, 2), 2.0)}
    for words, validation in sets.items():
        two = np.ndim(validation["y_val"]) == 2
        targets = np.column_stack([y, -y]) if two else y
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = model(**settings).fit(X, targets, **validation)
        texts = [str(each.message) for each in caught if "R²" in str(each.message)]
        assert len(texts) == 1
        assert words.strip() in texts[0]
        losses = found.history_["validation_loss"]
        assert np.isnan(found.history_["validation_score"]).all()
        assert found.best_step_ == found.history_["step"][losses.argmin()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            by_loss = model(**settings | {"scoring": "loss"}).fit(X, targets, **validation)
        np.testing.assert_array_equal(by_loss.predict(X), found.predict(X))
        assert by_loss.n_iter_ == found.n_iter_
    with pytest.warns(UserWarning, match="R² is undefined, as the validation set has one row: its loss decided"):
        few = model(**settings | {"max_iter": 2000}).fit(X[:10], y[:10])
    assert few.score(X[:10], y[:10]) > 0.8
    assert few.best_step_ > 1


def test_a_validation_set_of_one_row_that_decides_nothing(numbers):
    X, y = numbers
    history = SGDRegressor(max_iter=3, tol=None).fit(X, y, X_val=X[:1], y_val=y[:1]).history_
    assert np.isfinite(history["validation_loss"]).all()
    assert np.isnan(history["validation_score"]).all()
    SGDRegressor(max_iter=3, tol=None, early_stopping=True, scoring="neg_mean_absolute_error").fit(
        X, y, X_val=X[:1], y_val=y[:1]
    )


@pytest.mark.parametrize("model", [SGDClassifier, MLPClassifier], ids=lambda model: model.__name__)
def test_scores_that_are_nan_decide_nothing(model, classes):
    X, y = classes
    settings = {"early_stopping": True, "random_state": 0, "n_iter_no_change": 2, "max_iter": 9}

    def sometimes(estimator, rows, labels):
        sometimes.calls += 1
        return math.nan if sometimes.calls % 3 else float(sometimes.calls)

    sometimes.calls = 0
    with pytest.warns(UserWarning, match=r"the validation score was NaN in 6 of 9 evaluations, which decided nothing$"):
        found = model(scoring=sometimes, tol=None, **settings).fit(X, y, X_val=X, y_val=y)
    assert found.best_step_ == 9
    with pytest.warns(
        UserWarning, match="NaN in 9 of 9 evaluations.* The model has its last weights, none are the best"
    ):
        found = model(scoring=lambda *_: math.nan, tol=None, **settings).fit(X, y, X_val=X, y_val=y)
    assert found.best_step_ is None
    assert found.n_iter_ == 9


# -------------------------------------------------------------------------------- rows without weight


@pytest.mark.parametrize("model", [SGDClassifier, SGDRegressor, MLPClassifier, MLPRegressor], ids=lambda m: m.__name__)
def test_rows_that_count_are_set_aside(model, rng):
    """Whatever the seed: both sides of the split have rows that count."""
    X, y = rng.normal(size=(40, 3)), np.arange(40)
    y = y % 2 if "Classifier" in model.__name__ else y
    weight = np.zeros(40)
    weight[:4] = rng.uniform(0.5, 1, 4)
    for seed in range(40):
        found = model(early_stopping=True, validation_fraction=0.5, max_iter=1, tol=None, random_state=seed)
        found.fit(X, y, sample_weight=weight)
        assert np.isfinite(found.history_["validation_loss"]).all()
        assert np.isfinite(found.history_["train_loss"]).all()
    y = np.r_[np.zeros(20), np.ones(19), 0].astype(int) if "Classifier" in model.__name__ else y
    weight[:] = 1
    weight[21:39] = 0  # one row of the second class counts: it is trained on
    found = model(early_stopping=True, max_iter=1, tol=None, random_state=0).fit(X, y, sample_weight=weight)
    assert np.isfinite(found.history_["train_loss"]).all()


def test_a_split_among_rows_that_all_count_is_that_without_weights(numbers):
    X, y = numbers
    settings = {"early_stopping": True, "max_iter": 3, "tol": None, "random_state": 0}
    plain = SGDRegressor(**settings).fit(X, y)
    weighted = SGDRegressor(**settings).fit(X, y, sample_weight=np.full(60, 2.0))
    np.testing.assert_array_equal(weighted.coef_, plain.coef_)


PARTIAL = [
    SGDClassifier("log_loss", momentum=0.9, average=3), SGDClassifier("hinge"), SGDRegressor(momentum=0.5),
    MLPClassifier((4,), batch_norm=True), MLPRegressor((4,), dropout=0.3),
]  # fmt: skip


def content(model):
    """All that a model has learnt."""
    return pickle.dumps({name: value for name, value in vars(model).items() if name.endswith("_") or name == "_state"})


@pytest.mark.parametrize("model", PARTIAL, ids=repr)
def test_partial_fit_without_a_row_that_counts_does_nothing(model, classes):
    X, y = classes
    more = {"classes": np.unique(y)} if hasattr(model, "predict_log_proba") or "Classifier" in repr(model) else {}
    y = y if more else X[:, 0]
    plain = clone(model).set_params(random_state=0).partial_fit(X, y, **more)
    for zeros in (np.zeros(60), np.zeros(60, int), np.zeros(60, bool), 0, 0.0, [0] * 60):
        # The first call makes a model with its initial weights; then, and later on, nothing changes.
        idle = clone(model).set_params(random_state=0).partial_fit(X, y, sample_weight=zeros, **more)
        assert (idle.t_, idle.n_iter_) == (1, 0)
        assert idle.history_["step"].size == 0
        assert idle.predict(X).shape == (60,)
        before = content(idle)
        assert content(idle.partial_fit(X[:5], y[:5], sample_weight=0)) == before
        idle.partial_fit(X, y)
        np.testing.assert_array_equal(idle._scores(X), plain._scores(X))
        before = content(idle)
        assert content(idle.partial_fit(X, y, sample_weight=zeros)) == before
        second = clone(model).set_params(random_state=0).partial_fit(X, y, **more).partial_fit(X[:30], y[:30])
        np.testing.assert_array_equal(idle.partial_fit(X[:30], y[:30])._scores(X), second._scores(X))
    with pytest.raises(ValueError, match=r"sample_weight has shape \(3,\)"):
        idle.partial_fit(X, y, sample_weight=np.zeros(3))
    with pytest.raises(ValueError, match="has 2 features"):
        idle.partial_fit(X[:, :2], y, sample_weight=0)
    with pytest.raises(ValueError, match="weights must be finite"):
        idle.partial_fit(X, y, sample_weight=np.full(60, -1.0))
    if more:
        with pytest.raises(ValueError, match="y has the class 'z'"):
            idle.partial_fit(X, np.full(60, "z"), sample_weight=0)
        with pytest.raises(ValueError, match="first call of partial_fit needs all classes"):
            clone(model).partial_fit(X, y, sample_weight=0)
        before = content(idle.set_params(class_weight={"a": 0.0}))
        assert content(idle.partial_fit(X[y == "a"], y[y == "a"])) == before


def test_a_call_that_does_nothing_draws_nothing(numbers):
    X, y = numbers
    state = np.random.RandomState(3)
    model = SGDRegressor(random_state=state).partial_fit(X, y)
    position = state.get_state()[2]
    model.partial_fit(X, y, sample_weight=0)
    assert state.get_state()[2] == position


@pytest.mark.parametrize("model", PARTIAL, ids=repr)
def test_one_number_is_the_weight_of_every_row(model, classes):
    X, y = classes
    is_classifier = "Classifier" in repr(model)
    y = y if is_classifier else X[:, 0]
    model = clone(model).set_params(max_iter=3, tol=None, random_state=0, batch_size=25)
    for number in (1, 2.5, np.float32(0.5), np.array(3.0)):
        each = clone(model).fit(X, y, X_val=X, y_val=y, sample_weight=np.full(60, number), sample_weight_val=[2.0] * 60)
        found = clone(model).fit(X, y, X_val=X, y_val=y, sample_weight=number, sample_weight_val=2.0)
        np.testing.assert_array_equal(found._scores(X), each._scores(X))
        np.testing.assert_array_equal(found.history_["validation_loss"], each.history_["validation_loss"])
        more = {"classes": np.unique(y)} if is_classifier else {}
        each = clone(model).partial_fit(X, y, sample_weight=np.full(60, number), **more)
        np.testing.assert_array_equal(
            clone(model).partial_fit(X, y, sample_weight=number, **more)._scores(X), each._scores(X)
        )
    for wrong, error in ((0, ValueError), (-1.0, ValueError), (np.nan, ValueError), ("balanced", TypeError)):
        with pytest.raises(error, match="sample_weight"):
            clone(model).fit(X, y, sample_weight=wrong)
        with pytest.raises(error, match="sample_weight_val"):
            clone(model).fit(X, y, X_val=X, y_val=y, sample_weight_val=wrong)
