"""Dense networks: scores, gradients and training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...arguments.arrays import Array
from ...losses.table import LOSSES
from ...networks import arguments
from ._common import dot, quiet
from .elementwise import _sigmoid
from .losses import _TERMS

__all__ = ["network_loss_gradient", "network_scores", "train_network"]

#: Weights, one row for each unit, and intercepts of a layer.
Layer = tuple[list[list[float]], list[float]]

#: Scales, running means and running variances of the units of a normalised layer.
LoopNorm = tuple[list[float], list[float], list[float]]


def _activation(z: float, name: str) -> float:
    if name == "relu":
        return z if z > 0 or math.isnan(z) else 0.0
    if name == "tanh":
        return math.tanh(z)
    return _sigmoid(z) if name == "logistic" else z


def _derivative(a: float, name: str) -> float:
    """Return the derivative of an activation function where its value is a."""
    if name == "relu":
        return float(a > 0)
    if name == "tanh":
        return 1 - a * a
    return a * (1 - a) if name == "logistic" else 1.0


def _network_term(loss: str, scores: list[float], target: Any) -> tuple[float, list[float]]:
    """Return the loss of a row, and its derivatives with respect to the scores."""
    if LOSSES[loss].over_classes:
        return _TERMS[loss](scores, target)
    terms = [_TERMS[loss](z, t) for z, t in zip(scores, target, strict=True)]
    return sum(value for value, _ in terms), [derivative for _, derivative in terms]


def _forward(
    row: list[float], layers: list[Layer], activation: str, norms: list[LoopNorm] | None = None
) -> list[list[float]]:
    """Return the values of all levels, from the row to the scores.

    With `norms` hidden layers are normalised by running means and variances.
    """
    levels = [row]
    for place, (W, b) in enumerate(layers):
        values = [dot(levels[-1], w) for w in W]
        if norms is not None and place < len(layers) - 1:
            scales, means, variances = norms[place]
            for k in range(len(values)):
                values[k] = scales[k] * (values[k] - means[k]) / math.sqrt(variances[k] + arguments.NORM_EPSILON)
        values = [value + shift for value, shift in zip(values, b, strict=True)]
        last = place == len(layers) - 1
        levels.append(values if last else [_activation(z, activation) for z in values])
    return levels


def _add_gradient(
    loss: str, row: list[float], target: Any, layers: list[Layer], activation: str, share: float, gradient: list[Layer]
) -> float:
    """Add ``share`` times the gradient of a row's loss to `gradient`; return the loss."""
    levels = _forward(row, layers, activation)
    value, grads = _network_term(loss, levels[-1], target)
    for place in range(len(layers) - 1, -1, -1):
        (W, _), (dW, db), inputs = layers[place], gradient[place], levels[place]
        below = [0.0] * len(inputs)
        for unit, grad in enumerate(grads):
            db[unit] += share * grad
            for d, a in enumerate(inputs):
                dW[unit][d] += share * grad * a
                below[d] += grad * W[unit][d]
        if place > 0:
            grads = [total * _derivative(a, activation) for total, a in zip(below, inputs, strict=True)]
    return value


