"""Packs: used when everything fits, and otherwise compiled, with the same results; never a wrong one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from cache_probe import NEW_HELPER, PROBE, SIGMOID, environment, is_right, package_copy
from fastml.kernels.runtime import cpu_kinds, packs
from pack_probe import KIND, make_pack, use_pack

pytestmark = [
    pytest.mark.needs_jit,
    pytest.mark.skipif(
        cpu_kinds.architecture() != "x86_64" or cpu_kinds.misfit(KIND) is not None, reason="packs of x86 CPUs"
    ),
]

POSIX_PERMISSIONS = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
FITS = "fits; kernels: 1"
HAS_AVX512 = pytest.mark.skipif(
    cpu_kinds.architecture() != "x86_64" or cpu_kinds.misfit("x86-64-v4") is not None, reason="no AVX-512"
)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder with a pack of one kernel."""
    return make_pack(tmp_path_factory.mktemp("packs")).parent


@pytest.fixture
def copy(made, tmp_path) -> Path:
    """The pack and its index, to be changed."""
    folder = tmp_path / "packs"
    folder.mkdir()
    for name in (f"{KIND}.pack", "index.json"):
        shutil.copy(made / name, folder)
    return folder


NO_COMPILER = """
def compiling(*_):
    raise AssertionError("the compiler runs")
import numba.core.compiler
numba.core.compiler.CompilerBase._compile_core = compiling
"""


def test_a_pack_that_fits_is_used(made, tmp_path):
    found = use_pack(made, tmp_path, before=NO_COMPILER)
    assert is_right(found)
    assert (found["pack"], found["reason"], found["compiled_for"]) == (KIND, FITS, KIND)
    assert (found["hits"], found["misses"]) == (1, 0)
    assert list(tmp_path.iterdir()) == []


def test_code_of_a_pack_returns_the_bits_of_code_that_is_compiled(made, tmp_path):
    call = "from fastml.kernels import sigmoid\nvalue = sigmoid(np.linspace(-50, 50, 999)).tobytes().hex()"
    packed = use_pack(made, tmp_path, call)
    compiled = use_pack(made, tmp_path, call, FASTML_TARGET=KIND, FASTML_PACK="0")
    assert (packed["misses"], compiled["misses"]) == (0, 1)
    assert packed["value"] == compiled["value"]


def test_what_a_pack_lacks_is_compiled_for_its_kind_of_cpu(made, tmp_path):
    call = "from fastml.kernels import softplus\nvalue = float(softplus(np.array([0.0]))[0])"
    found = use_pack(made, tmp_path, call)
    assert found["value"] == pytest.approx(0.6931471805599453, rel=1e-15)
    assert (found["pack"], found["compiled_for"], found["misses"]) == (KIND, KIND, 1)
    again = use_pack(made, tmp_path, call)
    assert (again["hits"], again["misses"]) == (1, 0), "from the cache"


# ------------------------------------------------------------------------------------- what does not fit


