"""The command line: ``python -m benches report``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_NEEDED = {"rich": "bench", "threadpoolctl": "bench", "matplotlib": "plot"}


def main(arguments: Sequence[str] | None = None, *, catalogue: Any = None) -> int:
    """Run one command and return the exit code."""
    options = _parser().parse_args(arguments)
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        extras = ",".join(sorted({_NEEDED[name] for name in missing}))
        return _fail(f"the report needs {', '.join(missing)}: python -m pip install -e '.[{extras}]'")
    return _report(options, catalogue)


def _report(options: argparse.Namespace, catalogue: Any) -> int:
    from fastml.kernels import _jit

    from . import render_html, render_terminal, report, results

    if not _jit.jit_enabled():
        return _fail("Numba's compiler is switched off (NUMBA_DISABLE_JIT); there is nothing to compare")
    wanted = tuple(options.dtype.split(",")) if options.dtype else None
    asked = report.Options(
        full=options.full,
        only=options.only,
        data=options.data,
        n_threads=options.threads,
        dtypes=wanted,
        seconds=options.seconds,
    )
    try:
        document = report.run(asked, catalogue=catalogue, progress=render_terminal.BarProgress())
    except (report.NothingSelected, FileNotFoundError) as error:
        return _fail(str(error))
    results.write_document(document, options.output / "results.json")
    results.write_text(render_html.page(document), options.output / "index.html")
    if options.json:
        json.dump(document, sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    else:
        render_terminal.render(document, render_terminal.console())
    if document["interrupted"]:
        done = len(document["cases"]) + len(document["known_answers"])
        print(f"interrupted: wrote the {done} results measured so far", file=sys.stderr)
    print(f"wrote {options.output / 'index.html'} and {options.output / 'results.json'}", file=sys.stderr)
    return report.exit_code(document)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benches", description="Measurements of fastml's kernels.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    report = commands.add_parser(
        "report",
        help="time every kernel in every tier",
        description="Time every kernel as loop, vectorised and JIT, and write a table, a page and a JSON file.",
        epilog="Exit code: 0 all tiers agree, 1 a result is wrong or a kernel failed, 2 bad arguments, 130 Ctrl-C.",
    )
    report.add_argument("--full", action="store_true", help="full sizes, every dtype (default: under 3 minutes)")
    report.add_argument("--only", metavar="PATTERN", help="part of a case's name, or * and ?: 'k_nearest', '* uint8 *'")
    report.add_argument("--dtype", metavar="LIST", help="input dtypes, such as float32,uint8")
    report.add_argument("--json", action="store_true", help="print results.json instead of the tables")
    report.add_argument("--data", type=Path, metavar="FOLDER", help="with MNIST, CIFAR-10 (default: FASTML_DATA)")
    report.add_argument("--output", type=Path, default=Path("report"), metavar="FOLDER", help="default: report")
    report.add_argument("--threads", type=_positive, metavar="N", help="what 'all threads' means")
    report.add_argument("--seconds", type=_seconds, metavar="S", help="time to spend, about; short runs are noisier")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
