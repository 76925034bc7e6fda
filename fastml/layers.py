"""Layers of a `ConvNetClassifier`, to be put in a list.

They say what a layer does and how large it is, and hold no weights. Images have the shape (channels, height, width);
a row of numbers is an image of one pixel.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from .utils import parameters as p
from .utils.lazy import lazy_module

if TYPE_CHECKING:
    from .kernels.convolution import layers as kernel_layers
    from .kernels.convolution import product_layers
else:
    kernel_layers = lazy_module("fastml.kernels.convolution.layers")
    product_layers = lazy_module("fastml.kernels.convolution.product_layers")

__all__ = ["AvgPool2D", "BatchNorm", "Conv2D", "Dropout", "Flatten", "Linear", "MaxPool2D", "ReLU"]

Shape = tuple[int, int, int]


class _Layer(ABC):
    """What the layers have in common: `chain` asks them where they may stand."""

    #: Whether it needs an image, and no row of numbers; whether it makes one; whether it works on channels, which
    #: a row has none of before the next `Linear`.
    _needs_image: ClassVar[bool] = False
    _makes_row: ClassVar[bool] = False
    _by_channel: ClassVar[bool] = False

    def check(self, name: str) -> None:  # noqa: B027 - some have nothing to refuse
        """Refuse what cannot be; `name` is what the caller calls the layer."""

    def output_shape(self, shape: Shape) -> Shape:
        """Return channels, height and width of the result for an image of such a shape."""
        return shape

    @abstractmethod
    def layer(self, shape: Shape, name: str = "") -> kernel_layers.Layer:
        """Return what the kernels call a layer."""


@dataclass(frozen=True)
class Conv2D(_Layer):
    """Each pixel of the result is a linear function of the pixels around it, the same everywhere.

    Parameters
    ----------
    channels : int
        Channels of the result.
    kernel_size : int, default=3
        Width and height of what a pixel of the result sees.
    stride : int, default=1
        Pixels from one place of the kernel to the next.
    padding : "same" or int, default="same"
        Zeros around the image, fewer than `kernel_size`. "same" is ``kernel_size // 2``, for odd kernels: with stride 1
        the result is as large as the image.

    Examples
    --------
    >>> from fastml.layers import Conv2D
    >>> Conv2D(16).output_shape((3, 32, 32)), Conv2D(16, 5, stride=2, padding=0).output_shape((3, 32, 32))
    ((16, 32, 32), (16, 14, 14))
    """

    channels: int
    kernel_size: int = 3
    stride: int = 1
    padding: Literal["same"] | int = "same"

    _needs_image = True

    def check(self, name: str) -> None:
        """Refuse what cannot be; `name` is what the caller calls the layer."""
        for field in ("channels", "kernel_size", "stride"):
            p.positive_integer(getattr(self, field), f"{name}.{field}")
        if isinstance(self.padding, str):
            p.one_of(self.padding, f"{name}.padding", ("same",))
            if self.kernel_size % 2 == 0:
                raise ValueError(
                    f"{name} has padding 'same' and kernel_size {self.kernel_size}; 'same' needs an odd kernel_size"
                )
        else:
            if isinstance(self.padding, bool) or not isinstance(self.padding, (int, np.integer)) or self.padding < 0:
                raise ValueError(f"{name}.padding is {self.padding!r}; it must be 'same' or an integer of at least 0")
            if self.padding >= self.kernel_size:
                raise ValueError(
                    f"{name} has padding {self.padding}; it must be below kernel_size, which is {self.kernel_size}"
                )

    def output_shape(self, shape: Shape) -> Shape:
        """Return channels, height and width of the result for an image of such a shape."""
        return self.layer(shape).shape

    def layer(self, shape: Shape, name: str = "Conv2D") -> kernel_layers.Layer:
        """Return what the kernels call a layer."""
        self.check(name)
        padding = self.kernel_size // 2 if isinstance(self.padding, str) else int(self.padding)
        _fits(name, shape, self.kernel_size, padding)
        return product_layers.Conv2D(shape, int(self.channels), int(self.kernel_size), int(self.stride), padding)


@dataclass(frozen=True)
class BatchNorm(_Layer):
    """Normalise each channel (after `Linear`: each unit), then scale and shift it by weights that are learned.

    In training mean and variance are those of the batch; predictions take their running means.

    Parameters
    ----------
    momentum : float, default=0.1
        Share of a batch in the running mean and variance.
    epsilon : float, default=1e-5
        Added to the variance.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5

    _by_channel = True

    def check(self, name: str) -> None:
        """Refuse what cannot be; `name` is what the caller calls the layer."""
        p.number(self.momentum, f"{name}.momentum", most=1)
        p.number(self.epsilon, f"{name}.epsilon", above=True)

    def layer(self, shape: Shape, name: str = "BatchNorm") -> kernel_layers.Layer:
        """Return what the kernels call a layer."""
        self.check(name)
        return kernel_layers.BatchNorm(shape, float(self.momentum), float(self.epsilon))


@dataclass(frozen=True)
class ReLU(_Layer):
    """max(z, 0), whose derivative at 0 is 0."""

    def layer(self, shape: Shape, name: str = "ReLU") -> kernel_layers.Layer:
        """Return what the kernels call a layer."""
        return kernel_layers.ReLU(shape)


