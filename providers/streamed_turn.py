"""One streamed turn of any vendor: from an open stream to turn events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias

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


TakeEvent: TypeAlias = Callable[[TurnEvent], bool]
"""Takes an event of a turn, unless it would have to wait; says whether it did."""


class StreamedTurn(AsyncGenerator[TurnEvent, None]):
    """The turn events of a stream.

    Iterating raises a `ProviderError` that carries the usage known by then.
    """

    __slots__ = ("_error", "_events", "_left", "_opening", "_reader", "_take", "_unread")

    def __init__(self, opening: AbstractAsyncContextManager[EventStream], reader: TurnReader) -> None:
        self._opening = opening
        self._reader = reader
        self._take: TakeEvent | None = None
        self._left: list[TurnEvent] = []
        """Events that were not taken, and come by iteration."""
        self._unread: list[bytes] = []
        """What nobody takes, read as it is iterated: a batch of events at once keeps the garbage collector busy."""
        self._error: Exception | None = None
        """Comes after them."""
        self._events = self._turn()

    def hand_to(self, take: TakeEvent) -> None:
        """Before the iteration: offer each event to `take` first, as soon as it arrives. Only what it does not take
        wakes who iterates."""
        self._take = take

    def __anext__(self) -> Coroutine[Any, Any, TurnEvent]:
        return self._events.__anext__()

    def asend(self, value: None) -> Coroutine[Any, Any, TurnEvent]:
        """As of any generator."""
        return self._events.asend(value)

    def athrow(self, *error: Any) -> Coroutine[Any, Any, TurnEvent]:
        """As of any generator."""
        return self._events.athrow(*error)

    def aclose(self) -> Coroutine[Any, Any, None]:
        """Close the connection, unless the answer was read to its end."""
        return self._events.aclose()

    async def _turn(self) -> AsyncGenerator[TurnEvent, None]:
        reader = self._reader
        try:
            async with self._opening as events:
                if events.limits is not None:
                    yield LimitsSeen(events.limits)
                while not reader.complete and await events.pour(self._heard):
                    for data in self._unread:
                        for event in reader.read(data):
                            yield event
                    for event in self._left:
                        yield event
                    self._left.clear()
                    if self._error is not None:
                        raise self._error
                if reader.complete:
                    await events.settle()
            end = reader.end()
        except ProviderError as error:
            error.usage = error.usage or reader.usage
            raise
        yield end

    def _heard(self, batch: list[bytes]) -> bool:
        """Whether the run need not hear of these events."""
        take, left, read = self._take, self._left, self._reader.read
        if take is None:
            self._unread = batch
            return False
        try:
            for data in batch:
                for event in read(data):
                    if left or not take(event):
                        left.append(event)
        except Exception as error:  # noqa: BLE001 - is raised once the events before it are out
            self._error = error
            return False
        return not (left or self._reader.complete)


def read_turn(opening: AbstractAsyncContextManager[EventStream], reader: TurnReader) -> StreamedTurn:
    """The turn events of a stream."""
    return StreamedTurn(opening, reader)
