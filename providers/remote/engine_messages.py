"""Messages of the EngineService: what a plugin asks of its engine, and what that answers."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import Struct


class RegisterPluginRequest(Struct, kw_only=True):
    """A plugin says where it is."""

    name: str = ""
    version: str = ""
    grpc_addr: str = ""
    plugin_type: int = 0
    instance_id: str = ""
    tenant_id: str = ""


class RegisterPluginResponse(Struct, kw_only=True):
    """Whether it is in."""

    success: bool = False
    plugin_id: str = ""
    error: str = ""


class InstanceRequest(Struct, kw_only=True):
    """Heartbeat and DeregisterPlugin."""

    name: str = ""
    instance_id: str = ""


class HeartbeatResponse(Struct, kw_only=True):
    """How often to come back, and whether to register again first."""

    may_be_absent: ClassVar = frozenset({"heartbeat_interval_seconds"})

    acknowledged: bool = False
    re_register_required: bool = False
    heartbeat_interval_seconds: int = 0


class Acknowledged(Struct, kw_only=True):
    """Heard."""

    acknowledged: bool = False


class GetConfigRequest(Struct, kw_only=True):
    """Asks for a plugin's settings."""

    plugin_name: str = ""
    tenant_id: str = ""


class GetConfigResponse(Struct, kw_only=True):
    """A plugin's settings: Go peers read `config`, Python peers `config_json`."""

    may_be_absent: ClassVar = frozenset({"config_json"})

    config: dict[str, str] = {}
    version: int = 0
    config_json: str = ""


class CacheGetRequest(Struct, kw_only=True):
    """Asks for one cached value."""

    key: str = ""
    tenant_id: str = ""


class CacheGetResponse(Struct, kw_only=True):
    """A cached value, if there is one."""

    value: str = ""
    found: bool = False


class CacheGetBatchRequest(Struct, kw_only=True):
    """Asks for several."""

    keys: list[str] = []
    tenant_id: str = ""


class CacheEntry(Struct, kw_only=True):
    """One of several."""

    key: str = ""
    value: str = ""
    found: bool = False


class CacheGetBatchResponse(Struct, kw_only=True):
    """The values in the order of the keys."""

    entries: list[CacheEntry] = []


class CacheSetRequest(Struct, kw_only=True):
    """A value to cache; 0 seconds: for good."""

    key: str = ""
    value: str = ""
    ttl_seconds: int = 0
    tenant_id: str = ""


class Success(Struct, kw_only=True):
    """Done, or not."""

    success: bool = False


class PublishResultRequest(Struct, kw_only=True):
    """What a step came to."""

    execution_id: str = ""
    step_id: str = ""
    result_json: str = ""
    success: bool = False
    error: str = ""
    tenant_id: str = ""


class RequestApprovalRequest(Struct, kw_only=True):
    """Asks a person for leave."""

    execution_id: str = ""
    step_id: str = ""
    description: str = ""
    required_permission: int = 0
    context_json: str = ""
    timeout_seconds: int = 0
    tenant_id: str = ""
    blast_radius: Any = None


class RequestApprovalResponse(Struct, kw_only=True):
    """What the person said, if one did in time."""

    approved: bool = False
    timed_out: bool = False
    reviewer: str = ""
    comment: str = ""


class LogEventRequest(Struct, kw_only=True):
    """Something for the log. `event_type` is the message, `severity` the level."""

    plugin_name: str = ""
    event_type: str = ""
    data_json: str = ""
    severity: str = ""
    tenant_id: str = ""


class CallPluginRequest(Struct, kw_only=True):
    """One plugin calls another."""

    caller_plugin: str = ""
    target_plugin: str = ""
    action_id: str = ""
    params_json: str = ""
    timeout_seconds: int = 0
    time_range: dict[str, Any] = {}
    tenant_id: str = ""
