"""Networks: steps as NumPy takes them, gradients against differences, dropout, arguments."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastml import kernels
from fastml.kernels.networks import activations
from fastml.kernels.networks.products import UNITS, _tile_length
from fastml.kernels.networks.scores import Norm
from fastml.kernels.networks.training import NetworkTraining
from fastml.kernels.reference import vectorized
from fastml.kernels.runtime.jit import jit_enabled
from network_problems import FLOATS, RULES, flat, layers_of, norms_of, trained

ACTIVATIONS = ("relu", "tanh", "logistic", "identity")

LOSSES = ("softmax_cross_entropy", "binary_cross_entropy", "squared_error")

# Units of the levels, rows of a batch: on both sides of vectors, strips, tiles and blocks.
SHAPES = [
    ((1, 1), 1),
    ((3, 2, 1), 2),
    ((7, 3, 4, 2), 3),
    ((15, 4, 5), 4),
    ((16, 5, 15, 3), 5),
    ((17, 16, 7), 7),
    ((33, 31, 17, 6), 13),
    ((9, 64, 65, 9), 33),
    ((5, 130, 3), 64),
    ((20, 11, 4), 300),
]


def targets_of(rng, loss, n, outputs, dtype):
    if loss == "softmax_cross_entropy":
        return rng.integers(0, outputs, n)
    return rng.random((n, outputs)).astype(dtype)


def close(actual, expected, dtype):
    tolerance = {"rtol": 5e-5, "atol": 5e-5} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-11}
    assert_allclose(actual, expected, **tolerance)


# ------------------------------------------------------------------------------------------ steps


def plain(loss, X, y, weights, biases, order, batch_size, steps, *, activation, weight=None, l2=0.0, norms=(),
          rule="sgd", momentum=0.0, nesterov=False, beta_1=0.9, beta_2=0.999, epsilon=1e-8,
          weight_decay=0.0):  # fmt: skip
    """One network in float64, step by step as the documentation has it: parameters and losses."""
    units = [X.shape[1], *(len(b) for b in biases)]
    p = flat(weights, biases, norms).astype(np.float64)
    nothing = [Norm(*map(np.zeros_like, norm)) for norm in norms]
    penalized = flat([np.ones_like(W) for W in weights], [np.zeros_like(b) for b in biases], nothing).astype(np.float64)
    v, m, losses = np.zeros_like(p), np.zeros_like(p), []
    for t, step in enumerate(steps, 1):
        rows = order[(t - 1) * batch_size : t * batch_size]
        w = np.ones(len(rows)) if weight is None else weight[rows].astype(np.float64)
        target = y[rows] if y.ndim == 1 else y[rows].astype(np.float64)
        value, g = vectorized.network_loss_gradient(
            loss, X[rows].astype(np.float64), target, p, units, activation=activation, sample_weight=w,
            batch_norm=bool(norms),
        )  # fmt: skip
        scale = w.sum() / len(rows)
        losses.append(value * scale)
        g = g * scale + l2 * penalized * p
        if rule == "adam":
            m = beta_1 * m + (1 - beta_1) * g
            v = beta_2 * v + (1 - beta_2) * g * g
            move = m / (1 - beta_1**t) / (np.sqrt(v / (1 - beta_2**t)) + epsilon)
            p = p - step * move - step * weight_decay * penalized * p
            continue
        v = momentum * v - step * g
        p = p + (momentum * v - step * g if nesterov else v)
    return p, losses


def combinations(*values):
    """Return all combinations of values; without the JIT every other one, in which every value still occurs."""
    return [
        pytest.param(*(value for _, value in each), marks=[pytest.mark.needs_jit] * (sum(at for at, _ in each) % 2))
        for each in itertools.product(*map(enumerate, values))
    ]


@pytest.mark.parametrize(("loss", "dtype", "rule"), combinations(LOSSES, FLOATS, RULES))
def test_training_is_the_documented_loop(rng, loss, dtype, rule):
    for number, (units, batch_size) in enumerate(SHAPES):
        activation = ACTIVATIONS[1 + number % 3]  # without a kink
        X, y = rng.normal(size=(70, units[0])).astype(dtype), targets_of(rng, loss, 70, units[-1], dtype)
        weights, biases = layers_of(rng, units, dtype)
        weight = rng.uniform(0, 2, 70).astype(dtype) if number % 2 else None
        order = rng.integers(0, 70, 3 * batch_size + batch_size // 2)
        steps = rng.uniform(0.001, 0.02, -(-len(order) // batch_size)).astype(dtype)
        training = NetworkTraining(
            loss, X, y, weights, biases, activation=activation, sample_weight=weight, **RULES[rule]
        )
        losses = training.run(order, batch_size, steps)
        assert losses.shape == steps.shape
        assert training.n_steps == len(steps)
        expected, expected_losses = plain(
            loss, X, y, weights, biases, order, batch_size, steps, activation=activation, weight=weight, **RULES[rule]
        )
        close(losses, expected_losses, dtype)
        close(flat(training.weights, training.biases), expected, dtype)


def test_a_batch_larger_than_a_block_is_one_step(rng):
    """The chunks of a batch make the gradient of all its rows."""
    units = (6, 9, 3)
    X, y = rng.normal(size=(700, 6)), rng.integers(0, 3, 700)
    weights, biases = layers_of(rng, units, "float64")
    for rule in RULES.values():
        training = NetworkTraining("softmax_cross_entropy", X, y, weights, biases, activation="tanh", **rule)
        losses = training.run(np.arange(700), 600, [0.1, 0.2])
        expected, expected_losses = plain(
            "softmax_cross_entropy", X, y, weights, biases, np.arange(700), 600, [0.1, 0.2], activation="tanh", **rule
        )
        close(losses, expected_losses, "float64")
        close(flat(training.weights, training.biases), expected, "float64")


@pytest.mark.parametrize(("dtype", "rule"), combinations(FLOATS, RULES))
def test_training_with_normalized_layers_is_the_documented_loop(rng, dtype, rule):
    """Batches that a block would not hold, and last ones of one row."""
    for number, (units, batch_size) in enumerate(SHAPES[1:]):
        activation = ACTIVATIONS[1 + number % 3]
        X, y = rng.normal(size=(70, units[0])).astype(dtype), rng.integers(0, units[-1], 70)
        weights, biases = layers_of(rng, units, dtype)
        norms = norms_of(rng, units, dtype)
        order = rng.integers(0, 70, 3 * batch_size + 1)
        steps = rng.uniform(0.001, 0.02, 4).astype(dtype)
        training = NetworkTraining(
            "softmax_cross_entropy", X, y, weights, biases, activation=activation, norms=norms, **RULES[rule]
        )
        losses = training.run(order, batch_size, steps)
        expected, expected_losses = plain(
            "softmax_cross_entropy", X, y, weights, biases, order, batch_size, steps, activation=activation,
            norms=norms, **RULES[rule],
        )  # fmt: skip
        frozen = flat(weights, biases, [Norm(norm.scales, norm.means + np.nan, norm.variances) for norm in norms])
        moving = flat(weights, biases, [Norm(norm.scales, norm.means, norm.variances + np.nan) for norm in norms])
        of_model = np.isfinite(frozen + moving)
        close(losses, expected_losses, dtype)
        close(trained(training)[of_model], expected[of_model], dtype)


@pytest.mark.parametrize("dtype", FLOATS)
def test_running_statistics_follow_those_of_the_batches(rng, dtype):
    """The first layer's, of steps that are nothing; the variance is that of n - 1, and one row has none."""
    X = (100 + rng.normal(size=(41, 5))).astype(dtype)
    weights, biases = layers_of(rng, (5, 7, 2), dtype)
    norm = norms_of(rng, (5, 7, 2), dtype)[0]
    training = NetworkTraining(
        "softmax_cross_entropy", X, np.zeros(41, np.intp), weights, biases, norms=[norm], norm_share=0.25
    )
    training.run(np.arange(41), 20, 0.0)
    means, variances = norm.means.astype(np.float64), norm.variances.astype(np.float64)
    for rows in (X[:20], X[20:40], X[40:]):
        Z = rows.astype(np.float64) @ weights[0].T.astype(np.float64)
        means += 0.25 * (Z.mean(axis=0) - means)
        if len(rows) > 1:
            variances += 0.25 * (Z.var(axis=0, ddof=1) - variances)
    close(training.norms[0].means, means, dtype)
    assert_allclose(training.norms[0].variances, variances, rtol=2e-4 if dtype == "float32" else 1e-9)
    gradient = NetworkTraining(
        "softmax_cross_entropy", X, np.zeros(41, np.intp), weights, biases, norms=[norm], rule="gradient"
    )
    gradient.run(np.arange(41), 41, 0.0)
    np.testing.assert_array_equal(gradient.norms[0].means, norm.means)


