"""The digest of what a kernel stands on: any change is seen, and nothing else is. Hardly anything is compiled here."""

from __future__ import annotations

import functools
import importlib
import json
import math
import os
import pkgutil
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.special

from cache_probe import package_copy
from checkout import ROOT
from fastml import kernels
from fastml.kernels.runtime import _live_code, jit

pytestmark = pytest.mark.needs_jit

# A kernel that reaches everything by another way. `K` stands for the module of a package that is not versioned.
SOURCE = """
import functools, math
from typing import NamedTuple
import numpy as np
from numba.core import types
from fastml.kernels.runtime.jit import inner, intrinsic, kernel, scalar

LIMIT = 3
WEIGHTS = np.array([1.0, 2.0])
CHOICES = {"a": 1, "b": 2}
FLAGS = frozenset({"one", "two", "three"})

def plain(x, y=4, *, z=5):
    return x + y + z

@scalar
def helper(x):
    return x + 1

@inner
def loop(x):
    'It says nothing.'
    return helper(x) * 2

@functools.cache
def shape(kind):
    return len(kind) + 7

def wide():
    return wide.lanes

wide.lanes = 2

class Step(NamedTuple):
    emit: object
    lanes: int = 4

    @property
    def width(self):
        return self.lanes * 8

class Base:
    @staticmethod
    def of(x):
        return x - 1

class Derived(Base):
    @classmethod
    def two(cls):
        return cls.of(2)

def add(b, x):
    return b.add(x, x)

STEPS = {"add": Step(add), "none": Step(None)}

def twin(x):
    return x

@intrinsic(twin=twin)
def emitted(typingctx, x):
    def emit(context, b, signature, arguments):
        if Derived.two() and K.used and "one" in FLAGS:
            return STEPS["add"].emit(b, arguments[0])
        return shape("f") + STEPS["add"].width + wide()
    return x(x), emit

def factory(term, power):
    def made(x):
        def nested(v):
            return v * 11
        return term(x) ** power + nested(x)
    return made

@inner
def even(n):
    return True if n == 0 else odd(n - 1)

@inner
def odd(n):
    return False if n == 0 else even(n - 1)

@kernel
def root(x):
    total = plain(LIMIT) + loop(x) + emitted(x) + WEIGHTS[0] + CHOICES["a"] + made(x)
    return total if even(x) else -math.fabs(total)

made = inner(factory(helper, 2))
"""

#: By what changes: a part of the source, and what takes its place.
CHANGES = {
    "the kernel": ("-math.fabs(total)", "math.fabs(total)"),
    "a global of it": ("LIMIT = 3", "LIMIT = 4"),
    "the type of a global": ("LIMIT = 3", "LIMIT = 3.0"),
    "the sign of zero": ("return x + 1", "return x + 1 + LIMIT * -0.0"),
    "a scalar helper": ("return x + 1", "return x + 2"),
    "a helper's policy": ("@scalar\ndef helper", "@inner\ndef helper"),
    "an inner loop": ("helper(x) * 2", "helper(x) * 3"),
    "a default": ("y=4", "y=5"),
    "a default of a keyword": ("z=5", "z=6"),
    "an array": ("[1.0, 2.0]", "[1.0, 3.0]"),
    "the dtype of an array": ("[1.0, 2.0]", '[1.0, 2.0], "f4"'),
    "an entry of a table": ('"b": 2', '"b": 3'),
    "the order of a table": ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}'),
    "a member of a set": ('"three"', '"four"'),
    "an emitter": ("if Derived.two() and", "if not Derived.two() and"),
    "a function in a table": ("return b.add(x, x)", "return b.sub(x, x)"),
    "a field in a table": ("Step(None)", "Step(None, 8)"),
    "a field's default": ("lanes: int = 4", "lanes: int = 8"),
    "a property": ("self.lanes * 8", "self.lanes * 4"),
    "a method": ("cls.of(2)", "cls.of(3)"),
    "an inherited method": ("return x - 1", "return x - 2"),
    "a cached function": ("len(kind) + 7", "len(kind) + 8"),
    "an attribute of a function": ("wide.lanes = 2", "wide.lanes = 3"),
    "a function of a factory": ("** power + nested(x)", "** power - nested(x)"),
    "what a factory was given": ("factory(helper, 2)", "factory(helper, 3)"),
    "a nested function": ("v * 11", "v * 12"),
    "a circle of functions": ("False if n == 0", "False if n <= 0"),
    "a name": ("def plain(x", "def plain(v"),
    "an attribute of a module": ("K.used", "K.other"),
}

