"""W16: least squares as maximum likelihood, and what it says about the noise.

For y|x ~ N(xᵀw, σ²) the likelihood is largest at w = (Σxxᵀ)⁻¹Σxy and σ² = the mean squared residual; these are
`coef_` and `noise_variance_` of `LinearRegression`. Checked here: the formulas, the slopes of the likelihood there,
which are 0, and estimates from many data sets of known w and σ. Their mean of σ² is σ² (n - D) / n: maximum likelihood
takes the noise for smaller than it is, since D weights adapt to it. Default: the progression of diabetes, from
scikit-learn. With --full: the years of songs, and more data sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from _common import arguments
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes

from fastml import LinearRegression
from fastml.datasets import load_year_prediction_small


class Found(NamedTuple):
    """Differences of w and σ² from the formulas, relative; and the largest slope of the mean log-likelihood at both."""

    weights: float
    variance: float
    slope: float


class Simulated(NamedTuple):
    """Mean estimates over data sets, as distances from what is expected, in standard errors; and the expected σ²."""

    weights: float
    variance: float
    expected_variance: float


def fit(X: NDArray[Any], y: NDArray[Any]) -> LinearRegression:
    return LinearRegression(fit_intercept=False).fit(X, y)


def log_likelihood(X: NDArray[Any], y: NDArray[Any], w: NDArray[Any], variance: float) -> float:
    """Return the mean log-likelihood of a row."""
    return -0.5 * (math.log(2 * math.pi * variance) + float(np.mean((y - X @ w) ** 2)) / variance)


def slopes(X: NDArray[Any], y: NDArray[Any], w: NDArray[Any], variance: float) -> NDArray[Any]:
    """Return the derivatives of the mean log-likelihood with respect to w and log σ²."""
    residuals = y - X @ w
    return np.append(residuals @ X / (len(X) * variance), 0.5 * (np.mean(residuals**2) / variance - 1))


def check(X: NDArray[Any], y: NDArray[Any]) -> Found:
    model = fit(X, y)
    w = np.linalg.solve(X.T @ X, X.T @ y)
    variance = float(np.mean((y - X @ w) ** 2))
    return Found(
        float(np.abs(model.coef_ - w).max() / np.abs(w).max()),
        abs(model.noise_variance_ / variance - 1),
        float(np.abs(slopes(X, y, model.coef_, model.noise_variance_)).max()),
    )


def simulate(n: int, columns: int, sigma: float, data_sets: int, rng: np.random.Generator) -> Simulated:
    """Draw y again and again for the same rows and weights, and look at the mean of the estimates."""
    X, w = rng.normal(size=(n, columns)), rng.normal(size=columns)
    models = [fit(X, X @ w + sigma * rng.normal(size=n)) for _ in range(data_sets)]
    weights, variances = np.array([m.coef_ for m in models]), np.array([m.noise_variance_ for m in models])
    expected = sigma**2 * (n - columns) / n

    def distance(values: NDArray[Any], truth: Any) -> float:
        errors = values.std(axis=0, ddof=1) / math.sqrt(data_sets)
        return float(np.abs((values.mean(axis=0) - truth) / errors).max())

    return Simulated(distance(weights, w), distance(variances, expected), expected)


def main(argv: Sequence[str] | None = None) -> tuple[Found, float, Simulated]:
    options = arguments(__doc__, argv)
    if options.full:
        songs = load_year_prediction_small(options.data)
        X, y = songs.X_train.astype(np.float64), songs.y_train.astype(np.float64)
        print(f"{songs.name}: {songs.note}")
    else:
        X, y = load_diabetes(return_X_y=True)
        print(f"diabetes: {len(X)} patients, {X.shape[1]} features, from scikit-learn")
    X, y = (X - X.mean(axis=0)) / X.std(axis=0, ddof=1), y - y.mean()

    found = check(X, y)
    model = fit(X, y)
    print(f"\nσ² = {model.noise_variance_:.6g}: the noise of a target is about ±{math.sqrt(model.noise_variance_):.3g}")
    print(f"from the formulas: w {found.weights:.1e}, σ² {found.variance:.1e} (relative difference)")
    print(f"largest slope of the mean log-likelihood: {found.slope:.1e}")
    best = log_likelihood(X, y, model.coef_, model.noise_variance_)
    rng = np.random.default_rng(0)
    gains = [
        log_likelihood(X, y, model.coef_ + size * rng.normal(size=X.shape[1]), model.noise_variance_ * factor) - best
        for size in (0.0, 1e-2, 1.0)
        for factor in (0.9, 1.0, 1.1)
        if (size, factor) != (0.0, 1.0)
    ]
    print(f"mean log-likelihood {best:.6f}; {len(gains)} other w and σ² are worse by {-max(gains):.1e} and more")

    data_sets = 20_000 if options.full else 2_000
    simulated = simulate(50, 10, 2.0, data_sets, rng)
    print(
        f"\n{data_sets} data sets of 50 rows, 10 features and σ² = 4: σ² should be {simulated.expected_variance:g} "
        f"on average\nand is, to {simulated.variance:.2f} standard errors; the w to {simulated.weights:.2f} at most"
    )
    return found, max(gains), simulated


if __name__ == "__main__":
    main()
