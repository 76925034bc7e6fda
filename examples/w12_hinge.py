"""W12: a linear classifier by the hinge loss and its subgradient.

The loss is the mean of max(0, 1 − y (wᵀx + b)) with labels −1 and +1. A row takes part in the subgradient if its
margin is below 1, and at exactly 1 it does not. At w = 0, b = 1 all rows of class +1 stand on that kink: their slopes
depend on the side, which `check_gradient` tells from an error. Then subgradient descent, with steps that fall as 1/√t.
With --full: songs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from _common import arguments, timed, tumours_or_songs, verdict
from numpy.typing import NDArray

from fastml import check_gradient, kernels
from fastml.inspection import GradientCheck


class Found(NamedTuple):
    """What the job found."""

    formula: float
    smooth: GradientCheck
    at_kink: GradientCheck
    losses: NDArray[np.float64]
    accuracy: float


def formula(X: NDArray[Any], y: NDArray[Any], w: NDArray[Any], b: float) -> tuple[float, NDArray[Any], float]:
    """Return loss and subgradient as the formula has them."""
    margin = y * (X @ w + b)
    inside = margin < 1
    return (
        float(np.maximum(0, 1 - margin).mean()),
        -(X * (y * inside)[:, None]).mean(axis=0),
        -float((y * inside).mean()),
    )


def descend(
    X: NDArray[Any], y: NDArray[Any], steps: int, n_threads: int | None = None
) -> tuple[NDArray[Any], float, NDArray[np.float64]]:
    """Return weights and intercept after subgradient descent on all rows, and the losses on the way."""
    w, b, losses = np.zeros(X.shape[1], X.dtype), 0.0, np.empty(steps)
    for i in range(steps):
        losses[i], dw, db = kernels.linear_loss_gradient("hinge", X, y, w, b, n_threads=n_threads)
        step = 1 / np.sqrt(1 + i)
        w, b = w - X.dtype.type(step) * dw, b - step * db
    return w, b, losses


def main(argv: Sequence[str] | None = None) -> Found:
    options = arguments(__doc__, argv, _more)
    task = tumours_or_songs(options)
    X, y = task.X_train, 2.0 * task.t_train - 1

    zero = kernels.linear_loss_gradient("hinge", X, y, np.zeros(X.shape[1]), 0.0)[0]
    print(f"loss at w = 0, b = 0: {verdict(f'{zero:.12f}', '1.000000000000')}")
    rng = np.random.default_rng(options.seed)
    w, b = rng.normal(size=X.shape[1]), float(rng.normal())
    ours, known = kernels.linear_loss_gradient("hinge", X, y, w, b), formula(X, y, w, b)
    difference = max(float(np.abs(a - c).max()) for a, c in zip(ours, known, strict=True))
    print(f"largest difference from the formula at random weights: {difference:.1e}\n")

    some: dict[str, Any] = {"X": X[:50], "y": y[:50]}
    smooth = check_gradient("hinge", **some, W=w, b=b)
    print(smooth)
    at_kink = check_gradient("hinge", **some, W=np.zeros(X.shape[1]), b=1.0)
    print(f"\n{at_kink}\n")

    seconds, (w, b, losses) = timed(descend, X, y, options.steps, options.threads)
    accuracy = float(np.mean((task.X_test @ w + b >= 0) == task.t_test))
    print(f"{options.steps} steps in {seconds:.2f} s: loss {losses[0]:.4f} to {losses[-1]:.4f}")
    print(f"right on the test set: {accuracy:.4f}")
    print(f"(the more frequent class alone: {max(np.mean(task.t_test), 1 - np.mean(task.t_test)):.4f})")
    return Found(difference, smooth, at_kink, losses, accuracy)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=500, metavar="N", help="steps of descent (default: 500)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the weights (default: 0)")


if __name__ == "__main__":
    main()
