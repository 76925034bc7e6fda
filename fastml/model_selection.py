"""Cross-validation of nearest neighbours: every k and every fold from one pass over the distances.

A row's neighbours among the training rows of its fold are its neighbours among all rows that are not
in its own fold. So one search, in which a row passes over the rows of its own fold, serves all folds; and
the k nearest are the beginning of the largest k nearest. A grid of K numbers of neighbours and F folds
costs one search of n rows among n, where fitting each setting and fold costs K (F - 1) / F such searches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, StratifiedKFold, check_cv
from sklearn.utils import check_X_y
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from tqdm import tqdm

from . import _estimators
from ._checks import check_labels, check_numbers, check_values
from .kernels import _validate
from .kernels.neighbors import _k_nearest_outside_group
from .neighbors import Weights, check_weights, count_votes, mean_over_ranks, weights_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["KNNCrossValidation", "knn_cross_validation"]

Task = Literal["classification", "regression"]


@dataclass(frozen=True, eq=False)
class KNNCrossValidation:
    """Result of `knn_cross_validation`; ``print`` shows it as a table.

    Attributes
    ----------
    task : {"classification", "regression"}
        Decides what score and error are.
    metrics : tuple of str
        Names of the metrics, as they were given.
    n_neighbors : tuple of int
        Numbers of neighbours, as they were given.
    scores : ndarray of shape (metrics, n_neighbors, folds)
        Accuracy, or R² for regression: what ``score`` of a model fitted on each fold returns.
    test_fold : ndarray of shape (n,), intp
        The fold that tests each row; ``sklearn.model_selection.PredefinedSplit(test_fold)`` makes the same
        folds again.
    """

    task: Task
    metrics: tuple[str, ...]
    n_neighbors: tuple[int, ...]
    scores: NDArray[np.float64] = field(repr=False)
    test_fold: NDArray[np.intp] = field(repr=False)

    @property
    def best_index(self) -> tuple[int, int]:
        """Places in `metrics` and `n_neighbors` of the highest mean score; the first of equals, NaN last."""
        means = np.nan_to_num(self.scores.mean(axis=2), nan=-np.inf)
        metric, k = np.unravel_index(means.argmax(), means.shape)
        return int(metric), int(k)

    @property
    def best_params(self) -> dict[str, Any]:
        """Parameters of the best setting, as a model takes them."""
        metric, k = self.best_index
        return {"metric": self.metrics[metric], "n_neighbors": self.n_neighbors[k]}

    @property
    def best_score(self) -> float:
        """Mean score over the folds at the best setting."""
        return float(self.scores[self.best_index].mean())

    @property
    def errors(self) -> NDArray[np.float64]:
        """1 − `scores`: the error rate, or for regression the share of the variance that is not explained."""
        return 1 - self.scores

    @property
    def error_name(self) -> str:
        """What `errors` holds, in words."""
        return "error rate" if self.task == "classification" else "1 − R²"

    @cached_property
    def table(self) -> dict[str, list[Any]]:
        """One list per column, one entry per setting: ``pandas.DataFrame(result.table)`` takes it as it is.

        The columns are "metric", "n_neighbors", "mean_score", "std_score" (over the folds, ddof = 0),
        "mean_error", then "score_fold_0" and so on.
        """
        settings = [(metric, k) for metric in self.metrics for k in self.n_neighbors]
        scores = self.scores.reshape(len(settings), -1)
        columns = {
            "metric": [metric for metric, _ in settings],
            "n_neighbors": [k for _, k in settings],
            "mean_score": scores.mean(axis=1).tolist(),
            "std_score": scores.std(axis=1).tolist(),
            "mean_error": (1 - scores).mean(axis=1).tolist(),
        }
        return columns | {f"score_fold_{fold}": values.tolist() for fold, values in enumerate(scores.T)}

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the errors; see `fastml.plot.cross_validation`."""
        from . import plot

        return plot.cross_validation(self, ax)

    def __str__(self) -> str:
        score = "accuracy" if self.task == "classification" else "R²"
        best = np.ravel_multi_index(self.best_index, self.scores.shape[:2])
        lines = [f"{'metric':<10} {'k':>4}  {self.error_name:>10}  {score:>8}  {'± std':>7}"]
        columns = ("metric", "n_neighbors", "mean_error", "mean_score", "std_score")
        for row, values in enumerate(zip(*(self.table[name] for name in columns), strict=True)):
            metric, k, error, mean, std = values
            mark = "  best" if row == best else ""
            lines.append(f"{metric:<10} {k:>4}  {error:>10.4f}  {mean:>8.4f}  {std:>7.4f}{mark}")
        return "\n".join([*lines, f"means over {self.scores.shape[2]} folds"])


