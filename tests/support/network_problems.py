"""Layers that networks are trained with, and their parameters as one array."""

from __future__ import annotations

from itertools import pairwise, zip_longest

import numpy as np

from fastml.kernels.networks.scores import Norm

FLOATS = ("float32", "float64")


def layers_of(rng, units, dtype):
    """Weights and intercepts of each layer."""
    weights = [(rng.normal(size=(b, a)) / np.sqrt(a)).astype(dtype) for a, b in pairwise(units)]
    return weights, [(rng.normal(size=b) / 2).astype(dtype) for b in units[1:]]


def norms_of(rng, units, dtype):
    """Scales, running means and variances of each hidden layer."""
    return [
        Norm(*(part.astype(dtype) for part in (rng.normal(1, 0.3, n), rng.normal(size=n), rng.uniform(0.5, 2, n))))
        for n in units[1:-1]
    ]


def flat(weights, biases, norms=()):
    layers = zip_longest(weights, biases, norms, fillvalue=())
    return np.concatenate([part.ravel() for W, b, norm in layers for part in (W, b, *norm)])


def trained(training):
    """All parameters of a training."""
    return flat(training.weights, training.biases, training.norms)


RULES = {
    "plain": {"l2": 0.1},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.8, "nesterov": True, "l2": 0.01},
    "adam": {"rule": "adam", "l2": 0.01, "epsilon": 1e-4},
    "adamw": {"rule": "adam", "weight_decay": 0.5, "beta_1": 0.7, "beta_2": 0.9, "epsilon": 1e-4},
}
