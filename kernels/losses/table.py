"""The table of losses: which there are, and what is true of each.

Everything that goes through the losses reads it: checks of arguments, formulas, gradients, training and evaluation of
linear models, solvers, networks, the estimators, the names of `fastml.kernels`. It loads neither Numba nor NumPy.
The formulas stand in `formulas` (one score a row) and `class_formulas` (one score per class), under the same names.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

__all__ = [
    "DELTA",
    "LOSSES",
    "NETWORK_LOSSES",
    "OF_ONE_SCORE",
    "OVER_CLASSES",
    "Loss",
    "functions_of",
    "target_of",
]


class Loss(NamedTuple):
    """What is true of a loss.

    Attributes
    ----------
    family : str
        The file of this room that has its public functions.
    target : str
        What it asks of targets: "probability" in [0, 1], "sign" -1 or 1, any "real" number, one "from 0" on, the
        index of a "class", or that or a row of probabilities.
    curvature : float
        Bound of the second derivative in a row's scores, where there is one; infinite where there is none.
    jump : float
        By how much the derivative jumps at a kink; 0 for a smooth loss.
    kink_curvature : float, optional
        What takes the place of `curvature` in the size of optimal steps, where a kink hides what there is.
    has_delta : bool
        Whether its formula has the parameter delta.
    in_training, in_networks, in_solvers : bool
        Whether linear models are trained with it by mini-batches; whether networks are; whether `linear.objective`
        has it.
    """

    family: str
    target: Literal["probability", "sign", "real", "from 0", "class", "class or probabilities"]
    curvature: float
    jump: float = 0.0
    kink_curvature: float | None = None
    has_delta: bool = False
    in_training: bool = True
    in_networks: bool = False
    in_solvers: bool = False

    @property
    def over_classes(self) -> bool:
        """Whether a row has one score per class (W is (C, D)), and not a single one (W is (D,))."""
        return self.target.startswith("class")

    @property
    def step_curvature(self) -> float:
        """What the size of optimal steps goes by."""
        return self.curvature if self.kink_curvature is None else self.kink_curvature

    @property
    def class_1_from(self) -> float | None:
        """From which target on a row of a loss of one score is of class 1; None where targets are no classes."""
        return {"probability": 0.5, "sign": 0.0}.get(self.target)


#: In the order of messages, of the report, and of the numbers by which kernels know them.
LOSSES = {
    "binary_cross_entropy": Loss("logistic", "probability", 0.25, in_networks=True, in_solvers=True),
    "softmax_cross_entropy": Loss("multinomial", "class or probabilities", 0.5, in_networks=True, in_solvers=True),
    "hinge": Loss("margin", "sign", 0.0, jump=1.0, kink_curvature=1.0, in_solvers=True),
    "squared_hinge": Loss("margin", "sign", 2.0, in_solvers=True),
    "multiclass_hinge": Loss("margin", "class", 0.0, jump=1.0, kink_curvature=2.0),
    "squared_error": Loss("regression", "real", 1.0, in_networks=True),
    "absolute_error": Loss("regression", "real", 0.0, jump=2.0, kink_curvature=1.0),
    "huber": Loss("regression", "real", 1.0, has_delta=True),
    "poisson": Loss("regression", "from 0", math.inf, in_training=False),
}

OF_ONE_SCORE = tuple(name for name, loss in LOSSES.items() if not loss.over_classes)
OVER_CLASSES = tuple(name for name, loss in LOSSES.items() if loss.over_classes)

#: Losses of networks, those over classes first; their places are their numbers in the kernels.
NETWORK_LOSSES = tuple(name for name in (*OVER_CLASSES, *OF_ONE_SCORE) if LOSSES[name].in_networks)

#: Delta where none is given.
DELTA = 1.35


def functions_of(family: str) -> tuple[str, ...]:
    """Return the names of a family's losses and of their gradients."""
    names = [name for name, loss in LOSSES.items() if loss.family == family]
    return (*names, *(f"{name}_gradient" for name in names))


def target_of(loss: object, *, trained: bool = False) -> str:
    """Return what the loss of that name asks of its target; of those that linear models are trained with, if asked."""
    known = [name for name in LOSSES if LOSSES[name].in_training or not trained]
    if isinstance(loss, str) and loss in known:
        return LOSSES[loss].target
    names = ", ".join(map(repr, known))
    if isinstance(loss, str):
        raise ValueError(f"loss is {loss!r}; it must be one of {names}")
    raise TypeError(f"loss is a {type(loss).__name__}; it must be a str, one of {names}")
