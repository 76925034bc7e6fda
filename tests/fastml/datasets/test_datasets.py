"""The data set readers, on small files in the official formats and, where FASTML_DATA is set, on the real ones."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from fastml import datasets
from fastml.datasets import _cifar10, _files, _mnist

NAMES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]

CLASSES = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def mnist_arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = []
    for n in (7, 3):
        arrays += [rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n, np.uint8)]
    return arrays


@pytest.fixture
def mnist_folder(tmp_path, mnist_arrays) -> Path:
    home = tmp_path / "mnist"
    home.mkdir()
    for name, array in zip(NAMES, mnist_arrays, strict=True):
        (home / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    return home


def short_string(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


def python2_list(items: list[bytes]) -> bytes:
    return b"](" + b"".join(items) + b"e"


def python2_array(X: np.ndarray) -> bytes:
    """A uint8 matrix as Python 2 and NumPy 1 pickled it."""
    n, d = X.shape
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + b"J" + struct.pack("<i", n) + b"J" + struct.pack("<i", d) + b"\x86"
        + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + b"T" + struct.pack("<i", X.size) + X.tobytes() + b"tb"
    )  # fmt: skip


def python2_dict(**values: bytes) -> bytes:
    return b"\x80\x02}(" + b"".join(short_string(k.encode()) + v for k, v in values.items()) + b"u."


def cifar_batch(X: np.ndarray, y: np.ndarray) -> bytes:
    labels = python2_list([b"K" + bytes([label]) for label in y])
    return python2_dict(batch_label=short_string(b"training batch"), labels=labels, data=python2_array(X))


@pytest.fixture
def cifar_parts() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    names = ["test_batch", "data_batch_1", "data_batch_3"]
    return {n: (rng.integers(0, 256, (4, 3072), np.uint8), rng.integers(0, 10, 4, np.uint8)) for n in names}


@pytest.fixture
def cifar_folder(tmp_path, cifar_parts) -> Path:
    home = tmp_path / "cifar-10-batches-py"
    home.mkdir()
    for name, (X, y) in cifar_parts.items():
        (home / name).write_bytes(cifar_batch(X, y))
    meta = python2_dict(label_names=python2_list([short_string(c) for c in CLASSES]))
    (home / "batches.meta").write_bytes(meta)
    return home


@pytest.mark.parametrize("layout", ["own folder", "parent", "environment", "unpacked", "raw"])
def test_mnist_is_read_from_every_layout(layout, mnist_folder, mnist_arrays, monkeypatch):
    folder: Path | None = mnist_folder
    if layout == "parent":
        folder = mnist_folder.parent
    elif layout == "environment":
        monkeypatch.setenv(datasets.DATA_VARIABLE, str(mnist_folder.parent))
        folder = None
    elif layout == "unpacked":
        for name in NAMES:
            packed = mnist_folder / f"{name}.gz"
            (mnist_folder / name).write_bytes(gzip.decompress(packed.read_bytes()))
            packed.unlink()
    elif layout == "raw":
        # By way of another name, because some file systems take MNIST and mnist for the same.
        moved = mnist_folder.rename(mnist_folder.parent / "moved")
        (mnist_folder.parent / "MNIST").mkdir()
        moved.rename(mnist_folder.parent / "MNIST" / "raw")
        folder = mnist_folder.parent
    mnist = datasets.load_mnist(folder, verify=False)
    X_train, y_train, X_test, y_test = mnist_arrays
    np.testing.assert_array_equal(mnist.X_train, X_train.reshape(7, 784))
    np.testing.assert_array_equal(mnist.y_train, y_train)
    np.testing.assert_array_equal(mnist.X_test, X_test.reshape(3, 784))
    np.testing.assert_array_equal(mnist.y_test, y_test)
    assert mnist.X_train.dtype == np.uint8
    assert mnist.y_train.dtype == np.intp
    assert mnist.X_train.flags.writeable
    assert mnist.image_shape == (28, 28)
    assert len(mnist.target_names) == 10


def test_mnist_other_than_the_official_is_refused(mnist_folder):
    with pytest.raises(ValueError, match="not the official file: its sha256"):
        datasets.load_mnist(mnist_folder)


def test_mnist_missing_says_what_to_put_where(mnist_folder):
    (mnist_folder / f"{NAMES[2]}.gz").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        datasets.load_mnist(mnist_folder.parent, verify=False)
    message = str(caught.value)
    assert all(f"{name}.gz" in message for name in NAMES)
    assert str(mnist_folder) in message
    assert "download=True" in message


@pytest.mark.parametrize(
    ("which", "content", "message"),
    [
        (0, idx(np.zeros((7, 28, 28), np.uint8))[:-1], "header promises"),
        (0, idx(np.zeros((7, 28, 28), np.uint8)) + b"\0", "header promises"),
        (0, idx(np.zeros((7, 784), np.uint8)), "3 axes"),
        (0, b"\0\0\x08", "3 axes"),
        (0, bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1), "header promises"),
        (1, idx(np.zeros(8, np.uint8)), "8 labels for 7 images"),
        (1, idx(np.full(7, 10, np.uint8)), "labels from 10 to 10"),
        (2, idx(np.zeros((3, 8, 8), np.uint8)), "test images"),
    ],
)
def test_mnist_of_a_wrong_form_is_refused(which, content, message, mnist_folder):
    (mnist_folder / f"{NAMES[which]}.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=message):
        datasets.load_mnist(mnist_folder, verify=False)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"no gzip", lambda b: b[:20] + b"\xff" * 40])
def test_mnist_damaged_archive_is_refused(damage, mnist_folder):
    path = mnist_folder / f"{NAMES[0]}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="is damaged"):
        datasets.load_mnist(mnist_folder, verify=False)


def test_without_any_folder_the_error_names_the_variable():
    with pytest.raises(FileNotFoundError, match=datasets.DATA_VARIABLE):
        datasets.load_mnist()
    with pytest.raises(FileNotFoundError, match=datasets.DATA_VARIABLE):
        datasets.load_cifar10()


def test_cifar10_reads_the_batches_that_are_there_and_says_so(cifar_folder, cifar_parts, monkeypatch):
    monkeypatch.setenv(datasets.DATA_VARIABLE, str(cifar_folder.parent))
    cifar = datasets.load_cifar10(verify=False)
    X = np.concatenate([cifar_parts["data_batch_1"][0], cifar_parts["data_batch_3"][0]])
    y = np.concatenate([cifar_parts["data_batch_1"][1], cifar_parts["data_batch_3"][1]])
    np.testing.assert_array_equal(cifar.X_train, X)
    np.testing.assert_array_equal(cifar.y_train, y)
    np.testing.assert_array_equal(cifar.X_test, cifar_parts["test_batch"][0])
    np.testing.assert_array_equal(cifar.y_test, cifar_parts["test_batch"][1])
    assert cifar.X_train.dtype == np.uint8
    assert cifar.y_train.dtype == np.intp
    assert cifar.image_shape == (3, 32, 32)
    assert cifar.target_names == tuple(c.decode() for c in CLASSES)
    assert "batches 1, 3 of 5 (8 images)" in cifar.note
    assert cifar.batches == (1, 3)


def test_cifar10_reads_the_batches_asked_for_in_their_order(cifar_folder, cifar_parts):
    cifar = datasets.load_cifar10(cifar_folder, batches=(3, 1), verify=False)
    np.testing.assert_array_equal(cifar.X_train[:4], cifar_parts["data_batch_3"][0])
    only_first = datasets.load_cifar10(cifar_folder, batches=(1,), verify=False)
    np.testing.assert_array_equal(only_first.X_train, cifar_parts["data_batch_1"][0])
    assert "batch 1 of 5" in only_first.note


def test_cifar10_missing_batch_is_named(cifar_folder):
    with pytest.raises(FileNotFoundError, match="data_batch_2"):
        datasets.load_cifar10(cifar_folder, batches=(1, 2), verify=False)
    (cifar_folder / "test_batch").unlink()
    with pytest.raises(FileNotFoundError, match="test_batch"):
        datasets.load_cifar10(cifar_folder, verify=False)


@pytest.mark.parametrize("batches", [(), (0,), (6,), (1, 1)])
def test_cifar10_bad_batches(batches, cifar_folder):
    with pytest.raises(ValueError, match="from 1 to 5"):
        datasets.load_cifar10(cifar_folder, batches=batches, verify=False)


def test_cifar10_other_than_the_official_is_refused(cifar_folder):
    with pytest.raises(ValueError, match="not the official file"):
        datasets.load_cifar10(cifar_folder)


def test_cifar10_pickled_by_todays_numpy_is_read_too(cifar_folder):
    X, y = np.arange(2 * 3072).astype(np.uint8).reshape(2, 3072), [3, 9]
    (cifar_folder / "data_batch_1").write_bytes(pickle.dumps({b"data": X, b"labels": y}, protocol=4))
    cifar = datasets.load_cifar10(cifar_folder, batches=(1,), verify=False)
    np.testing.assert_array_equal(cifar.X_train, X)


class Hostile:
    """Pickles as a call of the given function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("as_value", [True, False])
