"""The operations of Anthropic's API. Its list of models is OpenAI's, answered in its own form."""

from __future__ import annotations

from queue_backends.messages import JsonObject
from worker.gateway.anthropic_api.messages import count_tokens, create_message
from worker.gateway.anthropic_api.request import CountRequest, MessagesRequest
from worker.gateway.caller import Scope
from worker.gateway.operation import Operation
from worker.gateway.problem import ErrorStyle

TAG = "Anthropic"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="POST",
        path="/v1/messages",
        handler=create_message,
        summary="Have an agent answer a conversation (Anthropic Messages)",
        scope=Scope.AGENTS_USE,
        tag=TAG,
        body=MessagesRequest,
        result=JsonObject,
        errors=(402, 404, 409, 502, 504),
        style=ErrorStyle.ANTHROPIC,
    ),
    Operation(
        method="POST",
        path="/v1/messages/count_tokens",
        handler=count_tokens,
        summary="How many input tokens a conversation is",
        scope=Scope.AGENTS_USE,
        tag=TAG,
        body=CountRequest,
        result=JsonObject,
        errors=(404, 502, 504),
        style=ErrorStyle.ANTHROPIC,
    ),
)
