"""What came of a gate, benchmark by benchmark; which slowdowns are intended; and the exit code."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from . import CANNOT, FINE, SLOWER, WRONG
from .environments import GateError
from .rounds import Pair

__all__ = ["ACCEPTED_SLACK", "Accepted", "Found", "Outcome", "read_accepted"]

#: An accepted slowdown may be exceeded by this factor, which is noise.
ACCEPTED_SLACK = 1.05
#: What is slower still is another program, and no entry lets it pass.
MOST_ACCEPTED = 10.0


@dataclass(frozen=True)
class Accepted:
    """An intended slowdown: `benchmark` is a name, or a pattern with ``*`` and ``?``; without a factor, a removal."""

    benchmark: str
    reason: str
    factor: float | None = None

    def covers(self, name: str) -> bool:
        expression = re.escape(self.benchmark).replace(r"\*", ".*").replace(r"\?", ".")
        return re.fullmatch(expression, name) is not None


@dataclass
class Found:
    """What came of one benchmark.

    `verdict` is one of "same", "faster", "slower", "accepted", "not confirmed" (looked slower or faster, but did not
    when run again), "not run again" (looks slower or faster; enough others did too), "new" (the base does not have it),
    "gone" (the head does not), "not comparable" (the base fails at it), "wrong", "failed", "left out".
    """

    name: str
    kernel: str
    verdict: str = "same"
    base_s: float | None = None
    head_s: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    error: float | None = None
    note: str = ""


@dataclass
class Outcome:
    """What came of all of them."""

    found: list[Found]
    listed: list[str]  # all that the head has, also what was not asked for
    of_base: list[str] | None = None  # what the base has by itself, if that is known
    expected: int = 0
    screening: list[Pair] = field(default_factory=list)
    confirming: list[Pair] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warm_s: float = 0.0
    seconds: float = 0.0

    def having(self, *verdicts: str) -> list[Found]:
        return [found for found in self.found if found.verdict in verdicts]

    @property
    def exit_code(self) -> int:
        """A wrong result is certain, so it comes before everything else."""
        if self.having("wrong", "failed"):
            return WRONG
        if self.problems:
            return CANNOT
        return SLOWER if self.having("slower") else FINE


def read_accepted(file: Path) -> list[Accepted]:
    """Read the file of intended slowdowns; one that is not there is empty."""
    if not file.exists():
        return []
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
        entries = [Accepted(**entry) for entry in document.pop("accepted", [])]
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise GateError(f"{file.name}: {error}") from None
    if document:
        raise GateError(f"{file.name}: no such key: {', '.join(document)}")
    for entry in entries:
        if not all(isinstance(text, str) and text.strip() for text in (entry.benchmark, entry.reason)):
            raise GateError(
                f"{file.name}: the entry for {entry.benchmark!r} needs a benchmark and a reason, both texts"
            )
        factor = entry.factor
        if factor is not None and not (isinstance(factor, int | float) and 1 < factor <= MOST_ACCEPTED):
            raise GateError(
                f"{file.name}: the factor of {entry.benchmark!r} is {factor!r}; a number above 1, up to "
                f"{MOST_ACCEPTED:g}, is needed"
            )
    return entries
