"""Networks of fully connected layers: the compiled loop over batches, forwards, backwards and the step.

What a batch takes is a *program*, a table with one operation in each line: fetch the rows, forward to a level, the
loss, back to a level, the step of a level's weights. Each operation is a number of tasks that may run at the same
time, a few units of a level or a few columns of a matrix. Threads share the tasks; they meet (`_team`) where an
operation needs what others have made. Where a level has few weights, threads share the rows instead: then each goes its
way from the rows to the loss and back without a meeting. What is too little to share the first thread does alone.

*Levels* are 0 (the columns of X) to the number of layers (the scores). Values of a level are a block of `_layers`, one
row for each row of a batch, with ones for the intercepts; weights between two levels are a stack. Each thread writes
what it makes to an array of its own first, and in one go to where others read: cache lines that two threads write to
would travel to and fro.

A batch that is longer than a block is worked on in chunks. Its gradient is then summed in float64, as that of a
calculation without a step is; else each strip of it is made, and the step is taken, while it is in registers or in the
first-level cache.

A layer that is normalised over the batch needs all of its rows in one block. Whoever makes units for all rows knows
their statistics too, on the way back likewise: there is no meeting for them. What is normalised has no intercept: there
are no ones in the block below. Where the gradient of many rows is made so, the lowest level has no block, which would
be as large as X: each thread fetches a few rows at a time, once on the way forwards and once for the gradient.

Every number is made by one thread in one order, which does not depend on who makes it: same bits for any number of
threads.
"""

from __future__ import annotations

import numpy as np

from ..losses.class_formulas import scratch
from ..runtime.jit import inner, kernel
from ..runtime.team import begin, come, is_closed, members_of, shared, taken_in, write_mark
from ..simd.functions import like
from ..simd.rows import copy_row, matrix, prefetch_row
from ._batch_norm import SCALE, SHIFT, normalise, normalise_slopes
from .activations import activate, activation_slopes, drop, mixed, restore
from .products import UNITS, outer_strip, unit_strip
from .row_losses import LOSS_ROWS, losses_of_rows
from .steps import _GRADIENT, _SGD, move

__all__ = [
    "ALONE",
    "BACKWARD",
    "BY_COLUMNS",
    "BY_ROWS",
    "BY_UNITS",
    "COMING",
    "FETCH",
    "FORWARD",
    "LIMIT",
    "LOSS",
    "MEET",
    "MEMBERS_NOW",
    "MOST",
    "PLACE",
    "SHARE",
    "STAGE",
    "STEP",
    "SUMMED_ROWS",
    "WORKING",
    "evaluate",
    "train",
]

#: Operations of a program; a line is operation, level, how threads share it, whether to meet afterwards.
FETCH, FORWARD, LOSS, BACKWARD, STEP = range(5)
SHARE, MEET = 2, 3
BY_UNITS, BY_ROWS, BY_COLUMNS, ALONE = range(4)

#: Rows of a table of levels: units, length of a block's rows, begin of block (below 0: none), slopes and stack,
#: activation, threshold of the hash below which a value is dropped, begin of the norms (below 0: none) and of what is
#: kept of them.
_UNITS, _PITCH, _BLOCK, _SLOPES, _STACK, _ACTIVATION, _THRESHOLD, _NORMS, _KEPT = range(9)

#: Where a thread stands: the line of the program, counted from the first batch; round; members; what it is doing; how
#: many members there may be; chunks to do before it comes back.
PLACE, MEMBERS_NOW, STAGE, MOST, LIMIT = 0, 2, 3, 4, 5
WORKING, WAITING, COMING = range(3)


#: Columns of a task on the way back: whole cache lines.
COLUMNS = 64

#: Columns of a task where the columns of weights are shared.
_LINE = 16

#: Rows that a gradient is summed over in the dtype of the rows, at most, where it is summed in float64 beyond that.
SUMMED_ROWS = 256

#: Rows of a block that are worked on together, so that they stay in the second-level cache: their bytes.
_ROWS_BYTES = 1 << 17

#: Entries of a block that stay in the first-level cache while a gradient is made.
_PANEL = 4096

