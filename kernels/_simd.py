"""Vector code: what Numba's target can do, and the intrinsics that distances stand on.

`accumulate` is the register tile at the heart of every distance: `rows` x `vectors` accumulators, one
vector of points of Y against one value of X in all lanes per operation, as in a matrix product. It is one
emitter for every (metric, dtype) pair; a pair differs in three small functions, listed in `_TILES`.
`transpose` turns a square block of rows into the panels that the tile reads. `spread` puts the values of a
tile's rows of X into a row, each in as many copies as `copies` says.

Both are LLVM vector code, so the compiler chooses the instructions of its target; only `psadbw`, `pmaddwd`
and `vpdpbusd`, which no portable pattern reaches reliably, are asked for by name where the target has them.

Sums. A tile adds one column after the other to one accumulator per pair, and the caller adds up tiles
over chunks of columns. So the order of a pair's sum is fixed by the column count alone: the bits of a
distance do not depend on tile, block, batch or thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target

from ._jit import intrinsic

__all__ = [
    "KEYS_AT_ONCE",
    "Target",
    "TileShape",
    "accumulate",
    "accumulate_few",
    "below",
    "complete",
    "copies",
    "group",
    "has_own_step",
    "lowest_bit",
    "not_above_each",
    "own_steps",
    "own_terms",
    "spread",
    "square",
    "target",
    "tile_shape",
    "transpose",
]


class Target(NamedTuple):
    """What Numba compiles for; `vector_bytes` is the width of the widest register LLVM will use."""

    cpu: str
    vector_bytes: int
    features: frozenset[str]


@cache
def target() -> Target:
    """Ask the compiler, not the CPU: ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` may say less.

    A feature list can be empty although the CPU's name implies features, so the answer is read from
    the assembly of two probes.
    """
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    floats = _assembly(_PROBE, cpu, features)
    found = {"fma"} if "vfmadd" in floats or "fmla" in floats else set()
    if triple.startswith(("x86_64", "i686", "i386", "amd64")):
        integers = _assembly(_INTEGER_PROBE, cpu, features)
        found |= {"x86"} | {name for name, mark in (("avx2", "ymm"), ("avx512bw", "zmm")) if mark in integers}
        found |= {"vnni"} if "vpdpbusd" in _assembly(_DOT_PROBE, cpu, features) else set()
    return Target(cpu, _widest_register(floats), frozenset(found))


def _widest_register(assembly: str) -> int:
    return next((size for mark, size in (("zmm", 64), ("ymm", 32)) if mark in assembly), 16)


_PROBE = """
define void @probe(ptr %p, ptr %q) {
  %a = load <16 x float>, ptr %p, align 4
  %b = load <16 x float>, ptr %q, align 4
  %c = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %a)
  store <16 x float> %c, ptr %p, align 4
  ret void
}
declare <16 x float> @llvm.fmuladd.v16f32(<16 x float>, <16 x float>, <16 x float>)
"""

_INTEGER_PROBE = """
define void @probe(ptr %p, ptr %q) {
  %a = load <32 x i16>, ptr %p, align 2
  %b = load <32 x i16>, ptr %q, align 2
  %c = sub <32 x i16> %a, %b
  store <32 x i16> %c, ptr %p, align 2
  ret void
}
"""

_DOT_PROBE = """
define i32 @probe(ptr %p, ptr %q) {
  %a = load <64 x i8>, ptr %p, align 1
  %b = load <64 x i8>, ptr %q, align 1
  %x = zext <64 x i8> %a to <64 x i32>
  %y = sext <64 x i8> %b to <64 x i32>
  %m = mul <64 x i32> %x, %y
  %s = call i32 @llvm.vector.reduce.add.v64i32(<64 x i32> %m)
  ret i32 %s
}
declare i32 @llvm.vector.reduce.add.v64i32(<64 x i32>)
"""


def _assembly(source: str, cpu: str, features: str) -> str:
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=cpu, features=features, opt=2
    )
    return machine.emit_assembly(llvm.parse_assembly(source))


# ----------------------------------------------------------------------------------- tile shapes


class TileShape(NamedTuple):
    """`rows` of X times `vectors` vectors of points of Y; `lanes` points per vector."""

    rows: int
    vectors: int
    lanes: int

    @property
    def points(self) -> int:
        return self.vectors * self.lanes


def group(dtype: np.dtype[Any]) -> int:
    """Columns that one lane of a panel holds: one float, or eight bytes."""
    return 1 if dtype.kind == "f" else 8


@cache
def tile_shape(metric: str, dtype: np.dtype[Any]) -> TileShape:
    """Choose the tile so that accumulators, operands and temporaries fit the target's registers.

    x86 has 32 registers with AVX-512 and 16 without, Arm has 32. The shapes are measured: larger
    tiles spill, and smaller ones wait for loads or are unrolled by the compiler until they spill.
    """
    is_float = dtype.kind == "f"
    vector_bytes = target().vector_bytes if is_float else _integer_vector_bytes()
    by_products = metric == "l2" and own_steps(dtype) > 0
    if vector_bytes == 64:
        rows, vectors = (4, 6) if is_float else (4, 4)
    elif "x86" not in target().features:
        rows, vectors = 4, 4
    elif is_float and metric == "l2" and "fma" in target().features:
        rows, vectors = 6, 2
    else:
        rows, vectors = 4, 2
    point_bytes = dtype.itemsize if is_float else 16 if metric == "l2" and not by_products else 8
    return TileShape(rows, vectors, vector_bytes // point_bytes)


def own_steps(dtype: np.dtype[Any]) -> int:
    """How many steps a panel has beyond its columns: one, where squared distances of bytes are made from products.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x.y is exact in integers, and `vpdpbusd` makes 64 products at once. The step
    beyond the columns holds what depends on one row alone. It is there for every metric, since panels do not
    know what they are for.
    """
    return int(dtype.kind == "u" and "vnni" in target().features)


def _integer_vector_bytes() -> int:
    """AVX-512 without its byte and word part, and AVX without AVX2, have no wide integer operations."""
    features, width = target().features, target().vector_bytes
    if "x86" not in features:
        return width
    return 64 if "avx512bw" in features else 32 if "avx2" in features else 16


#: Keys that `below` compares in one go; a row of totals is padded to a multiple of it.
KEYS_AT_ONCE = 32


# --------------------------------------------------------------------------------- tile operations
#
# Each takes the builder, the accumulators, one value of X broadcast and a vector of Y, both in the
# panels' lane type, and returns the new accumulators.

Emit = Callable[..., ir.Value]


def _absolute_difference(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    difference = b.fsub(y, x)
    # Without a flag of its own an addition gets all those of the kernel, and may be reordered.
    return b.fadd(total, _call(b, "llvm.fabs", difference.type, difference), flags=("contract",))


def _squared_difference(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    difference = b.fsub(y, x)
    return _call(b, "llvm.fmuladd", difference.type, difference, difference, total)


def _largest_difference(b: ir.IRBuilder, largest: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """Compare magnitudes as integers: same order, and NaN, above infinity, wins without a branch."""
    bits = largest.type
    magnitude = b.and_(b.bitcast(b.fsub(y, x), bits), _splat_constant(bits, (1 << (bits.element.width - 1)) - 1))
    return _call(b, "llvm.smax", bits, largest, magnitude)


def _byte_differences(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    as_bytes = ir.VectorType(ir.IntType(8), x.type.count * 8)
    x, y = b.bitcast(x, as_bytes), b.bitcast(y, as_bytes)
    return b.sub(_call(b, "llvm.umax", as_bytes, x, y), _call(b, "llvm.umin", as_bytes, x, y))


def _sum_of_byte_differences(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    name = {2: "llvm.x86.sse2.psad.bw", 4: "llvm.x86.avx2.psad.bw", 8: "llvm.x86.avx512.psad.bw.512"}
    if "x86" in target().features:
        as_bytes = ir.VectorType(ir.IntType(8), x.type.count * 8)
        arguments = b.bitcast(x, as_bytes), b.bitcast(y, as_bytes)
        return b.add(total, _call_named(b, name[x.type.count], total.type, *arguments))
    return b.add(total, _sum_within_lanes(b, b.bitcast(_byte_differences(b, x, y), total.type)))


def _sum_within_lanes(b: ir.IRBuilder, lanes: ir.Value) -> ir.Value:
    """Add the eight bytes of each 64-bit lane, halving their number three times."""
    for width in (8, 16, 32):
        mask = sum(((1 << width) - 1) << at for at in range(0, 64, 2 * width))
        low, shift = _splat_constant(lanes.type, mask), _splat_constant(lanes.type, width)
        lanes = b.add(b.and_(lanes, low), b.and_(b.lshr(lanes, shift), low))
    return lanes


def _largest_byte_difference(b: ir.IRBuilder, largest: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    differences = _byte_differences(b, x, y)
    return b.bitcast(_call(b, "llvm.umax", differences.type, b.bitcast(largest, differences.type), differences), x.type)


def _sum_of_squared_byte_differences(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """Widen to 16 bits, square, and add two neighbours to each of a point's four 32-bit totals."""
    as_bytes, as_words = (ir.VectorType(ir.IntType(bits), x.type.count * 8) for bits in (8, 16))
    x, y = (b.zext(b.bitcast(side, as_bytes), as_words) for side in (x, y))
    words = b.sub(y, x)
    name = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}
    if "x86" in target().features:
        return b.add(total, _call_named(b, name[total.type.count], total.type, words, words))
    lanes, half = b.bitcast(words, total.type), _splat_constant(total.type, 16)
    high, low = b.ashr(lanes, half), b.ashr(b.shl(lanes, half), half)
    return b.add(total, b.add(b.mul(high, high), b.mul(low, low)))


def _sum_of_byte_products(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """Add y (x - 128) of four neighbours to each of a point's two 32-bit totals: `spread` took 128 from x."""
    name = {4: "llvm.x86.avx512.vpdpbusd.128", 8: "llvm.x86.avx512.vpdpbusd.256", 16: "llvm.x86.avx512.vpdpbusd.512"}
    arguments = b.bitcast(y, total.type), b.bitcast(x, total.type)
    return _call_named(b, name[total.type.count], total.type, total, *arguments)


def _sum_of_two(b: ir.IRBuilder, totals: ir.Value) -> ir.Value:
    return b.add(*(_shuffle(b, totals, totals, list(range(part, totals.type.count, 2))) for part in range(2)))


def _sum_of_four(b: ir.IRBuilder, totals: ir.Value) -> ir.Value:
    return _sum_of_two(b, _sum_of_two(b, totals))


def _largest_byte_of_lane(b: ir.IRBuilder, lanes: ir.Value) -> ir.Value:
    as_bytes = ir.VectorType(ir.IntType(8), lanes.type.count * 8)
    for shift in (32, 16, 8):
        moved = b.bitcast(b.lshr(lanes, _splat_constant(lanes.type, shift)), as_bytes)
        lanes = b.bitcast(_call(b, "llvm.umax", as_bytes, b.bitcast(lanes, as_bytes), moved), lanes.type)
    return b.and_(lanes, _splat_constant(lanes.type, 255))


def _add(b: ir.IRBuilder, old: ir.Value, new: ir.Value) -> ir.Value:
    return b.fadd(old, new, flags=("contract",)) if _is_float(old.type.element) else b.add(old, new)


def _larger(b: ir.IRBuilder, old: ir.Value, new: ir.Value) -> ir.Value:
    if not _is_float(old.type.element):
        return _call(b, "llvm.smax", old.type, old, new)
    bits = _bits_type(old.type)
    return b.bitcast(_call(b, "llvm.smax", bits, b.bitcast(old, bits), b.bitcast(new, bits)), old.type)


class _Tile(NamedTuple):
    """`step` adds a column (or a group), `close` reduces a point's accumulators, `merge` joins chunks."""

    step: Emit
    merge: Emit
    accumulators: Callable[[ir.VectorType], ir.VectorType] = lambda points: points
    close: Emit | None = None


def _bits_type(points: ir.VectorType) -> ir.VectorType:
    return ir.VectorType(ir.IntType(32 if isinstance(points.element, ir.FloatType) else 64), points.count)


def _two_totals_each(points: ir.VectorType) -> ir.VectorType:
    return ir.VectorType(ir.IntType(32), 2 * points.count)


def _four_totals_each(points: ir.VectorType) -> ir.VectorType:
    return ir.VectorType(ir.IntType(32), 4 * points.count)


_TILES: dict[tuple[str, str], _Tile] = {
    ("l1", "f"): _Tile(_absolute_difference, _add),
    ("l2", "f"): _Tile(_squared_difference, _add),
    ("linf", "f"): _Tile(_largest_difference, _larger, _bits_type),
    ("l1", "u"): _Tile(_sum_of_byte_differences, _add),
    ("l2", "u"): _Tile(_sum_of_squared_byte_differences, _add, _four_totals_each, _sum_of_four),
    ("linf", "u"): _Tile(_largest_byte_difference, _larger, close=_largest_byte_of_lane),
}

_PRODUCTS_OF_BYTES = _Tile(_sum_of_byte_products, _add, _two_totals_each, _sum_of_two)


def _tile(metric: str, dtype: np.dtype[Any]) -> _Tile:
    return _PRODUCTS_OF_BYTES if metric == "l2" and own_steps(dtype) else _TILES[metric, dtype.kind]


# ------------------------------------------------------------------------------------- intrinsics


def _has_own_step_twin(panels):  # type: ignore[no-untyped-def]
    return own_steps(panels.dtype) > 0


@intrinsic(twin=_has_own_step_twin)
def has_own_step(typingctx, panels):  # type: ignore[no-untyped-def]
    """Return whether panels of this dtype have a step beyond their columns: a constant of the compiled code."""

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        return ir.Constant(ir.IntType(1), own_steps(np.dtype(str(panels.dtype))))

    return types.boolean(panels), emit


@cache
def copies(metric: str, dtype: np.dtype[Any]) -> int:
    """How many lanes `spread` fills with each value of X: all lanes of a vector, or one.

    All, where to broadcast a value costs the units that add: without AVX it is a shuffle, and on Zen 4
    each 512-bit broadcast costs an addition (51 against 58 Gelem/s of squared differences). AVX and Arm
    broadcast while they load, and a copy more would only take room in the first-level cache.
    """
    loads_can_broadcast = target().vector_bytes == 32 or "x86" not in target().features
    return 1 if loads_can_broadcast else tile_shape(metric, dtype).lanes


def _spread_twin(metric, X, x_row, begin, steps, buffer):  # type: ignore[no-untyped-def]
    shape, columns, lanes = tile_shape(metric, X.dtype), group(X.dtype), copies(metric, X.dtype)
    rows = np.minimum(np.arange(x_row, x_row + shape.rows), len(X) - 1)
    x = X[rows, begin * columns : (begin + steps) * columns].reshape(shape.rows, steps, 1, columns)
    place = buffer[: steps * shape.rows * lanes * columns].reshape(steps, shape.rows, lanes, columns)
    place[...] = x.swapaxes(0, 1) ^ 128 if metric == "l2" and own_steps(X.dtype) else x.swapaxes(0, 1)


@intrinsic(twin=_spread_twin)
def spread(typingctx, metric, X, x_row, begin, steps, buffer):  # type: ignore[no-untyped-def]
    """Write some columns of a tile's rows of X, step by step, each value in so many `copies`.

    ``spread(metric, X, x_row, begin, steps, buffer)``: `metric` is a literal string; the rows of `X` (n, D)
    from `x_row` on (the last row stands in for those beyond it), from step `begin` on; a row is whole groups;
    `buffer` is flat.
    """
    if not isinstance(metric, types.StringLiteral):
        return None  # asked again with the literal
    result = types.void(metric, X, x_row, begin, steps, buffer)

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        name, dtype = metric.literal_value, np.dtype(str(X.dtype))
        rows = tile_shape(name, dtype).rows
        written = ir.VectorType(_lane_type(X.dtype, context), copies(name, dtype))
        x_rows = _rows(context, b, X, arguments[1], arguments[2], rows, written.element)
        start = _address(context, b, buffer, arguments[5], _int(0), written)
        with cgutils.for_range(b, arguments[4]) as loop:
            x_step = b.add(arguments[3], loop.index)
            for i in range(rows):
                value = _load(b, b.gep(x_rows[i], [x_step]))
                if name == "l2" and own_steps(dtype):
                    value = b.xor(value, ir.Constant(value.type, 0x8080808080808080))
                value = _splat(b, value, written)
                _store(b, value, b.gep(start, [b.add(b.mul(loop.index, _int(rows)), _int(i))]))
        return context.get_dummy_value()

    return result, emit


def _accumulate_twin(metric, spread_x, Y, y_at, steps, totals, row, column, first):  # type: ignore[no-untyped-def]
    shape, columns, lanes = tile_shape(metric, Y.dtype), group(Y.dtype), copies(metric, Y.dtype)
    x = spread_x[: steps * shape.rows * lanes * columns].reshape(steps, shape.rows, lanes, columns)
    x = x[:, :, :1].transpose(1, 2, 0, 3)
    y = Y[y_at:][: steps * shape.points * columns].reshape(steps, shape.points, columns).swapaxes(0, 1)
    if metric == "l2" and own_steps(Y.dtype):
        terms = y.astype(totals.dtype) * x.view(np.int8).astype(totals.dtype)
    else:
        terms = np.abs(y.astype(totals.dtype) - x.astype(totals.dtype)) ** (2 if metric == "l2" else 1)
    reduce = np.maximum if metric == "linf" else np.add
    tile = reduce.reduce(reduce.reduce(terms, axis=3), axis=2, initial=0)
    place = totals[row : row + shape.rows, column : column + shape.points]
    place[...] = tile if first else reduce(place, tile)


@intrinsic(twin=_accumulate_twin)
def accumulate(typingctx, metric, spread_x, Y, y_at, steps, totals, row, column, first):  # type: ignore[no-untyped-def]
    """Add `steps` columns (groups) of a few rows of X and one panel of Y to a tile of `totals`.

    ``accumulate(metric, spread_x, Y, y_at, steps, totals, row, column, first)``: `metric` is a literal string;
    `spread_x` is what `spread` wrote; `Y` is flat and packed, the chunk begins at `y_at`; ``totals[row:, column:]``
    is the corner of the tile; `first` says that its old content is void. Where panels have an own step, the
    squared distances of bytes lack what it holds: the totals are sums of y (x - 128).
    """
    if not isinstance(metric, types.StringLiteral):
        return None  # asked again with the literal
    result = types.void(metric, spread_x, Y, y_at, steps, totals, row, column, first)

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        name = metric.literal_value
        memory_type = context.get_data_type(totals.dtype)
        dtype = np.dtype(str(Y.dtype))
        rows, vectors, lanes = tile_shape(name, dtype)
        tile = _tile(name, dtype)
        vector = ir.VectorType(_lane_type(Y.dtype, context), lanes)
        written = ir.VectorType(vector.element, copies(name, dtype))
        accumulator = tile.accumulators(vector)

        sums = [cgutils.alloca_once(b, accumulator) for _ in range(rows * vectors)]
        for place in sums:
            b.store(ir.Constant(accumulator, None), place)

        x_start = _address(context, b, spread_x, arguments[1], _int(0), written)
        y_start = _address(context, b, Y, arguments[2], arguments[3], vector)
        with cgutils.for_range(b, arguments[4]) as loop:
            x_at, y_at = (b.mul(loop.index, _int(count)) for count in (rows, vectors))
            y_here = [_load(b, b.gep(y_start, [b.add(y_at, _int(j))])) for j in range(vectors)]
            for i in range(rows):
                x_here = _everywhere(b, _load(b, b.gep(x_start, [b.add(x_at, _int(i))])), vector)
                for j in range(vectors):
                    place = sums[i * vectors + j]
                    b.store(tile.step(b, b.load(place), x_here, y_here[j]), place)

        block = context.make_array(totals)(context, b, arguments[5])
        width = cgutils.unpack_tuple(b, block.shape, 2)[1]
        corner = b.add(b.mul(arguments[6], width), arguments[7])
        stored = ir.VectorType(memory_type, lanes)
        with b.if_else(arguments[8]) as (then, otherwise):
            for branch, merge in ((then, None), (otherwise, tile.merge)):
                with branch:
                    for i in range(rows):
                        for j in range(vectors):
                            value = _to_memory(b, tile, b.load(sums[i * vectors + j]), stored)
                            at = b.add(corner, b.add(b.mul(width, _int(i)), _int(j * lanes)))
                            place = b.bitcast(b.gep(block.data, [at]), stored.as_pointer())
                            _store(b, merge(b, _load(b, place), value) if merge else value, place)
        return context.get_dummy_value()

    return result, emit


def _accumulate_few_twin(metric, X, i, Y, places, begin, end, totals):  # type: ignore[no-untyped-def]
    terms = np.abs(Y[places, begin:end] - X[i, begin:end]) ** (2 if metric == "l2" else 1)
    reduce = np.maximum if metric == "linf" else np.add
    chunk = reduce.reduce(terms, axis=1, initial=0)
    totals[:] = reduce(totals, chunk) if begin else chunk


@intrinsic(twin=_accumulate_few_twin)
def accumulate_few(typingctx, metric, X, i, Y, places, begin, end, totals):  # type: ignore[no-untyped-def]
    """Add the columns ``begin:end`` of row i of X and of a vector of scattered rows of Y to `totals`.

    ``accumulate_few(metric, X, i, Y, places, begin, end, totals)``: `metric` is a literal string; `places` are
    ``square(dtype)`` rows of Y; floats only. The same operations in the same order as of `accumulate`, with
    its chunk: the same bits. The old content of `totals` is void where `begin` is 0.
    """
    if not isinstance(metric, types.StringLiteral):
        return None  # asked again with the literal
    result = types.void(metric, X, i, Y, places, begin, end, totals)

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        dtype = np.dtype(str(Y.dtype))
        lanes, tile = square(dtype), _tile(metric.literal_value, dtype)
        vector = ir.VectorType(_lane_type(Y.dtype, context), lanes)
        _, _, _, _, _, first, end, _ = arguments
        columns = cgutils.unpack_tuple(b, context.make_array(Y)(context, b, arguments[3]).shape, 2)[1]
        x = _address(context, b, X, arguments[1], b.mul(arguments[2], columns), vector.element)
        starts = _address(context, b, places, arguments[4], _int(0), cgutils.intp_t)
        rows = []
        for lane in range(lanes):
            row = b.load(b.gep(starts, [_int(lane)]))
            rows.append(_address(context, b, Y, arguments[3], b.mul(row, columns), vector.element))
        accumulator = tile.accumulators(vector)
        total = cgutils.alloca_once(b, accumulator)
        b.store(ir.Constant(accumulator, None), total)

        def add(column: ir.Value, y_here: ir.Value) -> None:
            x_here = _splat(b, _load(b, b.gep(x, [column])), vector)
            b.store(tile.step(b, b.load(total), x_here, y_here), total)

        squares = b.sdiv(b.sub(end, first), _int(lanes))
        with cgutils.for_range(b, squares) as loop:
            column = b.add(first, b.mul(loop.index, _int(lanes)))
            turned = [_load(b, b.bitcast(b.gep(row, [column]), vector.as_pointer())) for row in rows]
            _transpose(b, turned)
            for step in range(lanes):
                add(b.add(column, _int(step)), turned[step])
        with cgutils.for_range_slice(b, b.add(first, b.mul(squares, _int(lanes))), end, _int(1), cgutils.intp_t) as (
            column,
            _,
        ):
            y_here = ir.Constant(vector, ir.Undefined)
            for lane in range(lanes):
                y_here = b.insert_element(y_here, _load(b, b.gep(rows[lane], [column])), ir.IntType(32)(lane))
            add(column, y_here)

        stored = ir.VectorType(vector.element, lanes)
        place = _address(context, b, totals, arguments[7], _int(0), stored)
        value = _to_memory(b, tile, b.load(total), stored)
        with b.if_else(b.icmp_signed("==", first, _int(0))) as (then, otherwise):
            with then:
                _store(b, value, place)
            with otherwise:
                _store(b, tile.merge(b, _load(b, place), value), place)
        return context.get_dummy_value()

    return result, emit


def _own_terms_twin(panels, at, stride, steps):  # type: ignore[no-untyped-def]
    lanes = square(panels.dtype)
    columns = np.lib.stride_tricks.as_strided(panels[at:], (steps, lanes, 8), (stride, 8, 1)).astype(np.int64)
    place = at + steps * stride
    panels[place : place + 8 * lanes].view(np.int64)[:] = (columns * (columns - 256)).sum(axis=(0, 2))


@intrinsic(twin=_own_terms_twin)
def own_terms(typingctx, panels, at, stride, steps):  # type: ignore[no-untyped-def]
    """Write what of squared distances of bytes depends on the point alone behind a panel's steps.

    ``own_terms(panels, at, stride, steps)``: ``square(uint8)`` points from the place `at` on, steps `stride` bytes
    apart; a point's term is the sum of y (y - 256), see `complete`. Of other panels it is nothing.
    """
    result = types.void(panels, at, stride, steps)

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        dtype = np.dtype(str(panels.dtype))
        if own_steps(dtype):
            vector = ir.VectorType(ir.IntType(64), square(dtype))
            zero = ir.Constant(_two_totals_each(vector), None)
            signs, half = _splat_constant(vector, 0x8080808080808080), _splat_constant(vector, 32)
            place = cgutils.alloca_once_value(b, ir.Constant(vector, None))
            with cgutils.for_range(b, arguments[3]) as loop:
                step_at = b.add(arguments[1], b.mul(loop.index, arguments[2]))
                y = _load(b, _address(context, b, panels, arguments[0], step_at, vector))
                # y (y - 128) and -128 y, since one factor has a sign.
                value = _sum_of_byte_products(b, zero, b.xor(y, signs), y)
                value = b.bitcast(_sum_of_byte_products(b, value, signs, y), vector)
                value = b.add(b.ashr(value, half), b.ashr(b.shl(value, half), half))
                b.store(b.add(b.load(place), value), place)
            end = b.add(arguments[1], b.mul(arguments[3], arguments[2]))
            _store(b, b.load(place), _address(context, b, panels, arguments[0], end, vector))
        return context.get_dummy_value()

    return result, emit


def _complete_twin(X, x_at, Y, y_at, points, totals, row, column):  # type: ignore[no-untyped-def]
    own_x = X.reshape(-1)[x_at : x_at + 8].view(np.int64)
    own_y = Y[y_at : y_at + 8 * points].view(np.int64)
    place = totals[row, column : column + points]
    place[...] = own_x + own_y - 2 * place.astype(np.int64)


@intrinsic(twin=_complete_twin)
def complete(typingctx, X, x_at, Y, y_at, points, totals, row, column):  # type: ignore[no-untyped-def]
    """Make squared distances of bytes from sums of products, for a row of X and a panel.

    ``complete(X, x_at, Y, y_at, points, totals, row, column)``: at `x_at` is the row's sum of x^2, from `y_at` on
    are the points' sums of y (y - 256), and from ``totals[row, column]`` on the sums of y (x - 128). The sum of
    (x - y)^2 = x^2 + y (y - 256) - 2 y (x - 128) is an exact integer. Of other panels it does nothing.
    """
    result = types.void(X, x_at, Y, y_at, points, totals, row, column)

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        if own_steps(np.dtype(str(Y.dtype))):
            lanes = square(np.dtype(str(Y.dtype)))
            vector = ir.VectorType(ir.IntType(64), lanes)
            stored = ir.VectorType(context.get_data_type(totals.dtype), lanes)
            block = context.make_array(totals)(context, b, arguments[5])
            corner = b.add(b.mul(arguments[6], cgutils.unpack_tuple(b, block.shape, 2)[1]), arguments[7])
            own_x = _splat(b, _load(b, _address(context, b, X, arguments[0], arguments[1], vector.element)), vector)
            own_x, one = _fit(b, own_x, stored), _splat_constant(stored, 1)
            y_start = _address(context, b, Y, arguments[2], arguments[3], vector)
            with cgutils.for_range(b, b.sdiv(arguments[4], _int(lanes))) as loop:
                own_y = _fit(b, _load(b, b.gep(y_start, [loop.index])), stored)
                at = b.add(corner, b.mul(loop.index, _int(lanes)))
                place = b.bitcast(b.gep(block.data, [at]), stored.as_pointer())
                _store(b, b.sub(b.add(own_x, own_y), b.shl(_load(b, place), one)), place)
        return context.get_dummy_value()

    return result, emit


def _transpose_twin(source, source_at, stride, panel, panel_at, panel_stride):  # type: ignore[no-untyped-def]
    columns, size = group(panel.dtype), square(panel.dtype)
    flat = source.reshape(-1)
    for row in range(size):
        for step in range(size):
            begin, end = source_at + row * stride + step * columns, panel_at + step * panel_stride + row * columns
            panel[end : end + columns] = flat[begin : begin + columns]


@intrinsic(twin=_transpose_twin)
def transpose(typingctx, source, source_at, stride, panel, panel_at, panel_stride):  # type: ignore[no-untyped-def]
    """Copy a square of lanes from rows of `source` into a panel, turned over its diagonal.

    ``transpose(source, source_at, stride, panel, panel_at, panel_stride)``: C-contiguous arrays of one
    dtype; places and strides count elements; the square has ``square(dtype)`` lanes a side.
    """
    result = types.void(source, source_at, stride, panel, panel_at, panel_stride)

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        size = square(np.dtype(str(panel.dtype)))
        vector = ir.VectorType(_lane_type(panel.dtype, context), size)
        ahead = b.mul(arguments[2], _int(size))
        rows = []
        for row in range(size):
            at = b.add(arguments[1], b.mul(arguments[2], _int(row)))
            rows.append(_load(b, _address(context, b, source, arguments[0], at, vector)))
            _prefetch(b, _address(context, b, source, arguments[0], b.add(at, ahead), vector))
        _transpose(b, rows)
        for step in range(size):
            at = b.add(arguments[4], b.mul(arguments[5], _int(step)))
            _store(b, rows[step], _address(context, b, panel, arguments[3], at, vector))
        return context.get_dummy_value()

    return result, emit


def square(dtype: np.dtype[Any]) -> int:
    """Rows, and lanes of a row, of the square that `transpose` turns: a vector register's lanes."""
    return target().vector_bytes // (group(dtype) * dtype.itemsize)


def _below_twin(keys, at, threshold, mask, ceiling):  # type: ignore[no-untyped-def]
    below = np.minimum(keys[at : at + KEYS_AT_ONCE] & mask, ceiling) < threshold
    return sum(1 << int(lane) for lane in np.flatnonzero(below))


@intrinsic(twin=_below_twin)
def below(typingctx, keys, at, threshold, mask, ceiling):  # type: ignore[no-untyped-def]
    """Return which of 32 keys are below a threshold, as the bits of an integer.

    ``below(keys, at, threshold, mask, ceiling)`` compares ``min(key & mask, ceiling)``, lane 0 in the lowest bit.
    """

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        canonical = _canonical_keys(context, b, keys, *arguments[:2], *arguments[3:])
        return _lanes_as_bits(b, b.icmp_signed("<", canonical, _splat_key(b, arguments[2], canonical.type)))

    return types.int64(keys, types.intp, types.int64, types.int64, types.int64), emit


def _not_above_each_twin(keys, at, limits, limits_at, mask, ceiling):  # type: ignore[no-untyped-def]
    canonical = np.minimum(keys[at : at + KEYS_AT_ONCE] & mask, ceiling)
    within = canonical <= limits[limits_at : limits_at + KEYS_AT_ONCE]
    return sum(1 << int(lane) for lane in np.flatnonzero(within))


@intrinsic(twin=_not_above_each_twin)
def not_above_each(typingctx, keys, at, limits, limits_at, mask, ceiling):  # type: ignore[no-untyped-def]
    """Return which of 32 keys are not above a limit of their own, as the bits of an integer.

    ``not_above_each(keys, at, limits, limits_at, mask, ceiling)``: as `below`; lane i is compared with
    ``limits[limits_at + i]``, of the keys' dtype.
    """

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        canonical = _canonical_keys(context, b, keys, *arguments[:2], *arguments[4:])
        own = _load(b, _address(context, b, limits, arguments[2], arguments[3], canonical.type))
        return _lanes_as_bits(b, b.icmp_signed("<=", canonical, own))

    return types.int64(keys, types.intp, limits, types.intp, types.int64, types.int64), emit


def _canonical_keys(
    context: Any, b: ir.IRBuilder, keys: Any, value: ir.Value, at: ir.Value, mask: ir.Value, ceiling: ir.Value
) -> ir.Value:
    """Load 32 keys, without their signs and with one key for every NaN."""
    vector = ir.VectorType(context.get_data_type(keys.dtype), KEYS_AT_ONCE)
    loaded = _load(b, _address(context, b, keys, value, at, vector))
    return _call(b, "llvm.smin", vector, b.and_(loaded, _splat_key(b, mask, vector)), _splat_key(b, ceiling, vector))


def _splat_key(b: ir.IRBuilder, value: ir.Value, vector: ir.VectorType) -> ir.Value:
    return _splat(b, b.trunc(value, vector.element) if value.type != vector.element else value, vector)


def _lanes_as_bits(b: ir.IRBuilder, lanes: ir.Value) -> ir.Value:
    return b.zext(b.bitcast(lanes, ir.IntType(KEYS_AT_ONCE)), ir.IntType(64))


def _lowest_bit_twin(bits):  # type: ignore[no-untyped-def]
    return (int(bits) & -int(bits)).bit_length() - 1


@intrinsic(twin=_lowest_bit_twin)
def lowest_bit(typingctx, bits):  # type: ignore[no-untyped-def]
    """Return the place of the lowest set bit of a 64-bit integer that is not 0."""

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        return b.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), emit


def _transpose(b: ir.IRBuilder, rows: list[ir.Value]) -> None:
    """Turn a square of lanes over its diagonal, in place."""
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
    return _shuffle(b, upper, lower, first), _shuffle(b, upper, lower, second)


# ------------------------------------------------------------------------------- LLVM, for short


def _is_float(kind: ir.Type) -> bool:
    return isinstance(kind, (ir.FloatType, ir.DoubleType))


def _lane_type(dtype: types.Type, context: Any) -> ir.Type:
    """Return a float, or a group of eight bytes taken as one integer."""
    return ir.IntType(64) if dtype == types.uint8 else context.get_data_type(dtype)


def _int(value: int) -> ir.Constant:
    return ir.Constant(cgutils.intp_t, value)


def _splat_constant(vector: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(vector, [value] * vector.count)


def _shuffle(b: ir.IRBuilder, first: ir.Value, second: ir.Value, lanes: list[int]) -> ir.Value:
    return b.shuffle_vector(first, second, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def _splat(b: ir.IRBuilder, value: ir.Value, vector: ir.VectorType) -> ir.Value:
    empty = ir.Constant(vector, ir.Undefined)
    return _shuffle(b, b.insert_element(empty, value, ir.Constant(ir.IntType(32), 0)), empty, [0] * vector.count)


def _everywhere(b: ir.IRBuilder, values: ir.Value, vector: ir.VectorType) -> ir.Value:
    """Return the vector that holds the first of `values` in all lanes; it may be `values`."""
    if values.type.count == vector.count:
        return values
    return _shuffle(b, values, ir.Constant(values.type, ir.Undefined), [0] * vector.count)


def _address(context: Any, b: ir.IRBuilder, array: Any, value: ir.Value, at: ir.Value, kind: ir.Type) -> ir.Value:
    data = context.make_array(array)(context, b, value).data
    return b.bitcast(b.gep(data, [at]), kind.as_pointer())


def _rows(
    context: Any, b: ir.IRBuilder, array: Any, value: ir.Value, first: ir.Value, count: int, kind: ir.Type
) -> list[ir.Value]:
    """Return pointers to `count` rows; the last row stands in for those beyond it."""
    rows, columns = cgutils.unpack_tuple(b, context.make_array(array)(context, b, value).shape, 2)
    last = b.sub(rows, _int(1))
    pointers = []
    for i in range(count):
        row = b.add(first, _int(i))
        row = b.select(b.icmp_signed("<", row, last), row, last)
        pointers.append(_address(context, b, array, value, b.mul(row, columns), kind))
    return pointers


def _prefetch(b: ir.IRBuilder, place: ir.Value) -> None:
    """Ask for the cache line at `place`, which need not exist."""
    byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
    function = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
    arguments = [b.bitcast(place, byte), flag(0), flag(2), flag(1)]  # read, keep in the second level, data
    b.call(cgutils.get_or_insert_function(b.module, function, "llvm.prefetch.p0"), arguments)


def _element_bytes(place: ir.Value) -> int:
    """Alignment to claim: an element's, since nothing says that an array starts at a vector's."""
    element = getattr(place.type.pointee, "element", place.type.pointee)
    return {ir.FloatType: 4, ir.DoubleType: 8}.get(type(element)) or element.width // 8


def _load(b: ir.IRBuilder, place: ir.Value) -> ir.Value:
    return b.load(place, align=1 if _is_packed(place) else _element_bytes(place))


def _store(b: ir.IRBuilder, value: ir.Value, place: ir.Value) -> None:
    b.store(value, place, align=1 if _is_packed(place) else _element_bytes(place))


def _is_packed(place: ir.Value) -> bool:
    """Integer lanes are groups of smaller elements, so they may start anywhere."""
    element = getattr(place.type.pointee, "element", place.type.pointee)
    return isinstance(element, ir.IntType)


def _to_memory(b: ir.IRBuilder, tile: _Tile, value: ir.Value, stored: ir.VectorType) -> ir.Value:
    if tile.close is not None:
        value = tile.close(b, value)
    if _is_float(stored.element):
        return b.bitcast(value, stored)
    return _fit(b, value, stored)


def _fit(b: ir.IRBuilder, value: ir.Value, kind: ir.VectorType) -> ir.Value:
    """Return integers of another width, with their signs."""
    if value.type.element.width > kind.element.width:
        return b.trunc(value, kind)
    return b.sext(value, kind) if value.type.element.width < kind.element.width else value


def _call(b: ir.IRBuilder, name: str, kind: ir.VectorType, *arguments: ir.Value) -> ir.Value:
    """Call an intrinsic that LLVM has for every vector type."""
    element = {ir.FloatType: "f32", ir.DoubleType: "f64"}.get(type(kind.element)) or f"i{kind.element.width}"
    return _call_named(b, f"{name}.v{kind.count}{element}", kind, *arguments)


def _call_named(b: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return b.call(cgutils.get_or_insert_function(b.module, function, name), arguments)
