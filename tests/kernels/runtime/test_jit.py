"""Compilation policy at run time, and the cache of machine code: it may be slow, it may never be wrong.

Most tests run a small probe in a fresh process with a cache folder of its own, because what a process has
compiled once it does not look up again.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, namedtuple
from pathlib import Path

import numba
import numpy as np
import pytest

from checkout import ROOT, python_path
from fastml import kernels
from fastml.kernels import sigmoid
from fastml.kernels.runtime import jit

pytestmark = pytest.mark.needs_jit

SIGMOID = 1 / (1 + math.exp(-0.5))

# One small kernel: its result, its counts, and what the cache says of itself.
PROBE = """
import json, sys
import numpy as np
from fastml.kernels import sigmoid
from fastml.kernels.runtime import jit
{before}
value = float(sigmoid(np.array([0.5]))[0])
counts = jit.stats()["losses.elementwise.sigmoid_entries"]
{after}
print(json.dumps({{"value": value, **counts, **jit.cache_info()._asdict()}}))
"""

POSIX_PERMISSIONS = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")


def environment(cache: Path | None, **changes: str | None) -> dict[str, str]:
    """What a probe sees: nothing of the caller's settings of Numba, and a cache folder of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "XDG_"))}
    # An installed package is found anyway; the first entry is for a run from the source tree.
    changes.setdefault("PYTHONPATH", python_path())
    changes["NUMBA_CACHE_DIR"] = None if cache is None else str(cache)
    for name, value in changes.items():
        clean.pop(name, None)
        if value is not None:
            clean[name] = value
    return clean


def probe(cache: Path | None, *, before: str = "", after: str = "", warning: str = "", **changes: str | None) -> dict:
    """Run PROBE in a fresh process and return what it found; it may say `warning` and nothing else."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(before=before, after=after)],
        env=environment(cache, **changes),
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    if warning:
        assert done.stderr.count("Warning") == done.stderr.count(f"RuntimeWarning: {warning}") == 1
    else:
        assert done.stderr == "", "a fault of the cache must not be seen"
    return json.loads(done.stdout)


def is_right(found: dict) -> bool:
    return found["value"] == pytest.approx(SIGMOID, rel=1e-15)


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """A cache folder that holds the probe's kernel."""
    cache = tmp_path_factory.mktemp("filled")
    found = probe(cache)
    assert is_right(found)
    assert (found["hits"], found["misses"]) == (0, 1)
    return cache


@pytest.fixture
def copy_of_filled(filled, tmp_path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "cache"))


# ------------------------------------------------------------------------------------ hits and misses


def test_the_second_process_compiles_nothing(filled):
    found = probe(filled)
    assert is_right(found)
    assert (found["hits"], found["misses"], found["signatures"]) == (1, 0, 1)
    assert found["writable"]
    assert Path(found["path"]).is_relative_to(filled)


def test_one_file_per_signature_and_nothing_else(filled):
    (file,) = files(filled)
    assert file.name.startswith("losses.elementwise.sigmoid_entries.")
    assert file.suffix == ".bin"


@pytest.mark.parametrize("hash_seed", ["0", "1", "2"])
def test_the_key_does_not_depend_on_the_order_of_sets(filled, hash_seed):
    assert probe(filled, PYTHONHASHSEED=hash_seed)["misses"] == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NUMBA_OPT", "1"),
        ("NUMBA_LOOP_VECTORIZE", "0"),
        ("NUMBA_SLP_VECTORIZE", "1"),
        ("NUMBA_BOUNDSCHECK", "1"),
        ("NUMBA_LLVM_REFPRUNE_PASS", "0"),
        ("NUMBA_CPU_NAME", "generic"),
        ("NUMBA_CPU_FEATURES", ""),
    ],
)
def test_a_switch_that_changes_machine_code_changes_the_key(copy_of_filled, name, value):
    found = probe(copy_of_filled, **{name: value})
    assert is_right(found)
    assert (found["hits"], found["misses"]) == (0, 1)
    assert probe(copy_of_filled)["misses"] == 0, "what was there must stay"


