"""Laws that hold for every input, searched for counterexamples by hypothesis.

The search is derandomised: the same examples each time. FASTML_HYPOTHESIS=search looks at other and more ones.
"""

from __future__ import annotations

import os
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from fastml.kernels.distances import arguments as distances_arguments
from fastml.kernels.runtime.jit import jit_enabled

# Fixtures are functions of the tier only, so that sharing them among examples is right.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture], "database": None}
settings.register_profile("fastml", max_examples=40, derandomize=True, **COMMON)
settings.register_profile("fastml-search", max_examples=1000, print_blob=True, **COMMON)
SETTINGS = settings.get_profile("fastml-search" if os.environ.get("FASTML_HYPOTHESIS") == "search" else "fastml")

METRICS = tuple(distances_arguments.METRICS)
FLOATS = ("float32", "float64")
EPS = {"float32": 1.2e-7, "float64": 2.3e-16}
REGRESSION = ("squared_error", "absolute_error", "huber")
BINARY = ("binary_cross_entropy", "hinge", "squared_hinge")
MULTICLASS = ("softmax_cross_entropy", "multiclass_hinge")


@pytest.fixture(autouse=True)
def _skip_reference_tiers_without_the_jit(tier):
    if not jit_enabled() and tier != "compiled":
        pytest.skip("the same with the JIT")


small = st.integers(1, 9)


def floats(dtype: str = "float64", limit: float = 1e3):
    return st.floats(-limit, limit, width=int(dtype[5:]), allow_subnormal=False)


@st.composite
def point_sets(draw, sets: int = 1, dtypes=(*FLOATS, "uint8"), rows: int = 9, columns: int = 20):
    """`sets` arrays of one dtype and one number of columns."""
    dtype, D = draw(st.sampled_from(dtypes)), draw(st.integers(1, columns))
    elements = st.integers(0, 255) if dtype == "uint8" else floats(dtype)
    return [draw(hnp.arrays(dtype, (draw(st.integers(1, rows)), D), elements=elements)) for _ in range(sets)]


@st.composite
def scored(draw, loss: str):
    """(scores, targets, weights) of one loss in float64."""
    n, C = draw(small), draw(st.integers(1, 5))
    if loss in MULTICLASS:
        z = draw(hnp.arrays(float, (n, C), elements=floats(limit=50)))
        y = draw(hnp.arrays(np.intp, n, elements=st.integers(0, C - 1)))
    else:
        z = draw(hnp.arrays(float, n, elements=floats(limit=50)))
        target = {
            "binary_cross_entropy": st.floats(0, 1),
            "hinge": st.sampled_from([-1.0, 1.0]),
            "squared_hinge": st.sampled_from([-1.0, 1.0]),
        }.get(loss, floats(limit=50))
        y = draw(hnp.arrays(float, n, elements=target))
    w = draw(hnp.arrays(float, n, elements=st.floats(0, 10, allow_subnormal=False)))
    assume(w.sum() > 1e-3)
    return z, y, w


# ---------------------------------------------------------------------------------------------------------------
# Distances
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@given(sets=point_sets())
@SETTINGS
def test_distances_are_a_metric(ops, metric, sets):
    """Zero on the diagonal, symmetric to the bit, not negative, triangle inequality to rounding."""
    (X,) = sets
    D = getattr(ops, f"pairwise_{metric}")(X)
    assert_array_equal(np.diag(D), 0)
    assert_array_equal(D, D.T)
    assert (D >= 0).all()
    D = D.astype(np.float64)
    eps = EPS["float64" if X.dtype == np.float64 else "float32"]
    detour = (D[:, :, None] + D[None, :, :]).min(axis=1)
    assert (detour * (1 + 8 * eps * X.shape[1]) >= D).all()


@given(sets=point_sets(2))
@SETTINGS
def test_norms_bound_each_other(ops, sets):
    """L-inf <= L2 <= L1 <= sqrt(D)·L2 <= D·L-inf."""
    X, Y = sets
    D = X.shape[1]
    linf, l2, l1 = (getattr(ops, f"pairwise_{m}")(X, Y).astype(np.float64) for m in ("linf", "l2", "l1"))
    slack = 1 + 8 * EPS["float64" if X.dtype == np.float64 else "float32"] * D
    tiny = float(np.finfo("float64" if X.dtype == np.float64 else "float32").tiny)  # below it there are fewer digits
    assert (linf <= l2 * slack + tiny).all()
    assert (l2 <= l1 * slack + tiny).all()
    assert (l1 <= D**0.5 * l2 * slack + tiny * D).all()
    assert (l1 <= D * linf * slack).all()


