"""The catalogue: every public kernel, declared once.

Tests, benchmarks, report and ``python -m fastml warmup`` read `ENTRIES`. An `Entry` says where the
three tiers of a kernel are, how to make inputs for it (seeded, in several regimes), at which sizes
to run it, how much work a call is, what the true result is, and how far from it a float32 or
float64 result may lie, and why.

    >>> from fastml.kernels import catalogue
    >>> entry = catalogue.ENTRIES["pairwise_l1"]
    >>> inputs = entry.make(entry.sizes["tiny"], "float32")
    >>> result = entry.tier("vectorized")(*inputs.args, **inputs.kwargs)
    >>> catalogue.check(entry, result, entry.reference(inputs), "float32") <= 1
    True

Regimes
    typical   what a user has: standard normal scores and features, random labels, random pixels
    extreme   logits up to ±1e30, near-duplicate points far from the origin, exact duplicates, zeros
    tails     as typical; meant for `Entry.tail_sizes`, shapes around the width of vectors
    weighted  as typical, with sample weights (losses only)

How a result is judged (`check`)
    An entry of a result may differ from the truth by ``rtol · scale + slack + atol``. The scale is
    the size of what was added up, not of what came out: a gradient that cancels to nearly zero is
    allowed the rounding of its terms. The slack is what a row within rounding of a kink may add.
    Both come with the truth. NaN must meet NaN, an infinity the same infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

__all__ = ["ENTRIES", "TAILS", "Dtypes", "Entry", "Inputs", "Tolerance", "Truth", "check", "outputs"]

Array = np.ndarray[Any, np.dtype[Any]]
Size = tuple[int, ...]

# Lengths around the width of vectors and of the tiles made from them.
TAILS = (1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 65)

_EPS = {"float32": float(np.finfo(np.float32).eps), "float64": float(np.finfo(np.float64).eps)}
_TINY = {"float32": float(np.finfo(np.float32).tiny), "float64": float(np.finfo(np.float64).tiny)}


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Dtypes(NamedTuple):
    """What an input dtype leads to.

    `output` is the dtype of the array that comes back (of the distances, of the gradient);
    a loss is always a Python float. `accumulator` is the dtype of the running sum: inside an inner
    loop for distances, elementwise functions and the softmax family; for losses and gradients
    across blocks of rows, whose own sums may be narrower.
    """

    accumulator: str
    output: str


class Tolerance(NamedTuple):
    """Bound on the error of a result: ``rtol · scale + atol``, and why it is that large."""

    rtol: float
    atol: float
    reason: str


class Truth(tuple[Array, ...]):
    """The true outputs of a call, with what is needed to judge others by them."""

    scale: tuple[Array, ...]  # per output: size of the terms behind each entry
    slack: tuple[Any, ...]  # per output: absolute allowance on top (0, or an array)
    dtypes: tuple[np.dtype[Any] | None, ...]  # per output: dtype of an array, None for a Python float
    distances: Array | None  # k_nearest: the true distance of every pair

    def __new__(
        cls,
        values: tuple[Any, ...],
        dtypes: tuple[Any, ...],
        scale: tuple[Any, ...] | None = None,
        slack: tuple[Any, ...] | None = None,
        distances: Array | None = None,
    ) -> Truth:
        """Make the tuple of the values; `scale` defaults to their size, `slack` to 0."""
        arrays = [np.asarray(value) for value in values]
        truth = super().__new__(cls, arrays)
        truth.scale = tuple(np.abs(a) for a in arrays) if scale is None else tuple(np.asarray(s) for s in scale)
        truth.slack = (0.0,) * len(arrays) if slack is None else slack
        truth.dtypes = tuple(None if dtype is None else np.dtype(dtype) for dtype in dtypes)
        truth.distances = distances
        return truth


@dataclass(frozen=True)
class Entry:
    """One kernel, or one variant of it, with all that is needed to run, time and judge it."""

    key: str
    function: str  # name in fastml.kernels and in both reference modules
    family: str  # stem of the module it is in
    formula: str
    dtypes: dict[str, Dtypes]
    sizes: dict[str, Size]  # "tiny" for tests, "default" and "full" for the report
    axes: tuple[str, ...]  # what the numbers of a size mean
    make: Callable[..., Inputs] = field(repr=False)  # make(size, dtype, regime="typical", seed=0)
    regimes: tuple[str, ...]
    work: Callable[[Size], float] = field(repr=False)  # of one call, in `unit`
    unit: str
    bytes: Callable[[Size, str], float] = field(repr=False)  # inputs read once, results written once
    flops: Callable[[Size], float] = field(repr=False)  # an exponential or a logarithm counts as one
    limit: str  # "memory" or "gemm": the limit of the machine to compare with
    tolerance: dict[str, Tolerance]
    loop_size: Size  # for timing the plain loops where the size is too much for them
    specialisations: int  # compile budget: signatures over all dtypes
    truth: Callable[[Inputs], Truth] = field(repr=False)
    warm_sizes: tuple[Size, ...] = ()  # for warm-up with two threads, where "tiny" does not reach all kernels

    def tier(self, name: str) -> Callable[..., Any]:
        """Return the function of a tier: "loops", "vectorized" or "compiled"."""
        if name == "compiled":
            module = import_module(__package__)
        elif name in ("loops", "vectorized"):
            module = import_module(f"{__package__}.reference.{name}")
        else:
            raise ValueError(f"name is {name!r}; it must be 'loops', 'vectorized' or 'compiled'")
        function: Callable[..., Any] = getattr(module, self.function)
        return function

    def reference(self, inputs: Inputs) -> Truth:
        """Return the true outputs for `inputs`, from a plain formula in wider arithmetic.

        float64 for float32 input; long double for float64 input up to ten million terms, float64
        beyond (with pairwise sums, an order of magnitude closer than the bounds); exact integers
        for uint8.
        """
        return self.truth(inputs)

    def tail_sizes(self) -> Iterator[Size]:
        """Yield sizes in which one axis after the other takes the lengths `TAILS`."""
        base = {"n": 3, "m": 5, "d": 9, "c": 4, "k": 2, "o": 2, "h": 4}
        for axis in self.axes:
            if axis == "k":
                continue
            for length in TAILS:
                size = {name: base[name] for name in self.axes} | {axis: length}
                if "k" in size:
                    size["k"] = min(size["k"], size["m"])
                yield tuple(size.values())


# -- judging results -------------------------------------------------------------------------------


def outputs(result: Any) -> tuple[Array, ...]:
    """Return whatever a kernel returned (float, array, tuple of these) as a tuple of arrays."""
    if isinstance(result, tuple):
        return tuple(np.asarray(part) for part in result)
    return (np.asarray(result),)


def check(entry: Entry, result: Any, truth: Truth, dtype: str) -> float:
    """Return the largest error of `result` in units of the tolerance: at most 1 is right.

    Infinite where no error can be given: another number of outputs, a wrong shape or dtype, an
    array in place of a float, a NaN or an infinity that should not be there or is missing, an
    integer that is not exact, a neighbour that is listed twice or does not exist.

    Parameters
    ----------
    entry : Entry
    result
        What a tier returned for the inputs that `truth` was made from.
    truth : Truth
        From `Entry.reference`.
    dtype : str
        The name of the input dtype, which selects the tolerance.
    """
    tolerance = entry.tolerance[dtype]
    parts = result if isinstance(result, tuple) else (result,)
    if len(parts) != len(truth):
        return math.inf
    worst = 0.0
    for part, want, scale, slack, expected in zip(parts, truth, truth.scale, truth.slack, truth.dtypes, strict=True):
        got = np.asarray(part)
        if (
            type(part) is not (float if expected is None else np.ndarray)
            or got.shape != want.shape
            or (expected is not None and got.dtype != expected)
        ):
            return math.inf
        if want is truth[-1] and truth.distances is not None:
            units = _neighbour_error(got, truth, tolerance, exact=dtype == "uint8")
        elif got.dtype.kind == "i":
            units = 0.0 if np.array_equal(got, want) else math.inf
        else:
            units = _float_error(got, want, tolerance.rtol * scale + slack + tolerance.atol)
        worst = max(worst, units)
    return worst


def _float_error(got: Array, want: Array, bound: Array) -> float:
    if got.size == 0:
        return 0.0
    with np.errstate(all="ignore"):
        # A truth beyond the dtype's range is infinite in it, or rounds to the last finite number.
        largest = np.finfo(got.dtype).max
        overflow = np.isinf(got) & (np.sign(got) == np.sign(want)) & (np.abs(want) + bound >= largest)
        error = np.abs(got.astype(np.longdouble) - want)
        units = np.where(error == 0, 0, error / bound)
        units = np.where((got == want) | overflow | (np.isnan(got) & np.isnan(want)), 0, units)
    return float(np.max(np.where(np.isnan(units), np.inf, units)))


def _neighbour_error(indices: Array, truth: Truth, tolerance: Tolerance, exact: bool) -> float:
    """Judge neighbours by the true distance of what was chosen for each rank.

    With distances that are off by at most e, the one chosen for a rank is off by at most 2e.
    """
    distances = truth.distances
    assert distances is not None
    if exact:
        return 0.0 if np.array_equal(indices, truth[1]) else math.inf
    if indices.size == 0:
        return 0.0
    ordered = np.sort(indices, axis=1)
    if ordered.min() < 0 or ordered.max() >= distances.shape[1] or (np.diff(ordered, axis=1) == 0).any():
        return math.inf
    chosen = np.take_along_axis(distances, indices, axis=1)
    return _float_error(chosen, truth[0], 2 * (tolerance.rtol * truth.scale[0] + tolerance.atol))


# -- making inputs ---------------------------------------------------------------------------------

# Where float32 and float64 exponentials overflow, underflow, or leave the normal numbers; where
# 1 + e^-z is rounded to 1; the sizes that tear naive formulas apart; and the neighbourhood of 0.
_LOGITS = np.concatenate(
    [
        [0.0, 1e-30, 1e-8, 0.5, 1.0, 16.6, 17.4, 36.9, 37.0, 1000.0, 1e4, 1e30],
        [87.3, 88.7, 89.0, 103.9, 104.0, 708.3, 709.7, 710.0, 745.1, 746.0],
    ]
)


def _normal(rng: np.random.Generator, shape: Size, dtype: str) -> Array:
    return rng.standard_normal(shape, np.float64 if dtype == "float64" else np.float32)


def _uniform(rng: np.random.Generator, shape: Size, dtype: str) -> Array:
    return rng.random(shape, np.float64 if dtype == "float64" else np.float32)


def _scores(rng: np.random.Generator, shape: Size, dtype: str, regime: str, largest: float = math.inf) -> Array:
    if regime == "extreme":
        values = _LOGITS[_LOGITS <= largest]
        return (rng.choice(values, shape) * rng.choice([-1.0, 1.0], shape)).astype(dtype)
    return 4 * _normal(rng, shape, dtype)


def _points(rng: np.random.Generator, n: int, m: int, d: int, dtype: str, regime: str) -> tuple[Array, Array]:
    if dtype == "uint8":
        X, Y = (rng.integers(0, 256, (rows, d), np.uint8) for rows in (n, m))
        if regime == "extreme":
            X[::3], Y[::3], Y[1::3] = 255, 0, 255
        return X, Y
    X, Y = (_normal(rng, (rows, d), dtype) for rows in (n, m))
    if regime == "extreme":
        # Close points far out: differences of 1e-3 at 1e4 leave nothing of |x|² + |y|² − 2 x·y.
        X *= 1e-3
        X += 1e4
        Y *= 1e-3
        Y += 1e4
        X[::5], Y[::5] = 0, 0
        Y[1::5] *= 1e8
        Y[2::5] = X[np.arange(len(Y[2::5])) % n]  # exact duplicates
    return X, Y


def _weights(rng: np.random.Generator, n: int, dtype: str) -> Array:
    w = rng.integers(0, 4, n).astype(dtype) * _uniform(rng, (n,), dtype)
    w[rng.integers(n)] = 1  # so that they are not all zero
    return w


def _targets(rng: np.random.Generator, kind: str, n: int, classes: int, dtype: str, scores: Array | None) -> Array:
    if kind == "probability":
        t = _uniform(rng, (n,), dtype)
        return np.where(rng.random(n) < 0.8, t < 0.5, t).astype(dtype)  # mostly hard labels
    if kind == "sign":
        return rng.choice([-1.0, 1.0], n).astype(dtype)
    if kind == "class":
        return rng.integers(0, classes, n)
    if kind == "probabilities":
        T = _uniform(rng, (n, classes), dtype) + 1e-3
        T[::2] = np.eye(classes, dtype=dtype)[rng.integers(0, classes, len(T[::2]))]
        T /= T.sum(axis=1, keepdims=True)
        return T
    # Real: within the kink of Huber and beyond it, and now and then hit exactly.
    y = _normal(rng, (n,), dtype)
    if scores is not None:
        y += np.where(rng.random(n) < 0.5, scores, 0).astype(dtype)
        y[::7] = scores[::7]
    return y


# -- truth -----------------------------------------------------------------------------------------

_MANY_TERMS = 10_000_000


def _wide(dtype: np.dtype[Any], terms: int) -> type[np.floating[Any]]:
    return np.longdouble if dtype == np.float64 and terms <= _MANY_TERMS else np.float64


def _true_distances(X: Array, Y: Array, metric: str, squared: bool) -> Array:
    integer = X.dtype == np.uint8
    wide: Any = np.int64 if integer else _wide(X.dtype, len(X) * Y.size)
    x, y = X.astype(wide), Y.astype(wide)
    result = np.empty((len(X), len(Y)), wide if integer else np.longdouble)
    for i in range(len(X)):
        difference = np.abs(y - x[i])
        if metric == "linf":
            result[i] = np.max(difference, axis=1, initial=0)
        else:
            result[i] = np.sum(difference if metric == "l1" else np.square(difference), axis=1)
    return np.sqrt(result.astype(np.longdouble)) if metric == "l2" and not squared else result


def _column_scale(X: Array, metric: str) -> float:
    """Return the part of the tolerance of a sum over columns that so few columns may use.

    Partial sums of 256 columns, then a sum of those, and a few roundings of each term: the
    tolerances are for 4,096 columns.
    """
    if metric == "linf" or X.dtype == np.uint8:  # no sum, or an exact one
        return 1.0
    d = X.shape[1]
    return (min(d, 256) + d / 256 + 4) / (256 + 16 + 4)


def _distance_truth(metric: str, squared: bool, dtypes: dict[str, Dtypes]) -> Callable[[Inputs], Truth]:
    def truth(inputs: Inputs) -> Truth:
        X, Y = inputs.args
        distances = _true_distances(X, Y, metric, squared)
        return Truth((distances,), (dtypes[X.dtype.name].output,), (distances * _column_scale(X, metric),))

    return truth


def _neighbour_truth(metric: str, dtypes: dict[str, Dtypes]) -> Callable[[Inputs], Truth]:
    def truth(inputs: Inputs) -> Truth:
        X, Y, k = inputs.args
        distances = _true_distances(X, Y, metric, squared=False)
        indices = np.argsort(distances, axis=1, kind="stable")[:, :k]
        nearest = np.take_along_axis(distances, indices, axis=1)
        return Truth(
            (nearest, indices),
            (dtypes[X.dtype.name].output, np.intp),
            (nearest * _column_scale(X, metric), indices),
            distances=distances.astype(np.float64),
        )

    return truth


def _true_sigmoid(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


def _true_softplus(z: Array) -> Array:
    return np.logaddexp(0, z)


def _elementwise_truth(function: Callable[[Array], Array]) -> Callable[[Inputs], Truth]:
    def truth(inputs: Inputs) -> Truth:
        (x,) = inputs.args
        with np.errstate(all="ignore"):
            return Truth((function(x.astype(np.longdouble)),), (x.dtype,))

    return truth


def _softmax_parts(Z: Array) -> tuple[Array, Array, Array]:
    """Return Z − max, its softmax, and log Σ e^(Z − max), per row and in Z's arithmetic."""
    shifted = Z - Z.max(axis=1, keepdims=True)
    e = np.exp(shifted)
    total = e.sum(axis=1, keepdims=True)
    return shifted, e / total, np.log(total)


