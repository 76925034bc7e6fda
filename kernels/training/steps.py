"""Steps of stochastic gradient descent: what the gradient of a batch does to one weight.

`decay` is the strength of the squared penalty, `step` the size of the step. Each formula stands once: the loops over
the weights of linear models and of networks call these functions. Under `inner` a sum may be made in another order, as
it may where the formulas are called: that is what lets the loops use vector registers.

Source: Y. Nesterov's form of momentum as in I. Sutskever, J. Martens, G. Dahl and G. Hinton, On the importance of
initialization and momentum in deep learning, ICML 2013, with the weights after the next momentum as parameters.
"""

from __future__ import annotations

from ..runtime.jit import inner, scalar
from ..simd.functions import like

__all__ = ["gradient_step", "momentum_step", "nesterov_step", "soft_threshold"]


@inner
def gradient_step(w, g, decay, step):  # type: ignore[no-untyped-def]
    """Return the weight after a plain step."""
    return w - step * (g + decay * w)


@inner
def momentum_step(w, g, v, decay, step, momentum):  # type: ignore[no-untyped-def]
    """Return weight and velocity after a step with momentum."""
    velocity = momentum * v - step * (g + decay * w)
    return w + velocity, velocity


@inner
def nesterov_step(w, g, v, decay, step, momentum):  # type: ignore[no-untyped-def]
    """Return weight and velocity after a step as if the next momentum had been added already."""
    move = step * (g + decay * w)
    velocity = momentum * v - move
    return w + (momentum * velocity - move), velocity


@scalar
def soft_threshold(w, by):  # type: ignore[no-untyped-def]
    """Return the weight `by` nearer to zero, zero if it is nearer than that; NaN stays."""
    size = abs(w) - by
    return w if size != size else (like(w, 0) if size <= like(w, 0) else (size if w > like(w, 0) else -size))
