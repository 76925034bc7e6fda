"""ConvNetClassifier: scikit-learn's checks, learning, history, errors, copies, files, Ctrl-C."""

from __future__ import annotations

import gc
import pickle
import signal
import threading
import weakref

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from fastml import ConvNetClassifier, DivergenceWarning, layers
from fastml.kernels.convolution.network import Plan
from fastml.layers import AvgPool2D, BatchNorm, Conv2D, Dropout, Flatten, Linear, MaxPool2D, ReLU

pytestmark = pytest.mark.needs_jit  # without, an epoch takes minutes

SMALL = (Conv2D(8), BatchNorm(), ReLU(), MaxPool2D(), Conv2D(16), BatchNorm(), ReLU(), MaxPool2D())


def small(*more, **settings):
    return ConvNetClassifier(
        [*SMALL, *more],
        **{"batch_size": 32, "max_iter": 3, "tol": None, "random_state": 0, "learning_rate_init": 0.01} | settings,
    )


@pytest.fixture(scope="module")
def digits():
    """Images of bytes, and labels."""
    X, y = load_digits(return_X_y=True)
    return X.reshape(-1, 1, 8, 8).astype(np.uint8), y


def same_parameters(same_bits, one, two):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            same_bits(a[key], b[key])


# ------------------------------------------------------------------------------------- scikit-learn


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks():
    results = check_estimator(ConvNetClassifier(), on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] in ("failed", "xfail")}
    assert failed == {}
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= {"check_array_api_input"}
    assert len(results) > 40


def test_rows_are_images_of_one_pixel(digits, same_bits):
    X, y = digits
    flat = ConvNetClassifier(max_iter=5, tol=None, random_state=0).fit(X.reshape(len(X), -1) / 16, y)
    assert flat.image_shape_ == (64,)
    assert flat.layers_ == [Linear(100), ReLU(), Linear(10)]
    assert flat.score(X.reshape(len(X), -1) / 16, y) > 0.8
    for wrong in (X / 16, X[:, 0] / 16, X.reshape(len(X), -1)[:, :63] / 16):
        with pytest.raises(ValueError, match=r"shape|features"):
            flat.predict(wrong)


# ------------------------------------------------------------------------------------------ learning


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
def test_digits(digits, kind):
    X, y = digits[0].astype(kind), digits[1]
    model = small(standardize=True).fit(X[:1200], y[:1200], X_val=X[1200:], y_val=y[1200:])
    dtype = np.float64 if kind is np.float64 else np.float32
    assert model.parameters_[0]["weight"].dtype == model.predict_proba(X[:2]).dtype == dtype
    assert model.history_["validation_score"][-1] == model.score(X[1200:], y[1200:]) > 0.9
    assert model.history_["train_loss"][-1] < 0.2
    assert_allclose(model.channel_mean_, [X[:1200].mean()], rtol=1e-6)
    assert_allclose(model.channel_std_, [X[:1200].std()], rtol=1e-6)
    probabilities = model.predict_proba(X[:50])
    assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert_allclose(model.predict_log_proba(X[:50]), np.log(probabilities), atol=1e-3)
    np.testing.assert_array_equal(model.classes_[probabilities.argmax(axis=1)], model.predict(X[:50]))


def test_the_default_network(digits):
    X, y = digits
    model = ConvNetClassifier(standardize=True, max_iter=8, tol=None, random_state=0).fit(X[:1200], y[:1200])
    assert [type(layer).__name__ for layer in model.layers_].count("Conv2D") == 2
    assert model.score(X[1200:], y[1200:]) > 0.9
    one_pixel = ConvNetClassifier(max_iter=1, tol=None).fit(X[:50, :, :1, :1] / 16, y[:50])
    assert MaxPool2D() not in one_pixel.layers_


def test_two_classes_have_one_score(digits):
    X, y = digits
    names = np.where(y < 5, "low", "high")
    model = small(Dropout(0.2), Flatten(), Linear(20), ReLU(), standardize=True).fit(X[:600], names[:600])
    assert model.n_outputs_ == 1
    assert model.layers_[-1] == Linear(1)
    assert model.score(X[600:900], names[600:900]) > 0.8
    assert model.predict_proba(X[:3]).shape == (3, 2)


