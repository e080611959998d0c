"""The answer of a model as it comes in: batches of event data, with a limit on silence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, Self, TypeAlias

from providers.answer_body import AnswerBody
from providers.errors import BadResponse, ProviderError, ProviderTimeout, StreamBroken
from providers.silence import SilenceLimit
from providers.sse import SseDecoder
from providers.vendor_limits import VendorLimits

_SETTLE_S = 0.1


class EventDecoder(Protocol):
    """From bytes, cut anywhere, to the data of the events that are complete. Pure."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that this chunk completes. Raises `ValueError` if what comes is no such stream."""
        ...

    def flush(self) -> list[bytes]:
        """What is left at the end, if it is whole."""
        ...


TakeEvents: TypeAlias = Callable[[list[bytes]], bool]
"""Takes the data of events that arrived together, and says whether it wants more."""


class EventStream:
    """An asynchronous iterator over the answer's events: each item is the data of those that arrived together.

    Iterating raises `StreamBroken` if the connection breaks, `ProviderTimeout` after `idle_timeout_s` without a byte,
    `BadResponse` if what comes is no event stream. It ends when the answer does; whether that was its proper end is for
    the reader of the events to say. `aclose` closes the connection at once, unless the answer was read to its end.
    """

    def __init__(
        self,
        body: AnswerBody,
        close: Callable[[], Awaitable[None]],
        *,
        provider: str,
        idle_timeout_s: float,
        connection_errors: tuple[type[Exception], ...],
        decoder: EventDecoder | None = None,
        limits: VendorLimits | None = None,
    ) -> None:
        self.limits = limits
        """What the answer's headers tell of the key's rate limits."""
        self._body = body
        self._close = close
        self._provider = provider
        self._idle_timeout_s = idle_timeout_s
        self._connection_errors = connection_errors
        self._decoder = decoder or SseDecoder()
        self._silence: SilenceLimit | None = None
        self._pending: list[bytes] = []
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[bytes]:
        if not (self._pending or await self.pour(self._keep)):
            raise StopAsyncIteration
        events, self._pending = self._pending, []
        return events

    async def pour(self, take: TakeEvents) -> bool:
        """Give events to `take` as they come, until it wants no more; false at the end. Raises as iterating does.

        `take` is called wherever the connection is read, in no task of anybody's, so that none has to be woken.
        """
        if self._pending:
            events, self._pending = self._pending, []
            if not take(events):
                return True
        if self._ended:
            return False
        silence = self._silence = self._silence or SilenceLimit(self._idle_timeout_s)

        def taken(chunk: bytes) -> bool:
            silence.heard()
            events = self._decode(chunk)
            return not events or take(events)

        silence.begin()
        try:
            if await self._body.pour(taken):
                return True
        except asyncio.CancelledError:
            if silence.ended_it():
                raise self._silent() from None
            raise
        except self._connection_errors as error:
            raise self._broken("broke", error) from error
        finally:
            silence.end()
        return self._flush(take)

    def replace_by(self, data: bytes) -> None:
        """The whole answer is one document instead of a stream: make it the only event."""
        self._pending = [data] if data else []
        self._ended = True

    async def peek(self) -> bytes:
        """Wait for the first event, without a limit of its own, and leave it in the stream.

        Raises `StreamBroken` if the answer ends without any.
        """
        try:
            if not self._pending and not await self._body.pour(lambda chunk: self._keep(self._decode(chunk))):
                self._flush(self._keep)
        except self._connection_errors as error:
            raise self._broken("broke before the first event", error) from error
        if not self._pending:
            raise self._broken("ended without any event")
        return self._pending[0]

    async def settle(self) -> None:
        """The reader has all it wants: wait a moment for the proper end, so that the connection can be used again."""
        self._body.hurry()
        try:
            async with asyncio.timeout(_SETTLE_S):
                await self._body.pour(lambda _: True)
        except TimeoutError:
            return  # the answer is complete all the same; closing the connection is all that is left to do
        except self._connection_errors:
            return

    async def aclose(self) -> None:
        """Give the connection back, or close it if the answer has not ended."""
        if self._silence is not None:
            self._silence.close()
        await self._close()

    def _keep(self, events: list[bytes]) -> bool:
        self._pending = events
        return not events

    def _decode(self, chunk: bytes) -> list[bytes]:
        try:
            return self._decoder.feed(chunk)
        except ValueError as error:
            raise BadResponse(f"{self._provider}: {error}", provider=self._provider) from error

    def _flush(self, take: TakeEvents) -> bool:
        """The answer has ended: whether `take` was given something, and wants no more."""
        self._ended = True
        events = self._decoder.flush()
        return bool(events) and not take(events)

    def _silent(self) -> ProviderError:
        return ProviderTimeout(
            f"{self._provider}: the stream was silent for {self._idle_timeout_s:g} s (idle_timeout_s)",
            provider=self._provider,
        )

    def _broken(self, how: str, cause: Exception | None = None) -> ProviderError:
        why = f" ({type(cause).__name__})" if cause is not None else ""
        return StreamBroken(f"{self._provider}: the stream {how}{why}", provider=self._provider)
