"""Every gradient against central differences of the loss, and subgradients where no derivative exists."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import approx_fprime, check_grad
from scipy.optimize._numdiff import approx_derivative

from fastml.kernels.losses.table import LOSSES
from fastml.kernels.losses.table import OVER_CLASSES as MULTICLASS

N = 7


def differences(function, x):
    """The gradient of a function of an array of any shape by central differences."""
    shape = np.shape(x)
    gradient = approx_derivative(lambda flat: function(flat.reshape(shape)), np.ravel(x), method="3-point")
    return np.reshape(gradient, shape)


def clear_of_kinks(loss: str, Z: np.ndarray, y: np.ndarray, distance: float = 1e-3) -> bool:
    """True where no row lies within `distance` of a point without a derivative."""
    if loss == "multiclass_hinge":
        margin = 1.0 + Z - Z[np.arange(len(Z)), y][:, None]
        margin[np.arange(len(Z)), y] = 0.0
        top = np.sort(margin, axis=1)
        return bool((top[:, -1] - top[:, -2] > distance).all())
    gaps = {
        "hinge": lambda: y * Z - 1,
        "squared_hinge": lambda: y * Z - 1,
        "absolute_error": lambda: Z - y,
        "huber": lambda: np.abs(Z - y) - 1.35,
    }.get(loss, lambda: np.ones(1))()
    return bool((np.abs(gaps) > distance).all())


def linear_args(loss: str, rng: np.random.Generator, n: int, D: int, C: int):
    while True:
        X = rng.normal(size=(n, D))
        if loss in MULTICLASS:
            y, W, b = rng.integers(0, C, size=n), rng.normal(size=(C, D)), rng.normal(size=C)
        else:
            W, b = rng.normal(size=D), float(rng.normal())
            y = rng.normal(size=n)
            if loss == "binary_cross_entropy":
                y = rng.uniform(size=n)
            elif "hinge" in loss:
                y = np.sign(y)
            elif loss == "poisson":
                y = np.floor(y**2)
        if clear_of_kinks(loss, X @ W.T + b, y):
            return X, y, W, b


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_the_derivative_of_the_loss(ops, rng, loss_args, loss, weighted):
    z, y = loss_args(rng, loss, N)
    assert clear_of_kinks(loss, z, y)
    kwargs = {"sample_weight": rng.uniform(0.1, 3, size=N)} if weighted else {}
    _, dz = getattr(ops, f"{loss}_gradient")(z, y, **kwargs)
    numeric = differences(lambda v: getattr(ops, loss)(v, y, **kwargs), z)
    assert_allclose(dz, numeric, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_float32_gradient_is_the_derivative_of_the_float64_loss(ops, rng, loss_args, loss):
    z, y = loss_args(rng, loss, N, "float32")
    _, dz = getattr(ops, f"{loss}_gradient")(z, y)
    assert dz.dtype == np.float32
    y64 = y.astype(np.float64) if y.dtype.kind == "f" else y
    numeric = differences(lambda v: getattr(ops, loss)(v, y64), z.astype(np.float64))
    assert_allclose(dz, numeric, rtol=2e-6, atol=1e-7)


def test_gradient_of_cross_entropy_with_target_probabilities(ops, rng):
    Z, P = rng.normal(size=(N, 4)), rng.dirichlet(np.ones(4), size=N)
    _, dZ = ops.softmax_cross_entropy_gradient(Z, P)
    assert_allclose(dZ, differences(lambda V: ops.softmax_cross_entropy(V, P), Z), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("delta", [0.1, 1.0, 3.0])
def test_gradient_of_huber_for_other_delta(ops, rng, delta):
    r = rng.normal(size=N) * 2
    r = np.where(np.abs(np.abs(r) - delta) < 1e-2, r * 1.5, r)
    y = rng.normal(size=N)
    _, dz = ops.huber_gradient(y + r, y, delta=delta)
    assert_allclose(dz, differences(lambda v: ops.huber(v, y, delta=delta), y + r), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_function_returns_the_loss_of_the_plain_function(ops, rng, loss_args, loss, weighted, dtype):
    z, y = loss_args(rng, loss, 301, dtype)
    kwargs = {"sample_weight": rng.uniform(0.1, 3, size=301).astype(dtype)} if weighted else {}
    value, _ = getattr(ops, f"{loss}_gradient")(z, y, **kwargs)
    assert value == pytest.approx(getattr(ops, loss)(z, y, **kwargs), rel=1e-13 if dtype == "float64" else 1e-6)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("loss", LOSSES)
def test_linear_gradient_is_the_derivative_in_W_and_b(ops, rng, loss, weighted):
    X, y, W, b = linear_args(loss, rng, 11, 3, 3)
    kwargs = {"l2": 0.3}
    if weighted:
        kwargs["sample_weight"] = rng.uniform(0.1, 3, size=11)

    def value(W, b):
        return ops.linear_loss_gradient(loss, X, y, W, b, **kwargs)[0]

    _, dW, db = ops.linear_loss_gradient(loss, X, y, W, b, **kwargs)
    assert_allclose(dW, differences(lambda V: value(V, b), W), rtol=1e-6, atol=1e-8)
    scalar = np.ndim(b) == 0
    numeric = differences(lambda v: value(W, float(v[0]) if scalar else v), np.atleast_1d(b))
    assert_allclose(np.atleast_1d(db), numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "squared_error", "huber", "squared_hinge"])
def test_scipys_check_grad_accepts_the_linear_gradient(ops, rng, loss):
    X, y, W, b = linear_args(loss, rng, 11, 5, 2)
    error = check_grad(
        lambda w: ops.linear_loss_gradient(loss, X, y, w, b, l2=0.1)[0],
        lambda w: ops.linear_loss_gradient(loss, X, y, w, b, l2=0.1)[1],
        W,
    )
    assert error < 1e-5
    wrong = check_grad(
        lambda w: ops.linear_loss_gradient(loss, X, y, w, b, l2=0.1)[0],
        lambda w: ops.linear_loss_gradient(loss, X, y, w, b, l2=0.1)[1] * 1.001,
        W,
    )
    assert wrong > 1e-5  # the check can fail


def test_forward_differences_deviate_by_the_curvature(ops, rng):
    """Forward differences have the error (h/2)·|diag H| to first order; 100 rows, 90 columns, h = 1e-6."""
    h = 1e-6
    X, t = rng.normal(size=(100, 90)), rng.integers(0, 2, size=100).astype(float)
    w, b = rng.normal(size=90) * 0.1, 0.2
    if ops.__name__.endswith("loops"):
        X, w = X[:, :12].copy(), w[:12].copy()
    _, dw, _ = ops.linear_loss_gradient("binary_cross_entropy", X, t, w, b)
    forward = approx_fprime(w, lambda v: ops.linear_loss_gradient("binary_cross_entropy", X, t, v, b)[0], h)
    p = 1 / (1 + np.exp(-(X @ w + b)))
    curvature = (X**2 * (p * (1 - p))[:, None]).mean(axis=0)
    rounding = 4 * np.finfo(float).eps / h * np.sqrt(len(w))
    error = np.linalg.norm(forward - dw)
    assert error <= h / 2 * np.linalg.norm(curvature) * 1.05 + rounding
    assert error >= h / 2 * np.linalg.norm(curvature) * 0.95 - rounding


# ---------------------------------------------------------------------------------------------------------------
# Where no derivative exists
# ---------------------------------------------------------------------------------------------------------------

KINKS = {
    "hinge": (np.array([1.0, -1.0, 1.0, 0.0]), np.array([1.0, -1.0, -1.0, 1.0])),
    "squared_hinge": (np.array([1.0, -1.0, 2.0, 0.0]), np.array([1.0, -1.0, -1.0, 1.0])),
    "absolute_error": (np.array([0.0, 2.0, -1.0, 3.0]), np.array([0.0, 2.0, -1.0, 1.0])),
    "huber": (np.array([1.35, -1.35, 0.0, 9.0]), np.zeros(4)),
    "multiclass_hinge": (
        np.array([[2.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0.0, 3.0, 3.0], [1.0, 2.0, 0.5]]),
        np.array([0, 1, 0, 1]),
    ),
}


@pytest.mark.parametrize("loss", KINKS)
def test_subgradient_inequality_holds_at_kinks(ops, rng, loss):
    """f(v) >= f(z) + g·(v - z) for every v is what makes g a subgradient of a convex f."""
    z, y = KINKS[loss]
    value, dz = getattr(ops, f"{loss}_gradient")(z, y)
    for scale in (1e-6, 1e-3, 1.0, 10.0):
        for _ in range(5):
            step = rng.normal(size=z.shape) * scale
            assert getattr(ops, loss)(z + step, y) >= value + (dz * step).sum() - 1e-14


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("hinge", [0, 0, 1, -1]),
        ("squared_hinge", [0, 0, 6, -2]),
        ("absolute_error", [0, 0, 0, 1]),
        ("huber", [1.35, -1.35, 0, 1.35]),
        ("multiclass_hinge", [[0, 0, 0], [1, -1, 0], [-1, 1, 0], [0, 0, 0]]),
    ],
)
def test_documented_subgradient_at_kinks(ops, loss, expected):
    z, y = KINKS[loss]
    _, dz = getattr(ops, f"{loss}_gradient")(z, y)
    assert_allclose(dz * 4, expected, rtol=1e-15)
    w = np.array([1.0, 2.0, 3.0, 4.0])
    _, weighted = getattr(ops, f"{loss}_gradient")(z, y, sample_weight=w)
    assert_allclose(weighted * 10, (w if z.ndim == 1 else w[:, None]) * np.array(expected), rtol=1e-14)


@pytest.mark.parametrize("loss", KINKS)
def test_linear_gradient_uses_the_same_subgradients(ops, loss):
    """With X the identity and b = 0 the scores are the weights, so dW is the gradient in the scores."""
    z, y = KINKS[loss]
    value, dz = getattr(ops, f"{loss}_gradient")(z, y)
    if z.ndim == 1:
        result = ops.linear_loss_gradient(loss, np.eye(4), y, z, 0.0)
        assert_allclose(result[1], dz, rtol=1e-14)
        assert result[2] == pytest.approx(dz.sum(), rel=1e-14, abs=1e-16)
    else:
        result = ops.linear_loss_gradient(loss, np.eye(4), y, z.T.copy(), np.zeros(3))
        assert_allclose(result[1], dz.T, rtol=1e-14)
        assert_allclose(result[2], dz.sum(axis=0), rtol=1e-14, atol=1e-16)
    assert result[0] == pytest.approx(value, rel=1e-14)


@pytest.mark.parametrize("loss", MULTICLASS)
def test_multiclass_gradients_of_a_row_sum_to_zero(ops, rng, loss_args, loss):
    """Adding one number to all scores of a row changes neither loss."""
    Z, y = loss_args(rng, loss, 40)
    value, dZ = getattr(ops, f"{loss}_gradient")(Z, y)
    assert_allclose(dZ.sum(axis=1), 0, atol=1e-16)
    shifted, dshifted = getattr(ops, f"{loss}_gradient")(Z + 64.0, y)
    assert shifted == pytest.approx(value, rel=1e-12)
    assert_allclose(dshifted, dZ, rtol=1e-11, atol=1e-15)


def test_gradient_of_mean_absolute_error_counts_over_and_under_estimates(ops, rng):
    """In b it is (n over - n under) / n, in w the mean of sign(r)·x."""
    X, y, W, b = linear_args("absolute_error", rng, 25, 4, 2)
    r = X @ W + b - y
    _, dW, db = ops.linear_loss_gradient("absolute_error", X, y, W, b)
    assert db == pytest.approx(((r > 0).sum() - (r < 0).sum()) / 25, rel=1e-13)
    assert_allclose(dW, (np.sign(r)[:, None] * X).mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_arrays_are_fresh(ops, rng, loss_args, loss):
    """Writing to a returned gradient changes neither the inputs nor the next result."""
    z, y = loss_args(rng, loss, N)
    kept = z.copy()
    _, first = getattr(ops, f"{loss}_gradient")(z, y)
    assert not np.shares_memory(first, z)
    before = first.copy()
    first[...] = 99
    assert_array_equal(z, kept)
    assert_array_equal(getattr(ops, f"{loss}_gradient")(z, y)[1], before)
