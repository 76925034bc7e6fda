"""How a network lies in memory, and what a batch takes: the tables and arrays that the compiled loop is given.

*Levels* are 0 (the columns of X) to the number of layers (the scores). Values of a level are a block of `products`, one
row for each row of a batch, with ones for the intercepts; weights between two levels are a stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..runtime.jit import readonly
from ..runtime.memory import aligned, padded
from . import arguments
from .products import UNITS
from .row_losses import LOSS_ROWS

Array = NDArray[Any]

#: Operations of a program; a line is operation, level, how threads share it, whether to meet afterwards.
FETCH, FORWARD, LOSS, BACKWARD, STEP = range(5)
SHARE, MEET = 2, 3
BY_UNITS, BY_ROWS, BY_COLUMNS, ALONE = range(4)

#: Rows of a table of levels: its units, length of a block's rows, begin of block (below 0: none), gradients and stack,
#: activation, threshold of the hash below which a value is dropped, begin of the norms (below 0: none) and of what is
#: kept of them.
WIDTH, PITCH, BLOCK, GRADS, STACK, ACTIVATION, THRESHOLD, NORMS_AT, KEPT = range(9)

#: Where a thread stands: the line of the program, counted from the first batch; round; members; what it is doing (as
#: `training.batches` has it); how many members there may be; chunks to do before it comes back.
PLACE, STAGE, MOST, LIMIT = 0, 3, 4, 5

#: Rows that a gradient is summed over in the dtype of the rows, at most, where it is summed in float64 beyond that.
SUMMED_ROWS = 256


class Settings(NamedTuple):
    """Numbers that hold for all batches of a call."""

    loss: int  # place in `NETWORK_LOSSES`
    rule: int  # place in `steps.RULES`
    batch_size: int
    chunk_rows: int  # rows that are worked on together
    seed: int
    batches_before: int
    n_threads: int


class Data(NamedTuple):
    """What is trained on."""

    X: Array  # (n, D)
    indices: Array  # (n,) classes, or empty
    targets: Array  # (n, C), or empty
    weights: Array  # (n,), or empty


class Batches(NamedTuple):
    """What the batches of a call are made of, and what comes of each."""

    order: Array  # numbers of rows
    steps: Array  # (batches, 3): step size, and what Adam takes instead of it and of 1
    losses: Array  # (batches,) sums


class Model(NamedTuple):
    """A network: its levels, and all that it has learned."""

    levels: Array
    parameters: Array  # stacks of weights, one behind the other
    norms: Array  # (4, units): scales, shifts, running means and variances of levels that are normalised


class Optimizer(NamedTuple):
    """What a step takes beside the gradient."""

    hyperparameters: Array  # momentum, beta_1, beta_2, epsilon; share of a batch in running statistics
    l2: Array  # (layers, columns of a stack)
    weight_decay: Array  # likewise
    moments: Array  # (2, parameters and norms)
    totals: Array  # float64: gradient of what is more than a chunk


class Workspace(NamedTuple):
    """Values and gradients of one chunk of rows; all but the last array are shared by the threads."""

    blocks: Array
    grads: Array
    normalized: Array  # for each normalised level a row of inverse deviations, then values before scale and shift
    loss_sums: Array
    thread_buffer: Array


#: Rows of a block, at least and at most, and multiply-adds of a chunk of rows: what a call takes at least.
_LEAST_ROWS, _MOST_ROWS, _CHUNK_PRODUCTS = 16, 256, 1 << 30

#: Seconds on one core, roughly: a multiply-add (of float32), the loss of a score, an operation, an update of a weight,
#: to normalise a value.
PRODUCT, _TERM, OPERATION, _UPDATE, _NORMALIZED = 2.5e-11, 5e-9, 1e-7, 2e-10, 1e-9

#: Seconds that a compiled call should take at most.
CALL_SECONDS = 0.04

#: Operations that take less are not shared: a meeting takes as long.
_ALONE_SECONDS = 1e-6

#: Threads share rows instead of units from so many rows of a block on, where a level's weights have so few bytes.
_SHARED_ROWS, _FEW_WEIGHTS = 2 * LOSS_ROWS, 1 << 18


class Plan:
    """How a network lies in memory, and what a batch takes: by its shape and dtype alone.

    Parameters
    ----------
    units : sequence of int
        Columns of X, units of each hidden layer, scores.
    activation : str
        Of the hidden layers.
    dropout : sequence of float
        Share of each hidden layer's values that is dropped.
    batch_norm : bool
        Whether the hidden layers are normalised.
    streams : bool
        Whether many rows that are normalised are fetched a few at a time: then no step can be taken.
    """

    def __init__(
        self,
        units: Sequence[int],
        activation: str,
        dropout: Sequence[float],
        dtype: np.dtype[Any],
        batch_norm: bool = False,
        streams: bool = False,
    ) -> None:
        outputs = len(units) - 1
        self.units, self.dtype = tuple(units), dtype
        self.pitches = [padded(count + 1, dtype) for count in units[:-1]] + [units[-1]]
        #: Multiply-adds of one row: forwards once, backwards twice but for the first layer.
        self.products = [count * pitch for count, pitch in zip(units[1:], self.pitches, strict=False)]
        fitting = _CHUNK_PRODUCTS // (3 * sum(self.products))
        self.rows = min(_MOST_ROWS, max(_LEAST_ROWS, fitting // LOSS_ROWS * LOSS_ROWS))
        stacks = np.cumsum([0, 0, *self.products])
        self.size = int(stacks[-1])
        thresholds = [0, *(int(share * 2.0**63) for share in dropout), 0]
        activations = [0, *[list(arguments.ACTIVATIONS).index(activation)] * (outputs - 1), 0]
        self._fixed = [list(units), self.pitches, activations, thresholds, stacks[:-1].tolist()]
        self.batch_norm, self.streams = batch_norm, streams
        #: Begins of the norms of hidden layers, and the length of all.
        widths = np.cumsum([0, *(padded(count, dtype) for count in units[1:-1])])
        self.norm_begins, self.norm_size = widths[:-1].tolist(), int(widths[-1])
        self._tables: dict[int, Array] = {}  # by rows: what takes a tenth of a small call

    def levels(self, rows: int) -> Array:
        """Return the kernels' table of levels, for blocks of so many rows."""
        if rows not in self._tables:
            self._tables[rows] = self._table(rows)
        return self._tables[rows]

    def _table(self, rows: int) -> Array:
        units, pitches, activations, thresholds, stacks = self._fixed
        # Gradients and values of a level have the same shape; the lowest has no gradients.
        sizes = self._lengths(rows)
        places, grads = (np.cumsum([0, *each])[:-1].tolist() for each in (sizes, [0, *sizes[1:]]))
        if self._streams(rows):
            places[0] = -1
        norms, kept = [-1] * len(units), [0] * len(units)
        if self.batch_norm:
            norms[1:-1], kept[1:-1] = self.norm_begins, self._kept(rows)[:-1]
        table = [units, pitches, places, grads, stacks, activations, thresholds, norms, kept]
        return readonly(np.array(table, np.int64))

    def _lengths(self, rows: int) -> list[int]:
        """Return how long the blocks of the levels are; each begins a cache line."""
        lengths = [rows * padded(pitch, self.dtype) for pitch in self.pitches]
        return [0, *lengths[1:]] if self._streams(rows) else lengths

    def _streams(self, rows: int) -> bool:
        return self.streams and self.batch_norm and len(self.units) > 2 and rows > SUMMED_ROWS

    def _kept(self, rows: int) -> list[int]:
        """Return where each hidden layer's normalised values begin, with a row of deviations, and where all end."""
        sizes: list[int] = [(rows + 1) * padded(pitch, self.dtype) for pitch in self.pitches[1:-1]]
        return np.cumsum([0, *sizes]).tolist()

    def normalized(self, rows: int) -> Array:
        """Make what is kept of normalised values of so many rows."""
        return aligned((self._kept(rows)[-1] if self.batch_norm else 0,), self.dtype)

    def blocks(self, rows: int) -> Array:
        """Make blocks for so many rows, with the ones that stand for the intercepts."""
        levels = self.levels(rows)
        flat = aligned((sum(self._lengths(rows)),), self.dtype)
        for units, pitch, begin, norm_above in np.vstack(
            [levels[[WIDTH, PITCH, BLOCK], :-1], levels[NORMS_AT, 1:]]
        ).T.tolist():
            if norm_above < 0:  # what is normalised needs no intercept
                flat[begin : begin + rows * pitch].reshape(rows, pitch)[:, units] = 1
        return flat

    def grads(self, rows: int) -> Array:
        """Make blocks for the gradients of so many rows."""
        return aligned((sum(self._lengths(rows)[1:]),), self.dtype)

    def thread_buffer(self, rows: int) -> Array:
        """Make what a thread has for itself: values or gradients of a level but the lowest, or a strip of a gradient.

        Behind that there may be rows of the lowest level.
        """
        size = padded(max(rows * max(self.pitches[1:]), UNITS * max(self.pitches)), self.dtype)
        return aligned((size + SUMMED_ROWS * self.pitches[0] * self._streams(rows),), self.dtype)

    def seconds(self, rows: int) -> list[tuple[int, int, float]]:
        """Return the operations on so many rows: which, of which level, and roughly how long it takes one core."""
        outputs, wide = len(self.units) - 1, self.dtype.itemsize // 4
        products = [rows * product * PRODUCT * wide for product in self.products]
        steps = [product * _UPDATE * wide for product in self.products]
        norms = [rows * count * _NORMALIZED * wide * self.batch_norm for count in (*self.units[1:-1], 0)]
        last = rows * self.units[-1]
        operations = [(FETCH, 0, rows * self.pitches[0] * wide * 1e-10)]
        operations += [(FORWARD, level, products[level - 1] + norms[level - 1]) for level in range(1, outputs + 1)]
        operations.append((LOSS, outputs, last * _TERM))
        for level in range(outputs, 0, -1):
            if level == outputs and level > 1:
                operations.append((BACKWARD, level - 1, products[level - 1] + norms[level - 2]))
            operations.append((STEP, level, products[level - 1] + steps[level - 1]))
            if level > 2:
                operations.append((BACKWARD, level - 2, products[level - 2] + norms[level - 3]))
        return operations

    def _is_shared_by_rows(self, operation: int, level: int) -> bool:
        """Say whether threads share the rows of an operation, or for a step the columns of the weights.

        Then each of them needs all weights of the level on the way, and half of each row for the step.
        """
        if operation in (FETCH, LOSS):
            return True
        if operation != STEP and self.batch_norm and level < len(self.units) - 1:
            return False
        weights = self.products[level if operation == BACKWARD else level - 1]
        return weights * self.dtype.itemsize <= _FEW_WEIGHTS

    def program(self, rows: int) -> Array:
        """Return the kernels' table of operations on batches of so many rows."""
        operations = self.seconds(rows)
        table = np.zeros((len(operations), 4), np.int64)
        for line, (operation, level, seconds) in zip(table, operations, strict=True):
            line[:2] = operation, level
            if rows >= _SHARED_ROWS and self._is_shared_by_rows(operation, level):
                line[SHARE] = BY_COLUMNS if operation == STEP else BY_ROWS
            elif seconds < _ALONE_SECONDS and operation != FETCH:
                line[SHARE] = ALONE
        if (table[1:, SHARE] == ALONE).all():
            table[0, SHARE] = ALONE
        since: list[Array] = []  # operations since the last meeting
        for before, line in pairwise(table):
            since.append(before)
            if any(_needs(line, other) and not _stays(line, other) for other in since):
                before[MEET] = 1
                since.clear()
        table[-1, MEET] = 1
        return readonly(table)