def knn_cross_validation(
    X: ArrayLike,
    y: ArrayLike,
    *,
    n_neighbors: int | Iterable[int] = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30),
    metrics: str | Iterable[str] = "l2",
    weights: Weights = "uniform",
    cv: Any = 5,
    groups: ArrayLike | None = None,
    random_state: Any = None,
    task: Literal["auto"] | Task = "auto",
    n_jobs: int | None = None,
    progress: bool | None = None,
) -> KNNCrossValidation:
    """Cross-validate nearest neighbours for many k and metrics, with one distance pass per metric.

    The scores equal, fold by fold and to the last bit, those of a `fastml.KNeighborsClassifier` (or
    `KNeighborsRegressor`) fitted and scored on each fold by itself.

    Parameters
    ----------
    X : array-like of shape (n, D)
        All rows; uint8 stays uint8.
    y : array-like of shape (n,)
        Labels, or numbers for regression.
    n_neighbors : int or iterable of int, default=(1, 2, 3, 5, 7, 10, 15, 20, 25, 30)
        Numbers of neighbours; at most the smallest training set.
    metrics : str or iterable of str, default="l2"
        Any of "l1", "l2", "linf" and the other names that the models take.
    weights : {"uniform", "distance"}, callable or None, default="uniform"
        As the models' parameter.
    cv : int or splitter, default=5
        A number means that many *shuffled* folds, stratified by the labels for classification. A
        splitter of scikit-learn or an iterable of (training, test) rows is taken as it is; every row must
        be in exactly one test set, and trained on in all other folds.
    groups : array-like of shape (n,), optional
        For splitters that want them, such as GroupKFold.
    random_state : int, RandomState or None, default=None
        Seed of the shuffle, for a number of folds only; None shuffles differently every time.
    task : {"auto", "classification", "regression"}, default="auto"
        "auto": regression where `y` has fractions, else classification.
    n_jobs : int or None, default=None
        As the models' parameter: None means all threads.
    progress : bool, optional
        Whether to show a progress bar; None shows it on a terminal.

    Returns
    -------
    KNNCrossValidation
        Scores per metric, k and fold, a table, the best setting, a plot.

    Raises
    ------
    ValueError
        If the folds do not test every row once, or a training set has fewer rows than some k.

    Notes
    -----
    Cost: n² D differences per metric, whatever the numbers of k and folds. Memory beside `X`: n times
    the largest k distances and indices. Ties in distance go to the smaller row of `X`, which is the
    smaller row of the training set for every splitter that keeps training rows in order, as all of
    scikit-learn's do whose test sets cover each row once.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastml import knn_cross_validation
    >>> X, y = load_digits(return_X_y=True)
    >>> found = knn_cross_validation(X, y, n_neighbors=[1, 3, 30], metrics=["l1", "l2"], random_state=0)
    >>> found.scores.shape
    (2, 3, 5)
    >>> print(found)
    metric        k  error rate  accuracy    ± std
    l1            1      0.0150    0.9850   0.0065
    l1            3      0.0156    0.9844   0.0038
    l1           30      0.0440    0.9560   0.0150
    l2            1      0.0122    0.9878   0.0060
    l2            3      0.0122    0.9878   0.0028  best
    l2           30      0.0351    0.9649   0.0110
    means over 5 folds
    >>> found.best_params
    {'metric': 'l2', 'n_neighbors': 3}
    """
    ks, names = _settings(n_neighbors, metrics)
    check_weights(weights)
    n_threads = _estimators.threads(n_jobs)
    if task not in ("auto", "classification", "regression"):
        raise ValueError(f"task is {task!r}; it must be 'auto', 'classification' or 'regression'")
    if task == "auto":
        task = "regression" if type_of_target(y, input_name="y").startswith("continuous") else "classification"
    check_values(X, "X")
    y = check_labels(y) if task == "classification" else check_numbers(y)
    checked, target = check_X_y(X, y, y_numeric=task == "regression")
    judged = _TASKS[task](target)
    x, _, _ = _validate.pair(checked)
    tests = _test_rows(_splitter(cv, task, random_state).split(x, target, groups), len(x))
    test_fold = np.empty(len(x), np.intp)
    for fold, rows in enumerate(tests):
        test_fold[rows] = fold
    smallest = len(x) - max(map(len, tests))
    if max(ks) > smallest:
        raise ValueError(f"n_neighbors is {max(ks)}; the smallest training set has {smallest} rows")

    scores = np.empty((len(names), len(ks), len(tests)))
    # `disable=None` shows the bar on a terminal only.
    with tqdm(total=len(names) * len(x), unit="row", disable=None if progress is None else not progress) as bar:
        for place, name in enumerate(names):
            bar.set_description(name)
            distances, neighbors = _k_nearest_outside_group(
                x, test_fold, max(ks), metric=name, n_threads=n_threads, progress=bar.update
            )
            for column, k in enumerate(ks):
                predicted = judged.predict(neighbors[:, :k], weights_of(distances[:, :k], weights))
                scores[place, column] = judged.scores(predicted, tests)
    return KNNCrossValidation(task, names, ks, scores, test_fold)