@pytest.fixture
def choose(monkeypatch) -> Callable[[Path], tuple[str | None, str]]:
    """``choose(folder)``: which pack a process would use whose package has those of a folder, and why."""

    def chosen(folder: Path) -> tuple[str | None, str]:
        monkeypatch.setattr(packs, "_FOLDER", folder)
        pack, reason = packs._choice.__wrapped__()
        return (pack.name if pack else None), reason

    for name in ("FASTML_TARGET", "FASTML_PACK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpu_kinds, "_named", cpu_kinds._named.__wrapped__)
    for name in ("CPU_NAME", "CPU_FEATURES"):
        monkeypatch.setattr(packs.config, name, None)
    return chosen


def test_a_pack_is_chosen_without_a_word(made, choose):
    assert choose(made) == (KIND, FITS)


def test_packs_can_be_switched_off(made, choose, monkeypatch):
    monkeypatch.setenv("FASTML_PACK", "0")
    assert choose(made) == (None, "switched off (FASTML_PACK)")
    monkeypatch.setenv("FASTML_PACK", "")
    assert choose(made) == (KIND, FITS)


@pytest.mark.parametrize("folder", ["nowhere", f"{KIND}.pack"])
def test_an_installation_without_packs(made, choose, folder):
    assert choose(made / folder) == (None, "this installation has none")


@pytest.mark.parametrize("name", ["format", "cpu", "features", "needs", "triple", "python", "numba", "runtime"])
def test_a_pack_for_other_surroundings_is_passed_over(made, choose, monkeypatch, name):
    surroundings = packs._surroundings
    monkeypatch.setattr(packs, "_surroundings", lambda kind: surroundings(kind) | {name: "another"})
    pack, reason = choose(made)
    assert pack is None
    assert reason.startswith(f"{KIND}: made for {name} ")
    assert reason.endswith(", here it is another")


def test_a_pack_of_other_sources_is_passed_over(made, choose, monkeypatch):
    monkeypatch.setattr(packs, "sources", lambda: "other")
    assert choose(made) == (None, f"{KIND}: made from other sources")


@pytest.mark.parametrize("feature", sorted(cpu_kinds.KINDS[KIND].needs))
def test_a_pack_for_a_better_cpu_is_passed_over(made, choose, monkeypatch, feature):
    monkeypatch.setattr(cpu_kinds, "_host_features", lambda: cpu_kinds.KINDS[KIND].needs - {feature})
    assert choose(made) == (None, f"{KIND}: this CPU has no {feature}")


@pytest.mark.parametrize(
    ("name", "features", "fits"),
    [(KIND, "", True), (KIND, None, False), (KIND, "+aes", False), ("x86-64-v2", "", False), (None, "", False)],
)
def test_numba_may_be_told_its_target(made, choose, monkeypatch, name, features, fits):
    monkeypatch.setattr(packs.config, "CPU_NAME", name)
    monkeypatch.setattr(packs.config, "CPU_FEATURES", features)
    reason = FITS if fits else f"{KIND}: NUMBA_CPU_NAME and NUMBA_CPU_FEATURES say otherwise"
    assert choose(made) == (KIND if fits else None, reason)


def test_a_process_that_is_told_another_kind_passes_a_pack_over(made, choose, monkeypatch):
    monkeypatch.setattr(cpu_kinds, "_host_features", lambda: cpu_kinds.KINDS["x86-64-v4"].needs)
    monkeypatch.setenv("FASTML_TARGET", "x86-64-v4")
    assert choose(made) == (None, f"{KIND}: FASTML_TARGET is x86-64-v4")


@pytest.mark.parametrize(
    "misfit",
    [
        {"before": "packs.sources = lambda: 'other'"},
        {"NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": ""},
        {"FASTML_PACK": "0"},
    ],
    ids=["sources", "target", "switched off"],
)
def test_kernels_are_compiled_if_no_pack_fits(made, tmp_path, misfit):
    found = use_pack(made, tmp_path, **misfit)
    assert is_right(found)
    assert (found["pack"], found["misses"]) == (None, 1)
    assert found["compiled_for"] != KIND


def test_kernels_are_compiled_under_other_settings_of_numba(made, tmp_path):
    found = use_pack(made, tmp_path, NUMBA_BOUNDSCHECK="1")
    assert is_right(found)
    assert (found["misses"], found["compiled_for"]) == (1, KIND)
    assert (found["pack"], found["reason"]) == (None, f"{KIND}: made with another numba.config.BOUNDSCHECK")


def test_settings_that_the_program_changes_count_too(made, tmp_path):
    found = use_pack(
        made, tmp_path, before="import os, fastml.kernels.losses.elementwise; os.environ['NUMBA_BOUNDSCHECK'] = '1'"
    )
    assert is_right(found)
    assert found["misses"] == 1


MISSING_SYMBOL = """
from fastml.kernels.runtime import jit
jit.pack_state()  # its probe has what it needs
import llvmlite.binding as llvm
was = llvm.address_of_symbol
llvm.address_of_symbol = lambda name: None if name == "NRT_adapt_ndarray_from_python" else was(name)
"""


def test_a_kernel_that_needs_what_the_process_has_not_is_compiled(made, tmp_path):
    found = use_pack(made, tmp_path, before=MISSING_SYMBOL)
    assert is_right(found)
    assert found["misses"] == 1


def test_a_pack_under_the_name_of_another_kind_is_passed_over(copy, choose, monkeypatch):
    """Its needs would not be looked at, and it might need more than this CPU has."""
    (copy / f"{KIND}.pack").rename(copy / "x86-64-v4.pack")
    index = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps({"x86-64-v4": index[KIND]}))
    monkeypatch.setattr(cpu_kinds, "_host_features", lambda: cpu_kinds.KINDS["x86-64-v4"].needs)
    assert choose(copy) == (None, f"x86-64-v4: made for name {KIND}, here it is x86-64-v4")


