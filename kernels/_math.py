"""exp, sigmoid, softplus and log for scalars, without branches, so that loops over them use vectors.

LLVM has no vector exp of its own: a call to the C library's keeps a loop scalar and costs five to ten
times as much. These functions are plain arithmetic instead, written once for float32 and float64; what
differs between the two (coefficients, limits) stands in two tables. Sums keep their order here (policy
``scalar``), because the argument reductions rely on it.

exp. x = n ln 2 + r with |r| <= ln 2 / 2, after Cody and Waite: n is rounded by adding and taking away
1.5 * 2^(mantissa bits), and ln 2 is split so that n * high is exact. exp(r) = 1 + (r + r^2 q(r)) with a
minimax q (Remez; relative error 3e-9 for float32, 4e-18 for float64). The result is scaled by 2^n in two
steps, so that it underflows gradually and overflows to infinity. At most 1.5 ulp.

log1p on [0, 1]. With t = u / (2 + u) and s = t^2, log1p(u) = 2 artanh(t) = u - t (u - 2 s q(s)) with a
minimax q on [0, 1/9] (1e-10, 1e-18): the leading term carries no error. At most 1.3 ulp.

log on [1, inf). x = 2^k m with m in [sqrt(1/2), sqrt(2)), log x = k ln 2 + 2 artanh((m - 1) / (m + 1)).
At most 1.2 ulp.

The bounds hold with and without fused multiply-add; they round up the largest errors found in dense sweeps;
softplus stays within 2.2 ulp, sigmoid within 2.6.

Sources: W. J. Cody and W. Waite, Software Manual for the Elementary Functions (1980), chapters 5 and
6; J.-M. Muller, Elementary Functions (3rd ed., 2016), chapters 3 and 11. Coefficients: own Remez runs in
50 digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from ._jit import intrinsic, scalar

__all__ = ["exp", "like", "log", "log1p", "maximum", "sigmoids", "softplus"]

_FLOAT64 = np.dtype(np.float64)

#: Each row: a float32 and a float64 value.
_CONSTANTS: dict[str, tuple[float, float]] = {
    "log2(e)": (1.4426950408889634, 1.4426950408889634),
    "ln2 high": (0.693359375, 6.93145751953125e-1),
    "ln2 low": (-2.12194440054690583e-4, 1.42860682030941723212e-6),
    "round": (1.5 * 2.0**23, 1.5 * 2.0**52),
    "exp is 0 below": (-104.0, -745.2),
    "exp is inf above": (89.0, 710.0),
}

#: Coefficients of ascending powers.
_POLYNOMIALS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "exp": (
        (
            0.49999993432169986952, 0.16666520399104545116, 0.041666390769680732689, 0.0083687451046070680644,
            0.0013814541056545701104,
        ),
        (
            0.50000000000000106687, 0.16666666666666411501, 0.041666666666529728703, 0.0083333333334949830607,
            0.0013888888943759844822, 0.00019841269505759292153, 0.000024801492949755010567, 2.7557586818266118464e-6,
            2.7630306208172276253e-7, 2.5000013913453014473e-8,
        ),
    ),
    "artanh": (
        (
            0.3333333783495194261, 0.19999436440226686395, 0.14308517590459071269, 0.10712926092351533083,
            0.12154160227397844706,
        ),
        (
            0.33333333333333149959, 0.20000000000079382944, 0.14285714273824772145, 0.11111111991548523565,
            0.090908717163714801563, 0.076932854112828295768, 0.066504127273787477699, 0.060536475850233295581,
            0.041673332528562665985, 0.085144587494897963147,
        ),
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------------- intrinsics


def _like_twin(x: Any, value: Any) -> Any:
    return np.asarray(x).dtype.type(value)


@intrinsic(twin=_like_twin)
def like(typingctx, x, value):  # type: ignore[no-untyped-def]
    """``like(x, value)``: `value` in the type of `x`; a bare literal would turn float32 into float64."""

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        return context.cast(b, arguments[1], signature.args[1], signature.return_type)

    return x(x, types.unliteral(value)), emit


def _constant_twin(name: str, x: Any) -> Any:
    dtype = np.asarray(x).dtype
    return dtype.type(_CONSTANTS[name][dtype == _FLOAT64])


@intrinsic(twin=_constant_twin)
def _constant(typingctx, name, x):  # type: ignore[no-untyped-def]
    """``_constant(name, x)``: the value of the table for the type of `x`."""
    if not isinstance(name, types.StringLiteral):
        return None  # asked again with the literal
    value = _CONSTANTS[name.literal_value][x == types.float64]

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        return context.get_constant(x, value)

    return x(name, x), emit


def _polynomial_twin(name: str, x: Any) -> Any:
    dtype = np.asarray(x).dtype
    *rest, total = (dtype.type(c) for c in _POLYNOMIALS[name][dtype == _FLOAT64])
    for coefficient in reversed(rest):
        total = total * x + coefficient
    return total


@intrinsic(twin=_polynomial_twin)
def _polynomial(typingctx, name, x):  # type: ignore[no-untyped-def]
    """``_polynomial(name, x)``: Horner's rule with the coefficients for the type of `x`."""
    if not isinstance(name, types.StringLiteral):
        return None  # asked again with the literal
    coefficients = _POLYNOMIALS[name.literal_value][x == types.float64]

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        *rest, last = coefficients
        total = context.get_constant(x, last)
        for coefficient in reversed(rest):
            product = b.fmul(total, arguments[1], flags=("contract",))
            total = b.fadd(product, context.get_constant(x, coefficient), flags=("contract",))
        return total

    return x(name, x), emit


