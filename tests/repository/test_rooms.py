"""The house: which room may import which, what is private, and how large a room and a file may be.

A room is a folder of modules. Every rule is a function from sources to violations, tried on the repository and on a
planted violation. Imports inside functions and imports for type checkers count: what a reader must know is the same.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import PurePosixPath
from typing import NamedTuple

import pytest

from checkout import ROOT

#: A reader holds about a dozen files in mind, and scrolls through a file of this length in a minute; a room that
#: needs more has two subjects.
MOST_FILES = 12
MOST_LINES = 600

#: Rooms of up to `MOST_FILES_WITH_A_REASON`, and why.
MOST_FILES_WITH_A_REASON = 17
REASONS = {
    "kernels/runtime": "machine code and threads: each file is one thing that kernels need and know nothing of",
    "kernels/neighbors": "one file for each way to search, and for what chooses among them",
    "kernels/linear": "one file for each pass over rows, and for what trainers and solvers make of them",
    "kernels/networks": "one file for each step of a batch: forward, loss, backward, step, and the loop over them",
    "fastml/linear_model": "one file for each solver of a model, beside what trainers by batches share",
    "kernels/convolution": "one file for each kind of layer's loops, beside what puts layers in a row",
    "benches/gate": "what is measured, how, and what is decided of it are kept apart on purpose: they change apart",
}

#: Rooms by floor; a room imports from lower floors only.
FLOORS = [
    {"kernels/runtime", "kernels/arguments"},
    {"kernels/simd"},
    {"kernels/losses", "kernels/distances", "kernels/training"},
    {"kernels/neighbors", "kernels/linear", "kernels/networks"},
    {"kernels/convolution"},
    {"kernels/reference/loops", "kernels/reference/vectorized"},
    {"kernels/reference"},
    {"kernels/catalogue"},
    {"kernels"},
    {"fastml/utils"},
    {"fastml/solvers", "fastml/training", "fastml/datasets"},
    {"fastml/neighbors", "fastml/linear_model", "fastml/inspection", "fastml/plot"},
    {"fastml/impute", "fastml/svm", "fastml/neural_network"},
    {"fastml/model_selection"},
    {"fastml"},
    {"fastml/cli"},
    {"benches/measuring"},
    {"benches/report", "benches/profile", "benches/searches", "benches/startup", "benches/threads"},
    {"benches/peers/jobs"},
    {"benches/peers"},
    {"benches/history"},
    {"benches/gate"},
    {"benches", "benches/suite", "benches/quick"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

#: Modules at the top that stand elsewhere than the face they lie beside.
ELSEWHERE = {"fastml/layers.py": FLOOR["fastml/utils"] + 0.5, "fastml/__main__.py": FLOOR["fastml/cli"] + 0.5}

Sources = dict[str, str]


class Import(NamedTuple):
    """`name` is what is taken from the module `target`, or None where it is the module itself."""

    file: str
    line: int
    target: str
    name: str | None

    def __str__(self) -> str:
        return f"{self.file}:{self.line} takes {self.name or 'the module'} from {self.target}"


def sources(*tops: str) -> Sources:
    """Return the text of every module below some folders, by its place in the repository."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for top in tops
        for path in sorted((ROOT / top).rglob("*.py"))
        if not path.is_relative_to(ROOT / "fastml" / "kernels")  # a link that editors follow
    }


PRODUCT = sources("kernels", "fastml", "benches")
TESTS = sources("tests")


def room_of(file: str) -> str:
    return str(PurePosixPath(file).parent)


def module_of(file: str) -> str:
    """Return the dotted name that a file is imported by."""
    parts = list(PurePosixPath(file).with_suffix("").parts)
    parts = ["fastml", *parts] if parts[0] == "kernels" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(file): file for file in PRODUCT}


@cache
def imports_of(file: str, text: str) -> tuple[Import, ...]:
    """Return every import of one of the repository's modules, and every attribute taken from such a module."""
    package = module_of(file).split(".")
    package = package if file.endswith("__init__.py") else package[:-1]
    found: list[Import] = []
    bound: dict[str, str] = {}
    nodes = list(ast.walk(ast.parse(text)))
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).rstrip(".")
            for alias in node.names:
                if (inner := f"{module}.{alias.name}") in FILES:
                    bound[alias.asname or alias.name] = FILES[inner]
                    found.append(Import(file, node.lineno, FILES[inner], None))
                elif module in FILES:
                    found.append(Import(file, node.lineno, FILES[module], alias.name))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in FILES:
                    first = alias.name.partition(".")[0]
                    bound[alias.asname or first] = FILES[alias.name if alias.asname else first]
                    found.append(Import(file, node.lineno, FILES[alias.name], None))
    for node in nodes:
        if isinstance(node, ast.Attribute) and (target := _module_of_chain(node.value, bound)):
            found.append(Import(file, node.lineno, target, node.attr))
    return tuple(found)


