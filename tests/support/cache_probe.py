"""A process of its own that calls one small kernel, and says what it found in the cache."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from checkout import ROOT, python_path
from fastml import kernels

SIGMOID = 1 / (1 + math.exp(-0.5))

# One small kernel: its result, its counts, and what the cache says of itself.
PROBE = """
import json, sys
import numpy as np
from fastml.kernels import sigmoid
from fastml.kernels.runtime import jit
{before}
value = float(sigmoid(np.array([0.5]))[0])
counts = jit.stats()["losses.elementwise.sigmoid_entries"]
{after}
print(json.dumps({{"value": value, **counts, **jit.cache_info()._asdict()}}))
"""


#: Changes `sigmoid` from a file that it does not stand in.
NEW_HELPER = """

@scalar
def sigmoids(z):
    return like(z, 7), like(z, 7)
"""


def package_copy(folder: Path) -> Path:
    """Lay fastml and fastml.kernels into `folder`, as an installer does."""
    ignored = shutil.ignore_patterns("__pycache__", "kernels")
    shutil.copytree(ROOT / "fastml", folder / "fastml", ignore=ignored)
    shutil.copytree(
        Path(kernels.__file__).parent, folder / "fastml" / "kernels", ignore=shutil.ignore_patterns("__pycache__")
    )
    return folder / "fastml" / "kernels"


def environment(cache: Path | None, **changes: str | None) -> dict[str, str]:
    """What a probe sees: nothing of the caller's settings of Numba, and a cache folder of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "XDG_"))}
    # An installed package is found anyway; the first entry is for a run from the source tree.
    changes.setdefault("PYTHONPATH", python_path())
    # Bytecode of a source that is edited within a second, to the same size, would be taken for the new one's.
    changes.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    changes["NUMBA_CACHE_DIR"] = None if cache is None else str(cache)
    for name, value in changes.items():
        clean.pop(name, None)
        if value is not None:
            clean[name] = value
    return clean


def run_code(code: str, cache: Path | None, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh process, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(cache, **changes),
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done


def probe(cache: Path | None, *, before: str = "", after: str = "", warning: str = "", **changes: str | None) -> dict:
    """Run PROBE in a fresh process and return what it found; it may say `warning` and nothing else."""
    done = run_code(PROBE.format(before=before, after=after), cache, **changes)
    if warning:
        assert done.stderr.count("Warning") == done.stderr.count(f"RuntimeWarning: {warning}") == 1
    else:
        assert done.stderr == "", "a fault of the cache must not be seen"
    return json.loads(done.stdout)


def is_right(found: dict) -> bool:
    return found["value"] == pytest.approx(SIGMOID, rel=1e-15)


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())
