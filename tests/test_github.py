"""The workflows of GitHub run reviewed code only: every action is pinned, and no job may do more than it needs to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

GITHUB = Path(__file__).parents[1] / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.y*ml"))
#: An action by the hash of its commit, and in a comment the release that this commit is.
PINNED = re.compile(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
#: The permissions to write that a job may have, and the workflow that needs them.
MAY_WRITE = {("release.yaml", "id-token"), ("security.yaml", "security-events")}


def name(file: Path) -> str:
    return file.name


def steps(file: Path) -> list[dict]:
    return [step for job in yaml.safe_load(file.read_text())["jobs"].values() for step in job["steps"]]


def test_there_are_workflows():
    assert {file.stem for file in WORKFLOWS} >= {"test", "docs", "build", "release", "security"}


@pytest.mark.parametrize("file", WORKFLOWS, ids=name)
def test_every_action_is_pinned_by_hash_with_its_version_beside_it(file):
    lines = re.findall(r"^\s*(?:- )?uses:\s*(.+?)\s*$", file.read_text(), flags=re.MULTILINE)
    assert len(lines) == sum("uses" in step for step in steps(file)) > 0
    for line in lines:
        assert PINNED.fullmatch(line), line


def test_one_action_has_one_version():
    pins = {line for file in WORKFLOWS for line in re.findall(r"uses:\s*(.+?)\s*$", file.read_text(), re.MULTILINE)}
    actions = ["/".join(pin.partition("@")[0].split("/")[:2]) for pin in pins]
    versions = {(action, pin.partition("@")[2]) for action, pin in zip(actions, pins, strict=True)}
    assert len(versions) == len(set(actions)), sorted(versions)


@pytest.mark.parametrize("file", WORKFLOWS, ids=name)
def test_nothing_is_permitted_but_what_each_job_asks_for(file):
    workflow = yaml.safe_load(file.read_text())
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        for what, how in job["permissions"].items():
            assert how == "read" or (file.name, what) in MAY_WRITE, (file.name, what, how)


@pytest.mark.parametrize("file", WORKFLOWS, ids=name)
def test_checkouts_leave_no_token_behind_and_jobs_end(file):
    for step in steps(file):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
    for job in yaml.safe_load(file.read_text())["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 90


@pytest.mark.parametrize("file", WORKFLOWS, ids=name)
def test_no_shell_line_holds_an_expression(file):
    # ${{ }} is pasted into the script before the shell reads it: a branch may be called `$(...)`
    for step in steps(file):
        assert "${{" not in step.get("run", "")


def test_only_a_tag_publishes():
    # YAML 1.1 reads the key `on` as true
    assert yaml.safe_load((GITHUB / "workflows" / "release.yaml").read_text())[True] == {"push": {"tags": ["v*"]}}


@pytest.mark.parametrize("form", ["bug.yml", "integration.yml"])
def test_forms_for_reports_ask_for_the_output_of_doctor(form):
    fields = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / form).read_text())["body"]
    asked = [field for field in fields if field.get("id") == "doctor"]
    assert len(asked) == 1 and "scmamba-scvi doctor" in asked[0]["attributes"]["label"]
    assert asked[0]["validations"]["required"] is True
    ids = [field["id"] for field in fields if "id" in field]
    assert len(ids) == len(set(ids))


def test_the_scores_that_the_form_asks_for_can_be_computed(mdata, quick):
    import scmamba_scvi

    fields = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / "integration.yml").read_text())["body"]
    (asked,) = (field["attributes"]["description"] for field in fields if field.get("id") == "scores")
    scmamba_scvi.SCMAMBA.setup_mudata(mdata)
    model = scmamba_scvi.SCMAMBA(mdata, encoder="linear")
    model.train(**quick)
    assert "FOSCTTM" in eval(asked.strip("`"), {"scmamba_scvi": scmamba_scvi, "mdata": mdata, "model": model}).index
