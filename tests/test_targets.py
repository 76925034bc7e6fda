"""The compiled tier agrees with the reference also as other CPUs get it: other tiles, other instructions.

Each run is a process of its own, because Numba's target is fixed when it is imported, with an empty cache.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from fastml.kernels import catalogue

pytestmark = [pytest.mark.targets, pytest.mark.slow, pytest.mark.needs_jit]

ROOT = Path(__file__).parents[1]

#: What a CPU must have to run the code made for a target.
NEEDED = {
    "generic": set(),
    "x86-64-v3": {"avx2", "fma", "bmi2"},
    "x86-64-v4": {"avx2", "fma", "bmi2", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512cd"},
}

AGREE = """
import json, sys
from fastml.kernels import catalogue, _simd
SPOIL = lambda result: result

def sizes(entry):
    yield entry.sizes["tiny"], "typical"
    yield entry.sizes["tiny"], "extreme"
    yield from ((size, "tails") for size in entry.tail_sizes())
    if "m" in entry.axes:  # more columns than a chunk, more rows than a block
        yield (3, 300, 700, 4)[: len(entry.axes)], "typical"

worst, calls, failed = {}, 0, []
for key in sys.argv[1:]:
    entry = catalogue.ENTRIES[key]
    for dtype in entry.dtypes:
        for size, regime in sizes(entry):
            inputs = entry.make(size, dtype, regime, seed=calls)
            result = SPOIL(entry.tier("compiled")(*inputs.args, **inputs.kwargs))
            error = catalogue.check(entry, result, entry.reference(inputs), dtype)
            calls += 1
            if not error <= 1:
                failed.append([key, dtype, size, regime, error])
print(json.dumps({"target": _simd.target()[:2], "calls": calls, "failed": failed}))
"""


def has(features: set[str]) -> bool:
    """Whether this CPU has the features, by LLVM's names."""
    from llvmlite import binding

    return all(binding.get_host_cpu_features().get(feature, False) for feature in features)


def begin(target: str, cache: Path, keys: list[str], code: str = AGREE) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    clean["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
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
    # Some processes: most of the time goes into compiling, and most of that into linear models.
    groups: dict[str, list[str]] = {"linear": [], "training": [], "network": [], "others": []}
    for key, entry in catalogue.ENTRIES.items():
        groups[entry.family if entry.family in groups else "others"].append(key)
    results = [outcome(process) for process in [begin(target, tmp_path, keys) for keys in groups.values()]]
    for result in results:
        assert result["target"] == [target, vector_bytes]
        assert result["failed"] == []
    assert sum(result["calls"] for result in results) > 20 * len(catalogue.ENTRIES)


def test_a_wrong_result_would_be_seen(tmp_path):
    spoiled = AGREE.replace("SPOIL = lambda result: result", "SPOIL = lambda result: result * 1.001")
    assert spoiled != AGREE
    result = outcome(begin("generic", tmp_path, ["sigmoid"], spoiled))
    assert result["failed"]
