"""The formulas of losses over classes, for a few rows of scores at a time.

As in `formulas` each stands once: the kernels on arrays of scores and the pass over X both call
these functions, with rows of an array or with scores they have just made.

Rows of few classes leave most of a vector register empty, so the rows of a block lie one after the other in scratch,
where one loop makes the exponentials of them all; `simd.row_blocks` has what concerns each row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..runtime.jit import inner, scalar
from ..simd.functions import like, log, maximum, scale_of_exp, scaled_exp
from ..simd.row_blocks import SLACK, minus_numbers, row_maxima, row_sums, times_numbers
from ..simd.rows import frozen, matrix
from .table import OVER_CLASSES

__all__ = [
    "CLASSWISE",
    "VALUES",
    "cross_entropy",
    "cross_entropy_of_rows",
    "exponentials",
    "log_probability",
    "multiclass_hinge",
    "rows_at_once",
    "scratch",
]

#: Bytes of scores that are worked on together. They, their exponentials and the gradient, as many bytes each, stay in
#: a first-level cache of 32 KB while the next ones come.
_BYTES = 5120

#: Where in scratch `cross_entropy_of_rows` leaves what each row adds to the sum.
VALUES = 4


@inner
def rows_at_once(classes, most, like_array):  # type: ignore[no-untyped-def]
    """How many rows of `classes` scores to take together; depends on their number and type alone."""
    rows = max(1, min(most, _BYTES // like_array.itemsize // max(1, classes)))
    return rows - rows % SLACK if rows > SLACK else rows  # sums are made for so many at once


@inner
def scratch(rows, classes, like_array, kinds=4):  # type: ignore[no-untyped-def]
    """Rows of scratch for `rows` rows of scores: exponentials, largest scores, sums, factors, losses of `VALUES`."""
    return np.empty((kinds, max(rows * classes, rows) + SLACK), like_array.dtype)


# Differences of large scores that are nearly alike. They are scalars, because a kernel may reorder its
# sums and would lose the small number that is taken off last. A sign may not be changed outside either:
# that lets the compiler rewrite the difference under the kernel's rules.


@scalar
def log_probability(z, largest, log_sum):  # type: ignore[no-untyped-def]
    """Logarithm of a class's softmax."""
    return (z - largest) - log_sum


@scalar
def _surprise(z, largest, log_sum):  # type: ignore[no-untyped-def]
    """Minus the logarithm of a class's softmax."""
    return log_sum - (z - largest)


@scalar
def _slack(best, true):  # type: ignore[no-untyped-def]
    """Amount by which the best wrong class violates the margin."""
    return (best - true) + like(true, 1)


@inner
def row_maximum(row, lowest):  # type: ignore[no-untyped-def]
    """Largest entry, NaN if any is; `lowest` for an empty row."""
    largest = lowest
    for c in range(row.size):
        largest = maximum(largest, row[c])
    return largest


@inner
def exponentials(Z, keep_infinite, work):  # type: ignore[no-untyped-def]
    """Return `scale_of_exp` times exp(Z - largest), and leave the largest scores and the sums, not scaled, in `work`.

    Where the largest score of a row is infinite, `keep_infinite` takes off nothing instead, so that
    the logarithm of the sum is the infinity it should be.
    """
    n, classes = Z.shape
    powers, largest, total = work[0, : n * classes], work[1], work[2]
    E = matrix(powers, 0, n, classes)
    row_maxima(Z, largest)  # a NaN that is passed over comes back in the sum
    minus_numbers(Z, largest, E)
    for at in range(powers.size):  # one long loop, so that vectors are full at the ends of rows too
        powers[at] = scaled_exp(powers[at])
    row_sums(E, total)
    for i in range(n):
        total[i] /= scale_of_exp(total[i])
    if keep_infinite:
        for i in range(n):
            if np.isinf(largest[i]):
                total[i] = _infinite_total(Z[i], largest[i])
                largest[i] = like(largest[i], 0)
    return E


@inner
def _infinite_total(row, largest):  # type: ignore[no-untyped-def]
    """Sum of e^row where the largest score is infinite: infinity or 0, NaN if any score is."""
    total = maximum(largest, like(largest, 0))
    for c in range(row.size):
        total = row[c] if np.isnan(row[c]) else total
    return total


