"""`shoal tasks show`: a run as its journal tells it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from queue_backends import Backend
from tests.cli.cli_harness import Shoal, WithBackend
from worker.assembly import open_worker
from worker.client import Fleet
from worker.settings import load_settings

LIMIT_S = 20

TOOLS = '''
from worker import tool

@tool
async def add(a: int, b: int) -> int:
    """Sum."""
    return a + b
'''


def answered(tmp_path: Path, **settings: Any) -> Any:
    """Runs a task of two turns with a tool between them, and returns its id."""
    tools = tmp_path / "tools.py"
    tools.write_text(TOOLS)
    turns = [
        {"tool_calls": [{"name": "add", "arguments": {"a": 2, "b": 3}}], "usage": {"input_tokens": 7}},
        {"text": "five", "fault": {"kind": "overloaded", "message": "busy", "attempts": 1}},
    ]
    overrides = {
        "agent.model": "scripted",
        "agent.options": {"script": {"scenarios": [{"turns": turns}]}},
        "python_tools": (str(tools),),
        "retry_base_s": 0.0,
        **settings,
    }

    async def run(backend: Backend) -> str:
        async with asyncio.timeout(LIMIT_S), open_worker(load_settings({}, file=None, overrides=overrides), backend):
            handle = await Fleet(backend).submit("2 + 3?")
            await handle.result()
            return handle.id

    return run


def test_a_run_is_shown_step_by_step(shoal: Shoal, with_backend: WithBackend, tmp_path: Path) -> None:
    """Turns, tools, failed attempts, tokens and the worker, in the order in which they happened."""
    task_id = with_backend(answered(tmp_path))
    lines = shoal("tasks", "show", task_id).out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("AT "))
    steps = [line.split()[1:3] for line in lines[start + 1 :]]
    assert steps == [["0", "model"], ["0", "tool"], ["1", "model"], ["attempt", "failed"], ["taken", "over"],
                     ["1", "model"], ["answered"]]  # fmt: skip
    assert "add: 5" in lines[start + 2]
    assert "failed: busy" in lines[start + 3]
    assert "busy (again in 0.0 s)" in lines[start + 4]


def test_the_same_as_json(shoal: Shoal, with_backend: WithBackend, tmp_path: Path) -> None:
    """One document: the task's status, and its journal entry by entry."""
    task_id = with_backend(answered(tmp_path))
    shown = json.loads(shoal("tasks", "show", task_id, "--json").out)
    assert shown["state"] == "succeeded"
    assert [entry["kind"] for entry in shown["journal"]] == [
        "model_call", "tool_started", "tool_finished", "model_call", "attempt_ended", "taken_over", "model_call",
    ]  # fmt: skip
    assert shown["journal"][2]["outcome"]["content"] == "5"
    moments = [entry["at"] for entry in shown["journal"]]
    assert moments == sorted(moments)


def test_without_a_journal_the_facts_are_shown_alone(shoal: Shoal, with_backend: WithBackend, tmp_path: Path) -> None:
    """Nothing is made up."""
    task_id = with_backend(answered(tmp_path, journal=False))
    outcome = shoal("tasks", "show", task_id)
    assert outcome.code == 0
    assert "AT " not in outcome.out
