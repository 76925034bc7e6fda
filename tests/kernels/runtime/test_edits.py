"""What a developer pays for an edit: the kernels that stand on it are compiled again, and no others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cache_probe import package_copy, run_code

pytestmark = pytest.mark.needs_jit

#: Small kernels of three families; how often each was found, and how often not.
CALLS = """
import json
import numpy as np
from fastml import kernels
from fastml.kernels.neighbors._heaps import sort_rows
from fastml.kernels.runtime import jit
import fastml.kernels.catalogue, fastml.kernels.reference.loops
kernels.exp([0.5])
kernels.hinge([0.5], [1])
sort_rows(np.ones((1, 2), "f4"), np.zeros((1, 2), "i8"))
counts = {name.rpartition(".")[2]: (c["hits"], c["misses"]) for name, c in jit.stats().items() if c["signatures"]}
print(json.dumps(counts))
"""

#: One file of each kind that no machine code is made from, or not from the part that changes: a text, and what follows.
NOT_COMPILED = {
    "reference/loops/elementwise.py": ("from __future__", "# A comment.\nfrom __future__"),
    "reference/vectorized/losses.py": ("from __future__", "# A comment.\nfrom __future__"),
    "catalogue/losses.py": ("from __future__ import annotations\n", "from __future__ import annotations\n\nNEW = 1\n"),
    "arguments/arrays.py": ("it must be a NumPy array", "it must be an array of NumPy"),
    "losses/arguments.py": ("from __future__ import annotations\n", "from __future__ import annotations\n\nNEW = 1\n"),
    "losses/means.py": ("from __future__", "# A comment in a compiled file.\nfrom __future__"),
    "neighbors/_heaps.py": ("from __future__", "# A comment in a compiled file.\nfrom __future__"),
    "runtime/parallel.py": ("from __future__ import annotations\n", "from __future__ import annotations\n\nNEW = 1\n"),
}


def edit(package: Path, file: str, old: str, new: str) -> None:
    path = package / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, file
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.slow
def test_an_edit_costs_the_kernels_that_stand_on_it(tmp_path):
    package = package_copy(tmp_path / "site")

    def found_and_compiled() -> dict[str, list[int]]:
        return json.loads(run_code(CALLS, tmp_path / "cache", PYTHONPATH=str(tmp_path / "site")).stdout)

    found, compiled = [1, 0], [0, 1]
    assert found_and_compiled() == {"exp_entries": compiled, "hinge_sums": compiled, "sort_rows": compiled}
    for file, change in NOT_COMPILED.items():
        edit(package, file, *change)
    assert found_and_compiled() == {"exp_entries": found, "hinge_sums": found, "sort_rows": found}
    edit(package, "losses/means.py", "total += weight[i] *", "total += 1 * weight[i] *")
    assert found_and_compiled() == {"exp_entries": found, "hinge_sums": compiled, "sort_rows": found}
    edit(package, "simd/functions.py", "(89.0, 710.0)", "(88.0, 710.0)")
    assert found_and_compiled() == {"exp_entries": compiled, "hinge_sums": found, "sort_rows": found}
