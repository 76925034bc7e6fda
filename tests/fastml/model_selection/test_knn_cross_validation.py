"""knn_cross_validation: the same scores as a model fitted on each fold, from one pass over the distances."""

from __future__ import annotations

import os
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy.sparse import csr_matrix
from sklearn.metrics import (
    f1_score,
    log_loss,
    make_scorer,
    max_error,
    mean_pinball_loss,
    r2_score,
    top_k_accuracy_score,
)
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    LeaveOneOut,
    PredefinedSplit,
    RepeatedKFold,
    RepeatedStratifiedKFold,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_val_predict,
    cross_val_score,
)

from fastml import KNeighborsClassifier, KNeighborsRegressor, datasets, knn_cross_validation, model_selection
from fastml.kernels import k_nearest
from fastml.kernels.distances.nearest import _nearest, k_nearest_outside_group
from fastml.kernels.reference import vectorized
from fastml.model_selection import _knn_cross_validation

METRICS = ("l1", "l2", "linf")
needs_data = pytest.mark.skipif("FASTML_DATA" not in os.environ, reason="FASTML_DATA is not set")


def fold_by_fold(X, y, splits, ks, metrics, weights="uniform", model=KNeighborsClassifier):
    """Return the scores of a model fitted and scored for each setting and each fold."""
    splits = list(splits)
    scores = np.empty((len(metrics), len(ks), len(splits)))
    for i, metric in enumerate(metrics):
        for j, k in enumerate(ks):
            for fold, (train, test) in enumerate(splits):
                fitted = model(k, metric=metric, weights=weights).fit(X[train], y[train])
                scores[i, j, fold] = fitted.score(X[test], y[test])
    return scores


def named(parameter):
    """A name for a test, without the address that a function's own has."""
    return getattr(parameter, "__name__", str(parameter))


