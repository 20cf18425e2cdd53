"""Every public name is in docs/api.md, has an example in its docstring, and the example runs and gives what it shows."""

from __future__ import annotations

import doctest
import importlib
import inspect
import logging
import pathlib
import re
import warnings

import pytest

API = pathlib.Path(__file__).parents[1] / "docs" / "api.md"
ROOMS = ("data", "metrics", "model", "nn", "pl", "pp")
#: Classes that users hold: each of their methods shows how it is called. Of others the class does.
HELD = ("SCMAMBA", "CellMatches", "FeatureLayout", "PartnerRanks")
#: Methods that scvi-tools calls, and one that only explains why it is not for this model.
OF_SCVI_TOOLS = {"get_var_names", "setup_anndata"}


def documented() -> dict[str, object]:
    """What the directives of the page show, by full name."""
    found: dict[str, object] = {}
    directives = re.findall(r"^\.\. (\S+):: (\S+)\n((?:   .*\n|\n)*)", API.read_text(), flags=re.MULTILINE)
    for kind, name, body in directives:
        if kind == "automodule":
            module = importlib.import_module(name)
            members = re.search(r":members:(.*)", body).group(1)
            names = [part.strip() for part in members.split(",")] if members.strip() else public(module)
            found |= {f"{name}.{part}": getattr(module, part) for part in names}
        else:
            room, _, own = name.rpartition(".")
            value = getattr(importlib.import_module(room), own)
            found[name] = value
            methods = re.findall(r"auto(?:method|property):: (\S+)", body)
            found |= {f"{name}.{method}": inspect.getattr_static(value, method) for method in methods}
    for name, value in list(found.items()):
        if inspect.isclass(value) and value.__name__ in HELD:
            found |= {f"{name}.{method}": inspect.getattr_static(value, method) for method in methods_of(value)}
    return found


def public(module) -> list[str]:
    names = getattr(module, "__all__", None)
    return list(names) if names else [name for name, value in vars(module).items() if is_ours(module, name, value)]


def is_ours(module, name: str, value: object) -> bool:
    here = getattr(value, "__module__", None) == module.__name__
    return here and not name.startswith("_") and (inspect.isfunction(value) or inspect.isclass(value))


def plain(member: object) -> object:
    """The function behind a class method."""
    return getattr(member, "__func__", member)


def methods_of(cls: type) -> list[str]:
    """Public methods that this package defines."""
    static = {name: plain(inspect.getattr_static(cls, name)) for name in dir(cls) if not name.startswith("_")}
    return [
        name
        for name, member in static.items()
        if inspect.isfunction(member) and member.__module__.startswith("scmamba_scvi") and name not in OF_SCVI_TOOLS
    ]


def needs_example(value: object) -> bool:
    if inspect.isclass(value):
        return not issubclass(value, Exception)
    return inspect.isfunction(plain(value))


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_are_in_the_page(room):
    module = importlib.import_module(f"scmamba_scvi.{room}")
    shown = {id(value) for value in documented().values()}
    lacking = [name for name in public(module) if id(getattr(module, name)) not in shown]
    assert public(module) and not lacking


def test_methods_of_the_model_are_in_the_page():
    from scmamba_scvi import SCMAMBA

    listed = set(re.findall(r"automethod:: (\S+)", API.read_text()))
    assert set(methods_of(SCMAMBA)) <= listed


def test_every_public_name_has_an_example():
    lacking = [
        name
        for name, value in documented().items()
        if needs_example(value) and ">>>" not in (inspect.getdoc(plain(value)) or "")
    ]
    assert not lacking


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the top of the page says an example has in hand."""
    from scmamba_scvi.model import _sizes

    (given,) = re.findall(r"^```python\n(.*?)^```$", API.read_text(), flags=re.MULTILINE | re.DOTALL)
    in_hand: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.getbasetemp())
        patch.setattr(_sizes, "STEPS", 8)  # it is the lines that are tested
        exec(compile(given, str(API), "exec"), in_hand)
    return in_hand


class Shown(doctest.OutputChecker):
    """What training says about itself need not be shown."""

    def check_output(self, want, got, optionflags):
        return (not want and got.startswith("SCMAMBA: preset")) or super().check_output(want, got, optionflags)


@pytest.mark.timeout(1800)  # a minute of one processor, many on a busy machine
def test_examples_run(names, tmp_path_factory, monkeypatch):
    import matplotlib.pyplot as plt
    import scvi

    from scmamba_scvi.model import _sizes

    monkeypatch.chdir(tmp_path_factory.getbasetemp())
    monkeypatch.setattr(_sizes, "STEPS", 8)  # it is the lines that are tested
    monkeypatch.setattr(scvi.settings, "verbosity", logging.ERROR)
    finder = doctest.DocTestFinder(recurse=False)
    report: list[str] = []
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    n_run = 0
    for name, value in documented().items():
        for test in finder.find(plain(value), name, globs=names):
            runner = doctest.DocTestRunner(Shown(), optionflags=doctest.NORMALIZE_WHITESPACE)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                runner.run(test, out=report.append)
            n_run += bool(test.examples)
        plt.close("all")
    assert not report, "".join(report)
    assert n_run > 80
