"""Argument checking, once, outside the kernels.

Every public kernel, compiled or reference, hands its arguments to this module first. What comes
back is *settled*: plain NumPy arrays, C-contiguous, aligned, native byte order, of a supported
dtype, with shapes, labels and weights checked. Kernels may then assume all of it.

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

import math
import numbers
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

Array = np.ndarray[Any, np.dtype[Any]]
Metric = Literal["l1", "l2", "linf"]
Target = Literal["probability", "sign", "real"]

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)
INTP = np.dtype(np.intp)
UINT8 = np.dtype(np.uint8)

# A lookup, because `dtype.name` costs more than all the rest of `pair`.
KINDS = {FLOAT32: "float32", FLOAT64: "float64", UINT8: "uint8"}

METRICS: dict[str, Metric] = {
    "l1": "l1",
    "manhattan": "l1",
    "cityblock": "l1",
    "l2": "l2",
    "euclidean": "l2",
    "linf": "linf",
    "chebyshev": "linf",
}

# The losses that `linear_loss_gradient` knows, with what each asks of its target. "class" losses
# have one score per class (W is (C, D)), the others one score per row (W is (D,)).
LOSSES: dict[str, str] = {
    "binary_cross_entropy": "probability",
    "softmax_cross_entropy": "class or probabilities",
    "hinge": "sign",
    "squared_hinge": "sign",
    "multiclass_hinge": "class",
    "squared_error": "real",
    "absolute_error": "real",
    "huber": "real",
}

#: What batch normalisation adds to a variance; share of a batch's means and variances in the running ones.
NORM_EPSILON, NORM_SHARE = 1e-5, 0.1

#: Losses of networks.
NETWORK_LOSSES = ("softmax_cross_entropy", "binary_cross_entropy", "squared_error")

#: Activation functions; their places are their numbers in the kernels.
ACTIVATIONS = ("identity", "relu", "logistic", "tanh")

# The largest sums that still fit int32: 255 * D for L1, 255**2 * D for squared L2.
INT32_COLUMNS_L1 = np.iinfo(np.int32).max // 255
INT32_COLUMNS_SQUARED_L2 = np.iinfo(np.int32).max // 255**2

# Target probabilities often come from a softmax in float16 or from rounded tables; a sum further
# from 1 than this is a mistake and not rounding.
PROBABILITY_SUM_TOLERANCE = 1e-3

# Weights whose largest lies between these are used as they are.
_ORDINARY_WEIGHTS = (2.0**-30, 2.0**30)

# From here on a float64 rounds to an infinite float32 (the largest finite one plus half a unit).
_FLOAT32_OVERFLOW = 2.0**128 - 2.0**103


# -- arrays ----------------------------------------------------------------------------------------


def settle(array: ArrayLike, dtype: DTypeLike) -> Array:
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
    """Return `x` as an ndarray of a real dtype (bool included), copied only if it is no array."""
    if type(x) is np.ndarray and x.dtype.kind in "fiub":
        return x
    refuse_masked(x, name)
    if hasattr(x, "toarray"):  # SciPy's sparse formats; np.asarray would wrap them as one object
        raise TypeError(f"{name} is sparse ({type(x).__name__}); pass a dense array ({name}.toarray())")
    try:
        array = np.asarray(x, FLOAT64 if _has_real_columns(x) else None)
    except ValueError as error:  # rows of unequal length
        raise ValueError(f"{name} cannot be made an array, its parts differ in shape: {error}") from None
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
        raise ValueError(f"{name} has shape {array.shape}; {_dimensions(name, ndim)}")
    dtype = _floating_dtype(array.dtype)
    _warn_of_rounding(array, name, dtype)
    return settle(array, dtype)


def pair(X: ArrayLike, Y: ArrayLike | None = None) -> tuple[Array, Array, str]:
    """Settle the two sides of a distance: 2-D, equal numbers of columns, one dtype.

    Returns
    -------
    X, Y : ndarray
        Of shapes (n, D) and (m, D). ``Y is X`` where `Y` is None or was the same object, so that a
        kernel may use the symmetry.
    kind : {"uint8", "float32", "float64"}
        Name of their dtype.
    """
    x = real(X, "X")
    y = x if Y is None or Y is X else real(Y, "Y")
    if x.ndim != 2:
        raise ValueError(f"X has shape {x.shape}; {_dimensions('X', 2)}")
    if y.ndim != 2:
        raise ValueError(f"Y has shape {y.shape}; {_dimensions('Y', 2)}")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"Y has {y.shape[1]} columns, X has {x.shape[1]}; they must be equal")
    dtype = _common_dtype(x.dtype, y.dtype)
    _warn_of_rounding(x, "X", dtype)
    if y is not x:
        _warn_of_rounding(y, "Y", dtype)
    settled = settle(x, dtype)
    return settled, (settled if y is x else settle(y, dtype)), KINDS[dtype]


def _warn_of_rounding(x: Array, name: str, dtype: np.dtype[Any]) -> None:
    """Say that large integers are rounded, such as nanoseconds since 1970 and hashes."""
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8 and x.size and dtype is FLOAT64:
        largest = max(int(np.maximum.reduce(x, axis=None)), -int(np.minimum.reduce(x, axis=None)))
        if largest > 2**53:
            text = f"{name} has integers up to {largest}, which float64 rounds from 2**53 on; subtract an offset first"
            warnings.warn(text, UserWarning, stacklevel=4)


def result_dtype(metric: Metric, dtype: np.dtype[Any], columns: int, squared: bool = False) -> np.dtype[Any]:
    """Return the dtype of the distances between rows of `dtype` (one of `pair`'s three).

    Raises
    ------
    ValueError
        For uint8 L1 over more than 8,421,504 columns, which may not fit int32.
    """
    if dtype != UINT8:
        return dtype
    if metric == "linf":
        return np.dtype(np.int32)
    if metric == "l1":
        if columns > INT32_COLUMNS_L1:
            raise ValueError(
                f"X has {columns} columns; uint8 L1 distances are int32 and hold at most {INT32_COLUMNS_L1} columns "
                "(pass float64 for more)"
            )
        return np.dtype(np.int32)
    if not squared:
        return FLOAT32
    return np.dtype(np.int32 if columns <= INT32_COLUMNS_SQUARED_L2 else np.int64)


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


# -- scalars ---------------------------------------------------------------------------------------


def metric(name: object) -> Metric:
    """Return the short name of a metric: "l1", "l2" or "linf"."""
    if not isinstance(name, str):
        raise TypeError(f"metric is a {type(name).__name__}; it must be a str, one of {_names(METRICS)}")
    try:
        return METRICS[name]
    except KeyError:
        raise ValueError(f"metric is {name!r}; it must be one of {_names(METRICS)}") from None


def k(k: object, m: int, exclude_self: bool, n: int) -> int:
    """Return the number of neighbours as an int, with 1 <= k <= candidates per row.

    `n` and `m` are the rows of X and Y; with `exclude_self` both must be equal and a row has
    m - 1 candidates.
    """
    if isinstance(k, (bool, np.bool_)) or not isinstance(k, numbers.Integral):
        raise TypeError(f"k is {k!r} ({type(k).__name__}); it must be an integer")
    count = int(k)
    if flag(exclude_self, "exclude_self"):
        if n != m:
            raise ValueError(f"exclude_self needs as many rows in Y as in X; Y has {m}, X has {n}")
        if not 1 <= count < m:
            raise ValueError(f"k is {count}; with exclude_self it must lie between 1 and {m - 1}, Y has {m} rows")
    elif not 1 <= count <= m:
        raise ValueError(f"k is {count}; it must lie between 1 and {m}, the number of rows of Y")
    return count


def flag(value: object, name: str) -> bool:
    """Return a yes-or-no argument as a bool."""
    if value is True or value is False:
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    raise TypeError(f"{name} is {value!r} ({type(value).__name__}); it must be True or False")


def scalar(value: object, name: str, dtype: np.dtype[Any] = FLOAT64) -> Any:
    """Return a real number (or 0-d array) as a NumPy scalar of `dtype`; NaN and infinity pass."""
    if type(value) is float:
        number = value
    else:
        refuse_masked(value, name)
        if isinstance(value, np.ndarray):
            if value.ndim != 0:
                raise ValueError(f"{name} has shape {value.shape}; it must be a single number")
            value = value.item()
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name} is {value!r} ({type(value).__name__}); it must be a real number")
        try:
            number = float(value)
        except OverflowError:
            raise ValueError(f"{name} is an integer beyond the range of float64") from None
    if dtype is FLOAT64:
        return np.float64(number)
    if abs(number) >= _FLOAT32_OVERFLOW:
        number = math.copysign(math.inf, number)
    return dtype.type(number)


def delta(delta: object, dtype: np.dtype[Any]) -> Any:
    """Return Huber's threshold as a scalar of `dtype`: finite and positive."""
    value = scalar(delta, "delta", dtype)
    if not 0 < value < math.inf:
        raise ValueError(f"delta is {delta!r}; it must be positive and finite as {dtype}")
    return value


def strength(value: object, name: str, dtype: np.dtype[Any]) -> Any:
    """Return the strength of a penalty as a scalar of `dtype`: finite, not negative."""
    settled = scalar(value, name, dtype)
    if not 0 <= settled < math.inf:
        raise ValueError(f"{name} is {value!r}; it must be finite as {dtype} and not negative")
    return settled


def l2(l2: object, dtype: np.dtype[Any]) -> Any:
    """Return the strength of the squared penalty; see `strength`."""
    return strength(l2, "l2", dtype)


def count(value: object, name: str) -> int:
    """Return a positive integer as an int."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}); it must be a positive integer")
    if value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a positive integer")
    return int(value)


# -- scores, targets, weights ----------------------------------------------------------------------


def scores_and_target(z: ArrayLike, y: ArrayLike, target: Target, name: str = "y") -> tuple[Array, Array]:
    """Settle scores ``z`` (n,) and a target (n,) of the same dtype for a mean over n >= 1 entries.

    `target` says what the values may be: "probability" in [0, 1] (bool counts as 0 and 1), "sign"
    -1 or +1, "real" anything real (NaN and infinity pass). `name` is what the caller calls it.
    """
    z = floating(z, "z", 1)
    _at_least_one(z.shape[0], "z has 0 entries")
    return z, _target(y, target, name, z.shape[0], "z has {} entries", z.dtype)


def class_targets(Z: ArrayLike, y: ArrayLike, *, probabilities: bool = False) -> tuple[Array, Array]:
    """Settle scores ``Z`` (n, C) and class indices ``y`` (n,) for a mean over n >= 1 rows.

    Returns
    -------
    Z : ndarray of shape (n, C), float32 or float64
    y : ndarray
        Class indices (n,) as intp; or, where `probabilities` allows them and `y` is 2-D, target
        probabilities (n, C) of Z's dtype: finite, not negative, each row summing to 1 within 1e-3
        (they are used as they are, not normalised).
    """
    Z = floating(Z, "Z", 2)
    _at_least_one(Z.shape[0], "Z has 0 rows")
    return Z, _classes(y, Z.shape[0], "Z has {} rows", Z.shape[1], Z.dtype, probabilities)


def weights(sample_weight: ArrayLike | None, n: int, dtype: np.dtype[Any]) -> tuple[Array | None, float]:
    """Return the weights (n,) cast to `dtype`, or None, and their sum (n for None) as a float.

    Weights are finite and not negative, and at least one is positive, all after the cast. Where the
    largest is very small or large, all are multiplied by a power of two: a weighted mean stays the
    same, and neither its sums nor the reciprocal of their total can overflow.
    """
    if sample_weight is None:
        return None, float(n)
    raw = real(sample_weight, "sample_weight")
    if raw.shape != (n,):
        raise ValueError(f"sample_weight has shape {raw.shape}; it must be ({n},), one weight for each row")
    w = settle(raw, dtype)  # a weight too large for the dtype turns up below as infinity
    largest = float(np.maximum.reduce(w, initial=0))
    if not (np.minimum.reduce(w, initial=0) >= 0 and largest < math.inf):
        i = int(np.argmin((w >= 0) & (w < math.inf)))
        raise ValueError(f"sample_weight[{i}] is {raw[i]}; weights must be finite as {dtype} and not negative")
    if largest == 0:
        raise ValueError("sample_weight is zero everywhere; at least one weight must be positive")
    if not _ORDINARY_WEIGHTS[0] <= largest <= _ORDINARY_WEIGHTS[1]:
        w = np.ldexp(w, -math.frexp(largest)[1])
    return w, float(np.add.reduce(w, dtype=np.float64))


class Linear(NamedTuple):
    """The settled arguments of `linear_loss_gradient`; all arrays but class indices share one dtype."""

    X: Array  # (n, D)
    y: Array  # (n,), or (n, C) target probabilities
    W: Array  # (D,), or (C, D) for the losses over classes
    b: Any  # NumPy scalar, or array (C,)
    l2: Any  # NumPy scalar
    weight: Array | None  # (n,)
    total: float  # sum of the weights, n without weights


def linear(
    loss: object,
    X: ArrayLike,
    y: ArrayLike,
    W: ArrayLike,
    b: ArrayLike,
    l2: object = 0.0,
    sample_weight: ArrayLike | None = None,
) -> Linear:
    """Settle the arguments of `linear_loss_gradient`; ``X`` alone decides the dtype."""
    target = _loss_target(loss)
    X = floating(X, "X", 2)
    n, columns = X.shape
    _at_least_one(n, "X has 0 rows")
    dtype = X.dtype
    W = real(W, "W")
    if target.startswith("class"):
        if W.ndim != 2 or W.shape[1] != columns:
            raise ValueError(f"W has shape {W.shape}; {loss} needs (C, {columns}), X has {columns} columns")
        classes = W.shape[0]
        b = real(b, "b")
        if b.shape != (classes,):
            raise ValueError(f"b has shape {b.shape}; it must be ({classes},), W has {classes} rows")
        b = settle(b, dtype)
        y = _classes(y, n, "X has {} rows", classes, dtype, target != "class")
    else:
        if W.shape != (columns,):
            raise ValueError(f"W has shape {W.shape}; {loss} needs ({columns},), X has {columns} columns")
        b = scalar(b, "b", dtype)
        y = _target(y, target, "y", n, "X has {} rows", dtype)
    penalty = _l2(l2, dtype)
    weight, total = weights(sample_weight, n, dtype)
    return Linear(X, y, settle(W, dtype), b, penalty, weight, total)


class Training(NamedTuple):
    """The settled arguments of `train_linear`; all floating arrays and scalars share one dtype."""

    linear: Linear  # `total` is n: the weights have a mean of 1
    order: Array  # (N,) intp
    batch_size: int
    steps: Array  # (number of batches,)
    l1: Any
    momentum: Any
    nesterov: bool


def training(
    loss: object,
    X: ArrayLike,
    y: ArrayLike,
    W: ArrayLike,
    b: ArrayLike,
    order: ArrayLike,
    batch_size: object,
    steps: ArrayLike,
    l2: object = 0.0,
    l1: object = 0.0,
    momentum: object = 0.0,
    nesterov: object = False,
    sample_weight: ArrayLike | None = None,
) -> Training:
    """Settle the arguments of `train_linear`."""
    settled = linear(loss, X, y, W, b, l2, sample_weight)
    n, dtype = len(settled.X), settled.X.dtype
    if settled.weight is not None:
        settled = settled._replace(weight=settle(settled.weight * (n / settled.total), dtype), total=float(n))
    rows = row_numbers(order, "order", n)
    size = count(batch_size, "batch_size")
    batches = -(-len(rows) // size)
    return Training(
        settled,
        rows,
        size,
        _steps(steps, batches, f"order has {len(rows)} rows, {batches} batches of {size}", dtype),
        strength(l1, "l1", dtype),
        _momentum(momentum, dtype),
        flag(nesterov, "nesterov"),
    )


class Evaluation(NamedTuple):
    """The settled arguments of `linear_evaluation`; all floating arrays and scalars share one dtype."""

    X: Array  # (n, D)
    y: Array  # (n,), or (n, C) target probabilities
    W: Array  # (M, C, D)
    b: Array  # (M, C)
    delta: Any
    weight: Array | None  # (n,)
    total: float  # sum of the weights, n without weights


def evaluation(
    loss: object,
    X: ArrayLike,
    y: ArrayLike,
    W: ArrayLike,
    b: ArrayLike,
    sample_weight: ArrayLike | None = None,
    delta: object = 1.35,
) -> Evaluation:
    """Settle the arguments of `linear_evaluation`; ``X`` alone decides the dtype."""
    target = _loss_target(loss)
    X = floating(X, "X", 2)
    (n, columns), dtype = X.shape, X.dtype
    _at_least_one(n, "X has 0 rows")
    over_classes = target.startswith("class")
    W, b = real(W, "W"), real(b, "b")
    if W.ndim != 3 or W.shape[2] != columns or (W.shape[1] != 1 and not over_classes):
        classes = "C" if over_classes else "1"
        raise ValueError(f"W has shape {W.shape}; {loss} needs (M, {classes}, {columns}), X has {columns} columns")
    if b.shape != W.shape[:2]:
        raise ValueError(f"b has shape {b.shape}; it must be {W.shape[:2]}, W has shape {W.shape}")
    if over_classes:
        y = _classes(y, n, "X has {} rows", W.shape[1], dtype, target != "class")
    else:
        y = _target(y, target, "y", n, "X has {} rows", dtype)
    weight, total = weights(sample_weight, n, dtype)
    return Evaluation(X, y, settle(W, dtype), settle(b, dtype), _delta(delta, dtype), weight, total)


class Network(NamedTuple):
    """The settled arguments of `network_loss_gradient`; all arrays but class indices share one dtype."""

    X: Array  # (n, D)
    y: Array  # (n,) class indices, or (n, C) targets
    layers: list[tuple[Array, Array]]  # weights (units, inputs) and intercepts (units,) of each layer
    l2: Any
    weight: Array | None  # (n,), scaled to a mean of 1
    norms: list[Norm] | None  # of the hidden layers, if they are normalised


def network(
    loss: object,
    X: ArrayLike,
    y: ArrayLike,
    parameters: ArrayLike,
    units: object,
    activation: object,
    l2: object = 0.0,
    sample_weight: ArrayLike | None = None,
    batch_norm: object = False,
) -> Network:
    """Settle the arguments of `network_loss_gradient`; ``X`` alone decides the dtype."""
    if not isinstance(loss, str) or loss not in NETWORK_LOSSES:
        error = ValueError if isinstance(loss, str) else TypeError
        raise error(f"loss is {loss!r}; it must be one of {', '.join(map(repr, NETWORK_LOSSES))}")
    X, layers, norms = network_model(X, parameters, units, activation, batch_norm)
    n, dtype, outputs = len(X), X.dtype, len(layers[-1][1])
    _at_least_one(n, "X has 0 rows")
    if loss == "softmax_cross_entropy":
        y = _classes(y, n, "X has {} rows", outputs, dtype, True)
    else:
        y = _outputs(y, LOSSES[loss], n, outputs, dtype)
    weight, total = weights(sample_weight, n, dtype)
    if weight is not None:
        weight = settle(weight * (n / total), dtype)
    return Network(X, y, layers, _l2(l2, dtype), weight, norms)


#: Scales, running means and running variances of the units of a layer.
Norm = tuple[Array, Array, Array]


def network_model(
    X: ArrayLike, parameters: ArrayLike, units: object, activation: object, batch_norm: object = False
) -> tuple[Array, list[tuple[Array, Array]], list[Norm] | None]:
    """Settle rows, and the parameters of a network as views: weights and intercepts of each layer, and norms."""
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        error = ValueError if isinstance(activation, str) else TypeError
        raise error(f"activation is {activation!r}; it must be one of {', '.join(map(repr, ACTIVATIONS))}")
    X = floating(X, "X", 2)
    if not isinstance(units, (tuple, list)) or len(units) < 2:
        raise ValueError(f"units is {units!r}; it must be a tuple (columns of X, units of hidden layers, ..., scores)")
    sizes = [count(size, f"units[{place}]") for place, size in enumerate(units)]
    if sizes[0] != X.shape[1]:
        raise ValueError(f"units[0] is {sizes[0]}, X has {X.shape[1]} columns; they must be equal")
    flat, normalised = real(parameters, "parameters"), flag(batch_norm, "batch_norm")
    wanted = sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes)) + 3 * normalised * sum(sizes[1:-1])
    if flat.shape != (wanted,):
        more = " with batch_norm" if normalised else ""
        raise ValueError(f"parameters has shape {flat.shape}; units {tuple(sizes)}{more} need ({wanted},)")
    flat = settle(flat, X.dtype)
    norms = normalisations(flat, sizes) if normalised else None
    for place, (_, _, variances) in enumerate(norms or []):
        if (variances < 0).any():
            unit = int((variances < 0).argmax())
            raise ValueError(f"a running variance in parameters (layer {place + 1}, unit {unit}) is {variances[unit]}")
    return X, layers(flat, sizes, normalised), norms


def layers(parameters: Array, units: Sequence[int], batch_norm: bool = False) -> list[tuple[Array, Array]]:
    """Return views of the weights (units, inputs) and intercepts (units,) of each layer."""
    return [(weights, intercepts) for weights, intercepts, *_ in parts(parameters, units, batch_norm)]


def normalisations(parameters: Array, units: Sequence[int]) -> list[Norm]:
    """Return views of scales, running means and variances of each hidden layer."""
    return [(scales, means, variances) for _, _, scales, means, variances in parts(parameters, units, True)[:-1]]


def parts(parameters: Array, units: Sequence[int], batch_norm: bool) -> list[list[Array]]:
    """Return views of what each layer has: weights, intercepts, and if it is normalised three more for its units."""
    found, at = [], 0
    for place, (inputs, outputs) in enumerate(pairwise(units)):
        vectors = 4 if batch_norm and place < len(units) - 2 else 1
        middle = at + outputs * inputs
        ends = range(middle, middle + vectors * outputs, outputs)
        found.append([
            parameters[at:middle].reshape(outputs, inputs), *(parameters[end : end + outputs] for end in ends)
        ])  # fmt: skip
        at = middle + vectors * outputs
    return found


class NetworkTraining(NamedTuple):
    """The settled arguments of `train_network`; all floating arrays and scalars share one dtype."""

    network: Network
    order: Array  # (N,) intp
    batch_size: int
    steps: Array  # (number of batches,)
    momentum: Any
    nesterov: bool


def network_training(
    loss: object,
    X: ArrayLike,
    y: ArrayLike,
    parameters: ArrayLike,
    units: object,
    order: ArrayLike,
    batch_size: object,
    steps: ArrayLike,
    activation: object,
    l2: object = 0.0,
    momentum: object = 0.0,
    nesterov: object = False,
    sample_weight: ArrayLike | None = None,
    batch_norm: object = False,
) -> NetworkTraining:
    """Settle the arguments of `train_network`."""
    settled = network(loss, X, y, parameters, units, activation, l2, sample_weight, batch_norm)
    dtype = settled.X.dtype
    rows = row_numbers(order, "order", len(settled.X))
    size = count(batch_size, "batch_size")
    batches = -(-len(rows) // size)
    sizes = _steps(steps, batches, f"order has {len(rows)} rows, {batches} batches of {size}", dtype)
    return NetworkTraining(settled, rows, size, sizes, _momentum(momentum, dtype), flag(nesterov, "nesterov"))


class Convolution(NamedTuple):
    """The settled arguments of a convolution; all arrays share one dtype."""

    X: Array  # (n, C, H, W)
    W: Array  # (channels, C, size, size)
    b: Array  # (channels,)
    stride: int
    padding: int


def convolution(X: ArrayLike, W: ArrayLike, b: ArrayLike | None, stride: object, padding: object) -> Convolution:
    """Settle the arguments of `conv2d`; without `b` intercepts are 0."""
    X = images(X)
    dtype = X.dtype
    weights = real(W, "W")
    if weights.ndim != 4 or weights.shape[2] != weights.shape[3] or 0 in weights.shape:
        raise ValueError(
            f"W has shape {weights.shape}; it must be (channels, channels of X, size, size), none of them 0"
        )
    if weights.shape[1] != X.shape[1]:
        raise ValueError(f"W has {weights.shape[1]} channels in, X has {X.shape[1]}; they must be equal")
    intercepts = np.zeros(len(weights), dtype) if b is None else real(b, "b")
    if intercepts.shape != (len(weights),):
        raise ValueError(f"b has shape {intercepts.shape}; W has {len(weights)} channels out, which need one each")
    size, step = weights.shape[2], count(stride, "stride")
    zeros = 0 if type(padding) is int and padding == 0 else count(padding, "padding")
    if zeros >= size:
        raise ValueError(f"padding is {zeros}; it must be below the size of a kernel, which is {size}")
    if min(X.shape[2:]) + 2 * zeros < size:
        raise ValueError(
            f"X has images of {X.shape[2]} x {X.shape[3]}, padding is {zeros}; kernels of {size} x {size} need more"
        )
    return Convolution(X, settle(weights, dtype), settle(intercepts, dtype), step, zeros)


class Pooling(NamedTuple):
    """The settled arguments of a pool."""

    X: Array  # (n, C, H, W)
    size: int
    stride: int


def pooling(X: ArrayLike, size: object, stride: object) -> Pooling:
    """Settle the arguments of `max_pool2d` and `avg_pool2d`; without `stride` it is `size`."""
    X, width = images(X), count(size, "size")
    if width > 16:
        raise ValueError(f"size is {width}; it must be at most 16")
    if min(X.shape[2:]) < width:
        raise ValueError(f"X has images of {X.shape[2]} x {X.shape[3]}; windows of {width} x {width} need more")
    return Pooling(X, width, width if stride is None else count(stride, "stride"))


class Normalization(NamedTuple):
    """The settled arguments of a batch normalisation; all share one dtype."""

    X: Array  # (n, C, H, W)
    gamma: Array  # (C,)
    beta: Array  # (C,)
    epsilon: float


def normalization(X: ArrayLike, gamma: ArrayLike, beta: ArrayLike | None, epsilon: object) -> Normalization:
    """Settle the arguments of `batch_norm`; without `beta` it is 0."""
    X = images(X)
    channels = X.shape[1:2]
    parts = [real(gamma, "gamma"), np.zeros(channels) if beta is None else real(beta, "beta")]
    for name, part in zip(("gamma", "beta"), parts, strict=True):
        if part.shape != channels:
            raise ValueError(f"{name} has shape {part.shape}; X has {channels[0]} channels, which need one each")
    _at_least_one(len(X), "X has no images")
    small = float(scalar(epsilon, "epsilon"))
    if not (small > 0 and math.isfinite(small)):
        raise ValueError(f"epsilon is {epsilon!r}; it must be positive and finite")
    return Normalization(X, settle(parts[0], X.dtype), settle(parts[1], X.dtype), small)


def images(X: ArrayLike) -> Array:
    """Settle images (n, channels, height, width)."""
    settled = floating(X, "X", 4)
    if 0 in settled.shape[1:]:
        raise ValueError(f"X has shape {settled.shape}; images must have at least one channel and one pixel")
    return settled


def slopes(dZ: ArrayLike, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Settle slopes in what a layer made."""
    settled = real(dZ, "dZ")
    if settled.shape != shape:
        raise ValueError(f"dZ has shape {settled.shape}; what the layer makes of X has {shape}")
    return settle(settled, dtype)


def row_numbers(order: ArrayLike, name: str, n: int) -> Array:
    """Return indices of rows as intp, each in 0..n - 1."""
    raw = real(order, name)
    if raw.ndim != 1:
        raise ValueError(f"{name} has shape {raw.shape}; it must be 1-D, one row number for each place")
    if raw.size == 0:
        return np.empty(0, INTP)
    if raw.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {raw.dtype}; row numbers must be integers")
    if np.minimum.reduce(raw) < 0 or np.maximum.reduce(raw) >= n:
        i = int(np.argmax((raw < 0) | (raw >= n)))
        raise ValueError(f"{name}[{i}] is {raw[i]}; row numbers must lie in 0..{n - 1}, X has {n} rows")
    return settle(raw, INTP)


# -- parts of the above ----------------------------------------------------------------------------

# Inside functions that have arguments of these names.
_l2, _delta = l2, delta


def _loss_target(loss: object) -> str:
    """Return what the loss of that name asks of its target."""
    if not isinstance(loss, str):
        raise TypeError(f"loss is a {type(loss).__name__}; it must be a str, one of {_names(LOSSES)}")
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; it must be one of {_names(LOSSES)}")
    return LOSSES[loss]


def _momentum(momentum: object, dtype: np.dtype[Any]) -> Any:
    value = scalar(momentum, "momentum", dtype)
    if not 0 <= value <= 1:
        raise ValueError(f"momentum is {momentum!r}; it must lie between 0 and 1")
    return value


def _steps(steps: ArrayLike, batches: int, what: str, dtype: np.dtype[Any]) -> Array:
    """Return one step size for each batch, from one for all or from as many as there are batches."""
    raw = real(steps, "steps")
    if raw.ndim > 1 or (raw.ndim == 1 and len(raw) != batches):
        raise ValueError(f"steps has shape {raw.shape}; it must be a number or ({batches},): {what}")
    values = settle(raw, dtype)
    fine = (values >= 0) & (values < math.inf)
    if not np.logical_and.reduce(fine, axis=None):
        where = f"steps[{int(np.argmin(fine))}] is {raw[np.argmin(fine)]}" if raw.ndim else f"steps is {raw}"
        raise ValueError(f"{where}; step sizes must be finite as {dtype} and not negative")
    return np.full(batches, values) if raw.ndim == 0 else values


def _floating_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind == "f" and dtype.itemsize <= 4:
        return FLOAT32
    return FLOAT64


def _common_dtype(x: np.dtype[Any], y: np.dtype[Any]) -> np.dtype[Any]:
    # Dtypes of native byte order are singletons, so identity settles nearly all calls.
    if x is y and (x is FLOAT32 or x is FLOAT64 or x is UINT8):
        return x
    if x == UINT8:
        return UINT8 if y == UINT8 else _floating_dtype(y)
    if y == UINT8:
        return _floating_dtype(x)
    return FLOAT32 if _floating_dtype(x) is FLOAT32 is _floating_dtype(y) else FLOAT64


def _target(y: ArrayLike, target: str, name: str, n: int, rows: str, dtype: np.dtype[Any]) -> Array:
    raw = real(y, name)
    if raw.ndim != 1:
        raise ValueError(f"{name} has shape {raw.shape}; it must be 1-D with one entry for each score")
    if raw.shape[0] != n:
        raise ValueError(f"{name} has {raw.shape[0]} entries, {rows.format(n)}; they must be equal")
    values = settle(raw, dtype)
    if target == "probability":
        # NaN fails both comparisons, so it is refused as well.
        if not (np.minimum.reduce(values) >= 0 and np.maximum.reduce(values) <= 1):
            i = int(np.argmin((values >= 0) & (values <= 1)))
            raise ValueError(f"{name}[{i}] is {raw[i]}; probabilities in [0, 1] are needed")
    elif target == "sign":
        right = np.abs(values) == 1
        if not np.logical_and.reduce(right):
            i = int(np.argmin(right))
            raise ValueError(f"{name}[{i}] is {raw[i]}; labels -1 and +1 are needed")
    return values


def _outputs(y: ArrayLike, target: str, n: int, outputs: int, dtype: np.dtype[Any]) -> Array:
    """Return targets (n, C) of losses that are summed over C scores; (n,) will do for one score."""
    raw = real(y, "y")
    if raw.ndim == 1 and outputs == 1:
        raw = raw.reshape(-1, 1)
    if raw.shape != (n, outputs):
        also = f" or ({n},)" if outputs == 1 else ""
        raise ValueError(f"y has shape {np.shape(y)}; it must be ({n}, {outputs}){also}: X has {n} rows")
    values = settle(raw, dtype)
    if target == "probability":
        right = (values >= 0) & (values <= 1)
        if not right.all():
            i, c = np.argwhere(~right)[0]
            raise ValueError(f"y[{i}, {c}] is {raw[i, c]}; probabilities in [0, 1] are needed")
    return values


def _classes(y: ArrayLike, n: int, rows: str, classes: int, dtype: np.dtype[Any], probabilities: bool) -> Array:
    raw = y if type(y) is np.ndarray and y.dtype.kind == "i" else _labels(y, classes, n, probabilities)
    if raw.ndim == 2 and probabilities:
        return _probabilities(raw, n, rows, classes, dtype)
    if raw.ndim != 1:
        form = f"1-D class indices or target probabilities ({n}, {classes})" if probabilities else "1-D class indices"
        raise ValueError(f"y has shape {raw.shape}; {form} are needed")
    if raw.shape[0] != n:
        raise ValueError(f"y has {raw.shape[0]} entries, {rows.format(n)}; they must be equal")
    # Compared before the cast: a uint64 beyond intp would wrap.
    if np.minimum.reduce(raw) < 0 or np.maximum.reduce(raw) >= classes:
        i = int(np.argmax((raw < 0) | (raw >= classes)))
        raise ValueError(f"y[{i}] is {raw[i]}; class indices must lie in 0..{classes - 1}, there are {classes} classes")
    return settle(raw, INTP)


def _labels(y: ArrayLike, classes: int, n: int, probabilities: bool) -> Array:
    """Return labels of any integer width or bool (as 0 and 1), or something 2-D to be looked at."""
    try:
        raw = real(y, "y")
    except TypeError as error:
        raise TypeError(f"{error}; class indices must be integers") from None
    if raw.dtype.kind == "f" and not (raw.ndim == 2 and probabilities):
        hint = f", or give target probabilities of shape ({n}, {classes})" if probabilities else ""
        raise TypeError(f"y has dtype {raw.dtype}; class indices must be integers (y.astype(np.intp)){hint}")
    return raw


def _probabilities(raw: Array, n: int, rows: str, classes: int, dtype: np.dtype[Any]) -> Array:
    if raw.shape[0] != n:
        raise ValueError(f"y has {raw.shape[0]} rows, {rows.format(n)}; they must be equal")
    if raw.shape[1] != classes:
        raise ValueError(f"y has {raw.shape[1]} columns, there are {classes} classes; they must be equal")
    values = settle(raw, dtype)
    if not np.minimum.reduce(values, axis=None, initial=math.inf) >= 0:
        i, c = np.argwhere(~(values >= 0))[0]
        raise ValueError(f"y[{i}, {c}] is {raw[i, c]}; target probabilities must not be negative or NaN")
    sums = np.add.reduce(values, axis=1)
    right = np.abs(sums - 1) <= PROBABILITY_SUM_TOLERANCE
    if not np.logical_and.reduce(right):
        i = int(np.argmin(right))
        raise ValueError(
            f"y[{i}] sums to {sums[i]}; the target probabilities of a row must sum to 1 "
            f"within {PROBABILITY_SUM_TOLERANCE}"
        )
    return values


def _at_least_one(n: int, what: str) -> None:
    if n == 0:
        raise ValueError(f"{what}; a mean needs at least one")


def _dimensions(name: str, ndim: int) -> str:
    if ndim == 2:
        return f"it must be 2-D (one row: {name}.reshape(1, -1), one column: {name}.reshape(-1, 1))"
    return f"it must be {ndim}-D"


def _names(table: dict[str, Any]) -> str:
    return ", ".join(repr(name) for name in table)
