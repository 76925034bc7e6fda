"""The command line: ``python -m benches report``, ``peers``, ``layers``, ``gate``, ``history`` and ``readme``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import arguments
from .gate import CANNOT
from .gate import command as gate

_NEEDED = {
    "report": {"rich": "bench", "threadpoolctl": "bench", "matplotlib": "plot"},
    "peers": {"threadpoolctl": "bench", "matplotlib": "plot"},
    "layers": {"threadpoolctl": "bench"},
    "history": {"matplotlib": "plot"},
}
#: Libraries read these when they are loaded: idle threads sleep. Spinning on, for more than 60 ms after a product of
#: matrices, they would take a core from whoever comes next.
_SLEEP = {"OPENBLAS_THREAD_TIMEOUT": "4", "OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
_ROOT = Path(__file__).resolve().parent.parent
_HISTORY = _ROOT / "benches" / "history"


def main(arguments: Sequence[str] | None = None, *, catalogue: Any = None) -> int:
    """Run one command and return the exit code."""
    asked = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = _parser().parse_args(asked)
    except SystemExit as error:
        # argparse ends with 2, which would mean a wrong result here.
        if error.code == 2 and asked[:1] and asked[0] in gate.COMMANDS:
            return CANNOT
        raise
    needed = _NEEDED.get(options.command, {})
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        extras = ",".join(sorted({needed[name] for name in missing}))
        return _fail(f"{options.command} needs {', '.join(missing)}: python -m pip install -e '.[{extras}]'")
    if options.command in gate.COMMANDS:
        return gate.COMMANDS[options.command](options)
    if "numpy" not in sys.modules:  # else it would be too late
        os.environ.update({name: value for name, value in _SLEEP.items() if name not in os.environ})
    if options.command == "report":
        return _report(options, catalogue)
    return {"peers": _peers, "layers": _layers, "history": _history, "readme": _readme}[options.command](options)


def _history(options: argparse.Namespace) -> int:
    from . import history, results

    try:
        for file in options.add or ():
            try:
                path = history.add(json.loads(file.read_text(encoding="utf-8")), options.records)
            except KeyError as error:
                raise ValueError(f"{file} is no report's or gate's document of this version: no {error}") from None
            print(f"wrote {path}")
        page = history.page(history.read(options.records))
    except (OSError, ValueError) as error:
        return _fail(str(error))
    results.write_text(page, options.output / "history.html")
    print(f"wrote {options.output / 'history.html'}", file=sys.stderr)
    return 0


def _readme(options: argparse.Namespace) -> int:
    from . import history, readme

    file = _ROOT / "README.md"
    records = history.read(_HISTORY)
    if options.check:
        text = file.read_text(encoding="utf-8")
        return 0 if readme.written(text, readme.newest(records)) == text else _differs()
    print("README.md has new figures" if readme.update(file, records) else "README.md has these figures already")
    return 0


def _differs() -> int:
    print("the figures in README.md are not those of the newest record: python -m benches readme", file=sys.stderr)
    return 1


def _peers(options: argparse.Namespace) -> int:
    from fastml.kernels.runtime import parallel

    n_threads = options.threads or parallel.default()[0]
    # Libraries read these when they are loaded.
    os.environ.update({"OMP_NUM_THREADS": str(n_threads), "MKL_NUM_THREADS": str(n_threads)})

    from fastml.cli import info
    from fastml.cli.warmup import select

    from . import (
        peers,
        peers_linear,
        peers_losses,
        peers_neighbors,
        peers_networks,
        peers_page,
        peers_training,
        results,
    )

    families = (peers_neighbors, peers_losses, peers_linear, peers_training, peers_networks)
    jobs = [job for family in families for job in family.jobs(quick=options.quick)]
    chosen = set(select([f"{job.key}, {job.size}" for job in jobs], options.only))
    if not chosen:
        return _fail(f"--only {options.only!r} matches none of: {'; '.join(job.key for job in jobs)}")
    jobs = [job for job in jobs if f"{job.key}, {job.size}" in chosen]
    found = [f"{name} {version or 'not installed'}" for name, version in peers.versions().items()]
    print(f"{n_threads} threads; {', '.join(found)}")
    print(peers.HEADER)
    path = options.output / "peers.json"
    document = peers.document([], n_threads, info.collect())
    outcomes = document["outcomes"]
    interrupted = False
    try:
        for job in jobs:
            # What ends the run, whatever it is, loses one job and not the hour.
            new = peers.run(job, n_threads)
            print("\n".join(peers.lines(new)), flush=True)
            outcomes += map(asdict, new)
            results.write_text(json.dumps(document, indent=1) + "\n", path)
        results.write_text(peers_page.page(document), path.with_name("peers.html"))
        if options.only is None:
            document |= _figures(options.quick)
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted: wrote what was measured so far", file=sys.stderr)
    print("\n".join([*peers.figures(document), peers.summary(outcomes)]))
    results.write_text(json.dumps(document, indent=1) + "\n", path)
    results.write_text(peers_page.page(document), path.with_name("peers.html"))
    print(f"wrote {path} and {path.with_name('peers.html')}", file=sys.stderr)
    return 130 if interrupted else int(any(map(peers.is_error, outcomes)))


def _figures(quick: bool) -> dict[str, Any]:
    """Measure what is no comparison of times."""
    from . import peers_losses, peers_neighbors

    size = (200, 600, 78) if quick else (10_000, 60_000, 784)
    return {
        "errors": peers_neighbors.errors(),
        "nanoseconds_per_row": peers_losses.nanoseconds_per_row(*[(100, 1_000)] if quick else []),
        "extra_megabytes": peers_neighbors.extra_megabytes(*size),
        "extra_megabytes_of": size,
    }


def _layers(options: argparse.Namespace) -> int:
    from . import layers

    print(layers.table(*layers.measure(batches=options.batches)))
    return 0


def _report(options: argparse.Namespace, catalogue: Any) -> int:
    from fastml.kernels.runtime import jit

    from . import render_html, render_terminal, report, results

    if not jit.jit_enabled():
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
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")
    peers = commands.add_parser(
        "peers",
        help="time fastml beside other libraries",
        description="Time jobs beside SciPy, scikit-learn, oneDAL, torch and faiss, each at its best setting, results "
        "compared. Ratios are the peer's time over ours: above 1 we are faster. A peer that is missing, fails or does "
        "not reach the goal is named, and has no time.",
        epilog="Exit code: 0 no result differs, 1 a peer's result differs or our own job failed, 2 bad arguments, "
        "130 Ctrl-C.",
    )
    peers.add_argument("--only", metavar="PATTERN", help="part of a job's name and size, or * and ?: 'k_nearest l1*'")
    peers.add_argument("--quick", action="store_true", help="small sizes: to see that all runs, not how fast")
    peers.add_argument("--output", type=Path, default=Path("report"), metavar="FOLDER", help="default: report")
    peers.add_argument("--threads", type=arguments.count, metavar="N", help="for us and for the peers (default: all)")
    layers = commands.add_parser(
        "layers",
        help="where the time of a convolutional network's batch goes",
        description="Train a convolutional network of 3 x 32 x 32 images, 64 a batch, with one thread, and time each "
        "layer. Shares are of the rate of NumPy's product of matrices of the same size: above 1 we are faster.",
    )
    layers.add_argument("--batches", type=arguments.count, default=20, metavar="N", help="to train for (default: 20)")
    gate.add_parsers(commands)
    history = commands.add_parser(
        "history",
        help="keep figures of a run in the repository; plot all that are kept",
        description="Write report/history.html from the records in benches/history.",
    )
    history.add_argument(
        "--add",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="first keep the figures of report/results.json or report/gate.json",
    )
    history.add_argument("--records", type=Path, default=_HISTORY, metavar="FOLDER", help="default: benches/history")
    history.add_argument("--output", type=Path, default=Path("report"), metavar="FOLDER", help="default: report")
    readme = commands.add_parser(
        "readme",
        help="write README's table of figures",
        description="Write README's table from the newest record of a report in benches/history.",
    )
    readme.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the table is another one")
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
    report.add_argument("--threads", type=arguments.count, metavar="N", help="what 'all threads' means")
    report.add_argument(
        "--seconds", type=arguments.positive, metavar="S", help="time to spend, about; short runs are noisier"
    )
    return parser


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
