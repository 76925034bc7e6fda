"""States of models in files, and trainings that go on: the same bits as without."""

from __future__ import annotations

import json
import os
import pickle
import signal
import stat
import struct
import subprocess
import sys
import threading
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from checkout import python_path
from fastml import MLPClassifier, MLPRegressor, SGDClassifier, SGDRegressor
from fastml.training.run import Course
from fastml.utils import files, state_files


def classes(rng, n=230):
    X = rng.normal(size=(n, 6))
    return X, np.array(["no", "yes", "perhaps"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)]


def parts(model) -> list[np.ndarray]:
    """All arrays of a network but the seconds."""
    lists = (model.coefs_, model.intercepts_, model.batch_norm_scales_, model.batch_norm_means_)
    arrays = [array for each in (*lists, model.batch_norm_variances_) for array in each]
    return arrays + [column for name, column in model.history_.items() if name != "seconds"]


def assert_same(model, expected, same_bits):
    for got, want in zip(parts(model), parts(expected), strict=True):
        same_bits(got, want)
    for name in ("best_step_", "t_", "n_iter_", "n_outputs_", "out_activation_"):
        assert getattr(model, name) == getattr(expected, name), name


# ------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_network_comes_back_with_the_same_bits(rng, same_bits, tmp_path, dtype):
    X, y = classes(rng)
    model = MLPClassifier(
        (7, 5), batch_norm=True, dropout=(0.2, 0.0), early_stopping=True,
        class_weight={"no": 2.0, "yes": np.float64(1)}, max_iter=4, tol=None, random_state=np.int64(3),
        learning_rate=[0.01, 0.02],
    ).fit(X.astype(dtype), y)  # fmt: skip
    model.save(tmp_path / "model.npz")
    found = MLPClassifier.load(str(tmp_path / "model.npz"))
    assert found.get_params() == model.get_params()
    assert_same(found, model, same_bits)
    same_bits(found.predict_proba(X.astype(dtype)), model.predict_proba(X.astype(dtype)))
    np.testing.assert_array_equal(found.predict(X), model.predict(X))
    assert found.classes_.dtype == model.classes_.dtype
    assert [file.name for file in tmp_path.iterdir()] == ["model.npz"]
    with np.load(tmp_path / "model.npz", allow_pickle=False) as file:
        assert all(file[name].dtype.kind != "O" for name in file.files)


def test_names_of_columns_and_labels_that_are_objects(rng, tmp_path):
    pandas = pytest.importorskip("pandas")
    X, y = classes(rng)
    frame = pandas.DataFrame(X, columns=list("abcdef"))
    model = MLPClassifier((3,), max_iter=2, tol=None).fit(frame, y.astype(object))
    model.save(tmp_path / "model")
    found = MLPClassifier.load(tmp_path / "model")
    assert found.feature_names_in_.tolist() == list("abcdef")
    assert found.feature_names_in_.dtype == found.classes_.dtype == object
    np.testing.assert_array_equal(found.predict(frame), model.predict(frame))


