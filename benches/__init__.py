"""Measurements of the kernels: the report, the pytest-benchmark suite and what they are made of.

``python -m benches report`` times every entry of the kernel catalogue in its tiers and writes a
table, ``report/index.html`` and ``report/results.json``. How the parts hang together::

    report.py ── cases.py          what is measured: catalogue entries × data × dtype
        │  ├──── measure.py        how: warm-up, rounds, medians, BLAS threads
        │  ├──── limits.py         what this machine can do at best
        │  ├──── known_answers.py  published figures that must come out
        │  └──── results.py        one plain document, docs/report_schema.md
        └ render_terminal.py, render_html.py + plots.py   read that document and nothing else
"""
