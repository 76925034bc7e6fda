"""Pickles of NumPy arrays as data: parsed without executing anything.

CIFAR-10 comes as pickles, which are untrusted input. The unpickler below maps the three names that a pickled
NumPy array needs to inert records; NumPy's own reconstruction never runs, and any other name stops the
reading. The numbers are taken from the recorded bytes afterwards.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import reprlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# A batch of CIFAR-10 takes some 50,000 steps to unpickle: two for each label and each name of a file. A step takes a
# byte of the file and may take a hundred of memory.
_MOST_STEPS = 1_000_000


class _ArrayRecord:
    """Stands in for an array while unpickling: keeps the state, does nothing."""

    __slots__ = ("state",)

    def __init__(self, *_: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _DtypeRecord:
    """Stands in for a dtype while unpickling: keeps its code."""

    __slots__ = ("code",)

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        # Byte order and field layout; a dtype with the code u1 has neither.
        return


_STAND_INS: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _ArrayRecord,
    ("numpy._core.multiarray", "_reconstruct"): _ArrayRecord,
    ("numpy", "ndarray"): _ArrayRecord,
    ("numpy", "dtype"): _DtypeRecord,
}


class _PlainUnpickler(pickle.Unpickler):
    """Unpickles containers, numbers, strings and array records; refuses every other name."""

    def find_class(self, module_name: str, global_name: str) -> type:
        try:
            return _STAND_INS[module_name, global_name]
        except KeyError:
            asked = f"{module_name}.{global_name}"
            raise pickle.UnpicklingError(f"it asks for {asked}, which plain data needs not") from None


def _check_steps(content: bytes) -> None:
    """Refuse what needs far more memory or time than plain data does.

    That is: endless steps, and a place in the memo that skips others (the memo is a table that the unpickler makes as
    long as the highest place; who pickles counts the places). It is also a nest of tuples in which few objects occur
    over and over: whoever goes through it, to hash it or to print it, may never come to an end. So the steps are done
    with the numbers of objects in place of the objects, each counted as often as it occurs.
    """
    stack: list[int | None] = []  # None is a mark
    memo: dict[object, int | None] = {}
    for number, (step, argument, _) in enumerate(pickletools.genops(content)):
        if number >= _MOST_STEPS:
            raise pickle.UnpicklingError(f"it takes more than {_MOST_STEPS:,} steps to unpickle")
        if "PUT" in step.name or step.name == "MEMOIZE":
            place = len(memo) if argument is None else argument
            if place > number:
                raise pickle.UnpicklingError(f"it puts an object at place {place:,} after {number:,} steps")
            memo[place] = stack[-1]
        elif "GET" in step.name:
            stack.append(memo[argument])
        elif step.name == "MARK":
            stack.append(None)
        else:
            taken = _taken(stack, step)
            if sum(taken) > _MOST_STEPS:
                raise pickle.UnpicklingError(f"it has an object of more than {_MOST_STEPS:,} objects")
            stack += [1 + sum(taken)] * len(step.stack_after)


def _taken(stack: list[int | None], step: pickletools.OpcodeInfo) -> list[int]:
    """Take from the stack what a step takes; return it, without marks."""
    taken = []
    before = step.stack_before
    if pickletools.markobject in before:
        while (top := stack.pop()) is not None:
            taken.append(top)
        before = before[: before.index(pickletools.markobject)]
    return taken + [top for _ in before if (top := stack.pop()) is not None]


def dictionary(content: bytes, path: Path) -> dict[bytes, object]:
    """Return the dictionary that a pickle of Python 2 holds; `path` is for messages."""
    try:
        _check_steps(content)
        record = _PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
    # A damaged pickle can fail in nearly any way; all of them mean the same to the caller.
    except Exception as error:
        raise ValueError(f"{path} is not a CIFAR-10 file: {error or type(error).__name__}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} is not a CIFAR-10 file: it holds a {type(record).__name__}, not a dictionary")
    return record


def uint8_rows(record: object, columns: int, path: Path) -> NDArray[np.uint8]:
    """Return an array from its recorded state: (version, shape, dtype, Fortran order, bytes)."""
    # getattr, because a hostile file can make a record without initialising it.
    state = getattr(record, "state", None) if isinstance(record, _ArrayRecord) else None
    if not (isinstance(state, tuple) and len(state) == 5):
        raise ValueError(f"{path} has no array under data")
    _, shape, dtype, fortran_order, content = state
    code = getattr(dtype, "code", None) if isinstance(dtype, _DtypeRecord) else None
    if code not in (b"u1", "u1", b"|u1", "|u1") or fortran_order:
        raise ValueError(f"{path} has an array that is not uint8 in C order")
    if not (isinstance(shape, tuple) and len(shape) == 2 and all(type(s) is int and s >= 0 for s in shape)):
        raise ValueError(f"{path} has an array of shape {reprlib.repr(shape)}, expected two axes")
    if shape[1] != columns:
        raise ValueError(f"{path} has rows of {shape[1]} values, expected {columns}")
    if not isinstance(content, bytes) or len(content) != shape[0] * shape[1]:
        raise ValueError(f"{path} does not hold the {shape[0] * shape[1]:,} bytes that its shape {shape} promises")
    return np.frombuffer(content, np.uint8).reshape(shape).copy()
