"""The comparison with other libraries as a page: bars and a table, wins and losses alike."""

from __future__ import annotations

from html import escape
from typing import Any

from . import formats as f
from . import plots

__all__ = ["page"]

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>fastml beside other libraries</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin-top: 2rem; }}
svg {{ max-width: 100%; height: auto; }}
table {{ border-collapse: collapse; font-size: 0.9rem; }} th, td {{ padding: 0.2rem 0.7rem; text-align: left; }}
td.n {{ text-align: right; white-space: nowrap; }} tr:nth-child(even) {{ background: #f4f4f4; }}
.quiet {{ color: #555; }} .slower {{ color: #c0392b; font-weight: 600; }}
</style></head><body>
<h1>fastml beside other libraries</h1>
<p>Ratios are the other library's time over ours: above 1 we are faster, below 1 we are slower. Each library runs in
every setting that we know to be fast, the fastest counts; its result was compared with ours before its time did.</p>
<p class="quiet">{machine}</p>
<p class="quiet">{versions}</p>
{body}
</body></html>
"""


def page(document: dict[str, Any]) -> str:
    """Return the page for what ``python -m benches peers`` writes to ``peers.json``."""
    machine = document["machine"]
    found = [f"{name} {version}" for name, version in document["versions"].items() if version]
    missing = [name for name, version in document["versions"].items() if not version]
    versions = f"Versions: {', '.join(found)}."
    if missing:
        versions += f" Not installed here, so not compared: {', '.join(missing)}."
    measured = [outcome for outcome in document["outcomes"] if outcome["ratio"] is not None]
    slower = sum(outcome["ratio"] < 1 for outcome in measured)
    counts = f"{len(measured)} comparisons: we are faster in {len(measured) - slower}, slower in {slower}."
    body = f"<p><strong>{counts}</strong></p>"
    if measured:
        body += plots.peers(measured, salt="fastml-peers")
    return _PAGE.format(
        machine=escape(
            f"{machine['cpu']['model']}, {document['threads']} threads, {machine['platform']}, Python "
            f"{machine['python']}; medians of {document['rounds']} rounds in turns."
        ),
        versions=escape(versions),
        body=body + _table(document["outcomes"]),
    )


def _table(outcomes: list[dict[str, Any]]) -> str:
    names = ("job", "size", "library", "ours", "theirs", "ratio", "±", "setting, or what is missing")
    rows = ["<tr>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>"]
    for o in outcomes:
        start = "".join(f"<td>{escape(o[key])}</td>" for key in ("job", "size", "package"))
        if o["ratio"] is None:
            rows.append(f"<tr>{start}<td></td><td></td><td></td><td></td><td>{escape(o['problem'] or '')}</td></tr>")
            continue
        mark = ' class="n slower"' if o["ratio"] < 1 else ' class="n"'
        numbers = f'<td class="n">{f.seconds(o["ours_seconds"])}</td><td class="n">{f.seconds(o["seconds"])}</td>'
        numbers += f'<td{mark}>{f.times(o["ratio"])}</td><td class="n">{o["spread"]:.2f}</td>'
        rows.append(f"<tr>{start}{numbers}<td>{escape(o['setting'])}</td></tr>")
    return f"<h2>All figures</h2><table>{''.join(rows)}</table>"
