"""check_gradient: right gradients pass, wrong ones are found and named, kinks are told from both."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.optimize._numdiff import approx_derivative

from fastml import check_gradient, kernels
from fastml.inspection import GradientCheck
from fastml.kernels.losses.table import LOSSES, OVER_CLASSES


def linear_arguments(loss, rng, loss_args, n=9):
    """X, y, W, b whose scores are those of `loss_args`, so at a distance from every kink."""
    z, y = loss_args(rng, loss, n)
    X = rng.normal(size=(n, n))
    W = np.linalg.solve(X, z).T.copy()
    return X, y, W, (np.zeros(z.shape[1]) if z.ndim == 2 else 0.0)


# -------------------------------------------------------------------------------- losses by name


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("method", ["central", "forward"])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_in_the_scores(loss, method, weighted, rng, loss_args):
    z, y = loss_args(rng, loss, 11)
    options = {"sample_weight": rng.uniform(0.1, 3, size=11)} if weighted else {}
    check = check_gradient(loss, z=z, y=y, method=method, **options)
    check.assert_within(1e-6)
    assert check.n_coordinates == len(check.labels) == z.size
    assert check.value == pytest.approx(getattr(kernels, loss)(z, y, **options))
    assert check.kinks == []


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_in_weights_and_intercepts(loss, dtype, rng, loss_args):
    X, y, W, b = linear_arguments(loss, rng, loss_args)
    X, W = X.astype(dtype), W.astype(dtype)
    check = check_gradient(loss, X=X, y=y, W=W, b=b, l2=0.2, sample_weight=rng.uniform(0.5, 2, size=9))
    check.assert_within(1e-6 if dtype == "float64" else 1e-4)
    assert check.labels[0] == ("W[0, 0]" if loss in OVER_CLASSES else "W[0]")
    assert check.labels[-1] == ("b[4]" if loss in OVER_CLASSES else "b")
    if dtype == "float32":
        assert check.max_relative_error > 1e-9, "the gradient is to be the one in float32"


def test_target_probabilities_and_options(rng):
    Z, P = rng.normal(size=(5, 3)), rng.dirichlet(np.ones(3), size=5)
    check_gradient("softmax_cross_entropy", z=Z.tolist(), y=P).assert_within(1e-6)
    z, y = np.array([0.2, 3.0, -4.0]), np.zeros(3)
    check = check_gradient("huber", z=z, y=y, delta=2.0, n_threads=1)
    np.testing.assert_allclose(check.gradient, [0.2 / 3, 2 / 3, -2 / 3])
    check.assert_within(1e-6)


@pytest.mark.parametrize("planted", [1e-5, -0.1, np.nan, np.inf])
@pytest.mark.parametrize("loss", ["binary_cross_entropy", "softmax_cross_entropy", "absolute_error"])
def test_a_wrong_entry_is_found_and_named(loss, planted, rng, loss_args, monkeypatch):
    z, y = loss_args(rng, loss, 6)
    right = getattr(kernels, f"{loss}_gradient")

    def wrong(*args, **kwargs):
        value, dz = right(*args, **kwargs)
        dz.flat[4] += planted
        return value, dz

    monkeypatch.setattr(kernels, f"{loss}_gradient", wrong)
    check = check_gradient(loss, z=z, y=y)
    label = "z[0, 4]" if z.ndim == 2 else "z[4]"
    assert check.worst.label == label
    assert check.worst.error == (pytest.approx(abs(planted), rel=1e-3) if np.isfinite(planted) else np.inf)
    assert not check.worst.kink
    assert check.max_relative_error == check.worst.relative_error > 1e-6
    assert check.max_error == check.worst.error
    with pytest.raises(AssertionError, match=r"wrong at 1 of \d+ coordinates(.|\n)*" + label.replace("[", r"\[")):
        check.assert_within(1e-6)
    if np.isfinite(planted):
        check.assert_within(rtol=0, atol=abs(planted) * 1.01)


# ------------------------------------------------------------------------- functions of one's own


def cubes(x):
    return np.sum(x**3), 3 * x**2


def test_three_ways_to_give_a_function_agree(rng):
    x = rng.normal(size=(2, 3))
    checks = [
        check_gradient(cubes, x),
        check_gradient(lambda x: np.sum(x**3), x, lambda x: 3 * x**2),
        check_gradient(cubes, (x,)),
    ]
    for check in checks:
        check.assert_within(1e-6)
        np.testing.assert_array_equal(check.difference, checks[0].difference)
        np.testing.assert_array_equal(check.gradient, (3 * x**2).ravel())
    assert checks[0].labels[4] == "x[1, 1]"
    assert checks[2].labels[4] == "x0[1, 1]"
    assert checks[0].name == "cubes"


def test_several_arrays_and_numbers(rng):
    A, v, c = rng.normal(size=(3, 2)), rng.normal(size=2), 0.7
    seen = set()

    def both(A, v, c):
        seen.add((np.shape(A), np.shape(v), type(c)))
        r = A @ v + c
        return r @ r, np.outer(2 * r, v), A.T @ (2 * r), 2 * r.sum()

    check = check_gradient(both, (A, v, c))
    check.assert_within(1e-6)
    assert check.labels == [*(f"x0[{i}, {j}]" for i in range(3) for j in range(2)), "x1[0]", "x1[1]", "x2"]
    assert seen == {((3, 2), (2,), float)}
    nested = check_gradient(lambda *parts: (both(*parts)[0], both(*parts)[1:]), (A, v, c))
    np.testing.assert_array_equal(nested.gradient, check.gradient)
    apart = check_gradient(lambda *parts: both(*parts)[0], (A, v, c), lambda *parts: both(*parts)[1:])
    np.testing.assert_array_equal(apart.error, check.error)


def test_a_float32_point_gets_a_float32_gradient_and_float64_differences():
    dtypes = []

    def both(x):
        dtypes.append(x.dtype)
        return cubes(x)

    check = check_gradient(both, np.array([0.1, -0.3], np.float32))
    assert dtypes[0] == np.float32
    assert set(dtypes[1:]) == {np.dtype(np.float64)}
    assert 0 < check.max_relative_error < 1e-6
    assert check_gradient(both, [1, 2]).gradient.tolist() == [3.0, 12.0]


def test_a_float32_value_gets_larger_steps():
    def coarse(x):
        return np.float32(np.sum(x**2)), 2 * x

    check = check_gradient(coarse, np.array([1.0, 20.0]))
    np.testing.assert_allclose(check.step, 2 ** (-23 / 3) * np.array([1, 20]))
    check.assert_within(1e-3)


def test_the_point_is_not_changed(rng):
    x = rng.normal(size=4)
    kept = x.copy()

    def careless(x):
        value, gradient = cubes(x)
        x[:] = 99.0
        return value, gradient

    check_gradient(careless, x.copy()).assert_within(1e-6)
    check_gradient(cubes, x)
    np.testing.assert_array_equal(x, kept)


def test_more_coordinates_than_a_chunk(rng):
    x = rng.normal(size=300)
    check = check_gradient(lambda x: (np.sum(x**2), 2 * x + (np.arange(300) == 299)), x)
    assert check.worst.label == "x[299]"
    assert (check.relative_error[:-1] < 1e-6).all()


# ------------------------------------------------------------------- differences, steps, rounding


def test_differences_are_scipys(rng):
    x = rng.normal(size=5)
    central = check_gradient(cubes, x, step=1e-5)
    forward = check_gradient(cubes, x, step=1e-5, method="forward")
    three = approx_derivative(lambda x: cubes(x)[0], x, method="3-point", abs_step=1e-5)
    np.testing.assert_allclose(central.difference, three, rtol=1e-9)
    # check_grad returns the norm of all errors.
    norm = check_grad(lambda x: cubes(x)[0], lambda x: cubes(x)[1], x, epsilon=1e-5)
    assert np.linalg.norm(forward.error) == pytest.approx(norm, rel=1e-12)
    np.testing.assert_array_equal(forward.difference, central.forward)
    np.testing.assert_allclose(central.difference, (forward.forward + forward.backward) / 2)


@pytest.mark.needs_jit
@pytest.mark.parametrize("size", [1.0, 30.0, 300.0])
def test_large_features_do_not_spoil_differences(size, rng):
    """Pixels as they are move a score by a thousand times the step; what that truncates is extrapolated away."""
    X, y = size * rng.normal(size=(200, 30)), rng.integers(0, 10, size=200)
    W = rng.normal(size=(10, 30)) / size / 3
    check = check_gradient("softmax_cross_entropy", X=X, y=y, W=W, b=np.zeros(10))
    check.assert_within(1e-6)
    if size == 300.0:
        plain = (check.forward + check.backward) / 2
        assert np.abs(plain - check.gradient).max() > 10 * check.max_error


def test_a_step_of_ones_own_is_used_as_it_is(rng):
    x = rng.normal(size=4)
    check = check_gradient(cubes, x, step=0.01)
    np.testing.assert_allclose(check.difference - check.gradient, 1e-4, rtol=1e-6)


def test_forward_differences_are_off_by_half_the_step_of_the_curvature(rng):
    """Norm of the errors at most h/2 ‖diag H‖ and rounding; for cross-entropy, diag H is the mean of p(1 − p) x²."""
    X, t, h = rng.normal(size=(100, 90)), rng.integers(0, 2, size=100), 1e-6
    W, b = rng.normal(size=90), 0.3
    check = check_gradient("binary_cross_entropy", X=X, y=t, W=W, b=b, method="forward", step=h)
    p = kernels.sigmoid(X @ W + b)
    curvature = np.append(((p * (1 - p))[:, None] * X**2).mean(axis=0), (p * (1 - p)).mean())
    error = np.linalg.norm(check.error)
    assert error <= h / 2 * np.linalg.norm(curvature) * 1.05 + np.linalg.norm(check.rounding)
    assert error > h / 4 * np.linalg.norm(curvature)
    check_gradient("binary_cross_entropy", X=X, y=t, W=W, b=b).assert_within(1e-8, atol=1e-8)


def test_rounding_does_not_look_like_an_error_but_real_errors_do():
    """A large constant drowns the small slope; nothing can be said of it beyond that."""

    def shifted(x):
        return 1e6 + np.sum(np.sin(x)), np.cos(x)

    x = np.array([1.0, np.pi / 2, 3.0])
    check = check_gradient(shifted, x)
    assert check.max_error > 1e-6
    check.assert_within(1e-6)
    wrong = check_gradient(lambda x: (shifted(x)[0], np.cos(x) + 1e-2), x)
    with pytest.raises(AssertionError):
        wrong.assert_within(1e-6)


def test_a_derivative_of_zero_counts_as_right_and_zero_for_another_as_wrong():
    check = check_gradient(lambda x: (np.float64(3.0), np.zeros(2)), np.ones(2))
    assert check.max_relative_error == 0.0
    check = check_gradient(lambda x: (x.sum(), np.zeros(2)), np.ones(2))
    np.testing.assert_allclose(check.relative_error, 1, rtol=1e-9)


def test_a_difference_that_is_not_finite_is_an_error():
    with np.errstate(invalid="ignore"):
        check = check_gradient(lambda x: (np.sqrt(x).sum(), np.array([0.5, 1.0])), np.array([1.0, 0.0]))
    assert check.worst.label == "x[1]"
    assert check.worst.error == np.inf
    with pytest.raises(AssertionError):
        check.assert_within(1e-6)


# --------------------------------------------------------------------------------------------- kinks


@pytest.mark.parametrize("part", [0.0, 0.05, 0.091, 0.2, 1 / 3, 0.5, 0.9, -0.2, -1 / 3, -0.9])
@pytest.mark.parametrize("step", [None, 1e-3])
@pytest.mark.parametrize("method", ["central", "forward"])
def test_a_kink_in_the_stencil_is_reported(part, step, method):
    """A hinge whose kink lies a part of the step away; a subgradient is no error, another number is."""
    h = step or np.finfo(float).eps ** (1 / 3 if method == "central" else 1 / 2)
    z, y = np.array([1 + part * h, 0.3, 2.0]), np.ones(3)
    check = check_gradient("hinge", z=z, y=y, step=step, method=method)
    assert check.kinks == ["z[0]"]
    check.assert_within(1e-6)
    # At the kink itself any slope between those of both sides will do, others will not; beside it only one is right,
    # but how far away the kink is cannot be told.
    for slope in (0.1, -0.5, *([-0.1, -0.33] if part == 0 else [])):
        own = check_gradient(
            lambda z: kernels.hinge(z, y), z, lambda z, s=slope: np.array([s, -1 / 3, 0]), step=step, method=method
        )
        assert own.kinks == ["x[0]"]
        if -1 / 3 <= slope <= 0:
            own.assert_within(1e-6)
        else:
            assert own.max_relative_error > 0.01


def test_a_gradient_that_is_nan_at_a_kink_is_wrong():
    check = check_gradient(lambda x: (np.abs(x).sum(), np.array([np.nan])), np.zeros(1))
    assert check.kinks == ["x[0]"]
    assert check.worst.error == check.max_relative_error == np.inf
    with pytest.raises(AssertionError):
        check.assert_within(1e-6)


@pytest.mark.parametrize("loss", ["absolute_error", "multiclass_hinge"])
def test_documented_subgradients_pass(loss):
    if loss == "absolute_error":
        check = check_gradient(loss, z=[1.0, 2.0, 0.0], y=[1.0, 0.0, 0.0])
        assert check.kinks == ["z[0]", "z[2]"]
    else:
        check = check_gradient(loss, z=[[0.0, 1.0, -1.0], [5.0, 1.0, 1.0]], y=[0, 1])
        assert check.kinks == []
        check = check_gradient(loss, z=[[2.0, 1.0, 1.0], [5.0, 1.0, 1.0]], y=[0, 1])
        assert check.kinks == ["z[0, 0]", "z[0, 1]", "z[0, 2]"]
    check.assert_within(1e-6)


@pytest.mark.parametrize("step", [None, 1e-4, 0.01])
@pytest.mark.parametrize("wrong", [0.0, 1e-3, 1.0])
def test_curvature_is_no_kink(step, wrong, rng):
    """Also where the gradient is wrong, so that every coordinate is looked at again."""
    X, y, W, b = rng.normal(size=(20, 6)), rng.integers(0, 3, 20), rng.normal(size=(3, 6)), np.zeros(3)

    def both(W):
        value, dW, _ = kernels.linear_loss_gradient("softmax_cross_entropy", X, y, W, b, l2=0.1)
        return value, dW + wrong

    check = check_gradient(both, W, step=step)
    assert check.kinks == []
    assert check.max_error == pytest.approx(wrong, rel=0.1, abs=1e-4)


def test_a_function_that_only_bends_sharply_is_smooth_at_smaller_steps():
    check = check_gradient(lambda x: (np.sum(np.logaddexp(0, 1e4 * x)), 1e4 / (1 + np.exp(-1e4 * x))), np.zeros(1))
    assert check.kinks == []
    check.assert_within(1e-6)


# ------------------------------------------------------------------------------ which coordinates


def test_coordinates_by_number_by_place_and_seed(rng):
    x = rng.normal(size=(10, 10))
    some = check_gradient(cubes, x, coordinates=7, random_state=3)
    again = check_gradient(cubes, x, coordinates=7, random_state=np.random.RandomState(3))
    other = check_gradient(cubes, x, coordinates=7, random_state=4)
    assert len(set(some.coordinates.tolist())) == 7
    np.testing.assert_array_equal(some.coordinates, again.coordinates)
    assert some.coordinates.tolist() != other.coordinates.tolist()
    assert some.labels == [f"x[{i // 10}, {i % 10}]" for i in some.coordinates]
    whole = check_gradient(cubes, x)
    np.testing.assert_array_equal(some.difference, whole.difference[some.coordinates])
    placed = check_gradient(cubes, x, coordinates=[99, 0])
    assert placed.labels == ["x[9, 9]", "x[0, 0]"]
    assert len(check_gradient(cubes, x, coordinates=1000).labels) == 100


def test_only_the_chosen_coordinates_cost_evaluations():
    calls = []

    def value(x):
        calls.append(0)
        return x @ x

    check_gradient(value, np.ones(10_000), lambda x: 2 * x, coordinates=5)
    assert len(calls) <= 2 * 5 + 5


# ---------------------------------------------------------------------------------------- the result


@pytest.fixture
def check() -> GradientCheck:
    x = np.linspace(-1, 1, 12)
    return check_gradient(lambda x: (np.sum(np.abs(x - x[3]) ** 3) + np.abs(x[5] - 5 / 11 + 6 / 11), x * 0), x)


def test_text(check):
    lines = str(check).splitlines()
    assert lines[0] == "gradient of the function: all 12 coordinates, central differences"
    assert lines[1].split() == ["coordinate", "gradient", "difference", "error", "relative"]
    assert len([line for line in lines if line.startswith("x[")]) == 8
    assert lines[2].startswith(check.worst.label)
    assert "… and 4 with smaller errors" in lines
    assert any(line.startswith("largest relative error 1.0e+00 at x[") for line in lines)
    some = check_gradient(cubes, np.ones(9), coordinates=2)
    assert "2 of 9 coordinates" in str(some)
    assert "…" not in str(some)
    assert len(repr(check)) < 200


def test_table_is_a_data_frame(check):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(check.table)
    assert list(frame.columns) == [
        "coordinate",
        "gradient",
        "difference",
        "error",
        "relative_error",
        "rounding",
        "kink",
    ]
    assert len(frame) == 12
    assert frame.loc[frame.relative_error.idxmax(), "relative_error"] == check.max_relative_error


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        (("hunge",), {"z": [0.0], "y": [1.0]}, ValueError, "function is 'hunge'; the losses are 'binary"),
        (("hinge",), {"z": [0.0]}, TypeError, "z came with 'hinge'; z and y are needed, or X, y, W and b"),
        (("hinge",), {}, TypeError, "nothing came with 'hinge'"),
        (("hinge",), {"z": [0.0], "X": [[0.0]], "y": [1.0]}, TypeError, "z, X, y came"),
        (("hinge", [0.0]), {}, TypeError, "at and gradient are for a function of your own"),
        (("hinge",), {"z": [0.0], "y": [1.0], "l2": 1.0}, TypeError, "l2"),
        (("hinge",), {"z": [0.0], "y": [0.0]}, ValueError, "y"),
        ((cubes,), {}, TypeError, "at is missing"),
        ((3, [1.0]), {}, TypeError, "function is 3; it must be the name of a loss, or a function"),
        ((cubes, [1.0]), {"y": [1.0]}, TypeError, "y: only for a loss by name"),
        ((cubes, [1.0]), {"l2": 1.0}, TypeError, "l2: only for a loss by name"),
        ((cubes, []), {}, ValueError, "x have no entries|x has no entries"),
        ((cubes, ["a"]), {}, TypeError, "x has dtype"),
        ((np.sum, [1.0]), {}, TypeError, r"must return \(value, gradient\)"),
        ((np.sum, [1.0, 2.0], np.sum), {}, ValueError, r"gradient in x has shape \(\), x has \(2,\)"),
        ((lambda x, y: (0.0, x), ([1.0], [2.0])), {}, ValueError, "1 gradients came for 2 arrays"),
        ((lambda x: (x, x), [1.0, 2.0]), {}, TypeError, "must be a real number"),
        ((lambda x: (1j, x), [1.0, 2.0]), {}, TypeError, "must be a real number"),
        ((lambda x: (np.nan, x), [1.0, 2.0]), {}, ValueError, "the function at the point is nan"),
        ((cubes, [1.0]), {"method": "backward"}, ValueError, "method is 'backward'"),
        ((cubes, [1.0]), {"step": 0.0}, ValueError, "step is 0.0"),
        ((cubes, [1.0]), {"step": np.inf}, ValueError, "step is inf"),
        ((cubes, [1e6]), {"step": 1e-11}, ValueError, "lost in rounding"),
        ((cubes, [1.0]), {"coordinates": 0}, ValueError, "at least one"),
        ((cubes, [1.0]), {"coordinates": 1.5}, TypeError, "coordinates is 1.5"),
        ((cubes, [1.0]), {"coordinates": True}, TypeError, "coordinates is True"),
        ((cubes, [1.0]), {"coordinates": [1]}, ValueError, "coordinates go from 1 to 1; the point has 0 to 0"),
        ((cubes, [1.0]), {"coordinates": [-1]}, ValueError, "from -1"),
        ((cubes, [1.0]), {"coordinates": []}, ValueError, r"shape \(0,\)"),
        ((cubes, [1.0]), {"coordinates": [0.0]}, ValueError, "dtype float64"),
    ],
)
def test_what_does_not_fit_is_told(args, kwargs, error, message):
    with pytest.raises(error, match=message):
        check_gradient(*args, **kwargs)
