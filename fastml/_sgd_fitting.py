"""How `SGDClassifier` and `SGDRegressor` are fitted: one of them, or several that take the same batches.

`prepare` settles data and targets, `fit_together` trains, and gives each model what became of it. A fit of one model is
a fit of several with one member, so a sweep has the same results as its members one by one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import is_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from . import _estimators
from ._callbacks import WRAPPED, FitState, Hooks, callables
from ._fitting import Array, Batches, DivergenceWarning, Evaluations, History, Rows, Run, Watch, train
from ._linear_training import LinearColumns, LinearTask, Member, Weights
from ._progress import Progress
from ._sgd_targets import Targets
from ._step_sizes import step_sizes
from .kernels import _validate

__all__ = ["SHARED", "Prepared", "divergence", "fit_one", "fit_together", "identity", "prepare"]

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

#: What each seed is for, so that no random number depends on how many are drawn for something else.
_ORDER, _INIT, _SPLIT, _SUBSET = range(4)


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
    """

    task: LinearTask
    n_scores: int
    batches: Batches
    evaluations: Evaluations
    init: np.random.SeedSequence
    given: tuple[Array | None, Array | None]
    data: tuple[Array, Array, Array | None]


# -------------------------------------------------------------------------------------------- preparing


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
    n_threads = _estimators.threads(model.n_jobs)
    x, y = _checked(model, X, y, n_threads, reset=not (partial and hasattr(model, "coef_")))
    targets = model._new_targets(y, classes, partial)
    weight = _sample_weight(sample_weight, len(x))
    if partial and weight is not None:
        weight = np.asarray(sample_weight, np.float64)  # not multiplied by anything, as very small ones are above
    rows = Rows(x, targets.settle(y, x.dtype), _as(weight, x.dtype))
    seeds = _seeds(model, partial)

    train_rows: int | NDArray[np.intp] = len(x)
    if (X_val is None) != (y_val is None):
        raise ValueError("X_val and y_val go together; one of them is missing")
    if X_val is None and sample_weight_val is not None:
        raise ValueError("sample_weight_val goes with X_val and y_val, which are missing")
    if X_val is not None:
        try:
            x_val, y_val = _checked(model, X_val, y_val, n_threads, reset=False, dtype=x.dtype)
            targets_val = targets.settle(y_val, x.dtype)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"X_val, y_val: {error}") from error
        w_val = _sample_weight(sample_weight_val, len(x_val), "sample_weight_val")
        validation = Rows(x_val, targets_val, _as(w_val, x.dtype))
    elif model.early_stopping:
        train_rows, held_out = _split(model, y, seeds[_SPLIT])
        validation = rows.take(held_out)
        if validation.weight is not None and not validation.weight.any():
            raise ValueError("all rows set aside for validation have weight 0; at least one must count")
    else:
        validation = None

    used = slice(None) if isinstance(train_rows, int) else train_rows
    task = LinearTask(
        targets.loss,
        Rows(x, rows.y, _as(_training_weight(targets, y, weight, used, partial), x.dtype)),
        bool(model.fit_intercept),
        float(getattr(model, "epsilon", 1.0)),
        n_threads,
        _scorer(model, targets),
    )
    n = train_rows if isinstance(train_rows, int) else len(train_rows)
    rng = np.random.default_rng(seeds[_ORDER])
    batches = Batches(train_rows, _batch_size(model, n), model.sampling, model.drop_last, rng)
    evaluations = Evaluations(
        steps=model.evaluate_every,
        per_epoch=model.evaluations_per_epoch,
        train=_training_rows(model, rows, used, np.random.default_rng(seeds[_SUBSET])),
        last_batch=model.train_metrics == "batch",
        validation=validation,
    )
    given = _given(coef_init, intercept_init, targets.n_scores, x)
    return Prepared(task, targets.n_scores, batches, evaluations, seeds[_INIT], given, (x, y, weight))


def _checked(
    model: Any, X: Any, y: Any, n_threads: int | None, *, reset: bool, dtype: Any = (np.float64, np.float32)
) -> tuple[Array, Array]:
    """Return rows and targets as scikit-learn checks them; finite rows are looked for with all threads."""
    dtype = list(dtype) if isinstance(dtype, tuple) else dtype
    x, targets = validate_data(
        model, X, y, dtype=dtype, order="C", ensure_all_finite=False, y_numeric=is_regressor(model), reset=reset
    )
    _estimators.check_finite(x, n_threads, estimator=model)
    return x, targets


