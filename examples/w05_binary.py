"""W5: is it a 2 or a 3? Logistic regression with a penalty, validated five times an epoch, that stops early.

The penalty is λ‖w‖², so alpha = 2λ. A constant feature takes the place of an intercept and is penalised with the rest;
--intercept has a separate one. The gradient of one row is −(y − p) x. Batches come in stored order; training ends when
the loss on the validation set has hardly fallen for ten validations, and the best weights are kept. With --full: MNIST.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _common import BinaryTask, arguments, timed, two_digits

from fastml import SGDClassifier, kernels

PATIENCE = 10


class Found(NamedTuple):
    """The largest difference from the formula of the gradient, the model, and its accuracy on the test set."""

    formula: float
    model: SGDClassifier
    accuracy: float


def check(task: BinaryTask, penalty: float, seed: int) -> float:
    """Return the largest difference of the gradient on 100 rows from the formula."""
    X, y = task.X_train[:100], task.t_train[:100]
    w = 0.1 * np.random.default_rng(seed).normal(size=X.shape[1])
    _, dw, _ = kernels.linear_loss_gradient("binary_cross_entropy", X, y, w, 0.0, l2=2 * penalty)
    p = 1 / (1 + np.exp(-X @ w))
    formula = np.mean([-(y[i] - p[i]) * X[i] for i in range(len(X))], axis=0) + 2 * penalty * w
    return float(np.abs(dw - formula).max())


def draw(model: SGDClassifier, file: Path) -> None:
    """Save loss and accuracy as they developed."""
    from matplotlib.figure import Figure

    from fastml import plot

    figure = Figure(figsize=(10, 4), layout="constrained")
    plot.learning_curves(model, figure.subplots(1, 2))
    figure.savefig(file, dpi=150)
    print(f"plots: {file}")


def main(argv: Sequence[str] | None = None) -> Found:
    options = arguments(__doc__, argv, _more)
    task, _ = two_digits(options, constant=not options.intercept)
    difference = check(task, options.penalty, 0)
    print(f"{len(task.X_train):,} training, {len(task.X_val):,} validation and {len(task.X_test):,} test images")
    print(f"\nlargest difference of the gradient from −(y − p) x + 2λw: {difference:.1e}")

    batch = options.batch or (128 if options.full else 20)
    model = SGDClassifier(
        "log_loss", alpha=2 * options.penalty, fit_intercept=options.intercept, sampling="sequential",
        learning_rate="constant", eta0=options.step, batch_size=batch, evaluations_per_epoch=5,
        early_stopping=True, scoring="loss", n_iter_no_change=PATIENCE, tol=1e-4, train_metrics="full",
        n_jobs=options.threads,
    )  # fmt: skip
    seconds, _ = timed(model.fit, task.X_train, task.t_train, X_val=task.X_val, y_val=task.t_val)
    history = model.history_
    best = int(np.flatnonzero(history["step"] == model.best_step_)[0])
    print(f"\nλ = {options.penalty:g}, step {options.step:g}, batches of {batch}, {seconds:.2f} s:")
    print(f"  {'epoch':>6} {'loss':>15} {'accuracy':>17}  (training, validation)")
    shown = {*np.linspace(0, len(history["step"]) - 1, 9).astype(int).tolist(), best}
    for i in sorted(shown):
        losses = f"{history['train_loss'][i]:>7.4f} {history['validation_loss'][i]:>7.4f}"
        scores = f"{history['train_score'][i]:>9.4f} {history['validation_score'][i]:>7.4f}"
        print(f"  {history['epoch'][i]:>6.1f} {losses} {scores}{'  kept' if i == best else ''}")
    accuracy = float(model.score(task.X_test, task.t_test))
    print(f"right on the test set: {accuracy:.4f}")
    if options.plot:
        draw(model, options.plot)
    return Found(difference, model, accuracy)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", metavar="FILE", type=Path, help="where to save the curves (.png, .svg, .pdf)")
    parser.add_argument("--intercept", action="store_true", help="a separate intercept, without penalty")
    parser.add_argument("--penalty", type=float, default=0.001, metavar="L", help="λ (default: 0.001)")
    parser.add_argument("--step", type=float, default=0.1, metavar="S", help="step size (default: 0.1)")
    parser.add_argument("--batch", type=int, metavar="N", help="rows of a batch (default: 20, of MNIST 128)")


if __name__ == "__main__":
    main()
