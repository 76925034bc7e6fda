"""The report's plots, as SVG text that can stand inside a page.

Colours tell tiers apart also for the colour-blind, and a slower JIT is hatched as well as red.
"""

from __future__ import annotations

import io
import math
import re
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..measuring import formats as f
from .plan import GENERATED

COLORS = {
    "loops": "#767676",
    "vectorized": "#E69F00",
    "compiled_1": "#56B4E9",
    "compiled_all": "#0B5394",
}
SLOWER = "#C0392B"
_MARKERS = {"loops": "s", "vectorized": "D", "compiled_1": "o", "compiled_all": "^"}
_STYLE: dict[Any, Any] = {
    # Text stays text: it can be searched, selected and read aloud.
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "hatch.linewidth": 0.6,
    "hatch.color": "white",
}
_WIDTH = 9.6


def speedups(cases: list[dict[str, Any]], n_threads: int, *, salt: str) -> str:
    """One bar per kernel that grows from the loop by way of NumPy to the JIT with one and all threads.

    The axis is logarithmic, so equal lengths are equal factors. Where a step loses, the loss is drawn
    back over the bar in red.
    """
    with matplotlib.rc_context(_STYLE):
        figure, ax = _rows_figure(cases, extra=0.9)
        steps = ("vectorized_over_loops", "compiled_1_over_loops", "compiled_all_over_loops")
        colors = (COLORS["vectorized"], COLORS["compiled_1"], COLORS["compiled_all"])
        low, high = 1.0, 1.0
        for y, case in enumerate(cases):
            at = reached = 1.0
            for step, color in zip(steps, colors, strict=True):
                to = case["speedups"][step]
                lost = to < at
                ax.barh(
                    y,
                    abs(to - at),
                    left=min(at, to),
                    height=0.42 if lost else 0.74,
                    color=SLOWER if lost else color,
                    hatch="////" if lost else None,
                    zorder=3 if lost else 2,
                )
                low, high = min(low, to), max(high, to)
                at, reached = to, max(reached, to)
            behind = ", less than vectorised" if at < case["speedups"]["vectorized_over_loops"] else ""
            ax.text(reached * 1.06, y, f"{f.times(at)} ×{behind}", va="center", fontsize=8, color=_ink(not behind))
        ax.set_xscale("log")
        ax.set_xlim(low / 1.3, high * 2.6)
        ax.axvline(1, color="#333333", linewidth=0.8)
        _plain_log_ticks(ax, "×")
        ax.set_xlabel("times faster than the plain Python loop (higher is better, log scale)")
        handles = [
            Patch(color=COLORS["vectorized"], label="vectorised NumPy gains"),
            Patch(color=COLORS["compiled_1"], label="JIT with 1 thread adds"),
            Patch(color=COLORS["compiled_all"], label=f"JIT with {n_threads} threads adds"),
            Patch(facecolor=SLOWER, hatch="////", label="a step that loses"),
        ]
        _legend(figure, handles)
        return _svg(figure, salt, "Speed-up over the plain loop, per kernel")


