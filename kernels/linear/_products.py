"""Scores of a few rows of X, and their gradient: the two products of a pass over the rows.

`dot` makes scores, ``Z = X W' + b``, and `add_outer` adds to a gradient, ``dW += G' X``; each for a tile of
`rows` rows and `classes` vectors, so that whatever is loaded is used several times. On these, `scores` and
`add_gradient` take `_TILE_ROWS` rows together, so that the weights are loaded once for all of them, and the gradient is
loaded and stored once.

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

from ..runtime.jit import inner, intrinsic
from ..simd.functions import like
from ..simd.llvm import Emitter
from ..simd.rows import prefetch

__all__ = [
    "AT_ONCE",
    "ROWS",
    "add_gradient",
    "add_gradient_of_one",
    "add_outer",
    "dot",
    "flush",
    "scores",
    "scores_of_one",
]

_TILE_ROWS = 4
ROWS = 32  # rows whose gradient is summed in the dtype of X
AT_ONCE = 16  # rows that are in cache together where there is one score


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
        e = _ColumnsEmitter(context, builder, X.dtype)
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
        e = _ColumnsEmitter(context, builder, X.dtype)
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


class _Columns(NamedTuple):
    """Where a step of a loop over columns stands: how it reads and adds to a row."""

    kind: ir.Type
    load: Callable[[ir.Value], ir.Value]
    add: Callable[[ir.Value, ir.Value], None]


class _ColumnsEmitter(Emitter):
    """A loop over the columns of several rows, by whole vectors and what is left."""

    def rows(self, array_type: Any, value: ir.Value, top: ir.Value, count: int) -> tuple[list[ir.Value], ir.Value]:
        """Return pointers to `count` rows from `top` on, and the number of columns."""
        b = self.builder
        array = self.context.make_array(array_type)(self.context, b, value)
        columns = cgutils.unpack_tuple(b, array.shape, 2)[1]
        return [b.gep(array.data, [b.mul(b.add(top, self.number(i)), columns)]) for i in range(count)], columns

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


@inner
def scores(X, W, b, top, n, Z):  # type: ignore[no-untyped-def]
    """Z[i, c] = X[top + i] . W[c] + b[c] for i < n."""
    classes = W.shape[0]
    fours, rows = classes // 4 * 4, n // _TILE_ROWS * _TILE_ROWS
    for i in range(0, rows, _TILE_ROWS):
        for c in range(0, fours, 4):
            dot(4, 4, X, top + i, W, c, b, Z, i)
        for c in range(fours, classes):
            dot(4, 1, X, top + i, W, c, b, Z, i)
    for i in range(rows, n):
        for c in range(classes):
            dot(1, 1, X, top + i, W, c, b, Z, i)


@inner
def add_gradient(X, top, n, G, dW):  # type: ignore[no-untyped-def]
    """dW[c] += sum_i G[i, c] X[top + i], and the sums of G in the last column, for i < n.

    Meanwhile the rows that come next are asked for: what is worked on here is in cache already.
    """
    classes = dW.shape[0]
    fours, rows = classes // 4 * 4, n // _TILE_ROWS * _TILE_ROWS
    for i in range(0, rows, _TILE_ROWS):
        prefetch(X, top + ROWS + i, min(top + ROWS + i + _TILE_ROWS, X.shape[0]))
        for c in range(0, fours, 4):
            add_outer(4, 4, X, top + i, G, i, c, dW)
        for c in range(fours, classes):
            add_outer(4, 1, X, top + i, G, i, c, dW)
    for i in range(rows, n):
        for c in range(classes):
            add_outer(1, 1, X, top + i, G, i, c, dW)
    _add_shifts(n, G, dW)


@inner
def scores_of_one(X, W, b, top, n, Z):  # type: ignore[no-untyped-def]
    """As `scores`, for one score: row after row."""
    for i in range(n):
        dot(1, 1, X, top + i, W, 0, b, Z, i)


@inner
def add_gradient_of_one(X, top, n, G, dW):  # type: ignore[no-untyped-def]
    """As `add_gradient`, for one score; nothing is asked for."""
    rows = n // 8 * 8
    for i in range(0, rows, 8):
        add_outer(8, 1, X, top + i, G, i, 0, dW)
    for i in range(rows, n):
        add_outer(1, 1, X, top + i, G, i, 0, dW)
    _add_shifts(n, G, dW)


@inner
def _add_shifts(n, G, dW):  # type: ignore[no-untyped-def]
    """Add the sums of G over its first n rows to the last column of dW."""
    classes, last = dW.shape[0], dW.shape[1] - 1
    for c in range(classes):
        total = like(G[0, c], 0)  # in memory it would wait for itself at every row
        for i in range(n):
            total += G[i, c]
        dW[c, last] += total


@inner
def flush(dW, total):  # type: ignore[no-untyped-def]
    """Add the gradient of a few rows to the slab's float64 one, and clear it."""
    for c in range(dW.shape[0]):
        source, target = dW[c], total[c]
        for d in range(source.size):
            target[d] += source[d]
            source[d] = like(source[d], 0)
