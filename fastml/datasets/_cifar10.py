"""CIFAR-10: small colour images of ten kinds of things."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..utils.files import replacing
from . import _files, _pickles
from ._base import Dataset, check_labels, data_folder

__all__ = ["CIFAR10_ADDRESSES", "load_cifar10"]

#: The archive of CIFAR-10's Python version, about 170 MB, used by ``download=True``.
CIFAR10_ADDRESSES = ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",)

# The authors publish MD5 for the batches; SHA-256 is used where a copy could be hashed.
_CIFAR10_FILES = {
    "data_batch_1": _files.sha256("54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd"),
    "data_batch_2": _files.md5("d4bba439e000b95fd0a9bffe97cbabec"),
    "data_batch_3": _files.md5("54ebc095f3ab1f0389bbae665268c751"),
    "data_batch_4": _files.md5("634d18415352ddfa80567beed471001a"),
    "data_batch_5": _files.md5("482c414d41f54cd18b22e5b47cb7c3cb"),
    "test_batch": _files.sha256("f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831"),
    "batches.meta": _files.sha256("f962466ef690d46b226450fb9aadc74ba4bc64a76aa526b5827fe4bc5c7125cb"),
}
_CIFAR10_ARCHIVE = _files.sha256("6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce")
_CIFAR10_PIXELS = 3 * 32 * 32


def load_cifar10(
    folder: str | os.PathLike[str] | None = None,
    *,
    batches: Iterable[int] | None = None,
    download: bool = False,
    verify: bool = True,
) -> Dataset:
    """Load CIFAR-10: colour images of 32 × 32 pixels in ten classes.

    The pickles are parsed without executing anything: arrays are rebuilt from their bytes, and a
    file that names any other Python object is refused.

    Parameters
    ----------
    folder : path-like or None
        The folder with ``data_batch_1`` and the others, or its parent; None takes ``FASTML_DATA``.
    batches : iterable of int or None
        Which of the five training batches to read, in this order. None reads those that are there;
        `batches` and `note` of the result say which.
    download : bool
        Fetch and unpack the official archive (170 MB) if a file is missing, with a progress bar.
    verify : bool
        Compare checksums with the official ones. False reads any files of the format.

    Returns
    -------
    Dataset
        Rows of 3,072 values: 1,024 red, then green, then blue, and labels 0 to 9.

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message says what to put where.
    ValueError
        If `batches` holds other numbers than 1 to 5, or if a file is damaged, asks for anything but
        plain data, or differs from the official one.
    """
    wanted = None if batches is None else tuple(batches)
    if wanted is not None and (not wanted or len(set(wanted)) < len(wanted) or not set(wanted) <= {1, 2, 3, 4, 5}):
        raise ValueError(f"batches must be distinct numbers from 1 to 5, at least one; got {wanted}")
    root = data_folder(folder)
    places = [root / "cifar-10-batches-py", root]
    # With download=True and no explicit batches, "those that are there" means all five.
    asked = wanted if wanted is not None else (1, 2, 3, 4, 5) if download else None
    needed = ["test_batch", "batches.meta", *([f"data_batch_{b}" for b in asked] if asked else [])]

    def is_home(place: Path) -> bool:
        some_batch = any((place / f"data_batch_{b}").is_file() for b in range(1, 6))
        return some_batch and all((place / name).is_file() for name in needed)

    home = next((place for place in places if is_home(place)), None)
    if home is None and download:
        home = root if root.name == "cifar-10-batches-py" else root / "cifar-10-batches-py"
        _download_cifar10(home)
    if home is None:
        raise FileNotFoundError(
            _files.missing("CIFAR-10", needed if asked else ["data_batch_1 (to 5)", *needed], places, "load_cifar10")
        )
    used = asked or tuple(b for b in range(1, 6) if (home / f"data_batch_{b}").is_file())

    target_names = _class_names(_cifar_pickle(home, "batches.meta", verify), home / "batches.meta")
    parts = [_read_cifar_batch(home, f"data_batch_{b}", len(target_names), verify) for b in used]
    X_test, y_test = _read_cifar_batch(home, "test_batch", len(target_names), verify)
    X_train = np.concatenate([X for X, _ in parts])
    if len(used) == 5:
        said = "all five training batches"
    else:
        said = f"part of the training set: batch{'es' * (len(used) > 1)} {', '.join(map(str, used))} of 5"
    return Dataset(
        name="CIFAR-10",
        X_train=X_train,
        y_train=np.concatenate([y for _, y in parts]),
        X_test=X_test,
        y_test=y_test,
        target_names=target_names,
        image_shape=(3, 32, 32),
        note=f"{said} ({len(X_train):,} images) and {len(X_test):,} test images",
        batches=used,
    )


def _cifar_pickle(home: Path, name: str, verify: bool) -> dict[bytes, object]:
    content = _files.read(home / name)
    if verify:
        _files.verify(content, _CIFAR10_FILES[name], home / name)
    return _pickles.dictionary(content, home / name)


def _class_names(meta: dict[bytes, object], path: Path) -> tuple[str, ...]:
    names = meta.get(b"label_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, bytes) for name in names):
        raise ValueError(f"{path} has no list of class names under label_names")
    return tuple(name.decode("ascii", "replace") for name in names)


def _read_cifar_batch(
    home: Path, name: str, n_classes: int, verify: bool
) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    path = home / name
    record = _cifar_pickle(home, name, verify)
    X = _pickles.uint8_rows(record.get(b"data"), _CIFAR10_PIXELS, path)
    labels = record.get(b"labels")
    if not isinstance(labels, list) or not all(type(label) is int and abs(label) < 2**31 for label in labels):
        raise ValueError(f"{path} has no list of integers under labels")
    y = np.array(labels, dtype=np.intp)
    check_labels(y, len(X), n_classes, path)
    return X, y


def _download_cifar10(home: Path) -> None:
    """Fetch the archive and unpack its known members, each by name and checksum."""
    with tempfile.TemporaryDirectory(prefix="fastml-") as scratch:
        archive = Path(scratch) / "cifar-10-python.tar.gz"
        _files.download(CIFAR10_ADDRESSES, archive, _CIFAR10_ARCHIVE)
        with tarfile.open(archive) as tar:
            for name, expected in _CIFAR10_FILES.items():
                member = tar.extractfile(f"cifar-10-batches-py/{name}")
                if member is None:
                    raise ValueError(f"the archive holds no file cifar-10-batches-py/{name}")
                content = member.read()
                _files.verify(content, expected, home / name)
                with replacing(home / name) as stream:
                    stream.write(content)
