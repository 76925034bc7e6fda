"""Mini-batch gradient descent on a stack of linear models: the compiled loop over batches.

A batch is cut into parts, a part into blocks of rows. A block is copied, its scores, losses and gradient are made, and
meanwhile the rows of the next block are asked for: rows in random order take longer to come than to be worked on. The
rows are asked for in a few portions, because the CPU can wait for some dozens of cache lines at a time only.

The sum over a part's blocks, and a balanced tree over the parts of a round (`runtime.team`) make the gradient; over
several rounds it is summed in float64. All threads that take part do the same update on models of their own, which
costs less than to wait for one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..runtime.jit import inner, kernel, scalar
from ..runtime.team import MEMBERS, begin, come, is_closed, members_of, shared, taken_in, write_mark
from ..simd.functions import like
from ..simd.rows import copy, copy_row, frozen, narrow, prefetch_item, prefetch_row
from ..training.batches import COMING, WAITING, WORKING
from ..training.cells import set_bits
from ..training.steps import gradient_step, momentum_step, nesterov_step, soft_threshold
from ._stacked import GROUP, add_gradient, stack_scores
from ._stacked_losses import STACKED_LOSSES, workspace

__all__ = ["BATCH", "MOST", "SLOTS", "STAGE", "TRAINING", "Settings", "Shared", "Workspace", "cut"]

Array = NDArray[Any]

#: Sums that are kept while parts are added up two by two.
SLOTS = MEMBERS.bit_length()

# Where a thread stands: batch, rows of it that came in former rounds, parts of the round that this thread has done,
# round, its members, what the thread is doing, and how many members there may be.
BATCH, STAGE, MOST = 0, 5, 6


class Settings(NamedTuple):
    """What stays the same in a training."""

    table: Array  # (4, M): l2, l1, momentum, and whether that is Nesterov's, of each model
    average_from: Array  # (M,)
    delta: Any


class Shared(NamedTuple):
    """What the threads of a team share."""

    parameters: Array  # (M, C, columns), as they are at the begin of the call, and those of the leader afterwards
    velocity: Array
    average: Array
    losses: Array  # (batches, M)
    sums: Array  # (2, threads, M * C, columns), of the threads' parts in this round and in the last one
    part_losses: Array  # (2, threads, M)
    board: Array


class Workspace(NamedTuple):
    """What a thread has for itself."""

    parameters: Array
    velocity: Array
    sums: Array  # (SLOTS, M * C, columns)
    part_losses: Array  # (SLOTS, M)
    wide_sums: Array  # (M * C, columns), float64
    block: Array  # of rows
    Z: Array  # scores of the block
    G: Array  # the gradient in these


def cut(length, least, most):  # type: ignore[no-untyped-def]
    """Return how many parts a round of a batch has, a power of two, and how many rows a part has.

    A part has `least` rows or more, as far as there are, and never more than `most`. If the parts of a round do not
    hold the batch, it takes several rounds.
    """
    parts = 1
    while parts < MEMBERS and 2 * parts * least <= length:
        parts *= 2
    rows = -(-length // (4 * parts)) * 4
    return (parts, rows) if rows <= most else (MEMBERS, most)


_cut = inner(cut)  # the training calls the plain function too: what is compiled for that would be so in each process


@inner
def _ask_for_targets(y, indices, P, weight, order):  # type: ignore[no-untyped-def]
    """Ask for what belongs to rows to be brought into the cache."""
    for i in range(order.size):
        if y.size > 0:
            prefetch_item(y, order[i])
        elif indices.size > 0:
            prefetch_item(indices, order[i])
        else:
            prefetch_row(P, order[i])
        if weight.size > 0:
            prefetch_item(weight, order[i])


@inner
def _ask_for_rows(X, order):  # type: ignore[no-untyped-def]
    for i in range(order.size):
        prefetch_row(X, order[i])


@inner
def _fetch(X, y, indices, P, weight, order, block, targets):  # type: ignore[no-untyped-def]
    """Copy rows and what belongs to them. Beyond them, up to a whole group, targets and weights are 0."""
    part_y, part_indices, part_P, part_weight = targets
    n, end = order.size, -(-order.size // GROUP) * GROUP
    for i in range(n):
        copy_row(X, order[i], block, i)
    if y.size > 0:
        for i in range(n):
            part_y[i] = y[order[i]]
        part_y[n:end] = 0
    elif indices.size > 0:
        for i in range(n):
            part_indices[i] = indices[order[i]]
    else:
        for i in range(n):
            copy_row(P, order[i], part_P, i)
    if weight.size > 0:
        for i in range(n):
            part_weight[i] = weight[order[i]]
    else:
        part_weight[:n] = 1
    part_weight[n:end] = 0


@scalar
def _moved(mean, value, share):  # type: ignore[no-untyped-def]
    """One more value in a running mean."""
    return mean + (value - mean) * share


@inner
def _descend(w, g, v, step, l2, l1, momentum, nesterov):  # type: ignore[no-untyped-def]
    """One step of one row of the stack."""
    zero = like(step, 0)
    if momentum == zero:
        for d in range(w.size):
            w[d] = gradient_step(w[d], g[d], l2, step)
    elif nesterov:
        for d in range(w.size):
            w[d], v[d] = nesterov_step(w[d], g[d], v[d], l2, step, momentum)
    else:
        for d in range(w.size):
            w[d], v[d] = momentum_step(w[d], g[d], v[d], l2, step, momentum)
    if l1 > zero:
        for d in range(w.size):
            w[d] = soft_threshold(w[d], step * l1)


@inner
def _add_up(sums, losses, top, count):  # type: ignore[no-untyped-def]
    """Add up sums two by two: `count` have been put on the stack so far, which holds `top` sums; return its new height.

    So the order of the additions is that of a balanced tree, of which a thread may do any branch.
    """
    while count % 2 == 0:
        top -= 1
        for s in range(sums.shape[1]):
            total, more = sums[top - 1, s], sums[top, s]
            for d in range(total.size):
                total[d] += more[d]
        for m in range(losses.shape[1]):
            losses[top - 1, m] += losses[top, m]
        count //= 2
    return top


@inner
def _gather_up(shared_sums, shared_losses, members, sums, losses):  # type: ignore[no-untyped-def]
    """Add up the members' sums, in the same tree."""
    top = 0
    for member in range(members):
        copy(shared_sums[member], sums[top])
        copy(shared_losses[member], losses[top])
        top = _add_up(sums, losses, top + 1, member + 1)


