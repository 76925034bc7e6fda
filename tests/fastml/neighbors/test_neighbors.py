"""KNeighborsClassifier and KNeighborsRegressor: scikit-learn's rules, scikit-learn's answers, and our own promises."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn import neighbors as theirs
from sklearn.base import clone
from sklearn.datasets import load_digits, make_multilabel_classification
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from fastml import KNeighborsClassifier, KNeighborsRegressor, datasets
from fastml.kernels.runtime import parallel
from fastml.kernels.runtime.jit import jit_enabled
from fastml.neighbors import voting
from fastml.utils import parameters

MODELS = {KNeighborsClassifier: theirs.KNeighborsClassifier, KNeighborsRegressor: theirs.KNeighborsRegressor}
METRICS = {"l1": "manhattan", "l2": "euclidean", "linf": "chebyshev"}

# What scikit-learn skips for its own models of the same names too: array API objects need an environment variable
# that SciPy reads at its first import, and neighbours have no decision function.
SKIPPED = {"check_array_api_input", "check_classifiers_multilabel_output_format_decision_function"}

needs_data = pytest.mark.skipif("FASTML_DATA" not in os.environ, reason="FASTML_DATA is not set")


@pytest.fixture
def data(rng):
    """Training and test rows without ties, and labels."""
    X, y = rng.normal(size=(150, 6)), rng.integers(0, 4, 150)
    return X[:110], y[:110], X[110:], y[110:]


# ------------------------------------------------------------------------------- scikit-learn's rules


@pytest.mark.needs_jit
@pytest.mark.parametrize(
    "model",
    [
        KNeighborsClassifier(),
        # Five neighbours: one check has no more rows, and of fewer too often none has the label that another weighs.
        KNeighborsClassifier(5, weights="distance", metric="l1", n_jobs=2, class_weight="balanced"),
        KNeighborsRegressor(),
        KNeighborsRegressor(3, weights="distance", p=np.inf, n_jobs=-1),
    ],
    ids=repr,
)
def test_scikit_learns_checks(model):
    results = check_estimator(model, on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] in ("failed", "xfail")] == []
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= SKIPPED
    assert len(results) > 40
    passed = {r["check_name"] for r in results if r["status"] == "passed"}
    assert "check_sample_weight_equivalence_on_dense_data" in passed


class OffByOne(KNeighborsClassifier):
    def predict(self, X):
        return np.roll(super().predict(X), 1)


@pytest.mark.needs_jit
def test_scikit_learns_checks_find_a_wrong_model():
    results = check_estimator(OffByOne(), on_fail=None, on_skip=None)
    assert "failed" in {r["status"] for r in results}


@pytest.mark.parametrize("ours", MODELS)
def test_names_and_defaults_are_scikit_learns(ours):
    expected = MODELS[ours]().get_params()
    params = ours().get_params()
    assert params.pop("class_weight", None) is None  # ours alone
    assert params == expected


def test_pipeline_grid_search_clone_and_pickle(data):
    X, y, X_test, y_test = data
    pipeline = make_pipeline(StandardScaler(), KNeighborsClassifier())
    grid = {"kneighborsclassifier__n_neighbors": [1, 5], "kneighborsclassifier__p": [1, 2, np.inf]}
    search = GridSearchCV(pipeline, grid, cv=3).fit(X, y)
    peer = make_pipeline(StandardScaler(), theirs.KNeighborsClassifier(algorithm="brute"))
    expected = GridSearchCV(peer, grid, cv=3).fit(X, y)
    assert np.array_equal(search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])
    assert search.score(X_test, y_test) == expected.score(X_test, y_test)

    model = search.best_estimator_[-1]
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(X_test)
    again = pickle.loads(pickle.dumps(search))
    assert np.array_equal(again.predict(X_test), search.predict(X_test))


def test_pandas_and_set_output(data):
    X, y, X_test, _ = data
    names = [f"column {i}" for i in range(X.shape[1])]
    frame, labels = pd.DataFrame(X, columns=names), pd.Series(y).map({0: "a", 1: "b", 2: "c", 3: "d"})
    model = KNeighborsClassifier().fit(frame, labels)
    assert model.feature_names_in_.tolist() == names
    assert model.n_features_in_ == len(names)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(pd.DataFrame(X_test, columns=names[::-1]))
    pipeline = make_pipeline(StandardScaler(), KNeighborsClassifier()).set_output(transform="pandas")
    pipeline.fit(frame, labels)
    assert pipeline[-1].feature_names_in_.tolist() == names
    plain = make_pipeline(StandardScaler(), KNeighborsClassifier()).fit(X, labels.to_numpy())
    assert np.array_equal(pipeline.predict(pd.DataFrame(X_test, columns=names)), plain.predict(X_test))


# ----------------------------------------------------------------------------- scikit-learn's answers


@pytest.mark.parametrize(
    "weights", ["uniform", "distance", lambda d: np.exp(-d), None], ids=["uniform", "distance", "callable", "None"]
)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("outputs", [1, 2])
def test_predictions_are_scikit_learns(data, metric, weights, outputs):
    X, y, X_test, _ = data
    if outputs == 2:
        y = np.stack([y, y[::-1] % 2], axis=1)
    for ours, peer in MODELS.items():
        model = ours(7, metric=metric, weights=weights).fit(X, y)
        expected = peer(7, metric=METRICS[metric], weights=weights, algorithm="brute").fit(X, y)
        predicted = model.predict(X_test)
        assert predicted.shape == expected.predict(X_test).shape
        np.testing.assert_allclose(predicted, expected.predict(X_test), rtol=1e-12)
        if ours is KNeighborsRegressor or outputs == 1:  # accuracy of several outputs is not defined
            assert model.score(X_test, y[:40]) == pytest.approx(expected.score(X_test, y[:40]), rel=1e-12)
        if ours is KNeighborsClassifier:
            for name in ("classes_", "predict_proba"):
                ours_, theirs_ = (getattr(m, name) for m in (model, expected))
                if callable(ours_):
                    ours_, theirs_ = ours_(X_test), theirs_(X_test)
                assert isinstance(ours_, list) == (outputs == 2)
                for a, b in zip(ours_, theirs_, strict=True):
                    np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize(
    ("params", "short"),
    [
        ({}, "l2"),
        ({"p": 1}, "l1"),
        ({"p": 2.0}, "l2"),
        ({"p": float("inf")}, "linf"),
        ({"metric": "cityblock"}, "l1"),
        ({"metric": "manhattan", "p": 2}, "l1"),
        ({"metric": "euclidean", "p": 1}, "l2"),
        ({"metric": "chebyshev"}, "linf"),
        ({"metric": "linf"}, "linf"),
    ],
)
def test_names_of_metrics(data, params, short):
    X, y, X_test, _ = data
    model = KNeighborsClassifier(**params).fit(X, y)
    peer = theirs.NearestNeighbors(metric=METRICS[short], algorithm="brute").fit(X)
    assert model.effective_metric_ == METRICS[short]
    assert np.array_equal(model.kneighbors(X_test, 4, return_distance=False), peer.kneighbors(X_test, 4)[1])


@pytest.mark.parametrize("X_test", ["others", None])
def test_neighbors_and_graph_are_scikit_learns(data, X_test):
    X, y, others, _ = data
    X_test = others if X_test else None
    model = KNeighborsRegressor(4).fit(X, y)
    peer = theirs.KNeighborsRegressor(4, algorithm="brute").fit(X, y)
    for k in (None, 9):
        distances, indices = model.kneighbors(X_test, k)
        expected = peer.kneighbors(X_test, k)
        np.testing.assert_allclose(distances, expected[0], rtol=1e-12)
        assert np.array_equal(indices, expected[1])
        for mode in ("connectivity", "distance"):
            graph = model.kneighbors_graph(X_test, k, mode)
            np.testing.assert_allclose(
                graph.toarray(), peer.kneighbors_graph(X_test, k, mode).toarray(), rtol=1e-12, atol=0
            )
    with pytest.raises(ValueError, match="mode is 'both'"):
        model.kneighbors_graph(mode="both")


# ------------------------------------------------------------------------------------ our promises


def test_of_labels_with_equal_votes_the_smallest_wins():
    X = np.array([[-1.0], [1.0], [-2.0], [2.0]])
    for labels in ([7, 3, 3, 7], ["b", "a", "a", "b"], [True, False, False, True], [2.0, -1.0, -1.0, 2.0]):
        for k in (2, 4):
            assert KNeighborsClassifier(k).fit(X, labels).predict([[0.0]])[0] == min(labels)


def test_labels_with_fractions_are_refused():
    with pytest.raises(ValueError, match="Unknown label type"):
        KNeighborsClassifier(1).fit([[0.0], [1.0]], [0.5, 1.5])


def test_of_equal_distances_the_earlier_row_wins():
    X = np.array([[1.0], [-1.0], [1.0]])
    assert KNeighborsClassifier(1).fit(X, ["second", "first", "third"]).predict([[0.0]]) == ["second"]
    assert KNeighborsRegressor(2).fit(X, [10, 20, 60]).predict([[0.0]]) == [15]


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_rows_are_neither_copied_nor_converted(rng, dtype):
    X = rng.integers(0, 256, (60, 5)).astype(dtype)
    model = KNeighborsClassifier(3).fit(X, np.arange(60) % 3)
    assert model._fit_X.dtype == dtype
    assert np.shares_memory(model._fit_X, X)
    X.setflags(write=False)
    model.fit(X, np.arange(60) % 3).predict(X)
    columns_first = np.asfortranarray(X)
    assert model.fit(columns_first, np.arange(60) % 3)._fit_X.flags.c_contiguous


def test_every_algorithm_finds_the_same(rng):
    X, y, queries = rng.random((300, 3)), rng.random(300), rng.random((40, 3))
    want = KNeighborsRegressor(4).fit(X, y).predict(queries)
    for algorithm in ("auto", "brute", "kd_tree", "ball_tree"):
        model = KNeighborsRegressor(4, algorithm=algorithm).fit(X, y)
        assert np.array_equal(model.predict(queries), want)
        assert np.array_equal(model.predict(None), KNeighborsRegressor(4).fit(X, y).predict(None))
    for wrong in ("tree", "KD_TREE", None, 3):
        with pytest.raises(ValueError, match=r"algorithm is .*; it must be one of 'auto', 'brute', 'kd_tree'"):
            KNeighborsRegressor(algorithm=wrong).fit(X, y)


@pytest.mark.parametrize("algorithm", ["kd_tree", "auto"])
def test_a_tree_is_kept_and_not_pickled(rng, algorithm):
    """Not made by `fit`; by "auto" when all queries so far repay it; gone with a new `fit`."""
    X = rng.random((40_000 if jit_enabled() else 100, 2))
    model = KNeighborsRegressor(3, algorithm=algorithm).fit(X, X[:, 0])
    size = len(pickle.dumps(model))
    kept = []
    for _ in range(4):
        before = dict(vars(model))
        found = model.predict(X[:300])
        assert vars(model) == before
        kept.append(": tree" in repr(model._kept.prepared(model._fit_X)))
    assert kept == ([True] * 4 if algorithm == "kd_tree" else [False, jit_enabled(), jit_enabled(), jit_enabled()])
    assert len(pickle.dumps(model)) == size
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(X[:300]), found)
    model.fit(X[::2], X[::2, 0])
    assert "nothing else" in repr(model._kept.prepared(model._fit_X))


def test_uint8_is_exact(rng):
    X, X_test = rng.integers(0, 256, (2, 80, 30), dtype=np.uint8)
    model = KNeighborsRegressor(80, metric="l1").fit(X, np.zeros(80))
    distances, indices = model.kneighbors(X_test)
    assert distances.dtype == np.int32
    exact = np.abs(X_test[:, np.newaxis].astype(int) - X).sum(axis=2)
    assert np.array_equal(distances, np.sort(exact, axis=1))
    assert np.array_equal(indices, np.argsort(exact, axis=1, kind="stable"))
    for metric in METRICS:
        y = rng.normal(size=80)
        for weights in ("uniform", "distance", lambda d: d**-2.0 if d.dtype == np.float64 else None):
            small = KNeighborsRegressor(metric=metric, weights=weights).fit(X, y)
            large = KNeighborsRegressor(metric=metric, weights=weights).fit(X.astype(float), y)
            np.testing.assert_allclose(small.predict(X_test), large.predict(X_test), rtol=1e-6, atol=1e-6)


def test_rows_and_queries_of_different_dtypes(data):
    X, y, X_test, _ = data
    X, X_test = np.rint(X * 10 + 128), np.rint(X_test * 10 + 128)
    expected = KNeighborsClassifier().fit(X, y).predict_proba(X_test)
    for dtype in ("uint8", "float16", "float32", "int64", "float64", ">f8"):
        for other in ("uint8", "float32", "float64"):
            found = KNeighborsClassifier().fit(X.astype(dtype), y).predict_proba(X_test.astype(other))
            assert np.array_equal(found, expected)


def test_at_distance_zero_only_those_neighbors_count():
    X = np.array([[0.0], [0.0], [1.0], [5.0]])
    model = KNeighborsRegressor(4, weights="distance").fit(X, [1.0, 3.0, 100.0, 1000.0])
    assert model.predict([[0.0]]) == [2.0]
    vote = KNeighborsClassifier(4, weights="distance").fit(X, [2, 1, 0, 0])
    assert vote.predict_proba([[0.0]]).tolist() == [[0, 0.5, 0.5]]
    assert vote.predict([[0.0]]) == [1]


def test_weights_are_looked_at(data):
    X, y, X_test, _ = data
    for model in MODELS:
        with pytest.raises(ValueError, match="all neighbours of row 0 have weight 0"):
            model(weights=np.zeros_like).fit(X, y).predict(X_test)
        with pytest.raises(ValueError, match=r"weights returned shape \(40,\) for distances of shape \(40, 5\)"):
            model(weights=lambda d: d[:, 0]).fit(X, y).predict(X_test)
        with pytest.raises(TypeError, match=r"weights\(distances\) has dtype complex128; real numbers are needed"):
            model(weights=lambda d: d * 1j).fit(X, y).predict(X_test)
        with pytest.raises(TypeError, match=r"weights\(distances\) is a masked array"):
            model(weights=lambda d: np.ma.masked_less(d, 1)).fit(X, y).predict(X_test)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("weights", "came"),
    [("far", "'far'"), (np.ones(4), "of type ndarray"), (pd.Series([1.0]), "of type Series"), ([1.0], "of type list")],
    ids=str,
)
def test_weights_that_are_none_are_named(model, weights, came):
    with pytest.raises(ValueError, match=f"weights is {came}; it must be 'uniform', 'distance', a callable or None"):
        model(2, weights=weights).fit([[0.0], [1.0]], [0, 1])


@pytest.mark.parametrize("bad", [np.nan, -1.0, -np.inf, -1e-300])
@pytest.mark.parametrize(
    ("model", "method"),
    [(KNeighborsClassifier, "predict"), (KNeighborsClassifier, "predict_proba"), (KNeighborsRegressor, "predict")],
)
def test_weights_that_cannot_be_are_refused_by_row(model, method, bad):
    def weights(distances):
        return np.where(distances == 2.0, bad, 1.0)

    fitted = model(2, weights=weights).fit([[0.0], [1.0], [9.0]], [0, 1, 1])
    assert len(getattr(fitted, method)([[0.5]])) == 1
    with pytest.raises(ValueError, match=f"weights returned {bad} for the distance 2.0 of row 1; a weight must be"):
        getattr(fitted, method)([[0.5], [11.0], [11.0]])


def test_infinite_weights_count_alone():
    X, queries = [[0.0], [0.0], [1.0], [2.0]], [[0.0], [0.5], [2.0]]

    def inverse_square(distances):
        return 1 / distances**2

    vote = KNeighborsClassifier(4, weights=inverse_square).fit(X, ["b", "c", "a", "a"])
    near = 4 / (3 * 4 + 4 / 9)
    expected = [[0, 0.5, 0.5], [near + near / 9, near, near], [1, 0, 0]]
    np.testing.assert_allclose(vote.predict_proba(queries), expected, rtol=1e-15)
    assert vote.predict(queries).tolist() == ["b", "a", "a"]
    for y in ([1.0, 3.0, 100.0, 7.0], [[1.0], [3.0], [100.0], [7.0]]):
        mean = KNeighborsRegressor(4, weights=inverse_square).fit(X, y)
        assert mean.predict([[0.0], [2.0]]).ravel().tolist() == [2.0, 7.0]
    everywhere = KNeighborsRegressor(2, weights=lambda d: np.full(d.shape, np.inf)).fit(X, [1.0, 3.0, 5.0, 7.0])
    assert everywhere.predict([[1.6]]) == [6.0]


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-308, 1e-160, 1.0, 1e160, 1e307])
@pytest.mark.parametrize("weights", ["distance", lambda d: d], ids=["distance", "callable"])
@pytest.mark.parametrize("size", [1e-290, 1.0, 1e300])
def test_weights_stay_in_range(scale, weights, size):
    """Neither the weights nor their products with targets overflow or vanish, whatever the unit of distances."""
    X = np.array([[0.0], [6.0]]) * scale
    model = KNeighborsRegressor(2, weights=weights, p=1).fit(X, [size, 4 * size])
    share = 2 / 3 if weights == "distance" else 1 / 3
    assert model.predict([[2.0 * scale]]) == pytest.approx([share * size + (1 - share) * 4 * size], rel=1e-15)
    vote = KNeighborsClassifier(2, weights=weights, p=1).fit(X, [0, 1])
    assert vote.predict_proba([[2.0 * scale]])[0, 0] == pytest.approx(share, rel=1e-15)


@pytest.mark.parametrize("weights", ["distance", lambda d: 1 / d], ids=["distance", "callable"])
def test_a_neighbor_next_to_one_at_distance_zero_does_not_count(weights):
    """Neither where its own inverse distance overflows, except for a function that says infinity itself."""
    model = KNeighborsRegressor(3, weights=weights, p=1).fit([[0.0], [1e-150], [5.0]], [1.0, 2.0, 3.0])
    assert model.predict([[0.0]]) == [1.0]
    tiny = KNeighborsRegressor(3, weights=weights, p=1).fit([[0.0], [1e-320], [5.0]], [1.0, 2.0, 3.0])
    assert tiny.predict([[0.0]]) == [1.0 if weights == "distance" else 1.5]


def test_means_of_large_targets_stay_in_range(rng, same_bits):
    X, most = rng.normal(size=(60, 3)), np.finfo(float).max
    y = np.column_stack([np.where(X[:, 0] > 0, most, 1e300), rng.normal(size=60)])
    for weights in ("uniform", "distance", lambda d: 1 + d):
        model = KNeighborsRegressor(5, weights=weights).fit(X, y)
        found = model.predict(X + 0.01)
        scaled = KNeighborsRegressor(5, weights=weights).fit(X, y * 2.0**-9).predict(X + 0.01)
        np.testing.assert_allclose(found * 2.0**-9, scaled, rtol=1e-15)
        assert found.max() > 1.79e308
        same_bits(found, np.concatenate([model.predict(row[np.newaxis] + 0.01) for row in X]))


def test_distance_weights_are_exactly_inverse_distances(rng, same_bits):
    """Scaling by powers of two keeps every bit of the plain formula."""
    X, y, queries = rng.normal(size=(60, 3)), rng.normal(size=60), rng.normal(size=(30, 3))
    model = KNeighborsRegressor(9, weights="distance").fit(X, y)
    distances, neighbors = model.kneighbors(queries)
    inverse, total, sums = 1 / distances, np.zeros(30), np.zeros(30)
    for rank in range(9):
        total += y[neighbors[:, rank]] * inverse[:, rank]
        sums += inverse[:, rank]
    same_bits(model.predict(queries), total / sums)
    same_bits(KNeighborsRegressor(9, weights=lambda d: 1 / d).fit(X, y).predict(queries), total / sums)


@pytest.mark.parametrize("model", MODELS)
def test_without_queries_each_row_is_predicted_from_the_others(rng, model):
    X = rng.integers(0, 3, (40, 2)).astype(float)  # with duplicates
    y = rng.integers(0, 3, 40)
    fitted = model(3).fit(X, y)
    others = [np.delete(np.arange(40), i) for i in range(40)]
    expected = [model(3).fit(X[rows], y[rows]).predict(X[[i]])[0] for i, rows in enumerate(others)]
    assert np.array_equal(fitted.predict(None), expected)
    assert fitted.score(None, fitted.predict(None)) == 1
    assert (fitted.kneighbors()[1] != np.arange(40)[:, np.newaxis]).all()


def test_a_prediction_depends_on_its_row_alone(data, same_bits):
    X, y, X_test, _ = data
    for weights in ("uniform", "distance"):
        model = KNeighborsRegressor(9, weights=weights).fit(X, y * 0.1)
        together = model.predict(X_test)
        same_bits(np.concatenate([model.predict(row[np.newaxis]) for row in X_test]), together)
        same_bits(model.predict(X_test[::-1])[::-1], together)
        for n_jobs in (1, 2, 3, -1):
            same_bits(model.set_params(n_jobs=n_jobs).predict(X_test), together)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"n_neighbors": 0}, ValueError, "n_neighbors is 0; it must be a positive integer"),
        ({"n_neighbors": 2.0}, TypeError, r"n_neighbors is 2.0 \(float\)"),
        ({"n_neighbors": True}, TypeError, r"n_neighbors is True \(bool\)"),
        ({"metric": "canberra"}, ValueError, "metric is 'canberra'; it must be one of 'minkowski', 'l1'"),
        ({"metric": 2}, TypeError, "metric is 2; it must be one of 'minkowski'"),
        ({"metric": np.array(["l1", "l2"])}, TypeError, "metric is array"),
        ({"p": np.array([1, 2])}, ValueError, r"p is array\(\[1, 2\]\); it must be 1, 2 or infinity"),
        ({"p": 3}, ValueError, "p is 3; it must be 1, 2 or infinity"),
        ({"n_jobs": 0}, ValueError, "n_jobs is 0"),
        ({"n_jobs": 1.5}, TypeError, r"n_jobs is 1.5 \(float\)"),
    ],
)
def test_wrong_parameters_are_named(data, params, error, message):
    X, y, _, _ = data
    for model in MODELS:
        with pytest.raises(error, match=message):
            model(**params).fit(X, y)


def test_more_neighbors_than_rows(data):
    X, y, X_test, _ = data
    model = KNeighborsClassifier(110).fit(X, y)
    assert model.kneighbors(X_test)[1].shape == (40, 110)
    with pytest.raises(ValueError, match="n_neighbors is 110; there are 110 training rows, of which each query"):
        model.kneighbors()
    with pytest.raises(ValueError, match=r"n_neighbors is 111; there are 110 training rows$"):
        model.kneighbors(X_test, 111)


def test_a_column_of_targets_is_what_it_is_in_scikit_learn(data):
    """Labels become 1-D with a warning; numbers stay a column, so that residuals are one too."""
    X, y, X_test, _ = data
    with pytest.warns(DataConversionWarning, match="1d array was expected"):
        labels = KNeighborsClassifier().fit(X, y[:, np.newaxis])
    assert labels.outputs_2d_ is False
    assert np.array_equal(labels.predict(X_test), KNeighborsClassifier().fit(X, y).predict(X_test))
    for weights in ("uniform", "distance"):
        peer = theirs.KNeighborsRegressor(weights=weights, algorithm="brute").fit(X, y[:, np.newaxis])
        for column in (y[:, np.newaxis], y[:, np.newaxis].tolist(), pd.DataFrame({"target": y})):
            numbers = KNeighborsRegressor(weights=weights).fit(X, column)
            assert numbers.outputs_2d_ is True
            assert numbers.predict(X_test).shape == peer.predict(X_test).shape == (40, 1)
            flat = KNeighborsRegressor(weights=weights).fit(X, y).predict(X_test)
            assert np.array_equal(numbers.predict(X_test)[:, 0], flat)
            np.testing.assert_allclose(numbers.predict(X_test), peer.predict(X_test), rtol=1e-12)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "lil", "dok", "bsr"])
@pytest.mark.parametrize("suffix", ["matrix", "array"])
@pytest.mark.parametrize("model", MODELS)
def test_sparse_targets_are_dense_ones(data, model, kind, suffix):
    X, _, X_test, _ = data
    Y = make_multilabel_classification(len(X), n_classes=4, random_state=0)[1]
    sparse = getattr(scipy.sparse, f"{kind}_{suffix}")(Y)
    expected = model(3).fit(X, Y)
    found = model(3).fit(X, sparse)
    assert np.array_equal(found.predict(X_test), expected.predict(X_test))
    assert found.predict(X_test).shape == (40, 4)
    if model is KNeighborsClassifier:
        assert found.score(X, sparse) == expected.score(X, Y)
    with pytest.raises(ValueError, match="Input y contains NaN"):
        model().fit(X, getattr(scipy.sparse, f"{kind}_{suffix}")(np.where(Y, np.nan, 0.0)))


def test_strings_of_variable_width_are_labels():
    labels = np.array(["pear", "fig", "fig", "quince"], np.dtypes.StringDType())
    model = KNeighborsClassifier(1).fit([[0.0], [1.0], [2.0], [3.0]], labels)
    assert model.classes_.tolist() == ["fig", "pear", "quince"]
    assert model.predict([[2.9], [0.1]]).tolist() == ["quince", "pear"]


def test_none_is_no_number():
    for y in ([1.0, None, 3.0], [[1.0], [None], [3.0]]):
        with pytest.raises(ValueError, match="is None; numbers must not be missing"):
            KNeighborsRegressor(1).fit([[0.0], [1.0], [2.0]], np.array(y, object))


def by_dense_votes(model, codes, X_test):
    """Winners and shares from one row of votes for all classes, as plain as can be."""
    distances, neighbors = model.kneighbors(X_test)
    votes = np.zeros((len(neighbors), codes.max() + 1))
    for row, (d, places) in enumerate(zip(distances, neighbors, strict=True)):
        for distance, place in zip(d, places, strict=True):
            votes[row, codes[place]] += 1.0 if model.weights == "uniform" else 1 / distance
    return votes.argmax(axis=1), votes / votes.sum(axis=1, keepdims=True)


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("k", [1, pytest.param(2, marks=pytest.mark.needs_jit), 7])
@pytest.mark.parametrize("n_classes", [2, *(pytest.param(n, marks=pytest.mark.needs_jit) for n in (40, 400)), 2000])
def test_many_classes_are_counted_as_few(rng, monkeypatch, n_classes, k, weights):
    """Ties in votes, several blocks of rows, and classes so many that only the neighbours' own are counted."""
    monkeypatch.setattr(voting, "_AT_ONCE", 1 << 10)
    X, X_test = rng.integers(0, 40, (2000, 2)).astype(float), rng.integers(0, 40, (300, 2)) + 0.25
    codes = rng.permutation(np.arange(2000) % n_classes)
    model = KNeighborsClassifier(k, weights=weights).fit(X, codes * 10)
    winners, shares = by_dense_votes(model, codes, X_test)
    assert np.array_equal(model.predict(X_test), winners * 10)
    assert np.array_equal(model.predict_proba(X_test), shares)
    several = KNeighborsClassifier(k, weights=weights).fit(X, np.stack([codes, codes % 2], axis=1))
    assert np.array_equal(several.predict(X_test)[:, 0], winners)
    assert np.array_equal(several.predict_proba(X_test)[0], shares)


