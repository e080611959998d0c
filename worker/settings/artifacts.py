"""Where the files that tasks produce are written and kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct

from worker.errors import BadSetting
from worker.settings.masking import masked_url

ENDINGS: Mapping[str, str] = MappingProxyType({"text": ".txt", "json": ".json", "markdown": ".md", "yaml": ".yaml"})
"""kubeswarm's: of the file `output`. What is in it is the answer as it is."""


class ArtifactSettings(Struct, frozen=True, kw_only=True):
    """Of all tasks of a worker. Without a store, nothing is kept, and nothing is looked for."""

    store_url: str = ""
    """`file:///folder`, `s3://bucket/prefix?region=…&endpoint=…` or `gs://bucket/prefix`; empty: no store."""
    dir: str = "/tmp/swarm-artifacts"  # noqa: S108 - ark's default; what we make in it is ours alone (0700)
    """Where tasks write their files."""
    inputs: dict[str, str] = {}
    """Name -> URL in the store: files that each task is given."""
    saves_output: bool = False
    """Whether a task's answer is kept as a file, too."""
    output_format: str = "text"
    """By which the file is named."""
    tools: bool = False
    """Whether models get `save_artifact` and `read_artifact`."""
    max_file_bytes: int = 1_073_741_824
    max_files: int = 100
    """Of one task."""
    timeout_s: float = 60.0
    """Of one try to store or read a file, or a part of a large one."""

    @property
    def save_output(self) -> str:
        """As what a task's answer is saved, one of `ENDINGS`; empty: it is not."""
        return self.output_format if self.saves_output else ""

    def check(self) -> None:
        """Raise `BadSetting` for what cannot work."""
        if self.store_url:
            from worker.artifacts.opening import open_store  # most workers have no store

            open_store(self.store_url, timeout_s=self.timeout_s)
        if not Path(self.dir).is_absolute():
            raise BadSetting(f"artifacts.dir (AGENT_ARTIFACT_DIR) is {self.dir!r}: give a whole path")
        if not self.store_url and (self.inputs or self.tools or self.saves_output):
            which = "AGENT_INPUT_ARTIFACTS" if self.inputs else "SHOAL_ARTIFACT_TOOLS"
            which = which if self.inputs or self.tools else "AGENT_ARTIFACT_SAVE_OUTPUT"
            raise BadSetting(f"{which} is set, and there is no store for artifacts: set AGENT_ARTIFACT_STORE_URL")

    def __repr__(self) -> str:
        return f"ArtifactSettings(store_url={masked_url(self.store_url)!r}, dir={self.dir!r})"
