"""W15: linear regression by the mean absolute error and gradient descent.

The gradient counts: in b it is (rows that are over-estimated − rows that are under-estimated) / n, in w the mean of
sign(r) x. With an intercept alone the minimum is a median. Gradient descent with steps that fall as 1/√t is compared
with the exact minimum, a linear programme, which scikit-learn's QuantileRegressor solves. Default: the progression of
diabetes from ten features, from scikit-learn. With --full: the years of songs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from _common import arguments, timed
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes
from sklearn.linear_model import QuantileRegressor

from fastml import check_gradient, kernels
from fastml.datasets import load_year_prediction_small
from fastml.inspection import GradientCheck


class Found(NamedTuple):
    """What the job found: the counted gradient's difference from ours, and mean absolute errors."""

    counted: float
    check: GradientCheck
    median: float
    reached: float
    exact: float


def counted_gradient(X: NDArray[Any], y: NDArray[Any], w: NDArray[Any], b: float) -> tuple[NDArray[Any], float]:
    """Return dw and db by counting over- and under-estimates."""
    r = X @ w + b - y
    return (np.sign(r)[:, None] * X).mean(axis=0), float((np.sum(r > 0) - np.sum(r < 0)) / len(r))


def descend(
    X: NDArray[Any], y: NDArray[Any], steps: int, scale: float, n_threads: int | None = None
) -> tuple[NDArray[Any], float, float]:
    """Return the best of the weights and intercepts on the way, and their error."""
    w, b = np.zeros(X.shape[1]), 0.0
    best = w, b, np.inf
    for i in range(steps):
        error, dw, db = kernels.linear_loss_gradient("absolute_error", X, y, w, b, n_threads=n_threads)
        if error < best[2]:
            best = w, b, error
        step = scale / np.sqrt(1 + i)
        w, b = w - step * dw, b - step * db
    return best


def main(argv: Sequence[str] | None = None) -> Found:
    options = arguments(__doc__, argv, _more)
    if options.full:
        songs = load_year_prediction_small(options.data)
        X, y, unit = songs.X_train, songs.y_train.astype(np.float64), "years"
        print(f"{songs.name}: {songs.note}")
    else:
        X, y = load_diabetes(return_X_y=True)
        unit = "units of progression"
        print(f"diabetes: {len(X)} patients, {X.shape[1]} features, from scikit-learn")
    X = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1)

    rng = np.random.default_rng(options.seed)
    w, b = rng.normal(size=X.shape[1]), float(y.mean())
    _, dw, db = kernels.linear_loss_gradient("absolute_error", X, y, w, b)
    by_count = counted_gradient(X, y, w, b)
    counted = max(float(np.abs(dw - by_count[0]).max()), abs(db - by_count[1]))
    check = check_gradient("absolute_error", X=X, y=y, W=w, b=b)
    print(f"(over-estimates − under-estimates) / n = {db:+.4f}; largest difference from ours {counted:.1e}\n")
    print(f"{check}\n")

    nothing = np.empty((len(y), 0))
    _, b, _ = descend(nothing, y, options.steps, np.ptp(y))
    print(f"an intercept alone: {b:.2f}, the median is {np.median(y):.2f}")
    seconds, (_, _, reached) = timed(descend, X, y, options.steps, np.ptp(y), options.threads)
    exact_seconds, model = timed(QuantileRegressor(alpha=0.0).fit, X, y)
    exact = float(np.abs(model.predict(X) - y).mean())
    print(f"all features: {reached:.4f} {unit} after {options.steps} steps ({seconds:.2f} s)")
    print(f"the minimum:  {exact:.4f}, by linear programming ({exact_seconds:.2f} s)")
    return Found(counted, check, float(b), reached, exact)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=5000, metavar="N", help="steps of descent (default: 5000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the weights (default: 0)")


if __name__ == "__main__":
    main()
