"""Products of a few rows with a few vectors of weights, for passes over X that never leave the cache.

`dot` makes scores, ``Z = X W' + b``, and `add_outer` adds to a gradient, ``dW += G' X``; each for a tile of
`rows` rows and `classes` vectors, so that whatever is loaded is used several times. `prefetch` asks for
rows that come later while the present ones are worked on.

Ends of rows. Where the columns are no multiple of a vector, the last vector overlaps the one before, and
the lanes that were taken already are blanked. Rows shorter than a vector go column by column.

Sums. A score is summed in one vector, column by column, and its lanes are then added up in a fixed tree:
its bits depend on its row and the weights alone, not on the tile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types

from ._jit import intrinsic
from ._simd import target

__all__ = ["add_outer", "dot", "prefetch"]

_CACHE_LINE = 64


def _dot_twin(rows, classes, X, top, W, c, b, Z, row):  # type: ignore[no-untyped-def]
    Z[row : row + rows, c : c + classes] = X[top : top + rows] @ W[c : c + classes].T + b[c : c + classes]


@intrinsic(twin=_dot_twin)
def dot(typingctx, rows, classes, X, top, W, c, b, Z, row):  # type: ignore[no-untyped-def]
    """``Z[row + i, c + k] = X[top + i] . W[c + k] + b[c + k]`` for i < `rows`, k < `classes` (literals)."""
    if not (isinstance(rows, types.IntegerLiteral) and isinstance(classes, types.IntegerLiteral)):
        return None  # asked again with the literals
    n_rows, n_classes = rows.literal_value, classes.literal_value

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, _, x, x_top, w, w_top, shifts, z, z_top = arguments
        e = _Emitter(context, builder, X.dtype)
        x_rows, columns = e.rows(X, x, x_top, n_rows)
        w_rows, _ = e.rows(W, w, w_top, n_classes)
        z_rows, _ = e.rows(Z, z, z_top, n_rows)
        sums = {kind: [e.zeroed(kind) for _ in range(n_rows * n_classes)] for kind in (e.vector, e.scalar)}

        def step(here: _Columns) -> None:
            weights = [here.load(w_row) for w_row in w_rows]
            for i, x_row in enumerate(x_rows):
                x_here = here.load(x_row)
                for k, weight in enumerate(weights):
                    place = sums[here.kind][i * n_classes + k]
                    builder.store(e.multiply_add(x_here, weight, builder.load(place)), place)

        e.over_columns(columns, step)
        shift = builder.gep(context.make_array(b)(context, builder, shifts).data, [w_top])
        for i, z_row in enumerate(z_rows):
            for k in range(n_classes):
                vector, single = (builder.load(sums[kind][i * n_classes + k]) for kind in (e.vector, e.scalar))
                score = builder.fadd(e.sum_of_lanes(vector), single)
                score = builder.fadd(score, builder.load(builder.gep(shift, [e.number(k)])))
                builder.store(score, builder.gep(z_row, [builder.add(w_top, e.number(k))]))
        return context.get_dummy_value()

    return types.void(rows, classes, X, top, W, c, b, Z, row), emit


def _add_outer_twin(rows, classes, X, top, G, row, c, dW):  # type: ignore[no-untyped-def]
    dW[c : c + classes, : X.shape[1]] += G[row : row + rows, c : c + classes].T @ X[top : top + rows]


@intrinsic(twin=_add_outer_twin)
def add_outer(typingctx, rows, classes, X, top, G, row, c, dW):  # type: ignore[no-untyped-def]
    """``dW[c + k] += sum_i G[row + i, c + k] X[top + i]`` for i < `rows`, k < `classes` (literals).

    `dW` may have more columns than `X`; those stay as they are.
    """
    if not (isinstance(rows, types.IntegerLiteral) and isinstance(classes, types.IntegerLiteral)):
        return None  # asked again with the literals
    n_rows, n_classes = rows.literal_value, classes.literal_value

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, _, x, x_top, g, g_top, c_top, d = arguments
        e = _Emitter(context, builder, X.dtype)
        x_rows, columns = e.rows(X, x, x_top, n_rows)
        g_rows, _ = e.rows(G, g, g_top, n_rows)
        d_rows, _ = e.rows(dW, d, c_top, n_classes)
        factors = [
            [builder.load(builder.gep(g_row, [builder.add(c_top, e.number(k))])) for k in range(n_classes)]
            for g_row in g_rows
        ]
        spread = {e.scalar: factors, e.vector: [[e.everywhere(factor) for factor in row] for row in factors]}

        def step(here: _Columns) -> None:
            x_here = [here.load(x_row) for x_row in x_rows]
            for k, d_row in enumerate(d_rows):
                total = builder.fmul(spread[here.kind][0][k], x_here[0])
                for i in range(1, n_rows):
                    total = e.multiply_add(spread[here.kind][i][k], x_here[i], total)
                here.add(d_row, total)

        e.over_columns(columns, step)
        return context.get_dummy_value()

    return types.void(rows, classes, X, top, G, row, c, dW), emit


def _prefetch_twin(X, first, last):  # type: ignore[no-untyped-def]
    pass


@intrinsic(twin=_prefetch_twin)
def prefetch(typingctx, X, first, last):  # type: ignore[no-untyped-def]
    """Ask for the rows ``first:last`` of `X` to be brought into the cache; rows beyond its end do no harm."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array = context.make_array(X)(context, builder, arguments[0])
        columns = cgutils.unpack_tuple(builder, array.shape, 2)[1]
        byte = ir.IntType(8).as_pointer()
        flag = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag]), "llvm.prefetch.p0"
        )
        per_line = ir.Constant(cgutils.intp_t, _CACHE_LINE // (X.dtype.bitwidth // 8))
        begin, end = (builder.mul(argument, columns) for argument in arguments[1:])
        with cgutils.for_range_slice(builder, begin, end, per_line, intp=cgutils.intp_t) as (at, _):
            place = builder.bitcast(builder.gep(array.data, [at]), byte)
            builder.call(function, [place, flag(0), flag(2), flag(1)])  # read, keep in the second level, data
        return context.get_dummy_value()

    return types.void(X, types.intp, types.intp), emit


class _Columns(NamedTuple):
    """Where a step of a loop over columns stands: how it reads and adds to a row."""

    kind: ir.Type
    load: Callable[[ir.Value], ir.Value]
    add: Callable[[ir.Value, ir.Value], None]


class _Emitter:
    """LLVM code on rows of one dtype, by whole vectors."""

    def __init__(self, context: Any, builder: ir.IRBuilder, dtype: types.Type) -> None:
        self.context, self.builder = context, builder
        self.scalar = context.get_data_type(dtype)
        self.itemsize = dtype.bitwidth // 8
        self.lanes = target().vector_bytes // self.itemsize
        self.vector = ir.VectorType(self.scalar, self.lanes)

    def number(self, value: int) -> ir.Constant:
        return ir.Constant(cgutils.intp_t, value)

    def zeroed(self, kind: ir.Type) -> ir.Value:
        place = cgutils.alloca_once(self.builder, kind)
        self.builder.store(ir.Constant(kind, None), place)
        return place

    def rows(self, array_type: Any, value: ir.Value, top: ir.Value, count: int) -> tuple[list[ir.Value], ir.Value]:
        """Return pointers to `count` rows from `top` on, and the number of columns."""
        b = self.builder
        array = self.context.make_array(array_type)(self.context, b, value)
        columns = cgutils.unpack_tuple(b, array.shape, 2)[1]
        return [b.gep(array.data, [b.mul(b.add(top, self.number(i)), columns)]) for i in range(count)], columns

    def everywhere(self, value: ir.Value) -> ir.Value:
        b, index = self.builder, ir.IntType(32)
        single = b.insert_element(ir.Constant(self.vector, ir.Undefined), value, index(0))
        lanes = ir.Constant(ir.VectorType(index, self.lanes), [0] * self.lanes)
        return b.shuffle_vector(single, ir.Constant(self.vector, ir.Undefined), lanes)

    def multiply_add(self, x: ir.Value, y: ir.Value, total: ir.Value) -> ir.Value:
        width = f"f{8 * self.itemsize}"
        name = f"llvm.fmuladd.{width}" if x.type == self.scalar else f"llvm.fmuladd.v{self.lanes}{width}"
        function = ir.FunctionType(x.type, [x.type] * 3)
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, function, name), [x, y, total])

    def sum_of_lanes(self, vector: ir.Value) -> ir.Value:
        b, index = self.builder, ir.IntType(32)
        while vector.type.count > 1:
            half = vector.type.count // 2
            low, high = (
                b.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(index, half), list(range(at, at + half))))
                for at in (0, half)
            )
            vector = b.fadd(low, high)
        return b.extract_element(vector, index(0))

    def over_columns(self, columns: ir.Value, step: Callable[[_Columns], None]) -> None:
        """Call `step` for whole vectors, for what is left, or for single columns of short rows."""
        b, lanes = self.builder, self.number(self.lanes)
        rest = b.urem(columns, lanes)
        whole = b.sub(columns, rest)
        with cgutils.for_range_slice(b, self.number(0), whole, lanes, intp=cgutils.intp_t) as (at, _):
            step(self._vector_at(at))
        some_left, long = (b.icmp_unsigned("!=", count, self.number(0)) for count in (rest, whole))
        with b.if_then(b.and_(some_left, long)):
            step(self._overlapping_vector(columns, rest))
        with b.if_then(b.not_(long)), cgutils.for_range(b, rest) as loop:
            step(self._single(loop.index))

    def _place(self, row: ir.Value, at: ir.Value, kind: ir.Type) -> ir.Value:
        return self.builder.bitcast(self.builder.gep(row, [at]), kind.as_pointer())

    def _vector_at(self, at: ir.Value, kind: ir.Type | None = None) -> _Columns:
        b, kind = self.builder, kind or self.vector

        def load(row: ir.Value) -> ir.Value:
            return b.load(self._place(row, at, kind), align=self.itemsize)

        def add(row: ir.Value, value: ir.Value) -> None:
            b.store(b.fadd(load(row), value), self._place(row, at, kind), align=self.itemsize)

        return _Columns(kind, load, add)

    def _single(self, at: ir.Value) -> _Columns:
        return self._vector_at(at, self.scalar)

    def _overlapping_vector(self, columns: ir.Value, rest: ir.Value) -> _Columns:
        """Stand for the last vector of a row with the lanes blanked that came before."""
        b = self.builder
        numbers = ir.VectorType(cgutils.intp_t, self.lanes)
        taken = b.sub(self.number(self.lanes), rest)
        spread = ir.Constant(numbers, ir.Undefined)
        for lane in range(self.lanes):
            spread = b.insert_element(spread, taken, ir.IntType(32)(lane))
        fresh = b.icmp_unsigned(">=", ir.Constant(numbers, list(range(self.lanes))), spread)
        nothing = ir.Constant(self.vector, None)
        end = self._vector_at(b.sub(columns, self.number(self.lanes)))
        return _Columns(
            self.vector,
            lambda row: b.select(fresh, end.load(row), nothing),
            lambda row, value: end.add(row, b.select(fresh, value, nothing)),
        )
