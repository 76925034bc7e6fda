"""How totals end of metrics that are compiled by themselves: from what is added up to what is compared.

Inner products are compared as integers, too: the bits of a float that is not negative have its order, and those of a
negative one have it when all but the sign are turned around. Of -x.y this makes the largest product come first; 0 and
-0 are made equal, and NaN comes last. `products` is the way back.

Of Jaccard's distance the differing bits are kept above the joined ones in one number. Their quotient in float64 has
the order of the fractions: two that differ do so by more than rounding, up to 2^26 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numpy.typing import NDArray

from ..runtime.jit import intrinsic
from ..simd.llvm import constant_vector, index, load, store
from ._tile_metrics import kept_as, metrics_of
from .tile_shapes import tile_shape

__all__ = ["conclude", "product_keys", "products"]


def products(keys: NDArray[Any]) -> NDArray[Any]:
    """Return the inner products that keys stand for."""
    floats: NDArray[Any] = -_turned(keys).view(f"f{keys.itemsize}")
    return floats


def product_keys(products: NDArray[Any]) -> NDArray[Any]:
    """Return the keys of inner products, which are not NaN: the largest product has the smallest key."""
    return _turned((-(products + 0)).view(f"i{products.itemsize}"))


def _turned(bits: NDArray[Any]) -> NDArray[Any]:
    """Return bits in the order of floats as integers in this order, or the other way around."""
    turned: NDArray[Any] = bits ^ ((bits >> (8 * bits.itemsize - 1)) & np.iinfo(bits.dtype).max)
    return turned


def _conclude_twin(Y, totals, row, begin, end):  # type: ignore[no-untyped-def]
    metric = metrics_of(Y.dtype, totals.dtype)[0]
    kept = totals.view(kept_as(metric, Y.dtype, totals.dtype))[row, begin:end]
    if metric == "inner_product":
        nan = np.array(np.nan, Y.dtype).view(totals.dtype)
        totals[row, begin:end] = np.where(np.isnan(kept), nan, product_keys(kept))
    elif metric == "jaccard":
        totals[row, begin:end] = (kept >> 32) / np.maximum(kept & 0xFFFFFFFF, 1)


@intrinsic(twin=_conclude_twin)
def conclude(typingctx, Y, totals, row, begin, end):  # type: ignore[no-untyped-def]
    """Make of what is added up in ``totals[row, begin:end]`` what is compared; for most rows and totals nothing.

    ``conclude(Y, totals, row, begin, end)``: `Y` is packed; from `begin` on there are whole panels.
    """

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        rows, of_totals = (np.dtype(str(array.dtype)) for array in (Y, totals))
        metric = metrics_of(rows, of_totals)[0]
        if metric in _CONCLUSIONS:
            stored = ir.VectorType(context.get_data_type(totals.dtype), tile_shape(metric, rows).lanes)
            block = context.make_array(totals)(context, b, arguments[1])
            start = b.mul(arguments[2], cgutils.unpack_tuple(b, block.shape, 2)[1])
            first, last = arguments[3:]
            with cgutils.for_range_slice(b, first, last, index(stored.count), cgutils.intp_t) as (column, _):
                place = b.bitcast(b.gep(block.data, [b.add(start, column)]), stored.as_pointer())
                store(b, _CONCLUSIONS[metric](b, load(b, place)), place)
        return context.get_dummy_value()

    return types.void(Y, totals, types.intp, types.intp, types.intp), emit


def _key_of_product(b: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    kind, width = bits.type, bits.type.element.width
    floats = ir.VectorType(ir.FloatType() if width == 32 else ir.DoubleType(), kind.count)
    most = (1 << (width - 1)) - 1
    product = b.bitcast(bits, floats)
    # Without a flag of its own the addition has that which says that the sign of 0 does not matter.
    without_sign = b.fadd(product, constant_vector(floats, 0.0), flags=("contract",))
    negative = b.xor(b.bitcast(without_sign, kind), constant_vector(kind, 1 << (width - 1)))
    signs = b.ashr(negative, constant_vector(kind, width - 1))
    key = b.xor(negative, b.and_(signs, constant_vector(kind, most)))
    nan = int(np.array(np.nan, f"f{width // 8}").view(f"i{width // 8}")[()])
    return b.select(b.fcmp_unordered("uno", product, product), constant_vector(kind, nan), key)


def _quotient_of_counts(b: ir.IRBuilder, counts: ir.Value) -> ir.Value:
    bits, halves = (ir.VectorType(ir.IntType(width), counts.type.count) for width in (64, 32))
    both = b.bitcast(counts, bits)
    differing = b.trunc(b.lshr(both, constant_vector(bits, 32)), halves)
    joined = b.trunc(both, halves)
    ones = constant_vector(halves, 1)
    joined = b.select(b.icmp_signed("<", joined, ones), ones, joined)
    return b.fdiv(*(b.sitofp(count, counts.type) for count in (differing, joined)), flags=("contract",))


_CONCLUSIONS: dict[str, Callable[[ir.IRBuilder, ir.Value], ir.Value]] = {
    "inner_product": _key_of_product,
    "jaccard": _quotient_of_counts,
}
