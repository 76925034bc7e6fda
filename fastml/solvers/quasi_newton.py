"""L-BFGS for several independent smooth convex problems at once, on top of a preconditioner.

The linear models' objectives are sums over rows, and a pass over the rows is what costs. So whatever can be done
besides to save a pass is done: the inverse Hessian that L-BFGS starts from is a good approximation (`hessians`)
and not a multiple of the identity, and problems that share their rows (one class against the rest) share their
passes, each with its own step, its own memory and its own end.

With an exact Hessian that is made anew at every step this is Newton's method; with an old or a sampled one the
memory of the last steps makes up for what it lacks.

Sources: J. Nocedal and S. J. Wright, Numerical Optimization (2nd ed., 2006), algorithms 7.4 and 7.5; the acceptance
of steps whose decrease drowns in rounding is that of W. W. Hager and H. Zhang, SIAM J. Optim. 16 (2005), 170-192.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Minimizer", "Objective"]

Array = NDArray[np.float64]

#: A step must bring this share of the decrease that the slope promises, and take away that share of the slope.
_DECREASE, _CURVATURE = 1e-4, 0.9

_MOST_TRIALS = 40

#: A remembered curvature may be that many times less than a new preconditioner has it.
_AGREEMENT = 3.0


class Objective(Protocol):
    """What `Minimizer` works on: M problems of p parameters each; `which` names those that are meant."""

    def evaluate(self, W: Array, which: NDArray[np.intp]) -> tuple[Array, Array]:
        """Return values (m,) and gradients (m, p) at `W` (m, p); the last call for a problem is where it stands."""

    def rounded(self, W: Array) -> Array:
        """Return the points near `W` (m, p) at which the objective is really evaluated."""

    def noise(self, values: Array) -> Array:
        """Return how far values (m,) may be wrong by rounding."""

    def precondition(self, G: Array, which: NDArray[np.intp]) -> Array:
        """Return an approximation of the inverse Hessians times `G` (m, p)."""

    def converged(self, values: Array, G: Array, decrease: Array, which: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Say which problems are done; `decrease` (m,) is how much lower the minimum is believed to be."""


class _Pair(NamedTuple):
    """A step, the change of the gradient on it, and 1 / (step . change), 0 where the pair is not to be used."""

    step: Array
    change: Array
    scale: Array


