"""What all public functions have in common: names, signatures, global state, and the number of threads."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest

from losses_by_numpy import LOSSES


def test_global_state_is_left_alone(ops, rng):
    import numba

    def state():
        return (
            np.geterr(),
            np.geterrcall(),
            np.get_printoptions(),
            np.random.get_state()[1].tobytes(),  # noqa: NPY002 (the legacy generator is global state)
            numba.get_num_threads(),
            dict(os.environ),
            list(warnings.filters),
        )

    before = state()
    X = rng.normal(size=(40, 9)).astype(np.float32)
    X[0, 0], X[1, 1] = np.nan, np.inf
    extra = {"n_threads": 2} if ops.__name__ == "fastml.kernels" else {}
    ops.pairwise_l2(X, **extra)
    ops.k_nearest(X, X, 3, metric="linf", **extra)
    ops.softmax(X * 1e4, **extra)
    ops.exp(X * 1e4, **extra)
    ops.linear_loss_gradient("hinge", X, np.ones(40), X[2], 0.5, l2=1.0, **extra)
    ops.softmax_cross_entropy_gradient(X, np.arange(40) % 9, **extra)
    with pytest.raises(ValueError, match="y has"):
        ops.squared_error(X[:, 0], X[:3, 0])
    assert before == state()


def test_n_threads_none_is_the_smallest_limit_that_is_set(monkeypatch):
    from fastml.kernels.runtime import parallel

    def limits(affinity, quota, numba=None, omp=None):
        monkeypatch.setattr(parallel, "_affinity", lambda: affinity)
        monkeypatch.setattr(parallel, "_cgroup_quota", lambda: quota)
        for name, value in (("NUMBA_NUM_THREADS", numba), ("OMP_NUM_THREADS", omp)):
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        count, source = parallel.default()
        assert parallel.resolve(None) == count
        return count, source

    assert limits(8, None) == (8, "CPU affinity")
    assert limits(8, 3) == (3, "cgroup CPU quota")
    assert limits(8, 3, numba="2") == (2, "NUMBA_NUM_THREADS")
    assert limits(8, 3, numba="2", omp="1") == (1, "OMP_NUM_THREADS")
    assert limits(8, 3, numba="16", omp="16")[0] == 3
    assert limits(8, None, omp="4,2")[0] == 4  # nested OpenMP levels: the first is ours
    for meaningless in ("", "0", "-1", "many"):
        assert limits(8, None, omp=meaningless)[0] == 8
    assert parallel.resolve(5) == 5


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")
def test_n_threads_none_follows_the_affinity_of_the_process(monkeypatch):
    from fastml.kernels.runtime import parallel

    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    everything = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(everything)})
        assert parallel.default()[0] == 1
    finally:
        os.sched_setaffinity(0, everything)


def test_three_tiers_have_the_same_names_and_signatures(kernels_of):
    import inspect

    tiers = {tier: kernels_of(tier) for tier in ("loops", "vectorized", "compiled")}
    names = ["pairwise_l1", "pairwise_l2", "pairwise_linf", "k_nearest", "exp", "sigmoid", "softplus"]
    names += ["radius_neighbors", "radius_counts", "softmax", "log_softmax", "logsumexp"]
    names += [name for loss in LOSSES for name in (loss, f"{loss}_gradient")] + ["linear_loss_gradient"]
    for name in names:
        signatures = {}
        for tier, module in tiers.items():
            parameters = list(inspect.signature(getattr(module, name)).parameters.values())
            if tier == "compiled":
                last = parameters.pop()
                assert (last.name, last.default, last.kind) == ("n_threads", None, inspect.Parameter.KEYWORD_ONLY), name
            signatures[tier] = [(p.name, p.kind, p.default) for p in parameters]
        assert signatures["loops"] == signatures["vectorized"] == signatures["compiled"], name
