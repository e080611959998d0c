"""What a provider is: one method that runs a task, or, for a usual vendor, one that streams a single turn.

Everything beyond that is an optional capability, found by `isinstance` against the protocols below.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

from msgspec import Struct

from providers.capabilities import Capability
from providers.messages import AgentConfig, Message, ToolCall, ToolOutcome, ToolSpec, TurnEvent, TurnRequest
from queue_backends import ChunkType, Task, TokenUsage

CallTool = Callable[[ToolCall], Awaitable[ToolOutcome]]
"""Runs one tool. Never raises for a tool's failure: that is an outcome with `is_error`. Honours cancellation."""


class ChunkFn(Protocol):
    """Takes one piece of the stream. Waits if the way to the consumers is congested; never fails a run."""

    async def __call__(self, kind: ChunkType, content: str, metadata: Mapping[str, Any] | None = None, /) -> None: ...


@runtime_checkable
class LLMProvider(Protocol):
    """Runs whole tasks. (ark: RunTask.)"""

    name: str

    async def run_task(
        self,
        config: AgentConfig,
        task: Task,
        tools: Sequence[ToolSpec],
        call_tool: CallTool,
        chunk_fn: ChunkFn,
    ) -> tuple[str, TokenUsage]:
        """Work on the task until there is an answer; return its text and the usage over all model calls.

        Raises a `ProviderError`; its `usage` then says what was used so far. Cancellation closes all connections.
        """
        ...


class ChatProvider(ABC):
    """A provider that answers one turn at a time and leaves the tool-use loop to us: all a vendor adapter writes."""

    name: str = ""
    native_output_schema: bool = False
    """Whether the vendor holds its model to `config.output_schema`; if not, the prompt asks for it."""
    gaps: ClassVar[Mapping[Capability, str]] = {}
    """What it lacks, and why: half a sentence for the manual, such as "the vendor has no embeddings"."""
    health_limit_s: float = 5.0
    """The longest that `health_check` may take."""

    def sends_schema(self, config: AgentConfig) -> bool:
        """Whether the vendor is given `config.output_schema` in its own form; if not, the prompt asks for it.

        The default says what `native_output_schema` says. Override it if that depends on the model or on the schema.
        """
        return self.native_output_schema

    @abstractmethod
    def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """One model call. Yields deltas as they come and exactly one `TurnEnd` at the end.

        Raises a `ProviderError`. After the first delta, a broken stream is `StreamBroken` with the usage known so far;
        before it, the adapter may repeat the request itself, within `config.max_retries`. Closing the iterator, or
        cancelling its task, closes the connection.
        """
        ...

    async def run_task(
        self,
        config: AgentConfig,
        task: Task,
        tools: Sequence[ToolSpec],
        call_tool: CallTool,
        chunk_fn: ChunkFn,
    ) -> tuple[str, TokenUsage]:
        """The shared tool-use loop over `stream_turn`."""
        from providers.tool_loop import run as run_loop  # the loop knows this class, so it cannot be imported first

        run = await run_loop(self, config, task, tools, call_tool, chunk_fn)
        return run.output, run.usage

    async def aclose(self) -> None:
        """Give up connections. The default has none."""
        return


@runtime_checkable
class Completer(Protocol):
    """Answers a single prompt, without tools and without a stream."""

    async def complete(self, config: AgentConfig, system_prompt: str, prompt: str, max_tokens: int) -> str:
        """The answer's text. Raises a `ProviderError`."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors."""

    async def embed(self, config: AgentConfig, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text, in order. Raises a `ProviderError`."""
        ...


class Health(Struct, frozen=True, kw_only=True):
    """What a health check found."""

    healthy: bool
    message: str = ""
    details: dict[str, str] = {}


@runtime_checkable
class HealthCheck(Protocol):
    """Can tell whether it works, by a light but real call."""

    async def health_check(self, config: AgentConfig) -> Health:
        """Never raises for a failing provider: that is an answer. Takes at most five seconds."""
        ...


class ConfigParam(Struct, frozen=True, kw_only=True):
    """One setting that a provider understands."""

    key: str
    type: str = "string"
    description: str = ""
    required: bool = False
    default: str = ""
    secret: bool = False


@runtime_checkable
class LiveConfig(Protocol):
    """Takes new settings without a restart."""

    def describe(self) -> Sequence[ConfigParam]:
        """The settings it understands."""
        ...

    async def config_updated(self, values: Mapping[str, str]) -> None:
        """Use these values from the next call on; keys that are absent keep theirs. Raises `ProviderError`."""
        ...


@runtime_checkable
class TokenCounter(Protocol):
    """Counts tokens before a call."""

    async def count_tokens(self, config: AgentConfig, messages: Sequence[Message]) -> int:
        """Input tokens that these messages and the system prompt would be, as the vendor counts, or else an estimate.

        Raises a `ProviderError` if the vendor is asked and does not say.
        """
        ...


class ModelInfo(Struct, frozen=True, kw_only=True):
    """Facts about a model. None: unknown."""

    context_window: int | None = None
    """Input and output tokens together."""
    max_output_tokens: int | None = None
    tools: bool | None = None
    images: bool | None = None
    thinking: bool | None = None


@runtime_checkable
class ModelInfoProvider(Protocol):
    """Knows facts about its models."""

    async def model_info(self, config: AgentConfig) -> ModelInfo:
        """What is known of `config.model`. Never raises for a failing provider: then less is known."""
        ...
