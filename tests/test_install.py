"""How long an import takes, and whether dependencies, constraints and versions agree."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import scmamba_scvi

ROOT = Path(__file__).parents[1]
#: Seconds in which an empty interpreter starts; a machine that is n times slower gets n times as long for the rest.
USUAL_START = 0.05


def seconds(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [
        pytest.param(("-c", "import scmamba_scvi"), 0.3, id="import"),
        pytest.param(("-c", "from scmamba_scvi.cli import main; main()", "--help"), 1.0, id="help"),
    ],
)
def test_import_and_help_are_quick(arguments, limit):
    # in turn, the best of five each: the machine may be busy with something else for a while
    pairs = [(seconds("-c", ""), seconds(*arguments)) for _ in range(5)]
    empty, ours = (min(times) for times in zip(*pairs, strict=True))
    assert ours - empty < limit * max(1.0, empty / USUAL_START), f"{ours:.2f} s, an empty interpreter {empty:.2f} s"


def test_types_are_shipped():
    assert (Path(scmamba_scvi.__file__).parent / "py.typed").is_file()


def test_every_argument_and_result_of_the_model_has_a_type():
    for name, member in inspect.getmembers(scmamba_scvi.SCMAMBA):
        if name.startswith("_") or not getattr(member, "__module__", "").startswith("scmamba_scvi"):
            continue
        signature = inspect.signature(member)
        untyped = [p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name != "self"]
        assert not untyped and signature.return_annotation is not signature.empty, (name, untyped)


def test_the_package_runs_as_the_command():
    asked = [sys.executable, "-m", "scmamba_scvi"]
    version = subprocess.run([*asked, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.strip() == scmamba_scvi.__version__
    usage = subprocess.run([*asked, "integrate", "--help"], capture_output=True, text=True, check=True)
    assert "python -m scmamba_scvi integrate" in usage.stdout


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def imports_of(file: Path) -> set[str]:
    """Packages that a file imports, anywhere in it; relative imports are of this package."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_every_dependency_is_imported_somewhere_and_every_import_is_a_dependency():
    named = {re.split(r"[<>=\[; ]", line)[0] for line in project()["project"]["dependencies"]}
    module_of = {"scikit-learn": "sklearn", "scvi-tools": "scvi", "umap-learn": "umap"}
    imported = {name for file in Path(scmamba_scvi.__file__).parent.rglob("*.py") for name in imports_of(file)}
    # not imported here: scanpy imports them in its neighbours, UMAP and Leiden, which we call
    behind_scanpy = {"igraph", "pynndescent", "umap-learn"}
    optional = {"mamba_ssm", "scib_metrics", "triton"}
    modules = {module_of.get(name, name) for name in named - behind_scanpy}
    assert modules <= imported, modules - imported
    outside = imported - set(sys.stdlib_module_names) - {"scmamba_scvi"}
    assert outside <= modules | optional, outside - modules - optional


def pins(file: str, python: str) -> dict[str, str]:
    """Version of every package that a file of constraints gives to one Python."""
    lines = [Requirement(line) for line in (ROOT / file).read_text().splitlines() if not line.startswith("#")]
    lines = [line for line in lines if line.marker is None or line.marker.evaluate({"python_version": python})]
    found = {canonicalize_name(line.name): str(line.specifier).removeprefix("==") for line in lines}
    assert len(found) == len(lines), f"{file} names a package twice for Python {python}"
    return found


def bounds() -> dict[str, Requirement]:
    """What the package and its tests ask for, by name."""
    lines = [*project()["project"]["dependencies"], *project()["dependency-groups"]["test"]]
    return {canonicalize_name(line.name): line for line in map(Requirement, lines)}


def test_the_lowest_set_is_the_lower_bounds():
    lowest = {
        name: version.version
        for name, line in bounds().items()
        for version in line.specifier
        if version.operator == ">="
    }
    pinned = pins("constraints-lowest.txt", "3.11")
    assert lowest.keys() == bounds().keys(), "a dependency without a lower bound"
    assert {name: Version(pinned[name]) for name in lowest} == {name: Version(v) for name, v in lowest.items()}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_a_tested_set_names_everything_within_its_bounds(python):
    pinned = pins("constraints.txt", python)
    for name, line in bounds().items():
        assert line.specifier.contains(pinned[name]), f"{line}, but {pinned[name]} for Python {python}"


def test_versions_agree():
    version = project()["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
