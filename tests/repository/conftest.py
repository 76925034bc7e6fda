"""What all kernels load."""

from __future__ import annotations

import json

import pytest

from checkout import run_python

# Runs each entry in every dtype and layout with all kernels unloaded before, and counts what it loads.
COUNT_SIGNATURES = """
import json
import numpy as np
from fastml.cli import warmup
from fastml.kernels import catalogue
from fastml.kernels.runtime import jit

def strided(a):
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]

def read_only(a):
    a = a.copy()
    a.setflags(write=False)
    return a

layouts = {"C": np.ascontiguousarray, "F": np.asfortranarray, "read-only": read_only, "strided": strided,
           "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">"))}

def calls(entry, dtype):
    for regime in entry.regimes:
        yield entry.make(entry.sizes["tiny"], dtype, regime)
    if dtype == "uint8":  # so many columns that int32 cannot hold the sum of squares
        yield entry.make((2, 3, 33_100, 1)[: len(entry.axes)], dtype)
    yield from entry.warm_inputs(dtype)

def variants(entry, inputs):
    for layout in layouts.values():
        args = [layout(a) if isinstance(a, np.ndarray) and a.ndim else a for a in inputs.args]
        kwargs = {name: layout(a) if isinstance(a, np.ndarray) else a for name, a in inputs.kwargs.items()}
        yield args, kwargs
    X, *rest = args
    if entry.function == "k_nearest":
        yield [X, X, 1], {**kwargs, "exclude_self": True}
    if entry.family == "distances":
        yield [X], kwargs
        yield args, {**kwargs, "out": entry.tier("compiled")(*args, **kwargs)}

found, single = {}, set()
for key, entry in catalogue.ENTRIES.items():
    for compiled in jit.KERNELS:
        compiled._reset_overloads()
    for dtype in sorted(entry.dtypes, key=lambda dtype: dtype != "float32"):
        for inputs in calls(entry, dtype):
            for args, kwargs in variants(entry, inputs):
                for n_threads in (None, 2):
                    entry.tier("compiled")(*args, n_threads=n_threads, **kwargs)
        found[key] = {name: counts["signatures"] for name, counts in jit.stats().items() if counts["signatures"]}
        if dtype == "float32":
            single.update(found[key])
for name, fit in warmup.MODELS.items():
    for compiled in jit.KERNELS:
        compiled._reset_overloads()
    for dtype in ("float32", "float64"):
        fit(dtype)
        found[name] = {name: counts["signatures"] for name, counts in jit.stats().items() if counts["signatures"]}
        if dtype == "float32":
            single.update(found[name])
print(json.dumps([found, sorted(single)]))
"""


@pytest.fixture(scope="session")
def loaded() -> tuple[dict[str, dict[str, int]], list[str]]:
    """What entries load in all dtypes and layouts, and models in both; and which kernels are loaded for float32."""
    forms, single = json.loads(run_python(COUNT_SIGNATURES).splitlines()[-1])
    return forms, single


@pytest.fixture(scope="session")
def signatures(loaded) -> dict[str, dict[str, int]]:
    """Entry or model -> kernel -> number of its compiled forms after all dtypes and layouts."""
    return loaded[0]
