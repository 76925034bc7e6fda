"""The cache through upgrades, damage, missing rights and crowds: it may be slow, it may never be wrong."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from cache_probe import NEW_HELPER, PROBE, SIGMOID, environment, files, is_right, package_copy, probe

pytestmark = pytest.mark.needs_jit

POSIX_PERMISSIONS = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")


# --------------------------------------------------------------------------------- upgrade in place


def upgrade(tmp_path: Path, change_first: str = "") -> dict:
    """Call, change a helper in another file than the kernel's, call again in a new process."""
    package, cache = package_copy(tmp_path / "site"), tmp_path / "cache"
    with (package / "runtime" / "jit.py").open("a", encoding="utf-8") as stream:
        stream.write(change_first)
    assert is_right(probe(cache, PYTHONPATH=str(tmp_path / "site")))
    assert probe(cache, PYTHONPATH=str(tmp_path / "site"))["misses"] == 0
    with (package / "simd" / "functions.py").open("a", encoding="utf-8") as stream:
        stream.write(NEW_HELPER)
    return probe(cache, PYTHONPATH=str(tmp_path / "site"))


def test_upgrade_in_place_of_a_helper_in_another_file(tmp_path):
    after = upgrade(tmp_path)
    assert after["value"] == 7
    assert (after["hits"], after["misses"]) == (0, 1)


def test_a_digest_that_misses_the_change_would_be_seen(tmp_path):
    after = upgrade(tmp_path, change_first="\n\n_live_code.digest = lambda _: 'always the same'\n")
    assert is_right(after), "the test above could not fail"


@pytest.mark.slow
def test_two_versions_side_by_side_keep_their_own_code(tmp_path):
    package_copy(tmp_path / "old")
    new = package_copy(tmp_path / "new")
    with (new / "simd" / "functions.py").open("a", encoding="utf-8") as stream:
        stream.write(NEW_HELPER)
    for misses in (1, 0):
        for version, expected in (("old", SIGMOID), ("new", 7)):
            found = probe(tmp_path / "cache", PYTHONPATH=str(tmp_path / version))
            assert found["value"] == pytest.approx(expected, rel=1e-15)
            assert found["misses"] == misses


