"""Readers for the public data sets of the examples, the report and the tests.

Every reader takes the files as their authors distribute them, checks their checksums and returns
one :class:`Dataset`. Nothing is downloaded unless ``download=True`` asks for it, and nothing in a
file is ever executed: the CIFAR-10 batches are pickles, and they are read by an unpickler that
knows three inert stand-ins and refuses every other name.

Where the files are looked for: in the ``folder`` argument, else in the folder that the environment
variable ``FASTML_DATA`` names. Either may be the data set's own folder or its parent::

    folder/mnist/train-images-idx3-ubyte.gz       (also unpacked, without .gz; also MNIST/raw/)
    folder/cifar-10-batches-py/data_batch_1
    folder/year_prediction_msd/YearPredictionMSD.txt       (also packed, as YearPredictionMSD.txt.zip)
    folder/msd_year12/millionsong.txt
"""

from __future__ import annotations

import functools
import os
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import _files, _pickles

__all__ = [
    "CIFAR10_ADDRESSES",
    "DATA_VARIABLE",
    "MNIST_ADDRESSES",
    "YEAR_PREDICTION_MSD_ADDRESSES",
    "Dataset",
    "data_folder",
    "load_cifar10",
    "load_digits",
    "load_mnist",
    "load_year_prediction_msd",
    "load_year_prediction_small",
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

#: The archive of YearPredictionMSD, about 211 MB, used by ``download=True``.
YEAR_PREDICTION_MSD_ADDRESSES = (
    "https://archive.ics.uci.edu/static/public/203/yearpredictionmsd.zip",
    "https://archive.ics.uci.edu/ml/machine-learning-databases/00203/YearPredictionMSD.txt.zip",
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

# YearPredictionMSD: rows that train and rows that test, and columns after the year. No checksum of the file is
# published, so that the beginning of its first row, the years and the counts must tell it.
_MSD_ROWS = (463_715, 51_630)
_MSD_COLUMNS = 90
_MSD_BEGINNING = (2001.0, 49.94357, 21.47114, 73.0775)
_MSD_YEARS = (1922, 2011)

_SMALL_MSD = _files.sha256("5277c61e9337755b9556b1466601b78c67ecc8bfaeaa5b5658e7c70708048f24")
_SMALL_MSD_COLUMNS = 12


@dataclass(frozen=True)
class Dataset:
    """Rows and labels of one data set, split as its authors split it.

    Attributes
    ----------
    name : str
        For titles, such as ``"MNIST"``.
    X_train, X_test : ndarray of shape (n, d)
        One example per row; images are uint8.
    y_train, y_test : ndarray of intp, shape (n,)
        Class indices; years in the sets of songs.
    target_names : tuple of str
        Name of every class; empty where there are no classes.
    image_shape : tuple of int
        What one row reshapes to: ``(28, 28)``, or ``(3, 32, 32)`` with the colour first; empty where rows are
        no images.
    note : str
        What was read, in words; says so when only a part of the training set was there.
    batches : tuple of int
        Numbers of the training batches that `X_train` is made of, in order; empty where the data
        set does not come in batches.
    """

    name: str
    X_train: NDArray[Any] = field(repr=False)
    y_train: NDArray[np.intp] = field(repr=False)
    X_test: NDArray[Any] = field(repr=False)
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
            "holds mnist/, cifar-10-batches-py/ or another data set (or that download=True may fill)"
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


def load_year_prediction_msd(
    folder: str | os.PathLike[str] | None = None,
    *,
    dtype: DTypeLike = np.float64,
    download: bool = False,
    verify: bool = True,
    progress: bool | None = None,
) -> Dataset:
    """Load YearPredictionMSD: 515,345 songs, 90 numbers on their timbre, and the year of each.

    The split is the official one, in which no artist is in both parts: the first 463,715 rows train,
    the last 51,630 test. The text is parsed anew every time, which takes about ten seconds.

    Parameters
    ----------
    folder : path-like or None
        The folder with ``YearPredictionMSD.txt`` or ``YearPredictionMSD.txt.zip``, or its parent; None
        takes ``FASTML_DATA``.
    dtype : {numpy.float64, numpy.float32}
        Of the rows: 371 MB or 186 MB. Both hold years exactly.
    download : bool
        Fetch the archive (211 MB) into ``folder/year_prediction_msd`` if it is missing, with a progress bar.
    verify : bool
        Refuse a file that does not begin with the official first row, or has other counts or other years.
        False reads any number of rows up to the official one, with any years; the last tenth then tests (in
        the official proportion).
    progress : bool or None
        Show a progress bar; None shows it on a terminal only.

    Returns
    -------
    Dataset
        Rows of 90 numbers, not standardised, and years.

    Raises
    ------
    FileNotFoundError
        If the file is missing; the message says what to put where.
    ValueError
        If `dtype` is another one, or if the file is damaged, is not of this form, or is not the official one.
    """
    kind = _floating(dtype)
    root = data_folder(folder)
    places = [root / "year_prediction_msd", root / "YearPredictionMSD", root]
    names = ["YearPredictionMSD.txt", "YearPredictionMSD.txt.zip"]
    path = next((place / name for place in places for name in names if (place / name).is_file()), None)
    if path is None and download:
        path = (root if root.name.lower() in ("year_prediction_msd", "yearpredictionmsd") else places[0]) / names[1]
        check = functools.partial(_files.check_zip, most_bytes=_msd_bytes())
        _files.download(YEAR_PREDICTION_MSD_ADDRESSES, path, check)
    if path is None:
        raise FileNotFoundError(_files.missing("YearPredictionMSD", names, places, "load_year_prediction_msd"))

    X, years = _read_songs(path, names[0], kind, verify, progress)
    n_train = _MSD_ROWS[0] if len(X) == sum(_MSD_ROWS) else round(len(X) * _MSD_ROWS[0] / sum(_MSD_ROWS))
    return Dataset(
        name="YearPredictionMSD",
        X_train=X[:n_train],
        y_train=years[:n_train],
        X_test=X[n_train:],
        y_test=years[n_train:],
        target_names=(),
        image_shape=(),
        note=f"{n_train:,} training and {len(X) - n_train:,} test songs",
    )


def load_year_prediction_small(
    folder: str | os.PathLike[str] | None = None, *, dtype: DTypeLike = np.float64, verify: bool = True
) -> Dataset:
    """Load 6,724 songs with 12 averages of their timbre, and the year of each.

    A small relative of YearPredictionMSD, made for a university course: at most 100 songs a year, the 12
    averages alone, each scaled to [0, 1]. **Results on it cannot be compared with those on the full set.**

    Nobody split it, and its rows come in the order of their years, more or less. Here every fifth row tests
    (5, 10, 15 … counted from 1); songs of one artist may be in both parts.

    Parameters
    ----------
    folder : path-like or None
        The folder with ``millionsong.txt``, or its parent with ``msd_year12/millionsong.txt``; None takes
        ``FASTML_DATA``.
    dtype : {numpy.float64, numpy.float32}
        Of the rows.
    verify : bool
        Compare the SHA-256 checksum with that of the file that the known results were found on.

    Returns
    -------
    Dataset
        Rows of 12 numbers from 0 to 1, and years.

    Raises
    ------
    FileNotFoundError
        If the file is missing; the message says what to put where.
    ValueError
        If `dtype` is another one, or if the file is not of this form or another one than expected.
    """
    kind = _floating(dtype)
    root = data_folder(folder)
    places = [root / "msd_year12", root]
    path = next((place / "millionsong.txt" for place in places if (place / "millionsong.txt").is_file()), None)
    if path is None:
        raise FileNotFoundError(
            _files.missing("The small relative of YearPredictionMSD", ["millionsong.txt"], places, None)
        )
    if verify:
        _files.verify(_files.read(path), _SMALL_MSD, path)
    with _files.text_of(path, path.name, _files.MAX_BYTES) as text:
        blocks = list(_files.read_rows(text, 1 + _SMALL_MSD_COLUMNS, path))
    if not blocks:
        raise ValueError(f"{path} is empty")
    rows = np.concatenate(blocks)
    X, years = rows[:, 1:].astype(kind), _years(rows[:, 0], path)
    test = np.arange(len(X)) % 5 == 4
    return Dataset(
        name="YearPredictionMSD's small relative",
        X_train=X[~test],
        y_train=years[~test],
        X_test=X[test],
        y_test=years[test],
        target_names=(),
        image_shape=(),
        note=f"{np.sum(~test):,} training and {np.sum(test):,} test songs, 12 features",
    )


def _floating(dtype: DTypeLike) -> np.dtype[Any]:
    kind = np.dtype(dtype)
    if kind not in (np.float32, np.float64):
        raise ValueError(f"dtype is {kind}; it must be float32 or float64")
    return kind


def _msd_bytes() -> int:
    """Return how long the text of YearPredictionMSD may be."""
    return _files.text_bytes(sum(_MSD_ROWS), 1 + _MSD_COLUMNS)


def _read_songs(
    path: Path, member: str, dtype: np.dtype[Any], verify: bool, progress: bool | None
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the rows and years of YearPredictionMSD's text, in the order of the file."""
    from tqdm.auto import tqdm

    expected = sum(_MSD_ROWS)
    X, years = np.empty((expected, _MSD_COLUMNS), dtype), np.empty(expected, np.intp)
    n = 0
    hidden = None if progress is None else not progress
    with (
        _files.text_of(path, member, _msd_bytes()) as text,
        tqdm(total=expected, unit="row", unit_scale=True, desc=path.name, disable=hidden) as bar,
    ):
        for rows in _files.read_rows(text, 1 + _MSD_COLUMNS, path):
            if verify and n == 0 and tuple(rows[0, : len(_MSD_BEGINNING)]) != _MSD_BEGINNING:
                raise ValueError(
                    f"{path} is not the official file: its first row begins with {rows[0, : len(_MSD_BEGINNING)]}, "
                    f"expected {_MSD_BEGINNING}. Replace it, or pass verify=False to read it all the same."
                )
            last = n + len(rows)
            if last > expected:
                raise ValueError(f"{path} has more than the {expected:,} rows of the official file")
            X[n:last] = rows[:, 1:]
            years[n:last] = _years(rows[:, 0], path, _MSD_YEARS if verify else None)
            n = last
            bar.update(len(rows))
    if n == 0 or (verify and n != expected):
        raise ValueError(f"{path} has {n:,} rows, expected {expected:,}")
    return X[:n], years[:n]


def _years(column: NDArray[np.float64], path: Path, between: tuple[int, int] | None = None) -> NDArray[np.intp]:
    first, last = between or (0, 9999)
    if not ((column == np.floor(column)) & (column >= first) & (column <= last)).all():
        wrong = column[(column != np.floor(column)) | (column < first) | (column > last)][0]
        raise ValueError(f"{path} has {wrong} in the column of years, expected whole numbers from {first} to {last}")
    return column.astype(np.intp)


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
