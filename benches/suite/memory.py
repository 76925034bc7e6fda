"""Peak memory: neighbours never build the matrix of all distances, training never copies the rows."""

from __future__ import annotations

import numpy as np

from .common import Settings, called, catalogue, needed, warm_up


class KNearest(Settings):
    """k_nearest of 1,000 rows; the matrix of all distances would have as many megabytes as 4·m/1,000."""

    param_names = ("m", "metric")
    params = ([10_000, 100_000], ["l1", "l2", "linf"])

    def setup_cache(self) -> None:
        warm_up(self)

    def setup(self, m: int, metric: str) -> None:
        from fastml import kernels

        self.k_nearest = needed(lambda: kernels.k_nearest)
        random = np.random.default_rng(0)
        self.X, self.Y = (random.random((rows, 32), dtype=np.float32) for rows in (1_000, m))
        called(lambda: self.k_nearest(self.X[:50], self.Y[:50], 5, metric=metric))

    def peakmem_k_nearest(self, m: int, metric: str) -> None:
        self.k_nearest(self.X, self.Y, 5, metric=metric)


class Training(Settings):
    """One epoch of mini-batches at the catalogue's default size."""

    param_names = ("entry",)
    params = ([key for key, entry in catalogue.ENTRIES.items() if entry.function.startswith("train_")],)

    def setup_cache(self) -> None:
        warm_up(self)

    def setup(self, entry: str) -> None:
        found = catalogue.ENTRIES[entry]
        self.train = needed(lambda: found.tier("compiled"))
        self.inputs = found.make(found.sizes["default"], "float32")
        small = found.make(found.sizes["tiny"], "float32")
        called(lambda: self.train(*small.args, **small.kwargs))

    def peakmem_train(self, entry: str) -> None:
        self.train(*self.inputs.args, **self.inputs.kwargs)
