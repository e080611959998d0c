"""The suite itself: it finds out what it is for. Each provider here is broken in one way."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from providers.anthropic import AnthropicProvider
from providers.capabilities import Capability
from providers.errors import ProviderError
from providers.interfaces import ChatProvider, Health
from providers.messages import AgentConfig, Message, TextDelta, TurnEnd, TurnEvent, TurnRequest
from tests.providers.test_provider_anthropic_conformance import TestAnthropic as _Suite

Change = Callable[[TurnRequest], TurnRequest]


class Broken(AnthropicProvider):
    """Loses something on the way."""

    def __init__(self, lose: Change) -> None:
        super().__init__()
        self._lose = lose

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """As the vendor's, with less in the request."""
        async for event in super().stream_turn(self._lose(request)):
            yield event


def without(**settings: Any) -> Change:
    """Loses settings of the agent."""
    return lambda request: msgspec.structs.replace(request, config=msgspec.structs.replace(request.config, **settings))


def suite_of(provider: Callable[[], ChatProvider], recordings: Path | None = None) -> Any:
    """The suite of Anthropic's provider, for another one."""
    made: Any = type(
        "Suite", (_Suite,), {"provider": lambda _: provider(), "recordings": recordings or _Suite.recordings}
    )
    return made()


@pytest.mark.parametrize(
    ("lose", "behaviour"),
    [
        (without(system_prompt=""), "test_system_prompt"),
        (without(temperature=None), "test_sampling"),
        (without(stop=()), "test_stop_sequences"),
        (without(max_tokens=10), "test_max_tokens"),
        (without(output_schema=None), "test_schema_is_sent"),
        (without(tool_choice="auto"), "test_tool_choice_required"),
        (without(thinking=None), "test_thinking_is_asked_for"),
        (lambda request: msgspec.structs.replace(request, tools=()), "test_tools_are_described"),
        (lambda request: msgspec.structs.replace(request, messages=request.messages[-1:]), "test_tool_round_trip"),
        (
            lambda request: msgspec.structs.replace(request, messages=request.messages[:1]),
            "test_thinking_is_carried_on",
        ),
        (lambda request: msgspec.structs.replace(request, messages=(Message.user("x"),)), "test_images"),
    ],
)
async def test_what_does_not_reach_the_request_is_found(lose: Change, behaviour: str) -> None:
    """Whatever a vendor's form is: the value is not there."""
    with pytest.raises(AssertionError):
        await getattr(suite_of(lambda: Broken(lose)), behaviour)()


async def test_a_gap_that_is_none_is_found() -> None:
    """A provider that says it lacks what it has fails the test of it: else its users would never know."""

    class Modest(AnthropicProvider):
        gaps: ClassVar[Mapping[Capability, str]] = {Capability.SYSTEM_PROMPT: "it is too modest"}

    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        await suite_of(Modest).test_system_prompt()


async def test_a_gap_that_nobody_named_is_found() -> None:
    """A provider without a capability has to say so."""

    class Boastful(AnthropicProvider):
        gaps: ClassVar[Mapping[Capability, str]] = {}

    with pytest.raises(NotImplementedError, match=r"embeddings_body: .*, or name what the provider lacks"):
        await suite_of(Boastful).test_embed()


async def test_a_named_gap_is_an_expected_failure() -> None:
    """With its reason."""
    with pytest.raises(pytest.xfail.Exception, match="lacks 'embeddings': the vendor has no embeddings"):
        await suite_of(AnthropicProvider).test_embed()


async def test_a_missing_recording_is_named(tmp_path: Path) -> None:
    """Nothing is skipped in silence."""
    shutil.copytree(_Suite.recordings, tmp_path, dirs_exist_ok=True)
    (tmp_path / "refusal.sse").unlink()
    with pytest.raises(AssertionError, match=r"refusal\.sse, or name what the provider lacks"):
        await suite_of(AnthropicProvider, tmp_path).test_refusal()


class Wrapped(AnthropicProvider):
    """Anthropic's provider, with something wrong in what it gives."""

    def __init__(self, change: Callable[[TurnEvent], Sequence[TurnEvent]]) -> None:
        super().__init__()
        self._change = change

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """As the vendor's, with other events."""
        async for event in super().stream_turn(request):
            for changed in self._change(event):
                yield changed


def _no_usage(event: TurnEvent) -> Sequence[TurnEvent]:
    if isinstance(event, TurnEnd):
        return [msgspec.structs.replace(event, usage=type(event.usage)())]
    return [event]


@pytest.mark.parametrize(
    ("change", "behaviour"),
    [
        (lambda event: [] if isinstance(event, TurnEnd) else [event], "test_text"),
        (lambda event: [event, event] if isinstance(event, TurnEnd) else [event], "test_text"),
        (lambda event: [] if isinstance(event, TextDelta) else [event], "test_unicode_cut_anywhere"),
        (_no_usage, "test_usage_is_present"),
        (_no_usage, "test_usage_of_cache_reads"),
    ],
)
async def test_wrong_events_are_found(change: Callable[[TurnEvent], Sequence[TurnEvent]], behaviour: str) -> None:
    """One end, as the last event, with everything that the deltas said, and its usage."""
    with pytest.raises(AssertionError):
        await getattr(suite_of(lambda: Wrapped(change)), behaviour)()


class Swallowing(AnthropicProvider):
    """Takes broken streams for whole ones, leaks its key, and raises from a health check."""

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """Whatever came is the answer; errors carry what was sent."""
        try:
            async for event in super().stream_turn(request):
                yield event
        except ProviderError as error:
            if error.status is None:
                return
            raise type(error)(f"{error} (key {self._call(request.config, '', b'').headers['x-api-key']})") from None

    async def health_check(self, config: AgentConfig) -> Health:
        """Raises what it finds."""
        await self._get(config, "/v1/models")
        return Health(healthy=True)


@pytest.mark.parametrize(
    "behaviour", ["test_cut_stream", "test_silence", "test_secrets_in_errors", "test_live_key", "test_unhealthy"]
)
async def test_wrong_endings_are_found(behaviour: str) -> None:
    """Half an answer, a key in an error, a health check that raises."""
    with pytest.raises((AssertionError, ProviderError)):
        await getattr(suite_of(Swallowing), behaviour)()