def against_vectorized(cases: list[dict[str, Any]], n_threads: int, *, salt: str) -> str:
    """Ratio of vectorised to JIT time around 1: faster to the right, slower to the left and in red."""
    with matplotlib.rc_context(_STYLE):
        figure, ax = _rows_figure(cases, extra=0.9, row=0.3)
        values = []
        pairs = (
            ("compiled_1_over_vectorized", -0.19, COLORS["compiled_1"]),
            ("compiled_all_over_vectorized_all", 0.19, COLORS["compiled_all"]),
        )
        for y, case in enumerate(cases):
            for name, shift, color in pairs:
                value = case["speedups"][name]
                values.append(value)
                slower = value < 1
                ax.barh(
                    y + shift,
                    value - 1,
                    left=1,
                    height=0.36,
                    color=SLOWER if slower else color,
                    hatch="////" if slower else None,
                )
                label = f"{f.times(value)} ×" + (" SLOWER" if slower else "")
                ax.text(
                    value / 1.03 if slower else value * 1.03,
                    y + shift,
                    label,
                    va="center",
                    ha="right" if slower else "left",
                    fontsize=6.5,
                    color=_ink(not slower),
                )
        ax.set_xscale("log", base=2)
        ax.set_xlim(min(0.8, min(values) / 2 if min(values) < 1 else 0.8), max(2.0, max(values)) * 1.5)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g} ×"))
        ax.axvline(1, color="#333333", linewidth=1)
        ax.set_xlabel("times faster than vectorised NumPy with as many threads (higher is better, log scale)")
        handles = [
            Patch(color=COLORS["compiled_1"], label="1 thread"),
            Patch(color=COLORS["compiled_all"], label=f"{n_threads} threads"),
            Patch(facecolor=SLOWER, hatch="////", label="slower than vectorised"),
        ]
        _legend(figure, handles)
        return _svg(figure, salt, "JIT against vectorised, per kernel")


def times(cases: list[dict[str, Any]], n_threads: int, *, salt: str) -> str:
    """Seconds per call of every tier on one logarithmic axis."""
    with matplotlib.rc_context(_STYLE):
        figure, ax = _rows_figure(cases, extra=0.9)
        for y, case in enumerate(cases):
            seconds = {name: case["tiers"][name]["seconds"] for name in COLORS}
            ax.plot([min(seconds.values()), max(seconds.values())], [y, y], color="#bbbbbb", linewidth=1, zorder=1)
            for name, color in COLORS.items():
                scaled = name == "loops" and case["tiers"]["loops"]["scaled"]
                fill = "white" if scaled else color
                ax.plot(seconds[name], y, _MARKERS[name], color=color, markerfacecolor=fill, markersize=6, zorder=2)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _power_of_ten_seconds(x)))
        ax.xaxis.set_major_locator(LogLocator(numticks=20))
        ax.set_xlabel("seconds per call (further left is better, log scale)")
        titles = f.TIER_TITLES | {"compiled_all": f"JIT, {n_threads} threads"}
        handles = [
            Line2D([], [], linestyle="", marker=_MARKERS[name], color=color, label=titles[name])
            for name, color in COLORS.items()
        ]
        hollow = Line2D([], [], linestyle="", marker="s", color=COLORS["loops"], label="loop, scaled up")
        hollow.set_markerfacecolor("white")
        handles.append(hollow)
        _legend(figure, handles)
        return _svg(figure, salt, "Time per call in every tier")


def shares(cases: list[dict[str, Any]], n_threads: int, *, salt: str) -> str:
    """How much of the machine's own limit each kernel reaches."""
    with matplotlib.rc_context(_STYLE):
        figure, ax = _rows_figure(cases, extra=0.9, row=0.3, label=_long_name)
        highest = 1.0
        for y, case in enumerate(cases):
            for name, shift in (("compiled_1", -0.19), ("compiled_all", 0.19)):
                value = case["tiers"][name]["share_of_limit"]
                highest = max(highest, value)
                cached = case["limit"] == "memory" and case["fits_in_cache"]
                ax.barh(
                    y + shift,
                    value,
                    height=0.36,
                    facecolor="white" if cached else COLORS[name],
                    edgecolor=COLORS[name],
                    linewidth=1,
                )
                label = f"{f.share(value)} {case['limit']}"
                ax.text(value + highest * 0.008, y + shift, label, va="center", fontsize=6.5)
        ax.axvline(1, color=SLOWER, linewidth=1.2, linestyle="--")
        ax.set_xlim(0, highest * 1.12)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.0f} %"))
        ax.set_xlabel("share of the limit measured in this run, memory read rate or GEMM rate (higher is better)")
        handles = [
            Patch(color=COLORS["compiled_1"], label="JIT, 1 thread, of the limit with 1"),
            Patch(color=COLORS["compiled_all"], label=f"JIT, {n_threads} threads, of the limit with {n_threads}"),
            Patch(facecolor="white", edgecolor="#555555", label="data fits into the cache"),
            Line2D([], [], color=SLOWER, linestyle="--", label="the limit"),
        ]
        _legend(figure, handles)
        return _svg(figure, salt, "Share of the machine's limit, per kernel")


