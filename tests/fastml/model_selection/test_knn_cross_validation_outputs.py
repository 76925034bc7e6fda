"""knn_cross_validation with several outputs for each row: what models fitted on each fold would say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import KFold, LeaveOneOut, RepeatedKFold, ShuffleSplit

from fastml import KNeighborsClassifier, KNeighborsRegressor, knn_cross_validation

K = (1, 4)


@pytest.fixture
def targets(data, rng):
    """Two outputs of each kind: numbers, flags, labels."""
    X, y = data
    numbers = np.column_stack([y + rng.normal(size=90), X[:, 0] * 0.5])
    return {"numbers": numbers, "flags": np.column_stack([y > 1, X[:, 0] > 2]) * 1, "labels": np.stack([y, y[::-1]], 1)}


def share_right(y, predicted):
    return float((np.asarray(y) == predicted).mean())


def asked(kind):
    return {"scoring": make_scorer(share_right)} if kind == "labels" else {}


@pytest.mark.parametrize("kind", ["numbers", "flags", "labels"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize(
    "cv", [KFold(4), RepeatedKFold(n_splits=3, n_repeats=2, random_state=0), ShuffleSplit(3, random_state=0)], ids=repr
)
def test_scores_and_predictions_are_those_of_models_fitted_on_each_fold(data, targets, same_bits, kind, weights, cv):
    X, y = data[0].astype(np.float64), targets[kind]
    found = knn_cross_validation(X, y, n_neighbors=K, metrics=["l1", "l2"], weights=weights, cv=cv, **asked(kind))
    assert found.task == ("regression" if kind == "numbers" else "classification")
    make = KNeighborsRegressor if kind == "numbers" else KNeighborsClassifier
    for m, metric in enumerate(found.metrics):
        for c, k in enumerate(K):
            for fold, (train, test) in enumerate(cv.split(X)):
                train = np.sort(train)
                model = make(k, metric=metric, weights=weights).fit(X[train], y[train])
                predicted = model.predict(X[test])
                score = share_right(y[test], predicted) if kind == "labels" else model.score(X[test], y[test])
                assert found.scores[m, c, fold] == score
                if isinstance(cv, KFold):
                    same_bits(found.predictions[m, c, test], predicted)
    assert (found.predictions is not None) == isinstance(cv, KFold)


def test_a_number_of_folds_and_frames(data, targets):
    X = data[0]
    for kind, y in targets.items():
        found = knn_cross_validation(X, y, n_neighbors=3, cv=5, random_state=0, **asked(kind))
        again = knn_cross_validation(X, pd.DataFrame(y), n_neighbors=3, cv=5, random_state=0, **asked(kind))
        assert found.predictions.shape == (1, 1, 90, 2)
        assert np.array_equal(again.scores, found.scores)
        assert np.array_equal(np.bincount(found.test_fold), [18] * 5)


def test_folds_of_one_row_are_scored_together(data, targets):
    X, y = data[0], targets["numbers"]
    found = knn_cross_validation(X, y, n_neighbors=K, cv=LeaveOneOut())
    assert found.pooled
    for c in range(len(K)):
        assert found.scores[0, c, 0] == r2_score(y, found.predictions[0, c])
    flags = knn_cross_validation(X, targets["flags"], n_neighbors=K, cv=LeaveOneOut())
    assert not flags.pooled
    assert flags.scores.shape == (1, 2, 90)


def test_shares_of_votes_are_a_list(data, targets):
    """A scorer finds what the model would give it: an array and its labels for each output."""
    X, y = data[0], targets["labels"]

    def sharpness(model, X, y):
        assert len(model.classes_) == len(model.predict_proba(X)) == 2
        return float(np.mean([shares.max(axis=1).mean() for shares in model.predict_proba(X)]))

    cv = KFold(3)
    found = knn_cross_validation(X, y, n_neighbors=4, cv=cv, scoring=sharpness)
    expected = [sharpness(KNeighborsClassifier(4).fit(X[train], y[train]), X[test], y) for train, test in cv.split(X)]
    np.testing.assert_allclose(found.scores[0, 0], expected, rtol=1e-15)


def test_labels_of_several_outputs_need_a_score(data, targets):
    with pytest.raises(ValueError, match=r"y has 2 columns of labels that are not 0 or 1; .*give scoring"):
        knn_cross_validation(data[0], targets["labels"], n_neighbors=1)


def test_quantities_in_one_of_the_columns_are_told(data):
    y = np.stack([np.arange(90) % 2, np.arange(90) * 3], axis=1)
    with pytest.warns(UserWarning, match="90 different whole numbers"):
        knn_cross_validation(data[0], y, n_neighbors=1, scoring=make_scorer(share_right))
