"""The formulas of the metrics, compiled: what a tile does for a pair of columns, and how its totals end.

`_TILES` has for each metric and kind of dtype the function that adds a column, in LLVM code; floats come first in this
file, bytes after them. `_TILES_ALONE` has those of `arguments.VARIANTS`, which are compiled by themselves. `STEPS` and
`COMBINATIONS` say the same in NumPy, for the twins of `tiles`. Another metric is another entry of these tables (and of
`arguments.METRICS`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from ..runtime.target import target
from ..simd.llvm import call, call_for_vector, constant_vector, is_float, shuffle
from .tile_shapes import BITS, norm_steps

# Each takes the builder, the accumulators, one value of X broadcast and a vector of Y, both in the
# panels' lane type, and returns the new accumulators.
Emit = Callable[..., ir.Value]


def _absolute_difference(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    difference = b.fsub(y, x)
    # Without a flag of its own an addition gets all those of the kernel, and may be reordered.
    return b.fadd(total, call_for_vector(b, "llvm.fabs", difference.type, difference), flags=("contract",))


def _squared_difference(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    difference = b.fsub(y, x)
    return call_for_vector(b, "llvm.fmuladd", difference.type, difference, difference, total)


def _largest_difference(b: ir.IRBuilder, largest: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """Compare magnitudes as integers: same order, and NaN, above infinity, wins without a branch."""
    bits = largest.type
    if "neon" in target().features and bits.element.width == 64:
        # It has no maximum of such integers, but one of floats in which NaN wins.
        magnitude = call_for_vector(b, "llvm.fabs", y.type, b.fsub(y, x))
        return b.bitcast(call_for_vector(b, "llvm.maximum", y.type, b.bitcast(largest, y.type), magnitude), bits)
    magnitude = b.and_(b.bitcast(b.fsub(y, x), bits), constant_vector(bits, (1 << (bits.element.width - 1)) - 1))
    return call_for_vector(b, "llvm.smax", bits, largest, magnitude)


def _byte_differences(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    as_bytes = ir.VectorType(ir.IntType(8), x.type.count * 8)
    x, y = b.bitcast(x, as_bytes), b.bitcast(y, as_bytes)
    return b.sub(call_for_vector(b, "llvm.umax", as_bytes, x, y), call_for_vector(b, "llvm.umin", as_bytes, x, y))


def _sum_of_byte_differences(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    name = {2: "llvm.x86.sse2.psad.bw", 4: "llvm.x86.avx2.psad.bw", 8: "llvm.x86.avx512.psad.bw.512"}
    if "x86" in target().features:
        as_bytes = ir.VectorType(ir.IntType(8), x.type.count * 8)
        arguments = b.bitcast(x, as_bytes), b.bitcast(y, as_bytes)
        return b.add(total, call(b, name[x.type.count], total.type, *arguments))
    return b.add(total, _sum_of_bytes_in_lanes(b, b.bitcast(_byte_differences(b, x, y), total.type)))


def _sum_of_bytes_in_lanes(b: ir.IRBuilder, lanes: ir.Value) -> ir.Value:
    """Add the eight bytes of each 64-bit lane, halving their number three times."""
    for width in (8, 16, 32):
        mask = sum(((1 << width) - 1) << at for at in range(0, 64, 2 * width))
        low, shift = constant_vector(lanes.type, mask), constant_vector(lanes.type, width)
        lanes = b.add(b.and_(lanes, low), b.and_(b.lshr(lanes, shift), low))
    return lanes


def _largest_byte_difference(b: ir.IRBuilder, largest: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    differences = _byte_differences(b, x, y)
    return b.bitcast(
        call_for_vector(b, "llvm.umax", differences.type, b.bitcast(largest, differences.type), differences), x.type
    )


def _as_words(b: ir.IRBuilder, lanes: ir.Value) -> ir.Value:
    as_bytes, as_words = (ir.VectorType(ir.IntType(bits), lanes.type.count * 8) for bits in (8, 16))
    return b.zext(b.bitcast(lanes, as_bytes), as_words)


def _sum_of_word_products(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """Add y x of two neighbours, words of 16 bits, to each of a point's four 32-bit totals."""
    name = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}
    return b.add(total, call(b, name[total.type.count], total.type, x, y))


