"""The code a reader copies first runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_python_of_the_readme_runs_from_top_to_bottom(tmp_path, monkeypatch):
    from scmamba_scvi.data import simulate_multiome

    monkeypatch.chdir(tmp_path)
    simulate_multiome(n_cells=120, n_genes=100, n_peaks=300, n_cell_types=3, seed=0).write_h5mu("multiome.h5mu")
    namespace: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["mdata"].obsm["X_scmamba"].shape == (120, 64)
    assert Path("integration.png").stat().st_size > 10_000 and Path("training.png").stat().st_size > 5_000


def commands() -> list[str]:
    return [line for block in blocks("bash") for line in block.splitlines() if line.startswith("scmamba-scvi")]


@pytest.mark.parametrize("line", commands())
def test_commands_of_the_readme_exist_with_their_options(line):
    from typer.testing import CliRunner

    from scmamba_scvi.cli import COMMANDS, app

    _, command, *arguments = line.split()
    assert command in COMMANDS
    help_text = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    for argument in arguments:
        assert not argument.startswith("--") or argument in help_text


def test_links_into_the_repository_lead_somewhere():
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", README.read_text())
    assert targets
    for target in targets:
        assert (README.parent / target).exists(), target
