"""Convolutional networks: SciPy's correlation, gradients of layers and nets, the same bits for any threads, Ctrl-C."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.signal import correlate

from fastml import kernels
from fastml.kernels.convolution import _batch_norm as convolution_batch_norm
from fastml.kernels.convolution import _grid_loops
from fastml.kernels.convolution import _products as convolution_products
from fastml.kernels.convolution import training as convolution_training
from fastml.kernels.convolution._products import ProductTable
from fastml.kernels.convolution.buffers import Images
from fastml.kernels.convolution.functions import _buffers_of, _channels_first, _fetch, _run
from fastml.kernels.convolution.layers import AvgPool2D, BatchNorm, Dropout, Flatten, MaxPool2D, ReLU
from fastml.kernels.convolution.network import Network, scores_of_images
from fastml.kernels.convolution.product_layers import Conv2D, Linear
from fastml.kernels.convolution.training import ConvNetTraining
from fastml.kernels.reference import vectorized
from fastml.kernels.runtime import parallel

FLOATS = ("float32", "float64")
TAILS = (1, 2, 3, 7, 8, 15, 16, 17, 31, 33)


def correlated(X, W, b, stride, padding):
    """The convolution in float64, as SciPy has it."""
    X = np.pad(X.astype(np.float64), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    whole = [[sum(correlate(x, w, "valid") for x, w in zip(image, kernel, strict=True)) for kernel in W] for image in X]
    return np.array(whole)[:, :, ::stride, ::stride] + b[:, None, None]


def close(actual, expected, dtype):
    assert_allclose(
        actual, expected, **({"rtol": 1e-4, "atol": 1e-4} if dtype == "float32" else {"rtol": 1e-10, "atol": 1e-10})
    )


def made_by(layer, X):
    """What a layer of networks makes of X."""
    buffers, n = _buffers_of(layer, X, {}), len(X)
    _run([_fetch(X, buffers.input), *layer.forward(buffers, n)], layer, buffers, n, 1)
    return _channels_first(buffers.output, n)


def differentiated(layer, dZ, X, parameters=None):
    """The gradient in X, and in the parameters, of a layer of networks."""
    buffers, n = _buffers_of(layer, X, parameters or {}, training=True), len(X)
    _run([_fetch(X, buffers.input), *layer.forward(buffers, n)], layer, buffers, n, 1)
    buffers.output_grad.pixels(n)[...] = dZ.transpose(0, 2, 3, 1)
    _run([*layer.backward(buffers, n), *layer.gradient(buffers, n)], layer, buffers, n, 1)
    gradient = {name: layer.unpack(name, part) for name, part in buffers.gradient.items()}
    return _channels_first(buffers.input_grad, n), gradient


# -------------------------------------------------------------------------------------- convolutions


@pytest.mark.parametrize("dtype", FLOATS)
def test_it_is_a_correlation_around_the_vector_width(rng, dtype):
    for number, length in enumerate(TAILS):
        for n, c, o, h, w in ((2, length, 3, 4, 5), (1, 2, length, 3, 6), (2, 3, 4, length, 9), (1, 3, 5, 8, length)):
            size, stride, padding = ((3, 1, 1), (2, 1, 1), (3, 2, 2), (1, 1, 0), (5, 3, 4))[number % 5]
            X = rng.normal(size=(n, c, h, w)).astype(dtype)
            W, b = rng.normal(size=(o, c, size, size)).astype(dtype), rng.normal(size=o).astype(dtype)
            z = kernels.conv2d(X, W, b, stride=stride, padding=padding)
            assert z.dtype == dtype
            close(z, correlated(X, W, b, stride, padding), dtype)


@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [
        (1, 1, 0),
        (1, 2, 0),
        (2, 1, 0),
        (2, 1, 1),
        (3, 1, 0),
        (3, 1, 1),
        (3, 1, 2),
        (3, 2, 1),
        (3, 3, 0),
        (4, 2, 3),
        (5, 1, 2),
    ],
)
def test_the_gradient_is_that_of_the_convolution(rng, size, stride, padding):
    """Z is linear in X, in W and in b: so are the differences that its gradient foretells."""
    X, W, b = rng.normal(size=(2, 3, 7, 6)), rng.normal(size=(5, 3, size, size)), rng.normal(size=5)
    at = {"stride": stride, "padding": padding}
    z = kernels.conv2d(X, W, b, **at)
    dZ = rng.normal(size=z.shape)
    gradient = kernels.conv2d_gradient(dZ, X, W, **at)
    for place, (value, slope) in enumerate(zip((X, W, b), gradient, strict=True)):
        assert slope.shape == value.shape
        for _ in range(3):
            move = rng.normal(size=value.shape)
            moved = [part + move if number == place else part for number, part in enumerate((X, W, b))]
            assert_allclose(np.vdot(dZ, kernels.conv2d(*moved, **at) - z), np.vdot(slope, move), rtol=1e-9, atol=1e-9)


def test_any_layout_gives_the_same_bits(rng, same_bits):
    X, W = rng.normal(size=(3, 4, 6, 5)).astype(np.float32), rng.normal(size=(2, 4, 3, 3)).astype(np.float32)
    expected = kernels.conv2d(X, W)
    frozen = X.copy()
    frozen.setflags(write=False)
    apart = np.zeros((6, 4, 6, 10), np.float32)
    apart[::2, :, :, ::2] = X
    for each in (np.asfortranarray(X), frozen, apart[::2, :, :, ::2], X.tolist()):
        found = kernels.conv2d(np.asarray(each, np.float32), W)
        same_bits(found, expected)
    bytes_ = rng.integers(0, 256, size=X.shape).astype(np.uint8)
    assert kernels.conv2d(bytes_, W).dtype == np.float64
    same_bits(kernels.conv2d(bytes_, W), kernels.conv2d(bytes_.astype(np.float64), W))


def test_no_images():
    X, W = np.zeros((0, 2, 4, 4)), np.ones((3, 2, 3, 3))
    assert kernels.conv2d(X, W).shape == (0, 3, 2, 2)
    dX, dW, db = kernels.conv2d_gradient(np.zeros((0, 3, 2, 2)), X, W)
    assert dX.shape == X.shape
    assert not dW.any()
    assert not db.any()
    assert kernels.max_pool2d(X).shape == kernels.avg_pool2d(X).shape == (0, 2, 2, 2)
    assert kernels.max_pool2d_gradient(np.zeros((0, 2, 2, 2)), X).shape == X.shape
    assert kernels.avg_pool2d_gradient(np.zeros((0, 2, 2, 2)), X).shape == X.shape
    with pytest.raises(ValueError, match="X has no images"):
        kernels.batch_norm(X, np.ones(2), np.ones(2))


def test_a_pixel_depends_on_its_image_only(rng, same_bits):
    X, W = rng.normal(size=(9, 3, 8, 8)).astype(np.float32), rng.normal(size=(20, 3, 3, 3)).astype(np.float32)
    together = kernels.conv2d(X, W, padding=1)
    for i in (0, 4, 8):
        same_bits(kernels.conv2d(X[i : i + 1], W, padding=1), together[i : i + 1])


@pytest.mark.parametrize("dtype", FLOATS)
def test_any_number_of_threads_gives_the_same_bits(rng, same_bits, dtype):
    X, W = rng.normal(size=(13, 5, 9, 8)).astype(dtype), rng.normal(size=(70, 5, 3, 3)).astype(dtype)
    gamma, beta = rng.normal(size=(2, 5)).astype(dtype)
    dZ, dX = rng.normal(size=(13, 70, 9, 8)).astype(dtype), rng.normal(size=X.shape).astype(dtype)

    def all_of(n):
        yield kernels.conv2d(X, W, padding=1, n_threads=n)
        yield from kernels.conv2d_gradient(dZ, X, W, padding=1, n_threads=n)
        yield kernels.max_pool2d(X, size=3, stride=1, n_threads=n)
        yield kernels.avg_pool2d(X, n_threads=n)
        yield kernels.batch_norm(X, gamma, beta, n_threads=n)
        yield from kernels.batch_norm_gradient(dX, X, gamma, n_threads=n)

    for one, two, three in zip(all_of(1), all_of(2), all_of(3), strict=True):
        same_bits(one, two)
        same_bits(one, three)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda X, W: kernels.conv2d(X[0], W), "X has shape"),
        (lambda X, W: kernels.conv2d(X, W[0]), "W has shape"),
        (lambda X, W: kernels.conv2d(X, W[:, :1]), "W has 1 channels in, X has 2"),
        (lambda X, W: kernels.conv2d(X, W, np.zeros(4)), "b has shape"),
        (lambda X, W: kernels.conv2d(X, W, padding=3), "padding is 3; it must be below"),
        (lambda X, W: kernels.conv2d(X, W, stride=0), "stride is 0"),
        (lambda X, W: kernels.conv2d(X[:, :, :2], W), "kernels of 3 x 3 need more"),
        (lambda X, W: kernels.conv2d(X[:, :, :, :0], W), "at least one channel and one pixel"),
        (lambda X, W: kernels.conv2d_gradient(X, X, W), "dZ has shape"),
        (lambda X, W: kernels.max_pool2d(X, size=5), "windows of 5 x 5 need more"),
        (lambda X, W: kernels.max_pool2d(X, size=17), "at most 16"),
        (lambda X, W: kernels.batch_norm(X, np.ones(3), np.ones(2)), "gamma has shape"),
        (lambda X, W: kernels.batch_norm(X, np.ones(2), np.ones(2), epsilon=0), "epsilon is 0"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.zeros((2, 2, 4, 4)), np.zeros((3, 2, 3, 3)))


# ---------------------------------------------------------------------------------- pools, normalisation


def test_a_pool_passes_nan_on_and_the_first_of_equals_has_the_slope():
    X = np.array([[[[1.0, np.nan, 2.0, 2.0], [5.0, 0.0, 2.0, 1.0]]]])
    assert_allclose(kernels.max_pool2d(X), [[[[np.nan, 2.0]]]])
    dX = kernels.max_pool2d_gradient(np.array([[[[3.0, 4.0]]]]), X)
    assert_allclose(dX, [[[[0, 3, 4, 0], [0, 0, 0, 0]]]])


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize(("size", "stride"), [(2, None), (3, 1), (3, 2), (2, 3), (1, 1)])
def test_the_gradient_of_pools_with_any_stride(rng, name, size, stride):
    X = rng.permutation(2 * 3 * 8 * 7).reshape(2, 3, 8, 7).astype(np.float64)  # no ties
    pool, at = getattr(kernels, name), {"size": size, "stride": stride}
    z = pool(X, **at)
    dZ = rng.normal(size=z.shape)
    dX = getattr(kernels, f"{name}_gradient")(dZ, X, **at)
    move = rng.normal(size=X.shape) * 1e-3  # too little for another pixel to be the largest
    assert_allclose(np.vdot(dZ, pool(X + move, **at) - z), np.vdot(dX, move), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("name", "kind"), [("max_pool2d", MaxPool2D), ("avg_pool2d", AvgPool2D)])
def test_pools_agree_with_those_of_networks_and_with_numpy(rng, dtype, name, kind):
    """With ties and NaN, for windows that overlap, that leave gaps, and that leave a rest of lines and pixels."""
    for height, width in ((1, 1), (2, 2), (5, 4), (7, 9), (6, 33)):
        X = rng.integers(-3, 4, (2, 2, height, width)).astype(dtype)
        X[rng.random(X.shape) < 0.02] = np.nan
        for size, stride in ((1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (4, 4), (5, 2)):
            if size > min(height, width):
                continue
            layer, at = kind(X.shape[1:], size, stride), {"size": size, "stride": stride}
            z = getattr(kernels, name)(X, **at)
            close(z, getattr(vectorized, name)(X, **at), dtype)
            close(z, made_by(layer, X), dtype)
            dZ = rng.normal(size=z.shape).astype(dtype)
            dX = getattr(kernels, f"{name}_gradient")(dZ, X, **at)
            close(dX, getattr(vectorized, f"{name}_gradient")(dZ, X, **at), dtype)
            close(dX, differentiated(layer, dZ, X)[0], dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (30, 7, 1, 1), (5, 3, 3, 5), (3, 2, 33, 40), (40, 1, 6, 6)])
def test_a_normalization_agrees_with_that_of_networks_for_all_threads_and_blocks(
    rng, same_bits, monkeypatch, dtype, shape
):
    X, dZ = (rng.normal(size=shape) + 5).astype(dtype), rng.normal(size=shape).astype(dtype)
    gamma, beta = rng.normal(size=(2, shape[1])).astype(dtype)
    layer = BatchNorm(shape[1:], 0.0, 1e-5)
    dX, gradient = differentiated(layer, dZ, X, {"weight": gamma, "bias": beta})

    def all_of(n):
        return kernels.batch_norm(X, gamma, beta, n_threads=n), *kernels.batch_norm_gradient(dZ, X, gamma, n_threads=n)

    for block in (convolution_batch_norm._BLOCK, 100):
        monkeypatch.setattr(convolution_batch_norm, "_BLOCK", block)
        found = all_of(1)
        expected = vectorized.batch_norm(X, gamma, beta), dX, gradient["weight"], gradient["bias"]
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == dtype
            size = max(1, np.abs(other).max())
            close(one / size, other / size, dtype)
        for n in (2, 7):
            for one, other in zip(found, all_of(n), strict=True):
                same_bits(one, other)
    monkeypatch.undo()


def test_what_is_not_finite_stays_in_its_channel(rng):
    for value in (np.nan, np.inf, -np.inf):
        X = rng.normal(size=(3, 2, 5, 5))
        X[1, 0, 2, 2] = value
        with np.errstate(invalid="ignore"):  # of NumPy, without compilation
            z = kernels.batch_norm(X, np.ones(2), np.ones(2))
        assert np.isnan(z[:, 0]).all()
        assert np.isfinite(z[:, 1]).all()


def test_a_channel_of_equal_pixels_becomes_its_shift():
    X = np.full((3, 2, 33, 37), 1e15 / 3, np.float32)  # of which sums are rounded
    assert (kernels.batch_norm(X, np.ones(2), np.full(2, 7), epsilon=1e-12) == 7).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_normalized_channels_have_mean_0_and_variance_1_far_from_the_origin(rng, dtype):
    X = (rng.normal(size=(40, 3, 5, 5)) + 1000).astype(dtype)
    z = kernels.batch_norm(X, np.ones(3), np.zeros(3)).astype(np.float64)
    assert_allclose(z.mean(axis=(0, 2, 3)), 0, atol=1e-4)
    assert_allclose(z.var(axis=(0, 2, 3)), 1, rtol=1e-3)


def test_gradients_behind_a_normalization_sum_to_zero(rng):
    X, dZ = rng.normal(size=(2, 6, 4, 3, 3))
    X *= 10  # beside such variances epsilon hardly counts
    dX, dgamma, dbeta = kernels.batch_norm_gradient(dZ, X, rng.normal(size=4))
    assert_allclose(dX.sum(axis=(0, 2, 3)), 0, atol=1e-12)
    assert_allclose((dX * X).sum(axis=(0, 2, 3)), 0, atol=1e-5)
    assert dgamma.shape == dbeta.shape == (4,)


# -------------------------------------------------------------------------------------------- networks


def chained(shape, *kinds):
    """Layers, each for the shape that the one before makes."""
    layers = []
    for kind, *arguments in kinds:
        layers.append(kind(layers[-1].shape if layers else shape, *arguments))
    return layers


def parameters_of(layers, rng):
    """Random ones; statistics as they are at first."""
    found = []
    for layer in layers:
        of_layer = layer.initial_parameters(rng)
        if "running_mean" in of_layer:
            of_layer["weight"] = rng.uniform(0.5, 1.5, layer.shape[0])
        elif of_layer:
            shape = of_layer["weight"].shape
            of_layer["weight"] = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        if of_layer:
            of_layer["bias"] = rng.normal(size=layer.shape[0])
        found.append(of_layer)
    return found


def training_of(layers, parameters, X, y, dtype="float64", **settings):
    network = Network(layers, np.dtype(dtype))
    channels = X.shape[1]
    images = Images(X, np.zeros(channels, dtype), np.ones(channels, dtype))
    return ConvNetTraining(
        network, "softmax_cross_entropy", images, y, network.pack(parameters), **{"n_threads": 1, "seed": 5} | settings
    )


NETS = {
    "convolution": [(Conv2D, 5, 3, 1, 1), (ReLU,)],
    "stride": [(Conv2D, 4, 3, 2, 1), (Conv2D, 17, 2, 3, 1)],
    "even kernels": [(Conv2D, 3, 2, 1, 0), (Conv2D, 3, 4, 1, 2)],
    "max pool": [(Conv2D, 4, 3, 1, 1), (MaxPool2D, 2, 2), (Conv2D, 3, 3, 1, 1), (MaxPool2D, 3, 1)],
    "average pool": [(AvgPool2D, 2, 1), (Conv2D, 4, 3, 1, 1), (AvgPool2D, 2, 2)],
    "normalized": [(Conv2D, 6, 3, 1, 1), (BatchNorm, 0.1, 1e-5), (ReLU,), (Flatten,), (Linear, 7)],
    "normalised first": [
        (BatchNorm, 0.1, 1e-5),
        (Conv2D, 3, 3, 1, 1),
        (ReLU,),
        (BatchNorm, 0.1, 1e-5),
    ],
    "normalised units": [(Linear, 9), (BatchNorm, 0.1, 1e-5), (ReLU,), (Linear, 17), (ReLU,)],
    "dropout": [(Dropout, 0.3), (Conv2D, 5, 3, 1, 1), (ReLU,), (Dropout, 0.5), (Linear, 6), (Dropout, 0.2)],
    "dropout after each": [
        layer
        for each in [(Conv2D, 5, 3, 1, 1), (ReLU,), (MaxPool2D, 2, 1), (AvgPool2D, 2, 1), (BatchNorm, 0.1, 1e-5)]
        for layer in (each, (Dropout, 0.2))
    ],
    "dropout after rows": [(Flatten,), (Dropout, 0.1), (Dropout, 0.2), (Linear, 9), (Dropout, 0.2)],
    "wide": [(Conv2D, 65, 3, 1, 1), (ReLU,), (Linear, 50), (ReLU,)],
}


@pytest.mark.parametrize("name", NETS)
def test_the_gradient_of_a_network_is_that_of_its_loss(rng, name):
    """Central differences along random directions, one for each parameter; a kink within a step would show."""
    shape = (2, 8, 7)
    layers = chained(shape, *NETS[name], (Linear, 3))
    parameters = parameters_of(layers, rng)
    X, y = rng.normal(size=(5, *shape)), rng.integers(0, 3, 5)
    weight, rows = rng.uniform(0.5, 2, 5), np.array([3, 0, 4, 1])

    def loss(given):
        return training_of(layers, given, X, y, sample_weight=weight).loss_gradient(rows)

    _, gradient = loss(parameters)
    h = 1e-6
    for number, of_layer in enumerate(gradient):
        for key, slope in of_layer.items():
            assert slope.shape == parameters[number][key].shape
            move = rng.normal(size=slope.shape)

            def at(step, number=number, key=key, move=move):
                moved = [dict(of) for of in parameters]
                moved[number][key] = moved[number][key] + step * move
                return loss(moved)[0]

            assert_allclose((at(h) - at(-h)) / (2 * h), np.vdot(slope, move), rtol=1e-6, atol=1e-8)


def test_weights_keep_their_public_shapes(rng, same_bits):
    layers = chained((3, 9, 8), *NETS["normalized"], (Linear, 3))
    parameters = parameters_of(layers, rng)
    network = Network(layers, np.dtype(np.float64))
    for before, after in zip(parameters, network.unpack(network.pack(parameters)), strict=True):
        assert before.keys() == after.keys()
        for key, value in before.items():
            same_bits(after[key], value)


def test_a_linear_layer_sees_channel_line_pixel(rng):
    X, y = rng.normal(size=(4, 3, 2, 5)), np.zeros(4, np.intp)
    layers = chained((3, 2, 5), (Flatten,), (Linear, 6))
    parameters = parameters_of(layers, rng)
    network = Network(layers, np.dtype(np.float64))
    images = Images(X, np.zeros(3), np.ones(3))
    scores = scores_of_images(network, network.pack(parameters), images, 1)
    assert_allclose(scores, X.reshape(4, -1) @ parameters[1]["weight"].T + parameters[1]["bias"])
    assert y.size == 4


@pytest.mark.parametrize("rule", [{}, {"momentum": 0.9}, {"momentum": 0.8, "nesterov": True}, {"rule": "adam"}])
def test_steps_are_the_documented_ones(rng, rule):
    layers = chained((1, 4, 4), (Conv2D, 3, 3, 1, 1), (BatchNorm, 0.1, 1e-5), (ReLU,), (Linear, 3))
    parameters = parameters_of(layers, rng)
    X, y = rng.normal(size=(8, 1, 4, 4)), rng.integers(0, 3, 8)
    settings = {"l2": 0.3} | rule | ({"weight_decay": 0.5, "epsilon": 1e-4} if "rule" in rule else {})
    training = training_of(layers, parameters, X, y, **settings)
    p = [{key: value.copy() for key, value in of.items()} for of in parameters]
    v, m = ([{key: np.zeros_like(value) for key, value in of.items()} for of in p] for _ in range(2))
    for t in range(1, 4):
        _, gradient = training_of(layers, p, X, y).loss_gradient(np.arange(8))
        training.run(np.arange(8), 8, 0.1)
        for number, of_layer in enumerate(gradient):
            for key, g in of_layer.items():
                penalized = key == "weight" and g.ndim > 1
                w = p[number][key]
                g = g + (0.3 * w if penalized else 0)
                if "rule" in rule:
                    m[number][key] = 0.9 * m[number][key] + 0.1 * g
                    v[number][key] = 0.999 * v[number][key] + 0.001 * g * g
                    mean, square = m[number][key] / (1 - 0.9**t), v[number][key] / (1 - 0.999**t)
                    p[number][key] = w - 0.1 * mean / (np.sqrt(square) + 1e-4) - (0.05 * w if penalized else 0)
                    continue
                momentum = rule.get("momentum", 0.0)
                v[number][key] = momentum * v[number][key] - 0.1 * g
                p[number][key] = w + (momentum * v[number][key] - 0.1 * g if rule.get("nesterov") else v[number][key])
    for found, expected in zip(training.network.unpack(training.weights), p, strict=True):
        for key in set(expected) - {"running_mean", "running_var"}:
            assert_allclose(found[key], expected[key], rtol=1e-9, atol=1e-11)


def test_running_means_are_those_of_the_batches(rng):
    layers = chained((2, 3, 3), (BatchNorm, 0.25, 1e-5), (Linear, 3))
    X, y = rng.normal(size=(12, 2, 3, 3)) + 2, rng.integers(0, 3, 12)
    training = training_of(layers, parameters_of(layers, rng), X, y)
    training.run(np.arange(12), 6, 0.0)
    mean, variance = np.zeros(2), np.ones(2)
    for part in (X[:6], X[6:]):
        mean = 0.75 * mean + 0.25 * part.mean(axis=(0, 2, 3))
        variance = 0.75 * variance + 0.25 * part.var(axis=(0, 2, 3), ddof=1)
    found = training.network.unpack(training.weights)[0]
    assert_allclose(found["running_mean"], mean)
    assert_allclose(found["running_var"], variance)


def test_the_running_variance_stays_after_a_batch_of_one_value(rng):
    layers = chained((5, 1, 1), (Linear, 4), (BatchNorm, 0.25, 1e-5), (Linear, 3))
    X, y = rng.normal(size=(7, 5, 1, 1)), rng.integers(0, 3, 7)
    training = training_of(layers, parameters_of(layers, rng), X, y)
    training.run(np.arange(6), 6, 0.0)
    before = training.network.unpack(training.weights)[1]
    training.run(np.array([6]), 1, 0.0)
    after = training.network.unpack(training.weights)[1]
    np.testing.assert_array_equal(after["running_var"], before["running_var"])
    assert (after["running_mean"] != before["running_mean"]).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_any_number_of_threads_trains_the_same_bits(rng, same_bits, dtype):
    layers = chained((3, 12, 12), *NETS["max pool"], (BatchNorm, 0.1, 1e-5), (ReLU,), (Dropout, 0.5), (Linear, 4))
    parameters = parameters_of(layers, rng)
    X, y = rng.normal(size=(40, 3, 12, 12)).astype(dtype), rng.integers(0, 4, 40)
    runs = [
        training_of(layers, parameters, X, y, dtype, rule="adam", n_threads=n, l2=0.01) for n in (1, 2, 3)
    ]  # fmt: skip
    order = rng.permutation(40)
    losses = [run.run(order, 16, 0.01) for run in runs]
    for run, loss in zip(runs[1:], losses[1:], strict=True):
        same_bits(loss, losses[0])
        same_bits(run.weights.flat, runs[0].weights.flat)
        same_bits(run.weights.running, runs[0].weights.running)


def test_a_state_goes_on_as_if_nothing_had_been(rng, same_bits):
    layers = chained((1, 5, 5), *NETS["normalized"], (Dropout, 0.5), (Linear, 3))
    parameters, order = parameters_of(layers, rng), rng.permutation(30)
    X, y = rng.normal(size=(30, 1, 5, 5)), rng.integers(0, 3, 30)
    once, first, second = (training_of(layers, parameters, X, y, rule="adam") for _ in range(3))
    losses = once.run(order, 6, 0.01)
    begun = first.run(order[:12], 6, 0.01)
    second.set_state(first.get_state())
    same_bits(np.concatenate([begun, second.run(order[12:], 6, 0.01)]), losses)
    same_bits(second.weights.flat, once.weights.flat)


def test_bytes_are_fetched_batch_by_batch(rng, same_bits):
    layers = chained((2, 6, 6), (Conv2D, 3, 3, 1, 1), (ReLU,), (Linear, 3))
    parameters = parameters_of(layers, rng)
    X, y = rng.integers(0, 256, size=(10, 2, 6, 6)).astype(np.uint8), rng.integers(0, 3, 10)
    losses = [training_of(layers, parameters, x, y, "float32").run(np.arange(10), 4, 0.0) for x in (X, X.astype("f4"))]
    same_bits(*losses)


@pytest.mark.parametrize("when", ["forward", "step"])
def test_an_interrupted_batch_is_done_or_undone_as_a_whole(rng, same_bits, monkeypatch, when):
    layers = chained((1, 5, 5), *NETS["normalized"], (Linear, 3))
    parameters = parameters_of(layers, rng)
    X, y = rng.normal(size=(12, 1, 5, 5)), rng.integers(0, 3, 12)
    whole, broken = (training_of(layers, parameters, X, y, rule="adam") for _ in range(2))
    run, calls = parallel.run, []

    def interrupted(task, n_blocks, n_threads):
        calls.append(n_blocks)
        in_step = task.__name__ == "move"
        if len(calls) > 12 and in_step == (when == "step"):
            if in_step:
                task(0)
            raise KeyboardInterrupt
        run(task, n_blocks, n_threads)

    monkeypatch.setattr(parallel, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        broken.run(np.tile(np.arange(12), 5), 4, 0.01)
    monkeypatch.undo()
    assert 0 < broken.n_steps < 15
    whole.run(np.tile(np.arange(12), 5)[: 4 * broken.n_steps], 4, 0.01)
    same_bits(broken.weights.flat, whole.weights.flat)
    same_bits(broken.weights.running, whole.weights.running)


@pytest.mark.needs_jit
@pytest.mark.parametrize("where", ["parts", "rest"])
def test_a_step_that_is_interrupted_again_and_again_is_taken_once(rng, same_bits, monkeypatch, where):
    layers = chained((1, 5, 5), *NETS["normalized"], (Linear, 3))
    parameters = parameters_of(layers, rng)
    X, y = rng.normal(size=(4, 1, 5, 5)), rng.integers(0, 3, 4)
    once = training_of(layers, parameters, X, y, rule="adam")
    once.run(np.arange(4), 4, 0.01)
    take_step, events, place = _grid_loops.take_step, 1, 0

    def interrupted(*arguments):
        nonlocal events
        take_step(*arguments)
        events += 1
        if place <= events < place + 3:
            raise KeyboardInterrupt

    def trace(frame, event, argument):
        nonlocal events
        if frame.f_code.co_filename != convolution_training.__file__ or "complete" not in frame.f_code.co_name:
            return None
        if event == "line":
            events += 1
            if events == place:  # Python then drops the function
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    while place <= events:
        place, events = place + 1, 0
        training = training_of(layers, parameters, X, y, rule="adam")
        try:
            with monkeypatch.context() as patch:
                if where == "parts":
                    patch.setattr(convolution_training, "take_step", interrupted)
                else:
                    sys.settrace(trace)
                training.run(np.arange(4), 4, 0.01)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        assert training.n_steps == 1
        same_bits(training.weights.flat, once.weights.flat, f"place {place}:")
        same_bits(training.weights.running, once.weights.running, f"place {place}:")
    assert place > 2


def test_rows_outside_are_refused(rng):
    layers = chained((1, 2, 2), (Linear, 3))
    training = training_of(layers, parameters_of(layers, rng), rng.normal(size=(3, 1, 2, 2)), np.array([0, 1, 2]))
    assert training.run([], 2, 0.1).shape == (0,)
    for order in ([0, 3], [-1]):
        with pytest.raises(ValueError, match=r"outside 0\.\.2"):
            training.run(order, 2, 0.1)


# ----------------------------------------------------------------------------------------------- twins


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_product_is_its_twin(rng, dtype):
    for count, outer, inner, columns in ((1, 1, 1, 16), (7, 2, 3, 32), (9, 3, 5, 48), (8, 1, 17, 64), (13, 4, 2, 112)):
        left = rng.normal(size=4000).astype(dtype)
        right, added = rng.normal(size=9000).astype(dtype), rng.normal(size=4000).astype(dtype)
        table = ProductTable(
            groups=2, rows=count, outer=outer, inner=inner, left_group=500, left_step=11, left_outer=150,
            right_group=7, right_outer=inner * columns, right_inner=columns, added_group=3, added_row=1,
            result_group=count * columns, result_row=columns, left=5, right=2, result=4, left_image=9, result_image=0,
        )  # fmt: skip
        found, expected = np.zeros((2, 6000), dtype)
        numbers = table.as_array()
        convolution_products.convolve(left, right, added, found, numbers, 1, 2, 0, columns)
        convolution_products.product.twin(True, left, 14, right, 2, added, expected, 4, numbers, 0, columns)
        close(found, expected, dtype)
        numbers = table._replace(added_group=table.result_group, added_row=table.result_row, added=4).as_array()
        found, expected = np.ones(6000, dtype), np.zeros(6000, dtype)
        convolution_products.weight_gradient(left, right, found, numbers, 2, 0, columns)
        for at in (5, 14):
            convolution_products.product.twin(False, left, at, right, 2, expected, expected, 4, numbers, 0, columns)
        made = slice(4, 4 + 2 * count * columns)
        close(found[made], expected[made], dtype)
        assert (found[: made.start] == 1).all()
        assert (found[made.stop :] == 1).all()
