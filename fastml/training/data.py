"""What every iterative model has settled before it is trained: rows, targets, weights, batches, evaluations, seeds."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import is_regressor
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import column_or_1d

from ..kernels.arguments import arrays
from ..kernels.arguments.targets import weights as checked_weights
from ..utils import parameters
from ..utils.validation import check_finite, validate_data
from .batches import Array, Batches, Rows
from .history import Evaluations
from .targets import Targets

__all__ = ["Settled", "computed_in", "scored_by_r_squared", "settle"]

#: What each seed is for, so that no random number depends on how many are drawn for something else.
_ORDER, _INIT, _SPLIT, _SUBSET, _DROPOUT = range(5)


@dataclass(frozen=True, eq=False)
class Settled:
    """What a training needs, whatever it trains.

    Attributes
    ----------
    rows : Rows
        All rows that came for training, with what each counts in it.
    mean_weight : float
        What the weights of training rows have been divided by.
    targets : Targets
        What the model knows of its targets.
    batches : Batches
        The order of the rows.
    evaluations : Evaluations
        When to evaluate, and on what.
    init, dropout : SeedSequence
        Seeds of random initial weights, and of what is dropped.
    score : callable or None
        Gives the score of weights on rows; None is the model's own.
    n_threads : int or None
        As everywhere in the kernels.
    data : tuple
        Rows, targets and weights as they came, for callbacks.
    seed : int
        What `random_state` came to.
    idle : bool
        Whether no row counts, so that there is nothing to do; in `partial_fit` only.
    """

    rows: Rows
    mean_weight: float
    targets: Targets
    batches: Batches
    evaluations: Evaluations
    init: np.random.SeedSequence
    dropout: np.random.SeedSequence
    score: Any
    n_threads: int | None
    data: tuple[Array, Array, Array | None]
    seed: int
    idle: bool


def settle(
    model: Any,
    X: ArrayLike,
    y: ArrayLike,
    *,
    X_val: ArrayLike | None = None,
    y_val: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    sample_weight_val: ArrayLike | None = None,
    classes: ArrayLike | None = None,
    partial: bool = False,
    sampling: str,
    seed: int | None = None,
) -> Settled:
    """Check data, and settle what a training needs; `seed` is that of a training to be resumed."""
    n_threads = parameters.threads(model.n_jobs)
    continues = hasattr(model, "t_") and (partial or seed is not None or bool(model.warm_start))
    x, y = _checked(model, X, y, n_threads, reset=not continues)
    targets = _targets(model, y, classes, partial, continues)
    weight = _sample_weight(sample_weight, len(x), as_it_is=partial)
    dtype = computed_in(x)
    rows = Rows(x, targets.settle(y, dtype), _as(weight, dtype))
    counted = _counted(targets, y, weight)
    idle = partial and counted is not None and not counted.any()
    if seed is None:
        # Where nothing is to be done the next number is left for the next call.
        seed = 0 if idle and continues else int(check_random_state(model.random_state).randint(np.iinfo(np.int32).max))
    seeds = _seeds(seed, model.t_ if partial and getattr(model, "t_", 1) > 1 else 0)

    train_rows: int | NDArray[np.intp] = len(x)
    if (X_val is None) != (y_val is None):
        raise ValueError("X_val and y_val go together; one of them is missing")
    if X_val is None and sample_weight_val is not None:
        raise ValueError("sample_weight_val goes with X_val and y_val, which are missing")
    if X_val is not None:
        try:
            x_val, y_val = _checked(model, X_val, y_val, n_threads, reset=False, dtype=[dtype, x.dtype])
            targets_val = targets.settle(y_val, dtype)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"X_val, y_val: {error}") from error
        w_val = _sample_weight(sample_weight_val, len(x_val), "sample_weight_val")
        validation = Rows(x_val, targets_val, _as(w_val, dtype))
    elif model.early_stopping:
        train_rows, held_out = _split(model, y, weight, seeds[_SPLIT])
        validation = rows.take(held_out)
    else:
        validation = None

    used = slice(None) if isinstance(train_rows, int) else train_rows
    n = train_rows if isinstance(train_rows, int) else len(train_rows)
    rng = np.random.default_rng(seeds[_ORDER])
    evaluations = Evaluations(
        steps=model.evaluate_every,
        per_epoch=model.evaluations_per_epoch,
        train=_training_rows(model, rows, used, np.random.default_rng(seeds[_SUBSET])),
        last_batch=model.train_metrics == "batch",
        validation=validation,
    )
    mean_weight = 1.0
    if counted is not None and not partial:
        counted, mean_weight = _over_mean(counted, used)
    training_rows = Rows(x, rows.y, _as(counted, dtype))
    # In `partial_fit` weights are taken as they are: a loss is the sum of w l over the number of rows.
    weight_of_losses = None if partial else training_rows.weight
    return Settled(
        training_rows,
        mean_weight,
        targets,
        Batches(train_rows, _batch_size(model, n), sampling, model.drop_last, rng, weight_of_losses),
        evaluations,
        seeds[_INIT],
        seeds[_DROPOUT],
        _scorer(model, targets),
        n_threads,
        (x, y, weight),
        seed,
        idle,
    )


def _checked(
    model: Any, X: Any, y: Any, n_threads: int | None, *, reset: bool, dtype: Any = (np.float64, np.float32)
) -> tuple[Array, Array]:
    """Return rows and targets as scikit-learn checks them; finite rows are looked for with all threads."""
    images = hasattr(model, "_check_images")
    if isinstance(dtype, tuple):
        dtype = [*dtype, np.uint8] if images else list(dtype)
    if images and not reset and getattr(X, "ndim", 2) > 2:
        model._check_images(X, reset=False)  # says more than that the columns are not as many
    several = getattr(model, "_several_outputs", False)
    x, targets = validate_data(
        model, X, y, dtype=dtype, order="C", ensure_all_finite=False, y_numeric=is_regressor(model),
        multi_output=several, allow_nd=images, reset=reset,
    )  # fmt: skip
    if images:
        model._check_images(x, reset=reset)
    if several and targets.ndim == 2 and targets.shape[1] == 1:
        targets = column_or_1d(targets, warn=True)
    check_finite(x, n_threads, estimator=model)
    return x, targets


def computed_in(X: Array) -> np.dtype[Any]:
    """Return the dtype that checked rows or images are trained in: bytes stay bytes until they are fetched."""
    return np.dtype(np.float32) if X.dtype == np.uint8 else X.dtype


def _targets(model: Any, y: Array, classes: Any, partial: bool, continues: bool) -> Targets:
    """Return the model's targets; weights from before belong to the classes from before."""
    before = getattr(model, "classes_", None) if continues else None
    targets: Targets = model._new_targets(y, classes, partial)
    if before is not None and not np.array_equal(before, model.classes_):
        found, model.classes_ = model.classes_, before
        raise ValueError(
            f"y has the classes {found.tolist()}; a fit that goes on needs those before, {before.tolist()}"
        )
    return targets


