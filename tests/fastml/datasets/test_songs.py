"""The readers of song data, on small files in the official format and, where FASTML_DATA is set, on the real ones."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from fastml import datasets
from fastml.datasets import _files, _songs

FIRST_SONG = [2001, 49.94357, 21.47114, 73.0775]


@pytest.fixture
def songs(monkeypatch) -> np.ndarray:
    """Fifty rows in the form of YearPredictionMSD: a year and 90 numbers of five decimals."""
    rng = np.random.default_rng(2)
    rows = np.column_stack([rng.integers(1922, 2012, 50), (rng.normal(size=(50, 90)) * 900).round(5)])
    rows[0, :4] = FIRST_SONG
    monkeypatch.setattr(_songs, "_MSD_ROWS", (45, 5))
    monkeypatch.setattr(_files, "BLOCK_ROWS", 16)
    return rows


def text_of(rows: np.ndarray) -> bytes:
    lines = [f"{row[0]:.0f}," + ",".join(f"{value:.5f}" for value in row[1:]) for row in rows]
    return ("\n".join(lines) + "\n").encode()


@pytest.fixture
def songs_file(tmp_path, songs) -> Path:
    path = tmp_path / "year_prediction_msd" / "YearPredictionMSD.txt"
    path.parent.mkdir()
    path.write_bytes(text_of(songs))
    return path


def pack(path: Path, content: bytes, name: str = "YearPredictionMSD.txt") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


@pytest.mark.parametrize("dtype", [np.float32, "float64"])
@pytest.mark.parametrize("layout", ["own folder", "parent", "environment", "zip", "zip with folder", "windows lines"])
def test_songs_are_read_from_every_layout(layout, dtype, songs_file, songs, monkeypatch):
    folder: Path | None = songs_file.parent
    if layout == "parent":
        folder = songs_file.parents[1]
    elif layout == "environment":
        monkeypatch.setenv(datasets.DATA_VARIABLE, str(songs_file.parents[1]))
        folder = None
    elif layout.startswith("zip"):
        name = "data/YearPredictionMSD.txt" if "folder" in layout else "YearPredictionMSD.txt"
        pack(songs_file.with_name("YearPredictionMSD.txt.zip"), songs_file.read_bytes(), name)
        songs_file.unlink()
    elif layout == "windows lines":
        songs_file.write_bytes(songs_file.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    msd = datasets.load_year_prediction_msd(folder, dtype=dtype)
    np.testing.assert_array_equal(msd.X_train, songs[:45, 1:].astype(dtype))
    np.testing.assert_array_equal(msd.X_test, songs[45:, 1:].astype(dtype))
    np.testing.assert_array_equal(msd.y_train, songs[:45, 0])
    np.testing.assert_array_equal(msd.y_test, songs[45:, 0])
    assert msd.X_train.dtype == msd.X_test.dtype == dtype
    assert msd.y_train.dtype == np.intp
    assert msd.X_train.flags.c_contiguous
    assert (msd.target_names, msd.image_shape) == ((), ())
    assert "45 training and 5 test songs" in msd.note


def edited(change):
    """A song file of which one row is changed."""
    return lambda text: b"\n".join(change(i, line) for i, line in enumerate(text.split(b"\n")))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], r"lines 17 to 2\d: "),
        (lambda text: text.rpartition(b"\n2")[0], "49 rows|rows, expected 50"),
        (lambda text: text + text.split(b"\n")[3] + b"\n", "more than the 50 rows"),
        (lambda text: b"", "0 rows, expected 50"),
        (lambda text: text.replace(b"2001,", b"2002,", 1), "not the official file: its first row"),
        (edited(lambda i, line: line.replace(b",", b";") if i == 20 else line), "lines 17 to 32: "),
        (edited(lambda i, line: line + b",1.0" if line else line), "92 columns, expected 91"),
        (edited(lambda i, line: line + b",1.0" if i == 40 else line), "lines 33 to 48: "),
        (edited(lambda i, line: line.replace(b".", b".x", 1) if i == 5 else line), "could not convert string"),
        (edited(lambda i, line: b"1999,nan" + line[line.index(b",", 6) :] if i == 7 else line), "not all .* finite"),
        (edited(lambda i, line: b"1999.5" + line[4:] if i == 9 else line), "has 1999.5 in the column of years"),
        (edited(lambda i, line: b"2012" + line[4:] if i == 9 else line), "has 2012.0 in the column of years"),
        (lambda text: text.replace(b"1", "é".encode(), 2), "no plain text"),
    ],
)
@pytest.mark.parametrize("packed", [False, True], ids=["text", "zip"])
def test_songs_of_a_wrong_form_are_refused(damage, message, packed, songs_file):
    content = damage(songs_file.read_bytes())
    songs_file.write_bytes(content)
    if packed:
        pack(songs_file.with_name("YearPredictionMSD.txt.zip"), content)
        songs_file.unlink()
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load_year_prediction_msd(songs_file.parent)
    assert "YearPredictionMSD.txt" in str(caught.value)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"no zip", lambda b: b[:200] + b"?" + b[201:]]
)
def test_songs_damaged_archive_is_refused(damage, songs_file):
    archive = pack(songs_file.with_name("YearPredictionMSD.txt.zip"), songs_file.read_bytes())
    songs_file.unlink()
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(ValueError, match=r"\.txt\.zip.* is damaged|\.txt\.zip, lines"):
        datasets.load_year_prediction_msd(songs_file.parent)


def test_songs_archive_without_the_text_is_refused(songs_file):
    pack(songs_file.with_name("YearPredictionMSD.txt.zip"), songs_file.read_bytes(), "README.txt")
    songs_file.unlink()
    with pytest.raises(ValueError, match=r"holds no files named YearPredictionMSD\.txt"):
        datasets.load_year_prediction_msd(songs_file.parent)


def test_songs_without_verification_may_be_fewer_and_of_any_year(songs_file, songs):
    songs[0, 0] = 1850
    songs_file.write_bytes(text_of(songs[:20]))
    msd = datasets.load_year_prediction_msd(songs_file.parent, verify=False)
    assert (len(msd.X_train), len(msd.X_test)) == (18, 2)
    assert msd.y_train[0] == 1850
    np.testing.assert_array_equal(np.vstack([msd.X_train, msd.X_test]), songs[:20, 1:])


def test_songs_dtype_and_folder(songs_file):
    with pytest.raises(ValueError, match="dtype is int64"):
        datasets.load_year_prediction_msd(songs_file.parent, dtype=np.int64)
    with pytest.raises(FileNotFoundError, match=datasets.DATA_VARIABLE):
        datasets.load_year_prediction_msd()
    songs_file.unlink()
    with pytest.raises(FileNotFoundError, match=r"YearPredictionMSD\.txt, YearPredictionMSD\.txt\.zip") as caught:
        datasets.load_year_prediction_msd(songs_file.parents[1])
    assert str(songs_file.parent) in str(caught.value)
    assert "download=True" in str(caught.value)


def test_songs_progress(songs_file, capsys):
    datasets.load_year_prediction_msd(songs_file.parent, progress=True)
    assert "50.0/50.0" in capsys.readouterr().err
    datasets.load_year_prediction_msd(songs_file.parent)
    assert capsys.readouterr() == ("", "")


def test_songs_download_takes_the_next_address_and_an_intact_archive_only(tmp_path, songs_file, songs, monkeypatch):
    good = pack(tmp_path / "good.zip", songs_file.read_bytes())
    broken = tmp_path / "broken.zip"
    broken.write_bytes(good.read_bytes()[:-9])
    flipped = tmp_path / "flipped.zip"
    flipped.write_bytes(good.read_bytes()[:200] + b"?" + good.read_bytes()[201:])
    page = tmp_path / "page.html"
    page.write_text("<html>moved</html>")
    bad = tuple(path.as_uri() for path in (tmp_path / "nowhere", page, broken, flipped))
    monkeypatch.setattr(_songs, "YEAR_PREDICTION_MSD_ADDRESSES", bad)
    target = tmp_path / "target"
    with pytest.raises(OSError, match="could not be downloaded") as caught:
        datasets.load_year_prediction_msd(target, download=True)
    assert str(caught.value).count("\n  file:") == 4
    assert list((target / "year_prediction_msd").iterdir()) == []
    monkeypatch.setattr(_songs, "YEAR_PREDICTION_MSD_ADDRESSES", (*bad, good.as_uri()))
    msd = datasets.load_year_prediction_msd(target, download=True)
    np.testing.assert_array_equal(msd.X_test, songs[45:, 1:])
    assert [path.name for path in (target / "year_prediction_msd").iterdir()] == ["YearPredictionMSD.txt.zip"]


@pytest.mark.parametrize("packed", [False, True], ids=["text", "zip"])
def test_songs_that_expand_are_bounded(packed, songs_file):
    head = songs_file.read_bytes()
    for content, message in (
        (head + b"1" * 3000, "lines 49 to 52: a line is longer than 2,912 characters; 91 numbers are expected"),
        (head + b"\n" * 1000, "lines 65 to 80: more than 16 blank lines until here"),
        (head + b"\n" * 200_000, r"has a text of 2\d\d,\d{3} bytes; that of this data set has at most 145,600"),
    ):
        songs_file.write_bytes(content)
        if packed:
            songs_file.unlink()
            pack(songs_file.with_name("YearPredictionMSD.txt.zip"), content)
        with pytest.raises(ValueError, match=rf"YearPredictionMSD\.txt\S* {message}"):
            datasets.load_year_prediction_msd(songs_file.parent)


def test_songs_in_one_endless_line_take_little_memory(songs_file, monkeypatch, peak_bytes):
    monkeypatch.setattr(_songs, "_MSD_ROWS", (463_715, 51_630))
    pack(songs_file.with_name("YearPredictionMSD.txt.zip"), b"1" * 2**25)
    songs_file.unlink()
    X = 515_345 * 90 * 4  # of the result, which is there before
    load = datasets.load_year_prediction_msd
    assert peak_bytes(lambda: load(songs_file.parent, dtype=np.float32, progress=False)) - X < 2**24


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_songs_packed_so_that_unpacking_has_no_bound_are_refused(method, songs_file):
    with zipfile.ZipFile(songs_file.with_name("YearPredictionMSD.txt.zip"), "w", method) as archive:
        archive.write(songs_file, songs_file.name)
    songs_file.unlink()
    with pytest.raises(ValueError, match=rf"YearPredictionMSD\.txt\.zip is packed by method {method}"):
        datasets.load_year_prediction_msd(songs_file.parent)


def test_songs_download_is_bounded(tmp_path, songs_file, monkeypatch):
    archive = pack(tmp_path / "songs.zip", songs_file.read_bytes() + b"\n" * 200_000)
    monkeypatch.setattr(_songs, "YEAR_PREDICTION_MSD_ADDRESSES", (archive.as_uri(),))
    with pytest.raises(OSError, match=r"it has a text of 2\d\d,\d{3} bytes"):
        datasets.load_year_prediction_msd(tmp_path / "target", download=True)
    monkeypatch.setattr(_files, "MAX_BYTES", 1000)
    with pytest.raises(OSError, match="it is longer than 1,000 bytes"):
        datasets.load_year_prediction_msd(tmp_path / "target", download=True)
    assert list((tmp_path / "target" / "year_prediction_msd").iterdir()) == []


def test_small_songs(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    rows = np.column_stack([rng.integers(1922, 2012, 11), rng.uniform(size=(11, 12)).round(5)])
    home = tmp_path / "msd_year12"
    home.mkdir()
    (home / "millionsong.txt").write_bytes(text_of(rows))
    with pytest.raises(ValueError, match="not the official file: its sha256"):
        datasets.load_year_prediction_small(tmp_path)
    for folder in (tmp_path, home):
        small = datasets.load_year_prediction_small(folder, dtype=np.float32, verify=False)
        np.testing.assert_array_equal(small.X_test, rows[[4, 9], 1:].astype(np.float32))
        np.testing.assert_array_equal(small.y_train, rows[[0, 1, 2, 3, 5, 6, 7, 8, 10], 0])
        assert small.X_train.dtype == np.float32
    with pytest.raises(ValueError, match="dtype is float16"):
        datasets.load_year_prediction_small(home, dtype=np.float16)
    (home / "millionsong.txt").write_bytes(text_of(rows[:, :-1]))
    with pytest.raises(ValueError, match="12 columns, expected 13"):
        datasets.load_year_prediction_small(home, verify=False)
    (home / "millionsong.txt").write_bytes(b"\n\n")
    with pytest.raises(ValueError, match="is empty"):
        datasets.load_year_prediction_small(home, verify=False)
    (home / "millionsong.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"millionsong\.txt") as caught:
        datasets.load_year_prediction_small(home)
    assert "download" not in str(caught.value)


def test_real_small_songs(real_data):
    small = datasets.load_year_prediction_small(real_data)
    assert small.X_train.shape == (5380, 12)
    assert small.X_test.shape == (1344, 12)
    X, y = np.vstack([small.X_train, small.X_test]), np.concatenate([small.y_train, small.y_test])
    assert (y.min(), y.max()) == (1922, 2011)
    assert (X.min(axis=0) == 0).all()
    assert (X.max(axis=0) == 1).all()
    assert y.std() == pytest.approx(21.418, abs=5e-4)
    design = np.column_stack([X, np.ones(len(X))])
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    assert np.sqrt(np.mean(residual**2)) == pytest.approx(15.579, abs=5e-4)
