"""Tools whose calls people have to approve: asked once, made once, and no worker is held meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from queue_backends import Backend, BackendOptions, CancelOutcome, ChunkType, open_backend
from tests.approvals.conftest import WITHIN_S, Office, Working, calls, says, until
from tests.dying import Dying
from worker.approvals import Approvals, Verdict
from worker.approvals.tidying import take_back_ended
from worker.approvals.tool_approvals import ToolApprovals
from worker.approvals.waking import AnsweredTasks
from worker.journal import AttemptEnded, ModelCall, ToolWaits, read_journal
from worker.settings.approvals import ApprovalSettings


async def test_an_approved_call_is_made_once(office: Office, working: Working) -> None:
    """It waits in the queue, with all that a person needs to decide, and goes on when it is approved."""
    async with working(calls("note", "x"), says("did: {last_result}")):
        handle = await office.fleet.submit("hi", tenant="acme")
        [asked] = await office.asked()
        await office.parked(handle)
        assert (asked.what, asked.tool, asked.arguments) == ("tool", "note", {"text": "x"})
        assert (asked.task, asked.tenant, asked.verdict) == (handle.id, "acme", Verdict.WAITING)
        assert office.done == []
        await office.approvals.decide(asked.id, approved=True, reviewer="ann")
        result = await handle.result(WITHIN_S)
    assert result.output == "did: noted x"
    assert office.done == ["note x"]
    kept = [moment.entry for moment in await read_journal(office.backend.state, handle.id)]
    assert len([entry for entry in kept if isinstance(entry, ModelCall)]) == 2  # none was repeated
    assert len([entry for entry in kept if isinstance(entry, ToolWaits)]) == 1
    assert [entry.error for entry in kept if isinstance(entry, AttemptEnded)] == ["approval of note"]


async def test_a_rejected_call_is_not_made(office: Office, working: Working) -> None:
    """The model is told who said no, and why, and goes on."""
    async with working(calls("note", "x"), says("{last_result}")):
        handle = await office.fleet.submit("hi")
        [asked] = await office.asked()
        await office.approvals.decide(asked.id, approved=False, comment="not on a Friday")
        result = await handle.result(WITHIN_S)
    assert "rejected this call" in result.output
    assert "not on a Friday" in result.output
    assert office.done == []


@pytest.mark.parametrize(
    ("fallback", "done", "said"), [("reject", [], "nobody answered"), ("approve", ["note x"], "noted x")]
)
async def test_nobody_answers(
    office: Office, working: Working, quick_looks: None, fallback: str, done: list[str], said: str
) -> None:
    """When its time is up the fallback decides, and nobody can answer any more."""
    settings = {"approval.timeout_s": 1.0, "approval.fallback": fallback}
    async with working(calls("note", "x"), says("{last_result}"), **settings):
        handle = await office.fleet.submit("hi")
        result = await handle.result(WITHIN_S)
    assert said in result.output
    assert office.done == done
    [asked] = await office.approvals.all()
    assert (asked.decided, asked.timed_out, asked.approved) == (True, True, fallback == "approve")


async def test_other_tools_are_not_asked_for(office: Office, working: Working) -> None:
    """Only what a pattern names; and what cannot be called is told to the model, not to people."""
    bad = {"tool_calls": [{"name": "note", "arguments": {"wrong": 1}}]}
    async with working(calls("peek", "x"), bad, says("{last_result}")):
        result = await (await office.fleet.submit("hi")).result(WITHIN_S)
    assert "invalid arguments" in result.output
    assert await office.approvals.all() == []


async def test_calls_of_one_turn_wait_for_each_other(office: Office, working: Working) -> None:
    """Whatever else the turn calls is done and kept before the run is put down; each is asked for, and made once."""
    turn = {"tool_calls": [*calls("note", "a", "b")["tool_calls"], *calls("peek", "c")["tool_calls"]]}
    async with working(turn, says("done")):
        handle = await office.fleet.submit("hi")
        first, second = sorted(await office.asked(2), key=lambda each: str(each.arguments))
        await office.parked(handle)
        assert office.done == ["peek c"]
        await office.approvals.decide(first.id, approved=True)
        await until(lambda: _value(office.done), lambda done: "note a" in done)
        await office.parked(handle)
        await office.approvals.decide(second.id, approved=True)
        assert (await handle.result(WITHIN_S)).output == "done"
    assert sorted(office.done) == ["note a", "note b", "peek c"]
    shown = [chunk async for chunk in office.backend.chunks.subscribe(handle.id)]
    assert len([chunk for chunk in shown if chunk.type is ChunkType.TOOL_CALL]) == 3
    assert len([chunk for chunk in shown if chunk.type is ChunkType.TOOL_RESULT]) == 3


async def _value(found: list[str]) -> list[str]:
    return found


async def test_parked_tasks_hold_no_slot(office: Office, working: Working) -> None:
    """A worker with one slot runs another task while ten wait for people."""
    script = {
        "scenarios": [{"match": "quick", "turns": [says("quick")]}, {"turns": [calls("note", "x"), says("slow")]}]
    }
    async with working(concurrency=1, **{"agent.options": {"script": script}}):
        slow = [await office.fleet.submit(f"slow {number}") for number in range(10)]
        waiting = await office.asked(10)
        assert (await (await office.fleet.submit("quick")).result(WITHIN_S)).output == "quick"
        stats = await office.backend.queue.stats()
        assert (stats.delayed, stats.running) == (10, 0)
        await asyncio.gather(*(office.approvals.decide(each.id, approved=True) for each in waiting))
        results = [await handle.result(WITHIN_S) for handle in slow]
    assert {result.output for result in results} == {"slow"}
    assert office.done == ["note x"] * 10


async def test_a_cancelled_task_waits_no_more(office: Office, working: Working) -> None:
    """It ends at once, and its question with it."""
    async with working(calls("note", "x"), says("done")):
        handle = await office.fleet.submit("hi")
        waiting = await office.asked()
        await office.parked(handle)
        assert await office.backend.queue.cancel([handle.id]) == [CancelOutcome.CANCELLED]
        assert not (await handle.result(WITHIN_S)).ok
    assert office.done == []
    assert await take_back_ended(office.backend, office.approvals, waiting) == []
    assert await office.approvals.pending() == []


async def test_overrides_of_a_task_do_not_help(office: Office, working: Working) -> None:
    """Nobody who submits a task can take the question away."""
    async with working(calls("note", "x"), says("done")):
        handle = await office.fleet.submit("hi", approve_tools=[])
        result = await handle.result(WITHIN_S)
    assert "approve_tools" in result.error
    assert office.done == []


async def test_a_deadline_counts(office: Office, working: Working, quick_looks: None) -> None:
    """A parked task whose deadline comes is given up, though somebody might still answer."""
    async with working(calls("note", "x"), says("done")):
        handle = await office.fleet.submit("hi", deadline_s=0.8)
        result = await handle.result(WITHIN_S)
    assert "deadline" in result.error
    assert office.done == []


async def test_an_answer_in_the_moment_of_parking(
    office: Office, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever answers before the task lies in the queue wakes nobody: the worker itself looks once more. No look of the
    task's own helps."""
    monkeypatch.setattr("worker.parking.FIRST_LOOK_S", 3600.0)
    commit, woken = office.backend.commit, list[list[bool]]()

    async def answer_first(outcomes: object) -> object:
        for asked in await office.approvals.pending():
            if any(getattr(outcome, "error", "") == "approval of note" for outcome in outcomes):  # type: ignore[attr-defined]  # a list
                woken.append(await office.backend.queue.wake([asked.task]))
                await office.approvals.decide(asked.id, approved=True)
        return await commit(outcomes)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(office.backend, "commit", answer_first)
    async with working(calls("note", "x"), says("done")):
        handle = await office.fleet.submit("hi")
        assert (await handle.result(WITHIN_S)).output == "done"
    assert woken == [[False]]
    assert office.done == ["note x"]


