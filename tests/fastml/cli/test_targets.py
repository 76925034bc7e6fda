"""``python -m fastml warmup --target`` and ``pack``: machine code for other machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from cache_probe import environment, is_right
from checkout import run_python
from fastml import __main__ as cli
from fastml.cli import warmup
from fastml.kernels.runtime import cpu_kinds
from pack_probe import KIND, use_pack

pytestmark = [
    pytest.mark.needs_jit,
    pytest.mark.skipif(
        cpu_kinds.architecture() != "x86_64" or cpu_kinds.misfit(KIND) is not None, reason="kinds of x86 CPUs"
    ),
]

#: One kernel of the catalogue.
PART = ("--only", "sigmoid*", "--jobs", "1")

#: The command line on a CPU without AVX-512.
OLDER_CPU = """
import sys
from fastml import __main__
from fastml.kernels.runtime import cpu_kinds
cpu_kinds._host_features = lambda: cpu_kinds.KINDS["x86-64-v3"].needs
sys.exit(__main__.main())
"""


def command(*arguments: str, cache: Path | None = None, older: bool = False, **changes: str) -> str:
    start = ["-c", OLDER_CPU] if older else ["-m", "fastml"]
    done = subprocess.run(
        [sys.executable, *start, *arguments],
        env=environment(cache, **{"FASTML_TARGET": None, "FASTML_PACK": None, **changes}),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def objects(pack: Path) -> dict[str, bytes]:
    """Return the object file of each kernel."""
    line, _, code = pack.read_bytes().partition(b"\n")
    places = json.loads(line)["kernels"].items()
    return {
        name: zlib.decompress(code[offset : offset + length]).partition(b"\n")[2]
        for name, (offset, length, _) in places
    }


def kernels_of(pack: Path) -> list[str]:
    return sorted(name.rsplit(".", 2)[0] for name in objects(pack))


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    output = command("pack", "--target", KIND, "-o", str(folder), *PART)
    assert f"{folder / KIND}.pack: 2 kernels, 0.01 MB" in output
    return folder


def test_a_pack_is_used(packed, tmp_path):
    assert sorted(path.name for path in packed.iterdir()) == ["index.json", f"{KIND}.pack"]
    found = use_pack(packed, tmp_path)
    assert is_right(found)
    assert (found["pack"], found["hits"], found["misses"]) == (KIND, 1, 0)


def test_a_pack_for_a_better_cpu_is_made_and_not_run(packed, tmp_path):
    command("pack", "--target", "x86-64-v4", "-o", str(tmp_path / "packs"), *PART, older=True)
    pack = tmp_path / "packs" / "x86-64-v4.pack"
    assert kernels_of(pack) == kernels_of(packed / f"{KIND}.pack")
    if cpu_kinds.misfit("x86-64-v4") is None:
        found = use_pack(tmp_path / "packs", tmp_path)
        assert is_right(found)
        assert (found["pack"], found["hits"], found["misses"]) == ("x86-64-v4", 1, 0)


@pytest.mark.slow
def test_a_pack_for_arm_is_made_on_x86(packed, tmp_path):
    command("pack", "--target", "aarch64", "-o", str(tmp_path), *PART)
    pack = tmp_path / "aarch64.pack"
    assert kernels_of(pack) == kernels_of(packed / f"{KIND}.pack")
    for code in objects(pack).values():
        if sys.platform == "linux":
            assert code[:5] == b"\x7fELF\x02"
            assert int.from_bytes(code[18:20], "little") == 183, "EM_AARCH64"
    assert use_pack(tmp_path, tmp_path / "cache")["reason"] == ("aarch64: this CPU is of another architecture, x86_64")


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_cache_for_a_kind_of_cpu_serves_processes_that_name_it(tmp_path):
    cache = tmp_path / "cache"
    output = command("warmup", "--target", KIND, *PART, cache=cache)
    assert "1 entries: 1 compiled" in output
    files = sorted(path for path in cache.rglob("*") if path.is_file())
    for path in (cache, *cache.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        found = use_pack(tmp_path, cache, FASTML_TARGET=KIND)
        assert is_right(found)
        assert (found["compiled_for"], found["hits"], found["misses"]) == (KIND, 1, 0)
        assert files == sorted(path for path in cache.rglob("*") if path.is_file())
    finally:
        for path in (cache, *cache.rglob("*")):
            path.chmod(0o755)


def test_forms_that_calls_here_may_not_show(tmp_path):
    """Those of kernels that `warmup` knows not to reach everywhere; they compile for a CPU that reaches them."""
    forms = warmup.of_some_kinds()
    names = {name for kernels in forms.values() for name, _ in kernels}
    assert warmup.kernels_of_other_targets() <= names
    code = """
from fastml.kernels.runtime import cpu_kinds
cpu_kinds.aim("x86-64-v4-vnni")
from fastml.cli import cross, warmup
forms = warmup.of_some_kinds()
print(*[cross._compile(forms, module).error for module in forms])
"""
    assert run_python(code, NUMBA_CACHE_DIR=str(tmp_path)) == "None\n"
    assert len(list(tmp_path.rglob("*.bin"))) == len(names)


@pytest.mark.slow
def test_a_cache_for_a_better_cpu(tmp_path):
    command("warmup", "--target", "x86-64-v4", *PART, cache=tmp_path, older=True)
    if cpu_kinds.misfit("x86-64-v4") is None:
        found = use_pack(tmp_path, tmp_path, FASTML_TARGET="x86-64-v4")
        assert is_right(found)
        assert (found["hits"], found["misses"]) == (1, 0)


def test_a_pack_that_has_no_place_is_not_made(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["pack", "--target", KIND, "-o", str(tmp_path / "file" / "packs")]) == 1
    assert capsys.readouterr().err.startswith(f"no folder for packs: {tmp_path / 'file' / 'packs'}: ")


def test_info_names_the_target_and_the_pack():
    found = json.loads(command("info", "--json", FASTML_TARGET=KIND, FASTML_PACK="0"))
    assert (found["cpu"]["target"], found["cpu"]["vector_bytes"]) == (KIND, 32)
    assert found["pack"] == {"name": None, "reason": "switched off (FASTML_PACK)"}


@pytest.mark.parametrize("arguments", [["warmup"], ["pack", "-o", "packs"]])
def test_a_target_that_there_is_not(arguments, capsys):
    assert cli.main([*arguments, "--target", "my laptop"]) == 2
    assert "'my laptop' is no target that fastml knows: x86-64-v3, " in capsys.readouterr().err


def test_a_target_that_the_cpu_is_not():
    done = subprocess.run(
        [sys.executable, "-m", "fastml", "info"],
        env=environment(None, FASTML_TARGET="aarch64"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "FASTML_TARGET=aarch64, but this CPU is of another architecture, x86_64\n"
