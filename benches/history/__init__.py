"""Records of what was measured, release by release and gate by gate, and what is made from them.

``python -m benches history --add report/results.json`` (or ``report/gate.json``) keeps the figures of a run in
``benches/history/records/``; without ``--add`` the page is written to ``report/history.html``. README's table is made
from the newest record of a report, and from those of the same CPU that were held to a target.
"""

from pathlib import Path

__all__ = ["RECORDS"]

RECORDS = Path(__file__).with_name("records")
