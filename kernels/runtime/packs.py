"""Machine code that was made ahead of time and lies beside the package: one file for each kind of CPU.

A pack is a line of JSON, the manifest, and after it the records of `machine_code`, compressed. Its kernels have the
names of their files in the cache: a digest of the code that a kernel is made of, of its types and of the target, so
that a record serves the very code that it was made from. What the names do not say is in the manifest, and so is the
digest of each record. The file ``index.json`` beside the packs has the digests of the manifests. Packs are trusted as
the package's own files are, with which they came.

The choice is made once, when the first kernel is declared, and its kind of CPU holds for the whole process: how data is
laid out for kernels depends on it, so that what a pack lacks is compiled for the pack's kind of CPU, not for this one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import sys
import warnings
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numba
from numba import _dynfunc
from numba.core import config

from . import cpu_kinds
from .cpu_kinds import KINDS, CpuKind

__all__ = ["Pack", "State", "chosen", "kind", "sources", "state", "write", "write_index"]

_FORMAT = 1
_FOLDER = Path(__file__).parents[1] / "packs"
_INDEX = "index.json"

# Not to wait for the other end of a pipe.
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class _Refused(Exception):
    """A pack that is damaged or not to be trusted, for the reason that this says."""


class _Misfit(Exception):
    """A pack that is in order, for other surroundings."""


class Pack:
    """A pack that fits this process.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        The kind of CPU that it is for, one of `cpu_kinds.KINDS`.
    digest : str
        SHA-256 of its first line, as the package records it.
    """

    def __init__(self, path: Path, name: str, digest: str) -> None:
        content = _read(path)
        line = content.partition(b"\n")[0] + b"\n"
        if hashlib.sha256(line).hexdigest() != digest:
            raise _Refused("its manifest is not the one that the package records")
        manifest: dict[str, Any] = json.loads(line)
        for key, value in {"name": name, **_surroundings(name)}.items():
            if manifest[key] != value:
                raise _Misfit(f"made for {key} {manifest[key]}, here it is {value}")
        if manifest["sources"] != sources():
            raise _Misfit("made from other sources")
        self.name = name
        #: What the code depends on besides its source, as `write` was told.
        self.switches: dict[str, str] = manifest["switches"]
        #: How many kernels it has, besides the function that tries it.
        self.n_kernels = len(manifest["kernels"]) - 1
        #: Why its code is not used any more.
        self.refused: str | None = None
        self._kernels: dict[str, list[Any]] = manifest["kernels"]
        self._code = memoryview(content)[len(line) :]
        if len(self._code) != sum(length for _, length, _ in self._kernels.values()):
            raise _Refused("it is not whole")

    def read(self, name: str) -> bytes | None:
        """Return the record that the cache would keep in a file of this name, if the pack has it."""
        if self.refused or name not in self._kernels:
            return None
        offset, length, digest = self._kernels[name]
        content = self._code[offset : offset + length]
        if hashlib.sha256(content).hexdigest() != digest:
            self.refuse(f"{name} in it is damaged")
            return None
        return zlib.decompress(content)

    def read_all(self) -> None:
        """Look for damage."""
        for name in self._kernels:
            self.read(name)

    def refuse(self, reason: str) -> None:
        """Read no more; what the process still needs is compiled, for the pack's kind of CPU."""
        self.refused = reason
        _warn([f"{self.name}: {reason}"])


def write(path: Path, name: str, records: Mapping[str, bytes], switches: Mapping[str, str]) -> str:
    """Write a pack of a kind of CPU and return the digest of its manifest.

    Parameters
    ----------
    path : Path
        The file, which is replaced.
    name : str
        One of `cpu_kinds.KINDS`.
    records : mapping of str to bytes
        For each name of a file in the cache, what is in it.
    switches : mapping of str to str
        What the code depends on besides its source, as `jit.switches` returns it.
    """
    kernels, contents, offset = {}, [], 0
    for stem in sorted(records):
        content = zlib.compress(records[stem], 9)
        kernels[stem] = [offset, len(content), hashlib.sha256(content).hexdigest()]
        contents.append(content)
        offset += len(content)
    manifest = {
        "name": name,
        **_surroundings(name),
        "switches": dict(switches),
        "sources": sources(),
        "kernels": kernels,
    }
    line = json.dumps(manifest).encode() + b"\n"
    _replace(path, line + b"".join(contents))
    return hashlib.sha256(line).hexdigest()


def write_index(folder: Path, digests: Mapping[str, str]) -> None:
    """Add the digests of packs to those that the folder records."""
    path = folder / _INDEX
    known = json.loads(path.read_text()) if path.exists() else {}
    _replace(path, f"{json.dumps(known | dict(digests), indent=1, sort_keys=True)}\n".encode())


