"""Distances of rows.

The way of the data, from the public function down to the formula::

    pairwise    pairwise_l1, pairwise_l2, pairwise_linf: tasks and threads
      |
    arguments   METRICS, the table of metrics; two sides of one dtype; dtypes of results
      |
    panels      the plan: how work is cut; rows of Y packed into panels; blocks of totals from chunks of columns
      |
    tiles       the register tile: a few rows of X and one panel of Y, in LLVM code
      |
    _tile_metrics   the formulas: what a tile does for a pair of columns (see `_TILES`), by metric and dtype

Totals are what kernels compare: the distance, or of L2 its square. `panels.fill` finishes them (root, mirror) for
`pairwise`; the room `neighbors` reads them as integers and finishes those that are left.

`searched_rows` makes of other metrics, `arguments.VARIANTS`, rows that are searched by these totals, or by totals of
their own, whose end `_conclusions` is.

`tile_shapes` says how a tile lies in the target's registers. `scales` and `extremes` make L2 distances whose squares
leave the range of their dtype again.
"""
