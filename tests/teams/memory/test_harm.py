"""What goes wrong with a memory costs a warning, and tells no secret."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from queue_backends import BackendOptions, Task, open_backend
from tests.teams.memory.noting import Noting, marks, role, team
from tests.teams.roles.team_fleet import fleet
from worker.teams.memory.keys import shared_key
from worker.teams.memory.memories import Memories
from worker.teams.plan import MemorySpec, Role
from worker.teams.run_state import Phase

PASSWORD = "hunter2"
TASK = Task(id="t", prompt="p")


@pytest.mark.parametrize(
    ("spec", "url", "reason"),
    [
        (MemorySpec(name="m", backend="redis", url_env="TEAM_REDIS_URL"), "", "TEAM_REDIS_URL, which is not set"),
        (
            MemorySpec(name="m", backend="redis", url_env="TEAM_REDIS_URL"),
            f"redis://:{PASSWORD}@127.0.0.1:1/0",
            "127.0.0.1",
        ),
        (MemorySpec(name="m", backend="redis", url_env="TEAM_REDIS_URL"), f"what://:{PASSWORD}@x", "what"),
        (MemorySpec(name="m", backend="vector-store", provider="nowhere"), "", "no kind of vector store"),
        (
            MemorySpec(name="m", backend="vector-store", provider="pgvector", url_env="TEAM_REDIS_URL"),
            f"postgresql://u:{PASSWORD}@127.0.0.1:1/x",
            "127.0.0.1",
        ),
        (MemorySpec(name="m", backend="vector-store", embed_model="m", embed_provider="nobody"), "", "nobody"),
    ],
)
async def test_a_memory_that_cannot_be_reached(
    model: Noting, monkeypatch: pytest.MonkeyPatch, spec: MemorySpec, url: str, reason: str
) -> None:
    """The run succeeds without it; the log says why, and where, without the password."""
    if url:
        monkeypatch.setenv("TEAM_REDIS_URL", url)
    with capture_logs() as logs:
        async with fleet() as there:
            run = await there.run(team(role("a", spec)))
    assert run.phase is Phase.SUCCEEDED, run.message
    told = [each for each in logs if each["event"] in ("nothing is remembered", "this will not be remembered")]
    assert [each["log_level"] for each in told] == ["warning", "warning"]
    assert all(reason in each["reason"] for each in told), told
    assert PASSWORD not in str(logs)


async def test_a_memory_that_is_none(model: Noting) -> None:
    """What somebody else has written there is left alone."""
    key = shared_key("", "m", "a")
    with capture_logs() as logs:
        async with fleet() as there:
            await there.backend.state.set(key, b"not JSON")
            run = await there.run(team(role("a", MemorySpec(name="m", backend="redis"))))
            assert await there.backend.state.get(key) == b"not JSON"
    assert run.phase is Phase.SUCCEEDED
    assert "is no memory" in next(each["reason"] for each in logs if each["event"] == "nothing is remembered")


class Silent:
    """A store that never answers."""

    def __init__(self) -> None:
        self.asked = 0

    async def get(self, key: str) -> bytes | None:
        self.asked += 1
        return await asyncio.Event().wait()  # type: ignore[return-value]  # it never returns


async def test_a_memory_that_never_answers() -> None:
    """It is waited for no longer than the limit, and then left alone for a while."""
    state: Any = Silent()
    mine = Role(name="a", memory=MemorySpec(name="m", backend="redis"))
    with capture_logs() as logs:
        async with Memories(state, options=BackendOptions(), limit_s=0.01) as memories:
            for _ in range(3):
                assert not await memories.recall(TASK, marks(), mine)
                await memories.keep(TASK, marks(), mine, "answer")
            assert state.asked == 1
            in_context = Role(name="a", memory=MemorySpec(name="m"))
            assert not await memories.recall(TASK, marks(), in_context)
            assert state.asked == 2  # another memory is asked all the same
    assert "no answer within 0.01 s" in logs[0]["reason"]


async def test_a_cancellation_goes_through() -> None:
    """A run that is stopped while it waits for its memory ends."""
    state: Any = Silent()
    mine = Role(name="a", memory=MemorySpec(name="m"))
    async with Memories(state, options=BackendOptions()) as memories:
        waiting = asyncio.create_task(memories.recall(TASK, marks(), mine))
        while not state.asked:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_without_embeddings_there_are_no_vector_memories() -> None:
    """It is said, and nothing else happens."""
    mine = Role(name="a", memory=MemorySpec(backend="vector-store"))
    with capture_logs() as logs:
        async with (
            await open_backend("memory://") as backend,
            Memories(backend.state, options=BackendOptions()) as memories,
        ):
            assert not await memories.recall(TASK, marks(), mine)
    assert "no vector memories" in logs[0]["reason"]
