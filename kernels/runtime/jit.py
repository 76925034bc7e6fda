"""How kernels are compiled, and where the machine code is kept.

This is the only module that names a compilation option. It offers four policies:

``kernel`` and ``inner``
    A function on arrays, called from Python or from kernels only. Sums may be reordered (that is
    what lets them use vector registers), but NaN and infinity keep their meaning: no ``nnan``, no
    ``ninf``.
``scalar``
    A helper on scalars that is always inlined into the kernels that call it. Operations keep their
    order, so compensated arithmetic survives; only ``a * b + c`` may become one fused operation.
``intrinsic``
    A helper that emits LLVM code itself, with a NumPy twin which is its test oracle and its body
    when compilation is switched off.

Why not Numba's own file cache? Its stamp is the content of the file that defines the function that
is called. After an upgrade that changes a helper in another file it returns the old machine code, a
truncated file makes the call raise, and two processes that fill an empty cache together can leave
an index that points at the other one's code; it runs what other users put there. Here one file holds
one compiled signature; its name is the digest of all live code that it was made from (`_live_code`), its
content carries a digest of itself, it appears by an atomic rename, it is loaded only from whom the user
trusts (`_cache_files`), and any error on the way means "compile it" instead of "fail".
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, TypeVar, cast

import llvmlite
import numba
import numpy as np
from numba.core import config, serialize, types
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher
from numba.core.registry import CPUDispatcher, cpu_target
from numba.core.typing import Signature

from . import _cache_files, _live_code, cpu_kinds
from ._cache_files import CacheInfo
from .compile_notice import noticing

__all__ = [
    "KERNELS",
    "CacheInfo",
    "cache_info",
    "compiled_for",
    "inner",
    "intrinsic",
    "jit_enabled",
    "kernel",
    "not_kept",
    "pack_state",
    "readonly",
    "scalar",
    "stats",
]

#: With a Numba that is not known, functions are compiled and kept in its own way: slower to compile, the same code.
_IS_TRIED = cpu_kinds.knows_numba()

if _IS_TRIED:
    from . import compiler, machine_code, packs

F = TypeVar("F", bound=Callable[..., Any])

REORDERED = frozenset({"contract", "reassoc", "nsz", "arcp"})
IN_ORDER = frozenset({"contract"})

#: Numba's settings that change machine code; a program may change them at any time.
_SWITCHES = (
    *("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "USING_SVML", "LLVM_REFPRUNE_PASS", "LLVM_REFPRUNE_FLAGS"),
    *("BOUNDSCHECK", "DEBUGINFO_DEFAULT", "EXTEND_VARIABLE_LIFETIMES", "FULL_TRACEBACKS", "DEBUG_JIT", "DEBUG_NRT"),
)

#: Kernels are named by their place below this package.
_PACKAGE = __name__.removesuffix("runtime.jit")

#: Under what name a pack has the function that tries it, and with which types.
PROBE = "probe"
_PROBE_TYPES = (types.Array(types.float32, 1, "C"),) * 2

#: All that is called from Python, in the order in which modules were loaded.
KERNELS: list[Any] = []

if hasattr(os, "register_at_fork"):
    # A child forked while another thread compiles would wait for ever for that thread's lock.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )


def jit_enabled() -> bool:
    """Whether kernels are compiled (false under ``NUMBA_DISABLE_JIT=1``)."""
    return not config.DISABLE_JIT


def compiled_for() -> tuple[str, str, str]:
    """Return what code is made for: LLVM's triple, the CPU's name and its features."""
    target_context = compiler.Compiled.targetdescr.target_context if _IS_TRIED else cpu_target.target_context
    triple, cpu, features = target_context.codegen().magic_tuple()
    return triple, cpu, features


def kernel(function: F) -> F:
    """Compile a function on arrays that Python calls; its machine code is kept on disk."""
    if not jit_enabled():
        return function
    compiled: Any = inner(function)
    compiled._cache = _Records(compiled) if _IS_TRIED else _Pickles(compiled)
    compiled.notice = partial(noticing, _name(compiled), cache_info)
    KERNELS.append(compiled)
    return cast(F, compiled)


def inner(function: F) -> F:
    """Compile a function on arrays that only kernels call: it is part of their machine code."""
    return _compiled(function, fastmath=set(REORDERED))


def scalar(function: F) -> F:
    """Compile a scalar helper: operations in order, inlined into every caller."""
    return _compiled(function, fastmath=set(IN_ORDER), forceinline=True)


def _compiled(function: F, **options: Any) -> F:
    if not jit_enabled():
        return function
    options = {"nopython": True, "boundscheck": None, "nogil": True, "error_model": "numpy", **options}
    function = with_unique_qualname(function)
    if _IS_TRIED:
        return cast(F, compiler.Compiled(function, {}, options))
    return cast(F, _InNumbasWay(function, targetoptions=options))


class _InNumbasWay(CPUDispatcher):
    """A function for versions of Numba that are not known."""

    notice: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext

    def compile(self, sig: Any) -> Any:
        with self.notice():
            return super().compile(sig)


def with_unique_qualname(function: F) -> F:
    """Give a function that a factory made a name that says what it was made with.

    In machine code a function is named by its qualified name, its types, and a number that counts the functions
    compiled in the process. Two functions of one factory that happen to get the same number, in two processes,
    would have one name; a third process that loads both in Numba's way would run the first one twice.
    """
    if function.__closure__ and "<locals>" in function.__qualname__:
        made_with = []
        for cell in function.__closure__:
            with contextlib.suppress(ValueError):  # not assigned yet
                value = cell.cell_contents
                made_with.append(getattr(value, "__qualname__", None) or repr(value))
        function.__qualname__ += f"[{', '.join(made_with)}]"
    return function


def intrinsic(*, twin: Callable[..., Any]) -> Callable[[F], Any]:
    """Declare a function that emits LLVM code, beside the NumPy function it must agree with."""

    def declare(emit: F) -> Any:
        if not jit_enabled():
            return twin
        emitter = numba.extending.intrinsic(emit)
        emitter.twin = twin
        return emitter

    return declare


def readonly(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a read-only view, so that a kernel has one compiled form and not one per writeability."""
    if not array.flags.writeable:
        return array
    view = array.view()
    view.setflags(write=False)
    return view