@pytest.mark.parametrize(
    "change",
    [
        "import os, numba; os.environ['NUMBA_BOUNDSCHECK'] = '1'",
        "sigmoid(np.array([0.5], 'f4')); import os; os.environ['NUMBA_BOUNDSCHECK'] = '1'",
        "sigmoid(np.array([0.5], 'f4')); import numba; numba.config.BOUNDSCHECK = 1",
    ],
)
def test_a_switch_that_the_program_changes_counts_too(tmp_path, change):
    """The compiler goes by what it is then, so that its code must not serve those who have not changed it."""
    cache = tmp_path / "cache"
    assert probe(cache, before=change)["misses"] > 0
    found = probe(cache)
    assert (found["hits"], found["misses"]) == (0, 1)


def test_messages_of_the_compiler_are_not_kept_for_others(tmp_path):
    """Code compiled with NUMBA_DEBUG_JIT prints whenever it runs."""
    call = "import numpy as np; from fastml.kernels import sigmoid; sigmoid(np.array([0.5]))"
    for switch, silent in (("1", False), (None, True)):
        done = subprocess.run(
            [sys.executable, "-c", call],
            env=environment(tmp_path, NUMBA_DEBUG_JIT=switch),
            capture_output=True,
            text=True,
            check=True,
        )
        assert (done.stdout == "") is silent


def test_options_types_and_cpu_are_in_the_key():
    class Codegen:
        def __init__(self, cpu: str) -> None:
            self.cpu = cpu

        def magic_tuple(self) -> tuple[str, str, str]:
            return "x86_64", self.cpu, ""

    (compiled,) = (k for k in jit._kernels if k.py_func.__qualname__ == "sigmoid_entries")
    options = dict(compiled.targetoptions)

    def name_for(options, sig, cpu):
        other = numba.njit(**{name: value for name, value in options.items() if name != "nopython"})(compiled.py_func)
        return jit._MachineCodeCache(other)._file(sig, Codegen(cpu))

    plain = name_for(options, "(f4,)", "a")
    assert name_for(options, "(f4,)", "a") == plain
    others = {
        name_for({**options, "fastmath": {"contract"}}, "(f4,)", "a"),
        name_for({**options, "nogil": False}, "(f4,)", "a"),
        name_for(options, "(f8,)", "a"),
        name_for(options, "(f4,)", "b"),
    }
    assert len(others | {plain}) == 5


def test_kernels_do_not_share_a_file():
    stems = [compiled._cache._stem for compiled in jit._kernels]
    assert len(stems) == len(set(stems))


def functions_of(compiled, seen):
    """Add all compiled functions that one stands on, by way of closures and globals, to `seen`."""
    function = getattr(compiled, "py_func", None)
    if function is None or function in seen:
        return
    seen.add(function)
    for cell in function.__closure__ or ():
        functions_of(cell.cell_contents, seen)
    for name in function.__code__.co_names:
        functions_of(function.__globals__.get(name), seen)


def shared_names(compiled):
    seen = set()
    for one in compiled:
        functions_of(one, seen)
    names = Counter((function.__module__, function.__qualname__) for function in seen)
    return sorted(name for (_, name), count in names.items() if count > 1)


def test_no_two_functions_have_one_name_in_machine_code():
    """Of functions with one name, a process that loads both from the cache would run one for the other."""
    for module in pkgutil.walk_packages(kernels.__path__, "fastml.kernels."):
        importlib.import_module(module.name)
    assert len(jit._kernels) > 20
    assert shared_names(jit._kernels) == []


def test_functions_with_one_name_are_found_and_told_apart():
    def factory(term, wrap):
        def made(x):
            return term(x)

        return wrap(made)

    @jit.inner
    def sine(x):
        return np.sin(x)

    @jit.inner
    def cosine(x):
        return np.cos(x)

    assert len(shared_names([factory(sine, numba.njit), factory(cosine, numba.njit)])) == 1
    assert shared_names([factory(sine, jit.inner), factory(cosine, jit.inner)]) == []
    assert shared_names([factory(sine, jit.scalar), factory(cosine, jit.scalar)]) == []


def test_named_tuples_with_other_fields_have_code_of_their_own():
    """Numba calls their types by what is in them, but code that reads a field has its place."""
    first, second = (numba.typeof(namedtuple("Pair", fields)(1.0, 2.0)) for fields in ("a b", "b a"))
    assert str(first) == str(second), "nothing would need to be done"
    assert jit._spelled((first,)) != jit._spelled((second,))
    assert jit._spelled((numba.types.Tuple([first, numba.int64]),)) != jit._spelled(
        (numba.types.Tuple([second, numba.int64]),)
    )


# --------------------------------------------------------------------------------- upgrade in place

NEW_HELPER = """

@scalar
def sigmoids(z):
    return like(z, 7), like(z, 7)
"""


