"""MLPClassifier and MLPRegressor: scikit-learn's networks step by step, its rules, and our own promises."""

from __future__ import annotations

import pickle
import signal
import threading
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn import neural_network as theirs
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from fastml import DivergenceWarning, MLPClassifier, MLPRegressor

MODELS = {MLPClassifier: theirs.MLPClassifier, MLPRegressor: theirs.MLPRegressor}


@pytest.fixture
def classes(rng):
    """Rows and labels of three classes."""
    X, y = rng.normal(size=(90, 5)), np.arange(90) % 3
    X[:, 0] += 2 * y
    return X, np.array(["c", "a", "b"])[y]


@pytest.fixture
def numbers(rng):
    """Rows and numbers."""
    X = rng.normal(size=(90, 5))
    return X, np.sin(X[:, 0]) + X[:, 1]


def same_weights(ours, expected, **tolerance):
    for got, want in zip((*ours.coefs_, *ours.intercepts_), (*expected.coefs_, *expected.intercepts_), strict=True):
        assert_allclose(got, want, **tolerance)


# ------------------------------------------------------------------------------------- scikit-learn


@pytest.mark.slow
@pytest.mark.needs_jit
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", [MLPClassifier(), MLPRegressor(), MLPClassifier(solver="sgd")], ids=repr)
def test_scikit_learns_checks(model):
    results = check_estimator(model, on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] in ("failed", "xfail")] == []
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= {"check_array_api_input"}
    assert len(results) > 40


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("ours", MODELS)
@pytest.mark.parametrize(
    "solver",
    [
        {"solver": "sgd", "momentum": 0.9, "nesterovs_momentum": True, "learning_rate_init": 0.05},
        {"solver": "sgd", "momentum": 0.5, "nesterovs_momentum": False, "learning_rate_init": 0.05},
        # scikit-learn adds epsilon before the correction: one so small makes no difference.
        {"solver": "adam", "epsilon": 1e-30, "learning_rate_init": 0.01},
    ],
    ids=["nesterov", "momentum", "adam"],
)
def test_epochs_are_scikit_learns(classes, numbers, ours, activation, solver):
    """From the same weights, in the same order of rows, batches that fill the epoch."""
    X, y = classes if ours is MLPClassifier else numbers
    shared = {"hidden_layer_sizes": (7, 4), "activation": activation, "alpha": 0.3, "batch_size": 15, "shuffle": False}
    shared |= {"random_state": 0, **solver}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # A first epoch of steps that are nothing leaves the initial weights.
        begin = MODELS[ours](max_iter=1, **shared | {"learning_rate_init": 1e-300}).fit(X, y)
        expected = MODELS[ours](max_iter=3, **shared).fit(X, y)
    model = ours(max_iter=3, tol=None, warm_start=True, **shared).fit(X, y)
    model.coefs_, model.intercepts_ = begin.coefs_, begin.intercepts_
    same_weights(model.fit(X, y), expected, rtol=1e-6, atol=1e-8)


def test_two_classes_are_scikit_learns(rng):
    X = rng.normal(size=(60, 4))
    y = np.where(X[:, 0] > 0, "yes", "no")
    model = MLPClassifier((6,), random_state=0, max_iter=300, learning_rate_init=0.01, tol=None).fit(X, y)
    assert model.out_activation_ == "logistic"
    assert model.n_outputs_ == 1
    assert model.score(X, y) > 0.95
    probabilities = model.predict_proba(X)
    assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(model.classes_[probabilities.argmax(axis=1)], model.predict(X))
    assert_allclose(model.predict_log_proba(X), np.log(probabilities), atol=1e-12)


# ------------------------------------------------------------------------------------------ learning


