"""A plugin's side of the bond with its engine: register, beat, register anew when asked, say goodbye."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec
from msgspec import Struct

from providers.remote.addresses import Address
from providers.remote.channel import ChannelOptions, PluginChannel, open_channel
from providers.remote.dialect import Dialect
from providers.remote.engine_messages import (
    Acknowledged,
    GetConfigRequest,
    GetConfigResponse,
    HeartbeatResponse,
    InstanceRequest,
    RegisterPluginRequest,
    RegisterPluginResponse,
)
from providers.remote.environment import HEARTBEAT_S, LEAST_HEARTBEAT_S
from providers.remote.faults import CallFailed
from providers.remote.wire import ENGINE_SERVICE, PROVIDER, BadMessage, Message, decode, encode

FIRST_DELAY_S = 2.0
LONGEST_DELAY_S = 30.0
CALL_LIMIT_S = 15.0
GOODBYE_LIMIT_S = 3.0
_COMPLAIN_EVERY = 10

_REASONS = {
    "UNAVAILABLE": "engine_unavailable",
    "DEADLINE_EXCEEDED": "engine_unavailable",
    "PERMISSION_DENIED": "permission_denied",
    "UNAUTHENTICATED": "permission_denied",
    "INVALID_ARGUMENT": "invalid_registration_request",
    "FAILED_PRECONDITION": "tenant_not_active_or_missing",
    "RESOURCE_EXHAUSTED": "license_or_quota_exhausted",
}
"""The SDKs' names for why a registration is tried again."""

log = logging.getLogger("shoal.remote")

M = TypeVar("M", bound=Message)
TakeConfig = Callable[[Mapping[str, str]], Awaitable[None]]


class Membership(Struct, frozen=True, kw_only=True):
    """What a plugin registers as."""

    name: str
    version: str
    grpc_addr: str
    instance_id: str
    tenant_id: str = ""
    plugin_type: int = PROVIDER


class EngineLink:
    """Keeps a plugin registered for as long as `run` runs; `goodbye` ends that.

    The engine may be away at any time: it is tried again after 2, 4, 8, 16, then every 30 seconds. Heartbeats that fail
    are said once and then every tenth time.
    """

    def __init__(
        self,
        engine: Address,
        membership: Membership,
        take_config: TakeConfig,
        *,
        heartbeat_s: float | None = None,
        options: ChannelOptions | None = None,
    ) -> None:
        self._engine = engine
        self._membership = membership
        self._take_config = take_config
        self._wished_s = heartbeat_s
        self._beat_s = heartbeat_s or HEARTBEAT_S
        self._options = options or ChannelOptions(plugin_name=membership.name)
        self._dialect = Dialect.PYTHON
        self._channel: PluginChannel | None = None
        self._may_be_registered = False
        """Also while the engine takes us in and has not answered yet: who leaves then has to take leave, too."""

    async def run(self) -> None:
        """Endless; ends by cancellation."""
        while True:
            await self._register()
            await self._beat_until_unknown()

    async def goodbye(self) -> None:
        """Take leave, if the engine may know us. Never fails, takes at most three seconds."""
        if self._may_be_registered:
            self._may_be_registered = False
            try:
                await self._ask("DeregisterPlugin", self._instance(), Acknowledged, GOODBYE_LIMIT_S)
            except CallFailed as failed:
                log.warning("the engine did not hear our goodbye: %s", failed)
        await self._close_channel()

    async def _register(self) -> None:
        delay_s = FIRST_DELAY_S
        while (problem := await self._try_to_register()) is not None:
            log.warning("registration failed, trying again in %g s: %s", delay_s, problem)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    async def _try_to_register(self) -> str | None:
        """Why it failed; None if it did not."""
        own = self._membership
        request = RegisterPluginRequest(
            name=own.name,
            version=own.version,
            grpc_addr=own.grpc_addr,
            plugin_type=own.plugin_type,
            instance_id=own.instance_id,
            tenant_id=own.tenant_id,
        )
        self._may_be_registered = True
        try:
            answer = await self._ask("RegisterPlugin", request, RegisterPluginResponse, CALL_LIMIT_S)
        except CallFailed as failed:
            self._may_be_registered = failed.status == "DEADLINE_EXCEEDED"
            if failed.is_other_dialect:
                await self._close_channel()
                self._dialect = self._dialect.other
            return f"{_REASONS.get(failed.status, 'registration_rejected')}: {failed}"
        if not answer.success:
            self._may_be_registered = False
            return f"registration_rejected: {answer.error or 'the engine does not say why'}"
        log.info("registered with the engine at %s as %s", self._engine, answer.plugin_id or own.name)
        await self._fetch_config()
        return None

    async def _fetch_config(self) -> None:
        """The settings as they are; later ones are pushed. An engine that has none to give is no problem."""
        request = GetConfigRequest(plugin_name=self._membership.name, tenant_id=self._membership.tenant_id)
        try:
            answer = await self._ask("GetConfig", request, GetConfigResponse, CALL_LIMIT_S)
            values = answer.config or msgspec.json.decode(answer.config_json or "{}", type=dict[str, str])
            if values:
                await self._take_config(values)
        except CallFailed as failed:
            log.warning("the engine gave no settings: %s", failed)
        except Exception as error:  # noqa: BLE001 - a setting that the provider refuses must not end its registration
            log.warning("the engine's settings were not taken: %s", error)

    async def _beat_until_unknown(self) -> None:
        """Beat until the engine wants us to register again."""
        failures = 0
        while True:
            await asyncio.sleep(self._beat_s)
            try:
                answer = await self._ask("Heartbeat", self._instance(), HeartbeatResponse, CALL_LIMIT_S)
            except CallFailed as failed:
                if failures % _COMPLAIN_EVERY == 0:
                    log.warning("the engine did not answer a heartbeat: %s", failed)
                failures += 1
                continue
            failures = 0
            if answer.re_register_required:
                log.info("the engine does not know us any more, registering again")
                return
            if answer.heartbeat_interval_seconds > 0 and self._wished_s is None:
                self._beat_s = max(LEAST_HEARTBEAT_S, float(answer.heartbeat_interval_seconds))

    def _instance(self) -> InstanceRequest:
        return InstanceRequest(name=self._membership.name, instance_id=self._membership.instance_id)

    async def _ask(self, method: str, request: Message, kind: type[M], timeout_s: float) -> M:
        if self._channel is None:
            self._channel = open_channel(self._engine, self._dialect, self._options)
        data = await self._channel.unary(f"/{ENGINE_SERVICE}/{method}", encode(request), timeout_s=timeout_s)
        try:
            return decode(kind, data)
        except BadMessage as error:
            raise CallFailed("DATA_LOSS", f"the engine's answer cannot be read: {error}") from error

    async def _close_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.aclose()
