"""What the gate compares: sources, environments, the worker, and the benchmarks."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benches.gate import (
    cases,
    environments,
    rounds,
    worker,
)
from benches.gate.environments import GateError
from benches.gate.sources import Sources
from benches.history.record import kernel_of
from benches.measuring.repository import ROOT, WORKTREE, GitError

# Sources -----------------------------------------------------------------------------------------


def site(folder: Path, **files: str) -> Sources:
    texts = {"__init__": "", "kernels/__init__": "", "kernels/_jit": "", "kernels/_math": "from . import _jit", **files}
    for name, text in texts.items():
        file = folder / "fastml" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Sources(folder)


@pytest.mark.parametrize(
    "text",
    [
        "from ._math import exp",
        "from . import _math",
        "def f():\n    from fastml.kernels import _math",
        "import fastml.kernels._math",
    ],
)
def test_imports_inside_the_kernels_are_followed(tmp_path, text):
    sources = site(tmp_path, **{"kernels/logistic": text})
    assert sources.closure("fastml.kernels.logistic") == {
        "fastml.kernels.logistic",
        "fastml.kernels._math",
        "fastml.kernels._jit",
    }


@pytest.mark.parametrize(
    ("text", "has", "has_not"),
    [
        ("from . import kernels\nkernels.k_nearest(1)", "neighbors", "_other"),
        ("from fastml import kernels as k\nk.k_nearest(1)", "neighbors", "_other"),
        ("from .kernels import k_nearest", "neighbors", "_other"),
        ("import fastml\nfastml.kernels._math", "_math", None),
        ("from . import kernels\ngetattr(kernels, name)", "_other", None),
        ("from . import kernels\nkernels.nobody_defines_this", "_other", None),
    ],
)
def test_what_a_model_stands_on(tmp_path, text, has, has_not):
    kernels = {"kernels/neighbors": "from . import _math\ndef k_nearest(): ...", "kernels/_other": ""}
    closure = site(tmp_path, model=text, **kernels).closure("fastml.model")
    assert f"fastml.kernels.{has}" in closure
    assert f"fastml.kernels.{has_not}" not in closure
    assert "fastml.kernels" not in closure  # a table of names that every new name changes


def test_a_digest_changes_with_what_it_stands_on_and_with_nothing_else(tmp_path):
    files = {"kernels/logistic": "from ._math import exp", "kernels/other": ""}
    old = site(tmp_path / "old", **files)
    same = site(tmp_path / "same", **{**files, "kernels/other": "1", "kernels/__init__": "2"})
    deep = site(tmp_path / "deep", **{**files, "kernels/_jit": "1"})
    digests = [sources.digest("fastml.kernels.logistic") for sources in (old, same, deep)]
    assert digests[0] == digests[1] != digests[2]
    assert old.digest("fastml.kernels.gone") is None


def test_of_a_table_of_names_its_code_counts_and_the_rows_of_a_name(tmp_path):
    table = '"""Text."""\n_FAMILIES = {"a": ("f", "g", "k"), "b": ("h",)}\ndef __getattr__(name):\n    return 1\n'
    texts = {
        "first": table,
        "another name": table.replace('"h",', '"h", "i"').replace("Text", "More text"),
        "moved": table.replace('"f", ', "").replace('"h",', '"h", "f"'),
        "wrapped": table.replace("return 1", "return 2"),
    }
    modules = {"kernels/a": "def f(): ...\ndef g(): ...", "kernels/b": "from .a import f"}
    f, g = (
        [
            site(tmp_path / text, **{"kernels/__init__": texts[text], **modules}).digest("fastml.kernels", name)
            for text in texts
        ]
        for name in "fg"
    )
    assert f[0] == f[1] != f[2] != f[3] != f[0]
    assert g[0] == g[1] == g[2] != g[3]


ROOMS = {
    "__init__": '_HOME = {"Classifier": "neighbors", "sweep": "model_selection"}',
    "neighbors/__init__": "from ._classification import Classifier as Classifier\nfrom ._regression import Regressor",
    "neighbors/_classification": "from ..kernels import k_nearest\nfrom . import voting\nclass Classifier: ...",
    "neighbors/_regression": "from .voting import mean\nclass Regressor: ...",
    "neighbors/voting": "def mean(): ...",
    "model_selection/__init__": "from ..neighbors import Classifier\ndef sweep(): ...",
    "kernels/__init__": '_FAMILIES = {"distances.nearest": ("k_nearest",), "distances.pairwise": ("l1", "l2")}',
    "kernels/distances/__init__": '"""Distances."""',
    "kernels/distances/nearest": "from . import panels\nfrom ..runtime.jit import kernel\ndef k_nearest(): ...",
    "kernels/distances/pairwise": "from ..distances import panels\ndef l1(): ...\ndef l2(): ...",
    "kernels/distances/panels": "from .. import runtime\nruntime.blocks.ranges()",
    "kernels/runtime/__init__": "",
    "kernels/runtime/blocks": "def ranges(): ...",
    "kernels/runtime/jit": "",
    "kernels/runtime/team": "",
    "kernels/reference/__init__": "",
    "kernels/reference/loops/__init__": "from .distances import k_nearest",
    "kernels/reference/loops/distances": "from ...distances.panels import rows\ndef k_nearest(): ...\ndef l1(): ...",
}
NEAREST = {
    f"fastml.kernels.{name}" for name in ("distances.nearest", "distances.panels", "runtime.blocks", "runtime.jit")
}


def house(folder: Path, **files: str) -> Sources:
    return site(folder, **{**ROOMS, **files})


def test_a_name_is_followed_through_rooms(tmp_path):
    sources = house(tmp_path)
    assert sources.closure("fastml.kernels", "k_nearest") == NEAREST
    panels = {"fastml.kernels.distances.panels", "fastml.kernels.runtime.blocks"}
    assert sources.closure("fastml.kernels", "l2") == panels | {"fastml.kernels.distances.pairwise"}
    classifier = NEAREST | {"fastml.neighbors._classification", "fastml.neighbors.voting"}
    assert sources.closure("fastml", "Classifier") == classifier
    # What a room defines in its own file counts with that file.
    assert sources.closure("fastml", "sweep") == classifier | {"fastml.model_selection"}
    loops = "fastml.kernels.reference.loops"
    assert sources.closure(loops, "k_nearest") == panels | {f"{loops}.distances"}


@pytest.mark.parametrize(
    "text",
    [
        'from typing import TYPE_CHECKING\n_HOME = {"Classifier": "_classification", "Regressor": "_regression"}\n'
        "if TYPE_CHECKING:\n    from ._classification import Classifier\n",
        "if TYPE_CHECKING:\n    from ._classification import Classifier as Classifier\n",
        "from fastml.neighbors._classification import Classifier",
        "",  # nothing says where it is: the module that defines it
    ],
)
def test_rooms_may_pass_names_on_in_several_ways(tmp_path, text):
    closure = house(tmp_path, **{"neighbors/__init__": text}).closure("fastml", "Classifier")
    assert closure == NEAREST | {"fastml.neighbors._classification", "fastml.neighbors.voting"}


@pytest.mark.parametrize(
    ("text", "has", "has_not"),
    [
        ("from ..runtime.jit import kernel", {"runtime.jit"}, {"runtime.team"}),
        ("from ..runtime import jit, team as crew", {"runtime.jit", "runtime.team"}, {"runtime.blocks"}),
        ("from fastml.kernels.runtime import team", {"runtime.team"}, {"runtime.jit"}),
        ("from ... import kernels\nkernels.distances.panels.f()", {"distances.panels"}, {"distances.pairwise"}),
        ("from ... import kernels\nkernels.l1()", {"distances.pairwise"}, {"distances.panels.x", "runtime.team"}),
        ("import fastml.kernels.runtime as r\nr.team.f()", {"runtime.team"}, {"runtime.jit"}),
        ("from .. import runtime\nf(runtime)", {"runtime.team", "runtime.jit", "runtime.blocks"}, set()),
        ("from ..runtime import *", {"runtime.team", "runtime.jit", "runtime.blocks"}, {"distances.pairwise"}),
        ("from ..reference.loops import k_nearest", {"reference.loops.distances"}, {"runtime.team"}),
    ],
)
def test_imports_across_rooms_are_followed(tmp_path, text, has, has_not):
    closure = house(tmp_path, **{"kernels/distances/nearest": text}).closure("fastml.kernels.distances.nearest")
    assert {f"fastml.kernels.{name}" for name in has} <= closure
    assert not {f"fastml.kernels.{name}" for name in has_not} & closure


def test_a_digest_changes_with_the_rooms_it_stands_on_and_with_nothing_else(tmp_path):
    old = house(tmp_path / "old")
    changed = {
        "another name": {"neighbors/__init__": ROOMS["neighbors/__init__"] + "\nfrom .voting import mean"},
        "another docstring": {"kernels/distances/__init__": '"""Distances of rows."""'},
        "beside it": {"kernels/runtime/team": "1", "neighbors/_regression": "2"},
        "code of a room": {"neighbors/__init__": ROOMS["neighbors/__init__"] + "\nprint()"},
        "deep below": {"kernels/runtime/jit": "1"},
        "a table": {"kernels/__init__": ROOMS["kernels/__init__"].replace("distances.nearest", "reference.loops")},
    }
    same = {
        name: house(tmp_path / name, **files).digest("fastml", "Classifier") == old.digest("fastml", "Classifier")
        for name, files in changed.items()
    }
    assert same == {name: name in ("another name", "another docstring", "beside it") for name in changed}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The working tree as it would be installed."""
    folder = tmp_path_factory.mktemp("here")
    environments.install(ROOT, folder)
    return Sources(folder)