def roofline(cases: list[dict[str, Any]], limits: dict[str, Any], *, salt: str) -> str:
    """Operations per second against operations per byte, under the roof that this machine gives."""
    style = _STYLE | {"axes.grid.axis": "both"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(_WIDTH, 5.4), layout="constrained")
        ax = figure.subplots()
        drawn = [case for case in cases if case["flops"] > 0 and case["bytes"] > 0]
        intensity = [case["flops"] / case["bytes"] for case in drawn]
        x = np.geomspace(min([*intensity, 0.1]) / 2, max([*intensity, 10.0]) * 2, 200)
        for threads, color in (("1", COLORS["compiled_1"]), ("all", COLORS["compiled_all"])):
            for dtype, line in (("float32", "-"), ("float64", ":")):
                roof = np.minimum(x * limits["memory"][threads], limits["gemm"][dtype][threads])
                count = "1 thread" if threads == "1" else f"{limits['n_threads']} threads"
                ax.plot(x, roof, line, color=color, linewidth=1.4, label=f"roof, {dtype}, {count}")
        for name, marker in (("compiled_1", "o"), ("compiled_all", "^")):
            rates = [case["flops"] / case["tiers"][name]["seconds"] for case in drawn]
            ax.plot(intensity, rates, marker, color=COLORS[name], markersize=5, alpha=0.8, label=f.TIER_TITLES[name])
        vectorized = [case["flops"] / case["tiers"]["vectorized"]["seconds"] for case in drawn]
        label = "vectorised, 1 thread"
        ax.plot(intensity, vectorized, "D", color=COLORS["vectorized"], markersize=4, alpha=0.8, label=label)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f.rate(v, "flop")))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.set_xlabel("operations per byte that must be moved (log scale)")
        ax.set_ylabel("operations per second (higher is better, log scale)")
        figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8)
        return _svg(figure, salt, "Roofline")


def errors(cases: list[dict[str, Any]], *, salt: str) -> str:
    """The largest error of each tier in units of the entry's bound."""
    with matplotlib.rc_context(_STYLE):
        figure, ax = _rows_figure(cases, extra=0.9, row=0.3, label=_long_name)
        floor = 1e-4
        for y, case in enumerate(cases):
            for position, (name, color) in enumerate(COLORS.items()):
                value = case["tiers"][name]["error"]
                if value is None:
                    continue
                shown = min(max(value, floor), 1e3)
                # A little apart, because tiers often have the same error.
                at = y + 0.2 * (position - 1.5)
                ax.plot(shown, at, _MARKERS[name], color=color if value <= 1 else SLOWER, markersize=4.5)
                if value > 1:
                    ax.text(shown * 1.2, at, f"{f.error(value)} WRONG", va="center", fontsize=7, color=SLOWER)
        ax.set_xscale("log")
        ax.set_xlim(floor / 1.6, 1e4 if any((f.worst_error(case) or 0) > 1 for case in cases) else 3)
        ax.axvline(1, color=SLOWER, linewidth=1.2, linestyle="--")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "exact or less" if x <= floor else f"{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("largest error over the bound of the entry (left of the line is right, log scale)")
        handles = [
            Line2D([], [], linestyle="", marker=_MARKERS[name], color=color, label=f.TIER_TITLES[name])
            for name, color in COLORS.items()
        ]
        handles.append(Line2D([], [], color=SLOWER, linestyle="--", label="the bound"))
        _legend(figure, handles)
        return _svg(figure, salt, "Error against the reference, in units of the bound")


