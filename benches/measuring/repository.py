"""The repository that is measured: where it lies, and which commit its files are."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "SOURCES", "WORKTREE", "GitError", "commit_of", "git", "is_changed", "source_of"]

ROOT = Path(__file__).resolve().parents[2]
#: Stands for the files as they are, committed or not.
WORKTREE = "worktree"
#: What a wheel is made from.
SOURCES = ("fastml", "kernels", "setup.cfg")


class GitError(Exception):
    """Git could not be run, or refused; the message says why."""


def git(repository: Path, *arguments: str) -> str:
    """Run git and return what it prints."""
    try:
        done = subprocess.run(["git", *arguments], cwd=repository, capture_output=True, check=False)
    except OSError as error:
        raise GitError(f"git cannot be run: {error}") from None
    if done.returncode != 0:
        raise GitError(f"git {' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode().strip()


def commit_of(repository: Path, revision: str) -> str:
    """Return the full name of a revision's commit; of the worktree, the one it stands on."""
    return git(repository, "rev-parse", "--verify", f"{'HEAD' if revision == WORKTREE else revision}^{{commit}}")


def is_changed(repository: Path, *more: str) -> bool:
    """Whether the packages in the working tree, and `more` folders, differ from its commit."""
    return bool(git(repository, "status", "--porcelain", "--", *SOURCES, *more))


def source_of(repository: Path) -> dict[str, Any]:
    """Return the commit of the working tree (None without a repository), and whether files differ from it."""
    try:
        return {"commit": commit_of(repository, WORKTREE), "changed": is_changed(repository, "benches")}
    except GitError:
        return {"commit": None, "changed": False}
