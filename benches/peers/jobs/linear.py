"""Jobs: linear models at their optimum.

Solvers stop by rules of their own, so that a time says little without what was reached in it. Here every library gets
the loosest tolerance of a list with which it reaches a stated goal, measured by us in float64; then times count.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression as Other
from sklearn.svm import LinearSVC as OtherSVC

from fastml import LinearSVC, LogisticRegression
from fastml.datasets import load_digits, load_mnist

from .job import Call, Job, NotReached, Peer, Prepared, package
from .training import songs

__all__ = ["Goal", "Solver", "jobs", "peer_of"]

Array = NDArray[Any]
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
_BLOCK = 10_000


def jobs(*, quick: bool = False, data: str | None = None) -> list[Job]:
    """Return all jobs; `quick` ones are small. Without MNIST in the data folder its jobs take scikit-learn's digits."""
    X, y, name = _digits(quick, data)
    return [
        _logistic(2_000 if quick else 463_715),
        _defaults(2_000 if quick else 463_715),
        _multinomial(X, y, name),
        _support_vectors(X, y, name),
    ]


def _digits(quick: bool, data: str | None) -> tuple[Array, NDArray[np.intp], str]:
    try:
        digits = load_digits() if quick else load_mnist(data)
    except FileNotFoundError:
        digits = load_digits()
    X = digits.X_train.astype(np.float32)
    X /= X.max()
    return X, digits.y_train, digits.name


class Solver(NamedTuple):
    """A way to fit: ``fit(tol)`` returns the model."""

    name: str
    fit: Callable[[float], Any]


class Goal(NamedTuple):
    """What a model must reach: ``measure(model)`` may be `most`."""

    measure: Callable[[Any], float]
    most: float

    def judge(self, ours: Any, theirs: Any) -> str | None:
        own, other = self.measure(ours), self.measure(theirs)
        if not own <= self.most:
            return f"we end at {own:.1e}, the goal is {self.most:.0e}"
        if not other <= self.most:
            raise NotReached(f"it ends at {other:.1e}, the goal is {self.most:.0e}")
        return None


def _loosest(solver: Solver, goal: Goal) -> tuple[str, Call]:
    """Return the fit with the loosest tolerance that is good enough, and what to call it.

    Raises
    ------
    NotReached
        If none is.
    """
    nearest = float("inf")
    for tol in TOLERANCES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            value = goal.measure(solver.fit(tol))
        if value <= goal.most:
            return f"{solver.name}, tol {tol:.0e}", partial(solver.fit, tol)
        nearest = min(nearest, value)
    raise NotReached(f"it ends at {nearest:.1e}, the goal is {goal.most:.0e}")


def peer_of(solvers: Sequence[Solver], goal: Goal) -> Peer:
    return Peer(dict(_setting(solver, goal) for solver in solvers), goal.judge)


def _setting(solver: Solver, goal: Goal) -> tuple[str, Call]:
    """Return the setting of a solver; one that fails or falls short does so again when it is tried: so it is told."""
    try:
        return _loosest(solver, goal)
    except Exception as error:
        return solver.name, partial(_again, error)


def _again(error: Exception) -> Any:
    raise error.with_traceback(None)  # else it would keep the data of the fit


def _prepared(ours: Callable[[float], Any], goal: Goal, peers: Mapping[str, Callable[[], Peer]]) -> Prepared:
    return Prepared(_loosest(Solver("", ours), goal)[1], peers)


# ------------------------------------------------------------------------------------------- jobs


def _logistic(n: int) -> Job:
    """To a gradient norm of 1e-5, of the mean loss with the penalty."""

    def prepare(n_threads: int) -> Prepared:
        X, y = songs(n)
        wide = X.astype(np.float64)

        def norm(model: Any) -> float:
            w, b = np.ravel(model.coef_).astype(np.float64), float(np.ravel(model.intercept_)[0])
            slopes = 1 / (1 + np.exp(-(wide @ w + b))) - y
            gradient = np.append((slopes @ wide + w) / n, slopes.mean())
            return float(np.linalg.norm(gradient))

        goal = Goal(norm, 1e-5)

        def solver(kind: Any, name: str, rows: Array) -> Solver:
            return Solver(f"{name}, {rows.dtype}", lambda tol: kind(solver=name, tol=tol, max_iter=1000).fit(rows, y))

        def sklearn() -> Peer:
            # sag and saga take many times longer; liblinear penalises the intercept.
            names = ("lbfgs", "newton-cholesky", "newton-cg")
            return peer_of([solver(Other, name, rows) for name in names for rows in (X, wide)], goal)

        def onedal() -> Peer:
            package("scikit-learn-intelex")
            from sklearnex.linear_model import LogisticRegression as Patched

            names = ("lbfgs", "newton-cg")
            return peer_of([solver(Patched, name, rows) for name in names for rows in (X, wide)], goal)

        def glum() -> Peer:
            generalized = package("glum").GeneralizedLinearRegressor

            def solver(name: str, rows: Array) -> Solver:
                # Its loss is a mean: our C is 1 / (n alpha).
                same = {"family": "binomial", "l1_ratio": 0, "alpha": 1 / n, "solver": name, "max_iter": 1000}
                return Solver(f"{name}, {rows.dtype}", lambda tol: generalized(gradient_tol=tol, **same).fit(rows, y))

            return peer_of([solver(name, rows) for name in ("irls-ls", "lbfgs") for rows in (X, wide)], goal)

        def ours(tol: float) -> Any:
            return LogisticRegression(tol=tol, n_jobs=n_threads).fit(X, y)

        peers = {"scikit-learn": sklearn, "scikit-learn-intelex": onedal, "glum": glum}
        return _prepared(ours, goal, peers)

    return Job("LogisticRegression float32", f"{n:,} × 90, to a gradient of 1e-5", prepare)


