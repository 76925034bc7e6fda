"""Vector code for convolutions: one product of matrices whose rows lie anywhere, made of tiles that stay in registers.

Images lie with their channels last, in a `Grid`: each pixel has whole vectors of channels, and around the image lie
zeros where a convolution asks for them. The weights of a layer are a matrix (row of the kernel, its columns
and the channels in; channels out, padded to whole vectors). What a row of a kernel meets in an image is contiguous.

`product` serves all: forwards, the way back, and the gradient in the weights, of convolutions and of layers where each
unit sees all values. It makes a few vectors of channels for some neighbours (pixels of a line, rows of a batch, or
rows of a gradient) from two factors: numbers of the one meet vectors of the other.

Sums. Each entry of a product is summed in one order, term by term, whatever the tile. Threads may share the entries in
any way.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numpy.typing import NDArray

from ..networks.products import UNITS, unit_strip
from ..runtime.jit import inner, intrinsic, kernel, readonly
from ..simd.llvm import Emitter
from ..simd.rows import frozen

__all__ = ["ProductTable", "convolve", "input_gradient", "product", "transpose_kernels", "weight_gradient"]


class ProductTable(NamedTuple):
    """What a product is, as numbers.

    The result has `groups` times `rows` rows; each entry is a sum over `outer` times `inner` terms. Steps of the left
    factor (numbers): from group to group, to the neighbour or to the next inner term (the other one is 1), to the next
    outer term; of the right one (vectors): group, outer term, inner term; of what is added, and of the result: group,
    row. Then for each: where it begins, and the step from image to image.
    """

    groups: int
    rows: int
    outer: int
    inner: int
    left_group: int = 0
    left_step: int = 0
    left_outer: int = 0
    right_group: int = 0
    right_outer: int = 0
    right_inner: int = 0
    added_group: int = 0
    added_row: int = 0
    result_group: int = 0
    result_row: int = 0
    added: int = 0
    left: int = 0
    left_image: int = 0
    right: int = 0
    right_image: int = 0
    result: int = 0
    result_image: int = 0

    def as_array(self) -> NDArray[np.int64]:
        """Return the numbers as the kernels take them."""
        return readonly(np.array(self, np.int64))


#: Columns of the right factor that are packed together: with a thousand terms a second-level cache has room for them.
_PACKED_COLUMNS = 48

#: Rows of a result from which on packing pays.
_MANY_ROWS = 32

(
    _GROUPS, _ROWS, _OUTER, _INNER, _LEFT_GROUP, _LEFT_STEP, _LEFT_OUTER, _RIGHT_GROUP, _RIGHT_OUTER, _RIGHT_INNER,
    _ADDED_GROUP, _ADDED_ROW, _RESULT_GROUP, _RESULT_ROW, _ADDED, _LEFT, _LEFT_IMAGE, _RIGHT, _RIGHT_IMAGE, _RESULT,
    _RESULT_IMAGE,
) = range(len(ProductTable._fields))  # fmt: skip


def _product_twin(along, left, l_at, right, r_at, added, result, at, table, first, last):  # type: ignore[no-untyped-def]
    t = ProductTable(*table.tolist())
    columns = np.arange(first, last)
    rows, outer, inner = np.ogrid[: t.rows, : t.outer, : t.inner]
    neighbor, term = (t.left_step, 1) if along else (1, t.left_step)
    for group in range(t.groups):
        numbers = left[l_at + group * t.left_group + rows * neighbor + outer * t.left_outer + inner * term]
        places = r_at + group * t.right_group + outer * t.right_outer + inner * t.right_inner
        vectors = right[places.reshape(-1, 1) + columns]
        line = rows.reshape(-1, 1)
        total = numbers.reshape(t.rows, -1) @ vectors
        total += added[t.added + group * t.added_group + line * t.added_row + columns]
        result[at + group * t.result_group + line * t.result_row + columns] = total


@intrinsic(twin=_product_twin)
def product(typingctx, along, left, l_at, right, r_at, added, result, at, table, first, last):  # type: ignore[no-untyped-def]
    """``result[row, column] = added[row, column] + sum left[row, term] right[term, column]``, first <= column < last.

    `table`, a `ProductTable`, says where all of these are; `first` and `last` are multiples of a vector of the widest
    target. `along` (a literal): the inner terms of the left factor are contiguous; else its neighbours are.
    """
    if not isinstance(along, types.BooleanLiteral):
        return None  # asked again with the literal
    lies_along = along.literal_value

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, l_array, l_begin, r_array, r_begin, a_array, o_array, o_begin, numbers, begin, end = arguments
        e = Emitter(context, builder, left.dtype)
        values = context.make_array(table)(context, builder, numbers).data
        t = [builder.load(builder.gep(values, [e.number(place)])) for place in range(_LEFT)]

        def data(kind: Any, array: ir.Value, start: ir.Value) -> ir.Value:
            return builder.gep(context.make_array(kind)(context, builder, array).data, [start])

        factors = data(left, l_array, l_begin), data(right, r_array, r_begin)
        sums = data(added, a_array, t[_ADDED]), data(result, o_array, o_begin)
        most, height = _tile_shape(e, lies_along)

        def strip(column: ir.Value, vectors: int) -> None:
            with cgutils.for_range(builder, t[_GROUPS]) as groups:
                group = groups.index
                places = (
                    builder.gep(factors[0], [builder.mul(group, t[_LEFT_GROUP])]),
                    builder.gep(factors[1], [builder.add(column, builder.mul(group, t[_RIGHT_GROUP]))]),
                    builder.gep(sums[0], [builder.add(column, builder.mul(group, t[_ADDED_GROUP]))]),
                    builder.gep(sums[1], [builder.add(column, builder.mul(group, t[_RESULT_GROUP]))]),
                )
                done: ir.Value = e.number(0)
                rows = height
                while rows > 0:
                    size = e.number(rows)
                    rest = builder.sub(t[_ROWS], done)
                    stop = builder.add(done, builder.sub(rest, builder.urem(rest, size)))
                    with cgutils.for_range_slice(builder, done, stop, size, intp=cgutils.intp_t) as (row, _):
                        _tile(e, lies_along, t, places, row, rows, vectors)
                    done, rows = stop, rows // 2

        # As many strips of as many vectors as registers can hold; four are two and two.
        column = cgutils.alloca_once_value(builder, begin)
        condition, body, after = (builder.append_basic_block(f"strips.{name}") for name in ("more", "next", "end"))
        builder.branch(condition)
        builder.position_at_end(condition)
        here = builder.load(column)
        builder.cbranch(builder.icmp_signed("<", here, end), body, after)
        builder.position_at_end(body)
        rest = builder.udiv(builder.sub(end, here), e.number(e.lanes))
        ways = [builder.append_basic_block(f"strip.{vectors}") for vectors in range(1, most + 1)]
        switch = builder.switch(rest, ways[-1])
        for count, way in ((1, 1), (2, 2), (4, 2)):
            switch.add_case(e.number(count), ways[way - 1])
        for vectors, way in enumerate(ways, 1):
            builder.position_at_end(way)
            strip(here, vectors)
            builder.store(builder.add(here, e.number(vectors * e.lanes)), column)
            builder.branch(condition)
        builder.position_at_end(after)
        return context.get_dummy_value()

    i = types.intp
    return types.void(along, left, i, right, i, added, result, i, table, i, i), emit


def _tile_shape(e: Emitter, along: bool) -> tuple[int, int]:
    """Return how many vectors and rows a tile has at most.

    With 16 registers twelve hold sums: with eight nothing is left to do meanwhile where a load comes late. A gradient
    is cut into pairs of vectors; elsewhere rows are pixels of a line, often a power of two.
    """
    if e.tile_sums >= 16:
        return 3, 8
    return (3, 4) if along else (2, 6)


def _tile(
    e: Emitter, along: bool, t: list[ir.Value], places: tuple[ir.Value, ...], row: ir.Value, rows: int, vectors: int
) -> None:
    """Make `vectors` of `rows` rows of a product."""
    builder = e.builder
    left, right, added, result = places
    numbers = [builder.add(row, e.number(r)) for r in range(rows)]
    if along:
        lines = [builder.gep(left, [builder.mul(number, t[_LEFT_STEP])]) for number in numbers]
    else:
        line = builder.gep(left, [row])
        lines = [builder.gep(line, [e.number(r)]) for r in range(rows)]
    sums = [[e.zeroed() for _ in range(vectors)] for _ in range(rows)]
    with cgutils.for_range(builder, t[_OUTER]) as outer:
        l_outer = builder.mul(outer.index, t[_LEFT_OUTER])
        r_outer = builder.gep(right, [builder.mul(outer.index, t[_RIGHT_OUTER])])
        with cgutils.for_range(builder, t[_INNER]) as inner:
            r_inner = builder.gep(r_outer, [builder.mul(inner.index, t[_RIGHT_INNER])])
            here = [e.load(r_inner, e.number(v * e.lanes)) for v in range(vectors)]
            l_inner = inner.index if along else builder.mul(inner.index, t[_LEFT_STEP])
            at = builder.add(l_outer, l_inner)
            for line, of_row in zip(lines, sums, strict=True):
                x = e.everywhere(builder.load(builder.gep(line, [at])))
                for vector, place in zip(here, of_row, strict=True):
                    builder.store(e.multiply_add(x, vector, builder.load(place)), place)
    for number, of_row in zip(numbers, sums, strict=True):
        a_row = builder.gep(added, [builder.mul(number, t[_ADDED_ROW])])
        o_row = builder.gep(result, [builder.mul(number, t[_RESULT_ROW])])
        for v, place in enumerate(of_row):
            at = e.number(v * e.lanes)
            e.store(builder.fadd(builder.load(place), e.load(a_row, at)), o_row, at)


# -------------------------------------------------------------------------------------------- kernels


@inner
def _pack(right, at, table, width, packed):  # type: ignore[no-untyped-def]
    """Lay the terms of some columns of the right factor side by side."""
    for outer in range(table[_OUTER]):
        for inner_term in range(table[_INNER]):
            begin = at + outer * table[_RIGHT_OUTER] + inner_term * table[_RIGHT_INNER]
            term = (outer * table[_INNER] + inner_term) * width
            row, to = right[begin : begin + width], packed[term : term + width]
            for c in range(to.size):
                to[c] = row[c]


@kernel
def convolve(left, right, added, result, table, first, last, begin, end):  # type: ignore[no-untyped-def]
    """Make the columns `begin` to `end` of products for images `first` to `last`; all share the right factor.

    Its rows are apart by powers of two often, so that a cache has room for few of them. So some columns are packed
    before images meet them.
    """
    terms, place = table[_OUTER] * table[_INNER], table.copy()
    packs = table[_RIGHT_GROUP] == 0 and (last - first) * table[_GROUPS] * table[_ROWS] >= _MANY_ROWS
    packed = np.empty(terms * min(_PACKED_COLUMNS, end - begin) if packs else 0, right.dtype)
    for column in range(begin, end, _PACKED_COLUMNS):
        width = min(_PACKED_COLUMNS, end - column)
        factor, r_at = frozen(right), table[_RIGHT] + column
        if packs:
            _pack(factor, r_at, table, width, packed)
            factor, r_at = frozen(packed), 0
            place[_RIGHT_OUTER], place[_RIGHT_INNER] = table[_INNER] * width, width
        place[_ADDED] = table[_ADDED] + column
        for i in range(first, last):
            l_at, at = table[_LEFT] + i * table[_LEFT_IMAGE], table[_RESULT] + i * table[_RESULT_IMAGE]
            product(True, left, l_at, factor, r_at, added, result, at + column, place, 0, width)


@kernel
def weight_gradient(left, right, result, table, images, begin, end):  # type: ignore[no-untyped-def]
    """Make the columns `begin` to `end` of the sum of products over images, one after the other."""
    for group in range(table[_GROUPS]):
        for row in range(table[_ROWS]):
            at = table[_RESULT] + group * table[_RESULT_GROUP] + row * table[_RESULT_ROW]
            result[at + begin : at + end] = 0
    at = table[_RESULT]
    for i in range(images):
        l_at, r_at = table[_LEFT] + i * table[_LEFT_IMAGE], table[_RIGHT] + i * table[_RIGHT_IMAGE]
        product(False, left, l_at, right, r_at, result, result, at, table, begin, end)


@kernel
def input_gradient(grad, n, weights, first, last, result):  # type: ignore[no-untyped-def]
    """result[i, j] = grad[i] . weights[j] for i < n, first <= j < last; both are multiples of `UNITS`."""
    for j in range(first, last, UNITS):
        unit_strip(UNITS, grad, 0, n, weights, j, result)


@kernel
def transpose_kernels(weights, transposed, first, last):  # type: ignore[no-untyped-def]
    """Turn places `first` to `last` of kernels by half a circle, and swap channels in and out.

    Both are (places, channels, channels); the last place comes first.
    """
    places, channels_in, channels_out = weights.shape
    for place in range(first, last):
        source, target = weights[place], transposed[places - 1 - place]
        # Blocks, so that both sides stay in the first-level cache.
        for top in range(0, channels_out, 16):
            for i in range(channels_in):
                row = source[i, top : top + 16]
                for o in range(row.size):
                    target[top + o, i] = row[o]
