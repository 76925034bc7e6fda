"""An import replaced: models in pipelines, with metadata that is routed, validation rows and names of columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone, is_classifier
from sklearn.model_selection import cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import fastml
from versions import SKLEARN

LONG = {"max_iter": 4, "tol": None, "random_state": 0}
VALIDATED = {
    "MLPClassifier": fastml.MLPClassifier((3,), **LONG),
    "MLPRegressor": fastml.MLPRegressor(hidden_layer_sizes=(3,), **LONG),
    "SGDClassifier": fastml.SGDClassifier(**LONG),
    "SGDRegressor": fastml.SGDRegressor(**LONG),
}
WEIGHTED = {
    **VALIDATED,
    "LinearRegression": fastml.LinearRegression(),
    "LinearSVC": fastml.LinearSVC(random_state=0),
    "LogisticRegression": fastml.LogisticRegression(),
    "Ridge": fastml.Ridge(),
}


@pytest.fixture
def problem(seed):
    """Rows of columns far from 0, as a table, with weights: ``problem(model)``."""

    def make(model):
        rng = np.random.default_rng(seed)
        X = pd.DataFrame(100 + 10 * rng.normal(size=(60, 3)), columns=["a", "b", "c"])
        y = X["a"].to_numpy() - X["b"].to_numpy() + rng.normal(size=60)
        return X, (y > 0).astype(int) if is_classifier(model) else y, rng.uniform(0.1, 1.0, size=60)

    return make


@pytest.mark.skipif(SKLEARN < (1, 7), reason="a search hands a pipeline's score no weights in scikit-learn 1.6")
@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_are_routed_to_a_pipeline_in_a_search(name, problem):
    model = WEIGHTED[name]
    X, y, weight = problem(model)
    scale = StandardScaler().set_output(transform="pandas")
    with sklearn.config_context(enable_metadata_routing=True):
        scale = scale.set_fit_request(sample_weight=False)
        routed = clone(model).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        found = cross_validate(
            make_pipeline(scale, routed), X, y, params={"sample_weight": weight}, cv=2, return_estimator=True
        )
    plain = cross_validate(make_pipeline(StandardScaler(), model), X, y, cv=2)
    assert all(np.isfinite(found["test_score"]))
    assert found["estimator"][0][-1].feature_names_in_.tolist() == ["a", "b", "c"]
    assert (found["test_score"] != plain["test_score"]).any()


def test_weights_that_nobody_asked_for_are_refused(problem):
    model = fastml.Ridge()
    X, y, weight = problem(model)
    with (
        sklearn.config_context(enable_metadata_routing=True),
        pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="sample_weight"),
    ):
        cross_validate(model, X, y, params={"sample_weight": weight}, cv=2)


@pytest.mark.parametrize("name", VALIDATED)
def test_a_pipeline_transforms_validation_rows(name, problem, same_bits):
    model = VALIDATED[name]
    X, y, weight = problem(model)
    (X, X_val), (y, y_val), (weight, weight_val) = [(part[:40], part[40:]) for part in (X, y, weight)]
    request = dict.fromkeys(("X_val", "y_val", "sample_weight", "sample_weight_val"), True)
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = Pipeline(
            [
                ("scale", StandardScaler().set_fit_request(sample_weight=False).set_output(transform="pandas")),
                ("model", clone(model).set_fit_request(**request)),
            ],
            transform_input=["X_val"],
        )
        pipeline.fit(X, y, X_val=X_val, y_val=y_val, sample_weight=weight, sample_weight_val=weight_val)
    scaler = StandardScaler().fit(X)
    by_hand = clone(model).fit(
        scaler.transform(X), y, X_val=scaler.transform(X_val), y_val=y_val, sample_weight=weight,
        sample_weight_val=weight_val,
    )  # fmt: skip
    for column in ("train_loss", "validation_loss", "validation_score"):
        same_bits(pipeline[-1].history_[column], by_hand.history_[column])
    assert pipeline[-1].feature_names_in_.tolist() == ["a", "b", "c"]
    # Without being told so it hands them on as they are: the trap that the guide shows.
    unscaled = make_pipeline(StandardScaler(), clone(model))
    step = unscaled.steps[-1][0]
    rows = X_val.to_numpy()
    unscaled.fit(X, y, **{f"{step}__X_val": rows, f"{step}__y_val": y_val})
    trapped = clone(model).fit(scaler.transform(X), y, X_val=rows, y_val=y_val)
    same_bits(unscaled[-1].history_["validation_loss"], trapped.history_["validation_loss"])


def test_imputed_tables_keep_their_names(problem):
    X, y, _ = problem(fastml.Ridge())
    X.iloc[3, 1] = np.nan
    pipeline = make_pipeline(fastml.KNNImputer(), StandardScaler(), fastml.Ridge()).set_output(transform="pandas")
    pipeline.fit(X, y)
    assert pipeline[-1].feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        pipeline.predict(X[["b", "a", "c"]])