def _rows_figure(
    cases: list[dict[str, Any]], *, extra: float, row: float = 0.235, label: Any = None
) -> tuple[Figure, Axes]:
    """Return a figure with one labelled row per case, in the order of the table, families set apart."""
    figure = Figure(figsize=(_WIDTH, row * len(cases) + extra + 0.35), layout="constrained")
    ax = figure.subplots()
    ax.set_ylim(len(cases) - 0.4, -0.6)
    ax.set_yticks(range(len(cases)), [(label or _entry_name)(case) for case in cases], fontsize=8)
    ax.tick_params(axis="y", length=0)
    for y in range(1, len(cases)):
        if cases[y]["family"] != cases[y - 1]["family"]:
            ax.axhline(y - 0.5, color="#999999", linewidth=0.6)
    return figure, ax


def _ink(good: bool) -> str:
    return "#222222" if good else SLOWER


def _entry_name(case: dict[str, Any]) -> str:
    return str(case["entry"])


def _long_name(case: dict[str, Any]) -> str:
    where = "" if case["data"] == GENERATED else f", {case['data'].removeprefix(GENERATED).strip()}"
    return f"{case['entry']}, {case['dtype']}{where}"


def _legend(figure: Figure, handles: list[Any]) -> None:
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=8)


def _plain_log_ticks(ax: Axes, sign: str) -> None:
    ax.xaxis.set_major_locator(LogLocator(numticks=20))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f} {sign}" if x >= 1 else f"{x:g} {sign}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _power_of_ten_seconds(value: float) -> str:
    exponent = round(math.log10(value))
    unit, shift = next((u, s) for u, s in (("s", 0), ("ms", -3), ("µs", -6), ("ns", -9), ("ns", -99)) if exponent >= s)
    return f"{10.0 ** (exponent - (shift if shift > -99 else -9)):g} {unit}"


_SCALING = {"pairwise_l2": ("#0B5394", "o"), "k_nearest": ("#E69F00", "s")}
_SCALING_AXES = {
    "threads": "threads",
    "n": "n, rows of X",
    "m": "m, rows of Y",
    "d": "D, columns",
    "k": "k, neighbours",
}


def scaling(points: list[dict[str, Any]], *, salt: str) -> str:
    """One small plot per axis: millions of pairs x columns a second against the axis's value."""
    with matplotlib.rc_context({**_STYLE, "axes.grid.axis": "both"}):
        figure = Figure(figsize=(_WIDTH, 5.2), layout="constrained")
        axes = figure.subplots(2, 3).ravel()
        for ax, (axis, label) in zip(axes, _SCALING_AXES.items(), strict=False):
            for function, (color, marker) in _SCALING.items():
                found = [point for point in points if (point["axis"], point["function"]) == (axis, function)]
                if not found:
                    continue
                x, y = ([point[key] for point in found] for key in ("value", "rate"))
                ax.plot(x, np.array(y) / 1e9, color=color, marker=marker, markersize=4, label=function)
                if axis == "threads":
                    ax.plot(x, np.array(x) * y[0] / 1e9, color=color, linestyle="--", linewidth=0.8)
            ax.set_xscale("log", base=2 if axis in ("threads", "d", "n", "m") else 10)
            ax.set_ylim(bottom=0)
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.set_xlabel(label)
        for ax in axes[::3]:
            ax.set_ylabel("thousand million\nelements a second")
        handles, labels = axes[0].get_legend_handles_labels()
        axes[-1].axis("off")
        axes[-1].legend(handles, labels, frameon=False, loc="center left")
        return _svg(figure, salt, "Speed of distances against threads, n, m, D and k")


#: Told apart also by the colour-blind (Okabe and Ito).
_PEERS = ("#0B5394", "#E69F00", "#009E73", "#56B4E9", "#CC79A7", "#767676")