@pytest.mark.needs_jit
def test_normalized_layers(rng, same_bits):
    """Attributes are what the documentation says, the seed decides, and rows need not be near 0."""
    X = 50 + 10 * rng.normal(size=(300, 6))
    y = (X[:, 0] > X[:, 1]).astype(int) + (X[:, 2] > 50)
    settings = {"batch_norm": True, "max_iter": 40, "tol": None, "batch_size": 20, "random_state": 0}
    model = MLPClassifier((12, 7), learning_rate_init=0.01, **settings).fit(X, y)
    assert model.score(X, y) > 0.9
    values = X
    for place in range(2):
        deviation = np.sqrt(model.batch_norm_variances_[place] + 1e-5)
        values = (values @ model.coefs_[place] - model.batch_norm_means_[place]) / deviation
        values = np.maximum(model.batch_norm_scales_[place] * values + model.intercepts_[place], 0)
    scores = values @ model.coefs_[2] + model.intercepts_[2]
    assert_allclose(model.predict_log_proba(X), scores - np.log(np.exp(scores).sum(axis=1))[:, None], atol=1e-9)
    again = MLPClassifier((12, 7), learning_rate_init=0.01, n_jobs=2, **settings).fit(X, y)
    same_bits(again.batch_norm_variances_[1], model.batch_norm_variances_[1])
    same_bits(again.coefs_[0], model.coefs_[0])
    plain = MLPClassifier((12, 7), max_iter=1, tol=None).fit(X, y)
    assert plain.batch_norm_scales_ == plain.batch_norm_means_ == plain.batch_norm_variances_ == []
    assert MLPClassifier((), **settings).fit(X, y).batch_norm_scales_ == []


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_normalized_layers_with_all_the_rest(rng, same_bits, solver):
    X, y = rng.normal(size=(200, 5)), rng.integers(0, 3, 200)
    settings = {"hidden_layer_sizes": (8,), "batch_norm": True, "batch_norm_momentum": 0.3, "dropout": 0.2}
    settings |= {"solver": solver, "random_state": 0, "batch_size": 33, "class_weight": {0: 2.0}, "activation": "tanh"}
    weight = rng.uniform(0, 2, 200)
    best = MLPClassifier(early_stopping=True, n_iter_no_change=3, **settings)
    best.fit(X[:150], y[:150], X_val=X[150:], y_val=y[150:], sample_weight=weight[:150])
    assert best.score(X[150:], y[150:]) == best.history_["validation_score"].max()
    assert (best.batch_norm_means_[0] != 0).all()
    warm = MLPClassifier(warm_start=True, max_iter=3, tol=None, learning_rate_init=1e-300, **settings).fit(X, y)
    before = [part.copy() for part in (*warm.coefs_, *warm.batch_norm_scales_)]
    for a, b in zip((*warm.fit(X, y).coefs_, *warm.batch_norm_scales_), before, strict=True):
        same_bits(a, b)
    with pytest.raises(ValueError, match="batch_norm is False"):
        warm.set_params(batch_norm=False).fit(X, y)
    settings |= {"shuffle": False, "dropout": 0.0, "class_weight": None}
    whole, pieces = MLPClassifier(max_iter=4, tol=None, **settings).fit(X, y), MLPClassifier(**settings)
    for _ in range(4):
        pieces.partial_fit(X, y, classes=[0, 1, 2])
    assert pieces.t_ == whole.t_
    same_bits(pieces.coefs_[0], whole.coefs_[0])
    same_bits(pieces.batch_norm_variances_[0], whole.batch_norm_variances_[0])
    with pytest.raises(ValueError, match="batch_norm is False"):
        pieces.set_params(batch_norm=False).partial_fit(X, y)


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_digits(dtype):
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(dtype)
    for settings in ({"solver": "sgd", "learning_rate_init": 0.1}, {}, {"dropout": 0.2}, {"batch_norm": True}):
        model = MLPClassifier((40,), batch_size=10, max_iter=20, tol=None, random_state=0, **settings)
        model.fit(X[:1200], y[:1200], X_val=X[1200:], y_val=y[1200:])
        assert model.coefs_[0].dtype == model.predict_proba(X[:2]).dtype == dtype
        assert model.history_["validation_score"][-1] == model.score(X[1200:], y[1200:]) > 0.9
        assert model.history_["train_loss"][-1] < 0.15


def test_several_targets(rng):
    X = rng.normal(size=(200, 3))
    y = np.column_stack([X[:, 0], X[:, 1] - X[:, 2]])
    model = MLPRegressor(
        hidden_layer_sizes=(20,), learning_rate_init=0.01, batch_size=20, max_iter=60, tol=None, random_state=0
    ).fit(X, y)
    assert model.predict(X).shape == (200, 2)
    assert model.score(X, y) > 0.98
    assert model.n_outputs_ == 2


