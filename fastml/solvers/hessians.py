"""Hessians of linear models, factorised to serve as preconditioners.

The Hessian of a sum of losses of linear scores is X' diag(q) X plus the penalty, with the curvature q of every row's
loss. Making it costs n D² / 2 multiply-adds where a pass over the rows costs 2 n D, so that for more than a few
columns it is made from a sample of rows, each taken with a probability in proportion to its curvature and weighted
by the inverse: in a fitted classifier most rows are classified with confidence and have next to none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from ..utils.lazy import lazy_module
from .blas import one_blas_thread

if TYPE_CHECKING:
    from ..kernels.linear import gram
    from ..kernels.training import cells
else:
    gram = lazy_module("fastml.kernels.linear.gram")
    cells = lazy_module("fastml.kernels.training.cells")

__all__ = ["Factor", "Hessians", "Rates", "cell_sums", "factorize", "passing_rows", "sample_rows"]

Array = NDArray[np.float64]

_FLOAT64 = np.dtype(np.float64)

#: Rows that are centred at a time.
_CENTERED_ROWS = 4096

#: What is added to a diagonal of ones before it is factorised: above the rounding errors of the products.
_SHIFT = {np.dtype(np.float32): 1e-6, _FLOAT64: 1e-13}


class Factor(NamedTuple):
    """A Hessian as ``diag(1 / scale) L L' diag(1 / scale)``, or as its diagonal where there is no L."""

    scale: Array
    lower: Array | None

    def solve(self, g: Array) -> Array:
        """Return the inverse times `g`; BLAS is to be limited by the caller."""
        shifted = self.scale * g
        if self.lower is not None:
            shifted = lapack.dpotrs(self.lower, shifted, lower=1, overwrite_b=1)[0]
        return self.scale * shifted


def factorize(H: Array, dtype: np.dtype[Any] = _FLOAT64) -> Factor:
    """Factorise a symmetric matrix, made in `dtype` and overwritten here.

    Its diagonal is made one first, so that neither the units of columns nor those of the objective matter, and is
    raised by as little as it takes to make the matrix positive definite.
    """
    diagonal = np.einsum("ii->i", H)
    if not np.isfinite(diagonal).all():
        raise ValueError("X has values too large: their squares cannot be summed in float64")
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    H *= scale
    H *= scale[:, np.newaxis]
    np.copyto(diagonal, 1.0)
    shift, failed = _SHIFT[dtype], 1
    with one_blas_thread():
        while failed:
            diagonal += shift
            lower, failed = lapack.dpotrf(H.T, lower=1, clean=0)
            shift *= 10
    return Factor(scale, lower)


class Hessians:
    """Makes Hessians of losses of linear scores of one set of rows.

    Parameters
    ----------
    X : ndarray of shape (n, D)
        The rows.
    penalty : ndarray of shape (D + 1,)
        What the penalty adds to the diagonal, the intercept's entry last.
    fit_intercept : bool
        Without an intercept its row and column are those of the identity.
    dtype : dtype
        What products are made in: that of `X`, or float64.
    n_threads : int, optional
        Threads to use.
    center : ndarray of shape (D,), optional
        What is taken off the rows first; `dtype` is float64 then.
    """

    def __init__(
        self,
        X: NDArray[Any],
        penalty: Array,
        fit_intercept: bool,
        dtype: np.dtype[Any],
        n_threads: int | None,
        center: Array | None = None,
    ) -> None:
        self._X = X
        self._penalty = penalty
        self._fit_intercept = fit_intercept
        self._dtype = dtype
        self._n_threads = n_threads
        self._center = center

    def of_class(self, rows: NDArray[np.intp], curvature: Array) -> Factor:
        """Return the Hessian of one class, from rows given by number and the curvatures of their losses."""
        return factorize(self._penalized(self._products(rows, curvature)), self._dtype)

    def of_classes(self, P: Array, weight: Array) -> Factor:
        """Return the Hessian of softmax regression in all coefficients, class by class.

        `P` (C, n) are the probabilities of all rows, `weight` (n,) is what rows count. A block is the products
        weighted by ``P[a] * (1 - P[a])``, or by ``-P[a] * P[b]`` off the diagonal.
        """
        (classes, n), size = P.shape, len(self._penalty)
        H = np.empty((classes, size, classes, size))
        rows = np.arange(n)
        for a in range(classes):
            H[a, :, a] = self._penalized(self._products(rows, weight * P[a] * (1 - P[a])))
            for b in range(a):
                H[a, :, b] = -self._products(rows, weight * P[a] * P[b])
                if not self._fit_intercept:
                    H[a, -1, b], H[a, :, b, -1] = 0.0, 0.0
                H[b, :, a] = H[a, :, b]
        return factorize(H.reshape(classes * size, classes * size), self._dtype)

    def diagonal(self, rows: NDArray[np.intp], curvature: Array) -> Factor:
        """Return the diagonal alone."""
        X = self._X[rows].astype(np.float64)
        if self._center is not None:
            X -= self._center
        diagonal = self._penalty.copy()
        diagonal[:-1] += np.einsum("i,ij,ij->j", curvature, X, X)
        diagonal[-1] = diagonal[-1] + curvature.sum() if self._fit_intercept else 1.0
        return Factor(1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)), None)

    def _products(self, rows: NDArray[np.intp], curvature: Array) -> Array:
        if self._center is not None:
            return self._centered_products(rows, curvature, self._center)
        G = gram.weighted_gram(self._X, rows, curvature, self._dtype, self._n_threads)
        if self._dtype != _FLOAT64 and not np.isfinite(np.einsum("ii->", G)):
            self._dtype = _FLOAT64
            G = gram.weighted_gram(self._X, rows, curvature, self._dtype, self._n_threads)
        return G

    def _centered_products(self, rows: NDArray[np.intp], curvature: Array, center: Array) -> Array:
        """Return the products of centred rows, which are a small part of those of rows far from 0."""
        G = np.zeros((len(self._penalty), len(self._penalty)))
        for first in range(0, len(rows), _CENTERED_ROWS):
            here = slice(first, first + _CENTERED_ROWS)
            some = self._X[rows[here]] - center
            G += gram.weighted_gram(some, np.arange(len(some)), curvature[here], _FLOAT64, self._n_threads)
        return G

    def _penalized(self, G: Array) -> Array:
        np.einsum("ii->i", G)[...] += self._penalty
        if not self._fit_intercept:
            G[-1], G[:, -1] = 0.0, 0.0
            G[-1, -1] = 1.0
        return G


