"""Cross-validation of nearest neighbours: every k and every fold from one pass over the distances.

A row's neighbours among the training rows of its fold are its neighbours among all rows that are not
in its own fold. So one search, in which a row passes over the rows of its own fold, serves all folds; and
the k nearest are the beginning of the largest k nearest. A grid of K numbers of neighbours and F folds
costs one search of n rows among n, where fitting each setting and fold costs K (F - 1) / F such searches.

Repeated folds take one such search per repeat. A fold that trains on fewer rows than all but its own, or
that leaves most rows untested, is searched by itself: its test rows among its training rows, for all k at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.metrics import get_scorer_names
from sklearn.model_selection import check_cv
from sklearn.utils import check_X_y, column_or_1d
from sklearn.utils.multiclass import type_of_target
from tqdm import tqdm

from ..kernels.distances import arguments as distances_arguments
from ..kernels.runtime.compile_notice import silent
from ..neighbors.row_weights import RowWeights, padded
from ..neighbors.voting import NeighborWeights, check_weights, checked_metric, weights_of
from ..utils import parameters
from ..utils.lazy import lazy_module
from ..utils.sample_weight import checked_weight_with_sum
from ..utils.validation import check_labels, check_numbers, check_values
from ._evaluators import EVALUATORS, Evaluator, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..kernels.neighbors import nearest
else:
    nearest = lazy_module("fastml.kernels.neighbors.nearest")

__all__ = ["KNNCrossValidation", "knn_cross_validation"]

#: What is tried where nothing is said, as far as the training sets have so many rows.
_DEFAULT_NEIGHBORS = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30)

#: More different whole numbers than this may be quantities, above all where each has fewer rows than this.
_FEW_CLASSES, _FEW_ROWS = 10, 5


@dataclass(frozen=True, eq=False)
class KNNCrossValidation:
    """Result of `knn_cross_validation`; ``print`` shows it as a table.

    Attributes
    ----------
    task : {"classification", "regression"}
        What was predicted: labels, or numbers.
    metrics : tuple of str
        Names of the metrics, as they were given.
    n_neighbors : tuple of int
        Numbers of neighbours, as they were given.
    scores : ndarray of shape (metrics, n_neighbors, folds), or (metrics, n_neighbors, 1) if `pooled`
        Accuracy, or R² for regression: what ``score`` of a model fitted on each fold returns; or what `scoring` says.
    test_fold : ndarray of shape (n,), intp, or None
        The fold that tests each row, -1 where none does; ``sklearn.model_selection.PredefinedSplit(test_fold)`` makes
        the same folds again. None where it could not: a row is tested twice, or a fold does not train on all rows but
        its own.
    scoring : str or None
        Name of the score; None for accuracy and R².
    pooled : bool
        Whether `scores` has one score for all predictions together instead of one per fold. So it is where a fold tests
        a single row, except for accuracy without weights: the R² of one row is not defined.
    predictions : ndarray of shape (metrics, n_neighbors, n) or (metrics, n_neighbors, n, outputs), or None
        What each setting predicts for each row, from the training set of the fold that tests it. None where the folds
        do not test every row exactly once.
    metric_params : dict or None
        What the metrics were given.
    """

    task: Task
    metrics: tuple[str, ...]
    n_neighbors: tuple[int, ...]
    scores: NDArray[np.float64] = field(repr=False)
    test_fold: NDArray[np.intp] | None = field(repr=False)
    scoring: str | None = None
    pooled: bool = False
    predictions: NDArray[Any] | None = field(default=None, repr=False)
    metric_params: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def best_index(self) -> tuple[int, int]:
        """Places in `metrics` and `n_neighbors` of the highest mean score; the first of equals.

        A setting whose score is NaN in some fold is never the best; ValueError if there is no other.
        """
        means = self.scores.mean(axis=2)
        if np.isnan(means).all():
            raise ValueError("no setting is the best: each has a score of NaN in some fold")
        metric, k = np.unravel_index(np.nanargmax(means), means.shape)
        return int(metric), int(k)

    @property
    def best_params(self) -> dict[str, Any]:
        """Parameters of the best setting, as a model takes them."""
        metric, k = self.best_index
        best = {"metric": self.metrics[metric], "n_neighbors": self.n_neighbors[k]}
        return best if self.metric_params is None else best | {"metric_params": self.metric_params}

    @property
    def best_score(self) -> float:
        """Mean score over the folds at the best setting."""
        return float(self.scores[self.best_index].mean())

    @property
    def errors(self) -> NDArray[np.float64]:
        """What is left to the best possible score: 1 - `scores`, or -`scores` for "neg_..." and functions as `scoring`.

        The error rate for accuracy; for R² the share of the variance that is not explained.
        """
        return 1 - self.scores if self._one_is_best else -self.scores

    @property
    def _one_is_best(self) -> bool:
        return self.scoring is None or (self.scoring in get_scorer_names() and not self.scoring.startswith("neg_"))

    @property
    def score_name(self) -> str:
        """What `scores` holds, in words."""
        return self.scoring or ("accuracy" if self.task == "classification" else "R²")

    @property
    def error_name(self) -> str:
        """What `errors` holds, in words."""
        if self.score_name == "accuracy":
            return "error rate"
        if self._one_is_best:
            return f"1 − {self.score_name}"
        return self.score_name.removeprefix("neg_") if self.score_name.startswith("neg_") else f"−{self.score_name}"

    @cached_property
    def table(self) -> dict[str, list[Any]]:
        """One list per column, one entry per setting: ``pandas.DataFrame(result.table)`` takes it as it is.

        The columns are "metric", "n_neighbors", "mean_score", "std_score" (over the folds, ddof = 0),
        "mean_error", then "score_fold_0" and so on; of pooled scores "score_fold_0" alone, with std_score 0.
        """
        settings = [(metric, k) for metric in self.metrics for k in self.n_neighbors]
        scores = self.scores.reshape(len(settings), -1)
        columns = {
            "metric": [metric for metric, _ in settings],
            "n_neighbors": [k for _, k in settings],
            "mean_score": scores.mean(axis=1).tolist(),
            "std_score": scores.std(axis=1).tolist(),
            "mean_error": self.errors.reshape(len(settings), -1).mean(axis=1).tolist(),
        }
        return columns | {f"score_fold_{fold}": values.tolist() for fold, values in enumerate(scores.T)}

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the errors; see `fastml.plot.cross_validation`."""
        from .. import plot

        return plot.cross_validation(self, ax)

    def __str__(self) -> str:
        means = self.scores.mean(axis=2)
        best = None if np.isnan(means).all() else np.ravel_multi_index(self.best_index, means.shape)
        shown = {"mean_error": f"{self.error_name:>10}", "mean_score": f"{self.score_name:>8}", "std_score": "  ± std"}
        if self.pooled:
            del shown["std_score"]
        lines = ["  ".join([f"{'metric':<10} {'k':>4}", *shown.values()])]
        for row, (metric, k) in enumerate(zip(self.table["metric"], self.table["n_neighbors"], strict=True)):
            numbers = [f"{self.table[name][row]:>{len(heading)}.4f}" for name, heading in shown.items()]
            lines.append("  ".join([f"{metric:<10} {k:>4}", *numbers, *(["best"] if row == best else [])]))
        lines.append("of all predictions together" if self.pooled else f"means over {self.scores.shape[2]} folds")
        return "\n".join(lines)