@pytest.fixture
def data(rng):
    """Small whole numbers, so that most distances tie, and labels that have something to do with them."""
    X = rng.integers(0, 5, (90, 3)).astype(np.uint8)
    y = (X.sum(axis=1, dtype=int) // 3 + rng.integers(0, 2, 90)) % 4
    y[:24] = np.arange(24) % 4  # enough of every class to stratify
    return X, y


# ------------------------------------------------------------------------------- same as each fold


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize(
    "weights", ["uniform", "distance", lambda d: np.exp(-d)], ids=["uniform", "distance", "callable"]
)
def test_classification_is_exact(data, dtype, weights):
    X, y = data[0].astype(dtype), data[1]
    ks = [1, 2, 7, 20]
    result = knn_cross_validation(X, y, n_neighbors=ks, metrics=METRICS, weights=weights, cv=4, random_state=3)
    folds = PredefinedSplit(result.test_fold)
    assert np.array_equal(result.scores, fold_by_fold(X, y, folds.split(), ks, METRICS, weights))
    assert np.array_equal(result.errors, 1 - result.scores)
    assert result.scores.std() > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_regression_is_exact(data, rng, weights, dtype):
    X, y = data[0].astype(float), (data[1] + rng.normal(size=90)).astype(dtype)
    ks = [1, 3, 20]
    result = knn_cross_validation(X, y, n_neighbors=ks, metrics=METRICS, weights=weights, random_state=0)
    assert result.task == "regression"
    splits = list(PredefinedSplit(result.test_fold).split())
    assert np.array_equal(result.scores, fold_by_fold(X, y, splits, ks, METRICS, weights, KNeighborsRegressor))
    assert "R²" in str(result).splitlines()[0].split()


def test_whole_numbers_are_classes_unless_told(data):
    X, y = data
    assert knn_cross_validation(X, y, random_state=0).task == "classification"
    assert knn_cross_validation(X, y.astype(float), random_state=0).task == "classification"
    told = knn_cross_validation(X, y, task="regression", n_neighbors=4, random_state=0)
    folds = PredefinedSplit(told.test_fold).split()
    assert np.array_equal(told.scores, fold_by_fold(X, y, folds, [4], ["l2"], model=KNeighborsRegressor))


@pytest.mark.parametrize(
    "cv",
    [
        KFold(5),
        KFold(7, shuffle=True, random_state=1),
        StratifiedKFold(3),
        GroupKFold(4),
        LeaveOneOut(),
        [(np.arange(30, 90), np.arange(30)), (np.arange(30), np.arange(30, 90))],
        [(np.arange(90) >= 40, np.arange(90) < 40), (np.arange(90) < 40, np.arange(90) >= 40)],
    ],
    ids=lambda cv: type(cv).__name__,
)
def test_splitters(data, cv):
    X, y = data
    groups = np.arange(90) // 8 if isinstance(cv, GroupKFold) else None
    splits = list(cv.split(X, y, groups) if hasattr(cv, "split") else cv)
    result = knn_cross_validation(X, y, n_neighbors=[1, 5], metrics="l1", cv=cv, groups=groups)
    assert np.array_equal(result.scores, fold_by_fold(X, y, splits, [1, 5], ["l1"]))
    for fold, (_, test) in enumerate(splits):
        assert (result.test_fold[test] == fold).all()


def splits_of(cv, X, y):
    """The folds as lists, with training rows in order: a tie goes to the smaller row of all."""
    return [(np.sort(train), test) for train, test in (cv.split(X, y) if hasattr(cv, "split") else cv)]


OTHER_FOLDS = {
    "repeated": RepeatedKFold(n_splits=3, n_repeats=3, random_state=0),
    "shuffled, all trained on": ShuffleSplit(5, test_size=0.3, random_state=0),
    "shuffled, most tested": ShuffleSplit(4, test_size=0.7, random_state=0),
    "shuffled, few trained on": ShuffleSplit(5, test_size=0.2, train_size=0.4, random_state=0),
    "in time": TimeSeriesSplit(5),
    "in time, with gaps": TimeSeriesSplit(4, gap=3, max_train_size=25),
    "few rows never tested": PredefinedSplit([-1] * 20 + [0] * 30 + [1] * 40),
    "most rows never tested": PredefinedSplit([-1] * 70 + [0] * 11 + [1] * 9),
    "one test set": PredefinedSplit([0] * 30 + [-1] * 60),
    "purged": [(np.r_[:a, b + 5 : 90], np.arange(a, b)) for a, b in [(0, 30), (30, 60), (60, 85), (85, 90)]],
    "bootstrap": [(np.arange(60) * np.arange(60) % 61, np.arange(89, 60, -1)), (np.arange(90) % 40, np.r_[50:60])],
    "of several kinds": [*KFold(3).split(range(90)), *TimeSeriesSplit(2).split(range(90)), *KFold(2).split(range(90))],
}


@pytest.mark.parametrize("cv", OTHER_FOLDS.values(), ids=OTHER_FOLDS)
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_folds_that_are_no_partition(data, rng, cv, weights):
    """Any training and test sets: the scores are those of models fitted on each fold, for tied distances too."""
    X, y = data
    splits = splits_of(cv, X, y)
    options = {"n_neighbors": [1, 7], "metrics": ["l1", "l2"], "weights": weights, "cv": cv}
    result = knn_cross_validation(X, y, **options)
    assert np.array_equal(result.scores, fold_by_fold(X, y, splits, [1, 7], ["l1", "l2"], weights))
    numbers = y + rng.normal(size=90)
    scores = fold_by_fold(X, numbers, splits, [1, 7], ["l1", "l2"], weights, KNeighborsRegressor)
    found = knn_cross_validation(X, numbers, **options)
    assert np.array_equal(found.scores, scores)

    tests = np.concatenate([test for _, test in splits])
    if np.array_equal(np.sort(tests), np.arange(90)):
        for train, test in splits:
            model = KNeighborsRegressor(7, metric="l2", weights=weights).fit(X[train], numbers[train])
            assert np.array_equal(found.predictions[1, 1, test], model.predict(X[test]))
    else:
        assert result.predictions is None
    if isinstance(cv, PredefinedSplit):
        assert np.array_equal(result.test_fold, cv.test_fold)
    else:
        assert result.test_fold is None


def test_repeated_stratified_folds(data):
    X, y = data
    cv = RepeatedStratifiedKFold(n_splits=4, n_repeats=2, random_state=1)
    result = knn_cross_validation(X, y, n_neighbors=[1, 5], cv=cv)
    assert np.array_equal(result.scores, fold_by_fold(X, y, splits_of(cv, X, y), [1, 5], ["l2"]))
    assert str(result).endswith("means over 8 folds")


@pytest.mark.parametrize(("cv", "searches"), [(RepeatedKFold(n_splits=5, n_repeats=3), 3), (LeaveOneOut(), 1)])
def test_one_search_per_repeat(data, monkeypatch, cv, searches):
    calls = []

    def counted(*args, **kwargs):
        calls.append(args)
        return k_nearest_outside_group(*args, **kwargs)

    monkeypatch.setattr(_knn_cross_validation, "k_nearest_outside_group", counted)
    monkeypatch.setattr(_knn_cross_validation, "k_nearest", None)
    knn_cross_validation(*data, n_neighbors=[1, 5], cv=cv)
    assert len(calls) == searches


def test_default_numbers_of_neighbours_fit_the_data(data):
    X, y = data
    rows = np.r_[:21, 60:64]
    result = knn_cross_validation(X[rows], y[rows], cv=KFold(5))
    assert result.n_neighbors == (1, 2, 3, 5, 7, 10, 15, 20)
    assert knn_cross_validation(X[:3], y[:3] * 0.5, cv=KFold(3)).n_neighbors == (1, 2)
    assert knn_cross_validation(X, y, cv=TimeSeriesSplit(9)).n_neighbors == (1, 2, 3, 5, 7)  # of 9 rows at first
    assert knn_cross_validation(X, y, cv=KFold(5)).n_neighbors[-1] == 30
    with pytest.raises(ValueError, match="n_neighbors is 30; the smallest training set has 20 rows"):
        knn_cross_validation(X[rows], y[rows], n_neighbors=[1, 30], cv=KFold(5))


# ------------------------------------------------------------------------------- folds of one row


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_r2_of_single_rows_is_pooled(rng, weights, dtype):
    X = rng.normal(size=(60, 2))
    y = (X[:, 0] + 0.1 * rng.normal(size=60)).astype(dtype)
    one = np.r_[np.zeros(59, int), 1]
    for cv, groups in [(LeaveOneOut(), None), (KFold(59), None), (LeaveOneGroupOut(), one), (KFold(60), None)]:
        ks = [1] if groups is not None else [1, 3, 20]
        result = knn_cross_validation(X, y, n_neighbors=ks, cv=cv, groups=groups, weights=weights, metrics=METRICS)
        assert result.pooled
        assert result.scores.shape == (3, len(ks), 1)
        for i, metric in enumerate(METRICS):
            for j, k in enumerate(ks):
                model = KNeighborsRegressor(k, metric=metric, weights=weights)
                predicted = cross_val_predict(model, X, y, cv=cv, groups=groups)
                assert np.array_equal(result.predictions[i, j], predicted)
                assert result.scores[i, j, 0] == pytest.approx(r2_score(y, predicted), rel=1e-12)
        assert result.best_score == result.scores.max()
        best = result.best_index
        assert result.best_params == {"metric": METRICS[best[0]], "n_neighbors": ks[best[1]]}
        lines = str(result).splitlines()
        assert lines[0].split() == ["metric", "k", "1", "−", "R²", "R²"]
        assert lines[-1] == "of all predictions together"
        assert len(result.table["score_fold_0"]) == 3 * len(ks)


def test_leave_one_out_is_the_score_of_each_row_from_the_others(data):
    X, y = data
    labels = knn_cross_validation(X, y, n_neighbors=[1, 6], cv=LeaveOneOut())
    assert labels.scores.shape == (1, 2, 90)
    assert not labels.pooled
    numbers = knn_cross_validation(X, y, n_neighbors=[1, 6], cv=LeaveOneOut(), task="regression")
    for i, k in enumerate([1, 6]):
        assert labels.scores[0, i].mean() == KNeighborsClassifier(k).fit(X, y).score(None, y)
        assert numbers.scores[0, i, 0] == KNeighborsRegressor(k).fit(X, y).score(None, y)


@pytest.mark.parametrize("sizes", [(2,) * 45, (3,) * 30, (7, 8, 9, 16, 17, 33), (2, 2, 5, 5, 11, 65), (45, 45)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_r2_of_folds_of_one_size_together_is_that_of_each(data, rng, sizes, dtype):
    X = data[0]
    y = (data[1] * 8 + 100 * rng.normal(size=90)).astype(dtype)
    cv = PredefinedSplit(rng.permutation(np.repeat(np.arange(len(sizes)), sizes)))
    result = knn_cross_validation(X, y, n_neighbors=[1, 5], cv=cv, task="regression")
    expected = fold_by_fold(X, y, cv.split(), [1, 5], ["l2"], model=KNeighborsRegressor)
    assert np.array_equal(result.scores, expected)


# ----------------------------------------------------------------------------------------- scoring


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize(
    ("scoring", "task"),
    [
        ("accuracy", "classification"),
        ("f1_macro", "classification"),
        ("matthews_corrcoef", "classification"),
        ("neg_log_loss", "classification"),
        ("roc_auc_ovr", "classification"),
        (make_scorer(f1_score, average="weighted"), "classification"),
        (make_scorer(top_k_accuracy_score, response_method="predict_proba", k=2), "classification"),
        (lambda model, X, y: float((model.predict(X)[X[:, 0] > 1] == y[X[:, 0] > 1]).mean()), "classification"),
        ("r2", "regression"),
        ("neg_mean_squared_error", "regression"),
        ("neg_median_absolute_error", "regression"),
        ("explained_variance", "regression"),
        (make_scorer(mean_pinball_loss, alpha=0.9, greater_is_better=False), "regression"),
    ],
    ids=named,
)
def test_scoring_is_what_each_fold_scores(data, rng, scoring, task, weights):
    X, labels = data
    y = labels if task == "classification" else labels + rng.normal(size=90)
    model = KNeighborsClassifier if task == "classification" else KNeighborsRegressor
    cv = StratifiedKFold(4) if task == "classification" else KFold(4)
    result = knn_cross_validation(X, y, n_neighbors=[1, 6], weights=weights, cv=cv, scoring=scoring)
    for i, k in enumerate([1, 6]):
        expected = cross_val_score(model(k, weights=weights), X, y, cv=cv, scoring=scoring)
        assert np.array_equal(result.scores[0, i], expected)
    assert result.best_score == result.scores.mean(axis=2).max()
    assert result.scoring in (scoring, getattr(scoring, "__name__", repr(scoring)))


@pytest.mark.parametrize(
    ("scoring", "score", "error", "from_one"),
    [
        ("neg_mean_squared_error", "neg_mean_squared_error", "mean_squared_error", False),
        ("r2", "r2", "1 − r2", True),
        ("explained_variance", "explained_variance", "1 − explained_variance", True),
        (make_scorer(max_error, greater_is_better=False), "make_scorer(max_error,", "−make_scorer(max_error,", False),
    ],
    ids=str,
)
def test_errors_of_other_scores(data, rng, scoring, score, error, from_one):
    X, y = data
    result = knn_cross_validation(X, y + rng.normal(size=90), n_neighbors=[1, 6], cv=KFold(4), scoring=scoring)
    assert result.score_name.startswith(score)
    assert result.error_name.startswith(error)
    assert np.array_equal(result.errors, float(from_one) - result.scores)
    np.testing.assert_allclose(result.table["mean_error"], result.errors.mean(axis=2)[0], rtol=1e-12)
    ax = Figure().subplots()
    result.plot(ax)
    assert ax.get_ylabel() == f"{result.error_name}, mean ± std of 4 folds"
    assert f"{result.error_name:>10}  {result.score_name:>8}" in str(result)


def test_other_scores_of_single_rows_are_pooled(data, rng):
    X, y = data
    predicted = cross_val_predict(KNeighborsClassifier(6), X, y, cv=LeaveOneOut())
    result = knn_cross_validation(X, y, n_neighbors=6, cv=LeaveOneOut(), scoring="f1_macro")
    assert result.scores.ravel().tolist() == [f1_score(y, predicted, average="macro")]
    shares = cross_val_predict(KNeighborsClassifier(30), X, y, cv=LeaveOneOut(), method="predict_proba")
    result = knn_cross_validation(X, y, n_neighbors=30, cv=LeaveOneOut(), scoring="neg_log_loss")
    assert result.scores.ravel().tolist() == [-log_loss(y, shares)]
    numbers = y + rng.normal(size=90)
    predicted = cross_val_predict(KNeighborsRegressor(6), X, numbers, cv=KFold(80))  # folds of two rows and of one
    result = knn_cross_validation(X, numbers, n_neighbors=6, cv=KFold(80), scoring="neg_mean_squared_error")
    assert result.best_score == pytest.approx(-((predicted - numbers) ** 2).mean(), rel=1e-14)


def test_a_class_that_a_fold_does_not_train_on_has_probability_0(data):
    X, y = data
    labels = np.where(np.arange(90) < 30, 9, y)  # in the first of three folds only

    def mean_share_of_the_last(model, X, y):
        assert model.classes_.tolist() == [0, 1, 2, 3, 9]
        return model.predict_proba(X)[:, -1].mean()

    result = knn_cross_validation(X, labels, n_neighbors=8, cv=KFold(3), scoring=mean_share_of_the_last)
    assert result.scores[0, 0, 0] == 0
    assert (result.scores[0, 0, 1:] > 0).all()
    assert result.scoring == "mean_share_of_the_last"


@pytest.mark.parametrize(
    ("scoring", "error", "message"),
    [
        (["f1_macro"], TypeError, r"scoring is \['f1_macro'\] \(list\); it must be the name of one score"),
        (3, TypeError, r"scoring is 3 \(int\)"),
        ("f3", ValueError, "f3"),
        (f1_score, ValueError, "metric function rather than a scorer"),
        (lambda model, X, y: {"f1": 1.0}, TypeError, "scoring returned {'f1': 1.0} .dict.; it must return a number"),
        (lambda model, X, y: None, TypeError, "scoring returned None"),
    ],
    ids=named,
)
def test_scoring_that_is_none_is_named(data, scoring, error, message):
    with pytest.raises(error, match=message):
        knn_cross_validation(*data, n_neighbors=1, scoring=scoring)


def test_scores_from_probabilities_need_labels(data):
    with pytest.raises(AttributeError, match="KNeighborsRegressor has none of the following attributes: predict_proba"):
        knn_cross_validation(*data, n_neighbors=1, task="regression", scoring="neg_log_loss")


# ---------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    "y",
    [
        np.round(np.arange(60) * 0.25).astype(int) * 1000,  # 16 values
        np.arange(60) % 13 + 1900,  # not numbered from 0 or 1
        np.arange(60) % 20.0,  # fewer than five rows for each
        np.arange(60) % 20 * 2,
    ],
    ids=["thousands", "years", "rare", "even"],
)
@pytest.mark.filterwarnings("ignore:The least populated class")
def test_many_whole_numbers_are_taken_for_labels_with_a_warning(rng, y):
    X = rng.normal(size=(60, 2))
    with pytest.warns(
        UserWarning, match="y has .* different whole numbers, which are taken for labels; give task='reg"
    ):
        assert knn_cross_validation(X, y, n_neighbors=1, cv=3, random_state=0).task == "classification"
    for task in ("classification", "regression"):  # told, so nothing to say
        assert knn_cross_validation(X, y, n_neighbors=1, cv=3, random_state=0, task=task).task == task


@pytest.mark.parametrize(
    "y",
    [
        np.arange(60) % 12,
        np.arange(60) % 12 + 1,
        np.arange(60) % 10 * 1000.0,
        np.arange(60) % 2 > 0,
        np.array(list("abcdefghijklmno"))[np.arange(60) % 15],
    ],
    ids=["from 0", "from 1", "ten", "bool", "strings"],
)
def test_labels_are_taken_for_labels_silently(rng, y):
    assert knn_cross_validation(rng.normal(size=(60, 2)), y, cv=3, random_state=0).task == "classification"


@pytest.mark.filterwarnings("ignore:y has 60 different|The number of unique classes")
def test_labels_too_rare_to_stratify(rng):
    X, y = rng.normal(size=(60, 2)), np.arange(60) * 1000
    for options in ({}, {"task": "classification"}):
        with pytest.raises(ValueError, match=r"cv is 5; the most frequent label in y has 1 rows, .* task='regression'"):
            knn_cross_validation(X, y, n_neighbors=1, **options)
    assert knn_cross_validation(X, y, n_neighbors=1, task="regression").scores.shape == (1, 1, 5)
    assert knn_cross_validation(X, y, n_neighbors=1, cv=KFold(5)).scores.max() == 0


def test_targets_of_one_column(data):
    X, y = data
    for column in (y[:, np.newaxis], pd.DataFrame({"y": y}), y[:, np.newaxis] * 0.5):
        flat = np.asarray(column).ravel()
        expected = knn_cross_validation(X, flat, n_neighbors=[1, 5], cv=KFold(4))
        found = knn_cross_validation(X, column, n_neighbors=[1, 5], cv=KFold(4))
        assert np.array_equal(found.scores, expected.scores)
        assert found.predictions.shape == (1, 2, 90)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (np.eye(90, 2), ValueError, r"y has shape \(90, 2\); one label or number for each row is needed"),
        (csr_matrix(np.eye(90, 2)), TypeError, r"y is sparse \(csr_matrix\); pass a dense array"),
        (None, ValueError, "y is None"),
        (np.array(["a", None] * 45, object), ValueError, r"y\[1\] is None; labels must not be missing"),
        (np.array(["a", 2] * 45, object), TypeError, r"y holds objects \(int and str\)"),
    ],
    ids=["columns", "sparse", "None", "no label", "objects"],
)
def test_targets_that_are_refused(data, y, error, message):
    with pytest.raises(error, match=message):
        knn_cross_validation(data[0], y)


