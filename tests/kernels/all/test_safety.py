"""Kernels in programs that use threads and processes themselves.

Everything with fork or with many threads that compile runs in a process of its own, with a time limit: what may go
wrong here is a process that hangs or dies.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable

import numpy as np
import pytest

from checkout import run_python
from fastml import kernels
from fastml.kernels.runtime import parallel

pytestmark = [pytest.mark.safety, pytest.mark.needs_jit]

HAS_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

# A few kernels that stand for all: tiles, heaps, sums of blocks, a pass over X; serial and on the pool.
SETUP = """
import json, multiprocessing, os, sys, threading, warnings
import numpy as np
from fastml import kernels
warnings.simplefilter("ignore")  # Python warns of fork in a process with threads, rightly

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(700, 40)).astype("f4"), rng.normal(size=(900, 40)).astype("f4")
z, y, w = rng.normal(size=200_000), rng.choice([-1.0, 1.0], 200_000), rng.normal(size=40).astype("f4")

def work(n_threads=None):
    loss, dW, db = kernels.linear_loss_gradient("squared_error", X, X[:, 0], w, 0.5, n_threads=n_threads)
    results = [
        kernels.pairwise_l1(X, Y, n_threads=n_threads),
        *kernels.k_nearest(X, Y, 3, n_threads=n_threads),
        np.float64(kernels.hinge(z, y, n_threads=n_threads)),
        kernels.sigmoid(z, n_threads=n_threads),
        np.float64(loss), dW, np.float64(db),
    ]
    return b"".join(np.ascontiguousarray(result).tobytes() for result in results)

def forked(function):
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        status = 1
        try:
            os.close(read)
            with os.fdopen(write, "wb") as stream:
                stream.write(function())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        content = stream.read()
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"
    return content
"""


def found_by(code: str, timeout: float = 240, **changes: str) -> dict:
    """Run `code` after SETUP in a fresh process; return the JSON object on its last line."""
    return json.loads(run_python(SETUP + code, timeout=timeout, **changes).splitlines()[-1])


# --------------------------------------------------------------------------------------- threads


def in_threads(function: Callable[[int], object], count: int = 8) -> list[object]:
    """Call ``function(number)`` in `count` threads that start together; an error in any of them is raised here."""
    results: list[object] = [None] * count
    errors: list[BaseException] = []
    together = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            together.wait(60)
            results[number] = function(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
    return results


def test_an_error_in_one_of_the_threads_surfaces():
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda number: 1 / (number - 5))


@pytest.mark.parametrize("n_threads", [None, 1, 2, 8])
def test_eight_threads_get_what_one_gets(n_threads, rng, same_bits):
    X = rng.normal(size=(8, 300, 33)).astype("f4")
    Y = rng.normal(size=(500, 33)).astype("f4")
    Z, labels = rng.normal(size=(8, 3000, 10)), rng.integers(0, 10, 3000)
    W, b = rng.normal(size=(10, 10)), np.zeros(10)

    def work(number: int) -> list[np.ndarray]:
        results = []
        for _ in range(5):
            results += [kernels.pairwise_l2(X[number], Y, n_threads=n_threads)]
            results += kernels.k_nearest(X[number], Y, 4, metric="linf", n_threads=n_threads)
            results += kernels.softmax_cross_entropy_gradient(Z[number], labels, n_threads=n_threads)
            results += [kernels.softplus(Z[number], n_threads=n_threads)]
            results += kernels.linear_loss_gradient("multiclass_hinge", Z[number], labels, W, b, n_threads=n_threads)
        return [np.asarray(result) for result in results]

    alone = [work(number) for number in range(8)]
    for got, want in zip(in_threads(work), alone, strict=True):
        for one, other in zip(got, want, strict=True):
            same_bits(one, other)


def test_errors_of_one_thread_do_not_disturb_the_others(rng, same_bits):
    X = rng.normal(size=(400, 20))
    want = kernels.pairwise_l1(X)

    def work(number: int) -> None:
        for _ in range(10):
            if number % 2:
                with pytest.raises(ValueError, match="columns"):
                    kernels.pairwise_l1(X, X[:, 1:], n_threads=4)
                with pytest.raises(TypeError, match="n_threads"):
                    kernels.pairwise_l1(X, n_threads="4")
            else:
                same_bits(kernels.pairwise_l1(X, n_threads=4), want)

    in_threads(work)


def test_threads_write_into_their_own_parts_of_one_array(rng, same_bits):
    X, Y = rng.normal(size=(800, 20)), rng.normal(size=(300, 20))
    out = np.empty((800, 300))
    in_threads(lambda i: kernels.pairwise_linf(X[100 * i : 100 * (i + 1)], Y, out=out[100 * i : 100 * (i + 1)]))
    same_bits(out, kernels.pairwise_linf(X, Y))


def test_no_call_changes_global_state(rng):
    import numba

    before = numba.get_num_threads(), dict(os.environ), np.geterr(), threading.active_count()
    X = rng.normal(size=(600, 50))
    for n_threads in (1, 2, 5):
        kernels.k_nearest(X, X, 3, n_threads=n_threads)
        kernels.exp(np.full(300_000, 1e4), n_threads=n_threads)
    assert (numba.get_num_threads(), dict(os.environ), np.geterr()) == before[:3]
    assert threading.active_count() <= before[3] + 4, "the pool has as many threads as were asked for at once"


@pytest.mark.slow
def test_eight_threads_compile_for_the_first_time_together(tmp_path):
    """One name at a time and all at once: every thread needs code that nobody has yet."""
    found = found_by(
        """
