"""knn_cross_validation with weights of rows and of columns: what models fitted on each fold would say."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import get_scorer, make_scorer, mean_absolute_error, r2_score
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneOut,
    PredefinedSplit,
    RepeatedKFold,
    ShuffleSplit,
    TimeSeriesSplit,
)

from fastml import KNeighborsClassifier, KNeighborsRegressor, knn_cross_validation
from fastml.kernels.neighbors import nearest

K = (1, 6)
W = {"w": [1.0, 0.0, 2.5]}
FEW = PredefinedSplit(np.where(np.arange(90) < 20, np.arange(90) % 2, -1))  # most rows are not tested
TWICE = [(np.arange(90) // 2 + 30, np.arange(30))]  # rows are trained on twice

CVS = [
    KFold(4, shuffle=True, random_state=0),
    GroupKFold(3),
    RepeatedKFold(n_splits=3, n_repeats=2, random_state=0),
    ShuffleSplit(3, random_state=0),
    FEW,
    TWICE,
]


@pytest.fixture
def weight(rng):
    """Weights far apart, so that some rows must look far, and some of 0."""
    return np.where(rng.random(90) < 0.2, 0, rng.lognormal(0, 2, 90))


@pytest.mark.parametrize("make", [KNeighborsClassifier, KNeighborsRegressor])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("cv", CVS, ids=lambda cv: type(cv).__name__)
@pytest.mark.parametrize("weighed", [True, False])
def test_scores_and_predictions_are_those_of_models(data, weight, same_bits, make, weights, cv, weighed):
    X, y = data[0].astype(np.float64), data[1]
    groups = np.arange(90) // 7 if isinstance(cv, GroupKFold) else None
    task = "classification" if make is KNeighborsClassifier else "regression"
    options = {"metrics": ["l1", "l2"], "weights": weights, "metric_params": W, "task": task}
    asked = weight if weighed else None
    found = knn_cross_validation(X, y, n_neighbors=K, cv=cv, groups=groups, sample_weight=asked, **options)
    for m, metric in enumerate(found.metrics):
        for c, k in enumerate(K):
            for fold, (train, test) in enumerate(cv if cv is TWICE else cv.split(X, y, groups)):
                train = np.sort(train)
                model = make(k, metric=metric, weights=weights, metric_params=W)
                model.fit(X[train], y[train], None if asked is None else asked[train])
                score = model.score(X[test], y[test], None if asked is None else asked[test])
                assert found.scores[m, c, fold] == score
                if found.predictions is not None:
                    same_bits(found.predictions[m, c, test], model.predict(X[test]))
    assert found.best_params["metric_params"] is W


def test_one_search_serves_all_folds(data, monkeypatch):
    calls = []
    search = nearest.k_nearest
    monkeypatch.setattr(nearest, "k_nearest", lambda *args, **rest: calls.append(args) or search(*args, **rest))
    knn_cross_validation(*data, n_neighbors=K, cv=RepeatedKFold(n_splits=5, n_repeats=3), sample_weight=np.full(90, 2))
    assert len(calls) == 3


def test_a_row_of_weight_w_is_w_equal_rows_of_one_fold(data, rng):
    X, y = data
    weight = rng.integers(0, 4, 90)
    rows = np.repeat(np.arange(90), weight)
    fold = rng.integers(0, 4, 90)
    found = knn_cross_validation(X, y, n_neighbors=K, cv=PredefinedSplit(fold), sample_weight=weight)
    repeated = knn_cross_validation(X[rows], y[rows], n_neighbors=K, cv=PredefinedSplit(fold[rows]))
    np.testing.assert_allclose(found.scores, repeated.scores, rtol=1e-14)
    assert np.array_equal(found.predictions[:, :, rows], repeated.predictions)


def test_scorers_get_the_weights(data, rng, weight):
    X, y = data[0], data[1] + rng.normal(size=90)
    own = make_scorer(mean_absolute_error, greater_is_better=False)
    for scoring in ("neg_mean_absolute_error", own):
        found = knn_cross_validation(X, y, n_neighbors=3, cv=KFold(3), sample_weight=weight, scoring=scoring)
        for fold, (_, test) in enumerate(KFold(3).split(X)):
            error = mean_absolute_error(y[test], found.predictions[0, 0, test], sample_weight=weight[test])
            assert found.scores[0, 0, fold] == -error
    with pytest.raises(TypeError, match="sample_weight"):
        knn_cross_validation(X, y, cv=KFold(3), sample_weight=weight, scoring=lambda model, X, y: 0.0)


def test_several_outputs_and_probabilities(data, weight, same_bits):
    X, cv = data[0].astype(np.float64), KFold(4)
    flags = np.column_stack([data[1] > 1, X[:, 0] > 2]) * 1
    for y, make in ((flags, KNeighborsClassifier), (flags * 0.5, KNeighborsRegressor)):
        found = knn_cross_validation(X, y, n_neighbors=4, weights="distance", cv=cv, sample_weight=weight)
        for fold, (train, test) in enumerate(cv.split(X)):
            model = make(4, weights="distance").fit(X[train], y[train], weight[train])
            same_bits(found.predictions[0, 0, test], model.predict(X[test]))
            assert found.scores[0, 0, fold] == model.score(X[test], y[test], weight[test])
    found = knn_cross_validation(X, data[1], n_neighbors=9, cv=cv, sample_weight=weight, scoring="neg_log_loss")
    for fold, (train, test) in enumerate(cv.split(X)):
        model = KNeighborsClassifier(9).fit(X[train], data[1][train], weight[train])
        assert found.scores[0, 0, fold] == get_scorer("neg_log_loss")(
            model, X[test], data[1][test], sample_weight=weight[test]
        )


@pytest.mark.parametrize("kind", ["labels", "numbers"])
def test_folds_of_one_row_are_scored_together(data, rng, weight, kind):
    X, y = data[0], data[1] if kind == "labels" else data[1] + rng.normal(size=90)
    found = knn_cross_validation(X, y, n_neighbors=2, cv=LeaveOneOut(), sample_weight=weight)
    assert found.pooled
    model = (KNeighborsClassifier if kind == "labels" else KNeighborsRegressor)(2).fit(X, y, weight)
    assert np.array_equal(found.predictions[0, 0], model.predict(None))
    assert found.scores.tolist() == [[[model.score(None, y, weight)]]]


def test_folds_of_one_row_need_not_look_equally_far(data, weight):
    """Each trains on its own rows, of which more or fewer fill the places."""
    X, y, splitter = data[0], data[1].astype(np.float64), TimeSeriesSplit(20, test_size=1)
    found = knn_cross_validation(X, y, n_neighbors=4, cv=splitter, task="regression", sample_weight=weight)
    tests = np.arange(70, 90)
    predicted = [
        KNeighborsRegressor(4).fit(X[:test], y[:test], weight[:test]).predict(X[test : test + 1])[0] for test in tests
    ]
    assert found.scores.tolist() == [[[r2_score(y[tests], predicted, sample_weight=weight[tests])]]]


def test_what_is_refused(data, weight):
    X, y = data
    with pytest.raises(ValueError, match=r"the smallest training set weighs 0\.6"):
        knn_cross_validation(X, y, cv=KFold(3), sample_weight=np.full(90, 0.01))
    with pytest.raises(ValueError, match="n_neighbors is 7; the smallest training set weighs 6"):
        knn_cross_validation(X, y, n_neighbors=7, cv=KFold(3), sample_weight=np.full(90, 0.1))
    with pytest.raises(ValueError, match="fold 1 of cv tests only rows of weight 0"):
        knn_cross_validation(X, y, cv=KFold(3), sample_weight=np.repeat([1, 0, 1], 30))
    with pytest.raises(ValueError, match=r"sample_weight has shape \(3,\)"):
        knn_cross_validation(X, y, sample_weight=[1, 2, 3])
    with pytest.raises(ValueError, match="cosine"):
        knn_cross_validation(X, y, metrics=["l2", "cosine"], metric_params=W)
