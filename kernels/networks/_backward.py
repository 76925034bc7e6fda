"""Backward: the gradient in the values of a level, that in its weights, and the step that the weights take.

With G the gradient in what goes into the units of a level, that in the values below is ``G W``, and that in the weights
``G^T values``. A strip of the latter is made, and the step taken, while it is in registers or in the first-level cache.
Where a batch is longer than a chunk, or no step is taken, it is summed in float64 instead.
"""

from __future__ import annotations

import numpy as np

from ..runtime.jit import inner
from ..simd.rows import frozen, matrix, narrow, prefetch_row
from ._batch_norm import SCALE, SHIFT, normalize_backward
from ._forward import dropout_key, dropout_scale, fetched, few_rows
from ._plan import ACTIVATION, BLOCK, GRADS, KEPT, NORMS_AT, PITCH, STACK, SUMMED_ROWS, THRESHOLD, WIDTH
from .activations import activate_backward, drop_backward
from .products import UNITS, outer_strip
from .steps import GRADIENT, SGD, move

__all__ = ["COLUMNS", "backward", "step_from_totals", "step_of_weights"]

#: Columns of a task on the way back: whole cache lines.
COLUMNS = 64

#: Entries of a block that stay in the first-level cache while a gradient is made, and columns of a panel at least: of
#: many rows they stay in the second-level one, and they are whole tiles, be these of two, three or four vectors.
_PANEL, _PANEL_COLUMNS = 4096, 3 * COLUMNS


@inner
def backward(part, chunk, settings, model, optimizer, workspace):  # type: ignore[no-untyped-def]
    """Make the gradient in what goes into a level's units from that of the level above.

    The part is in tasks of `COLUMNS` units.
    """
    levels, level, row, n, own = model.levels, part.level, part.row, part.n, workspace.thread_buffer
    units, above, pitch = levels[WIDTH, level], levels[WIDTH, level + 1], levels[PITCH, level]
    pitch_above = levels[PITCH, level + 1]
    values = matrix(workspace.blocks, levels[BLOCK, level] + row * pitch, n, pitch)
    G = matrix(workspace.grads, levels[GRADS, level] + row * pitch, n, pitch)
    above_G = matrix(workspace.grads, levels[GRADS, level + 1] + row * pitch_above, n, pitch_above)
    stack = matrix(model.parameters, levels[STACK, level + 1], above, pitch)
    D, zero = matrix(own, 0, n, pitch), model.parameters[0]
    fours = n // UNITS * UNITS
    for task in range(part.first, part.last):
        begin_at, end_at = task * COLUMNS, min(pitch, (task + 1) * COLUMNS)
        for i in range(0, fours, UNITS):
            outer_strip(UNITS, True, False, stack, above_G, i, D, i, begin_at, end_at, model.parameters, zero)
        for i in range(fours, n):
            outer_strip(1, True, False, stack, above_G, i, D, i, begin_at, end_at, model.parameters, zero)
    begin_at, end_at = min(units, part.first * COLUMNS), min(units, part.last * COLUMNS)
    kind, threshold = levels[ACTIVATION, level], levels[THRESHOLD, level]
    if settings.rule != GRADIENT and threshold > 0:
        scale, kept = dropout_scale(threshold, zero), np.empty(end_at - begin_at, own.dtype)
        for i in range(n):
            a, d, g = values[i, begin_at:end_at], D[i, begin_at:end_at], G[i, begin_at:end_at]
            key = dropout_key(settings.seed, chunk.batch, level, chunk.first_row + row + i)
            drop_backward(key, begin_at, threshold, scale, a, d, kept)
            activate_backward(kind, kept, d, g)
    else:
        for i in range(n):
            activate_backward(kind, values[i, begin_at:end_at], D[i, begin_at:end_at], G[i, begin_at:end_at])
    if levels[NORMS_AT, level] >= 0 and begin_at < end_at:
        _through_norms(level, begin_at, end_at, G, settings.rule, model, optimizer, workspace, chunk.step)


@inner
def _through_norms(level, first, last, G, rule, model, optimizer, workspace, step):  # type: ignore[no-untyped-def]
    """Go back through the normalisation of some units of a level, and take the step of their scales and shifts.

    In moments and totals these come after the parameters, all scales first.
    """
    levels, norms, n = model.levels, model.norms, G.shape[0]
    kept = matrix(workspace.normalized, levels[KEPT, level], n + 1, levels[PITCH, level])
    here = slice(levels[NORMS_AT, level] + first, levels[NORMS_AT, level] + last)
    of_norms = np.zeros((2, last - first))
    gradient, none = np.empty(last - first, G.dtype), frozen(np.zeros(last - first, G.dtype))
    normalize_backward(G, first, last, n, norms[SCALE, here], kept, of_norms[SCALE], of_norms[SHIFT])
    for which in (SCALE, SHIFT):
        begin_at = model.parameters.size + which * norms.shape[1] + levels[NORMS_AT, level]
        there = slice(begin_at + first, begin_at + last)
        if rule == GRADIENT:
            _add(optimizer.totals[there], of_norms[which])
            continue
        narrow(of_norms[which], gradient)
        m, v = optimizer.moments[0, there], optimizer.moments[1, there]
        move(rule, norms[which, here], frozen(gradient), none, none, m, v, step, optimizer.hyperparameters)


