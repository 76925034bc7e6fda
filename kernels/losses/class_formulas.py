"""The formulas of losses over classes, for a few rows of scores at a time.

As in `formulas` each stands once: the kernels on arrays of scores and the pass over X both call
these functions, with rows of an array or with scores they have just made.

Few classes leave most of a vector register empty if a register holds one row. So up to `FEW` classes
the scores are transposed first and a register holds the same class of many rows; beyond, a register
holds many classes of one row. Which way is taken depends on the number of classes alone.
"""

from __future__ import annotations

import numpy as np

from ..runtime.jit import inner, scalar
from ..simd.functions import exp, like, log, maximum
from ..simd.rows import frozen
from .table import OVER_CLASSES

__all__ = [
    "CLASSWISE",
    "FEW",
    "cross_entropy",
    "exponentials",
    "log_probability",
    "multiclass_hinge",
    "rows_at_once",
    "scratch",
    "transposed_exponentials",
]

#: Classes up to which a register holds many rows, and beyond which one row.
FEW = 32

#: Entries that are worked on together where a register holds many rows.
_TRANSPOSED_ENTRIES = 4096

#: Bytes of scores that are worked on together where a register holds one row. Scores, exponentials and gradient, as
#: many bytes each, stay in a first-level cache of 32 KB with room to spare.
_BYTES = 8192


@inner
def rows_at_once(classes, most, like_array):  # type: ignore[no-untyped-def]
    """How many rows of `classes` scores to take together; depends on their number and type alone."""
    entries = _TRANSPOSED_ENTRIES if classes <= FEW else _BYTES // like_array.itemsize
    return max(1, min(most, entries // max(1, classes)))


@inner
def scratch(rows, classes, like_array):  # type: ignore[no-untyped-def]
    """Rows of scratch for `rows` rows of scores: exponentials, largest scores, sums, their logarithms."""
    return np.empty((4, max(rows * classes, rows)), like_array.dtype)


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
def _lowest(work):  # type: ignore[no-untyped-def]
    return like(work[0, 0], -np.inf)


@inner
def row_maximum(row, lowest):  # type: ignore[no-untyped-def]
    """Largest entry, NaN if any is; `lowest` for an empty row."""
    largest = lowest
    for c in range(row.size):
        largest = maximum(largest, row[c])
    return largest


@inner
def exponentials(Z, keep_infinite, work):  # type: ignore[no-untyped-def]
    """Return exp(Z - largest), and leave the largest scores and the row sums in `work`.

    Where the largest score of a row is infinite, `keep_infinite` takes off nothing instead, so that
    the logarithm of the sum is the infinity it should be.
    """
    n, classes = Z.shape
    flat = work[0, : n * classes]
    largest, total = work[1], work[2]
    for i in range(n):
        row, shifted = Z[i], flat[i * classes : (i + 1) * classes]
        shift = row_maximum(row, _lowest(work))
        if keep_infinite and np.isinf(shift):
            shift = like(shift, 0)
        for c in range(classes):
            shifted[c] = row[c] - shift
        largest[i] = shift
    for at in range(flat.size):  # one long loop, so that vectors are full at the ends of rows too
        flat[at] = exp(flat[at])
    E = flat.reshape((n, classes))
    for i in range(n):
        row_total, powers = like(work[0, 0], 0), E[i]
        for c in range(classes):
            row_total += powers[c]
        total[i] = row_total
    return E


@inner
def transposed_exponentials(Z, keep_infinite, work):  # type: ignore[no-untyped-def]
    """As `exponentials`, from and to a transposed block: loops run over rows."""
    n, classes = Z.shape
    T = work[0, : n * classes].reshape((classes, n))
    largest, total = work[1], work[2]
    for i in range(n):
        row = Z[i]
        for c in range(classes):
            T[c, i] = row[c]
        largest[i], total[i] = _lowest(work), like(work[0, 0], 0)
    for c in range(classes):
        column = T[c]
        for i in range(n):
            # A comparison with NaN is false: a NaN may be passed over here, it comes back in the sum.
            largest[i] = column[i] if column[i] > largest[i] else largest[i]
    if keep_infinite:
        for i in range(n):
            largest[i] = like(total[i], 0) if np.isinf(largest[i]) else largest[i]
    for c in range(classes):
        column = T[c]
        for i in range(n):
            column[i] = exp(column[i] - largest[i])
        for i in range(n):
            total[i] += column[i]
    return T.T


@inner
def cross_entropy(Z, y, P, weight, scale, work, dZ):  # type: ignore[no-untyped-def]
    """Sum of w (log sum_j e^z_j - z_y), or of -w sum_c p_c log softmax(z)_c where P is given.

    Writes ``scale * w * (softmax - target)`` to dZ unless that is empty. Infinite scores: as in
    `reference.loops`.
    """
    Z, y, P, weight = frozen(Z), frozen(y), frozen(P), frozen(weight)
    if Z.shape[1] <= FEW:
        return _cross_entropy(Z, transposed_exponentials(Z, True, work), y, P, weight, scale, work, dZ)
    return _cross_entropy(Z, exponentials(Z, True, work), y, P, weight, scale, work, dZ)


@inner
def _cross_entropy(Z, E, y, P, weight, scale, work, dZ):  # type: ignore[no-untyped-def]
    n, classes = Z.shape
    largest, total, logs = work[1], work[2], work[3]
    zero, one = like(scale, 0), like(scale, 1)
    for i in range(n):
        logs[i] = log(total[i])
    value = 0.0
    for i in range(n):
        row, powers = Z[i], E[i]
        shift, log_sum, mass, term = largest[i], logs[i], one, zero
        if P.size > 0:
            p, mass = P[i], zero
            for c in range(classes):
                # A class of probability 0 costs nothing, also where its score is -inf.
                term += p[c] * _surprise(row[c], shift, log_sum) if p[c] > zero else zero
                mass += p[c]
        else:
            term = _surprise(row[y[i]], shift, log_sum)
        value += weight[i] * term
        if dZ.size > 0:
            target, share = dZ[i], scale * weight[i]
            # Only rows with an infinite score have a sum outside [1, C]; softmax is NaN there.
            proper = total[i] >= one and total[i] < like(scale, np.inf)
            factor = share * mass / total[i] if proper else like(scale, np.nan)
            if P.size > 0:
                p = P[i]
                for c in range(classes):
                    target[c] = factor * powers[c] - share * p[c]
            else:
                for c in range(classes):
                    target[c] = factor * powers[c]
                target[y[i]] -= share
    return value


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
