"""When a training is evaluated, and the history of what was found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .batches import Array, Rows

__all__ = ["COLUMNS", "Evaluations", "History"]

#: Columns of a history.
COLUMNS = ("step", "epoch", "seconds", "train_loss", "train_score", "validation_loss", "validation_score")


@dataclass(frozen=True, eq=False)
class Evaluations:
    """When to evaluate, and on which rows.

    Parameters
    ----------
    steps : int or None
        An evaluation every so many steps; None means `per_epoch`.
    per_epoch : int
        Evaluations in each epoch, evenly spread; the last stands at its end.
    train : Rows or None
        Rows for the training loss and score. None: the mean loss of the rows of the batches since the evaluation
        before, each before its step, and no score.
    last_batch : bool
        Whether to take, of these rows, the last ones that were trained on, as many as a batch has.
    validation : Rows or None
        Rows for the validation loss and score.
    """

    steps: int | None = None
    per_epoch: int = 1
    train: Rows | None = None
    last_batch: bool = False
    validation: Rows | None = None

    def within_epoch(self, done: int, steps: int) -> set[int]:
        """Return after which steps (1 to `steps`) of an epoch to evaluate, if `done` were done before it."""
        if self.steps is not None:
            return set(range(self.steps - done % self.steps, steps + 1, self.steps))
        return {-(-i * steps // self.per_epoch) for i in range(1, self.per_epoch + 1)}


class History:
    """What the evaluations found: a list for each of `COLUMNS`.

    Parameters
    ----------
    before : mapping of arrays, optional
        A history that this one continues.
    resumed : bool
        Whether steps, epochs and seconds are counted as they were in that one, and not from its end.
    """

    def __init__(self, before: dict[str, Array] | None = None, *, resumed: bool = False) -> None:
        self._lists = {name: [] if before is None else before[name].tolist() for name in COLUMNS}
        #: Steps, epochs and seconds from before.
        self.origin = [values[-1] if values and not resumed else 0 for values in list(self._lists.values())[:3]]

    def add(self, **row: float) -> None:
        """Append one row."""
        for name, values in self._lists.items():
            values.append(row[name])

    def arrays(self) -> dict[str, Array]:
        """Return the columns as arrays; ``pandas.DataFrame`` takes them as they are."""
        return {name: np.array(v, np.intp if name == "step" else np.float64) for name, v in self._lists.items()}