class Rates(NamedTuple):
    """Makes probabilities of curvatures: about `size` rows are to be taken of all those whose sum is `total`.

    `more` raises the probabilities of rows that are not certain without it.
    """

    size: float
    total: float
    more: float = 1.0

    def probabilities(self, curvature: Array) -> Array:
        """Return the probability of each row."""
        probability = np.minimum(1.0, self.size * (curvature / self.total))
        if self.more == 1:
            return probability
        return np.where(probability < 1, np.minimum(1.0, self.more * probability), 1.0)


def cell_sums(values: Array) -> Array:
    """Return the sum of each cell of rows; see `kernels.training.cells`."""
    return np.add.reduceat(values, np.arange(0, len(values), cells.CELL))


def passing_rows(probability: Array, before: Array) -> NDArray[np.intp]:
    """Return the rows at which the running sum of probabilities passes a half, one and a half, and so on.

    In each cell the sum starts from that of the cells before, of which `before` has one for each.
    """
    passed = np.zeros((len(before), cells.CELL + 1))
    passed[:-1, 1:] = probability[: (len(before) - 1) * cells.CELL].reshape(-1, cells.CELL)
    last = probability[(len(before) - 1) * cells.CELL :]
    passed[-1, 1 : len(last) + 1] = last
    np.cumsum(passed, axis=1, out=passed)
    passed += (before + 0.5)[:, np.newaxis]
    np.floor(passed, out=passed)
    taken = (passed[:, 1:] > passed[:, :-1]).reshape(-1)[: len(probability)]
    return np.flatnonzero(taken | (probability == 1))


def sample_rows(curvature: Array, size: int) -> tuple[NDArray[np.intp], Array]:
    """Choose about `size` rows in proportion to their curvature, and return them with their new curvatures.

    Rows of large curvature are all taken, and rows of none are not. The choice is systematic: see `passing_rows`.
    Nothing is random, so the same data give the same rows.

    All that is known of other rows are sums of cells. So whoever has the rows of some cells, and these sums of all,
    finds the same rows among them.
    """
    if np.count_nonzero(curvature) <= size:
        rows = np.flatnonzero(curvature)
        return rows, curvature[rows]
    rates = Rates(size, _total(cell_sums(curvature)))
    probability = rates.probabilities(curvature)
    certain = np.count_nonzero(probability == 1)
    rest = _total(cell_sums(probability)) - certain
    if certain and rest > 0:  # what certain rows cannot use of their share goes to the others
        rates = rates._replace(more=(size - certain) / rest)
        probability = rates.probabilities(curvature)
    sums = np.cumsum(cell_sums(probability))
    rows = passing_rows(probability, np.concatenate([[0.0], sums[:-1]]))
    return rows, curvature[rows] / probability[rows]


def _total(sums: Array) -> float:
    """Add up in order, which NumPy's sum does not."""
    return float(np.cumsum(sums)[-1])
