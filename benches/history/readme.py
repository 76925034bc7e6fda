"""README's table of figures, made from records in ``benches/history/records/``: ``python -m benches readme``.

A test fails where the table and the newest records of reports differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..measuring import formats as f
from ..measuring.documents import replace_block
from ..report.plan import GENERATED

__all__ = ["BEGIN", "END", "block", "newest", "written"]

BEGIN = "<!-- Figures: made by `python -m benches readme`, not by hand. -->"
END = "<!-- End of figures. -->"
#: One entry per family of kernels, as far as the record has it.
ENTRIES = (
    "pairwise_l1",
    "pairwise_l2",
    "k_nearest[l2]",
    "exp",
    "softmax_cross_entropy_gradient",
    "binary_cross_entropy_gradient",
    "squared_hinge_gradient",
    "huber_gradient",
    "linear_loss_gradient[binary_cross_entropy]",
    "linear_loss_gradient[softmax_cross_entropy]",
    "train_linear[softmax_cross_entropy]",
    "network_loss_gradient[softmax_cross_entropy]",
    "train_network[softmax_cross_entropy]",
    "conv2d",
)
_NOTHING = "No figures are recorded yet; `make report` measures them on your machine."


def newest(records: list[dict[str, Any]], target: str | None = None) -> dict[str, Any] | None:
    """Return the newest record of a report of a target, or of the CPU as it is."""
    reports = [record for record in records if record["kind"] == "report" and record.get("target") == target]
    return reports[-1] if reports else None


def _held(records: list[dict[str, Any]], record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return for each target the newest record of a report, if it is of the machine of `record`."""
    names = dict.fromkeys(one["target"] for one in records if one.get("target"))
    found = (newest(records, name) for name in sorted(names))
    return [one for one in found if one and _machine(one) == _machine(record)]


def _machine(record: dict[str, Any]) -> tuple[str, int]:
    return record["machine"]["cpu"], record["threads"]


def block(records: list[dict[str, Any]]) -> str:
    """Return what stands in README between `BEGIN` and `END`, both included."""
    record = newest(records)
    if record is None:
        return f"{BEGIN}\n{_NOTHING}\n{END}"
    n = record["threads"]
    figures, held = record["figures"], _held(records, record)
    usual = f" float32 {GENERATED}"
    chosen = [f"{key}{usual}" for key in ENTRIES]
    # Those that lose are all shown, whatever their family.
    chosen += [
        name
        for name in figures
        if name not in chosen
        and any(name in one["figures"] and _ratio(one["figures"][name]) < 1 for one in (record, *held))
    ]
    head = [
        "float32",
        "size",
        "loop",
        "NumPy",
        "compiled, 1 thread",
        f"{n} threads",
        f"NumPy's time over ours, {n} threads",
    ]
    for one in held:
        head += [f"{n} threads as {one['target']}", f"NumPy's time over ours, both as {one['target']}"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "--:|" * (len(head) - 2)]
    for name in chosen:
        if name in figures:
            figure = figures[name]
            cells = [
                f"`{name.removesuffix(usual)}`",
                figure["size"],
                *(f.seconds(figure[tier]) for tier in ("loops", "vectorized", "compiled_1", "compiled_all")),
                f.times(_ratio(figure)),
            ]
            for one in held:
                other = one["figures"].get(name)
                cells += [f.seconds(other["compiled_all"]), f.times(_ratio(other))] if other else ["–", "–"]
            lines.append("| " + " | ".join(cells) + " |")
    source = (
        f"Measured {_source(record)}. Above 1 the compiled kernel is faster; of {len(figures)} cases, all are shown in "
        "which it is not. Loops are scaled up from a part."
    )
    for one in held:
        source += f" As {one['target']}, to which NumPy is held too: measured {_source(one)}."
    return "\n".join([BEGIN, *lines, "", *_wrapped(source), END])


def _source(record: dict[str, Any]) -> str:
    machine = record["machine"]
    return (
        f"on {record['date'][:10]} on {machine['cpu']} with {record['threads']} threads, Python "
        f"{machine['python']}, NumPy {machine['numpy']}, Numba {machine['numba']}, at commit `{record['commit'][:10]}` "
        f"(`benches/history/records/{record['file']}`)"
    )


def _ratio(figure: dict[str, float]) -> float:
    return figure["vectorized_all"] / figure["compiled_all"]


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False)


def written(readme: str, records: list[dict[str, Any]]) -> str:
    """Return the text of README with the table of the newest records in it."""
    return replace_block(readme, BEGIN, END, block(records))


def update(readme: Path, records: list[dict[str, Any]]) -> bool:
    """Write the table into README; say whether anything changed."""
    old = readme.read_text(encoding="utf-8")
    new = written(old, records)
    if new != old:
        readme.write_text(new, encoding="utf-8")
    return new != old
