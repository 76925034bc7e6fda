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

from ._base import DATA_VARIABLE, Dataset, data_folder
from ._cifar10 import CIFAR10_ADDRESSES, load_cifar10
from ._digits import load_digits
from ._mnist import MNIST_ADDRESSES, load_mnist
from ._songs import YEAR_PREDICTION_MSD_ADDRESSES, load_year_prediction_msd, load_year_prediction_small

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