@pytest.mark.parametrize("call", ["os.mkdir", "exec", "numpy.load"])
def test_cifar10_malicious_pickle_runs_nothing(call, as_value, cifar_folder, tmp_path):
    target = tmp_path / "made-by-the-pickle"
    hostile = {
        "os.mkdir": Hostile(os.mkdir, str(target)),
        "exec": Hostile(exec, f"import os; os.mkdir({str(target)!r})"),
        "numpy.load": Hostile(np.load, str(cifar_folder / "batches.meta"), None, True),
    }[call]
    content = pickle.dumps({b"data": hostile, b"labels": []} if as_value else hostile)
    if call != "numpy.load":
        # The planted case: an ordinary unpickler does run it.
        pickle.loads(content)
        assert target.is_dir()
        target.rmdir()
    (cifar_folder / "data_batch_1").write_bytes(content)
    with pytest.raises(ValueError, match="which plain data needs not"):
        datasets.load_cifar10(cifar_folder, verify=False)
    assert not target.exists()


ONE_IMAGE = python2_dict(labels=b"](K\x00e", data=python2_array(np.zeros((1, 3072), np.uint8)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02}.",
        b"\x80\x02]q\x00.",
        b"\x80\x02cnumpy\nndarray\n)\x81.",
        python2_dict(labels=b"](e", data=b"cnumpy.core.multiarray\n_reconstruct\n)\x81"),
        python2_dict(labels=b"](e", data=b"cnumpy\ndtype\n)\x81"),
        python2_dict(labels=b"](e", data=b"cnumpy\nndarray\n)\x81(K\x01K\x02K\x03tb"),
        python2_dict(labels=b"](e", data=python2_array(np.zeros((1, 9), np.uint8))),
        python2_dict(labels=b"](e", data=python2_array(np.zeros((1, 3072), np.uint8))),
        python2_dict(labels=b"](K\x0ae", data=python2_array(np.zeros((1, 3072), np.uint8))),
        python2_dict(labels=b"](G" + bytes(8) + b"e", data=python2_array(np.zeros((1, 3072), np.uint8))),
        python2_dict(data=python2_array(np.zeros((1, 3072), np.uint8))),
        ONE_IMAGE.replace(b"u1", b"f8"),
        ONE_IMAGE.replace(b"tb\x89", b"tb\x88"),
    ],
)
def test_cifar10_of_a_wrong_form_is_refused(content, cifar_folder):
    (cifar_folder / "data_batch_1").write_bytes(content)
    with pytest.raises(ValueError, match="data_batch_1"):
        datasets.load_cifar10(cifar_folder, verify=False)