#: What changes nothing that is compiled.
NO_CHANGES = {
    "nothing": ("", ""),
    "lines": ("\n", "\n\n"),
    "a comment": ("LIMIT = 3", "LIMIT = 3  # three"),
    "what the kernel does not reach": ("def twin(x):\n    return x\n", "def twin(x):\n    return 2 * x\n"),
    "the order of a set": ('{"one", "two", "three"}', '{"three", "two", "one"}'),
    "a docstring": ("says nothing", "says something else"),
    "an annotation": ("def plain(x, y=4", "def plain(x: int, y: float = 4"),
}


def module_of(source: str, file: str = "first.py", **names: object) -> ModuleType:
    """Run `source` as the module ``made_up``; `K` is a module with the attributes `used` and `other`."""
    module = ModuleType("made_up")
    attributes = ModuleType("made_up_attributes")
    attributes.__dict__.update(used=lambda: 1, other=lambda: 2, unused=threading.Lock())
    module.__dict__.update(K=attributes, **names)
    exec(compile(source, file, "exec"), module.__dict__)
    while jit.KERNELS and jit.KERNELS[-1].py_func.__module__ == "made_up":
        jit.KERNELS.pop()
    return module


def digest_of(old: str = "", new: str = "", file: str = "first.py") -> str:
    assert old in SOURCE
    return _live_code.digest(module_of(SOURCE.replace(old, new), file).root)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change):
    assert digest_of(*CHANGES[change]) != digest_of()


@pytest.mark.parametrize("change", NO_CHANGES)
def test_what_is_not_compiled_is_not_seen(change):
    assert digest_of(*NO_CHANGES[change], file="second.py") == digest_of()


def test_all_changes_are_told_apart():
    assert len({digest_of(*change) for change in CHANGES.values()}) == len(CHANGES)


def test_what_a_module_has_is_seen_by_its_name():
    def with_used(function: object) -> str:
        module = module_of(SOURCE)
        module.K.used = function
        return _live_code.digest(module.root)

    def one():
        return 1

    def two():
        return 2

    assert with_used(one) == with_used(one) != with_used(two)


# ------------------------------------------------------------------- what cannot be described


class Instance:
    pass


def lazy_module() -> ModuleType:
    module = ModuleType("lazy")
    module.__getattr__ = lambda name: 1  # type: ignore[method-assign]
    return module


class Unlike(dict):
    def __missing__(self, key: object) -> int:
        return 1


INDESCRIBABLE: dict[str, tuple[str, object]] = {
    "an object": ("thing", Instance()),
    "a lock": ("thing", threading.Lock()),
    "a partial function": ("thing", functools.partial(math.pow, 2)),
    "a table that makes entries": ("thing", Unlike()),
    "an array of objects": ("thing", np.array([Instance()])),
    "functions in a set": ("thing", {lazy_module, module_of}),
    "a module that makes attributes": ("thing", lazy_module()),
    "a module that is handed on": ("len(module)", None),
    "an attribute chosen at run time": ("getattr(module, 'x')", None),
    "an attribute that is a module": ("module.inner", None),
    "a module in a table": ("thing", [ModuleType("some")]),
    "a function of NumPy's kind": ("thing", scipy.special.expit),
    "an import": ("__import__('math')", None),
    "evaluated text": ("eval('1')", None),
    "names made at run time": ("globals()['x']", None),
}


@pytest.mark.parametrize("kind", INDESCRIBABLE)
def test_what_has_no_description_is_refused(kind):
    expression, thing = INDESCRIBABLE[kind]
    some = ModuleType("some")
    some.inner = ModuleType("inner")  # type: ignore[attr-defined]
    module = module_of(f"def function():\n    return {expression}\n", thing=thing, module=some)
    with pytest.raises(_live_code.NoDescription):
        _live_code.digest(module.function)


def test_an_import_statement_is_refused():
    module = module_of("def function():\n    from math import pi\n    return pi\n")
    with pytest.raises(_live_code.NoDescription, match="function"):
        _live_code.digest(module.function)


def test_what_was_changed_after_it_was_met_is_refused_for_good():
    """Another kernel may have compiled a helper with the old value, or with the new one."""
    module = module_of(SOURCE)
    before = _live_code.digest(module.root)
    assert _live_code.digest(module.root) == before
    module.LIMIT = 4
    for value in (4, 3):
        module.LIMIT = value
        with pytest.raises(_live_code.NoDescription, match="not what it was"):
            _live_code.digest(module.root)
    assert digest_of() == before