def _cross_entropy(keep_values: bool) -> Callable[..., Any]:
    """Make the formula; to leave what each row adds in scratch takes 8 % longer where classes are many."""

    @inner
    def rows(Z, y, P, weight, scale, work, dZ):  # type: ignore[no-untyped-def]
        """Sum of w (log sum_j e^z_j - z_y), or of -w sum_c p_c log softmax(z)_c where P is given.

        Writes ``scale * w * (softmax - target)`` to dZ unless that is empty. Infinite scores: as in
        `reference.loops`.
        """
        Z, y, P, weight = frozen(Z), frozen(y), frozen(P), frozen(weight)
        n, classes = Z.shape
        largest, total, factor = work[1], work[2], work[3]
        E = exponentials(Z, True, work)
        zero, one = like(scale, 0), like(scale, 1)
        value = 0.0
        for i in range(n):
            factor[i] = log(total[i])
        for i in range(n):
            row, shift, log_sum, mass, term = Z[i], largest[i], factor[i], one, zero
            if P.size > 0:
                p, mass = P[i], zero
                for c in range(classes):
                    # A class of probability 0 costs nothing, also where its score is -inf.
                    term += p[c] * _surprise(row[c], shift, log_sum) if p[c] > zero else zero
                    mass += p[c]
            else:
                term = _surprise(row[y[i]], shift, log_sum)
            value += weight[i] * term
            if keep_values:
                work[VALUES, i] = weight[i] * term
            factor[i] = mass
        if dZ.size > 0:
            least = scale_of_exp(scale) * scale_of_exp(scale) * like(scale, np.finfo(Z.dtype).tiny)
            share = largest  # kept, so that both terms have the rounded product: where softmax is 1, nothing is left
            for i in range(n):
                share[i] = scale * weight[i]
            for i in range(n):
                # Only rows with an infinite score have a sum outside [1, C]; softmax is NaN there.
                proper = total[i] >= one and total[i] < like(scale, np.inf)
                unscaled = share[i] < least
                if unscaled:  # else a very small weight would lose digits
                    for c in range(classes):
                        E[i, c] /= scale_of_exp(scale)
                quotient = share[i] / (total[i] * (one if unscaled else scale_of_exp(scale)))
                factor[i] *= quotient if proper else like(scale, np.nan)
            times_numbers(E, factor, dZ)
            for i in range(n):
                target = dZ[i]
                if P.size > 0:
                    p = P[i]
                    for c in range(classes):
                        target[c] -= share[i] * p[c]
                else:
                    target[y[i]] -= share[i]
        return value

    return rows


cross_entropy, cross_entropy_of_rows = _cross_entropy(keep_values=False), _cross_entropy(keep_values=True)


@inner
def multiclass_hinge(Z, y, P, weight, scale, work, dZ):  # type: ignore[no-untyped-def]
    """Sum of w max_j (z_j + 1[j != y] - z_y); `P` and `work` are not read.

    Adds ``scale * w`` to dZ at the highest wrong class (the lowest index of equals) and takes it off
    at the true one, where the maximum is above 0.
    """
    value = 0.0
    lowest = like(scale, -np.inf)
    zero = like(scale, 0)
    for i in range(Z.shape[0]):
        row, true = Z[i], y[i]
        best = maximum(row_maximum(row[:true], lowest), row_maximum(row[true + 1 :], lowest))
        slack = _slack(best, row[true])
        if dZ.size > 0:
            dZ[i] = slack if np.isnan(slack) else zero
        if np.isnan(slack):
            value += slack
        elif slack > zero:
            value += weight[i] * slack
            if dZ.size > 0:
                share = scale * weight[i]
                rival = 0
                while rival == true or row[rival] < best:
                    rival += 1
                dZ[i, rival] = share
                dZ[i, true] = -share
    return value


#: Loss -> ``formula(Z, y, P, weight, scale, work, dZ)``: rows of scores, their classes or (where not empty) target
#: probabilities, their weights, what derivatives are multiplied by, what `scratch` returns, place for derivatives.
CLASSWISE = {"softmax_cross_entropy": cross_entropy, "multiclass_hinge": multiclass_hinge}
assert tuple(CLASSWISE) == OVER_CLASSES, "each loss over classes has its formula here, in the order of the table"
