"""What a user waits for before anything is computed: imports, and the first call with an empty and a warm cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import fastml

from .common import Settings

_IMPORTS = {
    "fastml": "import fastml",
    "fastml.kernels": "import fastml.kernels",
    "a kernel": "from fastml.kernels import k_nearest",
    "an estimator": "from fastml import KNeighborsClassifier",
}
_CALLS = {
    "exp": "kernels.exp(x)",
    "pairwise_l2": "kernels.pairwise_l2(x, x)",
    "k_nearest": "kernels.k_nearest(x, x, 1)",
    "softmax_cross_entropy_gradient": "kernels.softmax_cross_entropy_gradient(x, [0, 1])",
}
# A new process finds the fastml that this one found, however it is installed.
_HERE = f"import sys; sys.path.insert(0, {str(Path(fastml.__file__).parents[1])!r}); "
_FIRST = """
import time
import numpy as np
from fastml import kernels
x = np.ones((2, 3), np.float32)
start = time.perf_counter()
{call}
print(time.perf_counter() - start)
"""


class Import(Settings):
    """A new process that imports one thing."""

    param_names = ("what",)
    params = ([*_IMPORTS],)
    number = 1

    def setup(self, what: str) -> None:
        command = [sys.executable, "-c", _HERE + _IMPORTS[what]]
        problem = subprocess.run(command, capture_output=True, text=True, check=False).stderr
        if "cannot import name" in problem or "No module named 'fastml." in problem:
            raise NotImplementedError("this commit does not have it")
        assert not problem, problem

    def timeraw_import(self, what: str) -> str:
        return _HERE + _IMPORTS[what]


class FirstCall(Settings):
    """The first call in a new process, imports not counted."""

    param_names = ("kernel", "cache")
    params = ([*_CALLS], ["empty", "warm"])
    rounds = 1

    def setup(self, kernel: str, cache: str) -> None:
        from fastml import kernels

        if not hasattr(kernels, kernel):
            raise NotImplementedError(f"there is no {kernel}")
        self.folder = tempfile.TemporaryDirectory()
        if cache == "warm":
            self._first(kernel)

    def track_first_call(self, kernel: str, cache: str) -> float:
        return self._first(kernel)

    def teardown(self, kernel: str, cache: str) -> None:
        self.folder.cleanup()

    def _first(self, kernel: str) -> float:
        environ = {**os.environ, "NUMBA_CACHE_DIR": self.folder.name}
        code = _HERE + _FIRST.format(call=_CALLS[kernel])
        done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
        return float(done.stdout)

    track_first_call.unit = "seconds"  # type: ignore[attr-defined]
