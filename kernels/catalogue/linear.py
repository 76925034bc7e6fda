"""Linear models under each loss: gradients, training and evaluation; truths and entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .entry import (
    FLOATS,
    INDEX_BYTES,
    LOSS_REGIMES,
    Dtypes,
    Entry,
    Inputs,
    Size,
    itemsize,
    rtol_by_dtype,
    tolerances,
)
from .inputs import random_normal, random_targets, random_weights
from .losses import LOSSES, loss_of_rows
from .truth import Array, Truth, plain_sum_factor, wide_dtype


def entries() -> Iterator[Entry]:
    """Yield the entries of this family."""
    yield from map(_gradient, LOSSES)
    for name in (name for name, loss in LOSSES.items() if loss.known.in_training):
        yield _training(name)
        yield _evaluation(name)


def _inputs(
    rng: np.random.Generator, name: str, n: int, d: int, models: Size, dtype: str, regime: str
) -> tuple[Array, Array, Array, Any]:
    """Return X, y, W and b, of one model or of more (`models` is their shape)."""
    matrix = LOSSES[name].target == "class"
    X = random_normal(rng, (n, d), dtype)
    W = random_normal(rng, (*models, d), dtype) / math.sqrt(d)
    b = random_normal(rng, models, dtype) if models else 0.25
    y = random_targets(rng, LOSSES[name].target, n, models[-1] if matrix else 1, dtype)
    if regime == "extreme":
        X[::3] = 0
        X[1::3] *= 100
        W *= min(100, LOSSES[name].largest / 4000)  # scores of ±1e4, if the loss has a value there
    return X, y, W, b


def _gradient(name: str) -> Entry:
    loss = LOSSES[name]
    matrix = loss.target == "class"
    tolerance = tolerances(
        16,
        "scores and gradients are sums over blocks of columns or rows, relative to the sums of |x·w| and |slope·x|; "
        "thousands of roundings of either sign leave a few eps of these",
    )

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        rng = np.random.default_rng(seed)
        n, d = size[:2]
        kwargs: dict[str, Any] = {"l2": 0.01}
        arrays = _inputs(rng, name, n, d, size[2:], dtype, regime)
        if regime == "weighted":
            kwargs["sample_weight"] = random_weights(rng, n, dtype)
        return Inputs((name, *arrays), kwargs)

    def size_bytes(size: Size, dtype: str) -> float:
        n, d = size[:2]
        model = 2 * (d + 1) * (size[2] if matrix else 1)
        return (n * d + model) * itemsize(dtype) + n * (INDEX_BYTES if matrix else itemsize(dtype))

    def flops(size: Size) -> float:  # one product for the scores, one for the gradient
        return 4 * math.prod(size)

    return Entry(
        key=f"linear_loss_gradient[{name}]",
        function="linear_loss_gradient",
        family="linear",
        formula=f"z = X·w + b; {loss.formula} + λ/2·‖w‖²; Xᵀ·∂z + λw, Σ∂z",
        dtypes={dtype: Dtypes("float64", dtype) for dtype in FLOATS},
        sizes={"tiny": (29, 19, 4), "default": (10_000, 784, 10), "full": (60_000, 784, 10)}
        if matrix
        else {"tiny": (53, 19), "default": (100_000, 90), "full": (463_715, 90)},
        axes=("n", "d", "c") if matrix else ("n", "d"),
        make=make,
        regimes=LOSS_REGIMES,
        work=flops,
        unit="flop",
        bytes=size_bytes,
        flops=flops,
        limit="gemm" if matrix else "memory",
        tolerance=tolerance,
        loop_size=(50, 784, 10) if matrix else (1_000, 90),
        specializations=len(FLOATS),
        truth=_gradient_truth(name, rtol_by_dtype(tolerance)),
    )


def _training(name: str) -> Entry:
    loss = LOSSES[name]
    matrix = loss.target == "class"
    tolerance = tolerances(
        16,
        "as for one gradient, relative to the sums of |x·w| and |slope·x|; the scale adds up what the steps before "
        "have left in the weights, and a rounding of them in every step",
    )

    def batch(n: int) -> int:
        return max(1, min(1000, n // 4))

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        rng = np.random.default_rng(seed)
        n, d = size[:2]
        arrays = _inputs(rng, name, n, d, size[2:], dtype, regime)
        batches = -(-n // batch(n))
        # So small that errors of the first steps do not grow much: scores change by |x|², about d, times the step.
        steps = 0.5 / (d * batches) * (1e-4 if regime == "extreme" else 1)
        kwargs: dict[str, Any] = {"batch_size": batch(n), "steps": steps, "l2": 0.01, "l1": 0.001, "momentum": 0.5}
        kwargs["nesterov"] = regime == "weighted"
        if regime == "weighted":
            kwargs["sample_weight"] = random_weights(rng, n, dtype)
        return Inputs((name, *arrays, rng.permutation(n)), kwargs)

    def size_bytes(size: Size, dtype: str) -> float:
        n, d = size[:2]
        model = 2 * (d + 1) * (size[2] if matrix else 1)
        rows = n * (d * itemsize(dtype) + (INDEX_BYTES if matrix else itemsize(dtype)) + INDEX_BYTES)
        return rows + model * itemsize(dtype) + 8 * -(-n // batch(n))

    def flops(size: Size) -> float:  # one product for the scores, one for the gradient
        return 4 * math.prod(size)

    return Entry(
        key=f"train_linear[{name}]",
        function="train_linear",
        family="training",
        formula=f"z = X·w + b; {loss.formula}; v ← μv − η(Xᵀ·∂z + λw), w ← w + v, batch after batch",
        dtypes={dtype: Dtypes("float64", dtype) for dtype in FLOATS},
        sizes={"tiny": (29, 19, 4), "default": (10_000, 784, 10), "full": (60_000, 784, 10)}
        if matrix
        else {"tiny": (53, 19), "default": (100_000, 90), "full": (463_715, 90)},
        axes=("n", "d", "c") if matrix else ("n", "d"),
        make=make,
        regimes=LOSS_REGIMES,
        work=flops,
        unit="flop",
        bytes=size_bytes,
        flops=flops,
        limit="gemm" if matrix else "memory",
        tolerance=tolerance,
        loop_size=(50, 784, 10) if matrix else (1_000, 90),
        specializations=len(FLOATS),
        truth=_training_truth(name, rtol_by_dtype(tolerance)),
    )


def _evaluation(name: str) -> Entry:
    loss = LOSSES[name]
    matrix = loss.target == "class"
    tolerance = tolerances(
        16, "scores are sums over blocks of columns, relative to the sum of |x·w|; rows are summed in float64"
    )

    def make(size: Size, dtype: str, regime: str = "typical", seed: int = 0) -> Inputs:
        rng = np.random.default_rng(seed)
        n, m, d = size[:3]
        arrays = _inputs(rng, name, n, d, (m, size[3] if matrix else 1), dtype, regime)
        return Inputs((name, *arrays), {"sample_weight": random_weights(rng, n, dtype)} if regime == "weighted" else {})

    def size_bytes(size: Size, dtype: str) -> float:
        n, m, d = size[:3]
        model = m * (d + 1) * (size[3] if matrix else 1)
        return (n * d + model) * itemsize(dtype) + n * (INDEX_BYTES if matrix else itemsize(dtype)) + 16 * m

    def flops(size: Size) -> float:
        return 2 * math.prod(size)

    return Entry(
        key=f"linear_evaluation[{name}]",
        function="linear_evaluation",
        family="training",
        formula=f"for M models: z = X·w + b; {loss.formula}; "
        + ("mean (z − y)²" if loss.target == "real" else "share of right predictions"),
        dtypes={dtype: Dtypes("float64", "float64") for dtype in FLOATS},
        sizes={"tiny": (29, 3, 19, 4), "default": (10_000, 5, 784, 10), "full": (60_000, 5, 784, 10)}
        if matrix
        else {"tiny": (53, 3, 19), "default": (50_000, 24, 90), "full": (463_715, 24, 90)},
        axes=("n", "m", "d", "c") if matrix else ("n", "m", "d"),
        make=make,
        regimes=LOSS_REGIMES,
        work=flops,
        unit="flop",
        bytes=size_bytes,
        flops=flops,
        limit="gemm",
        tolerance=tolerance,
        loop_size=(10, 2, 784, 10) if matrix else (200, 5, 90),
        specializations=len(FLOATS),
        truth=_evaluation_truth(name, rtol_by_dtype(tolerance)),
    )


# -- truth -----------------------------------------------------------------------------------------


def _gradient_truth(name: str, rtol: dict[str, float]) -> Callable[[Inputs], Truth]:
    loss = LOSSES[name]

    def truth(inputs: Inputs) -> Truth:
        _, X, y, W, b = inputs.args
        dtype = X.dtype
        wide = wide_dtype(dtype, 4 * X.size * (len(W) if W.ndim == 2 else 1))
        coefficients, intercept = np.atleast_2d(W).astype(wide), np.atleast_1d(np.asarray(b)).astype(wide)
        weights = inputs.kwargs.get("sample_weight")
        w = np.ones(len(X), wide) if weights is None else weights.astype(wide)
        w = w / w.sum()
        value, value_scale = wide(0), wide(0)
        dW, dW_scale, dW_slack = (np.zeros(coefficients.shape, wide) for _ in range(3))
        db, db_scale, db_slack = (np.zeros(intercept.shape, wide) for _ in range(3))
        for start in range(0, len(X), 4096):  # in blocks, for wide copies of X are large
            part = slice(start, start + 4096)
            x, share = X[part].astype(wide), w[part, None]
            scores = x @ coefficients.T + intercept
            # Rounding of a score is relative to the sum of |x·w|.
            reach = np.abs(x) @ np.abs(coefficients).T + np.abs(intercept)
            rows = loss_of_rows(name, scores if W.ndim == 2 else scores[:, 0], y[part], dtype)
            grads, grad_scale = (s.reshape(len(x), -1) for s in (rows.grads, rows.grad_scale))
            reach_of_row = reach.max(axis=1, keepdims=True)
            curvature = np.full(len(x), loss.curvature) if rows.curvature is None else rows.curvature
            grad_scale = grad_scale + curvature[:, None] * reach_of_row
            value += w[part] @ rows.losses
            value_scale += w[part] @ (rows.loss_scale + np.abs(grads).max(axis=1) * reach_of_row[:, 0])
            value_scale += w[part] @ (curvature * rtol[dtype.name] * reach_of_row[:, 0] ** 2)
            dW += (share * grads).T @ x
            db += (share * grads).sum(axis=0)
            dW_scale += (share * grad_scale).T @ np.abs(x)
            db_scale += (share * grad_scale).sum(axis=0)
            if rows.kink is not None:
                near = rows.kink <= 2 * rtol[dtype.name] * (reach_of_row[:, 0] + 1)
                jumps = np.where(near, loss.jump, 0)[:, None] * share * np.ones_like(grads)
                dW_slack += jumps.T @ np.abs(x)
                db_slack += jumps.sum(axis=0)
        l2 = wide(dtype.type(inputs.kwargs["l2"]))
        value += l2 / 2 * np.square(coefficients).sum()
        value_scale += l2 / 2 * np.square(coefficients).sum()
        dW += l2 * coefficients
        dW_scale += l2 * np.abs(coefficients)
        more = plain_sum_factor(len(X), dtype, rtol)
        if W.ndim == 1:
            dW, dW_scale, dW_slack = dW[0], dW_scale[0], dW_slack[0]
            db, db_scale, db_slack = db[0], db_scale[0], db_slack[0]
        return Truth(
            (value, dW, db),
            (None, dtype, None if W.ndim == 1 else dtype),
            (value_scale * more, dW_scale * more, db_scale * more),
            (0.0, dW_slack, db_slack),
        )

    return truth


def _training_truth(name: str, rtol: dict[str, float]) -> Callable[[Inputs], Truth]:
    loss = LOSSES[name]

    def truth(inputs: Inputs) -> Truth:
        _, X, y, W, b, order = inputs.args
        settings, dtype = inputs.kwargs, X.dtype
        wide = wide_dtype(dtype, 4 * X.size * (len(W) if W.ndim == 2 else 1))
        unit = rtol[dtype.name]
        step, l2, l1, momentum = (wide(dtype.type(settings[key])) for key in ("steps", "l2", "l1", "momentum"))
        weights = settings.get("sample_weight")
        w = np.ones(len(X), wide) if weights is None else weights.astype(wide)
        w *= len(X) / w.sum()
        # Row 0 of each is the model, row 1 how far a tier's model may be off in units of rtol, row 2 what rows
        # within rounding of a kink may add to that. The last column is the intercept's.
        model = np.zeros((3, *np.atleast_2d(W).shape), wide)
        model[0] = np.atleast_2d(W)
        model = np.concatenate((model, np.zeros((*model.shape[:2], 1), wide)), axis=2)
        model[0, :, -1] = b
        velocity = np.zeros_like(model)
        penalized = np.append(np.ones(X.shape[1], wide), 0)
        losses = []
        for at in range(0, len(order), settings["batch_size"]):
            rows = order[at : at + settings["batch_size"]]
            x = np.column_stack((X[rows].astype(wide), np.ones(len(rows), wide)))
            share = w[rows, None] / len(rows)
            scores = x @ model[0].T
            blur = (np.abs(x) @ model[2].T).max(axis=1)
            reach = (np.abs(x) @ (np.abs(model[0]) + model[1]).T).max(axis=1)
            terms = loss_of_rows(name, scores if W.ndim == 2 else scores[:, 0], y[rows], dtype)
            grads, grad_scale = (part.reshape(len(x), -1) for part in (terms.grads, terms.grad_scale))
            grad_scale = grad_scale + loss.curvature * reach[:, None]
            near = np.zeros(len(x), bool) if terms.kink is None else terms.kink <= 2 * (unit * (reach + 1) + blur)
            grad_slack = np.where(near, loss.jump, 0) + loss.curvature * blur
            steepest = np.abs(grads).max(axis=1) + grad_slack
            losses.append(
                (
                    share[:, 0] @ terms.losses,
                    share[:, 0] @ (terms.loss_scale + reach * (steepest + loss.curvature * unit * reach)),
                    share[:, 0] @ (blur * steepest),
                )
            )
            parts = np.stack((grads, grad_scale, grad_slack[:, None] * np.ones_like(grads)))
            gradient = np.stack([(share * part).T @ (np.abs(x) if number else x) for number, part in enumerate(parts)])
            gradient[1] *= plain_sum_factor(len(x), dtype, rtol)
            gradient += l2 * penalized * (model if l2 else 0)
            move = np.stack((-step * gradient[0], *(step * gradient[1:])))
            velocity = momentum * velocity + move
            velocity[1] += np.abs(velocity[0]) / 8  # a rounding or two, of 16 eps
            model = model + (momentum * velocity + move if settings["nesterov"] else velocity)
            model[1] += np.abs(model[0]) / 8
            shrink = step * l1 * penalized
            model[0] = np.sign(model[0]) * np.maximum(np.abs(model[0]) - shrink, 0)
        values = [np.array([row[part] for row in losses]) for part in range(3)]
        if W.ndim == 1:
            weights_of, intercepts = model[:, 0, :-1], model[:, 0, -1]
        else:
            weights_of, intercepts = model[:, :, :-1], model[:, :, -1]
        return Truth(
            (weights_of[0], intercepts[0], values[0]),
            (dtype, None if W.ndim == 1 else dtype, np.float64),
            (np.abs(weights_of[0]) + weights_of[1], np.abs(intercepts[0]) + intercepts[1], values[1]),
            (weights_of[2], intercepts[2], values[2]),
        )

    return truth


def _evaluation_truth(name: str, rtol: dict[str, float]) -> Callable[[Inputs], Truth]:
    loss = LOSSES[name]

    def truth(inputs: Inputs) -> Truth:
        _, X, y, W, b = inputs.args
        dtype = X.dtype
        wide, unit = wide_dtype(dtype, 4 * X.size * W.shape[0] * W.shape[1]), rtol[dtype.name]
        weights = inputs.kwargs.get("sample_weight")
        w = np.ones(len(X), wide) if weights is None else weights.astype(wide)
        w = w / w.sum()
        result = np.zeros((2, 3, len(W)), wide)  # loss and score: value, scale, slack
        for start in range(0, len(X), 4096):  # in blocks, for wide copies of X are large
            part = slice(start, start + 4096)
            x, target, share = X[part].astype(wide), y[part], w[part]
            for m in range(len(W)):
                scores = x @ W[m].astype(wide).T + b[m].astype(wide)
                reach = (np.abs(x) @ np.abs(W[m].astype(wide)).T + np.abs(b[m].astype(wide))).max(axis=1)
                z = scores if loss.target == "class" else scores[:, 0]
                terms = loss_of_rows(name, z, target, dtype)
                steepest = np.abs(terms.grads.reshape(len(x), -1)).max(axis=1)
                result[0, 0, m] += share @ terms.losses
                result[0, 1, m] += share @ (terms.loss_scale + reach * (steepest + loss.curvature * unit * reach))
                result[0, 1, m] += share @ (loss.jump * reach)
                if loss.target == "real":
                    residual = z - target
                    result[1, 0, m] += share @ residual**2
                    result[1, 1, m] += share @ (residual**2 + 2 * np.abs(residual) * reach + unit * reach**2)
                    continue
                if loss.target == "class":
                    own = scores[np.arange(len(x)), target]
                    others = scores.copy()
                    others[np.arange(len(x)), target] = -np.inf
                    right, margin = scores.argmax(axis=1) == target, np.abs(own - others.max(axis=1))
                else:
                    right, margin = (z >= 0) == (target >= (0.5 if loss.target == "probability" else 0)), np.abs(z)
                result[1, 0, m] += share @ right
                result[1, 1, m] += share @ right
                result[1, 2, m] += share @ (margin <= 2 * unit * reach)
        result[:, 1] *= plain_sum_factor(len(X), dtype, rtol)
        values, scales, slacks = (tuple(result[:, part]) for part in range(3))
        return Truth(values, (np.float64, np.float64), scales, slacks)

    return truth
