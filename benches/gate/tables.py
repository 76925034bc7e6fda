"""The outcome of a gate for a person: in the terminal, and as Markdown for a hosted workflow's summary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..measuring import formats as f
from . import CANNOT, FINE, SLOWER, WRONG
from .outcome import Found, Outcome

__all__ = ["NO_BASE", "markdown", "text"]

NO_BASE = (
    "There is no base: no repository, or in it neither a commit with a history file nor a main branch. "
    "Nothing was measured."
)
_VERDICTS = {
    FINE: "OK: nothing is slower, all results are right",
    SLOWER: "SLOWER: confirmed in fresh processes",
    WRONG: "WRONG RESULTS",
    CANNOT: "COULD NOT RUN",
}
#: What a reader wants to see by itself, in this order; the rest is summed up.
_NOTABLE = (
    "wrong",
    "failed",
    "gone",
    "slower",
    "accepted",
    "not run again",
    "not comparable",
    "faster",
    "not confirmed",
    "new",
)
_HEAD = ("benchmark", "base", "head", "ratio", "interval", "verdict")
_RATIO = (
    "ratio: the head's time over the base's, median over the pairs; above 1 the head is slower. "
    "interval: of that median, 95 % (94 % from 5 pairs)"
)


def text(outcome: Outcome, document: dict[str, Any]) -> str:
    """Lay the outcome out for a terminal."""
    notable = _notable(outcome)
    parts = [*_summary(outcome, document)]
    if notable:
        parts += ["", *_columns(notable)]
    rest = outcome.having("same")
    if rest:
        parts += ["", *_columns(_per_kernel(rest), ("no difference", "runs", "", "ratios", "", ""))]
    return "\n".join([*parts, "", _verdict(outcome)])


def markdown(outcome: Outcome, document: dict[str, Any]) -> str:
    """Lay the outcome out as Markdown."""
    lines = [
        f"## Regression gate: {_verdict(outcome)}",
        "",
        *(f"- {line}" for line in _summary(outcome, document)),
    ]
    notable = _notable(outcome)
    if notable:
        lines += ["", *_rows(_HEAD, [_cells(found) for found in notable])]
    rest = sorted(outcome.having("same"), key=lambda found: -(found.ratio or 0))
    if rest:
        lines += ["", f"<details><summary>{len(rest)} without a difference</summary>", ""]
        lines += [*_rows(_HEAD, [_cells(found) for found in rest]), "", "</details>"]
    return "\n".join([*lines, ""])


def _verdict(outcome: Outcome) -> str:
    if len(outcome.having("left out")) == len(outcome.found):
        return "OK: nothing to compare, all benchmarks stand on the same sources"
    if outcome.exit_code == WRONG and not outcome.having("wrong"):
        return "FAILED: benchmarks raise"
    if outcome.exit_code == CANNOT and outcome.having("gone"):
        return "GONE: the head lacks benchmarks of the base"
    return _VERDICTS[outcome.exit_code]


def _summary(outcome: Outcome, document: dict[str, Any]) -> Iterator[str]:
    base, head = document["base"], document["head"]
    on = "the worktree on " if head["changed"] else ""
    yield f"base {base['commit'][:10]} ({base['why']}), head {on}{head['commit'][:10]}"
    left_out, new = len(outcome.having("left out")), len(outcome.having("new"))
    compared = sum(found.ratio is not None for found in outcome.found)
    yield (
        f"{outcome.expected} benchmarks: {compared} compared, {left_out} left out because the sources they stand on "
        f"are the same, {new} new, {outcome.expected - compared - left_out - new} without a comparison"
    )
    again = f", then {len(outcome.confirming)} for what looked slower or faster" if outcome.confirming else ""
    yield (
        f"{len(outcome.screening)} pairs of processes{again}; {outcome.seconds:.0f} s, of which {outcome.warm_s:.0f} s "
        f"compiling and checking; {document['threads']} threads, {document['machine']['cpu']['model']}"
    )
    if target := f.target(document):
        yield target
    if outcome.screening:
        yield _RATIO
    yield from (f"accepted.toml, entry to remove: {entry}" for entry in outcome.stale)
    yield from outcome.remarks
    yield from outcome.problems


def _notable(outcome: Outcome) -> list[Found]:
    return sorted(
        outcome.having(*_NOTABLE), key=lambda found: (_NOTABLE.index(found.verdict), -(found.ratio or 0), found.name)
    )


def _cells(found: Found) -> tuple[str, ...]:
    verdict = f"{found.verdict}: {found.note}" if found.note else found.verdict
    if found.ratio is None or found.base_s is None or found.head_s is None:
        return (found.name, "", "", "", "", verdict)
    times = f.seconds(found.base_s), f.seconds(found.head_s)
    return (found.name, *times, f"{found.ratio:.3f}", f"{found.low:.3f} to {found.high:.3f}", verdict)


def _per_kernel(found: Sequence[Found]) -> list[tuple[str, ...]]:
    """One line per kernel: how many ran, and between which ratios."""
    kernels: dict[str, list[float]] = {}
    for one in found:
        kernels.setdefault(one.kernel, []).append(one.ratio or float("nan"))
    return [
        (kernel, f"{len(ratios)}", "", f"{min(ratios):.3f}", f"to {max(ratios):.3f}", "")
        for kernel, ratios in kernels.items()
    ]


def _columns(rows: Sequence[Any], head: Sequence[str] = _HEAD) -> list[str]:
    cells = [tuple(head), *(row if isinstance(row, tuple) else _cells(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if i in (0, 5) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(head), "|" + "---|" * len(head), *map(line, rows)]