def doubled(times: int) -> bytes:
    """A tuple of one object twice, which is such a tuple itself, and so on."""
    return b"K\x01\x85q\x00" + b"0h\x00h\x00\x86q\x00" * times


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}" + doubled(64) + b"K\x01s.",  # hashed: 2**64 steps
        b"\x80\x04\x8f(" + doubled(64) + b"\x90.",
        b"\x80\x02}(" + doubled(64) + b"1.",
        python2_dict(labels=b"](e", data=b"cnumpy\nndarray\n)\x81(K\x01" + doubled(40) + b"NNNtb"),  # in a message
    ],
)
def test_cifar10_objects_that_unfold_are_refused(content, cifar_folder):
    (cifar_folder / "data_batch_1").write_bytes(content)
    with pytest.raises(ValueError, match="more than 1,000,000 objects"):
        datasets.load_cifar10(cifar_folder, verify=False)


def test_cifar10_messages_stay_short(cifar_folder):
    """An array of a long shape."""
    long = b"(" + b"K\x01" * 10_000 + b"t"
    content = ONE_IMAGE.replace(b"J" + struct.pack("<i", 1) + b"J" + struct.pack("<i", 3072) + b"\x86", long)
    (cifar_folder / "data_batch_1").write_bytes(content)
    with pytest.raises(ValueError, match="expected two axes") as caught:
        datasets.load_cifar10(cifar_folder, verify=False)
    assert len(str(caught.value)) < 1000


