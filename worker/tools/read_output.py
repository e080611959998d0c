"""`read_output`: how a model reads on in a tool's output that was too long to be shown at once."""

from __future__ import annotations

from typing import Any

from providers.messages import ToolSpec
from worker.errors import ToolCallFailed
from worker.tools.interfaces import KeptOutputs, ToolContext, ToolResult

USUAL_CHARS = 20_000
MOST_CHARS = 50_000

READ_OUTPUT = ToolSpec(
    name="read_output",
    description=(
        "Read on in the output of an earlier tool call of this task that was cut because it is too long. Such an "
        "output ends with a note that names its id. Returns the characters from `offset` on."
    ),
    input_schema={
        "type": "object",
        "properties": {
            "call_id": {"type": "string", "description": "The id from the note, as in output:<id>."},
            "offset": {"type": "integer", "minimum": 0, "description": "The first character to read. Default 0."},
            "limit": {
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_CHARS,
                "description": f"How many characters to read. Default {USUAL_CHARS}.",
            },
        },
        "required": ["call_id"],
    },
    idempotent=True,
    timeout_s=30.0,
    kind="builtin",
)


class ReadOutput:
    """The tool. It reads outputs of its own task only."""

    spec = READ_OUTPUT
    after_timeout = "nothing was changed"

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """One page, with a line that says where it stands. Raises `ToolCallFailed`."""
        call_id = arguments["call_id"].strip().removeprefix("output:")
        offset, limit = int(arguments.get("offset", 0)), int(arguments.get("limit", USUAL_CHARS))  # 1.0 is an integer
        outputs = context.outputs
        text = None if outputs is None else await page_of(outputs, call_id, offset, limit, "read_output")
        if text is None:
            raise ToolCallFailed(f"read_output: no output {call_id!r} of this task is stored: see the note's id")
        return ToolResult(text=text)


async def page_of(outputs: KeptOutputs, call_id: str, offset: int, limit: int, tool: str) -> str | None:
    """A part of a kept output, and a line that says where it stands; None if no such output is kept.

    Raises `ToolCallFailed` if there is nothing at the offset.
    """
    page = await outputs.read(call_id, offset, limit)
    if page is None:
        return None
    end = page.offset + len(page.text)
    if not page.text:
        raise ToolCallFailed(f"{tool}: offset {offset} is beyond the {page.kept_chars} stored characters")
    note = f"characters {page.offset} to {end} of {page.chars}"
    if end < page.kept_chars:
        note += f"; go on with offset {end}"
    elif end < page.chars:
        note += "; the rest was not stored"
    return f"{page.text}\n[{note}]"
