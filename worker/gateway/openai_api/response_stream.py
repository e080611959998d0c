"""A response's events as they are sent, and a response as a whole, both made of its task's chunks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec import convert

from providers import ToolCall
from queue_backends import Chunk, TaskResult
from queue_backends.messages import JsonObject, encode_json
from worker.gateway.ingress.exact_text import exact_text
from worker.gateway.ingress.narration import ClientCall, Ended, Failed, Said
from worker.gateway.ingress.streaming import problem_in_stream, when_cut_off
from worker.gateway.ingress.telling import told
from worker.gateway.openai_api.response_events import ResponseEvents
from worker.gateway.openai_api.response_store import ResponseRecord
from worker.gateway.operation import Call
from worker.gateway.problem import Problem, shutting_down
from worker.gateway.sse import SseEvent


async def built(
    call: Call, building: ResponseEvents, chunks: AsyncGenerator[Chunk, None]
) -> AsyncGenerator[JsonObject, None]:
    """The events of a response, from the first on."""
    record = building.record
    for event in building.begin():
        yield event
    async with aclosing(told(call, chunks)) as narrated:
        async for happened in narrated:
            if isinstance(happened, Ended) and record.has_schema and not happened.calls:
                for event in building.answer(await exact_text(call, record.task_id)):
                    yield event
            for event in building.add(happened):
                yield event


async def response_sse(
    call: Call, record: ResponseRecord, chunks: AsyncGenerator[Chunk, None], *, starting_after: int = -1
) -> AsyncGenerator[SseEvent, None]:
    """The events that follow number `starting_after`."""
    number = starting_after
    building = ResponseEvents(record)

    def broken_off(problem: Problem) -> SseEvent:
        # It is none of the response's own events: who goes on after its number must not miss the next one.
        said = {"type": "error", "code": problem.code or "server_error", "message": problem.detail, "param": None}
        return SseEvent(encode_json({**said, "sequence_number": max(number, 0)}), "error")

    when_cut_off(call, broken_off)
    try:
        async with aclosing(built(call, building, chunks)) as events:
            async for event in events:
                if event["sequence_number"] > starting_after:
                    number = event["sequence_number"]
                    yield SseEvent(encode_json(event), event["type"])
        if building.final is None:
            raise shutting_down()  # noqa: TRY301 - told like any other
    except Exception as error:  # noqa: BLE001 - the stream has begun: whatever it is, it is told in it
        yield broken_off(problem_in_stream(call, error))


async def whole(call: Call, record: ResponseRecord, chunks: AsyncGenerator[Chunk, None]) -> JsonObject | None:
    """The response of a run, once it has ended; None if the gateway is shutting down before."""
    building = ResponseEvents(record)
    async with aclosing(built(call, building, chunks)) as events:
        async for _ in events:
            continue
    return building.final


def remembered(record: ResponseRecord, result: TaskResult) -> JsonObject:
    """The response of a run whose chunks are not kept any more: its last text and its calls."""
    building = ResponseEvents(record)
    end: Ended | Failed = Failed(message=result.error, usage=result.usage)
    if result.ok:
        calls = tuple(_client_call(convert(made, ToolCall)) for made in result.tool_calls)
        end = Ended(stop_reason=result.stop_reason, usage=result.usage, calls=calls)
        if result.output:
            for _ in (
                building.answer(result.output) if record.has_schema else building.add(Said(result.output, 0, True))
            ):
                continue
    for _ in building.add(end):
        continue
    assert building.final is not None  # noqa: S101 - an end makes it
    return building.final


def _client_call(made: ToolCall) -> ClientCall:
    return ClientCall(made.name, made.arguments)
