"""Jobs: training by mini-batches, one model and many."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid

from fastml import DivergenceWarning, SGDClassifier, sweep

from .job import OURS, Call, Job, Judge, Peer, Prepared, package

__all__ = ["jobs"]

Array = NDArray[Any]
ALPHA = np.float32(1e-4)
EPOCHS, STEP = 5, np.float32(0.1)


def jobs(*, quick: bool = False) -> list[Job]:
    """Return all jobs; `quick` ones are small, to see that everything runs."""
    n = 2_000 if quick else 463_715
    found = [
        _epochs(n, 100),
        _epochs(n, 1_000),
        _sweep(1_500 if quick else 413_715, 300 if quick else 50_000, 20 if quick else 200),
        _images(500 if quick else 9_000, 20 if quick else 1_500),
    ]
    return found


def songs(n: int, seed: int = 0) -> tuple[Array, NDArray[np.int64]]:
    """Make standardised rows of 90 float32 columns that depend on one another, and labels of a logistic model."""
    rng = np.random.default_rng(seed)
    mixing = (
        rng.standard_normal((30, 90), dtype=np.float32) * np.linspace(1.5, 0.2, 30, dtype=np.float32)[:, np.newaxis]
    )
    X = rng.standard_normal((n, 30), dtype=np.float32) @ mixing
    X += 0.6 * rng.standard_normal(X.shape, dtype=np.float32)
    X -= X.mean(axis=0)
    X /= X.std(axis=0)
    z = X @ rng.standard_normal(90, dtype=np.float32)
    return X, (z * (1.2 / z.std()) + 0.2 + rng.logistic(size=n) > 0).astype(np.int64)


def _mean_loss(X: Array, y: Array, w: Array, b: float) -> float:
    z = X @ w + b
    return float(np.mean(np.logaddexp(0, z) - y * z, dtype=np.float64))


def _as_good(X: Array, y: Array) -> Judge:
    """Judge (w, b): orders differ, so losses do a little."""

    def judge(ours: Any, theirs: Any) -> str | None:
        own, other = (_mean_loss(X, y, *parameters) for parameters in (ours, theirs))
        return None if abs(own - other) <= 0.02 * own else f"its loss is {other:.4f}, ours {own:.4f}"

    return judge


def _epochs(n: int, batch: int) -> Job:
    def prepare(n_threads: int) -> Prepared:
        X, y = songs(n)
        t = y.astype(np.float32)
        model = SGDClassifier(
            "log_loss", alpha=float(ALPHA), learning_rate="constant", eta0=float(STEP), batch_size=batch,
            max_iter=EPOCHS, tol=None, random_state=0, n_jobs=n_threads,
        )  # fmt: skip

        def ours() -> tuple[Array, float]:
            model.fit(X, y)
            return model.coef_[0], float(model.intercept_[0])

        def numpy() -> tuple[Array, float]:
            w, b, rng = np.zeros(90, np.float32), np.float32(0), np.random.default_rng(1)
            for _ in range(EPOCHS):
                for rows in _batches(rng.permutation(n), batch):
                    x = X[rows]
                    g = 1 / (1 + np.exp(-(x @ w + b))) - t[rows]
                    w -= STEP * (g @ x / len(rows) + ALPHA * w)
                    b -= STEP * g.mean()
            return w, float(b)

        def torch() -> Peer:
            torch = package("torch")
            torch.set_num_threads(n_threads)
            rows, targets = torch.from_numpy(X), torch.from_numpy(t)[:, None]

            def train(threads: int) -> Call:
                def call() -> tuple[Array, float]:
                    torch.set_num_threads(threads)
                    linear = torch.nn.Linear(90, 1)
                    with torch.no_grad():
                        linear.weight.zero_()
                        linear.bias.zero_()
                    settings = [
                        {"params": linear.weight, "weight_decay": float(ALPHA)},
                        {"params": linear.bias, "weight_decay": 0.0},
                    ]
                    descent = torch.optim.SGD(settings, lr=float(STEP))
                    loss = torch.nn.BCEWithLogitsLoss()
                    torch.manual_seed(1)
                    for _ in range(EPOCHS):
                        for chosen in torch.randperm(n).split(batch):
                            descent.zero_grad()
                            loss(linear(rows[chosen]), targets[chosen]).backward()
                            descent.step()
                    return linear.weight.detach().numpy()[0], float(linear.bias)

                return call

            calls = {f"indexed batches, {threads} threads": train(threads) for threads in sorted({1, n_threads})}
            return Peer(calls, _as_good(X, y))

        def sklearn() -> Peer:
            from sklearn.linear_model import SGDClassifier as Other

            other = Other(
                "log_loss", alpha=float(ALPHA), learning_rate="constant", eta0=float(STEP) / batch, max_iter=EPOCHS,
                tol=None, random_state=0,
            )  # fmt: skip

            def train(rows: Array) -> Call:
                def call() -> tuple[Array, float]:
                    other.fit(rows, y)
                    return other.coef_[0], float(other.intercept_[0])

                return call

            calls = {f"row after row, {d}": train(X.astype(d)) for d in ("float32", "float64")}
            return Peer(calls, _as_good(X, y))

        peers = {"numpy": lambda: Peer({"float32": numpy}, _as_good(X, y)), "torch": torch, "scikit-learn": sklearn}
        return Prepared(ours, peers)

    return Job("SGDClassifier log_loss float32", f"{n:,} × 90, {EPOCHS} epochs, batches of {batch:,}", prepare)


def _batches(order: Array, size: int) -> Iterator[Array]:
    for first in range(0, len(order), size):
        yield order[first : first + size]


def _sweep(n: int, n_val: int, steps: int) -> Job:
    """W4, with fewer steps: 24 runs, evaluated every ten steps."""
    grid = {
        "init": ["zeros", "normal"],
        "batch_size": [100, 1_000, 10_000] if n > 10_000 else [10, 50, 250],
        "eta0": [1.0, 0.1, 0.01, 1e-5],
    }

    def prepare(n_threads: int) -> Prepared:
        X, y = songs(n + n_val)
        X_val, y_val, X, y = X[n:], y[n:], X[:n], y[:n]
        t, t_val = y.astype(np.float32), y_val.astype(np.float32)
        model = SGDClassifier(
            "log_loss", penalty=None, learning_rate="constant", drop_last=True, max_steps=steps, max_iter=10**6,
            tol=None, evaluate_every=10, random_state=0, n_jobs=n_threads,
        )  # fmt: skip

        def quiet(call: Call) -> Call:
            def quietly() -> Any:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DivergenceWarning)
                    return call()

            return quietly

        def parameters(fitted: list[Any]) -> Array:
            return np.array([np.append(each.coef_, each.intercept_) for each in fitted])

        def together() -> Array:
            return parameters(sweep(model, grid, X, y, X_val, y_val, progress=False).estimators)

        def one_by_one() -> Array:
            settings = ParameterGrid(grid)
            return parameters(
                [clone(model).set_params(**each).fit(X, y, X_val=X_val, y_val=y_val) for each in settings]
            )

        # Steps of almost nothing show the weights that a run begins with.
        first = {init: clone(model).set_params(init=init, eta0=1e-30, max_steps=1).fit(X, y) for init in grid["init"]}

        def same(ours: Any, theirs: Any) -> str | None:
            return None if np.array_equal(ours, theirs) else "not the same bits"

        def as_good(ours: Any, theirs: Any) -> str | None:
            """Judge each run by its loss: batches differ, so losses do a little, and more where steps of 1 swing."""
            for setting, own, other in zip(ParameterGrid(grid), ours, theirs, strict=True):
                a, b = (_mean_loss(X_val, y_val, each[:-1], each[-1]) for each in (own, other))
                if not abs(a - b) <= (0.5 if setting["eta0"] >= 1 else 0.1) * a:
                    return f"the loss of {setting} is {b:.3f}, ours {a:.3f}"
            return None

        def numpy() -> Array:
            found = []
            for setting in ParameterGrid(grid):
                rng, size, step = np.random.default_rng(0), setting["batch_size"], np.float32(setting["eta0"])
                begin = first[setting["init"]]
                w, b = begin.coef_[0].copy(), begin.intercept_[0]
                order, start = rng.permutation(n), 0
                for number in range(1, steps + 1):
                    if start + size > n:
                        order, start = rng.permutation(n), 0
                    rows = order[start : start + size]
                    start += size
                    x = X[rows]
                    g = 1 / (1 + np.exp(-(x @ w + b))) - t[rows]
                    w -= step * (g @ x / size)
                    b -= step * g.mean()
                    if number % 10 == 0:
                        z = X_val @ w + b
                        (np.maximum(z, 0) - z * t_val + np.log1p(np.exp(-np.abs(z)))).mean()
                        ((z >= 0) == y_val).mean()
                found.append(np.append(w, b))
            return np.array(found)

        peers = {
            OURS: lambda: Peer({"our own, one by one": quiet(one_by_one)}, same),
            "numpy": lambda: Peer({"float32": numpy}, as_good),
        }
        return Prepared(quiet(together), peers)

    size = f"24 runs of {steps} steps, {n:,} × 90, evaluated on {n_val:,} rows every 10"
    return Job("sweep log_loss float32", size, prepare)


def _images(n: int, steps: int) -> Job:
    """W11: a softmax classifier, batches of 200 drawn with replacement from rows of 3,073 columns."""
    batch, step = 200, np.float32(1e-7)

    def prepare(n_threads: int) -> Prepared:
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((n, 3_073), dtype=np.float32) * 50, rng.integers(0, 10, n)
        X[np.arange(n), y] += 300  # something to learn
        model = SGDClassifier(
            "log_loss", penalty=None, learning_rate="constant", eta0=float(step), sampling="replacement",
            batch_size=batch, max_steps=steps, max_iter=10**6, tol=None, init="normal", init_scale=1e-4,
            fit_intercept=False, random_state=0, n_jobs=n_threads,
        )  # fmt: skip

        def ours() -> Array:
            coef: Array = model.fit(X, y).coef_
            return coef

        def numpy() -> Array:
            rng = np.random.default_rng(0)
            W, own = rng.standard_normal((10, 3_073), dtype=np.float32) * np.float32(1e-4), np.arange(batch)
            for _ in range(steps):
                rows = rng.integers(n, size=batch)
                x = X[rows]
                P = x @ W.T
                P -= P.max(axis=1, keepdims=True)
                np.exp(P, out=P)
                P /= P.sum(axis=1, keepdims=True)
                P[own, y[rows]] -= 1
                W -= step * (P.T @ x / batch)
            return W

        def loss(W: Array) -> float:
            Z = X @ W.T
            return float(np.mean(np.logaddexp.reduce(Z, axis=1) - Z[np.arange(n), y]))

        def judge(ours: Any, theirs: Any) -> str | None:
            own, other = loss(ours), loss(theirs)  # from other weights to begin with, and other batches
            return None if abs(own - other) <= 0.1 * own else f"its loss is {other:.4f}, ours {own:.4f}"

        return Prepared(ours, {"numpy": lambda: Peer({"float32": numpy}, judge)})

    return Job("SGDClassifier softmax float32", f"{n:,} × 3,073, {steps} steps of {batch}", prepare)
