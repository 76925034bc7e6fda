"""Outcomes in lines, for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .jobs.job import OURS, Outcome

__all__ = ["HEADER", "figures", "is_error", "is_held", "lines", "reason", "summary"]

HEADER = f"{'job':<12} {'peer':<20} {'ours s':>8} {'peer s':>8} {'ratio':>7} {'±':>5} {'goal':>5}"
_WIDTH = 100


def lines(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Lay the outcomes of one job out in at most 100 columns, under `HEADER`."""
    for place, o in enumerate(outcomes):
        if place == 0:
            yield f"{o.job}, {o.size}"
        goal = "" if o.goal is None else f"{o.goal:.2f}"
        name = f"{'':<12} {'limit' if o.limit else o.package:<20}"
        if o.ratio is None:
            yield from textwrap.wrap(reason(asdict(o)), _WIDTH, initial_indent=f"{name} ", subsequent_indent=" " * 15)
            continue
        mark = "not held" if not o.held else "" if o.goal is None else "reached" if o.ratio >= o.goal else "short"
        yield f"{name} {o.ours_seconds:8.4f} {o.seconds:8.4f} {o.ratio:7.2f} {o.spread:5.2f} {goal:>5} {mark}".rstrip()
        yield f"{'':<15}{o.setting}" + (f" ({o.package}); the ratio is our share of it" if o.limit else "")


def figures(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a whole run measures beside times, in lines."""
    if "errors" not in document:
        return
    yield "largest relative error of float32 L2 distances:"
    for points, values in document["errors"].items():
        found = ", ".join(f"{name} {'-' if value is None else f'{value:.1e}'}" for name, value in values.items())
        yield f"  {points:<8} {found}"
    yield "linear_loss_gradient, 90 float32 columns, time per row:"
    yield "  " + ", ".join(f"{int(n):,} rows {value:.1f} ns" for n, value in document["nanoseconds_per_row"].items())
    if document["extra_megabytes"] is not None:
        size = " × ".join(f"{length:,}" for length in document["extra_megabytes_of"])
        yield f"k_nearest of {size} raises the peak memory by {document['extra_megabytes']:.1f} MiB"


def reason(outcome: Mapping[str, Any]) -> str:
    """Say why an outcome has no time."""
    starts = {"failed": "failed: ", "not reached": "does not reach the goal: ", "wrong": "WRONG: "}
    return f"{starts.get(outcome['status'], '')}{outcome['problem']}"


def is_error(outcome: Mapping[str, Any]) -> bool:
    """Say whether a result is wrong or we failed; a peer may be missing, fail or stop early."""
    ours = outcome["package"] == OURS and outcome["status"] not in ("timed", "missing")
    return ours or outcome["status"] == "wrong"


def is_held(outcome: Mapping[str, Any]) -> bool:
    """Say whether a ratio counts: all of a run do that has no target."""
    return bool(outcome.get("held", True))


def summary(outcomes: Sequence[Mapping[str, Any]]) -> str:
    """Count wins and losses beside other libraries: limits and our own other ways are none, nor who was not held."""
    others = [o for o in outcomes if not o["limit"] and o["package"] != OURS]
    timed = [o for o in others if o["ratio"] is not None and is_held(o)]
    slower = sum(o["ratio"] < 1 for o in timed)
    text = f"{len(timed)} comparisons: we are faster in {len(timed) - slower}, slower in {slower}"
    for status in ("not reached", "failed", "wrong"):
        count = sum(o["status"] == status for o in others)
        text += f"; {count} {_UNTIMED[status]}" if count else ""
    not_held = sum(o["ratio"] is not None and not is_held(o) for o in others)
    text += f"; {not_held} not counted, as the peer is not held to the target" if not_held else ""
    return f"{text}."


_UNTIMED = {
    "not reached": "without a time, as the peer does not reach the goal",
    "failed": "without a time, as the peer failed",
    "wrong": "without a time, as the peer's result differs",
}