@pytest.mark.parametrize("model", [MLPClassifier, MLPRegressor])
def test_the_seed_decides_everything(model, classes, numbers, same_bits):
    X, y = classes if model is MLPClassifier else numbers
    settings = {"hidden_layer_sizes": (6, 5), "dropout": 0.3, "max_iter": 4, "tol": None, "batch_size": 7}
    one, two, other = (model(random_state=seed, **settings).fit(X, y) for seed in (1, 1, 2))
    for a, b, c in zip(one.coefs_, two.coefs_, other.coefs_, strict=True):
        same_bits(a, b)
        assert (a != c).any()
    same_bits(model(random_state=1, n_jobs=2, **settings).fit(X, y).coefs_[0], one.coefs_[0])


def test_partial_fit_goes_on_like_fit(classes, same_bits):
    X, y = classes
    settings = {"hidden_layer_sizes": (6,), "batch_size": 9, "shuffle": False, "random_state": 0, "dropout": 0.0}
    whole = MLPClassifier(max_iter=4, tol=None, **settings).fit(X, y)
    pieces = MLPClassifier(**settings)
    for _ in range(4):
        pieces.partial_fit(X, y, classes=["a", "b", "c"])
    for a, b in zip(pieces.coefs_, whole.coefs_, strict=True):
        same_bits(a, b)
    assert pieces.t_ == whole.t_ == 41
    assert len(pieces.history_["step"]) == 4


@pytest.mark.parametrize("batch_norm", [False, True])
def test_partial_fit_goes_on_from_weights_that_were_set(classes, same_bits, batch_norm):
    X, y = classes
    settings = {"hidden_layer_sizes": (5,), "batch_norm": batch_norm, "learning_rate": [0.0], "random_state": 0}
    model = MLPClassifier(**settings).partial_fit(X, y, classes=["a", "b", "c"])
    other = MLPClassifier(**settings | {"random_state": 1}).partial_fit(X, y, classes=["a", "b", "c"])
    model.coefs_ = [W.copy() for W in other.coefs_]
    model.intercepts_[-1][:] = other.intercepts_[-1]
    for got, want in zip(model.partial_fit(X, y).coefs_, other.coefs_, strict=True):
        same_bits(got, want)  # a step of size 0 leaves them
    same_bits(model.intercepts_[-1], other.intercepts_[-1])


def test_partial_fit_needs_classes_and_all_of_them(classes):
    X, y = classes
    with pytest.raises(ValueError, match=r"needs all classes"):
        MLPClassifier().partial_fit(X, y)
    model = MLPClassifier((3,)).partial_fit(X, y, classes=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"had array"):
        model.partial_fit(X, y, classes=["a", "b"])
    with pytest.raises(ValueError, match="early_stopping"):
        MLPClassifier(early_stopping=True).partial_fit(X, y, classes=["a", "b", "c"])


def test_warm_start_begins_with_the_weights_from_before(classes):
    X, y = classes
    model = MLPClassifier((5,), max_iter=30, tol=None, random_state=0, warm_start=True, learning_rate_init=0.01)
    first = model.fit(X, y).history_["train_loss"][-1]
    assert model.fit(X, y).history_["train_loss"][0] < first + 0.05
    with pytest.raises(ValueError, match="layers are to have shapes"):
        model.set_params(hidden_layer_sizes=(6,)).fit(X, y)


@pytest.mark.parametrize("resume", [False, True])
def test_a_fit_that_goes_on_needs_the_same_columns_and_classes(classes, resume):
    X, y = classes
    model = MLPClassifier((5,), max_iter=2, max_steps=1, tol=None, random_state=0, warm_start=not resume).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="X has 2 features, but MLPClassifier is expecting"):
        model.fit(X[:, :2], y, resume=resume)
    with pytest.raises(ValueError, match=r"classes \['d', 'e', 'f'\]; .* those before, \['a', 'b', 'c'\]"):
        model.fit(X, np.array(["d", "e", "f"])[np.unique(y, return_inverse=True)[1]], resume=resume)
    with pytest.raises(ValueError, match=r"classes \['a', 'other'\]"):
        model.fit(X, np.where(y == "a", "a", "other"), resume=resume)
    assert model.classes_.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(model.predict_proba(X), before)  # a fit that is refused changes nothing