def _sample_weight(weight: ArrayLike | None, n: int, name: str = "sample_weight") -> Array | None:
    if weight is None:
        return None
    try:
        settled, _ = _validate.weights(weight, n, np.dtype(np.float64))
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("sample_weight", name)) from None
    return np.asarray(settled)


def _as(weight: Array | None, dtype: np.dtype[Any]) -> Array | None:
    return None if weight is None else weight.astype(dtype, copy=False)


def _seeds(model: Any, partial: bool) -> list[np.random.SeedSequence]:
    """Return a seed for each use; a later `partial_fit` with the same random state has others."""
    seed = check_random_state(model.random_state).randint(np.iinfo(np.int32).max)
    step = model.t_ if partial and hasattr(model, "coef_") else 0
    return np.random.SeedSequence([seed, step]).spawn(4)


def _training_weight(targets: Targets, y: Array, weight: Array | None, used: Any, partial: bool) -> Array | None:
    """Return what each row counts in training, with its class's weight; but for `partial_fit` the mean is 1."""
    of_class = targets.class_weight(y, weight)
    if of_class is not None:
        weight = of_class if weight is None else weight * of_class
    if weight is None or partial:
        return weight
    mean = float(weight[used].mean())
    if not mean > 0:
        raise ValueError("all training rows have weight 0; at least one must count")
    scaled: Array = weight / mean
    return scaled


def _split(model: Any, y: Array, seed: np.random.SeedSequence) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    parts = train_test_split(
        np.arange(len(y)),
        test_size=model.validation_fraction,
        random_state=int(seed.generate_state(1)[0]),
        stratify=None if is_regressor(model) else y,
    )
    return parts[0], parts[1]


def _batch_size(model: Any, n: int) -> int:
    return min(200, n) if model.batch_size == "auto" else int(model.batch_size)


def _training_rows(model: Any, rows: Rows, used: Any, rng: np.random.Generator) -> Rows | None:
    """Return the rows on which the training figures are to be measured."""
    how = model.train_metrics
    if how == "running":
        return None
    if how == "batch":
        return rows
    everything = isinstance(used, slice)
    if how == "full":
        return rows if everything else rows.take(used)
    chosen = np.arange(len(rows.X)) if everything else used
    if rows.weight is not None:
        chosen = chosen[rows.weight[chosen] > 0]  # others would say nothing
    return rows.take(np.sort(rng.permutation(chosen)[:how]))


def _scorer(model: Any, targets: Targets) -> Any:
    """Return a function that scores weights by what the parameter `scoring` names."""
    if model.scoring in (None, "loss"):
        return None
    scorer = check_scoring(model, model.scoring)

    def score(weights: Weights, rows: Rows) -> float:
        more = {} if rows.weight is None else {"sample_weight": rows.weight}
        return float(scorer(model._with(weights, names=False), rows.X, targets.of(rows.y), **more))

    return score


def _given(coef: Any, intercept: Any, n_scores: int, x: Array) -> tuple[Array | None, Array | None]:
    """Return initial weights in the shapes (C, D) and (C,)."""
    wanted = {"coef_init": (coef, (n_scores, x.shape[1])), "intercept_init": (intercept, (n_scores,))}
    found: list[Array | None] = []
    for name, (value, shape) in wanted.items():
        if value is None:
            found.append(None)
            continue
        array = _validate.real(value, name).astype(x.dtype)
        if array.size != math.prod(shape) or array.ndim > len(shape):
            raise ValueError(f"{name} has shape {array.shape}; it must be {shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has entries that are NaN or infinite in {x.dtype}; they must be finite")
        found.append(array.reshape(shape))
    return found[0], found[1]


