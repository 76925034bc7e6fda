"""The table, in Markdown, as it stands in ``docs/cache.md``."""

from __future__ import annotations

import textwrap

from ..measuring import formats
from .processes import Reading
from .run import Row, Startup

__all__ = ["BEGIN", "END", "block"]

BEGIN = "<!-- First fits: made by `python -m benches startup --write docs/cache.md`, not by hand. -->"
END = "<!-- End of first fits. -->"


def block(found: Startup) -> str:
    """Return what stands between `BEGIN` and `END`, both included."""
    pack = f"with a pack ({found.pack})" if found.pack else "with a pack"
    lines = [f"| first fit | {pack} | without, empty cache | warm cache |", "|---|--:|--:|--:|"]
    lines += [f"| {row.name} | {' | '.join(_first_fits(row))} |" for row in found.rows]
    if found.catalogue is not None:
        empty, warm = map(_seconds, found.catalogue)
        lines.append(f"| whole catalogue (`warmup`, wall time) | – | {empty} | {warm} |")
    if found.rows:
        lines += ["", "| import | scikit-learn's | fastml's | difference |", "|---|--:|--:|--:|"]
        lines += [f"| {row.name} | {' | '.join(_imports(row))} |" for row in found.rows]
    return "\n".join([BEGIN, *lines, "", *textwrap.wrap(_source(found), 120, break_on_hyphens=False), END])


def _first_fits(row: Row) -> list[str]:
    return [
        "no pack" if reading is None else f"{_seconds(reading.cpu - row.twin_and_numba.cpu)} ({_seconds(reading.wall)})"
        for reading in (row.pack, row.empty, row.warm)
    ]


def _imports(row: Row) -> list[str]:
    return [*map(_both, (row.twin, row.imported)), _seconds(row.imported.cpu - row.twin.cpu)]


def _both(reading: Reading) -> str:
    return f"{_seconds(reading.cpu)} ({_seconds(reading.wall)})"


def _seconds(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.0f}"


def _source(found: Startup) -> str:
    info, commit = found.info, found.source["commit"]
    cpu, packages = info["cpu"], info["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("numpy", "numba", "scikit-learn"))
    text = (
        f"Seconds, measured on {found.date[:10]} on {cpu['model']} (compiled for {cpu['target']}, "
        f"{info['threads']['count']} threads), fastml {info['fastml']}, Python {info['python']}, {versions}"
    )
    if commit is not None:
        text += f", at commit `{commit[:10]}`{' with changes' if found.source['changed'] else ''}"
    busy = formats.busy({"load_average": found.load_average})
    return f"{text}. {busy}".strip()
