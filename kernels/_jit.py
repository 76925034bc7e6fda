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
an index that points at the other one's code. Here one file holds one compiled signature; its name is
the digest of everything the code depends on, its content carries a digest of itself, it appears by
an atomic rename, and any error on the way means "compile it" instead of "fail".
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import llvmlite
import numba
import numpy as np
from numba.core import config, serialize
from numba.core.caching import _Cache
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock

__all__ = ["CacheInfo", "cache_info", "inner", "intrinsic", "jit_enabled", "kernel", "readonly", "scalar", "stats"]

F = TypeVar("F", bound=Callable[..., Any])

REORDERED = frozenset({"contract", "reassoc", "nsz", "arcp"})
IN_ORDER = frozenset({"contract"})

#: A stamp folder that no process used for this long belongs to a version that is gone.
STALE_AFTER_S = 60 * 24 * 3600

_kernels: list[Any] = []

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


def kernel(function: F) -> F:
    """Compile a function on arrays that Python calls; its machine code is kept on disk."""
    if not jit_enabled():
        return function
    compiled: Any = inner(function)
    compiled._cache = _MachineCodeCache(function, compiled.targetoptions)
    _kernels.append(compiled)
    return cast(F, compiled)


def inner(function: F) -> F:
    """Compile a function on arrays that only kernels call: it is part of their machine code."""
    if not jit_enabled():
        return function
    return cast(F, numba.njit(nogil=True, error_model="numpy", fastmath=set(REORDERED))(_told_apart(function)))


def scalar(function: F) -> F:
    """Compile a scalar helper: operations in order, inlined into every caller."""
    if not jit_enabled():
        return function
    options = {"fastmath": set(IN_ORDER), "forceinline": True}
    return cast(F, numba.njit(nogil=True, error_model="numpy", **options)(_told_apart(function)))


def _told_apart(function: F) -> F:
    """Give a function that a factory made a name that says what it was made with.

    In machine code a function is named by its qualified name, its types, and a number that counts the functions
    compiled in the process. Two functions of one factory that happen to get the same number, in two processes,
    would have one name; a third process that loads both from the cache would run the first one twice.
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
        ``{"distances._block": {"signatures": 1, "hits": 1, "misses": 0}, ...}``.
    """
    result = {}
    for compiled in _kernels:
        name = f"{compiled.py_func.__module__.rpartition('.')[2]}.{compiled.py_func.__qualname__}"
        counted = compiled.stats
        result[name] = {
            "signatures": len(compiled.signatures),
            "hits": sum(counted.cache_hits.values()),
            "misses": sum(counted.cache_misses.values()),
        }
    return result


# ---------------------------------------------------------------------------------------- cache


class CacheInfo(NamedTuple):
    """Where compiled kernels are kept; `path` is None where there is no cache, `reason` says why."""

    path: str | None
    writable: bool
    reason: str


def cache_info() -> CacheInfo:
    """Say where compiled kernels are kept and whether new ones can be added."""
    if not jit_enabled():
        return CacheInfo(None, False, "compilation is switched off (NUMBA_DISABLE_JIT)")
    try:
        folder = _stamp_folder()
    except Exception as error:
        return CacheInfo(None, False, f"no cache: {error}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return CacheInfo(str(folder), False, f"cannot be written: {error.strerror or error}")
    return CacheInfo(str(folder), True, "writable")


class _MachineCodeCache(_Cache):
    """One function's compiled signatures on disk, one self-checking file each."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self._name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        self._options = repr(sorted((key, _plain(value)) for key, value in options.items()))
        self._enabled = True

    @property
    def cache_path(self) -> str | None:
        return cache_info().path

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def flush(self) -> None:
        with contextlib.suppress(Exception):
            for file in _stamp_folder().glob(f"{_file_stem(self._name)}.*.bin"):
                file.unlink(missing_ok=True)

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        if not self._enabled:
            return None
        try:
            target_context.refresh()
            digest, payload = _split(self._file(sig, target_context.codegen()).read_bytes())
            if hashlib.sha256(payload).digest() != digest:
                return None
            _keep_house(_stamp_folder())
            return CompileResult._rebuild(target_context, *pickle.loads(payload))
        except Exception:
            # Whatever is wrong with the file, compiling is the answer.
            return None

    def save_overload(self, sig: Any, data: CompileResult) -> None:
        if not self._enabled or data.lifted or data.library.has_dynamic_globals:
            return
        with contextlib.suppress(Exception):
            file = self._file(sig, data.codegen)
            payload = serialize.dumps(data._reduce())
            file.parent.mkdir(parents=True, exist_ok=True)
            _write_atomically(file, hashlib.sha256(payload).digest() + payload)
            _keep_house(file.parent)

    def _file(self, sig: Any, codegen: Any) -> Path:
        key = repr((self._name, self._options, str(sig), codegen.magic_tuple()))
        digest = hashlib.sha256(key.encode()).hexdigest()[:32]
        return _stamp_folder() / f"{_file_stem(self._name)}.{digest}.bin"


def _plain(value: Any) -> Any:
    """Give an option a text that does not depend on the order of a set."""
    flags = getattr(value, "flags", value)
    return sorted(flags) if isinstance(flags, (set, frozenset)) else repr(value)


def _file_stem(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)


def _split(content: bytes) -> tuple[bytes, bytes]:
    return content[:32], content[32:]


def _write_atomically(file: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@cache
def _keep_house(current: Path) -> None:
    """Mark a folder as used, once per process, and drop those of versions that are long gone."""
    with contextlib.suppress(OSError):
        os.utime(current)
        _remove_stale(current)


def _remove_stale(current: Path) -> None:
    """Remove what nobody used for long: uninstalling a package cannot."""
    for folder in current.parent.iterdir():
        with contextlib.suppress(OSError):  # another user's, or no folder of ours
            if folder != current and time.time() - folder.stat().st_mtime > STALE_AFTER_S:
                for file in folder.iterdir():
                    file.unlink(missing_ok=True)
                folder.rmdir()


def _stamp_folder() -> Path:
    return _root_folder() / _stamp()


def _root_folder() -> Path:
    if config.CACHE_DIR:
        return Path(config.CACHE_DIR) / "fastml"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "fastml" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "fastml"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastml"


@cache
def _stamp() -> str:
    """Digest all that machine code depends on besides the function, its types and the CPU."""
    digest = hashlib.sha256()
    versions = (sys.version, numba.__version__, llvmlite.__version__, np.__version__)
    switches = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "FULL_TRACEBACKS")
    digest.update(repr((versions, [(name, repr(getattr(config, name, None))) for name in switches])).encode())
    package = Path(__file__).parent
    sources = sorted(package.rglob("*.py"))
    if not sources:
        raise OSError("the sources of the kernels cannot be read")
    for source in sources:
        digest.update(f"{source.relative_to(package).as_posix()}\0".encode())
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()[:16]
