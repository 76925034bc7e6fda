"""knn_cross_validation: targets, and what is refused."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.model_selection import (
    KFold,
)

from fastml import knn_cross_validation

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
        (np.zeros((90, 2, 2)), ValueError, "Found array with dim 3"),
        (csr_matrix(np.eye(90, 2)), TypeError, r"y is sparse \(csr_matrix\); pass a dense array"),
        (None, ValueError, "y is None"),
        (np.array(["a", None] * 45, object), ValueError, r"y\[1\] is None; labels must not be missing"),
        (np.array(["a", 2] * 45, object), TypeError, r"y holds objects \(int and str\)"),
    ],
    ids=["cube", "sparse", "None", "no label", "objects"],
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
        ({"metrics": ["l2", "canberra"]}, ValueError, "metric is 'canberra'; it must be one of 'minkowski', 'l1'"),
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
