"""What can be said of a loss besides scores and targets: reductions, weights of classes, smoothing, ignored rows."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose, assert_array_equal

from fastml import kernels
from fastml.kernels.losses.table import LOSSES
from fastml.kernels.runtime import jit

FLOATS = ("float32", "float64")
REDUCTIONS = ("mean", "sum", "none")
RTOL = {"float32": 2e-6, "float64": 1e-12}
IGNORED = -100


def reduced(losses: np.ndarray, weights: np.ndarray, reduction: str) -> np.ndarray:
    """What becomes of losses that have these weights already, by its definition."""
    return {"mean": losses.sum() / weights.sum(), "sum": losses.sum(), "none": losses}[reduction]


# ------------------------------------------------------------------------------------- reduction


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", LOSSES)
def test_sum_and_none_are_what_the_mean_is_made_of(ops, rng, loss_args, loss, dtype, weighted):
    z, y = loss_args(rng, loss, 300, dtype)  # more rows than are added up at once
    weights = rng.uniform(0, 3, size=300).astype(dtype)
    weights[::7] = 0
    kwargs = {"sample_weight": weights} if weighted else {}
    total = weights.sum(dtype=np.float64) if weighted else 300
    plain, gradient = getattr(ops, loss), getattr(ops, f"{loss}_gradient")
    mean, dmean = gradient(z, y, **kwargs)
    whole, dwhole = gradient(z, y, reduction="sum", **kwargs)
    rows, drows = gradient(z, y, reduction="none", **kwargs)
    assert type(whole) is float
    assert whole == pytest.approx(mean * total, rel=RTOL[dtype])
    assert (rows.shape, rows.dtype) == ((300,), dtype)
    assert rows.sum(dtype=np.float64) == pytest.approx(whole, rel=RTOL[dtype])
    assert_allclose(
        rows[:5], [weights[i] ** weighted * plain(z[i : i + 1], y[i : i + 1]) for i in range(5)], RTOL[dtype]
    )
    for derivatives in (dwhole, drows):
        assert derivatives.dtype == dtype
        assert_allclose(derivatives, dmean * total, rtol=2 * RTOL[dtype], atol=1e-30)
    assert plain(z, y, reduction="sum", **kwargs) == pytest.approx(whole, rel=RTOL[dtype])
    assert_allclose(plain(z, y, reduction="none", **kwargs), rows, rtol=RTOL[dtype])
    assert plain(z, y, reduction="mean", **kwargs) == plain(z, y, **kwargs)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_sum_takes_weights_as_they_are(ops, rng, loss_args, loss):
    """A mean may rescale them; a sum of very small or large weights is as small or large."""
    z, y = loss_args(rng, loss, 9)
    rows, drows = getattr(ops, f"{loss}_gradient")(z, y, reduction="none")
    for size in (1e-200, 1e200):
        weights = rng.uniform(1, 2, size=9) * size
        whole, dwhole = getattr(ops, f"{loss}_gradient")(z, y, sample_weight=weights, reduction="sum")
        assert whole == pytest.approx((rows * weights).sum(), rel=1e-12)
        assert_allclose(dwhole, drows * (weights if z.ndim == 1 else weights[:, None]), rtol=1e-12)
    for reduction, nothing in (("sum", 0.0), ("none", np.zeros(9))):
        value, dz = getattr(ops, f"{loss}_gradient")(z, y, sample_weight=np.zeros(9), reduction=reduction)
        assert_array_equal(value, nothing)
        assert_array_equal(dz, np.zeros_like(z))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_sum_of_nothing_is_0_and_a_mean_of_nothing_is_refused(ops, rng, loss_args, loss):
    z, y = loss_args(rng, loss, 0)
    for function in (loss, f"{loss}_gradient"):
        with pytest.raises(ValueError, match="a mean needs at least one"):
            getattr(ops, function)(z, y, reduction="mean")
    assert getattr(ops, loss)(z, y, reduction="sum") == 0.0
    rows, dz = getattr(ops, f"{loss}_gradient")(z, y, reduction="none")
    assert (rows.shape, dz.shape) == ((0,), z.shape)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_reduction_that_is_none_is_refused(ops, rng, loss_args, loss):
    z, y = loss_args(rng, loss, 3)
    for function in (loss, f"{loss}_gradient"):
        with pytest.raises(ValueError, match="reduction is 'average'; it must be one of 'mean', 'sum', 'none'"):
            getattr(ops, function)(z, y, reduction="average")
        with pytest.raises(TypeError, match="reduction is None; it must be one of"):
            getattr(ops, function)(z, y, reduction=None)


@pytest.mark.parametrize("loss", LOSSES)
def test_nan_stays_in_its_row(ops, rng, loss_args, loss):
    z, y = loss_args(rng, loss, 150)
    z[(140, 2) if z.ndim == 2 else 140] = np.nan
    rows, dz = getattr(ops, f"{loss}_gradient")(z, y, reduction="none")
    assert np.isnan(rows[140])
    assert np.isnan(dz[140]).all()
    assert np.isfinite(np.delete(rows, 140)).all()
    assert np.isnan(getattr(ops, loss)(z, y, reduction="sum"))


@pytest.mark.needs_jit
@pytest.mark.parametrize("options", [False, True], ids=["plain", "options"])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_rows_for_any_number_of_threads(rng, loss_args, same_bits, loss, options):
    n = 30_001 if LOSSES[loss].over_classes else 200_003
    z, y = loss_args(rng, loss, n)
    kwargs = {}
    if options and loss == "softmax_cross_entropy":
        kwargs = {"class_weight": [1, 2, 3, 0, 1], "label_smoothing": 0.1, "ignore_index": 2}
    elif options and loss == "binary_cross_entropy":
        kwargs = {"pos_weight": 3.0, "label_smoothing": 0.1}
    elif options:
        pytest.skip("it has no options")
    for reduction in ("none", "sum", "mean"):
        expected = getattr(kernels, f"{loss}_gradient")(z, y, reduction=reduction, n_threads=1, **kwargs)
        for n_threads in (2, 3, 8):
            result = getattr(kernels, f"{loss}_gradient")(z, y, reduction=reduction, n_threads=n_threads, **kwargs)
            for got, want in zip(result, expected, strict=True):
                same_bits(got, want)


@pytest.mark.needs_jit
def test_who_uses_no_option_compiles_none(rng, loss_args):
    def forms() -> dict[str, int]:
        own = ("_rows", "weighted_binary_cross_entropy_sums", "_each", "_rows_over_classes")
        return {
            name: counts["signatures"]
            for name, counts in jit.stats().items()
            if name.startswith("losses.")
            and name.endswith(own)
            and not name.endswith("multinomial._cross_entropy_rows")
        }

    before = forms()
    assert len(before) >= 10
    for compiled in jit.KERNELS:
        compiled._reset_overloads()
    assert not any(forms().values())
    for loss in LOSSES:
        z, y = loss_args(rng, loss, 10)
        getattr(kernels, f"{loss}_gradient")(z, y, sample_weight=np.ones(10), reduction="sum")
    kernels.softmax_cross_entropy(np.zeros((3, 2)), [0, 1, 1], class_weight=[1, 2])
    kernels.binary_cross_entropy(np.zeros(3), [0, 1, 1], label_smoothing=0.1)
    assert not any(name != "losses.multinomial._transform_rows" and count for name, count in forms().items())


# ------------------------------------------------------------------------- softmax cross-entropy


def class_problem(rng: np.random.Generator, target: str, n: int = 23, C: int = 5) -> tuple[np.ndarray, np.ndarray]:
    Z = rng.normal(size=(n, C)) * 3
    return Z, (rng.integers(0, C, size=n) if target == "indices" else rng.dirichlet(np.ones(C), size=n))


def cross_entropy(Z, y, class_weight=None, label_smoothing=0.0, ignore_index=None):
    """Losses of the rows, gradients of each, and what each counts in a mean: -Σ v q log softmax(Z)."""
    n, C = Z.shape
    v = np.ones(C) if class_weight is None else np.asarray(class_weight, float)
    counts = np.ones(n) if y.ndim == 2 or ignore_index is None else (y != ignore_index).astype(float)
    labels = np.where(counts > 0, y, 0) if y.ndim == 1 else None
    q = y if labels is None else np.eye(C)[labels]
    T = v * ((1 - label_smoothing) * q + label_smoothing / C) * counts[:, None]
    losses = -(T * scipy.special.log_softmax(Z, axis=1)).sum(axis=1)
    gradients = T.sum(axis=1, keepdims=True) * scipy.special.softmax(Z, axis=1) - T
    return losses, gradients, counts * (1 if labels is None else v[labels])


COMBINATIONS = [
    (target, weighted, smoothing, ignoring)
    for target, weighted, smoothing, ignoring in product(("indices", "probabilities"), (0, 1), (0.0, 0.1, 1.0), (0, 1))
    if not (ignoring and target == "probabilities")
]


def options(rng: np.random.Generator, y: np.ndarray, weighted: int, smoothing: float, ignoring: int) -> dict:
    if ignoring:
        y[::4] = IGNORED
    found = {"class_weight": rng.uniform(0.2, 3, size=5)} if weighted else {}
    return found | {"label_smoothing": smoothing} | ({"ignore_index": IGNORED} if ignoring else {})


@pytest.mark.parametrize("rows", ["plain", "weighted"])
@pytest.mark.parametrize(("target", "weighted", "smoothing", "ignoring"), COMBINATIONS)
def test_softmax_cross_entropy_is_the_formula(ops, rng, target, weighted, smoothing, ignoring, rows):
    Z, y = class_problem(rng, target)
    kwargs = options(rng, y, weighted, smoothing, ignoring)
    losses, gradients, share = cross_entropy(Z, y, **kwargs)
    w = np.ones(len(Z)) if rows == "plain" else rng.uniform(0.5, 2, size=len(Z))
    if rows == "weighted":
        kwargs["sample_weight"] = w
    for reduction in REDUCTIONS:
        value, dZ = ops.softmax_cross_entropy_gradient(Z, y, reduction=reduction, **kwargs)
        assert_allclose(value, reduced(w * losses, w * share, reduction), rtol=1e-12, atol=1e-13)
        scale = (w * share).sum() if reduction == "mean" else 1.0
        assert_allclose(dZ, w[:, None] * gradients / scale, rtol=1e-11, atol=1e-14)
        assert_allclose(ops.softmax_cross_entropy(Z, y, reduction=reduction, **kwargs), value, rtol=1e-13)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("target", "weighted", "smoothing", "ignoring"), COMBINATIONS)
def test_softmax_cross_entropy_agrees_with_pytorch(ops, rng, target, weighted, smoothing, ignoring, reduction):
    torch = pytest.importorskip("torch")
    Z, y = class_problem(rng, target)
    kwargs = options(rng, y, weighted, smoothing, ignoring)
    value, dZ = ops.softmax_cross_entropy_gradient(Z, y, reduction=reduction, **kwargs)
    scores = torch.tensor(Z, requires_grad=True)
    theirs = torch.nn.functional.cross_entropy(
        scores,
        torch.tensor(y),
        weight=torch.tensor(kwargs["class_weight"]) if weighted else None,
        label_smoothing=smoothing,
        ignore_index=IGNORED,
        reduction=reduction,
    )
    theirs.sum().backward()
    assert_allclose(value, theirs.detach().numpy(), rtol=1e-12, atol=1e-13)
    assert_allclose(dZ, scores.grad.numpy(), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_ignored_rows_are_not_there_whatever_their_scores(ops, rng, same_bits, dtype, smoothing):
    Z, y = class_problem(rng, "indices", n=300)
    Z, ignored = Z.astype(dtype), np.arange(300) % 3 == 0
    w = rng.uniform(0.5, 2, size=300).astype(dtype)
    y[y == 2] = 1
    y[ignored] = 2
    kept, dkept = ops.softmax_cross_entropy_gradient(
        Z[~ignored], y[~ignored], sample_weight=w[~ignored], label_smoothing=smoothing
    )
    for bad in (0.0, np.nan, np.inf, -np.inf, 1e30):
        Z[ignored] = bad
        value, dZ = ops.softmax_cross_entropy_gradient(Z, y, sample_weight=w, label_smoothing=smoothing, ignore_index=2)
        assert value == pytest.approx(kept, rel=RTOL[dtype])
        assert_allclose(dZ[~ignored], dkept, rtol=RTOL[dtype], atol=1e-9 if dtype == "float32" else 1e-16)
        assert_array_equal(dZ[ignored], 0)
        rows = ops.softmax_cross_entropy(Z, y, label_smoothing=smoothing, ignore_index=2, reduction="none")
        assert_array_equal(rows[ignored], 0)
        assert (rows[~ignored] > 0).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_mean_does_not_depend_on_the_size_of_class_weights(ops, rng, dtype, smoothing):
    """Neither their sum nor its reciprocal overflows, as with weights of rows."""
    Z, y = class_problem(rng, "indices")
    Z, v, w = Z.astype(dtype), np.array([1, 2, 1, 0.5, 1], dtype), np.full(len(y), 1e4, dtype)
    expected, derivatives = ops.softmax_cross_entropy_gradient(Z, y, class_weight=v, label_smoothing=smoothing)
    least, most = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    for size in (4 * least, most / 2):
        kwargs = {"class_weight": v * size, "label_smoothing": smoothing, "sample_weight": w}
        value, dZ = ops.softmax_cross_entropy_gradient(Z, y, **kwargs)
        assert value == pytest.approx(expected, rel=RTOL[dtype])
        assert_allclose(dZ, derivatives, rtol=8 * RTOL[dtype], atol=1e-9)


def test_where_nothing_counts_a_mean_is_refused(ops):
    Z = np.zeros((2, 3))
    for kwargs in ({"ignore_index": 1}, {"class_weight": [1, 0, 1]}):
        with pytest.raises(ValueError, match="no row counts"):
            ops.softmax_cross_entropy(Z, np.array([1, 1]), **kwargs)
        assert ops.softmax_cross_entropy(Z, np.array([1, 1]), reduction="sum", **kwargs) == 0
        assert_array_equal(ops.softmax_cross_entropy(Z, np.array([1, 1]), reduction="none", **kwargs), [0, 0])


@pytest.mark.parametrize("label", ["int8", "uint8", "int32", "uint64"])
def test_any_integer_labels_can_be_ignored(ops, label):
    Z, y = np.zeros((3, 2)), np.array([0, 1, 1], label)
    assert ops.softmax_cross_entropy(Z, y, ignore_index=0, reduction="sum") == pytest.approx(2 * math.log(2))
    assert ops.softmax_cross_entropy(Z, y, ignore_index=-100, reduction="sum") == pytest.approx(3 * math.log(2))
    assert ops.softmax_cross_entropy(Z, y, ignore_index=np.int64(255)) == pytest.approx(math.log(2))


@pytest.mark.parametrize("dtype", FLOATS)
def test_smoothing_and_class_weights_at_extreme_logits(ops, dtype):
    v = np.array([0.5, 2.0, 1.0])
    for size in (37.0, 89.0, 745.0, 1e4, 1e30):
        Z = np.array([[size, 0.0, -size], [-size, size, 0.0]], dtype)
        y = np.array([0, 2])
        exact, gradients, _ = cross_entropy(Z.astype(np.float64), y, v, 0.1)
        rows, dZ = ops.softmax_cross_entropy_gradient(Z, y, class_weight=v, label_smoothing=0.1, reduction="none")
        assert_allclose(rows, exact, rtol=4 * RTOL[dtype])
        assert_allclose(dZ, gradients, rtol=4 * RTOL[dtype], atol=RTOL[dtype])
    Z = np.array([[0.0, -np.inf, 1.0]], dtype)
    with_mass = ops.softmax_cross_entropy(Z, [0], label_smoothing=0.1)
    assert with_mass == np.inf
    without = ops.softmax_cross_entropy(Z, [0], label_smoothing=0.1, class_weight=[1, 0, 1])
    assert np.isfinite(without), "a class of weight 0 costs nothing"


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"class_weight": [1, 2]}, ValueError, r"class_weight has shape \(2,\); it must be \(3,\)"),
        ({"class_weight": [1, -1, 1]}, ValueError, r"class_weight\[1\] is -1; weights must be finite"),
        ({"class_weight": [1, 1, np.nan]}, ValueError, r"class_weight\[2\] is nan"),
        ({"class_weight": "balanced"}, TypeError, "class_weight has dtype"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing is 1.5; it must lie between 0 and 1"),
        ({"label_smoothing": np.nan}, ValueError, "label_smoothing is nan"),
        ({"label_smoothing": None}, TypeError, "label_smoothing is None"),
        ({"ignore_index": 1.0}, TypeError, r"ignore_index is 1.0 \(float\); it must be an integer"),
        ({"ignore_index": True}, TypeError, "ignore_index is True"),
        ({"ignore_index": 1, "y": np.full((2, 3), 1 / 3)}, ValueError, "ignore_index is for class indices"),
        ({"ignore_index": -1, "y": [-1, 3]}, ValueError, r"y\[1\] is 3; class indices must lie in 0..2"),
        ({"y": [-100, 0]}, ValueError, r"y\[0\] is -100"),
        ({"ignore_index": 1, "y": [1.0, 0.0]}, TypeError, "class indices must be integers"),
    ],
)
def test_options_of_softmax_cross_entropy_are_checked(ops, kwargs, error, message):
    kwargs = {"y": [0, 1], **kwargs}
    for function in (ops.softmax_cross_entropy, ops.softmax_cross_entropy_gradient):
        with pytest.raises(error, match=message):
            function(np.zeros((2, 3)), **kwargs)


# -------------------------------------------------------------------------- binary cross-entropy


@pytest.mark.parametrize("rows", ["plain", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("pos_weight", [None, 0.0, 0.3, 1.0, 40.0])
def test_binary_cross_entropy_is_the_formula(ops, rng, pos_weight, smoothing, rows):
    z, t = rng.normal(size=200) * 4, rng.choice([0.0, 0.3, 1.0], size=200)
    w = np.ones(200) if rows == "plain" else rng.uniform(0.5, 2, size=200)
    kwargs = {"sample_weight": w} if rows == "weighted" else {}
    p, s = 1.0 if pos_weight is None else pos_weight, (1 - smoothing) * t + smoothing / 2
    losses = p * s * np.logaddexp(0, -z) + (1 - s) * np.logaddexp(0, z)
    slopes = (1 - s) * scipy.special.expit(z) - p * s * scipy.special.expit(-z)
    for reduction in REDUCTIONS:
        value, dz = ops.binary_cross_entropy_gradient(
            z, t, pos_weight=pos_weight, label_smoothing=smoothing, reduction=reduction, **kwargs
        )
        assert_allclose(value, reduced(w * losses, w, reduction), rtol=1e-12, atol=1e-300)
        assert_allclose(dz, w * slopes / (w.sum() if reduction == "mean" else 1), rtol=1e-11, atol=1e-15)
        alone = ops.binary_cross_entropy(
            z, t, pos_weight=pos_weight, label_smoothing=smoothing, reduction=reduction, **kwargs
        )
        assert_allclose(alone, value, rtol=1e-13)


@pytest.mark.parametrize("rows", ["plain", "weighted"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("pos_weight", [None, 0.0, 2.5])
def test_binary_cross_entropy_agrees_with_pytorch(ops, rng, pos_weight, reduction, rows):
    torch = pytest.importorskip("torch")
    z, t, w = rng.normal(size=31) * 4, rng.uniform(size=31), rng.uniform(0.5, 2, size=31)
    kwargs = {"sample_weight": w} if rows == "weighted" else {}
    value, dz = ops.binary_cross_entropy_gradient(z, t, pos_weight=pos_weight, reduction=reduction, **kwargs)
    scores = torch.tensor(z, requires_grad=True)
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(
        scores,
        torch.tensor(t),
        weight=torch.tensor(w) if rows == "weighted" else None,
        pos_weight=None if pos_weight is None else torch.tensor(pos_weight),
        reduction=reduction,
    )
    theirs.sum().backward()
    # PyTorch divides a mean by the number of rows, whatever they weigh.
    factor = len(z) / w.sum() if rows == "weighted" and reduction == "mean" else 1.0
    assert_allclose(value, theirs.detach().numpy() * factor, rtol=1e-12, atol=1e-13)
    assert_allclose(dz, scores.grad.numpy() * factor, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "poisson"])
def test_losses_of_regression_agree_with_pytorch(ops, rng, loss_args, loss, dtype):
    torch = pytest.importorskip("torch")
    z, y = loss_args(rng, loss, 31, dtype)
    function = {
        "squared_error": lambda *args, **kwargs: torch.nn.functional.mse_loss(*args, **kwargs) / 2,
        "absolute_error": torch.nn.functional.l1_loss,
        "huber": lambda *args, **kwargs: torch.nn.functional.huber_loss(*args, delta=1.35, **kwargs),
        "poisson": torch.nn.functional.poisson_nll_loss,
    }[loss]
    for reduction in REDUCTIONS:
        scores = torch.tensor(z, requires_grad=True)
        theirs = function(scores, torch.tensor(y), reduction=reduction)
        theirs.sum().backward()
        value, dz = getattr(ops, f"{loss}_gradient")(z, y, reduction=reduction)
        assert_allclose(value, theirs.detach().numpy(), rtol=RTOL[dtype], atol=RTOL[dtype])
        assert_allclose(dz, scores.grad.numpy(), rtol=RTOL[dtype], atol=RTOL[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
def test_pos_weight_at_extreme_logits(ops, dtype):
    t = np.array([0.0, 1.0, 0.3], dtype)
    for size in (37.0, 89.0, 745.0, 1e4, 1e30):
        for sign in (1.0, -1.0):
            z = np.full(3, sign * size, dtype)
            wide, s = z.astype(np.float64), t.astype(np.float64)
            exact = 7 * s * np.logaddexp(0, -wide) + (1 - s) * np.logaddexp(0, wide)
            rows, dz = ops.binary_cross_entropy_gradient(z, t, pos_weight=7.0, reduction="none")
            assert_allclose(rows, exact, rtol=RTOL[dtype], atol=float(np.finfo(dtype).tiny))
            slopes = (1 - s) * scipy.special.expit(wide) - 7 * s * scipy.special.expit(-wide)
            assert_allclose(dz, slopes, rtol=RTOL[dtype], atol=float(np.finfo(dtype).tiny))
    infinite = np.array([np.inf, -np.inf], dtype)
    assert_array_equal(ops.binary_cross_entropy(infinite, np.array([1, 0]), pos_weight=7.0, reduction="none"), [0, 0])


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"pos_weight": -1.0}, ValueError, "pos_weight is -1.0; it must be finite as float64 and not negative"),
        ({"pos_weight": np.inf}, ValueError, "pos_weight is inf"),
        ({"pos_weight": [1.0, 2.0]}, TypeError, "pos_weight is"),
        ({"label_smoothing": -0.1}, ValueError, "label_smoothing is -0.1; it must lie between 0 and 1"),
        ({"label_smoothing": "much"}, TypeError, "label_smoothing is 'much'"),
    ],
)
def test_options_of_binary_cross_entropy_are_checked(ops, kwargs, error, message):
    for function in (ops.binary_cross_entropy, ops.binary_cross_entropy_gradient):
        with pytest.raises(error, match=message):
            function(np.zeros(3), np.ones(3), **kwargs)
