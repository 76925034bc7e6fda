"""First fits: the guard sees what is compiled, figures are differences of medians, the table goes where it belongs."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("resource", reason="CPU seconds of other processes are counted on POSIX systems only")

from benches import __main__ as command
from benches.startup import run, table
from benches.startup.jobs import JOBS, write_digits
from benches.startup.processes import Failed, Interpreter, Reading, Unexpected
from checkout import ROOT, python_path
from fastml.kernels.runtime import jit

COMPILES = "import numba\n@numba.njit\ndef twice(x): return 2 * x\ntwice(1)"


@pytest.fixture
def python(monkeypatch) -> Interpreter:
    monkeypatch.setenv("PYTHONPATH", python_path())
    return Interpreter(Path(sys.executable))


# ------------------------------------------------------------------------------------ processes


@pytest.mark.needs_jit
def test_the_guard_fails_on_what_is_compiled(python, tmp_path):
    with pytest.raises(Unexpected, match="compiler ran, for twice") as raised:
        python.fit(COMPILES, cache=tmp_path, pack=True, compiles=False)
    assert raised.value.exit_code == 1
    assert "twice" in python.fit(COMPILES, cache=tmp_path, pack=False, compiles=True).compiled


@pytest.mark.needs_jit
def test_the_guard_fails_where_an_empty_cache_compiles_nothing(python, tmp_path):
    with pytest.raises(Unexpected, match="did not run"):
        python.fit("", cache=tmp_path, pack=False, compiles=True)
    assert python.fit("", cache=tmp_path, pack=True, compiles=False).compiled == ()


@pytest.mark.needs_jit
def test_a_first_fit_with_a_warm_cache_compiles_nothing(python, tmp_path, monkeypatch):
    info = jit.cache_info()
    if not info.writable:
        pytest.skip(info.reason)
    job = JOBS[0]
    script = job.fit(write_digits(tmp_path))
    exec(script, {})  # fills the cache of this process
    reading = python.fit(script, cache=Path(info.path).parents[2], pack=False, compiles=False)
    assert 0 < reading.cpu
    assert 0 < reading.wall


def test_what_fails_says_its_last_words(python):
    with pytest.raises(Failed, match="NameError") as raised:
        python.run("nonsense")
    assert raised.value.exit_code == 2


def test_the_environment_of_a_process(python, monkeypatch, tmp_path):
    for name in ("FASTML_PACK", "NUMBA_CACHE_DIR", "NUMBA_DISABLE_JIT"):
        monkeypatch.setenv(name, "theirs")
    script = "import os; assert {} == {{n: os.environ[n] for n in os.environ if n in {}}}"
    names = ("FASTML_PACK", "NUMBA_CACHE_DIR", "NUMBA_DISABLE_JIT", "FASTML_QUIET")
    python.run(script.format({"FASTML_QUIET": "1"}, names))
    ours = {"FASTML_PACK": "0", "NUMBA_CACHE_DIR": str(tmp_path), "FASTML_QUIET": "1"}
    python.fit(script.format(ours, names), cache=tmp_path, pack=False, compiles=False)
    assert os.environ["FASTML_PACK"] == "theirs"


def test_cpu_seconds_are_those_of_the_process_alone(python):
    idle = python.run("import time; time.sleep(0.5)")
    assert idle.wall > 0.5
    busy = python.run("import time\nwhile time.process_time() < 0.5: pass")
    assert busy.cpu > 0.5


@pytest.mark.needs_jit
def test_a_warm_up_that_finds_what_it_should_compile_is_an_error(python, tmp_path):
    python.warm_up(tmp_path, compiles=True, only="sigmoid")
    python.warm_up(tmp_path, compiles=False, only="sigmoid")
    with pytest.raises(Unexpected, match="should have compiled"):
        python.warm_up(tmp_path, compiles=True, only="sigmoid")


def test_scripts_name_what_there_is():
    for job in JOBS:
        exec(f"{job.import_twin}\n{job.import_fastml}\n{job.imports}", found := {})
        assert job.name in found


# ------------------------------------------------------------------------------------ order and medians


class FakePython:
    """Answers with made-up seconds, and takes down what it was asked for."""

    def __init__(self, pack: str | None = None) -> None:
        self.pack, self.asked = pack, []

    def used_pack(self):
        return self.pack

    def info(self):
        return {
            "path": "/made/up/fastml/__init__.py",
            "fastml": "0.1",
            "python": "3.13",
            "packages": {"numpy": "2.4", "numba": "0.68", "scikit-learn": "1.9"},
            "cpu": {"model": "made up", "target": "z80"},
            "threads": {"count": 2},
        }

    def run(self, script):
        kind = "fastml" if "fastml" in script else "numba" if "numba" in script else "twin"
        return self._answer(kind, {"fastml": 1.25, "numba": 1.5, "twin": 1.0}[kind])

    def fit(self, script, *, cache, pack, compiles):
        kind = "pack" if pack else "empty" if compiles else "warm"
        return self._answer(kind, {"pack": 1.6, "empty": 21.5, "warm": 1.8}[kind], cache)

    def warm_up(self, cache, *, compiles):
        return self._answer("catalogue", 100.0 if compiles else 9.0, cache)

    def _answer(self, kind, cpu, cache=None):
        self.asked.append((kind, cache))
        # One reading in three is far off.
        return Reading(cpu * (10 if len(self.asked) % 3 == 0 else 1), 2 * cpu)


def kinds(python: FakePython) -> list[str]:
    return [kind for kind, _ in python.asked]


def test_processes_take_turns_and_empty_caches_are_empty():
    python = FakePython(pack="x86-64-v3")
    run.measure(["LinearSVC"], python, 2, lambda line: None)
    assert kinds(python) == ["empty"] * 2 + ["twin", "numba", "fastml", "warm", "pack"] * 2
    of = {kind: [cache for asked, cache in python.asked if asked == kind] for kind in kinds(python)}
    assert len(set(of["empty"])) == 2
    assert set(of["warm"]) == {of["empty"][-1]}
    assert set(of["pack"]).isdisjoint(of["empty"])


def test_compilations_are_few():
    python = FakePython()
    run.measure(["LinearSVC"], python, 9, lambda line: None)
    assert kinds(python).count("empty") == 3
    assert kinds(python).count("warm") == 9


def test_no_pack_is_measured_where_none_is_used():
    python = FakePython()
    found = run.measure(["LinearSVC", "warmup"], python, 1, lambda line: None)
    assert "pack" not in kinds(python)
    assert found.rows[0].pack is None
    assert "| LinearSVC | no pack |" in table.block(found)


def test_the_table_has_differences_of_medians():
    found = run.measure(["LinearSVC", "warmup"], FakePython(pack="x86-64-v3"), 7, lambda line: None)
    text = table.block(found)
    assert text.startswith(table.BEGIN)
    assert text.endswith(table.END)
    for line in (
        "| first fit | with a pack (x86-64-v3) | without, empty cache | warm cache |",
        "| LinearSVC | 0.10 (3.20) | 20 (43) | 0.30 (3.60) |",
        "| whole catalogue (`warmup`, wall time) | – | 200 | 18 |",
        "| LinearSVC | 1.00 (2.00) | 1.25 (2.50) | 0.25 |",
    ):
        assert line in text.splitlines()
    for part in ("made up", "compiled for z80", "2 threads", "fastml 0.1", "numba 0.68"):
        assert part in text.replace("\n", " "), part
    assert "commit" not in text, "that fastml is not from here"
    here = dataclasses.replace(found, source={"commit": "0123456789abcdef", "changed": False})
    assert "at commit `0123456789`" in table.block(here).replace("\n", " ")


def test_an_error_names_the_estimator(monkeypatch):
    def fit(*arguments, **options):
        raise Unexpected("the compiler ran")

    python = FakePython()
    python.fit = fit
    with pytest.raises(Unexpected, match="LinearSVC: the compiler ran"):
        run.measure(["LinearSVC"], python, 1, lambda line: None)


# ------------------------------------------------------------------------------------ the command


@pytest.fixture
def made_up(monkeypatch) -> SimpleNamespace:
    """`measure` without processes; its names and its number of processes are kept."""
    asked = SimpleNamespace(error=None)

    def measure(names, python, processes, say):
        if asked.error:
            raise asked.error
        asked.names, asked.python, asked.processes = names, python, processes
        return measured(names, FakePython(), 1, say)

    measured = run.measure
    monkeypatch.setattr(run, "measure", measure)
    return asked


def test_the_command_prints_the_whole_table(made_up, capsys):
    assert command.main(["startup"]) == 0
    assert made_up.names == [*(job.name for job in JOBS), "warmup"]
    assert made_up.python.path == Path(sys.executable)
    assert capsys.readouterr().out.startswith(table.BEGIN)


def test_a_part_of_it(made_up, capsys):
    assert command.main(["startup", "--only", "MLP", "--processes", "3", "--python", "/other/python"]) == 0
    assert (made_up.names, made_up.processes, made_up.python.path) == (["MLPClassifier"], 3, Path("/other/python"))
    assert "catalogue" not in capsys.readouterr().out


def test_the_table_is_written_between_its_marks(made_up, capsys, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"above\n{table.BEGIN}\nold\n{table.END}\nbelow\n", encoding="utf-8")
    assert command.main(["startup", "--write", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text == f"above\n{capsys.readouterr().out}below\n"
    assert "old" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nonsense"], "matches none of: KNeighborsClassifier"),
        (["--only", "MLP", "--write", "docs/cache.md"], "the whole table"),
        (["--write", "no such file"], "No such file"),
        (["--write", "setup.cfg"], "the file must have the lines"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_measured(made_up, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(ROOT)
    assert command.main(["startup", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not hasattr(made_up, "names")


@pytest.mark.parametrize(("error", "code"), [(Unexpected("compiled"), 1), (Failed("not found"), 2)])
def test_the_exit_code_says_whether_something_was_compiled(made_up, capsys, error, code):
    made_up.error = error
    assert command.main(["startup"]) == code
    assert str(error) in capsys.readouterr().err


def test_the_page_has_a_place_for_the_table():
    page = (ROOT / "docs" / "cache.md").read_text(encoding="utf-8")
    assert page.count(table.BEGIN) == page.count(table.END) == 1
