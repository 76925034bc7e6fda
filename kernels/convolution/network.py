"""A network of image layers, and its parameters in one array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments.arrays import Array
from ..runtime.memory import aligned
from ._grid import pitch_of
from .layers import Dropping, Flattening, Layer, Normalization, Rectifier, part_of
from .product_layers import Convolution, Dense

__all__ = ["Network", "Weights"]


# ------------------------------------------------------------------------------------------ parameters


@dataclass(eq=False)
class Weights:
    """All numbers of a network that training changes.

    Attributes
    ----------
    flat : ndarray
        Parameters: first those with a penalty.
    running : ndarray of float64
        Running means and variances of the layers that normalise.
    """

    flat: Array
    running: NDArray[np.float64]

    def copy(self) -> Weights:
        """Return a copy."""
        flat = aligned(self.flat.shape, self.flat.dtype)
        flat[:] = self.flat
        return Weights(flat, self.running.copy())


@dataclass(eq=False)
class _Places:
    """Where the parameters of all layers lie."""

    penalized: int
    size: int
    running: int
    of_layers: list[dict[str, tuple[int, tuple[int, ...]]]] = field(default_factory=list)


def _places(layers: Sequence[Layer], dtype: np.dtype[Any]) -> _Places:
    wanted = [layer.parameters(dtype) for layer in layers]
    places = _Places(0, 0, 0, [{} for _ in layers])
    for penalty in (True, False):
        for number, parameters in enumerate(wanted):
            for name, shape in parameters.items():
                if (name == "weight" and len(shape) > 1) == penalty:
                    places.of_layers[number][name] = (places.size, shape)
                    places.size += pitch_of(int(np.prod(shape)), dtype)
        if penalty:
            places.penalized = places.size
    for number, layer in enumerate(layers):
        if isinstance(layer, Normalization):
            places.of_layers[number]["running"] = (places.running, (2, layer.shape[0]))
            places.running += 2 * layer.shape[0]
    return places


class Network:
    """Layers, and where their parameters lie.

    Parameters
    ----------
    layers : sequence of Layer
        The layers, each for the shape that the one before makes.
    dtype : dtype
        float32 or float64.
    exact : bool
        Whether the input may lie without zeros after the channels of a pixel, if nobody asks for slopes in it.
    """

    def __init__(self, layers: Sequence[Layer], dtype: np.dtype[Any], *, exact: bool = True) -> None:
        self.layers, self.dtype = list(layers), np.dtype(dtype)
        # Nothing is padded in the input of a first product: its numbers are never read as vectors.
        first = next((layer for layer in self.layers if not isinstance(layer, (Rectifier, Dropping, Flattening))), None)
        self.exact = exact and isinstance(first, (Convolution, Dense))
        for layer in self.layers:
            layer.exact = self.exact and layer is first
        self.places = _places(self.layers, self.dtype)

    def new_weights(self) -> Weights:
        """Return weights of 0."""
        return Weights(aligned((self.places.size,), self.dtype), np.zeros(self.places.running))

    def pack(self, parameters: Sequence[dict[str, Array]]) -> Weights:
        """Return weights from the parameters of each layer, in their public shapes."""
        weights = self.new_weights()
        for layer, places, given in zip(self.layers, self.places.of_layers, parameters, strict=True):
            for name, place in places.items():
                if name == "running":
                    part_of(weights.running, place)[:] = given["running_mean"], given["running_var"]
                else:
                    layer.put(name, part_of(weights.flat, place), given[name])
        return weights

    def unpack(self, weights: Weights) -> list[dict[str, Array]]:
        """Return copies of the parameters of each layer, in their public shapes."""
        return self._public(weights.flat, weights.running)

    def _public(self, flat: Array, running: Array | None) -> list[dict[str, Array]]:
        result = []
        for layer, places in zip(self.layers, self.places.of_layers, strict=True):
            of_layer: dict[str, Array] = {}
            for name, place in places.items():
                if name != "running":
                    of_layer[name] = np.ascontiguousarray(layer.get(name, part_of(flat, place)))
                elif running is not None:
                    mean, variance = part_of(running, place)
                    of_layer |= {"running_mean": mean.copy(), "running_var": variance.copy()}
            result.append(of_layer)
        return result
