"""How numbers are printed, in the terminal and in the page alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastml.kernels.distances.arguments import DEFINITIONS

TIER_TITLES = {
    "loops": "loop",
    "vectorized": "vectorised",
    "vectorized_all": "vectorised, all threads",
    "compiled_1": "JIT, 1 thread",
    "compiled_all": "JIT, all threads",
    "compiled_out": "JIT, 1 thread, out=",
}
METRIC_TITLES = {name: definition.title for name, definition in DEFINITIONS.items()}
#: Behind the time of a loop that ran on a part only; the footnote says so.
PART_MARK = "*"
#: Behind a share whose data may come from a cache.
CACHE_MARK = "c"


def seconds(value: float) -> str:
    """Three digits and a unit: ``12.3 ms``."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 0.9995:
            return f"{_three(value * factor)} {unit}"
    return f"{_three(value * 1e9)} ns"


def rate(value: float, unit: str) -> str:
    """Three digits, a prefix and the unit: ``27.1 Gelem/s``."""
    for factor, prefix in ((1e-12, "T"), (1e-9, "G"), (1e-6, "M"), (1e-3, "k")):
        if value * factor >= 0.9995:
            return f"{_three(value * factor)} {prefix}{unit}/s"
    return f"{_three(value)} {unit}/s"


def times(value: float) -> str:
    """Print a ratio with two or three digits, large ones with thousands separators."""
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def share(value: float) -> str:
    return f"{100 * value:.0f} %" if value >= 0.0095 else f"{100 * value:.2f} %"


def error(value: float | None) -> str:
    """An error in units of its bound."""
    if value is None:
        return "-"
    if value >= 1e300:
        return "NaN"
    return "0" if value == 0 else f"{value:.2f}" if value >= 0.005 else f"{value:.0e}"


def size(axes: dict[str, int]) -> str:
    """``n=500, m=5,000``."""
    return ", ".join(f"{axis}={length:,}" for axis, length in axes.items())


def worst_error(case: dict[str, Any]) -> float | None:
    """The largest error of any tier of a case."""
    found = [tier["error"] for tier in case["tiers"].values() if tier["error"] is not None]
    return max(found, default=None)


def slower_phrases(summary: dict[str, Any], all_threads: int) -> list[str]:
    """One phrase per entry that is slower than vectorised: by how much, and whether that is noise."""
    phrases = []
    for item in summary["slower"]:
        threads = "1 thread" if item["threads"] == "1" else f"all {all_threads} threads"
        noise = ", within the noise" if item["within_noise"] else ""
        phrases.append(f"{item['name']}: {times(item['speedup'])} × as fast with {threads}{noise}")
    return phrases


def threads_phrases(summary: dict[str, Any]) -> list[str]:
    """One phrase per case that takes longer with all threads than with one."""
    return [f"{name}: slower with all threads than with one" for name in summary["threads_lose"]]


def busy(document: dict[str, Any]) -> str:
    """Say that other processes ran when the measuring began, empty if they did not."""
    load = document["load_average"]
    if load is None or load < 0.5:
        return ""
    return f"Other processes ran in the minute before (load average {load:.1f}): times are noisier, threads gain less."


def target(document: Mapping[str, Any]) -> str:
    """Say which kind of CPU the libraries were held to, and which could not be; empty for the CPU as it is."""
    found = document.get("target")
    if not found:
        return ""
    held = [one["name"] for one in found["libraries"] if not one["problem"]]
    text = f"Held to {found['name']}: {', '.join(held)}."
    if others := [f"{one['name']} ({one['problem']})" for one in found["libraries"] if one["problem"]]:
        text += f" Not held to it, so not counted: {', '.join(others)}."
    return text


def _three(value: float) -> str:
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:,.{min(digits, 2)}f}"
