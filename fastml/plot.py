"""Plots of results, with matplotlib (the extra ``plot``).

Every function draws into the axes it is given, or into new ones, and returns them: titles, limits and files
are the caller's business. matplotlib is imported by the first plot, not by this module.

Colours are told apart by the colour-blind, and by their lightness, dashes or markers without any colour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .model_selection import KNNCrossValidation

__all__ = [
    "confusion_matrix",
    "cross_validation",
    "learning_curves",
    "misclassified",
    "score_against",
    "sweep",
    "weights_as_images",
]

_TITLES = {"l1": "L1", "l2": "L2", "linf": "L∞"}
_AXIS_NAMES = {"step": "step", "epoch": "epoch", "seconds": "time in s"}


def cross_validation(result: KNNCrossValidation, ax: Axes | None = None) -> Axes:
    """Draw the error of a nearest-neighbour cross-validation.

    With several numbers of neighbours: error against their number, one line per metric in a band of one
    standard deviation over the folds. With a single number: error against the metric. The best setting
    is ringed, unless every one has a score of NaN.

    Parameters
    ----------
    result : KNNCrossValidation
        What `fastml.knn_cross_validation` returned.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn into.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    ax = _drawing.new_axes() if ax is None else ax
    errors = result.errors.mean(axis=2)
    spread = result.errors.std(axis=2)
    names = [_TITLES.get(metric, metric) for metric in result.metrics]
    if len(result.n_neighbors) > 1:
        order = np.argsort(result.n_neighbors, kind="stable")
        ks = np.asarray(result.n_neighbors)
        for i, name in enumerate(names):
            color, marker = _drawing.COLORS[i % len(_drawing.COLORS)], _drawing.MARKERS[i % len(_drawing.MARKERS)]
            mean, deviation = errors[i][order], spread[i][order]
            ax.fill_between(ks[order], mean - deviation, mean + deviation, color=color, alpha=0.12, linewidth=0)
            ax.plot(ks[order], mean, color=color, marker=marker, markersize=4, label=name)
        ax.set_xlabel("number of neighbours k")
        if len(names) > 1:
            ax.legend(frameon=False)
    else:
        ax.errorbar(range(len(names)), errors[:, 0], spread[:, 0], fmt="o", color=_drawing.COLORS[0], capsize=4)
        ax.set_xticks(range(len(names)), names)
        ax.set_xlim(-0.5, len(names) - 0.5)
        ax.set_xlabel(f"metric, k = {result.n_neighbors[0]}")
    over = "of all predictions together" if result.pooled else f"mean ± std of {result.errors.shape[2]} folds"
    ax.set_ylabel(f"{result.error_name}, {over}")
    if not np.isnan(errors).all():
        metric, k = result.best_index
        at = result.n_neighbors[k] if len(result.n_neighbors) > 1 else metric
        ax.plot(at, errors[metric, k], "o", markersize=11, color="none", markeredgecolor=_drawing.BEST)
        ax.set_title(f"best: {names[metric]}, k = {result.n_neighbors[k]}", loc="left", fontsize="medium")
    _drawing.finish(ax)
    return ax


