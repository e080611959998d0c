"""Submitting over connections that break at any byte, either way: what was accepted is there, once and in order."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from queue_backends import Backend, BackendUnavailable, Priority, Task, open_backend
from tests.servers import Server

LIMIT_S = 60
CALLERS = 20
CUTS = 300
LONGEST_LIFE_BYTES = 9000
"""Some connections do not outlive their greeting, others carry several calls."""


class Shears:
    """Passes on what comes to a server; every connection breaks after some number of bytes."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self._target = port
        self._chance = chance
        self._left = 0
        self._jobs: set[asyncio.Task[None]] = set()
        self.cuts = 0
        self.is_sharp = False
        """Whether connections that begin now will break."""
        self.port = 0

    async def __aenter__(self) -> Shears:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        job = asyncio.current_task()
        assert job is not None
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        life = [self._chance.randrange(LONGEST_LIFE_BYTES)] if self.is_sharp else [1 << 60]
        ways = [_pass(reader, server_writer, life), _pass(server_reader, writer, life)]
        tasks = [asyncio.create_task(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self.cuts += life[0] <= 0
        except asyncio.CancelledError:
            return  # the test has ended; asyncio's streams would complain
        finally:
            for task in tasks:
                task.cancel()
            writer.transport.abort()
            server_writer.close()  # what it was sent, it gets


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, life: list[int]) -> None:
    """One way. `life`: so many bytes go yet, both ways together."""
    while data := await reader.read(65536):
        part = data[: life[0]]
        life[0] -= len(data)
        writer.write(part)
        await writer.drain()
        if life[0] <= 0:
            return


@pytest.fixture
async def admin(valkey_server: Server) -> AsyncIterator[Any]:
    """Somebody else at the same server, over a connection that holds."""
    async with redis.asyncio.Redis(port=valkey_server.port) as client:
        yield client


def _task(number: int) -> tuple[Task, float | None]:
    """Of every kind: in each lane, for later, and with a key under which it is known."""
    prompt = f"task {number}"
    if number % 11 == 0:
        return Task(prompt=prompt), time.time() + 3600
    if number % 13 == 0:
        return Task(prompt=prompt, priority=Priority.HIGH), None
    return Task(prompt=prompt, idempotency_key=f"key {number}" if number % 7 == 0 else ""), None


@pytest.mark.parametrize("seed", range(2))
async def test_what_was_accepted_is_there_once_wherever_the_connection_broke(
    valkey_server: Server, admin: Any, stream: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of connections break, in the middle of requests, of replies, and of greetings. Each id that a caller got
    is in the queue, once, with its task; of a task that was refused nothing is there; the rest say that they do not
    know. Tasks that were submitted in one turn stand in their order."""
    monkeypatch.setattr("queue_backends.redis.submitting.FIRST_DELAY_S", 0.001)
    accepted: dict[str, str] = {}
    refused: list[str] = []
    async with (
        asyncio.timeout(LIMIT_S),
        Shears(valkey_server.port, random.Random(seed)) as shears,
        await open_backend(f"redis://127.0.0.1:{shears.port}/0?stream={stream}") as backend,
    ):
        accepted[await backend.queue.submit(Task(prompt="task 0"))] = "task 0"  # the server has the script
        shears.is_sharp = True
        _leave_present_connections(backend)
        number = 1
        while shears.cuts < CUTS:
            tasks = [_task(number + position) for position in range(CALLERS)]
            number += CALLERS
            calls = [backend.queue.submit(task, run_at=run_at) for task, run_at in tasks]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            for (task, _), answer in zip(tasks, answers, strict=True):
                if isinstance(answer, str):
                    accepted[answer] = task.prompt
                else:
                    assert isinstance(answer, BackendUnavailable)
                    if "not known" not in str(answer):
                        refused.append(task.prompt)
        shears.is_sharp = False
        stats = await backend.queue.stats()
    found = [(entry, fields[b"prompt"].decode()) for entry, fields in await admin.xrange(stream)]
    high = [fields[b"prompt"].decode() for _, fields in await admin.xrange(f"{stream}:high")]
    later = [entry.decode() for entry in await admin.zrange(f"{stream}:delayed", 0, -1)]
    assert len(accepted) > number / 2
    prompts = [prompt for _, prompt in found]
    counts = Counter([*prompts, *high])
    assert set(counts.values()) == {1}
    assert not counts.keys() & set(refused)
    in_place = {entry.decode(): prompt for entry, prompt in found}
    for task_id, prompt in accepted.items():
        assert in_place.get(task_id) == prompt or prompt in high or task_id in later
    assert len(later) == len(set(later)) == stats.delayed
    assert prompts == sorted(prompts, key=lambda prompt: int(prompt.split()[1]))


def _leave_present_connections(backend: Backend) -> None:
    """The next ones will break by themselves."""
    backend.queue._client.distrust()  # type: ignore[attr-defined]  # of this engine alone