def _defaults(n: int) -> Job:
    """As both are when nothing is said: the other may stop a little earlier."""

    def prepare(n_threads: int) -> Prepared:
        X, y = songs(n)

        def objective(model: Any) -> float:
            w, z = model.coef_[0].astype(np.float64), _scores(model, X)[:, 0]
            return float((np.logaddexp(0, z) - y * z).sum() + 0.5 * w @ w)

        def judge(ours: Any, theirs: Any) -> str | None:
            own, other = objective(ours), objective(theirs)
            return None if abs(own - other) <= 1e-3 * own else f"its objective is {other:.6g}, ours {own:.6g}"

        def of(kind: Any) -> Peer:
            return Peer({"float32": lambda: kind().fit(X, y)}, judge)

        def onedal() -> Peer:
            package("scikit-learn-intelex")
            from sklearnex.linear_model import LogisticRegression as Patched

            return of(Patched)

        peers = {"scikit-learn": lambda: of(Other), "scikit-learn-intelex": onedal}
        return Prepared(lambda: LogisticRegression(n_jobs=n_threads).fit(X, y), peers)

    return Job("LogisticRegression float32", f"{n:,} × 90, defaults", prepare)


def _scores(model: Any, X: Array) -> Array:
    """Return float64 scores of float32 rows."""
    coef, blocks = model.coef_.astype(np.float64), range(0, len(X), _BLOCK)
    scores: Array = np.concatenate([X[i : i + _BLOCK].astype(np.float64) @ coef.T for i in blocks])
    return scores + model.intercept_


def _multinomial(X: Array, y: NDArray[np.intp], name: str) -> Job:
    """To an objective that is 1e-6 above the minimum, relative."""

    def prepare(n_threads: int) -> Prepared:
        rows = np.arange(len(X))

        def objective(model: Any) -> float:
            Z = _scores(model, X)
            loss = np.logaddexp.reduce(Z, axis=1) - Z[rows, y]
            return float(loss.sum() + 0.5 * (model.coef_.astype(np.float64) ** 2).sum())

        def ours(tol: float) -> Any:
            return LogisticRegression(tol=tol, n_jobs=n_threads).fit(X, y)

        least = objective(ours(1e-6))
        goal = Goal(lambda model: objective(model) / least - 1, 1e-6)

        def solver(kind: Any, name: str, dtype: str) -> Solver:
            Z = X.astype(dtype)
            return Solver(f"{name}, {dtype}", lambda tol: kind(solver=name, tol=tol, max_iter=2000).fit(Z, y))

        def sklearn() -> Peer:
            # newton-cholesky takes the square of all 7,850 coefficients.
            names, dtypes = ("lbfgs", "newton-cg"), ("float32", "float64")
            return peer_of([solver(Other, name, dtype) for name in names for dtype in dtypes], goal)

        def onedal() -> Peer:
            package("scikit-learn-intelex")
            from sklearnex.linear_model import LogisticRegression as Patched

            return peer_of([solver(Patched, "lbfgs", dtype) for dtype in ("float32", "float64")], goal)

        return _prepared(ours, goal, {"scikit-learn": sklearn, "scikit-learn-intelex": onedal})

    size = f"{name}, {X.shape[0]:,} × {X.shape[1]}, 10 classes, to 1e-6"
    return Job("LogisticRegression float32", size, prepare)


def _support_vectors(X: Array, y: NDArray[np.intp], name: str) -> Job:
    """To a duality gap of 1e-4; of liblinear, which does not tell its own, we ask that its objectives are that near."""

    def prepare(n_threads: int) -> Prepared:
        wide, signs = X.astype(np.float64), np.where(y[:, np.newaxis] == np.arange(10), 1.0, -1.0)

        def objectives(model: Any) -> Array:
            slack = np.maximum(0, 1 - signs * _scores(model, X))
            coef = model.coef_.astype(np.float64)
            norms: Array = (coef**2).sum(axis=1) + model.intercept_.astype(np.float64) ** 2
            return (slack**2).sum(axis=0) + 0.5 * norms

        def ours(tol: float) -> Any:
            return LinearSVC(tol=tol, random_state=0, n_jobs=n_threads).fit(X, y)

        best = ours(1e-6)
        least = best.objective_ - best.duality_gap_  # no model is below

        def excess(model: Any) -> float:
            return float((objectives(model) / least - 1).max())

        def gap(model: Any) -> float:
            return float((model.duality_gap_ / model.objective_).max())

        goal = Goal(lambda model: gap(model) if isinstance(model, LinearSVC) else excess(model), 1e-4)

        def solver(dual: bool) -> Solver:
            def fit(tol: float) -> Any:
                return OtherSVC(dual=dual, tol=tol, max_iter=2_000, random_state=0).fit(wide, y)

            return Solver(f"liblinear, {'dual' if dual else 'primal'}, float64", fit)

        def sklearn() -> Peer:
            return peer_of([solver(dual) for dual in (False, True)], goal)

        return _prepared(ours, goal, {"scikit-learn": sklearn})

    size = f"{name}, {X.shape[0]:,} × {X.shape[1]}, one of ten against the rest, to 1e-4"
    return Job("LinearSVC squared_hinge float32", size, prepare)
