"""The small digits that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from ._base import Dataset

__all__ = ["load_digits"]


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
