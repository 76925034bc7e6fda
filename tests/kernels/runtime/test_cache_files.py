"""Where machine code is kept, whom it is taken from, and what is never touched. Nothing is compiled here."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastml.kernels.runtime import _cache_files

pytestmark = [
    pytest.mark.safety,
    pytest.mark.skipif(os.name != "posix", reason="owners and permissions of POSIX"),
]
AS_ROOT = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can be several users")

VERSIONS = "0123456789abcdef"
OTHERS = "fedcba9876543210"
NAME = f"module.kernel.{'0' * 32}.bin"
ALICE, BOB = 2001, 2002
LONG_AGO = time.time() - _cache_files.STALE_AFTER_S - 3600


@pytest.fixture(autouse=True)
def places(monkeypatch) -> Iterator[tuple[Path, Path]]:
    """Name a folder in the environment, and make a home, where all users may enter; return both."""
    with tempfile.TemporaryDirectory() as name:
        named, home = Path(name) / "named", Path(name) / "home"
        Path(name).chmod(0o755)
        named.mkdir()
        home.mkdir()
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(named))
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(_cache_files, "_warned", set())
        monkeypatch.setattr(_cache_files, "_swept", set())
        yield named, home


@pytest.fixture
def named(places) -> Path:
    return places[0] / "fastml"


@pytest.fixture
def own(places) -> Path:
    return places[1] / ".cache" / "fastml"


@pytest.fixture
def only_own(own, monkeypatch) -> Path:
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    return own


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def user(uid: int) -> Iterator[None]:
    """Be another user for a while, as far as files are concerned."""
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def keep(content: bytes = b"code", versions: str = VERSIONS) -> None:
    _cache_files.write(versions, NAME, content)


def quietly_keep(content: bytes = b"code") -> list[str]:
    """Keep a file and return what was said about it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        keep(content)
    return [str(warning.message) for warning in caught]


def read(versions: str = VERSIONS) -> bytes | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _cache_files.read(versions, NAME)
        except OSError:
            return None


def path_in(root: Path, versions: str = VERSIONS) -> Path:
    return root / "machine-code" / versions / NAME


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def age(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)


def everything(root: Path) -> dict[str, tuple[int, int, float, bytes]]:
    """Return mode, owner, time and content of all that is in a folder."""
    found = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = status.st_mode, status.st_uid, status.st_mtime, content
    return found


# ------------------------------------------------------------------------------ folders and files


@pytest.mark.parametrize("mask", [0, 0o022, 0o077, 0o277])
def test_modes_do_not_depend_on_the_umask(named, own, monkeypatch, mask):
    (named.parent).rmdir()  # made too
    with umask(mask):
        keep()
        monkeypatch.delenv("NUMBA_CACHE_DIR")
        keep()
    file, own_file = path_in(named), path_in(own)
    assert (mode(file), mode(own_file)) == (0o644, 0o600)
    assert {mode(folder) for folder in [*list(file.parents)[:3], named.parent]} == {0o755}
    assert {mode(folder) for folder in [*list(own_file.parents)[:3], own.parent]} == {0o700}
    assert [path for path in named.parent.rglob("*") if path.is_file()] == [file]


def test_what_was_kept_is_read_and_written_over(named):
    assert read() is None
    for content in (b"one", b"two"):
        assert quietly_keep(content) == []
        assert read() == content
        assert read(OTHERS) is None


def test_a_full_disk_leaves_nothing_behind(named, monkeypatch):
    def no_room(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_room)
    assert quietly_keep() == []
    assert [path for path in named.rglob("*") if path.is_file()] == []


def test_removal_takes_one_kernel_and_no_other(named):
    keep()
    others = [path_in(named).with_name(name) for name in (f"module.kernel2.{'0' * 32}.bin", "module.kernel.mine")]
    for other in others:
        other.write_bytes(b"")
    _cache_files.remove(VERSIONS, "module.kernel")
    assert sorted(path_in(named).parent.iterdir()) == sorted(others)


def test_a_read_only_folder_is_meant_to_be_one(named, monkeypatch):
    """Nothing is said, and nothing is kept in the user's own folder instead."""

    def read_only(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_cache_files, "_make", read_only)
    assert quietly_keep() == []
    assert not (named.parents[1] / "home" / ".cache").exists()


# ----------------------------------------------------------------------------------------- trust


LEVELS = {"file": 0, "versions": 1, "machine-code": 2, "fastml": 3}


def link(path: Path) -> None:
    path.symlink_to(path.rename(f"{path}-moved"))


