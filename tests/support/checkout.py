"""Where the repository lies that the tests are of.

Test files import nothing from one another, and can't import conftest.py; what they need while they are collected stands
here, on pytest's path.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "setup.cfg").is_file())


def python_path() -> str:
    """Return the variable PYTHONPATH with which another process imports what lies here, installed or not."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
