"""Principal columns: a few numbers for each row that bound squared distances of long rows from below.

Where data vary mostly along a few directions, as images do, what rows are in these directions tells most pairs apart.
With Q a matrix of p rows that are nearly orthonormal, z = x - v the row from a center v, and R(x) the length of what
the span of Q leaves of z, the map f(x) = (Q z, R(x)) brings no two rows farther apart than a factor sqrt(1 + e), where
e is a bound of the operator norm of Q Q' - I:

    |f(x) - f(y)|^2 <= (1 + e) |x - y|^2.

For with A = (Q Q')^(-1/2) Q, whose rows are orthonormal, |Q z|^2 <= (1 + e) |A z|^2, and the lengths of what is left of
x and of y differ by no more than what is left of x - y is long. So `_pruning` rounds f(x) to bytes instead of x, an
eighth of the columns or less, and of what these do not prune it asks f(x) itself.

Anchors. Q is never multiplied: the tiles of distances make squared distances t_j of a row from p + 1 anchors, the
center v_0 and v_j = v_0 + s q_j, and

    (Q z)_j = (t_0 - t_j + |v_j - v_0|^2) / (2 s),    R^2 = t_0 - |A z|^2.

Differences are made before squares, so no digits are lost where rows are far from zero. The anchors are what rounding
has made of them, and q_j is defined by them: e comes from all products of differences of anchors, in float64 (the
Frobenius norm of their matrix less I, and p (D + 8) 2^-51 for their own rounding).

Rounding errors. L is the number of operations that a term of a tile's sum goes through, u the rows' unit roundoff,
g = 1.01 ((L + 8) u + (p + 9) 2^-52), and tiny the smallest normal number.
    - t_0 and t_j are off by g t and 8 D tiny, as `_pruning` says of sums, and the rest is float64. The errors of all
      columns are together no longer than d = (sqrt(p) (g (2 t_0 + |v_j - v_0|^2) + 16 D tiny)) / (2 s) + g |Q z|,
      since t_0 + t_j = 2 t_0 + |v_j - v_0|^2 - 2 s (Q z)_j; and the squares |v_j - v_0|^2 are off by (D + 8) 2^-52 of
      themselves.
    - R^2 is off by E = g t_0 + 8 D tiny + 2 |Q z| d + d^2 + e t_0, so R by at most E / max(R, sqrt(E)).
    - To keep all in the rows' dtype takes 2 u of their length, and tiny for each.
|Q z| <= sqrt((1 + e) t_0). `slack` is the sum of the three: f(x) as it is kept is no farther from the true one. Where
something overflows, or is no number, it is infinite, and no pair of the row is pruned.

`choose` looks for the directions in a sample, and says whether they pay; `features` makes f(x) and its slack.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments.arrays import UINT8
from ..distances import panels, tile_shapes
from ..distances.arguments import Metric
from ..runtime import parallel
from ..runtime.jit import kernel

__all__ = ["Anchors", "Features", "choose", "features", "is_worthwhile", "sampled"]

#: With fewer pairs, shorter rows, or fewer rows on a side to repay what is made of each row of the other, it is not
#: tried: to look for directions takes as long as some 10^6 pairs, and twice as many where bytes are multiplied as they
#: are.
_FEWEST_PAIRS = 1 << 24
_FEWEST_COLUMNS, _FEWEST_QUERIES, _FEWEST_POINTS, _ROWS_PER_NEIGHBOR = 256, 256, 4096, 256

#: How many directions there may be: with the length of what is left, whole steps of a panel of bytes.
_DIRECTIONS = (31, 47, 63, 95)

#: Rows whose differences shall hold such a share of those of others, before more is asked.
_FIRST_ROWS, _FIRST_SHARE = 32, 0.35

#: Rows of Y from which directions are made, rows of X that try them, and how often all are multiplied.
_SAMPLE_ROWS, _QUERIES, _ITERATIONS = 768, 32, 2

#: Near and next points of a query, from whose distances that of nearer ones is guessed.
_NEXT = 16

#: A column of float32 costs a tile as much as so many of bytes, by how these are multiplied; that of a distance made
#: alone so many times as much (half of that for those that are made before near neighbors are known).
_PRODUCT, _PAIR_PRODUCT, _ALONE = 4, 2, 16

#: The work left, as a share of that of bytes of all columns, from which directions do not pay; and how far from
#: orthonormal they may be.
_MOST_WORK, _MOST_SKEW = 0.75, 1e-3

#: Products so few that no BLAS uses threads.
_FEW_PRODUCTS = 1 << 18

#: A length that no row has which counts.
_LEAST = 1e-30

#: Rows that `features` takes at once. With a power of two all totals of a row would share a few lines of the cache.
_ROWS = 1008


class Anchors(NamedTuple):
    """The center and, at about `distance` from it, a point in each direction."""

    rows: NDArray[Any]
    distance: float
    #: Squared distances from the center.
    squares: NDArray[np.float64]
    #: A bound of how far from orthonormal the directions are.
    skew: float

    @property
    def stretch(self) -> float:
        """How many times as far apart as rows their features can be."""
        return math.sqrt(1 + self.skew) * (1 + 1e-9)


class Features(NamedTuple):
    """Rows that are rounded in place of others, and how far each may be from what it stands for; empty: not at all."""

    rows: NDArray[Any]
    slack: NDArray[np.float64]


def is_worthwhile(metric: Metric, n: int, m: int, d: int, k: int) -> bool:
    """Whether it may pay to look for directions, as far as sizes tell."""
    return (
        metric == "l2"
        and d >= _FEWEST_COLUMNS
        and n >= _FEWEST_QUERIES
        and m >= max(_FEWEST_POINTS, k * _ROWS_PER_NEIGHBOR)
        and n * m >= _FEWEST_PAIRS << tile_shapes.multiplies_as_bytes(UINT8)
    )


def sampled(rows: NDArray[Any], count: int) -> NDArray[Any]:
    """Return so many rows from all over."""
    return rows[:: max(1, len(rows) // count)][:count]


@np.errstate(all="ignore")
def choose(x: NDArray[Any], y: NDArray[Any], k: int) -> Anchors | None:
    """Return the anchors that a sample of the rows asks for; None where they would not pay."""
    if not _is_flat(sampled(x, _FIRST_ROWS), sampled(y, _FIRST_ROWS)):
        return None
    dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float32)
    points, queries = sampled(y, _SAMPLE_ROWS).astype(np.float64), sampled(x, _QUERIES).astype(np.float64)
    center = points.mean(axis=0)
    points, queries = points - center, queries - center
    size = float(np.sqrt(np.square(points).sum(axis=1).mean()))
    if not 0 < size < np.inf:
        return None
    points, queries = (points / size).astype(dtype), (queries / size).astype(dtype)
    if not (np.isfinite(points).all() and np.isfinite(queries).all()):
        return None
    directions = _directions(points)
    # Products of bytes, each pair's made once, take half of what bounds from all columns take.
    is_halved = y is x and x.dtype == UINT8 and tile_shapes.multiplies_as_bytes(UINT8)
    most = _MOST_WORK / 2 if is_halved else _MOST_WORK
    count = _best_count(points, queries, directions, k, len(x), len(y), most)
    return _anchors(center, directions[:count], size, dtype) if count else None


def _is_flat(x: NDArray[Any], y: NDArray[Any]) -> bool:
    """Whether differences of a few rows of Y span much of most differences of rows of X."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    x, y = (
        apart / np.maximum(np.sqrt(np.square(apart).sum(axis=1, keepdims=True)), _LEAST)
        for apart in (x[1::2] - x[: len(x) - 1 : 2], y[1:] - y[:-1])
    )
    among, seen = _products(y, y), _products(x, y)
    among.flat[:: len(y) + 1] += 1e-3
    if not np.isfinite(among).all():
        return False
    shares = (np.linalg.solve(among, seen.T) * seen.T).sum(axis=0)
    return bool(np.median(shares) >= _FIRST_SHARE)


