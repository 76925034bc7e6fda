"""Linear support vector machines that end at a stated duality gap."""

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_names

if TYPE_CHECKING:
    from ._linear_svc import LinearSVC as LinearSVC

__all__ = ["LinearSVC"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "LinearSVC": "_linear_svc",
    },
)
