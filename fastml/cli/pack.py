"""``python -m fastml pack``: compile every kernel for a kind of CPU, into one file that lies beside the package."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main(*, target: str, output: str, only: str | None = None, jobs: int | None = None) -> int:
    """Compile the catalogue for a target, write the pack and its index, and return the exit code."""
    from fastml.kernels.runtime import jit, packs

    if not jit.jit_enabled():
        print("nothing to compile: Numba's JIT is switched off (NUMBA_DISABLE_JIT)", file=sys.stderr)
        return 1
    kind = packs.TARGETS.get(target)
    if kind is None:
        print(f"--target {target!r} is not one of: {', '.join(packs.TARGETS)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "FASTML_PACK": "0",
            "NUMBA_CACHE_DIR": cache,
            "NUMBA_CPU_NAME": kind.cpu,
            "NUMBA_CPU_FEATURES": kind.features,
        }
        options = {"--only": only, "--jobs": jobs}
        chosen = [part for name, value in options.items() if value for part in (name, str(value))]
        warmup = ["-m", "fastml", "warmup", *chosen]
        call = f"from fastml.cli.pack import write; write({target!r}, {cache!r}, {output!r})"
        for arguments in (warmup, ["-c", call]):
            done = subprocess.run([sys.executable, *arguments], env=environment, check=False)
            if done.returncode != 0:
                return done.returncode
    return 0


def write(target: str, cache: str, output: str) -> None:
    """Write a pack of what is in a cache; this process compiles for the target."""
    from fastml.kernels.runtime import jit, packs

    records = {path.name: path.read_bytes()[32:] for path in Path(cache).rglob("*.bin")}
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{target}.pack"
    digest = packs.write(path, target, records | {jit.PROBE: jit.probe_record()}, jit.switches())
    packs.write_index(folder, {target: digest})
    print(f"{path}: {len(records)} kernels, {path.stat().st_size / 1e6:.2f} MB")
