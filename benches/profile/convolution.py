"""Where the time of a convolutional network's batch goes, layer by layer.

One thread trains the network of ``examples/w21_convolutional.py`` as always, and each piece of work is timed where it
stands, so that values come from the caches that they come from in training. Convolutions and linear layers are held
against NumPy's product of matrices of the same size; for a convolution that is one of all its windows, which NumPy gets
for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fastml.kernels.convolution.buffers import Buffers, Images
from fastml.kernels.convolution.layers import Layer
from fastml.kernels.convolution.network import Network, Plan
from fastml.kernels.convolution.tasks import Task
from fastml.kernels.convolution.training import ConvNetTraining
from fastml.layers import BatchNorm, Conv2D, Dropout, Linear, MaxPool2D, ReLU, chain

from ..measuring.timing import blas_limit, quiet_gc

__all__ = ["BATCH", "DIRECTIONS", "HIDDEN", "WIDTHS", "LayerTimes", "hidden_layers", "measure", "table"]

_Tasks = Callable[[Buffers, int], Iterator[Task]]

WIDTHS, HIDDEN, CLASSES, SHAPE, BATCH = (64, 128, 256), 512, 10, (3, 32, 32), 64
DIRECTIONS = ("forward", "backward", "gradient")
_GEMM_READINGS = 5
_STEP = 1e-4


@dataclass(frozen=True)
class LayerTimes:
    """One layer in a batch.

    Attributes
    ----------
    name : str
        What it is, and the shape of what comes out.
    seconds : dict of str to float
        Direction -> seconds: forward; backward, for the slopes in its input; gradient, for that in its weights.
    gemm : dict of str to float
        The same for NumPy's products, where the layer is one; a first layer has none backwards.
    operations : int
        Multiplications and additions of each direction.
    """

    name: str
    seconds: dict[str, float]
    gemm: dict[str, float]
    operations: int


def hidden_layers(widths: tuple[int, ...] = WIDTHS, hidden: int = HIDDEN) -> list[Any]:
    """Return convolutions with normalisation and pools, then a linear layer between two that drop values."""
    layers: list[Any] = []
    for width in widths:
        layers += [Conv2D(width), BatchNorm(), ReLU(), MaxPool2D()]
    return [*layers, Dropout(0.5), Linear(hidden), ReLU(), Dropout(0.5)]


def measure(
    hidden: list[Any] | None = None, shape: tuple[int, int, int] = SHAPE, n: int = BATCH, *, batches: int = 20
) -> tuple[list[LayerTimes], float]:
    """Train for some batches of n images; return all layers' times in one batch, and the seconds of the whole batch."""
    layers = [*(hidden_layers() if hidden is None else hidden), Linear(CLASSES)]
    training = _training(chain(layers, shape), shape, n)
    images = np.arange(n)
    with blas_limit(1), quiet_gc():
        training.run(images, n, _STEP)  # compiles, and makes the plan
        plan = training._plan
        assert plan is not None
        clock = _watch(plan)
        start = time.thread_time()
        training.run(np.tile(images, batches), n, _STEP)
        whole = (time.thread_time() - start) / batches
        times = [
            LayerTimes(
                f"{type(one).__name__} {'×'.join(map(str, layer.shape))}",
                {direction: seconds / batches for direction, seconds in of_layer.items()},
                _gemm(layer, buffers, n),
                2 * n * layer.n_products,
            )
            for one, layer, buffers, of_layer in zip(layers, plan.network.layers, plan.buffers, clock, strict=True)
        ]
    return times, whole


def _training(layers: list[Layer], shape: tuple[int, int, int], n: int) -> ConvNetTraining:
    rng = np.random.default_rng(0)
    network = Network(layers, np.dtype(np.float32))
    weights = network.new_weights()
    weights.flat[:] = rng.normal(scale=0.05, size=weights.flat.size)
    X = rng.normal(size=(n, *shape)).astype(np.float32)
    images = Images(X, np.zeros(shape[0], np.float32), np.ones(shape[0], np.float32))
    y = rng.integers(CLASSES, size=n)
    return ConvNetTraining(network, "softmax_cross_entropy", images, y, weights, rule="adam", n_threads=1)


def _watch(plan: Plan) -> list[dict[str, float]]:
    """Have every task of a plan take down its seconds; return them, by layer and direction."""
    layers = plan.network.layers
    clock = [dict.fromkeys(DIRECTIONS, 0.0) for _ in layers]
    plan._stages.clear()
    for layer, of_layer in zip(layers, clock, strict=True):
        for direction in DIRECTIONS:
            setattr(layer, direction, _watched(getattr(layer, direction), of_layer, direction))
    return clock


def _watched(tasks: _Tasks, of_layer: dict[str, float], direction: str) -> _Tasks:
    def timed(call: Callable[[int, int], object], first: int, last: int) -> None:
        start = time.thread_time()
        call(first, last)
        of_layer[direction] += time.thread_time() - start

    def watched(buffers: Buffers, n: int) -> Iterator[Task]:
        return (Task(partial(timed, task.call), task.parts) for task in tasks(buffers, n))

    return watched


def _gemm(layer: Layer, buffers: Buffers, n: int) -> dict[str, float]:
    """Return the seconds of NumPy's products, a matrix of (rows, terms) by one of (terms, columns) each."""
    if not layer.n_products:
        return {}
    units, channels, *window = layer.public_shapes()["weight"]
    taps = int(np.prod(window, dtype=int))
    made, taken = (
        n * int(np.prod(shape)) // width for shape, width in ((layer.shape, units), (layer.input_shape, channels))
    )
    sizes = {
        "forward": (made, channels * taps, units),
        "backward": (taken, units * taps, channels),
        "gradient": (channels * taps, made, units),
    }
    if buffers.input_grad is None:
        del sizes["backward"]
    return {direction: _product_seconds(*size) for direction, size in sizes.items()}


def _product_seconds(rows: int, terms: int, columns: int) -> float:
    rng = np.random.default_rng(0)
    left = rng.random((rows, terms), dtype=np.float32)
    right, out = rng.random((terms, columns), dtype=np.float32), np.empty((rows, columns), np.float32)
    np.matmul(left, right, out=out)
    readings = []
    for _ in range(_GEMM_READINGS):
        start = time.thread_time()
        np.matmul(left, right, out=out)
        readings.append(time.thread_time() - start)
    return min(readings)


def table(times: list[LayerTimes], whole: float) -> str:
    """Lay the times out for a terminal: milliseconds, rate, and share of the rate of NumPy's product."""
    head = f"{'layer':<22}" + "".join(f"{direction + ', ms':>14}{'GF/s':>6}{'share':>6}" for direction in DIRECTIONS)
    lines = [head, *map(_line, times)]
    spent = sum(sum(each.seconds.values()) for each in times)
    lines.append(f"{'images, loss, step':<22}{1e3 * (whole - spent):>14.2f}")
    lines.append(f"{'all':<22}{1e3 * whole:>14.2f}")
    return "\n".join(lines)


def _line(each: LayerTimes) -> str:
    line = f"{each.name:<22.22}"
    for direction in DIRECTIONS:
        seconds = each.seconds[direction]
        if direction in each.gemm:
            rate = each.operations / seconds / 1e9
            line += f"{1e3 * seconds:>14.2f}{rate:>6.0f}{each.gemm[direction] / seconds:>6.2f}"
        else:
            line += f"{1e3 * seconds:>14.2f}{'':>12}" if seconds else f"{'-':>14}{'':>12}"
    return line.rstrip()