def test_values_of_one_row_become_the_shifts(ops, rng):
    units = (3, 4, 2)
    weights, biases = layers_of(rng, units, "float64")
    biases[0] = np.abs(biases[0])
    p = flat(weights, biases, norms_of(rng, units, "float64"))
    value, gradient = ops.network_loss_gradient(
        "squared_error", [[1.0, 2.0, 3.0]], [[0.0, 0.0]], p, units, batch_norm=True
    )
    assert_allclose(value, np.square(weights[1] @ biases[0] + biases[1]).sum() / 2)
    assert (gradient[:12] == 0).all()  # weights of the hidden layer


def test_deviations_do_not_cancel(ops, rng):
    """Values that are alike up to a part in a million have normalised values of size 1."""
    X = np.array([[1e6], [1e6 + 1], [1e6 + 2]])
    p = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0])  # weight, shift, scale, mean, variance; weight, intercept
    value, _ = ops.network_loss_gradient(
        "squared_error", X, np.zeros(3), p, (1, 1, 1), activation="identity", batch_norm=True
    )
    assert_allclose(value, 0.5 * (2 / 3) / (2 / 3 + 1e-5), rtol=1e-12)


@pytest.mark.parametrize("normalized", [False, True])
def test_a_state_goes_on_as_if_nothing_had_been(rng, same_bits, normalized):
    units, order = (5, 8, 3), rng.permutation(60)
    X, y = rng.normal(size=(60, 5)), rng.integers(0, 3, 60)
    layers = layers_of(rng, units, "float64")

    def new() -> NetworkTraining:
        return NetworkTraining(
            "softmax_cross_entropy",
            X,
            y,
            *layers,
            rule="adam",
            dropout=0.5,
            seed=3,
            norms=norms if normalized else None,
        )

    norms = norms_of(rng, units, "float64")
    once, first, second = new(), new(), new()
    losses = once.run(order, 6, 0.01)
    begun = first.run(order[:24], 6, 0.01)
    second.set_state(first.get_state())
    same_bits(np.concatenate([begun, second.run(order[24:], 6, 0.01)]), losses)
    same_bits(trained(second), trained(once))


