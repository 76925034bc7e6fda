"""The report as text: two tables per group, readable at 100 columns and without colour."""

from __future__ import annotations

import sys
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from ..measuring import formats as f
from ..measuring import targets
from .run import Progress
from .summary import group_title, groups

WIDTH = 100


def console(stream: IO[str] | None = None) -> Console:
    """Return a console that is as wide as the terminal, and 100 columns wide where there is none."""
    stream = stream or sys.stdout
    if hasattr(stream, "reconfigure"):
        # A terminal that lacks a sign gets a question mark, not an exception.
        stream.reconfigure(errors="replace")
    width = None if stream.isatty() else WIDTH
    return Console(file=stream, width=width, highlight=False, emoji=False, markup=False, soft_wrap=False)


def render(document: dict[str, Any], out: Console) -> None:
    """Print the whole report."""
    out.print(Text("fastml report", style="bold"))
    _summary(document, out)
    _machine(document, out)
    for data, dtype, cases in groups(document):
        good = [case for case in cases if not case["failure"]]
        if good:
            title, n = group_title(data, dtype), document["threads"]["all"]
            _print_table(f"{title}: time, and how many times faster the JIT is", _speed_table(good, n), out)
            _print_table(f"{title}: throughput, share of the machine's limit, error", _limit_table(good, n), out)
    _out_table(document, out)
    _answers(document, out)
    _tiles(document, out)
    _footnotes(document, out)


def _summary(document: dict[str, Any], out: Console) -> None:
    summary = document["summary"]
    if document["interrupted"]:
        out.print(
            Text(
                f"INTERRUPTED: {summary['cases']} cases measured before Ctrl-C, of {document['planned']} planned.",
                style="bold yellow",
            )
        )
    for name in summary["failed"]:
        case = next(case for case in document["cases"] if case["name"] == name)
        out.print(Text(f"FAILED: {name}: {case['failure']}", style="bold red"))
    for name in summary["disagree"]:
        out.print(Text(f"DISAGREES with the reference beyond its bound: {name}", style="bold red"))
    for what in summary["differs"]:
        out.print(Text(f"DIFFERS from the published figure: {what}", style="bold red"))
    compared = summary["cases"] - len(summary["failed"])
    if compared:
        slower = f.slower_phrases(summary, document["threads"]["all"])
        if slower:
            names = {item["name"] for item in summary["slower"]}
            out.print(Text(f"JIT is SLOWER than vectorised in {len(names)} of {compared} cases:", style="bold red"))
            for phrase in slower:
                out.print(Text(f"  {phrase}", style="red"))
        elif not targets.not_held(document):
            out.print(Text(f"JIT is slower than vectorised in none of {compared} cases.", style="green"))
        for phrase in f.threads_phrases(summary):
            out.print(Text(phrase, style="red"))
        if not summary["disagree"]:
            out.print(Text(f"All tiers agree with the reference within the bounds in all {compared} cases."))
    if document["known_answers"]:
        total = len(document["known_answers"])
        out.print(Text(f"Published figures: {summary['matches']} of {total} match."))


def _machine(document: dict[str, Any], out: Console) -> None:
    machine, threads, limits = document["machine"], document["threads"], document["limits"]
    cpu = machine["cpu"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    out.print(Text(f"\n{cpu['model']}, Numba target {cpu['target']} with vectors of {cpu['vector_bytes']} bytes"))
    if f.target(document):
        out.print(Text(f.target(document)))
    out.print(Text(f"fastml {machine['fastml']}, Python {machine['python']}, {versions}"))
    out.print(Text(f"all threads = {threads['all']} ({threads['source']}); took {document['seconds']:.0f} s"))
    if limits:
        memory, gemm = limits["memory"], limits["gemm"]
        out.print(
            Text(
                f"limits, 1 / {threads['all']} threads: "
                f"memory {memory['1'] / 1e9:.1f} / {memory['all'] / 1e9:.1f} GB/s, "
                f"GEMM float32 {gemm['float32']['1'] / 1e9:.0f} / {gemm['float32']['all'] / 1e9:.0f}, "
                f"float64 {gemm['float64']['1'] / 1e9:.0f} / {gemm['float64']['all'] / 1e9:.0f} Gflop/s"
            )
        )
    if f.busy(document):
        out.print(Text(f.busy(document), style="yellow"))
    for data in document["data"]:
        out.print(Text(f"{data['name']}: {data['note']}"))


def _print_table(title: str, table: Table, out: Console) -> None:
    # The title is printed apart, because rich would fold it to the width of a narrow table.
    out.print()
    out.print(Text(title, style="bold"))
    out.print(table)


def _table() -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("kernel", no_wrap=True)
    return table


def _columns(table: Table, *headers: str) -> None:
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)


