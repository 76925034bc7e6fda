"""Rows that are searched again and again: what a search makes of them is made once, and kept.

A tree is made as for a call with all queries that have been asked so far: when they would have repaid it. `prepare`
takes it that there will be many, and tries the tree with some of the rows themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import arrays
from ..distances import arguments
from ..runtime import parallel
from ..runtime.jit import readonly
from . import _bounds, _pruning, _tree, _tree_choice

__all__ = ["PreparedRows", "prepare"]

#: Neighbors, and queries, for which a tree is tried before it is known what will be asked.
_NEIGHBORS, _QUERIES = 5, 16

#: Of so many queries a few are asked first whether the tree pays for them too.
_QUERIES_TO_ASK = 512

#: Queries that repay the rounding of all rows, and queries of one call that round them anew.
_FEWEST_ASKED, _MANY_QUERIES = 64, 256


class PreparedRows:
    """Rows to be searched by `k_nearest` and its kin, in place of `Y`; made by `prepare`.

    Searches from several threads at once are safe. A pickle has the rows alone: what is made of them depends on the
    CPU, and is made again.

    Attributes
    ----------
    rows : ndarray of shape (m, D)
        The rows, settled, as a read-only view: a reference where their dtype and layout suit, else a copy.
    metric, algorithm : str
        As they were given to `prepare`.
    nbytes : int
        Memory of the rows and all that is kept of them.
    """

    def __init__(self, rows: NDArray[Any], metric: arguments.Metric, algorithm: arguments.Algorithm) -> None:
        self.rows = readonly(rows)
        self.metric = metric
        self.algorithm = algorithm
        self._base = arguments.base(metric)
        self._tree: _tree.Tree | None = None
        self._tree_was_tried = False
        self._bounds: _bounds.Bounds | None = None
        self._bounds_were_tried = False
        self._asked = 0

    @property
    def nbytes(self) -> int:
        """Return the bytes of the rows and all that is kept of them."""
        packed = None if self._bounds is None else self._bounds.packed
        kept = (*(self._tree or ()), *(packed or ()))
        return self.rows.nbytes + sum(part.nbytes for part in kept)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        m, d = self.rows.shape
        made = {"tree": self._tree, "rounded rows": self._bounds}
        kept = " and ".join(name for name, part in made.items() if part is not None) or "nothing else"
        return (
            f"PreparedRows({m} × {d} {self.rows.dtype}, metric={self.metric!r}, algorithm={self.algorithm!r}: {kept}, "
            f"{self.nbytes / 1e6:.1f} MB)"
        )

    if not TYPE_CHECKING:  # whoever checks types shall see that they are no array

        def __array__(self, *args, **kwargs):
            """Refuse to become an array, of an object."""
            raise TypeError("PreparedRows stand for Y in searches only; elsewhere pass their attribute `rows`")

    def __reduce__(self) -> tuple[Any, ...]:
        return PreparedRows, (self.rows, self.metric, self.algorithm)

    def of(self, metric: arguments.Metric) -> NDArray[Any]:
        """Return the rows for a search by a metric."""
        if metric != self.metric:
            raise ValueError(f"metric is {metric!r}; Y was prepared for {self.metric!r}")
        return self.rows

    def expect(self, n_threads: int | None = None) -> None:
        """Make what many queries would repay, or what is asked for."""
        m = len(self.rows)
        if self.algorithm == "tree" and self._has_way("tree"):
            self._tree = _tree.build(self.rows, parallel.resolve(n_threads))
        elif self._has_way(self.algorithm) and _NEIGHBORS <= _tree_choice.most_neighbors(m):
            numbers = np.arange(m)
            some = numbers[:: max(1, m // _QUERIES)]
            self._try_tree(self.rows[some], some, numbers, _NEIGHBORS, n_threads)
        if self._tree is None:
            self._asked = _FEWEST_ASKED
            self.bounds_for(0, n_threads)

    def tree_for(
        self,
        algorithm: arguments.Algorithm,
        metric: arguments.Metric,
        x: NDArray[Any],
        x_groups: NDArray[np.intp],
        y: NDArray[Any],
        y_groups: NDArray[np.intp],
        k: int,
        n_threads: int | None,
    ) -> _tree.Tree | None:
        """Return the tree if these queries should go by it, as `_tree_choice` says; "auto" is what was prepared."""
        way = self.algorithm if algorithm == "auto" else algorithm
        n, (m, d) = len(x), y.shape
        self._asked += n
        if n == 0 or not self._has_way(way):
            return None
        if way == "tree":
            if self._tree is None:
                self._tree = _tree.build(self.rows, parallel.resolve(n_threads))
            return self._tree
        if k > _tree_choice.most_neighbors(m):
            return None
        if self._tree is None:
            if not self._tree_was_tried and _tree_choice.may_repay(self._asked, m, d):
                self._try_tree(x, x_groups, y_groups, k, n_threads)
            return self._tree
        if n >= _QUERIES_TO_ASK and not _tree_choice.pays(self._tree, metric, x, x_groups, y_groups, m, k):
            return None
        return self._tree

    def tree_within(
        self,
        algorithm: arguments.Algorithm,
        n: int,
        pays: Callable[[_tree.Tree], bool],
        tried: Callable[[], _tree.Tree | None],
        n_threads: int | None,
    ) -> _tree.Tree | None:
        """Return the tree if n queries within a radius should go by it: if it `pays`, or pays when it is `tried`."""
        way = self.algorithm if algorithm == "auto" else algorithm
        self._asked += n
        if n == 0 or not self._has_way(way):
            return None
        if way == "tree":
            if self._tree is None:
                self._tree = _tree.build(self.rows, parallel.resolve(n_threads))
            return self._tree
        if self._tree is None:
            if not self._tree_was_tried and _tree_choice.may_repay(self._asked, *self.rows.shape):
                self._tree, self._tree_was_tried = tried(), True
            return self._tree
        return self._tree if pays(self._tree) else None

    def bounds_for(self, n: int, n_threads: int | None) -> _bounds.Bounds | None:
        """Return what is kept of the rows for bounds, by which most distances need not be made.

        It is made for calls of few queries: of many, rounding takes little of the time.
        """
        if not self._bounds_were_tried and self._asked >= _FEWEST_ASKED and n < _MANY_QUERIES:
            bounds = _bounds.worth_keeping(self._base, self.rows)
            if bounds is not None:
                kept = _pruning.packed(self._base, bounds, parallel.resolve(n_threads))
                self._bounds = bounds._replace(packed=kept)
            self._bounds_were_tried = True
        return self._bounds

    def _has_way(self, algorithm: arguments.Algorithm) -> bool:
        return algorithm != "brute" and _tree_choice.is_possible(self._base, self.rows)

    def _try_tree(
        self,
        x: NDArray[Any],
        x_groups: NDArray[np.intp],
        y_groups: NDArray[np.intp],
        k: int,
        n_threads: int | None,
    ) -> None:
        self._tree = _tree_choice.tried(self._base, x, x_groups, self.rows, y_groups, k, n_threads)
        self._tree_was_tried = True


def prepare(
    Y: ArrayLike,
    *,
    metric: str = "l2",
    algorithm: arguments.Algorithm = "auto",
    n_threads: int | None = None,
) -> PreparedRows:
    """Prepare rows to be searched many times: searches take what comes back in place of `Y`.

    These are `k_nearest`, `radius_neighbors`, `radius_counts`, `pairwise_argmin` and `pairwise_argmin_min`.

    Parameters
    ----------
    Y : array-like of shape (m, D)
        The rows to choose from. They are not copied where they are C-contiguous uint8, float32 or float64: do not
        change them afterwards (``prepare(Y.copy())`` has rows of its own).
    metric : {"l2", "l1", "linf", "sqeuclidean"}, default="l2"
        As in `k_nearest`, which must be asked for the same.
    algorithm : {"auto", "brute", "tree"}, default="auto"
        As in `k_nearest`. "auto" makes a tree if some of the rows, as queries, show that it would pay for many.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    PreparedRows
        With `rows`, `nbytes` and a repr that tells what is kept.

    Notes
    -----
    The neighbors and their bits are those of `k_nearest` with `Y`. Queries that do not settle to the dtype of the rows
    (float64 queries of float32 rows, say) are searched as without preparation. A tree takes a copy of `Y`, a sixteenth
    of it for boxes, and 8 bytes for each row. Of rows of 64 columns and more that have no tree, a copy rounded to bytes
    is kept if bounds from it tell some of the rows apart (see `k_nearest`): so a few queries read a quarter or an
    eighth of what the rows take. It is made in the time of some ten queries.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.kernels import k_nearest, prepare
    >>> Y = np.random.default_rng(0).random((10_000, 3))
    >>> prepared = prepare(Y)
    >>> prepared
    PreparedRows(10000 × 3 float64, metric='l2', algorithm='auto': tree, 0.6 MB)
    >>> bool((k_nearest(Y[:10], prepared, 5)[1] == k_nearest(Y[:10], Y, 5)[1]).all())
    True
    """
    short, way = arguments.metric(metric, arguments.OF_NUMBERS), arguments.algorithm(algorithm)
    raw = arrays.real(Y, "Y")
    if raw.ndim != 2:
        raise ValueError(f"Y has shape {raw.shape}; {arrays.dimensions_needed('Y', 2)}")
    rows, _, _ = arguments.pair(raw)
    prepared = PreparedRows(rows, short, way)
    prepared.expect(n_threads)
    return prepared
