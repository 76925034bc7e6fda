"""Logistic regression with an L1 penalty, alone or beside an L2 penalty."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..solvers.row_losses import CrossEntropy
from ..solvers.sparse import Penalty, SparseSolution, minimize_sparse
from ..utils import parameters

__all__ = ["chosen_penalty", "fit_sparse"]

Array = NDArray[np.float64]

#: What is said of deprecated values after their names, by which filters of scikit-learn's warnings go.
_DEPRECATED = " was deprecated in scikit-learn 1.8, and will be refused here when it is there, from 1.10 on: "


def chosen_penalty(penalty: Any, l1_ratio: Any, C: Any) -> tuple[float, float]:
    """Return C and the share of the L1 penalty that parameters ask for, with scikit-learn's warnings.

    `penalty` is the deprecated way to say what `l1_ratio` and an infinite `C` say.
    """
    parameters.one_of(penalty, "penalty", ("deprecated", "l1", "l2", "elasticnet", None))
    strength = math.inf if C == math.inf else parameters.number(C, "C", above=True)
    ratio = 0.0 if l1_ratio is None else parameters.number(l1_ratio, "l1_ratio", most=1.0)
    mixed = 0 < ratio < 1
    if penalty == "deprecated":
        if l1_ratio is None:
            _warn("'l1_ratio=None'" + _DEPRECATED + "0 stands for it", FutureWarning)
        used = None if strength == math.inf else "elasticnet"
    else:
        used = penalty
        _warn(
            "'penalty'" + _DEPRECATED + "l1_ratio=0 stands for 'l2', 1 for 'l1', a number in between for 'elasticnet', "
            "C=numpy.inf for None",
            FutureWarning,
        )
        if penalty == "elasticnet" and l1_ratio is None:
            raise ValueError("l1_ratio is None; with penalty='elasticnet' it must be a number from 0 to 1")
        if penalty is None and strength != 1.0:
            _warn(f"C is {C}, which penalty=None leaves unused", UserWarning)
        # A ratio of 0 is what it is by default.
        if (penalty == "l2" and l1_ratio != 0) or (penalty == "l1" and l1_ratio != 1):
            _warn(f"penalty={penalty!r} and l1_ratio={l1_ratio!r} are inconsistent; the first is used", UserWarning)
    if used != "elasticnet" and mixed:
        _warn(f"l1_ratio is {l1_ratio!r}; it is used with an elastic net only", UserWarning)
    if used is None:
        return math.inf, 0.0
    return strength, {"l1": 1.0, "l2": 0.0}.get(used, ratio)


def _warn(message: str, category: type[Warning]) -> None:
    warnings.warn(message, category, stacklevel=5)  # past `fit` and its decorator


def fit_sparse(
    X: NDArray[Any],
    codes: NDArray[np.intp],
    n_classes: int,
    weight: Array | None,
    total: float,
    C: float,
    l1_ratio: float,
    start: Array | None,
    *,
    scaling: float,
    tol: float,
    fit_intercept: bool,
    max_iter: int,
    n_threads: int | None,
    verbose: bool,
) -> SparseSolution:
    """Minimize the mean of the losses and the penalty, from coefficients and intercepts (K, D + 1) or from none.

    `total` is the sum of the weights. Intercepts are free where `scaling` is infinite, or coefficients of a column of
    this value.
    """
    shares = np.full(len(X), 1 / total) if weight is None else weight / total
    strength = 1 / (C * total) if C * total > 0 else math.inf
    if strength == math.inf:
        raise ValueError(f"C is {C}; with weights that sum to {total:g} the penalty 1 / (C * sum) exceeds float64")
    losses = CrossEntropy(codes, shares, n_classes)
    if start is None:
        start = np.zeros((losses.scores, X.shape[1] + 1))
        if fit_intercept:
            of_class = np.bincount(codes, weights=shares, minlength=n_classes)
            logarithms = np.log(np.maximum(of_class, 1 / (2 * len(X))))
            start[:, -1] = logarithms[1] - logarithms[0] if losses.scores == 1 else logarithms - logarithms.mean()
    l1 = np.full(X.shape[1] + 1, max(strength * l1_ratio, np.finfo(np.float64).tiny))
    intercept = "none" if not fit_intercept else "free" if scaling == math.inf else "penalized"
    if intercept == "penalized":
        l1[-1] /= scaling
    return minimize_sparse(
        X,
        losses,
        Penalty(l1, strength * (1 - l1_ratio), intercept),
        start,
        tol=tol**2,
        smallest=1e-6,
        max_iter=max_iter,
        n_threads=n_threads,
        verbose="round" if verbose else "",
    )
