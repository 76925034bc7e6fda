"""The command ``report`` of ``python -m benches``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..measuring import targets
from ..measuring.command_line import count, fail, let_idle_threads_sleep, positive

__all__ = ["add_parsers"]


def add_parsers(commands: Any) -> None:
    """Add the command's parser."""
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
    report.add_argument("--threads", type=count, metavar="N", help="what 'all threads' means")
    report.add_argument("--seconds", type=positive, metavar="S", help="time to spend, about; short runs are noisier")
    targets.add_option(report)
    report.set_defaults(run=_report, needs={"rich": "bench", "threadpoolctl": "bench", "matplotlib": "plot"})


def _report(options: argparse.Namespace, catalogue: Any = None) -> int:
    let_idle_threads_sleep()
    from fastml.kernels.runtime import jit

    from ..measuring.documents import write_document, write_text
    from . import html, terminal
    from .plan import NothingSelected, Options
    from .run import run
    from .summary import exit_code

    if not jit.jit_enabled():
        return fail("Numba's compiler is switched off (NUMBA_DISABLE_JIT); there is nothing to compare")
    asked = Options(
        full=options.full,
        only=options.only,
        data=options.data,
        n_threads=options.threads,
        dtypes=tuple(options.dtype.split(",")) if options.dtype else None,
        seconds=options.seconds,
    )
    try:
        document = run(asked, catalogue=catalogue, progress=terminal.BarProgress())
    except (NothingSelected, FileNotFoundError) as error:
        return fail(str(error))
    write_document(document, options.output / "results.json")
    write_text(html.page(document), options.output / "index.html")
    if options.json:
        json.dump(document, sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    else:
        terminal.render(document, terminal.console())
    if document["interrupted"]:
        done = len(document["cases"]) + len(document["known_answers"])
        print(f"interrupted: wrote the {done} results measured so far", file=sys.stderr)
    print(f"wrote {options.output / 'index.html'} and {options.output / 'results.json'}", file=sys.stderr)
    return exit_code(document)
