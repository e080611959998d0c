"""While nobody takes the calls of a remote provider, tasks wait in the queue, without a slot and without an attempt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from providers import (
    AgentConfig,
    ChatProvider,
    Health,
    Message,
    StopReason,
    TurnEnd,
    TurnEvent,
    TurnRequest,
    Unavailable,
)
from queue_backends import Backend, Task, TaskState, TokenUsage
from tests.remote.conftest import LIMIT_S, Engines, Served, until
from worker.assembly import open_worker
from worker.call_gates import ModelCallIntent
from worker.engine import Engine
from worker.errors import Postponed
from worker.journal import AttemptEnded, Entry, ModelCall, entries_of, read_journal
from worker.remote_providers import PresenceGate, RemoteProviders
from worker.settings import load_settings

NAME = "patient"
OFTEN = "200ms"
CHECKS = 8
"""So many checks of health take longer than all attempts of a task of `working`, and than the first wait."""


class Patient(ChatProvider):
    """A provider that says itself whether it is well."""

    name = NAME

    def __init__(self) -> None:
        self.is_well = True
        self.requests: list[TurnRequest] = []
        self.failures: list[Exception] = []
        self._checked = asyncio.Condition()

    async def health_check(self, config: AgentConfig) -> Health:
        async with self._checked:
            self._checked.notify_all()
        return Health(healthy=self.is_well, message="" if self.is_well else "feels ill")

    async def checked(self, times: int) -> None:
        """Return when its health has been asked for so often."""
        async with asyncio.timeout(LIMIT_S), self._checked:
            for _ in range(times):
                await self._checked.wait()

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        self.requests.append(request)
        if self.failures:
            raise self.failures.pop()
        usage = TokenUsage(input_tokens=1, output_tokens=1)
        yield TurnEnd(message=Message.assistant("better"), stop_reason=StopReason.END_TURN, usage=usage)


@pytest.fixture
def patient() -> Patient:
    """The provider of this test's tasks."""
    return Patient()


@asynccontextmanager
async def working(backend: Backend, **settings: Any) -> AsyncIterator[None]:
    """A worker that calls the patient, and gives a task two attempts, one right after the other."""
    overrides = {"agent.model": "m", "agent.provider": NAME, "agent.max_retries": 0, "max_retries": 1, **settings}
    loaded = load_settings({}, file=None, overrides={"retry_base_s": 0.01, "grace_s": 0, **overrides})
    async with open_worker(loaded, backend):
        yield


async def known(engine: Engine, *, healthy: bool) -> None:
    """Wait until the patient is registered, in this state of health."""
    await until(lambda: [each.healthy for each in engine.directory.instances(NAME)] == [healthy], engine)


async def left(engine: Engine) -> None:
    """Wait until the patient has no process any more."""
    await until(lambda: engine.directory.is_provider(NAME) and not engine.directory.instances(NAME), engine)


async def story(backend: Backend, task_id: str) -> tuple[list[str], list[Entry]]:
    """How the attempts of a task ended that did not lead to an answer, and its model calls."""
    entries = entries_of(await read_journal(backend.state, task_id))
    how = [entry.how for entry in entries if isinstance(entry, AttemptEnded)]
    return how, [entry for entry in entries if isinstance(entry, ModelCall)]


async def test_a_task_waits_until_its_provider_is_well(
    backend: Backend, engines: Engines, served: Served, patient: Patient
) -> None:
    """It outlasts all attempts that a task has, and is not called meanwhile; then the first attempt has its answer."""
    patient.is_well = False
    async with engines(health_check_interval=OFTEN) as engine, served(patient, engine=engine.address):
        await known(engine, healthy=False)
        async with working(backend):
            task_id = await backend.queue.submit(Task(prompt="are you well?"))
            await patient.checked(CHECKS)
            (status,) = await backend.queue.status([task_id])
            assert status.state not in {TaskState.SUCCEEDED, TaskState.FAILED}
            assert status.task is not None
            assert status.task.attempt == 0
            assert patient.requests == []
            patient.is_well = True
            result = await backend.queue.wait(task_id, LIMIT_S)
        assert (result.output, result.error) == ("better", "")
        ends, calls = await story(backend, task_id)
        assert set(ends) == {"postponed"}
        assert len(calls) == len(patient.requests) == 1


