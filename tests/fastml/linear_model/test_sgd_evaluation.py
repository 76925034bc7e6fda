"""SGDClassifier and SGDRegressor: what evaluations say, when they stop a run, and rows that do not count."""

from __future__ import annotations

import math
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss, roc_auc_score

from fastml import MLPClassifier, MLPRegressor, SGDClassifier, SGDRegressor

CONSTANT = {"learning_rate": "constant", "tol": None}


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
    MLPClassifier((4,), batch_norm=True), MLPRegressor(hidden_layer_sizes=(4,), dropout=0.3),
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
