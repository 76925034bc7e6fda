"""Trainings that go on where another one ended, also from a file: the same bits as without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

from checkout import python_path
from fastml import MLPClassifier, MLPRegressor
from fastml.training.run import Checkpoint
from network_states import assert_same, classes

SETTINGS = {
    "adam": {},
    "best": {"early_stopping": True},
    "norms": {"batch_norm": True, "dropout": 0.3, "solver": "sgd"},
    "steps": {"evaluate_every": 4, "early_stopping": True, "keep_best": "last", "scoring": "loss"},
    "often": {"evaluations_per_epoch": 3, "train_metrics": "full", "solver": "sgd", "momentum": 0.0},
    "seldom": {"evaluate_every": 17, "learning_rate": "invscaling", "train_metrics": "batch"},
}


def network(case, **more):
    settings = {"hidden_layer_sizes": (7, 5), "batch_size": 40, "max_iter": 7, "tol": None, "random_state": 3}
    return MLPClassifier(**settings | {"learning_rate_init": 0.01} | SETTINGS[case] | more)


@pytest.mark.needs_jit
@pytest.mark.parametrize("case", SETTINGS)
def test_a_training_that_was_ended_early_goes_on(rng, same_bits, tmp_path, case):
    """At steps within an epoch, at its end, and where an evaluation is due; through a file."""
    X, y = classes(rng)
    whole = network(case).fit(X, y)
    for steps in (1, 5, 6, 13, 17, 36, whole.t_ - 1):
        network(case, max_steps=steps).fit(X, y).save(tmp_path / "model.npz")
        model = MLPClassifier.load(tmp_path / "model.npz").set_params(max_steps=None)
        assert_same(model.fit(X, y, resume=True), whole, same_bits)
    halves = network(case, max_iter=3).fit(X, y).set_params(max_iter=7)
    assert_same(halves.fit(X, y, resume=True), whole, same_bits)
    assert_same(halves.fit(X, y, resume=True), whole, same_bits)  # nothing is left to do


@pytest.mark.needs_jit
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_batches_of_unequal_weight_go_on(rng, same_bits, tmp_path):
    """The running loss of seven evaluations an epoch, the last of them of two rows, decides when to end."""
    X, y = classes(rng)
    weight = rng.uniform(size=len(X)) * (rng.uniform(size=len(X)) < 0.8)
    settings = {"batch_size": 38, "evaluations_per_epoch": 7, "tol": 0.1, "n_iter_no_change": 20, "max_iter": 50}
    settings |= {"hidden_layer_sizes": (7,), "class_weight": {"no": 3.0}, "random_state": 3, "learning_rate_init": 0.01}
    whole = MLPClassifier(**settings).fit(X, y, sample_weight=weight)
    assert 20 < whole.t_ < 340
    for more in ({}, {"evaluate_every": 10, "evaluations_per_epoch": 1, "n_iter_no_change": 4}):
        whole = MLPClassifier(**settings | more).fit(X, y, sample_weight=weight)
        for steps in (1, 6, 7, 8, 12, 27, 40):
            model = MLPClassifier(**settings | more, max_steps=steps).fit(X, y, sample_weight=weight)
            model.save(tmp_path / "model.npz")
            model = MLPClassifier.load(tmp_path / "model.npz").set_params(max_steps=None)
            assert_same(model.fit(X, y, sample_weight=weight, resume=True), whole, same_bits)


def test_a_checkpoint_that_does_not_know_what_batches_count_goes_on(rng, same_bits):
    """As files from before have it; full batches count alike."""
    X, y = classes(rng, n=223)  # of which 200 are trained on
    whole = network("steps").fit(X, y)
    for steps in (1, 6, 18):
        model = network("steps", max_steps=steps).fit(X, y)
        known = model._checkpoint.checkpoint._asdict()
        old = {name: known[name] for name in known if name not in ("weights", "counts", "first_rows")}
        model._checkpoint = model._checkpoint._replace(checkpoint=Checkpoint(**old))
        assert_same(model.set_params(max_steps=None).fit(X, y, resume=True), whole, same_bits)


def test_a_file_with_former_names_goes_on(rng, tmp_path, same_bits):
    """Format 1, in which a checkpoint was a course."""
    X, y = classes(rng)
    whole, path = network("best").fit(X, y), tmp_path / "model.npz"
    network("best", max_steps=7).fit(X, y).save(path)
    with np.load(path) as file:
        arrays = dict(file)
    text = arrays.pop("model").tobytes().decode()
    for name, former in {
        '"record": "Checkpoint"': '"record": "Course"', '"record": "FitCheckpoint"': '"record": "Resumable"',
        '"checkpoint":': '"course":', '"_checkpoint":': '"_resumable":', '"format": 2': '"format": 1',
    }.items():  # fmt: skip
        assert text.count(name) == 1, name
        text = text.replace(name, former)
    np.savez(path, model=np.frombuffer(text.encode(), np.uint8), **arrays)
    assert_same(MLPClassifier.load(path).set_params(max_steps=None).fit(X, y, resume=True), whole, same_bits)


class Interrupting:
    """Raises KeyboardInterrupt at the n-th evaluation."""

    def __init__(self, n):
        self.left = n

    def __call__(self, state):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.needs_jit
@pytest.mark.parametrize("case", SETTINGS)
def test_a_training_that_was_interrupted_goes_on(rng, same_bits, case):
    X, y = classes(rng)
    whole = network(case).fit(X, y)
    for number in range(1, len(whole.history_["step"]) + 1):
        model = network(case, callbacks=Interrupting(number))
        with pytest.warns(UserWarning, match="interrupted after step"):
            model.fit(X, y)
        assert_same(model.set_params(callbacks=None).fit(X, y, resume=True), whole, same_bits)


def test_a_training_may_be_ended_again_and_again(rng, same_bits, tmp_path):
    X, y = classes(rng)
    whole, model = network("best").fit(X, y), network("best")
    for steps in range(1, 38, 4):
        model.set_params(max_steps=steps).fit(X, y, resume=True).save(tmp_path / "model.npz")
        model = MLPClassifier.load(tmp_path / "model.npz")
        assert model.t_ == steps + 1
    assert_same(model.set_params(max_steps=None).fit(X, y, resume=True), whole, same_bits)


def test_one_that_has_converged_stays_as_it_is(rng, same_bits):
    """Counters of early stopping are taken up, and Ctrl-C in the very evaluation that ends it changes nothing."""
    X, y = classes(rng)
    settings = {"tol": 1e-3, "n_iter_no_change": 3, "max_iter": 500, "early_stopping": True, "learning_rate_init": 0.03}
    whole = network("adam", **settings).fit(X, y)
    rows = len(whole.history_["step"])
    assert 4 < rows < 500
    for number in (rows - 2, rows - 1, rows):
        model = network("adam", callbacks=Interrupting(number), **settings)
        with pytest.warns(UserWarning, match="interrupted"):
            model.fit(X, y)
        assert_same(model.set_params(callbacks=None).fit(X, y, resume=True), whole, same_bits)
    assert_same(model.fit(X, y, resume=True), whole, same_bits)


def test_a_training_that_a_callback_ended_goes_on(rng, same_bits):
    X, y = classes(rng)
    model = network("best", callbacks=lambda state: state.epoch >= 2).fit(X, y)
    assert model.n_iter_ == 2
    assert_same(model.set_params(callbacks=None).fit(X, y, resume=True), network("best").fit(X, y), same_bits)


@pytest.mark.needs_jit
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_within_compiled_code_goes_on(rng, same_bits, tmp_path, n_jobs):
    X, y = rng.normal(size=(3000, 100)).astype(np.float32), rng.integers(0, 4, 3000)
    settings = {"hidden_layer_sizes": (60, 20), "tol": None, "random_state": 0, "batch_size": 25, "max_iter": 60}
    settings |= {"batch_norm": True, "dropout": 0.1, "n_jobs": n_jobs}
    whole = MLPClassifier(**settings).fit(X, y)
    model, interrupts = MLPClassifier(**settings), 0
    for _ in range(4):
        timer = threading.Timer(0.12, signal.raise_signal, [signal.SIGINT])
        timer.start()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                model.fit(X, y, resume=True)
                timer.join()
            except KeyboardInterrupt:  # before the training had begun, or after it
                continue
        interrupts += any("interrupted" in str(warning.message) for warning in caught)
        model.save(tmp_path / "model.npz")
        model = MLPClassifier.load(tmp_path / "model.npz")
    assert interrupts > 0
    assert_same(model.fit(X, y, resume=True), whole, same_bits)


def test_a_last_batch_by_itself_is_the_same_step(rng, same_bits):
    """Where the others are longer than a block of rows."""
    X, y = rng.normal(size=(700, 5)), rng.integers(0, 2, 700)
    settings = {"batch_size": 300, "solver": "sgd", "momentum": 0.0, "max_iter": 3, "tol": None, "random_state": 0}
    whole = MLPClassifier((9,), **settings).fit(X, y)
    model = MLPClassifier((9,), max_steps=2, **settings).fit(X, y)
    assert_same(model.set_params(max_steps=None).fit(X, y, resume=True), whole, same_bits)


GO_ON = """
import sys
import numpy as np
from fastml import MLPRegressor
data = np.load(sys.argv[2])
model = MLPRegressor.load(sys.argv[1]).set_params(max_steps=None)
model.fit(data["X"], data["y"], resume=True).save(sys.argv[1])
"""


def test_another_process_goes_on(rng, same_bits, tmp_path):
    """With no random state: what was drawn is in the file."""
    X = rng.normal(size=(120, 4))
    y = np.sin(X[:, 0])
    settings = {"hidden_layer_sizes": (8,), "batch_size": 30, "max_iter": 5, "tol": None, "batch_norm": True}
    model, state = MLPRegressor(max_steps=7, **settings), np.random.get_state()  # noqa: NPY002
    model.fit(X, y).save(tmp_path / "model.npz")
    np.random.set_state(state)  # noqa: NPY002
    whole = MLPRegressor(**settings).fit(X, y)
    np.savez(tmp_path / "data.npz", X=X, y=y)
    subprocess.run(
        [sys.executable, "-c", GO_ON, str(tmp_path / "model.npz"), str(tmp_path / "data.npz")],
        env=os.environ | {"PYTHONPATH": python_path()},
        check=True,
    )
    assert_same(MLPRegressor.load(tmp_path / "model.npz"), whole, same_bits)


def test_what_cannot_go_on_says_so(rng):
    X, y = classes(rng)
    model = network("adam", max_steps=9).fit(X, y)
    for data, message in (
        ((X[:-1], y[:-1]), "rows 230, now 229"),
        ((X.astype(np.float32), y), "dtype float64, now float32"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(*data, resume=True)
    with pytest.raises(ValueError, match="rows of a batch 40, now 50"):
        network("adam", max_steps=9).fit(X, y).set_params(batch_size=50).fit(X, y, resume=True)
    with pytest.raises(ValueError, match="layers are to have shapes"):
        network("adam", max_steps=9).fit(X, y).set_params(hidden_layer_sizes=(3,)).fit(X, y, resume=True)
    with pytest.raises(ValueError, match="followed by partial_fit"):
        model.partial_fit(X, y).fit(X, y, resume=True)
    with pytest.raises(TypeError, match="resume is 1"):
        model.fit(X, y, resume=1)


def test_weights_of_other_columns_are_refused(rng):
    # Set by hand, or from a file that somebody made: rows must not be read beyond their end.
    X, y = classes(rng)
    model = MLPClassifier((4,), max_iter=1, tol=None).fit(X, y)
    model.n_features_in_ = 3
    with pytest.raises(ValueError, match=r"X has 3 columns; coefs_\[0\] has 6 rows"):
        model.predict(X[:, :3])


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({"solver": "sgd"}, {"solver": "adam"}, "left velocities, those to come need means of gradients"),
        ({"solver": "adam"}, {"solver": "sgd"}, "squares, those to come need velocities"),
        ({"solver": "adam"}, {"solver": "sgd", "momentum": 0.0}, "squares, those to come need nothing but weights"),
        ({"solver": "sgd", "momentum": 0.0}, {"momentum": 0.5}, "nothing but weights, those to come need velocities"),
    ],
)
def test_another_solver_cannot_go_on(rng, before, after, message):
    X, y = classes(rng)
    settings = {"hidden_layer_sizes": (4,), "max_iter": 2, "max_steps": 1, "tol": None, "random_state": 0} | before
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**settings).fit(X, y).set_params(**after).fit(X, y, resume=True)
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**settings).partial_fit(X, y, classes=["no", "perhaps", "yes"]).set_params(**after).partial_fit(
            X, y
        )


def test_rows_of_another_dtype_cannot_go_on(rng):
    X, y = classes(rng)
    model = MLPClassifier((4,), random_state=0).partial_fit(X.astype(np.float32), y, classes=["no", "perhaps", "yes"])
    with pytest.raises(ValueError, match="X is float64, to be trained in float64; partial_fit goes on in float32"):
        model.partial_fit(X, y)
    assert model.partial_fit(X.astype(np.float32), y).t_ == 5
