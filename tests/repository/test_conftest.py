"""The fixtures that other tests lean on, and the block that a failing test prints."""

from __future__ import annotations

import os
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


def test_a_failing_test_prints_how_to_run_it_again(run_in_copy):
    failed = run_in_copy("def test_bad(rng):\n    assert rng.random() > 1\n", FASTML_SEED="7", NUMBA_OPT="2")
    assert failed.returncode == 1
    block = failed.stdout[failed.stdout.index("reproduction") :]
    for part in ("FASTML_SEED=7", "NUMBA_OPT='2'", "test_it.py::test_bad", "numpy " + np.__version__, "Numba target"):
        assert part in block, part


def test_a_passing_test_prints_no_such_block(run_in_copy):
    passed = run_in_copy("def test_good(rng):\n    assert rng.random() < 1\n")
    assert passed.returncode == 0
    assert "- reproduction -" not in passed.stdout


def test_a_failing_fixture_prints_the_block_too(run_in_copy):
    failed = run_in_copy(
        "import pytest\n@pytest.fixture\ndef broken():\n    raise OSError\ndef test_bad(broken):\n    pass\n"
    )
    assert failed.returncode == 1
    assert "test_it.py::test_bad" in failed.stdout[failed.stdout.index("- reproduction -") :]


def test_seeds_depend_on_the_test_and_on_FASTML_SEED_only(run_in_copy):
    source = "def test_a(rng):\n    print('a', rng.random())\ndef test_b(rng):\n    print('b', rng.random())\n"
    swapped = "\n".join([*source.splitlines()[2:], *source.splitlines()[:2], ""])

    def numbers(text: str, seed: str) -> dict[str, str]:
        output = run_in_copy(text, FASTML_SEED=seed, PYTEST_ADDOPTS="-s").stdout
        words = output.replace(".a ", "a ").replace(".b ", "b ").split()
        return {name: words[words.index(name) + 1] for name in ("a", "b")}

    first = numbers(source, "0")
    assert first["a"] != first["b"]
    assert numbers(swapped, "0") == first
    assert numbers(source, "1")["a"] != first["a"]


def test_needs_jit_is_skipped_without_the_jit(run_in_copy):
    source = "import pytest\n@pytest.mark.needs_jit\ndef test_slow():\n    assert False\n"
    assert run_in_copy(source, NUMBA_DISABLE_JIT="1").returncode == 0
    assert run_in_copy(source, NUMBA_DISABLE_JIT="0").returncode == 1


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
