"""A metric is added to a copy of the package as docs/adding_a_metric.md says, and works everywhere at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from checkout import ROOT

pytestmark = [pytest.mark.needs_jit, pytest.mark.slow]

PAGE = (ROOT / "docs" / "adding_a_metric.md").read_text("utf-8")


class Step(NamedTuple):
    """A file that the page names, and the code it shows for it."""

    file: str
    code: str


def steps() -> list[Step]:
    parts = re.findall(r"^\d+\. `([^`]+)`(.*?)(?=^\d+\. `|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return [
        Step(file, "".join(re.findall(r"^```py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))) for file, text in parts
    ]


def replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def with_metric(step: Step, text: str) -> str:
    """Return a file with what the page adds to it: entries where they belong, functions at the end."""
    name = Path(step.file).name
    if name == "arguments.py":
        return replaced(text, '    "linf": MetricDefinition(', f'{step.code}    "linf": MetricDefinition(')
    if '"pairwise_linf"' in text:
        text = replaced(text, '"pairwise_linf"', '"pairwise_linf", "pairwise_hamming"')
    if "vectorized" in step.file:
        old = '            if metric == "l2":\n                np.multiply('
        text = replaced(text, old, step.code.rstrip() + old.lstrip())
        return text + replaced(pairwise_of_loops(), "@quiet\n", "")
    return f"{text}\n\n{step.code}"


def pairwise_of_loops() -> str:
    [code] = [step.code for step in steps() if "loops" in step.file]
    return "\n\n@quiet\n" + code[code.index("def pairwise_hamming") :]


TRY = """
import numpy as np
import fastml
from fastml import KNeighborsClassifier, kernels, knn_cross_validation
from fastml.kernels import catalogue
from fastml.kernels.reference import loops, vectorized

assert fastml.__file__.startswith(COPY) and kernels.__file__.startswith(COPY)
rng = np.random.default_rng(0)
for dtype in ("float32", "uint8"):
    for n, m, d in ((1, 1, 0), (5, 7, 3), (13, 131, 70), (90, 300, 33)):
        X, Y = (rng.integers(0, 3, (rows, d)).astype(dtype) for rows in (n, m))
        found, nearest = kernels.pairwise_hamming(X, Y), kernels.k_nearest(X, Y, min(m, 4), metric="hamming")
        assert found.dtype == ("int32" if dtype == "uint8" else dtype)
        for tier in (loops, vectorized):
            assert np.array_equal(found, tier.pairwise_hamming(X, Y)), (tier.__name__, dtype, d)
            for got, want in zip(nearest, tier.k_nearest(X, Y, min(m, 4), metric="hamming"), strict=True):
                assert np.array_equal(got, want), (tier.__name__, dtype, d)
        assert np.array_equal(found, (X[:, None] != Y).sum(axis=2))

keys = [key for key in catalogue.ENTRIES if "hamming" in key]
assert keys == ["pairwise_hamming", "k_nearest[hamming]"]
for key in keys:
    entry = catalogue.ENTRIES[key]
    for dtype in ("float32", "uint8"):
        inputs = entry.make(entry.sizes["tiny"], dtype)
        for tier in ("compiled", "vectorized", "loops"):
            result = entry.tier(tier)(*inputs.args, **inputs.kwargs)
            assert catalogue.check(entry, result, entry.reference(inputs), dtype) <= 1, (key, dtype, tier)

X, y = rng.integers(0, 3, (80, 9)).astype("f4"), rng.integers(0, 3, 80)
model = KNeighborsClassifier(3, metric="hamming").fit(X[:60], y[:60])
assert model.effective_metric_ == "hamming"
distances, indices = model.kneighbors(X[60:])
want = loops.k_nearest(X[60:], X[:60], 3, metric="hamming")
assert np.array_equal(indices, want[1]) and np.array_equal(distances, want[0])
votes = [np.bincount(y[row]).argmax() for row in want[1]]
assert np.array_equal(model.predict(X[60:]), votes)
result = knn_cross_validation(X, y, n_neighbors=[1, 3], metrics=["l1", "hamming"], cv=4, random_state=0)
assert result.scores.shape[0] == 2
"""


def test_the_page_names_seven_files_each_of_which_is_there():
    files = [step.file for step in steps()]
    assert len(set(files)) == len(files) == 7
    assert "seven\ncode files" in PAGE or "seven code files" in PAGE
    assert all((ROOT / file).is_file() for file in files)


def test_a_metric_added_as_the_page_says_works_in_all_tiers_and_models(tmp_path):
    copy = tmp_path / "fastml"
    ignored = shutil.ignore_patterns("__pycache__", "kernels")
    shutil.copytree(ROOT / "fastml", copy, ignore=ignored)
    shutil.copytree(ROOT / "kernels", copy / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    for step in steps():
        file = copy / step.file
        file.write_text(with_metric(step, file.read_text("utf-8")), "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    code = TRY.replace("COPY", repr(str(copy)))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
