"""How functions become machine code: each kernel once, with all that it calls, for a target of Numba's of our own.

Numba turns every function that it compiles into machine code by itself, with all that the function calls, although
what only other compiled code calls is never run so. In a tree of calls a leaf is optimised once for each level above
it. Here a function that compiled code calls stays LLVM code, as it was lowered (`_Part`); a function that Python calls
links all that it reaches and is optimised once (`_Whole`). The result is the same code.

Numba lets targets be added. This one is its CPU with other libraries of code; it has types, code and an engine of its
own, so that what users compile with Numba meets nothing of it.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from queue import SimpleQueue
from typing import Any

import llvmlite.binding as llvm
import numba
from numba import _dynfunc
from numba.core import config, errors, externals, sigutils, typing, utils
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler import Compiler, lookup_environment
from numba.core.compiler_lock import global_compiler_lock
from numba.core.cpu import CPUContext, CPUTargetOptions
from numba.core.descriptors import TargetDescriptor
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys
from numba.core.target_extension import (
    CPU,
    current_target,
    dispatcher_registry,
    jit_registry,
    target_override,
    target_registry,
)

from . import cpu_kinds, packs
from .parallel import insist

__all__ = ["Compiled", "codegen"]

_NAME = "fastml"

#: Objects made, less those freed, after which garbage is looked for.
_OBJECTS = 20_000


class _Library(JITCodeLibrary):
    """LLVM code of one function, or more."""

    _linking_libraries: list[Any]

    def _optimize_functions(self, module: Any) -> None:
        """Clean what was lowered: with one pass manager, where Numba makes one for each function and declaration."""
        module.data_layout = self._codegen._data_layout
        manager, builder = self._codegen._function_pass_manager()
        for function in module.functions:
            if not function.is_declaration:
                manager.run(function, builder)

    def _finalize_specific(self) -> None:
        if not isinstance(self._codegen, _ForeignCodegen):
            super()._finalize_specific()

    def _get_compiled_object(self) -> bytes:
        if isinstance(self._codegen, _ForeignCodegen):
            return bytes(self._codegen._tm.emit_object(self._final_module))
        return bytes(super()._get_compiled_object())


class _Part(_Library):
    """Code of a function that compiled code calls: to be linked."""

    def finalize(self) -> None:
        self._finalized = True

    @cached_property
    def module(self) -> llvm.ModuleRef:
        """The function as it was lowered, without what it calls."""
        module = self._final_module
        for function in module.functions:
            if not function.is_declaration and function.linkage == llvm.Linkage.external:
                function.linkage = "linkonce_odr"
        return module


class _Whole(_Library):
    """Code of a function that Python calls, with all that it reaches."""

    def finalize(self) -> None:
        libraries = list(_callers_first(self._linking_libraries))
        self._linking_libraries = [library for library in libraries if not isinstance(library, _Part)]
        for library in libraries:
            if isinstance(library, _Part):
                self._final_module.link_in(library.module, preserve=True)
        super().finalize()
        #: What the functions need of Python, their constants, by the variable that leads to it; the code borrows them.
        self.environments = {}
        for variable in self._final_module.global_variables:
            name = variable.name
            if name.startswith("_ZN08NumbaEnv") and (environment := lookup_environment(name)) is not None:
                self.environments[name] = environment
                self._codegen.set_env(name, environment)


def _callers_first(libraries: list[Any]) -> Iterator[Any]:
    """Yield all libraries that these need: LLVM links only what is called by what it has linked already."""
    order: dict[Any, None] = {}
    met = set()

    def visit(library: Any) -> None:
        if library not in met:
            met.add(library)
            if isinstance(library, _Part):
                for callee in reversed(library._linking_libraries):
                    visit(callee)
            order[library] = None

    for library in reversed(libraries):
        visit(library)
    return reversed(order)


class _Codegen(JITCPUCodegen):
    """Numba's own, for the kind of CPU that the process has chosen."""

    _library_class = _Part

    def _get_host_cpu_name(self) -> str:
        kind = packs.kind()
        return kind.cpu if kind else super()._get_host_cpu_name()

    def _get_host_cpu_features(self) -> str:
        kind = packs.kind()
        return kind.features if kind else super()._get_host_cpu_features()


class _ForeignCodegen(_Codegen):
    """Makes objects for a CPU that this one need not be, and has no engine to run them."""

    def _init(self, module: Any) -> None:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        self._tm_features = self._customize_tm_features()
        options: dict[str, Any] = {"opt": config.OPT}
        self._customize_tm_options(options)
        if not cpu_kinds.triple().startswith("x86"):
            options["reloc"] = "default"
        self._tm = llvm.Target.from_triple(cpu_kinds.triple()).create_target_machine(**options)
        self._target_data = self._tm.target_data
        self._data_layout = str(self._target_data)
        self._loopvect, self._opt_level = (True, 3) if config.OPT.is_opt_max else (False, 0)

    def _create_empty_module(self, name: str) -> Any:
        module = super()._create_empty_module(name)
        module.triple = cpu_kinds.triple()
        return module

    def _add_module(self, module: Any) -> None:
        pass

    def set_env(self, env_name: str, env: Any) -> None:
        pass


