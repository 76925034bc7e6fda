"""Many settings of one estimator: those that can share their batches are trained together.

What `SGDClassifier` and `SGDRegressor` do with a batch costs less than to fetch it, so settings that take the same
batches (same batch size, sampling, loss, seed ...) are trained as one stack of weights: the rows are read once for
all, and one pass over the validation set evaluates all. Settings that differ in their length only are checkpoints of
one run. Every run has the same bits as a fit by itself.
"""

from __future__ import annotations

import inspect
import math
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone, is_classifier
from sklearn.model_selection import ParameterGrid
from sklearn.utils import check_random_state
from sklearn.utils.validation import has_fit_parameter

from . import _estimators
from ._fitting import COLUMNS, DivergenceWarning, History
from ._progress import SweepProgress
from ._sgd_fitting import SHARED, divergence, fit_together, identity, prepare
from .sgd import SGDClassifier, SGDRegressor

__all__ = ["SweepResult", "sweep"]

_FIGURES = COLUMNS[3:]


@dataclass(frozen=True, eq=False)
class SweepResult:
    """Result of `sweep`; ``print`` shows it as a table.

    Attributes
    ----------
    params : list of dict
        The setting of each run: the parameters that are varied.
    estimators : list of estimators
        The fitted model of each run; one that Ctrl-C left out is not fitted.
    histories : list of dict of ndarray
        The `history_` of each; for models without one a single row.
    statuses : list of str
        How each run ended: "max_iter", "converged", "stopped" (by a callback), "diverged", "interrupted" (Ctrl-C),
        "fitted" (a model that does not say more) or "left out".
    select : str
        The column of `table` that decides which run is the best.
    score_name : str
        What the scores are.
    """

    params: list[dict[str, Any]]
    estimators: list[Any] = field(repr=False)
    histories: list[dict[str, NDArray[Any]]] = field(repr=False)
    statuses: list[str] = field(repr=False)
    select: str
    score_name: str

    @cached_property
    def table(self) -> dict[str, list[Any]]:
        """One list per column, one entry per run: ``pandas.DataFrame(result.table)`` takes it as it is.

        A column for each varied parameter, then "status", and of the step whose weights the model has: "step",
        "epoch", "train_loss", "train_score", "validation_loss" and "validation_score". "seconds" is the time from
        the beginning of the training to the end of the run; runs that train together share it.
        """
        names = list(dict.fromkeys(name for params in self.params for name in params))
        columns: dict[str, list[Any]] = {name: [params.get(name) for params in self.params] for name in names}
        rows = [_kept_row(*run) for run in zip(self.estimators, self.histories, self.statuses, strict=True)]
        columns["status"] = list(self.statuses)
        for name in ("step", "epoch", *_FIGURES):
            columns[name] = [row[name] for row in rows]
        columns["seconds"] = [float(h["seconds"][-1]) if len(h["seconds"]) else math.nan for h in self.histories]
        return columns

    @property
    def best_index(self) -> int | None:
        """Place of the best run, the first of equals; None if no run has a finite figure."""
        sign = -1.0 if self.select.endswith("loss") else 1.0
        values = sign * np.array(self.table[self.select], np.float64)
        values[~np.isfinite(values)] = -np.inf
        return int(values.argmax()) if len(values) and values.max() > -np.inf else None

    @property
    def best_params(self) -> dict[str, Any] | None:
        """The best setting."""
        return None if self.best_index is None else self.params[self.best_index]

    @property
    def best_estimator(self) -> Any:
        """The model of the best run."""
        return None if self.best_index is None else self.estimators[self.best_index]

    @property
    def best_value(self) -> float:
        """What the best run has in the column `select`."""
        return math.nan if self.best_index is None else float(self.table[self.select][self.best_index])

    def plot(self, *args: Any, **kwargs: Any) -> Any:
        """Draw the runs as small multiples; see `fastml.plot.sweep`."""
        from . import plot

        return plot.sweep(self, *args, **kwargs)

    def __str__(self) -> str:
        texts = [[name, *map(_text, values)] for name, values in self.table.items() if not _is_empty(values)]
        widths = [max(map(len, column)) for column in texts]
        lines = ["  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in zip(*texts, strict=True)]
        if self.best_index is not None:
            lines[self.best_index + 1] += "  best"
        return "\n".join(lines)


def sweep(
    estimator: Any,
    grid: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    X: ArrayLike,
    y: ArrayLike,
    X_val: ArrayLike | None = None,
    y_val: ArrayLike | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    sample_weight_val: ArrayLike | None = None,
    select: str = "auto",
    progress: bool | None = None,
) -> SweepResult:
    """Fit an estimator with many settings, together where that is possible.

    Together are trained those settings of `SGDClassifier` or `SGDRegressor` that differ in nothing but
    `penalty`, `alpha`, `l1_ratio`, `learning_rate`, `eta0`, `power_t`, `momentum`, `nesterovs_momentum`, `average`,
    `init`, `init_scale`, and in when to end: `max_iter`, `max_steps`, `tol`, `n_iter_no_change`, `keep_best`. All
    other estimators (pipelines too) are fitted one by one.

    Parameters
    ----------
    estimator : estimator
        What is cloned for each run.
    grid : dict of lists, or iterable of dicts
        All combinations of these values; or settings one by one, such as scikit-learn's ParameterSampler
        gives.
    X, y : array-like
        Training rows and targets.
    X_val, y_val : array-like, optional
        The validation set. Without it `SGDClassifier` and `SGDRegressor` set a part of the training rows aside
        if they have ``early_stopping=True``.
    sample_weight, sample_weight_val : array-like, optional
        What each row of the training and validation set counts.
    select : {"auto", "validation_score", "validation_loss", "train_score", "train_loss"}, default="auto"
        Which figure decides what is best. "auto" is the validation score, or the validation loss for
        estimators with ``scoring="loss"``; without validation set the training score or loss.
    progress : bool, optional
        Whether to show a progress bar over all runs; None shows it on a terminal.

    Returns
    -------
    SweepResult
        Models, histories, a table, the best setting, a plot.

    Notes
    -----
    A run that diverges ends there, keeps its last finite weights, and does not disturb the others; one warning
    in the end names how many did. Ctrl-C ends the sweep: what has been trained so far is returned.

    Where `random_state` is None, or a RandomState, one number is drawn for all runs, so that they see the same
    batches; the models have it as their parameter.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.preprocessing import scale
    >>> from fastml import SGDClassifier, sweep
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = scale(X)
    >>> model = SGDClassifier("log_loss", learning_rate="constant", max_iter=20, tol=None, random_state=0)
    >>> found = sweep(model, {"eta0": [1e-4, 0.01, 1.0], "batch_size": [10, 100]}, X[:400], y[:400], X[400:], y[400:])
    >>> found.best_params
    {'batch_size': 10, 'eta0': 0.01}
    >>> round(found.best_value, 3)
    0.988
    """
    if not isinstance(grid, Iterable):
        raise TypeError(f"grid is {grid!r}; it must be a dictionary of lists, or settings as dictionaries")
    params = [dict(setting) for setting in (ParameterGrid(grid) if isinstance(grid, Mapping) else grid)]
    if not params:
        raise ValueError("grid is empty; at least one setting is needed")
    if select != "auto":
        _estimators.one_of(select, "select", _FIGURES)
    if (X_val is None) != (y_val is None):
        raise ValueError("X_val and y_val go together; one of them is missing")
    models = [clone(estimator).set_params(**setting) for setting in params]
    for model in models:
        if isinstance(model, (SGDClassifier, SGDRegressor)):
            model._check_parameters()  # of all of them, before hours go into the first
    _share_seed(models)
    data = _Data(X, y, X_val, y_val, sample_weight, sample_weight_val)
    histories: list[dict[str, NDArray[Any]]] = [History().arrays() for _ in models]
    statuses = ["left out"] * len(models)
    diverged = []
    try:
        with SweepProgress(len(models), progress) as bar:
            for places in _groups(models):
                outcomes = _fit([models[place] for place in places], data, bar)
                for place, (history, status, trouble) in zip(places, outcomes, strict=True):
                    histories[place], statuses[place] = history, status
                    diverged += [f"{params[place]}: {trouble}"] if trouble else []
                bar.complete(len(models) - statuses.count("left out"))
                if "interrupted" in statuses:
                    break
    except KeyboardInterrupt:
        statuses[places[0]] = "interrupted"
    if "interrupted" in statuses:
        warnings.warn("the sweep was interrupted; it returns what was trained until then", stacklevel=2)
    if diverged:
        text = f"{len(diverged)} of {len(models)} runs diverged. The first of them, {diverged[0]}"
        warnings.warn(text, DivergenceWarning, stacklevel=2)
    return SweepResult(
        params, models, histories, statuses, _selected(select, estimator, histories), _score_name(estimator)
    )


@dataclass(frozen=True, eq=False)
class _Data:
    """The arguments of `sweep` that are data."""

    X: Any
    y: Any
    X_val: Any
    y_val: Any
    sample_weight: Any
    sample_weight_val: Any

    def arguments(self) -> dict[str, Any]:
        """Return all but `X` and `y`, as `SGDClassifier.fit` names them."""
        return {name: value for name, value in vars(self).items() if name not in ("X", "y") and value is not None}


def _share_seed(models: list[Any]) -> None:
    """Give all models whose random state is not a number the same one."""
    seed = None
    for model in models:
        state = model.get_params(deep=False).get("random_state", 0)
        if not isinstance(state, (int, np.integer)):
            seed = check_random_state(state).randint(np.iinfo(np.int32).max) if seed is None else seed
            model.set_params(random_state=seed)


def _groups(models: list[Any]) -> list[list[int]]:
    """Return the places of models that can train together."""
    groups: dict[Any, list[int]] = {}
    for place, model in enumerate(models):
        together = _has_our_fit(model) and not model.warm_start
        groups.setdefault((type(model), identity(model, SHARED)) if together else place, []).append(place)
    return list(groups.values())


def _has_our_fit(model: Any) -> bool:
    """Say whether a fit of this model is nothing but `fit_together`; a derived class may do more."""
    # A callback of scikit-learn's protocol follows one call of `fit`.
    return type(model) in (SGDClassifier, SGDRegressor) and not hasattr(model, "_skl_callbacks")


def _fit(models: list[Any], data: _Data, bar: SweepProgress) -> list[tuple[dict[str, NDArray[Any]], str, str | None]]:
    """Fit models that can train together, or a single one; return history, status and what went wrong of each."""
    if not _has_our_fit(models[0]):
        return [_fit_alone(models[0], data)]
    prepared = prepare(models[0], data.X, data.y, **data.arguments())
    learned = {name: value for name, value in vars(models[0]).items() if name.endswith("_")}
    for model in models[1:]:
        vars(model).update(learned)
    runs = fit_together(models, prepared, progress=bar.of(prepared.batches))
    troubles = [divergence(*one) if one[1].diverged_at else None for one in zip(models, runs, strict=True)]
    return [(run.history.arrays(), run.status, trouble) for run, trouble in zip(runs, troubles, strict=True)]


def _fit_alone(model: Any, data: _Data) -> tuple[dict[str, NDArray[Any]], str, None]:
    start = time.perf_counter()
    arguments = data.arguments()
    model.fit(data.X, data.y, **{name: v for name, v in arguments.items() if has_fit_parameter(model, name)})
    history = getattr(model, "history_", None)
    if history is None:
        row = dict.fromkeys(COLUMNS, math.nan) | {"step": 0, "seconds": time.perf_counter() - start}
        row["train_score"] = model.score(data.X, data.y)
        if data.X_val is not None:
            takes_weights = "sample_weight" in inspect.signature(model.score).parameters
            weight = {"sample_weight": data.sample_weight_val} if takes_weights else {}
            row["validation_score"] = model.score(data.X_val, data.y_val, **weight)
        single = History()
        single.add(**row)
        history = single.arrays()
    return history, "fitted", None


def _kept_row(model: Any, history: dict[str, NDArray[Any]], status: str) -> dict[str, float]:
    """Return the row of a history that belongs to the weights of the model."""
    rows = len(history["step"])
    best = getattr(model, "best_step_", None)
    # The last row of a run that diverged is about weights that are gone.
    at = int(np.flatnonzero(history["step"] == best)[0]) if best is not None else rows - 1 - (status == "diverged")
    if at < 0:
        return dict.fromkeys(COLUMNS, math.nan) | {"step": 0}
    return {name: values[at].item() for name, values in history.items()}


def _selected(select: str, estimator: Any, histories: list[dict[str, NDArray[Any]]]) -> str:
    """Return the column that `select` means."""
    if select != "auto":
        return select
    by_loss = getattr(estimator, "scoring", None) == "loss"

    def known(name: str) -> bool:
        return any(np.isfinite(history[name]).any() for history in histories)

    part = "validation" if known("validation_score") else "train"
    return f"{part}_loss" if by_loss or not known(f"{part}_score") else f"{part}_score"


def _score_name(estimator: Any) -> str:
    scoring = getattr(estimator, "scoring", None)
    if isinstance(scoring, str) and scoring != "loss":
        return scoring.replace("_", " ")
    return "accuracy" if is_classifier(estimator) else "R²"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_empty(values: list[Any]) -> bool:
    return all(isinstance(value, float) and math.isnan(value) for value in values)
