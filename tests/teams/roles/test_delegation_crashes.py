"""A worker that dies around a delegation: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

import msgspec
import pytest
from msgspec.structs import replace

from queue_backends import Backend, BackendOptions, CallOutcome, LogRecord, Task, UsageRecord, open_backend
from tests.dying import Dying
from tests.servers import Server, fresh_stream
from tests.teams.roles.team_fleet import (
    WITHIN_S,
    Fleet,
    by_prompt,
    calls,
    dynamic,
    plan_of,
    says,
    scripted,
    worker_settings,
)
from worker.assembly import open_worker
from worker.teams import collecting
from worker.teams.plan import Plan, Role
from worker.teams.run_events import decode_event
from worker.teams.run_state import Phase

LEASE_S = 0.3
LAST = (
    ("submit", "before"),
    ("submit", "after"),
    ("Delegated", "after"),
    ("Collected", "before"),
    ("wake", "before"),
)
"""What the dying worker still does, or just not: put a task into the queue, note it, note that its result was read,
wake who waits for it."""


class Mortal(Dying):
    """A backend whose holder dies at one step: just before it, or just after."""

    def __init__(self, inner: Backend, step: str, when: Literal["before", "after"]) -> None:
        super().__init__(inner, at=1_000_000, when=when)
        self.step = step
        self.queue.submit = self.submit  # type: ignore[method-assign]  # the steps at which it may die
        self.queue.wake = self.wake  # type: ignore[method-assign]  # as above
        self.state: Any = _MortalState(inner.state, self)

    async def pass_on(self, step: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Do a step, unless it is dead by then."""
        if self.dead.is_set():
            await asyncio.Event().wait()
        if step != self.step:
            return await call()
        if self.when == "after":
            await call()
        self.dead.set()
        return await asyncio.Event().wait()

    async def submit(self, task: Task, *, run_at: float | None = None) -> str:
        found: str = await self.pass_on("submit", lambda: self.inner.queue.submit(task, run_at=run_at))
        return found

    async def wake(self, ids: Sequence[str]) -> list[bool]:
        woken: list[bool] = await self.pass_on("wake", lambda: self.inner.queue.wake(ids))
        return woken


class _MortalState:
    def __init__(self, inner: Any, life: Mortal) -> None:
        self.inner = inner
        self.life = life

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def append_once(self, records: Sequence[LogRecord]) -> int:
        kinds = [type(decode_event(record.value)).__name__ for record in records if record.log.startswith("team-run/")]
        step = next((kind for kind in kinds if kind == self.life.step), "append")
        added: int = await self.life.pass_on(step, lambda: self.inner.append_once(records))
        return added


def crew() -> Plan:
    """A lead that has two helpers work, asks for the result of one, and is told that of the other."""
    turns = [
        calls("delegate", role="a", prompt="dig"),
        calls("spawn_and_collect", tasks=[{"role": "b", "prompt": "fill"}]),
        says("I have them work."),
    ]
    config = by_prompt({"that you delegated": [says("final: {prompt}")], "": turns})
    lead = Role(name="lead", can_delegate=("a", "b"), config=config)
    return plan_of(
        dynamic(lead, *(Role(name=name, config=scripted(says(f"{name} has: {{prompt}}"))) for name in ("a", "b")))
    )


@pytest.mark.parametrize(("step", "when"), LAST)
async def test_a_death_around_a_delegation(
    step: str, when: Literal["before", "after"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each role has worked once, each model call was paid for once, and the run knows of all its children."""
    monkeypatch.setattr(collecting, "LOOK_AGAIN_S", 0.5)  # how long a wake-up is missed that died with its worker
    settings = replace(worker_settings(slots=2), backend=BackendOptions(lease_s=LEASE_S, max_deliveries=100))
    name = f"memory://{step}-{when}"
    async with (
        await open_backend(name, settings.backend) as backend,
        await open_backend(name, settings.backend) as second,
    ):
        there = Fleet(backend)
        run_id = await there.runs.start(crew(), {"task": "go"})
        dying = Mortal(second, step, when)
        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group, open_worker(settings, dying):
            driving = group.create_task(there.drive(run_id))
            await dying.dead.wait()
            async with open_worker(settings, backend):
                await asyncio.wait([driving])
        await check(there, run_id, driving.result().output)


async def check(there: Fleet, run_id: str, output: str) -> None:
    """That everything was done, and once."""
    run = await there.runs.read(run_id)
    assert run.state.phase is Phase.SUCCEEDED, run.state.message
    assert output.startswith("final: ")
    assert "a has: dig" in output
    assert "b has: fill" not in output
    assert sorted((child.role, child.output) for child in run.state.children) == [
        ("a", "a has: dig"),
        ("b", "b has: fill"),
    ]
    entries = await there.backend.state.read_log("usage")
    records = [msgspec.json.decode(entry.value, type=UsageRecord) for entry in entries]
    calls_of = Counter(record.role for record in records if record.outcome is CallOutcome.COMPLETED)
    # Of the lead's turns, the last one is about what it has not collected.
    assert calls_of == {"lead": 4, "a": 1, "b": 1}


async def test_kill_9_between_the_task_and_its_note(valkey_server: Server) -> None:
    """The real thing, on a real server: the child's own worker makes the run know of it."""
    url = valkey_server.url(fresh_stream())
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.teams.roles.dying_worker", url, stdout=asyncio.subprocess.PIPE
    )
    settings = replace(worker_settings(slots=2), backend=BackendOptions(lease_s=LEASE_S, max_deliveries=100))
    async with asyncio.timeout(WITHIN_S), await open_backend(url, settings.backend) as backend:
        there = Fleet(backend)
        run_id = await there.runs.start(crew(), {"task": "go"})
        async with asyncio.TaskGroup() as group:
            driving = group.create_task(there.drive(run_id))
            assert program.stdout is not None
            said = json.loads(await program.stdout.readline())
            assert await program.wait() == -signal.SIGKILL
            async with open_worker(settings, backend):
                await asyncio.wait([driving])

        await check(there, run_id, driving.result().output)
        run = await there.runs.read(run_id)
        assert said["submitted"] in {child.task_id for child in run.state.children}