async def test_an_answer_through_another_queue_wakes_it(
    office: Office, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever shares nothing but the state with the worker is heard by gateways and local runs."""
    monkeypatch.setattr("worker.parking.FIRST_LOOK_S", 3600.0)
    async with (
        working(calls("note", "x"), says("done")),
        AnsweredTasks(office.backend, Approvals(office.backend.state)),
    ):
        handle = await office.fleet.submit("hi")
        [asked] = await office.asked()
        await office.parked(handle)
        await Approvals(office.backend.state).decide(asked.id, approved=True)
        assert (await handle.result(WITHIN_S)).output == "done"


async def test_a_task_looks_by_itself(
    office: Office, working: Working, quick_looks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If every wake is lost, it comes back after a while, again and again, and shows its call once."""
    async with working(calls("note", "x"), says("done")):
        handle = await office.fleet.submit("hi")
        [asked] = await office.asked()
        await until(lambda: _endings(office, handle.id), lambda count: count >= 2)
        await office.parked(handle)
        [status] = await office.backend.queue.status([handle.id])
        assert status.task is not None
        assert status.task.attempt == 0  # nothing has failed
        await Approvals(office.backend.state).decide(asked.id, approved=True)
        assert (await handle.result(WITHIN_S)).output == "done"
    shown = [chunk async for chunk in office.backend.chunks.subscribe(handle.id)]
    assert len([chunk for chunk in shown if chunk.type is ChunkType.TOOL_CALL]) == 1
    assert office.done == ["note x"]


async def _endings(office: Office, task_id: str) -> int:
    return sum(isinstance(moment.entry, AttemptEnded) for moment in await read_journal(office.backend.state, task_id))


@pytest.mark.parametrize(("at", "when"), [*((at, "after") for at in range(1, 8)), (2, "before"), (4, "before")])
async def test_a_worker_may_die_at_any_write(working: Working, tmp_path: Path, at: int, when: str) -> None:
    """Whatever its last write was, another worker goes on: the question is put once, and the approved call made once,
    or the model is told that it may have been."""
    async with await open_backend("memory://", BackendOptions(lease_s=0.2, max_deliveries=50)) as backend:
        await _die_and_go_on(Office(backend, tmp_path / "diary"), working, backend, at, when)


async def _die_and_go_on(office: Office, working: Working, backend: Backend, at: int, when: str) -> None:
    turns = (calls("note", "x"), says("done: {last_result}"))
    dying = Dying(backend, at, when)  # type: ignore[arg-type]  # one of the two
    async with working(*turns, on=dying):
        handle = await office.fleet.submit("hi")
        dead = asyncio.create_task(dying.dead.wait())
        asking = asyncio.create_task(office.asked())
        await asyncio.wait([dead, asking], timeout=WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            [asked] = asking.result()
            await office.approvals.decide(asked.id, approved=True)
        ended = asyncio.create_task(handle.result(WITHIN_S))
        await asyncio.wait([dead, ended], timeout=WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        for task in (dead, asking, ended):
            task.cancel()
    async with working(*turns, on=backend):
        answering = asyncio.create_task(_say_yes(office))
        result = await handle.result(WITHIN_S)
        answering.cancel()
    assert len(await office.approvals.all()) == 1
    assert office.done == ["note x"] or (office.done == [] and "interrupted" in result.output)


async def _say_yes(office: Office) -> None:
    while True:
        for asked in await office.approvals.pending():
            await office.approvals.decide(asked.id, approved=True)
        await asyncio.sleep(0.01)


def test_arguments_of_any_depth_are_shown(backend: Backend) -> None:
    """A model that nests lists without end is asked about all the same, and no secret is shown with them."""
    asking = ToolApprovals(Approvals(backend.state), ApprovalSettings(), {"DB_PASSWORD": "hunter2hunter2"})
    deep: object = "hunter2hunter2"
    for _ in range(700):
        deep = [deep]
    shown = asking._shown(deep)
    assert isinstance(shown, str)
    assert shown.startswith("[[[")
    assert "hunter2" not in shown
