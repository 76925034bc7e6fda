"""The command ``threads`` of ``python -m benches``."""

from __future__ import annotations

import argparse
import math
from typing import Any

from ..measuring import targets
from ..measuring.command_line import fail, let_idle_threads_sleep, positive

__all__ = ["add_parsers"]

#: How many times as long the default may take as one thread: with CPUs to itself, and beside busy processes.
_LIMITS = (1.03, 1.3)


def add_parsers(commands: Any) -> None:
    """Add the command's parser."""
    threads = commands.add_parser(
        "threads",
        help="what the default number of threads gains or loses, beside busy processes too",
        description="Time models and every kernel of the catalogue with the default number of threads and with one, in "
        "turns; the ratio of the times is above 1 where the default is slower.",
        epilog="Exit code: 0, 1 the default is slower somewhere, beyond noise or what busy processes excuse, "
        "2 bad arguments.",
    )
    threads.add_argument("--busy", type=int, default=0, metavar="N", help="processes that compute meanwhile")
    threads.add_argument("--sizes", action="store_true", help="kernels at 10^2 to 10^7 numbers in and out, no models")
    threads.add_argument("--only", metavar="PATTERN", help="part of a job's name, or * and ?")
    threads.add_argument("--seconds", type=positive, default=1.0, metavar="S", help="for each job, about (default: 1)")
    targets.add_option(threads)
    threads.set_defaults(run=_threads, needs={"threadpoolctl": "bench"})


def _threads(options: argparse.Namespace) -> int:
    let_idle_threads_sleep()
    from fastml.kernels.catalogue import select

    from .jobs import kernel_jobs, model_jobs
    from .measure import measure

    jobs = {job.name: job for job in kernel_jobs(sizes=options.sizes)}
    if not options.sizes:
        jobs |= {job.name: job for job in model_jobs()}
    names = select(jobs, options.only)
    if not names:
        return fail(f"--only {options.only!r} matches none of: {', '.join(jobs)}")
    limit, ratios = _LIMITS[options.busy > 0], []
    print(f"{'job':<46}{'one thread, ms':>16}{'default, ms':>13}{'default / one':>15}")
    for found in measure((jobs[name] for name in names), options.busy, limit, options.seconds):
        ratios.append(found.ratio)
        mark = "  slower" if found.ratio > limit else ""
        print(
            f"{found.name:<46}{1e3 * found.one:>16.4g}{1e3 * found.default:>13.4g}{found.ratio:>15.2f}{mark}",
            flush=True,
        )
    slower, mean = sum(ratio > limit for ratio in ratios), math.exp(sum(map(math.log, ratios)) / len(ratios))
    print(f"{slower} of {len(ratios)} slower by more than {limit - 1:.0%}; geometric mean of the ratios {mean:.2f}")
    return int(slower > 0)
