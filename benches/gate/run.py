"""One run of the gate, from two revisions to an exit code."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..measuring import targets
from . import FINE, environments
from .comparing import compare, default_jobs, plan
from .decision import RULE
from .environments import Environment
from .outcome import Outcome, read_accepted
from .rounds import InstalledSide, compact
from .sources import Sources

__all__ = ["SCHEMA", "Options", "document", "installed", "run"]

SCHEMA = 1


@dataclass(frozen=True)
class Options:
    """What the command line asks for."""

    base: str | None
    head: str
    repository: Path
    cache: Path
    minutes: float
    accepted: Path
    recorded: list[str] = field(default_factory=list)  # commits that have a history file
    only: str | None = None
    everything: bool = False  # also what stands on unchanged sources
    packs: Path | None = None  # for the head alone


def run(options: Options, say: Callable[[str], None]) -> tuple[dict[str, Any], Outcome | None]:
    """Build both sides, compare them, and return the document and what is in it; no outcome where there is no base."""
    started = time.monotonic()
    accepted = read_accepted(options.accepted)
    base, why = options.base, "as named"
    if base is None:
        chosen = environments.default_base(options.repository, options.head, options.recorded)
        if chosen is None:
            return {"schema": SCHEMA, "kind": "gate", "base": None, "exit_code": FINE}, None
        base, why = chosen
    folder = Path(tempfile.mkdtemp(prefix="fastml-gate-"))
    try:
        base_env, head_env = (
            # One cache: sources tell code apart there, and where the kernels are the same, one side compiles for both.
            environments.build(name, revision, options.repository, folder / name, options.cache)
            # Names of one length: lengths of paths move what lies behind them in memory.
            for name, revision in (("base", base), ("head", options.head))
        )
        if options.packs:
            shutil.copytree(options.packs, _kernels_of(head_env) / "packs")
        say(f"base {base_env.commit[:10]} ({why}), head {_title(head_env)}")
        sides = installed(base_env, head_env)
        looked_at = [None if options.everything else Sources(env.site) for env in (base_env, head_env)]
        own = dataclasses.replace(sides[0], catalogue=_kernels_of(base_env))
        outcome = plan(sides[1], looked_at[0], looked_at[1], options.only, base=own)
        compare(*sides, outcome, accepted, started + 60 * options.minutes, jobs=default_jobs(), say=say)
        outcome.seconds = time.monotonic() - started
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return document(outcome, base_env, head_env, why), outcome


def installed(base: Environment, head: Environment) -> tuple[InstalledSide, InstalledSide]:
    """Return both sides; the head's catalogue says what is measured, on either."""
    from fastml.kernels.runtime import parallel

    n_threads = parallel.default()[0]
    catalogue, held = _kernels_of(head), targets.environment()
    return InstalledSide(base, catalogue, n_threads, held), InstalledSide(head, catalogue, n_threads, held)


def _kernels_of(environment: Environment) -> Path:
    """Return the folder whose catalogue says what there is to measure."""
    return environment.site / "fastml" / "kernels"


def _title(environment: Environment) -> str:
    return f"the worktree on {environment.commit[:10]}" if environment.changed else environment.commit[:10]


def document(outcome: Outcome, base: Environment, head: Environment, why: str) -> dict[str, Any]:
    """Return everything as JSON takes it, raw rounds included."""
    from fastml.cli import info
    from fastml.kernels.runtime import parallel

    return {
        "schema": SCHEMA,
        "kind": "gate",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": info.collect(),
        "target": targets.state(("fastml", "numpy", "scipy", "scikit-learn")),
        "threads": parallel.default()[0],
        "base": {"revision": base.revision, "commit": base.commit, "why": why},
        "head": {"revision": head.revision, "commit": head.commit, "changed": head.changed},
        "rule": asdict(RULE),
        "exit_code": outcome.exit_code,
        "expected": outcome.expected,
        "seconds": round(outcome.seconds, 1),
        "warm_seconds": round(outcome.warm_s, 1),
        "problems": outcome.problems,
        "stale": outcome.stale,
        "remarks": outcome.remarks,
        "benchmarks": [asdict(found) for found in outcome.found],
        "screening": [compact(pair) for pair in outcome.screening],
        "confirming": [compact(pair) for pair in outcome.confirming],
    }
