"""Jobs: exponentials, losses with their gradients, and a pass over the rows of a linear model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastml import kernels

from ...measuring.limits import reader
from .job import Call, Job, Judge, Limit, Peer, Prepared, package

__all__ = ["jobs", "nanoseconds_per_row"]

Array = NDArray[Any]


def jobs(*, quick: bool = False) -> list[Job]:
    """Return all jobs; `quick` ones are small, to see that everything runs."""
    side = 100 if quick else 1_000
    shapes = [(200, 10), (50, 100), (20, 1_000)] if quick else [(100_000, 10), (20_000, 100), (4_000, 1_000)]
    found = [_elementwise("exp", side**2), _elementwise("sigmoid", side**2)]
    found += [_softmax(side**2 // classes, classes) for classes in (10, 100)]
    # JAX takes as many threads as it was started with.
    found += [_compiled("exp", side**2), *(_compiled("softmax", *shape) for shape in shapes)]
    found += [_cross_entropy(n, classes, dtype) for n, classes in shapes for dtype in ("float32", "float64")]
    for loss, n, d, classes in (
        ("binary_cross_entropy", 463_715, 90, 1),
        ("binary_cross_entropy", 60_000, 784, 1),
        ("squared_error", 463_715, 90, 1),
        ("softmax_cross_entropy", 60_000, 784, 10),
    ):
        found.append(_linear(loss, n // 500 if quick else n, d, classes))
    return found


def within(rtol: float, atol: float = 0.0) -> Judge:
    """Judge arrays, or tuples of arrays: equal to `rtol` of the largest entry, and `atol`."""

    def judge(ours: Any, theirs: Any) -> str | None:
        pairs = zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]
        for own, other in pairs:
            own, other = np.asarray(own, np.float64), np.asarray(other, np.float64)
            if own.shape != other.shape:
                return f"shape {other.shape}, ours {own.shape}"
            off = float(np.max(np.abs(own - other)))
            if not off <= rtol * float(np.max(np.abs(own))) + atol:
                return f"results differ by {off:.1e}"
        return None

    return judge


def _normal(seed: int, *shape: int, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32).astype(dtype)


def _elementwise(name: str, n: int) -> Job:
    def prepare(n_threads: int) -> Prepared:
        z = _normal(0, n) * 4
        function = getattr(kernels, name)

        def numpy() -> Peer:
            def sigmoid() -> Array:
                out = np.negative(z)
                np.exp(out, out=out)
                np.add(out, 1, out=out)
                return np.divide(1, out, out=out)

            return Peer({"float32": sigmoid if name == "sigmoid" else lambda: np.exp(z)}, within(1e-6))

        def scipy() -> Peer:
            from scipy.special import expit

            return Peer({"expit, float32": lambda: expit(z)}, within(1e-6))

        peers = {"numpy": numpy} if name == "exp" else {"numpy": numpy, "scipy": scipy}
        return Prepared(lambda: function(z, n_threads=1), peers)

    return Job(f"{name} float32", f"{n:,}, one thread", prepare)


def _softmax(n: int, classes: int) -> Job:
    def prepare(n_threads: int) -> Prepared:
        Z = _normal(0, n, classes) * 4

        def numpy() -> Array:
            E = np.exp(Z - Z.max(axis=1, keepdims=True))
            E /= E.sum(axis=1, keepdims=True)
            return E

        def scipy() -> Peer:
            from scipy.special import softmax

            return Peer({"float32": lambda: softmax(Z, axis=1)}, within(1e-5))

        peers = {"numpy": lambda: Peer({"float32": numpy}, within(1e-5)), "scipy": scipy}
        return Prepared(lambda: kernels.softmax(Z, n_threads=1), peers)

    return Job("softmax float32", f"{n:,} × {classes}, one thread", prepare)


def _compiled(name: str, *shape: int) -> Job:
    """A function of one array, beside those who compile or fuse it."""

    def prepare(n_threads: int) -> Prepared:
        Z, judge = _normal(0, *shape) * 4, within(1e-5)

        def torch() -> Peer:
            torch = package("torch")
            torch.set_num_threads(n_threads)
            z = torch.from_numpy(Z)
            call = (lambda: torch.exp(z).numpy()) if name == "exp" else (lambda: torch.softmax(z, 1).numpy())
            return Peer({"float32": call}, judge)

        def jax() -> Peer:
            jax = package("jax")
            z, function = jax.numpy.asarray(Z), jax.jit(jax.numpy.exp if name == "exp" else jax.nn.softmax)
            return Peer({"jit, float32": lambda: np.asarray(function(z).block_until_ready())}, judge)

        return Prepared(lambda: getattr(kernels, name)(Z, n_threads=n_threads), {"torch": torch, "jax": jax})

    return Job(f"{name} float32", " × ".join(f"{length:,}" for length in shape), prepare)


def _cross_entropy(n: int, classes: int, dtype: str) -> Job:
    def prepare(n_threads: int) -> Prepared:
        Z, y = _normal(0, n, classes, dtype=dtype) * 4, np.random.default_rng(1).integers(0, classes, n)
        rows = np.arange(n)

        def numpy() -> tuple[Any, Array]:
            shifted = Z - Z.max(axis=1, keepdims=True)
            true = shifted[rows, y]
            np.exp(shifted, out=shifted)
            sums = shifted.sum(axis=1, keepdims=True)
            value = (np.log(sums[:, 0]) - true).mean(dtype=np.float64)
            shifted *= 1 / (n * sums)
            shifted[rows, y] -= 1 / n
            return value, shifted

        def torch() -> Peer:
            torch = package("torch")
            torch.set_num_threads(n_threads)
            z, t = torch.from_numpy(Z), torch.from_numpy(y)

            def call() -> tuple[Any, Array]:
                leaf = z.detach().requires_grad_()
                loss = torch.nn.functional.cross_entropy(leaf, t)
                loss.backward()
                return loss.item(), leaf.grad.numpy()

            return Peer({"cross_entropy and backward": call}, judge)

        def jax() -> Peer:
            jax = package("jax")
            z, t = jax.numpy.asarray(Z), jax.numpy.asarray(y)

            def loss(z: Any, t: Any) -> Any:
                return -jax.nn.log_softmax(z)[jax.numpy.arange(n), t].mean()

            def loss_of_codes(z: Any, t: Any) -> Any:
                return -(jax.nn.log_softmax(z) * jax.nn.one_hot(t, classes)).sum() / n

            def compiled(loss: Callable[[Any, Any], Any]) -> Call:
                function = jax.jit(jax.value_and_grad(loss))

                def call() -> tuple[Any, Array]:
                    value, gradient = function(z, t)
                    return float(value), np.asarray(gradient)

                return call

            return Peer({"labels indexed": compiled(loss), "labels as codes": compiled(loss_of_codes)}, judge)

        judge = within(1e-4 if dtype == "float32" else 1e-12)
        peers = {"numpy": lambda: Peer({dtype: numpy}, judge), "torch": torch}
        # Of float64 JAX takes nothing, unless the whole process is told so.
        peers |= {"jax": jax} if dtype == "float32" else {}
        return Prepared(lambda: kernels.softmax_cross_entropy_gradient(Z, y, n_threads=n_threads), peers)

    return Job(f"softmax_cross_entropy_gradient {dtype}", f"{n:,} × {classes:,}", prepare)


def _linear(loss: str, n: int, d: int, classes: int) -> Job:
    """Beside nothing but the reading of X, or a matrix product for several scores: the ratio is our share of that."""

    def prepare(n_threads: int) -> Prepared:
        rng = np.random.default_rng(1)
        X = _normal(0, n, d)
        if classes > 1:
            y, W, b = rng.integers(0, classes, n), _normal(2, classes, d) / 30, np.zeros(classes, np.float32)
        else:
            y, W, b = rng.integers(0, 2, n).astype(np.float32), _normal(2, d) / 30, np.float32(0)
        limit = Limit("numpy", "X is read, nothing else", reader(X.reshape(-1), n_threads))
        if classes > 1:  # scores and gradient are two products
            side = round((2 * n * d * classes) ** (1 / 3))
            A, B = _normal(3, 2, side, side)
            product = np.empty_like(A)
            limit = Limit("numpy", "a square matrix product, as many operations", lambda: np.matmul(A, B, out=product))
        return Prepared(lambda: kernels.linear_loss_gradient(loss, X, y, W, b, n_threads=n_threads), limit=limit)

    size = f"{loss}, {n:,} × {d}" + (f", {classes} classes" if classes > 1 else "")
    return Job("linear_loss_gradient float32", size, prepare)


def nanoseconds_per_row(sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)) -> dict[int, float]:
    """Return what a row of 90 float32 columns takes in a pass over X, by the number of rows; the last take 4 GB."""
    from ...measuring.timing import once, quiet_gc

    found, block = {}, _normal(0, min(sizes), 90)
    with quiet_gc():
        for n in sizes:
            X = np.tile(block, (-(-n // len(block)), 1))[:n]
            y, w = np.zeros(n, np.float32), np.zeros(90, np.float32)

            def call(X: Array = X, y: Array = y, w: Array = w) -> Any:
                return kernels.linear_loss_gradient("binary_cross_entropy", X, y, w, 0.0)

            call()
            readings = sorted(once(call)[0] for _ in range(max(5, 1_000_000 // n)))
            found[n] = readings[len(readings) // 2] / n * 1e9
            del X, y, call
    return found
