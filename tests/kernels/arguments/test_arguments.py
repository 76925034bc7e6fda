"""Argument checking: what passes untouched, what is cast, and what each message says."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse

from fastml.kernels.arguments import arrays, scalars, targets
from fastml.kernels.distances import arguments as distances_arguments
from fastml.kernels.linear import arguments as linear_arguments
from fastml.kernels.losses import arguments as losses_arguments

F32, F64, U8 = arrays.FLOAT32, arrays.FLOAT64, arrays.UINT8


def unaligned(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    assert not view.flags.aligned
    return view


# -- arrays ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64"])
def test_settle_returns_a_right_array_itself(dtype):
    array = np.ones((3, 4), dtype)
    assert arrays.as_contiguous(array, dtype) is array
    array.setflags(write=False)
    assert arrays.as_contiguous(array, np.dtype(dtype)) is array


@pytest.mark.parametrize(
    "change",
    [
        lambda a: np.asfortranarray(a),
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: a[::-1][::-1][:, ::-1].copy()[:, ::-1],
        lambda a: a.astype(a.dtype.newbyteorder(">")),
        lambda a: unaligned(a),
        lambda a: a.astype(np.longdouble),
        lambda a: a.view(np.matrix),
        lambda a: a.tolist(),
    ],
    ids=["F-order", "strided", "reversed", "big-endian", "unaligned", "long double", "matrix", "list"],
)
def test_settle_makes_a_plain_array_of_anything_else(change):
    array = np.arange(12.0).reshape(3, 4)
    settled = arrays.as_contiguous(change(array), np.float64)
    assert type(settled) is np.ndarray
    assert settled.dtype == np.float64
    assert settled.dtype.isnative
    assert settled.flags.c_contiguous
    assert settled.flags.aligned
    np.testing.assert_array_equal(settled, array)


def test_settle_keeps_a_memory_map_in_place(tmp_path):
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=(4, 3))
    settled = arrays.as_contiguous(mapped, np.float32)
    assert type(settled) is np.ndarray
    assert np.shares_memory(settled, mapped)


@pytest.mark.parametrize(
    ("x", "y", "settled"),
    [
        ("uint8", "uint8", "uint8"),
        ("float32", "float32", "float32"),
        ("float16", "float16", "float32"),
        ("float16", "uint8", "float32"),
        ("float32", "uint8", "float32"),
        ("float32", "float16", "float32"),
        ("float64", "float32", "float64"),
        ("float64", "uint8", "float64"),
        ("uint8", "int8", "float64"),
        ("int64", "int64", "float64"),
        ("float32", "int32", "float64"),
        ("bool", "bool", "float64"),
        ("bool", "float32", "float64"),
        ("bool", "uint8", "float64"),
        ("longdouble", "float32", "float64"),
    ],
)
def test_pair_promotes_as_documented(x, y, settled):
    for first, second in ((x, y), (y, x)):
        for order in ("=", ">"):
            X = np.ones((2, 3), np.dtype(first).newbyteorder(order))
            Y = np.ones((4, 3), np.dtype(second).newbyteorder(order))
            a, b, kind = distances_arguments.pair(X, Y)
            assert (a.dtype.name, b.dtype.name, kind) == (settled, settled, settled)


def test_pair_says_where_both_sides_are_one():
    X = np.ones((2, 3), np.float32)
    for result in (distances_arguments.pair(X), distances_arguments.pair(X, X)):
        assert result[0] is result[1] is X
    fortran = np.asfortranarray(np.ones((2, 3)))
    a, b, _ = distances_arguments.pair(fortran, fortran)
    assert a is b
    a, b, _ = distances_arguments.pair(X, X.copy())
    assert a is not b


@pytest.mark.parametrize("package", ["ml_dtypes", "torch"])
def test_bfloat16_becomes_the_float32_that_it_is(rng, package):
    values = rng.standard_normal((6, 5)).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -0.0
    values = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    module = pytest.importorskip(package)
    halves = values.astype(module.bfloat16) if package == "ml_dtypes" else module.from_numpy(values).bfloat16()
    found = arrays.real(halves, "X")
    assert found.dtype == F32
    np.testing.assert_array_equal(found, values)
    assert np.signbit(found[0, 2])
    x, y, kind = distances_arguments.pair(halves, values.astype(np.float16))
    assert kind == "float32" == x.dtype == y.dtype
    x, y, _ = distances_arguments.pair(halves)
    assert x is y


def test_single_arrays_are_float32_or_float64():
    for dtype, settled in (("float16", F32), ("float32", F32), ("float64", F64), ("uint8", F64), ("bool", F64)):
        assert arrays.floating(np.ones(3, dtype), "x").dtype == settled
    assert arrays.floating(3, "x").shape == ()


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.ones(2, complex), TypeError, "X has dtype complex128; real numbers are needed"),
        (np.array(["a"]), TypeError, "X has dtype <U1; real numbers"),
        (np.array([None]), TypeError, "X has dtype object"),
        (np.array(["2020-01-01"], "M8[D]"), TypeError, "X has dtype datetime64"),
        (np.zeros(2, [("a", "f8")]), TypeError, "X has dtype"),
        (np.ma.masked_array([1.0, 2.0], [0, 1]), TypeError, "X is a masked array; fill or drop"),
        (scipy.sparse.csr_array(np.eye(2)), TypeError, r"X is sparse \(csr_array\).*X.toarray\(\)"),
        ([[1.0], [1.0, 2.0]], ValueError, "X cannot be made an array, its parts differ in shape"),
    ],
)
def test_real_refuses(bad, error, message):
    with pytest.raises(error, match=message):
        arrays.real(bad, "X")


@pytest.mark.parametrize(
    ("X", "Y", "message"),
    [
        (np.ones(3), None, r"X has shape \(3,\); it must be 2-D \(one row: X.reshape\(1, -1\)"),
        (np.ones((2, 3)), np.ones((2, 3, 1)), r"Y has shape \(2, 3, 1\); it must be 2-D"),
        (np.ones((2, 3)), np.ones((2, 4)), "Y has 4 columns, X has 3; they must be equal"),
    ],
)
def test_pair_refuses_shapes(X, Y, message):
    with pytest.raises(ValueError, match=message):
        distances_arguments.pair(X, Y)


def test_result_dtype_holds_the_largest_distance():
    for metric, squared, columns, dtype in (
        ("l1", False, 8_421_504, "int32"),
        ("linf", False, 10**9, "int32"),
        ("l2", True, 33_025, "int32"),
        ("l2", True, 33_026, "int64"),
        ("l2", False, 33_026, "float32"),
    ):
        found = distances_arguments.result_dtype(metric, U8, columns, squared)
        assert found == dtype
        if found.kind == "i" and metric != "linf":
            assert columns * 255 ** (1 + squared) <= np.iinfo(found).max
    assert distances_arguments.result_dtype("l1", F32, 10**9) == F32
    with pytest.raises(ValueError, match="X has 8421505 columns; uint8 L1 distances are int32"):
        distances_arguments.result_dtype("l1", U8, 8_421_505)


def test_out_is_checked_property_by_property():
    good = np.empty((2, 3), np.float32)
    assert arrays.out(good, (2, 3), F32, np.ones(6)) is good
    assert arrays.out(None, (2, 3), F32).shape == (2, 3)
    read_only = np.empty((2, 3), np.float32)
    read_only.setflags(write=False)
    for bad, message in (
        (np.empty((3, 2), np.float32), r"out has shape \(3, 2\); the result has shape \(2, 3\)"),
        (np.empty((2, 3)), "out has dtype float64; the result has dtype float32"),
        (np.empty((2, 3), ">f4"), "out has dtype >f4"),
        (np.empty((3, 2), np.float32).T, "out is not C-contiguous"),
        (unaligned(np.ones((2, 3), np.float32)), "out is not aligned"),
        (read_only, "out is read-only"),
    ):
        with pytest.raises(ValueError, match=message):
            arrays.out(bad, (2, 3), F32)
    with pytest.raises(TypeError, match="out is a list; it must be a NumPy array"):
        arrays.out([[0.0]], (1, 1), F32)


def test_out_must_not_overlap_but_may_lie_between():
    memory = np.zeros(20, np.float32)
    out = memory[4:8].reshape(2, 2)
    for overlapping in (memory, memory[7:9], memory[::2]):
        with pytest.raises(ValueError, match="out overlaps with an input"):
            arrays.out(out, (2, 2), F32, np.ones(3), overlapping)
    assert arrays.out(out, (2, 2), F32, memory[:4], memory[8:], [[1.0]]) is out
    single = memory[5:6].reshape(1, 1)
    assert arrays.out(single, (1, 1), F32, memory[::2]) is single  # in a gap of a strided input


# -- scalars ---------------------------------------------------------------------------------------


def test_metric_knows_the_aliases():
    for name, short in (
        *((n, "l1") for n in ("l1", "manhattan", "cityblock")),
        *((n, "l2") for n in ("l2", "euclidean")),
        *((n, "linf") for n in ("linf", "chebyshev")),
    ):
        assert distances_arguments.metric(name) == short
    with pytest.raises(ValueError, match="metric is 'canberra'; it must be one of 'l1', 'manhattan'"):
        distances_arguments.metric("canberra")
    with pytest.raises(TypeError, match="metric is a int; it must be a str"):
        distances_arguments.metric(2)


def test_k_lies_between_one_and_the_candidates():
    assert distances_arguments.k(np.int8(3), 3, False) == 3
    assert distances_arguments.k(2, 3, True) == 2
    for k, m, exclude_self, error, message in (
        (0, 3, False, ValueError, "k is 0; it must lie between 1 and 3, the number of rows of Y"),
        (4, 3, False, ValueError, "k is 4; it must lie between 1 and 3"),
        (1, 0, False, ValueError, "Y has 0 rows; it must have at least 1$"),
        (1, 0, True, ValueError, "Y has 0 rows; it must have at least 2, since with exclude_self each query leaves"),
        (1, 1, True, ValueError, "Y has 1 row; it must have at least 2"),
        (3, 3, True, ValueError, "k is 3; with exclude_self it must lie between 1 and 2"),
        (2.0, 3, False, TypeError, r"k is 2.0 \(float\); it must be an integer"),
        (True, 3, False, TypeError, r"k is True \(bool\)"),
        ("2", 3, False, TypeError, r"k is '2' \(str\)"),
    ):
        with pytest.raises(error, match=message):
            distances_arguments.k(k, m, exclude_self)


def test_scalars_are_cast_and_checked():
    for value in (1.5, np.float32(1.5), Fraction(3, 2), np.array(1.5), np.longdouble(1.5)):
        for dtype in (F32, F64):
            got = scalars.scalar(value, "b", dtype)
            assert type(got) is dtype.type
            assert got == 1.5
    assert scalars.scalar(2, "b", F32) == 2
    assert math.isnan(scalars.scalar(math.nan, "b"))
    assert scalars.scalar(-1e300, "b", F32) == -math.inf
    assert scalars.scalar(float(np.finfo(np.float32).max), "b", F32) == np.finfo(np.float32).max
    for bad, error, message in (
        ("1", TypeError, r"b is '1' \(str\); it must be a real number"),
        (1j, TypeError, "b is 1j"),
        (True, TypeError, "b is True"),
        (None, TypeError, "b is None"),
        (np.ones(1), ValueError, r"b has shape \(1,\); it must be a single number"),
        (np.array("x"), TypeError, "b is 'x'"),
        (10**400, ValueError, "b is an integer beyond the range of float64"),
    ):
        with pytest.raises(error, match=message):
            scalars.scalar(bad, "b")


@pytest.mark.parametrize("bad", [0, -1.0, math.inf, math.nan, 1e-50])
def test_delta_is_positive_and_finite_in_the_dtype_used(bad):
    with pytest.raises(ValueError, match=r"delta is .*; it must be positive and finite as float32"):
        scalars.checked_delta(bad, F32)
    assert scalars.checked_delta(1e-50, F64) == 1e-50


@pytest.mark.parametrize("bad", [-1e-9, math.inf, math.nan])
def test_l2_is_finite_and_not_negative(bad):
    with pytest.raises(ValueError, match=r"l2 is .*; it must be finite as float64 and not negative"):
        scalars.checked_l2(bad, F64)
    assert scalars.checked_l2(0, F64) == 0


# -- targets and weights ---------------------------------------------------------------------------


def test_targets_take_the_dtype_of_the_scores():
    for y in ([0, 1], [False, True], np.array([0, 1], np.uint8), np.array([0, 1.0])):
        z, t = losses_arguments.scores_and_target(np.zeros(2, np.float16), y, "probability", "t")
        assert z.dtype == t.dtype == F32
        assert t.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("z", "y", "target", "error", "message"),
    [
        ([], [], "real", ValueError, "z has 0 entries; a mean needs at least one"),
        ([[0.0]], [0.0], "real", ValueError, r"z has shape \(1, 1\); it must be 1-D"),
        ([0.0, 1.0], [[0.0], [1.0]], "real", ValueError, r"y has shape \(2, 1\); it must be 1-D"),
        ([0.0] * 7, [0.0] * 5, "real", ValueError, "y has 5 entries, z has 7 entries; they must be equal"),
        ([0.0, 0.0], [1.0, 1.5], "probability", ValueError, r"y\[1\] is 1.5; probabilities in \[0, 1\] are needed"),
        ([0.0, 0.0], [math.nan, 1], "probability", ValueError, r"y\[0\] is nan"),
        ([0.0, 0.0], [-1, 0], "sign", ValueError, r"y\[1\] is 0; labels -1 and \+1 are needed"),
        ([0.0, 0.0], [1, math.nan], "sign", ValueError, r"y\[1\] is nan"),
        ([0.0], [1j], "real", TypeError, "y has dtype complex128"),
        ([0.0], ["1"], "sign", TypeError, "y has dtype <U1"),
    ],
)
def test_scores_and_target_refuse(z, y, target, error, message):
    with pytest.raises(error, match=message):
        losses_arguments.scores_and_target(z, y, target)


def test_regression_targets_may_be_nan_or_infinite():
    _, y = losses_arguments.scores_and_target([0.0, 0.0], [math.nan, math.inf], "real")
    np.testing.assert_array_equal(y, [math.nan, math.inf])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i4"])
def test_class_indices_of_any_integer_width(dtype):
    _, y = losses_arguments.class_targets(np.zeros((2, 3)), np.array([2, 0], dtype))
    assert y.dtype == np.intp
    assert y.tolist() == [2, 0]


def test_class_indices_may_be_bool():
    _, y = losses_arguments.class_targets(np.zeros((2, 2)), np.array([True, False]))
    assert (y.dtype, y.tolist()) == (np.intp, [1, 0])
    with pytest.raises(ValueError, match=r"y\[1\] is True; class indices must lie in 0..0"):
        losses_arguments.class_targets(np.zeros((2, 1)), [False, True])


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([0, 3], ValueError, r"y\[1\] is 3; class indices must lie in 0..2, there are 3 classes"),
        ([-1, 0], ValueError, r"y\[0\] is -1"),
        (np.array([0, 2**63 + 1], np.uint64), ValueError, r"y\[1\] is 9223372036854775809"),
        ([0.0, 1.0], TypeError, r"y has dtype float64; class indices must be integers \(y.astype\(np.intp\)\)"),
        (["a", "b"], TypeError, "y has dtype <U1.*class indices must be integers"),
        ([0, 1, 2], ValueError, "y has 3 entries, Z has 2 rows; they must be equal"),
        ([[0, 1, 0]] * 2, ValueError, r"y has shape \(2, 3\); 1-D class indices are needed"),
    ],
)
def test_class_targets_refuse(y, error, message):
    with pytest.raises(error, match=message):
        losses_arguments.class_targets(np.zeros((2, 3)), y)


def test_probabilities_are_taken_as_they_are():
    given = np.array([[0.25, 0.75], [1, 0]])
    for y in (given, given.astype(np.float32), given.tolist()):
        Z, T = losses_arguments.class_targets(np.zeros((2, 2), np.float32), y, probabilities=True)
        assert Z.dtype == T.dtype == F32
        np.testing.assert_array_equal(T, given)
    nearly = given * 1.0009
    np.testing.assert_array_equal(
        losses_arguments.class_targets(np.zeros((2, 2)), nearly, probabilities=True)[1], nearly
    )
    one_hot = np.array([[0, 1], [1, 0]])  # of integers or bool: the same thing
    for y in (one_hot, one_hot.astype(bool)):
        assert losses_arguments.class_targets(np.zeros((2, 2)), y, probabilities=True)[1].tolist() == one_hot.tolist()


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([[0.5, 0.5]], ValueError, "y has 1 rows, Z has 2 rows"),
        ([[1.0], [1.0]], ValueError, "y has 1 columns, there are 2 classes"),
        ([[1.0, 0.0], [1.5, -0.5]], ValueError, r"y\[1, 1\] is -0.5; target probabilities must not be negative or NaN"),
        ([[1.0, math.nan], [1.0, 0.0]], ValueError, r"y\[0, 1\] is nan"),
        ([[1.0, 0.0], [0.5, 0.4]], ValueError, r"y\[1\] sums to 0.9; .* must sum to 1 within 0.001"),
        ([[1.0, 0.0], [0.5, 0.498]], ValueError, r"y\[1\] sums to 0.998"),
        ([[1.0, 0.0], [math.inf, 0.0]], ValueError, r"y\[1\] sums to inf"),
        ([0.0, 1.0], TypeError, r"must be integers .*, or give target probabilities of shape \(2, 2\)"),
        (np.zeros((2, 2, 1), int), ValueError, r"1-D class indices or target probabilities \(2, 2\) are needed"),
    ],
)
def test_probabilities_refused(y, error, message):
    with pytest.raises(error, match=message):
        losses_arguments.class_targets(np.zeros((2, 2)), y, probabilities=True)


def test_weights_are_cast_and_summed():
    assert targets.weights(None, 7, F32) == (None, 7.0)
    w, total = targets.weights([1, 0, 2], 3, F32)
    assert w is not None
    assert w.dtype == F32
    assert (w.tolist(), total) == ([1, 0, 2], 3.0)
    assert type(total) is float


@pytest.mark.parametrize(
    ("weights", "dtype", "message"),
    [
        ([1, 2], F32, r"sample_weight has shape \(2,\); it must be \(3,\), one weight for each row"),
        ([[1], [1], [1]], F32, r"sample_weight has shape \(3, 1\)"),
        (1.0, F32, r"sample_weight has shape \(\)"),
        ([1, -1, 1], F32, r"sample_weight\[1\] is -1; weights must be finite as float32 and not negative"),
        ([1, 1, math.nan], F64, r"sample_weight\[2\] is nan"),
        ([1, math.inf, 1], F64, r"sample_weight\[1\] is inf"),
        ([1, 1e39, 1], F32, r"sample_weight\[1\] is 1e\+39; weights must be finite as float32"),
        ([0, 0, 0], F64, "sample_weight is zero everywhere; at least one"),
        ([1e-50, 0, 0], F32, "sample_weight is zero everywhere"),  # in float32
    ],
)
def test_weights_refuse(weights, dtype, message):
    with pytest.raises(ValueError, match=message):
        targets.weights(weights, 3, dtype)


# -- linear models ---------------------------------------------------------------------------------


def test_linear_settles_everything_to_the_dtype_of_x():
    X = np.ones((3, 2), np.float32)
    given = linear_arguments.linear("hinge", X, [1, -1, 1], np.ones(2), 1, 0.5, [1, 2, 3])
    assert given.X is X
    assert {a.dtype for a in (given.y, given.W, given.b, given.l2, given.weight)} == {F32}
    assert given.total == 6
    given = linear_arguments.linear("softmax_cross_entropy", X, [0, 1, 1], np.ones((2, 2)), np.zeros(2))
    assert (given.y.dtype, given.W.dtype, given.b.dtype) == (np.intp, F32, F32)
    assert given.weight is None
    assert linear_arguments.linear("huber", np.ones((3, 2), np.uint8), np.ones(3), np.ones(2), 0).X.dtype == F64


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"loss": "log"}, ValueError, "loss is 'log'; it must be one of 'binary_cross_entropy'"),
        ({"loss": None}, TypeError, "loss is a NoneType; it must be a str"),
        ({"X": np.ones((0, 2))}, ValueError, "X has 0 rows; a mean needs at least one"),
        ({"X": np.ones(2)}, ValueError, r"X has shape \(2,\); it must be 2-D"),
        ({"W": np.ones(3)}, ValueError, r"W has shape \(3,\); hinge needs \(2,\), X has 2 columns"),
        ({"W": np.ones((1, 2))}, ValueError, r"W has shape \(1, 2\); hinge needs \(2,\)"),
        ({"W": ["a", "b"]}, TypeError, "W has dtype <U1"),
        ({"b": [0.0]}, TypeError, r"b is \[0.0\] \(list\); it must be a real number"),
        ({"b": np.zeros(1)}, ValueError, r"b has shape \(1,\); it must be a single number"),
        ({"y": [1, -1]}, ValueError, "y has 2 entries, X has 3 rows; they must be equal"),
        ({"y": [1, -1, 0]}, ValueError, r"y\[2\] is 0; labels -1 and \+1"),
        ({"l2": -1}, ValueError, "l2 is -1"),
        ({"sample_weight": [0, 0, 0]}, ValueError, "sample_weight is zero everywhere"),
        ({"loss": "multiclass_hinge"}, ValueError, r"W has shape \(2,\); multiclass_hinge needs \(C, 2\)"),
        (
            {"loss": "multiclass_hinge", "W": np.ones((4, 2))},
            ValueError,
            r"b has shape \(\); it must be \(4,\), W has 4 rows",
        ),
        (
            {"loss": "multiclass_hinge", "W": np.ones((4, 2)), "b": np.zeros(4), "y": [0, 4, 1]},
            ValueError,
            r"y\[1\] is 4; class indices must lie in 0..3",
        ),
    ],
)
def test_linear_refuses(change, error, message):
    arguments = {"loss": "hinge", "X": np.ones((3, 2)), "y": [1, -1, 1], "W": np.ones(2), "b": 0.0} | change
    with pytest.raises(error, match=message):
        linear_arguments.linear(**arguments)