def _softmax_truth(name: str) -> Callable[[Inputs], Truth]:
    def truth(inputs: Inputs) -> Truth:
        (Z,) = inputs.args
        wide = Z.astype(_wide(Z.dtype, 4 * Z.size))
        with np.errstate(all="ignore"):
            shifted, p, log_total = _softmax_parts(wide)
            if name == "softmax":
                return Truth((p,), (Z.dtype,), (p * _exponential_scale(shifted),))
            if name == "log_softmax":
                value = shifted - log_total
                return Truth((value,), (Z.dtype,), (1 + np.abs(value),))
            largest = wide.max(axis=1)
            return Truth((largest + log_total[:, 0],), (Z.dtype,), (1 + np.abs(largest),))

    return truth


def _exponential_scale(shifted: Array) -> Array:
    # The rounding of Z − max is an absolute error of the exponent, hence relative to the result;
    # a sum over C classes in 16 lanes rounds C/16 times.
    return 1 + np.minimum(np.abs(shifted), 1e6) + shifted.shape[1] / 128


class _Rows(NamedTuple):
    """What each row adds to a loss, in wide arithmetic."""

    losses: Array  # (n,)
    slopes: Array  # (n,) or (n, C): derivative with respect to the scores
    loss_scale: Array  # (n,): rounding of a loss is relative to this
    slope_scale: Array  # as slopes
    kink: Array | None = None  # (n,): how far the scores are from where the slope jumps


def _rows_binary_cross_entropy(z: Array, t: Array) -> _Rows:
    losses = t * np.logaddexp(0, -z) + (1 - t) * np.logaddexp(0, z)
    p = _true_sigmoid(z)
    return _Rows(losses, p - t, losses, p + t)


def _rows_hinge(z: Array, y: Array) -> _Rows:
    margin = 1 - y * z
    slopes = np.where(margin > 0, -y, 0)
    return _Rows(np.maximum(margin, 0), slopes, np.abs(slopes) * (1 + np.abs(z)), np.abs(slopes), np.abs(margin))


def _rows_squared_hinge(z: Array, y: Array) -> _Rows:
    margin = np.maximum(1 - y * z, 0)
    slopes = -2 * y * margin
    return _Rows(margin**2, slopes, margin**2, np.abs(slopes))


def _rows_squared_error(z: Array, y: Array) -> _Rows:
    r = z - y
    return _Rows(r**2 / 2, r, r**2 / 2, np.abs(r))


def _rows_absolute_error(z: Array, y: Array) -> _Rows:
    r = z - y
    return _Rows(np.abs(r), np.sign(r), np.abs(r), np.abs(np.sign(r)), np.abs(r))


def _rows_huber(z: Array, y: Array, delta: Any) -> _Rows:
    r = z - y
    losses = np.where(np.abs(r) <= delta, r**2 / 2, delta * (np.abs(r) - delta / 2))
    slopes = np.clip(r, -delta, delta)
    return _Rows(losses, slopes, losses, np.abs(slopes))


def _rows_softmax_cross_entropy(Z: Array, y: Array) -> _Rows:
    shifted, p, log_total = _softmax_parts(Z)
    T = y
    if y.ndim == 1:
        T = np.zeros(Z.shape, np.int8)
        T[np.arange(len(Z)), y] = 1
    losses = (T * (log_total - shifted)).sum(axis=1)
    mass = T.sum(axis=1, keepdims=True)
    return _Rows(losses, mass * p - T, 1 + losses, p * _exponential_scale(shifted) + T)


def _rows_multiclass_hinge(Z: Array, y: Array) -> _Rows:
    rows = np.arange(len(Z))
    others = Z.copy()
    others[rows, y] = -np.inf
    rival = others.argmax(axis=1)
    gap = others[rows, rival] - Z[rows, y]
    margin = gap + 1
    violated = margin > 0
    slopes = np.zeros_like(Z)
    slopes[rows, rival] += violated
    slopes[rows, y] -= violated
    scale = np.where(violated, 1 + np.abs(gap), 0)
    # The slope also jumps where the second-best of the other classes draws level.
    others[rows, rival] = -np.inf
    lead = np.where(violated, Z[rows, rival] - others.max(axis=1), np.inf)
    return _Rows(np.maximum(margin, 0), slopes, scale, np.abs(slopes), np.minimum(np.abs(margin), lead))


class _Loss(NamedTuple):
    rows: Callable[..., _Rows]
    family: str
    target: str
    curvature: float  # bound on the change of a slope per change of a score
    jump: float = 0.0  # of the slope at a kink
    formula: str = ""
    slope: str = ""
    largest: float = math.inf  # of the extreme scores: float32 squares overflow beyond 1.8e19


_LOSSES: dict[str, _Loss] = {
    "binary_cross_entropy": _Loss(
        _rows_binary_cross_entropy,
        "logistic",
        "probability",
        0.25,
        0,
        "mean −t·log σ(z) − (1−t)·log(1−σ(z))",
        "(σ(z) − t)/n",
    ),
    "softmax_cross_entropy": _Loss(
        _rows_softmax_cross_entropy,
        "multinomial",
        "class",
        0.5,
        0,
        "mean −log softmax(Z)[y]",
        "(softmax(Z) − 1[c=y])/n",
    ),
    "hinge": _Loss(_rows_hinge, "margin", "sign", 0, 1, "mean max(0, 1 − y·z)", "−y·1[y·z < 1]/n"),
    "squared_hinge": _Loss(
        _rows_squared_hinge, "margin", "sign", 2, 0, "mean max(0, 1 − y·z)²", "−2y·max(0, 1 − y·z)/n", largest=1e15
    ),
    "multiclass_hinge": _Loss(
        _rows_multiclass_hinge, "margin", "class", 0, 1, "mean max_j(z_j − z_y + 1[j≠y])", "(1[c=j*] − 1[c=y])/n"
    ),
    "squared_error": _Loss(
        _rows_squared_error, "regression", "real", 1, 0, "mean (z − y)²/2", "(z − y)/n", largest=1e15
    ),
    "absolute_error": _Loss(_rows_absolute_error, "regression", "real", 0, 2, "mean |z − y|", "sign(z − y)/n"),
    "huber": _Loss(
        _rows_huber, "regression", "real", 1, 0, "mean r²/2, or δ(|r| − δ/2) where |r| > δ", "clip(z − y, −δ, δ)/n"
    ),
}


