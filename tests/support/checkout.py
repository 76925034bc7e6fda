"""Where the repository lies that the tests are of.

Test files import nothing from one another, and can't import conftest.py; what they need while they are collected stands
here, on pytest's path.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "setup.cfg").is_file())


def python_path() -> str:
    """Return the variable PYTHONPATH with which another process imports what lies here, installed or not."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def run_python(code: str, *arguments: str, timeout: float = 1800, **changes: str) -> str:
    """Run `code` in a process of its own, with `changes` of the environment; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": python_path(), **changes},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
