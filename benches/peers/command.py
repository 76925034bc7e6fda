"""The command ``peers`` of ``python -m benches``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from ..measuring import targets
from ..measuring.command_line import count, fail, let_idle_threads_sleep

__all__ = ["add_parsers"]


def add_parsers(commands: Any) -> None:
    """Add the command's parser."""
    peers = commands.add_parser(
        "peers",
        help="time fastml beside other libraries",
        description="Time jobs beside SciPy, scikit-learn, oneDAL, torch, JAX, faiss, k-d trees and glum, each at its "
        "best setting, results compared. Ratios are the peer's time over ours: above 1 we are faster. A peer that is "
        "missing, fails or does not reach the goal is named, and has no time.",
        epilog="Exit code: 0 no result differs, 1 a peer's result differs or our own job failed, 2 bad arguments, "
        "130 Ctrl-C.",
    )
    peers.add_argument("--only", metavar="PATTERN", help="part of a job's name and size, or * and ?: 'k_nearest l1*'")
    peers.add_argument("--quick", action="store_true", help="small sizes: to see that all runs, not how fast")
    peers.add_argument("--output", type=Path, default=Path("report"), metavar="FOLDER", help="default: report")
    peers.add_argument("--threads", type=count, metavar="N", help="for us and for the peers (default: all)")
    targets.add_option(peers)
    peers.set_defaults(run=_peers, needs={"threadpoolctl": "bench", "matplotlib": "plot"})


def _peers(options: argparse.Namespace) -> int:
    let_idle_threads_sleep()
    from fastml.kernels.runtime import parallel

    n_threads = options.threads or parallel.default()[0]
    # Libraries read these when they are loaded; the last is JAX's.
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"), str(n_threads)))

    from fastml.cli import info
    from fastml.kernels.catalogue import select

    from ..measuring import formats
    from ..measuring.documents import write_text
    from . import run, table
    from .page import page

    jobs = run.all_jobs(options.quick)
    chosen = set(select([job.name for job in jobs], options.only))
    if not chosen:
        return fail(f"--only {options.only!r} matches none of: {'; '.join(job.key for job in jobs)}")
    jobs = [job for job in jobs if job.name in chosen]
    versions = [f"{name} {version or 'not installed'}" for name, version in run.versions().items()]
    kind = f", as {options.target}" if options.target else ""
    print(f"{n_threads} threads{kind}; {', '.join(versions)}")
    print(table.HEADER)
    path = options.output / "peers.json"

    def write(document: dict[str, Any], *, page_too: bool = True) -> None:
        write_text(json.dumps(document, indent=1) + "\n", path)
        if page_too:
            write_text(page(document), path.with_name("peers.html"))

    def after_a_job(document: dict[str, Any], outcomes: list[Any]) -> None:
        print("\n".join(table.lines(outcomes)), flush=True)
        write(document, page_too=False)

    def figures(document: dict[str, Any]) -> dict[str, Any]:
        write(document)
        return run.measure_figures(options.quick)

    document, interrupted = run.run_all(
        jobs, n_threads, info.collect(), on_job=after_a_job, figures=figures if options.only is None else None
    )
    if interrupted:
        print("interrupted: wrote what was measured so far", file=sys.stderr)
    outcomes = document["outcomes"]
    print("\n".join(filter(None, [*table.figures(document), formats.target(document), table.summary(outcomes)])))
    write(document)
    print(f"wrote {path} and {path.with_name('peers.html')}", file=sys.stderr)
    return 130 if interrupted else int(any(map(table.is_error, outcomes)))
