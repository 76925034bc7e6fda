"""Forward: the values of a level from those of the level below, ``activation(norm(values W^T + b))``, and dropout.

The lowest level of a network that is normalised may have no block, which would be as large as X: then a few rows at a
time are fetched.
"""

from __future__ import annotations

from typing import NamedTuple

from ..runtime.jit import inner
from ..simd.functions import like
from ..simd.rows import copy_row, matrix, prefetch_row
from ._batch_norm import normalize
from ._plan import ACTIVATION, BLOCK, KEPT, NORMS_AT, PITCH, STACK, SUMMED_ROWS, THRESHOLD, WIDTH, Array
from .activations import activate, drop, mixed
from .products import UNITS, unit_strip
from .steps import GRADIENT

__all__ = [
    "Chunk",
    "Part",
    "activate_values",
    "dropout_key",
    "dropout_scale",
    "fetched",
    "few_rows",
    "forward",
    "make_values",
]

#: Rows of a block that are worked on together, so that they stay in the second-level cache: their bytes.
_ROWS_BYTES = 1 << 17


class Chunk(NamedTuple):
    """Rows of a batch that are worked on together."""

    batch: int  # since the beginning: what is dropped depends on it
    first_row: int  # of the batch
    batch_rows: int
    is_last: bool
    is_whole: bool  # the rows are all that a step is taken for
    rows: Array  # numbers of the rows
    later: Array  # those of the chunk that follows
    step: Array


class Part(NamedTuple):
    """Some units of a level, for some rows of a chunk."""

    level: int
    first: int
    last: int
    row: int
    n: int


@inner
def _products(block, n, stack, first, last, Z, X, ahead):  # type: ignore[no-untyped-def]
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
def dropout_key(seed, batch, level, row):  # type: ignore[no-untyped-def]
    """Return a number that no other row of a batch has."""
    return mixed(mixed(mixed(seed, batch), level), row)


@inner
def dropout_scale(threshold, like_this):  # type: ignore[no-untyped-def]
    """Return what values that are kept are multiplied by, so that the mean stays."""
    return like(like_this, 1 / (1 - threshold * 2.0**-63))


@inner
def few_rows(own):  # type: ignore[no-untyped-def]
    """Return how many rows of a longer batch go together: they and the next stay in the second-level cache."""
    return SUMMED_ROWS * 2 // own.itemsize


@inner
def fetched(X, rows, levels, own):  # type: ignore[no-untyped-def]
    """Return a few rows as a block, which is at the end of what a thread has for itself."""
    pitch = levels[PITCH, 0]
    block = matrix(own, own.size - few_rows(own) * pitch, rows.size, pitch)
    for i in range(rows.size):
        copy_row(X, rows[i], block, i)
    return block


@inner
def make_values(part, model, workspace, X, ahead):  # type: ignore[no-untyped-def]
    """Make what goes into some units of a level, in the thread's own array; ask for rows of X.

    Where the lowest level has no block, `ahead` are the rows that they are made from.
    """
    levels, own, level, n = model.levels, workspace.thread_buffer, part.level, part.n
    below, pitch, at = levels[PITCH, level - 1], levels[PITCH, level], levels[BLOCK, level - 1]
    stack = matrix(model.parameters, levels[STACK, level], levels[WIDTH, level], below)
    most = n if at >= 0 else few_rows(own)
    for top in range(0, n, most):
        rows, later = min(most, n - top), ahead
        if at >= 0:
            block = matrix(workspace.blocks, at + part.row * below, n, below)
        else:
            block, later = fetched(X, ahead[top : top + rows], levels, own), ahead[top + rows : top + 2 * rows]
        _products(block, rows, stack, part.first, part.last, matrix(own, top * pitch, rows, pitch), X, later)


@inner
def activate_values(part, model, workspace):  # type: ignore[no-untyped-def]
    """Put the activations of what is in the thread's own array where others read them."""
    levels, level, n = model.levels, part.level, part.n
    kind, pitch = levels[ACTIVATION, level], levels[PITCH, level]
    Z = matrix(workspace.thread_buffer, 0, n, pitch)
    values = matrix(workspace.blocks, levels[BLOCK, level] + part.row * pitch, n, pitch)
    for i in range(n):
        activate(kind, Z[i, part.first : part.last], values[i, part.first : part.last])


@inner
def forward(part, chunk, settings, model, optimizer, workspace, X, ahead):  # type: ignore[no-untyped-def]
    """Make the values of some units of a level; meanwhile ask for the rows `ahead` of X."""
    levels, level, n, training = model.levels, part.level, part.n, settings.rule != GRADIENT
    pitch = levels[PITCH, level]
    make_values(part, model, workspace, X, ahead)
    if levels[NORMS_AT, level] >= 0:
        kept = matrix(workspace.normalized, levels[KEPT, level], n + 1, pitch)
        share = optimizer.hyperparameters[4] if training else like(optimizer.hyperparameters[4], 0)
        Z = matrix(workspace.thread_buffer, 0, n, pitch)
        normalize(Z, part.first, part.last, n, model.norms, levels[NORMS_AT, level], kept, share)
    activate_values(part, model, workspace)
    threshold = levels[THRESHOLD, level]
    if training and threshold > 0:
        scale = dropout_scale(threshold, model.parameters[0])
        values = matrix(workspace.blocks, levels[BLOCK, level] + part.row * pitch, n, pitch)
        for i in range(n):
            key = dropout_key(settings.seed, chunk.batch, level, chunk.first_row + part.row + i)
            drop(key, part.first, threshold, scale, values[i, part.first : part.last])