# --------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("units", [(19, 9, 4), pytest.param((40, 70, 17, 3), marks=pytest.mark.needs_jit)])
def test_the_gradient_of_many_normalized_rows(rng, same_bits, dtype, units):
    """More than are fetched together, with a rest."""
    X, y = rng.normal(size=(1300, units[0])).astype(dtype), rng.integers(0, units[-1], 1300)
    p = flat(*layers_of(rng, units, dtype), norms_of(rng, units, dtype))
    settings = {"sample_weight": rng.uniform(0, 1, 1300), "batch_norm": True, "activation": "tanh"}
    call = "softmax_cross_entropy", X, y, p, units
    value, gradient = kernels.network_loss_gradient(*call, **settings, n_threads=1)
    loss, expected = vectorized.network_loss_gradient(*call, **settings)
    assert_allclose(value, loss, rtol=1e-5 if dtype == "float32" else 1e-12)
    assert_allclose(gradient, expected, rtol=0, atol=1e-5 if dtype == "float32" else 1e-13)
    for n in (2, 4):
        again, other = kernels.network_loss_gradient(*call, **settings, n_threads=n)
        assert again == value
        same_bits(other, gradient)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_differences(ops, rng, loss, activation, batch_norm):
    """With `batch_norm`, through the statistics of the batch."""
    units = (4, 6, 5, 3)
    X, y = rng.normal(size=(12, 4)), targets_of(rng, loss, 12, 3, "float64")
    p = flat(*layers_of(rng, units, "float64"), norms_of(rng, units, "float64") if batch_norm else ())
    settings = {"activation": activation, "l2": 0.1, "sample_weight": rng.uniform(0, 1, 12), "batch_norm": batch_norm}
    _, gradient = ops.network_loss_gradient(loss, X, y, p, units, **settings)
    step = 1e-6
    for place in range(0, len(p), 1 if jit_enabled() else 7):
        here = [p + step * sign * (np.arange(len(p)) == place) for sign in (1, -1)]
        up, down = (ops.network_loss_gradient(loss, X, y, q, units, **settings)[0] for q in here)
        assert abs((up - down) / (2 * step) - gradient[place]) < 1e-7


