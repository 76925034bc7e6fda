"""What an entry is: a kernel with its inputs, its sizes, its work, its truth and the error that it may have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from .truth import Truth

Size = tuple[int, ...]

# Lengths around the width of vectors and of the tiles made from them.
TAILS = (1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 65)

EPS = {"float32": float(np.finfo(np.float32).eps), "float64": float(np.finfo(np.float64).eps)}
TINY = {"float32": float(np.finfo(np.float32).tiny), "float64": float(np.finfo(np.float64).tiny)}


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Dtypes(NamedTuple):
    """What an input dtype leads to.

    `output` is the dtype of the array that comes back (of the distances, of the gradient);
    a loss is always a Python float. `accumulator` is the dtype of the running sum: inside an inner
    loop for distances, elementwise functions and the softmax family; for losses and gradients
    across blocks of rows, whose own sums may be narrower.
    """

    accumulator: str
    output: str


class Tolerance(NamedTuple):
    """Bound on the error of a result: ``rtol · scale + atol``, and why it is that large."""

    rtol: float
    atol: float
    reason: str


@dataclass(frozen=True)
class Entry:
    """One kernel, or one variant of it, with all that is needed to run, time and judge it."""

    key: str
    function: str  # name in fastml.kernels and in both reference modules
    family: str  # what the report, the histories and the gate know it under
    formula: str
    dtypes: dict[str, Dtypes]
    sizes: dict[str, Size]  # "tiny" for tests, "default" and "full" for the report
    axes: tuple[str, ...]  # what the numbers of a size mean
    make: Callable[..., Inputs] = field(repr=False)  # make(size, dtype, regime="typical", seed=0)
    regimes: tuple[str, ...]
    work: Callable[[Size], float] = field(repr=False)  # of one call, in `unit`
    unit: str
    bytes: Callable[[Size, str], float] = field(repr=False)  # inputs read once, results written once
    flops: Callable[[Size], float] = field(repr=False)  # an exponential or a logarithm counts as one
    limit: str  # "memory" or "gemm": the limit of the machine to compare with
    tolerance: dict[str, Tolerance]
    loop_size: Size  # for timing the plain loops where the size is too much for them
    specializations: int  # compile budget: signatures over all dtypes
    truth: Callable[[Inputs], Truth] = field(repr=False)
    warm_sizes: Mapping[str, tuple[Size, ...]] = field(default_factory=dict)  # by regime: see `warm_inputs`

    def warm_inputs(self, dtype: str) -> Iterator[Inputs]:
        """Yield what reaches, with two threads, the kernels that "tiny" does not reach."""
        for regime, sizes in self.warm_sizes.items():
            for size in sizes:
                yield self.make(size, dtype, regime)

    def tier(self, name: str) -> Callable[..., Any]:
        """Return the function of a tier: "loops", "vectorized" or "compiled"."""
        if name not in ("loops", "vectorized", "compiled"):
            raise ValueError(f"name is {name!r}; it must be 'loops', 'vectorized' or 'compiled'")
        kernels = __package__.rpartition(".")[0]
        module = import_module(kernels if name == "compiled" else f"{kernels}.reference.{name}")
        function: Callable[..., Any] = getattr(module, self.function)
        return function

    def reference(self, inputs: Inputs) -> Truth:
        """Return the true outputs for `inputs`, from a plain formula in wider arithmetic.

        float64 for float32 input; long double for float64 input up to ten million terms, float64
        beyond (with pairwise sums, an order of magnitude closer than the bounds); exact integers
        for uint8.
        """
        return self.truth(inputs)

    def tail_sizes(self) -> Iterator[Size]:
        """Yield sizes in which one axis after the other takes the lengths `TAILS`."""
        base = {"n": 3, "m": 5, "d": 9, "c": 4, "k": 2, "o": 2, "h": 4}
        for axis in self.axes:
            if axis == "k":
                continue
            for length in TAILS:
                size = {name: base[name] for name in self.axes} | {axis: length}
                if "k" in size:
                    size["k"] = min(size["k"], size["m"])
                yield tuple(size.values())


# -- what entries of several families share ---------------------------------------------------------

FLOATS = {"float32": Dtypes("float32", "float32"), "float64": Dtypes("float64", "float64")}
REGIMES = ("typical", "extreme", "tails")
LOSS_REGIMES = (*REGIMES, "weighted")
INDEX_BYTES = np.dtype(np.intp).itemsize

VECTOR_SIZES: dict[str, Size] = {"tiny": (97,), "default": (1_000_000,), "full": (10_000_000,)}
MATRIX_SIZES: dict[str, Size] = {
    "tiny": (33, 10),
    "default": (20_000, 100),
    "full": (100_000, 10),
    "wide": (4_000, 1_000),
}


def itemsize(dtype: str) -> int:
    """Return the bytes of a number."""
    return np.dtype(dtype).itemsize


def tolerances(units: float, reason: str, atol: float = 1.0) -> dict[str, Tolerance]:
    """Return `units` times eps and `atol` times the smallest normal number, for both floats."""
    return {name: Tolerance(units * EPS[name], atol * TINY[name], reason) for name in EPS}


def rtol_by_dtype(tolerance: dict[str, Tolerance]) -> dict[str, float]:
    """Return the relative part of tolerances."""
    return {name: t.rtol for name, t in tolerance.items()}
