"""What every iterative model needs before it is trained: rows, targets, weights, batches, evaluations, seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import is_regressor
from sklearn.metrics import check_scoring
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import column_or_1d

from ..kernels.arguments.targets import weights as scaled_weights
from ..utils import parameters
from ..utils.sample_weight import checked_weight
from ..utils.validation import check_finite, validate_data
from .batches import Array, Batches, Rows
from .history import Evaluations
from .targets import Targets

__all__ = [
    "IterativeEstimator",
    "TrainingData",
    "TrainingSettings",
    "prepare",
    "scored_by_r_squared",
    "training_dtype",
]

#: What each seed is for, so that no random number depends on how many are drawn for something else.
_ORDER, _INIT, _SPLIT, _SUBSET, _DROPOUT = range(5)


class TrainingSettings(Protocol):
    """The parameters by which any iterative model is trained; `fastml.SGDClassifier` says what they mean."""

    max_iter: int
    max_steps: int | None
    tol: float | None
    batch_size: int | Literal["auto"]
    drop_last: bool
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    scoring: Any
    keep_best: bool | str
    learning_rate: Any
    evaluate_every: int | None
    evaluations_per_epoch: int
    train_metrics: str | int
    warm_start: bool
    callbacks: Any
    verbose: int
    random_state: Any
    n_jobs: int | None


class IterativeEstimator(TrainingSettings, Protocol):
    """What a training reads of its estimator and sets in it; `model.IterativeModel` has it."""

    #: Whether rows may be images, and whether targets may have several columns.
    _takes_images: ClassVar[bool]
    _several_outputs: ClassVar[bool]
    #: The parameter that says how large the first step is.
    _first_step: ClassVar[str]

    #: After a first training: number of the next step, what was found; in a classifier the labels, sorted.
    t_: int
    n_iter_: int
    best_step_: int | None
    history_: dict[str, Array]
    classes_: NDArray[Any]

    #: What the solver remembers, where the fit may be resumed, how it ended.
    _state: Any
    _checkpoint: Any
    _outcome: Any

    def _check_images(self, x: Array, *, reset: bool) -> None:
        """Refuse arrays of other shapes than the model takes; with `reset` keep theirs."""

    def _new_targets(self, y: Array, classes: Any, partial: bool) -> Targets:
        """Return what the model knows of its targets, after it has looked at the labels."""

    def _attributes(self, weights: Any) -> dict[str, Any]:
        """Return the fitted attributes that say these weights."""

    def _fitted_with(self, weights: Any, *, names: bool = True) -> Self:
        """Return a fitted copy with these weights; without the names of the columns for rows that have none."""


@dataclass(frozen=True, eq=False)
class TrainingData:
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
    given : tuple
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
    given: tuple[Array, Array, Array | None]
    seed: int
    idle: bool


def prepare(
    model: IterativeEstimator,
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
) -> TrainingData:
    """Check data, and make of them and the parameters what a training needs; `seed` is that of one to be resumed."""
    n_threads = parameters.threads(model.n_jobs)
    continues = hasattr(model, "t_") and (partial or seed is not None or bool(model.warm_start))
    x, y = _checked(model, X, y, n_threads, reset=not continues)
    targets = _targets(model, y, classes, partial, continues)
    weight = _weight(sample_weight, len(x), "sample_weight", as_it_is=partial)
    dtype = training_dtype(x.dtype)
    rows = Rows(x, targets.encode(y, dtype), _as(weight, dtype))
    counted = _counted(targets, y, weight)
    idle = partial and counted is not None and not counted.any()
    if seed is None:
        # Where nothing is to be done the next number is left for the next call.
        seed = 0 if idle and continues else int(check_random_state(model.random_state).randint(np.iinfo(np.int32).max))
    seeds = _seeds(seed, model.t_ if partial and getattr(model, "t_", 1) > 1 else 0)

    used = None
    validation: Rows | None = None
    if X_val is not None and y_val is not None:
        validation = _validation_rows(model, X_val, y_val, sample_weight_val, targets, x.dtype, n_threads)
    else:
        _refuse_half_a_set(X_val, y_val, sample_weight_val)
        if model.early_stopping:
            used, held_out = _split(model, y, weight, seeds[_SPLIT])
            validation = rows.take(held_out)
    evaluations = Evaluations(
        steps=model.evaluate_every,
        per_epoch=model.evaluations_per_epoch,
        train=_evaluated_rows(model.train_metrics, rows, used, np.random.default_rng(seeds[_SUBSET])),
        last_batch=model.train_metrics == "batch",
        validation=validation,
    )

    mean_weight = 1.0
    if counted is not None and not partial:
        counted, mean_weight = _over_mean(counted, used)
    training_rows = Rows(x, rows.y, _as(counted, dtype))
    n = len(x) if used is None else len(used)
    batches = Batches(
        len(x) if used is None else used,
        min(200, n) if model.batch_size == "auto" else int(model.batch_size),
        sampling,
        model.drop_last,
        np.random.default_rng(seeds[_ORDER]),
        # In `partial_fit` weights are taken as they are: a loss is the sum of w l over the number of rows.
        None if partial else training_rows.weight,
    )
    return TrainingData(
        training_rows, mean_weight, targets, batches, evaluations, seeds[_INIT], seeds[_DROPOUT],
        _scorer(model, targets), n_threads, (x, y, weight), seed, idle,
    )  # fmt: skip


def _checked(
    model: IterativeEstimator, X: Any, y: Any, n_threads: int | None, *, reset: bool, dtype: Any = None
) -> tuple[Array, Array]:
    """Return rows and targets as scikit-learn checks them; finite rows are looked for with all threads."""
    images, several = model._takes_images, model._several_outputs
    if dtype is None:
        dtype = [np.float64, np.float32, np.uint8] if images else [np.float64, np.float32]
    if images and not reset and getattr(X, "ndim", 2) > 2:
        model._check_images(X, reset=False)  # says more than that the columns are not as many
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


def training_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return what checked rows or images of a dtype are trained in: bytes stay bytes until they are fetched."""
    return np.dtype(np.float32) if dtype == np.uint8 else dtype


