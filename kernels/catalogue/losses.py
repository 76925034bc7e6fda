"""Elementwise functions, the softmax family and the losses: truths and entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..losses.table import DELTA, Loss
from ..losses.table import LOSSES as TABLE
from .entry import (
    EPS,
    FLOATS,
    INDEX_BYTES,
    LOSS_REGIMES,
    MATRIX_SIZES,
    REGIMES,
    VECTOR_SIZES,
    Dtypes,
    Entry,
    Inputs,
    Size,
    itemsize,
    rtol_by_dtype,
    tolerances,
)
from .inputs import random_scores, random_targets, random_weights
from .truth import Array, Truth, plain_sum_factor, wide_dtype

_CUT = "; below the normal numbers a result may be cut to zero"
_EXPONENTIALS = (
    "3 eps of each exponential, half an eps of the rounded exponent times its size, C/32 eps of the sum, one division"
)


def entries() -> Iterator[Entry]:
    """Yield the entries of this family."""
    yield _elementwise("exp", "eˣ", np.exp, 3, 1, "NumPy's float32 exponential is good to 2.6 units in the last place")
    yield _elementwise(
        "sigmoid", "1/(1 + e⁻ᶻ)", true_sigmoid, 8, 4, "3 eps of each of two exponentials, one addition, one division"
    )
    yield _elementwise(
        "softplus", "log(1 + eᶻ)", _true_softplus, 8, 4, "3 eps of the exponential, 2 to 4 of log1p, one addition"
    )
    yield _softmax("softmax", "e^z / Σe^z")
    yield _softmax("log_softmax", "z − log Σe^z")
    yield _softmax("logsumexp", "log Σe^z")
    for name, loss in LOSSES.items():
        for gradient in (False, True):
            yield _mean_loss(name, gradient, loss.target)
            if name == "softmax_cross_entropy":
                yield _mean_loss(name, gradient, "probabilities", "[probabilities]")


def _make_scores(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
    return Inputs((random_scores(np.random.default_rng(seed), size, dtype, regime),), {})


def _elementwise(
    name: str, formula: str, function: Callable[[Array], Array], units: float, operations: int, reason: str
) -> Entry:
    return Entry(
        key=name,
        function=name,
        family="logistic",
        formula=formula,
        dtypes=FLOATS,
        sizes=VECTOR_SIZES,
        axes=("n",),
        make=_make_scores,
        regimes=REGIMES,
        work=math.prod,
        unit="exp",
        bytes=lambda size, dtype: 2 * size[0] * itemsize(dtype),
        flops=lambda size: operations * size[0],
        limit="memory",
        tolerance=tolerances(units, reason + _CUT),
        loop_size=(100_000,),
        specializations=len(FLOATS),
        truth=_elementwise_truth(function),
    )


def _softmax(name: str, formula: str) -> Entry:
    def size_bytes(size: Size, dtype: str) -> float:
        written = size[0] if name == "logsumexp" else math.prod(size)
        return (math.prod(size) + written) * itemsize(dtype)

    return Entry(
        key=name,
        function=name,
        family="multinomial",
        formula=formula,
        dtypes=FLOATS,
        sizes=MATRIX_SIZES,
        axes=("n", "c"),
        make=_make_scores,
        regimes=REGIMES,
        work=math.prod,
        unit="exp",
        bytes=size_bytes,
        flops=lambda size: 5 * math.prod(size),
        limit="memory",
        tolerance=tolerances(12, _EXPONENTIALS + _CUT),
        loop_size=(1_000, 100),
        specializations=len(FLOATS),
        truth=_softmax_truth(name),
    )


def _mean_loss(name: str, gradient: bool, target: str, variant: str = "") -> Entry:
    loss = LOSSES[name]
    units, reason = {
        "binary_cross_entropy": (8, "exponential and log1p 3 eps each, no summand < 0; slopes relative to σ(z) + t"),
        "softmax_cross_entropy": (12, _EXPONENTIALS),
        "poisson": (6, "exponential 3 eps, one product, one difference, relative to their sizes"),
    }.get(name, (4, "two or three roundings of one row"))
    tolerance = tolerances(units, reason + "; rows are summed in float64, whose own roundings the scale allows for")
    function = name + ("_gradient" if gradient else "")
    matrix = target in ("class", "probabilities")
    cross_entropy = name.endswith("cross_entropy")
    exponentials = cross_entropy or name == "poisson"
    operations = (6 if exponentials else 4) + 2 * gradient
    # What has kernels of its own; these serve loss and gradient.
    others = ("unreduced", *(("options", "unreduced options") if cross_entropy else ())) if gradient else ()

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        rng = np.random.default_rng(seed)
        z = random_scores(rng, size, dtype, regime, loss.largest)
        y = random_targets(rng, target, size[0], size[-1], dtype, z)
        if regime in REGIMES:
            return Inputs((z, y), {})
        kwargs: dict[str, Any] = {"sample_weight": random_weights(rng, size[0], dtype)}
        if regime.startswith("unreduced"):
            kwargs["reduction"] = "none"
        if regime != "weighted":
            kwargs["sample_weight"] += np.dtype(dtype).type(len(regime))  # no two regimes have the same arrays
        if regime.endswith("options"):
            kwargs |= _options(rng, target, size, dtype)
            if "ignore_index" in kwargs:
                y[1::3] = kwargs["ignore_index"]
        return Inputs((z, y), kwargs)

    def size_bytes(size: Size, dtype: str) -> float:
        scores = math.prod(size) * itemsize(dtype)
        labels = size[0] * INDEX_BYTES if target == "class" else scores
        return scores * (1 + gradient) + labels

    return Entry(
        key=function + variant,
        function=function,
        family=loss.known.family,
        formula=f"{loss.formula}; {loss.gradient}" if gradient else loss.formula,
        dtypes={dtype: Dtypes("float64", dtype if gradient else "float64") for dtype in FLOATS},
        sizes=MATRIX_SIZES if matrix else VECTOR_SIZES,
        axes=("n", "c") if matrix else ("n",),
        make=make,
        regimes=(*LOSS_REGIMES, *others),
        work=math.prod,
        unit="exp" if exponentials else "elem",
        bytes=size_bytes,
        flops=lambda size: operations * math.prod(size),
        limit="memory",
        tolerance=tolerance,
        loop_size=(1_000, 100) if matrix else (100_000,),
        specializations=len(FLOATS),
        truth=_loss_truth(name, gradient, rtol_by_dtype(tolerance)),
        warm_sizes=dict.fromkeys(others, (MATRIX_SIZES["tiny"] if matrix else VECTOR_SIZES["tiny"],)),
    )


def _options(rng: np.random.Generator, target: str, size: Size, dtype: str) -> dict[str, Any]:
    """Draw what a cross-entropy takes besides weights of rows."""
    if target == "probability":
        return {"pos_weight": 2.5, "label_smoothing": 0.1}
    class_weight = (0.5 + random_weights(rng, size[1], dtype)).astype(dtype)
    ignored = {"ignore_index": -100} if target == "class" else {}
    return {"class_weight": class_weight, "label_smoothing": 0.1, **ignored}


# -- truth -----------------------------------------------------------------------------------------


def true_sigmoid(z: Array) -> Array:
    """Return 1 / (1 + e^−z), by an exponential that cannot overflow."""
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
        wide = Z.astype(wide_dtype(Z.dtype, 4 * Z.size))
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


# -- losses, row by row ----------------------------------------------------------------------------


class _Rows(NamedTuple):
    """What each row adds to a loss, in wide arithmetic."""

    losses: Array  # (n,)
    grads: Array  # (n,) or (n, C): derivative with respect to the scores
    loss_scale: Array  # (n,): rounding of a loss is relative to this
    grad_scale: Array  # as grads
    kink: Array | None = None  # (n,): how far the scores are from where the gradient jumps
    share: Any = 1.0  # what a row counts in a mean, besides its weight
    curvature: Array | None = None  # (n,): the second derivative, where there is no bound of it


def _rows_binary_cross_entropy(z: Array, t: Array, pos_weight: float = 1.0, label_smoothing: float = 0.0) -> _Rows:
    t = (1 - label_smoothing) * t + label_smoothing / 2
    losses = pos_weight * t * np.logaddexp(0, -z) + (1 - t) * np.logaddexp(0, z)
    p = true_sigmoid(z)
    scale = losses + (1 + pos_weight) * np.abs(z) if label_smoothing > 0 else losses  # a smoothed target is rounded
    return _Rows(losses, (1 - t) * p - pos_weight * t * true_sigmoid(-z), scale, p + pos_weight * t)


def _rows_hinge(z: Array, y: Array) -> _Rows:
    margin = 1 - y * z
    grads = np.where(margin > 0, -y, 0)
    return _Rows(np.maximum(margin, 0), grads, np.abs(grads) * (1 + np.abs(z)), np.abs(grads), np.abs(margin))


def _rows_squared_hinge(z: Array, y: Array) -> _Rows:
    margin = np.maximum(1 - y * z, 0)
    grads = -2 * y * margin
    return _Rows(margin**2, grads, margin**2, np.abs(grads))


def _rows_squared_error(z: Array, y: Array) -> _Rows:
    r = z - y
    return _Rows(r**2 / 2, r, r**2 / 2, np.abs(r))


def _rows_absolute_error(z: Array, y: Array) -> _Rows:
    r = z - y
    return _Rows(np.abs(r), np.sign(r), np.abs(r), np.abs(np.sign(r)), np.abs(r))


def _rows_huber(z: Array, y: Array, delta: Any) -> _Rows:
    r = z - y
    losses = np.where(np.abs(r) <= delta, r**2 / 2, delta * (np.abs(r) - delta / 2))
    grads = np.clip(r, -delta, delta)
    return _Rows(losses, grads, losses, np.abs(grads))


def _rows_poisson(z: Array, y: Array) -> _Rows:
    e, linear = np.exp(z), np.where(y > 0, y * z, 0)
    return _Rows(e - linear, e - y, e + np.abs(linear), e + y, curvature=e)


def _rows_softmax_cross_entropy(
    Z: Array,
    y: Array,
    class_weight: Array | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> _Rows:
    shifted, p, log_total = _softmax_parts(Z)
    T, share = y, np.ones(len(Z), Z.dtype)
    if y.ndim == 1:
        T = np.zeros(Z.shape, np.int8)
        T[np.arange(len(Z)), np.maximum(y, 0)] = 1
        share[y == ignore_index] = 0
    if class_weight is not None:
        share *= class_weight[np.maximum(y, 0)] if y.ndim == 1 else 1
        spread = Z.dtype.type(label_smoothing)
        T = class_weight.astype(Z.dtype) * ((1 - spread) * T + spread / Z.shape[1]) * (share > 0)[:, None]
    losses = (T * (log_total - shifted)).sum(axis=1)
    mass = T.sum(axis=1, keepdims=True)
    scale = mass * p * _exponential_scale(shifted) + T
    return _Rows(losses, mass * p - T, mass[:, 0] + losses, scale, None, share)


def _rows_multiclass_hinge(Z: Array, y: Array) -> _Rows:
    rows = np.arange(len(Z))
    others = Z.copy()
    others[rows, y] = -np.inf
    rival = others.argmax(axis=1)
    gap = others[rows, rival] - Z[rows, y]
    margin = gap + 1
    violated = margin > 0
    grads = np.zeros_like(Z)
    grads[rows, rival] += violated
    grads[rows, y] -= violated
    scale = np.where(violated, 1 + np.abs(gap), 0)
    # The gradient also jumps where the second-best of the other classes draws level.
    others[rows, rival] = -np.inf
    lead = np.where(violated, Z[rows, rival] - others.max(axis=1), np.inf)
    return _Rows(np.maximum(margin, 0), grads, scale, np.abs(grads), np.minimum(np.abs(margin), lead))


class _Loss(NamedTuple):
    """A loss of the table, with its rows.

    `largest` of the extreme scores: float32 squares overflow beyond 1.8e19, exponentials beyond 88.
    """

    known: Loss
    rows: Callable[..., _Rows]
    formula: str
    gradient: str
    largest: float = math.inf

    @property
    def target(self) -> str:
        return "class" if self.known.over_classes else self.known.target

    @property
    def curvature(self) -> float:
        return self.known.curvature

    @property
    def jump(self) -> float:
        return self.known.jump


LOSSES = {
    "binary_cross_entropy": _Loss(
        TABLE["binary_cross_entropy"],
        _rows_binary_cross_entropy,
        "mean −t·log σ(z) − (1−t)·log(1−σ(z))",
        "(σ(z) − t)/n",
    ),
    "softmax_cross_entropy": _Loss(
        TABLE["softmax_cross_entropy"],
        _rows_softmax_cross_entropy,
        "mean −log softmax(Z)[y]",
        "(softmax(Z) − 1[c=y])/n",
    ),
    "hinge": _Loss(TABLE["hinge"], _rows_hinge, "mean max(0, 1 − y·z)", "−y·1[y·z < 1]/n"),
    "squared_hinge": _Loss(
        TABLE["squared_hinge"], _rows_squared_hinge, "mean max(0, 1 − y·z)²", "−2y·max(0, 1 − y·z)/n", 1e15
    ),
    "multiclass_hinge": _Loss(
        TABLE["multiclass_hinge"],
        _rows_multiclass_hinge,
        "mean max_j(z_j − z_y + 1[j≠y])",
        "(1[c=j*] − 1[c=y])/n",
    ),
    "squared_error": _Loss(TABLE["squared_error"], _rows_squared_error, "mean (z − y)²/2", "(z − y)/n", 1e15),
    "absolute_error": _Loss(TABLE["absolute_error"], _rows_absolute_error, "mean |z − y|", "sign(z − y)/n"),
    "huber": _Loss(TABLE["huber"], _rows_huber, "mean r²/2, or δ(|r| − δ/2) where |r| > δ", "clip(z − y, −δ, δ)/n"),
    "poisson": _Loss(TABLE["poisson"], _rows_poisson, "mean e^z − y·z", "(e^z − y)/n", 80),
}
assert LOSSES.keys() == TABLE.keys()


def loss_of_rows(name: str, z: Array, y: Array, dtype: np.dtype[Any], **options: Any) -> _Rows:
    """Return what each row adds to the loss `name` of scores `z`, for kernels that see `dtype`."""
    wide = y if y.dtype.kind == "i" else y.astype(z.dtype)
    extra = (z.dtype.type(dtype.type(DELTA)),) if TABLE[name].has_delta else ()
    with np.errstate(all="ignore"):
        return LOSSES[name].rows(z, wide, *extra, **options)


def _loss_truth(name: str, gradient: bool, rtol: dict[str, float]) -> Callable[[Inputs], Truth]:
    def truth(inputs: Inputs) -> Truth:
        z, y = inputs.args
        options = dict(inputs.kwargs)
        weights, reduction = options.pop("sample_weight", None), options.pop("reduction", "mean")
        rows = loss_of_rows(name, z.astype(wide_dtype(z.dtype, 4 * z.size)), y, z.dtype, **options)
        w = np.ones(len(z), rows.losses.dtype) if weights is None else weights.astype(rows.losses.dtype)
        if reduction == "mean":
            w = w / (w * rows.share).sum()
        if reduction == "none":
            dtype, loss, scale = z.dtype, w * rows.losses, w * rows.loss_scale
        else:
            dtype, loss = None, w @ rows.losses
            scale = (w @ rows.loss_scale) * plain_sum_factor(len(z), z.dtype, rtol)
        if not gradient:
            return Truth((loss,), (dtype,), (scale,))
        column = w if z.ndim == 1 else w[:, None]
        slack = np.zeros_like(rows.grads)
        if name == "multiclass_hinge" and rows.kink is not None:
            # z_j − z_y + 1 is rounded twice: within that of the kink, either side is right.
            near = rows.kink <= 2 * EPS[z.dtype.name] * (rows.loss_scale + 2)
            slack[near] = (column * np.ones_like(slack))[near]
        return Truth((loss, column * rows.grads), (dtype, z.dtype), (scale, column * rows.grad_scale), (0.0, slack))

    return truth
