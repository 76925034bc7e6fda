"""Solvers: sampled Hessians, and the minimizer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fastml.kernels.training.cells import CELL
from fastml.solvers.blas import one_blas_thread
from fastml.solvers.hessians import Hessians, Rates, cell_sums, factorize, passing_rows, sample_rows
from fastml.solvers.quasi_newton import Minimizer

FLOAT64 = np.dtype(np.float64)


# ------------------------------------------------------------------------------------- sampled Hessians


def test_samples_keep_sums(rng):
    curvature = rng.exponential(size=10_000) ** 4
    curvature[::7] = 0
    rows, weights = sample_rows(curvature, 1000)
    assert 850 <= len(rows) <= 1000
    assert np.array_equal(rows, np.unique(rows))
    assert (curvature[rows] > 0).all()
    assert (weights >= curvature[rows]).all()
    assert weights.sum() == pytest.approx(curvature.sum(), rel=0.01)
    large = np.flatnonzero(curvature > 100 * curvature.mean())
    assert large.size
    assert np.isin(large, rows).all()
    everything = sample_rows(curvature, len(curvature))
    assert np.array_equal(everything[0], np.flatnonzero(curvature))
    assert np.array_equal(everything[1], curvature[curvature > 0])


@pytest.mark.parametrize("power", [0, 1, 40])
@pytest.mark.parametrize("n", [1024, 5000, 20_480])
def test_whoever_holds_some_cells_draws_the_same_sample(n, power, rng):
    """From the rows of these cells and from the sums of all cells."""
    curvature = rng.random(n) ** power
    curvature[1000:3000] = 0
    size = n // 20
    expected, weights = sample_rows(curvature, size)
    cuts = [0, *(np.sort(rng.choice(np.arange(1, -(-n // CELL)), 2, replace=False)) * CELL if n > 2 * CELL else []), n]
    parts = [curvature[first:last] for first, last in itertools.pairwise(cuts)]

    def sums(values):
        found = [cell_sums(each) for each in values]
        assert sum(len(each) for each in found) == -(-n // CELL)
        return np.cumsum(np.concatenate(found))

    rates = Rates(size, sums(parts)[-1])
    probabilities = [rates.probabilities(part) for part in parts]
    certain = sum(np.count_nonzero(each == 1) for each in probabilities)
    assert (certain > 0) == (power == 40)
    if certain:
        rates = rates._replace(more=(size - certain) / (sums(probabilities)[-1] - certain))
        probabilities = [rates.probabilities(part) for part in parts]
    before = np.concatenate([[0], sums(probabilities)[:-1]])
    rows = []
    for first, last, part in zip(cuts, cuts[1:], probabilities, strict=False):
        rows.append(first + passing_rows(part, before[first // CELL : -(-last // CELL)]))
    rows = np.concatenate(rows)
    assert np.array_equal(rows, expected)
    assert np.array_equal(curvature[rows] / np.concatenate(probabilities)[rows], weights)
    # No cell is passed over or favored: each has its share of the sample, to a row.
    shares = cell_sums(np.concatenate(probabilities))
    assert np.abs(np.bincount(rows // CELL, minlength=len(shares)) - shares).max() <= 1 + 1e-6


def test_factors_solve_whatever_the_units(rng):
    A = rng.normal(size=(20, 6))
    units = 10.0 ** np.arange(-9, 9, 3)
    H = (A.T @ A) * units * units[:, np.newaxis]
    x = rng.normal(size=6) / units
    with one_blas_thread():
        assert factorize(H.copy()).solve(H @ x) == pytest.approx(x, rel=1e-9)
        singular = np.ones((3, 3))
        assert np.isfinite(factorize(singular.copy()).solve(np.ones(3))).all()
        zero = factorize(np.zeros((2, 2)))
        assert np.isfinite(zero.solve(np.ones(2))).all()
        with pytest.raises(ValueError, match="too large"):
            factorize(np.full((2, 2), np.inf))


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hessians_of_centerd_rows(dtype, rng):
    """As of a centerd copy, in more rows than are centerd at a time."""
    X = (8 * rng.integers(-100, 100, size=(9000, 4)) + [0, 0, 1e8, 5e8]).astype(dtype)
    center, penalty, curvature = X.mean(axis=0, dtype=np.float64), np.array([0.1, 0.1, 0.1, 0.1, 0.0]), rng.random(9000)
    rows, g = np.flatnonzero(curvature > 0.3), rng.normal(size=5)
    found = Hessians(X, penalty, True, FLOAT64, None, center)
    Z = np.column_stack([X[rows] - center, np.ones(len(rows))])
    H = (Z * curvature[rows, np.newaxis]).T @ Z + np.diag(penalty)
    with one_blas_thread():
        whole = found.of_class(rows, curvature[rows]).solve(g)
        diagonal = found.diagonal(rows, curvature[rows]).solve(g)
    assert whole == pytest.approx(np.linalg.solve(H, g), rel=1e-9)
    assert diagonal == pytest.approx(g / H.diagonal(), rel=1e-12)


# ---------------------------------------------------------------------------------------- the minimiser


class Quartics:
    """Problems ``sum_j a_j (w_j - c_j)^2 / 2 + (w_j - c_j)^4``, with a poor preconditioner."""

    def __init__(self, scales, centers):
        self.scales, self.centers = scales, centers
        self.calls = 0

    def evaluate(self, W, which):
        self.calls += 1
        away = W - self.centers[which]
        values = (0.5 * self.scales[which] * away**2 + away**4).sum(axis=1)
        return values, self.scales[which] * away + 4 * away**3

    def rounded(self, W):
        return W

    def noise(self, values):
        return 1e-16 * values

    def precondition(self, G, which):
        return G / np.sqrt(self.scales[which])

    def converged(self, values, G, decrease, which):
        return np.abs(G).max(axis=1) <= 1e-8


def test_a_kink_close_by_is_found():
    """A step of 1 leads far beyond a kink at 1e-7, where the slope turns from -1 to a little more than 0."""

    class Kink(Quartics):
        def evaluate(self, W, which):
            self.calls += 1
            w, bend, width = W[:, :1], 1e-7, 1e-9
            inside = np.clip((w - bend) / width, 0, 1)
            values = -w + np.where(w > bend, (w - bend) * inside - 0.5 * width * inside**2, 0.0)
            return (values + 0.01 * w + 0.5 * w**2)[:, 0], inside - 0.99 + w

        def precondition(self, G, which):
            return G

        def converged(self, values, G, decrease, which):
            return np.abs(G[:, 0]) <= 0.5

    objective = Kink(np.ones((1, 1)), np.zeros((1, 1)))
    minimizer = Minimizer(objective, np.zeros((1, 1)))
    while minimizer.active.size:
        minimizer.step()
    assert not minimizer.stalled.any()
    assert 0 < minimizer.W[0, 0] < 1e-5
    assert objective.calls < 20


def test_a_first_step_that_is_far_too_short_is_lengthened():
    """Only a step that went too far bounds the search."""

    class Timid(Quartics):
        def precondition(self, G, which):
            return 1e-7 * G

    objective = Timid(np.ones((2, 3)), np.array([[1.0, -2.0, 3.0], [1e-4, 0.0, 0.0]]))
    minimizer = Minimizer(objective, np.zeros((2, 3)))
    while minimizer.active.size:
        assert minimizer.rounds < 200
        minimizer.step()
    assert not minimizer.stalled.any()
    assert minimizer.W == pytest.approx(objective.centers, abs=1e-6)


def test_several_problems_at_once_are_those_one_by_one(rng):
    scales, centers = 10.0 ** rng.uniform(-1, 3, (4, 12)), 3 * rng.normal(size=(4, 12))

    def minimized(which):
        objective = Quartics(scales[which], centers[which])
        minimizer = Minimizer(objective, np.zeros((len(which), 12)))
        while minimizer.active.size:
            assert minimizer.rounds < 200
            minimizer.step()
        assert not minimizer.stalled.any()
        return minimizer

    together = minimized([0, 1, 2, 3])
    assert together.W == pytest.approx(centers, abs=1e-3)
    assert np.abs(together.gradients).max() <= 1e-8
    assert len(set(together.n_iter.tolist())) > 1
    for k in range(4):
        alone = minimized([k])
        assert np.array_equal(alone.W[0], together.W[k])
        assert alone.n_iter[0] == together.n_iter[k]


def test_what_rounding_stops_is_told():
    class Rough(Quartics):
        def evaluate(self, W, which):
            values, G = super().evaluate(W, which)
            return values, G + 1.0  # a gradient that no value agrees with

    objective = Rough(np.ones((1, 3)), np.zeros((1, 3)))
    minimizer = Minimizer(objective, np.zeros((1, 3)))
    while minimizer.active.size:
        assert minimizer.rounds < 200
        minimizer.step()
    assert minimizer.stalled.all()
    assert minimizer.values[0] == 0
