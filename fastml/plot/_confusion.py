"""Pictures of confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from . import _drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confusion_matrix"]


def confusion_matrix(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    ax: Axes | None = None,
    *,
    labels: Sequence[Any] | None = None,
    normalize: str | None = None,
) -> Axes:
    """Draw which classes are taken for which, through scikit-learn's ``ConfusionMatrixDisplay``.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
        True and predicted labels.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a new figure.
    labels : sequence, optional
        Names of the classes, in sorted order.
    normalize : {"true", "pred", "all"}, optional
        Show shares of the rows, the columns or of all; None shows numbers.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn into.

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Notes
    -----
    The colour grows with the root of the share, so that few errors are still seen beside a large diagonal.
    """
    ax = _drawing.new_axes((5.2, 4.8)) if ax is None else ax
    from matplotlib.colors import PowerNorm
    from sklearn.metrics import ConfusionMatrixDisplay

    display = ConfusionMatrixDisplay.from_predictions(
        y_true,
        y_pred,
        display_labels=labels,
        normalize=normalize,
        values_format=None if normalize is None else ".2f",
        cmap="Blues",
        colorbar=False,
        ax=ax,
    )
    matrix = display.confusion_matrix
    norm = PowerNorm(0.5, vmin=0, vmax=matrix.max())
    display.im_.set_norm(norm)
    for place, text in np.ndenumerate(display.text_):
        is_zero = float(text.get_text()) == 0
        text.set_color("#b0b0b0" if is_zero else "white" if norm(matrix[place]) > 0.6 else "#333333")
        text.set_fontsize("small" if len(matrix) > 6 else "medium")
    if len(matrix) * max(len(label.get_text()) for label in ax.get_xticklabels()) > 40:
        ax.tick_params(axis="x", rotation=45)
    wrong, n = int(np.sum(np.asarray(y_true) != np.asarray(y_pred))), len(np.asarray(y_true))
    ax.set_title(f"{wrong:,} of {n:,} wrong ({wrong / n:.2%})", loc="left", fontsize="medium")
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax
