"""Whatever way an array lies in memory, the result has the same bits; inputs are never written to.

The baseline of every comparison is the same values in a plain C-contiguous native array.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastml.kernels.catalogue import ENTRIES
from fastml.kernels.distances.arguments import METRICS
from fastml.kernels.runtime.jit import jit_enabled

FLOATS = ("float32", "float64")


def c_order(a):
    return np.ascontiguousarray(a)


def f_order(a):
    return np.asfortranarray(a)


def strided(a):
    """Every second entry of the last axis and every third of the first."""
    buffer = np.full((a.shape[0] * 3, *a.shape[1:-1], a.shape[-1] * 2) if a.ndim > 1 else a.shape[0] * 3, 7, a.dtype)
    view = buffer[::3, ..., ::2] if a.ndim > 1 else buffer[::3]
    view[...] = a
    return view


def reversed_rows(a):
    return c_order(a[::-1])[::-1]


def reversed_columns(a):
    return c_order(a[..., ::-1])[..., ::-1]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def big_endian(a):
    # For uint8 this is the same type, but another dtype object, as the loaders of many files make it.
    return a.astype(a.dtype.newbyteorder(">"))


def unaligned(a):
    """One byte after an aligned address."""
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    assert a.itemsize == 1 or not view.flags.aligned
    return view


def field_of_a_record(a):
    """One field of packed records: unaligned and strided at once."""
    records = np.zeros(a.shape, np.dtype([("pad", np.uint8), ("value", a.dtype)]))
    records["value"] = a
    return records["value"]


def subclass(a):
    class Tagged(np.ndarray):
        pass

    return a.view(Tagged)


LAYOUTS = {
    f.__name__: f
    for f in (
        f_order,
        strided,
        reversed_rows,
        reversed_columns,
        read_only,
        big_endian,
        unaligned,
        field_of_a_record,
        subclass,
    )
}


def outputs(result) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(part) for part in (result if isinstance(result, tuple) else (result,)))


CASES = [pytest.param(entry, dtype, id=f"{key}-{dtype}") for key, entry in ENTRIES.items() for dtype in entry.dtypes]


def call(entry, tier, inputs, change):
    """Call a tier with every array argument changed, and see that it comes back as it went in."""
    args = [change(a) if isinstance(a, np.ndarray) and a.ndim else a for a in inputs.args]
    kwargs = {k: change(a) if isinstance(a, np.ndarray) and a.ndim else a for k, a in inputs.kwargs.items()}
    arrays = [a for a in (*args, *kwargs.values()) if isinstance(a, np.ndarray)]
    before = [a.tobytes() for a in arrays]
    result = outputs(entry.tier(tier)(*args, **kwargs))
    assert before == [a.tobytes() for a in arrays], "an input was modified"
    return result


@pytest.mark.parametrize(("entry", "dtype"), CASES)
def test_layout_does_not_change_a_bit(entry, dtype, tier, seed, same_bits):
    if not jit_enabled() and tier != "compiled":
        pytest.skip("the same with the JIT")
    inputs = entry.make(entry.sizes["tiny"], dtype, "typical", seed)
    expected = call(entry, tier, inputs, np.copy)
    for name, layout in LAYOUTS.items():
        result = call(entry, tier, inputs, layout)
        for got, want in zip(result, expected, strict=True):
            same_bits(got, want, name)
            assert type(got) is np.ndarray, name
            assert got.dtype.isnative, name


@pytest.mark.parametrize("layout", ["f_order", "strided", "unaligned", "big_endian"])
@pytest.mark.parametrize("metric", METRICS)
def test_layouts_of_inputs_wider_than_a_block(kernel, rng, same_bits, metric, layout):
    """Packing in blocks: several row blocks and columns beyond one vector."""
    X, Y = rng.normal(size=(130, 77)).astype(np.float32), rng.normal(size=(203, 77)).astype(np.float32)
    pairwise = kernel("compiled", f"pairwise_{metric}")
    change = LAYOUTS[layout]
    expected = pairwise(X, Y)
    same_bits(pairwise(change(X), change(Y)), expected)
    same_bits(pairwise(X, change(Y)), expected)
    same_bits(pairwise(change(X), Y), expected)


@pytest.mark.parametrize("dtype", FLOATS)
def test_broadcast_arrays_with_stride_0(ops, rng, same_bits, dtype):
    row = rng.normal(size=6).astype(dtype)
    X = np.broadcast_to(row, (5, 6))
    assert X.strides[0] == 0
    Y = rng.normal(size=(4, 6)).astype(dtype)
    for name in ("pairwise_l1", "pairwise_l2", "pairwise_linf"):
        same_bits(getattr(ops, name)(X, Y), getattr(ops, name)(X.copy(), Y))
        same_bits(getattr(ops, name)(Y, X), getattr(ops, name)(Y, X.copy()))
    for name in ("exp", "softmax", "logsumexp"):
        same_bits(getattr(ops, name)(X), getattr(ops, name)(X.copy()))
    z, y, w = np.broadcast_to(row[0], 7), np.broadcast_to(dtype == "float32", 7).astype(dtype), np.broadcast_to(2.0, 7)
    given, plain = ops.huber_gradient(z, y, sample_weight=w), ops.huber_gradient(z.copy(), y, sample_weight=w.copy())
    assert given[0] == plain[0]
    same_bits(given[1], plain[1])
    labels = np.broadcast_to(3, 5)
    assert ops.softmax_cross_entropy(X, labels) == ops.softmax_cross_entropy(X.copy(), labels.copy())


@pytest.mark.parametrize("dtype", [*FLOATS, "uint8"])
def test_memory_mapped_files_opened_for_reading(ops, rng, same_bits, tmp_path, dtype):
    X = rng.uniform(0, 255, size=(9, 12)).astype(dtype)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    for name in ("pairwise_l1", "pairwise_l2", "pairwise_linf"):
        result = getattr(ops, name)(mapped)
        assert type(result) is np.ndarray
        same_bits(result, getattr(ops, name)(X))
    for got, want in zip(ops.k_nearest(mapped, mapped, 3), ops.k_nearest(X, X, 3), strict=True):
        same_bits(got, want)
    if dtype != "uint8":
        same_bits(ops.log_softmax(mapped), ops.log_softmax(X))
        given = ops.linear_loss_gradient("squared_error", mapped, mapped[:, 0], mapped[0], 0.5)
        plain = ops.linear_loss_gradient("squared_error", X, X[:, 0], X[0], 0.5)
        assert given[0] == plain[0]
        same_bits(given[1], plain[1])
    with open(tmp_path / "X.npy", "rb") as file:
        same_bits(np.load(file), X)


@pytest.mark.parametrize("dtype", FLOATS)
def test_memory_mapped_out_is_written(ops, rng, same_bits, tmp_path, dtype):
    X = rng.normal(size=(5, 4)).astype(dtype)
    out = np.lib.format.open_memmap(tmp_path / "D.npy", mode="w+", dtype=dtype, shape=(5, 5))
    assert ops.pairwise_l1(X, out=out) is out
    out.flush()
    same_bits(np.load(tmp_path / "D.npy"), ops.pairwise_l1(X))


def test_float16_is_computed_in_float32(ops, rng, same_bits):
    X, Y = (rng.normal(size=(n, 6)).astype(np.float16) for n in (5, 7))
    X32, Y32 = X.astype(np.float32), Y.astype(np.float32)
    for name in ("pairwise_l1", "pairwise_l2", "pairwise_linf"):
        same_bits(getattr(ops, name)(X, Y), getattr(ops, name)(X32, Y32))
    for got, want in zip(ops.k_nearest(X, Y, 3), ops.k_nearest(X32, Y32, 3), strict=True):
        same_bits(got, want)
    for name in ("exp", "sigmoid", "softplus", "softmax", "log_softmax", "logsumexp"):
        same_bits(getattr(ops, name)(X), getattr(ops, name)(X32))
    same_bits(ops.squared_error_gradient(X[:, 0], X[:, 1])[1], ops.squared_error_gradient(X32[:, 0], X32[:, 1])[1])
    given = ops.linear_loss_gradient("huber", X, X[:, 0], X[0], 0.5)
    plain = ops.linear_loss_gradient("huber", X32, X32[:, 0], X32[0], 0.5)
    assert given[0] == plain[0]
    same_bits(given[1], plain[1])


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int32", "int64", "uint64", "longdouble"])
def test_other_real_dtypes_are_computed_in_float64(ops, rng, same_bits, dtype):
    X, Y = (rng.integers(0, 2, size=(n, 6)).astype(dtype) for n in (5, 7))
    X64, Y64 = X.astype(np.float64), Y.astype(np.float64)
    for name in ("pairwise_l1", "pairwise_l2", "pairwise_linf"):
        same_bits(getattr(ops, name)(X, Y), getattr(ops, name)(X64, Y64))
    for got, want in zip(ops.k_nearest(X, Y, 3), ops.k_nearest(X64, Y64, 3), strict=True):
        same_bits(got, want)
    for name in ("exp", "sigmoid", "softplus", "softmax", "log_softmax", "logsumexp"):
        same_bits(getattr(ops, name)(X), getattr(ops, name)(X64))
    loss, dz = ops.absolute_error_gradient(X[:, 0], Y64[:5, 0])
    want, dwant = ops.absolute_error_gradient(X64[:, 0], Y64[:5, 0])
    assert loss == want
    same_bits(dz, dwant)


def test_unsigned_integers_do_not_wrap(ops):
    """A difference taken in the unsigned type would be 2**16 - 1 instead of 1."""
    X, Y = np.array([[0]], np.uint16), np.array([[1]], np.uint16)
    assert ops.pairwise_l1(X, Y)[0, 0] == 1
    X, Y = np.array([[0, 255]], np.uint8), np.array([[255, 0]], np.uint8)
    assert ops.pairwise_l1(X, Y)[0, 0] == 510
    assert ops.pairwise_linf(X, Y)[0, 0] == 255
    assert ops.pairwise_l2(X, Y, squared=True)[0, 0] == 130_050


def test_lists_and_tuples(ops, same_bits):
    X, Y = [[0.0, 1.0], [2.0, 4.0]], ((1, 1), (0, 3), (5, 5))
    A, B = np.array(X), np.array(Y)
    for name in ("pairwise_l1", "pairwise_l2", "pairwise_linf"):
        same_bits(getattr(ops, name)(X, Y), getattr(ops, name)(A, B))
    for got, want in zip(ops.k_nearest(X, Y, 2), ops.k_nearest(A, B, 2), strict=True):
        same_bits(got, want)
    for name in ("exp", "sigmoid", "softplus", "softmax", "log_softmax", "logsumexp"):
        same_bits(getattr(ops, name)(X), getattr(ops, name)(A))
    assert ops.hinge([0.5, -1], [1, -1]) == ops.hinge(np.array([0.5, -1]), np.array([1, -1]))
    assert ops.softmax_cross_entropy(X, [1, 0]) == ops.softmax_cross_entropy(A, np.array([1, 0]))
    assert ops.squared_error([1, 2], [0, 0], sample_weight=[1, 3]) == 1.625
    given = ops.linear_loss_gradient("squared_error", X, [1, 0], [0.5, 1], 0.25)
    plain = ops.linear_loss_gradient("squared_error", A, np.array([1, 0]), np.array([0.5, 1]), 0.25)
    assert given[0] == plain[0]
    same_bits(given[1], plain[1])


@pytest.mark.parametrize("value", [3, 3.0, np.float32(3), np.float64(3), np.int8(3), np.array(3.0)])
def test_scalars_of_any_kind(ops, value):
    X, y, W = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1.0, 0.0]), np.array([0.5, -0.5])
    loss, dW, db = ops.linear_loss_gradient("squared_error", X, y, W, value, l2=float(value))
    want = ops.linear_loss_gradient("squared_error", X, y, W, float(value), l2=float(value))
    assert loss == want[0]
    assert db == want[2]
    assert type(db) is float
    assert_allclose(dW, want[1], rtol=0)


def test_k_may_be_any_integer(ops, rng, same_bits):
    X = rng.normal(size=(6, 2))
    want = ops.k_nearest(X, X, 3)
    for k in (np.int8(3), np.int64(3), np.uint64(3)):
        for got, expected in zip(ops.k_nearest(X, X, k), want, strict=True):
            same_bits(got, expected)


def test_transposed_and_sliced_views_of_one_buffer(ops, rng, same_bits):
    buffer = rng.normal(size=(20, 20))
    X, Y = buffer[2:9, 3:15], buffer[1:13, 4:11].T
    for name in ("pairwise_l1", "pairwise_l2", "pairwise_linf"):
        same_bits(getattr(ops, name)(X, Y), getattr(ops, name)(X.copy(), Y.copy()))
    W, b = buffer[:3, 3:15], buffer[0, ::7]
    given = ops.linear_loss_gradient("softmax_cross_entropy", X, np.arange(7) % 3, W, b)
    plain = ops.linear_loss_gradient("softmax_cross_entropy", X.copy(), np.arange(7) % 3, W.copy(), b.copy())
    for got, want in zip(given, plain, strict=True):
        same_bits(got, want)


def test_result_arrays_are_fresh_c_contiguous_and_writable(ops, rng):
    X = rng.normal(size=(5, 4))
    for array in (
        ops.pairwise_l1(X),
        ops.pairwise_l2(X, X[:0]),
        *ops.k_nearest(X, X, 2),
        ops.exp(X),
        ops.softmax(np.asfortranarray(X)),
        ops.logsumexp(X),
        ops.softmax_cross_entropy_gradient(np.asfortranarray(X), np.arange(5) % 4)[1],
        ops.linear_loss_gradient("hinge", X, np.ones(5), X[0], 0.0)[1],
    ):
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.flags.aligned
        assert not np.shares_memory(array, X)
