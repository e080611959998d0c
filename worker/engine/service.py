"""The calls that plugins make to their engine: MIRASTACK's EngineService."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import structlog

from providers import ProviderError
from providers.remote.clients import InstanceClients
from providers.remote.dialect import Dialect, packed, unpacked, unpacked_json
from providers.remote.engine_messages import (
    Acknowledged,
    CacheEntry,
    CacheGetBatchRequest,
    CacheGetBatchResponse,
    CacheGetRequest,
    CacheGetResponse,
    CacheSetRequest,
    CallPluginRequest,
    GetConfigRequest,
    GetConfigResponse,
    HeartbeatResponse,
    InstanceRequest,
    LogEventRequest,
    PublishResultRequest,
    RegisterPluginRequest,
    RegisterPluginResponse,
    RequestApprovalRequest,
    RequestApprovalResponse,
    Success,
)
from providers.remote.faults import CallFailed
from providers.remote.instances import RemoteInstance, Source
from providers.remote.json_server import Caller, Refused
from providers.remote.payload import read_params
from providers.remote.plugin_messages import ExecuteResponse
from providers.remote.tenants import may_meet, tenant_id
from providers.remote.wire import PERMISSIONS, BadMessage, Message, decode, encode
from queue_backends import QueueError
from worker.approvals import Approval, Approvals
from worker.engine.admission import Applicant, NotAdmitted, admitted, applicant
from worker.engine.options import EngineOptions
from worker.engine.plugin_config import seed_quietly, values_for
from worker.live_settings import LiveSettings
from worker.remote_providers.in_use import RemoteProviders
from worker.remote_providers.registry import Registry

CALL_LIMIT_S = 120.0
"""Of CallPlugin, unless the caller names one."""
RESULT_TTL_S = 24 * 3600.0
CACHE_TTL_S = 30 * 24 * 3600.0
"""Of cached values that are to last for good: everything here has a lifetime."""
LONGEST_CACHE_TTL_S = 365 * 24 * 3600
MOST_PROCESSES = 1000
MOST_NAMES = 1000
MOST_AT_ONCE = 32
"""Registrations in progress: each is a call back that may take seconds."""
_MOST_KEY_CHARS = 512
_MOST_KEYS = 1000
_MOST_SAID = 1000
_LEVELS = {"debug": "debug", "info": "info", "warn": "warning", "warning": "warning", "error": "error"}

log = structlog.get_logger(__name__)

M = TypeVar("M", bound=Message)
Method = Callable[[bytes, Caller], Awaitable[bytes]]


class EngineService:
    """Answers them. Everything that lasts is in the `StateStore`, so any engine of the fleet may answer any call."""

    def __init__(self, remote: RemoteProviders, live: LiveSettings, options: EngineOptions) -> None:
        self._remote = remote
        self._registry: Registry = remote.directory.registry
        self._state = remote.directory.registry.state
        self._live = live
        self._options = options
        self._approvals = Approvals(self._state)
        self._entrance = asyncio.Semaphore(MOST_AT_ONCE)

    def methods(self) -> dict[str, Method]:
        """All calls by name."""
        calls: dict[str, Method] = {
            "RegisterPlugin": self.register,
            "DeregisterPlugin": self.deregister,
            "Heartbeat": self.heartbeat,
            "GetConfig": self.get_config,
            "CacheGet": self.cache_get,
            "CacheGetBatch": self.cache_get_batch,
            "CacheSet": self.cache_set,
            "PublishResult": self.publish_result,
            "RequestApproval": self.request_approval,
            "LogEvent": self.log_event,
            "CallPlugin": self.call_plugin,
            "ListKPIs": self.list_kpis,
            "GetKPI": self.get_kpi,
        }
        return {name: _available(call) for name, call in calls.items()}

    # Coming and going

    async def register(self, body: bytes, caller: Caller) -> bytes:
        """Call the plugin back, and take it in."""
        request = _read(RegisterPluginRequest, body)
        self._check_tenant(request.tenant_id)
        try:
            who = applicant(request, caller.dialect(), _host(caller.peer))
            self._check_room(who)
            async with self._entrance:
                instance = await admitted(who, self._options.channel, self._options.shadow)
        except NotAdmitted as error:
            log.warning("a plugin was turned down", plugin=request.name[:100], peer=caller.peer, reason=str(error))
            return encode(RegisterPluginResponse(error=str(error)))
        await self._registry.add(instance, beat_ttl_s=self._options.lost_after_s)
        await seed_quietly(self._live, instance)
        await self._supersede(instance)
        log.info(
            "a plugin registered",
            plugin=instance.name,
            version=instance.version,
            address=instance.address,
            dialect=instance.dialect.value,
        )
        return encode(RegisterPluginResponse(success=True, plugin_id=f"{instance.name}/{instance.instance_id}"))

    def _check_room(self, who: Applicant) -> None:
        """Nobody fills the store, or keeps us busy with calling back."""
        directory = self._remote.directory
        is_here = any(each.instance_id == who.instance_id for each in directory.instances(who.name))
        if not is_here and len(directory.all()) >= MOST_PROCESSES:
            raise Refused("RESOURCE_EXHAUSTED", f"{MOST_PROCESSES} processes are registered already")
        if who.name not in directory.known() and len(directory.known()) >= MOST_NAMES:
            raise Refused("RESOURCE_EXHAUSTED", f"{MOST_NAMES} plugins are or were registered already")
        if self._entrance.locked():
            raise Refused("RESOURCE_EXHAUSTED", f"{MOST_AT_ONCE} plugins register at this moment: try again")

    async def _supersede(self, new: RemoteInstance) -> None:
        """Who registers itself takes the place of what the settings say of that name, and of whoever was at its
        address: there can only be one."""
        for each in await self._registry.instances():
            is_new = (each.name, each.instance_id) == (new.name, new.instance_id)
            is_external = each.name == new.name and each.source is Source.EXTERNAL
            if not is_new and (is_external or each.address == new.address):
                await self._registry.remove(each.name, each.instance_id)

    async def deregister(self, body: bytes, caller: Caller) -> bytes:
        """Take the plugin off."""
        request = _read(InstanceRequest, body)
        was_there = await self._registry.remove(request.name, request.instance_id)
        if was_there:
            log.info("a plugin said goodbye", plugin=request.name)
        return encode(Acknowledged(acknowledged=was_there))

    async def heartbeat(self, body: bytes, caller: Caller) -> bytes:
        """Note that it lives; one that is not registered has to do that anew."""
        request = _read(InstanceRequest, body)
        interval_s = max(1, round(self._options.heartbeat_s))
        if await self._registry.instance(request.name, request.instance_id) is None:
            return encode(
                HeartbeatResponse(acknowledged=True, re_register_required=True, heartbeat_interval_seconds=interval_s)
            )
        await self._registry.beat(request.instance_id, self._options.lost_after_s)
        return encode(HeartbeatResponse(acknowledged=True, heartbeat_interval_seconds=interval_s))

    # What plugins ask for

    async def get_config(self, body: bytes, caller: Caller) -> bytes:
        """A registered plugin's settings."""
        request = _read(GetConfigRequest, body)
        self._check_tenant(request.tenant_id)
        instances = self._remote.directory.instances(request.plugin_name)
        if not instances:  # it may have registered a moment ago
            instances = [each for each in await self._registry.instances() if each.name == request.plugin_name]
        values: dict[str, str] = {}
        if instances:
            self._check_meets(request.tenant_id, [each.tenant_id for each in instances])
            first = instances[0]
            values = values_for(self._live, first.name, first.params, keeps_references=first.is_shoal)
        answer = GetConfigResponse(config=values, version=int(time.time()))
        if caller.dialect() is Dialect.PYTHON:
            answer.config_json = msgspec.json.encode(values).decode()
        return encode(answer)

    async def cache_get(self, body: bytes, caller: Caller) -> bytes:
        """One cached value."""
        request = _read(CacheGetRequest, body)
        entry = await self._cached(request.key, request.tenant_id, caller)
        return encode(CacheGetResponse(value=entry.value, found=entry.found))

    async def cache_get_batch(self, body: bytes, caller: Caller) -> bytes:
        """Several, in the order of the keys."""
        request = _read(CacheGetBatchRequest, body)
        if len(request.keys) > _MOST_KEYS:
            raise Refused("INVALID_ARGUMENT", f"keys: use at most {_MOST_KEYS}")
        entries = [await self._cached(key, request.tenant_id, caller) for key in request.keys]
        return encode(CacheGetBatchResponse(entries=entries))

    async def _cached(self, key: str, tenant: str, caller: Caller) -> CacheEntry:
        value = await self._state.get(self._cache_key(key, tenant))
        text = packed(value, caller.dialect()) if value is not None else ""
        return CacheEntry(key=key, value=text, found=value is not None)

    async def cache_set(self, body: bytes, caller: Caller) -> bytes:
        """Cache a value."""
        request = _read(CacheSetRequest, body)
        try:
            value = unpacked(request.value, caller.dialect())
        except ValueError as error:
            raise Refused("INVALID_ARGUMENT", f"value: {error}") from error
        ttl_s = float(min(request.ttl_seconds, LONGEST_CACHE_TTL_S)) if request.ttl_seconds > 0 else CACHE_TTL_S
        await self._state.set(self._cache_key(request.key, request.tenant_id), value, ttl_s=ttl_s)
        return encode(Success(success=True))

    def _cache_key(self, key: str, tenant: str) -> str:
        self._check_tenant(tenant)
        if not key or len(key) > _MOST_KEY_CHARS:
            raise Refused("INVALID_ARGUMENT", f"key: use 1 to {_MOST_KEY_CHARS} characters")
        return f"plugin-cache/{tenant_id(tenant)}/{key}"

    async def publish_result(self, body: bytes, caller: Caller) -> bytes:
        """Keep what a step came to, for a day."""
        request = _read(PublishResultRequest, body)
        self._check_tenant(request.tenant_id)
        request.result_json = unpacked_json(request.result_json).decode(errors="replace")
        key = f"plugin-results/{tenant_id(request.tenant_id)}/{request.execution_id}/{request.step_id}"
        if len(key) > _MOST_KEY_CHARS:
            raise Refused("INVALID_ARGUMENT", f"execution_id and step_id have more than {_MOST_KEY_CHARS} characters")
        await self._state.set(key, encode(request), ttl_s=RESULT_TTL_S)
        return encode(Acknowledged(acknowledged=True))

    async def request_approval(self, body: bytes, caller: Caller) -> bytes:
        """Ask a person, and wait."""
        request = _read(RequestApprovalRequest, body)
        self._check_tenant(request.tenant_id)
        question = Approval(
            message=request.description,
            permission=PERMISSIONS.get(request.required_permission, ""),
            tenant=tenant_id(request.tenant_id),
            run=request.execution_id,
            step=request.step_id,
            context=unpacked_json(request.context_json).decode(errors="replace"),
        )
        log.info("a plugin asks for approval: see `shoal approve`", what=request.description)
        answer = await self._approvals.ask(question, float(request.timeout_seconds))
        return encode(
            RequestApprovalResponse(
                approved=answer.approved,
                timed_out=not answer.decided,
                reviewer=answer.reviewer,
                comment=answer.comment,
            )
        )

    async def log_event(self, body: bytes, caller: Caller) -> bytes:
        """Into the engine's log."""
        request = _read(LogEventRequest, body)
        level = _LEVELS.get(request.severity.lower(), "info")
        data = unpacked_json(request.data_json).decode(errors="replace")[:10_000]
        plugin, said = request.plugin_name[:_MOST_SAID], request.event_type[:_MOST_SAID]
        getattr(log, level)("a plugin says", plugin=plugin, said=said, data=data)
        return encode(Acknowledged(acknowledged=True))

    async def call_plugin(self, body: bytes, caller: Caller) -> bytes:
        """Hand a call on to another plugin."""
        request = _read(CallPluginRequest, body)
        self._check_tenant(request.tenant_id)
        dialect = caller.dialect(request.params_json)
        try:
            answer = await self._called(request, dialect)
        except (ProviderError, CallFailed) as error:
            answer = ExecuteResponse(error=str(error))
        return encode(answer)

    async def _called(self, request: CallPluginRequest, dialect: Dialect) -> ExecuteResponse:
        target = request.target_plugin
        instances = self._remote.directory.instances(target)
        if not target or ":" in target or not instances:
            return ExecuteResponse(error=f"plugin {target!r} is not registered")
        self._check_meets(request.tenant_id, [each.tenant_id for each in instances])
        tenant = tenant_id(request.tenant_id)
        clients: InstanceClients = self._remote.clients(target)
        async with clients.to(clients.pick(tenant)) as client:
            answer = await client.execute(
                read_params(unpacked_json(request.params_json)),
                action_id=request.action_id,
                tenant_id=tenant,
                time_range=request.time_range,
                timeout_s=float(request.timeout_seconds) if request.timeout_seconds > 0 else CALL_LIMIT_S,
            )
        return ExecuteResponse(
            success=answer.success,
            result_json=packed(answer.result, dialect) if answer.result else "",
            error=answer.error,
            duration_ms=answer.duration_ms,
        )

    async def list_kpis(self, body: bytes, caller: Caller) -> bytes:
        """There are none here."""
        return msgspec.json.encode({"kpis": []})

    async def get_kpi(self, body: bytes, caller: Caller) -> bytes:
        """There is none here."""
        return msgspec.json.encode({})

    # Tenants

    def _check_tenant(self, tenant: str) -> None:
        """This engine's tenant, if it has one, is the only one that is served."""
        if not may_meet(self._options.tenant_id, tenant_id(tenant)):
            raise Refused("PERMISSION_DENIED", "this engine serves another tenant")

    def _check_meets(self, tenant: str, others: list[str]) -> None:
        if not any(may_meet(tenant_id(tenant), other) for other in others):
            raise Refused("PERMISSION_DENIED", "that plugin serves another tenant")


def _available(call: Method) -> Method:
    """A store that is away is a status that plugins try again after."""

    async def answered(body: bytes, caller: Caller) -> bytes:
        try:
            return await call(body, caller)
        except QueueError as error:
            raise Refused("UNAVAILABLE", f"the engine's store: {error}") from error

    return answered


def _read(kind: type[M], body: bytes) -> M:
    try:
        return decode(kind, body)
    except BadMessage as error:
        raise Refused("INVALID_ARGUMENT", f"the request cannot be read: {error}") from error


def _host(peer: str) -> str:
    """The address in gRPC's `ipv4:127.0.0.1:5000`; empty if it is no internet address."""
    kind, _, rest = peer.partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return ""
    return rest.replace("%5B", "[").replace("%5D", "]").rpartition(":")[0].strip("[]")