@inner
def _add(total, part):  # type: ignore[no-untyped-def]
    for d in range(part.size):
        total[d] += part[d]


@inner
def step_of_weights(level, top, bottom, begin_at, end_at, chunk, rule, X, model, optimizer, workspace):  # type: ignore[no-untyped-def]
    """Make the gradient of some weights that lead to a level, and take their step.

    That is of the units `top` to `bottom` and of the columns `begin_at` to `end_at` of the stack. If the chunk is not
    the whole batch the gradient goes to the totals, that of a few rows after that of others.
    A plain step is taken in registers. Where the lowest level has no block, its rows are fetched again.
    """
    levels, own, n, step = model.levels, workspace.thread_buffer, chunk.rows.size, chunk.step
    units, pitch, above = levels[WIDTH, level], levels[PITCH, level - 1], levels[PITCH, level]
    stack = matrix(model.parameters, levels[STACK, level], units, pitch)
    l2, weight_decay = optimizer.l2[level - 1], optimizer.weight_decay[level - 1]
    gradient = matrix(own, 0, UNITS, pitch)
    most = n if chunk.is_whole or n <= SUMMED_ROWS else few_rows(own)
    panel = max(1, _PANEL // most // _PANEL_COLUMNS) * _PANEL_COLUMNS
    for row in range(0, n, most):
        rows = min(most, n - row)
        later, strips, done = chunk.rows[:0], 1, 0
        if levels[BLOCK, level - 1] >= 0:
            block = matrix(workspace.blocks, levels[BLOCK, level - 1] + row * pitch, rows, pitch)
        else:
            block = fetched(X, chunk.rows[row : row + rows], levels, own)
            later = chunk.rows[row + rows : row + 2 * rows]
            strips = -(-(end_at - begin_at) // panel) * -(-(bottom - top) // UNITS)
        G = matrix(workspace.grads, levels[GRADS, level] + row * above, rows, above)
        for left in range(begin_at, end_at, panel):
            right = min(end_at, left + panel)
            for s in range(top, bottom, UNITS):
                count = min(UNITS, bottom - s)
                if later.size > 0:
                    for i in range(later.size * done // strips, later.size * (done + 1) // strips):
                        prefetch_row(X, later[i])
                    done += 1
                if chunk.is_whole and rule == SGD:
                    if count == UNITS:
                        outer_strip(UNITS, False, True, block, G, s, stack, s, left, right, l2, step[0])
                    else:
                        for k in range(s, s + count):
                            outer_strip(1, False, True, block, G, k, stack, k, left, right, l2, step[0])
                    continue
                if count == UNITS:
                    outer_strip(UNITS, False, False, block, G, s, gradient, 0, left, right, l2, step[0])
                else:
                    for k in range(count):
                        outer_strip(1, False, False, block, G, s + k, gradient, k, left, right, l2, step[0])
                for k in range(count):
                    strip, of_unit = gradient[k, left:right], levels[STACK, level] + (s + k) * pitch
                    here = slice(of_unit + left, of_unit + right)
                    if not chunk.is_whole:
                        _add(optimizer.totals[here], strip)
                        continue
                    m, v = optimizer.moments[0, here], optimizer.moments[1, here]
                    move(
                        rule, model.parameters[here], frozen(strip), l2[left:right], weight_decay[left:right], m, v,
                        step, optimizer.hyperparameters,
                    )  # fmt: skip


@inner
def step_from_totals(level, top, bottom, begin_at, end_at, rule, model, optimizer, own, step):  # type: ignore[no-untyped-def]
    """Take the step of some weights, as above, whose gradient has been summed in the totals, and clear these."""
    levels, totals = model.levels, optimizer.totals
    pitch = levels[PITCH, level - 1]
    l2, weight_decay = optimizer.l2[level - 1, begin_at:end_at], optimizer.weight_decay[level - 1, begin_at:end_at]
    for s in range(top, bottom):
        row = levels[STACK, level] + s * pitch
        here = slice(row + begin_at, row + end_at)
        gradient = own[begin_at:end_at]
        narrow(totals[here], gradient)
        totals[here] = 0
        m, v = optimizer.moments[0, here], optimizer.moments[1, here]
        move(rule, model.parameters[here], frozen(gradient), l2, weight_decay, m, v, step, optimizer.hyperparameters)
