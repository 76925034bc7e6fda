"""Machine code that was made ahead of time and lies beside the package: one file for each kind of CPU.

A pack is a line of JSON, the manifest, and after it the records of `machine_code`, compressed. Its kernels have the
names of their files in the cache: a digest of the code that a kernel is made of, of its types and of the target, so
that a record serves the very code that it was made from. What the names do not say is in the manifest, and so is the
digest of each record. The file ``index.json`` beside the packs has the digests of the manifests. Packs are trusted as
the package's own files are, with which they came.

The kind of CPU is chosen once, when the first kernel is declared. It holds for the whole process: how data is laid out
for kernels depends on it, so that what a pack lacks is compiled for the pack's kind of CPU, not for this one.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import threading
import warnings
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import llvmlite.binding as llvm
import numba
from numba import _dynfunc
from numba.core import config

__all__ = [
    "TARGETS",
    "Pack",
    "PackTarget",
    "Refused",
    "chosen",
    "refuse",
    "sources",
    "state",
    "used",
    "write",
    "write_index",
]

_FORMAT = 1
_FOLDER = Path(__file__).parents[1] / "packs"
_INDEX = "index.json"


class PackTarget(NamedTuple):
    """A kind of CPU: LLVM's name for it, features that this does not have, and all that a CPU must have."""

    cpu: str
    features: str
    needs: frozenset[str]


_V3 = frozenset(
    {
        *("avx", "avx2", "bmi", "bmi2", "cx16", "f16c", "fma", "lzcnt", "movbe", "popcnt", "sahf", "sse3", "sse4.1"),
        *("sse4.2", "ssse3", "xsave"),
    }
)
_V4 = _V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}

#: Kinds of CPU that packs are made for, the best last.
TARGETS = {
    "x86-64-v3": PackTarget("x86-64-v3", "", _V3),
    "x86-64-v4": PackTarget("x86-64-v4", "", _V4),
    "x86-64-v4-vnni": PackTarget("x86-64-v4", "+avx512vnni", _V4 | {"avx512vnni"}),
}


class Refused(Exception):
    """A pack that is not used here, for the reason that this says."""


class Pack:
    """A pack that fits this process.

    Parameters
    ----------
    path : Path
        The file.
    digest : str
        SHA-256 of its first line, as the package records it.

    Raises
    ------
    Refused
        If it is damaged, not to be trusted, or made for something else.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self._file = _opened(path)
        line = self._file.readline()
        if hashlib.sha256(line).hexdigest() != digest:
            raise Refused("its manifest is not the one that the package records")
        self.manifest: dict[str, Any] = json.loads(line)
        self._kernels: dict[str, list[Any]] = self.manifest["kernels"]
        self._begin = len(line)
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The kind of CPU, one of `TARGETS`."""
        return str(self.manifest["name"])

    @property
    def target(self) -> PackTarget:
        """What its code is made for."""
        return PackTarget(self.manifest["cpu"], self.manifest["features"], frozenset(self.manifest["needs"]))

    def read(self, name: str) -> bytes | None:
        """Return the record that the cache would keep in a file of this name, if the pack has it."""
        place = self._kernels.get(name)
        if place is None:
            return None
        offset, length, digest = place
        with self._lock:
            self._file.seek(self._begin + offset)
            content = self._file.read(length)
        if hashlib.sha256(content).hexdigest() != digest:
            raise Refused(f"{name} in it is damaged")
        return zlib.decompress(content)


def write(path: Path, name: str, records: Mapping[str, bytes], switches: str) -> str:
    """Write a pack of a kind of CPU and return the digest of its manifest.

    Parameters
    ----------
    path : Path
        The file, which is replaced.
    name : str
        One of `TARGETS`.
    records : mapping of str to bytes
        For each name of a file in the cache, what is in it.
    switches : str
        Digest of what the code depends on besides its source, as `jit.switches` returns it.
    """
    kernels, contents, offset = {}, [], 0
    for stem in sorted(records):
        content = zlib.compress(records[stem], 9)
        kernels[stem] = [offset, len(content), hashlib.sha256(content).hexdigest()]
        contents.append(content)
        offset += len(content)
    target = TARGETS[name]
    manifest = {
        "name": name,
        "cpu": target.cpu,
        "features": target.features,
        "needs": sorted(target.needs),
        **_surroundings(),
        "switches": switches,
        "sources": sources(),
        "kernels": kernels,
    }
    line = json.dumps(manifest).encode() + b"\n"
    path.write_bytes(line + b"".join(contents))
    return hashlib.sha256(line).hexdigest()


