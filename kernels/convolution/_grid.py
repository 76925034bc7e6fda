"""How images lie in memory: channels last, whole vectors of them, zeros around the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.jit import readonly
from ..runtime.memory import aligned, padded

__all__ = ["Grid", "pitch_of"]

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
    apart : int
        How far pixels and lines are apart: zeros lie in between.
    size : sequence of int, optional
        Height and width with borders, where there is more on the far sides.

    Attributes
    ----------
    flat : ndarray
        All entries; those that hold no channel of the image stay 0.
    fixed : ndarray
        The same, read-only.
    place : ndarray of int64
        Where the images lie, as the kernels want it.
    """

    def __init__(
        self,
        images: int,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        *,
        border: int = 0,
        pitch: int | None = None,
        apart: int = 1,
        size: Sequence[int] | None = None,
    ) -> None:
        self.images, self.shape = images, tuple(shape)
        channels, height, width = self.shape
        self.pitch = pitch_of(channels, dtype) if pitch is None else pitch
        lines, pixels = (height + 2 * border, width + 2 * border) if size is None else size
        self.line, self.image, self.apart = pixels * self.pitch, lines * pixels * self.pitch, apart
        self.begin = border * (self.line + self.pitch)
        self.flat = aligned((images * self.image,), dtype)
        self.fixed = readonly(self.flat)
        step, length = apart * self.line, ((width - 1) * apart + 1) * self.pitch
        place = [self.begin, self.image, step, height, length, width, apart * self.pitch]
        self.place = readonly(np.array(place, np.int64))
        self.dense = border == 0 and apart == 1 and size is None

    def matrix(self) -> Array:
        """Return the images as rows."""
        return self.flat.reshape(self.images, self.image)

    def pixels(self, images: int) -> Array:
        """Return a view (images, height, width, channels) of the first images, without what lies around them."""
        channels, height, width = self.shape
        item = self.flat.itemsize
        strides = (self.image * item, self.apart * self.line * item, self.apart * self.pitch * item, item)
        return np.lib.stride_tricks.as_strided(self.flat[self.begin :], (images, height, width, channels), strides)
