"""The messages of `swarm.plugin.v1`, field for field as in `plugin.proto`: their order is their numbers."""

from __future__ import annotations

from msgspec import field

from queue_backends.protobuf import Message

PACKAGE = "swarm.plugin.v1"
LLM_SERVICE = f"{PACKAGE}.LLMProvider"
QUEUE_SERVICE = f"{PACKAGE}.TaskQueue"


class Tool(Message, frozen=True, kw_only=True):
    """A tool that the plugin may call. `input_schema` is JSON."""

    name: str = ""
    description: str = ""
    input_schema: bytes = b""


class RunTaskRequest(Message, frozen=True, kw_only=True):
    """What is to be done: the first message of a run."""

    task_id: str = ""
    prompt: str = ""
    system_prompt: str = ""
    model: str = ""
    max_tokens: int = 0
    tools: tuple[Tool, ...] = ()


class ToolCallRequest(Message, frozen=True, kw_only=True):
    """The plugin wants a tool to be called. `input` is JSON."""

    call_id: str = ""
    tool_name: str = ""
    input: bytes = b""


class ToolCallResult(Message, frozen=True, kw_only=True):
    """What the tool answered; with an `error`, the `output` is empty."""

    call_id: str = ""
    output: str = ""
    error: str = ""


class TextChunk(Message, frozen=True, kw_only=True):
    """A piece of the answer (`Chunk` in the protocol)."""

    text: str = ""


class Result(Message, frozen=True, kw_only=True):
    """How the run ended. An `error` that begins with `permanent failure: ` is never tried again."""

    output: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    error: str = ""


class RunTaskMessage(Message, frozen=True, kw_only=True):
    """One message of a run, in either direction: exactly one of these."""

    init: RunTaskRequest | None = None
    tool_call: ToolCallRequest | None = None
    tool_result: ToolCallResult | None = None
    chunk: TextChunk | None = None
    result: Result | None = None


class PluginTask(Message, frozen=True, kw_only=True):
    """A task (`Task` in the protocol)."""

    id: str = ""
    prompt: str = ""
    meta: dict[str, str] = field(default_factory=dict)


class SubmitRequest(Message, frozen=True, kw_only=True):
    """A task to be queued."""

    prompt: str = ""
    meta: dict[str, str] = field(default_factory=dict)


class SubmitResponse(Message, frozen=True, kw_only=True):
    """It was queued."""

    task_id: str = ""


class PollRequest(Message, frozen=True, kw_only=True):
    """Asks for one task, waiting so long."""

    timeout_ms: int = 0


class PollResponse(Message, frozen=True, kw_only=True):
    """No task, or one with an empty id: there is none."""

    task: PluginTask | None = None


class AckRequest(Message, frozen=True, kw_only=True):
    """The task succeeded."""

    task: PluginTask | None = None
    result: str = ""
    input_tokens: int = 0
    output_tokens: int = 0


class NackRequest(Message, frozen=True, kw_only=True):
    """The task failed."""

    task: PluginTask | None = None
    reason: str = ""


class ResultsRequest(Message, frozen=True, kw_only=True):
    """Asks for results."""

    task_ids: tuple[str, ...] = ()


class PluginResult(Message, frozen=True, kw_only=True):
    """One result (`TaskResult` in the protocol)."""

    task_id: str = ""
    output: str = ""
    error: str = ""
    input_tokens: int = 0
    output_tokens: int = 0


class ResultsResponse(Message, frozen=True, kw_only=True):
    """Those that there are."""

    results: tuple[PluginResult, ...] = ()


class CancelRequest(Message, frozen=True, kw_only=True):
    """Ends tasks."""

    task_ids: tuple[str, ...] = ()


class Empty(Message, frozen=True, kw_only=True):
    """The answer to `Ack`, `Nack` and `Cancel`."""
