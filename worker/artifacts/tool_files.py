"""Files that a tool call has written are stored before the call counts as made."""

from __future__ import annotations

from msgspec.structs import replace

from providers import ToolOutcome
from worker.artifacts.errors import ArtifactsFailed
from worker.artifacts.task_artifacts import TaskArtifacts


async def with_files_kept(artifacts: TaskArtifacts, outcome: ToolOutcome) -> ToolOutcome:
    """The outcome of a call, once its files are stored; if they could not be, it says so, and the model may react."""
    try:
        await artifacts.keep_new()
    except ArtifactsFailed as error:
        note = f"the files that it has written could not be stored: {error}"
        return replace(outcome, content=f"{outcome.content}\n[{note}]".lstrip("\n"), is_error=True)
    return outcome
