"""Coordinate descent on quadratics with an L1 penalty: both forms, against conditions of the minimum."""

from __future__ import annotations

import numpy as np
import pytest

from fastml.kernels.linear import coordinates


def quadratic(rng, rows, columns):
    """Rows, coefficients to start from, the gradient there, and strengths."""
    Z = rng.normal(size=(columns, rows))
    return Z, rng.normal(size=columns) * (rng.random(columns) < 0.5), 3 * rng.normal(size=columns), rng.random(columns)


def violation(H, start, gradient, strength, x):
    """How far coefficients are from the conditions of the minimum."""
    slope = gradient + H @ (x - start)
    return np.where(x != 0, np.abs(slope + strength * np.sign(x)), np.maximum(np.abs(slope) - strength, 0)).max()


@pytest.mark.parametrize("ridge", [0.1, 3.0])
@pytest.mark.parametrize(("rows", "columns"), [(40, 7), (9, 20), (3, 1)])
def test_both_forms_end_at_the_minimum(rows, columns, ridge, rng):
    Z, start, gradient, strength = quadratic(rng, rows, columns)
    H = Z @ Z.T + ridge * np.eye(columns)
    x, slope = start.copy(), gradient.copy()
    assert coordinates.descend_products(H, strength, x, slope, 10_000, 1e-9) <= 1e-9
    assert violation(H, start, gradient, strength, x) <= 1e-7
    assert slope == pytest.approx(gradient + H @ (x - start), abs=1e-7)
    other, residual = start.copy(), np.zeros(rows)
    left = coordinates.descend_rows(
        Z, H.diagonal().copy(), np.full(columns, ridge), strength, other, start, gradient, residual, 10_000, 1e-9
    )
    assert left <= 1e-9
    assert violation(H, start, gradient, strength, other) <= 1e-7
    assert residual == pytest.approx(Z.T @ (other - start), abs=1e-7)
    assert other == pytest.approx(x, abs=1e-5)
    assert np.array_equal(other == 0, x == 0)


def test_a_descent_of_rows_goes_on_where_it_was(rng):
    Z, start, gradient, strength = quadratic(rng, 12, 6)
    curvature, rows = np.einsum("ij,ij->i", Z, Z) + 0.1, (Z, np.full(6, 0.1), strength, start, gradient)

    def descend(x, residual, sweeps):
        Z, ridge, strength, start, gradient = rows
        coordinates.descend_rows(Z, curvature, ridge, strength, x, start, gradient, residual, sweeps, 0.0)

    whole, residual = start.copy(), np.zeros(12)
    descend(whole, residual, 4)
    parts, residual = start.copy(), np.zeros(12)
    for _ in range(2):
        descend(parts, residual, 2)
    assert np.array_equal(whole, parts)


def test_a_strong_penalty_leaves_nothing(rng):
    Z, start, gradient, _ = quadratic(rng, 30, 5)
    H, x, slope = Z @ Z.T, start.copy(), gradient.copy()
    strength = np.full(5, np.abs(gradient - H @ start).max() + 1)
    coordinates.descend_products(H, strength, x, slope, 1000, 0.0)
    assert not x.any()
    assert coordinates.descend_products(H, strength, x, slope, 1, 0.0) == 0
