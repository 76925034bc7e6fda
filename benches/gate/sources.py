"""Which sources a benchmark stands on, and a digest of them.

Imports are read, not run, so that the sources of any revision can be looked at. A module counts with everything that it
imports inside the package, directly or by way of others. Where that cannot be told, such as for ``getattr(kernels,
name)``, it counts as standing on all kernels: a benchmark too many costs seconds, one too few hides a slowdown.

The two ``__init__.py`` are tables of names, imported by all and changed by every new name. What counts of them is their
code, and where their tables send the name that is benchmarked.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cached_property
from pathlib import Path

__all__ = ["Sources"]

_KERNELS = "fastml.kernels"
_TABLES = frozenset({"fastml", _KERNELS})


class Sources:
    """The modules of one revision, in a folder that holds the package ``fastml`` as it is installed."""

    def __init__(self, site: Path) -> None:
        self.site = site
        self._direct: dict[str, frozenset[str]] = {}
        self._names: dict[str, frozenset[str]] = {}

    @cached_property
    def modules(self) -> dict[str, Path]:
        """Name of every module -> its file."""
        found = {}
        for file in sorted((self.site / "fastml").rglob("*.py")):
            parts = file.relative_to(self.site).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
        return found

    def closure(self, module: str) -> frozenset[str]:
        """Return `module` and all that it stands on; empty where there is no such module."""
        seen: set[str] = set()
        waiting = [module]
        while waiting:
            name = waiting.pop()
            if name in seen or name not in self.modules or name in _TABLES:
                continue
            seen.add(name)
            waiting += self._imports(name)
        return frozenset(seen)

    def digest(self, module: str, name: str = "") -> str | None:
        """Return a digest of what `name`, defined in `module`, stands on; None where there is no such module."""
        found = sorted(self.closure(module))
        if not found:
            return None
        digest = hashlib.sha256()
        for one in found:
            digest.update(f"{one}\0".encode())
            digest.update(hashlib.sha256(self.modules[one].read_bytes()).digest())
        for package in sorted(_TABLES & self.modules.keys()):
            digest.update(repr(self._package(package, name)).encode())
        return digest.hexdigest()[:16]

    def _package(self, package: str, name: str) -> tuple[str, list[str]]:
        """Return a package's code without docstring and tables, and the rows that its tables have for `name`."""
        code, rows = [], []
        for node in ast.parse(self.modules[package].read_bytes()).body:
            table = _literal(node)
            if table is None:
                code.append(ast.dump(node))
            elif isinstance(table, dict):
                rows += [f"{key}: {name}" for key, value in table.items() if isinstance(value, tuple) and name in value]
                rows += [f"{name}: {value}" for key, value in table.items() if key == name]
        return "".join(code), rows

    def _imports(self, name: str) -> frozenset[str]:
        if name not in self._direct:
            self._direct[name] = frozenset(self._read(name))
        return self._direct[name]

    def _read(self, name: str) -> set[str]:
        """Return the modules that one module names in its imports, wherever they stand in it."""
        tree = ast.parse(self.modules[name].read_bytes())
        package = name if self.modules[name].name == "__init__.py" else name.rpartition(".")[0]
        found: set[str] = set()
        aliases: dict[str, str] = {}  # what is imported as a package of ours, so that its attributes must be looked at
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == "fastml":
                        found.add(alias.name)
                        aliases[alias.asname or "fastml"] = alias.name if alias.asname else "fastml"
            elif isinstance(node, ast.ImportFrom):
                origin = self._origin(node, package)
                if origin is None:
                    continue
                found.add(origin)
                for alias in node.names:
                    inner = f"{origin}.{alias.name}"
                    if inner in _TABLES:
                        aliases[alias.asname or alias.name] = inner
                    elif inner in self.modules:
                        found.add(inner)
                    elif origin in _TABLES:
                        found |= self._home(origin, alias.name)
        return found | self._attributes(tree, aliases)

    def _origin(self, node: ast.ImportFrom, package: str) -> str | None:
        """Return the full name of what ``from … import`` imports from, None outside the package."""
        if node.level == 0:
            return node.module if node.module and node.module.split(".")[0] == "fastml" else None
        parts = package.split(".")
        base = ".".join(parts[: len(parts) - node.level + 1])
        return f"{base}.{node.module}" if node.module else base

    def _attributes(self, tree: ast.AST, aliases: dict[str, str]) -> set[str]:
        """Follow ``kernels.k_nearest`` to the module that has it; a package used in another way means all of it."""
        found: set[str] = set()
        followed: set[ast.Name] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
                followed.add(node.value)
                found |= self._home(aliases[node.value.id], node.attr)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in aliases and node not in followed:
                found |= self._all(aliases[node.id])
        return found

    def _home(self, package: str, attribute: str) -> set[str]:
        """Return the module of a package that defines `attribute` at its top level."""
        if f"{package}.{attribute}" in self.modules:
            inner = f"{package}.{attribute}"
            return {inner} if inner not in _TABLES else self._all(inner)
        if attribute.startswith("__"):
            return set()
        homes = {
            name for name in self.modules if name.rpartition(".")[0] == package and attribute in self._defined(name)
        }
        return homes or self._all(package)

    def _all(self, package: str) -> set[str]:
        return {name for name in self.modules if name.startswith(f"{package}.")}

    def _defined(self, name: str) -> frozenset[str]:
        """Return what a module defines at its top level."""
        if name not in self._names:
            found: set[str] = set()
            for node in ast.parse(self.modules[name].read_bytes()).body:
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    found.add(node.name)
                elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    found |= {target.id for target in targets if isinstance(target, ast.Name)}
            self._names[name] = frozenset(found)
        return self._names[name]


def _literal(node: ast.stmt) -> object:
    """Return what a statement says without doing anything: a docstring, a table, imports for type checkers; or None."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return ""
    if isinstance(node, (ast.Assign, ast.Expr)):
        try:
            return ast.literal_eval(node.value)
        except ValueError:
            return None
    return None