def test_the_seed_decides_everything_and_threads_nothing(digits, same_bits):
    X, y = digits[0][:150], digits[1][:150]
    net = (Dropout(0.3), Linear(12), ReLU())
    one, two, other = (small(*net, random_state=seed, max_iter=2).fit(X, y) for seed in (1, 1, 2))
    same_parameters(same_bits, one.parameters_, two.parameters_)
    assert (one.parameters_[0]["weight"] != other.parameters_[0]["weight"]).any()
    threads = small(*net, random_state=1, max_iter=2, n_jobs=2).fit(X, y)
    same_parameters(same_bits, one.parameters_, threads.parameters_)
    same_bits(one.predict_proba(X), threads.predict_proba(X))


def test_an_image_has_the_same_scores_in_any_company(digits, same_bits):
    X, y = digits
    model = small().fit(X[:100], y[:100])
    together = model.predict_proba(X[:700])
    same_bits(model.predict_proba(X[:1]), together[:1])
    same_bits(model.predict_proba(X[300:301]), together[300:301])


def test_partial_fit_goes_on_like_fit(digits, same_bits):
    X, y = digits[0][:120], digits[1][:120]
    settings = {"shuffle": False, "batch_size": 25}
    whole = small(max_iter=4, **settings).fit(X, y)
    pieces = small(**settings)
    for _ in range(4):
        pieces.partial_fit(X, y, classes=np.arange(10))
    same_parameters(same_bits, pieces.parameters_, whole.parameters_)
    assert pieces.t_ == whole.t_ == 21
    assert len(pieces.history_["step"]) == 4
    with pytest.raises(ValueError, match="needs all classes"):
        small().partial_fit(X, y)
    with pytest.raises(ValueError, match="early_stopping"):
        small(early_stopping=True).partial_fit(X, y, classes=np.arange(10))


def test_the_running_loss_is_that_of_the_images(digits, rng):
    """Of weights that do not move it is the loss of all images, however they are cut into batches."""
    X, y = digits[0][:201], digits[1][:201]
    still = {"learning_rate_init": 1e-300, "max_iter": 2, "tol": None, "random_state": 0}
    for weight in (None, rng.uniform(size=201) * (rng.uniform(size=201) < 0.7)):
        for more in ({}, {"class_weight": {int(y[-1]): 9.0}}):
            net = [Conv2D(4), ReLU(), MaxPool2D()]
            whole = ConvNetClassifier(net, batch_size=201, **still, **more).fit(X, y, sample_weight=weight)
            for size in ("auto", 40):
                found = ConvNetClassifier(net, batch_size=size, **still, **more).fit(X, y, sample_weight=weight)
                assert_allclose(found.history_["train_loss"], whole.history_["train_loss"], rtol=1e-5)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_last_batch_of_one_image_does_not_end_the_training(digits):
    X, y = digits[0][digits[1] < 2][:201], digits[1][digits[1] < 2][:201]
    model = ConvNetClassifier([Conv2D(4), ReLU(), MaxPool2D()], max_iter=60, random_state=0, learning_rate_init=1e-3)
    assert model.fit(X, y).score(X, y) > 0.9
    assert model.n_iter_ > 30


def test_images_without_weight(digits, same_bits):
    """partial_fit without an image that counts does nothing; one number is the weight of every image."""
    X, y = digits[0][:90], digits[1][:90]
    plain = small(standardize=True).partial_fit(X, y, classes=np.arange(10))
    idle = small(standardize=True).partial_fit(X, y, classes=np.arange(10), sample_weight=0)
    assert (idle.t_, idle.n_iter_, len(idle.history_["step"])) == (1, 0, 0)
    assert idle.predict(X).shape == (90,)
    for weight in (np.zeros(90), 0.0):
        idle.partial_fit(X, y, sample_weight=weight)
    same_parameters(same_bits, idle.partial_fit(X, y).parameters_, plain.parameters_)
    same_parameters(same_bits, idle.partial_fit(X, y, sample_weight=np.zeros(90)).parameters_, plain.parameters_)
    assert idle.t_ == plain.t_
    each, one = (small().fit(X, y, sample_weight=weight) for weight in (np.full(90, 2.0), 2))
    same_parameters(same_bits, one.parameters_, each.parameters_)
    early = small(early_stopping=True, max_iter=1, validation_fraction=0.5, class_weight=None)
    counts = (np.arange(90) < 30).astype(float)
    for seed in range(3):
        early.set_params(random_state=seed).fit(X, y % 2, sample_weight=counts)
        assert np.isfinite(early.history_["validation_loss"]).all()


