"""Settings about providers and agents in other processes: the section `plugins`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from msgspec import Struct

from providers.remote.addresses import parse_address, parse_listen
from providers.remote.channel import ChannelOptions
from worker.errors import BadSetting

GRPC_ADDR = "127.0.0.1:9090"

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNIT_S = {"ms": 0.001, None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


class ExternalPlugin(Struct, frozen=True, kw_only=True):
    """A plugin that does not register itself: its name and where it listens."""

    name: str
    addr: str


class PluginSettings(Struct, frozen=True, kw_only=True):
    """What each field means and allows: `worker.settings.table`."""

    grpc_addr: str = GRPC_ADDR
    on_worker: bool = False
    dir: str = ""
    external: tuple[ExternalPlugin, ...] = ()
    health_check_interval: str = "30s"
    heartbeat_interval: str = "30s"
    tenant: str = ""
    shadow: tuple[str, ...] = ()
    token_env: str = "SHOAL_PLUGIN_TOKEN"  # noqa: S105 - the name of a variable
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""

    @property
    def health_check_interval_s(self) -> float:
        """Seconds between two health checks of a plugin."""
        return duration_s(self.health_check_interval)

    @property
    def heartbeat_interval_s(self) -> float:
        """Seconds between two heartbeats of a plugin; whole ones, on the wire."""
        return max(1.0, duration_s(self.heartbeat_interval))

    def token(self, environ: Mapping[str, str] = os.environ) -> str:
        """The shared secret of engine, workers and plugins; empty: there is none."""
        return environ.get(self.token_env, "").strip() if self.token_env else ""

    def channel_options(self, environ: Mapping[str, str] = os.environ) -> ChannelOptions:
        """How engines and workers call plugins."""
        return ChannelOptions(token=self.token(environ), ca_file=self.tls_ca)

    def check(self) -> None:
        """Raise `BadSetting` for what cannot work."""
        for name in ("health_check_interval", "heartbeat_interval"):
            value: str = getattr(self, name)
            if not duration_s(value):
                raise BadSetting(f"plugins.{name}: {value!r} is no time span: use 30s, 500ms or 1m")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise BadSetting("plugins.tls_cert and plugins.tls_key: set both, or neither")
        try:
            parse_listen(self.grpc_addr)
            for plugin in self.external:
                parse_address(plugin.addr)
        except ValueError as error:
            raise BadSetting(f"plugins: {error}") from error


def duration_s(text: str) -> float:
    """`30s`, `500ms`, `1m` or plain seconds; 0 for anything else."""
    match = _DURATION.fullmatch(text.strip())
    return float(match[1]) * _UNIT_S[match[2]] if match else 0.0