def test_the_larger_of_two_numbers(ops, rng):
    """Half of h(x + y) - h(-x - y) + h(x - y) + h(-x + y), with h the positive part, is the larger of x and y."""
    hidden, output = np.array([[1, 1], [-1, -1], [1, -1], [-1, 1]]), np.array([0.5, -0.5, 0.5, 0.5])
    X = np.concatenate([rng.normal(size=(200, 2)) * 10.0 ** rng.integers(-8, 8, (200, 1)), [[0, 0], [2, 2], [-3, -3]]])
    scores = ops.network_scores(X, np.concatenate([hidden.ravel(), np.zeros(4), output, [0]]), (2, 4, 1))
    assert (np.abs(scores[:, 0] - X.max(axis=1)) <= 1e-15 * np.abs(X).sum(axis=1)).all()


# ----------------------------------------------------------------------------------------- dropout


def test_dropout_leaves_the_mean_and_drops_its_share(rng):
    """With identity and one layer of ones, what is left of a unit is 0 or 1 / (1 - share)."""
    X, ones = np.ones((4000, 1)), np.ones((50, 1))
    training = NetworkTraining(
        "squared_error", X, np.zeros((4000, 1)), [ones, np.ones((1, 50))], [np.zeros(50), np.zeros(1)],
        activation="identity", dropout=0.25, seed=1,
    )  # fmt: skip
    losses = training.run(np.arange(4000), 1, 0.0)
    kept = np.sqrt(2 * losses) * 0.75
    assert_allclose(kept, kept.round(), atol=1e-9)  # whole units
    assert abs(kept.mean() - 37.5) < 4 * np.sqrt(50 * 0.25 * 0.75 / 4000)
    assert abs(kept.var() - 50 * 0.25 * 0.75) < 1