def test_a_copy_goes_on_to_the_same_bits(digits, same_bits):
    X, y = digits[0][:120], digits[1][:120]
    model = small(Dropout(0.5)).partial_fit(X, y, classes=np.arange(10))
    copy = pickle.loads(pickle.dumps(model))
    same_bits(copy.predict_proba(X), model.predict_proba(X))
    same_parameters(same_bits, copy.partial_fit(X, y).parameters_, model.partial_fit(X, y).parameters_)
    with pytest.raises(NotFittedError):
        clone(model).predict(X)
    assert clone(model).layers == model.layers


def test_a_file_goes_on_to_the_same_bits(digits, same_bits, tmp_path):
    X, y = digits[0][:120], digits[1][:120]
    model = small(Dropout(0.5), standardize=True).partial_fit(X, y, classes=np.arange(10))
    model.save(tmp_path / "model.npz")
    loaded = ConvNetClassifier.load(tmp_path / "model.npz")
    assert loaded.layers == model.layers
    assert loaded.layers_ == model.layers_
    same_bits(loaded.predict_proba(X), model.predict_proba(X))
    same_parameters(same_bits, loaded.partial_fit(X, y).parameters_, model.partial_fit(X, y).parameters_)
    assert loaded.summary() == model.summary()


def test_an_ended_fit_is_resumed_to_the_same_bits(digits, same_bits, tmp_path):
    X, y = digits[0][:120], digits[1][:120]
    settings = {"early_stopping": True, "max_iter": 5, "standardize": True}
    whole = small(Dropout(0.5), **settings).fit(X, y)
    begun = small(Dropout(0.5), **settings, max_steps=7).fit(X, y)
    begun.save(tmp_path / "begun.npz")
    resumed = ConvNetClassifier.load(tmp_path / "begun.npz").set_params(max_steps=None).fit(X, y, resume=True)
    same_parameters(same_bits, resumed.parameters_, whole.parameters_)
    same_bits(resumed.history_["validation_loss"], whole.history_["validation_loss"])
    with pytest.raises(ValueError, match="needs the data and batches"):
        begun.fit(X[:100], y[:100], resume=True)


def test_warm_start_begins_with_the_weights_from_before(digits):
    X, y = digits[0][:200], digits[1][:200]
    model = small(warm_start=True).fit(X, y)
    first = model.history_["train_loss"][-1]
    assert model.fit(X, y).history_["train_loss"][0] < first + 0.05
    scores = model.predict_proba(X)
    with pytest.raises(ValueError, match="parameters are to have shapes"):
        model.set_params(layers=[Conv2D(3)]).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), scores)


def test_means_of_other_channels_are_refused(digits):
    X, y = digits[0][:40].reshape(-1, 4, 4, 4), digits[1][:40]
    model = ConvNetClassifier([Linear(4)], max_iter=1, tol=None).fit(X, y)
    model.channel_mean_ = model.channel_mean_[:1]
    with pytest.raises(ValueError, match=r"X has 4 channels; channel_mean_ and channel_std_ have shapes \(1,\)"):
        model.predict(X)


@pytest.mark.parametrize("standardize", [False, True])
def test_a_fit_that_goes_on_needs_images_of_the_same_shape(digits, standardize):
    # As many numbers in other channels: what is taken off each channel would be read from beyond its end.
    X, y = digits[0][:100], digits[1][:100]
    model = ConvNetClassifier([Linear(4)], max_iter=2, max_steps=1, tol=None, standardize=standardize).fit(X, y)
    others = X.reshape(-1, 16, 2, 2)
    with pytest.raises(ValueError, match=r"X has shape \(100, 16, 2, 2\); what the fit had was \(n, 1, 8, 8\)"):
        model.fit(others, y, resume=True)
    with pytest.raises(ValueError, match=r"X has shape \(100, 16, 2, 2\); what the fit had was \(n, 1, 8, 8\)"):
        model.set_params(warm_start=True).fit(others, y)
    assert model.image_shape_ == (1, 8, 8)
    assert model.set_params(warm_start=False).fit(others, y).image_shape_ == (16, 2, 2)


def test_weights_of_images_and_of_classes(digits, same_bits):
    X, y = digits[0][:150], digits[1][:150] % 3
    by_images = small().fit(X, y, sample_weight=np.where(y == 1, 3.0, 1.0))
    by_class = small(class_weight={1: 3.0}).fit(X, y)
    same_parameters(same_bits, by_images.parameters_, by_class.parameters_)
    assert (by_images.parameters_[0]["weight"] != small().fit(X, y).parameters_[0]["weight"]).any()


