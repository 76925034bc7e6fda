"""Documents on disk: written in one piece, read back with a look at their schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastml.utils.files import replacing

__all__ = ["read_document", "replace_block", "write_document", "write_text"]


def write_document(document: dict[str, Any], path: Path) -> None:
    """Write `document` as JSON; a reader never sees half of it."""
    write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write a text file beside its place and move it there."""
    with replacing(path) as stream:
        stream.write(text.encode())


def read_document(path: Path, schema: int) -> dict[str, Any]:
    """Read a document back.

    Raises
    ------
    ValueError
        If it was written in another schema.
    """
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if document.get("schema") != schema:
        raise ValueError(f"{path} has schema {document.get('schema')!r}, this version reads {schema}")
    return document


def replace_block(text: str, begin: str, end: str, block: str) -> str:
    """Return a text with `block` in the place of the lines from `begin` to `end`, both included.

    Raises
    ------
    ValueError
        If the text does not have these lines.
    """
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"the file must have the lines {begin!r} and {end!r}")
    return f"{before}{block}{after}"
