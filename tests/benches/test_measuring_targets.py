"""Measuring as a lesser CPU: who is held to it, who is not, and what is then counted, kept and shown."""

from __future__ import annotations

import ctypes
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace

import pytest

pytest.importorskip("rich", reason="the report needs the extra bench")
pytest.importorskip("threadpoolctl", reason="the report needs the extra bench")
pytest.importorskip("matplotlib", reason="the report needs the extra plot")

import llvmlite.binding as llvm
import threadpoolctl
from numpy._core import _multiarray_umath as numpy_core

from benches import __main__ as command_line
from benches.gate import CANNOT, rounds, tables, worker
from benches.gate.environments import Environment
from benches.gate.outcome import Outcome
from benches.history import page as history_page
from benches.history import readme, record
from benches.measuring import documents, targets
from benches.measuring.repository import ROOT
from benches.peers import page, table
from benches.peers import run as peers_run
from benches.peers.jobs import goals
from benches.peers.jobs.job import Job, Peer, Prepared
from benches.report import html, summary, terminal
from benches.report import run as report_run
from benches.report.plan import GENERATED
from fastml.kernels.runtime import cpu_kinds, jit

V3 = "x86-64-v3"
ABOVE = [name for name in numpy_core.__cpu_dispatch__ if name.startswith(("AVX512", "X86_V4"))]
needs_v3 = pytest.mark.skipif(cpu_kinds.misfit(V3) is not None, reason=f"this CPU is no {V3}")


@pytest.fixture
def told_v3(monkeypatch):
    """A process that was told to be x86-64-v3, after the kernels' compiler was made without."""
    jit.compiled_for()
    forget = targets.why_not_held.cache_clear
    monkeypatch.setattr(cpu_kinds, "demanded", lambda: V3)
    forget()
    yield
    forget()


@pytest.fixture
def held_numpy(monkeypatch):
    """A NumPy without AVX-512, and a BLAS as one likes."""
    for name in ABOVE:
        monkeypatch.setitem(numpy_core.__cpu_features__, name, False)

    def blas(architecture: str | None, folder: str = "numpy.libs") -> None:
        found = {
            "user_api": "blas", "internal_api": "openblas", "filepath": f"/site/{folder}/libopenblas.so",
            "architecture": architecture,
        }  # fmt: skip
        monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: [found])

    blas("Haswell")
    return blas


# The command line --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"), [("x86-64-v9", "no target that fastml knows"), (None, "another architecture")]
)
def test_a_target_that_does_not_run_here_is_refused(name, why, capsys, monkeypatch):
    monkeypatch.setattr(targets, "again", lambda *_: pytest.fail("it was run"))
    name = name or ("aarch64" if cpu_kinds.architecture() == "x86_64" else V3)
    for command in ("report", "peers", "layers"):
        with pytest.raises(SystemExit) as ended:
            command_line.main([command, "--target", name])
        assert ended.value.code == 2
        assert why in capsys.readouterr().err
    assert command_line.main(["gate", "--target", name]) == CANNOT  # 2 is a wrong result there
    assert why in capsys.readouterr().err


def test_a_numba_that_heeds_no_target_is_refused(monkeypatch):
    monkeypatch.setattr(cpu_kinds, "misfit", lambda name: None)
    monkeypatch.setattr(cpu_kinds, "knows_numba", lambda: False)
    assert "does not know this Numba" in targets.misfit(V3)


def test_a_command_runs_itself_again_with_the_variables_set(monkeypatch):
    class Replaced(Exception):
        pass

    def execve(path, arguments, environ):
        raise Replaced(arguments, environ)

    monkeypatch.setattr(targets, "misfit", lambda name: None)
    monkeypatch.setattr(os, "name", "posix")
    monkeypatch.setattr(os, "execve", execve, raising=False)
    monkeypatch.setenv(
        "NPY_ENABLE_CPU_FEATURES", "AVX2"
    )  # NumPy does not start if some are named to be on and some off
    asked = ["report", "--target", V3, "--only", "exp"]
    with pytest.raises(Replaced) as replaced:
        command_line.main(asked)
    arguments, environ = replaced.value.args
    assert arguments == [sys.executable, "-m", "benches", *asked]
    assert environ["FASTML_TARGET"] == V3
    assert environ["OPENBLAS_CORETYPE"] == "Haswell"
    assert environ["NPY_DISABLE_CPU_FEATURES"].split() == ABOVE
    assert "NPY_ENABLE_CPU_FEATURES" not in environ
    # In that process it goes on.
    for name in environ.keys() - os.environ.keys():
        monkeypatch.setenv(name, environ[name])
    assert targets.is_set(V3)
    assert not targets.is_set("x86-64-v4")