@pytest.mark.parametrize(
    "model",
    [
        SGDClassifier("log_loss", momentum=0.9, average=4, random_state=0),
        SGDRegressor(momentum=0.5, random_state=0),
        MLPRegressor((4,), random_state=0, batch_norm=True),
        MLPClassifier((4,), random_state=0, solver="sgd"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_partial_fit_goes_on_from_a_file(rng, same_bits, tmp_path, model):
    X, y = classes(rng)
    more = {"classes": np.unique(y)} if "Classifier" in type(model).__name__ else {}
    y = y if more else X[:, 0]
    model.partial_fit(X, y, **more)
    model.save(tmp_path / "model.npz")
    found = type(model).load(tmp_path / "model.npz")
    for each in (model, found):
        each.partial_fit(X[::-1], y[::-1])
    same_bits(found.predict(X) if not more else found._scores(X), model.predict(X) if not more else model._scores(X))
    same_bits(found.history_["train_loss"], model.history_["train_loss"])


def test_what_a_file_cannot_hold_is_named(rng, tmp_path):
    X, y = classes(rng)
    for name, value in {"callbacks": print, "random_state": np.random.RandomState(0), "learning_rate": abs}.items():
        model = MLPClassifier((3,), max_iter=1, tol=None).fit(X, y).set_params(**{name: value})
        with pytest.raises(TypeError, match=f"parameter {name} is or has"):
            model.save(tmp_path / "model.npz")
    with pytest.raises(NotFittedError):
        MLPClassifier().save(tmp_path / "model.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_file_before(rng, tmp_path, monkeypatch):
    X, y = classes(rng)
    model = MLPClassifier((3,), max_iter=1, tol=None).fit(X, y)
    model.save(tmp_path / "model.npz")
    before = (tmp_path / "model.npz").read_bytes()

    def fail(stream, **arrays):
        stream.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(state_files.np, "savez", fail)
    with pytest.raises(OSError, match="no space left"):
        model.save(tmp_path / "model.npz")
    assert (tmp_path / "model.npz").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.npz"]


def test_writers_of_one_file_do_not_disturb_one_another(tmp_path):
    """Whatever process they are in: in two containers both may have the number 1."""
    path = tmp_path / "model.npz"
    with files.replacing(path) as first:
        first.write(b"first")
        with files.replacing(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
        with pytest.raises(ZeroDivisionError), files.replacing(path) as third:
            third.write(bytes(1 // 0))
    assert path.read_bytes() == b"first"
    assert [file.name for file in tmp_path.iterdir()] == ["model.npz"]


def test_threads_that_save_and_load_one_file_always_find_a_whole_one(rng, tmp_path):
    X, y = classes(rng)
    model, path = MLPClassifier((3,), max_iter=1, tol=None).fit(X, y), tmp_path / "model.npz"
    model.save(path)
    errors: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(50):
                model.save(path)
                MLPClassifier.load(path)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


needs_rights = pytest.mark.skipif(os.name == "nt", reason="no links and modes of this kind")


@needs_rights
@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path, there):
    for folder in ("links", "models"):
        (tmp_path / folder).mkdir()
    link, target = tmp_path / "links" / "model.npz", tmp_path / "models" / "today.npz"
    link.symlink_to(Path("..", "models", "today.npz"))
    if there:
        target.write_bytes(b"before")
    with files.replacing(link) as stream:
        stream.write(b"after")
    assert link.is_symlink()
    assert target.read_bytes() == b"after"
    assert not target.is_symlink()
    assert sorted(file.name for file in tmp_path.glob("*/*")) == ["model.npz", "today.npz"]


@needs_rights
def test_no_link_is_followed_that_somebody_else_put_there(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "model.npz"
    victim.write_bytes(b"mine")
    for number in (1, os.getpid()):
        (tmp_path / f".model.npz.{number}.part").symlink_to(victim)
    with files.replacing(path) as stream:
        stream.write(b"model")
    assert victim.read_bytes() == b"mine"
    assert path.read_bytes() == b"model"
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="symbolic links"), files.replacing(loop):
        pass
    assert loop.is_symlink()


@needs_rights
@pytest.mark.parametrize(
    ("before", "umask", "after"),
    [(None, 0o022, 0o644), (None, 0o077, 0o600), (0o600, 0o022, 0o600), (0o640, 0o077, 0o640), (0o666, 0o022, 0o666)],
)
def test_a_file_has_the_mode_of_the_one_it_replaces(tmp_path, before, umask, after):
    path = tmp_path / "model.npz"
    if before is not None:
        path.touch()
        path.chmod(before)
    old = os.umask(umask)
    try:
        with files.replacing(path) as stream:
            assert stat.S_IMODE(os.fstat(stream.fileno()).st_mode) == after, "while it is written too"
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == after


@needs_rights
def test_rights_of_a_group_are_for_that_group_only(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    path.touch()
    path.chmod(0o664)

    asked = []

    def refuse(descriptor: int, user: int, group: int) -> None:
        asked.append((user, group))
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    old = path.stat()
    with files.replacing(path):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert asked == [(old.st_uid, -1), (-1, old.st_gid)]


@needs_rights
@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="root alone gives files away")
def test_what_root_saves_over_a_users_model_stays_the_users(tmp_path):
    path = tmp_path / "model.npz"
    path.touch(0o600)
    os.chown(path, 2001, 2002)
    with files.replacing(path) as stream:
        stream.write(b"model")
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode), found.st_size) == (2001, 2002, 0o600, 5)


def test_names_as_long_as_the_system_allows_and_places_that_hold_no_file(tmp_path):
    path = tmp_path / ("m" * 255)
    with files.replacing(path) as stream:
        stream.write(b"model")
    assert path.read_bytes() == b"model"
    path.unlink()
    places = [tmp_path]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        places.append(tmp_path / "pipe")
    for place in places:
        with pytest.raises(FileExistsError, match="no regular file"), files.replacing(place):
            pass


def test_what_is_written_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    path, synced = tmp_path / "model.npz", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append((os.fstat(descriptor).st_size, path.exists())))
    with files.replacing(path) as stream:
        stream.write(b"model")
    assert synced == [(5, False)]


@pytest.mark.parametrize("kind", ["compressed", "overlapping", "endless text"])
def test_files_that_expand_are_refused(rng, tmp_path, kind):
    X, y = classes(rng)
    path, other = tmp_path / "model.npz", tmp_path / "other.npz"
    model = MLPClassifier((3,), max_iter=1, tol=None).fit(X, y)
    model.save(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    if kind == "compressed":
        np.savez_compressed(other, **arrays)  # the same arrays, to show that it is not their size
        message = "is compressed, which save never does"
    elif kind == "endless text":
        text = np.frombuffer(arrays["model"].tobytes() + b" " * 2**22, np.uint8)
        np.savez_compressed(other, **{**arrays, "model": text})
        message = "is compressed, which save never does"
    else:  # a hundred names for one array
        np.savez(other, **arrays, array_99=np.zeros(2**17))
        content = bytearray(other.read_bytes())
        with zipfile.ZipFile(other) as archive:
            begin, last, count = archive.start_dir, archive.getinfo("array_99.npy"), len(archive.infolist())
        names = [f"array_{number}.npy".encode() for number in range(10, 99)]
        entry = bytes(content[content.rindex(b"PK\x01\x02") :][: 46 + len("array_99.npy") + len(last.extra)])
        directory = bytes(content[begin : content.rindex(b"PK\x05\x06")])
        directory += b"".join(entry.replace(b"array_99.npy", name) for name in names)
        end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count + 89, count + 89, len(directory), begin, 0)
        other.write_bytes(bytes(content[:begin]) + directory + end)
        message = r"its arrays have [\d,]{10,} bytes, the file [\d,]{9}\b"
    with pytest.raises(ValueError, match=rf"other\.npz is no state of a fastml model, or a damaged one .*{message}"):
        MLPClassifier.load(other)
    MLPClassifier.load(path)


@pytest.mark.parametrize(
    "value",
    [
        {"array": []},
        {"array": "array_77"},
        {"strings": ["a"], "shape": [2**70]},
        {"strings": 3, "shape": [1]},
        {"record": "Path", "fields": {}},
        {"dict": [[1, 2, 3]]},
        {"dict": [[{"list": []}, 1]]},
        {"tuple": 5},
        {},
        [1, 2],
        None,
    ],
)
def test_values_that_make_no_sense_are_refused_by_the_name_of_the_file(rng, tmp_path, value):
    X, y = classes(rng)
    path = tmp_path / "model.npz"
    MLPClassifier((3,), max_iter=1, tol=None).fit(X, y).save(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    content = json.loads(arrays["model"].tobytes())
    content["attributes"] = value if value is None or isinstance(value, list) else {"coefs_": value}
    arrays["model"] = np.frombuffer(json.dumps(content).encode(), np.uint8)
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"model\.npz is a damaged state of a fastml model"):
        MLPClassifier.load(path)


def test_other_files_are_refused(rng, tmp_path):
    X, y = classes(rng)
    model = MLPClassifier((3,), max_iter=1, tol=None).fit(X, y)
    path = tmp_path / "model.npz"
    model.save(path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"of another class: MLPClassifier\.load reads it, SGDClassifier\.load"):
        SGDClassifier.load(path)
    with pytest.raises(FileNotFoundError):
        MLPClassifier.load(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError if os.name != "nt" else PermissionError):
        MLPClassifier.load(tmp_path)
    damaged = [content[:length] for length in (0, 1, 100, len(content) // 2, len(content) - 30)]
    damaged += [b"\x80\x04}\x94.", pickle.dumps(model), b"PK\x03\x04", content.replace(b"state of a", b"state of b")]
    for wrong in damaged:
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match="is no state of a fastml model"):
            MLPClassifier.load(path)
    with path.open("wb") as stream:
        np.savez(stream, x=np.ones(3))
    with pytest.raises(ValueError, match="is no state of a fastml model"):
        MLPClassifier.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": state_files.FORMAT + 1, "version": "9.9"}, r"format 2, of fastml 9\.9; fastml .* up to 1"),
        ({"title": "a song"}, "is no state"),
        ({"format": "one"}, "is no state"),
        ({"attributes": {"coefs_": {"array": "array_99"}}}, "damaged .*array_99"),
        ({"attributes": {"predict": 1}}, "has what a MLPClassifier has not: predict"),
        ({"parameters": {"depth": 1}}, "has what a MLPClassifier has not: depth"),
        ({"attributes": {"coefs_": {"record": "Popen", "fields": {}}}}, "damaged .*Popen"),
    ],
)
def test_files_from_elsewhere_are_refused(rng, tmp_path, change, message):
    X, y = classes(rng)
    path = tmp_path / "model.npz"
    MLPClassifier((3,), max_iter=1, tol=None).fit(X, y).save(path)
    with np.load(path) as file:
        arrays = dict(file)
    text = json.loads(arrays.pop("model").tobytes()) | change
    with path.open("wb") as stream:
        np.savez(stream, model=np.frombuffer(json.dumps(text).encode(), np.uint8), **arrays)
    with pytest.raises(ValueError, match=message):
        MLPClassifier.load(path)


# ---------------------------------------------------------------------------------- going on again

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


def test_a_course_that_does_not_know_what_batches_count_goes_on(rng, same_bits):
    """As files from before have it; full batches count alike."""
    X, y = classes(rng, n=223)  # of which 200 are trained on
    whole = network("steps").fit(X, y)
    for steps in (1, 6, 18):
        model = network("steps", max_steps=steps).fit(X, y)
        known = model._resumable.course._asdict()
        old = {name: known[name] for name in known if name not in ("weights", "counts", "first_rows")}
        model._resumable = model._resumable._replace(course=Course(**old))
        assert_same(model.set_params(max_steps=None).fit(X, y, resume=True), whole, same_bits)


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
        MLPClassifier(**settings).partial_fit(X, y, ["no", "perhaps", "yes"]).set_params(**after).partial_fit(X, y)


def test_rows_of_another_dtype_cannot_go_on(rng):
    X, y = classes(rng)
    model = MLPClassifier((4,), random_state=0).partial_fit(X.astype(np.float32), y, ["no", "perhaps", "yes"])
    with pytest.raises(ValueError, match="X is float64, to be trained in float64; partial_fit goes on in float32"):
        model.partial_fit(X, y)
    assert model.partial_fit(X.astype(np.float32), y).t_ == 5