def stats() -> dict[str, dict[str, int]]:
    """Signatures compiled or loaded so far, cache hits and cache misses of every kernel.

    Returns
    -------
    dict
        ``{"distances.panels.fill": {"signatures": 1, "hits": 1, "misses": 0}, ...}``.
    """
    result = {}
    for compiled in KERNELS:
        counted = compiled.stats
        result[_name(compiled)] = {
            "signatures": len(compiled.signatures),
            "hits": sum(counted.cache_hits.values()),
            "misses": sum(counted.cache_misses.values()),
        }
    return result


def not_kept() -> str | None:
    """Say why a kernel that was compiled could not be kept, of one of them; None if all were."""
    reasons = (f"{_name(compiled)}: {compiled._cache.not_kept}" for compiled in KERNELS if compiled._cache.not_kept)
    return next(reasons, None)


def forms() -> Iterator[tuple[str, str, Any]]:
    """Yield the module of each kernel, its name, and the types of its arguments: for each form that was called."""
    for compiled in KERNELS:
        for arguments in compiled.overloads:
            yield compiled.py_func.__module__, _name(compiled), arguments


def compile_form(name: str, arguments: Any) -> None:
    """Compile a kernel, by its name, for some types."""
    for compiled in KERNELS:
        if _name(compiled) == name:
            compiled.compile(arguments)
            return
    raise LookupError(f"there is no kernel {name}")


def _name(compiled: Dispatcher) -> str:
    module = compiled.py_func.__module__.removeprefix(_PACKAGE)
    return f"{module}.{compiled.py_func.__qualname__}"


# ---------------------------------------------------------------------------------------- cache


def cache_info() -> CacheInfo:
    """Say where compiled kernels are kept and whether new ones can be added; this makes no folders."""
    if not jit_enabled():
        return CacheInfo(None, False, "compilation is switched off (NUMBA_DISABLE_JIT)")
    if config.OPT == 0:
        return CacheInfo(None, False, "code that is not optimised holds addresses of its process (NUMBA_OPT=0)")
    return _cache_files.state(_versions())


class _KeptCode(_Cache):
    """One function's compiled signatures on disk, one self-checking file each."""

    def __init__(self, compiled: Dispatcher) -> None:
        self._compiled = compiled
        self._stem = re.sub(r"[^\w.-]", "_", _name(compiled))
        self._enabled = True
        #: Why what was compiled last could not be kept.
        self.not_kept: str | None = None

    @property
    def cache_path(self) -> str | None:
        return cache_info().path

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def flush(self) -> None:
        with contextlib.suppress(Exception):
            _cache_files.remove(_versions(), self._stem)

    def _read(self, file: str) -> bytes:
        found = _cache_files.read(_versions(), file)
        digest, content = found[:32], found[32:]
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("the file is damaged")
        return content

    def _keep(self, arguments: Any, written: Callable[[], bytes]) -> None:
        if self._enabled:
            self.not_kept = None
            try:
                content = written()
                _cache_files.write(_versions(), self._file(arguments), hashlib.sha256(content).digest() + content)
            except Exception as error:
                self.not_kept = str(error) or type(error).__name__

    def _file(self, arguments: Any) -> str:
        """Name the file of one signature by all that its machine code depends on, besides the versions."""
        key = repr((_live_code.digest(self._compiled), _spelled(arguments), compiled_for()))
        return f"{self._stem}.{hashlib.sha256(key.encode()).hexdigest()[:32]}.bin"


