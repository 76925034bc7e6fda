"""What a kernel stands on in this process, as a digest that every process with the same code comes to.

Machine code that is kept must be named by what it was made from. Files cannot say that: they may have been replaced
since they were imported, or between two imports, and a frozen application has none. So the digest is taken of the
objects that Numba compiles: a function's bytecode and constants and, by way of its globals, closure and defaults, all
that it reaches: functions, compiled or not, those that emit LLVM code, tables, classes, arrays. Line numbers, paths and
docstrings do not count. What belongs to Python, NumPy, Numba or llvmlite is known by its name, for the versions of
these are in the name of the folder that the code is kept in.

Whatever else is met raises `NoDescription`, and the kernel is not kept: better slow than wrong.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from dis import get_instructions, opmap
from functools import cache, partial
from itertools import pairwise
from operator import attrgetter
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic

__all__ = ["NoDescription", "digest", "of_modules"]


class NoDescription(Exception):
    """A kernel stands on something that another process could not recognise."""


class _Described(NamedTuple):
    """One object: what is said of it, with a gap for each of `parts`, which have descriptions of their own."""

    value: object
    text: str
    parts: list[object]


#: Packages whose versions are part of a cache folder's name.
_VERSIONED = frozenset({"llvmlite", "numba", "numpy"}) | sys.stdlib_module_names

#: The modules of our own way of compiling, which are digested as a whole for that name.
_WAY = frozenset(f"{__package__}.{name}" for name in ("compiler", "machine_code"))

_PLAIN = (bool, bytes, complex, float, int, range, str, type(None), type(Ellipsis))
_CachedFunction = type(cache(len))
_Field = type(_Described.text)

#: With these, code can reach what it does not name, or has not reached yet.
_IMPORT = opmap["IMPORT_NAME"]
_UNSEEN = frozenset({"__import__", "eval", "exec", "globals", "import_module"})

#: A flag of code since Python 3.13.
_HAS_DOCSTRING = 0x4000000

#: What a class has beside its code, or what Python writes there in an order of its own.
_NO_CODE = frozenset(
    {
        *("__annotate__", "__annotate_func__", "__annotations__", "__annotations_cache__", "__dict__", "__doc__"),
        *("__firstlineno__", "__module__", "__orig_bases__", "__static_attributes__", "__weakref__"),
    }
)

#: By its `id`, what was said of an object when it was first met.
_first: dict[int, _Described] = {}


def digest(function: Callable[..., Any]) -> str:
    """Digest `function` and everything that it stands on, as they are now.

    Raises
    ------
    NoDescription
        If something among it cannot be described, or is not what it was when it was first met: what was compiled
        before then has the old one in it.
    """
    met: list[object] = [function]
    numbers, found = {id(function): 0}, hashlib.sha256()
    for value in met:
        described = _describe(value)
        first = _first.setdefault(id(value), described)
        if first.text != described.text or list(map(id, first.parts)) != list(map(id, described.parts)):
            _first[id(value)] = first._replace(text="")  # for good: it may have been compiled meanwhile
            raise NoDescription(f"{value!r} is not what it was")
        for part in described.parts:
            if id(part) not in numbers:
                numbers[id(part)] = len(met)
                met.append(part)
        found.update(repr((described.text, [numbers[id(part)] for part in described.parts])).encode())
    return found.hexdigest()


def of_modules(*modules: ModuleType) -> str:
    """Digest the functions, methods and plain constants of some modules."""
    found = hashlib.sha256()
    for module in modules:
        own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
        for scope in (module, *(value for value in own if isinstance(value, type))):
            for name, value in vars(scope).items():
                if isinstance(function := _bare(value), FunctionType):
                    if function.__module__ == module.__name__:
                        found.update(f"{name} {_code(function.__code__)}".encode())
                elif type(value) in _PLAIN and not name.startswith("__"):
                    found.update(f"{name} {value!r}".encode())
    return found.hexdigest()


def _bare(value: Any) -> Any:
    """Return the function that decorators surround."""
    for name in ("__wrapped__", "__func__", "fget", "func"):
        if (inner := getattr(value, name, None)) is not None:
            return _bare(inner)
    return value


def _describe(value: Any) -> _Described:
    """Describe one object that may be met again, perhaps within itself."""
    parts: list[object] = []
    say = partial(_list, parts)
    if isinstance(value, Dispatcher):
        text = say("compiled", value.py_func, value.targetoptions, value.locals, type(value).__qualname__)
    elif isinstance(value, _Intrinsic):
        text = say("intrinsic", value._name, value._defn, value._prefer_literal, value._ctor_kwargs)
    elif isinstance(value, FunctionType):
        text = say("function", *_of_function(value))
    elif isinstance(value, type):
        own = [item for item in vars(value).items() if item[0] not in _NO_CODE]
        text = say("class", value.__module__, value.__qualname__, type(value), *value.__bases__, *own)
    elif type(value) in (dict, list):  # what is derived from them may have more than its items
        text = say(type(value), *(value.items() if isinstance(value, dict) else value))
    elif isinstance(value, _CachedFunction):
        text = say("cached", value.__wrapped__)
    elif isinstance(value, (classmethod, staticmethod)):
        text = say(type(value), value.__func__)
    elif isinstance(value, property):
        text = say("property", value.fget, value.fset, value.fdel)
    else:
        raise NoDescription(f"{value!r} of {type(value)} has no description")
    return _Described(value, text, parts)


def _of_function(function: FunctionType) -> Iterator[object]:
    """Yield what determines a Python function."""
    module = function.__globals__.get("__name__", "")
    yield from (module, function.__qualname__, function.__defaults__, function.__kwdefaults__)
    yield from (cell.cell_contents for cell in function.__closure__ or ())
    yield from vars(function).items()
    if _is_versioned(module):
        return
    codes = list(_codes(function.__code__))
    yield _code(function.__code__)
    for name in sorted({name for code in codes for name in code.co_names} & function.__globals__.keys()):
        value = function.__globals__[name]
        if isinstance(value, ModuleType) and not _is_versioned(value.__name__):
            attributes = sorted({attribute for code in codes for attribute in _attributes(code, name)})
            value = (value.__name__, *((attribute, vars(value).get(attribute, value)) for attribute in attributes))
        yield name, value


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield code, and that of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


@cache
def _attributes(code: CodeType, module: str) -> frozenset[str]:
    """Return the attributes that code takes from a module, which it must do nothing else with."""
    found = set()
    steps = [step for step in get_instructions(code) if step.opname != "EXTENDED_ARG"]
    for step, following in pairwise(steps):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and step.argval == module:
            if following.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                raise NoDescription(f"{code.co_qualname} may take anything from the module {module}")
            found.add(following.argval)
    return frozenset(found)


@cache
def _code(code: CodeType) -> str:
    """Digest code, without the lines and the file where it stands, and without its docstring."""
    if _IMPORT in code.co_code[::2] or not _UNSEEN.isdisjoint(code.co_names):
        raise NoDescription(f"{code.co_qualname} may use what its code does not name")
    found = hashlib.sha256()
    fields = (
        *(code.co_name, code.co_qualname, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
        *(code.co_flags & ~_HAS_DOCSTRING, code.co_code, code.co_exceptiontable, code.co_names),
        *(code.co_varnames, code.co_freevars, code.co_cellvars, _constants(code)),
    )
    for field in fields:
        found.update(_whole(field).encode())
    return found.hexdigest()


def _constants(code: CodeType) -> tuple[object, ...]:
    """Return the constants of code; in the place of a docstring, the first one, there is nothing."""
    found: tuple[object, ...] = code.co_consts
    if sys.version_info >= (3, 13):
        documented = bool(code.co_flags & _HAS_DOCSTRING)
    else:  # of functions the first one is a docstring or None; of lambdas and their like it may be any
        documented = not code.co_name.startswith("<") and isinstance(next(iter(found), None), str)
    return (None, *found[1:]) if documented else found


def _list(parts: list[object], *values: object) -> str:
    return "(" + ",".join([_text(parts, value) for value in values]) + ")"


def _text(parts: list[object], value: Any) -> str:
    """Return the text of a value; one that has a description of its own is a gap, and becomes one of `parts`."""
    kind = type(value)
    if kind in _PLAIN:
        return repr(value)
    if kind is CodeType:
        return f"code {_code(value)}"
    if isinstance(value, tuple):
        return f"{'' if kind is tuple else _text(parts, kind)}{_list(parts, *value)}"
    if isinstance(value, (set, frozenset)):
        return f"set({','.join(sorted(map(_whole, value)))})"
    if kind is ModuleType and _is_versioned(value.__name__):
        return f"module {value.__name__}"
    if isinstance(value, (np.generic, np.ndarray)) and not value.dtype.hasobject:
        content = hashlib.sha256(value.tobytes()).hexdigest()
        return f"{kind.__name__} {value.dtype!r} {value.shape} {value.strides} {content}"
    if isinstance(value, np.dtype):
        return f"dtype {value!r}"
    if kind is _Field:
        return "field"
    return _known(value) or _gap(parts, value)


def _whole(value: object) -> str:
    """Return the text of a value that has no gaps."""
    parts: list[object] = []
    text = _text(parts, value)
    if parts:
        raise NoDescription(f"{value!r} has no text of its own")
    return text


def _gap(parts: list[object], value: object) -> str:
    parts.append(value)
    return "&"


def _known(value: Any) -> str | None:
    """Return the name under which a package whose version is known has this very object."""
    owner = getattr(value, "__objclass__", None) or getattr(value, "__self__", None)  # of a C function
    module = getattr(value, "__module__", None) or getattr(owner, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if isinstance(value, np.ufunc):
        module = "numpy"
    if not isinstance(module, str) or not _is_versioned(module) or module not in sys.modules:
        return None
    home = sys.modules[module]
    if not isinstance(name, str):  # neither a function nor a class
        name = next((name for name, item in vars(home).items() if item is value), "")
    try:
        return f"{module}:{name}" if attrgetter(name)(home) is value else None
    except AttributeError:
        return None


def _is_versioned(module: str) -> bool:
    return module.partition(".")[0] in _VERSIONED or module in _WAY
