"""Plugins written into a folder for one test."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

ALL_SCOPES = ("llms.proxy", "tools.call", "datasources.query", "kv.readwrite")
HEAD = """\
import asyncio
from pathlib import Path

from worker.agent_plugins import AgentPlugin


class TestAgent(AgentPlugin):
"""


def manifest(plugin_id: str = "test-agent", **fields: Any) -> dict[str, Any]:
    """A manifest that is accepted, with other fields on request."""
    return {
        "id": plugin_id,
        "version": "1.0.0",
        "name": "Test Agent",
        "capabilities": {"hooks": ["agent"], "primary_hook": "agent"},
        "permissions": {"services": list(ALL_SCOPES)},
        **fields,
    }


def write_plugin(
    root: Path,
    body: str,
    *,
    plugin_id: str = "test-agent",
    schema: dict[str, Any] | None = None,
    **fields: Any,
) -> Path:
    """A plugin whose class has the given methods; returns its folder."""
    folder = root / plugin_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plugin.manifest.json").write_text(json.dumps(manifest(plugin_id, **fields)))
    (folder / "plugin.py").write_text(HEAD + textwrap.indent(textwrap.dedent(body), "    "))
    if schema is not None:
        (folder / "config.schema.json").write_text(json.dumps(schema))
    return folder