def learning_curves(
    history: Any,
    axes: Axes | Iterable[Axes] | None = None,
    *,
    quantities: str | Sequence[str] | None = None,
    against: str = "epoch",
    running_mean: int = 1,
) -> NDArray[Any]:
    """Draw loss and score of a training, or of several, as they developed.

    Parameters
    ----------
    history : mapping of arrays, model, or mapping of several of them by name
        What a model keeps as ``history_``: arrays "step", "epoch", "seconds", "train_loss", "train_score",
        "validation_loss", "validation_score", as far as they were recorded.
    axes : matplotlib.axes.Axes or several of them, optional
        Where to draw, one for each of the quantities; None makes a new figure.
    quantities : {"loss", "score"} or sequence of them, optional
        What to draw. None draws both, or that one of them which was recorded.
    against : {"epoch", "step", "seconds"}
        The horizontal axis.
    running_mean : int
        Smooth the curves of the training set, which are noisy where they come from single batches, by the mean of so
        many recorded values (the last ones; fewer at the beginning). Of a single training the values themselves stay
        visible, pale.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (len(quantities),)
        What was drawn into.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If `history` has nothing of what is to be drawn, or the number of axes is another one.

    Notes
    -----
    A ring marks the best value on the validation set, a cross the place where a training diverged.
    """
    if against not in _AXIS_NAMES:
        raise ValueError(f"against is {against!r}; it must be one of {', '.join(map(repr, _AXIS_NAMES))}")
    _drawing.check_window(running_mean)
    runs = _drawing.runs_of(history)
    if quantities is None:
        quantities = [q for q in ("loss", "score") if _drawing.any_recorded(runs, q)] or ("loss",)
    quantities = (quantities,) if isinstance(quantities, str) else tuple(quantities)
    panels = _drawing.axes_for(axes, 1, len(quantities), (4.8, 3.6))
    for ax, quantity in zip(panels, quantities, strict=True):
        curves = []
        for number, (name, run) in enumerate(runs.items()):
            parts = [part for part in ("train", "validation") if _drawing.recorded(run, f"{part}_{quantity}")]
            for part in parts:
                of_train = part == "train"
                x, y, diverged = _drawing.curve(run, against, f"{part}_{quantity}")
                if len(runs) == 1:
                    style: dict[str, Any] = {
                        "color": _drawing.COLORS[of_train],
                        "label": "training" if of_train else part,
                    }
                else:
                    style = {
                        "color": _drawing.COLORS[number % len(_drawing.COLORS)],
                        "label": name if part == parts[-1] else None,
                    }
                    if of_train and len(parts) > 1:
                        style |= {"linestyle": (0, (4, 1.5)), "linewidth": 1.0}
                curves.append(_drawing.Line(ax, x, y, diverged, style, running_mean if of_train else 1, not of_train))
        if not curves:
            raise ValueError(f"the history has neither train_{quantity} nor validation_{quantity}")
        best = _drawing.draw_lines(curves, higher_is_better=quantity == "score", pale=len(runs) == 1)
        if best is not None:
            ax.set_title(f"best: {best[1]:.4g} at {against} {best[0]:.4g}", loc="left", fontsize="medium")
        ax.set_xlabel(_AXIS_NAMES[against])
        ax.set_ylabel(quantity)
        _drawing.finish(ax)
    dashed = len(runs) > 1 and any(not curve.rated for curve in curves)
    _drawing.legend(panels[0], "dashed: training" if dashed else None)
    return panels


def sweep(
    result: Any,
    axes: Axes | Iterable[Axes] | None = None,
    *,
    quantity: str | None = None,
    rows: str | None = None,
    columns: str | None = None,
    lines: str | None = None,
    where: Mapping[str, Any] | None = None,
    against: str = "step",
    running_mean: int = 1,
) -> NDArray[Any]:
    """Draw the learning curves of many settings as small multiples.

    One panel for each value of one or two parameters, one line in it for each value of another. All panels have
    the same axes. A ring marks the best value on the validation set, a cross the place where a run diverged.

    Parameters
    ----------
    result : object
        What `fastml.sweep` returned: has `params`, a list of the settings (dictionaries), and `histories`, a list of
        mappings as for `learning_curves`.
    axes : several matplotlib.axes.Axes, optional
        Where to draw, one for each panel, row by row; None makes a new figure.
    quantity : str, optional
        "train_loss", "train_score", "validation_loss" or "validation_score". None takes the score on the validation
        set if it was recorded, else the loss of the training.
    rows, columns, lines : str, optional
        Parameters that vary over the rows and columns of panels and over the lines. None chooses: the most
        values as lines, the fewest as rows.
    where : mapping, optional
        Draw only the runs with these values of some parameters; needed where more than three vary.
    against : {"step", "epoch", "seconds"}
        The horizontal axis.
    running_mean : int
        Smooth each curve by the mean of so many recorded values (the last ones; fewer at the beginning).

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (rows, columns)
        What was drawn into.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If more than three parameters vary, a name is none of them, nothing is left to draw, or the number of axes
        is another one.
    """
    if against not in _AXIS_NAMES:
        raise ValueError(f"against is {against!r}; it must be one of {', '.join(map(repr, _AXIS_NAMES))}")
    _drawing.check_window(running_mean)
    chosen = [
        (params, history)
        for params, history in zip(result.params, result.histories, strict=True)
        if all(key in params and _drawing.same(params[key], value) for key, value in (where or {}).items())
    ]
    if not chosen:
        raise ValueError(f"no run has {dict(where or {})}")
    if quantity is None:
        quantity = next(
            (q for q in ("validation_score", "train_loss") if _drawing.recorded(chosen[0][1], q)), "train_score"
        )
    values = _drawing.varied([params for params, _ in chosen])
    places = _drawing.places_of(values, rows, columns, lines)
    kinds = [values[name] if name is not None else [None] for name in places]
    shape = len(kinds[0]), len(kinds[1])
    grid = _drawing.axes_for(axes, *shape, (3.0, 2.4), same_axes=True).reshape(shape)
    styles = list(zip(_drawing.colors_of(kinds[2]), cycle(_drawing.MARKERS), strict=False))
    drawn = []
    for params, history in chosen:
        if not _drawing.recorded(history, quantity):
            continue
        row, column, line = (
            0 if name is None else _drawing.place_in(known, params.get(name))
            for name, known in zip(places, kinds, strict=True)
        )
        (color, dashes), marker = styles[line]
        style = {"color": color, "linestyle": dashes, "linewidth": 1.3, "label": _drawing.text_of(kinds[2][line])}
        style |= {"marker": marker, "markersize": 4, "markevery": [-1]}
        x, y, diverged = _drawing.curve(history, against, quantity)
        rated = quantity.startswith("validation")
        drawn.append(_drawing.Line(grid[row, column], x, y, diverged, style, running_mean, rated))
    if not drawn:
        raise ValueError(f"no run has recorded {quantity}")
    _drawing.draw_lines(drawn, higher_is_better=quantity.endswith("score"), pale=False)
    for (i, j), ax in np.ndenumerate(grid):
        _drawing.finish(ax)
        if i == 0 and places[1] is not None:
            ax.set_title(f"{places[1]} = {_drawing.text_of(kinds[1][j])}", loc="left", fontsize="medium")
        if i == shape[0] - 1:
            ax.set_xlabel(_AXIS_NAMES[against])
        if j == 0:
            above = f"{places[0]} = {_drawing.text_of(kinds[0][i])}\n" if places[0] is not None else ""
            ax.set_ylabel(above + quantity.replace("_", " ").replace("train ", "training "))
    if places[2] is not None:
        _drawing.common_legend(grid, places[2], own_figure=axes is None)
    return grid


