"""Every kernel of the catalogue in each of its tiers, timed side by side and compared with the truth.

``python -m benches report`` writes a table, ``report/index.html`` and ``report/results.json``. How the parts hang
together::

    run.py ──── plan.py           what is measured: entries × data × dtype, questions, studies
      │  ├───── case.py           how one case is: first calls, turns, errors
      │  ├───── known_answers.py  published figures that must come out
      │  ├───── tiles.py, scaling.py      studies of the distances
      │  └───── summary.py        what decides the exit code; one plain document, docs/report_schema.md
    terminal.py, html.py, plots.py        read that document and nothing else
"""
