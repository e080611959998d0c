"""The messages of MIRASTACK's plugin protocol, as JSON.

Services: `mirastack.plugin.v1.PluginService` (in the plugin) and `.EngineService` (in the engine). A field that is
absent or null has its default; unknown fields are skipped. Byte fields are texts here, still packed:
`providers.remote.dialect`.

Source: mirastack-agents-sdk-go gen/pluginv1/types.go.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import msgspec
from msgspec import Struct

PLUGIN_SERVICE = "mirastack.plugin.v1.PluginService"
ENGINE_SERVICE = "mirastack.plugin.v1.EngineService"

AGENT, PROVIDER, CONNECTOR = 1, 2, 3
"""Plugin types."""
READ, MODIFY, ADMIN, WRITE = 1, 2, 3, 4
"""Permissions."""
PERMISSIONS = {0: "", READ: "READ", MODIFY: "MODIFY", ADMIN: "ADMIN", WRITE: "WRITE"}
AUTONOMOUS = 3
"""The mode in which nobody is asked."""
OPERATE = 7
"""A DevOps stage."""

EMPTY = b"{}"

W = TypeVar("W", bound=Struct)


class BadMessage(ValueError):
    """What a peer sent is no message of the protocol."""


class Message(Struct, kw_only=True):
    """Root of all messages. `may_be_absent` names the fields that are left out while they are empty."""

    may_be_absent: ClassVar[frozenset[str]] = frozenset()


# What a plugin says of itself


class ConfigItem(Message):
    """A setting that the plugin takes. `type`: `string`, `int`, `bool`, `duration` or `json`."""

    key: str
    type: str = "string"
    required: bool = False
    default: str = ""
    description: str = ""
    is_secret: bool = False


class ParamItem(Message):
    """A parameter or an output. `type`: `string`, `number`, `boolean` or `json`."""

    name: str
    type: str = "string"
    required: bool = False
    description: str = ""


class Intent(Message):
    """A phrase that leads to a plugin."""

    pattern: str = ""
    confidence: float = 0.0
    description: str = ""
    priority: int = 0


class Action(Message):
    """Something that an agent does; a tool, for a model. `input_params` is a packed array of `ParamItem`."""

    may_be_absent = frozenset({"input_params", "output_params", "routing_semantics"})

    id: str
    description: str = ""
    permission: int = 0
    stages: list[int] = []
    intents: list[Intent] = []
    input_params: str = ""
    output_params: str = ""
    routing_semantics: dict[str, Any] = {}


class PromptTemplate(Message):
    """A prompt that an agent brings along."""

    name: str = ""
    description: str = ""
    content: str = ""


class InfoResponse(Message):
    """Who a plugin is."""

    may_be_absent = frozenset({"actions", "prompt_templates", "config_schema"})

    name: str = ""
    version: str = ""
    description: str = ""
    type: int = 0
    permission: int = 0
    devops_stages: list[int] = []
    default_intents: list[Intent] = []
    actions: list[Action] = []
    prompt_templates: list[PromptTemplate] = []
    config_schema: list[ConfigItem] = []
    metadata: dict[str, str] = {}
    instance_id: str = ""


class GetSchemaResponse(Message):
    """What Execute takes and gives: packed arrays of `ParamItem`."""

    may_be_absent = frozenset({"actions"})

    params_json_schema: str = ""
    result_json_schema: str = ""
    actions: list[Action] = []


# Calls of a plugin


class ExecuteRequest(Message):
    """A call. Python peers name the mode `mode`."""

    may_be_absent = frozenset({"action_id", "time_range", "workflow_id", "execution_mode", "mode"})

    execution_id: str = ""
    step_id: str = ""
    action_id: str = ""
    params_json: str = ""
    execution_mode: int = 0
    context: dict[str, str] = {}
    time_range: dict[str, Any] = {}
    tenant_id: str = ""
    workflow_id: str = ""
    mode: int = 0


class ExecuteResponse(Message):
    """Its answer. An error is one with `success` false, and gRPC's status is OK all the same."""

    success: bool = False
    result_json: str = ""
    error: str = ""
    duration_ms: int = 0


class EmbedRequest(Message):
    """Texts to turn into vectors."""

    model: str = ""
    inputs: list[str] = []
    tenant_id: str = ""


class EmbedResponse(Message):
    """One vector per text, in order."""

    vectors: list[list[float]] = []
    model: str = ""
    dimensions: int = 0
    error: str = ""


class HealthCheckResponse(Message):
    """Whether the plugin works."""

    healthy: bool = False
    message: str = ""
    details: dict[str, str] = {}


class ConfigUpdatedRequest(Message):
    """Settings to use from now on; those that are absent stay."""

    config: dict[str, str] = {}
    version: int = 0


class ConfigUpdatedResponse(Message):
    """Whether they were taken."""

    acknowledged: bool = False
    error: str = ""


class ChatStreamRequest(Message):
    """A call that is answered piece by piece; the same parameters as for Execute."""

    may_be_absent = frozenset({"params_json", "tenant_id"})

    params_json: str = ""
    tenant_id: str = ""


