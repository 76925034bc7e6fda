"""Bad arguments raise, in every tier alike, an error that names the argument, what came and what is needed.

Each case lists parts of the message. All of them must be there: a case whose message loses the
offending value or the requirement fails.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from fastml.kernels.distances import arguments as distances_arguments

METRICS = tuple(distances_arguments.METRICS)
ELEMENTWISE = ("exp", "sigmoid", "softplus")
SOFTMAX_FAMILY = ("softmax", "log_softmax", "logsumexp")
BINARY = ("binary_cross_entropy", "hinge", "squared_hinge")
REGRESSION = ("squared_error", "absolute_error", "huber", "poisson")
MULTICLASS = ("softmax_cross_entropy", "multiclass_hinge")
LOSSES = BINARY + REGRESSION + MULTICLASS

X35, X45 = np.ones((3, 5)), np.ones((4, 5))
Z34 = np.arange(12.0).reshape(3, 4)


def refuses(function, args, kwargs, error: type[Exception], *parts: str) -> None:
    """Assert that a call raises exactly this class, with a message of one line that has all the parts."""
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert caught.type is error, f"{caught.type} is not exactly {error}: {message}"
    missing = [part for part in parts if part not in message]
    assert not missing, f"{missing} not in {message!r}"
    assert "\n" not in message


def target_name(loss: str) -> str:
    return "t" if loss == "binary_cross_entropy" else "y"


def good(loss: str, n: int = 3) -> tuple[np.ndarray, np.ndarray]:
    if loss in MULTICLASS:
        return np.arange(4.0 * n).reshape(n, 4), np.arange(n) % 4
    return np.linspace(-1, 2, n), np.ones(n)


def both(ops: ModuleType, loss: str):
    """The loss and its gradient function: both check alike."""
    return getattr(ops, loss), getattr(ops, f"{loss}_gradient")


def linear(loss: str, **changes):
    """Arguments of linear_loss_gradient: X (3, 5), and what is given in `changes` instead of good values."""
    _, y = good(loss)
    multiclass = loss in MULTICLASS
    arguments = {
        "X": X35,
        "y": y,
        "W": np.ones((4, 5)) if multiclass else np.ones(5),
        "b": np.zeros(4) if multiclass else 0.0,
        **changes,
    }
    return (loss, *(arguments.pop(name) for name in ("X", "y", "W", "b"))), arguments


# ---------------------------------------------------------------------------------------------------------------
# Distances
# ---------------------------------------------------------------------------------------------------------------

BAD_PAIRS = {
    "columns": ((X35, np.ones((4, 6))), ValueError, ("Y", "6 columns", "X", "5")),
    "X-1-D": ((np.ones(5), X45), ValueError, ("X", "(5,)", "2-D")),
    "Y-1-D": ((X35, np.ones(5)), ValueError, ("Y", "(5,)", "2-D")),
    "X-3-D": ((np.ones((2, 3, 5)), X45), ValueError, ("X", "(2, 3, 5)", "2-D")),
    "Y-3-D": ((X35, np.ones((2, 3, 5))), ValueError, ("Y", "(2, 3, 5)", "2-D")),
    "X-0-D": ((np.array(1.0), X45), ValueError, ("X", "()", "2-D")),
    "X-complex": ((X35.astype(complex), X45), TypeError, ("X", "complex128", "real")),
    "Y-complex": ((X35, X45.astype(np.complex64)), TypeError, ("Y", "complex64", "real")),
    "X-str": ((np.array([["a", "b"]]), X45), TypeError, ("X", "<U1", "real")),
    "X-number-as-str": (([["1", "2"]], X45), TypeError, ("X", "<U1", "real")),
    "Y-bytes": ((X35, np.array([[b"1"] * 5])), TypeError, ("Y", "|S1", "real")),
    "X-object": ((np.array([[1, None]]), X45), TypeError, ("X", "object", "real")),
    "X-big-ints": (([[2**70] * 5], X45), TypeError, ("X", "object", "real")),
    "X-dates": ((np.zeros((3, 5), "M8[s]"), X45), TypeError, ("X", "datetime64", "real")),
    "X-durations": ((np.zeros((3, 5), "m8[s]"), X45), TypeError, ("X", "timedelta64", "real")),
    "X-records": ((np.zeros((3, 5), [("a", "f8")]), X45), TypeError, ("X", "'a'", "real")),
    "X-None": ((None, X45), TypeError, ("X", "object", "real")),
    "X-ragged": (([[1.0], [1.0, 2.0]], X45), ValueError, ("X", "shape")),
    "X-dict": (({"a": 1}, X45), TypeError, ("X", "object", "real")),
}


@pytest.mark.parametrize("case", BAD_PAIRS)
@pytest.mark.parametrize("metric", METRICS)
def test_pairs(ops, metric, case):
    args, error, parts = BAD_PAIRS[case]
    refuses(getattr(ops, f"pairwise_{metric}"), args, {}, error, *parts)
    refuses(ops.k_nearest, (*args, 1), {"metric": metric}, error, *parts)


@pytest.mark.parametrize("metric", METRICS)
def test_sparse_and_masked_input(ops, metric):
    scipy_sparse = pytest.importorskip("scipy.sparse")
    sparse = scipy_sparse.csr_array(X35)
    refuses(getattr(ops, f"pairwise_{metric}"), (sparse, X45), {}, TypeError, "X", "sparse", "dense")
    masked = np.ma.masked_array(X45, X45 > 2)
    refuses(getattr(ops, f"pairwise_{metric}"), (X35, masked), {}, TypeError, "Y", "masked")


BAD_OUT = {
    "shape": (lambda: np.empty((4, 3)), ValueError, ("out", "(4, 3)", "(3, 4)")),
    "1-D": (lambda: np.empty(12), ValueError, ("out", "(12,)", "(3, 4)")),
    "too-large": (lambda: np.empty((3, 5)), ValueError, ("out", "(3, 5)", "(3, 4)")),
    "float32": (lambda: np.empty((3, 4), np.float32), ValueError, ("out", "float32", "float64")),
    "int64": (lambda: np.empty((3, 4), np.int64), ValueError, ("out", "int64", "float64")),
    "byte-order": (lambda: np.empty((3, 4), ">f8"), ValueError, ("out", ">f8", "float64")),
    "F-order": (lambda: np.empty((3, 4), order="F"), ValueError, ("out", "C-contiguous")),
    "strided": (lambda: np.empty((3, 8))[:, ::2], ValueError, ("out", "C-contiguous")),
    "reversed": (lambda: np.empty((3, 4))[::-1], ValueError, ("out", "C-contiguous")),
    "stride-0": (lambda: np.broadcast_to(np.empty(4), (3, 4)), ValueError, ("out", "C-contiguous")),
    "unaligned": (lambda: np.zeros(97, np.uint8)[1:].view("f8").reshape(3, 4), ValueError, ("out", "aligned")),
    "read-only": (lambda: np.frombuffer(bytes(96)).reshape(3, 4), ValueError, ("out", "read-only")),
    "list": (lambda: [[0.0] * 4] * 3, TypeError, ("out", "list", "array")),
}


@pytest.mark.parametrize("case", BAD_OUT)
@pytest.mark.parametrize("metric", METRICS)
def test_out(ops, metric, case):
    make, error, parts = BAD_OUT[case]
    refuses(getattr(ops, f"pairwise_{metric}"), (X35, X45), {"out": make()}, error, *parts)


@pytest.mark.parametrize("metric", METRICS)
def test_out_that_overlaps(ops, metric):
    pairwise = getattr(ops, f"pairwise_{metric}")
    buffer = np.zeros(60)
    X, Y = buffer[:15].reshape(3, 5), buffer[15:35].reshape(4, 5)
    before = buffer.copy()
    for start in (0, 14, 15, 34):
        out = buffer[start : start + 12].reshape(3, 4)
        refuses(pairwise, (X, Y), {"out": out}, ValueError, "out", "overlap")
    # Also where the argument is copied first: the caller's memory counts, not the copy's.
    refuses(pairwise, (X[:, ::-1], Y), {"out": buffer[:12].reshape(3, 4)}, ValueError, "out", "overlap")
    square = np.zeros((5, 5))
    refuses(pairwise, (square,), {"out": square}, ValueError, "out", "overlap")
    assert (buffer == before).all(), "a refused call must not write"


def test_out_of_uint8_distances(ops):
    X, Y = X35.astype(np.uint8), X45.astype(np.uint8)
    for name, kwargs, needed in (
        ("pairwise_l1", {}, "int32"),
        ("pairwise_linf", {}, "int32"),
        ("pairwise_l2", {}, "float32"),
        ("pairwise_l2", {"squared": True}, "int32"),
    ):
        out = np.empty((3, 4), np.uint8)
        refuses(getattr(ops, name), (X, Y), {"out": out, **kwargs}, ValueError, "out", "uint8", needed)
        wide = np.empty((3, 4), np.int64)
        refuses(getattr(ops, name), (X, Y), {"out": wide, **kwargs}, ValueError, "out", "int64", needed)


def test_options_are_keywords(ops):
    for call in (
        lambda: ops.pairwise_l1(X35, X45, np.empty((3, 4))),
        lambda: ops.pairwise_l2(X35, X45, True),
        lambda: ops.k_nearest(X35, X45, 1, "l2"),
        lambda: ops.hinge(np.ones(2), np.ones(2), np.ones(2)),
        lambda: ops.huber(np.ones(2), np.ones(2), 1.0),
        lambda: ops.linear_loss_gradient("huber", X35, np.ones(3), np.ones(5), 0.0, 0.1),
    ):
        with pytest.raises(TypeError, match="positional"):
            call()


@pytest.mark.parametrize("value", ["yes", 1, None, 0.0])
def test_flags(ops, value):
    refuses(ops.pairwise_l2, (X35, X45), {"squared": value}, TypeError, "squared", repr(value), "True or False")
    refuses(ops.k_nearest, (X35, X35, 1), {"exclude_self": value}, TypeError, "exclude_self", "True or False")


# ---------------------------------------------------------------------------------------------------------------
# k_nearest
# ---------------------------------------------------------------------------------------------------------------

BAD_K = {
    "0": (0, ValueError, ("k is 0", "between 1 and 4")),
    "negative": (-3, ValueError, ("k is -3", "between 1 and 4")),
    "too-large": (5, ValueError, ("k is 5", "between 1 and 4")),
    "huge": (2**70, ValueError, ("k is", "between 1 and 4")),
    "float": (2.0, TypeError, ("k is 2.0", "integer")),
    "str": ("2", TypeError, ("k is '2'", "integer")),
    "None": (None, TypeError, ("k is None", "integer")),
    "bool": (True, TypeError, ("k is True", "integer")),
    "array": (np.array([1]), TypeError, ("k is", "integer")),
}


@pytest.mark.parametrize("case", BAD_K)
@pytest.mark.parametrize("metric", METRICS)
def test_k(ops, metric, case):
    k, error, parts = BAD_K[case]
    refuses(ops.k_nearest, (X35, X45, k), {"metric": metric}, error, *parts)


def test_k_against_no_rows(ops):
    refuses(ops.k_nearest, (X35, X45[:0], 1), {}, ValueError, "Y has 0 rows", "at least 1")


def test_exclude_self(ops):
    options = {"exclude_self": True}
    refuses(ops.k_nearest, (X35, X45, 1), options, ValueError, "exclude_self", "4", "3")
    refuses(ops.k_nearest, (X35, X35, 3), options, ValueError, "k is 3", "exclude_self", "2")
    refuses(ops.k_nearest, (X35, X35, 0), options, ValueError, "k is 0", "exclude_self", "2")
    refuses(ops.k_nearest, (X35[:1], X35[:1], 1), options, ValueError, "Y has 1 row", "at least 2", "exclude_self")


@pytest.mark.parametrize("name", ["canberra", "L2", "", "minkowski", "l2 "])
def test_unknown_metric(ops, name):
    refuses(ops.k_nearest, (X35, X45, 1), {"metric": name}, ValueError, "metric", repr(name), "'l1'", "'chebyshev'")


@pytest.mark.parametrize("value", [2, None, np.inf, ["l2"], b"l2"])
def test_metric_that_is_no_str(ops, value):
    refuses(ops.k_nearest, (X35, X45, 1), {"metric": value}, TypeError, "metric", type(value).__name__, "str")


# ---------------------------------------------------------------------------------------------------------------
# exp and the softmax family
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ELEMENTWISE, *SOFTMAX_FAMILY])
def test_dtypes_of_functions(ops, name):
    argument = {"exp": "x", "sigmoid": "z", "softplus": "z"}.get(name, "Z")
    function = getattr(ops, name)
    for bad, dtype in (
        (np.ones((2, 2), complex), "complex128"),
        (np.array([["a"]]), "<U1"),
        (np.array([[None]]), "object"),
        ([["1.5"]], "<U3"),
    ):
        refuses(function, (bad,), {}, TypeError, argument, dtype, "real")


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
@pytest.mark.parametrize("name", SOFTMAX_FAMILY)
def test_softmax_family_is_2_d(ops, name, shape):
    refuses(getattr(ops, name), (np.ones(shape),), {}, ValueError, "Z", str(shape), "2-D")


# ---------------------------------------------------------------------------------------------------------------
# Losses
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_target_of_another_length(ops, loss):
    z, y = good(loss)
    scores = "Z" if loss in MULTICLASS else "z"
    for function in both(ops, loss):
        refuses(function, (z, y[:2]), {}, ValueError, f"{target_name(loss)} has 2 entries", f"{scores} has 3")
        refuses(function, (z[:2], y), {}, ValueError, f"{target_name(loss)} has 3 entries", f"{scores} has 2")
    args, kwargs = linear(loss, y=y[:2])
    refuses(ops.linear_loss_gradient, args, kwargs, ValueError, "y has 2 entries", "X has 3 rows")


@pytest.mark.parametrize("loss", LOSSES)
def test_no_rows(ops, loss):
    z, y = good(loss, 0)
    for function in both(ops, loss):
        refuses(function, (z, y), {}, ValueError, "Z" if loss in MULTICLASS else "z", " 0 ", "at least one")
    args, kwargs = linear(loss, X=X35[:0], y=y)
    refuses(ops.linear_loss_gradient, args, kwargs, ValueError, "X has 0 rows", "at least one")


@pytest.mark.parametrize("loss", BINARY + REGRESSION)
def test_shapes_of_scores_and_targets(ops, loss):
    z, y = good(loss)
    for function in both(ops, loss):
        refuses(function, (z[:, None], y), {}, ValueError, "z", "(3, 1)", "1-D")
        refuses(function, (z, y[:, None]), {}, ValueError, target_name(loss), "(3, 1)", "1-D")
        refuses(function, (z[0], y[0]), {}, ValueError, "z", "()", "1-D")


@pytest.mark.parametrize("loss", MULTICLASS)
def test_shapes_of_class_scores_and_targets(ops, loss):
    Z, y = good(loss)
    for function in both(ops, loss):
        refuses(function, (Z[0], y), {}, ValueError, "Z", "(4,)", "2-D")
        refuses(function, (Z[None], y), {}, ValueError, "Z", "(1, 3, 4)", "2-D")
        refuses(function, (Z, np.zeros((3, 4, 1), int)), {}, ValueError, "y", "(3, 4, 1)", "1-D")


def test_target_probabilities(ops):
    P = np.full((3, 4), 0.25)
    for function in both(ops, "softmax_cross_entropy"):
        refuses(function, (Z34, P[:2]), {}, ValueError, "y has 2 rows", "Z has 3 rows")
        refuses(function, (Z34, P[:, :3]), {}, ValueError, "y has 3 columns", "4 classes")
        refuses(function, (Z34, P * 2), {}, ValueError, "y[0]", "2.0", "sum to 1")
        negative = P.copy()
        negative[1, 2], negative[1, 3] = -0.25, 0.75
        refuses(function, (Z34, negative), {}, ValueError, "y[1, 2]", "-0.25", "negative")
        missing = P.copy()
        missing[2, 0] = np.nan
        refuses(function, (Z34, missing), {}, ValueError, "y[2, 0]", "nan")
    for function in both(ops, "multiclass_hinge"):
        with pytest.raises((TypeError, ValueError), match="y has"):
            function(Z34, P)


@pytest.mark.parametrize("loss", MULTICLASS)
def test_class_indices_out_of_range(ops, loss):
    for function in both(ops, loss):
        refuses(function, (Z34, np.array([0, 4, 1])), {}, ValueError, "y[1] is 4", "0..3")
        refuses(function, (Z34, np.array([0, 1, -1])), {}, ValueError, "y[2] is -1", "0..3")
        refuses(function, (Z34, np.array([2**63, 1, 0], np.uint64)), {}, ValueError, "y[0] is 9223372036854775808")
    args, kwargs = linear(loss, y=np.array([0, 4, 1]))
    refuses(ops.linear_loss_gradient, args, kwargs, ValueError, "y[1] is 4", "0..3")


@pytest.mark.parametrize("loss", MULTICLASS)
def test_class_indices_of_the_wrong_type(ops, loss):
    for function in both(ops, loss):
        refuses(function, (Z34, np.array([0.0, 1.0, 2.0])), {}, TypeError, "y", "float64", "integers")
        refuses(function, (Z34, ["a", "b", "c"]), {}, TypeError, "y", "<U1", "integers")
        refuses(function, (Z34, np.array([0, 1, 2], complex)), {}, TypeError, "y", "complex128", "integers")
        refuses(function, (Z34, np.array([0, 1, None])), {}, TypeError, "y", "object", "integers")
    args, kwargs = linear(loss, y=np.ones(3))
    refuses(ops.linear_loss_gradient, args, kwargs, TypeError, "y", "float64", "integers")


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
@pytest.mark.parametrize("value", [0.0, 2.0, 0.5, np.nan, np.inf])
def test_hinge_labels(ops, loss, value):
    y = np.array([1.0, value, -1.0])
    for function in both(ops, loss):
        refuses(function, (np.ones(3), y), {}, ValueError, f"y[1] is {value}", "-1 and +1")
    args, kwargs = linear(loss, y=y)
    refuses(ops.linear_loss_gradient, args, kwargs, ValueError, f"y[1] is {value}", "-1 and +1")


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan, -np.inf])
def test_binary_targets(ops, value):
    t = np.array([1.0, 0.0, value])
    for function in both(ops, "binary_cross_entropy"):
        refuses(function, (np.ones(3), t), {}, ValueError, f"t[2] is {value}", "[0, 1]")
    args, kwargs = linear("binary_cross_entropy", y=t)
    refuses(ops.linear_loss_gradient, args, kwargs, ValueError, f"y[2] is {value}", "[0, 1]")


@pytest.mark.parametrize("loss", LOSSES)
def test_dtypes_of_scores_and_targets(ops, loss):
    z, y = good(loss)
    scores = "Z" if loss in MULTICLASS else "z"
    for function in both(ops, loss):
        refuses(function, (z.astype(complex), y), {}, TypeError, scores, "complex128", "real")
        refuses(function, (z.astype(str), y), {}, TypeError, scores, "<U", "real")
        refuses(function, (z.astype(object), y), {}, TypeError, scores, "object", "real")
        refuses(function, (z, y.astype(complex)), {}, TypeError, target_name(loss), "complex128")
        refuses(function, (z, y.astype(str)), {}, TypeError, target_name(loss), "<U")


BAD_WEIGHTS = {
    "length": (np.ones(2), ValueError, ("(2,)", "(3,)")),
    "2-D": (np.ones((3, 1)), ValueError, ("(3, 1)", "(3,)")),
    "scalar": (1.0, ValueError, ("()", "(3,)")),
    "negative": (np.array([1, -0.5, 1]), ValueError, ("sample_weight[1] is -0.5", "negative")),
    "NaN": (np.array([1, 1, np.nan]), ValueError, ("sample_weight[2] is nan", "finite")),
    "infinite": (np.array([np.inf, 1, 1]), ValueError, ("sample_weight[0] is inf", "finite")),
    "zero": (np.zeros(3), ValueError, ("zero", "positive")),
    "complex": (np.ones(3, complex), TypeError, ("complex128", "real")),
    "str": (["1", "2", "3"], TypeError, ("<U1", "real")),
    "object": (np.array([1, None, 2]), TypeError, ("object", "real")),
    "name": ("balanced", TypeError, ("real",)),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
@pytest.mark.parametrize("loss", LOSSES)
def test_sample_weight(ops, loss, case):
    weight, error, parts = BAD_WEIGHTS[case]
    for function in both(ops, loss):
        refuses(function, good(loss), {"sample_weight": weight}, error, "sample_weight", *parts)
    args, kwargs = linear(loss, sample_weight=weight)
    refuses(ops.linear_loss_gradient, args, kwargs, error, "sample_weight", *parts)


@pytest.mark.parametrize("delta", [0, 0.0, -1.0, np.nan, np.inf])
def test_delta(ops, delta):
    for function in both(ops, "huber"):
        refuses(function, good("huber"), {"delta": delta}, ValueError, "delta", repr(delta), "positive")


@pytest.mark.parametrize("delta", ["1", None, 1j, [1.0]])
def test_delta_that_is_no_number(ops, delta):
    for function in both(ops, "huber"):
        refuses(function, good("huber"), {"delta": delta}, TypeError, "delta", repr(delta), "number")


# ---------------------------------------------------------------------------------------------------------------
# linear_loss_gradient
# ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["log_loss", "Hinge", "", "squared", "pairwise_l1", "hinge_gradient"])
def test_unknown_loss(ops, loss):
    args = (loss, X35, np.ones(3), np.ones(5), 0.0)
    refuses(ops.linear_loss_gradient, args, {}, ValueError, "loss", repr(loss), "'hinge'", "'huber'")


@pytest.mark.parametrize("loss", [None, 1, len, b"hinge"])
def test_loss_that_is_no_str(ops, loss):
    args = (loss, X35, np.ones(3), np.ones(5), 0.0)
    refuses(ops.linear_loss_gradient, args, {}, TypeError, "loss", type(loss).__name__, "str")


@pytest.mark.parametrize("loss", BINARY + REGRESSION)
def test_shapes_of_W_and_b(ops, loss):
    for changes, parts in (
        ({"W": np.ones(4)}, ("W", "(4,)", "(5,)", "5 columns")),
        ({"W": np.ones((1, 5))}, ("W", "(1, 5)", "(5,)")),
        ({"W": np.ones((5, 1))}, ("W", "(5, 1)", "(5,)")),
        ({"b": np.zeros(1)}, ("b", "(1,)", "single number")),
        ({"b": np.zeros(3)}, ("b", "(3,)", "single number")),
        ({"X": np.ones(5)}, ("X", "(5,)", "2-D")),
        ({"X": np.ones((1, 3, 5))}, ("X", "(1, 3, 5)", "2-D")),
    ):
        args, kwargs = linear(loss, **changes)
        refuses(ops.linear_loss_gradient, args, kwargs, ValueError, *parts)


@pytest.mark.parametrize("loss", MULTICLASS)
def test_shapes_of_class_W_and_b(ops, loss):
    for changes, parts in (
        ({"W": np.ones(5)}, ("W", "(5,)", "(C, 5)", "5 columns")),
        ({"W": np.ones((5, 4))}, ("W", "(5, 4)", "(C, 5)")),
        ({"b": 0.0}, ("b", "()", "(4,)", "4 rows")),
        ({"b": np.zeros(5)}, ("b", "(5,)", "(4,)", "4 rows")),
        ({"b": np.zeros((4, 1))}, ("b", "(4, 1)", "(4,)")),
    ):
        args, kwargs = linear(loss, **changes)
        refuses(ops.linear_loss_gradient, args, kwargs, ValueError, *parts)


@pytest.mark.parametrize("loss", LOSSES)
def test_dtypes_of_linear_arguments(ops, loss):
    W = np.ones((4, 5)) if loss in MULTICLASS else np.ones(5)
    b = np.zeros(4) if loss in MULTICLASS else 0.0
    for changes, parts in (
        ({"X": X35.astype(complex)}, ("X", "complex128", "real")),
        ({"X": X35.astype(str)}, ("X", "<U", "real")),
        ({"W": W.astype(complex)}, ("W", "complex128", "real")),
        ({"W": W.astype(object)}, ("W", "object", "real")),
        ({"b": b + 1j}, ("b", "real")),
        ({"b": "0"}, ("b", "real")),
        ({"l2": 1j}, ("l2", "1j", "real")),
        ({"l2": "0.1"}, ("l2", "'0.1'", "real")),
        ({"l2": None}, ("l2", "None", "real")),
    ):
        args, kwargs = linear(loss, **changes)
        refuses(ops.linear_loss_gradient, args, kwargs, TypeError, *parts)


@pytest.mark.parametrize("l2", [-1e-9, -1.0, np.nan, np.inf])
def test_l2(ops, l2):
    args, kwargs = linear("hinge", l2=l2)
    refuses(ops.linear_loss_gradient, args, kwargs, ValueError, "l2", repr(l2), "negative")


def test_linear_target_probabilities(ops):
    args, kwargs = linear("softmax_cross_entropy", y=np.full((3, 5), 0.2))
    refuses(ops.linear_loss_gradient, args, kwargs, ValueError, "y has 5 columns", "4 classes")
    args, kwargs = linear("softmax_cross_entropy", y=np.full((2, 4), 0.25))
    refuses(ops.linear_loss_gradient, args, kwargs, ValueError, "y has 2 rows", "X has 3 rows")


# ---------------------------------------------------------------------------------------------------------------
# n_threads, in the compiled tier
# ---------------------------------------------------------------------------------------------------------------

CALLS = {
    **{f"pairwise_{metric}": (X35, X45) for metric in METRICS},
    **dict.fromkeys(("k_nearest", "radius_neighbors", "radius_counts"), (X35, X45, 1)),
    **dict.fromkeys((*ELEMENTWISE, *SOFTMAX_FAMILY), (Z34,)),
    **{name: good(loss) for loss in LOSSES for name in (loss, f"{loss}_gradient")},
    **{f"linear_loss_gradient {loss}": linear(loss)[0] for loss in LOSSES},
}


@pytest.mark.parametrize("name", CALLS)
def test_n_threads(kernel, name):
    function = kernel("compiled", name.split()[0])
    args = CALLS[name]
    for value in (0, -1):
        refuses(function, args, {"n_threads": value}, ValueError, "n_threads", str(value), "positive integer")
    for value in ("2", 2.0, [2], True):
        refuses(function, args, {"n_threads": value}, TypeError, "n_threads", repr(value), "positive integer")
    for value in (None, 1, 2, np.int64(3)):
        function(*args, n_threads=value)


@pytest.mark.parametrize("name", ["pairwise_l1", "k_nearest", "exp", "hinge", "linear_loss_gradient hinge"])
@pytest.mark.parametrize("tier", ["loops", "vectorized"])
def test_reference_tiers_have_no_n_threads(ops, name):
    with pytest.raises(TypeError, match="n_threads"):
        getattr(ops, name.split()[0])(*CALLS[name], n_threads=1)


def test_an_error_leaves_the_package_usable(ops):
    for _ in range(3):
        with pytest.raises(ValueError, match="y has 2 entries"):
            ops.hinge(np.ones(3), np.ones(2))
        assert ops.hinge(np.zeros(2), np.ones(2)) == 1


def test_the_helper_of_this_file_can_fail():
    def wrong_value(*_):
        raise ValueError("k is 7; it must lie between 1 and 4")

    refuses(wrong_value, (), {}, ValueError, "k is 7", "between 1 and 4")
    with pytest.raises(AssertionError, match="not in"):
        refuses(wrong_value, (), {}, ValueError, "k is 8")
    with pytest.raises(ValueError, match="k is 7"):
        refuses(wrong_value, (), {}, TypeError, "k is 7")
    with pytest.raises(pytest.fail.Exception):
        refuses(lambda: None, (), {}, ValueError)
