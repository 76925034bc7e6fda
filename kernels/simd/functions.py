"""exp, sigmoid, softplus and log for scalars, without branches, so that loops over them use vectors.

LLVM has no vector exp of its own: a call to the C library's keeps a loop scalar and costs five to ten
times as much. These functions are plain arithmetic instead, written once for float32 and float64; what
differs between the two (coefficients, limits) stands in two tables. Sums keep their order here (policy
``scalar``), because the argument reductions rely on it.

exp. x = n ln 2 + r with |r| <= ln 2 / 2, after Cody and Waite: n is rounded by adding and taking away
1.5 * 2^(mantissa bits) and a whole number, and ln 2 is split so that n * high is exact. exp(r) = 1 + p with
p = r + r^2 q(r) and a minimax q (Remez; relative error 3e-9 for float32, 4e-18 for float64). The result is
scaled by 2^n in two steps, so that it underflows gradually and overflows to infinity; one step is enough where
only the quotient by a sum counts (`scaled_exp`). At most 1.5 ulp.

log1p on [0, 1]. With t = u / (2 + u) and s = t^2, log1p(u) = 2 artanh(t) = u - t (u - 2 s q(s)) with a
minimax q on [0, 1/9] (1e-10, 1e-18): the leading term carries no error. At most 1.3 ulp.

log on [1, inf). x = 2^k m with m in [sqrt(1/2), sqrt(2)), log x = k ln 2 + 2 artanh((m - 1) / (m + 1)).
At most 1.2 ulp.

softplus and sigmoid. From e^-|z|, with what 1 + p and the sums after it lose to rounding put back before the
last operation (Fast2Sum, Dekker; 2Sum, Knuth). softplus: At most 1.9 ulp. sigmoid: At most 1.9 ulp.

tanh. (1 - e) / (1 + e) with e = e^-2|z|, corrected like sigmoid. Near 0 the numerator is -p, which must be good by
itself: a q of one more power, minimax for the relative error of p (2e-10, 3e-19). Odd. tanh: At most 1.9 ulp.

The bounds hold with and without fused multiply-add, where results are subnormal too. They round up the
largest errors found: among all arguments for float32, in dense sweeps for float64.

Sources: W. J. Cody and W. Waite, Software Manual for the Elementary Functions (1980), chapters 5 and
6; J.-M. Muller, Elementary Functions (3rd ed., 2016), chapters 3 and 11; T. J. Dekker, A Floating-Point
Technique for Extending the Available Precision, Numer. Math. 18 (1971); D. E. Knuth, The Art of Computer
Programming, vol. 2, 4.2.2. Coefficients: own Remez runs in
50 digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from ..runtime.jit import intrinsic, scalar

__all__ = [
    "exp",
    "like",
    "log",
    "log1p",
    "maximum",
    "minimum",
    "scale_of_exp",
    "scaled_exp",
    "sigmoids",
    "softplus",
    "tanh",
]

_FLOAT64 = np.dtype(np.float64)

#: Each row: a float32 and a float64 value.
_CONSTANTS: dict[str, tuple[float, float]] = {
    "log2(e)": (1.4426950408889634, 1.4426950408889634),
    "ln2 high": (0.693359375, 6.93145751953125e-1),
    "ln2 low": (-2.12194440054690583e-4, 1.42860682030941723212e-6),
    "round": (1.5 * 2.0**23 + 126, 1.5 * 2.0**52 + 1022),
    "round scaled": (1.5 * 2.0**23 + 127 + 25, 1.5 * 2.0**52 + 1023 + 54),
    "scale of exp": (2.0**25, 2.0**54),
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
    "expm1": (
        (
            0.50000000442683163398, 0.16666666369758838551, 0.04166636042854763824, 0.0083333894575958711077,
            0.0013940668462517602554, 0.00019845881898956300237,
        ),
        (
            0.50000000000000000085, 0.16666666666666676547, 0.041666666666666508149, 0.0083333333333216541669,
            0.0013888888888962605816, 0.0001984126988607347428, 0.000024801587172229964957, 2.75572442541605237e-6,
            2.7557402774820039952e-7, 2.5109024474917685475e-8, 2.08753293674127413e-9,
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


def _multiply_add(b: ir.IRBuilder, x: ir.Value, y: ir.Value, z: ir.Value) -> ir.Value:
    """Return x * y + z, fused where the target can."""
    return b.fadd(b.fmul(x, y, flags=("contract",)), z, flags=("contract",))


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
            total = _multiply_add(b, total, arguments[1], context.get_constant(x, coefficient))
        return total

    return x(name, x), emit


def _in_pairs_twin(name: str, x: Any, square: Any) -> Any:
    dtype = np.asarray(x).dtype
    coefficients = [dtype.type(c) for c in _POLYNOMIALS[name][dtype == _FLOAT64]]
    pairs = [d * x + c for c, d in zip(coefficients[::2], coefficients[1::2], strict=False)]
    *rest, total = pairs + (coefficients[-1:] if len(coefficients) % 2 else [])
    for pair in reversed(rest):
        total = total * square + pair
    return total


@intrinsic(twin=_in_pairs_twin)
def _in_pairs(typingctx, name, x, square):  # type: ignore[no-untyped-def]
    """``_in_pairs(name, x, x * x)``: as `_polynomial`, by Horner's rule in x^2 on pairs c + d x."""
    if not isinstance(name, types.StringLiteral):
        return None  # asked again with the literal
    coefficients = _POLYNOMIALS[name.literal_value][x == types.float64]

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        _, x_value, squared = arguments
        constants = [context.get_constant(x, coefficient) for coefficient in coefficients]
        pairs = [_multiply_add(b, d, x_value, c) for c, d in zip(constants[::2], constants[1::2], strict=False)]
        pairs += constants[-1:] if len(constants) % 2 else []
        *rest, total = pairs
        for pair in reversed(rest):
            total = _multiply_add(b, total, squared, pair)
        return total

    return x(name, x, x), emit


