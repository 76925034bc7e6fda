"""Losses and scores of the models of a stack, for a block of rows.

The formulas stand in `losses.formulas` and `losses.class_formulas`; here they are applied to the scores of one model
after the other, so that a model's bits do not depend on others. Scores are (models, rows) for losses of one score, so
that a vector holds many rows, and (rows, models x classes) for losses over classes.

`targets` are the block's values, class indices, target probabilities (those that the loss does not need are empty)
and weights. Loops run over whole groups of rows: beyond the block's end weights, values and scores are 0.

One kernel serves all losses of one score, and one the losses over classes: each compiles in a fraction of the time that
kernels for every loss would take. Which loss is meant is a number, looked at once per block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..losses.class_formulas import CLASSWISE, scratch
from ..losses.formulas import POINTWISE
from ..losses.table import LOSSES, OF_ONE_SCORE, OVER_CLASSES
from ..runtime.jit import inner
from ..runtime.switch import switch
from ..simd.functions import like
from ..simd.rows import copy, sum_of
from ._stacked import GROUP

__all__ = ["NUMBER", "SCORES", "SCORE_NUMBER", "STACKED_LOSSES", "STACKED_VALUES", "workspace"]


#: Those that linear models are trained with.
_OF_ONE_SCORE = tuple(name for name in OF_ONE_SCORE if LOSSES[name].in_training)


@inner
def workspace(rows, classes, like_array):  # type: ignore[no-untyped-def]
    """Return scratch for the functions below: of `class_formulas`, and a model's scores and their gradient."""
    scores, gradient = np.zeros((rows, classes), like_array.dtype), np.zeros((rows, classes), like_array.dtype)
    return scratch(rows, classes, like_array), scores, gradient


# ------------------------------------------------------------------------------------------ losses


def _pointwise_losses(term: Callable[..., Any]) -> Callable[..., Any]:
    """Apply one of the `formulas` to the scores of each model: Z is (models, rows)."""

    @inner
    def terms(z, y, weight, delta, scale, values, g):  # type: ignore[no-untyped-def]
        for i in range(values.size):
            value, derivative = term(z[i], y[i], delta)
            values[i] = weight[i] * value
            g[i] = scale * weight[i] * derivative

    @inner
    def block_losses(Z, y, weight, delta, scale, values, G, totals):  # type: ignore[no-untyped-def]
        for m in range(totals.size):
            terms(Z[m], y, weight, delta, scale, values, G[m])
            totals[m] += sum_of(values)

    return block_losses


def _pointwise_values(term: Callable[..., Any]) -> Callable[..., Any]:
    """As `_pointwise_losses`, without the derivatives."""

    @inner
    def values_of(z, y, weight, delta, values):  # type: ignore[no-untyped-def]
        for i in range(values.size):
            values[i] = weight[i] * term(z[i], y[i], delta)[0]

    @inner
    def block_values(Z, y, weight, delta, scale, values, G, totals):  # type: ignore[no-untyped-def]
        for m in range(totals.size):
            values_of(Z[m], y, weight, delta, values)
            totals[m] += sum_of(values)

    return block_values


def _pointwise(made: Callable[..., Any]) -> Callable[..., Any]:
    """Make one function of all that the above make: beyond a block's rows, up to a whole group, scores are made 0."""
    of_group = switch(*(made(POINTWISE[name]) for name in _OF_ONE_SCORE))

    @inner
    def block_losses(loss, Z, n, targets, delta, scale, work, G, totals):  # type: ignore[no-untyped-def]
        y, _, _, weight = targets
        end = -(-n // GROUP) * GROUP
        Z[:, n:end] = 0
        of_group(loss, Z, y, weight, delta, scale, work[0][0, :end], G, totals)

    return block_losses


def _classwise_losses(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Apply one of the `class_formulas` to the scores of each model: Z is (rows, models x classes).

    Where G has no columns, no derivatives are made.
    """

    @inner
    def block_losses(Z, n, targets, delta, scale, work, G, totals):  # type: ignore[no-untyped-def]
        models, classes = totals.size, Z.shape[1] // totals.size
        _, indices, P, weight = targets
        if models == 1:
            totals[0] += formula(Z[:n], indices, P, weight, scale, work[0], G[:n])
            return
        scores, gradient = work[1][:n], work[2][:n] if G.size > 0 else G[:n]
        for m in range(models):
            left = m * classes
            for i in range(n):
                copy(Z[i, left : left + classes], scores[i])
            totals[m] += formula(scores, indices, P, weight, scale, work[0], gradient)
            if G.size > 0:
                for i in range(n):
                    copy(gradient[i], G[i, left : left + classes])

    return block_losses


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


#: The number of a loss among those of one score, or among those over classes.
NUMBER = {loss: number for losses in (_OF_ONE_SCORE, OVER_CLASSES) for number, loss in enumerate(losses)}

#: From where on targets are of class 1.
_THRESHOLDS = (0.5, 0.0)

# The following have one function for losses of one score, and one for those over classes (true).

#: ``losses(number, Z, n, targets, delta, scale, work, G, totals)`` adds each model's sum of weighted losses to
#: `totals`, and leaves in G the derivatives times `scale` and weight.
STACKED_LOSSES = {
    False: _pointwise(_pointwise_losses),
    True: switch(*map(_classwise_losses, CLASSWISE.values())),
}

#: The same without derivatives; G has no columns.
STACKED_VALUES = STACKED_LOSSES | {False: _pointwise(_pointwise_values)}

#: ``scores(number, Z, n, targets, work, totals)`` adds squared residuals, or the weights of rows predicted right.
SCORES = {False: switch(_squared_residuals, *map(_right_signs, _THRESHOLDS)), True: switch(_right_classes)}
SCORE_NUMBER = {
    name: 0 if loss.class_1_from is None else 1 + _THRESHOLDS.index(loss.class_1_from) for name, loss in LOSSES.items()
}
