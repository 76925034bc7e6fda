"""How `SGDClassifier` and `SGDRegressor` are fitted: one of them, or several that take the same batches.

`prepare_together` makes of data and parameters what a training needs, `fit_together` trains, and gives each model what
became of it. A fit of one model is a fit of several, so a sweep has the same results as its models one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from ..kernels.arguments import arrays
from ..kernels.losses.table import LOSSES
from ..training.batches import Array
from ..training.callbacks import Hooks
from ..training.data import IterativeEstimator, TrainingData, prepare
from ..training.loop import mean_training_loss, train
from ..training.outcomes import Initial, Outcome, max_steps, new_run, outcome, solver_state, store_run, warn_of_outcome
from ..training.progress import Progress
from ..training.run import Run
from ._optimal_steps import step_sizes
from ._sgd_columns import LinearColumns, LinearTask, LinearWeights, ModelSettings

__all__ = [
    "SHARED",
    "SGDEstimator",
    "SharedTraining",
    "fit_one",
    "fit_together",
    "outcome_of",
    "parameter_key",
    "prepare_together",
]

#: Parameters that must be the same in models that train together.
SHARED = (
    "loss", "multi_class", "epsilon", "fit_intercept", "batch_size", "shuffle", "sampling", "drop_last",
    "early_stopping", "validation_fraction", "scoring", "evaluate_every", "evaluations_per_epoch", "train_metrics",
    "class_weight", "random_state", "n_jobs",
)  # fmt: skip

#: Parameters on which a model's way depends beside those. Models that differ in neither are one column.
TRAJECTORY = (
    "penalty", "alpha", "l1_ratio", "learning_rate", "eta0", "power_t", "momentum", "nesterovs_momentum", "average",
    "init", "init_scale",
)  # fmt: skip


class SGDEstimator(IterativeEstimator, Protocol):
    """What a training reads of `SGDClassifier` and `SGDRegressor`."""

    loss: str
    penalty: str | None
    alpha: float
    l1_ratio: float
    fit_intercept: bool
    shuffle: bool
    sampling: str
    epsilon: float
    eta0: float
    power_t: float
    momentum: float
    nesterovs_momentum: bool
    average: bool | int
    init: str
    init_scale: float

    coef_: Array
    intercept_: Array


@dataclass(frozen=True, eq=False)
class SharedTraining:
    """What models that train together share.

    Attributes
    ----------
    task : LinearTask
        Loss and training rows.
    data : TrainingData
        Batches, evaluations and the rest of what was made of data and parameters.
    given : tuple of array and None
        Initial weights and intercepts from the caller.
    """

    task: LinearTask
    data: TrainingData
    given: tuple[Array | None, Array | None]


def prepare_together(
    model: SGDEstimator,
    X: ArrayLike,
    y: ArrayLike,
    *,
    coef_init: ArrayLike | None = None,
    intercept_init: ArrayLike | None = None,
    **more: Any,
) -> SharedTraining:
    """Check data, and prepare the training of a model and of those that share it; see `SGDModel.fit`, `prepare`."""
    data = prepare(model, X, y, sampling=model.sampling if model.shuffle else "sequential", **more)
    task = LinearTask(
        data.targets.loss,
        data.rows,
        bool(model.fit_intercept),
        float(model.epsilon) if LOSSES[data.targets.loss].has_delta else 1.0,
        data.n_threads,
        data.score,
    )
    return SharedTraining(task, data, _given(coef_init, intercept_init, data.targets.n_scores, data.rows.X))


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
    models: Sequence[SGDEstimator], shared: SharedTraining, *, partial: bool = False, progress: Any = None
) -> list[Run]:
    """Train models that differ in parameters that are not in `SHARED`, and let each take its result.

    Models that do not differ in `TRAJECTORY` either share a column: they are checkpoints of one training.
    """
    data, batches = shared.data, shared.data.batches
    columns: dict[Any, int] = {}
    places = [columns.setdefault(parameter_key(model, TRAJECTORY), len(columns)) for model in models]
    firsts = [models[places.index(column)] for column in range(len(columns))]
    again = partial and hasattr(firsts[0], "coef_")
    done = firsts[0].t_ - 1 if again else 0
    state = solver_state(firsts[0]) if again else None
    trained = LinearColumns(
        shared.task, [_settings(model, shared, again, state, done) for model in firsts], done=done, state=state
    )
    runs = [
        new_run(model, column, batches, data.evaluations, partial=partial, idle=data.idle)
        for model, column in zip(models, places, strict=True)
    ]

    hooks = None
    if len(models) == 1 and not partial:
        epochs = -(-runs[0].max_steps // batches.steps)
        hooks = Hooks(models[0], epochs, data.given, lambda: trained.weights(0))
    rates = [step_sizes(model, shared.task, batches) for model in firsts]
    train(trained, runs, batches, rates, data.evaluations, hooks=hooks, progress=progress)
    for model, run in zip(models, runs, strict=True):
        store_run(model, run, done, -(-run.steps // batches.steps))
    if hooks is not None:
        hooks.end()
    return runs


def fit_one(model: SGDEstimator, shared: SharedTraining, *, partial: bool = False) -> None:
    """Train one model, show its progress, and say what went wrong."""
    if shared.data.idle and hasattr(model, "t_"):
        return
    if model.verbose and not partial:
        batches = shared.data.batches
        with Progress(max_steps(model, batches), batches, type(model).__name__) as progress:
            (run,) = fit_together([model], shared, progress=progress)
    else:
        (run,) = fit_together([model], shared, partial=partial)
    warn_of_outcome(model, run, shared.data.evaluations, _initial_objective(model, shared), partial=partial)


def outcome_of(model: SGDEstimator, run: Run, shared: SharedTraining) -> Outcome:
    """Say how a run of `fit_together` ended."""
    return outcome(model, run, _initial_objective(model, shared), partial=False)


def _initial_objective(model: SGDEstimator, shared: SharedTraining) -> Initial:
    """Return what the objective was before any step."""

    def settings() -> ModelSettings:
        return _settings(model, shared, again=False, state=None, done=0)

    def penalty() -> float:
        begin = settings()
        coef = begin.weights.coef.astype(np.float64)
        with np.errstate(over="ignore"):
            return float(0.5 * begin.l2 * np.square(coef).sum() + begin.l1 * np.abs(coef).sum())

    return Initial(penalty, lambda: mean_training_loss(LinearColumns(shared.task, [settings()]), shared.data.batches))


def parameter_key(model: object, names: Sequence[str]) -> tuple[Any, ...]:
    """Return something that is equal for models with the same values of these parameters."""
    values = [getattr(model, name, None) for name in names]
    # Arrays, functions and the like are the same if they are one object: comparing them takes more than ==.
    return tuple((type(v), v) if isinstance(v, (str, int, float)) or v is None else id(v) for v in values)


def _settings(model: SGDEstimator, shared: SharedTraining, again: bool, state: Any, done: int) -> ModelSettings:
    alpha, share = model.alpha, {"l2": 0.0, "l1": 1.0, "elasticnet": model.l1_ratio, None: 0.0}[model.penalty]
    strength = 0.0 if model.penalty is None else alpha
    average_from = int(model.average) if model.average else None
    if average_from is not None:
        # An average of steps before goes on; there may be none, and then it begins with the next step at the earliest.
        goes_on = average_from <= done and state is not None and state["averaged_from"] <= done
        average_from = state["averaged_from"] if goes_on else max(average_from, done + 1)
    return ModelSettings(
        _initial_weights(model, shared, again),
        l2=strength * (1 - share),
        l1=strength * share,
        momentum=model.momentum,
        nesterov=model.nesterovs_momentum,
        average_from=average_from,
    )


def _initial_weights(model: SGDEstimator, shared: SharedTraining, again: bool) -> LinearWeights:
    """Return what a model begins with: given, from before, or new weights."""
    x = shared.data.rows.X
    shape = (shared.data.targets.n_scores, x.shape[1])
    if again or (model.warm_start and hasattr(model, "coef_")):
        if np.atleast_2d(model.coef_).shape != shape:
            raise ValueError(f"coef_ of the last fit has shape {model.coef_.shape}; a warm start needs {shape}")
        begin = LinearWeights(model.coef_.reshape(shape).astype(x.dtype), model.intercept_.astype(x.dtype))
    elif model.init == "zeros":
        begin = LinearWeights(np.zeros(shape, x.dtype), np.zeros(shape[0], x.dtype))
    else:
        rng = np.random.default_rng(shared.data.init)
        normal = rng.normal(scale=model.init_scale, size=(shape[0], shape[1] + 1)).astype(x.dtype)
        begin = LinearWeights(normal[:, :-1], normal[:, -1] * bool(model.fit_intercept))
    coef, intercept = shared.given
    return LinearWeights(begin.coef if coef is None else coef, begin.intercept if intercept is None else intercept)
