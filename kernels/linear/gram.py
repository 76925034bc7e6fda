"""Weighted Gram matrices, sum_i w_i x_i x_i': what Newton steps and their relatives solve with.

Rows are given by number, so that a sample of them can be taken where all would cost too much. `CHUNK` of
them at a time are scaled by the root of their weight and packed into panels of `width` columns, a column of
ones last; a register tile of `rows` x 2 vectors then runs down two panels. Only panels on and below the
diagonal are multiplied.

Sums. A chunk is summed in the dtype of the work (float32 for float32 rows, unless more is asked for), chunks in
float64; chunks are cut into at most `_SLABS` slabs by the number of rows alone, and these are added up in order:
same bits for any number of threads.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numpy.typing import NDArray

from ..runtime import parallel
from ..runtime.jit import inner, intrinsic, kernel, readonly
from ..runtime.target import target
from ..simd.functions import like

__all__ = ["weighted_gram"]

#: Rows whose products are summed before the sum moves to float64; a panel of them fits the first-level cache.
CHUNK = 128

_SLABS = 8
_SLAB_BYTES = 1 << 28

#: Multiply-adds that one compiled call may do, and seconds of one for each byte of a number, roughly.
_CALL_PRODUCTS = 1 << 30
_PRODUCT_SECONDS = 3e-12


def weighted_gram(
    X: NDArray[Any],
    rows: NDArray[np.intp],
    weight: NDArray[np.float64],
    dtype: np.dtype[Any],
    n_threads: int | None = None,
) -> NDArray[np.float64]:
    """Return ``Z.T @ (weight[:, None] * Z)`` of ``Z = [X[rows], 1]``, symmetric, in float64.

    Parameters
    ----------
    X : ndarray of shape (n, D), float32 or float64, C-contiguous
        The rows to choose from.
    rows : ndarray of shape (m,), intp
        Numbers of the rows to take.
    weight : ndarray of shape (m,), float64
        Their weights, not negative.
    dtype : dtype
        What products are made in: that of `X`, or float64.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    ndarray of shape (D + 1, D + 1)

    Notes
    -----
    About m D² / 2 multiply-adds. Work space: up to 8 results (fewer where they are large), and per thread
    `CHUNK` packed rows.
    """
    m, size = len(rows), X.shape[1] + 1
    shape = tile_shape(dtype)
    padded = -(-size // shape[1]) * shape[1]
    slabs = max(1, min(_SLABS, m // (4 * CHUNK), _SLAB_BYTES // (8 * size * size)))
    per_slab = -(-m // (slabs * CHUNK)) * CHUNK
    step = max(1, 2 * _CALL_PRODUCTS // (CHUNK * padded * padded)) * CHUNK
    totals = np.zeros((slabs, size, size))
    settled = readonly(X), readonly(rows), readonly(np.sqrt(weight).astype(dtype))

    def work(slab: int) -> None:
        for first in range(slab * per_slab, min(m, (slab + 1) * per_slab), step):
            _add_gram(*settled, first, min(m, (slab + 1) * per_slab, first + step), shape, totals[slab])

    threads = parallel.resolve(n_threads, seconds=m * size * size * dtype.itemsize * _PRODUCT_SECONDS)
    parallel.run(work, slabs, threads)
    total: NDArray[np.float64] = totals[0] if slabs == 1 else np.add.reduce(totals)
    _mirror(total)
    return total


@cache
def tile_shape(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the rows of the register tile, and the width of a panel: two vectors.

    Where there are 32 registers, 16 of them accumulate, otherwise 8. The width is a multiple of the rows.
    """
    many = target().vector_bytes == 64 or "x86" not in target().features
    lanes = target().vector_bytes // dtype.itemsize
    return min(8 if many else 4, 2 * lanes), 2 * lanes


