"""LocalOutlierFactor: scikit-learn's rules, scikit-learn's answers, and our own promises."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from sklearn import neighbors as theirs
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from fastml import LocalOutlierFactor

# As scikit-learn's own: array API objects need an environment variable that SciPy reads at its first import.
SKIPPED = {"check_array_api_input"}


@pytest.fixture
def rows(rng):
    """Rows without ties, and a few far from all others."""
    return np.concatenate([rng.normal(size=(100, 3)), rng.normal(size=(5, 3)) * 10])


@pytest.mark.needs_jit
@pytest.mark.parametrize(
    "model",
    [LocalOutlierFactor(), LocalOutlierFactor(novelty=True), LocalOutlierFactor(5, metric="l1", contamination=0.1)],
    ids=repr,
)
def test_scikit_learns_checks(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few rows
        results = check_estimator(model, on_fail=None, on_skip=None)
    assert [(r["check_name"], r["exception"]) for r in results if r["status"] in ("failed", "xfail")] == []
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= SKIPPED
    assert len(results) > 40


def test_names_and_defaults_are_scikit_learns():
    expected, params = theirs.LocalOutlierFactor().get_params(), LocalOutlierFactor().get_params()
    assert params == expected


@pytest.mark.parametrize("metric", ["manhattan", "euclidean", "chebyshev"])
@pytest.mark.parametrize("contamination", ["auto", 0.07])
@pytest.mark.parametrize("k", [1, 20])
def test_factors_are_scikit_learns(rng, rows, metric, contamination, k):
    settings = {"n_neighbors": k, "metric": metric, "contamination": contamination}
    ours, peer = LocalOutlierFactor(**settings), theirs.LocalOutlierFactor(**settings)
    assert np.array_equal(ours.fit_predict(rows), peer.fit_predict(rows))
    np.testing.assert_allclose(ours.negative_outlier_factor_, peer.negative_outlier_factor_, rtol=1e-10)
    assert ours.offset_ == pytest.approx(peer.offset_, rel=1e-10)
    assert ours.n_neighbors_ == peer.n_neighbors_
    new = rng.normal(size=(40, 3)) * 3
    ours, peer = ours.set_params(novelty=True).fit(rows), peer.set_params(novelty=True).fit(rows)
    np.testing.assert_allclose(ours.score_samples(new), peer.score_samples(new), rtol=1e-10)
    np.testing.assert_allclose(ours.decision_function(new), peer.decision_function(new), rtol=1e-9, atol=1e-12)
    assert np.array_equal(ours.predict(new), peer.predict(new))
    assert ours.predict(new).dtype == peer.predict(new).dtype


def test_dtypes(rows):
    single = rows.astype(np.float32)
    ours, peer = LocalOutlierFactor().fit(single), theirs.LocalOutlierFactor().fit(single)
    assert ours.negative_outlier_factor_.dtype == peer.negative_outlier_factor_.dtype == np.float32
    np.testing.assert_allclose(ours.negative_outlier_factor_, peer.negative_outlier_factor_, rtol=1e-5)
    coarse = (rows * 10 + 128).clip(0, 255).astype(np.uint8)
    for metric in ("l1", "l2"):
        factors = LocalOutlierFactor(metric=metric).fit(coarse).negative_outlier_factor_
        expected = LocalOutlierFactor(metric=metric).fit(coarse.astype(float)).negative_outlier_factor_
        assert factors.dtype == np.float64
        np.testing.assert_allclose(factors, expected, rtol=1e-6)


def test_methods_are_those_of_the_task(rows):
    plain, novelty = LocalOutlierFactor().fit(rows), LocalOutlierFactor(novelty=True).fit(rows)
    for name in ("predict", "decision_function", "score_samples"):
        assert hasattr(novelty, name)
        with pytest.raises(AttributeError):
            getattr(plain, name)
    assert not hasattr(novelty, "fit_predict")
    with pytest.raises(NotFittedError):
        LocalOutlierFactor(novelty=True).predict(rows)


def test_few_rows_and_many_of_the_same(rows):
    with pytest.warns(UserWarning, match="n_neighbors is 20, X has 6 rows"):
        assert LocalOutlierFactor().fit(rows[:6]).n_neighbors_ == 5
    many = np.array([[0.0]] * 12 + [[1.0], [1.1]])
    with pytest.warns(UserWarning, match="many times"):
        LocalOutlierFactor(3).fit(many)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LocalOutlierFactor(3, novelty=True).fit(many)


def test_a_factor_depends_on_its_row_alone(rng, rows, same_bits):
    model = LocalOutlierFactor(novelty=True).fit(rows)
    new = rng.normal(size=(30, 3))
    whole = model.score_samples(new)
    same_bits(np.concatenate([model.score_samples(new[i : i + 1]) for i in range(30)]), whole)
    same_bits(clone(model).set_params(n_jobs=2).fit(rows).score_samples(new), whole)
    same_bits(pickle.loads(pickle.dumps(model)).score_samples(new), whole)