def _sum_of_byte_products_as_words(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    return _sum_of_word_products(b, total, _as_words(b, x), _as_words(b, y))


def _sum_of_squared_byte_differences(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """Widen to 16 bits, square, and add two neighbours to each of a point's four 32-bit totals."""
    words = b.sub(_as_words(b, y), _as_words(b, x))
    if "x86" in target().features:
        return _sum_of_word_products(b, total, words, words)
    lanes, half = b.bitcast(words, total.type), constant_vector(total.type, 16)
    high, low = b.ashr(lanes, half), b.ashr(b.shl(lanes, half), half)
    return b.add(total, b.add(b.mul(high, high), b.mul(low, low)))


def _sum_of_byte_products(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """Add y x of four neighbours, bytes without and with a sign, to each of a point's two 32-bit totals."""
    name = {4: "llvm.x86.avx512.vpdpbusd.128", 8: "llvm.x86.avx512.vpdpbusd.256", 16: "llvm.x86.avx512.vpdpbusd.512"}
    arguments = b.bitcast(y, total.type), b.bitcast(x, total.type)
    return call(b, name[total.type.count], total.type, total, *arguments)


def _sum_of_halved_products(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """Add y x of two neighbours in 16 bits, and two such sums to each of a point's two 32-bit totals."""
    multiply = {8: "llvm.x86.avx2.pmadd.ub.sw", 16: "llvm.x86.avx512.pmaddubs.w.512"}
    add = {8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}
    as_bytes, as_words = (ir.VectorType(ir.IntType(bits), 4 * total.type.count * 8 // bits) for bits in (8, 16))
    pairs = call(b, multiply[total.type.count], as_words, b.bitcast(y, as_bytes), b.bitcast(x, as_bytes))
    return b.add(total, call(b, add[total.type.count], total.type, pairs, constant_vector(as_words, 1)))


def _dot_of_bytes(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """Add the products of four neighbours, bytes without a sign, to each total: Arm's `udot`."""
    as_bytes = ir.VectorType(ir.IntType(8), 4 * total.type.count)
    arguments = b.bitcast(x, as_bytes), b.bitcast(y, as_bytes)
    return call(b, "llvm.aarch64.neon.udot.v4i32.v16i8", total.type, total, *arguments)


def _sum_of_byte_differences_by_dot(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    differences = _byte_differences(b, x, y)
    return _dot_of_bytes(b, total, differences, constant_vector(differences.type, 1))


def _sum_of_squared_byte_differences_by_dot(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    differences = _byte_differences(b, x, y)
    return _dot_of_bytes(b, total, differences, differences)


def _add_neighbors(b: ir.IRBuilder, total: ir.Value, values: ir.Value) -> ir.Value:
    """Add two neighbours, half as wide, to each total: Arm's `uadalp`."""
    name = f"llvm.aarch64.neon.uaddlp.v{total.type.count}{total.type.element}.v{values.type.count}{values.type.element}"
    return b.add(total, call(b, name, total.type, values))


def _sum_of_byte_differences_on_arm(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    as_words = ir.VectorType(ir.IntType(16), 2 * total.type.count)
    words = _add_neighbors(b, ir.Constant(as_words, None), _byte_differences(b, x, y))
    return _add_neighbors(b, total, words)


def _sum_of_squared_byte_differences_on_arm(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    words = b.zext(_byte_differences(b, x, y), ir.VectorType(ir.IntType(16), 2 * total.type.count))
    return _add_neighbors(b, total, b.mul(words, words))


def _add_pairs(b: ir.IRBuilder, totals: ir.Value) -> ir.Value:
    return b.add(*(shuffle(b, totals, totals, list(range(part, totals.type.count, 2))) for part in range(2)))


def _add_fours(b: ir.IRBuilder, totals: ir.Value) -> ir.Value:
    return _add_pairs(b, _add_pairs(b, totals))


def _largest_byte_of_lane(b: ir.IRBuilder, lanes: ir.Value) -> ir.Value:
    as_bytes = ir.VectorType(ir.IntType(8), lanes.type.count * 8)
    for shift in (32, 16, 8):
        moved = b.bitcast(b.lshr(lanes, constant_vector(lanes.type, shift)), as_bytes)
        lanes = b.bitcast(call_for_vector(b, "llvm.umax", as_bytes, b.bitcast(lanes, as_bytes), moved), lanes.type)
    return b.and_(lanes, constant_vector(lanes.type, 255))


def _add(b: ir.IRBuilder, old: ir.Value, new: ir.Value) -> ir.Value:
    return b.fadd(old, new, flags=("contract",)) if is_float(old.type.element) else b.add(old, new)


def _larger(b: ir.IRBuilder, old: ir.Value, new: ir.Value) -> ir.Value:
    if not is_float(old.type.element):
        return call_for_vector(b, "llvm.smax", old.type, old, new)
    bits = _as_bits(old.type)
    return b.bitcast(call_for_vector(b, "llvm.smax", bits, b.bitcast(old, bits), b.bitcast(new, bits)), old.type)


def _product(b: ir.IRBuilder, total: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    return call_for_vector(b, "llvm.fmuladd", y.type, x, y, total)


def _to_bits(b: ir.IRBuilder, totals: ir.Value) -> ir.Value:
    return b.bitcast(totals, _as_bits(totals.type))


def _add_floats_in_bits(b: ir.IRBuilder, old: ir.Value, new: ir.Value) -> ir.Value:
    floats = ir.VectorType(ir.FloatType() if old.type.element.width == 32 else ir.DoubleType(), old.type.count)
    return b.bitcast(_add(b, b.bitcast(old, floats), b.bitcast(new, floats)), old.type)


def _bytes_of(lanes: ir.VectorType) -> ir.VectorType:
    return ir.VectorType(ir.IntType(8), 8 * lanes.count)


def _count_bits(b: ir.IRBuilder, lanes: ir.Value) -> ir.Value:
    """Count the bits of each byte, which LLVM does by `vpopcntb`, Arm's `cnt`, or a table that `vpshufb` looks up."""
    return call_for_vector(b, "llvm.ctpop", _bytes_of(lanes.type), b.bitcast(lanes, _bytes_of(lanes.type)))


def _differing_bits(b: ir.IRBuilder, counts: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    return b.add(counts, _count_bits(b, b.xor(x, y)))


def _sum_of_counts(b: ir.IRBuilder, counts: ir.Value) -> ir.Value:
    lanes = ir.VectorType(ir.IntType(64), counts.type.count // 8)
    if "x86" in target().features:
        zeros = ir.Constant(lanes, None)
        return _sum_of_byte_differences(b, zeros, b.bitcast(counts, lanes), zeros)
    return _sum_of_bytes_in_lanes(b, b.bitcast(counts, lanes))


def _differing_and_joined_bits(b: ir.IRBuilder, counts: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    differing, joined = _count_bits(b, b.xor(x, y)), _count_bits(b, b.or_(x, y))
    return b.add(counts, shuffle(b, differing, joined, list(range(counts.type.count))))


def _sums_of_both_counts(b: ir.IRBuilder, counts: ir.Value) -> ir.Value:
    """Return the differing bits of each point above its joined bits, in one number."""
    half = counts.type.count // 2
    differing, joined = (
        _sum_of_counts(b, shuffle(b, counts, counts, list(range(first, first + half)))) for first in (0, half)
    )
    return b.or_(b.shl(differing, constant_vector(differing.type, 32)), joined)


def _add_both_counts(b: ir.IRBuilder, old: ir.Value, new: ir.Value) -> ir.Value:
    bits = _as_bits(old.type)
    return b.bitcast(b.add(b.bitcast(old, bits), b.bitcast(new, bits)), old.type)


class Tile(NamedTuple):
    """`step` adds a column (or a group), `close` reduces a point's accumulators, `merge` joins chunks."""

    step: Emit
    merge: Emit
    accumulators: Callable[[ir.VectorType], ir.VectorType] = lambda points: points
    close: Emit | None = None


def _as_bits(points: ir.VectorType) -> ir.VectorType:
    """Return integers as wide as floats."""
    return ir.VectorType(ir.IntType(32 if isinstance(points.element, ir.FloatType) else 64), points.count)


def two_totals_each(points: ir.VectorType) -> ir.VectorType:
    """Return two 32-bit totals for each point."""
    return ir.VectorType(ir.IntType(32), 2 * points.count)


def _four_totals_each(points: ir.VectorType) -> ir.VectorType:
    return ir.VectorType(ir.IntType(32), 4 * points.count)


_TILES: dict[tuple[str, str], Tile] = {
    ("l1", "f"): Tile(_absolute_difference, _add),
    ("l2", "f"): Tile(_squared_difference, _add),
    ("linf", "f"): Tile(_largest_difference, _larger, _as_bits),
    ("l1", "u"): Tile(_sum_of_byte_differences, _add),
    ("l2", "u"): Tile(_sum_of_squared_byte_differences, _add, _four_totals_each, _add_fours),
    ("linf", "u"): Tile(_largest_byte_difference, _larger, close=_largest_byte_of_lane),
    ("l2", "i"): Tile(_sum_of_halved_products, _add, two_totals_each, _add_pairs),
}

#: Squared distances of bytes from products, by the feature that the target must have; the first that it has counts.
_PRODUCTS_OF_BYTES = {
    "vnni": Tile(_sum_of_byte_products, _add, two_totals_each, _add_pairs),
    "dotprod": Tile(_dot_of_bytes, _add, two_totals_each, _add_pairs),
    "x86": Tile(_sum_of_byte_products_as_words, _add, _four_totals_each, _add_fours),
}

#: Differences of bytes on Arm, by the feature that the target must have; the first that it has counts.
_BYTES_ON_ARM = {
    ("dotprod", "l1"): Tile(_sum_of_byte_differences_by_dot, _add, two_totals_each, _add_pairs),
    ("dotprod", "l2"): Tile(_sum_of_squared_byte_differences_by_dot, _add, two_totals_each, _add_pairs),
    ("neon", "l1"): Tile(_sum_of_byte_differences_on_arm, _add, two_totals_each, _add_pairs),
    ("neon", "l2"): Tile(_sum_of_squared_byte_differences_on_arm, _add, _four_totals_each, _add_fours),
}


#: Metrics that are compiled by themselves: of floats with integers for totals, and of groups of bits.
_TILES_ALONE = {
    "inner_product": Tile(_product, _add_floats_in_bits, close=_to_bits),
    "hamming": Tile(_differing_bits, _add, _bytes_of, _sum_of_counts),
    "jaccard": Tile(
        _differing_and_joined_bits,
        _add_both_counts,
        lambda points: ir.VectorType(ir.IntType(8), 16 * points.count),
        _sums_of_both_counts,
    ),
}


def _bit_counts(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bitwise_count(groups.view(np.uint64)).astype(np.int64)


#: What a column contributes, in NumPy, by `arguments.MetricDefinition.step`.
STEPS: dict[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]] = {
    "difference": lambda x, y: np.abs(y - x),
    "square": lambda x, y: np.square(y - x),
    "product": lambda x, y: x * y,
    "differing bits": lambda x, y: _bit_counts(x ^ y),
    "differing and joined bits": lambda x, y: (_bit_counts(x ^ y) << 32) + _bit_counts(x | y),
}

COMBINATIONS: dict[str, np.ufunc] = {"sum": np.add, "maximum": np.maximum}


def tile_of(metric: str, dtype: np.dtype[Any]) -> Tile:
    """Return what a tile of a metric does with rows of a dtype, on the target."""
    if metric in _TILES_ALONE:
        return _TILES_ALONE[metric]
    if metric == "l2" and dtype.kind == "u" and norm_steps(dtype):
        return next(tile for feature, tile in _PRODUCTS_OF_BYTES.items() if feature in target().features)
    return differences_of_bytes(metric) if dtype.kind == "u" else _TILES[metric, dtype.kind]


def differences_of_bytes(metric: str) -> Tile:
    """Return what a tile of bytes does without products, which scattered rows do not have."""
    for (feature, name), tile in _BYTES_ON_ARM.items():
        if name == metric and feature in target().features:
            return tile
    return _TILES[metric, "u"]


def metrics_of(dtype: np.dtype[Any], totals: np.dtype[Any]) -> list[str]:
    """Return the metrics that have tiles for rows of a dtype, with totals of another: some together, or one alone."""
    if dtype == BITS:
        return ["hamming" if totals.kind == "i" else "jaccard"]
    if dtype.kind == "f" and totals.kind == "i":
        return ["inner_product"]
    return [metric for metric, kind in _TILES if kind == dtype.kind]


def kept_as(metric: str, rows: np.dtype[Any], totals: np.dtype[Any]) -> np.dtype[Any]:
    """Return as what a metric that is compiled alone keeps its totals, in the room of another dtype, until the end."""
    return {"inner_product": rows, "jaccard": np.dtype(np.int64)}.get(metric, totals)
