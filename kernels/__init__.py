r"""Compiled kernels on arrays: distances, neighbours, losses and their gradients.

How the modules stand on each other::

    distances  neighbors    logistic  regression  margin  multinomial   linear   training  network    public, by family
         \      /                \      |        /    \       |       /    \        |         |
          _blocks                   _pointwise          _rowwise      _products _descent  _backprop   panels, loops
             |                           |                  |             |     |      \   /     |
           _simd                      _losses             _math         _simd _stacks  _team  _layers  tiles, threads
                                         |
                                       _math                                                          functions
    _jit (how to compile, on _live_code and _cache_files), _validate (arguments), _threads: used by all

``convolution`` stands on `_sequence`, that on `_image_works`, and that on `_conv`, `_image_layers` and `_grids`.

No module bears the name of a function, so that ``kernels.softmax`` is always the function.

A public function settles its arguments once (`_validate`: dtype, layout, shapes, labels), decides how
many threads pay (`_threads`) and calls one compiled kernel on blocks. Kernels assume; they check nothing.

Every public function has two readable twins of the same name and signature (less ``n_threads``) in
`reference.loops` and `reference.vectorized`; `catalogue` lists all of them with inputs, sizes, units of
work and error bounds.

Threads. ``n_threads=None`` means the smallest of CPU affinity, cgroup quota, ``NUMBA_NUM_THREADS`` and
``OMP_NUM_THREADS``. Small calls stay in the calling thread. Results have the same bits for any number of
threads, and no call changes any global state.

Compilation happens at a kernel's first call for a dtype, and is kept on disk (`_jit`);
``python -m fastml warmup`` does all of it beforehand.
"""

from __future__ import annotations

from importlib import import_module
from threading import RLock
from typing import TYPE_CHECKING, Any

_FAMILIES = {
    "distances": ("pairwise_l1", "pairwise_l2", "pairwise_linf"),
    "neighbors": ("k_nearest",),
    "logistic": ("exp", "sigmoid", "softplus", "binary_cross_entropy", "binary_cross_entropy_gradient"),
    "multinomial": ("softmax", "log_softmax", "logsumexp", "softmax_cross_entropy", "softmax_cross_entropy_gradient"),
    "margin": (
        "hinge",
        "hinge_gradient",
        "squared_hinge",
        "squared_hinge_gradient",
        "multiclass_hinge",
        "multiclass_hinge_gradient",
    ),
    "regression": (
        "squared_error",
        "squared_error_gradient",
        "absolute_error",
        "absolute_error_gradient",
        "huber",
        "huber_gradient",
    ),
    "linear": ("linear_loss_gradient",),
    "training": ("linear_evaluation", "train_linear"),
    "network": ("network_loss_gradient", "network_scores", "train_network"),
    "convolution": (
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
_HOME = {name: family for family, names in _FAMILIES.items() for name in names}

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
    from .convolution import *  # noqa: F403
    from .distances import *  # noqa: F403
    from .linear import *  # noqa: F403
    from .logistic import *  # noqa: F403
    from .margin import *  # noqa: F403
    from .multinomial import *  # noqa: F403
    from .neighbors import *  # noqa: F403
    from .network import *  # noqa: F403
    from .regression import *  # noqa: F403
    from .training import *  # noqa: F403
