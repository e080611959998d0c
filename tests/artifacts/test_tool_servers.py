"""Files that MCP servers write, for the task that has called them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.artifacts.test_runs import call, content, result_of, settings_for
from worker.artifacts.room import PLACE
from worker.settings import Settings
from worker.tools.config import McpServer

OWN, OLD = (
    McpServer(name=name, command=sys.executable, args=(str(Path(__file__).with_name(program)),))
    for name, program in (("own", "folder_server.py"), ("old", "roots_server.py"))
)


def with_server(folder: Path, calls: list[dict[str, Any]], **more: Any) -> Settings:
    """A worker with a store and an MCP server, which it starts."""
    return settings_for(folder, [calls], **{"mcp_servers": (OWN,)} | more)


async def test_a_server_that_knows_nothing_of_tasks_writes_for_the_right_one(tmp_path: Path) -> None:
    """Proves that the variable in an argument is the task's own folder, that its file is stored, and that the model
    never sees where the folder is: another attempt has another one."""
    for written in ("$AGENT_ARTIFACT_DIR", "${AGENT_ARTIFACT_DIR}"):
        settings = with_server(tmp_path, [call("own__write_file", path=f"{written}/a.txt", text="hello")])
        result = await result_of(settings)
        assert result.ok, result.error
        assert [content(url) for url in result.artifacts.values()] == ["hello"]
        assert "written to $AGENT_ARTIFACT_DIR/a.txt" in result.output


async def test_what_a_server_is_told(tmp_path: Path) -> None:
    """Proves that each call names the task's own folder; the variable is set only where a worker has one task at a
    time, because then all that appears there is that task's."""
    for more, variable in (({}, None), ({"concurrency": 1}, str(tmp_path / "work"))):
        settings = with_server(tmp_path, [call("own__where_files_go")], **more)
        assert json.loads((await result_of(settings)).output) == [variable, "$AGENT_ARTIFACT_DIR"]


async def test_the_folder_of_all_tasks_is_a_root(tmp_path: Path) -> None:
    """Proves that a server which writes only within the client's roots may write there."""
    for more, roots in (({}, 1), ({"concurrency": 1}, 2)):
        settings = with_server(tmp_path, [call("old__roots")], **{"mcp_servers": (OLD,)} | more)
        found = json.loads((await result_of(settings)).output)
        assert found[0].startswith((tmp_path / "work" / PLACE).as_uri())
        assert found[1:] == [(tmp_path / "work").as_uri()][: roots - 1]


async def test_without_a_store_a_server_is_told_nothing(tmp_path: Path) -> None:
    """Proves that arguments and answers are left as they are."""
    calls = [call("own__where_files_go"), call("own__echo", text="$AGENT_ARTIFACT_DIR")]
    output = (await result_of(with_server(tmp_path, calls, **{"artifacts.store_url": ""}))).output
    assert output == "[null, null]\n$AGENT_ARTIFACT_DIR"
