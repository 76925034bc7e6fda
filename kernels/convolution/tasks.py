"""Pieces of work on a batch, and how threads share them.

Layers say what is to be done as a list of `Task`: on images one by one, on parts, or once for the whole batch. Tasks on
images that follow each other are done together, a few images at a time: enough that what is done once for all of them
counts little, few enough that they stay in a cache from layer to layer. Threads share images and parts, and wait for
each other in between.

Every number is made by one thread in one order, which does not depend on who makes it: same bits for any number of
threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ..runtime import parallel

__all__ = ["Task", "run_stages", "seconds_of", "stages_of"]

#: Bytes of images that are worked on together.
_GROUP_BYTES = 1 << 22

#: Seconds of a multiply-add and of an entry of a grid, both for float32.
_PRODUCT, _ENTRY = 1.2e-11, 1e-9


class Task(NamedTuple):
    """Something to do: ``call(first, last)`` on images (`parts` is None), on so many parts, or once (`parts` is 0)."""

    call: Callable[[int, int], object]
    parts: int | None = None

    @classmethod
    def whole_batch(cls, call: Callable[[], object]) -> Task:
        """Return what is done once for all images."""
        return cls(lambda first, last: call(), 0)


def stages_of(tasks: Iterable[Task]) -> list[list[Task]]:
    """Put together what follows each other and is done image by image, or once."""
    stages: list[list[Task]] = []
    for task in tasks:
        if stages and task.parts in (None, 0) and stages[-1][0].parts == task.parts:
            stages[-1].append(task)
        else:
            stages.append([task])
    return stages


def run_stages(
    stages: Sequence[list[Task]], n: int, n_threads: int | None, *, image_bytes: int, seconds: float
) -> None:
    """Do all tasks for n images; `image_bytes` are those of an image in the largest grid.

    All stages take one core about so many seconds. Each of them asks for helpers.
    """
    n_threads = parallel.resolve(n_threads, seconds=seconds / max(1, len(stages)))
    # Other layers' values pass through the cache too, so that this is but a rule of thumb.
    most = max(1, _GROUP_BYTES // max(1, image_bytes))
    for stage in stages:
        if stage[0].parts == 0:
            for task in stage:
                task.call(0, 1)
        elif stage[0].parts is None:
            group = max(1, min(most, n if n_threads == 1 else -(-n // (2 * n_threads))))

            def block(number: int, stage: list[Task] = stage, group: int = group) -> Iterator[None]:
                for task in stage:
                    task.call(number * group, min(n, (number + 1) * group))
                    yield

            parallel.run(block, -(-n // group), n_threads)
        else:
            call = stage[0].call
            parallel.run(lambda part, call=call: call(part, part + 1), stage[0].parts, n_threads)  # type: ignore[misc]


def seconds_of(products: int, entries: int, itemsize: int) -> float:
    """Return roughly how long one core takes for so many multiply-adds and entries of grids."""
    return (products * _PRODUCT + entries * _ENTRY) * itemsize / 4
