"""How `MLPClassifier` and `MLPRegressor` are fitted."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from ._callbacks import Hooks
from ._fitting import train
from ._network_training import Layers, NetworkColumn, NetworkTask
from ._progress import Progress
from ._runs import check_resumed, max_steps, new_run, resumable, resumed, say_what_became
from ._settling import Settled, settle
from ._step_sizes import given_sizes
from .kernels._networks import Norm

__all__ = ["fit_network", "hidden_sizes", "l2_of"]


def fit_network(model: Any, X: Any, y: Any, *, partial: bool = False, resume: bool = False, **more: Any) -> None:
    """Train a network, show its progress, and say what went wrong."""
    before = resumed(model) if resume else None
    settled = settle(
        model, X, y, partial=partial, sampling="permutation" if model.shuffle else "sequential",
        seed=None if before is None else before.seed, **more,
    )  # fmt: skip
    batches = settled.batches
    again = partial and hasattr(model, "t_")
    done, course = model.t_ - 1 if again else 0, None
    first, state = _initial(model, settled, again or before is not None), model._state if again else None
    if before is not None:
        check_resumed(before, settled)
        course, state = before.course, before.course.state
    network = NetworkColumn(_task(model, settled), first, done=done, state=state)
    run = new_run(model, 0, batches, partial)
    run.resumable = not partial
    hooks = progress = None
    if not partial:
        x, targets, weight = settled.data
        epochs = -(-run.max_steps // batches.steps)
        hooks = Hooks(model, epochs, x, targets, weight, lambda: model._attributes(network.weights(0)))
        if model.verbose:
            progress = Progress(max_steps(model, batches), batches, type(model).__name__)
    rates = given_sizes(model.learning_rate, model.learning_rate_init, model.power_t)
    arguments = network, [run], batches, [rates], settled.evaluations
    if progress is None:
        train(*arguments, hooks=hooks, resume=course)
    else:
        with progress:
            train(*arguments, hooks=hooks, progress=progress, resume=course)
    model._take(run, done, 1 if partial else -(-run.steps // batches.steps))
    model._resumable = resumable(run, settled)
    if hooks is not None:
        hooks.end()
    say_what_became(model, run, partial=partial, penalty=lambda: _penalty(model, settled, first))


def _task(model: Any, settled: Settled) -> NetworkTask:
    adam = model.solver == "adam"
    settings = {
        "rule": model.solver,
        "l2": l2_of(model, settled),
        "momentum": 0.0 if adam else model.momentum,
        "nesterov": model.nesterovs_momentum,
        "beta_1": model.beta_1,
        "beta_2": model.beta_2,
        "epsilon": model.epsilon,
        "weight_decay": model.weight_decay if adam else 0.0,
        "dropout": _shares(model.dropout, len(hidden_sizes(model))),
        "norm_share": model.batch_norm_momentum,
        "seed": int(settled.dropout.generate_state(1, np.uint64)[0] >> 1),
    }
    return NetworkTask(settled.targets.loss, settled.rows, model.activation, settings, settled.n_threads, settled.score)


def l2_of(model: Any, settled: Settled) -> float:
    """Return what is beside half the sum of squares: the penalty is added to the weighted sum of a batch's losses."""
    return float(model.alpha) / (settled.batches.size * settled.mean_weight)


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


def _initial(model: Any, settled: Settled, again: bool) -> Layers:
    """Return what a network begins with: from before, or new layers."""
    dtype = settled.rows.X.dtype
    units = [settled.rows.X.shape[1], *hidden_sizes(model), settled.targets.n_scores]
    if again or (model.warm_start and hasattr(model, "coefs_")):
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
