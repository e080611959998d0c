"""`sandbox_recall`: how a model reads a result of which it was given a digest. The name is kubeswarm's."""

from __future__ import annotations

from typing import Any

from providers.messages import ToolSpec
from worker.errors import ToolCallFailed
from worker.tools.interfaces import ToolContext, ToolResult
from worker.tools.read_output import MOST_CHARS, USUAL_CHARS, page_of

SANDBOX_RECALL = ToolSpec(
    name="sandbox_recall",
    description=(
        "Read a result of an earlier tool call of which only a digest was shown: one that begins with "
        "[sandboxed: result-N]. Returns its characters from `offset` on."
    ),
    input_schema={
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "The id in the digest's first line, such as result-1."},
            "offset": {"type": "integer", "minimum": 0, "description": "The first character to read. Default 0."},
            "length": {
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_CHARS,
                "description": f"How many characters to read. Default {USUAL_CHARS}.",
            },
        },
        "required": ["id"],
    },
    idempotent=True,
    timeout_s=30.0,
    kind="builtin",
)


class SandboxRecall:
    """The tool. It reads results of its own task only."""

    spec = SANDBOX_RECALL
    after_timeout = "nothing was changed"

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """A part of it, with a line that says where it stands. Raises `ToolCallFailed`."""
        sandbox = None if context.policy is None else context.policy.sandbox
        call_id = None if sandbox is None else sandbox.call_id(arguments["id"])
        if call_id is None or context.outputs is None:
            raise ToolCallFailed(f"sandbox_recall: there is no {arguments['id'][:100]!r} in this task: see the digests")
        offset, length = int(arguments.get("offset", 0)), int(arguments.get("length", USUAL_CHARS))
        text = await page_of(context.outputs, call_id, offset, length, "sandbox_recall")
        if text is None:
            raise ToolCallFailed(f"sandbox_recall: {arguments['id'][:100]!r} is not kept any more")
        return ToolResult(text=text)
