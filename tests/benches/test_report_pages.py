"""The report shows and writes: tables, the page, the document, numbers in print; then the real thing once."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import pytest

pytest.importorskip("rich", reason="the report needs the extra bench")
pytest.importorskip("threadpoolctl", reason="the report needs the extra bench")
pytest.importorskip("matplotlib", reason="the report needs the extra plot")

from benches import __main__ as command_line
from benches.measuring import documents, formats
from benches.measuring.repository import ROOT
from benches.report import html, known_answers, run, scaling, terminal, tiles
from fastml import datasets


def case_of(document: dict[str, Any], key: str) -> dict[str, Any]:
    return next(case for case in document["cases"] if case["entry"] == key)


# What is shown ---------------------------------------------------------------------------------


def terminal_text(document, monkeypatch=None) -> str:
    out = io.StringIO()
    terminal.render(document, terminal.console(out))
    return out.getvalue()


def test_terminal_fits_100_columns_without_color(document):
    long = copy.deepcopy(document)
    keys = ["linear_loss_gradient[binary_cross_entropy]", "softmax_cross_entropy_gradient[probabilities]"]
    for case, key in zip(long["cases"], keys * 2, strict=True):
        case["entry"] = key
        if case["tiers"]:
            case["tiers"]["loops"]["seconds"] = 1234.5
            case["speedups"]["compiled_1_over_loops"] = 1234567.0
    for made in (document, long):
        text = terminal_text(made)
        assert "\x1b" not in text
        assert max(map(len, text.splitlines())) <= 100
        assert "…" not in text, "a cell was cut"
    assert "linear_loss_gradient" in text
    assert "[binary_cross_entropy]" in text


def test_terminal_says_what_is_slower_wrong_and_scaled(document):
    text = terminal_text(document)
    head = text[: text.index("Generated arrays")]
    assert "JIT is SLOWER than vectorised in 1 of 3 cases" in head
    assert "slow_one float32 generated" in head
    assert "DISAGREES with the reference beyond its bound: wrong float32" in head
    assert "FAILED: broken float32 generated: RuntimeError: no such <luck>" in head
    assert "DIFFERS from the published figure: rate 0.699" in head
    row = next(line for line in text.splitlines() if line.startswith("slow_one"))
    assert row.count("SLOWER") == 2
    assert re.search(r"\d+ ms\*", row)
    assert "higher is" in text
    assert "matches" in text
    assert "DIFFERS" in text


def test_nothing_slower_is_said_too(made_up):
    assert "JIT is slower than vectorised in none of 1 cases" in terminal_text(made_up.run(made_up.fast("fine")))


@pytest.mark.parametrize(("load", "said"), [(None, False), (0.1, False), (1.7, True)])
def test_a_busy_machine_is_mentioned(load, said, document):
    made = {**document, "load_average": load}
    assert ("load average 1.7" in terminal_text(made)) is said
    assert ("load average 1.7" in html.page(made)) is said


def test_output_without_the_signs_does_not_raise(document):
    raw = io.BytesIO()
    terminal.render(document, terminal.console(io.TextIOWrapper(raw, encoding="ascii")))


class Outline(HTMLParser):
    """Collects what a page refers to, and whether its tags close."""

    void = frozenset({"meta", "br", "hr", "img", "link", "input", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in self.void:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.references.append(value)
            if name == "id":
                self.ids.add(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_self_contained_and_well_formed(document):
    text = html.page(document)
    outline = Outline()
    outline.feed(text)
    assert outline.open == []
    assert all(reference.startswith("#") for reference in outline.references)
    assert {reference[1:] for reference in outline.references} <= outline.ids
    assert not {"script", "link", "iframe", "img", "object"} & set(outline.tags)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert outline.tags.count("svg") == 7
    assert "no such &lt;luck&gt;" in text
    assert "2 x &lt; 3 &amp; y" in text


def test_page_shows_slower_and_wrong_as_plainly_as_faster(document):
    text = html.page(document)
    assert "JIT is slower than vectorised in 1 of 3 cases" in text
    assert text.index("JIT is slower") < text.index("<svg")
    assert re.search(r'<td class="slower">0\.\d+ slower</td>', text)
    assert "SLOWER" in text, "the plots say it in words too"
    assert re.search(r'class="slower"[^>]*>(9|10)\.\d+ wrong', text)
    assert "WRONG" in text
    assert '<td class="slower">differs</td>' in text
    assert text.count("higher is better") > 5


def test_studies_are_shown(document):
    text = html.page(document)
    assert "vsubps &lt;zmm1&gt;" in text
    assert "50 %" in text
    assert 'id="scaling"' in text
    assert "L∞, uint8" in terminal_text(document)
    without = {**document, "tiles": None, "scaling": None}
    assert "adders" not in html.page(without) + terminal_text(without)


@pytest.mark.needs_jit
@pytest.mark.slow
def test_tiles_against_the_adders():
    """A tile cannot be faster than the adders; its loop is the one that accumulates."""
    for _ in range(5):  # the clock is measured apart from the tiles: another process between them spoils a share
        study = tiles.measure()
        if all((tile["share_of_peak"] or 0) < 1.2 for tile in study["tiles"]):
            break
    assert 1e8 < study["clock"] < 1e10
    assert {(tile["metric"], tile["dtype"]) for tile in study["tiles"]} == {
        (metric, dtype) for metric in ("l1", "l2", "linf") for dtype in ("float32", "float64", "uint8")
    }
    for tile in study["tiles"]:
        assert tile["vector_instructions"] > tile["rows"] * tile["vectors"]
        assert tile["elements"] % (tile["rows"] * tile["vectors"] * tile["lanes"]) == 0
        assert tile["share_of_peak"] is None or 0 < tile["share_of_peak"] < 1.2


def test_the_hottest_loop_is_found():
    assembly = """
