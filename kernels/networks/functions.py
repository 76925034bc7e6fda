"""Networks of fully connected layers: scores, loss and gradient, and training by mini-batches.

Parameters are one flat vector, as optimisers have them. The functions stand on `NetworkTraining` and `scores_of`.

Sums. Gradients are summed in the dtype of X over at most 256 rows, beyond that in float64; losses in float64. What is
summed in which order depends on the shapes alone: same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import arguments
from .scores import Norm, folded, scores_of
from .training import NetworkTraining

__all__ = ["network_loss_gradient", "network_scores", "train_network"]

Array = NDArray[Any]


def network_scores(
    X: ArrayLike,
    parameters: ArrayLike,
    units: Sequence[int],
    *,
    activation: str = "relu",
    batch_norm: bool = False,
    n_threads: int | None = None,
) -> Array:
    """Compute the scores of a network of fully connected layers.

    Parameters
    ----------
    X : array-like of shape (n, D)
        Rows. float16 and float32 are worked on as float32, all else as float64; the parameters are cast to that.
    parameters : array-like of shape (P,)
        Of each layer the weights (units, inputs), row by row, then the intercepts (units,).
    units : sequence of int
        D, the units of each hidden layer, and the number of scores C.
    activation : {"relu", "tanh", "logistic", "identity"}, default="relu"
        What the hidden layers do to their values.
    batch_norm : bool, default=False
        Whether the values of the hidden layers are normalised before that, by their running means and variances.
        `parameters` then has of each hidden layer the weights, shifts instead of intercepts, scales, running means and
        running variances: ``scale * (W a - mean) / sqrt(variance + 1e-5) + shift``.
    n_threads : int, optional
        Threads to use; None means all that this process may use.

    Returns
    -------
    ndarray of shape (n, C)
        Values of the last layer.

    Raises
    ------
    TypeError
        If an argument is not of real numbers, or `activation` no str.
    ValueError
        If shapes do not fit, or a value is not usable.

    Notes
    -----
    Cost: P multiply-adds for each row. A row's scores have the same bits whatever the other rows are. Work space: a
    copy of the parameters; per thread the values of all layers for up to 256 rows.

    Examples
    --------
    Four hidden units compute the larger of two numbers.

    >>> import numpy as np
    >>> from fastml.kernels import network_scores
    >>> hidden = np.array([[1, 1], [-1, -1], [1, -1], [-1, 1]])
    >>> output = np.array([[0.5, -0.5, 0.5, 0.5]])
    >>> parameters = np.concatenate([hidden.ravel(), np.zeros(4), output.ravel(), [0.0]])
    >>> network_scores([[3.0, 5.0], [-2.0, -7.0]], parameters, (2, 4, 1))
    array([[ 5.],
           [-2.]])
    """
    X, layers, norms = arguments.network_model(X, parameters, units, activation, batch_norm)
    weights, biases = zip(*layers, strict=True)
    inference = folded(weights, biases, [Norm(*norm) for norm in norms or []])
    return scores_of(X, *inference, activation=activation, n_threads=n_threads)


def network_loss_gradient(
    loss: str,
    X: ArrayLike,
    y: ArrayLike,
    parameters: ArrayLike,
    units: Sequence[int],
    *,
    activation: str = "relu",
    l2: float = 0.0,
    sample_weight: ArrayLike | None = None,
    batch_norm: bool = False,
    n_threads: int | None = None,
) -> tuple[float, Array]:
    """Compute the loss of a network plus ``l2 / 2 ‖W‖²``, and its gradient in all parameters.

    Parameters
    ----------
    loss : {"softmax_cross_entropy", "binary_cross_entropy", "squared_error"}
        Loss of a row; the latter two are summed over the scores. `squared_error` is half the square.
    X : array-like of shape (n, D)
        Rows. float16 and float32 are worked on as float32, all else as float64; all other arguments are cast to that.
    y : array-like of shape (n,) or (n, C)
        For softmax cross-entropy class indices (n,) or target probabilities (n, C); else a target for each score,
        in [0, 1] for binary cross-entropy; (n,) will do for one score.
    parameters : array-like of shape (P,)
        Of each layer the weights (units, inputs), row by row, then the intercepts (units,).
    units : sequence of int
        D, the units of each hidden layer, and the number of scores C.
    activation : {"relu", "tanh", "logistic", "identity"}, default="relu"
        What the hidden layers do to their values. The derivative of ReLU at 0 is 0.
    l2 : float, default=0.0
        Strength of the penalty on all weights; intercepts have none.
    sample_weight : array-like of shape (n,), optional
        Weights of the rows, not negative, not all zero: the loss is Σ w l / Σ w.
    batch_norm : bool, default=False
        Whether the values of the hidden layers are normalised over these rows before the activation; `parameters` as in
        `network_scores`. The gradient is 0 in running means and variances.
    n_threads : int, optional
        Threads to use, of which at most 8 work; None means all that this process may use.

    Returns
    -------
    loss : float
    gradient : ndarray of shape (P,)

    Raises
    ------
    TypeError
        If an argument is not of real numbers, labels are not integers, or `loss` or `activation` no str.
    ValueError
        If shapes do not fit, n is 0, or a value is not usable.

    Notes
    -----
    Cost: 3 P multiply-adds for each row. Sums over up to 256 rows are in the dtype of X, those over more in float64.
    Work space: a copy of the parameters, their gradient in float64, and the values of all layers for up to 256 rows;
    with `batch_norm` those of the hidden and the last layer for all rows.

    Source: D. E. Rumelhart, G. E. Hinton, R. J. Williams, "Learning representations by back-propagating errors" (1986).

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.kernels import network_loss_gradient
    >>> network_loss_gradient("squared_error", [[1.0], [2.0]], [0.0, 0.0], [1.0, 0.0], (1, 1))
    (1.25, array([2.5, 1.5]))
    """
    a = arguments.network(loss, X, y, parameters, units, activation, l2, sample_weight, batch_norm)
    weights, biases = zip(*a.layers, strict=True)
    training = NetworkTraining(
        loss, a.X, a.y, weights, biases, activation=activation, rule="gradient", sample_weight=a.weight,
        norms=_norms(a), n_threads=n_threads,
    )  # fmt: skip
    n = len(a.X)
    value = float(training.run(np.arange(n), n, 0.0)[0])
    parts, of_scales = [], training.scale_gradient()
    for (W, _), (dW, db), dscale in zip_longest(a.layers, training.gradient(), of_scales):
        if a.l2 > 0:
            value += float(a.l2) / 2 * float(np.sum(np.square(W, dtype=np.float64)))
            dW = dW + float(a.l2) * W
        parts += [dW.ravel(), db]
        if dscale is not None:
            parts += [dscale, np.zeros(2 * len(dscale))]
    return value, np.concatenate(parts).astype(a.X.dtype)


def train_network(
    loss: str,
    X: ArrayLike,
    y: ArrayLike,
    parameters: ArrayLike,
    units: Sequence[int],
    order: ArrayLike,
    *,
    batch_size: int,
    steps: ArrayLike,
    activation: str = "relu",
    l2: float = 0.0,
    momentum: float = 0.0,
    nesterov: bool = False,
    sample_weight: ArrayLike | None = None,
    batch_norm: bool = False,
    n_threads: int | None = None,
) -> tuple[Array, NDArray[np.float64]]:
    """Train a network by mini-batch gradient descent, on rows in a given order.

    The batches are ``X[order[:batch_size]]``, ``X[order[batch_size:2 * batch_size]]`` and so on; the last may be
    shorter. With g the gradient of a batch's mean loss plus ``l2 / 2 ‖W‖²``, a step is ``v ← momentum·v - step·g`` and
    ``p ← p + v`` (with `nesterov` ``p ← p + momentum·v - step·g``).

    Parameters
    ----------
    loss, X, y, parameters, units, activation, l2
        As in `network_loss_gradient`; these are the parameters to begin with.
    order : array-like of shape (N,)
        Numbers of rows, in the order of training. A row may come several times, or never.
    batch_size : int
        Rows of a batch.
    steps : float, or array-like of shape (number of batches,)
        Step sizes, not negative.
    momentum : float, default=0.0
        Between 0 and 1.
    nesterov : bool, default=False
        Whether to step as if the next momentum had been added already.
    sample_weight : array-like of shape (n,), optional
        Weights of the rows, not negative, not all zero. They are scaled to a mean of 1 over all rows of X;
        the loss of a batch is Σ w l / (rows of the batch).
    batch_norm : bool, default=False
        Whether the values of the hidden layers are normalised over each batch before the activation; `parameters` as in
        `network_scores`. After each batch running means and variances move a tenth of the way to those of the batch,
        the variances to those of n - 1. In a batch of one row the values become the shifts, and the variances stay.
    n_threads : int, optional
        Threads to use, of which at most 8 work; None means all that this process may use.

    Returns
    -------
    parameters : ndarray of shape (P,)
    losses : ndarray of shape (number of batches,), float64
        Mean loss of each batch before its step, without penalty.

    Raises
    ------
    TypeError
        If an argument is not of real numbers, row numbers or labels are not integers, or a name is no str.
    ValueError
        If shapes do not fit, n is 0, or a value is not usable.

    Notes
    -----
    Cost: 3 P multiply-adds for each row. Work space: up to three copies of the parameters, and the values and gradients
    of all layers for up to 256 rows; with `batch_norm` for all rows of a batch, which are then worked on in one go.

    Source of batch normalisation: S. Ioffe and C. Szegedy, "Batch normalization" (2015).

    A step that is too large makes the loss grow until it is infinite and the parameters NaN; look at `losses`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastml.kernels import train_network
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([1.0, 3.0, 5.0, 7.0])
    >>> order = 100 * [2, 0, 3, 1]
    >>> parameters, losses = train_network("squared_error", X, y, [0.0, 0.0], (1, 1), order, batch_size=2, steps=0.2)
    >>> parameters.round(3), losses.shape
    (array([2., 1.]), (200,))
    """
    a = arguments.network_training(
        loss, X, y, parameters, units, order, batch_size, steps, activation, l2, momentum, nesterov, sample_weight,
        batch_norm,
    )  # fmt: skip
    weights, biases = zip(*a.network.layers, strict=True)
    training = NetworkTraining(
        loss, a.network.X, a.network.y, weights, biases, activation=activation, l2=a.network.l2, momentum=a.momentum,
        nesterov=a.nesterov, sample_weight=a.network.weight, norms=_norms(a.network), n_threads=n_threads,
    )  # fmt: skip
    losses = training.run(a.order, a.batch_size, a.steps)
    layers = zip_longest(training.weights, training.biases, training.norms, fillvalue=())
    parts = chain.from_iterable((W, b, *norm) for W, b, norm in layers)
    return np.concatenate([part.ravel() for part in parts]), losses


def _norms(settled: arguments.NetworkArguments) -> list[Norm] | None:
    return None if settled.norms is None else [Norm(*norm) for norm in settled.norms]
