"""Blocks of rows of any length: their maxima and sums, and each row less or times a number of its own.

A row of ten classes fills a vector and a quarter, and what is left at the end of a row costs more than the row if
it is done one number at a time. So all of it is done by whole vectors here, which read and write beyond the end of
their row: what belongs to the next row is left out of a sum, and is written again, rightly, when that row's turn
comes; the end of the last row is worked on apart. Lanes are joined for as many rows at once as a vector has lanes, so
that an array that takes a number of each row needs room for `SLACK` more. A row's result depends on that row alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from ..runtime.jit import intrinsic
from .llvm import Emitter, broadcast, constant_vector, index

__all__ = ["SLACK", "minus_numbers", "row_maxima", "row_sums", "times_numbers"]

#: Bytes of a vector at most: rows are short, and wider ones would be emptier.
_BYTES = 32

#: Numbers in such a vector.
SLACK = _BYTES // 4

#: Vectors of a row that are taken together, each with a total of its own, so that no addition waits for the last.
_TOGETHER = 4

_Operation = Callable[[ir.IRBuilder, ir.Value, ir.Value], ir.Value]


def _larger(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return b.select(b.fcmp_ordered(">", y, x), y, x)


class _Rows:
    """The rows of a matrix, each of them some whole vectors and a last one with 1 to `lanes` numbers of the row.

    Attributes
    ----------
    count, columns : ir.Value
        The shape of the matrix.
    last : ir.Value
        Where the last vector of a row begins.
    """

    def __init__(self, e: Emitter, kind: Any, matrix: ir.Value) -> None:
        self._e, b, lanes = e, e.builder, index(e.lanes)
        array = e.context.make_array(kind)(e.context, b, matrix)
        self._data = array.data
        self.count, self.columns = cgutils.unpack_tuple(b, array.shape, 2)
        self.last = b.mul(b.sdiv(b.sub(self.columns, index(1)), lanes), lanes)
        # From this row on a last vector would reach beyond the matrix, and lies apart.
        size = b.mul(self.count, self.columns)
        room = b.sub(b.sub(size, lanes), self.last)
        some = b.select(b.icmp_signed(">", self.columns, index(0)), self.columns, index(1))
        fitting = b.add(b.sdiv(room, some), index(1))
        self.first = b.select(b.icmp_signed("<", room, index(0)), index(0), fitting)
        self._place = b.add(b.mul(self.first, self.columns), self.last)
        self._numbers = b.sub(size, self._place)
        self._apart = b.bitcast(e.zeroed(ir.ArrayType(e.vector, 2)), e.scalar.as_pointer())

    def copy_end(self, *, back: bool) -> None:
        """Copy what lies apart from the matrix, or back."""
        b = self._e.builder
        end = b.gep(self._data, [self._place])
        source, target = (self._apart, end) if back else (end, self._apart)
        with cgutils.for_range(b, self._numbers, intp=cgutils.intp_t) as loop:
            b.store(b.load(b.gep(source, [loop.index])), b.gep(target, [loop.index]))

    def places(self, row: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return the addresses of a row and of its last vector."""
        b = self._e.builder
        start = b.mul(row, self.columns)
        last = b.add(start, self.last)
        apart = b.gep(self._apart, [b.sub(last, self._place)])
        fits = b.icmp_signed("<", row, self.first)
        return b.gep(self._data, [start]), b.select(fits, b.gep(self._data, [last]), apart)


def _reduction(X: Any, out: Any, identity: float, operation: _Operation) -> Any:
    """Return what leaves one number of each row in `out`, and its types."""

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        e = Emitter(context, b, X.dtype, _BYTES)
        rows = _Rows(e, X, arguments[0])
        rows.copy_end(back=False)
        target = context.make_array(out)(context, b, arguments[1]).data
        neutral = constant_vector(e.vector, identity)
        numbers = ir.VectorType(cgutils.intp_t, e.lanes)
        left = broadcast(b, b.sub(rows.columns, rows.last), numbers)
        own = b.icmp_signed("<", ir.Constant(numbers, list(range(e.lanes))), left)
        totals = e.zeroed(ir.ArrayType(e.vector, e.lanes))
        with cgutils.for_range_slice(b, index(0), rows.count, index(e.lanes), intp=cgutils.intp_t) as (first, _):
            left = b.sub(rows.count, first)
            left = b.select(b.icmp_signed("<", left, index(e.lanes)), left, index(e.lanes))
            with cgutils.for_range(b, left, intp=cgutils.intp_t) as row:
                start, last = rows.places(b.add(first, row.index))
                total = operation(
                    b, _total(e, start, rows.last, neutral, operation), b.select(own, e.load(last, index(0)), neutral)
                )
                b.store(total, b.gep(totals, [index(0), row.index]))
            vectors = [b.load(b.gep(totals, [index(0), index(lane)])) for lane in range(e.lanes)]
            e.store(e.lanes_together(vectors, operation)[0], target, first)
        return context.get_dummy_value()

    return types.void(X, out), emit


