"""What is particular to the two reference tiers: independent oracles, blocks, norms, accuracy.

The meaning of the public functions, sentence by sentence and in all tiers, is in test_semantics; that all tiers agree
with the truth in every regime and around every width is in test_agreement.
"""

from __future__ import annotations

import inspect
import math
import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.special
from scipy.optimize import approx_fprime
from scipy.spatial.distance import cdist
from sklearn import metrics
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from fastml.kernels import catalogue, reference
from fastml.kernels.reference import loops, vectorized

BOTH = pytest.mark.parametrize("tier", [loops, vectorized], ids=["loops", "vectorized"])
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
INF = math.inf

LOSSES_OF_A_SCORE = ["binary_cross_entropy", "hinge", "squared_hinge", "squared_error", "absolute_error", "huber"]
LOSSES_OF_CLASSES = ["softmax_cross_entropy", "multiclass_hinge"]


def target_for(loss: str, rng: np.random.Generator, n: int) -> np.ndarray:
    if loss == "binary_cross_entropy":
        return rng.random(n)
    if "hinge" in loss:
        return rng.choice([-1.0, 1.0], n)
    return rng.standard_normal(n)


# -- the two modules -------------------------------------------------------------------------------


def test_both_tiers_have_the_same_names_and_signatures():
    assert set(loops.__all__) - {"pairwise"} == set(vectorized.__all__)
    for name in vectorized.__all__:
        assert inspect.signature(getattr(loops, name)) == inspect.signature(getattr(vectorized, name)), name


def test_every_kernel_of_the_references_is_in_the_catalogue():
    assert {entry.function for entry in catalogue.ENTRIES.values()} == set(vectorized.__all__)


def test_reference_package_loads_its_modules_on_demand():
    assert reference.loops is loops
    assert dir(reference) == ["loops", "vectorized"]
    with pytest.raises(AttributeError, match="has no attribute 'gpu'"):
        _ = reference.gpu


# -- agreement with the truth ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "size"),
    [
        ("pairwise_l1", (70, 300, 1000)),
        ("pairwise_l2", (3, 5, 140_001)),
        ("pairwise_linf", (700, 900, 1)),
        ("k_nearest[l2]", (5, 300_000, 3, 4)),
        ("softmax_cross_entropy_gradient", (3, 150_000)),
        ("multiclass_hinge", (20_000, 11)),
        ("linear_loss_gradient[binary_cross_entropy]", (3_000, 200)),
        ("linear_loss_gradient[softmax_cross_entropy]", (900, 400, 5)),
        ("binary_cross_entropy_gradient", (300_001,)),
    ],
)
@DTYPES
def test_vectorized_blocks_join_without_a_seam(key, size, dtype):
    entry = catalogue.ENTRIES[key]
    inputs = entry.make(size, dtype, "weighted" if "weighted" in entry.regimes else "typical")
    result = entry.tier("vectorized")(*inputs.args, **inputs.kwargs)
    assert catalogue.check(entry, result, entry.reference(inputs), dtype) <= 1


@BOTH
@pytest.mark.parametrize("metric", ["l1", "l2", "linf"])
def test_distances_of_uint8_are_exact_integers(tier, metric, rng):
    # Sums of squares beyond 2**24, where float32 would no longer be exact.
    X, Y = rng.integers(0, 256, (7, 3_001), np.uint8), rng.integers(0, 256, (9, 3_001), np.uint8)
    X[0], Y[0] = 0, 255
    difference = np.abs(X[:, None].astype(int) - Y.astype(int))
    expected = {"l1": difference.sum(-1), "l2": (difference**2).sum(-1), "linf": difference.max(-1)}[metric]
    kwargs = {"squared": True} if metric == "l2" else {}
    result = getattr(tier, f"pairwise_{metric}")(X, Y, **kwargs)
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, expected)


@BOTH
def test_squared_l2_of_uint8_widens_where_int32_would_overflow(tier):
    for columns, dtype in ((33_025, np.int32), (33_026, np.int64)):
        X, Y = np.zeros((1, columns), np.uint8), np.full((1, columns), 255, np.uint8)
        result = tier.pairwise_l2(X, Y, squared=True)
        assert result.dtype == dtype
        assert result[0, 0] == columns * 255**2
        assert tier.pairwise_l2(X, Y)[0, 0] == np.float32(math.sqrt(columns * 255**2))


