"""Scores of a few rows of X, and their gradient: the two products of a pass over the rows.

`dot` makes scores, ``Z = X W' + b``, and `add_outer` adds to a gradient, ``dW += G' X``; each for `rows` rows and
`classes` vectors, in tiles that fit the registers, so that whatever is loaded is used several times. Over classes
`add_strip` takes the place of `add_outer` as far as it can: a gradient of many classes does not stay in the first-level
cache, so a strip of its columns stays in registers while many rows pass.

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
from ..simd.llvm import Emitter, broadcast
from ..simd.rows import prefetch

__all__ = [
    "ROWS",
    "ROWS_OF_ONE",
    "TILE_ROWS",
    "add_gradient",
    "add_gradient_of_one",
    "add_outer",
    "add_strip",
    "dot",
    "flush",
    "scores",
    "scores_of_one",
    "strip_width",
    "whole_strips",
]


ROWS = 32  # rows whose gradient is summed in the dtype of X
TILE_ROWS = 8

#: Classes of a strip, where there are as many: of its registers more hold sums, and fewer what they are made of.
_STRIP_CLASSES = 5

#: Rows that are summed in registers before they are added to those 32: more would round too often.
_STRIP_ROWS = 16

#: Rows that are in cache together where there is one score: fewer, so that reading them does not pause for long.
ROWS_OF_ONE = 16


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
        shift = builder.gep(context.make_array(b)(context, builder, shifts).data, [w_top])
        shifts = [builder.load(builder.gep(shift, [e.number(k)])) for k in range(n_classes)]
        together = e.tile_sums // n_classes
        sums = []
        for i in range(0, n_rows, together):
            sums += e.products(x_rows[i : i + together], w_rows, columns)
        totals = e.sums_of_lanes(sums)
        wide = totals[0].type.count
        for i, z_row in enumerate(z_rows):
            place = builder.gep(z_row, [w_top])
            for k in range(n_classes):
                at = i * n_classes + k
                total = builder.extract_element(totals[at // wide], ir.IntType(32)(at % wide))
                builder.store(builder.fadd(total, shifts[k]), builder.gep(place, [e.number(k)]))
        return context.get_dummy_value()

    return types.void(rows, classes, X, top, W, c, b, Z, row), emit


def _add_outer_twin(rows, classes, X, top, first, G, row, c, dW):  # type: ignore[no-untyped-def]
    dW[c : c + classes, first : X.shape[1]] += G[row : row + rows, c : c + classes].T @ X[top : top + rows, first:]


@intrinsic(twin=_add_outer_twin)
def add_outer(typingctx, rows, classes, X, top, first, G, row, c, dW):  # type: ignore[no-untyped-def]
    """``dW[c + k] += sum_i G[row + i, c + k] X[top + i]`` for i < `rows`, k < `classes` (literals).

    From column `first` on, before which there are whole vectors. `dW` may have more columns than `X`; those stay.
    """
    if not (isinstance(rows, types.IntegerLiteral) and isinstance(classes, types.IntegerLiteral)):
        return None  # asked again with the literals
    n_rows, n_classes = rows.literal_value, classes.literal_value

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, _, x, x_top, first, g, g_top, c_top, d = arguments
        e = _ColumnsEmitter(context, builder, X.dtype)
        x_rows, columns = e.rows(X, x, x_top, n_rows)
        g_rows, _ = e.rows(G, g, g_top, n_rows)
        d_rows, _ = e.rows(dW, d, c_top, n_classes)
        factors = [
            [builder.load(builder.gep(g_row, [builder.add(c_top, e.number(k))])) for k in range(n_classes)]
            for g_row in g_rows
        ]
        together = e.tile_sums // n_classes
        for i in range(0, n_rows, together):
            e.add_products(x_rows[i : i + together], factors[i : i + together], d_rows, first, columns)
        return context.get_dummy_value()

    return types.void(rows, classes, X, top, types.intp, G, row, c, dW), emit


def _strip_width_twin(classes, X):  # type: ignore[no-untyped-def]
    return 32 if classes < _STRIP_CLASSES else 16


@intrinsic(twin=_strip_width_twin)
def strip_width(typingctx, classes, X):  # type: ignore[no-untyped-def]
    """How many columns `add_strip` works on for so many classes (a literal)."""
    if not isinstance(classes, types.IntegerLiteral):
        return None  # asked again with the literal

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        e = _ColumnsEmitter(context, builder, X.dtype)
        return e.number(e.strip_vectors(classes.literal_value) * e.lanes)

    return types.intp(classes, X), emit


def _add_strip_twin(classes, X, top, n, at, G, row, c, dW):  # type: ignore[no-untyped-def]
    here = slice(at, at + strip_width(classes, X))
    dW[c : c + classes, here] += G[row : row + n, c : c + classes].T @ X[top : top + n, here]


@intrinsic(twin=_add_strip_twin)
def add_strip(typingctx, classes, X, top, n, at, G, row, c, dW):  # type: ignore[no-untyped-def]
    """As `add_outer` of `n` rows, for a strip of columns from `at` on: their gradient stays in registers meanwhile.

    `dW` may be float64 where `X` is float32.
    """
    if not isinstance(classes, types.IntegerLiteral):
        return None  # asked again with the literal
    n_classes = classes.literal_value

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        _, x, x_top, count, at, g, g_top, c_top, d = arguments
        e = _ColumnsEmitter(context, builder, X.dtype)
        (x_first,), columns = e.rows(X, x, x_top, 1)
        (g_first,), g_columns = e.rows(G, g, g_top, 1)
        d_rows, _ = e.rows(dW, d, c_top, n_classes)
        places = [builder.add(at, e.number(v * e.lanes)) for v in range(e.strip_vectors(n_classes))]
        sums = [[e.zeroed() for _ in places] for _ in d_rows]
        parts = [[e.zeroed() for _ in places] for _ in d_rows]
        step = e.number(_STRIP_ROWS)
        with cgutils.for_range_slice(builder, e.number(0), count, step, intp=cgutils.intp_t) as (first, _):
            left = builder.sub(count, first)
            some = builder.select(builder.icmp_signed("<", left, step), left, step)
            with cgutils.for_range(builder, some) as loop:
                i = builder.add(first, loop.index)
                x_row = builder.gep(x_first, [builder.mul(i, columns)])
                g_row = builder.gep(g_first, [builder.add(builder.mul(i, g_columns), c_top)])
                vectors = [e.load(x_row, place) for place in places]
                for k, of_class in enumerate(parts):
                    factor = e.everywhere(builder.load(builder.gep(g_row, [e.number(k)])))
                    for vector, part in zip(vectors, of_class, strict=True):
                        builder.store(e.multiply_add(factor, vector, builder.load(part)), part)
            for of_class, of_part in zip(sums, parts, strict=True):
                for total, part in zip(of_class, of_part, strict=True):
                    builder.store(builder.fadd(builder.load(total), builder.load(part)), total)
                    builder.store(ir.Constant(e.vector, None), part)
        wide = _ColumnsEmitter(context, builder, dW.dtype)
        wide.vector = ir.VectorType(wide.scalar, e.lanes)
        for d_row, of_class in zip(d_rows, sums, strict=True):
            for place, total in zip(places, of_class, strict=True):
                value = builder.load(total)
                value = value if dW.dtype == X.dtype else builder.fpext(value, wide.vector)
                wide.store(builder.fadd(wide.load(d_row, place), value), d_row, place)
        return context.get_dummy_value()

    return types.void(classes, X, types.intp, types.intp, types.intp, G, types.intp, types.intp, dW), emit


class _Columns(NamedTuple):
    """Where a step of a loop over columns stands: how it reads a vector of a row, and adds one to it."""

    load: Callable[[ir.Value], ir.Value]
    add: Callable[[ir.Value, ir.Value], None]


class _ColumnsEmitter(Emitter):
    """A loop over the columns of several rows, by whole vectors and what is left."""

    def strip_vectors(self, classes: int) -> int:
        """Vectors of a strip: with two classes the registers for sums are full, with `_STRIP_CLASSES` a few more."""
        return self.tile_sums // (2 if classes < _STRIP_CLASSES else 4)

    def rows(self, array_type: Any, value: ir.Value, top: ir.Value, count: int) -> tuple[list[ir.Value], ir.Value]:
        """Return pointers to `count` rows from `top` on, and the number of columns."""
        b = self.builder
        array = self.context.make_array(array_type)(self.context, b, value)
        columns = cgutils.unpack_tuple(b, array.shape, 2)[1]
        return [b.gep(array.data, [b.mul(b.add(top, self.number(i)), columns)]) for i in range(count)], columns

    def over_columns(self, first: ir.Value, last: ir.Value, step: Callable[[_Columns], None]) -> None:
        """Call `step` for whole vectors, for what is left, or for single columns of short rows."""
        b, lanes = self.builder, self.number(self.lanes)
        rest = b.urem(b.sub(last, first), lanes)
        whole = b.sub(last, rest)
        with cgutils.for_range_slice(b, first, whole, lanes, intp=cgutils.intp_t) as (at, _):
            step(self._vector_at(at))
        some_left, long = b.icmp_unsigned("!=", rest, self.number(0)), b.icmp_unsigned(">=", last, lanes)
        with b.if_then(b.and_(some_left, long)):
            step(self._overlapping_vector(last, rest))
        with b.if_then(b.not_(long)), cgutils.for_range(b, last) as loop:
            step(self._single(loop.index))

    def products(self, x_rows: list[ir.Value], w_rows: list[ir.Value], columns: ir.Value) -> list[ir.Value]:
        """Return the sums of the products of every row with every vector of weights, lane by lane."""
        sums = [[self.zeroed() for _ in w_rows] for _ in x_rows]

        def step(here: _Columns) -> None:
            weights = [here.load(w_row) for w_row in w_rows]
            for x_row, of_row in zip(x_rows, sums, strict=True):
                x_here = here.load(x_row)
                for weight, total in zip(weights, of_row, strict=True):
                    self.builder.store(self.multiply_add(x_here, weight, self.builder.load(total)), total)

        self.over_columns(self.number(0), columns, step)
        return [self.builder.load(total) for of_row in sums for total in of_row]

    def add_products(
        self,
        x_rows: list[ir.Value],
        factors: list[list[ir.Value]],
        d_rows: list[ir.Value],
        first: ir.Value,
        last: ir.Value,
    ) -> None:
        """Add rows times their factors, one for each row of the gradient."""
        spread = [[self.everywhere(factor) for factor in row] for row in factors]

        def step(here: _Columns) -> None:
            x_here = [here.load(x_row) for x_row in x_rows]
            for k, d_row in enumerate(d_rows):
                total = self.builder.fmul(spread[0][k], x_here[0])
                for i in range(1, len(x_rows)):
                    total = self.multiply_add(spread[i][k], x_here[i], total)
                here.add(d_row, total)

        self.over_columns(first, last, step)

    def _vector_at(self, at: ir.Value) -> _Columns:
        def add(row: ir.Value, value: ir.Value) -> None:
            self.store(self.builder.fadd(self.load(row, at), value), row, at)

        return _Columns(lambda row: self.load(row, at), add)

    def _single(self, at: ir.Value) -> _Columns:
        """Stand for one column, with nothing in the other lanes."""
        b, first = self.builder, ir.IntType(32)(0)

        def add(row: ir.Value, value: ir.Value) -> None:
            place = b.gep(row, [at])
            b.store(b.fadd(b.load(place), b.extract_element(value, first)), place)

        nothing = ir.Constant(self.vector, None)
        return _Columns(lambda row: b.insert_element(nothing, b.load(b.gep(row, [at])), first), add)

    def _overlapping_vector(self, last: ir.Value, rest: ir.Value) -> _Columns:
        """Stand for the last vector of a row with the lanes blanked that came before."""
        b = self.builder
        numbers = ir.VectorType(cgutils.intp_t, self.lanes)
        taken = broadcast(b, b.sub(self.number(self.lanes), rest), numbers)
        fresh = b.icmp_unsigned(">=", ir.Constant(numbers, list(range(self.lanes))), taken)
        nothing = ir.Constant(self.vector, None)
        end = self._vector_at(b.sub(last, self.number(self.lanes)))
        return _Columns(
            lambda row: b.select(fresh, end.load(row), nothing),
            lambda row, value: end.add(row, b.select(fresh, value, nothing)),
        )


@inner
def scores(X, W, b, top, n, Z, half):  # type: ignore[no-untyped-def]
    """Z[i, c] = X[top + i] . W[c] + b[c] for i < n.

    Meanwhile the rows that come next are asked for, a few at a time: tiles do not read them in the order of addresses,
    in which a CPU would foresee them. With `half` it is the first half of them: `add_gradient` asks for the others.
    """
    classes, asked = W.shape[0], TILE_ROWS // 2 if half else TILE_ROWS
    pairs, rows = classes // 2 * 2, n // TILE_ROWS * TILE_ROWS
    share = -(-asked // max(1, pairs // 2))
    for i in range(0, rows, TILE_ROWS):
        coming = top + ROWS + i * asked // TILE_ROWS
        end = min(coming + asked, X.shape[0])
        for c in range(0, pairs, 2):
            prefetch(X, coming, min(coming + share, end))
            coming += share
            dot(TILE_ROWS, 2, X, top + i, W, c, b, Z, i)
        if pairs < classes:
            dot(TILE_ROWS, 1, X, top + i, W, pairs, b, Z, i)
    for i in range(rows, n):
        for c in range(classes):
            dot(1, 1, X, top + i, W, c, b, Z, i)


@inner
def add_gradient(X, top, n, G, dW, total):  # type: ignore[no-untyped-def]
    """total[c] += sum_i G[i, c] X[top + i] for i < n, but from column `whole_strips` on into dW[c], to be flushed.

    The sums of G go into the last column of dW. Meanwhile the second half of the rows that come next is asked for.
    """
    classes, columns = dW.shape[0], X.shape[1]
    pairs, rows = classes // 2 * 2, n // TILE_ROWS * TILE_ROWS
    wide, narrow = strip_width(2, X), strip_width(_STRIP_CLASSES, X)
    in_strips, many = whole_strips(X), classes // _STRIP_CLASSES * _STRIP_CLASSES
    coming = top + ROWS + ROWS // 2
    for at in range(0, in_strips, wide):
        begin, end = at * (ROWS // 2) // in_strips, (at + wide) * (ROWS // 2) // in_strips
        prefetch(X, coming + begin, min(coming + end, X.shape[0]))
        for part in range(at, at + wide, narrow):
            for c in range(0, many, _STRIP_CLASSES):
                add_strip(_STRIP_CLASSES, X, top, n, part, G, 0, c, total)
        for c in range(many, classes - 1, 2):
            add_strip(2, X, top, n, at, G, 0, c, total)
        if (classes - many) % 2 > 0:
            add_strip(1, X, top, n, at, G, 0, classes - 1, total)
    if in_strips < columns:
        for i in range(0, rows, TILE_ROWS):
            for c in range(0, pairs, 2):
                add_outer(TILE_ROWS, 2, X, top + i, in_strips, G, i, c, dW)
            if pairs < classes:
                add_outer(TILE_ROWS, 1, X, top + i, in_strips, G, i, pairs, dW)
        for i in range(rows, n):
            for c in range(classes):
                add_outer(1, 1, X, top + i, in_strips, G, i, c, dW)
    _add_shifts(n, G, dW)


@inner
def whole_strips(X):  # type: ignore[no-untyped-def]
    """How many columns `add_gradient` works on in strips."""
    return X.shape[1] // strip_width(2, X) * strip_width(2, X)


@inner
def scores_of_one(X, W, b, top, n, Z):  # type: ignore[no-untyped-def]
    """As `scores`, for one score: row after row, the order of addresses, and nothing is asked for."""
    for i in range(n):
        dot(1, 1, X, top + i, W, 0, b, Z, i)


@inner
def add_gradient_of_one(X, top, n, G, dW):  # type: ignore[no-untyped-def]
    """dW[0] += sum_i G[i, 0] X[top + i], and the sum of G in the last column, for i < n."""
    rows = n // TILE_ROWS * TILE_ROWS
    for i in range(0, rows, TILE_ROWS):
        add_outer(TILE_ROWS, 1, X, top + i, 0, G, i, 0, dW)
    for i in range(rows, n):
        add_outer(1, 1, X, top + i, 0, G, i, 0, dW)
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
def flush(dW, first, total):  # type: ignore[no-untyped-def]
    """Add the gradient of a few rows to the cell's float64 one, from column `first` on, and clear it."""
    for c in range(dW.shape[0]):
        source, target = dW[c, first:], total[c, first:]
        for d in range(source.size):
            target[d] += source[d]
            source[d] = like(source[d], 0)
