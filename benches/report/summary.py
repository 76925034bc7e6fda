"""What stands at the top of a report and decides its exit code, and under which headings its cases come."""

from __future__ import annotations

from typing import Any

from ..measuring import targets
from .case import SPEEDUPS
from .plan import GENERATED

__all__ = ["exit_code", "group_title", "groups", "summarize"]

#: A ratio this near to 1 is not told from 1 by these readings; nor is any that the shortest readings contradict.
NOISE = 0.05
#: The same of one kernel with all threads and with one.
_THREADS_NOISE, _THREADS = 0.03, "compiled_all_over_compiled_1"


def summarize(document: dict[str, Any]) -> dict[str, Any]:
    """Return what stands at the top of the report and decides the exit code."""
    cases = document["cases"]
    # Times of a NumPy that runs what the target does not have say nothing of the target.
    counted = [] if targets.not_held(document) else cases
    return {
        "measured": len(cases) + sum(1 for _ in document["known_answers"]),
        "cases": len(cases),
        "failed": [case["name"] for case in cases if case["failure"]],
        "disagree": [case["name"] for case in cases if not case["failure"] and not case["agrees"]],
        "slower": [
            {
                "name": case["name"],
                "threads": threads,
                "speedup": case["speedups"][name],
                "within_noise": case["speedups"][name] > 1 - NOISE or _best_disagree(case, name),
            }
            for case in counted
            for threads, name in (("1", "compiled_1_over_vectorized"), ("all", "compiled_all_over_vectorized_all"))
            if threads in case["slower_than_vectorized"]
        ],
        "threads_lose": [
            case["name"]
            for case in cases
            if case["speedups"]
            and case["speedups"][_THREADS] < 1 - _THREADS_NOISE
            and not _best_disagree(case, _THREADS)
        ],
        "differs": [answer["what"] for answer in document["known_answers"] if answer["verdict"] == "differs"],
        "matches": sum(answer["verdict"] == "matches" for answer in document["known_answers"]),
    }


def _best_disagree(case: dict[str, Any], name: str) -> bool:
    """Say whether the shortest readings have it the other way round than the medians."""
    slow, fast = (case["tiers"][tier]["best"] for tier in SPEEDUPS[name])
    return bool(slow > fast)


def exit_code(document: dict[str, Any]) -> int:
    """0 if everything agrees, 1 if anything is wrong (however fast), 130 after Ctrl-C."""
    summary = document["summary"]
    if summary["failed"] or summary["disagree"] or summary["differs"]:
        return 1
    return 130 if document["interrupted"] else 0


def groups(document: dict[str, Any]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Return ``(data, dtype, cases)`` in the order of the document."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for case in document["cases"]:
        found.setdefault((case["data"], case["dtype"]), []).append(case)
    return [(data, dtype, cases) for (data, dtype), cases in found.items()]


def group_title(data: str, dtype: str) -> str:
    """Return a heading for a group of cases."""
    if data.startswith(GENERATED):
        special = data.removeprefix(GENERATED).strip()
        return f"Generated arrays, {special + ', ' if special else ''}{dtype}"
    return f"{data[:1].upper()}{data[1:]}, {dtype}"