# -- independent oracles ---------------------------------------------------------------------------


@BOTH
def test_distances_agree_with_scipy(tier, rng):
    X, Y = rng.standard_normal((11, 17)), rng.standard_normal((13, 17))
    for ours, theirs in (("l1", "cityblock"), ("l2", "euclidean"), ("linf", "chebyshev")):
        np.testing.assert_allclose(getattr(tier, f"pairwise_{ours}")(X, Y), cdist(X, Y, theirs), rtol=1e-13)
    np.testing.assert_allclose(tier.pairwise_l2(X, Y, squared=True), cdist(X, Y, "sqeuclidean"), rtol=1e-13)


@BOTH
@pytest.mark.parametrize(("metric", "theirs"), [("l1", "manhattan"), ("l2", "euclidean"), ("linf", "chebyshev")])
def test_neighbors_agree_with_scikit_learn_on_digits(tier, metric, theirs):
    images = load_digits().data
    X, Y = images[:40] + 0.25, images[40:240]
    distances, indices = tier.k_nearest(X, Y, 7, metric=metric)
    expected, _ = NearestNeighbors(n_neighbors=7, algorithm="brute", metric=theirs).fit(Y).kneighbors(X)
    np.testing.assert_allclose(distances, expected, rtol=1e-12)
    # Which of equally far images comes first is not defined there: ask for the distances instead.
    full = cdist(X, Y, {"manhattan": "cityblock"}.get(theirs, theirs))
    np.testing.assert_allclose(np.take_along_axis(full, indices, 1), expected, rtol=1e-12)


@BOTH
def test_elementwise_functions_agree_with_scipy(tier, rng):
    z = np.concatenate([rng.normal(0, 30, 200), [0.0, -0.0, INF, -INF, math.nan, 709.9, -745.2, 1e30, -1e30]])
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(tier.exp(z), np.exp(z), rtol=1e-15)
    np.testing.assert_allclose(tier.sigmoid(z), scipy.special.expit(z), rtol=1e-15, atol=1e-320)
    np.testing.assert_allclose(tier.softplus(z), -scipy.special.log_expit(-z), rtol=1e-15, atol=1e-320)


@BOTH
def test_softmax_family_treats_infinities_as_scipy(tier):
    values = [-INF, INF, 0.0, 800.0, -1e30, math.nan]
    rows = np.array(np.meshgrid(values, values, values)).reshape(3, -1).T.copy()
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(tier.softmax(rows), scipy.special.softmax(rows, axis=1), rtol=1e-14)
        np.testing.assert_allclose(tier.log_softmax(rows), scipy.special.log_softmax(rows, axis=1), rtol=1e-14)
        np.testing.assert_allclose(tier.logsumexp(rows), scipy.special.logsumexp(rows, axis=1), rtol=1e-14)


@BOTH
def test_softmax_family_without_classes_or_rows(tier):
    for shape in ((3, 0), (0, 4), (0, 0)):
        assert tier.softmax(np.zeros(shape)).shape == shape
        assert tier.log_softmax(np.zeros(shape)).shape == shape
        # log of C ones; without classes that is log 0
        expected = np.full(shape[0], math.log(shape[1]) if shape[1] else -INF)
        np.testing.assert_array_equal(tier.logsumexp(np.zeros(shape)), expected)