@pytest.mark.parametrize("index", [{}, [], {"x86-64-v9": "0" * 64}], ids=str)
def test_an_index_that_names_no_pack_for_here(copy, choose, index):
    (copy / "index.json").write_text(json.dumps(index))
    assert choose(copy) == (None, "this installation has none that fastml knows")


def test_a_cpu_whose_features_nobody_can_tell_has_no_pack(made, choose, monkeypatch):
    def unknown() -> None:
        raise RuntimeError("failed to get host cpu features")

    monkeypatch.setattr(cpu_kinds.llvm, "get_host_cpu_features", unknown)
    pack, reason = choose(made)
    assert pack is None
    assert reason.startswith(f"{KIND}: this CPU has no ")


@HAS_AVX512
def test_a_pack_that_is_not_whole_gives_way_to_the_next(copy, choose):
    better = make_pack(copy, kind="x86-64-v4")
    better.write_bytes(better.read_bytes()[:-1])
    with pytest.warns(RuntimeWarning, match="x86-64-v4: it is not whole"):
        assert choose(copy) == (KIND, FITS)


@HAS_AVX512
def test_the_best_pack_is_used(copy, tmp_path):
    make_pack(copy, kind="x86-64-v4")
    assert use_pack(copy, tmp_path)["pack"] == "x86-64-v4"
    demanded = use_pack(copy, tmp_path, FASTML_TARGET=KIND)
    assert (demanded["pack"], demanded["compiled_for"]) == (KIND, KIND)
    older = use_pack(copy, tmp_path, before="cpu_kinds._host_features = lambda: cpu_kinds._V3")
    assert (older["pack"], older["compiled_for"], older["misses"]) == (KIND, KIND, 0)


# ----------------------------------------------------------------------------------------- what is refused


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def manifest_and_code(path: Path) -> tuple[dict, bytes]:
    line, _, code = path.read_bytes().partition(b"\n")
    return json.loads(line), code


def record_of_sigmoid(path: Path) -> tuple[int, int]:
    """Return where its record begins and how long it is."""
    line, _, _ = path.read_bytes().partition(b"\n")
    (place,) = [place for name, place in json.loads(line)["kernels"].items() if "sigmoid" in name]
    return len(line) + 1 + place[0], place[1]


def damage_code(pack: Path, index: Path) -> None:
    flip(pack, sum(record_of_sigmoid(pack)) - 10)


