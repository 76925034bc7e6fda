"""The compiled tier agrees with the reference also as other CPUs get it: other tiles, other instructions.

Each run is a process of its own, because Numba's target is fixed when it is imported, with a cache that tests share.
What is compiled there is also read: no instruction may forget NaN.
"""

from __future__ import annotations

import itertools
import json
import platform
from typing import Any

import pytest

from checkout import run_python
from fastml.kernels import catalogue
from fastml.kernels.runtime.target import target as the_target

pytestmark = [pytest.mark.targets, pytest.mark.slow, pytest.mark.needs_jit]


#: What a CPU must have to run the code made for a target.
NEEDED = {
    "generic": set(),
    "x86-64-v3": {"avx2", "fma", "bmi2"},
    "x86-64-v4": {"avx2", "fma", "bmi2", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd"},
}

#: Where compiling takes most of the time. What of their sources depends on the target is how wide vectors are.
HEAVY = ("linear", "training", "network", "convolution")

#: Whose sources depend on instructions too, and so differ from the CPU's own code where vectors are as wide.
OF_FEATURES = ("distances", "neighbors")

#: Bytes of vectors -> the dtype of the heavy families there.
DTYPE = {16: "float64", 32: "float32", 64: "float32"}

ALLOWED_FLAGS = {"contract", "reassoc", "nsz", "arcp"}

AGREE = """
import json, re, sys
import numpy as np
from fastml.cli import warmup
from fastml.kernels import catalogue
from fastml.kernels.distances import tile_shapes
from fastml.kernels.runtime import jit, target
SPOIL = lambda result: result
by_products = "pairwise_l2 uint8" in sys.argv and tile_shapes.norm_steps(np.dtype("u1"))
BLOCKS = {"distances.panels._write_norms"} if by_products else set()

def sizes(entry):
    yield entry.sizes["tiny"], "typical"
    yield entry.sizes["tiny"], "extreme"
    yield from ((size, "tails") for size in entry.tail_sizes())
    if "m" in entry.axes:  # more columns than a chunk, more rows than a block
        yield (3, 300, 700, 4)[: len(entry.axes)], "typical"

calls, failed = 0, []
for case in sys.argv[1:]:
    key, dtype = case.split()
    entry = catalogue.ENTRIES[key]
    for size, regime in sizes(entry):
        inputs = entry.make(size, dtype, regime, seed=calls)
        result = SPOIL(entry.tier("compiled")(*inputs.args, **inputs.kwargs))
        error = catalogue.check(entry, result, entry.reference(inputs), dtype)
        calls += 1
        if not error <= 1:
            failed.append([key, dtype, size, regime, error])
flags, operation = set(), re.compile(
    r"= (?:tail )?(?:f\\w+|call|select) ((?:(?:fast|nnan|ninf|nsz|arcp|contract|afn|reassoc) )+)")
for compiled in jit.KERNELS:
    for types, overload in compiled.overloads.items():
        if hasattr(overload, "library"):  # not from the cache
            flags.update(*map(str.split, operation.findall(compiled.inspect_llvm(types))))
called = {name for name, counts in jit.stats().items() if counts["signatures"]}
others = warmup.kernels_of_other_targets()
print(json.dumps({"target": target.target()[:2], "calls": calls, "failed": failed, "flags": sorted(flags),
                  "idle": sorted(BLOCKS - called - others), "others": sorted(others & called)}))
"""


def has(features: set[str]) -> bool:
    """Whether this CPU has the features, by LLVM's names."""
    from llvmlite import binding

    return all(binding.get_host_cpu_features().get(feature, False) for feature in features)


def cases(vector_bytes: int, own: int) -> list[str]:
    """Entries and dtypes for a target with such vectors, where the CPU's own code has vectors of `own` bytes.

    Entries of heavy families take turns: each runs as one target with narrower vectors than the CPU's own code has,
    which all other tests run, and each family as all of these.
    """
    found = []
    narrower = [width for width in DTYPE if width < own]
    turns = {family: itertools.cycle(narrower or [None]) for family in HEAVY}
    for key, entry in catalogue.ENTRIES.items():
        dtypes = list(entry.dtypes)
        if entry.family in HEAVY:
            dtypes = [DTYPE[vector_bytes]] if next(turns[entry.family]) == vector_bytes else []
        elif vector_bytes == own and entry.family not in OF_FEATURES:
            dtypes = []
        found += [f"{key} {dtype}" for dtype in dtypes]
    return found


def run_as(variables: dict[str, str], keys: list[str], code: str = AGREE) -> Any:
    return json.loads(run_python(code, *keys, timeout=600, **variables).splitlines()[-1])


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="names of x86 CPUs")
@pytest.mark.parametrize(("target", "vector_bytes"), [("generic", 16), ("x86-64-v3", 32), ("x86-64-v4", 64)])
def test_agreement_as_another_target(target, vector_bytes, cache_for):
    if not has(NEEDED[target]):
        pytest.skip(f"this CPU cannot run code for {target}")
    listed = cases(vector_bytes, the_target().vector_bytes)
    result = run_as(cache_for(target), listed)
    assert result["target"] == [target, vector_bytes]
    assert result["failed"] == []
    assert result["idle"] == result["others"] == []
    assert result["calls"] > 20 * len(listed)
    assert {"contract"} <= set(result["flags"]) <= ALLOWED_FLAGS


PEAKS = """
import json
from benches.report import tiles
print(json.dumps([list(vars(tiles.peak_of(dtype)).values()) for dtype in ("float32", "float64")]))
"""


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="names of x86 CPUs")
@pytest.mark.parametrize("target", NEEDED)
def test_peaks_as_another_target(target, cache_for):
    """A difference and its square take two operations, or three; sums that did not fit the registers took many more."""
    if not has(NEEDED[target]):
        pytest.skip(f"this CPU cannot run code for {target}")
    for _ in range(5):  # another process may take the core for one of the loops
        peaks = run_as(cache_for(target), [], PEAKS)
        shares = [differences / min(adds, fused) for adds, fused, differences in peaks]
        if 0.4 < min(shares) and max(shares) < 1.2:
            break
    assert 0.4 < min(shares)
    assert max(shares) < 1.2


@pytest.mark.parametrize("own", [16, 32, 64])
def test_every_entry_runs(own):
    """Light ones in every dtype as every target, heavy ones as one with narrower vectors, their families as all.

    Where vectors are as wide as in the CPU's own code, only what depends on more than that.
    """
    every = {f"{key} {dtype}" for key, entry in catalogue.ENTRIES.items() for dtype in entry.dtypes}
    family = {case: catalogue.ENTRIES[case.split()[0]].family for case in every}
    light = {case for case in every if family[case] not in HEAVY}
    runs = {width: set(cases(width, own)) for width in (16, 32, 64)}
    narrower = [run for width, run in runs.items() if width < own]
    assert runs[own] == {case for case in every if family[case] in OF_FEATURES}
    for width, run in runs.items():
        if width != own:
            assert light <= run <= every
        assert width < own or run <= light
    if narrower:
        assert {case.split()[0] for run in narrower for case in run} == catalogue.ENTRIES.keys()
    for run in narrower:
        assert {family[case] for case in run} > set(HEAVY)
    assert set(family.values()) > {*HEAVY, *OF_FEATURES}


def test_a_wrong_result_would_be_seen(cache_for):
    spoiled = AGREE.replace("SPOIL = lambda result: result", "SPOIL = lambda result: result * 1.001")
    assert spoiled != AGREE
    assert run_as(cache_for("generic"), ["sigmoid float32"], spoiled)["failed"]