def _rows(name: str, z: Array, y: Array, dtype: np.dtype[Any]) -> _Rows:
    wide = y if y.dtype.kind == "i" else y.astype(z.dtype)
    extra = (z.dtype.type(dtype.type(1.35)),) if name == "huber" else ()
    with np.errstate(all="ignore"):
        return _LOSSES[name].rows(z, wide, *extra)


def _loss_truth(name: str, gradient: bool, rtol: dict[str, float]) -> Callable[[Inputs], Truth]:
    def truth(inputs: Inputs) -> Truth:
        z, y = inputs.args
        rows = _rows(name, z.astype(_wide(z.dtype, 4 * z.size)), y, z.dtype)
        weights = inputs.kwargs.get("sample_weight")
        w = np.ones(len(z), rows.losses.dtype) if weights is None else weights.astype(rows.losses.dtype)
        w = w / w.sum()
        loss, scale = w @ rows.losses, (w @ rows.loss_scale) * _summed(len(z), z.dtype, rtol)
        if not gradient:
            return Truth((loss,), (None,), (scale,))
        column = w if z.ndim == 1 else w[:, None]
        slack = np.zeros_like(rows.slopes)
        if name == "multiclass_hinge" and rows.kink is not None:
            # z_j − z_y + 1 is rounded twice: within that of the kink, either side is right.
            near = rows.kink <= 2 * _EPS[z.dtype.name] * (rows.loss_scale + 2)
            slack[near] = (column * np.ones_like(slack))[near]
        return Truth((loss, column * rows.slopes), (None, z.dtype), (scale, column * rows.slope_scale), (0.0, slack))

    return truth


def _summed(n: int, dtype: np.dtype[Any], rtol: dict[str, float]) -> float:
    """Return the factor by which n float64 roundings of a plain sum widen a scale.

    float32 terms are summed in float64, where this is nothing; float64 terms have no wider sum.
    """
    return 1 + n * 2.0**-53 / rtol[dtype.name]


def _linear_truth(name: str, rtol: dict[str, float]) -> Callable[[Inputs], Truth]:
    loss = _LOSSES[name]

    def truth(inputs: Inputs) -> Truth:
        _, X, y, W, b = inputs.args
        dtype = X.dtype
        wide = _wide(dtype, 4 * X.size * (len(W) if W.ndim == 2 else 1))
        coefficients, intercept = np.atleast_2d(W).astype(wide), np.atleast_1d(np.asarray(b)).astype(wide)
        weights = inputs.kwargs.get("sample_weight")
        w = np.ones(len(X), wide) if weights is None else weights.astype(wide)
        w = w / w.sum()
        value, value_scale = wide(0), wide(0)
        dW, dW_scale, dW_slack = (np.zeros(coefficients.shape, wide) for _ in range(3))
        db, db_scale, db_slack = (np.zeros(intercept.shape, wide) for _ in range(3))
        for start in range(0, len(X), 4096):  # in blocks, for wide copies of X are large
            part = slice(start, start + 4096)
            x, share = X[part].astype(wide), w[part, None]
            scores = x @ coefficients.T + intercept
            # Rounding of a score is relative to the sum of |x·w|.
            reach = np.abs(x) @ np.abs(coefficients).T + np.abs(intercept)
            rows = _rows(name, scores if W.ndim == 2 else scores[:, 0], y[part], dtype)
            slopes, slope_scale = (s.reshape(len(x), -1) for s in (rows.slopes, rows.slope_scale))
            reach_of_row = reach.max(axis=1, keepdims=True)
            slope_scale = slope_scale + loss.curvature * reach_of_row
            value += w[part] @ rows.losses
            value_scale += w[part] @ (rows.loss_scale + np.abs(slopes).max(axis=1) * reach_of_row[:, 0])
            value_scale += w[part] @ (loss.curvature * rtol[dtype.name] * reach_of_row[:, 0] ** 2)
            dW += (share * slopes).T @ x
            db += (share * slopes).sum(axis=0)
            dW_scale += (share * slope_scale).T @ np.abs(x)
            db_scale += (share * slope_scale).sum(axis=0)
            if rows.kink is not None:
                near = rows.kink <= 2 * rtol[dtype.name] * (reach_of_row[:, 0] + 1)
                jumps = np.where(near, loss.jump, 0)[:, None] * share * np.ones_like(slopes)
                dW_slack += jumps.T @ np.abs(x)
                db_slack += jumps.sum(axis=0)
        l2 = wide(dtype.type(inputs.kwargs["l2"]))
        value += l2 / 2 * np.square(coefficients).sum()
        value_scale += l2 / 2 * np.square(coefficients).sum()
        dW += l2 * coefficients
        dW_scale += l2 * np.abs(coefficients)
        more = _summed(len(X), dtype, rtol)
        if W.ndim == 1:
            dW, dW_scale, dW_slack = dW[0], dW_scale[0], dW_slack[0]
            db, db_scale, db_slack = db[0], db_scale[0], db_slack[0]
        return Truth(
            (value, dW, db),
            (None, dtype, None if W.ndim == 1 else dtype),
            (value_scale * more, dW_scale * more, db_scale * more),
            (0.0, dW_slack, db_slack),
        )

    return truth


def _training_truth(name: str, rtol: dict[str, float]) -> Callable[[Inputs], Truth]:
    loss = _LOSSES[name]

    def truth(inputs: Inputs) -> Truth:
        _, X, y, W, b, order = inputs.args
        settings, dtype = inputs.kwargs, X.dtype
        wide = _wide(dtype, 4 * X.size * (len(W) if W.ndim == 2 else 1))
        unit = rtol[dtype.name]
        step, l2, l1, momentum = (wide(dtype.type(settings[key])) for key in ("steps", "l2", "l1", "momentum"))
        weights = settings.get("sample_weight")
        w = np.ones(len(X), wide) if weights is None else weights.astype(wide)
        w *= len(X) / w.sum()
        # Row 0 of each is the model, row 1 how far a tier's model may be off in units of rtol, row 2 what rows
        # within rounding of a kink may add to that. The last column is the intercept's.
        model = np.zeros((3, *np.atleast_2d(W).shape), wide)
        model[0] = np.atleast_2d(W)
        model = np.concatenate((model, np.zeros((*model.shape[:2], 1), wide)), axis=2)
        model[0, :, -1] = b
        velocity = np.zeros_like(model)
        penalised = np.append(np.ones(X.shape[1], wide), 0)
        losses = []
        for at in range(0, len(order), settings["batch_size"]):
            rows = order[at : at + settings["batch_size"]]
            x = np.column_stack((X[rows].astype(wide), np.ones(len(rows), wide)))
            share = w[rows, None] / len(rows)
            scores = x @ model[0].T
            blur = (np.abs(x) @ model[2].T).max(axis=1)
            reach = (np.abs(x) @ (np.abs(model[0]) + model[1]).T).max(axis=1)
            terms = _rows(name, scores if W.ndim == 2 else scores[:, 0], y[rows], dtype)
            slopes, slope_scale = (part.reshape(len(x), -1) for part in (terms.slopes, terms.slope_scale))
            slope_scale = slope_scale + loss.curvature * reach[:, None]
            near = np.zeros(len(x), bool) if terms.kink is None else terms.kink <= 2 * (unit * (reach + 1) + blur)
            slope_slack = np.where(near, loss.jump, 0) + loss.curvature * blur
            steepest = np.abs(slopes).max(axis=1) + slope_slack
            losses.append(
                (
                    share[:, 0] @ terms.losses,
                    share[:, 0] @ (terms.loss_scale + reach * (steepest + loss.curvature * unit * reach)),
                    share[:, 0] @ (blur * steepest),
                )
            )
            parts = np.stack((slopes, slope_scale, slope_slack[:, None] * np.ones_like(slopes)))
            gradient = np.stack([(share * part).T @ (np.abs(x) if number else x) for number, part in enumerate(parts)])
            gradient[1] *= _summed(len(x), dtype, rtol)
            gradient += l2 * penalised * (model if l2 else 0)
            move = np.stack((-step * gradient[0], *(step * gradient[1:])))
            velocity = momentum * velocity + move
            velocity[1] += np.abs(velocity[0]) / 8  # a rounding or two, of 16 eps
            model = model + (momentum * velocity + move if settings["nesterov"] else velocity)
            model[1] += np.abs(model[0]) / 8
            shrink = step * l1 * penalised
            model[0] = np.sign(model[0]) * np.maximum(np.abs(model[0]) - shrink, 0)
        values = [np.array([row[part] for row in losses]) for part in range(3)]
        if W.ndim == 1:
            weights_of, intercepts = model[:, 0, :-1], model[:, 0, -1]
        else:
            weights_of, intercepts = model[:, :, :-1], model[:, :, -1]
        return Truth(
            (weights_of[0], intercepts[0], values[0]),
            (dtype, None if W.ndim == 1 else dtype, np.float64),
            (np.abs(weights_of[0]) + weights_of[1], np.abs(intercepts[0]) + intercepts[1], values[1]),
            (weights_of[2], intercepts[2], values[2]),
        )

    return truth


