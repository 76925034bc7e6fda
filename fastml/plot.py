"""Plots of results, with matplotlib (the extra ``plot``).

Every function draws into the axes it is given, or into new ones, and returns them: titles, limits and files
are the caller's business. matplotlib is imported by the first plot, not by this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .model_selection import KNNCrossValidation

__all__ = ["cross_validation"]

# Told apart also by the colour-blind, and by their markers without any colour.
_COLORS = ("#0B5394", "#E69F00", "#117733", "#AA4499", "#56B4E9", "#767676")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_TITLES = {"l1": "L1", "l2": "L2", "linf": "L∞"}


def cross_validation(result: KNNCrossValidation, ax: Axes | None = None) -> Axes:
    """Draw the error of a nearest-neighbour cross-validation.

    With several numbers of neighbours: error against their number, one line per metric in a band of one
    standard deviation over the folds. With a single number: error against the metric. The best setting
    is ringed.

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
    ax = new_axes() if ax is None else ax
    errors = result.errors.mean(axis=2)
    spread = result.errors.std(axis=2)
    names = [_TITLES.get(metric, metric) for metric in result.metrics]
    best_metric, best_k = result.best_index
    if len(result.n_neighbors) > 1:
        order = np.argsort(result.n_neighbors, kind="stable")
        ks = np.asarray(result.n_neighbors)
        for i, name in enumerate(names):
            color, marker = _COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)]
            mean, deviation = errors[i][order], spread[i][order]
            ax.fill_between(ks[order], mean - deviation, mean + deviation, color=color, alpha=0.12, linewidth=0)
            ax.plot(ks[order], mean, color=color, marker=marker, markersize=4, label=name)
        at: Any = ks[best_k]
        ax.set_xlabel("number of neighbours k")
        if len(names) > 1:
            ax.legend(frameon=False)
    else:
        at = best_metric
        ax.errorbar(range(len(names)), errors[:, 0], spread[:, 0], fmt="o", color=_COLORS[0], capsize=4)
        ax.set_xticks(range(len(names)), names)
        ax.set_xlim(-0.5, len(names) - 0.5)
        ax.set_xlabel(f"metric, k = {result.n_neighbors[0]}")
    ax.plot(at, errors[result.best_index], "o", markersize=11, color="none", markeredgecolor="#C0392B")
    ax.set_ylabel(f"{result.error_name}, mean ± std of {result.errors.shape[2]} folds")
    ax.set_title(f"best: {names[best_metric]}, k = {result.n_neighbors[best_k]}", loc="left", fontsize="medium")
    ax.grid(axis="y", color="#e3e3e3")
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def new_axes() -> Axes:
    """Return the axes of a new figure.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("plots need matplotlib, which is not installed: python -m pip install matplotlib") from error
    return pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")[1]
