"""Runs of models: how one begins, how long it lasts, and what is said when it has ended."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from ._callbacks import WRAPPED, FitState, callables
from ._fitting import Batches, DivergenceWarning, History, Run, Watch

__all__ = ["divergence", "max_steps", "new_run", "say_what_became"]


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
    two calls in between, or `fit` in what scikit-learn wraps around it.
    """
    message, category = _what_became(model, run, partial, penalty)
    if message is not None:
        warnings.warn(message, category, stacklevel=5 if partial else 4 + WRAPPED)


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
