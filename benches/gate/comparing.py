"""Compare two sides: what there is to run, first calls, screening, confirmation, and a verdict for each benchmark."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .decision import RULE, Rule, confirmed, interval, medians, p_values, suspected
from .environments import GateError
from .outcome import ACCEPTED_SLACK, Accepted, Found, Outcome
from .rounds import Pair, Side, ask, first_calls, measure_pair, samples
from .sources import Sources

__all__ = ["check_numbers", "compare", "default_jobs", "groups_of_one_code", "plan", "warm"]

#: Kept back for running again what is suspected.
RESERVE_S = 120.0
#: So many suspects are run again at a time, the slowest first, until it is certain that something is slower.
AGAIN_AT_A_TIME = 64


def plan(
    head: Side,
    base_sources: Sources | None,
    head_sources: Sources | None,
    only: str | None = None,
    *,
    base: Side | None = None,
) -> Outcome:
    """Return what there is to run, and what there is no more.

    Parameters
    ----------
    head : Side
        What it lists is run.
    base_sources, head_sources : Sources or None
        Benchmarks that stand on the same sources in both have the verdict "left out"; None leaves nothing out.
    only : str, optional
        A part of a name, or a pattern.
    base : Side, optional
        The base with its own catalogue; what it lists and the head does not has the verdict "gone".
    """
    from fastml.kernels.catalogue import select

    listed = _listed(head)
    names = [item["name"] for item in listed]
    chosen = set(select(names, only))
    outcome = Outcome([Found(item["name"], item["kernel"]) for item in listed if item["name"] in chosen], names)
    if base is not None:
        _add_gone(outcome, base, only)
    if not outcome.found:
        raise GateError(f"--only {only!r} matches none of {len(listed)} benchmarks")
    outcome.expected = len(outcome.found)
    if base_sources is not None and head_sources is not None:
        packages = {item["name"]: item["package"] for item in listed}
        for found in outcome.having("same"):
            stands_on = packages[found.name], found.kernel.partition("[")[0]
            digest = head_sources.digest(*stands_on)
            if digest is not None and digest == base_sources.digest(*stands_on):
                found.verdict = "left out"
    return outcome


def _add_gone(outcome: Outcome, base: Side, only: str | None) -> None:
    """Add what the base has and the head does not; a base so old that it cannot say what it has is remarked upon."""
    from fastml.kernels.catalogue import select

    try:
        listed = _listed(base)
    except GateError as error:
        outcome.remarks.append(f"what the base has, and the head perhaps lost, is not known: {error}")
        return
    outcome.of_base = [item["name"] for item in listed]
    lost = set(select(outcome.of_base, only)) - set(outcome.listed)
    outcome.found += [
        Found(item["name"], item["kernel"], "gone", note="the head does not have it")
        for item in listed
        if item["name"] in lost
    ]


def _listed(side: Side) -> list[dict[str, str]]:
    """Ask a side for its benchmarks, and count them."""
    with contextlib.closing(side.start()) as process:
        answer = ask(process, do="list")
    listed: list[dict[str, str]] = answer["benchmarks"]
    if len(listed) != answer["expected"] or len({item["name"] for item in listed}) != len(listed):
        raise GateError(f"{answer['expected']} different benchmarks were expected, the {side.name} lists {len(listed)}")
    return listed


def compare(
    base: Side,
    head: Side,
    outcome: Outcome,
    accepted: Sequence[Accepted],
    deadline: float,
    *,
    rule: Rule = RULE,
    jobs: int = 1,
    clock: Callable[[], float] = time.monotonic,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Run what is to be run, and fill in the verdicts.

    Screening ends when `deadline`, less what a confirmation takes, is near; but not before `rule.least_pairs`. `jobs`
    processes compile.
    """
    start = clock()
    _accept_gone(outcome, accepted)
    waiting = outcome.having("same")
    if not waiting:
        return
    head_answers, base_answers = warm([head, base], waiting, jobs, say, check=[head])
    for found in waiting:
        _judge_first(found, base_answers[found.name], head_answers[found.name], outcome)
    outcome.warm_s = clock() - start

    timed = outcome.having("same")
    names = [found.name for found in timed]
    outcome.screening = _screen(base, head, names, deadline, rule, clock, say)
    check_numbers(outcome, timed, rule)
    for found, column in zip(timed, samples(outcome.screening, names).T, strict=True):
        _describe(found, column, outcome.screening)
        _judge(found, outcome.screening[0][found.name].error)
    _run_again(base, head, outcome, accepted, rule, say)
    outcome.stale = [*_stale(outcome, accepted)]
    outcome.seconds = clock() - start


