"""Least squares in few rows: rows reduced by orthogonal factors, and coefficients of what is left."""

from __future__ import annotations

import math
import threading
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack, qr, solve_triangular

from ..kernels.runtime import parallel

__all__ = ["Reduced", "Solution", "reduce_rows", "solve"]

Array = NDArray[np.float64]

#: Rows that are factorised together: at least this many, and this many per column.
_BLOCK_ROWS, _ROWS_PER_COLUMN = 2048, 4

#: Triangles that are stacked and reduced to one.
_TOGETHER = 16

#: Seconds to factorise, for each row and pair of columns, roughly.
_SQUARE_SECONDS = 2e-10

#: Rows whose mean is taken off before anything is multiplied; the rest of the mean comes out exactly.
_SHIFT_ROWS = 1024

#: What a column may add to the rounding errors of one that depends on it, in units of its own, to be left out.
_ROUNDING = 10.0

#: Columns are turned into fewer with others whose lengths differ by less than this factor.
_ALIKE = 1e4


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


class Solution(NamedTuple):
    coef: Array
    rank: int
    R: Array  # what was left of the columns, turned


def reduce_rows(X: NDArray[Any], y: Array, weight: Array | None, intercept: bool, n_threads: int | None) -> Reduced:
    """Reduce the rows, and measure the columns."""
    n, columns = X.shape
    X_shift, y_shift = np.zeros(columns), np.zeros(y.shape[1])
    if intercept:
        X_shift, y_shift = _shift(X, weight), _shift(y, weight)
    total = float(n) if weight is None else float(np.add.reduce(weight))
    reduce = _center if columns > n else _triangle
    R, targets, rest, X_away, y_away = reduce(X, y, X_shift, y_shift, weight, intercept, n_threads)
    lengths, root = _lengths(R), math.sqrt(total)
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


def _lengths(A: Array) -> Array:
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
        tree.add(block, _triangle_of(A))

    threads = parallel.resolve(n_threads, seconds=n * size * size * _SQUARE_SECONDS)
    parallel.run(reduce, blocks, threads)
    whole = np.zeros((size, size))
    whole[: len(tree.root)] = tree.root
    means = whole[0] / whole[0, 0] if intercept else np.zeros(size)
    inner, outer = slice(lead, lead + columns), slice(lead + columns, size)
    rest = whole[outer, outer]
    return whole[inner, inner], whole[inner, outer], np.einsum("ij,ij->j", rest, rest), means[inner], means[outer]


def _triangle_of(A: Array) -> Array:
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
                triangle = _triangle_of(np.concatenate([waiting[child] for child in range(children)]))
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


def solve(reduced: Reduced, noise: Array, alpha: Array | None = None) -> Solution:
    """Solve the reduced problem, with a penalty for each target or none, without what rounding alone may have made.

    Columns are measured by their noise, so that units do not matter: columns and, of the rest, singular values no
    larger than 1 count as 0. What they leave open is chosen such that the coefficients are smallest as they are.
    """
    kept = np.flatnonzero(_lengths(reduced.R) > noise)
    coef = np.zeros((len(noise), reduced.targets.shape[1]))
    if not kept.size:
        return Solution(coef, 0, np.empty((0, 0)))
    R, targets, unit, turns = _turned(reduced.R[:, kept], reduced.targets, noise[kept])
    S, targets, free = _without_rounding(R / unit, targets)
    everywhere = alpha is not None and bool(alpha.all())
    found = np.empty((S.shape[1], targets.shape[1])) if everywhere else _solution(S, targets, free)
    for strength in [] if alpha is None else np.unique(alpha[alpha > 0]).tolist():
        which = alpha == strength
        triangle, penalized = _penalized(S * unit, targets[:, which], strength)
        found[:, which] = _solution(*_without_rounding(triangle / unit, penalized))
    found /= unit[:, np.newaxis]
    if free is not None and free.size:
        short = _shortest(found, free, unit, _lengths(S))
        # What rounding has done to the scores is put right.
        found = short + _solution(S, (S * unit) @ (found - short), free) / unit[:, np.newaxis]
    for columns, turned, Q in turns:
        coef[kept[columns]] = found[turned] if Q is None else Q @ found[turned]
    return Solution(coef, len(S), R)


