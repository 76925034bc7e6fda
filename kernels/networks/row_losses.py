"""Losses of networks, and their gradients, for rows of scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arguments.arrays import Array
from ..losses.class_formulas import cross_entropy
from ..losses.formulas import POINTWISE
from ..losses.table import LOSSES, NETWORK_LOSSES
from ..runtime.jit import inner, readonly
from ..runtime.switch import switch
from ..simd.rows import copy_row, sum_of

__all__ = ["LOSS_ROWS", "losses_of_rows", "targets_of_rows"]

#: Rows of a task where rows are shared: whole cache lines.
LOSS_ROWS = 32


def _pointwise_rows(term: Callable[..., Any]) -> Callable[..., Any]:
    """Make the loss of rows of outputs from that of one output."""

    @inner
    def rows(Z, T, weight, scale, work, G):  # type: ignore[no-untyped-def]
        """Sum over rows and outputs."""
        total, values = 0.0, work[0, : Z.shape[1]]
        for i in range(Z.shape[0]):
            z, t, g, share = Z[i], T[i], G[i], weight[i]
            for c in range(z.size):
                value, derivative = term(z[c], t[c], scale)
                values[c] = share * value
                g[c] = scale * share * derivative
            total += sum_of(values)
        return total

    return rows


assert [LOSSES[name].over_classes for name in NETWORK_LOSSES] == [True, *[False] * (len(NETWORK_LOSSES) - 1)]
assert not any(LOSSES[name].has_delta for name in NETWORK_LOSSES), "networks have no delta"

#: The first of `NETWORK_LOSSES` is the one over classes; this is of those that are summed over the outputs.
_sum_over_outputs = switch(*(_pointwise_rows(POINTWISE[name]) for name in NETWORK_LOSSES[1:]))


def targets_of_rows(
    y: Array, outputs: int, dtype: np.dtype[Any], sample_weight: Array | None
) -> tuple[Array, Array, Array]:
    """Return class numbers, targets (n, outputs) and weights as `losses_of_rows` takes them; some are empty."""
    of_classes = y.ndim == 1
    indices = np.ascontiguousarray(y, np.intp) if of_classes else np.empty(0, np.intp)
    targets = np.empty((0, outputs), dtype) if of_classes else np.ascontiguousarray(y, dtype)
    weights = np.empty(0, dtype) if sample_weight is None else np.ascontiguousarray(sample_weight, dtype)
    return readonly(indices), readonly(targets), readonly(weights)


@inner
def losses_of_rows(loss, Z, G, first, last, order, indices, T, weight, scale, work, sums):  # type: ignore[no-untyped-def]
    """Losses of groups of rows, and their gradient G; `order` has the numbers of the rows."""
    n, outputs = order.size, Z.shape[1]
    of_rows = np.empty(LOSS_ROWS, np.intp)
    targets, shares = np.empty((LOSS_ROWS if T.size > 0 else 0, outputs), T.dtype), np.ones(LOSS_ROWS, T.dtype)
    for group in range(first, last):
        at, end = group * LOSS_ROWS, min(n, (group + 1) * LOSS_ROWS)
        rows = end - at
        for i in range(rows):
            if T.size > 0:
                copy_row(T, order[at + i], targets, i)
            else:
                of_rows[i] = indices[order[at + i]]
            if weight.size > 0:
                shares[i] = weight[order[at + i]]
        z, g, t = Z[at:end], G[at:end], targets[:rows]
        if loss == 0:
            sums[group] = cross_entropy(z, of_rows, t, shares, scale, work, g)
        else:
            sums[group] = _sum_over_outputs(loss - 1, z, t, shares, scale, work, g)