def test_cifar10_truncated_at_any_place_is_refused(cifar_folder):
    path = cifar_folder / "data_batch_1"
    whole = path.read_bytes()
    for length in [1, 2, 10, 60, 100, 150, 200, 250, 300, len(whole) // 2, len(whole) - 3, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="data_batch_1"):
            datasets.load_cifar10(cifar_folder, verify=False)


def test_cifar10_shape_that_the_bytes_do_not_fill_is_refused(cifar_folder, cifar_parts):
    content = cifar_batch(*cifar_parts["data_batch_1"]).replace(struct.pack("<i", 4), struct.pack("<i", 2**31 - 1), 1)
    (cifar_folder / "data_batch_1").write_bytes(content)
    with pytest.raises(ValueError, match="promises"):
        datasets.load_cifar10(cifar_folder, verify=False)


def test_cifar10_class_names_are_needed(cifar_folder):
    (cifar_folder / "batches.meta").write_bytes(python2_dict(num_vis=b"K\x01"))
    with pytest.raises(ValueError, match="class names"):
        datasets.load_cifar10(cifar_folder, verify=False)


def test_oversized_files_are_not_read(mnist_folder, cifar_folder, monkeypatch):
    monkeypatch.setattr(_files, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="far more"):
        datasets.load_mnist(mnist_folder, verify=False)
    with pytest.raises(ValueError, match="far more"):
        datasets.load_cifar10(cifar_folder, verify=False)


def test_an_archive_that_expands_is_bounded_and_the_message_names_the_limit(mnist_folder, monkeypatch, peak_bytes):
    monkeypatch.setattr(_files, "MAX_BYTES", 2**20)
    path = mnist_folder / f"{NAMES[0]}.gz"
    path.write_bytes(gzip.compress(bytes(2**26), 1))
    with pytest.raises(ValueError, match=rf"{path.name} holds more than 1,048,576 bytes"):
        datasets.load_mnist(mnist_folder, verify=False)
    assert peak_bytes(lambda: datasets.load_mnist(mnist_folder, verify=False)) < 2**23


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02]r" + struct.pack("<I", 2**23) + b".", "at place 8,388,608 after 2 steps"),
        (b"\x80\x02]q\x08.", "at place 8 after 2 steps"),
        (b"]p8388608\n.", "at place 8,388,608 after 1 steps"),
        (b"\x80\x04]\x94" + b"]r" + struct.pack("<I", 2**23) + b"e.", "at place 8,388,608 after 4 steps"),
        (b"\x80\x02(" + b"]" * 1_000_001 + b"l.", "more than 1,000,000 steps"),
    ],
    ids=["binary", "short", "text", "implicit", "steps"],
)
def test_cifar10_that_would_fill_the_memory_is_refused(content, message, cifar_folder):
    path = cifar_folder / "data_batch_1"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"data_batch_1 is not a CIFAR-10 file: it .*{message}"):
        datasets.load_cifar10(cifar_folder, verify=False)


def digest(content: bytes) -> _files.Checksum:
    return _files.sha256(hashlib.sha256(content).hexdigest())