def _factors_twin(shifted: Any) -> Any:
    dtype = np.asarray(shifted).dtype
    if np.isnan(shifted):
        return shifted, shifted
    n, lowest = int(shifted - _constant_twin("round", shifted)), np.finfo(dtype).minexp + 2
    first = max(n, lowest) - 1
    return np.ldexp(dtype.type(1), first), np.ldexp(dtype.type(1), n - first)


@intrinsic(twin=_factors_twin)
def _factors(typingctx, shifted):  # type: ignore[no-untyped-def]
    """``_factors(shifted)``: two powers of two whose product is 2^n, with n from the low bits of `shifted`.

    A number near 1 stays a normal one when it is multiplied by the first, so that only the second
    product rounds: once where the result is subnormal, to infinity where it is too large. n may be as low
    as that of the smallest subnormal, and as high as that of the largest number plus one.
    """
    bits, mantissa, bias = (32, 23, 127) if shifted == types.float32 else (64, 52, 1023)
    pair = types.UniTuple(shifted, 2)

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        integer, kind = ir.IntType(bits), arguments[0].type
        # At the exponent's place these are the bits of 2^(n - 1): "round" ends in bias - 1.
        all_of_it = b.shl(b.bitcast(arguments[0], integer), integer(mantissa))
        lowest = integer(2 << mantissa)
        first = b.select(b.icmp_signed(">", all_of_it, lowest), all_of_it, lowest)
        second = b.add(b.sub(all_of_it, first), integer((bias + 1) << mantissa))
        return context.make_tuple(b, pair, (b.bitcast(first, kind), b.bitcast(second, kind)))

    return pair(shifted), emit


def _power_twin(shifted: Any) -> Any:
    dtype = np.asarray(shifted).dtype
    mantissa, bias = (23, 127) if dtype != _FLOAT64 else (52, 1023)
    if np.isnan(shifted):
        return shifted
    return np.ldexp(dtype.type(1), int(shifted - dtype.type(1.5 * 2.0**mantissa)) - bias)


@intrinsic(twin=_power_twin)
def _power(typingctx, shifted):  # type: ignore[no-untyped-def]
    """``_power(shifted)``: 2^n where the low bits of `shifted` hold n plus the bias of exponents."""
    bits, mantissa = (32, 23) if shifted == types.float32 else (64, 52)

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        integer = ir.IntType(bits)
        return b.bitcast(b.shl(b.bitcast(arguments[0], integer), integer(mantissa)), arguments[0].type)

    return shifted(shifted), emit


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
    return x(x, x), _either("maximum")


def _minimum_twin(x: Any, y: Any) -> Any:
    return np.minimum(x, y)


@intrinsic(twin=_minimum_twin)
def minimum(typingctx, x, y):  # type: ignore[no-untyped-def]
    """Return the smaller of two floats, NaN if either is."""
    return x(x, x), _either("minimum")


def _either(which: str) -> Any:
    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        kind = arguments[0].type
        name = f"llvm.{which}.{'f32' if signature.return_type == types.float32 else 'f64'}"
        function = cgutils.get_or_insert_function(b.module, ir.FunctionType(kind, [kind, kind]), name)
        return b.call(function, arguments, fastmath=("nsz",))

    return emit


# -------------------------------------------------------------------------------------- functions


@scalar
def _reduced(x, rounding):  # type: ignore[no-untyped-def]
    """(r, shifted) with x = n ln 2 + r, |r| <= ln 2 / 2 and n + `rounding` in the low bits of `shifted`."""
    shifted = x * _constant("log2(e)", x) + rounding
    n = shifted - rounding
    return (x - n * _constant("ln2 high", x)) - n * _constant("ln2 low", x), shifted


