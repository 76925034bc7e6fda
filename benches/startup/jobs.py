"""What is run: short scripts, as a user would write them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["JOBS", "Job", "write_digits"]


@dataclass(frozen=True)
class Job:
    """A first fit.

    Attributes
    ----------
    name : str
        The estimator's name, which is that of scikit-learn's too where `twin` says nothing else.
    module : str
        Where scikit-learn has the twin.
    arguments : str
        What the estimator is made with.
    imports : str
        What else that needs.
    twin : str
        The name of the twin.
    shape : tuple of int
        That of one image.
    """

    name: str
    module: str
    arguments: str = ""
    imports: str = ""
    twin: str = ""
    shape: tuple[int, ...] = (64,)

    @property
    def import_twin(self) -> str:
        return f"from {self.module} import {self.twin or self.name}"

    @property
    def import_fastml(self) -> str:
        return f"from fastml import {self.name}"

    def fit(self, data: str) -> str:
        """Return the script that fits the images of a file and predicts them."""
        return f"""
import numpy as np
{self.import_fastml}
{self.imports}
data = np.load({data!r})
X, y = data["X"].reshape(-1, *{self.shape}), data["y"]
{self.name}({self.arguments}).fit(X, y).predict(X)
"""


#: A few epochs where there is no end to them, for it is the first second that counts.
JOBS = (
    Job("KNeighborsClassifier", "sklearn.neighbors"),
    Job("LogisticRegression", "sklearn.linear_model"),
    Job("LinearSVC", "sklearn.svm"),
    Job("SGDClassifier", "sklearn.linear_model", "random_state=0"),
    Job("MLPClassifier", "sklearn.neural_network", "max_iter=5, random_state=0"),
    Job(
        "ConvNetClassifier",
        "sklearn.neural_network",
        "[Conv2D(16), BatchNorm(), ReLU(), MaxPool2D(), Dropout(0.25), Linear(32), ReLU()], max_iter=5, random_state=0",
        imports="from fastml.layers import BatchNorm, Conv2D, Dropout, Linear, MaxPool2D, ReLU",
        twin="MLPClassifier",
        shape=(1, 8, 8),
    ),
)


def write_digits(folder: Path) -> str:
    """Write the images for `Job.fit` and return the file: scikit-learn's reader would add imports of its own."""
    import numpy as np
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    path = folder / "digits.npz"
    np.savez(path, X=X / 16, y=y)
    return str(path)
