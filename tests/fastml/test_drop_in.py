"""An import replaced: scikit-learn's own tests of the twins, with fastml's classes in the place of scikit-learn's.

``make sklearn-tests`` runs all of their files, CI the first ones. A test counts if it built an object of fastml's. One
that fails stands in ``drop_in_accepted.toml`` by its id, with one of `REASONS`; one that stands there and passes must
be taken out, so that the number that pass can only rise.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import sklearn

from checkout import ROOT

#: The version whose tests are listed: other versions have other tests.
LISTED = "1.9"

#: Their files, whether CI runs them, and the share of the counted tests without sparse X that pass: at least this one,
#: which is to rise to 0.7 in all of them.
FILES = {
    "sklearn.svm.tests.test_svm": (True, 0.8),
    "sklearn.linear_model.tests.test_base": (True, 0.9),
    "sklearn.neural_network.tests.test_mlp": (True, 0.45),
    "sklearn.linear_model.tests.test_sgd": (False, 0.5),
    "sklearn.linear_model.tests.test_logistic": (False, 0.7),
    "sklearn.linear_model.tests.test_ridge": (False, 0.9),
}

#: Why a test may fail; the latter two say where to read more.
REASONS = ("sparse X", "private name of theirs", "attribute of one solver", "documented difference", "fault of theirs")

LIST = Path(__file__).with_name("drop_in_accepted.toml")
ACCEPTED: dict[str, dict[str, str]] = tomllib.loads(LIST.read_text(encoding="utf-8"))


def wrong_reasons(accepted: dict[str, dict[str, str]]) -> list[str]:
    """Return the entries whose reason is none, or whose page or heading is not there."""
    wrong = []
    for file, tests in accepted.items():
        for test, text in tests.items():
            reason, _, where = text.partition(": ")
            needs_place = reason in REASONS[3:]
            page, _, heading = where.partition("#")
            if (
                reason not in REASONS
                or needs_place != bool(where)
                or (reason == "documented difference" and not has_heading(page, heading))
                or (reason == "fault of theirs" and not where.startswith("https://github.com/scikit-learn/"))
            ):
                wrong.append(f"{file}::{test}: {text}")
    return wrong


def has_heading(page: str, heading: str) -> bool:
    file = ROOT / "docs" / page
    titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) if file.is_file() else []
    return heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def verdict(found: dict[str, list[object]], accepted: dict[str, str], least: float) -> list[str]:
    """Return what is wrong with the outcomes of a file's tests, given those that may fail."""
    failed = {test for test, (outcome, *_) in found.items() if outcome == "failed"}
    wrong = [f"{test} failed: {found[test][2]}" for test in sorted(failed - accepted.keys())]
    wrong += [f"{test} passes, or is gone: take it out of the list" for test in sorted(accepted.keys() - failed)]
    sparse = {test for test, reason in accepted.items() if reason == REASONS[0]}
    counted = {test for test, (outcome, *_) in found.items() if outcome != "skipped"} - sparse
    if not counted or len(counted - failed) < least * len(counted):
        wrong.append(f"{len(counted - failed)} of {len(counted)} tests without sparse X pass, {least:.0%} must")
    return wrong


@pytest.mark.slow
@pytest.mark.needs_jit
@pytest.mark.skipif(not sklearn.__version__.startswith(LISTED), reason=f"the list is for scikit-learn {LISTED}")
@pytest.mark.parametrize("file", FILES)
def test_their_tests_pass_but_for_those_that_are_listed(file, tmp_path):
    in_ci, least = FILES[file]
    if not (in_ci or os.environ.get("FASTML_SKLEARN_TESTS") == "all"):
        pytest.skip("make sklearn-tests runs it")
    report, settings = tmp_path / "report.json", tmp_path / "pytest.ini"
    settings.write_text("[pytest]\n", encoding="utf-8")
    command = [
        sys.executable, "-m", "pytest", "-q", "-c", settings, "-p", "no:cacheprovider", "-p", "with_fastml",
        "--with-fastml-report", report, "--pyargs", file,
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "support"), str(ROOT)])}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert report.is_file(), ran.stdout + ran.stderr
    found = {test.partition("::")[2]: value for test, value in json.loads(report.read_text(encoding="utf-8")).items()}
    assert verdict(found, ACCEPTED.get(file, {}), least) == []


def test_every_reason_is_one_and_every_link_leads_somewhere():
    assert ACCEPTED.keys() <= FILES.keys()
    assert wrong_reasons(ACCEPTED) == []


@pytest.mark.parametrize(
    "text",
    ["too slow", "sparse X: docs", "documented difference", "documented difference: sgd.md#nowhere",
     "documented difference: none.md#batches", "fault of theirs: https://example.org"],
)  # fmt: skip
def test_a_wrong_reason_is_found(text):
    assert wrong_reasons({"file": {"test": text}}) == [f"file::test: {text}"]
    assert wrong_reasons({"file": {"test": "sparse X", "other": "documented difference: sgd.md#batches"}}) == []


def test_verdicts():
    passed, failed, skipped = ["passed", 1, ""], ["failed", 2, "E"], ["skipped", 1, ""]
    good = {"a": passed, "b": passed, "c": passed, "d": failed, "e": failed, "f": skipped}
    assert verdict(good, {"d": "sparse X", "e": "private name of theirs"}, 0.7) == []
    assert verdict(good, {"d": "sparse X"}, 0.7) == ["e failed: E"]
    assert verdict(good, {"c": "sparse X", "d": "sparse X", "e": "sparse X"}, 0.7) == [
        "c passes, or is gone: take it out of the list"
    ]
    assert verdict({"a": passed, "d": failed}, {"d": "private name of theirs"}, 0.7) == [
        "1 of 2 tests without sparse X pass, 70% must"
    ]
    assert len(verdict({}, {}, 0.5)) == 1
