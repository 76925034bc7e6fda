"""The command ``searches`` of ``python -m benches``."""

from __future__ import annotations

import argparse
import math
from functools import partial
from typing import Any

from ..measuring import targets
from ..measuring.command_line import fail, positive

__all__ = ["add_parsers"]

#: How many times as long as the faster way the choice may take, its own cost included.
_LIMIT = 1.1

_WAYS = ("auto", "brute", "tree")
_NEIGHBORS = 5


def add_parsers(commands: Any) -> None:
    """Add the command's parser."""
    searches = commands.add_parser(
        "searches",
        help="whether 'auto' takes the faster way to the nearest rows",
        description='Time k_nearest with algorithm="auto", "brute" and "tree", making the tree included, in turns, on '
        "data with structure and without. The ratio is that of auto to the faster of the others.",
        epilog=f"Exit code: 0, 1 auto takes more than {_LIMIT:g} times as long somewhere, or a result differs, "
        "2 bad arguments.",
    )
    searches.add_argument("--only", metavar="PATTERN", help="part of a data set's name, or * and ?")
    searches.add_argument("--queries", type=int, default=10_000, metavar="N", help="default: 10000")
    searches.add_argument("--rows", type=int, default=100_000, metavar="M", help="to choose from (default: 100000)")
    searches.add_argument("--seconds", type=positive, default=4.0, metavar="S", help="for each, about (default: 4)")
    targets.add_option(searches)
    searches.set_defaults(run=_searches, needs={"threadpoolctl": "bench"})


def _searches(options: argparse.Namespace) -> int:
    import numpy as np

    from fastml.kernels import k_nearest
    from fastml.kernels.catalogue import select

    from ..measuring.timing import Way, take_turns
    from .data_sets import DATA_SETS, make

    names = select(DATA_SETS, options.only)
    if not names:
        return fail(f"--only {options.only!r} matches none of: {', '.join(DATA_SETS)}")
    if not (options.queries >= 1 and options.rows >= _NEIGHBORS):
        return fail(f"--queries must be at least 1, --rows at least {_NEIGHBORS}")
    ratios, failed = [], 0
    print(f"{options.queries} queries, {options.rows} rows, k = {_NEIGHBORS}, float32")
    print(f"{'data':<38}{'auto, s':>10}{'brute, s':>10}{'tree, s':>10}{'ratio':>8}")
    for name in names:
        X, Y = make(name, options.queries, options.rows)
        calls = {way: partial(k_nearest, X, Y, _NEIGHBORS, algorithm=way) for way in _WAYS}
        results = [call() for call in calls.values()]
        same = all(np.array_equal(a, b) for result in results[1:] for a, b in zip(results[0], result, strict=True))
        taken = take_turns({way: Way(call) for way, call in calls.items()}, options.seconds)
        auto, *others = (taken[way].seconds for way in _WAYS)
        ratios.append(auto / min(others))
        mark = "" if same and ratios[-1] <= _LIMIT else "  slower" if same else "  results differ"
        failed += bool(mark)
        print(f"{name:<38}{auto:>10.4g}{others[0]:>10.4g}{others[1]:>10.4g}{ratios[-1]:>8.2f}{mark}", flush=True)
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    print(f"{failed} of {len(ratios)} beyond {_LIMIT:g}; geometric mean of the ratios {mean:.2f}")
    return int(failed > 0)