@kernel
def _add_gram(X, rows, root, first, last, shape, total):  # type: ignore[no-untyped-def]
    """Add the products of ``rows[first:last]`` times `root` to the lower triangle of `total`, by whole panels."""
    tile, width = shape
    size = total.shape[0]
    panels = -(-size // width)
    packed = np.zeros((panels, CHUNK * width), root.dtype)
    block = np.empty((tile, width), root.dtype)
    for top in range(first, last, CHUNK):
        n = min(CHUNK, last - top)
        _pack(X, rows[top : top + n], root[top : top + n], width, packed)
        for low in range(panels):
            for high in range(low + 1):
                for at in range(0, width, tile):
                    row = low * width + at
                    if row < size:
                        add_products(packed[low], at, packed[high], n, block)
                        _add_block(block, row, high * width, total)


@inner
def _pack(X, rows, root, width, packed):  # type: ignore[no-untyped-def]
    """Write the scaled rows and their one into the panels; the padding beyond stays zero."""
    columns = X.shape[1]
    for i in range(rows.size):
        source, scale = X[rows[i]], root[i]
        for panel in range(packed.shape[0]):
            begin = panel * width
            part, place = source[begin : begin + width], packed[panel, i * width : (i + 1) * width]
            for d in range(part.size):
                place[d] = scale * like(scale, part[d])
        packed[columns // width, i * width + columns % width] = scale


@inner
def _add_block(block, row, column, total):  # type: ignore[no-untyped-def]
    size = total.shape[0]
    for i in range(min(block.shape[0], size - row)):
        source, place = block[i], total[row + i, column:]
        for j in range(min(block.shape[1], size - column)):
            place[j] += source[j]


@kernel
def _mirror(total):  # type: ignore[no-untyped-def]
    """Copy the lower triangle into the upper one."""
    for i in range(total.shape[0]):
        for j in range(i):
            total[j, i] = total[i, j]


def _add_products_twin(A, at, B, steps, block):  # type: ignore[no-untyped-def]
    tile, width = block.shape
    a = A[: steps * width].reshape(steps, width)[:, at : at + tile]
    block[:] = a.T @ B[: steps * width].reshape(steps, width)


@intrinsic(twin=_add_products_twin)
def add_products(typingctx, A, at, B, steps, block):  # type: ignore[no-untyped-def]
    """``block[i, j] = sum_r A[r, at + i] B[r, j]`` over `steps` rows of two flat panels of two vectors' width."""

    def emit(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        tile, width = tile_shape(np.dtype(str(A.dtype)))
        vectors, lanes = 2, width // 2
        scalar = context.get_data_type(A.dtype)
        vector = ir.VectorType(scalar, lanes)
        align = A.dtype.bitwidth // 8
        fma = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{lanes}f{A.dtype.bitwidth}"
        )
        index, nowhere = ir.IntType(32), ir.Constant(vector, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(index, lanes), [0] * lanes)

        def number(value: int) -> ir.Constant:
            return ir.Constant(cgutils.intp_t, value)

        def place(base: ir.Value, offset: ir.Value) -> ir.Value:
            return b.bitcast(b.gep(base, [offset]), vector.as_pointer())

        left, right, out = (
            context.make_array(kind)(context, b, arguments[position]).data
            for kind, position in ((A, 0), (B, 2), (block, 4))
        )
        sums = [cgutils.alloca_once(b, vector) for _ in range(tile * vectors)]
        for each in sums:
            b.store(ir.Constant(vector, None), each)
        with cgutils.for_range(b, arguments[3]) as loop:
            row = b.mul(loop.index, number(width))
            here = [b.load(place(right, b.add(row, number(j * lanes))), align=align) for j in range(vectors)]
            for i in range(tile):
                single = b.load(b.gep(left, [b.add(b.add(row, arguments[1]), number(i))]))
                spread = b.shuffle_vector(b.insert_element(nowhere, single, index(0)), nowhere, everywhere)
                for j in range(vectors):
                    each = sums[i * vectors + j]
                    b.store(b.call(fma, [spread, here[j], b.load(each)]), each)
        for i in range(tile):
            for j in range(vectors):
                b.store(b.load(sums[i * vectors + j]), place(out, number(i * width + j * lanes)), align=align)
        return context.get_dummy_value()

    return types.void(A, types.intp, B, types.intp, block), emit
