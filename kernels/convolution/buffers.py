"""How images lie in memory, and what a layer has for a batch of them.

Images lie in a `Grid`: channels last, whole vectors of them, zeros around the image where a layer asks for that. A
layer holds no numbers; it reads and writes `Buffers`, which a network has for each of its layers, and `conv2d` for one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..runtime.jit import readonly
from ..runtime.memory import aligned, padded

__all__ = ["Batch", "Buffers", "Grid", "Images", "pitch_of"]

Array = NDArray[Any]


def pitch_of(channels: int, dtype: np.dtype[Any]) -> int:
    """Entries of a pixel: its channels, and zeros up to whole vectors of the widest target."""
    return padded(channels, dtype)


class Grid:
    """Images of one shape, one after the other.

    Parameters
    ----------
    images : int
        How many.
    shape : tuple of int
        Channels, height, width.
    dtype : dtype
        Of the entries.
    border : int
        Zeros on all sides of an image.
    pitch : int, optional
        Entries of a pixel.
    dilation : int
        How far pixels and lines are apart: zeros lie in between.
    size : sequence of int, optional
        Height and width with borders, where there is more on the far sides.

    Attributes
    ----------
    flat : ndarray
        All entries; those that hold no channel of the image stay 0.
    readonly : ndarray
        The same, read-only.
    place : ndarray of int64
        Where the images lie, as the kernels want it.
    contiguous : bool
        Whether nothing lies between the pixels of an image.
    """

    def __init__(
        self,
        images: int,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        *,
        border: int = 0,
        pitch: int | None = None,
        dilation: int = 1,
        size: Sequence[int] | None = None,
    ) -> None:
        self.images, self.shape = images, tuple(shape)
        channels, height, width = self.shape
        self.pitch = pitch_of(channels, dtype) if pitch is None else pitch
        lines, pixels = (height + 2 * border, width + 2 * border) if size is None else size
        self.line, self.image, self.dilation = pixels * self.pitch, lines * pixels * self.pitch, dilation
        self.begin = border * (self.line + self.pitch)
        self.flat = aligned((images * self.image,), dtype)
        self.readonly = readonly(self.flat)
        step, length = dilation * self.line, ((width - 1) * dilation + 1) * self.pitch
        place = [self.begin, self.image, step, height, length, width, dilation * self.pitch]
        self.place = readonly(np.array(place, np.int64))
        self.contiguous = border == 0 and dilation == 1 and size is None

    def matrix(self) -> Array:
        """Return the images as rows."""
        return self.flat.reshape(self.images, self.image)

    def pixels(self, images: int) -> Array:
        """Return a view (images, height, width, channels) of the first images, without what lies around them."""
        channels, height, width = self.shape
        item = self.flat.itemsize
        strides = (self.image * item, self.dilation * self.line * item, self.dilation * self.pitch * item, item)
        return np.lib.stride_tricks.as_strided(self.flat[self.begin :], (images, height, width, channels), strides)


@dataclass(frozen=True, eq=False)
class Images:
    """Images as a network fetches them.

    Attributes
    ----------
    X : ndarray of shape (n, C, H, W), float32, float64 or uint8, C-contiguous
        The images.
    mean, factor : ndarray of shape (C,)
        What is taken off each channel, and what it is multiplied by then; of the dtype of the network.
    """

    X: Array
    mean: Array
    factor: Array


@dataclass(eq=False)
class Batch:
    """The batch that is worked on, which all layers of a network look at.

    Attributes
    ----------
    rows : ndarray of intp
        Which images it has.
    number : int
        Batches before it.
    seed : int
        Of dropout.
    """

    rows: Array = field(default_factory=lambda: np.zeros(0, np.intp))
    number: int = 0
    seed: int = 0


@dataclass(eq=False)
class Buffers:
    """What one layer reads and writes.

    Attributes
    ----------
    input, output : Grid
        Values that come in and go out; the same where the layer works in place.
    input_grad : Grid or None
        Gradient of the loss in what comes in; None where nobody asks for it.
    output_grad : Grid
        Gradient in what goes out; there for layers that have a way back.
    parameters, gradient : dict of str to ndarray
        Parameters, read-only, and the gradient in them; both as they lie in memory. The latter is empty without
        training.
    statistics : ndarray of float64
        What the layer remembers from batch to batch, a row for each of `Layer.statistics`.
    batch : Batch
        The batch that is worked on.
    number : int
        Place of the layer in its network.
    training, dropout : bool
        Whether a batch is normalised by its own mean; whether values are dropped.
    """

    input: Grid
    output: Grid
    input_grad: Grid | None = None
    output_grad: Grid = None  # type: ignore[assignment]
    parameters: dict[str, Array] = field(default_factory=dict)
    gradient: dict[str, Array] = field(default_factory=dict)
    statistics: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    batch: Batch = field(default_factory=Batch)
    number: int = 0
    training: bool = False
    dropout: bool = False
    _kept: dict[str, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the layer computes in."""
        return self.output.flat.dtype

    def keep(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what `make` returned when this name was first asked for: what a layer needs from call to call."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike | None = None) -> Array:
        """Return an array of the layer's own, zeros at first; of the dtype of the layer if no other is named."""
        made: Array = self.keep(name, lambda: aligned(shape, self.dtype if dtype is None else np.dtype(dtype)))
        return made
