"""W4: 24 settings of mini-batch gradient descent in one sweep: start, batch size and step size.

Runs of equal batch size train together: the rows of a batch are fetched once for all of them, and one pass over the
validation set, every ten steps, evaluates all. The table says of each step size whether it was too small (the loss is
still falling in the end), good, or too large (the weights jump about, or fit the training rows alone). Default: the
tumours that come with scikit-learn. With --full: songs, batches of 100, 1,000 and 10,000; --synthetic makes rows of
their number and length.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _common import arguments, songs_or_synthetic, timed
from numpy.typing import NDArray

from fastml import DivergenceWarning, SGDClassifier, sweep
from fastml.model_selection import SweepResult

STARTS = ["zeros", "normal"]
STEPS = [1e-5, 0.01, 0.1, 1.0]
# On YearPredictionMSD, with a normal start, batches of 1,000 and a step of 1.
KNOWN = 0.7336
RUNNING_MEAN = 20


class Found(NamedTuple):
    """The sweep, and run by run the final validation loss and what the step size was."""

    result: SweepResult
    losses: NDArray[np.float64]
    kinds: list[str]


def judge(result: SweepResult) -> tuple[NDArray[np.float64], list[str]]:
    """Return the mean of the last validation losses of each run, and what its step size was.

    Good is a loss within 2 % of the least one for the same start and batch size. Of the others, steps smaller than
    that of the least loss were too small, larger ones too large.
    """
    losses = np.array([history["validation_loss"][-RUNNING_MEAN:].mean() for history in result.histories])
    losses[[status == "diverged" for status in result.statuses]] = np.inf
    kinds = []
    for params, loss in zip(result.params, losses, strict=True):
        same = [i for i, other in enumerate(result.params) if {**other, "eta0": 0} == {**params, "eta0": 0}]
        best = min(same, key=losses.__getitem__)
        if loss <= 1.02 * losses[best]:
            kinds.append("good")
        else:
            kinds.append("too small" if params["eta0"] < result.params[best]["eta0"] else "too large")
    return losses, kinds


def draw(result: SweepResult, file: Path) -> None:
    """Save the training losses of all runs, smoothed."""
    from matplotlib.figure import Figure

    sizes = sorted({params["batch_size"] for params in result.params})
    figure = Figure(figsize=(3.4 * len(sizes), 6), layout="constrained")
    panels = figure.subplots(len(STARTS), len(sizes), sharex=True, sharey="row")
    result.plot(
        panels.ravel(), quantity="train_loss", rows="init", columns="batch_size", lines="eta0",
        running_mean=RUNNING_MEAN,
    )  # fmt: skip
    figure.savefig(file, dpi=150)
    print(f"plots: {file}")


def main(argv: Sequence[str] | None = None) -> Found:
    options = arguments(__doc__, argv, _more)
    task = songs_or_synthetic(options)
    n = len(task.X_train)
    batches = [100, 1000, 10_000] if n >= 10_000 else [10, 50, 250]
    model = SGDClassifier(
        "log_loss", penalty=None, learning_rate="constant", drop_last=True, max_iter=options.steps,
        max_steps=options.steps, tol=None, evaluate_every=10, early_stopping=True,
        keep_best="last", random_state=options.seed, n_jobs=options.threads,
    )  # fmt: skip
    settings = itertools.product(STARTS, batches, STEPS)
    grid = [{"init": start, "batch_size": batch, "eta0": step} for start, batch, step in settings]
    with warnings.catch_warnings():
        # With a step of 1 a run may end far above where it began; the table says so.
        warnings.simplefilter("ignore", DivergenceWarning)
        seconds, result = timed(sweep, model, grid, task.X_train, task.t_train, task.X_val, task.t_val)
    losses, kinds = judge(result)

    print(
        f"\n{len(grid)} runs of {options.steps} steps, {seconds:.1f} s: validation loss in the end, best accuracy there"
    )
    print(f"  {'start':<7} {'batch':>6}" + "".join(f"{f'step {step:g}':>17}{'':<11}" for step in STEPS).rstrip())
    scores = result.table["validation_score"]
    for i in range(0, len(grid), len(STEPS)):
        cells = [f"{losses[j]:>10.4f} {scores[j]:.4f} {kinds[j]:<10}" for j in range(i, i + len(STEPS))]
        print(f"  {grid[i]['init']:<7} {grid[i]['batch_size']:>6}" + "".join(cells).rstrip())
    best = ", ".join(f"{name} {value}" for name, value in (result.best_params or {}).items())
    print(f"\nbest validation accuracy: {result.best_value:.4f} ({best})")
    if task.name == "YearPredictionMSD":
        print(f"published:                {KNOWN:.4f} (init normal, batch_size 1000, eta0 1)")
    print(f"on the test set:          {result.best_estimator.score(task.X_test, task.t_test):.4f}")
    if options.plot:
        draw(result, options.plot)
    return Found(result, losses, kinds)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", metavar="FILE", type=Path, help="where to save the curves (.png, .svg, .pdf)")
    parser.add_argument("--synthetic", action="store_true", help="rows of the shape of YearPredictionMSD, generated")
    parser.add_argument("--steps", type=int, default=5000, metavar="N", help="steps of each run (default: 5000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of weights and order (default: 0)")


if __name__ == "__main__":
    main()