def _evaluation_truth(name: str, rtol: dict[str, float]) -> Callable[[Inputs], Truth]:
    loss = _LOSSES[name]

    def truth(inputs: Inputs) -> Truth:
        _, X, y, W, b = inputs.args
        dtype = X.dtype
        wide, unit = _wide(dtype, 4 * X.size * W.shape[0] * W.shape[1]), rtol[dtype.name]
        weights = inputs.kwargs.get("sample_weight")
        w = np.ones(len(X), wide) if weights is None else weights.astype(wide)
        w = w / w.sum()
        result = np.zeros((2, 3, len(W)), wide)  # loss and score: value, scale, slack
        for start in range(0, len(X), 4096):  # in blocks, for wide copies of X are large
            part = slice(start, start + 4096)
            x, target, share = X[part].astype(wide), y[part], w[part]
            for m in range(len(W)):
                scores = x @ W[m].astype(wide).T + b[m].astype(wide)
                reach = (np.abs(x) @ np.abs(W[m].astype(wide)).T + np.abs(b[m].astype(wide))).max(axis=1)
                z = scores if loss.target == "class" else scores[:, 0]
                terms = _rows(name, z, target, dtype)
                steepest = np.abs(terms.slopes.reshape(len(x), -1)).max(axis=1)
                result[0, 0, m] += share @ terms.losses
                result[0, 1, m] += share @ (terms.loss_scale + reach * (steepest + loss.curvature * unit * reach))
                result[0, 1, m] += share @ (loss.jump * reach)
                if loss.target == "real":
                    residual = z - target
                    result[1, 0, m] += share @ residual**2
                    result[1, 1, m] += share @ (residual**2 + 2 * np.abs(residual) * reach + unit * reach**2)
                    continue
                if loss.target == "class":
                    own = scores[np.arange(len(x)), target]
                    others = scores.copy()
                    others[np.arange(len(x)), target] = -np.inf
                    right, margin = scores.argmax(axis=1) == target, np.abs(own - others.max(axis=1))
                else:
                    right, margin = (z >= 0) == (target >= (0.5 if loss.target == "probability" else 0)), np.abs(z)
                result[1, 0, m] += share @ right
                result[1, 1, m] += share @ right
                result[1, 2, m] += share @ (margin <= 2 * unit * reach)
        result[:, 1] *= _summed(len(X), dtype, rtol)
        values, scales, slacks = (tuple(result[:, part]) for part in range(3))
        return Truth(values, (np.float64, np.float64), scales, slacks)

    return truth


class _Level(NamedTuple):
    """Values of a level of a network, how far a tier's may be off in units of rtol, distance from the kink."""

    values: Array
    reach: Array
    kink: Array


#: Activation functions: value, derivative, and bounds of the second derivative and of the derivative's jump at 0.
_ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array], float, float]] = {
    "identity": (lambda z: z, np.ones_like, 0, 0),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(z.dtype), 0, 1),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2, 0.77, 0),
    "logistic": (_true_sigmoid, lambda z: _true_sigmoid(z) * _true_sigmoid(-z), 0.1, 0),
}


#: What batch normalisation adds to a variance; share of a batch's means and variances in the running ones.
_NORM_EPSILON, _NORM_SHARE = 1e-5, 0.1


class _Normal(NamedTuple):
    """Normalised values x of a layer and how far they may be off, inverse deviations likewise, scales likewise."""

    x: Array
    reach: Array
    inverse: Array
    inverse_reach: Array
    scale: Array
    scale_off: Array


def _normalisation(z: Array, z_reach: Array, norm: Any, off: Any, over_batch: bool) -> tuple[_Normal, list[Array]]:
    """Return normalised values, by running statistics or `over_batch`; mean and variance, and how far off each is."""
    (scale, mean, variance), (scale_off, mean_off, variance_off) = norm, off
    if over_batch:
        mean, mean_off = z.mean(axis=0), z_reach.mean(axis=0)
    d = z - mean
    d_reach = z_reach + mean_off + np.abs(mean)
    if over_batch:
        variance, variance_off = np.square(d).mean(axis=0), (2 * np.abs(d) * d_reach).mean(axis=0)
    inverse = 1 / np.sqrt(variance + _NORM_EPSILON)
    inverse_reach = inverse**3 * variance_off / 2 + inverse
    reach = d_reach * inverse + np.abs(d) * inverse_reach
    statistics = [mean, variance, mean_off + np.abs(mean), variance_off + variance]
    return _Normal(d * inverse, reach, inverse, inverse_reach, scale, scale_off), statistics


def _network_levels(
    x: Array, layers: Any, off: Any, activation: str, norms: Any = None, batch: list[Any] | None = None
) -> tuple[list[_Level], list[Array]]:
    """Return values of all levels and the inputs of the activations; parameters may be off by `off` units.

    With `norms`, a pair of norms and how far they are off, hidden layers are normalised: by running statistics, or with
    `batch`, a list, by those of the rows, and it gets what `_normalisation` returns.
    """
    function = _ACTIVATIONS[activation][0]
    levels, raw = [_Level(x, np.zeros_like(x), np.full(x.shape, np.inf))], []
    for place, ((W, b), (W_off, b_off)) in enumerate(zip(layers, off, strict=True)):
        values, reach, _ = levels[-1]
        z = values @ W.T
        z_reach = (np.abs(values) + reach) @ np.abs(W).T + np.abs(values) @ W_off.T
        if norms is not None and place < len(layers) - 1:
            normal, statistics = _normalisation(z, z_reach, norms[0][place], norms[1][place], batch is not None)
            z = normal.scale * normal.x
            z_reach = np.abs(normal.scale) * (np.abs(normal.x) + normal.reach) + np.abs(normal.x) * normal.scale_off
            if batch is not None:
                batch.append((normal, statistics))
        z += b
        z_reach += np.abs(b) + b_off
        raw.append(z)
        last = place == len(layers) - 1
        a = z if last else function(z)
        levels.append(_Level(a, z_reach + np.abs(a), np.abs(z)))
    return levels, raw


def _normal_slopes(normal: _Normal, slopes: Array, scale: Array, slack: Array) -> tuple[list[Array], list[Array]]:
    """Return slopes in what was normalised, with scale and slack; and the gradient in scales, with both."""
    x, reach, inverse, inverse_reach, gamma, gamma_off = normal
    size, factor, n = np.abs(x), np.abs(gamma) * inverse, len(x)
    product = (slopes * x).sum(axis=0)
    product_scale = (scale * size + np.abs(slopes) * reach).sum(axis=0)
    product_slack = (slack * size).sum(axis=0)
    inner = slopes - slopes.mean(axis=0) - x * product / n
    terms = np.abs(slopes) + np.abs(slopes).mean(axis=0) + size * (np.abs(slopes) * size).sum(axis=0) / n
    inner_scale = terms + scale + scale.mean(axis=0) + size * product_scale / n + reach * np.abs(product) / n
    inner_slack = slack + slack.mean(axis=0) + size * product_slack / n
    factor_reach = gamma_off * inverse + np.abs(gamma) * inverse_reach
    of_values = [gamma * inverse * inner, factor * inner_scale + factor_reach * np.abs(inner), factor * inner_slack]
    return of_values, [product, product_scale, product_slack]


def _network_pass(
    name: str,
    x: Array,
    y: Array,
    layers: Any,
    off: Any,
    activation: str,
    shares: Array,
    rtol: float,
    dtype: Any,
    norms: Any = None,
    batch: list[Any] | None = None,
) -> tuple[tuple[Array, Array], list[Array], list[Array], list[Array]]:
    """Return ``shares @ losses`` with its scale; gradient, its scale and slack, of weights and intercepts in turn.

    With `norms` hidden layers are normalised over the rows: the gradient in scales and running statistics is in it.
    """
    loss = _LOSSES[name]
    _, derivative, curvature, jump = _ACTIVATIONS[activation]
    batch = [] if batch is None else batch
    levels, raw = _network_levels(x, layers, off, activation, norms, batch)
    scores, reach, _ = levels[-1]
    if loss.target == "class":
        rows = _rows(name, scores, y, dtype)
        slopes, slope_scale, losses, loss_scale = rows.slopes, rows.slope_scale, rows.losses, rows.loss_scale
    else:
        parts = [_rows(name, z, t, dtype) for z, t in zip(scores.T, y.T, strict=True)]
        slopes, slope_scale = (np.stack([getattr(p, f) for p in parts], 1) for f in ("slopes", "slope_scale"))
        losses, loss_scale = (sum(getattr(p, f) for p in parts) for f in ("losses", "loss_scale"))
    steepest = np.abs(slopes).sum(axis=1)
    widest = reach.max(axis=1)
    value = shares @ losses
    value_scale = shares @ (loss_scale + widest * (steepest + loss.curvature * rtol * widest))
    column = shares[:, None]
    slopes, slope_scale = column * slopes, column * (slope_scale + loss.curvature * reach.max(axis=1, keepdims=True))
    slack = np.zeros_like(slopes)
    gradient: list[Array] = []
    scales: list[Array] = []
    slacks: list[Array] = []
    for place in range(len(layers) - 1, -1, -1):
        values, value_reach, kink = levels[place]
        W, W_off = layers[place][0], off[place][0]
        sizes = np.abs(values)
        sums = [[slopes.sum(axis=0)], [slope_scale.sum(axis=0)], [slack.sum(axis=0)]]
        if norms is not None and place < len(layers) - 1:
            (slopes, slope_scale, slack), of_norm = _normal_slopes(batch[place][0], slopes, slope_scale, slack)
            for vectors, part in zip(sums, of_norm, strict=True):
                vectors += [part, *np.zeros((2, len(part)), part.dtype)]
        gradient[:0] = [slopes.T @ values, *sums[0]]
        scales[:0] = [slope_scale.T @ sizes + np.abs(slopes).T @ value_reach, *sums[1]]
        slacks[:0] = [slack.T @ sizes, *sums[2]]
        if place == 0:
            break
        here = derivative(raw[place - 1])
        below = slopes @ W
        reach_below = slope_scale @ np.abs(W) + np.abs(slopes) @ (np.abs(W) + W_off)
        near = jump * (kink <= 2 * rtol * value_reach)
        slack = (slack @ np.abs(W)) * np.maximum(np.abs(here), near) + near * np.abs(below)
        # A derivative that is made from the value, 1 − a², has the rounding of a number near 1.
        slope_scale = reach_below * np.abs(here) + np.abs(below) * (np.abs(here) + curvature * (value_reach + 1))
        slopes = below * here
    return (value, value_scale), gradient, scales, slacks


def _wide_parts(parameters: Array, units: Size, wide: Any, batch_norm: bool) -> list[list[Array]]:
    """Return weights and intercepts of each layer; of hidden ones with `batch_norm` also scales, means, variances."""
    found, values = [], parameters.astype(wide)
    for place, (inputs, outputs) in enumerate(pairwise(units)):
        vectors = 4 if batch_norm and place < len(units) - 2 else 1
        here, values = np.split(values, [(inputs + vectors) * outputs])
        W, *rest = np.split(here, [(inputs + vector) * outputs for vector in range(vectors)])
        found.append([W.reshape(outputs, inputs), *rest])
    return found


def _wide_layers(parameters: Array, units: Size, wide: Any, batch_norm: bool = False) -> list[tuple[Array, Array]]:
    """Return weights and intercepts of each layer."""
    return [(W, b) for W, b, *_ in _wide_parts(parameters, units, wide, batch_norm)]


def _wide_norms(parameters: Array, off: Array, units: Size, wide: Any, batch_norm: bool) -> Any:
    """Return a pair of norms and how far they are off, or None."""
    if not batch_norm:
        return None
    return [[part[2:] for part in _wide_parts(p, units, wide, True)[:-1]] for p in (parameters, off)]


def _joined(parts: list[Array]) -> Array:
    return np.concatenate([part.ravel() for part in parts])