def test_mnist_download_takes_the_next_address_and_leaves_no_pieces(tmp_path, mnist_folder, monkeypatch):
    broken = tmp_path / "broken"
    broken.mkdir()
    files = {}
    for name in NAMES:
        packed = (mnist_folder / f"{name}.gz").read_bytes()
        files[name] = (digest(packed), digest(gzip.decompress(packed)))
        (broken / f"{name}.gz").write_bytes(packed[:-1])
    monkeypatch.setattr(_mnist, "_MNIST_FILES", files)
    addresses = ((tmp_path / "nowhere").as_uri() + "/", broken.as_uri() + "/", mnist_folder.as_uri() + "/")
    monkeypatch.setattr(_mnist, "MNIST_ADDRESSES", addresses)
    target = tmp_path / "target"
    with pytest.raises(FileNotFoundError):
        datasets.load_mnist(target)
    assert not target.exists()

    assert datasets.load_mnist(target, download=True).X_train.shape == (7, 784)
    assert sorted(path.name for path in (target / "mnist").iterdir()) == sorted(f"{name}.gz" for name in NAMES)

    monkeypatch.setattr(_mnist, "MNIST_ADDRESSES", addresses[:2])
    assert datasets.load_mnist(target, download=True).X_train.shape == (7, 784), "nothing to fetch the second time"
    with pytest.raises(OSError, match="expected"):
        datasets.load_mnist(tmp_path / "other", download=True)
    assert list((tmp_path / "other" / "mnist").iterdir()) == []


def test_cifar10_download_unpacks_the_known_members_only(tmp_path, cifar_folder, cifar_parts, monkeypatch):
    for b in (2, 4, 5):
        (cifar_folder / f"data_batch_{b}").write_bytes(cifar_batch(*cifar_parts["data_batch_1"]))
    (cifar_folder / "surprise").write_bytes(b"?")
    archive = tmp_path / "archive.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(cifar_folder, arcname="cifar-10-batches-py")
    files = {name: digest((cifar_folder / name).read_bytes()) for name in _cifar10._CIFAR10_FILES}
    monkeypatch.setattr(_cifar10, "_CIFAR10_FILES", files)
    monkeypatch.setattr(_cifar10, "_CIFAR10_ARCHIVE", digest(archive.read_bytes()))
    monkeypatch.setattr(_cifar10, "CIFAR10_ADDRESSES", (archive.as_uri(),))
    target = tmp_path / "target"
    cifar = datasets.load_cifar10(target, download=True)
    assert cifar.X_train.shape == (20, 3072)
    assert "all five" in cifar.note
    assert sorted(p.name for p in (target / "cifar-10-batches-py").iterdir()) == sorted(files)


def test_digits():
    digits = datasets.load_digits()
    assert digits.X_train.shape == (1437, 64)
    assert digits.X_test.shape == (360, 64)
    assert digits.X_train.dtype == np.uint8
    assert digits.y_test.dtype == np.intp
    assert set(digits.y_train) == set(range(10))


def test_import_is_light():
    code = "import sys, fastml.datasets; print({'sklearn', 'numba', 'tqdm', 'urllib.request'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_dataset_is_frozen_and_prints_short():
    digits = datasets.load_digits()
    with pytest.raises(AttributeError):
        digits.name = "other"  # type: ignore[misc]
    assert len(repr(digits)) < 400


def test_real_mnist(real_data):
    mnist = datasets.load_mnist(real_data)
    assert mnist.X_train.shape == (60000, 784)
    assert mnist.X_test.shape == (10000, 784)
    assert mnist.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.X_train.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert mnist.X_train.std() / 255 == pytest.approx(0.3081, abs=5e-5)


def test_real_cifar10(real_data):
    cifar = datasets.load_cifar10(real_data, batches=(1,))
    assert cifar.X_train.shape == (10000, 3072)
    assert cifar.X_test.shape == (10000, 3072)
    assert cifar.y_train[:4].tolist() == [6, 9, 9, 4]
    assert cifar.target_names == tuple(c.decode() for c in CLASSES)
    # The pixels lie at a known place in the file, which is a second way to read them.
    place = real_data / "cifar-10-batches-py"
    raw = np.fromfile((place if place.is_dir() else real_data) / "data_batch_1", np.uint8, 30_720_000, offset=20218)
    np.testing.assert_array_equal(cifar.X_train, raw.reshape(10000, 3072))