def _sample_weight(
    weight: ArrayLike | None, n: int, name: str = "sample_weight", *, as_it_is: bool = False
) -> Array | None:
    """Return the weight of each row, for which one number may stand.

    With `as_it_is` weights are not multiplied by anything, as very small ones are otherwise, and all may be 0.
    """
    if weight is None:
        return None
    arrays.refuse_masked(weight, name)
    is_number = isinstance(weight, Number) or getattr(weight, "ndim", None) == 0
    raw = arrays.real(np.full(n, weight) if is_number else weight, name)
    no_row_counts = as_it_is and not raw.any()
    try:
        settled, _ = checked_weights(np.ones(raw.shape) if no_row_counts else raw, n, np.dtype(np.float64))
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("sample_weight", name)) from None
    return raw.astype(np.float64) if as_it_is else np.asarray(settled)


def _as(weight: Array | None, dtype: np.dtype[Any]) -> Array | None:
    return None if weight is None else weight.astype(dtype, copy=False)


def _seeds(seed: int, step: int) -> list[np.random.SeedSequence]:
    """Return a seed for each use; a later `partial_fit` with the same random state has others."""
    return np.random.SeedSequence([seed, step]).spawn(5)


def _counted(targets: Targets, y: Array, weight: Array | None) -> Array | None:
    """Return what each row counts in training, with its class's weight."""
    of_class = targets.class_weight(y, weight)
    if of_class is None or weight is None:
        return weight if of_class is None else of_class
    return weight * of_class


def _over_mean(weight: Array, used: Any) -> tuple[Array, float]:
    """Return weights over the mean of those that are used, and that."""
    mean = float(weight[used].mean())
    if not mean > 0:
        raise ValueError("all training rows have weight 0; at least one must count")
    return weight / mean, mean


def _split(
    model: Any, y: Array, weight: Array | None, seed: np.random.SeedSequence
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows to train on, and those to set aside: a part of those that count."""
    rows = np.arange(len(y)) if weight is None else np.flatnonzero(weight)
    labels = None if is_regressor(model) else y[rows]
    if labels is not None and len(rows) < len(y):
        # A class of which a single row counts keeps it for the training.
        _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
        rows, labels = rows[counts[codes] > 1], labels[counts[codes] > 1]
    try:
        used, held_out = train_test_split(
            rows,
            test_size=model.validation_fraction,
            random_state=int(seed.generate_state(1)[0]),
            stratify=labels,
        )
    except ValueError as error:
        which = "" if len(rows) == len(y) else " whose weight is not 0"
        raise ValueError(
            f"validation_fraction={model.validation_fraction} of {len(rows)} rows{which} cannot be set aside for "
            f"early_stopping: {error}"
        ) from error
    if len(rows) < len(y):
        used = np.concatenate([used, np.setdiff1d(np.arange(len(y)), rows)])
    return used, held_out


def _batch_size(model: Any, n: int) -> int:
    return min(200, n) if model.batch_size == "auto" else int(model.batch_size)


def _training_rows(model: Any, rows: Rows, used: Any, rng: np.random.Generator) -> Rows | None:
    """Return the rows on which the training figures are to be measured."""
    how = model.train_metrics
    if how == "running":
        return None
    if how == "batch":
        return rows
    everything = isinstance(used, slice)
    if how == "full":
        return rows if everything else rows.take(used)
    chosen = np.arange(len(rows.X)) if everything else used
    if rows.weight is not None:
        chosen = chosen[rows.weight[chosen] > 0]  # others would say nothing
    return rows.take(np.sort(rng.permutation(chosen)[:how]))


def scored_by_r_squared(model: Any) -> bool:
    """Say whether scores are R², by default or by name."""
    return is_regressor(model) and (model.scoring is None or model.scoring == "r2")


def _scorer(model: Any, targets: Targets) -> Any:
    """Return a function that scores weights by what the parameter `scoring` names; None for the model's own score."""
    if model.scoring in (None, "loss") or scored_by_r_squared(model):
        return None
    scorer = check_scoring(model, model.scoring)

    def score(weights: Any, rows: Rows) -> float:
        more = {} if rows.weight is None else {"sample_weight": rows.weight}
        return float(scorer(model._with(weights, names=False), rows.X, targets.of(rows.y), **more))

    return score
