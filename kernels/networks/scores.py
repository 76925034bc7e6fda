"""Scores of a network that has been trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..runtime import parallel
from ..runtime.jit import readonly
from . import arguments
from ._loop import evaluate
from ._plan import _PRODUCT, CALL_SECONDS, SERIAL_SECONDS, Array, _Plan, _stacks, _units

__all__ = ["Norm", "folded", "scores_of"]


#: Rows of a task when scores are made.
_TASK_ROWS = 256


def scores_of(
    X: Array, weights: Sequence[Array], biases: Sequence[Array], *, activation: str, n_threads: int | None
) -> Array:
    """Return the scores of settled rows; what `network_scores` and the estimators stand on."""
    plan = _Plan(_units(weights), activation, [0.0] * (len(weights) - 1), X.dtype)
    flat, _, _ = _stacks(plan, weights, biases)
    n, rows = len(X), min(plan.rows, max(1, len(X)))
    scores = np.empty((n, plan.units[-1]), X.dtype)
    task_rows = rows * max(1, _TASK_ROWS // rows)
    levels, parameters, X = plan.levels(rows), readonly(flat), readonly(X)

    def work(first: int, last: int) -> None:
        evaluate(X, levels, parameters, task_rows, rows, first, last, plan.blocks(rows), plan.own(rows), scores)

    seconds, tasks = sum(plan.products) * _PRODUCT * (X.itemsize // 4), -(-n // task_rows)
    if n_threads is None and n * seconds < SERIAL_SECONDS:
        work(0, tasks)
    else:
        most = max(1, int(CALL_SECONDS / (task_rows * seconds)))
        parallel.run_ranges(work, tasks, parallel.resolve(n_threads), most=most)
    return scores


class Norm(NamedTuple):
    """What the normalisation of a layer has beside its shifts, which stand for intercepts: an entry for each unit."""

    scales: Array
    means: Array
    variances: Array


def folded(weights: Sequence[Array], biases: Sequence[Array], norms: Sequence[Norm]) -> tuple[list[Array], list[Array]]:
    """Return weights and intercepts that have the normalisation of the hidden layers by running statistics in them."""
    W, b = list(weights), list(biases)
    for place, (scales, means, variances) in enumerate(norms):
        factor = scales / np.sqrt(variances.astype(np.float64) + arguments.NORM_EPSILON)
        W[place] = (weights[place] * factor[:, np.newaxis]).astype(weights[place].dtype)
        b[place] = (biases[place] - means * factor).astype(biases[place].dtype)
    return W, b
