"""The compiled loop over batches: forward, loss, backward and step of each, done by threads together.

What a batch takes is a *program*, a table with one operation in each line: fetch the rows, forward to a level, the
loss, back to a level, the step of a level's weights. Each operation is a number of tasks that may run at the same
time, a few units of a level or a few columns of a matrix. Threads share the tasks; they meet (`team`) where an
operation needs what others have made. Where a level has few weights, threads share the rows instead: then each goes its
way from the rows to the loss and back without a meeting. What is too little to share the first thread does alone.

Each thread writes what it makes to an array of its own first, and in one go to where others read: cache lines that two
threads write to would travel to and fro.

A batch that is longer than a block is worked on in chunks; the gradient is then summed over them.

A layer that is normalised over the batch needs all of its rows in one block. Whoever makes units for all rows knows
their statistics too, on the way back likewise: there is no meeting for them. What is normalised has no intercept: there
are no ones in the block below. Where the gradient of many rows is made so, the lowest level has no block, which would
be as large as X: each thread fetches a few rows at a time, once on the way forward and once for the gradient.

Every number is made by one thread in one order, which does not depend on who makes it: same bits for any number of
threads.
"""

from __future__ import annotations

from typing import NamedTuple

from ..losses.class_formulas import scratch
from ..runtime.jit import inner, kernel
from ..runtime.team import begin, come, is_closed, members_of, shared, taken_in, write_mark
from ..simd.functions import like
from ..simd.rows import copy, copy_row, matrix
from ..training.batches import COMING, WAITING, WORKING
from ._backward import COLUMNS, backward, step_from_totals, step_of_weights
from ._forward import Chunk, Part, forward
from ._plan import (
    ALONE,
    BACKWARD,
    BLOCK,
    BY_COLUMNS,
    BY_ROWS,
    FETCH,
    FORWARD,
    GRADS,
    LOSS,
    PITCH,
    WIDTH,
    Batches,
    Data,
    Model,
    Optimizer,
    Settings,
    Workspace,
)
from .products import UNITS
from .row_losses import LOSS_ROWS, losses_of_rows
from .steps import GRADIENT

__all__ = ["train"]

#: Columns of a task where the columns of weights are shared.
_LINE = 16


class _Tasks(NamedTuple):
    """Some tasks of an operation."""

    operation: int
    level: int
    share: int
    first: int
    last: int


