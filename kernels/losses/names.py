"""The table of losses: what there is, and what each asks of its target."""

from __future__ import annotations

from ..arguments.scalars import listed

# The losses that `linear_loss_gradient` knows, with what each asks of its target. "class" losses
# have one score per class (W is (C, D)), the others one score per row (W is (D,)).
LOSSES: dict[str, str] = {
    "binary_cross_entropy": "probability",
    "softmax_cross_entropy": "class or probabilities",
    "hinge": "sign",
    "squared_hinge": "sign",
    "multiclass_hinge": "class",
    "squared_error": "real",
    "absolute_error": "real",
    "huber": "real",
}


#: Losses of networks.
NETWORK_LOSSES = ("softmax_cross_entropy", "binary_cross_entropy", "squared_error")


def target_of(loss: object) -> str:
    """Return what the loss of that name asks of its target."""
    if not isinstance(loss, str):
        raise TypeError(f"loss is a {type(loss).__name__}; it must be a str, one of {listed(LOSSES)}")
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; it must be one of {listed(LOSSES)}")
    return LOSSES[loss]
