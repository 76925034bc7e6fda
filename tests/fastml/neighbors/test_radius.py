"""Models of the neighbours within a radius: scikit-learn's rules, scikit-learn's answers, and our own promises."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn import neighbors as theirs
from sklearn.base import clone
from sklearn.cluster import DBSCAN
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from fastml import RadiusNeighborsClassifier, RadiusNeighborsRegressor
from fastml.neighbors import RadiusNeighborsTransformer, _radius

MODELS = {
    RadiusNeighborsClassifier: theirs.RadiusNeighborsClassifier,
    RadiusNeighborsRegressor: theirs.RadiusNeighborsRegressor,
    RadiusNeighborsTransformer: theirs.RadiusNeighborsTransformer,
}
METRICS = ("manhattan", "euclidean", "chebyshev")


def inverse_square(distances):
    """Weigh each query's neighbours, as scikit-learn's tests do."""
    with np.errstate(divide="ignore"):
        return (1.0 / distances) ** 2


WEIGHTS = (None, "uniform", "distance", inverse_square)


@pytest.fixture
def data(rng):
    """Training and test rows, of which each has some neighbours within 2 and not all."""
    X, y = rng.normal(size=(150, 3)), rng.integers(0, 4, 150)
    X[0] = 0
    X[120] = 0
    return X[:110], y[:110], X[110:], y[110:]


@pytest.mark.needs_jit
@pytest.mark.parametrize(
    "model",
    [
        RadiusNeighborsClassifier(),
        RadiusNeighborsClassifier(3.0, weights="distance", outlier_label="most_frequent", metric="l1", n_jobs=2),
        RadiusNeighborsRegressor(),
        RadiusNeighborsRegressor(50.0, weights="distance", p=np.inf),
        RadiusNeighborsTransformer(),
        RadiusNeighborsTransformer(mode="connectivity", radius=9.0),
    ],
    ids=repr,
)
def test_scikit_learns_checks(model):
    results = check_estimator(model, on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] in ("failed", "xfail")] == []
    skipped = {"check_array_api_input", "check_classifiers_multilabel_output_format_decision_function"}
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= skipped
    assert len(results) > 40


@pytest.mark.parametrize("ours", MODELS)
def test_names_and_defaults_are_scikit_learns(ours):
    expected, params = MODELS[ours]().get_params(), ours().get_params()
    assert params == expected


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("queries", ["others", "the training rows"])
def test_neighbors_are_scikit_learns(data, metric, queries):
    X, y, X_test, _ = data
    X_test = X_test if queries == "others" else None
    ours = RadiusNeighborsRegressor(1.5, metric=metric).fit(X, y)
    peer = theirs.RadiusNeighborsRegressor(1.5, metric=metric, algorithm="brute").fit(X, y)
    for radius in (None, 0.7):
        got, want = (model.radius_neighbors(X_test, radius, sort_results=True) for model in (ours, peer))
        for one, two in zip(got, want, strict=True):
            assert one.shape == two.shape
            assert one.dtype == object
            for a, b in zip(one, two, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-7)
        indices = ours.radius_neighbors(X_test, radius, return_distance=False)
        assert all(np.array_equal(a, b) for a, b in zip(indices, got[1], strict=True))
        for mode in ("connectivity", "distance"):
            graphs = [model.radius_neighbors_graph(X_test, radius, mode=mode) for model in (ours, peer)]
            assert graphs[0].shape == graphs[1].shape
            assert graphs[0].nnz == graphs[1].nnz
            np.testing.assert_allclose(graphs[0].toarray(), graphs[1].toarray(), rtol=1e-12, atol=1e-7)


def test_a_radius_for_each_query(data):
    X, y, X_test, _ = data
    model = RadiusNeighborsRegressor().fit(X, y)
    radii = np.linspace(0, 3, len(X_test))
    distances, indices = model.radius_neighbors(X_test, radii)
    for i, radius in enumerate(radii):
        own = model.radius_neighbors(X_test[i : i + 1], radius)
        assert np.array_equal(indices[i], own[1][0])
        assert np.array_equal(distances[i], own[0][0])


@pytest.mark.parametrize("weights", WEIGHTS, ids=["none", "uniform", "distance", "function"])
@pytest.mark.parametrize("metric", METRICS)
def test_predictions_are_scikit_learns(data, metric, weights):
    X, y, X_test, y_test = data
    options = {"radius": 2.0, "weights": weights, "metric": metric}
    two, numbers = np.stack([y, y % 2], axis=1), np.stack([y, y * 0.3], axis=1)
    inside = theirs.RadiusNeighborsRegressor(**options).fit(X, y).radius_neighbors_graph(X_test).getnnz(axis=1) > 0
    X_test, y_test = X_test[inside], y_test[inside]
    for target in (y, two):
        ours, peer = (
            model(**options).fit(X, target) for model in (RadiusNeighborsClassifier, theirs.RadiusNeighborsClassifier)
        )
        if weights is inverse_square:  # infinite weights make scikit-learn's shares NaN
            near = np.array([row[0] > 0 for row in ours.radius_neighbors(X_test)[0]])
            X_test, y_test = X_test[near], y_test[near]
        shares = [model.predict_proba(X_test) for model in (ours, peer)]
        for one, other in zip(*(shares if target is two else [[own] for own in shares]), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9)
        assert np.array_equal(ours.predict(X_test), peer.predict(X_test))
    assert ours.fit(X, y).score(X_test, y_test) == peer.fit(X, y).score(X_test, y_test)
    for target in (numbers[:, 1], numbers, numbers[:, :1]):
        ours, peer = (
            model(**options).fit(X, target) for model in (RadiusNeighborsRegressor, theirs.RadiusNeighborsRegressor)
        )
        np.testing.assert_allclose(ours.predict(X_test), peer.predict(X_test), rtol=1e-9)


@pytest.mark.parametrize("labels", ["numbers", "strings"])
def test_queries_without_neighbors(data, labels):
    X, y, X_test, _ = data
    y = np.minimum(y, 2)  # so that 2 is the most frequent
    if labels == "strings":
        y = np.array(["a", "b", "c"])[y]
    X_test = np.concatenate([X_test[:9], np.full((3, 3), 99.0)])
    known, unknown = y[0].item(), "z" if labels == "strings" else 9
    with pytest.raises(ValueError, match="have no neighbours within the radius"):
        RadiusNeighborsClassifier(2.0).fit(X, y).predict(X_test)
    for label in (known, unknown, "most_frequent", [known]):
        ours, peer = (
            model(3.0, outlier_label=label).fit(X, y)
            for model in (RadiusNeighborsClassifier, theirs.RadiusNeighborsClassifier)
        )
        assert list(ours.outlier_label_) == list(peer.outlier_label_)
        assert (ours.predict(X_test)[-3:] == ours.outlier_label_[0]).all()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            got = ours.predict_proba(X_test)
        assert [str(one.message).partition(";")[0] for one in caught] == (
            [f"outlier_label {unknown!r} is no label of y"] if label == unknown else []
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert np.allclose(got, peer.predict_proba(X_test))
            assert np.array_equal(ours.predict(X_test), peer.predict(X_test))
    with pytest.warns(UserWarning, match="3 rows have no neighbours within the radius"):
        means = RadiusNeighborsRegressor(3.0).fit(X, np.arange(110.0)).predict(X_test)
    assert np.isnan(means[-3:]).all()
    assert np.isfinite(means[:9]).all()


def test_predictions_of_the_training_rows_leave_out_the_row_itself(data):
    X, y, _, _ = data
    model = RadiusNeighborsClassifier(2.0, outlier_label=0).fit(X, y)
    for i, label in enumerate(model.predict(None)[:20]):
        others = np.arange(len(X)) != i
        alone = RadiusNeighborsClassifier(2.0, outlier_label=0).fit(X[others], y[others])
        assert alone.predict(X[i : i + 1])[0] == label


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_a_prediction_depends_on_its_row_alone(data, weights):
    X, y, X_test, _ = data
    model = RadiusNeighborsRegressor(4.0, weights=weights).fit(X, y * 0.1)
    want = model.predict(X_test)
    assert np.concatenate([model.predict(row[np.newaxis]) for row in X_test]).tobytes() == want.tobytes()
    assert model.set_params(n_jobs=3).predict(X_test).tobytes() == want.tobytes()


def test_many_classes_are_counted_in_blocks(rng, monkeypatch):
    monkeypatch.setattr(_radius, "_AT_ONCE", 500)
    X, y = rng.random((300, 2)), rng.permutation(300) % 140
    ours, peer = (model(0.2).fit(X, y) for model in (RadiusNeighborsClassifier, theirs.RadiusNeighborsClassifier))
    assert np.array_equal(ours.predict(X), peer.predict(X))


def test_weights_near_the_ends_of_the_range(data):
    X, y, X_test, _ = data
    want = RadiusNeighborsRegressor(4.0, weights="distance").fit(X, y).predict(X_test)
    for scale in (2.0**-900, 2.0**900):
        model = RadiusNeighborsRegressor(4.0 * scale, weights="distance").fit(X * scale, y)
        np.testing.assert_allclose(model.predict(X_test * scale), want, rtol=1e-12)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_means_of_large_targets_stay_in_range(data, weights):
    X, y, X_test = data[0], data[1], data[2]
    large = np.column_stack([np.where(y > 0, 1.7e308, -1e300), y])
    found = RadiusNeighborsRegressor(3.0, weights=weights).fit(X, large).predict(X_test)
    small = RadiusNeighborsRegressor(3.0, weights=weights).fit(X, large * 2.0**-20).predict(X_test)
    assert np.nanmax(found) > 1e308
    np.testing.assert_allclose(found, small * 2.0**20, rtol=1e-15)


def test_a_function_that_returns_no_rows_of_weights_is_named(data):
    X, y, X_test, _ = data
    with pytest.raises(TypeError, match="weights returned a float"):
        RadiusNeighborsRegressor(4.0, weights=lambda distances: 1.0).fit(X, y).predict(X_test)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (lambda distances: distances[1:], "weights returned 39 rows for the distances of 40"),
        (lambda distances: [row[1:] for row in distances], r"weights returned shape \(\d+,\) for the \d+ distances"),
        (lambda distances: [-row for row in distances], "weights returned -.* of row 0; a weight must be"),
        (lambda distances: [row * np.nan for row in distances], "weights returned nan"),
        (lambda distances: [row * 0 for row in distances], "all neighbours of row 0 have weight 0"),
    ],
    ids=["rows", "shape", "negative", "nan", "zero"],
)
def test_weights_that_are_refused(data, weights, message):
    X, y, X_test, _ = data
    with pytest.raises(ValueError, match=message):
        RadiusNeighborsRegressor(9.0, weights=weights).fit(X, y).predict(X_test)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"radius": -1.0}, ValueError, "radius is -1.0; it must be at least 0"),
        ({"radius": [1.0, 2.0]}, ValueError, r"radius has shape \(2,\); it must be a number"),
        ({"radius": None}, TypeError, "radius is None"),
        ({"weights": "far"}, ValueError, "weights is 'far'"),
        ({"metric": "inner_product"}, ValueError, "metric is 'inner_product'; it must be one of 'minkowski', 'l1'"),
        ({"metric_params": {"w": [1.0]}}, ValueError, r"metric_params\['w'\] has shape \(1,\); X has 3 columns"),
        ({"n_jobs": 0}, ValueError, "n_jobs is 0"),
        ({"outlier_label": [0, 1]}, ValueError, "outlier_label has 2 entries, y has 1 outputs"),
        ({"outlier_label": [[0]]}, TypeError, "it must be a single label"),
        ({"outlier_label": "a"}, TypeError, "outlier_label is 'a'; labels of y are int64"),
    ],
)
def test_parameters_that_are_refused(data, params, error, message):
    X, y, _, _ = data
    with pytest.raises(error, match=message):
        RadiusNeighborsClassifier(**params).fit(X, y)
    with pytest.raises(NotFittedError):
        RadiusNeighborsClassifier().predict(X)
    with pytest.raises(ValueError, match="mode is 'far'"):
        RadiusNeighborsTransformer(mode="far").fit(X)
    with pytest.raises(ValueError, match="mode is 'far'"):
        RadiusNeighborsTransformer().fit(X).radius_neighbors_graph(X, mode="far")


def test_graphs_for_dbscan(data):
    X, _ = make_blobs(300, centers=5, random_state=0)
    ours, peer = (
        make_pipeline(model(radius=1.5), DBSCAN(0.8, metric="precomputed")).fit_predict(X)
        for model in (RadiusNeighborsTransformer, theirs.RadiusNeighborsTransformer)
    )
    assert np.array_equal(ours, peer)
    assert len(np.unique(ours)) > 2
    graph = RadiusNeighborsTransformer(radius=1.5).fit_transform(X)
    assert scipy.sparse.issparse(graph)
    assert graph.diagonal().tolist() == [0] * 300
    assert all(graph[[i]].nnz and graph[[i]].indices[0] == i for i in range(5)), "a row is a neighbour of itself"
    names = RadiusNeighborsTransformer().fit(X).get_feature_names_out()
    assert names[:2].tolist() == ["radiusneighborstransformer0", "radiusneighborstransformer1"]
    assert len(names) == 300


def test_clone_and_pickle(data):
    X, y, X_test, _ = data
    model = RadiusNeighborsClassifier(3.0, outlier_label=0).fit(X, y)
    assert clone(model).get_params() == model.get_params()
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict(X_test), model.predict(X_test))
