"""Machine code as bytes, and back: without the compiler, and with nothing that is run by being read.

A record is a line of JSON, which says what to call and what constants of Python the code uses, and an object file.
Numba keeps with these all types and LLVM code too, which only who links the function into others needs.

Whoever reads a file first has to know that it is whole (`jit` does, by its digest): LLVM believes what an object file
says of itself, and ends the process if it is wrong. Refused are what is no record, what is no object file for this
kind of CPU, and what needs functions that this process does not have.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from numba import _dynfunc
from numba.core import config, types
from numba.core.runtime import _nrt_python
from numba.core.typing import Signature, signature

from .compiler import Compiled, codegen

__all__ = ["Loaded", "NoRecord", "load", "record"]

#: What runs loaded code; never freed, for an array may outlive the function that made it, and need code to be freed.
_engines: list[llvm.ExecutionEngine] = []


class NoRecord(Exception):
    """Code that cannot be kept, or cannot be loaded here."""


class Loaded(NamedTuple):
    """What Numba wants to know of machine code that Python calls."""

    signature: Signature
    entry_point: Any
    objectmode: bool = False


def record(result: Any) -> bytes:
    """Return what is to be kept of a function that was compiled."""
    library, module = result.library, result.library._final_module
    if result.lifted or result.reload_init or library.has_dynamic_globals:
        raise NoRecord("the code holds addresses of this process")
    needed = [
        symbol.name
        for symbols in (module.functions, module.global_variables)
        for symbol in symbols
        if symbol.is_declaration and not symbol.name.startswith("llvm.")
    ]
    _require(needed)
    head = {
        "entry": result.fndesc.llvm_cpython_wrapper_name,
        "environment": result.fndesc.env_name,
        "constants": {name: list(map(_as_text, found.consts)) for name, found in library.environments.items()},
        "needs": needed,
    }
    return json.dumps(head).encode() + b"\n" + library._get_compiled_object()


def load(content: bytes, compiled: Compiled, arguments: Iterable[Any]) -> Loaded:
    """Make the code of a record ready to be called as one of the forms of a function."""
    line, _, code = content.partition(b"\n")
    head = json.loads(line)
    function = compiled.py_func
    module = sys.modules[function.__module__]
    _name_runtime()
    _require(head["needs"])
    engine = _engine_for(code)
    environments = {name: _environment(compiled, values) for name, values in head["constants"].items()}
    for name, environment in environments.items():
        ctypes.c_void_p.from_address(_address(engine, name)).value = id(environment)
    own = environments.get(head["environment"]) or _environment(compiled, [])
    entry = _dynfunc.make_function(
        module, function.__name__, "machine code", _address(engine, head["entry"]), own, tuple(environments.values())
    )
    return Loaded(signature(types.undefined, *arguments), entry)


def _require(names: list[str]) -> None:
    """Refuse code that LLVM could not link here: it would end the process."""
    for name in names:
        if llvm.address_of_symbol(name) is None:
            raise NoRecord(f"it needs {name}")


def _engine_for(code: bytes) -> llvm.ExecutionEngine:
    """Load an object file into an engine of its own.

    Two object files may have functions of one name: what both call, or what got the same number in two processes.
    In one engine the second one's calls would go to the first one's.
    """
    # In ELF, which LLVM uses on Windows too, the kind of CPU comes next to the first 16 bytes, in Mach-O within them.
    size = 20 if code.startswith(b"\x7fELF") else 16
    if code[:size] != _empty_object()[:size] or not (file := llvm.ObjectFileRef.from_data(code)):
        raise NoRecord("no object file for this kind of CPU")
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine, use_lmm=config.USE_LLVMLITE_MEMORY_MANAGER)
    if config.ENABLE_PROFILING:
        engine.enable_jit_events()
    engine.add_object_file(file)
    _engines.append(engine)
    return engine


@cache
def _empty_object() -> bytes:
    return codegen()._tm.emit_object(llvm.parse_assembly(""))


def _address(engine: llvm.ExecutionEngine, name: str) -> int:
    if not (address := engine.get_global_value_address(name)):
        raise NoRecord(f"it lacks {name}")
    return address


def _environment(compiled: Compiled, values: list[Any]) -> Any:
    environment = _dynfunc.Environment(compiled.py_func.__globals__)
    environment.consts.extend(map(_from_text, values))
    return environment


def _as_text(value: Any) -> Any:
    """Spell a constant as JSON can have it."""
    if isinstance(value, np.dtype) and not value.hasobject and value.names is None:
        return {"dtype": value.str}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise NoRecord(f"a constant {value!r} of {type(value)}")


def _from_text(value: Any) -> Any:
    return np.dtype(value["dtype"]) if isinstance(value, dict) else value


def _name_runtime() -> None:
    """Tell LLVM where the functions are that count references to arrays; Numba does so before it first compiles."""
    if llvm.address_of_symbol("NRT_Free") is None:
        for name, address in _nrt_python.c_helpers.items():
            llvm.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)