def _add_normalized_gradient(
    loss: str,
    rows: list[list[float]],
    targets: list[Any],
    layers: list[Layer],
    norms: list[LoopNorm],
    activation: str,
    shares: list[float],
    gradient: list[Layer],
    of_scales: list[list[float]],
    running_share: float,
) -> float:
    """As `_add_gradient` for rows of a batch over which hidden layers are normalised: all rows, level by level."""
    n, levels, kept = len(rows), [rows], []
    for place, (W, b) in enumerate(layers):
        values = [[dot(row, w) for w in W] for row in levels[-1]]
        if place < len(layers) - 1:
            deviations = _normalize(values, norms[place], running_share)
            kept.append(([list(row) for row in values], deviations))
            for row in values:
                for k, (scale, shift) in enumerate(zip(norms[place][0], b, strict=True)):
                    row[k] = _activation(scale * row[k] + shift, activation)
        else:
            values = [[value + shift for value, shift in zip(row, b, strict=True)] for row in values]
        levels.append(values)
    total, grads = 0.0, []
    for scores, target, share in zip(levels[-1], targets, shares, strict=True):
        value, of_row = _network_term(loss, scores, target)
        total += share * value
        grads.append([share * grad for grad in of_row])
    for place in range(len(layers) - 1, -1, -1):
        (W, _), (dW, db) = layers[place], gradient[place]
        for k in range(len(W)):
            shift_grad = sum(row[k] for row in grads)
            db[k] += shift_grad
            if place < len(layers) - 1:
                x, deviations = kept[place]
                scale_grad = sum(row[k] * x_row[k] for row, x_row in zip(grads, x, strict=True))
                of_scales[place][k] += scale_grad
                factor = norms[place][0][k] / deviations[k]
                for row, x_row in zip(grads, x, strict=True):
                    row[k] = factor * (row[k] - shift_grad / n - x_row[k] * scale_grad / n)
            for row, inputs in zip(grads, levels[place], strict=True):
                for d, a in enumerate(inputs):
                    dW[k][d] += row[k] * a
        if place > 0:
            grads = [
                [sum(grad * w[d] for grad, w in zip(row, W, strict=True)) * _derivative(a, activation)
                 for d, a in enumerate(inputs)]
                for row, inputs in zip(grads, levels[place], strict=True)
            ]  # fmt: skip
    return total


def _normalize(values: list[list[float]], norm: LoopNorm, running_share: float) -> list[float]:
    """Normalise each unit's values over the rows; let running statistics follow; return the deviations."""
    n, deviations = len(values), []
    _, running_means, running_variances = norm
    for k in range(len(running_means)):
        mean = sum(row[k] for row in values) / n
        for row in values:
            row[k] -= mean
        squares = sum(row[k] * row[k] for row in values)
        deviations.append(math.sqrt(squares / n + arguments.NORM_EPSILON))
        for row in values:
            row[k] /= deviations[-1]
        running_means[k] += running_share * (mean - running_means[k])
        if n > 1:
            running_variances[k] += running_share * (squares / (n - 1) - running_variances[k])
    return deviations


def _zeros(layers: list[Layer]) -> list[Layer]:
    return [([[0.0] * len(w) for w in W], [0.0] * len(b)) for W, b in layers]


def _lists(layers: list[tuple[Array, Array]]) -> list[Layer]:
    return [(W.tolist(), b.tolist()) for W, b in layers]


def _norm_lists(norms: list[tuple[Array, Array, Array]] | None) -> list[LoopNorm] | None:
    return None if norms is None else [tuple(part.tolist() for part in norm) for norm in norms]


def _norm_zeros(norms: list[LoopNorm] | None) -> list[LoopNorm] | None:
    return None if norms is None else [tuple([0.0] * len(part) for part in norm) for norm in norms]  # type: ignore[misc]


def _flat(layers: list[Layer], dtype: Any, norms: list[LoopNorm] | None = None) -> Array:
    numbers = []
    for place, (W, b) in enumerate(layers):
        more = norms[place] if norms is not None and place < len(norms) else ()
        numbers += [number for row in (*W, b, *more) for number in row]
    return np.array(numbers, np.float64).astype(dtype)


@quiet
def network_scores(
    X: ArrayLike, parameters: ArrayLike, units: Sequence[int], *, activation: str = "relu", batch_norm: bool = False
) -> Array:
    """Scores (n, C) of a network of fully connected layers; see `kernels.network_scores`."""
    X, found, normalized = arguments.network_model(X, parameters, units, activation, batch_norm)
    layers, norms = _lists(found), _norm_lists(normalized)
    scores = [_forward(row, layers, activation, norms)[-1] for row in X.tolist()]
    return np.array(scores, np.float64).reshape(len(X), len(layers[-1][1])).astype(X.dtype)


