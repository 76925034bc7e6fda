"""W6: what the penalty λ‖w‖² does to a logistic regression that tells 2 from 3.

Four penalties with two step sizes, in one sweep: the batches are the same, so that all runs train together. ‖w‖ falls
as λ grows. With the large step, λ = 1 is no better than guessing: the step is too large for so small weights, every
batch turns the answer over, and all images get the same one. The small step makes it learn; it is still the worst.
--plot draws the accuracies, the norms and the weights as images. With --full: MNIST.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _common import arguments, timed, two_digits

from fastml import DivergenceWarning, SGDClassifier, sweep
from fastml.model_selection import SweepResult

PENALTIES = (1.0, 0.1, 0.01, 0.001)


class Row(NamedTuple):
    """Of one run: its setting, the mean accuracy of the last ten validations, that on the test set, and ‖w‖."""

    step: float
    penalty: float
    validation: float
    test: float
    norm: float


def draw(result: SweepResult, rows: list[Row], shape: tuple[int, ...], file: Path) -> None:
    """Save accuracy curves and norms of both steps, and the weights that the small step led to."""
    from matplotlib.figure import Figure

    from fastml import plot

    figure = Figure(figsize=(12, 7), layout="constrained")
    above, below = figure.subfigures(2, 1)
    *curves, norms = above.subplots(1, 3)
    steps = sorted({row.step for row in rows}, reverse=True)
    for step, ax in zip(steps, curves, strict=True):
        runs = [i for i, row in enumerate(rows) if row.step == step]
        histories = {
            f"λ = {rows[i].penalty:g}": {
                name: values for name, values in result.histories[i].items() if not name.startswith("train")
            }
            for i in runs
        }
        plot.learning_curves(histories, [ax], quantities=["score"])
        ax.set_title(f"step {step:g}", loc="left", fontsize="medium")
        norms.loglog([rows[i].penalty for i in runs], [rows[i].norm for i in runs], "o-", label=f"step {step:g}")
    norms.set_xlabel("λ")
    norms.set_ylabel("‖w‖")
    norms.legend(frameon=False)
    small = [i for i, row in enumerate(rows) if row.step == steps[-1]]
    weights = np.array([result.estimators[i].coef_[0, 1:] for i in small])
    below.suptitle(f"weights, step {steps[-1]:g}")
    plot.weights_as_images(
        weights, shape, below.subplots(1, len(small)), labels=[f"λ = {rows[i].penalty:g}" for i in small]
    )
    figure.savefig(file, dpi=150)
    print(f"plots: {file}")


def main(argv: Sequence[str] | None = None) -> list[Row]:
    options = arguments(__doc__, argv, _more)
    task, shape = two_digits(options)
    batch, steps = (128, (0.3, 0.03)) if options.full else (20, (0.5, 0.05))
    model = SGDClassifier(
        "log_loss", fit_intercept=False, sampling="sequential", learning_rate="constant", batch_size=batch,
        max_iter=options.epochs, tol=None, evaluations_per_epoch=5, n_jobs=options.threads,
    )  # fmt: skip
    grid = [{"eta0": step, "alpha": 2 * penalty} for step in steps for penalty in PENALTIES]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DivergenceWarning)  # of the large step with λ = 1, which is there to be seen
        seconds, result = timed(sweep, model, grid, task.X_train, task.t_train, task.X_val, task.t_val)
    rows = [
        Row(
            step=params["eta0"],
            penalty=params["alpha"] / 2,
            validation=float(history["validation_score"][-10:].mean()),
            test=float(fitted.score(task.X_test, task.t_test)),
            norm=float(np.linalg.norm(fitted.coef_)),
        )
        for params, history, fitted in zip(result.params, result.histories, result.estimators, strict=True)
    ]
    print(f"\n{len(grid)} runs of {options.epochs} epochs, {seconds:.2f} s:")
    print(f"  {'step':>5} {'λ':>6} {'accuracy: validation':>21} {'test':>7} {'‖w‖':>7}")
    for row in rows:
        print(f"  {row.step:>5g} {row.penalty:>6g} {row.validation:>21.4f} {row.test:>7.4f} {row.norm:>7.3f}")
    share = float(task.t_test.mean())
    print(f"(the more frequent digit alone: {max(share, 1 - share):.4f} of the test set)")
    if options.plot:
        draw(result, rows, shape, options.plot)
    return rows


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", metavar="FILE", type=Path, help="where to save the plots (.png, .svg, .pdf)")
    parser.add_argument("--epochs", type=int, default=30, metavar="N", help="passes over the rows (default: 30)")


if __name__ == "__main__":
    main()
