"""Fixtures shared by all tests, and the block that makes a failing test reproducible by itself.

The tests import nothing from one another: a helper that several files need is a fixture here, or stands in support/
where it is needed while tests are collected.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import signal
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

TIERS = ("loops", "vectorized", "compiled")

_TIER_MODULES = {
    "loops": "fastml.kernels.reference.loops",
    "vectorized": "fastml.kernels.reference.vectorized",
    "compiled": "fastml.kernels",
}

# A result depends on these and on nothing else of the environment.
_ENVIRONMENT_PREFIXES = ("NUMBA_", "FASTML_", "OMP_NUM_THREADS", "OPENBLAS_", "MKL_", "PYTHONHASHSEED")
_PACKAGES = ("fastml", "numpy", "numba", "llvmlite", "scipy", "scikit-learn", "pytest", "hypothesis")

_NOT_QUICK = {
    "slow": "takes more than a few seconds",
    "safety": "threads, processes, signals, damaged caches",
    "targets": "compiles for another CPU in a subprocess",
}
_MARKERS = (
    *(f"{name}: {text}" for name, text in _NOT_QUICK.items()),
    "quick: none of these; nothing is marked so by hand",
    "needs_jit: pointless or far too slow with NUMBA_DISABLE_JIT=1; skipped there",
)


def base_seed() -> int:
    """The seed of the whole run: FASTML_SEED, 0 where it is not set."""
    return int(os.environ.get("FASTML_SEED", "0"))


# What a test finds on stderr does not depend on how long the compiler takes; processes that it starts inherit this.
os.environ.setdefault("FASTML_QUIET", "1")

# Jobs that a shell starts in the background ignore Ctrl-C, and hand that on to every process they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def jit_disabled() -> bool:
    """True where Numba runs the kernels as plain Python."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")


def _environment() -> str:
    names = sorted(name for name in os.environ if name.startswith(_ENVIRONMENT_PREFIXES) and name != "FASTML_SEED")
    return " ".join([f"FASTML_SEED={base_seed()}", *(f"{name}={os.environ[name]!r}" for name in names)])


def _versions() -> str:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} (not installed)")
    return f"python {platform.python_version()}, " + ", ".join(found)


def _target() -> str:
    # Asked for only after a failure: this import is not free, and it may be the very thing that failed.
    try:
        simd = importlib.import_module("fastml.kernels.runtime.target")
        target = simd.target()
        return f"{platform.machine()}, Numba target {target.cpu}, vectors of {target.vector_bytes} bytes"
    except Exception as error:  # the report must come out whatever is broken
        return f"{platform.machine()}, Numba target unknown ({error!r})"


def reproduction(nodeid: str) -> str:
    """Everything that is needed to run one failed test again, as text."""
    return "\n".join(
        [
            f"{_environment()} {os.path.basename(sys.executable)} -m pytest '{nodeid}'",
            _versions(),
            _target(),
        ]
    )


def pytest_configure(config: pytest.Config) -> None:
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if jit_disabled():
        # Machine code says nothing of overflow and inf - inf; the same lines run as Python do.
        config.addinivalue_line("filterwarnings", "ignore::RuntimeWarning")


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [f"reproduce with: {_environment()}", f"versions: {_versions()}"]


#: Fixtures of a module that compile every kernel anew: one worker makes them, the first, while the others begin
#: with what stands behind.
_COMPILE_ALL = {"compiled_code", "loaded", "code_of_another_target"}


def _turn(item: pytest.Item) -> int:
    """Say when a test is due where several processes share the tests: what takes minutes must not begin last."""
    if _COMPILE_ALL & set(getattr(item, "fixturenames", ())):
        return 0
    return 1 if item.get_closest_marker("targets") else 2 if item.get_closest_marker("slow") else 3


