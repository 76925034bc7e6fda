"""Least squares in few rows: rows reduced by orthogonal factors."""

from __future__ import annotations

import math
import threading
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.runtime import parallel

__all__ = ["Reduced", "column_lengths", "reduce_rows", "triangle_of"]

Array = NDArray[np.float64]

#: Rows that are factorised together: at least this many, and this many per column.
_BLOCK_ROWS, _ROWS_PER_COLUMN = 2048, 4

#: Triangles that are stacked and reduced to one.
_TOGETHER = 16

#: Seconds to factorise, for each row and pair of columns, roughly.
_SQUARE_SECONDS = 2e-10

#: Rows whose mean is taken off before anything is multiplied; the rest of the mean comes out exactly.
_SHIFT_ROWS = 1024


class Reduced(NamedTuple):
    """A problem of least squares in no more rows than columns, with the same minima."""

    R: Array  # (k, D)
    targets: Array  # (k, T)
    rest: Array  # (T,): what is added to the sums of squared residuals, whatever the coefficients
    X_mean: Array  # (D,)
    y_mean: Array  # (T,)
    total: float  # sum of the weights
    spans: Array  # (D,): lengths of the columns that were computed with
    sizes: Array  # (D,): lengths of the columns of X
    shape: tuple[int, int]  # that of X

    def noise(self, dtype: Any) -> Array:
        """Return the length of each column of R that rounding may have made: of data of a dtype, and of sums.

        The first is in proportion to the column as it came, with its mean; half a unit in the last place. A column
        that is longer differs from a constant by more than that.
        """
        eps, sums = float(np.finfo(dtype).eps), max(self.shape) * float(np.finfo(np.float64).eps)
        lengths = 0.5 * eps * self.sizes + math.sqrt(len(self.spans)) * max(eps, sums) * self.spans
        return np.maximum(lengths, np.finfo(np.float64).tiny)


def reduce_rows(X: NDArray[Any], y: Array, weight: Array | None, intercept: bool, n_threads: int | None) -> Reduced:
    """Reduce the rows, and measure the columns."""
    n, columns = X.shape
    X_shift, y_shift = np.zeros(columns), np.zeros(y.shape[1])
    if intercept:
        X_shift, y_shift = _shift(X, weight), _shift(y, weight)
    total = float(n) if weight is None else float(np.add.reduce(weight))
    reduce = _center if columns > n else _triangle
    R, targets, rest, X_away, y_away = reduce(X, y, X_shift, y_shift, weight, intercept, n_threads)
    lengths, root = column_lengths(R), math.sqrt(total)
    X_mean = X_shift + X_away
    return Reduced(
        R=R,
        targets=targets,
        rest=rest,
        X_mean=X_mean,
        y_mean=y_shift + y_away,
        total=total,
        spans=np.hypot(lengths, root * X_away),
        sizes=np.hypot(lengths, root * X_mean),
        shape=X.shape,
    )


def _shift(X: NDArray[Any], weight: Array | None) -> Array:
    """Return means of the first rows that count; a constant column's is exact, so that nothing of it is left."""
    some = X[:_SHIFT_ROWS] if weight is None else X[np.flatnonzero(weight)[:_SHIFT_ROWS]]
    shift: Array = some.mean(axis=0, dtype=np.float64)
    alike = np.flatnonzero(some[0] == some[-1])
    constant = alike[(some[:, alike] == some[0, alike]).all(axis=0)]
    shift[constant] = some[0, constant]
    return shift


def column_lengths(A: Array) -> Array:
    """Return the lengths of columns, whatever their scale."""
    largest = np.abs(A).max(axis=0, initial=0.0)
    scale = np.where(largest > 0, largest, 1.0)
    shares = A / scale
    lengths: Array = scale * np.sqrt(np.einsum("ij,ij->j", shares, shares))
    return lengths


