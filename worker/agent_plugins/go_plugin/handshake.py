"""The first line that a plugin writes: where it listens, and how it speaks.

`CORE|APP|NETWORK|ADDRESS|PROTOCOL|CERT`, such as `1|1|unix|/tmp/plugin123|grpc|`. Source: hashicorp's go-plugin.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct

from worker.agent_plugins.errors import PluginStartFailed

CORE_VERSION = "1"
APP_VERSION = "1"
COOKIE = {"AI_STUDIO_PLUGIN": "v1"}
_TOLD = {**COOKIE, "PLUGIN_MIN_PORT": "10000", "PLUGIN_MAX_PORT": "25000", "PLUGIN_PROTOCOL_VERSIONS": APP_VERSION}
_PLUGIN_RUNTIME = {"PLUGIN_RUNTIME": "studio"}
_PASSED_ON = (
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "NO_PROXY",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "USER",
)
_LONGEST_UNIX_PATH = 103


class Handshake(Struct, frozen=True, kw_only=True):
    """Where the plugin listens, as gRPC takes it."""

    target: str


def environment(names: Iterable[str] = (), environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a plugin's process finds in its environment: what any program needs, the variables that its manifest names,
    and what go-plugin tells it. Our own keys and passwords stay with us."""
    passed_on = {name: environ[name] for name in (*_PASSED_ON, *names) if name in environ}
    return {**passed_on, **_TOLD, **_PLUGIN_RUNTIME}


def read_handshake(line: bytes) -> Handshake:
    """Raises `PluginStartFailed` that says what of the line does not fit."""
    text = line.decode(errors="replace").strip()
    fields = text.split("|")
    if len(fields) < 4:
        raise PluginStartFailed(f"the plugin's first line is {text[:200]!r}: it must be CORE|APP|NETWORK|ADDRESS|grpc")
    core, app, network, address, *rest = fields
    protocol = rest[0] if rest and rest[0] else "netrpc"
    if core != CORE_VERSION:
        raise PluginStartFailed(f"the plugin speaks core protocol {core[:20]!r}; this host speaks {CORE_VERSION}")
    if app != APP_VERSION:
        raise PluginStartFailed(f"the plugin has protocol version {app[:20]!r}; this host has {APP_VERSION}")
    if protocol != "grpc":
        raise PluginStartFailed(f"the plugin speaks {protocol[:20]!r}: only grpc is understood")
    if len(rest) > 1 and rest[1]:
        raise PluginStartFailed("the plugin wants TLS on its socket, which this host did not ask for")
    return Handshake(target=_target(network, address))


def _target(network: str, address: str) -> str:
    if network == "unix":
        if not Path(address).is_absolute() or len(address) > _LONGEST_UNIX_PATH:
            raise PluginStartFailed(f"the plugin listens on {address[:200]!r}: that is no path of a socket")
        return f"unix:{address}"
    if network == "tcp":
        host, _, port = address.rpartition(":")
        if _is_loopback(host.strip("[]")) and port.isdigit() and 0 < int(port) < 65_536:
            return address
        raise PluginStartFailed(f"the plugin listens on {address[:200]!r}: only this machine's own addresses will do")
    raise PluginStartFailed(f"the plugin listens on network {network[:20]!r}: use unix or tcp")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
