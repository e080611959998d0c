"""What goes wrong with the files of tasks."""

from __future__ import annotations

from worker.errors import WorkerError


class ArtifactsFailed(WorkerError):
    """A file could not be stored, or not be read: the attempt has failed. The message says which and why, and shows no
    secret."""


class StoreAway(ArtifactsFailed):
    """The store could not be reached, or was busy, as often as it was asked."""
