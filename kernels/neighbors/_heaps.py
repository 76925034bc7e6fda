"""The nearest candidates so far: pairs of an integer key and an index, in a heap with the worst pair at its root.

Totals are compared as integers: the bits of floats that are not negative have the order of the floats, with
NaN above infinity. (key, index) is a total order, so what a heap holds in the end does not depend on the
order in which candidates came.

`nearest`, `_pruning` and `_symmetric` fill heaps, each in its way; here they are emptied, sorted and merged.

Lists. `_tree` makes so few distances that a heap would take most of its time: at each level it decides which way to go,
and processors guess wrong half of the time. So its pairs are in a sorted list, and a new one goes in by vectors: each
pair of the list is compared with it and stays, moves up by one, or makes way for it. So few pairs as one vector has are
kept in registers meanwhile. A pair of a 32-bit key and a 31-bit index is one integer of 64 bits, in the same order; a
pair of a 64-bit key is two. So a list is an array of one or of two rows.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numpy.typing import NDArray

from ..distances.panels import KEY_DTYPES
from ..runtime.jit import inner, intrinsic, kernel
from ..simd.llvm import broadcast, call, index, pointer_to, shuffle
from ..simd.rows import copy

__all__ = [
    "MOST_ROWS",
    "KeyRule",
    "before",
    "clear",
    "copy_list",
    "index_at",
    "key_at",
    "key_of",
    "key_rule",
    "merge",
    "new_heaps",
    "new_list",
    "offer",
    "replace_root",
    "sort_heaps",
    "sort_rows",
]

#: Indices of rows are below this.
MOST_ROWS = 1 << 31

#: Pairs that are compared in one go; a list has room for a multiple of it.
_PAIRS = 8

#: A place without a pair: after all pairs.
_NONE = (1 << 63) - 1


class KeyRule(NamedTuple):
    """How a total becomes a key: ``min(bits & mask, nan_key)``."""

    #: Clears a float's sign; of integers nothing.
    mask: int
    #: The one key that stands for every NaN.
    nan_key: int


@cache
def key_rule(totals: np.dtype[Any]) -> KeyRule:
    """Return how totals of a dtype become keys."""
    integer = KEY_DTYPES[totals]
    largest = int(np.iinfo(integer).max)
    if totals.kind == "i":
        return KeyRule(-1, largest)
    return KeyRule(largest, int(np.array(np.nan, totals).view(integer)[()]) & largest)


@inner
def key_of(bits, rule):  # type: ignore[no-untyped-def]
    """Return the key of a total, given as an integer."""
    return min(bits & rule.mask, rule.nan_key)


def new_heaps(shape: tuple[int, ...], totals: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return room for keys and indices; the pairs of a heap lie along the last axis."""
    return np.empty(shape, KEY_DTYPES[totals]), np.empty(shape, np.intp)


@inner
def replace_root(keys, indices, size, key, index):  # type: ignore[no-untyped-def]
    """Put (key, index) in the place of the heap's largest pair."""
    place = 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and before(keys, indices, child, keys[child + 1], indices[child + 1]):
            child += 1
        if before(keys, indices, child, key, index):
            break
        keys[place], indices[place] = keys[child], indices[child]
        place = child
    keys[place], indices[place] = key, index


@inner
def before(keys, indices, place, key, index):  # type: ignore[no-untyped-def]
    """Whether the pair at `place` comes before (key, index)."""
    return keys[place] < key or (keys[place] == key and indices[place] < index)


@inner
def _sort(keys, indices):  # type: ignore[no-untyped-def]
    """Sort a heap ascending: its root, the largest, moves to the end, again and again."""
    for size in range(keys.size - 1, 0, -1):
        key, index = keys[size], indices[size]
        keys[size], indices[size] = keys[0], indices[0]
        replace_root(keys, indices, size, key, index)


@inner
def sort_heaps(keys, indices):  # type: ignore[no-untyped-def]
    """Sort heaps ascending."""
    for i in range(keys.shape[0]):
        _sort(keys[i], indices[i])


