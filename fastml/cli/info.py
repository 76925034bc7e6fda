"""``python -m fastml info``: what the kernels run on, as text or as JSON."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastml

_PACKAGES = ("numpy", "numba", "llvmlite", "scipy", "scikit-learn")


def main(*, as_json: bool = False) -> int:
    """Print what `collect` finds and return the exit code."""
    found = collect()
    print(json.dumps(found, indent=2) if as_json else render(found))
    return 0


def collect() -> dict[str, Any]:
    """Gather versions, CPU, threads, BLAS and cache as plain values that JSON can hold.

    Returns
    -------
    dict
        Keys "fastml" (version), "python", "platform", "packages" (name -> version or None), "cpu"
        ("model", "target", "vector_bytes", "features", "logical"), "threads" ("count", "source"),
        "blas" (list of "library", "version", "architecture", "threads", "loaded_by"; what is not
        known is None), "jit" (bool), "pack" ("name" or None, "reason") and "cache" ("path" or None, "writable",
        "reason").
    """
    from fastml.kernels.runtime import jit, parallel
    from fastml.kernels.runtime.target import target as the_target

    target = the_target()
    threads, source = parallel.default()
    pack, reason = jit.pack_state()
    return {
        "fastml": fastml.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "cpu": {
            "model": _cpu_model(),
            "target": target.cpu,
            "vector_bytes": target.vector_bytes,
            "features": sorted(target.features),
            "logical": os.cpu_count(),
        },
        "threads": {"count": threads, "source": source},
        "blas": _blas(),
        "jit": jit.jit_enabled(),
        "pack": {"name": pack, "reason": reason},
        "cache": jit.cache_info()._asdict(),
    }


def render(found: dict[str, Any]) -> str:
    """Lay out what `collect` returns as aligned lines."""
    cpu, threads, cache = found["cpu"], found["threads"], found["cache"]
    packages = ", ".join(f"{name} {version or 'missing'}" for name, version in found["packages"].items())
    rows = [
        ("fastml", found["fastml"]),
        ("Python", f"{found['python']} on {found['platform']}"),
        ("packages", packages),
        ("CPU", f"{cpu['model']}, {cpu['logical']} logical CPUs"),
        (
            "Numba target",
            f"{cpu['target']}, vectors of {cpu['vector_bytes']} bytes ({cpu['vector_bytes'] // 4} float32)",
        ),
        ("threads", f"{threads['count']} ({threads['source']})"),
        *(("BLAS", _describe(library)) for library in found["blas"]),
        ("compilation", "on" if found["jit"] else "off (NUMBA_DISABLE_JIT)"),
        ("pack", f"{found['pack']['name'] or 'none'} ({found['pack']['reason']})"),
        ("cache", f"{cache['path'] or 'none'} ({cache['reason']})"),
    ]
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)


def _describe(library: dict[str, Any]) -> str:
    text = " ".join(part for part in (library["library"], library["version"]) if part)
    if library["architecture"]:
        text += f" for {library['architecture']}"
    if library["threads"]:
        text += f", {library['threads']} threads"
    return f"{text}, used by {library['loaded_by']}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    """Return the name on the box; the compiler's name for it is another matter."""
    with contextlib.suppress(OSError):  # no /proc, no such command
        if sys.platform == "linux":
            lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
            if names:
                return names[0]
        elif sys.platform == "darwin":
            asked = subprocess.run(
                ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
            )
            if asked.stdout.strip():
                return asked.stdout.strip()
    return platform.processor() or platform.machine() or "unknown"


def _blas() -> list[dict[str, Any]]:
    """Name the BLAS libraries that NumPy and SciPy (whose BLAS Numba calls) have loaded."""
    import numpy as np

    importlib.import_module("scipy.linalg")
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        # NumPy tells what it was built with; its annotations differ between versions.
        built: Any = np.show_config(mode="dicts")
        blas = built["Build Dependencies"]["blas"]
        return [_library(blas.get("name"), blas.get("version"), None, None, "numpy")]
    libraries = [
        _library(
            found["internal_api"],
            found["version"],
            found.get("architecture"),
            found["num_threads"],
            _user(found["filepath"]),
        )
        for found in threadpoolctl.threadpool_info()
        if found["user_api"] == "blas"
    ]
    return sorted(libraries, key=lambda library: library["loaded_by"])


def _library(
    library: str | None, version: str | None, architecture: str | None, threads: int | None, loaded_by: str
) -> dict[str, Any]:
    return {
        "library": library or "unknown",
        "version": version,
        "architecture": architecture,
        "threads": threads,
        "loaded_by": loaded_by,
    }


def _user(filepath: str) -> str:
    """Tell who brought a library: wheels keep theirs in ``numpy.libs``, ``scipy/.dylibs`` and the like."""
    folders = "/".join(Path(filepath).parts[-3:-1])
    users = [name for name in ("numpy", "scipy") if name in folders]
    return users[0] if users else "numpy and scipy"
