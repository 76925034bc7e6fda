"""What the lazy namespace of `fastml.kernels` gives.

What may be imported from outside, and what an import costs, is tested in test_package.py; how rooms stand on each
other in test_rooms.py.
"""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from checkout import python_path
from fastml import kernels

MODULES = sorted(module.name for module in pkgutil.walk_packages(kernels.__path__, "fastml.kernels."))


def run(code: str, *arguments: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


IMPORT_EACH_FIRST = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [module for module in sys.modules if module.partition(".")[0] == "fastml"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except ImportError as error:
        sys.exit(f"{name}: {error}")
"""


@pytest.mark.needs_jit  # imports are the same
def test_any_module_can_be_the_first_to_be_imported():
    """A circle may go unnoticed as long as imports happen in the usual order."""
    done = run(IMPORT_EACH_FIRST, *MODULES)
    assert done.returncode == 0, done.stderr


def test_a_circle_of_imports_is_found(tmp_path, monkeypatch):
    """It breaks where one of its modules is the first, and not where the other is."""
    (tmp_path / "first.py").write_text("import second\nhere = 1\n")
    (tmp_path / "second.py").write_text("from first import here\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert run(IMPORT_EACH_FIRST, "second").returncode == 0
    done = run(IMPORT_EACH_FIRST, "first")
    assert done.returncode == 1
    assert "first: cannot import name 'here'" in done.stderr


def test_every_public_name_is_the_function_of_its_family():
    for home, names in (kernels._FUNCTIONS | kernels._OTHERS).items():
        module = importlib.import_module(f"fastml.kernels.{home}")
        assert sorted(module.__all__) == sorted(names)
        for name in names:
            function = getattr(kernels, name)
            assert function is getattr(module, name)
            assert function.__module__ == module.__name__
            assert function.__doc__


def test_no_room_has_the_name_of_a_function():
    """Importing ``fastml.kernels.softmax`` would replace the function ``kernels.softmax`` by the module."""
    assert not {module.split(".")[2] for module in MODULES} & set(kernels._HOME)
    listed = [*kernels._FUNCTIONS.values(), *kernels._OTHERS.values()]
    assert len(kernels._HOME) == sum(map(len, listed)), "a function in two families"


def test_names_are_listed_and_others_do_not_exist():
    assert kernels.__all__ == sorted([*kernels._HOME, "catalogue", "reference"])
    assert set(kernels.__all__) <= set(dir(kernels))
    with pytest.raises(AttributeError, match=r"module 'fastml\.kernels' has no attribute 'pairwise_l3'"):
        kernels.pairwise_l3  # noqa: B018


def test_a_star_import_brings_exactly_the_public_names():
    namespace: dict[str, object] = {}
    exec("from fastml.kernels import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(kernels.__all__)


def test_type_checkers_see_every_public_name():
    tree = ast.parse(Path(kernels.__file__).read_text(encoding="utf-8"))
    seen = {
        node.module or node.names[0].name
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    }
    assert seen == {*kernels._FUNCTIONS, *kernels._OTHERS, "catalogue", "reference"}


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
    done = run(code, timeout=120)
    assert done.returncode == 0, done.stderr
