"""The k nearest among the rows themselves, where every pair's distance is made once and offered to both rows.

The matrix of distances is symmetric, so half of it is made. The rows are cut into an even number of blocks, and the
pairs of blocks are taken round-robin, as a tournament pairs its teams: in each round every block is paired with one
other, so the pairs of a round touch different rows and may run at the same time. Candidates reach a row in an order
that depends on the blocks; the order of neighbors, (distance, index), is total, so the result does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..distances import panels
from ..distances.arguments import Metric
from ..distances.panels import POINTS_STEP, X_ROWS, aligned_like, distances_of_block, pack, scattering_step
from ..runtime import parallel
from ..runtime.jit import inner, kernel, readonly
from ..simd import comparisons
from ..simd.comparisons import KEYS_AT_ONCE
from ._heaps import KeyRule, before, key_of, replace_root

__all__ = ["fill_heaps", "is_worthwhile"]

#: Of fewer rows, or of shorter ones, which the more neighbours the longer they must be, a distance costs less
#: than a second look at it.
_FEWEST_ROWS = 2048
_ROW_BYTES, _ROW_BYTES_PER_NEIGHBOR = 384, 24

#: There are two blocks for every thread; smaller ones are packed more often than it is worth.
_FEWEST_BLOCK_ROWS = 288


def is_worthwhile(x: NDArray[Any], k: int, threads: int) -> bool:
    """Whether halving the distances outweighs what it costs."""
    n, d = x.shape
    blocks_are_large = n >= 2 * threads * _FEWEST_BLOCK_ROWS
    return n >= _FEWEST_ROWS and blocks_are_large and d * x.itemsize >= _ROW_BYTES + k * _ROW_BYTES_PER_NEIGHBOR


def fill_heaps(
    metric: Metric,
    x: NDArray[Any],
    groups: NDArray[np.intp],
    rule: KeyRule,
    keys: NDArray[Any],
    indices: NDArray[np.intp],
    threads: int,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Fill the heaps `keys` and `indices` (n, k) with each row's nearest rows outside its group.

    `progress` is told after every round how many rows' worth of the work it was.
    """
    n, d = x.shape
    x = readonly(x)
    largest = max(1, min(panels.TASK_ROWS, math.isqrt(panels.CALL_ELEMENTS // max(1, d))))
    n_blocks = 2 * threads * -(-n // (2 * threads * largest))
    bounds = [n * block // n_blocks for block in range(n_blocks + 1)]
    plan, ordinary = panels.plan(metric, x.dtype, n, d), panels.ordinary_totals(metric, x.dtype, d)
    limits = np.empty(n + KEYS_AT_ONCE, keys.dtype)
    keys[:] = limits[:] = np.iinfo(keys.dtype).max
    indices[:] = np.iinfo(np.intp).max
    groups = readonly(groups)
    done = 0
    for count, pairs in enumerate(_round_robin(n_blocks), start=1):

        def offer(place: int, pairs: list[tuple[int, int]] = pairs) -> None:
            (top, bottom), (first, last) = (bounds[block : block + 2] for block in pairs[place])
            rows = panels.whole_steps(x[top:bottom])
            _offer_blocks(plan, rows, top, x, first, last, groups, ordinary, rule, keys, indices, limits)

        parallel.run(offer, len(pairs), threads)
        if progress is not None:
            progress(n * count // n_blocks - done)
            done = n * count // n_blocks


def _round_robin(n_blocks: int) -> Iterator[list[tuple[int, int]]]:
    """Yield rounds of pairs, in which each of an even number of blocks comes once with itself and every other one."""
    yield [(block, block) for block in range(n_blocks)]
    ring = list(range(1, n_blocks))
    for _ in ring:
        table = [0, *ring]
        yield [(min(pair), max(pair)) for pair in zip(table[: n_blocks // 2], reversed(table), strict=False)]
        ring = ring[1:] + ring[:1]


@kernel
def _offer_blocks(  # type: ignore[no-untyped-def]
    plan, X, top, Y, first, last, groups, ordinary, rule, keys, indices, limits
):
    """Offer the rows ``first:last`` of Y to the heaps of its rows from `top` on, and those to these.

    `X` is the rows from `top` on as tiles read them.
    ``limits[i]`` is the largest key that may still enter the heap of row i.
    """
    points, block = plan.tile_points, plan.block_points
    bottom = top + X.shape[0]
    height = -(-min(X_ROWS, bottom - top) // plan.tile_rows) * plan.tile_rows
    width = -(-min(block, last - first) // POINTS_STEP) * POINTS_STEP
    panels, broadcast_x = aligned_like(width * X.shape[1], Y), aligned_like(plan.workspace, Y)
    totals = aligned_like(height * width, ordinary).reshape((height, width))
    seen_as_keys = totals.view(keys.dtype)
    for left in range(first, last, block):
        right = min(last, left + block)
        pack(plan, Y, left, right, panels)
        parts = -(-(bottom - top) // X_ROWS)
        part, part_step = parts - 1, scattering_step(parts)
        for _ in range(parts):
            begin = top + part * X_ROWS
            end = min(bottom, begin + X_ROWS)
            part = (part + part_step) % parts
            # Within a block: panels to the left of the diagonal have been made, the other way around.
            own, beyond = (begin, end) if first == top else (left, left)
            if own >= right:
                continue
            made = max(0, own - left) // points * points
            distances_of_block(plan, X, begin - top, end - top, panels, made, right - left, broadcast_x, totals)
            i, step = end - 1, scattering_step(end - begin)
            for _ in range(begin, end):
                i = i + step if i + step < end else i + step - (end - begin)
                row = seen_as_keys[i - begin]
                _offer_all(row, i, left, max(left, own), right, groups, rule, keys, indices, limits)
                _offer_to_all(row, i, left, max(left, beyond), right, groups, rule, keys, indices, limits)


@inner
def _offer_all(row, i, left, first, right, groups, rule, keys, indices, limits):  # type: ignore[no-untyped-def]
    """Offer the rows ``first:right`` to the heap of row i; ``row[0]`` belongs to the row `left`."""
    for begin in range((first - left) // KEYS_AT_ONCE * KEYS_AT_ONCE, right - left, KEYS_AT_ONCE):
        found = comparisons.below(row, begin, _above(limits, i), rule.mask, rule.nan_key)
        candidates = _between(found, first - left - begin, right - left - begin)
        while candidates:
            j = begin + comparisons.lowest_bit(candidates)
            candidates &= candidates - 1
            _offer(key_of(row[j], rule), i, left + j, groups, keys, indices, limits)


@inner
def _offer_to_all(row, i, left, first, right, groups, rule, keys, indices, limits):  # type: ignore[no-untyped-def]
    """Offer row i to the heaps of the rows ``first:right``."""
    for begin in range((first - left) // KEYS_AT_ONCE * KEYS_AT_ONCE, right - left, KEYS_AT_ONCE):
        found = comparisons.not_above_each(row, begin, limits, left + begin, rule.mask, rule.nan_key)
        candidates = _between(found, first - left - begin, right - left - begin)
        while candidates:
            j = begin + comparisons.lowest_bit(candidates)
            candidates &= candidates - 1
            _offer(key_of(row[j], rule), left + j, i, groups, keys, indices, limits)


@inner
def _between(candidates, first, end):  # type: ignore[no-untyped-def]
    """Drop candidates before `first`, and from `end` on."""
    if first > 0:
        candidates &= -(1 << first)
    return candidates if end >= KEYS_AT_ONCE else candidates & ((1 << end) - 1)


@inner
def _above(limits, i):  # type: ignore[no-untyped-def]
    """Return the key after a limit; the largest of all stands for an empty heap, and no distance has it."""
    largest = np.iinfo(limits.dtype).max
    return limits[i] + 1 if limits[i] < largest else largest


@inner
def _offer(key, i, j, groups, keys, indices, limits):  # type: ignore[no-untyped-def]
    """Put row j into the heap of row i if it is nearer than the farthest there."""
    heap, places = keys[i], indices[i]
    if before(heap, places, np.intp(0), key, j) or (groups.size and groups[i] == groups[j]):
        return
    replace_root(heap, places, heap.size, key, j)
    limits[i] = heap[0]
