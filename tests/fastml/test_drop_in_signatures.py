"""Models of neighbours beside their twins in the scikit-learn that is installed: constructors, values, attributes."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from sklearn import impute as their_imputers
from sklearn import neighbors as theirs

from fastml import impute, neighbors

TWINS = {name: (getattr(neighbors, name), getattr(theirs, name)) for name in neighbors.__all__}
TWINS |= {name: (getattr(impute, name), getattr(their_imputers, name)) for name in ("KNNImputer",)}

#: Those that search by one of scikit-learn's algorithms.
SEARCHES = [name for name, (_, twin) in TWINS.items() if "leaf_size" in inspect.signature(twin).parameters]

#: What ours have beside: scikit-learn's use one thread, and its neighbors have no weights of classes.
EXTRA = {"NearestCentroid": ["n_jobs"], "KNNImputer": ["n_jobs"], "KNeighborsClassifier": ["class_weight"]}


@pytest.fixture
def data(rng):
    return rng.normal(size=(40, 3)), np.arange(40) % 3


def parameters_of(function) -> list[tuple[str, object, str]]:
    """Return names, kinds and defaults of a function's parameters; NaN is no equal of itself, its text is."""
    return [(p.name, p.kind, repr(p.default)) for p in inspect.signature(function).parameters.values()]


def differences(ours, twin, extra=()) -> list[tuple[str, object, str]]:
    """Return the parameters that the twin has at some place and ours has not, or the other way around."""
    mine, expected = parameters_of(ours), parameters_of(twin)
    wrong = [one for i, one in enumerate(expected) if mine[i : i + 1] != [one]]
    return wrong + [one for one in mine[len(expected) :] if one[0] not in extra]


def test_a_difference_is_found():
    def twin(a, *, b=1, c=np.nan): ...

    def ours(a, *, b=2, c=np.nan, d=3): ...

    assert differences(twin, twin) == []
    assert [name for name, _, _ in differences(ours, twin)] == ["b", "d"]
    assert [name for name, _, _ in differences(lambda a, *, c=np.nan, b=1: 0, twin)] == ["b", "c"]
    assert [name for name, _, _ in differences(lambda a, b=1, *, c=np.nan: 0, twin)] == ["b"]


@pytest.mark.parametrize("name", TWINS)
def test_constructors_take_the_same_at_the_same_place(name):
    ours, twin = TWINS[name]
    assert differences(ours, twin, EXTRA.get(name, ())) == []


@pytest.mark.parametrize("name", TWINS)
def test_methods_take_the_same_at_the_same_place(name):
    """What ours have beside stands behind, as keywords do that go on to others."""
    ours, twin = TWINS[name]
    for method, of_twin in inspect.getmembers(twin, callable):
        if not method.startswith("_") and "routing" not in method and not method.startswith("set_"):
            mine, expected = parameters_of(getattr(ours, method)), parameters_of(of_twin)
            assert mine[: len(expected)] == expected or mine == [p for p in expected if "VAR" not in str(p[1])], method


@pytest.mark.parametrize("options", [{}, {"p": 1}, {"p": np.inf}, {"metric": "cosine"}, {"metric_params": {}}], ids=str)
@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("outputs", [1, 2])
def test_fitted_models_have_the_same_attributes(data, name, options, outputs):
    ours, twin = TWINS[name]
    X, y = data
    if (name not in SEARCHES and options) or (outputs > 1 and name in ("NearestCentroid", "KNNImputer")):
        return
    y = y if outputs == 1 else np.stack([y, y], axis=1)
    model, expected = ours(**options).fit(X, y), twin(**options).fit(X, y)
    names = [own for own in vars(expected) if own.endswith("_") and not own.startswith("_")]
    assert "n_features_in_" in names
    for own in names:
        found, want = getattr(model, own), getattr(expected, own)
        assert isinstance(found, type(want)), own
        if isinstance(want, np.ndarray):
            assert (found.shape, found.dtype.kind) == (want.shape, want.dtype.kind), own
        elif isinstance(want, list):
            assert [np.shape(part) for part in found] == [np.shape(part) for part in want], own
        else:
            assert found == want, own


