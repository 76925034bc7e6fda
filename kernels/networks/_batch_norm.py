"""Batch normalisation of a few units of a layer: forwards, and backwards through the statistics of the batch.

With mean m and variance v of a unit's values z over the n rows of a batch, x = (z - m) / sqrt(v + epsilon), and what
goes on is ``scale x + shift``. With a gradient g in that, the one in z is
scale / sqrt(v + epsilon) (g - mean(g) - x mean(g x)).

Means are made first, variances from what is left, so that nothing cancels. All are sums over the rows in their order,
in float64 where that has come from float32: they depend neither on the other units nor on how threads share these.
What a loop over units does to one of them is a `scalar`: operations in a fixed form, in vectors and beside them.

Source: S. Ioffe and C. Szegedy, "Batch normalization" (2015).
"""

from __future__ import annotations

import numpy as np

from ..runtime.jit import inner, scalar
from ..simd.functions import like
from .arguments import NORM_EPSILON

__all__ = ["MEAN", "NORMS", "SCALE", "SHIFT", "VARIANCE", "normalize", "normalize_backward"]

#: Rows of an array of norms, and how many they are; the last two are running statistics.
SCALE, SHIFT, MEAN, VARIANCE = range(4)
NORMS = 4


@scalar
def _quotient(value, divisor):  # type: ignore[no-untyped-def]
    return value / divisor


@scalar
def _inverse_deviation(variance):  # type: ignore[no-untyped-def]
    return like(variance, 1) / np.sqrt(variance + like(variance, NORM_EPSILON))


@scalar
def _affine(x, scale, shift):  # type: ignore[no-untyped-def]
    return scale * x + shift


@scalar
def _moving_average(running, new, factor, share):  # type: ignore[no-untyped-def]
    # The factor stands here, for one product of these is fused with the difference: before this function it might be
    # or not, by what the compiler makes of the loops around.
    return running + share * (factor * new - running)


@scalar
def _input_grad(g, x, factor, mean, mean_product):  # type: ignore[no-untyped-def]
    return factor * ((g - mean) - x * mean_product)


@inner
def _add(total, part):  # type: ignore[no-untyped-def]
    for j in range(total.size):
        total[j] += part[j]


@inner
def _add_products(total, one, other):  # type: ignore[no-untyped-def]
    for j in range(total.size):
        total[j] += one[j] * other[j]


@inner
def _take_mean(total, n, mean):  # type: ignore[no-untyped-def]
    """Mean = total / n; clear the total."""
    for j in range(total.size):
        mean[j] = total[j]
    for j in range(total.size):
        mean[j] = _quotient(mean[j], like(mean[j], n))
    for j in range(total.size):
        total[j] = 0


@inner
def _subtract(part, mean):  # type: ignore[no-untyped-def]
    for j in range(part.size):
        part[j] -= mean[j]


@inner
def _scale_and_shift(z, inverse, scale, shift, kept):  # type: ignore[no-untyped-def]
    """``kept = z * inverse``; ``z = scale * kept + shift``."""
    for j in range(z.size):
        kept[j] = z[j] * inverse[j]
    for j in range(z.size):
        z[j] = _affine(kept[j], scale[j], shift[j])


@inner
def _update_running(running, new, factor, share):  # type: ignore[no-untyped-def]
    for j in range(running.size):
        running[j] = _moving_average(running[j], new[j], factor, share)


@inner
def normalize(Z, first, last, n, norms, at, kept, running_share):  # type: ignore[no-untyped-def]
    """Normalise the values Z of units `first` to `last` over n rows, in place; their norms are at ``at + unit``.

    Row 0 of `kept` gets the inverse deviations, the others the normalised values. Running statistics take
    `running_share` of the new ones, the variance that of n - 1; one row has none.
    """
    count = last - first
    here = slice(at + first, at + last)
    total, mean, inverse = np.zeros(count), np.empty(count, Z.dtype), kept[0, first:last]
    for i in range(n):
        _add(total, Z[i, first:last])
    _take_mean(total, n, mean)
    for i in range(n):
        _subtract(Z[i, first:last], mean)
    for i in range(n):
        _add_products(total, Z[i, first:last], Z[i, first:last])
    zero = like(running_share, 0)
    if running_share > zero:
        _update_running(norms[MEAN, here], mean, like(zero, 1), running_share)
    _take_mean(total, n, mean)
    for j in range(count):
        inverse[j] = _inverse_deviation(mean[j])
    if running_share > zero and n > 1:
        _update_running(norms[VARIANCE, here], mean, _quotient(like(zero, n), like(zero, n - 1)), running_share)
    for i in range(n):
        _scale_and_shift(Z[i, first:last], inverse, norms[SCALE, here], norms[SHIFT, here], kept[i + 1, first:last])


@inner
def _input_grads(g, x, factor, mean, mean_product):  # type: ignore[no-untyped-def]
    for j in range(g.size):
        g[j] = _input_grad(g[j], x[j], factor[j], mean[j], mean_product[j])


@inner
def normalize_backward(G, first, last, n, scale, kept, of_scale, of_shift):  # type: ignore[no-untyped-def]
    """Turn the gradient G in what `normalize` made of units `first` to `last` into that in what it was given, in place.

    `scale` is that of these units; `of_scale` and `of_shift` (float64, zeros before) get the gradient in both.
    """
    count = last - first
    for i in range(n):
        _add(of_shift, G[i, first:last])
    for i in range(n):
        _add_products(of_scale, G[i, first:last], kept[i + 1, first:last])
    mean, mean_product, factor = np.empty(count, G.dtype), np.empty(count, G.dtype), np.empty(count, G.dtype)
    inverse = kept[0, first:last]
    for j in range(count):
        mean[j] = of_shift[j]
        mean_product[j] = of_scale[j]
    for j in range(count):
        mean[j] = _quotient(mean[j], like(mean[j], n))
        mean_product[j] = _quotient(mean_product[j], like(mean[j], n))
        factor[j] = scale[j] * inverse[j]
    for i in range(n):
        _input_grads(G[i, first:last], kept[i + 1, first:last], factor, mean, mean_product)
