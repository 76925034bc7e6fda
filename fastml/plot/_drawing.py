"""What the plots share: axes, curves with their limits and marks, and where a parameter goes.

Nothing here imports matplotlib before it draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

# Told apart also by the colour-blind, and by their markers without any colour.
COLORS = ("#0B5394", "#E69F00", "#117733", "#AA4499", "#56B4E9", "#767676")
MARKERS = ("o", "s", "^", "D", "v", "P")
BEST = "#C0392B"
GRID = "#e3e3e3"
PALE = 0.25

HISTORY_KEYS = {"step", "epoch", "seconds", "train_loss", "train_score", "validation_loss", "validation_score"}

# Values of a parameter from here on apart are drawn on a logarithmic axis.
DECADES = 100.0


# Axes ------------------------------------------------------------------------------------------


def new_axes(size: tuple[float, float] = (6.4, 4.0)) -> Axes:
    """Return the axes of a new figure; `size` is in inches.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    ax: Axes = _pyplot().subplots(figsize=size, layout="constrained")[1]
    return ax


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("plots need matplotlib, which is not installed: python -m pip install matplotlib") from error
    return pyplot


def axes_for(
    axes: Axes | Iterable[Axes] | None,
    rows: int,
    columns: int,
    size: tuple[float, float],
    *,
    count: int | None = None,
    same_axes: bool = False,
    more_width: float = 0.0,
) -> NDArray[Any]:
    """Return `count` axes as a flat array: those given, or new ones in rows and columns, each of a size in inches."""
    count = rows * columns if count is None else count
    if axes is None:
        figure, grid = _pyplot().subplots(
            rows,
            columns,
            figsize=(columns * size[0] + more_width, rows * size[1]),
            sharex=same_axes,
            sharey=same_axes,
            squeeze=False,
            layout="constrained",
        )
        for unused in grid.flat[count:]:
            figure.delaxes(unused)
        return np.array(grid.flat[:count])
    panels = np.array([axes] if hasattr(axes, "plot") else list(np.ravel(np.asarray(axes, object))), object)
    if len(panels) != count:
        raise ValueError(f"{len(panels)} axes came; {count} are needed")
    return panels


def finish(ax: Axes) -> None:
    ax.grid(axis="y", color=GRID)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def legend(ax: Axes, title: str | None) -> None:
    if len(ax.get_legend_handles_labels()[1]) > 1:
        ax.legend(frameon=False, title=title, title_fontsize="small", fontsize="small")


def common_legend(grid: NDArray[Any], title: str, own_figure: bool) -> None:
    """One legend for all panels: beside them in a figure of their own, in the first one elsewhere."""
    found: dict[str, Any] = {}
    for ax in grid.flat:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    where: dict[str, Any] = {"loc": "outside right upper"} if own_figure else {"loc": "best"}
    target = grid.flat[0].figure if own_figure else grid.flat[0]
    target.legend(
        list(found.values()), list(found), title=title, frameon=False, fontsize="small", title_fontsize="small", **where
    )


def diverging() -> Colormap:
    """Return a map from blue by way of grey to yellow, which gets lighter all the way.

    So the colour-blind tell both signs apart, and so does a print without colours.
    """
    from matplotlib.colors import LinearSegmentedColormap

    colors = ["#08306B", "#3F78B5", "#B4B4B4", "#F2BE4E", "#FFF7BC"]
    return LinearSegmentedColormap.from_list("fastml_diverging", colors)


# Curves ----------------------------------------------------------------------------------------


class Line(NamedTuple):
    """One curve: where, what, how; `rated` ones compete for the ring of the best."""

    ax: Axes
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    diverged: bool
    style: dict[str, Any]
    window: int
    rated: bool


def runs_of(history: Any) -> dict[str, Any]:
    """Return histories by name, from one or several histories or models."""
    history = getattr(history, "history_", history)
    if not isinstance(history, Mapping):
        raise TypeError(
            f"history is a {type(history).__name__}; a mapping of arrays or a model with history_ is needed"
        )
    if HISTORY_KEYS & set(history):
        return {"": history}
    runs = {str(name): getattr(run, "history_", run) for name, run in history.items()}
    if not runs or not all(isinstance(run, Mapping) and HISTORY_KEYS & set(run) for run in runs.values()):
        raise ValueError(f"history has none of {', '.join(sorted(HISTORY_KEYS))}")
    return runs