def test_weights_of_rows_and_of_classes(classes, same_bits):
    X, y = classes
    settings = {"hidden_layer_sizes": (5,), "batch_size": 90, "max_iter": 5, "tol": None, "random_state": 0}
    weight = np.where(y == "a", 3.0, 1.0)
    by_rows = MLPClassifier(**settings).fit(X, y, sample_weight=weight)
    by_class = MLPClassifier(class_weight={"a": 3.0}, **settings).fit(X, y)
    same_bits(by_rows.coefs_[0], by_class.coefs_[0])
    twice = np.repeat(np.arange(90), np.where(y == "a", 3, 1))
    repeated = MLPClassifier(**settings | {"batch_size": len(twice)}).fit(X[twice], y[twice])
    same_weights(by_rows, repeated, rtol=1e-7)


@pytest.mark.parametrize("kind", ["plain", "weights", "classes"])
@pytest.mark.parametrize("n", [201, *(pytest.param(n, marks=pytest.mark.needs_jit) for n in (404, 442))])
def test_the_running_loss_is_that_of_the_rows(n, kind, rng):
    """Of weights that do not move it is the loss of all rows, however they are cut into batches."""
    X, y = rng.normal(size=(n, 4)), rng.integers(0, 3, n)
    X[-1] *= 30
    weight = rng.uniform(size=n) * (rng.uniform(size=n) < 0.7) if kind == "weights" else None
    still = {"hidden_layer_sizes": (5,), "random_state": 0, "max_iter": 2, "tol": None, "learning_rate_init": 1e-300}
    targets = {MLPClassifier: (y, y > 0), MLPRegressor: (X[:, 0] - 1, X[:, :2])}
    for model, several in targets.items():
        more = {"class_weight": {0: 7.0}} if kind == "classes" and model is MLPClassifier else {}
        for t in several:
            whole = model(batch_size=n, **still, **more).fit(X, t, sample_weight=weight)
            expected = whole.history_["train_loss"]
            for settings in ({}, {"batch_size": 7}, {"batch_size": 40, "solver": "sgd", "shuffle": False}):
                found = model(**still, **more, **settings).fit(X, t, sample_weight=weight)
                assert_allclose(found.history_["train_loss"], expected, rtol=1e-9)
            if model is MLPRegressor:
                residuals = np.atleast_2d((whole.predict(X) - t).T)
                assert_allclose(expected, np.average(0.5 * np.square(residuals).sum(axis=0), weights=weight))


@pytest.mark.needs_jit
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("settings", [{}, {"evaluations_per_epoch": 2}, {"train_metrics": "batch"}])
def test_a_last_batch_of_one_row_does_not_end_the_training(settings, rng):
    X = rng.normal(size=(201, 2))
    expected = theirs.MLPClassifier((10,), random_state=0).fit(X, X[:, 0] > 0).score(X, X[:, 0] > 0)
    model = MLPClassifier((10,), random_state=0, **settings).fit(X, X[:, 0] > 0)
    assert model.n_iter_ > 100
    assert model.score(X, X[:, 0] > 0) > expected - 0.05
    y = np.sin(X[:, 0]) + X[:, 1]
    assert MLPRegressor(random_state=0, learning_rate_init=0.003, **settings).fit(X, y).score(X, y) > 0.8