class _Records(_KeptCode):
    """Machine code as `machine_code` writes it."""

    def __init__(self, compiled: Dispatcher) -> None:
        super().__init__(compiled)
        compiled.load = self.load

    def load(self, arguments: Any) -> Any:
        """Return what can be called, or None; whatever is wrong with the file, compiling is the answer."""
        if not self._enabled or cpu_kinds.foreign():
            return None
        with contextlib.suppress(Exception):
            file = self._file(arguments)
            with contextlib.suppress(Exception):
                if (content := _in_pack(file)) is not None:
                    return machine_code.load(content, self._compiled, arguments)
            return machine_code.load(self._read(file), self._compiled, arguments)
        return None

    def load_overload(self, sig: Any, target_context: Any) -> None:
        """Return nothing: `Compiled` has asked `load` before Numba comes here."""

    def save_overload(self, sig: Any, data: CompileResult) -> None:
        self._keep(sig, partial(machine_code.record, data))


def _in_pack(file: str) -> bytes | None:
    """Return what a pack has under the name of a file of the cache."""
    pack = packs.chosen()
    return pack.read(file) if pack and pack.switches == switches() and _is_right(pack) else None


@cache
def _is_right(pack: packs.Pack) -> bool:
    """Whether a pack's code works here: a small function in it returns what it should."""
    reason = ""
    try:
        if (kept := pack.read(PROBE)) and _probe_works(machine_code.load(kept, _probe, _PROBE_TYPES).entry_point):
            return True
    except Exception as error:
        reason = f" ({error})"
    if not pack.refused:
        pack.refuse(f"its probe does not return what it should{reason}")
    return False


def pack_state() -> tuple[str | None, str]:
    """Say which pack of machine code is used, or None, and why; this reads all of it, to look for damage."""
    if not _IS_TRIED:
        return None, f"fastml does not know Numba {numba.__version__}"
    if not jit_enabled():
        return None, "compilation is switched off (NUMBA_DISABLE_JIT)"
    pack = packs.chosen()
    if pack and (others := pack.switches.items() ^ switches().items()):
        return None, f"{pack.name}: made with another {min(others)[0]}"
    if pack and _is_right(pack):
        pack.read_all()
    return packs.state()


def _add_squares(x, y):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        y[i] += x[i] * x[i]
    return y.sum()


_probe: Any = inner(_add_squares)


def _probe_works(function: Callable[..., Any]) -> bool:
    x, y = np.arange(77, dtype=np.float32), np.full(77, 0.5, np.float32)
    return function(x, y) == 149_264.5 and np.array_equal(y, x * x + np.float32(0.5))


def probe_record() -> bytes:
    """Return the record of the function that tries a pack."""
    _probe.compile(_PROBE_TYPES)
    (made,) = _probe.overloads.values()
    return machine_code.record(made)


class _Pickles(_KeptCode):
    """Machine code as Numba writes it, for versions of Numba that are not known."""

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        if self._enabled:
            with contextlib.suppress(Exception):
                target_context.refresh()
                kept = pickle.loads(self._read(self._file(sig)))
                return CompileResult._rebuild(target_context, *kept)
        return None

    def save_overload(self, sig: Any, data: CompileResult) -> None:
        if not data.lifted and not data.library.has_dynamic_globals:
            self._keep(sig, lambda: serialize.dumps(data._reduce()))


def _spelled(sig: Any) -> str:
    """Spell a signature with the fields of named tuples: their types are called by those of what is in them alone."""
    fields = [(kind.name, kind.fields) for kind in _tuples_in(sig) if isinstance(kind, types.BaseNamedTuple)]
    return str(sig) + (repr(fields) if fields else "")


def _tuples_in(kinds: Any) -> Iterator[Any]:
    for kind in kinds.args if isinstance(kinds, Signature) else kinds:
        if isinstance(kind, types.BaseTuple):
            yield kind
            yield from _tuples_in(kind.types)


def _versions() -> str:
    """Digest what all kernels depend on besides their own code, their types and the CPU."""
    versions = (sys.version, numba.__version__, llvmlite.__version__, np.__version__)
    return hashlib.sha256(repr((versions, sorted(switches().items()))).encode()).hexdigest()[:16]


def switches() -> dict[str, str]:
    """Return what changes machine code besides its own source: Numba's settings, and a digest of our way to compile."""
    config.reload_config()  # as the compiler does, so that what it goes by and what is said here are the same
    settings = {f"numba.config.{name}": repr(getattr(config, name, None)) for name in _SWITCHES}
    return {**settings, "way of compiling": _way()}


@cache
def _way() -> str:
    """Digest our own way of compiling, which makes the code and its records."""
    return _live_code.of_modules(compiler, machine_code) if _IS_TRIED else ""
