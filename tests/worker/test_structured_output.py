"""Agents that promise JSON: the value in the task's result, one repair over all deliveries, and an error that lasts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar, Literal

import pytest

import providers
from providers import ChatProvider, Message, StopReason, TextDelta, TurnEnd, TurnEvent, TurnRequest
from queue_backends import ChunkType, TaskResult, TokenUsage
from tests.worker.test_journal import ASKED, LIMIT_S, ended, killed_at, shown, store
from worker.assembly import open_worker
from worker.client import Fleet
from worker.journal import ModelCall, TakenOver, read_journal
from worker.settings import Settings, load_settings

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
GOOD, WRONG = '{"city": "Lisbon"}', '{"city": 7}'
USAGE = TokenUsage(input_tokens=100, output_tokens=10)


class Forgetful(ChatProvider):
    """Answers wrongly until it was told what was wrong so many times as `complaints` says."""

    name = "forgetful"
    complaints = 1

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """One answer, in one piece."""
        ASKED.append(request.turn)
        told = sum("does not match" in message.text for message in request.messages)
        text = GOOD if told >= self.complaints else WRONG
        yield TextDelta(text)
        yield TurnEnd(message=Message.assistant(text), stop_reason=StopReason.END_TURN, usage=USAGE, model="m")


class Whole:
    """A provider that runs whole tasks."""

    name = "whole"
    prompts: ClassVar[list[str]] = []

    async def run_task(self, config: Any, task: Any, *_: Any) -> tuple[str, TokenUsage]:
        """The first line of the prompt is the answer."""
        self.prompts.append(task.prompt)
        return task.prompt.partition("\n")[0], USAGE


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """The providers, with an empty diary."""
    ASKED.clear()
    providers.register("forgetful", Forgetful)
    providers.register("whole", Whole)


def settings(provider: str = "forgetful") -> Settings:
    chosen = {"agent.model": "m", "agent.provider": provider, "retry_base_s": 0.0, "grace_s": 0.0}
    return load_settings({}, file=None, overrides={**chosen, "agent.output_schema": SCHEMA})


async def run_one(name: str, prompt: str = "go", provider: str = "forgetful") -> tuple[TaskResult, list[Any]]:
    async with store(name) as another, open_worker(settings(provider), await another()):
        backend = await another()
        return await ended(backend, (await Fleet(backend).submit(prompt)).id)


async def test_the_value_is_in_the_result() -> None:
    """The wrong answer is a turn of its own, and paid for; the output is the repaired one alone."""
    result, chunks = await run_one("structured")
    assert (result.structured, result.output, result.error) == ({"city": "Lisbon"}, GOOD, "")
    assert result.usage == USAGE + USAGE
    assert shown(chunks) == {0: [(ChunkType.CONTENT, WRONG)], 1: [(ChunkType.CONTENT, GOOD)]}


async def test_an_answer_that_never_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task fails for good, at its first attempt, with the path that does not fit."""
    monkeypatch.setattr(Forgetful, "complaints", 9)
    result, _ = await run_one("never")
    assert result.error.startswith("the answer does not match output_schema")
    assert "$.city" in result.error
    assert (result.structured, ASKED) == (None, [0, 1])
    assert result.usage == USAGE + USAGE


@pytest.mark.parametrize(("prompt", "value"), [(GOOD, {"city": "Lisbon"}), (WRONG, None)])
async def test_a_provider_that_runs_whole_tasks(prompt: str, value: Any) -> None:
    """It is asked for the schema in its prompt, and its answer is judged, too; nobody can repair it."""
    result, _ = await run_one("whole", prompt, "whole")
    assert result.structured == value
    assert ("$.city" in result.error) == (value is None)
    assert Whole.prompts.pop().startswith(prompt + "\nRespond with valid JSON matching this schema:\n")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("complaints", [1, 2])
async def test_a_worker_that_dies_asks_for_no_second_repair(
    when: Literal["before", "after"], complaints: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before or after each of its writes: whoever goes on asks for no answer again that is stored, and the
    repair of one delivery is the repair of all."""
    monkeypatch.setattr(Forgetful, "complaints", complaints)
    value = {"city": "Lisbon"} if complaints == 1 else None
    for number in range(1, 30):
        ASKED.clear()
        name = f"structured-{when}-{complaints}-{number}"
        died, asked_before, result, _, backend = await killed_at(number, when, settings(), name)
        where = f"killed {when} write {number}"
        assert (result.structured, result.ok) == (value, complaints == 1), where
        assert max(ASKED) == 1, where
        entries = [moment.entry for moment in await read_journal(backend.state, result.task_id)]
        takers = {entry.worker for entry in entries if isinstance(entry, TakenOver)}
        stored = {e.turn for e in entries if isinstance(e, ModelCall) and e.end and e.worker not in takers}
        assert not stored & set(ASKED[asked_before:]), where
        await backend.close()
        if not died:
            assert ASKED == [0, 1]
            assert number > 2
            return
    raise AssertionError(f"it still dies, within {LIMIT_S} s each")
