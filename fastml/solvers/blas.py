"""BLAS kept to one thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]


_limits = threading.Lock()
_limited = 0
_limit: Any = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS to one thread: its bits change with their number, and small matrices are slower with more.

    The limit holds for the process; it is set by the first thread that asks and lifted by the last.
    """
    global _limited, _limit
    with _limits:
        if _limited == 0:
            _limit = _controller().limit(limits=1, user_api="blas")
            _limit.__enter__()
        _limited += 1
    try:
        yield
    finally:
        with _limits:
            _limited -= 1
            if _limited == 0:
                _limit.__exit__(None, None, None)


@cache
def _controller() -> Any:
    return ThreadpoolController()
