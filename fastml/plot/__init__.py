"""Plots of results, with matplotlib (the extra ``plot``).

Every function draws into the axes it is given, or into new ones, and returns them: titles, limits and files
are the caller's business. matplotlib is imported by the first plot, not by this module.

Colours are told apart by the colour-blind, and by their lightness, dashes or markers without any colour.
"""

from ._confusion import confusion_matrix
from ._curves import cross_validation, learning_curves, score_against, sweep
from ._images import misclassified, weights_as_images

__all__ = [
    "confusion_matrix",
    "cross_validation",
    "learning_curves",
    "misclassified",
    "score_against",
    "sweep",
    "weights_as_images",
]
