"""Two environments on one machine, from two revisions of the repository.

An environment holds what the wheel of its revision would hold, laid out by that revision's own ``setup.cfg``; a wheel
of this project is nothing more. Its dependencies are those of the running Python, the same for both sides: their folder
is named in a ``.pth`` file, and ``.pth`` files in that folder, which would bring in an editable install, are not read.
The worker refuses to run a ``fastml`` that lies anywhere else.
"""

from __future__ import annotations

import configparser
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..measuring.repository import SOURCES, WORKTREE, GitError, commit_of, git, is_changed

__all__ = ["Environment", "GateError", "build", "default_base", "install"]

_MAIN = ("origin/main", "main", "origin/master", "master")


class GateError(Exception):
    """The gate could not run; the message says why."""


@dataclass(frozen=True)
class Environment:
    """One side.

    Attributes
    ----------
    name : str
        "base" or "head".
    revision : str
        As it was asked for.
    commit : str
        Full name of the commit; of the worktree, the one it stands on.
    site : Path
        The folder that holds ``fastml``.
    python : Path
        Its interpreter.
    cache : Path
        Where its machine code is kept.
    changed : bool
        Whether its files are in no commit.
    """

    name: str
    revision: str
    commit: str
    site: Path
    python: Path
    cache: Path
    changed: bool = False


def default_base(repository: Path, head: str, recorded: list[str]) -> tuple[str, str] | None:
    """Return the commit to compare with when none is named, and why; None if there is none.

    Parameters
    ----------
    repository : Path
        May be a plain copy of the files, which has no past.
    head : str
    recorded : list of str
        Commits that have a history file.
    """
    try:
        git(repository, "rev-parse", "--git-dir")
    except GitError:
        return None
    commit = commit_of(repository, head)
    for found in _newest_first(repository, commit, recorded):
        return found, "the newest commit that has a history file"
    for branch in _MAIN:
        try:
            return git(repository, "merge-base", branch, commit), f"where the head left {branch}"
        except GitError:
            continue
    return None


def _newest_first(repository: Path, head: str, commits: list[str]) -> list[str]:
    """Return those of `commits` that lead to `head` and are there (a shallow clone may lack them), newest first."""
    wanted = set(commits)
    return [commit for commit in git(repository, "rev-list", head).splitlines() if commit in wanted]


def build(name: str, revision: str, repository: Path, folder: Path, cache: Path) -> Environment:
    """Make the environment of one side in `folder`, which must not exist yet."""
    commit = commit_of(repository, revision)
    tree = folder / "tree"
    tree.mkdir(parents=True)
    if revision == WORKTREE:
        _copy_worktree(repository, tree)
    else:
        _extract(repository, commit, tree)
    environment = folder / "environment"
    # Not by pip: there would be nothing left for it to do, and it needs a second to say so.
    venv.create(environment, with_pip=False, symlinks=os.name != "nt")
    paths = {"base": str(environment), "platbase": str(environment)}
    site = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    site.mkdir(parents=True, exist_ok=True)
    install(tree, site)
    own = dict.fromkeys(sysconfig.get_path(which) for which in ("purelib", "platlib"))
    (site / "dependencies.pth").write_text("\n".join(own) + "\n", encoding="utf-8")
    python = Path(sysconfig.get_path("scripts", "venv", vars=paths)) / Path(sys.executable).name
    if not python.exists():
        python = python.with_name("python.exe" if os.name == "nt" else "python")
    cache.mkdir(parents=True, exist_ok=True)
    return Environment(name, revision, commit, site, python, cache, revision == WORKTREE and is_changed(repository))


def _extract(repository: Path, commit: str, tree: Path) -> None:
    present = git(repository, "ls-tree", "--name-only", commit).splitlines()
    missing = [name for name in SOURCES if name not in present]
    if missing:
        raise GateError(f"{commit[:10]} has no {', '.join(missing)}")
    # A zip archive: unpacking a tar archive safely needs Python 3.11.4.
    command = ["git", "archive", "--format=zip", commit, *SOURCES]
    done = subprocess.run(command, cwd=repository, capture_output=True, check=False)
    if done.returncode != 0:
        raise GateError(f"git archive {commit}: {done.stderr.decode(errors='replace').strip()}")
    with zipfile.ZipFile(io.BytesIO(done.stdout)) as archive:
        archive.extractall(tree)


def _copy_worktree(repository: Path, tree: Path) -> None:
    names = git(repository, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *SOURCES)
    for name in filter(None, names.split("\0")):
        source = repository / name
        if source.is_file() and not source.is_symlink():
            target = tree / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def install(tree: Path, site: Path) -> None:
    """Lay the packages out as ``setup.cfg`` of the same tree says."""
    parser = configparser.ConfigParser()
    parser.read_string((tree / "setup.cfg").read_text(encoding="utf-8"))
    folders = {}
    for line in filter(None, parser["options"]["package_dir"].splitlines()):
        package, _, folder = line.partition("=")
        folders[package.strip()] = folder.strip()
    for package in filter(None, parser["options"]["packages"].split()):
        source, target = tree / folders.get(package, package.replace(".", "/")), site / package.replace(".", "/")
        if not source.is_dir():
            raise GateError(f"setup.cfg names the package {package}, but {source.relative_to(tree)} is no folder")
        target.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            if file.is_file() and file.suffix in (".py", ".typed"):
                shutil.copyfile(file, target / file.name)
