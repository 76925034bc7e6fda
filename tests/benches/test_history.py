"""What is kept of measurements, README's figures, and the pages that show them."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("matplotlib", reason="the pages need the extra plot")

from benches import __main__ as command_line
from benches.history import RECORDS, page, readme, record
from benches.measuring import repository
from benches.report.plan import GENERATED

MACHINE = {
    "fastml": "0.1.0",
    "python": "3.13.1",
    "platform": "Linux",
    "cpu": {"model": "Some <CPU>"},
    "packages": {"numpy": "2.4.0", "numba": "0.68.0", "scipy": "1.17.0"},
}
TIERS = {"loops": 1.0, "vectorized": 0.1, "vectorized_all": 0.08, "compiled_1": 0.01234567, "compiled_all": 0.005}


def report(created: str = "2026-01-02T03:04:05+00:00", commit: str = "c" * 40, **speed: float) -> dict:
    return {
        "created": created,
        "source": {"commit": commit, "changed": False},
        "machine": MACHINE,
        "threads": {"all": 2, "source": "all"},
        "cases": [
            {
                "name": f"{key} float32 {GENERATED}",
                "size": {"n": 1000, "d": 90},
                "tiers": {tier: {"seconds": factor * seconds} for tier, seconds in TIERS.items()},
                "agrees": True,
                "failure": None,
            }
            for key, factor in ({"pairwise_l1": 1.0, "exp": 2.0} | speed).items()
        ],
    }


def gate() -> dict:
    return {
        "kind": "gate",
        "created": "2026-02-02T03:04:05+00:00",
        "machine": MACHINE,
        "threads": 2,
        "base": {"commit": "a" * 40},
        "head": {"commit": "b" * 40, "changed": False},
        "exit_code": 0,
        "benchmarks": [
            {"name": "exp float32 tiny", "base_s": 1e-6, "head_s": 2e-6, "ratio": 2.0},
            {"name": "exp float32", "base_s": None, "head_s": None, "ratio": None},
        ],
    }


def test_records_come_back_in_the_order_of_their_dates(tmp_path):
    later = record.add(report("2026-03-01T00:00:00+00:00"), tmp_path)
    record.add(gate(), tmp_path)
    first = record.add(report(commit="d" * 40), tmp_path)
    assert first.name == "202601020304-report-dddddddddd.json"
    records = record.read(tmp_path)
    assert [one["kind"] for one in records] == ["report", "gate", "report"]
    assert records[1]["commit"] == "b" * 40
    assert records[1]["base"] == "a" * 40
    assert records[1]["figures"] == {"exp float32 tiny": {"base": 1e-6, "head": 2e-6}}
    assert records[2]["file"] == later.name
    figure = records[0]["figures"][f"pairwise_l1 float32 {GENERATED}"]
    assert figure["size"] == "n=1,000, d=90"
    assert figure["compiled_1"] == 0.01235
    assert records[0]["threads"] == 2
    assert records[0]["machine"]["numba"] == "0.68.0"
    assert len(first.read_text().splitlines()) < 30


def test_what_was_wrong_is_not_kept(tmp_path):
    document = report()
    document["cases"][0]["agrees"] = False
    assert len(record.record_of(document)["figures"]) == 1
    document["cases"][1]["failure"] = "ValueError"
    with pytest.raises(ValueError, match="no figures"):
        record.add(document, tmp_path)


def test_files_that_are_in_no_commit_have_no_history(tmp_path, capsys):
    for source in ({"commit": "c" * 40, "changed": True}, {"commit": None, "changed": False}):
        for document, place in ((gate(), "head"), (report(), "source")):
            document[place] = source
            with pytest.raises(ValueError, match="in no commit"):
                record.add(document, tmp_path)
    file = tmp_path / "results.json"
    file.write_text(json.dumps(document))
    assert command_line.main(["history", "--add", str(file), "--records", str(tmp_path / "records")]) == 2
    assert "in no commit" in capsys.readouterr().err
    file.write_text("{}")
    assert command_line.main(["history", "--add", str(file), "--records", str(tmp_path / "records")]) == 2
    assert "no report's or gate's document" in capsys.readouterr().err


def test_a_report_knows_what_it_was_measured_on(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert repository.source_of(tmp_path) == {"commit": None, "changed": False}
    monkeypatch.setattr(repository, "git", lambda repository, *arguments: "M" if "benches" in arguments else "c" * 40)
    assert repository.source_of(tmp_path) == {"commit": "c" * 40, "changed": True}


def test_a_commit_that_a_gate_found_slower_is_no_base(tmp_path):
    for exit_code, head in enumerate("abc"):
        record.add(gate() | {"exit_code": exit_code, "head": {"commit": head * 40, "changed": False}}, tmp_path)
    record.add(report(), tmp_path)
    assert record.commits(record.read(tmp_path)) == ["c" * 40, "a" * 40]


def test_another_schema_is_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"schema": 99}')
    with pytest.raises(ValueError, match="schema 99"):
        record.read(tmp_path)


def test_a_record_that_lacks_a_part_is_refused(tmp_path, capsys):
    (tmp_path / "x.json").write_text('{"schema": 1, "kind": "gate", "figures": {}}')
    assert command_line.main(["history", "--records", str(tmp_path)]) == 2
    assert "x.json is no record: it has no commit, date, machine" in capsys.readouterr().err


def test_lines_join_records_of_one_machine_only(tmp_path):
    record.add(report(), tmp_path)
    record.add(report("2026-02-01T00:00:00+00:00", exp=1.0), tmp_path)
    other = report("2026-03-01T00:00:00+00:00")
    other["machine"] = {**MACHINE, "cpu": {"model": "Other"}}
    record.add(other, tmp_path)
    lines = page.series(record.read(tmp_path))["exp"]
    relative = sorted([round(value, 2) for _, value in points] for points in lines.values())
    assert relative == [[1.0], [1.0, 0.5]]


def test_the_page_shows_all_records(tmp_path, text_of_page):
    assert "Nothing is recorded" in text_of_page(page.page([]))
    record.add(report(), tmp_path)
    record.add(gate(), tmp_path)
    text = page.page(record.read(tmp_path))
    shown = text_of_page(text)
    for part in ("cccccccccc", "bbbbbbbbbb", "Some <CPU>", "pairwise_l1", "exp float32 tiny"):
        assert part in shown
    assert text.count("<svg") == 2


def test_the_command_adds_and_draws(tmp_path, capsys):
    source = tmp_path / "results.json"
    source.write_text(json.dumps(gate()))
    records = tmp_path / "records"
    arguments = ["history", "--add", str(source), "--records", str(records), "--output", str(tmp_path / "out")]
    assert command_line.main(arguments) == 0
    assert len(list(records.iterdir())) == 1
    assert "exp" in (tmp_path / "out" / "history.html").read_text(encoding="utf-8")
    source.write_text('{"kind": "gate"}')
    assert command_line.main(arguments) == 2
    assert "no 'machine'" in capsys.readouterr().err


# README ------------------------------------------------------------------------------------------


def test_readme_has_the_figures_of_the_newest_record(capsys):
    records = record.read(RECORDS)
    text = (repository.ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.written(text, records) == text, "python -m benches readme"
    assert command_line.main(["readme", "--check"]) == 0


def test_readme_is_written_from_a_record(tmp_path):
    record.add(report(), tmp_path)
    record.add(gate(), tmp_path)
    records = record.read(tmp_path)
    assert readme.newest(records)["kind"] == "report"
    file = tmp_path / "README.md"
    file.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    assert readme.update(file, records)
    assert not readme.update(file, records)
    text = file.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| `pairwise_l1` | n=1,000, d=90 | 1.00 s | 100 ms | 12.3 ms | 5.00 ms | 16.0 |" in text
    for part in ("2026-01-02", "Some <CPU>", "2 threads", "3.13.1", "2.4.0", "0.68.0", "cccccccccc"):
        assert part in text
    # A figure that is changed by hand is noticed.
    assert readme.written(text.replace("16.0", "17.0"), records) != text.replace("16.0", "17.0")


def test_readme_shows_all_that_lose(tmp_path):
    document = report(loses=1.0, wins=1.0)
    document["cases"][2]["tiers"]["vectorized_all"]["seconds"] = 0.0045
    record.add(document, tmp_path)
    table = readme.block(record.read(tmp_path))
    assert "| `loses` | " in table
    assert "wins" not in table
    assert "of 4 cases" in table


def test_readme_without_the_marks_is_refused():
    with pytest.raises(ValueError, match="must have the lines"):
        readme.written("text", [])
