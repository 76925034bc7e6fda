"""The step of some weights of a network: one of those of `training.steps`, or Adam's.

`numbers` are momentum, and beta_1, beta_2 and epsilon of Adam. A penalty's strength is that of each weight.

Sources: D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization" (2015); I. Loshchilov and F. Hutter,
"Decoupled weight decay regularization" (2019).
"""

from __future__ import annotations

import numpy as np

from ..runtime.jit import inner
from ..simd.functions import like
from ..training.steps import gradient_step, momentum_step, nesterov_step

__all__ = ["GRADIENT", "RULES", "SGD", "move", "rule_of"]

#: How a step is taken; their places are their numbers. "gradient": there is none.
RULES = ("sgd", "momentum", "nesterov", "adam", "gradient")
SGD, MOMENTUM, NESTEROV, ADAM, GRADIENT = range(5)


def rule_of(solver: str, momentum: float, nesterov: bool) -> str:
    """Return the rule of `RULES` by which a solver takes its steps: "sgd" has three."""
    if solver != "sgd" or not momentum:
        return solver
    return "nesterov" if nesterov else "momentum"


@inner
def move(rule, w, g, l2, weight_decay, m, v, step, numbers):  # type: ignore[no-untyped-def]
    """Take the step of some weights. `step` is its size and two factors that correct Adam's means."""
    size, momentum = step[0], numbers[0]
    if rule == SGD:
        for d in range(w.size):
            w[d] = gradient_step(w[d], g[d], l2[d], size)
    elif rule == MOMENTUM:
        for d in range(w.size):
            w[d], v[d] = momentum_step(w[d], g[d], v[d], l2[d], size, momentum)
    elif rule == NESTEROV:
        for d in range(w.size):
            w[d], v[d] = nesterov_step(w[d], g[d], v[d], l2[d], size, momentum)
    else:
        beta_1, beta_2, epsilon = numbers[1], numbers[2], numbers[3]
        one = like(size, 1)
        for d in range(w.size):
            grad = g[d] + l2[d] * w[d]
            m[d] = beta_1 * m[d] + (one - beta_1) * grad
            v[d] = beta_2 * v[d] + (one - beta_2) * (grad * grad)
            w[d] -= step[1] * m[d] / (np.sqrt(v[d]) * step[2] + epsilon) + size * weight_decay[d] * w[d]
