"""W10: choose the number of neighbours, then the norm, by cross-validation in one pass over the distances.

Five shuffled folds, ten numbers of neighbours; then the three norms at the best of them. The result is
compared with fitting and scoring every fold by itself: equal to the last bit. --compare times
scikit-learn's GridSearchCV on the same folds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import arguments, digits_or_cifar10, timed
from numpy.typing import NDArray
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.neighbors import KNeighborsClassifier as Theirs

from fastml import KNeighborsClassifier, knn_cross_validation
from fastml.model_selection import KNNCrossValidation

K = [1, 2, 3, 5, 7, 10, 15, 20, 25, 30]
NORMS = ["l1", "l2", "linf"]


def fold_by_fold(X: NDArray[Any], y: NDArray[Any], result: KNNCrossValidation) -> NDArray[np.float64]:
    """Return what `result.scores` must be: a model for each setting and each fold."""
    scores = np.empty_like(result.scores)
    for fold, (train, test) in enumerate(PredefinedSplit(result.test_fold).split()):
        for i, metric in enumerate(result.metrics):
            for j, k in enumerate(result.n_neighbors):
                model = KNeighborsClassifier(k, metric=metric).fit(X[train], y[train])
                scores[i, j, fold] = model.score(X[test], y[test])
    return scores


def compare(X: NDArray[Any], y: NDArray[Any], rounds: int) -> None:
    """Time scikit-learn's way and ours in turns, each with all CPUs; print the medians.

    scikit-learn gets float32 and float64, as it depends on the machine which of them it searches faster;
    we get the data as they are.
    """
    folds = PredefinedSplit(knn_cross_validation(X, y, n_neighbors=1, random_state=0).test_fold)
    search = GridSearchCV(Theirs(algorithm="brute", n_jobs=-1), {"n_neighbors": K}, cv=folds, refit=False)
    floats = [X.astype(np.float32), X.astype(np.float64)]
    times = []
    for _ in range(rounds):
        ours, result = timed(knn_cross_validation, X, y, n_neighbors=K, cv=folds)
        times.append([ours, *(timed(search.fit, data, y)[0] for data in floats)])
    ours, single, double = (statistics.median(column) for column in zip(*times, strict=True))
    difference = np.abs(search.cv_results_["mean_test_score"] - result.scores.mean(axis=2)[0]).max()
    print(f"GridSearchCV {single:.2f} s in float32, {double:.2f} s in float64; one pass {ours:.2f} s (medians)")
    ratio = statistics.median(min(theirs) / ours for ours, *theirs in times)
    print(f"{ratio:.1f} times faster; largest difference of a mean accuracy {difference:.4f} (ties, rounded distances)")


def draw(by_k: KNNCrossValidation, by_norm: KNNCrossValidation, file: Path) -> None:
    """Save error against k and error against norm, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    by_k.plot(left)
    by_norm.plot(right)
    figure.savefig(file, dpi=150)
    print(f"plots: {file}")


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", metavar="FILE", type=Path, help="where to save the plots (.png, .svg, .pdf)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the shuffle (default: 0)")
    parser.add_argument("--compare", type=int, metavar="N", help="time GridSearchCV beside, so many times")


def main(argv: Sequence[str] | None = None) -> tuple[KNNCrossValidation, KNNCrossValidation]:
    options = arguments(__doc__, argv, _more)
    dataset = digits_or_cifar10(options)
    X, y = (dataset.X_train[:5000], dataset.y_train[:5000]) if options.full else (dataset.X_train, dataset.y_train)
    settings = {"random_state": options.seed, "n_jobs": options.threads}
    knn_cross_validation(X[:300], y[:300], n_neighbors=1, metrics=NORMS, **settings)  # compiles, or loads

    seconds, by_k = timed(knn_cross_validation, X, y, n_neighbors=K, metrics="l2", **settings)
    print(f"\n{len(K)} numbers of neighbours, {len(X)} rows, {seconds:.2f} s:\n{by_k}")
    best = by_k.best_params["n_neighbors"]
    seconds, by_norm = timed(knn_cross_validation, X, y, n_neighbors=best, metrics=NORMS, **settings)
    print(f"\n{len(NORMS)} norms, {seconds:.2f} s:\n{by_norm}")

    seconds, separate = timed(fold_by_fold, X, y, by_k)
    same = "the same" if np.array_equal(separate, by_k.scores) else "NOT THE SAME"
    print(f"\na model for each fold and number of neighbours: {same} scores, {seconds:.2f} s")
    if options.compare:
        compare(X, y, options.compare)
    if options.plot:
        draw(by_k, by_norm, options.plot)
    return by_k, by_norm


if __name__ == "__main__":
    main()
