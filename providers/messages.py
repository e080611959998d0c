"""The provider-neutral conversation: what every vendor's wire format is translated from and to."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from providers.errors import InvalidRequest
from providers.vendor_limits import VendorLimits
from queue_backends.messages import JsonObject, TokenUsage


class Role(enum.StrEnum):
    """Who speaks. Tool outcomes are spoken by the user's side."""

    USER = "user"
    ASSISTANT = "assistant"


_USER = Role.USER  # Python 3.11 takes ten times as long to find an enum's member as a module's name (0.11 µs, measured)


class TextPart(Struct, frozen=True, kw_only=True, tag="text", omit_defaults=True):
    """A piece of text."""

    text: str


class ImagePart(Struct, frozen=True, kw_only=True, tag="image", omit_defaults=True):
    """A picture: either `data` (base64) with its `media_type`, or a `url`."""

    media_type: str = ""
    data: str = ""
    url: str = ""


class ThinkingPart(Struct, frozen=True, kw_only=True, tag="thinking", omit_defaults=True):
    """The model's reasoning. `signature` and `redacted` go back to the same vendor unchanged on the next turn."""

    text: str = ""
    signature: str = ""
    redacted: str = ""
    provider: str = ""
    """Whose reasoning it is; another vendor's is left out of a request."""


class ToolCall(Struct, frozen=True, kw_only=True, tag="tool_call", omit_defaults=True):
    """The model wants a tool to be called. `arguments` is the raw JSON text that the model wrote, `{}` if none."""

    id: str
    name: str
    arguments: str = "{}"


class ToolOutcome(Struct, frozen=True, kw_only=True, tag="tool_outcome", omit_defaults=True):
    """What a tool answered, for the model to read."""

    call_id: str
    name: str
    content: str = ""
    is_error: bool = False
    images: tuple[ImagePart, ...] = ()
    structured: Any = None


Part = TextPart | ImagePart | ThinkingPart | ToolCall | ToolOutcome


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn of one side."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """All text parts, joined."""
        text = ""
        for part in self.parts:  # most have one, and a comprehension costs as much as three (0.2 µs, measured)
            if type(part) is TextPart:
                text += part.text
        return text

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that this message asks for, in order."""
        return tuple([part for part in self.parts if type(part) is ToolCall])

    @property
    def calls_tools(self) -> bool:
        """Whether there are any."""
        for part in self.parts:  # noqa: SIM110 - a generator costs as much as five parts (0.2 µs, measured)
            if type(part) is ToolCall:
                return True
        return False

    @classmethod
    def user(cls, text: str) -> Message:
        """A user's message of plain text."""
        return cls(role=_USER, parts=(TextPart(text=text),))

    @classmethod
    def assistant(cls, text: str) -> Message:
        """An assistant's message of plain text."""
        return cls(role=Role.ASSISTANT, parts=(TextPart(text=text),))


class StopReason(enum.StrEnum):
    """Why a turn ended."""

    END_TURN = "end_turn"
    TOOL_USE = "tool_use"
    MAX_TOKENS = "max_tokens"
    STOP_SEQUENCE = "stop_sequence"
    REFUSAL = "refusal"
    PAUSE = "pause"
    """The vendor paused a long turn: send the conversation again, unchanged, to continue."""


class TextDelta(Struct, frozen=True):
    """A piece of the answer, as it is produced."""

    text: str


class ThinkingDelta(Struct, frozen=True):
    """A piece of the reasoning, as it is produced."""

    text: str


class UsageUpdate(Struct, frozen=True):
    """The usage of this call as known so far. Each one replaces the one before."""

    usage: TokenUsage


class LimitsSeen(Struct, frozen=True):
    """What the vendor tells of its rate limits. The first event, if it tells anything."""

    limits: VendorLimits


class TurnEnd(Struct, frozen=True, kw_only=True):
    """The turn is complete. Always the last event, exactly once."""

    message: Message
    """The whole answer, tool calls included, in the order in which the model produced its parts."""
    stop_reason: StopReason
    usage: TokenUsage
    model: str = ""
    """The model that answered, as the vendor names it."""
    response_id: str = ""


TurnEvent = TextDelta | ThinkingDelta | UsageUpdate | LimitsSeen | TurnEnd


