"""Names by a pattern, as every command line takes it."""

from __future__ import annotations

import re
from collections.abc import Iterable


def select(names: Iterable[str], pattern: str | None) -> list[str]:
    """Return the names that `pattern` matches: part of the name, or with ``*`` and ``?`` the whole of it.

    Case does not matter; brackets mean themselves, because keys contain them.

    >>> select(["hinge", "squared_hinge", "k_nearest[l1]"], "hinge")
    ['hinge', 'squared_hinge']
    >>> select(["hinge", "squared_hinge", "k_nearest[l1]"], "h*")
    ['hinge']
    >>> select(["hinge", "squared_hinge", "k_nearest[l1]"], "[L1]")
    ['k_nearest[l1]']
    """
    if not pattern:
        return list(names)
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    wanted = re.compile(expression, re.IGNORECASE)
    match = wanted.fullmatch if "*" in pattern or "?" in pattern else wanted.search
    return [name for name in names if match(name)]
