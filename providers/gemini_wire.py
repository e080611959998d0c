"""Gemini's answers as they come over the wire, as far as they are read. Pure.

Source: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse. Fields of proto3 JSON are left
out when they are zero.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from queue_backends import TokenUsage

NO_ERROR = msgspec.Raw(b"null")


class Usage(Struct, rename="camel"):
    """Token counts: the prompt's include the cached ones, the candidates' leave out the thoughts."""

    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None

    def update(self, newer: Usage) -> None:
        """Counts are cumulative: each replaces the one before, and what is not repeated stays."""
        for name in Usage.__struct_fields__:
            value = getattr(newer, name)
            if value is not None:
                setattr(self, name, value)

    def neutral(self, *, is_last: bool = False) -> TokenUsage:
        """Counts as ours, where the output includes the reasoning. `is_last`: what is left out of the last is zero."""
        prompt, written = self.prompt_token_count, self.candidates_token_count
        if written is None and (is_last or self.thoughts_token_count is not None):
            written = 0
        return TokenUsage(
            input_tokens=None if prompt is None else prompt + (self.tool_use_prompt_token_count or 0),
            output_tokens=None if written is None else written + (self.thoughts_token_count or 0),
            cache_read_tokens=self.cached_content_token_count,
            reasoning_tokens=self.thoughts_token_count,
        )


class FunctionCall(Struct, gc=False):
    """A call that the model wants."""

    name: str | None = None
    id: str | None = None
    args: msgspec.Raw = msgspec.Raw(b"")


class Part(Struct, rename="camel", gc=False):
    """A piece of text or of thought, or a call."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: FunctionCall | None = None


class Content(Struct, gc=False):
    """What one side says."""

    parts: list[Part] | None = None


class Candidate(Struct, rename="camel", gc=False):
    """One answer of several; nobody here asks for more than one."""

    content: Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    index: int | None = None

    @property
    def reason(self) -> str:
        """Why it ended, in the vendor's words; empty if it did not."""
        return ": ".join(filter(None, (self.finish_reason, self.finish_message)))


class Feedback(Struct, rename="camel", gc=False):
    """What the vendor thinks of the prompt."""

    block_reason: str | None = None
    block_reason_message: str | None = None

    @property
    def reason(self) -> str:
        """Why the prompt was blocked; empty if it was not."""
        return ": ".join(filter(None, (self.block_reason, self.block_reason_message)))


class Chunk(Struct, rename="camel", gc=False):
    """One event of a stream, or a whole answer: they have the same form."""

    candidates: list[Candidate] | None = None
    usage_metadata: Usage | None = None
    prompt_feedback: Feedback | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: msgspec.Raw = NO_ERROR
