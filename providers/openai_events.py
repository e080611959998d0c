"""From the chunks of an OpenAI chat completion stream to turn events. Pure.

Source: https://platform.openai.com/docs/api-reference/chat-streaming. Compatible servers (Ollama, vLLM, llama.cpp,
OpenRouter, DeepSeek, Mistral, Gemini's compatible API and others) differ in many details, so more is accepted here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from providers.content_filter import filtered_categories
from providers.decoding import UNREADABLE, decoded, unreadable
from providers.errors import BadResponse, ProviderError, Refused, StreamBroken
from providers.http_errors import broken_by, error_body, error_for
from providers.messages import (
    Message,
    Part,
    Role,
    StopReason,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ThinkingPart,
    ToolCall,
    TurnEnd,
    TurnEvent,
    UsageUpdate,
)
from providers.openai_tool_calls import CallDelta, ToolCallAssembly
from queue_backends import TokenUsage

_DONE = b"[DONE]"


class _PromptDetails(Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _CompletionDetails(Struct, gc=False):
    reasoning_tokens: int | None = None


class Usage(Struct, gc=False):
    """Token counts as on the wire; here too the input includes what was cached."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    total_tokens: int | None = None
    prompt_cache_hit_tokens: int | None = None
    """DeepSeek's name for what was read from the cache."""


class _Delta(Struct, gc=False):
    content: str | list[Any] | None = None
    tool_calls: list[CallDelta] | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    refusal: str | None = None


class _Choice(Struct, gc=False):
    index: int | None = None
    delta: _Delta | None = None
    message: _Delta | None = None
    """A server that cannot stream answers in one piece."""
    finish_reason: str | None = None
    content_filter_results: msgspec.Raw = msgspec.Raw(b"")
    """Azure's: what its filter found in this chunk."""


