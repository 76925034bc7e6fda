"""Every public kernel, declared once: inputs, sizes, units of work, the truth, and the bound of its error.

Tests, benchmarks, report and ``python -m fastml warmup`` read `ENTRIES`. An `Entry` says where the
three tiers of a kernel are, how to make inputs for it (seeded, in several regimes), at which sizes
to run it, how much work a call is, what the true result is, and how far from it a float32 or
float64 result may lie, and why. Each family's file yields its entries; their order is the order of the report.

    >>> from fastml.kernels import catalogue
    >>> entry = catalogue.ENTRIES["pairwise_l1"]
    >>> inputs = entry.make(entry.sizes["tiny"], "float32")
    >>> result = entry.tier("vectorized")(*inputs.args, **inputs.kwargs)
    >>> catalogue.check(entry, result, entry.reference(inputs), "float32") <= 1
    True

Regimes
    typical   what a user has: standard normal scores and features, random labels, random pixels
    extreme   logits up to ±1e30, near-duplicate points far from the origin, exact duplicates, zeros
    tails     as typical; meant for `Entry.tail_sizes`, shapes around the width of vectors
    weighted  as typical, with sample weights (losses only)

How a result is judged (`check`)
    An entry of a result may differ from the truth by ``rtol · scale + slack + atol``. The scale is
    the size of what was added up, not of what came out: a gradient that cancels to nearly zero is
    allowed the rounding of its terms. The slack is what a row within rounding of a kink may add.
    Both come with the truth. NaN must meet NaN, an infinity the same infinity.

Nothing is loaded but NumPy, this folder, and tables that need no more: a benchmark may take the catalogue of one
checkout to the kernels of another.
"""

from __future__ import annotations

from . import convolution, distances, linear, losses, networks
from .checking import check, outputs
from .entry import TAILS, Dtypes, Entry, Inputs, Tolerance
from .selection import select
from .truth import Truth

__all__ = ["ENTRIES", "TAILS", "Dtypes", "Entry", "Inputs", "Tolerance", "Truth", "check", "outputs", "select"]

ENTRIES: dict[str, Entry] = {
    entry.key: entry for family in (distances, losses, linear, networks, convolution) for entry in family.entries()
}