# -------------------------------------------------------------------------------------------- forwards


@inner
def _make_units(block, n, stack, first, last, Z, X, ahead):  # type: ignore[no-untyped-def]
    """Z[i, s] = block[i] . stack[s] for i < n, first <= s < last.

    Meanwhile the rows `ahead` of X are asked for, a few at a time: the CPU can wait for some dozens of lines only.
    """
    rows = max(8, _ROWS_BYTES // (block.shape[1] * block.itemsize) // 8 * 8)
    fours, asked = first + (last - first) // UNITS * UNITS, 0
    share = -(-ahead.size // max(1, -(-n // rows) * ((fours - first) // UNITS)))
    for top in range(0, n, rows):
        bottom = min(n, top + rows)
        for s in range(first, fours, UNITS):
            for i in range(asked, min(ahead.size, asked + share)):
                prefetch_row(X, ahead[i])
            asked += share
            unit_strip(UNITS, block, top, bottom, stack, s, Z)
        for s in range(fours, last):
            unit_strip(1, block, top, bottom, stack, s, Z)


@inner
def _row_key(seed, batch, level, row):  # type: ignore[no-untyped-def]
    """Return a number that no other row of a batch has."""
    return mixed(mixed(mixed(seed, batch), level), row)


@inner
def _dropout_scale(threshold, like_this):  # type: ignore[no-untyped-def]
    """Return what values that are kept are multiplied by, so that the mean stays."""
    return like(like_this, 1 / (1 - threshold * 2.0**-63))


@inner
def _few_rows(own):  # type: ignore[no-untyped-def]
    """Return how many rows of a longer batch go together: they and the next stay in the second-level cache."""
    return SUMMED_ROWS * 2 // own.itemsize


@inner
def _fetched(X, order, levels, own):  # type: ignore[no-untyped-def]
    """Return a few rows as a block, which is at the end of what a thread has for itself."""
    pitch = levels[_PITCH, 0]
    block = matrix(own, own.size - _few_rows(own) * pitch, order.size, pitch)
    for i in range(order.size):
        copy_row(X, order[i], block, i)
    return block


@inner
def _make_values(levels, level, first, last, row, n, parameters, blocks, own, X, ahead):  # type: ignore[no-untyped-def]
    """Make what goes into a level's units `first` to `last` for n rows of a block, in `own`; ask for rows of X.

    Where the lowest level has no block, `ahead` are the rows that they are made from.
    """
    below, pitch, at = levels[_PITCH, level - 1], levels[_PITCH, level], levels[_BLOCK, level - 1]
    stack = matrix(parameters, levels[_STACK, level], levels[_UNITS, level], below)
    most = n if at >= 0 else _few_rows(own)
    for top in range(0, n, most):
        rows, later = min(most, n - top), ahead
        if at >= 0:
            block = matrix(blocks, at + row * below, n, below)
        else:
            block, later = _fetched(X, ahead[top : top + rows], levels, own), ahead[top + rows : top + 2 * rows]
        _make_units(block, rows, stack, first, last, matrix(own, top * pitch, rows, pitch), X, later)


@inner
def _activate_values(levels, level, first, last, row, n, blocks, own):  # type: ignore[no-untyped-def]
    """Put the activations of what is in `own` where others read them."""
    kind, pitch = levels[_ACTIVATION, level], levels[_PITCH, level]
    Z, values = matrix(own, 0, n, pitch), matrix(blocks, levels[_BLOCK, level] + row * pitch, n, pitch)
    for i in range(n):
        activate(kind, Z[i, first:last], values[i, first:last])


@inner
def _forward(  # type: ignore[no-untyped-def]
    levels, level, first, last, row, n, parameters, blocks, own, norms, normals, running_share, dropping, seed, batch,
    top, X, ahead,
):  # fmt: skip
    """Make the values of a level's units `first` to `last` for n rows of a block, from `row` on.

    Meanwhile ask for the rows `ahead` of X.
    """
    pitch = levels[_PITCH, level]
    _make_values(levels, level, first, last, row, n, parameters, blocks, own, X, ahead)
    if levels[_NORMS, level] >= 0:
        kept = matrix(normals, levels[_KEPT, level], n + 1, pitch)
        normalise(matrix(own, 0, n, pitch), first, last, n, norms, levels[_NORMS, level], kept, running_share)
    _activate_values(levels, level, first, last, row, n, blocks, own)
    threshold = levels[_THRESHOLD, level]
    if dropping and threshold > 0:
        scale = _dropout_scale(threshold, parameters[0])
        values = matrix(blocks, levels[_BLOCK, level] + row * pitch, n, pitch)
        for i in range(n):
            drop(_row_key(seed, batch, level, top + i), first, threshold, scale, values[i, first:last])


# ------------------------------------------------------------------------------------------- backwards


@inner
def _backward(  # type: ignore[no-untyped-def]
    levels, level, first, last, row, n, rule, parameters, moments, totals, blocks, slopes, own, norms, normals, step,
    numbers, seed, batch, top,
):  # fmt: skip
    """Make the slopes in a level's units from those of the level above, for some tasks of `COLUMNS` of them.

    That is for n rows of a block, from `row` on.
    """
    units, above, pitch = levels[_UNITS, level], levels[_UNITS, level + 1], levels[_PITCH, level]
    pitch_above = levels[_PITCH, level + 1]
    values = matrix(blocks, levels[_BLOCK, level] + row * pitch, n, pitch)
    G = matrix(slopes, levels[_SLOPES, level] + row * pitch, n, pitch)
    above_G = matrix(slopes, levels[_SLOPES, level + 1] + row * pitch_above, n, pitch_above)
    stack = matrix(parameters, levels[_STACK, level + 1], above, pitch)
    D, zero = matrix(own, 0, n, pitch), parameters[0]
    fours = n // UNITS * UNITS
    for task in range(first, last):
        begin_at, end_at = task * COLUMNS, min(pitch, (task + 1) * COLUMNS)
        for i in range(0, fours, UNITS):
            outer_strip(UNITS, True, False, stack, above, above_G, i, D, i, begin_at, end_at, parameters, zero)
        for i in range(fours, n):
            outer_strip(1, True, False, stack, above, above_G, i, D, i, begin_at, end_at, parameters, zero)
    begin_at, end_at = min(units, first * COLUMNS), min(units, last * COLUMNS)
    kind, threshold = levels[_ACTIVATION, level], levels[_THRESHOLD, level]
    if rule != _GRADIENT and threshold > 0:
        scale, kept = _dropout_scale(threshold, zero), np.empty(end_at - begin_at, own.dtype)
        for i in range(n):
            a, d, g = values[i, begin_at:end_at], D[i, begin_at:end_at], G[i, begin_at:end_at]
            restore(_row_key(seed, batch, level, top + i), begin_at, threshold, scale, a, d, kept)
            activation_slopes(kind, kept, d, g)
    else:
        for i in range(n):
            activation_slopes(kind, values[i, begin_at:end_at], D[i, begin_at:end_at], G[i, begin_at:end_at])
    if levels[_NORMS, level] >= 0 and begin_at < end_at:
        _normalise_slopes(
            levels, level, begin_at, end_at, n, rule, G, norms, normals, parameters.size, moments, totals, step, numbers
        )


@inner
def _normalise_slopes(  # type: ignore[no-untyped-def]
    levels, level, first, last, n, rule, G, norms, normals, n_parameters, moments, totals, step, numbers
):  # fmt: skip
    """Go back through the normalisation of some units of a level, and take the step of their scales and shifts.

    In moments and totals these come after the parameters, all scales first.
    """
    kept = matrix(normals, levels[_KEPT, level], n + 1, levels[_PITCH, level])
    here = slice(levels[_NORMS, level] + first, levels[_NORMS, level] + last)
    of_norms, gradient, none = (
        np.zeros((2, last - first)),
        np.empty(last - first, G.dtype),
        np.zeros(last - first, G.dtype),
    )
    normalise_slopes(G, first, last, n, norms[SCALE, here], kept, of_norms[SCALE], of_norms[SHIFT])
    for which in (SCALE, SHIFT):
        begin_at = n_parameters + which * norms.shape[1] + levels[_NORMS, level]
        there = slice(begin_at + first, begin_at + last)
        if rule == _GRADIENT:
            _add(totals[there], of_norms[which])
            continue
        _narrow(of_norms[which], gradient)
        move(rule, norms[which, here], gradient, none, none, moments[0, there], moments[1, there], step, numbers)


@inner
def _add(total, part):  # type: ignore[no-untyped-def]
    for d in range(part.size):
        total[d] += part[d]


@inner
def _narrow(total, part):  # type: ignore[no-untyped-def]
    for d in range(part.size):
        part[d] = total[d]


@inner
def _step(  # type: ignore[no-untyped-def]
    X, order, levels, level, top, bottom, begin_at, end_at, n, rule, whole, parameters, moments, totals, blocks, slopes,
    own, decay, shrink, step, numbers,
):  # fmt: skip
    """Make the gradient of some weights that lead to a level, and take their step.

    That is of the units `top` to `bottom` and of the columns `begin_at` to `end_at` of the stack.
    `whole`: the rows are the whole batch; else the gradient goes to `totals`, that of a few rows after that of others.
    A plain step is taken in registers. Where the lowest level has no block, its rows are fetched again.
    """
    units, pitch, above = levels[_UNITS, level], levels[_PITCH, level - 1], levels[_PITCH, level]
    stack = matrix(parameters, levels[_STACK, level], units, pitch)
    gradient, decays, shrinks = matrix(own, 0, UNITS, pitch), decay[level - 1], shrink[level - 1]
    most = n if whole or n <= SUMMED_ROWS else _few_rows(own)
    panel = max(1, _PANEL // most // COLUMNS) * COLUMNS
    for row in range(0, n, most):
        rows = min(most, n - row)
        later, strips, done = order[:0], 1, 0
        if levels[_BLOCK, level - 1] >= 0:
            block = matrix(blocks, levels[_BLOCK, level - 1] + row * pitch, rows, pitch)
        else:
            block, later = _fetched(X, order[row : row + rows], levels, own), order[row + rows : row + 2 * rows]
            strips = -(-(end_at - begin_at) // panel) * -(-(bottom - top) // UNITS)
        G = matrix(slopes, levels[_SLOPES, level] + row * above, rows, above)
        for left in range(begin_at, end_at, panel):
            right = min(end_at, left + panel)
            for s in range(top, bottom, UNITS):
                count = min(UNITS, bottom - s)
                if later.size > 0:
                    for i in range(later.size * done // strips, later.size * (done + 1) // strips):
                        prefetch_row(X, later[i])
                    done += 1
                if whole and rule == _SGD:
                    if count == UNITS:
                        outer_strip(UNITS, False, True, block, rows, G, s, stack, s, left, right, decays, step[0])
                    else:
                        for k in range(s, s + count):
                            outer_strip(1, False, True, block, rows, G, k, stack, k, left, right, decays, step[0])
                    continue
                if count == UNITS:
                    outer_strip(UNITS, False, False, block, rows, G, s, gradient, 0, left, right, decays, step[0])
                else:
                    for k in range(count):
                        outer_strip(1, False, False, block, rows, G, s + k, gradient, k, left, right, decays, step[0])
                for k in range(count):
                    part, of_unit = gradient[k, left:right], levels[_STACK, level] + (s + k) * pitch
                    here = slice(of_unit + left, of_unit + right)
                    if not whole:
                        _add(totals[here], part)
                        continue
                    move(
                        rule, parameters[here], part, decays[left:right], shrinks[left:right], moments[0, here],
                        moments[1, here], step, numbers,
                    )  # fmt: skip


@inner
def _step_from_totals(  # type: ignore[no-untyped-def]
    levels, level, top, bottom, begin_at, end_at, rule, parameters, moments, totals, own, decay, shrink, step, numbers
):
    """Take the step of some weights, as in `_step`, whose gradient has been summed in `totals`, and clear that."""
    pitch = levels[_PITCH, level - 1]
    decays, shrinks = decay[level - 1, begin_at:end_at], shrink[level - 1, begin_at:end_at]
    for s in range(top, bottom):
        row = levels[_STACK, level] + s * pitch
        here = slice(row + begin_at, row + end_at)
        gradient = own[begin_at:end_at]
        _narrow(totals[here], gradient)
        totals[here] = 0
        move(rule, parameters[here], gradient, decays, shrinks, moments[0, here], moments[1, here], step, numbers)


# -------------------------------------------------------------------------------------------- kernels


@inner
def _tasks(operation, share, levels, level, n):  # type: ignore[no-untyped-def]
    """Return in how many tasks an operation is done."""
    if operation == LOSS or share == BY_ROWS:
        return -(-n // LOSS_ROWS)
    if operation == FETCH:
        return n
    if share == BY_COLUMNS:
        return -(-levels[_PITCH, level - 1] // _LINE)
    if operation == BACKWARD:
        return -(-levels[_PITCH, level] // COLUMNS)
    return -(-levels[_UNITS, level] // UNITS)


@inner
def _fetch(X, order, first, last, n, levels, blocks):  # type: ignore[no-untyped-def]
    """Copy some of the n rows of `order`, where there is a block for them."""
    if levels[_BLOCK, 0] < 0:
        return
    block = matrix(blocks, levels[_BLOCK, 0], n, levels[_PITCH, 0])
    for i in range(first, last):
        copy_row(X, order[i], block, i)


@inner
def _operate(  # type: ignore[no-untyped-def]
    operation, level, share, first, last, n, at, first_row, length, last_chunk, whole, X, indices, T, weight, order,
    step, levels, loss, rule, seed, batch, numbers, decay, shrink, parameters, moments, totals, blocks, slopes, norms,
    normals, sums, own, work,
):  # fmt: skip
    """Do some tasks of an operation on n rows, from `first_row` of a batch and number `at` of `order` on."""
    row, bottom = 0, n  # the rows that it is done for
    if share == BY_ROWS:
        row, bottom = first * LOSS_ROWS, min(n, last * LOSS_ROWS)
    if operation == FETCH:
        if share == BY_ROWS:
            first, last = row, bottom
        _fetch(X, order[at : at + n], first, last, n, levels, blocks)
    elif operation == FORWARD:
        units, dropping = levels[_UNITS, level], rule != _GRADIENT
        later = order[at + n : at + 2 * n] if level == 1 else order[:0]
        if share == BY_ROWS:  # those that this thread will fetch
            first, last = 0, units
            later = later[min(later.size, row) : min(later.size, bottom)]
        else:  # as large a share as this is of the units
            first, last = first * UNITS, min(units, last * UNITS)
            later = later[later.size * first // units : later.size * last // units]
        if level == 1 and levels[_BLOCK, 0] < 0:
            later = order[at : at + n]
        running_share = numbers[4] if dropping else like(numbers[4], 0)
        _forward(
            levels, level, first, last, row, bottom - row, parameters, blocks, own, norms, normals, running_share,
            dropping, seed, batch, first_row + row, X, later,
        )  # fmt: skip
    elif operation == LOSS:
        outputs = levels[_UNITS, level]
        Z, G = matrix(blocks, levels[_BLOCK, level], n, outputs), matrix(slopes, levels[_SLOPES, level], n, outputs)
        scale = like(numbers[0], 1) / like(numbers[0], length)
        losses_of_rows(loss, Z, G, n, first, last, order[at : at + n], indices, T, weight, scale, work, sums)
    elif operation == BACKWARD:
        if share == BY_ROWS:
            first, last = 0, -(-levels[_PITCH, level] // COLUMNS)
        _backward(
            levels, level, first, last, row, bottom - row, rule, parameters, moments, totals, blocks, slopes, own,
            norms, normals, step, numbers, seed, batch, first_row + row,
        )  # fmt: skip
    else:
        top, low, begin_at, end_at = (
            first * UNITS,
            min(levels[_UNITS, level], last * UNITS),
            0,
            levels[_PITCH, level - 1],
        )
        if share == BY_COLUMNS:
            top, low, begin_at, end_at = 0, levels[_UNITS, level], first * _LINE, min(end_at, last * _LINE)
        _step(
            X, order[at : at + n], levels, level, top, low, begin_at, end_at, n, rule, whole, parameters, moments,
            totals, blocks, slopes, own, decay, shrink, step, numbers,
        )  # fmt: skip
        if last_chunk and not whole and rule != _GRADIENT:
            _step_from_totals(
                levels, level, top, low, begin_at, end_at, rule, parameters, moments, totals, own, decay, shrink, step,
                numbers,
            )  # fmt: skip


@kernel
def train(  # type: ignore[no-untyped-def]
    thread, X, indices, T, weight, order, steps, levels, program, constants, numbers, decay, shrink, parameters,
    moments, totals, blocks, slopes, norms, normals, losses, sums, board, own, state,
):  # fmt: skip
    """Go on until all batches are done (true), or until it is time to look at Python."""
    loss, batch_size, rows, rule, seed, batches_before, n_threads = constants
    place, number, members, stage, allowed, limit = state
    lines, chunks = program.shape[0], -(-batch_size // rows)
    work, whole = scratch(LOSS_ROWS, levels[_UNITS, -1], blocks), chunks == 1 and rule != _GRADIENT

    if stage == COMING:
        come(board, thread)
        number, members, place = taken_in(board, thread)
        if number < 0:
            return is_closed(board)
        stage = WORKING

    while True:
        if stage == WORKING:
            batch, first_row = place // (chunks * lines), place // lines % chunks * rows
            if batch == steps.shape[0]:
                state[:] = (place, number, members, stage, allowed, limit)
                return True
            length = min(batch_size, order.size - batch * batch_size)
            n, at = min(rows, length - first_row), batch * batch_size + first_row
            if n <= 0:  # a last, shorter batch has fewer chunks
                place += lines
                continue
            if thread == 0 and place % lines == 0:
                if limit == 0:
                    state[:] = (place, number, members, stage, allowed, limit)
                    return False
                limit -= 1
            together = True
            while together:
                operation, level, share, meets = program[place % lines]
                tasks = _tasks(operation, share, levels, level, n)
                first, last = tasks * thread // members, tasks * (thread + 1) // members
                if share == ALONE:
                    first, last = 0, (tasks if thread == 0 else 0)
                if first < last:
                    _operate(
                        operation, level, share, first, last, n, at, first_row, length, first_row + n == length, whole,
                        X, indices, T, weight, order, steps[batch], levels, loss, rule, seed, batches_before + batch,
                        numbers, decay, shrink, parameters, moments, totals, blocks, slopes, norms, normals, sums, own,
                        work,
                    )  # fmt: skip
                place += 1
                together = meets == 0
            if thread == 0 and place % lines == 0:
                for group in range(-(-n // LOSS_ROWS)):
                    losses[batch] += sums[group]
            if n_threads > 1:
                write_mark(board, thread, number, members, allowed)
                stage = WAITING

        if n_threads > 1:
            if not shared(board, thread, number, members):
                state[:] = (place, number, members, stage, allowed, limit)
                return is_closed(board)
            more = members_of(board, number)
            if thread == 0 and more > members:
                begin(board, number + 1, place)
            if thread >= more:
                return True
            members, number, stage = more, number + 1, WORKING


@kernel
def evaluate(X, levels, parameters, task_rows, rows, first, last, blocks, own, scores):  # type: ignore[no-untyped-def]
    """Scores of some tasks of rows."""
    outputs, none = levels.shape[1] - 1, np.empty(0, np.intp)
    for top in range(first * task_rows, min(X.shape[0], last * task_rows), rows):
        n = min(rows, X.shape[0] - top)
        block = matrix(blocks, levels[_BLOCK, 0], n, levels[_PITCH, 0])
        for i in range(n):
            copy_row(X, top + i, block, i)
        for level in range(1, outputs + 1):
            units = levels[_UNITS, level]
            _make_values(levels, level, 0, units, 0, n, parameters, blocks, own, X, none)
            _activate_values(levels, level, 0, units, 0, n, blocks, own)
        scores[top : top + n] = matrix(blocks, levels[_BLOCK, outputs], n, levels[_UNITS, outputs])