PLANTED = {
    "another user's": lambda path: os.chown(path, ALICE, ALICE),
    "writable by a group": lambda path: path.chmod(mode(path) | 0o020),
    "writable by all": lambda path: path.chmod(mode(path) | 0o002),
    "a link": link,
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("how", PLANTED)
def test_what_others_may_have_put_there_is_neither_read_nor_replaced(named, own, how, level):
    if how.startswith("another") and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    keep(b"planted")
    path = [path_in(named), *path_in(named).parents][LEVELS[level]]
    PLANTED[how](path)
    before = everything(named.parent)
    assert read() is None
    (message,) = quietly_keep(b"own")
    assert str(path) in message
    assert str(path) in _cache_files.state(VERSIONS).reason or level == "file"
    assert everything(named.parent) == before
    assert path_in(own).read_bytes() == b"own"
    assert read() == b"own"


def test_the_user_is_told_once(named):
    keep()
    named.chmod(0o777)
    assert len(quietly_keep()) == 1
    assert quietly_keep() == []


def test_it_is_told_also_where_nothing_has_to_be_compiled(named, own):
    keep(b"planted")
    named.chmod(0o777)
    quietly_keep(b"own")
    _cache_files._warned.clear()
    with pytest.warns(RuntimeWarning, match="can be written by other users"):
        assert _cache_files.read(VERSIONS, NAME) == b"own"


def test_a_warning_is_never_an_error(named, own):
    keep()
    named.chmod(0o777)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keep(b"own")
    assert path_in(own).read_bytes() == b"own"


def test_state_names_the_folder_that_is_used_and_why(named, own):
    keep()
    assert _cache_files.state(VERSIONS) == (str(path_in(named).parent), True, "writable")
    named.chmod(0o770)
    info = _cache_files.state(VERSIONS)
    assert (info.path, info.writable) == (str(path_in(own).parent), True)
    assert info.reason == f"writable; {named} can be written by other users (mode 770)"


def test_a_folder_that_all_may_write_to_but_not_remove_from_will_do(named):
    named.parent.chmod(0o1777)
    assert quietly_keep() == []
    assert read() == b"code"


def test_an_own_folder_that_cannot_be_trusted(only_own):
    keep(b"planted")
    path_in(only_own).parent.chmod(0o777)
    (message,) = quietly_keep(b"own")
    assert "can be written by other users" in message
    assert read() is None
    info = _cache_files.state(VERSIONS)
    assert (info.path, info.writable) == (None, False)
    assert "can be written by other users" in info.reason


def test_an_own_folder_that_cannot_be_written(only_own, places):
    only_own.parent.write_text("a file")
    (message,) = quietly_keep()
    assert f"{only_own} cannot be written: " in message
    assert _cache_files.state(VERSIONS).reason.startswith("cannot be written: ")


def test_an_own_folder_that_a_former_version_left_open_is_closed(only_own):
    """Under the umask of many systems; what else is in it keeps its permissions."""
    (only_own / "mnist").mkdir(parents=True)
    (only_own / "mnist").chmod(0o775)
    only_own.chmod(0o2775)
    assert quietly_keep() == []
    assert read() == b"code"
    assert (mode(only_own) & 0o777, mode(only_own / "mnist")) == (0o755, 0o775)


def test_a_pipe_is_not_waited_for(named):
    keep()
    path_in(named).unlink()
    os.mkfifo(path_in(named))
    assert read() is None


@AS_ROOT
def test_code_kept_by_root_is_for_all_users(named):
    with umask(0o077):
        keep()
    with user(ALICE):
        assert read() == b"code"
        assert _cache_files.state(VERSIONS) == (
            str(path_in(named).parent),
            False,
            "cannot be written: Permission denied",
        )


@AS_ROOT
def test_users_of_one_folder_do_not_run_each_others_code(named, places, monkeypatch):
    """As with a folder of a group: the second user keeps code in a folder of their own, and finds it there."""
    named.parent.chmod(0o2777)
    for uid in (ALICE, BOB):
        home = places[1] / str(uid)
        home.mkdir()
        os.chown(home, uid, uid)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setattr(_cache_files, "_warned", set())
        with user(uid):
            said = quietly_keep(str(uid).encode())
            assert read() == str(uid).encode()
        assert len(said) == (uid == BOB)
        assert (home / ".cache").exists() == (uid == BOB)
    assert path_in(named).read_bytes() == str(ALICE).encode()
    assert f"belongs to user {ALICE}, not to user {BOB} or root" in said[0]


@AS_ROOT
@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
def test_nothing_is_made_in_another_users_home(places, monkeypatch, variable):
    """As under ``sudo -E``: root's code goes where root lives."""
    import pwd

    monkeypatch.delenv("NUMBA_CACHE_DIR")
    home, roots = places[1], places[0] / "root"
    os.chown(home, ALICE, ALICE)
    roots.mkdir()
    monkeypatch.setenv(variable, str(home))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd(("", "", uid, 0, "", str(roots), "")))
    assert _cache_files.state(VERSIONS).path == str(path_in(roots / ".cache" / "fastml").parent)
    keep()
    assert list(home.iterdir()) == []
    assert path_in(roots / ".cache" / "fastml").exists()


@AS_ROOT
def test_a_folder_that_root_left_in_a_home_is_told(only_own, places):
    keep()  # as root, by way of HOME
    os.chown(places[1], ALICE, ALICE)
    with user(ALICE):
        (message,) = quietly_keep()
    assert f"{only_own} cannot be written: Permission denied" in message


# ---------------------------------------------------------------------------------------- places


