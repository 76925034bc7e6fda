"""W1: probabilities and cost of a logistic regression that stay finite whatever the weights are.

σ(Xw + b) is the probability of class 1, which is predicted from 0.5 on. The cost as it stands in text books,
−t ln p − (1 − t) ln(1 − p), is NaN or infinite as soon as one p is rounded to 0 or 1, which normal random weights are
enough for. `binary_cross_entropy` takes the scores instead and has the right value for all of them. With --full: songs,
and 463,715 rows of 90 synthetic features for the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from _common import arguments, timed, tumours_or_songs, verdict
from numpy.typing import NDArray

from fastml import kernels

SEEDS = 20


class Costs(NamedTuple):
    """How many of the costs for random weights are finite, and the largest relative error of ours."""

    naive_finite: int
    ours_finite: int
    largest_error: float


def predict(X: NDArray[Any], w: NDArray[Any], b: float) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the probabilities of class 1, and the predictions."""
    p = kernels.sigmoid(X @ w + np.asarray(b, X.dtype))
    return p, p >= 0.5


def naive_cost(z: NDArray[Any], t: NDArray[Any]) -> float:
    """Return the mean cost of scores as text books write it."""
    with np.errstate(all="ignore"):
        p = 1 / (1 + np.exp(-z))
        return float(np.mean(-t * np.log(p) - (1 - t) * np.log(1 - p)))


def costs(X: NDArray[Any], t: NDArray[Any]) -> Costs:
    """Compare both costs for normal random weights and intercepts; the judge is logaddexp in long double."""
    naive, ours, errors = [], [], []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        w, b = rng.normal(size=X.shape[1]).astype(X.dtype), X.dtype.type(rng.normal())
        z = X @ w + b
        right = np.mean(np.logaddexp(np.longdouble(0), z) - t * z.astype(np.longdouble))
        naive.append(naive_cost(z, t.astype(X.dtype)))
        ours.append(kernels.binary_cross_entropy(z, t))
        errors.append(abs(ours[-1] - float(right)) / float(right))
    return Costs(int(np.isfinite(naive).sum()), int(np.isfinite(ours).sum()), max(errors))


def main(argv: Sequence[str] | None = None) -> dict[str, Costs]:
    options = arguments(__doc__, argv)
    task = tumours_or_songs(options)
    p, _ = predict(np.ones((2, 90)), np.zeros(90), 1.0)
    print(
        f"w = 0, b = 1, two rows of ones: {verdict(' '.join(f'{value:.8f}' for value in p), '0.73105858 0.73105858')}"
    )
    _, predicted = predict(task.X_val, np.zeros(task.X_val.shape[1]), 0.0)
    print(f"w = 0, b = 0: class 1 everywhere, right for {np.mean(predicted == task.t_val):.1%} of the validation set")

    found = {}
    print(f"\nfinite costs among {SEEDS} draws of normal random weights, on {len(task.X_train):,} rows:")
    for factor, features in ((1, "standardised features"), (10, "ten times as large")):
        for dtype in ("float32", "float64"):
            one = costs((factor * task.X_train).astype(dtype), task.t_train)
            found[f"{features}, {dtype}"] = one
            print(
                f"  {features:<21} {dtype}: text book {one.naive_finite:>2}, binary_cross_entropy {one.ours_finite:>2} "
                f"(largest relative error {one.largest_error:.0e})"
            )

    if options.full:
        rng = np.random.default_rng(0)
        X, w = rng.normal(size=(463_715, 90)).astype(np.float32), (rng.normal(size=90) / 10).astype(np.float32)
        t, z = rng.integers(0, 2, len(X)).astype(np.float32), X @ w
        kernels.binary_cross_entropy(z, t)  # compiles, or loads what was compiled before
        book = median(timed(naive_cost, z, t)[0] for _ in range(7))
        ours = median(timed(kernels.binary_cross_entropy, z, t, n_threads=options.threads)[0] for _ in range(7))
        print(f"\ncost of {len(X):,} scores: text book {book * 1e3:.1f} ms, binary_cross_entropy {ours * 1e3:.2f} ms")
    return found


if __name__ == "__main__":
    main()
