"""The comparison with other libraries as a page: bars and a table, wins and losses alike."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from ..measuring import formats as f
from ..report import plots
from .table import is_held, reason, summary

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
.share {{ width: 12rem; }} .share div {{ background: #0B5394; height: 0.8rem; }}
.quiet {{ color: #555; }} .slower {{ color: #c0392b; font-weight: 600; }}
</style></head><body>
<h1>fastml beside other libraries</h1>
<p>Ratios are the other library's time over ours: above 1 we are faster, below 1 we are slower. Each library runs in
every setting that we know to be fast, the fastest counts; its result was compared with ours before its time did. One
that does not reach the goal has no time. Our own other ways, called fastml, are shown and not counted.</p>
<p class="quiet">{machine}</p>
<p class="quiet">{versions}</p>
<p class="quiet">{target}</p>
{body}
</body></html>
"""


def page(document: dict[str, Any]) -> str:
    """Return the page for what ``python -m benches peers`` writes to ``peers.json``."""
    machine = document["machine"]
    outcomes = document["outcomes"]
    limits, beside = ([o for o in outcomes if o["limit"] is limit] for limit in (True, False))
    timed = [o for o in beside if o["ratio"] is not None]
    body = f"<p><strong>{escape(summary(outcomes))}</strong></p>"
    if timed:
        body += plots.peers(timed, salt="fastml-peers")
    return _PAGE.format(
        machine=escape(
            f"{machine['cpu']['model']}, {document['threads']} threads, {machine['platform']}, Python "
            f"{machine['python']}; medians of {document['rounds']} rounds in turns."
        ),
        target=escape(f.target(document)),
        versions=escape(_versions(document["versions"], beside)),
        body=body + _comparisons(beside) + _limits(limits) + _figures(document),
    )


def _versions(versions: dict[str, str | None], outcomes: list[dict[str, Any]]) -> str:
    found = [f"{name} {version}" for name, version in versions.items() if version]
    missing = [name for name, version in versions.items() if not version]
    text = f"Versions: {', '.join(found)}."
    if missing:
        text += f" Not installed here, so not compared: {', '.join(missing)}."
    # A dict: one that cannot be imported is missing at each of its jobs.
    broken = {o["package"]: o["problem"] for o in outcomes if o["status"] == "missing" and versions.get(o["package"])}
    if broken:
        text += f" Installed, but not compared: {', '.join(f'{name} ({why})' for name, why in broken.items())}."
    return text


def _comparisons(outcomes: list[dict[str, Any]]) -> str:
    names = ("job", "size", "library", "ours", "theirs", "ratio", "±", "setting, or why there is no time")
    rows = []
    for o in outcomes:
        start = _cells(o["job"], o["size"], o["package"] if is_held(o) else f"{o['package']} (not held)")
        if o["ratio"] is None:
            rows.append(f"{start}<td></td><td></td><td></td><td></td>{_cells(reason(o))}")
            continue
        mark = ' class="n slower"' if o["ratio"] < 1 and is_held(o) else ' class="n"'
        times = _numbers(f.seconds(o["ours_seconds"]), f.seconds(o["seconds"]))
        ratio = f"<td{mark}>{f.times(o['ratio'])}</td>"
        rows.append(start + times + ratio + _numbers(f"{o['spread']:.2f}") + _cells(o["setting"]))
    return "<h2>All comparisons</h2>" + _table(names, rows)


def _limits(outcomes: list[dict[str, Any]]) -> str:
    if not outcomes:
        return ""
    rows = []
    for o in outcomes:
        name = f"{o['setting']} ({o['package']})" if o["setting"] else o["package"]
        start = _cells(o["job"], o["size"], name if is_held(o) else f"{name} (not held)")
        if o["ratio"] is None:
            rows.append(f"{start}<td></td><td></td><td></td>{_cells(reason(o))}")
            continue
        bar = f'<td class="share"><div style="width: {min(100 * o["ratio"], 100):.0f}%"></div></td>'
        shown = _numbers(f.seconds(o["ours_seconds"]), f.seconds(o["seconds"]), f.share(o["ratio"]))
        rows.append(f"{start}{shown}{bar}")
    text = "Parts of a job, timed alone. They have no result to compare, so they are not counted above."
    names = ("job", "size", "the limit", "ours", "the limit's", "our share", "")
    return f'<h2>Limits</h2><p class="quiet">{text}</p>' + _table(names, rows)


def _figures(document: dict[str, Any]) -> str:
    """Show what a whole run measures beside times."""
    if "errors" not in document:
        return ""
    errors = document["errors"]
    libraries = list(dict.fromkeys(library for values in errors.values() for library in values))
    values = [[values.get(library) for library in libraries] for values in errors.values()]
    rows = [
        _cells(points) + _numbers(*("-" if value is None else f"{value:.1e}" for value in row))
        for points, row in zip(errors, values, strict=True)
    ]
    text = (
        "<h2>Errors</h2><p class='quiet'>Largest relative error of float32 L2 distances, beside float64. Uniform: rows "
        "in [0, 1). Far: pairs 0.001 apart in each column, at an offset of 10,000.</p>" + _table(("", *libraries), rows)
    )
    per_row = document["nanoseconds_per_row"]
    text += "<h2>Time per row</h2><p class='quiet'>One pass of linear_loss_gradient, 90 float32 columns.</p>" + _table(
        ("rows", "ns per row"), [_numbers(f"{int(n):,}", f"{value:.1f}") for n, value in per_row.items()]
    )
    if document["extra_megabytes"] is not None:
        size = " × ".join(f"{length:,}" for length in document["extra_megabytes_of"])
        most = f"{document['extra_megabytes']:.1f} MiB"
        text += f"<h2>Memory</h2><p>k_nearest of {size} raises the peak memory by {most}.</p>"
    return text


def _cells(*texts: str) -> str:
    return "".join(f"<td>{escape(text)}</td>" for text in texts)


def _numbers(*texts: str) -> str:
    return "".join(f'<td class="n">{escape(text)}</td>' for text in texts)


def _table(names: Iterable[str], rows: Iterable[str]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
