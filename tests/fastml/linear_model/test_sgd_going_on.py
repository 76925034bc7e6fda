"""SGDClassifier and SGDRegressor: partial_fit and warm starts, and runs that end otherwise than well."""

from __future__ import annotations

import math
import pickle
import signal
import threading

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from fastml import DivergenceWarning, SGDClassifier, SGDRegressor

CONSTANT = {"learning_rate": "constant", "tol": None}


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
    assert model.predict(X) == pytest.approx(X @ model.coef_ + model.intercept_, rel=1e-12, abs=1e-14)


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
@pytest.mark.parametrize("size", [pytest.param(1.0, marks=pytest.mark.needs_jit), 1e6])
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
