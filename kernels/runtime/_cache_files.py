"""Where machine code is kept, and whose it is.

To load machine code is to run it, so it is loaded only if nobody but root and the effective user can have put it
there: the file and the folders ``fastml/machine-code/<versions>`` above it belong to one of the two, nobody else may
write to them, and they are no links. Each is opened from the one above it and judged once it is open, so that nothing
can take its place meanwhile. What is not trusted stays as it is, and the next place is taken.

There are two places: the folder that ``NUMBA_CACHE_DIR`` names, for others to read too, and the effective user's own
cache folder. Windows has neither these owners nor these permissions: there, only links are refused.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["STALE_AFTER_S", "CacheInfo", "read", "remove", "state", "write"]

#: What nobody used for this long belongs to a version that is gone.
STALE_AFTER_S = 60 * 24 * 3600

#: How often a file is marked as used: each time would cost more than it says.
_MARKED_EVERY_S = 24 * 3600

_OWN_FOLDER = "machine-code"
_VERSIONS = re.compile(r"[0-9a-f]{16}")
_FILE = re.compile(r"[\w.-]+\.[0-9a-f]{32}\.bin|\.writing-[0-9a-f]{16}")

#: What leads to another folder on Windows without being a link.
_JUNCTION = 0xA0000003

_HAS_OWNERS = os.name == "posix"
_FOLDER_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
# Not to wait for the other end of a pipe that somebody put there.
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

_warned: set[str] = set()
_swept: set[Path] = set()


class CacheInfo(NamedTuple):
    """Where compiled kernels are kept; `path` is None where there is no cache, `reason` says why."""

    path: str | None
    writable: bool
    reason: str


class _Untrusted(OSError):
    """Somebody else than root or the effective user could have made this."""


class _Place(NamedTuple):
    """A folder for compiled kernels; one that is `named` by the environment is for others to read too."""

    path: Path
    named: bool


class _Folder(NamedTuple):
    """An open folder: what is in it is reached through `handle`, whatever becomes of its name."""

    path: Path
    handle: int | None  # None where folders cannot be opened
    status: os.stat_result

    def at(self, name: str) -> str:
        return name if self.handle is not None else str(self.path / name)

    def entries(self) -> list[tuple[str, os.stat_result]]:
        with os.scandir(self.path if self.handle is None else self.handle) as entries:
            return [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]


def read(versions: str, name: str) -> bytes:
    """Return the content of a file, from the first place that is trusted; raise OSError if it has none."""
    passed_over: list[str] = []
    for place in _places():
        try:
            with _opened(place, versions) as folder:
                content = _read(folder, name)
        except _Untrusted as error:
            passed_over.append(str(error))
        else:
            _warn(passed_over)
            return content
    raise _Untrusted("; ".join(passed_over))


def write(versions: str, name: str, content: bytes) -> None:
    """Keep a file in the first place that is trusted; warn, once in a process, of what a user does not expect."""
    passed_over: list[str] = []
    try:
        for place in _places():
            try:
                with _opened(place, versions, make=True) as folder:
                    _write(folder, name, content, 0o644 if place.named else 0o600)
                _keep_house(place)
                break
            except _Untrusted as error:
                passed_over.append(str(error))
            except OSError as error:
                if place.named:  # as it is meant to be where one fills a folder that others read
                    return
                raise OSError(f"{place.path} cannot be written: {error.strerror or error}") from error
    except OSError as error:
        passed_over.append(str(error))
    _warn(passed_over)


def remove(versions: str, stem: str) -> None:
    """Remove the files whose names begin with `stem`, followed by a digest."""
    for place in _places():
        with contextlib.suppress(_Untrusted), _opened(place, versions) as folder:
            for name, _ in folder.entries():
                if _FILE.fullmatch(name) and name.rsplit(".", 2)[0] == stem:
                    os.unlink(folder.at(name), dir_fd=folder.handle)
            return


def state(versions: str) -> CacheInfo:
    """Say where compiled kernels are kept and whether new ones can be added, without making any folder."""
    passed_over: list[str] = []
    try:
        for place in _places():
            path = place.path / _OWN_FOLDER / versions
            try:
                with contextlib.suppress(FileNotFoundError), _opened(place, versions):
                    pass
                with tempfile.TemporaryFile(dir=_nearest(path)):
                    reason = "writable"
            except _Untrusted as error:
                passed_over.append(str(error))
                continue
            except OSError as error:
                reason = f"cannot be written: {error.strerror or error}"
            return CacheInfo(str(path), reason == "writable", "; ".join([reason, *passed_over]))
    except OSError as error:
        passed_over.append(str(error))
    return CacheInfo(None, False, f"no cache: {'; '.join(passed_over)}")


# ---------------------------------------------------------------------------------------- places


def _places() -> Iterator[_Place]:
    if named := os.environ.get("NUMBA_CACHE_DIR"):
        yield _Place(_absolute(named) / "fastml", True)
    yield _Place(_own_folder(), False)


@cache
def _absolute(name: str) -> Path:
    """Return what a name meant when it was first met: a process may go elsewhere, its cache may not."""
    return Path(name).absolute()


with contextlib.suppress(OSError):  # in no folder at all
    _absolute(os.environ.get("NUMBA_CACHE_DIR", ""))


def _own_folder() -> Path:
    """Return the effective user's own folder. ``sudo -E`` and the like leave the variables of somebody else."""
    for folder in _user_folders():
        with contextlib.suppress(OSError):
            if folder.is_absolute() and _is_trusted_owner(_nearest(folder).stat()):
                return folder
    raise OSError("the user has no folder of their own")


