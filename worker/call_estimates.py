"""How many tokens a model call will probably use: what is reserved before it is sent."""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct

from providers import ImagePart, Message, TextPart, ThinkingPart, ToolCall, ToolOutcome, TurnRequest
from worker.call_gates import ModelCallIntent

CHARS_PER_TOKEN = 4.0
_IMAGE_TOKENS = 1_000
_WEIGHT = 0.25
_MOST_KNOWN = 4_096


class ExpectedTokens(Struct, frozen=True):
    """An estimate. Never zero."""

    input_tokens: int
    output_tokens: int


class _Learned(Struct):
    tokens_per_char: float = 1 / CHARS_PER_TOKEN
    output_tokens: float = 0.0
    calls: int = 0


class CallEstimates:
    """Learns from the calls that have ended, by agent and model; what it knows is this process' own.

    Input is told by its length, and by how many tokens such texts came to before. Output is expected to be as long as
    that of recent calls; before the first one, as long as `max_tokens` allows.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str, str], _Learned] = OrderedDict()

    def of(self, intent: ModelCallIntent) -> ExpectedTokens:
        """What a call will probably use."""
        learned = self._known.get(_key(intent), _Learned())
        most = max(intent.config.max_tokens, 1)
        output = min(round(learned.output_tokens), most) if learned.calls else most
        chars, images = request_size(intent.request)
        tokens = round(chars * learned.tokens_per_char) + images * _IMAGE_TOKENS
        return ExpectedTokens(max(tokens, 1), max(output, 1))

    def learn(self, intent: ModelCallIntent, input_tokens: int | None, output_tokens: int | None) -> None:
        """What a call that was completed has used."""
        learned = self._known.setdefault(_key(intent), _Learned())
        self._known.move_to_end(_key(intent))
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        weight = _WEIGHT if learned.calls else 1.0
        chars, images = request_size(intent.request)
        text_tokens = (input_tokens or 0) - images * _IMAGE_TOKENS
        if chars and text_tokens > 0:
            learned.tokens_per_char += weight * (text_tokens / chars - learned.tokens_per_char)
        if output_tokens:
            learned.output_tokens += weight * (output_tokens - learned.output_tokens)
            learned.calls += 1


def _key(intent: ModelCallIntent) -> tuple[str, str, str]:
    return intent.config.name or intent.task.agent, intent.provider, intent.config.model


def request_size(request: TurnRequest) -> tuple[int, int]:
    """Characters of text and number of images that a call sends; tools count with name and description."""
    chars = len(request.config.system_prompt)
    images = 0
    for tool in request.tools:
        chars += len(tool.name) + len(tool.description)
    for message in request.messages:
        more_chars, more_images = message_size(message)
        chars += more_chars
        images += more_images
    return chars, images


def message_size(message: Message) -> tuple[int, int]:
    """Characters of text and number of images of one message."""
    chars = images = 0
    for part in message.parts:
        match part:
            case TextPart() | ThinkingPart():
                chars += len(part.text)
            case ToolCall():
                chars += len(part.arguments)
            case ToolOutcome():
                chars += len(part.content)
                images += len(part.images)
            case ImagePart():
                images += 1
    return chars, images


def message_tokens(message: Message) -> int:
    """How many tokens a message probably is. Never zero."""
    chars, images = message_size(message)
    return max(1, round(chars / CHARS_PER_TOKEN)) + images * _IMAGE_TOKENS
