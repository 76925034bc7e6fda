"""W3: logistic regression by mini-batch gradient descent, with the best validation weights kept.

Every epoch has a new order of the rows and leaves out its last batch if that is not full. Every ten steps loss and
accuracy are taken on the batch and on the whole validation set; the model keeps the weights that were best there, of
equally good ones the last. Beside it stands scikit-learn's LogisticRegression without penalty. Default: the tumours
that come with scikit-learn. With --full: songs, batches of 1,000; --synthetic makes rows of their number and length.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _common import BinaryTask, arguments, songs_or_synthetic, timed
from sklearn.linear_model import LogisticRegression

from fastml import SGDClassifier

# Accuracy in training, validation and test on YearPredictionMSD.
KNOWN = {"mini-batches": (0.7337, 0.7322, 0.7277), "scikit-learn": (0.7332, 0.7305, 0.7267)}
EVERY = 10


class Found(NamedTuple):
    """The model with its history, and accuracies on training, validation and test set."""

    model: SGDClassifier
    accuracies: dict[str, tuple[float, ...]]


def accuracies(model: Any, task: BinaryTask) -> tuple[float, ...]:
    """Return the share of right answers in each part."""
    parts = (task.X_train, task.t_train), (task.X_val, task.t_val), (task.X_test, task.t_test)
    return tuple(float(model.score(X, t)) for X, t in parts)


def draw(model: SGDClassifier, file: Path) -> None:
    """Save loss and accuracy as they developed."""
    from matplotlib.figure import Figure

    from fastml import plot

    figure = Figure(figsize=(10, 4), layout="constrained")
    plot.learning_curves(model, figure.subplots(1, 2), against="step", running_mean=20)
    figure.savefig(file, dpi=150)
    print(f"plots: {file}")


def main(argv: Sequence[str] | None = None) -> Found:
    options = arguments(__doc__, argv, _more)
    task = songs_or_synthetic(options)
    batch = options.batch or (1000 if len(task.X_train) > 5000 else 50)
    model = SGDClassifier(
        "log_loss", penalty=None, init="normal", learning_rate="constant", eta0=options.step,
        batch_size=batch, drop_last=True, max_iter=options.steps, max_steps=options.steps, tol=None,
        evaluate_every=EVERY, train_metrics="batch", early_stopping=True, keep_best="last",
        random_state=options.seed, n_jobs=options.threads,
    )  # fmt: skip
    seconds, _ = timed(model.fit, task.X_train, task.t_train, X_val=task.X_val, y_val=task.t_val)
    library = LogisticRegression(C=np.inf, max_iter=1000)
    their_seconds, _ = timed(library.fit, task.X_train, task.t_train)

    print(f"\n{options.steps} steps of {options.step:g} on batches of {batch} rows:")
    print(f"  {'step':>6} {'loss':>15} {'accuracy':>17}  (batch, validation)")
    history = model.history_
    rows = len(history["step"])
    for i in sorted(
        {*np.geomspace(1, rows, 8).astype(int) - 1, int(np.flatnonzero(history["step"] == model.best_step_)[0])}
    ):
        step, *figures = (
            history[name][i] for name in ("step", "train_loss", "validation_loss", "train_score", "validation_score")
        )
        best = "  kept" if step == model.best_step_ else ""
        print(f"  {step:>6} {figures[0]:>7.4f} {figures[1]:>7.4f} {figures[2]:>9.4f} {figures[3]:>7.4f}{best}")

    found = {"mini-batches": accuracies(model, task), "scikit-learn": accuracies(library, task)}
    print(f"\n{'accuracy':<14} {'training':>10} {'validation':>10} {'test':>10}")
    for (name, shares), time in zip(found.items(), (seconds, their_seconds), strict=True):
        print(f"{name:<14} " + " ".join(f"{share:>10.4f}" for share in shares) + f"  {time:.2f} s")
        if task.name == "YearPredictionMSD":
            print(f"{'  published':<14} " + " ".join(f"{share:>10.4f}" for share in KNOWN[name]))
    share = float(task.t_test.mean())
    print(f"(the more frequent class alone: {max(share, 1 - share):.4f} of the test set)")
    if options.plot:
        draw(model, options.plot)
    return Found(model, found)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", metavar="FILE", type=Path, help="where to save the curves (.png, .svg, .pdf)")
    parser.add_argument("--synthetic", action="store_true", help="rows of the shape of YearPredictionMSD, generated")
    parser.add_argument("--batch", type=int, metavar="N", help="rows of a batch (default: 50, of many rows 1000)")
    parser.add_argument("--step", type=float, default=0.1, metavar="S", help="step size (default: 0.1)")
    parser.add_argument("--steps", type=int, default=5000, metavar="N", help="number of steps (default: 5000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of weights and order (default: 0)")


if __name__ == "__main__":
    main()