def pytest_itemcollected(item: pytest.Item) -> None:
    if not any(item.get_closest_marker(name) for name in _NOT_QUICK):
        item.add_marker("quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Seeds come from names, and processes that share a run compare them.
    if unnamed := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"a test is named by an address: {unnamed[0]}")
    items.sort(key=_turn)
    if not jit_disabled():
        return
    skip = pytest.mark.skip(reason="NUMBA_DISABLE_JIT is set")
    for item in items:
        if item.get_closest_marker("needs_jit"):
            item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> object:
    report = yield
    if report.failed:
        report.sections.append(("reproduction", reproduction(item.nodeid)))
    return report


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the repository."""
    from checkout import ROOT

    return ROOT


@pytest.fixture(scope="session")
def cache_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    """``cache_for(target)``: variables with which another process compiles for a CPU that Numba knows by this name.

    All tests of a run share what is compiled so, also where they run in several processes.
    """
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return lambda target: {
        "NUMBA_CPU_NAME": target,
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(folder / f"cache of {target}"),
        "FASTML_PACK": "0",
    }


@pytest.fixture(params=TIERS)
def tier(request: pytest.FixtureRequest) -> str:
    """Each of the three tiers in turn."""
    return request.param


@pytest.fixture(scope="session")
def kernels_of() -> Callable[[str], ModuleType]:
    """``kernels_of(tier)``: the module that holds a tier's public functions."""
    return lambda tier: importlib.import_module(_TIER_MODULES[tier])


@pytest.fixture(scope="session")
def kernel() -> Callable[[str, str], Callable]:
    """``kernel(tier, name)``: one public function of one tier."""
    return lambda tier, name: getattr(importlib.import_module(_TIER_MODULES[tier]), name)


@pytest.fixture
def ops(tier: str) -> ModuleType:
    """The module of the tier under test: ``ops.hinge(z, y)``."""
    return importlib.import_module(_TIER_MODULES[tier])


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed that depends on the test's name and on FASTML_SEED only, not on the order of tests."""
    return zlib.crc32(f"{base_seed()} {request.node.name}".encode())


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """A generator of this test's own."""
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def same_bits() -> Callable[..., None]:
    """``same_bits(a, b)``: assert equal dtype, shape and bit pattern, so that -0.0 differs from 0.0.

    All NaN count as one: sign and payload of a NaN are left open by LLVM, and by IEEE 754 after an operation.
    """

    def one_nan(a: np.ndarray) -> np.ndarray:
        a = np.ascontiguousarray(a)
        return np.where(np.isnan(a), np.array(np.nan, a.dtype), a) if a.dtype.kind == "f" else a

    def check(actual: object, expected: object, note: str = "") -> None:
        actual, expected = np.asarray(actual), np.asarray(expected)
        assert actual.dtype == expected.dtype, f"{note} dtype {actual.dtype} != {expected.dtype}"
        assert actual.shape == expected.shape, f"{note} shape {actual.shape} != {expected.shape}"
        a, b = one_nan(actual), one_nan(expected)
        if a.tobytes() == b.tobytes():
            return
        as_bytes = (*a.shape, a.dtype.itemsize)
        differ = (a.view(np.uint8).reshape(as_bytes) != b.view(np.uint8).reshape(as_bytes)).any(axis=-1)
        first = tuple(int(i) for i in np.argwhere(differ)[0])
        pytest.fail(f"{note} {int(differ.sum())} of {a.size} differ, first at {first}: {a[first]!r} != {b[first]!r}")

    return check


@pytest.fixture(scope="session")
def loss_args() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """``loss_args(rng, loss, n, dtype, C)``: scores and targets of one loss, at a distance from every kink."""

    def make(
        rng: np.random.Generator, loss: str, n: int, dtype: str = "float64", C: int = 5
    ) -> tuple[np.ndarray, np.ndarray]:
        if loss in ("softmax_cross_entropy", "multiclass_hinge"):
            y = rng.integers(0, C, size=n)
            # Distinct multiples of 0.37: no two scores tie, also after 1 is added to all but the true class.
            Z = np.stack([rng.permutation(C) for _ in range(n)]) * 0.37 if n else np.empty((0, C))
            return Z.astype(dtype), y
        z = (rng.normal(size=n) * 2).astype(dtype)
        if loss == "binary_cross_entropy":
            return z, rng.uniform(size=n).astype(dtype)
        if loss in ("hinge", "squared_hinge"):
            y = rng.choice([-1.0, 1.0], size=n)
            margin = y * z
            near = np.abs(margin - 1) < 0.05
            return np.where(near, z + 0.2 * y, z).astype(dtype), y.astype(dtype)
        if loss == "poisson":
            return z, rng.poisson(2, size=n).astype(dtype)
        # Residuals at least 0.05 away from 0 (absolute error) and from ±1.35 (Huber).
        r = rng.normal(size=n) * 2
        for kink in (-1.35, 0.0, 1.35):
            r = np.where(np.abs(r - kink) < 0.05, r + 0.2, r)
        return z, (z - r).astype(dtype)

    return make