def test_commits_take_turns_where_there_is_a_lesser_cpu(monkeypatch):
    misfits: dict[str, str] = {}
    monkeypatch.setattr(cpu_kinds, "misfit", misfits.get)
    monkeypatch.setattr(cpu_kinds, "knows_numba", lambda: True)
    assert [targets.in_turn(commit) for commit in ("a0", "a1", "b2", "bf")] == [None, V3, None, V3]
    misfits["x86-64-v4"] = "this CPU has no avx512f"
    assert targets.in_turn("a1") is None


@pytest.mark.parametrize("turn", [V3, None])
def test_the_gate_takes_the_target_whose_turn_it_is(turn, monkeypatch):
    ran = []
    monkeypatch.setattr(targets, "in_turn", lambda commit: turn)
    monkeypatch.setattr(targets, "misfit", lambda name: None)
    monkeypatch.setattr(targets, "is_set", lambda name: False)
    monkeypatch.setattr(targets, "again", lambda arguments, name: ran.append(name) or 0)
    monkeypatch.setattr(command_line.gate, "_gate", lambda options: ran.append(options.target) or 0)
    assert command_line.main(["gate", "--target", targets.IN_TURNS]) == 0
    assert ran == [turn]


def test_what_the_user_has_set_already_stays(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    monkeypatch.setenv("NPY_DISABLE_CPU_FEATURES", "FMA3")
    found = targets.settings(V3)
    assert found["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=false --xla_cpu_max_isa=AVX2"
    assert found["NPY_DISABLE_CPU_FEATURES"].split() == ["FMA3", *ABOVE]
    assert targets.settings("aarch64") == {"FASTML_TARGET": "aarch64"}


# Who is held -------------------------------------------------------------------------------------


def test_without_a_target_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(cpu_kinds, "demanded", lambda: None)
    targets.why_not_held.cache_clear()
    assert targets.state(["numpy", "no such package"]) is None
    assert targets.environment() == {}
    assert targets.not_held({}) == targets.not_held({"target": None}) == {}


def test_numpy_and_its_blas_are_asked_what_they_run(told_v3, held_numpy, monkeypatch):
    def problem(package: str) -> str | None:
        targets.why_not_held.cache_clear()
        return targets.why_not_held(package)

    assert problem("numpy") is None
    held_numpy("SkylakeX")
    assert problem("numpy") == "its openblas runs code for SkylakeX"
    assert problem("scipy") is None  # it has one of its own
    held_numpy("SkylakeX", "lib")
    assert problem("scipy") == "its openblas runs code for SkylakeX"
    held_numpy(None)
    assert problem("numpy") == "its openblas does not tell what it runs"
    held_numpy("Zen")
    assert problem("scikit-learn") is None
    if not ABOVE:
        pytest.skip("this NumPy dispatches nothing above AVX2")
    monkeypatch.setitem(numpy_core.__cpu_features__, ABOVE[0], True)
    assert problem("numpy") == problem("scikit-learn") == f"it runs code for {ABOVE[0]}"


def test_fastml_is_asked_too(told_v3, monkeypatch):
    monkeypatch.setattr(jit, "compiled_for", lambda: ("x86_64", "znver4", ""))
    assert targets.why_not_held("fastml") == "it is compiled for znver4"


@pytest.mark.parametrize(
    ("capability", "said", "problem"),
    [
        ("AVX2", "onednn_verbose,v1,info,cpu,isa:Intel AVX2", None),
        ("AVX2", "MKL_VERBOSE oneMKL 2024.0 for Intel(R) AVX2 enabled processors", None),
        ("AVX512", "", "it runs code for AVX512"),
        ("AVX2", "onednn_verbose,v1,info,cpu,isa:Intel AVX-512", "its oneDNN runs code for Intel AVX-512"),
        ("AVX2", "MKL_VERBOSE Intel(R) AVX-512 enabled processors", "its MKL runs code for AVX-512"),
    ],
)
def test_torch_tells_of_itself_and_of_what_is_linked_into_it(
    capability, said, problem, told_v3, held_numpy, monkeypatch
):
    cpu = SimpleNamespace(get_cpu_capability=lambda: capability)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(backends=SimpleNamespace(cpu=cpu)))
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **more: SimpleNamespace(stdout=f"{said}\n"))
    found = targets.why_not_held("torch")
    assert found == problem or (problem and found.startswith(problem))


