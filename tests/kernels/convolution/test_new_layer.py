"""A new image layer takes the files that docs/adding_a_layer.md names, and no other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.needs_jit]

# A second layer, with parameters: it adds a number to each channel. Two files, for NumPy does the work.
SHIFT = {
    "kernels/convolution/layers.py": '''
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
''',
    "fastml/layers.py": '''
@dataclass(frozen=True)
class Shift(_Layer):
    """Adds a number to each channel."""

    def layer(self, shape, name="Shift"):
        return kernel_layers.Shift(shape)
''',
}

#: What a user does with them, and their gradient beside differences.
USE = """
import sys, tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import fastml
from fastml import ConvNetClassifier
from fastml.kernels.convolution.buffers import Images
from fastml.kernels.convolution.network import Network
from fastml.kernels.convolution.training import ConvNetTraining
from fastml.layers import BatchNorm, Conv2D, Dropout, LeakyReLU, Linear, MaxPool2D, Shift, chain

assert Path(fastml.__file__).is_relative_to(sys.argv[1]), fastml.__file__

X, y = load_digits(return_X_y=True)
X = X.reshape(-1, 1, 8, 8).astype("float32") / 16
net = [Shift(), Conv2D(8), Shift(), LeakyReLU(0.1), MaxPool2D(), Linear(20), LeakyReLU()]
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
net = [
    LeakyReLU(0.3), Shift(), Conv2D(4), LeakyReLU(0.2), Shift(), Conv2D(3, 2, padding=0, stride=2), Dropout(0.2),
    BatchNorm(), LeakyReLU(0.5), Linear(6), Shift(), LeakyReLU(), Linear(3),
]
network = Network(chain(net, X.shape[1:]), np.dtype(float))
images = Images(X, np.zeros(2), np.ones(2))


def loss(parameters):
    weights = network.pack(parameters)
    return ConvNetTraining(network, "softmax_cross_entropy", images, y, weights, n_threads=1).loss_gradient(rows)


parameters = [layer.initial_parameters(rng) for layer in network.layers]
parameters = [
    {name: value + 0.1 * rng.normal(size=value.shape) if "running" not in name else value for name, value in of.items()}
    for of in parameters
]
_, gradient = loss(parameters)
found = 0
for number, of_layer in enumerate(gradient):
    for name, slope in of_layer.items():
        move, sides = rng.normal(size=slope.shape), []
        for step in (1e-6, -1e-6):
            moved = [dict(of) for of in parameters]
            moved[number][name] = moved[number][name] + step * move
            sides.append(loss(moved)[0])
        np.testing.assert_allclose((sides[0] - sides[1]) / 2e-6, np.vdot(slope, move), rtol=1e-5, atol=1e-8)
        found += 1
assert found == 13
"""


def blocks(page: str) -> list[tuple[str, str]]:
    """File and code of each block of the guide."""
    return re.findall(r"^`(\S+\.py)`[^`]*(?:`[^`]+`[^`]*)*?\n```py\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def apply(copy: Path, file: str, code: str) -> None:
    """Put code where the guide says: before `KINDS`, with the name in `__all__`; elsewhere at the end."""
    path = copy / ("fastml" if file.startswith("kernels/") else "") / file
    text = path.read_text("utf-8")
    if file == "fastml/layers.py":
        (name,) = re.findall(r"^class (\w+)", code, flags=re.MULTILINE)
        text = text.replace("__all__ = [", f'__all__ = ["{name}", ', 1)
        before, kinds, after = text.partition("KINDS")
        text = f"{before}{code}\n\n{kinds}{after}"
    else:
        text += f"\n\n{code}"
    path.write_text(text, "utf-8")


def test_new_layers_train_are_kept_and_have_their_gradient(tmp_path, root):
    left_out = shutil.ignore_patterns("__pycache__", "kernels")
    shutil.copytree(root / "fastml", tmp_path / "fastml", ignore=left_out)
    shutil.copytree(root / "kernels", tmp_path / "fastml" / "kernels", ignore=left_out)
    found = blocks((root / "docs" / "adding_a_layer.md").read_text("utf-8"))
    assert [file for file, _ in found] == [
        "kernels/convolution/_grid_loops.py",
        "kernels/convolution/layers.py",
        "fastml/layers.py",
    ]
    for file, code in [*found, *SHIFT.items()]:
        apply(tmp_path, file, code)
    done = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
