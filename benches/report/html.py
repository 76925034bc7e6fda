"""The report as one page that needs nothing else: no network, no script, no second file."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from ..measuring import formats as f
from ..measuring import targets
from . import plots
from .summary import group_title, groups

_CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1d1d1f; background: #fff;
       max-width: 1320px; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .4rem;
       border-bottom: 1px solid #ccc; } h3 { font-size: 1.02rem; margin: 1.4rem 0 .2rem; }
p { margin: .35rem 0; max-width: 62rem; } .quiet { color: #555; font-size: .9rem; }
.box { border-left: 5px solid; padding: .5rem .9rem; margin: .6rem 0; background: #f7f7f7; }
.good { border-color: #2e7d32; } .bad { border-color: #c0392b; background: #fdf1ef; }
.note { border-color: #b7860b; background: #fdf8e8; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .8rem; margin: .5rem 0; white-space: nowrap; }
th { text-align: right; vertical-align: bottom; font-weight: 600; font-size: .74rem; line-height: 1.25;
     padding: .25rem .4rem; border-bottom: 2px solid #888; white-space: normal; min-width: 3.4rem; }
td { text-align: right; padding: .18rem .4rem; border-bottom: 1px solid #e6e6e6;
     font-variant-numeric: tabular-nums; }
td.wrap { white-space: normal; } td:first-child, td.left, th.left { text-align: left; }
tr.family td { font-weight: 600; background: #f1f1f1; }
.slower { background: #f9d9d4; color: #8e1b10; font-weight: 700; } .faster { color: #1b5e20; }
code { font-size: .92em; }
pre { font-size: .78rem; line-height: 1.25; margin: .2rem 0; }
svg { display: block; width: 100%; max-width: 1040px; height: auto; }
dl { display: grid; grid-template-columns: max-content auto; gap: .1rem 1rem; font-size: .9rem; }
dt { font-weight: 600; } dd { margin: 0; }
nav a { margin-right: 1rem; } @media print { .scroll { overflow: visible; } table { font-size: .65rem; } }
"""


_STUDIES = {"tiles": "Distances against the adders", "scaling": "Distances: how the speed depends on the size"}


def page(document: dict[str, Any]) -> str:
    """Return the whole page."""
    grouped = [(d, t, [c for c in cases if not c["failure"]]) for d, t, cases in groups(document)]
    grouped = [group for group in grouped if group[2]]
    parts = [
        "<h1>fastml report: loop, vectorised, JIT</h1>",
        _lead(document),
        _summary(document),
        _contents(document, grouped),
        _machine(document),
        _answers(document),
    ]
    for number, (data, dtype, cases) in enumerate(grouped):
        parts.append(_group(document, number, group_title(data, dtype), cases))
    parts += [_tiles(document), _scaling(document)]
    parts += [_overall(document, [case for group in grouped for case in group[2]]), _out(document), _how(document)]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>fastml report</title><style>{_CSS}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _lead(document: dict[str, Any]) -> str:
    machine, threads = document["machine"], document["threads"]
    target = f" as {document['target']['name']}" if document.get("target") else ""
    only = f", only <code>{escape(document['only'])}</code>" if document["only"] else ""
    return (
        f'<p class="quiet">{escape(document["created"])} · fastml {escape(machine["fastml"])} · '
        f"{escape(machine['cpu']['model'] + target)} · all threads = {threads['all']} ({escape(threads['source'])}) · "
        f"{document['mode']} mode{only} · {document['seconds']:.0f} s</p>"
    )


def _box(kind: str, text: str) -> str:
    return f'<div class="box {kind}">{text}</div>'


