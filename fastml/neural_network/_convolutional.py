"""Convolutional networks, with scikit-learn's interface; `fastml.layers` has what they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from .. import layers
from ..training.batches import Array
from ..training.callbacks import with_callbacks
from ..training.model import IterativeModel, Probabilities, known_classes
from ..training.targets import ClassTargets
from ..utils import parameters
from ..utils.lazy import lazy_module
from ..utils.validation import CheckedScore, unchanged_if_refused, validate_data
from ._convolutional_fit import as_images, channel_scales, fit_images

if TYPE_CHECKING:
    from ..kernels.convolution import network as images_network
else:
    images_network = lazy_module("fastml.kernels.convolution.network")

__all__ = ["ConvNetClassifier"]


class ConvNetClassifier(CheckedScore, ClassifierMixin, Probabilities, IterativeModel):
    """Classification of images by a network of convolutions and other layers in a row.

    Images come as an array (n, channels, height, width), rows of numbers as (n, D). Softmax cross-entropy is trained,
    for two classes binary cross-entropy with one score. Parameters mean what they mean in `MLPClassifier` where they
    have its names.

    Parameters
    ----------
    layers : sequence of layers of `fastml.layers`, optional
        The hidden layers. A last `Linear` to the scores of the classes is added. None: for images two times
        ``Conv2D, BatchNorm, ReLU, MaxPool2D`` with 32 and 64 channels (a pool only where there are two pixels), then
        ``Linear(128), ReLU()``; for rows ``Linear(100), ReLU()``.
    standardize : bool, default=False
        Whether to take off each channel its mean and to divide it by its standard deviation, both over the training
        images of the first fit. That is done batch by batch: images of bytes stay bytes.
    solver : {"adam", "sgd"}, default="adam"
        Adam with its bias corrections as published, or gradient descent with `momentum`.
    alpha : float, default=0.0001
        Strength of the squared penalty on the weights of convolutions and linear layers, divided by the images of a
        batch: ``alpha / (2 * batch_size) * sum(weight ** 2)`` is added to the mean loss.
    weight_decay : float, default=0.0
        For "adam": each step also takes ``step * weight_decay * weight`` off these weights (AdamW).
    batch_size : int or "auto", default="auto"
        Images of a batch, at most all; "auto" is min(200, n).
    drop_last : bool, default=False
        Whether to leave out the last batch of an epoch if it is not full.
    learning_rate : {"constant", "invscaling"}, callable or array-like, default="constant"
        Size of step t = 1, 2, ...: `learning_rate_init`; ``learning_rate_init / t ** power_t``;
        ``learning_rate(t)``; or ``learning_rate[t - 1]``, of which the last one stays. For both solvers.
    learning_rate_init : float, default=0.001
        The (first) step size.
    power_t : float, default=0.5
        Exponent of "invscaling".
    max_iter : int, default=200
        Epochs, that is passes over the training images, at most.
    max_steps : int, optional
        Steps, that is batches, at most.
    shuffle : bool, default=True
        Whether each epoch has a new random order of the images; else it is that of `X`.
    random_state : int, RandomState or None, default=None
        Seed of initial weights, order, dropout and validation set.
    tol : float or None, default=1e-4
        Training ends when `n_iter_no_change` evaluations in a row have not improved on the best one by
        more than this. None: it takes all epochs.
    verbose : int, default=0
        Above 0, a progress bar with live losses.
    warm_start : bool, default=False
        Whether `fit` begins with the weights of the fit before; means and velocities of the solver begin anew.
    momentum : float, default=0.9
        For "sgd": share of the last move that a step repeats.
    nesterovs_momentum : bool, default=True
        Whether momentum is Nesterov's.
    early_stopping : bool, default=False
        Whether the validation set, and not the running training loss, decides when to stop, and which
        weights are the best ones, which the model then keeps. Without ``fit(..., X_val=..., y_val=...)`` a
        part of the training images is set aside.
    validation_fraction : float, default=0.1
        That part; its classes are in proportion.
    beta_1, beta_2 : float, default=0.9, 0.999
        For "adam": shares of the running means of gradients and of their squares that a step keeps.
    epsilon : float, default=1e-8
        For "adam": what is added to the root of the mean square, after its correction.
    n_iter_no_change : int, default=10
        Evaluations (with the defaults, epochs) without improvement before training ends.
    scoring : str, callable or None, default=None
        What is good on the validation set: None is the accuracy, "loss" the validation loss, all else a scorer of
        scikit-learn, which then makes the scores in `history_` too. A score that is NaN decides nothing.
    keep_best : {True, False, "first", "last"}, default=True
        With `early_stopping`: whether the model gets its best weights back; of those that are equally good
        the first ones (True means that too) or the last.
    evaluate_every : int, optional
        Evaluate every so many steps.
    evaluations_per_epoch : int, default=1
        Otherwise: how often to evaluate in an epoch, evenly spread.
    train_metrics : {"running", "batch", "full"} or int, default="running"
        What the training loss and score in `history_` are, as in `SGDClassifier`.
    class_weight : dict, "balanced" or None, default=None
        What each class counts in training. "balanced" makes all classes count the same.
    callbacks : callable or sequence of callables, optional
        As in `MLPClassifier`.
    n_jobs : int or None, default=None
        Threads. Unlike in scikit-learn None means all that the process may use (see
        `fastml.kernels`); the result has the same bits for any number.

    Attributes
    ----------
    layers_ : list
        The layers, with the last one that makes the scores.
    parameters_ : list of dict of ndarray
        Of each layer "weight" and "bias", in the dtype of the training: (channels, channels in, height, width) of a
        convolution, (units, values) of a linear layer, whose values are in the order channel, line, pixel. Of a batch
        normalisation (channels,), and "running_mean" and "running_var" in float64.
    image_shape_ : tuple of int
        Channels, height and width; (D,) for rows.
    channel_mean_, channel_std_ : ndarray of shape (channels,)
        What `standardize` takes off and divides by; 0 and 1 without.
    classes_ : ndarray of shape (C,)
        The labels, sorted.
    n_outputs_ : int
        Scores of a row.
    history_ : dict of ndarray
        One entry per evaluation, as in `SGDClassifier`; losses are means without the penalty. The validation figures,
        and the training figures unless they are "running", are those of predictions: with running means, without
        dropout.
    n_iter_ : int
        Epochs, the last one perhaps not whole.
    t_ : int
        Number of the next step.
    best_step_ : int or None
        The step of the best weights, where `early_stopping` kept them.
    n_features_in_ : int
        Columns of the training data, or channels.

    Notes
    -----
    float32 images and images of bytes (uint8) are trained in float32, all other in float64. Bytes are taken as they
    are, 0 to 255, unless `standardize` scales them.

    Initial weights are drawn evenly from ±sqrt(1 / inputs), where a kernel has its size squared times the channels that
    come in; intercepts are 0. Behind a `BatchNorm` their size does not matter for what is computed, but it does for how
    fast small steps change it.

    Sample and class weights are scaled to a mean of 1 in `fit`; `partial_fit` takes them as they are.

    Ctrl-C, divergence: as in `MLPClassifier`.

    Sources: Y. LeCun et al., "Gradient-based learning applied to document recognition" (1998); X. Glorot and Y. Bengio,
    "Understanding the difficulty of training deep feedforward neural networks" (2010), for the initial weights, those
    that they begin with; S. Ioffe and C. Szegedy, "Batch normalization" (2015).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from fastml import ConvNetClassifier
    >>> from fastml.layers import BatchNorm, Conv2D, MaxPool2D, ReLU
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X.reshape(-1, 1, 8, 8).astype("float32") / 16
    >>> model = ConvNetClassifier([Conv2D(16), BatchNorm(), ReLU(), MaxPool2D()], max_iter=5, batch_size=32, tol=None)
    >>> model = model.set_params(learning_rate_init=0.01, random_state=0).fit(X[:1200], y[:1200])
    >>> model.score(X[1200:], y[1200:]) > 0.9
    True
    >>> print(model.summary())
    layer               output        parameters
    Input               1 x 8 x 8              0
    Conv2D(16)          16 x 8 x 8           160
    BatchNorm()         16 x 8 x 8            32
    ReLU()              16 x 8 x 8             0
    MaxPool2D()         16 x 4 x 4             0
    Linear(10)          10                 2,570
    total                                  2,762
    """

    _takes_images = True

    @classmethod
    def _records(cls) -> tuple[type, ...]:
        return *super()._records(), images_network.Weights, *layers.KINDS.values()

    def __init__(
        self,
        layers: Sequence[Any] | None = None,
        *,
        standardize: bool = False,
        solver: str = "adam",
        alpha: float = 0.0001,
        weight_decay: float = 0.0,
        batch_size: int | Literal["auto"] = "auto",
        drop_last: bool = False,
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        max_steps: int | None = None,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float | None = 1e-4,
        verbose: int = 0,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        scoring: Any = None,
        keep_best: bool | str = True,
        evaluate_every: int | None = None,
        evaluations_per_epoch: int = 1,
        train_metrics: str | int = "running",
        class_weight: Any = None,
        callbacks: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.layers = layers
        self.standardize = standardize
        self.solver = solver
        self.alpha = alpha
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.max_steps = max_steps
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.scoring = scoring
        self.keep_best = keep_best
        self.evaluate_every = evaluate_every
        self.evaluations_per_epoch = evaluations_per_epoch
        self.train_metrics = train_metrics
        self.class_weight = class_weight
        self.callbacks = callbacks
        self.n_jobs = n_jobs

    @unchanged_if_refused
    @with_callbacks
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        sample_weight_val: ArrayLike | None = None,
        resume: bool = False,
    ) -> Self:
        """Train the network.

        Ctrl-C ends the training: the model keeps the weights it has by then (the best ones, where these are kept)
        and its history, a warning says so, and `fit` returns as usual. With ``resume=True`` it then goes on.

        Parameters
        ----------
        X : array-like of shape (n, channels, height, width) or (n, D)
            Training images or rows, finite.
        y : array-like of shape (n,)
            Labels.
        X_val, y_val : array-like, optional
            A validation set: images and labels. Its loss and score go into `history_`, and with
            ``early_stopping=True`` it takes the place of a part of the training images.
        sample_weight : array-like of shape (n,) or float, optional
            What each training image counts. Only the ratios matter.
        sample_weight_val : array-like or float, optional
            What each image of the validation set counts.
        resume : bool, default=False
            Whether to go on where the fit before was ended, as in `MLPClassifier`.

        Returns
        -------
        self
        """
        self._check_parameters()
        parameters.flag(resume, "resume")
        fit_images(
            self, X, y, X_val=X_val, y_val=y_val, sample_weight=sample_weight, sample_weight_val=sample_weight_val,
            resume=resume,
        )  # fmt: skip
        return self

    @unchanged_if_refused
    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train for one epoch on these images, and go on from where the last call ended.

        Parameters
        ----------
        X : array-like of shape (n, channels, height, width) or (n, D)
            Images or rows. `standardize` looks at those of the first call, whatever they count.
        y : array-like of shape (n,)
            Labels.
        classes : array-like of shape (C,), optional
            All labels that will ever come; needed in the first call.
        sample_weight : array-like of shape (n,) or float, optional
            What each image counts, taken as it is: one call does not know the weights of the others. If no image
            counts nothing is done; a first call then gives the model its initial weights.

        Returns
        -------
        self
        """
        return self._partial_fit(X, y, sample_weight, classes)

    def _partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: Any, classes: Any) -> Self:
        self._check_parameters()
        self._check_partial()
        fit_images(self, X, y, sample_weight=sample_weight, classes=classes, partial=True)
        return self

    def summary(self, image_shape: Sequence[int] | None = None, n_classes: int | None = None) -> str:
        """Return a table of the layers: what comes out of each, and how many parameters it has.

        Parameters
        ----------
        image_shape : sequence of int, optional
            Channels, height and width, or the columns of rows (D,); needed before the first fit.
        n_classes : int, optional
            How many classes there will be; needed before the first fit, and goes with `image_shape`.

        Returns
        -------
        str
            A line for each layer.
        """
        if image_shape is None or n_classes is None:
            if not hasattr(self, "layers_"):
                raise ValueError("summary of a network before its fit needs image_shape and n_classes")
            if image_shape is not None or n_classes is not None:
                raise ValueError("image_shape and n_classes go together; one of them is missing")
            listed, shape = self.layers_, _pixels(self.image_shape_)
        else:
            if not np.iterable(image_shape) or len(image_shape) not in (1, 3):
                raise ValueError(
                    f"image_shape is {image_shape!r}; it must be (channels, height, width), or (D,) for rows"
                )
            shape = _pixels([parameters.positive_integer(size, "image_shape") for size in image_shape])
            if parameters.positive_integer(n_classes, "n_classes") == 1:
                raise ValueError("n_classes is 1; a classifier needs at least two classes")
            listed = self._all_layers(image_shape, 1 if n_classes == 2 else n_classes)
        lines, total = [("Input", shape, 0)], 0
        for each, layer in zip(listed, layers.chain(listed, shape), strict=True):
            count = sum(int(np.prod(part)) for part in layer.public_shapes().values())
            lines.append((_short(each), each.output_shape(lines[-1][1]), count))
            total += count
        cells = [("layer", "output", "parameters")]
        cells += [
            (name, " x ".join(map(str, out if out[1:] != (1, 1) else out[:1])), f"{count:,}")
            for name, out, count in lines
        ]
        cells.append(("total", "", f"{total:,}"))
        first, second = (max(20, *(len(row[column]) + 2 for row in cells)) for column in (0, 1))
        second = max(14, *(len(row[1]) + 2 for row in cells))
        return "\n".join(f"{name:<{first}}{out:<{second}}{count:>10}" for name, out, count in cells)

    # --------------------------------------------------------------------------------------- inside

    def _check_parameters(self) -> None:
        p = parameters
        p.flag(self.standardize, "standardize")
        p.one_of(self.solver, "solver", ("adam", "sgd"))
        p.number(self.alpha, "alpha")
        p.number(self.weight_decay, "weight_decay")
        self._check_training()
        p.flag(self.shuffle, "shuffle")
        if isinstance(self.learning_rate, str):
            p.one_of(self.learning_rate, "learning_rate", ("constant", "invscaling"))
        p.number(self.learning_rate_init, "learning_rate_init", above=True)
        p.number(self.power_t, "power_t", least=-np.inf)
        p.number(self.momentum, "momentum", most=1)
        p.flag(self.nesterovs_momentum, "nesterovs_momentum")
        for name in ("beta_1", "beta_2"):
            if p.number(getattr(self, name), name, most=1) == 1:
                raise ValueError(f"{name} is 1; it must be below 1")
        p.number(self.epsilon, "epsilon", above=True)
        if not isinstance(self.class_weight, dict):
            p.one_of(self.class_weight, "class_weight", ("balanced", None))

    def _check_images(self, x: Array, *, reset: bool) -> None:
        """Refuse arrays that hold neither images nor rows, or others than those of the fit."""
        if x.ndim not in (2, 4):
            raise ValueError(f"X has shape {x.shape}; it must be (n, channels, height, width), or (n, D) for rows")
        if 0 in x.shape[1:]:
            raise ValueError(f"X has shape {x.shape}; images must have at least one channel and one pixel")
        if reset:
            self.image_shape_ = tuple(x.shape[1:])
        elif x.shape[1:] != self.image_shape_:
            raise ValueError(f"X has shape {x.shape}; what the fit had was (n, {str(self.image_shape_)[1:]}")

    def _all_layers(self, shape: Sequence[int], n_scores: int) -> list[Any]:
        listed = _default_layers(shape) if self.layers is None else self.layers
        if isinstance(listed, str) or not np.iterable(listed):
            raise TypeError(f"layers is {listed!r}; it must be a sequence of layers of fastml.layers, or None")
        return [*listed, layers.Linear(n_scores)]

    def _new_network(self, n_scores: int, dtype: np.dtype[Any]) -> tuple[list[Any], images_network.Network]:
        """Settle the layers; return them, and as the kernels have them."""
        listed = self._all_layers(self.image_shape_, n_scores)
        return listed, self._network(listed, dtype)

    def _network(self, listed: list[Any], dtype: np.dtype[Any]) -> images_network.Network:
        return images_network.Network(layers.chain(listed, _pixels(self.image_shape_)), dtype)

    def _scale_channels(self, X: Array) -> None:
        channels = self.image_shape_[0]
        self.channel_mean_, self.channel_std_ = np.zeros(channels), np.ones(channels)
        if self.standardize:
            self.channel_mean_, self.channel_std_ = channel_scales(X)

    def _channels(self) -> tuple[Array, Array]:
        return self.channel_mean_, 1 / self.channel_std_

    def _new_targets(self, y: Array, classes: Any, partial: bool) -> ClassTargets:
        self.classes_ = known_classes(self, y, classes, partial)
        return self._targets()

    def _targets(self) -> ClassTargets:
        return ClassTargets(self.classes_, "log_loss", "multinomial", self.class_weight)

    def _attributes(self, weights: images_network.Weights) -> dict[str, Any]:
        network = self._network(self.layers_, weights.flat.dtype)
        return {"parameters_": network.unpack(weights), "n_outputs_": network.layers[-1].shape[0]}

    def _scores(self, X: ArrayLike) -> Array:
        """Return the values of the last layer (n, C)."""
        check_is_fitted(self)
        if getattr(X, "ndim", 2) > 2:
            self._check_images(np.asarray(X), reset=False)  # says more than that the channels are not as many
        x = validate_data(self, X, dtype=[np.float64, np.float32, np.uint8], order="C", allow_nd=True, reset=False)
        self._check_images(x, reset=False)
        network = self._network(self.layers_, self.parameters_[-1]["weight"].dtype)
        images = as_images(x, self._channels(), network.dtype)
        return images_network.scores_of_images(
            network, network.pack(self.parameters_), images, parameters.threads(self.n_jobs)
        )


def _pixels(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return channels, height and width; a row of numbers is an image of one pixel."""
    channels, height, width = (*shape, 1, 1)[:3]
    return channels, height, width


def _default_layers(shape: Sequence[int]) -> list[Any]:
    if len(shape) == 1:
        return [layers.Linear(100), layers.ReLU()]
    found: list[Any] = []
    size = min(shape[1:])
    for channels in (32, 64):
        found += [layers.Conv2D(channels), layers.BatchNorm(), layers.ReLU()]
        if size >= 2:
            found.append(layers.MaxPool2D())
        size //= 2
    return [*found, layers.Linear(128), layers.ReLU()]


def _short(layer: Any) -> str:
    """Return a layer as one would write it: what has its default is left out."""
    name, values = layers.described(layer)
    kind = layers.KINDS[name]
    given = []
    for field, value in values.items():
        if not hasattr(kind, field):  # has no default
            given.append(f"{value!r}")
        elif value != getattr(kind, field):
            given.append(f"{field}={value!r}")
    return f"{name}({', '.join(given)})"