class ToolSpec(Struct, frozen=True, kw_only=True):
    """A tool as the model is told of it, and the limits of one call."""

    name: str
    description: str = ""
    input_schema: JsonObject = msgspec.field(default_factory=lambda: {"type": "object"})
    idempotent: bool = False
    """Calling it twice does no harm: an interrupted call may be repeated."""
    timeout_s: float = 60.0
    max_output_chars: int = 100_000
    kind: str = "python"
    """`python`, `webhook`, `mcp`, `plugin` (a remote agent's action), `datasource` (a search), `builtin`, or `client`
    (nobody here runs it)."""


class ClientTool(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool that belongs to whoever submitted the task: a call of it ends the run, and is theirs to carry out."""

    name: str
    description: str = ""
    input_schema: JsonObject = msgspec.field(default_factory=lambda: {"type": "object"})

    @property
    def spec(self) -> ToolSpec:
        """As the model is told of it."""
        return ToolSpec(name=self.name, description=self.description, input_schema=self.input_schema, kind="client")


class ToolChoice(enum.StrEnum):
    """Whether the model may, must or must not call a tool."""

    AUTO = "auto"
    REQUIRED = "required"
    NONE = "none"


class TurnRequest(Struct, frozen=True, kw_only=True):
    """One model call: everything a `stream_turn` needs."""

    config: AgentConfig
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    task_id: str = ""
    turn: int = 0
    attempt: int = 0
    tenant: str = ""
    """On whose behalf; empty: nobody's in particular."""


class Thinking(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much the model shall reason. All empty: the model's own default."""

    budget_tokens: int | None = None
    effort: str = ""
    """`low`, `medium` or `high`."""


class AgentConfig(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an agent is made of, as far as a provider needs to know."""

    model: str
    provider: str = ""
    """Registry name; empty: found from the model's name."""
    route: str = ""
    """Name of the route that its calls take, instead of to `provider` and `model`; empty: none."""
    name: str = ""
    system_prompt: str = ""
    max_tokens: int = 8000
    """At most this many output tokens per model call."""
    max_answer_chars: int = 1_048_576
    """At most so many characters of text, reasoning and tool arguments per model call: for servers that do not care
    about `max_tokens`."""
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[str, ...] = ("*",)
    """Names or patterns (`search__*`) of the tools that it may call."""
    approve_tools: tuple[str, ...] = ()
    """Names or patterns of tools whose calls a person has to approve before they are made."""
    client_tools: tuple[ClientTool, ...] = ()
    """Further tools, which nobody here runs: when the model calls one, the run ends with the stop reason `tool_use`,
    and its result has the calls."""
    tool_choice: ToolChoice = ToolChoice.AUTO
    thinking: Thinking | None = None
    max_turns: int = 50
    """At most this many model calls in one run."""
    max_run_tokens: int | None = None
    """Input plus output tokens that one run may use; checked before each model call."""
    max_parallel_tools: int = 8
    max_repeated_calls: int = 3
    """The same tool with the same arguments is answered at most this many times in one run."""
    max_turn_restarts: int = 3
    """How often one turn is started over after its stream broke; at most 9."""
    output_schema: JsonObject | None = None
    base_url: str = ""
    api_key_env: str = ""
    """Name of the environment variable that holds the key; the key itself is never part of a configuration."""
    connect_timeout_s: float = 10.0
    first_event_timeout_s: float = 120.0
    """From the request until the first event of the answer."""
    idle_timeout_s: float = 60.0
    """Between two events of a stream."""
    max_retries: int = 3
    """HTTP requests repeated before any answer began, per model call."""
    max_retry_wait_s: float = 60.0
    """A vendor that wants a longer wait before a request is repeated is not waited for: the call fails."""
    options: JsonObject = {}
    """Vendor- or provider-specific settings, such as a script's path for `scripted`."""


def conversation(history: Sequence[JsonObject], prompt: str) -> tuple[Message, ...]:
    """The messages that a run starts with. A history message may also have plain `content` text instead of `parts`.

    Raises `InvalidRequest` naming the message that does not fit.
    """
    if not history and prompt:
        return (Message.user(prompt),)
    messages = [_from_history(index, item) for index, item in enumerate(history)]
    if prompt:
        messages.append(Message.user(prompt))
    return tuple(messages)


def _from_history(index: int, item: JsonObject) -> Message:
    if "parts" not in item and isinstance(item.get("content"), str):
        item = {"role": item.get("role"), "parts": [{"type": "text", "text": item["content"]}]}
    try:
        return msgspec.convert(item, Message)
    except msgspec.ValidationError as error:
        raise InvalidRequest(
            f"history[{index}] is no message: {error}: use {{'role': 'user'|'assistant', 'content': 'text'}}"
        ) from error
