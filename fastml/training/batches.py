"""Rows of a training, and the batches that they are cut into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..utils.lazy import lazy_module

if TYPE_CHECKING:
    from ..kernels.runtime import permutation
else:
    permutation = lazy_module("fastml.kernels.runtime.permutation")

__all__ = ["SAMPLING", "Array", "Batches", "Rates", "Rows"]

Array = NDArray[Any]
Rates = Callable[[int, int], NDArray[np.float64]]

#: Ways to draw the rows of the batches.
SAMPLING = ("permutation", "fixed_permutation", "replacement", "sequential")


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows with their targets, and with their weights if they have any."""

    X: Array
    y: Array
    weight: Array | None = None

    def take(self, rows: NDArray[np.intp]) -> Rows:
        """Copy some of the rows."""
        return Rows(self.X[rows], self.y[rows], None if self.weight is None else self.weight[rows])

    @cached_property
    def variance(self) -> float:
        """Weighted mean squared distance of the targets from their mean."""
        y = self.y.astype(np.float64)
        return float(np.average((y - np.average(y, weights=self.weight)) ** 2, weights=self.weight))

    @cached_property
    def varies(self) -> bool:
        """Whether the targets of the rows that count are not all the same, without which R² is undefined."""
        y = self.y if self.weight is None else self.y[self.weight > 0]
        return len(y) > 0 and bool((y != y[0]).any())

    # One whose runs may be resumed also has ``last_losses()``: the losses of the batches that the last call of `run`
    # has completed, though Ctrl-C ended it; and its `state` is never None.


class Batches:
    """The order of the rows, epoch by epoch, and how it is cut into batches.

    Parameters
    ----------
    rows : int or ndarray of intp
        How many rows there are, or which of them to take.
    size : int
        Rows of a batch, at most as many as there are.
    sampling : {"permutation", "fixed_permutation", "replacement", "sequential"}
        A new random order in each epoch; one random order for all epochs; each row drawn from all;
        the order in which the rows are stored.
    drop_last : bool
        Whether to leave out the last batch of an epoch if it is not full.
    rng : numpy.random.Generator
        What the random orders come from.
    weight : ndarray of shape (all rows,), optional
        What each row counts in the mean of the losses; None: as much as any other.
    """

    def __init__(
        self,
        rows: int | NDArray[np.intp],
        size: int,
        sampling: str,
        drop_last: bool,
        rng: np.random.Generator,
        weight: Array | None = None,
    ) -> None:
        self.rows = None if isinstance(rows, int) else rows
        self.n = rows if isinstance(rows, int) else len(rows)
        self.size = min(size, self.n)
        self.steps = self.n // self.size if drop_last else -(-self.n // self.size)
        self._used = min(self.n, self.steps * self.size)
        self._sampling = sampling
        self._rng = rng
        self._weight = weight
        self._fixed: NDArray[np.intp] | None = None
        if sampling in ("sequential", "fixed_permutation"):
            self._fixed = self._rows_at(
                np.arange(self.n) if sampling == "sequential" else permutation.permutation(self.n, rng)
            )

    def epoch(self) -> NDArray[np.intp]:
        """Return the rows of the next epoch."""
        if self._fixed is not None:
            return self._fixed
        if self._sampling == "replacement":
            return self._rows_at(self._rng.integers(self.n, size=self._used))
        return self._rows_at(permutation.permutation(self.n, self._rng))

    def lengths(self, order: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the rows of each batch of `order`, of which the last may be shorter."""
        return np.diff(np.append(np.arange(0, len(order), self.size), len(order)))

    def counts(self, order: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return what each batch of `order` counts: the weights of its rows over the rows of a full batch."""
        return (self.lengths(order) if self._weight is None else self._sums(self._weight.take(order))) / self.size

    def counting(self, order: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return how many rows of each batch of `order` have a weight above 0."""
        return self.lengths(order) if self._weight is None else self._sums(self._weight[order] > 0)

    def _sums(self, values: Array) -> Array:
        dtype = np.intp if values.dtype == np.bool_ else np.float64
        return np.add.reduceat(values, np.arange(0, len(values), self.size), dtype=dtype)

    @property
    def state(self) -> Any:
        """What the next epoch's order depends on."""
        return self._rng.bit_generator.state

    @state.setter
    def state(self, state: Any) -> None:
        self._rng.bit_generator.state = state

    def _rows_at(self, places: NDArray[np.intp]) -> NDArray[np.intp]:
        places = places[: self._used].astype(np.intp, copy=False)
        return places if self.rows is None else self.rows[places]