def peers(outcomes: list[dict[str, Any]], *, salt: str) -> str:
    """One bar per job and library: its time over ours, to the right where we are faster, to the left where slower."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 0.2 * len(outcomes) + 1.2), layout="constrained")
        ax = figure.subplots()
        packages = list(dict.fromkeys(outcome["package"] for outcome in outcomes))
        color = {package: _PEERS[i % len(_PEERS)] for i, package in enumerate(packages)}
        labels, last = [], None
        for y, outcome in enumerate(outcomes):
            ratio, slower, job = outcome["ratio"], outcome["ratio"] < 1, (outcome["job"], outcome["size"])
            ax.barh(
                y,
                ratio - 1,
                left=1,
                height=0.74,
                color=color[outcome["package"]],
                edgecolor=SLOWER if slower else color[outcome["package"]],
                hatch="////" if slower else None,
                alpha=1 if outcome.get("held", True) else 0.35,
            )
            ax.text(
                ratio / 1.04 if slower else ratio * 1.04,
                y,
                f"{f.times(ratio)} ×{'' if outcome.get('held', True) else ', not held'}",
                va="center",
                ha="right" if slower else "left",
                fontsize=7,
                color=_ink(not slower),
            )
            labels.append(", ".join(job) if job != last else "")
            if job != last and y:
                ax.axhline(y - 0.5, color="#bbbbbb", linewidth=0.5)
            last = job
        ratios = [outcome["ratio"] for outcome in outcomes]
        ax.set_xscale("log")
        ax.set_xlim(min(0.7, min(ratios) / 1.6), max(1.5, max(ratios) * 1.8))
        ax.set_ylim(len(outcomes) - 0.4, -0.6)
        ax.set_yticks(range(len(outcomes)), labels, fontsize=7.5)
        ax.tick_params(axis="y", length=0)
        ax.axvline(1, color="#333333", linewidth=1)
        _plain_log_ticks(ax, "×")
        ax.set_xlabel("the other library's time over ours (above 1 we are faster, log scale)")
        handles = [Patch(color=color[package], label=package) for package in packages]
        handles.append(Patch(facecolor="white", edgecolor=SLOWER, hatch="////", label="we are slower"))
        _legend(figure, handles)
        return _svg(figure, salt, "Times of other libraries over ours, per job")


def history(lines: dict[str, list[tuple[str, float]]], *, salt: str) -> str:
    """Relative time against the date, one line per benchmark and machine."""
    from datetime import datetime

    with matplotlib.rc_context({**_STYLE, "axes.grid.axis": "both"}):
        figure = Figure(figsize=(_WIDTH, 2.2 + 0.16 * len(lines)), layout="constrained")
        ax = figure.subplots()
        for i, (label, points) in enumerate(lines.items()):
            x = [datetime.fromisoformat(date) for date, _ in points]
            style = ("-", "--", ":", "-.")[i // len(_PEERS) % 4]
            color = _PEERS[i % len(_PEERS)]
            # Matplotlib's stubs know numbers only; dates are drawn as dates.
            ax.plot(x, [value for _, value in points], style, marker="o", markersize=4, color=color, label=label)  # type: ignore[arg-type]
        ax.axhline(1, color="#333333", linewidth=0.8)
        ax.set_ylim(0, 1.1 * max(value for points in lines.values() for _, value in points))
        ax.set_ylabel("time, first = 1")
        ax.tick_params(axis="x", labelrotation=20)
        figure.legend(loc="outside lower left", frameon=False, fontsize=7)
        return _svg(figure, salt, "Time of a call against the date, relative to the first record")


def _svg(figure: Figure, salt: str, title: str) -> str:
    """Return the figure as an ``<svg>`` element: no XML prologue, no metadata, ids of its own."""
    buffer = io.StringIO()
    # Ids are derived from the salt, so that clip paths of two figures in one page do not meet.
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    head, _, rest = text.partition(">")
    # Scales with the page; the viewBox keeps the proportions.
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{title}"><title>{title}</title>{rest}'
