"""What every provider must do, as a suite that a third party can run on its own provider.

    class TestMyProvider(ProviderConformance):
        recordings = Path(__file__).parent / "recordings" / "mine"

        def provider(self) -> ChatProvider:
            return MyProvider()

        def config(self, base_url: str) -> AgentConfig:
            return AgentConfig(model="my-model", base_url=base_url)

Run it with pytest and pytest-asyncio (`asyncio_mode = "auto"`). `recordings` is a folder with the vendor's streams as
they came over the wire (`text.sse` and `unicode.sse`; `tool_call.sse`, `parallel_tools.sse` and `thinking.sse` if the
provider has such things, else their tests are skipped) and `expected.json`: for each of them the `TurnEnd` that it must
become. The suite replays them from a server on a free port, whole, in small pieces and broken, so nothing but a
loopback interface is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import unittest
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import msgspec

from providers.errors import (
    AuthenticationFailed,
    BadResponse,
    InvalidRequest,
    Overloaded,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    StreamBroken,
    Unavailable,
)
from providers.interfaces import ChatProvider
from providers.messages import (
    AgentConfig,
    Message,
    Role,
    TextDelta,
    ThinkingDelta,
    ThinkingPart,
    ToolOutcome,
    ToolSpec,
    TurnEnd,
    TurnEvent,
    TurnRequest,
)
from providers.replay_server import Ending, ReplayServer, Reply, json_error

_DEADLINE_S = 20.0

_OPTIONAL = frozenset({"tool_call", "parallel_tools", "thinking"})

_TOOL = ToolSpec(
    name="get_weather",
    description="The weather of a city.",
    input_schema={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)

_ERRORS_BY_STATUS: Mapping[int, type[ProviderError]] = {
    400: InvalidRequest,
    401: AuthenticationFailed,
    403: AuthenticationFailed,
    404: InvalidRequest,
    413: InvalidRequest,
    422: InvalidRequest,
    429: RateLimited,
    500: Unavailable,
    502: Unavailable,
    503: Overloaded,
}


class ProviderConformance:
    """Inherit from this in a test module; every `test_` method is one behaviour."""

    recordings: ClassVar[Path]

    error_body: ClassVar[bytes] = b'{"error": {"type": "some_error", "message": "the reason"}}'
    """A refusal in the vendor's form; its message is `the reason`."""

    unknown_frame: ClassVar[bytes] = b'event: from_the_future\ndata: {"type": "from_the_future", "value": 1}\n\n'
    """An event that the provider cannot know and has to skip."""

    reports_usage_early: ClassVar[bool] = False
    """Whether the vendor reports usage before the end of a stream, so that a cut one is not without any."""

    def provider(self) -> ChatProvider:
        """A new provider."""
        raise NotImplementedError(f"{type(self).__name__}.provider: return the provider to be tested")

    def config(self, base_url: str) -> AgentConfig:
        """A configuration for a server at `base_url` (scheme, host and port)."""
        raise NotImplementedError(f"{type(self).__name__}.config: return a configuration for the server")

    async def test_text(self) -> None:
        """A recorded answer becomes deltas, and a turn end whose text is that of the deltas."""
        await self._replays("text")

    async def test_unicode_cut_anywhere(self) -> None:
        """However the bytes are cut, also inside a character, the same turn comes out."""
        recording = self._recording("unicode")
        for size in (1, 2, 3, 7, 64):
            pieces = tuple(recording[start : start + size] for start in range(0, len(recording), size))
            await self._expect("unicode", await self._turn(Reply(frames=pieces)))

    async def test_tool_call(self) -> None:
        """A tool call has its name and the arguments that the model wrote."""
        end = await self._replays("tool_call")
        _check(bool(end.message.tool_calls), "the turn has no tool call")

    async def test_tool_round_trip(self) -> None:
        """The call, and what the tool answered, are part of the next request."""
        replies = [Reply(frames=_frames(self._recording(name))) for name in ("tool_call", "text")]
        async with self._serving(*replies) as (server, provider, config):
            first = TurnRequest(config=config, messages=(Message.user("What is the weather?"),), tools=(_TOOL,))
            end = _end(await _collect(provider, first))
            outcome = tuple(
                ToolOutcome(call_id=call.id, name=call.name, content=f"outcome-of-{call.name}")
                for call in end.message.tool_calls
            )
            answered = (*first.messages, end.message, Message(role=Role.USER, parts=outcome))
            await _collect(provider, msgspec.structs.replace(first, messages=answered, turn=1))
            second = server.requests[1].body.decode()
            for call in end.message.tool_calls:
                _check(call.name in second, f"the request does not repeat the call of {call.name}")
                _check(f"outcome-of-{call.name}" in second, f"the request does not have the outcome of {call.name}")

    async def test_parallel_tools(self) -> None:
        """Several calls in one turn keep their order, and each has an id of its own."""
        calls = (await self._replays("parallel_tools")).message.tool_calls
        _check(len(calls) > 1, f"the turn has {len(calls)} tool calls, several were recorded")
        _check(len({call.id for call in calls}) == len(calls), "two tool calls have the same id")

    async def test_thinking(self) -> None:
        """Reasoning comes as thinking deltas, apart from the text."""
        end = await self._replays("thinking")
        _check(any(isinstance(part, ThinkingPart) for part in end.message.parts), "the reasoning is lost")

    async def test_usage_is_present(self) -> None:
        """Input and output tokens are known after a whole answer."""
        usage = _end(await self._turn(self._whole("text"))).usage
        _check(usage.input_tokens is not None and usage.output_tokens is not None, f"usage is incomplete: {usage}")

    async def test_errors_by_status(self) -> None:
        """A refused request is the error that its status means, and says what the server said."""
        for status, kind in _ERRORS_BY_STATUS.items():
            error = await self._failure(json_error(status, self.error_body))
            _check(type(error) is kind, f"status {status} is {type(error).__name__}, not {kind.__name__}")
            _check("the reason" in str(error), f"the message leaves out what the server said: {error}")
            _check(error.status == status, f"the error's status is {error.status}, not {status}")

    async def test_error_page(self) -> None:
        """A proxy's page is an error too, and its text is readable."""
        page = b"<html><head><style>p{}</style></head><body><h1>502 Bad Gateway</h1></body></html>"
        error = await self._failure(Reply(status=502, frames=(page,), content_type="text/html"))
        _check(type(error) is Unavailable and "Bad Gateway" in str(error), f"not understood: {error!r}")
        error = await self._failure(Reply(frames=(page,), content_type="text/html"))
        _check(type(error) is BadResponse, f"a page instead of an answer is {type(error).__name__}")

    async def test_retry_after_is_honoured(self) -> None:
        """A rate limit is waited for as long as the server says, and then the answer comes."""
        limited = json_error(429, self.error_body, {"retry-after": "1"})
        async with self._serving(limited, self._whole("text")) as (server, provider, config):
            await self._expect("text", await _collect(provider, _request(config, max_retries=1)))
            waited_s = server.requests[1].at - server.requests[0].at
            _check(waited_s >= 0.99, f"the second request came after {waited_s:.2f} s, the server had asked for 1 s")

    async def test_retry_after_is_reported(self) -> None:
        """A wait that is too long to sit out goes up with the error."""
        error = await self._failure(json_error(429, self.error_body, {"retry-after": "3600"}), max_retries=2)
        _check(error.retry_after_s == 3600.0, f"retry_after_s is {error.retry_after_s}")

    async def test_cut_stream(self) -> None:
        """An answer that breaks off is `StreamBroken`, with the usage that was reported, and is not repeated."""
        for ending in (Ending.CUT, Ending.HALF_CLOSE, Ending.PROPER):
            async with self._serving(Reply(frames=self._half("text"), ending=ending)) as (server, provider, config):
                error = await _failure_of(provider, _request(config, max_retries=2))
                _check(isinstance(error, StreamBroken), f"{ending}: {type(error).__name__} instead of StreamBroken")
                _check(len(server.requests) == 1, f"{ending}: a broken answer was asked for again")
                if self.reports_usage_early:
                    _check(error.usage is not None, f"{ending}: the usage is lost")

    async def test_malformed_event(self) -> None:
        """What cannot be read is `BadResponse`."""
        frames = _frames(self._recording("text"))
        middle = len(frames) // 2
        broken = frames[middle].rstrip()[:-3] + b"\n\n"
        error = await self._failure(Reply(frames=(*frames[:middle], broken, *frames[middle + 1 :])))
        _check(isinstance(error, BadResponse), f"{type(error).__name__} instead of BadResponse")

    async def test_silence(self) -> None:
        """A stream that stops without ending is `ProviderTimeout`, and so is a server that never answers."""
        error = await self._failure(Reply(frames=self._half("text"), ending=Ending.SILENCE), idle_timeout_s=0.2)
        _check(isinstance(error, ProviderTimeout), f"{type(error).__name__} instead of ProviderTimeout")
        error = await self._failure(Reply(silent_head=True), first_event_timeout_s=0.2)
        _check(isinstance(error, ProviderTimeout), f"{type(error).__name__} instead of ProviderTimeout")

    async def test_cancel_closes_the_connection(self) -> None:
        """Cancelling the reader stops the model: the server sees its connection closed."""
        async with self._serving(Reply(frames=self._half("text"), ending=Ending.SILENCE)) as (server, provider, config):
            seen = asyncio.Event()

            async def read() -> None:
                async for _ in provider.stream_turn(_request(config)):
                    seen.set()

            reader = asyncio.create_task(read())
            await seen.wait()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            _check(reader.cancelled(), "the cancellation was swallowed")
            await server.client_gone.wait()

    async def test_closing_the_iterator_closes_the_connection(self) -> None:
        """So does leaving the iteration early."""
        async with self._serving(Reply(frames=self._half("text"), ending=Ending.SILENCE)) as (server, provider, config):
            events = provider.stream_turn(_request(config))
            await anext(events)
            _check(isinstance(events, AsyncGenerator), "stream_turn has to be an async generator, to be closed early")
            if isinstance(events, AsyncGenerator):
                await events.aclose()
            await server.client_gone.wait()

    async def test_unknown_events_are_skipped(self) -> None:
        """Vendors add events at any time: what is not known changes nothing."""
        frames = [part for frame in _frames(self._recording("text")) for part in (frame, self.unknown_frame)]
        if frames[-2].strip() == b"data: [DONE]":
            frames.pop()
        await self._expect("text", await self._turn(Reply(frames=tuple(frames))))

    async def test_carriage_returns(self) -> None:
        """Lines may end in CR LF, or in CR alone."""
        for ending in (b"\r\n", b"\r"):
            frames = tuple(frame.replace(b"\n", ending) for frame in _frames(self._recording("text")))
            await self._expect("text", await self._turn(Reply(frames=frames)))

    async def _replays(self, name: str) -> TurnEnd:
        return await self._expect(name, await self._turn(self._whole(name)))

    async def _turn(self, reply: Reply) -> list[TurnEvent]:
        async with self._serving(reply) as (_, provider, config):
            return await _collect(provider, _request(config))

    async def _failure(self, reply: Reply, **settings: float) -> ProviderError:
        async with self._serving(reply) as (_, provider, config):
            return await _failure_of(provider, _request(config, **settings))

    async def _expect(self, name: str, events: Sequence[TurnEvent]) -> TurnEnd:
        end = _end(events)
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        _check(text == end.message.text, f"{name}: the deltas are {text!r}, the message is {end.message.text!r}")
        thinking = "".join(event.text for event in events if isinstance(event, ThinkingDelta))
        thought = "".join(part.text for part in end.message.parts if isinstance(part, ThinkingPart))
        _check(thinking == thought, f"{name}: the thinking deltas are {thinking!r}, the message has {thought!r}")
        expected = msgspec.json.decode((self.recordings / "expected.json").read_bytes(), type=dict[str, TurnEnd])[name]
        _check(end == expected, f"{name}: the turn is\n{end}\nand should be\n{expected}")
        return end

    @contextlib.asynccontextmanager
    async def _serving(self, *replies: Reply) -> AsyncIterator[tuple[ReplayServer, ChatProvider, AgentConfig]]:
        async with asyncio.timeout(_DEADLINE_S), ReplayServer(replies) as server:
            provider = self.provider()
            try:
                yield server, provider, self.config(server.url)
            finally:
                await provider.aclose()

    def _recording(self, name: str) -> bytes:
        path = self.recordings / f"{name}.sse"
        if name in _OPTIONAL and not path.exists():
            raise unittest.SkipTest(f"no recording {path.name}")
        return path.read_bytes()

    def _whole(self, name: str) -> Reply:
        return Reply(frames=_frames(self._recording(name)))

    def _half(self, name: str) -> tuple[bytes, ...]:
        frames = _frames(self._recording(name))
        return frames[: len(frames) // 2]


def _request(config: AgentConfig, **settings: float) -> TurnRequest:
    config = msgspec.structs.replace(config, **{"max_retries": 0, **settings})
    return TurnRequest(config=config, messages=(Message.user("What is the weather?"),), tools=(_TOOL,))


async def _collect(provider: ChatProvider, request: TurnRequest) -> list[TurnEvent]:
    return [event async for event in provider.stream_turn(request)]


async def _failure_of(provider: ChatProvider, request: TurnRequest) -> ProviderError:
    try:
        events = await _collect(provider, request)
    except ProviderError as error:
        return error
    raise AssertionError(f"the turn should have failed, and gave {events[-1:]}")


def _end(events: Sequence[TurnEvent]) -> TurnEnd:
    ends = [event for event in events if isinstance(event, TurnEnd)]
    _check(len(ends) == 1 and events[-1] is ends[0], f"a turn has one TurnEnd, as its last event; got {events[-3:]}")
    return ends[0]


def _frames(recording: bytes) -> tuple[bytes, ...]:
    """The events of a recorded stream, each with the blank line that ends it."""
    return tuple(re.findall(rb".+?\n\n", recording, flags=re.DOTALL))


def _check(fact: object, otherwise: str) -> None:
    if not fact:
        raise AssertionError(otherwise)