class _Chunk(Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    id: str | None = None
    model: str | None = None
    error: Any = None


_chunk_decoder = msgspec.json.Decoder(_Chunk)
_findings_decoder = msgspec.json.Decoder(Any)

_CUT = frozenset({"length", "content_filter"})

_FINISH_REASONS = {
    "length": StopReason.MAX_TOKENS,
    "content_filter": StopReason.REFUSAL,
}


def error_event(data: bytes, provider: str) -> ProviderError | None:
    """The error that this event reports, if it is one."""
    if b'"error"' not in data or data == _DONE:
        return None
    chunk = _decode(data, provider)
    return _reported(chunk, provider) if chunk.error else None


def neutral_usage(usage: Usage) -> TokenUsage:
    """Counts as ours."""
    prompt = usage.prompt_tokens_details or _PromptDetails()
    completion = usage.completion_tokens_details or _CompletionDetails()
    cached, reasoned, written = prompt.cached_tokens, completion.reasoning_tokens, usage.completion_tokens
    if reasoned and usage.total_tokens == (usage.prompt_tokens or 0) + (written or 0) + reasoned:
        written = (written or 0) + reasoned  # xAI counts the reasoning beside the completion; the vendor, within
    return TokenUsage(
        input_tokens=usage.prompt_tokens,
        output_tokens=written,
        cache_read_tokens=usage.prompt_cache_hit_tokens if cached is None else cached,
        cache_write_tokens=prompt.cache_write_tokens,
        reasoning_tokens=reasoned,
    )


class CompletionReader:
    """Reads one streamed completion, chunk by chunk."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls = ToolCallAssembly()
        self._usage: TokenUsage | None = None
        self._finish_reason: str | None = None
        self._refused = False
        self._filtered = ""
        self._any_choice = False
        self._index: int | None = None
        self._id = ""
        self._model = ""
        self.complete = False
        """The end marker was seen."""

    @property
    def usage(self) -> TokenUsage | None:
        """What is known of the usage so far; None if nothing was reported."""
        return self._usage

    def read(self, data: bytes) -> Sequence[TurnEvent]:
        """What the chunk means for the turn. Raises `BadResponse`, or what an error chunk says."""
        if data == _DONE:
            self.complete = True
            return ()
        chunk = _decode(data, self._provider)
        if chunk.error:
            raise broken_by(_reported(chunk, self._provider))
        if not self._id and chunk.id:
            self._id = chunk.id
            self._model = chunk.model or ""
        events: list[TurnEvent] = []
        for choice in chunk.choices or ():
            if self._index is None:
                self._index = choice.index
            if choice.index == self._index:  # others are further answers to the request (`n` in `extra_body`)
                self._choice(choice, events)
        if chunk.usage is not None:
            self._count(chunk.usage, events)
        return events

    def end(self) -> TurnEnd:
        """The whole turn. Raises `StreamBroken` if neither a finish reason nor the end marker came, and `Refused` if a
        content filter stopped it and says why."""
        provider = self._provider
        if self._finish_reason is None and not self.complete:
            raise StreamBroken(f"{provider}: the stream ended before the answer did", provider=provider)
        if not self._any_choice:
            raise BadResponse(f"{provider}: empty choices in response", provider=provider)
        if self._filtered:
            raise Refused(f"{provider}: the content filter stopped the answer ({self._filtered})", provider=provider)
        calls = self._calls.calls()
        parts: list[Part] = []
        if self._reasoning:
            parts.append(ThinkingPart(text="".join(self._reasoning), provider=provider))
        if self._text:
            parts.append(TextPart(text="".join(self._text)))
        return TurnEnd(
            message=Message(role=Role.ASSISTANT, parts=(*parts, *calls)),
            stop_reason=self._reason(calls),
            usage=self._usage or TokenUsage(),
            model=self._model,
            response_id=self._id,
        )

    def _choice(self, choice: _Choice, events: list[TurnEvent]) -> None:
        self._any_choice = True
        delta = choice.delta or choice.message
        if delta is not None:
            self._delta(delta, events)
        if choice.finish_reason:
            self._finish_reason = choice.finish_reason
        if self._finish_reason == "content_filter" and choice.content_filter_results:
            self._filtered = self._filtered or self._findings(choice)

    def _findings(self, choice: _Choice) -> str:
        return filtered_categories(decoded(_findings_decoder, choice.content_filter_results, self._provider, "a chunk"))

    def _delta(self, delta: _Delta, events: list[TurnEvent]) -> None:
        reasoning = delta.reasoning_content or delta.reasoning
        if reasoning and isinstance(reasoning, str):
            self._reasoning.append(reasoning)
            events.append(ThinkingDelta(reasoning))
        text = delta.content
        if isinstance(text, list):
            text = "".join(piece["text"] for piece in text if isinstance(piece, dict) and piece.get("type") == "text")
        if delta.refusal:
            self._refused = True
            text = (text or "") + delta.refusal
        if text:
            self._text.append(text)
            events.append(TextDelta(text))
        for call in delta.tool_calls or ():
            self._calls.add(call)

    def _count(self, usage: Usage, events: list[TurnEvent]) -> None:
        """Some servers report with every chunk; the counts are cumulative, so each replaces the one before."""
        counted = neutral_usage(usage)
        if counted != TokenUsage() and counted != self._usage:
            self._usage = counted
            events.append(UsageUpdate(counted))

    def _reason(self, calls: tuple[ToolCall, ...]) -> StopReason:
        """Local servers say `stop` although there are calls, so what the message holds counts.

        Except for a call that was cut: it must not be run.
        """
        if calls and not (self._finish_reason in _CUT and not _is_json(calls[-1].arguments)):
            return StopReason.TOOL_USE
        if self._refused:
            return StopReason.REFUSAL
        return _FINISH_REASONS.get(self._finish_reason or "", StopReason.END_TURN)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def _decode(data: bytes, provider: str) -> _Chunk:
    try:
        return _chunk_decoder.decode(data)
    except UNREADABLE as error:
        raise unreadable(error, provider, "a chunk") from error


def _reported(chunk: _Chunk, provider: str) -> ProviderError:
    return error_for(provider, None, error_body(chunk.error))
