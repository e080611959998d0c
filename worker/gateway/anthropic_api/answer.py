"""A run's answer as a message of Anthropic's, as its client gets it: in one piece or as a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from queue_backends import Chunk
from queue_backends.messages import JsonObject, encode_json
from worker.gateway.anthropic_api.message_events import MessageEvents, MessageForm
from worker.gateway.ingress.exact_text import exact_text
from worker.gateway.ingress.failures import began_anew, problem_of_end
from worker.gateway.ingress.narration import Ended, Withdrawn
from worker.gateway.ingress.streaming import problem_body, problem_in_stream, when_cut_off
from worker.gateway.ingress.telling import told
from worker.gateway.operation import Call
from worker.gateway.problem import ErrorStyle, Problem
from worker.gateway.sse import SseEvent


async def message_events(
    call: Call, form: MessageForm, building: MessageEvents, chunks: AsyncGenerator[Chunk, None]
) -> AsyncGenerator[JsonObject, None]:
    """The events of a message, from the first on."""
    for event in building.begin():
        yield event
    async with aclosing(told(call, chunks)) as narrated:
        async for happened in narrated:
            if isinstance(happened, Ended) and form.has_schema and not happened.calls:
                for event in building.answer(await exact_text(call, form.task_id)):
                    yield event
            for event in building.add(happened):
                yield event
            if isinstance(happened, Withdrawn) and building.text_turn >= happened.turn:
                yield {"type": _WITHDRAWN}


_WITHDRAWN = "withdrawn"
"""Is never sent: a stream ends with an error there, and a message in one piece goes on."""


async def message_sse(
    call: Call, form: MessageForm, chunks: AsyncGenerator[Chunk, None]
) -> AsyncGenerator[SseEvent, None]:
    """The answer as it comes; an error instead, if it comes to that."""
    building = MessageEvents(form)

    def broken_off(problem: Problem) -> SseEvent:
        return SseEvent(problem_body(call, problem), "error")

    when_cut_off(call, broken_off)
    try:
        async with aclosing(message_events(call, form, building, chunks)) as events:
            async for event in events:
                if event["type"] == _WITHDRAWN:
                    raise began_anew()  # noqa: TRY301 - told like any other
                yield SseEvent(encode_json(event), event["type"])
        if not isinstance(building.end, Ended):
            raise problem_of_end(building.end, ErrorStyle.ANTHROPIC)  # noqa: TRY301 - as above
    except Exception as error:  # noqa: BLE001 - the stream has begun: whatever it is, it is told in it
        yield broken_off(problem_in_stream(call, error))
