"""knn_cross_validation: the same scores as a model fitted on each fold, from one pass over the distances."""

from __future__ import annotations

import os
from contextlib import nullcontext

import numpy as np
import pytest
from matplotlib.figure import Figure
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

from fastml import KNeighborsClassifier, KNeighborsRegressor, datasets, knn_cross_validation
from fastml.kernels.distances import arguments as distances_arguments
from fastml.kernels.neighbors import nearest
from fastml.kernels.neighbors.nearest import k_nearest_outside_group
from fastml.model_selection import _knn_cross_validation

METRICS = tuple(distances_arguments.METRICS)

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


def test_metrics_that_only_searches_know_are_exact(data):
    """Rows of zeros too, which are not the same in a query and among the rows to choose from."""
    X, y = data[0].astype(np.uint8), data[1]
    X[::11] = 0
    for metrics, dtype in ((("cosine", "sqeuclidean"), np.float32), (("hamming", "jaccard"), np.uint8)):
        rows = X.astype(dtype)
        result = knn_cross_validation(rows, y, n_neighbors=[1, 5], metrics=metrics, cv=4, random_state=3)
        folds = PredefinedSplit(result.test_fold)
        assert np.array_equal(result.scores, fold_by_fold(rows, y, folds.split(), [1, 5], metrics))


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

    monkeypatch.setattr(nearest, "k_nearest_outside_group", counted)
    monkeypatch.setattr(nearest, "k_nearest", None)
    knn_cross_validation(*data, n_neighbors=[1, 5], cv=cv)
    assert len(calls) == searches


def test_default_numbers_of_neighbors_fit_the_data(data):
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


@pytest.mark.parametrize(("weights", "dtype"), [("uniform", "float32"), ("distance", "float64")])
def test_r2_of_single_rows_is_pooled(rng, weights, dtype):
    X = rng.normal(size=(40, 2))
    y = (X[:, 0] + 0.1 * rng.normal(size=40)).astype(dtype)
    one = np.r_[np.zeros(39, int), 1]
    for cv, groups in [(LeaveOneOut(), None), (KFold(39), None), (LeaveOneGroupOut(), one), (KFold(40), None)]:
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

    monkeypatch.setattr(nearest, "k_nearest_outside_group", counted)
    options = {"n_neighbors": range(1, 9), "metrics": ["l1", "l2"], "cv": KFold(10)}
    for rows in (X, np.tile(X, 400)):  # short rows, and rows so long that every distance is made once for two
        steps.clear()
        one = knn_cross_validation(rows, y, **options, n_jobs=1)
        assert sum(steps) == 2 * len(X)
        assert len(steps) > 2
        assert np.array_equal(one.scores, knn_cross_validation(rows, y, **options, n_jobs=2).scores)


@pytest.mark.parametrize("shown", [True, False])
def test_the_compiler_is_silent_under_a_bar_that_is_shown(data, monkeypatch, capsys, shown):
    silences = []
    monkeypatch.setattr(_knn_cross_validation, "silent", lambda when: nullcontext(silences.append(when)))
    knn_cross_validation(*data, progress=shown)
    assert silences == [shown]


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