@quiet
def network_loss_gradient(
    loss: str,
    X: ArrayLike,
    y: ArrayLike,
    parameters: ArrayLike,
    units: Sequence[int],
    *,
    activation: str = "relu",
    l2: float = 0.0,
    sample_weight: ArrayLike | None = None,
    batch_norm: bool = False,
) -> tuple[float, Array]:
    """Loss of a network plus ``l2/2 · ‖W‖²``, and its gradient; see `kernels.network_loss_gradient`.

    With the gradient g in the values of a layer's units, before the activation, and its inputs a, ``dW = g aᵀ`` and
    ``db = g``; that of the layer before is ``Wᵀ g`` times the derivative of the activation. Binary cross-entropy and
    squared error are summed over the scores.

    With `batch_norm` hidden layers are normalised over the rows: with x = (z - mean(z)) / d and d = sqrt(variance +
    1e-5), a gradient g in ``scale x + shift`` becomes ``scale / d (g - mean(g) - x mean(g x))`` in z.
    """
    a = arguments.network(loss, X, y, parameters, units, activation, l2, sample_weight, batch_norm)
    layers, norms, n, penalty = _lists(a.layers), _norm_lists(a.norms), len(a.X), float(a.l2)
    gradient, value, of_norms = _zeros(layers), 0.0, _norm_zeros(norms)
    shares = [(1.0 if a.weight is None else float(a.weight[i])) / n for i in range(n)]
    if norms is not None and of_norms is not None:
        of_scales = [scales for scales, _, _ in of_norms]
        value = _add_normalized_gradient(
            loss, a.X.tolist(), a.y.tolist(), layers, norms, activation, shares, gradient, of_scales, 0.0
        )
    else:
        for row, target, share in zip(a.X.tolist(), a.y.tolist(), shares, strict=True):
            value += share * _add_gradient(loss, row, target, layers, activation, share, gradient)
    for (W, _), (dW, _) in zip(layers, gradient, strict=True):
        for w, dw in zip(W, dW, strict=True):
            for d, number in enumerate(w):
                value += penalty / 2 * number * number
                dw[d] += penalty * number
    return value, _flat(gradient, a.X.dtype, of_norms)


@quiet
def train_network(
    loss: str,
    X: ArrayLike,
    y: ArrayLike,
    parameters: ArrayLike,
    units: Sequence[int],
    order: ArrayLike,
    *,
    batch_size: int,
    steps: ArrayLike,
    activation: str = "relu",
    l2: float = 0.0,
    momentum: float = 0.0,
    nesterov: bool = False,
    sample_weight: ArrayLike | None = None,
    batch_norm: bool = False,
) -> tuple[Array, Array]:
    """Take steps of mini-batch gradient descent; see `kernels.train_network`."""
    a = arguments.network_training(
        loss, X, y, parameters, units, order, batch_size, steps, activation, l2, momentum, nesterov, sample_weight,
        batch_norm,
    )  # fmt: skip
    x, y, given, ridge, weights, normalized = a.network
    layers, norms, friction = _lists(given), _norm_lists(normalized), float(a.momentum)
    velocity, of_norms, losses = _zeros(layers), _norm_zeros(norms), []
    for batch, step in enumerate(a.steps.tolist()):
        rows = a.order[batch * a.batch_size : (batch + 1) * a.batch_size].tolist()
        gradient, value = _zeros(layers), 0.0
        shares = [(1.0 if weights is None else float(weights[i])) / len(rows) for i in rows]
        scales: list[tuple[list[list[float]], ...]] = []
        if norms is not None and of_norms is not None:
            of_scales = [[0.0] * len(part) for part, _, _ in norms]
            value = _add_normalized_gradient(
                loss, x[rows].tolist(), y[rows].tolist(), layers, norms, activation, shares, gradient, of_scales,
                arguments.NORM_SHARE,
            )  # fmt: skip
            scales = [([part], [g], [v]) for (part, *_), g, (v, *_) in zip(norms, of_scales, of_norms, strict=True)]
        else:
            for i, share in zip(rows, shares, strict=True):
                value += share * _add_gradient(loss, x[i].tolist(), y[i].tolist(), layers, activation, share, gradient)
        losses.append(value)
        parts = [
            ([*W, b], [*dW, db], [*vW, vb])
            for (W, b), (dW, db), (vW, vb) in zip(layers, gradient, velocity, strict=True)
        ]
        for ws, gs, vs in [*parts, *scales]:
            penalties = [*[float(ridge)] * (len(ws) - 1), 0.0]
            for w, g, v, penalty in zip(ws, gs, vs, penalties, strict=True):
                for d in range(len(w)):
                    move = step * (g[d] + penalty * w[d])
                    v[d] = friction * v[d] - move
                    w[d] += friction * v[d] - move if a.nesterov else v[d]
    return _flat(layers, x.dtype, norms), np.array(losses, np.float64)
