"""Comparisons of a row of integer keys with thresholds, a vector at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from ..runtime.jit import intrinsic
from .llvm import broadcast, call, call_for_vector, index, load, pointer_to

__all__ = ["KEYS_AT_ONCE", "below", "lowest_bit", "not_above_each", "smallest"]


#: Keys that `below` compares in one go; a row of totals is padded to a multiple of it.
KEYS_AT_ONCE = 32


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
        own = load(b, pointer_to(context, b, limits, arguments[2], arguments[3], canonical.type))
        return _lanes_as_bits(b, b.icmp_signed("<=", canonical, own))

    return types.int64(keys, types.intp, limits, types.intp, types.int64, types.int64), emit


def _smallest_twin(keys, size, mask, ceiling):  # type: ignore[no-untyped-def]
    return int(np.minimum(keys[:size] & mask, ceiling).min())


@intrinsic(twin=_smallest_twin)
def smallest(typingctx, keys, size, mask, ceiling):  # type: ignore[no-untyped-def]
    """Return the smallest of the first `size` keys, of at least one: ``min(key & mask, ceiling)``.

    ``smallest(keys, size, mask, ceiling)`` reads whole vectors of 32 keys.
    """

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        value, count, mask, ceiling = arguments
        vector = ir.VectorType(context.get_data_type(keys.dtype), KEYS_AT_ONCE)
        worst = _splat_key(b, ceiling, vector)
        best = cgutils.alloca_once_value(b, worst)
        whole = b.sdiv(count, index(KEYS_AT_ONCE))
        with cgutils.for_range(b, whole) as loop:
            at = b.mul(loop.index, index(KEYS_AT_ONCE))
            found = b.and_(load(b, pointer_to(context, b, keys, value, at, vector)), _splat_key(b, mask, vector))
            b.store(call_for_vector(b, "llvm.smin", vector, b.load(best), found), best)
        done = b.mul(whole, index(KEYS_AT_ONCE))
        with b.if_then(b.icmp_signed("<", done, count)):
            found = b.and_(load(b, pointer_to(context, b, keys, value, done, vector)), _splat_key(b, mask, vector))
            lanes = ir.Constant(vector, list(range(KEYS_AT_ONCE)))
            exists = b.icmp_signed("<", lanes, _splat_key(b, b.sub(count, done), vector))
            found = b.select(exists, found, worst)
            b.store(call_for_vector(b, "llvm.smin", vector, b.load(best), found), best)
        kind = f"v{KEYS_AT_ONCE}i{vector.element.width}"
        least = call(b, f"llvm.vector.reduce.smin.{kind}", vector.element, b.load(best))
        return b.sext(least, ir.IntType(64)) if vector.element.width < 64 else least

    return types.int64(keys, types.intp, types.int64, types.int64), emit


def _canonical_keys(
    context: Any, b: ir.IRBuilder, keys: Any, value: ir.Value, at: ir.Value, mask: ir.Value, ceiling: ir.Value
) -> ir.Value:
    """Load 32 keys, without their signs and with one key for every NaN."""
    vector = ir.VectorType(context.get_data_type(keys.dtype), KEYS_AT_ONCE)
    loaded = load(b, pointer_to(context, b, keys, value, at, vector))
    return call_for_vector(
        b, "llvm.smin", vector, b.and_(loaded, _splat_key(b, mask, vector)), _splat_key(b, ceiling, vector)
    )


def _splat_key(b: ir.IRBuilder, value: ir.Value, vector: ir.VectorType) -> ir.Value:
    return broadcast(b, b.trunc(value, vector.element) if value.type != vector.element else value, vector)


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
