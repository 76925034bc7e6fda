"""NearestNeighbors and KNeighborsTransformer: scikit-learn's rules, scikit-learn's answers, and who takes graphs."""

from __future__ import annotations

import importlib
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn import neighbors as theirs
from sklearn.base import clone
from sklearn.cluster import DBSCAN, HDBSCAN, SpectralClustering
from sklearn.exceptions import NotFittedError
from sklearn.manifold import TSNE, Isomap
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import sort_graph_by_row_values
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from fastml import KNeighborsClassifier, KNeighborsTransformer, NearestNeighbors

MODELS = {NearestNeighbors: theirs.NearestNeighbors, KNeighborsTransformer: theirs.KNeighborsTransformer}

# As scikit-learn's own: array API objects need an environment variable that SciPy reads at its first import.
SKIPPED = {"check_array_api_input"}


@pytest.fixture
def rows(rng):
    """Rows without ties, in three groups far from each other."""
    return rng.normal(size=(90, 5)) + 20 * np.repeat(np.eye(3, 5), 30, axis=0)


@pytest.mark.needs_jit
@pytest.mark.parametrize(
    "model",
    [
        NearestNeighbors(),
        NearestNeighbors(n_neighbors=3, metric="l1", n_jobs=2),
        KNeighborsTransformer(),
        KNeighborsTransformer(mode="connectivity", p=np.inf),
    ],
    ids=repr,
)
def test_scikit_learns_checks(model):
    results = check_estimator(model, on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] in ("failed", "xfail")] == []
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= SKIPPED
    assert len(results) > 40


@pytest.mark.parametrize("ours", MODELS)
def test_names_and_defaults_are_scikit_learns(ours):
    expected, params = MODELS[ours]().get_params(), ours().get_params()
    assert params == expected


@pytest.mark.parametrize("metric", ["manhattan", "euclidean", "chebyshev"])
@pytest.mark.parametrize("others", [False, True])
def test_neighbors_are_scikit_learns(rng, rows, metric, others):
    ours = NearestNeighbors(n_neighbors=4, metric=metric).fit(rows)
    peer = theirs.NearestNeighbors(n_neighbors=4, metric=metric).fit(rows)
    X = rng.normal(size=(20, 5)) if others else None
    for k in (None, 1, 7):
        distances, indices = ours.kneighbors(X, k)
        expected = peer.kneighbors(X, k)
        np.testing.assert_allclose(distances, expected[0], rtol=1e-12)
        assert np.array_equal(indices, expected[1])
        assert np.array_equal(ours.kneighbors(X, k, return_distance=False), indices)
        for mode in ("connectivity", "distance"):
            graphs = (model.kneighbors_graph(X, k, mode).toarray() for model in (ours, peer))
            np.testing.assert_allclose(*graphs, rtol=1e-12)
    for name in ("effective_metric_", "n_samples_fit_", "n_features_in_"):
        assert getattr(ours, name) == getattr(peer, name)


@pytest.mark.parametrize("mode", ["distance", "connectivity"])
def test_graphs_are_scikit_learns(rng, rows, mode):
    new = rng.normal(size=(10, 5))
    ours, peer = KNeighborsTransformer(mode=mode, n_neighbors=3), theirs.KNeighborsTransformer(mode=mode, n_neighbors=3)
    graph, expected = ours.fit_transform(rows), peer.fit_transform(rows)
    assert graph.nnz == expected.nnz == len(rows) * (3 + (mode == "distance"))
    np.testing.assert_allclose(graph.toarray(), expected.toarray(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours.transform(new).toarray(), peer.transform(new).toarray(), rtol=1e-12)
    assert ours.get_feature_names_out().tolist() == peer.get_feature_names_out().tolist()
    # Each row is its own neighbour, with an entry even where that is 0.
    own = np.repeat(np.arange(len(rows)), np.diff(graph.indptr))
    assert set(own[graph.indices == own]) == set(range(len(rows)))


def test_pipelines_with_the_graph_are_those_without(rng, rows):
    y = rng.integers(0, 3, 90)
    plain = theirs.KNeighborsClassifier(5, algorithm="brute")
    graph = make_pipeline(KNeighborsTransformer(n_neighbors=8), theirs.KNeighborsClassifier(5, metric="precomputed"))
    new = rng.normal(size=(20, 5))
    assert np.array_equal(graph.fit(rows, y).predict(new), plain.fit(rows, y).predict(new))
    search = GridSearchCV(graph, {"kneighborsclassifier__n_neighbors": [1, 5]}, cv=3).fit(rows, y)
    direct = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 5]}, cv=3).fit(rows, y)
    assert np.array_equal(search.cv_results_["mean_test_score"], direct.cv_results_["mean_test_score"])


