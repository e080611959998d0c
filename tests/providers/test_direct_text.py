"""Text that goes to the consumers as it arrives, without waking the run, is the text that the run would have sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from providers import tool_loop
from providers.answer_body import IteratedBody
from providers.errors import BadResponse, LimitReached, ProviderError
from providers.event_stream import EventStream
from providers.interfaces import ChatProvider
from providers.messages import (
    AgentConfig,
    Message,
    Role,
    StopReason,
    TextDelta,
    TextPart,
    ThinkingDelta,
    TurnEnd,
    TurnEvent,
    TurnRequest,
    UsageUpdate,
)
from providers.streamed_turn import StreamedTurn, read_turn
from queue_backends import ChunkType, Task, TokenUsage

pytestmark = pytest.mark.timeout(20)


class Reader:
    """Each event is one letter: `?` is a thought, `#` a count of tokens, `!` cannot be read, `.` the end."""

    def __init__(self) -> None:
        self.complete = False
        self.usage: TokenUsage | None = None
        self.text = ""

    def read(self, data: bytes) -> Sequence[TurnEvent]:
        """As `TurnReader.read`."""
        letter = data.decode()
        if letter == "!":
            raise BadResponse("cannot be read")
        if letter == "#":
            self.usage = TokenUsage(output_tokens=len(self.text))
            return [UsageUpdate(self.usage)]
        self.complete = letter == "."
        if self.complete:
            return ()
        if letter == "?":
            return [ThinkingDelta(letter)]
        self.text += letter
        return [TextDelta(letter)]

    def end(self) -> TurnEnd:
        """As `TurnReader.end`."""
        answer = Message(role=Role.ASSISTANT, parts=(TextPart(text=self.text),))
        return TurnEnd(message=answer, stop_reason=StopReason.END_TURN, usage=TokenUsage())


def turn(*pieces: str) -> StreamedTurn:
    """A turn whose letters arrive in these pieces."""

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            await asyncio.sleep(0)
            yield b"".join(b"data: %s\n\n" % letter.encode() for letter in piece)

    @contextlib.asynccontextmanager
    async def opening() -> AsyncIterator[EventStream]:
        async def close() -> None:
            return

        yield EventStream(
            IteratedBody(body()), close, provider="acme", idle_timeout_s=5, connection_errors=(ConnectionError,)
        )

    return read_turn(opening(), Reader())


class Provider(ChatProvider):
    """Answers with one turn."""

    name = "acme"

    def __init__(self, *pieces: str) -> None:
        self._pieces = pieces

    def stream_turn(self, request: TurnRequest) -> StreamedTurn:
        """As `ChatProvider.stream_turn`."""
        return turn(*self._pieces)


class Consumer:
    """A chunk function that has room at once for so many pieces in a row."""

    def __init__(self, room: int) -> None:
        self.room = self._left = room
        self.heard: list[tuple[ChunkType, str]] = []
        self.waits = 0

    def put_now(self, kind: ChunkType, text: str) -> bool:
        """As the worker's."""
        if not self._left:
            self._left = self.room  # there is room again before anybody has waited for it
            return False
        self._left -= 1
        self.heard.append((kind, text))
        return True

    async def __call__(self, kind: ChunkType, content: str, metadata: Mapping[str, Any] | None = None, /) -> None:
        self.waits += 1
        await asyncio.sleep(0)
        self._left = self.room
        self.heard.append((kind, content))


async def run(provider: Provider, consumer: Consumer, **config: Any) -> tool_loop.Run:
    """The tool loop over one turn."""

    async def no_tool(call: object) -> Any:
        raise AssertionError(call)

    settings = AgentConfig(model="m", provider="acme", **config)
    return await tool_loop.run(provider, settings, Task(prompt="x", id="1"), (), no_tool, consumer)


@pytest.mark.parametrize("room", [0, 1, 2, 1000])
async def test_order_is_kept_however_much_room_there_is(room: int) -> None:
    """What finds no room wakes the run, which waits for it; what comes later comes after it."""
    consumer = Consumer(room)
    ended = await run(Provider("a", "b?c", "de#f", "g."), consumer)
    assert "".join(text for _, text in consumer.heard) == "ab?cdefg"
    assert [kind for kind, text in consumer.heard if text == "?"] == [ChunkType.THINKING]
    assert ended.output == "abcdefg"
    assert (consumer.waits == 0) is (room == 1000)


async def test_an_error_comes_after_what_was_before_it() -> None:
    """Letters and an unreadable event in one piece: the letters are out, and the error carries the usage."""
    consumer = Consumer(2)
    with pytest.raises(ProviderError, match="cannot be read") as caught:
        await run(Provider("ab#cd!e."), consumer, max_turn_restarts=0)
    assert "".join(text for _, text in consumer.heard) == "abcd"
    assert caught.value.usage is not None


async def test_the_limit_of_an_answer_holds() -> None:
    """No more of an answer goes out directly than the agent allows."""
    consumer = Consumer(1000)
    with pytest.raises(LimitReached, match="max_answer_chars"):
        await run(Provider("abc", "def", "ghi."), consumer, max_answer_chars=5)
    assert "".join(text for _, text in consumer.heard) == "abcde"


async def test_who_takes_nothing_gets_all_by_iteration() -> None:
    """A turn can be read like any asynchronous generator, and closed early."""
    events = turn("ab", "c#", ".")
    assert [type(event) async for event in events] == [TextDelta, TextDelta, TextDelta, UsageUpdate, TurnEnd]
    early = turn("ab", "c.")
    assert await anext(early) == TextDelta("a")
    await early.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(early)
