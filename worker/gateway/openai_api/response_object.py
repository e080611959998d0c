"""The response object. Pure.

Source: https://platform.openai.com/docs/api-reference/responses/object
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from queue_backends import TokenUsage
from queue_backends.messages import JsonObject
from worker.gateway.ingress.failures import meaning_of, message_of
from worker.gateway.ingress.narration import Ended, Failed
from worker.gateway.openai_api.response_request import ResponseRequest, TextConfig
from worker.gateway.openai_api.response_store import ResponseRecord

_INCOMPLETE = {"max_tokens": "max_output_tokens", "refusal": "content_filter"}


def echo_of(request: ResponseRequest) -> JsonObject:
    """What a response says again of its request."""
    reasoning = request.reasoning
    return {
        "instructions": request.instructions,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_output_tokens": request.max_output_tokens,
        "previous_response_id": request.previous_response_id,
        "reasoning": {"effort": reasoning.effort if reasoning else None, "summary": None},
        "service_tier": request.service_tier or "auto",
        "store": request.store is not False,
        "text": msgspec.to_builtins(request.text or TextConfig()),
        "tool_choice": request.tool_choice or "auto",
        "tools": [msgspec.to_builtins(tool) for tool in request.tools or ()],
        "truncation": "disabled",
        "user": request.user,
    }


def response_object(
    record: ResponseRecord,
    status: str,
    output: Sequence[JsonObject] = (),
    *,
    usage: TokenUsage | None = None,
    failed: Failed | None = None,
    incomplete: str = "",
) -> JsonObject:
    """A response as it stands. `incomplete`: why the answer is not whole."""
    return {
        "id": record.id,
        "object": "response",
        "created_at": record.created_at,
        "status": status,
        "background": record.background,
        "error": None if failed is None or failed.is_cancelled else _error(failed),
        "incomplete_details": {"reason": incomplete} if incomplete else None,
        "model": record.model,
        "output": list(output),
        "usage": None if usage is None else usage_of(usage),
        **record.echo,
    }


def ended_response(record: ResponseRecord, end: Ended | Failed, output: Sequence[JsonObject]) -> JsonObject:
    """A response whose run has ended."""
    if isinstance(end, Failed):
        status = "cancelled" if end.is_cancelled else "failed"
        return response_object(record, status, output, usage=end.usage, failed=end)
    why = incomplete_reason(end)
    return response_object(record, "incomplete" if why else "completed", output, usage=end.usage, incomplete=why)


def incomplete_reason(end: Ended) -> str:
    """Why an answer is not whole; empty if it is."""
    return _INCOMPLETE.get(end.stop_reason, "")


def _error(failed: Failed) -> JsonObject:
    status = meaning_of(failed).status
    code = {429: "rate_limit_exceeded", 400: "invalid_prompt"}.get(status, "server_error")
    return {"code": code, "message": message_of(failed)}


def usage_of(usage: TokenUsage) -> JsonObject:
    """The tokens of all the run's model calls."""
    return {
        "input_tokens": usage.input_tokens or 0,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens or 0,
            "cache_write_tokens": usage.cache_write_tokens or 0,
        },
        "output_tokens": usage.output_tokens or 0,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens or 0},
        "total_tokens": usage.total_tokens,
    }
