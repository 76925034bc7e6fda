"""``python -m fastml warmup``: compile every kernel, of the catalogue and of the models, into the cache."""

from __future__ import annotations

import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ..kernels.catalogue import Entry

#: By module, the names of kernels and the types of their arguments.
Forms = dict[str, set[tuple[str, Any]]]

# More processes than this gain little: each compiles the helpers it meets for itself.
_MOST_JOBS = 4


class Outcome(NamedTuple):
    """What became of one catalogue entry, or of one model."""

    key: str
    seconds: float
    compiled: bool
    error: str | None

    @property
    def state(self) -> str:
        """One word for the table."""
        return "failed" if self.error else "compiled" if self.compiled else "cached"


def _fit_logistic_regression(dtype: str) -> None:
    """Fit few and many classes, and float32 rows so many that passes compute in it."""
    from sklearn.exceptions import ConvergenceWarning

    from fastml import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for n, columns in ((50, 4), (1 << 15, 65)):
            X, y = _rows(n, columns, dtype)
            for classes in (2, 3):
                LogisticRegression(max_iter=1, n_jobs=2).fit(X, y % classes)
        for n, columns in ((50, 4), (6, 40)):  # with products of columns, and without
            X, y = _rows(n, columns, dtype)
            LogisticRegression(l1_ratio=0.5, C=100.0, max_iter=1, n_jobs=2).fit(X, y % 2)


def _fit_sgd_classifier(dtype: str) -> None:
    """Fit a few rows in random order; what trains them is in the catalogue."""
    from fastml import SGDClassifier

    X, y = _rows(50, 4, dtype)
    SGDClassifier(max_iter=1, tol=None, random_state=0).fit(X, y % 2)


def _fit_knn_imputer(dtype: str) -> None:
    """Fill in a few values."""
    import numpy as np

    from fastml import KNNImputer

    X, _ = _rows(50, 4, dtype)
    KNNImputer().fit_transform(np.where(X > 1, np.nan, X))


def _fit_linear_svc(dtype: str) -> None:
    """Fit the primal and the dual of all forms, and float32 rows so many that passes compute in it."""
    from sklearn.exceptions import ConvergenceWarning

    from fastml import LinearSVC

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        few, many = _rows(50, 4, dtype), _rows(1 << 15, 65, dtype)
        for loss in ("hinge", "squared_hinge"):
            LinearSVC(loss=loss, dual=True, max_iter=1, n_jobs=2).fit(*few)
            LinearSVC(loss=loss, max_iter=1, n_jobs=2).fit(*few)
            LinearSVC(loss=loss, max_iter=1, n_jobs=2).fit(*many)
        LinearSVC(multi_class="crammer_singer", max_iter=1, n_jobs=2).fit(*few)


def _fit_ridge(dtype: str) -> None:
    """Predict one target and several of rows in both orders, as all models with linear scores do."""
    import numpy as np

    from fastml import Ridge

    X, y = _rows(50, 4, dtype)
    for targets in (y.astype(dtype), X[:, :2]):
        model = Ridge(n_jobs=2).fit(X, targets)
        for rows in (X, np.asfortranarray(X)):
            model.predict(rows)


def _fit_conv_net(dtype: str) -> None:
    """Fit one batch with all layers, also on bytes."""
    import numpy as np

    from fastml import ConvNetClassifier, layers

    X = np.arange(6 * 9 * 9).reshape(6, 1, 9, 9) % 7
    listed = [
        layers.Dropout(), layers.Conv2D(4), layers.BatchNorm(), layers.ReLU(), layers.AvgPool2D(),
        layers.Conv2D(4, stride=2), layers.MaxPool2D(), layers.Conv2D(4), layers.Linear(4), layers.Dropout(),
    ]  # fmt: skip
    for images in (X.astype(dtype), *[X.astype(np.uint8)] * (dtype == "float32")):
        ConvNetClassifier(listed, max_iter=1, tol=None, random_state=0, n_jobs=2).fit(images, [0, 1, 2] * 2)


