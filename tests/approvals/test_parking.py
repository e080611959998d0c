"""Tools that park their run: made again when what they wait for is there, and no more often than needed before."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from queue_backends import Backend, Capability, Delivery, Task, TaskState
from tests.approvals.conftest import WITHIN_S, Office, Working, says, until
from tests.gateway.gateway_harness import GatewayServer, gateway_settings
from worker.cli.app import run
from worker.errors import DeadlineExceeded
from worker.journal import AttemptEnded, Moment, TakenOver
from worker.parking import (
    FIRST_LOOK_S,
    LONGEST_LOOK_S,
    LONGEST_LOOK_UNWOKEN_S,
    SHORTEST_S,
    Parked,
    Parking,
    next_look_s,
)
from worker.recall import recall
from worker.run_limits import overtime, refuse_hopeless
from worker.settings import load_settings
from worker.surroundings import Limits
from worker.waiting import waits_for, without_vain_looks

TOOL = """
import time
from pathlib import Path

from worker import tool
from worker.parking import Parked

FLAG = Path({flag!r})

async def is_there():
    return FLAG.exists()

@tool(idempotent=True)
async def upload(name: str) -> str:
    '''Wait for a file.'''
    with open({diary!r}, "a") as diary:
        diary.write("looked\\n")
    if FLAG.exists():
        return "got " + FLAG.read_text()
    raise Parked(time.time() + {lasts_s}, "the upload of " + name, is_ready=is_there)

@tool(idempotent=True)
def in_a_thread(name: str) -> str:
    '''The same, outside of the event loop.'''
    if FLAG.exists():
        return "got " + FLAG.read_text()
    raise Parked(time.time() + {lasts_s}, "the upload of " + name, is_ready=is_there)
"""


def tools(tmp_path: Path, lasts_s: float = 3600.0) -> dict[str, object]:
    """Settings of a worker with these tools."""
    file = tmp_path / "uploads.py"
    file.write_text(TOOL.format(flag=str(tmp_path / "flag"), diary=str(tmp_path / "diary"), lasts_s=lasts_s))
    return {"python_tools": (str(file),), "agent.approve_tools": ()}


def calling(name: str) -> dict[str, object]:
    """A turn that calls one of them."""
    return {"tool_calls": [{"name": name, "arguments": {"name": "report"}}]}


@pytest.mark.parametrize("name", ["upload", "in_a_thread"])
async def test_a_tool_waits_for_its_own_reasons(office: Office, working: Working, tmp_path: Path, name: str) -> None:
    """The task says what it waits for; woken, it makes the call again, and no attempt was counted."""
    async with working(calling(name), says("{last_result}"), **tools(tmp_path)):
        handle = await office.fleet.submit("hi")
        await office.parked(handle)
        assert await waits_for(office.backend.state, handle.id) == "the upload of report"
        await office.backend.queue.wake([handle.id])  # too early: it looks, and lies down again
        await until(lambda: _looks(office), lambda count: count >= 2 or name == "in_a_thread")
        await office.parked(handle)
        status = await handle.status()
        assert status.task is not None
        assert (status.task.attempt, status.state) == (0, TaskState.DELAYED)
        (tmp_path / "flag").write_text("it")
        await office.backend.queue.wake([handle.id])
        assert (await handle.result(WITHIN_S)).output == "got it"


async def _looks(office: Office) -> int:
    return len(office.done)


async def test_a_tool_whose_time_is_up_is_not_called_in_a_hurry(
    office: Office, working: Working, tmp_path: Path
) -> None:
    """One that goes on to wait although it said until when is called again now and then, without holding the slot."""
    async with working(calling("upload"), says("{last_result}"), concurrency=1, **tools(tmp_path, lasts_s=-5.0)):
        handle = await office.fleet.submit("hi")
        await office.parked(handle)
        (tmp_path / "flag").write_text("late")
        assert (await handle.result(WITHIN_S)).output == "got late"
        assert len(office.done) < 10


def test_looks_grow_rare(backend: Backend) -> None:
    """Soon at first, then more rarely, at the end of the wait or of the task at last; often where nothing wakes."""
    now = time.time()
    long, short = Parked(now + 1e6, "x"), Parked(now + 5, "y")
    looks = [next_look_s([long], backend, looks=number, deadline=None) for number in range(40)]
    assert looks[0] == FIRST_LOOK_S
    assert looks == sorted(looks)
    assert looks[-1] == LONGEST_LOOK_S
    assert next_look_s([long, short], backend, looks=0, deadline=None) <= 5
    assert next_look_s([long], backend, looks=0, deadline=now + 2) <= 2
    assert next_look_s([Parked(now - 5, "z")], backend, looks=0, deadline=None) == SHORTEST_S
    backend.gaps = {Capability.WAKE: "cannot"}
    assert next_look_s([long], backend, looks=9, deadline=None) == LONGEST_LOOK_UNWOKEN_S


async def test_the_api_and_the_command_say_what_it_waits_for(
    tmp_path: Path, queue_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks at a parked task reads it there."""
    script = {"scenarios": [{"turns": [calling("upload"), says("done")]}]}
    overrides = {"agent.model": "scripted", "agent.provider": "scripted", "agent.options": {"script": script}}
    agent = load_settings({}, file=None, overrides={**overrides, **tools(tmp_path)})
    settings = gateway_settings(agent=agent.agent, python_tools=agent.python_tools)
    with GatewayServer(settings, queue_url=queue_url) as server:
        async with server.client() as client:
            task_id = (await client.post("/v1/tasks", json={"prompt": "hi"})).json()["id"]

            async def shown() -> dict[str, object]:
                found: dict[str, object] = (await client.get(f"/v1/tasks/{task_id}")).json()
                return found

            found = await until(shown, lambda view: view["state"] == "delayed")
            assert found["waits_for"] == "the upload of report"
        monkeypatch.setenv("TASK_QUEUE_URL", queue_url)
        assert await asyncio.to_thread(run, ["tasks", "show", task_id]) == 0
    assert "for the upload of report" in capsys.readouterr().out