def _module_of_chain(node: ast.expr, bound: dict[str, str]) -> str | None:
    """Return the file of the module that a name, or a chain such as ``fastml.kernels.runtime.jit``, stands for."""
    if isinstance(node, ast.Name):
        return bound.get(node.id)
    if isinstance(node, ast.Attribute) and (above := _module_of_chain(node.value, bound)):
        return FILES.get(f"{module_of(above)}.{node.attr}")
    return None


def imports(texts: Sources) -> Iterator[Import]:
    return chain.from_iterable(imports_of(file, text) for file, text in texts.items())


# ---------------------------------------------------------------------------------------- the rules


def is_private(name: str | None) -> bool:
    return name is not None and name.startswith("_") and not name.endswith("__")


#: Tests that are about all rooms of a folder may look into each of them.
ABOUT_ALL = {"tests/kernels/all": "kernels/", "tests/kernels/reference": "kernels/reference/", "tests/repository": ""}


def private_uses(texts: Sources) -> list[str]:
    """Return the imports of something with an underscore from another folder; a test may, from the room it mirrors."""
    return [
        str(taken)
        for taken in imports(texts)
        if room_of(taken.target) not in (room_of(taken.file), room_of(taken.file).removeprefix("tests/"))
        and not taken.target.startswith(ABOUT_ALL.get(room_of(taken.file), "nowhere"))
        and (is_private(taken.name) or is_private(PurePosixPath(taken.target).stem))
    ]


def floor_of(file: str) -> float:
    return ELSEWHERE.get(file, FLOOR.get(room_of(file), len(FLOORS)))


def upward_imports(texts: Sources) -> list[str]:
    return [
        str(taken)
        for taken in imports(texts)
        if room_of(taken.file) != room_of(taken.target) and floor_of(taken.file) <= floor_of(taken.target)
    ]


