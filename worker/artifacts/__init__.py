"""Files that tasks produce: where they are written, where they are kept, and how they come to whoever wants them."""

from __future__ import annotations

from worker.artifacts.errors import ArtifactsFailed
from worker.artifacts.store import ArtifactStore
from worker.artifacts.task_artifacts import TaskArtifacts

__all__ = ["ArtifactStore", "ArtifactsFailed", "TaskArtifacts"]
