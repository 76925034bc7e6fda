"""LLVM code, for short: what intrinsics of all families write, as functions of a builder, and for rows as `Emitter`.

Addresses are those of elements: nothing says that an array starts where a vector does, so no alignment is
claimed beyond an element's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from ..runtime.target import target

__all__ = [
    "Emitter",
    "broadcast",
    "call",
    "call_for_vector",
    "constant_vector",
    "index",
    "is_float",
    "lane_type",
    "load",
    "pointer_to",
    "prefetch",
    "resized",
    "row_pointers",
    "shuffle",
    "store",
]


class Emitter:
    """LLVM code on rows of one dtype, by whole vectors, of `most` bytes at most."""

    def __init__(self, context: Any, builder: ir.IRBuilder, dtype: types.Type, most: int = 64) -> None:
        self.context, self.builder = context, builder
        self.scalar = context.get_data_type(dtype)
        self.itemsize = dtype.bitwidth // 8
        self.lanes = min(most, target().vector_bytes) // self.itemsize
        self.vector = ir.VectorType(self.scalar, self.lanes)
        # Sums of a tile: half of the registers, of which x86 has 32 with AVX-512 and 16 without, others 32.
        self.tile_sums = 8 if "x86" in target().features and target().vector_bytes < 64 else 16

    def number(self, value: int) -> ir.Constant:
        """Return a constant as an index."""
        return ir.Constant(cgutils.intp_t, value)

    def row(self, array_type: Any, value: ir.Value, row: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return a pointer to a row of a 2-D array, and the number of columns."""
        array = self.context.make_array(array_type)(self.context, self.builder, value)
        columns = cgutils.unpack_tuple(self.builder, array.shape, 2)[1]
        return self.builder.gep(array.data, [self.builder.mul(row, columns)]), columns

    def zeroed(self, kind: ir.Type | None = None) -> ir.Value:
        """Return a place in the stack that holds zeros: a vector, or a `kind`."""
        place = cgutils.alloca_once(self.builder, kind or self.vector)
        self.builder.store(ir.Constant(kind or self.vector, None), place)
        return place

    def load(self, row: ir.Value, at: ir.Value) -> ir.Value:
        """Load a vector of a row."""
        place = self.builder.bitcast(self.builder.gep(row, [at]), self.vector.as_pointer())
        return self.builder.load(place, align=self.itemsize)

    def store(self, value: ir.Value, row: ir.Value, at: ir.Value) -> None:
        """Store a vector of any width in a row."""
        place = self.builder.bitcast(self.builder.gep(row, [at]), value.type.as_pointer())
        self.builder.store(value, place, align=self.itemsize)

    def everywhere(self, value: ir.Value) -> ir.Value:
        """Return a value in all lanes."""
        return broadcast(self.builder, value, self.vector)

    def multiply_add(self, x: ir.Value, y: ir.Value, total: ir.Value) -> ir.Value:
        """Return ``x * y + total`` of vectors or of scalars, fused where the target can."""
        width = f"f{8 * self.itemsize}"
        name = f"llvm.fmuladd.{width}" if x.type == self.scalar else f"llvm.fmuladd.v{self.lanes}{width}"
        return call(self.builder, name, x.type, x, y, total)

    def prefetch(self, place: ir.Value) -> None:
        """Ask for the cache line at `place`, which need not exist."""
        prefetch(self.builder, place)

    def sums_of_lanes(self, vectors: list[ir.Value]) -> list[ir.Value]:
        """Add up the lanes of each vector, as `lanes_together` does."""
        return self.lanes_together(vectors, ir.IRBuilder.fadd)

    def lanes_together(
        self, vectors: list[ir.Value], operation: Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]
    ) -> list[ir.Value]:
        """Join the lanes of each vector, halves first; the results come side by side, in the vectors' order.

        Two vectors are halved together while there are two, which takes a third of the instructions.
        """
        b, width = self.builder, self.lanes  # lanes that belong to one result
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
                operation(b, shuffle(b, first, second, low), shuffle(b, first, second, high)) for first, second in pairs
            ]
            width = half
        return vectors

    def sum_of_lanes(self, vector: ir.Value) -> ir.Value:
        """Add up the lanes of one vector, halves first."""
        return self.builder.extract_element(self.sums_of_lanes([vector])[0], ir.IntType(32)(0))

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
                part = vector if length == wide else shuffle(self.builder, vector, vector, list(range(at, at + length)))
            self.store(part, place, self.number(done))
            done += length


