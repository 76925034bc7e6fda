"""KNNImputer: scikit-learn's rules, scikit-learn's values, and our own promises."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from sklearn import impute as theirs
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from fastml import KNNImputer
from fastml.impute import _knn

# As scikit-learn's own: array API objects need an environment variable that SciPy reads at its first import.
SKIPPED = {"check_array_api_input"}


def rows_with_gaps(rng, n, d, share=0.3):
    """Whole numbers, whose squares scikit-learn adds up without an error, too many for ties."""
    X = rng.integers(0, 1 << 20, (n, d)).astype(float)
    X[rng.random((n, d)) < share] = np.nan
    return X


@pytest.mark.needs_jit
@pytest.mark.parametrize(
    "model",
    [KNNImputer(), KNNImputer(n_neighbors=2, weights="distance", add_indicator=True, n_jobs=2)],
    ids=["plain", "weighted"],
)
def test_scikit_learns_checks(model):
    results = check_estimator(model, on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] in ("failed", "xfail")] == []
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= SKIPPED
    assert len(results) > 40


def test_names_and_defaults_are_scikit_learns():
    expected, params = theirs.KNNImputer().get_params(), KNNImputer().get_params()
    assert params.pop("n_jobs") is None
    assert str(params) == str(expected)  # NaN is not equal to itself


@pytest.mark.parametrize("weights", ["uniform", "distance", lambda d: 1 / (1 + d)], ids=["uniform", "distance", "call"])
@pytest.mark.parametrize("k", [1, 5, 60])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.85])
def test_values_are_scikit_learns(rng, weights, k, share):
    X, new = rows_with_gaps(rng, 80, 6, share), rows_with_gaps(rng, 30, 6, share)
    X[0], X[1] = 7.0, np.nan
    ours = KNNImputer(n_neighbors=k, weights=weights).fit(X)
    peer = theirs.KNNImputer(n_neighbors=k, weights=weights).fit(X)
    for rows in (X, new):
        np.testing.assert_allclose(ours.transform(rows), peer.transform(rows), rtol=1e-12)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_means_of_large_values_stay_in_range(weights):
    large, gap = 1.7e308, np.nan
    X = np.array([[0.0, large, gap], [1.0, large, gap], [3.0, 0.5 * large, gap], [4.0, gap, gap], [gap, gap, -large]])
    found = KNNImputer(n_neighbors=2, weights=weights).fit(X).transform([[0.5, gap, 1.0], [gap, gap, -large]])
    np.testing.assert_allclose(found[:, 1], [large, 2.5 / 3 * large], rtol=1e-15)  # of neighbours, and of all
    assert np.isfinite(found).all()
    most = np.finfo(float).max
    assert KNNImputer().fit(np.full((7, 1), most)).transform([[gap]]).tolist() == [[most]]
    mixed = KNNImputer().fit([[most], [most], [-most], [-most], [5.0]]).transform([[gap]])
    assert np.isfinite(mixed).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rows_of_fractions(rng, dtype):
    X = rng.normal(size=(300, 8)).astype(dtype)
    X[rng.random(X.shape) < 1 / 3] = np.nan
    found, expected = (model.fit_transform(X) for model in (KNNImputer(), theirs.KNNImputer()))
    assert found.dtype == expected.dtype == dtype
    tolerances = {"rtol": 1e-12} if dtype == np.float64 else {"rtol": 1e-6, "atol": 1e-7}  # theirs adds in float32
    np.testing.assert_allclose(found, expected, **tolerances)


def test_another_mark_of_what_is_missing(rng):
    X = rows_with_gaps(rng, 40, 4)
    marked = np.nan_to_num(X, nan=-1)
    for mark in (-1, -1.0, np.float32(-1)):
        found = KNNImputer(missing_values=mark).fit_transform(marked)
        assert np.array_equal(found, KNNImputer().fit_transform(X))
    with pytest.raises(ValueError, match="NaN"):
        KNNImputer(missing_values=-1).fit(X)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("add_indicator", [False, True])
def test_empty_columns_and_indicators(rng, keep, add_indicator):
    X, new = rows_with_gaps(rng, 40, 4), rows_with_gaps(rng, 10, 4)
    X[:, 1], X[:, 3] = np.nan, rng.permutation(40) ** 3  # the last one has no gaps
    settings = {"keep_empty_features": keep, "add_indicator": add_indicator}
    ours, peer = KNNImputer(**settings).fit(X), theirs.KNNImputer(**settings).fit(X)
    for rows in (X, new, X[:, :] * 0 + 1, np.ones((3, 4))):
        found = ours.transform(rows)
        np.testing.assert_allclose(found, peer.transform(rows), rtol=1e-12)
        names = ours.get_feature_names_out()
        assert len(names) == found.shape[1]
    if not keep:
        assert names.tolist() == peer.get_feature_names_out().tolist()


def test_names_of_columns_and_frames(rng):
    frame = pd.DataFrame(rows_with_gaps(rng, 30, 3), columns=["a", "b", "c"])
    frame["b"] = np.nan
    model = KNNImputer(add_indicator=True).set_output(transform="pandas")
    found = model.fit_transform(frame)
    names = ["a", "c", "missingindicator_a", "missingindicator_b", "missingindicator_c"]
    assert found.columns.tolist() == names
    assert model.get_feature_names_out(["a", "b", "c"]).tolist() == names
    with pytest.raises(ValueError, match="feature names"):
        model.transform(frame[["c", "b", "a"]])
    kept = KNNImputer(keep_empty_features=True).set_output(transform="pandas").fit_transform(frame)
    assert kept.columns.tolist() == ["a", "b", "c"]
    assert (kept["b"] == 0).all()


def test_pipeline_search_clone_and_pickle(rng):
    X, y = rows_with_gaps(rng, 60, 4), rng.normal(size=60)
    search = GridSearchCV(
        make_pipeline(KNNImputer(), LinearRegression()), {"knnimputer__n_neighbors": [1, 4]}, cv=3
    ).fit(X, y)
    again = pickle.loads(pickle.dumps(search))
    assert np.array_equal(again.predict(X), search.predict(X))
    assert str(clone(search.best_estimator_[0])) == str(search.best_estimator_[0])


def test_data_are_written_into_where_that_is_asked_for(rng):
    X = rows_with_gaps(rng, 30, 3)
    before = X.copy()
    model = KNNImputer().fit(X)
    found = model.transform(X)
    assert np.array_equal(X, before, equal_nan=True)
    assert model.set_params(copy=False).transform(X) is X
    assert np.array_equal(X, found)
    before.setflags(write=False)
    assert np.array_equal(model.transform(before), found)


def test_a_value_depends_on_its_row_alone(rng, same_bits):
    X = rows_with_gaps(rng, 90, 5, 0.6) / 7
    for weights in ("uniform", "distance", lambda d: 1 / (1 + d)):
        model = KNNImputer(weights=weights).fit(X)
        whole = model.transform(X)
        for row in (0, 17, 89):
            same_bits(model.transform(X[row : row + 1]), whole[row : row + 1])
        same_bits(model.set_params(n_jobs=2).transform(X), whole)


@pytest.mark.parametrize("weights", [lambda d: -d, lambda d: d * np.nan, lambda d: d[:, 0], lambda d: 0 * d])
def test_weights_are_looked_at(rng, weights):
    X = rows_with_gaps(rng, 30, 3, 0.6)
    with pytest.raises(ValueError, match=r"weights returned|have weight 0"):
        KNNImputer(weights=weights).fit_transform(X)


def test_rows_are_taken_in_blocks(rng, monkeypatch):
    X = rows_with_gaps(rng, 50, 4)
    X[10:30] = 3.0
    expected = KNNImputer().fit_transform(X)
    monkeypatch.setattr(_knn, "_AT_ONCE", 5 * 4 * 7)
    assert np.array_equal(KNNImputer().fit_transform(X), expected)
    X[49] = [np.nan, 1.0, 2.0, 3.0]
    model = KNNImputer(n_neighbors=1, weights=lambda d: d > 0).fit([[5.0, 1.0, 2.0, 3.0]] * 2)
    with pytest.raises(ValueError, match="neighbours of row 49 have weight 0"):
        model.transform(X)


@pytest.mark.needs_jit
def test_memory_does_not_grow_with_pairs(rng):
    X = rng.normal(size=(4_000, 4))
    X[:, 0] = np.nan
    model = KNNImputer(n_jobs=1).fit(np.where(np.arange(4) == 1, np.nan, rng.normal(size=(4_000, 4))))
    model.transform(X[:10])
    tracemalloc.start()
    model.transform(X)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 4_000 * 5 * 8 * 20 < 4_000**2