@dataclass(frozen=True)
class _Pool(_Layer):
    """A window that goes over the image."""

    size: int = 2
    stride: int | None = None

    _needs_image = True

    def check(self, name: str) -> None:
        """Refuse what cannot be; `name` is what the caller calls the layer."""
        if p.positive_integer(self.size, f"{name}.size") > 16:
            raise ValueError(f"{name}.size is {self.size}; it must be at most 16")
        if self.stride is not None:
            p.positive_integer(self.stride, f"{name}.stride")

    def output_shape(self, shape: Shape) -> Shape:
        """Return channels, height and width of the result for an image of such a shape."""
        return self.layer(shape, type(self).__name__).shape

    def _checked(self, shape: Shape, name: str) -> tuple[Shape, int, int]:
        """Return what the kernels want to know."""
        self.check(name)
        _fits(name, shape, self.size, 0)
        return shape, int(self.size), int(self.stride or self.size)


@dataclass(frozen=True)
class MaxPool2D(_Pool):
    """The largest value of each window, in each channel.

    Parameters
    ----------
    size : int, default=2
        Width and height of a window, at most 16.
    stride : int, optional
        Pixels from one window to the next; None is `size`. What is left at the right and at the bottom is not seen.
    """

    def layer(self, shape: Shape, name: str = "MaxPool2D") -> kernel_layers.Layer:
        """Return what the kernels call a layer."""
        return kernel_layers.MaxPool2D(*self._checked(shape, name))


@dataclass(frozen=True)
class AvgPool2D(_Pool):
    """The mean of each window, in each channel; parameters as of `MaxPool2D`."""

    def layer(self, shape: Shape, name: str = "AvgPool2D") -> kernel_layers.Layer:
        """Return what the kernels call a layer."""
        return kernel_layers.AvgPool2D(*self._checked(shape, name))


@dataclass(frozen=True)
class Dropout(_Layer):
    """Set a share of the values to 0 in a training step, while the others grow such that their mean stays.

    Parameters
    ----------
    share : float, default=0.5
        From 0 to below 1.
    """

    share: float = 0.5

    def check(self, name: str) -> None:
        """Refuse what cannot be; `name` is what the caller calls the layer."""
        if p.number(self.share, f"{name}.share", most=1) == 1:
            raise ValueError(f"{name}.share is {self.share}; it must be below 1, or nothing is left")

    def layer(self, shape: Shape, name: str = "Dropout") -> kernel_layers.Layer:
        """Return what the kernels call a layer."""
        self.check(name)
        return kernel_layers.Dropout(shape, float(self.share))


@dataclass(frozen=True)
class Flatten(_Layer):
    """Says that the image is a row of numbers from here on. `Linear` takes images too, so it may be left out."""

    _makes_row = True

    def output_shape(self, shape: Shape) -> Shape:
        """Return channels, height and width of the result for an image of such a shape."""
        return math.prod(shape), 1, 1

    def layer(self, shape: Shape, name: str = "Flatten") -> kernel_layers.Layer:
        """Return what the kernels call a layer; for these the image stays an image."""
        return kernel_layers.Flatten(shape)


@dataclass(frozen=True)
class Linear(_Layer):
    """Each unit is a linear function of all values.

    Parameters
    ----------
    units : int
        How many.
    """

    units: int

    _makes_row = True

    def check(self, name: str) -> None:
        """Refuse what cannot be; `name` is what the caller calls the layer."""
        p.positive_integer(self.units, f"{name}.units")

    def output_shape(self, shape: Shape) -> Shape:
        """Return channels, height and width of the result for an image of such a shape."""
        return self.units, 1, 1

    def layer(self, shape: Shape, name: str = "Linear") -> kernel_layers.Layer:
        """Return what the kernels call a layer."""
        self.check(name)
        return product_layers.Linear(shape, int(self.units))


KINDS: dict[str, type[_Layer]] = {name: globals()[name] for name in __all__}


def _fits(name: str, shape: Shape, size: int, padding: int) -> None:
    """Refuse an image that is smaller than what is put to it."""
    if min(shape[1:]) + 2 * padding < size:
        zeros = f" and {padding} zeros on each side" if padding else ""
        raise ValueError(
            f"{name} needs at least {size} x {size} pixels, but what comes in has {shape[1]} x {shape[2]}{zeros}"
        )


def chain(layers: Sequence[Any], shape: Shape) -> list[kernel_layers.Layer]:
    """Return a list of layers as the kernels have them, for images of such a shape."""
    found: list[kernel_layers.Layer] = []
    flat = False
    for number, each in enumerate(layers):
        name = f"layers[{number}]"
        if type(each) not in KINDS.values():
            raise TypeError(f"{name} is {each!r}; it must be a layer of fastml.layers")
        name += f" ({type(each).__name__})"
        if flat and each._needs_image:
            raise ValueError(f"{name} needs an image; before it there is a row of numbers, from Flatten or Linear")
        if flat and each._by_channel and found[-1].shape[1:] != (1, 1):
            raise ValueError(f"{name} follows Flatten; put it before it, or after the next Linear")
        found.append(each.layer(shape, name))
        shape = found[-1].shape
        flat = flat or each._makes_row
    return found


def described(layer: Any) -> tuple[str, dict[str, Any]]:
    """Return a layer as plain data."""
    return type(layer).__name__, {field.name: getattr(layer, field.name) for field in fields(layer)}
