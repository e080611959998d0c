"""Files that tasks produce. Names without `SHOAL_` are ark's."""

from __future__ import annotations

from worker.settings.artifacts import ENDINGS
from worker.settings.setting import Setting, seconds, text, whole

ARTIFACTS: tuple[Setting, ...] = (
    Setting(
        key="artifacts.store_url",
        type=str,
        variable="AGENT_ARTIFACT_STORE_URL",
        secret=True,
        meaning="Where files that tasks make are kept: `file:///folder`, `s3://bucket/prefix?region=…&endpoint=…` or "
        "`gs://bucket/prefix`; empty: nowhere",
    ),
    text("artifacts.dir", "AGENT_ARTIFACT_DIR", "Folder in which tasks write them"),
    Setting(
        key="artifacts.inputs",
        type=dict[str, str],
        variable="AGENT_INPUT_ARTIFACTS",
        meaning='Name -> URL in the store: files that each task is given, such as `{"terms.pdf": "s3://…"}`',
    ),
    Setting(
        key="artifacts.saves_output",
        type=bool,
        variable="AGENT_ARTIFACT_SAVE_OUTPUT",
        meaning="Each task's answer is kept as the file `output.…`, too",
    ),
    Setting(
        key="artifacts.output_format",
        type=str,
        choices=tuple(ENDINGS),
        variable="AGENT_ARTIFACT_SAVE_FORMAT",
        meaning="How that file is named: `output.txt`, `.json`, `.md` or `.yaml`",
    ),
    Setting(
        key="artifacts.tools",
        type=bool,
        variable="SHOAL_ARTIFACT_TOOLS",
        meaning="Models get the tools `save_artifact` and `read_artifact`",
    ),
    whole(
        "artifacts.max_file_bytes",
        "SHOAL_ARTIFACT_MAX_FILE_BYTES",
        "Largest file",
        1,
        1_099_511_627_776,
    ),
    whole("artifacts.max_files", "SHOAL_ARTIFACT_MAX_FILES", "Files that one task may make", 1, 10_000),
    seconds(
        "artifacts.timeout_s",
        "SHOAL_ARTIFACT_TIMEOUT_SECONDS",
        "One try to store or read a file, or a part of a large one, may take so long",
        1,
        3600,
    ),
)