class _Context(CPUContext):
    @global_compiler_lock
    def init(self) -> None:
        self.is32bit = utils.MACHINE_BITS == 32
        self._internal_codegen = (_ForeignCodegen if cpu_kinds.foreign() else _Codegen)("fastml")
        externals.c_math_functions.install(self)

    def load_additional_registries(self) -> None:
        # What all targets share is code of Numba's own; in a process that runs nothing it is for the other CPU.
        rtsys.initialize(self if cpu_kinds.foreign() else cpu_target.target_context)
        super().load_additional_registries()

    def get_executable(self, library: Any, fndesc: Any, env: Any) -> Any:
        if not (isinstance(library, _Part) or cpu_kinds.foreign()):
            return super().get_executable(library, fndesc, env)
        if not fndesc.native:
            raise errors.UnsupportedError("kernels cannot run Python: no `objmode`")
        if isinstance(library, _Whole):
            library.finalize()
        # A name for callers to know it by; nobody can run it.
        return _dynfunc.make_function(fndesc.lookup_module(), fndesc.qualname, "", 0, env, (library,))


class _Fastml(CPU):
    """The target's place among Numba's."""


target_registry.update({_NAME: _Fastml})  # whoever imports this again takes its place


class _Target(TargetDescriptor):
    options = CPUTargetOptions
    typing_context = typing.Context()
    target_context = _Context(typing_context, _NAME)
    knows_numba = False


class _WholeCompiler(Compiler):
    """Numba's way from a function to code, into a library of the other kind."""

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *rest: Any) -> None:
        library = _Whole(targetctx.codegen(), _NAME)
        library.enable_object_caching()
        super().__init__(typingctx, targetctx, library, *rest)


class _Callee(Dispatcher):
    """A function as compiled code calls it: one of ours, or of Numba's own."""

    targetdescr = _Target(_NAME)

    def compile(self, sig: Any) -> Any:
        with target_override(_NAME):
            return super().compile(sig)


def _learn_of_numba() -> None:
    """Load what Numba knows of types and operations, which it does when it first compiles, and whole.

    It counts what it has taken over before it has: Ctrl-C, or a time limit, in the middle would cost the process the
    rest for good. No signal handler runs in a thread of its own.
    """
    target = Compiled.targetdescr
    if target.knows_numba:
        return
    outcome: list[Exception | None] = []
    done: SimpleQueue[None] = SimpleQueue()

    def load() -> None:
        error = None
        try:
            with global_compiler_lock:
                if not target.knows_numba:
                    target.target_context.refresh()  # first, as it brings in modules that add to the other's
                    target.typing_context.refresh()
                    target.knows_numba = True
        except Exception as caught:
            error = caught
        outcome.append(error)
        done.put(None)

    if global_compiler_lock.is_locked():  # by this thread: another would wait for it
        load()
    else:
        try:
            threading.Thread(target=load, name="fastml_numba", daemon=True).start()
        except RuntimeError:  # the system starts no more threads, or the interpreter is shutting down
            load()
        insist(lambda: outcome or done.get())
    if outcome[0] is not None:
        raise outcome[0]


@contextlib.contextmanager
def _garbage_collected_seldom() -> Iterator[None]:
    """Let garbage lie longer: a compiler makes many objects beside the many that stay; a fifth of its time is saved."""
    thresholds = gc.get_threshold()
    if thresholds[0] > 0:
        gc.set_threshold(max(thresholds[0], _OBJECTS), *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


class Compiled(_Callee):
    """A function as Python calls it; for compiled code it has a `_Callee` beside it."""

    #: Surrounds the work of compiling.
    notice: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext

    def __init__(self, function: Any, locals: dict[str, Any], options: dict[str, Any]) -> None:
        super().__init__(function, locals, options, _WholeCompiler)
        #: Finds code that is kept for a tuple of types.
        self.load: Callable[[Any], Any] = lambda types: None

    def compile(self, sig: Any) -> Any:
        """Return the code for some types: what there is, what was kept, or what Numba makes now."""
        types, _ = sigutils.normalize_signature(sig)
        with global_compiler_lock:
            if types not in self.overloads and (loaded := self.load(types)) is not None:
                self._cache_hits[types] += 1
                self.add_overload(loaded)
            if types in self.overloads:
                return self.overloads[types].entry_point
        _learn_of_numba()
        with global_compiler_lock, self.notice(), _garbage_collected_seldom():
            return super().compile(sig)  # or what another thread has compiled meanwhile

    @cached_property
    def _callee(self) -> _Callee:
        return _Callee(self.py_func, self.locals, self.targetoptions)

    @property
    def _numba_type_(self) -> Any:
        """Tell Numba, which types what compiled code names, of the other."""
        if current_target() != _NAME:
            raise errors.NumbaNotImplementedError(
                f"{self.py_func.__qualname__} of fastml is called from Python; code that Numba compiles for users can't"
            )
        return self._callee._numba_type_


dispatcher_registry[_Fastml] = _Callee
jit_registry[_Fastml] = partial(numba.jit, _target=_NAME)


def codegen() -> Any:
    """Return what makes machine code, and runs it."""
    return Compiled.targetdescr.target_context.codegen()
