"""The package as such: what is installed, what an import loads and costs, which module may import which.

The checks of the built wheel run this file too, from an empty folder and without the repository in sys.path.
"""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import json
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

import fastml
from checkout import ROOT


def run_python(code: str, cwd: Path) -> str:
    """Run `code` in a fresh interpreter that sees installed packages only; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(code)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def distribution() -> importlib.metadata.Distribution:
    # Not the one in the repository: builds leave a fastml.egg-info there.
    path = [folder for folder in sys.path if Path(folder).resolve() != ROOT]
    for found in importlib.metadata.distributions(name="fastml", path=path):
        return found
    pytest.fail("fastml is not installed in this environment: pip install -e . (make dev does it)")


# ------------------------------------------------------------------------------- what is installed


def package_folders(root: Path) -> dict[str, str]:
    """Package name -> folder of everything under fastml/ and kernels/ that has an __init__.py."""
    found = {}
    for top, prefix in (("fastml", "fastml"), ("kernels", "fastml.kernels")):
        for init in sorted((root / top).rglob("__init__.py")):
            folder = init.parent.relative_to(root)
            if folder.parts[:2] != ("fastml", "kernels"):  # the link for editors
                found[".".join((prefix, *folder.parts[1:]))] = folder.as_posix()
    return found


def mapping(root: Path) -> tuple[dict[str, str], list[str]]:
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    lines = config["options"]["package_dir"].strip().splitlines()
    folders = dict(line.replace(" ", "").split("=") for line in lines)
    return folders, config["options"]["packages"].split()


def test_setup_cfg_lists_every_package():
    folders, packages = mapping(ROOT)
    assert folders == package_folders(ROOT)
    assert packages == sorted(folders)


def test_a_package_that_setup_cfg_forgets_is_found(tmp_path):
    for folder in ("fastml", "kernels", "kernels/extra", "fastml/models"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "__init__.py").touch()
    found = package_folders(tmp_path)
    assert found["fastml.kernels.extra"] == "kernels/extra"
    assert found["fastml.models"] == "fastml/models"


def test_no_top_level_kernels(tmp_path, distribution):
    output = run_python(
        """
        import importlib.util, fastml.kernels
        print(importlib.util.find_spec("kernels"), fastml.kernels.__name__)
        """,
        tmp_path,
    )
    assert output == "None fastml.kernels"


def test_files_of_the_wheel(distribution):
    if json.loads(distribution.read_text("direct_url.json") or "{}").get("dir_info", {}).get("editable"):
        pytest.skip("an editable install lists no files; the checks of the wheel run this")
    files = [file.as_posix() for file in distribution.files]
    assert len(files) == len(set(files))
    assert {file.split("/")[0] for file in files if not file.startswith("..")} == {
        "fastml",
        f"fastml-{fastml.__version__}.dist-info",
    }
    modules = {
        f"{name.replace('.', '/')}/{source.name}"
        for name, folder in package_folders(ROOT).items()
        for source in (ROOT / folder).glob("*.py")
    }
    assert modules | {"fastml/py.typed"} == {
        file for file in files if re.match(r"fastml/(?!kernels/packs/)", file) and ".pyc" not in file
    }


def test_version_is_the_installed_one(distribution):
    assert distribution.version == fastml.__version__
    assert f"## {fastml.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def floors() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = dict(dependency.split(">=") for dependency in project["dependencies"])
    return {"python": project["requires-python"].removeprefix(">="), **found}


def test_the_oldest_versions_are_the_ones_tested():
    pins = dict(re.findall(r'"([a-z-]+)==([\d.]+)\.\*"', (ROOT / ".ci" / "run").read_text(encoding="utf-8")))
    assert len(pins) == 5
    assert pins == {name: floors()[name] for name in pins}


def test_the_documented_versions_are_the_required_ones():
    text = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([\w-]+) \| ([\d.]+) \|", text, flags=re.MULTILINE))
    assert {name.lower(): version for name, version in rows.items()} == floors()


# ------------------------------------------------------------------------- what an import loads


def loaded_by(statement: str, cwd: Path) -> set[str]:
    output = run_python(f"import sys\n{statement}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))", cwd)
    return set(output.split())


def test_import_fastml_loads_nothing_heavy(tmp_path, distribution):
    assert not loaded_by("import fastml", tmp_path) & {"numpy", "numba", "scipy", "sklearn", "tqdm"}


def test_import_kernels_loads_no_numba(tmp_path, distribution):
    readable = "from fastml.kernels.reference import loops, vectorized"
    for statement in ("import fastml.kernels", readable, "import fastml.kernels.catalogue"):
        assert not loaded_by(statement, tmp_path) & {"numba", "llvmlite", "scipy", "sklearn", "tqdm"}, statement


def test_import_estimators_loads_no_numba(tmp_path, distribution):
    """It takes as long as the rest of them beside scikit-learn, and is wanted with the first fit."""
    names = "KNeighborsClassifier, LinearSVC, LogisticRegression, MLPClassifier, ConvNetClassifier, SGDClassifier"
    statement = f"from fastml import {names}, KNNImputer, NearestCentroid, Ridge, knn_cross_validation, sweep, layers"
    assert not loaded_by(statement, tmp_path) & {"numba", "llvmlite"}


def test_a_kernel_loads_numba_but_no_scikit_learn(tmp_path, distribution):
    loaded = loaded_by("from fastml.kernels import pairwise_l1", tmp_path)
    assert "numba" in loaded
    assert "sklearn" not in loaded


@pytest.mark.parametrize(
    ("before", "statement", "limit_ms"), [("numpy", "fastml", 20), ("numba", "fastml.kernels", 50)]
)
def test_import_cost(before, statement, limit_ms, tmp_path, distribution):
    code = f"""
        import time, {before}
        start = time.perf_counter()
        import {statement}
        print((time.perf_counter() - start) * 1e3)
        """
    # The smallest of several runs: the machine may be busy with other things.
    assert min(float(run_python(code, tmp_path)) for _ in range(5)) <= limit_ms


def test_public_names_resolve_and_are_listed():
    for name in fastml.__all__:
        assert getattr(fastml, name) is not None
        assert name in dir(fastml)
    with pytest.raises(AttributeError, match="no attribute 'nothing_of_this_name'"):
        fastml.nothing_of_this_name  # noqa: B018


ROOMS = sorted(name for name in fastml.__all__ if hasattr(getattr(fastml, name), "__path__") and name != "kernels")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_what_it_lists(room):
    module = getattr(fastml, room)
    for name in module.__all__:
        assert name in dir(module)
        value = getattr(module, name)
        assert value is not None
        if name in fastml.__all__ and room != "plot":  # which has functions of the same names
            assert value is getattr(fastml, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing_of_this_name'"):
        module.nothing_of_this_name  # noqa: B018


def lazy_names(module) -> set[str]:
    """Return the names that a module imports for type checkers only."""
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    return {
        alias.asname
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        for alias in statement.names
    }


def test_type_checkers_see_the_lazy_names():
    assert lazy_names(fastml) == set(fastml.__all__) - {"__version__"}
    for room in ("impute", "linear_model", "model_selection", "neighbors", "neural_network", "svm"):
        module = getattr(fastml, room)
        assert lazy_names(module) == set(module.__all__), room


# ------------------------------------------------------------------------ which may import which

# fastml stands on kernels, kernels stands on NumPy and Numba alone.
OUTSIDE = {"numpy", "numba", "llvmlite"}


def foreign_imports(source: str) -> set[str]:
    """Return the top-level names that a module of kernels/ imports and must not."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(str(node.module).split(".")[0])
    return names - OUTSIDE - set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", sorted((ROOT / "kernels").rglob("*.py")), ids=lambda path: path.stem)