def test_early_stopping_keeps_the_best_weights(digits, rng):
    X, y = digits[0][:300], rng.integers(0, 2, 300)  # nothing to learn
    model = small(max_iter=60, tol=1e-4, early_stopping=True, n_iter_no_change=4)
    model.fit(X[:200], y[:200], X_val=X[200:], y_val=y[200:])
    scores = model.history_["validation_score"]
    assert len(scores) < 60
    assert model.score(X[200:], y[200:]) == scores.max()
    assert model.best_step_ == model.history_["step"][scores.argmax()]
    small(early_stopping=True).fit(X, y)  # sets a part aside


def test_history_callbacks_and_scoring(digits):
    X, y = digits[0][:200], digits[1][:200]
    seen = []

    def look(state):
        seen.append(state.fitted_estimator.score(X, y))
        return state.epoch >= 2

    model = small(max_iter=9, train_metrics="full", callbacks=look, scoring="neg_log_loss")
    model.fit(X, y, X_val=X, y_val=y)
    assert len(seen) == 2
    assert seen[-1] == model.score(X, y)
    assert model.history_["validation_score"].shape == (2,)
    assert model.history_["validation_score"][-1] == pytest.approx(-model.history_["validation_loss"][-1], rel=1e-3)
    assert model.history_["step"].tolist() == [7, 14]


def test_progress_is_shown(digits, capsys):
    small(verbose=1).fit(digits[0][:100], digits[1][:100])
    assert "ConvNetClassifier: 100%" in capsys.readouterr().err


def test_a_diverging_training_says_so(digits):
    X, y = digits[0][:200], digits[1][:200]
    with pytest.warns(DivergenceWarning, match="learning_rate_init=1e"):
        model = ConvNetClassifier(
            [Conv2D(4), ReLU()], solver="sgd", learning_rate_init=1e8, batch_size=10, random_state=0, max_iter=3
        ).fit(X, y)
    assert all(np.isfinite(part).all() for of in model.parameters_ for part in of.values())


def test_ctrl_c_keeps_what_there_is(digits):
    X, y = digits
    small(max_iter=1).fit(X[:100], y[:100])
    timer = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.warns(UserWarning, match="interrupted after step"):
        model = small(max_iter=100_000).fit(X, y)
    timer.join()
    assert model.predict(X[:5]).shape == (5,)
    assert len(model.history_["step"]) >= 0


# -------------------------------------------------------------------------------------------- layers


def test_buffers_go_when_a_fit_ends(digits, monkeypatch):
    """Cycles of references would keep hundreds of megabytes until garbage is looked for."""
    made = []
    init = Plan.__init__

    def watched(self, *args, **kwargs):
        made.append(weakref.ref(self))
        init(self, *args, **kwargs)

    monkeypatch.setattr(Plan, "__init__", watched)
    X, y = digits[0][:40], digits[1][:40]
    gc.disable()
    try:
        small().fit(X, y, X_val=X, y_val=y).predict(X)
        assert made
        assert all(plan() is None for plan in made)
    finally:
        gc.enable()


def test_summary():
    net = [Conv2D(4, 5, stride=2, padding=0), AvgPool2D(), Dropout(0.25), Flatten(), Linear(7)]
    lines = ConvNetClassifier(net).summary((3, 13, 9), 2).splitlines()
    assert [line.split() for line in lines] == [
        ["layer", "output", "parameters"],
        ["Input", "3", "x", "13", "x", "9", "0"],
        ["Conv2D(4,", "kernel_size=5,", "stride=2,", "padding=0)", "4", "x", "5", "x", "3", "304"],
        ["AvgPool2D()", "4", "x", "2", "x", "1", "0"],
        ["Dropout(share=0.25)", "4", "x", "2", "x", "1", "0"],
        ["Flatten()", "8", "0"],
        ["Linear(7)", "7", "63"],
        ["Linear(1)", "1", "8"],
        ["total", "375"],
    ]
    assert len({len(line) for line in lines}) == 1
    with pytest.raises(ValueError, match="needs image_shape and n_classes"):
        ConvNetClassifier(net).summary()
    for shape in ((3, 4), 12):
        with pytest.raises(ValueError, match="image_shape is"):
            ConvNetClassifier(net).summary(shape, 2)
    with pytest.raises(ValueError, match="n_classes is 1; a classifier needs at least two"):
        ConvNetClassifier(net).summary((3, 13, 9), 1)


