"""`save_artifact` and `read_artifact`: how a model makes files itself, and reads those that its task was given."""

from __future__ import annotations

import asyncio
from typing import Any

from providers.messages import ToolSpec
from worker.artifacts.errors import ArtifactsFailed
from worker.artifacts.files import read_file
from worker.errors import ToolCallFailed
from worker.tools.interfaces import ToolContext, ToolResult

_MOST_CHARS = 1_000_000
"""Of a file that a model writes, or reads."""
_NONE = "there is no artifact store"


class SaveArtifact:
    """Writes a text file. Saving under the same name again replaces it."""

    spec = ToolSpec(
        name="save_artifact",
        description=(
            "Save a text as a file that belongs to the result of this task. Saving under the same name again replaces "
            "the file. Returns where it is kept."
        ),
        input_schema={
            "type": "object",
            "properties": {
                "name": {"type": "string", "description": "The file's name with its ending, such as report.md."},
                "content": {"type": "string", "maxLength": _MOST_CHARS, "description": "The whole text of the file."},
            },
            "required": ["name", "content"],
        },
        idempotent=True,
        timeout_s=120.0,
        kind="builtin",
    )
    after_timeout = "the file may have been saved all the same"

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """Save it. Raises `ToolCallFailed`."""
        if context.artifacts is None:
            raise ToolCallFailed(f"save_artifact: {_NONE}")
        try:
            url = await context.artifacts.save(arguments["name"], arguments["content"])
        except ArtifactsFailed as error:
            raise ToolCallFailed(f"save_artifact: {error}") from error
        return ToolResult(text=f"saved as {url}")


class ReadArtifact:
    """Reads a text file that the task was given."""

    spec = ToolSpec(
        name="read_artifact",
        description="Read one of the files that this task was given, as text.",
        input_schema={
            "type": "object",
            "properties": {"name": {"type": "string", "description": "The name under which the file was given."}},
            "required": ["name"],
        },
        idempotent=True,
        timeout_s=30.0,
        max_output_chars=_MOST_CHARS,
        kind="builtin",
    )
    after_timeout = "nothing was changed"

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """The content. Raises `ToolCallFailed`."""
        if context.artifacts is None:
            raise ToolCallFailed(f"read_artifact: {_NONE}")
        given = await asyncio.to_thread(lambda artifacts: artifacts.inputs, context.artifacts)
        path = given.get(arguments["name"])
        if path is None:
            names = ", ".join(sorted(given)) or "none"
            raise ToolCallFailed(f"read_artifact: no file {arguments['name']!r} was given; there are: {names}")
        try:
            content = await asyncio.to_thread(read_file, path, 4 * _MOST_CHARS)
        except (ArtifactsFailed, OSError) as error:
            raise ToolCallFailed(f"read_artifact: {error}") from error
        return ToolResult(text=content.decode("utf-8", "replace"))