def write_index(folder: Path, digests: Mapping[str, str]) -> None:
    """Add the digests of packs to those that the folder records."""
    path = folder / _INDEX
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | dict(digests), indent=1, sort_keys=True) + "\n")


def _surroundings() -> dict[str, Any]:
    """Return what a process must have in common with the one that made a pack."""
    return {
        "format": _FORMAT,
        "triple": llvm.get_process_triple(),
        "python": f"{sys.implementation.cache_tag}",
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
    """Which pack is used, or why none is."""

    name: str | None
    reason: str


_state = State(None, "no kernel was declared yet")


@cache
def chosen() -> Pack | None:
    """Choose the best pack that fits this process, once."""
    global _state
    pack, reasons, warned = None, [], []
    if os.environ.get("FASTML_PACK", "1") in ("", "0"):
        reasons.append("switched off (FASTML_PACK)")
    else:
        try:
            index = json.loads(_opened(_FOLDER / _INDEX).read())
        except FileNotFoundError:
            index = {}
            reasons.append("this installation has none")
        except (OSError, ValueError, Refused) as error:
            index = {}
            warned.append(f"{_FOLDER / _INDEX}: {error}")
        for name in sorted(index, key=_rank, reverse=True):
            if pack is None and (misfit := _misfit_of_target(name)) is not None:
                reasons.append(f"{name}: {misfit}")
            elif pack is None:
                try:
                    pack = _fitting(Pack(_FOLDER / f"{name}.pack", index[name]))
                except _Misfit as error:
                    reasons.append(f"{name}: {error}")
                except (OSError, ValueError, LookupError, TypeError, Refused) as error:
                    warned.append(f"{name}: {error}")
    if warned:
        warnings.warn(
            f"packs of machine code that are not used: {'; '.join(warned)}; kernels are compiled instead",
            RuntimeWarning,
            stacklevel=2,
        )
    _state = State(pack.name, "fits this CPU") if pack else State(None, "; ".join([*warned, *reasons]))
    return pack


def state() -> State:
    """Say which pack is used, or why none is."""
    chosen()
    return _state


def used() -> str | None:
    """Return the name of the pack that is used."""
    return state().name


def refuse(pack: Pack, reason: str) -> None:
    """Say that the code of the pack is not used after all; the rest of the process is compiled for its kind of CPU."""
    global _state
    _state = State(None, f"{pack.name}: {reason}")
    warnings.warn(f"a pack of machine code is not used: {_state.reason}", RuntimeWarning, stacklevel=2)


class _Misfit(Exception):
    """A pack that is in order, for other surroundings."""


def _rank(name: str) -> int:
    return list(TARGETS).index(name) if name in TARGETS else -1


def _misfit_of_target(name: str) -> str | None:
    """Say why code for a kind of CPU is not what this process wants."""
    target = TARGETS.get(name)
    if target is None:
        return "this version does not know it"
    if config.CPU_NAME is not None or config.CPU_FEATURES is not None:
        if (config.CPU_NAME, config.CPU_FEATURES) != (target.cpu, target.features):
            return "NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name another target"
        return None
    has = {feature for feature, there in llvm.get_host_cpu_features().items() if there}
    if missing := sorted(target.needs - has):
        return f"this CPU has no {missing[0]}"
    return None


def _fitting(pack: Pack) -> Pack:
    """Return the pack if it was made for what this process is."""
    for name, value in _surroundings().items():
        if pack.manifest[name] != value:
            raise _Misfit(f"made for {name} {pack.manifest[name]}, this is {value}")
    if pack.target != TARGETS[pack.name]:
        raise _Misfit("its target is not what this version means by the name")
    if pack.manifest["sources"] != sources():
        raise _Misfit("made from other sources")
    return pack


def _opened(path: Path) -> BinaryIO:
    """Open a file of the package, if nobody can have written it who could not have written this one."""
    file = open(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)), "rb")  # noqa: SIM115
    found, own = os.fstat(file.fileno()), os.stat(__file__)
    reason = None
    if not stat.S_ISREG(found.st_mode):
        reason = "is no file"
    elif os.name == "posix" and found.st_uid not in (own.st_uid, 0):
        reason = f"belongs to user {found.st_uid}, the package to user {own.st_uid}"
    elif os.name == "posix" and found.st_mode & 0o022 & ~own.st_mode:
        reason = f"can be written by more users than the package (mode {stat.S_IMODE(found.st_mode):o})"
    if reason:
        file.close()
        raise Refused(f"{path} {reason}")
    return file
