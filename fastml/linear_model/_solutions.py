"""Solutions of least squares that have been reduced to few rows: smallest, with a penalty, or none below 0."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack, qr, solve_triangular

from ..solvers.non_negative import non_negative
from ._orthogonal import Reduced, column_lengths, triangle_of

__all__ = ["not_below_zero", "solve"]

Array = NDArray[np.float64]

#: What a column may add to the rounding errors of one that depends on it, in units of its own, to be left out.
_ROUNDING = 10.0

#: Columns are turned into fewer with others whose lengths differ by less than this factor.
_ALIKE = 1e4


class _Solution(NamedTuple):
    coef: Array
    rank: int
    R: Array  # what was left of the columns, turned


def solve(reduced: Reduced, noise: Array, alpha: Array | None = None) -> _Solution:
    """Solve the reduced problem, with a penalty for each target or none, without what rounding alone may have made.

    Columns are measured by their noise, so that units do not matter: columns and, of the rest, singular values no
    larger than 1 count as 0. What they leave open is chosen such that the coefficients are smallest as they are.
    """
    kept = np.flatnonzero(column_lengths(reduced.R) > noise)
    coef = np.zeros((len(noise), reduced.targets.shape[1]))
    if not kept.size:
        return _Solution(coef, 0, np.empty((0, 0)))
    coef[kept], rank, R = _solve_columns(reduced.R[:, kept], reduced.targets, noise[kept], alpha)
    return _Solution(coef, rank, R)


def _solve_columns(columns: Array, targets: Array, noise: Array, alpha: Array | None) -> tuple[Array, int, Array]:
    """Solve the problem of columns that are longer than their noise: return coefficients, rank and triangle."""
    coef = np.empty((len(noise), targets.shape[1]))
    R, targets, unit, turns = _turned(columns, targets, noise)
    S, targets, free = _without_rounding(R / unit, targets)
    everywhere = alpha is not None and bool(alpha.all())
    found = np.empty((S.shape[1], targets.shape[1])) if everywhere else _solution(S, targets, free)
    for strength in [] if alpha is None else np.unique(alpha[alpha > 0]).tolist():
        which = alpha == strength
        triangle, penalized = _penalized(S * unit, targets[:, which], strength)
        found[:, which] = _solution(*_without_rounding(triangle / unit, penalized))
    found /= unit[:, np.newaxis]
    if free is not None and free.size:
        short = _shortest(found, free, unit, column_lengths(S))
        # What rounding has done to the scores is put right.
        found = short + _solution(S, (S * unit) @ (found - short), free) / unit[:, np.newaxis]
    for some, turned, Q in turns:
        coef[some] = found[turned] if Q is None else Q @ found[turned]
    return coef, len(S), R


def not_below_zero(solution: _Solution, reduced: Reduced, noise: Array, alpha: Array | None = None) -> Array:
    """Return the coefficients (D, T) of least sums that are not below 0, from the solution of the least sums of all."""
    coef = solution.coef.copy()
    lengths, eps = column_lengths(reduced.R), float(np.finfo(np.float64).eps)
    kept = np.flatnonzero(lengths > noise)
    for target in np.flatnonzero((coef < 0).any(axis=0)).tolist():
        strength = 0.0 if alpha is None else float(alpha[target])
        problem = _OneTarget(reduced.R[:, kept], reduced.targets[:, target : target + 1], noise[kept], strength)
        rounding = max(reduced.shape) * eps * float(np.linalg.norm(reduced.targets[:, target]))
        coef[:, target] = 0.0
        # The penalty is a row of its own for each column: it makes them longer, and independent of one another.
        longer = np.hypot(lengths[kept], math.sqrt(strength))
        rank = solution.rank if strength == 0 else len(kept)
        coef[kept, target] = non_negative(problem, longer, rank, rounding)
    return coef


class _OneTarget(NamedTuple):
    """A reduced problem with one target, as `non_negative` asks for it."""

    R: Array
    targets: Array  # (k, 1)
    noise: Array
    alpha: float

    def solve(self, inside: NDArray[np.bool_]) -> Array:
        """Return the coefficients of some columns."""
        some = int(inside.sum())
        triangle = triangle_of(np.hstack([self.R[:, inside], self.targets]))
        alpha = np.array([self.alpha]) if self.alpha > 0 else None
        found, _, _ = _solve_columns(triangle[:some, :some], triangle[:some, some:], self.noise[inside], alpha)
        return found[:, 0]

    def slope(self, x: Array) -> Array:
        """Return how fast half the sum falls along each coefficient."""
        falls: Array = self.R.T @ (self.targets[:, 0] - self.R @ x) - self.alpha * x
        return falls

    def value(self, x: Array) -> float:
        """Return half the sum."""
        residuals = self.targets[:, 0] - self.R @ x
        return 0.5 * float(residuals @ residuals + self.alpha * (x @ x))


def _turned(R: Array, targets: Array, noise: Array) -> tuple[Array, Array, Array, list[tuple[Any, slice, Any]]]:
    """Turn columns of similar lengths into as many as there are rows, where there are more.

    No norm of coefficients changes. Columns of very different lengths are kept apart: of the short ones little would
    be left but the rounding errors of the long ones. Returns the problem, the noise of its columns, and for each
    group its columns, its new ones, and by what its coefficients are to be multiplied.
    """
    rows, columns = R.shape
    if columns <= rows:
        return R, targets, noise, [(slice(None), slice(None), None)]
    lengths = column_lengths(R)
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
    lengths = np.hypot(column_lengths(R), root)
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
