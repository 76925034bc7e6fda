"""The target that Numba compiles for."""

from __future__ import annotations

import json

import llvmlite.binding as llvm
import pytest

from checkout import run_python
from fastml.kernels.runtime import target
from fastml.kernels.runtime.target import target as the_target

pytestmark = pytest.mark.needs_jit


def test_target_is_that_of_the_compiler():
    own = the_target()
    assert own.cpu
    assert own.vector_bytes in (16, 32, 64)
    assert own.features <= {"x86", "fma", "avx2", "avx512bw", "vnni", "neon", "dotprod"}


@pytest.mark.targets
@pytest.mark.skipif("x86" not in the_target().features, reason="names of x86 CPUs")
@pytest.mark.parametrize(
    ("cpu", "vector_bytes", "features"),
    [
        ("generic", 16, {"x86"}),
        ("x86-64-v2", 16, {"x86"}),
        ("x86-64-v3", 32, {"x86", "fma", "avx2"}),
        ("x86-64-v4", 64, {"x86", "fma", "avx512bw"}),
        ("alderlake", 32, {"x86", "fma", "avx2", "vnni"}),
        ("znver4", 64, {"x86", "fma", "avx512bw", "vnni"}),
    ],
)
def test_target_follows_numbas_settings_and_not_the_cpu(cpu, vector_bytes, features):
    code = (
        "import json\nfrom fastml.kernels.runtime.target import target\nt = target()\n"
        "print(json.dumps([*t[:2], [*t[2]]]))"
    )
    name, width, found = json.loads(run_python(code, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=""))
    assert (name, width) == (cpu, vector_bytes)
    assert features <= set(found) <= features | {"avx2"}


@pytest.mark.parametrize(("features", "found"), [("+neon", {"neon"}), ("+neon,+dotprod", {"neon", "dotprod"})])
def test_arm_is_asked_for_its_dot_products(features, found, monkeypatch):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    monkeypatch.setattr(target, "compiled_for", lambda: ("aarch64-unknown-linux-gnu", "generic", features))
    assert target._ask_compiler.__wrapped__() == target.Target("generic", 16, frozenset({"fma", *found}))