def _kernel(case: dict[str, Any]) -> str:
    """The entry's key, on several lines where it is long."""
    key: str = case["entry"]
    if len(key) <= 25:
        return key
    head, bracket, variant = key.partition("[")
    if len(head) > 25:
        at = head.rfind("_")
        head = f"{head[:at]}\n  {head[at:]}"
    return f"{head}\n  [{variant}" if bracket else head


def _speedup(value: float) -> Text:
    if value < 1:
        return Text(f"{f.times(value)} SLOWER", style="bold red")
    return Text(f.times(value), style="green")


def _speed_table(cases: list[dict[str, Any]], n: int) -> Table:
    table = _table()
    _columns(
        table,
        "loop",
        "vector-\nised",
        "JIT\n1 thread",
        f"JIT\n{n} threads",
        "1 thread:\n× faster\nthan loop,\nhigher is\nbetter",
        "1 thread:\n× faster\nthan vec-\ntorised,\nhigher is\nbetter",
        f"{n} threads:\n× faster\nthan vec-\ntorised,\nhigher is\nbetter",
    )
    for case in cases:
        tiers, speedups = case["tiers"], case["speedups"]
        loop = f.seconds(tiers["loops"]["seconds"]) + (f.PART_MARK if tiers["loops"]["scaled"] else " ")
        table.add_row(
            _kernel(case),
            loop,
            f.seconds(tiers["vectorized"]["seconds"]),
            f.seconds(tiers["compiled_1"]["seconds"]),
            f.seconds(tiers["compiled_all"]["seconds"]),
            _speedup(speedups["compiled_1_over_loops"]),
            _speedup(speedups["compiled_1_over_vectorized"]),
            _speedup(speedups["compiled_all_over_vectorized_all"]),
        )
    return table


def _limit_table(cases: list[dict[str, Any]], n: int) -> Table:
    table = _table()
    _columns(
        table,
        "work/s,\nJIT\n1 thread",
        f"work/s,\nJIT\n{n} threads",
        "limit",
        "share,\n1 thr.",
        f"share,\n{n} thr.",
        "error in\nbounds, ≤ 1\nis right",
        "first call",
    )
    for case in cases:
        tiers = case["tiers"]
        one, every = tiers["compiled_1"], tiers["compiled_all"]
        mark = f.CACHE_MARK if case["limit"] == "memory" and case["fits_in_cache"] else " "
        error = Text(f.error(f.worst_error(case)))
        if not case["agrees"]:
            error = Text(f"{error.plain} WRONG", style="bold red")
        table.add_row(
            _kernel(case),
            f.rate(one["throughput"], case["unit"]),
            f.rate(every["throughput"], case["unit"]),
            case["limit"],
            f.share(one["share_of_limit"]) + mark,
            f.share(every["share_of_limit"]) + mark,
            error,
            _first_call(case["first_call"]),
        )
    return table


def _first_call(first: dict[str, Any]) -> str:
    if first["source"] == "ready":
        return "ready"
    return f"{f.seconds(first['seconds'])} {'cache' if first['source'] == 'cache' else 'new'}"


