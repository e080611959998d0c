"""The messages of AI Studio's plugin protocol and of go-plugin's broker, field for field: their order is their numbers.

Sources: AI Studio's `proto/plugin.proto`, `proto/ai_studio_management/ai_studio_management.proto` and
`proto/plugin_events.proto`; hashicorp's go-plugin, `internal/plugin/*.proto`.
"""

from __future__ import annotations

import enum

import msgspec

from queue_backends.protobuf import Message

# go-plugin


class ConnInfo(Message, frozen=True):
    """Where a brokered service listens. What belongs to multiplexing, which is off, is left out."""

    service_id: int = 0
    network: str = ""
    address: str = ""


class StdioData(Message, frozen=True):
    """What a plugin has written since it speaks gRPC."""

    channel: int = 0
    """1: stdout, 2: stderr."""
    data: bytes = b""


class HealthRequest(Message, frozen=True):
    """`grpc.health.v1.HealthCheckRequest`."""

    service: str = ""


class HealthResponse(Message, frozen=True):
    """`grpc.health.v1.HealthCheckResponse`; 1 is SERVING."""

    status: int = 0


class Empty(Message, frozen=True):
    """`google.protobuf.Empty`."""


# plugin.PluginService


class InitRequest(Message, frozen=True):
    """The plugin's configuration as texts, and where the host's services are."""

    config: dict[str, str] = msgspec.field(default_factory=dict)


class InitResponse(Message, frozen=True):
    """Whether it will work."""

    success: bool = False
    error_message: str = ""


class ShutdownRequest(Message, frozen=True):
    """The end is near."""

    timeout_seconds: int = 0


class OpenSessionRequest(Message, frozen=True):
    """Blocks in the plugin for as long as `timeout_ms` says."""

    service_broker_id: int = 0
    plugin_id: int = 0
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    timeout_ms: int = 0


class CloseReason(enum.IntEnum):
    """Why an open session has ended."""

    UNKNOWN = 0
    TIMEOUT = 1
    EXPLICIT_CLOSE = 2
    PLUGIN_ERROR = 3


class OpenSessionResponse(Message, frozen=True):
    """The session has ended."""

    success: bool = False
    error_message: str = ""
    session_id: str = ""
    close_reason: int = 0


class CloseSessionRequest(Message, frozen=True):
    """Runs `OnSessionClosing`."""

    reason: str = ""


class AgentToolInfo(Message, frozen=True):
    """A tool that the agent has."""

    id: int = 0
    name: str = ""
    slug: str = ""
    description: str = ""
    operations: tuple[str, ...] = ()
    privacy_score: int = 0


class AgentDatasourceInfo(Message, frozen=True):
    """A data source that the agent has."""

    id: int = 0
    name: str = ""
    description: str = ""
    db_source_type: str = ""
    privacy_score: int = 0


class AgentLLMInfo(Message, frozen=True):
    """A model that the agent has."""

    id: int = 0
    name: str = ""
    vendor: str = ""
    default_model: str = ""
    allowed_models: tuple[str, ...] = ()
    privacy_score: int = 0


class ConversationMessage(Message, frozen=True):
    """One message of the history (`AgentConversationMessage`)."""

    role: str = ""
    content: str = ""
    timestamp: int = 0
    metadata_json: str = ""


class RequestContext(Message, frozen=True):
    """On whose behalf (`plugin.PluginContext`)."""

    request_id: str = ""
    vendor: str = ""
    llm_id: int = 0
    llm_slug: str = ""
    app_id: int = 0
    user_id: int = 0
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    trace_context: dict[str, str] = msgspec.field(default_factory=dict)


class AgentMessageRequest(Message, frozen=True):
    """One message to the agent."""

    session_id: str = ""
    user_message: str = ""
    available_tools: tuple[AgentToolInfo, ...] = ()
    available_datasources: tuple[AgentDatasourceInfo, ...] = ()
    available_llms: tuple[AgentLLMInfo, ...] = ()
    config_json: str = ""
    history: tuple[ConversationMessage, ...] = ()
    context: RequestContext | None = None
    service_broker_id: int = 0


class AgentChunkType(enum.IntEnum):
    """What an `AgentMessageChunk` is."""

    CONTENT = 0
    TOOL_CALL = 1
    TOOL_RESULT = 2
    THINKING = 3
    ERROR = 4
    DONE = 5


class AgentMessageChunk(Message, frozen=True):
    """A piece of the answer."""

    type: int = 0
    content: str = ""
    metadata_json: str = ""
    is_final: bool = False


# ai_studio_management.AIStudioManagementService


