"""A provider that answers from a script instead of a model: for tests, demos and rehearsals of faults.

Without a script it is ark's mock: the reply is `mock response`, word by word. A script is YAML (a file's path, or the
object itself, in `AgentConfig.options["script"]`):

    responses: {weather: "It is sunny."}      # ark's mock: the first text found in the prompt, in any case, wins
    scenarios:                                # else: the first whose `match` is found in the prompt; none matches all
      - match: report
        turns:
          - thinking: I should look that up.
            tool_calls: [{name: get_time, arguments: {timezone: UTC}}]
          - text: "It is {last_result}. You asked: {prompt}"
            chunk_delay_s: 0.02
            usage: {input_tokens: 120, output_tokens: 30}
            fault: {kind: stream_broken, after_chunks: 3, attempts: 1}

Turns are taken in order, those of a conversation that is continued after calls for its client included; after the last
one it is repeated. A fault strikes the first `attempts` attempts of its turn.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import msgspec
from msgspec import Struct

from providers import lexical_vectors
from providers.capabilities import Capability
from providers.errors import (
    AuthenticationFailed,
    BadResponse,
    ContextTooLong,
    InvalidRequest,
    Overloaded,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    Refused,
    StreamBroken,
    Unavailable,
)
from providers.interfaces import ChatProvider, ConfigParam, Health, ModelInfo
from providers.live_config import Configurable
from providers.messages import (
    AgentConfig,
    Message,
    Role,
    StopReason,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ThinkingPart,
    ToolCall,
    ToolOutcome,
    TurnEnd,
    TurnEvent,
    TurnRequest,
)
from queue_backends import TokenUsage

DEFAULT_REPLY = "mock response"
EMBEDDING_DIMENSIONS = 1536

D = TypeVar("D", TextDelta, ThinkingDelta)
_ASSISTANT, _END_TURN, _TOOL_USE = Role.ASSISTANT, StopReason.END_TURN, StopReason.TOOL_USE  # as in `tool_loop`
_SPACES = re.compile("( )")

_FAULTS: dict[str, type[ProviderError]] = {
    "authentication_failed": AuthenticationFailed,
    "bad_response": BadResponse,
    "context_too_long": ContextTooLong,
    "invalid_request": InvalidRequest,
    "overloaded": Overloaded,
    "rate_limited": RateLimited,
    "refused": Refused,
    "stream_broken": StreamBroken,
    "timeout": ProviderTimeout,
    "unavailable": Unavailable,
}
FaultKind = Literal[
    "authentication_failed",
    "bad_response",
    "context_too_long",
    "invalid_request",
    "overloaded",
    "rate_limited",
    "refused",
    "stream_broken",
    "timeout",
    "unavailable",
]


class ScriptedFault(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A turn that fails."""

    kind: FaultKind
    message: str = ""
    after_chunks: int = 0
    """How many chunks are streamed before it strikes."""
    attempts: int = 1_000_000
    """How many attempts of the turn it strikes."""
    retry_after_s: float | None = None


