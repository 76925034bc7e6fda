"""Machine code as bytes, and back: without the compiler, and with nothing that is run by being read.

A record is a line of JSON, which says what to call and what constants of Python the code uses, and an object file.
Numba keeps with these all types and LLVM code too, which only who links the function into others needs.
"""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from numba import _dynfunc
from numba.core import types
from numba.core.compiler import lookup_environment
from numba.core.runtime import _nrt_python
from numba.core.typing import Signature, signature

from .compiler import Compiled, codegen, environments

__all__ = ["Loaded", "NoRecord", "load", "record"]


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
    constants = {}
    for name in environments(module):
        environment = lookup_environment(name)
        constants[name] = None if environment is None else [_as_text(value) for value in environment.consts]
    needed = [
        symbol.name
        for symbols in (module.functions, module.global_variables)
        for symbol in symbols
        if symbol.is_declaration and not symbol.name.startswith("llvm.")
    ]
    head = {
        "entry": result.fndesc.llvm_cpython_wrapper_name,
        "environment": result.fndesc.env_name,
        "constants": constants,
        "needs": needed,
    }
    return json.dumps(head).encode() + b"\n" + library._get_compiled_object()


def load(content: bytes, compiled: Compiled, arguments: Any) -> Loaded:
    """Make the code of a record ready to be called as one of the forms of a function."""
    line, _, code = content.partition(b"\n")
    head = json.loads(line)
    _name_runtime()
    if missing := [name for name in head["needs"] if llvm.address_of_symbol(name) is None]:
        raise NoRecord(f"it needs {missing[0]}")
    made = {name: _environment(compiled, values) for name, values in head["constants"].items() if values is not None}
    own = made.setdefault(head["environment"], _environment(compiled, []))
    machine = codegen()
    engine = machine._engine._ee
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    for name in head["constants"]:
        if name in made:
            machine.set_env(name, made[name])
    address = engine.get_function_address(head["entry"])
    function = compiled.py_func
    entry = _dynfunc.make_function(
        sys.modules[function.__module__], function.__name__, "machine code", address, own, tuple(made.values())
    )
    return Loaded(signature(types.undefined, *arguments), entry)


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