@pytest.mark.parametrize("metric", METRICS)
@given(sets=point_sets(2), exponent=st.integers(-6, 6))
@SETTINGS
def test_scaling_by_a_power_of_two_scales_the_distances_exactly(ops, metric, sets, exponent):
    X, Y = (s.astype(np.float64) for s in sets)
    pairwise = getattr(ops, f"pairwise_{metric}")
    factor = 2.0**exponent
    assume(not ((np.abs(X) > 0) & (np.abs(X) < 1e-100)).any() and not ((np.abs(Y) > 0) & (np.abs(Y) < 1e-100)).any())
    assert_array_equal(pairwise(X * factor, Y * factor), pairwise(X, Y) * factor)


@pytest.mark.parametrize("metric", METRICS)
@given(sets=point_sets(2, dtypes=("uint8",)), offset=st.integers(0, 2**14))
@SETTINGS
def test_integers_give_exact_distances_at_any_offset(ops, metric, sets, offset):
    """uint8, and the same values as float32 moved far away: differences of integers have no rounding."""
    X, Y = sets
    difference = np.abs(X[:, None].astype(np.int64) - Y[None].astype(np.int64))
    truth = {"l1": difference.sum(axis=2), "l2": (difference**2).sum(axis=2), "linf": difference.max(axis=2)}[metric]
    kwargs = {"squared": True} if metric == "l2" else {}
    pairwise = getattr(ops, f"pairwise_{metric}")
    assert_array_equal(pairwise(X, Y, **kwargs), truth)
    far = pairwise(X.astype(np.float32) + np.float32(offset), Y.astype(np.float32) + np.float32(offset), **kwargs)
    assert_array_equal(far, truth)


@pytest.mark.parametrize("metric", METRICS)
@given(sets=point_sets(2), data=st.data())
@SETTINGS
def test_k_nearest_is_a_stable_sort_of_pairwise(ops, metric, sets, data):
    X, Y = sets
    k = data.draw(st.integers(1, len(Y)))
    kwargs = {"squared": True} if metric == "l2" else {}
    D = getattr(ops, f"pairwise_{metric}")(X, Y)
    rank = getattr(ops, f"pairwise_{metric}")(X, Y, **kwargs)
    order = np.lexsort((D, rank), axis=1)[:, :k]  # squares out of range are equal where distances are not
    distances, indices = ops.k_nearest(X, Y, k, metric=metric)
    assert_array_equal(indices, order)
    assert_array_equal(distances, np.take_along_axis(D, order, axis=1))


@pytest.mark.parametrize("metric", METRICS)
@given(Y=hnp.arrays("float32", st.tuples(small, st.just(2)), elements=st.sampled_from([0, 1, 2, np.nan, np.inf])))
@SETTINGS
def test_k_nearest_is_a_stable_sort_also_with_nan_infinity_and_ties(ops, metric, Y):
    X = np.array([[0, 1], [np.inf, 0], [np.nan, 1]], np.float32)
    D = getattr(ops, f"pairwise_{metric}")(X, Y)
    # NumPy sorts NaN last, and a stable sort keeps the order of the indices among them.
    order = np.argsort(D, axis=1, kind="stable")
    for k in range(1, len(Y) + 1):
        distances, indices = ops.k_nearest(X, Y, k, metric=metric)
        assert_array_equal(indices, order[:, :k])
        assert_array_equal(distances, np.take_along_axis(D, order, axis=1)[:, :k])


@pytest.mark.parametrize("metric", METRICS)
@given(sets=point_sets(rows=8))
@SETTINGS
def test_exclude_self_equals_k_nearest_without_the_row(ops, metric, sets):
    (X,) = sets
    n = len(X)
    assume(n > 1)
    distances, indices = ops.k_nearest(X, X, n - 1, metric=metric, exclude_self=True)
    for i in range(n):
        others = np.delete(np.arange(n), i)
        d, j = ops.k_nearest(X[i : i + 1], X[others], n - 1, metric=metric)
        assert_array_equal(indices[i], others[j[0]])
        assert_array_equal(distances[i], d[0])


