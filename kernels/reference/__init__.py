"""The two readable twins of every kernel: `loops` and `vectorized`.

Both hold the names of `fastml.kernels` with the same signatures (less ``n_threads``) and
the same meaning: dtypes, errors, tie rules, subgradients. `loops` is the formula written out in
plain Python; `vectorized` is NumPy as one would write it for use. They teach, they are the
oracles of the tests, and they are the yardsticks of the report.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["loops", "vectorized"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