def test_the_gradient_under_dropout_is_that_of_what_was_kept(rng):
    """A step of a network with dropout is a step of the network without the dropped units, for one row."""
    for activation in ACTIVATIONS:
        X, y = rng.normal(size=(1, 5)), np.array([1])
        weights, biases = layers_of(rng, (5, 12, 3), "float64")
        steps = {}
        for dropout in (0.0, 0.5):
            training = NetworkTraining(
                "softmax_cross_entropy", X, y, weights, biases, activation=activation, dropout=dropout, seed=7
            )
            training.run([0], 1, 0.1)
            steps[dropout] = training
        moved = (steps[0.5].weights[0] != weights[0]).any(axis=1)
        assert 0 < moved.sum() < 12
        if activation != "relu":  # which drops some by itself
            twin = getattr(activations.mixed, "twin", activations.mixed)
            key = twin(twin(twin(7, 0), 1), 0)
            np.testing.assert_array_equal(moved, [twin(key, unit) >= 1 << 62 for unit in range(12)])
        alone = NetworkTraining(
            "softmax_cross_entropy", X, y, [weights[0][moved], 2 * weights[1][:, moved]], [biases[0][moved], biases[1]],
            activation=activation,
        )  # fmt: skip
        alone.run([0], 1, 0.1)
        assert_allclose(steps[0.5].weights[0][moved], alone.weights[0], rtol=1e-12)
        assert_allclose(steps[0.5].biases[1], alone.biases[1], rtol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_gradient_under_dropout_and_normalization_is_differences(rng, activation):
    """Of the loss of one step: what is dropped is the same whenever that step is taken again."""
    units = (5, 6, 7, 3)
    X, y, order = rng.normal(size=(9, 5)), rng.integers(0, 3, 9), np.arange(9)
    layers, norms = layers_of(rng, units, "float64"), norms_of(rng, units, "float64")

    def new():
        return NetworkTraining(
            "softmax_cross_entropy", X, y, *layers, norms=norms, activation=activation, dropout=0.4, seed=3
        )

    stepped = new()
    stepped.run(order, 9, 1.0)

    def parts(training):
        return [*training.weights, *training.biases, *(norm.scales for norm in training.norms)]

    for before, after, place in zip(parts(new()), parts(stepped), range(99), strict=False):
        for at in np.ndindex(before.shape):
            values = []
            for change in (1e-6, -1e-6):
                moved = new()
                parts(moved)[place][at] += change
                values.append(moved.run(order, 9, 0.0)[0])
            assert abs((values[0] - values[1]) / 2e-6 - (before[at] - after[at])) < 1e-7


# ---------------------------------------------------------------------------------- public functions


def arguments(rng):
    X, y = rng.normal(size=(12, 3)), rng.integers(0, 2, 12)
    given = {"loss": "softmax_cross_entropy", "X": X, "y": y, "parameters": rng.normal(size=26), "units": (3, 4, 2)}
    return given | {"order": rng.permutation(12), "batch_size": 5, "steps": 0.1}


BAD = {
    "loss": ({"loss": "hinge"}, ValueError, ("loss is 'hinge'", "'squared_error'")),
    "loss-type": ({"loss": 3}, TypeError, ("loss is 3",)),
    "activation": ({"activation": "swish"}, ValueError, ("activation is 'swish'", "'relu'")),
    "units-type": ({"units": 5}, ValueError, ("units is 5",)),
    "units-short": ({"units": (3,)}, ValueError, ("units is (3,)",)),
    "units-zero": ({"units": (3, 0, 2)}, ValueError, ("units[1] is 0",)),
    "units-columns": ({"units": (4, 4, 2)}, ValueError, ("units[0] is 4", "X has 3 columns")),
    "parameters": ({"parameters": np.ones(25)}, ValueError, ("parameters has shape (25,)", "(26,)")),
    "y-classes": ({"y": np.full(12, 2)}, ValueError, ("y[0] is 2", "0..1")),
    "y-shape": ({"loss": "squared_error", "y": np.ones(12)}, ValueError, ("y has shape (12,)", "(12, 2)")),
    "y-range": ({"loss": "binary_cross_entropy", "y": np.full((12, 2), 2.0)}, ValueError, ("y[0, 0] is 2.0",)),
    "X-rows": ({"X": np.ones((0, 3)), "y": np.ones(0, int)}, ValueError, ("X has 0 rows",)),
    "weights": ({"sample_weight": np.zeros(12)}, ValueError, ("sample_weight", "zero everywhere")),
    "l2": ({"l2": -1.0}, ValueError, ("l2 is -1.0",)),
    "order": ({"order": [12]}, ValueError, ("order[0] is 12",)),
    "batch-size": ({"batch_size": 0}, ValueError, ("batch_size is 0",)),
    "steps": ({"steps": [0.1, 0.1]}, ValueError, ("steps has shape (2,)", "3 batches")),
    "momentum": ({"momentum": 2.0}, ValueError, ("momentum is 2.0",)),
    "nesterov": ({"nesterov": 1}, TypeError, ("nesterov is 1",)),
    "batch-norm": ({"batch_norm": 1}, TypeError, ("batch_norm is 1",)),
    "norms": ({"batch_norm": True}, ValueError, ("parameters has shape (26,)", "with batch_norm", "(38,)")),
    "variances": (
        {"batch_norm": True, "parameters": np.full(38, -1.0)},
        ValueError,
        ("running variance", "layer 1, unit 0", "-1.0"),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named(ops, rng, case):
    changes, error, parts = BAD[case]
    with pytest.raises(error) as caught:
        ops.train_network(**arguments(rng) | changes)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("n_threads", [0, -1, 1.5, True])
def test_bad_numbers_of_threads(rng, n_threads):
    with pytest.raises((TypeError, ValueError), match="n_threads must be None or a positive integer"):
        kernels.train_network(**arguments(rng) | {"X": np.ones((12, 300)), "parameters": np.ones(300 * 300 + 902)}
                              | {"units": (300, 300, 2)}, n_threads=n_threads)  # fmt: skip


def test_target_probabilities_are_class_indices_with_certainty(ops, rng):
    given = arguments(rng)
    expected = ops.train_network(**given)
    for got, want in zip(ops.train_network(**given | {"y": np.eye(2)[given["y"]]}), expected, strict=True):
        assert_allclose(got, want, rtol=1e-12)


def test_weights_only_count_by_their_ratios(ops, rng):
    given = arguments(rng) | {"sample_weight": rng.uniform(0.5, 1, 12)}
    expected = ops.train_network(**given)
    for got, want in zip(
        ops.train_network(**given | {"sample_weight": 8 * given["sample_weight"]}), expected, strict=True
    ):
        np.testing.assert_array_equal(got, want)


def test_tiles_fit_the_registers():
    """Sums of the units of a strip, what meets them, and one of their weights: none of these is spilled."""
    for sums, registers in ((8, 16), (16, 32)):
        length = _tile_length(SimpleNamespace(tile_sums=sums), UNITS)
        assert UNITS * length >= 12
        assert UNITS * length + length + 1 <= registers