def _screen(
    base: Side,
    head: Side,
    names: Sequence[str],
    deadline: float,
    rule: Rule,
    clock: Callable[[], float],
    say: Callable[[str], None],
) -> list[Pair]:
    """Measure pairs of all benchmarks, as many as there is time for."""
    pairs: list[Pair] = []
    while names and len(pairs) < rule.most_pairs:
        began = clock()
        # The first calls compiled; the first pair loads what they kept, and that may be wrong on its own.
        pairs.append(measure_pair(base, head, names, len(pairs), check=not pairs))
        took = clock() - began
        say(f"pair {len(pairs)}: {took:.0f} s")
        if len(pairs) >= rule.least_pairs and clock() + took > deadline - RESERVE_S:
            break
    return pairs


def _run_again(
    base: Side, head: Side, outcome: Outcome, accepted: Sequence[Accepted], rule: Rule, say: Callable[[str], None]
) -> None:
    """Run what looks slower or faster again and settle it; of much that looks slower, no more than makes it certain."""
    timed = outcome.having("same")
    values = samples(outcome.screening, [found.name for found in timed])
    slower, faster = (
        [found for found, one in zip(timed, suspected(signed, rule), strict=True) if one]
        for signed in (values, -values)
    )
    slower.sort(key=lambda found: found.ratio or 0, reverse=True)
    faster.sort(key=lambda found: found.ratio or 0)
    for found in slower + faster:
        found.verdict = "not run again"
    while (slower or faster) and not outcome.having("slower"):
        _confirm(base, head, slower[:AGAIN_AT_A_TIME], faster[:AGAIN_AT_A_TIME], outcome, rule, say)
        _accept(outcome, accepted)
        slower, faster = slower[AGAIN_AT_A_TIME:], []


def warm(
    sides: Sequence[Side], found: Sequence[Found], jobs: int, say: Callable[[str], None], check: Sequence[Side] = ()
) -> list[dict[str, dict[str, Any]]]:
    """Call every benchmark once on every side, under a progress bar; return the answers of each side."""
    from tqdm import tqdm

    say(f"first calls of {len(found)} benchmarks on both sides")
    # The bar goes to stderr, and only to a terminal.
    with tqdm(total=len(sides) * len(found), unit="call", leave=False, disable=None) as bar:
        return first_calls(sides, groups_of_one_code(found), jobs=jobs, check=check, tick=bar.update)


def groups_of_one_code(found: Sequence[Found]) -> list[list[str]]:
    """Group benchmarks that share machine code; models come last, when the kernels that they call are compiled."""
    from fastml.cli.warmup import of_one_code
    from fastml.kernels.catalogue import ENTRIES

    of_kernel: dict[str, list[str]] = {}
    for one in found:
        of_kernel.setdefault(one.kernel, []).append(one.name)
    in_order = sorted(of_one_code(list(of_kernel)), key=lambda kernels: kernels[0] not in ENTRIES)
    return [[name for kernel in kernels for name in of_kernel[kernel]] for kernels in in_order]


def _judge_first(found: Found, base: dict[str, Any], head: dict[str, Any], outcome: Outcome) -> None:
    """Settle what can be said before anything is timed."""
    if "failed" in head or "missing" in head:
        found.verdict, found.note = "failed", str(head.get("failed") or head["missing"])
        return
    _judge(found, head.get("error"))
    failure = str(base.get("failed", ""))
    if found.verdict == "wrong":
        return
    if "missing" in base or (failure and outcome.of_base is not None and found.name not in outcome.of_base):
        found.verdict, found.note = "new", str(base.get("missing") or f"the base raises {failure}")
    elif failure:
        found.verdict, found.note = "not comparable", f"the base raises {failure}"
        # Another signature is a change; anything else that goes wrong in the base leaves a benchmark without a guard.
        if not failure.startswith("TypeError"):
            outcome.problems.append(f"the base fails at {found.name}: {failure}")


