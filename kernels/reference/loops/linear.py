"""Linear models under each loss: gradients, training and evaluation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...arguments.arrays import Array
from ...linear import arguments
from ...losses.table import LOSSES
from ._common import dot, quiet
from .losses import _TERMS, Term, _huber

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
    """Loss of the scores ``X @ W.T + b`` plus ``l2/2 · ‖W‖²``, and its gradient; see `kernels.linear_loss_gradient`."""
    x, targets, W, intercept, penalty, weights, total = arguments.linear(loss, X, y, W, b, l2, sample_weight)
    term = _TERMS[loss]
    multiclass = W.ndim == 2
    # One row of weights per score; a binary or regression model has a single one.
    coefficients: list[list[float]] = W.tolist() if multiclass else [W.tolist()]
    intercepts: list[float] = intercept.tolist() if multiclass else [float(intercept)]
    classes, columns = len(coefficients), x.shape[1]
    value, dW, db = 0.0, [[0.0] * columns for _ in range(classes)], [0.0] * classes
    for i in range(len(x)):
        row, target = x[i].tolist(), targets[i].tolist()
        scores = [dot(row, w) + shift for w, shift in zip(coefficients, intercepts, strict=True)]
        if multiclass:
            row_value, derivatives = term(scores, target)
        else:
            row_value, derivative = term(scores[0], target)
            derivatives = [derivative]
        share = (1.0 if weights is None else float(weights[i])) / total
        value += share * row_value
        for c in range(classes):
            grad = share * derivatives[c]
            db[c] += grad
            for d in range(columns):
                dW[c][d] += grad * row[d]
    if penalty > 0:
        for c in range(classes):
            for d in range(columns):
                value += float(penalty) / 2 * coefficients[c][d] * coefficients[c][d]
                dW[c][d] += float(penalty) * coefficients[c][d]
    if multiclass:
        return value, np.array(dW, x.dtype).reshape(W.shape), np.array(db, x.dtype)
    return value, np.array(dW[0], x.dtype), db[0]


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
    """Take steps of mini-batch gradient descent; see `kernels.train_linear`."""
    a = arguments.training(
        loss, X, y, W, b, order, batch_size, steps, l2, l1, momentum, nesterov, sample_weight
    )  # fmt: skip
    x, targets, W, b, ridge, weights, _ = a.linear
    term, multiclass = _TERMS[loss], W.ndim == 2
    lasso, friction = float(a.l1), float(a.momentum)
    # The intercept is one more coefficient, of a column of ones.
    model: list[list[float]] = np.column_stack((W, b)).tolist() if multiclass else [[*W.tolist(), np.asarray(b).item()]]
    velocity = [[0.0] * len(row) for row in model]
    columns, losses = x.shape[1], []
    for batch, step in enumerate(a.steps.tolist()):
        rows = a.order[batch * a.batch_size : (batch + 1) * a.batch_size].tolist()
        value, gradient = 0.0, [[0.0] * len(row) for row in model]
        for i in rows:
            row, target = [*x[i].tolist(), 1.0], targets[i].tolist()
            scores = [dot(row, w) for w in model]
            if multiclass:
                row_value, derivatives = term(scores, target)
            else:
                row_value, derivative = term(scores[0], target)
                derivatives = [derivative]
            share = (1.0 if weights is None else float(weights[i])) / len(rows)
            value += share * row_value
            for c, derivative in enumerate(derivatives):
                for d, number in enumerate(row):
                    gradient[c][d] += share * derivative * number
        losses.append(value)
        for w, g, v in zip(model, gradient, velocity, strict=True):
            for d in range(columns + 1):
                penalized = d < columns
                move = step * (g[d] + float(ridge) * w[d] if penalized else g[d])
                v[d] = friction * v[d] - move
                w[d] += friction * v[d] - move if a.nesterov else v[d]
                if penalized and lasso > 0:
                    w[d] = _towards_zero(w[d], step * lasso)
    trained = np.array(model, x.dtype).reshape(len(model), columns + 1)
    coefficients = np.ascontiguousarray(trained[:, :columns])
    if multiclass:
        return coefficients, trained[:, columns].copy(), np.array(losses, np.float64)
    return coefficients[0], model[0][columns], np.array(losses, np.float64)


def _towards_zero(w: float, by: float) -> float:
    if math.isnan(w) or math.isnan(by):
        return math.nan
    return math.copysign(abs(w) - by, w) if abs(w) > by else 0.0


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
    """Mean losses (M,) and scores (M,) of M linear models; see `kernels.linear_evaluation`."""
    a = arguments.evaluation(loss, X, y, W, b, sample_weight, delta)
    threshold = float(a.delta)
    term: Term = (lambda z, t: _huber(z, t, threshold)) if LOSSES[loss].has_delta else _TERMS[loss]
    models = a.W.tolist()
    losses, marks = [0.0] * len(models), [0.0] * len(models)
    for i in range(len(a.X)):
        row, target = a.X[i].tolist(), a.y[i].tolist()
        share = (1.0 if a.weight is None else float(a.weight[i])) / a.total
        for m, coefficients in enumerate(models):
            scores = [dot(row, w) + float(shift) for w, shift in zip(coefficients, a.b[m], strict=True)]
            multiclass, class_1_from = LOSSES[loss].over_classes, LOSSES[loss].class_1_from
            losses[m] += share * term(scores if multiclass else scores[0], target)[0]
            if multiclass:
                true = target if isinstance(target, int) else target.index(max(target))
                mark = float(not any(math.isnan(z) for z in scores) and scores.index(max(scores)) == true)
            elif class_1_from is not None:
                positive = target >= class_1_from
                mark = float(scores[0] >= 0 if positive else scores[0] < 0)
            else:
                residual = scores[0] - target
                mark = residual * residual
            marks[m] += share * mark
    return np.array(losses, np.float64), np.array(marks, np.float64)
