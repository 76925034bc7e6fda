"""Pictures that are made of images: weights, rows that were misclassified."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["misclassified", "weights_as_images"]


def weights_as_images(
    coef: Any,
    shape: tuple[int, ...],
    axes: Axes | Iterable[Axes] | None = None,
    *,
    labels: Sequence[Any] | None = None,
    limit: float | None = None,
    most: int | None = None,
) -> NDArray[Any]:
    """Draw the weights of each class, or of each unit of a network's first layer, as an image.

    All are on one scale with 0 in its middle.

    Parameters
    ----------
    coef : array-like of shape (n_classes, n_features) or (n_features,), or model
        Weights, one row per image. Leave out the column of a constant feature. Of a fitted linear model it is `coef_`,
        of a network (`coefs_`) the weights that lead to each unit of its first layer.
    shape : tuple of int
        What a row reshapes to: (height, width), or (3, height, width) for colours, where grey is 0.
    axes : several matplotlib.axes.Axes, optional
        Where to draw, one for each row of `coef`; None makes a new figure.
    labels : sequence, optional
        Titles of the images. None numbers them, if there are several.
    limit : float, optional
        The ends of the scale, -limit and limit; None takes the largest absolute weight.
    most : int, optional
        Draw at most so many: those with the largest sums of squares, in their order. None draws all.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (n_classes,)
        What was drawn into.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If a row does not fit the shape, or the numbers of labels or axes are others than that of rows.
    """
    try:
        rows = np.atleast_2d(np.asarray(_weights_of(coef), np.float64))
    except (TypeError, ValueError):
        kind = type(coef).__name__
        raise TypeError(f"coef is a {kind}; an array of weights is needed, such as a model's coef_") from None
    if rows.ndim != 2 or len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != 3):
        raise ValueError(f"coef has shape {rows.shape}, shape is {shape}; (n, d) and (h, w) or (3, h, w) are needed")
    if rows.shape[1] != math.prod(shape):
        raise ValueError(f"coef has {rows.shape[1]} columns, an image of shape {shape} has {math.prod(shape)}")
    names = (
        [str(number) for number in range(len(rows))]
        if labels is None
        else [_drawing.text_of(label) for label in labels]
    )
    if len(names) != len(rows):
        raise ValueError(f"{len(names)} labels came for {len(rows)} images")
    if most is not None and most < len(rows):
        chosen = np.sort(np.argsort(-np.square(rows).sum(axis=1), kind="stable")[:most])
        rows, names = rows[chosen], [names[number] for number in chosen]
    limit = float(np.abs(rows).max()) if limit is None else float(limit)
    limit = limit if limit > 0 else 1.0  # all weights are 0: any scale shows that
    panels = _image_axes(axes, len(rows), shape, more_width=0.8 if len(shape) == 2 else 0.0)
    for ax, row, name in zip(panels, rows, names, strict=True):
        if len(shape) == 3:
            image = np.moveaxis(row.reshape(shape), 0, -1)
            picture = ax.imshow(np.clip(0.5 + image / (2 * limit), 0, 1), interpolation="nearest")
        else:
            picture = ax.imshow(
                row.reshape(shape), cmap=_drawing.diverging(), vmin=-limit, vmax=limit, interpolation="nearest"
            )
        _frame(ax, name if labels is not None or len(rows) > 1 else "")
    if len(shape) == 2:
        bar = panels[0].figure.colorbar(picture, ax=list(panels), fraction=0.04, pad=0.02, aspect=30, label="weight")
        bar.outline.set_visible(False)
    return panels


def _weights_of(coef: Any) -> Any:
    """Return weights, one row for each class or unit, of a model or as they are."""
    if hasattr(coef, "coefs_"):
        return coef.coefs_[0].T
    return getattr(coef, "coef_", coef)


def _image_axes(axes: Any, count: int, shape: Sequence[int], more_width: float = 0.0) -> NDArray[Any]:
    """Return axes for so many images of a shape."""
    columns = min(count, 5 if count <= 20 else 10)
    size = 1.5, 1.5 * shape[-2] / shape[-1] + 0.25
    return _drawing.axes_for(axes, -(-count // columns), columns, size, count=count, more_width=more_width)


def _frame(ax: Axes, title: str) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_color(_drawing.GRID)
    if title:
        ax.set_title(title, fontsize="medium", pad=3)


def misclassified(
    X: ArrayLike,
    y_true: ArrayLike,
    y_pred: ArrayLike,
    shape: tuple[int, ...],
    axes: Axes | Iterable[Axes] | None = None,
    *,
    confidence: ArrayLike | None = None,
    most: int = 20,
) -> NDArray[Any]:
    """Draw images that were taken for something else, each under "true → predicted".

    Parameters
    ----------
    X : array-like of shape (n, n_features)
        Images, one in each row.
    y_true, y_pred : array-like of shape (n,)
        True and predicted labels.
    shape : tuple of int
        What a row reshapes to: (height, width), or (3, height, width) for colours.
    axes : several matplotlib.axes.Axes, optional
        Where to draw, one for each image; None makes a new figure.
    confidence : array-like of shape (n,) or (n, C), optional
        How sure the model was, or what it gives to each class (``predict_proba``, of which the largest counts): the
        surest errors come first. None takes the first errors.
    most : int, default=20
        Draw at most so many.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        What was drawn into.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If lengths or the shape do not fit, or nothing was misclassified.
    """
    rows, true, found = np.asarray(X), np.asarray(y_true), np.asarray(y_pred)
    if rows.ndim != 2 or true.shape != (len(rows),) or found.shape != true.shape:
        shapes = f"X has shape {rows.shape}, y_true {true.shape}, y_pred {found.shape}"
        raise ValueError(f"{shapes}; (n, d), (n,) and (n,) are needed")
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] != 3) or rows.shape[1] != math.prod(shape):
        raise ValueError(f"X has {rows.shape[1]} columns, shape is {shape}; h * w columns and (h, w), or (3, h, w)")
    wrong = np.flatnonzero(true != found)
    if not len(wrong):
        raise ValueError("nothing was misclassified: y_true and y_pred are equal")
    if confidence is not None:
        sure = np.asarray(confidence, np.float64)
        sure = sure.max(axis=1) if sure.ndim == 2 else sure
        if sure.shape != true.shape:
            raise ValueError(f"confidence has {len(sure)} entries; X has {len(rows)} rows")
        wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
    wrong = wrong[:most]
    panels = _image_axes(axes, len(wrong), shape)
    images = rows[wrong].astype(np.float64)
    low, high = float(images.min()), float(images.max())
    scaled = (images - low) / ((high - low) or 1.0)
    for ax, row, number in zip(panels, scaled, wrong, strict=True):
        picture = row.reshape(shape)
        picture = np.moveaxis(picture, 0, -1) if len(shape) == 3 else picture
        ax.imshow(picture, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        _frame(ax, f"{_drawing.text_of(true[number])} → {_drawing.text_of(found[number])}")
    return panels