class ScriptedCall(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool call that the script makes."""

    name: str
    arguments: dict[str, Any] = {}


class ScriptedTurn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One answer of the script."""

    text: str = ""
    """May use `{prompt}`, `{last_result}` and `{results}` (all tool results of the run, a line each)."""
    thinking: str = ""
    tool_calls: tuple[ScriptedCall, ...] = ()
    delay_s: float = 0.0
    """Before the first chunk."""
    chunk_delay_s: float = 0.0
    """Before each further chunk."""
    usage: TokenUsage | None = None
    """None: four bytes of text count as a token, as in ark's mock."""
    stop_reason: StopReason | None = None
    fault: ScriptedFault | None = None


class Scenario(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Turns for prompts that contain `match`."""

    turns: tuple[ScriptedTurn, ...]
    match: str = ""


class Script(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a scripted provider will ever say."""

    responses: dict[str, str] = {}
    scenarios: tuple[Scenario, ...] = ()
    delay_s: float = 0.0
    """Before each turn of `responses` and of the default reply."""
    context_window: int | None = None
    """What `model_info` says: for rehearsals of conversations that grow too long."""

    def turn(self, prompt: str, number: int) -> ScriptedTurn:
        """The answer to `prompt` in turn `number`, counted from 0."""
        for text, reply in self.responses.items():
            if _is_in(prompt, text):
                return ScriptedTurn(text=reply, delay_s=self.delay_s)
        for scenario in self.scenarios:
            if scenario.turns and _is_in(prompt, scenario.match):
                return scenario.turns[min(number, len(scenario.turns) - 1)]
        return ScriptedTurn(text=DEFAULT_REPLY, delay_s=self.delay_s)


def _is_in(prompt: str, text: str) -> bool:
    """In any case; what is empty is in every prompt."""
    return not text or text.lower() in prompt.lower()


_MOCK = Script()


class ScriptedProvider(Configurable, ChatProvider):
    """Answers from `AgentConfig.options["script"]`, else from the script that the live setting names. Registered as
    `scripted` and, for ark's sake, as `mock`."""

    name = "scripted"
    gaps: ClassVar[Mapping[Capability, str]] = {
        Capability.NATIVE_SCHEMA: "a script says what it says",
        Capability.VENDOR_COUNT: "four bytes count as a token",
        Capability.VENDOR_MODEL_INFO: "there is no vendor",
    }
    params: ClassVar[tuple[ConfigParam, ...]] = (
        ConfigParam(key="script", description="path of the script for agents that name none"),
    )

    def __init__(self) -> None:
        self._inline: tuple[object, Script] | None = None

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """The script's turn, word by word."""
        script = await self._script(request.config)
        prompt, turns = _prompt(request.messages)
        turn = script.turn(prompt, max(request.turn, turns))
        text = _filled(turn.text, prompt, request.messages)
        usage = turn.usage or _mock_usage(prompt, text)
        fault = turn.fault if turn.fault and request.attempt < turn.fault.attempts else None
        if turn.delay_s:
            await asyncio.sleep(turn.delay_s)
        streamed = 0
        for event in _deltas(turn, text):
            if fault is not None:
                _strike(fault, streamed, usage)
            if streamed and turn.chunk_delay_s:
                await asyncio.sleep(turn.chunk_delay_s)
            yield event
            streamed += 1
        if fault is not None:
            _strike(fault, max(streamed, fault.after_chunks), usage)
        yield _end(turn, text, usage, request)

    async def _script(self, config: AgentConfig) -> Script:
        source = config.options.get("script") or self.value("script")
        if not source:
            return _MOCK
        if isinstance(source, str):
            return await asyncio.to_thread(_load, source)
        if self._inline is None or self._inline[0] is not source:
            self._inline = (source, _read(source, "the agent's options"))
        return self._inline[1]

    async def complete(self, config: AgentConfig, system_prompt: str, prompt: str, max_tokens: int) -> str:
        """The text of the first turn. Raises `BadResponse` if there is none, or what the turn's fault says."""
        turn = (await self._script(config)).turn(prompt, 0)
        if turn.fault is not None:
            _strike(turn.fault, turn.fault.after_chunks, _mock_usage(prompt, ""))
        if not turn.text:
            raise BadResponse("provider returned empty response", provider=self.name)
        return _filled(turn.text, prompt, ())

    async def embed(self, config: AgentConfig, texts: Sequence[str]) -> list[list[float]]:
        """ark's mock vector: all zero but the first number, which is the text's length. With `options.embedding_model`
        `lexical`, vectors of the words (`providers.lexical_vectors`), with which real texts can be searched."""
        if config.options.get("embedding_model") == lexical_vectors.MODEL:
            return await asyncio.to_thread(lambda: [lexical_vectors.lexical_vector(text) for text in texts])
        return [[len(text) / 10_000] + [0.0] * (EMBEDDING_DIMENSIONS - 1) for text in texts]

    async def count_tokens(self, config: AgentConfig, messages: Sequence[Message]) -> int:
        """Four bytes of text count as a token, as in ark's mock."""
        texts = [config.system_prompt, *(message.text for message in messages), *_tool_results(messages)]
        return max(1, sum(_size(text) for text in texts) // 4)

    async def model_info(self, config: AgentConfig) -> ModelInfo:
        """The script's window, and that a script can do everything but see."""
        try:
            window = (await self._script(config)).context_window
        except ProviderError:
            window = None
        return ModelInfo(context_window=window, tools=True, images=False, thinking=True)

    async def health_check(self, config: AgentConfig) -> Health:
        """Healthy if the script can be read."""
        try:
            await self._script(config)
        except ProviderError as error:
            return Health(healthy=False, message=str(error))
        return Health(healthy=True, message="answers from a script")


@functools.lru_cache(maxsize=64)
def _load(path: str) -> Script:
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"script {path!r} cannot be read: {error.strerror}: check options.script") from error
    try:
        return _read(msgspec.yaml.decode(text), path)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"script {path!r} is no YAML: {error}") from error


def _read(source: object, where: str) -> Script:
    try:
        return msgspec.convert(source, Script)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the script in {where} does not fit: {error}") from error


def _prompt(messages: Sequence[Message]) -> tuple[str, int]:
    """The last prompt, and how many answers there were since. They are more than the run's own where it continues one
    that ended with calls for its client."""
    turns = 0
    for message in reversed(messages):
        if message.role is _ASSISTANT:
            turns += 1
        elif text := message.text:
            return text, turns
    return "", turns


def _tool_results(messages: Sequence[Message]) -> Iterator[str]:
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolOutcome):
                yield part.content


