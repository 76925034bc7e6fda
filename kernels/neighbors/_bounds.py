"""Which bounds prune pairs of rows, if any: chosen from sizes, and from a few sampled rows.

`choose` says whether rows are rounded to a grid of bytes, or their principal columns, or nothing; `_pruning` does it.
What is chosen depends on the rows, the target and the number of threads; the neighbours do not depend on it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..distances import tile_shapes
from ..distances.arguments import DEFINITIONS, Metric, most_int32_columns
from . import _principal

__all__ = ["Bounds", "Grid", "Packed", "by_columns", "choose", "choose_grid", "is_worthwhile", "worth_keeping"]

#: With less work, shorter rows, fewer rows of X to repay the rounding of Y, or more neighbours, it does not pay.
_FEWEST_ELEMENTS = 1 << 31
_FEWEST_COLUMNS, _FEWEST_QUERIES, _ROWS_PER_NEIGHBOR = 64, 64, 32

#: Columns of all rows of Y from which rounded rows are kept: of fewer, all are in the cache.
_FEWEST_KEPT = 1 << 22

#: Rows of X, and as many of Y, from which the grid is chosen, and the share of their pairs that it must tell apart.
_SAMPLE_ROWS, _FEWEST_APART = 16, 0.6

#: Rows of features, of each side, from which their grid is chosen, and how many of them must lie within it.
_COVERED_ROWS, _COVERED = 512, 0.995

#: Steps between these leave room to scale.
_STEPS = {"float32": (1e-25, 1e25), "float64": (1e-200, 1e200)}


class Grid(NamedTuple):
    """Column c of a row x is rounded to the step nearest to ``(x[c] - origin[c]) * scale``, of 0 to 255."""

    #: Of the rows' dtype, as `scale` is.
    origin: NDArray[Any]
    scale: Any


class Packed(NamedTuple):
    """Rows of Y rounded to a grid, kept."""

    #: As tiles read them.
    panels: NDArray[Any]
    #: The largest distance to the grid among each 32 rows.
    radius: NDArray[np.float64]


class Bounds(NamedTuple):
    """What is rounded in place of the rows of X and Y, to which grid, and how much farther apart that may be."""

    grid: Grid
    x: _principal.Features
    y: _principal.Features
    stretch: float = 1.0
    #: None: rows are rounded, and packed, where they are looked at.
    packed: Packed | None = None

    def of_queries(self, some: slice) -> Bounds:
        """Return the bounds for some rows of X."""
        return self._replace(x=_principal.Features(self.x.rows[some], self.x.slack[some]))


def is_worthwhile(metric: Metric, dtype: np.dtype[Any], n: int, m: int, d: int, k: int) -> bool:
    """Whether bounds may save more than they cost, as far as sizes and Numba's target tell."""
    return bool(
        DEFINITIONS[metric].can_be_pruned
        and dtype.kind == "f"
        and tile_shapes.multiplies_bytes()
        and _FEWEST_COLUMNS <= d <= most_int32_columns("l2")
        and n >= _FEWEST_QUERIES
        and n * m * d >= _FEWEST_ELEMENTS
        and k * _ROWS_PER_NEIGHBOR <= m
    )


def worth_keeping(metric: Metric, y: NDArray[Any]) -> Bounds | None:
    """Return bounds for many queries, a few at a time, if such rows as Y has them; there is no X yet."""
    m, d = y.shape
    if m * d < _FEWEST_KEPT or not is_worthwhile(metric, y.dtype, _FEWEST_ELEMENTS, m, d, 1):
        return None
    grid = choose_grid(metric, y, y)
    if grid is None or not _tells_apart(metric, grid, y, y):
        return None
    features = _principal.Features(y, np.empty(0))
    return Bounds(grid, features, features)


def choose(
    metric: Metric,
    x: NDArray[Any],
    y: NDArray[Any],
    k: int,
    task_rows: int,
    n_threads: int,
    kept: Bounds | None = None,
    is_cut: bool = False,
) -> Bounds | None:
    """Return the bounds that a sample of the rows asks for; None where none would pay.

    Rounded rows of Y may have been `kept`; these alone pay where Y `is_cut` into parts for few queries.
    """
    m, d = y.shape
    if kept is not None and (is_cut or task_rows < _FEWEST_QUERIES):
        return _for_queries(metric, kept, x, y, k)
    if is_cut:
        return None
    if (bounds := by_columns(metric, x, y, k, n_threads)) is not None:
        return bounds
    if kept is not None and (bounds := _for_queries(metric, kept, x, y, k)) is not None:
        return bounds
    if not is_worthwhile(metric, x.dtype, task_rows, m, d, k):
        return None
    grid = choose_grid(metric, x, y)
    if grid is None or not _tells_apart(metric, grid, x, y):
        return None
    nothing = np.empty(0)
    return Bounds(grid, _principal.Features(x, nothing), _principal.Features(y, nothing))


