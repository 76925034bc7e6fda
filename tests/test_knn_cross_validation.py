"""knn_cross_validation: the same scores as a model fitted on each fold, from one pass over the distances."""

from __future__ import annotations

import os
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneOut,
    PredefinedSplit,
    RepeatedKFold,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
)

from fastml import KNeighborsClassifier, KNeighborsRegressor, datasets, knn_cross_validation, model_selection
from fastml.kernels import k_nearest
from fastml.kernels.neighbors import _k_nearest_outside_group, _nearest
from fastml.kernels.reference import vectorized

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

        return _k_nearest_outside_group(*args, progress=told, **kwargs)

    monkeypatch.setattr(model_selection, "_k_nearest_outside_group", counted)
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
        _k_nearest_outside_group(X, own, 7, metric="l1"),
        k_nearest(X, X, 7, metric="l1", exclude_self=True),
        strict=True,
    ):
        assert np.array_equal(found, expected)


# --------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (PredefinedSplit([-1, *[0] * 40, *[1] * 49]), "row 0 is in no test sets of cv; every row must be in exactly"),
        (TimeSeriesSplit(4), r"fold 0 of cv neither trains on nor tests row \d+; it must train on all rows but its"),
        (ShuffleSplit(20, random_state=0), r"row \d+ is in \d+ test sets of cv"),
        (RepeatedKFold(n_splits=3, n_repeats=2), "row 0 is in 2 test sets"),
        ([(np.arange(31, 90), np.arange(30)), (np.arange(30), np.arange(30, 90))], "fold 0 of cv neither .* row 30;"),
        ([(np.arange(20, 90), np.arange(30)), (np.arange(30), np.arange(30, 90))], "fold 0 of cv has row 20 twice;"),
        ("five", "cv"),
    ],
    ids=str,
)
def test_folds_that_one_pass_cannot_serve(data, cv, message):
    with pytest.raises(ValueError, match=message):
        knn_cross_validation(*data, n_neighbors=1, cv=cv)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_neighbors": []}, ValueError, "n_neighbors is empty"),
        ({"metrics": []}, ValueError, "metrics is empty"),
        ({"n_neighbors": [3, 0]}, ValueError, "n_neighbors is 0; it must be a positive integer"),
        ({"n_neighbors": 2.0}, TypeError, r"n_neighbors is 2.0 \(float\)"),
        ({"n_neighbors": [1, 73]}, ValueError, "n_neighbors is 73; the smallest training set has 72 rows"),
        ({"metrics": ["l2", "cosine"]}, ValueError, "metric is 'cosine'"),
        ({"metrics": [2]}, TypeError, "metric is a int"),
        ({"weights": "far"}, ValueError, "weights is 'far'"),
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


def test_a_setting_without_a_score_is_not_the_best(rng):
    """R² of a single row is not defined."""
    X, y = rng.normal(size=(6, 2)), rng.normal(size=6)
    cv = [(np.arange(1, 6), [0]), ([0], np.arange(1, 6))]
    with pytest.warns(UserWarning, match="not well-defined"):
        undefined = knn_cross_validation(X, y, n_neighbors=1, metrics=["l1", "l2"], cv=cv)
    assert np.isnan(undefined.scores[..., 0]).all()
    assert undefined.best_index == (0, 0)
    scores = np.array([[[np.nan, 1.0]], [[0.5, 0.5]]])
    partly = model_selection.KNNCrossValidation("regression", ("l1", "l2"), (1,), scores, undefined.test_fold)
    assert partly.best_params == {"metric": "l2", "n_neighbors": 1}


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
