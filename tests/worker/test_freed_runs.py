"""What an ended run leaves in its worker's memory."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from worker.client import Fleet
from worker.task_run import TaskRun
from worker.worker import Worker

FleetOf = Callable[..., AbstractAsyncContextManager[tuple[Fleet, Worker]]]
LIMIT_S = 30


@pytest.fixture
def no_collector() -> Iterator[None]:
    """The garbage collector does not run."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    "turn",
    [
        pytest.param({"text": "hello"}, id="answered"),
        pytest.param({"text": "x", "fault": {"kind": "invalid_request", "attempts": 9}}, id="failed"),
    ],
)
async def test_an_ended_run_is_freed_at_once(fleet_of: FleetOf, turn: dict[str, Any]) -> None:
    """Runs and what they refer to, the prompt included, form no cycle once they have ended: nothing of them waits for
    the garbage collector."""
    before = runs_in_memory()
    async with fleet_of(script={"scenarios": [{"turns": [turn]}]}) as (fleet, _), asyncio.timeout(LIMIT_S):
        for handle in [await fleet.submit("hi") for _ in range(5)]:
            await handle.result()
    assert runs_in_memory() == before


def runs_in_memory() -> int:
    """Those that run, and those that nobody has freed."""
    return sum(type(thing) is TaskRun for thing in gc.get_objects())
