r"""Compiled kernels on arrays: distances, neighbours, losses and their gradients.

The rooms, lowest first: `runtime` (how kernels are compiled, kept and shared among threads) and `arguments`
(what comes in), `simd` (vector code), then the mathematics: `distances` and `losses`, on these `linear` and
`networks`, on these `convolution`. `reference` has every public function in two readable forms, `catalogue` lists
them with inputs, sizes, units of work and error bounds. A room imports from lower ones only, and an underscore
means "this room only".

A public function settles its arguments once (`arguments`: dtype, layout, shapes, labels), decides how
many threads pay (`runtime.parallel`) and calls one compiled kernel on blocks. Kernels assume; they check nothing.

Threads. ``n_threads=None`` means the smallest of CPU affinity, cgroup quota, ``NUMBA_NUM_THREADS`` and
``OMP_NUM_THREADS``. Small calls stay in the calling thread. Results have the same bits for any number of
threads, and no call changes any global state.

Compilation happens at a kernel's first call for a dtype, and is kept on disk (`runtime.jit`);
``python -m fastml warmup`` does all of it beforehand.
"""

from __future__ import annotations

from importlib import import_module
from threading import RLock
from typing import TYPE_CHECKING, Any

from .losses.table import functions_of

#: The module of every public function. What the families of losses have says the table of losses: a loss and its
#: gradient each, such as `huber` and `huber_gradient` in `losses/regression.py`.
_FUNCTIONS = {
    "distances.pairwise": ("pairwise_l1", "pairwise_l2", "pairwise_linf"),
    "neighbors.argmin": ("pairwise_argmin", "pairwise_argmin_min"),
    "neighbors.nearest": ("k_nearest",),
    "neighbors.radius": ("radius_counts", "radius_neighbors"),
    "losses.elementwise": ("exp", "sigmoid", "softplus"),
    "losses.logistic": functions_of("logistic"),
    "losses.multinomial": ("softmax", "log_softmax", "logsumexp", *functions_of("multinomial")),
    "losses.margin": functions_of("margin"),
    "losses.regression": functions_of("regression"),
    "linear.gradient": ("linear_loss_gradient",),
    "linear.training": ("linear_evaluation", "train_linear"),
    "networks.functions": ("network_loss_gradient", "network_scores", "train_network"),
    "convolution.functions": (
        "conv2d",
        "conv2d_gradient",
        "max_pool2d",
        "max_pool2d_gradient",
        "avg_pool2d",
        "avg_pool2d_gradient",
        "batch_norm",
        "batch_norm_gradient",
    ),
}
#: Names beside them that are no kernels: they have no twins.
_OTHERS = {"neighbors.prepared": ("PreparedRows", "prepare")}
_HOME = {name: module for module, names in (_FUNCTIONS | _OTHERS).items() for name in names}

__all__ = sorted([*_HOME, "catalogue", "reference"])


# Threads that import different modules at the same time can wait for one another in a circle, which
# Python resolves by handing out half-made modules.
_importing = RLock()


def __getattr__(name: str) -> Any:
    if name not in _HOME and name not in ("catalogue", "reference"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _importing:
        module = import_module(f".{_HOME.get(name, name)}", __name__)
    value = getattr(module, name) if name in _HOME else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if TYPE_CHECKING:
    from . import catalogue as catalogue
    from . import reference as reference
    from .convolution.functions import *  # noqa: F403
    from .distances.pairwise import *  # noqa: F403
    from .linear.gradient import *  # noqa: F403
    from .linear.training import *  # noqa: F403
    from .losses.elementwise import *  # noqa: F403
    from .losses.logistic import *  # noqa: F403
    from .losses.margin import *  # noqa: F403
    from .losses.multinomial import *  # noqa: F403
    from .losses.regression import *  # noqa: F403
    from .neighbors.argmin import *  # noqa: F403
    from .neighbors.nearest import *  # noqa: F403
    from .neighbors.prepared import *  # noqa: F403
    from .neighbors.radius import *  # noqa: F403
    from .networks.functions import *  # noqa: F403
