"""What all data sets are read into, and where their files are looked for."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DATA_VARIABLE", "Dataset", "check_labels", "data_folder"]

#: Environment variable that names the data folder.
DATA_VARIABLE = "FASTML_DATA"


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


def check_labels(y: NDArray[Any], n: int, n_classes: int, path: Path) -> None:
    if y.shape != (n,):
        raise ValueError(f"{path} has {y.size:,} labels for {n:,} images")
    if y.size and (int(y.min()) < 0 or int(y.max()) >= n_classes):
        raise ValueError(f"{path} has labels from {y.min()} to {y.max()}, expected 0 to {n_classes - 1}")
