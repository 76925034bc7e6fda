"""Vector code for stacks of linear models: a block of rows is copied once and serves all models.

A *stack* is a matrix with one row per score: the weights, then the intercept, then zeros up to whole vectors. A
*block* holds a few rows of X in the same form, with 1 where the intercept stands. So products need no ends.

`copy_row` and `prefetch_row` fill a block from rows that lie anywhere. `stack_scores` and `add_gradient` are the two
products, made of tiles, so that whatever is loaded is used several times.

Sums. A score is summed in one vector, and its lanes are then added up in a fixed tree. An entry of the gradient is
summed over the rows of a block in their order. Both depend on the block and one row of the stack alone: a model's bits
are the same whichever others are in the stack.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numpy.typing import NDArray

from ._jit import inner, intrinsic
from ._simd import target

__all__ = [
    "GROUP", "Emitter", "add_gradient", "aligned", "copy_row", "padded", "prefetch_item", "prefetch_row",
    "stack_scores",
]  # fmt: skip

#: Rows of a block come in whole groups: a tile of one score has as many.
GROUP = 16

_CACHE_LINE = 64

#: Below, the work on a block is too short to hide what it takes to ask for the next one.
_SCORES_THAT_TAKE_TIME = 8


def padded(columns: int, dtype: np.dtype[Any]) -> int:
    """Columns of a stack or block: up to whole vectors of the widest target, so that it does not depend on it."""
    whole = _CACHE_LINE // dtype.itemsize
    return -(-columns // whole) * whole


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return zeros that begin at a cache line."""
    size = math.prod(shape)
    spare = _CACHE_LINE // dtype.itemsize
    flat = np.zeros(size + spare, dtype)
    skip = -flat.ctypes.data % _CACHE_LINE // dtype.itemsize
    return flat[skip : skip + size].reshape(shape)


# ----------------------------------------------------------------------------------------- rows


def _copy_row_twin(X, row, block, place):  # type: ignore[no-untyped-def]
    block[place, : X.shape[1]] = X[row]


