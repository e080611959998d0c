"""What the suites share: the hooks that say how the vendor speaks, the server that replays, and `needs`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from providers.capabilities import Capability
from providers.errors import ProviderError
from providers.interfaces import ChatProvider
from providers.messages import (
    AgentConfig,
    Message,
    TextDelta,
    ThinkingDelta,
    ThinkingPart,
    ToolSpec,
    TurnEnd,
    TurnEvent,
    TurnRequest,
)
from providers.replay_server import Ending, Received, ReplayServer, Reply, json_error

DEADLINE_S = 30.0
"""Every test has failed after this. None measures time with it."""

TOOL = ToolSpec(
    name="get_weather",
    description="The weather of a city.",
    input_schema={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)

Test = Callable[..., Coroutine[Any, Any, None]]


def needs(*capabilities: Capability) -> Callable[[Test], Test]:
    """Marks a test of what a provider may lack. One that names such a capability among its gaps must fail the test: so
    that no flag is wrong, in either direction."""

    def marked(test: Test) -> Test:
        @functools.wraps(test)
        async def run(self: Conformance) -> None:
            gaps = self.provider().gaps
            lacking = [each for each in capabilities if each in gaps]
            if not lacking:
                await test(self)
                return
            with pytest.raises((Exception, pytest.fail.Exception)):
                await test(self)
            pytest.xfail(f"lacks {lacking[0].value!r}: {gaps[lacking[0]]}")

        vars(run)["needs"] = capabilities
        return run

    return marked


class Conformance:
    """The hooks, with defaults for a vendor that streams server-sent events, and the steps that tests take."""

    pytestmark: ClassVar[list[pytest.MarkDecorator]] = [pytest.mark.asyncio]

    recordings: ClassVar[Path]
    """A folder with one file per recorded stream, and `expected.json`: for each its name and the `TurnEnd` it is."""

    suffix: ClassVar[str] = "sse"
    """How the recordings' file names end."""

    content_type: ClassVar[str] = "text/event-stream"
    """Of a streamed answer."""

    line_ends: ClassVar[tuple[bytes, ...]] = (b"\r\n", b"\r")
    """What may stand in place of a line feed in the vendor's streams; empty for a binary format."""

    error_body: ClassVar[bytes] = b'{"error": {"type": "some_error", "message": "the reason"}}'
    """A refusal in the vendor's form; its message is `the reason`."""

    context_error: ClassVar[tuple[int, bytes] | None] = None
    """Status and body of the vendor's refusal of a conversation that is too long."""

    overloaded_error: ClassVar[tuple[int, bytes] | None] = None
    """Status and body by which the vendor says that it has too much to do; None: 503 with `error_body`."""

    unknown_frame: ClassVar[bytes] = b'event: from_the_future\ndata: {"type": "from_the_future", "value": 1}\n\n'
    """An event that the provider cannot know and has to skip."""

    healthy_body: ClassVar[bytes] = b'{"data": []}'
    """What the vendor answers to the call that a health check makes."""

    known_model: ClassVar[str] = ""
    """A model of the vendor's whose context window is a known fact; empty: there is none."""

    def provider(self) -> ChatProvider:
        """A new provider."""
        raise NotImplementedError(f"{type(self).__name__}.provider: return the provider to be tested")

    def config(self, base_url: str) -> AgentConfig:
        """A configuration for a server at `base_url` (scheme, host and port)."""
        raise NotImplementedError(f"{type(self).__name__}.config: return a configuration for the server")

    def frames(self, recording: bytes) -> tuple[bytes, ...]:
        """The events of a recorded stream, each with all its bytes: joined, they are the recording."""
        return tuple(re.findall(rb".+?\n\n", recording, flags=re.DOTALL))

    def malformed(self, frame: bytes) -> bytes:
        """The same event, framed properly, with content that cannot be read."""
        return frame.rstrip()[:-3] + b"\n\n"

    def error_reply(self, status: int) -> Reply:
        """A refused request with this status, whose message is `the reason`."""
        return json_error(status, self.error_body)

    def completion_body(self, text: str) -> bytes:
        """The vendor's whole answer to `complete`, with this text."""
        raise self._missing("completion_body", "return the body of a plain answer")

    def embeddings_body(self, vectors: Sequence[Sequence[float]]) -> bytes:
        """The vendor's answer to `embed`, with these vectors in this order."""
        raise self._missing("embeddings_body", "return the body of an embeddings answer")

    def embeddings_replies(self, vectors: Sequence[Sequence[float]]) -> list[Reply]:
        """All answers that `embed` needs to learn these vectors; override it if the vendor takes one text a request."""
        return [json_error(200, self.embeddings_body(vectors))]

    def count_body(self, tokens: int) -> bytes:
        """The vendor's answer to `count_tokens`."""
        raise self._missing("count_body", "return the body of a token count")

    def model_body(self, context_window: int) -> bytes:
        """The vendor's description of a model with this context window."""
        raise self._missing("model_body", "return the body of a model's description")

    def _missing(self, hook: str, what: str) -> NotImplementedError:
        return NotImplementedError(
            f"{type(self).__name__}.{hook}: {what}, or name what the provider lacks in its `gaps`"
        )

    # Steps

    @contextlib.asynccontextmanager
    async def serving(self, *replies: Reply) -> AsyncIterator[tuple[ReplayServer, ChatProvider, AgentConfig]]:
        """A server that answers so, a provider, and a configuration that leads it there."""
        async with asyncio.timeout(DEADLINE_S), ReplayServer(replies) as server:
            provider = self.provider()
            try:
                yield server, provider, self.config(server.url)
            finally:
                await provider.aclose()

    def streamed(self, frames: Sequence[bytes], ending: Ending = Ending.PROPER) -> Reply:
        """A streamed answer of these frames."""
        return Reply(frames=tuple(frames), content_type=self.content_type, ending=ending)

    def recording(self, name: str) -> bytes:
        """The bytes of a recorded stream."""
        path = self.recordings / f"{name}.{self.suffix}"
        check(path.exists(), f"record {path}, or name what the provider lacks in its `gaps`")
        return path.read_bytes()

    def recorded(self, name: str) -> tuple[bytes, ...]:
        """The frames of a recorded stream."""
        return self.frames(self.recording(name))

    def whole(self, name: str) -> Reply:
        """A recorded stream, replayed to its end."""
        return self.streamed(self.recorded(name))

    def half(self, name: str, ending: Ending) -> Reply:
        """The first half of a recorded stream."""
        frames = self.recorded(name)
        return self.streamed(frames[: len(frames) // 2], ending)

    async def replays(self, name: str) -> TurnEnd:
        """The turn of a recording, which is as expected."""
        return await self.expect(name, await self.turn(self.whole(name)))

    async def turn(self, reply: Reply) -> list[TurnEvent]:
        """All events of a turn that the server answers so."""
        async with self.serving(reply) as (_, provider, config):
            return await collect(provider, request_for(config))

    async def failure(self, reply: Reply, **settings: Any) -> ProviderError:
        """The error of a turn that the server answers so."""
        async with self.serving(reply) as (_, provider, config):
            return await failure_of(provider, request_for(config, **settings))

    async def sent(self, *messages: Message, tools: Sequence[ToolSpec] = (TOOL,), **settings: Any) -> Received:
        """The request that a turn with these messages and settings becomes."""
        async with self.serving(self.whole("text")) as (server, provider, config):
            request = request_for(config, **settings)
            request = msgspec.structs.replace(request, messages=messages or request.messages, tools=tuple(tools))
            await collect(provider, request)
            return server.requests[-1]

    def expected(self, name: str) -> TurnEnd:
        """What `expected.json` says of a recording."""
        known = msgspec.json.decode((self.recordings / "expected.json").read_bytes(), type=dict[str, TurnEnd])
        check(name in known, f"expected.json says nothing of {name}")
        return known[name]

    async def expect(self, name: str, events: Sequence[TurnEvent]) -> TurnEnd:
        """Prove that the events are the turn that `expected.json` says."""
        end = end_of(events)
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        check(text == end.message.text, f"{name}: the deltas are {text!r}, the message is {end.message.text!r}")
        thinking = "".join(event.text for event in events if isinstance(event, ThinkingDelta))
        thought = "".join(part.text for part in end.message.parts if isinstance(part, ThinkingPart))
        check(thinking == thought, f"{name}: the thinking deltas are {thinking!r}, the message has {thought!r}")
        expected = self.expected(name)
        check(end == expected, f"{name}: the turn is\n{end}\nand should be\n{expected}")
        return end


def request_for(config: AgentConfig, **settings: Any) -> TurnRequest:
    """A question about the weather, with a tool, sent once."""
    config = msgspec.structs.replace(config, **{"max_retries": 0, **settings})
    return TurnRequest(config=config, messages=(Message.user("What is the weather?"),), tools=(TOOL,))


async def collect(provider: ChatProvider, request: TurnRequest) -> list[TurnEvent]:
    """All events of a turn."""
    return [event async for event in provider.stream_turn(request)]


async def failure_of(provider: ChatProvider, request: TurnRequest) -> ProviderError:
    """The error of a turn that must fail."""
    try:
        events = await collect(provider, request)
    except ProviderError as error:
        return error
    raise AssertionError(f"the turn should have failed, and gave {events[-1:]}")


def end_of(events: Sequence[TurnEvent]) -> TurnEnd:
    """The one `TurnEnd`, which is the last event."""
    ends = [event for event in events if isinstance(event, TurnEnd)]
    check(len(ends) == 1 and events[-1] is ends[0], f"a turn has one TurnEnd, as its last event; got {events[-3:]}")
    return ends[0]


def body_of(request: Received) -> Any:
    """A request's JSON."""
    try:
        return msgspec.json.decode(request.body)
    except msgspec.DecodeError as error:
        raise AssertionError(f"the request's body is no JSON: {request.body[:200]!r}") from error


def values_in(body: Any) -> Iterator[Any]:
    """All texts and numbers of a JSON value, however deep: the suite looks for values, wherever a vendor puts them."""
    if isinstance(body, Mapping):
        for value in body.values():
            yield from values_in(value)
    elif isinstance(body, list):
        for value in body:
            yield from values_in(value)
    else:
        yield body


def keys_in(body: Any) -> Iterator[str]:
    """All keys of a JSON value, however deep."""
    if isinstance(body, Mapping):
        for key, value in body.items():
            yield str(key)
            yield from keys_in(value)
    elif isinstance(body, list):
        for value in body:
            yield from keys_in(value)


def has_text(body: Any, text: str) -> bool:
    """Whether a text is, or is part of, one of the values."""
    return any(isinstance(value, str) and text in value for value in values_in(body))


def has_number(body: Any, number: float) -> bool:
    """Whether a number is one of the values."""
    numbers = (value for value in values_in(body) if isinstance(value, int | float) and not isinstance(value, bool))
    return any(value == number for value in numbers)


def capable(provider: ChatProvider, protocol: type) -> Any:
    """The provider, seen as one with an optional capability."""
    check(isinstance(provider, protocol), f"{provider.name} has no {protocol.__name__}: name it in `gaps`")
    return provider


def check(fact: object, otherwise: str) -> None:
    """Fail unless `fact` holds; unlike an assert, with a message that third parties can act on."""
    if not fact:
        raise AssertionError(otherwise)
