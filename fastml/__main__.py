"""The command line: ``python -m fastml info`` and ``python -m fastml warmup``."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

import fastml


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastml", description="Look at fastml's surroundings, or prepare them."
    )
    parser.add_argument("--version", action="version", version=f"fastml {fastml.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="show versions, CPU, vector width, threads, BLAS and cache")
    info.add_argument("--json", action="store_true", help="as one JSON object")

    warmup = commands.add_parser("warmup", help="compile all kernels into the cache")
    warmup.add_argument(
        "--only",
        metavar="PATTERN",
        help="only entries with PATTERN in their key; with * or ? in it, PATTERN is the whole key",
    )
    warmup.add_argument(
        "--jobs",
        type=_positive,
        metavar="N",
        help="processes that compile side by side (default: the threads that kernels use, at most 4)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        # The path of a cache may have characters, or bytes, that the encoding of the output has not.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(options)
        print(end="", flush=True)
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who reads has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be written
        return 141


def _run(options: argparse.Namespace) -> int:
    # The commands import Numba; --help and --version must not wait for it.
    if options.command == "info":
        from .cli import info

        return info.main(as_json=options.json)
    from .cli import warmup

    return warmup.main(only=options.only, jobs=options.jobs)


if __name__ == "__main__":
    sys.exit(main())
