"""What fails in the worker's own bookkeeping, which no run is to blame for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from queue_backends import Outcome
from worker.client import Fleet
from worker.committer import Committer
from worker.worker import Worker

FleetOf = Callable[..., AbstractAsyncContextManager[tuple[Fleet, Worker]]]
LIMIT_S = 30


async def test_a_defect_ends_the_worker_and_not_in_silence(fleet_of: FleetOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's end that cannot be taken note of would leave its task to its lease, and so would the next: the worker
    stops, and raises what was wrong."""
    noted = asyncio.Event()

    class Defective(Committer):
        def add(self, outcome: Outcome) -> None:
            noted.set()
            raise RuntimeError("a defect")

    monkeypatch.setattr("worker.worker.Committer", Defective)
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="a defect"), flatten_subgroups=True):
        async with fleet_of() as (fleet, _), asyncio.timeout(LIMIT_S):
            await fleet.submit("hi")
            await noted.wait()
