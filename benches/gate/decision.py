"""What counts as slower: statistics on ratios of times, and nothing else.

A *sample* is one pair of processes, one of the base and one of the head, which took turns. Where a process lies in
memory makes it faster or slower as a whole, by several per cent, for as long as it lives. So the readings of one pair
are worth one number, the logarithm of head over base, and only several pairs say anything.

Two steps, each on pairs of its own:

1. *Screening*, all benchmarks: those whose median ratio is at least `Rule.screen` are suspected.
2. *Confirmation*, the suspected alone, in fresh processes: slower is what has a median of at least `Rule.slower`, and
   a sign test that rules out a true ratio of `Rule.floor` or less.

The sign test asks nothing of the noise but that pairs do not depend on each other. Where several benchmarks were
suspected, the level is shared by Benjamini and Hochberg's rule: if nothing is slower, the chance that anything is
confirmed stays below `Rule.level`; if much is slower, the number does not hide it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["RULE", "Rule", "confirmed", "interval", "log_ratio", "medians", "p_values", "shared_level", "suspected"]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Rule:
    """The numbers behind a decision.

    Attributes
    ----------
    screen : float
        Median ratio from which a benchmark is run again.
    slower : float
        Median ratio from which it counts as slower.
    floor : float
        The ratio that the sign test has to rule out.
    level : float
        Chance of a false alarm, over all benchmarks, where no true ratio is above the floor.
    least_pairs, most_pairs : int
        Pairs of the screening: at least, and at most if there is time.
    confirming_pairs : int
        Pairs of the confirmation.
    """

    screen: float = 1.08
    slower: float = 1.10
    floor: float = 1.05
    level: float = 0.005
    least_pairs: int = 5
    most_pairs: int = 9
    confirming_pairs: int = 15


RULE = Rule()


def log_ratio(base: Array, head: Array) -> float:
    """Return the logarithm of head's median time over base's, for the readings of one pair of processes."""
    return float(np.log(np.median(head)) - np.log(np.median(base)))


def medians(samples: Array) -> Array:
    """Return the median log ratio of every benchmark; `samples` is (pairs, benchmarks), NaN where one did not run."""
    ran = ~np.isnan(samples).all(axis=0)
    result = np.full(samples.shape[1], np.nan)
    if ran.any():
        result[ran] = np.nanmedian(samples[:, ran], axis=0)
    return result


def suspected(samples: Array, rule: Rule = RULE) -> Array:
    """Say of every benchmark whether it has to be run again."""
    return medians(samples) >= math.log(rule.screen)


def p_values(samples: Array, floor: float) -> Array:
    """Return the sign test's p for each benchmark: how likely so many pairs above `floor` are if its ratio is not.

    >>> p_values(np.full((10, 1), np.log(1.2)), 1.05)
    array([0.00097656])
    """
    counted = ~np.isnan(samples)
    above = ((samples > math.log(floor)) & counted).sum(axis=0)
    return np.array([_upper_tail(int(k), int(n)) for k, n in zip(above, counted.sum(axis=0), strict=True)])


def _upper_tail(k: int, n: int) -> float:
    """Return the chance of `k` or more heads in `n` throws of a coin."""
    return float(sum(math.comb(n, i) for i in range(k, n + 1)) / 2**n)


def shared_level(p: Array, level: float) -> Array:
    """Say which p are significant together (Benjamini and Hochberg 1995).

    >>> shared_level(np.array([0.004, 0.2, 0.03]), 0.05)
    array([ True, False,  True])
    """
    order = np.argsort(p, kind="stable")
    passed = np.flatnonzero(p[order] <= level * np.arange(1, len(p) + 1) / max(len(p), 1))
    result = np.zeros(len(p), bool)
    if len(passed):
        result[order[: passed[-1] + 1]] = True
    return result


def confirmed(samples: Array, rule: Rule = RULE) -> Array:
    """Say of every suspected benchmark whether its own, fresh pairs confirm that it is slower."""
    large = medians(samples) >= math.log(rule.slower)
    return large & shared_level(p_values(samples, rule.floor), rule.level)


def interval(samples: Array, confidence: float = 0.95) -> tuple[float, float]:
    """Return bounds of the median ratio of one benchmark: two order statistics, wide where pairs are few.

    >>> low, high = interval(np.log([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6]))
    >>> round(low, 3), round(high, 3)
    (1.0, 1.6)
    """
    ordered = np.sort(samples[~np.isnan(samples)])
    n = len(ordered)
    if n == 0:
        return math.nan, math.nan
    drop = 0
    while drop + 1 <= (n - 1) // 2 and 2 * _upper_tail(n - drop - 1, n) <= 1 - confidence:
        drop += 1
    return math.exp(ordered[drop]), math.exp(ordered[n - 1 - drop])