def circle(texts: Sources) -> list[str]:
    edges: dict[str, set[str]] = {file: set() for file in texts}
    for taken in imports(texts):
        edges[taken.file].add(taken.target)
    try:
        list(TopologicalSorter(edges).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def crowded_rooms(texts: Sources) -> list[str]:
    counts: dict[str, int] = {}
    for file in texts:
        counts[room_of(file)] = counts.get(room_of(file), 0) + 1
    large = {room for room in counts if room in REASONS or room.startswith("tests/")}
    most = {room: MOST_FILES_WITH_A_REASON if room in large else MOST_FILES for room in counts}
    return [f"{room} has {count} files" for room, count in counts.items() if count > most[room]]


def long_files(texts: Sources) -> list[str]:
    counts = {file: len(text.splitlines()) for file, text in texts.items()}
    return [f"{file} has {count} lines" for file, count in counts.items() if count > MOST_LINES]


def rooms_without_a_sentence(texts: Sources, page: str) -> list[str]:
    """Return the rooms whose docstring does not begin with a sentence that is their line in the layout page."""
    wrong = []
    for room in sorted({room_of(file) for file in texts}):
        text = texts.get(f"{room}/__init__.py")
        doc = (ast.get_docstring(ast.parse(text)) or "") if text is not None else ""
        first = doc.partition("\n")[0]
        if not re.fullmatch(r"(?:[^.]|\.(?=\w))+[\w)`]\.", first) or " " not in first:
            wrong.append(f"{room}: its docstring must begin with one sentence, in one line")
        elif f"| `{room}` | {first.replace('``', '`')}" not in page:
            wrong.append(f"{room}: docs/layout.md must have the line | `{room}` | {first}")
    return wrong


def faces_with_code(texts: Sources) -> list[str]:
    """Return the rooms of kernels whose `__init__` does more than describe them: it would load Numba."""
    return [
        file
        for file, text in texts.items()
        if re.fullmatch(r"kernels/(?!reference|catalogue)\w+/__init__\.py", file)
        and any(not isinstance(node, ast.Expr) for node in ast.parse(text).body)
    ]


# ------------------------------------------------------------------------------------ they hold here


def test_an_underscore_means_this_room_only():
    assert private_uses(PRODUCT) == []


def test_tests_use_private_names_of_the_room_they_mirror_only():
    assert private_uses(TESTS) == []


def test_rooms_import_from_lower_floors_only():
    assert upward_imports(PRODUCT) == []


def test_every_room_has_a_floor():
    assert {room_of(file) for file in PRODUCT} == set(FLOOR)


def test_no_module_stands_on_itself():
    assert circle(PRODUCT) == []


def test_rooms_and_files_are_small():
    assert crowded_rooms({**PRODUCT, **TESTS}) == []
    assert long_files({**PRODUCT, **TESTS}) == []


def test_the_layout_page_has_every_room_and_its_sentence():
    page = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
    assert rooms_without_a_sentence(PRODUCT, page) == []


def test_rooms_of_kernels_import_nothing_by_themselves():
    assert faces_with_code(PRODUCT) == []


# ------------------------------------------------------------------------- planted violations are found


PLANTS = {
    "a private module": (private_uses, "kernels/linear/new.py", "from ..distances import _tile_metrics"),
    "a private name": (private_uses, "fastml/svm/new.py", "from fastml.kernels.runtime.parallel import _submit"),
    "a private attribute": (private_uses, "fastml/svm/new.py", "from ..kernels.runtime import jit\njit._x"),
    "a private name by its whole way": (private_uses, "fastml/svm/new.py",
                                        "import fastml.kernels.runtime.jit\nfastml.kernels.runtime.jit._x"),
    "a private module of a package": (private_uses, "fastml/svm/new.py",
                                      "from fastml.kernels import runtime\nruntime._live_code"),
    "from another test's room": (private_uses, "tests/fastml/svm/new.py", "from fastml.kernels.runtime.jit import _x"),
    "beside all rooms": (private_uses, "tests/kernels/all/new.py", "from fastml import svm\nsvm._x"),
    "upward": (upward_imports, "kernels/simd/new.py", "from ..losses import formulas"),
    "upward, in a function": (upward_imports, "kernels/runtime/new.py", "def f():\n    from ..simd import rows"),
    "upward, for a type": (upward_imports, "kernels/losses/new.py", "if TYPE_CHECKING:\n    from ..linear import gram"),
    "upward, by an absolute name": (upward_imports, "kernels/simd/new.py", "import fastml.kernels.losses.formulas"),
    "sideways": (upward_imports, "kernels/linear/new.py", "from ..networks import steps"),
    "a circle": (circle, "kernels/runtime/target.py", "def late():\n    from . import team"),
    "too many lines": (long_files, "kernels/simd/new.py", "\n" * (MOST_LINES + 1)),
    "code in a face": (faces_with_code, "kernels/simd/__init__.py", '"""A room."""\nfrom . import rows'),
}  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_violation_is_found(plant):
    rule, file, text = PLANTS[plant]
    before = TESTS if file.startswith("tests") else PRODUCT
    assert len(rule({**before, file: text})) > len(rule(before))


def test_a_crowded_room_is_found():
    files = {f"kernels/simd/new_{number}.py": "" for number in range(MOST_FILES + 1)}
    assert crowded_rooms({**PRODUCT, **files})


@pytest.mark.parametrize(
    "doc", ["", '"""Two sentences. In one line."""', '"""No full stop"""', '"""Not in the page."""']
)
def test_a_room_without_its_sentence_is_found(doc):
    assert rooms_without_a_sentence({"kernels/simd/__init__.py": doc}, "| `kernels/simd` | Another sentence. |")
    assert not rooms_without_a_sentence(
        {"kernels/simd/__init__.py": '"""It is so."""'}, "| `kernels/simd` | It is so. |"
    )


def test_what_is_allowed_is_not_found():
    good = {
        "kernels/linear/new.py": "from . import _products\nfrom ..losses import formulas",
        "tests/kernels/linear/test_new.py": "from fastml.kernels.linear import _products\n_products._x",
        "tests/kernels/all/test_new.py": "from fastml.kernels.linear import _products\n_products._x",
        "tests/repository/test_new.py": "import fastml\nfastml._HOME",
    }
    assert private_uses(good) == []
    assert upward_imports(good) == []
