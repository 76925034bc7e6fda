"""SGDClassifier and SGDRegressor: steps as NumPy takes them, scikit-learn's rules, classes, order, known answers."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn import linear_model as theirs
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale
from sklearn.utils.estimator_checks import check_estimator

from fastml import SGDClassifier, SGDRegressor
from fastml.kernels.reference import vectorized
from fastml.linear_model import _optimal_steps

MODELS = {SGDClassifier: theirs.SGDClassifier, SGDRegressor: theirs.SGDRegressor}

CONSTANT = {"learning_rate": "constant", "tol": None}


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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.needs_jit
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_find_a_wrong_model():
    results = check_estimator(WeightsForgotten(), on_fail=None, on_skip=None)
    failed = {r["check_name"] for r in results if r["status"] == "failed"}
    assert "check_sample_weight_equivalence_on_dense_data" in failed


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
@pytest.mark.parametrize("n", [201, *(pytest.param(n, marks=pytest.mark.needs_jit) for n in (404, 442))])
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


@pytest.mark.needs_jit  # hundreds of epochs
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
