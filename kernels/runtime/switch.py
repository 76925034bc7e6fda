"""One compiled function of several, of which a number says which is meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .jit import inner

__all__ = ["switch"]


def switch(*functions: Callable[..., Any]) -> Callable[..., Any]:
    """Make one function of any number of them: its first argument says which one is called with the others.

    A kernel with a switch in it compiles in a fraction of the time that a kernel for each function would take. Numba
    wants to see each function by name, so there are six of them here, and beyond these a switch in the switch: one
    for each function would be compiled as often as it is nested.
    """
    last = len(functions) - 1
    rest = switch(*functions[5:]) if last > 5 else None
    zeroth, first, second, third, fourth, fifth = (*functions, *[functions[-1]] * (5 - last))[:6]

    @inner
    def call(number, *arguments):  # type: ignore[no-untyped-def]
        # Branches beyond the last are never compiled: what they compare with is known.
        if number == 0 or last == 0:
            return zeroth(*arguments)
        if number == 1 or last == 1:
            return first(*arguments)
        if number == 2 or last == 2:
            return second(*arguments)
        if number == 3 or last == 3:
            return third(*arguments)
        if number == 4 or last == 4:
            return fourth(*arguments)
        if rest is None:
            return fifth(*arguments)
        return rest(number - 5, *arguments)

    return call
