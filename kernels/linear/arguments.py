"""What `linear_loss_gradient`, `train_linear` and `linear_evaluation` ask of their arguments."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import ArrayLike

from ..arguments.arrays import Array, as_contiguous, floating, real
from ..arguments.scalars import (
    checked_delta,
    checked_l2,
    checked_momentum,
    checked_steps,
    count,
    flag,
    row_numbers,
    scalar,
    strength,
)
from ..arguments.targets import checked_classes, checked_target, refuse_empty, weights
from ..losses.table import DELTA, target_of


class LinearArguments(NamedTuple):
    """The settled arguments of `linear_loss_gradient`; all arrays but class indices share one dtype."""

    X: Array  # (n, D)
    y: Array  # (n,), or (n, C) target probabilities
    W: Array  # (D,), or (C, D) for the losses over classes
    b: Any  # NumPy scalar, or array (C,)
    l2: Any  # NumPy scalar
    weight: Array | None  # (n,)
    total: float  # sum of the weights, n without weights


def linear(
    loss: object,
    X: ArrayLike,
    y: ArrayLike,
    W: ArrayLike,
    b: ArrayLike,
    l2: object = 0.0,
    sample_weight: ArrayLike | None = None,
) -> LinearArguments:
    """Settle the arguments of `linear_loss_gradient`; ``X`` alone decides the dtype."""
    target = target_of(loss)
    X = floating(X, "X", 2)
    n, columns = X.shape
    refuse_empty(n, "X has 0 rows")
    dtype = X.dtype
    W = real(W, "W")
    if target.startswith("class"):
        if W.ndim != 2 or W.shape[1] != columns:
            raise ValueError(f"W has shape {W.shape}; {loss} needs (C, {columns}), X has {columns} columns")
        classes = W.shape[0]
        b = real(b, "b")
        if b.shape != (classes,):
            raise ValueError(f"b has shape {b.shape}; it must be ({classes},), W has {classes} rows")
        b = as_contiguous(b, dtype)
        y = checked_classes(y, n, "X has {} rows", classes, dtype, target != "class")
    else:
        if W.shape != (columns,):
            raise ValueError(f"W has shape {W.shape}; {loss} needs ({columns},), X has {columns} columns")
        b = scalar(b, "b", dtype)
        y = checked_target(y, target, "y", n, "X has {} rows", dtype)
    penalty = checked_l2(l2, dtype)
    weight, total = weights(sample_weight, n, dtype)
    return LinearArguments(X, y, as_contiguous(W, dtype), b, penalty, weight, total)


class TrainingArguments(NamedTuple):
    """The settled arguments of `train_linear`; all floating arrays and scalars share one dtype."""

    linear: LinearArguments  # `total` is n: the weights have a mean of 1
    order: Array  # (N,) intp
    batch_size: int
    steps: Array  # (number of batches,)
    l1: Any
    momentum: Any
    nesterov: bool


def training(
    loss: object,
    X: ArrayLike,
    y: ArrayLike,
    W: ArrayLike,
    b: ArrayLike,
    order: ArrayLike,
    batch_size: object,
    steps: ArrayLike,
    l2: object = 0.0,
    l1: object = 0.0,
    momentum: object = 0.0,
    nesterov: object = False,
    sample_weight: ArrayLike | None = None,
) -> TrainingArguments:
    """Settle the arguments of `train_linear`."""
    target_of(loss, trained=True)
    settled = linear(loss, X, y, W, b, l2, sample_weight)
    n, dtype = len(settled.X), settled.X.dtype
    if settled.weight is not None:
        settled = settled._replace(weight=as_contiguous(settled.weight * (n / settled.total), dtype), total=float(n))
    rows = row_numbers(order, "order", n)
    size = count(batch_size, "batch_size")
    batches = -(-len(rows) // size)
    return TrainingArguments(
        settled,
        rows,
        size,
        checked_steps(steps, batches, f"order has {len(rows)} rows, {batches} batches of {size}", dtype),
        strength(l1, "l1", dtype),
        checked_momentum(momentum, dtype),
        flag(nesterov, "nesterov"),
    )


class EvaluationArguments(NamedTuple):
    """The settled arguments of `linear_evaluation`; all floating arrays and scalars share one dtype."""

    X: Array  # (n, D)
    y: Array  # (n,), or (n, C) target probabilities
    W: Array  # (M, C, D)
    b: Array  # (M, C)
    delta: Any
    weight: Array | None  # (n,)
    total: float  # sum of the weights, n without weights


def evaluation(
    loss: object,
    X: ArrayLike,
    y: ArrayLike,
    W: ArrayLike,
    b: ArrayLike,
    sample_weight: ArrayLike | None = None,
    delta: object = DELTA,
) -> EvaluationArguments:
    """Settle the arguments of `linear_evaluation`; ``X`` alone decides the dtype."""
    target = target_of(loss, trained=True)
    X = floating(X, "X", 2)
    (n, columns), dtype = X.shape, X.dtype
    refuse_empty(n, "X has 0 rows")
    over_classes = target.startswith("class")
    W, b = real(W, "W"), real(b, "b")
    if W.ndim != 3 or W.shape[2] != columns or (W.shape[1] != 1 and not over_classes):
        classes = "C" if over_classes else "1"
        raise ValueError(f"W has shape {W.shape}; {loss} needs (M, {classes}, {columns}), X has {columns} columns")
    if b.shape != W.shape[:2]:
        raise ValueError(f"b has shape {b.shape}; it must be {W.shape[:2]}, W has shape {W.shape}")
    if over_classes:
        y = checked_classes(y, n, "X has {} rows", W.shape[1], dtype, target != "class")
    else:
        y = checked_target(y, target, "y", n, "X has {} rows", dtype)
    weight, total = weights(sample_weight, n, dtype)
    return EvaluationArguments(
        X, y, as_contiguous(W, dtype), as_contiguous(b, dtype), checked_delta(delta, dtype), weight, total
    )
