"""What the public functions mean, one sentence of the design's section 2 per test, in all three tiers.

The expected values come from SciPy, from closed formulas in float64, or from integers; never from another tier.
Warnings are errors in the whole suite, so that every test here also says that a call does not warn.
"""

from __future__ import annotations

import os
import tracemalloc
import warnings
from types import ModuleType

import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist

FLOATS = ("float32", "float64")
METRICS = {"l1": "cityblock", "l2": "euclidean", "linf": "chebyshev"}
BINARY = ("binary_cross_entropy", "hinge", "squared_hinge")
REGRESSION = ("squared_error", "absolute_error", "huber")
MULTICLASS = ("softmax_cross_entropy", "multiclass_hinge")
LOSSES = BINARY + REGRESSION + MULTICLASS
RTOL = {"float32": 2e-6, "float64": 1e-13}

# Where naive formulas overflow, cancel or change branch; 36.9 and 37 straddle -log(eps) of float64.
EXTREME_LOGITS = (0.0, 36.9, 37.0, 37.5, 88.0, 89.0, 103.0, 104.0, 232.8, 745.0, 1e3, 1e4, 1e30)


def losses_of(loss: str, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The loss of each row in float64, by the formula of a text book."""
    z = np.asarray(z, np.float64)
    y = np.asarray(y)
    if y.dtype.kind == "f":
        y = y.astype(np.float64)
    rows = np.arange(len(z))
    match loss:
        case "binary_cross_entropy":
            return y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z)
        case "hinge":
            return np.maximum(0, 1 - y * z)
        case "squared_hinge":
            return np.maximum(0, 1 - y * z) ** 2
        case "squared_error":
            return (z - y) ** 2 / 2
        case "absolute_error":
            return np.abs(z - y)
        case "huber":
            return scipy.special.huber(1.35, z - y)
        case "softmax_cross_entropy":
            logp = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
            return -logp[rows, y] if y.ndim == 1 else -(y * logp).sum(axis=1)
        case "multiclass_hinge":
            margin = 1.0 + z - z[rows, y][:, None]
            margin[rows, y] = 0.0
            return margin.max(axis=1)
    raise AssertionError(loss)


def linear_args(loss: str, rng: np.random.Generator, n: int = 30, D: int = 4, C: int = 3, dtype: str = "float64"):
    """Arguments (X, y, W, b) of linear_loss_gradient."""
    X = rng.normal(size=(n, D)).astype(dtype)
    if loss in MULTICLASS:
        return X, rng.integers(0, C, size=n), rng.normal(size=(C, D)).astype(dtype), rng.normal(size=C).astype(dtype)
    y = {
        "binary_cross_entropy": lambda: rng.integers(0, 2, size=n).astype(dtype),
        "hinge": lambda: rng.choice([-1.0, 1.0], size=n).astype(dtype),
        "squared_hinge": lambda: rng.choice([-1.0, 1.0], size=n).astype(dtype),
    }.get(loss, lambda: rng.normal(size=n).astype(dtype))()
    return X, y, rng.normal(size=D).astype(dtype), float(rng.normal())


def distances_by_name(ops: ModuleType, metric: str):
    return getattr(ops, f"pairwise_{metric}")


# ---------------------------------------------------------------------------------------------------------------
# Distances: values, shapes, dtypes
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("metric", METRICS)
def test_pairwise_returns_an_n_by_m_array_of_distances(ops, rng, metric, dtype):
    X, Y = rng.normal(size=(5, 7)).astype(dtype), rng.normal(size=(9, 7)).astype(dtype)
    D = distances_by_name(ops, metric)(X, Y)
    assert isinstance(D, np.ndarray)
    assert D.shape == (5, 9)
    assert D.dtype == dtype
    assert D.flags.c_contiguous
    assert_allclose(D, cdist(X.astype(np.float64), Y.astype(np.float64), METRICS[metric]), rtol=RTOL[dtype])


@pytest.mark.parametrize("metric", METRICS)
def test_pairwise_without_Y_compares_X_with_itself(ops, rng, same_bits, metric):
    X = rng.normal(size=(11, 5)).astype(np.float32)
    pairwise = distances_by_name(ops, metric)
    D = pairwise(X)
    same_bits(D, pairwise(X, X))
    same_bits(D, D.T.copy())
    assert_array_equal(np.diag(D), 0)


@pytest.mark.parametrize("dtype", [*FLOATS, "uint8"])
def test_squared_l2_is_the_sum_of_squares(ops, rng, dtype):
    X, Y = (rng.uniform(0, 255, size=(n, 33)).astype(dtype) for n in (4, 6))
    D = ops.pairwise_l2(X, Y, squared=True)
    truth = cdist(X.astype(np.float64), Y.astype(np.float64), "sqeuclidean")
    assert_allclose(D, truth, rtol=0 if dtype == "uint8" else RTOL[dtype])
    assert_allclose(ops.pairwise_l2(X, Y), np.sqrt(truth), rtol=RTOL.get(dtype, 1e-6))


@pytest.mark.parametrize(
    ("x", "y", "result"),
    [
        ("float32", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("float16", "float16", "float32"),
        ("float16", "float32", "float32"),
        ("float32", "uint8", "float32"),
        ("uint8", "float16", "float32"),
        ("float32", "float64", "float64"),
        ("uint8", "float64", "float64"),
        ("float16", "float64", "float64"),
        ("int8", "int8", "float64"),
        ("int64", "float32", "float64"),
        ("uint8", "int16", "float64"),
        ("uint8", "uint16", "float64"),
        ("bool", "bool", "float64"),
        ("bool", "uint8", "float64"),
        ("longdouble", "longdouble", "float64"),
    ],
)
def test_distance_dtypes_follow_the_table(ops, rng, x, y, result):
    X = rng.uniform(0, 100, size=(3, 6)).astype(x)
    Y = rng.uniform(0, 100, size=(4, 6)).astype(y)
    X64, Y64 = X.astype(np.float64), Y.astype(np.float64)
    for metric, name in METRICS.items():
        D = distances_by_name(ops, metric)(X, Y)
        assert D.dtype == result, metric
        assert_allclose(D, cdist(X64, Y64, name), rtol=RTOL[result], err_msg=metric)
        # The order of the two arguments does not matter.
        assert distances_by_name(ops, metric)(Y, X).dtype == result, metric
        distances, indices = ops.k_nearest(X, Y, 2, metric=metric)
        assert distances.dtype == result, metric
        assert indices.dtype == np.intp, metric
    assert ops.pairwise_l2(X, Y, squared=True).dtype == result


def test_uint8_distances_are_exact_integers(ops, rng):
    X, Y = rng.integers(0, 256, size=(5, 131), dtype=np.uint8), rng.integers(0, 256, size=(6, 131), dtype=np.uint8)
    X[0], Y[0] = 0, 255
    difference = np.abs(X[:, None].astype(np.int64) - Y[None].astype(np.int64))
    for result, truth in (
        (ops.pairwise_l1(X, Y), difference.sum(axis=2)),
        (ops.pairwise_linf(X, Y), difference.max(axis=2)),
        (ops.pairwise_l2(X, Y, squared=True), (difference**2).sum(axis=2)),
    ):
        assert result.dtype == np.int32
        assert_array_equal(result, truth)
    root = ops.pairwise_l2(X, Y)
    assert root.dtype == np.float32
    assert_array_equal(root, np.sqrt((difference**2).sum(axis=2).astype(np.float64)).astype(np.float32))


@pytest.mark.parametrize(("D", "dtype"), [(33_025, "int32"), (33_026, "int64"), (40_000, "int64")])
def test_uint8_squared_l2_is_int64_from_33026_columns_on(ops, D, dtype):
    X, Y = np.zeros((1, D), np.uint8), np.full((2, D), 255, np.uint8)
    squared = ops.pairwise_l2(X, Y, squared=True)
    assert squared.dtype == dtype
    assert_array_equal(squared, 255 * 255 * D)  # 33,026 * 255 * 255 = 2,147,515,650 > 2**31 - 1
    assert_array_equal(ops.pairwise_l2(X, Y), np.full((1, 2), np.sqrt(255.0 * 255.0 * D), np.float32))
    assert ops.pairwise_l1(X, Y).dtype == np.int32
    assert_array_equal(ops.pairwise_l1(X, Y), 255 * D)
    assert ops.pairwise_linf(X, Y).dtype == np.int32
    distances, _ = ops.k_nearest(X, Y, 1, metric="l2")
    assert distances.dtype == np.float32
    assert_array_equal(distances, np.float32(np.sqrt(255.0 * 255.0 * D)))


def test_uint8_order_beyond_int32_is_exact(ops):
    """Squared distances over 2**31 that a float32 cannot tell apart still order by the exact integer."""
    D = 33_100
    X = np.zeros((1, D), np.uint8)
    Y = np.full((3, D), 255, np.uint8)
    Y[:, 0] = (2, 1, 0)  # the squares differ by 3 and 1; a float32 of this size has steps of 256
    _, indices = ops.k_nearest(X, Y, 3, metric="l2")
    assert_array_equal(indices, [[2, 1, 0]])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, object, "U3", "S3"])
def test_complex_object_and_str_raise(ops, metric, dtype):
    bad, good = np.ones((3, 2)).astype(dtype), np.ones((3, 2))
    pairwise = distances_by_name(ops, metric)
    for args in ((bad, good), (good, bad), (bad,)):
        with pytest.raises(TypeError):
            pairwise(*args)
    with pytest.raises(TypeError):
        ops.k_nearest(bad, good, 1, metric=metric)


# ---------------------------------------------------------------------------------------------------------------
# Distances: numerics
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_near_duplicates_at_a_large_offset_keep_their_distance(ops, rng, metric):
    """|x|² - 2xy + |y|² would lose all digits here: the norms are 1e11, the distances around 1e-1."""
    base = np.float32(8192.0) + rng.integers(0, 64, size=37).astype(np.float32)
    steps = rng.integers(-8, 9, size=(6, 37)).astype(np.float32) * np.float32(2.0**-10)  # ulp of 8192 is 2**-10
    X = base + steps
    assert X.dtype == np.float32
    truth = cdist(X.astype(np.float64), X.astype(np.float64), METRICS[metric])
    pairwise = distances_by_name(ops, metric)
    assert_allclose(pairwise(X), truth, rtol=1e-6)
    assert_allclose(pairwise(X[:2], X[2:]), truth[:2, 2:], rtol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_distance_depends_on_its_two_rows_only(ops, rng, same_bits, metric):
    """The same bits for a pair in any batch, with or without Y, and in k_nearest."""
    X = rng.normal(size=(19, 21)).astype(np.float32)
    pairwise = distances_by_name(ops, metric)
    D = pairwise(X, X[::-1].copy())[:, ::-1].copy()
    same_bits(pairwise(X), D, "symmetric against general")
    for i in (0, 7, 18):
        same_bits(pairwise(X[i : i + 1], X), D[i : i + 1], f"row {i} alone")
        same_bits(pairwise(X, X[i : i + 1]), D[:, i : i + 1], f"column {i} alone")
    distances, indices = ops.k_nearest(X, X, 19, metric=metric)
    same_bits(np.take_along_axis(D, indices, axis=1), distances, "k_nearest")


@pytest.mark.parametrize(("dtype", "power"), [("float32", 30), ("float64", 250)])
def test_l2_is_right_where_its_square_leaves_the_range(ops, dtype, power):
    X = np.zeros((1, 3), dtype)
    for size in (10.0**power, 10.0**-power):
        Y = np.array([[3], [-1], [2]], dtype) * np.full(3, size, dtype)
        assert_allclose(ops.pairwise_l2(X, Y), [[3**1.5 * size, 3**0.5 * size, 12**0.5 * size]], rtol=1e-6)
        assert ops.k_nearest(X, Y, 3)[1].tolist() == [[1, 2, 0]]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("metric", METRICS)
def test_nan_and_infinity_propagate_through_distances(ops, metric, dtype):
    inf, nan = np.inf, np.nan
    X = np.array([[1, 2, 3], [nan, 2, 3], [inf, 2, 3], [-inf, 2, 3], [1, inf, nan]], dtype)
    D = distances_by_name(ops, metric)(X)
    # inf - inf is NaN, so a row with infinity has distance NaN from itself and from rows with the same infinity.
    expected = np.array(
        [
            [0, nan, inf, inf, nan],
            [nan, nan, nan, nan, nan],
            [inf, nan, nan, inf, nan],
            [inf, nan, inf, nan, nan],
            [nan, nan, nan, nan, nan],
        ]
    )
    assert_array_equal(D, expected.astype(dtype))
    assert_array_equal(distances_by_name(ops, metric)(X[:2], X), expected[:2].astype(dtype))


@pytest.mark.parametrize("D", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("metric", METRICS)
def test_nan_at_any_column_reaches_the_distance(ops, metric, D):
    """Also where a vector instruction would drop it (maximum) and in the tail of a row."""
    pairwise = distances_by_name(ops, metric)
    for column in range(D):
        X, Y = np.ones((3, D), np.float32), np.zeros((6, D), np.float32)
        X[1, column] = np.nan
        Y[4, column] = np.nan
        expected = np.zeros((3, 6), bool)
        expected[1, :] = expected[:, 4] = True
        assert_array_equal(np.isnan(pairwise(X, Y)), expected, err_msg=f"column {column}")


@pytest.mark.parametrize("dtype", [*FLOATS, "uint8"])
@pytest.mark.parametrize("metric", METRICS)
def test_rows_without_columns_have_distance_0(ops, metric, dtype):
    X, Y = np.empty((2, 0), dtype), np.empty((3, 0), dtype)
    D = distances_by_name(ops, metric)(X, Y)
    assert_array_equal(D, np.zeros((2, 3)))
    assert D.dtype == distances_by_name(ops, metric)(np.ones((1, 1), dtype)).dtype
    distances, indices = ops.k_nearest(X, Y, 2, metric=metric)
    assert_array_equal(distances, np.zeros((2, 2)))
    assert_array_equal(indices, [[0, 1], [0, 1]])


# ---------------------------------------------------------------------------------------------------------------
# k_nearest
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*FLOATS, "uint8"])
@pytest.mark.parametrize("metric", METRICS)
def test_k_nearest_returns_distances_and_intp_indices_of_shape_n_by_k(ops, rng, metric, dtype):
    X, Y = rng.uniform(0, 255, size=(6, 9)).astype(dtype), rng.uniform(0, 255, size=(14, 9)).astype(dtype)
    result = ops.k_nearest(X, Y, 5, metric=metric)
    assert isinstance(result, tuple)
    distances, indices = result
    assert distances.shape == indices.shape == (6, 5)
    assert indices.dtype == np.intp
    D = distances_by_name(ops, metric)(X, Y)
    assert distances.dtype == D.dtype
    assert_array_equal(distances, np.sort(D, axis=1)[:, :5])
    assert_array_equal(np.take_along_axis(D, indices, axis=1), distances)


def test_k_nearest_metric_defaults_to_l2_and_knows_scikit_learns_names(ops, rng):
    X, Y = rng.normal(size=(4, 3)), rng.normal(size=(8, 3))
    default = ops.k_nearest(X, Y, 3)
    for names in (("l2", "euclidean"), ("l1", "manhattan", "cityblock"), ("linf", "chebyshev")):
        results = [ops.k_nearest(X, Y, 3, metric=name) for name in names]
        for distances, indices in results:
            assert_array_equal(distances, results[0][0])
            assert_array_equal(indices, results[0][1])
    assert_array_equal(ops.k_nearest(X, Y, 3, metric="l2")[0], default[0])


@pytest.mark.parametrize("tier", ["vectorized", pytest.param("compiled", marks=pytest.mark.needs_jit)])
def test_k_nearest_never_builds_the_n_by_m_matrix(ops, rng):
    n = m = 4000
    X, Y = rng.normal(size=(n, 2)).astype(np.float32), rng.normal(size=(m, 2)).astype(np.float32)
    ops.k_nearest(X[:5], Y[:5], 3)  # compile, start threads
    tracemalloc.start()
    try:
        ops.k_nearest(X, Y, 3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < n * m * 4 / 2, f"peak {peak / 1e6:.1f} MB, the matrix has {n * m * 4 / 1e6:.1f} MB"


@pytest.mark.parametrize("dtype", [*FLOATS, "uint8"])
@pytest.mark.parametrize("metric", METRICS)
def test_equal_distances_are_ordered_by_index(ops, rng, metric, dtype):
    # Few distinct points, so nearly all distances tie; k runs through every place where a tie can be cut.
    Y = rng.integers(0, 3, size=(23, 2)).astype(dtype)
    X = rng.integers(0, 3, size=(4, 2)).astype(dtype)
    D = cdist(X.astype(np.float64), Y.astype(np.float64), METRICS[metric])
    order = np.argsort(D, axis=1, kind="stable")
    for k in range(1, 24):
        distances, indices = ops.k_nearest(X, Y, k, metric=metric)
        assert_array_equal(indices, order[:, :k], err_msg=f"k = {k}")
        assert_allclose(distances, np.take_along_axis(D, order, axis=1)[:, :k], rtol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_l2_order_is_by_the_square_before_the_root(ops, dtype):
    """1 and 1 + eps have the same root after rounding; the square still decides."""
    eps = np.finfo(dtype).eps
    Y = np.array([[1, np.sqrt(eps)], [1, 0], [1, np.sqrt(eps)], [0.5, 0]], dtype)
    X = np.zeros((1, 2), dtype)
    distances, indices = ops.k_nearest(X, Y, 4)
    assert_array_equal(distances, [[0.5, 1, 1, 1]])
    assert_array_equal(indices, [[3, 1, 0, 2]])


def test_uint8_l2_order_is_by_the_exact_integer(ops):
    """Squares over 2**24 that are one float32 still differ as integers."""
    D = 600
    Y = np.full((4, D), 255, np.uint8)
    Y[0, 0], Y[1, 0], Y[2, 0], Y[3, 0] = 255, 254, 255, 254  # squares differ by 509 of 39 million: one ulp is 4
    Y[0, 1], Y[2, 1] = 1, 0  # squares of these two columns: 1 and 0, below half an ulp
    X = np.zeros((1, D), np.uint8)
    _, indices = ops.k_nearest(X, Y, 4)
    squares = (Y.astype(np.int64) ** 2).sum(axis=1)
    assert len({np.float32(s) for s in squares[[0, 2]]}) == 1
    assert_array_equal(indices[0], np.argsort(squares, kind="stable"))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("metric", METRICS)
def test_nan_distances_come_last_by_index(ops, metric, dtype):
    nan, inf = np.nan, np.inf
    Y = np.array([[nan, 0], [3, 0], [0, nan], [inf, 0], [1, 0], [nan, nan], [1, 0]], dtype)
    X = np.array([[0, 0], [nan, 1]], dtype)
    for k in range(1, 8):
        distances, indices = ops.k_nearest(X, Y, k, metric=metric)
        assert_array_equal(indices[0], [4, 6, 1, 3, 0, 2, 5][:k], err_msg=f"k = {k}")
        assert_array_equal(distances[0], np.array([1, 1, 3, inf, nan, nan, nan], dtype)[:k])
        # A query with NaN is NaN away from everything: by index.
        assert_array_equal(indices[1], np.arange(k))
        assert_array_equal(distances[1], np.full(k, nan, dtype))


@pytest.mark.parametrize("dtype", [*FLOATS, "uint8"])
@pytest.mark.parametrize("metric", METRICS)
def test_exclude_self_leaves_out_the_row_itself_and_no_duplicate_of_it(ops, rng, metric, dtype):
    X = rng.integers(0, 200, size=(12, 3)).astype(dtype)
    X[7] = X[2]
    D = cdist(X.astype(np.float64), X.astype(np.float64), METRICS[metric])
    np.fill_diagonal(D, np.inf)
    order = np.argsort(D, axis=1, kind="stable")[:, :11]
    for k in (1, 4, 11):
        distances, indices = ops.k_nearest(X, X, k, metric=metric, exclude_self=True)
        assert_array_equal(indices, order[:, :k])
    assert indices[2, 0] == 7
    assert distances[2, 0] == 0


def test_k_nearest_among_the_rows_of_x_themselves(ops, rng):
    X = rng.normal(size=(12, 3))
    for exclude_self in (False, True):
        want = ops.k_nearest(X, X, 4, exclude_self=exclude_self)
        assert_array_equal(ops.k_nearest(X, None, 4, exclude_self=exclude_self), want)


def test_exclude_self_with_nan_rows(ops):
    X = np.array([[0.0], [np.nan], [1.0], [3.0]])
    distances, indices = ops.k_nearest(X, X, 3, exclude_self=True)
    assert_array_equal(indices, [[2, 3, 1], [0, 2, 3], [0, 3, 1], [2, 0, 1]])
    assert_array_equal(distances, [[1, 3, np.nan], [np.nan] * 3, [1, 2, np.nan], [2, 3, np.nan]])


@pytest.mark.parametrize(("m", "k"), [(4, 1), (3, 3), (5, 4)])
def test_exclude_self_needs_n_equal_m_and_k_at_most_m_minus_1(ops, m, k):
    X, Y = np.zeros((4, 2)), np.zeros((m, 2))
    if m == 4:
        ops.k_nearest(X, Y, 3, exclude_self=True)
        with pytest.raises(ValueError, match="k"):
            ops.k_nearest(X, Y, 4, exclude_self=True)
    else:
        with pytest.raises(ValueError, match="exclude_self"):
            ops.k_nearest(X, Y, k, exclude_self=True)


# ---------------------------------------------------------------------------------------------------------------
# out
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "result"), [("float32", "float32"), ("float64", "float64"), ("uint8", "int32")])
@pytest.mark.parametrize("metric", METRICS)
def test_out_receives_the_result_and_is_returned(ops, rng, metric, dtype, result):
    X, Y = rng.uniform(0, 99, size=(5, 6)).astype(dtype), rng.uniform(0, 99, size=(8, 6)).astype(dtype)
    pairwise = distances_by_name(ops, metric)
    if (metric, dtype) == ("l2", "uint8"):
        result = "float32"
    out = np.full((5, 8), 77, result)
    assert pairwise(X, Y, out=out) is out
    assert_array_equal(out, pairwise(X, Y))
    square = np.full((5, 5), 77, result)
    assert pairwise(X, out=square) is square
    assert_array_equal(square, pairwise(X))


@pytest.mark.parametrize("metric", METRICS)
def test_out_must_be_contiguous_of_the_result_dtype_and_shape_and_apart_from_the_inputs(ops, metric):
    X, Y = np.ones((4, 6)), np.ones((6, 6))
    pairwise = distances_by_name(ops, metric)
    buffer = np.zeros(100)
    read_only = np.empty((4, 6))
    read_only.flags.writeable = False
    for out in (
        np.empty((6, 4)).T,  # order
        np.empty((4, 12))[:, ::2],  # strides
        np.empty((4, 6), np.float32),  # dtype
        np.empty((4, 6), ">f8"),  # byte order
        np.empty((6, 4)),  # shape
        np.empty(24),  # dimensions
        X,  # overlap
        Y[:4],  # overlap
        read_only,
    ):
        with pytest.raises(ValueError, match="out"):
            pairwise(X, Y, out=out)
    # Two pieces of one buffer that do not touch are fine.
    first, second = buffer[:24].reshape(4, 6), buffer[24:48].reshape(4, 6)
    assert_array_equal(pairwise(first, out=buffer[60:76].reshape(4, 4)), 0)
    with pytest.raises(ValueError, match="out"):
        pairwise(first, second, out=buffer[40:56].reshape(4, 4))


# ---------------------------------------------------------------------------------------------------------------
# exp, sigmoid, softplus and the softmax family
# ---------------------------------------------------------------------------------------------------------------

ELEMENTWISE = {
    "exp": np.exp,
    "sigmoid": scipy.special.expit,
    "softplus": lambda z: np.logaddexp(0, z),
}
SOFTMAX_FAMILY = {
    "softmax": lambda Z: scipy.special.softmax(Z, axis=-1),
    "log_softmax": lambda Z: scipy.special.log_softmax(Z, axis=-1),
    "logsumexp": lambda Z: scipy.special.logsumexp(Z, axis=-1),
}


def quietly(function, *args):
    """SciPy and NumPy warn about overflow and inf - inf where the result is what we want."""
    with np.errstate(all="ignore"):
        return function(*args)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_functions_return_arrays_of_the_input_shape(ops, rng, name, dtype):
    for shape in ((), (7,), (3, 5), (2, 3, 4)):
        z = np.asarray(rng.normal(size=shape) * 10).astype(dtype)
        result = getattr(ops, name)(z)
        assert result.shape == shape
        assert result.dtype == dtype
        assert_allclose(result, ELEMENTWISE[name](z.astype(np.float64)), rtol=RTOL[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SOFTMAX_FAMILY)
def test_softmax_family_works_over_the_last_axis(ops, rng, name, dtype):
    Z = (rng.normal(size=(6, 9)) * 5).astype(dtype)
    result = getattr(ops, name)(Z)
    assert result.dtype == dtype
    assert result.shape == ((6,) if name == "logsumexp" else (6, 9))
    assert_allclose(result, SOFTMAX_FAMILY[name](Z.astype(np.float64)), rtol=RTOL[dtype], atol=RTOL[dtype] / 2)


@pytest.mark.parametrize(
    ("given", "result"),
    [("float16", "float32"), ("int8", "float64"), ("int64", "float64"), ("bool", "float64"), (">f4", "float32")],
)
@pytest.mark.parametrize("name", [*ELEMENTWISE, *SOFTMAX_FAMILY])
def test_other_dtypes_become_float32_or_float64(ops, name, given, result):
    Z = np.array([[0, 1, 1], [1, 0, 1]]).astype(given)
    truth = {**ELEMENTWISE, **SOFTMAX_FAMILY}[name](Z.astype(np.float64))
    computed = getattr(ops, name)(Z)
    assert computed.dtype == np.dtype(result)
    assert computed.dtype.isnative
    assert_allclose(computed, truth, rtol=RTOL[result], atol=RTOL[result])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_functions_at_extreme_values(ops, name, dtype):
    """The right value to the last digits on both sides of every overflow and underflow, and no warning."""
    z = np.array([s * v for v in EXTREME_LOGITS for s in (1, -1)] + [np.inf, -np.inf, np.nan], dtype)
    truth = quietly(ELEMENTWISE[name], z.astype(np.float64))
    truth = quietly(truth.astype, dtype)
    # Below the smallest normal number there are fewer digits: an absolute error of one such number is allowed.
    assert_allclose(getattr(ops, name)(z), truth, rtol=RTOL[dtype], atol=float(np.finfo(dtype).tiny))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["exp", "sigmoid", "softplus"])
def test_elementwise_functions_are_accurate_over_their_whole_range(ops, rng, name, dtype):
    limit = 87 if dtype == "float32" else 708
    z = np.concatenate([rng.uniform(-limit, limit, 400), rng.normal(size=100) * 1e-3]).astype(dtype)
    assert_allclose(getattr(ops, name)(z), ELEMENTWISE[name](z.astype(np.float64)), rtol=RTOL[dtype])


INFINITE_ROWS = [
    [np.inf, 0.0, 1.0],
    [-np.inf, 0.0, 1.0],
    [np.inf, -np.inf, 0.0],
    [np.inf, np.inf, 0.0],
    [-np.inf, -np.inf, -np.inf],
    [-np.inf, -np.inf, 2.0],
    [np.inf, np.inf, np.inf],
    [np.nan, 0.0, 1.0],
    [np.nan, np.inf, -np.inf],
    [0.0, 0.0, np.nan],
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SOFTMAX_FAMILY)
def test_softmax_family_treats_infinity_as_scipy_does(ops, name, dtype):
    for row in INFINITE_ROWS:
        Z = np.array([row, [0.0, 1.0, 2.0]], dtype)
        truth = np.stack([quietly(SOFTMAX_FAMILY[name], z) for z in Z.astype(np.float64)])
        assert_allclose(getattr(ops, name)(Z), truth, rtol=RTOL[dtype], atol=RTOL[dtype], err_msg=str(row))


@pytest.mark.parametrize("C", [1, 3, 17])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SOFTMAX_FAMILY)
def test_softmax_family_at_extreme_logits(ops, name, dtype, C):
    for value in EXTREME_LOGITS:
        Z = np.zeros((4, C), dtype)
        Z[0, 0], Z[1, 0], Z[1, -1], Z[2, :], Z[3, :] = value, -value, value, value, -value
        truth = SOFTMAX_FAMILY[name](Z.astype(np.float64))
        assert_allclose(
            getattr(ops, name)(Z), truth, rtol=RTOL[dtype], atol=RTOL[dtype] / 2, err_msg=f"logits of {value}"
        )


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
    far = ops.linear_loss_gradient(loss, X, y, W, np.asarray(b) + 1e3 if np.ndim(b) else b + 1e3, l2=0.7)
    near = ops.linear_loss_gradient(loss, X, y, W, np.asarray(b) + 1e3 if np.ndim(b) else b + 1e3)
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


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_functions_work_on_no_elements(ops, name):
    for shape in ((0,), (0, 4), (3, 0)):
        result = getattr(ops, name)(np.empty(shape, np.float32))
        assert result.shape == shape
        assert result.dtype == np.float32


@pytest.mark.parametrize("name", SOFTMAX_FAMILY)
def test_softmax_family_works_on_no_rows(ops, name):
    result = getattr(ops, name)(np.empty((0, 4), np.float32))
    assert result.shape == ((0,) if name == "logsumexp" else (0, 4))
    assert result.dtype == np.float32


@pytest.mark.parametrize("dtype", [*FLOATS, "uint8"])
@pytest.mark.parametrize("metric", METRICS)
def test_distances_work_on_no_rows(ops, metric, dtype):
    some, none = np.ones((3, 5), dtype), np.empty((0, 5), dtype)
    pairwise = distances_by_name(ops, metric)
    dtype_of_result = pairwise(some).dtype
    for args, shape in (((none, some), (0, 3)), ((some, none), (3, 0)), ((none, none), (0, 0)), ((none,), (0, 0))):
        D = pairwise(*args)
        assert D.shape == shape
        assert D.dtype == dtype_of_result
    distances, indices = ops.k_nearest(none, some, 2, metric=metric)
    assert distances.shape == indices.shape == (0, 2)
    assert distances.dtype == dtype_of_result
    assert indices.dtype == np.intp


@pytest.mark.parametrize("loss", LOSSES)
def test_mean_losses_raise_on_no_rows(ops, rng, loss_args, loss):
    z, y = loss_args(rng, loss, 0)
    for name in (loss, f"{loss}_gradient"):
        with pytest.raises(ValueError, match="0 "):
            getattr(ops, name)(z, y)
    X, y, W, b = linear_args(loss, rng, n=0)
    with pytest.raises(ValueError, match="0 "):
        ops.linear_loss_gradient(loss, X, y, W, b)


# ---------------------------------------------------------------------------------------------------------------
# The two readable tiers and global state
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "metric"),
    [
        (lambda v: np.abs(v).sum(), "cityblock"),
        (lambda v: np.sqrt((v * v).sum()), "euclidean"),
        (lambda v: np.abs(v).max(), "chebyshev"),
        (lambda v: (np.abs(v) ** 3).sum() ** (1 / 3), "minkowski"),
    ],
)
def test_loops_pairwise_takes_any_norm_as_a_function(kernels_of, rng, norm, metric):
    X, Y = rng.normal(size=(3, 4)), rng.normal(size=(5, 4))
    truth = cdist(X, Y, metric, **({"p": 3} if metric == "minkowski" else {}))
    assert_allclose(kernels_of("loops").pairwise(X, Y, norm), truth, rtol=1e-13)


def test_global_state_is_left_alone(ops, rng):
    import numba

    def state():
        return (
            np.geterr(),
            np.geterrcall(),
            np.get_printoptions(),
            np.random.get_state()[1].tobytes(),  # noqa: NPY002 (the legacy generator is global state)
            numba.get_num_threads(),
            dict(os.environ),
            list(warnings.filters),
        )

    before = state()
    X = rng.normal(size=(40, 9)).astype(np.float32)
    X[0, 0], X[1, 1] = np.nan, np.inf
    extra = {"n_threads": 2} if ops.__name__ == "fastml.kernels" else {}
    ops.pairwise_l2(X, **extra)
    ops.k_nearest(X, X, 3, metric="linf", **extra)
    ops.softmax(X * 1e4, **extra)
    ops.exp(X * 1e4, **extra)
    ops.linear_loss_gradient("hinge", X, np.ones(40), X[2], 0.5, l2=1.0, **extra)
    ops.softmax_cross_entropy_gradient(X, np.arange(40) % 9, **extra)
    with pytest.raises(ValueError, match="y has"):
        ops.squared_error(X[:, 0], X[:3, 0])
    assert before == state()


def test_n_threads_none_is_the_smallest_limit_that_is_set(monkeypatch):
    from fastml.kernels.runtime import parallel

    def limits(affinity, quota, numba=None, omp=None):
        monkeypatch.setattr(parallel, "_affinity", lambda: affinity)
        monkeypatch.setattr(parallel, "_cgroup_quota", lambda: quota)
        for name, value in (("NUMBA_NUM_THREADS", numba), ("OMP_NUM_THREADS", omp)):
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        count, source = parallel.default()
        assert parallel.resolve(None) == count
        return count, source

    assert limits(8, None) == (8, "CPU affinity")
    assert limits(8, 3) == (3, "cgroup CPU quota")
    assert limits(8, 3, numba="2") == (2, "NUMBA_NUM_THREADS")
    assert limits(8, 3, numba="2", omp="1") == (1, "OMP_NUM_THREADS")
    assert limits(8, 3, numba="16", omp="16")[0] == 3
    assert limits(8, None, omp="4,2")[0] == 4  # nested OpenMP levels: the first is ours
    for meaningless in ("", "0", "-1", "many"):
        assert limits(8, None, omp=meaningless)[0] == 8
    assert parallel.resolve(5) == 5


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")
def test_n_threads_none_follows_the_affinity_of_the_process(monkeypatch):
    from fastml.kernels.runtime import parallel

    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    everything = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(everything)})
        assert parallel.default()[0] == 1
    finally:
        os.sched_setaffinity(0, everything)


def test_three_tiers_have_the_same_names_and_signatures(kernels_of):
    import inspect

    tiers = {tier: kernels_of(tier) for tier in ("loops", "vectorized", "compiled")}
    names = [f"pairwise_{metric}" for metric in METRICS] + ["k_nearest", *ELEMENTWISE, *SOFTMAX_FAMILY]
    names += [name for loss in LOSSES for name in (loss, f"{loss}_gradient")] + ["linear_loss_gradient"]
    for name in names:
        signatures = {}
        for tier, module in tiers.items():
            parameters = list(inspect.signature(getattr(module, name)).parameters.values())
            if tier == "compiled":
                last = parameters.pop()
                assert (last.name, last.default, last.kind) == ("n_threads", None, inspect.Parameter.KEYWORD_ONLY), name
            signatures[tier] = [(p.name, p.kind, p.default) for p in parameters]
        assert signatures["loops"] == signatures["vectorized"] == signatures["compiled"], name
