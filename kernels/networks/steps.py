"""Steps of stochastic gradient descent: what a batch does to a weight."""

from __future__ import annotations

import numpy as np

from ..runtime.jit import inner
from ..simd.functions import like

__all__ = ["GRADIENT", "RULES", "SGD", "move"]

#: How a step is taken; their places are their numbers. "gradient": there is none.
RULES = ("sgd", "momentum", "nesterov", "adam", "gradient")
SGD, MOMENTUM, NESTEROV, ADAM, GRADIENT = range(5)


@inner
def move(rule, w, g, decay, shrink, m, v, step, numbers):  # type: ignore[no-untyped-def]
    """Take the step of some weights. `step` is its size and two factors that correct Adam's means."""
    size, momentum = step[0], numbers[0]
    if rule == SGD:
        for d in range(w.size):
            w[d] -= size * (g[d] + decay[d] * w[d])
    elif rule == MOMENTUM:
        for d in range(w.size):
            v[d] = momentum * v[d] - size * (g[d] + decay[d] * w[d])
            w[d] += v[d]
    elif rule == NESTEROV:
        for d in range(w.size):
            move = size * (g[d] + decay[d] * w[d])
            v[d] = momentum * v[d] - move
            w[d] += momentum * v[d] - move
    else:
        of_mean, of_square, epsilon = numbers[1], numbers[2], numbers[3]
        one = like(size, 1)
        for d in range(w.size):
            grad = g[d] + decay[d] * w[d]
            m[d] = of_mean * m[d] + (one - of_mean) * grad
            v[d] = of_square * v[d] + (one - of_square) * (grad * grad)
            w[d] -= step[1] * m[d] / (np.sqrt(v[d]) * step[2] + epsilon) + size * shrink[d] * w[d]
