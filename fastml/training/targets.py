"""Labels and numbers as targets of the kernels, and scores as probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..utils.sample_weight import weights_of_classes
from ..utils.validation import encode_labels

__all__ = ["ClassTargets", "NumberTargets", "Targets"]

Array = NDArray[Any]


class Targets(Protocol):
    """What a model knows of its targets."""

    @property
    def loss(self) -> str:
        """The kernels' name of the loss."""

    @property
    def n_scores(self) -> int:
        """How many scores a row has."""

    def encode(self, y: Array, dtype: Any) -> Array:
        """Return targets as the kernels take them."""

    def decode(self, encoded: Array) -> Array:
        """Return what `encode` was given."""

    def class_weight(self, y: Array, weight: Array | None) -> Array | None:
        """Return what each row counts because of its class; None if all count 1."""


@dataclass(frozen=True, eq=False)
class NumberTargets:
    """Targets of a regression."""

    loss: str
    n_scores: int = 1

    def encode(self, y: Array, dtype: Any) -> Array:
        """Return targets as the kernels take them."""
        with np.errstate(over="ignore"):
            encoded = np.asarray(y, dtype)
        if not np.isfinite(encoded).all():
            raise ValueError(f"y has entries that are infinite in {dtype}, the dtype of the training; X decides that")
        return encoded

    def decode(self, encoded: Array) -> Array:
        """Return what `encode` was given."""
        return encoded

    def class_weight(self, y: Array, weight: Array | None) -> None:
        """Return None: there are no classes."""


class ClassTargets:
    """Labels of a classification.

    Parameters
    ----------
    classes : ndarray of shape (C,)
        The labels, sorted.
    loss, multi_class, class_weight
        Parameters of `fastml.SGDClassifier`.
    """

    def __init__(self, classes: Array, loss: str, multi_class: str, class_weight: Any) -> None:
        if len(classes) < 2:
            raise ValueError(
                f"there is one class only, {classes.tolist()[0]!r}; a classifier needs at least two classes"
            )
        self.classes = classes
        self.n_scores = 1 if len(classes) == 2 else len(classes)
        self._class_weight = class_weight
        self._probable = loss == "log_loss"
        form = multi_class if multi_class != "auto" else ("multinomial" if loss == "log_loss" else "ovr")
        self._one_vs_rest = self.n_scores > 1 and form == "ovr"
        if self.n_scores > 1 and not self._one_vs_rest:
            self.loss = {"multinomial": "softmax_cross_entropy", "crammer_singer": "multiclass_hinge"}[form]
        else:
            self.loss = "binary_cross_entropy" if self._probable else loss

    def codes(self, y: Array) -> NDArray[np.intp]:
        """Return the places of labels among the classes."""
        found, codes = encode_labels(y)
        places = np.searchsorted(self.classes, found)
        known = self.classes[np.minimum(places, len(self.classes) - 1)] == found
        if not known.all():
            unknown = found[~known].tolist()[0]
            raise ValueError(f"y has the class {unknown!r}, which is not among the classes {self.classes.tolist()}")
        return places[codes]

    def encode(self, y: Array, dtype: Any) -> Array:
        """Return targets as the kernels take them: places of classes; of two, 0 and 1 or -1 and 1."""
        codes = self.codes(y)
        if self.n_scores > 1:
            return codes
        return codes.astype(dtype) if self._probable else (2 * codes - 1).astype(dtype)

    def decode(self, encoded: Array) -> Array:
        """Return what `encode` was given."""
        labels: Array = self.classes[encoded if self.n_scores > 1 else (encoded > 0).astype(np.intp)]
        return labels

    def class_weight(self, y: Array, weight: Array | None) -> Array | None:
        """Return what each row counts because of its class; "balanced" makes the classes count the same."""
        if self._class_weight is None:
            return None
        codes = self.codes(y)
        of_row: Array = weights_of_classes(self._class_weight, self.classes, codes, weight)[codes]
        return of_row

    def labels(self, scores: Array) -> Array:
        """Return the labels that scores (n, C) or (n, 1) speak for: the first of equals, the second of two at 0."""
        places = scores.argmax(axis=1) if self.n_scores > 1 else (scores[:, 0] >= 0).astype(np.intp)
        labels: Array = self.classes[places]
        return labels

    def probabilities(self, scores: Array) -> Array:
        """Return the probability of each class from scores."""
        if self.n_scores == 1:
            return np.column_stack([kernels.sigmoid(-scores[:, 0]), kernels.sigmoid(scores[:, 0])])
        return kernels.softmax(self._normalized(scores))

    def log_probabilities(self, scores: Array) -> Array:
        """Return the logarithm of `probabilities`."""
        if self.n_scores == 1:
            return np.column_stack([-kernels.softplus(scores[:, 0]), -kernels.softplus(-scores[:, 0])])
        return kernels.log_softmax(self._normalized(scores))

    def _normalized(self, scores: Array) -> Array:
        # Each class's own probability, divided by the sum of all, is the softmax of their logarithms.
        return -kernels.softplus(-scores) if self._one_vs_rest else scores
