"""What every kernel must keep to: one place for compilation options, a budget of compiled forms."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

from fastml import kernels
from fastml.cli import warmup
from fastml.kernels import catalogue
from fastml.kernels.runtime import jit

KERNELS = Path(kernels.__file__).parent

SOURCES = sorted(KERNELS.rglob("*.py"))


# ------------------------------------------------------------------ options stand in one file only

COMPILERS = {"jit", "njit", "vectorize", "guvectorize", "stencil", "cfunc", "jitclass", "generated_jit", "overload"}

OPTIONS = {"cache", "nogil", "parallel", "fastmath", "error_model", "forceinline", "inline", "boundscheck", "nopython"}

OPTIONS |= {"looplift", "no_cpython_wrapper", "no_cfunc_wrapper", "locals", "debug"}

ALLOWED_FLAGS = {"contract", "reassoc", "nsz", "arcp"}


def violations(source: str) -> list[str]:
    """Return what a module other than `jit` says about compilation."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in COMPILERS | {"intrinsic"}:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "numba":
            names = {alias.name for alias in node.names} & (COMPILERS | {"intrinsic", "prange"})
            found += [f"line {node.lineno}: from {node.module} import {name}" for name in sorted(names)]
        elif isinstance(node, ast.Call):
            named = [
                k for k in node.keywords if k.arg in OPTIONS | {"flags"} and not is_flag_of_an_instruction(node, k)
            ]
            found += [f"line {node.lineno}: {ast.unparse(node.func)}(..., {k.arg}=...)" for k in named]
        elif isinstance(node, ast.Dict):
            named = {key.value for key in node.keys if isinstance(key, ast.Constant)} & OPTIONS
            found += [f"line {node.lineno}: {option!r} in a dict" for option in sorted(named)]
    return found


def is_flag_of_an_instruction(call: ast.Call, keyword: ast.keyword) -> bool:
    """Whether this is an instruction that an intrinsic emits, with flags that keep NaN and infinity."""
    if keyword.arg not in ("flags", "fastmath") or not isinstance(call.func, ast.Attribute):
        return False
    emits = ast.unparse(call.func.value).split(".")[-1] in ("b", "builder")
    return emits and isinstance(keyword.value, ast.Tuple) and set(ast.literal_eval(keyword.value)) <= ALLOWED_FLAGS


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path != KERNELS / "runtime" / "jit.py"],
    ids=lambda path: path.relative_to(KERNELS).with_suffix("").as_posix(),
)
def test_only_jit_names_compilation_options(path):
    found = violations(path.read_text(encoding="utf-8"))
    if path == KERNELS / "runtime" / "compiler.py":  # it tells Numba what compiles Numba's own functions for the target
        assert len(found) == 1
        assert found.pop().endswith(": numba.jit")
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import numba\n@numba.njit\ndef f(x): return x",
        "import numba as nb\nf = nb.jit(nopython=True)(lambda x: x)",
        "from numba import njit\n@njit(cache=True)\ndef f(x): return x",
        "from numba import njit as compiled",
        "from numba.extending import intrinsic",
        "import numba.extending\n@numba.extending.intrinsic\ndef f(t): ...",
        "from numba import prange",
        "from .jit import kernel\n@kernel(fastmath=True)\ndef f(x): return x",
        "from .jit import kernel\noptions = {'fastmath': True}\nf = kernel(lambda x: x, **options)",
        "import numba\nf = numba.vectorize(['f4(f4)'])(abs)",
        "def emit(b, x): return b.fadd(x, x, flags=('fast',))",
        "def emit(b, x): return b.call(x, [], fastmath=('nsz', 'nnan'))",
    ],
)
def test_a_violation_is_found(source):
    assert violations(source)


def test_flags_of_an_instruction_that_keep_nan_are_no_violation():
    assert violations("def emit(b, x): return b.fadd(x, x, flags=('contract',))") == []


def test_every_policy_is_found_in_jit_itself():
    """The search works on the one module that has something to find."""
    found = " ".join(violations((KERNELS / "runtime" / "jit.py").read_text(encoding="utf-8")))
    assert {"intrinsic", "fastmath", "nogil", "error_model", "forceinline"} <= set(re.findall(r"\w+", found))


# -------------------------------------------------------------------------------------- fast math


