"""What the estimators share."""

from __future__ import annotations

import numpy as np

from .kernels import _threads


def positive_integer(value: object, name: str) -> int:
    """Return a parameter as an int of at least 1; `name` is what the caller calls it.

    >>> positive_integer(np.int32(5), "n_neighbors")
    5
    >>> positive_integer(0, "n_neighbors")
    Traceback (most recent call last):
        ...
    ValueError: n_neighbors is 0; it must be a positive integer
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}); it must be a positive integer")
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be a positive integer")
    return int(value)


def threads(n_jobs: int | None) -> int | None:
    """Return the kernels' `n_threads` for an estimator's `n_jobs`.

    None stays None: all threads that the process may use, where scikit-learn means one. Negative
    numbers count from the end, as scikit-learn's do: -1 is all, -2 all but one.

    >>> threads(2)
    2
    >>> threads(-1) == _threads.resolve(None)
    True
    """
    if n_jobs is None:
        return None
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, (int, np.integer)):
        raise TypeError(f"n_jobs is {n_jobs!r} ({type(n_jobs).__name__}); it must be None or an integer")
    if n_jobs == 0:
        raise ValueError("n_jobs is 0; it must be None, positive, or negative to count from all threads")
    return int(n_jobs) if n_jobs > 0 else max(1, _threads.resolve(None) + 1 + int(n_jobs))
