"""A kind of CPU less than this one, for fastml and for the libraries beside it: held to it, and asked whether they are.

Libraries choose their code when they are loaded, most of them by variables of the environment. So a command that is
given ``--target`` sets these and runs itself again. What a library says of itself afterwards counts, not what it was
told: one that cannot be held, or does not tell, runs as it is, and what is measured of it counts neither for us nor
against us.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "IN_TURNS",
    "add_option",
    "again",
    "environment",
    "in_turn",
    "is_set",
    "loaded_files",
    "misfit",
    "not_held",
    "settings",
    "state",
    "why_not_held",
]

#: Says that the variables are set, so that a command runs itself again only once.
_SET = "BENCHES_TARGET"
_NUMPY = "NPY_DISABLE_CPU_FEATURES"
#: How names begin of what x86-64-v3 does not have, with NumPy, faiss and LLVM.
_ABOVE = ("AVX512", "X86_V4", "AVX10", "AMX")


class _Level(NamedTuple):
    """How libraries call a kind of CPU.

    Attributes
    ----------
    variables : dict of str to str
        What they read when they are loaded.
    above : frozenset of str
        Names that begin as `_ABOVE` says, of what the kind has all the same.
    blas : frozenset of str
        CPUs whose code OpenBLAS may run.
    aten, onednn : str
        What torch says of itself, and oneDNN in it.
    """

    variables: Mapping[str, str]
    above: frozenset[str]
    blas: frozenset[str]
    aten: str
    onednn: str


def _variables(openblas: str, mkl: str, onednn: str, aten: str, faiss: str, xla: str) -> dict[str, str]:
    return {
        "OPENBLAS_CORETYPE": openblas,
        "MKL_ENABLE_INSTRUCTIONS": mkl,
        "ONEDNN_MAX_CPU_ISA": onednn,
        "ATEN_CPU_CAPABILITY": aten,
        # Older versions of faiss have a library for each level, newer ones have all in one.
        "FAISS_OPT_LEVEL": faiss,
        "FAISS_SIMD_LEVEL": faiss,
        "XLA_FLAGS": f"--xla_cpu_max_isa={xla}",
    }


#: What `in_turn` means by a lesser CPU, and the kind from which on there is one.
_LESSER, _MORE = "x86-64-v3", "x86-64-v4"
#: Says instead of a kind that commits take turns.
IN_TURNS = "in-turns"

_AVX2 = frozenset({"Haswell", "Zen", "Excavator"})
_V4 = frozenset({"X86_V4", "AVX512", *(f"AVX512{part}" for part in ("F", "CD", "BW", "DQ", "VL", "_SKX"))})
#: By the names of `cpu_kinds.KINDS`.
_LEVELS = {
    "x86-64-v3": _Level(
        _variables("Haswell", mkl="AVX2", onednn="AVX2", aten="avx2", faiss="AVX2", xla="AVX2"),
        above=frozenset(),
        blas=_AVX2,
        aten="AVX2",
        onednn="Intel AVX2",
    ),
    "x86-64-v4": _Level(
        _variables("SkylakeX", mkl="AVX512", onednn="AVX512_CORE", aten="avx512", faiss="AVX512", xla="AVX512"),
        above=_V4,
        blas=_AVX2 | {"SkylakeX"},
        aten="AVX512",
        onednn="Intel AVX-512 with AVX512BW, AVX512VL, and AVX512DQ extensions",
    ),
    "x86-64-v4-vnni": _Level(
        _variables(
            "SkylakeX", mkl="AVX512_E1", onednn="AVX512_CORE_VNNI", aten="avx512", faiss="AVX512", xla="AVX512_VNNI"
        ),
        above=_V4 | {"AVX512VNNI", "AVX512_CLX"},
        blas=_AVX2 | {"SkylakeX"},
        aten="AVX512",
        onednn="Intel AVX-512 with Intel DL Boost",
    ),
}


# ---------------------------------------------------------------------------------------- the command line


def add_option(parser: argparse.ArgumentParser, also: str = "") -> None:
    """Add ``--target``; `__main__` does what it asks for. `also` is what else a command says of it."""
    parser.add_argument(
        "--target",
        metavar="KIND",
        help="hold fastml and the other libraries to a kind of CPU, such as x86-64-v3 (default: this CPU as it is)"
        + also,
    )


def in_turn(commit: str) -> str | None:
    """Return the target whose turn it is at a commit: for every other one the lesser CPU, else None, this as it is.

    By the commit's name, so that a commit has the same turn wherever it is measured. A CPU that is not more than the
    lesser one has nothing to take turns with.
    """
    from fastml.kernels.runtime import cpu_kinds

    turns = int(commit, 16) % 2 == 1 and cpu_kinds.misfit(_MORE) is None and misfit(_LESSER) is None
    return _LESSER if turns else None


def is_set(name: str) -> bool:
    """Whether this process was started with what holds libraries to a target."""
    return os.environ.get(_SET) == name


def misfit(name: str) -> str | None:
    """Say why there is nothing to measure for a target here, or None."""
    from fastml.kernels.runtime import cpu_kinds

    try:
        reason = cpu_kinds.misfit(name)
    except cpu_kinds.Unfit as error:
        return str(error)
    if reason:
        return f"{name}: {reason}"
    return None if cpu_kinds.knows_numba() else "fastml does not know this Numba, which compiles for the CPU as it is"


def again(arguments: list[str], name: str) -> int:
    """Run a command of ``python -m benches`` in a process that is held to a target; return its exit code."""
    command = [sys.executable, "-m", "benches", *arguments]
    environ = {key: value for key, value in os.environ.items() if key != "NPY_ENABLE_CPU_FEATURES"}
    environ |= settings(name) | {_SET: name}
    if os.name == "posix":
        # In the place of this process, so that signals come to the one that works.
        os.execve(command[0], command, environ)
    return subprocess.call(command, env=environ)


def settings(name: str) -> dict[str, str]:
    """Return the variables that hold a process to a target."""
    found = {"FASTML_TARGET": name}
    if level := _LEVELS.get(name):
        found |= level.variables
        if flags := os.environ.get("XLA_FLAGS"):
            found["XLA_FLAGS"] = f"{flags} {found['XLA_FLAGS']}"
        # Of names that its build does not dispatch, NumPy says that it ignores them.
        disabled = _above(_numpy_core().__cpu_dispatch__, level)
        found[_NUMPY] = " ".join(dict.fromkeys([*os.environ.get(_NUMPY, "").split(), *disabled]))
    return found


def environment() -> dict[str, str]:
    """Return what holds a process beside this one to the same target; empty if there is none."""
    name = _target()
    if name is None:
        return {}
    variables = (*(_LEVELS[name].variables if name in _LEVELS else ()), _NUMPY)
    return {"FASTML_TARGET": name} | {key: os.environ[key] for key in variables if key in os.environ}


def _target() -> str | None:
    from fastml.kernels.runtime import cpu_kinds

    return cpu_kinds.demanded()


# ---------------------------------------------------------------------------------------- what became of it


def state(packages: Iterable[str]) -> dict[str, Any] | None:
    """Return the target of this process, and for each package why it is not held to it, or None; None: no target."""
    name = _target()
    if name is None:
        return None
    libraries = [{"name": package, "problem": why_not_held(package)} for package in dict.fromkeys(packages)]
    return {"name": name, "libraries": libraries}


def not_held(document: Mapping[str, Any]) -> dict[str, str]:
    """Return those packages of a document that were not held to its target, and why."""
    target = document.get("target")
    return {one["name"]: one["problem"] for one in target["libraries"] if one["problem"]} if target else {}


@cache
def why_not_held(package: str) -> str | None:
    """Say why a package may run code that the target of this process does not have; this loads it. None: it is held."""
    name = _target()
    if name is None:
        return None
    if package == "fastml":
        return _fastml(name)
    if package not in _CHECKS or name not in _LEVELS:
        return f"no setting is known that holds it to {name}"
    try:
        return _CHECKS[package](_LEVELS[name])
    except Exception as error:  # what a library does not tell is no reason to measure nothing
        return f"it does not tell what it runs: {type(error).__name__}: {error}"


def _fastml(name: str) -> str | None:
    from fastml.kernels.runtime import cpu_kinds, jit

    kind = cpu_kinds.known(name)
    _, cpu, features = jit.compiled_for()
    return None if (cpu, features) == (kind.cpu, kind.features) else f"it is compiled for {cpu}"


def _above(names: Iterable[str], level: _Level) -> list[str]:
    """Return those names of features that CPUs of a level do not have."""
    return [name for name in names if name.startswith(_ABOVE) and name not in level.above]


def _runs(names: Iterable[str], level: _Level) -> str | None:
    above = _above(names, level)
    return f"it runs code for {', '.join(above)}" if above else None


def _numpy_core() -> Any:
    return importlib.import_module("numpy._core._multiarray_umath")


def _numpy(level: _Level) -> str | None:
    core = _numpy_core()
    return _runs([name for name in core.__cpu_dispatch__ if core.__cpu_features__[name]], level) or _blas(
        "numpy", level
    )


def _scipy(level: _Level) -> str | None:
    # Its own code, like scikit-learn's, is one for all CPUs.
    importlib.import_module("scipy.linalg")
    return _blas("scipy", level)


def _scikit_learn(level: _Level) -> str | None:
    return _numpy(level) or _scipy(level)


def _blas(package: str, level: _Level) -> str | None:
    """Ask the BLAS libraries in the process that a package may use: its own, and those that no package brought."""
    from threadpoolctl import threadpool_info

    for found in threadpool_info():
        folders = "/".join(Path(found["filepath"]).parts[-3:-1])
        brought_by = [name for name in ("numpy", "scipy", "faiss", "torch") if name in folders]
        if found["user_api"] == "blas" and (package in brought_by or not brought_by):
            cpu = found.get("architecture")
            if cpu not in level.blas:
                return f"its {found['internal_api']} {f'runs code for {cpu}' if cpu else 'does not tell what it runs'}"
    return None


def _torch(level: _Level) -> str | None:
    capability = importlib.import_module("torch").backends.cpu.get_cpu_capability()
    if capability != level.aten:
        return f"it runs code for {capability}"
    probe = "import torch; a = torch.ones(8, 8); a @ a; a.to_mkldnn()"
    return _intel_libraries(probe, level) or _blas("torch", level)


def _intel_libraries(probe: str, level: _Level) -> str | None:
    """Ask MKL and oneDNN, where they are linked into a package: they say what they run where they are used first."""
    talkative = {**os.environ, "MKL_VERBOSE": "1", "ONEDNN_VERBOSE": "1"}
    lines = subprocess.run(
        [sys.executable, "-c", probe], env=talkative, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    for line in lines:
        # On CPUs that Intel did not make, MKL names no instructions; its AVX-512 is for Intel's alone.
        if line.startswith("MKL_VERBOSE") and not level.above and "AVX-512" in line:
            return f"its MKL runs code for AVX-512 ({line})"
        _, is_isa, isa = line.partition(",cpu,isa:")
        if is_isa and isa != level.onednn:
            return f"its oneDNN runs code for {isa}"
    return None


#: How oneDAL numbers the kinds of CPU that it has code for.
_ONEDAL_AVX2 = 4
_ONEDAL_DETECTS = "_Z22__daal_serv_cpu_detecti"


def _onedal(level: _Level) -> str | None:
    # It heeds no variable, but what its dispatch asks can be asked too: on CPUs that Intel did not make it takes no
    # code above AVX2, whatever they have.
    extension = importlib.import_module("daal4py._daal4py").__file__
    found = getattr(ctypes.CDLL(extension), _ONEDAL_DETECTS)(0)
    if found > _ONEDAL_AVX2 and not level.above:
        return "it runs code for AVX512, as it heeds no variable"
    probe = (
        "import numpy; from sklearnex.neighbors import NearestNeighbors; a = numpy.ones((16, 16), numpy.float32);"
        "NearestNeighbors(n_neighbors=1, algorithm='brute').fit(a).kneighbors(a)"
    )
    return _intel_libraries(probe, level)


#: Registers that only AVX-512 has.
_AVX512_REGISTERS = re.compile(rb"%(?:zmm\d|[xy]mm(?:1[6-9]|2\d|3[01])|k[0-7])")


def _one_code_for_all(*packages: str) -> Callable[[_Level], str | None]:
    """Make a check for packages that choose nothing: it reads the machine code that they brought into this process."""

    def check(level: _Level) -> str | None:
        files = loaded_files(packages)
        if not files:
            return "none of its files is found in the process"
        for file in files:
            command = ["objdump", "--disassemble", "--no-show-raw-insn", file]
            code = subprocess.run(command, check=True, capture_output=True).stdout
            if b"ret" not in code:
                return f"{Path(file).name} cannot be read"
            if _AVX512_REGISTERS.search(code):
                return f"{Path(file).name} has code for AVX512"
        return None

    return check


def loaded_files(modules: Iterable[str]) -> list[str]:
    """Import modules and return the files with machine code that their packages have in this process."""
    folders = []
    for module in modules:
        importlib.import_module(module)
        package = Path(str(sys.modules[module.partition(".")[0]].__file__)).parent
        folders += [package, package.with_name(f"{package.name}.libs")]
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {Path(line.split(maxsplit=5)[5]) for line in lines if ".so" in line}
    return sorted(str(path) for path in paths if any(folder in path.parents for folder in folders))


def _glum(level: _Level) -> str | None:
    # Products of matrices are NumPy's and SciPy's.
    return _one_code_for_all("glum", "tabmat", "numexpr")(level) or _scikit_learn(level)


def _faiss(level: _Level) -> str | None:
    options = importlib.import_module("faiss").get_compile_options().split()
    return _runs(options, level) or _blas("faiss", level)


def _jax(level: _Level) -> str | None:
    jax = importlib.import_module("jax")
    compiled = jax.jit(lambda x: x + 1).lower(1.0).compile().runtime_executable().serialize()
    # In it are the features that LLVM was told, such as "+avx2".
    features = [name.decode().upper() for name in re.findall(rb"\+([a-z][a-z0-9.-]+)", compiled)]
    return _runs(features, level) if "AVX2" in features else "it does not tell what it compiles for"


_CHECKS: dict[str, Callable[[_Level], str | None]] = {
    "numpy": _numpy,
    "scipy": _scipy,
    "scikit-learn": _scikit_learn,
    "scikit-learn-intelex": _onedal,
    "torch": _torch,
    "faiss-cpu": _faiss,
    "jax": _jax,
    "pykdtree": _one_code_for_all("pykdtree.kdtree"),
    "pynanoflann": _one_code_for_all("pynanoflann"),
    "napf": _one_code_for_all("napf"),
    "glum": _glum,
}
