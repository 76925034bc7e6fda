"""What a check of a gradient has found."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Coordinate", "GradientCheck", "Method"]

Method = Literal["central", "forward"]
Array = NDArray[np.float64]

# Slopes below so many roundings are not known to six digits, and are measured as if they were that large.
_DIGITS = 1e6

_SHOWN = 8


class Coordinate(NamedTuple):
    """One coordinate of a `GradientCheck`."""

    label: str
    gradient: float
    difference: float
    error: float
    relative_error: float
    kink: bool


@dataclass(frozen=True, eq=False)
class GradientCheck:
    """Result of `check_gradient`; ``print`` shows it as a table of the worst coordinates.

    All arrays are of shape (m,), one entry for each coordinate that was checked.

    Attributes
    ----------
    name : str
        Name of the function.
    method : {"central", "forward"}
        Which differences the gradient was compared with.
    value : float
        The function's value at the point.
    n_coordinates : int
        Coordinates of the point, checked or not.
    coordinates : ndarray of intp
        Which were checked: places in the point, flattened and, of several arrays, one behind the other.
    labels : list of str
        Their names, such as ``"W[3, 17]"``.
    gradient, difference : ndarray of float64
        What was claimed, and what the differences say (where they were extrapolated, after that).
    forward, backward : ndarray of float64
        The differences in each direction: (f(x + h) − f(x)) / h and (f(x) − f(x − h)) / h.
    step : ndarray of float64
        Distance h of the points of a difference.
    rounding : ndarray of float64
        How large the error of a difference may be from rounding alone: 4ε(|f| + Σ|∂f/∂xⱼ xⱼ|) / h, where ε is the
        precision of the value. An estimate: a function that subtracts large numbers has more.
    kink : ndarray of bool
        Where the function has a kink between x − h and x + h: its slopes on both sides differ, at this step and at
        smaller ones, in a way that no curvature explains.
    error : ndarray of float64
        abs(gradient − difference); at a kink the distance to the nearest number between the slopes on both sides,
        as each of them is a subgradient. Infinite where gradient or difference is NaN.
    """

    name: str
    method: Method
    value: float
    n_coordinates: int
    coordinates: NDArray[np.intp] = field(repr=False)
    labels: list[str] = field(repr=False)
    gradient: Array = field(repr=False)
    difference: Array = field(repr=False)
    forward: Array = field(repr=False)
    backward: Array = field(repr=False)
    step: Array = field(repr=False)
    rounding: Array = field(repr=False)
    kink: NDArray[np.bool_] = field(repr=False)
    error: Array = field(repr=False)

    @cached_property
    def relative_error(self) -> Array:
        """Errors over max(abs(gradient), abs(difference), 10⁶ rounding), of shape (m,).

        The third keeps noise from looking like an error: smaller slopes than that are not known to six digits from
        differences, and are measured against the smallest one that is.
        """
        size = np.fmax(np.fmax(np.abs(self.gradient), np.abs(self.difference)), _DIGITS * self.rounding)
        out = np.where(self.error > 0, np.inf, 0.0)
        return np.divide(self.error, size, out=out, where=np.isfinite(self.error) & (self.error > 0) & (size > 0))

    @property
    def max_relative_error(self) -> float:
        """The largest of `relative_error`."""
        return float(self.relative_error.max())

    @property
    def max_error(self) -> float:
        """The largest of `error`."""
        return float(self.error.max())

    @property
    def worst(self) -> Coordinate:
        """The coordinate with the largest relative error; of equals, that with the largest error."""
        return self._coordinate(int(self._order[0]))

    @property
    def kinks(self) -> list[str]:
        """Labels of the coordinates at a kink."""
        return [self.labels[i] for i in np.flatnonzero(self.kink)]

    @cached_property
    def table(self) -> dict[str, list[Any]]:
        """One list per column, one entry per coordinate: ``pandas.DataFrame(check.table)`` takes it as it is."""
        columns = ("gradient", "difference", "error", "relative_error", "rounding", "kink")
        return {"coordinate": self.labels} | {name: getattr(self, name).tolist() for name in columns}

    def assert_within(self, rtol: float = 1e-6, atol: float = 0.0) -> None:
        """Raise AssertionError, with the table, unless each coordinate has a small relative error or a small error.

        Parameters
        ----------
        rtol : float
            Bound of `relative_error`. Right gradients have less than 1e-6 with central and with forward
            differences of float64; those in float32 have 1e-6 to 1e-4.
        atol : float
            Bound of `error`.

        Raises
        ------
        AssertionError
            If any coordinate exceeds both.
        """
        wrong = (self.relative_error > rtol) & (self.error > atol)
        if wrong.any():
            many = f"{int(wrong.sum())} of {len(wrong)} coordinates"
            raise AssertionError(f"the gradient is wrong at {many} (rtol {rtol:g}, atol {atol:g})\n{self}")

    @cached_property
    def _order(self) -> NDArray[np.intp]:
        """Places of the coordinates, the worst first."""
        return np.lexsort((-self.error, -self.relative_error))

    def _coordinate(self, i: int) -> Coordinate:
        return Coordinate(
            self.labels[i],
            float(self.gradient[i]),
            float(self.difference[i]),
            float(self.error[i]),
            float(self.relative_error[i]),
            bool(self.kink[i]),
        )

    def __str__(self) -> str:
        rows = [self._coordinate(int(i)) for i in self._order[:_SHOWN]]
        width = max(10, *(len(row.label) for row in rows))
        checked = len(self.coordinates)
        of = f"all {checked}" if checked == self.n_coordinates else f"{checked} of {self.n_coordinates}"
        lines = [
            f"gradient of {self.name}: {of} coordinates, {self.method} differences",
            f"{'coordinate':<{width}}  {'gradient':>14}  {'difference':>14}  {'error':>8}  {'relative':>8}",
        ]
        for row in rows:
            lines.append(
                f"{row.label:<{width}}  {row.gradient:>14.7e}  {row.difference:>14.7e}  {row.error:>8.1e}  "
                f"{row.relative_error:>8.1e}{'  kink' * row.kink}"
            )
        if len(rows) < checked:
            lines.append(f"… and {checked - len(rows)} with smaller errors")
        lines.append(f"largest relative error {self.max_relative_error:.1e} at {self.worst.label}")
        if self.kinks:
            some = ", ".join(self.kinks[:_SHOWN]) + ", …" * (len(self.kinks) > _SHOWN)
            lines.append(f"{len(self.kinks)} at a kink, where any slope between those of both sides is right: {some}")
        return "\n".join(lines)
