"""Vector code for networks: the products of a layer, made of tiles that stay in registers.

A layer's weights are a *stack* and the values of its inputs a *block*, as in `simd.rows`: the last column in use holds
the intercepts and ones, then come zeros up to whole vectors. So products need no ends.

`unit_strip` makes the values of a few units for all rows of a block. `outer_strip` makes a few rows of a sum of outer
products, ``sum_i G[i]' block[i]``, which is what gradients are, and either stores them or takes a step with them: then
the gradient never leaves the registers.

Sums. A unit's value is summed in one vector, and its lanes are then added up in a fixed tree. An entry of a gradient
is summed row after row. Bits depend on neither the tile nor on what else is computed, so threads may share the units
in any way.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from ..runtime.jit import intrinsic
from ..simd.llvm import Emitter

__all__ = ["UNITS", "outer_strip", "unit_strip"]

#: Units of a strip.
UNITS = 4


def _unit_strip_twin(units, block, first, last, stack, s, Z):  # type: ignore[no-untyped-def]
    Z[first:last, s : s + units] = block[first:last] @ stack[s : s + units].T


@intrinsic(twin=_unit_strip_twin)
def unit_strip(typingctx, units, block, first, last, stack, s, Z):  # type: ignore[no-untyped-def]
    """``Z[i, s + k] = block[i] . stack[s + k]`` for first <= i < last, k < `units` (a literal)."""
    if not isinstance(units, types.IntegerLiteral):
        return None  # asked again with the literal
    n_units = units.literal_value

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, x, begin, end, w, top, z = arguments
        e = Emitter(context, builder, block.dtype)
        weights = [e.row(stack, w, builder.add(top, e.number(k))) for k in range(n_units)]
        columns = weights[0][1]

        def tile(first_row: ir.Value, rows: int) -> None:
            numbers = [builder.add(first_row, e.number(r)) for r in range(rows)]
            x_rows = [e.row(block, x, number)[0] for number in numbers]
            sums = [[e.zeroed() for _ in range(n_units)] for _ in range(rows)]
            with cgutils.for_range_slice(builder, e.number(0), columns, e.number(e.lanes), intp=cgutils.intp_t) as (
                at,
                _,
            ):
                here = [e.load(x_row, at) for x_row in x_rows]
                for k, (row, _) in enumerate(weights):
                    weight = e.load(row, at)
                    for x_here, of_row in zip(here, sums, strict=True):
                        builder.store(e.multiply_add(x_here, weight, builder.load(of_row[k])), of_row[k])
            together = 2 if rows % 2 else rows  # three rows have no tree of sums
            for row in range(0, rows, together):
                some = slice(row, row + together)
                totals = e.sums_of_lanes([builder.load(place) for of_row in sums[some] for place in of_row])
                for r, number in enumerate(numbers[some]):
                    line, _ = e.row(Z, z, number)
                    e.store_part(totals, r * n_units, n_units, builder.gep(line, [top]))

        _in_tiles(e, begin, end, _tile_length(e, n_units), 1, tile)
        return context.get_dummy_value()

    return types.void(units, block, types.intp, types.intp, stack, types.intp, Z), emit


def _outer_strip_twin(units, transposed, descend, block, G, s, target, top, first, last, decay, step):  # type: ignore[no-untyped-def]
    weights = G[s : s + units, : len(block)] if transposed else G[: len(block), s : s + units].T
    rows = target[top : top + units, first:last]
    gradient = weights @ block[:, first:last]
    if descend:
        rows -= step * (gradient + decay[first:last] * rows)
    else:
        rows[:] = gradient


@intrinsic(twin=_outer_strip_twin)
def outer_strip(typingctx, units, transposed, descend, block, G, s, target, top, first, last, decay, step):  # type: ignore[no-untyped-def]
    """``target[top + k] = sum_i G[i, s + k] block[i]`` over all i, for k < `units`, in the columns first to last.

    G.T if `transposed`. If `descend`, ``w -= step (that + decay w)`` for these entries w of `target` instead. The three
    are literals; `first` and `last` are multiples of a vector of the widest target.
    """
    literals = types.IntegerLiteral, types.BooleanLiteral
    if not all(isinstance(each, literals) for each in (units, transposed, descend)):
        return None  # asked again with the literals
    n_units, transpose, steps = units.literal_value, transposed.literal_value, descend.literal_value

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, _, _, x, g, score, t, t_top, begin, end, shrink, size = arguments
        e = Emitter(context, builder, block.dtype)
        x_first, columns = e.row(block, x, e.number(0))
        count = cgutils.unpack_tuple(builder, context.make_array(block)(context, builder, x).shape, 2)[0]
        g_first, g_columns = e.row(G, g, e.number(0))
        rows = [e.row(target, t, builder.add(t_top, e.number(k)))[0] for k in range(n_units)]
        scores = [builder.add(score, e.number(k)) for k in range(n_units)]
        shrinking = context.make_array(decay)(context, builder, shrink).data
        slow = e.everywhere(builder.fneg(size))

        def tile(at: ir.Value, vectors: int) -> None:
            places = [builder.add(at, e.number(j * e.lanes)) for j in range(vectors)]
            sums = [[e.zeroed() for _ in places] for _ in range(n_units)]
            with cgutils.for_range(builder, count) as loop:
                row = builder.gep(x_first, [builder.mul(loop.index, columns)])
                here = [e.load(row, place) for place in places]
                for number, of_unit in zip(scores, sums, strict=True):
                    line, column = (number, loop.index) if transpose else (loop.index, number)
                    weight = builder.load(builder.gep(g_first, [builder.add(builder.mul(line, g_columns), column)]))
                    for x_here, place in zip(here, of_unit, strict=True):
                        builder.store(e.multiply_add(e.everywhere(weight), x_here, builder.load(place)), place)
            for row, of_unit in zip(rows, sums, strict=True):
                for place, total in zip(places, of_unit, strict=True):
                    value = builder.load(total)
                    if steps:
                        before = e.load(row, place)
                        value = e.multiply_add(e.load(shrinking, place), before, value)
                        value = e.multiply_add(slow, value, before)
                    e.store(value, row, place)

        _in_tiles(e, begin, end, _tile_length(e, n_units), e.lanes, tile)
        return context.get_dummy_value()

    arguments = block, G, types.intp, target, types.intp, types.intp, types.intp, decay, block.dtype
    return types.void(units, transposed, descend, *arguments), emit


def _tile_length(e: Emitter, units: int) -> int:
    """Return how many rows or vectors meet so many units: of four units 16 registers have room for twelve sums."""
    return 3 if units == UNITS and e.tile_sums < 16 else max(1, e.tile_sums // units)


def _in_tiles(e: Emitter, begin: ir.Value, end: ir.Value, most: int, unit: int, tile: Any) -> None:
    """Call ``tile(at, length)`` so that lengths, in `unit`, fill begin to end: `most`, then halves, rounded up."""
    builder, length = e.builder, most
    while length > 0:
        step = e.number(length * unit)
        rest = builder.sub(end, begin)
        stop = builder.add(begin, builder.sub(rest, builder.urem(rest, step)))
        with cgutils.for_range_slice(builder, begin, stop, step, intp=cgutils.intp_t) as (at, _):
            tile(at, length)
        begin, length = stop, (length + 1) // 2 if length > 1 else 0
