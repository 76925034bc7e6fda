"""The fixtures that other tests lean on, and the block that a failing test prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from checkout import ROOT


@pytest.fixture
def run_in_copy(tmp_path):
    """Run pytest on a file of its own beside a copy of the conftest.py of all tests."""
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "conftest.py")

    def run(source: str, **environment: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_it.py").write_text(source)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--import-mode=importlib",
            "test_it.py",
        ]
        kept = {k: v for k, v in os.environ.items() if k not in ("FASTML_SEED", "NUMBA_DISABLE_JIT")}
        # The package must be found as it is found here, installed or not.
        path = os.pathsep.join([*filter(None, sys.path), os.getcwd()])
        return subprocess.run(
            command,
            cwd=tmp_path,
            env={**kept, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


SOURCE = """
import pytest
@pytest.fixture
def broken():
    raise OSError
def test_bad(rng):
    assert rng.random() > 1
def test_error(broken):
    pass
def test_good(rng):
    assert rng.random() < 1
@pytest.mark.needs_jit
def test_jit():
    assert False
"""


def test_what_fails_prints_how_to_run_it_again(run_in_copy):
    """A test, a fixture, and a test that needs the JIT and has it, but no test that passes."""
    failed = run_in_copy(SOURCE, FASTML_SEED="7", NUMBA_OPT="2", NUMBA_DISABLE_JIT="0")
    assert "2 failed, 1 passed, 1 error" in failed.stdout
    blocks = failed.stdout.split("- reproduction -")[1:]
    assert [name for block in blocks for name in re.findall(r"pytest 'test_it.py::(\w+)'", block)] == [
        "test_error", "test_bad", "test_jit",
    ]  # fmt: skip
    for block in blocks:
        for part in ("FASTML_SEED=7", "NUMBA_OPT='2'", "numpy " + np.__version__, "Numba target"):
            assert part in block, part


def test_needs_jit_is_skipped_without_the_jit(run_in_copy):
    assert "1 failed, 1 passed, 1 skipped, 1 error" in run_in_copy(SOURCE, NUMBA_DISABLE_JIT="1").stdout


def test_seeds_depend_on_the_test_and_on_FASTML_SEED_only(run_in_copy):
    """Of two tests, each twice: once as the first, once as the last."""
    source = """
class TestOnce:
    def test_a(self, rng):
        print("a is", rng.random())
    def test_b(self, rng):
        print("b is", rng.random())
class TestTwice:
    test_b, test_a = TestOnce.test_b, TestOnce.test_a
"""

    def numbers(seed: str) -> list[str]:
        return re.findall(r"[ab] is ([\d.e-]+)", run_in_copy(source, FASTML_SEED=seed, PYTEST_ADDOPTS="-s").stdout)

    first, other, other_again, first_again = numbers("0")
    assert (first, other) == (first_again, other_again)
    assert first != other
    assert numbers("1")[0] != first


@pytest.mark.parametrize("loss", ["hinge", "absolute_error", "huber", "multiclass_hinge"])
def test_loss_arguments_keep_away_from_kinks(rng, loss_args, loss):
    z, y = loss_args(rng, loss, 500)
    if loss == "multiclass_hinge":
        margin = 1.0 + z - z[np.arange(500), y][:, None]
        margin[np.arange(500), y] = 0.0
        top = np.sort(margin, axis=1)
        assert (top[:, -1] - top[:, -2]).min() > 0.03
    else:
        gap = {"hinge": y * z - 1, "absolute_error": z - y, "huber": np.abs(z - y) - 1.35}[loss]
        assert np.abs(gap).min() > 0.03