async def test_an_engine_that_cannot_delay_is_not_asked_in_a_hurry(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a task that is given back comes again at once: so its run is held for a while before."""
    monkeypatch.setattr("worker.parking.LONGEST_LOOK_UNWOKEN_S", 0.1)
    backend.gaps = {Capability.DELAYED: "cannot"}
    is_down = asyncio.Event()
    parking = Parking(is_down.set, backend)
    parking.begun()
    waiting = asyncio.create_task(parking.park(Parked(time.time() + 3600, "x")))
    await asyncio.sleep(0)
    assert not is_down.is_set()
    async with asyncio.timeout(WITHIN_S):
        await is_down.wait()
    assert parking.reason == "x"
    waiting.cancel()
    await asyncio.wait([waiting])


def test_a_deadline_that_passed_meanwhile_is_told_with_the_reason() -> None:
    """Whoever reads the error learns that the task had been begun, and what it was waiting for when its time was up."""
    now = time.time()
    task, parked = Task(prompt="x", deadline=now - 1), AttemptEnded(attempt=0, how="parked", error="approval of note")
    delivery = Delivery(task=task, entry_id="1-0", token="t")
    past = recall([parked], delivery)
    said = "the task's deadline has passed while it waited for approval of note"
    with pytest.raises(DeadlineExceeded, match=said):
        refuse_hopeless(delivery, past, Limits())
    assert str(overtime(task, past, now, Limits(), None)) == said
    again = recall([parked, AttemptEnded(attempt=1, how="retry", error="y")], delivery)
    assert "before it was started" in str(overtime(task, again, now, Limits(), None))


def test_vain_looks_are_not_shown_one_by_one() -> None:
    """Of a task that looked a hundred times in vain, the first parking and the last are shown, and all else that
    happened."""

    def parked(number: int) -> Moment:
        return Moment(number, AttemptEnded(attempt=number, how="parked", error="x"))

    first, again = parked(0), Moment(1000, AttemptEnded(attempt=1000, how="retry", error="y"))
    looks = [each for n in range(1, 100) for each in (Moment(n, TakenOver(attempt=n)), parked(n))]
    assert without_vain_looks([first, *looks, again]) == [first, *looks[-2:], again]
    assert without_vain_looks([first, again]) == [first, again]
    assert without_vain_looks(looks[:3]) == looks[:3]
