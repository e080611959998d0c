"""Files go from step to step of a team's run."""

from __future__ import annotations

import asyncio
from pathlib import Path

from msgspec.structs import replace

from tests.artifacts.test_runs import WITHIN_S, content
from worker.settings import Settings, load_settings
from worker.settings.artifacts import ArtifactSettings
from worker.teams.bundle import read_bundle
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
