"""A task for an agent that nobody has declared."""

from __future__ import annotations

from pathlib import Path

from queue_backends import Backend, ChunkType
from worker.assembly import open_worker
from worker.client import Fleet
from worker.settings import load_settings

SETTINGS = """
agent: {model: scripted, provider: scripted}
agents:
  writer: {model: scripted, provider: scripted}
  critic: {model: scripted, provider: scripted}
max_retries: 5
"""


async def test_an_unknown_agent_is_dead_at_once(backend: Backend, tmp_path: Path) -> None:
    """It is not tried again: letter, result and final chunk name the agents that there are; the loop goes on."""
    file = tmp_path / "shoal.yaml"
    file.write_text(SETTINGS)
    async with open_worker(load_settings({}, file=file), backend):
        fleet = Fleet(backend)
        unknown = await fleet.submit("hello", agent="nobody")
        result = await unknown.result(timeout_s=10)
        chunks = [chunk async for chunk in unknown]
        assert (await (await fleet.submit("hello", agent="writer")).result(timeout_s=10)).ok
    (letter,) = await backend.queue.dead_letters()
    assert (letter.task_id, letter.attempt) == (unknown.id, 1)
    for message in (letter.error, result.error, chunks[-1].content):
        assert all(name in message for name in ("'nobody'", "writer", "critic"))
    assert [chunk.type for chunk in chunks if chunk.is_final] == [ChunkType.ERROR]