def _times_power_twin(x: Any, shifted: Any) -> Any:
    magic = _constant_twin("round", x)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return x if np.isnan(shifted) else np.ldexp(x, int(shifted - magic))


@intrinsic(twin=_times_power_twin)
def _times_power(typingctx, x, shifted):  # type: ignore[no-untyped-def]
    """``_times_power(x, shifted)``: x * 2^n, where the low bits of `shifted` hold n.

    Two factors, so that both are ordinary numbers and only the last product rounds: a result below
    the normal range is rounded once.
    """
    bits, mantissa, bias = (32, 23, 127) if x == types.float32 else (64, 52, 1023)

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        integer, kind = ir.IntType(bits), arguments[0].type
        raw = b.bitcast(arguments[1], integer)
        magic = b.bitcast(context.get_constant(x, _CONSTANTS["round"][x == types.float64]), integer)
        # (n + 2^k) / 2 without a sign to extend, which AVX2 cannot do in 64 bits; 2^k / 2 leaves at the top.
        even = 1 << (bits - mantissa)
        half = b.lshr(b.add(b.sub(raw, magic), integer(even)), integer(1))
        first = b.add(b.shl(half, integer(mantissa)), integer((bias << mantissa) + (even >> 1 << mantissa)))
        # Shifted to the exponent's place, n and the bits of `shifted` are the same.
        second = b.sub(b.add(b.shl(raw, integer(mantissa)), integer(2 * bias << mantissa)), first)
        return b.fmul(b.fmul(arguments[0], b.bitcast(first, kind)), b.bitcast(second, kind))

    return x(x, x), emit


def _split_twin(x: Any) -> Any:
    fraction, exponent = np.frexp(x)
    if fraction < np.sqrt(0.5):
        fraction, exponent = fraction * 2, exponent - 1
    dtype = np.asarray(x).dtype
    return dtype.type(exponent), dtype.type(fraction)


@intrinsic(twin=_split_twin)
def _split(typingctx, x):  # type: ignore[no-untyped-def]
    """``_split(x)``: (k, m) with x = 2^k m and m in [sqrt(1/2), sqrt(2)), for normal positive x."""
    bits, mantissa = (32, 23) if x == types.float32 else (64, 52)
    root = int(np.sqrt(0.5).astype(f"f{bits // 8}").view(f"i{bits // 8}"))
    pair = types.UniTuple(x, 2)

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        integer = ir.IntType(bits)
        as_bits = b.bitcast(arguments[0], integer)
        k = b.ashr(b.sub(as_bits, integer(root)), integer(mantissa))
        m = b.bitcast(b.sub(as_bits, b.shl(k, integer(mantissa))), arguments[0].type)
        return context.make_tuple(b, pair, (b.sitofp(k, arguments[0].type), m))

    return pair(x), emit


def _maximum_twin(x: Any, y: Any) -> Any:
    return np.maximum(x, y)


@intrinsic(twin=_maximum_twin)
def maximum(typingctx, x, y):  # type: ignore[no-untyped-def]
    """Return the larger of two floats, NaN if either is: loops over it use vectors, unlike ``max``."""

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        kind = arguments[0].type
        name = "llvm.maximum.f32" if x == types.float32 else "llvm.maximum.f64"
        function = cgutils.get_or_insert_function(b.module, ir.FunctionType(kind, [kind, kind]), name)
        return b.call(function, arguments, fastmath=("nsz",))

    return x(x, x), emit


# -------------------------------------------------------------------------------------- functions


@scalar
def exp(x):  # type: ignore[no-untyped-def]
    """Exponential of x: gradual underflow, inf above the range, NaN for NaN."""
    low, high = _constant("exp is 0 below", x), _constant("exp is inf above", x)
    x = low if x < low else x
    x = high if x > high else x
    shifted = x * _constant("log2(e)", x) + _constant("round", x)
    n = shifted - _constant("round", x)
    r = (x - n * _constant("ln2 high", x)) - n * _constant("ln2 low", x)
    return _times_power(like(x, 1) + (r + r * r * _polynomial("exp", r)), shifted)


@scalar
def log1p(u):  # type: ignore[no-untyped-def]
    """Natural logarithm of 1 + u for u in [0, 1]; NaN for NaN."""
    t = u / (like(u, 2) + u)
    s = t * t
    return u - t * (u - (s + s) * _polynomial("artanh", s))


@scalar
def log(x):  # type: ignore[no-untyped-def]
    """Natural logarithm of x = 0 or x >= 1, infinity included; NaN for NaN."""
    k, m = _split(x)
    u = m - like(x, 1)
    t = u / (like(x, 2) + u)
    s = t * t
    near_one = u - t * (u - (s + s) * _polynomial("artanh", s))
    value = k * _constant("ln2 high", x) + (near_one + k * _constant("ln2 low", x))
    infinity = like(x, np.inf)
    value = value if x < infinity else x
    return -infinity if x == like(x, 0) else value


@scalar
def softplus(z):  # type: ignore[no-untyped-def]
    """log(1 + e^z) = max(z, 0) + log1p(e^-|z|): never overflows, exact in the tails."""
    tail = log1p(exp(-abs(z)))
    return tail if z < like(z, 0) else z + tail


@scalar
def sigmoids(z):  # type: ignore[no-untyped-def]
    """(sigmoid(z), sigmoid(-z)) from one exponential; each keeps its relative accuracy."""
    e = exp(-abs(z))
    larger, smaller = like(z, 1) / (like(z, 1) + e), e / (like(z, 1) + e)
    return (smaller, larger) if z < like(z, 0) else (larger, smaller)
