"""What linear_loss_gradient means, one sentence of docs/semantics.md per test, in all three tiers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose, assert_array_equal

from losses_by_numpy import LOSSES, MULTICLASS, losses_of

FLOATS = ("float32", "float64")


def linear_args(loss: str, rng: np.random.Generator, n: int = 30, D: int = 4, C: int = 3, dtype: str = "float64"):
    """Arguments (X, y, W, b) of linear_loss_gradient."""
    X = rng.normal(size=(n, D)).astype(dtype)
    if loss in MULTICLASS:
        return X, rng.integers(0, C, size=n), rng.normal(size=(C, D)).astype(dtype), rng.normal(size=C).astype(dtype)
    y = {
        "binary_cross_entropy": lambda: rng.integers(0, 2, size=n).astype(dtype),
        "hinge": lambda: rng.choice([-1.0, 1.0], size=n).astype(dtype),
        "squared_hinge": lambda: rng.choice([-1.0, 1.0], size=n).astype(dtype),
        "poisson": lambda: rng.poisson(2, size=n).astype(dtype),
    }.get(loss, lambda: rng.normal(size=n).astype(dtype))()
    return X, y, rng.normal(size=D).astype(dtype), float(rng.normal())


# ---------------------------------------------------------------------------------------------------------------
# linear_loss_gradient
# ---------------------------------------------------------------------------------------------------------------


def chain_rule(loss: str, X, y, W, b, l2=0.0, w=None):
    """(loss, dW, db) in float64 from the loss's own derivative: an independent composition, not one pass."""
    X, W = np.asarray(X, np.float64), np.asarray(W, np.float64)
    n = len(X)
    w = np.full(n, 1 / n) if w is None else np.asarray(w, np.float64) / np.sum(w, dtype=np.float64)
    Z = X @ W.T + b
    rows = np.arange(n)
    if loss in MULTICLASS:
        if loss == "softmax_cross_entropy":
            G = scipy.special.softmax(Z, axis=1)
            G = G - (np.eye(Z.shape[1])[y] if y.ndim == 1 else y)
        else:
            margin = 1.0 + Z - Z[rows, y][:, None]
            margin[rows, y] = 0.0
            worst = margin.argmax(axis=1)
            G = np.zeros_like(Z)
            violated = margin.max(axis=1) > 0
            G[rows[violated], worst[violated]] += 1
            G[rows[violated], y[violated]] -= 1
        G = w[:, None] * G
        dW, db = G.T @ X, G.sum(axis=0)
    else:
        y = np.asarray(y, np.float64)
        g = {
            "binary_cross_entropy": lambda: scipy.special.expit(Z) - y,
            "hinge": lambda: np.where(y * Z < 1, -y, 0.0),
            "squared_hinge": lambda: -2 * y * np.maximum(0, 1 - y * Z),
            "squared_error": lambda: Z - y,
            "absolute_error": lambda: np.sign(Z - y),
            "huber": lambda: np.clip(Z - y, -1.35, 1.35),
            "poisson": lambda: np.exp(Z) - y,
        }[loss]()
        dW, db = (w * g) @ X, float((w * g).sum())
    value = float((w * losses_of(loss, Z, y)).sum()) + l2 / 2 * float((W**2).sum())
    return value, dW + l2 * W, db


