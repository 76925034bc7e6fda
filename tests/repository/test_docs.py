"""README and docs: the Python in them runs, the links lead somewhere, the commands exist."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from checkout import ROOT
from fastml import __main__ as cli

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def python_of(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def run(text: str, name: str) -> None:
    """Run the Python of a page from top to bottom in one namespace: sessions as doctests, the rest as it is."""
    names: dict[str, object] = {"__name__": name}
    failures: list[str] = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for block in python_of(text):
        if ">>> " in block:
            test = doctest.DocTestParser().get_doctest(block, names, name, name, 0)
            runner.run(test, out=failures.append, clear_globs=False)
            names = test.globs
        else:
            exec(compile(block, name, "exec"), names)
    assert not failures, "".join(failures)


def dead_links(text: str, folder: Path) -> list[str]:
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    return [target for target in targets if target and "://" not in target and not (folder / target).exists()]


def unknown_commands(text: str) -> list[str]:
    """Return the commands of a page (`make x`, `python -m fastml x`) that do not exist."""
    targets = set(
        re.findall(r"^([a-z][a-z-]*(?: [a-z][a-z-]*)*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    )
    known = {f"make {name}" for group in targets for name in group.split()}
    known |= {f"python -m fastml {name}" for name in ("info", "warmup", "pack")}
    return [
        found
        for found in re.findall(r"(?:^|`)((?:make|python -m fastml) [a-z][a-z-]*)", text, re.MULTILINE)
        if found not in known
    ]


@pytest.mark.needs_jit
@pytest.mark.parametrize(
    "page", [page for page in PAGES if python_of(page.read_text("utf-8"))], ids=lambda page: page.name
)
def test_the_python_of_a_page_runs(page):
    run(page.read_text("utf-8"), page.name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_commands(page):
    text = page.read_text("utf-8")
    assert dead_links(text, page.parent) == []
    assert unknown_commands(text) == []


def test_every_page_of_the_guide_is_linked_from_another():
    pages = sorted((ROOT / "docs").glob("*.md"))
    linked = {name for page in pages for name in re.findall(r"\]\(([\w-]+\.md)\)", page.read_text("utf-8"))}
    assert {page.name for page in pages} - linked <= {"index.md"}


def test_the_commands_of_the_command_line_are_the_documented_ones(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    usage = capsys.readouterr().out
    assert re.findall(r"^    (\w+)  ", usage, flags=re.MULTILINE) == ["info", "warmup", "pack"]


@pytest.mark.parametrize(
    "text",
    [
        "```python\n>>> 1 + 1\n3\n\n```\n",
        "```python\nx = 1\n```\nand\n```python\nassert x == 2\n```\n",
        "```python\nx = 1\n```\nand\n```python\n>>> x\n2\n\n```\n",
    ],
)
def test_wrong_python_is_found(text):
    with pytest.raises(AssertionError):
        run(text, "planted")


def test_dead_links_and_commands_are_found(tmp_path):
    (tmp_path / "there.md").touch()
    assert dead_links("[a](there.md#x) [b](gone.md) [c](https://example.org/x.md)", tmp_path) == ["gone.md"]
    assert unknown_commands("`make tea` and\npython -m fastml dance\n`make test`") == [
        "make tea",
        "python -m fastml dance",
    ]