@BOTH
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_agree_with_scikit_learn(tier, weighted, rng):
    n, classes = 60, 4
    weight = rng.random(n) + 0.1 if weighted else None
    z, y = 2 * rng.standard_normal(n), rng.standard_normal(n)
    label = rng.integers(0, 2, n)
    Z, index = 2 * rng.standard_normal((n, classes)), rng.integers(0, classes, n)
    kw = {"sample_weight": weight}
    pairs = [
        (tier.binary_cross_entropy(z, label, **kw), metrics.log_loss(label, scipy.special.expit(z), **kw)),
        (tier.hinge(z, 2 * label - 1, **kw), metrics.hinge_loss(label, z, **kw)),
        (tier.squared_error(z, y, **kw), metrics.mean_squared_error(y, z, **kw) / 2),
        (tier.absolute_error(z, y, **kw), metrics.mean_absolute_error(y, z, **kw)),
        (tier.huber(z, y, delta=0.7, **kw), np.average(scipy.special.huber(0.7, z - y), weights=weight)),
        (
            tier.softmax_cross_entropy(Z, index, **kw),
            metrics.log_loss(index, scipy.special.softmax(Z, axis=1), labels=range(classes), **kw),
        ),
        (tier.multiclass_hinge(Z, index, **kw), metrics.hinge_loss(index, Z, labels=range(classes), **kw)),
    ]
    for ours, theirs in pairs:
        assert ours == pytest.approx(float(theirs), rel=1e-12)


@BOTH
@pytest.mark.parametrize("loss", [*LOSSES_OF_A_SCORE, *LOSSES_OF_CLASSES])
def test_gradients_are_the_slopes_of_the_losses(tier, loss, rng):
    n, classes = 6, 3
    weight = rng.random(n) + 0.5
    if loss in LOSSES_OF_CLASSES:
        scores, y = rng.standard_normal((n, classes)), rng.integers(0, classes, n)
    else:
        scores, y = rng.standard_normal(n), target_for(loss, rng, n)
    value = getattr(tier, loss)
    loss_value, gradient = getattr(tier, f"{loss}_gradient")(scores, y, sample_weight=weight)
    assert loss_value == value(scores, y, sample_weight=weight)
    numeric = approx_fprime(
        scores.ravel(), lambda flat: value(flat.reshape(scores.shape), y, sample_weight=weight), 1e-7
    )
    np.testing.assert_allclose(gradient.ravel(), numeric, atol=1e-6)


# -- accuracy where naive formulas fail ------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("z", [0.5, 16.6, 36.9, 37.0, 40.0, 700.0])
def test_right_predictions_keep_all_digits_of_a_tiny_loss(tier, z):
    expected = math.log1p(math.exp(-z))
    slope = math.exp(-z) / (1 + math.exp(-z))
    for t, score in ((1, z), (0, -z)):
        loss, gradient = tier.binary_cross_entropy_gradient([score], [t])
        assert loss == pytest.approx(expected, rel=1e-15)
        assert gradient[0] == pytest.approx(-slope if t else slope, rel=1e-15)


@BOTH
def test_infinite_logit_costs_nothing_on_the_right_side_and_everything_on_the_wrong(tier):
    for z, t, loss, slope in (
        (INF, 1, 0, 0),
        (INF, 0, INF, 1),
        (-INF, 0, 0, 0),
        (-INF, 1, INF, -1),
        (INF, 0.5, INF, 0.5),
    ):
        assert tier.binary_cross_entropy_gradient([z], [t]) == (loss, [slope])


@BOTH
@DTYPES
def test_cross_entropy_of_infinite_scores_follows_log_softmax(tier, dtype):
    values = [-INF, INF, 0.0, 3.0]
    Z = np.array(np.meshgrid(values, values, values)).reshape(3, -1).T.astype(dtype)
    log_p, p = tier.log_softmax(Z), tier.softmax(Z)
    for row, log_row, p_row in zip(Z, log_p, p, strict=True):
        for label in range(3):
            one_hot = np.eye(3)[label]
            for y in ([label], one_hot[None]):  # 0 · -inf counts as 0
                loss, gradient = tier.softmax_cross_entropy_gradient(row[None], y)
                np.testing.assert_allclose(loss, -log_row[label], rtol=1e-6)
                np.testing.assert_allclose(gradient[0], p_row - one_hot, rtol=1e-6, atol=1e-7)


@BOTH
def test_close_points_far_from_the_origin_keep_their_distance(tier):
    X = np.float32([[1e4, 1e4]])
    Y = X + np.float32([[0.25, 0]])
    assert tier.pairwise_l2(X, Y)[0, 0] == 0.25
    # The usual form by a matrix product loses it: that is why it is not used.
    assert vectorized.gemm_squared_l2(X, Y)[0, 0] != 0.0625


