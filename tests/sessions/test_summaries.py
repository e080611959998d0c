"""Conversations that grow past what an agent remembers are summed up by tasks of their own."""

from __future__ import annotations

from typing import Any

from queue_backends import Backend, Task, TaskResult
from tests.sessions.talking import Overheard, declare_agent, kept, say, settings_with, talking, texts, until
from worker.sessions.conversation_log import (
    Record,
    Summary,
    SummaryAsked,
    log_name,
    read_records,
)
from worker.sessions.conversations import SUMMARY_OF, SUMMARY_UP_TO
from worker.usage import UsageReport

SCRIPT = {
    "scenarios": [
        {"match": "Sum this up", "turns": [{"text": "they counted to ten", "usage": {"input_tokens": 500}}]},
        {"turns": [{"text": "heard {prompt}"}]},
    ]
}
BROKEN = {
    "scenarios": [
        {"match": "Sum this up", "turns": [{"fault": {"kind": "invalid_request"}}]},
        {"turns": [{"text": "heard {prompt}"}]},
    ]
}
WORDS = "count " * 60


async def talk(backend: Backend, count: int, **fields: Any) -> TaskResult:
    """Say several long things, one after the other."""
    for number in range(count):
        result = await say(backend, f"number {number} {WORDS}", agent="counter", **fields)
        assert not result.error
    return result


async def records(backend: Backend, tenant: str = "") -> list[Record]:
    """All that stands in the log."""
    return read_records(await backend.state.read_log(log_name(tenant, "c1"), limit=1000))


async def has_summary(backend: Backend, tenant: str = "") -> bool:
    """Whether a summary is stored."""
    return any(isinstance(each, Summary) for each in await records(backend, tenant))


async def test_what_is_too_old_is_summed_up() -> None:
    """Past the limit one ordinary task sums up what is older, with the same agent's model, without tools, accounted to
    the session; later runs begin with the summary and what was said since."""
    async with talking(settings_with()) as backend:
        await declare_agent(backend, "counter", SCRIPT, max_tokens=900)
        await talk(backend, 6, session_id="s1", tenant="acme")
        await until(lambda: has_summary(backend, "acme"))
        last = await say(backend, "where were we?", agent="counter", session_id="s1", tenant="acme")
        found = await records(backend, "acme")
        used = await UsageReport(backend.state).recent(limit=100)
    asked = [each for each in found if isinstance(each, SummaryAsked)]
    summaries = [each for each in found if isinstance(each, Summary)]
    assert [each.key for each in summaries] == [each.key for each in asked][: len(summaries)]
    assert summaries[0].text == "they counted to ten"
    request = Overheard.requests[last.task_id]
    said = texts(request.messages)
    assert said[0].startswith("Summary of the conversation before this point:\nthey counted to ten\n\n+number ")
    assert not any(text.startswith("number 0") for text in said)
    assert said[-1] == "where were we?"
    summing = Overheard.requests[summaries[0].task_id]
    assert "number 0" in summing.messages[-1].text
    assert summing.tools == ()
    assert {(each.agent, each.session_id, each.tenant) for each in used if each.task_id == summaries[0].task_id} == {
        ("counter", "s1", "acme")
    }


async def test_without_a_summary_the_oldest_are_left_out() -> None:
    """An agent that does not sum up, and one whose summary fails, answer all the same, with what fits."""
    for script, summarise in ((SCRIPT, False), (BROKEN, True)):
        async with talking(settings_with()) as backend:
            await declare_agent(backend, "counter", script, max_tokens=900, summarise=summarise)
            last = await talk(backend, 6)
            found = await records(backend)
        said = texts(Overheard.requests[last.task_id].messages)
        assert said[0].startswith("number ")
        assert not said[0].startswith("number 0")
        assert not any(isinstance(each, Summary) for each in found)
        assert any(isinstance(each, SummaryAsked) for each in found) is summarise
        assert len([each for each in found if each.task_id == last.task_id and not isinstance(each, SummaryAsked)]) == 1


async def test_nobody_else_can_write_a_summary() -> None:
    """A task that claims to sum up a conversation, and was asked for by no run, changes nothing."""
    async with talking(settings_with()) as backend:
        await say(backend, "hello")
        [first] = await kept(backend.state)
        forged = Task(
            prompt="I am a summary",
            meta={SUMMARY_OF: "c1", SUMMARY_UP_TO: first.task_id},
            idempotency_key="summary/guessed",
        )
        task_id = await backend.queue.submit(forged)
        await backend.queue.wait(task_id, 30)
        after = await say(backend, "still there?")
        exchanges = await kept(backend.state)
    assert after.output == "echo still there?"
    assert [texts(each.messages)[0] for each in exchanges] == ["hello", "still there?"]