@pytest.mark.parametrize(("options", "problem"), [("DD AVX2 ", None), ("DD AVX2 AVX512 ", "it runs code for AVX512")])
def test_faiss_tells_its_level(options, problem, told_v3, held_numpy, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", SimpleNamespace(get_compile_options=lambda: options))
    assert targets.why_not_held("faiss-cpu") == problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x00+avx2,-avx512f\x00", None),
        (b"\x00+avx2,+avx512f\x00", "it runs code for AVX512F"),
        (b"..", "it does not tell what it compiles for"),
    ],
)
def test_jax_tells_for_what_it_compiles(content, problem, told_v3, monkeypatch):
    made = SimpleNamespace(serialize=lambda: content)
    made.runtime_executable = lambda: made
    jitted = SimpleNamespace(lower=lambda x: SimpleNamespace(compile=lambda: made))
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(jit=lambda function: jitted))
    assert targets.why_not_held("jax") == problem


@pytest.mark.parametrize(
    ("kind", "said", "problem"),
    [
        (4, "MKL_VERBOSE Intel(R) Architecture processors", None),  # a CPU that Intel did not make
        (6, "", "it runs code for AVX512, as it heeds no variable"),
        (4, "MKL_VERBOSE Intel(R) AVX-512 enabled processors", "its MKL runs code for AVX-512"),
    ],
)
def test_onedal_is_asked_what_its_dispatch_asks(kind, said, problem, told_v3, monkeypatch):
    monkeypatch.setitem(sys.modules, "daal4py", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "daal4py._daal4py", SimpleNamespace(__file__="_daal4py.so"))
    library = SimpleNamespace(_Z22__daal_serv_cpu_detecti=lambda enabled: kind)
    monkeypatch.setattr(ctypes, "CDLL", lambda path: library)
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **more: SimpleNamespace(stdout=f"{said}\n"))
    found = targets.why_not_held("scikit-learn-intelex")
    assert found == problem or (problem and found.startswith(problem))


