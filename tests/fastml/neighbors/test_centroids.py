"""NearestCentroid: scikit-learn's rules, scikit-learn's answers, and our own promises."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from sklearn import neighbors as theirs
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from fastml import NearestCentroid

# As scikit-learn's own: array API objects need an environment variable that SciPy reads at its first import.
SKIPPED = {"check_array_api_input"}

ATTRIBUTES = ("centroids_", "deviations_", "within_class_std_dev_", "class_prior_")


@pytest.fixture(params=[2, 4])
def data(request, rng):
    """Training rows, labels, and rows to classify."""
    y = rng.permutation(np.arange(120) % request.param)
    y[:20] = 0  # not equally many
    return rng.normal(size=(120, 6)) + y[:, np.newaxis], np.array(["a", "b", "c", "d"])[y], rng.normal(size=(50, 6))


@pytest.mark.needs_jit
@pytest.mark.parametrize(
    "model",
    [
        NearestCentroid(),
        NearestCentroid("manhattan", shrink_threshold=0.3, n_jobs=2),
        NearestCentroid(priors="empirical"),
    ],
    ids=repr,
)
def test_scikit_learns_checks(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(model, on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] in ("failed", "xfail")] == []
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= SKIPPED
    assert len(results) > 40


def test_names_and_defaults_are_scikit_learns():
    params = NearestCentroid().get_params()
    assert params.pop("n_jobs") is None
    assert params == theirs.NearestCentroid().get_params()


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
@pytest.mark.parametrize("threshold", [None, 0.4, 100.0])
@pytest.mark.parametrize("priors", ["uniform", "empirical", "given"])
def test_answers_are_scikit_learns(data, metric, threshold, priors):
    X, y, new = data
    n_classes = len(set(y))
    given = (np.arange(1, n_classes + 1) / (n_classes * (n_classes + 1) / 2)).tolist()
    settings = {"metric": metric, "shrink_threshold": threshold, "priors": given if priors == "given" else priors}
    ours, peer = NearestCentroid(**settings).fit(X, y), theirs.NearestCentroid(**settings).fit(X, y)
    for name in ATTRIBUTES:
        np.testing.assert_allclose(getattr(ours, name), getattr(peer, name), rtol=1e-10, atol=1e-12)
    if threshold != 100.0 or priors != "uniform":  # all centroids are the same one, up to rounding
        assert np.array_equal(ours.predict(new), peer.predict(new))
    for name in ("decision_function", "predict_proba", "predict_log_proba"):
        assert hasattr(ours, name) == hasattr(peer, name) == (metric == "euclidean")
        if metric == "euclidean":
            np.testing.assert_allclose(getattr(ours, name)(new), getattr(peer, name)(new), rtol=1e-8, atol=1e-10)
    assert ours.score(X, y) == pytest.approx(peer.score(X, y), abs=1e-12) or threshold == 100.0


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_centroids_are_exact_in_all_dtypes(rng, metric, dtype):
    X, y = rng.integers(0, 200, (300, 4)).astype(dtype), np.arange(300) % 3
    found = NearestCentroid(metric).fit(X, y)
    for name in ATTRIBUTES:
        np.testing.assert_allclose(getattr(found, name), getattr(NearestCentroid(metric).fit(X * 1.0, y), name), 1e-12)
    center = np.mean if metric == "euclidean" else np.median
    expected = [center(X[y == label].astype(np.float64), axis=0) for label in range(3)]
    np.testing.assert_allclose(found.centroids_, expected, rtol=1e-12)


def test_of_equally_near_centroids_the_first_wins():
    model = NearestCentroid().fit([[0.0], [1.0], [3.0], [4.0]], [7, 7, 5, 5])
    assert model.predict([[2.0]]).tolist() == [5]


def test_what_is_constant_within_classes_keeps_its_centroids(rng):
    """Its deviations are infinite, so nothing is left of them by arithmetic, and all of them by meaning."""
    y = np.arange(60) % 2
    X = np.column_stack([y, 3 * y, y, rng.normal(size=60)])
    with pytest.warns(UserWarning, match="constant within all classes"):
        model = NearestCentroid(shrink_threshold=0.5).fit(X, y)
    assert model.centroids_[:, :3].tolist() == [[0, 0, 0], [1, 3, 1]]
    assert model.score(X, y) == 1
    assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([[1.0], [2.0]], [1, 1], "y has 1 class; at least two"),
        ([[1.0], [1.0]], [1, 2], "all rows of X are equal"),
        ([[1.0], [2.0]], [0.5, 1.5], "continuous"),
    ],
)
def test_what_cannot_be_fitted(X, y, message):
    with pytest.raises(ValueError, match=message):
        NearestCentroid().fit(X, y)


def test_priors(data):
    X, y, new = data
    n_classes = len(set(y))
    with pytest.warns(UserWarning, match="divided"):
        scaled = NearestCentroid(priors=np.arange(1, n_classes + 1)).fit(X, y)
    assert scaled.class_prior_.sum() == pytest.approx(1)
    impossible = NearestCentroid(priors=np.eye(n_classes)[0]).fit(X, y)
    assert set(impossible.predict(new)) == {"a"}
    assert impossible.predict_proba(new)[:, 0].tolist() == [1.0] * 50


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_priors_that_are_equal_but_for_rounding_are_equal(rng, metric):
    priors = [1 / 3, 1 / 3, 1 - 2 / 3]
    assert len(set(priors)) > 1
    y, scales = np.arange(60) % 3, np.array([10, 1, 0.1])
    X, new = rng.normal(size=(60, 3)) * scales, rng.normal(size=(200, 3)) * scales
    found = NearestCentroid(metric, priors=priors).fit(X, y).predict(new)
    assert np.array_equal(found, NearestCentroid(metric).fit(X, y).predict(new))
    assert np.array_equal(found, theirs.NearestCentroid(metric, priors=priors).fit(X, y).predict(new))


def test_one_row_for_each_class():
    """There are centroids, but no deviations from them: NaN would make the first class the nearest."""
    X, y = [[0.0, 0.0], [5.0, 5.0], [9.0, 1.0]], [0, 1, 2]
    assert NearestCentroid().fit(X, y).predict(X).tolist() == y
    with pytest.raises(ValueError, match="one row for each class"):
        NearestCentroid(shrink_threshold=0.1).fit(X, y)
    model = NearestCentroid(priors=[0.5, 0.25, 0.25]).fit(X, y)
    for name in ("predict", "decision_function", "predict_proba", "predict_log_proba"):
        with pytest.raises(ValueError, match="one row for each class"):
            getattr(model, name)(X)


def test_medians_of_large_float32():
    X = np.array([[3e38], [3.2e38], [1.0], [2.0]], np.float32)
    expected = [[np.median(X[:2].astype(float))], [1.5]]
    assert NearestCentroid("manhattan").fit(X, [0, 0, 1, 1]).centroids_.tolist() == expected


@pytest.mark.parametrize("priors", [["a", "b", "c"], [1j, 1.0, 1.0]])
def test_priors_that_are_no_numbers_are_refused_by_name(data, priors):
    with pytest.raises(TypeError, match="priors has dtype"):
        NearestCentroid(priors=priors).fit(*data[:2])


def test_predictions_in_any_batch_and_pipeline(data, same_bits):
    X, y, new = data
    model = NearestCentroid(priors="empirical").fit(X, y)
    whole = model.decision_function(new)
    same_bits(np.concatenate([model.decision_function(new[i : i + 1]) for i in range(50)]), whole)
    same_bits(clone(model).set_params(n_jobs=2).fit(X, y).decision_function(new), whole)
    pipeline = make_pipeline(StandardScaler(), NearestCentroid()).fit(X, y)
    assert np.array_equal(pickle.loads(pickle.dumps(pipeline)).predict(new), pipeline.predict(new))
