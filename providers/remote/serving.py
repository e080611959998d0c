"""Turns any provider into a process that engines of MIRASTACK's protocol can register and call."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import re
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping

from providers.errors import InvalidRequest
from providers.interfaces import LLMProvider
from providers.messages import AgentConfig
from providers.remote.engine_link import EngineLink, Membership
from providers.remote.environment import PluginEnvironment, is_loopback
from providers.remote.json_server import JsonServer
from providers.remote.served import Identity, ServedProvider
from providers.remote.wire import PLUGIN_SERVICE

GRACE_S = 5.0
PORT_LINE = "MIRASTACK_PLUGIN_PORT="

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")

log = logging.getLogger("shoal.remote")


def serve(
    provider: LLMProvider,
    *,
    name: str = "",
    version: str = "",
    description: str = "",
    config: AgentConfig | None = None,
) -> None:
    """Serve a provider until SIGTERM or Ctrl-C, as a process of its own: `providers.serve(MyProvider())`.

    Says `MIRASTACK_PLUGIN_PORT=<port>` on stdout, logs to stderr, and registers with the engine that
    `MIRASTACK_ENGINE_ADDR` names (all variables: `providers.remote.environment`). `name` is the provider's own unless
    given; `config` holds what a call leaves open, such as the model.

    Raises `InvalidRequest` for a wrong variable or name, `OSError` if the address is taken, `ProviderError` if gRPC is
    not installed.
    """
    if not logging.getLogger().handlers:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve_async(provider, name=name, version=version, description=description, config=config))


async def serve_async(
    provider: LLMProvider,
    *,
    name: str = "",
    version: str = "",
    description: str = "",
    config: AgentConfig | None = None,
    environ: Mapping[str, str] | None = None,
    stop: asyncio.Event | None = None,
    on_port: Callable[[int], None] | None = None,
) -> None:
    """As `serve`, inside an event loop: until a signal, or until `stop` is set.

    `environ` is read instead of the process' own; `on_port` is told the port, which stdout is otherwise. With `stop`,
    signals are left alone.
    """
    around = PluginEnvironment.read(os.environ if environ is None else environ)
    identity = _identity(provider, name, version, description)
    around.channel_options(identity.name).trusted()  # so that a wrong file is an error at once
    served = ServedProvider(provider, identity, config or AgentConfig(model=""))
    server = JsonServer(PLUGIN_SERVICE, served.methods(), {"ChatStream": served.chat_stream}, around.server_options())
    try:
        port = await server.start(*around.listen)
        (on_port or _say_port)(port)
        log.info("provider %s %s listens on port %d", identity.name, identity.version, port)
        if not is_loopback(around.listen[0]) and not around.token:
            log.warning("whoever reaches that port can call and configure this provider: set SHOAL_PLUGIN_TOKEN")
        with _told_to_stop(stop) as told:
            await _stay_registered(around, identity, served, port, told)
    finally:
        await server.stop(GRACE_S)
        await served.aclose()


async def _stay_registered(
    around: PluginEnvironment, identity: Identity, served: ServedProvider, port: int, told: asyncio.Event
) -> None:
    if around.engine is None:
        log.info("MIRASTACK_ENGINE_ADDR is not set: served without registering")
        await told.wait()
        return
    membership = Membership(
        name=identity.name,
        version=identity.version,
        grpc_addr=around.advertised_at(port),
        instance_id=identity.instance_id,
        tenant_id=around.tenant_id,
    )
    link = EngineLink(
        around.engine,
        membership,
        served.take,
        heartbeat_s=around.heartbeat_s,
        options=around.channel_options(identity.name),
    )
    bond = asyncio.create_task(link.run(), name="bond with the engine")
    leaving = asyncio.create_task(told.wait(), name="signal")
    try:
        await asyncio.wait([bond, leaving], return_when=asyncio.FIRST_COMPLETED)
        if bond.done():
            bond.result()  # it is endless: only a defect ends it
    finally:
        for task in (bond, leaving):
            task.cancel()
        await asyncio.gather(bond, leaving, return_exceptions=True)
        await link.goodbye()


@contextlib.contextmanager
def _told_to_stop(stop: asyncio.Event | None) -> Iterator[asyncio.Event]:
    """What is set when we shall end: by SIGTERM and SIGINT, unless somebody else decides that."""
    if stop is not None:
        yield stop
        return
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, told.set)
    try:
        yield told
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _identity(provider: LLMProvider, name: str, version: str, description: str) -> Identity:
    name = name or provider.name
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{name!r} is no name for a plugin: use letters, digits, _ and -, at most 100")
    return Identity(
        name=name,
        version=version or str(getattr(provider, "version", "")) or _shoal_version(),
        description=description or f"LLM provider {name}, served by Shoal",
        instance_id=str(uuid.uuid4()),
    )


def _shoal_version() -> str:
    try:
        return importlib.metadata.version("shoal")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        return "0.0.0"


def _say_port(port: int) -> None:
    sys.stdout.write(f"{PORT_LINE}{port}\n")
    sys.stdout.flush()
