"""Estimators have what the protocols name by which training and plots read them."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from fastml import (
    ConvNetClassifier,
    MLPClassifier,
    MLPRegressor,
    SGDClassifier,
    SGDRegressor,
    knn_cross_validation,
)
from fastml.linear_model._optimal_steps import StepSettings
from fastml.linear_model.sgd_fitting import SGDEstimator
from fastml.neural_network._convolutional_fit import ConvNetEstimator
from fastml.neural_network._mlp_fit import MLPEstimator
from fastml.plot._curves import CrossValidated
from fastml.training.data import IterativeEstimator

#: What a model has after some fits only.
SOMETIMES = {"_checkpoint", "classes_"}

CASES = [
    (SGDClassifier(max_iter=2), SGDEstimator),
    (SGDRegressor(max_iter=2), SGDEstimator),
    (SGDRegressor(max_iter=2), StepSettings),
    (MLPClassifier((3,), max_iter=2), MLPEstimator),
    (MLPRegressor((3,), max_iter=2), MLPEstimator),
    (ConvNetClassifier([], max_iter=2), ConvNetEstimator),
]


def members(protocol: type) -> set[str]:
    """Return what a protocol and those that it extends name."""
    found: set[str] = set()
    for base in protocol.__mro__:
        if getattr(base, "_is_protocol", False) and base.__module__.startswith("fastml"):
            found |= set(inspect.get_annotations(base))
            found |= {name for name, value in vars(base).items() if inspect.isfunction(value) and name[:2] != "__"}
            found |= {name for name, value in vars(base).items() if isinstance(value, property)}
    return found - {"_no_init_or_replace_init"}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("model", "protocol"), CASES, ids=lambda value: getattr(value, "__name__", None))
def test_estimators_have_what_their_training_reads(rng, model, protocol):
    X = rng.normal(size=(40, 3))
    model.fit(X, (X[:, 0] > 0).astype(float))
    names = members(protocol)
    assert len(names) > 3
    parameters = {name for name in names if name[0] != "_" and name[-1] != "_"}
    assert parameters <= model.get_params().keys()
    assert {name for name in names - SOMETIMES if not hasattr(model, name)} == set()


def test_members_of_all_protocols_are_found():
    assert {"batch_size", "max_iter", "t_", "_new_targets", "_with"} <= members(IterativeEstimator)
    assert {"hidden_layer_sizes", "solver", "_norms"} | members(IterativeEstimator) <= members(MLPEstimator)
    assert "best_index" in members(CrossValidated)


def test_a_cross_validation_has_what_is_drawn(rng):
    X = rng.normal(size=(20, 2))
    found = knn_cross_validation(X, np.arange(20) % 2, n_neighbors=[1, 2], cv=2)
    assert {name for name in members(CrossValidated) if not hasattr(found, name)} == set()
