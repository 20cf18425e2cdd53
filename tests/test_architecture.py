"""The rooms of the package (its subpackages and top-level modules), and what each may import."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import scmamba_scvi

SRC = Path(scmamba_scvi.__file__).parent
FILES = sorted(SRC.rglob("*.py"))

FOUNDATION = {"_arguments", "_columns", "_keys", "_compat", "_files", "errors", "config", "__version__"}
#: What each room may import of this package.
MAY_IMPORT = {
    "_keys": {"_keys", "errors"},
    "errors": {"errors"},
    "config": {"_keys", "errors", "config"},
    "_compat": {"_keys", "errors", "_compat"},
    "_files": {"_compat", "errors", "_files"},
    "_arguments": {"errors", "_arguments"},
    "_columns": {"errors", "_columns"},
    "ops": FOUNDATION | {"ops"},
    "nn": FOUNDATION | {"ops", "nn"},
    "pp": FOUNDATION | {"ops", "pp"},
    "metrics": FOUNDATION | {"metrics"},
    "data": FOUNDATION | {"data"},
    "pl": FOUNDATION | {"pl"},
    "model": FOUNDATION | {"ops", "nn", "pp", "metrics", "model"},
    "workflow": FOUNDATION | {"ops", "nn", "pp", "metrics", "data", "pl", "model", "workflow"},
    "report": FOUNDATION | {"ops", "nn", "pp", "metrics", "data", "pl", "model", "workflow", "report"},
    "cli": FOUNDATION | {"ops", "nn", "pp", "metrics", "data", "pl", "model", "workflow", "report", "cli"},
    "__main__": {"cli"},
}
#: The same within ``model/``: its subpackages and files, each with what it may import of them.
MODEL_ROOMS = ("_module", "inputs", "_base", "fitting", "training", "tools", "io", "_model")
MAY_IMPORT_IN_MODEL = {
    "_module": {"_module"},
    "inputs": {"inputs"},
    "_base": {"_module", "inputs", "_base"},
    **{room: set(MODEL_ROOMS[: MODEL_ROOMS.index(room) + 1]) for room in MODEL_ROOMS[3:]},
    "__init__": {"_model", "_module", "tools"},
}
#: Packages whose names with a leading underscore change without notice.
OTHERS = ("scvi", "anndata", "mudata", "lightning", "scanpy", "torch", "mamba_ssm", "pandas", "scipy", "sklearn")


def room_of(file: Path) -> str:
    return file.relative_to(SRC).parts[0].removesuffix(".py")


def imports_of(file: Path) -> list[tuple[str, str]]:
    """Absolute module and name (empty for ``import x``) of every import in a file, wherever it stands."""
    package = ["scmamba_scvi", *file.relative_to(SRC).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [(module, alias.name) for alias in node.names]
    return found


def path_of(file: Path) -> str:
    return file.relative_to(SRC).as_posix()


def test_imports_run_downwards():
    wrong = []
    for file in FILES:
        if room_of(file) == "__init__":  # it offers the names of every room
            continue
        known = MAY_IMPORT[room_of(file)]
        for module, name in imports_of(file):
            target = [*module.split(".")[1:], name][0]
            if module.partition(".")[0] == "scmamba_scvi" and target not in known:
                wrong.append(f"{path_of(file)} imports {module}.{name}: {room_of(file)} may not know {target}")
    assert not wrong


def test_imports_within_model_run_downwards():
    """Imports for type hints count too: a reader follows them as any other."""
    wrong = []
    for file in (SRC / "model").rglob("*.py"):
        room = file.relative_to(SRC / "model").parts[0].removesuffix(".py")
        for module, name in imports_of(file):
            target = [*module.split(".")[2:], name][0]
            if f"{module}.".startswith("scmamba_scvi.model.") and target not in MAY_IMPORT_IN_MODEL[room]:
                wrong.append(f"{path_of(file)}: {room} may not know {target}")
    assert not wrong


def test_private_files_of_a_room_stay_in_it():
    wrong = []
    for file in FILES:
        own = file.parent.relative_to(SRC).parts
        for module, _ in imports_of(file):
            package, *way = module.split(".")
            hidden = [i for i, part in enumerate(way) if part.startswith("_")]
            if package == "scmamba_scvi" and any(tuple(way[:i]) != own[:i] for i in hidden):
                wrong.append(f"{path_of(file)} imports {module}, a private file of another room")
    assert not wrong


def test_no_circle_of_imports():
    names = {
        ".".join(["scmamba_scvi", *f.relative_to(SRC).with_suffix("").parts]).removesuffix(".__init__"): f
        for f in FILES
    }
    graph = {
        module: {target for base, name in imports_of(file) for target in (f"{base}.{name}", base) if target in names}
        - {module}
        for module, file in names.items()
    }
    order = graphlib.TopologicalSorter(
        {m: {t for t in ts if names[t].name != "__init__.py"} for m, ts in graph.items()}
    )
    order.prepare()  # raises CycleError, which names the circle


def test_every_room_has_a_place_in_the_order():
    assert {room_of(file) for file in FILES} - {"__init__"} == set(MAY_IMPORT)
    in_model = {file.relative_to(SRC / "model").parts[0].removesuffix(".py") for file in (SRC / "model").rglob("*.py")}
    assert in_model == set(MAY_IMPORT_IN_MODEL)


def test_private_names_of_other_packages_stay_in_compat():
    wrong = []
    for file in FILES:
        for module, name in imports_of(file) if room_of(file) != "_compat" else ():
            package, *rest = module.split(".")
            private = [part for part in (*rest, name) if part.startswith("_") and not part.endswith("__")]
            if package in OTHERS and private:
                wrong.append(f"{path_of(file)} imports {module} {name}: move it to _compat.py")
    assert not wrong


#: Calls and assignments that change the whole process.
GLOBAL_CALLS = {
    "np.random.seed", "numpy.random.seed", "random.seed", "torch.manual_seed", "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all", "torch.set_default_dtype", "torch.set_default_device", "torch.set_num_threads",
    "torch.set_float32_matmul_precision", "torch.use_deterministic_algorithms", "seed_everything", "pl.seed_everything",
    "warnings.simplefilter", "warnings.filterwarnings", "plt.show", "plt.style.use", "plt.rc", "matplotlib.use",
    "mudata.set_options", "mudata.settings.override",
}  # fmt: skip
GLOBAL_OBJECTS = (
    "torch.backends.",
    "rcParams",
    "plt.rcParams",
    "matplotlib.rcParams",
    "sc.settings.",
    "scanpy.settings.",
)


def restored_in(tree: ast.Module) -> set[int]:
    """Nodes whose changes do not last: of ``catch_warnings``, and of a ``finally``, which restores what a library changed."""
    caught = [n for n in ast.walk(tree) if isinstance(n, ast.With) and "catch_warnings" in ast.unparse(n.items[0])]
    final = [line for n in ast.walk(tree) if isinstance(n, ast.Try) for line in n.finalbody]
    return {id(inner) for block in (*caught, *final) for inner in ast.walk(block)}


def test_nothing_changes_the_state_of_the_process():
    wrong = []
    for file in FILES:
        tree = ast.parse(file.read_text())
        restored = restored_in(tree)
        for node in ast.walk(tree):
            called = isinstance(node, ast.Call) and id(node) not in restored and ast.unparse(node.func)
            targets = getattr(node, "targets", []) if isinstance(node, ast.Assign) else []
            targets += [node.target] if isinstance(node, ast.AugAssign) else []
            if called in GLOBAL_CALLS or any(ast.unparse(target).startswith(GLOBAL_OBJECTS) for target in targets):
                wrong.append(f"{path_of(file)}:{node.lineno} {ast.unparse(node)}")
    assert not wrong


def test_nothing_is_left_for_later():
    words = ("TODO", "FIXME", "XXX", "NotImplementedError")
    assert not [(path_of(file), word) for file in FILES for word in words if word in file.read_text()]


def imported_by(statement: str) -> set[str]:
    """Top-level packages in sys.modules after ``statement`` in a new interpreter."""
    code = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        pytest.param(
            "import scmamba_scvi",
            {"torch", "scvi", "lightning", "anndata", "mudata", "scanpy", "mamba_ssm", "matplotlib"},
            id="the_package_alone_imports_nothing_heavy",
        ),
        pytest.param(
            "import scmamba_scvi.nn, scmamba_scvi.ops, scmamba_scvi.metrics",
            {"scvi", "lightning", "anndata", "mudata", "scanpy", "mamba_ssm", "causal_conv1d", "matplotlib"},
            id="tensors_do_not_need_scvi",
        ),
        pytest.param(
            "import scmamba_scvi.pp, scmamba_scvi.data",
            {"scvi", "lightning", "scanpy", "mamba_ssm", "matplotlib"},
            id="data_do_not_need_scvi",
        ),
        pytest.param("import scmamba_scvi.pl", {"scvi", "lightning", "scanpy", "torch"}, id="figures_do_not_need_scvi"),
        pytest.param(
            "import scmamba_scvi.cli",
            {"torch", "numpy", "pandas", "scvi", "anndata", "mudata", "scanpy", "matplotlib"},
            id="the_command_line_waits_with_imports",
        ),
    ],
)
def test_imports_stay_light(statement, absent):
    assert not imported_by(statement) & absent


def test_public_names_exist():
    for name in scmamba_scvi.__all__:
        # called itself: a module that another test imported is an attribute already
        assert scmamba_scvi.__getattr__(name) is not None
    assert set(scmamba_scvi.__all__) <= set(dir(scmamba_scvi))
    with pytest.raises(AttributeError, match="no_such_name"):
        scmamba_scvi.no_such_name  # noqa: B018