def test_kernels_import_numpy_and_numba_only(path):
    assert foreign_imports(path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f():\n    from sklearn.utils import check_array", {"sklearn"}),
        ("import scipy.special as s", {"scipy"}),
        ("import fastml", {"fastml"}),
        ("import kernels.softmax", {"kernels"}),
        ("import os, numpy as np\nfrom . import _jit\nfrom numba.core import types", set()),
    ],
)
def test_foreign_imports_are_found(source, found):
    assert foreign_imports(source) == found


# fastml stands on what pyproject.toml declares. What extras bring it may import late, where somebody asks for it.
IMPORT_NAMES = {"scikit-learn": "sklearn"}


def import_names(requirements: list[str]) -> set[str]:
    names = [re.match(r"[\w-]+", requirement)[0] for requirement in requirements]
    return {IMPORT_NAMES.get(name, name) for name in names}


def undeclared_imports(source: str) -> set[str]:
    """Return the top-level names that a module of fastml/ imports though no installation need have them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    always = import_names(project["dependencies"]) | {"fastml", *sys.stdlib_module_names}
    late = import_names([one for extra in project["optional-dependencies"].values() for one in extra])

    def names(node: ast.AST, known: set[str]) -> set[str]:
        found = set()
        if isinstance(node, ast.Import):
            found = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found = {str(node.module).split(".")[0]}
        is_late = isinstance(node, ast.FunctionDef) or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node))
        inside = known | late if is_late else known
        return (found - known).union(*(names(child, inside) for child in ast.iter_child_nodes(node)))

    return names(ast.parse(source), always)


def test_fastml_imports_declared_packages_only():
    sources = [path for path in (ROOT / "fastml").rglob("*.py") if "kernels" not in path.relative_to(ROOT).parts]
    assert len(sources) > 40
    undeclared = {path.name: undeclared_imports(path.read_text(encoding="utf-8")) for path in sources}
    assert not any(undeclared.values()), undeclared


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f():\n    import requests", {"requests"}),
        ("from matplotlib.axes import Axes", {"matplotlib"}),
        ("if TYPE_CHECKING:\n    from matplotlib.axes import Axes\ndef f():\n    from pandas import DataFrame", set()),
        ("import os, scipy.linalg\nfrom sklearn.utils import check_array\nfrom . import data\nimport fastml", set()),
    ],
)
def test_undeclared_imports_are_found(source, found):
    assert undeclared_imports(source) == found
