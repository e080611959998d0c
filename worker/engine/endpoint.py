"""An engine: where plugins register, and everything that looks after them."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import structlog
from msgspec import Struct

from providers.remote.addresses import Address
from providers.remote.environment import is_loopback
from providers.remote.json_server import JsonServer
from providers.remote.tenants import DEFAULT_TENANT_ID
from providers.remote.wire import ENGINE_SERVICE
from queue_backends import StateStore
from worker.background import BackgroundWork
from worker.engine.colocated import ColocatedPlugins, executables
from worker.engine.external import ExternalPlugins
from worker.engine.keeper import Keeper
from worker.engine.lease import Duty
from worker.engine.options import EngineOptions
from worker.engine.service import EngineService
from worker.errors import BadSetting
from worker.live_settings import LiveSettings
from worker.remote_providers.directory import RemoteDirectory
from worker.remote_providers.in_use import RemoteProviders
from worker.settings.plugins import PluginSettings
from worker.teams.notify.service import Notifications

STOP_GRACE_S = 2.0
KEEPER_KEY = "engine/keeper"

log = structlog.get_logger(__name__)


class Engine(Struct, frozen=True, kw_only=True):
    """A running engine."""

    host: str
    port: int
    directory: RemoteDirectory
    live: LiveSettings

    @property
    def address(self) -> str:
        """Where a plugin on this machine finds it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - a comparison
        return Address(host, self.port).target


@asynccontextmanager
async def engine_running(
    plugins: PluginSettings,
    state: StateStore,
    *,
    shares_port: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> AsyncIterator[Engine]:
    """Serve plugins for as long as the body runs.

    `shares_port`: other workers of this machine listen on the same port. Raises `BadSetting` if the address cannot be
    had or `plugins.dir` is none, `ProviderError` if gRPC is not installed.
    """
    options = EngineOptions.of(plugins, shares_port=shares_port, environ=environ)
    options.channel.trusted()  # so that a wrong file is an error at once
    folder = _folder(plugins)
    async with AsyncExitStack() as stack:
        directory = await stack.enter_async_context(RemoteDirectory(state))
        live = await stack.enter_async_context(LiveSettings(state))
        remote = RemoteProviders(directory, options.channel)
        stack.push_async_callback(remote.aclose)
        server = JsonServer(ENGINE_SERVICE, EngineService(remote, live, options).methods(), options=options.server)
        try:
            port = await server.start(options.host, options.port)
        except OSError as error:
            raise BadSetting(f"plugins.grpc_addr: {error}") from error
        stack.push_async_callback(server.stop, STOP_GRACE_S)
        engine = Engine(host=options.host, port=port, directory=directory, live=live)
        await stack.enter_async_context(_duties(plugins, folder, engine, options, state))
        if not is_loopback(options.host) and not options.server.token:
            log.warning(
                "whoever reaches this address can register and is given prompts and settings: set a shared token",
                address=f"{options.host}:{port}",
                variable=plugins.token_env,
            )
        log.info("plugins may register", address=f"{options.host}:{port}", tls=bool(options.server.tls_cert))
        yield engine


def _folder(plugins: PluginSettings) -> Path | None:
    if not plugins.dir:
        return None
    folder = Path(plugins.dir).expanduser()
    executables(folder)  # so that a wrong setting is an error at once
    return folder


@asynccontextmanager
async def _duties(
    plugins: PluginSettings, folder: Path | None, engine: Engine, options: EngineOptions, state: StateStore
) -> AsyncIterator[None]:
    duties = []
    if plugins.external:
        external = ExternalPlugins(plugins.external, engine.directory, engine.live, options)
        duties.append(BackgroundWork(external.run, name="external plugins"))
    if folder is not None:
        colocated = ColocatedPlugins(folder, lambda: _variables(engine, options, plugins))
        duty = Duty(state, _folder_key(folder))  # several engines of one machine may share the folder
        duties.append(BackgroundWork(partial(duty.whenever_held, colocated.run), name="co-located plugins"))
    # Last in, first out: plugins that we end are not to be found ill by our own keeper, and told of to people.
    keeper = Keeper(engine.directory, engine.live, options, Notifications(state).on_degraded)
    duties.append(BackgroundWork(partial(Duty(state, KEEPER_KEY).whenever_held, keeper.run), name="keeper of plugins"))
    async with AsyncExitStack() as stack:
        for each in duties:
            await stack.enter_async_context(each)
        yield


def _variables(engine: Engine, options: EngineOptions, plugins: PluginSettings) -> dict[str, str]:
    """What a co-located plugin is told."""
    scheme = "grpcs://" if options.server.tls_cert else ""
    told = {"MIRASTACK_ENGINE_ADDR": scheme + engine.address}
    if options.server.token:
        told["SHOAL_PLUGIN_TOKEN"] = options.server.token
    if plugins.tls_ca and options.server.tls_cert:
        told["SHOAL_PLUGIN_CA"] = str(Path(plugins.tls_ca).resolve())
    if not any(name in os.environ for name in _TENANT_VARIABLES):  # without one the public SDKs do not start
        told["MIRASTACK_PLUGIN_TENANT_ID"] = options.tenant_id or DEFAULT_TENANT_ID
    return told


_TENANT_VARIABLES = ("MIRASTACK_PLUGIN_TENANT_ID", "MIRASTACK_PLUGIN_TENANT_SLUG")


def _folder_key(folder: Path) -> str:
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return f"engine/plugins-dir/{socket.gethostname()}/{name}"