def _rows(n: int, columns: int, dtype: str) -> tuple[Any, Any]:
    """Make rows and labels of six classes."""
    import numpy as np

    random = np.random.default_rng(0)
    return random.standard_normal((n, columns), np.float64).astype(dtype), np.arange(n) % 6


#: Models with kernels of their own, which no entry of the catalogue calls: fits that reach all of them.
MODELS: dict[str, Callable[[str], None]] = {
    "ConvNetClassifier": _fit_conv_net,
    "KNNImputer": _fit_knn_imputer,
    "LinearSVC": _fit_linear_svc,
    "LogisticRegression": _fit_logistic_regression,
    "Ridge": _fit_ridge,
    "SGDClassifier": _fit_sgd_classifier,
}


#: Models that share most of their machine code with another model, or with the entries of a function.
_TRAINED_AS = {"LinearSVC": "LogisticRegression", "SGDClassifier": "train_linear"}


def of_some_kinds() -> Forms:
    """Return the forms that are called on some kinds of CPU only, so that calls on another do not show them."""
    from numba.core.types import Array, int64, uint8

    return {"fastml.kernels.distances.panels": {("distances.panels._write_norms", (Array(uint8, 2, "C"), int64))}}


def kernels_of_other_targets() -> set[str]:
    """Name the kernels that nothing here reaches on Numba's target, as `jit.stats` names them."""
    import numpy as np

    from fastml.kernels.distances import tile_shapes

    # Squared distances of bytes, or of rounded rows, are made from products only where the target multiplies bytes.
    if tile_shapes.norm_steps(np.dtype(np.uint8)) or tile_shapes.norm_steps(tile_shapes.rounded_dtype("l2")):
        return set()
    return {name for forms in of_some_kinds().values() for name, _ in forms}


def main(*, only: str | None = None, jobs: int | None = None, how: Callable[..., list[Outcome]] | None = None) -> int:
    """Warm up, print the table and return the exit code: 0, or 1 if an entry failed.

    `how` does the work for keys in a number of processes: `run`, if it is not given.
    """
    from fastml.kernels.catalogue import ENTRIES, select
    from fastml.kernels.runtime import jit, parallel

    if not jit.jit_enabled():
        return _refuse("nothing to compile: Numba's JIT is switched off (NUMBA_DISABLE_JIT)")
    cache = jit.cache_info()
    if not cache.writable:
        return _refuse(f"nowhere to keep compiled kernels: {cache.path or 'no cache folder'}: {cache.reason}")
    names = [*ENTRIES, *MODELS]
    keys = select(names, only)
    if not keys:
        return _refuse(f"no entry matches {only!r}; there are: {', '.join(names)}")

    jobs = _possible(min(jobs or min(parallel.default()[0], _MOST_JOBS), len(keys)))
    start = time.perf_counter()
    outcomes = (how or run)(keys, jobs)
    print(render(outcomes, time.perf_counter() - start, jobs))
    print(f"cache: {cache.path} ({cache.reason})")
    return 1 if any(outcome.error for outcome in outcomes) else 0


def run(keys: list[str], jobs: int, *, dtypes: tuple[str, ...] | None = None, silent: bool = False) -> list[Outcome]:
    """Warm up `keys` in `jobs` processes, under a progress bar; outcomes come in the order of `keys`.

    `dtypes` says which input dtypes of catalogue entries: all of each by default.
    """
    return run_each(partial(warm, dtypes=dtypes) if dtypes else warm, keys, jobs, silent=silent)


def run_each(
    what: Callable[[str], Outcome],
    keys: list[str],
    jobs: int,
    *,
    silent: bool = False,
    first: Callable[[], None] | None = None,
) -> list[Outcome]:
    """Do `what` for each of `keys` in processes that begin with `first`, as `run` does."""
    from tqdm import tqdm

    outcomes = {}
    # The bar goes to stderr, and only to a terminal.
    with tqdm(total=len(keys), unit="kernel", disable=silent or None) as bar:
        for outcome in _outcomes(what, keys, _possible(jobs), first):
            outcomes[outcome.key] = outcome
            bar.set_postfix_str(outcome.key)
            bar.update()
    return [outcomes[key] for key in keys]


