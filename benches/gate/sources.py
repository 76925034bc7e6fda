"""Which sources a benchmark stands on, and a digest of them.

Imports are read, not run, so that the sources of any revision can be looked at. A module counts with everything that it
imports inside the package, directly or by way of others. Where that cannot be told, such as for ``getattr(kernels,
name)``, it counts as standing on all kernels: a benchmark too many costs seconds, one too few hides a slowdown.

An ``__init__.py`` is a table of names, imported by all that lies below it and changed by every new name. A name is
followed through it to the module that defines it; of the file itself counts what is neither a table nor an import of
ours.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

__all__ = ["Sources"]


class Sources:
    """The modules of one revision, in a folder that holds the package ``fastml`` as it is installed."""

    def __init__(self, site: Path) -> None:
        self.site = site
        # Files are read once in the life of this.
        self._tree = cache(lambda name: ast.parse(self.modules[name].read_bytes()))
        self._imports = cache(self._read)

    @cached_property
    def modules(self) -> dict[str, Path]:
        """Name of every module, packages too -> its file."""
        found = {}
        for file in sorted((self.site / "fastml").rglob("*.py")):
            parts = file.relative_to(self.site).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
        return found

    @cached_property
    def packages(self) -> frozenset[str]:
        """The modules that are packages."""
        return frozenset(name for name, file in self.modules.items() if file.name == "__init__.py")

    def closure(self, module: str, name: str = "") -> frozenset[str]:
        """Return `module` and all that it stands on; of a package, what `name` in it stands on, or all that is in it.

        Empty where there is no such module.
        """
        if module not in self.packages:
            waiting = [module]
        else:
            waiting = [*(self._home(module, name) if name else self._all(module))]
        seen: set[str] = set()
        while waiting:
            one = waiting.pop()
            if one not in seen and one in self.modules:
                seen.add(one)
                waiting += self._imports(one)
        return frozenset(seen)

    def digest(self, module: str, name: str = "") -> str | None:
        """Return a digest of what `name`, found in `module`, stands on; None where there is no such module."""
        found = sorted(self.closure(module, name))
        if not found:
            return None
        digest = hashlib.sha256()
        for one in found:
            digest.update(f"{one}\0".encode())
            digest.update(hashlib.sha256(self.modules[one].read_bytes()).digest())
        for package in sorted(self.packages & {package for one in found for package in _above(one)}):
            digest.update(f"{package}\0{self._code(package)}".encode())
        return digest.hexdigest()[:16]

    def _code(self, package: str) -> str:
        """Return what a package does when it is imported, beside the names that it has."""
        return "".join(
            ast.dump(node)
            for node in self._tree(package).body
            if not _is_literal(node) and not (isinstance(node, ast.ImportFrom) and self._origin(node, package))
        )

    def _read(self, name: str) -> frozenset[str]:
        """Return the modules that one module names in its imports, wherever they stand in it."""
        package = name if name in self.packages else name.rpartition(".")[0]
        found: set[str] = set()
        aliases: dict[str, str] = {}  # what is imported as a package of ours, so that its attributes must be looked at
        for node in ast.walk(self._tree(name)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == "fastml":
                        found |= {alias.name} - self.packages
                        aliases[alias.asname or "fastml"] = alias.name if alias.asname else "fastml"
            elif isinstance(node, ast.ImportFrom) and (origin := self._origin(node, package)):
                for alias in node.names:
                    if f"{origin}.{alias.name}" in self.packages:
                        aliases[alias.asname or alias.name] = f"{origin}.{alias.name}"
                    else:
                        found |= self._home(origin, alias.name)
        return frozenset(found | self._attributes(self._tree(name), aliases))

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
        for node in ast.walk(tree):  # from outside to inside: the longest chain of attributes comes first
            root, attributes = _chain(node)
            if root is None or root.id not in aliases or root in followed:
                continue
            followed.add(root)
            origin = aliases[root.id]
            while attributes and f"{origin}.{attributes[0]}" in self.packages:
                origin = f"{origin}.{attributes.pop(0)}"
            found |= self._home(origin, attributes[0]) if attributes else self._all(origin)
        return found

    def _home(self, origin: str, name: str) -> frozenset[str]:
        """Return the modules to look at for `name` of `origin`, a module or a package."""
        if origin not in self.packages:
            return frozenset({origin})
        inner = f"{origin}.{name}"
        if inner in self.packages or name == "*":
            return self._all(origin if name == "*" else inner)
        if inner in self.modules:
            return frozenset({inner})
        if name.startswith("__"):
            return frozenset()
        if name in self._defined(origin):
            return frozenset({origin})
        return self._passed_on(origin, name) or self._search(origin, name) or self._all(origin)

    def _passed_on(self, package: str, name: str) -> frozenset[str]:
        """Return where a package's tables and imports send `name`."""
        for node in self._tree(package).body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Dict):
                for home in _rows(node.value, name):
                    for origin in (f"{package}.{home.lstrip('.')}", home):
                        if origin in self.modules:
                            return self._home(origin, name)
        for node in ast.walk(self._tree(package)):
            if isinstance(node, ast.ImportFrom) and (origin := self._origin(node, package)) not in (None, package):
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        return self._home(str(origin), alias.name)
                    if alias.name == "*" and str(origin) in self.modules and name in self._defined(str(origin)):
                        return frozenset({str(origin)})
        return frozenset()

    def _search(self, package: str, name: str) -> frozenset[str]:
        """Return the modules directly in a package that define `name`, or else those anywhere in it."""
        homes = frozenset(one for one in self._all(package) if name in self._defined(one))
        return frozenset(one for one in homes if one.rpartition(".")[0] == package) or homes

    def _all(self, package: str) -> frozenset[str]:
        return frozenset(name for name in self.modules.keys() - self.packages if name.startswith(f"{package}."))

    def _defined(self, name: str) -> frozenset[str]:
        """Return what a module defines at its top level."""
        found: set[str] = set()
        for node in self._tree(name).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
        return frozenset(found)


def _above(module: str) -> list[str]:
    """Return the names of the packages that a module lies in."""
    parts = module.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def _chain(node: ast.AST) -> tuple[ast.Name | None, list[str]]:
    """Take ``a.b.c`` apart: the name and its attributes; no name for anything else."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.insert(0, node.attr)
        node = node.value
    return (node if isinstance(node, ast.Name) else None), attributes


def _rows(table: ast.Dict, name: str) -> Sequence[str]:
    """Return where a table sends `name`: it has ``name: module``, or ``module: (name, …)``; other rows are skipped."""
    homes: list[object] = []
    for row in zip(table.keys, table.values, strict=True):
        try:
            key, value = (ast.literal_eval(part) for part in row if part is not None)
        except ValueError:
            continue
        if isinstance(value, (tuple, list)) and name in value:
            homes.append(key)
        elif key == name:
            homes.append(value)
    return [home for home in homes if isinstance(home, str)]


def _is_literal(node: ast.stmt) -> bool:
    """Say whether a statement does nothing: a docstring, a table, imports for type checkers."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    if isinstance(node, (ast.Assign, ast.AnnAssign, ast.Expr)) and node.value is not None:
        try:
            ast.literal_eval(node.value)
        except ValueError:
            return False
        return True
    return False
