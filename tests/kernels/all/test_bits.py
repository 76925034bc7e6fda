"""The compiled tier gives the same bits however the work is cut: threads, batches, splits, block borders.

Sizes are chosen so that the pool is really used, and a test sees to that.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest

from fastml import kernels
from fastml.kernels.distances import arguments as distances_arguments
from fastml.kernels.losses.table import LOSSES
from fastml.kernels.losses.table import OVER_CLASSES as MULTICLASS
from fastml.kernels.runtime import parallel

pytestmark = pytest.mark.needs_jit

THREADS = (2, 3, 8)
FLOATS = ("float32", "float64")
DTYPES = (*FLOATS, "uint8")
METRICS = tuple(distances_arguments.METRICS)
PAIRWISE = {
    "l1": kernels.pairwise_l1,
    "l2": kernels.pairwise_l2,
    "linf": kernels.pairwise_linf,
    "squared-l2": lambda *args, **kwargs: kernels.pairwise_l2(*args, squared=True, **kwargs),
}
ELEMENTWISE = ("exp", "sigmoid", "softplus")
SOFTMAX_FAMILY = ("softmax", "log_softmax", "logsumexp")

# Lengths on both sides of every power of two that a block, tile or panel may have as its border.
BORDERS = sorted({max(1, 2**p + d) for p in range(2, 14) for d in (-1, 0, 1)})


def points(rng: np.random.Generator, n: int, D: int, dtype: str) -> np.ndarray:
    if dtype == "uint8":
        return rng.integers(0, 256, size=(n, D), dtype=np.uint8)
    return rng.normal(size=(n, D)).astype(dtype)


def parts(result) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(part) for part in (result if isinstance(result, tuple) else (result,)))


@pytest.fixture
def pool_use(monkeypatch):
    """A list that grows by one whenever work is handed to the pool."""
    used: list[int] = []
    submit = parallel.submit

    def counted(work, n_helpers):
        used.append(n_helpers)
        return submit(work, n_helpers)

    monkeypatch.setattr(parallel, "submit", counted)
    return used


@pytest.fixture
def same_for_all_threads(same_bits, pool_use):
    """Call a function with 1, 2, 3 and 8 threads, compare the bits, see that the pool was used."""

    def check(function, *args, **kwargs):
        pool_use.clear()
        expected = parts(function(*args, n_threads=1, **kwargs))
        assert not pool_use, "one thread means the caller's thread"
        for n_threads in THREADS:
            result = parts(function(*args, n_threads=n_threads, **kwargs))
            for number, (got, want) in enumerate(zip(result, expected, strict=True)):
                same_bits(got, want, f"{n_threads} threads, output {number}:")
        assert pool_use, "the input is too small: no thread of the pool was used"

    return check


# ---------------------------------------------------------------------------------------------------------------
# Thread counts
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", PAIRWISE)
def test_pairwise_for_any_number_of_threads(rng, same_for_all_threads, metric, dtype):
    X, Y = points(rng, 1001, 70, dtype), points(rng, 1503, 70, dtype)
    same_for_all_threads(PAIRWISE[metric], X, Y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", PAIRWISE)
def test_symmetric_pairwise_for_any_number_of_threads(rng, same_for_all_threads, metric, dtype):
    same_for_all_threads(PAIRWISE[metric], points(rng, 1601, 61, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_k_nearest_for_any_number_of_threads(rng, same_for_all_threads, metric, dtype):
    X, Y = points(rng, 1001, 70, dtype), points(rng, 1503, 70, dtype)
    same_for_all_threads(kernels.k_nearest, X, Y, 7, metric=metric)


@pytest.mark.parametrize("dtype", DTYPES)
def test_k_nearest_with_many_ties_for_any_number_of_threads(rng, same_for_all_threads, dtype):
    X = rng.integers(0, 3, size=(3001, 4)).astype(dtype)
    same_for_all_threads(kernels.k_nearest, X, X, 25, metric="l1", exclude_self=True)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_functions_for_any_number_of_threads(rng, same_for_all_threads, name, dtype):
    same_for_all_threads(getattr(kernels, name), (rng.normal(size=1_500_001) * 20).astype(dtype))


@pytest.mark.parametrize("C", [3, 10, 100])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SOFTMAX_FAMILY)
def test_softmax_family_for_any_number_of_threads(rng, same_for_all_threads, name, dtype, C):
    same_for_all_threads(getattr(kernels, name), (rng.normal(size=(1_500_001 // C, C)) * 5).astype(dtype))


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_for_any_number_of_threads(rng, loss_args, same_for_all_threads, loss, dtype, weighted):
    n = 200_003 if loss in MULTICLASS else 2_000_003
    if loss in MULTICLASS:
        z, y = rng.normal(size=(n, 7)).astype(dtype), rng.integers(0, 7, size=n)
    else:
        z, y = loss_args(rng, loss, n, dtype)
    kwargs = {"sample_weight": rng.uniform(0.5, 2, size=n).astype(dtype)} if weighted else {}
    for name in (loss, f"{loss}_gradient"):
        same_for_all_threads(getattr(kernels, name), z, y, **kwargs)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", LOSSES)
def test_linear_loss_gradient_for_any_number_of_threads(rng, same_for_all_threads, loss, dtype, weighted):
    n, D, C = 50_003, 37, 5
    X = rng.normal(size=(n, D)).astype(dtype)
    if loss in MULTICLASS:
        y, W, b = rng.integers(0, C, size=n), rng.normal(size=(C, D)), rng.normal(size=C)
    else:
        y, W, b = rng.choice([1.0, -1.0], size=n), rng.normal(size=D), 0.3
        if loss in ("binary_cross_entropy", "poisson"):
            y = (y + 1) / 2
    kwargs = {"sample_weight": rng.uniform(0.5, 2, size=n)} if weighted else {}
    same_for_all_threads(lambda *a, **k: kernels.linear_loss_gradient(loss, *a, **k), X, y, W, b, l2=0.1, **kwargs)


def test_default_number_of_threads_gives_the_same_bits(rng, same_bits):
    X = points(rng, 900, 65, "float32")
    same_bits(kernels.pairwise_l2(X), kernels.pairwise_l2(X, n_threads=1))
    z, y = rng.normal(size=600_000), rng.normal(size=600_000)
    assert kernels.huber(z, y) == kernels.huber(z, y, n_threads=1)


def test_work_inside_a_thread_gives_the_same_bits(rng, same_bits):
    X = points(rng, 900, 65, "float32")
    expected = kernels.pairwise_l1(X, n_threads=1)
    results: dict[int, np.ndarray | BaseException] = {}

    def work(number: int) -> None:
        try:
            results[number] = kernels.pairwise_l1(X, n_threads=1 + number)
        except BaseException as error:  # an error must fail the test, not vanish with the thread
            results[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results.values():
        if isinstance(result, BaseException):
            raise result
        same_bits(result, expected)


# ---------------------------------------------------------------------------------------------------------------
# A pair's distance depends on its two rows only
# ---------------------------------------------------------------------------------------------------------------

COLUMNS = (1, 2, 3, 8, 15, 16, 17, 31, 64, 65, 100, 784)


@pytest.mark.parametrize("D", COLUMNS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", PAIRWISE)
def test_a_pair_alone_and_in_any_batch(rng, same_bits, metric, dtype, D):
    pairwise = PAIRWISE[metric]
    X, Y = points(rng, 67, D, dtype), points(rng, 131, D, dtype)
    expected = pairwise(X, Y)
    for i, j in [(0, 0), (66, 130), (5, 77), (33, 64), *rng.integers(0, 67, size=(8, 2))]:
        same_bits(pairwise(X[i : i + 1], Y[j : j + 1]), expected[i : i + 1, j : j + 1].copy(), f"pair {i}, {j}:")
    for i in (0, 13, 66):
        same_bits(pairwise(X[i : i + 1], Y), expected[i : i + 1], f"row {i} alone:")
    for j in (0, 63, 130):
        same_bits(pairwise(X, Y[j : j + 1]), expected[:, j : j + 1].copy(), f"column {j} alone:")
    same_bits(pairwise(Y, X), expected.T.copy(), "arguments exchanged:")
    order, other = rng.permutation(67), rng.permutation(131)
    same_bits(pairwise(X[order], Y[other]), expected[np.ix_(order, other)], "rows permuted:")


@pytest.mark.parametrize("D", COLUMNS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", PAIRWISE)
def test_symmetric_has_the_bits_of_general(rng, same_bits, metric, dtype, D):
    pairwise = PAIRWISE[metric]
    X = points(rng, 133, D, dtype)
    symmetric = pairwise(X)
    same_bits(symmetric, pairwise(X, X.copy()), "Y a copy:")
    same_bits(symmetric, pairwise(X, X), "Y the same object:")
    same_bits(symmetric, symmetric.T.copy(), "transposed:")
    assert not np.diag(symmetric).any()
    assert not np.signbit(np.diag(symmetric).astype(float)).any()
    out = np.empty_like(symmetric)
    same_bits(pairwise(X, out=out), symmetric, "out:")


@pytest.mark.parametrize("D", COLUMNS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_k_nearest_has_the_bits_of_pairwise(rng, same_bits, metric, dtype, D):
    X, Y = points(rng, 41, D, dtype), points(rng, 139, D, dtype)
    everything = PAIRWISE[metric](X, Y)
    for k in (1, 6, 139):
        distances, indices = kernels.k_nearest(X, Y, k, metric=metric)
        same_bits(distances, np.take_along_axis(everything, indices, axis=1), f"k = {k}:")
    full, order = kernels.k_nearest(X, Y, 139, metric=metric)
    for k in (1, 2, 6, 50):
        distances, indices = kernels.k_nearest(X, Y, k, metric=metric)
        same_bits(distances, full[:, :k].copy(), f"k = {k}:")
        same_bits(indices, order[:, :k].copy(), f"k = {k}:")
    for i in (0, 17, 40):
        distances, indices = kernels.k_nearest(X[i : i + 1], Y, 6, metric=metric)
        same_bits(distances, full[i : i + 1, :6].copy(), f"query {i} alone:")
        same_bits(indices, order[i : i + 1, :6].copy(), f"query {i} alone:")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_k_nearest_of_split_data_merges_exactly(rng, same_bits, metric, dtype):
    """The k nearest of two parts, merged by (distance, index), are the k nearest of the whole."""
    X, Y = points(rng, 50, 20, dtype), points(rng, 700, 20, dtype)
    distances, indices = kernels.k_nearest(X, Y, 9, metric=metric)
    for cut in (9, 64, 350, 691):
        d1, i1 = kernels.k_nearest(X, Y[:cut], 9, metric=metric)
        d2, i2 = kernels.k_nearest(X, Y[cut:], 9, metric=metric)
        d, i = np.concatenate([d1, d2], axis=1), np.concatenate([i1, i2 + cut], axis=1)
        # Only the root of a squared distance is returned, so ties of the roots are ordered by index here; none occur.
        order = np.lexsort((i, d), axis=1)[:, :9]
        same_bits(np.take_along_axis(d, order, axis=1), distances, f"cut at {cut}:")
        same_bits(np.take_along_axis(i, order, axis=1), indices, f"cut at {cut}:")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("metric", PAIRWISE)
def test_nan_and_infinity_in_one_row_change_no_other_pair(rng, same_bits, metric, dtype):
    pairwise = PAIRWISE[metric]
    X, Y = points(rng, 70, 33, dtype), points(rng, 90, 33, dtype)
    expected = pairwise(X, Y)
    for value in (np.nan, np.inf, -np.inf):
        A, B = X.copy(), Y.copy()
        A[20, 32], B[64, 0] = value, value
        keep = np.ix_(np.arange(70) != 20, np.arange(90) != 64)
        same_bits(pairwise(A, B)[keep], expected[keep], f"{value} elsewhere:")
        distances, indices = kernels.k_nearest(A, B, 5, metric="l1")
        plain = kernels.k_nearest(X, Y[np.arange(90) != 64], 5, metric="l1")
        rows = np.arange(70) != 20
        same_bits(distances[rows], plain[0][rows])
        same_bits(indices[rows], (plain[1] + (plain[1] >= 64))[rows])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_distances_across_block_borders(rng, same_bits, metric, dtype):
    """Prefixes of X and Y whose ends straddle every border that a block can have."""
    pairwise = PAIRWISE[metric]
    X, Y = points(rng, 5, 19, dtype), points(rng, BORDERS[-1], 19, dtype)
    expected = pairwise(X, Y)
    transposed = expected.T.copy()
    for length in BORDERS:
        n_threads = 1 + length % 3
        same_bits(pairwise(X, Y[:length], n_threads=n_threads), expected[:, :length].copy(), f"{length} columns:")
        same_bits(pairwise(Y[:length], X, n_threads=n_threads), transposed[:length], f"{length} rows:")
        distances, _ = kernels.k_nearest(X, Y[:length], min(3, length), metric=metric, n_threads=n_threads)
        same_bits(distances, np.sort(expected[:, :length], axis=1)[:, :3].copy(), f"k_nearest among {length}:")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_symmetric_distances_across_block_borders(rng, same_bits, metric, dtype):
    X = points(rng, 1026, 9, dtype)
    expected = PAIRWISE[metric](X, X.copy())
    for n in (b for b in BORDERS if b <= 1026):
        same_bits(PAIRWISE[metric](X[:n], n_threads=1 + n % 3), expected[:n, :n].copy(), f"{n} rows:")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", METRICS)
def test_distances_do_not_depend_on_where_the_columns_lie(rng, same_bits, metric, dtype):
    """Offsets of the first column from an aligned address must not move the vector tail."""
    wide = points(rng, 40, 300, dtype)
    for start in (1, 2, 3, 5, 17):
        X = wide[:, start : start + 133]
        same_bits(PAIRWISE[metric](X), PAIRWISE[metric](X.copy()), f"start {start}:")


# ---------------------------------------------------------------------------------------------------------------
# Rows and elements alone and in batches
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elements_alone_and_in_any_batch(rng, same_bits, name, dtype):
    """The tail of an array takes the same formula as its body."""
    function = getattr(kernels, name)
    special = np.array([0, -0.0, 1, -1, 36.9, -37, 88.5, -88.5, -103, 710, -745, np.inf, -np.inf, np.nan])
    z = np.concatenate([rng.normal(size=200) * 30, rng.normal(size=60) * 1e-3, special]).astype(dtype)
    expected = function(z)
    for i in range(len(z)):
        same_bits(function(z[i : i + 1]), expected[i : i + 1], f"element {i} = {z[i]}:")
    for length in range(1, 70):
        same_bits(function(z[-length:]), expected[-length:], f"last {length}:")
    same_bits(function(z.reshape(2, -1)), expected.reshape(2, -1), "as two rows:")
    long = np.resize(z, BORDERS[-1])
    whole = function(long)
    for length in BORDERS:
        same_bits(function(long[:length], n_threads=1 + length % 3), whole[:length], f"first {length}:")


@pytest.mark.parametrize("C", [1, 2, 3, 5, 8, 10, 16, 17, 33, 100])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SOFTMAX_FAMILY)
def test_rows_alone_and_in_any_batch(rng, same_bits, name, dtype, C):
    function = getattr(kernels, name)
    Z = (rng.normal(size=(77, C)) * 6).astype(dtype)
    Z[3, 0], Z[40, -1], Z[41, 0] = np.inf, np.nan, -np.inf
    expected = function(Z)
    for i in range(77):
        same_bits(function(Z[i : i + 1]), expected[i : i + 1], f"row {i} alone:")
    for length in (2, 3, 4, 5, 7, 8, 9, 31):
        same_bits(function(Z[-length:]), expected[-length:], f"last {length} rows:")
    order = rng.permutation(77)
    same_bits(function(Z[order]), expected[order], "rows permuted:")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", SOFTMAX_FAMILY)
def test_rows_across_block_borders(rng, same_bits, name, dtype):
    function = getattr(kernels, name)
    Z = (rng.normal(size=(BORDERS[-1], 7)) * 6).astype(dtype)
    expected = function(Z)
    for length in BORDERS:
        same_bits(function(Z[:length], n_threads=1 + length % 3), expected[:length], f"first {length} rows:")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_of_a_row_does_not_depend_on_its_place(rng, loss_args, same_bits, loss, dtype):
    z, y = loss_args(rng, loss, 1027, dtype)
    gradient = getattr(kernels, f"{loss}_gradient")
    expected = gradient(z, y)[1]
    for shift in (1, 3, 8, 500):
        moved = gradient(np.roll(z, shift, axis=0), np.roll(y, shift, axis=0))[1]
        same_bits(np.roll(moved, -shift, axis=0), expected, f"rows moved by {shift}:")


@pytest.mark.parametrize("n", BORDERS)
def test_losses_across_block_borders(rng, loss_args, same_bits, n):
    for loss in LOSSES:
        z, y = loss_args(rng, loss, n, "float32")
        for name in (loss, f"{loss}_gradient"):
            function = getattr(kernels, name)
            expected = parts(function(z, y, n_threads=1))
            for got, want in zip(parts(function(z, y, n_threads=3)), expected, strict=True):
                same_bits(got, want, f"{name}, {n} rows:")


@pytest.mark.parametrize("loss", LOSSES)
def test_linear_loss_gradient_across_block_borders(rng, same_bits, loss):
    X = rng.normal(size=(BORDERS[-1], 11)).astype(np.float32)
    if loss in MULTICLASS:
        y, W, b = rng.integers(0, 3, size=len(X)), rng.normal(size=(3, 11)), np.zeros(3)
    else:
        y, W, b = np.ones(len(X)), rng.normal(size=11), 0.5
    for n in BORDERS:
        expected = parts(kernels.linear_loss_gradient(loss, X[:n], y[:n], W, b, n_threads=1))
        result = parts(kernels.linear_loss_gradient(loss, X[:n], y[:n], W, b, n_threads=3))
        for got, want in zip(result, expected, strict=True):
            same_bits(got, want, f"{n} rows:")


def test_the_same_call_gives_the_same_bits_again(rng, same_bits):
    X = points(rng, 600, 50, "float32")
    first = kernels.k_nearest(X, X, 5, n_threads=2)
    for _ in range(5):
        for got, want in zip(kernels.k_nearest(X, X, 5, n_threads=2), first, strict=True):
            same_bits(got, want)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", LOSSES)
def test_bits_do_not_depend_on_where_the_arrays_lie(rng, loss_args, same_bits, loss, dtype):
    """A compiler guards a vector loop against overlap; arrays that lie close must not send it elsewhere."""
    for n in (2, 5, 9, 16, 17, 20, 24, 31, 33, 48):
        z, y = loss_args(rng, loss, n, dtype)
        X, W, b = rng.normal(size=(n, 3)).astype(dtype), rng.normal(size=3), 0.5
        if z.ndim == 2:
            W, b = rng.normal(size=(5, 3)), np.zeros(5)
        expected = linear = None
        for _ in range(20):
            # Small arrays of changing length in between move the next ones about.
            keep = [np.empty(int(rng.integers(1, 300)), np.uint8)]
            z = z.copy()
            keep.append(np.empty(int(rng.integers(1, 300)), np.uint8))
            y = y.copy()
            result = parts(getattr(kernels, f"{loss}_gradient")(z, y))
            expected = expected or result
            X = X.copy()
            again = parts(kernels.linear_loss_gradient(loss, X, y, W, b))
            linear = linear or again
            for got, want in zip((*result, *again), (*expected, *linear), strict=True):
                same_bits(got, want, f"{n} rows:")
            del keep


def test_the_comparison_of_bits_can_fail(same_bits):
    same_bits(np.array([np.nan, 1.0]), np.array([np.nan, 1.0]))
    same_bits(np.array([np.nan]), np.array([-np.nan]))
    for got, want in (
        (np.array([1.0, np.nextafter(2.0, 3.0)]), np.array([1.0, 2.0])),
        (np.array([0.0]), np.array([-0.0])),
        (np.array([0.0]), np.array([np.nan])),
        (np.array([np.inf]), np.array([np.nan])),
        (np.array([7, 8]), np.array([7, 9])),
        (np.array([1.0], np.float32), np.array([1.0])),
        (np.zeros((2, 1)), np.zeros((1, 2))),
    ):
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            same_bits(got, want)