.LBB0_1:
\tvmovups (%rax), %zmm0
\tjne .LBB0_1
.LBB0_2:
\txorl %eax, %eax
.LBB0_3: # the inner one
\tvsubps %zmm0, %zmm1, %zmm2
\tvfmadd231ps %zmm2, %zmm2, %zmm3
\tcmpq %rax, %rbx
\tjne .LBB0_3
\tjne .LBB0_2
"""
    assert [line.split()[0] for line in tiles.hottest_loop(assembly)] == ["vsubps", "vfmadd231ps", "cmpq", "jne"]


@pytest.mark.needs_jit
def test_scaling_varies_one_axis_at_a_time(monkeypatch):
    monkeypatch.setattr(scaling, "BASE", {"n": 5, "m": 20, "d": 3, "k": 2})
    monkeypatch.setattr(scaling, "AXES", {"n": (1, 9), "m": (7,), "d": (1, 40), "k": (1, 20)})
    points = scaling.measure(2)
    found = {(point["function"], point["axis"], point["value"], point["threads"]) for point in points}
    assert len(found) == len(points)
    assert ("k_nearest", "k", 20, 2) in found
    assert ("pairwise_l2", "threads", 1, 1) in found
    assert not any(function == "pairwise_l2" and axis == "k" for function, axis, *_ in found)
    assert all(point["rate"] > 0 for point in points)


def test_page_of_a_run_that_measured_nothing(made_up):
    empty = made_up.run(made_up.fast("broken", off={"compiled": RuntimeError("?")}))
    assert "<svg" not in html.page(empty)
    assert "FAILED" in terminal_text(empty)


# What is written -------------------------------------------------------------------------------


FREE_KEYS = {
    "machine.packages",
    "limits.gemm",
    "cases[].size",
    "cases[].tiers",
    "cases[].tiers.*.timed_size",
    "published_seconds",
    "tiles.peaks",
}


def keys_of(value: Any, path: str = "") -> set[str]:
    """All paths of a document; members of maps with free keys are written as *."""
    if isinstance(value, dict):
        free = path in FREE_KEYS
        found = set()
        for key, member in value.items():
            inner = f"{path}.{'*' if free else key}" if path else key
            found |= {inner} | keys_of(member, inner)
        return found
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return set().union(*(keys_of(member, f"{path}[]") for member in value))
    return set()


def documented_keys() -> set[str]:
    text = (ROOT / "docs" / "report_schema.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE))


def test_every_key_of_the_document_is_documented_and_the_other_way_round(document):
    assert keys_of(document) == documented_keys()
    planted = {**document, "surprise": 1}
    assert keys_of(planted) != documented_keys()


def test_document_survives_the_disk(document, tmp_path):
    path = tmp_path / "deep" / "results.json"
    documents.write_document(document, path)
    assert documents.read_document(path, run.SCHEMA) == json.loads(json.dumps(document))
    assert list(path.parent.iterdir()) == [path]
    path.write_text('{"schema": 0}')
    with pytest.raises(ValueError, match="schema 0"):
        documents.read_document(path, run.SCHEMA)


def test_errors_that_are_no_numbers_fit_into_json(tmp_path, made_up):
    made = made_up.run(made_up.fast("off", off={"compiled": math.nan}))
    documents.write_document(made, tmp_path / "results.json")
    assert case_of(made, "off")["agrees"] is False
    assert "NaN WRONG" in terminal_text(made)


@pytest.mark.needs_jit
@pytest.mark.slow
def test_command_writes_both_files_and_prints_tables(capsys, tmp_path, monkeypatch, made_up):
    """With the studies of distances, which are real and small."""
    monkeypatch.setattr(tiles, "METRICS", ("l1",))
    monkeypatch.setattr(scaling, "AXES", {"n": (1, 9)})
    arguments = ["report", "--seconds", "0.5", "--threads", "2", "--output", str(tmp_path)]
    assert command_line.main(arguments, catalogue=made_up.catalogue(made_up.fast("first"))) == 0
    captured = capsys.readouterr()
    assert "first" in captured.out
    assert "wrote" in captured.err
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "results.json"}
    made = documents.read_document(tmp_path / "results.json", run.SCHEMA)
    assert len(made["tiles"]["tiles"]) == 3
    assert {point["axis"] for point in made["scaling"]} == {"n", "threads"}


@pytest.mark.needs_jit
def test_command_after_ctrl_c_writes_what_there_is(capsys, tmp_path, made_up):
    entries = made_up.catalogue(made_up.fast("first"), made_up.fast("second", off={"loops": KeyboardInterrupt()}))
    arguments = ["report", "--seconds", "0.5", "--threads", "2", "--output", str(tmp_path)]
    assert command_line.main(arguments, catalogue=entries) == 130
    assert "interrupted: wrote the 1 results measured so far" in capsys.readouterr().err
    assert documents.read_document(tmp_path / "results.json", run.SCHEMA)["interrupted"] is True
    assert "Interrupted" in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.mark.needs_jit
def test_json_goes_to_stdout_and_nothing_else(capsys, tmp_path, monkeypatch, made_up):
    for study in tuple(run.STUDIES):  # which take seconds
        monkeypatch.delitem(run.STUDIES, study)
    arguments = ["report", "--json", "--seconds", "0.5", "--threads", "2", "--output", str(tmp_path)]
    code = command_line.main(arguments, catalogue=made_up.catalogue(made_up.fast("first", off={"vectorized": 1.0})))
    assert code == 1
    assert json.loads(capsys.readouterr().out) == documents.read_document(tmp_path / "results.json", run.SCHEMA)


def test_without_the_compiler_there_is_no_report(tmp_path):
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    arguments = [sys.executable, "-m", "benches", "report", "--output", str(tmp_path / "out")]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "NUMBA_DISABLE_JIT" in done.stderr


# Numbers in print ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1,234 s"),
        (1.0, "1.00 s"),
        (0.99996, "1.00 s"),
        (0.0123, "12.3 ms"),
        (4.56e-6, "4.56 µs"),
        (7e-9, "7.00 ns"),
    ],
)
def test_seconds(value, text):
    assert formats.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.71e10, "27.1 Gelem/s"), (1.5e12, "1.50 Telem/s"), (12.0, "12.0 elem/s"), (999.9e6, "1.00 Gelem/s")],
)
def test_rate(value, text):
    assert formats.rate(value, "elem") == text


@pytest.mark.parametrize(("value", "text"), [(0.834, "0.83"), (1.0, "1.00"), (12.34, "12.3"), (1234.4, "1,234")])
def test_times(value, text):
    assert formats.times(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (0.5, "0.50"), (0.0001, "1e-04"), (1e308, "NaN"), (None, "-")])
def test_error(value, text):
    assert formats.error(value) == text


# The real catalogue ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.needs_jit
def test_report_on_real_kernels(tmp_path):
    arguments = ["report", "--only", "pairwise_l1*float32 *", "--seconds", "1", "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benches", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    made = documents.read_document(tmp_path / "results.json", run.SCHEMA)
    assert {(case["entry"], case["dtype"]) for case in made["cases"]} == {("pairwise_l1", "float32")}
    assert {case["data"] for case in made["cases"]} >= {"generated", "digits"}
    assert all(case["agrees"] for case in made["cases"])
    assert keys_of(made) <= documented_keys()
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.slow
@pytest.mark.needs_jit
def test_published_figures_come_out():
    folder = os.environ.get(datasets.DATA_VARIABLE)
    if not folder:
        pytest.skip(f"{datasets.DATA_VARIABLE} is not set: no real data at hand")
    cifar = datasets.load_cifar10(folder, batches=(1,))
    answers = [answer for question in known_answers.questions(cifar, full=False) for answer in question.ask()]
    assert len(answers) == 9 + 2 * len(known_answers.ERROR_RATES)
    assert [answer for answer in answers if answer.verdict != "matches"] == []
