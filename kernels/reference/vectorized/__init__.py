"""Every kernel in NumPy, as one would write it for use.

Stable forms, no temporary larger than it must be, work cut into blocks that stay in cache, BLAS
where its result is exact enough. This is the yardstick that the compiled tier has to beat.
Docstrings say what is computed, and how if that is not plain; parameters, errors and examples are those of the
function of `fastml.kernels` that each points to.

Distances between floats are computed by direct differences, in blocks: a temporary of
n × m × D is never made. The well-known way to fast L2 distances, ``|x|² + |y|² − 2 x·y`` by one
matrix product, is some twenty times faster, but it cancels: for two points at 10⁴ that are 10⁻³ apart
no digit is left in float32, it can come out negative, and its last bits depend on what else is in
the batch. `gemm_squared_l2` has it, for comparison. Between uint8 rows that same product is exact
in float64 (all sums are integers below 2⁵³), so there `pairwise_l2` uses it.
"""

from __future__ import annotations

from . import convolution, distances, elementwise, linear, losses, networks
from .convolution import *  # noqa: F403
from .distances import *  # noqa: F403
from .distances import gemm_squared_l2 as gemm_squared_l2
from .elementwise import *  # noqa: F403
from .linear import *  # noqa: F403
from .losses import *  # noqa: F403
from .networks import *  # noqa: F403

_FAMILIES = (convolution, distances, elementwise, linear, losses, networks)

__all__ = sorted(name for family in _FAMILIES for name in family.__all__)
