"""Names of a package, and modules, that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["imported", "lazy_module", "lazy_names"]

# Threads that import different modules at the same time can wait for one another in a circle, which
# Python resolves by handing out half-made modules. So all packages share one lock.
_importing = threading.RLock()


def imported(module: str) -> Any:
    """Import a module, one thread at a time."""
    with _importing:
        return importlib.import_module(module)


class _LazyModule:
    """Stands for a module until something of it is used."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, name: str) -> Any:
        return getattr(imported(self.__name__), name)


def lazy_module(name: str) -> Any:
    """Return what has the attributes of a module, and imports it for the first of them.

    So a model is imported without Numba, which is what `fastml.kernels` take longest to import; they are with its fit.
    """
    return _LazyModule(name)


def lazy_names(package: str, home: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package; `home` has the module in it of each name."""

    def find(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(imported(f"{package}.{home[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home})

    return find, names
