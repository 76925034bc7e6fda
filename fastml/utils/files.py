"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = ["replacing"]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside `path` that takes its name when the block ends well, and vanishes otherwise.

    Several threads, processes and machines may do so at the same time: whoever opens `path` gets a whole file of one
    of them, also after a crash of the system. A link stays, and what it leads to is replaced. The new file has the
    rights of the old one.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    old = None
    with contextlib.suppress(FileNotFoundError):
        old = target.stat()
        if not stat.S_ISREG(old.st_mode):
            raise FileExistsError(f"{path} is there and is no regular file, which alone can be replaced")
    mode = 0o666 if old is None else old.st_mode & 0o777
    # Nobody can guess the name, and nothing that is there is opened.
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(temporary, "xb", opener=functools.partial(os.open, mode=mode)) as stream:
            if old is not None and hasattr(os, "fchown"):
                _take_rights(stream.fileno(), mode, old)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _take_rights(descriptor: int, mode: int, old: os.stat_result) -> None:
    with contextlib.suppress(OSError):  # root alone may give files away
        os.fchown(descriptor, old.st_uid, -1)
    try:
        os.fchown(descriptor, -1, old.st_gid)
    except OSError:
        mode &= ~stat.S_IRWXG  # they were another group's
    os.fchmod(descriptor, mode)
