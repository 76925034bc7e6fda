"""What many loops do with rows in memory: copy them, ask for them, look at a part of an array, add up a few numbers."""

from __future__ import annotations

from numba.core import cgutils, types
from numba.core.imputils import impl_ret_borrowed
from numba.np.arrayobj import populate_array

from ..runtime.jit import inner, intrinsic
from ..runtime.memory import CACHE_LINE
from .functions import like
from .llvm import Emitter

__all__ = [
    "apart",
    "copy",
    "copy_row",
    "frozen",
    "matrix",
    "narrow",
    "prefetch",
    "prefetch_item",
    "prefetch_row",
    "sum_of",
]


def _copy_twin(source, target):  # type: ignore[no-untyped-def]
    target[...] = source


@intrinsic(twin=_copy_twin)
def copy(typingctx, source, target):  # type: ignore[no-untyped-def]
    """``target[...] = source``: contiguous arrays of one shape and dtype that share no memory, or a tuple to an array.

    Numba's assignment looks for memory that is shared, and compiles 34 functions for the message of shapes that differ.
    """
    of_tuple = isinstance(source, types.BaseTuple)
    if target.layout != "C" or not (of_tuple or source == target.copy(readonly=not source.mutable)):
        return None

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        to = context.make_array(target)(context, builder, arguments[1])
        if of_tuple:
            for place, number in enumerate(cgutils.unpack_tuple(builder, arguments[0])):
                number = context.cast(builder, number, source[place], target.dtype)
                builder.store(number, cgutils.gep(builder, to.data, place))
        else:
            of = context.make_array(source)(context, builder, arguments[0])
            cgutils.raw_memcpy(builder, to.data, of.data, of.nitems, of.itemsize)
        return context.get_dummy_value()

    return types.void(source, target), emit


@inner
def narrow(source, target):  # type: ignore[no-untyped-def]
    """``target[:] = source``: a row of float64 sums, to a row of another dtype."""
    for d in range(target.size):
        target[d] = source[d]


def _copy_row_twin(X, row, block, place):  # type: ignore[no-untyped-def]
    block[place, : X.shape[1]] = X[row]