class ServiceContext(Message, frozen=True):
    """Who asks (`ai_studio_management.PluginContext`)."""

    plugin_id: int = 0
    method_scope: str = ""


class LLMMessage(Message, frozen=True):
    """One message of a conversation. An assistant's tool calls have no place in it."""

    role: str = ""
    content: str = ""
    name: str = ""
    tool_call_id: str = ""


class LLMFunction(Message, frozen=True):
    """A tool as the model is told of it."""

    name: str = ""
    description: str = ""
    parameters_json: str = ""


class LLMTool(Message, frozen=True):
    """A tool that the plugin calls itself."""

    type: str = ""
    function: LLMFunction | None = None


class LLMFunctionCall(Message, frozen=True):
    """Which tool, with which arguments."""

    name: str = ""
    arguments: str = ""


class LLMToolCall(Message, frozen=True):
    """What the model asks for."""

    id: str = ""
    type: str = ""
    function: LLMFunctionCall | None = None


class LLMUsage(Message, frozen=True):
    """Tokens of a model call."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


class CallLLMRequest(Message, frozen=True):
    """A model call."""

    context: ServiceContext | None = None
    llm_id: int = 0
    model: str = ""
    messages: tuple[LLMMessage, ...] = ()
    temperature: float = 0.0
    max_tokens: int = 0
    tools: tuple[LLMTool, ...] = ()
    stream: bool = False


class CallLLMResponse(Message, frozen=True):
    """A piece of its answer; the last one is `done`."""

    success: bool = False
    content: str = ""
    error_message: str = ""
    usage: LLMUsage | None = None
    done: bool = False
    tool_calls: tuple[LLMToolCall, ...] = ()


class ExecuteToolRequest(Message, frozen=True):
    """A tool call. `params_json` and `headers_json` are objects of arrays of texts, `payload_json` any object."""

    context: ServiceContext | None = None
    tool_id: int = 0
    operation_id: str = ""
    params_json: str = ""
    payload_json: str = ""
    headers_json: str = ""


class ExecuteToolResponse(Message, frozen=True):
    """What the tool answered. `CallToolOperation`'s answer is the same without a status."""

    success: bool = False
    result_json: str = ""
    error_message: str = ""
    status_code: int = 0


class QueryDatasourceRequest(Message, frozen=True):
    """A question to a data source."""

    context: ServiceContext | None = None
    datasource_id: int = 0
    query: str = ""
    max_results: int = 0
    similarity_threshold: float = 0.0


class DatasourceResult(Message, frozen=True):
    """A passage that was found."""

    content: str = ""
    similarity_score: float = 0.0
    metadata: dict[str, str] = msgspec.field(default_factory=dict)


class QueryDatasourceResponse(Message, frozen=True):
    """The passages, the best first."""

    success: bool = False
    results: tuple[DatasourceResult, ...] = ()
    error_message: str = ""


class Timestamp(Message, frozen=True):
    """`google.protobuf.Timestamp`."""

    seconds: int = 0
    nanos: int = 0


class WriteKVRequest(Message, frozen=True):
    """Keep a value."""

    context: ServiceContext | None = None
    key: str = ""
    value: bytes = b""
    expire_at: Timestamp | None = None


class WriteKVResponse(Message, frozen=True):
    """Whether it is new."""

    created: bool = False
    message: str = ""


class KeyRequest(Message, frozen=True):
    """Which value to read or delete."""

    context: ServiceContext | None = None
    key: str = ""


class ReadKVResponse(Message, frozen=True):
    """The value."""

    value: bytes = b""
    message: str = ""


class DeleteKVResponse(Message, frozen=True):
    """Whether there was one."""

    deleted: bool = False
    message: str = ""


class ListPluginsResponse(Message, frozen=True):
    """Counts; the plugins themselves are no agent's business."""

    plugins: tuple[bytes, ...] = ()
    total_count: int = 0
    total_pages: int = 0


# plugin_events.PluginEventService


class PublishRequest(Message, frozen=True):
    """An event, as JSON."""

    topic: str = ""
    payload: bytes = b""
    direction: int = 0
    plugin_id: int = 0


class PublishResponse(Message, frozen=True):
    """Its id."""

    success: bool = False
    error_message: str = ""
    event_id: str = ""


class SubscribeRequest(Message, frozen=True):
    """Events of one topic, or of all."""

    topic: str = ""
    subscribe_all: bool = False
    plugin_id: int = 0


class Event(Message, frozen=True):
    """An event, as it is delivered."""

    id: str = ""
    topic: str = ""
    origin: str = ""
    direction: int = 0
    payload: bytes = b""