def knn_cross_validation(
    X: ArrayLike,
    y: ArrayLike,
    *,
    n_neighbors: int | Iterable[int] | None = None,
    metrics: str | Iterable[str] = "l2",
    weights: NeighborWeights = "uniform",
    cv: Any = 5,
    groups: ArrayLike | None = None,
    random_state: Any = None,
    task: Literal["auto"] | Task = "auto",
    scoring: str | Callable[..., float] | None = None,
    sample_weight: ArrayLike | None = None,
    metric_params: dict[str, Any] | None = None,
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
    y : array-like of shape (n,) or (n, outputs)
        Labels, or numbers for regression; (n, 1) is taken as (n,). Rows of several outputs are scored as the models do:
        R² is the mean over the outputs; labels count as right where all are, if they are 0 and 1, and need `scoring` if
        not.
    n_neighbors : int or iterable of int, optional
        Numbers of neighbours; at most the smallest training set. None means those of 1, 2, 3, 5, 7, 10, 15, 20, 25, 30
        that are.
    metrics : str or iterable of str, default="l2"
        Any of "l1", "l2", "linf" and the other names that the models take ("minkowski" with p = 2).
    weights : {"uniform", "distance"}, callable or None, default="uniform"
        As the models' parameter. A function is called for each metric, number of neighbours and search.
    cv : int or splitter, default=5
        A number means that many *shuffled* folds, stratified by the labels where a row has one. A splitter of
        scikit-learn or an iterable of (training, test) rows is taken as it is; no fold may test what it trains on.
    groups : array-like of shape (n,), optional
        For splitters that want them, such as GroupKFold.
    random_state : int, RandomState or None, default=None
        Seed of the shuffle, for a number of folds only; None shuffles differently every time.
    task : {"auto", "classification", "regression"}, default="auto"
        "auto": regression where `y` has fractions, else classification; with a warning where whole numbers have many
        values, and do more than count the classes. `scoring` does not decide it.
    scoring : str or callable, optional
        Another score than accuracy and R²: a name of `sklearn.metrics.get_scorer_names`, or a function of (model, X, y)
        such as ``sklearn.metrics.make_scorer`` makes, which may call the model's ``predict`` and, for classification,
        ``predict_proba``. Unlike a model fitted on a fold, this one knows all labels; those that the fold does not
        train on have probability 0. Higher must be better.
    sample_weight : array-like of shape (n,) or float, optional
        Weights of the rows, in training sets and in scores, as ``fit`` and ``score`` of the models take them: a row of
        weight w is w equal rows. A `scoring` gets them as ``sample_weight=``, and must take them.
    metric_params : dict, optional
        As the models' parameter, ``{"w": weights of the columns}``, for each of the metrics.
    n_jobs : int or None, default=None
        As the models' parameter: None means all threads.
    progress : bool, optional
        Whether to show a progress bar; None shows it on a terminal.

    Returns
    -------
    KNNCrossValidation
        Scores per metric, k and fold, predictions, a table, the best setting, a plot.

    Warns
    -----
    UserWarning
        If ``task="auto"`` takes whole numbers of many values for labels.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of the above, a training set has fewer rows than a k that was asked for (with
        `sample_weight`: weighs less), or a fold trains on a row that it tests.

    Notes
    -----
    Where a fold tests a single row, as in LeaveOneOut, R² and every `scoring` is not a mean over folds but computed
    once, over all predictions together (see `KNNCrossValidation.pooled`); accuracy is the same either way, and is
    computed so with `sample_weight`.

    Cost: n² D differences per metric, whatever the numbers of k and folds, if each row is tested once and each fold
    trains on all others; as many for each repeat of RepeatedKFold. Folds of another kind (ShuffleSplit,
    TimeSeriesSplit) cost the differences between their test and training rows. `scoring` is one call of the scorer for
    each k and fold. Memory beside `X`: n times the largest k distances and indices; n numbers per setting. With
    `sample_weight` it is as many as some row needs to reach the largest k, and rows among light ones are searched
    again.

    Ties in distance go to the smaller row of `X`, which is the smaller row of the training set for every splitter
    that keeps training rows in order, as all of scikit-learn's do except ShuffleSplit and its kin.

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
    names = _several(metrics, "metrics")
    kernels_names = [checked_metric(name) for name in names]
    wanted = () if n_neighbors is None else _several(n_neighbors, "n_neighbors")
    wanted = tuple(parameters.positive_integer(k, "n_neighbors") for k in wanted)
    check_weights(weights)
    n_threads = parameters.threads(n_jobs)
    if task not in ("auto", "classification", "regression"):
        raise ValueError(f"task is {task!r}; it must be 'auto', 'classification' or 'regression'")
    check_values(X, "X")
    if task == "auto":
        check_values(y, "y")  # dates may be labels, but are more often quantities
    y = check_numbers(y) if task == "regression" else check_labels(y)
    checked, target = check_X_y(X, _outputs(y), multi_output=True)
    if task == "auto":
        task = "regression" if type_of_target(target).startswith("continuous") else "classification"
        if task == "classification":
            _warn_of_quantities(target)
    weight = checked_weight_with_sum(sample_weight, len(checked))
    evaluator = EVALUATORS[task](checked, target, scoring, weight)
    x, _, _ = distances_arguments.pair(checked)
    n = len(x)
    searches, smallest = _searches(_splitter(cv, evaluator, random_state).split(x, target, groups), n, weight)
    ks = wanted or tuple(k for k in _DEFAULT_NEIGHBORS if k <= smallest) or (1,)
    if max(ks) > smallest:
        has = f"has {smallest} rows" if weight is None else f"weighs {smallest:g}"
        raise ValueError(f"n_neighbors is {max(ks)}; the smallest training set {has}")

    tests = [test for search in searches for test in search.tests]
    once = (np.bincount(np.concatenate(tests), minlength=n) == 1).all()
    pooled = not evaluator.scores_single_rows and min(map(len, tests)) == 1
    scores = np.empty((len(names), len(ks), 1 if pooled else len(tests)))
    predictions = np.empty((len(names), len(ks), *target.shape), evaluator.dtype) if once else None
    work = len(names) * sum(search.queries(n) for search in searches)
    # `disable=None` shows the bar on a terminal only.
    hidden = None if progress is None else not progress
    with tqdm(total=work, unit="row", disable=hidden) as bar, silent(when=not bar.disable):
        weighed = None if weight is None else RowWeights(weight)
        find = partial(
            _neighbors,
            x=x,
            k=max(ks),
            weighed=weighed,
            progress=bar.update,
            metric_params=metric_params,
            n_threads=n_threads,
        )
        for place, (name, metric) in enumerate(zip(names, kernels_names, strict=True)):
            bar.set_description(name)
            scored = 0
            for some in [searches] if pooled else [[search] for search in searches]:
                found = [find(search, metric=metric) for search in some]
                if weighed is not None and len(found) > 1:  # each took as many as its training rows need
                    width = max(indices.shape[1] for _, indices in found)
                    found = [padded(*of_search, width) for of_search in found]
                distances, neighbors = (_joined(parts) for parts in zip(*found, strict=True))
                rows = _joined([test for search in some for test in search.tests])
                sizes = np.array([len(rows)] if pooled else [len(test) for test in some[0].tests])
                folds = slice(scored, scored + len(sizes))
                scored += len(sizes)
                for column, k in enumerate(ks):
                    if weighed is None:
                        counted = neighbors[:, :k], weights_of(distances[:, :k], weights, rows)
                    else:
                        places = weighed.places(distances, neighbors, k)
                        counted = places.indices, places.weights(weights, rows)
                    predicted = evaluator.predict(*counted)
                    scores[place, column, folds] = evaluator.scores(predicted, *counted, rows, sizes)
                    if predictions is not None:
                        predictions[place, column, rows] = predicted
    test_fold = searches[0].test_fold(n) if len(searches) == 1 and searches[0].train is None else None
    named = scoring if scoring is None or isinstance(scoring, str) else getattr(scoring, "__name__", repr(scoring))
    return KNNCrossValidation(task, names, ks, scores, test_fold, named, pooled, predictions, metric_params)


def _several(value: Any, name: str) -> tuple[Any, ...]:
    """Return one value or several as a tuple."""
    one = isinstance(value, str) or not isinstance(value, Iterable) or getattr(value, "shape", None) == ()
    values = (value,) if one else tuple(value)
    if not values:
        raise ValueError(f"{name} is empty; at least one is needed")
    return values


def _outputs(y: Any) -> NDArray[Any]:
    """Return the targets as (n,), or as (n, outputs) of several outputs."""
    if y is None:
        raise ValueError("y is None; a label or a number for each row is needed")
    if issparse(y):
        raise TypeError(f"y is sparse ({type(y).__name__}); pass a dense array of shape (n,)")
    shape = np.shape(y)
    targets: NDArray[Any] = np.asarray(y) if len(shape) == 2 and shape[1] > 1 else column_or_1d(y)
    return targets


def _warn_of_quantities(y: NDArray[Any]) -> None:
    """Warn of whole numbers with many values that are rare, or that do not just number classes."""
    if y.dtype.kind not in "iuf":
        return
    for column in y.reshape(len(y), -1).T:
        values = np.unique(column)
        numbering = values[0] in (0, 1) and values[-1] - values[0] == len(values) - 1
        if len(values) > _FEW_CLASSES and not (numbering and len(y) >= _FEW_ROWS * len(values)):
            warnings.warn(
                f"y has {len(values)} different whole numbers, which are taken for labels; "
                "give task='regression' if they are quantities, task='classification' if not",
                stacklevel=3,
            )
            return


def _splitter(cv: Any, evaluator: Evaluator, random_state: Any) -> Any:
    if cv is None or isinstance(cv, Integral):
        return evaluator.folds(5 if cv is None else int(cv), shuffle=True, random_state=random_state)
    if random_state is not None:
        raise ValueError("random_state shuffles the folds of a number cv; a splitter has its own")
    return check_cv(cv)


class _Search(NamedTuple):
    """Folds whose neighbours are found together.

    Either they train on all rows but their own, and no row is tested twice; or it is one fold with training rows of its
    own, in ascending order.
    """

    tests: list[NDArray[np.intp]]
    train: NDArray[np.intp] | None = None

    def test_fold(self, n: int) -> NDArray[np.intp]:
        """Return for each of n rows the place in `tests` where it is, -1 for none."""
        folds = np.full(n, -1)
        folds[np.concatenate(self.tests)] = np.repeat(np.arange(len(self.tests)), [len(test) for test in self.tests])
        return folds

    def queries(self, n: int) -> int:
        """Return how many rows are looked for: all n, or those tested where these are the fewer half."""
        tested = sum(map(len, self.tests))
        return n if self.train is None and 2 * tested > n else tested


def _searches(
    splits: Iterable[tuple[Any, Any]], n: int, weight: NDArray[np.float64] | None
) -> tuple[list[_Search], float]:
    """Return the searches that serve all folds, in their order, and the size of the smallest training set.

    The size of rows is their number, or what they weigh.
    """
    every = np.arange(n)
    searches: list[_Search] = []
    tested = np.zeros(n, bool)  # by the last search, as long as it may go on
    smallest: float = np.inf
    for fold, (train, test) in enumerate(splits):
        test = every[test]  # row numbers, also from a mask
        ascending = isinstance(train, np.ndarray) and train.dtype == np.intp and _ascends(train, n)
        if not ascending:
            train = np.sort(every[train])
            ascending = _ascends(train, n)  # unless rows are there twice
        for rows, verb in ((train, "trains on"), (test, "tests")):
            if not len(rows):
                raise ValueError(f"fold {fold} of cv {verb} no row")
        overlapping = train.take(np.searchsorted(train, test), mode="clip") == test
        if overlapping.any():
            row = test[overlapping.argmax()]
            raise ValueError(f"fold {fold} of cv has row {row} twice; it must not test what it trains on")
        if weight is not None and not weight[test].any() and len(test) > 1:
            raise ValueError(f"fold {fold} of cv tests only rows of weight 0")
        smallest = min(smallest, len(train) if weight is None else weight[train].sum())
        distinct = ascending and (len(test) == 1 or len(np.unique(test)) == len(test))
        if not distinct or len(train) + len(test) != n:
            searches.append(_Search([test], train))
        elif searches and searches[-1].train is None and not tested[test].any():
            searches[-1].tests.append(test)
        else:
            searches.append(_Search([test]))
            tested[:] = False
        tested[test] = True
    if not searches:
        raise ValueError("cv has no folds")
    return searches, smallest


def _ascends(rows: NDArray[np.intp], n: int) -> bool:
    """Whether these are different ones of n rows, in ascending order."""
    return len(rows) > 0 and rows[0] >= 0 and rows[-1] < n and bool((rows[1:] > rows[:-1]).all())


def _neighbors(
    search: _Search,
    x: NDArray[Any],
    k: int,
    weighed: RowWeights | None,
    progress: Callable[[int], object],
    **told: Any,
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return distances and neighbours (rows of `x`) of the tested rows, fold after fold.

    There are k of each row, or of rows that are `weighed` as many as weigh k; -1 fills up what others have more.
    `told` is what `k_nearest` takes as well.
    """
    n = len(x)
    if weighed is not None:
        found = _weighed_neighbors(search, x, k, weighed, **told)
        progress(search.queries(n))
        return found
    if search.queries(n) == n and search.train is None:
        groups, rows = search.test_fold(n), np.concatenate(search.tests)
        distances, neighbors = nearest.k_nearest_outside_group(x, groups, k, progress=progress, **told)
        return distances[rows], neighbors[rows]
    parts = []
    for test in search.tests:
        train = np.delete(np.arange(n), test) if search.train is None else search.train
        distances, places = nearest.k_nearest(x[test], x[train], k, **told)
        parts.append((distances, train[places]))
        progress(len(test))
    return _joined([distances for distances, _ in parts]), _joined([rows for _, rows in parts])


def _weighed_neighbors(
    search: _Search, x: NDArray[Any], k: int, weighed: RowWeights, **told: Any
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return what `_neighbors` does, of rows that are weighed."""
    tested = np.concatenate(search.tests)
    if search.train is not None:
        weighed = RowWeights(weighed.weight[search.train])
        train, where = x[search.train], weighed.present

        def among_train(rows: NDArray[np.intp], count: int) -> tuple[NDArray[Any], NDArray[np.intp]]:
            return nearest.k_nearest(x[tested[rows]], train, count, where=where, **told)

        distances, places = weighed.nearest(among_train, np.arange(len(tested)), k, weighed.n_present)
        return distances, np.where(places < 0, -1, search.train[places])

    folds = search.test_fold(len(x))

    def outside(rows: NDArray[np.intp], count: int) -> tuple[NDArray[Any], NDArray[np.intp]]:
        queries = x if len(rows) == len(x) else x[rows]
        groups = folds if queries is x else folds[rows]
        found = nearest.k_nearest(queries, x, count, groups=(groups, folds), where=weighed.present, **told)
        return (found[0][rows], found[1][rows]) if queries is x else found

    return weighed.nearest(outside, tested, k, weighed.n_present)


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the arrays one after the other, without a copy of a single one."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
