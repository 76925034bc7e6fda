"""W21: networks. The larger of two numbers from four units, and what the step size does to a network of digits.

A network with four hidden ReLU units computes max(x, y) exactly, up to rounding. Then one with 40 hidden units learns
to read digits from batches of 10, with steps from 0.001 to 100: too small, good, and too large. Default: scikit-learn's
digits, 10 epochs. With --full: 10,000 images of MNIST, 30 epochs; --images 50000 takes so many. Then one with a wide
layer, of 100 units, or with --full of 800 and from 50,000 images: what its units look at, and what it gets wrong.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _common import arguments, digits_or_mnist, timed
from numpy.typing import NDArray

from fastml import DivergenceWarning, MLPClassifier, kernels

STEPS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
# Accuracy on the test images of MNIST with a step of 0.1 after 30 epochs on 50,000 images.
KNOWN_OF_50_000 = 0.9423
# The same of 800 units.
KNOWN_OF_800_UNITS = 0.9617

#: Weights and intercepts of four hidden units, and of the sum of what they say.
LARGER_OF_TWO = np.concatenate([np.ravel([[1, 1], [-1, -1], [1, -1], [-1, 1]]), np.zeros(4), [0.5, -0.5, 0.5, 0.5, 0]])


class Found(NamedTuple):
    """Largest error of the maximum, relative to |x| + |y|; a network for each step size; a wide one."""

    error: float
    models: dict[float, MLPClassifier]
    wide: MLPClassifier
    wide_accuracy: float


def error_of_maximum(seed: int) -> float:
    """Return the largest error of the network that computes max(x, y), relative to |x| + |y|."""
    rng = np.random.default_rng(seed)
    pairs = rng.normal(size=(100_000, 2)) * 10.0 ** rng.integers(-6, 7, size=(100_000, 1))
    larger = kernels.network_scores(pairs, LARGER_OF_TWO, (2, 4, 1))[:, 0]
    return float((np.abs(larger - pairs.max(axis=1)) / np.abs(pairs).sum(axis=1)).max())


def train(step: float, parts: tuple[NDArray[Any], ...], epochs: int, seed: int, n_threads: int | None) -> MLPClassifier:
    """Return a network that has been trained with steps of one size."""
    X, y, X_test, y_test = parts
    model = MLPClassifier(
        (40,), solver="sgd", momentum=0.0, alpha=0.0, learning_rate_init=step, batch_size=10, max_iter=epochs, tol=None,
        train_metrics="full", random_state=seed, n_jobs=n_threads,
    )  # fmt: skip
    with warnings.catch_warnings():
        # That large steps diverge is what they are here for.
        warnings.simplefilter("ignore", DivergenceWarning)
        return model.fit(X, y, X_val=X_test, y_val=y_test)


def train_wide(
    units: int, parts: tuple[NDArray[Any], ...], epochs: int, seed: int, n_threads: int | None
) -> MLPClassifier:
    """Return a network with one wide layer, trained with momentum and steps that fall."""
    X, y, X_test, y_test = parts
    model = MLPClassifier(
        (units,), solver="sgd", momentum=0.9, alpha=0.0, dropout=0.2, learning_rate=lambda t: 0.05 / (1 + t / 5000),
        batch_size=min(128, len(X) // 40), max_iter=epochs, tol=None, random_state=seed, n_jobs=n_threads,
    )  # fmt: skip
    return model.fit(X, y, X_val=X_test, y_val=y_test)


def draw_wide(model: MLPClassifier, X: NDArray[Any], y: NDArray[Any], shape: tuple[int, ...], file: Path) -> None:
    """Save the weights of the units with the largest ones as images, and the surest errors."""
    from matplotlib.figure import Figure

    from fastml import plot

    figure = Figure(figsize=(11, 5), layout="constrained")
    plot.weights_as_images(model, shape, figure.subplots(4, 10), most=40)
    weights = file.with_stem(f"{file.stem}-weights")
    figure.savefig(weights, dpi=150)
    found = model.predict(X)
    wrong = min(20, int((found != y).sum()))
    if not wrong:
        print(f"weights: {weights}; nothing is misclassified")
        return
    figure = Figure(figsize=(8, 7), layout="constrained")
    panels = figure.subplots(4, 5).ravel()
    for ax in panels[wrong:]:
        ax.set_axis_off()
    plot.misclassified(X, y, found, shape, panels[:wrong], confidence=model.predict_proba(X))
    errors = file.with_stem(f"{file.stem}-errors")
    figure.savefig(errors, dpi=150)
    print(f"weights: {weights}, errors: {errors}")


def draw(models: dict[float, MLPClassifier], file: Path) -> None:
    """Save training accuracy, training loss and test accuracy of all step sizes."""
    from matplotlib.figure import Figure

    from fastml import plot

    figure = Figure(figsize=(14, 4), layout="constrained")
    panels = figure.subplots(1, 3)
    shown = (("score", "train_score", "training accuracy"), ("loss", "train_loss", "training loss"))
    shown += (("score", "validation_score", "test accuracy"),)
    for ax, (quantity, column, title) in zip(panels, shown, strict=True):
        histories = {
            f"step {step:g}": {"epoch": model.history_["epoch"], column: model.history_[column]}
            for step, model in models.items()
        }
        plot.learning_curves(histories, ax, quantities=[quantity])
        ax.set_ylabel(title)
    panels[1].set_yscale("log")
    for ax in panels[:2]:
        ax.get_legend().remove()
    panels[2].get_legend().set_title(None)  # no line is dashed here
    figure.savefig(file, dpi=150)
    print(f"plots: {file}")


def main(argv: Sequence[str] | None = None) -> Found:
    options = arguments(__doc__, argv, _more)
    error = error_of_maximum(options.seed)
    print(f"four hidden units compute max(x, y) to {error:.1e} of |x| + |y|, ", end="")
    print("a rounding or two\n" if error <= 4 * np.finfo(np.float64).eps else "which DIFFERS by more than rounding\n")

    dataset = digits_or_mnist(options)
    n = (options.images or 10_000) if options.full else len(dataset.X_train)
    epochs = options.epochs or (30 if options.full else 10)
    brightest = np.float32(255 if options.full else 16)
    X, X_test = (part.astype(np.float32) / brightest for part in (dataset.X_train[:n], dataset.X_test))
    parts = X, dataset.y_train[:n], X_test, dataset.y_test
    print(f"\n{X.shape[1]}-40-10, {n:,} images, batches of 10, {epochs} epochs:")
    print(f"  {'step':>6} {'seconds':>8} {'training loss':>14} {'training':>9} {'test':>7}")
    models = {}
    for step in STEPS:
        seconds, models[step] = timed(train, step, parts, epochs, options.seed, options.threads)
        loss, score = (models[step].history_[name][-1] for name in ("train_loss", "train_score"))
        test = models[step].score(X_test, dataset.y_test)
        print(f"  {step:>6g} {seconds:>8.2f} {loss:>14.4g} {score:>9.4f} {test:>7.4f}")
    if options.full and n == 50_000:
        print(f"published, of 50,000 images with a step of 0.1: {KNOWN_OF_50_000}")
    n, units = (50_000, 800) if options.full else (len(dataset.X_train), 100)
    X = dataset.X_train[:n].astype(np.float32) / brightest
    parts = X, dataset.y_train[:n], X_test, dataset.y_test
    print(f"\n{X.shape[1]}-{units}-10, {n:,} images, momentum and dropout, {epochs} epochs:")
    seconds, wide = timed(train_wide, units, parts, epochs, options.seed, options.threads)
    accuracy = float(wide.score(X_test, dataset.y_test))
    print(f"  {seconds:.2f} s, training loss {wide.history_['train_loss'][-1]:.4g}, test accuracy {accuracy:.4f}")
    if options.full:
        print(f"  published: {KNOWN_OF_800_UNITS}; above 0.98 is possible")
    if options.plot:
        draw(models, options.plot)
        draw_wide(wide, X_test, dataset.y_test, dataset.image_shape, options.plot)
    return Found(error, models, wide, accuracy)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", metavar="FILE", type=Path, help="where to save the plots (.png, .svg, .pdf)")
    parser.add_argument("--images", type=int, metavar="N", help="training images with --full (default: 10,000)")
    parser.add_argument("--epochs", type=int, metavar="N", help="epochs of each training (default: 10, with --full 30)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of weights and batches (default: 0)")


if __name__ == "__main__":
    main()
