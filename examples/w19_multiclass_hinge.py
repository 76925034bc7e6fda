"""W19: the multiclass hinge, and data that it separates without a single error.

The loss is the mean of max_j (w_j·x − w_y·x + 1[j ≠ y]), without intercepts. It is 1 at w = 0, and every error costs
at least 1, so that the share of errors is at most the loss. Where some weights separate the classes, multiples of them
have loss 0, and descent ends there: on points around three directions, and on the images of digits. Where classes
overlap the loss stays above the share of errors. With --full: the first 5,000 images of MNIST.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from _common import arguments, digits_or_mnist, timed, verdict
from numpy.typing import NDArray

from fastml import SGDClassifier, kernels


class Row(NamedTuple):
    """Of one training: loss and errors on the training rows, and the epochs it took."""

    loss: float
    errors: int
    epochs: int


class Found(NamedTuple):
    """The largest difference from the formula, and the trainings by name of their data."""

    formula: float
    rows: dict[str, Row]


def formula(W: NDArray[Any], X: NDArray[Any], y: NDArray[np.intp]) -> float:
    """Return the loss as the formula has it, one class and row at a time."""
    worst = [max(w @ x - W[label] @ x + (j != label) for j, w in enumerate(W)) for x, label in zip(X, y, strict=True)]
    return float(np.mean(worst))


def directions(n: int, spread: float, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return points of three classes, around (1, 0) and its rotations by a third of a turn."""
    y = rng.integers(0, 3, n)
    angle = 2 * np.pi / 3 * y
    return np.column_stack([np.cos(angle), np.sin(angle)]) + rng.uniform(-spread, spread, (n, 2)), y


def train(X: NDArray[Any], y: NDArray[np.intp], options: argparse.Namespace) -> Row:
    """Descend until the loss on all rows is 0, or the epochs are over."""
    model = SGDClassifier(
        "hinge", multi_class="crammer_singer", penalty=None, fit_intercept=False, learning_rate="constant", eta0=1.0,
        batch_size=50, max_iter=options.epochs, tol=None, train_metrics="full",
        callbacks=lambda state: state.train_loss == 0, random_state=0, n_jobs=options.threads,
    ).fit(X, y)  # fmt: skip
    loss = kernels.multiclass_hinge(model.decision_function(X), y)
    return Row(loss, int(np.sum(model.predict(X) != y)), model.n_iter_)


def main(argv: Sequence[str] | None = None) -> Found:
    options = arguments(__doc__, argv, _more)
    dataset = digits_or_mnist(options)
    n = 5000 if options.full else len(dataset.X_train)
    images, labels = dataset.X_train[:n] / np.float64(255 if options.full else 16), dataset.y_train[:n]

    zero = kernels.multiclass_hinge(np.zeros((n, 10)), labels)
    print(f"\nloss at w = 0: {verdict(f'{zero:.12f}', '1.000000000000')}")
    rng = np.random.default_rng(options.seed)
    W = rng.normal(size=(10, images.shape[1]))
    known = formula(W, images[:200], labels[:200])
    difference = abs(kernels.multiclass_hinge(images[:200] @ W.T, labels[:200]) - known)
    moved = W + rng.normal(size=images.shape[1])  # the same vector for all classes
    difference = max(difference, abs(kernels.multiclass_hinge(images[:200] @ moved.T, labels[:200]) - known))
    print(f"largest difference from the formula, with w and with w + v for all classes: {difference:.1e}")

    sets = {
        "three directions": directions(2000, 0.4, rng),
        "three that overlap": directions(2000, 0.8, rng),
        f"{n:,} images": (images, labels),
    }
    print(f"\n{'':<20} {'loss':>8} {'errors':>14} {'epochs':>7}")
    rows = {}
    for name, (X, y) in sets.items():
        seconds, row = timed(train, X, y, options)
        rows[name] = row
        print(f"{name:<20} {row.loss:>8.4f} {row.errors:>6} of {len(X):>4} {row.epochs:>7}  ({seconds:.2f} s)")
    return Found(difference, rows)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--epochs", type=int, default=1000, metavar="N", help="epochs at most (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of weights and points (default: 0)")


if __name__ == "__main__":
    main()