@inner
def _task_count(operation, share, levels, level, n):  # type: ignore[no-untyped-def]
    """Return in how many tasks an operation is done."""
    if operation == LOSS or share == BY_ROWS:
        return -(-n // LOSS_ROWS)
    if operation == FETCH:
        return n
    if share == BY_COLUMNS:
        return -(-levels[PITCH, level - 1] // _LINE)
    if operation == BACKWARD:
        return -(-levels[PITCH, level] // COLUMNS)
    return -(-levels[WIDTH, level] // UNITS)


@inner
def _fetch(X, rows, first, last, levels, blocks):  # type: ignore[no-untyped-def]
    """Copy some of the rows to their block, if there is one."""
    if levels[BLOCK, 0] < 0:
        return
    block = matrix(blocks, levels[BLOCK, 0], rows.size, levels[PITCH, 0])
    for i in range(first, last):
        copy_row(X, rows[i], block, i)


@inner
def _operate(tasks, chunk, settings, data, model, optimizer, workspace, work):  # type: ignore[no-untyped-def]
    """Do some tasks of an operation on the rows of a chunk."""
    operation, level, share, first, last = tasks
    levels, n = model.levels, chunk.rows.size
    row, bottom = 0, n  # the rows that it is done for
    if share == BY_ROWS:
        row, bottom = first * LOSS_ROWS, min(n, last * LOSS_ROWS)
    if operation == FETCH:
        if share == BY_ROWS:
            first, last = row, bottom
        _fetch(data.X, chunk.rows, first, last, levels, workspace.blocks)
    elif operation == FORWARD:
        units = levels[WIDTH, level]
        later = chunk.later if level == 1 else chunk.later[:0]
        if share == BY_ROWS:  # those that this thread will fetch
            first, last = 0, units
            later = later[min(later.size, row) : min(later.size, bottom)]
        else:  # as large a share as this is of the units
            first, last = first * UNITS, min(units, last * UNITS)
            later = later[later.size * first // units : later.size * last // units]
        if level == 1 and levels[BLOCK, 0] < 0:
            later = chunk.rows
        part = Part(level, first, last, row, bottom - row)
        forward(part, chunk, settings, model, optimizer, workspace, data.X, later)
    elif operation == LOSS:
        outputs = levels[WIDTH, level]
        Z = matrix(workspace.blocks, levels[BLOCK, level], n, outputs)
        G = matrix(workspace.grads, levels[GRADS, level], n, outputs)
        scale = like(optimizer.hyperparameters[0], 1) / like(optimizer.hyperparameters[0], chunk.batch_rows)
        losses_of_rows(
            settings.loss, Z, G, first, last, chunk.rows, data.indices, data.targets, data.weights, scale, work,
            workspace.loss_sums,
        )  # fmt: skip
    elif operation == BACKWARD:
        if share == BY_ROWS:
            first, last = 0, -(-levels[PITCH, level] // COLUMNS)
        backward(Part(level, first, last, row, bottom - row), chunk, settings, model, optimizer, workspace)
    else:
        top, low, begin_at, end_at = first * UNITS, min(levels[WIDTH, level], last * UNITS), 0, levels[PITCH, level - 1]
        if share == BY_COLUMNS:
            top, low, begin_at, end_at = 0, levels[WIDTH, level], first * _LINE, min(end_at, last * _LINE)
        rule = settings.rule
        step_of_weights(level, top, low, begin_at, end_at, chunk, rule, data.X, model, optimizer, workspace)
        if chunk.is_last and not chunk.is_whole and rule != GRADIENT:
            step_from_totals(
                level, top, low, begin_at, end_at, rule, model, optimizer, workspace.thread_buffer, chunk.step
            )


@kernel
def train(thread, settings, data, batches, program, model, optimizer, workspace, board, state):  # type: ignore[no-untyped-def]
    """Go on until all batches are done (true), or until it is time to look at Python.

    What has fields comes as plain tuples, which are handed over in a tenth of the time of named ones.
    """
    settings, data, batches = Settings(*settings), Data(*data), Batches(*batches)
    model, optimizer, workspace = Model(*model), Optimizer(*optimizer), Workspace(*workspace)
    place, number, members, stage, allowed, limit = state
    order, batch_size, chunk_rows = batches.order, settings.batch_size, settings.chunk_rows
    lines, chunks = program.shape[0], -(-batch_size // chunk_rows)
    work = scratch(LOSS_ROWS, model.levels[WIDTH, -1], workspace.blocks)
    is_whole = chunks == 1 and settings.rule != GRADIENT

    if stage == COMING:
        come(board, thread)
        number, members, place = taken_in(board, thread)
        if number < 0:
            return is_closed(board)
        stage = WORKING

    while True:
        if stage == WORKING:
            batch, first_row = place // (chunks * lines), place // lines % chunks * chunk_rows
            if batch == batches.steps.shape[0]:
                copy((place, number, members, stage, allowed, limit), state)
                return True
            length = min(batch_size, order.size - batch * batch_size)
            n, at = min(chunk_rows, length - first_row), batch * batch_size + first_row
            if n <= 0:  # a last, shorter batch has fewer chunks
                place += lines
                continue
            if thread == 0 and place % lines == 0:
                if limit == 0:
                    copy((place, number, members, stage, allowed, limit), state)
                    return False
                limit -= 1
            chunk = Chunk(
                settings.batches_before + batch, first_row, length, first_row + n == length, is_whole,
                order[at : at + n], order[at + n : at + 2 * n], batches.steps[batch],
            )  # fmt: skip
            together = True
            while together:
                operation, level, share, meets = program[place % lines]
                count = _task_count(operation, share, model.levels, level, n)
                first, last = count * thread // members, count * (thread + 1) // members
                if share == ALONE:
                    first, last = 0, (count if thread == 0 else 0)
                if first < last:
                    tasks = _Tasks(operation, level, share, first, last)
                    _operate(tasks, chunk, settings, data, model, optimizer, workspace, work)
                place += 1
                together = meets == 0
            if thread == 0 and place % lines == 0:
                for group in range(-(-n // LOSS_ROWS)):
                    batches.losses[batch] += workspace.loss_sums[group]
            if settings.n_threads > 1:
                write_mark(board, thread, number, members, allowed)
                stage = WAITING

        if settings.n_threads > 1:
            if not shared(board, thread, number, members):
                copy((place, number, members, stage, allowed, limit), state)
                return is_closed(board)
            more = members_of(board, number)
            if thread == 0 and more > members:
                begin(board, number + 1, place)
            if thread >= more:  # it goes home: what it wrote down when it last waited holds no longer
                copy((place, -1, 1, COMING, allowed, limit), state)
                return True
            members, number, stage = more, number + 1, WORKING