@pytest.mark.slow
@pytest.mark.parametrize(
    "imported",
    ["fastml.kernels.losses.elementwise", "fastml.kernels.simd.functions", "fastml.kernels.runtime.jit", "numba"],
)
def test_upgrade_under_a_running_process(tmp_path, imported):
    """What the process runs is old, new, or, if it imports some modules now and some later, both."""
    package, site = package_copy(tmp_path / "site"), str(tmp_path / "site")
    wait = f"""
import importlib, sys
importlib.import_module({imported!r})
print("ready", flush=True)
sys.stdin.readline()
"""
    code = wait + PROBE.format(before="", after="")
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(tmp_path / "cache", PYTHONPATH=site),
        cwd=tempfile.gettempdir(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout.readline() == "ready\n"
    with (package / "simd" / "functions.py").open("a", encoding="utf-8") as stream:
        stream.write(NEW_HELPER)
    output, _ = running.communicate("\n", timeout=120)
    found = json.loads(output)
    has_old_helper = imported in ("fastml.kernels.losses.elementwise", "fastml.kernels.simd.functions")
    assert found["value"] == pytest.approx(SIGMOID if has_old_helper else 7, rel=1e-15)

    after = probe(tmp_path / "cache", PYTHONPATH=site)
    assert after["value"] == 7
    assert after["misses"] == has_old_helper


# ------------------------------------------------------------------------------------ damaged files


def with_digest(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest() + payload


DAMAGES = {
    "empty": lambda content: b"",
    "shorter than a digest": lambda content: content[:10],
    "digest alone": lambda content: content[:32],
    "truncated": lambda content: content[: len(content) // 2],
    "last byte missing": lambda content: content[:-1],
    "garbage": lambda content: np.random.default_rng(0).bytes(len(content)),
    "bit flipped in the code": lambda content: flipped(content, len(content) // 2),
    "bit flipped in the digest": lambda content: flipped(content, 5),
    "longer": lambda content: content + b"\0",
    "sound digest of garbage": lambda content: with_digest(b"no pickle"),
    "sound digest of another pickle": lambda content: with_digest(b"\x80\x04N."),
}


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.safety
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_compiled_again_and_mended(copy_of_filled, damage):
    (file,) = files(copy_of_filled)
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    found = probe(copy_of_filled)
    assert is_right(found)
    assert (found["hits"], found["misses"]) == (0, 1)
    assert files(copy_of_filled) == [file]
    assert probe(copy_of_filled)["misses"] == 0


@pytest.mark.safety
def test_a_folder_in_place_of_the_file(copy_of_filled):
    (file,) = files(copy_of_filled)
    file.unlink()
    file.mkdir()
    found = probe(copy_of_filled)
    assert is_right(found)
    assert found["misses"] == 1
    assert files(copy_of_filled) == [], "no half-written file may stay"


# --------------------------------------------------------------- a cache that cannot be used


@pytest.mark.safety
@pytest.mark.parametrize("variable", ["NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME"])
def test_a_file_where_the_folder_should_be(tmp_path, variable):
    if variable != "NUMBA_CACHE_DIR" and sys.platform in ("win32", "darwin"):
        pytest.skip("does not lead to the cache folder here")
    occupied = tmp_path / "file"
    occupied.write_text("mine")
    cache = occupied if variable == "NUMBA_CACHE_DIR" else None
    warning = "" if cache else "the cache of compiled kernels: "
    found = probe(cache, warning=warning, **({} if cache else {variable: str(occupied)}))
    assert is_right(found)
    assert found["misses"] == 1
    assert not found["writable"]
    assert found["reason"].startswith("cannot be written: ")
    assert occupied.read_text() == "mine"


# Root may write anywhere: give that up, but only after everything is imported.
AS_NOBODY = """
import numba
numba.njit(lambda x: x + 1)(1)
import os
if os.geteuid() == 0:
    os.seteuid(65534)
"""


@pytest.fixture
def open_folder():
    """A folder that other users may enter, unlike those that pytest makes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            path.chmod(0o755)


@pytest.mark.safety
@POSIX_PERMISSIONS
def test_a_read_only_folder_serves_what_it_holds(filled, open_folder):
    cache = Path(shutil.copytree(filled, open_folder / "cache"))
    for path in cache.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    cache.chmod(0o555)
    found = probe(cache, before=AS_NOBODY)
    assert is_right(found)
    assert (found["hits"], found["misses"]) == (1, 0)
    assert not found["writable"]
    assert found["reason"] == "cannot be written: Permission denied"


@pytest.mark.safety
@POSIX_PERMISSIONS
def test_a_read_only_empty_folder(open_folder):
    cache = open_folder / "cache"
    cache.mkdir()
    cache.chmod(0o555)
    found = probe(cache, before=AS_NOBODY)
    assert is_right(found)
    assert (found["hits"], found["misses"], found["writable"]) == (0, 1, False)
    assert files(cache) == []


@pytest.mark.safety
@POSIX_PERMISSIONS
def test_a_folder_and_a_file_that_cannot_be_read(filled, open_folder):
    cache = Path(shutil.copytree(filled, open_folder / "cache"))
    (file,) = files(cache)
    file.chmod(0)
    unreadable_file = probe(cache, before=AS_NOBODY)
    cache.chmod(0)
    unreadable_folder = probe(cache, before=AS_NOBODY)
    for found in (unreadable_file, unreadable_folder):
        assert is_right(found)
        assert (found["hits"], found["misses"], found["writable"]) == (0, 1, False)


@pytest.mark.safety
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no file system that even root cannot write to")
def test_a_file_system_without_room_for_folders():
    found = probe(Path("/proc"))
    assert is_right(found)
    assert (found["misses"], found["writable"]) == (1, False)


# What runs if a file is loaded that somebody put there.
PLANTED = """
import hashlib, pathlib, pickle, sys
class Planted:
    def __reduce__(self):
        return print, ("code of another user runs",)
payload = pickle.dumps(Planted())
for file in pathlib.Path(sys.argv[1]).rglob("*.bin"):
    file.write_bytes(hashlib.sha256(payload).digest() + payload)
"""


@pytest.mark.safety
@POSIX_PERMISSIONS
@pytest.mark.parametrize("how", ["another user's", "writable by others"])
def test_code_that_others_may_have_planted_does_not_run(copy_of_filled, tmp_path, how):
    subprocess.run([sys.executable, "-c", PLANTED, str(copy_of_filled)], check=True)
    if how == "writable by others":
        (copy_of_filled / "fastml").chmod(0o777)
    elif os.geteuid() == 0:
        for path in [copy_of_filled, *copy_of_filled.rglob("*")]:
            os.chown(path, 2001, 2001)
    else:
        pytest.skip("only root can give files away")
    home = tmp_path / "home"
    home.mkdir()
    said = f"the cache of compiled kernels: {copy_of_filled / 'fastml'} "
    first = probe(copy_of_filled, HOME=str(home), warning=said)  # prints one line of JSON, or this fails
    assert is_right(first)
    assert Path(first["path"]).is_relative_to(home)
    assert str(copy_of_filled) in first["reason"]
    assert probe(copy_of_filled, HOME=str(home), warning=said)["misses"] == 0


@pytest.mark.safety
def test_no_folder_is_taken_from_a_file_in_the_current_folder(tmp_path):
    """Numba reads ``.numba_config.yaml`` there, which anybody may have put into a folder of data."""
    before = f"jit.config.CACHE_DIR = {str(tmp_path / 'theirs')!r}"
    (tmp_path / "home").mkdir()
    found = probe(None, before=before, HOME=str(tmp_path / "home"))
    assert Path(found["path"]).is_relative_to(tmp_path / "home")
    assert not (tmp_path / "theirs").exists()


@pytest.mark.safety
@POSIX_PERMISSIONS
@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root can be two users")
def test_a_cache_warmed_by_root_serves_another_user(open_folder):
    """As in an image; a strict umask while it is built changes nothing."""
    cache = open_folder / "cache"
    assert probe(cache, before="import os; os.umask(0o077)")["misses"] == 1
    found = probe(cache, before=AS_NOBODY)
    assert is_right(found)
    assert (found["hits"], found["misses"], found["writable"]) == (1, 0, False)


NO_HOME = """
import pwd
def nobody(*_):
    raise KeyError("no such user")
pwd.getpwuid = pwd.getpwnam = nobody
"""


@pytest.mark.safety
@POSIX_PERMISSIONS
def test_a_folder_that_cannot_be_located():
    found = probe(None, before=NO_HOME, HOME=None, warning="the cache of compiled kernels: ")
    assert is_right(found)
    assert (found["misses"], found["path"], found["writable"]) == (1, None, False)
    assert found["reason"].startswith("no cache: ")


@pytest.mark.safety
@POSIX_PERMISSIONS
def test_an_empty_environment(tmp_path):
    """As under ``env -i``: home is then what the user database says (which is led to `tmp_path` here)."""
    user = f"import pwd, types; pwd.getpwuid = lambda _: types.SimpleNamespace(pw_dir={str(tmp_path)!r})"
    for misses in (1, 0):
        done = subprocess.run(
            [sys.executable, "-c", PROBE.format(before=user, after="")],
            env={"PYTHONPATH": environment(None)["PYTHONPATH"]},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert is_right(found)
        assert (found["misses"], found["writable"]) == (misses, True)
        assert Path(found["path"]).is_relative_to(tmp_path)


@pytest.mark.slow
def test_a_package_in_an_archive_is_cached(tmp_path):
    """As in a frozen application, there are no source files to look at."""
    package_copy(tmp_path / "site")
    archive = shutil.make_archive(str(tmp_path / "site"), "zip", tmp_path / "site")
    for misses in (1, 0):
        found = probe(tmp_path / "cache", PYTHONPATH=archive)
        assert is_right(found)
        assert found["misses"] == misses


# ------------------------------------------------------------------------- several processes at once


@pytest.mark.safety
@pytest.mark.slow
def test_four_processes_fill_an_empty_cache_together(tmp_path):
    cache, start = tmp_path / "cache", tmp_path / "start"
    code = f"""
import json, os, time
import numpy as np
from fastml import kernels
from fastml.kernels.runtime import jit
kernels.exp, kernels.hinge  # load the modules first
print("ready", flush=True)
while not os.path.exists({str(start)!r}):
    time.sleep(0.001)
values = [float(kernels.exp(np.zeros(3))[0]), float(kernels.sigmoid(np.zeros(3))[0]), kernels.hinge([0.5], [1])]
counts = jit.stats().values()
print(json.dumps([values, sum(c["hits"] for c in counts), sum(c["misses"] for c in counts)]))
"""

    def begin() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment(cache),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def outcome(process: subprocess.Popen[str]) -> tuple[list[float], int, int]:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        return json.loads(output)

    processes = [begin() for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    start.touch()
    for process in processes:
        values, hits, misses = outcome(process)
        assert values == [1.0, 0.5, 0.5]
        assert hits + misses == 3
    assert len(files(cache)) == 3, "one file per signature, none left half-written"

    last = begin()
    assert last.stdout.readline() == "ready\n"
    assert outcome(last) == [[1.0, 0.5, 0.5], 3, 0]
