"""An MCP server of an older revision, in plain JSON lines: its one tool tells which roots the client has."""

from __future__ import annotations

import json
import sys
from typing import Any

TOOL = {"name": "roots", "description": "Tell the client's roots.", "inputSchema": {"type": "object"}}


def say(**message: Any) -> None:
    """One message to the client."""
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def heard() -> dict[str, Any]:
    """The next one from it."""
    line = sys.stdin.readline()
    if not line:
        sys.exit()
    message: dict[str, Any] = json.loads(line)
    return message


def answer(message: dict[str, Any]) -> None:
    """To what the client asks."""
    match message.get("method"):
        case "initialize":
            revision = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
            say(id=message["id"], result={**revision, "serverInfo": {"name": "old", "version": "1"}})
        case "tools/list":
            say(id=message["id"], result={"tools": [TOOL]})
        case "tools/call":
            say(id="roots", method="roots/list")
            while (found := heard()).get("id") != "roots":
                answer(found)
            roots = [root["uri"] for root in found["result"]["roots"]]
            say(id=message["id"], result={"content": [{"type": "text", "text": json.dumps(roots)}]})
        case _ if "id" in message:
            say(id=message["id"], error={"code": -32601, "message": "Method not found"})


while True:
    answer(heard())
