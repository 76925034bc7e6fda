"""Runs of models: how one begins, how long it lasts, and what is said when it has ended."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

from sklearn.exceptions import ConvergenceWarning

from ._callbacks import WRAPPED, FitState, callables
from ._fitting import Batches, Course, DivergenceWarning, History, Run, Watch
from ._settling import Settled

__all__ = [
    "Resumable",
    "check_resumed",
    "divergence",
    "max_steps",
    "new_run",
    "resumable",
    "resumed",
    "say_what_became",
]


class Resumable(NamedTuple):
    """A run that may be resumed: where it stands, and what must be the same then.

    Attributes
    ----------
    course : Course
        Where it stands.
    seed : int
        What `random_state` came to.
    data : tuple
        What is to be trained on: rows, columns, dtype, rows that are not set aside, rows of a batch, steps of an epoch.
    """

    course: Course
    seed: int
    data: tuple[int, int, str, int, int, int]


def resumable(run: Run, settled: Settled) -> Resumable | None:
    """Return what a run needs to be resumed, if it can be."""
    return None if run.course is None else Resumable(run.course, settled.seed, _data(settled))


def resumed(model: Any) -> Resumable | None:
    """Return what a model needs to go on with the fit before; None if there was none."""
    if not hasattr(model, "t_"):
        return None
    if getattr(model, "_resumable", None) is None:
        raise ValueError("resume=True: the fit before diverged, or was followed by partial_fit, and cannot be resumed")
    found: Resumable = model._resumable
    return found


def check_resumed(before: Resumable, settled: Settled) -> None:
    """Refuse data and batches that are not those of the run that is to be resumed."""
    names = "rows", "columns", "dtype", "rows to train on", "rows of a batch", "batches of an epoch"
    for name, was, now in zip(names, before.data, _data(settled), strict=True):
        if was != now:
            raise ValueError(f"resume=True needs the data and batches of the fit before: {name} {was}, now {now}")


def _data(settled: Settled) -> tuple[int, int, str, int, int, int]:
    X, batches = settled.rows.X, settled.batches
    return len(X), math.prod(X.shape[1:]), X.dtype.name, batches.n, batches.size, batches.steps


def max_steps(model: Any, batches: Batches) -> int:
    """Return how many steps a model takes at most."""
    most = int(model.max_iter) * batches.steps
    return most if model.max_steps is None else min(most, int(model.max_steps))


def new_run(model: Any, column: int, batches: Batches, partial: bool) -> Run:
    """Return the run of a model whose weights are those of a column."""
    history = History(model.history_ if partial and hasattr(model, "t_") else None)
    if partial:
        return Run(column, batches.steps, Watch("train_loss", tol=None, patience=1), history)
    if model.early_stopping:
        watched = "validation_loss" if model.scoring == "loss" else "validation_score"
        keep = {True: "first", False: None}.get(model.keep_best, model.keep_best)
    else:
        watched, keep = "train_loss", None
    watch = Watch(watched, tol=model.tol, patience=model.n_iter_no_change, keep=keep)

    def called(callback: Any) -> Any:
        return lambda row, weights: callback(FitState(**row, _estimator=lambda: model._with(weights())))

    callbacks = [called(callback) for callback in callables(model.callbacks)]
    return Run(column, max_steps(model, batches), watch, history, callbacks)


def say_what_became(model: Any, run: Run, *, partial: bool, penalty: Callable[[], float]) -> None:
    """Warn of a run that diverged, was interrupted, or ended before it converged.

    `penalty` gives the penalty before any step. The warnings point at the caller of `fit` or `partial_fit`: there are
    two calls in between, what gives a refused fit its attributes back, and around `fit` what scikit-learn wraps it in.
    """
    message, category = _what_became(model, run, partial, penalty)
    if message is not None:
        warnings.warn(message, category, stacklevel=6 if partial else 5 + WRAPPED)


def _what_became(model: Any, run: Run, partial: bool, penalty: Callable[[], float]) -> tuple[str | None, type[Warning]]:
    if run.diverged_at is not None:
        return divergence(model, run), DivergenceWarning
    if not (partial or model.warm_start) and run.is_worse_than_at_first() and run.is_worse_than_at_first(penalty()):
        last = run.history.arrays()["train_loss"][-1]
        return (
            f"training diverges: the training loss was {run.first_loss:.4g} at first, and is {last:.4g} at step "
            f"{run.steps}. {_advice(model)}",
            DivergenceWarning,
        )
    if run.status == "interrupted":
        return f"training was interrupted after step {run.steps}; the model keeps what it had", UserWarning
    if run.status == "max_iter" and model.tol is not None and not partial:
        return (
            f"training ended after max_iter={model.max_iter} epochs or max_steps={model.max_steps} steps before it "
            "converged; tol=None trains for a given time",
            ConvergenceWarning,
        )
    return None, UserWarning


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


def _advice(model: Any) -> str:
    first = "eta0" if hasattr(model, "eta0") else "learning_rate_init"
    now = f"learning_rate={model.learning_rate!r}, {first}={getattr(model, first):g}"
    return f"Smaller steps (now {now}) or standardised features help"
