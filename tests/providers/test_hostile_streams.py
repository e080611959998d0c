"""Whatever a server sends, reading it ends in an answer or in a `ProviderError`: no reader lets anything else out."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from providers.anthropic_events import MessageReader
from providers.anthropic_events import error_event as anthropic_error
from providers.aws_event_stream import AwsEventStreamDecoder
from providers.bedrock_events import ConverseReader, exception_message
from providers.errors import BadResponse, ProviderError
from providers.event_stream import EventDecoder
from providers.gemini_events import ContentReader, error_chunk
from providers.messages import AgentConfig, TurnEnd, TurnRequest
from providers.ndjson import NdjsonDecoder
from providers.ollama_events import ChatReader, error_line
from providers.openai_events import CompletionReader
from providers.openai_events import error_event as chat_error
from providers.openai_responses_events import ResponseReader
from providers.openai_responses_events import error_event as responses_error
from providers.sse import SseDecoder
from providers.streamed_turn import TurnReader
from tests import aws_frames

_RECORDINGS = Path(__file__).parent / "recordings"
_REQUEST = TurnRequest(config=AgentConfig(model="gemini-3-pro"), messages=())
_DEEP = b"[" * 5000 + b"]" * 5000

_Reject = Callable[[bytes], ProviderError | None]
_READERS: dict[str, tuple[Callable[[], TurnReader], _Reject, Callable[[], EventDecoder]]] = {
    "anthropic": (MessageReader, lambda data: anthropic_error(data, "x"), SseDecoder),
    "azure_chat": (lambda: CompletionReader("x"), lambda data: chat_error(data, "x"), SseDecoder),
    "bedrock": (ConverseReader, exception_message, AwsEventStreamDecoder),
    "gemini": (lambda: ContentReader("x", _REQUEST), lambda data: error_chunk(data, "x"), SseDecoder),
    "ollama": (ChatReader, error_line, NdjsonDecoder),
    "openai": (lambda: CompletionReader("x"), lambda data: chat_error(data, "x"), SseDecoder),
    "openai_responses": (lambda: ResponseReader("x"), lambda data: responses_error(data, "x"), SseDecoder),
}
_OTHERS: tuple[Any, ...] = (None, "x", 1.5, True, [], {}, [None], 10**30)
_JSON = sorted(set(_READERS) - {"bedrock"})


def _read(vendor: str, events: Sequence[bytes]) -> TurnEnd:
    """As the transport and the turn do: the first event may be an error, then all are read."""
    make, reject, _ = _READERS[vendor]
    if events and (error := reject(events[0])) is not None:
        raise error
    reader = make()
    for data in events:
        reader.read(data)
    return reader.end()


def _is_handled(vendor: str, events: Sequence[bytes]) -> bool:
    try:
        _read(vendor, events)
    except ProviderError:
        return True
    return True


def _recorded(vendor: str) -> Iterator[list[bytes]]:
    for file in sorted((_RECORDINGS / vendor).iterdir()):
        if file.suffix != ".json":
            decoder = _READERS[vendor][2]()
            yield decoder.feed(file.read_bytes()) + decoder.flush()


@pytest.mark.parametrize("vendor", sorted(_READERS))
def test_lost_repeated_and_shuffled_events(vendor: str) -> None:
    """Events may come in any order and number."""
    chance = random.Random(7)
    for events in _recorded(vendor):
        for place in range(min(len(events), 30)):
            assert _is_handled(vendor, events[:place] + events[place + 1 :])
            assert _is_handled(vendor, [*events[:place], events[place], *events[place:]])
            assert _is_handled(vendor, chance.sample(events, len(events)))


@pytest.mark.parametrize("vendor", _JSON)
def test_values_of_another_kind(vendor: str) -> None:
    """Any value of an event may be null or of a type that no documentation knows."""
    for events in _recorded(vendor):
        for place, data in enumerate(events[:12]):
            for changed in _changed(data):
                assert _is_handled(vendor, [*events[:place], changed, *events[place + 1 :]])


@pytest.mark.parametrize("vendor", _JSON)
def test_bytes_that_are_no_text(vendor: str) -> None:
    """A byte that no UTF-8 has, and half of a surrogate pair, at any place of an event: in a call's arguments, too."""
    for events in _recorded(vendor):
        for place, data in enumerate(events[:8]):
            for at, junk in itertools.product(range(0, len(data), 7), (b"\xff", b"\\ud800")):
                assert _is_handled(vendor, [*events[:place], data[:at] + junk + data[at:], *events[place + 1 :]])


@pytest.mark.parametrize("vendor", sorted(_READERS))
@pytest.mark.parametrize("field", [b"new", b"error", b"message"])
def test_deep_nesting(vendor: str, field: bytes) -> None:
    """JSON a thousand levels deep is no answer, and no crash: at the beginning and in the middle of one."""
    nested = b'{"%s":%s}' % (field, _DEEP)
    if vendor == "bedrock":
        whole = AwsEventStreamDecoder().feed(aws_frames.event("contentBlockDelta", nested))[0]
    else:
        whole = nested
    with pytest.raises(BadResponse, match="cannot be read"):
        _read(vendor, [whole])
    events = next(_recorded(vendor))
    with pytest.raises(BadResponse, match="cannot be read"):
        _read(vendor, [events[0], whole, *events[1:]])


@pytest.mark.parametrize("arguments", [b'{"at":"\xff"}', b'"\xff"', b'"\\ud800"'])
def test_arguments_that_are_no_text(arguments: bytes) -> None:
    """Arguments that come as an object are read apart from the rest of their event."""
    gemini = b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"look","args":%s}}]}}]}' % arguments
    ollama = b'{"message":{"tool_calls":[{"function":{"name":"look","arguments":%s}}]}}' % arguments
    bedrock = aws_frames.event("contentBlockDelta", b'{"delta":{"toolUse":{"input":%s}}}' % arguments)
    for vendor, data in (("gemini", gemini), ("ollama", ollama), ("bedrock", bedrock)):
        if vendor == "gemini" and b"ud800" in arguments:
            continue  # is handed on as it came, and judged as arguments are
        with pytest.raises(BadResponse, match="cannot be read"):
            _read(vendor, [AwsEventStreamDecoder().feed(data)[0] if vendor == "bedrock" else data])


def test_findings_that_are_no_text() -> None:
    """What Azure's content filter found is read apart, too."""
    choice = b'{"delta":{},"finish_reason":"content_filter","content_filter_results":{"hate":"\xff"}}'
    with pytest.raises(BadResponse, match="cannot be read"):
        _read("azure_chat", [b'{"choices":[%s]}' % choice])


def _changed(data: bytes) -> Iterator[bytes]:
    try:
        document = json.loads(data)
    except ValueError:
        return
    for path in list(_paths(document)):
        for value in _OTHERS:
            yield json.dumps(_with(document, path, value)).encode()


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _paths(child, (*path, key))


def _with(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = document.copy()
    copy[path[0]] = _with(document[path[0]], path[1:], value)
    return copy
