"""The operations of OpenAI's API."""

from __future__ import annotations

from queue_backends.messages import JsonObject
from worker.gateway.caller import Scope
from worker.gateway.openai_api.chat import create_chat_completion
from worker.gateway.openai_api.chat_request import ChatRequest
from worker.gateway.openai_api.embeddings import EmbeddingRequest, create_embeddings
from worker.gateway.openai_api.models import ModelsQuery, get_model, list_models
from worker.gateway.openai_api.response_request import InputItemsQuery, ResponseQuery, ResponseRequest
from worker.gateway.openai_api.responses import (
    cancel_response,
    create_response,
    delete_response,
    get_response,
    list_input_items,
)
from worker.gateway.operation import Operation
from worker.gateway.problem import ErrorStyle

TAG = "OpenAI"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="POST",
        path="/v1/chat/completions",
        handler=create_chat_completion,
        summary="Have an agent answer a conversation (OpenAI Chat Completions)",
        scope=Scope.AGENTS_USE,
        tag=TAG,
        body=ChatRequest,
        result=JsonObject,
        errors=(402, 404, 409, 502, 504),
        style=ErrorStyle.OPENAI,
    ),
    Operation(
        method="POST",
        path="/v1/responses",
        handler=create_response,
        summary="Have an agent answer (OpenAI Responses)",
        scope=Scope.AGENTS_USE,
        tag=TAG,
        body=ResponseRequest,
        result=JsonObject,
        errors=(402, 404, 409, 502, 504),
        style=ErrorStyle.OPENAI,
    ),
    Operation(
        method="GET",
        path="/v1/responses/{id}",
        handler=get_response,
        summary="A stored response, or its events from any one on",
        scope=Scope.AGENTS_USE,
        tag=TAG,
        query=ResponseQuery,
        result=JsonObject,
        errors=(404, 410),
        style=ErrorStyle.OPENAI,
    ),
    Operation(
        method="DELETE",
        path="/v1/responses/{id}",
        handler=delete_response,
        summary="Forget a stored response",
        scope=Scope.AGENTS_USE,
        tag=TAG,
        result=JsonObject,
        errors=(404,),
        style=ErrorStyle.OPENAI,
    ),
    Operation(
        method="POST",
        path="/v1/responses/{id}/cancel",
        handler=cancel_response,
        summary="End a background response",
        scope=Scope.AGENTS_USE,
        tag=TAG,
        result=JsonObject,
        errors=(404,),
        style=ErrorStyle.OPENAI,
    ),
    Operation(
        method="GET",
        path="/v1/responses/{id}/input_items",
        handler=list_input_items,
        summary="The input of a stored response",
        scope=Scope.AGENTS_USE,
        tag=TAG,
        query=InputItemsQuery,
        result=JsonObject,
        errors=(404,),
        style=ErrorStyle.OPENAI,
    ),
    Operation(
        method="POST",
        path="/v1/embeddings",
        handler=create_embeddings,
        summary="Turn texts into vectors",
        scope=Scope.AGENTS_USE,
        tag=TAG,
        body=EmbeddingRequest,
        result=JsonObject,
        errors=(404, 502, 504),
        style=ErrorStyle.OPENAI,
    ),
    Operation(
        method="GET",
        path="/v1/models",
        handler=list_models,
        summary="The agents that the caller may use, as models",
        scope=Scope.AGENTS_USE,
        tag=TAG,
        query=ModelsQuery,
        result=JsonObject,
        style=ErrorStyle.OPENAI,
    ),
    Operation(
        method="GET",
        path="/v1/models/{id}",
        handler=get_model,
        summary="An agent, as a model",
        scope=Scope.AGENTS_USE,
        tag=TAG,
        result=JsonObject,
        errors=(404,),
        style=ErrorStyle.OPENAI,
    ),
)
