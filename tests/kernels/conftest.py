"""Fixtures for tests of kernels."""

from __future__ import annotations

import threading

import pytest

from fastml.kernels.runtime import parallel


@pytest.fixture
def fresh_pool(monkeypatch):
    """A pool of which no thread has been started.

    A helper of an earlier test may have been asked and not have begun yet: it goes back to the pool it is from.
    """
    earlier, pool = set(threading.enumerate()), parallel._pool

    class FreshPool(list):
        def append(self, inbox):
            if threading.current_thread() in earlier:
                pool.append(inbox)
            else:
                super().append(inbox)

    monkeypatch.setattr(parallel, "_pool", FreshPool([None] * parallel._POOL_THREADS))