@intrinsic(twin=_copy_row_twin)
def copy_row(typingctx, X, row, block, place):  # type: ignore[no-untyped-def]
    """``block[place, :D] = X[row]``, by whole vectors of which the last two may overlap."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        e = Emitter(context, builder, X.dtype)
        source, columns = e.row(X, arguments[0], arguments[1])
        destination, _ = e.row(block, arguments[2], arguments[3])
        width = e.number(e.lanes)
        with builder.if_else(builder.icmp_signed(">=", columns, width)) as (long, short):
            with long:
                last = builder.sub(columns, width)
                with cgutils.for_range_slice(builder, e.number(0), last, width, intp=cgutils.intp_t) as (at, _):
                    e.store(e.load(source, at), destination, at)
                e.store(e.load(source, last), destination, last)
            with short, cgutils.for_range(builder, columns) as loop:
                builder.store(builder.load(builder.gep(source, [loop.index])), builder.gep(destination, [loop.index]))
        return context.get_dummy_value()

    return types.void(X, types.intp, block, types.intp), emit


def _prefetch_row_twin(X, row):  # type: ignore[no-untyped-def]
    pass


@intrinsic(twin=_prefetch_row_twin)
def prefetch_row(typingctx, X, row):  # type: ignore[no-untyped-def]
    """Ask for a row to be brought into the second-level cache, its last line included."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        e = Emitter(context, builder, X.dtype)
        source, columns = e.row(X, arguments[0], arguments[1])
        line = e.number(_CACHE_LINE // e.itemsize)
        with cgutils.for_range_slice(builder, e.number(0), columns, line, intp=cgutils.intp_t) as (at, _):
            e.prefetch(builder.gep(source, [at]))
        e.prefetch(builder.gep(source, [builder.sub(columns, e.number(1))]))
        return context.get_dummy_value()

    return types.void(X, types.intp), emit


def _prefetch_item_twin(values, place):  # type: ignore[no-untyped-def]
    pass


@intrinsic(twin=_prefetch_item_twin)
def prefetch_item(typingctx, values, place):  # type: ignore[no-untyped-def]
    """Ask for one entry of a flat array."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = context.make_array(values)(context, builder, arguments[0]).data
        Emitter(context, builder, values.dtype).prefetch(builder.gep(data, [arguments[1]]))
        return context.get_dummy_value()

    return types.void(values, types.intp), emit


# -------------------------------------------------------------------------------------- products


@inner
def stack_scores(block, n, stack, turned, Z, X, ahead):  # type: ignore[no-untyped-def]
    """Z[s, i] = block[i] . stack[s] for i < n if `turned`, else Z[i, s]; up to a whole `GROUP` of rows is written.

    Meanwhile rows `ahead` of `X` are asked for, as many as the work takes time for; returns how many.
    """
    scores, asked = stack.shape[0], 0
    fours = scores // 4 * 4
    share = -(-ahead.size // max(1, fours // 4))
    for s in range(0, fours, 4):
        rows = ahead[asked : asked + share] if scores >= _SCORES_THAT_TAKE_TIME else ahead[:0]
        if turned:
            asked += score_strip(4, True, block, n, stack, s, Z, X, rows)
        else:
            asked += score_strip(4, False, block, n, stack, s, Z, X, rows)
    if scores - fours >= 2:
        if turned:
            score_strip(2, True, block, n, stack, fours, Z, X, ahead[:0])
        else:
            score_strip(2, False, block, n, stack, fours, Z, X, ahead[:0])
    if scores % 2 == 1:
        if turned:
            score_strip(1, True, block, n, stack, scores - 1, Z, X, ahead[:0])
        else:
            score_strip(1, False, block, n, stack, scores - 1, Z, X, ahead[:0])
    return asked


def _score_strip_twin(scores, turned, block, n, stack, s, Z, X, ahead):  # type: ignore[no-untyped-def]
    for k in range(s, s + scores):  # one by one: the bits of a product of matrices depend on its shape
        if turned:
            Z[k, :n] = block[:n] @ stack[k]
        else:
            Z[:n, k] = block[:n] @ stack[k]
    return 0


@intrinsic(twin=_score_strip_twin)
def score_strip(typingctx, scores, turned, block, n, stack, s, Z, X, ahead):  # type: ignore[no-untyped-def]
    """``Z[i, s + k] = block[i] . stack[s + k]`` for i < n, k < `scores` (a literal); Z.T if `turned` (a literal).

    Asks for two rows ``X[ahead[...]]`` with each tile, while there are any, and returns for how many.
    """
    if not all(isinstance(each, (types.IntegerLiteral, types.BooleanLiteral)) for each in (scores, turned)):
        return None  # asked again with the literals
    n_scores, turn = scores.literal_value, turned.literal_value
    asking = n_scores == 4

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, _, x, count, w, w_top, z, source, rows_ahead = arguments
        e = Emitter(context, builder, block.dtype)
        n_rows = e.tile_sums // n_scores
        w_rows = [e.row(stack, w, builder.add(w_top, e.number(k)))[0] for k in range(n_scores)]
        ahead_array = context.make_array(ahead)(context, builder, rows_ahead)
        n_ahead = cgutils.unpack_tuple(builder, ahead_array.shape, 1)[0]
        asked = cgutils.alloca_once_value(builder, e.number(0))
        step = e.number(n_rows)
        with cgutils.for_range_slice(builder, e.number(0), count, step, intp=cgutils.intp_t) as (x_top, _):
            x_rows = [e.row(block, x, builder.add(x_top, e.number(r))) for r in range(n_rows)]
            columns = x_rows[0][1]
            later = []
            for _ in range(2 if asking else 0):
                number = builder.load(asked)
                there = builder.icmp_signed("<", number, n_ahead)
                place = cgutils.alloca_once_value(builder, x_rows[0][0])  # in the cache already: costs nothing
                with builder.if_then(there):
                    row = builder.load(builder.gep(ahead_array.data, [number]))
                    builder.store(e.row(X, source, row)[0], place)
                builder.store(builder.select(there, builder.add(number, e.number(1)), number), asked)
                later.append(builder.load(place))
            sums = [[e.zeroed() for _ in range(n_scores)] for _ in range(n_rows)]
            with cgutils.for_range_slice(builder, e.number(0), columns, e.number(e.lanes), intp=cgutils.intp_t) as (
                at,
                _,
            ):
                for row in later:
                    e.prefetch(builder.gep(row, [at]))
                weights = [e.load(w_row, at) for w_row in w_rows]
                for (x_row, _), of_row in zip(x_rows, sums, strict=True):
                    here = e.load(x_row, at)
                    for weight, place in zip(weights, of_row, strict=True):
                        builder.store(e.multiply_add(here, weight, builder.load(place)), place)
            # What lies side by side in Z comes side by side out of the tree.
            lines = list(zip(*sums, strict=True)) if turn else sums
            totals = e.sums_of_lanes([builder.load(place) for line in lines for place in line])
            length = len(lines[0])
            for number in range(len(lines)):
                top, left = (w_top, x_top) if turn else (x_top, w_top)
                line, _ = e.row(Z, z, builder.add(top, e.number(number)))
                e.store_part(totals, number * length, length, builder.gep(line, [left]))
        return builder.load(asked)

    return types.intp(scores, turned, block, types.intp, stack, types.intp, Z, X, ahead), emit


@inner
def add_gradient(block, n, G, turned, total):  # type: ignore[no-untyped-def]
    """total[s] += sum_i G[s, i] block[i] over i < n if `turned`, else of G[i, s]."""
    scores = total.shape[0]
    fours = scores // 4 * 4
    for s in range(0, fours, 4):
        if turned:
            gradient_strip(4, True, block, n, G, s, total)
        else:
            gradient_strip(4, False, block, n, G, s, total)
    if scores - fours >= 2:
        if turned:
            gradient_strip(2, True, block, n, G, fours, total)
        else:
            gradient_strip(2, False, block, n, G, fours, total)
    if scores % 2 == 1:
        if turned:
            gradient_strip(1, True, block, n, G, scores - 1, total)
        else:
            gradient_strip(1, False, block, n, G, scores - 1, total)


def _gradient_strip_twin(scores, turned, block, n, G, s, total):  # type: ignore[no-untyped-def]
    for k in range(s, s + scores):
        total[k] += (G[k, :n] if turned else G[:n, k]) @ block[:n]


@intrinsic(twin=_gradient_strip_twin)
def gradient_strip(typingctx, scores, turned, block, n, G, s, total):  # type: ignore[no-untyped-def]
    """``total[s + k] += sum_i G[i, s + k] block[i]`` over i < n, for k < `scores` (a literal); G.T if `turned`."""
    if not all(isinstance(each, (types.IntegerLiteral, types.BooleanLiteral)) for each in (scores, turned)):
        return None  # asked again with the literals
    n_scores, turn = scores.literal_value, turned.literal_value

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, _, x, count, g, top, t = arguments
        e = Emitter(context, builder, block.dtype)
        first, columns = e.row(block, x, e.number(0))
        totals = [e.row(total, t, builder.add(top, e.number(k)))[0] for k in range(n_scores)]
        g_first, g_columns = e.row(G, g, e.number(0))

        def tile(at: ir.Value, vectors: int) -> None:
            places = [builder.add(at, e.number(j * e.lanes)) for j in range(vectors)]
            sums = [[e.zeroed() for _ in places] for _ in range(n_scores)]
            with cgutils.for_range(builder, count) as loop:
                row = builder.gep(first, [builder.mul(loop.index, columns)])
                here = [e.load(row, place) for place in places]
                for k, of_score in enumerate(sums):
                    score = builder.add(top, e.number(k))
                    line, column = (score, loop.index) if turn else (loop.index, score)
                    slope = builder.load(builder.gep(g_first, [builder.add(builder.mul(line, g_columns), column)]))
                    for x_here, place in zip(here, of_score, strict=True):
                        builder.store(e.multiply_add(e.everywhere(slope), x_here, builder.load(place)), place)
            for row, of_score in zip(totals, sums, strict=True):
                for at_j, place in zip(places, of_score, strict=True):
                    e.store(builder.fadd(e.load(row, at_j), builder.load(place)), row, at_j)

        done: ir.Value = e.number(0)
        vectors = min(8, e.tile_sums // n_scores)
        while vectors > 0:
            width = e.number(vectors * e.lanes)
            rest = builder.sub(columns, done)
            end = builder.add(done, builder.sub(rest, builder.urem(rest, width)))
            with cgutils.for_range_slice(builder, done, end, width, intp=cgutils.intp_t) as (at, _):
                tile(at, vectors)
            done, vectors = end, vectors // 2
        return context.get_dummy_value()

    return types.void(scores, turned, block, types.intp, G, types.intp, total), emit


class Emitter:
    """LLVM code on rows of one dtype, by whole vectors."""

    def __init__(self, context: Any, builder: ir.IRBuilder, dtype: types.Type) -> None:
        self.context, self.builder = context, builder
        self.scalar = context.get_data_type(dtype)
        self.itemsize = dtype.bitwidth // 8
        self.lanes = target().vector_bytes // self.itemsize
        self.vector = ir.VectorType(self.scalar, self.lanes)
        # Sums of a tile: half of the registers, of which x86 has 32 with AVX-512 and 16 without, others 32.
        self.tile_sums = 8 if "x86" in target().features and target().vector_bytes < 64 else 16

    def number(self, value: int) -> ir.Constant:
        return ir.Constant(cgutils.intp_t, value)

    def row(self, array_type: Any, value: ir.Value, row: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return a pointer to a row of a 2-D array, and the number of columns."""
        array = self.context.make_array(array_type)(self.context, self.builder, value)
        columns = cgutils.unpack_tuple(self.builder, array.shape, 2)[1]
        return self.builder.gep(array.data, [self.builder.mul(row, columns)]), columns

    def zeroed(self) -> ir.Value:
        place = cgutils.alloca_once(self.builder, self.vector)
        self.builder.store(ir.Constant(self.vector, None), place)
        return place

    def load(self, row: ir.Value, at: ir.Value) -> ir.Value:
        place = self.builder.bitcast(self.builder.gep(row, [at]), self.vector.as_pointer())
        return self.builder.load(place, align=self.itemsize)

    def store(self, value: ir.Value, row: ir.Value, at: ir.Value) -> None:
        place = self.builder.bitcast(self.builder.gep(row, [at]), value.type.as_pointer())
        self.builder.store(value, place, align=self.itemsize)

    def everywhere(self, value: ir.Value) -> ir.Value:
        single = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), value, ir.IntType(32)(0))
        return self._shuffle(single, single, [0] * self.lanes)

    def multiply_add(self, x: ir.Value, y: ir.Value, total: ir.Value) -> ir.Value:
        name = f"llvm.fmuladd.v{self.lanes}f{8 * self.itemsize}"
        function = ir.FunctionType(x.type, [x.type] * 3)
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, function, name), [x, y, total])

    def prefetch(self, place: ir.Value) -> None:
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag]), "llvm.prefetch.p0"
        )
        # Read, keep in the second level, data.
        self.builder.call(function, [self.builder.bitcast(place, byte), flag(0), flag(2), flag(1)])

    def sums_of_lanes(self, vectors: list[ir.Value]) -> list[ir.Value]:
        """Add up the lanes of each vector, halves first; the sums come side by side, in the vectors' order.

        Two vectors are halved together while there are two, which takes a third of the instructions.
        """
        width = self.lanes  # lanes that belong to one sum
        while width > 1:
            half, wide = width // 2, vectors[0].type.count
            if len(vectors) > 1:
                pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
                low = [lane for lane in range(2 * wide) if lane % width < half]
            else:
                pairs = [(vectors[0], vectors[0])]
                low = [lane for lane in range(wide) if lane % width < half]
            high = [lane + half for lane in low]
            vectors = [
                self.builder.fadd(self._shuffle(first, second, low), self._shuffle(first, second, high))
                for first, second in pairs
            ]
            width = half
        return vectors

    def store_part(self, totals: list[ir.Value], first: int, count: int, place: ir.Value) -> None:
        """Store `count` of the numbers that lie side by side in `totals`, from the `first` on."""
        wide = totals[0].type.count
        done = 0
        while done < count:
            at = (first + done) % wide
            length = min(count - done, wide - at)
            vector = totals[(first + done) // wide]
            if length == 1:
                part = self.builder.extract_element(vector, ir.IntType(32)(at))
            else:
                part = vector if length == wide else self._shuffle(vector, vector, list(range(at, at + length)))
            self.store(part, place, self.number(done))
            done += length

    def _shuffle(self, first: ir.Value, second: ir.Value, order: list[int]) -> ir.Value:
        index = ir.VectorType(ir.IntType(32), len(order))
        return self.builder.shuffle_vector(first, second, ir.Constant(index, order))
