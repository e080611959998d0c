"""Runs with a policy that are interrupted: what was paid for or done is not repeated, and ids stay what they were."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import pytest

import providers
from providers import AgentConfig, ToolOutcome
from providers.scripted import ScriptedProvider
from queue_backends import BackendOptions, CallOutcome, TaskResult, open_backend
from tests.dying import Dying
from tests.loop_policy.harness import LIMIT_S, Ground, WholeRun, call
from worker.assembly import open_worker
from worker.client import Fleet, Handle
from worker.journal import SIDE_TURNS, Entry, ModelCall, SideCall, TakenOver, ToolFinished, ToolStarted, read_journal
from worker.loop_policy.earlier import Earlier, earlier_of
from worker.loop_policy.repeats import SKIPPED
from worker.tool_book import INTERRUPTED
from worker.usage import UsageReport

OPTIONS = BackendOptions(lease_s=0.2, max_deliveries=50)
POLICY = {
    "dedup": True,
    "sandbox": {"thresholdBytes": 300},
    "compression": {"contextWindow": 200, "threshold": 0.5},
    "advisors": [{"name": "x", "systemPrompt": "Advise.", "maxCallsPerTask": 1, "maxAdvisorTokensPerTask": 10}],
}


async def killed_at(
    number: int, when: Literal["before", "after"], ground: Ground, policy: Any = None, **more: Any
) -> tuple[bool, int, TaskResult, list[Entry], list[Any]]:
    """Run a task with a worker that dies at a write, and then one that does not. Says whether the first one died, how
    often it had asked beside its run, how the task ended, and what stands in the journal and in the books."""
    settings, name = ground.settings(policy or POLICY, **more), f"policy-{when}-{number}"
    async with await open_backend(f"memory://{name}", OPTIONS) as backend:
        dying = Dying(await open_backend(f"memory://{name}", OPTIONS), number, when)
        task_id = (await Fleet(backend).submit("go")).id
        finished = asyncio.create_task(Handle(backend, task_id).result())
        async with asyncio.timeout(LIMIT_S), open_worker(settings, dying):
            dead = asyncio.create_task(dying.dead.wait())
            await asyncio.wait([finished, dead], return_when=asyncio.FIRST_COMPLETED)
            dead.cancel()
        asked_before = len(ground.plan.beside)
        async with open_worker(settings, await open_backend(f"memory://{name}", OPTIONS)):
            async with asyncio.timeout(LIMIT_S):
                result = await finished
        entries = [moment.entry for moment in await read_journal(backend.state, task_id)]
        return dying.dead.is_set(), asked_before, result, entries, await UsageReport(backend.state).recent()


@pytest.mark.parametrize(("when", "stride"), [("after", 2), ("before", 5)])
async def test_a_worker_that_dies_at_any_write(ground: Ground, when: Literal["before", "after"], stride: int) -> None:
    """Whoever goes on makes no call that was made, keeps the ids of what was kept apart, asks for no summary and no
    advice that is stored, and has every call in the books."""
    ground.plan.does(
        [call("1", "look", topic="a", depth=2000), call("2", "write", text="w")],
        [call("3", "look", topic="a", depth=2000), call("4", "consult_x", question="Q?")],
        [call("5", "look", topic="b", depth=250), call("6", "write", text="w")],
        [call("7", "sandbox_recall", id="result-1", length=7), call("8", "consult_x", question="Q?")],
    )
    for number in itertools.count(1, stride):
        ground.plan.beside.clear()
        ground.plan.heard.clear()
        ground.diary.write_text("")
        died, asked_before, result, entries, records = await killed_at(number, when, ground)
        where = f"killed {when} write {number}"
        assert result.output == "done", where
        effects = Counter(ground.effects)
        assert effects["write w"] <= 1 or ground.content("2") == INTERRUPTED, where
        assert ground.content("1").startswith("[sandboxed: result-1]"), where
        assert ground.content("3") == SKIPPED, where
        assert "about a\n[characters 0 to 7 of 2009" in ground.content("7"), where
        assert ground.content("4").endswith("in short"), where
        assert "advisor_limit_exceeded" in ground.content("8"), where
        assert any("<swarm:compressed-history>" in ground.content(name) for name in "12345678"), where
        check_side_calls(ground, asked_before, entries, records, where)
        if not died:
            assert number > 10
            return


def check_side_calls(ground: Ground, asked_before: int, entries: list[Entry], records: list[Any], where: str) -> None:
    """What is asked beside the run."""
    takers = {entry.worker for entry in entries if isinstance(entry, TakenOver)}
    begun = {SIDE_TURNS + entry.number: entry for entry in entries if isinstance(entry, SideCall)}
    answered = [e for e in entries if isinstance(e, ModelCall) and e.turn in begun and e.end is not None]
    stored = {begun[entry.turn].what for entry in answered if entry.worker not in takers}
    whats = ["advice" if request.config.system_prompt == "Advise." else "compression" for request in ground.plan.beside]
    assert not stored & set(whats[asked_before:]), where
    kept = [record for record in records if int(record.id.split(":")[1]) >= SIDE_TURNS]
    lost = [record for record in kept if record.outcome is CallOutcome.LOST]
    assert len(kept) - len(lost) + asked_before >= len(whats) >= len(kept) - len(lost), where
    assert len(lost) <= 1, where
    if asked_before == len(whats) and not lost:
        assert len(kept) == len(whats), where


async def test_a_provider_that_runs_whole_tasks_goes_on(ground: Ground) -> None:
    """It is started over, and told again what its calls answered; what it repeats is skipped."""
    ground.plan.does([call("1", "look", topic="a"), call("2", "write", text="w"), call("3", "write", text="w")])
    for number in itertools.count(1, 3):
        ground.diary.write_text("")
        ground.plan.heard.clear()
        died, *_ = await killed_at(number, "after", ground, **{"agent.provider": WholeRun.name})
        assert Counter(ground.effects)["write w"] <= 1 or INTERRUPTED in ground.content("2")
        assert ground.content("3") == SKIPPED or ground.content("2") == INTERRUPTED
        if not died:
            assert number > 4
            return


def test_a_run_that_nobody_had_knows_nothing() -> None:
    """And reads nothing."""
    assert earlier_of(()) == Earlier()


@pytest.mark.parametrize("leaves", ["release", "crash"])
async def test_what_a_tool_did_is_known_while_it_is_summed_up(ground: Ground, leaves: str) -> None:
    """A worker that leaves or dies meanwhile does not make a call that succeeded one that nobody knows the end of."""
    ground.plan.does([call("1", "write", text="w" * 500)])
    ground.plan.hangs = True
    settings = ground.settings({"compression": {"contextWindow": 100}}, grace_s=0.0)
    async with await open_backend(f"memory://{leaves}", OPTIONS) as backend:
        dying = Dying(await open_backend(f"memory://{leaves}", OPTIONS), 10_000, "before")
        handle = Handle(backend, (await Fleet(backend).submit("go")).id)
        async with asyncio.timeout(LIMIT_S):
            async with open_worker(settings, dying):
                await ground.plan.is_asked_beside.wait()
                if leaves == "crash":
                    dying.dead.set()
            ground.plan.hangs = False
            async with open_worker(settings, await open_backend(f"memory://{leaves}", OPTIONS)):
                await handle.result()
        entries = [moment.entry for moment in await read_journal(backend.state, handle.id)]
    assert ground.effects == ["write " + "w" * 500]
    assert ground.content("1") == "written: " + "w" * 500
    assert [entry.is_raw for entry in entries if isinstance(entry, ToolFinished)] == [True]


class Counting(ScriptedProvider):
    """Makes vectors, and counts how often."""

    name = "counting"
    asked = 0

    async def embed(self, config: AgentConfig, texts: Sequence[str]) -> list[list[float]]:
        """One more."""
        Counting.asked += 1
        return await super().embed(config, texts)


async def test_embeddings_that_are_paid_for_again_are_in_the_books_again(ground: Ground) -> None:
    """Findings are looked up anew by whoever makes a call anew."""
    providers.register(Counting.name, Counting)
    policy = {"memory": {"store": True, "retrieve": True}}
    ground.plan.does([call("1", "look", topic="a")])
    for number in itertools.count(1):
        Counting.asked = 0
        more = {"embedding_model": "x", "embedding_provider": Counting.name}
        died, _, _, _, records = await killed_at(number, "before", ground, policy, **more)
        assert Counting.asked == sum(":embed-" in record.id for record in records), f"killed before write {number}"
        if not died:
            assert number > 4
            return


def test_findings_that_may_have_been_kept_keep_their_numbers() -> None:
    """Also of a call whose outcome got lost: the next one may not take its place."""
    entries: list[Entry] = [
        ToolStarted(key="0/1", turn=0, call_id="1", name="look"),
        ToolStarted(key="0/2", turn=0, call_id="2", name="look"),
        ToolFinished(key="0/2", turn=0, outcome=ToolOutcome(call_id="2", name="look", content="x")),
    ]
    assert earlier_of(entries).begun == 2


async def test_an_advisor_hears_what_was_done_before_a_crash(ground: Ground) -> None:
    """Also in a run that is started over, whose calls are not made again."""
    ground.plan.does([call("1", "look", topic="a"), call("2", "consult_x", question="Q?")])
    for number in itertools.count(1, 2):
        ground.plan.beside.clear()
        died, *_ = await killed_at(number, "after", ground, **{"agent.provider": WholeRun.name})
        assert all("about a" in request.messages[0].text for request in ground.plan.beside), number
        if not died:
            assert number > 4
            return


async def test_a_cancel_ends_a_run_that_waits_for_a_summary(ground: Ground) -> None:
    """At once, and with it the call, which is in the books."""
    ground.plan.does([call("1", "look", topic="a", depth=3000)])
    ground.plan.hangs = True
    async with ground.worker({"compression": {"contextWindow": 100}}) as (backend, _), asyncio.timeout(LIMIT_S):
        handle = await Fleet(backend).submit("go")
        await ground.plan.is_asked_beside.wait()
        await handle.cancel()
        result = await handle.result()
        records = await UsageReport(backend.state).recent()
    assert result.error == "run cancelled"
    outcomes = {record.outcome for record in records if int(record.id.split(":")[1]) >= SIDE_TURNS}
    assert outcomes == {CallOutcome.CANCELLED}
