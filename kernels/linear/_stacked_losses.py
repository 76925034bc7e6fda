"""Losses and scores of the models of a stack, for a block of rows.

The formulas stand in `_losses` and `_rowwise`; here they are applied to the scores of one model after the other, so
that a model's bits do not depend on others. Scores are (models, rows) for losses of one score, so that a vector holds
many rows, and (rows, models x classes) for losses over classes.

`targets` are the block's values, class indices, target probabilities (those that the loss does not need are empty)
and weights. Loops run over whole groups of rows: beyond the block's end weights, values and scores are 0.

One kernel serves all losses of one score, and one the losses over classes: each compiles in a fraction of the time that
kernels for every loss would take. Which loss is meant is a number, looked at once per block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..losses.class_formulas import cross_entropy, multiclass_hinge, scratch
from ..losses.formulas import POINTWISE
from ..runtime.jit import inner
from ..simd.functions import like
from ..simd.rows import sum_of
from ._stacked import GROUP

__all__ = ["LOSSES", "NUMBER", "OF_CLASSES", "OVER_CLASSES", "SCORES", "SCORE_NUMBER", "VALUES", "desk"]

OVER_CLASSES = ("softmax_cross_entropy", "multiclass_hinge")
OF_CLASSES = (*OVER_CLASSES, "binary_cross_entropy", "hinge", "squared_hinge")


@inner
def desk(rows, classes, like_array):  # type: ignore[no-untyped-def]
    """Return scratch for the functions below: of `_rowwise`, and a model's scores and slopes."""
    scores, slopes = np.zeros((rows, classes), like_array.dtype), np.zeros((rows, classes), like_array.dtype)
    return scratch(rows, classes, like_array), scores, slopes


# ------------------------------------------------------------------------------------------ losses


