"""The scikit-learn that is installed, for tests of what only some have."""

from __future__ import annotations

import sklearn

__all__ = ["SKLEARN"]

SKLEARN = tuple(int(part) for part in sklearn.__version__.split(".")[:2])