class ChatStreamResponse(Message):
    """A piece. The last one is `is_final`, or has an `error`.

    `thinking` and `result_json` are Shoal's own additions, sent to callers that ask for them (`payload.FULL`).
    """

    may_be_absent = frozenset({"token", "is_final", "error", "thinking", "result_json"})

    token: str = ""
    is_final: bool = False
    error: str = ""
    thinking: str = ""
    result_json: str = ""


# Calls of the engine


class RegisterPluginRequest(Message):
    """A plugin says where it is."""

    name: str = ""
    version: str = ""
    grpc_addr: str = ""
    plugin_type: int = 0
    instance_id: str = ""
    tenant_id: str = ""


class RegisterPluginResponse(Message):
    """Whether it is in."""

    success: bool = False
    plugin_id: str = ""
    error: str = ""


class InstanceRequest(Message):
    """Heartbeat and DeregisterPlugin."""

    name: str = ""
    instance_id: str = ""


class HeartbeatResponse(Message):
    """How often to come back, and whether to register again first."""

    may_be_absent = frozenset({"heartbeat_interval_seconds"})

    acknowledged: bool = False
    re_register_required: bool = False
    heartbeat_interval_seconds: int = 0


class Acknowledged(Message):
    """Heard."""

    acknowledged: bool = False


class GetConfigRequest(Message):
    """Asks for a plugin's settings."""

    plugin_name: str = ""
    tenant_id: str = ""


class GetConfigResponse(Message):
    """A plugin's settings: Go peers read `config`, Python peers `config_json`."""

    may_be_absent = frozenset({"config_json"})

    config: dict[str, str] = {}
    version: int = 0
    config_json: str = ""


class CacheGetRequest(Message):
    """Asks for one cached value."""

    key: str = ""
    tenant_id: str = ""


class CacheGetResponse(Message):
    """A cached value, if there is one."""

    value: str = ""
    found: bool = False


class CacheGetBatchRequest(Message):
    """Asks for several."""

    keys: list[str] = []
    tenant_id: str = ""


class CacheEntry(Message):
    """One of several."""

    key: str = ""
    value: str = ""
    found: bool = False


class CacheGetBatchResponse(Message):
    """The values in the order of the keys."""

    entries: list[CacheEntry] = []


class CacheSetRequest(Message):
    """A value to cache; 0 seconds: for good."""

    key: str = ""
    value: str = ""
    ttl_seconds: int = 0
    tenant_id: str = ""


class Success(Message):
    """Done, or not."""

    success: bool = False


class PublishResultRequest(Message):
    """What a step came to."""

    execution_id: str = ""
    step_id: str = ""
    result_json: str = ""
    success: bool = False
    error: str = ""
    tenant_id: str = ""


class RequestApprovalRequest(Message):
    """Asks a person for leave."""

    execution_id: str = ""
    step_id: str = ""
    description: str = ""
    required_permission: int = 0
    context_json: str = ""
    timeout_seconds: int = 0
    tenant_id: str = ""
    blast_radius: Any = None


class RequestApprovalResponse(Message):
    """What the person said, if one did in time."""

    approved: bool = False
    timed_out: bool = False
    reviewer: str = ""
    comment: str = ""


class LogEventRequest(Message):
    """Something for the log. `event_type` is the message, `severity` the level."""

    plugin_name: str = ""
    event_type: str = ""
    data_json: str = ""
    severity: str = ""
    tenant_id: str = ""


class CallPluginRequest(Message):
    """One plugin calls another."""

    caller_plugin: str = ""
    target_plugin: str = ""
    action_id: str = ""
    params_json: str = ""
    timeout_seconds: int = 0
    time_range: dict[str, Any] = {}
    tenant_id: str = ""


def encode(message: Message) -> bytes:
    """The message as JSON."""
    return msgspec.json.encode(_plain(message))


def _plain(message: Message) -> dict[str, Any]:
    absent = message.may_be_absent
    return {
        name: _value(value)
        for name in message.__struct_fields__
        if (value := getattr(message, name)) or name not in absent
    }


def _value(value: Any) -> Any:
    if isinstance(value, Message):
        return _plain(value)
    if isinstance(value, list) and value and isinstance(value[0], Message):
        return [_plain(item) for item in value]
    return value


def decode(kind: type[W], data: bytes) -> W:
    """The message that `data` is; nothing at all is an empty one. Raises `BadMessage`."""
    try:
        return _strictly(kind, data or EMPTY)
    except msgspec.ValidationError:
        pass  # Go writes null for what it does not have
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadMessage(f"no JSON: {error}") from error
    try:
        return msgspec.convert(without_nulls(msgspec.json.decode(data)), kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadMessage(f"no {kind.__name__}: {error}") from error


def _strictly(kind: type[W], data: bytes) -> W:
    found: W = _decoder(kind).decode(data)
    return found


@functools.cache
def _decoder(kind: type[W]) -> msgspec.json.Decoder[W]:
    return msgspec.json.Decoder(kind)


def without_nulls(value: Any) -> Any:
    """A plain value without the fields that are null, at any depth."""
    if isinstance(value, Mapping):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value if item is not None] if isinstance(value, list) else value
