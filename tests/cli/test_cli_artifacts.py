"""Where files of tasks and runs show on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from queue_backends import Ack, Backend, TaskResult
from tests.artifacts.test_teams import FILE
from tests.cli.cli_harness import Shoal, WithBackend, pull_one


def test_a_run_keeps_its_files_where_the_team_says(
    shoal: Shoal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proves that `artifactStore` in the file is all that `shoal run` needs, and that it says where the files are."""
    monkeypatch.setenv("AGENT_ARTIFACT_DIR", str(tmp_path / "work"))
    kept = tmp_path / "kept"
    store = f"  artifactStore: {{type: local, local: {{path: {kept}}}}}\n  output:"
    (tmp_path / "team.yaml").write_text(FILE.replace("  output:", store))
    outcome = shoal("run", str(tmp_path / "team.yaml"))
    assert outcome.code == 0, outcome.err
    [file] = kept.glob("*/draft/report.md")
    assert f"Files:\ndraft.report.md: {file.as_uri()}" in outcome.out
    as_json = shoal("run", str(tmp_path / "team.yaml"), "--output", "json")
    [draft, review] = json.loads(as_json.out)["steps"]
    assert list(draft["artifacts"]) == ["report.md"]
    assert "artifacts" not in review


def test_a_tasks_files_are_shown(shoal: Shoal, with_backend: WithBackend) -> None:
    """Proves that `shoal tasks show` says where they are."""
    task_id = shoal("submit", "x").out.strip()

    async def finish(backend: Backend) -> None:
        result = TaskResult(task_id=task_id, output="done", artifacts={"a.md": "s3://bucket/tasks/1/a.md"})
        await backend.commit([Ack(delivery=await pull_one(backend), result=result)])

    with_backend(finish)
    shown = shoal("tasks", "show", task_id).out
    assert "file a.md" in shown
    assert "s3://bucket/tasks/1/a.md" in shown
