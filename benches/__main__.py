"""The command line: ``python -m benches report``, ``peers``, ``layers``, ``startup``, ``gate``, ``history`` ..."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from .gate import CANNOT
from .gate import command as gate
from .history import command as history
from .measuring import command_line, repository, targets
from .peers import command as peers
from .profile import command as profile
from .report import command as report
from .searches import command as searches
from .startup import command as startup
from .threads import command as threads

#: In the order of the help.
_ROOMS = (peers, profile, threads, searches, startup, gate, history, report)


def main(arguments: Sequence[str] | None = None, **more: Any) -> int:
    """Run one command and return the exit code; `more` is handed on to it."""
    asked = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    try:
        options = parser.parse_args(asked)
        if options.target == targets.IN_TURNS:
            options.target = _in_turn()
        held = options.target is None or targets.is_set(options.target)
        if not held and (problem := targets.misfit(options.target)):
            parser.error(f"--target: {problem}")
    except SystemExit as error:
        # argparse ends with 2, which means a wrong result where the gate says it.
        if error.code == 2 and asked[:1] and asked[0] in gate.COMMANDS:
            return CANNOT
        raise
    if missing := command_line.missing(options.needs):
        return command_line.fail(f"{options.command} needs {missing}")
    if not held:
        return targets.again(asked, options.target)
    return int(options.run(options, **more))


def _in_turn() -> str | None:
    """Return the target whose turn it is at the commit that the files stand on; none without one."""
    try:
        return targets.in_turn(repository.commit_of(repository.ROOT, repository.WORKTREE))
    except repository.GitError:
        return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benches", description="Measurements of fastml's kernels.")
    parser.set_defaults(needs={}, target=None)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")
    for room in _ROOMS:
        room.add_parsers(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