@kernel
def sort_rows(keys, indices):  # type: ignore[no-untyped-def]
    """Sort the heaps of some rows."""
    sort_heaps(keys, indices)


@kernel
def merge(keys, indices, begin, end):  # type: ignore[no-untyped-def]
    """Merge the sorted neighbours of all parts of Y into those of part 0, for the rows ``begin:end``."""
    parts, _, k = keys.shape
    best, chosen = np.empty(k, keys.dtype), np.empty(k, indices.dtype)
    for i in range(begin, end):
        next_of = np.zeros(parts, np.intp)
        for place in range(k):
            first = 0
            for part in range(1, parts):
                at, other = next_of[first], next_of[part]
                if other < k and (
                    at == k or before(keys[part, i], indices[part, i], other, keys[first, i, at], indices[first, i, at])
                ):
                    first = part
            best[place], chosen[place] = keys[first, i, next_of[first]], indices[first, i, next_of[first]]
            next_of[first] += 1
        copy(best, keys[0, i])
        copy(chosen, indices[0, i])


@inner
def new_list(keys):  # type: ignore[no-untyped-def]
    """Return room for the pairs of a row of `keys`."""
    room = -(-keys.shape[1] // _PAIRS) * _PAIRS
    return np.empty((keys.itemsize // 4, room), np.int64)


@inner
def clear(pairs):  # type: ignore[no-untyped-def]
    """Take all pairs out of a list."""
    for word in range(pairs.shape[0]):
        for place in range(pairs.shape[1]):
            pairs[word, place] = _NONE


@inner
def key_at(pairs, place):  # type: ignore[no-untyped-def]
    """Return the key of a pair, or what is above all keys."""
    pair = pairs[0, place]
    return pair >> 32 if pairs.shape[0] == 1 else pair


@inner
def index_at(pairs, place):  # type: ignore[no-untyped-def]
    """Return the index of a pair."""
    pair = pairs[pairs.shape[0] - 1, place]
    return pair & (MOST_ROWS - 1) if pairs.shape[0] == 1 and pair != _NONE else pair


@inner
def copy_list(pairs, keys, indices, row):  # type: ignore[no-untyped-def]
    """Write a list into a row of `keys` and of `indices`."""
    for place in range(keys.shape[1]):
        keys[row, place], indices[row, place] = key_at(pairs, place), index_at(pairs, place)


def _offer_twin(pairs, found, places, first, candidates, mask, ceiling):  # type: ignore[no-untyped-def]
    for _ in range(_PAIRS):
        if not candidates:
            break
        lane = (int(candidates) & -int(candidates)).bit_length() - 1
        candidates &= candidates - 1
        key, place = int(min(found[lane] & mask, ceiling)), int(places[first + lane])
        new = (key << 32 | place,) if len(pairs) == 1 else (key, place)
        old = [*zip(*pairs.tolist(), strict=True), new]
        pairs[...] = np.array(sorted(old)[:-1]).T
    return candidates


@intrinsic(twin=_offer_twin)
def offer(typingctx, pairs, found, places, first, candidates, mask, ceiling):  # type: ignore[no-untyped-def]
    """Put up to eight candidates in order into a list, from which the last pairs fall out; return those that are left.

    ``offer(pairs, found, places, first, candidates, mask, ceiling)``: candidates are bits; that of a lane has the key
    ``min(found[lane] & mask, ceiling)`` and the index ``places[first + lane]``.
    """
    words = found.dtype.bitwidth // 32

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        vector = ir.VectorType(ir.IntType(64), _PAIRS)
        size = cgutils.unpack_tuple(b, context.make_array(pairs)(context, b, arguments[0]).shape, 2)[1]
        starts = [
            pointer_to(context, b, pairs, arguments[0], b.mul(size, index(word)), vector) for word in range(words)
        ]
        totals = context.make_array(found)(context, b, arguments[1]).data
        rows = b.gep(context.make_array(places)(context, b, arguments[2]).data, [arguments[3]])
        mask, ceiling = arguments[5:]
        left = cgutils.alloca_once_value(b, arguments[4])
        zero, one = (ir.Constant(left.type.pointee, value) for value in (0, 1))
        turn = cgutils.alloca_once(b, cgutils.intp_t)

        def each(insert: Any) -> None:
            """Write a loop over candidates."""
            b.store(index(0), turn)
            head, body, after = (b.append_basic_block(name) for name in ("candidates", "candidate", "inserted"))
            b.branch(head)
            b.position_at_end(head)
            some = b.load(left)
            go_on = b.and_(b.icmp_unsigned("!=", some, zero), b.icmp_signed("<", b.load(turn), index(_PAIRS)))
            b.cbranch(go_on, body, after)
            b.position_at_end(body)
            lane = b.cttz(some, ir.Constant(ir.IntType(1), 1))
            b.store(b.and_(some, b.sub(some, one)), left)
            total, place = b.load(b.gep(totals, [lane])), b.load(b.gep(rows, [lane]))
            if words == 1:
                total = b.sext(total, mask.type)
            key = call(b, "llvm.smin.i64", mask.type, b.and_(total, mask), ceiling)
            pair = [b.or_(b.shl(key, ir.Constant(key.type, 32)), place)] if words == 1 else [key, place]
            insert([broadcast(b, value, vector) for value in pair])
            b.store(b.add(b.load(turn), index(1)), turn)
            b.branch(head)
            b.position_at_end(after)

        before = ir.Constant(vector, [-1] * _PAIRS)
        held = [cgutils.alloca_once(b, vector) for _ in range(words)]
        with b.if_else(b.icmp_signed("==", size, index(_PAIRS))) as (few, many):
            with few:
                _move(b, starts, held)

                def insert_one(new: list[ir.Value]) -> None:
                    old = [b.load(place) for place in held]
                    for value, place in zip(_inserted(b, old, [before] * words, new), held, strict=True):
                        b.store(value, place)

                each(insert_one)
                _move(b, held, starts)
            with many:

                def insert_all(new: list[ir.Value]) -> None:
                    for last in held:
                        b.store(before, last)
                    with cgutils.for_range(b, b.udiv(size, index(_PAIRS))) as loop:
                        at = [b.gep(start, [loop.index]) for start in starts]
                        old = [b.load(place, align=8) for place in at]
                        values = _inserted(b, old, [b.load(last) for last in held], new)
                        for word in range(words):
                            b.store(old[word], held[word])
                            b.store(values[word], at[word], align=8)

                each(insert_all)
        return b.load(left)

    return types.int64(pairs, found, places, types.intp, types.int64, types.int64, types.int64), emit


def _move(b: ir.IRBuilder, sources: list[ir.Value], targets: list[ir.Value]) -> None:
    for source, target in zip(sources, targets, strict=True):
        b.store(b.load(source, align=8), target, align=8)


def _inserted(b: ir.IRBuilder, old: list[ir.Value], before: list[ir.Value], new: list[ir.Value]) -> list[ir.Value]:
    """Return a vector of sorted pairs with a new one, if it belongs there; the last of `before` comes before them."""
    up = [2 * _PAIRS - 1, *range(_PAIRS - 1)]
    lower = [shuffle(b, *both, up) for both in zip(old, before, strict=True)]
    stays, makes_way = _precede(b, old, new), _precede(b, lower, new)
    return [
        b.select(stays, pair, b.select(makes_way, value, moved))
        for pair, value, moved in zip(old, new, lower, strict=True)
    ]


def _precede(b: ir.IRBuilder, some: list[ir.Value], new: list[ir.Value]) -> ir.Value:
    """Whether pairs come before new ones: they never equal them."""
    first = b.icmp_signed("<", some[0], new[0])
    if len(some) == 1:
        return first
    equal = b.icmp_signed("==", some[0], new[0])
    return b.or_(first, b.and_(equal, b.icmp_signed("<", some[1], new[1])))