def recorded(history: Mapping[str, Any], name: str) -> bool:
    """Whether anything was recorded, be it that the training diverged."""
    return name in history and not np.isnan(np.asarray(history[name], np.float64)).all()


def any_recorded(runs: Mapping[str, Any], quantity: str) -> bool:
    """Whether a quantity was recorded in any of several histories, of training or validation set."""
    names = (f"train_{quantity}", f"validation_{quantity}")
    return any(recorded(run, name) for run in runs.values() for name in names)


def check_window(running_mean: object) -> None:
    """Refuse a running mean over less than one value, or over a part of one."""
    if not isinstance(running_mean, (int, np.integer)) or running_mean < 1:
        raise ValueError(f"running_mean is {running_mean!r}; it must be a positive integer")


def curve(history: Mapping[str, Any], against: str, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Return the finite points of a curve, and whether it ends in others."""
    if against not in history:
        raise ValueError(f"the history has no {against}, only {', '.join(history)}")
    x, y = np.asarray(history[against], np.float64), np.asarray(history[name], np.float64)
    finite = np.isfinite(y)
    return x[finite], y[finite], not finite[-1]


def smoothed(y: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return the mean of the last `window` values up to each, of fewer at the beginning."""
    if window == 1 or y.size == 0:
        return y
    sums = np.concatenate([[0.0], np.cumsum(y)])
    ends = np.arange(1, y.size + 1)
    starts = np.maximum(ends - window, 0)
    means: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def draw_lines(lines: Sequence[Line], *, higher_is_better: bool, pale: bool = True) -> tuple[float, float] | None:
    """Draw curves, mark the best point of the rated ones and where curves diverge, and set limits for all alike.

    Returns the best point. `pale` shows what was smoothed, too.
    """
    best: tuple[float, Line, int] | None = None
    shown = []
    for line in lines:
        y = smoothed(line.y, line.window)
        shown.append(y)
        if pale and line.window > 1:
            line.ax.plot(line.x, line.y, **{**line.style, "label": None, "alpha": PALE, "linewidth": 0.8})
        line.ax.plot(line.x, y, **line.style)
        if line.diverged and y.size:
            line.ax.plot(line.x[-1], y[-1], "x", color=line.style["color"], markersize=6, clip_on=False)
        if line.rated and y.size:
            i = int(y.argmax() if higher_is_better else y.argmin())
            rank = -y[i] if higher_is_better else y[i]
            if best is None or rank < best[0]:
                best = rank, line, i
    low, high, scale = limits([y for y in shown if y.size], higher_is_better)
    for ax in {id(line.ax): line.ax for line in lines}.values():
        ax.set_yscale(scale)
        ax.set_ylim(low, high)
    if best is None:
        return None
    _, line, i = best
    y = smoothed(line.y, line.window)
    line.ax.plot(line.x[i], y[i], "o", markersize=9, color="none", markeredgecolor=BEST, markeredgewidth=1.4)
    return float(line.x[i]), float(y[i])


def keep_in_view(ax: Axes, x: NDArray[Any], y: NDArray[Any], important: NDArray[Any]) -> None:
    """Let the important values fill the axis; show others that are far off as small triangles at its edge."""
    low, high = important.min(), important.max()
    room = 0.6 * (high - low) or 0.05 * abs(high) or 1.0
    tenth = np.quantile(y, [0.1, 0.9])
    low, high = max(y.min(), min(low - room, tenth[0])), min(y.max(), max(high + room, tenth[1]))
    margin = 0.06 * (high - low) or room
    low, high = low - margin, high + margin
    for outside, edge, marker in ((y < low, 0, "v"), (y > high, 1, "^")):
        ends = np.full(int(outside.sum()), edge)
        ax.plot(
            x[outside], ends, marker, color="#767676", markersize=4, clip_on=False, transform=ax.get_xaxis_transform()
        )
    ax.set_ylim(low, high)


def limits(curves: Sequence[NDArray[np.float64]], higher_is_better: bool) -> tuple[float, float, str]:
    """Return limits and the kind of axis that show what is good: a run that diverges leaves the picture.

    Losses are shown up to where the worst run began, or where a quarter of all values are worse; scores down to where
    one in fifty is worse, as a run leaves its beginning within a few steps.
    """
    if not curves:
        return 0.0, 1.0, "linear"
    values = np.concatenate(curves)
    low, high = float(values.min()), float(values.max())
    if higher_is_better:
        low = float(np.quantile(values, 0.02))
    else:
        high = min(high, max(float(np.quantile(values, 0.75)), *(float(y[0]) for y in curves)))
    if not higher_is_better and low > 0 and high / low > 50:
        return low / 1.15, high * 1.15, "log"
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin, "linear"


# Parameters ------------------------------------------------------------------------------------


def text_of(value: Any) -> str:
    """Write a parameter's value for a title or a legend."""
    if isinstance(value, (float, np.floating)):
        return f"{value:g}"
    return str(getattr(value, "__name__", value))


def same(a: Any, b: Any) -> bool:
    return a is b or bool(np.all(np.asarray(a, object) == np.asarray(b, object)))


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def distinct(values: Iterable[Any]) -> list[Any]:
    """Return each value once: numbers sorted, others as they come."""
    found: list[Any] = []
    for value in values:
        if not any(same(value, other) for other in found):
            found.append(value)
    return sorted(found) if all(map(is_number, found)) else found


def place_in(known: Sequence[Any], value: Any) -> int:
    """Return the place of a value among known ones."""
    return next(i for i, other in enumerate(known) if same(value, other))


def varied(params: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the parameters that have several values, with these."""
    names = dict.fromkeys(name for run in params for name in run)
    values = {name: distinct(run.get(name) for run in params) for name in names}
    return {name: found for name, found in values.items() if len(found) > 1}


def places_of(
    values: Mapping[str, list[Any]], rows: str | None, columns: str | None, lines: str | None
) -> tuple[str | None, str | None, str | None]:
    """Give each parameter that varies a place: (rows, columns, lines)."""
    given = [name for name in (rows, columns, lines) if name is not None]
    for name in given:
        if name not in values:
            raise ValueError(f"{name} does not vary; {', '.join(values) or 'nothing'} does")
    if len(set(given)) < len(given):
        raise ValueError(f"rows, columns and lines are {rows}, {columns} and {lines}; they must differ")
    left = sorted((name for name in values if name not in given), key=lambda name: -len(values[name]))
    if len(given) + len(left) > 3:
        raise ValueError(f"{', '.join(values)} vary; fix some with where={{{left[-1]!r}: ...}}, three can be shown")
    # The last of those that are left go to the panels, where few values do well.
    if lines is None and left:
        lines = left.pop(0)
    if columns is None and left:
        columns = left.pop(0)
    if rows is None and left:
        rows = left.pop(0)
    return rows, columns, lines


def colors_of(values: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return colour and dashes for each value: numbers from dark to light, others in distinct colours."""
    if len(values) > 1 and all(map(is_number, values)):
        from matplotlib import colormaps

        return [(colormaps["viridis"](place), "-") for place in np.linspace(0, 0.84, len(values))]
    dashes = ("-", (0, (4, 1.5)), (0, (1, 1)))
    return [(COLORS[i % len(COLORS)], dashes[i // len(COLORS) % len(dashes)]) for i in range(len(values))]


def table_of(result: Any) -> Any:
    table = getattr(result, "table", result)
    if not hasattr(table, "keys"):
        raise TypeError(f"result is a {type(result).__name__}; a table of columns, or what has one, is needed")
    return table


def column(table: Any, name: str) -> list[Any]:
    for key in (name, f"param_{name}"):
        if key in table:
            return list(table[key])
    raise ValueError(f"the table has no column {name}, only {', '.join(map(str, table.keys()))}")


def scale_of(values: Sequence[Any]) -> tuple[str, NDArray[np.float64]]:
    """Return the kind of axis that suits the values of a parameter, and where they stand on it."""
    if all(map(is_number, values)):
        numbers = np.asarray(values, np.float64)
        sizes = np.abs(numbers[numbers != 0])
        if sizes.size == 0 or sizes.max() < DECADES * sizes.min():
            return "linear", numbers
        if (numbers > 0).all():
            return "log", numbers
    kinds = distinct(values)
    return "category", np.asarray([place_in(kinds, value) for value in values], np.float64)
