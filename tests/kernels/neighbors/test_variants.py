"""Metrics that only searches know: squared, cosine, inner product, weighted, and of packed bits."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import cosine_distances

from fastml.kernels import k_nearest
from fastml.kernels.distances.arguments import VARIANTS
from fastml.kernels.runtime.jit import jit_enabled

FLOATS = ("float32", "float64")
SCIPY = {"l1": "cityblock", "l2": "euclidean", "linf": "chebyshev", "sqeuclidean": "sqeuclidean"}


def rows_for(metric: str, rng, *shapes: tuple[int, int], dtype: str = "float32") -> list[np.ndarray]:
    if VARIANTS[metric].rows == "bits":
        return [rng.integers(0, 256, shape, np.uint8) & rng.integers(0, 256, shape, np.uint8) for shape in shapes]
    return [rng.integers(-9, 10, shape).astype(dtype) for shape in shapes]


# ------------------------------------------------------------------------------------ all variants


@pytest.mark.parametrize("metric", VARIANTS)
def test_bits_depend_on_neither_batch_nor_threads_nor_the_way(rng, metric):
    n, m = (300, 3000) if jit_enabled() else (30, 120)
    X, Y = rows_for(metric, rng, (n, 33), (m, 33))
    X[3], Y[::50] = 0, 0
    distances, indices = k_nearest(X, Y, 7, metric=metric, n_threads=1)
    for n_threads in (2, 5):
        again = k_nearest(X, Y, 7, metric=metric, n_threads=n_threads)
        assert_array_equal(again, (distances, indices))
    for algorithm in ("brute", "tree"):
        again = k_nearest(X, Y, 7, metric=metric, algorithm=algorithm)
        assert_array_equal(again, (distances, indices))
    for i in (0, 3, n - 1):
        again = k_nearest(X[i : i + 1], Y, 7, metric=metric, n_threads=2)
        assert_array_equal(again, (distances[i : i + 1], indices[i : i + 1]))
    every = k_nearest(X, Y, m, metric=metric)  # by selection
    assert_array_equal(every[0][:, :7], distances)
    assert_array_equal(every[1][:, :7], indices)
    assert_array_equal(np.sort(every[1], axis=1), np.broadcast_to(np.arange(m), (n, m)))


@pytest.mark.parametrize("metric", VARIANTS)
def test_a_row_among_its_own_leaves_itself_out(rng, metric):
    n = 2400 if jit_enabled() else 40  # by symmetry, where rows are long and many
    (X,) = rows_for(metric, rng, (n, 480 if jit_enabled() else 9))
    X[5] = 0
    distances, indices = k_nearest(X, None, 4, metric=metric, exclude_self=True, n_threads=2)
    want = k_nearest(X[:50], X, 6, metric=metric)
    for i in range(min(n, 50)):
        others = want[1][i] != i
        assert_array_equal(indices[i], want[1][i][others][:4])
        assert_array_equal(distances[i], want[0][i][others][:4])


@pytest.mark.parametrize("metric", VARIANTS)
def test_rows_may_be_strided_read_only_and_without_columns_or_rows(rng, metric):
    X, Y = rows_for(metric, rng, (6, 14), (9, 14))
    want = k_nearest(X[:, ::2], Y[:, ::2], 3, metric=metric)
    copies = np.ascontiguousarray(X[:, ::2]), np.asfortranarray(Y[:, ::2])
    for side in copies:
        side.setflags(write=False)
    assert_array_equal(k_nearest(*copies, 3, metric=metric), want)
    shifted = [np.frombuffer(b"." + side.tobytes(), side.dtype, offset=1).reshape(side.shape) for side in (X, Y)]
    assert_array_equal(k_nearest(*shifted, 3, metric=metric), k_nearest(X, Y, 3, metric=metric))
    distances, indices = k_nearest(X[:, :0], Y[:, :0], 3, metric=metric)
    assert_array_equal(indices, np.broadcast_to(np.arange(3), (6, 3)))
    assert_array_equal(distances, np.full((6, 3), 1 if metric == "cosine" else 0))
    assert k_nearest(X[:0], Y, 3, metric=metric)[0].shape == (0, 3)


# ------------------------------------------------------------------------------------ squared L2


@pytest.mark.parametrize("dtype", [*FLOATS, "uint8"])
def test_squares_have_the_order_of_l2_and_the_bits_of_pairwise(ops, rng, dtype):
    X, Y = rng.integers(0, 200, (20, 40)).astype(dtype), rng.integers(0, 200, (300, 40)).astype(dtype)
    squares, indices = ops.k_nearest(X, Y, 9, metric="sqeuclidean")
    assert_array_equal(indices, ops.k_nearest(X, Y, 9)[1])
    assert squares.dtype == ("int32" if dtype == "uint8" else dtype)
    assert_array_equal(squares, np.take_along_axis(ops.pairwise_l2(X, Y, squared=True), indices, axis=1))


@pytest.mark.parametrize(("dtype", "sizes"), [("float32", (1e-25, 1e25)), ("float64", (1e-180, 1e180))])
def test_squares_beyond_the_range_keep_the_order_of_the_distances(ops, rng, dtype, sizes):
    for size in sizes:
        X, Y = (rng.standard_normal((rows, 5)).astype(dtype) * np.dtype(dtype).type(size) for rows in (8, 60))
        squares, indices = ops.k_nearest(X, Y, 6, metric="sqeuclidean")
        assert_array_equal(indices, ops.k_nearest(X, Y, 6)[1])
        assert_array_equal(squares, np.take_along_axis(ops.pairwise_l2(X, Y, squared=True), indices, axis=1))


# ------------------------------------------------------------------------------------ cosine


def exact_cosine_distance(x, y) -> float:
    """1 - cos in long double from exact sums: 4 sin^2 of half the angle, over 2."""
    products = [sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(*pair, strict=True)) for pair in
                ((x, x), (y, y), (x, y))]  # fmt: skip
    xx, yy, xy = products
    # 1 - xy / sqrt(xx yy) = (xx yy - xy^2) / (sqrt(xx yy) (sqrt(xx yy) + xy)), whose numerator is exact.
    root = np.sqrt(np.longdouble(float(xx))) * np.sqrt(np.longdouble(float(yy)))
    return float(np.longdouble(float(xx * yy - xy * xy)) / (root * (root + np.longdouble(float(xy)))))


@pytest.mark.parametrize("dtype", FLOATS)
def test_cosine_is_right_to_an_eps_of_the_root(ops, rng, dtype):
    """Small angles keep their digits, of which 1 - cos has none left."""
    eps = float(np.finfo(dtype).eps)
    x = rng.standard_normal(60)
    Y = np.stack([x * rng.uniform(0.1, 9) + 10.0**-power * rng.standard_normal(60) for power in range(7)])
    X, Y = x[None].astype(dtype), Y.astype(dtype)
    distances, indices = ops.k_nearest(X, Y, len(Y), metric="cosine")
    for d, j in zip(distances[0], indices[0], strict=True):
        want = exact_cosine_distance(X[0], Y[j])
        assert abs(d - want) <= 4 * eps * (np.sqrt(want) + want)
    assert 0 < distances[0, 0] < 1e-11


@pytest.mark.parametrize("dtype", FLOATS)
def test_cosine_as_scikit_learn_has_it(ops, rng, dtype):
    X, Y = rng.standard_normal((30, 50)).astype(dtype), rng.standard_normal((200, 50)).astype(dtype)
    X[4], Y[7] = 0, 0
    distances, indices = ops.k_nearest(X, Y, 12, metric="cosine")
    want = cosine_distances(X.astype(np.float64), Y.astype(np.float64))
    assert_allclose(distances, np.sort(want, axis=1)[:, :12], rtol=2e-6 if dtype == "float32" else 1e-14)
    # From zeros all rows have the distance 1, exactly; the first ones are nearest.
    assert_array_equal(distances[4], 1)
    assert_array_equal(indices[4], np.arange(12))
    whole = ops.k_nearest(X, Y, 200, metric="cosine")[0]
    assert_allclose(whole, np.sort(want, axis=1), atol=1e-6 if dtype == "float32" else 1e-15)


def test_cosine_of_equal_and_of_opposite_directions(ops, rng):
    X = rng.standard_normal((20, 30)).astype(np.float32)
    near, far = ops.k_nearest(X, np.concatenate([-4 * X, 8 * X]), 40, metric="cosine")[0][:, [0, -1]].T
    assert_array_equal(near, 0)
    assert_allclose(far, 2, rtol=1e-6)
    assert (far <= 2).all()


@pytest.mark.parametrize(("dtype", "sizes"), [("float32", (1e-36, 1e36)), ("float64", (1e-300, 1e-160, 1e160, 1e300))])
def test_the_lengths_of_rows_do_not_matter(ops, rng, dtype, sizes):
    X, Y = (rng.standard_normal((rows, 7)).astype(dtype) for rows in (5, 40))
    want = ops.k_nearest(X, Y, 5, metric="cosine")
    for size in sizes:
        power = np.ldexp(np.dtype(dtype).type(1), int(np.log2(size)))
        found = ops.k_nearest(X * power, Y, 5, metric="cosine")
        assert_array_equal(found[1], want[1])
        assert_allclose(found[0], want[0], rtol=1e-5 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("dtype", FLOATS)
def test_rows_that_are_not_finite_have_no_direction(ops, dtype):
    X = np.array([[1, 2], [0, 0], [np.inf, 1]], dtype)
    Y = np.array([[np.nan, 1], [2, 4], [-np.inf, np.inf], [0, 0]], dtype)
    distances, indices = ops.k_nearest(X, Y, 4, metric="cosine")
    assert_array_equal(indices, [[1, 3, 0, 2], [1, 3, 0, 2], [0, 1, 2, 3]])
    assert_allclose(distances, [[0, 1, np.nan, np.nan], [1, 1, np.nan, np.nan], [np.nan] * 4], atol=1e-12)


# ------------------------------------------------------------------------------------ inner product


@pytest.mark.parametrize("dtype", [*FLOATS, "uint8"])
def test_the_largest_product_comes_first_and_of_equals_the_first(ops, rng, dtype):
    low = 0 if dtype == "uint8" else -3
    X, Y = rng.integers(low, 4, (40, 6)).astype(dtype), rng.integers(low, 4, (300, 6)).astype(dtype)
    products = X.astype(np.float64) @ Y.T.astype(np.float64)  # exact
    found, indices = ops.k_nearest(X, Y, 11, metric="inner_product")
    assert_array_equal(indices, np.argsort(-products, axis=1, kind="stable")[:, :11])
    assert_array_equal(found, np.take_along_axis(products, indices, axis=1))
    assert found.dtype == ("float64" if dtype == "uint8" else dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_products_of_any_sign_and_size_are_in_order(ops, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    values = np.array([np.nan, -np.inf, -1, -tiny, -0.0, 0, tiny, 1, np.inf, -np.nan, 0, -0.0], dtype)
    found, indices = ops.k_nearest(np.ones((1, 1), dtype), values[:, None], len(values), metric="inner_product")
    assert_array_equal(indices, [[8, 7, 6, 4, 5, 10, 11, 3, 2, 1, 0, 9]])
    assert_array_equal(found, [values[indices[0]]])
    assert not np.signbit(found[0, 3:7]).any(), "a product of 0 has no sign"


# ------------------------------------------------------------------------------------ weights


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("metric", SCIPY)
def test_weighted_distances_are_those_of_scipy(ops, rng, metric, dtype):
    X, Y = rng.standard_normal((20, 9)).astype(dtype), rng.standard_normal((80, 9)).astype(dtype)
    w = rng.uniform(0, 3, 9)
    w[4] = 0
    distances, _ = ops.k_nearest(X, Y, 5, metric=metric, metric_params={"w": w})
    want = cdist(X.astype(np.float64), Y.astype(np.float64), SCIPY[metric], w=w)
    assert distances.dtype == dtype
    assert_allclose(distances, np.sort(want, axis=1)[:, :5], rtol=1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("metric", SCIPY)
def test_a_weight_counts_a_column_so_many_times(ops, rng, metric):
    """Weights that are squares of whole numbers, on whole numbers: exact, with the same ties."""
    X, Y, w = rng.integers(0, 5, (20, 4)), rng.integers(0, 5, (200, 4)), np.array([4, 0, 1, 9])
    repeated = np.repeat(np.arange(4), w)
    for rows in ("float32", "float64", "uint8"):
        sides = X.astype(rows), Y.astype(rows)
        distances, indices = ops.k_nearest(*sides, 9, metric=metric, metric_params={"w": w})
        want = ops.k_nearest(*(side[:, repeated].astype("f8") for side in sides), 9, metric=metric)
        assert_array_equal(indices, want[1])
        assert_allclose(distances, want[0], rtol=1e-6)
        assert distances.dtype == ("float64" if rows == "uint8" else rows)


@pytest.mark.parametrize(
    ("metric", "parameters", "error", "text"),
    [
        ("l1", {"w": [1, -1.0]}, ValueError, "-1.0 at 1"),
        ("l2", {"w": [np.nan, 1]}, ValueError, "nan at 0"),
        ("linf", {"w": [np.inf, 1]}, ValueError, "inf at 0"),
        ("l2", {"w": [1.0]}, ValueError, r"\(1,\).*2 columns"),
        ("l2", {"w": ["a", "b"]}, TypeError, "metric_params\\['w'\\]"),
        ("l2", {"p": 3}, ValueError, "'p'"),
        ("cosine", {"w": [1, 1]}, ValueError, "cosine"),
        ("hamming", {"w": [1, 1]}, ValueError, "hamming"),
        ("l2", [1, 1], TypeError, "list"),
    ],
)
def test_weights_that_say_nothing_are_refused(ops, metric, parameters, error, text):
    with pytest.raises(error, match=text):
        ops.k_nearest(
            np.zeros((3, 2), np.uint8), np.zeros((3, 2), np.uint8), 1, metric=metric, metric_params=parameters
        )


@pytest.mark.parametrize("metric", ["l1", "l2", "sqeuclidean"])
@pytest.mark.parametrize("scale", [1e80, 1e-80])
def test_float32_rows_are_right_with_weights_of_any_size(ops, rng, metric, scale):
    X, Y = (rng.standard_normal((rows, 5), np.float32) for rows in (4, 9))
    w = rng.uniform(0.5, 2, 5) * scale
    distances, indices = ops.k_nearest(X, Y, 3, metric=metric, metric_params={"w": w})
    wide = cdist(X.astype(np.float64), Y.astype(np.float64), SCIPY[metric], w=w)
    assert_array_equal(indices, np.argsort(wide, axis=1)[:, :3])
    assert_allclose(distances, np.sort(wide, axis=1)[:, :3], rtol=1e-12)


@pytest.mark.parametrize("metric", SCIPY)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_column_of_weight_0_is_not_there(ops, rng, metric, value):
    X, Y = rng.standard_normal((4, 3)), rng.standard_normal((30, 3))
    want = ops.k_nearest(X, Y, 9, metric=metric, metric_params={"w": [2, 0, 1]})
    X[::2, 1], Y[::3, 1] = value, -value
    found = ops.k_nearest(X, Y, 9, metric=metric, metric_params={"w": [2, 0, 1]})
    assert_array_equal(found[0], want[0])
    assert_array_equal(found[1], want[1])
    Y[5, 0] = np.nan  # of the others it counts
    distances, indices = ops.k_nearest(X, Y, 30, metric=metric, metric_params={"w": [2, 0, 1]})
    assert np.isnan(distances[:, -1]).all()
    assert (indices[:, -1] == 5).all()


def test_no_weights_are_no_weights(ops, rng):
    X = rng.standard_normal((9, 3))
    for parameters in ({}, {"w": None}, None):
        assert_array_equal(ops.k_nearest(X, X, 3, metric_params=parameters), ops.k_nearest(X, X, 3))


# ------------------------------------------------------------------------------------ packed bits


@pytest.mark.parametrize("columns", [1, 7, 8, 9, 31, 32, 64, 233, 240, 241, 1000, 8 * 600 + 3])
def test_bits_are_counted_exactly(ops, rng, columns):
    X, Y = rng.integers(0, 256, (6, columns), np.uint8), rng.integers(0, 256, (40, columns), np.uint8)
    X[0], X[1], Y[0], Y[1] = 0, 255, 0, 255
    differing = np.bitwise_count(X[:, None] ^ Y).sum(axis=2, dtype=np.int64)
    joined = np.bitwise_count(X[:, None] | Y).sum(axis=2, dtype=np.int64)
    for metric, want in (("hamming", differing), ("jaccard", differing / np.maximum(joined, 1))):
        distances, indices = ops.k_nearest(X, Y, 40, metric=metric)
        assert_array_equal(indices, np.argsort(want, axis=1, kind="stable"))
        assert_array_equal(distances, np.sort(want, axis=1))
        assert distances.dtype == ("int32" if metric == "hamming" else "float64")


def test_jaccard_has_the_order_of_fractions_and_the_values_of_scipy(ops, rng):
    bits = rng.random((60, 90)) < 0.3
    X, Y = np.packbits(bits[:10], axis=1), np.packbits(bits, axis=1)
    distances, indices = ops.k_nearest(X, Y, 60, metric="jaccard")
    for i, x in enumerate(bits[:10]):
        fractions = [Fraction(int((x ^ y).sum()), max(1, int((x | y).sum()))) for y in bits]
        assert_array_equal(indices[i], sorted(range(60), key=fractions.__getitem__))
    want = cdist(bits[:10], bits, "jaccard")
    assert_allclose(distances, np.sort(want, axis=1), rtol=1e-15)


@pytest.mark.parametrize("metric", ["hamming", "jaccard"])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_what_is_not_packed_bits_is_refused(ops, metric, dtype):
    with pytest.raises(TypeError, match=f"{metric}.*packbits"):
        ops.k_nearest(np.zeros((3, 2), dtype), None, 1, metric=metric)
