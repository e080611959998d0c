"""Answers without end: what a server can make an adapter hold."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from providers import answer_limits
from providers.anthropic_events import MessageReader
from providers.errors import LimitReached
from providers.openai_tool_calls import CallDelta, Function, ToolCallAssembly


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that a test reaches quickly."""
    monkeypatch.setattr(answer_limits, "MOST_ARGUMENT_CHARS", 10_000)


def openai_arguments() -> Callable[[str], None]:
    """One call of the OpenAI format whose arguments come in pieces."""
    assembly = ToolCallAssembly()
    return lambda piece: assembly.add(CallDelta(index=0, id="c", function=Function(name="t", arguments=piece)))


def anthropic_arguments() -> Callable[[str], None]:
    """The same in the Anthropic format."""
    reader = MessageReader()
    block = {"type": "tool_use", "id": "c", "name": "t", "input": {}}
    reader.read(json.dumps({"type": "content_block_start", "index": 0, "content_block": block}).encode())

    def add(piece: str) -> None:
        delta = {"type": "input_json_delta", "partial_json": piece}
        reader.read(json.dumps({"type": "content_block_delta", "index": 0, "delta": delta}).encode())

    return add


@pytest.mark.parametrize("begin", [openai_arguments, anthropic_arguments])
def test_arguments_without_end(begin: Callable[[], Callable[[str], None]]) -> None:
    """Nobody sees the arguments before their end, so the adapter itself gives up."""
    add = begin()
    for _ in range(9):
        add("x" * 1000)
    with pytest.raises(LimitReached, match="more than 10000 characters: check the server"):
        add("x" * 1000)


def openai_calls() -> Callable[[int], None]:
    """Ever more calls of the OpenAI format, without arguments."""
    assembly = ToolCallAssembly()
    return lambda index: assembly.add(CallDelta(index=index, id=f"c{index}", function=Function(name="t")))


def anthropic_calls() -> Callable[[int], None]:
    """The same in the Anthropic format."""
    reader = MessageReader()

    def add(index: int) -> None:
        block = {"type": "tool_use", "id": f"c{index}", "name": "t", "input": {}}
        reader.read(json.dumps({"type": "content_block_start", "index": index, "content_block": block}).encode())

    return add


@pytest.mark.parametrize("begin", [openai_calls, anthropic_calls])
def test_calls_without_end(begin: Callable[[], Callable[[int], None]]) -> None:
    """Calls that have no arguments weigh something, too."""
    add = begin()
    most = 10_000 // answer_limits.CALL_CHARS
    for index in range(most):
        add(index)
    with pytest.raises(LimitReached):
        add(most)