def _user_folders() -> Iterator[Path]:
    if sys.platform == "win32":
        with contextlib.suppress(RuntimeError):
            yield Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "fastml" / "Cache"
        return
    if sys.platform == "darwin":
        yield from (home / "Library" / "Caches" / "fastml" for home in _homes())
        return
    if base := os.environ.get("XDG_CACHE_HOME"):
        yield Path(base) / "fastml"
    yield from (home / ".cache" / "fastml" for home in _homes())


def _homes() -> Iterator[Path]:
    if home := os.environ.get("HOME"):
        yield Path(home)
    if _HAS_OWNERS:
        import pwd

        with contextlib.suppress(KeyError):
            yield Path(pwd.getpwuid(os.geteuid()).pw_dir)


def _nearest(path: Path) -> Path:
    """Return the path itself, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if os.path.lexists(folder))


# ----------------------------------------------------------------------------------------- trust


@contextlib.contextmanager
def _opened(place: _Place, versions: str, *, make: bool = False) -> Iterator[_Folder]:
    """Open the folder of these versions, having judged all that fastml makes on the way to it."""
    mode = None if not make else 0o755 if place.named else 0o700
    with contextlib.ExitStack() as stack:
        if mode is not None:
            for parent in reversed([path for path in place.path.parents if not os.path.lexists(path)]):
                _make(str(parent), None, mode)
        folder = _enter(stack, place.path, None, mode, mend=not place.named)
        for name in (_OWN_FOLDER, versions):
            folder = _enter(stack, folder.path / name, folder, mode)
        yield folder


def _enter(
    stack: contextlib.ExitStack, path: Path, above: _Folder | None, mode: int | None = None, *, mend: bool = False
) -> _Folder:
    """Open a folder that is trusted; make it with `mode` if that is given and there is none.

    With `mend` a folder of the user's own loses the permission that others have to write into it: what is
    in it has owners and permissions of its own.
    """
    name, at = (str(path), None) if above is None else (above.at(path.name), above.handle)
    if mode is not None:
        _make(name, at, mode)
    status = _refuse_link(path, os.stat(name, dir_fd=at, follow_symlinks=False))
    handle = None
    if _HAS_OWNERS:
        handle = os.open(name, _FOLDER_FLAGS, dir_fd=at)
        stack.callback(os.close, handle)
        status = os.fstat(handle)
        if mend and status.st_uid == os.geteuid() and status.st_mode & 0o022:
            os.fchmod(handle, stat.S_IMODE(status.st_mode) & ~0o022)
            status = os.fstat(handle)
    elif not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(f"{path} is no folder")
    _judge(path, status)
    return _Folder(path, handle, status)


def _make(name: str, at: int | None, mode: int) -> None:
    """Make a folder with exactly this mode, whatever the umask, if there is none."""
    try:
        os.mkdir(name, 0o700, dir_fd=at)
    except FileExistsError:
        return
    if _HAS_OWNERS:
        handle = os.open(name, _FOLDER_FLAGS, dir_fd=at)
        try:
            os.fchmod(handle, mode)
        finally:
            os.close(handle)


def _refuse_link(path: Path, status: os.stat_result) -> os.stat_result:
    if stat.S_ISLNK(status.st_mode) or getattr(status, "st_reparse_tag", 0) == _JUNCTION:
        raise _Untrusted(f"{path} is a link")
    return status


def _judge(path: Path, status: os.stat_result) -> None:
    if not _HAS_OWNERS:
        return
    if not _is_trusted_owner(status):
        raise _Untrusted(f"{path} belongs to user {status.st_uid}, not to user {os.geteuid()} or root")
    if status.st_mode & 0o022:
        raise _Untrusted(f"{path} can be written by other users (mode {stat.S_IMODE(status.st_mode):o})")


def _is_trusted_owner(status: os.stat_result) -> bool:
    return not _HAS_OWNERS or status.st_uid in (0, os.geteuid())


def _is_own(status: os.stat_result) -> bool:
    return not _HAS_OWNERS or status.st_uid == os.geteuid()


def _warn(reasons: list[str]) -> None:
    if reasons and not _warned:
        _warned.update(reasons)
        with contextlib.suppress(RuntimeWarning):  # a filter may make it an error, which a cache must never be
            warnings.warn(
                f"the cache of compiled kernels: {'; '.join(reasons)}; `python -m fastml info` says where it is",
                RuntimeWarning,
                stacklevel=2,
            )


# ----------------------------------------------------------------------------------------- files


def _read(folder: _Folder, name: str) -> bytes:
    path = folder.path / name
    _refuse_link(path, os.stat(folder.at(name), dir_fd=folder.handle, follow_symlinks=False))
    handle = os.open(folder.at(name), _READ_FLAGS, dir_fd=folder.handle)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is no file")
        _judge(path, status)
        if time.time() - status.st_mtime > _MARKED_EVERY_S:
            with contextlib.suppress(OSError):  # who only reads may not; the time of access then says it
                os.utime(handle if os.utime in os.supports_fd else path)
        with open(handle, "rb", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(handle)


def _write(folder: _Folder, name: str, content: bytes, mode: int) -> None:
    """Write a file that appears whole or not at all, unless there is one that is not trusted."""
    with contextlib.suppress(FileNotFoundError):
        there = os.stat(folder.at(name), dir_fd=folder.handle, follow_symlinks=False)
        _judge(folder.path / name, _refuse_link(folder.path / name, there))
    temporary = folder.at(f".writing-{os.urandom(8).hex()}")
    handle = os.open(temporary, _WRITE_FLAGS, 0o600, dir_fd=folder.handle)
    try:
        with open(handle, "wb") as stream:
            stream.write(content)
            if _HAS_OWNERS:
                os.fchmod(handle, mode)
        os.replace(temporary, folder.at(name), src_dir_fd=folder.handle, dst_dir_fd=folder.handle)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder.handle)
        raise


# ---------------------------------------------------------------------------------- housekeeping


def _keep_house(place: _Place) -> None:
    """Remove what nobody used for long, once in a process: uninstalling a package cannot."""
    if place.path in _swept:
        return
    _swept.add(place.path)
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        folder = _enter(stack, place.path / _OWN_FOLDER, _enter(stack, place.path, None))
        for name, status in folder.entries():
            if _VERSIONS.fullmatch(name) and _is_own(status):
                with contextlib.suppress(OSError):
                    _sweep(folder, name)


def _sweep(folder: _Folder, name: str) -> None:
    """Remove the user's own old files from a folder of some versions, and the folder once it is empty."""
    with contextlib.ExitStack() as stack:
        inner = _enter(stack, folder.path / name, folder)
        for file, status in inner.entries():
            if _FILE.fullmatch(file) and stat.S_ISREG(status.st_mode) and _is_own(status) and _is_stale(status):
                os.unlink(inner.at(file), dir_fd=inner.handle)
        was_stale = _is_stale(inner.status)
    if was_stale:
        os.rmdir(folder.at(name), dir_fd=folder.handle)  # refused if anything is left


def _is_stale(status: os.stat_result) -> bool:
    used = status.st_mtime if stat.S_ISDIR(status.st_mode) else max(status.st_mtime, status.st_atime)
    return time.time() - used > STALE_AFTER_S
