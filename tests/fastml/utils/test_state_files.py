"""States of models in files: what comes back, and files that are refused."""

from __future__ import annotations

import json
import os
import pickle
import stat
import struct
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from fastml import MLPClassifier, MLPRegressor, SGDClassifier, SGDRegressor
from fastml.utils import files, state_files
from network_states import assert_same, classes


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
        MLPRegressor(hidden_layer_sizes=(4,), random_state=0, batch_norm=True),
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
        ({"format": state_files.FORMAT + 1, "version": "9.9"}, r"format 3, of fastml 9\.9; fastml .* up to 2"),
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
