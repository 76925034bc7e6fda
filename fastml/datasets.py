"""Readers for the public data sets of the examples, the report and the tests.

Every reader takes the files as their authors distribute them, checks their checksums and returns
one :class:`Dataset`. Nothing is downloaded unless ``download=True`` asks for it, and nothing in a
file is ever executed: the CIFAR-10 batches are pickles, and they are read by an unpickler that
knows three inert stand-ins and refuses every other name.

Where the files are looked for: in the ``folder`` argument, else in the folder that the environment
variable ``FASTML_DATA`` names. Either may be the data set's own folder or its parent::

    folder/mnist/train-images-idx3-ubyte.gz       (also unpacked, without .gz; also MNIST/raw/)
    folder/cifar-10-batches-py/data_batch_1
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _files, _pickles

__all__ = [
    "CIFAR10_ADDRESSES",
    "DATA_VARIABLE",
    "MNIST_ADDRESSES",
    "Dataset",
    "data_folder",
    "load_cifar10",
    "load_digits",
    "load_mnist",
]

#: Environment variable that names the data folder.
DATA_VARIABLE = "FASTML_DATA"

#: Folders that serve MNIST's four files, tried in this order by ``download=True``.
MNIST_ADDRESSES = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)

#: The archive of CIFAR-10's Python version, about 170 MB, used by ``download=True``.
CIFAR10_ADDRESSES = ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",)


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


@dataclass(frozen=True)
class Dataset:
    """Images and labels of one data set, split as its authors split it.

    Attributes
    ----------
    name : str
        For titles, such as ``"MNIST"``.
    X_train, X_test : ndarray of uint8, shape (n, d)
        One image per row.
    y_train, y_test : ndarray of intp, shape (n,)
        Class indices.
    target_names : tuple of str
        Name of every class.
    image_shape : tuple of int
        What one row reshapes to: ``(28, 28)``, or ``(3, 32, 32)`` with the colour first.
    note : str
        What was read, in words; says so when only a part of the training set was there.
    batches : tuple of int
        Numbers of the training batches that `X_train` is made of, in order; empty where the data
        set does not come in batches.
    """

    name: str
    X_train: NDArray[np.uint8] = field(repr=False)
    y_train: NDArray[np.intp] = field(repr=False)
    X_test: NDArray[np.uint8] = field(repr=False)
    y_test: NDArray[np.intp] = field(repr=False)
    target_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    note: str
    batches: tuple[int, ...] = ()


def data_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that data sets are looked for in.

    Parameters
    ----------
    folder : path-like or None
        Used as it is; None takes ``FASTML_DATA`` from the environment.

    Returns
    -------
    pathlib.Path
        The folder; it need not exist yet.

    Raises
    ------
    FileNotFoundError
        If `folder` is None and ``FASTML_DATA`` is not set.

    Examples
    --------
    >>> from fastml.datasets import data_folder
    >>> data_folder("data").name
    'data'
    """
    if folder is None:
        folder = os.environ.get(DATA_VARIABLE) or None
    if folder is None:
        raise FileNotFoundError(
            f"no data folder: pass folder=..., or set the environment variable {DATA_VARIABLE}, to a folder that "
            "holds mnist/ or cifar-10-batches-py/ (or that download=True may fill)"
        )
    return Path(folder).expanduser()


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
        _check_labels(y, X.shape[0], 10, path)
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


def load_digits() -> Dataset:
    """Load the 8 × 8 digits that come with scikit-learn; no file is needed.

    scikit-learn gives no split. Here the first 1,437 images (80 %) train and the last 360 test.

    Returns
    -------
    Dataset
        Rows of 64 pixels, 0 to 16, and labels 0 to 9.

    Examples
    --------
    >>> from fastml.datasets import load_digits
    >>> digits = load_digits()
    >>> digits.X_train.shape, digits.X_test.shape
    ((1437, 64), (360, 64))
    """
    from sklearn.datasets import load_digits as sklearn_digits

    X, y = sklearn_digits(return_X_y=True)
    X, y = X.astype(np.uint8), y.astype(np.intp)
    return Dataset(
        name="digits",
        X_train=X[:1437],
        y_train=y[:1437],
        X_test=X[1437:],
        y_test=y[1437:],
        target_names=tuple("0123456789"),
        image_shape=(8, 8),
        note="1,437 training and 360 test images, from scikit-learn",
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


def _check_labels(y: NDArray[Any], n: int, n_classes: int, path: Path) -> None:
    if y.shape != (n,):
        raise ValueError(f"{path} has {y.size:,} labels for {n:,} images")
    if y.size and (int(y.min()) < 0 or int(y.max()) >= n_classes):
        raise ValueError(f"{path} has labels from {y.min()} to {y.max()}, expected 0 to {n_classes - 1}")


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
    _check_labels(y, len(X), n_classes, path)
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
                with _files.replacing(home / name) as stream:
                    stream.write(content)
