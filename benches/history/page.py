"""All records as one page, with a plot for each kernel.

Figures of two machines are different experiments, so they are never joined by a line.
"""

from __future__ import annotations

from html import escape
from typing import Any

from .record import kernel_of

__all__ = ["page", "series"]

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
is faster than then. A line joins records of one machine, held to one target or to none; figures of two machines are
different experiments.</p>
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
    target = f" as {record['target']}" if record.get("target") else ""
    return f"{record['machine']['cpu']}{target}, {record['threads']} threads, numba {record['machine']['numba']}"


def series(records: list[dict[str, Any]]) -> dict[str, dict[str, list[tuple[str, float]]]]:
    """Return kernel -> line -> (date, relative time): a line is one benchmark on one machine in one kind of run."""
    seconds: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for record in records:
        for name, figure in record["figures"].items():
            value = figure["head"] if record["kind"] == "gate" else figure.get("compiled_1")
            if value is not None:
                line = f"{name} ({record['kind']}; {_machine(record)})"
                seconds.setdefault((kernel_of(name), line), []).append((record["date"], value))
    found: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for (kernel, line), points in seconds.items():
        found.setdefault(kernel, {})[line] = [(date, value / points[0][1]) for date, value in points]
    return found


def _plot(kernel: str, lines: dict[str, list[tuple[str, float]]]) -> str:
    from ..report import plots  # Matplotlib takes half a second

    return plots.history(lines, salt=f"fastml-history-{kernel}")
