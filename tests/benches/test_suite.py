"""The asv suite: it is complete, it is versioned, it skips what a commit lacks, and its configuration is true."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from benches.measuring.repository import ROOT

# In a process of its own: the suite puts the working tree's catalogue in the place of the installed one.
LOOK = """
import importlib, inspect, json, sys
sys.path.append("benches")  # behind the standard library, which has a `profile` too
from suite import common
found = {}
for name in ("kernels", "memory", "models", "scaling", "startup"):
    module = importlib.import_module(f"suite.{name}")
    for key, value in vars(module).items():
        if inspect.isclass(value) and issubclass(value, common.Settings) and value.__module__ == module.__name__:
            if not key.startswith("_"):
                methods = [m for m in dir(value) if m.startswith(("time_", "timeraw_", "track_", "peakmem_"))]
                found[f"{name}.{key}"] = {
                    "version": value.version, "methods": methods, "params": value.params, "names": value.param_names,
                }
from suite import kernels
def skips(call):
    try:
        call()
    except NotImplementedError:
        return True
one = kernels.Exp()
place = ("vectorised", "float32", "tiny")
one.setup(*place)
one.time_call(*place)
from suite import scaling
scaled = []
for name, axis in (("pairwise_l1", scaling.D), ("pairwise_l2", scaling.D), ("k_nearest", scaling.K)):
    of = axis()
    of.setup(name, 2)
    scaled.append(of.track_error(name, 2))
def old(x):
    ...
print(json.dumps({
    "classes": found,
    "error": one.track_error(*place),
    "entries": [kernels._name(key) for key in common.catalogue.ENTRIES],
    "models": list(common.cases.MODELS),
    "scaled": scaled,
    "skips": [
        skips(lambda: kernels.Exp().setup("loop", "float32", "full")),
        skips(lambda: common.needed(lambda: __import__("fastml").no_such_name)),
        skips(lambda: common.called(lambda: old(1, n_threads=1))),
        not skips(lambda: common.called(lambda: old(1))),
    ],
}))
"""


@pytest.fixture(scope="module")
def suite() -> dict:
    done = subprocess.run([sys.executable, "-c", LOOK], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_entry_and_every_model_has_a_class(suite):
    kernels = {name for name in suite["classes"] if name.startswith("kernels.")}
    assert kernels == {f"kernels.{name}" for name in suite["entries"]}
    assert len(kernels) == len(suite["entries"])
    models = {name for name in suite["classes"] if name.startswith("models.")}
    assert models == {f"models.{name}" for name in suite["models"]}


def test_all_benchmarks_are_versioned_and_measure_something(suite):
    for name, found in suite["classes"].items():
        assert re.fullmatch(r"\d+", found["version"]), name
        assert found["methods"], name
        assert len(found["names"]) == len(found["params"]), name
        assert all(found["params"]), name


def test_scores_and_errors_stand_beside_times(suite):
    for name, found in suite["classes"].items():
        if name.startswith("kernels."):
            assert found["methods"] == ["time_call", "track_error"]
        if name.startswith("scaling."):
            assert found["methods"] in (["time_call", "track_error"], ["time_epoch", "track_score"])
        if name.startswith("models."):
            assert found["methods"] == ["peakmem_fit", "time_fit", "time_predict", "track_score"]


def test_all_that_was_promised_is_there(suite):
    assert {"memory.KNearest", "memory.Training", "startup.Import", "startup.FirstCall"} <= suite["classes"].keys()
    assert {f"scaling.{axis}" for axis in ("Threads", "N", "M", "D", "K", "Batch")} <= suite["classes"].keys()
    assert suite["classes"]["kernels.Exp"]["params"][2] == ["tiny", "loop", "default", "full"]


def test_a_benchmark_runs_and_its_result_is_judged(suite):
    assert 0 <= suite["error"] <= 1
    assert all(0 <= error < 1e-5 for error in suite["scaled"])


def test_what_a_commit_lacks_is_skipped(suite):
    assert suite["skips"] == [True] * 4


def test_the_configuration_names_folders_that_are_there():
    text = (ROOT / "benches" / "asv.conf.json").read_text(encoding="utf-8")
    configuration = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    assert (ROOT / "benches" / configuration["benchmark_dir"] / "__init__.py").is_file()
    assert (ROOT / "benches" / configuration["repo"]).resolve() == ROOT
    # What asv leaves lies where git ignores it and `make clean` removes it.
    for key in ("env_dir", "results_dir", "html_dir"):
        assert configuration[key].startswith("../.asv/")
    assert "/.asv/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
