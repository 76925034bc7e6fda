"""README's table of figures, made from a record in ``benches/history/records/``: ``python -m benches readme``.

A test fails where the table and the newest record of a report differ.
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


def newest(records: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the newest record of a report."""
    reports = [record for record in records if record["kind"] == "report"]
    return reports[-1] if reports else None


def block(record: dict[str, Any] | None) -> str:
    """Return what stands in README between `BEGIN` and `END`, both included."""
    if record is None:
        return f"{BEGIN}\n{_NOTHING}\n{END}"
    n = record["threads"]
    figures = record["figures"]
    usual = f" float32 {GENERATED}"
    chosen = [f"{key}{usual}" for key in ENTRIES]
    # Those that lose are all shown, whatever their family.
    chosen += [name for name, figure in figures.items() if _ratio(figure) < 1 and name not in chosen]
    machine = record["machine"]
    head = (
        "float32",
        "size",
        "loop",
        "NumPy",
        "compiled, 1 thread",
        f"{n} threads",
        f"NumPy's time over ours, {n} threads",
    )
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "--:|" * 5]
    for name in chosen:
        if name in figures:
            figure = figures[name]
            cells = (
                f"`{name.removesuffix(usual)}`",
                figure["size"],
                *(f.seconds(figure[tier]) for tier in ("loops", "vectorized", "compiled_1", "compiled_all")),
                f.times(_ratio(figure)),
            )
            lines.append("| " + " | ".join(cells) + " |")
    source = (
        f"Measured on {record['date'][:10]} on {machine['cpu']} with {n} threads, Python {machine['python']}, "
        f"NumPy {machine['numpy']}, Numba {machine['numba']}, at commit `{record['commit'][:10]}` "
        f"(`benches/history/records/{record['file']}`). Above 1 the compiled kernel is faster; of {len(figures)} "
        "cases, all are shown in which it is not. Loops are scaled up from a part."
    )
    return "\n".join([BEGIN, *lines, "", *_wrapped(source), END])


def _ratio(figure: dict[str, float]) -> float:
    return figure["vectorized_all"] / figure["compiled_all"]


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False)


def written(readme: str, record: dict[str, Any] | None) -> str:
    """Return the text of README with the table of `record` in it."""
    return replace_block(readme, BEGIN, END, block(record))


def update(readme: Path, records: list[dict[str, Any]]) -> bool:
    """Write the table into README; say whether anything changed."""
    old = readme.read_text(encoding="utf-8")
    new = written(old, newest(records))
    if new != old:
        readme.write_text(new, encoding="utf-8")
    return new != old
