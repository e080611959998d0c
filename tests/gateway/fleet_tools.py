"""A tool of the fleet's own, for agents that the vendors' clients talk to."""

from __future__ import annotations

from worker.tools import tool


@tool(idempotent=True)
def look_up(key: str) -> str:
    """What lies on the shelf under a key."""
    return f"shelf-{key}"
