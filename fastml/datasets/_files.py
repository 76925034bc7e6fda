"""Files of data sets: found or missed, checked, unpacked, downloaded."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import itertools
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..utils.files import replacing

# No official file comes near this, but for the text of YearPredictionMSD, which is read in blocks.
MAX_BYTES = 256 * 2**20

# Characters of a number in a text: with 18 digits, sign, exponent and comma it has 26.
_NUMBER_WIDTH = 32

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
    with path.open("rb") as stream:
        return _read_bounded(stream, path)


def read_maybe_packed(home: Path, name: str) -> tuple[bytes, Path]:
    """Return the unpacked content of ``name`` or ``name.gz``, and the path it came from."""
    path = home / name
    if path.is_file():
        return read(path), path
    path = home / f"{name}.gz"
    with gzip.open(io.BytesIO(read(path))) as stream:
        try:
            return _read_bounded(stream, path), path
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is damaged: {error}") from error


def _read_bounded(stream: IO[bytes] | gzip.GzipFile, path: Path) -> bytes:
    """Read a file, of which an archive may promise more than memory holds."""
    content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} holds more than {MAX_BYTES:,} bytes, far more than any file of this data set")
    return content


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
                        if stream.tell() + len(chunk) > MAX_BYTES:
                            raise ValueError(f"it is longer than {MAX_BYTES:,} bytes")
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
def text_of(path: Path, member: str, most_bytes: int) -> Iterator[IO[str]]:
    """Open an ASCII text, or the member of a zip archive (by its name alone, in whatever folder it lies).

    A longer one than `most_bytes`, unpacked, is refused. What goes wrong while the block reads is told as ValueError.
    """
    try:
        with contextlib.ExitStack() as stack:
            if path.suffix != ".zip":
                _check_length(path.stat().st_size, most_bytes, path)
                yield stack.enter_context(path.open(encoding="ascii"))
                return
            archive = stack.enter_context(zipfile.ZipFile(path))
            names = [name for name in archive.namelist() if name.rpartition("/")[2] == member]
            if len(names) != 1:
                raise ValueError(f"{path} holds {len(names) or 'no'} files named {member}, expected one")
            _check_packing(archive.getinfo(names[0]), most_bytes, path)
            yield io.TextIOWrapper(stack.enter_context(archive.open(names[0])), encoding="ascii")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no plain text: {error}") from error
    # An encrypted member is a RuntimeError, an unknown way of packing a NotImplementedError.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _check_length(length: int, most: int, what: Path | str) -> None:
    if length > most:
        raise ValueError(f"{what} has a text of {length:,} bytes; that of this data set has at most {most:,}")


def _check_packing(member: zipfile.ZipInfo, most_bytes: int, what: Path | str) -> None:
    """Refuse a member of an archive that is too long, or packed in a way that `zipfile` unpacks without a bound."""
    _check_length(member.file_size, most_bytes, what)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{what} is packed by method {member.compress_type}; only 0 and 8 (deflate) are read")


def check_zip(path: Path, most_bytes: int) -> None:
    """Raise ValueError if a zip archive is none, is damaged, or has more in it than `most_bytes`."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                _check_packing(member, most_bytes, "it")
            _check_length(sum(member.file_size for member in archive.infolist()), most_bytes, "it")
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"it is no intact zip archive: {error}") from error
    if damaged is not None:
        raise ValueError(f"its member {damaged} is damaged")


def text_bytes(rows: int, columns: int) -> int:
    """Return how long the text of so many rows may be."""
    return rows * columns * _NUMBER_WIDTH


def read_rows(text: IO[str], columns: int, path: Path) -> Iterator[NDArray[np.float64]]:
    """Yield the numbers of a comma-separated text in blocks of rows, all finite; `path` is for messages."""
    width = text_bytes(1, columns)
    lines = iter(lambda: text.readline(width + 1), "")
    first, blank = 1, 0
    while block := list(itertools.islice(lines, BLOCK_ROWS)):
        what = f"{path}, lines {first:,} to {first + len(block) - 1:,}"
        if max(map(len, block)) > width:
            raise ValueError(f"{what}: a line is longer than {width:,} characters; {columns} numbers are expected")
        first += len(block)
        filled = [line for line in block if not line.isspace()]
        blank += len(block) - len(filled)
        if blank > BLOCK_ROWS:
            raise ValueError(f"{what}: more than {BLOCK_ROWS:,} blank lines until here")
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
