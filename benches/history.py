"""What was measured, release by release and gate by gate: small JSON files, and a page that plots them.

``python -m benches history --add report/results.json`` (or ``report/gate.json``) keeps the figures of a run in
``benches/history/``; without ``--add`` the page is written to ``report/history.html``.

Figures of two machines are different experiments, so they are never joined by a line.
"""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any

from . import formats as f
from .results import write_text

__all__ = ["SCHEMA", "add", "commits", "page", "read", "record_of"]

SCHEMA = 1
_PARTS = frozenset({"kind", "version", "commit", "date", "machine", "threads", "figures"})


def read(folder: Path) -> list[dict[str, Any]]:
    """Read all records, in the order of their dates.

    Raises
    ------
    ValueError
        If one was written in another schema, or lacks a part.
    """
    records = []
    for file in sorted(folder.glob("*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        if record.get("schema") != SCHEMA:
            raise ValueError(f"{file} has schema {record.get('schema')!r}, this version reads {SCHEMA}")
        if missing := _PARTS - record.keys():
            raise ValueError(f"{file} is no record: it has no {', '.join(sorted(missing))}")
        records.append({**record, "file": file.name})
    return sorted(records, key=lambda record: (record["date"], record["file"]))


def commits(records: list[dict[str, Any]]) -> list[str]:
    """Return the commits that a gate may take as its base: not those that a gate found slower or wrong."""
    return [record["commit"] for record in records if not record.get("exit_code")]


def record_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of ``report/results.json`` or ``report/gate.json``.

    Raises
    ------
    ValueError
        If it was measured on files that are in no commit.
    """
    machine = document["machine"]
    gate = document.get("kind") == "gate"
    source = document["head"] if gate else document["source"]
    if source["commit"] is None or source["changed"]:
        raise ValueError("this was measured on files that are in no commit; commit them and measure again")
    record = {
        "schema": SCHEMA,
        "kind": "gate" if gate else "report",
        "version": machine["fastml"],
        "commit": source["commit"],
        "date": document["created"],
        "machine": {
            "cpu": machine["cpu"]["model"],
            "platform": machine["platform"],
            "python": machine["python"],
            **{name: machine["packages"].get(name) for name in ("numpy", "numba")},
        },
        "threads": document["threads"] if gate else document["threads"]["all"],
    }
    if gate:
        record |= {"base": document["base"]["commit"], "exit_code": document["exit_code"]}
    return {**record, "figures": _figures(document, gate)}


def _figures(document: dict[str, Any], gate: bool) -> dict[str, Any]:
    """Return seconds by benchmark (a gate's: of both sides; a report's: of the tiers)."""
    if gate:
        return {
            found["name"]: {"base": _short(found["base_s"]), "head": _short(found["head_s"])}
            for found in document["benchmarks"]
            if found["ratio"] is not None
        }
    return {
        case["name"]: {"size": f.size(case["size"])}
        | {tier: _short(measured["seconds"]) for tier, measured in case["tiers"].items()}
        for case in document["cases"]
        if case["agrees"] and not case["failure"]
    }


def _short(seconds: float) -> float:
    return float(f"{seconds:.4g}")


def add(document: dict[str, Any], folder: Path) -> Path:
    """Write a record and return its file."""
    record = record_of(document)
    if not record["figures"]:
        raise ValueError("there are no figures in this document: nothing was measured, or nothing agreed")
    stamp = re.sub(r"[^0-9]", "", record["date"])[:12]
    path = folder / f"{stamp}-{record['kind']}-{record['commit'][:10]}.json"
    # One figure a line: the files are kept in git.
    figures = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in record["figures"].items())
    head = json.dumps({key: value for key, value in record.items() if key != "figures"}, indent=1)
    write_text(f'{head[:-2]},\n "figures": {{\n{figures}\n }}\n}}\n', path)
    return path


# -- the page --------------------------------------------------------------------------------------

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>fastml: history</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin-top: 2rem; }}
svg {{ max-width: 100%; height: auto; }}
table {{ border-collapse: collapse; font-size: 0.9rem; }} th, td {{ padding: 0.2rem 0.7rem; text-align: left; }}
tr:nth-child(even) {{ background: #f4f4f4; }} .quiet {{ color: #555; }}
</style></head><body>
<h1>How fast the kernels were</h1>
<p class="quiet">One plot per kernel: the time of a call, relative to the first record on the same machine. Below 1 it
is faster than then. A line joins records of one machine; figures of two machines are different experiments.</p>
{body}
</body></html>
"""


def page(records: list[dict[str, Any]]) -> str:
    """Return the page with one plot per kernel."""
    if not records:
        return _PAGE.format(body="<p>Nothing is recorded yet.</p>")
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td>{escape(str(cell))}</td>"
            for cell in (
                record["date"][:16].replace("T", " "),
                record["kind"],
                record["version"],
                record["commit"][:10],
                _machine(record),
                len(record["figures"]),
            )
        )
        + "</tr>"
        for record in records
    )
    names = ("date (UTC)", "kind", "version", "commit", "machine", "figures")
    header = "".join(f"<th>{name}</th>" for name in names)
    plots = [f"<h2>{escape(kernel)}</h2>{_plot(kernel, lines)}" for kernel, lines in series(records).items()]
    return _PAGE.format(body=f"<table><tr>{header}</tr>{rows}</table>{''.join(plots)}")


def _machine(record: dict[str, Any]) -> str:
    return f"{record['machine']['cpu']}, {record['threads']} threads, numba {record['machine']['numba']}"


def series(records: list[dict[str, Any]]) -> dict[str, dict[str, list[tuple[str, float]]]]:
    """Return kernel -> line -> (date, relative time): a line is one benchmark on one machine in one kind of run."""
    seconds: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for record in records:
        for name, figure in record["figures"].items():
            value = figure["head"] if record["kind"] == "gate" else figure.get("compiled_1")
            if value is not None:
                line = f"{name} ({record['kind']}; {_machine(record)})"
                seconds.setdefault((_kernel(name), line), []).append((record["date"], value))
    found: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for (kernel, line), points in seconds.items():
        found.setdefault(kernel, {})[line] = [(date, value / points[0][1]) for date, value in points]
    return found


def _kernel(name: str) -> str:
    from .gate.cases import kernel_of

    return kernel_of(name)


def _plot(kernel: str, lines: dict[str, list[tuple[str, float]]]) -> str:
    from . import plots

    return plots.history(lines, salt=f"fastml-history-{kernel}")