def test_compiling_changes_no_description():
    module = module_of("from fastml.kernels.runtime.jit import kernel, scalar\n\n@scalar\ndef h(x):\n    return x + 1\n"
                      "\n"
                       "@kernel\ndef root(x):\n    return h(x)\n")  # fmt: skip
    module.root.disable_compile(False)
    before = _live_code.digest(module.root)
    module.root._cache.disable()
    assert module.root(1) == 2
    assert _live_code.digest(module.root) == before


# ------------------------------------------------------------------------- the package's kernels

ALL = """
import importlib, json, pkgutil, random, sys
from fastml import kernels
from fastml.kernels.runtime import _live_code, jit
names = sorted(module.name for module in pkgutil.walk_packages(kernels.__path__, "fastml.kernels."))
random.Random(int(sys.argv[1])).shuffle(names)
for name in names:
    importlib.import_module(name)
if sys.argv[1] == "1":
    import numpy as np
    from fastml.kernels import sigmoid
    sigmoid(np.array([0.5]))
print(json.dumps({jit._name(compiled): _live_code.digest(compiled) for compiled in jit.KERNELS}))
"""


def digests(site: Path = ROOT, order: int = 0, hash_seed: int = 0, python: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the digests of all kernels in a new process, with modules imported in some order."""
    done = subprocess.run(
        [sys.executable, *python, "-c", ALL, str(order)],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=site,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A copy of the package, and the digests of its kernels."""
    site = tmp_path_factory.mktemp("site")
    package_copy(site)
    return site, digests(site)


def test_every_kernel_has_a_digest_that_all_processes_agree_on(copied):
    """Whatever the order of sets and of imports, whether something was called before, and wherever the files are."""
    _, found = copied
    here = {}
    for module in pkgutil.walk_packages(kernels.__path__, "fastml.kernels."):
        importlib.import_module(module.name)
    for compiled in jit.KERNELS:
        here[jit._name(compiled)] = _live_code.digest(compiled)
    assert len(here) > 50
    assert len(set(here.values())) == len(here)
    assert found == here
    assert digests(copied[0], order=1, hash_seed=1) == here


def changed(copied: tuple[Path, dict[str, str]], file: str, old: str, new: str) -> tuple[set[str], set[str]]:
    """Edit a file of the copy; return the kernels with a new digest, and those with the old one."""
    site, before = copied
    path = site / "fastml" / "kernels" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    try:
        after = digests(site)
    finally:
        path.write_text(text, encoding="utf-8")
    assert after.keys() == before.keys()
    new_ones = {name for name in before if after[name] != before[name]}
    return new_ones, before.keys() - new_ones


#: A file, a part of it, what takes its place, and a kernel that stands on it and one that does not.
EDITS = {
    "a scalar helper": ("simd/functions.py", "lost = rest - (total - one)", "lost = rest + (total - one)",
                        "sigmoid_entries", "fill"),
    "a table of numbers": ("simd/functions.py", "(89.0, 710.0)", "(88.0, 710.0)", "exp_entries", "hinge_sums"),
    "an emitter": ("distances/_tile_metrics.py", "difference = b.fsub(y, x)\n    # Without",
                   "difference = b.fsub(x, y)\n    # Without",
                   "fill", "exp_entries"),
    "a table of emitters": ("distances/_tile_metrics.py", "Tile(_squared_difference, _add)",
                            "Tile(_squared_difference, _larger)",
                            "_search", "exp_entries"),
    "a number": ("simd/comparisons.py", "KEYS_AT_ONCE = 32", "KEYS_AT_ONCE = 64", "_search", "fill"),
    "a factory": ("losses/means.py", "+= weight[i] *", "+= 1 * weight[i] *", "hinge_sums", "sigmoid_entries"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_changes_the_kernels_that_stand_on_it_and_no_others(copied, edit):
    file, old, new, standing, other = EDITS[edit]
    new_ones, old_ones = changed(copied, file, old, new)
    assert standing in {name.rpartition(".")[2] for name in new_ones}
    assert other in {name.rpartition(".")[2] for name in old_ones}


@pytest.mark.slow
@pytest.mark.parametrize("file", ["arguments/arrays.py", "runtime/jit.py", "runtime/parallel.py", "catalogue/entry.py"])
def test_what_is_not_compiled_changes_no_kernel(copied, file):
    first = "from __future__ import annotations\n"
    new_ones, _ = changed(copied, file, first, f"{first}\n\ndef an_addition():\n    return 1\n\n\n")
    assert new_ones == set()
