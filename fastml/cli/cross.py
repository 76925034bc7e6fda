"""``python -m fastml warmup --target``: compile every kernel for a kind of CPU, which need not be this one.

Numba compiles a kernel for the types it is called with, and which these are shows in calls only. If code for the target
does not run here, kernels are called in code that does, and the forms that come up are compiled and never called.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from . import warmup
from .warmup import Forms


def main(*, target: str, only: str | None = None, jobs: int | None = None) -> int:
    """Fill the cache for the target, print the table and return the exit code; this process is for the target then."""
    import numba

    from fastml.kernels.runtime import cpu_kinds

    if not cpu_kinds.knows_numba():
        print(f"fastml does not know Numba {numba.__version__}, and can make code for this CPU only", file=sys.stderr)
        return 1
    if cpu_kinds.misfit(target) is None:
        os.environ["FASTML_TARGET"] = target
        return warmup.main(only=only, jobs=jobs)
    best = cpu_kinds.best_here()
    cpu_kinds.aim(target)

    def run(keys: list[str], jobs: int) -> list[warmup.Outcome]:
        forms = _learned(best, keys, jobs)
        return warmup.run_each(partial(_compile, forms), list(forms), jobs, first=partial(cpu_kinds.aim, target))

    return warmup.main(only=only, jobs=jobs, how=run)


def _learned(best: str | None, keys: list[str], jobs: int) -> Forms:
    """Return the forms that calls for a kind of CPU come to, or for this CPU if `best` is None."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", f"from fastml.cli import cross; cross.learn({keys!r}, {jobs}, {folder!r})"],
            env=os.environ | {"FASTML_TARGET": best or "", "NUMBA_CACHE_DIR": folder},
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(done.returncode)
        forms: Forms = {}
        for path in Path(folder).glob("*.forms"):
            for module, name, types in pickle.loads(path.read_bytes()):
                forms.setdefault(module, set()).add((name, types))
    if any(module.startswith("fastml.kernels.distances.") for module in forms):
        for module, names_and_types in warmup.of_some_kinds().items():
            forms.setdefault(module, set()).update(names_and_types)
    return forms


def learn(keys: list[str], jobs: int, folder: str) -> None:
    """Call the kernels of entries, and write into a folder which forms these have."""
    outcomes = warmup.run_each(partial(_learn, folder), keys, jobs)
    if failed := [f"{outcome.key}: {outcome.error}" for outcome in outcomes if outcome.error]:
        sys.exit("\n".join(failed))


def _learn(folder: str, key: str) -> warmup.Outcome:
    from fastml.kernels.runtime import jit

    outcome = warmup.warm(key)
    (Path(folder) / f"{key}.forms").write_bytes(pickle.dumps(list(jit.forms())))
    return outcome


def _compile(forms: Forms, module: str) -> warmup.Outcome:
    """Compile the kernels of a module, into the cache."""
    from fastml.kernels.runtime import jit
    from fastml.kernels.runtime.compile_notice import silent

    start = time.perf_counter()
    error = None
    try:
        importlib.import_module(module)
        with silent():
            for name, types in forms[module]:
                jit.compile_form(name, types)
    except Exception as caught:  # one broken kernel must not keep the others cold
        error = warmup.one_line(caught)
    return warmup.Outcome(module, time.perf_counter() - start, True, error or warmup.not_kept())
