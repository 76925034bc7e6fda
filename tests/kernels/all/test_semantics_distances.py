"""What distances and nearest rows mean, one sentence of docs/semantics.md per test, in all three tiers."""

from __future__ import annotations

import tracemalloc
from types import ModuleType

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist

FLOATS = ("float32", "float64")

METRICS = {"l1": "cityblock", "l2": "euclidean", "linf": "chebyshev"}

RTOL = {"float32": 2e-6, "float64": 1e-13}


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
# n = 0
# ---------------------------------------------------------------------------------------------------------------


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