errors, results = [], []
together = threading.Barrier(8)
calls = [
    lambda: kernels.exp(np.zeros(4)).tolist(),
    lambda: kernels.sigmoid(np.zeros(4, "f4")).tolist(),
    lambda: kernels.hinge([0.5], [1]),
    lambda: kernels.squared_error([1.0], [0.0]),
]
def caller(number):
    try:
        together.wait(60)
        results.append(sorted((place, calls[place]()) for place in np.roll(range(4), number // 2).tolist()))
    except BaseException as error:
        errors.append(repr(error))
threads = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
from fastml.kernels.runtime import jit
print(json.dumps({"errors": errors, "results": results, "misses": sum(c["misses"] for c in jit.stats().values())}))
""",
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    assert found["errors"] == []
    assert found["results"] == [[[0, [1.0] * 4], [1, [0.5] * 4], [2, 0.5], [3, 0.5]]] * 8
    # Misses count what the threads found missing; the cache holds each piece of code once.
    assert len(list(tmp_path.rglob("*.bin"))) == 4
    assert found["misses"] >= 4


# ----------------------------------------------------------------------------------------- fork


@HAS_FORK
@pytest.mark.slow
def test_use_before_and_after_fork():
    found = found_by(
        """
first = forked(work)                              # the child is the first to use anything
parent = work()
found = {
    "child first": first == parent,
    "child after": forked(work) == parent,        # the pool's threads of the parent do not exist in the child
    "child, 8 threads": forked(lambda: work(8)) == parent,
    "grandchild": forked(lambda: forked(work)) == parent,
    "parent again": work(2) == parent,
}
# Children forked while other threads of the parent are at work.
stop = threading.Event()
def busy():
    while not stop.is_set():
        work(2)
threads = [threading.Thread(target=busy) for _ in range(3)]
[thread.start() for thread in threads]
try:
    found["forked in the middle"] = [forked(work) == parent for _ in range(5)]
finally:
    stop.set()
    [thread.join() for thread in threads]
print(json.dumps(found))
"""
    )
    assert found.pop("forked in the middle") == [True] * 5
    assert found == dict.fromkeys(found, True)


@HAS_FORK
@pytest.mark.slow
def test_fork_while_another_thread_compiles(tmp_path):
    """The child inherits the compiler's lock, but not the thread that holds it."""
    found = found_by(
        """
from numba.core.compiler_lock import global_compiler_lock
kernels.exp, kernels.hinge  # loads the modules: an import must not be forked in the middle either
started = threading.Event()
def compiling():
    with global_compiler_lock:
        started.set()
        kernels.hinge([0.5], [1])
        threading.Event().wait(0.3)
thread = threading.Thread(target=compiling)
thread.start()
started.wait(60)
child = forked(lambda: kernels.exp(np.zeros(2)).tobytes())
thread.join()
print(json.dumps({"child": np.frombuffer(child).tolist()}))
""",
        timeout=120,
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    assert found == {"child": [1.0, 1.0]}


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [pytest.param("fork", marks=HAS_FORK), "spawn", pytest.param("forkserver", marks=HAS_FORK)]
)
def test_multiprocessing(method):
    found = found_by(
        f"""
parent = kernels.pairwise_l1(X, Y)
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    with context.Pool(2) as pool:
        parts = pool.starmap(kernels.pairwise_l1, [(part, Y) for part in np.array_split(X, 4)])
    print(json.dumps({{"same": np.concatenate(parts).tobytes() == parent.tobytes()}}))
"""
    )
    assert found["same"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_joblib(backend):
    pytest.importorskip("joblib")
    found = found_by(
        f"""
from joblib import Parallel, delayed
from fastml.kernels.runtime import parallel
parent = kernels.k_nearest(X, Y, 3)
kernels.exp(z, n_threads=2)
with Parallel(n_jobs=2, backend={backend!r}) as pool:
    parts = pool(delayed(kernels.k_nearest)(part, Y, 3) for part in np.array_split(X, 4))
    counts = pool(delayed(parallel.default)() for _ in range(4))
same = all(np.concatenate(side).tobytes() == whole.tobytes() for side, whole in zip(zip(*parts), parent))
print(json.dumps({{"same": same, "threads": max(count for count, _ in counts), "cpus": parallel.default()[0]}}))
"""
    )
    assert found["same"]
    if backend == "loky":
        # The pool tells its workers to share the CPUs, and they do.
        assert found["threads"] <= max(1, found["cpus"] // 2)


def test_the_limit_of_a_worker_is_obeyed(monkeypatch, rng):
    """What joblib sets for its workers keeps the pool out of a default call."""
    asked = []
    monkeypatch.setattr(parallel, "submit", lambda work, n_helpers: asked.append(n_helpers))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    X = rng.normal(size=(600, 50))
    kernels.k_nearest(X, X, 3)
    kernels.exp(np.zeros(300_000))
    assert asked == []
    kernels.exp(np.zeros(300_000), n_threads=2)
    assert asked == [1]
