"""W21: a convolutional network of images; what batch normalisation, dropout and the step size do to it.

The same network is trained four times: with batch normalisation and dropout by gradient descent, by Adam with small
steps and with steps a hundred times as large; and by Adam with small steps without both. Default: scikit-learn's
digits and a small network. With --full: a tenth of CIFAR-10, 4,500 images, batches of 64, 10 epochs; 5,000 others for
validation. --seeds 5 repeats all that with other random numbers.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import arguments, digits_or_cifar10, timed
from numpy.typing import NDArray

from fastml import ConvNetClassifier, DivergenceWarning
from fastml.layers import BatchNorm, Conv2D, Dropout, Linear, MaxPool2D, ReLU

#: Solver, step size, and whether there is batch normalisation and dropout.
RUNS: dict[str, tuple[str, float, bool]] = {
    "gradient descent, 0.005": ("sgd", 0.005, True),
    "Adam, 5e-5": ("adam", 5e-5, True),
    "Adam, 5e-3": ("adam", 5e-3, True),
    "Adam, 5e-5, without both": ("adam", 5e-5, False),
}
#: Validation accuracies that others had with networks of their own.
PUBLISHED = dict(zip(RUNS, (0.508, 0.632, 0.202, 0.548), strict=True))

Images = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


def network(widths: Sequence[int], hidden: int, both: bool) -> list[Any]:
    """Return the hidden layers: a convolution of each width, each followed by a pool, and one linear layer."""
    layers: list[Any] = []
    for width in widths:
        layers += [Conv2D(width), *[BatchNorm()] * both, ReLU(), MaxPool2D()]
    return [*layers, *[Dropout(0.5)] * both, Linear(hidden), ReLU(), *[Dropout(0.5)] * both]


def images(options: argparse.Namespace) -> Images:
    """Return training and validation images with their labels."""
    dataset = digits_or_cifar10(options)
    if options.full:
        X, y = dataset.X_train.reshape(-1, 3, 32, 32), dataset.y_train
        return X[:4500], y[:4500], X[-5000:], y[-5000:]
    shape = (-1, 1, *dataset.image_shape)
    return (
        dataset.X_train.reshape(shape).astype(np.uint8), dataset.y_train,
        dataset.X_test.reshape(shape).astype(np.uint8), dataset.y_test,
    )  # fmt: skip


def train(name: str, parts: Images, options: argparse.Namespace, seed: int) -> ConvNetClassifier:
    """Return a trained network."""
    X, y, X_val, y_val = parts
    solver, step, both = RUNS[name]
    widths, hidden = ((64, 128, 256), 512) if options.full else ((16, 32, 64), 64)
    model = ConvNetClassifier(
        network(widths, hidden, both), standardize=True, solver=solver, momentum=0.0, learning_rate_init=step,
        alpha=0.0, batch_size=64, max_iter=options.epochs or 10, tol=None, random_state=seed, n_jobs=options.threads,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DivergenceWarning)  # what large steps do is what they are here for
        return model.fit(X, y, X_val=X_val, y_val=y_val)


def draw(models: dict[str, ConvNetClassifier], file: Path) -> None:
    """Save the curves of the last seed: training loss and validation accuracy."""
    from matplotlib.figure import Figure

    from fastml import plot

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    panels = figure.subplots(1, 2)
    for ax, (quantity, column, title) in zip(
        panels, (("loss", "train_loss", "training loss"), ("score", "validation_score", "validation accuracy")),
        strict=True,
    ):  # fmt: skip
        histories = {
            name: {"epoch": model.history_["epoch"], column: model.history_[column]} for name, model in models.items()
        }
        plot.learning_curves(histories, ax, quantities=[quantity])
        ax.set_ylabel(title)
    panels[0].get_legend().remove()
    panels[1].get_legend().set_title(None)  # no line is dashed here
    figure.savefig(file, dpi=150)
    print(f"plot: {file}")


def main(argv: Sequence[str] | None = None) -> dict[str, list[ConvNetClassifier]]:
    options = arguments(__doc__, argv, _more)
    parts = images(options)
    print(f"{len(parts[0]):,} training and {len(parts[2]):,} validation images, batches of 64\n")
    found: dict[str, list[ConvNetClassifier]] = {name: [] for name in RUNS}
    print(f"  {'':<25} {'seed':>4} {'seconds':>8} {'training loss':>14} {'validation accuracy':>20}")
    for seed in range(options.seed, options.seed + options.seeds):
        for name in RUNS:
            seconds, model = timed(train, name, parts, options, seed)
            loss, score = (model.history_[column][-1] for column in ("train_loss", "validation_score"))
            print(f"  {name:<25} {seed:>4} {seconds:>8.1f} {loss:>14.4f} {score:>20.4f}", flush=True)
            found[name].append(model)
    print(f"\n{found['Adam, 5e-5'][0].summary()}")
    if options.seeds > 1:
        print(f"\nvalidation accuracy over {options.seeds} seeds:")
        for name, models in found.items():
            scores = np.array([model.history_["validation_score"][-1] for model in models])
            published = f"   published of another network: {PUBLISHED[name]}" if options.full else ""
            spread = f"{scores.min():.4f} to {scores.max():.4f}"
            print(f"  {name:<25} {scores.mean():.4f} ± {scores.std(ddof=1):.4f}, {spread}{published}")
    if options.plot:
        draw({name: models[-1] for name, models in found.items()}, options.plot)
    return found


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", metavar="FILE", type=Path, help="where to save the curves (.png, .svg, .pdf)")
    parser.add_argument("--epochs", type=int, metavar="N", help="epochs of each training (default: 10)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="first seed (default: 0)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="how many seeds (default: 1)")


if __name__ == "__main__":
    main()
