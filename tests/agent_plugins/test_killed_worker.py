"""A plugin in a real worker process that is killed in the middle of a message."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import psutil

from queue_backends import BackendOptions, CallOutcome, Chunk, Task, open_backend
from tests.agent_plugins.plugin_folders import write_plugin
from tests.agent_plugins.test_replay import seen
from tests.worker.fleet_programs import fleet_program
from worker.agents.model import Agent
from worker.client import Fleet
from worker.definitions import Definitions
from worker.usage import UsageReport

LIMIT_S = 60

TOOLS = """
from pathlib import Path

from worker import tool

@tool
async def note(text: str) -> str:
    '''Write something down.'''
    with open({diary!r}, "a") as diary:
        diary.write(text + "\\n")
    return "noted"
"""


async def test_a_killed_worker_repeats_no_paid_call_and_no_tool(tmp_path: Path, queue_url: str) -> None:
    """Given a plugin that has been through a model call, a tool and half of what it says next, when its worker process
    is killed with SIGKILL, then another worker goes on: the model is not asked again, the tool not called again, the
    half that was shown is superseded, and what was shown before is not shown twice."""
    diary, mark = tmp_path / "diary", tmp_path / "mark"
    (tmp_path / "tools.py").write_text(TOOLS.format(diary=str(diary)))
    write_plugin(
        tmp_path / "plugins",
        f"""
        async def handle_message(self, request, stream):
            await stream.thinking("let me see")
            answer = await self.services.call_llm("first", stream_to=stream)
            await self.services.execute_tool("note", {{"text": answer.text}}, stream_to=stream)
            await stream.content("; half")
            mark = Path({str(mark)!r})
            if not mark.exists():
                mark.touch()
                await asyncio.Event().wait()
            await stream.content(" and half; ")
            await self.services.call_llm("second", stream_to=stream)
        """,
    )
    script = {"responses": {"first": "the first", "second": "the second"}}
    settings = {
        "agent": {"model": "scripted", "provider": "scripted", "options": {"script": script}},
        "agent_plugins_dir": str(tmp_path / "plugins"),
        "python_tools": [str(tmp_path / "tools.py")],
    }
    async with await open_backend(queue_url, BackendOptions(lease_s=2)) as backend:
        async with Definitions(backend.state) as declared:
            await declared.agents.create(Agent(slug="bot", plugin="test-agent"))
        handle = await Fleet(backend).submit(Task(prompt="go", agent="bot"))
        chunks: list[Chunk] = []
        with fleet_program(tmp_path, queue_url, settings) as first:
            async with asyncio.timeout(LIMIT_S):
                async for chunk in handle:
                    chunks.append(chunk)
                    if chunk.content == "; half":
                        break
            for child in psutil.Process(first.process.pid).children(recursive=True):
                child.send_signal(signal.SIGKILL)
            first.process.send_signal(signal.SIGKILL)
        (second_folder := tmp_path / "second").mkdir()
        with fleet_program(second_folder, queue_url, settings):
            async with asyncio.timeout(LIMIT_S):
                chunks += [chunk async for chunk in handle.chunks(after_seq=chunks[-1].seq)]
                result = await handle.result(LIMIT_S)
        records = await UsageReport(backend.state).recent()
    assert result.output == "the first; half and half; the second"
    assert seen(chunks) == [
        ("THINKING", "let me see"),
        ("CONTENT", "the first"),
        ("TOOL_CALL", "note"),
        ("TOOL_RESULT", "noted"),
        ("CONTENT", "; half and half; the second"),
    ]
    assert diary.read_text() == "the first\n"
    assert [record.outcome for record in records] == [CallOutcome.COMPLETED] * 2
