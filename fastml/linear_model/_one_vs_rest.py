"""One class against the rest: linear models with a training of their own for each class, on the same batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.losses.table import LOSSES
from ..utils.lazy import lazy_module

if TYPE_CHECKING:
    from ..kernels.linear import training as linear_training
else:
    linear_training = lazy_module("fastml.kernels.linear.training")

__all__ = ["OneVsRestTraining", "one_vs_rest_evaluation"]

Array = NDArray[Any]


class OneVsRestTraining:
    """What `LinearTraining` is, for class indices and a loss of one score; a loss is the mean over the classes."""

    def __init__(self, loss: str, X: Array, y: Array, *, W: Array, b: Array, **settings: Any) -> None:
        self._classes = [
            linear_training.LinearTraining(
                loss, X, _against(loss, y, c, X.dtype), W=W[:, c : c + 1], b=b[:, c : c + 1], **settings
            )
            for c in range(W.shape[1])
        ]

    @property
    def n_steps(self) -> int:
        """Batches that all classes have done."""
        return min(training.n_steps for training in self._classes)

    @n_steps.setter
    def n_steps(self, value: int) -> None:
        for training in self._classes:
            training.n_steps = value

    @property
    def W(self) -> Array:
        """A copy of the weights (M, C, D)."""
        return self._joined("W")

    @property
    def b(self) -> Array:
        """A copy of the intercepts (M, C)."""
        return self._joined("b")

    @property
    def average_W(self) -> Array:
        """A copy of the running mean of `W`."""
        return self._joined("average_W")

    @property
    def average_b(self) -> Array:
        """A copy of the running mean of `b`."""
        return self._joined("average_b")

    def _joined(self, name: str) -> Array:
        return np.concatenate([getattr(training, name) for training in self._classes], axis=1)

    def run(self, order: Array, batch_size: int, steps: Array) -> NDArray[np.float64]:
        """Train all classes; see `LinearTraining.run`."""
        losses = [training.run(order, batch_size, steps) for training in self._classes]
        return np.asarray(np.mean(losses, axis=0))

    def get_state(self) -> dict[str, Any]:
        """Return copies of all that `run` changes."""
        states = [training.get_state() for training in self._classes]
        arrays = [name for name, value in states[0].items() if isinstance(value, np.ndarray)]
        return states[0] | {name: np.concatenate([state[name] for state in states], axis=1) for name in arrays}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state that `get_state` returned."""
        for c, training in enumerate(self._classes):
            training.set_state({n: v[:, c : c + 1] if isinstance(v, np.ndarray) else v for n, v in state.items()})


def one_vs_rest_evaluation(
    loss: str, X: Array, y: Array, W: Array, b: Array, **settings: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return for M models the mean loss over classes, and the share of rows with the highest score for their class."""
    losses = [
        linear_training.linear_evaluation(
            loss, X, _against(loss, y, c, X.dtype), W[:, c : c + 1], b[:, c : c + 1], **settings
        )[0]
        for c in range(W.shape[1])
    ]
    _, right = linear_training.linear_evaluation("multiclass_hinge", X, y, W, b, **settings)
    return np.asarray(np.mean(losses, axis=0)), right


def _against(loss: str, y: Array, c: int, dtype: Any) -> Array:
    """Return a class as targets: 1, and for the rest 0 or -1."""
    one, rest = 1, 0 if LOSSES[loss].target == "probability" else -1
    return np.where(y == c, one, rest).astype(dtype)