def test_none_is_no_number(data):
    y = np.array([1.5, None] + [2.5] * 88, object)
    with pytest.raises(ValueError, match="is None; numbers must not be missing"):
        knn_cross_validation(data[0], y, task="regression")


def test_strings_of_variable_width_are_labels(data):
    X, y = data
    plain = np.array(["d", "bb", "c", "a"])[y]
    found = knn_cross_validation(X, plain.astype(np.dtypes.StringDType()), n_neighbors=3, cv=KFold(4))
    assert np.array_equal(found.scores, knn_cross_validation(X, plain, n_neighbors=3, cv=KFold(4)).scores)


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.needs_jit
def test_memory_does_not_grow_with_rows_times_classes(rng):
    X = rng.normal(size=(2000, 3))
    options = {"n_neighbors": [1, 3], "cv": KFold(2), "task": "classification"}
    knn_cross_validation(X[:50], np.arange(50), **options)
    tracemalloc.start()
    knn_cross_validation(X, np.arange(2000), **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2000 * 2000 / 10


# ---------------------------------------------------------------------------------------- weights


def test_infinite_weights_count_alone(rng):
    X = np.repeat(np.arange(12.0), 2)[:, np.newaxis]  # each row twice: distance 0 where the twin is in another fold
    y = X[:, 0] + rng.random(24)

    def inverse_square(distances):
        return 1 / distances**2

    options = {"n_neighbors": [2, 3], "weights": inverse_square, "cv": KFold(2, shuffle=True, random_state=0)}
    splits = list(options["cv"].split(X))
    found = knn_cross_validation(X, y, **options)
    assert np.isfinite(found.scores).all()
    assert np.array_equal(found.scores, fold_by_fold(X, y, splits, [2, 3], ["l2"], inverse_square, KNeighborsRegressor))
    labels = knn_cross_validation(X, y.astype(int), **options, task="classification")
    assert np.array_equal(labels.scores, fold_by_fold(X, y.astype(int), splits, [2, 3], ["l2"], inverse_square))


@pytest.mark.parametrize("cv", [KFold(3), KFold(3, shuffle=True, random_state=0), ShuffleSplit(2, random_state=5)])
def test_weights_that_cannot_be_are_refused_by_row_of_x(rng, cv):
    X = rng.normal(size=(30, 1))
    tested = np.concatenate([test for _, test in cv.split(X)])
    row = int(tested[-1])
    X[row] = 100.0  # the one that is far from the others

    def weights(distances):
        return np.where(distances > 50, np.nan, 1.0)

    with pytest.raises(ValueError, match=rf"weights returned nan for the distance \d+\.\d+ of row {row};"):
        knn_cross_validation(X, np.arange(30) % 2, n_neighbors=2, weights=weights, cv=cv)


def test_weights_may_write_into_what_they_get(data):
    X, y = data

    def shifted(distances):
        distances += 0.5
        return distances**-4

    splits = list(KFold(4).split(X))
    found = knn_cross_validation(X.astype(float), y, n_neighbors=[7, 1, 4], weights=shifted, cv=KFold(4))
    assert np.array_equal(found.scores, fold_by_fold(X, y, splits, [7, 1, 4], ["l2"], shifted))


def test_string_labels_and_a_class_that_a_fold_lacks(data):
    X, y = data
    labels = np.array(["d", "b", "c", "a"])[y]
    labels[:3] = "only here"
    result = knn_cross_validation(X, labels, n_neighbors=[1, 4], cv=KFold(6))
    assert np.array_equal(result.scores, fold_by_fold(X, labels, KFold(6).split(X), [1, 4], ["l2"]))


def test_grid_search_says_the_same(data):
    X, y = data
    cv = StratifiedKFold(5, shuffle=True, random_state=4)
    grid = {"metric": ["l1", "l2"], "n_neighbors": [1, 3, 9]}
    search = GridSearchCV(KNeighborsClassifier(), grid, cv=cv).fit(X, y)
    result = knn_cross_validation(X, y, n_neighbors=grid["n_neighbors"], metrics=grid["metric"], random_state=4)
    assert np.array_equal(search.cv_results_["mean_test_score"], result.table["mean_score"])
    assert np.array_equal(search.cv_results_["std_test_score"], result.table["std_score"])
    assert (search.best_params_, search.best_score_) == (result.best_params, result.best_score)


@pytest.mark.needs_jit
def test_one_pass_per_metric_in_steps_whatever_the_threads(rng, monkeypatch):
    X, y = rng.integers(0, 9, (2300, 2)).astype(np.uint8), rng.integers(0, 3, 2300)
    steps = []

    def counted(*args, progress, **kwargs):
        def told(rows):
            steps.append(rows)
            progress(rows)

        return k_nearest_outside_group(*args, progress=told, **kwargs)

    monkeypatch.setattr(_knn_cross_validation, "k_nearest_outside_group", counted)
    options = {"n_neighbors": range(1, 9), "metrics": ["l1", "l2"], "cv": KFold(10)}
    for rows in (X, np.tile(X, 400)):  # short rows, and rows so long that every distance is made once for two
        steps.clear()
        one = knn_cross_validation(rows, y, **options, n_jobs=1)
        assert sum(steps) == 2 * len(X)
        assert len(steps) > 2
        assert np.array_equal(one.scores, knn_cross_validation(rows, y, **options, n_jobs=2).scores)


def test_random_state(data):
    X, y = data
    first, again, other = (knn_cross_validation(X, y, random_state=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.scores, again.scores)
    assert not np.array_equal(first.test_fold, other.test_fold)
    # stratified: every fold has its share of every class
    for label in np.unique(y):
        counts = np.bincount(first.test_fold[y == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    assert not (np.diff(first.test_fold) >= 0).all()  # shuffled


# ------------------------------------------------------------------------------------ the kernel


@pytest.mark.parametrize("n_threads", [1, 2])
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_search_outside_the_group(n_threads, data):
    """With groups the search is the one among the other groups' rows, also with ties, NaN, and few queries."""
    n, m, d = data.draw(st.integers(1, 9)), data.draw(st.sampled_from([7, 40, 300])), data.draw(st.integers(0, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    metric = data.draw(st.sampled_from(METRICS))
    X, Y = rng.integers(0, 4, (n, d)).astype(float), rng.integers(0, 4, (m, d)).astype(float)
    if d and data.draw(st.booleans()):
        Y[rng.integers(m)] = np.nan
    x_groups, y_groups = rng.integers(0, 4, n), rng.integers(0, 3, m)
    smallest = min(int((y_groups != group).sum()) for group in x_groups)
    if smallest == 0:
        return
    k = data.draw(st.integers(1, min(smallest, 20)))
    distances, indices = _nearest(metric, X, x_groups, Y, y_groups, k, n_threads)
    for i in range(n):
        rows = np.flatnonzero(y_groups != x_groups[i])
        expected = vectorized.k_nearest(X[[i]], Y[rows], k, metric=metric)
        assert np.array_equal(indices[i], rows[expected[1][0]])
        np.testing.assert_allclose(distances[i], expected[0][0], rtol=1e-15)


def test_search_outside_the_group_with_y_cut_into_parts(rng):
    Y = rng.integers(0, 3, (6000, 2)).astype(np.uint8)
    groups = rng.integers(0, 3, 6000)
    for n_threads in (1, 4):
        _, indices = _nearest("l2", Y[:5], groups[:5], Y, groups, 40, n_threads)
        for i in range(5):
            rows = np.flatnonzero(groups != groups[i])
            assert np.array_equal(indices[i], rows[k_nearest(Y[[i]], Y[rows], 40)[1][0]])


def test_a_group_for_each_row_is_exclude_self(rng):
    X = rng.integers(0, 4, (400, 2)).astype(np.float32)
    own = np.arange(400)
    for found, expected in zip(
        k_nearest_outside_group(X, own, 7, metric="l1"),
        k_nearest(X, X, 7, metric="l1", exclude_self=True),
        strict=True,
    ):
        assert np.array_equal(found, expected)


# --------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        ([(np.arange(20, 90), np.arange(30)), (np.arange(30), np.arange(30, 90))], "fold 0 of cv has row 20 twice;"),
        ([(np.arange(40), np.arange(40, 90)), (np.arange(89, 9, -1), np.arange(11))], "fold 1 of cv has row 10 twice;"),
        ([(np.arange(90), np.arange(0))], "fold 0 of cv tests no row"),
        ([(np.arange(0), np.arange(90))], "fold 0 of cv trains on no row"),
        ([], "cv has no folds"),
        ("five", "cv"),
    ],
    ids=["overlap", "overlap in disorder", "no test", "no training", "none", "five"],
)
def test_folds_that_are_refused(data, cv, message):
    with pytest.raises(ValueError, match=message):
        knn_cross_validation(*data, n_neighbors=1, cv=cv)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_neighbors": []}, ValueError, "n_neighbors is empty"),
        ({"metrics": []}, ValueError, "metrics is empty"),
        ({"n_neighbors": [3, 0]}, ValueError, "n_neighbors is 0; it must be a positive integer"),
        ({"n_neighbors": 2.0}, TypeError, r"n_neighbors is 2.0 \(float\)"),
        ({"n_neighbors": np.array(2)}, TypeError, r"n_neighbors is array\(2\) \(ndarray\)"),
        ({"n_neighbors": "12"}, TypeError, r"n_neighbors is '12' \(str\)"),
        ({"metrics": None}, TypeError, "metric is None; it must be one of"),
        ({"metrics": np.array("l2")}, TypeError, "metric is array"),
        ({"n_neighbors": [1, 73]}, ValueError, "n_neighbors is 73; the smallest training set has 72 rows"),
        ({"metrics": ["l2", "cosine"]}, ValueError, "metric is 'cosine'; it must be one of 'minkowski', 'l1'"),
        ({"metrics": [2]}, TypeError, "metric is 2; it must be one of"),
        ({"weights": "far"}, ValueError, "weights is 'far'"),
        ({"weights": np.ones(90)}, ValueError, "weights is of type ndarray"),
        ({"task": "both"}, ValueError, "task is 'both'"),
        ({"cv": KFold(5), "random_state": 0}, ValueError, "random_state shuffles the folds of a number cv"),
        ({"n_jobs": 0}, ValueError, "n_jobs is 0"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(data, options, error, message):
    with pytest.raises(error, match=message):
        knn_cross_validation(*data, **options)


def test_wrong_data(data):
    X, y = data
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        knn_cross_validation(X, y[:-1])
    with pytest.raises(ValueError, match="NaN"):
        knn_cross_validation(np.where(X == 0, np.nan, X), y)
    with pytest.raises(ValueError, match="Unknown label type"):
        knn_cross_validation(X, y + 0.5, task="classification")


# ---------------------------------------------------------------------------- the result and its plot


@pytest.fixture
def result(data):
    return knn_cross_validation(*data, n_neighbors=[9, 1, 4], metrics=["l1", "chebyshev"], random_state=0)


def test_table(result):
    frame = pd.DataFrame(result.table)
    assert frame["metric"].tolist() == ["l1"] * 3 + ["chebyshev"] * 3
    assert frame["n_neighbors"].tolist() == [9, 1, 4, 9, 1, 4]
    folds = frame[[f"score_fold_{fold}" for fold in range(5)]].to_numpy()
    assert np.array_equal(folds, result.scores.reshape(6, 5))
    np.testing.assert_allclose(frame["mean_score"], folds.mean(axis=1), rtol=1e-15)
    np.testing.assert_allclose(frame["mean_error"], 1 - folds.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(frame["std_score"], folds.std(axis=1), rtol=1e-12)


def test_best_is_the_first_of_the_highest(result, data):
    best = result.table["mean_score"].index(max(result.table["mean_score"]))
    assert result.best_params == {name: result.table[name][best] for name in ("metric", "n_neighbors")}
    assert result.best_score == max(result.table["mean_score"])
    assert KNeighborsClassifier(**result.best_params).fit(*data).effective_metric_
    equal = knn_cross_validation(*data, n_neighbors=[3, 3], metrics=["l2", "euclidean"], random_state=0)
    assert equal.best_index == (0, 0)


def test_a_setting_without_a_score_is_not_the_best(data):
    """A score may be NaN in some fold; where it is so for every setting, there is no best one."""
    X, y = data

    def unless_few(model, X, y):
        return np.nan if len(y) < 20 else model.predict(X).mean()

    undefined = knn_cross_validation(X, y, n_neighbors=[1, 2], metrics=["l1", "l2"], cv=KFold(5), scoring=unless_few)
    for name in ("best_index", "best_params", "best_score"):
        with pytest.raises(ValueError, match="no setting is the best: each has a score of NaN in some fold"):
            getattr(undefined, name)
    assert "best" not in str(undefined)
    ax = Figure().subplots()
    undefined.plot(ax)
    assert len(ax.get_lines()) == 2  # no ring
    assert ax.get_title("left") == ""
    scores = np.array([[[np.nan, 1.0]], [[0.5, 0.5]]])
    partly = model_selection.KNNCrossValidation("regression", ("l1", "l2"), (1,), scores, undefined.test_fold)
    assert partly.best_params == {"metric": "l2", "n_neighbors": 1}
    assert [line.endswith("best") for line in str(partly).splitlines()] == [False, False, True, False]


def test_predictions_are_those_of_each_fold(data):
    X, y = data
    for labels in (y, np.array(["d", "b", "c", "a"])[y], y % 2 == 0):
        result = knn_cross_validation(X, labels, n_neighbors=[2, 9], metrics=["l1", "l2"], cv=KFold(4, shuffle=True))
        cv = PredefinedSplit(result.test_fold)
        assert result.predictions.shape == (2, 2, 90)
        assert result.predictions.dtype == labels.dtype
        for i, metric in enumerate(["l1", "l2"]):
            for j, k in enumerate([2, 9]):
                model = KNeighborsClassifier(k, metric=metric)
                assert np.array_equal(result.predictions[i, j], cross_val_predict(model, X, labels, cv=cv))


def test_minkowski_is_l2(data):
    X, y = data
    result = knn_cross_validation(X, y, n_neighbors=[1, 4], metrics=["minkowski", "l2"], random_state=0)
    assert np.array_equal(result.scores[0], result.scores[1])
    assert result.metrics == ("minkowski", "l2")
    assert KNeighborsClassifier(**result.best_params).fit(X, y).effective_metric_ == "euclidean"


def test_text(result):
    lines = str(result).splitlines()
    assert lines[0].split() == ["metric", "k", "error", "rate", "accuracy", "±", "std"]
    assert len(lines) == 1 + 6 + 1
    (best,) = (line for line in lines if line.endswith("best"))
    assert best.split()[:2] == [result.best_params["metric"], str(result.best_params["n_neighbors"])]
    assert len(repr(result)) < 200


def test_plot_against_k(result):
    ax = Figure().subplots()
    assert result.plot(ax) is ax
    first, second, ring = ax.get_lines()
    assert first.get_xdata().tolist() == [1, 4, 9]
    np.testing.assert_allclose(second.get_ydata(), result.errors[1, [1, 2, 0]].mean(axis=1))
    best = result.best_params
    assert ring.get_xdata().tolist() == [best["n_neighbors"]]
    np.testing.assert_allclose(ring.get_ydata(), [1 - result.best_score])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["L1", "chebyshev"]
    assert "error rate" in ax.get_ylabel()
    assert str(best["n_neighbors"]) in ax.get_title("left")


def test_plot_against_metric(data):
    ax = Figure().subplots()
    result = knn_cross_validation(*data, n_neighbors=3, metrics=METRICS, random_state=0)
    result.plot(ax)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["L1", "L2", "L∞"]
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), result.errors.mean(axis=2)[:, 0])
    assert "k = 3" in ax.get_xlabel()


def test_plot_of_pooled_scores(data, rng):
    ax = Figure().subplots()
    result = knn_cross_validation(data[0], data[1] + rng.normal(size=90), n_neighbors=[1, 8], cv=LeaveOneOut())
    result.plot(ax)
    assert ax.get_ylabel() == "1 − R², of all predictions together"
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), result.errors[0, :, 0])


def test_plot_makes_its_own_axes(result, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    ax = result.plot()
    assert ax.get_lines()
    pyplot.close(ax.figure)


def test_without_matplotlib_the_message_says_what_to_install(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"plots need matplotlib.*pip install matplotlib"):
        result.plot()


def test_progress(data, capsys):
    knn_cross_validation(*data, n_neighbors=1, metrics=METRICS, progress=True)
    shown = capsys.readouterr()
    assert "270/270" in shown.err
    knn_cross_validation(*data, n_neighbors=1, metrics=METRICS, progress=True, cv=TimeSeriesSplit(5))
    assert "225/225" in capsys.readouterr().err  # three metrics, five folds of 15 rows
    knn_cross_validation(*data, n_neighbors=1, progress=True, cv=RepeatedKFold(n_splits=3, n_repeats=2))
    assert "180/180" in capsys.readouterr().err
    assert "linf: 100%" in shown.err
    assert shown.out == ""
    for silent in (False, None):  # None: the captured stream is no terminal
        knn_cross_validation(*data, n_neighbors=1, progress=silent)
        assert capsys.readouterr() == ("", "")


# ---------------------------------------------------------------------------------- known answers


@needs_data
@pytest.mark.needs_jit
def test_published_means_on_cifar10():
    """Mean error over many shuffles, to ±0.01 for one; and every fold exactly, for some settings."""
    cifar = datasets.load_cifar10(batches=[1])
    X, y = cifar.X_train[:5000], cifar.y_train[:5000]
    known = {1: 0.731, 2: 0.762, 3: 0.745, 5: 0.731, 7: 0.727, 10: 0.727, 15: 0.726, 20: 0.727, 25: 0.727, 30: 0.728}
    by_k = knn_cross_validation(X, y, random_state=0)
    assert by_k.n_neighbors == tuple(known)
    np.testing.assert_allclose(by_k.errors.mean(axis=2)[0], list(known.values()), rtol=0, atol=0.01)
    by_norm = knn_cross_validation(X, y, n_neighbors=7, metrics=METRICS, random_state=0)
    assert by_norm.best_params == {"metric": "l1", "n_neighbors": 7}
    assert by_norm.errors[0].mean() == pytest.approx(0.693, abs=0.01)
    splits = list(PredefinedSplit(by_k.test_fold).split())
    assert np.array_equal(by_k.scores[:, [1, 9]], fold_by_fold(X, y, splits, [2, 30], ["l2"]))
