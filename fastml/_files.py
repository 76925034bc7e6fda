"""Files of data sets: found or missed, checked, unpacked, downloaded."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

# No official file comes near this; a file that does is refused before it is read.
MAX_BYTES = 256 * 2**20


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


def missing(title: str, names: Iterable[str], places: Iterable[Path], function: str) -> str:
    looked = "\n".join(f"  {place}" for place in places)
    return (
        f"{title} was not found. Put its official files\n  {', '.join(names)}\ninto one of\n{looked}\n"
        f"or call {function}(folder, download=True) where a network is at hand."
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


def download(addresses: Iterable[str], path: Path, expected: Checksum) -> None:
    """Fetch `path` from the first address that serves it intact."""
    import urllib.request

    from tqdm.auto import tqdm

    if path.is_file():
        return
    failures = []
    for address in addresses:
        try:
            with urllib.request.urlopen(address, timeout=60) as response, replacing(path) as stream:
                digest = hashlib.new(expected.algorithm, usedforsecurity=False)
                length = response.headers.get("Content-Length")
                total = int(length) if length else None
                with tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, desc=path.name) as bar:
                    while chunk := response.read(2**18):
                        stream.write(chunk)
                        digest.update(chunk)
                        bar.update(len(chunk))
                if digest.hexdigest() != expected.digest:
                    raise ValueError(f"its {expected.algorithm} is {digest.hexdigest()}, expected {expected.digest}")
            return
        except (OSError, ValueError) as error:
            failures.append(f"  {address}: {error}")
    raise OSError(f"{path.name} could not be downloaded:\n" + "\n".join(failures))
