"""`POST /v1/messages` and `POST /v1/messages/count_tokens`."""

from __future__ import annotations

from contextlib import aclosing

from starlette.responses import Response

from queue_backends.messages import JsonObject
from worker.gateway.anthropic_api.answer import message_events, message_sse
from worker.gateway.anthropic_api.message_events import MessageEvents, MessageForm
from worker.gateway.anthropic_api.request import CountRequest, MessagesRequest
from worker.gateway.anthropic_api.translation import ask_of, conversation_of, instructions_of, tools_of
from worker.gateway.ingress.ask import Ask
from worker.gateway.ingress.recollection import with_recollection
from worker.gateway.ingress.streaming import streamed
from worker.gateway.ingress.submission import submit
from worker.gateway.ingress.watch import Watch, in_one_piece
from worker.gateway.operation import Call


async def create_message(call: Call) -> JsonObject | Response:
    """Have an agent answer a conversation."""
    request: MessagesRequest = call.body
    ask = await with_recollection(call, ask_of(request))
    streams = bool(request.stream)
    submitted = await submit(call, ask, api="messages", waits=not streams)
    form = _form(request, ask, submitted.task_id)
    watch = Watch(call, submitted)
    if streams:
        return await streamed(call, watch, lambda chunks: message_sse(call, form, chunks))
    return await in_one_piece(call, watch, _whole(call, form, watch))


async def _whole(call: Call, form: MessageForm, watch: Watch) -> JsonObject:
    building = MessageEvents(form)
    async with aclosing(message_events(call, form, building, watch.chunks())) as events:
        async for _ in events:
            continue
    return building.message()


def _form(request: MessagesRequest, ask: Ask, task_id: str) -> MessageForm:
    thinking = request.thinking
    return MessageForm(
        task_id=task_id,
        model=request.model,
        has_schema=ask.output_schema is not None,
        parallel_calls=ask.parallel_calls,
        shows_thinking=thinking is not None and thinking.type != "disabled" and thinking.display != "omitted",
    )


async def count_tokens(call: Call) -> JsonObject:
    """How many input tokens a conversation is for an agent's model, the agent's own prompt included; of its own tools,
    nothing is counted."""
    request: CountRequest = call.body
    ask = Ask(
        agent=request.model,
        messages=conversation_of(request.messages),
        instructions=instructions_of(request),
        client_tools=tools_of(request.tools),
    )
    return {"input_tokens": await call.gateway.model_access.count_tokens(call, ask)}
