"""One model call: what is known of it while it goes on, and its record."""

from __future__ import annotations

import time

from msgspec import Struct
from msgspec.structs import replace

from providers.answer_limits import answer_too_long
from providers.errors import ProviderError, RateLimited
from providers.interfaces import ChatProvider
from providers.messages import Message, TextPart, ThinkingPart, ToolCall, TurnEnd, TurnRequest
from providers.routed_turn import Race
from providers.turn_routing import Target
from providers.vendor_limits import VendorLimits
from queue_backends import CallOutcome, TokenUsage

_COMPLETED = CallOutcome.COMPLETED  # as in `tool_loop`
_NO_USAGE = TokenUsage()


class TurnRecord(Struct, frozen=True, kw_only=True):
    """One model call, as it went. There is one for each call that was sent, whatever its end."""

    turn: int
    attempt: int
    outcome: CallOutcome
    usage: TokenUsage
    started_at: float
    """Unix seconds."""
    duration_ms: int
    time_to_first_chunk_ms: int | None = None
    provider: str = ""
    """Who was asked, in a run whose calls have a choice: the registry name; else empty."""
    asked_model: str = ""
    """The model that was asked for there."""
    target: str = ""
    """The target's name in its route."""
    model: str = ""
    """The model that answered, as the vendor names it; empty if none did."""
    end: TurnEnd | None = None
    """The answer, if the turn was completed."""
    error: str = ""
    streamed_chars: int = 0
    """Text and reasoning that came before the call ended."""
    sent_chars: int = 0
    """Text that was sent, counted only for calls that did not complete: all there is to estimate their cost from."""
    is_last: bool = False
    """The call was completed, and the run ends with it."""
    limits: VendorLimits | None = None
    """What the vendor told of its rate limits."""
    rate_limited: bool = False
    """The vendor refused the call because of a rate limit."""
    retry_after_s: float | None = None
    """So long it wants to hear nothing, if it said so."""


class OpenCall:
    """What is known of one model call while it goes on."""

    __slots__ = (
        "_clock",
        "_most_chars",
        "end",
        "first_chunk_s",
        "limits",
        "provider",
        "race",
        "rate_limited",
        "request",
        "retry_after_s",
        "started_at",
        "streamed_chars",
        "target",
        "usage",
    )

    def __init__(self, request: TurnRequest, provider: ChatProvider) -> None:
        self.request = request
        self.provider = provider
        self.target: Target | None = None
        self.race: Race | None = None
        """As long as somebody else may speak first."""
        self.usage = _NO_USAGE
        self.streamed_chars = 0
        self._most_chars = request.config.max_answer_chars
        self.end: TurnEnd | None = None
        self.limits: VendorLimits | None = None
        self.rate_limited = False
        self.retry_after_s: float | None = None
        self.started_at = time.time()
        self._clock = time.monotonic()
        self.first_chunk_s: float | None = None

    def lasted_s(self) -> float:
        """How long ago it began."""
        return time.monotonic() - self._clock

    def saw_end(self, end: TurnEnd) -> None:
        """The answer is complete. Raises `LimitReached` if it is longer than the agent allows."""
        self.usage = end.usage
        if _answer_chars(end.message) > self._most_chars:  # not all of it comes as text before
            raise answer_too_long(self._most_chars, self.request.config.provider)
        self.end = end

    def has_room(self, text: str) -> bool:
        """Whether the answer may have this piece, too."""
        return self.streamed_chars + len(text) <= self._most_chars

    def saw_chunk(self, text: str) -> None:
        """A piece of the answer came. Raises `LimitReached` if that makes it longer than the agent allows."""
        self.streamed_chars += len(text)
        if self.streamed_chars > self._most_chars:
            raise answer_too_long(self._most_chars, self.request.config.provider)
        if self.first_chunk_s is None:
            self.first_chunk_s = time.monotonic() - self._clock

    def failed(self, error: ProviderError) -> None:
        """Take over what the error tells of the call."""
        self.usage = error.usage or self.usage
        self.limits = error.limits or self.limits
        self.rate_limited = isinstance(error, RateLimited)
        self.retry_after_s = error.retry_after_s

    def record(self, outcome: CallOutcome, error: str, *, is_last: bool) -> TurnRecord:
        """How it went, once it has ended."""
        request, end = self.request, self.end
        # A call with more than 15 keywords is made by way of a dict, for four times the price (0.4 µs, measured): what
        # most records do not have comes after.
        record = TurnRecord(
            turn=request.turn,
            attempt=request.attempt,
            outcome=outcome,
            usage=self.usage,
            started_at=self.started_at,
            duration_ms=round((time.monotonic() - self._clock) * 1000),
            time_to_first_chunk_ms=None if self.first_chunk_s is None else round(self.first_chunk_s * 1000),
            model=end.model if end else "",
            end=end,
            error=error,
            streamed_chars=self.streamed_chars,
            is_last=is_last,
            limits=self.limits,
        )
        if outcome is not _COMPLETED:
            record = replace(
                record,
                end=None,
                sent_chars=_chars(request),
                rate_limited=self.rate_limited,
                retry_after_s=self.retry_after_s,
            )
        if (target := self.target) is not None:
            config = target.config
            record = replace(record, provider=config.provider, asked_model=config.model, target=target.name)
        return record


def _answer_chars(message: Message) -> int:
    chars = 0
    for part in message.parts:
        if isinstance(part, TextPart) or isinstance(part, ThinkingPart):  # noqa: SIM101 - a union is made at each call
            chars += len(part.text)
        elif isinstance(part, ToolCall):
            chars += len(part.arguments)
    return chars


def _chars(request: TurnRequest) -> int:
    texts = (part.text for message in request.messages for part in message.parts if isinstance(part, TextPart))
    return len(request.config.system_prompt) + sum(len(text) for text in texts)