@pytest.mark.parametrize("metric", ["minkowski", "manhattan"])
def test_weights_of_columns_are_told(data, metric):
    X, _ = data
    options = {"metric": metric, "p": 1, "metric_params": {"w": np.array([1.0, 2.0, 0.5])}}
    model = neighbors.NearestNeighbors(**options).fit(X)
    assert model.effective_metric_ == metric
    assert np.array_equal(model.effective_metric_params_.pop("w"), options["metric_params"]["w"])
    if metric == "minkowski":
        expected = theirs.NearestNeighbors(**options).fit(X)
        assert expected.effective_metric_ == metric
        assert model.effective_metric_params_.pop("p") == expected.effective_metric_params_["p"]
    assert model.effective_metric_params_ == {}
    model.fit(X).effective_metric_params_["w"][:] = 9
    assert np.array_equal(model.kneighbors()[0], neighbors.NearestNeighbors(**options).fit(X).kneighbors()[0])


@pytest.mark.parametrize("name", SEARCHES)
def test_what_only_chooses_a_way_is_taken_and_changes_nothing(data, name):
    X, y = data
    find = "radius_neighbors_graph" if "Radius" in name else "kneighbors_graph"
    expected = getattr(TWINS[name][0]().fit(X, y), find)(X, mode="distance")
    for way in ("auto", "brute", "kd_tree", "ball_tree"):
        for leaf_size in (1, 30, np.int64(1000)):
            model = TWINS[name][0](algorithm=way, leaf_size=leaf_size).fit(X, y)
            found = getattr(model, find)(X, mode="distance")
            assert np.array_equal(found.indices, expected.indices)
            assert np.array_equal(found.data, expected.data)


@pytest.mark.parametrize("name", SEARCHES)
def test_what_is_not_there_is_named_and_so_is_what_there_is(data, name):
    X, y = data
    for options, message in (
        ({"metric": "precomputed"}, "metric is 'precomputed'; it must be one of 'minkowski', 'l1', 'manhattan'"),
        ({"metric": "canberra"}, "metric is 'canberra'; it must be one of 'minkowski', 'l1', 'manhattan'"),
        ({"metric": theirs.kneighbors_graph}, "metric is <function .*>; it must be one of 'minkowski', 'l1'"),
        ({"p": 3}, "p is 3; it must be 1, 2 or infinity"),
        ({"algorithm": "cover_tree"}, "algorithm is 'cover_tree'; it must be one of 'auto', 'brute', 'kd_tree'"),
        ({"leaf_size": 0}, "leaf_size is 0; it must be a positive integer"),
        ({"metric_params": {"V": 3}}, "metric_params has 'V'; 'w' may be in it"),
        ({"metric": "cosine", "metric_params": {"w": [1, 1, 1]}}, "metric_params has 'w'; nothing may be in it"),
    ):
        with pytest.raises(ValueError, match=message):
            TWINS[name][0](**options).fit(X, y)
    with pytest.raises(TypeError, match=r"leaf_size is 2.5 \(float\); it must be a positive integer"):
        TWINS[name][0](leaf_size=2.5).fit(X, y)


def test_metrics_of_centroids_and_of_missing_values(data):
    X, y = data
    with pytest.raises(ValueError, match="metric is 'cosine'; it must be one of 'euclidean', 'manhattan'"):
        neighbors.NearestCentroid("cosine").fit(X, y)
    with pytest.raises(ValueError, match=r"metric is <function .*>; it must be one of 'nan_euclidean'"):
        impute.KNNImputer(metric=theirs.kneighbors_graph).fit(X)


def test_the_graph_says_which_number_was_given(data):
    X, _ = data
    for model in (neighbors.KNeighborsTransformer(n_neighbors=40), theirs.KNeighborsTransformer(n_neighbors=40)):
        with pytest.raises(ValueError, match="40"):
            model.fit_transform(X)
    with pytest.raises(ValueError, match="n_neighbors is 40; there are 40 training rows, and with mode='distance' it"):
        neighbors.KNeighborsTransformer(n_neighbors=40).fit_transform(X)
    with pytest.raises(ValueError, match=r"n_neighbors is 41; there are 40 training rows$"):
        neighbors.KNeighborsTransformer(mode="connectivity", n_neighbors=41).fit_transform(X)
    assert neighbors.KNeighborsTransformer(mode="connectivity", n_neighbors=40).fit_transform(X).nnz == 1600


def test_outliers_among_the_training_rows(data):
    X = np.concatenate([data[0], [[9.0, 9.0, 9.0]]])
    model, expected = (module.LocalOutlierFactor(5, novelty=True).fit(X) for module in (neighbors, theirs))
    assert np.array_equal(model.predict(), expected.predict())
    assert model.predict()[-1] == -1