def _network_scores_truth(inputs: Inputs) -> Truth:
    X, parameters, units = inputs.args
    wide = _wide(X.dtype, 4 * len(X) * len(parameters))
    batch_norm, none = inputs.kwargs.get("batch_norm", False), np.zeros_like(parameters)
    layers, off = (_wide_layers(p, units, wide, batch_norm) for p in (parameters, none))
    norms = _wide_norms(parameters, none, units, wide, batch_norm)
    levels, _ = _network_levels(X.astype(wide), layers, off, inputs.kwargs["activation"], norms)
    return Truth((levels[-1].values,), (X.dtype,), (levels[-1].reach,))


def _row_shares(weights: Array | None, n: int, wide: Any) -> Array:
    """Return the weights of rows, scaled to a mean of 1."""
    w = np.ones(n, wide) if weights is None else weights.astype(wide)
    return np.asarray(w * (n / w.sum()))


def _network_gradient_truth(name: str, rtol: dict[str, float]) -> Callable[[Inputs], Truth]:
    def truth(inputs: Inputs) -> Truth:
        _, X, y, parameters, units = inputs.args
        dtype = X.dtype
        wide = _wide(dtype, 4 * len(X) * len(parameters))
        batch_norm, none = inputs.kwargs.get("batch_norm", False), np.zeros_like(parameters)
        layers, off = (_wide_layers(p, units, wide, batch_norm) for p in (parameters, none))
        norms = _wide_norms(parameters, none, units, wide, batch_norm)
        shares = _row_shares(inputs.kwargs.get("sample_weight"), len(X), wide) / len(X)
        l2, activation = wide(dtype.type(inputs.kwargs["l2"])), inputs.kwargs["activation"]
        (value, value_scale), gradient, scales, slacks = _network_pass(
            name, X.astype(wide), y, layers, off, activation, shares, rtol[dtype.name], dtype, norms
        )
        of_weights = [place for place, part in enumerate(gradient) if part.ndim == 2]
        for place, (W, _) in zip(of_weights, layers, strict=True):
            value += l2 / 2 * np.square(W).sum()
            value_scale += l2 / 2 * np.square(W).sum()
            gradient[place] = gradient[place] + l2 * W
            scales[place] = scales[place] + l2 * np.abs(W)
        more = _summed(len(X), dtype, rtol)
        return Truth(
            (value, _joined(gradient)),
            (None, dtype),
            (value_scale * more, _joined(scales) * more),
            (0.0, _joined(slacks)),
        )

    return truth


def _network_training_truth(name: str, rtol: dict[str, float]) -> Callable[[Inputs], Truth]:
    def truth(inputs: Inputs) -> Truth:
        _, X, y, parameters, units, order = inputs.args
        settings, dtype = inputs.kwargs, X.dtype
        wide = _wide(dtype, 4 * len(X) * len(parameters))
        step, l2, momentum = (wide(dtype.type(settings[key])) for key in ("steps", "l2", "momentum"))
        w = _row_shares(settings.get("sample_weight"), len(X), wide)
        # Row 0 of each is the model, row 1 how far a tier's may be off in units of rtol, row 2 what kinks may add.
        model = np.zeros((3, len(parameters)), wide)
        model[0] = parameters
        velocity = np.zeros_like(model)
        batch_norm = settings.get("batch_norm", False)
        parts = [part for layer in _wide_parts(model[0], units, wide, batch_norm) for part in layer]
        penalised = l2 * _joined([np.full_like(part, part.ndim == 2) for part in parts])
        losses = []
        for at in range(0, len(order), settings["batch_size"]):
            rows = order[at : at + settings["batch_size"]]
            batch: list[Any] = []
            all_off = model[1] + model[2] / rtol[dtype.name]
            layers, off = (_wide_layers(p, units, wide, batch_norm) for p in (model[0], all_off))
            value, *found = _network_pass(
                name, X[rows].astype(wide), y[rows], layers, off, settings["activation"], w[rows] / len(rows),
                rtol[dtype.name], dtype, _wide_norms(model[0], all_off, units, wide, batch_norm), batch,
            )  # fmt: skip
            losses.append(value)
            gradient = np.stack([_joined(part) for part in found])
            gradient[1] *= _summed(len(rows), dtype, rtol)
            gradient += penalised * np.stack((model[0], np.abs(model[0]) + model[1], model[2]))
            move = np.stack((-step * gradient[0], *(step * gradient[1:])))
            velocity = momentum * velocity + move
            velocity[1] += np.abs(velocity[0]) / 8  # a rounding or two, of 16 eps
            model = model + (momentum * velocity + move if settings["nesterov"] else velocity)
            model[1] += np.abs(model[0]) / 8
            for layer, (_, statistics) in enumerate(batch):
                _follow(model, units, wide, layer, statistics, len(rows))
        values, scales = (np.array(column) for column in zip(*losses, strict=True))
        return Truth((model[0], values), (dtype, np.float64), (np.abs(model[0]) + model[1], scales), (model[2], 0.0))

    return truth


def _follow(model: Array, units: Size, wide: Any, layer: int, statistics: list[Array], n: int) -> None:
    """Move running statistics of a layer, with how far they may be off, towards those of a batch of n rows."""
    at = sum((inputs + 4) * outputs for inputs, outputs in pairwise(units[: layer + 1]))
    at += (units[layer] + 2) * units[layer + 1]
    mean, variance, mean_off, variance_off = statistics
    unbiased = wide(n) / max(1, n - 1)
    for new, off in [(mean, mean_off), (variance * unbiased, variance_off * unbiased)][: 1 + (n > 1)]:
        here = slice(at, at + len(new))
        model[0, here] += wide(_NORM_SHARE) * (new - model[0, here])
        model[1, here] += wide(_NORM_SHARE) * (off + np.abs(new)) + np.abs(model[0, here])
        at += len(new)


# Images: convolutions with kernels of 3 x 3 and zeros around the images, pools of 2 x 2, batch normalisation.


def _taps(X: Array) -> Iterator[tuple[int, int, Array]]:
    """Yield each place of a kernel of 3 x 3 with a view of what it meets in images that have zeros around."""
    height, width = X.shape[2] - 2, X.shape[3] - 2
    for dy in range(3):
        for dx in range(3):
            yield dy, dx, X[:, :, dy : dy + height, dx : dx + width]


def _bordered(X: Array) -> Array:
    return np.pad(X, ((0, 0), (0, 0), (1, 1), (1, 1)))


def _true_conv2d(X: Array, W: Array, b: Array) -> Array:
    shape = (len(X), *X.shape[2:], len(W))
    z = np.zeros(shape, X.dtype) + b
    for dy, dx, part in _taps(_bordered(X)):
        z += np.tensordot(part, W[:, :, dy, dx], axes=(1, 1))
    return z.transpose(0, 3, 1, 2)


def _conv2d_truth(inputs: Inputs) -> Truth:
    X, W, _ = inputs.args
    wide = _wide(X.dtype, X[:, 0].size * W.size)
    parts = [part.astype(wide) for part in inputs.args]
    return Truth((_true_conv2d(*parts),), (X.dtype,), (_true_conv2d(*map(np.abs, parts)),))


def _true_conv2d_gradient(dZ: Array, X: Array, W: Array) -> tuple[Array, Array, Array]:
    dW, back = np.empty_like(W), np.zeros_like(_bordered(X))
    for dy, dx, part in _taps(_bordered(X)):
        dW[:, :, dy, dx] = np.tensordot(dZ, part, axes=((0, 2, 3), (0, 2, 3)))
    for dy, dx, part in _taps(back):
        part += np.tensordot(dZ, W[:, :, dy, dx], axes=(1, 0)).transpose(0, 3, 1, 2)
    return back[:, :, 1:-1, 1:-1], dW, dZ.sum(axis=(0, 2, 3))


def _conv2d_gradient_truth(inputs: Inputs) -> Truth:
    _, X, W = inputs.args
    wide = _wide(X.dtype, X[:, 0].size * W.size)
    parts = [part.astype(wide) for part in inputs.args]
    scale = _true_conv2d_gradient(*map(np.abs, parts))
    return Truth(_true_conv2d_gradient(*parts), (X.dtype,) * 3, scale)


def _quarters(X: Array) -> Array:
    """Return the four pixels of each window of 2 x 2, line by line: (n, C, places down, to the right, 4)."""
    n, c, height, width = X.shape
    height, width = height // 2, width // 2
    blocks = X[:, :, : 2 * height, : 2 * width].reshape(n, c, height, 2, width, 2)
    return blocks.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, height, width, 4)


def _from_quarters(parts: Array, like: Array) -> Array:
    n, c, height, width, _ = parts.shape
    result = np.zeros(like.shape, parts.dtype)
    blocks = parts.reshape(n, c, height, width, 2, 2).transpose(0, 1, 2, 4, 3, 5)
    result[:, :, : 2 * height, : 2 * width] = blocks.reshape(n, c, 2 * height, 2 * width)
    return result


def _pool_truth(average: bool) -> Callable[[Inputs], Truth]:
    def truth(inputs: Inputs) -> Truth:
        (X,) = inputs.args
        parts = _quarters(X.astype(_wide(X.dtype, X.size)))
        if average:
            return Truth((parts.mean(axis=4),), (X.dtype,), (np.abs(parts).mean(axis=4),))
        return Truth((parts.max(axis=4),), (X.dtype,))

    return truth


def _pool_gradient_truth(average: bool) -> Callable[[Inputs], Truth]:
    def truth(inputs: Inputs) -> Truth:
        dZ, X = inputs.args
        wide = _wide(X.dtype, X.size)
        first = _quarters(X).argmax(axis=4)[..., None] == np.arange(4)
        shares = np.full(first.shape, 0.25) if average else first
        return Truth((_from_quarters(dZ.astype(wide)[..., None] * shares, X),), (X.dtype,))

    return truth


class _Standard(NamedTuple):
    """Values less their mean times a factor, how large they were before, and the factor; in float64 or wider."""

    values: Array
    reach: Array
    factor: Array


def _standard(X: Array, epsilon: float) -> _Standard:
    axes = (0, 2, 3)
    x = X.astype(_wide(X.dtype, X.size))
    mean = x.mean(axis=axes, keepdims=True)
    factor = 1 / np.sqrt(np.square(x - mean).mean(axis=axes, keepdims=True) + epsilon)
    return _Standard((x - mean) * factor, (np.abs(x) + np.abs(mean)) * factor, factor)


def _batch_norm_truth(inputs: Inputs) -> Truth:
    X, gamma, beta = inputs.args
    x, factor, shift = _standard(X, 1e-5), gamma[:, None, None], beta[:, None, None]
    return Truth((x.values * factor + shift,), (X.dtype,), (x.reach * np.abs(factor) + np.abs(shift),))


def _batch_norm_gradient_truth(inputs: Inputs) -> Truth:
    dZ, X, gamma = inputs.args
    axes, x = (0, 2, 3), _standard(X, 1e-5)
    d = dZ.astype(x.values.dtype)
    factor, sizes = gamma[:, None, None] * x.factor, np.abs(d)
    mean, along = (part.mean(axis=axes, keepdims=True) for part in (d, d * x.values))
    of_mean, of_along = (part.mean(axis=axes, keepdims=True) for part in (sizes, sizes * x.reach))
    return Truth(
        (factor * (d - mean - x.values * along), (d * x.values).sum(axis=axes), d.sum(axis=axes)),
        (X.dtype,) * 3,
        (
            np.abs(factor) * (sizes + of_mean + x.reach * of_along),
            (sizes * x.reach).sum(axis=axes),
            sizes.sum(axis=axes),
        ),
    )


