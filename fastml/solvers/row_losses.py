"""Losses of linear scores as functions of the scores alone: sums, derivatives and conjugates.

Numbers of rows, not of entries, are worked on here: NumPy is fast enough.

Source: W. K. Grassmann, M. I. Taksar and D. P. Heyman, Regenerative analysis and steady state distributions for Markov
chains, Operations Research 33 (1985).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, xlog1py, xlogy

__all__ = ["CrossEntropy", "Curvature", "RowLosses", "SquaredHinge"]

Array = NDArray[np.float64]


class Curvature(NamedTuple):
    """Second derivatives of a row's loss by its scores: `own` by one, ``-shared_c shared_k`` by two."""

    own: Array  # (K, n)
    shared: Array | None  # (K, n)


class RowLosses(ABC):
    """Losses of scores (K, n), with the weights (n,) of rows in them."""

    scores: int
    weight: Array

    @abstractmethod
    def value(self, z: Array, c: int, rest: Array | None) -> float:
        """Return the sum of the losses as a function of the scores of class c, but for a constant."""

    @abstractmethod
    def slopes(self, z: Array, c: int, rest: Array | None) -> tuple[Array, Array]:
        """Return first and second derivatives by the scores of class c."""

    def rest(self, Z: Array, c: int) -> Array | None:
        """Return what the other scores come to while those of class c change."""
        return None

    @abstractmethod
    def total(self, Z: Array) -> float:
        """Return the sum of the losses."""

    @abstractmethod
    def derivatives(self, Z: Array) -> Array:
        """Return the derivatives of the sum by the scores."""

    def curvature(self, Z: Array) -> Curvature:
        """Return the second derivatives by all scores; with one score `slopes` has them."""
        raise NotImplementedError

    @abstractmethod
    def balance(self, A: Array) -> Array:
        """Return factors (n,) in (0, 1] after which the rows of derivatives `A` sum to 0.

        Where no factors can do that, `A` is changed, to derivatives that scores elsewhere have.
        """

    @abstractmethod
    def conjugate(self, Z: Array, A: Array, factors: Array) -> float:
        """Return the sum of the conjugates at derivatives `A` times factors of the rows."""


def _two_sides(a: Array) -> Array:
    """Return factors after which what is positive and what is negative sum to the same."""
    up, down = float(a[a > 0].sum()), -float(a[a < 0].sum())
    factors = np.ones(len(a))
    if up > down:
        factors[a > 0] = down / up
    elif down > up:
        factors[a < 0] = up / down
    return factors


