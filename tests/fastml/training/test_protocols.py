"""Estimators have what the protocols name by which their training reads them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import fastml
from fastml import ConvNetClassifier, MLPClassifier, MLPRegressor, SGDClassifier, SGDRegressor
from fastml.training.data import IterativeEstimator, TrainingSettings

#: What a model has after some fits only.
SOMETIMES = {"_checkpoint", "classes_"}

SGD = [SGDClassifier(max_iter=2), SGDRegressor(max_iter=2)]
MLP = [MLPClassifier((3,), max_iter=2), MLPRegressor(hidden_layer_sizes=(3,), max_iter=2)]
CONV = [ConvNetClassifier([], max_iter=2)]
MODELS = {
    "TrainingSettings": [*SGD, *MLP, *CONV], "IterativeEstimator": [*SGD, *MLP, *CONV], "SGDEstimator": SGD,
    "StepSettings": SGD, "NetworkEstimator": [*MLP, *CONV], "MLPEstimator": MLP, "ConvNetEstimator": CONV,
}  # fmt: skip


def protocols() -> dict[str, type]:
    """Return the protocols of estimators by name, wherever they stand."""
    names = [one.name for one in pkgutil.walk_packages(fastml.__path__, "fastml.")]
    modules = [importlib.import_module(name) for name in names if not name.startswith(("fastml.kernels", "fastml.__"))]
    return {
        value.__name__: value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value) and getattr(value, "_is_protocol", False)
        if value.__name__.endswith(("Settings", "Estimator"))
    }


def members(protocol: type) -> set[str]:
    """Return what a protocol and those that it extends name."""
    found: set[str] = set()
    for base in protocol.__mro__:
        if getattr(base, "_is_protocol", False) and base.__module__.startswith("fastml"):
            found |= set(inspect.get_annotations(base))
            found |= {name for name, value in vars(base).items() if inspect.isfunction(value)}
    return {name for name in found if not name.startswith("__")} - {"_no_init_or_replace_init"}


def test_every_protocol_of_estimators_has_its_models():
    assert protocols().keys() == MODELS.keys()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", MODELS)
def test_estimators_have_what_their_training_reads(rng, name):
    names = members(protocols()[name])
    assert len(names) > 3
    X = rng.normal(size=(40, 3))
    for model in MODELS[name]:
        model.fit(X, (X[:, 0] > 0).astype(float))
        assert {name for name in names if name[0] != "_" and name[-1] != "_"} <= model.get_params().keys()
        assert {name for name in names - SOMETIMES if not hasattr(model, name)} == set()


def test_members_are_found():
    assert "batch_size" in members(TrainingSettings)
    assert {"max_iter", "t_", "_new_targets", "_fitted_with"} <= members(IterativeEstimator)
