"""A new image layer takes the files that docs/adding_a_layer.md names, and no other."""

from __future__ import annotations

import pytest

from guides import blocks_of, copy_with, page, run_on_copy

pytestmark = [pytest.mark.slow, pytest.mark.needs_jit]

# A second layer, with parameters: it adds a number to each channel. Two files, for NumPy does the work.
SHIFT = '''
`kernels/convolution/layers.py`, at the end, and in `__all__`:

```py
class Shift(Layer):
    """Adds a number to each channel."""

    def in_place(self, training):
        return not training  # signs change

    def grad_in_place(self):
        return True

    def public_shapes(self):
        return {"bias": self.shape[:1]}

    def stored_shapes(self, dtype, pitch):
        return {"bias": (pitch,)}

    def initial_parameters(self, rng):
        return {"bias": np.zeros(self.shape[0])}

    def pack(self, name, stored, value):
        stored[: self.shape[0]] = value

    def unpack(self, name, stored):
        return stored[: self.shape[0]]

    def _sums(self, buffers):
        return buffers.array("sums", (buffers.input.images, self.shape[0]))

    def forward(self, buffers, n):
        x, out = buffers.input.pixels(n), buffers.output.pixels(n)
        shift = self.unpack("bias", buffers.parameters["bias"])

        def add(first, last):
            out[first:last] = x[first:last] + shift

        yield Task(add)

    def backward(self, buffers, n):
        pixels, sums = buffers.output_grad.pixels(n), self._sums(buffers)

        def add_up(first, last):
            sums[first:last] = pixels[first:last].sum(axis=(1, 2))

        yield Task(add_up)

    def gradient(self, buffers, n):
        sums, gradient = self._sums(buffers), self.unpack("bias", buffers.gradient["bias"])

        def join():
            gradient[:] = sums[:n].sum(axis=0, dtype=np.float64)

        yield Task.whole_batch(join)
```

`fastml/layers.py`, before `KINDS`, and in `__all__`:

```py
@dataclass(frozen=True)
class Shift(_Layer):
    """Adds a number to each channel."""

    def layer(self, shape, name="Shift"):
        return kernel_layers.Shift(shape)
```
'''

#: What a user does with them; and gradients beside differences, with `Dropout` directly after each of them. At the end
#: a layer that trusts its output: it must be found.
USE = """
import sys, tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import fastml.layers
from fastml import ConvNetClassifier
from fastml.kernels.convolution import layers as kernel_layers
from fastml.kernels.convolution.buffers import Images
from fastml.kernels.convolution.network import Network
from fastml.kernels.convolution.tasks import Task
from fastml.kernels.convolution.training import ConvNetTraining
from fastml.layers import BatchNorm, Conv2D, Dropout, LeakyReLU, Linear, MaxPool2D, Shift, chain

X, y = load_digits(return_X_y=True)
X = X.reshape(-1, 1, 8, 8).astype("float32") / 16
net = [Shift(), Conv2D(8), Shift(), LeakyReLU(0.1), Dropout(0.1), MaxPool2D(), Linear(20), LeakyReLU()]
settings = {"max_iter": 6, "batch_size": 32, "learning_rate_init": 0.01, "tol": None, "random_state": 0}
model, other = (ConvNetClassifier(net, n_jobs=n, **settings).fit(X[:1200], y[:1200]) for n in (1, 2))
assert model.score(X[1200:], y[1200:]) > 0.85
for one, two in zip(model.parameters_, other.parameters_, strict=True):
    assert one.keys() == two.keys()
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
assert model.parameters_[2]["bias"].any()
assert "LeakyReLU(share=0.1)" in model.summary()
assert "Shift()" in model.summary()

file = Path(tempfile.mkdtemp(dir=sys.argv[1])) / "model.npz"
model.save(file)
again = ConvNetClassifier.load(file)
assert again.layers == net
assert again.predict_proba(X).tobytes() == model.predict_proba(X).tobytes()

try:
    ConvNetClassifier([LeakyReLU(2.0)]).fit(X, y)
except ValueError as error:
    assert "layers[0] (LeakyReLU).share is 2.0" in str(error), error
else:
    raise AssertionError("a share of 2 is refused")

rng = np.random.default_rng(0)
X, y, rows = rng.normal(size=(5, 2, 7, 6)), rng.integers(0, 3, 5), np.array([3, 0, 4])
images = Images(X, np.zeros(2), np.ones(2))


def differentiate(*net):
    # Hold the gradient in each parameter against differences; return how many parameters there are.
    network, found = Network(chain(net, X.shape[1:]), np.dtype(float)), 0

    def loss(parameters):
        weights = network.pack(parameters)
        return ConvNetTraining(network, "softmax_cross_entropy", images, y, weights, n_threads=1).loss_gradient(rows)

    parameters = [layer.initial_parameters(rng) for layer in network.layers]
    for of in parameters:
        for name in set(of) - {"running_mean", "running_var"}:
            of[name] = of[name] + 0.1 * rng.normal(size=of[name].shape)
    _, gradient = loss(parameters)
    for number, of_layer in enumerate(gradient):
        for name, slope in of_layer.items():
            move, sides = rng.normal(size=slope.shape), []
            for step in (1e-6, -1e-6):
                moved = [dict(of) for of in parameters]
                moved[number][name] = moved[number][name] + step * move
                sides.append(loss(moved)[0])
            np.testing.assert_allclose((sides[0] - sides[1]) / 2e-6, np.vdot(slope, move), rtol=1e-5, atol=1e-8)
            found += 1
    return found


assert differentiate(
    LeakyReLU(0.3), Shift(), Conv2D(4), LeakyReLU(0.2), Shift(), Conv2D(3, 2, padding=0, stride=2), Dropout(0.2),
    BatchNorm(), LeakyReLU(0.5), Linear(6), Shift(), LeakyReLU(), Linear(3),
) == 13
for new in (LeakyReLU(0.3), Shift()):
    assert differentiate(Conv2D(4), new, Dropout(0.4), Linear(6), new, Dropout(0.4), Linear(3)) >= 6


class WrongClip(kernel_layers.Layer):
    # min(max(z, 0), 1), which looks for the ones in its output
    def in_place(self, training):
        return True

    def forward(self, buffers, n):
        values = buffers.output.pixels(n)
        yield Task(lambda first, last: np.clip(values[first:last], 0, 1, out=values[first:last]))

    def backward(self, buffers, n):
        values, grad = buffers.output.pixels(n), buffers.input_grad.pixels(n)

        def cut(first, last):
            grad[first:last] *= (values[first:last] > 0) & (values[first:last] < 1)

        yield Task(cut)


@dataclass(frozen=True)
class Clip(fastml.layers._Layer):
    def layer(self, shape, name=""):
        return WrongClip(shape)


fastml.layers.KINDS["Clip"] = Clip
differentiate(Conv2D(4), Clip(), Linear(3))
try:
    differentiate(Conv2D(4), Clip(), Dropout(0.4), Linear(3))
except AssertionError:
    pass
else:
    raise AssertionError("a layer that trusts its output is not found")
"""


def test_new_layers_train_are_kept_and_have_their_gradient(tmp_path):
    guide = page("adding_a_layer.md")
    blocks = blocks_of(guide)
    assert "Three code files" in guide
    assert len({block.file for block in blocks}) == 3
    copy_with([*blocks, *blocks_of(SHIFT)], tmp_path)
    run_on_copy(USE, tmp_path)
