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
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state
from sklearn.utils.validation import has_fit_parameter

from ..linear_model import SGDClassifier, SGDRegressor
from ..linear_model.sgd_fitting import SHARED, fit_together, outcome_of, parameter_key, prepare_together
from ..training.history import COLUMNS, History
from ..training.outcomes import Outcome, last_outcome, undecided
from ..training.progress import SweepProgress
from ..training.run import DivergenceWarning
from ..utils import parameters

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
        How each run ended: "max_iter", "converged", "stopped" (by a callback), "diverged" (of which `fit` warns: a loss
        that is not finite, or in the end far above the first one), "interrupted" (Ctrl-C), "fitted" (a model that does
        not say more) or "left out".
    kept : list of int or None
        For each run the place in its history that is about the weights that the model has; None if there is none.
    select : str
        The column of `table` that decides which run is the best.
    score_name : str
        What the scores are.
    """

    params: list[dict[str, Any]]
    estimators: list[Any] = field(repr=False)
    histories: list[dict[str, NDArray[Any]]] = field(repr=False)
    statuses: list[str] = field(repr=False)
    kept: list[int | None] = field(repr=False)
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
        rows = [_row(*run) for run in zip(self.histories, self.kept, strict=True)]
        columns["status"] = list(self.statuses)
        for name in ("step", "epoch", *_FIGURES):
            columns[name] = [row[name] for row in rows]
        columns["seconds"] = [float(h["seconds"][-1]) if len(h["seconds"]) else math.nan for h in self.histories]
        return columns

    @property
    def best_index(self) -> int | None:
        """Place of the best run, the first of equals; None if no run that did not diverge has a finite figure."""
        sign = -1.0 if self.select.endswith("loss") else 1.0
        values = sign * np.array(self.table[self.select], np.float64)
        values[~np.isfinite(values) | (np.array(self.statuses) == "diverged")] = -np.inf
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
        from .. import plot

        return plot.sweep(self, *args, **kwargs)

    def __str__(self) -> str:
        texts = [[name, *map(_text, values)] for name, values in self.table.items() if not _is_empty(values)]
        widths = [max(map(len, column)) for column in texts]
        lines = ["  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in zip(*texts, strict=True)]
        if self.best_index is not None:
            lines[self.best_index + 1] += "  best"
        return "\n".join(lines)


def sweep(
    estimator: BaseEstimator,
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
    sample_weight, sample_weight_val : array-like or float, optional
        What each row of the training and validation set counts.
    select : {"auto", "validation_score", "validation_loss", "train_score", "train_loss"}, default="auto"
        Which figure decides what is best. "auto" is the validation score, or the validation loss for
        estimators with ``scoring="loss"`` and where there is no score (R² of validation targets that are all the
        same); without validation set the training score or loss. A figure that the estimator does not give is
        refused: one without a history has scores only.
    progress : bool, optional
        Whether to show a progress bar over all runs; None shows it on a terminal.

    Returns
    -------
    SweepResult
        Models, histories, a table, the best setting, a plot.

    Notes
    -----
    A run that diverges ends there, keeps its last finite weights, and does not disturb the others; one warning
    in the end names how many did. Those whose loss is finite in the end, but far above the first one, are counted
    too: they are what a single `fit` warns of. None of them is the best. If there is no other run, or none whose
    figure is finite, a warning says that there is no best one. Ctrl-C ends the sweep: what has been trained so far
    is returned.

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
        parameters.one_of(select, "select", _FIGURES)
    if (X_val is None) != (y_val is None):
        raise ValueError("X_val and y_val go together; one of them is missing")
    models = [clone(estimator).set_params(**setting) for setting in params]
    for model in models:
        if isinstance(model, (SGDClassifier, SGDRegressor)):
            model._check_parameters()  # of all of them, before hours go into the first
    _share_seed(models)
    data = _Data(X, y, X_val, y_val, sample_weight, sample_weight_val)
    known = select == "auto" or all(map(_can_share_training, models))
    if select != "auto" and known:
        _check_select(select, models[0], {name for model in models for name in _figures_of(model, data)})
    fits = [_FitResult(History().arrays(), Outcome("left out", None, False)) for _ in models]
    interrupted = False
    try:
        with SweepProgress(len(models), progress) as bar:
            for places in _groups(models):
                found = _fit([models[place] for place in places], data, bar)
                for place, fit in zip(places, found, strict=True):
                    fits[place] = fit
                if not known and found[0].is_sound:  # of a single model
                    _check_select(select, models[places[0]], found[0].figures)
                    known = True
                bar.complete(sum(fit.outcome.status != "left out" for fit in fits))
                interrupted = any(fit.outcome.status == "interrupted" for fit in found)
                if interrupted:
                    break
    except KeyboardInterrupt:
        interrupted = True
        fits[places[0]] = _FitResult(History().arrays(), Outcome("interrupted", None, False))
    result = SweepResult(
        params,
        models,
        [fit.history for fit in fits],
        [fit.outcome.status for fit in fits],
        [_kept(model, fit) for model, fit in zip(models, fits, strict=True)],
        _selected(select, estimator, fits, X_val is not None),
        _score_name(estimator),
    )
    if interrupted:
        warnings.warn("the sweep was interrupted; it returns what was trained until then", stacklevel=2)
    for notice in dict.fromkeys(fit.notice for fit in fits if fit.notice):
        warnings.warn(notice, stacklevel=2)
    troubles = [f"{each}: {o.outcome.trouble}" for each, o in zip(params, fits, strict=True) if o.outcome.trouble]
    if troubles:
        none = "; there is no best one" if result.best_index is None else ""
        text = f"{len(troubles)} of {len(models)} runs diverged{none}. The first of them, {troubles[0]}"
        warnings.warn(text, DivergenceWarning, stacklevel=2)
    elif result.best_index is None and not interrupted:
        warnings.warn(f"there is no best run: none has a finite {result.select.replace('_', ' ')}", stacklevel=2)
    return result


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


def _share_seed(models: list[BaseEstimator]) -> None:
    """Give all models whose random state is not a number the same one."""
    seed = None
    for model in models:
        state = model.get_params(deep=False).get("random_state", 0)
        if not isinstance(state, (int, np.integer)):
            seed = check_random_state(state).randint(np.iinfo(np.int32).max) if seed is None else seed
            model.set_params(random_state=seed)


def _groups(models: list[BaseEstimator]) -> list[list[int]]:
    """Return the places of models that can train together."""
    groups: dict[Any, list[int]] = {}
    for place, model in enumerate(models):
        together = _can_share_training(model) and not model.warm_start
        groups.setdefault((type(model), parameter_key(model, SHARED)) if together else place, []).append(place)
    return list(groups.values())


def _can_share_training(model: BaseEstimator) -> bool:
    """Say whether a fit of this model is nothing but `fit_together`; a derived class may do more."""
    # A callback of scikit-learn's protocol follows one call of `fit`.
    return type(model) in (SGDClassifier, SGDRegressor) and not hasattr(model, "_skl_callbacks")


@dataclass(frozen=True, eq=False)
class _FitResult:
    """What became of a fit; `notice` is what else there is to say."""

    history: dict[str, NDArray[Any]]
    outcome: Outcome
    notice: str | None = None

    @property
    def is_sound(self) -> bool:
        """Whether the run came to an end."""
        return self.outcome.status not in ("diverged", "interrupted", "left out")

    @property
    def figures(self) -> set[str]:
        """Figures that the history has."""
        return {name for name in _FIGURES if not np.isnan(self.history[name]).all()}


def _figures_of(model: BaseEstimator, data: _Data) -> list[str]:
    """Return the figures that the history of a model will have, if nothing goes wrong."""
    figures = ["train_loss"] if model.train_metrics == "running" else ["train_loss", "train_score"]
    has_validation = data.X_val is not None or model.early_stopping
    return [*figures, "validation_loss", "validation_score"] if has_validation else figures


def _check_select(select: str, model: BaseEstimator, given: Collection[str]) -> None:
    if select not in given:
        names = ", ".join(name for name in _FIGURES if name in given) or "none"
        raise ValueError(
            f"select is {select!r}, a figure that {type(model).__name__} does not give here; it gives {names}"
        )


def _fit(models: list[BaseEstimator], data: _Data, bar: SweepProgress) -> list[_FitResult]:
    """Fit models that can train together, or a single one; return what became of each."""
    if not _can_share_training(models[0]):
        return [_fit_alone(models[0], data)]
    shared = prepare_together(models[0], data.X, data.y, **data.arguments())
    learned = {name: value for name, value in vars(models[0]).items() if name.endswith("_")}
    for model in models[1:]:
        vars(model).update(learned)
    runs = fit_together(models, shared, progress=bar.of(shared.data.batches))
    return [
        _FitResult(run.history.arrays(), outcome_of(model, run, shared), undecided(model, run, shared.data.evaluations))
        for model, run in zip(models, runs, strict=True)
    ]


def _fit_alone(model: BaseEstimator, data: _Data) -> _FitResult:
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
    last = model.steps[-1][1] if isinstance(model, Pipeline) else model
    outcome = last_outcome(last)
    if outcome is None or outcome.status not in ("diverged", "interrupted"):
        return _FitResult(history, Outcome("fitted", None, False))
    return _FitResult(history, outcome._replace(lost=outcome.lost and last is model))


def _kept(model: BaseEstimator, fit: _FitResult) -> int | None:
    """Return the place in a history that belongs to the weights of the model."""
    steps, best = fit.history["step"], getattr(model, "best_step_", None)
    if best is not None:
        return int(np.flatnonzero(steps == best)[0])
    rows = len(steps) - fit.outcome.lost
    return rows - 1 if rows > 0 else None


def _row(history: dict[str, NDArray[Any]], place: int | None) -> dict[str, float]:
    if place is None:
        return dict.fromkeys(COLUMNS, math.nan) | {"step": 0}
    return {name: values[place].item() for name, values in history.items()}


def _selected(select: str, estimator: BaseEstimator, fits: list[_FitResult], has_validation: bool) -> str:
    """Return the column that `select` means."""
    if select != "auto":
        return select
    scoring = getattr(estimator, "scoring", None)

    def known(name: str) -> bool:
        return any(np.isfinite(fit.history[name]).any() for fit in fits)

    part = "validation" if has_validation or known("validation_loss") or known("validation_score") else "train"
    by_loss = scoring == "loss" or (known(f"{part}_loss") and not known(f"{part}_score"))
    if part == "validation" and not isinstance(scoring, (str, type(None))):
        by_loss = False  # a score of one's own decides, or nothing does
    return f"{part}_loss" if by_loss else f"{part}_score"


def _score_name(estimator: BaseEstimator) -> str:
    scoring = getattr(estimator, "scoring", None)
    if isinstance(scoring, str) and scoring != "loss":
        return scoring.replace("_", " ")
    return "accuracy" if is_classifier(estimator) else "R²"


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_empty(values: list[Any]) -> bool:
    return all(isinstance(value, float) and math.isnan(value) for value in values)