def truncate(pack: Path, index: Path) -> None:
    pack.write_bytes(pack.read_bytes()[: sum(record_of_sigmoid(pack)) // 2])


def damage_manifest(pack: Path, index: Path) -> None:
    flip(pack, 30)


def another_manifest(pack: Path, index: Path) -> None:
    manifest, code = manifest_and_code(pack)
    pack.write_bytes(json.dumps(manifest | {"sources": "mine"}).encode() + b"\n" + code)


def another_probe(pack: Path, index: Path) -> None:
    """Let another function stand where the probe does: in order as it is recorded, and wrong."""
    manifest, code = manifest_and_code(pack)
    (sigmoid,) = [place for name, place in manifest["kernels"].items() if "sigmoid" in name]
    line = json.dumps(manifest | {"kernels": manifest["kernels"] | {"probe": sigmoid}}).encode() + b"\n"
    pack.write_bytes(line + code)
    index.write_text(json.dumps({KIND: hashlib.sha256(line).hexdigest()}))


def no_pack(pack: Path, index: Path) -> None:
    pack.unlink()


def folder_for_pack(pack: Path, index: Path) -> None:
    pack.unlink()
    pack.mkdir()


def empty_index(pack: Path, index: Path) -> None:
    index.write_text("")


def index_of_another_form(pack: Path, index: Path) -> None:
    index.write_text("7")


def deep_index(pack: Path, index: Path) -> None:
    index.write_text("[" * 200_000)


def foreign_index(pack: Path, index: Path) -> None:
    index.write_text(json.dumps({KIND: "0" * 64}))


#: What is seen when a pack is chosen.
DAMAGES = {
    damage_manifest: f"{KIND}: its manifest is not the one that the package records",
    another_manifest: f"{KIND}: its manifest is not the one that the package records",
    truncate: f"{KIND}: it is not whole",
    no_pack: f"{KIND}: No such file or directory",
    folder_for_pack: f"{KIND}: ",
    empty_index: "index.json: it is damaged",
    index_of_another_form: "index.json: it is damaged",
    deep_index: "index.json: it is damaged",
    foreign_index: f"{KIND}: its manifest is not the one that the package records",
}


@pytest.mark.safety
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_pack_is_refused_and_said(copy, choose, damage):
    damage(copy / f"{KIND}.pack", copy / "index.json")
    with pytest.warns(RuntimeWarning, match="^machine code that came with fastml is not used: ") as warned:
        pack, reason = choose(copy)
    assert pack is None
    assert len(warned) == 1
    assert DAMAGES[damage] in reason
    assert reason in str(warned[0].message)


@pytest.mark.safety
@pytest.mark.parametrize("damage", [damage_code, truncate, damage_manifest, another_probe])
def test_a_damaged_pack_is_said_once_and_kernels_are_compiled(copy, tmp_path, damage):
    damage(copy / f"{KIND}.pack", copy / "index.json")
    found = use_pack(copy, tmp_path, warning=f"{KIND}: ")
    assert is_right(found)
    assert (found["pack"], found["misses"]) == (None, 1)
    assert found["reason"].startswith(f"{KIND}: ")


@pytest.mark.safety
def test_a_warning_that_is_an_error_is_none(copy, tmp_path):
    damage_code(copy / f"{KIND}.pack", copy / "index.json")
    found = use_pack(copy, tmp_path, PYTHONWARNINGS="error::RuntimeWarning")
    assert is_right(found)
    assert found["pack"] is None


def link_pack(pack: Path) -> Path:
    """Let a link to it stand in its place, as some installers make; return where it is."""
    elsewhere = pack.rename(pack.with_suffix(".elsewhere"))
    pack.symlink_to(elsewhere)
    return elsewhere


def pipe(pack: Path) -> None:
    pack.unlink()
    os.mkfifo(pack)


UNTRUSTED = {
    "writable by others": lambda pack: pack.chmod(0o666),
    "writable by a group": lambda pack: pack.chmod(0o664),
    "another user's": lambda pack: os.chown(pack, 2001, 2001),
    "a link to another user's": lambda pack: os.chown(link_pack(pack), 2001, 2001),
    "a pipe": pipe,
}


@pytest.mark.safety
@POSIX_PERMISSIONS
@pytest.mark.parametrize("file", [f"{KIND}.pack", "index.json"])
@pytest.mark.parametrize("how", UNTRUSTED)
def test_what_others_may_have_written_is_not_used(copy, choose, how, file):
    if "another user's" in how and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    if Path(cpu_kinds.__file__).stat().st_mode & 0o022:
        pytest.skip("the package itself can be written by others")
    UNTRUSTED[how](copy / file)
    with pytest.warns(RuntimeWarning, match=re.escape(str(copy / file) if file == "index.json" else KIND)):
        assert choose(copy)[0] is None


@POSIX_PERMISSIONS
def test_links_are_followed(copy, choose):
    for file in (f"{KIND}.pack", "index.json"):
        link_pack(copy / file)
    assert choose(copy) == (KIND, FITS)


# --------------------------------------------------------------------------- sources that change meanwhile


@pytest.fixture
def installed(tmp_path) -> Path:
    """A folder with a copy of the package, and a pack beside it; return the package's kernels."""
    package = package_copy(tmp_path / "site")
    (package / "packs").mkdir(exist_ok=True)
    cache = tmp_path / "made"
    cache.mkdir()
    make_pack(cache, PYTHONPATH=str(tmp_path / "site"))
    for name in (f"{KIND}.pack", "index.json"):
        shutil.copy(cache / name, package / "packs")
    return package


@pytest.mark.slow
@pytest.mark.parametrize("imported", ["fastml.kernels.losses.elementwise", "fastml.kernels.runtime.jit", "numba"])
def test_upgrade_under_a_running_process(installed, tmp_path, imported):
    """A pack serves the sources as the process runs them, whatever lies on disk."""
    site = str(tmp_path / "site")
    wait = f"import importlib, sys\nimportlib.import_module({imported!r})\nprint(flush=True)\nsys.stdin.readline()\n"
    running = subprocess.Popen(
        [sys.executable, "-c", wait + PROBE.format(before="", after="")],
        env=environment(tmp_path / "cache", PYTHONPATH=site),
        cwd=tempfile.gettempdir(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout.readline() == "\n"
    with (installed / "simd" / "functions.py").open("a", encoding="utf-8") as stream:
        stream.write(NEW_HELPER)
    found = json.loads(running.communicate("\n", timeout=120)[0])
    if imported == "fastml.kernels.losses.elementwise":  # it has the old code, and so has the pack
        assert found["value"] == pytest.approx(SIGMOID, rel=1e-15)
        assert found["misses"] == 0
    else:
        assert (found["value"], found["misses"]) == (7, 1)


@pytest.mark.slow
def test_a_pack_lies_beside_the_package(installed, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(before="", after="")],
        env=environment(tmp_path / "cache", PYTHONPATH=str(tmp_path / "site")),
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert is_right(found)
    assert (found["hits"], found["misses"], done.stderr) == (1, 0, "")


# ------------------------------------------------------------------- rows are laid out for one kind of CPU

#: Errors of distances, relative to the largest, for float32 rows of a pack and for bytes, which it lacks.
CALL_NEAREST = """
from fastml.kernels import k_nearest
random = np.random.default_rng(0)
rows = random.integers(0, 256, (307, 45))
value = []
for dtype in {dtypes}:
    found, indices = k_nearest(rows[:70].astype(dtype), rows.astype(dtype), 5)
    truth = np.sqrt(((rows[:70, None].astype(np.float64) - rows) ** 2).sum(axis=2))
    order = np.take_along_axis(truth, indices, axis=1)
    value += [float(abs(found - np.sort(truth, axis=1)[:, :5]).max()), float(abs(found - order).max())]
"""

#: Both of a process that asks for the host's layout, and finds code of the pack.
MIXED = """
from fastml.kernels.runtime import target
packs.kind = lambda: None
target.target()
from fastml.kernels.runtime import jit
was = jit.compiled_for()[0]
jit.compiled_for = lambda: (was, "x86-64-v3", "")
"""


@pytest.fixture(scope="module")
def nearest(tmp_path_factory) -> Path:
    """A folder with a pack that has neighbours of float32 rows only."""
    return make_pack(tmp_path_factory.mktemp("nearest"), CALL_NEAREST.format(dtypes=["float32"])).parent


@pytest.mark.slow
@pytest.mark.targets
def test_a_pack_with_a_part_of_the_kernels_gives_right_distances(nearest, tmp_path):
    found = use_pack(nearest, tmp_path, CALL_NEAREST.format(dtypes=["float32", "uint8"]))
    assert (found["pack"], found["compiled_for"]) == (KIND, KIND)
    assert found["hits"] > 0
    assert found["misses"] > 0
    assert max(found["value"]) < 1e-3


@HAS_AVX512
@pytest.mark.slow
@pytest.mark.targets
def test_a_process_of_two_kinds_would_be_seen(nearest, tmp_path):
    """The trap itself: code of the pack on rows that are laid out for this CPU."""
    found = use_pack(nearest, tmp_path, CALL_NEAREST.format(dtypes=["float32"]), before=MIXED)
    assert found["hits"] > 0, "the test above could not fail"
    assert max(found["value"]) > 1e-3


# ----------------------------------------------------------------------------------- what is in the code


#: Registers that AVX-512 brought.
AVX512 = re.compile(r"%(zmm|[xy]mm(1[6-9]|2\d|3[01])\b|k[1-7]\b)")


@pytest.mark.skipif(shutil.which("objdump") is None, reason="no disassembler")
@HAS_AVX512
def test_a_pack_for_avx2_has_no_register_of_avx512(made, tmp_path):
    other = make_pack(tmp_path, kind="x86-64-v4")
    assert not AVX512.search(disassembled(made / f"{KIND}.pack", tmp_path))
    assert "%ymm" in disassembled(made / f"{KIND}.pack", tmp_path)
    assert AVX512.search(disassembled(other, tmp_path)), "the test could not fail"


def disassembled(pack: Path, folder: Path) -> str:
    manifest, code = manifest_and_code(pack)
    text = ""
    for offset, length, _ in manifest["kernels"].values():
        (folder / "code.o").write_bytes(zlib.decompress(code[offset : offset + length]).partition(b"\n")[2])
        done = subprocess.run(["objdump", "-d", str(folder / "code.o")], capture_output=True, text=True, check=True)
        text += done.stdout
    return text


def test_assembly_for_a_kind_of_cpu(tmp_path):
    call = """
from fastml.kernels import sigmoid
from fastml.kernels.losses import elementwise
sigmoid(np.zeros(3))
(value,) = elementwise._sigmoid_entries.inspect_asm().values()
"""
    found = use_pack(tmp_path, tmp_path, call, FASTML_TARGET=KIND)
    assert found["misses"] == 1
    assert "%ymm" in found["value"]
    assert not AVX512.search(found["value"])
