"""The commands ``gate``, ``gate-record`` and ``gate-rates`` of ``python -m benches``."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..history import RECORDS
from ..measuring import targets
from ..measuring.command_line import count, positive
from ..measuring.repository import ROOT, WORKTREE, GitError
from . import CANNOT, FINE
from .environments import GateError

__all__ = ["COMMANDS", "add_parsers"]

COMMANDS = ("gate", "gate-record", "gate-rates")
_ROUNDS = Path(__file__).with_name("recorded")
_CACHE = Path("build") / "gate"


def add_parsers(commands: Any) -> None:
    """Add the parsers of the three commands."""
    gate = commands.add_parser(
        "gate",
        help="compare two revisions: is the head slower, are its results right?",
        description="Build base and head from git, run them in turns on this machine, and say what is slower.",
        epilog="Exit code: 0 nothing is slower (or there is nothing to compare), 1 slower, 2 a wrong result, or a "
        "benchmark that fails, 3 could not run, or a benchmark is gone, 130 Ctrl-C.",
    )
    gate.add_argument("--base", metavar="REV", help="default: newest commit with a history file, else the merge base")
    gate.add_argument("--head", metavar="REV", default=WORKTREE, help="default: the files as they are")
    gate.add_argument("--minutes", type=positive, default=8.0, metavar="M", help="time to spend, about (default: 8)")
    gate.add_argument("--only", metavar="PATTERN", help="part of a benchmark's name, or * and ?: 'exp float32*'")
    gate.add_argument("--all", action="store_true", help="also benchmarks that stand on unchanged sources")
    gate.add_argument(
        "--packs",
        type=Path,
        metavar="FOLDER",
        help="lay these packs beside the head's kernels; with --all --base HEAD: are they slower?",
    )
    gate.add_argument("--cache", type=Path, default=_CACHE, metavar="FOLDER", help=f"compiled code (default: {_CACHE})")
    gate.add_argument("--output", type=Path, default=Path("report"), metavar="FOLDER", help="default: report")
    gate.add_argument("--markdown", type=Path, metavar="FILE", help="append the table as Markdown")
    targets.add_option(gate, also=f"; {targets.IN_TURNS!r}: as x86-64-v3 at every other commit")
    gate.set_defaults(run=_guarded(_gate))
    record = commands.add_parser(
        "gate-record",
        help="record pairs of identical sides, for the gate's error rates",
        description="Run a revision against itself and keep the raw rounds, one file a pair. Run it on a quiet "
        "machine; it may be ended at any time and goes on from what is there.",
    )
    record.add_argument("--pairs", type=count, required=True, metavar="N", help="how many more")
    record.add_argument("--head", metavar="REV", default="HEAD", help="default: HEAD")
    record.add_argument("--only", metavar="PATTERN", help="a part of the benchmarks, to try it out")
    record.add_argument("--cache", type=Path, default=_CACHE, metavar="FOLDER", help=f"default: {_CACHE}")
    record.add_argument("--rounds", type=Path, default=_ROUNDS, metavar="FOLDER")
    record.set_defaults(run=_guarded(_record))
    rates = commands.add_parser(
        "gate-rates",
        help="how often the gate is wrong, from the recorded pairs",
        description="Simulate gates by drawing whole recorded pairs: false alarms, and planted slowdowns found.",
    )
    rates.add_argument("--rounds", type=Path, default=_ROUNDS, metavar="FOLDER")
    rates.add_argument("--gates", type=count, default=1_000, metavar="N", help="to simulate (default: 1000)")
    rates.set_defaults(run=_guarded(_rates))


def _gate(options: argparse.Namespace) -> int:
    from ..history import record
    from ..measuring.documents import write_text
    from . import run, tables

    _append(options.markdown, "")  # a file that cannot be written is told before the work, not after it
    asked = run.Options(
        base=options.base,
        head=options.head,
        repository=ROOT,
        cache=options.cache.resolve(),
        minutes=options.minutes,
        accepted=ROOT / "benches" / "accepted.toml",
        recorded=record.commits(record.read(RECORDS)),
        only=options.only,
        everything=options.all,
        packs=options.packs,
    )
    document, outcome = run.run(asked, _say)
    if outcome is None:
        print(tables.NO_BASE)
        _append(options.markdown, f"## Regression gate\n\n{tables.NO_BASE}\n")
        return FINE
    print(tables.text(outcome, document))
    _append(options.markdown, tables.markdown(outcome, document))
    write_text(json.dumps(document, separators=(",", ":")) + "\n", options.output / "gate.json")
    _say(f"wrote {options.output / 'gate.json'}")
    return outcome.exit_code


def _record(options: argparse.Namespace) -> int:
    from . import rates

    cache = options.cache.resolve()
    rates.record(ROOT, options.head, options.rounds, cache, options.pairs, options.only, _say)
    return FINE


def _rates(options: argparse.Namespace) -> int:
    from . import rates

    print(rates.table(options.rounds, gates=options.gates))
    return FINE


def _guarded(command: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Keep "could not run" apart from everything else."""

    def guarded(options: argparse.Namespace) -> int:
        # What was begun is cleaned up also when a batch system ends the run.
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return command(options)
        except (GateError, GitError) as error:
            return _could_not_run(options, str(error))
        except KeyboardInterrupt:
            _could_not_run(options, "interrupted")
            return 130
        except Exception as error:
            # An exception would end Python with 1, which means slower.
            traceback.print_exc()
            return _could_not_run(options, f"{type(error).__name__}: {error}")

    return guarded


def _could_not_run(options: argparse.Namespace, why: str) -> int:
    _say(f"error: {why}")
    with contextlib.suppress(GateError):  # that may be why
        _append(getattr(options, "markdown", None), f"## Regression gate: COULD NOT RUN\n\n{why}\n")
    return CANNOT


def _append(file: Path | None, text: str) -> None:
    if file is None:
        return
    try:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise GateError(f"{file} cannot be written: {error.strerror}") from None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
