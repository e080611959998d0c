"""Files go from step to step of a team's run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.artifacts.object_server import KEY, SECRET, object_server
from tests.artifacts.test_runs import WITHIN_S, content
from worker.settings import Settings, load_settings
from worker.settings.artifacts import ArtifactSettings
from worker.teams.bundle import read_bundle
from worker.teams.errors import BadTeamFile
from worker.teams.local import local_fleet
from worker.teams.run_state import Phase, RunState

FILE = """
apiVersion: kubeswarm.io/v1alpha1
kind: SwarmTeam
metadata: {name: papers}
spec:
  input: {other: "file:///etc/hostname"}
  roles:
    - name: writer
      model: mock
      prompt: {inline: Write.}
      options:
        script:
          scenarios:
            - match: write
              turns:
                - tool_calls: [{name: save_artifact, arguments: {name: report.md, content: the whole report}}]
                - text: written
            - match: read
              turns:
                - tool_calls:
                    - {name: read_artifact, arguments: {name: paper}}
                    - {name: read_artifact, arguments: {name: theirs}}
                - text: "{results}"
  pipeline:
    - name: draft
      role: writer
      inputs: {task: write}
      outputArtifacts: [report.md]
    - name: review
      role: writer
      dependsOn: [draft]
      inputs: {task: read}
      inputArtifacts: {paper: draft.report.md, theirs: "{{ .input.other }}"}
  output: 'at {{ index .steps.draft.artifacts "report.md" }}: {{ .steps.review.output }}'
"""


async def run_of(file: Path, settings: Settings, given: dict[str, str]) -> RunState:
    """A run of the file's team, to its end."""
    bundle = read_bundle(file)
    async with asyncio.timeout(WITHIN_S), local_fleet(settings) as fleet:
        run_id = await fleet.runs.start(bundle.plan(), given, is_local=True)
        return await fleet.driver.drive(run_id)


async def test_a_step_reads_what_another_has_written(tmp_path: Path) -> None:
    """Proves that a step's files are in templates and at hand for the next step's tools, under ark's place; and that
    a file of the store which no step of the run has made is not read, whoever names it."""
    (tmp_path / "team.yaml").write_text(FILE)
    settings = load_settings({"TASK_QUEUE_URL": "memory://", "AGENT_GRACE_SECONDS": "0"})
    artifacts = ArtifactSettings(store_url=tmp_path.as_uri(), dir=str(tmp_path / "work"), tools=True)
    (tmp_path / "theirs.txt").write_text("of another run")
    given = {"other": (tmp_path / "theirs.txt").as_uri()}
    state = await run_of(tmp_path / "team.yaml", replace(settings, artifacts=artifacts), given)
    assert state.phase is Phase.SUCCEEDED, state.message
    url = state.step("draft").artifacts["report.md"]
    assert url == (tmp_path / state.id / "draft" / "report.md").as_uri()
    assert content(url) == "the whole report"
    assert state.output.startswith(f"at {url}: ")
    assert "the whole report" in state.output
    assert "no file 'theirs' was given; there are: paper" in state.output


async def test_a_team_has_a_store_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that the files of a team's steps go where its file says, whatever store the worker has, and come back from
    there; and that the answers of a role are kept if its agent says so."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    async with object_server() as server:
        store = f"artifactStore: {{type: s3, s3: {{bucket: b, prefix: teams, endpoint: '{server.url}'}}}}"
        saving = "runtime: {artifacts: {saveOutput: true, format: markdown}}"
        text = FILE.replace("  pipeline:", f"  {store}\n  pipeline:")
        text = text.replace("      model: mock", f"      {saving}\n      model: mock")
        (tmp_path / "team.yaml").write_text(text)
        settings = load_settings({"TASK_QUEUE_URL": "memory://", "AGENT_GRACE_SECONDS": "0"})
        artifacts = ArtifactSettings(store_url=tmp_path.as_uri(), dir=str(tmp_path / "work"), tools=True)
        state = await run_of(tmp_path / "team.yaml", replace(settings, artifacts=artifacts), {"other": "none"})
        assert state.phase is Phase.SUCCEEDED, state.message
        place = f"b/teams/{state.id}"
        assert server.objects[f"{place}/draft/report.md"][0] == b"the whole report"
        assert server.objects[f"{place}/draft/output.md"][0] == b"written"
        assert "the whole report" in state.output
        assert state.step("draft").artifacts["report.md"] == f"s3://{place}/draft/report.md"
        assert not (tmp_path / state.id).exists()


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("{type: s3}", "s3 config is required when type is s3"),
        ("{type: s3, gcs: {bucket: b}, s3: {bucket: b}}", "gcs config can only be set when type is gcs"),
        ("{type: gcs, gcs: {prefix: p}}", "bucket"),
    ],
)
def test_a_store_that_cannot_be(tmp_path: Path, store: str, said: str) -> None:
    """Proves that kubeswarm's rules for stores are ours, and that they are told when the file is read."""
    (tmp_path / "team.yaml").write_text(FILE.replace("  pipeline:", f"  artifactStore: {store}\n  pipeline:"))
    with pytest.raises(BadTeamFile, match=said):
        read_bundle(tmp_path / "team.yaml")
