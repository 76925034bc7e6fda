"""Linear models under each loss: gradients, training and evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...arguments.arrays import Array
from ...linear import arguments
from ...losses.table import LOSSES
from ._common import quiet, row_blocks
from .losses import _TERMS, _huber, _sum

__all__ = ["linear_evaluation", "linear_loss_gradient", "train_linear"]


@quiet
def linear_loss_gradient(
    loss: str,
    X: ArrayLike,
    y: ArrayLike,
    W: ArrayLike,
    b: ArrayLike,
    *,
    l2: float = 0.0,
    sample_weight: ArrayLike | None = None,
) -> tuple[float, Array, Any]:
    """Compute the loss of ``X @ W.T + b``, penalty included, and its gradient; see `kernels.linear_loss_gradient`.

    Blocks of rows that stay in cache between the two products they take part in, so that `X` is
    read from memory once; sums over blocks are kept in float64.
    """
    x, targets, W, b, penalty, weights, total = arguments.linear(loss, X, y, W, b, l2, sample_weight)
    terms = _TERMS[loss]
    value = 0.0
    dW = np.zeros(W.shape)
    db = np.zeros(np.shape(b))
    for rows in row_blocks(x):
        block = x[rows]
        scores = block @ W.T
        scores += b
        losses, grads = terms(scores, targets[rows], True)
        assert grads is not None
        if weights is None:
            value += _sum(losses, None)
        else:
            value += _sum(losses, weights[rows])
            grads = (grads.T * weights[rows]).T
        dW += grads.T @ block
        db += grads.sum(axis=0, dtype=np.float64)
    value /= total
    dW /= total
    db /= total
    if penalty > 0:
        value += float(penalty) / 2 * float(np.sum(np.square(W, dtype=np.float64)))
        dW += penalty * W
    gradient = dW.astype(x.dtype)
    return value, gradient, float(db) if db.ndim == 0 else db.astype(x.dtype)


@quiet
def train_linear(
    loss: str,
    X: ArrayLike,
    y: ArrayLike,
    W: ArrayLike,
    b: ArrayLike,
    order: ArrayLike,
    *,
    batch_size: int,
    steps: ArrayLike,
    l2: float = 0.0,
    l1: float = 0.0,
    momentum: float = 0.0,
    nesterov: bool = False,
    sample_weight: ArrayLike | None = None,
) -> tuple[Array, Any, Array]:
    """Take steps of mini-batch gradient descent; see `kernels.train_linear`.

    The rows of a batch are copied into one buffer that is used again and again; all steps are in place.
    """
    a = arguments.training(
        loss, X, y, W, b, order, batch_size, steps, l2, l1, momentum, nesterov, sample_weight
    )  # fmt: skip
    x, targets, start, shift, ridge, weights, _ = a.linear
    terms, dtype = _TERMS[loss], x.dtype
    w, b = start.copy(), np.array(shift)
    velocity, velocity_b = np.zeros_like(w), np.zeros_like(b)
    buffer = np.empty((min(a.batch_size, len(a.order)), x.shape[1]), dtype)
    losses = np.empty(len(a.steps))
    for batch, step in enumerate(a.steps):
        rows = a.order[batch * a.batch_size : (batch + 1) * a.batch_size]
        block = np.take(x, rows, axis=0, out=buffer[: len(rows)], mode="clip")  # "raise" would copy once more
        scores = block @ w.T
        scores += b
        batch_weights = None if weights is None else weights[rows]
        batch_losses, grads = terms(scores, targets[rows], True)
        assert grads is not None
        losses[batch] = _sum(batch_losses, batch_weights) / len(rows)
        grads *= dtype.type(1 / len(rows))
        if batch_weights is not None:
            grads = (grads.T * batch_weights).T
        move, move_b = grads.T @ block, grads.sum(axis=0)
        if ridge > 0:
            move += ridge * w
        move *= step
        move_b = np.multiply(move_b, step, dtype=dtype)
        if a.momentum > 0:
            velocity *= a.momentum
            velocity -= move
            velocity_b *= a.momentum
            velocity_b -= move_b
            if a.nesterov:
                w += a.momentum * velocity
                b += a.momentum * velocity_b
            else:
                w += velocity
                b += velocity_b
        if a.momentum == 0 or a.nesterov:
            w -= move
            b -= move_b
        if a.l1 > 0:
            w = np.sign(w) * np.maximum(np.abs(w) - step * a.l1, 0)
    return w, b if b.ndim else float(b), losses


@quiet
def linear_evaluation(
    loss: str,
    X: ArrayLike,
    y: ArrayLike,
    W: ArrayLike,
    b: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    delta: float = 1.35,
) -> tuple[Array, Array]:
    """Compute mean losses (M,) and scores (M,) of M linear models; see `kernels.linear_evaluation`.

    One product of a block of rows with all models.
    """
    a = arguments.evaluation(loss, X, y, W, b, sample_weight, delta)
    models, classes, columns = a.W.shape
    multiclass, class_1_from = LOSSES[loss].over_classes, LOSSES[loss].class_1_from
    all_weights = np.ascontiguousarray(a.W.reshape(models * classes, columns).T)
    losses, marks = np.zeros(models), np.zeros(models)
    for rows in row_blocks(a.X):
        scores = (a.X[rows] @ all_weights + a.b.reshape(-1)).reshape(-1, models, classes)
        target, weights = a.y[rows], None if a.weight is None else a.weight[rows]
        for m in range(models):
            z = np.ascontiguousarray(scores[:, m] if multiclass else scores[:, m, 0])
            terms = _huber(z, target, False, a.delta) if LOSSES[loss].has_delta else _TERMS[loss](z, target, False)
            losses[m] += _sum(terms[0], weights)
            if multiclass:
                true = target if target.ndim == 1 else target.argmax(axis=1)
                mark = (z.argmax(axis=1) == true) & ~np.isnan(z).any(axis=1)
            elif class_1_from is not None:
                mark = np.where(target >= class_1_from, z >= 0, z < 0)
            else:
                mark = np.square(z - target)
            marks[m] += _sum(mark, weights)
    return losses / a.total, marks / a.total
