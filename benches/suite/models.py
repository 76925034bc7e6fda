"""Every model: fit and predict, the score beside them, and the memory that training takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .common import Settings, called, cases, n_threads, needed, one_blas_thread, warm_up


class _Model(Settings):
    name = ""
    fit: Callable[[], Any]
    param_names = ("dtype", "n_jobs")
    params = (["float32", "float64"], ["one", "all"])

    def setup_cache(self) -> None:
        for name in cases.MODELS:  # this runs once for all classes
            warm_up(globals()[name]())

    def setup(self, dtype: str, n_jobs: str) -> None:
        import warnings

        import fastml

        make = needed(lambda: getattr(fastml, self.name))
        if n_jobs == "all" and n_threads() == 1:
            raise NotImplementedError("there is one thread")
        warnings.simplefilter("ignore")  # a fit of few iterations says that it did not converge
        model = cases.MODELS[self.name]
        X, y = cases.problem(model)
        self.X, self.y = X.astype(dtype), y if model.classes else y.astype(dtype)
        self.blas = one_blas_thread()
        jobs = 1 if n_jobs == "one" else n_threads()
        self.fit = lambda: make(**model.parameters, n_jobs=jobs).fit(self.X, self.y)
        self.fitted = called(self.fit)
        self.predict = getattr(self.fitted, model.method)
        self.predict(self.X)

    def time_fit(self, dtype: str, n_jobs: str) -> None:
        self.fit()

    def time_predict(self, dtype: str, n_jobs: str) -> None:
        self.predict(self.X)

    def track_score(self, dtype: str, n_jobs: str) -> float:
        """Score on the rows that it was fitted on, or the mean square of what is no prediction."""
        if cases.MODELS[self.name].method != "predict":
            return cases.mean_square(self.predict(self.X))
        return float(self.fitted.score(self.X, self.y))

    def peakmem_fit(self, dtype: str, n_jobs: str) -> None:
        self.fit()

    track_score.unit = "score"  # type: ignore[attr-defined]


def _class(name: str) -> type[_Model]:
    members: dict[str, Any] = {"name": name, "__module__": __name__, "__doc__": f"{name} on made-up rows."}
    return type(name, (_Model,), members)


globals().update({name: _class(name) for name in cases.MODELS})