def _items(texts: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def _summary(document: dict[str, Any]) -> str:
    summary = document["summary"]
    boxes = []
    if document["interrupted"]:
        text = f"<b>Interrupted</b>: {summary['cases']} cases measured, of {document['planned']} planned."
        boxes.append(_box("note", text))
    if summary["failed"]:
        messages = [f"{case['name']}: {case['failure']}" for case in document["cases"] if case["failure"]]
        boxes.append(_box("bad", "<b>Failed:</b>" + _items(messages)))
    if f.busy(document):
        boxes.append(_box("note", escape(f.busy(document))))
    compared = summary["cases"] - len(summary["failed"])
    if summary["disagree"]:
        text = "<b>Wrong results</b>, beyond the bound of their entry:" + _items(summary["disagree"])
        boxes.append(_box("bad", text))
    elif compared:
        boxes.append(_box("good", f"All tiers agree with the reference within its bounds in all {compared} cases."))
    if summary["slower"]:
        names = {item["name"] for item in summary["slower"]}
        text = f"<b>JIT is slower than vectorised in {len(names)} of {compared} cases:</b>"
        boxes.append(_box("bad", text + _items(f.slower_phrases(summary, document["threads"]["all"]))))
    elif compared and not targets.not_held(document):
        boxes.append(_box("good", f"JIT is slower than vectorised in none of {compared} cases."))
    if phrases := f.threads_phrases(summary):
        boxes.append(_box("bad", _items(phrases)))
    if document["known_answers"]:
        total = len(document["known_answers"])
        kind = "bad" if summary["differs"] else "good"
        boxes.append(_box(kind, f"Published figures: {summary['matches']} of {total} match."))
    return "".join(boxes)


def _contents(document: dict[str, Any], grouped: list[tuple[str, str, list[dict[str, Any]]]]) -> str:
    links = [(f"group-{number}", group_title(data, dtype)) for number, (data, dtype, _) in enumerate(grouped)]
    if document["known_answers"]:
        links.insert(0, ("answers", "Published figures"))
    links += [(key, title) for key, title in _STUDIES.items() if document[key]]
    links += [("overall", "Limits and errors")] if grouped else []
    links += [("how", "How it is measured")]
    return "<nav>" + "".join(f'<a href="#{anchor}">{escape(text)}</a>' for anchor, text in links) + "</nav>"


def _machine(document: dict[str, Any]) -> str:
    machine, limits = document["machine"], document["limits"]
    cpu = machine["cpu"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    blas = ", ".join(
        " ".join(str(b[key]) for key in ("library", "version", "architecture") if b.get(key)) for b in machine["blas"]
    )
    rows = [
        ("CPU", f"{cpu['model']}, {cpu['logical']} logical CPUs"),
        ("Numba target", f"{cpu['target']}, vectors of {cpu['vector_bytes']} bytes ({', '.join(cpu['features'])})"),
        *([("Target", f.target(document))] if f.target(document) else []),
        ("Versions", f"Python {machine['python']}, {packages}"),
        ("BLAS", blas or "unknown"),
        ("System", machine["platform"]),
        ("Cache", machine["cache"]["path"] or f"none: {machine['cache']['reason']}"),
    ]
    if limits:
        memory, gemm, n = limits["memory"], limits["gemm"], limits["n_threads"]
        read_mib, cache_mib = (limits[key] / 2**20 for key in ("array_bytes", "cache_bytes"))
        rows += [
            (
                "Memory read rate",
                f"{f.rate(memory['1'], 'B')} with 1 thread, {f.rate(memory['all'], 'B')} with {n} "
                f"(array of {read_mib:.0f} MiB, last-level cache {cache_mib:.0f} MiB)",
            ),
            *(
                (
                    f"GEMM rate, {dtype}",
                    f"{f.rate(gemm[dtype]['1'], 'flop')} with 1 thread, {f.rate(gemm[dtype]['all'], 'flop')} with {n} "
                    f"({limits['gemm_size']} × {limits['gemm_size']})",
                )
                for dtype in ("float32", "float64")
            ),
        ]
    rows += [(data["name"], data["note"]) for data in document["data"]]
    return "<h2>Machine</h2><dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in rows) + "</dl>"


def _table(headers: list[str], rows: list[list[str]], *, left: int = 1) -> str:
    """Cells are HTML already; a row of one cell is a family's heading; the first `left` headers stand left."""
    starts = ['<th class="left">' if position < left else "<th>" for position in range(len(headers))]
    head = "".join(f"{start}{header}</th>" for start, header in zip(starts, headers, strict=True))
    body = []
    for row in rows:
        if len(row) == 1:
            body.append(f'<tr class="family"><td colspan="{len(headers)}">{row[0]}</td></tr>')
        else:
            body.append("<tr>" + "".join(c if c.startswith("<td") else f"<td>{c}</td>" for c in row) + "</tr>")
    rows_html = "\n".join(body)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{rows_html}</tbody></table></div>'


def _answers(document: dict[str, Any]) -> str:
    if not document["known_answers"]:
        return ""
    n = document["threads"]["all"]
    rows = []
    for answer in document["known_answers"]:
        kind = "faster" if answer["verdict"] == "matches" else "slower"
        rows.append(
            [
                escape(answer["workload"]),
                f'<td class="left">{escape(answer["data"])}: {escape(answer["what"])}</td>',
                escape(answer["dtype"]),
                escape(answer["expected"]),
                escape(answer["found"]),
                f'<td class="{kind}">{escape(answer["verdict"])}</td>',
                f.seconds(answer["seconds"]),
            ]
        )
    headers = ["", "figure", "input", "published", "found", "", f"JIT, {n} threads"]
    loops, vectorized = (document["published_seconds"][name] for name in ("loops", "vectorized"))
    text = (
        '<p class="quiet">First 500 test images against the first 5,000 training images of CIFAR-10. Published times '
        f"of others for one L2 matrix, on their machines: loops {' s and '.join(map(str, loops))} s, vectorised "
        f"{' s and '.join(map(str, vectorized))} s.</p>"
        if any(answer["data"] == "CIFAR-10" for answer in document["known_answers"])
        else ""
    )
    return '<h2 id="answers">Published figures</h2>' + text + _table(headers, rows, left=2)


def _speedup(value: float) -> str:
    if value < 1:
        return f'<td class="slower">{f.times(value)} slower</td>'
    return f'<td class="faster">{f.times(value)}</td>'


def _group(document: dict[str, Any], number: int, title: str, cases: list[dict[str, Any]]) -> str:
    n = document["threads"]["all"]
    salt = f"fastml-{number}"
    return "".join(
        [
            f'<h2 id="group-{number}">{escape(title)}</h2>',
            "<h3>From the loop to the JIT</h3>",
            plots.speedups(cases, n, salt=f"{salt}-speedups"),
            "<h3>JIT against vectorised</h3>",
            plots.against_vectorized(cases, n, salt=f"{salt}-against"),
            "<h3>Time per call</h3>",
            plots.times(cases, n, salt=f"{salt}-times"),
            "<h3>Times and speed-ups</h3>",
            _speed_table(cases, n),
            "<h3>Throughput, limit, error, first call</h3>",
            _limit_table(cases, n),
        ]
    )


def _kernel(case: dict[str, Any]) -> str:
    """The entry's key with its formula as tooltip; may break before the variant, so that tables fit."""
    key = escape(case["entry"]).replace("[", "<wbr>[")
    return f'<td class="wrap" title="{escape(case["formula"])}"><code>{key}</code></td>'


def _with_families(cases: list[dict[str, Any]], make_row: Any) -> list[list[str]]:
    rows: list[list[str]] = []
    family = None
    for case in cases:
        if case["family"] != family:
            family = case["family"]
            rows.append([escape(family)])
        rows.append(make_row(case))
    return rows


def _speed_table(cases: list[dict[str, Any]], n: int) -> str:
    def row(case: dict[str, Any]) -> list[str]:
        tiers, speedups = case["tiers"], case["speedups"]
        loop = f.seconds(tiers["loops"]["seconds"])
        if tiers["loops"]["scaled"]:
            part = f.size(tiers["loops"]["timed_size"])
            loop = f'<td title="timed on {part}, scaled by the work">{loop}{f.PART_MARK}</td>'
        return [
            _kernel(case),
            f'<td title="{f.size(case["size"])}">{" × ".join(f"{n:,}" for n in case["size"].values())}</td>',
            loop,
            *(f.seconds(tiers[t]["seconds"]) for t in ("vectorized", "vectorized_all", "compiled_1", "compiled_all")),
            _speedup(speedups["vectorized_over_loops"]),
            _speedup(speedups["compiled_1_over_loops"]),
            _speedup(speedups["compiled_1_over_vectorized"]),
            _speedup(speedups["compiled_all_over_vectorized_all"]),
            f.times(speedups["compiled_all_over_compiled_1"]),
        ]

    headers = [
        "kernel",
        "size",
        "loop",
        "vectorised, 1 thread",
        f"vectorised, {n} BLAS threads",
        "JIT, 1 thread",
        f"JIT, {n} threads",
        "vectorised: × faster than loop, higher is better",
        "JIT, 1 thread: × faster than loop, higher is better",
        "JIT: × faster than vectorised, both 1 thread, higher is better",
        f"JIT: × faster than vectorised, both {n} threads, higher is better",
        f"JIT, {n} threads: × faster than with 1, higher is better",
    ]
    note = ""
    if any(case["tiers"]["loops"]["scaled"] for case in cases):
        note = (
            f'<p class="quiet">{f.PART_MARK} The loop ran on a part and its time is scaled up by the work; '
            "the part's size is in the cell's tooltip and in results.json.</p>"
        )
    return _table(headers, _with_families(cases, row)) + note


def _first_call(first: dict[str, Any]) -> str:
    if first["source"] == "ready":
        return "ready"
    return f"{f.seconds(first['seconds'])}, {first['source']}"


def _limit_table(cases: list[dict[str, Any]], n: int) -> str:
    def row(case: dict[str, Any]) -> list[str]:
        tiers = case["tiers"]
        one, every = tiers["compiled_1"], tiers["compiled_all"]
        mark = f" {f.CACHE_MARK}" if case["limit"] == "memory" and case["fits_in_cache"] else ""
        bound = case["bound"]
        bounds = f"rtol {bound['rtol']:g}, atol {bound['atol']:g}: {bound['reason']}"
        tip = escape(f"{bounds}; checked on {case['errors_checked_on']}")

        def error(value: float | None) -> str:
            if value is not None and not value <= 1:
                return f'<td class="slower" title="{tip}">{f.error(value)} wrong</td>'
            return f'<td title="{tip}">{f.error(value)}</td>'

        return [
            _kernel(case),
            f"{case['accumulator']} → {case['output']}",
            f.rate(tiers["vectorized"]["throughput"], case["unit"]),
            f.rate(one["throughput"], case["unit"]),
            f.rate(every["throughput"], case["unit"]),
            case["limit"],
            f.share(one["share_of_limit"]) + mark,
            f.share(every["share_of_limit"]) + mark,
            *(error(tiers[name]["error"]) for name in ("loops", "vectorized", "compiled_1", "compiled_all")),
            _first_call(case["first_call"]),
        ]

    headers = [
        "kernel",
        "sums in → result",
        "vectorised, work per second",
        "JIT, 1 thread, work per second",
        f"JIT, {n} threads, work per second",
        "limit",
        "share of it, 1 thread",
        f"share of it, {n} threads",
        "error of the loop, in bounds (≤ 1 is right)",
        "error of vectorised",
        "error of JIT, 1 thread",
        f"error of JIT, {n} threads",
        "first call, above an ordinary one",
    ]
    return _table(headers, _with_families(cases, row))


def _overall(document: dict[str, Any], cases: list[dict[str, Any]]) -> str:
    if not cases or not document["limits"]:
        return ""
    n = document["threads"]["all"]
    return "".join(
        [
            '<h2 id="overall">Limits and errors</h2><h3>Share of the machine\'s limit</h3>',
            plots.shares(cases, n, salt="fastml-shares"),
            "<h3>Roofline</h3>",
            '<p class="quiet">Left of the bend the memory sets the pace, right of it the arithmetic. Points above the '
            "slope have their data in a cache; integer kernels may rise above the flat roof, which is float32's.</p>",
            plots.roofline(cases, document["limits"], salt="fastml-roofline"),
            "<h3>Error against the reference</h3>",
            plots.errors(cases, salt="fastml-errors"),
        ]
    )


def _tiles(document: dict[str, Any]) -> str:
    study = document["tiles"]
    if not study:
        return ""
    said = "; ".join(
        f"{dtype} {f.rate(peak['adds'], 'adds')}, {f.rate(peak['fused'], 'fused multiply-adds')}, both in turns "
        f"{f.rate(peak['differences_l2'], 'pairs')}"
        for dtype, peak in study["peaks"].items()
    )
    rows = []
    for tile in study["tiles"]:
        share = "" if tile["share_of_peak"] is None else f.share(tile["share_of_peak"])
        rows.append(
            [
                f'<td class="left">{escape(f.METRIC_TITLES[tile["metric"]])}, {escape(tile["dtype"])}</td>',
                f"{tile['rows']} × {tile['vectors']} × {tile['lanes']}",
                f.rate(tile["rate"], "elem"),
                f"{tile['per_cycle']:.1f}",
                share,
                f"{tile['elements'] / tile['instructions']:.1f}",
                f"{tile['vector_instructions']} of {tile['instructions']}",
                '<td class="left"><details><summary>show</summary><pre>'
                f"{escape(tile['assembly'])}</pre></details></td>",
            ]
        )
    headers = ["", "rows × vectors × lanes", "rate, 1 thread", "elements per cycle", "share of the adders' peak"]
    headers += ["elements per instruction", "vector instructions in the loop", "innermost loop"]
    return (
        f'<h2 id="tiles">{_STUDIES["tiles"]}</h2>'
        '<p class="quiet">Every distance is made by register tiles that subtract and add; this is how near they come '
        f"to what one core can do. Measured in this run, at {study['clock'] / 1e9:.2f} GHz with vectors of "
        f"{study['vector_bytes']} bytes ({escape(study['cpu'])}): {said}. L1 needs two additions for an element, L2 an "
        "addition and a fused multiply-add. The rest is the spreading of X, loads and stores of totals.</p>"
        + _table(headers, rows)
    )


def _scaling(document: dict[str, Any]) -> str:
    points = document["scaling"]
    if not points:
        return ""
    return (
        f'<h2 id="scaling">{_STUDIES["scaling"]}</h2>'
        '<p class="quiet">float32 L2; one length varies, the others are n = 500, m = 2,000, D = 256, k = 5 (n and m '
        "four times that with <code>--full</code>). Dashed: as many times the speed as there are threads.</p>"
        + plots.scaling(points, salt="fastml-scaling")
    )


def _out(document: dict[str, Any]) -> str:
    rows = []
    for case in document["cases"]:
        if "compiled_out" in case["tiers"]:
            fresh, reused = case["tiers"]["compiled_1"]["seconds"], case["tiers"]["compiled_out"]["seconds"]
            what = f"<code>{escape(case['entry'])}</code> {case['dtype']}, {escape(case['data'])}"
            rows.append([what, f.size(case["size"]), f.seconds(fresh), f.seconds(reused), f.times(fresh / reused)])
    if not rows:
        return ""
    headers = ["JIT, 1 thread", "size", "fresh result", "out=", "out= is × faster, higher is better"]
    text = '<p class="quiet">A fresh result costs page faults; with <code>out=</code> its memory is used again.</p>'
    return "<h2>Fresh result against out=</h2>" + text + _table(headers, rows)


def _how(document: dict[str, Any]) -> str:
    n = document["threads"]["all"]
    units = sorted({case["unit"] for case in document["cases"]})
    sentences = [
        "Every kernel exists three times with one signature: a plain Python loop, idiomatic NumPy, and compiled code. "
        "All get the same seeded inputs.",
        "Each is called once before the clock starts. Then the tiers take turns, round after round, and the median "
        "counts; readings shorter than 0.2 ms hold several calls.",
        f"With 1 thread BLAS is held at one thread too; with {n} threads vectorised NumPy may use {n} BLAS threads. "
        "Where NumPy does not use BLAS it has one thread in either case.",
        "A loop that would take too long runs on a part, and its time is scaled by the work of the whole.",
        "First call: what the first calls with one and all threads took on top of an ordinary call, in this process; "
        "compiled (with an empty cache: before the first case, by several processes), or loaded from the cache; ready "
        "where an entry before had loaded the same code.",
        "Error: the largest deviation of any output from a float64 or exact reference, divided by the bound that the "
        "catalogue gives for the entry and dtype, with its reason (tooltip). At most 1 is right.",
        "Share of the limit: the bytes that a call must move at least (memory), or its operations (GEMM), per second, "
        f"over the rate measured in this run with as many threads. {f.CACHE_MARK} marks data that fits into the "
        "last-level cache, where more than 100 % is possible. Integers are held against float32's GEMM rate.",
        "Memory read rate: the dot product of the halves of an array much larger than the cache, best of several. "
        "GEMM rate: a square matrix product by NumPy's BLAS, best of several. Both before and after the kernels.",
        f"Units of work: {', '.join(units)} (elem: one term of a distance or one element; flop: one operation).",
    ]
    return '<h2 id="how">How it is measured</h2>' + "".join(f"<p>{re.sub(' +', ' ', escape(s))}</p>" for s in sentences)