def _triangle(
    X: NDArray[Any], y: Array, X_shift: Array, y_shift: Array, weight: Array | None, intercept: bool,
    n_threads: int | None,
) -> tuple[Array, ...]:  # fmt: skip
    """Reduce rows by QR, block by block; with an intercept a column of ones stands first and takes the means out."""
    (n, columns), targets = X.shape, y.shape[1]
    lead = int(intercept)
    size = lead + columns + targets
    per_block = max(_BLOCK_ROWS, _ROWS_PER_COLUMN * size)
    blocks = -(-n // per_block)
    tree = _Tree(blocks)

    def reduce(block: int) -> None:
        here = slice(block * per_block, min(n, (block + 1) * per_block))
        A = np.ones((here.stop - here.start, size))
        np.subtract(X[here], X_shift, out=A[:, lead : lead + columns])
        np.subtract(y[here], y_shift, out=A[:, lead + columns :])
        if weight is not None:
            A *= np.sqrt(weight[here])[:, np.newaxis]
        tree.add(block, triangle_of(A))

    threads = parallel.resolve(n_threads, seconds=n * size * size * _SQUARE_SECONDS)
    parallel.run(reduce, blocks, threads)
    whole = np.zeros((size, size))
    whole[: len(tree.root)] = tree.root
    means = whole[0] / whole[0, 0] if intercept else np.zeros(size)
    inner, outer = slice(lead, lead + columns), slice(lead + columns, size)
    rest = whole[outer, outer]
    return whole[inner, inner], whole[inner, outer], np.einsum("ij,ij->j", rest, rest), means[inner], means[outer]


def triangle_of(A: Array) -> Array:
    """Return the triangular factor of QR."""
    # NumPy's factorisation lets other threads run, SciPy's does not.
    triangle: Any = np.linalg.qr(A, mode="r")
    return triangle  # type: ignore[no-any-return]


class _Tree:
    """Triangles of blocks of rows, reduced to one, `_TOGETHER` at a time as soon as they are there.

    Which ones are stacked depends on their numbers alone, so the bits do not depend on threads or on when blocks come.

    Attributes
    ----------
    root : ndarray
        The triangle of all rows, when all blocks have been added.
    """

    root: Array

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._waiting: dict[tuple[int, int], dict[int, Array]] = {}
        self._lock = threading.Lock()

    def add(self, number: int, triangle: Array) -> None:
        """Take the triangle of a block, and reduce what is complete with it."""
        level, nodes = 0, self._blocks
        while nodes > 1:
            parent, place = divmod(number, _TOGETHER)
            children = min(_TOGETHER, nodes - parent * _TOGETHER)
            with self._lock:
                waiting = self._waiting.setdefault((level, parent), {})
                waiting[place] = triangle
                if len(waiting) < children:
                    return
                del self._waiting[level, parent]
            if children > 1:
                triangle = triangle_of(np.concatenate([waiting[child] for child in range(children)]))
            level, number, nodes = level + 1, parent, -(-nodes // _TOGETHER)
        self.root = triangle


def _center(
    X: NDArray[Any], y: Array, X_shift: Array, y_shift: Array, weight: Array | None, intercept: bool,
    n_threads: int | None,
) -> tuple[Array, ...]:  # fmt: skip
    """Take the means off more columns than rows, and weigh the rows; with an intercept this leaves a row less."""
    n = len(X)
    A, y = X - X_shift, y - y_shift
    X_away, y_away = np.zeros(A.shape[1]), np.zeros(y.shape[1])
    if intercept:
        shares = np.full(n, 1 / n) if weight is None else weight / np.add.reduce(weight)
        X_away, y_away = shares @ A, shares @ y
        A -= X_away
        y -= y_away
    root = np.ones(n) if weight is None else np.sqrt(weight)
    if weight is not None:
        A *= root[:, np.newaxis]
        y *= root[:, np.newaxis]
    if intercept:
        # What the means were taken from is reflected into the first row, and that is now 0.
        mirror = root / math.sqrt(np.add.reduce(root**2))
        mirror[0] += 1.0
        for Z in (A, y):
            Z[1:] -= np.outer(mirror[1:], mirror @ Z / mirror[0])
        A, y = A[1:], y[1:]
    return A, y, np.zeros(y.shape[1]), X_away, y_away
