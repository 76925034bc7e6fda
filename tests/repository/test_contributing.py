"""The checklist "How to add a kernel" of CONTRIBUTING.md, enforced: every line holds for every public kernel."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from checkout import ROOT
from fastml import kernels
from fastml.kernels import catalogue
from fastml.kernels.reference import loops, vectorized

KERNELS = sorted(name for names in kernels._FUNCTIONS.values() for name in names)


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def checklist() -> list[str]:
    """Return the bold word that each line of the checklist starts with."""
    section = read("CONTRIBUTING.md").partition("## How to add a kernel")[2].partition("\n## ")[0]
    return re.findall(r"^- \[ \] \*\*(.+?)\.\*\*", section, flags=re.MULTILINE)


def parameters(function: Callable) -> list[tuple[str, object, object]]:
    """Return name, kind and default of each parameter; types differ between tiers and may."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def has_loops(name: str) -> bool:
    return callable(getattr(loops, name, None))


def has_vectorized(name: str) -> bool:
    return callable(getattr(vectorized, name, None))


def has_compiled(name: str) -> bool:
    function = getattr(kernels, name, None)
    is_public = re.fullmatch(r"fastml\.kernels(\.[a-z]\w*)+", getattr(function, "__module__", ""))
    # Only what n_threads is for: a function of the reference tiers has none.
    return is_public is not None and parameters(function)[-1][0] == "n_threads"


def has_signature(name: str) -> bool:
    compiled, *references = (getattr(tier, name, None) for tier in (kernels, loops, vectorized))
    if compiled is None or None in references:
        return False
    return all(parameters(compiled)[:-1] == parameters(reference) for reference in references)


def has_docstring(name: str) -> bool:
    text = inspect.getdoc(getattr(kernels, name, None)) or ""
    return all(part in text for part in ("Parameters\n----------", "Returns\n-------", ">>> "))


def has_export(name: str) -> bool:
    return name in kernels.__all__ and name in dir(kernels)


def has_entry(name: str) -> bool:
    return any(entry.function == name for entry in catalogue.ENTRIES.values())


def has_test(name: str) -> bool:
    # This file and its planted cases do not count.
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    return any(re.search(rf"\b{name}\b", path.read_text(encoding="utf-8")) for path in files)


def has_docs(name: str) -> bool:
    return re.search(rf"^\| `{name}\(", read("docs/kernels.md"), flags=re.MULTILINE) is not None


def has_changelog(name: str) -> bool:
    return f"`{name}`" in read("CHANGELOG.md")


CHECKS: dict[str, Callable[[str], bool]] = {
    "Loops": has_loops,
    "Vectorized": has_vectorized,
    "Compiled": has_compiled,
    "Signature": has_signature,
    "Docstring": has_docstring,
    "Export": has_export,
    "Catalogue": has_entry,
    "Test": has_test,
    "Docs": has_docs,
    "Changelog": has_changelog,
}


def test_every_line_of_the_checklist_is_checked():
    assert checklist() == list(CHECKS)


@pytest.mark.parametrize("line", CHECKS)
@pytest.mark.parametrize("name", KERNELS)
def test_checklist(name, line):
    assert CHECKS[line](name), f"{name}: see {line!r} in CONTRIBUTING.md"


@pytest.mark.parametrize("line", CHECKS)
def test_a_kernel_that_is_not_there_fails_every_line(line):
    assert not CHECKS[line]("pair" + "wise_l7")


@pytest.mark.parametrize(
    ("line", "plant"),
    [
        ("Signature", lambda X, Y, *, n_threads=None: None),  # Y lost its default
        ("Compiled", lambda X, Y=None: None),  # not in a module of kernels
        ("Docstring", lambda X, Y=None: None),  # no docstring
    ],
)
def test_a_flawed_kernel_is_found(line, plant, monkeypatch):
    monkeypatch.setattr(kernels, "pairwise_l1", plant)
    assert not CHECKS[line]("pairwise_l1")


def test_no_public_function_is_left_out():
    modules = {getattr(kernels, name).__module__ for name in KERNELS}
    assert {name for module in modules for name in importlib.import_module(module).__all__} == set(KERNELS)
