"""Every kernel as plain Python loops: the formula, one number at a time.

Made to be read beside the formula, and to be trusted: a value is computed in Python's float
(float64) from the given numbers and rounded once to the dtype of the result, so that float32
input gives the float32 number nearest to the truth (uint8 distances are exact integers). That
also makes these loops good oracles. They are slow (about 50 ns per term), and hold rows as Python
lists (about 32 bytes per number).

In the code a lower-case ``x``, ``y`` or ``z`` is one row or one number. Docstrings say what is computed; parameters,
errors and examples are those of the function of `fastml.kernels` that each points to.
"""

from __future__ import annotations

from . import convolution, distances, elementwise, linear, losses, networks
from .convolution import *  # noqa: F403
from .distances import *  # noqa: F403
from .elementwise import *  # noqa: F403
from .linear import *  # noqa: F403
from .losses import *  # noqa: F403
from .networks import *  # noqa: F403

_FAMILIES = (convolution, distances, elementwise, linear, losses, networks)

__all__ = sorted(name for family in _FAMILIES for name in family.__all__)
