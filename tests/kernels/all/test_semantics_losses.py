"""What losses mean, one sentence of docs/semantics.md per test, in all three tiers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose, assert_array_equal

from losses_by_numpy import LOSSES, MULTICLASS, REGRESSION, losses_of

FLOATS = ("float32", "float64")

RTOL = {"float32": 2e-6, "float64": 1e-13}

# Where naive formulas overflow, cancel or change branch; 36.9 and 37 straddle -log(eps) of float64.
EXTREME_LOGITS = (0.0, 36.9, 37.0, 37.5, 88.0, 89.0, 103.0, 104.0, 232.8, 745.0, 1e3, 1e4, 1e30)


# ---------------------------------------------------------------------------------------------------------------
# Losses: values
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_means_of_the_formula_and_python_floats(ops, rng, loss_args, loss, dtype):
    z, y = loss_args(rng, loss, 40, dtype)
    value = getattr(ops, loss)(z, y)
    assert type(value) is float
    assert value == pytest.approx(losses_of(loss, z, y).mean(), rel=RTOL[dtype])
    gradient = getattr(ops, f"{loss}_gradient")(z, y)
    assert isinstance(gradient, tuple)
    assert type(gradient[0]) is float
    assert gradient[0] == pytest.approx(value, rel=RTOL[dtype])
    assert gradient[1].shape == z.shape
    assert gradient[1].dtype == dtype


def test_squared_hinge_has_no_half_and_squared_error_has_one(ops):
    assert ops.squared_hinge(np.array([-1.0]), np.array([1.0])) == 4.0
    assert ops.squared_error(np.array([3.0]), np.array([1.0])) == 2.0
    assert_array_equal(ops.squared_hinge_gradient(np.array([-1.0]), np.array([1.0]))[1], [-4.0])
    assert_array_equal(ops.squared_error_gradient(np.array([3.0]), np.array([1.0]))[1], [2.0])


def test_huber_takes_delta_and_defaults_to_1_35(ops):
    z, y = np.array([0.5, 1.35, -3.0]), np.zeros(3)
    assert ops.huber(z, y) == pytest.approx(scipy.special.huber(1.35, z).mean(), rel=1e-15)
    for delta in (0.25, 1.0, 10.0):
        assert ops.huber(z, y, delta=delta) == pytest.approx(scipy.special.huber(delta, z).mean(), rel=1e-15)
        loss, dz = ops.huber_gradient(z, y, delta=delta)
        assert loss == pytest.approx(scipy.special.huber(delta, z).mean(), rel=1e-15)
        assert_allclose(dz, np.clip(z, -delta, delta) / 3, rtol=1e-15)


@pytest.mark.parametrize("dtype", FLOATS)
def test_binary_cross_entropy_takes_logits_and_targets_in_0_to_1(ops, dtype):
    t = np.array([0.0, 0.25, 1.0], dtype)
    z = np.zeros(3, dtype)
    assert ops.binary_cross_entropy(z, t) == pytest.approx(np.log(2), rel=1e-7)
    assert_allclose(ops.binary_cross_entropy_gradient(z, t)[1], (0.5 - t) / 3, rtol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax_cross_entropy_takes_indices_or_probabilities(ops, rng, dtype):
    Z = rng.normal(size=(7, 4)).astype(dtype)
    y = rng.integers(0, 4, size=7)
    one_hot = np.eye(4, dtype=dtype)[y]
    by_index, d_index = ops.softmax_cross_entropy_gradient(Z, y)
    by_probability, d_probability = ops.softmax_cross_entropy_gradient(Z, one_hot)
    assert by_index == pytest.approx(by_probability, rel=RTOL[dtype])
    assert_allclose(d_index, d_probability, rtol=RTOL[dtype], atol=RTOL[dtype])
    P = rng.dirichlet(np.ones(4), size=7).astype(dtype)
    loss, dZ = ops.softmax_cross_entropy_gradient(Z, P)
    assert loss == pytest.approx(losses_of("softmax_cross_entropy", Z, P).mean(), rel=4e-7)
    assert_allclose(dZ, (scipy.special.softmax(Z.astype(np.float64), axis=1) - P) / 7, rtol=0, atol=RTOL[dtype])
    for label_dtype in ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"):
        assert ops.softmax_cross_entropy(Z, y.astype(label_dtype)) == ops.softmax_cross_entropy(Z, y)
        assert ops.multiclass_hinge(Z, y.astype(label_dtype)) == ops.multiclass_hinge(Z, y)


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_hinge_labels_may_be_integers_or_floats(ops, loss):
    z = np.array([0.5, -0.5, 2.0], np.float32)
    y = np.array([1, -1, -1])
    values = {getattr(ops, loss)(z, y.astype(dtype)) for dtype in ("int8", "int64", "float32", "float64")}
    assert len(values) == 1


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_binary_cross_entropy_at_extreme_logits(ops, dtype, target):
    t = np.array([target], dtype)
    for value in EXTREME_LOGITS:
        for z in (np.array([value], dtype), np.array([-value], dtype)):
            truth = losses_of("binary_cross_entropy", z, t)[0]
            loss, dz = ops.binary_cross_entropy_gradient(z, t)
            # The loss of a confident right answer is tiny and must keep its digits: 8.5e-17 at a logit of 37.
            tiny = float(np.finfo(dtype).tiny)
            assert loss == pytest.approx(truth, rel=RTOL[dtype], abs=tiny), (z, t)
            assert ops.binary_cross_entropy(z, t) == pytest.approx(truth, rel=RTOL[dtype], abs=tiny), (z, t)
            slope = scipy.special.expit(z.astype(np.float64)) - t.astype(np.float64)
            assert_allclose(dz, slope, rtol=RTOL[dtype], atol=float(np.finfo(dtype).eps))


@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax_cross_entropy_at_extreme_logits(ops, dtype):
    for value in EXTREME_LOGITS:
        Z = np.array([[value, 0.0, -value]], dtype)
        Z64 = Z.astype(np.float64)
        for y in range(3):
            # log(1 + rest) with the largest term taken out keeps the digits of a tiny loss.
            rest = np.delete(Z64[0], np.argmax(Z64)) - Z64.max()
            truth = (Z64.max() - Z64[0, y]) + np.log1p(np.exp(rest).sum())
            loss, dZ = ops.softmax_cross_entropy_gradient(Z, np.array([y]))
            eps = float(np.finfo(dtype).eps)
            assert loss == pytest.approx(truth, rel=RTOL[dtype], abs=2 * eps), (value, y)
            assert ops.softmax_cross_entropy(Z, np.array([y])) == pytest.approx(truth, rel=RTOL[dtype], abs=2 * eps)
            assert_allclose(dZ, scipy.special.softmax(Z64, axis=1) - np.eye(3)[[y]], rtol=RTOL[dtype], atol=2 * eps)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", ["hinge", "squared_hinge", "multiclass_hinge", *REGRESSION])
def test_margin_and_regression_losses_at_extreme_scores(ops, loss, dtype):
    for value in (v for v in EXTREME_LOGITS if loss not in ("squared_hinge", "squared_error") or v < 1e18):
        for sign in (1, -1):
            if loss == "multiclass_hinge":
                z, y = np.array([[sign * value, 0.0, -sign * value]], dtype), np.array([0])
            else:
                z, y = np.array([sign * value], dtype), np.array([1.0], dtype)
            truth = losses_of(loss, z, y)[0]
            computed = getattr(ops, loss)(z, y)
            with_gradient, dz = getattr(ops, f"{loss}_gradient")(z, y)
            assert computed == pytest.approx(truth, rel=RTOL[dtype])
            assert with_gradient == pytest.approx(truth, rel=RTOL[dtype])
            assert np.isfinite(dz).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("C", [2, 3, 8, 40])
def test_huge_equal_scores_cancel_before_anything_is_added(ops, dtype, C):
    """(z_j - z_y) + 1 must not become z_j + (1 - z_y): at 1e10 the 1 would be lost."""
    for value in (1e4, 1e8, 1e10, 1e20, 1e30):
        Z = np.full((5, C), value, dtype)
        Z[3] = -value
        y = np.array([0, C - 1, C // 2, 0, 1])
        loss, dZ = ops.multiclass_hinge_gradient(Z, y)
        assert loss == 1
        assert ops.multiclass_hinge(Z, y) == 1
        assert_allclose(dZ[0] * 5, [-1, 1, *[0] * (C - 2)], rtol=1e-6)
        loss, dZ = ops.softmax_cross_entropy_gradient(Z, y)
        assert loss == pytest.approx(np.log(C), rel=RTOL[dtype])
        assert ops.softmax_cross_entropy(Z, np.full((5, C), 1 / C, dtype)) == pytest.approx(np.log(C), rel=RTOL[dtype])
        assert_allclose(dZ, (1 / C - np.eye(C)[y]) / 5, rtol=RTOL[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", ["binary_cross_entropy", "hinge", "squared_hinge", *MULTICLASS])
def test_huge_scores_of_right_rows_do_not_disturb_the_others(ops, rng, loss_args, loss, dtype):
    """A row at 1e30 with loss 0 leaves the losses of its neighbours their digits."""
    z, y = loss_args(rng, loss, 40, dtype)
    truth = losses_of(loss, z, y)
    for row in (0, 7, 21, 39):
        if z.ndim == 2:
            z[row] = 0
            z[row, y[row]] = 1e30
        else:
            y[row] = 1
            z[row] = 1e30
        truth[row] = 0
    value, dz = getattr(ops, f"{loss}_gradient")(z, y)
    assert value == pytest.approx(truth.mean(), rel=RTOL[dtype])
    assert getattr(ops, loss)(z, y) == pytest.approx(truth.mean(), rel=RTOL[dtype])
    assert_array_equal(dz[[0, 7, 21, 39]], 0)


@pytest.mark.parametrize("loss", LOSSES)
def test_one_row_gives_its_own_loss_and_an_undivided_gradient(ops, rng, loss_args, loss):
    z, y = loss_args(rng, loss, 1)
    value, dz = getattr(ops, f"{loss}_gradient")(z, y)
    assert value == pytest.approx(losses_of(loss, z, y)[0], rel=1e-13)
    # The same row eleven times: same mean, gradient of each copy an eleventh.
    many, dmany = getattr(ops, f"{loss}_gradient")(np.repeat(z, 11, axis=0), np.repeat(y, 11, axis=0))
    assert many == pytest.approx(value, rel=1e-13)
    assert_allclose(dmany * 11, np.repeat(dz, 11, axis=0), rtol=1e-13)


# Without the JIT a part is summed in one lane instead of many, and is that much less exact.
@pytest.mark.parametrize("tier", ["loops", "vectorized", pytest.param("compiled", marks=pytest.mark.needs_jit)])
@pytest.mark.parametrize("gap", [1, 32, 128, 3000])
def test_losses_of_float32_are_accumulated_in_float64(ops, gap):
    """In float32 the sum 2**24 + 1 + 1 + ... never grows.

    Parts of a block may be summed in float32, as long as the error stays below 1e-6 of the sum.
    """
    z = np.ones(3001, np.float32)
    z[::gap] = 2.0**24
    zero = np.zeros_like(z)
    exact = z.mean(dtype=np.float64)
    assert ops.absolute_error(z, zero) == pytest.approx(exact, rel=1e-6)
    assert ops.absolute_error_gradient(z, zero)[0] == pytest.approx(exact, rel=1e-6)
    # Equal terms: a plain float32 sum would be off by 1e-4 after a million of them.
    if not ops.__name__.endswith("loops"):
        many = np.full(1_000_000, 0.1, np.float32)
        zeros = np.zeros_like(many)
        assert ops.absolute_error(many, zeros) == pytest.approx(float(np.float32(0.1)), rel=1e-6)
        assert ops.squared_error_gradient(many, zeros)[0] == pytest.approx(float(np.float32(0.1)) ** 2 / 2, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_have_the_dtype_of_the_scores_and_targets_are_cast_to_it(ops, rng, loss_args, same_bits, loss):
    z, y = loss_args(rng, loss, 9)
    w = rng.uniform(0.5, 2, size=9)
    function = getattr(ops, f"{loss}_gradient")
    y32 = y.astype(np.float32) if y.dtype.kind == "f" else y
    given = function(z.astype(np.float32), y, sample_weight=w)
    cast = function(z.astype(np.float32), y32, sample_weight=w.astype(np.float32))
    assert given[1].dtype == np.float32
    assert given[0] == cast[0]
    same_bits(given[1], cast[1])
    assert function(z, y32, sample_weight=w.astype(np.float32))[1].dtype == np.float64
    assert function(z.astype(np.float16), y)[1].dtype == np.float32


@pytest.mark.parametrize("loss", ["hinge", "squared_error", "multiclass_hinge"])
def test_integer_scores_are_computed_in_float64(ops, loss):
    z = np.array([[3, 1], [0, 2]]) if loss == "multiclass_hinge" else np.array([3, -2])
    y = np.array([0, 1]) if loss == "multiclass_hinge" else np.array([1, -1])
    value, dz = getattr(ops, f"{loss}_gradient")(z, y)
    assert dz.dtype == np.float64
    assert value == losses_of(loss, z, y).mean()


# ---------------------------------------------------------------------------------------------------------------
# Losses: sample weights
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", LOSSES)
def test_sample_weight_gives_the_weighted_mean(ops, rng, loss_args, loss, dtype):
    z, y = loss_args(rng, loss, 30, dtype)
    w = rng.uniform(0, 3, size=30).astype(dtype)
    w[3] = 0
    truth = losses_of(loss, z, y)
    expected = (w.astype(np.float64) * truth).sum() / w.sum(dtype=np.float64)
    assert getattr(ops, loss)(z, y, sample_weight=w) == pytest.approx(expected, rel=RTOL[dtype])
    value, dz = getattr(ops, f"{loss}_gradient")(z, y, sample_weight=w)
    assert value == pytest.approx(expected, rel=RTOL[dtype])
    plain = getattr(ops, f"{loss}_gradient")(z, y)[1].astype(np.float64) * 30
    share = w.astype(np.float64) / w.sum(dtype=np.float64)
    assert_allclose(dz, plain * (share if z.ndim == 1 else share[:, None]), rtol=4 * RTOL[dtype], atol=RTOL[dtype] / 20)
    assert_array_equal(dz[3], 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_of_very_small_weight_keeps_its_digits(ops, dtype):
    Z, y, small = (
        np.array([[0, 1, 2], [0, 1, 2]], dtype),
        np.array([0, 0]),
        2.0 ** (-120 if dtype == "float32" else -1000),
    )
    _, dZ = ops.softmax_cross_entropy_gradient(Z, y, sample_weight=np.array([1, small], dtype))
    np.testing.assert_allclose(dZ[1], dZ[0] * np.dtype(dtype).type(small), rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("loss", LOSSES)
def test_integer_weights_equal_repeated_rows(ops, rng, loss_args, loss):
    z, y = loss_args(rng, loss, 12)
    w = rng.integers(0, 4, size=12)
    w[0] = 2
    repeated, drepeated = getattr(ops, f"{loss}_gradient")(np.repeat(z, w, axis=0), np.repeat(y, w, axis=0))
    value, dz = getattr(ops, f"{loss}_gradient")(z, y, sample_weight=w)
    assert value == pytest.approx(repeated, rel=1e-13)
    summed = np.zeros_like(z)
    np.add.at(summed, np.repeat(np.arange(12), w), drepeated)
    assert_allclose(dz, summed, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_size_of_the_weights_does_not_matter(ops, rng, loss_args, loss, dtype):
    """Only their ratios do, from the smallest to the largest numbers of the dtype."""
    z, y = loss_args(rng, loss, 20, dtype)
    weights = rng.integers(1, 5, 20).astype(dtype)
    value, gradient = getattr(ops, f"{loss}_gradient")(z, y, sample_weight=weights)
    for power in (np.finfo(dtype).minexp - 20, -40, 40, np.finfo(dtype).maxexp - 3):
        scaled = np.ldexp(weights, power)
        again, slope = getattr(ops, f"{loss}_gradient")(z, y, sample_weight=scaled)
        assert again == pytest.approx(value, rel=RTOL[dtype])
        assert_allclose(slope, gradient, rtol=RTOL[dtype])


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_weights_change_nothing(ops, rng, loss_args, loss):
    z, y = loss_args(rng, loss, 12)
    value, dz = getattr(ops, f"{loss}_gradient")(z, y)
    for weight in (1.0, 0.125, 1e6):
        weighted, dweighted = getattr(ops, f"{loss}_gradient")(z, y, sample_weight=np.full(12, weight))
        assert weighted == pytest.approx(value, rel=1e-13)
        assert_allclose(dweighted, dz, rtol=1e-13, atol=1e-18)


@pytest.mark.parametrize("loss", LOSSES)
def test_negative_and_all_zero_weights_raise(ops, rng, loss_args, loss):
    z, y = loss_args(rng, loss, 4)
    for w in ([1, -1e-9, 1, 1], [0, 0, 0, 0]):
        for name in (loss, f"{loss}_gradient"):
            with pytest.raises(ValueError, match="sample_weight"):
                getattr(ops, name)(z, y, sample_weight=np.array(w, float))


# ---------------------------------------------------------------------------------------------------------------
# Losses: kinks, ties, NaN
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_hinge_subgradient_is_0_at_a_margin_of_exactly_1(ops, dtype):
    z, y = np.array([1, -1, 1, -1, 0.5], dtype), np.array([1, -1, -1, 1, 1], dtype)
    loss, dz = ops.hinge_gradient(z, y)
    assert_allclose(dz * 5, [0, 0, 1, -1, -1], rtol=1e-6)
    assert_array_equal(dz[:2], 0)
    assert loss == pytest.approx((0 + 0 + 2 + 2 + 0.5) / 5, rel=1e-6)
    assert_array_equal(ops.squared_hinge_gradient(z, y)[1][:2], 0)


@pytest.mark.parametrize("dtype", FLOATS)
def test_absolute_error_subgradient_is_0_at_residual_0(ops, dtype):
    z, y = np.array([1, 2, -3, 0.0], dtype), np.array([1, 1, -1, -0.0], dtype)
    loss, dz = ops.absolute_error_gradient(z, y)
    assert_allclose(dz * 4, [0, 1, -1, 0])
    assert loss == pytest.approx(3 / 4)


@pytest.mark.parametrize("dtype", FLOATS)
def test_huber_gradient_is_continuous_at_delta(ops, dtype):
    delta = 0.5
    z = np.array([0.5, -0.5, 0.25, -4, 4, 0], dtype)
    loss, dz = ops.huber_gradient(z, np.zeros(6, dtype), delta=delta)
    assert_allclose(dz * 6, [0.5, -0.5, 0.25, -0.5, 0.5, 0], rtol=1e-6)
    assert loss == pytest.approx(scipy.special.huber(delta, z.astype(float)).mean(), rel=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_multiclass_hinge_subgradient_is_0_where_the_true_class_attains_the_maximum(ops, dtype):
    # Margins: exactly 1 below the true class (tie with the true class), and well below it.
    Z = np.array([[3, 2, 2], [5, 1, 2], [2, 3, 2]], dtype)
    y = np.array([0, 0, 1])
    loss, dZ = ops.multiclass_hinge_gradient(Z, y)
    assert loss == 0
    assert_array_equal(dZ, np.zeros((3, 3), dtype))


@pytest.mark.parametrize("dtype", FLOATS)
def test_multiclass_hinge_subgradient_takes_the_lowest_index_among_maximisers(ops, dtype):
    Z = np.array([[1, 2, 2, 0], [2, 1, 2, 2], [0, 0, 0, 0]], dtype)
    y = np.array([0, 1, 2])
    loss, dZ = ops.multiclass_hinge_gradient(Z, y)
    assert loss == pytest.approx((2 + 2 + 1) / 3, rel=1e-6)
    assert_allclose(dZ * 3, [[-1, 1, 0, 0], [1, -1, 0, 0], [1, 0, -1, 0]], rtol=1e-6)


def test_multiclass_hinge_of_one_class_is_0(ops):
    loss, dZ = ops.multiclass_hinge_gradient(np.array([[7.0], [-2.0]]), np.array([0, 0]))
    assert loss == 0
    assert_array_equal(dZ, [[0.0], [0.0]])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", LOSSES)
def test_nan_scores_give_nan_loss_and_nan_gradient(ops, rng, loss_args, loss, dtype):
    z, y = loss_args(rng, loss, 37, dtype)
    for row in (0, 17, 36):
        bad = z.copy()
        bad[(row, 2) if z.ndim == 2 else row] = np.nan
        assert np.isnan(getattr(ops, loss)(bad, y)), row
        value, dz = getattr(ops, f"{loss}_gradient")(bad, y)
        assert np.isnan(value), row
        assert np.isnan(dz[row]).all(), row
        assert np.isfinite(np.delete(dz, row, axis=0)).all(), row


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("true_class", range(4))
def test_nan_in_any_class_reaches_the_multiclass_losses(ops, position, true_class):
    Z = np.array([[0.0, 1.0, 2.0, 3.0]], np.float32)
    Z[0, position] = np.nan
    for loss in MULTICLASS:
        value, dZ = getattr(ops, f"{loss}_gradient")(Z, np.array([true_class]))
        assert np.isnan(value), loss
        assert np.isnan(dZ).all(), loss
        assert np.isnan(getattr(ops, loss)(Z, np.array([true_class]))), loss


@pytest.mark.parametrize("dtype", FLOATS)
def test_infinite_scores_give_the_limit_or_nan(ops, dtype):
    inf = np.inf
    one = np.ones(1, dtype)
    assert ops.hinge(np.array([inf], dtype), one) == 0
    assert ops.hinge(np.array([-inf], dtype), one) == inf
    assert ops.squared_hinge(np.array([inf], dtype), one) == 0
    assert ops.squared_hinge(np.array([-inf], dtype), one) == inf
    assert ops.squared_error(np.array([-inf], dtype), one) == inf
    assert ops.absolute_error(np.array([inf], dtype), one) == inf
    assert ops.huber(np.array([-inf], dtype), one) == inf
    assert_array_equal(ops.hinge_gradient(np.array([inf, -inf], dtype), np.ones(2))[1], [0, -0.5])
    assert_array_equal(ops.absolute_error_gradient(np.array([inf, -inf], dtype), np.ones(2))[1], [0.5, -0.5])
    assert_allclose(ops.huber_gradient(np.array([inf, -inf], dtype), np.ones(2))[1], [0.675, -0.675], rtol=1e-6)
    assert ops.binary_cross_entropy(np.array([inf], dtype), np.zeros(1)) == inf
    assert ops.binary_cross_entropy(np.array([-inf], dtype), one) == inf
    assert ops.softmax_cross_entropy(np.array([[-inf, 0.0]], dtype), np.array([0])) == inf
    assert ops.softmax_cross_entropy(np.array([[-inf, 0.0]], dtype), np.array([1])) == 0


@pytest.mark.parametrize("dtype", FLOATS)
def test_poisson_takes_logarithms_and_has_the_limit_at_infinity(ops, dtype):
    inf = np.inf
    z = np.array([inf, inf, -inf, -inf, 1e4, -1e4, -1e30, 80.0, -80.0], dtype)
    y = np.array([0, 3, 0, 3, 3, 3, 0, 2, 2.5], dtype)
    with np.errstate(over="ignore"):
        e = np.exp(z.astype(np.float64))
    rows, dz = ops.poisson_gradient(z, y, reduction="none")
    assert_array_equal(rows[:5], [inf, inf, 0, inf, inf])
    assert_allclose(rows[5:], [3e4, 0, e[7] - 160, e[8] + 200], rtol=RTOL[dtype])
    assert_array_equal(dz[:7], [inf, inf, 0, -3, inf, -3, 0])
    assert_allclose(dz[7:], [e[7], -2.5], rtol=4 * RTOL[dtype])


def test_poisson_refuses_what_no_count_can_be_and_training(ops):
    for value in (-1.0, -1e-300, np.nan):
        for function in (ops.poisson, ops.poisson_gradient):
            with pytest.raises(ValueError, match=r"y\[1\] is .*; numbers that are not negative are needed"):
                function(np.zeros(2), np.array([0.0, value]))
    X, y = np.ones((4, 2)), np.ones(4)
    known = "loss is 'poisson'; it must be one of 'binary_cross_entropy', .*, 'huber'$"
    with pytest.raises(ValueError, match=known):
        ops.train_linear("poisson", X, y, np.zeros(2), 0.0, np.arange(4), batch_size=2, steps=0.1)
    with pytest.raises(ValueError, match=known):
        ops.linear_evaluation("poisson", X, y, np.zeros((1, 1, 2)), np.zeros((1, 1)))


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_target_probability_of_0_takes_no_part_in_the_cross_entropy(ops, dtype):
    """0 * -inf counts as 0, so that one-hot rows and class indices mean the same."""
    Z = np.array([[-np.inf, 0.0, 1.0]], dtype)
    by_index, d_index = ops.softmax_cross_entropy_gradient(Z, np.array([2]))
    loss, dZ = ops.softmax_cross_entropy_gradient(Z, np.array([[0.0, 0.0, 1.0]]))
    assert loss == pytest.approx(by_index, rel=1e-6)
    assert loss == pytest.approx(np.log1p(np.exp(-1.0)), rel=1e-6)
    assert_allclose(dZ, d_index, rtol=1e-6)
    assert dZ[0, 0] == 0
    assert ops.softmax_cross_entropy(Z, np.array([[0.5, 0.0, 0.5]])) == np.inf


@pytest.mark.parametrize("loss", LOSSES)
def test_nan_with_weight_0_still_shows(ops, rng, loss_args, loss):
    """0 * NaN is NaN: a row that is left out by its weight must be a row of numbers."""
    z, y = loss_args(rng, loss, 6)
    z[2] = np.nan
    w = np.ones(6)
    w[2] = 0
    assert np.isnan(getattr(ops, loss)(z, y, sample_weight=w))
    value, dz = getattr(ops, f"{loss}_gradient")(z, y, sample_weight=w)
    assert np.isnan(value)
    assert np.isnan(dz[2]).all()
    assert np.isfinite(np.delete(dz, 2, axis=0)).all()
