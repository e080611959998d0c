"""Estimates of tokens, for vendors that cannot be asked."""

from __future__ import annotations

import pytest

from providers.messages import ImagePart, Message, Role, TextPart, ThinkingPart, ToolCall, ToolOutcome
from providers.token_estimate import estimated_tokens

_ENGLISH = (
    "Shoal is a fleet of asyncio workers for LLM agent tasks. An engine enqueues a task; a worker pulls it, runs the "
    "provider's tool-use loop, streams typed chunks while the model speaks, and stores one result."
)
"""205 characters in 36 words."""


def test_prose() -> None:
    """English prose has more tokens than words, and less than two for a word."""
    words = len(_ENGLISH.split())
    assert words < estimated_tokens("", [Message.user(_ENGLISH)]) < 2 * words


@pytest.mark.parametrize("text", ["天気はどうですか", "Привет, как дела?", "שלום"])
def test_other_scripts(text: str) -> None:
    """Other scripts have fewer letters per token."""
    ascii_text = "a" * len(text)
    assert estimated_tokens(text, []) > estimated_tokens(ascii_text, [])


def test_every_part_counts() -> None:
    """Prompts, reasoning, calls, outcomes and pictures all add to it."""
    picture = ImagePart(media_type="image/png", data="AAAA")
    parts = (
        TextPart(text="word " * 20),
        ThinkingPart(text="word " * 20),
        ToolCall(id="t", name="look", arguments='{"at": "the tree"}'),
        ToolOutcome(call_id="t", name="look", content="word " * 20),
        ToolOutcome(call_id="t", name="look", structured={"found": ["word"] * 20}),
        ToolOutcome(call_id="t", name="look", images=(picture,)),
        picture,
    )
    counts = [estimated_tokens("", [Message(role=Role.USER, parts=parts[:end])]) for end in range(len(parts) + 1)]
    assert counts == sorted(set(counts))
    assert estimated_tokens("Be kind.", []) > 0 == estimated_tokens("", [])