class CrossEntropy(RowLosses):
    """Cross-entropy of classes: binary with one score, softmax with one per class.

    With the other scores fixed the second is the first, of the class's score less the logarithm of the sum of the
    exponentials of the others.
    """

    def __init__(self, codes: NDArray[np.intp], shares: Array, n_classes: int) -> None:
        self.scores = 1 if n_classes == 2 else n_classes
        self._codes, self.weight = codes, shares
        self._positive = [codes == c for c in ([1] if n_classes == 2 else range(n_classes))]
        self._signs = [np.where(positive, 1.0, -1.0) for positive in self._positive]
        self._weightless = [c for c, positive in enumerate(self._positive) if not shares[positive].any()]

    def rest(self, Z: Array, c: int) -> Array | None:
        """Return the logarithm of the sum of the exponentials of the other scores."""
        return None if self.scores == 1 else _log_sum(np.delete(Z, c, axis=0))

    def value(self, z: Array, c: int, rest: Array | None) -> float:
        """Return the sum of the losses as a function of one class's scores."""
        margin = self._signs[c] * (z if rest is None else z - rest)
        return -float(np.sum(self.weight * log_expit(margin)))

    def slopes(self, z: Array, c: int, rest: Array | None) -> tuple[Array, Array]:
        """Return first and second derivatives by one class's scores."""
        error = expit(-self._signs[c] * (z if rest is None else z - rest))
        slope = self.weight * error
        return -self._signs[c] * slope, slope * (1 - error)

    def total(self, Z: Array) -> float:
        """Return the sum of the losses."""
        if self.scores == 1:
            return self.value(Z[0], 0, None)
        # As of one score, that of a row's class less those of the others: losses near 0 keep their digits.
        every = np.arange(Z.shape[1])
        others = Z.copy()
        others[self._codes, every] = -np.inf
        return -float(np.sum(self.weight * log_expit(Z[self._codes, every] - _log_sum(others))))

    def derivatives(self, Z: Array) -> Array:
        """Return the derivatives of the sum by the scores."""
        if self.scores == 1:
            return self.slopes(Z[0], 0, None)[0][np.newaxis]
        A = np.exp(Z - _log_sum(Z))
        every = np.arange(Z.shape[1])
        A[self._codes, every] = 0.0
        A[self._codes, every] = -A.sum(axis=0)
        A *= self.weight
        return A

    def curvature(self, Z: Array) -> Curvature:
        """Return the second derivatives by all scores."""
        P = np.exp(Z - _log_sum(Z))
        # The larger of p and 1 - p is rounded, and the smaller is not to be made of it.
        rest = np.array([np.delete(P, c, axis=0).sum(axis=0) for c in range(len(P))])
        return Curvature(self.weight * P * rest, np.sqrt(self.weight) * P)

    def balance(self, A: Array) -> Array:
        """Return factors after which derivatives sum to 0."""
        if self.scores == 1:
            return _two_sides(A[0])
        # The derivatives of a class without weight are nowhere below 0, and 0 in the limit of its intercept.
        for c in self._weightless:
            A[self._codes, np.arange(A.shape[1])] += A[c]
            A[c] = 0.0
        # Scaled by class, rows sum to 0 if the factors are the stationary distribution of the chain in which
        # derivatives are rates from a row's class to others.
        rates = np.array([A[:, positive].sum(axis=1) for positive in self._positive])
        np.fill_diagonal(rates, 0.0)
        factors = _stationary(rates)
        factors /= factors.max()
        scaled: Array = factors[self._codes]
        return scaled

    def conjugate(self, Z: Array, A: Array, factors: Array) -> float:
        """Return the sum of the conjugates."""
        # The probability that is missing at the row's class, and those of the others.
        some = self.weight > 0
        share = self.weight[some]
        if self.scores == 1:
            missing = others = (factors * np.abs(A[0]))[some] / share
            entropy = xlogy(others, others)
        else:
            P = np.maximum(factors * A, 0.0)[:, some] / share
            missing, entropy = P.sum(axis=0), xlogy(P, P).sum(axis=0)
        missing = np.minimum(missing, 1.0)
        return float(np.sum(share * (entropy + xlog1py(1 - missing, -missing))))


class SquaredHinge(RowLosses):
    """The squared hinge of one score, with signs as labels."""

    scores = 1

    def __init__(self, signs: Array, costs: Array) -> None:
        self._signs, self.weight = signs, costs

    def _slack(self, z: Array) -> Array:
        slack: Array = np.maximum(1 - self._signs * z, 0.0)
        return slack

    def value(self, z: Array, c: int, rest: Array | None) -> float:
        """Return the sum of the losses as a function of one class's scores."""
        return float(np.sum(self.weight * self._slack(z) ** 2))

    def slopes(self, z: Array, c: int, rest: Array | None) -> tuple[Array, Array]:
        """Return first and second derivatives by one class's scores."""
        slack = self._slack(z)
        return -2 * self.weight * self._signs * slack, 2 * self.weight * (slack > 0)

    def total(self, Z: Array) -> float:
        """Return the sum of the losses."""
        return self.value(Z[0], 0, None)

    def derivatives(self, Z: Array) -> Array:
        """Return the derivatives of the sum by the scores."""
        return self.slopes(Z[0], 0, None)[0][np.newaxis]

    def balance(self, A: Array) -> Array:
        """Return factors after which derivatives sum to 0."""
        return _two_sides(A[0])

    def conjugate(self, Z: Array, A: Array, factors: Array) -> float:
        """Return the sum of the conjugates."""
        some = self.weight > 0
        size = (factors * np.abs(A[0]))[some]
        return float(np.sum(size**2 / (4 * self.weight[some]) - size))


def _log_sum(Z: Array) -> Array:
    """Return the logarithms of the sums of exponentials over the first axis."""
    largest = Z.max(axis=0)
    logarithms: Array = largest + np.log(np.exp(Z - largest).sum(axis=0))
    return logarithms


def _stationary(rates: Array) -> Array:
    """Return the stationary distribution of a chain, up to a factor; without differences, so to the last digits."""
    rates, n = rates.copy(), len(rates)
    out = np.ones(n)
    for k in range(n - 1, 0, -1):
        out[k] = rates[k, :k].sum()
        if out[k] > 0:
            rates[:k, :k] += np.outer(rates[:k, k] / out[k], rates[k, :k])
    found = np.ones(n)
    for k in range(1, n):
        found[k] = found[:k] @ rates[:k, k] / out[k] if out[k] > 0 else 1.0
    return found