@pytest.mark.parametrize("kind", ["named", "own"])
def test_state_makes_no_folders(named, own, monkeypatch, kind):
    if kind == "own":
        monkeypatch.delenv("NUMBA_CACHE_DIR")
    root = named if kind == "named" else own
    assert _cache_files.state(VERSIONS) == (str(path_in(root).parent), True, "writable")
    assert list(named.parent.iterdir()) == []
    assert list(own.parents[1].iterdir()) == []


def test_a_relative_name_means_one_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", f"relative-{tmp_path.name}")  # what it means is remembered
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    monkeypatch.chdir(tmp_path / "first")
    keep()
    monkeypatch.chdir(tmp_path / "second")
    assert read() == b"code"
    keep(versions=OTHERS)
    assert list((tmp_path / "second").iterdir()) == []


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME"])
def test_a_relative_variable_of_the_user_is_ignored(only_own, monkeypatch, tmp_path, variable):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(only_own.parent))
    monkeypatch.setenv(variable, "relative")
    keep()
    assert path_in(only_own).exists()
    assert list(tmp_path.iterdir()) == []


def test_where_the_users_own_folder_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    expected = {
        "linux": ".cache/fastml",
        "darwin": "Library/Caches/fastml",
        "win32": "AppData/Local/fastml/Cache",
    }
    for platform, folder in expected.items():
        monkeypatch.setattr(sys, "platform", platform)
        assert _cache_files._own_folder() == tmp_path / folder
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert _cache_files._own_folder() == tmp_path / "local" / "fastml" / "Cache"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert _cache_files._own_folder() == tmp_path / "xdg" / "fastml"


# ----------------------------------------------------------------------------------- housekeeping


@pytest.fixture(params=["named", "own"])
def root(request, named, own, monkeypatch) -> Path:
    """Either place, with code of other versions in it."""
    if request.param == "own":
        monkeypatch.delenv("NUMBA_CACHE_DIR")
    keep(versions=OTHERS)
    _cache_files._swept.clear()
    return named if request.param == "named" else own


def test_code_that_nobody_used_for_long_is_removed(root):
    old = path_in(root, OTHERS)
    left = old.with_name(f".writing-{'0' * 16}")
    left.write_bytes(b"")
    age(old, left, old.parent)
    keep()
    assert list((root / "machine-code").iterdir()) == [path_in(root).parent]


def test_old_code_of_the_current_versions_is_removed(root):
    old = path_in(root, OTHERS).with_name(f"module.other.{'1' * 32}.bin")
    old.write_bytes(b"")
    age(old)
    keep(versions=OTHERS)
    assert list(old.parent.iterdir()) == [path_in(root, OTHERS)]


@pytest.mark.parametrize("used", ["read by its owner", "read by somebody who may not mark it", "written"])
def test_code_in_use_stays(root, used):
    file = path_in(root, OTHERS)
    age(file, file.parent)
    if used == "written":
        keep(versions=OTHERS)
    elif used == "read by its owner":
        assert read(OTHERS) == b"code"
        assert file.stat().st_mtime > time.time() - 3600
    else:
        os.utime(file, (time.time(), LONG_AGO))  # what reading does where the file system counts it
    age(file.parent)
    _cache_files._swept.clear()
    keep()
    assert file.read_bytes() == b"code"


def test_what_fastml_did_not_make_stays(root, tmp_path):
    """Data sets, a clone of the repository, folders and files of other names, and what links lead to."""
    target = tmp_path / "target"
    inner = path_in(root, OTHERS).parent
    link_target = target / f"module.kernel.{'2' * 32}.bin"
    strangers = [
        root / "mnist" / "train-images-idx3-ubyte.gz",
        root / VERSIONS / "weights.bin",
        root / "docs" / "cache.md",
        root / "machine-code" / "notes" / "mine.bin",
        root / "machine-code" / VERSIONS.upper() / NAME,
        inner / "mine.bin",
        inner / f"folder.{'0' * 32}.bin" / "mine",
        link_target,
    ]
    for path in strangers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
    (root / "machine-code" / ("a" * 16)).symlink_to(target)
    (inner / f"link.{'0' * 32}.bin").symlink_to(link_target)
    paths = [root, *root.rglob("*"), target, *target.iterdir()]
    age(*(path for path in paths if path != path_in(root)))
    keep()
    assert {path.read_bytes() for path in strangers} == {b"mine"}
    assert (root / "machine-code" / ("a" * 16)).is_symlink()
    assert (inner / f"link.{'0' * 32}.bin").is_symlink()
    assert not path_in(root, OTHERS).exists(), "the test could not fail"


@AS_ROOT
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_another_user_made_stays(root, what):
    file = path_in(root, OTHERS)
    os.chown(file if what == "file" else file.parent, ALICE, ALICE)
    age(file, file.parent)
    keep()
    assert file.exists()


def test_a_machine_code_folder_of_others_is_not_tidied(root):
    file = path_in(root, OTHERS)
    age(file, file.parent)
    (root / "machine-code").chmod(0o777)
    quietly_keep()
    assert file.exists()
