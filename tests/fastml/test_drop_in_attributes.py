"""An import replaced: fitted models have the attributes of scikit-learn's fitted twins, with their shapes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn import linear_model, neural_network, svm
from sklearn.base import is_classifier

import fastml
from versions import SKLEARN

SETTINGS = {
    "LinearRegression": (linear_model.LinearRegression, {}),
    "LinearSVC": (svm.LinearSVC, {}),
    "LogisticRegression": (linear_model.LogisticRegression, {}),
    "MLPClassifier": (neural_network.MLPClassifier, {"hidden_layer_sizes": (4, 3), "max_iter": 3}),
    "MLPRegressor": (neural_network.MLPRegressor, {"hidden_layer_sizes": (4, 3), "max_iter": 3}),
    "Ridge": (linear_model.Ridge, {}),
    "SGDClassifier": (linear_model.SGDClassifier, {"max_iter": 4, "tol": None}),
    "SGDRegressor": (linear_model.SGDRegressor, {"max_iter": 4, "tol": None}),
}
CASES = [
    *[(name, {}, targets) for name in SETTINGS for targets in ("one", "several")],
    *[(name, {"early_stopping": True}, "one") for name in ("MLPClassifier", "MLPRegressor", "SGDClassifier")],
    ("SGDClassifier", {"average": True}, "several"),
]  # fmt: skip


def fitted(model, targets: str, seed: int):
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.normal(size=(60, 3)), columns=["a", "b", "c"])
    y = X.to_numpy() @ rng.normal(size=(3, 3))
    if is_classifier(model):
        y = np.array(["x", "y", "z"])[(y[:, 0] > 0).astype(int) if targets == "one" else y.argmax(axis=1)]
    else:
        y = y[:, 0] if targets == "one" else y
    return model.fit(X, y)


def attributes(model) -> dict[str, object]:
    """Return what is fitted; properties of the class too."""
    names = {*vars(model), *[name for name in dir(type(model)) if isinstance(getattr(type(model), name), property)]}
    return {name: getattr(model, name) for name in sorted(names) if name[-1] == "_" and name[0] != "_"}


def form(value: object) -> object:
    """Return what a caller relies on: of arrays shape and kind, of lists the forms, of the rest what it is."""
    if value is None:
        return None
    if isinstance(value, list):
        return [form(each) for each in value]
    if isinstance(value, str):
        return "text"
    array = np.asarray(value)
    return array.shape, "number" if array.dtype.kind in "iuf" else array.dtype.kind


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("name", "more", "targets"), CASES, ids=str)
def test_the_twins_attributes_are_there(name, more, targets, seed):
    twin, settings = SETTINGS[name]
    if name == "SGDRegressor" and targets == "several":
        pytest.skip("the twin has one target")
    if more.get("early_stopping") and SKLEARN < (1, 7):
        pytest.skip("the twin of scikit-learn 1.6 stops early with labels that are numbers only")
    settings = settings | more
    theirs = attributes(fitted(twin(**settings), targets, seed))
    ours = attributes(fitted(getattr(fastml, name)(**settings), targets, seed))
    assert "feature_names_in_" in theirs
    assert theirs.keys() - ours.keys() == set()
    forms = {each: form(value) for each, value in theirs.items()}
    if name == "Ridge":  # check_estimator asks for a number where there is a `max_iter`; the twin is not asked
        assert (forms.pop("n_iter_"), ours["n_iter_"]) == (None, 1)
    assert {each: form(ours[each]) for each in forms} == forms
    for each in ("classes_", "feature_names_in_", "n_features_in_", "n_layers_", "n_outputs_", "out_activation_"):
        if each in theirs:
            assert np.array_equal(ours[each], theirs[each])


def test_forms_differ():
    values = [
        None,
        1.0,
        "text",
        np.ones(2),
        np.ones((2, 1)),
        [1.0, 2.0],
        np.array(["a", "b"], object),
        np.array(["a", "b"]),
    ]
    forms = [form(value) for value in values]
    assert all(forms.index(each) == place for place, each in enumerate(forms))


def test_losses_and_scores_of_networks_are_those_of_the_history(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, 3))
    y = (X[:, 0] > 0).astype(int)
    model = fastml.MLPClassifier((4,), max_iter=5, tol=None, random_state=0)
    assert not hasattr(model, "loss_curve_")
    model.fit(X, y)
    assert model.loss_curve_ == model.history_["train_loss"].tolist()
    assert len(model.loss_curve_) == model.n_iter_ == 5
    assert model.loss_ == model.loss_curve_[-1]
    assert model.best_loss_ == min(model.loss_curve_)
    assert model.validation_scores_ is model.best_validation_score_ is None
    model.fit(X, y, X_val=X, y_val=y)
    assert model.validation_scores_ == model.history_["validation_score"].tolist()
    assert model.best_validation_score_ == max(model.validation_scores_)
    model.set_params(early_stopping=True).fit(X, y)
    assert model.best_loss_ is None
    assert len(model.validation_scores_) == model.n_iter_
