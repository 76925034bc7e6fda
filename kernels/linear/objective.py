"""Objectives of linear models as their solvers need them: values and gradients in one pass over X.

`linear_loss_gradient` is the public function; a solver asks for more. Several independent problems share a pass
(one class against the rest, each with its own loss), the derivative of every row by its score comes back
(curvatures and dual variables are made from it), arguments are settled once for all passes, and float32 rows
can be worked on in float64: they are widened a few at a time, in cache, so that the last digits cost no copy
of the data.

The formulas, the products and the rules of summation are those of `gradient`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..losses.class_formulas import CLASSWISE, scratch
from ..losses.formulas import POINTWISE
from ..losses.means import ones
from ..losses.table import LOSSES
from ..runtime.jit import inner, kernel, readonly, scalar
from ..simd.functions import like
from ..simd.rows import frozen, prefetch, sum_of
from ..training.cells import CELL, call_rows, end_of_cell, place_of, sums_of_cells
from ._products import ROWS, ROWS_OF_ONE, add_gradient, add_gradient_of_one, flush, scores, scores_of_one, whole_strips

__all__ = ["SOLVER_LOSSES", "LossPass"]

#: Multiplications of a pass per call, and seconds of a byte of X for each score and once more, roughly.
_CALL_PRODUCTS = 1 << 28
_BYTE_SECONDS = 2e-11

#: Those of the table, and a hinge without a kink. Losses of probabilities take targets in [0, 1]; losses over classes
#: take class numbers, one problem with a score per class; losses of signs class numbers, one problem per class, that
#: class against the rest.
SOLVER_LOSSES = (*(name for name, loss in LOSSES.items() if loss.in_solvers), "smooth_hinge")
assert not any(LOSSES[name].has_delta for name in SOLVER_LOSSES[:-1]), "the one parameter is the smooth hinge's"


class LossPass:
    """Sums over rows of weighted losses of linear scores, and their gradients.

    Parameters
    ----------
    loss : str
        One of `SOLVER_LOSSES`.
    X : ndarray of shape (n, D), float32 or float64, C-contiguous
    target : ndarray of shape (n,)
        Float targets for binary cross-entropy, class numbers (intp) otherwise.
    weight : ndarray of shape (n,), or None
        Weights of the rows.
    positive, negative : ndarray of shape (classes,)
        What a row of the class, and one of the rest, counts besides. Binary and softmax cross-entropy read
        ``positive[0]`` only.
    n_threads : int, optional
        Threads to use; None means all that this process may use.
    """

    def __init__(
        self,
        loss: str,
        X: NDArray[Any],
        target: NDArray[Any],
        weight: NDArray[Any] | None,
        positive: NDArray[np.float64],
        negative: NDArray[np.float64],
        n_threads: int | None = None,
    ) -> None:
        self.loss = loss
        self.X = X
        self._weight = weight
        self._target = target
        self._factors = positive, negative
        self._n_threads = n_threads
        self._cast: dict[np.dtype[Any], tuple[NDArray[Any], ...]] = {}

    def __call__(
        self,
        W: NDArray[np.float64],
        b: NDArray[np.float64],
        *,
        which: NDArray[np.intp],
        dtype: np.dtype[Any],
        parameter: NDArray[np.float64],
        score_gradient: NDArray[Any] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the sums of the losses and their gradients at `W` (classes, D) and `b` (classes,).

        Parameters
        ----------
        W, b : ndarray of float64
            Coefficients of the classes in `which`; cast to `dtype`.
        which : ndarray of intp
            Numbers of the classes: the problems to look at, all classes for softmax.
        dtype : dtype
            What is computed in: that of `X`, or float64.
        parameter : ndarray of shape (problems,)
            Width of the smooth hinge's parabola for each problem; other losses have none.
        score_gradient : ndarray of shape (all classes, n), of `dtype`, optional
            Receives the derivatives of the weighted losses by the scores, in the rows that `which` names.

        Returns
        -------
        values : ndarray of shape (classes,)
            For softmax the sum stands in the first place, the others are 0.
        gradients : ndarray of shape (classes, D + 1)
            The intercept's last.
        """
        d, classes = self.X.shape[1], len(b)
        passes = (_AS_THEY_ARE if dtype == self.X.dtype else _WIDENED)[self.loss]
        target, weight, positive, negative = self._settled(dtype)
        values, labels = (target, _NO_LABELS) if target.dtype.kind == "f" else (_NOTHING[dtype], target)
        settled = (readonly(self.X), readonly(W.astype(dtype)), readonly(b.astype(dtype)))
        rule = (readonly(which), positive, negative, readonly(parameter.astype(dtype)))
        data = (values, labels, self._weight is not None, weight)
        score_gradient = _NO_GRADIENT[dtype] if score_gradient is None else score_gradient
        total = self._sums(
            lambda first, last, stack: passes(*settled, data, rule, first, last, stack, score_gradient),
            (classes, d + 2),
        )
        return total[:, -1], total[:, :-1]

    def combine(self, A: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums of the rows of X and of ones, weighted by the rows of `A` (m, n): (m, D + 1), in float64."""
        X, A = readonly(self.X), readonly(A)
        return self._sums(lambda first, last, stack: _combine(X, A, first, last, stack), (len(A), self.X.shape[1] + 1))

    def _sums(self, add: Callable[[int, int, NDArray[np.float64]], Any], shape: tuple[int, int]) -> NDArray[np.float64]:
        (n, d), classes = self.X.shape, shape[0]
        return sums_of_cells(
            add,
            n,
            shape,
            seconds=self.X.nbytes * (classes + 1) * _BYTE_SECONDS,
            call_rows=call_rows(_CALL_PRODUCTS, classes * d),
            n_threads=self._n_threads,
        )

    def _settled(self, dtype: np.dtype[Any]) -> tuple[NDArray[Any], ...]:
        """Return target, weights and factors in `dtype`, cast once."""
        if dtype not in self._cast:
            target = self._target if self._target.dtype.kind == "i" else self._target.astype(dtype, copy=False)
            weight = ones(dtype) if self._weight is None else self._weight.astype(dtype, copy=False)
            arrays = target, weight, *(factor.astype(dtype) for factor in self._factors)
            self._cast[dtype] = tuple(readonly(array) for array in arrays)
        return self._cast[dtype]


_NO_LABELS = readonly(np.empty(0, np.intp))
_NOTHING = {np.dtype(name): readonly(np.empty(0, name)) for name in ("f4", "f8")}
_NO_GRADIENT = {np.dtype(name): np.empty((0, 0), name) for name in ("f4", "f8")}


# ---------------------------------------------------------------------------------------- kernels
#
# `data` is (float targets, class numbers, whether there are weights, weights); `rule` is (numbers of the problems,
# what counts a row of the class, what a row of the rest, parameters of the losses).


@scalar
def _smooth_hinge(z, y, width):  # type: ignore[no-untyped-def]
    """Take the hinge with a parabola for its kink over ``1 - width < y z < 1``: at most width / 2 below it."""
    slack = like(z, 1) - y * z
    zero, half = like(z, 0), like(z, 0.5)
    slack = zero if slack <= zero else slack
    bent = slack < width
    share = slack / width if bent else like(z, 1)
    value = half * slack * share if bent else slack - half * width
    return value, -y * share


def _one_problem(term: Callable[..., Any]) -> Callable[..., Any]:
    """Apply a formula to the scores of the only problem."""

    @inner
    def add_rows(Z, y, labels, weight, rule, work, G, total):  # type: ignore[no-untyped-def]
        _, positive, _, parameters = rule
        parameter = parameters[0]
        n, last = Z.shape[0], total.shape[1] - 1
        z, g, values, scale = Z.reshape(Z.size), G.reshape(G.size), work[0], positive[0]
        for i in range(n):
            value, derivative = term(z[i], y[i], parameter)
            values[i] = scale * weight[i] * value
            g[i] = scale * weight[i] * derivative
        total[0, last] += sum_of(values[:n])

    return add_rows


def _one_against_the_rest(term: Callable[..., Any]) -> Callable[..., Any]:
    """Apply a formula to the scores of every problem: +1 where a row is of the problem's class."""

    @inner
    def add_rows(Z, y, labels, weight, rule, work, G, total):  # type: ignore[no-untyped-def]
        which, positive, negative, parameters = rule
        n, last = Z.shape[0], total.shape[1] - 1
        values, one = work[0], like(Z[0, 0], 1)
        for c in range(which.size):
            k = which[c]
            parameter = parameters[k]
            for i in range(n):
                mine = labels[i] == k
                value, derivative = term(Z[i, c], one if mine else -one, parameter)
                factor = weight[i] * (positive[k] if mine else negative[k])
                values[i] = factor * value
                G[i, c] = factor * derivative
            total[c, last] += sum_of(values[:n])

    return add_rows


def _over_classes(formula: Callable[..., Any]) -> Callable[..., Any]:
    """Apply one of the `class_formulas` to the scores of the only problem, which has one per class."""

    @inner
    def add_rows(Z, y, labels, weight, rule, work, G, total):  # type: ignore[no-untyped-def]
        no_probabilities, scale = Z[:0], rule[1][0]
        total[0, total.shape[1] - 1] += scale * formula(Z, labels, no_probabilities, weight, scale, work, G)

    return add_rows


@inner
def _space(W):  # type: ignore[no-untyped-def]
    """Return the space of a call: scores and their gradient, what the formulas need, the gradient of a few rows."""
    classes, columns = W.shape
    Z, G = np.empty((ROWS, classes), W.dtype), np.empty((ROWS, classes), W.dtype)
    return Z, G, scratch(ROWS, classes, Z), np.zeros((classes, columns + 1), W.dtype)


@kernel
def _combine(X, A, first, last, stack):  # type: ignore[no-untyped-def]
    m, columns = A.shape[0], X.shape[1]
    rows, weights = np.empty((ROWS, columns), A.dtype), np.empty((ROWS, m), A.dtype)
    for cell in range(first, last, CELL):
        total, bottom = place_of(cell, stack), min(last, cell + CELL)
        for top in range(cell, bottom, ROWS):
            n = min(ROWS, bottom - top)
            prefetch(X, top + ROWS, min(top + 2 * ROWS, X.shape[0]))
            _widen(X, top, n, rows)
            for c in range(m):
                for i in range(n):
                    weights[i, c] = A[c, top + i]
            add_gradient(frozen(rows), 0, n, weights, total, total)
        end_of_cell(bottom, X.shape[0], stack)


@inner
def _widen(X, top, n, rows):  # type: ignore[no-untyped-def]
    for i in range(n):
        source, place = X[top + i], rows[i]
        for d in range(source.size):
            place[d] = source[d]


def _passes(loss: str, add_rows: Callable[..., Any]) -> tuple[Callable[..., None], Callable[..., None]]:
    """Make the kernels of one loss: on rows as they are, and on rows that are widened to float64."""

    @inner
    def add(rows, W, b, data, rule, begin, count, space, total, score_gradient):  # type: ignore[no-untyped-def]
        y, labels, weighted, weight = data
        Z, G, work, dW = space
        classes, at_once = W.shape[0], ROWS_OF_ONE if W.shape[0] == 1 else ROWS
        in_strips = 0 if classes == 1 else whole_strips(rows)
        for first in range(0, count, at_once):
            n, top = min(at_once, count - first), begin + first
            here = slice(top, top + n)
            if classes == 1:
                scores_of_one(rows, W, b, first, n, Z)
            else:
                scores(rows, W, b, first, n, Z, in_strips > 0)
            add_rows(Z[:n], y[here], labels[here], weight[here] if weighted else weight, rule, work, G[:n], total)
            if classes == 1:
                add_gradient_of_one(rows, first, n, G, dW)
            else:
                add_gradient(rows, first, n, G, dW, total)
            if score_gradient.size > 0:
                which = rule[0]
                for c in range(which.size):
                    row = score_gradient[which[c], here]
                    for i in range(n):
                        row[i] = G[i, c]
        flush(dW, in_strips, total)

    def as_they_are(X, W, b, data, rule, first, last, stack, score_gradient):  # type: ignore[no-untyped-def]
        space = _space(W)
        for cell in range(first, last, CELL):
            total, bottom = place_of(cell, stack), min(last, cell + CELL)
            for top in range(cell, bottom, ROWS):
                add(X[top:], W, b, data, rule, top, min(ROWS, bottom - top), space, total, score_gradient)
            end_of_cell(bottom, X.shape[0], stack)

    def widened(X, W, b, data, rule, first, last, stack, score_gradient):  # type: ignore[no-untyped-def]
        space = _space(W)
        rows = np.empty((ROWS, X.shape[1]), W.dtype)
        for cell in range(first, last, CELL):
            total, bottom = place_of(cell, stack), min(last, cell + CELL)
            for top in range(cell, bottom, ROWS):
                n = min(ROWS, bottom - top)
                prefetch(X, top + ROWS, min(top + 2 * ROWS, X.shape[0]))
                _widen(X, top, n, rows)
                add(frozen(rows), W, b, data, rule, top, n, space, total, score_gradient)
            end_of_cell(bottom, X.shape[0], stack)

    made = []
    for function in (as_they_are, widened):
        function.__qualname__ = function.__name__ = f"{loss}_{function.__name__}"
        made.append(kernel(function))
    return made[0], made[1]


def _add_rows_of(loss: str) -> Callable[..., Any]:
    """Make what the losses of a table's row need: see `SOLVER_LOSSES`."""
    if loss == "smooth_hinge":
        return _one_against_the_rest(_smooth_hinge)
    if loss in CLASSWISE:
        return _over_classes(CLASSWISE[loss])
    form = _one_against_the_rest if LOSSES[loss].target == "sign" else _one_problem
    return form(POINTWISE[loss])


_AS_THEY_ARE, _WIDENED = {}, {}
for _loss in SOLVER_LOSSES:
    _AS_THEY_ARE[_loss], _WIDENED[_loss] = _passes(_loss, _add_rows_of(_loss))