# ---------------------------------------------------------------------------------------------------------------
# exp, sigmoid, softplus, softmax
# ---------------------------------------------------------------------------------------------------------------


@given(z=hnp.arrays("float64", st.integers(1, 40), elements=floats(limit=600)))
@example(z=np.array([0.0, -0.0, 36.9, 37.0, -36.9, -37.0]))
@SETTINGS
def test_relations_between_exp_sigmoid_and_softplus(ops, z):
    s, minus = ops.sigmoid(z), ops.sigmoid(-z)
    assert ((s >= 0) & (s <= 1)).all()
    assert_allclose(s + minus, 1, rtol=1e-15)
    assert_allclose(s, minus * ops.exp(z), rtol=1e-13)
    assert_allclose(ops.softplus(z) - ops.softplus(-z), z, rtol=1e-13, atol=1e-15)
    assert_allclose(ops.exp(z) * ops.exp(-z), 1, rtol=1e-13)
    assert_allclose(ops.softplus(z), -np.log(np.maximum(minus, 1e-300)), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", ["exp", "sigmoid", "softplus"])
@given(z=hnp.arrays("float32", st.integers(2, 40), elements=floats("float32", 200)))
@SETTINGS
def test_elementwise_functions_grow_with_their_argument(ops, name, z):
    """To rounding: an error of an ulp may exchange two neighbours, no more."""
    with np.errstate(over="ignore"):
        f = getattr(ops, name)(np.sort(z)).astype(np.float64)
    f = np.minimum(f, np.finfo(np.float64).max)
    assert (f[1:] >= f[:-1] * (1 - 1e-6)).all()


@given(Z=hnp.arrays("float64", st.tuples(small, small), elements=floats(limit=100)), shift=st.integers(-64, 64))
@SETTINGS
def test_softmax_sums_to_1_and_is_invariant_under_shifts(ops, Z, shift):
    P = ops.softmax(Z)
    assert_allclose(P.sum(axis=1), 1, rtol=1e-14)
    assert ((P >= 0) & (P <= 1)).all()
    assert_allclose(ops.softmax(Z + shift), P, rtol=1e-11, atol=1e-300)
    assert_allclose(ops.logsumexp(Z + shift), ops.logsumexp(Z) + shift, rtol=1e-12, atol=1e-12)
    assert_allclose(ops.log_softmax(Z + shift), ops.log_softmax(Z), rtol=1e-12, atol=1e-12)
    assert_allclose(ops.log_softmax(Z), Z - ops.logsumexp(Z)[:, None], rtol=1e-12, atol=1e-12)
    assert_allclose(ops.exp(ops.log_softmax(Z)), P, rtol=1e-12, atol=1e-300)


@given(Z=hnp.arrays("float64", st.tuples(small, small), elements=floats(limit=100)), data=st.data())
@SETTINGS
def test_softmax_family_under_permutation_of_the_classes(ops, Z, data):
    order = np.array(data.draw(st.permutations(range(Z.shape[1]))))
    assert_allclose(ops.softmax(Z[:, order]), ops.softmax(Z)[:, order], rtol=1e-13)
    assert_allclose(ops.logsumexp(Z[:, order]), ops.logsumexp(Z), rtol=1e-13, atol=1e-14)


@given(z=hnp.arrays("float64", small, elements=floats(limit=300)))
@SETTINGS
def test_two_classes_are_the_sigmoid(ops, z):
    Z = np.stack([z, np.zeros_like(z)], axis=1)
    assert_allclose(ops.softmax(Z)[:, 0], ops.sigmoid(z), rtol=1e-13)
    assert_allclose(ops.logsumexp(Z), ops.softplus(z), rtol=1e-13, atol=1e-15)
    ones = np.ones_like(z)
    assert ops.softmax_cross_entropy(Z, np.zeros(len(z), int)) == pytest.approx(
        ops.binary_cross_entropy(z, ones), rel=1e-12, abs=1e-15
    )


# ---------------------------------------------------------------------------------------------------------------
# Losses
# ---------------------------------------------------------------------------------------------------------------

LOSSES = (*BINARY, *REGRESSION, *MULTICLASS)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@given(data=st.data())
@SETTINGS
def test_losses_are_convex_and_their_gradients_are_subgradients(ops, loss, data):
    z, y, w = data.draw(scored(loss))
    other = data.draw(hnp.arrays(float, z.shape, elements=floats(limit=50)))
    function = getattr(ops, loss)
    value, dz = getattr(ops, f"{loss}_gradient")(z, y, sample_weight=w)
    there = function(other, y, sample_weight=w)
    size = 1 + abs(value) + abs(there) + np.abs(dz * (other - z)).sum()
    assert value >= 0
    assert there >= value + (dz * (other - z)).sum() - 1e-12 * size
    middle = function((z + other) / 2, y, sample_weight=w)
    assert middle <= (value + there) / 2 + 1e-12 * size


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@given(data=st.data())
@SETTINGS
def test_losses_do_not_depend_on_the_order_of_rows_or_the_scale_of_weights(ops, loss, data):
    z, y, w = data.draw(scored(loss))
    value, dz = getattr(ops, f"{loss}_gradient")(z, y, sample_weight=w)
    order = np.array(data.draw(st.permutations(range(len(z)))))
    permuted, dpermuted = getattr(ops, f"{loss}_gradient")(z[order], y[order], sample_weight=w[order])
    assert permuted == pytest.approx(value, rel=1e-12, abs=1e-300)
    assert_allclose(dpermuted, dz[order], rtol=1e-12, atol=1e-300)
    scaled, dscaled = getattr(ops, f"{loss}_gradient")(z, y, sample_weight=w * 8)
    assert scaled == pytest.approx(value, rel=1e-12, abs=1e-300)
    assert_allclose(dscaled, dz, rtol=1e-12, atol=1e-300)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@given(data=st.data())
@SETTINGS
def test_linear_loss_gradient_is_the_loss_of_the_scores(ops, loss, data):
    """With X the identity (a column per row) and b = 0 the scores are W, so nothing but the loss is left."""
    z, y, w = data.draw(scored(loss))
    value, dz = getattr(ops, f"{loss}_gradient")(z, y, sample_weight=w)
    X, b = np.eye(len(z)), np.zeros(z.shape[1]) if z.ndim == 2 else 0.0
    linear, dW, _ = ops.linear_loss_gradient(loss, X, y, z.T, b, sample_weight=w)
    assert linear == pytest.approx(value, rel=1e-12, abs=1e-15)
    assert_allclose(dW, dz.T, rtol=1e-12, atol=1e-15)


@given(
    r=hnp.arrays(float, small, elements=floats(limit=100)),
    delta=st.floats(0.01, 50),
)
@SETTINGS
def test_huber_lies_between_its_two_parts(ops, r, delta):
    """Never above half the square, never above delta·|r|, and equal to one of them at both ends."""
    zero = np.zeros_like(r)
    huber = ops.huber(r, zero, delta=delta)
    assert huber <= ops.squared_error(r, zero) * (1 + 1e-12) + 1e-300
    assert huber <= delta * ops.absolute_error(r, zero) * (1 + 1e-12)
    assert ops.huber(r, zero, delta=1e3) == pytest.approx(ops.squared_error(r, zero), rel=1e-12)


@given(z=hnp.arrays(float, st.integers(1, 30), elements=st.floats(-(2.0**20), 2.0**20, width=32)))
@SETTINGS
def test_mean_of_absolute_errors_is_that_of_exact_arithmetic(ops, z):
    exact = sum(Fraction(abs(float(v))) for v in z) / len(z)
    assert ops.absolute_error(z, np.zeros_like(z)) == pytest.approx(float(exact), rel=1e-14, abs=1e-300)


@given(Z=hnp.arrays(float, st.tuples(small, st.integers(2, 6)), elements=floats(limit=20)), data=st.data())
@SETTINGS
def test_multiclass_hinge_is_the_largest_margin_violation(ops, Z, data):
    y = data.draw(hnp.arrays(np.intp, len(Z), elements=st.integers(0, Z.shape[1] - 1)))
    rows = [max(z[j] - z[t] + (j != t) for j in range(len(z))) for z, t in zip(Z, y, strict=True)]
    assert ops.multiclass_hinge(Z, y) == pytest.approx(np.mean(rows), rel=1e-13, abs=1e-14)
    # It bounds the number of errors from above.
    assert ops.multiclass_hinge(Z, y) >= np.mean(Z.argmax(axis=1) != y) - 1e-12
