"""Kinds of CPU, and the environment variable that names one."""

from __future__ import annotations

import json

import llvmlite.binding as llvm
import pytest

from checkout import run_python
from fastml.kernels.runtime import cpu_kinds
from fastml.kernels.runtime.cpu_kinds import KINDS

pytestmark = pytest.mark.needs_jit

X86 = pytest.mark.skipif(cpu_kinds.architecture() != "x86_64", reason="kinds of x86 CPUs")


@pytest.fixture
def a_cpu_with(monkeypatch):
    """``a_cpu_with(features)``: be such a CPU."""
    monkeypatch.setattr(cpu_kinds, "_named", cpu_kinds._named.__wrapped__)
    monkeypatch.delenv("FASTML_TARGET", raising=False)
    return lambda features: monkeypatch.setattr(cpu_kinds, "_host_features", lambda: frozenset(features))


def test_llvm_knows_all_that_kinds_need():
    names = {name for name, kind in KINDS.items() if kind.architecture == cpu_kinds.architecture()}
    assert names
    for name in names:
        assert KINDS[name].needs <= llvm.get_host_cpu_features().keys()


@X86
@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.architecture == "x86_64"])
def test_a_cpu_that_has_what_a_kind_needs_and_no_more(a_cpu_with, name):
    a_cpu_with(KINDS[name].needs)
    assert cpu_kinds.misfit(name) is None
    assert cpu_kinds.best_here() == name
    better = list(KINDS)[list(KINDS).index(name) + 1]
    assert cpu_kinds.misfit(better).startswith("this CPU ")


@X86
def test_an_old_cpu(a_cpu_with):
    a_cpu_with(["sse2"])
    assert cpu_kinds.best_here() is None
    assert cpu_kinds.misfit("x86-64-v3") == "this CPU has no avx"


def test_another_architecture():
    other = "aarch64" if cpu_kinds.architecture() == "x86_64" else "x86-64-v3"
    assert cpu_kinds.misfit(other) == f"this CPU is of another architecture, {cpu_kinds.architecture()}"


def test_nothing_is_demanded_by_default(a_cpu_with, monkeypatch):
    assert cpu_kinds.demanded() is None
    monkeypatch.setenv("FASTML_TARGET", "")
    assert cpu_kinds.demanded() is None


@X86
def test_what_is_demanded_must_run_here(a_cpu_with, monkeypatch):
    a_cpu_with(KINDS["x86-64-v3"].needs)
    monkeypatch.setenv("FASTML_TARGET", "x86-64-v3")
    assert cpu_kinds.demanded() == "x86-64-v3"
    monkeypatch.setenv("FASTML_TARGET", "x86-64-v4")
    with pytest.raises(cpu_kinds.Unfit, match=r"^FASTML_TARGET=x86-64-v4, but this CPU has no avx512bw$"):
        cpu_kinds.demanded()
    monkeypatch.setenv("FASTML_TARGET", "my laptop")
    with pytest.raises(cpu_kinds.Unfit, match=r"'my laptop' is no target that fastml knows: x86-64-v3, x86-64-v4, "):
        cpu_kinds.demanded()


@X86
@pytest.mark.targets
@pytest.mark.skipif(
    cpu_kinds.architecture() != "x86_64" or cpu_kinds.misfit("x86-64-v3") is not None, reason="an old CPU"
)
def test_a_process_compiles_its_kernels_for_the_kind_and_nothing_else():
    code = """
import json, numba
from fastml.kernels.runtime.jit import compiled_for
from fastml.kernels.runtime.target import target
mine = numba.njit(lambda x: x)
mine(1)
print(json.dumps([compiled_for()[1:], target()[:2], mine.targetctx.codegen().magic_tuple()[1]]))
"""
    environment = {"FASTML_TARGET": "x86-64-v3", "NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": ""}
    for_us, target, for_users = json.loads(run_python(code, **environment))
    assert for_us == ["x86-64-v3", ""]
    assert target == ["x86-64-v3", 32]
    assert for_users == "x86-64-v2"
