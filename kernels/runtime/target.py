"""What Numba compiles for, asked of the compiler: how wide vectors are, and instructions that code asks for by name."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import llvmlite.binding as llvm

from .jit import compiled_for

__all__ = ["Target", "target"]


class Target(NamedTuple):
    """What Numba compiles for; `vector_bytes` is the width of the widest register LLVM will use."""

    cpu: str
    vector_bytes: int
    features: frozenset[str]


def target() -> Target:
    """Return what Numba compiles for; all code that depends on it asks here."""
    return _ask_compiler()


@cache
def _ask_compiler() -> Target:
    """Ask the compiler, not the CPU: ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` may say less.

    A feature list can be empty although the CPU's name implies features, so the answer is read from the assembly of
    probes. Tests of code for other targets put another function in the place of this one.
    """
    triple, cpu, features = compiled_for()
    floats = _assembly(_PROBE, triple, cpu, features)
    found = {"fma"} if "vfmadd" in floats or "fmla" in floats else set()
    if triple.startswith(("x86_64", "i686", "i386", "amd64")):
        integers = _assembly(_INTEGER_PROBE, triple, cpu, features)
        found |= {"x86"} | {name for name, mark in (("avx2", "ymm"), ("avx512bw", "zmm")) if mark in integers}
        found |= {"vnni"} if "vpdpbusd" in _assembly(_DOT_PROBE, triple, cpu, features) else set()
    elif triple.startswith(("aarch64", "arm64")):
        bytes_of_one_sign = _DOT_PROBE.replace("sext", "zext")
        found |= {"neon"} | ({"dotprod"} if "udot" in _assembly(bytes_of_one_sign, triple, cpu, features) else set())
    return Target(cpu, _widest_register(floats), frozenset(found))


def _widest_register(assembly: str) -> int:
    return next((size for mark, size in (("zmm", 64), ("ymm", 32)) if mark in assembly), 16)


_PROBE = """
define void @probe(ptr %p, ptr %q) {
  %a = load <16 x float>, ptr %p, align 4
  %b = load <16 x float>, ptr %q, align 4
  %c = call <16 x float> @llvm.fmuladd.v16f32(<16 x float> %a, <16 x float> %b, <16 x float> %a)
  store <16 x float> %c, ptr %p, align 4
  ret void
}
declare <16 x float> @llvm.fmuladd.v16f32(<16 x float>, <16 x float>, <16 x float>)
"""

_INTEGER_PROBE = """
define void @probe(ptr %p, ptr %q) {
  %a = load <32 x i16>, ptr %p, align 2
  %b = load <32 x i16>, ptr %q, align 2
  %c = sub <32 x i16> %a, %b
  store <32 x i16> %c, ptr %p, align 2
  ret void
}
"""

_DOT_PROBE = """
define i32 @probe(ptr %p, ptr %q) {
  %a = load <64 x i8>, ptr %p, align 1
  %b = load <64 x i8>, ptr %q, align 1
  %x = zext <64 x i8> %a to <64 x i32>
  %y = sext <64 x i8> %b to <64 x i32>
  %m = mul <64 x i32> %x, %y
  %s = call i32 @llvm.vector.reduce.add.v64i32(<64 x i32> %m)
  ret i32 %s
}
declare i32 @llvm.vector.reduce.add.v64i32(<64 x i32>)
"""


def _assembly(source: str, triple: str, cpu: str, features: str) -> str:
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=2)
    return machine.emit_assembly(llvm.parse_assembly(source))
