"""What a hidden layer does to its values: activation functions, their derivatives, dropout.

A derivative is made from the function's value, so that nothing but the values is kept for the way back. Loops run over
the units of one row, which may be a part of all units: each entry's bits depend on that entry alone.

Dropout. Whether a value is dropped is a hash of what it belongs to (seed, step, layer, row of the batch, unit), and
not one of a sequence of random numbers. So it is the same for any number of threads, and is not kept either: the way
back asks once more. Source of the hash: G. L. Steele et al., "Fast splittable pseudorandom number generators"
(2014), with the constants of D. Stafford's mix 13.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from ..runtime.jit import inner, intrinsic
from ..simd.functions import like, maximum, sigmoids, tanh
from .arguments import ACTIVATIONS

__all__ = ["activate", "activate_backward", "drop", "drop_backward", "mixed"]

_RELU, _LOGISTIC, _TANH = (list(ACTIVATIONS).index(name) for name in ("relu", "logistic", "tanh"))


# A loop for each, and not one over a function chosen by number: that takes 9 % longer with 64-32-10 units.


@inner
def activate(kind, z, a):  # type: ignore[no-untyped-def]
    """Store the activations of z in a."""
    if kind == _RELU:
        for j in range(a.size):
            a[j] = maximum(z[j], like(z[j], 0))
    elif kind == _LOGISTIC:
        for j in range(a.size):
            a[j] = sigmoids(z[j])[0]
    elif kind == _TANH:
        for j in range(a.size):
            a[j] = tanh(z[j])
    else:
        for j in range(a.size):
            a[j] = z[j]


@inner
def activate_backward(kind, a, d, g):  # type: ignore[no-untyped-def]
    """``g = d`` times the activation's derivative, where its value is a; ReLU's is 0 at 0."""
    if kind == _RELU:
        for j in range(g.size):
            g[j] = d[j] if a[j] > like(a[j], 0) else like(a[j], 0)
    elif kind == _LOGISTIC:
        for j in range(g.size):
            g[j] = d[j] * (a[j] * (like(a[j], 1) - a[j]))
    elif kind == _TANH:
        for j in range(g.size):
            g[j] = d[j] * (like(a[j], 1) - a[j] * a[j])
    else:
        for j in range(g.size):
            g[j] = d[j]


@inner
def drop(key, first, threshold, scale, a):  # type: ignore[no-untyped-def]
    """Set to 0 what is dropped of units `first` and on, and multiply the rest by `scale`."""
    for j in range(a.size):
        a[j] = a[j] * scale if mixed(key, first + j) >= threshold else like(scale, 0)


@inner
def drop_backward(key, first, threshold, scale, a, d, kept):  # type: ignore[no-untyped-def]
    """``kept`` = what was in a before `drop`; d becomes the gradient in that, 0 where it was dropped."""
    for j in range(a.size):
        here = mixed(key, first + j) >= threshold
        kept[j] = a[j] / scale if here else like(scale, 0)
        d[j] = d[j] * scale if here else like(scale, 0)


_MASK = (1 << 64) - 1
_STEP, _FACTORS = 0x9E3779B97F4A7C15, (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def _mixed_twin(key: Any, number: Any) -> int:
    z = (int(key) + (int(number) + 1) * _STEP) & _MASK
    z = ((z ^ (z >> 30)) * _FACTORS[0]) & _MASK
    z = ((z ^ (z >> 27)) * _FACTORS[1]) & _MASK
    return (z ^ (z >> 31)) >> 1


@intrinsic(twin=_mixed_twin)
def mixed(typingctx, key, number):  # type: ignore[no-untyped-def]
    """``mixed(key, number)``: 63 random bits, the same whenever both are."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        word = ir.IntType(64)
        key, number = arguments
        z = builder.add(key, builder.mul(builder.add(number, word(1)), word(_STEP)))
        for shift, factor in zip((30, 27), _FACTORS, strict=True):
            z = builder.mul(builder.xor(z, builder.lshr(z, word(shift))), word(factor))
        return builder.lshr(builder.xor(z, builder.lshr(z, word(31))), word(1))

    return types.int64(types.int64, types.int64), emit
