"""From a Responses request to what is asked of an agent, the conversation before it included."""

from __future__ import annotations

import time

import msgspec
from msgspec import Struct

from providers import Message, Role, TextPart, ToolCall
from queue_backends.messages import JsonObject
from worker.gateway.ingress.ask import Ask, addressed, plain
from worker.gateway.ingress.call_ids import call_id
from worker.gateway.openai_api.input_items import Input, input_of, items_of
from worker.gateway.openai_api.parameters import (
    check_count,
    check_range,
    choice_of,
    meta_of,
    priority_of,
    refused,
    thinking_of,
    tool_of,
)
from worker.gateway.openai_api.response_object import echo_of
from worker.gateway.openai_api.response_request import ResponseRequest, TextConfig
from worker.gateway.openai_api.response_store import ResponseRecord, stored
from worker.gateway.operation import Call
from worker.journal import entries_of, read_journal
from worker.recall import conversation_of


class Before(Struct, frozen=True, kw_only=True):
    """What a request continues."""

    messages: tuple[Message, ...] = ()
    open_calls: dict[str, str] = {}
    """Ids, as the client knows them, and names of the calls that it ends with."""


async def before(call: Call, response_id: str | None) -> Before:
    """The conversation up to the end of a stored response. Raises `TaskNotFound`, or `Problem` 400 if it has no end."""
    if not response_id:
        return Before()
    record = await stored(call, response_id)
    backend = call.gateway.backend
    [result] = await backend.queue.results([record.task_id])
    if result is None or not result.ok:
        how = "has not ended yet, or too long ago" if result is None else f"has failed: {result.error[:200]}"
        raise refused("previous_response_id", f"response {response_id[:100]!r} {how}", code="invalid_value")
    earlier = tuple(msgspec.convert(message, Message) for message in record.messages)
    if not result.tool_calls:
        journal = entries_of(await read_journal(backend.state, record.task_id))
        return Before(messages=(*earlier, *conversation_of(journal, result.output)))
    handed = result.tool_calls[: None if record.parallel_calls else 1]
    calls = tuple(
        ToolCall(id=call_id(record.task_id, position), name=made["name"], arguments=made["arguments"])
        for position, made in enumerate(handed)
    )
    text = (TextPart(text=result.output),) if result.output else ()
    said = Message(role=Role.ASSISTANT, parts=(*text, *calls))
    return Before(messages=(*earlier, said), open_calls={made.id: made.name for made in calls})


def ask_of(request: ResponseRequest, past: Before) -> Ask:
    """Raises `Problem` 400 for what cannot be served."""
    _check(request)
    given = _input(request, past)
    tools = tuple(
        tool_of(tool.name, tool.description, tool.parameters, f"tools[{index}]")
        for index, tool in enumerate(request.tools or ())
    )
    choice = choice_of(request.tool_choice, tools)
    if choice.allowed is not None:
        tools = tuple(tool for tool in tools if tool.name in choice.allowed)
    return Ask(
        agent=request.model,
        messages=(*past.messages, *given.messages),
        instructions="\n\n".join(filter(None, (request.instructions, given.instructions))),
        client_tools=tools,
        tool_choice=choice.choice,
        only_tool=choice.only_tool,
        parallel_calls=request.parallel_tool_calls is not False,
        output_schema=_schema(request.text),
        max_tokens=request.max_output_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        thinking=thinking_of("reasoning.effort", request.reasoning.effort if request.reasoning else None),
        priority=priority_of(request.service_tier),
        meta=meta_of("responses", request.user or request.safety_identifier, request.metadata),
    )


def record_of(request: ResponseRequest, ask: Ask, task_id: str) -> ResponseRecord:
    """What is kept of a request."""
    return ResponseRecord(
        task_id=task_id,
        created_at=int(time.time()),
        model=request.model,
        echo=echo_of(request),
        messages=tuple(plain(message) for message in ask.messages),
        items=tuple(_with_id(item, task_id, index) for index, item in enumerate(items_of(request.input))),
        background=bool(request.background),
        has_schema=ask.output_schema is not None,
        parallel_calls=ask.parallel_calls,
    )


def _with_id(item: JsonObject, task_id: str, index: int) -> JsonObject:
    return {**item, "id": item.get("id") or f"in_{task_id}_{index}"}


def _input(request: ResponseRequest, past: Before) -> Input:
    given = input_of(items_of(request.input), past.open_calls)
    messages, instructions = addressed(given.messages, given.instructions)
    if not messages:
        raise refused("input", "it has no message: give a text or a list of items", code="invalid_value")
    return Input(messages=messages, instructions=instructions)


def _schema(text: TextConfig | None) -> JsonObject | None:
    if text is None or text.format.type == "text":
        return None
    if text.format.type == "json_object":
        return {"type": "object"}
    if text.format.schema is None:
        raise refused("text.format.schema", "it is missing", code="invalid_value")
    return text.format.schema


def _check(request: ResponseRequest) -> None:
    absent = {
        "conversation": request.conversation,
        "prompt": request.prompt,
        "max_tool_calls": request.max_tool_calls,
        "top_logprobs": request.top_logprobs,
        "context_management": request.context_management,
        "moderation": request.moderation,
    }
    for name, value in absent.items():
        if value:
            raise refused(name, "it is not supported here: leave it out")
    if request.truncation not in (None, "disabled"):
        raise refused("truncation", f"{request.truncation[:50]!r} is not supported: leave it out")
    if request.background and request.store is False:
        raise refused("background", "it needs 'store': true", code="invalid_value")
    check_range("temperature", request.temperature, 0, 2)
    check_range("top_p", request.top_p, 0, 1)
    check_count("max_output_tokens", request.max_output_tokens)
