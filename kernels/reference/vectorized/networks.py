"""Dense networks: scores, gradients and training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ...arguments.arrays import Array
from ...networks import arguments
from ._common import quiet, row_blocks
from .elementwise import _exp_both_sides
from .losses import _TERMS, _sum

__all__ = ["network_loss_gradient", "network_scores", "train_network"]

Norm = tuple[Array, Array, Array]


def _activate(Z: Array, activation: str) -> Array:
    """Apply an activation function in place."""
    if activation == "relu":
        return np.maximum(Z, 0, out=Z)
    if activation == "tanh":
        return np.tanh(Z, out=Z)
    if activation == "logistic":
        up, down = _exp_both_sides(Z)
        return np.divide(up, up + down, out=Z)
    return Z


def _times_derivative(D: Array, A: Array, activation: str) -> Array:
    """Multiply by the derivative of the activation function, which is known from its values `A`."""
    if activation == "relu":
        D *= A > 0
    elif activation == "tanh":
        D *= 1 - A * A
    elif activation == "logistic":
        D *= A * (1 - A)
    return D


def _forward(
    X: Array,
    layers: list[tuple[Array, Array]],
    activation: str,
    norms: list[Norm] | None = None,
    kept: list[tuple[Array, Array]] | None = None,
    running_share: float = 0.0,
) -> list[Array]:
    """Return the values of all levels, from the rows to the scores.

    With `norms` hidden layers are normalised by their running statistics; with `kept`, a list, by those of the rows,
    and it gets normalised values and inverse deviations.
    """
    levels = [X]
    for place, (W, b) in enumerate(layers):
        values = levels[-1] @ W.T
        last = place == len(layers) - 1
        if norms is not None and not last:
            scale, mean, variance = norms[place]
            if kept is None:
                values -= mean
                inverse = 1 / np.sqrt(variance + values.dtype.type(arguments.NORM_EPSILON))
            else:
                inverse = _normalize(values, norms[place], running_share)
            values *= inverse
            if kept is not None:
                kept.append((values.copy(), inverse))
            values *= scale
        values += b
        levels.append(values if last else _activate(values, activation))
    return levels


def _normalize(values: Array, norm: Norm, running_share: float) -> Array:
    """Take means off values in place; let running statistics follow; return inverse deviations."""
    n, dtype = len(values), values.dtype
    _, running_mean, running_variance = norm
    mean = values.mean(axis=0, dtype=np.float64).astype(dtype)
    values -= mean
    variance = np.square(values).mean(axis=0, dtype=np.float64).astype(dtype)
    if running_share > 0:
        share = dtype.type(running_share)
        running_mean += share * (mean - running_mean)
        if n > 1:
            running_variance += share * (variance * dtype.type(n / (n - 1)) - running_variance)
    return np.asarray(1 / np.sqrt(variance + dtype.type(arguments.NORM_EPSILON)))


def _backward(
    loss: str,
    X: Array,
    y: Array,
    layers: list[tuple[Array, Array]],
    activation: str,
    shares: Array,
    norms: list[Norm] | None = None,
    running_share: float = 0.0,
) -> tuple[Array, list[Array]]:
    """Return the loss of each row, and the gradient of ``shares @ losses`` in weights and intercepts in turn.

    With `norms` that in shifts, in scales and in running statistics, which is 0, of each hidden layer too.
    """
    kept: list[tuple[Array, Array]] = []
    levels = _forward(X, layers, activation, norms, kept, running_share)
    losses, grads = _TERMS[loss](levels[-1], y, True)
    assert grads is not None
    if losses.ndim == 2:
        losses = losses.sum(axis=1)
    grads = grads * shares[:, None]
    gradients: list[Array] = []
    for place in range(len(layers) - 1, -1, -1):
        vectors = [grads.sum(axis=0)]
        if norms is not None and place < len(layers) - 1:
            x, inverse = kept[place]
            scale, *running = norms[place]
            of_scale = (grads * x).sum(axis=0)
            grads = (scale * inverse) * (grads - vectors[0] / len(x) - x * (of_scale / len(x)))
            vectors += [of_scale, *map(np.zeros_like, running)]
        gradients[:0] = [grads.T @ levels[place], *vectors]
        if place > 0:
            grads = _times_derivative(grads @ layers[place][0], levels[place], activation)
    return losses, gradients


@quiet
def network_scores(
    X: ArrayLike, parameters: ArrayLike, units: Sequence[int], *, activation: str = "relu", batch_norm: bool = False
) -> Array:
    """Compute the scores of a network: a product of matrices for each layer; see `kernels.network_scores`."""
    X, layers, norms = arguments.network_model(X, parameters, units, activation, batch_norm)
    scores = np.empty((len(X), len(layers[-1][1])), X.dtype)
    for rows in row_blocks(X):
        scores[rows] = _forward(X[rows], layers, activation, norms)[-1]
    return scores


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
    """Compute the loss of a network plus ``l2/2 · ‖W‖²``, and its gradient; see `kernels.network_loss_gradient`.

    Blocks of rows; sums over blocks are kept in float64. With `batch_norm` all rows are one block.
    """
    a = arguments.network(loss, X, y, parameters, units, activation, l2, sample_weight, batch_norm)
    n = len(a.X)
    shares = np.ones(n, a.X.dtype) if a.weight is None else a.weight
    value = 0.0
    flat = np.zeros(np.size(parameters))
    parts = arguments.parts(flat, units, batch_norm)
    totals = [part for layer in parts for part in layer]
    for rows in row_blocks(a.X) if a.norms is None else [slice(n)]:
        losses, gradients = _backward(loss, a.X[rows], a.y[rows], a.layers, activation, shares[rows], a.norms)
        value += _sum(losses, shares[rows])
        for total, gradient in zip(totals, gradients, strict=True):
            total += gradient
    value /= n
    flat /= n
    if a.l2 > 0:
        for (W, _), (total, *_) in zip(a.layers, parts, strict=True):
            value += float(a.l2) / 2 * float(np.sum(np.square(W, dtype=np.float64)))
            total += a.l2 * W
    return value, flat.astype(a.X.dtype)


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
    """Take steps of mini-batch gradient descent; see `kernels.train_network`.

    All parameters, gradients and velocities are flat vectors, so that a step is a few operations.
    """
    a = arguments.network_training(
        loss, X, y, parameters, units, order, batch_size, steps, activation, l2, momentum, nesterov, sample_weight,
        batch_norm,
    )  # fmt: skip
    x, y, _, penalty, weights, _ = a.network
    dtype = x.dtype
    flat = np.array(parameters, dtype)
    parts = arguments.parts(flat, units, batch_norm)
    layers = arguments.layers(flat, units, batch_norm)
    norms = arguments.normalizations(flat, units) if batch_norm else None
    decay = np.concatenate(
        [np.full(part.size, penalty if part.ndim == 2 else 0, dtype) for layer in parts for part in layer]
    )
    velocity = np.zeros_like(flat)
    losses = np.empty(len(a.steps))
    for batch, step in enumerate(a.steps):
        rows = a.order[batch * a.batch_size : (batch + 1) * a.batch_size]
        row_weights = np.ones(len(rows), dtype) if weights is None else weights[rows]
        shares = row_weights * dtype.type(1 / len(rows))
        row_losses, gradients = _backward(
            loss, x[rows], y[rows], layers, activation, shares, norms, arguments.NORM_SHARE
        )
        losses[batch] = _sum(row_losses, row_weights) / len(rows)
        move = np.concatenate([gradient.ravel() for gradient in gradients])
        move += decay * flat
        move *= step
        velocity *= a.momentum
        velocity -= move
        if a.nesterov:
            flat += a.momentum * velocity - move
        else:
            flat += velocity
    return flat, losses
