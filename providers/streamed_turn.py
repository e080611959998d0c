"""One streamed turn of any vendor: from an open stream to turn events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from providers.errors import ProviderError
from providers.event_stream import EventStream
from providers.messages import LimitsSeen, TurnEnd, TurnEvent
from queue_backends import TokenUsage


class TurnReader(Protocol):
    """Makes turn events of the events of one protocol."""

    @property
    def complete(self) -> bool:
        """Whether the answer's proper end was seen. Always false where only the stream's end tells."""
        ...

    @property
    def usage(self) -> TokenUsage | None:
        """What is known of the usage so far; None if nothing was reported."""
        ...

    def read(self, data: bytes) -> Sequence[TurnEvent]:
        """What one event means for the turn. Raises a `ProviderError`."""
        ...

    def end(self) -> TurnEnd:
        """The whole turn. Raises `StreamBroken` if the answer has not ended."""
        ...


async def read_turn(
    opening: AbstractAsyncContextManager[EventStream], reader: TurnReader
) -> AsyncGenerator[TurnEvent, None]:
    """The turn events of a stream. Raises a `ProviderError` that carries the usage known by then."""
    try:
        async with opening as events:
            if events.limits is not None:
                yield LimitsSeen(events.limits)
            async for batch in events:
                for data in batch:
                    for event in reader.read(data):
                        yield event
                if reader.complete:
                    await events.settle()
                    break
        end = reader.end()
    except ProviderError as error:
        error.usage = error.usage or reader.usage
        raise
    yield end
