"""Tiles of distances compiled for Arm: read, not run."""

from __future__ import annotations

import json

import pytest

from checkout import run_python

pytestmark = pytest.mark.needs_jit

#: Compiles a tile for Arm, which nothing here can run, and counts what its assembly has of some instructions.
ON_ARM = """
import json, re, sys
import llvmlite.binding as llvm
import numba
from fastml.kernels.runtime import cpu_kinds

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()
metric, dtype, features, *names = sys.argv[1:]
cpu_kinds.KINDS["aarch64"] = cpu_kinds.KINDS["aarch64"]._replace(features=features)
cpu_kinds.aim("aarch64")

import numpy as np
from fastml.kernels.distances import tiles
from fastml.kernels.distances.arguments import METRIC_CODES
from fastml.kernels.distances.panels import ordinary_totals
from fastml.kernels.runtime.jit import inner

code = METRIC_CODES.get(metric, 0)
run = inner(lambda X, Y, steps, totals: tiles.accumulate(code, X, 0, 1, 0, Y, 0, 1, steps, Y, totals, 0, True))
flat, rows = (numba.types.Array(numba.from_dtype(np.dtype(dtype)), ndim, "C") for ndim in (1, 2))
block = numba.types.Array(numba.from_dtype(ordinary_totals(metric, np.dtype(dtype), 784).dtype), 2, "C")
run.compile((rows, flat, numba.intp, block))
[text] = run.inspect_asm().values()
print(json.dumps([len(re.findall(rf"\\b{name}\\b", text)) for name in names]))
"""


@pytest.mark.targets
@pytest.mark.parametrize(
    ("metric", "dtype", "features", "instructions"),
    [
        ("l1", "uint8", "+neon,+dotprod", {"uabd": 16, "udot": 16, "uadalp": 0}),
        ("l2", "uint8", "+neon,+dotprod", {"uabd": 0, "udot": 16, "umull": 0}),
        ("l1", "uint8", "+neon", {"uabd": 16, "uaddlp": 16, "uadalp": 16, "udot": 0}),
        ("l2", "uint8", "+neon", {"uabd": 16, "umull": 16, "uadalp": 16}),
        ("linf", "float64", "+neon", {"fabd": 16, "fmax": 16}),
        ("inner_product", "float32", "+neon", {"fmla": 16}),
        ("hamming", "int64", "+neon", {"eor": 16, "cnt": 16}),
    ],
)
def test_arm_gets_its_own_instructions(metric, dtype, features, instructions):
    """One or two instructions for 16 bytes; without the names LLVM finds 13."""
    assert json.loads(run_python(ON_ARM, metric, dtype, features, *instructions)) == [*instructions.values()]