# --------------------------------------------------------------------------------------------- training


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
    runs = [_run(model, column, prepared, partial) for model, column in zip(models, places, strict=True)]

    hooks = None
    if len(models) == 1 and not partial:
        x, targets, weight = prepared.data
        epochs = -(-runs[0].max_steps // steps)
        hooks = Hooks(models[0], epochs, x, targets, weight, lambda: models[0]._attributes(trained.weights(0)))
    rates = [step_sizes(model, prepared.task, prepared.batches) for model in firsts]
    train(trained, runs, prepared.batches, rates, prepared.evaluations, hooks=hooks, progress=progress)
    for model, run in zip(models, runs, strict=True):
        model._take(run, done, 1 if partial else -(-run.steps // steps))
    if hooks is not None:
        hooks.end()
    return runs


def fit_one(model: Any, prepared: Prepared, *, partial: bool = False) -> None:
    """Train one model, show its progress, and say what went wrong."""
    if model.verbose and not partial:
        with Progress(_max_steps(model, prepared), prepared.batches, type(model).__name__) as progress:
            (run,) = fit_together([model], prepared, progress=progress)
    else:
        (run,) = fit_together([model], prepared, partial=partial)
    # Warnings point at the caller: there are two calls in between, or `fit` in what scikit-learn wraps around it.
    level = 4 if partial else 3 + WRAPPED
    if run.diverged_at is not None:
        warnings.warn(divergence(model, run), DivergenceWarning, stacklevel=level)
    elif not (partial or model.warm_start) and _gets_worse(model, prepared, run):
        last = run.history.arrays()["train_loss"][-1]
        warnings.warn(
            f"training diverges: the training loss was {run.first_loss:.4g} at first, and is {last:.4g} at step "
            f"{run.steps}. {_advice(model)}",
            DivergenceWarning,
            stacklevel=level,
        )
    elif run.status == "interrupted":
        text = f"training was interrupted after step {run.steps}; the model keeps what it had"
        warnings.warn(text, stacklevel=level)
    elif run.status == "max_iter" and model.tol is not None and not partial:
        warnings.warn(
            f"training ended after max_iter={model.max_iter} epochs or max_steps={model.max_steps} steps before it "
            "converged; tol=None trains for a given time",
            ConvergenceWarning,
            stacklevel=level,
        )


def divergence(model: Any, run: Run) -> str:
    """Say at which step a run diverged, with which loss, and which weights it keeps."""
    assert run.diverged_at is not None
    step, loss = run.diverged_at
    found = f"loss {loss:g}" if not math.isfinite(loss) else f"weights that are not finite, loss {loss:g} before them"
    if run.best_step is not None:
        kept = f"the best weights so far, of step {run.best_step},"
    else:
        steps = run.history.arrays()["step"]
        kept = f"the weights after step {steps[-2]}" if len(steps) > 1 else "the initial weights"
    return f"training diverged: {found} at step {step}; {kept} are kept. {_advice(model)}"


def _gets_worse(model: Any, prepared: Prepared, run: Run) -> bool:
    """Say whether a training from the beginning ended far above where it began, the penalty included."""
    if not run.is_worse_than_at_first():
        return False
    member = _member(model, prepared, again=False, state=None, done=0)
    coef = member.weights.coef.astype(np.float64)
    with np.errstate(over="ignore"):
        penalty = float(0.5 * member.l2 * np.square(coef).sum() + member.l1 * np.abs(coef).sum())
    return run.is_worse_than_at_first(penalty)


def _advice(model: Any) -> str:
    now = f"learning_rate={model.learning_rate!r}, eta0={model.eta0:g}"
    return f"Smaller steps (now {now}) or standardised features help"


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


def _max_steps(model: Any, prepared: Prepared) -> int:
    most = int(model.max_iter) * prepared.batches.steps
    return most if model.max_steps is None else min(most, int(model.max_steps))


def _run(model: Any, column: int, prepared: Prepared, partial: bool) -> Run:
    history = History(model.history_ if partial and hasattr(model, "coef_") else None)
    if partial:
        return Run(column, prepared.batches.steps, Watch("train_loss", tol=None, patience=1), history)
    if model.early_stopping:
        watched = "validation_loss" if model.scoring == "loss" else "validation_score"
        keep = {True: "first", False: None}.get(model.keep_best, model.keep_best)
    else:
        watched, keep = "train_loss", None
    watch = Watch(watched, tol=model.tol, patience=model.n_iter_no_change, keep=keep)

    def called(callback: Any) -> Any:
        return lambda row, weights: callback(FitState(**row, _estimator=lambda: model._with(weights())))

    callbacks = [called(callback) for callback in callables(model.callbacks)]
    return Run(column, _max_steps(model, prepared), watch, history, callbacks)
