"""Jobs: epochs of networks."""

from __future__ import annotations

import itertools
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from fastml import ConvNetClassifier, MLPClassifier

from ...profile.convolution import BATCH, HIDDEN, WIDTHS, hidden_layers
from .job import Call, Job, Judge, Peer, Prepared, package

__all__ = ["COMPILED_STEPS", "jobs", "torch_compiles"]

Array = NDArray[Any]
STEP = 0.05
CLASSES, PIXELS = 10, 784


def jobs(*, quick: bool = False) -> list[Job]:
    """Return all jobs; `quick` ones are small, to see that everything runs."""
    batches = (60, 6) if quick else (5_000, 390)
    return [
        _epoch(40, 10, batches[0]),
        _epoch(40, 128, batches[1]),
        _epoch(800, 10, batches[0] // 10),
        _epoch(800, 128, -(-batches[1] // 3)),
        _convolutional_epoch(3 if quick else 71),
    ]


#: Some versions of PyTorch end the process with what they compile.
COMPILED_STEPS = """
import torch
rows, labels = torch.rand(600, 784), torch.randint(10, (600,))
network = torch.nn.Sequential(torch.nn.Linear(784, 40), torch.nn.ReLU(), torch.nn.Linear(40, 10))
loss = torch.compile(lambda x, t: torch.nn.functional.cross_entropy(network(x), t))
for chosen in torch.randperm(600).split(10) * 20:
    loss(rows[chosen], labels[chosen]).backward()
"""


@cache
def torch_compiles() -> bool:
    """Try in a process of its own whether what PyTorch compiles runs, and say so if it does not."""
    done = subprocess.run([sys.executable, "-c", COMPILED_STEPS], capture_output=True, text=True, check=False)
    if done.returncode:
        why = "; ".join(done.stderr.splitlines()[-1:])
        print(f"torch.compile does not work here (exit code {done.returncode}): {why}", file=sys.stderr)
    return done.returncode == 0


def images(n: int, seed: int = 0) -> tuple[Array, NDArray[np.int64]]:
    """Make float32 rows of values from 0 to 1, four in five of them 0 as in images of digits, in ten classes."""
    rng = np.random.default_rng(seed)
    strokes = rng.random((CLASSES, PIXELS), dtype=np.float32) < 0.2
    y = rng.integers(CLASSES, size=n)
    X = rng.random((n, PIXELS), dtype=np.float32)
    return X * (strokes[y] ^ (rng.random((n, PIXELS), dtype=np.float32) < 0.1)), y


def _loss(X: Array, y: Array, layers: list[tuple[Array, Array]]) -> float:
    """Return the mean loss of layers of weights (inputs, units) and intercepts."""
    a = X.astype(np.float64)
    for place, (W, b) in enumerate(layers):
        a = a @ W + b
        if place < len(layers) - 1:
            a = np.maximum(a, 0)
    return float(np.mean(np.logaddexp.reduce(a, axis=1) - a[np.arange(len(y)), y]))


def _as_good(X: Array, y: Array) -> Judge:
    """Judge layers by their loss: initial weights and orders differ, so losses do a little."""

    def judge(ours: Any, theirs: Any) -> str | None:
        own, other = (_loss(X[:5_000], y[:5_000], layers) for layers in (ours, theirs))
        return None if abs(own - other) <= 0.05 + 0.3 * own else f"its loss is {other:.3f}, ours {own:.3f}"

    return judge


def _epoch(hidden: int, batch: int, batches: int) -> Job:
    n = batch * batches

    def prepare(n_threads: int) -> Prepared:
        X, y = images(n)
        model = MLPClassifier(
            (hidden,), solver="sgd", momentum=0, alpha=0, learning_rate_init=STEP, batch_size=batch, max_iter=1,
            tol=None, random_state=0, n_jobs=n_threads,
        )  # fmt: skip

        def ours() -> list[tuple[Array, Array]]:
            model.fit(X, y)
            return list(zip(model.coefs_, model.intercepts_, strict=True))

        def torch() -> Peer:
            calls = dict(_torch_settings(X, y, hidden, batch, n_threads))
            return Peer(calls, _as_good(X, y))

        def sklearn() -> Peer:
            from sklearn.neural_network import MLPClassifier as Other

            other = Other(
                (hidden,), solver="sgd", momentum=0, alpha=0, learning_rate_init=STEP, batch_size=batch, max_iter=1,
                random_state=0,
            )  # fmt: skip

            def call() -> list[tuple[Array, Array]]:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    other.fit(X, y)
                return list(zip(other.coefs_, other.intercepts_, strict=True))

            return Peer({"float32": call}, _as_good(X, y))

        def jax() -> Peer:
            return Peer(dict(_jax_settings(X, y, hidden, batch)), _as_good(X, y))

        peers = {"torch": torch, "jax": jax}
        # On wide layers it takes minutes.
        return Prepared(ours, peers | ({"scikit-learn": sklearn} if hidden < 100 else {}))

    return Job(f"MLPClassifier {PIXELS}-{hidden}-{CLASSES} float32", f"an epoch of {n:,}, batches of {batch}", prepare)


def _convolutional_epoch(batches: int) -> Job:
    """Three convolutions with normalisation and pools, dropout and a linear layer, by Adam: see `examples`."""
    widths, hidden, batch, step = WIDTHS, HIDDEN, BATCH, 5e-5
    n = batch * batches

    def prepare(n_threads: int) -> Prepared:
        rng = np.random.default_rng(0)
        y = rng.integers(CLASSES, size=n)
        X = rng.normal(size=(n, 3, 32, 32)).astype(np.float32)
        X += rng.normal(size=(CLASSES, 3, 1, 1)).astype(np.float32)[y]
        model = ConvNetClassifier(
            hidden_layers(widths, hidden), learning_rate_init=step, alpha=0, batch_size=batch, max_iter=1, tol=None,
            random_state=0, n_jobs=n_threads,
        )  # fmt: skip

        def ours() -> float:
            return float(model.fit(X, y).history_["train_loss"][-1])

        def judge(own: float, other: float) -> str | None:
            return None if abs(own - other) <= 0.15 * own else f"its loss is {other:.3f}, ours {own:.3f}"

        def torch() -> Peer:
            ways = dict(_torch_convolutional(X, y, widths, hidden, batch, step, n_threads))
            return Peer(ways, judge)

        return Prepared(ours, {"torch": torch})

    size = f"an epoch of {n:,} images, batches of {batch}"
    return Job("ConvNetClassifier 3×32×32, 64-128-256-512-10 float32", size, prepare)


def _torch_convolutional(
    X: Array, y: Array, widths: tuple[int, ...], hidden: int, batch: int, rate: float, n_threads: int
) -> Iterator[tuple[str, Call]]:
    """Yield PyTorch's ways of one epoch: how images lie; as it is or compiled."""
    torch = package("torch")
    torch.set_num_threads(n_threads)
    labels, loss = torch.from_numpy(y), torch.nn.CrossEntropyLoss()

    def way(layout: Any, compiled: bool) -> Call:
        parts: list[Any] = []
        for before, width in zip((3, *widths), widths, strict=False):
            parts += [torch.nn.Conv2d(before, width, 3, padding=1), torch.nn.BatchNorm2d(width), torch.nn.ReLU()]
            parts.append(torch.nn.MaxPool2d(2))
        parts += [torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(widths[-1] * 16, hidden), torch.nn.ReLU()]
        parts += [torch.nn.Dropout(0.5), torch.nn.Linear(hidden, CLASSES)]
        network = torch.nn.Sequential(*parts).to(memory_format=layout)
        images = torch.from_numpy(X).contiguous(memory_format=layout)

        def gap(x: Any, t: Any) -> Any:
            return loss(network(x), t)

        objective = torch.compile(gap) if compiled else gap
        descent = torch.optim.Adam(network.parameters(), lr=rate, fused=True)

        def step(chosen: Any) -> float:
            descent.zero_grad()
            value = objective(images[chosen].contiguous(memory_format=layout), labels[chosen])
            value.backward()
            descent.step()
            return float(value.detach())

        def call() -> float:
            torch.set_num_threads(n_threads)
            torch.manual_seed(1)
            for part in network.modules():
                if hasattr(part, "reset_parameters"):
                    part.reset_parameters()
            return float(np.mean([step(chosen) for chosen in torch.randperm(len(images)).split(batch)]))

        step(torch.arange(batch))  # compiles
        return call

    for name, layout in (("default", torch.contiguous_format), ("channels last", torch.channels_last)):
        yield f"{name} layout", way(layout, False)
        if torch_compiles():
            yield f"{name} layout, torch.compile", way(layout, True)


def _torch_settings(X: Array, y: Array, hidden: int, batch: int, n_threads: int) -> Iterator[tuple[str, Call]]:
    """Yield PyTorch's ways of one epoch: threads; plain or fused steps; as it is or compiled."""
    torch = package("torch")
    rows, labels = torch.from_numpy(X), torch.from_numpy(y)
    loss = torch.nn.CrossEntropyLoss()

    def way(threads: int, fused: bool, compiled: bool) -> Call:
        network = torch.nn.Sequential(
            torch.nn.Linear(PIXELS, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, CLASSES)
        )

        def gap(x: Any, t: Any) -> Any:
            return loss(network(x), t)

        objective = torch.compile(gap) if compiled else gap
        descent = torch.optim.SGD(network.parameters(), lr=STEP, fused=fused)

        def step(chosen: Any) -> None:
            descent.zero_grad()
            objective(rows[chosen], labels[chosen]).backward()
            descent.step()

        def call() -> list[tuple[Array, Array]]:
            torch.set_num_threads(threads)
            torch.manual_seed(1)
            for part in network[::2]:  # as ours begin
                torch.nn.init.xavier_uniform_(part.weight)
                torch.nn.init.zeros_(part.bias)
            for chosen in torch.randperm(len(rows)).split(batch):
                step(chosen)
            return [(part.weight.detach().numpy().T.copy(), part.bias.detach().numpy().copy()) for part in network[::2]]

        torch.set_num_threads(threads)
        step(torch.arange(batch))  # compiles
        return call

    for threads in sorted({1, n_threads}):
        yield f"{threads} threads", way(threads, False, False)
        yield f"{threads} threads, fused steps", way(threads, True, False)
        if torch_compiles():
            yield f"{threads} threads, fused steps, torch.compile", way(threads, True, True)


def _jax_settings(X: Array, y: Array, hidden: int, batch: int) -> Iterator[tuple[str, Call]]:
    """Yield JAX's ways of one epoch, which is one compiled function: how it comes to its batches."""
    jax = package("jax")
    jnp = jax.numpy
    rows, labels, sizes = jnp.asarray(X), jnp.asarray(y), (PIXELS, hidden, CLASSES)

    def loss(layers: Any, x: Any, t: Any) -> Any:
        (V, c), (W, b) = layers
        z = jax.nn.relu(x @ V + c) @ W + b
        return -jax.nn.log_softmax(z)[jnp.arange(batch), t].mean()

    def step(layers: Any, x: Any, t: Any) -> Any:
        slopes = jax.grad(loss)(layers, x, t)
        return jax.tree.map(lambda weights, slope: weights - STEP * slope, layers, slopes), None

    def gathered(layers: Any, order: Any, rows: Any, labels: Any) -> Any:
        parts = rows[order].reshape(-1, batch, PIXELS), labels[order].reshape(-1, batch)
        return jax.lax.scan(lambda now, part: step(now, *part), layers, parts)[0]

    def indexed(layers: Any, order: Any, rows: Any, labels: Any) -> Any:
        parts = order.reshape(-1, batch)
        return jax.lax.scan(lambda now, part: step(now, rows[part], labels[part]), layers, parts)[0]

    def way(epoch: Callable[..., Any]) -> Call:
        compiled = jax.jit(epoch)

        def call() -> list[tuple[Array, Array]]:
            rng = np.random.default_rng(1)
            begin = []
            for before, width in itertools.pairwise(sizes):  # as ours begin
                most = (6 / (before + width)) ** 0.5
                begin.append(
                    (rng.uniform(-most, most, (before, width)).astype(np.float32), np.zeros(width, np.float32))
                )
            layers = jax.block_until_ready(compiled(begin, rng.permutation(len(X)), rows, labels))
            return [(np.asarray(W), np.asarray(b)) for W, b in layers]

        return call

    yield "scan over batches, gathered before", way(gathered)
    yield "scan over batches, gathered one by one", way(indexed)
