"""Progress bars for training, with live losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tqdm import tqdm

from ..kernels.runtime.compile_notice import silent
from .batches import Batches
from .run import Run

__all__ = ["Progress", "SweepProgress"]

_SHOWN = {
    "epoch": "epoch",
    "train_loss": "loss",
    "train_score": "score",
    "validation_loss": "val. loss",
    "validation_score": "val. score",
}

#: A bar moves at most so often in an epoch, and not before so many rows.
_MOVES, _ROWS = 20, 20_000


class _Bar:
    """What the bars share."""

    #: After how many steps the bar is to move.
    every = 1
    _bar: tqdm

    def show(self, row: dict[str, float]) -> None:
        """Show the figures of an evaluation; they are drawn when the bar moves."""
        shown = {title: f"{row[name]:.4g}" for name, title in _SHOWN.items() if not math.isnan(row[name])}
        self._bar.set_postfix(shown, refresh=False)

    def look_at(self, batches: Batches) -> None:
        """Choose how often to move."""
        self.every = max(1, batches.steps // _MOVES, _ROWS // batches.size)

    def __enter__(self) -> Self:
        self._silence = ExitStack()
        self._silence.enter_context(silent(when=not self._bar.disable))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.refresh()
        self._bar.close()
        self._silence.close()


class Progress(_Bar):
    """A bar over the steps of one run.

    Parameters
    ----------
    total : int
        Steps, if it does not end early.
    batches : Batches
        Its batches.
    title : str
        What stands before the bar.
    """

    def __init__(self, total: int, batches: Batches, title: str) -> None:
        self.look_at(batches)
        self._bar = tqdm(total=total, desc=title, unit="step")

    def advance(self, steps: int, runs: Sequence[Run]) -> None:
        """Move by so many steps."""
        self._bar.update(steps)


class SweepProgress(_Bar):
    """A bar over many runs, which moves by parts of a run.

    Parameters
    ----------
    total : int
        How many runs.
    shown : bool or None
        Whether to show it; None: on a terminal.
    """

    def __init__(self, total: int, shown: bool | None) -> None:
        layout = "{l_bar}{bar}| {n:.1f}/{total} runs [{elapsed}<{remaining}{postfix}]"
        disable = None if shown is None else not shown
        self._bar = tqdm(total=total, desc="sweep", bar_format=layout, disable=disable)

    def of(self, batches: Batches) -> SweepProgress | None:
        """Return the bar for runs with these batches; None if nobody sees it."""
        self.look_at(batches)
        return None if self._bar.disable else self

    def advance(self, steps: int, runs: Sequence[Run]) -> None:
        """Move by so many steps in each of these runs."""
        parts = sum(steps / run.max_steps for run in runs)
        self._bar.update(min(parts, self._bar.total - self._bar.n))  # rounding errors must not lead beyond the end

    def complete(self, runs: int) -> None:
        """Move to a number of whole runs."""
        self._bar.update(runs - self._bar.n)
