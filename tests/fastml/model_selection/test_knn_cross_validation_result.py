"""What knn_cross_validation returns: table, text, plots, progress."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.model_selection import (
    KFold,
    LeaveOneOut,
    PredefinedSplit,
    RepeatedKFold,
    TimeSeriesSplit,
    cross_val_predict,
)

from fastml import KNeighborsClassifier, knn_cross_validation, model_selection
from fastml.kernels.distances import arguments as distances_arguments

METRICS = tuple(distances_arguments.METRICS)


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
