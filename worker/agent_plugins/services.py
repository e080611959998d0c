"""What a host offers to a plugin while it handles a message. Hosts of any kind of plugin implement these protocols.

The rules of all services:

- Each call is a *step* of the message. Steps are named by the order in which they are begun, or by a `key`. When a
  worker dies and another one takes the message over, `handle_message` runs again from the start, and a step that had
  ended is answered from the record instead of being done again, if it asks for the same. So what a plugin does must
  follow from its request and from the answers of its steps.
- Errors that a plugin may want to handle are raised: a `ProviderError` of a model call, `PluginDenied` for what it may
  not do. What ends the run (cancellation, a lost lease, a postponement) comes as `asyncio.CancelledError`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

from msgspec import Struct

from providers.messages import Message, StopReason, TextDelta, ThinkingDelta, ToolCall, ToolOutcome, ToolSpec
from queue_backends import TokenUsage
from queue_backends.messages import JsonObject
from worker.datasources.passages import Passage

Prompt: TypeAlias = str | Message | Mapping[str, Any] | Sequence[Message | Mapping[str, Any]]
"""A text, a message, or a conversation. A mapping is a message as JSON: `{"role": "user", "content": "…"}`."""
Tools: TypeAlias = Literal["auto"] | Sequence[ToolSpec | Mapping[str, Any] | str] | None
"""`"auto"`: the agent's tools, which the host calls until there is an answer. A sequence: tools that the model is told
of, by name (one of the agent's) or by schema; what it asks for stands in `LlmAnswer.tool_calls`. None: no tools."""


class LlmAnswer(Struct, frozen=True, kw_only=True):
    """What a model answered."""

    text: str
    """Of the last turn, where there were several."""
    tool_calls: tuple[ToolCall, ...] = ()
    """What the plugin itself shall call, and tell the model of in its next call."""
    usage: TokenUsage = TokenUsage()
    """Over all turns."""
    stop_reason: StopReason = StopReason.END_TURN
    turns: int = 1
    messages: tuple[Message, ...] = ()
    """What the call has added to the conversation: to be appended to the prompt of a next call."""
    structured: Any = None
    """The answer as a JSON value, where an output schema was given."""


class ToolCallSeen(Struct, frozen=True):
    """With `tools="auto"`: the host is about to call a tool."""

    call: ToolCall


class ToolResultSeen(Struct, frozen=True):
    """With `tools="auto"`: a tool has answered."""

    outcome: ToolOutcome


class TurnRestarted(Struct, frozen=True):
    """The stream broke and the turn starts over: what came of it before is void."""


LlmEvent: TypeAlias = TextDelta | ThinkingDelta | ToolCallSeen | ToolResultSeen | TurnRestarted


class LlmCall(Protocol):
    """A model call. Await it for the answer, or iterate over it for its events as they come, and await it then."""

    def __await__(self) -> Generator[Any, None, LlmAnswer]: ...

    def __aiter__(self) -> AsyncIterator[LlmEvent]: ...


class AgentStream(Protocol):
    """The answer, as it is made. Whatever comes after `done` or `error` is ignored."""

    async def content(self, text: str) -> None:
        """A piece of the answer's text."""
        ...

    async def thinking(self, text: str) -> None:
        """A piece of visible reasoning, or what is being done."""
        ...

    async def tool_call(self, name: str, arguments: Any = None, *, call_id: str = "") -> str:
        """A tool is about to be called; returns the id that its result shall have."""
        ...

    async def tool_result(self, call_id: str, name: str, content: str, *, is_error: bool = False) -> None:
        """A tool has answered."""
        ...

    async def error(self, message: str) -> None:
        """The message cannot be answered: the task fails for good, with this text."""
        ...

    async def done(self, text: str | None = None, *, structured: Any = None) -> None:
        """The answer is complete. `text` is the task's output; None: all content, joined."""
        ...


class KeyValues(Protocol):
    """Values that outlive a message: of one plugin, for one tenant. Keys have at most 255 characters, values 1 MiB."""

    async def get(self, key: str) -> bytes | None:
        """The value; None if there is none, or it has expired."""
        ...

    async def set(self, key: str, value: bytes | str, *, expires_in_s: float | None = None) -> bool:
        """Set a value; says whether there was none before."""
        ...

    async def delete(self, key: str) -> bool:
        """Delete a value; says whether there was one."""
        ...

    async def list(self, prefix: str = "") -> list[str]:
        """The keys that begin so, sorted; at most 1,000."""
        ...


class PluginLog(Protocol):
    """The worker's log, with the plugin's and the task's name on each line."""

    def debug(self, message: str, **fields: Any) -> None: ...

    def info(self, message: str, **fields: Any) -> None: ...

    def warning(self, message: str, **fields: Any) -> None: ...

    def error(self, message: str, **fields: Any) -> None: ...


class PluginServices(Protocol):
    """All that a host offers. What `initialize` is given works in `handle_message`, and finds the message by itself;
    outside of one only `kv` and `log` work."""

    @property
    def kv(self) -> KeyValues:
        """Needs the scope `kv.readwrite`."""
        ...

    @property
    def log(self) -> PluginLog: ...

    def call_llm(
        self,
        prompt: Prompt,
        *,
        llm: str = "",
        model: str = "",
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Tools = None,
        output_schema: JsonObject | None = None,
        stream_to: AgentStream | None = None,
        key: str = "",
    ) -> LlmCall:
        """Call a model. Needs the scope `llms.proxy`.

        `llm`: slug of one of the app's; empty: the agent's default. `model`: another one of its allowed models.
        `system`: None means the agent's own system prompt. `stream_to`: the answer goes to the consumer as it comes.
        Retries, budgets, rate limits and usage are those of every model call.

        The call raises a `ProviderError` (`BudgetExceeded`, …), `PluginDenied`, `PluginMisuse`.
        """
        ...

    async def execute_tool(
        self,
        name: str,
        arguments: JsonObject | None = None,
        *,
        stream_to: AgentStream | None = None,
        key: str = "",
    ) -> ToolOutcome:
        """Call a tool. Needs the scope `tools.execute`. What goes wrong with the tool is an outcome with `is_error`.

        Raises `PluginDenied` for a tool that the agent does not have.
        """
        ...

    async def query_datasource(
        self, datasource: str, question: str, *, max_results: int = 5, threshold: float = 0.0, key: str = ""
    ) -> list[Passage]:
        """Search a data source by meaning, the best passages first. Needs the scope `datasources.query`.

        Raises `PluginDenied` for a data source that the agent does not have, and what the query raises.
        """
        ...