def test_clusters_of_scikit_learn(rows):
    groups = np.repeat(np.arange(3), 30)
    near = DBSCAN(eps=4.0, metric="precomputed")
    found = make_pipeline(KNeighborsTransformer(n_neighbors=29), near).fit_predict(rows)
    assert np.array_equal(found, DBSCAN(eps=4.0).fit_predict(rows))
    found = make_pipeline(
        KNeighborsTransformer(mode="connectivity", n_neighbors=31),
        SpectralClustering(3, affinity="precomputed_nearest_neighbors", n_neighbors=31, random_state=0),
    ).fit_predict(rows)
    assert adjusted_rand_score(groups, found) == 1
    by_density = HDBSCAN(metric="precomputed", copy=True)
    found = make_pipeline(KNeighborsTransformer(n_neighbors=89), by_density).fit_predict(rows)
    assert np.array_equal(found, HDBSCAN(copy=True).fit_predict(rows))


@pytest.mark.slow
def test_manifolds_of_scikit_learn(rows):
    settings = {"n_neighbors": 40, "n_components": 2}
    graph = KNeighborsTransformer(n_neighbors=40)
    found = make_pipeline(graph, Isomap(metric="precomputed", **settings)).fit_transform(rows)
    np.testing.assert_allclose(np.abs(found), np.abs(Isomap(**settings).fit_transform(rows)), atol=1e-6)
    settings = {"init": "random", "random_state": 0, "perplexity": 10, "method": "barnes_hut"}
    shown = make_pipeline(graph, TSNE(metric="precomputed", **settings)).fit_transform(rows)
    nearest = NearestNeighbors(n_neighbors=1).fit(shown).kneighbors(return_distance=False)[:, 0]
    assert (nearest // 30 == np.arange(90) // 30).mean() > 0.95


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs, from the import on
@pytest.mark.parametrize("package", ["umap", "openTSNE", "hdbscan"])
def test_packages_that_take_neighbors(rows, package):
    try:
        module = importlib.import_module(package)
    except ImportError:
        pytest.skip(f"{package} is not installed")
    indices = NearestNeighbors(n_neighbors=15).fit(rows).kneighbors(rows)[::-1]
    if package == "umap":
        shown = module.UMAP(n_neighbors=15, precomputed_knn=(*indices, None), random_state=0).fit_transform(rows)
    elif package == "openTSNE":
        affinities = module.affinity.PerplexityBasedNN(
            knn_index=module.nearest_neighbors.PrecomputedNeighbors(*(part[:, 1:] for part in indices)), perplexity=4
        )
        shown = module.TSNE(random_state=0).fit(affinities=affinities, initialization=rows[:, :2] * 1e-4)
    else:
        graph = KNeighborsTransformer(n_neighbors=89).fit_transform(rows)
        assert len(set(module.HDBSCAN(metric="precomputed").fit_predict(graph.toarray()))) >= 3
        return
    assert np.shape(shown) == (90, 2)


def test_clone_pickle_and_frames(rows):
    frame = pd.DataFrame(rows, columns=list("abcde"))
    for make in MODELS:
        model = make(n_neighbors=2).fit(frame)
        assert model.feature_names_in_.tolist() == list("abcde")
        with pytest.raises(ValueError, match="feature names"):
            model.kneighbors(frame[list("edcba")])
        copy = clone(model)
        assert copy.get_params() == model.get_params()
        with pytest.raises(NotFittedError):
            copy.kneighbors(rows)
        again = pickle.loads(pickle.dumps(model))
        assert np.array_equal(again.kneighbors()[1], model.kneighbors()[1])
    pipeline = make_pipeline(StandardScaler(), NearestNeighbors())
    assert pipeline.fit(rows)[-1].n_samples_fit_ == 90


def test_bytes_stay_bytes(rng):
    X = rng.integers(0, 256, (50, 7), dtype=np.uint8)
    model = NearestNeighbors(metric="l1").fit(X)
    assert model.kneighbors()[0].dtype == np.int32
    graph = KNeighborsTransformer(metric="l1").fit_transform(X)
    assert graph.dtype == np.float64  # estimators want floats
    assert np.array_equal(graph.toarray(), KNeighborsTransformer(metric="l1").fit_transform(X * 1.0).toarray())
    sort_graph_by_row_values(graph, warn_when_not_sorted=True)  # warnings are errors here


def test_of_equal_rows_the_earlier_are_neighbors():
    X = np.zeros((5, 1))
    assert NearestNeighbors(n_neighbors=2).fit(X).kneighbors()[1].tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1]]
    assert KNeighborsTransformer(n_neighbors=1).fit_transform(X).indices.reshape(5, 2).tolist() == [[0, 1]] * 5


