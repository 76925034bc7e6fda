"""The command line: ``python -m fastml info``, ``warmup`` and ``pack``."""

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
    warmup.add_argument(
        "--target",
        metavar="CPU",
        help="compile for a kind of CPU, as FASTML_TARGET names it: x86-64-v3, x86-64-v4, x86-64-v4-vnni, aarch64",
    )
    pack = commands.add_parser("pack", help="compile all kernels for a kind of CPU, into a file for a wheel")
    pack.add_argument("--target", required=True, metavar="CPU", help="as for warmup")
    pack.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder of the file and of its index")
    pack.add_argument("--only", metavar="PATTERN", help="as for warmup: a pack of a part")
    pack.add_argument("--jobs", type=_positive, metavar="N", help="as for warmup")
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
    from fastml.kernels.runtime import cpu_kinds

    target = getattr(options, "target", None)
    try:
        if target is None:
            cpu_kinds.demanded()
        else:
            cpu_kinds.known(target)
    except cpu_kinds.Unfit as error:
        print(error, file=sys.stderr)
        return 2
    if options.command == "info":
        from .cli import info

        return info.main(as_json=options.json)
    if options.command == "pack":
        from .cli import pack

        return pack.main(target=options.target, output=options.output, only=options.only, jobs=options.jobs)
    if target:
        from .cli import cross

        return cross.main(target=target, only=options.only, jobs=options.jobs)
    from .cli import warmup

    return warmup.main(only=options.only, jobs=options.jobs)


if __name__ == "__main__":
    sys.exit(main())
