"""train_linear and linear_evaluation: the public functions, in all tiers."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastml import kernels
from fastml.kernels.linear.training import LinearTraining, linear_evaluation
from fastml.kernels.losses.table import LOSSES
from fastml.kernels.losses.table import OVER_CLASSES as MULTICLASS
from fastml.kernels.reference import vectorized
from fastml.kernels.runtime.jit import jit_enabled
from linear_problems import FLOATS, close, data, many

# ---------------------------------------------------------------------------------- public function


TRAINED = tuple(name for name, loss in LOSSES.items() if loss.in_training)


def arguments(rng, loss, dtype="float64"):
    X, y, C = data(rng, loss, 30, 5, dtype)
    W, b = (rng.normal(size=(C, 5)), rng.normal(size=C)) if loss in MULTICLASS else (rng.normal(size=5), 0.25)
    return [loss, X, y, W, b, rng.permutation(30)], {"batch_size": 8, "steps": 0.1}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", TRAINED)
def test_train_linear_is_linear_training(rng, same_bits, loss, dtype):
    args, kwargs = arguments(rng, loss, dtype)
    _, X, y, W, b, order = args
    weight = rng.uniform(0, 3, 30).astype(dtype)
    options = {"l2": 0.01, "l1": 0.002, "momentum": 0.9, "nesterov": True}
    got_W, got_b, losses = kernels.train_linear(*args, **kwargs, **options, sample_weight=weight)
    total = weight.sum(dtype=np.float64)
    models = LinearTraining(
        loss, X, y, W=np.reshape(W, (1, -1, 5)), b=np.reshape(b, (1, -1)), **options,
        sample_weight=weight * float(30 / total),
    )  # fmt: skip
    same_bits(losses, models.run(order, 8, np.full(4, 0.1))[:, 0])
    same_bits(got_W, models.W[0].copy() if loss in MULTICLASS else models.W[0, 0].copy())
    if loss in MULTICLASS:
        same_bits(got_b, models.b[0].copy())
    else:
        assert type(got_b) is float
        assert got_b == models.b[0, 0]
    assert got_W.dtype == dtype
    assert got_W.flags.owndata or got_W.base.flags.owndata


def test_a_step_for_each_batch(ops, rng):
    args, kwargs = arguments(rng, "squared_error")
    W, _, losses = ops.train_linear(*args, **{**kwargs, "steps": [0.1, 0.0, 0.1, 0.2]})
    assert losses.shape == (4,)
    same = ops.train_linear(*args, batch_size=8, steps=0.1)
    assert_allclose(losses[:2], same[2][:2])
    assert not np.allclose(losses[2:], same[2][2:])
    assert not np.allclose(W, same[0])


def test_an_order_without_rows(ops, rng):
    for loss in ("hinge", "multiclass_hinge"):
        args, kwargs = arguments(rng, loss)
        args[5] = []
        W, b, losses = ops.train_linear(*args, **kwargs)
        assert losses.shape == (0,)
        assert losses.dtype == np.float64
        np.testing.assert_array_equal(W, args[3])
        np.testing.assert_array_equal(b, args[4])
        assert W is not args[3]


def test_a_batch_larger_than_the_order(ops, rng):
    args, kwargs = arguments(rng, "squared_error")
    small, large = (ops.train_linear(*args, **{**kwargs, "batch_size": size}) for size in (30, 10**9))
    for a, b in zip(small, large, strict=True):
        np.testing.assert_array_equal(a, b)


def test_only_ratios_of_weights_matter(ops, rng):
    args, kwargs = arguments(rng, "huber")
    weight = rng.uniform(0.1, 1, 30)
    once = ops.train_linear(*args, **kwargs, sample_weight=weight)
    for scale in (1e-30, 7.0, 1e30):
        for a, b in zip(ops.train_linear(*args, **kwargs, sample_weight=weight * scale), once, strict=True):
            assert_allclose(a, b, rtol=1e-12)
    for a, b in zip(
        ops.train_linear(*args, **kwargs, sample_weight=np.full(30, 5.0)),
        ops.train_linear(*args, **kwargs),
        strict=True,
    ):
        assert_allclose(a, b, rtol=1e-12)


def test_any_layout_and_nothing_is_written_to(ops, rng, tmp_path):
    for loss in ("binary_cross_entropy", "softmax_cross_entropy"):
        args, kwargs = arguments(rng, loss)
        expected = ops.train_linear(*args, **kwargs)
        before = [np.array(a) for a in args[1:]]
        np.save(tmp_path / "X.npy", args[1])
        wide = np.zeros((30, 10))
        wide[:, ::2] = args[1]
        read_only = args[1].copy()
        read_only.setflags(write=False)
        for X in (
            np.asfortranarray(args[1]),
            wide[:, ::2],
            read_only,
            np.load(tmp_path / "X.npy", mmap_mode="r"),
            args[1].astype(">f8"),
            args[1].tolist(),
        ):
            given = [args[0], X, *args[2:]]
            for a, b in zip(ops.train_linear(*given, **kwargs), expected, strict=True):
                np.testing.assert_array_equal(a, b)
        for dtype in (np.uint8, np.int32, np.uint64):
            given = [*args[:5], args[5].astype(dtype)]
            np.testing.assert_array_equal(ops.train_linear(*given, **kwargs)[0], expected[0])
        for a, b in zip(args[1:], before, strict=True):
            np.testing.assert_array_equal(a, b)


BAD = {
    "order-1": ({"order": [0, 30]}, ValueError, ("order[1] is 30", "0..29", "30 rows")),
    "order-negative": ({"order": [3, 4, -1]}, ValueError, ("order[2] is -1", "0..29")),
    "order-float": ({"order": [0.0, 1.0]}, TypeError, ("order", "float64", "integers")),
    "order-2-D": ({"order": [[0, 1]]}, ValueError, ("order", "(1, 2)", "1-D")),
    "order-text": ({"order": ["a"]}, TypeError, ("order",)),
    "batch-0": ({"batch_size": 0}, ValueError, ("batch_size is 0", "positive")),
    "batch-float": ({"batch_size": 8.0}, TypeError, ("batch_size is 8.0", "float", "integer")),
    "batch-bool": ({"batch_size": True}, TypeError, ("batch_size", "bool")),
    "steps-too-few": ({"steps": [0.1, 0.1]}, ValueError, ("steps", "(2,)", "(4,)", "30 rows", "4 batches of 8")),
    "steps-2-D": ({"steps": np.ones((4, 1))}, ValueError, ("steps", "(4, 1)")),
    "steps-nan": ({"steps": [0.1, np.nan, 0.1, 0.1]}, ValueError, ("steps[1] is nan", "finite")),
    "step-negative": ({"steps": -0.1}, ValueError, ("steps is -0.1", "not negative")),
    "step-inf": ({"steps": np.inf}, ValueError, ("steps is inf",)),
    "steps-text": ({"steps": "fast"}, TypeError, ("steps",)),
    "l1-negative": ({"l1": -1.0}, ValueError, ("l1 is -1.0", "not negative")),
    "l2-nan": ({"l2": np.nan}, ValueError, ("l2 is nan",)),
    "momentum": ({"momentum": 1.5}, ValueError, ("momentum is 1.5", "between 0 and 1")),
    "momentum-nan": ({"momentum": np.nan}, ValueError, ("momentum is nan",)),
    "nesterov": ({"nesterov": 1}, TypeError, ("nesterov is 1", "True or False")),
    "weights": ({"sample_weight": np.zeros(30)}, ValueError, ("sample_weight", "zero everywhere")),
    "X-rows": ({"X": np.ones((0, 5)), "y": np.ones(0)}, ValueError, ("X has 0 rows",)),
    "W-shape": ({"W": np.ones((1, 5))}, ValueError, ("W has shape (1, 5)", "(5,)")),
    "loss": ({"loss": "squared"}, ValueError, ("loss is 'squared'", "'squared_error'")),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named(ops, rng, case):
    changes, error, parts = BAD[case]
    args, kwargs = arguments(rng, "squared_error")
    given = dict(zip(("loss", "X", "y", "W", "b", "order"), args, strict=True)) | kwargs | changes
    with pytest.raises(error) as caught:
        ops.train_linear(**given)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("n_threads", [0, -1, 1.5, True])
def test_bad_numbers_of_threads(rng, n_threads):
    args, kwargs = arguments(rng, "hinge")
    kwargs["batch_size"] = 30
    for function in (
        lambda: kernels.train_linear(*args, **kwargs, n_threads=n_threads),
        lambda: linear_evaluation("hinge", args[1], args[2], [[args[3]]], [[args[4]]], n_threads=n_threads),
    ):
        with pytest.raises((TypeError, ValueError), match="n_threads must be None or a positive integer"):
            function()


# -------------------------------------------------------------------------------------- evaluation


def expected_evaluation(loss, X, y, W, b, weight):
    """One model, from the scores in float64: loss and score."""
    X, W, b = (np.asarray(a, np.float64) for a in (X, W, b))
    Z = X @ W.T + b
    z = Z if loss in MULTICLASS else Z[:, 0]
    mean = getattr(vectorized, loss)(z, y, sample_weight=weight)
    if loss in MULTICLASS:
        right = Z.argmax(axis=1) == y
    elif loss in ("binary_cross_entropy", "hinge", "squared_hinge"):
        right = (z >= 0) == (y > 0.5)
    else:
        right = (z - y) ** 2
    return mean, np.average(right, weights=weight)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", TRAINED)
def test_evaluation_is_that_of_each_model(ops, tier, rng, loss, dtype, weighted):
    many_rows = 150 if tier == "loops" or not jit_enabled() else 2100
    for n, D, M in ((1, 1, 1), (31, 5, 2), (33, 16, 3), (100, 17, 5), (many_rows, 33, 9)):
        X, y, W, b = many(rng, loss, D, dtype, M, n=n)
        weight = rng.uniform(0.1, 2, n).astype(dtype) if weighted else None
        losses, scores = ops.linear_evaluation(loss, X, y, W, b, sample_weight=weight)
        assert losses.shape == scores.shape == (M,)
        assert losses.dtype == scores.dtype == np.float64
        for m in range(M):
            close((losses[m], scores[m]), expected_evaluation(loss, X, y, W[m], b[m], weight), dtype)


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", TRAINED)
def test_evaluation_has_the_same_bits_with_others_and_with_threads(rng, same_bits, loss, dtype):
    X, y, W, b = many(rng, loss, 23, dtype, 9, n=5000)
    expected = linear_evaluation(loss, X, y, W, b, n_threads=1)
    for n_threads in (2, 3, 8, None):
        for got, want in zip(linear_evaluation(loss, X, y, W, b, n_threads=n_threads), expected, strict=True):
            same_bits(got, want, f"{n_threads} threads:")
    for members in ([0], [3], [1, 2], [8, 0, 4], list(range(1, 9))):
        result = linear_evaluation(loss, X, y, W[members], b[members])
        for got, want in zip(result, expected, strict=True):
            same_bits(got, want[members], f"models {members}:")


def test_which_predictions_are_right(ops):
    X = np.array([[0.0], [1.0], [-1.0], [np.nan]])
    for loss, y in (("binary_cross_entropy", [1, 1, 1, 1]), ("hinge", [1, 1, 1, 1]), ("squared_hinge", [1, 1, 1, 1])):
        _, (score,) = ops.linear_evaluation(loss, X, y, [[[1.0]]], [[0.0]])
        assert score == 0.5  # a score of 0 is class 1, NaN is never right
    _, (score,) = ops.linear_evaluation("hinge", X, [-1, -1, -1, -1], [[[1.0]]], [[0.0]])
    assert score == 0.25
    _, (score,) = ops.linear_evaluation("binary_cross_entropy", X[:3], [0.5, 0.7, 0.4], [[[1.0]]], [[0.0]])
    assert score == 1.0
    # Of equal scores the lowest index; a NaN in the row makes it wrong, whichever class is right.
    W, b = np.array([[[0.0], [0.0], [1.0]]]), np.array([[1.0, 1.0, 0.0]])
    for loss in MULTICLASS:
        for y, right in ((0, 0.75), (1, 0.0), (2, 0.0)):
            _, (score,) = ops.linear_evaluation(loss, [[0.0], [0.5], [1.0], [np.nan]], [y] * 4, W, b)
            assert score == right
    P = [[0.2, 0.2, 0.6], [0.4, 0.4, 0.2]]
    _, (score,) = ops.linear_evaluation("softmax_cross_entropy", [[3.0], [3.0]], P, W, b)
    assert score == 0.5
    _, (score,) = ops.linear_evaluation("softmax_cross_entropy", [[0.0], [0.0]], P, W, b)
    assert score == 0.5


def test_evaluation_of_a_model_that_diverged(ops, rng):
    X, y, W, b = many(rng, "squared_hinge", 7, "float32", 3, n=40)
    good = ops.linear_evaluation("squared_hinge", X, y, W, b)
    W[1] = np.nan
    losses, scores = ops.linear_evaluation("squared_hinge", X, y, W, b)
    assert np.isnan(losses[1])
    assert scores[1] == 0
    for got, want in zip((losses, scores), good, strict=True):
        np.testing.assert_array_equal(got[[0, 2]], want[[0, 2]])


def test_evaluation_with_its_own_threshold(ops, rng):
    X, y, W, b = many(rng, "huber", 7, "float64", 2, n=40)
    losses, _ = ops.linear_evaluation("huber", X, 10 * y, W, b, delta=0.3)
    for m in range(2):
        assert_allclose(losses[m], vectorized.huber(X @ W[m, 0] + b[m, 0], 10 * y, delta=0.3))


BAD_EVALUATIONS = {
    "W-2-D": ({"W": np.ones((2, 5))}, ("W has shape (2, 5)", "(M, 1, 5)")),
    "W-columns": ({"W": np.ones((2, 1, 4))}, ("W has shape (2, 1, 4)", "(M, 1, 5)", "5 columns")),
    "W-classes": ({"W": np.ones((2, 3, 5)), "b": np.ones((2, 3))}, ("W has shape (2, 3, 5)", "(M, 1, 5)")),
    "b": ({"b": np.ones(2)}, ("b has shape (2,)", "(2, 1)")),
    "delta": ({"delta": 0.0}, ("delta is 0.0", "positive")),
    "y": ({"y": np.ones(29)}, ("y has 29 entries", "X has 30 rows")),
    "X": ({"X": np.ones((0, 5))}, ("X has 0 rows",)),
    "weights": ({"sample_weight": -np.ones(30)}, ("sample_weight[0] is -1.0",)),
    "loss": ({"loss": "mse"}, ("loss is 'mse'",)),
}


@pytest.mark.parametrize("case", BAD_EVALUATIONS)
def test_bad_arguments_of_an_evaluation_are_named(ops, rng, case):
    changes, parts = BAD_EVALUATIONS[case]
    given = {"loss": "huber", "X": np.ones((30, 5)), "y": np.ones(30), "W": np.ones((2, 1, 5)), "b": np.ones((2, 1))}
    with pytest.raises(ValueError, match=re.escape(parts[0])) as caught:
        ops.linear_evaluation(**(given | changes))
    for part in parts:
        assert part in str(caught.value)


def test_classes_of_an_evaluation(ops):
    given = {"X": np.ones((3, 5)), "W": np.ones((2, 4, 5)), "b": np.ones((2, 4))}
    with pytest.raises(ValueError, match=r"y\[1\] is 4; class indices must lie in 0\.\.3"):
        ops.linear_evaluation("multiclass_hinge", y=[0, 4, 1], **given)
    with pytest.raises(ValueError, match="y has 5 columns, there are 4 classes"):
        ops.linear_evaluation("softmax_cross_entropy", y=np.full((3, 5), 0.2), **given)
