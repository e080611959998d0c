"""`shoal serve-swarm`: Shoal's providers, and a queue of any engine, as plugins of kubeswarm's agents."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import click

from worker.cli.failures import OK
from worker.cli.invocation import Invocation, examples, shoal_options

if TYPE_CHECKING:
    from queue_backends import Backend
    from worker.settings import Settings
    from worker.swarm_plugin.llm_service import LLMService
    from worker.swarm_plugin.queue_service import QueueService

LLM, QUEUE = "llm", "queue"
DEFAULT_LISTEN = "127.0.0.1:50051"


@click.command(
    "serve-swarm",
    help="Serve kubeswarm's plugin protocol (swarm.plugin.v1, plaintext gRPC) until stopped: an agent whose "
    "SWARM_PLUGIN_LLM_ADDR is this address has its tasks run by Shoal's providers, one whose SWARM_PLUGIN_QUEUE_ADDR "
    "is this address works on the configured queue. The protocol has no authentication: listen where only agents can "
    "connect.\n\n"
    + examples(
        "shoal serve-swarm",
        "shoal serve-swarm --service llm --listen 0.0.0.0:50051",
        "shoal serve-swarm --service queue --queue postgresql://db/shoal",
    ),
)
@click.option("--listen", metavar="HOST:PORT", default=DEFAULT_LISTEN, show_default=True, help="Where to listen.")
@click.option(
    "--service",
    "services",
    type=click.Choice([LLM, QUEUE]),
    multiple=True,
    default=(LLM, QUEUE),
    help="What to serve; repeatable.  [default: both]",
)
@shoal_options
def serve_swarm(call: Invocation, listen: str, services: tuple[str, ...]) -> int:
    """Exit code 0 after SIGTERM or Ctrl-C."""
    from worker.log import configure_logging

    settings = call.settings()
    configure_logging(settings.log_level, pretty={"console": True, "json": False}.get(settings.log_format))
    asyncio.run(_serve(settings, listen, services))
    return OK


async def _serve(settings: Settings, listen: str, services: tuple[str, ...]) -> None:
    import structlog

    from worker.assembly import open_backends
    from worker.swarm_plugin.server import plugin_server

    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(await open_backends(settings))
        llm = await _llm(settings, backend, stack) if LLM in services else None
        queue = await _queue(settings, backend, stack) if QUEUE in services else None
        serving = plugin_server(listen, llm=llm, queue=queue, grace_s=settings.grace_s)
        port = await stack.enter_async_context(serving)
        log = structlog.get_logger(__name__)
        log.info("serving kubeswarm's plugin protocol", listen=listen, port=port, services=",".join(services))
        await _until_told()
        log.info("draining", grace_s=settings.grace_s)


async def _llm(settings: Settings, backend: Backend, stack: AsyncExitStack) -> LLMService:
    """With the live settings of the fleet, and its remote providers."""
    from worker.live_settings import LiveSettings
    from worker.providers_in_use import ProvidersInUse
    from worker.remote_providers import RemoteDirectory, RemoteProviders
    from worker.swarm_plugin.llm_service import LLMService

    live = await stack.enter_async_context(LiveSettings(backend.state))
    directory = await stack.enter_async_context(RemoteDirectory(backend.state))
    remote = RemoteProviders(directory, settings.plugins.channel_options(), settings.plugins.shadow)
    stack.push_async_callback(remote.aclose)
    providers = ProvidersInUse(live, create=remote.create)
    stack.push_async_callback(providers.close)
    return LLMService(providers, settings.agent)


async def _queue(settings: Settings, backend: Backend, stack: AsyncExitStack) -> QueueService:
    from worker.retries import RetryPolicy
    from worker.swarm_plugin.queue_service import QueueService

    retries = RetryPolicy(max_retries=settings.max_retries, base_s=settings.retry_base_s, most_s=settings.retry_max_s)
    service = QueueService(backend, retries=retries, lease_s=settings.backend.lease_s, timeout_s=settings.timeout_s)
    await stack.enter_async_context(service.renewing())
    return service


async def _until_told() -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, told.set)
    await told.wait()
