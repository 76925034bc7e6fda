"""Files of data sets: found or missed, checked, unpacked, downloaded."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import itertools
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

# No official file comes near this; a file that does is refused before it is read.
MAX_BYTES = 256 * 2**20

# Lines of a text that are parsed at once: a few megabytes, a fraction of a second.
BLOCK_ROWS = 1 << 13


class Checksum(NamedTuple):
    """A digest and the algorithm it belongs to."""

    algorithm: str
    digest: str


def sha256(digest: str) -> Checksum:
    return Checksum("sha256", digest)


def md5(digest: str) -> Checksum:
    return Checksum("md5", digest)


def read(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path} has {size:,} bytes, far more than any file of this data set")
    return path.read_bytes()


def read_maybe_packed(home: Path, name: str) -> tuple[bytes, Path]:
    """Return the unpacked content of ``name`` or ``name.gz``, and the path it came from."""
    path = home / name
    if path.is_file():
        return read(path), path
    path = home / f"{name}.gz"
    try:
        # Bounded, so that a hostile archive cannot fill the memory.
        with gzip.open(io.BytesIO(read(path))) as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} is damaged: {error}") from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} unpacks to far more than any file of this data set")
    return content, path


def verify(content: bytes, expected: Checksum, path: Path) -> None:
    found = hashlib.new(expected.algorithm, content, usedforsecurity=False).hexdigest()
    if found != expected.digest:
        raise ValueError(
            f"{path} is not the official file: its {expected.algorithm} is {found}, expected {expected.digest}. "
            "Replace it, or pass verify=False to read it all the same."
        )


def missing(title: str, names: Iterable[str], places: Iterable[Path], function: str | None) -> str:
    """Say what to put where; `function` is the one that can download it, if any can."""
    looked = "\n".join(f"  {place}" for place in places)
    text = f"{title} was not found. Put its official files\n  {', '.join(names)}\ninto one of\n{looked}"
    return (
        text if function is None else f"{text}\nor call {function}(folder, download=True) where a network is at hand."
    )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside `path` that takes its name when the block ends well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as stream:
            yield stream
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def download(addresses: Iterable[str], path: Path, expected: Checksum | Callable[[Path], None]) -> None:
    """Fetch `path` from the first address that serves it intact.

    `expected` is its checksum; for a file of which none is known, a function that gets the path of what came
    and raises ValueError if that is not right.
    """
    import urllib.request

    from tqdm.auto import tqdm

    if path.is_file():
        return
    failures = []
    for address in addresses:
        try:
            with urllib.request.urlopen(address, timeout=60) as response, replacing(path) as stream:
                length = response.headers.get("Content-Length")
                total = int(length) if length else None
                with tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, desc=path.name) as bar:
                    while chunk := response.read(2**18):
                        stream.write(chunk)
                        bar.update(len(chunk))
                stream.flush()
                _check(Path(stream.name), expected)
            return
        except (OSError, ValueError) as error:
            failures.append(f"  {address}: {error}")
    raise OSError(f"{path.name} could not be downloaded:\n" + "\n".join(failures))


def _check(path: Path, expected: Checksum | Callable[[Path], None]) -> None:
    if not isinstance(expected, Checksum):
        expected(path)
        return
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.new(expected.algorithm, usedforsecurity=False)).hexdigest()
    if digest != expected.digest:
        raise ValueError(f"its {expected.algorithm} is {digest}, expected {expected.digest}")


@contextlib.contextmanager
def text_of(path: Path, member: str) -> Iterator[IO[str]]:
    """Open an ASCII text, or the member of a zip archive (by its name alone, in whatever folder it lies).

    What goes wrong while the block reads is told as ValueError.
    """
    try:
        with contextlib.ExitStack() as stack:
            if path.suffix != ".zip":
                yield stack.enter_context(path.open(encoding="ascii"))
                return
            archive = stack.enter_context(zipfile.ZipFile(path))
            names = [name for name in archive.namelist() if name.rpartition("/")[2] == member]
            if len(names) != 1:
                raise ValueError(f"{path} holds {len(names) or 'no'} files named {member}, expected one")
            yield io.TextIOWrapper(stack.enter_context(archive.open(names[0])), encoding="ascii")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no plain text: {error}") from error
    # An encrypted member is a RuntimeError, an unknown way of packing a NotImplementedError.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def check_zip(path: Path) -> None:
    """Raise ValueError if a zip archive is none, or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"it is no intact zip archive: {error}") from error
    if damaged is not None:
        raise ValueError(f"its member {damaged} is damaged")


def read_rows(lines: Iterator[str], columns: int, path: Path) -> Iterator[NDArray[np.float64]]:
    """Yield the numbers of a comma-separated text in blocks of rows, all finite; `path` is for messages."""
    first = 1
    while block := list(itertools.islice(lines, BLOCK_ROWS)):
        what = f"{path}, lines {first:,} to {first + len(block) - 1:,}"
        first += len(block)
        filled = [line for line in block if not line.isspace()]
        if not filled:
            continue
        try:
            rows = np.loadtxt(filled, delimiter=",", comments=None, ndmin=2)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error
        if rows.shape[1] != columns:
            raise ValueError(f"{what}: {rows.shape[1]} columns, expected {columns}")
        if not np.isfinite(rows).all():
            raise ValueError(f"{what}: not all numbers are finite")
        yield rows
