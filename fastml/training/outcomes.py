"""Runs of models: how one begins, how long it lasts, and what is said when it has ended."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from .batches import Batches
from .callbacks import WRAPPED, FitState, callables
from .data import IterativeEstimator, TrainingData, TrainingSettings, scored_by_r_squared
from .history import Evaluations, History
from .run import Checkpoint, DivergenceWarning, EarlyStopping, Run

__all__ = [
    "FitCheckpoint",
    "Initial",
    "Outcome",
    "check_same_data",
    "last_checkpoint",
    "last_outcome",
    "max_steps",
    "new_run",
    "outcome",
    "solver_state",
    "store_checkpoint",
    "store_run",
    "undecided",
    "warn_of_outcome",
]


class Outcome(NamedTuple):
    """How a run ended.

    Attributes
    ----------
    status : str
        That of the run, or "diverged".
    trouble : str or None
        What to say if it diverged.
    lost : bool
        Whether the last entry of the history is about weights that are gone.
    """

    status: str
    trouble: str | None
    lost: bool


class Initial(NamedTuple):
    """What the objective was before any step, to be computed when it is asked for.

    Attributes
    ----------
    penalty : callable
        Gives the penalty of the weights.
    loss : callable
        Gives their mean loss on all training rows, and what these count.
    """

    penalty: Callable[[], float]
    loss: Callable[[], tuple[float, float]]


class FitCheckpoint(NamedTuple):
    """A run that may be resumed: where it stands, and what must be the same then.

    Attributes
    ----------
    checkpoint : Checkpoint
        Where it stands.
    seed : int
        What `random_state` came to.
    data : tuple
        What is to be trained on: rows, columns, dtype, rows that are not set aside, rows of a batch, steps of an epoch.
    """

    checkpoint: Checkpoint
    seed: int
    data: tuple[int, int, str, int, int, int]


def store_run(model: IterativeEstimator, run: Run, done: int, epochs: int) -> None:
    """Let a model take what became of its training, which began after `done` steps."""
    for name, value in model._attributes(run.weights).items():
        setattr(model, name, value)
    model.history_ = run.history.arrays()
    model.n_iter_ = epochs
    model.t_ = done + run.steps + 1
    model.best_step_ = run.best_step
    model._state = run.state


def solver_state(model: IterativeEstimator) -> Any:
    """Return what the solver of a fitted model remembers; None if that is nothing, or not of its last weights."""
    return model._state


def store_checkpoint(model: IterativeEstimator, run: Run, data: TrainingData) -> None:
    """Let a model keep what it needs to resume this run, if that can be done."""
    found = run.checkpoint
    model._checkpoint = None if found is None else FitCheckpoint(found, data.seed, _signature(data))


def last_checkpoint(model: IterativeEstimator) -> FitCheckpoint | None:
    """Return what a model needs to go on with the fit before; None if there was none."""
    if not hasattr(model, "t_"):
        return None
    if getattr(model, "_checkpoint", None) is None:
        raise ValueError("resume=True: the fit before diverged, or was followed by partial_fit, and cannot be resumed")
    found: FitCheckpoint = model._checkpoint
    return found


def check_same_data(before: FitCheckpoint, data: TrainingData) -> None:
    """Refuse data and batches that are not those of the run that is to be resumed."""
    names = "rows", "columns", "dtype", "rows to train on", "rows of a batch", "batches of an epoch"
    for name, was, now in zip(names, before.data, _signature(data), strict=True):
        if was != now:
            raise ValueError(f"resume=True needs the data and batches of the fit before: {name} {was}, now {now}")


def _signature(data: TrainingData) -> tuple[int, int, str, int, int, int]:
    X, batches = data.rows.X, data.batches
    return len(X), math.prod(X.shape[1:]), X.dtype.name, batches.n, batches.size, batches.steps


def max_steps(model: TrainingSettings, batches: Batches) -> int:
    """Return how many steps a model takes at most."""
    most = int(model.max_iter) * batches.steps
    return most if model.max_steps is None else min(most, int(model.max_steps))


def new_run(
    model: IterativeEstimator,
    column: int,
    batches: Batches,
    evaluations: Evaluations,
    *,
    partial: bool,
    idle: bool = False,
) -> Run:
    """Return the run of a model whose weights are those of a column; an idle one takes no step."""
    history = History(model.history_ if partial and hasattr(model, "t_") else None)
    if partial:
        return Run(column, 0 if idle else batches.steps, EarlyStopping("train_loss", tol=None, patience=1), history)
    watched: str = "train_loss"
    keep: Literal["first", "last"] | None = None
    if model.early_stopping:
        by_loss = model.scoring == "loss" or _no_r_squared(model, evaluations)
        watched = "validation_loss" if by_loss else "validation_score"
        if model.keep_best:
            keep = "last" if model.keep_best == "last" else "first"
    stopping = EarlyStopping(watched, tol=model.tol, patience=model.n_iter_no_change, keep=keep)

    def called(callback: Any) -> Any:
        return lambda row, weights: callback(FitState(**row, _estimator=lambda: model._fitted_with(weights())))

    callbacks = [called(callback) for callback in callables(model.callbacks)]
    return Run(column, max_steps(model, batches), stopping, history, callbacks)


def _no_r_squared(model: TrainingSettings, evaluations: Evaluations) -> bool:
    """Say whether the score on the validation set is R² and undefined: its targets are all the same."""
    return scored_by_r_squared(model) and evaluations.validation is not None and not evaluations.validation.varies


def warn_of_outcome(
    model: IterativeEstimator, run: Run, evaluations: Evaluations, initial: Initial, *, partial: bool
) -> None:
    """Warn of a run that diverged, was interrupted, ended before it converged, or that a score did not decide on.

    The warnings point at the caller of `fit` or `partial_fit`: there are two calls in between, what gives a refused
    fit its attributes back, and around `fit` what scikit-learn wraps it in.
    """
    model._outcome = outcome(model, run, initial, partial=partial)
    for message, category in (_warning_of(model, run, partial), (undecided(model, run, evaluations), UserWarning)):
        if message is not None:
            warnings.warn(message, category, stacklevel=6 if partial else 5 + WRAPPED)


def outcome(model: IterativeEstimator, run: Run, initial: Initial, *, partial: bool) -> Outcome:
    """Say how a run ended: one whose loss is finite, but far above the first one, diverged too."""
    trouble = None
    if run.diverged_at is not None:
        trouble = _divergence(model, run)
    elif not (partial or model.warm_start) and run.is_worse_than_at_first():
        penalty = initial.penalty()
        loss, count = initial.loss() if run.is_worse_than_at_first(penalty) else (math.inf, 0.0)
        if run.is_worse_than_at_first(penalty, loss, count):
            trouble = (
                f"training diverges: the training loss was {loss:.4g} at first, and is {run.recent_loss(count):.4g} at "
                f"step {run.steps}. {_advice(model)}"
            )
    # Who is to stop after Ctrl-C must know of it, whatever became of the run.
    status = "diverged" if trouble is not None and run.status != "interrupted" else run.status
    return Outcome(status, trouble, run.diverged_at is not None)


def last_outcome(model: object) -> Outcome | None:
    """Return how the last fit of a model ended; None of models that do not say."""
    found: Outcome | None = getattr(model, "_outcome", None)
    return found


def undecided(model: TrainingSettings, run: Run, evaluations: Evaluations) -> str | None:
    """Say that the validation score could not decide when to stop and which weights are the best ones."""
    if not model.early_stopping or model.scoring == "loss":
        return None
    if _no_r_squared(model, evaluations):
        assert evaluations.validation is not None
        why = "has one row" if len(evaluations.validation.X) == 1 else "has rows with the same target only"
        return (
            f"R² is undefined, as the validation set {why}: its loss decided when to stop, and which weights are the "
            "best. scoring='loss' asks for that; X_val or validation_fraction may give more rows"
        )
    scores = run.history.arrays()["validation_score"][: -1 if run.diverged_at is not None else None]
    missing = int(np.isnan(scores).sum())
    if missing == 0 or scored_by_r_squared(model):  # whose R² is NaN has infinite predictions, and will diverge
        return None
    kept = "" if missing < len(scores) or not model.keep_best else ". The model has its last weights, none are the best"
    return f"the validation score was NaN in {missing} of {len(scores)} evaluations, which decided nothing{kept}"


def _warning_of(model: IterativeEstimator, run: Run, partial: bool) -> tuple[str | None, type[Warning]]:
    if model._outcome.trouble is not None:
        return model._outcome.trouble, DivergenceWarning
    if run.status == "interrupted":
        return f"training was interrupted after step {run.steps}; the model keeps what it had", UserWarning
    if run.status == "max_iter" and model.tol is not None and not partial:
        return (
            f"training ended after max_iter={model.max_iter} epochs or max_steps={model.max_steps} steps before it "
            "converged; tol=None trains for a given time",
            ConvergenceWarning,
        )
    return None, UserWarning


def _divergence(model: IterativeEstimator, run: Run) -> str:
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


def _advice(model: IterativeEstimator) -> str:
    name = model._first_step
    now = f"learning_rate={model.learning_rate!r}, {name}={getattr(model, name):g}"
    return f"Smaller steps (now {now}) or standardised features help"
