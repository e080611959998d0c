"""Opening the stream of a turn at a Google service."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import msgspec

from providers.errors import InvalidRequest
from providers.event_stream import EventStream
from providers.messages import Message, ThinkingPart, TurnRequest

_SIGNATURE = re.compile(r"thought[ _]?signature", re.IGNORECASE)


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
