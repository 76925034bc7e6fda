"""W8: all distances between test and training images, as a double loop, with NumPy, and compiled.

The double loop takes any norm of a difference; NumPy and the compiled kernels have L1, L2 and L-infinity.
All three give the same matrices, of which the Frobenius norms are printed: with --full, on 500 test and
5,000 training images of CIFAR-10, they are known beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from _common import arguments, digits_or_cifar10, timed, verdict
from numpy.typing import NDArray

from fastml import kernels
from fastml.kernels.reference import loops, vectorized

NORMS: dict[str, Callable[[NDArray[Any]], float]] = {
    "l1": lambda v: np.abs(v).sum(),
    "l2": lambda v: np.sqrt(v @ v),
    "linf": lambda v: np.abs(v).max(),
}
KNOWN = {"l1": "366584605.652", "l2": "7906696.077", "linf": "343910.321"}


class Row(NamedTuple):
    """One norm: seconds of the three ways, the Frobenius norms of their results."""

    norm: str
    seconds: tuple[float, float, float]
    frobenius: tuple[str, str, str]


def distances(X: NDArray[Any], Y: NDArray[Any], n_threads: int | None = None) -> list[Row]:
    """Compute every matrix three times; X and Y are uint8."""
    rows = []
    wide_x, wide_y = X.astype(np.float64), Y.astype(np.float64)
    for name, norm in NORMS.items():
        pairwise = getattr(kernels, f"pairwise_{name}")
        pairwise(X[:1], Y[:1])  # compiles, or loads what was compiled before
        runs = [
            timed(loops.pairwise, wide_x, wide_y, norm),
            timed(getattr(vectorized, f"pairwise_{name}"), wide_x, wide_y),
            timed(pairwise, X, Y, n_threads=n_threads),
        ]
        frobenius = tuple(f"{np.linalg.norm(matrix.astype(np.float64)):.3f}" for _, matrix in runs)
        rows.append(Row(name, tuple(seconds for seconds, _ in runs), frobenius))
    return rows


def main(argv: Sequence[str] | None = None) -> list[Row]:
    options = arguments(__doc__, argv)
    dataset = digits_or_cifar10(options)
    n, m = (500, 5000) if options.full else (100, 500)
    X, Y = dataset.X_test[:n], dataset.X_train[:m]
    print(f"{n} x {m} distances over {X.shape[1]} columns")
    rows = distances(X, Y, options.threads)
    print(f"{'norm':<5} {'double loop':>12} {'NumPy':>10} {'compiled':>10}   Frobenius norm")
    for row in rows:
        loop, numpy, compiled = row.seconds
        norms = verdict(row.frobenius[2], KNOWN[row.norm] if options.full else None)
        if len(set(row.frobenius)) > 1:
            norms += f" (THE WAYS DIFFER: {', '.join(row.frobenius)})"
        print(f"{row.norm:<5} {loop:>10.2f} s {numpy * 1e3:>7.1f} ms {compiled * 1e3:>7.2f} ms   {norms}")
    any_norm = loops.pairwise(X[:2], Y[:2], lambda v: (np.abs(v) ** 3).sum() ** (1 / 3))
    print(f"and any other norm by the loop, for instance p = 3: {any_norm[0, 0]:.3f} between the first two images")
    return rows


if __name__ == "__main__":
    main()
