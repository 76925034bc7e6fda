"""``python -m fastml``: info, warmup, exit codes."""

from __future__ import annotations

import json
import multiprocessing.context
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

import fastml
from checkout import ROOT, run_python
from fastml import __main__ as cli
from fastml.cli import info, warmup
from fastml.kernels import catalogue
from fastml.kernels.runtime import compile_notice, jit

CHEAP = "sigmoid"


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fastml", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def states(table: str) -> dict[str, str]:
    """Key -> state of the table that warmup prints."""
    rows = [line.split() for line in table.splitlines()]
    return {row[0]: row[1] for row in rows if row and row[0] in {*catalogue.ENTRIES, *warmup.MODELS}}


# -------------------------------------------------------------------------------------- general


def test_version():
    done = command("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"fastml {fastml.__version__}")


@pytest.mark.parametrize("arguments", [[], ["dance"], ["warmup", "--jobs", "0"], ["warmup", "--jobs", "many"]])
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2
    assert "usage: python -m fastml" in capsys.readouterr().err


def test_help_does_not_wait_for_numba():
    done = command("--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert "warmup" in done.stdout
    assert "numba" not in done.stderr


def test_interrupt(monkeypatch, capsys):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "main", interrupted)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_reader_that_goes_away():
    """As in ``python -m fastml info | head -1``."""
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [sys.executable, "-m", "fastml", "info"]
    done = subprocess.run(arguments, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


# ----------------------------------------------------------------------------------------- info


def test_info_as_json():
    done = command("info", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fastml"] == fastml.__version__
    assert set(found["packages"]) == {"numpy", "numba", "llvmlite", "scipy", "scikit-learn"}
    assert None not in found["packages"].values()
    assert found["cpu"]["vector_bytes"] in (16, 32, 64)
    assert found["blas"]


def test_info_as_text():
    done = command("info")
    assert done.returncode == 0, done.stderr
    labels = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert [label for label in labels if label != "BLAS"] == [
        "fastml", "Python", "packages", "CPU", "Numba target", "threads", "compilation", "pack", "cache",
    ]  # fmt: skip
    assert "BLAS" in labels


def test_info_says_where_the_thread_count_comes_from():
    found = json.loads(command("info", "--json", NUMBA_NUM_THREADS="1").stdout)
    assert found["threads"]["count"] == 1


def test_info_names_the_target_of_numba_and_not_the_cpu():
    found = json.loads(command("info", "--json", NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="").stdout)
    assert (found["cpu"]["target"], found["cpu"]["vector_bytes"]) == ("generic", 16)


def test_info_on_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    done = command("info", "--json", NUMBA_CACHE_DIR=str(tmp_path / "file"))
    assert done.returncode == 0, done.stderr
    cache = json.loads(done.stdout)["cache"]
    assert not cache["writable"]
    assert cache["reason"]


@pytest.mark.needs_jit
@pytest.mark.skipif(os.name != "posix", reason="homes and permissions of POSIX")
def test_info_makes_no_folders(tmp_path):
    places = {"HOME": str(tmp_path / "home"), "NUMBA_CACHE_DIR": str(tmp_path / "named")}
    (tmp_path / "home").mkdir()
    for named in (places["NUMBA_CACHE_DIR"], ""):
        done = command("info", "--json", **{**places, "NUMBA_CACHE_DIR": named, "XDG_CACHE_HOME": ""})
        assert done.returncode == 0, done.stderr
        cache = json.loads(done.stdout)["cache"]
        assert cache["writable"]
        assert Path(cache["path"]).is_relative_to(named or tmp_path / "home")
    assert [path.name for path in tmp_path.rglob("*")] == ["home"]


@pytest.mark.needs_jit
@pytest.mark.skipif(sys.platform != "linux", reason="paths of other systems are text")
@pytest.mark.parametrize(("folder", "encoding"), [(b"caf\xe9", "utf-8:strict"), ("caf\xe9".encode(), "ascii:strict")])
def test_a_path_that_the_output_cannot_say(tmp_path, folder, encoding):
    named = os.fsdecode(os.fsencode(tmp_path) + b"/" + folder)
    done = command("info", NUMBA_CACHE_DIR=named, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/caf\\" in done.stdout


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_cpu_that_no_file_and_no_command_names(monkeypatch, platform):
    def missing(*_, **__):
        raise FileNotFoundError("no such file")

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(info.subprocess, "run", missing)
    monkeypatch.setattr(info.platform, "processor", lambda: "a processor")
    assert info._cpu_model() == "a processor"


def test_info_without_jit():
    found = json.loads(command("info", "--json", NUMBA_DISABLE_JIT="1").stdout)
    assert not found["jit"]
    assert "compilation   off (NUMBA_DISABLE_JIT)" in info.render(found)


def test_info_without_threadpoolctl(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    (library,) = info.collect()["blas"]
    assert library["library"] != "unknown"
    assert library["loaded_by"] == "numpy"


# --------------------------------------------------------------------------------------- warmup


@pytest.mark.needs_jit
def test_warmup_compiles_then_finds_everything_in_the_cache(tmp_path):
    first = command("warmup", "--only", CHEAP, "--jobs", "1", NUMBA_CACHE_DIR=str(tmp_path))
    assert first.returncode == 0, first.stderr
    assert states(first.stdout) == {CHEAP: "compiled"}
    assert "1 entries: 1 compiled, 0 cached, 0 failed" in first.stdout
    assert str(tmp_path) in first.stdout.splitlines()[-1]

    second = command("warmup", "--only", CHEAP, "--jobs", "1", NUMBA_CACHE_DIR=str(tmp_path))
    assert states(second.stdout) == {CHEAP: "cached"}


@pytest.mark.needs_jit
@pytest.mark.slow
def test_warmup_in_two_processes(tmp_path):
    first = command("warmup", "--only", "squared*", "--jobs", "2", NUMBA_CACHE_DIR=str(tmp_path))
    assert first.returncode == 0, first.stderr
    assert "in 2 processes" in first.stdout
    keys = [key for key in (*catalogue.ENTRIES, *warmup.MODELS) if key.startswith("squared")]
    assert len(keys) >= 4
    assert list(states(first.stdout)) == keys

    second = command("warmup", "--only", "squared*", "--jobs", "1", NUMBA_CACHE_DIR=str(tmp_path))
    assert set(states(second.stdout).values()) == {"cached"}


@pytest.mark.needs_jit
def test_warmup_says_nothing_of_the_compiler_besides(monkeypatch):
    inside, calls = [], []

    @contextmanager
    def silent():
        inside.append(True)
        yield
        inside.clear()

    monkeypatch.setattr(compile_notice, "silent", silent)
    entry = fake_entry(lambda *_: calls.append(bool(inside)))
    monkeypatch.setattr(catalogue, "ENTRIES", {"entry": entry})
    monkeypatch.setattr(warmup, "MODELS", {"model": lambda dtype: calls.append(bool(inside))})
    assert [warmup.warm(key).error for key in ("entry", "model")] == [None, None]
    assert calls == [True] * 4


@pytest.mark.needs_jit
def test_warmup_of_nothing(capsys):
    assert warmup.main(only="no such kernel") == 1
    message = capsys.readouterr().err
    assert "no entry matches 'no such kernel'" in message
    assert CHEAP in message


def fake_entry(kernel):
    return SimpleNamespace(
        dtypes={"float32": None, "float64": None},
        sizes={"tiny": (3,)},
        warm_inputs=lambda dtype: (),
        make=lambda size, dtype: SimpleNamespace(args=(size, dtype), kwargs={}),
        tier={"compiled": kernel}.__getitem__,
    )


@pytest.mark.needs_jit
def test_one_failing_entry_fails_the_command_but_not_the_others(monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("cannot be compiled\nsecond line")

    called = []
    entries = {"broken": fake_entry(broken), "sound": fake_entry(lambda *arguments: called.append(arguments))}
    monkeypatch.setattr(catalogue, "ENTRIES", entries)
    monkeypatch.setattr(warmup, "MODELS", {})
    assert warmup.main(jobs=1) == 1
    table = capsys.readouterr().out
    assert "failed" in table.splitlines()[1]
    assert table.splitlines()[1].endswith("RuntimeError: cannot be compiled")
    assert "2 entries: 0 compiled, 1 cached, 1 failed" in table
    assert called == [((3,), "float32"), ((3,), "float64")]


def test_what_shares_machine_code_is_for_one_process():
    keys = ["k_nearest[l1]", "exp", "k_nearest[l2]", "train_linear[huber]", "LinearSVC", "SGDClassifier"]
    assert warmup.of_one_code(keys) == [
        ["LinearSVC"],
        ["train_linear[huber]", "SGDClassifier"],
        ["exp"],
        ["k_nearest[l1]", "k_nearest[l2]"],
    ]
    assert warmup._TRAINED_AS.keys() <= warmup.MODELS.keys()


def test_a_worker_that_dies_is_a_failure(monkeypatch):
    monkeypatch.setattr(warmup, "warm", os._exit)  # stands for a crash inside the compiler
    monkeypatch.setattr(warmup, "of_one_code", lambda keys: [keys[:2], keys[2:]])
    outcomes = warmup.run([3, 4, 5], jobs=2)
    assert [(outcome.key, outcome.state) for outcome in outcomes] == [(3, "failed"), (4, "failed"), (5, "failed")]
    assert "BrokenProcessPool" in outcomes[0].error


def test_processes_that_cannot_share_memory_are_one(monkeypatch):
    """As without /dev/shm: there, a pool of processes has no locks."""

    def no_lock(_):
        raise OSError(38, "Function not implemented")

    assert warmup._possible(3) == 3
    monkeypatch.setattr(multiprocessing.context.BaseContext, "Lock", no_lock)
    assert warmup._possible(3) == 1
    monkeypatch.setattr(warmup, "warm", lambda key: warmup.Outcome(key, 0.0, False, None))
    assert [outcome.state for outcome in warmup.run([3, 4], jobs=2)] == ["cached", "cached"]


@pytest.mark.needs_jit
@pytest.mark.skipif(os.name != "posix", reason="homes and permissions of POSIX")
def test_warmup_says_which_folder_it_did_not_fill(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "fastml").mkdir()
    (tmp_path / "fastml").chmod(0o777)
    places = {"HOME": str(tmp_path / "home"), "NUMBA_CACHE_DIR": str(tmp_path), "XDG_CACHE_HOME": ""}
    done = command("warmup", "--only", CHEAP, "--jobs", "1", **places)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("RuntimeWarning") == 1
    last = done.stdout.splitlines()[-1]
    assert last.startswith(f"cache: {tmp_path / 'home'}")
    assert f"{tmp_path / 'fastml'} can be written by other users" in last


@pytest.mark.needs_jit
def test_warmup_without_a_cache(tmp_path):
    (tmp_path / "file").touch()
    done = command("warmup", NUMBA_CACHE_DIR=str(tmp_path / "file"))
    assert done.returncode == 1
    assert done.stderr.startswith("nowhere to keep compiled kernels")


FULL_DISK = """
import errno
from fastml.cli import warmup
from fastml.kernels.runtime import _cache_files

def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

_cache_files.write = full
print(warmup.main(only="sigmoid", jobs=1))
"""


@pytest.mark.needs_jit
def test_what_is_compiled_in_vain_is_a_failure(tmp_path):
    *table, code = run_python(FULL_DISK, NUMBA_CACHE_DIR=str(tmp_path)).splitlines()
    assert code == "1"
    assert states("\n".join(table))[CHEAP] == "failed"
    assert any("not kept: losses.elementwise" in line and "No space left on device" in line for line in table)


@pytest.mark.needs_jit
def test_unoptimized_code_is_not_kept_and_said_so(tmp_path):
    done = command("warmup", "--only", CHEAP, NUMBA_OPT="0", NUMBA_CACHE_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "NUMBA_OPT=0" in done.stderr


@pytest.mark.safety
def test_an_interrupt_ends_the_processes_that_compile():
    """What they are at may take minutes."""

    def interrupt() -> None:
        while len(multiprocessing.active_children()) < 2:  # on a busy machine they take their time
            time.sleep(0.1)
        time.sleep(2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        warmup.run_each(time.sleep, [600, 601], 2, silent=True)
    for process in multiprocessing.active_children():
        process.join(20)
        assert process.exitcode == -signal.SIGTERM


def test_warmup_without_jit(monkeypatch, capsys):
    monkeypatch.setattr(jit, "jit_enabled", lambda: False)
    assert warmup.main() == 1
    assert "NUMBA_DISABLE_JIT" in capsys.readouterr().err


@pytest.mark.needs_jit
def test_stats_have_what_warmup_reads():
    catalogue.ENTRIES[CHEAP].tier("compiled")([0.5])
    assert all({"hits", "misses"} <= counts.keys() for counts in jit.stats().values())
    assert jit.stats()


@pytest.mark.needs_jit
@pytest.mark.slow
def test_warmup_reaches_every_kernel():
    """Also those that only large problems or several threads call."""
    for key in [*catalogue.ENTRIES, *warmup.MODELS]:
        assert warmup.warm(key).error is None
    idle = {name for name, counts in jit.stats().items() if not counts["signatures"]}
    assert idle == warmup.kernels_of_other_targets()
