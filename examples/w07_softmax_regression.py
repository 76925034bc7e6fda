"""W7: softmax regression on digits, with a constant feature in place of an intercept.

The cost is the cross-entropy averaged over rows and classes plus λ‖W‖², penalising all columns. In terms of
`SGDClassifier`, whose loss is averaged over rows alone: alpha = 2 C λ, and a step of μ / C. Its gradient is checked by
central differences with ε = 0.01 on every weight: the errors stay below ε². Then training on batches in stored order,
for λ = 0 and 0.1; --plot draws the weights of all classes as images. With --full: MNIST.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _common import arguments, digits_or_mnist, timed
from numpy.typing import NDArray

from fastml import SGDClassifier, check_gradient, kernels
from fastml.inspection import GradientCheck

STEPS = {0.0: 5.0, 0.1: 0.5}  # λ: μ; a step must stay well below 1 / (2 λ)
EPSILON = 0.01
CHECKED_ROWS = 100


class Trained(NamedTuple):
    """One training: the weights, cross-entropy over N C and accuracy on training, validation and test set."""

    coef: NDArray[Any]
    costs: tuple[float, ...]
    accuracies: tuple[float, ...]


def with_constant(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return pixels from 0 to 1 behind a column of ones."""
    return np.column_stack([np.ones(len(pixels)), pixels / np.float64(255 if pixels.max() > 16 else 16)])


def check_cost(X: NDArray[Any], y: NDArray[np.intp], penalty: float, seed: int = 0) -> GradientCheck:
    """Check the gradient of the cost over N C at small random weights, all of them."""
    classes = 10
    zeros = np.zeros(classes)

    def cost(W: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        entropy, dW, _ = kernels.linear_loss_gradient("softmax_cross_entropy", X, y, W, zeros)
        return entropy / classes + penalty * float(np.sum(W**2)), dW / classes + 2 * penalty * W

    W = 0.1 * np.random.default_rng(seed).normal(size=(classes, X.shape[1]))
    return check_gradient(cost, W, step=EPSILON)


def train(
    parts: Sequence[tuple[NDArray[Any], NDArray[np.intp]]], penalty: float, options: argparse.Namespace
) -> Trained:
    """Train on the first part, and judge by all."""
    X, y = parts[0]
    classes = 10
    model = SGDClassifier(
        "log_loss", multi_class="multinomial", fit_intercept=False, alpha=2 * classes * penalty,
        learning_rate="constant", eta0=STEPS[penalty] / classes, batch_size=options.batch, sampling="sequential",
        max_iter=options.epochs, tol=None, n_jobs=options.threads,
    ).fit(X, y)  # fmt: skip
    scores = [model.decision_function(X) for X, _ in parts]
    costs = [kernels.softmax_cross_entropy(Z, y) / classes for Z, (_, y) in zip(scores, parts, strict=True)]
    accuracies = [float(np.mean(Z.argmax(axis=1) == y)) for Z, (_, y) in zip(scores, parts, strict=True)]
    return Trained(model.coef_, tuple(costs), tuple(accuracies))


def draw(trained: dict[float, Trained], shape: tuple[int, ...], file: Path) -> None:
    """Save the weights of all classes for each λ, without those of the constant."""
    from matplotlib.figure import Figure

    from fastml import plot

    figure = Figure(figsize=(9, 3.9 * len(trained)), layout="constrained")
    for part, (penalty, one) in zip(figure.subfigures(len(trained), 1), trained.items(), strict=True):
        part.suptitle(f"λ = {penalty:g}")
        plot.weights_as_images(one.coef[:, 1:], shape, part.subplots(2, 5), labels=range(10))
    figure.savefig(file, dpi=150)
    print(f"plots: {file}")


def main(argv: Sequence[str] | None = None) -> tuple[list[GradientCheck], dict[float, Trained]]:
    options = arguments(__doc__, argv, _more)
    dataset = digits_or_mnist(options)
    X, y = with_constant(dataset.X_train), dataset.y_train
    n = len(X) * 5 // 6
    parts = [(X[:n], y[:n]), (X[n:], y[n:]), (with_constant(dataset.X_test), dataset.y_test)]

    checks = []
    for penalty in STEPS:
        seconds, check = timed(check_cost, X[:CHECKED_ROWS], y[:CHECKED_ROWS], penalty)
        within = "within" if check.max_error <= EPSILON**2 else "DIFFERS by more than"
        print(f"λ = {penalty:<4g} gradient in all {check.n_coordinates} weights, ε = {EPSILON}: ", end="")
        print(f"largest error {check.max_error:.1e}, {within} ε² ({seconds:.1f} s)")
        checks.append(check)

    print(f"\n{'':<10} {'training':>18} {'validation':>18} {'test':>18}")
    trained = {}
    for penalty in STEPS:
        seconds, one = timed(train, parts, penalty, options)
        columns = [f"{cost:>10.4f} {share:>7.4f}" for cost, share in zip(one.costs, one.accuracies, strict=True)]
        print(f"λ = {penalty:<6g} {' '.join(columns)}  cost over N C, accuracy ({seconds:.1f} s)")
        trained[penalty] = one
    if options.plot:
        draw(trained, dataset.image_shape, options.plot)
    return checks, trained


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", metavar="FILE", type=Path, help="where to save the images (.png, .svg, .pdf)")
    parser.add_argument("--batch", type=int, default=100, metavar="N", help="rows of a batch (default: 100)")
    parser.add_argument("--epochs", type=int, default=20, metavar="N", help="passes over the rows (default: 20)")


if __name__ == "__main__":
    main()
