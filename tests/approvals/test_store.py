"""The store of questions, with several processes' worth of connections: put once, answered once, heard of by all who
wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from queue_backends import Backend, open_backend
from tests.approvals.conftest import WITHIN_S, until
from worker.approvals import Approval, Approvals, Verdict, approval_id
from worker.errors import ApprovalDecided, ApprovalNotFound


@pytest.fixture
async def backends(queue_url: str) -> AsyncIterator[tuple[Backend, Backend]]:
    """The same store, as two processes have it."""
    async with await open_backend(queue_url) as one, await open_backend(queue_url) as other:
        yield one, other


async def test_many_ask_at_once(backends: tuple[Backend, Backend]) -> None:
    """There is one question, and all of them have it."""
    stores = [Approvals(backend.state) for backend in backends]
    for number in range(10):
        question = Approval(message=f"Question {number}?")
        found = await asyncio.gather(*(store.open(question, key=f"k{number}") for store in stores * 3))
        assert len({(each.id, each.asked_at) for each in found}) == 1
        assert found[0].id == approval_id(f"k{number}")
    assert len(await stores[0].pending()) == 10


async def test_many_answer_at_once(backends: tuple[Backend, Backend]) -> None:
    """One of them is heard; each other is told how it was decided."""
    stores = [Approvals(backend.state) for backend in backends]

    async def answer(number: int, asked: Approval) -> str:
        try:
            await stores[number % 2].decide(asked.id, approved=number % 2 == 0, reviewer=f"person {number}")
        except ApprovalDecided as error:
            return str(error)
        return f"person {number}"

    for round_number in range(10):
        asked = await stores[0].open(Approval(message="?"), key=f"k{round_number}")
        said = await asyncio.gather(*(answer(number, asked) for number in range(6)))
        winners = [text for text in said if text.startswith("person")]
        assert len(winners) == 1
        assert (await stores[1].get(asked.id)).reviewer == winners[0]
        assert sum(f"by {winners[0]}" in text for text in said) == 5


async def test_a_thousand_wait(backends: tuple[Backend, Backend]) -> None:
    """Answers of another process reach each of them, through one watch."""
    here, there = (Approvals(backend.state) for backend in backends)
    ids = [(await here.open(Approval(message="?"), key=f"k{number}")).id for number in range(300)]
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        waiting = [group.create_task(here.decided(each)) for each in ids for _ in range(3)]
        await asyncio.sleep(0)
        for each in ids:
            await there.decide(each, approved=True)
    assert {task.result().verdict for task in waiting} == {Verdict.APPROVE}


@pytest.mark.parametrize(
    ("fallback", "verdict"), [("reject", Verdict.REJECT), ("approve", Verdict.APPROVE), ("skip", Verdict.SKIP)]
)
async def test_its_time_runs_out(backends: tuple[Backend, Backend], fallback: str, verdict: Verdict) -> None:
    """Whoever waits has the fallback then, and so has everybody else; nobody can answer any more."""
    here, there = (Approvals(backend.state) for backend in backends)
    question = Approval(message="?", fallback=fallback)  # type: ignore[arg-type]  # one of the three
    asked = await here.open(question, key="k", timeout_s=0.2)
    async with asyncio.timeout(WITHIN_S):
        found = await here.decided(asked.id)
    assert (found.verdict, found.timed_out) == (verdict, True)
    assert await there.get(asked.id) == found
    with pytest.raises(ApprovalDecided, match="not answered in time"):
        await there.decide(asked.id, approved=True)
    assert await here.open(Approval(message="?"), key="k") == found  # the same question, with its answer


async def test_who_waits_may_give_up(backends: tuple[Backend, Backend]) -> None:
    """After so long it has the question as it is then, which others may still answer."""
    store = Approvals(backends[0].state)
    asked = await store.open(Approval(message="?"), key="k")
    assert (await store.decided(asked.id, 0.05)).verdict is Verdict.WAITING
    await store.decide(asked.id, approved=True)
    with pytest.raises(ApprovalNotFound):
        await store.decided("nothing", 1.0)


async def test_one_that_was_taken_back_is_put_again(backends: tuple[Backend, Backend]) -> None:
    """Nobody can answer it meanwhile; whoever asks again waits for a new answer."""
    store = Approvals(backends[0].state)
    asked = await store.open(Approval(message="?"), key="k")
    await store.withdraw(asked.id)
    await store.withdraw("nothing")
    assert await store.pending() == []
    with pytest.raises(ApprovalDecided, match="whoever asked has ended"):
        await store.decide(asked.id, approved=True)
    again = await store.open(Approval(message="?"), key="k")
    assert (again.id, again.decided) == (asked.id, False)
    await store.decide(asked.id, approved=False)
    await store.withdraw(asked.id)  # too late
    assert (await store.get(asked.id)).verdict is Verdict.REJECT


async def test_who_follows_all_hears_of_everything(backends: tuple[Backend, Backend]) -> None:
    """Those that are kept first, then each that is put, answered or gone."""
    here, there = (Approvals(backend.state) for backend in backends)
    kept = await there.open(Approval(message="kept"), key="kept")
    heard: dict[str, Approval] = {}

    async def known() -> dict[str, Approval]:
        return heard

    async with here.told(lambda each: heard.update({each.id: each})):
        assert heard == {kept.id: kept}
        new = await there.open(Approval(message="new"), key="new")
        await until(known, lambda found: new.id in found)
        await there.decide(kept.id, approved=True)
        await until(known, lambda found: found[kept.id].approved)
        await backends[1].state.delete(f"approvals/{new.id}")
        await until(known, lambda found: found[new.id].withdrawn)
