"""One streamed turn of a Google service: from an open stream to turn events."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol

import msgspec

from providers.errors import InvalidRequest, ProviderError
from providers.event_stream import EventStream
from providers.messages import LimitsSeen, Message, ThinkingPart, TurnEnd, TurnEvent, TurnRequest
from queue_backends import TokenUsage

_SIGNATURE = re.compile(r"thought[ _]?signature", re.IGNORECASE)


class TurnReader(Protocol):
    """Makes turn events of what a stream brings."""

    @property
    def usage(self) -> TokenUsage | None:
        """What is known of the usage so far; None if nothing was reported."""
        ...

    def read(self, data: bytes) -> Iterable[TurnEvent]:
        """What one event means for the turn. Raises a `ProviderError`."""
        ...

    def end(self) -> TurnEnd:
        """The whole turn. Raises a `ProviderError` if there is none."""
        ...


async def turn_events(
    opening: AbstractAsyncContextManager[EventStream], reader: TurnReader
) -> AsyncGenerator[TurnEvent, None]:
    """The events of a turn, up to the stream's end: Google's streams have no last event.

    Raises a `ProviderError` that carries the usage known by then.
    """
    try:
        async with opening as stream:
            if stream.limits is not None:
                yield LimitsSeen(stream.limits)
            async for batch in stream:
                for data in batch:
                    for event in reader.read(data):
                        yield event
        end = reader.end()
    except ProviderError as error:
        error.usage = error.usage or reader.usage
        raise
    yield end


@asynccontextmanager
async def opened(
    request: TurnRequest, opening: Callable[[TurnRequest], AbstractAsyncContextManager[EventStream]]
) -> AsyncIterator[EventStream]:
    """The stream that answers the request; if the vendor cannot read a thought signature in it, such as one of another
    project or model after a failover, the one that answers it without any. Raises a `ProviderError`."""
    async with AsyncExitStack() as stack:
        try:
            stream = await stack.enter_async_context(opening(request))
        except InvalidRequest as error:
            plain = msgspec.structs.replace(request, messages=tuple(map(_without_reasoning, request.messages)))
            if plain == request or not _SIGNATURE.search(str(error)):
                raise
            stream = await stack.enter_async_context(opening(plain))
        yield stream


def _without_reasoning(message: Message) -> Message:
    parts = tuple([part for part in message.parts if not isinstance(part, ThinkingPart)])
    return msgspec.structs.replace(message, parts=parts)
