"""A team file may name a script beside it: what the scripted provider answers travels in the plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.teams.bundle import read_bundle
from worker.teams.errors import BadTeamFile

TEAM = """
apiVersion: kubeswarm.io/v1alpha1
kind: SwarmTeam
metadata: {name: t}
spec:
  roles: [{name: a, model: mock, options: {script: %s, cache: false}}]
  pipeline: [{role: a, inputs: {task: go}}]
"""


def team_file(folder: Path, script: str) -> Path:
    """A team whose role answers from that script."""
    file = folder / "team.yaml"
    file.write_text(TEAM % script)
    return file


def test_a_scripts_content_is_in_the_plan(tmp_path: Path) -> None:
    """Proves that the file is read, from its own folder, and that other options stay."""
    (tmp_path / "answers.yaml").write_text("responses: {go: gone}")
    [role] = read_bundle(team_file(tmp_path, "answers.yaml")).plan().team.roles
    assert role.config.options == {"script": {"responses": {"go": "gone"}}, "cache": False}


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("missing.yaml", "cannot be read"),
        ("../outside.yaml", "outside of the file's folder"),
        ("broken.yaml", "cannot be read"),
        ("large.yaml", "larger than"),
    ],
)
def test_a_script_that_cannot_be_used_is_an_error_of_the_file(tmp_path: Path, script: str, problem: str) -> None:
    """Proves that the error names the script, and stands at its place."""
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "large.yaml").write_text("x" * 300_000)
    with pytest.raises(BadTeamFile) as raised:
        read_bundle(team_file(tmp_path, script))
    assert problem in str(raised.value)
    assert script in str(raised.value)
    assert ":6:" in str(raised.value)
