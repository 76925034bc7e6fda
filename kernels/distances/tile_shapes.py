"""How a tile of distances lies in the registers of the target: its rows and points, the lanes and steps of panels.

The shapes are chosen here, `panels` makes its plan from them, and `tiles` writes code for them. `target` is asked each
time, so that code can be made for another one than that of this machine.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..runtime.target import target

__all__ = [
    "BITS",
    "HALVED",
    "X_PITCH_BYTES",
    "TileShape",
    "columns_per_lane",
    "copies",
    "few_rows",
    "lanes_squared_at_once",
    "multiplies_as_bytes",
    "multiplies_bytes",
    "norm_steps",
    "rounded_dtype",
    "taken_from_x",
    "tile_shape",
    "transpose_width",
    "y_unit",
]

#: Rows that are rounded for bounds where `vpmaddubsw` is what multiplies bytes: it adds two products in 16 bits, and
#: these hold them if one factor is below 128. So of Y there is half of each byte, of X the byte less 128.
HALVED = np.dtype(np.int8)

#: Groups of packed bits. Their counts are added up in bytes, for which a chunk must be short: 8 bits in 31 steps.
BITS = np.dtype(np.int64)


#: From one row of X to the next where tiles read single values of them: longer than two usual chunks.
X_PITCH_BYTES = 2240


class TileShape(NamedTuple):
    """`rows` of X times `vectors` vectors of points of Y; `lanes` points per vector."""

    rows: int
    vectors: int
    lanes: int

    @property
    def points(self) -> int:
        """Points of Y that a tile takes."""
        return self.vectors * self.lanes


def columns_per_lane(dtype: np.dtype[Any]) -> int:
    """Return how many columns one lane of a panel holds: one float, one group of bits, or eight bytes."""
    return 1 if dtype.kind == "f" or dtype == BITS else 8


@cache
def tile_shape(metric: str, dtype: np.dtype[Any]) -> TileShape:
    """Choose the tile so that accumulators, operands and temporaries fit the target's registers.

    x86 has 32 registers with AVX-512 and 16 without, Arm has 32. The shapes are measured: larger
    tiles spill, and smaller ones wait for loads or are unrolled by the compiler until they spill.
    """
    is_float = dtype.kind == "f"
    vector_bytes = target().vector_bytes if is_float else _integer_vector_bytes()
    if vector_bytes == 64:
        rows, vectors = (4, 6) if is_float else (4, 4)
    elif "x86" not in target().features:
        rows, vectors = 4, 4
    elif is_float and metric in ("l2", "inner_product") and "fma" in target().features:
        rows, vectors = 6, 2
    else:
        rows, vectors = 4, 2
    if metric == "jaccard":  # it has two totals for each pair
        vectors //= 2
    point_bytes = dtype.itemsize if is_float else 16 if metric == "l2" and not multiplies_as_bytes(dtype) else 8
    return TileShape(rows, vectors, vector_bytes // point_bytes)


def norm_steps(dtype: np.dtype[Any]) -> int:
    """Return how many steps a panel has beyond its columns: one, where squared distances of bytes come from products.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x.y is exact in integers, and `vpdpbusd` makes 64 products at once, Arm's `udot` 16;
    `vpmaddwd` of words saves the differences. The step beyond the columns holds what depends on one row alone, its
    norm. There is room for it whatever the metric, since panels do not know what they are for.
    """
    as_words = "x86" in target().features and _integer_vector_bytes() == target().vector_bytes
    return int(dtype == HALVED or (dtype == np.uint8 and (as_words or multiplies_as_bytes(dtype))))


def multiplies_as_bytes(dtype: np.dtype[Any]) -> bool:
    """Whether bytes are multiplied as they are; else they become words for it."""
    return dtype == HALVED or bool({"vnni", "dotprod"} & target().features)


def taken_from_x(dtype: np.dtype[Any]) -> int:
    """Return what bytes of X lose before they are multiplied, where one factor must have a sign."""
    return 128 if dtype == HALVED or "vnni" in target().features else 0


def y_unit(dtype: np.dtype[Any]) -> int:
    """Return how many steps of x one step of y is."""
    return 2 if dtype == HALVED else 1


def multiplies_bytes() -> bool:
    """Whether distances of bytes are so much faster than those of floats that bounds from bytes pay."""
    return bool({"avx2", "avx512bw", "neon"} & target().features)


def rounded_dtype(metric: str) -> np.dtype[Any]:
    """Return the bytes to which rows are rounded for bounds."""
    by_pairs = metric == "l2" and "vnni" not in target().features and bool({"avx2", "avx512bw"} & target().features)
    return HALVED if by_pairs else np.dtype(np.uint8)


def _integer_vector_bytes() -> int:
    """AVX-512 without its byte and word part, and AVX without AVX2, have no wide integer operations."""
    features, width = target().features, target().vector_bytes
    if "x86" not in features:
        return width
    return 64 if "avx512bw" in features else 32 if "avx2" in features else 16


def lanes_squared_at_once() -> int:
    """Return how many lanes of eight bytes are squared at once: half of a vector where bytes become words for it."""
    return _integer_vector_bytes() // (8 if "dotprod" in target().features else 16)


def transpose_width(dtype: np.dtype[Any]) -> int:
    """Return the rows, and lanes of a row, that `transpose` takes at once: a vector register's lanes."""
    return target().vector_bytes // (columns_per_lane(dtype) * dtype.itemsize)


def few_rows(dtype: np.dtype[Any]) -> int:
    """Return how many scattered rows `accumulate_few` takes at once."""
    return transpose_width(dtype) if dtype.kind == "f" else 4


@cache
def copies(metric: str, dtype: np.dtype[Any]) -> int:
    """Return in how many lanes a value of X is put before tiles read it: all of a vector, or one.

    All, where to broadcast a value costs the units that add: without AVX it is a shuffle, and on Zen 4
    each 512-bit broadcast costs an addition (51 against 58 Gelem/s of squared differences). AVX and Arm
    broadcast while they load, and a copy more would only take room in the first-level cache.
    """
    loads_can_broadcast = target().vector_bytes == 32 or "x86" not in target().features
    return 1 if loads_can_broadcast else tile_shape(metric, dtype).lanes
