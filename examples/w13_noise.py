"""W13: noise on the features works like a penalty on the weights.

With noise from N(0, σ²I) added to the features, the expected squared error of θ is the plain one plus σ²‖θ‖². So least
squares on many noisy copies of the data tends to ridge regression with alpha = N σ² on the data themselves, without
intercept: to least squares for σ → 0, to θ ~ Xᵀy / (N σ²) for σ → ∞. Default: the progression of diabetes from ten
features, from scikit-learn. With --full: the years of songs, and more copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from _common import arguments
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes

from fastml import Ridge
from fastml.datasets import load_year_prediction_small

SIGMAS = (0.1, 0.3, 1.0, 3.0)


class Row(NamedTuple):
    """For one σ: how far the simulated error is from the expected one, in standard errors, and how far the θ of noisy
    copies is from ridge regression, relative."""

    sigma: float
    standard_errors: float
    difference: float


def ridge(X: NDArray[Any], y: NDArray[Any], sigma: float) -> NDArray[Any]:
    """Return the θ of ridge regression that belongs to a noise."""
    return Ridge(alpha=len(X) * sigma**2, fit_intercept=False).fit(X, y).coef_


def simulate(X: NDArray[Any], y: NDArray[Any], sigma: float, copies: int, rng: np.random.Generator) -> Row:
    """Draw noisy copies of X; sum up XᵀX and Xᵀy over them, and the squared errors of a θ."""
    theta = ridge(X, y, sigma)
    columns = X.shape[1]
    gram, moment, errors = np.zeros((columns, columns)), np.zeros(columns), np.empty(copies)
    for copy in range(copies):
        noisy = X + sigma * rng.normal(size=X.shape)
        gram += noisy.T @ noisy
        moment += noisy.T @ y
        errors[copy] = np.mean((noisy @ theta - y) ** 2)
    expected = np.mean((X @ theta - y) ** 2) + sigma**2 * theta @ theta
    standard_errors = (errors.mean() - expected) / (errors.std(ddof=1) / np.sqrt(copies))
    simulated = np.linalg.solve(gram, moment)
    return Row(sigma, float(standard_errors), float(np.linalg.norm(simulated - theta) / np.linalg.norm(theta)))


def main(argv: Sequence[str] | None = None) -> tuple[list[Row], float, float]:
    options = arguments(__doc__, argv)
    if options.full:
        songs = load_year_prediction_small(options.data)
        X, y = songs.X_train, songs.y_train.astype(np.float64)
        print(f"{songs.name}: {songs.note}")
    else:
        X, y = load_diabetes(return_X_y=True)
        print(f"diabetes: {len(X)} patients, {X.shape[1]} features, from scikit-learn")
    X, y = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1), y - y.mean()

    rng = np.random.default_rng(0)
    copies = 5000 if options.full else 1000
    print(f"\n{copies} noisy copies; expected: squared error + σ²‖θ‖², and the θ of ridge regression with alpha = N σ²")
    print(f"  {'σ':>4} {'error, off by':>22} {'θ, off by':>11}")
    rows = [simulate(X, y, sigma, copies, rng) for sigma in SIGMAS]
    for row in rows:
        print(f"  {row.sigma:>4} {row.standard_errors:>+8.2f} standard errors {row.difference:>11.2%}")

    least_squares = np.linalg.lstsq(X, y, rcond=None)[0]
    small = float(np.abs(ridge(X, y, 1e-6) - least_squares).max() / np.abs(least_squares).max())
    far = X.T @ y / (len(X) * 1e12)
    large = float(np.abs(ridge(X, y, 1e6) - far).max() / np.abs(far).max())
    print(f"\nσ → 0: least squares, relative difference {small:.1e}; σ → ∞: Xᵀy / (N σ²), {large:.1e}")
    return rows, small, large


if __name__ == "__main__":
    main()
