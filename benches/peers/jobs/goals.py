"""What the jobs shall reach: one table.

Ratios of times, the peer's over ours; beside a limit, our share of it. A CPU with AVX-512 has goals of its own.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple

from fastml.kernels.runtime.target import target

from .job import OURS

__all__ = ["GOALS", "LIMIT", "OTHERS", "Goal", "of"]

#: In the place of a package: the limit of a job, and all other libraries that do it.
LIMIT, OTHERS = "limit", "others"


class Goal(NamedTuple):
    """At least what `ratio` says, or `wide` where vectors have 64 bytes, beside `package` at the jobs so named."""

    job: str  # a pattern of name and size
    package: str
    ratio: float
    wide: float


def _same(job: str, package: str, ratio: float) -> Goal:
    return Goal(job, package, ratio, ratio)


#: The first that fits counts.
GOALS = (
    # Distances
    Goal("pairwise_l2 float32, * × 784", LIMIT, 0.85, 0.85),
    Goal("pairwise_l2 float64, * × 784", LIMIT, 0.8, 0.85),
    Goal("pairwise_l1 float32, *", "scipy", 22, 25),
    Goal("pairwise_linf float32, *", "scipy", 18, 20),
    _same("pairwise_l1 float32, *", LIMIT, 0.85),
    _same("pairwise_linf float32, *", LIMIT, 0.85),
    _same("pairwise_l1 float64, *", "scipy", 12),
    _same("pairwise_linf float64, *", "scipy", 10),
    _same("pairwise_l2 float32, 5000 × 5000 × *", "scipy", 2),
    # Neighbors
    Goal("k_nearest l2 float32, 2000 × 20000 × 784*", OTHERS, 1.7, 3),
    _same("k_nearest l2 float32, normal, *", OTHERS, 1.4),
    _same("k_nearest l2 float32, Cauchy, *", OTHERS, 1),
    _same("k_nearest l2 *, MNIST, *", OTHERS, 3),
    _same("k_nearest l2 float32, CIFAR-10, *", OTHERS, 2),
    _same("k_nearest l1 float32, *", "scikit-learn-intelex", 1.5),
    _same("k_nearest l1 float32, *", "faiss-cpu", 3.5),
    _same("k_nearest l1 float32, *", "scikit-learn", 20),
    _same("k_nearest linf float32, *", OTHERS, 12),
    _same("k_nearest cosine float32, *", "scikit-learn-intelex", 1),
    _same("k_nearest cosine float32, *", "scikit-learn", 2),
    _same("k_nearest hamming, *", OTHERS, 1),
    _same("k_nearest l1 uint8, *", OURS, 4),
    _same("k_nearest l1 uint8, *", "scikit-learn-intelex", 7),
    _same("k_nearest l2 float32, 5000 × 5000 × *", "scikit-learn", 1.5),
    _same("k_nearest l2 float32, 1 × *", "faiss-cpu", 0.95),
    _same("k_nearest l2 float32, 1 × *", "scikit-learn", 2),
    _same("radius_neighbors l2 float32, * × 784*", "scikit-learn", 1.5),
    _same("radius_neighbors l1 float32, * × 784*", "scikit-learn", 5),
    _same("radius_neighbors l2 float32, * × 3*", OTHERS, 2),
    _same("prepared k_nearest l2 float32, * × 128, *", "faiss-cpu", 1),
    _same("prepared k_nearest l2 float32, * × 3, *", OTHERS, 1),
    _same("pairwise_argmin_min l2 *", OURS, 1.3),
    _same("pairwise_argmin_min l2 *", "scikit-learn", 2),
    _same("knn_cross_validation *", OTHERS, 20),
    _same("KNNImputer float64, *", "scikit-learn", 10),
    # Losses
    _same("* one thread", OTHERS, 1.8),
    _same("softmax_cross_entropy_gradient *", OTHERS, 1.3),
    _same("exp float32, *", OTHERS, 1),
    _same("softmax float32, *", OTHERS, 1),
    _same("linear_loss_gradient * classes", LIMIT, 0.55),
    _same("linear_loss_gradient *", LIMIT, 0.85),
    # Linear models
    _same("LogisticRegression float32, * to a gradient of *", OTHERS, 5),
    _same("LogisticRegression float32, * defaults", OTHERS, 2),
    _same("LogisticRegression float32, * 10 classes, *", "scikit-learn", 2),
    _same("LogisticRegression float32, * 10 classes, *", "scikit-learn-intelex", 1.5),
    _same("LinearSVC *", OTHERS, 2),
    # Training by mini-batches
    _same("SGDClassifier log_loss *", "torch", 25),
    _same("SGDClassifier log_loss *", "scikit-learn", 5),
    _same("SGDClassifier log_loss * batches of 100", "numpy", 4),
    _same("SGDClassifier log_loss *", "numpy", 2),
    _same("SGDClassifier softmax *", "numpy", 3),
    _same("sweep *", OURS, 3),
    _same("sweep *", "numpy", 10),
    # Networks
    _same("MLPClassifier 784-40-10 *, batches of 10", OTHERS, 3),
    _same("MLPClassifier 784-40-10 *, batches of 128", OTHERS, 1.7),
    _same("MLPClassifier 784-800-10 *, batches of 10", "torch", 1.4),
    _same("MLPClassifier 784-800-10 *, batches of 128", "torch", 1.1),
    Goal("ConvNetClassifier *", OTHERS, 1, 1.2),
)


def of(job: str, package: str) -> float | None:
    """Return the goal of a job, by its name and size, beside a package or `LIMIT`; None: there is none."""
    others = () if package in (LIMIT, OURS) else (OTHERS,)
    fitting = (goal for goal in GOALS if goal.package in (package, *others) and fnmatchcase(job, goal.job))
    found = next(fitting, None)
    return None if found is None else found.wide if target().vector_bytes == 64 else found.ratio
