"""What a client cannot send back: what a run did before it ended with calls for its client.

A client knows the calls and answers them. What the agent's own tools said in the same run, and the model's reasoning,
are in the run's journal; a request that continues the run gets them from there. If the journal is gone, the
conversation
goes on with what the client sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec.structs import replace

from providers import Message, Role, ToolCall, ToolOutcome
from providers.tool_loop import arguments_of
from worker.gateway.ingress.ask import Ask
from worker.gateway.ingress.audience import is_own
from worker.gateway.ingress.call_ids import CallAddress, call_address
from worker.gateway.operation import Call
from worker.journal import entries_of, read_journal
from worker.recall import conversation_of

MOST_RUNS = 100
"""Of one conversation: so many of the latest are looked up."""


async def with_recollection(call: Call, ask: Ask) -> Ask:
    """The request with what earlier runs have left for its conversation."""
    if not any(message.tool_calls for message in ask.messages):
        return ask
    return replace(ask, messages=await recollected(call, ask.messages))


async def recollected(call: Call, messages: Sequence[Message]) -> tuple[Message, ...]:
    """The conversation, with the runs of its calls as they were."""
    found: list[Message] = []
    names: dict[str, str] = {}
    asking = [index for index, message in enumerate(messages) if message.role is Role.ASSISTANT and message.tool_calls]
    looked_up = set(asking[-MOST_RUNS:])
    for index, message in enumerate(messages):
        run = await _run_of(call, message) if index in looked_up else None
        if run is None:
            found.append(_renamed(message, names))
            continue
        handed, said = run
        names.update(handed)
        found.extend(said)
    return tuple(_joined(found))


async def _run_of(call: Call, message: Message) -> tuple[Mapping[str, str], list[Message]] | None:
    """The run that ended with a message's calls: their ids by those that the client knows, and its messages."""
    addresses = [call_address(made.id) for made in message.tool_calls]
    task_ids = {address.task_id for address in addresses if address is not None}
    if None in addresses or len(task_ids) != 1 or not await is_own(call, task_id := task_ids.pop()):
        return None
    backend = call.gateway.backend
    [result] = await backend.queue.results([task_id])
    if result is None or not result.tool_calls:
        return None
    journal = entries_of(await read_journal(backend.state, task_id))
    said = conversation_of(journal, "", left_open={made["id"] for made in result.tool_calls})
    return _matched(message.tool_calls, [address for address in addresses if address], result.tool_calls, said)


def _matched(
    shown: Sequence[ToolCall],
    addresses: Sequence[CallAddress],
    ended_with: Sequence[Mapping[str, str]],
    said: Sequence[Message],
) -> tuple[Mapping[str, str], list[Message]] | None:
    names: dict[str, str] = {}
    for made, address in zip(shown, addresses, strict=True):
        if address.position >= len(ended_with):
            return None
        original = msgspec.convert(ended_with[address.position], ToolCall)
        if original.name != made.name or arguments_of(original) != arguments_of(made):
            return None  # the client has changed what it was asked for
        names[made.id] = original.id
    left_out = {call["id"] for call in ended_with} - set(names.values())
    return names, [_without(message, left_out) for message in said]


def _without(message: Message, left_out: set[str]) -> Message:
    """The message without calls that the client was not shown."""
    parts = tuple(part for part in message.parts if not (isinstance(part, ToolCall) and part.id in left_out))
    return replace(message, parts=parts)


def _renamed(message: Message, names: Mapping[str, str]) -> Message:
    if not names or message.role is Role.ASSISTANT:
        return message
    parts = [
        replace(part, call_id=names.get(part.call_id, part.call_id)) if isinstance(part, ToolOutcome) else part
        for part in message.parts
    ]
    return replace(message, parts=tuple(parts))


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Outcomes of one turn stand in one message: those of the agent's own tools, then the client's."""
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else None
        if last is not None and _has_outcomes(last) and _has_outcomes(message):
            joined[-1] = replace(last, parts=(*last.parts, *message.parts))
        else:
            joined.append(message)
    return joined


def _has_outcomes(message: Message) -> bool:
    return message.role is Role.USER and any(isinstance(part, ToolOutcome) for part in message.parts)
