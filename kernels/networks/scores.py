"""Scores of a network that has been trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..runtime import parallel
from ..runtime.jit import kernel, readonly
from ..simd.rows import copy, copy_row, frozen, matrix
from . import arguments
from ._forward import Part, activate_values, make_values
from ._plan import (
    BLOCK,
    CALL_SECONDS,
    PITCH,
    PRODUCT,
    WIDTH,
    Array,
    Model,
    Plan,
    Workspace,
    pack,
    units_of,
)

__all__ = ["Norm", "folded", "scores_of"]


#: Rows of a task when scores are made.
_TASK_ROWS = 256


def scores_of(
    X: Array, weights: Sequence[Array], biases: Sequence[Array], *, activation: str, n_threads: int | None
) -> Array:
    """Return the scores of settled rows; what `network_scores` and the estimators stand on."""
    plan = Plan(units_of(weights), activation, [0.0] * (len(weights) - 1), X.dtype)
    flat, _, _ = pack(plan, weights, biases)
    n, rows = len(X), min(plan.rows, max(1, len(X)))
    scores = np.empty((n, plan.units[-1]), X.dtype)
    task_rows = rows * max(1, _TASK_ROWS // rows)
    none = np.empty(0, X.dtype)
    model, X = Model(plan.levels(rows), flat, none.reshape(0, 0)), readonly(X)

    def work(first: int, last: int) -> None:
        workspace = Workspace(plan.blocks(rows), none, none, none, plan.thread_buffer(rows))
        _evaluate(X, tuple(model), tuple(workspace), rows, first * task_rows, min(n, last * task_rows), scores)

    seconds, tasks = sum(plan.products) * PRODUCT * (X.itemsize // 4), -(-n // task_rows)
    most = max(1, int(CALL_SECONDS / (task_rows * seconds)))
    parallel.run_ranges(work, tasks, n_threads, most=most, seconds=n * seconds)
    return scores


@kernel
def _evaluate(X, model, workspace, block_rows, first, last, scores):  # type: ignore[no-untyped-def]
    """Scores of the rows `first` to `last`; the model and the workspace come as plain tuples (see `_loop.train`)."""
    model, workspace = Model(*model), Workspace(*workspace)
    levels, outputs, none = model.levels, model.levels.shape[1] - 1, frozen(np.empty(0, np.intp))
    for top in range(first, last, block_rows):
        n = min(block_rows, last - top)
        block = matrix(workspace.blocks, levels[BLOCK, 0], n, levels[PITCH, 0])
        for i in range(n):
            copy_row(X, top + i, block, i)
        for level in range(1, outputs + 1):
            part = Part(level, 0, levels[WIDTH, level], 0, n)
            make_values(part, model, workspace, X, none)
            activate_values(part, model, workspace)
        copy(matrix(workspace.blocks, levels[BLOCK, outputs], n, levels[WIDTH, outputs]), scores[top : top + n])


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