def test_more_neighbors_than_rows(rows):
    model = NearestNeighbors(n_neighbors=200).fit(rows)
    with pytest.raises(ValueError, match="n_neighbors is 200; there are 90 training rows"):
        model.kneighbors(rows)
    with pytest.raises(
        ValueError, match="n_neighbors is 90; there are 90 training rows, and with mode='distance' it must be less"
    ):
        KNeighborsTransformer(n_neighbors=90).fit_transform(rows)


@pytest.mark.parametrize("metric", ["manhattan", "euclidean", "chebyshev"])
def test_neighbors_within_a_radius_are_scikit_learns(rng, rows, metric):
    ours = NearestNeighbors(radius=1.5, metric=metric).fit(rows)
    peer = theirs.NearestNeighbors(radius=1.5, metric=metric).fit(rows)
    for X, radius in ((None, None), (rng.normal(size=(20, 5)), 2.0)):
        found, expected = (model.radius_neighbors(X, radius, sort_results=True) for model in (ours, peer))
        for part in (0, 1):
            for one, other in zip(found[part], expected[part], strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-12)
        graphs = (model.radius_neighbors_graph(X, radius).toarray() for model in (ours, peer))
        np.testing.assert_array_equal(*graphs)


@pytest.mark.parametrize("algorithm", ["auto", "brute", "kd_tree", "ball_tree"])
@pytest.mark.parametrize("options", [{}, {"metric": "cosine"}, {"metric_params": {"w": [1, 0, 2, 3, 0.5]}}], ids=str)
def test_neighbors_are_the_same_whatever_the_algorithm(rows, algorithm, options):
    kept = NearestNeighbors(algorithm=algorithm, **options).fit(rows)
    expected = NearestNeighbors(**options).fit(rows).kneighbors()
    graph = NearestNeighbors(**options).fit(rows).radius_neighbors_graph(radius=0.3, mode="distance")
    for _ in range(2):
        for found, want in zip(kept.kneighbors(), expected, strict=True):
            np.testing.assert_array_equal(found, want)
        found = kept.radius_neighbors_graph(radius=0.3, mode="distance")
        np.testing.assert_array_equal(found.indices, graph.indices)
        np.testing.assert_array_equal(found.data, graph.data)