def _targets(model: IterativeEstimator, y: Array, classes: Any, partial: bool, continues: bool) -> Targets:
    """Return the model's targets; weights from before belong to the classes from before."""
    before = getattr(model, "classes_", None) if continues else None
    targets = model._new_targets(y, classes, partial)
    if before is not None and not np.array_equal(before, model.classes_):
        found, model.classes_ = model.classes_, before
        raise ValueError(
            f"y has the classes {found.tolist()}; a fit that goes on needs those before, {before.tolist()}"
        )
    return targets


def _weight(sample_weight: ArrayLike | None, n: int, name: str, *, as_it_is: bool = False) -> Array | None:
    """Return the weight of each row; very small and very large ones times a power of two, unless `as_it_is`."""
    weight = checked_weight(sample_weight, n, name=name, all_zero_ok=as_it_is)
    return weight if as_it_is else scaled_weights(weight, n, np.dtype(np.float64))[0]


def _validation_rows(
    model: IterativeEstimator, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, targets: Targets,
    dtype: np.dtype[Any], n_threads: int | None,
) -> Rows:  # fmt: skip
    """Return the validation set that the caller gave; `dtype` is that of the training rows."""
    computed = training_dtype(dtype)
    try:
        x, y = _checked(model, X, y, n_threads, reset=False, dtype=[computed, dtype])
        encoded = targets.encode(y, computed)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"X_val, y_val: {error}") from error
    return Rows(x, encoded, _as(_weight(sample_weight, len(x), "sample_weight_val"), computed))


def _refuse_half_a_set(X_val: object, y_val: object, sample_weight_val: object) -> None:
    if (X_val is None) != (y_val is None):
        raise ValueError("X_val and y_val go together; one of them is missing")
    if sample_weight_val is not None:
        raise ValueError("sample_weight_val goes with X_val and y_val, which are missing")


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


def _over_mean(weight: Array, used: NDArray[np.intp] | None) -> tuple[Array, float]:
    """Return weights over the mean of those that are used, None for all, and that."""
    mean = float((weight if used is None else weight[used]).mean())
    if not mean > 0:
        raise ValueError("all training rows have weight 0; at least one must count")
    return weight / mean, mean


def _split(
    model: IterativeEstimator, y: Array, weight: Array | None, seed: np.random.SeedSequence
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


def _evaluated_rows(
    train_metrics: str | int, rows: Rows, used: NDArray[np.intp] | None, rng: np.random.Generator
) -> Rows | None:
    """Return the rows on which the training figures are to be measured; `used` are those that train, None for all."""
    if train_metrics == "running":
        return None
    if train_metrics == "batch" or (train_metrics == "full" and used is None):
        return rows
    chosen = np.arange(len(rows.X)) if used is None else used
    if isinstance(train_metrics, str):  # "full"
        return rows.take(chosen)
    if rows.weight is not None:
        chosen = chosen[rows.weight[chosen] > 0]  # others would say nothing
    return rows.take(np.sort(rng.permutation(chosen)[:train_metrics]))


def scored_by_r_squared(model: TrainingSettings) -> bool:
    """Say whether scores are R², by default or by name."""
    return is_regressor(model) and (model.scoring is None or model.scoring == "r2")


def _scorer(model: IterativeEstimator, targets: Targets) -> Any:
    """Return a function that scores weights by what the parameter `scoring` names; None for the model's own score."""
    if model.scoring in (None, "loss") or scored_by_r_squared(model):
        return None
    scorer = check_scoring(model, model.scoring)

    def score(weights: Any, rows: Rows) -> float:
        more = {} if rows.weight is None else {"sample_weight": rows.weight}
        return float(scorer(model._fitted_with(weights, names=False), rows.X, targets.decode(rows.y), **more))

    return score