def assert_linear(result, truth, dtype):
    value, dW, db = result
    tolerance = {"float32": 5e-6, "float64": 1e-12}[dtype]
    assert type(value) is float
    assert value == pytest.approx(truth[0], rel=tolerance)
    assert dW.dtype == dtype
    assert dW.shape == truth[1].shape
    assert_allclose(dW, truth[1], rtol=tolerance, atol=tolerance)
    if isinstance(truth[2], float):
        assert type(db) is float
    else:
        assert db.dtype == dtype
        assert db.shape == truth[2].shape
    assert_allclose(db, truth[2], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", LOSSES)
def test_linear_loss_gradient_is_the_chain_rule_with_the_shapes_of_W_and_b(ops, rng, loss, dtype):
    for n, D, C in ((1, 1, 2), (30, 4, 3), (23, 17, 2), (5, 9, 10)):
        X, y, W, b = linear_args(loss, rng, n, D, C, dtype)
        assert_linear(ops.linear_loss_gradient(loss, X, y, W, b), chain_rule(loss, X, y, W, b), dtype)


@pytest.mark.parametrize("loss", LOSSES)
def test_linear_loss_gradient_weights_the_rows(ops, rng, loss):
    X, y, W, b = linear_args(loss, rng)
    w = rng.uniform(0, 2, size=30)
    w[4] = 0
    assert_linear(
        ops.linear_loss_gradient(loss, X, y, W, b, sample_weight=w), chain_rule(loss, X, y, W, b, w=w), "float64"
    )
    counts = rng.integers(0, 3, size=30)
    counts[0] = 1
    value, dW, db = ops.linear_loss_gradient(loss, X, y, W, b, sample_weight=counts)
    again = ops.linear_loss_gradient(loss, np.repeat(X, counts, axis=0), np.repeat(y, counts, axis=0), W, b)
    assert value == pytest.approx(again[0], rel=1e-12)
    assert_allclose(dW, again[1], rtol=1e-10, atol=1e-14)
    assert_allclose(db, again[2], rtol=1e-10, atol=1e-14)


def test_linear_loss_gradient_takes_target_probabilities(ops, rng):
    X, _, W, b = linear_args("softmax_cross_entropy", rng)
    P = rng.dirichlet(np.ones(3), size=30)
    result = ops.linear_loss_gradient("softmax_cross_entropy", X, P, W, b)
    assert_linear(result, chain_rule("softmax_cross_entropy", X, P, W, b), "float64")


@pytest.mark.parametrize("loss", LOSSES)
def test_l2_adds_half_the_squared_norm_of_W_and_never_touches_b(ops, rng, loss):
    X, y, W, b = linear_args(loss, rng)
    plain = ops.linear_loss_gradient(loss, X, y, W, b)
    value, dW, db = ops.linear_loss_gradient(loss, X, y, W, b, l2=0.7)
    assert value == pytest.approx(plain[0] + 0.35 * (W**2).sum(), rel=1e-13)
    assert_allclose(dW, plain[1] + 0.7 * W, rtol=1e-12, atol=1e-15)
    assert_array_equal(db, plain[2])
    # A huge intercept is not penalised either.
    moved = np.asarray(b) + 1e3 if np.ndim(b) else b + (3 if loss == "poisson" else 1e3)  # whose exponential is finite
    far = ops.linear_loss_gradient(loss, X, y, W, moved, l2=0.7)
    near = ops.linear_loss_gradient(loss, X, y, W, moved)
    assert far[0] - near[0] == pytest.approx(0.35 * (W**2).sum(), rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_linear_loss_gradient_has_the_dtype_of_X_and_casts_the_rest_to_it(ops, rng, same_bits, loss):
    X, y, W, b = linear_args(loss, rng)
    X32 = X.astype(np.float32)
    result = ops.linear_loss_gradient(loss, X32, y, W, b, l2=0.1, sample_weight=np.linspace(1, 2, 30))
    cast = ops.linear_loss_gradient(
        loss,
        X32,
        y.astype(np.float32) if y.dtype.kind == "f" else y,
        W.astype(np.float32),
        np.asarray(b, np.float32) if np.ndim(b) else float(np.float32(b)),
        l2=float(np.float32(0.1)),
        sample_weight=np.linspace(1, 2, 30).astype(np.float32),
    )
    assert result[1].dtype == np.float32
    same_bits(result[1], cast[1])
    same_bits(result[2], cast[2])
    assert ops.linear_loss_gradient(loss, X, y, W.astype(np.float32), b)[1].dtype == np.float64
    assert ops.linear_loss_gradient(loss, X.astype(np.float16), y, W, b)[1].dtype == np.float32
    integers = np.round(X * 3).astype(np.int64)
    assert ops.linear_loss_gradient(loss, integers, y, W, b)[1].dtype == np.float64


@pytest.mark.parametrize("loss", LOSSES)
def test_linear_loss_gradient_passes_nan_on(ops, rng, loss):
    X, y, W, b = linear_args(loss, rng)
    X[13, 2] = np.nan
    value, dW, db = ops.linear_loss_gradient(loss, X, y, W, b)
    assert np.isnan(value)
    if loss in MULTICLASS:
        assert np.isnan(dW[:, 2]).all()
        assert np.isnan(db).all()
    else:
        assert np.isnan(dW[2])
        assert np.isnan(db)


@pytest.mark.parametrize("dtype", FLOATS)
def test_linear_loss_gradient_at_extreme_logits(ops, dtype):
    X = np.array([[1.0], [-1.0], [0.5]], dtype)
    y = np.array([1, 0, 0], dtype)
    for scale in (1e3, 1e4, 1e30):
        W = np.array([scale], dtype)
        truth = chain_rule("binary_cross_entropy", X, y, W, 0.0)
        assert_linear(ops.linear_loss_gradient("binary_cross_entropy", X, y, W, 0.0), truth, dtype)
        W2 = np.array([[scale], [-scale]], dtype)
        truth = chain_rule("softmax_cross_entropy", X, y.astype(int), W2, np.zeros(2))
        result = ops.linear_loss_gradient("softmax_cross_entropy", X, y.astype(int), W2, np.zeros(2, dtype))
        assert_linear(result, truth, dtype)


@pytest.mark.parametrize("loss", LOSSES)
def test_linear_loss_gradient_without_columns_fits_the_intercept_only(ops, rng, loss):
    X, y, W, b = linear_args(loss, rng, D=0)
    assert_linear(ops.linear_loss_gradient(loss, X, y, W, b, l2=1.0), chain_rule(loss, X, y, W, b), "float64")


def test_prediction_example_of_binary_logistic_regression(ops):
    """w = 0 (90), b = 1, X = ones(2, 90) gives 0.73105858 twice."""
    z = np.ones((2, 90)) @ np.zeros(90) + 1
    assert_allclose(ops.sigmoid(z), [0.73105858, 0.73105858], atol=5e-9)


# ---------------------------------------------------------------------------------------------------------------
# n = 0
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_mean_losses_raise_on_no_rows(ops, rng, loss_args, loss):
    z, y = loss_args(rng, loss, 0)
    for name in (loss, f"{loss}_gradient"):
        with pytest.raises(ValueError, match="0 "):
            getattr(ops, name)(z, y)
    X, y, W, b = linear_args(loss, rng, n=0)
    with pytest.raises(ValueError, match="0 "):
        ops.linear_loss_gradient(loss, X, y, W, b)
