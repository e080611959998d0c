"""The vendors' streaming formats, as the model server for measurements speaks them."""

from __future__ import annotations

import json
from typing import ClassVar, Protocol


class Format(Protocol):
    """One vendor's stream: what comes before the text, a piece of it, and what comes after."""

    content_type: str

    def begin(self) -> list[str]: ...

    def text(self, text: str) -> str: ...

    def end(self, chunks: int) -> list[str]: ...


class OpenAIFormat:
    """https://platform.openai.com/docs/api-reference/chat-streaming"""

    content_type = "text/event-stream"

    def begin(self) -> list[str]:
        return [self._event({"role": "assistant", "content": ""})]

    def text(self, text: str) -> str:
        return self._event({"content": text})

    def end(self, chunks: int) -> list[str]:
        usage = {"prompt_tokens": 20, "completion_tokens": chunks, "total_tokens": chunks + 20}
        last = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "replay", "choices": []}
        return [self._event({}, "stop"), f"data: {json.dumps({**last, 'usage': usage})}\n\n", "data: [DONE]\n\n"]

    def _event(self, delta: dict[str, str], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "replay", "choices": [choice]}
        return f"data: {json.dumps(chunk)}\n\n"


class AnthropicFormat:
    """https://docs.anthropic.com/en/api/messages-streaming"""

    content_type = "text/event-stream"

    def begin(self) -> list[str]:
        message = {"id": "m1", "type": "message", "role": "assistant", "model": "replay", "content": []}
        usage = {"input_tokens": 20, "output_tokens": 1}
        start = {**message, "stop_reason": None, "stop_sequence": None, "usage": usage}
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        return [_named({"type": "message_start", "message": start}), _named(block)]

    def text(self, text: str) -> str:
        delta = {"type": "text_delta", "text": text}
        return _named({"type": "content_block_delta", "index": 0, "delta": delta})

    def end(self, chunks: int) -> list[str]:
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        return [
            _named({"type": "content_block_stop", "index": 0}),
            _named({"type": "message_delta", "delta": delta, "usage": {"output_tokens": chunks}}),
            _named({"type": "message_stop"}),
        ]


class ResponsesFormat:
    """https://platform.openai.com/docs/api-reference/responses-streaming"""

    content_type = "text/event-stream"
    _place: ClassVar[dict[str, object]] = {
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "sequence_number": 1,
    }

    def begin(self) -> list[str]:
        message = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
        response = self._response("in_progress", [])
        return [
            _named({"type": "response.created", "response": response, "sequence_number": 0}),
            _named({"type": "response.in_progress", "response": response, "sequence_number": 1}),
            _named({"type": "response.output_item.added", "output_index": 0, "item": message, "sequence_number": 2}),
            _named({"type": "response.content_part.added", **self._place, "part": part}),
        ]

    def text(self, text: str) -> str:
        return _named({"type": "response.output_text.delta", **self._place, "delta": text, "logprobs": []})

    def end(self, chunks: int) -> list[str]:
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
        message = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
        response = self._response("completed", [message])
        response["usage"] = {
            "input_tokens": 20,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": chunks,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": chunks + 20,
        }
        return [
            _named({"type": "response.content_part.done", **self._place, "part": part}),
            _named({"type": "response.output_item.done", "output_index": 0, "item": message, "sequence_number": 8}),
            _named({"type": "response.completed", "response": response, "sequence_number": 9}),
        ]

    def _response(self, status: str, output: list[object]) -> dict[str, object]:
        fixed: dict[str, object] = {"id": "resp_1", "object": "response", "created_at": 1, "model": "replay"}
        rest = {
            "error": None,
            "incomplete_details": None,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
        return {**fixed, "status": status, "output": output, "usage": None, **rest}


class GeminiFormat:
    """https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent"""

    content_type = "text/event-stream"

    def begin(self) -> list[str]:
        return []

    def text(self, text: str) -> str:
        return self._event(text, 1)

    def end(self, chunks: int) -> list[str]:
        return [self._event("", chunks, finishReason="STOP")]

    def _event(self, text: str, chunks: int, **more: str) -> str:
        candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0, **more}
        usage = {"promptTokenCount": 20, "candidatesTokenCount": chunks, "totalTokenCount": chunks + 20}
        event = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "replay", "responseId": "r1"}
        return f"data: {json.dumps(event)}\r\n\r\n"


class OllamaFormat:
    """https://docs.ollama.com/api/chat"""

    content_type = "application/x-ndjson"

    def begin(self) -> list[str]:
        return []

    def text(self, text: str) -> str:
        return self._line(text, done=False)

    def end(self, chunks: int) -> list[str]:
        counts = {"prompt_eval_count": 20, "eval_count": chunks, "total_duration": 1, "eval_duration": 1}
        return [self._line("", done=True, done_reason="stop", **counts)]

    def _line(self, text: str, **more: object) -> str:
        message = {"role": "assistant", "content": text}
        return json.dumps({"model": "replay", "created_at": "2026-11-21T12:00:00Z", "message": message, **more}) + "\n"


FORMATS: dict[str, type[Format]] = {
    "/chat/completions": OpenAIFormat,
    "/messages": AnthropicFormat,
    "/responses": ResponsesFormat,
    ":streamGenerateContent": GeminiFormat,
    "/api/chat": OllamaFormat,
}
"""How a request's path ends, and the format of its answer."""


def format_of(path: str) -> Format:
    """The format of what is asked for; OpenAI's if nothing fits."""
    plain = path.partition("?")[0]
    return next((form() for end, form in FORMATS.items() if plain.endswith(end)), OpenAIFormat())


def _named(event: dict[str, object]) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
