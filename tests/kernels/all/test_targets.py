"""The compiled tier agrees with the reference also as other CPUs get it: other tiles, other instructions.

Each run is a process of its own, because Numba's target is fixed when it is imported, with an empty cache.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from checkout import python_path
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

#: Bytes of vectors -> the dtype of the heavy families there.
DTYPE = {16: "float64", 32: "float32", 64: "float32"}

AGREE = """
import json, sys
from fastml.cli import warmup
from fastml.kernels import catalogue
from fastml.kernels.runtime import jit, target
SPOIL = lambda result: result
BLOCKS = {"distances.panels._write_norms"} if any(case == "pairwise_l2 uint8" for case in sys.argv) else set()

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
called = {name for name, counts in jit.stats().items() if counts["signatures"]}
others = warmup.kernels_of_other_targets()
print(json.dumps({"target": target.target()[:2], "calls": calls, "failed": failed,
                  "idle": sorted(BLOCKS - called - others), "others": sorted(others & called)}))
"""


def has(features: set[str]) -> bool:
    """Whether this CPU has the features, by LLVM's names."""
    from llvmlite import binding

    return all(binding.get_host_cpu_features().get(feature, False) for feature in features)


def cases(vector_bytes: int, own: int) -> dict[str, list[str]]:
    """Entries and dtypes of each process for a target with such vectors, where the CPU's own code has vectors of `own`.

    Entries of heavy families take turns: each runs as one target with narrower vectors than the CPU's own code has,
    which all other tests run, and each family as all of these.
    """
    found: dict[str, list[str]] = {}
    narrower = [width for width in DTYPE if width < own]
    turns = {family: itertools.cycle(narrower or [None]) for family in HEAVY}
    for key, entry in catalogue.ENTRIES.items():
        dtypes = list(entry.dtypes)
        if entry.family in HEAVY:
            dtypes = [DTYPE[vector_bytes]] if next(turns[entry.family]) == vector_bytes else []
        group = entry.family if entry.family in HEAVY[:3] else "others"
        found.setdefault(group, []).extend(f"{key} {dtype}" for dtype in dtypes)
    return {group: listed for group, listed in found.items() if listed}


def begin(target: str, cache: Path, keys: list[str], code: str = AGREE) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    clean["PYTHONPATH"] = python_path()
    clean |= {"NUMBA_CPU_NAME": target, "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(cache)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *keys], env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def outcome(process: subprocess.Popen[str]) -> dict:
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="names of x86 CPUs")
@pytest.mark.parametrize(("target", "vector_bytes"), [("generic", 16), ("x86-64-v3", 32), ("x86-64-v4", 64)])
def test_agreement_as_another_target(target, vector_bytes, tmp_path):
    if not has(NEEDED[target]):
        pytest.skip(f"this CPU cannot run code for {target}")
    groups = cases(vector_bytes, the_target().vector_bytes)
    results = [outcome(process) for process in [begin(target, tmp_path, listed) for listed in groups.values()]]
    for result in results:
        assert result["target"] == [target, vector_bytes]
        assert result["failed"] == []
        assert result["idle"] == result["others"] == []
    assert sum(result["calls"] for result in results) > 20 * sum(map(len, groups.values()))


PEAKS = """
import json
from benches.report import tiles
print(json.dumps([list(vars(tiles.peak_of(dtype)).values()) for dtype in ("float32", "float64")]))
"""


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="names of x86 CPUs")
@pytest.mark.parametrize("target", NEEDED)
def test_peaks_as_another_target(target, tmp_path):
    """A difference and its square take two operations, or three; sums that did not fit the registers took many more."""
    if not has(NEEDED[target]):
        pytest.skip(f"this CPU cannot run code for {target}")
    for _ in range(5):  # another process may take the core for one of the loops
        peaks = outcome(begin(target, tmp_path, [], PEAKS))
        shares = [differences / min(adds, fused) for adds, fused, differences in peaks]
        if 0.4 < min(shares) and max(shares) < 1.2:
            break
    assert 0.4 < min(shares)
    assert max(shares) < 1.2


@pytest.mark.parametrize("own", [16, 32, 64])
def test_every_entry_runs(own):
    """Light ones in every dtype as every target, heavy ones as one with narrower vectors, their families as all."""
    every = {f"{key} {dtype}" for key, entry in catalogue.ENTRIES.items() for dtype in entry.dtypes}
    light = {case for case in every if catalogue.ENTRIES[case.split()[0]].family not in HEAVY}
    runs = {width: set().union(*cases(width, own).values()) for width in (16, 32, 64)}
    narrower = [run for width, run in runs.items() if width < own]
    for width, run in runs.items():
        assert light <= run <= every
        assert run == light or width < own
    if narrower:
        assert {case.split()[0] for run in narrower for case in run} == catalogue.ENTRIES.keys()
    for run in narrower:
        assert {catalogue.ENTRIES[case.split()[0]].family for case in run} > set(HEAVY)
    assert {entry.family for entry in catalogue.ENTRIES.values()} > set(HEAVY)


def test_a_wrong_result_would_be_seen(tmp_path):
    spoiled = AGREE.replace("SPOIL = lambda result: result", "SPOIL = lambda result: result * 1.001")
    assert spoiled != AGREE
    result = outcome(begin("generic", tmp_path, ["sigmoid float32"], spoiled))
    assert result["failed"]
