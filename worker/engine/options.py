"""What an engine needs of the settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Self

from msgspec import Struct

from providers.remote.addresses import parse_listen
from providers.remote.channel import ChannelOptions
from providers.remote.json_server import ServerOptions
from providers.remote.tenants import tenant_id
from worker.settings.plugins import PluginSettings

BEATS_UNTIL_LOST = 3


class EngineOptions(Struct, frozen=True, kw_only=True):
    """How an engine listens, whom it lets in and how often it looks after them."""

    host: str = "127.0.0.1"
    port: int = 9090
    health_interval_s: float = 30.0
    heartbeat_s: float = 30.0
    tenant_id: str = ""
    """Whose calls it takes; empty: everybody's."""
    shadow: tuple[str, ...] = ()
    """Names of in-process providers that mean a remote one instead."""
    server: ServerOptions = ServerOptions()
    channel: ChannelOptions = ChannelOptions()

    @property
    def lost_after_s(self) -> float:
        """Without a heartbeat for so long, a plugin is taken off."""
        return BEATS_UNTIL_LOST * self.heartbeat_s

    @classmethod
    def of(cls, plugins: PluginSettings, *, shares_port: bool = False, environ: Mapping[str, str] = os.environ) -> Self:
        """From the settings."""
        host, port = parse_listen(plugins.grpc_addr)
        return cls(
            host=host,
            port=port,
            health_interval_s=plugins.health_check_interval_s,
            heartbeat_s=plugins.heartbeat_interval_s,
            tenant_id=tenant_id(plugins.tenant),
            shadow=plugins.shadow,
            server=ServerOptions(
                token=plugins.token(environ),
                tls_cert=plugins.tls_cert,
                tls_key=plugins.tls_key,
                shares_port=shares_port,
            ),
            channel=plugins.channel_options(environ),
        )