def score_against(
    result: Any,
    parameter: str,
    ax: Axes | None = None,
    *,
    score: str = "validation_score",
    by: str | None = None,
) -> Axes:
    """Draw what a parameter does to the score: a dot for each run, a line through the best ones.

    Parameters
    ----------
    result : object or mapping
        What `fastml.sweep` or a search returned, or its `table`: columns of equal length, one entry for each run.
        ``cv_results_`` of scikit-learn's searches will do (with ``score="mean_test_score"``).
    parameter : str
        The column on the horizontal axis. Its axis is logarithmic if the values are positive and at
        least a factor of 100 apart; values that are no numbers stand side by side.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a new figure.
    score : str
        The column on the vertical axis. If it is a loss or an error (by its name) lower ones are better.
    by : str, optional
        A line for each value of this column.

    Returns
    -------
    matplotlib.axes.Axes
        What was drawn into.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If a column is missing, or no score is finite.
    """
    table = _drawing.table_of(result)
    at, scores = _drawing.column(table, parameter), np.asarray(_drawing.column(table, score), np.float64)
    finite = np.isfinite(scores)
    if not finite.any():
        raise ValueError(f"no entry of {score} is finite")
    lower = "loss" in score or "error" in score
    rank = np.where(finite, scores if lower else -scores, np.inf)
    groups = _drawing.column(table, by) if by is not None else [None] * len(scores)
    ax = _drawing.new_axes() if ax is None else ax
    scale, places = _drawing.scale_of(at)
    kinds = _drawing.distinct(groups)
    tops: list[Any] = []
    for kind, (color, dashes), marker in zip(kinds, _drawing.colors_of(kinds), cycle(_drawing.MARKERS), strict=False):
        mine = np.array([_drawing.same(group, kind) for group in groups]) & finite
        ax.plot(places[mine], scores[mine], marker, color=color, alpha=_drawing.PALE, markersize=4, markeredgewidth=0)
        top = [min(np.flatnonzero(mine & (places == at)), key=rank.__getitem__) for at in np.unique(places[mine])]
        tops += top
        style = {"color": color, "marker": marker, "markersize": 5, "label": _drawing.text_of(kind)}
        ax.plot(places[top], scores[top], linestyle="none" if scale == "category" else dashes, **style)
    best = int(rank.argmin())
    ax.plot(
        places[best], scores[best], "o", markersize=12, color="none", markeredgecolor=_drawing.BEST, markeredgewidth=1.4
    )
    _drawing.keep_in_view(ax, places[finite], scores[finite], scores[tops])
    if scale == "category":
        ax.set_xticks(range(len(_drawing.distinct(at))), [_drawing.text_of(value) for value in _drawing.distinct(at)])
        ax.set_xlim(-0.5, len(_drawing.distinct(at)) - 0.5)
    else:
        ax.set_xscale(scale)
    ax.set_xlabel(parameter)
    ax.set_ylabel(score.replace("_", " "))
    ax.set_title(f"best: {parameter} = {_drawing.text_of(at[best])}, {scores[best]:.4g}", loc="left", fontsize="medium")
    _drawing.finish(ax)
    if by is not None:
        _drawing.legend(ax, by)
    return ax


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