def _turned(R: Array, targets: Array, noise: Array) -> tuple[Array, Array, Array, list[tuple[Any, slice, Any]]]:
    """Turn columns of similar lengths into as many as there are rows, where there are more.

    No norm of coefficients changes. Columns of very different lengths are kept apart: of the short ones little would
    be left but the rounding errors of the long ones. Returns the problem, the noise of its columns, and for each
    group its columns, its new ones, and by what its coefficients are to be multiplied.
    """
    rows, columns = R.shape
    if columns <= rows:
        return R, targets, noise, [(slice(None), slice(None), None)]
    lengths = _lengths(R)
    group = np.floor(np.log(lengths / lengths.min()) / math.log(_ALIKE))
    parts: list[Array] = []
    noises: list[Array] = []
    turns = []
    for each in np.unique(group):
        some = np.flatnonzero(group == each)
        part, its_noise, Q = R[::-1, some], noise[some], None
        if len(some) > rows:
            # Rows and columns stand in reverse order, so that this is an upper triangle.
            Q, L = np.linalg.qr(part[::-1].T)
            Q, part = Q[:, ::-1], L.T[::-1, ::-1]
            its_noise = np.sqrt((Q**2).T @ its_noise**2)
        first = sum(len(other) for other in noises)
        turns.append((some, slice(first, first + len(its_noise)), Q))
        parts.append(part)
        noises.append(its_noise)
    return np.hstack(parts), targets[::-1], np.concatenate(noises), turns


def _without_rounding(S: Array, targets: Array) -> tuple[Array, Array, Array | None]:
    """Leave out singular values up to 1: return orthogonal rows, their targets, and a basis of what they leave open.

    A triangle that has none of them is returned as it is, without a basis.
    """
    columns = S.shape[1]
    if _surely_above_one(S):
        return S, targets, None
    U, singular, Vt = np.linalg.svd(S, full_matrices=len(S) < columns)
    rank = int((singular > 1).sum())
    return singular[:rank, np.newaxis] * Vt[:rank], U[:, :rank].T @ targets, Vt[rank:]


def _solution(S: Array, targets: Array, free: Array | None) -> Array:
    """Return the smallest solution of a problem that `_without_rounding` returned."""
    if free is None:
        found: Array = solve_triangular(S, targets)
    else:
        found = S.T @ (targets / np.einsum("ij,ij->i", S, S)[:, np.newaxis])
    return found


def _surely_above_one(S: Array) -> bool:
    """Say whether this is a triangle with singular values far above 1, as its inverse shows at little cost."""
    if S.shape[0] != S.shape[1] or np.tril(S, -1).any():
        return False
    inverse, failed = lapack.dtrtri(S)
    return not failed and bool(10 * math.sqrt(len(S)) * np.abs(inverse).sum(axis=0).max() < 1)


def _penalized(R: Array, targets: Array, strength: float) -> tuple[Array, Array]:
    """Return the problem with the penalty as further rows, reduced again.

    Rows that are large against the lengths of their columns come first, or the small ones would lose digits.
    """
    root, columns = math.sqrt(strength), R.shape[1]
    rows = np.zeros((len(R) + columns, columns + targets.shape[1]))
    rows[: len(R), :columns], rows[: len(R), columns:] = R, targets
    np.fill_diagonal(rows[len(R) :], root)
    lengths = np.hypot(_lengths(R), root)
    largest = np.concatenate([(np.abs(R) / lengths).max(axis=1), root / lengths])
    triangle: Any = np.linalg.qr(rows[np.argsort(-largest, kind="stable")], mode="r")
    return triangle[:columns, :columns], triangle[:columns, columns:]


def _shortest(coef: Array, free: Array, unit: Array, lengths: Array) -> Array:
    """Return what differs from coefficients by rows of `free`, which are in units of their own, and is shortest."""
    Q, short = np.zeros((len(free), len(unit))), coef.copy()
    # One after the other, so that what has nothing in common, and may differ by far in size, is never mixed.
    for i, row in enumerate(_dependences(free, unit, lengths) / unit):
        row /= np.abs(row).max()
        for _ in range(2):  # once would leave rounding errors of what they have in common
            row -= (Q[:i] @ row) @ Q[:i]
        Q[i] = row / math.sqrt(row @ row)
        short -= np.outer(Q[i], Q[i] @ short)
    return short


def _dependences(free: Array, unit: Array, lengths: Array) -> Array:
    """Return rows that span the same, each for a column that depends on others: 1 there, and 0 at the other such ones.

    Entries that add no more than rounding errors to a score are set to 0, or they would matter at columns of small
    units. Of what depends on one another those of small units are taken.
    """
    dependent: NDArray[np.intp] = qr(free, mode="r", pivoting=True)[1][: len(free)]
    rows: Array = np.linalg.solve(free[:, dependent], free).astype(np.float64, copy=False)
    every = np.arange(len(free))

    def clean() -> None:
        rows[np.abs(rows) * lengths <= _ROUNDING] = 0.0
        rows[every, dependent] = 1.0

    clean()
    for i, row in enumerate(rows):
        shares = np.abs(row)
        j = int(np.where(shares >= 0.1 * shares.max(), unit, np.inf).argmin())
        if unit[j] < 0.1 * unit[dependent[i]]:
            row /= row[j]
            away = rows[:, j].copy()
            away[i] = 0.0
            rows -= np.outer(away, row)
            dependent[i] = j
            clean()
    return rows