# -- entries ---------------------------------------------------------------------------------------

ENTRIES: dict[str, Entry] = {}

_FLOATS = {"float32": Dtypes("float32", "float32"), "float64": Dtypes("float64", "float64")}
_REGIMES = ("typical", "extreme", "tails")
_LOSS_REGIMES = (*_REGIMES, "weighted")
_INDEX = np.dtype(np.intp).itemsize

_VECTOR_SIZES: dict[str, Size] = {"tiny": (97,), "default": (1_000_000,), "full": (10_000_000,)}
_MATRIX_SIZES: dict[str, Size] = {
    "tiny": (33, 10),
    "default": (20_000, 100),
    "full": (100_000, 10),
    "wide": (4_000, 1_000),
}


def _add(entry: Entry) -> None:
    ENTRIES[entry.key] = entry


def _itemsize(dtype: str) -> int:
    return np.dtype(dtype).itemsize


def _tolerances(units: float, reason: str, atol: float = 1.0) -> dict[str, Tolerance]:
    """Return `units` times eps and `atol` times the smallest normal number, for both floats."""
    return {name: Tolerance(units * _EPS[name], atol * _TINY[name], reason) for name in _EPS}


def _rtol(tolerance: dict[str, Tolerance]) -> dict[str, float]:
    return {name: t.rtol for name, t in tolerance.items()}


# Distances and neighbours: "squared" is the L2 distance without its root.

_CHUNKS = (
    "sums run over at most 256 columns, then over those partial sums: (256 + D/256 + 4)·eps/2 in the worst case "
    "(less for fewer columns, see the scale), relative because no term is negative"
)
_EXACT = {"uint8": Tolerance(0.0, 0.0, "integers are exact")}
_ROOT = {"uint8": Tolerance(_EPS["float32"], 0.0, "the root of an exact integer, rounded once or twice")}
_DISTANCE_TOLERANCES = {
    "l1": _tolerances(138, _CHUNKS) | _EXACT,
    "squared": _tolerances(138, _CHUNKS, atol=4096) | _EXACT,
    # Squares below the smallest normal number may vanish: seen from the root, all below its root.
    "l2": {
        name: Tolerance(69 * _EPS[name], 64 * math.sqrt(_TINY[name]), "half of the square's bound: " + _CHUNKS)
        for name in _EPS
    }
    | _ROOT,
    "linf": _tolerances(1, "one subtraction, rounded once; maxima are exact") | _EXACT,
}
_DISTANCE_FORMULAS = {"l1": "Σ|x − y|", "l2": "√Σ(x − y)²", "squared": "Σ(x − y)²", "linf": "max|x − y|"}


def _distance_dtypes(kind: str) -> dict[str, Dtypes]:
    return _FLOATS | {"uint8": Dtypes("int32", "float32" if kind == "l2" else "int32")}


def _pair_terms(size: Size) -> float:
    return math.prod(size[:3])


def _pair_flops(size: Size) -> float:
    # As a matrix product of this size counts them, so that the share of the GEMM rate says how
    # the direct form compares with the BLAS form.
    return 2 * math.prod(size[:3])


def _add_pairwise(kind: str) -> None:
    squared = kind == "squared"
    metric = "l2" if squared else kind
    dtypes = _distance_dtypes(kind)

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        n, m, d = size
        points = _points(np.random.default_rng(seed), n, m, d, dtype, regime)
        return Inputs(points, {"squared": True} if squared else {})

    def size_bytes(size: Size, dtype: str) -> float:
        n, m, d = size
        return (n + m) * d * _itemsize(dtype) + n * m * _itemsize(dtypes[dtype].output)

    _add(
        Entry(
            key="pairwise_l2[squared]" if squared else f"pairwise_{metric}",
            function=f"pairwise_{metric}",
            family="distances",
            formula=_DISTANCE_FORMULAS[kind],
            dtypes=dtypes,
            sizes={"tiny": (23, 37, 33), "default": (200, 2000, 784), "full": (500, 5000, 3072)},
            axes=("n", "m", "d"),
            make=make,
            regimes=_REGIMES,
            work=_pair_terms,
            unit="elem",
            bytes=size_bytes,
            flops=_pair_flops,
            limit="gemm",
            tolerance=_DISTANCE_TOLERANCES[kind],
            loop_size=(10, 100, 784),
            specialisations=len(dtypes) + (metric == "l2"),  # wide uint8 rows: int64 instead of int32
            truth=_distance_truth(metric, squared, dtypes),
        )
    )


def _add_k_nearest(metric: str) -> None:
    dtypes = _distance_dtypes(metric)

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        n, m, d, k = size
        X, Y = _points(np.random.default_rng(seed), n, m, d, dtype, regime)
        return Inputs((X, X if n == m else Y, k), {"metric": metric})

    def size_bytes(size: Size, dtype: str) -> float:
        n, m, d, k = size
        return (n + m) * d * _itemsize(dtype) + n * k * (_itemsize(dtypes[dtype].output) + _INDEX)

    _add(
        Entry(
            key=f"k_nearest[{metric}]",
            function="k_nearest",
            family="neighbors",
            formula=f"the k smallest {_DISTANCE_FORMULAS[metric]}",
            dtypes=dtypes,
            sizes={"tiny": (23, 37, 33, 5), "default": (200, 2000, 784, 5), "full": (500, 5000, 3072, 7)},
            axes=("n", "m", "d", "k"),
            make=make,
            regimes=_REGIMES,
            work=_pair_terms,
            unit="elem",
            bytes=size_bytes,
            flops=_pair_flops,
            limit="gemm",
            tolerance=_DISTANCE_TOLERANCES[metric],
            loop_size=(10, 100, 784, 5),
            specialisations=len(dtypes) + (metric == "l2"),  # wide uint8 rows: int64 instead of int32
            truth=_neighbour_truth(metric, dtypes),
            # Few queries: Y is cut and the parts are merged. Many long rows among themselves. Enough work for bounds.
            warm_sizes=((3, 4096, 2, 3), (2048, 2048, 416, 1), (1024, 4096, 1024, 1)),
        )
    )


# Elementwise functions and the softmax family.

_CUT = "; below the normal numbers a result may be cut to zero"
_EXPONENTIALS = (
    "3 eps of each exponential, half an eps of the rounded exponent times its size, C/32 eps of the sum, one division"
)


