"""Models whose score is linear: least squares, logistic regression, stochastic gradient descent."""

from typing import TYPE_CHECKING

from ..utils.lazy import lazy_names

if TYPE_CHECKING:
    from ._least_squares import LinearRegression as LinearRegression
    from ._least_squares import Ridge as Ridge
    from ._logistic import LogisticRegression as LogisticRegression
    from ._stochastic_gradient import SGDClassifier as SGDClassifier
    from ._stochastic_gradient import SGDRegressor as SGDRegressor

__all__ = ["LinearRegression", "LogisticRegression", "Ridge", "SGDClassifier", "SGDRegressor"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "LinearRegression": "_least_squares",
        "LogisticRegression": "_logistic",
        "Ridge": "_least_squares",
        "SGDClassifier": "_stochastic_gradient",
        "SGDRegressor": "_stochastic_gradient",
    },
)
