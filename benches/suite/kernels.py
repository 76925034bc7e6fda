"""Every catalogue entry, in each of its tiers, dtypes and sizes: one class per entry."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from .common import Settings, called, catalogue, n_threads, needed, one_blas_thread

#: Name in the table -> tier of the catalogue.
_TIERS = {"loop": "loops", "vectorised": "vectorized", "JIT, 1 thread": "compiled", "JIT, all threads": "compiled"}
#: The size for the plain loops, beside the named ones.
_LOOP = "loop"
#: Comparing with the truth takes long double arithmetic.
_NOT_CHECKED = "full"


class _Kernel(Settings):
    key = ""
    call: Callable[[], Any]
    param_names = ("tier", "dtype", "size")

    def setup(self, tier: str, dtype: str, size: str) -> None:
        entry = catalogue.ENTRIES[self.key]
        if tier == "loop" and size not in ("tiny", _LOOP):
            raise NotImplementedError("plain loops would take minutes to hours")
        if tier == "JIT, all threads" and n_threads() == 1:
            raise NotImplementedError("there is one thread")
        function = needed(lambda: entry.tier(_TIERS[tier]))
        inputs = entry.make(entry.loop_size if size == _LOOP else entry.sizes[size], dtype)
        threads = n_threads() if tier == "JIT, all threads" else 1
        more = {"n_threads": threads} if _TIERS[tier] == "compiled" else {}
        self.blas = one_blas_thread()
        self.inputs = inputs
        self.call = lambda: function(*inputs.args, **inputs.kwargs, **more)
        called(self.call)

    def time_call(self, tier: str, dtype: str, size: str) -> None:
        self.call()

    def track_error(self, tier: str, dtype: str, size: str) -> float:
        """Largest error in units of the catalogue's bound; at most 1 is right."""
        if size == _NOT_CHECKED:
            return math.nan
        entry = catalogue.ENTRIES[self.key]
        return float(catalogue.check(entry, self.call(), entry.reference(self.inputs), dtype))

    track_error.unit = "times the bound"  # type: ignore[attr-defined]


def _class(key: str) -> type[_Kernel]:
    entry = catalogue.ENTRIES[key]
    sizes = ["tiny", _LOOP, *(size for size in entry.sizes if size != "tiny")]
    members: dict[str, Any] = {
        "key": key,
        "params": ([*_TIERS], [*entry.dtypes], sizes),
        "__module__": __name__,
        "__doc__": f"{key}: {entry.formula}.",
    }
    return type(_name(key), (_Kernel,), members)


def _name(key: str) -> str:
    """Return ``KNearestL1`` for ``k_nearest[l1]``."""
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^0-9A-Za-z]+", key))


globals().update({_name(key): _class(key) for key in catalogue.ENTRIES})