async def test_a_task_waits_for_a_process_that_is_gone(
    backend: Backend, engines: Engines, served: Served, patient: Patient
) -> None:
    """A provider that was registered once is expected back, without a failed attempt."""
    async with engines(health_check_interval=OFTEN) as engine:
        async with served(patient, engine=engine.address):
            await known(engine, healthy=True)
        await left(engine)
        async with working(backend, max_retries=0):
            task_id = await backend.queue.submit(Task(prompt="still there?"))
            async with served(patient, engine=engine.address):
                assert (await backend.queue.wait(task_id, LIMIT_S)).output == "better"


@pytest.mark.parametrize("is_gone", [True, False])
async def test_nobody_waits_for_ever(
    backend: Backend, engines: Engines, served: Served, patient: Patient, is_gone: bool
) -> None:
    """A provider that does not come back in the time that a task may wait: the error says so, and no call was made."""
    patient.is_well = is_gone
    async with engines(health_check_interval=OFTEN) as engine:
        async with AsyncExitStack() as process:
            await process.enter_async_context(served(patient, engine=engine.address))
            await known(engine, healthy=is_gone)
            if is_gone:
                await process.aclose()
                await left(engine)
            async with working(backend, max_postponed_s=1):
                task_id = await backend.queue.submit(Task(prompt="anybody?"))
                result = await backend.queue.wait(task_id, LIMIT_S)
        assert result.error.startswith("gave up after ")
        why = "no process of this remote provider is registered at present" if is_gone else "unhealthy: feels ill"
        assert f"{NAME}: {why}" in result.error
        assert "SHOAL_MAX_POSTPONED_SECONDS" in result.error
        (letter,) = await backend.queue.dead_letters()
        assert letter.task_id == task_id
        ends, calls = await story(backend, task_id)
        assert ends[-1] == "dead"
        assert set(ends[:-1]) == {"postponed"}
        assert (calls, patient.requests) == ([], [])


async def test_a_failed_call_is_a_failed_attempt(
    backend: Backend, engines: Engines, served: Served, patient: Patient
) -> None:
    """A provider that is well and fails all the same has had its call: that counts as ever."""
    patient.failures = [Unavailable("not now")]
    async with engines(health_check_interval=OFTEN) as engine, served(patient, engine=engine.address):
        await known(engine, healthy=True)
        async with working(backend):
            task_id = await backend.queue.submit(Task(prompt="hello"))
            assert (await backend.queue.wait(task_id, LIMIT_S)).output == "better"
        ends, calls = await story(backend, task_id)
        assert (ends, len(calls)) == (["retry"], 2)


@pytest.mark.parametrize(("provider", "said"), [(NAME, "for this tenant"), ("patiant", "patiant")])
async def test_nobody_waits_in_vain(
    backend: Backend, engines: Engines, served: Served, patient: Patient, provider: str, said: str
) -> None:
    """A provider of another tenant, or one that nobody ever registered: the attempts are soon used up."""
    environ = {"MIRASTACK_PLUGIN_TENANT_SLUG": "acme"}
    async with engines(health_check_interval=OFTEN) as engine, served(patient, engine=engine.address, environ=environ):
        await known(engine, healthy=True)
        async with working(backend, **{"agent.provider": provider}):
            task_id = await backend.queue.submit(Task(prompt="hello", tenant="other"))
            result = await backend.queue.wait(task_id, LIMIT_S)
        assert said in result.error
        assert not result.error.startswith("gave up")


async def test_the_longer_it_is_away_the_rarer_tasks_look(engines: Engines, served: Served, patient: Patient) -> None:
    """A second at first, half a minute at most; once it is well, they pass, and the next time begins anew."""
    now = 0.0
    config = AgentConfig(model="m", provider=NAME)
    request = TurnRequest(config=config, messages=(Message.user("x"),))
    intent = ModelCallIntent(id="t:0:0", task=Task(prompt="x"), config=config, request=request, provider=NAME)

    async def wait_s(gate: PresenceGate) -> float:
        with pytest.raises(Postponed) as postponed:
            await gate.enter(intent)
        return postponed.value.retry_in_s

    async with engines(health_check_interval=OFTEN) as engine, served(patient, engine=engine.address):
        gate = PresenceGate(RemoteProviders(engine.directory), clock=lambda: now, random_=lambda: 0.0)
        await known(engine, healthy=True)
        await gate.enter(intent)
        patient.is_well = False
        await known(engine, healthy=False)
        assert await wait_s(gate) == 1.0
        now = 40.0
        assert await wait_s(gate) == 10.0
        now = 4000.0
        assert await wait_s(gate) == 30.0
        patient.is_well = True
        await known(engine, healthy=True)
        await gate.enter(intent)
        assert not gate.active
        patient.is_well = False
        await known(engine, healthy=False)
        assert await wait_s(gate) == 1.0