def _pointwise_losses(term: Callable[..., Any]) -> Callable[..., Any]:
    """Apply a formula of `_losses` to the scores of each model: Z is (models, rows)."""

    @inner
    def terms(z, y, weight, delta, scale, values, g):  # type: ignore[no-untyped-def]
        for i in range(z.size):
            value, derivative = term(z[i], y[i], delta)
            values[i] = weight[i] * value
            g[i] = scale * weight[i] * derivative

    @inner
    def block_losses(Z, n, targets, delta, scale, work, G, totals):  # type: ignore[no-untyped-def]
        y, _, _, weight = targets
        end = -(-n // GROUP) * GROUP
        values = work[0][0, :end]
        for m in range(totals.size):
            z = Z[m]
            z[n:end] = 0
            terms(z[:end], y[:end], weight[:end], delta, scale, values, G[m, :end])
            totals[m] += sum_of(values)

    return block_losses


def _pointwise_values(term: Callable[..., Any]) -> Callable[..., Any]:
    """As `_pointwise_losses`, without the slopes."""

    @inner
    def values_of(z, y, weight, delta, values):  # type: ignore[no-untyped-def]
        for i in range(z.size):
            values[i] = weight[i] * term(z[i], y[i], delta)[0]

    @inner
    def block_values(Z, n, targets, delta, scale, work, G, totals):  # type: ignore[no-untyped-def]
        y, _, _, weight = targets
        end = -(-n // GROUP) * GROUP
        values = work[0][0, :end]
        for m in range(totals.size):
            z = Z[m]
            z[n:end] = 0
            values_of(z[:end], y[:end], weight[:end], delta, values)
            totals[m] += sum_of(values)

    return block_values


def _losses_over_classes(rows_of_model: Callable[..., Any]) -> Callable[..., Any]:
    """Apply a formula of `_rowwise` to the scores of each model: Z is (rows, models x classes).

    Where G has no columns, no slopes are made.
    """

    @inner
    def block_losses(Z, n, targets, delta, scale, work, G, totals):  # type: ignore[no-untyped-def]
        models, classes = totals.size, Z.shape[1] // totals.size
        if models == 1:
            totals[0] += rows_of_model(Z[:n], n, targets, scale, work[0], G[:n])
            return
        scores, slopes = work[1][:n], work[2][:n] if G.size > 0 else G[:n]
        for m in range(models):
            left = m * classes
            for i in range(n):
                scores[i] = Z[i, left : left + classes]
            totals[m] += rows_of_model(scores, n, targets, scale, work[0], slopes)
            if G.size > 0:
                for i in range(n):
                    G[i, left : left + classes] = slopes[i]

    return block_losses


@inner
def _softmax_rows(Z, n, targets, scale, work, G):  # type: ignore[no-untyped-def]
    _, indices, P, weight = targets
    return cross_entropy(Z, indices, P, weight, scale, work, G)


@inner
def _multiclass_hinge_rows(Z, n, targets, scale, work, G):  # type: ignore[no-untyped-def]
    _, indices, _, weight = targets
    return multiclass_hinge(Z, indices, weight, scale, G)


# ------------------------------------------------------------------------------------------ scores


def _right_signs(threshold: float) -> Callable[..., Any]:
    """Make the score of a classifier of two classes: weights of rows whose score has the target's sign."""

    @inner
    def marks(z, y, weight, values):  # type: ignore[no-untyped-def]
        for i in range(z.size):
            positive = y[i] >= like(y[i], threshold)
            right = z[i] >= like(z[i], 0) if positive else z[i] < like(z[i], 0)
            values[i] = weight[i] if right else like(weight[i], 0)

    @inner
    def block_scores(Z, n, targets, work, totals):  # type: ignore[no-untyped-def]
        y, _, _, weight = targets
        values = work[0][0, :n]
        for m in range(totals.size):
            marks(Z[m, :n], y[:n], weight[:n], values)
            totals[m] += sum_of(values)

    return block_scores


@inner
def _squared_residuals(Z, n, targets, work, totals):  # type: ignore[no-untyped-def]
    y, _, _, weight = targets
    values = work[0][0, :n]
    for m in range(totals.size):
        z = Z[m]
        for i in range(n):
            residual = z[i] - y[i]
            values[i] = weight[i] * residual * residual
        totals[m] += sum_of(values)


@inner
def _is_first_largest(row, place):  # type: ignore[no-untyped-def]
    """Whether an entry is the largest, the first of equals; false if any is NaN."""
    value, right = row[place], True
    for c in range(row.size):
        right &= row[c] < value if c < place else row[c] <= value
    return right


@inner
def _right_classes(Z, n, targets, work, totals):  # type: ignore[no-untyped-def]
    _, indices, P, weight = targets
    classes = Z.shape[1] // totals.size
    for m in range(totals.size):
        for i in range(n):
            true = indices[i] if P.size == 0 else np.argmax(P[i])
            if _is_first_largest(Z[i, m * classes : (m + 1) * classes], true):
                totals[m] += weight[i]


# ------------------------------------------------------------------------------------ all of them


def _numbered(*functions: Callable[..., None]) -> Callable[..., None]:
    """Make one function of up to six: its first argument is the number of the one to call."""
    zeroth, first, second, third, fourth, fifth = (*functions, *[functions[-1]] * (6 - len(functions)))
    last = len(functions) - 1

    @inner
    def call(number, *args):  # type: ignore[no-untyped-def]
        # Branches beyond the last are never compiled: what they compare with is known.
        if number == 0 or last == 0:
            zeroth(*args)
        elif number == 1 or last == 1:
            first(*args)
        elif number == 2 or last == 2:
            second(*args)
        elif number == 3 or last == 3:
            third(*args)
        elif number == 4 or last == 4:
            fourth(*args)
        else:
            fifth(*args)

    return call


_above_half, _above_zero = _right_signs(0.5), _right_signs(0.0)
_over_classes = {
    "softmax_cross_entropy": _losses_over_classes(_softmax_rows),
    "multiclass_hinge": _losses_over_classes(_multiclass_hinge_rows),
}
assert tuple(_over_classes) == OVER_CLASSES

#: The number of a loss among those of one score, or among those over classes.
NUMBER = {loss: number for losses in (POINTWISE, OVER_CLASSES) for number, loss in enumerate(losses)}

# The following have one function for losses of one score, and one for those over classes (true).

#: ``losses(number, Z, n, targets, delta, scale, work, G, totals)`` adds each model's sum of weighted losses to
#: `totals`, and leaves in G the derivatives times `scale` and weight.
LOSSES = {
    False: _numbered(*map(_pointwise_losses, POINTWISE.values())),
    True: _numbered(*_over_classes.values()),
}

#: The same without derivatives; G has no columns.
VALUES = LOSSES | {False: _numbered(*map(_pointwise_values, POINTWISE.values()))}

#: ``scores(number, Z, n, targets, work, totals)`` adds squared residuals, or the weights of rows predicted right.
SCORES = {False: _numbered(_squared_residuals, _above_half, _above_zero), True: _numbered(_right_classes)}
SCORE_NUMBER = dict.fromkeys(NUMBER, 0) | {"binary_cross_entropy": 1, "hinge": 2, "squared_hinge": 2}
