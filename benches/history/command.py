"""The commands ``history`` and ``readme`` of ``python -m benches``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..measuring.command_line import fail
from ..measuring.repository import ROOT
from . import RECORDS

__all__ = ["add_parsers"]


def add_parsers(commands: Any) -> None:
    """Add the parsers of both commands."""
    history = commands.add_parser(
        "history",
        help="keep figures of a run in the repository; plot all that are kept",
        description="Write report/history.html from the records in benches/history/records.",
    )
    history.add_argument(
        "--add",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="first keep the figures of report/results.json or report/gate.json",
    )
    history.add_argument(
        "--records", type=Path, default=RECORDS, metavar="FOLDER", help="default: benches/history/records"
    )
    history.add_argument("--output", type=Path, default=Path("report"), metavar="FOLDER", help="default: report")
    history.set_defaults(run=_history, needs={"matplotlib": "plot"})
    readme = commands.add_parser(
        "readme",
        help="write README's table of figures",
        description="Write README's table from the newest record of a report in benches/history/records.",
    )
    readme.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the table is another one")
    readme.set_defaults(run=_readme)


def _history(options: argparse.Namespace) -> int:
    from ..measuring.documents import write_text
    from .page import page
    from .record import add, read

    try:
        for file in options.add or ():
            try:
                path = add(json.loads(file.read_text(encoding="utf-8")), options.records)
            except KeyError as error:
                raise ValueError(f"{file} is no report's or gate's document of this version: no {error}") from None
            print(f"wrote {path}")
        text = page(read(options.records))
    except (OSError, ValueError) as error:
        return fail(str(error))
    write_text(text, options.output / "history.html")
    print(f"wrote {options.output / 'history.html'}", file=sys.stderr)
    return 0


def _readme(options: argparse.Namespace) -> int:
    from . import readme
    from .record import read

    file = ROOT / "README.md"
    records = read(RECORDS)
    if not options.check:
        print("README.md has new figures" if readme.update(file, records) else "README.md has these figures already")
        return 0
    text = file.read_text(encoding="utf-8")
    if readme.written(text, records) == text:
        return 0
    print("the figures in README.md are not those of the newest record: python -m benches readme", file=sys.stderr)
    return 1
