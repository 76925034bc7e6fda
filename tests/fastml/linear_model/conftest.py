"""Problems that several files fit."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def classes(rng):
    """Rows and labels of three classes."""
    X, y = rng.normal(size=(60, 5)), np.arange(60) % 3
    X[:, 0] += y
    return X, np.array(["c", "a", "b"])[y]


@pytest.fixture
def numbers(rng):
    """Rows and numbers."""
    X = rng.normal(size=(60, 5))
    return X, X @ rng.normal(size=5) + 0.1 * rng.normal(size=60) + 2
