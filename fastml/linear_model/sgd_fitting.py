"""How `SGDClassifier` and `SGDRegressor` are fitted: one of them, or several that take the same batches.

`prepare` settles data and targets, `fit_together` trains, and gives each model what became of it. A fit of one model is
a fit of several with one member, so a sweep has the same results as its members one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..kernels.arguments import arrays
from ..training.batches import Array, Batches
from ..training.callbacks import Hooks
from ..training.data import settle
from ..training.history import Evaluations
from ..training.loop import loss_in_training, train
from ..training.outcomes import Ending, First, ending, max_steps, new_run, say_what_became
from ..training.progress import Progress
from ..training.run import Run
from ._optimal_steps import step_sizes
from ._sgd_columns import LinearColumns, LinearTask, Member, Weights

__all__ = ["SHARED", "Prepared", "ending_of", "fit_one", "fit_together", "identity", "prepare"]

#: Parameters that must be the same in models that train together.
SHARED = (
    "loss", "multi_class", "epsilon", "fit_intercept", "batch_size", "sampling", "drop_last", "early_stopping",
    "validation_fraction", "scoring", "evaluate_every", "evaluations_per_epoch", "train_metrics", "class_weight",
    "random_state", "n_jobs",
)  # fmt: skip

#: Parameters on which a model's way depends beside those. Models that differ in neither are one column.
TRAJECTORY = (
    "penalty", "alpha", "l1_ratio", "learning_rate", "eta0", "power_t", "momentum", "nesterovs_momentum", "average",
    "init", "init_scale",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Prepared:
    """What models that train together share.

    Attributes
    ----------
    task : LinearTask
        Loss and training rows.
    n_scores : int
        Scores of a row, which are rows of `coef_`.
    batches : Batches
        The order of the rows.
    evaluations : Evaluations
        When to evaluate, and on what.
    init : SeedSequence
        Seed of random initial weights.
    given : tuple of array and None
        Initial weights and intercepts from the caller.
    data : tuple
        Rows, targets and weights as they came, for callbacks.
    idle : bool
        Whether no row counts.
    """

    task: LinearTask
    n_scores: int
    batches: Batches
    evaluations: Evaluations
    init: np.random.SeedSequence
    given: tuple[Array | None, Array | None]
    data: tuple[Array, Array, Array | None]
    idle: bool


def prepare(
    model: Any,
    X: ArrayLike,
    y: ArrayLike,
    *,
    X_val: ArrayLike | None = None,
    y_val: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    sample_weight_val: ArrayLike | None = None,
    coef_init: ArrayLike | None = None,
    intercept_init: ArrayLike | None = None,
    classes: ArrayLike | None = None,
    partial: bool = False,
) -> Prepared:
    """Check data and parameters, and settle what a training needs; see `_SGD.fit`."""
    settled = settle(
        model, X, y, X_val=X_val, y_val=y_val, sample_weight=sample_weight, sample_weight_val=sample_weight_val,
        classes=classes, partial=partial, sampling=model.sampling,
    )  # fmt: skip
    targets = settled.targets
    task = LinearTask(
        targets.loss,
        settled.rows,
        bool(model.fit_intercept),
        float(getattr(model, "epsilon", 1.0)),
        settled.n_threads,
        settled.score,
    )
    given = _given(coef_init, intercept_init, targets.n_scores, settled.rows.X)
    return Prepared(
        task, targets.n_scores, settled.batches, settled.evaluations, settled.init, given, settled.data, settled.idle
    )


def _given(coef: Any, intercept: Any, n_scores: int, x: Array) -> tuple[Array | None, Array | None]:
    """Return initial weights in the shapes (C, D) and (C,)."""
    wanted = {"coef_init": (coef, (n_scores, x.shape[1])), "intercept_init": (intercept, (n_scores,))}
    found: list[Array | None] = []
    for name, (value, shape) in wanted.items():
        if value is None:
            found.append(None)
            continue
        array = arrays.real(value, name).astype(x.dtype)
        if array.size != math.prod(shape) or array.ndim > len(shape):
            raise ValueError(f"{name} has shape {array.shape}; it must be {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has entries that are NaN or infinite in {x.dtype}; they must be finite")
        found.append(array.reshape(shape))
    return found[0], found[1]


def fit_together(
    models: Sequence[Any], prepared: Prepared, *, partial: bool = False, progress: Any = None
) -> list[Run]:
    """Train models that differ in parameters that are not in `SHARED`, and let each take its result.

    Models that do not differ in `TRAJECTORY` either share a column: they are checkpoints of one training.
    """
    columns: dict[Any, int] = {}
    places = [columns.setdefault(identity(model, TRAJECTORY), len(columns)) for model in models]
    firsts = [models[places.index(column)] for column in range(len(columns))]
    again = partial and hasattr(firsts[0], "coef_")
    done = firsts[0].t_ - 1 if again else 0
    state = firsts[0]._state if again else None
    trained = LinearColumns(
        prepared.task, [_member(model, prepared, again, state, done) for model in firsts], done=done, state=state
    )
    steps = prepared.batches.steps
    runs = [
        new_run(model, column, prepared.batches, prepared.evaluations, partial=partial, idle=prepared.idle)
        for model, column in zip(models, places, strict=True)
    ]

    hooks = None
    if len(models) == 1 and not partial:
        x, targets, weight = prepared.data
        epochs = -(-runs[0].max_steps // steps)
        hooks = Hooks(models[0], epochs, x, targets, weight, lambda: models[0]._attributes(trained.weights(0)))
    rates = [step_sizes(model, prepared.task, prepared.batches) for model in firsts]
    train(trained, runs, prepared.batches, rates, prepared.evaluations, hooks=hooks, progress=progress)
    for model, run in zip(models, runs, strict=True):
        model._take(run, done, -(-run.steps // steps))
    if hooks is not None:
        hooks.end()
    return runs


def fit_one(model: Any, prepared: Prepared, *, partial: bool = False) -> None:
    """Train one model, show its progress, and say what went wrong."""
    if prepared.idle and hasattr(model, "t_"):
        return
    if model.verbose and not partial:
        with Progress(max_steps(model, prepared.batches), prepared.batches, type(model).__name__) as progress:
            (run,) = fit_together([model], prepared, progress=progress)
    else:
        (run,) = fit_together([model], prepared, partial=partial)
    say_what_became(model, run, prepared.evaluations, _first(model, prepared), partial=partial)


def ending_of(model: Any, run: Run, prepared: Prepared) -> Ending:
    """Say how a run of `fit_together` ended."""
    return ending(model, run, _first(model, prepared), partial=False)


def _first(model: Any, prepared: Prepared) -> First:
    """Return what there was before any step."""

    def member() -> Member:
        return _member(model, prepared, again=False, state=None, done=0)

    def penalty() -> float:
        begin = member()
        coef = begin.weights.coef.astype(np.float64)
        with np.errstate(over="ignore"):
            return float(0.5 * begin.l2 * np.square(coef).sum() + begin.l1 * np.abs(coef).sum())

    return First(penalty, lambda: loss_in_training(LinearColumns(prepared.task, [member()]), prepared.batches))


def identity(model: Any, names: Sequence[str]) -> tuple[Any, ...]:
    """Return something that is equal for models with the same values of these parameters."""
    values = [getattr(model, name, None) for name in names]
    # Arrays, functions and the like are the same if they are one object: comparing them takes more than ==.
    return tuple((type(v), v) if isinstance(v, (str, int, float)) or v is None else id(v) for v in values)


def _member(model: Any, prepared: Prepared, again: bool, state: Any, done: int) -> Member:
    alpha, share = model.alpha, {"l2": 0.0, "l1": 1.0, "elasticnet": model.l1_ratio, None: 0.0}[model.penalty]
    strength = 0.0 if model.penalty is None else alpha
    average_from = int(model.average) if model.average else None
    if average_from is not None:
        # An average of steps before goes on; there may be none, and then it begins with the next step at the earliest.
        goes_on = average_from <= done and state is not None and state["averaged_from"] <= done
        average_from = state["averaged_from"] if goes_on else max(average_from, done + 1)
    return Member(
        _initial(model, prepared, again),
        l2=strength * (1 - share),
        l1=strength * share,
        momentum=model.momentum,
        nesterov=model.nesterovs_momentum,
        average_from=average_from,
    )


def _initial(model: Any, prepared: Prepared, again: bool) -> Weights:
    """Return what a model begins with: given, from before, or new weights."""
    x = prepared.task.rows.X
    shape = (prepared.n_scores, x.shape[1])
    if again or (model.warm_start and hasattr(model, "coef_")):
        if np.atleast_2d(model.coef_).shape != shape:
            raise ValueError(f"coef_ of the last fit has shape {model.coef_.shape}; a warm start needs {shape}")
        begin = Weights(model.coef_.reshape(shape).astype(x.dtype), model.intercept_.astype(x.dtype))
    elif model.init == "zeros":
        begin = Weights(np.zeros(shape, x.dtype), np.zeros(shape[0], x.dtype))
    else:
        rng = np.random.default_rng(prepared.init)
        normal = rng.normal(scale=model.init_scale, size=(shape[0], shape[1] + 1)).astype(x.dtype)
        begin = Weights(normal[:, :-1], normal[:, -1] * bool(model.fit_intercept))
    coef, intercept = prepared.given
    return Weights(begin.coef if coef is None else coef, begin.intercept if intercept is None else intercept)