def _judge(found: Found, error: float | None) -> None:
    """Take down how wrong a result is; one of which nobody knows is wrong too."""
    found.error = error
    if error is None or not error <= 1:
        found.verdict = "wrong"
        found.note = "its error is not known" if error is None else f"its error is {error:.3g} times the bound"


def _confirm(
    base: Side,
    head: Side,
    slower: list[Found],
    faster: list[Found],
    outcome: Outcome,
    rule: Rule,
    say: Callable[[str], None],
) -> None:
    """Run again what looks slower and what looks faster, with fresh processes, and believe these alone."""
    names = [found.name for found in slower + faster]
    say(f"again, in {rule.confirming_pairs} fresh pairs: {', '.join(names)}")
    first = len(outcome.screening) + len(outcome.confirming)
    pairs = [measure_pair(base, head, names, first + i) for i in range(rule.confirming_pairs)]
    outcome.confirming += pairs
    for verdict, sign, looked in (("slower", 1, slower), ("faster", -1, faster)):
        values = sign * samples(pairs, [found.name for found in looked])
        for found, column, p, is_so in zip(
            looked, values.T, p_values(values, rule.floor), confirmed(values, rule), strict=True
        ):
            found.note = f"{found.ratio:.2f} at first"
            _describe(found, sign * column, pairs)
            found.p = float(p)
            found.verdict = verdict if is_so else "not confirmed"


def _describe(found: Found, column: np.ndarray[Any, Any], pairs: Sequence[Pair]) -> None:
    found.ratio = float(np.exp(medians(column[:, None])[0]))
    found.low, found.high = interval(column)
    found.base_s, found.head_s = (
        float(np.median([np.median(getattr(pair[found.name], side)) for pair in pairs])) for side in ("base", "head")
    )


def check_numbers(outcome: Outcome, timed: list[Found], rule: Rule) -> None:
    """Every benchmark that was to be run must have run; a gate that measured nothing is no gate."""
    if len(outcome.found) != outcome.expected:
        outcome.problems.append(f"{outcome.expected} benchmarks were expected, {len(outcome.found)} accounted for")
    if not timed and outcome.having("not comparable"):
        outcome.problems.append("nothing could be compared")
    for found in timed:
        ran = sum(found.name in pair for pair in outcome.screening)
        if ran < rule.least_pairs:
            outcome.problems.append(f"{found.name} ran in {ran} pairs, {rule.least_pairs} are needed")


def _accept_gone(outcome: Outcome, accepted: Sequence[Accepted]) -> None:
    """Let pass what was removed with a reason; the rest is a guard that got lost."""
    for found in outcome.having("gone"):
        reasons = [entry.reason for entry in accepted if entry.factor is None and entry.covers(found.name)]
        if reasons:
            found.verdict, found.note = "accepted", f"gone: {reasons[0]}"
    if gone := outcome.having("gone"):
        outcome.problems.append(f"{len(gone)} benchmarks are gone; if that is meant, accepted.toml needs an entry")


def _accept(outcome: Outcome, accepted: Sequence[Accepted]) -> None:
    """Let intended slowdowns pass."""
    for found in outcome.having("slower"):
        assert found.ratio is not None
        for entry in accepted:
            if entry.factor is not None and entry.covers(found.name) and found.ratio <= entry.factor * ACCEPTED_SLACK:
                found.verdict, found.note = "accepted", f"up to {entry.factor:g}: {entry.reason}"
                break


def _stale(outcome: Outcome, accepted: Sequence[Accepted]) -> Iterator[str]:
    """Name the entries that are of no use any more."""
    for entry in accepted:
        covered = [found.verdict for found in outcome.found if entry.covers(found.name)]
        if not any(map(entry.covers, {*outcome.listed, *(found.name for found in outcome.found)})):
            yield f"{entry.benchmark!r} matches no benchmark"
        elif entry.factor is not None and covered and set(covered) <= {"same", "faster"}:
            yield f"{entry.benchmark!r}: nothing that it covers is slower than the base"


def default_jobs() -> int:
    """Return how many processes compile: more than this find nothing left to do."""
    from fastml.kernels.runtime import parallel

    return min(parallel.default()[0], 8)
