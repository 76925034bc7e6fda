"""The command ``startup`` of ``python -m benches``."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

from ..measuring.command_line import count, fail

__all__ = ["add_parsers"]


def add_parsers(commands: Any) -> None:
    """Add the command's parser."""
    startup = commands.add_parser(
        "startup",
        help="first fits: with a pack, an empty cache and a warm one; imports",
        description="Fit and predict the digits in processes of their own, and import the estimators. Prints a table "
        "in Markdown: CPU seconds less those of a process that only imports scikit-learn's estimator and Numba, and in "
        "brackets the wall time of the whole script; medians.",
        epilog="Exit code: 0, 1 Numba compiled what a pack or a cache should have had, 2 it could not run.",
    )
    startup.add_argument("--only", metavar="PATTERN", help="part of an estimator's name, or of 'warmup'; or * and ?")
    startup.add_argument(
        "--processes",
        type=count,
        default=7,
        metavar="N",
        help="of each kind (default: 7), with an empty cache 3 at most",
    )
    startup.add_argument(
        "--python",
        type=Path,
        default=Path(sys.executable),
        metavar="FILE",
        help="the Python whose fastml is measured, that of a wheel, say (default: this one)",
    )
    startup.add_argument("--write", type=Path, metavar="FILE", help="replace the table in it: docs/cache.md")
    startup.set_defaults(run=_startup, needs={})


def _startup(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("resource") is None:
        return fail("the CPU seconds of other processes are counted on POSIX systems only")
    from fastml.kernels.catalogue import select

    from ..measuring.documents import replace_block, write_text
    from . import table
    from .jobs import JOBS
    from .processes import Interpreter, Unexpected
    from .run import CATALOGUE, measure

    names = select([*(job.name for job in JOBS), CATALOGUE], options.only)
    if not names:
        return fail(f"--only {options.only!r} matches none of: {', '.join(job.name for job in JOBS)}, {CATALOGUE}")
    if options.write and options.only:
        return fail("--write takes the whole table, not a part of it (--only)")
    try:  # before the time goes into what has no place
        old = options.write.read_text(encoding="utf-8") if options.write else f"{table.BEGIN}{table.END}"
        replace_block(old, table.BEGIN, table.END, "")
    except (OSError, ValueError) as error:
        return fail(f"--write {options.write}: {error}")
    try:
        found = measure(
            names, Interpreter(options.python), options.processes, lambda line: print(line, file=sys.stderr)
        )
    except Unexpected as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    block = table.block(found)
    print(block)
    if options.write:
        write_text(replace_block(old, table.BEGIN, table.END, block), options.write)
    return 0
