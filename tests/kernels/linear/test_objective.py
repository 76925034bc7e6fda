"""What solvers of linear models take of rows: weighted products, and value, gradient and slopes in one pass."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_expit, log_softmax, softmax

from fastml.kernels import linear_loss_gradient
from fastml.kernels.linear.gram import weighted_gram
from fastml.kernels.linear.objective import LossPass

FLOAT64 = np.dtype(np.float64)


# ------------------------------------------------------------------------------------- weighted products


@pytest.mark.needs_jit
@pytest.mark.parametrize(("n", "columns"), [(1, 1), (130, 7), (700, 31), (1500, 90), (5000, 33)])
@pytest.mark.parametrize(("stored", "computed"), [("f4", "f4"), ("f4", "f8"), ("f8", "f8")])
def test_weighted_gram(n, columns, stored, computed, rng):
    X = rng.normal(size=(n, columns)).astype(stored)
    rows = rng.permutation(n)[: n - n // 3]
    weight = rng.random(len(rows)) * (rng.random(len(rows)) > 0.1)
    found = weighted_gram(X, rows, weight, np.dtype(computed))
    Z = np.column_stack([X[rows].astype(np.float64), np.ones(len(rows))])
    magnitude = np.abs(Z).T @ (weight[:, np.newaxis] * np.abs(Z))
    assert found.dtype == np.float64
    assert (np.abs(found - Z.T @ (weight[:, np.newaxis] * Z)) <= 32 * np.finfo(computed).eps * magnitude + 1e-300).all()
    assert np.array_equal(found, found.T)
    for n_threads in (1, 2, 5):
        assert np.array_equal(found, weighted_gram(X, rows, weight, np.dtype(computed), n_threads))


# ---------------------------------------------------------------------------------------------- passes


def problem(loss, n, columns, rng):
    """Rows, targets, weights and coefficients of one problem with one score, or with three."""
    classes = 1 if loss == "binary_cross_entropy" else 3
    X = rng.normal(size=(n, columns))
    y = rng.integers(0, 2, n).astype(np.float64) if classes == 1 else rng.integers(0, classes, n)
    return X, y, rng.random(n), rng.normal(size=(classes, columns)), rng.normal(size=classes)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "softmax_cross_entropy"])
@pytest.mark.parametrize(("n", "columns"), [(1, 1), (33, 5), (2500, 17)])
@pytest.mark.parametrize("weighted", [False, True])
def test_passes_are_the_sums_of_linear_loss_gradient(loss, n, columns, weighted, rng):
    X, y, weight, W, b = problem(loss, n, columns, rng)
    weight = weight if weighted else np.ones(n)
    one = np.ones(1)
    rows = LossPass(loss, X, y, weight if weighted else None, one, one)
    slopes = np.empty((len(b), n))
    values, gradients = rows(W, b, which=np.arange(len(b)), dtype=FLOAT64, parameter=np.zeros(1), score_gradient=slopes)
    one_score = len(b) == 1
    settled = (W[0], b[0]) if one_score else (W, b)
    value, dW, db = linear_loss_gradient(loss, X, y, *settled, sample_weight=weight)
    total = weight.sum()
    assert values.sum() == pytest.approx(value * total, rel=1e-12)
    assert gradients[:, :-1] == pytest.approx(np.atleast_2d(dW) * total, rel=1e-10, abs=1e-12 * total)
    assert gradients[:, -1] == pytest.approx(np.atleast_1d(db) * total, rel=1e-10, abs=1e-12 * total)
    scores = X @ W.T + b
    if one_score:
        expected = (1 / (1 + np.exp(-scores)) - y[:, np.newaxis]) * weight[:, np.newaxis]
        assert values[0] == pytest.approx(-weight @ log_expit(np.where(y > 0, scores[:, 0], -scores[:, 0])))
    else:
        expected = (softmax(scores, axis=1) - np.eye(len(b))[y]) * weight[:, np.newaxis]
        assert values.sum() == pytest.approx(-weight @ log_softmax(scores, axis=1)[np.arange(n), y])
    assert slopes.T == pytest.approx(expected, abs=1e-12)


@pytest.mark.needs_jit
@pytest.mark.parametrize("loss", ["binary_cross_entropy", "softmax_cross_entropy"])
def test_float32_rows_in_float64(loss, rng):
    """The same bits as of rows that were float64 from the start."""
    X, y, weight, W, b = problem(loss, 3000, 40, rng)
    X, y = X.astype(np.float32), y if loss.startswith("softmax") else y.astype(np.float32)
    one, which = np.ones(1), np.arange(len(b))
    found = LossPass(loss, X, y, weight, one, one)(W, b, which=which, dtype=FLOAT64, parameter=np.zeros(1))
    wide = LossPass(loss, X.astype(np.float64), y, weight, one, one)
    for n_threads in (1, 2, 7):
        wide._n_threads = n_threads
        expected = wide(W, b, which=which, dtype=FLOAT64, parameter=np.zeros(1))
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    single = LossPass(loss, X, y, weight, one, one)(W, b, which=which, dtype=np.dtype("f4"), parameter=np.zeros(1))
    assert single[1] == pytest.approx(found[1], rel=1e-4, abs=1e-3)
    assert not np.array_equal(single[1], found[1])


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge", "smooth_hinge"])
def test_one_class_against_the_rest(loss, rng):
    X, labels, weight = rng.normal(size=(500, 9)), rng.integers(0, 3, 500), rng.random(500)
    W, b, positive, negative = rng.normal(size=(3, 9)), rng.normal(size=3), rng.random(3), rng.random(3)
    widths, slopes = np.array([0.1, 1e-9, 5.0]), np.zeros((3, 500))
    rows = LossPass(loss, X, labels, weight, positive, negative)
    which = np.array([2, 0])
    values, gradients = rows(W[which], b[which], which=which, dtype=FLOAT64, parameter=widths, score_gradient=slopes)
    for place, k in enumerate(which):
        sign = np.where(labels == k, 1.0, -1.0)
        factor = weight * np.where(labels == k, positive[k], negative[k])
        if loss == "smooth_hinge":
            slack = np.maximum(0, 1 - sign * (X @ W[k] + b[k]))
            bent = slack < widths[k]
            value = factor @ np.where(bent, slack**2 / (2 * widths[k]), slack - widths[k] / 2)
            derivative = -factor * sign * np.where(bent, slack / widths[k], 1)
            assert bent.any()
        else:
            value, dW, db = linear_loss_gradient(loss, X, sign, W[k], b[k], sample_weight=factor)
            value *= factor.sum()
            assert gradients[place, :-1] == pytest.approx(dW * factor.sum(), rel=1e-10)
            assert gradients[place, -1] == pytest.approx(db * factor.sum(), rel=1e-10)
            derivative = slopes[k]
        assert values[place] == pytest.approx(value, rel=1e-12)
        assert slopes[k] == pytest.approx(derivative, abs=1e-9)
        assert gradients[place] == pytest.approx(slopes[k] @ np.column_stack([X, np.ones(500)]), abs=1e-9)
    assert not slopes[1].any()


@pytest.mark.parametrize("n", [1024, 5 * 1024, 7 * 1024 + 1, 70 * 1024 + 33, 300 * 1024])
def test_sums_by_cells_are_those_of_a_binary_tree(n, rng):
    """Blocks of rows that begin at a cell have nodes of the tree as their sums; the same bits for any threads."""
    X, y = rng.normal(size=(n, 3)), rng.integers(0, 2, n).astype(np.float64)

    def sums(first, last, n_threads=1):
        rows = LossPass("binary_cross_entropy", X[first:last], y[first:last], None, np.ones(1), np.ones(1), n_threads)
        values, gradients = rows(
            np.full((1, 3), 0.3), np.zeros(1), which=np.zeros(1, np.intp), dtype=FLOAT64, parameter=np.zeros(1)
        )
        return np.append(values, gradients)

    nodes = [sums(first, min(n, first + 1024)) for first in range(0, n, 1024)]
    while len(nodes) > 1:
        nodes = [sum(nodes[at + 1 : at + 2], nodes[at]) for at in range(0, len(nodes), 2)]
    for n_threads in (1, 2, 5):
        assert np.array_equal(sums(0, n, n_threads), nodes[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_of_rows(dtype, rng):
    X, A = rng.normal(size=(1100, 6)).astype(dtype), rng.normal(size=(5, 1100))
    one = np.ones(1)
    found = LossPass("hinge", X, np.zeros(1100, np.intp), None, one, one).combine(A)
    assert found == pytest.approx(A @ np.column_stack([X, np.ones(1100)]), rel=1e-9, abs=1e-10)
