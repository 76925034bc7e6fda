"""What the commands of ``python -m benches`` share: numbers refused with a message, missing packages, errors."""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
from collections.abc import Mapping

__all__ = ["count", "fail", "let_idle_threads_sleep", "missing", "positive"]

#: Libraries read these when they are loaded: idle threads sleep. Spinning on, for more than 60 ms after a product of
#: matrices, they would take a core from whoever comes next.
_SLEEP = {"OPENBLAS_THREAD_TIMEOUT": "4", "OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}


def count(text: str) -> int:
    """Read a positive integer."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def positive(text: str) -> float:
    """Read a positive, finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def missing(needs: Mapping[str, str]) -> str | None:
    """Say which packages are not installed and how to get them, or None; `needs` has the extra of each package."""
    absent = [name for name in needs if importlib.util.find_spec(name) is None]
    if not absent:
        return None
    extras = ",".join(sorted({needs[name] for name in absent}))
    return f"{', '.join(absent)}: python -m pip install -e '.[{extras}]'"


def let_idle_threads_sleep() -> None:
    """Tell the libraries that have threads; must come before NumPy is loaded, and does nothing after that."""
    if "numpy" not in sys.modules:
        os.environ.update({name: value for name, value in _SLEEP.items() if name not in os.environ})


def fail(message: str) -> int:
    """Print an error and return the exit code for it."""
    print(f"error: {message}", file=sys.stderr)
    return 2
