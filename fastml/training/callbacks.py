"""scikit-learn's callback protocol (SLEP023), where the installed version has it (1.9 and later).

An estimator that inherits `CallbackSupportMixin` has ``set_callbacks``, and takes part in the task tree of a
pipeline or search that has callbacks. The mixin is empty for older versions of scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .batches import Array
from .data import IterativeEstimator

__all__ = ["WRAPPED", "CallbackSupportMixin", "FitState", "Hooks", "callables", "with_callbacks"]

#: How many calls `with_callbacks` puts between a method and its caller.
WRAPPED = 1

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:
    WRAPPED = 0

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """What an estimator inherits where scikit-learn has no callbacks: nothing."""

    def with_callbacks(method: Any) -> Any:
        """Return the method itself: no callback needs to be torn down after it."""
        return method


def callables(callbacks: Any) -> list[Callable[..., Any]]:
    """Return the parameter `callbacks` as a list: one callable, a sequence of them, or None.

    >>> callables(None), callables(print) == [print]
    ([], True)
    >>> callables("print")
    Traceback (most recent call last):
        ...
    TypeError: callbacks is 'print' (str); it must be a callable, a sequence of callables, or None
    """
    if callbacks is None or callable(callbacks):
        return [] if callbacks is None else [callbacks]
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        kind = type(callbacks).__name__
        raise TypeError(f"callbacks is {callbacks!r} ({kind}); it must be a callable, a sequence of callables, or None")
    return list(callbacks)


class Hooks:
    """Calls scikit-learn's hooks around a fit and around each epoch of it.

    Parameters
    ----------
    estimator : IterativeEstimator
        What is fitted.
    epochs : int
        Epochs, if it does not end early.
    given : tuple
        Rows, targets and weights of the fit.
    weights : callable
        Gives the weights as they are.

    Without callbacks, nothing is done for an epoch.
    """

    def __init__(
        self,
        estimator: IterativeEstimator,
        epochs: int,
        given: tuple[Array, Array, Array | None],
        weights: Callable[[], Any],
    ) -> None:
        X, y, weight = given
        metadata = {} if weight is None else {"sample_weight": weight}
        self._given = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        self._attributes = lambda: estimator._attributes(weights())
        self._root: Any = None
        self._epoch: Any = None
        if hasattr(estimator, "_init_callback_context"):
            self._root = estimator._init_callback_context(max_subtasks=epochs)
            self._root.call_on_fit_task_begin(**self._given)
        self._needed = self._root is not None and hasattr(estimator, "_skl_callbacks")

    def begin_epoch(self) -> None:
        """Call what is to be called when an epoch begins."""
        if self._needed:
            self._epoch = self._root.subcontext(task_name="epoch")
            self._epoch.call_on_fit_task_begin(**self._given, reconstruction_attributes=self._attributes)

    def end_epoch(self) -> bool:
        """Call what is to be called when an epoch has ended; return whether a callback wants to stop."""
        if not self._needed:
            return False
        return bool(self._epoch.call_on_fit_task_end(**self._given, reconstruction_attributes=self._attributes))

    def end(self) -> None:
        """Call what is to be called when the fit has ended."""
        if self._root is not None:
            self._root.call_on_fit_task_end(**self._given, reconstruction_attributes=self._attributes)


@dataclass(frozen=True)
class FitState:
    """What a callback gets to see: the newest row of the history, and the model as it is now.

    Attributes
    ----------
    step : int
        Batches done.
    epoch, seconds : float
        Passes over the training rows, and time since the fit began.
    train_loss, train_score, validation_loss, validation_score : float
        Figures of this evaluation; NaN where there is none.
    """

    step: int
    epoch: float
    seconds: float
    train_loss: float
    train_score: float
    validation_loss: float
    validation_score: float
    _estimator: Callable[[], Any] = field(repr=False)

    @property
    def fitted_estimator(self) -> Any:
        """A copy of the estimator that is ready to predict with the weights of this moment."""
        return self._estimator()