@scalar
def _expm1(r):  # type: ignore[no-untyped-def]
    """e^r - 1 for |r| <= ln 2 / 2."""
    square = r * r
    return r + square * _in_pairs("exp", r, square)


@scalar
def exp(x):  # type: ignore[no-untyped-def]
    """Exponential of x: gradual underflow, inf above the range, NaN for NaN."""
    # The constants come first: then it is one instruction each that hands on NaN.
    x = minimum(_constant("exp is inf above", x), maximum(_constant("exp is 0 below", x), x))
    r, shifted = _reduced(x, _constant("round", x))
    first, second = _factors(shifted)
    return (first + first * _expm1(r)) * second  # first * (1 + p), rounded once


@scalar
def scaled_exp(x):  # type: ignore[no-untyped-def]
    """`scale_of_exp` times e^x for x <= 0, so much that it is never subnormal; at least the smallest normal number.

    Where it is divided by a sum of such numbers that holds e^0, the quotient underflows gradually, and to 0.
    """
    r, shifted = _reduced(maximum(_constant("exp is 0 below", x), x), _constant("round scaled", x))
    power = _power(shifted)
    return power + power * _expm1(r)


@scalar
def scale_of_exp(x):  # type: ignore[no-untyped-def]
    """Return 2^25 for float32, 2^54 for float64."""
    return _constant("scale of exp", x)


@scalar
def _log1p_rest(u):  # type: ignore[no-untyped-def]
    """log(1 + u) - u for u in [0, 1]: a third of log(1 + u) at most, so that its error counts less."""
    t = u / (like(u, 2) + u)
    s = t * t
    return t * ((s + s) * _polynomial("artanh", s) - u)


@scalar
def log1p(u):  # type: ignore[no-untyped-def]
    """Natural logarithm of 1 + u for u in [0, 1]; NaN for NaN."""
    return u + _log1p_rest(u)


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
    """log(1 + e^z) = max(z, 0) + log1p(e^-|z|): never overflows, exact in the tails.

    The two large summands, max(z, 0) and e^-|z|, are added first. What is lost when the exponential and this sum
    are rounded goes to the small summand.
    """
    one, zero = like(z, 1), like(z, 0)
    r, shifted = _reduced(maximum(_constant("exp is 0 below", z), -abs(z)), _constant("round", z))
    first, second = _factors(shifted)
    p = _expm1(r)
    y = one + p
    u, v = y * first * second, maximum(zero, z)
    total = u + v
    of_v = total - u
    lost = ((u - (total - of_v)) + (v - of_v)) + (p - (y - one)) * first * second
    value = total + (lost + _log1p_rest(u))
    return z if z > like(z, 64) else value  # infinity - infinity would be NaN


@scalar
def sigmoids(z):  # type: ignore[no-untyped-def]
    """(sigmoid(z), sigmoid(-z)) from one exponential; each keeps its relative accuracy.

    With e^|z| = (1 + p) / c, where c = 2^n, the smaller is c / (1 + (p + c)) and the larger 1 minus that. What is lost
    when the denominator is rounded corrects the quotient.
    """
    one, unscaled = like(z, 1), like(z, 1) / scale_of_exp(z)
    r, shifted = _reduced(maximum(_constant("exp is 0 below", z), -abs(z)), _constant("round scaled", z))
    power = _power(shifted)  # c, scaled: so what it is multiplied by is rounded at the end only
    rest = _expm1(-r) + power * unscaled
    total = one + rest
    lost = rest - (total - one)
    quotient = one / total
    smaller = (quotient - quotient * (quotient * lost)) * power * unscaled
    larger = one - smaller
    return (smaller, larger) if z < like(z, 0) else (larger, smaller)


@scalar
def tanh(z):  # type: ignore[no-untyped-def]
    """(1 - e) / (1 + e) with e = e^-2|z|, and the sign of z; near 0 the numerator is made without cancellation.

    With e = 2^n (1 + p), what is lost when 1 + p, 1 - e and 1 + e are rounded corrects numerator and quotient; of a
    correction, 1 / (1 + e) is half of 1 + the quotient.
    """
    one, half, magnitude = like(z, 1), like(z, 0.5), abs(z)
    r, shifted = _reduced(maximum(_constant("exp is 0 below", z), -(magnitude + magnitude)), _constant("round", z))
    first, second = _factors(shifted)
    p, power = r + r * (r * _polynomial("expm1", r)), first * second
    y = one + p
    e, of_e = y * power, (p - (y - one)) * power
    difference, total = one - e, one + e
    lost = ((one - difference) - e) - of_e
    numerator = difference + lost
    rest = (difference - numerator) + lost
    of_total = ((one - total) + e) + of_e
    quotient = numerator / total
    size = quotient + (rest - quotient * of_total) * (half + half * quotient)
    return -size if z < like(z, 0) else (size if z > like(z, 0) else z)
