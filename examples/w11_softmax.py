"""W11: a linear softmax classifier for images, trained on batches drawn with replacement.

The mean training image is subtracted from all images, a constant feature takes the place of an intercept, and weights
begin near 0, so that the loss begins near the logarithm of the number of classes. The gradient is checked in some
weights; then 1,500 steps on batches of 200 with a small step, and a sweep over step sizes: some that are too large, and
better ones. Default: digits. With --full: CIFAR-10, of whose training images the last 1,000 validate.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _common import arguments, digits_or_cifar10, timed
from numpy.typing import NDArray

from fastml import DivergenceWarning, SGDClassifier, check_gradient, sweep
from fastml.datasets import Dataset
from fastml.inspection import GradientCheck
from fastml.model_selection import SweepResult

LAST = 100  # steps whose mean loss is the loss in the end


class Steps(NamedTuple):
    """Step sizes for one kind of images: that of the first training, too large ones, and better ones."""

    first: float
    large: tuple[float, ...]
    better: tuple[float, ...]


# Pixels of CIFAR-10 go to 255, those of digits to 16; and CIFAR-10 has more of them.
STEPS = {
    "CIFAR-10": Steps(1e-7, (1e-5, 5e-5, 1e-4, 5e-4, 1e-3), (1e-7, 3e-7, 1e-6)),
    "digits": Steps(2e-4, (0.05, 0.1, 0.2, 1.0, 2.0), (2e-4, 1e-3, 5e-3)),
}
# Accuracy on the validation set of CIFAR-10 after training on 49,000 images with the steps that are too large, and
# after the best of them on the test set; and where the loss ended with the first step.
KNOWN = (0.292, 0.279, 0.280, 0.265, 0.294)
KNOWN_TEST = 0.28
KNOWN_LOSS = (1.79, 1.98)


class Parts(NamedTuple):
    """Rows and labels, prepared."""

    X: NDArray[np.float32]
    y: NDArray[np.intp]
    X_val: NDArray[np.float32]
    y_val: NDArray[np.intp]
    X_test: NDArray[np.float32]
    y_test: NDArray[np.intp]


class Found(NamedTuple):
    """The check, the first loss and that of the last steps, and the sweep."""

    check: GradientCheck
    first_loss: float
    last_loss: float
    result: SweepResult


def prepare(dataset: Dataset, full: bool) -> Parts:
    """Return the parts without the mean training image, and with a constant."""
    n_val, n_test = (1000, 1000) if full else (287, 360)
    mean = dataset.X_train[:-n_val].mean(axis=0)

    def rows(pixels: NDArray[Any]) -> NDArray[np.float32]:
        return np.column_stack([pixels - mean, np.ones(len(pixels))]).astype(np.float32)

    X, y = rows(dataset.X_train), dataset.y_train
    X_test, y_test = rows(dataset.X_test[:n_test]), dataset.y_test[:n_test]
    return Parts(X[:-n_val], y[:-n_val], X[-n_val:], y[-n_val:], X_test, y_test)


def check_some(parts: Parts, seed: int) -> GradientCheck:
    """Check the gradient in 50 weights, in float64, on 500 rows."""
    rng = np.random.default_rng(seed)
    W = 1e-4 * rng.normal(size=(10, parts.X.shape[1]))
    return check_gradient(
        "softmax_cross_entropy", X=parts.X[:500].astype(np.float64), y=parts.y[:500], W=W, b=np.zeros(10),
        coordinates=rng.choice(W.size, 50, replace=False),
    )  # fmt: skip


def draw(result: SweepResult, dataset: Dataset, file: Path) -> None:
    """Save the weights of the best model as images, what the step size does, and the loss of the smallest step."""
    from matplotlib.figure import Figure

    from fastml import plot

    figure = Figure(figsize=(10, 9), layout="constrained")
    grid = figure.add_gridspec(4, 10)
    left, right = figure.add_subplot(grid[2:, :5]), figure.add_subplot(grid[2:, 5:])
    plot.score_against(result, "eta0", left)
    plot.learning_curves(result.estimators[0], [right], quantities=["loss"], against="step", running_mean=10)
    images = [figure.add_subplot(grid[i // 5, 2 * (i % 5) : 2 * (i % 5) + 2]) for i in range(10)]
    plot.weights_as_images(
        result.best_estimator.coef_[:, :-1], dataset.image_shape, images, labels=dataset.target_names
    )
    figure.savefig(file, dpi=150)
    print(f"plots: {file}")


def main(argv: Sequence[str] | None = None) -> Found:
    options = arguments(__doc__, argv, _more)
    dataset = digits_or_cifar10(options, batches=None)
    name, parts = dataset.name, prepare(dataset, options.full)
    steps = STEPS[name]
    check = check_some(parts, options.seed)
    print(f"\ngradient in {len(check.coordinates)} of {10 * parts.X.shape[1]:,} weights: ", end="")
    within = "at most" if check.max_relative_error <= 1e-6 else "DIFFERS by more than"
    print(f"relative error {check.max_relative_error:.1e}, {within} 1e-6")

    model = SGDClassifier(
        "log_loss", penalty=None, fit_intercept=False, init="normal", init_scale=1e-4, learning_rate="constant",
        eta0=steps.first, batch_size=200, sampling="replacement", max_iter=options.steps, max_steps=options.steps,
        tol=None, evaluate_every=1, random_state=options.seed, n_jobs=options.threads,
    )  # fmt: skip
    seconds, _ = timed(model.fit, parts.X, parts.y)
    losses = model.history_["train_loss"]
    last_loss = float(losses[-LAST:].mean())
    print(f"\n{options.steps} steps of {steps.first:g} on batches of {model.batch_size}, {seconds:.2f} s:")
    print(f"  loss of the first batch {losses[0]:.4f} (ln 10 = {math.log(10):.4f})")
    print(f"  mean of the last {LAST} {last_loss:.4f}")
    if name == "CIFAR-10":
        print(f"  published {KNOWN_LOSS[0]} to {KNOWN_LOSS[1]}, on 49,000 images")

    model.set_params(evaluate_every=10)
    with warnings.catch_warnings():
        # Losses that end far above the first one are what the larger steps are here for.
        warnings.simplefilter("ignore", DivergenceWarning)
        seconds, result = timed(
            sweep, model, {"eta0": [*steps.better, *steps.large]}, parts.X, parts.y, parts.X_val, parts.y_val
        )
    print(f"\n{len(result.params)} step sizes, {seconds:.1f} s:")
    known = dict(zip(steps.large, KNOWN, strict=True)) if name == "CIFAR-10" else {}
    print(f"  {'step':>6} {'training loss':>14} {'validation accuracy':>20}" + (f" {'published':>10}" if known else ""))
    for params, history in zip(result.params, result.histories, strict=True):
        step = params["eta0"]
        loss, score = history["train_loss"][-LAST // 10 :].mean(), history["validation_score"][-1]
        print(f"  {step:>6g} {loss:>14.4f} {score:>20.3f}" + (f" {known[step]:>10.3f}" if step in known else ""))
    print(f"best: step {result.best_params['eta0']:g}, ", end="")
    print(f"right on the test set: {result.best_estimator.score(parts.X_test, parts.y_test):.3f}", end="")
    print(f" (published, of the large steps: {KNOWN_TEST})" if known else "")
    if options.plot:
        draw(result, dataset, options.plot)
    return Found(check, float(losses[0]), last_loss, result)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", metavar="FILE", type=Path, help="where to save the plots (.png, .svg, .pdf)")
    parser.add_argument("--steps", type=int, default=1500, metavar="N", help="steps of each training (default: 1500)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of weights and batches (default: 0)")


if __name__ == "__main__":
    main()
