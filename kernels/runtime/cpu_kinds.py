"""Kinds of CPU that machine code is made for, beside the very CPU that makes it.

Code for a kind runs on every CPU that has what the kind needs, so that it can be kept for other machines. A process
knows one kind for all its kernels, as data is laid out for them by it. ``FASTML_TARGET`` in the environment names it;
without, there is the kind of the pack that is used (`packs`), or no kind: code is for what Numba finds, or is told by
``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES``. What users compile with Numba is not affected.
"""

from __future__ import annotations

import os
from functools import cache
from typing import NamedTuple

import llvmlite.binding as llvm
import numba

__all__ = [
    "KINDS",
    "CpuKind",
    "Unfit",
    "aim",
    "architecture",
    "best_here",
    "demanded",
    "foreign",
    "known",
    "knows_numba",
    "misfit",
    "triple",
]


class CpuKind(NamedTuple):
    """LLVM's name for a kind of CPU, features that this does not have, and all that a CPU must have."""

    architecture: str
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

#: By their names, the best of an architecture last. CPUs with VNNI are fast with the longest vectors, which LLVM spares
#: those of x86-64-v4: loops of elementwise functions took 1.3 to 1.6 times as long without (Zen 4).
KINDS = {
    "x86-64-v3": CpuKind("x86_64", "x86-64-v3", "", _V3),
    "x86-64-v4": CpuKind("x86_64", "x86-64-v4", "", _V4),
    "x86-64-v4-vnni": CpuKind("x86_64", "x86-64-v4", "+avx512vnni,-prefer-256-bit", _V4 | {"avx512vnni"}),
    "aarch64": CpuKind("aarch64", "generic", "+neon", frozenset({"neon"})),
}

#: What else the first part of LLVM's triples calls an architecture.
_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


#: Minor versions of Numba whose inner workings `compiler` was tried with.
_TRIED = frozenset({"0.62", "0.63", "0.64", "0.65", "0.66", "0.67", "0.68"})


def knows_numba() -> bool:
    """Whether this is a Numba that can be told what to compile for, and whose code can be kept for other machines."""
    return ".".join(numba.__version__.split(".")[:2]) in _TRIED


class Unfit(RuntimeError):
    """The name of a kind that there is not, or that this CPU is not."""


def known(name: str) -> CpuKind:
    """Return the kind of this name.

    Raises
    ------
    Unfit
        If there is none.
    """
    if name not in KINDS:
        raise Unfit(f"{name!r} is no target that fastml knows: {', '.join(KINDS)}")
    return KINDS[name]


def misfit(name: str) -> str | None:
    """Say why code for a kind of CPU does not run here; None if it does."""
    kind = known(name)
    if kind.architecture != architecture():
        return f"this CPU is of another architecture, {architecture()}"
    missing = sorted(kind.needs - _host_features())
    return f"this CPU has no {missing[0]}" if missing else None


def architecture() -> str:
    """Return what kind of machine this is."""
    first = llvm.get_process_triple().partition("-")[0]
    return _ALIASES.get(first, first)


def _host_features() -> frozenset[str]:
    try:
        features = llvm.get_host_cpu_features()
    except RuntimeError:  # LLVM does not know how to ask here; Numba does without, too
        return frozenset()
    return frozenset(feature for feature, there in features.items() if there)


def best_here() -> str | None:
    """Return the best kind whose code runs here."""
    return next((name for name in reversed(KINDS) if misfit(name) is None), None)


def demanded() -> str | None:
    """Return the kind that this process was told to compile for, if any.

    Raises
    ------
    Unfit
        If there is none of that name, or its code does not run here.
    """
    return _aim or _named()


@cache
def _named() -> str | None:
    """Read the environment, once: a process has one kind."""
    name = os.environ.get("FASTML_TARGET") or None
    if name and (reason := misfit(name)):
        raise Unfit(f"FASTML_TARGET={name}, but {reason}")
    return name


# ---------------------------------------------------------------------- code for other machines only

_aim: str | None = None


def aim(name: str) -> None:
    """Compile for a kind of CPU that this one need not be: before any kernel is declared, and to call none of them."""
    global _aim
    _aim = name


def foreign() -> bool:
    """Whether this process only makes code, and runs none."""
    return _aim is not None


def triple() -> str:
    """Return LLVM's name for what this process compiles for: its own system, perhaps of another architecture."""
    own = llvm.get_process_triple()
    if _aim is None or KINDS[_aim].architecture == architecture():
        return own
    return KINDS[_aim].architecture + own[own.index("-") :]
