"""Parameters of estimators, checked."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ..kernels.runtime import parallel


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
    >>> threads(-1) == parallel.resolve(None)
    True
    """
    if n_jobs is None:
        return None
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, (int, np.integer)):
        raise TypeError(f"n_jobs is {n_jobs!r} ({type(n_jobs).__name__}); it must be None or an integer")
    if n_jobs == 0:
        raise ValueError("n_jobs is 0; it must be None, positive, or negative to count from all threads")
    return int(n_jobs) if n_jobs > 0 else max(1, parallel.resolve(None) + 1 + int(n_jobs))


def one_of(value: object, name: str, known: Collection[object], *, refused: Mapping[Any, str] | None = None) -> None:
    """Refuse a value that is not among the known ones; `name` is what the caller calls it.

    `refused` has values that scikit-learn knows and fastml has no meaning for, and says what there is instead.

    >>> one_of("l2", "penalty", ("l1", "l2", None))
    >>> one_of("l3", "penalty", ("l1", "l2", None))
    Traceback (most recent call last):
        ...
    ValueError: penalty is 'l3'; it must be one of 'l1', 'l2', None
    >>> one_of("lbfgs", "solver", ("adam", "sgd"), refused={"lbfgs": "'adam' goes on where it ended"})
    Traceback (most recent call last):
        ...
    ValueError: solver is 'lbfgs', which fastml does not have; 'adam' goes on where it ended
    """

    # By type as well: True is not 1, an array is no name.
    def among(items: Collection[object]) -> bool:
        return any(type(value) is type(item) and value == item for item in items)

    if refused and among(refused):
        raise ValueError(f"{name} is {value!r}, which fastml does not have; {refused[value]}")
    if not among(known):
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, known))}")


def number(value: Any, name: str, *, least: float = 0.0, most: float = math.inf, above: bool = False) -> float:
    """Return a parameter as a finite float within [least, most], or (least, most] with `above`.

    >>> number(1, "alpha")
    1.0
    >>> number(0, "eta0", above=True)
    Traceback (most recent call last):
        ...
    ValueError: eta0 is 0; it must be above 0
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}); it must be a number")
    if not (least <= value <= most and math.isfinite(value)) or (above and value == least):
        lower = f"above {least:g}" if above else f"at least {least:g}"
        upper = "" if math.isinf(most) else f" and at most {most:g}"
        raise ValueError(f"{name} is {value}; it must be {lower}{upper}")
    return float(value)


def flag(value: object, name: str) -> bool:
    """Return a parameter that is True or False.

    >>> flag("no", "nesterovs_momentum")
    Traceback (most recent call last):
        ...
    TypeError: nesterovs_momentum is 'no' (str); it must be True or False
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}); it must be True or False")
    return bool(value)