def by_columns(metric: Metric, x: NDArray[Any], y: NDArray[Any], k: int, n_threads: int) -> Bounds | None:
    """Return bounds by principal columns, if sizes and a sample of the rows ask for them."""
    if not (_principal.is_worthwhile(metric, len(x), len(y), x.shape[1], k) and tile_shapes.multiplies_bytes()):
        return None
    anchors = _principal.choose(x, y, k)
    if anchors is None:
        return None
    x_side = _principal.features(anchors, x, n_threads)
    y_side = x_side if y is x else _principal.features(anchors, y, n_threads)
    grid = _covering_grid(x_side.rows, y_side.rows)
    return None if grid is None else Bounds(grid, x_side, y_side, stretch=anchors.stretch)


def _for_queries(metric: Metric, kept: Bounds, x: NDArray[Any], y: NDArray[Any], k: int) -> Bounds | None:
    """Return bounds with what was kept of Y, if they tell these queries apart from its rows."""
    if k * _ROWS_PER_NEIGHBOR > len(y) or not _tells_apart(metric, kept.grid, x, y):
        return None
    return kept._replace(x=_principal.Features(x, np.empty(0)))


@np.errstate(all="ignore")
def choose_grid(metric: Metric, x: NDArray[Any], y: NDArray[Any]) -> Grid | None:
    """Return the grid to which a sample of the rows is nearest; None where there is none."""
    sample = _finite_sample(x, y, _SAMPLE_ROWS)
    if not len(sample):
        return None
    lowest, highest = sample.min(), sample.max()
    chosen, nearest = None, np.inf
    for center in (np.full(x.shape[1], lowest / 2 + highest / 2), sample.mean(axis=0)):
        away = sample - center
        largest = np.abs(away).max()
        for half in (largest, min(largest, 4 * np.sqrt(np.square(away).mean()))):
            candidate = _grid_around(center, half, x.dtype)
            if candidate is None:
                continue
            scaled = (sample - candidate.origin) * float(candidate.scale)
            beside = np.abs(scaled - np.clip(np.rint(scaled), 0, 255)) / float(candidate.scale)
            if (distance := float(np.median(_norm(metric, beside)))) < nearest:
                chosen, nearest = candidate, distance
    return chosen


@np.errstate(all="ignore")
def _covering_grid(x: NDArray[Any], y: NDArray[Any]) -> Grid | None:
    """Return a grid that nearly all of some rows lie within, since one row beside it spoils the bounds of 32."""
    sample = _finite_sample(x, y, _COVERED_ROWS)
    if not len(sample):
        return None
    center = sample.mean(axis=0)
    return _grid_around(center, float(np.quantile(np.abs(sample - center).max(axis=1), _COVERED)), x.dtype)


def _finite_sample(x: NDArray[Any], y: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Return those of so many rows of each side that are finite."""
    rows = np.concatenate([_principal.sampled(side, count) for side in (x, y)])
    return rows[np.isfinite(rows).all(axis=1)].astype(np.float64)


def _grid_around(center: NDArray[np.float64], half: float, dtype: np.dtype[Any]) -> Grid | None:
    """Return the grid of 256 steps that reaches `half` to both sides of a center, if there is room to scale."""
    step = 2 * half / 255
    least, most = _STEPS[dtype.name]
    return Grid((center - half).astype(dtype), dtype.type(1 / step)) if least < step < most else None


@np.errstate(all="ignore")
def _tells_apart(metric: Metric, grid: Grid, x: NDArray[Any], y: NDArray[Any]) -> bool:
    """Whether sampled rows that bounds show to be half as far apart as the nearest of them are many enough."""
    sides = []
    for rows in (x, y):
        scaled = (_principal.sampled(rows, _SAMPLE_ROWS).astype(np.float64) - grid.origin) * float(grid.scale)
        sides.append((scaled, np.clip(np.rint(scaled), 0, 255)))
    (x_rows, x_places), (y_rows, y_places) = sides
    apart = _norm(metric, x_rows[:, np.newaxis] - y_rows)
    beside = _norm(metric, x_rows - x_places)[:, np.newaxis] + _norm(metric, y_rows - y_places)
    bounds = _norm(metric, x_places[:, np.newaxis] - y_places) - beside
    apart[apart == 0] = np.inf  # a row is in both samples
    return bool(np.mean(2 * bounds > apart.min(axis=1, keepdims=True)) >= _FEWEST_APART)


def _norm(metric: Metric, differences: NDArray[np.float64]) -> NDArray[Any]:
    """Return distances, of differences along the last axis."""
    differences = np.abs(differences)
    if metric == "l2":
        return np.asarray(np.sqrt(np.square(differences).sum(axis=-1)))
    return np.asarray(differences.sum(axis=-1) if metric == "l1" else differences.max(axis=-1))