def _out_table(document: dict[str, Any], out: Console) -> None:
    cases = [case for case in document["cases"] if "compiled_out" in case["tiers"]]
    if not cases:
        return
    table = _table()
    _columns(table, "fresh", "out=", "out= is × faster,\nhigher is better", "data")
    for case in cases:
        fresh, reused = case["tiers"]["compiled_1"]["seconds"], case["tiers"]["compiled_out"]["seconds"]
        table.add_row(
            _kernel(case),
            f.seconds(fresh),
            f.seconds(reused),
            f.times(fresh / reused),
            f"{case['data']}, {case['dtype']}",
        )
    _print_table("Fresh result against out= (JIT, 1 thread): what allocating the result costs", table, out)


def _answers(document: dict[str, Any], out: Console) -> None:
    if not document["known_answers"]:
        return
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    for header in ("", "figure", "input"):
        table.add_column(header)
    _columns(table, "published", "found", "", f"JIT, {document['threads']['all']} thr.")
    for answer in document["known_answers"]:
        style = "green" if answer["verdict"] == "matches" else "bold red"
        table.add_row(
            answer["workload"],
            f"{answer['data']}: {answer['what']}",
            answer["dtype"],
            answer["expected"],
            answer["found"],
            Text(answer["verdict"] if answer["verdict"] == "matches" else "DIFFERS", style=style),
            f.seconds(answer["seconds"]),
        )
    _print_table("Published figures", table, out)


def _tiles(document: dict[str, Any], out: Console) -> None:
    study = document["tiles"]
    if not study:
        return
    table = _table()
    _columns(table, "tile", "rows × vectors × lanes", "rate", "elements\nper cycle", "share of the\nadders' peak")
    for tile in study["tiles"]:
        shape = f"{tile['rows']} × {tile['vectors']} × {tile['lanes']}"
        share = "" if tile["share_of_peak"] is None else f.share(tile["share_of_peak"])
        name = f"{f.METRIC_TITLES[tile['metric']]}, {tile['dtype']}"
        table.add_row(name, shape, f.rate(tile["rate"], "elem"), f"{tile['per_cycle']:.1f}", share)
    title = f"Distances against the adders: one thread at {study['clock'] / 1e9:.2f} GHz, data in cache"
    _print_table(title, table, out)


def _footnotes(document: dict[str, Any], out: Console) -> None:
    n = document["threads"]["all"]
    out.print()
    out.print(
        Text(
            f"{f.PART_MARK} the loop ran on a part, its time is scaled up by the work; "
            "results.json has the part's size.\n"
            f"{f.CACHE_MARK} the data fits into the last-level cache; its share of the memory rate may exceed 100 %.\n"
            "Times are medians of readings in turns. With 1 thread BLAS is held at one thread too; "
            f"with {n} threads vectorised may use {n} BLAS threads. "
            "Float L2 in NumPy is by differences, as exact as ours; the matrix-product form is faster and loses "
            "digits: the share of the GEMM rate says how a call compares with that product alone. "
            "Shares: bytes that must be moved, or operations, per second over the measured limit; "
            "uint8 is held against float32's GEMM rate and may exceed 100 %. First call: on top of an ordinary call; "
            "new = compiled, cache = machine code loaded from disk, ready = nothing left to do."
        ),
    )


class BarProgress(Progress):
    """A progress bar on stderr; where stderr is no terminal, a line now and then."""

    def __init__(self) -> None:
        super().__init__()
        self._console = Console(stderr=True, highlight=False, emoji=False, markup=False)
        self._bar: Bar | None = None
        self._said = -1

    def start(self, total: int) -> None:
        super().start(total)
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("starting", total=total)
            self._bar.start()

    def at(self, what: str) -> None:
        if self._bar:
            self._bar.update(self._task, description=f"{what[:52]:<52}")
        elif (tenth := 10 * self.done // max(1, self.total)) > self._said:
            self._said = tenth
            self._console.print(f"{self.done}/{self.total} measured; now {what}", soft_wrap=True)

    def advance(self) -> None:
        super().advance()
        if self._bar:
            self._bar.advance(self._task)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()
