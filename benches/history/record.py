"""One record: the figures of one report or one gate, in a small JSON file in ``benches/history/records/``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ..measuring import formats as f
from ..measuring import targets
from ..measuring.documents import read_document, write_text

__all__ = ["SCHEMA", "add", "commits", "kernel_of", "read", "record_of"]

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
        record = read_document(file, SCHEMA)
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
        If it was measured on files that are in no commit, or with what was not held to its target.
    """
    machine = document["machine"]
    gate = document.get("kind") == "gate"
    source = document["head"] if gate else document["source"]
    if source["commit"] is None or source["changed"]:
        raise ValueError("this was measured on files that are in no commit; commit them and measure again")
    if loose := targets.not_held(document):
        raise ValueError(f"its times are not those of its target: not held to it are {', '.join(loose)}")
    target = document.get("target")
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
        "target": target["name"] if target else None,
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
    what = "-".join(filter(None, (stamp, record["kind"], record["target"], record["commit"][:10])))
    path = folder / f"{what}.json"
    # One figure a line: the files are kept in git.
    figures = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in record["figures"].items())
    head = json.dumps({key: value for key, value in record.items() if key != "figures"}, indent=1)
    write_text(f'{head[:-2]},\n "figures": {{\n{figures}\n }}\n}}\n', path)
    return path


def kernel_of(benchmark: str) -> str:
    """Return the kernel or model that a benchmark's name begins with."""
    return re.split(r"[ .]", benchmark)[0]
