"""How the modules of kernels/ stand on each other, and what its lazy namespace gives.

What may be imported from outside, and what an import costs, is tested in test_package.py.
"""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from fastml import kernels
from fastml.kernels import _jit

ROOT = Path(__file__).parents[1]
KERNELS = Path(_jit.__file__).parent
MODULES = sorted(path.stem for path in KERNELS.glob("*.py") if path.stem != "__init__")
FAMILIES = sorted(kernels._FAMILIES)


def siblings(source: str) -> set[str]:
    """Return the modules of the same package that a module imports (not those for type checkers only)."""
    tree = ast.parse(source)
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        for node in ast.walk(statement)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and id(node) not in skipped:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return found


def graph() -> dict[str, set[str]]:
    return {name: siblings((KERNELS / f"{name}.py").read_text(encoding="utf-8")) for name in MODULES}


def order(edges: dict[str, set[str]]) -> list[str]:
    return list(TopologicalSorter(edges).static_order())


def test_no_module_stands_on_itself():
    assert set(order(graph())) >= set(MODULES)


def test_a_circle_is_found():
    edges = graph()
    edges["_jit"] = edges["_jit"] | siblings("def late():\n    from .distances import pairwise_l1")
    with pytest.raises(CycleError):
        order(edges)


def test_private_modules_do_not_stand_on_public_ones():
    for name, needed in graph().items():
        if name.startswith("_"):
            assert all(other.startswith("_") for other in needed), (name, needed)


def test_what_all_kernels_stand_on_stands_on_nothing():
    edges = graph()
    for name in ("_cache_files", "_live_code", "_threads"):
        assert edges[name] == set(), name
    assert edges["_jit"] == {"_cache_files", "_live_code"}
    assert set(FAMILIES) <= edges.keys()


def test_imports_for_type_checkers_only_do_not_count():
    source = "if TYPE_CHECKING:\n    from .distances import *\nfrom . import _jit\nfrom ._simd import target"
    assert siblings(source) == {"_jit", "_simd"}


@pytest.mark.slow
def test_any_module_can_be_the_first_to_be_imported():
    """A circle may go unnoticed as long as imports happen in the usual order."""
    code = "import importlib, sys; [importlib.import_module('fastml.kernels.' + name) for name in sys.argv[1:]]"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    for name in MODULES:
        done = subprocess.run(
            [sys.executable, "-c", code, name],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{name}: {done.stderr}"


# -------------------------------------------------------------------------------- the namespace


def test_every_public_name_is_the_function_of_its_family():
    for family, names in kernels._FAMILIES.items():
        module = importlib.import_module(f"fastml.kernels.{family}")
        assert sorted(module.__all__) == sorted(names)
        for name in names:
            function = getattr(kernels, name)
            assert function is getattr(module, name)
            assert function.__module__ == module.__name__
            assert function.__doc__


def test_no_module_has_the_name_of_a_function():
    """Importing ``fastml.kernels.softmax`` would replace the function ``kernels.softmax`` by the module."""
    assert not set(MODULES) & set(kernels._HOME)
    assert len(kernels._HOME) == sum(map(len, kernels._FAMILIES.values())), "a function in two families"


def test_names_are_listed_and_others_do_not_exist():
    assert kernels.__all__ == sorted([*kernels._HOME, "catalogue", "reference"])
    assert set(kernels.__all__) <= set(dir(kernels))
    with pytest.raises(AttributeError, match=r"module 'fastml\.kernels' has no attribute 'pairwise_l3'"):
        kernels.pairwise_l3  # noqa: B018


def test_a_star_import_brings_exactly_the_public_names():
    namespace: dict[str, object] = {}
    exec("from fastml.kernels import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(kernels.__all__)


def test_type_checkers_see_every_family():
    tree = ast.parse((KERNELS / "__init__.py").read_text(encoding="utf-8"))
    seen = {
        node.module or node.names[0].name
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    }
    assert seen == {*FAMILIES, "catalogue", "reference"}


@pytest.mark.safety
def test_eight_threads_may_touch_the_namespace_first_together():
    code = """
import sys, threading
from fastml import kernels
names = ["pairwise_l1", "k_nearest", "exp", "softmax", "hinge", "huber", "linear_loss_gradient", "catalogue"]
together, errors = threading.Barrier(8), []
def touch(number):
    try:
        together.wait(60)
        for name in names[number:] + names[:number]:
            getattr(kernels, name)
    except BaseException as error:
        errors.append(error)
threads = [threading.Thread(target=touch, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
sys.exit(repr(errors) if errors else 0)
"""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
