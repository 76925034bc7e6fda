"""Compare a gradient with differences of the function."""

from ._gradient_check import check_gradient
from ._gradient_result import Coordinate, GradientCheck

__all__ = ["Coordinate", "GradientCheck", "check_gradient"]
