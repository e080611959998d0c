"""Plugins: providers and agents in processes of their own."""

from __future__ import annotations

from worker.settings.plugins import ExternalPlugin
from worker.settings.setting import Setting, text

PLUGINS: tuple[Setting, ...] = (
    text("plugins.grpc_addr", "SHOAL_GRPC_ADDR", "Where `shoal serve` takes in plugins: `host:port`"),
    Setting(
        key="plugins.on_worker",
        type=bool,
        variable="SHOAL_PLUGINS_ON_WORKER",
        meaning="Every worker takes in plugins, too, at the same address",
    ),
    text("plugins.dir", "SHOAL_PLUGINS_DIR", "Folder of folders with executables: plugins to run beside the engine"),
    Setting(
        key="plugins.external",
        type=tuple[ExternalPlugin, ...],
        variable="SHOAL_PLUGINS_EXTERNAL",
        meaning='Plugins that do not register themselves, such as `[{"name": "my_llm", "addr": "host:50051"}]`',
    ),
    text("agent_plugins_dir", "SHOAL_AGENT_PLUGINS_DIR", "Folder of folders with a manifest each: agent plugins"),
    text("plugins.health_check_interval", "SHOAL_PLUGINS_HEALTH_CHECK_INTERVAL", "Between two checks of a plugin"),
    text("plugins.heartbeat_interval", "SHOAL_PLUGINS_HEARTBEAT_INTERVAL", "Three of them missed: it is taken off"),
    text("plugins.tenant", "SHOAL_PLUGINS_TENANT", "The only tenant whose plugins are taken in; empty: any"),
    Setting(
        key="plugins.shadow",
        type=tuple[str, ...],
        variable="SHOAL_PLUGINS_SHADOW",
        meaning="Names of built-in providers that mean a remote one instead",
    ),
    text("plugins.token_env", "", "Name of the variable with the secret that plugins have to know, if it is set"),
    text("plugins.tls_cert", "SHOAL_PLUGINS_TLS_CERT", "Certificate (PEM) of the address for plugins"),
    text("plugins.tls_key", "SHOAL_PLUGINS_TLS_KEY", "Its key"),
    text("plugins.tls_ca", "SHOAL_PLUGINS_TLS_CA", "Certificates that plugins behind TLS are checked against"),
)
