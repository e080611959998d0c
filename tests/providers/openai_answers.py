"""What OpenAI and Azure answer to calls that are not streamed, for the conformance suites of their providers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

ERROR = b'{"error":{"message":"the reason","type":"some_error","param":null,"code":null}}'
CONTEXT_ERROR = json.dumps(
    {
        "error": {
            "message": "Your input exceeds the context window of this model. Please adjust your input and try again.",
            "type": "invalid_request_error",
            "param": "input",
            "code": "context_length_exceeded",
        }
    }
).encode()


def response(text: str, **more: Any) -> dict[str, Any]:
    """A response of the Responses API with one message."""
    content = [{"type": "output_text", "annotations": [], "logprobs": [], "text": text}]
    message = {"id": "msg_1", "type": "message", "status": "completed", "content": content, "role": "assistant"}
    usage = {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 34,
    }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1790000000,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "gpt-5-mini-2025-08-07",
        "output": [message] if text else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
        **more,
    }


def completion(text: str) -> dict[str, Any]:
    """A chat completion."""
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1790000000,
        "model": "gpt-4.1-mini-2025-04-14",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 34},
    }


def embeddings(vectors: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Vectors in order."""
    data = [{"object": "embedding", "index": index, "embedding": list(each)} for index, each in enumerate(vectors)]
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    return {"object": "list", "data": data, "model": "text-embedding-3-small", "usage": usage}