def package_copy(folder: Path) -> Path:
    """Lay fastml and fastml.kernels into `folder`, as an installer does."""
    ignored = shutil.ignore_patterns("__pycache__", "kernels")
    shutil.copytree(ROOT / "fastml", folder / "fastml", ignore=ignored)
    shutil.copytree(
        Path(kernels.__file__).parent, folder / "fastml" / "kernels", ignore=shutil.ignore_patterns("__pycache__")
    )
    return folder / "fastml" / "kernels"


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


# -------------------------------------------------------------------------------- one kernel's cache


def test_flush_removes_one_kernel_and_no_other(copy_of_filled):
    (file,) = files(copy_of_filled)
    other = file.with_name(f"losses.elementwise.exp_entries.{'0' * 32}.bin")
    other.write_bytes(b"of another kernel")
    flush = """
from fastml.kernels.losses import elementwise
elementwise._sigmoid_entries._cache.flush()
"""
    probe(copy_of_filled, after=flush)
    assert files(copy_of_filled) == [other]


def test_a_cache_switched_off_for_one_kernel(copy_of_filled):
    off = """
from fastml.kernels.losses import elementwise
elementwise._sigmoid_entries._cache.disable()
"""
    found = probe(copy_of_filled, before=off)
    assert is_right(found)
    assert (found["hits"], found["misses"]) == (0, 1)
    on = off + "elementwise._sigmoid_entries._cache.enable()\n"
    assert probe(copy_of_filled, before=on)["hits"] == 1


# -------------------------------------------------------------------------------- policies at work


def test_stats_count_signatures_hits_and_misses():
    sigmoid(np.zeros(2))
    counts = jit.stats()["losses.elementwise.sigmoid_entries"]
    assert counts["signatures"] == counts["hits"] + counts["misses"] >= 1
    sigmoid(np.zeros(3))
    assert jit.stats()["losses.elementwise.sigmoid_entries"] == counts
    assert len(jit.stats()) == len(jit._kernels), "two kernels of one name"


def test_readonly_is_a_view_and_leaves_its_argument_writable():
    array = np.arange(3.0)
    view = jit.readonly(array)
    assert not view.flags.writeable
    assert array.flags.writeable
    assert np.shares_memory(view, array)
    assert jit.readonly(view) is view


def total(x):
    s = np.float32(0)
    for i in range(x.size):
        s += x[i]
    return s


def test_kernels_keep_nan_and_infinity_and_may_reorder():
    compiled = jit.inner(total)
    assert np.isnan(compiled(np.array([1, np.nan], "f4")))
    assert compiled(np.array([1, np.inf], "f4")) == np.inf
    # 2^24 + 1 + 1 + ... stays at 2^24 if float32 sums are taken in order, and only then.
    many = np.ones(4096, "f4")
    many[0] = 2**24
    assert compiled(many) > 2**24


def test_scalar_helpers_keep_their_order():
    @jit.scalar
    def rounding_error(a, b):
        s = a + b
        return b - (s - a)

    assert rounding_error(1.0, 2.0**-60) == 2.0**-60
    assert numba.njit(fastmath=True)(rounding_error.py_func)(1.0, 2.0**-60) == 0, "the test above could not fail"


def test_divisions_by_zero_give_what_numpy_gives():
    compiled = jit.kernel(lambda x, y: x / y)
    jit._kernels.pop()
    assert compiled(1.0, 0.0) == np.inf
    assert np.isnan(compiled(0.0, 0.0))


def test_kernels_release_the_interpreter_lock():
    for compiled in jit._kernels:
        assert compiled.targetoptions["nogil"] is True


def test_without_compilation_kernels_are_plain_python():
    code = """
import numpy as np, types
from fastml.kernels import exp
from fastml.kernels.losses import elementwise
from fastml.kernels.runtime import jit
from fastml.kernels.simd import comparisons, functions
assert not jit.jit_enabled()
assert jit.stats() == {}
assert isinstance(elementwise._exp_entries, types.FunctionType)
assert isinstance(functions.exp, types.FunctionType)
assert comparisons.lowest_bit is comparisons._lowest_bit_twin
info = jit.cache_info()
assert (info.path, info.writable) == (None, False) and "NUMBA_DISABLE_JIT" in info.reason
assert abs(exp([1.0])[0] - np.e) < 1e-15
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(None, NUMBA_DISABLE_JIT="1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
