"""Register tiles in LLVM code, and what feeds them: the inner loops of every distance.

`accumulate` is the register tile at the heart of every distance: `rows` x `vectors` accumulators, one
vector of points of Y against one value of X in all lanes per operation, as in a matrix product. It is one
emitter for every metric and dtype; these differ in small functions, which `_tile_metrics` lists: there stand the
formulas. Code for all metrics is written, and their number (`arguments.METRIC_CODES`) chooses among it.
`transpose` turns a block of rows into the panels that the tile reads. `totals_of_leaf` and `bounds_of_boxes` do for
`_tree` what `accumulate` does, with one row of X and 32 rows, or boxes around rows, of Y.

All are LLVM vector code, so the compiler chooses the instructions of its target; only `psadbw`, `pmaddwd`
and `vpdpbusd`, which no portable pattern reaches reliably, are asked for by name where the target has them.

Sums. A tile adds one column after the other to one accumulator per pair, and the caller adds up tiles
over chunks of columns. So the order of a pair's sum is fixed by the column count alone: the bits of a
distance do not depend on tile, block, batch or thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from ..runtime.jit import intrinsic
from ..runtime.memory import CACHE_LINE
from ..simd.comparisons import KEYS_AT_ONCE
from ..simd.llvm import (
    broadcast,
    call,
    constant_vector,
    index,
    is_float,
    lane_type,
    load,
    pointer_to,
    prefetch,
    resized,
    row_pointers,
    shuffle,
    store,
)
from ._tile_metrics import (
    COMBINATIONS,
    STEPS,
    Tile,
    differences_of_bytes,
    kept_as,
    metrics_of,
    tile_of,
)
from .arguments import DEFINITIONS, METRIC_CODES, METRICS
from .tile_shapes import (
    X_PITCH_BYTES,
    columns_per_lane,
    copies,
    few_rows,
    lanes_squared_at_once,
    norm_steps,
    taken_from_x,
    tile_shape,
    transpose_width,
    y_unit,
)

__all__ = [
    "accumulate",
    "accumulate_few",
    "bounds_of_boxes",
    "complete",
    "has_norm_step",
    "norm_terms",
    "totals_of_leaf",
    "transpose",
]


_NAMES = tuple(METRICS)

#: So many steps ahead a tile asks for what it will read of panels, which lie in second-level cache.
_STEPS_AHEAD = 8
_SIGNS = 0x8080808080808080


def _takes_128(metric: str, dtype: np.dtype[Any]) -> bool:
    """Whether bytes of X, for products with those of Y, lose 128 on the way to a tile."""
    return metric == "l2" and dtype.kind == "u" and taken_from_x(dtype) > 0


def _name(code: int, dtype: np.dtype[Any], totals: np.dtype[Any]) -> str:
    """Return the metric with a number, or the one that there is for such rows and totals."""
    names = metrics_of(dtype, totals)
    return _NAMES[code] if _NAMES[code] in names else names[0]


def _for_each_metric(
    b: ir.IRBuilder, code: ir.Value, dtype: np.dtype[Any], totals: np.dtype[Any], emit: Callable[[str], None]
) -> None:
    """Write code for each metric of rows of a dtype, of which that with the number `code` is run."""
    blocks = {name: b.append_basic_block(name) for name in metrics_of(dtype, totals)}
    end = b.append_basic_block("end")
    *others, last = blocks
    choice = b.switch(code, blocks[last])
    for name, block in blocks.items():
        if name in others:
            choice.add_case(ir.Constant(code.type, METRIC_CODES[name]), block)
        b.position_at_end(block)
        emit(name)
        b.branch(end)
    b.position_at_end(end)


def _has_norm_step_twin(panels):  # type: ignore[no-untyped-def]
    return norm_steps(panels.dtype) > 0


@intrinsic(twin=_has_norm_step_twin)
def has_norm_step(typingctx, panels):  # type: ignore[no-untyped-def]
    """Return whether panels of this dtype have a step beyond their columns: a constant of the compiled code."""

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        return ir.Constant(ir.IntType(1), norm_steps(np.dtype(str(panels.dtype))))

    return types.boolean(panels), emit


def _accumulate_twin(metric, X, top, bottom, begin, Y, y_at, count, steps, broadcast_x, totals, column, first):  # type: ignore[no-untyped-def]
    metric = _name(metric, Y.dtype, totals.dtype)
    shape, columns = tile_shape(metric, Y.dtype), columns_per_lane(Y.dtype)
    points = count * shape.points
    # Steps come first: NumPy adds up along that axis in order, along the last one in pairs.
    y = Y[y_at:][: steps * points * columns].reshape(count, steps, shape.points, columns)
    y = y.swapaxes(0, 1).reshape(steps, 1, points, columns)
    totals = totals.view(kept_as(metric, Y.dtype, totals.dtype))
    reduce = COMBINATIONS[DEFINITIONS[metric].combination]
    for row in range(top, bottom, shape.rows):
        rows = np.minimum(np.arange(row, row + shape.rows), len(X) - 1)
        x = X[rows, begin * columns : (begin + steps) * columns].reshape(shape.rows, steps, 1, columns).swapaxes(0, 1)
        if metric == "l2" and norm_steps(Y.dtype):
            x = (x ^ 128).view(np.int8) if _takes_128(metric, X.dtype) else x
            terms = y.astype(totals.dtype) * x.astype(totals.dtype)
        elif metric in METRICS:
            terms = STEPS[METRICS[metric].step](x.astype(totals.dtype), y.astype(totals.dtype))
        else:
            terms = STEPS[DEFINITIONS[metric].step](x, y).astype(totals.dtype)
        tile = reduce.reduce(reduce.reduce(terms, axis=3), axis=0, initial=0)
        place = totals[row - top : row - top + shape.rows, column : column + points]
        place[...] = tile if first else reduce(place, tile)


@intrinsic(twin=_accumulate_twin)
def accumulate(typingctx, metric, X, top, bottom, begin, Y, y_at, count, steps, broadcast_x, totals, column, first):  # type: ignore[no-untyped-def]
    """Add some steps of rows of X and of panels of Y to `totals`, tile by tile.

    ``accumulate(metric, X, top, bottom, begin, Y, y_at, count, steps, broadcast_x, totals, column, first)``: the rows
    ``top:bottom`` of `X` (n, D), a row being whole steps, from step `begin` on; the last row of X stands in for those
    that the last tile has beyond it. `Y` is flat; from `y_at` on lie `count` panels of so many `steps`, one behind
    the other. The totals from ``totals[0, column]`` on; `first` says that their old content is void. `broadcast_x` is
    flat work space for a tile's values of X, each in so many `copies`. Where that is one, rows are read where they lie,
    unless so far apart that they would drive each other from first-level cache.
    Where panels have a step of norms, the squared distances of bytes lack what it holds: the totals are sums of
    y (x - t), with t as `taken_from_x` says.
    """
    result = types.void(types.intp, X, top, bottom, begin, Y, y_at, count, steps, broadcast_x, totals, column, first)

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        code, x_array, top, bottom, begin, y_array, y_at, count, steps, work, totals_array, column, first = arguments
        dtype = np.dtype(str(Y.dtype))
        block = context.make_array(totals)(context, b, totals_array)
        width = cgutils.unpack_tuple(b, block.shape, 2)[1]
        x_width = cgutils.unpack_tuple(b, context.make_array(X)(context, b, x_array).shape, 2)[1]
        # Rows about a multiple of 4 KiB apart share the sets of the cache, which hold eight lines each.
        apart = b.and_(b.add(b.mul(x_width, index(dtype.itemsize)), index(512)), index(4095))
        share_sets = b.icmp_unsigned("<", apart, index(1024))

        def write(name: str) -> None:
            rows, vectors, lanes = tile_shape(name, dtype)
            tile = tile_of(name, dtype)
            vector = ir.VectorType(lane_type(Y.dtype, context), lanes)
            written = ir.VectorType(vector.element, copies(name, dtype))
            stored = ir.VectorType(context.get_data_type(totals.dtype), lanes)
            accumulator = tile.accumulators(vector)
            sums = [cgutils.alloca_once(b, accumulator) for _ in range(rows * vectors)]
            panels = pointer_to(context, b, Y, y_array, y_at, vector)
            x_start = pointer_to(context, b, broadcast_x, work, index(0), written)

            # Copies of a step lie together; single values in rows, as in X.
            interleaved, pitch = written.count > 1, X_PITCH_BYTES // (columns_per_lane(dtype) * dtype.itemsize)
            copied = ir.Constant(ir.IntType(1), 1) if interleaved or _takes_128(name, dtype) else share_sets
            with cgutils.for_range_slice(b, top, bottom, index(rows), cgutils.intp_t) as (row, _):
                x_rows = row_pointers(context, b, X, x_array, row, rows, vector.element)
                x_rows = [b.gep(x_row, [begin]) for x_row in x_rows]
                x_copies = [b.gep(x_start, [index(i if interleaved else i * pitch)]) for i in range(rows)]
                with b.if_then(copied), cgutils.for_range(b, steps) as loop:
                    for x_row, x_copy in zip(x_rows, x_copies, strict=True):
                        value = broadcast(b, load(b, b.gep(x_row, [loop.index])), written)
                        if _takes_128(name, dtype):
                            value = b.xor(value, constant_vector(written, _SIGNS))
                        store(b, value, b.gep(x_copy, [b.mul(loop.index, index(rows if interleaved else 1))]))
                if not interleaved:
                    x_copies = [b.bitcast(x_copy, vector.element.as_pointer()) for x_copy in x_copies]
                    x_copies = [b.select(copied, *places) for places in zip(x_copies, x_rows, strict=True)]
                with cgutils.for_range(b, count) as panel:
                    y_start = b.gep(panels, [b.mul(b.mul(panel.index, steps), index(vectors))])
                    corner = b.add(b.mul(b.sub(row, top), width), column)
                    corner = b.add(corner, b.mul(panel.index, index(vectors * lanes)))
                    for i in range(rows):  # totals lie in second-level cache, too
                        prefetch(b, b.gep(block.data, [b.add(corner, b.mul(width, index(i)))]), level=1)
                    for place in sums:
                        b.store(ir.Constant(accumulator, None), place)
                    with cgutils.for_range(b, steps) as loop:
                        x_at = b.mul(loop.index, index(rows if interleaved else 1))
                        y_at_step = b.mul(loop.index, index(vectors))
                        y_here = [load(b, b.gep(y_start, [b.add(y_at_step, index(j))])) for j in range(vectors)]
                        _prefetch_step(b, b.gep(y_start, [b.add(y_at_step, index(_STEPS_AHEAD * vectors))]), vectors)
                        for i in range(rows):
                            x_here = load(b, b.gep(x_copies[i], [x_at]))
                            if not interleaved:
                                x_here = broadcast(b, x_here, vector)
                            for j in range(vectors):
                                place = sums[i * vectors + j]
                                b.store(tile.step(b, b.load(place), x_here, y_here[j]), place)
                    with b.if_else(first) as (then, otherwise):
                        for branch, merge in ((then, None), (otherwise, tile.merge)):
                            with branch:
                                for i in range(rows):
                                    for j in range(vectors):
                                        value = _to_memory(b, tile, b.load(sums[i * vectors + j]), stored)
                                        at = b.add(corner, b.add(b.mul(width, index(i)), index(j * lanes)))
                                        place = b.bitcast(b.gep(block.data, [at]), stored.as_pointer())
                                        store(b, merge(b, load(b, place), value) if merge else value, place)

        _for_each_metric(b, code, dtype, np.dtype(str(totals.dtype)), write)
        return context.get_dummy_value()

    return result, emit


def _prefetch_step(b: ir.IRBuilder, place: ir.Value, vectors: int) -> None:
    """Ask for the cache lines of a step of a panel: first-level cache holds one panel's chunk at most."""
    lanes = place.type.pointee
    bits = {ir.FloatType: 32, ir.DoubleType: 64}.get(type(lanes.element)) or lanes.element.width
    vectors_a_line = max(1, 8 * CACHE_LINE // (lanes.count * bits))
    for j in range(0, vectors, vectors_a_line):
        prefetch(b, b.gep(place, [index(j)]), level=1)


def _accumulate_few_twin(metric, X, i, Y, places, begin, end, totals):  # type: ignore[no-untyped-def]
    definition = METRICS[_NAMES[metric]]
    x, y = X[i, begin:end], Y[places, begin:end]
    terms = STEPS[definition.step](x.astype(totals.dtype), y.astype(totals.dtype))
    reduce = COMBINATIONS[definition.combination]
    chunk = reduce.reduce(terms, axis=1, initial=0)
    totals[:] = reduce(totals, chunk) if begin else chunk


@intrinsic(twin=_accumulate_few_twin)
def accumulate_few(typingctx, metric, X, i, Y, places, begin, end, totals):  # type: ignore[no-untyped-def]
    """Add the columns ``begin:end`` of row i of X and of a vector of scattered rows of Y to `totals`.

    ``accumulate_few(metric, X, i, Y, places, begin, end, totals)``: `places` are ``few_rows(dtype)`` rows of Y. Of
    floats the same operations in the same order as of `accumulate`, with its chunk: the same bits. Of bytes only L2,
    which is exact. The old content of `totals` is void where `begin` is 0.
    """
    result = types.void(types.intp, X, i, Y, places, begin, end, totals)

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        dtype = np.dtype(str(Y.dtype))
        lanes = few_rows(dtype)
        code, x_array, x_row, y_array, chosen, first, end, sums = arguments
        item = context.get_data_type(Y.dtype)

        def row_of(kind: Any, array: ir.Value, row: ir.Value) -> ir.Value:
            columns = cgutils.unpack_tuple(b, context.make_array(kind)(context, b, array).shape, 2)[1]
            return pointer_to(context, b, kind, array, b.mul(row, columns), item)

        x = row_of(X, x_array, x_row)
        starts = pointer_to(context, b, places, chosen, index(0), cgutils.intp_t)
        rows = [row_of(Y, y_array, b.load(b.gep(starts, [index(lane)]))) for lane in range(lanes)]
        stored = ir.VectorType(context.get_data_type(totals.dtype), lanes)
        place = pointer_to(context, b, totals, sums, index(0), stored)
        if dtype.kind == "u":
            value = ir.Constant(stored, ir.Undefined)
            for lane, row in enumerate(rows):
                total = _squared_distance_of_bytes(b, x, row, first, end, stored.element)
                value = b.insert_element(value, total, ir.IntType(32)(lane))
            total = b.select(b.icmp_signed("==", first, index(0)), ir.Constant(stored, None), load(b, place))
            store(b, b.add(total, value), place)
            return context.get_dummy_value()
        vector = ir.VectorType(item, lanes)

        def write(name: str) -> None:
            tile = tile_of(name, dtype)
            accumulator = tile.accumulators(vector)
            total = cgutils.alloca_once(b, accumulator)
            b.store(ir.Constant(accumulator, None), total)

            def add(column: ir.Value, y_here: ir.Value) -> None:
                x_here = broadcast(b, load(b, b.gep(x, [column])), vector)
                b.store(tile.step(b, b.load(total), x_here, y_here), total)

            whole = b.sdiv(b.sub(end, first), index(lanes))
            with cgutils.for_range(b, whole) as loop:
                column = b.add(first, b.mul(loop.index, index(lanes)))
                transposed = [load(b, b.bitcast(b.gep(row, [column]), vector.as_pointer())) for row in rows]
                _transpose(b, transposed)
                for step in range(lanes):
                    add(b.add(column, index(step)), transposed[step])
            rest = b.add(first, b.mul(whole, index(lanes)))
            with cgutils.for_range_slice(b, rest, end, index(1), cgutils.intp_t) as (column, _):
                y_here = ir.Constant(vector, ir.Undefined)
                for lane in range(lanes):
                    y_here = b.insert_element(y_here, load(b, b.gep(rows[lane], [column])), ir.IntType(32)(lane))
                add(column, y_here)

            _write_chunk(b, tile, _to_memory(b, tile, b.load(total), stored), place, first)

        _for_each_metric(b, code, dtype, dtype, write)
        return context.get_dummy_value()

    return result, emit


def _squared_distance_of_bytes(
    b: ir.IRBuilder, x: ir.Value, y: ir.Value, first: ir.Value, end: ir.Value, kind: ir.Type
) -> ir.Value:
    """Return the squared distance of two rows of bytes, a vector of columns at a time."""
    lanes = lanes_squared_at_once()
    width = index(8 * lanes)
    vector = ir.VectorType(ir.IntType(64), lanes)
    tile = differences_of_bytes("l2")
    several = tile.accumulators(vector)
    totals = cgutils.alloca_once_value(b, ir.Constant(several, None))
    whole = b.sdiv(b.sub(end, first), width)
    with cgutils.for_range(b, whole) as loop:
        column = b.add(first, b.mul(loop.index, width))
        here = [load(b, b.bitcast(b.gep(row, [column]), vector.as_pointer())) for row in (x, y)]
        b.store(tile.step(b, b.load(totals), *here), totals)
    total = call(b, f"llvm.vector.reduce.add.v{several.count}i32", ir.IntType(32), b.load(totals))
    result = cgutils.alloca_once_value(b, b.sext(total, kind) if kind.width > 32 else total)
    rest = b.add(first, b.mul(whole, width))
    with cgutils.for_range_slice(b, rest, end, index(1), cgutils.intp_t) as (column, _):
        difference = b.sub(*(b.zext(b.load(b.gep(row, [column])), kind) for row in (x, y)))
        b.store(b.add(b.load(result), b.mul(difference, difference)), result)
    return b.load(result)


def _add_differences(metric, differences, begin, totals, at):  # type: ignore[no-untyped-def]
    definition = METRICS[_NAMES[metric]]
    combination = COMBINATIONS[definition.combination]
    totals = totals[at : at + KEYS_AT_ONCE]
    chunk = np.zeros_like(totals)
    for difference in differences:
        chunk = combination(chunk, STEPS[definition.step](np.zeros_like(difference), difference))
    totals[:] = combination(totals, chunk) if begin else chunk


def _totals_of_leaf_twin(metric, X, i, points, leaf, begin, end, totals, at):  # type: ignore[no-untyped-def]
    _add_differences(metric, points[leaf, begin:end] - X[i, begin:end, np.newaxis], begin, totals, at)


def _bounds_of_boxes_twin(metric, X, i, boxes, node, begin, end, totals, at):  # type: ignore[no-untyped-def]
    x = X[i, begin:end, np.newaxis]
    differences = np.fmax(boxes[node, begin:end, 0] - x, x - boxes[node, begin:end, 1])
    _add_differences(metric, np.fmax(differences, 0), begin, totals, at)


def _emit_for(X: Any, rows: Any, totals: Any, sides: int) -> Any:
    """Return what writes the code: `sides` is 1 for points, and 2 for boxes, which have a low and a high side."""

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        dtype = np.dtype(str(X.dtype))
        vector = ir.VectorType(context.get_data_type(X.dtype), KEYS_AT_ONCE)
        zero = ir.Constant(vector, [0.0] * KEYS_AT_ONCE)
        metric, _, row, _, place, begin, end, _, at = arguments
        columns = cgutils.unpack_tuple(b, context.make_array(X)(context, b, arguments[1]).shape, 2)[1]
        x = pointer_to(context, b, X, arguments[1], b.mul(row, columns), vector.element)
        first = b.mul(b.mul(place, columns), index(sides * KEYS_AT_ONCE))
        sources = pointer_to(context, b, rows, arguments[3], first, vector)
        target = pointer_to(context, b, totals, arguments[7], at, vector)

        def difference(x_here: ir.Value, column: ir.Value) -> ir.Value:
            here = [load(b, b.gep(sources, [b.add(b.mul(column, index(sides)), index(side))])) for side in range(sides)]
            if sides == 1:
                return here[0]
            low = b.fsub(here[0], x_here, flags=("contract",))
            high = b.fsub(x_here, here[1], flags=("contract",))
            outside = b.select(b.fcmp_ordered(">", low, high), low, high)
            return b.select(b.fcmp_ordered(">", outside, zero), outside, zero)

        def write(name: str) -> None:
            tile = tile_of(name, dtype)
            accumulator = tile.accumulators(vector)
            total = cgutils.alloca_once(b, accumulator)
            b.store(ir.Constant(accumulator, None), total)
            with cgutils.for_range_slice(b, begin, end, index(1), cgutils.intp_t) as (column, _):
                x_here = broadcast(b, load(b, b.gep(x, [column])), vector)
                y_here = difference(x_here, column)
                b.store(tile.step(b, b.load(total), zero if sides == 2 else x_here, y_here), total)
            _write_chunk(b, tile, b.bitcast(b.load(total), vector), target, begin)

        _for_each_metric(b, metric, dtype, dtype, write)
        return context.get_dummy_value()

    return emit


@intrinsic(twin=_totals_of_leaf_twin)
def totals_of_leaf(typingctx, metric, X, i, points, leaf, begin, end, totals, at):  # type: ignore[no-untyped-def]
    """Add the columns ``begin:end`` of row i of X and of the rows of a leaf to `totals`.

    ``totals_of_leaf(metric, X, i, points, leaf, begin, end, totals, at)``: `points` are (leaves, columns, 32) floats;
    the totals begin at ``totals[at]``. The same operations in the same order as of `tiles.accumulate`, with its chunk:
    the same bits. The old content of `totals` is void where `begin` is 0.
    """
    return types.void(types.intp, X, types.intp, points, types.intp, begin, end, totals, types.intp), _emit_for(
        X, points, totals, 1
    )


@intrinsic(twin=_bounds_of_boxes_twin)
def bounds_of_boxes(typingctx, metric, X, i, boxes, node, begin, end, totals, at):  # type: ignore[no-untyped-def]
    """Add the columns ``begin:end`` of row i of X and of the children of a node to bounds of totals.

    ``bounds_of_boxes(metric, X, i, boxes, node, begin, end, totals, at)``: as `totals_of_leaf`; `boxes` are
    (nodes, columns, 2, 32) floats, the low and the high side of each child.
    """
    return types.void(types.intp, X, types.intp, boxes, types.intp, begin, end, totals, types.intp), _emit_for(
        X, boxes, totals, 2
    )


def _norm_terms_twin(panels, at, stride, steps, place, first):  # type: ignore[no-untyped-def]
    lanes = transpose_width(panels.dtype)
    columns = np.lib.stride_tricks.as_strided(panels[at:], (steps, lanes, 8), (stride, 8, 1)).astype(np.int64)
    columns *= y_unit(panels.dtype)
    norms = panels[place : place + 8 * lanes].view(np.int64)
    norms[:] = (0 if first else norms) + (columns * (columns - 2 * taken_from_x(panels.dtype))).sum(axis=(0, 2))


@intrinsic(twin=_norm_terms_twin)
def norm_terms(typingctx, panels, at, stride, steps, place, first):  # type: ignore[no-untyped-def]
    """Add up the norms of points over the steps of a chunk, as squared distances of bytes need them.

    ``norm_terms(panels, at, stride, steps, place, first)``: ``transpose_width(uint8)`` points from `at` on, steps
    `stride` bytes apart; from `place` on a point's term, the sum of uy (uy - 2 t), see `complete`, grows by these; at
    `first` its old content is void. Of other panels it is nothing.
    """
    result = types.void(panels, at, stride, steps, place, first)

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        dtype = np.dtype(str(panels.dtype))
        if norm_steps(dtype):
            tile, lanes = tile_of("l2", dtype), tile_shape("l2", dtype).lanes
            vector, unit, taken = ir.VectorType(ir.IntType(64), lanes), y_unit(dtype), taken_from_x(dtype)
            signs, zero = constant_vector(vector, _SIGNS), ir.Constant(tile.accumulators(vector), None)
            for part in range(transpose_width(dtype) // lanes):
                begin, place = (b.add(arguments[at], index(8 * part * lanes)) for at in (1, 4))
                total = cgutils.alloca_once_value(b, zero)
                with cgutils.for_range(b, arguments[3]) as loop:
                    step_at = b.add(begin, b.mul(loop.index, arguments[2]))
                    y = load(b, pointer_to(context, b, panels, arguments[0], step_at, vector))
                    # y (y - 128) and -128 y, where one factor has a sign; 2 y (2 y - 256) is 4 y (y - 128).
                    value = tile.step(b, zero, b.xor(y, signs) if taken else y, y)
                    if taken and unit == 1:
                        value = tile.step(b, value, signs, y)
                    b.store(b.add(b.load(total), value), total)
                norms = pointer_to(context, b, panels, arguments[0], place, vector)
                old = b.select(arguments[5], ir.Constant(vector, None), load(b, norms))
                value = b.shl(_to_memory(b, tile, b.load(total), vector), constant_vector(vector, 2 * (unit - 1)))
                store(b, b.add(old, value), norms)
        return context.get_dummy_value()

    return result, emit


def _complete_twin(X, x_at, Y, y_at, points, totals, row, column):  # type: ignore[no-untyped-def]
    norm_of_x = X.reshape(-1)[x_at : x_at + 8].view(np.int64)
    norms_of_y = Y[y_at : y_at + 8 * points].view(np.int64)
    place = totals[row, column : column + points]
    place[...] = norm_of_x + norms_of_y - 2 * y_unit(Y.dtype) * place.astype(np.int64)


@intrinsic(twin=_complete_twin)
def complete(typingctx, X, x_at, Y, y_at, points, totals, row, column):  # type: ignore[no-untyped-def]
    """Make squared distances of bytes from sums of products, for a row of X and some points.

    ``complete(X, x_at, Y, y_at, points, totals, row, column)``: at `x_at` is the row's sum of x^2, from `y_at` on
    are the points' sums of uy (uy - 2 t), and from ``totals[row, column]`` on the sums of y (x - t). The sum of
    (x - uy)^2 = x^2 + uy (uy - 2 t) - 2 u y (x - t) is an exact integer; u is the `y_unit`, t what is `taken_from_x`.
    Of other panels it does nothing.
    """
    result = types.void(X, x_at, Y, y_at, points, totals, row, column)

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        if norm_steps(np.dtype(str(Y.dtype))):
            lanes = transpose_width(np.dtype(str(Y.dtype)))
            vector = ir.VectorType(ir.IntType(64), lanes)
            stored = ir.VectorType(context.get_data_type(totals.dtype), lanes)
            block = context.make_array(totals)(context, b, arguments[5])
            corner = b.add(b.mul(arguments[6], cgutils.unpack_tuple(b, block.shape, 2)[1]), arguments[7])
            norm_of_x = broadcast(
                b, load(b, pointer_to(context, b, X, arguments[0], arguments[1], vector.element)), vector
            )
            norm_of_x = resized(b, norm_of_x, stored)
            doublings = constant_vector(stored, y_unit(np.dtype(str(Y.dtype))))
            y_start = pointer_to(context, b, Y, arguments[2], arguments[3], vector)
            with cgutils.for_range(b, b.sdiv(arguments[4], index(lanes))) as loop:
                norms_of_y = resized(b, load(b, b.gep(y_start, [loop.index])), stored)
                at = b.add(corner, b.mul(loop.index, index(lanes)))
                place = b.bitcast(b.gep(block.data, [at]), stored.as_pointer())
                store(b, b.sub(b.add(norm_of_x, norms_of_y), b.shl(load(b, place), doublings)), place)
        return context.get_dummy_value()

    return result, emit


def _transpose_twin(source, source_at, stride, panel, panel_at, panel_stride):  # type: ignore[no-untyped-def]
    columns, size = columns_per_lane(panel.dtype), transpose_width(panel.dtype)
    flat = source.reshape(-1)
    for row in range(size):
        for step in range(size):
            begin, end = source_at + row * stride + step * columns, panel_at + step * panel_stride + row * columns
            panel[end : end + columns] = flat[begin : begin + columns]


@intrinsic(twin=_transpose_twin)
def transpose(typingctx, source, source_at, stride, panel, panel_at, panel_stride):  # type: ignore[no-untyped-def]
    """Copy a square of lanes from rows of `source` into a panel, transposed.

    ``transpose(source, source_at, stride, panel, panel_at, panel_stride)``: C-contiguous arrays of one
    dtype; places and strides count elements; the square has ``transpose_width(dtype)`` lanes a side.
    """
    result = types.void(source, source_at, stride, panel, panel_at, panel_stride)

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        size = transpose_width(np.dtype(str(panel.dtype)))
        vector = ir.VectorType(lane_type(panel.dtype, context), size)
        ahead = b.mul(arguments[2], index(size))
        rows = []
        for row in range(size):
            at = b.add(arguments[1], b.mul(arguments[2], index(row)))
            rows.append(load(b, pointer_to(context, b, source, arguments[0], at, vector)))
            prefetch(b, pointer_to(context, b, source, arguments[0], b.add(at, ahead), vector))
        _transpose(b, rows)
        for step in range(size):
            at = b.add(arguments[4], b.mul(arguments[5], index(step)))
            store(b, rows[step], pointer_to(context, b, panel, arguments[3], at, vector))
        return context.get_dummy_value()

    return result, emit


def _transpose(b: ir.IRBuilder, rows: list[ir.Value]) -> None:
    """Transpose a square of lanes in place."""
    distance = 1
    while distance < len(rows):
        for upper in (row for row in range(len(rows)) if not row & distance):
            rows[upper], rows[upper + distance] = _swap_blocks(b, rows[upper], rows[upper + distance], distance)
        distance *= 2


def _swap_blocks(b: ir.IRBuilder, upper: ir.Value, lower: ir.Value, distance: int) -> tuple[ir.Value, ir.Value]:
    """Exchange the off-diagonal blocks of `distance` lanes between two rows."""
    size = upper.type.count
    first = [size + (lane ^ distance) if lane & distance else lane for lane in range(size)]
    second = [size + lane if lane & distance else lane ^ distance for lane in range(size)]
    return shuffle(b, upper, lower, first), shuffle(b, upper, lower, second)


def _write_chunk(b: ir.IRBuilder, tile: Tile, value: ir.Value, place: ir.Value, begin: ir.Value) -> None:
    """Write the totals of columns from `begin` on, added to those of the columns before."""
    with b.if_else(b.icmp_signed("==", begin, index(0))) as (then, otherwise):
        with then:
            store(b, value, place)
        with otherwise:
            store(b, tile.merge(b, load(b, place), value), place)


def _to_memory(b: ir.IRBuilder, tile: Tile, value: ir.Value, stored: ir.VectorType) -> ir.Value:
    if tile.close is not None:
        value = tile.close(b, value)
    if is_float(stored.element):
        return b.bitcast(value, stored)
    return resized(b, value, stored)