def _stays(line: Array, before: Array) -> bool:
    """Say whether what an operation needs of one before it is with the same thread."""
    return bool(line[SHARE] == before[SHARE] != BY_UNITS)


def _needs(line: Array, before: Array) -> bool:
    """Say whether an operation of a program cannot begin until one before it is done."""
    operation, level, *_ = line
    other, there, *_ = before
    if operation == STEP:  # the step of a level changes the weights that lead back to the one below
        return bool(other == LOSS or (other == BACKWARD and there in (level, level - 1)))
    # The others are a chain: each needs the last one before it that is no step.
    return bool(other != STEP)


def units_of(weights: Sequence[ArrayLike]) -> list[int]:
    """Return the columns of X and the units of each layer, as the shapes of the weights say."""
    shapes = [np.shape(W) for W in weights]
    return [shapes[0][1], *(shape[0] for shape in shapes)]


def pack(
    plan: Plan, weights: Sequence[ArrayLike], biases: Sequence[ArrayLike]
) -> tuple[Array, list[Array], list[Array]]:
    """Copy weights and intercepts to one flat array; return it, and views of both."""
    flat = aligned((plan.size,), plan.dtype)
    views, shifts = views_of(plan, flat)
    for view, W in zip([*views, *shifts], [*weights, *biases], strict=True):
        view[...] = W
    return flat, views, shifts


def views_of(plan: Plan, flat: Array) -> tuple[list[Array], list[Array]]:
    """Return the weights and the intercepts of each layer in a flat array of stacks."""
    weights, biases, at = [], [], 0
    for inputs, outputs, pitch in zip(plan.units, plan.units[1:], plan.pitches, strict=False):
        stack = flat[at : at + outputs * pitch].reshape(outputs, pitch)
        weights.append(stack[:, :inputs])
        biases.append(stack[:, inputs])
        at += outputs * pitch
    return weights, biases