def peak_of(function, *args):
    tracemalloc.start()
    try:
        function(*args)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.needs_jit
@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_memory_does_not_grow_with_rows_times_classes(rng, weights):
    X = rng.normal(size=(2000, 3))
    model = KNeighborsClassifier(3, weights=weights).fit(X, np.arange(2000) * 2)
    model.predict(X)
    full = 8 * 2000 * 2000  # one number for each row and class
    assert peak_of(model.predict, X) < full / 10
    assert peak_of(model.predict_proba, X) < 1.2 * full  # its result
    several = KNeighborsRegressor(50, weights=weights).fit(X, rng.normal(size=(2000, 40)))
    several.predict(X)  # what it compiles takes memory too
    assert peak_of(several.predict, X) < 8 * 2000 * 40 * 10  # of two threads; not 50 times the result


def test_threads_of_n_jobs(monkeypatch):
    monkeypatch.setattr(parallel, "default", lambda: (4, "this test"))
    found = [parameters.threads(n_jobs) for n_jobs in (None, 1, np.int64(7), -1, -2, -4, -9)]
    assert found == [None, 1, 7, 4, 3, 1, 1]


def test_scikit_learn_is_loaded_by_a_model_and_not_before(tmp_path):
    code = """
        import sys, fastml, fastml.plot, fastml.kernels
        assert "sklearn" not in sys.modules and "matplotlib" not in sys.modules
        fastml.KNeighborsClassifier
        assert "sklearn" in sys.modules and "matplotlib" not in sys.modules
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, env=environment, check=True)


# ---------------------------------------------------------------------------------- known answers


@pytest.mark.needs_jit
def test_the_score_on_digits_is_scikit_learns():
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.uint8)
    score = KNeighborsClassifier(3).fit(X[:1500], y[:1500]).score(X[1500:], y[1500:])
    assert score == theirs.KNeighborsClassifier(3).fit(X[:1500], y[:1500]).score(X[1500:], y[1500:])


@needs_data
@pytest.mark.needs_jit
@pytest.mark.slow
def test_one_neighbor_makes_309_errors_on_mnist():
    mnist = datasets.load_mnist()
    model = KNeighborsClassifier(1).fit(mnist.X_train, mnist.y_train)
    assert np.shares_memory(model._fit_X, mnist.X_train)
    assert (model.predict(mnist.X_test) != mnist.y_test).sum() == 309