def test_early_stopping_keeps_the_best_weights(rng):
    X, y = rng.normal(size=(300, 20)), rng.integers(0, 2, 300)  # nothing to learn
    model = MLPClassifier((50,), max_iter=100, early_stopping=True, n_iter_no_change=5, random_state=0, batch_size=10)
    model.fit(X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    scores = model.history_["validation_score"]
    assert len(scores) < 100
    assert model.score(X[200:], y[200:]) == scores.max()
    assert model.best_step_ == model.history_["step"][scores.argmax()]


def test_callbacks_see_the_model_and_end_the_training(classes):
    X, y = classes
    seen = []

    def look(state):
        seen.append(state.fitted_estimator.score(X, y))
        return state.epoch >= 3

    model = MLPClassifier((5,), callbacks=look, random_state=0).fit(X, y)
    assert len(seen) == 3
    assert seen[-1] == model.score(X, y)


def test_progress_is_shown(classes, capsys):
    MLPClassifier((5,), max_iter=3, tol=None, verbose=1, random_state=0).fit(*classes)
    assert "MLPClassifier: 100%" in capsys.readouterr().err


def test_a_diverging_training_says_so(numbers):
    X, y = numbers
    with pytest.warns(DivergenceWarning, match="learning_rate_init=1e"):
        model = MLPRegressor(
            hidden_layer_sizes=(5,), solver="sgd", learning_rate_init=1e6, batch_size=10, random_state=0
        ).fit(X, y)
    assert all(np.isfinite(part).all() for part in model.coefs_)


@pytest.mark.needs_jit
def test_ctrl_c_keeps_what_there_is(rng):
    X, y = rng.normal(size=(5000, 300)), rng.integers(0, 3, 5000)
    MLPClassifier((50,), max_iter=1, tol=None).fit(X[:50], y[:50])
    timer = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.warns(UserWarning, match="interrupted after step"):
        model = MLPClassifier((50,), max_iter=100_000, tol=None, random_state=0).fit(X, y)
    timer.join()
    assert model.predict(X[:5]).shape == (5,)


def test_models_are_copied_and_kept(classes, same_bits):
    X, y = classes
    model = MLPClassifier((5,), max_iter=3, tol=None, random_state=0).fit(X, y)
    same_bits(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))
    with pytest.raises(NotFittedError):
        clone(model).predict(X)


BAD = {
    "hidden_layer_sizes": ((5, 0), r"hidden_layer_sizes\[1\] is 0"),
    "activation": ("swish", "activation is 'swish'"),
    "solver": ("lbfgs", "solver is 'lbfgs'"),
    "alpha": (-1, "alpha is -1"),
    "weight_decay": (-1, "weight_decay is -1"),
    "dropout": (1.0, "dropout is 1.0"),
    "validation_fraction": (1.0, "validation_fraction is 1.0; it must be below 1"),
    "learning_rate": ("adaptive", "learning_rate is 'adaptive'"),
    "learning_rate_init": (0, "learning_rate_init is 0"),
    "momentum": (2, "momentum is 2"),
    "beta_1": (1.0, "beta_1 is 1"),
    "epsilon": (0, "epsilon is 0"),
    "batch_norm": (1, "batch_norm is 1"),
    "batch_norm_momentum": (1.5, "batch_norm_momentum is 1.5"),
    "batch_size": (0, "batch_size is 0"),
    "shuffle": (1, "shuffle is 1"),
    "class_weight": ("even", "class_weight is 'even'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_parameters_are_named(classes, name):
    value, message = BAD[name]
    with pytest.raises((ValueError, TypeError), match=message):
        MLPClassifier(**{name: value}).fit(*classes)
    if name == "dropout":
        with pytest.raises(ValueError, match="dropout has 2 entries; there are 1 hidden layers"):
            MLPClassifier(dropout=(0.1, 0.2)).fit(*classes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_layer_sizes": -3}, "^hidden_layer_sizes is -3"),
        ({"dropout": (1.0,)}, r"^dropout\[0\] is 1.0"),
        ({"class_weight": {"a": "x"}}, "^class_weight is {'a': 'x'}: could not convert"),
        ({"class_weight": {"a": 1, "z": 2}}, "^class_weight is {'a': 1, 'z': 2}: The classes"),
        ({"early_stopping": True, "validation_fraction": 1e-9}, "^validation_fraction=1e-09 of 90 rows cannot be set"),
    ],
)
def test_errors_begin_with_the_parameter(classes, settings, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**settings).fit(*classes)


def test_targets_beyond_float32_are_refused(numbers):
    X, y = numbers
    y[3] = 1e39
    with pytest.raises(ValueError, match="y has entries that are infinite in float32, the dtype of the training"):
        MLPRegressor(hidden_layer_sizes=(3,)).fit(X.astype(np.float32), y)
    with pytest.raises(ValueError, match="X_val, y_val: y has entries that are infinite in float32"):
        MLPRegressor(hidden_layer_sizes=(3,)).fit(X.astype(np.float32), 0 * y, X_val=X, y_val=y)