def is_float(kind: ir.Type) -> bool:
    """Whether lanes of this type are floats."""
    return isinstance(kind, (ir.FloatType, ir.DoubleType))


def lane_type(dtype: types.Type, context: Any) -> ir.Type:
    """Return a float, or a group of eight bytes taken as one integer."""
    return ir.IntType(64) if dtype in (types.uint8, types.int8) else context.get_data_type(dtype)


def index(value: int) -> ir.Constant:
    """Return a constant as an index."""
    return ir.Constant(cgutils.intp_t, value)


def constant_vector(vector: ir.VectorType, value: float) -> ir.Constant:
    """Return a vector with one value in all lanes."""
    return ir.Constant(vector, [value] * vector.count)


def shuffle(b: ir.IRBuilder, first: ir.Value, second: ir.Value, lanes: list[int]) -> ir.Value:
    """Return the named lanes of two vectors side by side."""
    return b.shuffle_vector(first, second, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def broadcast(b: ir.IRBuilder, value: ir.Value, vector: ir.VectorType) -> ir.Value:
    """Return a value in all lanes."""
    empty = ir.Constant(vector, ir.Undefined)
    return shuffle(b, b.insert_element(empty, value, ir.Constant(ir.IntType(32), 0)), empty, [0] * vector.count)


def pointer_to(context: Any, b: ir.IRBuilder, array: Any, value: ir.Value, at: ir.Value, kind: ir.Type) -> ir.Value:
    """Return the address of an element of a flat array, as one of a `kind`."""
    data = context.make_array(array)(context, b, value).data
    return b.bitcast(b.gep(data, [at]), kind.as_pointer())


def row_pointers(
    context: Any, b: ir.IRBuilder, array: Any, value: ir.Value, first: ir.Value, count: int, kind: ir.Type
) -> list[ir.Value]:
    """Return pointers to `count` rows; the last row stands in for those beyond it."""
    rows, columns = cgutils.unpack_tuple(b, context.make_array(array)(context, b, value).shape, 2)
    last = b.sub(rows, index(1))
    pointers = []
    for i in range(count):
        row = b.add(first, index(i))
        row = b.select(b.icmp_signed("<", row, last), row, last)
        pointers.append(pointer_to(context, b, array, value, b.mul(row, columns), kind))
    return pointers


def prefetch(b: ir.IRBuilder, place: ir.Value, level: int = 2) -> None:
    """Ask for the cache line at `place`, which need not exist, to be kept from this level of cache on."""
    byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
    function = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
    arguments = [b.bitcast(place, byte), flag(0), flag(4 - level), flag(1)]  # to read, where to keep it, data
    b.call(cgutils.get_or_insert_function(b.module, function, "llvm.prefetch.p0"), arguments)


def _element_bytes(place: ir.Value) -> int:
    """Alignment to claim: an element's, since nothing says that an array starts at a vector's."""
    element = getattr(place.type.pointee, "element", place.type.pointee)
    return {ir.FloatType: 4, ir.DoubleType: 8}.get(type(element)) or element.width // 8


def load(b: ir.IRBuilder, place: ir.Value) -> ir.Value:
    """Load what lies at `place`."""
    return b.load(place, align=1 if _is_packed(place) else _element_bytes(place))


def store(b: ir.IRBuilder, value: ir.Value, place: ir.Value) -> None:
    """Store what `place` is the address of."""
    b.store(value, place, align=1 if _is_packed(place) else _element_bytes(place))


def _is_packed(place: ir.Value) -> bool:
    """Integer lanes are groups of smaller elements, so they may start anywhere."""
    element = getattr(place.type.pointee, "element", place.type.pointee)
    return isinstance(element, ir.IntType)


def resized(b: ir.IRBuilder, value: ir.Value, kind: ir.VectorType) -> ir.Value:
    """Return integers of another width, with their signs."""
    if value.type.element.width > kind.element.width:
        return b.trunc(value, kind)
    return b.sext(value, kind) if value.type.element.width < kind.element.width else value


def call_for_vector(b: ir.IRBuilder, name: str, kind: ir.VectorType, *arguments: ir.Value) -> ir.Value:
    """Call an intrinsic that LLVM has for every vector type."""
    element = {ir.FloatType: "f32", ir.DoubleType: "f64"}.get(type(kind.element)) or f"i{kind.element.width}"
    return call(b, f"{name}.v{kind.count}{element}", kind, *arguments)


def call(b: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
    """Call a function of LLVM by its name."""
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return b.call(cgutils.get_or_insert_function(b.module, function, name), arguments)
