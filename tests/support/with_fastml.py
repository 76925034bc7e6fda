"""A pytest plugin: scikit-learn's own tests, with fastml's classes in the place of scikit-learn's.

Only public names are swapped, where users find them. ``--with-fastml-report FILE`` gets what became of each test that
built an object of fastml's, as JSON: {id: [outcome, objects built, what went wrong]}.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastml

MODULES = ("sklearn.linear_model", "sklearn.neighbors", "sklearn.neural_network", "sklearn.svm")

#: How many objects of fastml's the test that runs has built so far.
_built = 0


def counted(cls: type) -> type:
    """Have a class count its objects; it stays the same class."""

    def __new__(cls: type, *args: Any, **kwargs: Any) -> Any:
        global _built
        _built += 1
        return object.__new__(cls)

    cls.__new__ = __new__  # type: ignore[method-assign]
    return cls


def swap() -> list[str]:
    """Put fastml's public classes in the place of scikit-learn's; return their names."""
    swapped = []
    for name in MODULES:
        module = importlib.import_module(name)
        for public in set(module.__all__) & set(fastml.__all__):
            if isinstance(getattr(fastml, public), type):
                setattr(module, public, counted(getattr(fastml, public)))
                swapped.append(public)
    return sorted(swapped)


class _Report:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: dict[str, list[Any]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        global _built
        _built = 0
        np.random.seed(0)  # noqa: NPY002 - what models without a random state draw from
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Any:
        report = yield
        test = f"{item.module.__name__}::{item.nodeid.partition('::')[2]}"
        if _built and (report.when == "call" or report.failed):
            crash = getattr(report.longrepr, "reprcrash", None)
            self._found[test] = [report.outcome, _built, crash.message[:300] if crash else ""]
        return report

    def pytest_sessionfinish(self) -> None:
        self._file.write_text(json.dumps(self._found), encoding="utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--with-fastml-report", type=Path, required=True)


def pytest_configure(config: pytest.Config) -> None:
    swap()
    config.pluginmanager.register(_Report(config.getoption("--with-fastml-report")))
