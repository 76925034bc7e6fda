"""Packs of a few kernels, and processes of their own that use them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from cache_probe import run_code

#: A kind of CPU that every x86 machine of the last ten years is.
KIND = "x86-64-v3"

CALL_SIGMOID = """
from fastml.kernels import sigmoid
value = float(sigmoid(np.array([0.5]))[0])
"""

_MAKE = """
import os, pathlib, sys
import numpy as np
{call}
from fastml.kernels.runtime import jit, packs
folder, name = pathlib.Path({folder!r}), os.environ["FASTML_TARGET"]
records = {{path.name: path.read_bytes()[32:] for path in folder.rglob("*.bin")}}
digest = packs.write(folder / (name + ".pack"), name, records | {{jit.PROBE: jit.probe_record()}}, jit.switches())
packs.write_index(folder, {{name: digest}})
"""

_USE = """
import json, pathlib
from fastml.kernels.runtime import cpu_kinds, packs
packs._FOLDER = pathlib.Path({folder!r})
{before}
import numpy as np
value = None
{call}
from fastml.kernels.runtime import jit
counts = jit.stats().values()
found = {{key: sum(count[key] for count in counts) for key in ("hits", "misses")}}
name, reason = jit.pack_state()
print(json.dumps(dict(value=value, pack=name, reason=reason, compiled_for=jit.compiled_for()[1], **found)))
"""


def make_pack(folder: Path, call: str = CALL_SIGMOID, kind: str = KIND, **changes: str) -> Path:
    """Make a pack of what some code calls, in a folder that takes the place of the package's."""
    _run(_MAKE.format(call=call, folder=str(folder)), folder, FASTML_TARGET=kind, FASTML_PACK="0", **changes)
    return folder / f"{kind}.pack"


def use_pack(
    folder: Path, cache: Path, call: str = CALL_SIGMOID, *, before: str = "", warning: str | None = None, **changes: str
) -> dict[str, Any]:
    """Call kernels where the package has the packs of a folder; the process may say `warning` and nothing else."""
    done = _run(_USE.format(folder=str(folder), before=before, call=call), cache, **changes)
    if warning is not None:
        assert done.stderr.count("Warning: ") == 1, done.stderr
        assert f"RuntimeWarning: machine code that came with fastml is not used: {warning}" in done.stderr
    else:
        assert done.stderr == ""
    return json.loads(done.stdout)


def _run(code: str, cache: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    return run_code(code, cache, **{"FASTML_TARGET": None, "FASTML_PACK": None, **changes})
