"""A new loss takes the files that docs/adding_a_loss.md names, and no other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.needs_jit]

ROOT = next(folder for folder in Path(__file__).parents if (folder / "setup.cfg").exists())

FILES = [
    "kernels/catalogue/losses.py",
    "kernels/losses/formulas.py",
    "kernels/losses/regression.py",
    "kernels/losses/table.py",
    "kernels/reference/loops/losses.py",
    "kernels/reference/vectorized/losses.py",
]

#: A block of the guide: its file, where it goes in there, and the code.
BLOCK = re.compile(
    r"^`(?P<file>\S+\.py)`, (?:(?P<how>before|into) `(?P<where>[^`]+)`|at the end)[^\n]*\n"
    r"(?:[^`\n].*\n)*(?:`[^`]+`\.\n)?\n```py\n(?P<code>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)

#: The three tiers agree, as far as the catalogue says; linear models have the loss; so has the estimator.
USE = """
import sys

import numpy as np

import fastml
from fastml import SGDRegressor, kernels
from fastml.kernels import catalogue

assert fastml.__file__.startswith(sys.argv[1]), fastml.__file__
ours = [entry for key, entry in catalogue.ENTRIES.items() if "log_cosh" in key]
assert [entry.key for entry in ours] == [
    "log_cosh", "log_cosh_gradient", "linear_loss_gradient[log_cosh]", "train_linear[log_cosh]",
    "linear_evaluation[log_cosh]",
]
for entry in ours:
    for dtype in entry.dtypes:
        for regime in entry.regimes:
            inputs = entry.make(entry.sizes["tiny"], dtype, regime)
            truth = entry.reference(inputs)
            for tier in ("loops", "vectorized", "compiled"):
                result = entry.tier(tier)(*inputs.args, **inputs.kwargs)
                assert catalogue.check(entry, result, truth, dtype) <= 1, (entry.key, dtype, regime, tier)

rng = np.random.default_rng(0)
X = rng.normal(size=(500, 3))
y = X @ [1.0, -2.0, 0.5] + 3
y[::50] += 1000
model = SGDRegressor("log_cosh", learning_rate="constant", eta0=0.1, batch_size=50, alpha=0, random_state=0)
model.fit(X, y, X_val=X[:100], y_val=y[:100])
assert np.abs(model.coef_ - [1.0, -2.0, 0.5]).max() < 0.1, model.coef_
predicted = model.predict(X[:100])
assert abs(model.history_["validation_loss"][-1] - kernels.log_cosh(predicted, y[:100])) < 1e-6
assert SGDRegressor("log_cosh", learning_rate="optimal", random_state=0).fit(X, y).n_iter_ > 0
try:
    SGDRegressor("cosh").fit(X, y)
except ValueError as error:
    assert "log_cosh" in str(error), error
else:
    raise AssertionError("there is no loss of that name")
print("good")
"""


def apply(text: str, how: str | None, where: str | None, code: str) -> str:
    """Return the text of a module with code where the guide says."""
    if how == "into":
        head, table, tail = re.split(rf"(^{where}\b.*?^}}$)", text, maxsplit=1, flags=re.MULTILINE | re.DOTALL)
        return head + table[:-1] + code + table[-1] + tail
    if how == "before":
        at = re.search(rf"^(#:.*\n)*{where}\b", text, flags=re.MULTILINE)
        assert at is not None
        return f"{text[: at.start()]}{code}\n\n{text[at.start() :]}"
    for name in re.findall(r"^def (\w+)", code, flags=re.MULTILINE):
        text = text.replace("__all__ = [", f'__all__ = ["{name}", ', 1)
    return f"{text}\n\n{code}"


def test_a_new_loss_is_known_everywhere(tmp_path):
    left_out = shutil.ignore_patterns("__pycache__", "kernels")
    shutil.copytree(ROOT / "fastml", tmp_path / "fastml", ignore=left_out)
    shutil.copytree(ROOT / "kernels", tmp_path / "fastml" / "kernels", ignore=left_out)
    page = (ROOT / "docs" / "adding_a_loss.md").read_text("utf-8")
    blocks = list(BLOCK.finditer(page))
    assert len(blocks) == page.count("\n```py\n")
    assert sorted({block["file"] for block in blocks}) == FILES
    for block in blocks:
        path = tmp_path / "fastml" / block["file"]
        path.write_text(apply(path.read_text("utf-8"), block["how"], block["where"], block["code"]), "utf-8")
    formulas = tmp_path / "fastml" / "kernels" / "losses" / "formulas.py"
    formulas.write_text(formulas.read_text("utf-8").replace("like, log1p\n", "like, log1p, tanh\n"), "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