def test_gemm_form_is_right_where_nothing_cancels(rng):
    X, Y = rng.standard_normal((20, 30)), rng.standard_normal((25, 30))
    np.testing.assert_allclose(vectorized.gemm_squared_l2(X, Y), cdist(X, Y, "sqeuclidean"), rtol=1e-12)
    pixels = rng.integers(0, 256, (20, 30), np.uint8)
    np.testing.assert_array_equal(vectorized.gemm_squared_l2(pixels, None), cdist(pixels, pixels, "sqeuclidean"))


@BOTH
@DTYPES
def test_nothing_warns(tier, dtype):
    z = np.array([0, 1e30, -1e30, INF, -INF, math.nan, 1e4, -1e4], dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("exp", "sigmoid", "softplus"):
            getattr(tier, name)(z)
        for name in ("softmax", "log_softmax", "logsumexp"):
            getattr(tier, name)(z.reshape(2, 4))
        for name in LOSSES_OF_A_SCORE:
            getattr(tier, f"{name}_gradient")(z, np.ones(8), sample_weight=np.arange(8))
        for name in LOSSES_OF_CLASSES:
            getattr(tier, f"{name}_gradient")(z.reshape(2, 4), [0, 3])
        for metric in ("l1", "l2", "linf"):
            getattr(tier, f"pairwise_{metric}")(z[:, None])
            tier.k_nearest(z[:, None], None, 3, metric=metric)


@BOTH
def test_l2_is_right_where_squares_leave_the_range(tier):
    X, Y = np.float32([[1e20], [1e-24], [1e18]]), np.float32([[0.0]])
    assert tier.pairwise_l2(X, Y)[:, 0].tolist() == X[:, 0].tolist()
    assert tier.pairwise_l2(X, Y, squared=True)[:2, 0].tolist() == [INF, 0.0]
    assert tier.k_nearest(Y, X, 3)[1].tolist() == [[1, 2, 0]]


@BOTH
def test_nan_stays_the_largest_difference(tier):
    for columns in range(1, 5):
        for place in range(columns):
            X = np.full((1, columns), 7.0)
            X[0, place] = math.nan
            assert math.isnan(tier.pairwise_linf(X, np.zeros((1, columns)))[0, 0])


@BOTH
def test_multiclass_margin_keeps_its_one_beside_large_scores(tier):
    # 1e8 + 1 is 1e8 in float32: the scores have to be subtracted first.
    loss, gradient = tier.multiclass_hinge_gradient(np.float32([[1e8, 1e8]]), [0])
    assert (loss, gradient.tolist()) == (1.0, [[-1.0, 1.0]])


@BOTH
def test_nan_row_has_a_nan_gradient_and_leaves_the_others_alone(tier):
    for name in LOSSES_OF_CLASSES:
        for place in range(3):
            Z = np.array([[0.5, 1.0, 0.0], [0.5, 1.0, 0.0]])
            Z[0, place] = math.nan
            loss, gradient = getattr(tier, f"{name}_gradient")(Z, [1, 0])
            assert math.isnan(loss)
            assert np.isnan(gradient[0]).all()
            assert np.isfinite(gradient[1]).all()
    for name in LOSSES_OF_A_SCORE:
        loss, gradient = getattr(tier, f"{name}_gradient")([math.nan, 0.0], [1, 1])
        assert math.isnan(loss)
        assert np.isnan(gradient).tolist() == [True, False]


@BOTH
def test_slopes_at_the_kinks_are_zero(tier):
    assert tier.hinge_gradient([1.0, -1.0], [1, -1]) == (0.0, pytest.approx([0, 0], abs=0))
    assert tier.absolute_error_gradient([2.0], [2.0]) == (0.0, [0.0])
    loss, gradient = tier.multiclass_hinge_gradient([[1.0, 0.0]], [0])
    assert (loss, gradient.tolist()) == (0.0, [[0.0, 0.0]])


@BOTH
def test_gradient_belongs_to_the_loss_where_probabilities_do_not_quite_sum_to_one(tier, rng):
    Z, T = rng.standard_normal((4, 3)), scipy.special.softmax(rng.standard_normal((4, 3)), axis=1)
    T *= np.array([[1.0009], [0.9991], [1.0], [1.0005]])
    loss, gradient = tier.softmax_cross_entropy_gradient(Z, T)
    assert loss == pytest.approx(-(T * scipy.special.log_softmax(Z, axis=1)).sum() / 4, rel=1e-14)
    h = 1e-5
    for i, c in np.ndindex(Z.shape):
        step = np.zeros_like(Z)
        step[i, c] = h
        slope = (tier.softmax_cross_entropy(Z + step, T) - tier.softmax_cross_entropy(Z - step, T)) / (2 * h)
        assert gradient[i, c] == pytest.approx(slope, abs=1e-9)


# -- neighbours ------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("metric", ["l1", "l2", "linf"])
def test_ties_and_nan_are_ordered_by_index(tier, metric, dtype, rng):
    for exclude_self in (False, True):
        X = rng.integers(0, 3, (40, 2)).astype(dtype)  # nine different points: nearly all distances tie
        if dtype != "uint8":
            X[rng.integers(0, 40, 6)] = math.nan
        k = 25
        distances, indices = tier.k_nearest(X, X, k, metric=metric, exclude_self=exclude_self)
        full = getattr(tier, f"pairwise_{metric}")(X)
        for i, row in enumerate(full.tolist()):
            others = [j for j in range(40) if not (exclude_self and j == i)]
            order = sorted(others, key=lambda j, row=row: (math.isnan(row[j]), 0 if math.isnan(row[j]) else row[j], j))
            assert indices[i].tolist() == order[:k]
            np.testing.assert_array_equal(distances[i], full[i, order[:k]])


def test_rows_longer_than_a_block_are_searched_one_by_one(rng):
    Y = rng.integers(0, 50, (vectorized.distances._DISTANCES + 7, 1)).astype(np.float32)
    distances, indices = vectorized.k_nearest(np.float32([[3], [49]]), Y, 3)
    for value, found, distance in zip((3, 49), indices, distances, strict=True):
        np.testing.assert_array_equal(found, np.flatnonzero(Y[:, 0] == value)[:3])
        np.testing.assert_array_equal(distance, 0)


def test_k_nearest_never_holds_all_distances(rng):
    X = rng.standard_normal((6_000, 2))
    tracemalloc.start()
    try:
        vectorized.k_nearest(X, X, 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < X.shape[0] ** 2 * 8 / 4


@pytest.mark.parametrize("columns", [1, 2, 7, 16, 33, 784, 5_000, 140_001])
@DTYPES
@pytest.mark.parametrize("metric", ["l1", "l2", "linf"])
def test_vectorized_pair_has_the_same_bits_in_any_company(metric, dtype, columns, rng, same_bits):
    rows = min(300, 700_000 // columns)
    X, Y = (rng.standard_normal((count, columns)).astype(dtype) for count in (max(2, rows // 3), max(2, rows)))
    pairwise = getattr(vectorized, f"pairwise_{metric}")
    full = pairwise(X, Y)
    same_bits(pairwise(Y, X).T.copy(), full)
    same_bits(pairwise(X[1:2], Y[-1:]), full[1:2, -1:].copy())
    same_bits(pairwise(X[:1], Y), full[:1])
    same_bits(pairwise(X, Y[1:2]), full[:, 1:2].copy())
    distances, indices = vectorized.k_nearest(X, Y, 2, metric=metric)
    same_bits(distances, np.take_along_axis(full, indices, axis=1))


# -- any norm --------------------------------------------------------------------------------------


def test_pairwise_takes_any_norm(rng):
    X, Y = rng.standard_normal((4, 6)), rng.standard_normal((5, 6))
    np.testing.assert_allclose(loops.pairwise(X, Y, np.linalg.norm), cdist(X, Y), rtol=1e-14)
    cubic = loops.pairwise(X, Y, lambda v: float((np.abs(v) ** 3).sum() ** (1 / 3)))
    np.testing.assert_allclose(cubic, cdist(X, Y, "minkowski", p=3), rtol=1e-14)
    np.testing.assert_array_equal(loops.pairwise(X, None, np.linalg.norm), loops.pairwise(X, X, np.linalg.norm))


def test_pairwise_hands_the_norm_differences_of_the_settled_dtype():
    seen = []

    def norm(v):
        seen.append(v)
        return np.abs(v).sum()

    assert loops.pairwise(np.uint8([[0]]), np.uint8([[255]]), norm) == [[255.0]]  # no wrap-around
    assert loops.pairwise(np.float32([[1]]), np.float16([[3]]), norm).dtype == np.float32
    assert loops.pairwise(np.float32([[1]]), [[3]], norm).dtype == np.float64
    assert [v.dtype for v in seen] == [np.float64, np.float32, np.float64]


def test_pairwise_needs_a_callable():
    with pytest.raises(TypeError, match="norm is a str; it must be callable"):
        loops.pairwise([[0.0]], [[0.0]], "l1")


# -- linear models ---------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("loss", [*LOSSES_OF_A_SCORE, *LOSSES_OF_CLASSES])
def test_linear_gradient_is_the_chain_rule_over_the_loss(tier, loss, rng):
    n, d, classes, l2 = 23, 5, 3, 0.3
    X, weight = rng.standard_normal((n, d)), rng.random(n)
    if loss in LOSSES_OF_CLASSES:
        W, b, y = rng.standard_normal((classes, d)), rng.standard_normal(classes), rng.integers(0, classes, n)
    else:
        W, b, y = rng.standard_normal(d), 0.7, target_for(loss, rng, n)
    value, dW, db = tier.linear_loss_gradient(loss, X, y, W, b, l2=l2, sample_weight=weight)
    plain, dz = getattr(tier, f"{loss}_gradient")(X @ W.T + b, y, sample_weight=weight)
    assert value == pytest.approx(plain + l2 / 2 * (W**2).sum(), rel=1e-13)
    np.testing.assert_allclose(dW, dz.T @ X + l2 * W, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(db, dz.sum(axis=0), rtol=1e-12, atol=1e-14)
    assert isinstance(db, float) == (W.ndim == 1)


@BOTH
def test_linear_takes_target_probabilities(tier, rng):
    X, W, b, y = rng.standard_normal((8, 3)), rng.standard_normal((4, 3)), rng.standard_normal(4), rng.integers(0, 4, 8)
    by_index = tier.linear_loss_gradient("softmax_cross_entropy", X, y, W, b)
    by_row = tier.linear_loss_gradient("softmax_cross_entropy", X, np.eye(4)[y], W, b)
    for a, c in zip(by_index, by_row, strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-13, atol=1e-16)


@BOTH
@pytest.mark.parametrize("loss", ["binary_cross_entropy", "huber", "squared_hinge"])
def test_integer_weights_count_rows(tier, loss, rng):
    X, W, y = rng.standard_normal((9, 4)), rng.standard_normal(4), target_for(loss, rng, 9)
    counts = np.array([0, 1, 2, 3, 1, 0, 5, 1, 2])
    weighted = tier.linear_loss_gradient(loss, X, y, W, 0.1, sample_weight=counts)
    repeated = tier.linear_loss_gradient(loss, np.repeat(X, counts, axis=0), np.repeat(y, counts), W, 0.1)
    for a, c in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-13)


@BOTH
def test_without_penalty_infinite_weights_do_not_become_nan_in_it(tier):
    # 0 · inf² is NaN, but without a penalty there is nothing to multiply.
    value, dW, _ = tier.linear_loss_gradient("hinge", [[1.0]], [1], [INF], 0.0)
    assert (value, dW.tolist()) == (0.0, [0.0])


@BOTH
def test_inputs_are_left_alone(tier, rng):
    for entry in catalogue.ENTRIES.values():
        inputs = entry.make(entry.sizes["tiny"], next(iter(entry.dtypes)))
        before = [np.copy(a) for a in inputs.args]
        for a in inputs.args:
            if isinstance(a, np.ndarray):
                a.setflags(write=False)
        result = getattr(tier, entry.function)(*inputs.args, **inputs.kwargs)
        for part in catalogue.outputs(result):
            assert not any(np.shares_memory(part, a) for a in inputs.args if isinstance(a, np.ndarray))
        for a, old in zip(inputs.args, before, strict=True):
            np.testing.assert_array_equal(a, old)
