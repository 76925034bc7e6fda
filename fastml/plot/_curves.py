"""Plots of results, with matplotlib (the extra ``plot``).

Every function draws into the axes it is given, or into new ones, and returns them: titles, limits and files
are the caller's business. matplotlib is imported by the first plot, not by this module.

Colours are told apart by the colour-blind, and by their lightness, dashes or markers without any colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..kernels.distances.arguments import DEFINITIONS
from . import _drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["cross_validation", "learning_curves", "score_against", "sweep"]

_AXIS_NAMES = {"step": "step", "epoch": "epoch", "seconds": "time in s"}


class CrossValidated(Protocol):
    """What `cross_validation` draws; `fastml.model_selection.KNNCrossValidation` is one."""

    @property
    def metrics(self) -> Sequence[str]:
        """What the distances were."""

    @property
    def n_neighbors(self) -> Sequence[int]:
        """How many neighbours were tried."""

    @property
    def pooled(self) -> bool:
        """Whether errors are of all predictions together, and not of each fold."""

    @property
    def error_name(self) -> str:
        """What the errors are, in words."""

    @property
    def errors(self) -> NDArray[np.float64]:
        """Errors (metrics, numbers of neighbours, folds)."""

    @property
    def best_index(self) -> tuple[int, int]:
        """Places of the best metric and number of neighbours."""


def cross_validation(result: CrossValidated, ax: Axes | None = None) -> Axes:
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
    names = [DEFINITIONS[metric].title if metric in DEFINITIONS else metric for metric in result.metrics]
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
