"""Every public name is in docs/api.md with an example that runs, and the pages about the code name files that exist."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import logging
import pathlib
import re
import runpy
import textwrap
import warnings

import pytest

import scmamba_scvi

ROOT = pathlib.Path(__file__).parents[1]
SRC = ROOT / "src" / "scmamba_scvi"
API = ROOT / "docs" / "api.md"
ROOMS = ("data", "metrics", "model", "nn", "pl", "pp")
#: Classes whose every method needs an example; for other classes the example of the class is enough.
WITH_EXAMPLES_OF_METHODS = ("SCMAMBA", "CellMatches", "FeatureLayout", "TrueMatchRanks")
#: A method that scvi-tools calls, and two that only explain why they are not for this model.
OF_SCVI_TOOLS = {"get_var_names", "setup_anndata", "setup_annbatch"}


def documented() -> dict[str, object]:
    """What docs/api.md lists, by full name: the entries of its tables, and data that have no page of their own."""
    found: dict[str, object] = {}
    for table in re.findall(r"^\.\. autosummary::\n((?:   .*\n|\n)*)", API.read_text(), flags=re.MULTILINE):
        for name in re.findall(r"^   (\w[\w.]*)$", table, flags=re.MULTILINE):
            *room, own = name.split(".")
            if room == ["SCMAMBA"]:
                value = inspect.getattr_static(scmamba_scvi.SCMAMBA, own)
            else:
                value = getattr(importlib.import_module(".".join(["scmamba_scvi", *room])), own)
            found[f"scmamba_scvi.{name}"] = value
    for own, room in re.findall(r"^\.\. py:data:: (\S+)\n   :module: (\S+)$", API.read_text(), flags=re.MULTILINE):
        found[f"{room}.{own}"] = getattr(importlib.import_module(room), own)
    for name, value in list(found.items()):
        if inspect.isclass(value) and value.__name__ in WITH_EXAMPLES_OF_METHODS:
            found |= {f"{name}.{method}": inspect.getattr_static(value, method) for method in methods_of(value)}
    return found


def public(module) -> list[str]:
    names = getattr(module, "__all__", None)
    return list(names) if names else [name for name, value in vars(module).items() if is_public(module, name, value)]


def is_public(module, name: str, value: object) -> bool:
    here = getattr(value, "__module__", None) == module.__name__
    return here and not name.startswith("_") and (inspect.isfunction(value) or inspect.isclass(value))


def function_of(member: object) -> object:
    """The function behind a class method, other members as they are."""
    return getattr(member, "__func__", member)


def methods_of(cls: type) -> list[str]:
    """Public methods that this package defines."""
    static = {name: function_of(inspect.getattr_static(cls, name)) for name in dir(cls) if not name.startswith("_")}
    return [
        name
        for name, member in static.items()
        if inspect.isfunction(member) and member.__module__.startswith("scmamba_scvi") and name not in OF_SCVI_TOOLS
    ]


def needs_example(value: object) -> bool:
    if inspect.isclass(value):
        return not issubclass(value, Exception)
    return inspect.isfunction(function_of(value))


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_are_in_the_page(room):
    module = importlib.import_module(f"scmamba_scvi.{room}")
    shown = {id(value) for value in documented().values()}
    lacking = [name for name in public(module) if id(getattr(module, name)) not in shown]
    assert public(module) and not lacking


def test_methods_of_the_model_are_in_the_page():
    from scmamba_scvi import SCMAMBA

    listed = set(re.findall(r"^   SCMAMBA\.(\w+)$", API.read_text(), flags=re.MULTILINE))
    assert set(methods_of(SCMAMBA)) <= listed


def test_every_public_name_has_an_example():
    lacking = [
        name
        for name, value in documented().items()
        if needs_example(value) and ">>>" not in (inspect.getdoc(function_of(value)) or "")
    ]
    assert not lacking


@pytest.fixture
def namespace(tmp_path, monkeypatch):
    """What the examples start from: the names that the code at the top of docs/api.md makes, and its working folder."""

    monkeypatch.chdir(tmp_path)
    from scmamba_scvi.model.training import sizes

    monkeypatch.setattr(sizes, "STEPS", 8)  # examples have to run, not to train well
    (code,) = re.findall(r"^```python\n(.*?)^```$", API.read_text(), flags=re.MULTILINE | re.DOTALL)
    made: dict[str, object] = {}
    exec(compile(code, str(API), "exec"), made)
    return made


class ExampleChecker(doctest.OutputChecker):
    """An example of training need not show the progress bars of training."""

    def check_output(self, want, got, optionflags):
        return (not want and got.startswith("\rTraining:")) or super().check_output(want, got, optionflags)


@pytest.mark.timeout(1800)  # a minute of one processor, many on a busy machine
def test_examples_run(namespace, monkeypatch):
    import matplotlib.pyplot as plt
    import scvi

    monkeypatch.setattr(scvi.settings, "verbosity", logging.ERROR)
    finder = doctest.DocTestFinder(recurse=False)
    report: list[str] = []
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    n_run = 0
    for name, value in documented().items():
        for test in finder.find(function_of(value), name, globs=namespace):
            runner = doctest.DocTestRunner(ExampleChecker(), optionflags=doctest.NORMALIZE_WHITESPACE)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                runner.run(test, out=report.append)
            n_run += bool(test.examples)
        plt.close("all")
    assert not report, "".join(report)
    assert n_run > 80  # there are over a hundred: the finder has not lost most of them


def test_sections_returns_are_shown_whole():
    """Prose goes into one field, which napoleon would cut at the end of each line and at each colon."""
    pytest.importorskip("sphinx", reason="sphinx is installed by `make docs`")
    from sphinx.ext.napoleon import Config, NumpyDocstring

    conf = runpy.run_path(str(ROOT / "docs" / "conf.py"))
    options = {name: conf[name] for name in ("napoleon_google_docstring", "napoleon_use_rtype")}
    n_returns = 0
    for name, value in documented().items():
        lines = (inspect.getdoc(function_of(value)) or "").splitlines()
        written = "\n".join(lines).partition("Returns\n-------\n")[2]
        conf["_take_out_returns"](None, "function", name, value, None, lines)
        lines = NumpyDocstring(lines, Config(**options), what="function").lines()
        conf["_put_in_returns"](None, "function", name, value, None, lines)
        shown = " ".join("\n".join(lines).partition(":returns: ")[2].split())
        written = " ".join(re.split(r"\n\w+\n-+\n", written)[0].split())
        assert shown.startswith(written) and bool(shown) == bool(written), name
        n_returns += bool(shown)
    assert n_returns > 30


def sections_of(value: object) -> dict[str, str]:
    """Text of each section of a docstring, by its title."""
    parts = re.split(r"^(\w[\w ]*)\n-+$", inspect.getdoc(value) or "", flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def raised_by(function) -> set[str]:
    """Names of the errors that a function raises itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raised = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc]
    return {ast.unparse(error.func if isinstance(error, ast.Call) else error) for error in raised}