def _replace(path: Path, content: bytes) -> None:
    """Write a file that whoever reads finds whole, as it was or as it is."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.replace(path)


def _surroundings(name: str) -> dict[str, Any]:
    """Return what a process must have in common with the one that made a pack, besides the kind of CPU."""
    kind = KINDS[name]
    return {
        "format": _FORMAT,
        "cpu": kind.cpu,
        "features": kind.features,
        "needs": sorted(kind.needs),
        "triple": cpu_kinds.triple(),
        "python": sys.implementation.cache_tag,
        "numba": ".".join(numba.__version__.split(".")[:2]),
        "runtime": dict(sorted(_dynfunc._impl_info.items())),
    }


@cache
def sources() -> str:
    """Digest the files that kernels are made from."""
    root, found = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode())
        found.update(path.read_bytes())
    return found.hexdigest()


# ---------------------------------------------------------------------------------------- choice


class State(NamedTuple):
    """Which pack is used, or None; and why."""

    name: str | None
    reason: str


def kind() -> CpuKind | None:
    """Return the kind of CPU that this process compiles for; None if it is what Numba finds or is told."""
    if name := cpu_kinds.demanded():
        return KINDS[name]
    pack = chosen()
    return KINDS[pack.name] if pack else None


def chosen() -> Pack | None:
    """Return the best pack that fits this process; it is chosen once."""
    return _choice()[0]


def state() -> State:
    """Say which pack is used, or why none is."""
    pack, reason = _choice()
    if pack and pack.refused:
        return State(None, f"{pack.name}: {pack.refused}")
    return State(pack.name if pack else None, reason)


@cache
def _choice() -> tuple[Pack | None, str]:
    if cpu_kinds.foreign():
        return None, "nothing is run here"
    if os.environ.get("FASTML_PACK") == "0":
        return None, "switched off (FASTML_PACK)"
    misfits: list[str] = []
    refused: list[str] = []
    pack = None
    try:
        index = json.loads(_read(_FOLDER / _INDEX))
        for name in reversed(KINDS):
            if pack is None and name in index:
                pack = _fitting(name, index[name], misfits, refused)
    except (FileNotFoundError, NotADirectoryError):  # the latter in an archive
        return None, "this installation has none"
    except cpu_kinds.Unfit:
        raise
    except Exception as error:
        refused.append(f"{_FOLDER / _INDEX}: {_what_is_wrong(error)}")
    _warn(refused)
    if pack:
        return pack, f"fits; kernels: {pack.n_kernels}"
    return None, "; ".join([*refused, *misfits]) or "this installation has none that fastml knows"


def _fitting(name: str, digest: str, misfits: list[str], refused: list[str]) -> Pack | None:
    """Return a pack, or None and add to the reasons."""
    if misfit := _misfit(name):
        misfits.append(f"{name}: {misfit}")
        return None
    try:
        return Pack(_FOLDER / f"{name}.pack", name, digest)
    except _Misfit as error:
        misfits.append(f"{name}: {error}")
    except Exception as error:
        refused.append(f"{name}: {_what_is_wrong(error)}")
    return None


def _what_is_wrong(error: Exception) -> str:
    """Say why a file is refused."""
    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"it is damaged ({type(error).__name__})"


def _misfit(name: str) -> str | None:
    """Say why code for a kind of CPU is not what this process wants."""
    demanded = cpu_kinds.demanded()
    if demanded is not None:
        return None if name == demanded else f"FASTML_TARGET is {demanded}"
    told = (config.CPU_NAME, config.CPU_FEATURES)
    if told != (None, None) and told != (KINDS[name].cpu, KINDS[name].features):
        return "NUMBA_CPU_NAME and NUMBA_CPU_FEATURES say otherwise"
    return cpu_kinds.misfit(name)


def _warn(refused: list[str]) -> None:
    if refused:
        with contextlib.suppress(RuntimeWarning):  # a filter may make it an error, which a pack must never be
            warnings.warn(
                f"machine code that came with fastml is not used: {'; '.join(refused)}; kernels are compiled instead",
                RuntimeWarning,
                stacklevel=2,
            )


def _read(path: Path) -> bytes:
    """Read a file of the package, if nobody can have written it who could not have written this one."""
    with open(os.open(path, _READ_FLAGS), "rb") as file:
        found, own = os.fstat(file.fileno()), os.stat(__file__)
        if not stat.S_ISREG(found.st_mode):
            raise _Refused("it is no file")
        if os.name == "posix" and found.st_uid not in (own.st_uid, 0):
            raise _Refused(f"it belongs to user {found.st_uid}, the package to user {own.st_uid}")
        if os.name == "posix" and found.st_mode & 0o022 & ~own.st_mode:
            raise _Refused(f"more users can write to it than to the package (mode {stat.S_IMODE(found.st_mode):o})")
        return file.read()