@inner
def _add(target, source):  # type: ignore[no-untyped-def]
    """Add a sum to one in float64."""
    for s in range(source.shape[0]):
        total, more = target[s], source[s]
        for d in range(more.size):
            total[d] += more[d]


@inner
def _update(columns, gradient, parameters, velocity, average, settings, steps, fit_intercept, done):  # type: ignore[no-untyped-def]
    models, classes, width = parameters.shape
    for m in range(models):
        table, average_from, step = settings.table, settings.average_from[m], steps[m]
        l2, l1, momentum, nesterov = table[0, m], table[1, m], table[2, m], table[3, m] != 0
        zero = like(step, 0)
        for c in range(classes):
            w, g, v = parameters[m, c], gradient[m * classes + c], velocity[m, c]
            _descend(w[:columns], g[:columns], v[:columns], step, l2, l1, momentum, nesterov)
            if fit_intercept:
                at = slice(columns, columns + 1)
                _descend(w[at], g[at], v[at], step, zero, zero, momentum, nesterov)
            if average.size > 0 and done >= average_from:
                share = like(step, 1) / like(step, done - average_from + 1)
                mean = average[m, c]
                for d in range(width):
                    mean[d] = _moved(mean[d], w[d], share)


def _training(over_classes: bool) -> Callable[..., bool]:
    """Make the kernel of the losses over classes, or of those of one score."""
    transposed, block_losses = not over_classes, STACKED_LOSSES[over_classes]

    def train(  # type: ignore[no-untyped-def]
        thread, data, order, steps, settings, constants, team, own, state
    ):
        """Go on until all batches are done (true), or until it is time to look at Python.

        What has fields comes as plain tuples, which are handed over in a tenth of the time of named ones.
        """
        settings, team = Settings(*settings), Shared(*team)
        X, y, indices, P, weight = data
        parameters, velocity, sums, part_losses, wide_sums, block, Z, G = own
        shared_sums, shared_losses, board, delta = team.sums, team.part_losses, team.board, settings.delta
        loss, batch_size, least, most, fit_intercept, steps_before, limit, n_threads = constants
        batch, first, done, number, members, stage, allowed = state
        models, classes, width = parameters.shape
        columns, rows = X.shape[1], block.shape[0]
        stack = parameters.reshape((models * classes, width))
        work = workspace(rows, classes, Z)
        targets = (
            np.zeros(rows, X.dtype), np.zeros(rows, np.intp),
            np.zeros((rows if P.size > 0 else 0, classes), X.dtype), np.ones(rows, X.dtype),
        )  # fmt: skip
        read = frozen(targets[0]), frozen(targets[1]), frozen(targets[2]), frozen(targets[3])
        block[:, columns] = 1

        if stage == COMING:
            come(board, thread)
            number, members, batch = taken_in(board, thread)
            if number < 0:
                return is_closed(board)
            copy(team.parameters, parameters)
            copy(team.velocity, velocity)
            stage = WORKING

        while batch < steps.shape[0]:
            top = batch * batch_size
            length = min(batch_size, order.size - top)
            parts, size = _cut(length, least, most)
            sharing = min(members, parts)  # a last, shorter batch may have fewer parts
            share = parts // sharing if thread < sharing else 0
            last = first + parts * size >= length
            if stage == WORKING:
                # Where this thread goes on afterwards: in the batch, if that has more rounds, or in the next one.
                if last:
                    later, later_end = top + batch_size, min(order.size, top + 2 * batch_size)
                    later += thread * share * _cut(max(0, later_end - later), least, most)[1]
                else:
                    later, later_end = top + first + (parts + thread * share) * size, top + length
                while done < share:
                    if limit == 0:
                        copy((batch, first, done, number, members, stage, allowed), state)
                        return False
                    limit -= 1
                    height = set_bits(done)
                    gradient, totals = sums[height], part_losses[height]
                    gradient[:] = 0
                    totals[:] = 0
                    begin_at = top + min(length, first + (thread * share + done) * size)
                    end_at = min(top + length, begin_at + size)
                    done += 1
                    for at in range(begin_at, end_at, rows):
                        n = min(rows, end_at - at)
                        ahead, ahead_end = at + n, min(at + n + rows, end_at)
                        if ahead == end_at:
                            if done < share:
                                ahead_end = min(ahead + rows, top + length)
                            else:
                                ahead, ahead_end = min(later, later_end), min(later + rows, later_end)
                        _fetch(X, y, indices, P, weight, order[at : at + n], block, targets)
                        asked = stack_scores(block, n, stack, transposed, Z, X, order[ahead:ahead_end])
                        _ask_for_targets(y, indices, P, weight, order[ahead:ahead_end])
                        middle = (ahead + asked + ahead_end) // 2
                        _ask_for_rows(X, order[ahead + asked : middle])
                        scale = like(delta, 1) / like(delta, length)
                        block_losses(loss, Z, n, read, delta, scale, work, G, totals)
                        _ask_for_rows(X, order[middle:ahead_end])
                        add_gradient(block, n, G, transposed, gradient)
                    _add_up(sums, part_losses, height + 1, done)
                if n_threads > 1:
                    if members > 1 and share > 0:
                        copy(sums[0], shared_sums[number % 2, thread])
                        copy(part_losses[0], shared_losses[number % 2, thread])
                    # Whoever came within a batch would lack the sums of its former rounds.
                    write_mark(board, thread, number, members, allowed if last else members)
                stage = WAITING

            if not shared(board, thread, number, members):
                copy((batch, first, done, number, members, stage, allowed), state)
                return is_closed(board)
            if members > 1:
                _gather_up(shared_sums[number % 2], shared_losses[number % 2], sharing, sums, part_losses)
            if thread == 0:
                for m in range(models):
                    team.losses[batch, m] += part_losses[0, m]
            if first > 0 or not last:
                if first == 0:
                    wide_sums[:] = 0
                _add(wide_sums, sums[0])
            if last:
                if first > 0:
                    for s in range(wide_sums.shape[0]):
                        narrow(wide_sums[s], sums[0, s])
                _update(
                    columns, sums[0], parameters, velocity, team.average if thread == 0 else team.average[:0],
                    settings, steps[batch], fit_intercept != 0, steps_before + batch + 1,
                )  # fmt: skip
                batch, first = batch + 1, 0
            else:
                first += parts * size
            if n_threads > 1:
                more = members_of(board, number)
                if thread == 0 and more > members:
                    begin(board, number + 1, batch)
                if thread >= more:
                    return True
                members = more
            number, done, stage = number + 1, 0, WORKING
        state[BATCH] = batch
        return True

    train.__qualname__ = train.__name__ = "training_over_classes" if over_classes else "training_of_one_score"
    return kernel(train)


#: Whether a loss is one over classes -> the kernel.
TRAINING = {over_classes: _training(over_classes) for over_classes in STACKED_LOSSES}