def lacking_in_docstring(function) -> set[str]:
    """Parameters, results and errors of a function that its docstring leaves out, and parameters that do not exist."""
    sections, signature = sections_of(function), inspect.signature(function)
    entries = ",".join(re.findall(r"^\S.*$", sections.get("Parameters", ""), flags=re.MULTILINE))
    lacking = {entry.strip(" *") for entry in entries.split(",")} ^ {name.strip("_") for name in signature.parameters}
    if signature.return_annotation not in (None, "None", inspect.Signature.empty):
        lacking |= {"Returns"} - {"Returns" for title in sections if title in ("Returns", "Yields")}
    lacking |= {error for error in raised_by(function) if error not in sections.get("Raises", "")}
    return lacking - {"self", "cls", ""}


def test_docstrings_have_every_parameter_result_and_error():
    functions = {}
    for name, value in documented().items():
        methods = methods_of(value) if inspect.isclass(value) else []
        functions |= {name: value} | {f"{name}.{method}": inspect.getattr_static(value, method) for method in methods}
    functions = {name: inspect.unwrap(function_of(value)) for name, value in functions.items()}
    lacking = {name: lacking_in_docstring(value) for name, value in functions.items() if inspect.isfunction(value)}
    assert len(lacking) > 100
    assert not {name: found for name, found in lacking.items() if found}