@pytest.mark.skipif(shutil.which("objdump") is None or cpu_kinds.architecture() != "x86_64", reason="no objdump of x86")
@pytest.mark.parametrize(("cpu", "problem"), [("x86-64-v3", None), ("x86-64-v4", "part.so has code for AVX512")])
def test_who_does_not_choose_is_read(cpu, problem, told_v3, monkeypatch, tmp_path):
    """Machine code of either kind, made here."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    made = llvm.Target.from_default_triple().create_target_machine(cpu=cpu)
    vectors = "define <16 x float> @f(<16 x float> %x, ptr %p) {\n call void %p()\n ret <16 x float> %x\n}"
    part = tmp_path / "part.so"
    part.write_bytes(made.emit_object(llvm.parse_assembly(vectors)))
    monkeypatch.setattr(targets, "loaded_files", lambda packages: [str(part)])
    assert targets.why_not_held("napf") == problem
    targets.why_not_held.cache_clear()
    monkeypatch.setattr(targets, "loaded_files", lambda packages: [])
    assert targets.why_not_held("napf") == "none of its files is found in the process"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which files a process has")
def test_files_of_packages_in_the_process_are_found():
    found = targets.loaded_files(["numpy"])
    assert numpy_core.__file__ in found
    assert "scipy" in sys.modules
    assert not any("/scipy/" in path for path in found)


def test_who_heeds_no_variable_or_does_not_tell_is_not_held(told_v3, monkeypatch):
    assert targets.why_not_held("mlpack") == f"no setting is known that holds it to {V3}"
    monkeypatch.setitem(sys.modules, "faiss", SimpleNamespace())
    assert targets.why_not_held("faiss-cpu").startswith("it does not tell what it runs: AttributeError")


@needs_v3
def test_a_process_with_the_variables_is_held():
    """The libraries that every installation has, asked in a process of its own."""
    code = "import json; from benches.measuring import targets; names = ['fastml', 'numpy', 'scipy', 'scikit-learn']\n"
    code += "print(json.dumps([targets.state(names), targets.environment()]))"
    environ = {**os.environ, **targets.settings(V3)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    state, environment = json.loads(done.stdout)
    assert state["name"] == V3
    assert targets.not_held({"target": state}) == {}
    assert environment == targets.settings(V3)


# What is said and counted ------------------------------------------------------------------------


HELD = {"name": V3, "libraries": [{"name": "fastml", "problem": None}, {"name": "numpy", "problem": None}]}
LOOSE = {"name": V3, "libraries": [{"name": "fastml", "problem": None}, {"name": "numpy", "problem": "<why>"}]}


def terminal_text(document) -> str:
    out = io.StringIO()
    terminal.render(document, terminal.console(out))
    return out.getvalue()


def test_a_report_says_its_target(document):
    for text in (terminal_text({**document, "target": HELD}), html.page({**document, "target": HELD})):
        assert f"Held to {V3}: fastml, numpy." in text
    assert "Held to" not in terminal_text({**document, "target": None})


def test_a_numpy_that_is_not_held_counts_neither_way(document):
    made = {**document, "target": HELD}
    assert summary.summarize(made)["slower"]
    made["target"] = LOOSE
    made["summary"] = summary.summarize(made)
    assert made["summary"]["slower"] == []
    assert made["summary"]["disagree"] == document["summary"]["disagree"]
    for text in (terminal_text(made), html.page(made)):
        assert "lower than vectorised in" not in text
        assert "Not held to it, so not counted: numpy (" in text


def test_a_peer_that_is_not_held_is_shown_and_not_counted(told_v3, monkeypatch, text_of_page):
    loose = {"scipy": "no setting is known"}
    monkeypatch.setattr(goals, "GOALS", (goals.Goal("job, size", "scipy", 1e-9, 1e-9),))
    monkeypatch.setattr(targets, "why_not_held", loose.get)
    peers = {name: lambda: Peer({"": lambda: None}, lambda *_: None) for name in ("scipy", "scikit-learn")}
    job = Job("job", "size", lambda n_threads: Prepared(lambda: None, peers))
    outcomes = peers_run.run(job, 1)
    assert [outcome.held for outcome in outcomes] == [False, True]
    shown = "\n".join(table.lines(outcomes))
    assert "not held" in shown
    assert "reached" not in shown
    counted = table.summary(list(map(asdict, outcomes)))
    assert counted.startswith("1 comparisons")
    assert "1 not counted, as the peer is not held to the target" in counted
    document = peers_run.document(outcomes, 1, {"cpu": {"model": "Some"}, "platform": "Linux", "python": "3.13"})
    assert document["target"]["libraries"][1] == {"name": "scipy", "problem": "no setting is known"}
    for outcome in document["outcomes"]:
        outcome["ratio"] = 0.5
    text = page.page(document)
    assert text.count('class="n slower"') == 1
    text = text_of_page(text)
    assert "scipy (not held)" in text
    assert f"Held to {V3}: fastml, scikit-learn. Not held to it, so not counted: scipy (no setting is known)." in text


# The gate ----------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="the stand-in is a script")
def test_workers_get_what_holds_them(tmp_path, monkeypatch):
    """A stand-in for the interpreter prints what it got."""
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\nimport json, os\nprint(json.dumps(dict(os.environ)))\n")
    script.chmod(0o755)
    monkeypatch.setenv("FASTML_TARGET", "left by the user")
    made = Environment("base", "HEAD", "c" * 40, tmp_path, script, tmp_path)
    for held in ({}, {"FASTML_TARGET": V3, "OPENBLAS_CORETYPE": "Haswell"}):
        process = rounds.InstalledSide(made, tmp_path, 1, held).start()
        environ = process.receive()
        process.close()
        assert {name: environ.get(name) for name in ("FASTML_TARGET", "OPENBLAS_CORETYPE")} == {
            name: held.get(name) for name in ("FASTML_TARGET", "OPENBLAS_CORETYPE")
        }


def test_a_worker_whose_kernels_are_not_held_is_found():
    kind = next((name for name, kind in cpu_kinds.KINDS.items() if jit.compiled_for()[1:] != (kind.cpu, kind.features)))
    assert not worker.is_held(kind)
    assert not worker.is_held("x86-64-v9")


def test_a_worker_without_what_fastml_stands_on_does_not_blame_the_revision():
    code = "import sys; from benches.gate import worker; sys.modules['numba'] = None; worker.is_held('x86-64-v3')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError: import of numba" in done.stderr


def test_a_gate_says_its_target():
    document = {
        "base": {"commit": "a" * 40, "why": "as named"}, "head": {"commit": "b" * 40, "changed": False},
        "threads": 2, "machine": {"cpu": {"model": "Some"}}, "target": HELD,
    }  # fmt: skip
    outcome = Outcome([], [])
    for text in (tables.text(outcome, document), tables.markdown(outcome, document)):
        assert f"Held to {V3}: fastml, numpy." in text
    assert "Held to" not in tables.text(outcome, {**document, "target": None})


# History -----------------------------------------------------------------------------------------


def report(date: str, target=None, cpu: str = "Some", slow: float = 1.0) -> dict:
    tiers = {"loops": 1.0, "vectorized": 0.1, "vectorized_all": 0.08, "compiled_1": 0.01, "compiled_all": 0.005}
    return {
        "created": f"{date}T03:04:05+00:00",
        "source": {"commit": "c" * 40, "changed": False},
        "machine": {
            "fastml": "0.1.0", "python": "3.13.1", "platform": "Linux", "cpu": {"model": cpu},
            "packages": {"numpy": "2.4.0", "numba": "0.68.0"},
        },
        "target": target,
        "threads": {"all": 2, "source": "all"},
        "cases": [
            {
                "name": f"{key} float32 {GENERATED}", "size": {"n": 1000}, "agrees": True, "failure": None,
                "tiers": {tier: {"seconds": seconds * factor} for tier, seconds in tiers.items()},
            }
            for key, factor in (("exp", slow), ("other", 1.0))
        ],
    }  # fmt: skip


def test_lines_join_records_of_one_target_only(tmp_path):
    paths = [
        record.add(report(f"2026-01-0{day}", target), tmp_path) for day, target in ((1, None), (2, HELD), (3, None))
    ]
    assert [path.name for path in paths][1] == f"202601020304-report-{V3}-cccccccccc.json"
    assert json.loads(paths[1].read_text())["target"] == V3
    records = record.read(tmp_path)
    lines = history_page.series(records)["exp"]
    assert sorted(map(len, lines.values())) == [1, 2]
    assert f"Some as {V3}, 2 threads" in history_page.page(records)


def test_what_was_not_held_is_not_kept(tmp_path):
    with pytest.raises(ValueError, match="not held to it are numpy"):
        record.add(report("2026-01-01", LOOSE), tmp_path)


def test_readme_shows_both_targets(tmp_path):
    record.add(report("2026-01-01"), tmp_path)
    record.add(report("2026-01-02", HELD, cpu="Other"), tmp_path)
    alone = readme.block(record.read(tmp_path))
    assert V3 not in alone, "of another machine"
    record.add(report("2026-01-03", HELD, slow=3.0), tmp_path)
    both = readme.block(record.read(tmp_path))
    assert readme.newest(record.read(tmp_path))["date"].startswith("2026-01-01")
    assert "| `exp` | n=1,000 | 1.00 s | 100 ms | 10.0 ms | 5.00 ms | 16.0 | 15.0 ms | 16.0 |" in both
    assert f"2 threads as {V3}" in both
    assert "2026-01-03" in both


# The real thing ----------------------------------------------------------------------------------


@needs_v3
@pytest.mark.needs_jit
@pytest.mark.slow
def test_a_report_as_v3_has_vectors_of_32_bytes(tmp_path):
    arguments = ["report", "--target", V3, "--only", "exp float32 *", "--seconds", "1", "--output", str(tmp_path)]
    command = [sys.executable, "-m", "benches", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    made = documents.read_document(tmp_path / "results.json", report_run.SCHEMA)
    assert made["target"] == {"name": V3, "libraries": [{"name": n, "problem": None} for n in report_run.HELD]}
    assert (made["machine"]["cpu"]["target"], made["machine"]["cpu"]["vector_bytes"]) == (V3, 32)
    assert made["cases"]
    assert f"Held to {V3}: fastml, numpy, scipy." in done.stdout
