"""Metrics beside those of Minkowski, and weights of columns, in models."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import neighbors as theirs

from fastml import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    NearestNeighbors,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
)


@pytest.mark.parametrize("metric", ["cosine", "sqeuclidean"])
def test_metrics_beside_those_of_minkowski(rng, metric):
    X, y, queries = rng.standard_normal((200, 7)), rng.integers(0, 3, 200), rng.standard_normal((40, 7))
    for weights in ("uniform", "distance"):
        model = KNeighborsClassifier(5, metric=metric, weights=weights).fit(X, y)
        expected = theirs.KNeighborsClassifier(5, metric=metric, weights=weights, algorithm="brute").fit(X, y)
        assert model.effective_metric_ == metric
        assert_array_equal(model.predict(queries), expected.predict(queries))
        assert_allclose(model.predict_proba(queries), expected.predict_proba(queries), rtol=1e-9)


@pytest.mark.parametrize("p", [1, 2])
def test_weights_of_columns_are_those_of_scikit_learn(rng, p):
    X, y, queries = rng.standard_normal((200, 7)), rng.standard_normal(200), rng.standard_normal((40, 7))
    params = {"w": rng.uniform(0, 2, 7)}
    model = KNeighborsRegressor(5, p=p, metric_params=params).fit(X, y)
    expected = theirs.KNeighborsRegressor(5, p=p, metric_params=params, algorithm="brute").fit(X, y)
    assert_allclose(model.predict(queries), expected.predict(queries))
    for found, want in zip(model.kneighbors(queries), expected.kneighbors(queries), strict=True):
        assert_allclose(found, want)
    with pytest.raises(ValueError, match="metric_params"):
        KNeighborsRegressor(5, metric_params={"w": [1.0]}).fit(X, y)


def test_a_power_among_metric_params_counts(rng):
    """As in scikit-learn, whose classifier itself writes it into the caller's dict."""
    X = rng.standard_normal((50, 3))
    for more in ({}, {"w": np.array([1.0, 0.5, 2.0])}):
        params = {"p": 1, **more}
        with pytest.warns(SyntaxWarning, match="Parameter p is found in metric_params"):
            found = NearestNeighbors(metric_params=params).fit(X)
        expected = NearestNeighbors(p=1, metric_params=more).fit(X)
        assert_array_equal(found.kneighbors()[0], expected.kneighbors()[0])
        theirs_found = theirs.NearestNeighbors(p=None, metric_params=params).fit(X)
        found = NearestNeighbors(p=None, metric_params=params).fit(X)
        assert found.effective_metric_ == theirs_found.effective_metric_
        assert found.effective_metric_params_.keys() == theirs_found.effective_metric_params_.keys()
        assert_allclose(found.kneighbors()[0], theirs_found.kneighbors()[0])
    with pytest.raises(ValueError, match="p is 3; it must be 1, 2 or infinity"):
        NearestNeighbors(p=None, metric_params={"p": 3}).fit(X)


def test_weights_of_columns_are_those_of_the_fit(rng):
    """As the metric is: what is set or written afterwards is for the next fit, also if that is refused."""
    X, y, w = rng.standard_normal((50, 2)), rng.standard_normal(50), np.ones(2)
    for params in (None, {"w": w}):
        model = KNeighborsRegressor(3, metric_params=params).fit(X, y)
        before = model.kneighbors()
        w[0] += 100
        for other in ({"w": [0.0, 1.0]}, {"w": [1.0]}):
            model.set_params(metric_params=other)
            for found, want in zip(model.kneighbors(), before, strict=True):
                assert_array_equal(found, want)
        with pytest.raises(ValueError, match="metric_params"):
            model.fit(X, y)
        assert_array_equal(model.kneighbors()[0], before[0])
        again = model.set_params(metric_params={"w": [9.0, 1.0]}).fit(X, y)
        assert not np.array_equal(again.kneighbors()[0], before[0])


@pytest.mark.parametrize("params", [{}, {"w": None}])
def test_parameters_that_say_nothing_are_none(rng, params):
    X = rng.standard_normal((50, 2))
    model, plain = NearestNeighbors(metric_params=params).fit(X), NearestNeighbors().fit(X)
    assert_array_equal(model.kneighbors()[0], plain.kneighbors()[0])
    assert_array_equal(model.radius_neighbors_graph().toarray(), plain.radius_neighbors_graph().toarray())


def test_packed_bits_in_a_model(rng):
    bits, y = rng.random((120, 50)) < 0.4, rng.integers(0, 2, 120)
    packed = np.packbits(bits, axis=1)
    model = KNeighborsClassifier(3, metric="jaccard").fit(packed[:80], y[:80])
    distances, _ = model.kneighbors(packed[80:])
    expected = theirs.NearestNeighbors(n_neighbors=3, metric="jaccard").fit(bits[:80]).kneighbors(bits[80:])[0]
    assert_allclose(distances, expected)
    with pytest.raises(TypeError, match="packbits"):
        model.set_params(metric="hamming").fit(bits, y)
    with pytest.raises(ValueError, match="inner_product"):
        model.set_params(metric="inner_product").fit(packed, y)


@pytest.mark.parametrize("metric", ["cosine", "sqeuclidean"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_metrics_within_a_radius(rng, metric, weights):
    X, y, queries = rng.standard_normal((200, 4)), rng.integers(0, 3, 200), rng.standard_normal((40, 4))
    options = {"radius": 0.9, "metric": metric, "weights": weights, "outlier_label": "most_frequent"}
    model = RadiusNeighborsClassifier(**options).fit(X, y)
    expected = theirs.RadiusNeighborsClassifier(**options, algorithm="brute").fit(X, y)
    assert_array_equal(model.predict(queries), expected.predict(queries))
    assert_allclose(model.predict_proba(queries), expected.predict_proba(queries), rtol=1e-9)
    graphs = (own.radius_neighbors_graph(mode="distance").toarray() for own in (model, expected))
    assert_allclose(*graphs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("p", [1, 2])
def test_weights_of_columns_within_a_radius(rng, p):
    X, y, queries = rng.standard_normal((200, 4)), rng.standard_normal(200), rng.standard_normal((40, 4))
    options = {"p": p, "metric_params": {"w": rng.uniform(0, 2, 4)}}
    model = RadiusNeighborsRegressor(9.0, **options).fit(X, y)
    expected = theirs.RadiusNeighborsRegressor(9.0, **options, algorithm="brute").fit(X, y)
    assert_allclose(model.predict(queries), expected.predict(queries))


@pytest.mark.slow
def test_packed_bits_within_a_radius(rng):
    bits = rng.random((120, 50)) < 0.4
    packed = np.packbits(bits, axis=1)
    found = NearestNeighbors(metric="jaccard", radius=0.65).fit(packed[:80]).radius_neighbors_graph(packed[80:])
    expected = theirs.NearestNeighbors(metric="jaccard", radius=0.65).fit(bits[:80]).radius_neighbors_graph(bits[80:])
    assert 100 < found.nnz < 2000
    assert_array_equal(found.toarray(), expected.toarray())