def _possible(jobs: int) -> int:
    """Return how many processes can work side by side: one, where there is no memory that they could share."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except (ImportError, OSError):
        return 1
    return jobs


def _outcomes(
    what: Callable[[str], Outcome], keys: list[str], jobs: int, first: Callable[[], None] | None
) -> Iterator[Outcome]:
    if jobs == 1:
        if first:
            first()
        yield from map(what, keys)
        return
    others = set(multiprocessing.active_children())
    # A forked child of a process that has Numba's compiler in it is a gamble; a fresh one is not.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=first) as pool:
        pending: dict[Future[list[Outcome]], list[str]] = {
            pool.submit(_each, what, group): group for group in of_one_code(keys)
        }
        try:
            for future in as_completed(pending):
                try:
                    yield from future.result()
                except Exception as error:  # the worker died: the compiler took the process with it
                    yield from (Outcome(key, 0.0, False, one_line(error)) for key in pending[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()  # what they have written is whole
            raise


def of_one_code(keys: list[str]) -> list[list[str]]:
    """Group what shares machine code, which two processes would both compile; what takes longest comes first."""
    from fastml.kernels.catalogue import ENTRIES

    groups: dict[str, list[str]] = {}
    for key in keys:
        entry = ENTRIES.get(key)
        if entry is None:
            group = _TRAINED_AS.get(key, key)
        else:
            group = entry.function if entry.family == "training" else entry.family
        groups.setdefault(group, []).append(key)
    return list(groups.values())[::-1]


def _each(what: Callable[[str], Outcome], keys: list[str]) -> list[Outcome]:
    return [what(key) for key in keys]


def warm(key: str, dtypes: tuple[str, ...] | None = None) -> Outcome:
    """Call one entry's compiled kernel, or fit one model, for each input dtype, on sizes that reach all its code."""
    from fastml.kernels.catalogue import ENTRIES
    from fastml.kernels.runtime import jit
    from fastml.kernels.runtime.compile_notice import silent

    def misses() -> int:
        return sum(counts["misses"] for counts in jit.stats().values())

    start = time.perf_counter()
    error = None
    before = misses()
    try:
        with silent():  # whoever warms up knows what they wait for
            if key in MODELS:
                for dtype in ("float32", "float64"):
                    MODELS[key](dtype)
            else:
                _call(ENTRIES[key], dtypes)
    except Exception as caught:  # one broken entry must not keep the others cold
        error = one_line(caught)
    return Outcome(key, time.perf_counter() - start, misses() > before, error or not_kept())


def not_kept() -> str | None:
    """Say so where a kernel was compiled in vain."""
    from fastml.kernels.runtime import jit

    reason = jit.not_kept()
    return f"not kept: {reason}" if reason else None


def _call(entry: Entry, dtypes: tuple[str, ...] | None) -> None:
    kernel = entry.tier("compiled")
    for dtype in dtypes or entry.dtypes:
        inputs = entry.make(entry.sizes["tiny"], dtype)
        kernel(*inputs.args, **inputs.kwargs)
        for inputs in entry.warm_inputs(dtype):
            kernel(*inputs.args, **inputs.kwargs, n_threads=2)


def render(outcomes: list[Outcome], seconds: float, jobs: int) -> str:
    """Lay out one line per entry, then the sum."""
    width = max(len("kernel"), *(len(outcome.key) for outcome in outcomes))
    lines = [f"{'kernel':<{width}}  {'state':<8}  {'seconds':>7}"]
    for outcome in outcomes:
        line = f"{outcome.key:<{width}}  {outcome.state:<8}  {outcome.seconds:7.2f}"
        lines.append(f"{line}  {outcome.error}" if outcome.error else line)
    states = [outcome.state for outcome in outcomes]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("compiled", "cached", "failed"))
    processes = "1 process" if jobs == 1 else f"{jobs} processes"
    lines.append(f"{len(outcomes)} entries: {counts}; {seconds:.1f} s in {processes}")
    return "\n".join(lines)


def one_line(error: BaseException) -> str:
    """Say what went wrong, for a table."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}".rstrip(": ")


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 1