def test_real_benchmarks_stand_on_what_they_import(here):
    def stems(closure) -> set[str]:
        return {name.rpartition(".")[2].lstrip("_") for name in closure}

    nearest, training = (here.closure("fastml.kernels", name) for name in ("k_nearest", "train_linear"))
    assert {"jit", "panels"} <= stems(nearest)
    assert not stems(nearest) & {"descent", "logistic", "loops", "catalogue"}
    assert "descent" in stems(training)
    assert nearest < here.closure("fastml", "KNeighborsClassifier")
    assert training < here.closure("fastml", "SGDClassifier")
    assert not stems(here.closure("fastml", "KNeighborsClassifier")) & {"descent", "plot"}


def test_every_module_can_be_looked_at(here):
    for name in here.modules:
        assert here.closure(name) or name in here.packages
        assert name in here.packages or name in here.closure(name)


LOADED = """
import sys
from fastml import kernels, KNeighborsClassifier
KNeighborsClassifier(1).fit([[0.0], [1.0]], [0, 1]).predict([[0.5]])
print(*(name for name in sys.modules if name.startswith("fastml.")))
"""


@pytest.mark.needs_jit
def test_what_runs_is_what_a_model_stands_on(here):
    done = subprocess.run([sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    # Of packages counts what they do, and these say where they find what they name.
    naming = {"fastml.utils.lazy", "fastml.kernels.losses.table"}
    assert loaded - here.packages - naming == here.closure("fastml", "KNeighborsClassifier")


# Environments ------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path, git):
    """A repository of two commits on main and one on a branch."""
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    folder = tmp_path / "repository"
    (folder / "fastml").mkdir(parents=True)
    (folder / "kernels").mkdir()
    (folder / "setup.cfg").write_text(
        "[options]\npackage_dir =\n    fastml = fastml\n    fastml.kernels = kernels\n"
        "packages =\n    fastml\n    fastml.kernels\n"
    )
    (folder / "fastml" / "__init__.py").write_text("VERSION = 1\n")
    (folder / "kernels" / "__init__.py").write_text("")
    git(folder, "init", "-q", "-b", "main")
    for version in (1, 2):
        (folder / "fastml" / "__init__.py").write_text(f"VERSION = {version}\n")
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", f"version {version}")
    return folder


def test_an_environment_runs_its_own_revision(repository, tmp_path):
    (repository / "fastml" / "__init__.py").write_text("VERSION = 3\n")
    (repository / "kernels" / "new.py").write_text("")  # not committed, and not ignored
    found = []
    for name, revision in (("old", "HEAD~1"), ("new", "HEAD"), ("work", WORKTREE)):
        made = environments.build(name, revision, repository, tmp_path / name, tmp_path / "cache" / name)
        code = "import fastml, numpy; print(fastml.VERSION, fastml.__file__)"
        shown = subprocess.run(
            [str(made.python), "-I", "-B", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
        ).stdout.split(maxsplit=1)
        assert made.site.resolve() in Path(shown[1].strip()).resolve().parents
        found.append((shown[0], (made.site / "fastml" / "kernels" / "new.py").exists()))
        assert len(made.commit) == 40
        assert made.changed == (name == "work")
    assert found == [("1", False), ("2", False), ("3", True)]


def test_the_worker_refuses_a_fastml_from_elsewhere(repository, tmp_path):
    made = environments.build("head", "HEAD", repository, tmp_path / "head", tmp_path / "cache")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    side = rounds.InstalledSide(dataclasses.replace(made, site=elsewhere), tmp_path / "catalogue.py", 1)
    process = side.start()
    try:
        with pytest.raises(GateError, match=r"the worker of the head died \(list\): .*which is not in"):
            rounds.ask(process, do="list")
    finally:
        process.close()


def test_a_revision_that_is_not_there_is_could_not_run(repository, tmp_path, git):
    with pytest.raises(GitError, match="rev-parse"):
        environments.build("base", "nothing", repository, tmp_path / "x", tmp_path / "cache")
    git(repository, "rm", "-qr", "kernels")
    git(repository, "commit", "-qm", "no kernels")
    with pytest.raises(GateError, match="has no kernels"):
        environments.build("base", "HEAD", repository, tmp_path / "y", tmp_path / "cache")


def test_the_base_when_none_is_named(repository, git):
    first, second = (git(repository, "rev-parse", name) for name in ("HEAD~1", "HEAD"))
    git(repository, "checkout", "-qb", "work")
    git(repository, "commit", "-qm", "work", "--allow-empty")
    head = git(repository, "rev-parse", "HEAD")
    assert environments.default_base(repository, head, []) == (second, "where the head left main")
    # A history file counts more, the newest most; one of a commit that is not here does not count.
    assert environments.default_base(repository, head, ["0" * 40, first])[0] == first
    assert environments.default_base(repository, head, [first, second])[0] == second
    git(repository, "branch", "-qm", "main", "trunk")
    assert environments.default_base(repository, head, []) is None


def test_a_copy_without_a_past_has_no_base(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environments.default_base(tmp_path, WORKTREE, []) is None


# The worker --------------------------------------------------------------------------------------


def made_worker(error=0.5, fail=None) -> worker.Worker:
    def prepare():
        if fail:
            raise fail
        return cases.Prepared(lambda: 1, lambda result: error)

    return worker.Worker([cases.Benchmark("a float32", "a", "fastml.kernels", prepare)], cases.Missing, 1)


def test_the_worker_answers_one_line_per_request():
    requests = [
        {"do": "list"},
        {"do": "prepare", "benchmark": "a float32", "check": True},
        {"do": "time", "repeat": 3},
        {"do": "quit"},
        {"do": "list"},
    ]
    answers = io.StringIO()
    worker.serve(made_worker(), io.StringIO("".join(json.dumps(request) + "\n" for request in requests)), answers)
    listed, prepared, timed = map(json.loads, answers.getvalue().splitlines())
    assert listed == {
        "benchmarks": [{"name": "a float32", "kernel": "a", "package": "fastml.kernels"}],
        "expected": 1,
    }
    assert prepared["error"] == 0.5
    assert timed["seconds"] >= 0


def test_the_worker_tells_failures_apart():
    request = {"do": "prepare", "benchmark": "a float32", "check": True}
    assert made_worker(fail=cases.Missing("no a")).answer(request) == {"missing": "no a"}
    assert made_worker(fail=ValueError("no")).answer(request) == {"failed": "ValueError: no"}
    assert made_worker().answer({**request, "benchmark": "b"}) == {"missing": "there is no b"}
    for wrong in (math.nan, math.inf):
        answer = made_worker(error=wrong).answer(request)
        assert json.loads(json.dumps(answer, allow_nan=False))["error"] == 1e300


LOAD = """
import importlib, importlib.util, sys
import fastml.kernels
if "{first}":
    importlib.import_module("fastml.kernels.{first}")
before = sys.modules.get("fastml.kernels.{first}")
spec = importlib.util.spec_from_file_location("cases", {cases!r})
cases = sys.modules["cases"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)
catalogue = cases.load_catalogue(cases.Path({folder!r}))
from fastml import kernels
from fastml.kernels import catalogue as found
assert catalogue is found is sys.modules["fastml.kernels.catalogue"]
assert catalogue.ENTRIES == ["planted", "table of the planted"]
assert sys.modules.get("fastml.kernels.{first}") is before
# The kernels that are installed are called: also those that were loaded before, or have a namesake.
assert hasattr(catalogue.tier(), "exp") and kernels.exp is not None
assert importlib.util.find_spec("fastml.kernels.tables_of_it") is None
assert not hasattr(kernels, "tables_of_it")
"""


@pytest.mark.needs_jit
@pytest.mark.parametrize("first", ["", "reference", "catalogue"])
@pytest.mark.parametrize("form", ["a file", "a package"])
def test_the_catalogue_may_be_a_file_or_a_package(tmp_path, form, first):
    """And it reads tables that lie beside it, which the installed kernels may have otherwise or not at all."""
    above = "." if form == "a file" else ".."
    text = (
        f"from {above}reference import NAME\nfrom {above}tables_of_it.names import TABLE\nENTRIES = [NAME, TABLE]\n"
        "def tier():\n    from importlib import import_module\n"
        '    return import_module("fastml.kernels.reference.loops")\n'
    )
    files = {"reference/__init__.py": "NAME = 'planted'", "tables_of_it/__init__.py": ""}
    files["tables_of_it/names.py"] = "TABLE = 'table of the planted'"
    if form == "a file":
        files["catalogue.py"] = text
    else:
        files |= {"catalogue/__init__.py": "from .entry import ENTRIES, tier", "catalogue/entry.py": text}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    code = LOAD.format(first=first, cases=cases.__file__, folder=str(tmp_path))
    if first == "catalogue":  # that one is replaced
        code = code.replace(" is before", " is not before")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Benchmarks --------------------------------------------------------------------------------------


def all_benchmarks(n_threads: int) -> list[cases.Benchmark]:
    from fastml.kernels import catalogue

    return cases.benchmarks(catalogue.ENTRIES, n_threads)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_all_entries_and_models_are_there_under_names_of_their_own(n_threads):
    import fastml
    from fastml.kernels import catalogue

    found = all_benchmarks(n_threads)
    names = [benchmark.name for benchmark in found]
    assert len(set(names)) == len(names)
    models = sum(name in fastml.__all__ for name in cases.MODELS)
    assert len(names) == cases.expected_number(catalogue.ENTRIES, models, n_threads)
    for entry in catalogue.ENTRIES.values():
        assert {f"{entry.key} {dtype}" for dtype in entry.dtypes} <= set(names)
    assert all(kernel_of(benchmark.name) == benchmark.kernel for benchmark in found)


def test_every_estimator_has_a_benchmark():
    import fastml

    estimators = {
        name
        for name in fastml.__all__
        if inspect.isclass(getattr(fastml, name)) and hasattr(getattr(fastml, name), "fit")
    }
    assert estimators <= cases.MODELS.keys()


def test_every_module_of_a_benchmark_has_sources(here):
    for benchmark in all_benchmarks(2):
        assert here.digest(benchmark.package, benchmark.kernel.partition("[")[0]) is not None, benchmark.name


def test_quick_sizes_lie_between_the_loop_and_the_default():
    from fastml.kernels import catalogue

    for entry in catalogue.ENTRIES.values():
        size = cases.quick_size(entry)
        assert len(size) == len(entry.axes)
        assert size[1:] == entry.sizes["default"][1:]
        assert 1 <= size[0] <= entry.sizes["default"][0]


def test_what_a_revision_lacks_is_missing_and_not_a_failure():
    def tier(name):
        raise AttributeError("module 'fastml.kernels' has no attribute 'new'")

    entry = SimpleNamespace(key="new", family="f", function="new", tier=tier)
    with pytest.raises(cases.Missing, match="has no new"):
        cases.of_entry(entry, "float32", (1,), 1, "").prepare()
    # What is there and cannot be imported is broken, not missing.
    entry.function = "exp"
    with pytest.raises(AttributeError):
        cases.of_entry(entry, "float32", (1,), 1, "").prepare()


@pytest.mark.needs_jit
@pytest.mark.parametrize("name", ["LogisticRegression", "Ridge"])
def test_a_wrong_model_is_found(name):
    import fastml

    model = cases.MODELS[name]
    X, y = cases.problem(model)
    assert X.dtype == np.float32
    assert cases.prediction_error(model, y, y) == 0
    assert cases.prediction_error(model, y[:-1], y) == math.inf
    assert cases.prediction_error(model, np.zeros_like(y), y) > 1
    # A few wrong ones more than there are now.
    found = getattr(fastml, name)(**model.parameters, n_jobs=1).fit(X, y).predict(X)
    assert cases.prediction_error(model, found, y) <= 1
    found[::10] = 0
    assert cases.prediction_error(model, found, y) > 1
    with np.errstate(invalid="ignore"):
        nan = cases.prediction_error(model, np.full(len(y), np.nan), y)
    assert not nan <= 1


@pytest.mark.needs_jit
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(cases.MODELS))
def test_models_reach_their_floors(name):
    found = {benchmark.name: benchmark for benchmark in all_benchmarks(1)}
    if f"{name}.fit" not in found:
        pytest.skip(f"fastml has no {name}")
    import warnings

    with warnings.catch_warnings():
        for step in ("fit", "predict"):
            prepared = found[f"{name}.{step}"].prepare()
            assert prepared.error(prepared.call()) <= 1
