"""YearPredictionMSD, the years of songs, and a small extract of it."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import _files
from ._base import Dataset, data_folder

__all__ = ["YEAR_PREDICTION_MSD_ADDRESSES", "load_year_prediction_msd", "load_year_prediction_small"]

#: The archive of YearPredictionMSD, about 211 MB, used by ``download=True``.
YEAR_PREDICTION_MSD_ADDRESSES = (
    "https://archive.ics.uci.edu/static/public/203/yearpredictionmsd.zip",
    "https://archive.ics.uci.edu/ml/machine-learning-databases/00203/YearPredictionMSD.txt.zip",
)

# YearPredictionMSD: rows that train and rows that test, and columns after the year. No checksum of the file is
# published, so that the beginning of its first row, the years and the counts must tell it.
_MSD_ROWS = (463_715, 51_630)
_MSD_COLUMNS = 90
_MSD_BEGINNING = (2001.0, 49.94357, 21.47114, 73.0775)
_MSD_YEARS = (1922, 2011)

_SMALL_MSD = _files.sha256("5277c61e9337755b9556b1466601b78c67ecc8bfaeaa5b5658e7c70708048f24")
_SMALL_MSD_COLUMNS = 12


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