def _total(e: Emitter, row: ir.Value, end: ir.Value, neutral: ir.Value, operation: _Operation) -> ir.Value:
    """Return one vector for the whole vectors of a row."""
    b = e.builder
    first, *others = places = [cgutils.alloca_once(b, e.vector) for _ in range(_TOGETHER)]

    def add(at: ir.Value, places: list[ir.Value]) -> None:
        for k, place in enumerate(places):
            b.store(operation(b, b.load(place), e.load(row, b.add(at, index(k * e.lanes)))), place)

    b.store(neutral, first)
    together = index(_TOGETHER * e.lanes)
    many = b.sub(end, b.srem(end, together))
    with b.if_then(b.icmp_signed(">", many, index(0))):
        for place in others:
            b.store(neutral, place)
        with cgutils.for_range_slice(b, index(0), many, together, intp=cgutils.intp_t) as (at, _):
            add(at, places)
        for place in others:
            b.store(operation(b, b.load(first), b.load(place)), first)
    with cgutils.for_range_slice(b, many, end, index(e.lanes), intp=cgutils.intp_t) as (at, _):
        add(at, [first])
    return b.load(first)


def _with_numbers(X: Any, numbers: Any, out: Any, operation: _Operation) -> Any:
    """Return what writes each entry, changed by its row's number, and its types."""

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        e = Emitter(context, b, X.dtype, _BYTES)
        sources, targets = _Rows(e, X, arguments[0]), _Rows(e, out, arguments[2])
        sources.copy_end(back=False)
        own = context.make_array(numbers)(context, b, arguments[1]).data
        step = index(e.lanes)
        with cgutils.for_range_slice(b, index(0), sources.first, index(1), intp=cgutils.intp_t) as (row, _):
            number = e.everywhere(b.load(b.gep(own, [row])))
            source, target = sources.places(row)[0], targets.places(row)[0]
            with cgutils.for_range_slice(b, index(0), sources.columns, step, intp=cgutils.intp_t) as (at, _):
                e.store(operation(b, e.load(source, at), number), target, at)
        with cgutils.for_range_slice(b, sources.first, sources.count, index(1), intp=cgutils.intp_t) as (row, _):
            number = e.everywhere(b.load(b.gep(own, [row])))
            (source, source_last), (target, target_last) = sources.places(row), targets.places(row)
            with cgutils.for_range_slice(b, index(0), sources.last, step, intp=cgutils.intp_t) as (at, _):
                e.store(operation(b, e.load(source, at), number), target, at)
            e.store(operation(b, e.load(source_last, index(0)), number), target_last, index(0))
        targets.copy_end(back=True)
        return context.get_dummy_value()

    return types.void(X, numbers, out), emit


def _row_maxima_twin(X, out):  # type: ignore[no-untyped-def]
    out[: len(X)] = np.fmax.reduce(X, axis=1, initial=-np.inf)


def _row_sums_twin(X, out):  # type: ignore[no-untyped-def]
    out[: len(X)] = X.sum(axis=1)


def _minus_numbers_twin(X, numbers, out):  # type: ignore[no-untyped-def]
    out[...] = X - numbers[: len(X), None]


def _times_numbers_twin(X, numbers, out):  # type: ignore[no-untyped-def]
    out[...] = X * numbers[: len(X), None]


@intrinsic(twin=_row_maxima_twin)
def row_maxima(typingctx, X, out):  # type: ignore[no-untyped-def]
    """Leave the largest of each row in `out`, -inf for none; NaN may be passed over."""
    return _reduction(X, out, -np.inf, _larger)


@intrinsic(twin=_row_sums_twin)
def row_sums(typingctx, X, out):  # type: ignore[no-untyped-def]
    """Leave the sum of each row in `out`."""
    return _reduction(X, out, 0.0, ir.IRBuilder.fadd)


@intrinsic(twin=_minus_numbers_twin)
def minus_numbers(typingctx, X, numbers, out):  # type: ignore[no-untyped-def]
    """Write each entry less its row's number."""
    return _with_numbers(X, numbers, out, ir.IRBuilder.fsub)


@intrinsic(twin=_times_numbers_twin)
def times_numbers(typingctx, X, numbers, out):  # type: ignore[no-untyped-def]
    """Write each entry times its row's number."""
    return _with_numbers(X, numbers, out, ir.IRBuilder.fmul)