def _products(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """Return the products of rows, made by blocks: a BLAS that wakes its threads for so little may wait for long."""
    x, y = x.astype(np.float64, copy=False), y.astype(np.float64, copy=False)
    step = max(1, math.isqrt(_FEW_PRODUCTS // x.shape[1]))
    products = np.empty((len(x), len(y)))
    for top in range(0, len(x), step):
        for left in range(0, len(y), step):
            products[top : top + step, left : left + step] = x[top : top + step] @ y[left : left + step].T
    return products


def _directions(points: NDArray[Any]) -> NDArray[Any]:
    """Return orthonormal directions (p, D) in which most of the points' variance is, the leading ones first."""
    most = min(_DIRECTIONS[-1] + 1, len(points), points.shape[1])
    basis, columns = sampled(points, most), np.ascontiguousarray(points.T)
    for _ in range(_ITERATIONS):
        basis = _orthonormal(_seen(_seen(basis, points), columns))
    return basis


def _seen(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """Return the products of rows, not exactly: from squared distances, which need no threads of a BLAS."""
    size = max(np.sqrt(np.square(x).sum(axis=1).max()), _LEAST)
    x = x / size
    squares = np.square(x).sum(axis=1)[:, np.newaxis] + np.square(y).sum(axis=1)
    return (squares - panels.totals("l2", x, y)) * (size / 2)


def _orthonormal(rows: NDArray[Any]) -> NDArray[Any]:
    """Return orthonormal rows of about the same span, the first ones of the span of the first."""
    for _ in range(2):
        rows = rows / np.maximum(np.sqrt(np.square(rows).sum(axis=1, keepdims=True)), _LEAST)
        among = _products(rows, rows)
        among.flat[:: len(rows) + 1] += 1e-9
        rows = _products(np.linalg.inv(np.linalg.cholesky(among)), np.ascontiguousarray(rows.T)).astype(rows.dtype)
    return rows


def _best_count(
    points: NDArray[Any], queries: NDArray[Any], directions: NDArray[Any], k: int, n: int, m: int, most: float
) -> int:
    """Return with how many directions the work is least, as sampled pairs tell; 0 where it is above a share `most`."""
    d = points.shape[1]
    totals = panels.totals("l2", queries, points)
    totals[totals == 0] = np.inf  # of the query itself, or rows that are equal, which say nothing of others
    near, following = np.partition(totals, (0, _NEXT - 1), axis=1)[:, [0, _NEXT - 1]].T
    useful = np.isfinite(following)
    if not useful.any():
        return 0
    queries, near = queries[useful], near[useful]
    x, y = (np.ascontiguousarray(_seen(directions, rows).T) for rows in (queries, points))
    x_squares, y_squares = (np.square(rows).sum(axis=1) for rows in (queries, points))
    growth = float(np.median(np.log(following[useful] / near))) / math.log(_NEXT)
    reach = np.sqrt(near * (k * len(points) / m) ** growth)[:, np.newaxis]
    per_column = (_PRODUCT if tile_shapes.multiplies_as_bytes(UINT8) else _PAIR_PRODUCT) * points.itemsize // 4
    best, least = 0, most * d
    for count in _DIRECTIONS:
        if count > len(directions):
            break
        u, v = np.ascontiguousarray(x[:, :count]), np.ascontiguousarray(y[:, :count])
        u_left, v_left = (
            np.sqrt(np.maximum(squares - np.square(seen).sum(axis=1), 0))
            for squares, seen in ((x_squares, u), (y_squares, v))
        )
        bound = panels.totals("l2", u, v) + np.square(u_left[:, np.newaxis] - v_left)
        step = 8 * np.sqrt(np.square(v).mean()) / 255
        left = float((np.sqrt(bound) - 3 * step * math.sqrt((count + 1) / 12) < reach).mean())
        work = count + 1 + per_column * d * (_ALONE * left + (count + 1) * (1 / n + 1 / m))
        if work < least:
            best, least = count, work
    return best


def _anchors(
    center: NDArray[np.float64], directions: NDArray[Any], size: float, dtype: np.dtype[Any]
) -> Anchors | None:
    """Return anchors in directions that are turned among themselves, so that all see about the same variance."""
    count, d = directions.shape
    place = np.arange(count)
    turn = np.cos(np.pi * np.outer(place + 0.5, place) / count) * np.sqrt(2 / count)
    turn[:, 0] /= np.sqrt(2)
    distance = np.sqrt(2) * size
    kept = np.vstack([center, center + distance * _products(turn, np.ascontiguousarray(directions.T))]).astype(dtype)
    apart = (kept[1:].astype(np.float64) - kept[0]) / distance
    products = _products(apart, apart)
    squares = np.diag(products) * distance * distance
    skew = float(np.linalg.norm(products - np.eye(count)) + count * (d + 8) * 2.0**-51)
    useful = skew <= _MOST_SKEW and np.isfinite(squares).all()
    return Anchors(kept, distance, squares, skew) if useful else None


def features(anchors: Anchors, rows: NDArray[Any], n_threads: int) -> Features:
    """Return principal columns of rows, and the length of what these leave, with their slack."""
    made = np.empty((len(rows), len(anchors.rows)), anchors.rows.dtype)
    slack = np.empty(len(rows))

    def work(first: int, last: int) -> None:
        for begin in range(first, last, _ROWS):
            some = slice(begin, min(last, begin + _ROWS))
            _features(anchors, rows[some], made[some], slack[some])

    most = max(1, panels.CALL_ELEMENTS // anchors.rows.size)
    parallel.run_ranges(work, len(rows), n_threads, most=most)
    return Features(made, slack)


@np.errstate(all="ignore")
def _features(anchors: Anchors, rows: NDArray[Any], made: NDArray[Any], slack: NDArray[np.float64]) -> None:
    (count, d), dtype, distance = anchors.rows.shape, made.dtype, anchors.distance
    totals = panels.totals("l2", anchors.rows, rows.astype(dtype, copy=False))
    _columns(totals, anchors.squares, 0.5 / distance, made)
    center, left = totals[0].astype(np.float64), made[:, -1].astype(np.float64)

    kind, chunk = np.finfo(dtype), panels.chunk_length(d, panels.plan("l2", dtype, count, d).chunk_steps)
    relative = 1.01 * ((chunk + -(-d // chunk) + 8) * float(kind.eps) / 2 + (count + 8) * 2.0**-52)
    tiny = d * float(kind.tiny)
    length = 1.01 * np.sqrt(center)
    squares = anchors.squares.max()
    off = (2 * center + squares) * relative + (d + 8) * 2.0**-52 * squares + 16 * tiny
    off = math.sqrt(count) * off / (2 * distance) + length * relative
    off_left = (relative + anchors.skew) * center + 8 * tiny + 2 * (length + off) * off + off * off
    kept = float(kind.eps) * (length + off) + count * float(kind.tiny)
    slack[:] = (off + off_left / np.maximum(left, np.sqrt(off_left)) + kept) * (1 + 1e-6)
    # A distance from an anchor may overflow where that from the center does not.
    slack[~(np.isfinite(slack) & np.isfinite(made).all(axis=1))] = np.inf


@kernel
def _columns(totals, squares, factor, made):  # type: ignore[no-untyped-def]
    """Make principal columns from squared distances of anchors (p + 1, n), and the length that these leave."""
    last = made.shape[1] - 1
    for j in range(made.shape[0]):
        center, seen = np.float64(totals[0, j]), 0.0
        for c in range(last):
            column = (center - np.float64(totals[c + 1, j]) + squares[c]) * factor
            seen += column * column
            made[j, c] = column
        made[j, last] = np.sqrt(max(center - seen, 0.0))
