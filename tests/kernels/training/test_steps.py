"""The formulas of steps, one weight at a time, beside what their sources say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastml.kernels.training.steps import gradient_step, momentum_step, nesterov_step, soft_threshold

W, G, V, DECAY, STEP, MOMENTUM = 1.5, -0.25, 0.125, 0.5, 0.25, 0.5  # all that follows is exact


def test_a_plain_step_goes_against_the_gradient_of_loss_and_penalty():
    assert gradient_step(W, G, DECAY, STEP) == W - STEP * (G + DECAY * W)


def test_momentum_keeps_a_part_of_the_last_move():
    w, v = momentum_step(W, G, V, DECAY, STEP, MOMENTUM)
    assert (w, v) == (W + v, MOMENTUM * V - STEP * (G + DECAY * W))


def test_nesterov_takes_the_gradient_where_momentum_leads():
    """In Sutskever's form θ + μ v is where the gradient is taken; the weights here are that point."""
    w, v = nesterov_step(W, G, V, DECAY, STEP, MOMENTUM)
    theta = W - MOMENTUM * V
    moved = MOMENTUM * V - STEP * (G + DECAY * W)
    assert v == moved
    assert w == theta + moved + MOMENTUM * moved


@pytest.mark.parametrize("step", [momentum_step, nesterov_step])
def test_without_momentum_both_are_plain_steps(step):
    assert step(W, G, 0.0, DECAY, STEP, 0.0)[0] == gradient_step(W, G, DECAY, STEP)


@pytest.mark.parametrize(
    ("weight", "result"), [(1.0, 0.75), (-1.0, -0.75), (0.25, 0.0), (-0.25, 0.0), (0.0, 0.0), (math.inf, math.inf)]
)
def test_a_soft_threshold_takes_weights_nearer_to_zero(weight, result):
    assert soft_threshold(weight, 0.25) == result


def test_a_soft_threshold_keeps_nan_and_the_dtype():
    assert math.isnan(soft_threshold(math.nan, 0.25))
    assert np.float32(soft_threshold(np.float32(0.3), np.float32(0.1))) == np.float32(0.3) - np.float32(0.1)
