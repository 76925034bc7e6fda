"""W14: the age from a face, by linear regression: 256 results of a sweep from 64 trainings.

The loss is half the mean square error plus λ/2 ‖w‖², the intercept stays 0.1, rows are shuffled once and then come in
the same batches every epoch. Four batch sizes × step sizes × penalties × numbers of epochs, of which the shorter ones
are checkpoints of the longest. The best result is that with the least validation loss, without penalty. The images
are generated: 48 × 48 pixels that could explain half of the variance of the age. Default: 800 training, 200 validation
and 500 test images. With --full: 3,200, 800 and 2,500.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _common import arguments, timed
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from fastml import SGDRegressor, sweep
from fastml.model_selection import SweepResult

SIDE = 48
INTERCEPT = 0.1
STEPS = (3e-8, 3e-6, 3e-5, 3e-3)
EPOCHS = (16, 32, 48, 64)
PENALTIES = (1e-7, 1e-5, 1e-3, 1e-1)
# On a set of real faces: batch, step, epochs, λ of the best result, its validation loss and its loss on the test set.
KNOWN = (160, 3e-3, 64, 1e-7, 114.33, 112.39)


class Part(NamedTuple):
    """Images as rows, and ages."""

    X: NDArray[np.float64]
    y: NDArray[np.float64]


class Found(NamedTuple):
    """The sweep, and of its best result half the mean square error on the test set, without and with penalty."""

    result: SweepResult
    test_loss: float
    penalized: float


def faces(sizes: Sequence[int], seed: int) -> list[Part]:
    """Generate ages and images: smooth patterns on a mean image, of which the first twenty depend on the age."""
    rng = np.random.default_rng(seed)
    patterns = gaussian_filter(rng.normal(size=(61, SIDE, SIDE)), (0, 4, 4)).reshape(61, -1)
    patterns /= patterns.std(axis=1, keepdims=True)
    shares = np.zeros(60)
    shares[:20] = 0.22
    parts = []
    for n in sizes:
        y = np.clip(rng.gamma(3.0, 11.0, size=n), 1, 100)
        of_age = (y - 33) / 18
        amounts = shares * of_age[:, None] + np.sqrt(1 - shares**2) * rng.normal(size=(n, 60))
        X = 0.4 + 0.1 * patterns[60] + 0.05 * amounts @ patterns[:60] + 0.03 * rng.normal(size=(n, SIDE**2))
        parts.append(Part(np.clip(X, 0, 1), y))
    return parts


def half_mse(model: Any, part: Part) -> float:
    """Return half the mean square error."""
    return float(np.mean((model.predict(part.X) + INTERCEPT - part.y) ** 2) / 2)


def draw(result: SweepResult, file: Path) -> None:
    """Save the validation losses of the longest runs with the best penalty, and the best weights as an image."""
    from matplotlib.figure import Figure

    from fastml import plot

    figure = Figure(figsize=(13, 6.5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[3, 2])
    result.plot(
        left.subplots(2, 2), quantity="validation_loss", columns="batch_size", lines="eta0", against="epoch",
        where={"max_iter": EPOCHS[-1], "alpha": result.best_params["alpha"]},
    )  # fmt: skip
    plot.weights_as_images(result.best_estimator.coef_, (SIDE, SIDE), right.subplots())
    figure.savefig(file, dpi=150)
    print(f"plots: {file}")


def main(argv: Sequence[str] | None = None) -> Found:
    options = arguments(__doc__, argv, _more)
    sizes, batches = (
        ((3200, 800, 2500), (160, 200, 400, 640)) if options.full else ((800, 200, 500), (40, 50, 100, 160))
    )
    train, val, test = faces(sizes, options.seed)
    print(f"generated: {sizes[0]:,} training, {sizes[1]:,} validation and {sizes[2]:,} test images of {SIDE} × {SIDE}")
    model = SGDRegressor(
        "squared_error", fit_intercept=False, sampling="fixed_permutation", learning_rate="constant", tol=None,
        random_state=options.seed, n_jobs=options.threads,
    )  # fmt: skip
    grid = [
        {"batch_size": batch, "eta0": step, "max_iter": epochs, "alpha": penalty}
        for batch, step, epochs, penalty in itertools.product(batches, STEPS, EPOCHS, PENALTIES)
    ]
    # An intercept that stays is the same as targets without it.
    seconds, result = timed(
        sweep, model, grid, train.X, train.y - INTERCEPT, val.X, val.y - INTERCEPT, select="validation_loss"
    )
    best, fitted = result.best_params, result.best_estimator
    test_loss = half_mse(fitted, test)
    penalized = test_loss + best["alpha"] / 2 * float(np.sum(fitted.coef_**2))

    print(f"\n{len(grid)} results, {seconds:.1f} s: the least validation loss, by batch and step")
    print(f"  {'batch':>6}" + "".join(f"{f'step {step:g}':>14}" for step in STEPS))
    losses = np.reshape(result.table["validation_loss"], (len(batches), len(STEPS), -1)).min(axis=2)
    for batch, row in zip(batches, losses, strict=True):
        print(f"  {batch:>6}" + "".join(f"{loss:>14.2f}" for loss in row))
    print(f"  (the mean age alone: {np.var(val.y) / 2:.2f})")
    titles = f"{'best':<10} {'batch':>6} {'step':>7} {'epochs':>7} {'λ':>7} {'validation':>11} {'test':>8}"
    print(f"\n{titles} {'with penalty':>13}")
    found = best["batch_size"], best["eta0"], best["max_iter"], best["alpha"], result.best_value, test_loss
    more = f"{penalized:>14.2f}", "  (on real faces)"
    for name, row, end in zip(("found", "published"), (found, KNOWN), more, strict=True):
        batch, step, epochs, penalty, validation, on_test = row
        print(f"{name:<10} {batch:>6} {step:>7g} {epochs:>7} {penalty:>7g} {validation:>11.2f} {on_test:>8.2f}{end}")
    if options.plot:
        draw(result, options.plot)
    return Found(result, test_loss, penalized)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", metavar="FILE", type=Path, help="where to save the plots (.png, .svg, .pdf)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of images and order (default: 0)")


if __name__ == "__main__":
    main()
