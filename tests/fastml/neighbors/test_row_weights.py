"""Weights of rows, of which w are w equal rows, and factors of votes."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_validate

from fastml import KNeighborsClassifier, KNeighborsRegressor, kernels
from fastml.neighbors import _base, voting
from fastml.neighbors.row_weights import RowWeights

MODELS = [KNeighborsClassifier, KNeighborsRegressor]


def gaussian(distances):
    return np.exp(-(distances**2))


@pytest.fixture
def data(rng):
    """Small whole numbers, so that many distances tie, labels and whole weights, of which many are 0."""
    X, y = rng.integers(0, 6, (80, 3)).astype(np.float64), rng.integers(0, 4, 80)
    return X, y, rng.integers(0, 4, 80), rng.integers(0, 6, (40, 3)).astype(np.float64)


def answers(model, queries):
    proba = getattr(model, "predict_proba", model.predict)
    return model.predict(queries), proba(queries)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("weights", ["uniform", "distance", gaussian])
@pytest.mark.parametrize("k", [1, 5, 30])
def test_a_row_of_weight_w_is_w_equal_rows(data, model, weights, k):
    X, y, weight, queries = data
    repeated = np.repeat(np.arange(80), weight)
    found = model(k, weights=weights).fit(X, y, sample_weight=weight)
    expected = model(k, weights=weights).fit(X[repeated], y[repeated])
    for one, other in zip(answers(found, queries), answers(expected, queries), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-15)


def by_the_rule(X, targets, weight, query, k, weights, own=None):
    """The weighted mean of `targets` (m, outputs), by the sentence that says what weights are, one row at a time."""
    distances = np.sqrt(((X - query) ** 2).sum(axis=1))
    left, numbers, counts = float(k), [], []
    for row in np.lexsort((np.arange(len(X)), distances)):
        if row != own and weight[row] > 0 and left > 0:
            numbers.append(row)
            counts.append(min(left, weight[row]))
            left -= weight[row]
    near = distances[numbers]
    each = {"uniform": np.ones(len(near)), "distance": 1 / near if near[0] else near == 0}.get(weights)
    each = np.array(counts) * (gaussian(near) if each is None else each)
    return (targets[numbers] * each[:, np.newaxis]).sum(axis=0) / each.sum()


@pytest.mark.parametrize("weights", ["uniform", "distance", gaussian])
@pytest.mark.parametrize("spread", [0.5, 4.0])
def test_fractions_count_by_the_same_rule(rng, weights, spread):
    X, y, queries = rng.normal(size=(150, 3)), rng.integers(0, 3, 150), rng.normal(size=(20, 3))
    weight = rng.lognormal(0, spread, 150) * (rng.random(150) < 0.8)
    k = 4
    classes = (y[:, np.newaxis] == np.arange(3)) * 1.0
    for given in (queries, None):
        asked = X if given is None else given
        own = range(150) if given is None else [None] * 20
        expected = [
            by_the_rule(X, classes, weight, query, k, weights, row) for query, row in zip(asked, own, strict=True)
        ]
        found = KNeighborsClassifier(k, weights=weights).fit(X, y, weight).predict_proba(given)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
        found = KNeighborsRegressor(k, weights=weights).fit(X, classes, weight).predict(given)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_light_rows_are_looked_for_further_and_alone(rng, monkeypatch):
    """Most queries have heavy neighbours; those among light ones are searched again, and only they."""
    X = np.concatenate([rng.normal(size=(300, 2)), 100 + rng.normal(size=(300, 2))])
    weight = np.repeat([1.0, 0.01], 300)
    model = KNeighborsRegressor(5).fit(X, X[:, 0], weight)
    asked = []
    search = kernels.k_nearest
    monkeypatch.setattr(
        _base.kernels, "k_nearest", lambda q, rows, k, **rest: asked.append((len(q), k)) or search(q, rows, k, **rest)
    )
    found = model.predict(X)
    assert asked[0][0] == 600
    assert {queries for queries, _ in asked[1:]} == {300}
    assert asked[-1][1] <= 600
    own = [by_the_rule(X, X[:, :1], weight, query, 5, "uniform")[0] for query in X[::40]]
    np.testing.assert_allclose(found[::40], own, rtol=1e-12)


def test_neighbors_are_those_without_weights_less_those_of_weight_0(data):
    X, y, weight, queries = data
    model = KNeighborsClassifier(6).fit(X, y, weight)
    for found, expected in (
        (model.kneighbors(queries), kernels.k_nearest(queries, X, 6, where=weight > 0)),
        (model.kneighbors(), kernels.k_nearest(X, X, 6, where=weight > 0, exclude_self=True)),
    ):
        assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    assert model.kneighbors_graph(queries).shape == (40, 80)
    assert model.n_samples_fit_ == 80
    there = np.count_nonzero(weight)
    with pytest.raises(
        ValueError, match=f"n_neighbors is {there + 1}; there are {there} training rows of weight above 0"
    ):
        model.kneighbors(queries, there + 1)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_dtypes_outputs_metrics_and_a_tree(data, model, dtype):
    X, y, weight, queries = data
    X, queries, targets = X.astype(dtype), queries.astype(dtype), np.column_stack([y, y[::-1] % 2])
    repeated = np.repeat(np.arange(80), weight)
    for options in ({"metric": "l1", "metric_params": {"w": [1, 2, 0]}}, {"algorithm": "kd_tree"}):
        found = model(7, weights="distance", **options).fit(X, targets, weight).predict(queries)
        expected = model(7, weights="distance", **options).fit(X[repeated], targets[repeated]).predict(queries)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_label_of_rows_of_weight_0_is_no_class():
    X, y = np.arange(6.0)[:, np.newaxis], np.array(["a", "b", "b", "c", "c", "c"])
    model = KNeighborsClassifier(2).fit(X, y, [0, 1, 1, 1, 0, 2])
    assert model.classes_.tolist() == ["b", "c"]
    assert model.predict([[0.0], [4.2]]).tolist() == ["b", "c"]
    both = KNeighborsClassifier(2).fit(X, np.column_stack([y, y[::-1]]), [0, 1, 1, 1, 0, 2])
    assert [labels.tolist() for labels in both.classes_] == [["b", "c"], ["a", "b", "c"]]


@pytest.mark.parametrize("model", MODELS)
def test_a_prediction_depends_on_its_row_alone(rng, model, same_bits):
    X, queries, weight = rng.normal(size=(120, 3)), rng.normal(size=(12, 3)), rng.lognormal(0, 3, 120)
    for weights in ("uniform", "distance", gaussian):
        fitted = model(4, weights=weights).fit(X, rng.integers(0, 3, 120), weight)
        for found, *alone in zip(
            answers(fitted, queries), *(answers(fitted, queries[i : i + 1]) for i in range(12)), strict=True
        ):
            same_bits(found, np.concatenate(alone))


def test_a_function_gets_the_distances_that_count(rng):
    X, queries = rng.normal(size=(60, 2)), rng.normal(size=(9, 2))
    weight = rng.integers(1, 9, 60) / 4
    seen = []

    def one(distances):
        seen.append(distances.copy())
        return np.ones_like(distances)

    model = KNeighborsRegressor(4, weights=one).fit(X, X[:, 0], weight)
    found = model.predict(queries)
    np.testing.assert_array_equal(found, KNeighborsRegressor(4).fit(X, X[:, 0], weight).predict(queries))
    distances, indices = model.kneighbors(queries, 20)
    reached = (weight[indices].cumsum(axis=1) >= 4).argmax(axis=1)
    assert seen[0].shape == (9, reached.max() + 1)
    for row, last in enumerate(reached):
        expected = distances[row, np.minimum(np.arange(reached.max() + 1), last)]
        np.testing.assert_array_equal(seen[0][row], expected)


@pytest.mark.parametrize("model", MODELS)
def test_weights_of_1_are_none(data, model, monkeypatch, same_bits):
    X, y, _, queries = data
    monkeypatch.setattr(_base, "RowWeights", None)
    expected = model().fit(X, y)
    for weight in (None, 1, np.ones(80)):
        same_bits(model().fit(X, y, weight).predict(queries), expected.predict(queries))


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        ([1, -1, 1, 1], ValueError, r"sample_weight\[1\] is -1"),
        ([1, 1], ValueError, r"sample_weight has shape \(2,\); it must be \(4,\)"),
        ([0, 0, 0, 0], ValueError, "zero everywhere"),
        ([1, 1, np.inf, 1], ValueError, "inf"),
        (["a"] * 4, TypeError, "sample_weight"),
    ],
    ids=["negative", "short", "zeros", "infinite", "text"],
)
def test_weights_that_are_refused(weight, error, message):
    X, y = [[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1]
    for model in (KNeighborsClassifier(1).fit(X, y), KNeighborsRegressor(1).fit(X, y)):
        with pytest.raises(error, match=message):
            model.fit(X, y, weight)
        assert model.predict([[1.2]])[0] == 1  # as before


def test_rows_that_weigh_less_than_n_neighbors():
    X, y = [[0.0], [1.0], [2.0], [3.0]], [0.0, 1.0, 2.0, 3.0]
    shares = KNeighborsRegressor(2).fit(X, y, np.full(4, 0.25))
    with pytest.raises(ValueError, match="n_neighbors is 2; the training rows weigh 1; a row of weight w counts"):
        shares.predict(X)
    # Ten tenths are 1, whatever their sum is in floats.
    tenths = KNeighborsRegressor(1).fit(np.zeros((10, 1)), np.arange(10.0), np.full(10, 0.1))
    np.testing.assert_allclose(tenths.predict([[0.0]]), 4.5)
    heavy = KNeighborsRegressor(3).fit(X, y, [1, 1, 1, 9])
    assert heavy.predict([[3.0]]) == 3
    assert KNeighborsRegressor(2).fit(X, y, [1, 1, 1, 9]).predict(None).tolist() == [1.5, 1.0, 2.0, 1.5]
    with pytest.raises(ValueError, match="n_neighbors is 4; the training rows weigh 12, without the heaviest 3"):
        heavy.set_params(n_neighbors=4).predict(None)


def test_weights_that_change_after_fit_change_nothing(data):
    X, y, weight, queries = data
    weight = weight.astype(np.float64)
    model = KNeighborsClassifier(5).fit(X, y, weight)
    before = model.predict_proba(queries)
    weight[:] = 0
    assert np.array_equal(model.predict_proba(queries), before)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_means_of_large_targets_stay_in_range(weights):
    """However many places few rows fill."""
    X, y = [[0.0], [1.0], [5.0]], np.array([1.7e308, 1e308, 0.0])
    found = KNeighborsRegressor(100, weights=weights).fit(X, y, [60, 70, 1]).predict([[0.25], [1.25]])
    small = KNeighborsRegressor(100, weights=weights).fit(X, y * 2.0**-20, [60, 70, 1]).predict([[0.25], [1.25]])
    np.testing.assert_allclose(found * 2.0**-20, small, rtol=1e-14)


def test_clone_pickle_searches_and_routing(data):
    X, y, weight, queries = data
    model = KNeighborsClassifier(5, class_weight="balanced").fit(X, y, weight)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict_proba(queries), model.predict_proba(queries))
    assert clone(model).class_weight == "balanced"
    weight = np.maximum(weight, 1)
    with sklearn.config_context(enable_metadata_routing=True):
        asked = KNeighborsRegressor().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        found = cross_validate(asked, X, y, params={"sample_weight": weight}, cv=3)["test_score"]
        search = GridSearchCV(asked, {"n_neighbors": [1, 5]}, cv=3).fit(X, y, sample_weight=weight)
        assert search.cv_results_["mean_test_score"][1] == found.mean()
    for fold, score in enumerate(found):
        test = np.array_split(np.arange(80), 3)[fold]
        train = np.setdiff1d(np.arange(80), test)
        own = KNeighborsRegressor().fit(X[train], y[train], weight[train])
        assert own.score(X[test], y[test], weight[test]) == score


# ----------------------------------------------------------------------------------- factors of votes


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("weighed", [False, True])
def test_class_weights_multiply_votes_only(data, weights, weighed):
    X, y, weight, queries = data
    weight = weight if weighed else None
    factors = {0: 1.0, 1: 3.0, 2: 0.25, 3: 1e300}
    plain = KNeighborsClassifier(7, weights=weights).fit(X, y, weight)
    model = KNeighborsClassifier(7, weights=weights, class_weight=factors).fit(X, y, weight)
    assert np.array_equal(model.kneighbors(queries), plain.kneighbors(queries))
    votes = plain.predict_proba(queries) * ([1.0, 3.0, 0.25, 1e300] / np.float64(1e300))
    np.testing.assert_allclose(model.predict_proba(queries), votes / votes.sum(axis=1, keepdims=True), rtol=1e-12)
    assert np.array_equal(model.predict(queries), votes.argmax(axis=1))


def test_balanced_counts_what_rows_weigh(data):
    X, y, weight, queries = data
    model = KNeighborsClassifier(7, class_weight="balanced").fit(X, y, weight)
    sums = np.bincount(y, weight)
    factors = dict(enumerate(sums.sum() / (4 * sums)))
    expected = KNeighborsClassifier(7, class_weight=factors).fit(X, y, weight)
    assert np.array_equal(model.predict_proba(queries), expected.predict_proba(queries))


def test_class_weights_of_several_outputs_and_one_neighbor(data):
    X, y, _, queries = data
    targets = np.column_stack([y, y % 2])
    given = [{0: 1, 1: 2, 2: 3, 3: 4}, None]
    both = KNeighborsClassifier(5, class_weight=given).fit(X, targets).predict_proba(queries)
    for output in (0, 1):
        one = KNeighborsClassifier(5, class_weight=given[output]).fit(X, targets[:, output])
        assert np.array_equal(both[output], one.predict_proba(queries))
    one = KNeighborsClassifier(1, class_weight=given[0]).fit(X, y)
    assert np.array_equal(one.predict(queries), KNeighborsClassifier(1).fit(X, y).predict(queries))
    with pytest.raises(ValueError, match="class_weight has 1 entries, y has 2 outputs"):
        KNeighborsClassifier(class_weight=["balanced"]).fit(X, targets)
    with pytest.raises(ValueError, match="class_weight is a list, which is for several outputs"):
        KNeighborsClassifier(class_weight=["balanced"]).fit(X, y)


@pytest.mark.parametrize("class_weight", ["even", {0: -1.0}, {9: 2.0}, 3])
def test_class_weights_that_are_refused(data, class_weight):
    with pytest.raises((ValueError, TypeError), match="class_weight is"):
        KNeighborsClassifier(class_weight=class_weight).fit(data[0], data[1])


@pytest.mark.parametrize("many", [False, True])
def test_many_classes_are_weighted_as_few(data, many, monkeypatch):
    X, y, weight, queries = data
    model = KNeighborsClassifier(6, class_weight={0: 1.0, 1: 1.5, 2: 0.5, 3: 0.0})
    monkeypatch.setattr(voting, "_CLASSES_PER_NEIGHBOR", 0 if many else 64)
    monkeypatch.setattr(voting, "_AT_ONCE", 24)  # blocks of a few rows
    model.fit(X, y, np.where(y == 3, 0.5, weight))
    votes = model.predict_proba(queries)
    assert np.array_equal(model.predict(queries), votes.argmax(axis=1))
    assert not votes[:, 3].any()
    X[y == 3] = 50.0
    model.fit(X, y)
    for method in (model.predict, model.predict_proba):
        with pytest.raises(ValueError, match="row 40 have labels of class_weight 0"):
            method(np.concatenate([queries, [[50.0] * 3]]))


def test_how_many_rows_fill_places():
    weights = RowWeights(np.array([2.0, 0.0, 0.5, 0.5, 8.0]))
    assert [weights.most(k) for k in (1, 2, 3, 4, 11)] == [2, 3, 3, 4, 4]
    assert (weights.n_present, weights.total, weights.present.tolist()) == (4, 11.0, [True, False, True, True, True])