@intrinsic(twin=_copy_row_twin)
def copy_row(typingctx, X, row, block, place):  # type: ignore[no-untyped-def]
    """``block[place, :D] = X[row]``, by whole vectors of which the last two may overlap."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        e = Emitter(context, builder, X.dtype)
        source, columns = e.row(X, arguments[0], arguments[1])
        destination, _ = e.row(block, arguments[2], arguments[3])
        width = e.number(e.lanes)
        with builder.if_else(builder.icmp_signed(">=", columns, width)) as (long, short):
            with long:
                last = builder.sub(columns, width)
                with cgutils.for_range_slice(builder, e.number(0), last, width, intp=cgutils.intp_t) as (at, _):
                    e.store(e.load(source, at), destination, at)
                e.store(e.load(source, last), destination, last)
            with short, cgutils.for_range(builder, columns) as loop:
                builder.store(builder.load(builder.gep(source, [loop.index])), builder.gep(destination, [loop.index]))
        return context.get_dummy_value()

    return types.void(X, types.intp, block, types.intp), emit


def _prefetch_row_twin(X, row):  # type: ignore[no-untyped-def]
    pass


@intrinsic(twin=_prefetch_row_twin)
def prefetch_row(typingctx, X, row):  # type: ignore[no-untyped-def]
    """Ask for a row to be brought into the second-level cache, its last line included."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        e = Emitter(context, builder, X.dtype)
        source, columns = e.row(X, arguments[0], arguments[1])
        line = e.number(CACHE_LINE // e.itemsize)
        with cgutils.for_range_slice(builder, e.number(0), columns, line, intp=cgutils.intp_t) as (at, _):
            e.prefetch(builder.gep(source, [at]))
        e.prefetch(builder.gep(source, [builder.sub(columns, e.number(1))]))
        return context.get_dummy_value()

    return types.void(X, types.intp), emit


def _prefetch_item_twin(values, place):  # type: ignore[no-untyped-def]
    pass


@intrinsic(twin=_prefetch_item_twin)
def prefetch_item(typingctx, values, place):  # type: ignore[no-untyped-def]
    """Ask for one entry of a flat array."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = context.make_array(values)(context, builder, arguments[0]).data
        Emitter(context, builder, values.dtype).prefetch(builder.gep(data, [arguments[1]]))
        return context.get_dummy_value()

    return types.void(values, types.intp), emit


def _prefetch_twin(X, first, last):  # type: ignore[no-untyped-def]
    pass


@intrinsic(twin=_prefetch_twin)
def prefetch(typingctx, X, first, last):  # type: ignore[no-untyped-def]
    """Ask for the rows ``first:last`` of `X` to be brought into the cache; rows beyond its end do no harm."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        e = Emitter(context, builder, X.dtype)
        top, columns = e.row(X, arguments[0], e.number(0))
        begin, end = (builder.mul(argument, columns) for argument in arguments[1:])
        line = e.number(CACHE_LINE // e.itemsize)
        with cgutils.for_range_slice(builder, begin, end, line, intp=cgutils.intp_t) as (at, _):
            e.prefetch(builder.gep(top, [at]))
        return context.get_dummy_value()

    return types.void(X, types.intp, types.intp), emit


def _frozen_twin(array):  # type: ignore[no-untyped-def]
    return array


@intrinsic(twin=_frozen_twin)
def frozen(typingctx, array):  # type: ignore[no-untyped-def]
    """``frozen(array)``: a read-only view, so that what takes it has one compiled form and not one per writeability."""
    result = array.copy(readonly=True)

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return impl_ret_borrowed(context, builder, result, arguments[0])

    return result(array), emit


def _apart_twin() -> None:
    pass


@intrinsic(twin=_apart_twin)
def apart(typingctx):  # type: ignore[no-untyped-def]
    """``apart()``: the function that begins so is not inlined.

    A loop with vectors asks first whether what it writes lies apart from what it reads. Within another loop LLVM asks
    once, for all that loop's rows; where rows that are written take turns the answer is no, and all of it goes without
    vectors.
    """

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), emit


def _matrix_twin(flat, at, rows, columns):  # type: ignore[no-untyped-def]
    return flat[at : at + rows * columns].reshape(rows, columns)


@intrinsic(twin=_matrix_twin)
def matrix(typingctx, flat, at, rows, columns):  # type: ignore[no-untyped-def]
    """``matrix(flat, at, rows, columns)``: a part of a flat array as a matrix; a slice and `reshape` take a call."""
    result = types.Array(flat.dtype, 2, "C", readonly=not flat.mutable)

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        source, at, rows, columns = arguments
        source = context.make_array(flat)(context, builder, source)
        view = context.make_array(result)(context, builder)
        itemsize = context.get_constant(types.intp, flat.dtype.bitwidth // 8)
        populate_array(
            view,
            data=builder.gep(source.data, [at]),
            shape=cgutils.pack_array(builder, [rows, columns]),
            strides=cgutils.pack_array(builder, [builder.mul(columns, itemsize), itemsize]),
            itemsize=itemsize,
            meminfo=source.meminfo,
            parent=source.parent,
        )
        return impl_ret_borrowed(context, builder, result, view._getvalue())

    return result(flat, types.intp, types.intp, types.intp), emit


@inner
def sum_of(values):  # type: ignore[no-untyped-def]
    """Add up a few numbers, in a loop that stores nothing.

    A loop that both sums and stores has a scalar version for arrays that lie close together in
    memory, and that one adds in another order: bits would depend on addresses.
    """
    total = like(values[0], 0)
    for i in range(values.size):
        total += values[i]
    return total