def _make_scores(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
    return Inputs((_scores(np.random.default_rng(seed), size, dtype, regime),), {})


def _add_elementwise(
    name: str, formula: str, function: Callable[[Array], Array], units: float, operations: int, reason: str
) -> None:
    _add(
        Entry(
            key=name,
            function=name,
            family="logistic",
            formula=formula,
            dtypes=_FLOATS,
            sizes=_VECTOR_SIZES,
            axes=("n",),
            make=_make_scores,
            regimes=_REGIMES,
            work=math.prod,
            unit="exp",
            bytes=lambda size, dtype: 2 * size[0] * _itemsize(dtype),
            flops=lambda size: operations * size[0],
            limit="memory",
            tolerance=_tolerances(units, reason + _CUT),
            loop_size=(100_000,),
            specialisations=len(_FLOATS),
            truth=_elementwise_truth(function),
        )
    )


def _add_softmax(name: str, formula: str) -> None:
    def size_bytes(size: Size, dtype: str) -> float:
        written = size[0] if name == "logsumexp" else math.prod(size)
        return (math.prod(size) + written) * _itemsize(dtype)

    _add(
        Entry(
            key=name,
            function=name,
            family="multinomial",
            formula=formula,
            dtypes=_FLOATS,
            sizes=_MATRIX_SIZES,
            axes=("n", "c"),
            make=_make_scores,
            regimes=_REGIMES,
            work=math.prod,
            unit="exp",
            bytes=size_bytes,
            flops=lambda size: 5 * math.prod(size),
            limit="memory",
            tolerance=_tolerances(12, _EXPONENTIALS + _CUT),
            loop_size=(1_000, 100),
            specialisations=len(_FLOATS),
            truth=_softmax_truth(name),
        )
    )


# Losses, and the linear models under them.


def _add_loss(name: str, gradient: bool, target: str, variant: str = "") -> None:
    loss = _LOSSES[name]
    units, reason = {
        "binary_cross_entropy": (8, "exponential and log1p 3 eps each, no summand < 0; slopes relative to σ(z) + t"),
        "softmax_cross_entropy": (12, _EXPONENTIALS),
    }.get(name, (4, "two or three roundings of one row"))
    tolerance = _tolerances(units, reason + "; rows are summed in float64, whose own roundings the scale allows for")
    function = name + ("_gradient" if gradient else "")
    matrix = target in ("class", "probabilities")
    exponentials = name.endswith("cross_entropy")
    operations = (6 if exponentials else 4) + 2 * gradient

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        rng = np.random.default_rng(seed)
        z = _scores(rng, size, dtype, regime, loss.largest)
        y = _targets(rng, target, size[0], size[-1], dtype, z)
        return Inputs((z, y), {"sample_weight": _weights(rng, size[0], dtype)} if regime == "weighted" else {})

    def size_bytes(size: Size, dtype: str) -> float:
        scores = math.prod(size) * _itemsize(dtype)
        labels = size[0] * _INDEX if target == "class" else scores
        return scores * (1 + gradient) + labels

    _add(
        Entry(
            key=function + variant,
            function=function,
            family=loss.family,
            formula=f"{loss.formula}; {loss.slope}" if gradient else loss.formula,
            dtypes={dtype: Dtypes("float64", dtype if gradient else "float64") for dtype in _FLOATS},
            sizes=_MATRIX_SIZES if matrix else _VECTOR_SIZES,
            axes=("n", "c") if matrix else ("n",),
            make=make,
            regimes=_LOSS_REGIMES,
            work=math.prod,
            unit="exp" if exponentials else "elem",
            bytes=size_bytes,
            flops=lambda size: operations * math.prod(size),
            limit="memory",
            tolerance=tolerance,
            loop_size=(1_000, 100) if matrix else (100_000,),
            specialisations=len(_FLOATS),
            truth=_loss_truth(name, gradient, _rtol(tolerance)),
        )
    )


def _linear_inputs(
    rng: np.random.Generator, name: str, n: int, d: int, models: Size, dtype: str, regime: str
) -> tuple[Array, Array, Array, Any]:
    """Return X, y, W and b, of one model or of more (`models` is their shape)."""
    matrix = _LOSSES[name].target == "class"
    X = _normal(rng, (n, d), dtype)
    W = _normal(rng, (*models, d), dtype) / math.sqrt(d)
    b = _normal(rng, models, dtype) if models else 0.25
    y = _targets(rng, _LOSSES[name].target, n, models[-1] if matrix else 1, dtype, None)
    if regime == "extreme":
        X[::3] = 0
        X[1::3] *= 100
        W *= 100  # scores of ±1e4
    return X, y, W, b


def _add_linear(name: str) -> None:
    loss = _LOSSES[name]
    matrix = loss.target == "class"
    tolerance = _tolerances(
        16,
        "scores and gradients are sums over blocks of columns or rows, relative to the sums of |x·w| and |slope·x|; "
        "thousands of roundings of either sign leave a few eps of these",
    )

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        rng = np.random.default_rng(seed)
        n, d = size[:2]
        kwargs: dict[str, Any] = {"l2": 0.01}
        arrays = _linear_inputs(rng, name, n, d, size[2:], dtype, regime)
        if regime == "weighted":
            kwargs["sample_weight"] = _weights(rng, n, dtype)
        return Inputs((name, *arrays), kwargs)

    def size_bytes(size: Size, dtype: str) -> float:
        n, d = size[:2]
        model = 2 * (d + 1) * (size[2] if matrix else 1)
        return (n * d + model) * _itemsize(dtype) + n * (_INDEX if matrix else _itemsize(dtype))

    def flops(size: Size) -> float:  # one product for the scores, one for the gradient
        return 4 * math.prod(size)

    _add(
        Entry(
            key=f"linear_loss_gradient[{name}]",
            function="linear_loss_gradient",
            family="linear",
            formula=f"z = X·w + b; {loss.formula} + λ/2·‖w‖²; Xᵀ·∂z + λw, Σ∂z",
            dtypes={dtype: Dtypes("float64", dtype) for dtype in _FLOATS},
            sizes={"tiny": (29, 19, 4), "default": (10_000, 784, 10), "full": (60_000, 784, 10)}
            if matrix
            else {"tiny": (53, 19), "default": (100_000, 90), "full": (463_715, 90)},
            axes=("n", "d", "c") if matrix else ("n", "d"),
            make=make,
            regimes=_LOSS_REGIMES,
            work=flops,
            unit="flop",
            bytes=size_bytes,
            flops=flops,
            limit="gemm" if matrix else "memory",
            tolerance=tolerance,
            loop_size=(50, 784, 10) if matrix else (1_000, 90),
            specialisations=len(_FLOATS),
            truth=_linear_truth(name, _rtol(tolerance)),
        )
    )


def _add_training(name: str) -> None:
    loss = _LOSSES[name]
    matrix = loss.target == "class"
    tolerance = _tolerances(
        16,
        "as for one gradient, relative to the sums of |x·w| and |slope·x|; the scale adds up what the steps before "
        "have left in the weights, and a rounding of them in every step",
    )

    def batch(n: int) -> int:
        return max(1, min(1000, n // 4))

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        rng = np.random.default_rng(seed)
        n, d = size[:2]
        arrays = _linear_inputs(rng, name, n, d, size[2:], dtype, regime)
        batches = -(-n // batch(n))
        # So small that errors of the first steps do not grow much: scores change by |x|², about d, times the step.
        steps = 0.5 / (d * batches) * (1e-4 if regime == "extreme" else 1)
        kwargs: dict[str, Any] = {"batch_size": batch(n), "steps": steps, "l2": 0.01, "l1": 0.001, "momentum": 0.5}
        kwargs["nesterov"] = regime == "weighted"
        if regime == "weighted":
            kwargs["sample_weight"] = _weights(rng, n, dtype)
        return Inputs((name, *arrays, rng.permutation(n)), kwargs)

    def size_bytes(size: Size, dtype: str) -> float:
        n, d = size[:2]
        model = 2 * (d + 1) * (size[2] if matrix else 1)
        rows = n * (d * _itemsize(dtype) + (_INDEX if matrix else _itemsize(dtype)) + _INDEX)
        return rows + model * _itemsize(dtype) + 8 * -(-n // batch(n))

    def flops(size: Size) -> float:  # one product for the scores, one for the gradient
        return 4 * math.prod(size)

    _add(
        Entry(
            key=f"train_linear[{name}]",
            function="train_linear",
            family="training",
            formula=f"z = X·w + b; {loss.formula}; v ← μv − η(Xᵀ·∂z + λw), w ← w + v, batch after batch",
            dtypes={dtype: Dtypes("float64", dtype) for dtype in _FLOATS},
            sizes={"tiny": (29, 19, 4), "default": (10_000, 784, 10), "full": (60_000, 784, 10)}
            if matrix
            else {"tiny": (53, 19), "default": (100_000, 90), "full": (463_715, 90)},
            axes=("n", "d", "c") if matrix else ("n", "d"),
            make=make,
            regimes=_LOSS_REGIMES,
            work=flops,
            unit="flop",
            bytes=size_bytes,
            flops=flops,
            limit="gemm" if matrix else "memory",
            tolerance=tolerance,
            loop_size=(50, 784, 10) if matrix else (1_000, 90),
            specialisations=len(_FLOATS),
            truth=_training_truth(name, _rtol(tolerance)),
        )
    )


def _add_evaluation(name: str) -> None:
    loss = _LOSSES[name]
    matrix = loss.target == "class"
    tolerance = _tolerances(
        16, "scores are sums over blocks of columns, relative to the sum of |x·w|; rows are summed in float64"
    )

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        rng = np.random.default_rng(seed)
        n, m, d = size[:3]
        arrays = _linear_inputs(rng, name, n, d, (m, size[3] if matrix else 1), dtype, regime)
        return Inputs((name, *arrays), {"sample_weight": _weights(rng, n, dtype)} if regime == "weighted" else {})

    def size_bytes(size: Size, dtype: str) -> float:
        n, m, d = size[:3]
        model = m * (d + 1) * (size[3] if matrix else 1)
        return (n * d + model) * _itemsize(dtype) + n * (_INDEX if matrix else _itemsize(dtype)) + 16 * m

    def flops(size: Size) -> float:
        return 2 * math.prod(size)

    _add(
        Entry(
            key=f"linear_evaluation[{name}]",
            function="linear_evaluation",
            family="training",
            formula=f"for M models: z = X·w + b; {loss.formula}; "
            + ("mean (z − y)²" if loss.target == "real" else "share of right predictions"),
            dtypes={dtype: Dtypes("float64", "float64") for dtype in _FLOATS},
            sizes={"tiny": (29, 3, 19, 4), "default": (10_000, 5, 784, 10), "full": (60_000, 5, 784, 10)}
            if matrix
            else {"tiny": (53, 3, 19), "default": (50_000, 24, 90), "full": (463_715, 24, 90)},
            axes=("n", "m", "d", "c") if matrix else ("n", "m", "d"),
            make=make,
            regimes=_LOSS_REGIMES,
            work=flops,
            unit="flop",
            bytes=size_bytes,
            flops=flops,
            limit="gemm",
            tolerance=tolerance,
            loop_size=(10, 2, 784, 10) if matrix else (200, 5, 90),
            specialisations=len(_FLOATS),
            truth=_evaluation_truth(name, _rtol(tolerance)),
        )
    )


_NETWORK_SIZES: dict[str, Size] = {
    "tiny": (29, 19, 9, 4),
    "default": (10_000, 784, 40, 10),
    "full": (60_000, 784, 800, 10),
}
# Three whole batches: deviations of a rest of two rows may nearly cancel, which no useful bound can cover.
_NORMALISED_SIZES = _NETWORK_SIZES | {"tiny": (30, 19, 9, 4)}
_NETWORK_TOLERANCE = _tolerances(
    16,
    "sums over blocks of columns, units or rows, relative to the sums of magnitudes; the scale of a level adds what "
    "the levels before have left",
)


def _network_inputs(
    size: Size, dtype: str, regime: str, seed: int, batch_norm: bool
) -> tuple[np.random.Generator, Array, Array, Size]:
    """Return a generator, X, parameters and units of a network with one hidden layer."""
    rng = np.random.default_rng(seed)
    n, *units = size
    X = _normal(rng, (n, units[0]), dtype)
    parts = []
    for inputs, outputs in pairwise(units):
        parts += [_normal(rng, (outputs, inputs), dtype) / math.sqrt(inputs)]
        parts += [_normal(rng, (outputs,), dtype) / 2]
        if batch_norm and len(parts) == 2:
            parts += [1 + _normal(rng, (outputs,), dtype) / 4, _normal(rng, (outputs,), dtype)]
            parts += [rng.uniform(0.5, 2, outputs).astype(dtype)]
    parameters = np.concatenate([part.ravel() for part in parts]).astype(dtype)
    if regime == "extreme":
        X[::3] = 0
        X[1::3] *= 100
        parameters *= 10
    return rng, X, parameters, tuple(units)


def _network_targets(rng: np.random.Generator, name: str, n: int, outputs: int, dtype: str) -> Array:
    target = _LOSSES[name].target
    if target == "class":
        return _targets(rng, target, n, outputs, dtype, None)
    return _targets(rng, target, n * outputs, 1, dtype, None).reshape(n, outputs)


def _network_products(size: Size) -> float:
    n, d, m, c = size
    return n * m * (d + c)


def _add_network_scores(activation: str, *, batch_norm: bool = False) -> None:
    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        _, X, parameters, units = _network_inputs(size, dtype, regime, seed, batch_norm)
        return Inputs((X, parameters, units), {"activation": activation} | _switch(batch_norm))

    def size_bytes(size: Size, dtype: str) -> float:
        n, d, m, c = size
        return (n * (d + c) + m * (d + 1 + 3 * batch_norm) + c * (m + 1)) * _itemsize(dtype)

    _add(
        Entry(
            key=f"network_scores[{'batch_norm' if batch_norm else activation}]",
            function="network_scores",
            family="network",
            formula=f"a₀ = x; aₖ = {activation}({'norm(Wₖaₖ₋₁)' if batch_norm else 'Wₖaₖ₋₁ + bₖ'}); z = Wa + b",
            dtypes=_FLOATS,
            sizes=_NORMALISED_SIZES if batch_norm else _NETWORK_SIZES,
            axes=("n", "d", "m", "c"),
            make=make,
            regimes=_REGIMES,
            work=lambda size: 2 * _network_products(size),
            unit="flop",
            bytes=size_bytes,
            flops=lambda size: 2 * _network_products(size),
            limit="gemm",
            tolerance=_NETWORK_TOLERANCE,
            loop_size=(20, 784, 40, 10),
            specialisations=len(_FLOATS),
            truth=_network_scores_truth,
        )
    )


def _switch(batch_norm: bool) -> dict[str, Any]:
    return {"batch_norm": True} if batch_norm else {}


def _add_network(name: str, activation: str, *, training: bool, batch_norm: bool = False) -> None:
    loss, rtol = _LOSSES[name], _rtol(_NETWORK_TOLERANCE)

    def batch(n: int) -> int:
        return max(1, min(128, n // 3))

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        rng, X, parameters, units = _network_inputs(size, dtype, regime, seed, batch_norm)
        y = _network_targets(rng, name, size[0], units[-1], dtype)
        kwargs: dict[str, Any] = {"activation": activation, "l2": 0.01} | _switch(batch_norm)
        if regime == "weighted":
            kwargs["sample_weight"] = _weights(rng, size[0], dtype)
        if not training:
            return Inputs((name, X, y, parameters, units), kwargs)
        # So small that errors of the first steps do not grow much.
        steps = 0.1 / (sum(units) * -(-size[0] // batch(size[0]))) * (1e-6 if regime == "extreme" else 1)
        kwargs |= {"batch_size": batch(size[0]), "steps": steps, "momentum": 0.5, "nesterov": regime == "weighted"}
        return Inputs((name, X, y, parameters, units, rng.permutation(size[0])), kwargs)

    def size_bytes(size: Size, dtype: str) -> float:
        n, d, m, c = size
        parameters = 2 * (m * (d + 1 + 3 * batch_norm) + c * (m + 1))
        of_batches = n * _INDEX + 8 * -(-n // batch(n)) if training else 0
        targets = n * (_INDEX if loss.target == "class" else c * _itemsize(dtype))
        return (n * d + parameters) * _itemsize(dtype) + targets + of_batches

    def flops(size: Size) -> float:  # forwards, and backwards twice but for the first layer
        n, d, m, c = size
        return 2 * n * m * (2 * d + 3 * c)

    function = "train_network" if training else "network_loss_gradient"
    _add(
        Entry(
            key=f"{function}[{'batch_norm' if batch_norm else name}]",
            function=function,
            family="network",
            formula=f"a = {activation}({'norm(W₁x)' if batch_norm else 'W₁x + b₁'}), z = W₂a + b₂; {loss.formula}"
            + ("; v ← μv − ηg, p ← p + v, batch by batch" if training else " + λ/2·‖W‖²; gradient by backpropagation"),
            dtypes={dtype: Dtypes("float64", dtype) for dtype in _FLOATS},
            sizes=_NORMALISED_SIZES if batch_norm else _NETWORK_SIZES,
            axes=("n", "d", "m", "c"),
            make=make,
            regimes=_LOSS_REGIMES,
            work=flops,
            unit="flop",
            bytes=size_bytes,
            flops=flops,
            limit="gemm",
            tolerance=_NETWORK_TOLERANCE,
            loop_size=(20, 784, 40, 10),
            specialisations=len(_FLOATS),
            truth=(_network_training_truth if training else _network_gradient_truth)(name, rtol),
        )
    )


# -- images ----------------------------------------------------------------------------------------

_CONVOLUTION_SIZES: dict[str, Size] = {
    "tiny": (3, 5, 6, 7),
    "default": (16, 64, 128, 16),
    "full": (64, 128, 256, 16),
    "wide": (64, 3, 64, 32),
}
_IMAGE_SIZES: dict[str, Size] = {"tiny": (3, 5, 6), "default": (16, 64, 32), "full": (256, 64, 32)}
_IMAGE_TOLERANCE = _tolerances(16, "sums over channels, pixels and images, relative to the sums of magnitudes")


def _pixels(rng: np.random.Generator, shape: Size, dtype: str, regime: str) -> Array:
    """Return images; extreme ones have large pixels, equal ones side by side, and a channel of zeros."""
    X = _normal(rng, shape, dtype)
    if regime == "extreme":
        X *= 100
        np.rint(X, out=X)
        X[:, :, 1::2] = X[:, :, : 2 * (shape[2] // 2) : 2]
        X[:, -1] = 0
    return X


def _add_images(
    function: str,
    formula: str,
    arguments: Callable[[np.random.Generator, Size, str, str], tuple[Array, ...]],
    truth: Callable[[Inputs], Truth],
    results: Callable[[Size], float],
    flops: Callable[[Size], float],
    *,
    sizes: dict[str, Size],
    accumulator: str | None = None,
) -> None:
    """Add an entry; `results` counts the numbers that come in and out."""
    products = len(sizes["tiny"]) == 4

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        kwargs = {"padding": 1} if products else {}
        return Inputs(arguments(np.random.default_rng(seed), size, dtype, regime), kwargs)

    _add(
        Entry(
            key=function,
            function=function,
            family="convolution",
            formula=formula,
            dtypes={dtype: Dtypes(accumulator or dtype, dtype) for dtype in _FLOATS},
            sizes=sizes,
            axes=("n", "c", "o", "h") if products else ("n", "c", "h"),
            make=make,
            regimes=_REGIMES,
            work=flops,
            unit="flop" if products else "elem",
            bytes=lambda size, dtype: results(size) * _itemsize(dtype),
            flops=flops,
            limit="gemm" if products else "memory",
            tolerance=_IMAGE_TOLERANCE,
            loop_size=(1, 8, 8, 16) if products else (1, 8, 32),
            specialisations=len(_FLOATS),
            truth=truth,
        )
    )


def _add_convolutions() -> None:
    def shapes(size: Size) -> tuple[Size, Size, Size]:
        n, c, o, h = size
        return (n, c, h, h + 1), (o, c, 3, 3), (n, o, h, h + 1)

    def forward(rng: np.random.Generator, size: Size, dtype: str, regime: str) -> tuple[Array, ...]:
        of_x, of_w, _ = shapes(size)
        return _pixels(rng, of_x, dtype, regime), _normal(rng, of_w, dtype), _normal(rng, of_w[:1], dtype)

    def backward(rng: np.random.Generator, size: Size, dtype: str, regime: str) -> tuple[Array, ...]:
        of_x, of_w, of_z = shapes(size)
        return _normal(rng, of_z, dtype), _pixels(rng, of_x, dtype, regime), _normal(rng, of_w, dtype)

    def numbers(size: Size) -> float:
        return sum(math.prod(shape) for shape in shapes(size)) + size[2]

    def flops(size: Size) -> float:
        _, of_w, of_z = shapes(size)
        return 2 * math.prod(of_w[1:]) * math.prod(of_z)

    _add_images(
        "conv2d", "z = b + Σ W[c, i, j] x[c, y + i, x + j]", forward, _conv2d_truth, numbers, flops,
        sizes=_CONVOLUTION_SIZES,
    )  # fmt: skip
    _add_images(
        "conv2d_gradient", "gradient of conv2d in X, W, b", backward, _conv2d_gradient_truth,
        lambda size: 2 * numbers(size) - math.prod(shapes(size)[2]) - size[2], lambda size: 2 * flops(size),
        sizes=_CONVOLUTION_SIZES, accumulator="float64",
    )  # fmt: skip


def _add_pools() -> None:
    def shapes(size: Size) -> tuple[Size, Size]:
        n, c, h = size
        return (n, c, 2 * h + 1, 2 * h), (n, c, h, h)

    def forward(rng: np.random.Generator, size: Size, dtype: str, regime: str) -> tuple[Array, ...]:
        return (_pixels(rng, shapes(size)[0], dtype, regime),)

    def backward(rng: np.random.Generator, size: Size, dtype: str, regime: str) -> tuple[Array, ...]:
        of_x, of_z = shapes(size)
        return _normal(rng, of_z, dtype), _pixels(rng, of_x, dtype, regime)

    def entries(size: Size) -> float:
        return math.prod(shapes(size)[0])

    def pooled(size: Size) -> float:
        return math.prod(shapes(size)[1])

    for name, what in (("max", "largest"), ("avg", "mean")):
        average = name == "avg"
        _add_images(
            f"{name}_pool2d", f"z = {what} of 2 × 2 pixels", forward, _pool_truth(average),
            lambda size: entries(size) + pooled(size), entries, sizes=_IMAGE_SIZES,
        )  # fmt: skip
        _add_images(
            f"{name}_pool2d_gradient", f"gradient of {name}_pool2d in X", backward, _pool_gradient_truth(average),
            lambda size: 2 * entries(size) + pooled(size), entries, sizes=_IMAGE_SIZES,
        )  # fmt: skip


def _add_batch_norm() -> None:
    def forward(rng: np.random.Generator, size: Size, dtype: str, regime: str) -> tuple[Array, ...]:
        n, c, h = size
        return _pixels(rng, (n, c, h, h), dtype, regime) + 3, _normal(rng, (c,), dtype), _normal(rng, (c,), dtype)

    def backward(rng: np.random.Generator, size: Size, dtype: str, regime: str) -> tuple[Array, ...]:
        X, gamma, _ = forward(rng, size, dtype, regime)
        return _normal(rng, X.shape, dtype), X, gamma

    def entries(size: Size) -> float:
        n, c, h = size
        return n * c * h * h

    _add_images(
        "batch_norm", "z = γ(x − mean)/√(variance + ε) + β, by channel", forward, _batch_norm_truth,
        lambda size: 2 * entries(size) + 2 * size[1], lambda size: 8 * entries(size), sizes=_IMAGE_SIZES,
        accumulator="float64",
    )  # fmt: skip
    _add_images(
        "batch_norm_gradient", "gradient of batch_norm in X, γ, β", backward, _batch_norm_gradient_truth,
        lambda size: 3 * entries(size) + 3 * size[1], lambda size: 16 * entries(size), sizes=_IMAGE_SIZES,
        accumulator="float64",
    )  # fmt: skip


for _kind in ("l1", "l2", "squared", "linf"):
    _add_pairwise(_kind)
for _kind in ("l1", "l2", "linf"):
    _add_k_nearest(_kind)
_add_elementwise("exp", "eˣ", np.exp, 3, 1, "NumPy's float32 exponential is good to 2.6 units in the last place")
_add_elementwise(
    "sigmoid", "1/(1 + e⁻ᶻ)", _true_sigmoid, 8, 4, "3 eps of each of two exponentials, one addition, one division"
)
_add_elementwise(
    "softplus", "log(1 + eᶻ)", _true_softplus, 8, 4, "3 eps of the exponential, 2 to 4 of log1p, one addition"
)
_add_softmax("softmax", "e^z / Σe^z")
_add_softmax("log_softmax", "z − log Σe^z")
_add_softmax("logsumexp", "log Σe^z")
for _kind, _loss in _LOSSES.items():
    for _gradient in (False, True):
        _add_loss(_kind, _gradient, _loss.target)
        if _kind == "softmax_cross_entropy":
            _add_loss(_kind, _gradient, "probabilities", "[probabilities]")
for _kind in _LOSSES:
    _add_linear(_kind)
for _kind in _LOSSES:
    _add_training(_kind)
    _add_evaluation(_kind)
_add_network_scores("relu")
_add_network_scores("tanh")
_add_network_scores("relu", batch_norm=True)
for _training in (False, True):
    _add_network("softmax_cross_entropy", "relu", training=_training)
    _add_network("binary_cross_entropy", "tanh", training=_training)
    _add_network("squared_error", "logistic", training=_training)
    _add_network("softmax_cross_entropy", "relu", training=_training, batch_norm=True)
_add_convolutions()
_add_pools()
_add_batch_norm()
