"""A problem that several files fit."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def data(rng):
    """Small whole numbers, so that most distances tie, and labels that have something to do with them."""
    X = rng.integers(0, 5, (90, 3)).astype(np.uint8)
    y = (X.sum(axis=1, dtype=int) // 3 + rng.integers(0, 2, 90)) % 4
    y[:24] = np.arange(24) % 4  # enough of every class to stratify
    return X, y
