"""``python -m fastml pack``: compile every kernel for a kind of CPU, into one file that lies beside the package."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from . import cross


def main(*, target: str, output: str, only: str | None = None, jobs: int | None = None) -> int:
    """Compile the catalogue for a target, write the pack and its index, and return the exit code."""
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"no folder for packs: {folder}: {error.strerror}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as cache:
        os.environ |= {"FASTML_PACK": "0", "NUMBA_CACHE_DIR": cache}
        code = cross.main(target=target, only=only, jobs=jobs)
        if code == 0:
            _write(target, Path(cache), folder)
    return code


def _write(target: str, cache: Path, folder: Path) -> None:
    from fastml.kernels.runtime import jit, packs

    records = {path.name: path.read_bytes()[32:] for path in cache.rglob("*.bin")}
    path = folder / f"{target}.pack"
    digest = packs.write(path, target, records | {jit.PROBE: jit.probe_record()}, jit.switches())
    packs.write_index(folder, {target: digest})
    print(f"{path}: {len(records)} kernels, {path.stat().st_size / 1e6:.2f} MB")
