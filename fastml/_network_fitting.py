"""How `MLPClassifier` and `MLPRegressor` are fitted."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from ._fitting import loss_in_training
from ._network_runs import begin, l2_of, run_network, solver_settings
from ._network_training import Layers, NetworkColumn, NetworkTask
from ._runs import First, say_what_became
from ._settling import Settled
from .kernels.networks.scores import Norm

__all__ = ["fit_network", "hidden_sizes"]


def fit_network(model: Any, X: Any, y: Any, *, partial: bool = False, resume: bool = False, **more: Any) -> None:
    """Train a network, show its progress, and say what went wrong."""
    beginning = begin(model, X, y, partial=partial, resume=resume, **more)
    settled = beginning.settled
    if settled.idle and beginning.continues:
        return
    layers, task = _initial(model, settled, beginning.continues), _task(model, settled)
    network = NetworkColumn(task, layers, done=beginning.done, state=beginning.state)
    run = run_network(model, network, beginning, partial=partial)
    first = First(
        lambda: _penalty(model, settled, layers),
        lambda: loss_in_training(NetworkColumn(task, layers), settled.batches),
    )
    say_what_became(model, run, settled.evaluations, first, partial=partial)


def _task(model: Any, settled: Settled) -> NetworkTask:
    settings = solver_settings(model, settled) | {
        "dropout": _shares(model.dropout, len(hidden_sizes(model))),
        "norm_share": model.batch_norm_momentum,
    }
    return NetworkTask(settled.targets.loss, settled.rows, model.activation, settings, settled.n_threads, settled.score)


def _penalty(model: Any, settled: Settled, layers: Layers) -> float:
    with np.errstate(over="ignore"):
        squares = sum(float(np.square(W, dtype=np.float64).sum()) for W in layers.weights)
    return 0.5 * l2_of(model, settled) * squares


def hidden_sizes(model: Any) -> list[int]:
    """Return the units of each hidden layer."""
    sizes = model.hidden_layer_sizes
    return [int(size) for size in (sizes if np.iterable(sizes) else [sizes])]


def _shares(dropout: Any, hidden: int) -> list[float]:
    return [float(share) for share in dropout] if np.iterable(dropout) else [float(dropout)] * hidden


def _initial(model: Any, settled: Settled, continues: bool) -> Layers:
    """Return what a network begins with: from before, or new layers."""
    dtype = settled.rows.X.dtype
    units = [settled.rows.X.shape[1], *hidden_sizes(model), settled.targets.n_scores]
    if continues:
        before = [W.T.shape for W in model.coefs_]
        wanted = [(outputs, inputs) for inputs, outputs in pairwise(units)]
        if before != wanted:
            raise ValueError(f"the layers are to have shapes {wanted}, but those from before have {before}")
        layers = Layers([W.T.astype(dtype) for W in model.coefs_], [b.astype(dtype) for b in model.intercepts_], [])
        if bool(model.batch_norm_scales_) != (model.batch_norm and len(units) > 2):
            raise ValueError(f"batch_norm is {model.batch_norm!r}; the layers from before are of another kind")
        for norm in model._norms():
            layers.norms.append(Norm(*(part.astype(dtype) for part in norm)))
        return layers
    rng = np.random.default_rng(settled.init)
    factor = 2 if model.activation == "logistic" else 6
    layers = Layers([], [], [])
    for inputs, outputs in pairwise(units):
        bound = math.sqrt(factor / (inputs + outputs))  # X. Glorot and Y. Bengio (2010)
        layers.weights.append(rng.uniform(-bound, bound, (outputs, inputs)).astype(dtype))
        layers.biases.append(rng.uniform(-bound, bound, outputs).astype(dtype))
    if model.batch_norm:
        for shifts in layers.biases[:-1]:
            shifts[:] = 0
            ones = np.ones_like(shifts)
            layers.norms.append(Norm(ones, np.zeros_like(ones), ones))
    return layers
