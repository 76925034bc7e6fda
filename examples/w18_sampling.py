"""W18: what drawing mini-batches with and without replacement does.

Drawing n of n rows with replacement misses a given one with probability (1 − 1/n)ⁿ, which tends to 1/e. The gradient of
a batch of m rows has the variance σ²/m with replacement, and that times (n − m) / (n − 1) without, where σ² is the
variance of the gradients of single rows. Both are simulated, on the gradients of a logistic regression on the tumours
that come with scikit-learn. Then whole trainings: k times the batch with k times the step runs the same way, an
epoch at a time, until the step gets too large. With --full: more draws, larger n, more seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from _common import BinaryTask, arguments, tumours_or_songs, verdict
from numpy.typing import NDArray

from fastml import SGDClassifier, kernels

BATCHES = (10, 20, 40, 80, 160)
EPOCHS = 10


class Variance(NamedTuple):
    """Of a batch of m rows: simulated over predicted variance, with and without replacement."""

    m: int
    with_replacement: float
    without: float


def missed(n: int, draws: int, rng: np.random.Generator) -> float:
    """Return the share of rows that a draw of n of n rows with replacement misses."""
    return float(np.mean([n - np.unique(rng.integers(0, n, n)).size for _ in range(draws)])) / n


def row_gradients(X: NDArray[Any], t: NDArray[Any], w: NDArray[Any]) -> NDArray[np.float64]:
    """Return the gradient of each row by itself."""
    return (kernels.sigmoid(X @ w) - t)[:, None] * X


def variances(gradients: NDArray[np.float64], draws: int, rng: np.random.Generator) -> list[Variance]:
    """Simulate the variance (summed over the coordinates) of the mean gradient of batches."""
    n = len(gradients)
    mean = gradients.mean(axis=0)
    single = float(((gradients - mean) ** 2).sum(axis=1).mean())
    found = []
    for m in (1, 5, 20, 100, n // 2):
        errors = np.empty((2, draws))
        for draw in range(draws):
            for kind, rows in enumerate((rng.integers(0, n, m), rng.permutation(n)[:m])):
                errors[kind, draw] = ((gradients[rows].mean(axis=0) - mean) ** 2).sum()
        with_replacement, without = errors.mean(axis=1)
        found.append(Variance(m, with_replacement * m / single, without * m / single * (n - 1) / (n - m)))
    return found


def trained(task: BinaryTask, batch: int, step: float, sampling: str, seeds: int) -> float:
    """Return the training loss after some epochs, the mean over seeds."""
    losses = []
    for seed in range(seeds):
        model = SGDClassifier(
            "log_loss", alpha=1e-3, learning_rate="constant", eta0=step, batch_size=batch, sampling=sampling,
            max_iter=EPOCHS, tol=None, random_state=seed,
        ).fit(task.X_train, task.t_train)  # fmt: skip
        losses.append(kernels.binary_cross_entropy(model.decision_function(task.X_train), task.t_train))
    return float(np.mean(losses))


def main(
    argv: Sequence[str] | None = None,
) -> tuple[dict[int, float], list[Variance], dict[tuple[str, str], list[float]]]:
    options = arguments(__doc__, argv)
    full, options.full = options.full, False  # the tumours, whatever the size
    task = tumours_or_songs(options)
    rng = np.random.default_rng(0)

    print(f"\nrows missed by n of n draws with replacement (1/e = {1 / math.e:.4f}):")
    shares = {}
    for n in (5, 20, 100, *((1000, 10_000) if full else ())):
        shares[n] = missed(n, 20_000 if full else 4000, rng)
        known = verdict(f"{(1 - 1 / n) ** n:.3f}", "0.358" if n == 20 else None)
        print(f"  n = {n:<6} simulated {shares[n]:.4f}, (1 − 1/n)ⁿ = {known}")

    w = rng.normal(size=task.X_train.shape[1]) / 10
    gradients = row_gradients(task.X_train, task.t_train, w)
    found = variances(gradients, 20_000 if full else 3000, rng)
    print(f"\nvariance of the gradient of m of {len(gradients)} rows, simulated over predicted:")
    print(f"  {'m':>4} {'with replacement':>17} {'without':>9}")
    for one in found:
        print(f"  {one.m:>4} {one.with_replacement:>17.3f} {one.without:>9.3f}")

    print(f"\ntraining loss after {EPOCHS} epochs, by batch and step:")
    losses: dict[tuple[str, str], list[float]] = {}
    print(f"  {'sampling':<12} {'step':<20}" + "".join(f"{f'batch {batch}':>11}" for batch in BATCHES))
    for sampling in ("permutation", "replacement"):
        for rule, factor in (("0.02 for all", 0), ("0.02 × batch / 10", 1)):
            row = [trained(task, b, 0.02 * (b / 10) ** factor, sampling, 10 if full else 3) for b in BATCHES]
            losses[sampling, rule] = row
            print(f"  {sampling:<12} {rule:<20}" + "".join(f"{loss:>11.4f}" for loss in row))
    return shares, found, losses


if __name__ == "__main__":
    main()
