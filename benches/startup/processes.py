"""Processes that are measured, each with its seconds and with what Numba compiled in it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Failed", "Interpreter", "Reading", "Unexpected"]

# Every function that is compiled, whoever asks for it, goes through Numba's passes.
_WATCHED = """
import numba.core.event
passes = numba.core.event.RecordingListener()
numba.core.event.register("numba:run_pass", passes)
{script}
import json
compiled = {{found.data["qualname"] for _, found in passes.buffer}}
print(json.dumps(sorted(compiled)))
"""

_USED_PACK = """
from fastml.kernels.runtime import jit
print(jit.pack_state()[0] or "")
"""

#: Settings of the caller that decide where machine code comes from.
_DECIDED_HERE = ("NUMBA_CACHE_DIR", "NUMBA_DISABLE_JIT", "FASTML_PACK", "FASTML_QUIET", "FASTML_TARGET")


class Unexpected(Exception):
    """A process that compiled though everything was there, or compiled nothing though nothing was."""

    exit_code = 1


class Failed(Unexpected):
    """A process that could not run; the message has its last words."""

    exit_code = 2


@dataclass(frozen=True)
class Reading:
    """Seconds of a process: of all its threads (CPU) and of a clock on the wall; what Numba compiled in it."""

    cpu: float
    wall: float
    compiled: tuple[str, ...] = ()


@dataclass(frozen=True)
class Interpreter:
    """Starts processes of one Python, in an empty folder, so that it imports the fastml that is installed there."""

    path: Path

    def run(self, script: str) -> Reading:
        """Run a script that needs no machine code."""
        return self._timed(["-c", script], {})[0]

    def fit(self, script: str, *, cache: Path, pack: bool, compiles: bool) -> Reading:
        """Run a script that needs machine code, and see to it that Numba compiles, or does not."""
        changes = {"NUMBA_CACHE_DIR": str(cache), "FASTML_PACK": str(int(pack))}
        reading, printed = self._timed(["-c", _WATCHED.format(script=script)], changes)
        compiled = tuple(json.loads(printed.splitlines()[-1]))
        if compiles and not compiled:
            raise Unexpected("the cache was empty, and yet Numba's compiler did not run")
        if compiled and not compiles:
            raise Unexpected(f"Numba's compiler ran, for {', '.join(compiled)}; it should have found all of it")
        return Reading(reading.cpu, reading.wall, compiled)

    def warm_up(self, cache: Path, *, compiles: bool, only: str | None = None) -> Reading:
        """Compile the catalogue, or look it up where nothing is to be compiled."""
        arguments = ["-m", "fastml", "warmup", *(["--only", only] if only else [])]
        reading, printed = self._timed(arguments, {"NUMBA_CACHE_DIR": str(cache), "FASTML_PACK": "0"})
        if compiles == (" 0 compiled" in printed):
            raise Unexpected(f"warmup should {'' if compiles else 'not '}have compiled:\n{printed}")
        return reading

    def used_pack(self) -> str | None:
        """Name the pack that processes use by themselves."""
        return self._timed(["-c", _USED_PACK], {})[1].strip() or None

    def info(self) -> dict[str, Any]:
        """Return what ``python -m fastml info`` says where no pack is used, and where that fastml is."""
        found: dict[str, Any] = json.loads(self._timed(["-m", "fastml", "info", "--json"], {"FASTML_PACK": "0"})[1])
        found["path"] = self._timed(["-c", "import fastml; print(fastml.__file__)"], {})[1].strip()
        return found

    def _timed(self, arguments: list[str], changes: dict[str, str]) -> tuple[Reading, str]:
        environ = {name: value for name, value in os.environ.items() if name not in _DECIDED_HERE}
        environ |= {"FASTML_QUIET": "1", **changes}
        with tempfile.TemporaryDirectory() as empty:
            command = [os.path.abspath(self.path), *arguments]
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            done = subprocess.run(command, cwd=empty, env=environ, capture_output=True, text=True, check=False)
            wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            raise Failed(f"{' '.join(command[:2])} ... ended with {done.returncode}:\n{done.stderr.strip()}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Reading(cpu, wall), done.stdout
