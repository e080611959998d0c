"""Messages of the PluginService: what an engine asks of a plugin, and what that answers."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Struct

# What a plugin says of itself


class ConfigItem(Struct, kw_only=True):
    """A setting that the plugin takes. `type`: `string`, `int`, `bool`, `duration` or `json`."""

    key: str
    type: str = "string"
    required: bool = False
    default: str = ""
    description: str = ""
    is_secret: bool = False


class ParamItem(Struct, kw_only=True):
    """A parameter or an output. `type`: `string`, `number`, `boolean` or `json`."""

    name: str
    type: str = "string"
    required: bool = False
    description: str = ""


class Intent(Struct, kw_only=True):
    """A phrase that leads to a plugin."""

    pattern: str = ""
    confidence: float = 0.0
    description: str = ""
    priority: int = 0


class Action(Struct, kw_only=True):
    """Something that an agent does; a tool, for a model. `input_params` is a packed array of `ParamItem`."""

    may_be_absent: ClassVar = frozenset({"input_params", "output_params", "routing_semantics"})

    id: str
    description: str = ""
    permission: int = 0
    stages: list[int] = []
    intents: list[Intent] = []
    input_params: str = ""
    output_params: str = ""
    routing_semantics: dict[str, Any] = {}


class PromptTemplate(Struct, kw_only=True):
    """A prompt that an agent brings along."""

    name: str = ""
    description: str = ""
    content: str = ""


class InfoResponse(Struct, kw_only=True):
    """Who a plugin is."""

    may_be_absent: ClassVar = frozenset({"actions", "prompt_templates", "config_schema"})

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


class GetSchemaResponse(Struct, kw_only=True):
    """What Execute takes and gives: packed arrays of `ParamItem`."""

    may_be_absent: ClassVar = frozenset({"actions"})

    params_json_schema: str = ""
    result_json_schema: str = ""
    actions: list[Action] = []


# Calls of a plugin


class ExecuteRequest(Struct, kw_only=True):
    """A call. Python peers name the mode `mode`."""

    may_be_absent: ClassVar = frozenset({"action_id", "time_range", "workflow_id", "execution_mode", "mode"})

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


class ExecuteResponse(Struct, kw_only=True):
    """Its answer. An error is one with `success` false, and gRPC's status is OK all the same."""

    success: bool = False
    result_json: str = ""
    error: str = ""
    duration_ms: int = 0


class EmbedRequest(Struct, kw_only=True):
    """Texts to turn into vectors."""

    model: str = ""
    inputs: list[str] = []
    tenant_id: str = ""


class EmbedResponse(Struct, kw_only=True):
    """One vector per text, in order."""

    vectors: list[list[float]] = []
    model: str = ""
    dimensions: int = 0
    error: str = ""


class HealthCheckResponse(Struct, kw_only=True):
    """Whether the plugin works."""

    healthy: bool = False
    message: str = ""
    details: dict[str, str] = {}


class ConfigUpdatedRequest(Struct, kw_only=True):
    """Settings to use from now on; those that are absent stay."""

    config: dict[str, str] = {}
    version: int = 0


class ConfigUpdatedResponse(Struct, kw_only=True):
    """Whether they were taken."""

    acknowledged: bool = False
    error: str = ""


class ChatStreamRequest(Struct, kw_only=True):
    """A call that is answered piece by piece; the same parameters as for Execute."""

    may_be_absent: ClassVar = frozenset({"params_json", "tenant_id"})

    params_json: str = ""
    tenant_id: str = ""


class ChatStreamResponse(Struct, kw_only=True):
    """A piece. The last one is `is_final`, or has an `error`.

    `thinking` and `result_json` are Shoal's own additions, sent to callers that ask for them (`payload.FULL`).
    """

    may_be_absent: ClassVar = frozenset({"token", "is_final", "error", "thinking", "result_json"})

    token: str = ""
    is_final: bool = False
    error: str = ""
    thinking: str = ""
    result_json: str = ""