def _settings(n_neighbors: Any, metrics: Any) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the numbers of neighbours and the metrics as tuples, both checked."""
    ks = tuple(n_neighbors) if isinstance(n_neighbors, Iterable) else (n_neighbors,)
    names: tuple[str, ...] = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    if not ks or not names:
        raise ValueError(f"{'metrics' if ks else 'n_neighbors'} is empty; at least one is needed")
    for name in names:
        _validate.metric(name)
    return tuple(_estimators.positive_integer(k, "n_neighbors") for k in ks), names


def _splitter(cv: Any, task: Task, random_state: Any) -> Any:
    if cv is None or isinstance(cv, Integral):
        folds = StratifiedKFold if task == "classification" else KFold
        return folds(5 if cv is None else int(cv), shuffle=True, random_state=random_state)
    if random_state is not None:
        raise ValueError("random_state shuffles the folds of a number cv; a splitter has its own")
    return check_cv(cv)


def _test_rows(splits: Iterable[tuple[Any, Any]], n: int) -> list[NDArray[np.intp]]:
    """Return each fold's test rows, after a check that one pass over the distances serves all folds."""
    rows = np.arange(n)
    tests = []
    tested = np.zeros(n, np.intp)
    for fold, (train, test) in enumerate(splits):
        tests.append(rows[test])  # row numbers, also from a mask
        tested += np.bincount(tests[-1], minlength=n)
        used = np.bincount(np.concatenate([rows[train], tests[-1]]), minlength=n)
        if (used != 1).any():
            row = int((used != 1).argmax())
            what = f"has row {row} twice" if used[row] else f"neither trains on nor tests row {row}"
            raise ValueError(f"fold {fold} of cv {what}; it must train on all rows but its test set")
    if (tested != 1).any():
        row = int((tested != 1).argmax())
        raise ValueError(f"row {row} is in {tested[row] or 'no'} test sets of cv; every row must be in exactly one")
    return tests


class _Classification:
    """Votes and accuracy."""

    def __init__(self, y: NDArray[Any]) -> None:
        check_classification_targets(y)
        classes, self.target = np.unique(y, return_inverse=True)
        self.n_classes = len(classes)

    def predict(self, neighbors: NDArray[np.intp], weights: NDArray[np.float64] | None) -> NDArray[Any]:
        winners: NDArray[Any] = count_votes(self.target[neighbors], self.n_classes, weights).argmax(axis=1)
        return winners

    def scores(self, predicted: NDArray[Any], tests: list[NDArray[np.intp]]) -> list[float]:
        right = predicted == self.target
        return [right[rows].mean() for rows in tests]


class _Regression:
    """Means and R²."""

    def __init__(self, y: NDArray[Any]) -> None:
        self.y = y
        self.target = y.astype(np.float64, copy=False)

    def predict(self, neighbors: NDArray[np.intp], weights: NDArray[np.float64] | None) -> NDArray[Any]:
        return mean_over_ranks(self.target[neighbors], weights)

    def scores(self, predicted: NDArray[Any], tests: list[NDArray[np.intp]]) -> list[float]:
        return [r2_score(self.y[rows], predicted[rows]) for rows in tests]  # y as a model's `score` gets it


_TASKS: dict[str, type[_Classification] | type[_Regression]] = {
    "classification": _Classification,
    "regression": _Regression,
}