def _filled(text: str, prompt: str, messages: Sequence[Message]) -> str:
    if "{" not in text:
        return text
    results = list(_tool_results(messages))
    last = results[-1] if results else ""
    return text.replace("{last_result}", last).replace("{results}", "\n".join(results)).replace("{prompt}", prompt)


def _mock_usage(prompt: str, reply: str) -> TokenUsage:
    return TokenUsage(input_tokens=_size(prompt) // 4, output_tokens=_size(reply) // 4)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _deltas(turn: ScriptedTurn, text: str) -> Sequence[TextDelta | ThinkingDelta]:
    """Words and the single spaces between them, each a chunk, as ark's mock streams them."""
    spoken = _own_words(text) if text is turn.text else _words(TextDelta, text)
    return (*_words(ThinkingDelta, turn.thinking), *spoken) if turn.thinking else spoken


def _words(kind: type[D], content: str) -> tuple[D, ...]:
    return tuple([kind(piece) for piece in _SPACES.split(content) if piece])


@functools.lru_cache(maxsize=64)
def _own_words(text: str) -> tuple[TextDelta, ...]:
    """Of a script's text, where nothing of the prompt was filled in: it is said again and again."""
    return _words(TextDelta, text)


def _strike(fault: ScriptedFault, streamed: int, usage: TokenUsage) -> None:
    if streamed >= fault.after_chunks:
        error = _FAULTS[fault.kind]
        message = fault.message or f"scripted fault: {fault.kind}"
        raise error(message, provider="scripted", retry_after_s=fault.retry_after_s, usage=usage if streamed else None)


def _end(turn: ScriptedTurn, text: str, usage: TokenUsage, request: TurnRequest) -> TurnEnd:
    parts: list[ThinkingPart | TextPart | ToolCall] = []
    if turn.thinking:
        parts.append(ThinkingPart(text=turn.thinking, provider="scripted"))
    if text:
        parts.append(TextPart(text=text))
    for position, call in enumerate(turn.tool_calls):
        arguments = msgspec.json.encode(call.arguments).decode()
        parts.append(ToolCall(id=f"call_{request.turn}_{position}", name=call.name, arguments=arguments))
    natural = _TOOL_USE if turn.tool_calls else _END_TURN
    return TurnEnd(
        message=Message(role=_ASSISTANT, parts=tuple(parts)),
        stop_reason=turn.stop_reason or natural,
        usage=usage,
        model=request.config.model,
    )