def test_summary_of_a_fitted_network_takes_both_or_neither(digits):
    model = small(max_iter=1).fit(digits[0][:40], digits[1][:40])
    assert model.summary() == model.summary((1, 8, 8), 10)
    for given in ({"image_shape": (3, 32, 32)}, {"n_classes": 3}):
        with pytest.raises(ValueError, match="go together; one of them is missing"):
            model.summary(**given)


def test_all_layers_are_listed():
    assert set(layers.KINDS) == set(layers.__all__)


BAD_LAYERS = {
    "text": ("conv", TypeError, "layers is 'conv'"),
    "kind": ([ReLU], TypeError, r"layers\[0\] is"),
    "channels": ([Conv2D(0)], ValueError, r"layers\[0\] \(Conv2D\).channels is 0"),
    "kernel_size": ([Conv2D(2, 2.5)], TypeError, r"kernel_size is 2.5"),
    "same": ([Conv2D(2, 2)], ValueError, "'same' needs an odd kernel_size"),
    "padding": ([Conv2D(2, 3, padding=3)], ValueError, "it must be below kernel_size"),
    "negative padding": ([Conv2D(2, padding=-1)], ValueError, "padding is -1; it must be 'same' or an integer"),
    "padding name": ([Conv2D(2, padding="valid")], ValueError, "padding is 'valid'"),
    "too small": (
        [ReLU(), Conv2D(2, 11, padding=1)],
        ValueError,
        r"layers\[1\] \(Conv2D\) needs at least 11 x 11 pixels",
    ),
    "pooled away": ([MaxPool2D()] * 4, ValueError, r"layers\[3\] \(MaxPool2D\) needs at least 2 x 2 .* has 1 x 1"),
    "pool": ([AvgPool2D(17)], ValueError, "size is 17; it must be at most 16"),
    "stride": ([MaxPool2D(2, 0)], ValueError, "stride is 0"),
    "share": ([Dropout(1.0)], ValueError, "share is 1.0; it must be below 1"),
    "units": ([Linear(-1)], ValueError, r"units is -1"),
    "momentum": ([BatchNorm(2)], ValueError, "momentum is 2"),
    "epsilon": ([BatchNorm(0.1, 0)], ValueError, "epsilon is 0"),
    "image": ([Flatten(), Conv2D(2)], ValueError, r"layers\[1\] \(Conv2D\) needs an image"),
    "image of units": ([Linear(9), MaxPool2D(1)], ValueError, "needs an image"),
    "normalised row": ([Flatten(), BatchNorm()], ValueError, "follows Flatten"),
}


@pytest.mark.parametrize("name", BAD_LAYERS)
def test_bad_layers_are_named(digits, name):
    wrong, kind, message = BAD_LAYERS[name]
    with pytest.raises(kind, match=message):
        ConvNetClassifier(wrong).fit(digits[0][:20], digits[1][:20])


BAD = {
    "standardize": (1, "standardize is 1"),
    "solver": ("lbfgs", "solver is 'lbfgs'"),
    "alpha": (-1, "alpha is -1"),
    "weight_decay": (-1, "weight_decay is -1"),
    "learning_rate": ("adaptive", "learning_rate is 'adaptive'"),
    "learning_rate_init": (0, "learning_rate_init is 0"),
    "momentum": (2, "momentum is 2"),
    "beta_1": (1.0, "beta_1 is 1"),
    "epsilon": (0, "epsilon is 0"),
    "batch_size": (0, "batch_size is 0"),
    "shuffle": (1, "shuffle is 1"),
    "class_weight": ("even", "class_weight is 'even'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_parameters_are_named(digits, name):
    value, message = BAD[name]
    with pytest.raises((ValueError, TypeError), match=message):
        ConvNetClassifier(**{name: value}).fit(digits[0][:20], digits[1][:20])


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((4, 8, 8)), r"it must be \(n, channels, height, width\)"),
        (np.zeros((4, 1, 0, 8)), "at least one channel and one pixel"),
        (np.full((4, 1, 8, 8), np.nan), "NaN"),
        (np.zeros((4, 2, 8, 8)), r"shape \(4, 2, 8, 8\); what the fit had was \(n, 1, 8, 8\)"),
        (np.zeros((4, 1, 8, 7)), r"shape \(4, 1, 8, 7\); what the fit had was \(n, 1, 8, 8\)"),
    ],
)
def test_other_images_are_refused(digits, X, message):
    model = small(max_iter=1).fit(digits[0][:40], digits[1][:40])
    with pytest.raises(ValueError, match=message):
        model.predict(X)
