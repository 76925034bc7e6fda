"""Rows among which neighbours are looked for: with structure and without, of few columns and many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DATA_SETS", "make"]

Rows = NDArray[Any]
Draw = Callable[[np.random.Generator, int], Rows]


def _uniform(columns: int) -> Draw:
    return lambda rng, n: rng.random((n, columns))


def _normal(columns: int) -> Draw:
    return lambda rng, n: rng.standard_normal((n, columns))


def _blobs(columns: int) -> Draw:
    """Draw from 100 clusters, ten times as far apart as they are wide."""

    def draw(rng: np.random.Generator, n: int) -> Rows:
        centers = 10 * np.random.default_rng(7).standard_normal((100, columns))
        return centers[rng.integers(0, 100, n)] + rng.standard_normal((n, columns))

    return draw


def _of_low_rank(columns: int, rank: int) -> Draw:
    """Draw around a flat of few dimensions."""

    def draw(rng: np.random.Generator, n: int) -> Rows:
        directions = np.random.default_rng(7).standard_normal((rank, columns))
        return rng.standard_normal((n, rank)) @ directions + 0.01 * rng.standard_normal((n, columns))

    return draw


def _spiral(rng: np.random.Generator, n: int) -> Rows:
    """Draw from a rolled sheet."""
    turn = 1.5 * np.pi * (1 + 2 * rng.random(n))
    return np.column_stack([turn * np.cos(turn), 20 * rng.random(n), turn * np.sin(turn)])


def _walk(rng: np.random.Generator, n: int) -> Rows:
    """Draw the steps of a walk, in the order of time."""
    walk: Rows = rng.standard_normal((n, 6)).cumsum(axis=0)
    return walk


def _whole_numbers(rng: np.random.Generator, n: int) -> Rows:
    """Draw from few values: many rows are equal, and most distances too."""
    return rng.integers(0, 30, (n, 3)).astype(np.float64)


#: Columns, and how rows are drawn. What is drawn does not depend on how many rows are.
DATA_SETS: dict[str, Draw] = {
    "uniform, 2 columns": _uniform(2),
    "uniform, 8 columns": _uniform(8),
    "uniform, 16 columns": _uniform(16),
    "uniform, 64 columns": _uniform(64),
    "normal, 5 columns": _normal(5),
    "normal, 12 columns": _normal(12),
    "100 blobs, 16 columns": _blobs(16),
    "100 blobs, 50 columns": _blobs(50),
    "a flat of 3 dimensions, 128 columns": _of_low_rank(128, 3),
    "a rolled sheet, 3 columns": _spiral,
    "a walk in order of time, 6 columns": _walk,
    "whole numbers, 3 columns": _whole_numbers,
}


def make(name: str, n: int, m: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return n queries and the m rows among which they look, of a data set."""
    draw = DATA_SETS[name]
    return tuple(draw(np.random.default_rng(seed), rows).astype(np.float32) for seed, rows in ((0, n), (1, m)))  # type: ignore[return-value]
