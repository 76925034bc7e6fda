"""How threads inside compiled code work on the parts of a round together, without Python and without locks.

A step of a training takes microseconds, far too little to hand it to a pool of Python threads. So each thread runs one
compiled loop over all steps, and they meet on a *board* of integers in memory: at the end of a round each writes down
that it has done its share, and waits until all members have. Nobody is told what to do, for all follow the same
sequence of rounds.

Thread 0, the leader, begins alone; a helper that comes late costs nothing, and one that never comes is not missed. The
leader takes in those that have come when it finishes a round, for the next one: with its mark it writes how many
members that will have, a power of two. It then says where the sequence stands, and a new member copies what it needs.

Whoever waits long goes back to Python, which lets others have the CPU (`training.batches`), and looks again. Where
that takes much of the time the members do not all have a CPU, and the leader had better go on alone: the others then
go home.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numpy.typing import NDArray

from .jit import inner, intrinsic
from .target import target

__all__ = [
    "MEMBERS",
    "begin",
    "come",
    "is_closed",
    "leave",
    "members_of",
    "new_board",
    "reset",
    "shared",
    "taken_in",
    "write_mark",
]

#: Most members, the leader included; a power of two.
MEMBERS = 8

#: Looks at the board before a thread goes back to Python: 25 µs, where the CPU waits 50 ns in between.
_LOOKS = 500

_LINE = 8  # integers of a cache line: what different threads write lies in different lines
_CLOSED, _START, _MARKS = 0, _LINE, 2 * _LINE
_SIZE = _MARKS + MEMBERS * _LINE

_COUNT = 16  # a mark of the leader is 16 x (round + 1) + members of the round that follows


def new_board() -> NDArray[np.int64]:
    """Return a board for one team."""
    flat = np.zeros(_SIZE + _LINE, np.int64)
    skip = -flat.ctypes.data % (8 * _LINE) // 8
    return flat[skip : skip + _SIZE]


def reset(board: NDArray[np.int64]) -> None:
    """Make a board ready, before anyone is called."""
    board[:] = 0


def leave(board: NDArray[np.int64]) -> None:
    """Send all home who wait or come later."""
    board[_CLOSED] = 1


@inner
def is_closed(board):  # type: ignore[no-untyped-def]
    """Whether those who wait should go home."""
    return _load(board, _CLOSED) != 0


@inner
def come(board, thread):  # type: ignore[no-untyped-def]
    """Say that a helper is there."""
    place = _MARKS + thread * _LINE
    if board[place] == 0:
        _store(board, place, 1)


@inner
def write_mark(board, thread, number, members, most):  # type: ignore[no-untyped-def]
    """Say that this thread has done its share of round `number`; the leader takes in helpers for the next one."""
    if thread > 0:
        _store(board, _MARKS + thread * _LINE, _COUNT * (number + 1))
    else:
        _store(board, _MARKS + number % 2, _COUNT * (number + 1) + _next_members(board, members, most))


@inner
def _next_members(board, members, most):  # type: ignore[no-untyped-def]
    """Double the members while that many helpers have come and are wanted."""
    while 2 * members <= most:
        for helper in range(members, 2 * members):
            if _load(board, _MARKS + helper * _LINE) == 0:
                return members
        members *= 2
    return min(members, most)


@inner
def shared(board, thread, number, members):  # type: ignore[no-untyped-def]
    """Wait until all members have done their shares of a round; false if that takes long."""
    for other in range(members):
        place = _MARKS + (other * _LINE if other > 0 else number % 2)
        looks = 0
        while other != thread and _load(board, place) < _COUNT * (number + 1):
            looks += 1
            if looks > _LOOKS:
                return False
            _relax()
    return True


@inner
def members_of(board, number):  # type: ignore[no-untyped-def]
    """Return how many members the round after `number` has."""
    return _load(board, _MARKS + number % 2) % _COUNT


@inner
def begin(board, number, place):  # type: ignore[no-untyped-def]
    """Tell new members where the sequence stands at the begin of a round."""
    board[_START + 1] = place
    _store(board, _START, number)


@inner
def taken_in(board, thread):  # type: ignore[no-untyped-def]
    """Wait until this helper is a member; return the round, its members and the place, or -1 if that takes long."""
    for _ in range(_LOOKS):
        for mark in range(_MARKS, _MARKS + 2):
            value = _load(board, mark)
            number, members = value // _COUNT, value % _COUNT
            if members > thread and _load(board, _START) == number:
                return number, members, board[_START + 1]
        if is_closed(board):
            break
        _relax()
    return -1, 0, 0


# ------------------------------------------------------------------------------------- intrinsics
#
# The twins are for a single thread: without compilation nobody helps.


def _load_twin(board, place):  # type: ignore[no-untyped-def]
    return board[place]


@intrinsic(twin=_load_twin)
def _load(typingctx, board, place):  # type: ignore[no-untyped-def]
    """``_load(board, place)``: read an integer, and see all that was written before it was."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.load_atomic(_address(context, builder, board, arguments), "acquire", 8)

    return types.int64(board, types.intp), emit


def _store_twin(board, place, value):  # type: ignore[no-untyped-def]
    board[place] = value


@intrinsic(twin=_store_twin)
def _store(typingctx, board, place, value):  # type: ignore[no-untyped-def]
    """``_store(board, place, value)``: write an integer after all that was written before."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        builder.store_atomic(arguments[2], _address(context, builder, board, arguments), "release", 8)
        return context.get_dummy_value()

    return types.void(board, types.intp, types.int64), emit


def _relax_twin():  # type: ignore[no-untyped-def]
    pass


@intrinsic(twin=_relax_twin)
def _relax(typingctx):  # type: ignore[no-untyped-def]
    """Tell the CPU that this loop waits."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        if "x86" in target().features:
            function = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, function, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), emit


def _address(context: Any, builder: ir.IRBuilder, board: Any, arguments: Any) -> ir.Value:
    data = context.make_array(board)(context, builder, arguments[0]).data
    return builder.gep(data, [arguments[1]])