def test_errors_that_a_function_leaves_to_others_are_in_its_docstring(mdata):
    from scmamba_scvi import SCMAMBA, config

    SCMAMBA.setup_mudata(mdata)
    model = SCMAMBA(mdata, encoder="linear")
    calls = [
        (SCMAMBA, lambda: SCMAMBA(mdata, preset="giant")),
        (SCMAMBA, lambda: SCMAMBA(mdata["rna"])),
        (SCMAMBA.coordinates, lambda: model.coordinates("lipids")),
        (config.TrainConfig, lambda: config.TrainConfig(lr=-1.0)),
    ]
    for value, call in calls:
        with pytest.raises(scmamba_scvi.errors.ScmambaError) as caught:
            call()
        assert type(caught.value).__name__ in sections_of(value).get("Raises", ""), value


def test_the_lines_for_programs_that_read_the_documentation_run_in_their_order(mdata, tmp_path, monkeypatch):
    from scmamba_scvi.model.training import sizes

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sizes, "STEPS", 8)
    for part in (mdata, *mdata.mod.values()):
        part.obs = part.obs.assign(donor="d1", cell_type=part.obs["cell_type"].cat.rename_categories({"type_1": "HSC"}))
    mdata.write_h5mu("multiome.h5mu")
    names = {"new_mdata": mdata[:50].copy(), "cells": mdata, **mdata.mod}
    text = (ROOT / "docs" / "_extra" / "llms.txt").read_text()
    exec("\n".join(re.findall("^    (.*)$", text, flags=re.MULTILINE)), names)
    assert len(names["query_model"].predict()) == 50 and (tmp_path / "report.html").exists()


def test_the_figure_of_the_layers_has_every_file_of_the_lowest_one():
    text = (ROOT / "docs" / "_static" / "layers.svg").read_text()
    files = {file.name for file in SRC.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert {name for name in files if name not in text} == set()


def test_every_module_of_the_interface_is_there_after_importing_the_package_alone():
    shown = set(re.findall(r"automodule:: scmamba_scvi\.(\w+)", API.read_text()))
    assert len(shown) > 5 and shown <= set(scmamba_scvi.__all__)


def test_no_name_is_in_two_tables_of_the_page():
    listed = re.findall(r"^   (\w[\w.]*)$", API.read_text(), flags=re.MULTILINE)
    assert len(listed) > 80 and len(listed) == len(set(listed))


@pytest.mark.parametrize(
    "page", ["docs/architecture.md", "docs/one-minibatch.md", "docs/upstream.md", "CONTRIBUTING.md"]
)
def test_pages_about_the_code_name_files_that_exist(page):
    named = set(re.findall(r"`([\w./-]+\.py)`", (ROOT / page).read_text()))
    assert named
    # a name without a folder may be that of a file of model/, which has its own table
    missing = [name for name in named if not any((folder / name).is_file() for folder in (ROOT, SRC, SRC / "model"))]
    assert not missing


def test_every_file_of_the_model_is_on_the_page_of_the_architecture():
    named = re.findall(r"`(_\w+\.py)`", (ROOT / "docs" / "architecture.md").read_text())
    assert {file.name for file in (SRC / "model").glob("_*.py")} - {"__init__.py"} <= set(named)
