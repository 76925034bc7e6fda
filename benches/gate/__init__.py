"""The regression gate, which says whether the head is slower than the base, and whether its results are right.

How the parts hang together::

    run.py ──── environments.py   two environments, from two revisions, with the same dependencies
       │ ├───── sources.py        which benchmarks stand on changed sources
       │ └───── comparing.py      first calls, screening, confirmation, verdicts  ──►  outcome.py
       │          ├ rounds.py     pairs of processes that take turns  ──►  worker.py, cases.py (in each of them)
       │          └ decision.py   what counts as slower; NumPy alone, no clock
       ├ tables.py                what a person reads
       └ rates.py                 how often the decision is wrong, from recorded identical pairs

``docs/benchmarking.md`` says how it decides, and how often it is wrong.
"""

__all__ = ["CANNOT", "FINE", "SLOWER", "WRONG"]

#: Exit codes.
FINE, SLOWER, WRONG, CANNOT = 0, 1, 2, 3
