"""The guides in docs/adding_a_*.md, followed on a copy of the package.

A guide has blocks of code, and a line before each that says where it goes, after which it may say more:

- `` `FILE`, at the end ``,
- `` `FILE`, into `TABLE` ``: as its last lines,
- `` `FILE`, before `NAME` ``, or ``after``: the function, class or table of that name, at the top level,
- `` `FILE`, before `LINE` ``, ``after`` or ``in place of``: the one line that begins so, be it anywhere,
- `` `FILE`, into `FUNCTION`, before `LINE` ``, ``after`` or ``in place of``: the one line of it that begins so.

Where it says `` `__all__` `` too, the public names of the block are put there, in the order of the alphabet.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from checkout import ROOT

_HEAD = r"^(?:\d+\. )?`([\w/]+\.py)`, "
_BLOCK = re.compile(rf"{_HEAD}((?:(?!```|{_HEAD}).)*)\n\n```py\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_PLACE = re.compile(
    r"at the end|(?:into `(?P<part>\w+)`(?:, )?)?(?:(?P<how>before|after|in place of) `(?P<where>[^`]+)`)?"
)


class Block(NamedTuple):
    """Code of a guide: the file it is for, what the guide says of the place, and the code."""

    file: str
    place: str
    code: str

    def put_into(self, text: str) -> str:
        """Return the text of the file with the code in its place."""
        found = _PLACE.match(self.place)
        assert found is not None
        assert found.group(), self.place
        part, how, where = found.group("part", "how", "where")
        lines, code = text.splitlines(keepends=True), self.code
        first, last = _extent(text, part) if part else (0, len(lines))
        if how is None:
            first = last = last - 1 if part else last
            code = code if part else f"\n\n{code}"
        elif where.isidentifier():
            first, last = _extent(text, where)
            code = f"{code}\n\n" if how == "before" else code
        else:
            [first] = [at for at in range(first, last) if lines[at].lstrip().startswith(where)]
            last = first + 1
        begin, end = {"before": (first, first), "after": (last, last)}.get(how, (first, last))
        changed = "".join([*lines[:begin], code, *lines[end:]])
        return _with_public_names(changed, code) if "`__all__`" in self.place else changed


def blocks_of(guide: str) -> list[Block]:
    """Return the blocks of the text of a guide, each with its place."""
    found = [Block(*each.group(1, 2, 4)) for each in _BLOCK.finditer(guide)]
    assert len(found) == guide.count("\n```py\n"), "a block has no line before it that says where it goes"
    return found


def page(name: str) -> str:
    """Return the text of a page of docs/."""
    return (ROOT / "docs" / name).read_text("utf-8")


def copy_with(blocks: list[Block], folder: Path) -> None:
    """Put a copy of the package into a folder, and the blocks into the copy."""
    left_out = shutil.ignore_patterns("__pycache__", "kernels")
    shutil.copytree(ROOT / "fastml", folder / "fastml", ignore=left_out)
    shutil.copytree(ROOT / "kernels", folder / "fastml" / "kernels", ignore=left_out)
    for block in blocks:
        path = folder / ("fastml" if block.file.startswith("kernels/") else "") / block.file
        path.write_text(block.put_into(path.read_text("utf-8")), "utf-8")


def run_on_copy(program: str, folder: Path) -> None:
    """Run a program that imports the copy in a folder; it must end well."""
    program = f"import sys, fastml.kernels\nassert fastml.kernels.__file__.startswith(sys.argv[1])\n{program}"
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


#: Reports as short as they can be: times are not what the copy is for, nor what the machine can do at best.
_REPORTS = """
import functools, sys
from benches import __main__ as command
from benches.report import run, tiles

run.measure_limits = functools.partial(run.measure_limits, readings=1, gemm_size=64, array_bytes=1 << 20)
tiles._STEPS //= 100
{first}
for only in sys.argv[1:]:
    code = command.main(["report", "--only", only, "--seconds", "0.1", "--output", "report"])
    if code:
        sys.exit(code)
"""


def report_on_copy(folder: Path, *only: str, first: str = "") -> str:
    """Return what reports print, each of the cases that one of `only` matches, with the package that lies in a folder.

    `first` is run before them. It ends badly where two tiers do not agree.
    """
    done = subprocess.run(
        [sys.executable, "-c", _REPORTS.format(first=first), *only],
        cwd=folder, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _extent(text: str, name: str) -> tuple[int, int]:
    """Return where the lines of a name's statement at the top level begin, with comments and decorators, and end."""
    lines, [node] = text.splitlines(), [node for node in ast.parse(text).body if name in _names(node)]
    first = min(part.lineno for part in (node, *getattr(node, "decorator_list", []))) - 1
    while lines[first - 1].startswith("#"):
        first -= 1
    assert node.end_lineno is not None
    return first, node.end_lineno


def _names(node: ast.stmt) -> set[str]:
    """Return the names that a definition or an assignment makes."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}


def _with_public_names(text: str, code: str) -> str:
    """Return the text with the public names of the code in `__all__`."""
    first, last = _extent(text, "__all__")
    lines = text.splitlines(keepends=True)
    listed = set(ast.literal_eval("".join(lines[first:last]).partition("=")[2].strip()))
    names = {name for node in ast.parse(code).body for name in _names(node) if not name.startswith("_")}
    return "".join([*lines[:first], f"__all__ = {sorted(listed | names)}\n", *lines[last:]])