class Minimizer:
    """Points, values and gradients of M problems on their way to the minimum.

    Attributes
    ----------
    W, gradients : ndarray of shape (M, p)
    values : ndarray of shape (M,)
    active : ndarray of intp
        The problems that are not done.
    n_iter : ndarray of shape (M,)
        Steps done on each problem.
    rounds : int
        Steps done together.
    stalled : ndarray of bool, shape (M,)
        Problems that are not done but on which no step helps any more: rounding stands in the way.
    """

    def __init__(self, objective: Objective, W: Array, *, memory: int = 15) -> None:
        self._objective = objective
        self.W = objective.rounded(W)
        self._pairs: deque[_Pair] = deque(maxlen=memory)
        self.n_iter, self.rounds = np.zeros(len(W), np.intp), 0
        self.values, self.gradients = np.empty(len(W)), np.empty_like(self.W)
        self.restart()

    def restart(self, which: NDArray[np.intp] | None = None) -> None:
        """Go on with some problems, or all, after a change of the objective."""
        self.active = np.arange(len(self.W)) if which is None else which
        self.stalled = np.zeros(len(self.W), np.bool_)
        self.values[self.active], self.gradients[self.active] = self._objective.evaluate(
            self.W[self.active], self.active
        )

    def forget(self) -> None:
        """Drop the memory of the last steps."""
        self._pairs.clear()

    def revise(self) -> None:
        """Drop what contradicts a new preconditioner.

        Where the curvature has fallen since a step was made, its pair and the new inverse Hessian together would
        promise far too much: the update adds the pair's direction as often as one exceeds the other.
        """
        for pair in self._pairs:
            which = self.active[pair.scale[self.active] > 0]
            if which.size:
                change = pair.change[which]
                excess = pair.scale[which] * _dots(change, self._objective.precondition(change, which))
                pair.scale[which[~(excess <= _AGREEMENT)]] = 0.0

    def step(self) -> Array:
        """Take one step on every problem that is not done, and return the decreases that were expected before."""
        which, objective = self.active, self._objective
        direction, slope = self._direction(which)
        decrease = -0.5 * slope
        done = objective.converged(self.values[which], self.gradients[which], decrease, which)
        self.active = which = which[~done]
        if which.size:
            self.rounds += 1
            self._search(which, direction[~done], slope[~done])
            self.active = which[~self.stalled[which]]
        return decrease

    def _direction(self, which: NDArray[np.intp]) -> tuple[Array, Array]:
        """Return the descent directions and the slopes along them."""
        G = self.gradients[which]
        q, shares = G.copy(), []
        for pair in reversed(self._pairs):
            share = pair.scale[which] * _dots(pair.step[which], q)
            q -= share[:, np.newaxis] * pair.change[which]
            shares.append(share)
        q = self._objective.precondition(q, which)
        for pair, share in zip(self._pairs, reversed(shares), strict=True):
            share = share - pair.scale[which] * _dots(pair.change[which], q)
            q += share[:, np.newaxis] * pair.step[which]
        slope = -_dots(G, q)
        wrong = ~(slope < 0) & G.any(axis=1)
        if wrong.any():  # rounding only: the approximation is positive definite
            q[wrong] = self._objective.precondition(G[wrong], which[wrong])
            slope[wrong] = -_dots(G[wrong], q[wrong])
        return -q, slope

    def _search(self, which: NDArray[np.intp], direction: Array, slope: Array) -> None:
        """Find a step along each direction that meets the Wolfe conditions, the first trial being a whole one."""
        start, before, G = self.W[which], self.values[which], self.gradients[which]
        allowed = self._objective.noise(before)
        m = len(which)
        t, low, high = np.ones(m), np.zeros(m), np.full(m, np.inf)
        slope_low, slope_high = slope.copy(), np.full(m, np.inf)
        found, moved = np.zeros(m, np.bool_), np.zeros(m)  # +1 where the high end moved last, -1 where the low one
        left = np.arange(m)
        for _ in range(_MOST_TRIALS):
            trial = self._objective.rounded(start[left] + t[left, np.newaxis] * direction[left])
            values, gradients = self._objective.evaluate(trial, which[left])
            with np.errstate(invalid="ignore"):
                slopes = _dots(gradients, direction[left])
                finite = np.isfinite(values) & np.isfinite(slopes)
                low_enough = values <= before[left] + _DECREASE * t[left] * slope[left]
                # Near the minimum the slope tells what the values cannot.
                low_enough |= (values <= before[left] + allowed[left]) & (slopes <= 0.8 * -slope[left])
            too_far = ~finite | ~low_enough
            too_short = ~too_far & (slopes < _CURVATURE * slope[left])
            good = ~too_far & ~too_short
            taken = which[left[good]]
            self.W[taken], self.values[taken], self.gradients[taken] = trial[good], values[good], gradients[good]
            found[left[good]] = True
            # An end that stays twice counts half (Illinois), or a kink nearby would be approached too slowly.
            slope_low[left[too_far & (moved[left] > 0)]] *= 0.5
            slope_high[left[too_short & (moved[left] < 0)]] *= 0.5
            moved[left[too_far]], moved[left[too_short]] = 1, -1
            high[left[too_far]], slope_high[left[too_far]] = t[left[too_far]], slopes[too_far]
            low[left[too_short]], slope_low[left[too_short]] = t[left[too_short]], slopes[too_short]
            left = left[~good]
            if not left.size:
                break
            t[left] = _next_trial(low[left], high[left], slope_low[left], slope_high[left])
            # As long as there is no high end, there is more to try further out.
            gone = np.isfinite(high[left]) & (high[left] - low[left] <= 1e-14 * high[left])
            left = left[~gone]
            if not left.size:
                break
        self.n_iter[which[found]] += 1
        if not found.all():  # what was evaluated last is what the objective remembers
            self._objective.evaluate(start[~found], which[~found])
        self._remember(which, self.W[which] - start, self.gradients[which] - G, found)
        self._give_up(which[~found])

    def _give_up(self, failed: NDArray[np.intp]) -> None:
        """Try once more without memory; what fails even then has come as far as rounding lets it."""
        if failed.size:
            fresh = np.array([not any(pair.scale[problem] for pair in self._pairs) for problem in failed])
            self.stalled[failed[fresh]] = True
            for pair in self._pairs:
                pair.scale[failed] = 0.0

    def _remember(self, which: NDArray[np.intp], step: Array, change: Array, found: NDArray[np.bool_]) -> None:
        products = _dots(step, change)
        usable = found & (products > 1e-12 * np.sqrt(_dots(step, step) * _dots(change, change)))
        if usable.any():
            pair = _Pair(np.zeros_like(self.W), np.zeros_like(self.W), np.zeros(len(self.W)))
            rows = which[usable]
            pair.step[rows], pair.change[rows], pair.scale[rows] = step[usable], change[usable], 1 / products[usable]
            self._pairs.append(pair)


def _next_trial(low: Array, high: Array, slope_low: Array, slope_high: Array) -> Array:
    """Where the slope would vanish if it were linear, kept away from the ends; ten times further without an end."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        bounded = np.isfinite(high)
        width = np.where(bounded, high - low, 1.0)
        share = -slope_low / (slope_high - slope_low)
        # Without a finite slope at the far end it is much too far.
        share = np.where(np.isfinite(slope_high) & (slope_high > 0), np.clip(share, 0.1, 0.9), 0.1)
        return np.where(bounded, low + share * width, np.maximum(10 * low, 1.0))


def _dots(A: Array, B: Array) -> Array:
    """Products of the rows of A with those of B, summed in an order that no BLAS decides."""
    products: Array = np.einsum("ij,ij->i", A, B)
    return products