def wrong_flags(fastmath: object) -> str:
    """Say what is wrong with a value of ``fastmath``; nothing if it is a set that keeps NaN and infinity."""
    flags = getattr(fastmath, "flags", fastmath)
    if not isinstance(flags, (set, frozenset)):
        return f"{flags!r} is no set of names"
    return ", ".join(sorted(set(flags) - ALLOWED_FLAGS))


def test_named_sets_keep_nan_and_infinity():
    assert wrong_flags(jit.REORDERED) == ""
    assert wrong_flags(jit.IN_ORDER) == ""
    assert jit.IN_ORDER < jit.REORDERED
    assert "reassoc" not in jit.IN_ORDER


@pytest.mark.parametrize("fastmath", [True, {"fast"}, {"contract", "nnan"}, {"ninf"}, {"afn"}, "fast"])
def test_wrong_sets_are_found(fastmath):
    assert wrong_flags(fastmath)


def dispatchers() -> dict[str, object]:
    """Every compiled function in a module of the kernels, helpers included."""
    found = {}
    for path in SOURCES:
        name = ".".join(["fastml.kernels", *path.relative_to(KERNELS).with_suffix("").parts])
        module = __import__(name.removesuffix(".__init__"), fromlist=["_"])
        for key, value in vars(module).items():
            for number, each in enumerate(value.values() if isinstance(value, dict) else [value]):
                if hasattr(each, "targetoptions"):
                    found[f"{name}.{key}.{number}"] = each
    return found


@pytest.mark.needs_jit
def test_every_compiled_function_follows_the_policy():
    found = dispatchers()
    assert len(found) > 40
    assert {id(compiled) for compiled in jit.KERNELS} <= {id(compiled) for compiled in found.values()}
    for name, compiled in found.items():
        options = compiled.targetoptions
        assert wrong_flags(options["fastmath"]) == "", name
        assert options["nogil"] is True, name
        assert options["error_model"] == "numpy", name
        assert not options.get("parallel"), name


# --------------------------------------------------------------------------------- compile budget

BUDGET = {key: entry.specializations for key, entry in catalogue.ENTRIES.items()} | {
    "ConvNetClassifier": 3,  # float32, float64, and bytes that become float32
    "KNNImputer": 1,  # in float64, whatever comes
    "LinearSVC": 3,  # as the next
    "LogisticRegression": 3,  # products of float64 rows, of float32 rows, and of float32 rows in float64
    "Ridge": 2,
    "SGDClassifier": 2,
}


def over_budget(signatures: dict[str, dict[str, int]], budget: dict[str, int]) -> list[str]:
    """Return the kernels with more compiled forms than the entry or model that calls them is allowed."""
    return [
        f"{key}: {kernel} has {count} forms, {budget[key]} are allowed"
        for key, kernels in signatures.items()
        for kernel, count in kernels.items()
        if count > budget[key]
    ]


@pytest.mark.needs_jit
@pytest.mark.slow
def test_no_kernel_has_more_forms_than_are_allowed(signatures):
    assert over_budget(signatures, BUDGET) == []


@pytest.mark.needs_jit
@pytest.mark.slow
def test_no_more_forms_are_allowed_than_there_are(signatures):
    most = {key: max(kernels.values()) for key, kernels in signatures.items()}
    assert most == BUDGET


@pytest.mark.needs_jit
@pytest.mark.slow
def test_every_entry_and_every_kernel_was_counted(signatures):
    assert signatures.keys() == BUDGET.keys()
    assert all(signatures.values()), "an entry without a kernel"
    counted = {kernel for kernels in signatures.values() for kernel in kernels}
    for module in pkgutil.walk_packages(kernels.__path__, "fastml.kernels."):
        importlib.import_module(module.name)
    others = warmup.kernels_of_other_targets()
    assert counted.isdisjoint(others)
    assert counted | others == jit.stats().keys(), "a kernel that no entry reaches"


def test_a_kernel_over_budget_is_found():
    assert over_budget({"a": {"k": 2, "l": 3}}, {"a": 2}) == ["a: l has 3 forms, 2 are allowed"]
    assert over_budget({"a": {"k": 2}}, {"a": 2}) == []


@pytest.mark.needs_jit
def test_writeable_arrays_would_be_another_form():
    """Why kernels get read-only views: without, each mixture of writeable and not is compiled by itself."""
    compiled = jit.inner(lambda x: x[0])
    writeable = np.zeros(3)
    compiled(writeable)
    compiled(jit.readonly(writeable))
    assert len(compiled.signatures) == 2
