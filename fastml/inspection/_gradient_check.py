"""Gradients against differences of the value, with an eye on rounding and kinks.

A difference of two values divided by their distance is the derivative up to a truncation error (of order h in
one direction, h² in both) and a rounding error (of order ε|f| / h). The differences are SciPy's
(`scipy.optimize.approx_fprime`), taken in both directions at every coordinate: their mean is the central
difference, and how far they lie apart tells kinks from wrong gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import approx_fprime
from sklearn.utils import check_random_state

from .. import kernels
from ..kernels.arguments.arrays import floating, real
from ..kernels.losses.table import LOSSES
from ._gradient_result import GradientCheck, Method

__all__ = ["check_gradient"]

Array = NDArray[np.float64]

# Values are taken to be right to so many roundings of |f| and of what a rounding of the point changes.
_ROUNDINGS = 4

# approx_fprime holds a square matrix of all coordinates it is asked for.
_CHUNK = 128

# Smaller steps at which a suspicious coordinate is looked at again, as parts of the step.
_CLOSER = (3.0, 10.0)


def check_gradient(
    function: str | Callable[..., Any],
    at: Any = None,
    gradient: Callable[..., Any] | None = None,
    *,
    z: ArrayLike | None = None,
    X: ArrayLike | None = None,
    y: ArrayLike | None = None,
    W: ArrayLike | None = None,
    b: ArrayLike | None = None,
    method: Method = "central",
    step: float | None = None,
    coordinates: int | Sequence[int] | NDArray[np.integer] | None = None,
    random_state: Any = None,
    **options: Any,
) -> GradientCheck:
    """Compare a gradient with differences of the function's values.

    The function is a loss of `fastml.kernels`, by name, or your own::

        check_gradient("hinge", z=z, y=y)                          # in the scores
        check_gradient("softmax_cross_entropy", X=X, y=y, W=W, b=b, l2=0.1)        # in W and b
        check_gradient(value_and_gradient, x)                      # returns (value, gradient)
        check_gradient(value, x, gradient)
        check_gradient(value_and_gradients, (W1, b1, W2))          # takes three, returns (value, dW1, db1, dW2)

    Parameters
    ----------
    function : str or callable
        One of the losses of `fastml.kernels.linear_loss_gradient`, or a function of the arrays in `at`.
    at : array-like, or tuple of array-likes
        For your own function: the point. A tuple has one array for each argument of the function; anything else
        is a single one.
    gradient : callable, optional
        Of the same arguments as `function`; returns the gradient, or a tuple of them. If it is None, `function`
        returns the value and the gradient, or gradients.
    z, y : array-like
        For a loss by name: scores and targets, as its function takes them. Checked is the gradient in `z`.
    X, y, W, b : array-like
        For a loss by name: what `linear_loss_gradient` takes. Checked are the gradients in `W` and `b`.
    method : {"central", "forward"}
        Central differences (f(x + h) − f(x − h)) / 2h are off by h²/6 of the third derivative, forward ones by
        h/2 of the second. Both cost two evaluations per coordinate.
    step : float, optional
        The distance h. None takes max(1, abs(x)) times the cube root of the precision (central: 6e-6) or its square
        root (forward: 1.5e-8).
    coordinates : int or sequence of int, optional
        How many coordinates to draw at random, or which to check, counted in the flattened point. None: all.
    random_state : int, RandomState instance or None
        Seed of the draw.
    **options
        For a loss by name: `sample_weight`, `l2`, `delta`, `n_threads` and so on, for its function.

    Returns
    -------
    GradientCheck
        Prints as a table; has `max_relative_error`, `worst`, `kinks`, arrays, and `assert_within(rtol, atol)`.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit each other, a gradient has another shape than its point, the value at the point
        is not finite, or `step` is so small that a point does not change.

    Notes
    -----
    float32: the gradient is computed from the arrays as they are, the differences from float64 copies, in
    which alone they mean something. Your own function should therefore keep to the dtype of its arguments.

    Where the slopes on both sides lie apart and the gradient is off, the coordinate is looked at again with a third and
    a tenth of the step. Curvature shrinks the gap in proportion, a kink does not. Coordinates at a kink are
    reported as such, and their gradient only has to lie between the slopes. At others the truncation error of a central
    difference with the step of our choice is removed by Richardson's extrapolation.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml import check_gradient
    >>> check = check_gradient(lambda x: (np.sum(x**3), 3 * x**2), np.array([1.0, 2.0, -1.0]))
    >>> check.max_relative_error < 1e-9
    True
    >>> wrong = check_gradient(np.sum, np.ones(3), lambda x: np.array([1.0, 1.0, 2.0]))
    >>> wrong.worst.label, round(wrong.worst.relative_error, 6)
    ('x[2]', 0.5)
    >>> print(check_gradient("absolute_error", z=[0.5, 2.0, 3.0], y=[1.0, 1.0, 3.0]))
    gradient of absolute_error: all 3 coordinates, central differences
    coordinate        gradient      difference     error  relative
    z[1]         3.3333333e-01   3.3333333e-01 ...
    z[0]        -3.3333333e-01  -3.3333333e-01 ...
    z[2]         0.0000000e+00   0.0000000e+00   0.0e+00   0.0e+00  kink
    largest relative error ... at z[1]
    1 at a kink, where any slope between those of both sides is right: z[2]
    """
    if method not in ("central", "forward"):
        raise ValueError(f"method is {method!r}; it must be 'central' or 'forward'")
    arrays = {"z": z, "X": X, "y": y, "W": W, "b": b}
    given = [name for name, array in arrays.items() if array is not None]
    if isinstance(function, str):
        if at is not None or gradient is not None:
            raise TypeError(
                "at and gradient are for a function of your own; a loss by name takes z and y, or X, y, W, b"
            )
        problem = _of_kernel(function, given, arrays, options)
    else:
        if given or options:
            raise TypeError(f"{', '.join([*given, *options])}: only for a loss by name; pass the point as at")
        if not callable(function):
            raise TypeError(f"function is {function!r}; it must be the name of a loss, or a function")
        if at is None:
            raise TypeError("at is missing: the point, as an array, or as a tuple of arrays")
        problem = _of_function(function, at, gradient)
    where = _checked_coordinates(coordinates, problem.point.flat.size, random_state)
    return _check(problem, where, method, step)


# The function and the point --------------------------------------------------------------------


class _Point:
    """Named arrays as one flat float64 array, and back."""

    def __init__(self, **arrays: ArrayLike) -> None:
        raw = {name: real(array, name) for name, array in arrays.items()}
        self.arrays = {name: a if a.dtype.kind == "f" else a.astype(np.float64) for name, a in raw.items()}
        self.flat = np.concatenate([np.ravel(array) for array in self.arrays.values()]).astype(np.float64)
        if self.flat.size == 0:
            raise ValueError(f"{' and '.join(arrays)} have no entries, so that there is no gradient to check")
        self._ends = np.cumsum([array.size for array in self.arrays.values()])

    def parts(self, flat: Array) -> list[Any]:
        """Cut a copy of a flat array like the point; what has no axes becomes a float."""
        pieces = np.split(flat.copy(), self._ends[:-1])
        shapes = (array.shape for array in self.arrays.values())
        return [piece.reshape(shape) if shape else float(piece[0]) for piece, shape in zip(pieces, shapes, strict=True)]

    def flatten(self, gradients: Sequence[Any]) -> Array:
        """Return gradients of the arrays as one flat array, after a look at their shapes."""
        if len(gradients) != len(self.arrays):
            raise ValueError(
                f"{len(gradients)} gradients came for {len(self.arrays)} arrays ({', '.join(self.arrays)})"
            )
        for (name, array), part in zip(self.arrays.items(), gradients, strict=True):
            if np.shape(part) != array.shape:
                raise ValueError(f"the gradient in {name} has shape {np.shape(part)}, {name} has {array.shape}")
        return np.concatenate([np.ravel(part) for part in gradients]).astype(np.float64)

    def label(self, i: int) -> str:
        """Name a coordinate."""
        which = int(np.searchsorted(self._ends, i, side="right"))
        name, array = list(self.arrays.items())[which]
        index = np.unravel_index(i - self._ends[which] + array.size, array.shape)
        return f"{name}[{', '.join(map(str, index))}]" if array.shape else name


class _Problem(NamedTuple):
    name: str
    point: _Point
    value: Callable[[Array], Any]
    gradient: Array
    precision: float  # relative, of what `gradient` was computed in


def _of_kernel(name: str, given: list[str], arrays: dict[str, Any], options: dict[str, Any]) -> _Problem:
    if name not in LOSSES:
        raise ValueError(f"function is {name!r}; the losses are {', '.join(map(repr, LOSSES))}")
    if given not in (["z", "y"], ["X", "y", "W", "b"]):
        raise TypeError(f"{', '.join(given) or 'nothing'} came with {name!r}; z and y are needed, or X, y, W and b")
    rows = "z" if "z" in given else "X"
    dtype = floating(arrays[rows], rows).dtype

    def widened(array: Any) -> Any:
        """Return in float64 what the loss makes of an argument."""
        return array.astype(dtype).astype(np.float64) if array.dtype.kind == "f" else array

    y = real(arrays["y"], "y")
    wide = {
        key: widened(np.asarray(value)) if key.endswith("_weight") and value is not None else value
        for key, value in options.items()
    }
    if rows == "z":
        point = _Point(z=arrays["z"])
        compute = getattr(kernels, f"{name}_gradient")
        gradients: Any = compute(arrays["z"], y, **options)[1:]
        value = getattr(kernels, name)
        wide_y = widened(y)

        def of(flat: Array) -> Any:
            return value(point.parts(flat)[0], wide_y, **wide)

    else:
        point = _Point(W=arrays["W"], b=arrays["b"])
        compute = kernels.linear_loss_gradient
        gradients = compute(name, arrays["X"], y, arrays["W"], arrays["b"], **options)[1:]
        wide_X, wide_y = real(arrays["X"], "X").astype(np.float64), widened(y)

        def of(flat: Array) -> Any:
            return compute(name, wide_X, wide_y, *point.parts(flat), **wide)[0]

    return _Problem(name, point, of, point.flatten(gradients), float(np.finfo(dtype).eps))


def _of_function(function: Callable[..., Any], at: Any, gradient: Callable[..., Any] | None) -> _Problem:
    names = [f"x{i}" for i in range(len(at))] if isinstance(at, tuple) else ["x"]
    point = _Point(**dict(zip(names, at if isinstance(at, tuple) else [at], strict=True)))
    arguments = [array.copy() if array.shape else array.item() for array in point.arrays.values()]
    if gradient is not None:
        value, gradients = function, gradient(*arguments)
    else:
        both = function(*arguments)
        if not isinstance(both, (tuple, list)) or len(both) < 2:
            raise TypeError("without gradient=, function must return (value, gradient)")
        gradients = both[1] if len(both) == 2 else tuple(both[1:])

        def value(*parts: Any) -> Any:
            return function(*parts)[0]

    if len(names) == 1 and not (isinstance(gradients, tuple) and len(gradients) == 1):
        gradients = (gradients,)
    dtypes = [np.asarray(part).dtype for part in gradients]
    precision = max(np.finfo(dtype).eps if dtype.kind == "f" else 0.0 for dtype in dtypes)
    name = getattr(function, "__name__", type(function).__name__).replace("<lambda>", "the function")
    return _Problem(name, point, lambda flat: value(*point.parts(flat)), point.flatten(gradients), float(precision))


def _checked_coordinates(coordinates: Any, n: int, random_state: Any) -> NDArray[np.intp]:
    if coordinates is None:
        return np.arange(n)
    if np.ndim(coordinates) == 0:
        if isinstance(coordinates, (bool, np.bool_)) or not isinstance(coordinates, (int, np.integer)):
            raise TypeError(
                f"coordinates is {coordinates!r}; it must be a number of them, or a sequence of their places"
            )
        if coordinates < 1:
            raise ValueError(f"coordinates is {coordinates}; at least one must be checked")
        drawn = check_random_state(random_state).choice(n, size=min(int(coordinates), n), replace=False)
        return np.sort(drawn).astype(np.intp)
    where = np.asarray(coordinates)
    if where.ndim != 1 or where.size == 0 or where.dtype.kind not in "iu":
        raise ValueError(
            f"coordinates has shape {where.shape} and dtype {where.dtype}; integers of shape (m,) are needed"
        )
    if where.min() < 0 or where.max() >= n:
        raise ValueError(f"coordinates go from {where.min()} to {where.max()}; the point has 0 to {n - 1}")
    return where.astype(np.intp)


# Differences -----------------------------------------------------------------------------------


def _check(problem: _Problem, where: NDArray[np.intp], method: Method, step: float | None) -> GradientCheck:
    x = problem.point.flat
    value = np.asarray(problem.value(x))
    if value.size != 1 or value.dtype.kind not in "fiub":
        raise TypeError(f"the value of {problem.name} is {value!r}; it must be a real number")
    if not np.isfinite(value).all():
        raise ValueError(f"the value of {problem.name} at the point is {value}; differences need a finite one")
    precision = float(np.finfo(value.dtype if value.dtype.kind == "f" else np.float64).eps)
    h = _steps(x[where], method, step, precision)
    forward, backward = _one_sided_differences(problem, where, h)
    difference = forward.copy() if method == "forward" else (forward + backward) / 2
    gradient = problem.gradient[where] + 0.0  # -0.0 becomes 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        # Of the coordinates that are not checked, the mean of those that are is assumed.
        moved = np.nan_to_num(np.abs(difference * x[where]), posinf=0.0).mean() * x.size
        rounding = _ROUNDINGS * precision * (abs(float(value)) + moved) / h

    kink = np.zeros(where.size, np.bool_)
    low, high = np.minimum(forward, backward), np.maximum(forward, backward)
    at = _suspicious(problem, x[where], h, forward, backward, gradient, difference, rounding, step is None)
    if at.size:
        closer = [_one_sided_differences(problem, where[at], h[at] / part) for part in _CLOSER]
        kink[at] = _straddled(forward[at] - backward[at], closer, rounding[at])
        for sides in closer:
            low[at], high[at] = np.minimum(low[at], sides.min(axis=0)), np.maximum(high[at], sides.max(axis=0))
        if step is None and method == "central":
            # Richardson's extrapolation: the truncation errors of h and h / part, as 1 and 1 / part², cancel.
            weight = _CLOSER[0] ** 2
            smooth = at[~kink[at]]
            near = closer[0].mean(axis=0)[~kink[at]]
            difference[smooth] = (weight * near - difference[smooth]) / (weight - 1)
            rounding[smooth] *= (weight * _CLOSER[0] + 1) / (weight - 1)
    with np.errstate(invalid="ignore"):
        distance = np.maximum(np.maximum(low - gradient, gradient - high), 0.0)
        error = np.where(kink, distance, np.abs(gradient - difference))
    error[np.isnan(error)] = np.inf
    return GradientCheck(
        name=problem.name,
        method=method,
        value=float(value),
        n_coordinates=x.size,
        coordinates=where,
        labels=[problem.point.label(int(i)) for i in where],
        gradient=gradient,
        difference=difference,
        forward=forward,
        backward=backward,
        step=h,
        rounding=rounding,
        kink=kink,
        error=error,
    )


def _steps(x: Array, method: Method, step: float | None, precision: float) -> Array:
    if step is None:
        part: float = precision ** (1 / 3 if method == "central" else 1 / 2)
        h = part * np.maximum(1.0, np.abs(x))
    else:
        if not 0 < step < math.inf:
            raise ValueError(f"step is {step!r}; it must be positive and finite")
        h = np.full_like(x, step)
    if ((x + h == x) | (x - h == x)).any():
        raise ValueError(f"step is {step!r}, which is lost in rounding beside a coordinate of {np.abs(x).max():g}")
    return h


def _one_sided_differences(problem: _Problem, where: NDArray[np.intp], h: Array) -> Array:
    """Return the forward and the backward differences at some coordinates, of shape (2, m)."""
    point = problem.point.flat.copy()

    def of_some(some: Array, which: NDArray[np.intp]) -> Any:
        point[which] = some
        value = np.asarray(problem.value(point)).item()
        point[which] = problem.point.flat[which]
        return value

    sides = np.empty((2, where.size))
    with np.errstate(invalid="ignore", over="ignore"):
        for first in range(0, where.size, _CHUNK):
            some = slice(first, first + _CHUNK)
            for side, sign in enumerate((1, -1)):
                which = where[some]
                sides[side, some] = approx_fprime(problem.point.flat[which], of_some, sign * h[some], which)
    return sides


def _suspicious(
    problem: _Problem,
    x: Array,
    h: Array,
    forward: Array,
    backward: Array,
    gradient: Array,
    difference: Array,
    rounding: Array,
    own_step: bool,
) -> NDArray[np.intp]:
    """Return the coordinates that deserve a look with smaller steps.

    These are where both sides are far apart, or where the gradient is off by more than rounding can explain; with a
    step that the user chose, which may well be large, by more than a small part of what both sides differ by.
    """
    with np.errstate(invalid="ignore"):
        gap, error = np.abs(forward - backward), np.abs(gradient - difference)
        off = error > np.maximum(rounding if own_step else 1e-3 * gap, 16 * problem.precision * np.abs(gradient))
        wide = gap > 1e-2 * np.maximum(np.abs(forward), np.abs(backward))
        found = (gap > 8 * rounding) & (off | wide)
    return np.flatnonzero(found & (x + h / _CLOSER[-1] != x) & (x - h / _CLOSER[-1] != x))


def _straddled(gap: Array, closer: list[Array], rounding: Array) -> NDArray[np.bool_]:
    """Tell where there is a kink, from the gaps between both slopes at the step and at smaller ones.

    Both slopes of a smooth function differ by h f'', a tenth of that at a tenth of the step. At a kink in x the gap
    stays what it is; at one nearby it vanishes as soon as the step does not reach it.
    """
    kink = np.zeros(gap.size, np.bool_)
    for part, (forward, backward) in zip(_CLOSER, closer, strict=True):
        expected, noise = gap / part, 2 * part * rounding
        kink |= np.abs((forward - backward) - expected) > 0.5 * np.abs(expected) + noise
    return kink
