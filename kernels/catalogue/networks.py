"""Dense networks: scores, gradients and training; truths and entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .entry import (
    FLOATS,
    INDEX_BYTES,
    LOSS_REGIMES,
    REGIMES,
    Dtypes,
    Entry,
    Inputs,
    Size,
    itemsize,
    rtol_by_dtype,
    tolerances,
)
from .inputs import random_normal, random_targets, random_weights
from .losses import LOSSES, loss_of_rows, true_sigmoid
from .truth import Array, Truth, plain_sum_factor, wide_dtype

_SIZES: dict[str, Size] = {
    "tiny": (29, 19, 9, 4),
    "default": (10_000, 784, 40, 10),
    "full": (60_000, 784, 800, 10),
}
# Three whole batches: deviations of a rest of two rows may nearly cancel, which no useful bound can cover.
_NORMALIZED_SIZES = _SIZES | {"tiny": (30, 19, 9, 4)}
_TOLERANCE = tolerances(
    16,
    "sums over blocks of columns, units or rows, relative to the sums of magnitudes; the scale of a level adds what "
    "the levels before have left",
)

#: What batch normalisation adds to a variance; share of a batch's means and variances in the running ones.
_NORM_EPSILON, _NORM_SHARE = 1e-5, 0.1


def entries() -> Iterator[Entry]:
    """Yield the entries of this family."""
    yield _scores("relu")
    yield _scores("tanh")
    yield _scores("relu", batch_norm=True)
    for training in (False, True):
        yield _gradient("softmax_cross_entropy", "relu", training=training)
        yield _gradient("binary_cross_entropy", "tanh", training=training)
        yield _gradient("squared_error", "logistic", training=training)
        yield _gradient("softmax_cross_entropy", "relu", training=training, batch_norm=True)


def _inputs(
    size: Size, dtype: str, regime: str, seed: int, batch_norm: bool
) -> tuple[np.random.Generator, Array, Array, Size]:
    """Return a generator, X, parameters and units of a network with one hidden layer."""
    rng = np.random.default_rng(seed)
    n, *units = size
    X = random_normal(rng, (n, units[0]), dtype)
    parts = []
    for inputs, outputs in pairwise(units):
        parts += [random_normal(rng, (outputs, inputs), dtype) / math.sqrt(inputs)]
        parts += [random_normal(rng, (outputs,), dtype) / 2]
        if batch_norm and len(parts) == 2:
            parts += [1 + random_normal(rng, (outputs,), dtype) / 4, random_normal(rng, (outputs,), dtype)]
            parts += [rng.uniform(0.5, 2, outputs).astype(dtype)]
    parameters = np.concatenate([part.ravel() for part in parts]).astype(dtype)
    if regime == "extreme":
        X[::3] = 0
        X[1::3] *= 100
        parameters *= 10
    return rng, X, parameters, tuple(units)


def _targets_of(rng: np.random.Generator, name: str, n: int, outputs: int, dtype: str) -> Array:
    target = LOSSES[name].target
    if target == "class":
        return random_targets(rng, target, n, outputs, dtype)
    return random_targets(rng, target, n * outputs, 1, dtype).reshape(n, outputs)


def _products(size: Size) -> float:
    n, d, m, c = size
    return n * m * (d + c)


def _scores(activation: str, *, batch_norm: bool = False) -> Entry:
    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        _, X, parameters, units = _inputs(size, dtype, regime, seed, batch_norm)
        return Inputs((X, parameters, units), {"activation": activation} | _switch(batch_norm))

    def size_bytes(size: Size, dtype: str) -> float:
        n, d, m, c = size
        return (n * (d + c) + m * (d + 1 + 3 * batch_norm) + c * (m + 1)) * itemsize(dtype)

    return Entry(
        key=f"network_scores[{'batch_norm' if batch_norm else activation}]",
        function="network_scores",
        family="network",
        formula=f"a₀ = x; aₖ = {activation}({'norm(Wₖaₖ₋₁)' if batch_norm else 'Wₖaₖ₋₁ + bₖ'}); z = Wa + b",
        dtypes=FLOATS,
        sizes=_NORMALIZED_SIZES if batch_norm else _SIZES,
        axes=("n", "d", "m", "c"),
        make=make,
        regimes=REGIMES,
        work=lambda size: 2 * _products(size),
        unit="flop",
        bytes=size_bytes,
        flops=lambda size: 2 * _products(size),
        limit="gemm",
        tolerance=_TOLERANCE,
        loop_size=(20, 784, 40, 10),
        specializations=len(FLOATS),
        truth=_scores_truth,
    )


def _switch(batch_norm: bool) -> dict[str, Any]:
    return {"batch_norm": True} if batch_norm else {}


def _gradient(name: str, activation: str, *, training: bool, batch_norm: bool = False) -> Entry:
    loss, rtol = LOSSES[name], rtol_by_dtype(_TOLERANCE)

    def batch(n: int) -> int:
        return max(1, min(128, n // 3))

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        rng, X, parameters, units = _inputs(size, dtype, regime, seed, batch_norm)
        y = _targets_of(rng, name, size[0], units[-1], dtype)
        kwargs: dict[str, Any] = {"activation": activation, "l2": 0.01} | _switch(batch_norm)
        if regime == "weighted":
            kwargs["sample_weight"] = random_weights(rng, size[0], dtype)
        if not training:
            return Inputs((name, X, y, parameters, units), kwargs)
        # So small that errors of the first steps do not grow much.
        steps = 0.1 / (sum(units) * -(-size[0] // batch(size[0]))) * (1e-6 if regime == "extreme" else 1)
        kwargs |= {"batch_size": batch(size[0]), "steps": steps, "momentum": 0.5, "nesterov": regime == "weighted"}
        return Inputs((name, X, y, parameters, units, rng.permutation(size[0])), kwargs)

    def size_bytes(size: Size, dtype: str) -> float:
        n, d, m, c = size
        parameters = 2 * (m * (d + 1 + 3 * batch_norm) + c * (m + 1))
        of_batches = n * INDEX_BYTES + 8 * -(-n // batch(n)) if training else 0
        targets = n * (INDEX_BYTES if loss.target == "class" else c * itemsize(dtype))
        return (n * d + parameters) * itemsize(dtype) + targets + of_batches

    def flops(size: Size) -> float:  # forwards, and backwards twice but for the first layer
        n, d, m, c = size
        return 2 * n * m * (2 * d + 3 * c)

    function = "train_network" if training else "network_loss_gradient"
    return Entry(
        key=f"{function}[{'batch_norm' if batch_norm else name}]",
        function=function,
        family="network",
        formula=f"a = {activation}({'norm(W₁x)' if batch_norm else 'W₁x + b₁'}), z = W₂a + b₂; {loss.formula}"
        + ("; v ← μv − ηg, p ← p + v, batch by batch" if training else " + λ/2·‖W‖²; gradient by backpropagation"),
        dtypes={dtype: Dtypes("float64", dtype) for dtype in FLOATS},
        sizes=_NORMALIZED_SIZES if batch_norm else _SIZES,
        axes=("n", "d", "m", "c"),
        make=make,
        regimes=LOSS_REGIMES,
        work=flops,
        unit="flop",
        bytes=size_bytes,
        flops=flops,
        limit="gemm",
        tolerance=_TOLERANCE,
        loop_size=(20, 784, 40, 10),
        specializations=len(FLOATS),
        truth=(_training_truth if training else _gradient_truth)(name, rtol),
    )


# -- truth -----------------------------------------------------------------------------------------


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
    "logistic": (true_sigmoid, lambda z: true_sigmoid(z) * true_sigmoid(-z), 0.1, 0),
}


class _Normal(NamedTuple):
    """Normalised values x of a layer and how far they may be off, inverse deviations likewise, scales likewise."""

    x: Array
    reach: Array
    inverse: Array
    inverse_reach: Array
    scale: Array
    scale_off: Array


def _normalization(z: Array, z_reach: Array, norm: Any, off: Any, over_batch: bool) -> tuple[_Normal, list[Array]]:
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


def _levels(
    x: Array, layers: Any, off: Any, activation: str, norms: Any = None, batch: list[Any] | None = None
) -> tuple[list[_Level], list[Array]]:
    """Return values of all levels and the inputs of the activations; parameters may be off by `off` units.

    With `norms`, a pair of norms and how far they are off, hidden layers are normalised: by running statistics, or with
    `batch`, a list, by those of the rows, and it gets what `_normalization` returns.
    """
    function = _ACTIVATIONS[activation][0]
    levels, raw = [_Level(x, np.zeros_like(x), np.full(x.shape, np.inf))], []
    for place, ((W, b), (W_off, b_off)) in enumerate(zip(layers, off, strict=True)):
        values, reach, _ = levels[-1]
        z = values @ W.T
        z_reach = (np.abs(values) + reach) @ np.abs(W).T + np.abs(values) @ W_off.T
        if norms is not None and place < len(layers) - 1:
            normal, statistics = _normalization(z, z_reach, norms[0][place], norms[1][place], batch is not None)
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


def _batch_norm_backward(normal: _Normal, grads: Array, scale: Array, slack: Array) -> tuple[list[Array], list[Array]]:
    """Return the gradient in what was normalised, with scale and slack; and the gradient in scales, with both."""
    x, reach, inverse, inverse_reach, gamma, gamma_off = normal
    size, factor, n = np.abs(x), np.abs(gamma) * inverse, len(x)
    product = (grads * x).sum(axis=0)
    product_scale = (scale * size + np.abs(grads) * reach).sum(axis=0)
    product_slack = (slack * size).sum(axis=0)
    inner = grads - grads.mean(axis=0) - x * product / n
    terms = np.abs(grads) + np.abs(grads).mean(axis=0) + size * (np.abs(grads) * size).sum(axis=0) / n
    inner_scale = terms + scale + scale.mean(axis=0) + size * product_scale / n + reach * np.abs(product) / n
    inner_slack = slack + slack.mean(axis=0) + size * product_slack / n
    factor_reach = gamma_off * inverse + np.abs(gamma) * inverse_reach
    of_values = [gamma * inverse * inner, factor * inner_scale + factor_reach * np.abs(inner), factor * inner_slack]
    return of_values, [product, product_scale, product_slack]


def _pass(
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
    loss = LOSSES[name]
    _, derivative, curvature, jump = _ACTIVATIONS[activation]
    batch = [] if batch is None else batch
    levels, raw = _levels(x, layers, off, activation, norms, batch)
    scores, reach, _ = levels[-1]
    if loss.target == "class":
        rows = loss_of_rows(name, scores, y, dtype)
        grads, grad_scale, losses, loss_scale = rows.grads, rows.grad_scale, rows.losses, rows.loss_scale
    else:
        parts = [loss_of_rows(name, z, t, dtype) for z, t in zip(scores.T, y.T, strict=True)]
        grads, grad_scale = (np.stack([getattr(p, f) for p in parts], 1) for f in ("grads", "grad_scale"))
        losses, loss_scale = (sum(getattr(p, f) for p in parts) for f in ("losses", "loss_scale"))
    steepest = np.abs(grads).sum(axis=1)
    widest = reach.max(axis=1)
    value = shares @ losses
    value_scale = shares @ (loss_scale + widest * (steepest + loss.curvature * rtol * widest))
    column = shares[:, None]
    grads, grad_scale = column * grads, column * (grad_scale + loss.curvature * reach.max(axis=1, keepdims=True))
    slack = np.zeros_like(grads)
    gradient: list[Array] = []
    scales: list[Array] = []
    slacks: list[Array] = []
    for place in range(len(layers) - 1, -1, -1):
        values, value_reach, kink = levels[place]
        W, W_off = layers[place][0], off[place][0]
        sizes = np.abs(values)
        sums = [[grads.sum(axis=0)], [grad_scale.sum(axis=0)], [slack.sum(axis=0)]]
        if norms is not None and place < len(layers) - 1:
            (grads, grad_scale, slack), of_norm = _batch_norm_backward(batch[place][0], grads, grad_scale, slack)
            for vectors, part in zip(sums, of_norm, strict=True):
                vectors += [part, *np.zeros((2, len(part)), part.dtype)]
        gradient[:0] = [grads.T @ values, *sums[0]]
        scales[:0] = [grad_scale.T @ sizes + np.abs(grads).T @ value_reach, *sums[1]]
        slacks[:0] = [slack.T @ sizes, *sums[2]]
        if place == 0:
            break
        here = derivative(raw[place - 1])
        below = grads @ W
        reach_below = grad_scale @ np.abs(W) + np.abs(grads) @ (np.abs(W) + W_off)
        near = jump * (kink <= 2 * rtol * value_reach)
        slack = (slack @ np.abs(W)) * np.maximum(np.abs(here), near) + near * np.abs(below)
        # A derivative that is made from the value, 1 − a², has the rounding of a number near 1.
        grad_scale = reach_below * np.abs(here) + np.abs(below) * (np.abs(here) + curvature * (value_reach + 1))
        grads = below * here
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


def _scores_truth(inputs: Inputs) -> Truth:
    X, parameters, units = inputs.args
    wide = wide_dtype(X.dtype, 4 * len(X) * len(parameters))
    batch_norm, none = inputs.kwargs.get("batch_norm", False), np.zeros_like(parameters)
    layers, off = (_wide_layers(p, units, wide, batch_norm) for p in (parameters, none))
    norms = _wide_norms(parameters, none, units, wide, batch_norm)
    levels, _ = _levels(X.astype(wide), layers, off, inputs.kwargs["activation"], norms)
    return Truth((levels[-1].values,), (X.dtype,), (levels[-1].reach,))


def _row_shares(weights: Array | None, n: int, wide: Any) -> Array:
    """Return the weights of rows, scaled to a mean of 1."""
    w = np.ones(n, wide) if weights is None else weights.astype(wide)
    return np.asarray(w * (n / w.sum()))


def _gradient_truth(name: str, rtol: dict[str, float]) -> Callable[[Inputs], Truth]:
    def truth(inputs: Inputs) -> Truth:
        _, X, y, parameters, units = inputs.args
        dtype = X.dtype
        wide = wide_dtype(dtype, 4 * len(X) * len(parameters))
        batch_norm, none = inputs.kwargs.get("batch_norm", False), np.zeros_like(parameters)
        layers, off = (_wide_layers(p, units, wide, batch_norm) for p in (parameters, none))
        norms = _wide_norms(parameters, none, units, wide, batch_norm)
        shares = _row_shares(inputs.kwargs.get("sample_weight"), len(X), wide) / len(X)
        l2, activation = wide(dtype.type(inputs.kwargs["l2"])), inputs.kwargs["activation"]
        (value, value_scale), gradient, scales, slacks = _pass(
            name, X.astype(wide), y, layers, off, activation, shares, rtol[dtype.name], dtype, norms
        )
        of_weights = [place for place, part in enumerate(gradient) if part.ndim == 2]
        for place, (W, _) in zip(of_weights, layers, strict=True):
            value += l2 / 2 * np.square(W).sum()
            value_scale += l2 / 2 * np.square(W).sum()
            gradient[place] = gradient[place] + l2 * W
            scales[place] = scales[place] + l2 * np.abs(W)
        more = plain_sum_factor(len(X), dtype, rtol)
        return Truth(
            (value, _joined(gradient)),
            (None, dtype),
            (value_scale * more, _joined(scales) * more),
            (0.0, _joined(slacks)),
        )

    return truth


def _training_truth(name: str, rtol: dict[str, float]) -> Callable[[Inputs], Truth]:
    def truth(inputs: Inputs) -> Truth:
        _, X, y, parameters, units, order = inputs.args
        settings, dtype = inputs.kwargs, X.dtype
        wide = wide_dtype(dtype, 4 * len(X) * len(parameters))
        step, l2, momentum = (wide(dtype.type(settings[key])) for key in ("steps", "l2", "momentum"))
        w = _row_shares(settings.get("sample_weight"), len(X), wide)
        # Row 0 of each is the model, row 1 how far a tier's may be off in units of rtol, row 2 what kinks may add.
        model = np.zeros((3, len(parameters)), wide)
        model[0] = parameters
        velocity = np.zeros_like(model)
        batch_norm = settings.get("batch_norm", False)
        parts = [part for layer in _wide_parts(model[0], units, wide, batch_norm) for part in layer]
        penalized = l2 * _joined([np.full_like(part, part.ndim == 2) for part in parts])
        losses = []
        for at in range(0, len(order), settings["batch_size"]):
            rows = order[at : at + settings["batch_size"]]
            batch: list[Any] = []
            all_off = model[1] + model[2] / rtol[dtype.name]
            layers, off = (_wide_layers(p, units, wide, batch_norm) for p in (model[0], all_off))
            value, *found = _pass(
                name, X[rows].astype(wide), y[rows], layers, off, settings["activation"], w[rows] / len(rows),
                rtol[dtype.name], dtype, _wide_norms(model[0], all_off, units, wide, batch_norm), batch,
            )  # fmt: skip
            losses.append(value)
            gradient = np.stack([_joined(part) for part in found])
            gradient[1] *= plain_sum_factor(len(rows), dtype, rtol)
            gradient += penalized * np.stack((model[0], np.abs(model[0]) + model[1], model[2]))
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
