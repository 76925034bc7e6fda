"""The nearest rows of others: exact searches on `distances`, in the order of (distance, index).

`nearest` is the public function for as many as are asked for: it says which way to search, and how `_heaps` keep the
nearest so far. Ways that make fewer distances, or compare fewer: `_tree` (boxes around rows), `_pruning` (bounds from
rows rounded to bytes, or from their principal columns, `_principal`; which of them, says `_bounds`), `_symmetric` (each
pair once), `_selection` (many neighbors). `_extremes` puts those in order whose squared L2 distances leave the range of
their dtype.

`radius` has the public functions for all within a distance, from all pairs or by way of the tree; `_within` notes them.
`donors` finds neighbors of rows that miss values, among rows that have these.
"""
