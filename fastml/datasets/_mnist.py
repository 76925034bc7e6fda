"""MNIST: images of handwritten digits."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import _files
from ._base import Dataset, check_labels, data_folder

__all__ = ["MNIST_ADDRESSES", "load_mnist"]

#: Folders that serve MNIST's four files, tried in this order by ``download=True``.
MNIST_ADDRESSES = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)


# MNIST: name without .gz -> (checksum as distributed, checksum of the unpacked file).
_MNIST_FILES = {
    "train-images-idx3-ubyte": (
        _files.sha256("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        _files.sha256("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    ),
    "train-labels-idx1-ubyte": (
        _files.sha256("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        _files.sha256("65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    ),
    "t10k-images-idx3-ubyte": (
        _files.sha256("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        _files.sha256("0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    ),
    "t10k-labels-idx1-ubyte": (
        _files.sha256("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        _files.sha256("ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    ),
}


def load_mnist(folder: str | os.PathLike[str] | None = None, *, download: bool = False, verify: bool = True) -> Dataset:
    """Load MNIST: 60,000 training and 10,000 test images of handwritten digits.

    Parameters
    ----------
    folder : path-like or None
        The folder with the four IDX files, or its parent; None takes ``FASTML_DATA``.
    download : bool
        Fetch what is missing (11.6 MB) into ``folder/mnist``, with a progress bar.
    verify : bool
        Compare SHA-256 checksums with the official ones. False reads any files of the format.

    Returns
    -------
    Dataset
        Rows of 784 pixels, 0 to 255, and labels 0 to 9.

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message says what to put where.
    ValueError
        If a file is damaged, is not in IDX format, or differs from the official one.
    """
    root = data_folder(folder)
    places = [root / "mnist", root / "MNIST" / "raw", root]
    names = [(name, f"{name}.gz") for name in _MNIST_FILES]
    home = next((place for place in places if all(any((place / n).is_file() for n in pair) for pair in names)), None)
    if home is None and download:
        home = root if root.name.lower() == "mnist" else root / "mnist"
        for name, (packed, _) in _MNIST_FILES.items():
            _files.download([a + f"{name}.gz" for a in MNIST_ADDRESSES], home / f"{name}.gz", packed)
    if home is None:
        raise FileNotFoundError(_files.missing("MNIST", [f"{name}.gz" for name in _MNIST_FILES], places, "load_mnist"))

    contents = []
    for name, (_, unpacked) in _MNIST_FILES.items():
        content, path = _files.read_maybe_packed(home, name)
        if verify:
            _files.verify(content, unpacked, path)
        contents.append((content, path))
    X_train = _parse_idx(*contents[0], ndim=3)
    y_train = _parse_idx(*contents[1], ndim=1)
    X_test = _parse_idx(*contents[2], ndim=3)
    y_test = _parse_idx(*contents[3], ndim=1)
    for X, y, (_, path) in ((X_train, y_train, contents[1]), (X_test, y_test, contents[3])):
        check_labels(y, X.shape[0], 10, path)
    if X_train.shape[1:] != X_test.shape[1:]:
        raise ValueError(f"training images are {X_train.shape[1:]}, test images {X_test.shape[1:]}")
    return Dataset(
        name="MNIST",
        X_train=X_train.reshape(len(X_train), -1),
        y_train=y_train.astype(np.intp),
        X_test=X_test.reshape(len(X_test), -1),
        y_test=y_test.astype(np.intp),
        target_names=tuple("0123456789"),
        image_shape=X_train.shape[1:],
        note=f"{len(X_train):,} training and {len(X_test):,} test images",
    )


def _parse_idx(content: bytes, path: Path, *, ndim: int) -> NDArray[np.uint8]:
    """Return the array of an IDX file of uint8: magic number, one big-endian length per axis, data."""
    header = 4 + 4 * ndim
    if len(content) < header or content[:4] != bytes((0, 0, 8, ndim)):
        raise ValueError(f"{path} is not an IDX file of uint8 with {ndim} axes: it begins with {content[:4].hex()}")
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", ndim, offset=4))
    size = 1
    for length in shape:
        size *= length
    if len(content) != header + size:
        raise ValueError(f"{path} has {len(content) - header:,} bytes of data, its header promises {size:,}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()
