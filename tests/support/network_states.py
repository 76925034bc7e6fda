"""What two fitted networks must have in common to be the same."""

from __future__ import annotations

import numpy as np


def classes(rng, n=230):
    X = rng.normal(size=(n, 6))
    return X, np.array(["no", "yes", "perhaps"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)]


def parts(model) -> list[np.ndarray]:
    """All arrays of a network but the seconds."""
    lists = (model.coefs_, model.intercepts_, model.batch_norm_scales_, model.batch_norm_means_)
    arrays = [array for each in (*lists, model.batch_norm_variances_) for array in each]
    return arrays + [column for name, column in model.history_.items() if name != "seconds"]


def assert_same(model, expected, same_bits):
    for got, want in zip(parts(model), parts(expected), strict=True):
        same_bits(got, want)
    for name in ("best_step_", "t_", "n_iter_", "n_outputs_", "out_activation_"):
        assert getattr(model, name) == getattr(expected, name), name
