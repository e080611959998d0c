"""`POST /v1/chat/completions`."""

from __future__ import annotations

import time

from starlette.responses import Response

from queue_backends.messages import JsonObject
from worker.gateway.ingress.ask import Ask
from worker.gateway.ingress.recollection import with_recollection
from worker.gateway.ingress.streaming import streamed
from worker.gateway.ingress.submission import submit
from worker.gateway.ingress.transcript import transcribed
from worker.gateway.ingress.watch import Watch, in_one_piece
from worker.gateway.openai_api.chat_answer import ChatForm, completion, completion_events
from worker.gateway.openai_api.chat_request import ChatRequest
from worker.gateway.openai_api.chat_translation import ask_of
from worker.gateway.operation import Call


async def create_chat_completion(call: Call) -> JsonObject | Response:
    """Have an agent answer a conversation."""
    request: ChatRequest = call.body
    ask = await with_recollection(call, ask_of(request))
    streams = bool(request.stream)
    submitted = await submit(call, ask, api="chat.completions", waits=not streams)
    form = _form(request, ask, submitted.task_id)
    watch = Watch(call, submitted)
    if streams:
        return await streamed(call, watch, lambda chunks: completion_events(call, form, chunks))
    return await in_one_piece(call, watch, _whole(call, form, watch))


async def _whole(call: Call, form: ChatForm, watch: Watch) -> JsonObject:
    return await completion(call, form, await transcribed(call, watch.chunks()))


def _form(request: ChatRequest, ask: Ask, task_id: str) -> ChatForm:
    options = request.stream_options
    return ChatForm(
        task_id=task_id,
        model=request.model,
        created=int(time.time()),
        has_schema=ask.output_schema is not None,
        parallel_calls=ask.parallel_calls,
        include_usage=bool(options and options.include_usage),
    )
