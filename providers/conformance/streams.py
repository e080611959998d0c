"""Suite: streams that break, stop, or say what nobody knows, and readers that leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from providers.capabilities import Capability
from providers.conformance.support import Conformance, check, collect, failure_of, needs, request_for
from providers.errors import BadResponse, ProviderError, ProviderTimeout, StreamBroken
from providers.replay_server import Ending, Reply


class StreamConformance(Conformance):
    """Half an answer is never taken for a whole one, and nobody pays for what nobody reads."""

    async def test_cut_stream(self) -> None:
        """An answer that breaks off is `StreamBroken`, and is not repeated."""
        for ending in (Ending.CUT, Ending.HALF_CLOSE, Ending.PROPER):
            await self._cut(ending)

    @needs(Capability.EARLY_USAGE)
    async def test_usage_of_a_cut_stream(self) -> None:
        """What was reported of its usage is not lost."""
        error = await self._cut(Ending.CUT)
        check(error.usage is not None, "the usage is lost")

    async def _cut(self, ending: Ending) -> ProviderError:
        async with self.serving(self.half("text", ending)) as (server, provider, config):
            error = await failure_of(provider, request_for(config, max_retries=2))
            check(isinstance(error, StreamBroken), f"{ending}: {type(error).__name__} instead of StreamBroken")
            check(len(server.requests) == 1, f"{ending}: a broken answer was asked for again")
            return error

    async def test_malformed_event(self) -> None:
        """What cannot be read is `BadResponse`."""
        frames = self.recorded("text")
        middle = len(frames) // 2
        broken = self.malformed(frames[middle])
        error = await self.failure(self.streamed((*frames[:middle], broken, *frames[middle + 1 :])))
        check(isinstance(error, BadResponse), f"{type(error).__name__} instead of BadResponse")

    async def test_silence(self) -> None:
        """A stream that stops without ending is `ProviderTimeout`, and so is a server that never answers."""
        error = await self.failure(self.half("text", Ending.SILENCE), idle_timeout_s=0.2)
        check(isinstance(error, ProviderTimeout), f"{type(error).__name__} instead of ProviderTimeout")
        error = await self.failure(Reply(silent_head=True), first_event_timeout_s=0.2)
        check(isinstance(error, ProviderTimeout), f"{type(error).__name__} instead of ProviderTimeout")

    async def test_cancel_closes_the_connection(self) -> None:
        """Cancelling the reader stops the model: the server sees its connection closed."""
        async with self.serving(self.half("text", Ending.SILENCE)) as (server, provider, config):
            seen = asyncio.Event()

            async def read() -> None:
                async for _ in provider.stream_turn(request_for(config)):
                    seen.set()

            reader = asyncio.create_task(read())
            await seen.wait()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            check(reader.cancelled(), "the cancellation was swallowed")
            await server.client_gone.wait()

    async def test_closing_the_iterator_closes_the_connection(self) -> None:
        """Leaving the iteration early closes it, too."""
        async with self.serving(self.half("text", Ending.SILENCE)) as (server, provider, config):
            events = provider.stream_turn(request_for(config))
            await anext(events)
            check(isinstance(events, AsyncGenerator), "stream_turn has to be an async generator, to be closed early")
            if isinstance(events, AsyncGenerator):
                await events.aclose()
            await server.client_gone.wait()

    async def test_unknown_events_are_skipped(self) -> None:
        """Vendors add events at any time: what is not known changes nothing."""
        frames = [part for frame in self.recorded("text") for part in (frame, self.unknown_frame)]
        await self.expect("text", await self.turn(self.streamed(frames[:-1])))

    async def test_line_ends(self) -> None:
        """Lines may end in what the format allows (hook `line_ends`)."""
        for ending in self.line_ends:
            frames = [frame.replace(b"\n", ending) for frame in self.recorded("text")]
            await self.expect("text", await self.turn(self.streamed(frames)))

    async def test_connections_are_used_again(self) -> None:
        """The second call does not connect anew."""
        async with self.serving(self.whole("text")) as (server, provider, config):
            await collect(provider, request_for(config))
            await collect(provider, request_for(config))
            first, second = (request.connection for request in server.requests)
            check(first == second, "the second call came on a connection of its own")
