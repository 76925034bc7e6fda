"""Argument checking, once, outside the kernels.

Every public kernel, compiled or reference, hands its arguments to this room, by way of its family's
`arguments`, first. What comes back is *settled*: plain NumPy arrays, C-contiguous, aligned, native byte
order, of a supported dtype, with shapes, labels and weights checked. Kernels may then assume all of it.

Dtypes
    ======================================  =========  ==========================================
    input                                   settled    result
    ======================================  =========  ==========================================
    both uint8 (distances only)             uint8      L1, L-inf int32; squared L2 int32, or int64
                                                       from 33,026 columns on; L2 float32
    float16, float32, uint8; >= 1 float     float32    float32
    any other real dtype, bool included     float64    float64
    complex, object, str, dates, records    TypeError
    ======================================  =========  ==========================================
    A single array follows the same table: float16 and float32 are worked on as float32, all the
    rest (a lone uint8 array included) as float64. Targets, weights and scalars are cast to the
    dtype of the scores; in `linear` the dtype is decided by ``X`` alone.

Errors
    TypeError for dtypes and Python types, ValueError for shapes, ranges and values. Each message
    names the argument, what came, and what is needed.

Arrays that are right already pass through untouched (the same object, no copy), and the checks on
that path cost a few hundred nanoseconds each.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

Array = np.ndarray[Any, np.dtype[Any]]


FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)
INTP = np.dtype(np.intp)
UINT8 = np.dtype(np.uint8)

# A lookup, because `dtype.name` costs more than all the rest of `pair`.
KINDS = {FLOAT32: "float32", FLOAT64: "float64", UINT8: "uint8"}


def as_contiguous(array: ArrayLike, dtype: DTypeLike) -> Array:
    """Return `array` as a plain, C-contiguous, aligned, native-byte-order ndarray of `dtype`.

    No copy is made where all of that holds already; read-only arrays are fine. Values are cast as
    by ``astype``: check the dtype of untrusted input with `real` first.
    """
    if type(array) is np.ndarray and array.dtype == dtype:
        flags = array.flags
        if flags.c_contiguous and flags.aligned:
            return array
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, as in NumPy, but silently
        return np.require(array, dtype, ("C_CONTIGUOUS", "ALIGNED", "ENSUREARRAY"))


def real(x: ArrayLike, name: str) -> Array:
    """Return `x` as an ndarray of a real dtype (bool included), copied only if it is no array, or of bfloat16.

    That NumPy knows from `ml_dtypes` alone, and from torch not at all; its values are those of the float32 it becomes.
    """
    if type(x) is np.ndarray and x.dtype.kind in "fiub":
        return x
    refuse_masked(x, name)
    if hasattr(x, "toarray"):  # SciPy's sparse formats; np.asarray would wrap them as one object
        raise TypeError(f"{name} is sparse ({type(x).__name__}); pass a dense array ({name}.toarray())")
    if str(getattr(x, "dtype", "")) == "torch.bfloat16":
        x = x.float()  # type: ignore[union-attr]
    try:
        array = np.asarray(x, FLOAT64 if _has_real_columns(x) else None)
    except ValueError as error:  # rows of unequal length
        raise ValueError(f"{name} cannot be made an array, its parts differ in shape: {error}") from None
    if array.dtype.name == "bfloat16":
        return array.astype(FLOAT32)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} has dtype {array.dtype}; real numbers are needed (floating, integer or bool)")
    return array


def refuse_masked(x: object, name: str) -> None:
    """Refuse masked arrays and lists of them: what lies under a mask is not meant to be seen."""
    parts = x if isinstance(x, (list, tuple)) else (x,)
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        whole = "is a masked array" if parts is not x else "has masked arrays in it"
        raise TypeError(f"{name} {whole}; fill or drop its masked entries first")


def _has_real_columns(x: Any) -> bool:
    """Whether `x` is a table of real columns, which NumPy makes objects of if some are bool and some are not."""
    kinds = [getattr(dtype, "kind", "O") for dtype in getattr(x, "dtypes", ())] if hasattr(x, "columns") else []
    return "b" in kinds and all(kind in "fiub" for kind in kinds) and set(kinds) != {"b"}


def floating(x: ArrayLike, name: str, ndim: int | None = None) -> Array:
    """Return `x` settled as float32 (from float16, float32) or float64 (from all else)."""
    array = real(x, name)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}; {dimensions_needed(name, ndim)}")
    dtype = floating_dtype(array.dtype)
    warn_of_rounding(array, name, dtype)
    return as_contiguous(array, dtype)


def out(out: Array | None, shape: tuple[int, ...], dtype: DTypeLike, *inputs: object) -> Array:
    """Return the array to write the result to: a fresh one, or the caller's `out` after checks.

    `inputs` are the arguments as the caller gave them (those that are no arrays cannot overlap).
    """
    if out is None:
        return np.empty(shape, dtype)
    dtype = np.dtype(dtype)
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"out is a {type(out).__name__}; it must be a NumPy array")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}; the result has shape {shape}")
    if out.dtype != dtype:
        raise ValueError(f"out has dtype {out.dtype}; the result has dtype {dtype}")
    flags = out.flags
    if not flags.c_contiguous:
        raise ValueError(f"out is not C-contiguous (its strides are {out.strides}); it must be")
    if not flags.aligned:
        raise ValueError("out is not aligned in memory; it must be")
    if not flags.writeable:
        raise ValueError("out is read-only; it must be writeable")
    for x in inputs:
        # The first test looks at the address ranges only; the exact one is for interleaved views.
        if isinstance(x, np.ndarray) and np.may_share_memory(out, x) and np.shares_memory(out, x):
            raise ValueError("out overlaps with an input in memory; it must be an array of its own")
    return out


def warn_of_rounding(x: Array, name: str, dtype: np.dtype[Any]) -> None:
    """Say that large integers are rounded, such as nanoseconds since 1970 and hashes."""
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8 and x.size and dtype is FLOAT64:
        largest = max(int(np.maximum.reduce(x, axis=None)), -int(np.minimum.reduce(x, axis=None)))
        if largest > 2**53:
            text = f"{name} has integers up to {largest}, which float64 rounds from 2**53 on; subtract an offset first"
            warnings.warn(text, UserWarning, stacklevel=4)


def floating_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return float32 for float16 and float32, float64 for all else."""
    if dtype.kind == "f" and dtype.itemsize <= 4:
        return FLOAT32
    return FLOAT64


def dimensions_needed(name: str, ndim: int) -> str:
    """Say how many dimensions an argument must have."""
    if ndim == 2:
        return f"it must be 2-D (one row: {name}.reshape(1, -1), one column: {name}.reshape(-1, 1))"
    return f"it must be {ndim}-D"
