"""What networks ask of their arguments."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from numpy.typing import ArrayLike

from ..arguments.arrays import Array, as_contiguous, floating, real
from ..arguments.scalars import checked_l2, checked_momentum, checked_steps, count, flag, row_numbers
from ..arguments.targets import checked_classes, checked_outputs, refuse_empty, weights
from ..losses.table import LOSSES, NETWORK_LOSSES

#: What batch normalisation adds to a variance; share of a batch's means and variances in the running ones.
NORM_EPSILON, NORM_SHARE = 1e-5, 0.1


class Activation(NamedTuple):
    """An activation function in words that Python understands: what hidden layers do to their values."""

    formula: str  # of z
    derivative: str  # of a, the function's value: all that the way back knows


#: Activation functions; their places are their numbers in the kernels. `activations` has them compiled.
ACTIVATIONS = {
    "identity": Activation("z", "1"),
    "relu": Activation("max(z, 0)", "a > 0"),
    "logistic": Activation("1 / (1 + exp(-z))", "a * (1 - a)"),
    "tanh": Activation("tanh(z)", "1 - a * a"),
}


class NetworkArguments(NamedTuple):
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
) -> NetworkArguments:
    """Settle the arguments of `network_loss_gradient`; ``X`` alone decides the dtype."""
    if not isinstance(loss, str) or loss not in NETWORK_LOSSES:
        error = ValueError if isinstance(loss, str) else TypeError
        raise error(f"loss is {loss!r}; it must be one of {', '.join(map(repr, NETWORK_LOSSES))}")
    X, layers, norms = network_model(X, parameters, units, activation, batch_norm)
    n, dtype, outputs = len(X), X.dtype, len(layers[-1][1])
    refuse_empty(n, "X has 0 rows")
    if LOSSES[loss].over_classes:
        y = checked_classes(y, n, "X has {} rows", outputs, dtype, True)
    else:
        y = checked_outputs(y, LOSSES[loss].target, n, outputs, dtype)
    weight, total = weights(sample_weight, n, dtype)
    if weight is not None:
        weight = as_contiguous(weight * (n / total), dtype)
    return NetworkArguments(X, y, layers, checked_l2(l2, dtype), weight, norms)


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
    flat, normalized = real(parameters, "parameters"), flag(batch_norm, "batch_norm")
    wanted = sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes)) + 3 * normalized * sum(sizes[1:-1])
    if flat.shape != (wanted,):
        more = " with batch_norm" if normalized else ""
        raise ValueError(f"parameters has shape {flat.shape}; units {tuple(sizes)}{more} need ({wanted},)")
    flat = as_contiguous(flat, X.dtype)
    norms = normalizations(flat, sizes) if normalized else None
    for place, (_, _, variances) in enumerate(norms or []):
        if (variances < 0).any():
            unit = int((variances < 0).argmax())
            raise ValueError(f"a running variance in parameters (layer {place + 1}, unit {unit}) is {variances[unit]}")
    return X, layers(flat, sizes, normalized), norms


def layers(parameters: Array, units: Sequence[int], batch_norm: bool = False) -> list[tuple[Array, Array]]:
    """Return views of the weights (units, inputs) and intercepts (units,) of each layer."""
    return [(weights, intercepts) for weights, intercepts, *_ in parts(parameters, units, batch_norm)]


def normalizations(parameters: Array, units: Sequence[int]) -> list[Norm]:
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


class TrainingArguments(NamedTuple):
    """The settled arguments of `train_network`; all floating arrays and scalars share one dtype."""

    network: NetworkArguments
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
) -> TrainingArguments:
    """Settle the arguments of `train_network`."""
    settled = network(loss, X, y, parameters, units, activation, l2, sample_weight, batch_norm)
    dtype = settled.X.dtype
    rows = row_numbers(order, "order", len(settled.X))
    size = count(batch_size, "batch_size")
    batches = -(-len(rows) // size)
    sizes = checked_steps(steps, batches, f"order has {len(rows)} rows, {batches} batches of {size}", dtype)
    return TrainingArguments(settled, rows, size, sizes, checked_momentum(momentum, dtype), flag(nesterov, "nesterov"))
