"""The guide to a new activation, followed on a copy of the package: five files of code, and all else knows it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import fastml
from fastml import kernels
from fastml.kernels.networks.activations import activate, activate_backward
from fastml.kernels.networks.arguments import ACTIVATIONS

#: Of each file what is put where: before a line of it, which it has once.
EDITS = {
    "networks/arguments.py": [
        (
            "}\n\n\nclass NetworkArguments",
            '    "softsign": Activation("z / (1 + abs(z))", "(1 - abs(a)) * (1 - abs(a))"),\n',
        )
    ],
    "networks/activations.py": [
        ("\n# A loop for each", '_SOFTSIGN = list(ACTIVATIONS).index("softsign")\n'),
        (
            "    else:\n        for j in range(a.size):\n            a[j] = z[j]\n",
            """    elif kind == _SOFTSIGN:
        for j in range(a.size):
            a[j] = z[j] / (like(z[j], 1) + abs(z[j]))
""",
        ),
        (
            "    else:\n        for j in range(g.size):\n            g[j] = d[j]\n",
            """    elif kind == _SOFTSIGN:
        for j in range(g.size):
            g[j] = d[j] * ((like(a[j], 1) - abs(a[j])) * (like(a[j], 1) - abs(a[j])))
""",
        ),
    ],
    "reference/loops/networks.py": [
        (
            '    return _sigmoid(z) if name == "logistic" else z\n',
            '    if name == "softsign":\n        return z / (1 + abs(z))\n',
        ),
        (
            '    return a * (1 - a) if name == "logistic" else 1.0\n',
            '    if name == "softsign":\n        return (1 - abs(a)) ** 2\n',
        ),
    ],
    "reference/vectorized/networks.py": [
        ("    return Z\n", '    if activation == "softsign":\n        return np.divide(Z, 1 + np.abs(Z), out=Z)\n'),
        ("    return D\n", '    if activation == "softsign":\n        D *= np.square(1 - np.abs(A))\n'),
    ],
    "catalogue/networks.py": [
        (
            "}\n\n\nclass _Normal",
            '    "softsign": (lambda z: z / (1 + np.abs(z)), lambda z: (1 + np.abs(z)) ** -2.0, 2, 0),\n',
        ),
        ('    yield _scores("relu", batch_norm=True)\n', '    yield _scores("softsign")\n'),
    ],
}

PROGRAM = """
from sys import argv
import numpy as np
import fastml
from fastml import MLPClassifier, kernels
from fastml.kernels import catalogue
from fastml.kernels.reference import loops, vectorized

assert fastml.__file__.startswith(argv[1]) and kernels.__file__.startswith(argv[1])
rng = np.random.default_rng(0)
X, units = rng.normal(size=(40, 5)), (5, 7, 6, 3)
y, p = rng.integers(0, 3, 40), rng.normal(size=111)
for batch_norm in (False, True):
    q = np.concatenate([p[:42], np.ones(21), p[42:90], np.ones(18), p[90:]]) if batch_norm else p
    found = [
        tier.network_loss_gradient(
            "softmax_cross_entropy", X, y, q, units, activation="softsign", l2=0.1, batch_norm=batch_norm
        )
        for tier in (kernels, loops, vectorized)
    ]
    for loss, gradient in found[1:]:
        assert abs(loss - found[0][0]) < 1e-12
        np.testing.assert_allclose(gradient, found[0][1], rtol=0, atol=1e-12)
entry = catalogue.ENTRIES["network_scores[softsign]"]
inputs = entry.make(entry.sizes["tiny"], "float32", entry.regimes[0], 0)
scores = kernels.network_scores(*inputs.args, **inputs.kwargs)
assert catalogue.check(entry, scores, entry.reference(inputs), "float32") <= 1
X = np.concatenate([rng.normal(size=(100, 2)) - 1.5, rng.normal(size=(100, 2)) + 1.5])
y = np.repeat(["left", "right"], 100)
model = MLPClassifier((8,), activation="softsign", batch_size=10, max_iter=50, tol=None, random_state=0).fit(X, y)
assert model.score(X, y) > 0.95
print("all of it")
"""


def edited(text: str, edits: list[tuple[str, str]]) -> str:
    """Put lines into a file, each before a place that is there once."""
    for place, lines in edits:
        assert text.count(place) == 1, place
        text = text.replace(place, lines + place)
    return text


@pytest.mark.slow
@pytest.mark.needs_jit
def test_a_new_activation_takes_five_files(tmp_path):
    package = tmp_path / "fastml"
    shutil.copytree(Path(fastml.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "kernels"))
    shutil.copytree(Path(kernels.__file__).parent, package / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    assert len(EDITS) == 5
    for file, edits in EDITS.items():
        path = package / "kernels" / file
        path.write_text(edited(path.read_text("utf-8"), edits), "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "all of it"


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_formulas_are_those_of_the_table(rng, name, dtype):
    """One that has no branch of its own would be the identity."""
    z, d = rng.normal(size=(2, 50)).astype(dtype) * 3
    words = {"max": np.maximum, "exp": np.exp, "tanh": np.tanh}
    a, g = np.empty_like(z), np.empty_like(z)
    number, (formula, derivative) = list(ACTIVATIONS).index(name), ACTIVATIONS[name]
    activate(number, z, a)
    activate_backward(number, a, d, g)
    tolerance = 8 * np.finfo(dtype).eps
    assert_allclose(a, eval(formula, words, {"z": z.astype("float64")}), rtol=tolerance, atol=0)
    assert_allclose(g, d * eval(derivative, words, {"a": a.astype("float64")}), rtol=tolerance, atol=tolerance)
